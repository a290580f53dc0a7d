/*
 * fake_web - the fake host's routes: what is registered, and the requests that a test makes. A client is as slow as
 * the test says: after host.web_slow(id) every write says MR_MORE, until host.web_drain(id).
 */
#include "fake_host_t.h"

struct route {
  struct route *next;
  char method[24], path[400];
  struct mr_route r;
};
struct mr_web {
  struct mr_web *next;
  uint64_t id;
  char *method, *path, *query, *headers, *body, *pattern;
  size_t bodyn;
  char param[400];
  struct mr_route r;
  int status, slow, closed, ended; /* ended: 1 by end, 2 by fail */
  int64_t length;
  char head[4000];
  char *out;
  size_t outn;
  void (*drained)(void *);
  void *drained_ud;
};
static struct route *routes;
static struct mr_web *webs;

static struct mr_str str(const char *p) { return (struct mr_str){p, strlen(p)}; }

static void drop(const char *method, const char *path)
{
  for (struct route **at = &routes; *at; at = &(*at)->next)
    if (strcmp((*at)->method, method ? method : "*") == 0 && strcmp((*at)->path, path) == 0) {
      struct route *r = *at;
      *at = r->next;
      free(r);
      return;
    }
}
int mr_route_add(struct mr_runtime *rt, const struct mr_route *given, struct mr_err *err)
{
  (void)rt;
  if (strstr(given->path, "refused")) return fake_fail(err, MR_E_INVALID, "this host refuses it");
  drop(given->method, given->path);
  struct route *r = calloc(1, sizeof *r);
  snprintf(r->method, sizeof r->method, "%s", given->method ? given->method : "*");
  snprintf(r->path, sizeof r->path, "%s", given->path);
  r->r = *given;
  r->next = routes;
  routes = r;
  return MR_OK;
}
int mr_route_remove(struct mr_runtime *rt, const char *method, const char *path)
{
  (void)rt;
  drop(method, path);
  return MR_OK;
}
struct mr_str mr_web_method(const struct mr_web *w) { return str(w->method); }
struct mr_str mr_web_path(const struct mr_web *w) { return str(w->path); }
struct mr_str mr_web_query(const struct mr_web *w) { return str(w->query); }
struct mr_str mr_web_headers(const struct mr_web *w) { return str(w->headers); }
struct mr_str mr_web_body(const struct mr_web *w) { return (struct mr_str){w->body, w->bodyn}; }
struct mr_str mr_web_remote(const struct mr_web *w) { (void)w; return str("127.0.0.1:9"); }
int mr_web_closed(const struct mr_web *w) { return w->closed; }
struct mr_str mr_web_param(const struct mr_web *w, const char *name) /* the first one's value; "*": too */
{
  (void)name;
  return str(w->param);
}
int mr_web_start(struct mr_web *w, int status, const char *const *headers, int64_t length)
{
  if (w->ended) abort();
  if (w->closed) return MR_E_CLOSED;
  if (w->status) return MR_E_STATE;
  w->status = status;
  w->length = length;
  for (int i = 0; headers && headers[i]; i++) {
    strncat(w->head, headers[i], sizeof w->head - strlen(w->head) - 2);
    strcat(w->head, "\n");
  }
  return MR_OK;
}
int mr_web_write(struct mr_web *w, struct mr_str b, void (*drained)(void *), void *ud)
{
  if (w->ended) abort();
  if (w->closed) return MR_E_CLOSED;
  if (!w->status) return MR_E_STATE;
  w->out = realloc(w->out, w->outn + b.n + 1);
  if (b.n) memcpy(w->out + w->outn, b.p, b.n);
  w->outn += b.n;
  if (!w->slow) return MR_OK;
  w->drained = drained;
  w->drained_ud = ud;
  return MR_MORE;
}
static int finish(struct mr_web **w, int how)
{
  if (!*w || (*w)->ended) abort(); /* ended twice */
  (*w)->ended = how;
  *w = NULL;
  return MR_OK;
}
int mr_web_end(struct mr_web **w) { return finish(w, 1); }
int mr_web_fail(struct mr_web **w) { return finish(w, 2); }

/* ---- the test's side */

