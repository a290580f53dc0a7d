/*
 * pass - a passed-through request from its body to its answer: which candidate, and what when none answers; see
 * pass.h. The two ways of asking are pass_raw.c and pass_form.c.
 *
 * A candidate is given up for the next only before the client has seen anything, and only for what another may not
 * suffer from (429, 5xx, 529, no connection, silence). Without another candidate an upstream's error is the answer.
 * Invariant: done once, last, from the drain. Bodies in flight are bounded together. Loop thread.
 */
#include "model/pass_t.h"

#include <stdio.h>

enum { BODY_MAX = 64 << 20 };
static const int64_t BYTES_MAX = INT64_C(256) << 20;

/* ---- the end ---- */

static void pass_free(struct mr_pass *p)
{
  const struct mr_mem *mem = p->mem;

  mr_ready_cancel(p->loop, &p->ready);
  mr_patience_stop(&p->patience);
  mr_tries_free(&p->tries);
  mr_buf_free(&p->refusal);
  mr_buf_free(&p->text);
  yyjson_doc_free(p->doc);
  mr_arena_free(&p->arena);
  mr_mem_free(mem, p);
}

void mr_pass_over(struct mr_pass *p, bool whole)
{
  p->m->pass_bytes -= (int64_t)p->req.body.n;
  mr_models_unref(p->m);
  p->cbs.done(p->ud, whole);
  pass_free(p);
}

void mr_pass_envelope(const struct mr_pass *p, const char *type, struct mr_str why, struct mr_buf *out)
{
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "error");
  mr_jw_key(&w, "error");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", type);
  mr_jw_kstr(&w, "message", why);
  mr_jw_obj_end(&w);
  mr_jw_kstr(&w, "request_id", p->req.request_id);
  mr_jw_obj_end(&w);
}

static void tell_error(struct mr_pass *p)
{
  struct mr_str lines[2] = {MR_S("content-type: application/json")};
  char retry[64];
  struct mr_buf b;
  int n = 1;

  if (p->cancelled) {
    mr_pass_over(p, false);
    return;
  }
  if (p->retry_after_ms > 0) {
    snprintf(retry, sizeof retry, "retry-after: %lld", (long long)((p->retry_after_ms + 999) / 1000));
    lines[n++] = mr_str_c(retry);
  }
  mr_buf_init(&b, p->mem, 1 << 16);
  mr_pass_envelope(p, p->type, mr_str_c(p->why), &b);
  p->cbs.head(p->ud, p->status, lines, n, (int64_t)b.n);
  p->cbs.data(p->ud, mr_buf_get(&b));
  mr_buf_free(&b);
  mr_pass_over(p, true);
}

static void on_ready(struct mr_ready *r)
{
  tell_error(MR_OF(r, struct mr_pass, ready));
}

/* The error is told from the drain: this may run inside mr_models_pass. */
void mr_pass_error(struct mr_pass *p, int status, const char *type, int64_t retry_after_ms, struct mr_str why)
{
  p->status = status;
  p->type = type;
  p->retry_after_ms = retry_after_ms;
  snprintf(p->why, sizeof p->why, MR_FMT, MR_ARG(why));
  p->why[mr_utf8_whole(mr_str_c(p->why))] = '\0';
  mr_ready_post(p->loop, &p->ready);
}

/* ---- candidates ---- */

static void uncounted(struct mr_pass *p)
{
  char why[400];

  snprintf(why, sizeof why,
           "model: " MR_FMT
           " is served by %s, which cannot count tokens: only a provider of the Messages API can",
           MR_ARG(p->model), p->tries.t[p->tries.at].e->name);
  mr_tries_leave(&p->tries, 0);
  mr_pass_error(p, 400, "invalid_request_error", 0, mr_str_c(why));
}

/* Inside the gate of the candidate at hand. */
static void ask(struct mr_pass *p)
{
  struct mr_err err = {0};
  bool raw = p->tries.t[p->tries.at].e->kind == MR_KIND_ANTHROPIC;
  int code;

  if (!raw && p->req.count) {
    uncounted(p);
    return;
  }
  code = raw ? mr_pass_raw(p, &err) : mr_pass_form(p, &err);
  if (code == MR_OK) return;
  if (code != MR_E_INVALID && code != MR_E_NOMEM && mr_pass_next(p, mr_str_c(err.message))) return;
  mr_tries_leave(&p->tries, 0);
  mr_pass_error(p, err.http_status ? err.http_status : 500, err.type[0] ? err.type : "api_error", 0,
                mr_str_c(err.message));
}

static void none(struct mr_pass *p)
{
  bool closing = p->tries.at < p->tries.n && p->tries.t[p->tries.at].e->gone;

  if (!closing) {
    mr_pass_error(p, 429, "rate_limit_error", p->tries.retry_after_ms > 0 ? p->tries.retry_after_ms : 1000,
                  mr_str_c(p->tries.why));
    return;
  }
  mr_pass_error(p, 503, "api_error", 0, MR_S("the server is closing")); /* the loop may not turn again */
  tell_error(p);
}

