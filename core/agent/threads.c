/*
 * threads.c - the thread endpoints (API: sessions §12.5). They answer from the loaded session: what its threads are
 * is in its log, and only its machine reads that. Loop thread.
 */
#include "agent/outcome.h"
#include "agent/price.h"
#include "agent/session_t.h"

enum { THREADS_DEFAULT = 1000, THREADS_MAX = 1000 };

static void write_agent(struct mr_jw *w, yyjson_val *snapshot)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(snapshot);
  yyjson_val *k;

  mr_jw_obj(w);
  while ((k = yyjson_obj_iter_next(&it))) {
    if (mr_str_is(mr_json_str(k), "multiagent")) continue;
    mr_jw_key_s(w, mr_json_str(k));
    w->after_key = false; /* the value is written past the writer */
    mr_json_write(w->b, yyjson_obj_iter_get_val(k), false);
  }
  mr_jw_obj_end(w);
}

static void write_seconds(struct mr_jw *w, const char *key, int64_t us)
{
  mr_jw_key(w, key);
  mr_jw_real(w, (double)(us / 1000) / 1000.0);
}

static void write_thread(struct mr_jw *w, const struct mr_thread *th)
{
  const struct mr_session *s = th->s;
  bool primary = mr_thread_primary(th);
  int64_t now = mr_loop_wall_us(s->d->loop), created = primary ? s->created_us : th->created_us;
  int64_t archived = primary ? s->archived_us : th->archived_us, active = th->active_us;

  if (th->running_since_us && now > th->running_since_us) active += now - th->running_since_us;
  mr_jw_obj(w);
  mr_jw_kc(w, "id", th->id);
  mr_jw_kc(w, "type", "session_thread");
  mr_jw_kc(w, "session_id", s->id);
  mr_jw_key(w, "parent_thread_id");
  if (primary)
    mr_jw_null(w);
  else
    mr_jw_c(w, th->parent);
  mr_jw_key(w, "agent");
  write_agent(w, th->agent);
  mr_jw_kc(w, "status", mr_status_name(th->status));
  mr_jw_kraw(w, "workflow_run_id", MR_S("null"));
  mr_jw_key(w, "stats");
  mr_jw_obj(w);
  write_seconds(w, "active_seconds", active);
  write_seconds(w, "duration_seconds", (archived ? archived : now) - created);
  if (!primary) write_seconds(w, "startup_seconds", 0);
  mr_jw_obj_end(w);
  mr_jw_key(w, "usage");
  if (th->usage.input || th->usage.output || th->cost || th->active_us)
    mr_usage_write(w, &th->usage, active, mr_price_find(s->d->prices, th->model, th->speed) ? th->cost : -1);
  else
    mr_jw_null(w); /* until it first was idle */
  mr_jw_ktime(w, "created_at", created);
  mr_jw_ktime(w, "updated_at", s->updated_us);
  mr_jw_ktime(w, "archived_at", archived ? archived : -1);
  mr_jw_obj_end(w);
}

/* ---- list ---- */

static bool wanted(yyjson_val *statuses, const struct mr_thread *th)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(statuses);
  yyjson_val *v;

  if (yyjson_arr_size(statuses) == 0) return true;
  while ((v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_str(v), mr_status_name(th->status))) return true;
  return false;
}

static void on_list(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_page page;
  struct mr_jw w;
  int64_t i = 0, next = 0; /* a cursor is the number of the last thread shown */
  int n = 0;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return;
  }
  code = mr_page_read(c, THREADS_DEFAULT, THREADS_MAX, true, &page);
  if (code == MR_OK) code = mr_page_statuses(c);
  if (code == MR_OK) {
    mr_jw_init(&w, &c->out);
    mr_jw_obj(&w);
    mr_jw_key(&w, "data");
    mr_jw_arr(&w);
    for (struct mr_thread *th = &s->main; th && !next; th = th->next) {
      if (++i <= page.pos || !wanted(mr_json_get(c->in, "statuses"), th)) continue;
      if (n++ == page.limit)
        next = i - 1;
      else
        write_thread(&w, th);
    }
    mr_jw_arr_end(&w);
    mr_jw_key(&w, "next_page");
    if (next)
      mr_jw_str(&w, mr_page_by_pos(c, true, next));
    else
      mr_jw_null(&w);
    mr_jw_obj_end(&w);
  }
  mr_session_unref(s);
  mr_call_done(c, code);
}

