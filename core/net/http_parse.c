/*
 * http_parse.c - requests out of bytes: llhttp in its strict mode finds the structure, this file keeps the
 * head, bounds it, and refuses what two parsers might read in two ways (request smuggling). Runs in the
 * drain only, called by http_conn.c.
 *
 * llhttp's callbacks write down what they see and pause; nobody's code runs inside the parser. A parser
 * exists from a message's first byte to its last: idle connections and open streams own none.
 */
#include "net/http_conn_t.h"

enum { SPARE_MAX = 16, TEXT_KEPT = 64 << 10 };

static int bad(struct mr_http_parse *q, int status, const char *why)
{
  if (!q->status) {
    q->status = status;
    q->why = why;
  }
  return HPE_USER;
}

static int keep(struct mr_http_parse *q, const char *p, size_t n, bool lower)
{
  size_t at = q->text.n;

  mr_buf_add(&q->text, p, n);
  if (q->text.failed) return bad(q, 503, "out of memory");
  for (size_t i = at; lower && i < q->text.n; i++)
    if (q->text.p[i] >= 'A' && q->text.p[i] <= 'Z') q->text.p[i] = (char)(q->text.p[i] + 32);
  return HPE_OK;
}

/* ---- llhttp's callbacks ---- */

static int on_url(llhttp_t *p, const char *at, size_t n)
{
  struct mr_http_parse *q = p->data;
  int r = keep(q, at, n, false);
  q->ntarget = q->text.n;
  return r;
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
  struct mr_http_parse *q = p->data;

  if (q->head_done) /* a trailer: read, bounded, not used */
    return HPE_OK;
  if (!q->in_name) {
    if (q->nfields == MR_HTTP_FIELDS_MAX) return bad(q, 431, "too many header fields");
    q->field[q->nfields++] = (struct mr_http_field){.name = (uint32_t)q->text.n};
    q->in_name = true;
  }
  return keep(q, at, n, true);
}

static int on_name_end(llhttp_t *p)
{
  struct mr_http_parse *q = p->data;
  struct mr_http_field *f = &q->field[q->nfields - 1];

  if (q->head_done) return HPE_OK;
  q->in_name = false;
  f->nname = (uint32_t)q->text.n - f->name;
  f->value = (uint32_t)q->text.n;
  return HPE_OK;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
  struct mr_http_parse *q = p->data;
  return q->head_done ? HPE_OK : keep(q, at, n, false);
}

static int on_value_end(llhttp_t *p)
{
  struct mr_http_parse *q = p->data;
  struct mr_http_field *f = &q->field[q->nfields - 1];
  struct mr_str v;

  if (q->head_done) return HPE_OK;
  if (q->text.n == f->value) return HPE_OK;
  v = mr_str_trim(mr_str_n(q->text.p + f->value, q->text.n - f->value));
  f->value = (uint32_t)(v.n ? v.p - q->text.p : 0);
  f->nvalue = (uint32_t)v.n;
  return HPE_OK;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
  struct mr_http_parse *q = p->data;
  q->piece = mr_str_n(at, n);
  return n ? HPE_PAUSED : HPE_OK;
}

static int on_end(llhttp_t *p)
{
  struct mr_http_parse *q = p->data;
  q->whole = true;
  return HPE_PAUSED;
}

/* ---- is the head one that we serve? ---- */

struct mr_str mr_http_parse_field(const struct mr_http_parse *q, struct mr_str name)
{
  for (int i = 0; i < q->nfields; i++)
    if (mr_str_eq(mr_str_n(q->text.p + q->field[i].name, q->field[i].nname), name))
      return mr_str_n(q->text.p + q->field[i].value, q->field[i].nvalue);
  return mr_str_n(NULL, 0);
}

static int count(const struct mr_http_parse *q, struct mr_str name)
{
  int n = 0;
  for (int i = 0; i < q->nfields; i++)
    n += mr_str_eq(mr_str_n(q->text.p + q->field[i].name, q->field[i].nname), name);
  return n;
}

static bool target_ok(const struct mr_http_parse *q)
{
  struct mr_str t = mr_str_n(q->text.p, q->ntarget);

  if (memchr(t.p, '#', t.n)) return false;
  if (mr_str_is(t, "*")) return q->p.method == HTTP_OPTIONS;
  return t.p[0] == '/' || mr_str_starts(t, MR_S("http://")) || mr_str_starts(t, MR_S("https://"));
}

static bool host_ok(struct mr_str host)
{
  for (size_t i = 0; i < host.n; i++)
    if ((unsigned char)host.p[i] <= ' ' || memchr("/\\@?#,<>\"", host.p[i], 9)) return false;
  return true;
}

