/*
 * head.c - heads and bodies of HTTP/1.1 as the proxy reads them: a head is gathered whole, looked over byte by byte
 * for what two parsers may read in two ways (bare CR or LF, NUL, folded lines), then parsed by llhttp in its strict
 * mode. What is sent on is built from what was parsed, never the bytes that came; bodies are framed anew.
 */
#include "sandbox/egress/egress_t.h"

enum { OPTIONS_MAX = 32 }; /* of connection: each is compared with every field that goes on */

static int bad(struct mr_head *h, const char *why)
{
  if (!h->why) h->why = why;
  h->state = MR_HEAD_BAD;
  return HPE_USER;
}

static int keep(struct mr_head *h, const char *p, size_t n)
{
  mr_buf_add(&h->text, p, n);
  return h->text.failed ? bad(h, "out of memory") : HPE_OK;
}

/* ---- llhttp's callbacks ---- */

static int on_target(llhttp_t *p, const char *at, size_t n)
{
  struct mr_head *h = p->data;
  int r = keep(h, at, n);

  h->ntarget = h->text.n;
  return r;
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
  struct mr_head *h = p->data;
  struct mr_head_field *f;

  if (h->state != MR_HEAD_MORE) return HPE_OK; /* a trailer: read, not passed on */
  if (!h->nfields || h->field[h->nfields - 1].value) {
    if (h->nfields == EGRESS_FIELDS) return bad(h, "too many header fields");
    h->field[h->nfields++] = (struct mr_head_field){.name = (uint32_t)h->text.n};
  }
  f = &h->field[h->nfields - 1];
  f->nname += (uint32_t)n;
  return keep(h, at, n);
}

static int on_name_end(llhttp_t *p)
{
  struct mr_head *h = p->data;

  if (h->state != MR_HEAD_MORE) return HPE_OK;
  h->field[h->nfields - 1].value = (uint32_t)h->text.n;
  return HPE_OK;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
  struct mr_head *h = p->data;

  if (h->state != MR_HEAD_MORE) return HPE_OK;
  h->field[h->nfields - 1].nvalue += (uint32_t)n;
  return keep(h, at, n);
}

/* How many options connection has, empty ones too. */
static int options(const struct mr_head *h)
{
  int n = 0;

  for (int i = 0; i < h->nfields; i++) {
    struct mr_str rest = mr_head_value(h, i);
    if (!mr_str_ieq(mr_head_name(h, i), MR_S("connection"))) continue;
    for (; rest.p && n <= OPTIONS_MAX; n++)
      mr_str_split(&rest, ',');
  }
  return n;
}

static int check(struct mr_head *h)
{
  struct mr_str coding = mr_head_get(h, "transfer-encoding");
  int lengths = mr_head_count(h, "content-length"), codings = mr_head_count(h, "transfer-encoding");

  if (h->p.http_major != 1 || h->p.http_minor > 1) return bad(h, "only HTTP/1.0 and HTTP/1.1");
  if (options(h) > OPTIONS_MAX) return bad(h, "connection: too many options");
  if (lengths > 1) return bad(h, "content-length: more than one");
  if (codings && lengths) return bad(h, "content-length and transfer-encoding together");
  if (codings > 1 || (codings && (!mr_str_ieq(coding, MR_S("chunked")) || h->p.http_minor == 0)))
    return bad(h, "transfer-encoding: only chunked, once, and in HTTP/1.1");
  if (!h->request) return HPE_OK;
  if (!h->ntarget) return bad(h, "there is no target");
  if (mr_head_count(h, "host") > 1) return bad(h, "host: more than one");
  if (h->p.method == HTTP_CONNECT && (lengths || codings)) return bad(h, "CONNECT has no body");
  return HPE_OK;
}

static int on_head(llhttp_t *p)
{
  struct mr_head *h = p->data;

  if (check(h) != HPE_OK) return -1;
  h->state = MR_HEAD_WHOLE;
  if (p->method != HTTP_CONNECT || !h->request) p->upgrade = 0; /* no other protocol after it */
  h->chunk_out = (p->flags & F_CHUNKED) != 0;
  return h->no_body ? 1 : 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
  struct mr_head *h = p->data;

  if (!h->body || !n) return HPE_OK;
  if (h->chunk_out) mr_buf_printf(h->body, "%zx\r\n", n);
  mr_buf_add(h->body, at, n);
  if (h->chunk_out) mr_buf_c(h->body, "\r\n");
  return h->body->failed ? bad(h, "out of memory") : HPE_OK;
}

