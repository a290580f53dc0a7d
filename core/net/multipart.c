/*
 * multipart.c - incremental multipart/form-data; see multipart.h. Bytes that may be the beginning of a
 * delimiter are held back (at most its length); everything else of a part goes straight through.
 */
#include "net/multipart.h"

enum { HEADERS_MAX = 8 << 10, PARTS_MAX = 1000, BOUNDARY_MAX = 70 };
enum state { PREAMBLE, AFTER_DELIMITER, HEADERS, BEGUN, DATA, EPILOGUE };

struct mr_multipart {
  const struct mr_mem *mem;
  struct mr_multipart_cbs cbs;
  void *ud;
  enum state state;
  char delimiter[BOUNDARY_MAX + 8]; /* CRLF "--" boundary */
  size_t ndelimiter;
  struct mr_buf held; /* not yet understood */
  int parts;
};

/* A parameter of a header value, quoted or not; p NULL when absent. name* of RFC 5987 wins. */
static struct mr_str param(struct mr_str value, const char *name, struct mr_buf *store)
{
  struct mr_str rest = value;

  mr_str_split(&rest, ';');
  while (rest.p) {
    struct mr_str key, v;
    while (rest.n && (rest.p[0] == ' ' || rest.p[0] == '\t' || rest.p[0] == ';'))
      rest.p++, rest.n--;
    if (!rest.n) break;
    key = mr_str_trim(mr_str_split(&rest, '='));
    if (!rest.p) break;
    mr_buf_reset(store);
    if (rest.n && rest.p[0] == '"') {
      size_t i = 1;
      for (; i < rest.n && rest.p[i] != '"'; i++) {
        if (rest.p[i] == '\\' && i + 1 < rest.n && (rest.p[i + 1] == '"' || rest.p[i + 1] == '\\')) i++;
        mr_buf_char(store, rest.p[i]);
      }
      rest.p += i < rest.n ? i + 1 : rest.n;
      rest.n -= i < rest.n ? i + 1 : rest.n;
      v = mr_buf_get(store);
    } else {
      v = mr_str_trim(mr_str_split(&rest, ';'));
    }
    if (mr_str_ieq(key, mr_str_c(name))) return v;
  }
  return mr_str_n(NULL, 0);
}

static bool boundary_ok(struct mr_str b)
{
  if (b.n < 1 || b.n > BOUNDARY_MAX) return false;
  for (size_t i = 0; i < b.n; i++)
    if ((unsigned char)b.p[i] < 0x20 || (unsigned char)b.p[i] > 0x7e) return false;
  return true;
}

int mr_multipart_new(struct mr_multipart **out, const struct mr_mem *m, struct mr_str content_type,
                     const struct mr_multipart_cbs *cbs, void *ud, struct mr_err *err)
{
  struct mr_multipart *p;
  struct mr_buf store;
  struct mr_str kind = content_type, b;
  int code = MR_OK;

  *out = NULL;
  kind = mr_str_trim(mr_str_split(&kind, ';'));
  mr_buf_init(&store, m, 1024);
  b = param(content_type, "boundary", &store);
  if (!mr_str_ieq(kind, MR_S("multipart/form-data")) || !boundary_ok(b)) {
    code = mr_err_set(err, MR_E_INVALID, NULL, "the body must be multipart/form-data with a boundary");
    goto out;
  }
  p = mr_mem_zalloc(m, sizeof *p);
  if (!p) {
    code = mr_err_nomem(err);
    goto out;
  }
  p->mem = m;
  p->cbs = *cbs;
  p->ud = ud;
  memcpy(p->delimiter, "\r\n--", 4);
  memcpy(p->delimiter + 4, b.p, b.n);
  p->ndelimiter = 4 + b.n;
  mr_buf_init(&p->held, m, 4 << 20);
  mr_buf_c(&p->held, "\r\n"); /* the first delimiter may begin the body */
  *out = p;
out:
  mr_buf_free(&store);
  return code;
}

