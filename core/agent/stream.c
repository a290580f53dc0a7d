/*
 * stream.c - subscribers of a session's events. A row is given to each subscriber once, after its commit;
 * previews are never stored. A subscriber that asks for replay (after: a position or an event id) first gets the
 * rows behind that from the store, as fast as it reads, then the live ones, without a gap: live rows are held back
 * while it catches up by position. What a slow reader costs is bounded by the face (event() says MR_E_CLOSED); one
 * that is told to be slow (MR_MORE) gets no more previews of what is being written: none is skipped and then resumed.
 */
#include "agent/session_t.h"

enum { PREVIEW_MESSAGE = 1, PREVIEW_THINKING = 2, REPLAY_PAGE = 200 };

/* One read of the store for a subscriber. */
struct mr_stream_read {
  struct mr_session *s;
  struct mr_subscriber *u; /* NULL: it has ended meanwhile */
};

static void sub_end(struct mr_subscriber *u, int code)
{
  struct mr_session *s = u->th->s;
  struct mr_call *c = u->call;

  if (u->reading) u->reading->u = NULL;
  *u->link = u->next;
  if (u->next) u->next->link = u->link;
  s->d->stats.subscribers--;
  c->priv = NULL;
  c->cancel = NULL;
  c->out_drained = NULL;
  if (code == MR_OK || c->err.code != MR_OK)
    mr_call_done(c, code);
  else
    mr_call_fail(c, code, NULL, "the stream was ended");
  mr_mem_free(s->d->mem, u);
  mr_session_unref(s);
}

/* Nothing comes behind it on this stream (API: sessions §7.4). */
static bool ends_stream(const struct mr_thread *th, struct mr_str type)
{
  if (mr_thread_primary(th))
    return mr_str_is(type, "session.status_terminated") || mr_str_is(type, "session.deleted");
  return mr_str_is(type, "session.thread_status_terminated");
}

/* False: the subscriber is gone. */
static bool give(struct mr_subscriber *u, const struct mr_log_row *row)
{
  int code;

  u->after = row->pos;
  if (mr_str_is(row->event_id, u->preview_id)) u->preview_id[0] = '\0';
  code = u->call->event(u->call, row->type, row->pos, row->body);
  if (code == MR_MORE) u->behind = true;
  if (code == MR_E_CLOSED)
    sub_end(u, MR_E_CLOSED);
  else if (ends_stream(u->th, row->type))
    sub_end(u, MR_OK);
  else
    return true;
  return false;
}

void mr_stream_publish(struct mr_session *s, const struct mr_log_row *row)
{
  struct mr_thread *th = mr_thread_find(s, row->thread_id);
  struct mr_subscriber *u, *next;

  if (mr_thread_primary(th)) mr_watch_publish(s, row);
  for (u = th->subs; u; u = next) {
    next = u->next;
    if (u->replaying) {
      u->missed = row->pos;
      continue;
    }
    if (row->pos > u->after) give(u, row);
  }
  if (!mr_str_is(row->type, "session.status_terminated")) return;
  while ((th = th->next)) /* no row of their own says so */
    mr_stream_end_all(th, MR_OK);
}

void mr_stream_request_began(struct mr_thread *th)
{
  for (struct mr_subscriber *u = th->subs; u; u = u->next)
    u->sees_request = !u->replaying;
}

static void preview(struct mr_thread *th, const char *event, unsigned which, const char *id, struct mr_str json)
{
  bool start = strcmp(event, "event_start") == 0;
  struct mr_subscriber *u, *next;

  for (u = th->subs; u; u = next) {
    int code;
    next = u->next;
    if (!(u->deltas & which) || !u->sees_request) continue;
    if (u->behind) u->preview_id[0] = '\0';
    if (u->behind || (!start && strcmp(u->preview_id, id) != 0)) continue;
    if (start) memcpy(u->preview_id, id, strlen(id) + 1);
    code = u->call->event(u->call, mr_str_c(event), 0, json);
    if (code == MR_MORE) u->behind = true;
    if (code == MR_E_CLOSED) sub_end(u, MR_E_CLOSED);
  }
}

static bool wanted(const struct mr_thread *th, unsigned which)
{
  for (const struct mr_subscriber *u = th->subs; u; u = u->next)
    if ((u->deltas & which) && u->sees_request) return true;
  return false;
}

bool mr_stream_previews(const struct mr_thread *th)
{
  return wanted(th, PREVIEW_MESSAGE | PREVIEW_THINKING);
}

