/*
 * web_seen.c - the URLs that a conversation has so far, and where they came from: web_fetch goes nowhere else (API:
 * resources §4.9), so that what a page or a file talks a model into cannot carry data out in an address. Sources are
 * what clients say (messages, outcomes), results of custom tools, and results of web_search and web_fetch; not what
 * the sandbox prints, not what a model writes.
 *
 * State of a session, filled by mr_state_apply alone: so it is there after a restart and in copies, and nothing is
 * read again. A URL is kept as a hash of its canonical form without the scheme, with a bit for each source. Bounded: of
 * the newest HALF to 2 * HALF URLs; what is older is forgotten. Loop thread.
 */
#include "agent/web.h"

#include <strings.h>

enum { HALF = 32768, FIRST = 64, TOOLS_MAX = 60, URL_MAX = 2048 };

struct slot {
  unsigned char key[16]; /* all zero: free */
  uint64_t sources;
};
struct table {
  struct slot *v;
  size_t n, cap; /* cap: a power of two, or 0 */
};
struct mr_seen {
  struct table now, old; /* a full one becomes the old one */
  struct mr_str tools[TOOLS_MAX];
  int ntools;
};

/* ---- the table ---- */

static struct slot *find(const struct table *t, const unsigned char key[16])
{
  size_t at;

  if (!t->cap) return NULL;
  memcpy(&at, key, sizeof at);
  for (at &= t->cap - 1;; at = (at + 1) & (t->cap - 1)) {
    static const unsigned char none[16] = {0};
    if (memcmp(t->v[at].key, key, 16) == 0 || memcmp(t->v[at].key, none, 16) == 0) return &t->v[at];
  }
}

static bool grow(const struct mr_mem *m, struct table *t)
{
  struct table to = {.cap = t->cap ? t->cap * 2 : FIRST};

  to.v = mr_mem_zalloc(m, to.cap * sizeof *to.v);
  if (!to.v) return false;
  for (size_t i = 0; i < t->cap; i++)
    if (t->v[i].sources) {
      *find(&to, t->v[i].key) = t->v[i];
      to.n++;
    }
  mr_mem_free(m, t->v);
  *t = to;
  return true;
}

static void put(const struct mr_mem *m, struct mr_seen *seen, const unsigned char key[16], uint64_t source)
{
  struct slot *s = find(&seen->now, key);

  if (s && s->sources) {
    s->sources |= source;
    return;
  }
  if (seen->now.n == HALF) {
    mr_mem_free(m, seen->old.v);
    seen->old = seen->now;
    seen->now = (struct table){0};
  }
  if (seen->now.n * 2 >= seen->now.cap && !grow(m, &seen->now)) return; /* not seen: it is refused later */
  s = find(&seen->now, key);
  memcpy(s->key, key, 16);
  s->sources = source;
  seen->now.n++;
}

void mr_seen_free(struct mr_session *s)
{
  if (s->seen) {
    mr_mem_free(s->d->mem, s->seen->now.v);
    mr_mem_free(s->d->mem, s->seen->old.v);
    mr_mem_free(s->d->mem, s->seen);
  }
  s->seen = NULL;
}

static struct mr_seen *seen_of(struct mr_session *s)
{
  if (!s->seen) s->seen = mr_mem_zalloc(s->d->mem, sizeof *s->seen);
  return s->seen;
}

/* ---- sources ---- */

uint64_t mr_seen_tool(struct mr_session *s, struct mr_str name)
{
  struct mr_seen *seen = seen_of(s);
  int i = 0;

  if (mr_str_is(name, "web_search")) return MR_SEEN_SEARCH;
  if (mr_str_is(name, "web_fetch")) return MR_SEEN_FETCH;
  while (seen && i < seen->ntools && !mr_str_eq(seen->tools[i], name))
    i++;
  if (!seen || i == TOOLS_MAX) return MR_SEEN_OTHERS;
  if (i == seen->ntools) {
    seen->tools[i] = mr_session_copy(s, name);
    if (!seen->tools[i].p) return MR_SEEN_OTHERS;
    seen->ntools++;
  }
  return UINT64_C(8) << i;
}

/* ---- URLs ---- */

static void key_of(const struct mr_weburl *u, unsigned char key[16])
{
  char hex[65];

  mr_sha256_hex(mr_str_c(u->rest), hex);
  for (int i = 0; i < 16; i++) {
    char a = hex[2 * i], b = hex[2 * i + 1];
    key[i] = (unsigned char)(((a & 15) + (a >> 6) * 9) << 4 | ((b & 15) + (b >> 6) * 9));
  }
  key[0] |= 1; /* never all zero */
}

static void add(struct mr_session *s, struct mr_str url, uint64_t source)
{
  unsigned char key[16];
  struct mr_weburl u;

  if (url.n > URL_MAX || !seen_of(s) || mr_weburl_read(&u, NULL, url, NULL) != MR_OK) return;
  /* "https://x:80/" and "http://x/" are two; but the scheme as such says little, people leave it out. */
  key_of(&u, key);
  put(s->d->mem, s->seen, key, source);
}

