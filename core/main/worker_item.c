/*
 * worker_item.c - one item of the queue: claimed by the poll, acknowledged here, held by heartbeats, served until
 * something ends it, stopped at the queue, freed. See worker_t.h. An item whose lease is lost is not stopped: it is
 * another's. Nor is that of a session in the middle of its turn when the worker ends: what is stopped is made again
 * when somebody writes to the session, and this one waits for tools; so its lease is made short, and another worker
 * gets it when that has run out.
 *
 * Invariant: mr_worker_item_end decides once why; from then on nothing starts. What must come back first (calls in the
 * sandbox, the stop) is waited for in step, which alone frees an item.
 */
#include "main/worker_t.h"

#include "main/client.h"

enum { ACK_S = 10, STOP_S = 10, STOP_TRIES = 4 };

static const char *const whys[] = {[END_IDLE] = "the session has been idle",
                                   [END_GONE] = "the session is over",
                                   [END_STOPPED] = "the queue asked for its stop",
                                   [END_OVER] = "it was stopped at the queue",
                                   [END_LOST] = "the lease is lost",
                                   [END_FAILED] = "it failed",
                                   [END_DRAINED] = "this worker ends"};

static void put_path(struct mr_buf *b, const char *prefix, const char *id, const char *tail)
{
  mr_buf_c(b, prefix);
  mr_client_escape(b, mr_str_c(id));
  mr_buf_c(b, tail);
}

static char *path_of(struct worker *w, char *out, size_t n, const char *const part[4])
{
  struct mr_buf b;

  mr_buf_init(&b, w->mem, n - 1);
  put_path(&b, part[0], part[1], "");
  if (part[2]) put_path(&b, "/work/", part[2], "");
  mr_buf_c(&b, part[3]);
  if (b.failed) mr_worker_nomem(); /* ids are bounded: the room is there */
  memcpy(out, b.p, b.n + 1);
  mr_buf_free(&b);
  return out;
}

char *mr_worker_item_path(struct item *it, char *out, size_t n, const char *tail)
{
  return path_of(it->w, out, n, (const char *const[4]){"/v1/environments/", it->w->environment, it->id, tail});
}

char *mr_worker_session_path(struct item *it, char *out, size_t n, const char *tail)
{
  return path_of(it->w, out, n, (const char *const[4]){"/v1/sessions/", it->session, NULL, tail});
}

/* ---- the end ---- */

static void item_free(struct item *it)
{
  struct worker *w = it->w;

  mr_worker_drop(&it->ack);
  mr_worker_drop(&it->stop);
  mr_worker_lease_end(it);
  mr_worker_session_end(it);
  mr_worker_calls_free(it);
  mr_sse_parser_free(&it->parser);
  mr_timer_cancel(w->loop, &it->stop_timer);
  mr_ready_cancel(w->loop, &it->step);
  *it->link = it->next;
  if (it->next) it->next->link = it->link;
  w->nitems--;
  mr_mem_free(w->mem, it->seen.slots);
  mr_mem_free(w->mem, it->answered.slots);
  mr_mem_free(w->mem, it);
}

static void finish(struct item *it)
{
  struct worker *w = it->w;
  bool ours = it->acked, bad = it->why == END_LOST || it->why == END_FAILED;

  item_free(it);
  if (ours && w->set->once && !w->draining) mr_worker_drain(w, bad ? EXIT_FAILED : EXIT_OK);
  mr_worker_check(w);
  mr_worker_poll(w);
}

static void send_stop(struct item *it);

static void on_stop(void *ud, const struct answer *a)
{
  struct item *it = ud;

  if (!a->ok && a->status != 409 && !a->fatal && it->stops < STOP_TRIES) {
    mr_timer_set(it->w->loop, &it->stop_timer,
                 mr_worker_backoff(it->w, it->stops, WORKER_SECOND / 2, 4 * WORKER_SECOND, a));
    return;
  }
  if (!a->ok && a->status != 409)
    mr_log(&it->w->sys, MR_LOG_ERROR, "worker", "%s: not stopped at the queue: %s", it->id, a->why);
  finish(it);
}

static void on_stop_timer(struct mr_timer *t)
{
  send_stop(MR_OF(t, struct item, stop_timer));
}

static void send_stop(struct item *it)
{
  char path[1024];
  struct question q = {.verb = "POST",
                       .path = mr_worker_item_path(it, path, sizeof path, "/stop"),
                       .key = it->token,
                       .body = MR_S("{\"force\":true}"),
                       .timeout_us = STOP_S * WORKER_SECOND};

  it->stops++;
  mr_worker_ask(it->w, &it->stop, &q, on_stop, it);
}