static struct mr_web *web(lua_State *L)
{
  for (struct mr_web *w = webs; w; w = w->next)
    if (w->id == (uint64_t)luaL_checknumber(L, 1)) return w;
  luaL_error(L, "no such request");
  return NULL;
}
static void run(void *a, void *b)
{
  (void)b;
  struct mr_web *w = a;
  w->r.run(w->r.ud, w);
}
/* As far as tests need it: one parameter or a star, at the end. */
static int fits(const struct route *r, const char *method, const char *path, char *param)
{
  size_t n = strcspn(r->path, "{*");
  if (strcmp(r->method, "*") != 0 && strcmp(r->method, method) != 0) return 0;
  if (!r->path[n]) return strcmp(r->path, path) == 0;
  if (strncmp(r->path, path, n) != 0 || (r->path[n] == '{' && strchr(path + n, '/'))) return 0;
  snprintf(param, 400, "%s", path + n);
  return 1;
}
static char *field(lua_State *L, const char *name, size_t *n)
{
  size_t len = 0;
  const char *p = "";
  if (lua_istable(L, 3)) {
    lua_getfield(L, 3, name);
    if (lua_isstring(L, -1)) p = lua_tolstring(L, -1, &len);
  }
  char *c = malloc(len + 1);
  memcpy(c, p, len);
  c[len] = 0;
  if (n) *n = len;
  return c;
}
static struct mr_web *new_web(const char *method, const char *path)
{
  char param[400] = "";
  struct route *r = routes;
  while (r && !fits(r, method, path, param)) r = r->next;
  if (!r) return NULL;
  struct mr_web *w = calloc(1, sizeof *w);
  w->id = fake.next_id++;
  w->method = strdup(method);
  w->path = strdup(path);
  memcpy(w->param, param, sizeof param);
  w->r = r->r;
  w->next = webs;
  webs = w;
  return w;
}
struct mr_web *host_ask(const char *method, const char *path)
{
  struct mr_web *w = new_web(method, path);
  if (!w) return NULL;
  w->query = strdup(""), w->headers = strdup(""), w->body = strdup("");
  w->slow = 1;
  fake_push(run, w, NULL);
  return w;
}
int host_asked(const struct mr_web *w, int *status)
{
  *status = w->status;
  return w->ended;
}
static int h_web(lua_State *L) /* web(method, path, {query, headers, body}) -> id */
{
  struct mr_web *w = new_web(luaL_checkstring(L, 1), luaL_checkstring(L, 2));
  if (!w) return 0;
  w->query = field(L, "query", NULL);
  w->headers = field(L, "headers", NULL);
  w->body = field(L, "body", &w->bodyn);
  fake_push(run, w, NULL);
  lua_pushnumber(L, (lua_Number)w->id);
  return 1;
}
static int h_web_state(lua_State *L) /* -> "open"|"end"|"fail", status, head, body, length */
{
  static const char *const how[] = {"open", "end", "fail"};
  struct mr_web *w = web(L);
  lua_pushstring(L, how[w->ended]);
  lua_pushinteger(L, w->status);
  lua_pushstring(L, w->head);
  lua_pushlstring(L, w->out ? w->out : "", w->outn);
  lua_pushinteger(L, (lua_Integer)w->length);
  return 5;
}
static int h_web_slow(lua_State *L) { web(L)->slow = 1; return 0; }
static void run_drain(void *a, void *b)
{
  (void)b;
  struct mr_web *w = a;
  void (*fn)(void *) = w->drained;
  w->drained = NULL;
  if (fn && !w->ended) fn(w->drained_ud);
}
static int h_web_drain(lua_State *L) { web(L)->slow = 0; fake_push(run_drain, web(L), NULL); return 0; }
static void run_closed(void *a, void *b)
{
  (void)b;
  struct mr_web *w = a;
  w->closed = 1;
  if (!w->ended) w->r.closed(w->r.ud, w);
  run_drain(a, b);
}
static int h_web_gone(lua_State *L) { fake_push(run_closed, web(L), NULL); return 0; }
static int h_routes(lua_State *L) /* routes() -> "METHOD path flags body_max timeout_ms" lines */
{
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (struct route *r = routes; r; r = r->next) {
    lua_pushfstring(L, "%s %s %d %d %d\n", r->method, r->path, (int)r->r.flags, (int)r->r.body_max, r->r.timeout_ms);
    luaL_addvalue(&b);
  }
  luaL_pushresult(&b);
  return 1;
}

void fake_web_open(lua_State *L) /* adds to the table on top */
{
  static const luaL_Reg fns[] = {{"web", h_web}, {"web_state", h_web_state}, {"web_slow", h_web_slow}, {"web_drain", h_web_drain},
                                 {"web_gone", h_web_gone}, {"routes", h_routes}, {NULL, NULL}};
  for (const luaL_Reg *f = fns; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
}
int fake_web_left(void) /* frees what is ended; how many are open, or registered */
{
  int n = 0;
  for (struct mr_web *w = webs, *next; w; w = next) {
    next = w->next;
    n += !w->ended;
    free(w->method), free(w->path), free(w->query), free(w->headers), free(w->body), free(w->out);
    free(w);
  }
  webs = NULL;
  for (struct route *r = routes; r; r = r->next) n++;
  return n;
}
