/*
 * fake_lua - require "host": how the Lua tests steer the fake host.
 */
#include "fake_host_t.h"

/* ------------------------------------------------------------ for the tests */

static int h_op(lua_State *L) /* op(name, fn) */
{
  lua_getfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, luaL_checkstring(L, 1));
  return 0;
}
static int h_reply(lua_State *L) /* reply(id, json) */
{
  struct fake_call *c = fake_call_by_id((uint64_t)luaL_checknumber(L, 1));
  if (c) fake_call_settle(c, luaL_optstring(L, 2, "{}"), 0, NULL, 0, NULL);
  lua_pushboolean(L, c != NULL);
  return 1;
}
static int h_fail(lua_State *L) /* fail(id, code, message, status, type): ends a call or stream badly */
{
  struct fake_call *c = fake_call_by_id((uint64_t)luaL_checknumber(L, 1));
  if (c)
    fake_call_settle(c, NULL, (int)luaL_optnumber(L, 2, MR_E_INTERNAL), luaL_optstring(L, 3, "failed"),
                     (int)luaL_optnumber(L, 4, 0), luaL_optstring(L, 5, ""));
  lua_pushboolean(L, c != NULL);
  return 1;
}
struct http_bit { uint64_t id; int status; size_t n; char bytes[]; };
static void run_http_bit(void *a, void *b)
{
  struct http_bit *x = a;
  struct fake_call *c = fake_call_by_id(x->id);
  (void)b;
  if (c && c->is_http && !c->cancelled && !c->settled) {
    c->http_told = 1;
    if (x->status)
      c->http.head(c->ud, x->status, (struct mr_str){x->bytes, x->n});
    else
      c->http.chunk(c->ud, (struct mr_str){x->bytes, x->n});
  }
  free(x);
}
static int http_bit(lua_State *L, int status, int idx)
{
  size_t n;
  const char *t = luaL_optlstring(L, idx, "", &n);
  struct http_bit *x = calloc(1, sizeof *x + n + 1);
  x->id = (uint64_t)luaL_checknumber(L, 1), x->status = status, x->n = n;
  memcpy(x->bytes, t, n);
  fake_push(run_http_bit, x, NULL);
  return 0;
}
static int h_http_head(lua_State *L) /* http_head(id, status, "name: value\n" lines) */
{
  return http_bit(L, (int)luaL_checknumber(L, 2), 3);
}
static int h_http_chunk(lua_State *L) { return http_bit(L, 0, 2); } /* http_chunk(id, bytes) */
static int h_http_paused(lua_State *L)                                /* nil: it is over */
{
  struct fake_call *c = fake_call_by_id((uint64_t)luaL_checknumber(L, 1));
  if (!c) return 0;
  lua_pushboolean(L, c->http_paused);
  return 1;
}
static struct mr_use *use_by_id(uint64_t id)
{
  struct mr_use *u = fake.uses;
  while (u && u->id != id) u = u->next;
  return u;
}
static void run_event(void *a, void *b)
{
  struct mr_doc *d = b;
  struct fake_call *c = fake_call_by_id((uint64_t)(uintptr_t)a);
  if (c && !c->cancelled && c->cbs.event) {
    char *t = fake_text(d);
    c->cbs.event(c->ud, (struct mr_str){t, strlen(t)}, fake_root(d), 1);
    free(t);
  }
  fake_doc_free(d);
}
static int h_event(lua_State *L) /* event(id, json) */
{
  struct mr_doc *d = NULL;
  size_t n;
  const char *t = luaL_checklstring(L, 2, &n);
  if (fake_parse(NULL, (struct mr_str){t, n}, &d, NULL)) return luaL_error(L, "bad event %s", t);
  fake_push(run_event, (void *)(uintptr_t)luaL_checknumber(L, 1), d);
  return 0;
}
static void run_use(void *a, void *b)
{
  for (struct fake_reg *x = fake.regs; x; x = x->next)
    if (x == a) {
      x->run(x->ud, b);
      return;
    }
  struct mr_use *u = b;
  mr_use_fail(&u, "gone");
}
static void run_cancel(void *a, void *b)
{
  struct fake_reg *r = a;
  struct mr_use *u = b;
  if (!u->settled) r->cancel(r->ud, b);
}
static void run_control(void *a, void *b)
{
  (void)b;
  fake.control_fn(fake.control_ud, a, NULL, 7);
  free(a);
}
/* Puts a call of what is registered as r into the queue. */
static struct mr_use *new_use(struct fake_reg *r, const char *json)
{
  struct mr_use *u = calloc(1, sizeof *u);
  u->id = fake.next_id++;
  u->attempt = 1;
  snprintf(u->name, sizeof u->name, "%s", r->name);
  snprintf(u->sid, sizeof u->sid, "sevt_%d", (int)u->id);
  if (fake_parse(NULL, (struct mr_str){json, strlen(json)}, &u->input, NULL)) {
    free(u);
    return NULL;
  }
  u->reg = r;
  u->next = fake.uses;
  fake.uses = u;
  fake.uses_open++;
  return u;
}
const struct mr_use *host_inject(int kind, const char *name)
{
  struct fake_reg *r = fake.regs;
  while (r && (r->kind != kind || strcmp(r->name, name) != 0)) r = r->next;
  struct mr_use *u = r ? new_use(r, "{}") : NULL;
  if (u) fake_push(run_use, r, u);
  return u;
}
static int inject(lua_State *L, int k) /* (name, json, attempt, agent or part of the filter) -> id */
{
  const char *name = luaL_checkstring(L, 1);
  const char *t = luaL_optstring(L, 2, "{}");
  const char *agent = luaL_optstring(L, 4, NULL);
  struct fake_reg *r = fake.regs;
  while (r && (r->kind != k || strcmp(r->name, name) != 0 ||
               (agent && (k == 't' ? strcmp(r->agent, agent) != 0 : strstr(r->filter, agent) == NULL))))
    r = r->next;
  if (!r) return 0;
  struct mr_use *u = new_use(r, t);
  if (!u) return luaL_error(L, "bad input %s", t);
  u->attempt = (int)luaL_optnumber(L, 3, 1);
  fake_push(run_use, r, u);
  lua_pushnumber(L, (lua_Number)u->id);
  return 1;
}
static int h_use(lua_State *L) { return inject(L, 't'); }
static int h_hook(lua_State *L) { return inject(L, 'h'); }
static int h_model(lua_State *L) { return inject(L, 'm'); }
static int h_seen(lua_State *L) { return inject(L, 'o'); } /* seen(watcher, event) -> id */
static int h_put_schedule(lua_State *L) /* put_schedule(name, json or nil) */
{
  fake_state_put("schedule", luaL_checkstring(L, 1), luaL_optstring(L, 2, NULL));
  return 0;
}
static int h_get_schedule(lua_State *L) /* get_schedule(name) -> json or nil */
{
  lua_pushstring(L, fake_state_get("schedule", luaL_checkstring(L, 1)));
  return 1;
}
static int h_set_wall(lua_State *L) /* set_wall(seconds): the wall clock from now on */
{
  fake.wall0 = (int64_t)(luaL_checknumber(L, 1) * 1e6) - fake.now_us;
  return 0;
}
static int h_serve(lua_State *L) /* serve(): as if by mr_script_loop, which has no rig.main */
{
  char t[8];
  (void)L;
  if (fake.stats) fake.stats(t, sizeof t, 2);
  return 0;
}
static int h_state(lua_State *L) /* state(id) -> nil while open | result, error, streamed text */
{
  struct mr_use *u = use_by_id((uint64_t)luaL_checknumber(L, 1));
  if (!u || !u->settled) return 0;
  lua_pushstring(L, u->result);
  if (!u->result) lua_pop(L, 1), lua_pushboolean(L, 0);
  lua_pushstring(L, u->error ? u->error : "");
  lua_pushstring(L, u->text ? u->text : "");
  return 3;
}
static int h_cancel_use(lua_State *L)
{
  struct mr_use *u = use_by_id((uint64_t)luaL_checknumber(L, 1));
  fake_push(run_cancel, (void *)u->reg, u);
  return 0;
}
static int h_cancelled_calls(lua_State *L)
{
  int n = 0;
  for (struct fake_call *c = fake.calls; c; c = c->next) n += c->cancelled;
  lua_pushnumber(L, n);
  return 1;
}
static int h_control(lua_State *L)
{
  fake.controls++;
  fake.control_answer[0] = 0;
  fake_push(run_control, strdup(luaL_checkstring(L, 1)), NULL);
  return 0;
}
static int h_control_answer(lua_State *L)
{
  if (fake.controls) return 0;
  lua_pushstring(L, fake.control_answer);
  return 1;
}
static int h_generation(lua_State *L)
{
  lua_pushinteger(L, (lua_Integer)fake.generation);
  lua_pushstring(L, fake.generation_error);
  return 2;
}
static int h_logs(lua_State *L)
{
  lua_pushstring(L, fake.logs);
  fake.logs[0] = 0;
  return 1;
}
static void run_touch(void *a, void *b)
{
  (void)b;
  for (struct fake_watch *w = fake.watches, *n; w; w = n) {
    n = w->next;
    w->fn(w->ud, (struct mr_str){a, strlen(a)});
    break;
  }
  free(a);
}
static int h_touch(lua_State *L) { fake_push(run_touch, strdup(luaL_checkstring(L, 1)), NULL); return 0; }
static int h_watched(lua_State *L) /* watched(path) */
{
  const struct fake_watch *w = fake.watches;
  while (w && strcmp(w->path, luaL_checkstring(L, 1)) != 0) w = w->next;
  lua_pushboolean(L, w != NULL);
  return 1;
}
static int h_tool(lua_State *L) /* tool(name) -> schema, timeout_ms, concurrency, flags */
{
  for (struct fake_reg *r = fake.regs; r; r = r->next) {
    if (r->kind != 't' || strcmp(r->name, luaL_checkstring(L, 1)) != 0) continue;
    lua_pushstring(L, r->schema);
    lua_pushnumber(L, r->timeout);
    lua_pushnumber(L, r->concurrency);
    lua_pushnumber(L, r->flags);
    return 4;
  }
  return 0;
}
static int h_registered(lua_State *L) /* registered(kind, n) -> name, filter, flags */
{
  int n = (int)luaL_checknumber(L, 2);
  for (const struct fake_reg *r = fake.regs; r; r = r->next) {
    if (r->kind != *luaL_checkstring(L, 1) || --n) continue;
    lua_pushstring(L, r->name);
    lua_pushstring(L, r->filter);
    lua_pushinteger(L, (lua_Integer)r->flags);
    return 3;
  }
  return 0;
}
static int h_count(lua_State *L) /* count("t"|"h"|"m") registered */
{
  int n = 0;
  for (struct fake_reg *r = fake.regs; r; r = r->next) n += r->kind == *luaL_checkstring(L, 1);
  lua_pushnumber(L, n);
  return 1;
}
static int h_set(lua_State *L) /* set("full"|"refuse_tool"|"no_memory_timer", n) */
{
  const char *what = luaL_checkstring(L, 1);
  int n = (int)luaL_checknumber(L, 2);
  if (strcmp(what, "full") == 0) fake.full = n;
  else if (strcmp(what, "refuse_tool") == 0) fake.refuse_tool = n;
  else if (strcmp(what, "no_memory_timer") == 0) fake.no_memory_timer = n;
  else if (strcmp(what, "kv_fail") == 0) fake.kv_fail = n;
  else return luaL_error(L, "set: %s", what);
  return 0;
}
static int open_fds(void)
{
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n;
}
static int h_open(lua_State *L) /* open() -> what is open, as one line */
{
  char t[300], more[200] = "";
  int nt = 0, nc = 0;
  for (struct fake_timer *x = fake.timers; x; x = x->next) nt++;
  for (struct fake_call *x = fake.calls; x; x = x->next) nc++;
  if (fake.stats) fake.stats(more, sizeof more, 0);
  snprintf(t, sizeof t, "timers=%d calls=%d uses=%d docs=%d builds=%d texts=%d ops=%d queue=%d second=%d fds=%d%s", nt, nc,
           fake.uses_open, fake.docs, fake.builds, fake.texts, fake.ops, fake_queued(), fake.second, open_fds(), more);
  lua_pushstring(L, t);
  return 1;
}
static int h_alive(lua_State *L) /* alive() -> what may live on, as one line */
{
  char t[200] = "";
  if (fake.stats) fake.stats(t, sizeof t, 1);
  lua_pushstring(L, t);
  return 1;
}
static int h_clear_uses(lua_State *L)
{
  (void)L;
  while (fake.uses) {
    struct mr_use *u = fake.uses;
    if (!u->settled) break;
    fake.uses = u->next;
    fake_doc_free(u->input);
    free(u->result), free(u->error), free(u->text), free(u);
  }
  return 0;
}
static int h_json(lua_State *L) /* json{encode=, decode=}: set once by the kit */
{
  lua_setfield(L, LUA_REGISTRYINDEX, "host.json");
  return 0;
}
static void push_report(void *ud, const char *p, size_t n) { lua_pushlstring(ud, p, n); }
static int h_lint(lua_State *L) /* lint(path, stored) -> report as JSON */
{
  char why[400];
  int top = lua_gettop(L);
  if (fake.lint(luaL_checkstring(L, 1), luaL_optstring(L, 2, NULL), push_report, L, why, sizeof why))
    return luaL_error(L, "%s", why);
  return lua_gettop(L) - top;
}
static int h_scripts(lua_State *L) /* what /health shows */
{
  lua_pushstring(L, fake.scripts);
  return 1;
}
static int h_globals(lua_State *L) /* the VM's own globals, under those of a generation */
{
#if LUA_VERSION_NUM >= 504
  lua_pushglobaltable(L);
#else
  lua_pushvalue(L, LUA_GLOBALSINDEX);
#endif
  return 1;
}
static int h_clock(lua_State *L) { lua_pushnumber(L, (lua_Number)fake.now_us / 1e6); return 1; }

