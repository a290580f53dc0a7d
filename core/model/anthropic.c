/*
 * anthropic - the Messages API, streaming.
 *
 * The canonical form is this API's own, so nothing is translated: the stored fragments are sent as they
 * are, byte for byte, between a small head and a tail that we write.
 *
 * Prompt caching. The service keeps prefixes of tools, system and messages, in that order, and finds one again when
 * its bytes are the same up to a breakpoint. Three of the four allowed are set, all of them around the fragments,
 * never in them: inside the brackets of tools and of system (written between their last bytes, which stay the same
 * for a session), and by the request's own cache_control, with which the service puts a breakpoint on the last block
 * that can have one. So the marker that moves with each turn is not among the messages at all: what was sent stays
 * as it was sent, for the service, for our tests and for any proxy that compares bytes. A marker in the last message
 * would have to be taken out of it a turn later. The price: the service looks back twenty blocks from the end for
 * an earlier prefix, so a turn that adds more than that at once (over ten parallel calls) pays for the messages
 * again, once; tools and system are found in any case.
 *
 * Thinking goes back with its signature (and redacted thinking as it came): the fragments hold it. Reasoning that
 * another family's server gave (openai.h) has no signature that this service knows: such blocks are left out of a
 * fragment, always in the same way, so that the prefix stays stable. They are looked for unless the caller knows that
 * there are none: a look at a long conversation costs as much as all the rest of a request.
 * No sampling parameters are sent (versions of the API from 2026 on refuse them).
 * Invariant: for the same head, the body of the next turn begins with the bytes of this one up to the
 * end of its messages. Loop thread.
 */
#include "model/openai_form.h"
#include "model/upstream.h"

enum { MAX_TOKENS = 32000 };

static struct mr_str breakpoint(const struct mr_up_call *c)
{
  return c->up->cache_1h ? MR_S(",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}")
                         : MR_S(",\"cache_control\":{\"type\":\"ephemeral\"}");
}

/* Models that take thinking of type adaptive: all but the families that came before it. */
static bool adaptive(struct mr_str model)
{
  static const char *const before[] = {"claude-3", "-4-0", "-4-1", "-4-2025", "-4-5"};
  for (size_t k = 0; k < sizeof before / sizeof before[0]; k++) {
    size_t n = strlen(before[k]);
    for (size_t i = 0; i + n <= model.n; i++)
      if (memcmp(model.p + i, before[k], n) == 0) return false;
  }
  return true;
}

static void head(struct mr_up_call *c, const struct mr_model_req *r)
{
  struct mr_buf *b = &c->own;
  mr_buf_c(b, "{\"model\":");
  mr_json_quote(b, r->model);
  mr_buf_printf(b, ",\"max_tokens\":%d,\"stream\":true", r->max_tokens > 0 ? r->max_tokens : MAX_TOKENS);
  if (r->speed.n) {
    mr_buf_c(b, ",\"speed\":");
    mr_json_quote(b, r->speed);
  }
  if (r->effort.n) {
    mr_buf_c(b, ",\"output_config\":{\"effort\":");
    mr_json_quote(b, r->effort);
    mr_buf_c(b, adaptive(r->model) ? "},\"thinking\":{\"type\":\"adaptive\"}" : "}");
  }
  if (c->up->cache) mr_buf_str(b, breakpoint(c));
}

static bool is_empty(struct mr_str array)
{
  return mr_str_trim(array).n <= 2;
}

static bool holds(struct mr_str s, struct mr_str what)
{
  return s.n >= what.n && memmem(s.p, s.n, what.p, what.n) != NULL;
}

/* An array of objects, with a breakpoint before the last object's closing brace. */
static void with_breakpoint(struct mr_up_call *c, struct mr_str array, bool plain)
{
  size_t at = array.n;
  while (at && array.p[at - 1] != ']')
    at--;
  while (at && array.p[at - 1] != '}')
    at--;
  bool none = at < 3 || array.p[at - 2] == '{'; /* no object, or one without members */
  if (!c->up->cache || none || (!plain && holds(array, MR_S("\"cache_control\"")))) {
    mr_up_part(c, array);
    return;
  }
  mr_up_part(c, mr_str_n(array.p, at - 1));
  mr_up_part(c, breakpoint(c));
  mr_up_part(c, mr_str_n(array.p + at - 1, array.n - at + 1));
}

