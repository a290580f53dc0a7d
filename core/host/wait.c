/*
 * wait.c - mr_call_wait: a call for hosts that can wait. It runs the queue on the calling thread until its own
 * reply is there, so other callbacks may run meanwhile; a wait that is given up leaves the reply to a later
 * dispatch.
 */
#include "host/host_t.h"

struct waiter {
  struct mr_runtime *rt;
  atomic_int refs; /* the waiting call's and the reply's */
  atomic_bool over;
  int code;
  struct mr_err err;
  char *json;
};

static void waiter_unref(struct waiter *w)
{
  struct mr_mem m = *mr_rt_mem(w->rt);

  if (atomic_fetch_sub(&w->refs, 1) != 1) return;
  mr_mem_free(&m, w->json);
  mr_mem_free(&m, w);
}

static void on_reply(void *ud, const struct mr_reply *r)
{
  struct waiter *w = ud;

  w->code = r->code;
  if (r->code != MR_OK) {
    mr_err_copy(&w->err, r->err);
  } else {
    w->json = mr_mem_strdup(mr_rt_mem(w->rt), r->json);
    if (!w->json) w->code = mr_err_nomem(&w->err);
  }
  atomic_store(&w->over, true);
  waiter_unref(w);
}

static int wait_for(struct waiter *w, int timeout_ms, struct mr_err *err)
{
  struct mr_runtime *rt = w->rt;
  int64_t end = mr_mono_us(&rt->sys) + (int64_t)timeout_ms * 1000, left;
  int code, ms;

  while (!atomic_load(&w->over)) {
    code = mr_dispatch(rt, 1, 0);
    if (code < 0) return mr_err_set(err, code, NULL, "another thread is dispatching: one at a time");
    if (code == MR_MORE || atomic_load(&w->over)) continue;
    left = end - mr_mono_us(&rt->sys);
    if (timeout_ms >= 0 && left <= 0)
      return mr_err_set(err, MR_E_TIMEOUT, NULL, "no answer within %d ms", timeout_ms);
    ms = timeout_ms < 0 ? -1 : (int)((left + 999) / 1000);
    code = mr_rt_wait(rt, ms);
    if (code != MR_OK && code != MR_E_TIMEOUT) return mr_err_set(err, code, NULL, "waiting failed");
  }
  return MR_OK;
}

int mr_call_wait(struct mr_runtime *rt, const char *op, const char *json, int timeout_ms, char **out,
                 struct mr_err *err)
{
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_reply};
  struct mr_req req = {.size = sizeof req, .op = op, .json = mr_str_c(json)};
  struct mr_op *handle = NULL;
  struct waiter *w;
  int code = mr_rt_check(rt, err);

  if (out) *out = NULL;
  if (code != MR_OK) return code;
  if (mr_queue_inside(&rt->queue))
    return mr_err_set(err, MR_E_STATE, NULL,
                      "mr_call_wait inside a callback would wait for itself: use mr_call");
  w = mr_mem_zalloc(mr_rt_mem(rt), sizeof *w);
  if (!w) return mr_err_nomem(err);
  w->rt = rt;
  atomic_init(&w->refs, 2);
  atomic_init(&w->over, false);
  code = mr_call(rt, &req, &cbs, w, &handle, err);
  if (code != MR_OK) {
    waiter_unref(w);
    waiter_unref(w);
    return code;
  }
  code = wait_for(w, timeout_ms, err);
  if (code != MR_OK) {
    mr_op_cancel(handle);
  } else if (w->code != MR_OK) {
    code = w->code;
    mr_err_copy(err, &w->err);
  } else if (out) {
    *out = w->json;
    w->json = NULL;
  }
  mr_op_release(handle);
  waiter_unref(w);
  return code;
}