static int part_headers(struct mr_multipart *p, struct mr_str block)
{
  struct mr_str name = {NULL, 0}, file = {NULL, 0}, type = {NULL, 0};
  struct mr_buf a, b;
  int r;

  mr_buf_init(&a, p->mem, HEADERS_MAX);
  mr_buf_init(&b, p->mem, HEADERS_MAX);
  while (block.p) {
    struct mr_str line = mr_str_trim(mr_str_split(&block, '\n')), value = line, key = mr_str_split(&value, ':');
    if (mr_str_ieq(key, MR_S("content-disposition"))) {
      name = param(value, "name", &a);
      file = param(value, "filename", &b);
    } else if (mr_str_ieq(key, MR_S("content-type"))) {
      type = mr_str_trim(value);
    }
  }
  r = name.p ? p->cbs.part(p->ud, name, file, type) : MR_E_INVALID;
  mr_buf_free(&a);
  mr_buf_free(&b);
  return r;
}

/* One step on what is held. MR_MORE: nothing more can be done without bytes. */
static int step(struct mr_multipart *p)
{
  struct mr_str h = mr_buf_get(&p->held);
  const char *at;
  size_t n;
  int r;

  switch (p->state) {
  case PREAMBLE:
  case DATA:
    at = h.n >= p->ndelimiter ? memmem(h.p, h.n, p->delimiter, p->ndelimiter) : NULL;
    n = at ? (size_t)(at - h.p) : h.n < p->ndelimiter ? 0 : h.n - p->ndelimiter + 1;
    if (n && p->state == DATA && (r = p->cbs.data(p->ud, mr_str_n(h.p, n)))) return r;
    mr_buf_drop(&p->held, n + (at ? p->ndelimiter : 0));
    if (!at) return MR_MORE;
    if (p->state == DATA && (r = p->cbs.end(p->ud))) return r;
    p->state = AFTER_DELIMITER;
    return MR_OK;
  case AFTER_DELIMITER:
    if (h.n < 2) return MR_MORE;
    p->state = h.p[0] == '-' && h.p[1] == '-' ? EPILOGUE : HEADERS;
    if (p->state == HEADERS && (h.p[0] != '\r' || h.p[1] != '\n')) return MR_E_INVALID;
    if (p->state == HEADERS && ++p->parts > PARTS_MAX) return MR_E_TOO_LARGE;
    mr_buf_drop(&p->held, p->state == HEADERS ? 0 : 2);
    return MR_OK;
  case HEADERS:
    at = memmem(h.p, h.n, "\r\n\r\n", 4);
    if (!at) return h.n > HEADERS_MAX ? MR_E_TOO_LARGE : MR_MORE;
    r = part_headers(p, mr_str_n(h.p, (size_t)(at - h.p)));
    mr_buf_drop(&p->held, (size_t)(at - h.p) + 4);
    p->state = BEGUN;
    return r;
  case BEGUN: /* without a body, the delimiter's CRLF is the one that ended the headers */
    n = p->ndelimiter - 2;
    if (memcmp(h.p, p->delimiter + 2, h.n < n ? h.n : n) != 0) {
      p->state = DATA;
      return MR_OK;
    }
    if (h.n < n) return MR_MORE;
    mr_buf_drop(&p->held, n);
    p->state = AFTER_DELIMITER;
    return p->cbs.end(p->ud);
  default: mr_buf_reset(&p->held); return MR_MORE;
  }
}

int mr_multipart_feed(struct mr_multipart *p, struct mr_str bytes, struct mr_err *err)
{
  int r = MR_OK;

  mr_buf_str(&p->held, bytes);
  if (p->held.failed) return mr_err_set(err, p->held.failed, NULL, "out of memory");
  while (r == MR_OK)
    r = step(p);
  if (r == MR_MORE) return MR_OK;
  if (err && err->code != r) mr_err_set(err, r, NULL, "the multipart body is malformed");
  return r;
}

int mr_multipart_finish(struct mr_multipart *p, struct mr_err *err)
{
  return p->state == EPILOGUE ? MR_OK : mr_err_set(err, MR_E_INVALID, NULL, "the multipart body is cut short");
}

void mr_multipart_free(struct mr_multipart **pp)
{
  if (!*pp) return;
  mr_buf_free(&(*pp)->held);
  mr_mem_free((*pp)->mem, *pp);
  *pp = NULL;
}
