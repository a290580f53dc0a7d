/*
 * probe - see probe.h. Asked past the gate: a check must not wait for a line, and happens once.
 *
 * Servers of chat completions differ in what they list: one model whatever its file (llama.cpp), names with a tag
 * (Ollama's "qwen3:latest" answers to "qwen3"). So a routed name that is not listed is said, not taken for an error.
 * llama.cpp gives the list without a key: only of the makers' own services is a key said to be accepted.
 * Loop thread.
 */
#include "model/probe.h"
#include "model/failure.h"
#include "model/models_t.h"
#include "model/upstream.h"

#include <stdio.h>

enum { BODY_MAX = 4 << 20, CONNECT_MS = 10000, TOTAL_MS = 30000 };

struct asking {
  struct mr_models *m;
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_model_entry *e;
  struct mr_probe p;
  void (*done)(void *ud, const struct mr_probe *p);
  void *ud;
  struct mr_ready ready;
  struct mr_buf body, sent;
  struct mr_str part;
  struct mr_str model; /* the first that is routed here, by its id there; or empty */
  int status;
  bool token; /* one token is asked for, not the list */
};

static const char *kind_name(const struct mr_model_entry *e)
{
  return e->kind == MR_KIND_ANTHROPIC ? "anthropic" : e->kind == MR_KIND_OPENAI ? "openai" : "scripted";
}

static bool over_http(const struct mr_model_entry *e)
{
  return e->v && (e->kind == MR_KIND_ANTHROPIC || e->kind == MR_KIND_OPENAI);
}

int mr_models_providers(const struct mr_models *m)
{
  int n = 0;
  for (const struct mr_model_entry *e = m->own; e; e = e->next)
    n++;
  return n;
}

bool mr_models_loose(struct mr_models *m, int i, struct mr_str *pattern, struct mr_str *provider)
{
  for (int k = 0; k < 2; k++) {
    const struct mr_model_routes *r = k ? &m->falls : &m->routes;
    for (int a = 0; a < r->n; a++)
      for (int b = 0; b < r->v[a].n; b++) {
        if (mr_model_entry_find(m, r->v[a].to[b].provider) || i-- > 0) continue;
        *pattern = r->v[a].pattern;
        *provider = r->v[a].to[b].provider;
        return true;
      }
  }
  return false;
}

/* The i-th model that the configuration routes to a provider, by its id there; p NULL: no more. */
static struct mr_str routed(const struct mr_models *m, const char *name, int i)
{
  for (int k = 0; k < 2; k++) {
    const struct mr_model_routes *r = k ? &m->falls : &m->routes;
    for (int a = 0; a < r->n; a++)
      for (int b = 0; b < r->v[a].n; b++) {
        const struct mr_model_target *t = &r->v[a].to[b];
        struct mr_str id = t->id.n ? t->id : r->v[a].pattern;
        if (!mr_str_is(t->provider, name) || (id.n && id.p[id.n - 1] == '*') || i-- > 0) continue;
        return id;
      }
  }
  return mr_str_n(NULL, 0);
}

/* ---- what was found ---- */

static void over(struct asking *a)
{
  const struct mr_mem *mem = a->mem;

  a->done(a->ud, &a->p);
  mr_model_entry_unuse(a->e);
  mr_buf_free(&a->body);
  mr_buf_free(&a->sent);
  mr_mem_free(mem, a);
}

static void on_ready(struct mr_ready *r)
{
  over(MR_OF(r, struct asking, ready));
}

static void fix_key(struct asking *a, const char *what)
{
  bool an = strcmp(a->e->name, "anthropic") == 0, op = strcmp(a->e->name, "openai") == 0;

  if (an || op)
    snprintf(a->p.fix, sizeof a->p.fix, "%s MOONRIG_%s_API_KEY (or models.%s.api_key)", what,
             an ? "ANTHROPIC" : "OPENAI", a->e->name);
  else
    snprintf(a->p.fix, sizeof a->p.fix, "%s models.%s.api_key", what, a->e->name);
}

static bool listed(yyjson_val *data, struct mr_str id)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(data);
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_str have = mr_json_get_str(v, "id");
    if (mr_str_eq(have, id)) return true;
    if (mr_str_starts(have, id) && mr_str_is(mr_str_n(have.p + id.n, have.n - id.n), ":latest")) return true;
  }
  return false;
}