/* RFC 9112 §6.3: framing that another server on the way could read in another way is an error. */
static int check_head(struct mr_http_parse *q)
{
  struct mr_str coding = mr_http_parse_field(q, MR_S("transfer-encoding"));
  struct mr_str expect = mr_http_parse_field(q, MR_S("expect"));
  int hosts = count(q, MR_S("host")), lengths = count(q, MR_S("content-length"));

  if (q->p.http_major != 1) return bad(q, 505, "HTTP version not supported");
  if (!q->ntarget || !target_ok(q)) return bad(q, 400, "malformed request target");
  if (hosts > 1 || (hosts == 0 && q->p.http_minor > 0) || !host_ok(mr_http_parse_field(q, MR_S("host"))))
    return bad(q, 400, hosts == 0 ? "host: header is required" : "host: header is malformed");
  if (lengths > 1) return bad(q, 400, "content-length: more than one");
  if (coding.p && lengths) return bad(q, 400, "content-length and transfer-encoding together");
  if (coding.p &&
      (!mr_str_ieq(coding, MR_S("chunked")) || q->p.http_minor == 0 || count(q, MR_S("transfer-encoding")) > 1))
    return bad(q, 400, "transfer-encoding: only chunked, once, and in HTTP/1.1");
  if (expect.n && !mr_str_ieq(expect, MR_S("100-continue"))) return bad(q, 417, "expect: only 100-continue");
  return HPE_OK;
}

static int on_head(llhttp_t *p)
{
  struct mr_http_parse *q = p->data;

  if (check_head(q) != HPE_OK) return -1;
  q->head_done = true;
  p->upgrade = 0; /* we stay with HTTP/1.1, as a server may */
  /* The handler runs before the first byte of a body is looked at. */
  return (p->flags & F_CHUNKED) || p->content_length > 0 ? HPE_PAUSED : HPE_OK;
}

static const llhttp_settings_t settings = {.on_url = on_url,
                                           .on_header_field = on_name,
                                           .on_header_field_complete = on_name_end,
                                           .on_header_value = on_value,
                                           .on_header_value_complete = on_value_end,
                                           .on_headers_complete = on_head,
                                           .on_body = on_body,
                                           .on_message_complete = on_end};

/* ---- feeding ---- */

static enum mr_http_found broken(struct mr_http_parse *q, enum llhttp_errno e)
{
  bool ours = q->p.http_major == 1 && q->p.http_minor <= 1; /* then it is what follows that is bad */

  if ((e == HPE_INVALID_VERSION && !ours) || e == HPE_PAUSED_H2_UPGRADE)
    bad(q, 505, "HTTP version not supported");
  else
    bad(q, 400, "malformed request");
  return MR_FOUND_ERROR;
}

enum mr_http_found mr_http_parse_feed(struct mr_http_parse *q, size_t max_header, struct mr_str *in)
{
  bool had_head = q->head_done;
  const char *base = in->n ? in->p : "";
  size_t n = in->n, used;
  enum llhttp_errno e;

  if (!had_head && n > max_header - q->head_n) n = max_header - q->head_n;
  q->piece = mr_str_n(NULL, 0);
  if (q->waiting) llhttp_resume(&q->p);
  q->waiting = false;
  e = llhttp_execute(&q->p, base, n);
  used = e == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&q->p) - base);
  if (used > n) return broken(q, HPE_INTERNAL);
  *in = mr_str_n(in->p + used, in->n - used);
  if (!had_head)
    q->head_n += used;
  else
    q->frame_n += (int64_t)(used - q->piece.n);
  q->body_n += (int64_t)q->piece.n;
  if (e != HPE_OK && e != HPE_PAUSED) return broken(q, e);
  q->waiting = e == HPE_PAUSED && !q->whole;
  if (!had_head && q->head_done) return MR_FOUND_HEAD;
  if (q->piece.n) return MR_FOUND_PIECE;
  if (q->whole) return MR_FOUND_END;
  if (!q->head_done && q->head_n >= max_header) {
    bad(q, 431, "request head too large");
    return MR_FOUND_ERROR;
  }
  /* Chunk extensions, trailers and zeros before a chunk's size are endless, if the peer likes. */
  if (q->frame_n > (int64_t)max_header + 16 * q->body_n) {
    bad(q, 400, "too much framing around the body");
    return MR_FOUND_ERROR;
  }
  return MR_FOUND_NOTHING;
}

/* ---- life ---- */

struct mr_http_parse *mr_http_parse_get(struct mr_http_server *s)
{
  struct mr_http_parse *q = s->spare;

  if (q) {
    s->spare = q->next;
    s->nspare--;
  } else {
    q = mr_mem_alloc(s->mem, sizeof *q);
    if (!q) return NULL;
    mr_buf_init(&q->text, s->mem, 2 * s->o.max_header);
  }
  mr_buf_reset(&q->text);
  q->next = NULL;
  q->nfields = q->status = 0;
  q->ntarget = q->head_n = 0;
  q->body_n = q->frame_n = 0;
  q->piece = mr_str_n(NULL, 0);
  q->why = "";
  q->head_done = q->in_name = q->whole = q->waiting = false;
  llhttp_init(&q->p, HTTP_REQUEST, &settings);
  q->p.data = q;
  return q;
}

static void destroy(struct mr_http_server *s, struct mr_http_parse *q)
{
  mr_buf_free(&q->text);
  mr_mem_free(s->mem, q);
}

void mr_http_parse_put(struct mr_http_server *s, struct mr_http_parse **qp)
{
  struct mr_http_parse *q = *qp;

  *qp = NULL;
  if (!q) return;
  if (s->nspare >= SPARE_MAX || q->text.cap > TEXT_KEPT) {
    destroy(s, q);
    return;
  }
  q->next = s->spare;
  s->spare = q;
  s->nspare++;
}

void mr_http_parse_drop_spare(struct mr_http_server *s)
{
  struct mr_http_parse *q;

  while ((q = s->spare)) {
    s->spare = q->next;
    destroy(s, q);
  }
  s->nspare = 0;
}
