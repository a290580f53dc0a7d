/*
 * domain.c - the domain's life: configuration, start (what a first start needs, then waking what was
 * running), drain and cut at the end.
 */
#include "agent/price.h"
#include "agent/work.h"
#include "agent/outcome.h"

enum { WAKE_PAGE = 500, REWAKE_US = 1000000, SWEEP_ROWS = 300, SWEEP_US = 60000000, SWEEP_MORE_US = 20000 };

static void on_rewake(struct mr_timer *t);
static void on_kv_sweep(struct mr_timer *t);

static int64_t setting(yyjson_val *config, const char *section, const char *key, int64_t dflt)
{
  return mr_json_get_int(mr_json_get(config, section), key, dflt);
}

int mr_domain_new(struct mr_domain **out, const struct mr_domain_opts *o, struct mr_err *err)
{
  const struct mr_sys *sys = mr_loop_sys(o->loop);
  struct mr_domain *d = mr_mem_zalloc(&sys->mem, sizeof *d);
  int code;

  *out = NULL;
  if (!d) return mr_err_nomem(err);
  d->sys = sys;
  d->mem = &sys->mem;
  d->loop = o->loop;
  d->held_tail = &d->held;
  d->store = o->store;
  d->models = o->models;
  d->http = o->http;
  d->guard = o->guard;
  d->sandbox = o->sandbox;
  d->pool = o->pool;
  if (o->tools) d->tools = *o->tools;
  if (o->hooks) d->hooks = *o->hooks;
  if (o->watch_host) d->watch_host = *o->watch_host;
  d->retry_max = (int)setting(o->config, "retries", "max", 10);
  d->retry_base_us = setting(o->config, "retries", "base_ms", 1000) * 1000;
  d->retry_cap_us = setting(o->config, "retries", "cap_ms", 60000) * 1000;
  d->tool_rounds_max = (int)setting(o->config, "limits", "tool_rounds", 200);
  mr_caps_config(&d->caps, mr_json_get(o->config, "caps"));
  d->lease_s = setting(o->config, "work", "lease", 300);
  d->heartbeat_us = setting(o->config, "outcomes", "heartbeat_ms", 10000) * 1000;
  snprintf(d->grader_model, sizeof d->grader_model, MR_FMT,
           MR_ARG(mr_json_get_str(mr_json_get(o->config, "outcomes"), "grader_model")));
  mr_timer_init(&d->rewake, on_rewake);
  mr_timer_init(&d->kv_sweep, on_kv_sweep);
  code = mr_prices_new(&d->prices, d->mem, mr_json_get(o->config, "prices"), err);
  if (code == MR_OK) code = mr_context_config(d, mr_json_get(o->config, "context"), err);
  if (code == MR_OK) code = mr_webtool_new(d, mr_json_get(o->config, "web"), err);
  if (code == MR_OK) code = mr_sessions_init(d, err);
  if (code == MR_OK) code = mr_keys_init(d, err);
  if (code == MR_OK) code = mr_works_init(d, err);
  if (code == MR_OK) code = mr_watches_init(d, err);
  if (code == MR_OK) code = mr_store_workspace(d->store, MR_S("default"), &d->default_ws, err);
  if (code != MR_OK) mr_domain_free(&d);
  *out = d;
  return code;
}

void mr_domain_free(struct mr_domain **dp)
{
  struct mr_domain *d = *dp;

  if (!d) return;
  mr_timer_cancel(d->loop, &d->rewake);
  mr_timer_cancel(d->loop, &d->kv_sweep);
  mr_watches_free(d);
  mr_diagnosing_cut(d);
  mr_sessions_free(d);
  mr_webtool_free(d);
  mr_keys_free(d);
  mr_works_free(d);
  mr_prices_free(&d->prices);
  yyjson_doc_free(d->context);
  mr_mem_free(d->mem, d);
  *dp = NULL;
}

/* ---- start ---- */

/* Waking goes page by page, the next when all of this one are loaded: a start with many running sessions does
 * not fill the store's queue of reads. A session that could not be loaded is looked for again. */
struct wake {
  struct mr_domain *d;
  int64_t after_no;
  int pending;
  bool more, failed;
};

static void wake_page(struct wake *w);

static void wake_one_less(struct wake *w)
{
  struct mr_domain *d = w->d;

  if (--w->pending > 0) return;
  if (w->more && !d->draining) {
    wake_page(w);
    return;
  }
  if (w->failed) mr_domain_rewake(d);
  mr_mem_free(d->mem, w);
  d->waking--;
  mr_domain_settled(d);
}

static void on_awake(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct wake *w = ud;

  if (code != MR_OK) {
    mr_log(w->d->sys, MR_LOG_ERROR, "domain", "a session could not be woken: %s", err ? err->message : "");
    w->failed = w->failed || code != MR_E_NOTFOUND;
  } else {
    mr_turn_wake_all(s); /* loading it has recovered what was in flight */
    mr_session_unref(s);
  }
  wake_one_less(w);
}

