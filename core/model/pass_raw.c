/*
 * pass_raw - to a provider of the Messages API: bytes out, bytes back; see pass.h.
 *
 * Of the client's head only its version and its betas go on (its key is ours, not the upstream's); of the upstream's
 * head only what a client can use: type, request id, rate limits, when to come back. Bodies of errors are short and
 * are held, to be cleaned of the upstream's key, which upstreams do quote. Everything else is written on as it comes,
 * and not read while the client does not take it. Loop thread.
 */
#include "model/pass_t.h"
#include "model/upstream.h"

#include <stdio.h>

enum { REFUSAL_MAX = 512 << 10, NAMES_MAX = 12 };

/* ---- the body with another model's name ---- */

static size_t skip_string(struct mr_str s, size_t i) /* i at the quote; past the closing one */
{
  for (i++; i < s.n && s.p[i] != '"'; i++)
    if (s.p[i] == '\\') i++;
  return i + 1;
}

static size_t skip_space(struct mr_str s, size_t i)
{
  while (i < s.n && (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n' || s.p[i] == '\r'))
    i++;
  return i;
}

/* Where the value of the key "model" of the outermost object stands, quotes included; the text is valid JSON. */
static bool model_span(struct mr_str s, size_t *from, size_t *to)
{
  int depth = 0;

  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (c == '{' || c == '[') depth++;
    if (c == '}' || c == ']') depth--;
    if (c != '"') continue;
    size_t end = skip_string(s, i), colon = skip_space(s, end);
    if (depth == 1 && colon < s.n && s.p[colon] == ':' && mr_str_is(mr_str_n(s.p + i, end - i), "\"model\"")) {
      *from = skip_space(s, colon + 1);
      *to = skip_string(s, *from);
      return *to <= s.n && s.p[*from] == '"';
    }
    i = end - 1;
  }
  return false;
}

static int make_body(struct mr_pass *p, struct mr_str id, struct mr_err *err)
{
  struct mr_str body = p->req.body;
  size_t from, to;
  struct mr_buf b;

  p->parts[0] = body;
  p->parts[1] = p->parts[2] = mr_str_n(NULL, 0);
  if (mr_str_eq(id, p->model)) return MR_OK;
  if (!model_span(body, &from, &to))
    return mr_err_set(err, MR_E_INVALID, "model", "model: write the key without escapes");
  mr_buf_init(&b, p->mem, 4096);
  mr_json_quote(&b, id);
  p->parts[0] = mr_str_n(body.p, from);
  p->parts[1] = mr_arena_str(p->arena, mr_buf_get(&b));
  p->parts[2] = mr_str_n(body.p + to, body.n - to);
  mr_buf_free(&b);
  return p->parts[1].p && p->parts[1].n ? MR_OK : mr_err_nomem(err);
}

/* ---- the answer ---- */

static bool goes_back(struct mr_str name)
{
  static const char *const names[] = {"content-type", "request-id", "retry-after", "retry-after-ms",
                                      "x-should-retry"};

  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (mr_str_is(name, names[i])) return true;
  return mr_str_starts(name, MR_S("anthropic-ratelimit-")) || mr_str_starts(name, MR_S("anthropic-fast-"));
}

static void keep_lines(struct mr_pass *p, struct mr_str headers)
{
  p->nlines = 0;
  while (headers.n && p->nlines < MR_PASS_LINES) {
    struct mr_str line = mr_str_split(&headers, '\n'), rest = line, name = mr_str_split(&rest, ':');
    if (!rest.p || !goes_back(name)) continue;
    p->lines[p->nlines] = mr_arena_str(p->arena, line);
    if (p->lines[p->nlines].p) p->nlines++;
  }
}

static bool may_heal(int status)
{
  return status == 429 || status >= 500 || status == 408;
}

static void head_now(struct mr_pass *p, int64_t length)
{
  p->headed = true;
  p->cbs.head(p->ud, p->up_status, p->lines, p->nlines, length);
}

static void on_head(void *ud, struct mr_http_out *r, int status, struct mr_str headers)
{
  struct mr_pass *p = ud;
  struct mr_str length = mr_http_header(headers, "content-length");
  int64_t n = -1;

  if (p->cancelled) return;
  mr_patience_byte(&p->patience);
  p->up_status = status;
  p->wait_ms = mr_failure_wait(headers, mr_loop_wall_us(p->loop));
  p->give_up = may_heal(status) && p->tries.at + 1 < p->tries.n;
  keep_lines(p, headers);
  if (p->give_up) {
    mr_http_out_cancel(r);
    return;
  }
  if (status >= 300) return; /* an error, told with its body; redirects are not followed */
  if (length.n && mr_str_int(length, &n) != MR_OK) n = -1;
  head_now(p, n);
}

static int on_data(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  struct mr_pass *p = ud;
  size_t room;

  if (p->cancelled || p->give_up) return MR_E_CANCELLED;
  mr_patience_byte(&p->patience);
  mr_patience_word(&p->patience);
  p->received += (int64_t)bytes.n;
  if (!p->headed) {
    room = REFUSAL_MAX - p->refusal.n;
    mr_buf_add(&p->refusal, bytes.p, bytes.n < room ? bytes.n : room);
    return MR_OK;
  }
  if (p->cbs.data(p->ud, bytes) != MR_MORE) return MR_OK;
  mr_patience_hold(&p->patience, true);
  mr_http_out_pause(r, true);
  return MR_OK;
}

/* A request id that is in the body alone goes into the head as well: clients look there. */
static void note_id(struct mr_pass *p)
{
  struct mr_str id;
  yyjson_doc *d = NULL;

  for (int i = 0; i < p->nlines; i++)
    if (mr_str_starts(p->lines[i], MR_S("request-id:"))) return;
  if (mr_json_parse(p->mem, mr_buf_get(&p->refusal), REFUSAL_MAX, &d, NULL) != MR_OK) return;
  id = mr_json_get_str(yyjson_doc_get_root(d), "request_id");
  if (id.n && id.n < 200 && p->nlines < MR_PASS_LINES)
    p->lines[p->nlines++] = mr_str_c(mr_arena_printf(p->arena, "request-id: " MR_FMT, MR_ARG(id)));
  yyjson_doc_free(d);
}

/* An upstream's error, whole, as it said it but for keys. */
static void refuse(struct mr_pass *p)
{
  struct mr_buf *b = &p->refusal;

  if (b->n && !b->failed) {
    mr_failure_scrub(b->p, p->key);
    b->n = strlen(b->p);
  }
  note_id(p);
  head_now(p, (int64_t)b->n);
  if (b->n) p->cbs.data(p->ud, mr_buf_get(b));
  mr_pass_over(p, true);
}

static void no_answer(struct mr_pass *p, const char *name, const struct mr_http_out_done *d, bool late)
{
  char why[500];
  const char *what = d->err && d->err->message[0] ? d->err->message : mr_strerror(d->code);

  snprintf(why, sizeof why, "%.64s: %.400s", name, late ? "no answer in time (first_ms)" : what);
  mr_failure_scrub(why, p->key);
  if (mr_pass_next(p, mr_str_c(why))) return;
  if (late || d->code == MR_E_TIMEOUT)
    mr_pass_error(p, 504, "timeout_error", 0, mr_str_c(why));
  else
    mr_pass_error(p, d->code == MR_E_CLOSED ? 503 : 502, "api_error", 0, mr_str_c(why));
}

static void on_done(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct mr_pass *p = ud;
  struct mr_model_entry *e = p->tries.t[p->tries.at].e;
  bool late = p->patience.timer.fn && d->code == MR_E_CANCELLED && !p->cancelled && !p->give_up;
  char why[128];

  (void)r;
  p->out = NULL;
  mr_patience_stop(&p->patience);
  if (p->up_status == 429 && p->wait_ms > 0) mr_gate_pause(&e->gate, p->wait_ms);
  mr_tries_leave(&p->tries, p->up_status == 200 ? ((int64_t)p->req.body.n + p->received) / 4 : 0);
  if (p->cancelled) {
    mr_pass_over(p, false);
  } else if (p->give_up) {
    snprintf(why, sizeof why, "%.64s: HTTP %d", e->name, p->up_status);
    /* Of those that it was given up for none may be left by now. */
    if (!mr_pass_next(p, mr_str_c(why))) mr_pass_error(p, p->up_status, "api_error", p->wait_ms, mr_str_c(why));
  } else if (p->headed) {
    mr_pass_over(p, d->code == MR_OK);
  } else if (p->up_status >= 400) {
    refuse(p);
  } else if (p->up_status >= 300) {
    snprintf(why, sizeof why, "%.64s: HTTP %d: is its base_url right?", e->name, p->up_status);
    mr_pass_error(p, 502, "api_error", 0, mr_str_c(why));
  } else {
    no_answer(p, e->name, d, late);
  }
}

static void on_late(struct mr_patience *t)
{
  struct mr_pass *p = MR_OF(t, struct mr_pass, patience);
  if (p->out) mr_http_out_cancel(p->out);
}

/* ---- asking ---- */

static int add(struct mr_pass *p, struct mr_str *names, int *n, const char *name, struct mr_str value)
{
  char *line;

  if (!value.n || *n == NAMES_MAX) return MR_OK;
  line = mr_arena_printf(p->arena, "%s: " MR_FMT, name, MR_ARG(value));
  names[*n] = mr_str_c(line);
  if (line) ++*n;
  return line ? MR_OK : MR_E_NOMEM;
}

int mr_pass_raw(struct mr_pass *p, struct mr_err *err)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  struct mr_try *t = &p->tries.t[p->tries.at];
  struct mr_upstream *u = t->e->self;
  struct mr_str names[NAMES_MAX];
  char *url = mr_arena_printf(p->arena, "%s%s%s", u->url, p->req.count ? "/count_tokens" : "",
                              p->req.beta ? "?beta=true" : "");
  int n = 0, code = url ? make_body(p, t->id, err) : mr_err_nomem(err);

  if (code != MR_OK) return code;
  p->key = mr_str_c(u->key);
  p->give_up = false;
  p->up_status = 0;
  p->wait_ms = 0;
  code = add(p, names, &n, "content-type", MR_S("application/json"));
  if (code == MR_OK)
    code = add(p, names, &n, "accept", p->stream ? MR_S("text/event-stream") : MR_S("application/json"));
  if (code == MR_OK)
    code = add(p, names, &n, "anthropic-version", p->req.version.n ? p->req.version : MR_S("2023-06-01"));
  if (code == MR_OK) code = add(p, names, &n, "anthropic-beta", p->req.betas);
  if (code == MR_OK) code = add(p, names, &n, "user-agent", MR_S("moonrig/" MR_VERSION));
  if (code == MR_OK) code = add(p, names, &n, "x-api-key", p->key);
  if (code == MR_OK) code = mr_patience_start(&p->patience, p->loop, u->first_ms, u->stall_ms, on_late);
  if (code != MR_OK) return mr_err_nomem(err);
  struct mr_http_out_req req = {.method = "POST",
                                .url = url,
                                .headers = names,
                                .nheaders = n,
                                .body = p->parts,
                                .nbody = 3,
                                .ca_file = u->ca_file,
                                .connect_timeout_ms = u->connect_ms,
                                .timeout_ms = u->total_ms};
  code = mr_http_out_start(u->http, &req, &cbs, p, &p->out, err);
  if (code != MR_OK) mr_patience_stop(&p->patience);
  return code;
}