static bool is_foreign(yyjson_val *block)
{
  return mr_str_starts(mr_json_get_str(block, "signature"), MR_S(MR_REASONING_MARK));
}

bool mr_model_foreign(yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *b;
  while (yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&it)))
    if (is_foreign(b)) return true;
  return false;
}

/* A fragment without the thinking of other families' servers, appended to out. */
static void without_foreign(struct mr_up_call *c, struct mr_str fragment, struct mr_buf *out)
{
  yyjson_doc *d = NULL;
  yyjson_val *root, *b, *content;
  yyjson_arr_iter it;
  bool any = false;
  if (mr_json_parse(c->mem, fragment, SIZE_MAX, &d, NULL) != MR_OK) {
    mr_buf_str(out, fragment);
    return;
  }
  root = yyjson_doc_get_root(d);
  content = mr_json_get(root, "content");
  mr_buf_c(out, "{\"role\":");
  mr_json_quote(out, mr_json_get_str(root, "role"));
  mr_buf_c(out, ",\"content\":[");
  it = yyjson_arr_iter_with(content);
  while (yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&it))) {
    if (is_foreign(b)) continue;
    if (any) mr_buf_char(out, ',');
    any = true;
    mr_json_write(out, b, false);
  }
  if (!any) mr_buf_c(out, "{\"type\":\"text\",\"text\":\"(no answer)\"}");
  mr_buf_c(out, "]}");
  yyjson_doc_free(d);
}

/* Writes what is ours: the head, then what becomes of foreign fragments. Where those begin is noted, since the buffer
 * moves while it grows. */
static size_t *write_own(struct mr_up_call *c, const struct mr_model_req *r, size_t *head_n)
{
  size_t *at = NULL;
  head(c, r);
  *head_n = c->own.n;
  for (int i = 0; !r->plain && i < r->nmessages; i++) {
    if (!holds(r->messages[i], MR_S("\"signature\":\"" MR_REASONING_MARK))) continue;
    if (!at) at = c->extra = mr_mem_zalloc(c->mem, ((size_t)r->nmessages + 1) * 2 * sizeof *at);
    if (!at) {
      c->own.failed = MR_E_NOMEM;
      return NULL;
    }
    at[2 * i] = c->own.n;
    without_foreign(c, r->messages[i], &c->own);
    at[2 * i + 1] = c->own.n - at[2 * i];
  }
  return at;
}

/* Does b follow a in memory, with a comma between them? */
static bool follows(struct mr_str a, struct mr_str b)
{
  return b.p == a.p + a.n + 1 && a.p[a.n] == ',';
}

static void lay_out_messages(struct mr_up_call *c, const struct mr_model_req *r, const size_t *foreign)
{
  for (int i = 0; r->pieces && !foreign && i < r->npieces; i++) {
    if (i) mr_up_part(c, MR_S(","));
    mr_up_part(c, r->pieces[i]);
  }
  if (r->pieces && !foreign) return;
  for (int i = 0; i < r->nmessages; i++) {
    struct mr_str part = r->messages[i];
    if (i) mr_up_part(c, MR_S(","));
    if (foreign && foreign[2 * i + 1]) {
      mr_up_part(c, mr_str_n(c->own.p + foreign[2 * i], foreign[2 * i + 1]));
      continue;
    }
    while (i + 1 < r->nmessages && follows(part, r->messages[i + 1]) && !(foreign && foreign[2 * i + 3]))
      part.n += 1 + r->messages[++i].n;
    mr_up_part(c, part);
  }
}