void mr_stream_preview_start(struct mr_thread *th, const char *type, const char *id)
{
  unsigned which = strcmp(type, "agent.thinking") == 0 ? PREVIEW_THINKING : PREVIEW_MESSAGE;
  struct mr_buf b;

  if (!wanted(th, which)) return;
  mr_buf_init(&b, th->s->d->mem, 1024);
  mr_buf_printf(&b, "{\"type\":\"event_start\",\"event\":{\"type\":\"%s\",\"id\":\"%s\"}}", type, id);
  preview(th, "event_start", which, id, mr_buf_get(&b));
  mr_buf_free(&b);
}

void mr_stream_preview_text(struct mr_thread *th, const char *id, int index, struct mr_str text)
{
  struct mr_buf b;

  if (!wanted(th, PREVIEW_MESSAGE)) return;
  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_printf(&b,
                "{\"type\":\"event_delta\",\"event_id\":\"%s\",\"delta\":{\"type\":\"content_delta\","
                "\"index\":%d,\"content\":{\"type\":\"text\",\"text\":",
                id, index);
  mr_json_quote(&b, text);
  mr_buf_c(&b, "}}}");
  preview(th, "event_delta", PREVIEW_MESSAGE, id, mr_buf_get(&b));
  mr_buf_free(&b);
}

void mr_stream_end_all(struct mr_thread *th, int code)
{
  while (th->subs)
    sub_end(th->subs, code);
}

void mr_stream_end_key(struct mr_thread *th, struct mr_str key_id)
{
  for (struct mr_subscriber *u = th->subs, *next; u; u = next) {
    next = u->next;
    if (mr_str_eq(u->call->who.key_id, key_id)) sub_end(u, MR_E_CLOSED);
  }
}

/* ---- opening ---- */

static void on_cancel(struct mr_call *c)
{
  struct mr_subscriber *u = c->priv;
  if (u) sub_end(u, MR_E_CANCELLED);
}

static void read_rows(struct mr_subscriber *u);

static const char *kind_name(const struct mr_thread *th)
{
  return mr_thread_primary(th) ? "session" : "thread";
}

static const char *own_id(const struct mr_thread *th)
{
  return mr_thread_primary(th) ? th->s->id : th->id;
}

static void open_now(struct mr_subscriber *u)
{
  if (!u->open) u->call->opened(u->call);
  u->open = true;
}

/* The event that replay begins after, newest rows first. */
static void found(struct mr_subscriber *u, const struct mr_rows *r)
{
  struct mr_call *c = u->call;

  for (int i = 0; i < r->n; i++) {
    u->seek = r->log[i].pos;
    if (!mr_str_is(r->log[i].event_id, u->find)) continue;
    u->after = u->seek;
    u->find[0] = '\0';
    read_rows(u);
    return;
  }
  if (r->more)
    read_rows(u);
  else
    sub_end(u, mr_err_set(&c->err, MR_E_INVALID, "after", "after: session %s has no event %s in its log",
                          u->th->s->id, u->find));
}

static void replay(struct mr_subscriber *u, const struct mr_rows *r)
{
  if (!u->open && u->th->status == MR_TERMINATED && r->n == 0 && u->missed <= u->after) {
    sub_end(u, mr_err_set(&u->call->err, MR_E_STATE, NULL, "%s %s is terminated, and nothing was missed",
                          kind_name(u->th), own_id(u->th)));
    return;
  }
  open_now(u);
  for (int i = 0; i < r->n && !u->behind; i++)
    if (!give(u, &r->log[i])) return;
  if (u->behind) return; /* goes on when the reader has caught up */
  if (r->more || u->missed > u->after)
    read_rows(u); /* more of the past, or rows published since this snapshot */
  else
    u->replaying = false;
}

static void on_rows(void *ud, const struct mr_rows *r)
{
  struct mr_stream_read *p = ud;
  struct mr_session *s = p->s;
  struct mr_subscriber *u = p->u;

  if (u) u->reading = NULL;
  if (u && r->code != MR_OK)
    sub_end(u, r->code);
  else if (u && u->find[0])
    found(u, r);
  else if (u)
    replay(u, r);
  mr_mem_free(s->d->mem, p);
  mr_session_unref(s);
}

