/*
 * routes.c - the host's paths below /x/: the table, and which of them a request means. See api.h.
 *
 * A pattern is segments: text, {name} for one that is not empty, and at the end * for all the rest. The most exact
 * pattern wins: where two differ first, text goes before {name}, and that before *. Paths are decoded segment by
 * segment, so an encoded slash stays within its parameter; what decodes to a control character, bad UTF-8, "." or ".."
 * is refused, because handlers make file names of it; so is a parameter that would begin with a slash.
 *
 * Invariant: a route lives until it is out of the table and its last request is over. Loop thread.
 */
#include "api/api_t.h"
#include "net/url.h"

#include <stdio.h>

enum { ROUTES_MAX = 1000, PATTERN_MAX = 400, SEGMENTS_MAX = 100 };
enum kind { REST, ONE, TEXT }; /* by exactness */

static enum kind kind_of(struct mr_str segment)
{
  return mr_str_is(segment, "*") ? REST : segment.n && segment.p[0] == '{' ? ONE : TEXT;
}

static struct mr_str name_of(struct mr_str segment)
{
  return segment.p[0] == '*' ? segment : mr_str_n(segment.p + 1, segment.n - 2);
}

/* ---- the table ---- */

static bool name_ok(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (!(c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (i && c >= '0' && c <= '9')))
      return false;
  }
  return s.n > 0;
}

static bool text_ok(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++)
    if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f || strchr("{}*%?#\\", s.p[i])) return false;
  return !mr_str_is(s, ".") && !mr_str_is(s, "..") && mr_utf8_valid(s);
}

static int check_path(const char *path, struct mr_err *err)
{
  struct mr_str rest = mr_str_c(path ? path : ""), seen[MR_ROUTE_PARAMS];
  int n = 0;

  if (!mr_str_starts(rest, MR_S("/x/")) || rest.n > PATTERN_MAX)
    return mr_err_set(err, MR_E_INVALID, "path", "path: a route begins with /x/ and has at most %d bytes",
                      PATTERN_MAX);
  for (mr_str_split(&rest, '/'); rest.p;) {
    struct mr_str s = mr_str_split(&rest, '/');
    enum kind k = kind_of(s);
    bool ok = k == TEXT  ? text_ok(s) && (s.n || !rest.p)
              : k == ONE ? s.n > 2 && s.p[s.n - 1] == '}' && name_ok(name_of(s))
                         : !rest.p;
    if (ok && k != TEXT) {
      for (int i = 0; i < n; i++)
        ok = ok && !mr_str_eq(seen[i], name_of(s));
      if (n < MR_ROUTE_PARAMS) seen[n] = name_of(s);
      ok = ok && n++ < MR_ROUTE_PARAMS;
    }
    if (!ok)
      return mr_err_set(
          err, MR_E_INVALID, "path",
          "path: %.200s: segments are text, {name} (each once, at most %d), and * as the last one", path,
          MR_ROUTE_PARAMS);
  }
  return MR_OK;
}

