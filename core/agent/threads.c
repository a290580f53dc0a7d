/*
 * threads.c - the thread endpoints. Every session has its primary thread from the start (API: sessions §12.2);
 * more of them come with multiagent sessions.
 */
#include "agent/session_t.h"

static void write_agent(struct mr_jw *w, struct mr_str snapshot)
{
  yyjson_doc *doc = NULL;
  yyjson_val *k;
  yyjson_obj_iter it;

  mr_json_parse(w->b->mem, snapshot, SIZE_MAX, &doc, NULL);
  it = yyjson_obj_iter_with(yyjson_doc_get_root(doc));
  mr_jw_obj(w);
  while (doc && (k = yyjson_obj_iter_next(&it))) {
    if (mr_str_is(mr_json_str(k), "multiagent")) continue;
    mr_jw_key_s(w, mr_json_str(k));
    w->after_key = false;
    mr_json_write(w->b, yyjson_obj_iter_get_val(k), false);
  }
  mr_jw_obj_end(w);
  yyjson_doc_free(doc);
}

static void write_thread(struct mr_jw *w, const struct mr_session_row *r, int64_t now_us)
{
  yyjson_doc *head = NULL;
  yyjson_val *h;
  int64_t active, since;

  mr_json_parse(w->b->mem, r->head, SIZE_MAX, &head, NULL);
  h = yyjson_doc_get_root(head);
  active = mr_json_get_int(h, "active_us", 0);
  since = mr_json_get_int(h, "running_since_us", 0);
  if (since && now_us > since) active += now_us - since;
  mr_jw_obj(w);
  mr_jw_kstr(w, "id", mr_json_get_str(h, "primary"));
  mr_jw_kc(w, "type", "session_thread");
  mr_jw_kstr(w, "session_id", r->id);
  mr_jw_kraw(w, "parent_thread_id", MR_S("null"));
  mr_jw_key(w, "agent");
  write_agent(w, r->agent);
  mr_jw_kstr(w, "status", r->status);
  mr_jw_kraw(w, "workflow_run_id", MR_S("null"));
  mr_jw_key(w, "stats");
  mr_jw_obj(w);
  mr_jw_key(w, "active_seconds");
  mr_jw_real(w, (double)(active / 1000) / 1000.0);
  mr_jw_key(w, "duration_seconds");
  mr_jw_real(w, (double)(((r->archived_us ? r->archived_us : now_us) - r->created_us) / 1000) / 1000.0);
  mr_jw_obj_end(w);
  mr_jw_key(w, "usage");
  w->after_key = false;
  mr_json_write(w->b, mr_json_get(h, "usage"), false);
  mr_jw_ktime(w, "created_at", r->created_us);
  mr_jw_ktime(w, "updated_at", r->updated_us);
  mr_jw_ktime(w, "archived_at", r->archived_us ? r->archived_us : -1);
  mr_jw_obj_end(w);
  yyjson_doc_free(head);
}

static void on_list(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  yyjson_val *st = mr_json_get(c->in, "statuses"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(st);
  bool wanted = yyjson_arr_size(st) == 0;
  struct mr_jw w;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  while (st && (v = yyjson_arr_iter_next(&it)))
    wanted = wanted || mr_str_eq(mr_json_str(v), r->sessions[0].status);
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  if (wanted) write_thread(&w, &r->sessions[0], mr_loop_wall_us(c->d->loop));
  mr_jw_arr_end(&w);
  mr_jw_kraw(&w, "next_page", MR_S("null"));
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_sessions_threads_list(struct mr_call *c)
{
  int code = mr_page_statuses(c);

  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_read_session(c->d->store, c->who.workspace, c->path[0], on_list, c);
}

/* Reads the session and goes on only if path[1] is its primary thread. */
static bool primary_or_404(struct mr_call *c, const struct mr_rows *r)
{
  yyjson_doc *head = NULL;
  bool yes = false;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return false;
  }
  if (mr_json_parse(c->mem, r->sessions[0].head, SIZE_MAX, &head, NULL) == MR_OK)
    yes = mr_str_eq(mr_json_get_str(yyjson_doc_get_root(head), "primary"), c->path[1]);
  yyjson_doc_free(head);
  if (!yes) mr_not_found(c, "thread", c->path[1]);
  return yes;
}

static void on_retrieve(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  struct mr_jw w;

  if (!primary_or_404(c, r)) return;
  mr_jw_init(&w, &c->out);
  write_thread(&w, &r->sessions[0], mr_loop_wall_us(c->d->loop));
  mr_call_done(c, MR_OK);
}

void mr_sessions_threads_retrieve(struct mr_call *c)
{
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_retrieve, c);
}

static void on_events(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  if (primary_or_404(c, r)) mr_sessions_events_list(c); /* the primary thread's own list equals the session's */
}

void mr_sessions_threads_events_list(struct mr_call *c)
{
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_events, c);
}
