/*
 * stream.c - subscribers of a session's events. A row is given to each subscriber once, after its commit;
 * previews are never stored. A subscriber that asks for replay (after) first gets the rows behind that
 * position from the store, then the live ones, without a gap: live rows are held back while it catches up
 * by position. What a slow reader costs is bounded by the face (event() says MR_E_CLOSED).
 */
#include "agent/session_t.h"

enum { PREVIEW_MESSAGE = 1, PREVIEW_THINKING = 2, REPLAY_PAGE = 500 };

/* A read for a subscriber; u NULL: who asked is gone. */
struct mr_replay {
  struct mr_thread *th;
  struct mr_subscriber *u;
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
  if (code == MR_OK)
    mr_call_done(c, MR_OK);
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
    if (row->pos <= u->after) continue;
    u->after = row->pos;
    if (mr_str_is(row->event_id, u->preview_id)) u->preview_id[0] = '\0';
    if (u->call->event(u->call, row->type, row->pos, row->body) == MR_E_CLOSED)
      sub_end(u, MR_E_CLOSED);
    else if (ends_stream(th, row->type))
      sub_end(u, MR_OK);
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
  struct mr_subscriber *u, *next;

  for (u = th->subs; u; u = next) {
    next = u->next;
    if (!(u->deltas & which) || !u->sees_request) continue;
    if (strcmp(event, "event_start") == 0)
      memcpy(u->preview_id, id, strlen(id) + 1);
    else if (strcmp(u->preview_id, id) != 0)
      continue;
    if (u->call->event(u->call, mr_str_c(event), 0, json) == MR_E_CLOSED) sub_end(u, MR_E_CLOSED);
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

/* ---- opening ---- */

static void on_cancel(struct mr_call *c)
{
  struct mr_subscriber *u = c->priv;
  if (u) sub_end(u, MR_E_CANCELLED);
}

static void replay(struct mr_subscriber *u);

static void on_replay(void *ud, const struct mr_rows *r)
{
  struct mr_replay *p = ud;
  struct mr_session *s = p->th->s;
  struct mr_subscriber *u = p->u;
  bool over = false;

  if (u) u->reading = NULL;
  for (int i = 0; u && i < r->n; i++) {
    u->after = r->log[i].pos;
    over = over || ends_stream(p->th, r->log[i].type);
    if (u->call->event(u->call, r->log[i].type, r->log[i].pos, r->log[i].body) == MR_E_CLOSED) {
      sub_end(u, MR_E_CLOSED);
      u = NULL;
    }
  }
  if (u && (r->code != MR_OK || over)) {
    sub_end(u, r->code);
  } else if (u && (r->more || u->missed > u->after)) {
    replay(u); /* more of the past, or rows published since this snapshot */
  } else if (u) {
    u->replaying = false;
  }
  mr_mem_free(s->d->mem, p);
  mr_session_unref(s);
}

static void replay(struct mr_subscriber *u)
{
  struct mr_session *s = u->th->s;
  struct mr_log_query q = {.session_id = mr_str_c(s->id), .after_pos = u->after, .limit = REPLAY_PAGE};
  struct mr_replay *p = mr_mem_zalloc(s->d->mem, sizeof *p);

  u->replaying = true;
  if (!p) {
    sub_end(u, MR_E_NOMEM);
    return;
  }
  if (!mr_thread_primary(u->th)) q.thread_id = mr_str_c(u->th->id);
  p->th = u->th;
  p->u = u;
  u->reading = p;
  mr_session_ref(s);
  mr_read_log(s->d->store, s->ws, &q, on_replay, p);
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
  struct mr_subscriber *u;
  unsigned deltas = 0;

  if (th->status == MR_TERMINATED) {
    mr_call_fail(c, MR_E_STATE, NULL, "%s %s is terminated: list its events instead",
                 mr_thread_primary(th) ? "session" : "thread", mr_thread_primary(th) ? s->id : th->id);
    mr_session_unref(s);
    return;
  }
  u = mr_mem_zalloc(s->d->mem, sizeof *u);
  if (!u || read_deltas(c, &deltas) != MR_OK) {
    if (!u) mr_err_nomem(&c->err);
    mr_mem_free(s->d->mem, u);
    mr_call_done(c, c->err.code);
    mr_session_unref(s);
    return;
  }
  u->call = c;
  u->th = th; /* the reference of mr_session_get to its session is now the subscriber's */
  u->deltas = deltas;
  u->after = mr_json_get_int(c->in, "after", 0);
  u->next = th->subs;
  u->link = &th->subs;
  if (u->next) u->next->link = &u->next;
  th->subs = u;
  s->d->stats.subscribers++;
  c->priv = u;
  c->cancel = on_cancel;
  c->opened(c);
  if (u->after > 0) replay(u);
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
