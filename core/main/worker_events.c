/*
 * worker_events.c - the session of an item: retrieved once, then its event stream is opened and the history listed, in
 * this order, so that nothing falls between them (API: resources §8.8, sessions §7.6). What the stream brings waits
 * until the history was read: the history says which calls have an answer.
 *
 * Invariant: calls start only when the history was read to its end on the connection that lives. A connection that
 * breaks, or a history that cannot be read, is made again; what runs meanwhile runs on.
 */
#include "main/worker_t.h"

#include "main/client.h"

enum {
  GET_S = 30,
  LIST_S = 60,
  STALL_S = 90,
  CAP_S = 30,
  GOOD_S = 30, /* a stream that lived so long was a good one */
  LIST_LIMIT = 1000,
  LIST_MAX = 128 << 20,
  FRAME_MAX = 48 << 20
};

static void retrieve(struct item *it);
static void connect_stream(struct item *it);

static void again(struct item *it, const struct answer *a)
{
  mr_timer_set(it->w->loop, &it->connect_timer,
               mr_worker_backoff(it->w, ++it->connects, WORKER_SECOND, CAP_S * WORKER_SECOND, a));
}

/* What a refusal means that no retry helps. */
static void refused(struct item *it, const char *what, const struct answer *a)
{
  mr_log(&it->w->sys, MR_LOG_ERROR, "worker", "%s: %s: %s", it->id, what, a->why);
  mr_worker_item_end(it, a->status == 404 ? END_GONE : END_FAILED);
}

/* ---- events ---- */

static bool ends_turn(yyjson_val *e)
{
  return mr_str_is(mr_json_get_str(e, "type"), "session.status_idle") &&
         !mr_str_is(mr_json_get_str(mr_json_get(e, "stop_reason"), "type"), "requires_action");
}

/* One event, of the history or of the stream. */
static void event(struct item *it, yyjson_val *e, bool live)
{
  struct mr_str type = mr_json_get_str(e, "type");

  if (mr_str_is(type, "session.status_terminated") || mr_str_is(type, "session.deleted")) {
    mr_worker_item_end(it, END_GONE);
    return;
  }
  if (mr_str_is(type, "user.tool_confirmation"))
    mr_worker_call_verdict(it, mr_json_get_str(e, "tool_use_id"),
                           mr_str_is(mr_json_get_str(e, "result"), "allow"));
  else if (mr_str_is(type, "session.thread_status_terminated"))
    mr_worker_calls_thread_over(it, mr_json_get_str(e, "session_thread_id"));
  else
    it->turn_over = ends_turn(e); /* the two above do not count */
  if (mr_str_is(type, "agent.tool_use"))
    mr_worker_call_seen(it, e, live);
  else if (mr_str_is(type, "user.tool_result") || mr_str_is(type, "agent.tool_result"))
    mr_worker_call_answered(it, mr_json_get_str(e, "tool_use_id"));
}

static void settle(struct item *it)
{
  mr_worker_calls_run(it);
  mr_worker_idle_check(it);
}

void mr_worker_idle_check(struct item *it)
{
  struct mr_loop *l = it->w->loop;

  if (mr_worker_ending(it)) return;
  if (it->w->draining) mr_worker_item_step(it);
  if (!it->live || !it->turn_over || mr_worker_calls_open(it))
    mr_timer_cancel(l, &it->idle_timer);
  else if (!mr_timer_pending(&it->idle_timer))
    mr_timer_set(l, &it->idle_timer, it->w->set->idle_s * WORKER_SECOND);
}

static void on_idle(struct mr_timer *t)
{
  mr_worker_item_end(MR_OF(t, struct item, idle_timer), END_IDLE);
}

/* ---- the history ---- */

static void list(struct item *it, struct mr_str page);

static void on_list(void *ud, const struct answer *a)
{
  struct item *it = ud;
  yyjson_val *data = mr_json_get(a->json, "data"), *e;
  yyjson_arr_iter iter = yyjson_arr_iter_with(data);
  struct mr_str next = mr_json_get_str(a->json, "next_page");

  if (!a->ok) {
    if (a->fatal) {
      refused(it, "its history cannot be read", a);
      return;
    }
    mr_log(&it->w->sys, MR_LOG_WARN, "worker", "%s: its history could not be read: %s", it->id, a->why);
    if (a->too_large && it->list_limit > 1) it->list_limit /= 10;
    mr_worker_session_again(it);
    return;
  }
  while (data && !mr_worker_ending(it) && (e = yyjson_arr_iter_next(&iter)))
    event(it, e, false);
  if (mr_worker_ending(it)) return;
  if (next.n) {
    list(it, next);
    return;
  }
  it->live = true;
  it->live_us = mr_loop_now_us(it->w->loop);
  mr_worker_calls_resend(it);
  mr_worker_pause(it->stream, false);
  settle(it);
}

static void list(struct item *it, struct mr_str page)
{
  char path[8192];
  struct mr_buf tail;
  struct question q = {.verb = "GET", .key = it->token, .timeout_us = LIST_S * WORKER_SECOND, .max = LIST_MAX};

  mr_buf_init(&tail, it->w->mem, 6000);
  mr_buf_printf(&tail, "/events?limit=%d", it->list_limit);
  if (page.n) {
    mr_buf_c(&tail, "&page=");
    mr_client_escape(&tail, page);
  }
  if (tail.failed) {
    mr_log(&it->w->sys, MR_LOG_ERROR, "worker", "%s: its history has a cursor that is too long", it->id);
    mr_worker_item_end(it, END_FAILED);
  } else {
    q.path = mr_worker_session_path(it, path, sizeof path, tail.p);
    mr_worker_ask(it->w, &it->list, &q, on_list, it);
  }
  mr_buf_free(&tail);
}