static void enter(struct mr_pass *p)
{
  int code = mr_tries_enter(&p->tries);

  if (code == MR_OK)
    ask(p);
  else if (code != MR_MORE)
    none(p);
}

static void on_go(struct mr_tries *t)
{
  ask(MR_OF(t, struct mr_pass, tries));
}

static void on_none(struct mr_tries *t)
{
  none(MR_OF(t, struct mr_pass, tries));
}

bool mr_pass_next(struct mr_pass *p, struct mr_str why)
{
  if (p->cancelled || p->headed || !mr_tries_next(&p->tries)) return false;
  mr_log(mr_loop_sys(p->loop), MR_LOG_WARN, "model", MR_FMT "; passing on to %s", MR_ARG(why),
         p->tries.t[p->tries.at].e->name);
  enter(p);
  return true;
}

/* ---- the beginning ---- */

static int read_body(struct mr_pass *p, struct mr_err *err)
{
  yyjson_val *root, *k;
  yyjson_obj_iter it;
  int models = 0, code = mr_json_parse(p->mem, p->req.body, BODY_MAX, &p->doc, err);

  if (code == MR_E_INVALID)
    return mr_err_set(err, MR_E_INVALID, NULL, "the request body is not valid JSON: %s", err->message);
  if (code != MR_OK) return code;
  root = yyjson_doc_get_root(p->doc);
  if (!yyjson_is_obj(root))
    return mr_err_set(err, MR_E_INVALID, NULL, "the request body must be a JSON object");
  it = yyjson_obj_iter_with(root);
  while ((k = yyjson_obj_iter_next(&it)))
    models += mr_str_is(mr_json_str(k), "model");
  p->model = mr_json_get_str(root, "model");
  if (models > 1) return mr_err_set(err, MR_E_INVALID, "model", "model: given twice");
  if (!p->model.n) return mr_err_set(err, MR_E_INVALID, "model", "model: Field required");
  if (p->model.n > 256) return mr_err_set(err, MR_E_INVALID, "model", "model: at most 256 bytes");
  if (!yyjson_is_arr(mr_json_get(root, "messages")))
    return mr_err_set(err, MR_E_INVALID, "messages", "messages: Field required, an array");
  p->stream = yyjson_is_true(mr_json_get(root, "stream")) && !p->req.count;
  return MR_OK;
}

int mr_models_pass(struct mr_models *m, const struct mr_pass_req *req, const struct mr_pass_cbs *cbs, void *ud,
                   struct mr_pass **out, struct mr_err *err)
{
  struct mr_pass *p = NULL;
  int code = MR_OK;

  *out = NULL;
  if (m->pass_bytes + (int64_t)req->body.n > BYTES_MAX)
    return mr_err_set(err, MR_E_FULL, NULL, "too much is being passed through at once");
  p = mr_mem_zalloc(&m->sys->mem, sizeof *p);
  if (!p) return mr_err_nomem(err);
  p->mem = &m->sys->mem;
  p->loop = m->loop;
  p->req = *req;
  p->cbs = *cbs;
  p->ud = ud;
  p->open = -1;
  p->tries.go = on_go;
  p->tries.none = on_none;
  mr_ready_init(&p->ready, on_ready);
  mr_buf_init(&p->refusal, p->mem, 1 << 20);
  mr_buf_init(&p->text, p->mem, (size_t)BODY_MAX * 2);
  p->arena = mr_arena_new(p->mem, 2048);
  if (!p->arena) code = mr_err_nomem(err);
  if (code == MR_OK) code = read_body(p, err);
  if (code == MR_OK) {
    p->req.version = mr_arena_str(p->arena, req->version);
    p->req.betas = mr_arena_str(p->arena, req->betas);
    p->req.request_id = mr_arena_str(p->arena, req->request_id);
    if (!p->req.version.p || !p->req.betas.p || !p->req.request_id.p) code = mr_err_nomem(err);
  }
  if (code == MR_OK && mr_tries_find(&p->tries, m, p->model, p->arena, err) != MR_OK)
    code = err && err->code == MR_E_NOMEM
               ? MR_E_NOMEM
               : mr_err_set(err, MR_E_NOTFOUND, "model", "%s", err ? err->message : "");
  if (code != MR_OK) {
    pass_free(p);
    return code;
  }
  p->m = m;
  m->refs++;
  m->pass_bytes += (int64_t)req->body.n;
  *out = p;
  enter(p);
  return MR_OK;
}

/* ---- the client's side ---- */

void mr_pass_resume(struct mr_pass *p)
{
  if (!p->out || p->cancelled) return;
  mr_patience_hold(&p->patience, false);
  mr_http_out_pause(p->out, false);
}

void mr_pass_cancel(struct mr_pass *p)
{
  if (p->cancelled) return;
  p->cancelled = true;
  if (p->out) {
    mr_http_out_cancel(p->out);
  } else if (p->inner) {
    mr_models_cancel(p->inner);
  } else {
    if (p->tries.at < p->tries.n) mr_gate_drop(&p->tries.t[p->tries.at].e->gate, &p->tries.w);
    mr_ready_post(p->loop, &p->ready);
  }
}