static int check(const struct mr_api_route *r, struct mr_err *err)
{
  size_t n = r->method ? strlen(r->method) : 3;

  if (n < 3 || n > 20 || (r->method && strspn(r->method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != n))
    return mr_err_set(err, MR_E_INVALID, "method", "method: capital letters, such as GET");
  return check_path(r->path, err);
}

static bool same_method(const char *a, const char *b)
{
  return a && b ? strcmp(a, b) == 0 : a == b;
}

/* Two patterns for the same paths, whatever their parameters are called. */
static bool same_path(const char *a, const char *b)
{
  struct mr_str x = mr_str_c(a), y = mr_str_c(b);

  while (x.p && y.p) {
    struct mr_str s = mr_str_split(&x, '/'), t = mr_str_split(&y, '/');
    if (kind_of(s) != kind_of(t) || (kind_of(s) == TEXT && !mr_str_eq(s, t))) return false;
  }
  return !x.p && !y.p;
}

static struct mr_api_routed **find(struct mr_api *a, const char *method, const char *path)
{
  struct mr_api_routed **at = &a->routes;

  while (*at && !(same_method((*at)->r.method, method) && same_path((*at)->r.path, path)))
    at = &(*at)->next;
  return at;
}

void mr_api_route_unref(struct mr_api *a, struct mr_api_routed **rp)
{
  struct mr_api_routed *r = *rp;

  *rp = NULL;
  if (!r || --r->refs > 0) return;
  if (r->r.free) r->r.free(r->r.ud);
  mr_mem_free(a->mem, (char *)(uintptr_t)r->r.method);
  mr_mem_free(a->mem, (char *)(uintptr_t)r->r.path);
  mr_mem_free(a->mem, r);
}

int mr_api_route_add(struct mr_api *a, const struct mr_api_route *given, struct mr_err *err)
{
  struct mr_api_routed *r = mr_mem_zalloc(a->mem, sizeof *r), **at, *old;
  int code = r ? check(given, err) : mr_err_nomem(err);

  if (code == MR_OK) {
    r->refs = 1;
    r->r = *given;
    r->r.path = mr_mem_strdup(a->mem, mr_str_c(given->path));
    if (given->method) r->r.method = mr_mem_strdup(a->mem, mr_str_c(given->method));
    at = find(a, given->method, given->path);
    old = *at;
    if (!r->r.path || (given->method && !r->r.method))
      code = mr_err_nomem(err);
    else if (!old && a->nroutes >= ROUTES_MAX)
      code = mr_err_set(err, MR_E_FULL, NULL, "there are %d routes, and no room for more", ROUTES_MAX);
    if (code != MR_OK) {
      mr_api_route_unref(a, &r); /* frees ud */
      return code;
    }
    r->next = old ? old->next : NULL;
    *at = r;
    a->nroutes += !old;
    mr_api_route_unref(a, &old);
    return MR_OK;
  }
  if (given->free) given->free(given->ud);
  mr_mem_free(a->mem, r);
  return code;
}

int mr_api_route_remove(struct mr_api *a, const char *method, const char *path)
{
  struct mr_api_routed **at = path ? find(a, method, path) : NULL, *r = at ? *at : NULL;

  if (!r) return MR_E_NOTFOUND;
  *at = r->next;
  a->nroutes--;
  mr_api_route_unref(a, &r);
  return MR_OK;
}

void mr_api_routes_free(struct mr_api *a)
{
  for (struct mr_api_routed *r; (r = a->routes);) {
    a->routes = r->next;
    mr_api_route_unref(a, &r);
  }
  a->nroutes = 0;
}

/* ---- which one a request means ---- */

struct path {
  struct mr_str v[SEGMENTS_MAX];
  int n;
};

static bool segment_ok(struct mr_str s)
{
  struct mr_str rest = s;

  for (size_t i = 0; i < s.n; i++)
    if ((unsigned char)s.p[i] < ' ' || s.p[i] == 0x7f) return false;
  while (rest.p) {
    struct mr_str part = mr_str_split(&rest, '/'); /* that were encoded */
    if (mr_str_is(part, ".") || mr_str_is(part, "..")) return false;
  }
  return true;
}

static int decode(struct mr_arena *arena, struct mr_str raw, struct path *p)
{
  p->n = 0;
  for (mr_str_split(&raw, '/'); raw.p;) {
    struct mr_str s = mr_url_decode(arena, mr_str_split(&raw, '/'), false);
    if (!s.p || p->n == SEGMENTS_MAX || !segment_ok(s)) return MR_E_INVALID;
    p->v[p->n++] = s;
  }
  return MR_OK;
}

static struct mr_str join(struct mr_arena *arena, const struct path *p, int from, bool rooted)
{
  size_t n = 0;
  char *out, *at;

  for (int i = from; i < p->n; i++)
    n += p->v[i].n + 1;
  at = out = mr_arena_alloc(arena, n + 2);
  for (int i = from; out && i < p->n; i++) {
    if (rooted || i > from) *at++ = '/';
    if (p->v[i].n) memcpy(at, p->v[i].p, p->v[i].n);
    at += p->v[i].n;
  }
  return mr_str_n(out, out ? (size_t)(at - out) : 0);
}

static bool fits(const char *pattern, const struct path *p)
{
  struct mr_str want = mr_str_c(pattern);
  int i = 0;

  for (mr_str_split(&want, '/'); want.p; i++) {
    struct mr_str s = mr_str_split(&want, '/');
    enum kind k = kind_of(s);
    if (i >= p->n) return false;
    if (k == REST) return true;
    if (k == ONE ? p->v[i].n == 0 : !mr_str_eq(s, p->v[i])) return false;
  }
  return i == p->n;
}

/* How well a route's method fits; 0: not at all. */
static int method_fit(const char *have, struct mr_str want)
{
  if (!have) return 1;
  if (mr_str_is(want, have)) return 3;
  return mr_str_is(want, "HEAD") && strcmp(have, "GET") == 0 ? 2 : 0;
}

static bool better(const struct mr_api_routed *a, const struct mr_api_routed *b, struct mr_str method)
{
  struct mr_str x = mr_str_c(a->r.path), y = mr_str_c(b->r.path);

  while (x.p && y.p) {
    enum kind k = kind_of(mr_str_split(&x, '/')), l = kind_of(mr_str_split(&y, '/'));
    if (k != l) return k > l;
  }
  return method_fit(a->r.method, method) > method_fit(b->r.method, method);
}

static void allow_add(char *allow, size_t n, const char *method)
{
  size_t have = strlen(allow);
  struct mr_str rest = mr_str_n(allow, have);

  while (rest.n)
    if (mr_str_is(mr_str_trim(mr_str_split(&rest, ',')), method)) return;
  if (have + strlen(method) + 3 > n) return;
  snprintf(allow + have, n - have, "%s%s", have ? ", " : "", method);
  if (strcmp(method, "GET") == 0) allow_add(allow, n, "HEAD");
}

static int fill(struct mr_arena *arena, const struct path *p, struct mr_api_match *m)
{
  struct mr_str want = mr_str_c(m->r->r.path);
  int i = 0;

  m->path = join(arena, p, 0, true);
  for (mr_str_split(&want, '/'); want.p; i++) {
    struct mr_str s = mr_str_split(&want, '/');
    enum kind k = kind_of(s);
    if (k == TEXT) continue;
    m->name[m->n] = name_of(s);
    m->value[m->n] = k == ONE ? p->v[i] : join(arena, p, i, false);
    if (!m->value[m->n].p) return MR_E_NOMEM;
    if (mr_str_starts(m->value[m->n++], MR_S("/"))) return MR_E_INVALID;
  }
  return m->path.p ? MR_OK : MR_E_NOMEM;
}

int mr_api_route_find(struct mr_api *a, struct mr_arena *arena, struct mr_str method, struct mr_str raw,
                      struct mr_api_match *out, char *allow, size_t n)
{
  struct mr_api_routed *best = NULL;
  struct path p;

  memset(out, 0, sizeof *out);
  allow[0] = '\0';
  if (decode(arena, raw, &p) != MR_OK) return MR_E_INVALID;
  for (struct mr_api_routed *r = a->routes; r; r = r->next) {
    if (!fits(r->r.path, &p)) continue;
    if (method_fit(r->r.method, method) == 0)
      allow_add(allow, n, r->r.method);
    else if (!best || better(r, best, method))
      best = r;
  }
  if (!best) return allow[0] ? MR_E_UNSUPPORTED : MR_E_NOTFOUND;
  best->refs++;
  out->r = best;
  return fill(arena, &p, out);
}