static void whole_list(struct asking *a)
{
  struct mr_upstream *u = a->e->self;
  yyjson_doc *d = NULL;
  yyjson_val *data = NULL;
  struct mr_str id, missing = {0};
  bool more = false;

  if (mr_json_parse(a->mem, mr_buf_get(&a->body), BODY_MAX, &d, NULL) == MR_OK)
    data = mr_json_get(yyjson_doc_get_root(d), "data");
  if (!yyjson_is_arr(data)) {
    a->p.outcome = MR_PROBE_REFUSED;
    snprintf(a->p.found, sizeof a->p.found, "HTTP 200, but no list of models");
    snprintf(a->p.fix, sizeof a->p.fix, "is models.%s.base_url right?", a->e->name);
    yyjson_doc_free(d);
    return;
  }
  more = yyjson_is_true(mr_json_get(yyjson_doc_get_root(d), "has_more"));
  for (int i = 0; !missing.p && (id = routed(a->m, a->e->name, i)).p; i++)
    if (!listed(data, id)) missing = id;
  a->p.outcome = MR_PROBE_OK;
  snprintf(a->p.found, sizeof a->p.found, "%zu%s model%s%s", yyjson_arr_size(data), more ? "+" : "",
           yyjson_arr_size(data) == 1 ? "" : "s", u->key && u->home ? ", key accepted" : "");
  if (missing.p && !more) {
    size_t n = strlen(a->p.found);
    snprintf(a->p.found + n, sizeof a->p.found - n, "; \"%.*s\" is not among them",
             (int)(missing.n > 100 ? 100 : missing.n), missing.p);
    snprintf(a->p.fix, sizeof a->p.fix, "correct the id in models.route, unless the server takes any name");
  }
  yyjson_doc_free(d);
}

static void refused(struct asking *a)
{
  struct mr_upstream *u = a->e->self;
  struct mr_failure f = {0};

  mr_failure_from(&f, a->mem, a->e->name, mr_str_c(u->key), a->status, mr_buf_get(&a->body));
  a->p.outcome = MR_PROBE_REFUSED;
  snprintf(a->p.found, sizeof a->p.found, "%.490s", f.message + strlen(a->e->name) + 2);
  if (a->status == 401 || a->status == 403)
    fix_key(a, u->key ? "the key was refused: correct" : "it wants a key: set");
  else if (a->status == 404)
    snprintf(a->p.fix, sizeof a->p.fix, "nothing is served there: correct models.%s.base_url", a->e->name);
  else if (a->token)
    snprintf(a->p.fix, sizeof a->p.fix, "does it serve \"%.*s\"? See models.route",
             (int)(a->model.n > 100 ? 100 : a->model.n), a->model.p);
}

static int ask(struct asking *a, struct mr_err *err);

static void on_head(void *ud, struct mr_http_out *r, int status, struct mr_str headers)
{
  struct asking *a = ud;
  (void)r;
  (void)headers;
  a->status = status;
}

static int on_data(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  struct asking *a = ud;
  (void)r;
  mr_buf_str(&a->body, bytes);
  return a->body.failed;
}

static void on_done(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct asking *a = ud;
  struct mr_err err = {0};
  bool no_list = a->status == 404 || a->status == 405 || a->status == 501;

  (void)r;
  if (!a->token && no_list && a->model.n) {
    a->token = true;
    if (ask(a, &err) == MR_OK) return;
  }
  if (a->status == 0 || d->code != MR_OK) {
    a->p.outcome = MR_PROBE_UNREACHABLE;
    snprintf(a->p.found, sizeof a->p.found, "no answer: %.400s",
             d->err && d->err->message[0] ? d->err->message : mr_strerror(d->code));
    snprintf(a->p.fix, sizeof a->p.fix,
             "is it running, and models.%s.base_url right? (A certificate of your own: ca_file)", a->e->name);
  } else if (a->status == 200 && a->token) {
    a->p.outcome = MR_PROBE_OK;
    snprintf(a->p.found, sizeof a->p.found, "no list of models, but \"%.*s\" answers",
             (int)(a->model.n > 100 ? 100 : a->model.n), a->model.p);
  } else if (a->status == 200) {
    whole_list(a);
  } else {
    refused(a);
  }
  over(a);
}

/* ---- asking ---- */