static void lay_out(struct mr_up_call *c, const struct mr_model_req *r)
{
  size_t head_n, *foreign = write_own(c, r, &head_n);
  if (c->own.failed) return;
  mr_up_part(c, mr_str_n(c->own.p, head_n));
  if (!is_empty(r->tools)) {
    mr_up_part(c, MR_S(",\"tools\":"));
    with_breakpoint(c, r->tools, r->plain);
  }
  if (!is_empty(r->system)) {
    mr_up_part(c, MR_S(",\"system\":"));
    with_breakpoint(c, r->system, r->plain);
  }
  mr_up_part(c, MR_S(",\"messages\":["));
  lay_out_messages(c, r, foreign);
  mr_up_part(c, MR_S("]}"));
}

/* ---- the stream ---- */

static void read_usage(struct mr_usage *u, yyjson_val *v)
{
  if (!yyjson_is_obj(v)) return;
  u->input = mr_json_get_int(v, "input_tokens", u->input);
  u->output = mr_json_get_int(v, "output_tokens", u->output);
  u->cache_read = mr_json_get_int(v, "cache_read_input_tokens", u->cache_read);
  yyjson_val *by_life = mr_json_get(v, "cache_creation");
  if (yyjson_is_obj(by_life)) {
    u->cache_write_5m = mr_json_get_int(by_life, "ephemeral_5m_input_tokens", u->cache_write_5m);
    u->cache_write_1h = mr_json_get_int(by_life, "ephemeral_1h_input_tokens", u->cache_write_1h);
    return;
  }
  int64_t all = mr_json_get_int(v, "cache_creation_input_tokens", -1);
  if (all >= u->cache_write_1h) u->cache_write_5m = all - u->cache_write_1h;
}

static int block_start(struct mr_up_call *c, yyjson_val *v)
{
  yyjson_val *cb = mr_json_get(v, "content_block");
  struct mr_str type = mr_json_get_str(cb, "type");
  if (!type.n) return mr_up_fail(c, MR_MODEL_FAILED, "the stream broke its protocol: a block without type");
  struct mr_buf first;
  struct mr_rblock *b = NULL;
  mr_buf_init(&first, c->mem, MR_REPLY_MAX);
  mr_json_write(&first, cb, false);
  int rc = first.failed;
  if (rc == MR_OK)
    rc = mr_reply_open(&c->rb, (int)mr_json_get_int(v, "index", 0), type, mr_buf_get(&first), &b);
  mr_buf_free(&first);
  /* A block may begin with its first words. */
  if (rc == MR_OK && b->field == MR_RF_TEXT)
    rc = mr_reply_add(&c->rb, b, MR_RF_TEXT, mr_json_get_str(cb, "text"));
  if (rc == MR_OK && b->field == MR_RF_THINKING) {
    rc = mr_reply_add(&c->rb, b, MR_RF_THINKING, mr_json_get_str(cb, "thinking"));
    if (rc == MR_OK) rc = mr_reply_sign(&c->rb, b, mr_json_get_str(cb, "signature"));
  }
  return mr_up_gather(c, rc);
}

static int citation(struct mr_up_call *c, struct mr_rblock *b, yyjson_val *v)
{
  struct mr_buf j;
  mr_buf_init(&j, c->mem, MR_REPLY_MAX);
  mr_json_write(&j, v, false);
  int rc = j.failed ? j.failed : mr_reply_cite(&c->rb, b, mr_buf_get(&j));
  mr_buf_free(&j);
  return rc;
}

static int block_delta(struct mr_up_call *c, yyjson_val *v)
{
  struct mr_rblock *b = mr_reply_find(&c->rb, (int)mr_json_get_int(v, "index", 0));
  yyjson_val *d = mr_json_get(v, "delta");
  struct mr_str type = mr_json_get_str(d, "type");
  if (!b) return mr_up_fail(c, MR_MODEL_FAILED, "the stream broke its protocol: a delta without block");
  int rc = MR_OK;
  if (mr_str_is(type, "text_delta"))
    rc = mr_reply_add(&c->rb, b, MR_RF_TEXT, mr_json_get_str(d, "text"));
  else if (mr_str_is(type, "input_json_delta"))
    rc = mr_reply_add(&c->rb, b, MR_RF_INPUT, mr_json_get_str(d, "partial_json"));
  else if (mr_str_is(type, "thinking_delta"))
    rc = mr_reply_add(&c->rb, b, MR_RF_THINKING, mr_json_get_str(d, "thinking"));
  else if (mr_str_is(type, "signature_delta"))
    rc = mr_reply_sign(&c->rb, b, mr_json_get_str(d, "signature"));
  else if (mr_str_is(type, "citations_delta") && yyjson_is_obj(mr_json_get(d, "citation")))
    rc = citation(c, b, mr_json_get(d, "citation"));
  return mr_up_gather(c, rc);
}

