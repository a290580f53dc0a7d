/*
 * worker_lease.c - the heartbeats of an item (API: resources §8.5): the first at once, with NO_HEARTBEAT, before
 * anything else is done for the item; then one every half of the lease's time, at most 30 s apart; each cut off after
 * such an interval. The answer's last_heartbeat is what the next one expects, byte for byte.
 *
 * Invariant: when no heartbeat was answered for as long as the lease holds, the lease is lost, whoever has it: the
 * timer says so, also while a heartbeat is under way.
 */
#include "main/worker_t.h"

#include "main/client.h"

enum { TTL_FIRST_S = 90, INTERVAL_MAX_S = 30, AGAIN_MAX_S = 5, LAST_TTL_S = 10, LAST_S = 5 };

static void beat(struct item *it);
static void last_beat(struct item *it);

static void take_last(struct item *it, struct mr_str last)
{
  if (!last.n || last.n >= sizeof it->last) return;
  memcpy(it->last, last.p, last.n);
  it->last[last.n] = '\0';
}

static void granted(struct item *it, yyjson_val *json)
{
  struct mr_str last = mr_json_get_str(json, "last_heartbeat"), state = mr_json_get_str(json, "state");
  int64_t ttl = mr_json_get_int(json, "ttl_seconds", 0) * WORKER_SECOND, interval;
  struct worker *w = it->w;

  if (mr_str_is(state, "stopped")) {
    mr_worker_item_end(it, END_OVER);
    return;
  }
  if (mr_str_is(state, "stopping")) {
    mr_worker_item_end(it, END_STOPPED);
  } else if (!mr_json_get_bool(json, "lease_extended", false) || last.n == 0 || last.n >= sizeof it->last) {
    mr_worker_item_end(it, END_LOST);
    return;
  }
  take_last(it, last);
  if (ttl > 0 && ttl < 86400 * WORKER_SECOND) {
    it->ttl_us = ttl;
    interval = ttl / 2 < INTERVAL_MAX_S * WORKER_SECOND ? ttl / 2 : INTERVAL_MAX_S * WORKER_SECOND;
    it->interval_us = interval > WORKER_SECOND ? interval : WORKER_SECOND;
  }
  /* The queue counts from when it got the heartbeat, which was not before it was sent. */
  mr_timer_set(w->loop, &it->lease_timer, it->ttl_us - (mr_loop_now_us(w->loop) - it->beat_us));
  mr_timer_set(w->loop, &it->beat_timer, it->interval_us);
  if (it->held) return;
  it->held = true;
  if (mr_worker_ending(it)) return;
  if (!it->is_session)
    mr_worker_item_end(it, END_IDLE); /* a check of health: this was the answer */
  else
    mr_worker_session_begin(it);
}

static void on_beat(void *ud, const struct answer *a)
{
  struct item *it = ud;
  struct worker *w = it->w;
  int64_t again = it->interval_us < AGAIN_MAX_S * WORKER_SECOND ? it->interval_us : AGAIN_MAX_S * WORKER_SECOND;
  yyjson_val *now = mr_json_get(mr_json_get(mr_json_get(a->json, "error"), "details"), "current_state");

  if (it->handed_back) {
    if (a->ok) take_last(it, mr_json_get_str(a->json, "last_heartbeat"));
    last_beat(it);
  } else if (a->ok) {
    granted(it, a->json);
  } else if (a->status == 412) {
    struct mr_str state = mr_json_get_str(now, "state");
    mr_log(&w->sys, MR_LOG_WARN, "worker", "%s: the lease is another's%s" MR_FMT, it->id,
           state.n ? ", state " : "", MR_ARG(state));
    mr_worker_item_end(it, END_LOST);
  } else if (a->fatal) {
    mr_log(&w->sys, MR_LOG_ERROR, "worker", "%s: heartbeat refused: %s", it->id, a->why);
    mr_worker_item_end(it, END_FAILED);
    mr_worker_lease_end(it); /* it will not be granted later either */
  } else {
    mr_log(&w->sys, MR_LOG_WARN, "worker", "%s: heartbeat failed: %s", it->id, a->why);
    mr_timer_set(w->loop, &it->beat_timer, a->retry_us > again ? a->retry_us : again);
  }
}

static void send_beat(struct item *it, int ttl_s, int64_t timeout_us, answer_fn fn)
{
  char path[2048];
  struct mr_buf tail;
  struct question q = {.verb = "POST", .key = it->token, .timeout_us = timeout_us};

  mr_buf_init(&tail, it->w->mem, 1024);
  mr_buf_c(&tail, "/heartbeat?expected_last_heartbeat=");
  mr_client_escape(&tail, mr_str_c(it->last));
  if (ttl_s) mr_buf_printf(&tail, "&desired_ttl_seconds=%d", ttl_s);
  if (tail.failed) mr_worker_nomem();
  it->beat_us = mr_loop_now_us(it->w->loop);
  q.path = mr_worker_item_path(it, path, sizeof path, tail.p);
  mr_worker_ask(it->w, &it->beat, &q, fn, it);
  mr_buf_free(&tail);
}

static void beat(struct item *it)
{
  send_beat(it, it->w->set->lease_s, it->interval_us, on_beat);
}

static void on_last_beat(void *ud, const struct answer *a)
{
  struct item *it = ud;

  (void)a; /* when it was not taken the lease ends in its own time */
  it->handed_back(it);
}

static void last_beat(struct item *it)
{
  send_beat(it, LAST_TTL_S, LAST_S * WORKER_SECOND, on_last_beat);
}

void mr_worker_lease_hand_back(struct item *it, void (*done)(struct item *it))
{
  mr_timer_cancel(it->w->loop, &it->beat_timer);
  mr_timer_cancel(it->w->loop, &it->lease_timer);
  it->handed_back = done;
  if (!it->beat) last_beat(it); /* else after that one: its answer is what the last one has to expect */
}

static void on_beat_timer(struct mr_timer *t)
{
  beat(MR_OF(t, struct item, beat_timer));
}

static void on_lease_timer(struct mr_timer *t)
{
  struct item *it = MR_OF(t, struct item, lease_timer);

  mr_log(&it->w->sys, MR_LOG_WARN, "worker", "%s: no heartbeat was answered for %lld s", it->id,
         (long long)(it->ttl_us / WORKER_SECOND));
  mr_worker_item_end(it, END_LOST);
}

void mr_worker_lease_begin(struct item *it)
{
  it->ttl_us = TTL_FIRST_S * WORKER_SECOND;
  it->interval_us = INTERVAL_MAX_S * WORKER_SECOND;
  snprintf(it->last, sizeof it->last, "NO_HEARTBEAT");
  mr_timer_init(&it->beat_timer, on_beat_timer);
  mr_timer_init(&it->lease_timer, on_lease_timer);
  mr_timer_set(it->w->loop, &it->lease_timer, it->ttl_us);
  beat(it);
}

void mr_worker_lease_end(struct item *it)
{
  mr_worker_drop(&it->beat);
  mr_timer_cancel(it->w->loop, &it->beat_timer);
  mr_timer_cancel(it->w->loop, &it->lease_timer);
}