__attribute__((visibility("default"))) int luaopen_host(lua_State *L);
int luaopen_host(lua_State *L)
{
  static const luaL_Reg fns[] = {{"op", h_op}, {"reply", h_reply}, {"fail", h_fail}, {"event", h_event}, {"http_head", h_http_head}, {"http_chunk", h_http_chunk}, {"http_paused", h_http_paused}, {"use", h_use},
      {"hook", h_hook}, {"model", h_model}, {"seen", h_seen}, {"serve", h_serve},
      {"put_schedule", h_put_schedule}, {"get_schedule", h_get_schedule}, {"set_wall", h_set_wall}, {"state", h_state}, {"cancel_use", h_cancel_use},
      {"cancelled_calls", h_cancelled_calls}, {"control", h_control}, {"control_answer", h_control_answer},
      {"generation", h_generation}, {"scripts", h_scripts}, {"lint", h_lint}, {"logs", h_logs}, {"touch", h_touch}, {"watched", h_watched}, {"tool", h_tool}, {"count", h_count}, {"registered", h_registered},
      {"set", h_set}, {"open", h_open}, {"alive", h_alive}, {"clear_uses", h_clear_uses}, {"json", h_json}, {"clock", h_clock}, {"globals", h_globals}, {NULL, NULL}};
  fake.L = L;
  lua_newtable(L);
  lua_setfield(L, LUA_REGISTRYINDEX, "host.ops");
  lua_newtable(L);
  for (const luaL_Reg *f = fns; f->name; f++) {
    lua_pushcfunction(L, f->func);
    lua_setfield(L, -2, f->name);
  }
  fake_web_open(L);
  lua_pushlightuserdata(L, (void *)&fake.L);
  lua_setfield(L, -2, "LATER");
  return 1;
}

void host_set_lint(host_lint_fn fn) { fake.lint = fn; }
void host_set_stats(host_stats_fn fn) { fake.stats = fn; }

int host_end(char *out, size_t n)
{
  int nt = 0, nc = 0, nw = 0, nr = 0;
  fake_state_free();
  h_clear_uses(NULL);
  while (fake_queued()) mr_dispatch(NULL, 0, 0);
  for (struct fake_timer *x = fake.timers; x; x = x->next) nt++;
  for (struct fake_call *x = fake.calls; x; x = x->next) nc++;
  for (struct fake_watch *x = fake.watches; x; x = x->next) nw++;
  for (struct fake_reg *x = fake.regs; x; x = x->next) nr++;
  nr += fake_web_left();
  snprintf(out, n, "timers=%d calls=%d uses=%d docs=%d builds=%d texts=%d ops=%d watches=%d registered=%d", nt, nc,
           fake.uses_open, fake.docs, fake.builds, fake.texts, fake.ops, nw, nr);
  return nt || nc || fake.uses_open || fake.docs || fake.builds || fake.texts || fake.ops || nw || nr;
}