static void step(struct mr_ready *r)
{
  struct item *it = MR_OF(r, struct item, step);

  if (it->why == END_NOT) {
    if (it->w->draining && !it->ack && !mr_worker_calls_busy(it)) mr_worker_item_end(it, END_DRAINED);
    return;
  }
  if (mr_worker_calls_busy(it)) return;
  if (it->box) mr_worker_box_give(it, it->why == END_GONE);
  if (it->handed_back) return;
  if (it->why == END_LOST || it->why == END_OVER)
    finish(it);
  else if (it->why == END_DRAINED && it->unfinished)
    mr_worker_lease_hand_back(it, finish);
  else if (!it->stop && !mr_timer_pending(&it->stop_timer))
    send_stop(it);
}

void mr_worker_item_step(struct item *it)
{
  mr_ready_post(it->w->loop, &it->step);
}

void mr_worker_item_end(struct item *it, enum item_end why)
{
  struct worker *w = it->w;
  bool bad = why == END_LOST || why == END_FAILED;

  if (mr_worker_ending(it) && (why != END_LOST || it->why == END_LOST)) return;
  mr_log(&w->sys, bad ? MR_LOG_WARN : MR_LOG_INFO, "worker", "%s: ends: %s", it->id, whys[why]);
  it->why = why;
  it->unfinished = it->is_session && (!it->turn_over || mr_worker_calls_open(it));
  mr_worker_drop(&it->ack);
  mr_worker_session_end(it);
  mr_worker_calls_end(it);
  if (why == END_LOST) { /* whoever has it now has a sandbox of its own: nothing of ours runs on beside it */
    mr_worker_drop(&it->stop);
    mr_timer_cancel(w->loop, &it->stop_timer);
    if (it->box) mr_worker_box_give(it, true);
    mr_worker_calls_free(it);
    mr_worker_lease_end(it);
  }
  mr_worker_item_step(it);
}

/* ---- the beginning ---- */

static void on_ack(void *ud, const struct answer *a)
{
  struct item *it = ud;

  if (!a->ok) { /* it is given out again after a while */
    mr_log(&it->w->sys, MR_LOG_WARN, "worker", "%s: not acknowledged: %s", it->id, a->why);
    it->why = END_LOST;
    mr_worker_item_step(it);
    return;
  }
  it->acked = true;
  mr_worker_lease_begin(it);
}

static bool copy(char *out, size_t n, struct mr_str s)
{
  if (s.n == 0 || s.n >= n || memchr(s.p, 0, s.n)) return false;
  memcpy(out, s.p, s.n);
  out[s.n] = '\0';
  return true;
}

/* secret: base64 of {"sessions_token": "..."}. Without one the environment's key serves (API: resources §8.8). */
static void take_token(struct item *it, struct mr_str secret)
{
  struct worker *w = it->w;
  unsigned char *bytes;
  yyjson_doc *doc = NULL;
  int64_t n;

  snprintf(it->token, sizeof it->token, "%s", w->key);
  if (!secret.n) return;
  bytes = mr_worker_zalloc(w, secret.n + 3);
  n = mr_base64_decode(secret, bytes);
  if (n > 0) doc = yyjson_read((const char *)bytes, (size_t)n, 0);
  if (!copy(it->token, sizeof it->token, mr_json_get_str(yyjson_doc_get_root(doc), "sessions_token"))) {
    snprintf(it->token, sizeof it->token, "%s", w->key);
    mr_log(&w->sys, MR_LOG_WARN, "worker", "%s: its secret holds no token: the environment's key is used",
           it->id);
  }
  yyjson_doc_free(doc);
  memset(bytes, 0, (size_t)secret.n);
  mr_mem_free(w->mem, bytes);
}

static void item_add(struct worker *w, struct item *it)
{
  it->w = w;
  it->calls_tail = &it->calls;
  it->next = w->items;
  it->link = &w->items;
  if (it->next) it->next->link = &it->next;
  w->items = it;
  w->nitems++;
  mr_ready_init(&it->step, step);
  mr_timer_init(&it->stop_timer, on_stop_timer);
}

void mr_worker_item_new(struct worker *w, yyjson_val *work)
{
  yyjson_val *data = mr_json_get(work, "data");
  struct item *it = mr_worker_zalloc(w, sizeof *it);
  char path[1024];
  struct question q = {.verb = "POST", .key = w->key, .timeout_us = ACK_S * WORKER_SECOND};

  it->is_session = mr_str_is(mr_json_get_str(data, "type"), "session");
  if (!copy(it->id, sizeof it->id, mr_json_get_str(work, "id")) ||
      (!copy(it->session, sizeof it->session, mr_json_get_str(data, "id")) && it->is_session)) {
    mr_log(&w->sys, MR_LOG_ERROR, "worker", "the queue gave an item without usable ids: it is left alone");
    mr_mem_free(w->mem, it);
    return;
  }
  item_add(w, it);
  take_token(it, mr_json_get_str(work, "secret"));
  mr_log(&w->sys, MR_LOG_INFO, "worker", "%s: claimed: " MR_FMT " %s", it->id,
         MR_ARG(mr_json_get_str(data, "type")), it->session);
  q.path = mr_worker_item_path(it, path, sizeof path, "/ack");
  mr_worker_ask(w, &it->ack, &q, on_ack, it);
}