/* ---- the stream ---- */

static int on_frame(void *ud, struct mr_str name, struct mr_str data)
{
  struct item *it = ud;
  yyjson_doc *doc = NULL;

  (void)name;
  if (mr_json_parse(it->w->mem, data, FRAME_MAX, &doc, NULL) != MR_OK) return MR_OK;
  it->connects = 0;
  if (mr_json_get(yyjson_doc_get_root(doc), "type")) event(it, yyjson_doc_get_root(doc), true);
  yyjson_doc_free(doc);
  return mr_worker_ending(it) ? MR_E_CLOSED : MR_OK;
}

static void on_opened(void *ud)
{
  struct item *it = ud;

  mr_worker_pause(it->stream, true);
  it->turn_over = false;
  mr_worker_calls_forget_new(it);
  list(it, (struct mr_str){NULL, 0});
}

static int on_bytes(void *ud, struct mr_str bytes)
{
  struct item *it = ud;
  int code = mr_sse_parser_feed(&it->parser, bytes);

  if (code == MR_OK && !mr_worker_ending(it)) settle(it);
  return code;
}

static void on_stream(void *ud, const struct answer *a)
{
  struct item *it = ud;

  if (it->live && mr_loop_now_us(it->w->loop) - it->live_us > GOOD_S * WORKER_SECOND) it->connects = 0;
  if (a->fatal) {
    refused(it, "its event stream cannot be opened", a);
    return;
  }
  mr_log(&it->w->sys, a->ok ? MR_LOG_INFO : MR_LOG_WARN, "worker", "%s: its event stream broke off%s%s", it->id,
         a->ok ? "" : ": ", a->ok ? "" : a->why);
  mr_worker_session_again(it);
}

void mr_worker_session_again(struct item *it)
{
  mr_worker_drop(&it->list);
  mr_worker_drop(&it->stream);
  it->live = false;
  mr_timer_cancel(it->w->loop, &it->idle_timer);
  again(it, NULL);
}

static void connect_stream(struct item *it)
{
  char path[1024];
  struct question q = {.verb = "GET",
                       .path = mr_worker_session_path(it, path, sizeof path, "/events/stream"),
                       .key = it->token,
                       .stall_us = STALL_S * WORKER_SECOND,
                       .opened = on_opened,
                       .bytes = on_bytes};

  it->live = false;
  mr_sse_parser_free(&it->parser);
  mr_sse_parser_init(&it->parser, it->w->mem, FRAME_MAX, on_frame, it);
  mr_worker_ask(it->w, &it->stream, &q, on_stream, it);
}

/* ---- the session ---- */

static void told_of_resources(struct item *it, yyjson_val *session)
{
  yyjson_val *r, *skills = mr_json_get(mr_json_get(session, "agent"), "skills");
  yyjson_arr_iter iter = yyjson_arr_iter_with(mr_json_get(session, "resources"));
  int stores = 0;

  while (mr_json_get(session, "resources") && (r = yyjson_arr_iter_next(&iter)))
    stores += mr_str_is(mr_json_get_str(r, "type"), "memory_store");
  if (stores || yyjson_arr_size(skills))
    mr_log(&it->w->sys, MR_LOG_WARN, "worker",
           "%s: its session has %d memory stores and %d skills: not mounted here", it->id, stores,
           (int)yyjson_arr_size(skills));
}

static void on_session(void *ud, const struct answer *a)
{
  struct item *it = ud;

  if (a->ok && mr_str_is(mr_json_get_str(a->json, "status"), "terminated")) {
    mr_worker_item_end(it, END_GONE);
  } else if (a->ok) {
    it->retrieved = true;
    it->connects = 0;
    told_of_resources(it, a->json);
    connect_stream(it);
  } else if (a->fatal) {
    refused(it, "its session cannot be read", a);
  } else {
    mr_log(&it->w->sys, MR_LOG_WARN, "worker", "%s: its session could not be read: %s", it->id, a->why);
    again(it, a);
  }
}

static void retrieve(struct item *it)
{
  char path[1024];
  struct question q = {.verb = "GET",
                       .path = mr_worker_session_path(it, path, sizeof path, ""),
                       .key = it->token,
                       .timeout_us = GET_S * WORKER_SECOND,
                       .max = 32 << 20};

  mr_worker_ask(it->w, &it->get, &q, on_session, it);
}

static void on_connect_timer(struct mr_timer *t)
{
  struct item *it = MR_OF(t, struct item, connect_timer);

  if (it->retrieved)
    connect_stream(it);
  else
    retrieve(it);
}

void mr_worker_session_begin(struct item *it)
{
  it->list_limit = LIST_LIMIT;
  mr_timer_init(&it->connect_timer, on_connect_timer);
  mr_timer_init(&it->idle_timer, on_idle);
  mr_sse_parser_init(&it->parser, it->w->mem, FRAME_MAX, on_frame, it);
  retrieve(it);
}

/* Also from a callback of the parser: its memory goes with the item. */
void mr_worker_session_end(struct item *it)
{
  mr_worker_drop(&it->get);
  mr_worker_drop(&it->list);
  mr_worker_drop(&it->stream);
  it->live = false;
  mr_timer_cancel(it->w->loop, &it->connect_timer);
  mr_timer_cancel(it->w->loop, &it->idle_timer);
}