static void read_rows(struct mr_subscriber *u)
{
  struct mr_session *s = u->th->s;
  struct mr_log_query q = {.session_id = mr_str_c(s->id),
                           .after_pos = u->find[0] ? u->seek : u->after,
                           .descending = u->find[0],
                           .limit = REPLAY_PAGE};
  struct mr_stream_read *p = mr_mem_zalloc(s->d->mem, sizeof *p);

  if (!mr_thread_primary(u->th)) q.thread_id = mr_str_c(u->th->id);
  u->replaying = true;
  if (!p) {
    sub_end(u, MR_E_NOMEM);
    return;
  }
  p->s = s;
  p->u = u;
  u->reading = p;
  mr_session_ref(s);
  mr_read_log(s->d->store, s->ws, &q, on_rows, p);
}

/* The reader has caught up with what it was given. */
static void on_drained(struct mr_call *c)
{
  struct mr_subscriber *u = c->priv;

  u->behind = false;
  if (u->replaying && !u->reading) read_rows(u);
}

/* after: a position, as in the id lines of streams, or the id of an event of this log. */
static int read_after(struct mr_call *c, struct mr_subscriber *u)
{
  yyjson_val *v = mr_json_get(c->in, "after");
  struct mr_str id = mr_json_str(v);
  struct mr_store_stats st;

  u->replaying = v && !yyjson_is_null(v);
  if (!u->replaying) return MR_OK;
  if (id.p && mr_str_starts(id, MR_S("sevt_")) && id.n < sizeof u->find) {
    memcpy(u->find, id.p, id.n);
    return MR_OK;
  }
  mr_store_stats(c->d->store, &st);
  u->after = mr_json_get_int(c->in, "after", -1);
  if (id.p || u->after < 0)
    return mr_err_set(&c->err, MR_E_INVALID, "after",
                      "after: must be a position (0: the beginning) or the id of an event (sevt_...)");
  if (u->after > st.pos)
    return mr_err_set(&c->err, MR_E_INVALID, "after", "after: %lld is past the end of the log",
                      (long long)u->after);
  return MR_OK;
}

static int read_deltas(struct mr_call *c, unsigned *out)
{
  yyjson_val *arr = mr_json_get(c->in, "event_deltas"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);

  *out = 0;
  if (yyjson_arr_size(arr) > 100)
    return mr_err_set(&c->err, MR_E_INVALID, "event_deltas", "event_deltas: at most 100 values");
  while (arr && (v = yyjson_arr_iter_next(&it))) {
    if (mr_str_is(mr_json_str(v), "agent.message"))
      *out |= PREVIEW_MESSAGE;
    else if (mr_str_is(mr_json_str(v), "agent.thinking"))
      *out |= PREVIEW_THINKING;
    else
      return mr_err_set(&c->err, MR_E_INVALID, "event_deltas",
                        "event_deltas: only agent.message and agent.thinking can be previewed");
  }
  return MR_OK;
}

static void subscribe(struct mr_call *c, struct mr_thread *th)
{
  struct mr_session *s = th->s;
  struct mr_subscriber *u = mr_mem_zalloc(s->d->mem, sizeof *u);
  unsigned deltas = 0;

  if (!u) mr_err_nomem(&c->err);
  if (u && read_deltas(c, &deltas) == MR_OK && read_after(c, u) == MR_OK && th->status == MR_TERMINATED &&
      !u->replaying)
    mr_err_set(&c->err, MR_E_STATE, NULL, "%s %s is terminated: list its events instead", kind_name(th),
               own_id(th));
  if (c->err.code != MR_OK) {
    mr_mem_free(s->d->mem, u);
    mr_call_done(c, c->err.code);
    mr_session_unref(s);
    return;
  }
  u->call = c;
  u->th = th; /* the reference of mr_session_get to its session is now the subscriber's */
  u->deltas = deltas;
  u->next = th->subs;
  u->link = &th->subs;
  if (u->next) u->next->link = &u->next;
  th->subs = u;
  s->d->stats.subscribers++;
  c->priv = u;
  c->cancel = on_cancel;
  c->out_drained = on_drained;
  if (u->replaying)
    read_rows(u);
  else
    open_now(u);
}

static void on_session(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_thread *th;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
  } else if ((th = mr_thread_find(s, c->path[1]))) { /* no thread in the path: the primary */
    subscribe(c, th);
  } else {
    mr_not_found(c, "thread", c->path[1]);
    mr_session_unref(s);
  }
}

void mr_sessions_events_stream(struct mr_call *c)
{
  if (c->d->draining)
    mr_call_fail(c, MR_E_CLOSED, NULL, "the server is stopping");
  else
    mr_session_get(c->d, c->who.workspace, c->path[0], on_session, c);
}

void mr_sessions_threads_stream(struct mr_call *c)
{
  mr_sessions_events_stream(c);
}