static int ask(struct asking *a, struct mr_err *err)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  struct mr_upstream *u = a->e->self;
  const char *tail = a->e->kind == MR_KIND_ANTHROPIC ? "/messages" : "/chat/completions";
  size_t base = strlen(u->url) - strlen(tail);
  char key[4200] = "", url[2100];
  struct mr_str lines[4] = {MR_S("accept: application/json"), MR_S("user-agent: moonrig/" MR_VERSION),
                            MR_S("anthropic-version: 2023-06-01")};
  struct mr_http_out *out;
  int n = a->e->kind == MR_KIND_ANTHROPIC ? 3 : 2;

  if (a->token) lines[n++] = MR_S("content-type: application/json");
  struct mr_str all[5];
  memcpy(all, lines, sizeof lines);
  if (u->key) {
    snprintf(key, sizeof key, a->e->kind == MR_KIND_ANTHROPIC ? "x-api-key: %s" : "authorization: Bearer %s",
             u->key);
    all[n++] = mr_str_c(key);
  }
  snprintf(url, sizeof url, "%.*s%s", (int)base, u->url, a->token ? tail : "/models");
  snprintf(a->p.url, sizeof a->p.url, "%.*s", (int)(base > 390 ? 390 : base), u->url);
  mr_buf_reset(&a->body);
  mr_buf_reset(&a->sent);
  if (a->token) {
    mr_buf_c(&a->sent, "{\"model\":");
    mr_json_quote(&a->sent, a->model);
    mr_buf_c(&a->sent, ",\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"Say ok.\"}]}");
  }
  a->part = mr_buf_get(&a->sent);
  a->status = 0;
  struct mr_http_out_req req = {.method = a->token ? "POST" : "GET",
                                .url = url,
                                .headers = all,
                                .nheaders = n,
                                .body = &a->part,
                                .nbody = a->token ? 1 : 0,
                                .ca_file = u->ca_file,
                                .connect_timeout_ms = CONNECT_MS,
                                .timeout_ms = TOTAL_MS};
  return mr_http_out_start(u->http, &req, &cbs, a, &out, err);
}

static void without_asking(struct asking *a)
{
  struct mr_model_entry *e = a->e;
  struct mr_upstream *u = e->self;

  a->p.outcome = MR_PROBE_SKIPPED;
  if (e->refusal.code) {
    a->p.outcome = MR_PROBE_REFUSED;
    snprintf(a->p.found, sizeof a->p.found, "%.490s", e->refusal.message);
  } else if (e->kind == MR_KIND_SCRIPTED) {
    a->p.outcome = MR_PROBE_OK;
    snprintf(a->p.found, sizeof a->p.found, "its file was read");
  } else {
    snprintf(a->p.url, sizeof a->p.url, "%.390s", u->url);
    snprintf(a->p.found, sizeof a->p.found, "not asked; %s", u->key ? "a key is set" : "no key is set");
  }
}

int mr_models_probe(struct mr_models *m, int i, bool asked, void (*done)(void *ud, const struct mr_probe *p),
                    void *ud, struct mr_err *err)
{
  struct mr_model_entry *e = m->own;
  struct asking *a;
  int code = MR_OK;

  while (e && i-- > 0)
    e = e->next;
  if (!e) return MR_E_NOTFOUND;
  a = mr_mem_zalloc(&m->sys->mem, sizeof *a);
  if (!a) return mr_err_nomem(err);
  a->m = m;
  a->mem = &m->sys->mem;
  a->loop = m->loop;
  a->e = e;
  a->done = done;
  a->ud = ud;
  a->p.name = e->name;
  a->p.kind = kind_name(e);
  a->model = routed(m, e->name, 0);
  if (!a->model.n && strcmp(e->name, "anthropic") == 0) a->model = MR_S("claude-haiku-4-5");
  e->users++;
  mr_ready_init(&a->ready, on_ready);
  mr_buf_init(&a->body, a->mem, BODY_MAX);
  mr_buf_init(&a->sent, a->mem, 4096);
  if (asked && over_http(e)) {
    code = ask(a, err);
  } else {
    without_asking(a);
    mr_ready_post(m->loop, &a->ready);
  }
  if (code == MR_OK) return MR_OK;
  mr_model_entry_unuse(e);
  mr_mem_free(a->mem, a);
  return code;
}