bool mr_seen_has(struct mr_session *s, const struct mr_weburl *u, uint64_t sources)
{
  unsigned char key[16];
  const struct slot *a, *b;

  if (!s->seen) return false;
  key_of(u, key);
  a = find(&s->seen->now, key);
  b = find(&s->seen->old, key);
  return ((a ? a->sources : 0) | (b ? b->sources : 0)) & sources;
}

/* ---- text ---- */

static bool url_char(char c)
{
  return (unsigned char)c > ' ' && c != 0x7f && !strchr("<>\"`{}|\\^", c);
}

/* Where the URL that begins at p ends: before a bracket that it did not open. */
static const char *url_end(const char *p, const char *end)
{
  int round = 0, square = 0;

  for (; p < end && url_char(*p); p++) {
    if (*p == '(') round++;
    if (*p == '[') square++;
    if ((*p == ')' && --round < 0) || (*p == ']' && --square < 0)) break;
  }
  return p;
}

/* As it stands, and without what is rather the sentence's. */
static void add_both(struct mr_session *s, const char *p, const char *end, uint64_t source)
{
  const char *cut = end;

  add(s, mr_str_n(p, (size_t)(end - p)), source);
  while (cut > p && strchr(".,;:!?'*_~", cut[-1]))
    cut--;
  if (cut < end) add(s, mr_str_n(p, (size_t)(cut - p)), source);
}

static void text_urls(struct mr_session *s, struct mr_str text, uint64_t source)
{
  const char *p = text.p, *end = text.p + text.n, *to;

  while (p && p < end && (p = memmem(p, (size_t)(end - p), "://", 3))) {
    const char *from = p - text.p >= 5 && strncasecmp(p - 5, "https", 5) == 0  ? p - 5
                       : p - text.p >= 4 && strncasecmp(p - 4, "http", 4) == 0 ? p - 4
                                                                               : NULL;
    to = url_end(p + 3, end);
    if (from) add_both(s, from, to, source);
    p = to > p + 3 ? to : p + 3;
  }
}

/* "example.com/page", without a scheme: people write so. */
static void bare_url(struct mr_session *s, const char *p, const char *end, uint64_t source)
{
  char text[300] = "https://";
  const char *host = p, *dot = NULL;

  while (end > p && strchr(".,;:!?'*_~", end[-1]))
    end--;
  if (end - p < 4 || (size_t)(end - p) > sizeof text - 10) return;
  for (; host < end && !strchr("/?#:", *host); host++) {
    if (*host == '.') dot = host;
    if (!((*host >= 'a' && *host <= 'z') || (*host >= 'A' && *host <= 'Z') || (*host >= '0' && *host <= '9') ||
          *host == '-' || *host == '.'))
      return;
  }
  if (!dot || dot == p || host - dot < 3) return;
  for (const char *c = dot + 1; c < host; c++)
    if ((*c >= '0' && *c <= '9') || *c == '-') return;
  memcpy(text + 8, p, (size_t)(end - p));
  add(s, mr_str_n(text, 8 + (size_t)(end - p)), source);
}

static void bare_urls(struct mr_session *s, struct mr_str text, uint64_t source)
{
  const char *p = text.p, *end = text.p + text.n;

  while (p && p < end) {
    const char *to;
    while (p < end && (!url_char(*p) || strchr("([,;'", *p)))
      p++;
    to = url_end(p, end);
    if (to > p && memchr(p, '.', (size_t)(to - p)) && !memmem(p, (size_t)(to - p), "://", 3))
      bare_url(s, p, to, source);
    p = to > p ? to : p + 1;
  }
}

static void text(struct mr_session *s, struct mr_str t, uint64_t source)
{
  text_urls(s, t, source);
  if (source == MR_SEEN_USER) bare_urls(s, t, source);
}

void mr_seen_content(struct mr_session *s, yyjson_val *content, uint64_t source)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *b, *src;

  if (yyjson_is_str(content)) text(s, mr_json_str(content), source);
  while (yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&it))) {
    src = mr_json_get(b, "source");
    text(s, mr_json_get_str(b, "text"), source);
    text(s, mr_json_get_str(b, "title"), source);
    text(s, mr_json_get_str(b, "context"), source);
    add(s, mr_json_get_str(src, "url"), source);
    if (yyjson_is_str(src)) add(s, mr_json_str(src), source); /* of a search result */
    if (mr_str_is(mr_json_get_str(src, "type"), "text")) text(s, mr_json_get_str(src, "data"), source);
    if (yyjson_is_arr(mr_json_get(b, "content"))) mr_seen_content(s, mr_json_get(b, "content"), source);
  }
}

void mr_seen_result(const struct mr_tcall *t, yyjson_val *content)
{
  struct mr_session *s = t->th->s;

  if ((t->kind == MR_TOOL_WEB && !t->is_error) || t->kind == MR_TOOL_CUSTOM || t->kind == MR_TOOL_GUARDED)
    mr_seen_content(s, content, mr_seen_tool(s, t->name));
}