void mr_sessions_threads_list(struct mr_call *c)
{
  mr_session_get(c->d, c->who.workspace, c->path[0], on_list, c);
}

/* ---- one thread ---- */

/* The thread that the path names; NULL: the call was answered, and the session's reference is gone. */
static struct mr_thread *path_thread(struct mr_call *c, int code, struct mr_session *s,
                                     const struct mr_err *err)
{
  struct mr_thread *th;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return NULL;
  }
  th = mr_thread_find(s, c->path[1]);
  if (th) return th;
  mr_not_found(c, "thread", c->path[1]);
  mr_session_unref(s);
  return NULL;
}

static void on_retrieve(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_thread *th = path_thread(c, code, s, err);
  struct mr_jw w;

  if (!th) return;
  mr_jw_init(&w, &c->out);
  write_thread(&w, th);
  mr_session_unref(s);
  mr_call_done(c, MR_OK);
}

void mr_sessions_threads_retrieve(struct mr_call *c)
{
  mr_session_get(c->d, c->who.workspace, c->path[0], on_retrieve, c);
}

static void on_events(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_thread *th = path_thread(c, code, s, err);

  if (!th) return;
  if (mr_thread_primary(th)) c->path[1] = mr_str_n("", 0); /* its own list equals the session's */
  mr_session_unref(s);
  mr_sessions_events_list(c);
}

void mr_sessions_threads_events_list(struct mr_call *c)
{
  mr_session_get(c->d, c->who.workspace, c->path[0], on_events, c);
}

/* ---- archive ---- */

static void on_archived(void *ud, int code, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_thread *th = c->priv;
  struct mr_jw w;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
  } else {
    mr_jw_init(&w, &c->out);
    write_thread(&w, th);
    mr_call_done(c, MR_OK);
  }
  mr_session_unref(th->s);
}

/* A thread that waits for the client, or for its budget, counts as idle; what it waited for dies with it, and the
 * session no longer waits for that. */
static void on_archive(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct mr_thread *th = path_thread(c, code, s, err);
  bool blocked;
  struct mr_txn t;

  if (!th) return;
  c->priv = th;
  if (mr_thread_primary(th))
    code = mr_err_set(&c->err, MR_E_STATE, NULL,
                      "thread %s is the primary thread: it is archived with its session", th->id);
  else if (th->status == MR_RUNNING || th->status == MR_RESCHEDULING)
    code = mr_err_set(&c->err, MR_E_STATE, NULL, "thread %s is %s: interrupt it before archiving", th->id,
                      mr_status_name(th->status));
  if (code != MR_OK) {
    mr_call_done(c, code);
    mr_session_unref(s);
  } else if (th->status == MR_TERMINATED) {
    on_archived(c, MR_OK, NULL);
  } else {
    blocked = s->status == MR_IDLE && (th->stop == MR_STOP_REQUIRES_ACTION || th->stop == MR_STOP_BUDGET);
    mr_txn_begin(&t, th, &c->who, "archive");
    mr_turn_flush(&t);
    mr_turn_terminated(&t);
    mr_outcome_resume(&t);
    if (blocked) mr_turn_stopped(&t);
    mr_txn_commit(&t, on_archived, c);
    mr_turn_wake(&s->main);
  }
}

void mr_sessions_threads_archive(struct mr_call *c)
{
  mr_session_get(c->d, c->who.workspace, c->path[0], on_archive, c);
}