static int message_delta(struct mr_up_call *c, yyjson_val *v)
{
  yyjson_val *d = mr_json_get(v, "delta"), *details = mr_json_get(d, "stop_details");
  struct mr_str why = mr_json_get_str(d, "stop_reason");
  if (why.n) {
    mr_buf_reset(&c->stop_reason);
    mr_buf_str(&c->stop_reason, why);
  }
  if (yyjson_is_obj(details)) {
    mr_buf_reset(&c->stop_details);
    mr_json_write(&c->stop_details, details, false);
  }
  read_usage(&c->usage, mr_json_get(v, "usage"));
  return MR_OK;
}

static int frame(struct mr_up_call *c, struct mr_str event, yyjson_val *v)
{
  struct mr_str type = mr_json_get_str(v, "type");
  if (!type.n) type = event;
  if (mr_str_is(type, "content_block_delta")) return block_delta(c, v);
  if (mr_str_is(type, "content_block_start")) return block_start(c, v);
  if (mr_str_is(type, "message_start")) read_usage(&c->usage, mr_json_get(mr_json_get(v, "message"), "usage"));
  if (mr_str_is(type, "message_delta")) return message_delta(c, v);
  if (mr_str_is(type, "message_stop")) mr_up_finish(c);
  if (mr_str_is(type, "error")) return mr_up_fail_from(c, v);
  return MR_OK; /* ping, content_block_stop, and what may be added later */
}

/* ---- the provider ---- */

static int start(void *self, const struct mr_model_req *req, const struct mr_model_cbs *cbs, void *ud,
                 struct mr_model_call **out, struct mr_err *err)
{
  struct mr_upstream *u = self;
  struct mr_up_call *c = mr_up_new(u, &mr_anthropic_vtable, cbs, ud, err);
  if (!c) return MR_E_NOMEM;
  c->frame = frame;
  mr_up_header(c, "content-type: application/json");
  mr_up_header(c, "accept: text/event-stream");
  mr_up_header(c, "anthropic-version: 2023-06-01");
  mr_up_header(c, "user-agent: moonrig/" MR_VERSION);
  if (u->key) mr_up_header(c, "x-api-key: %s", u->key);
  if (mr_str_is(req->speed, "fast")) mr_up_header(c, "anthropic-beta: fast-mode-2026-02-01");
  lay_out(c, req);
  int rc = mr_up_start(c, err);
  if (rc == MR_OK) *out = &c->call;
  return rc;
}

static void release(void *self)
{
  struct mr_upstream *u = self;
  const struct mr_mem *m = &u->sys->mem;
  mr_upstream_clear(u);
  mr_mem_free(m, u);
}

int mr_anthropic_new(void **self, const struct mr_provider_opts *o, struct mr_err *err)
{
  struct mr_upstream *u = mr_mem_zalloc(&o->sys->mem, sizeof *u);
  if (!u) return mr_err_nomem(err);
  static const struct mr_up_kind kind = {"anthropic", "https://api.anthropic.com", "/messages",
                                         "MOONRIG_ANTHROPIC_API_KEY", true};
  int rc = mr_upstream_init(u, o, &kind, err);
  if (rc != MR_OK) {
    mr_mem_free(&o->sys->mem, u);
    return rc;
  }
  *self = u;
  return MR_OK;
}

const struct mr_provider_vtable mr_anthropic_vtable = {"anthropic", start, mr_up_cancel, release};