static int on_end(llhttp_t *p)
{
  struct mr_head *h = p->data;

  h->done = true;
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {.on_url = on_target,
                                           .on_status = on_target,
                                           .on_header_field = on_name,
                                           .on_header_field_complete = on_name_end,
                                           .on_header_value = on_value,
                                           .on_headers_complete = on_head,
                                           .on_body = on_body,
                                           .on_message_complete = on_end};

/* ---- feeding ---- */

/* The bytes from `from` on: NUL, CR without LF, LF without CR, a line that begins with space. */
static const char *look_over(const struct mr_buf *b, size_t from)
{
  for (size_t i = from; i < b->n; i++) {
    char c = b->p[i], before = i ? b->p[i - 1] : '\0';
    if (c == '\0') return "a NUL in the head";
    if ((c == '\n') != (before == '\r')) return "a bare CR or LF in the head";
    if ((c == ' ' || c == '\t') && before == '\n') return "a folded line in the head";
  }
  return NULL;
}

static void parse(struct mr_head *h)
{
  enum llhttp_errno e;

  llhttp_init(&h->p, h->request ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
  h->p.data = h;
  e = llhttp_execute(&h->p, h->raw.p, h->raw.n);
  if (e == HPE_PAUSED) llhttp_resume(&h->p);
  if ((e != HPE_OK && e != HPE_PAUSED && e != HPE_PAUSED_UPGRADE) || h->state == MR_HEAD_MORE)
    bad(h, "a malformed head");
}

size_t mr_head_feed(struct mr_head *h, struct mr_str in)
{
  size_t had = h->raw.n, max = h->request ? EGRESS_HEAD_MAX : EGRESS_ANSWER_MAX,
         n = in.n < max - had ? in.n : max - had, from = had > 3 ? had - 3 : 0;
  const char *end;

  if (h->state != MR_HEAD_MORE || !n) return 0;
  mr_buf_add(&h->raw, in.p, n);
  if (h->raw.failed) {
    bad(h, "out of memory");
    return n;
  }
  end = memmem(h->raw.p + from, h->raw.n - from, "\r\n\r\n", 4);
  if (end) h->raw.n = (size_t)(end - h->raw.p) + 4;
  h->why = look_over(&h->raw, had);
  if (h->why)
    h->state = MR_HEAD_BAD;
  else if (end)
    parse(h);
  else if (h->raw.n == max)
    bad(h, "the head is too large");
  return h->raw.n - had;
}

int64_t mr_head_body(struct mr_head *h, struct mr_str in, struct mr_buf *out)
{
  enum llhttp_errno e;
  size_t used = in.n;

  if (h->done || !in.n) return 0;
  h->body = out;
  e = llhttp_execute(&h->p, in.p, in.n);
  h->body = NULL;
  if (e == HPE_PAUSED || e == HPE_PAUSED_UPGRADE) used = (size_t)(llhttp_get_error_pos(&h->p) - in.p);
  if ((e != HPE_OK && e != HPE_PAUSED && e != HPE_PAUSED_UPGRADE) || out->failed || used > in.n) return -1;
  if (h->done && h->chunk_out) mr_buf_c(out, "0\r\n\r\n");
  return (int64_t)used;
}

bool mr_head_eof(struct mr_head *h, struct mr_buf *out)
{
  if (!h->done && h->state == MR_HEAD_WHOLE) {
    h->body = out;
    llhttp_finish(&h->p);
    h->body = NULL;
  }
  return h->done;
}

/* ---- what is in it ---- */

struct mr_str mr_head_target(const struct mr_head *h)
{
  return mr_str_n(h->text.p, h->ntarget);
}

struct mr_str mr_head_name(const struct mr_head *h, int i)
{
  return mr_str_n(h->text.p + h->field[i].name, h->field[i].nname);
}

struct mr_str mr_head_value(const struct mr_head *h, int i)
{
  return mr_str_trim(mr_str_n(h->text.p + h->field[i].value, h->field[i].nvalue));
}

int mr_head_count(const struct mr_head *h, const char *name)
{
  int n = 0;

  for (int i = 0; i < h->nfields; i++)
    n += mr_str_ieq(mr_head_name(h, i), mr_str_c(name));
  return n;
}

struct mr_str mr_head_get(const struct mr_head *h, const char *name)
{
  for (int i = 0; i < h->nfields; i++)
    if (mr_str_ieq(mr_head_name(h, i), mr_str_c(name))) return mr_head_value(h, i);
  return mr_str_n(NULL, 0);
}

/* Is it between these two hops only (RFC 9110 §7.6.1)? Or is it ours to say? */
static bool stays(const struct mr_head *h, struct mr_str name)
{
  static const char *const ours[] = {"connection",
                                     "keep-alive",
                                     "proxy-connection",
                                     "proxy-authenticate",
                                     "proxy-authorization",
                                     "te",
                                     "trailer",
                                     "transfer-encoding",
                                     "upgrade",
                                     "host",
                                     "content-length",
                                     "expect",
                                     "http2-settings",
                                     "proxy-authentication-info"};

  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
    if (mr_str_ieq(name, mr_str_c(ours[i]))) return true;
  for (int i = 0; i < h->nfields; i++) {
    struct mr_str rest = mr_head_value(h, i);
    if (!mr_str_ieq(mr_head_name(h, i), MR_S("connection"))) continue;
    while (rest.p)
      if (mr_str_ieq(mr_str_trim(mr_str_split(&rest, ',')), name)) return true;
  }
  return false;
}

void mr_head_forward(const struct mr_head *h, struct mr_buf *out, mr_head_change_fn change, void *ud)
{
  for (int i = 0; i < h->nfields; i++) {
    struct mr_str name = mr_head_name(h, i);
    if (stays(h, name)) continue;
    mr_buf_str(out, name);
    mr_buf_c(out, ": ");
    if (change)
      change(ud, name, mr_head_value(h, i), out);
    else
      mr_buf_str(out, mr_head_value(h, i));
    mr_buf_c(out, "\r\n");
  }
}

/* ---- life ---- */

void mr_head_init(struct mr_head *h, const struct mr_mem *m, bool request)
{
  *h = (struct mr_head){.request = request};
  mr_buf_init(&h->raw, m, EGRESS_ANSWER_MAX + 16);
  mr_buf_init(&h->text, m, EGRESS_ANSWER_MAX + 16);
}

void mr_head_reset(struct mr_head *h)
{
  struct mr_buf raw = h->raw, text = h->text;
  bool request = h->request, no_body = h->no_body;

  mr_buf_reset(&raw);
  mr_buf_reset(&text);
  *h = (struct mr_head){.raw = raw, .text = text, .request = request, .no_body = no_body};
}

void mr_head_free(struct mr_head *h)
{
  mr_buf_free(&h->raw);
  mr_buf_free(&h->text);
}
