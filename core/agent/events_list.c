/*
 * events_list.c - GET of a session's events: log rows, and on the last page what waits in the inbox. The
 * inbox is read before the log: an input taken in between then shows in both, and is dropped here by its id;
 * the other way round it would show in neither.
 */
#include "agent/session_t.h"

enum { EVENTS_DEFAULT = 1000, EVENTS_MAX = 1000 };

struct list {
  struct mr_call *c;
  struct mr_page page;
  struct mr_log_query q;
  struct mr_str *inbox_ids, *inbox; /* bodies of waiting inputs */
  int ninbox;
  bool waiting_too; /* this list may show waiting inputs */
};

static bool in_log(const struct mr_rows *r, struct mr_str id)
{
  for (int i = 0; i < r->n; i++)
    if (mr_str_eq(r->log[i].event_id, id)) return true;
  return false;
}

static void write_inbox(struct list *l, struct mr_jw *w, const struct mr_rows *r)
{
  for (int i = 0; i < l->ninbox; i++)
    if (!in_log(r, l->inbox_ids[i])) mr_jw_raw(w, l->inbox[i]);
}

static void on_log(void *ud, const struct mr_rows *r)
{
  struct list *l = ud;
  struct mr_call *c = l->c;
  bool asc = !l->q.descending, first = l->q.after_pos == 0;
  struct mr_jw w;

  if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  if (!asc && first)
    for (int i = l->ninbox - 1; i >= 0; i--)
      if (!in_log(r, l->inbox_ids[i])) mr_jw_raw(&w, l->inbox[i]);
  for (int i = 0; i < r->n; i++)
    mr_jw_raw(&w, r->log[i].body);
  if (asc && !r->more) write_inbox(l, &w, r);
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "next_page");
  if (r->more)
    mr_jw_str(&w, mr_page_by_pos(c, asc, r->log[r->n - 1].pos));
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

static bool type_wanted(const struct list *l, struct mr_str type)
{
  for (int i = 0; i < l->q.ntypes; i++)
    if (mr_str_eq(l->q.types[i], type)) return true;
  return l->q.ntypes == 0;
}

static void on_inbox(void *ud, const struct mr_rows *r)
{
  struct list *l = ud;
  struct mr_arena *a = l->c->arena;

  if (r->code != MR_OK) {
    mr_call_fail_err(l->c, r->err);
    return;
  }
  l->inbox = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *l->inbox);
  l->inbox_ids = mr_arena_alloc(a, (size_t)(r->n + 1) * sizeof *l->inbox_ids);
  for (int i = 0; l->inbox && l->inbox_ids && i < r->n; i++) {
    if (!type_wanted(l, r->inbox[i].type)) continue;
    l->inbox[l->ninbox] = mr_arena_str(a, r->inbox[i].body);
    l->inbox_ids[l->ninbox++] = mr_arena_str(a, r->inbox[i].event_id);
  }
  mr_read_log(l->c->d->store, l->c->who.workspace, &l->q, on_log, l);
}

static void on_session(void *ud, const struct mr_rows *r)
{
  struct list *l = ud;
  int code = mr_read_check(l->c, r, NULL, "session", l->c->path[0]);

  if (code != MR_OK)
    mr_call_done(l->c, code);
  else if (l->waiting_too)
    mr_read_inbox(l->c->d->store, l->c->who.workspace, l->c->path[0], on_inbox, l);
  else
    mr_read_log(l->c->d->store, l->c->who.workspace, &l->q, on_log, l);
}

bool mr_event_type_known(struct mr_str t)
{
  static const char *const names[] = {"user.message",
                                      "user.interrupt",
                                      "user.tool_confirmation",
                                      "user.custom_tool_result",
                                      "user.tool_result",
                                      "user.define_outcome",
                                      "system.message",
                                      "agent.message",
                                      "agent.thinking",
                                      "agent.tool_use",
                                      "agent.tool_result",
                                      "agent.mcp_tool_use",
                                      "agent.mcp_tool_result",
                                      "agent.custom_tool_use",
                                      "agent.thread_context_compacted",
                                      "agent.thread_message_received",
                                      "agent.thread_message_sent",
                                      "session.status_running",
                                      "session.status_idle",
                                      "session.status_rescheduled",
                                      "session.status_terminated",
                                      "session.error",
                                      "session.updated",
                                      "session.usage",
                                      "session.thread_created",
                                      "session.thread_status_running",
                                      "session.thread_status_idle",
                                      "session.thread_status_rescheduled",
                                      "session.thread_status_terminated",
                                      "span.model_request_start",
                                      "span.model_request_end",
                                      "span.outcome_evaluation_start",
                                      "span.outcome_evaluation_ongoing",
                                      "span.outcome_evaluation_end",
                                      "workflow_run.created",
                                      "workflow_run.status_running",
                                      "workflow_run.status_idle",
                                      "workflow_run.status_ended",
                                      "workflow_run.error",
                                      "workflow_run.phase_started",
                                      "workflow_run.phase_ended"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (mr_str_is(t, names[i])) return true;
  return false;
}

static int read_types(struct list *l)
{
  yyjson_val *types = mr_json_get(l->c->in, "types"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(types);
  struct mr_str *out = mr_arena_alloc(l->c->arena, (yyjson_arr_size(types) + 1) * sizeof *out);

  if (!out) return mr_err_nomem(&l->c->err);
  while (types && (v = yyjson_arr_iter_next(&it))) {
    if (!mr_event_type_known(mr_json_str(v)))
      return mr_err_set(&l->c->err, MR_E_INVALID, "types", "types: %.*s is no type of event",
                        (int)(yyjson_get_len(v) < 80 ? yyjson_get_len(v) : 80), yyjson_get_str(v));
    out[l->q.ntypes++] = mr_json_str(v);
  }
  l->q.types = out;
  return MR_OK;
}

void mr_sessions_events_list(struct mr_call *c)
{
  struct list *l = mr_arena_alloc(c->arena, sizeof *l);
  bool asc = !mr_str_is(mr_json_get_str(c->in, "order"), "desc");
  int code;

  if (!l) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  l->c = c;
  code = mr_page_read(c, EVENTS_DEFAULT, EVENTS_MAX, asc, &l->page);
  if (code == MR_OK) code = mr_page_range(c, &l->q.processed);
  if (code == MR_OK) code = read_types(l);
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  l->q.session_id = c->path[0];
  l->q.thread_id = c->path[1]; /* a child's, whose inputs do not wait on its own list; else empty */
  l->q.descending = !asc;
  l->q.after_pos = l->page.pos;
  l->q.limit = l->page.limit;
  l->waiting_too =
      !c->path[1].n && !l->q.processed.gt && !l->q.processed.gte && !l->q.processed.lt && !l->q.processed.lte;
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_session, l);
}