static void on_to_wake(void *ud, const struct mr_rows *r)
{
  struct wake *w = ud;
  struct mr_domain *d = w->d;

  if (r->code != MR_OK)
    mr_log(d->sys, MR_LOG_ERROR, "domain", "sessions could not be listed: %s", r->err->message);
  w->failed = w->failed || r->code != MR_OK;
  w->more = r->code == MR_OK && r->more;
  for (int i = 0; i < r->n && !d->draining; i++) {
    w->after_no = r->sessions[i].no;
    w->pending++;
    mr_session_get(d, r->sessions[i].owner_epoch, r->sessions[i].id, on_awake, w);
  }
  wake_one_less(w);
}

static void wake_page(struct wake *w)
{
  w->pending = 1; /* the page itself */
  mr_read_sessions_to_wake(w->d->store, WAKE_PAGE, w->after_no, on_to_wake, w);
}

static void wake_all(struct mr_domain *d)
{
  struct wake *w =
      d->draining ? NULL : mr_mem_zalloc(d->mem, sizeof *w); /* stopped while starting: nobody is woken */
  if (!w) return;
  w->d = d;
  d->waking++;
  wake_page(w);
}

/* Sessions dropped after a failed commit go on once the store takes writes again. */
static void on_rewake(struct mr_timer *t)
{
  struct mr_domain *d = MR_OF(t, struct mr_domain, rewake);
  if (!d->draining) wake_all(d);
}

void mr_domain_begin(struct mr_call *c, void (*go)(struct mr_call *c))
{
  struct mr_domain *d = c->d;

  if (!d->started || d->ready) {
    go(c);
    return;
  }
  c->go = go;
  c->held = NULL;
  *d->held_tail = c;
  d->held_tail = &c->held;
}

/* The start is over: whoever came meanwhile goes on, in order. */
static void begin_held(struct mr_domain *d)
{
  struct mr_call *c = d->held, *next;

  d->ready = true;
  mr_keys_ready(d);
  d->held = NULL;
  d->held_tail = &d->held;
  for (; c; c = next) {
    next = c->held;
    c->go(c);
  }
}

void mr_domain_rewake(struct mr_domain *d)
{
  if (d->started && !d->draining) mr_timer_set(d->loop, &d->rewake, REWAKE_US);
}

/* ---- values whose time is over ---- */

static void on_swept(void *ud, const struct mr_commit_result *r)
{
  struct mr_domain *d = ud;

  if (d->draining) return;
  mr_timer_set(d->loop, &d->kv_sweep, r->code == MR_OK && r->swept == SWEEP_ROWS ? SWEEP_MORE_US : SWEEP_US);
}

static void on_kv_sweep(struct mr_timer *t)
{
  struct mr_domain *d = MR_OF(t, struct mr_domain, kv_sweep);
  struct mr_commit *c;

  if (d->draining) return;
  c = mr_commit_new(d->store, &(struct mr_origin){.workspace = d->default_ws});
  if (!c) mr_timer_set(d->loop, t, SWEEP_US);
  mr_commit_kv_sweep(c, SWEEP_ROWS);
  mr_commit_submit(&c, on_swept, d);
}

static void on_default(void *ud, int code)
{
  struct mr_domain *d = ud;
  if (code != MR_OK) mr_log(d->sys, MR_LOG_ERROR, "domain", "the environment \"default\" could not be made");
  if (!d->draining && !MR_SWITCH("no-wake")) wake_all(d);
  begin_held(d);
  d->waking--;
  mr_domain_settled(d);
}

/* Before anything changes a session, so that it is known which of them have a work item. */
static void on_works(void *ud, int code)
{
  struct mr_domain *d = ud;

  (void)code; /* it was logged; the queue is closed then */
  mr_environments_ensure_default(d, on_default, d);
}

void mr_domain_start(struct mr_domain *d)
{
  if (d->started) return;
  d->started = true;
  mr_timer_set(d->loop, &d->kv_sweep, SWEEP_US);
  d->waking++;
  mr_works_load(d, on_works, d);
}

/* ---- stop ---- */

static void drain_session(struct mr_session *s)
{
  mr_outcome_drain(s);
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_stream_end_all(th, MR_E_CLOSED);
}

void mr_domain_settled(struct mr_domain *d)
{
  void (*fn)(void *ud) = d->idle_fn;
  if (!fn || d->waking > 0 || d->stats.model_running > 0 || d->stats.handlers_running > 0 ||
      d->stats.watchers_running > 0)
    return;
  d->idle_fn = NULL;
  fn(d->idle_ud);
}

void mr_domain_drain(struct mr_domain *d, void (*idle_fn)(void *ud), void *ud)
{
  d->draining = true;
  d->idle_fn = idle_fn;
  d->idle_ud = ud;
  mr_session_each(d, drain_session);
  mr_works_drain(d);
  mr_domain_settled(d);
}

void mr_domain_cut(struct mr_domain *d)
{
  d->draining = d->cut = true;
  mr_watches_cut(d);
  mr_session_each(d, mr_turn_stop_all);
}

void mr_domain_stats(const struct mr_domain *d, struct mr_domain_stats *out)
{
  *out = d->stats;
  mr_sandbox_egress_stats(d->sandbox, &out->egress);
}
