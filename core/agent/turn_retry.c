/*
 * turn_retry.c - model requests that failed: another try later, or the end of the turn (API: sessions §8.5). When the
 * next try is due is in the log, so a restart keeps to it. Loop thread; the machine (turn*.c) calls.
 */
#include "agent/session_t.h"

enum { RETRY_AFTER_MAX_MS = 86400000 };

void mr_turn_arm_retry(struct mr_thread *th)
{
  struct mr_loop *loop = th->s->d->loop;
  int64_t wait = th->due_us - mr_loop_wall_us(loop);

  if (!mr_timer_pending(&th->retry)) /* a wall clock that went back does not make it longer */
    mr_timer_set(loop, &th->retry, wait > th->wait_us ? th->wait_us : wait);
}

void mr_turn_retry(struct mr_timer *timer)
{
  struct mr_thread *th = MR_OF(timer, struct mr_thread, retry);
  struct mr_session *s = th->s;
  struct mr_txn t;
  bool model;

  if (s->poisoned || s->deleted || s->d->draining || th->status != MR_RESCHEDULING) return;
  mr_session_ref(s); /* it is dropped when there is no memory */
  mr_txn_begin(&t, th, NULL, "retry");
  mr_turn_running(&t);
  model = mr_turn_advance(&t);
  mr_turn_commit(&t, model);
  mr_session_unref(s);
}

/* A model request failed: try again later, or give the turn up. The span's end row was just written. */
void mr_turn_failed(struct mr_txn *t, const char *type, struct mr_str message, bool transient,
                    int64_t retry_after_ms)
{
  struct mr_thread *th = t->th;
  struct mr_domain *d = th->s->d;
  int64_t wait = d->retry_base_us;
  struct mr_buf b;
  struct mr_jw w;

  if (!transient || th->retries >= d->retry_max) {
    mr_turn_error(t, type, message, "exhausted");
    mr_turn_dead(t);
    return;
  }
  for (int i = 0; i < th->retries && wait < d->retry_cap_us; i++)
    wait *= 2;
  wait = wait > d->retry_cap_us ? d->retry_cap_us : wait;
  if (retry_after_ms > RETRY_AFTER_MAX_MS) retry_after_ms = RETRY_AFTER_MAX_MS;
  if (retry_after_ms * 1000 > wait) wait = retry_after_ms * 1000;
  mr_turn_error(t, type, message, "retrying");
  mr_turn_thread_row(t, &b, &w, "session.thread_status_rescheduled");
  mr_txn_end_wire_both(t, &b, &w, false);
  mr_turn_stopped(t);
  mr_txn_private(
      t, "model.retry",
      mr_str_c(mr_arena_printf(t->arena, "{\"attempt\":%d,\"due_us\":%lld,\"wait_us\":%lld}", th->retries + 1,
                               (long long)(mr_loop_wall_us(d->loop) + wait), (long long)wait)));
}

void mr_span_usage(struct mr_jw *w, const struct mr_usage *u)
{
  mr_jw_obj(w);
  mr_jw_kint(w, "input_tokens", u->input);
  mr_jw_kint(w, "output_tokens", u->output);
  mr_jw_kint(w, "cache_creation_input_tokens", u->cache_write_5m + u->cache_write_1h);
  mr_jw_kint(w, "cache_read_input_tokens", u->cache_read);
  mr_jw_obj_end(w);
}

void mr_turn_span_end(struct mr_txn *t, bool is_error, const struct mr_usage *u)
{
  struct mr_buf b;
  struct mr_jw w;
  char span[MR_ID_LEN];

  memcpy(span, t->th->span_id, sizeof span);
  mr_txn_wire(t, &b, &w, "span.model_request_end", NULL, NULL);
  mr_jw_kc(&w, "model_request_start_id", span);
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, is_error);
  mr_jw_key(&w, "model_usage");
  mr_span_usage(&w, u);
  mr_txn_end_wire(t, &b, &w);
  mr_cost_row(t, t->th->model, t->th->speed, u);
}
