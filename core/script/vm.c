/*
 * vm - the Lua state: its libraries, the embedded modules, time and memory budgets, protected calls and
 * error values.
 *
 * Budgets. A count hook looks every few thousand instructions what CPU time the slice took. Once that is
 * over it raises, and from then on at every instruction, so that a pcall loop cannot swallow it.
 * Hooks belong to a coroutine in 5.4 (new ones inherit it) and to the whole VM in LuaJIT, so it is set and
 * cleared around every slice; LuaJIT never calls it from compiled code, so there the compiler is off.
 * What it cannot stop: a single long C function (a string.find with a bad pattern).
 *
 * Script thread only.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include "script/script_t.h"
#if LUA_VERSION_NUM < 504
#include <luajit.h>
#endif

enum { HOOK_COUNT = LUA_VERSION_NUM >= 504 ? 10000 : 1000 /* see stack_low */, MODULE_MAX = 1 << 20 };

struct mr_lua_vm *mr_lua_self(lua_State *L)
{
  void *ud;
  lua_getallocf(L, &ud);
  return ud;
}

static int64_t clock_us(clockid_t id)
{
  struct timespec ts;
  clock_gettime(id, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t mr_lua_mono_us(void)
{
  return clock_us(CLOCK_MONOTONIC);
}

/* What this thread computed: a busy machine, or a person at io.read, is not the script's fault. */
static int64_t spent_us(void)
{
  return clock_us(CLOCK_THREAD_CPUTIME_ID);
}

/* ------------------------------------------------------------------ errors */

int mr_lua_err(struct mr_err *err, int code, const char *fmt, ...)
{
  if (!err) return code;
  uint32_t size = err->size;
  memset(err, 0, sizeof *err);
  err->size = size ? size : sizeof *err;
  err->code = code;
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(err->message, sizeof err->message, fmt, ap);
  va_end(ap);
  return code;
}

static const char *type_of(const struct mr_err *e)
{
  if (e->type[0]) return e->type;
  switch (e->code) {
  case MR_E_INVALID:
  case MR_E_STATE: return "invalid_request_error";
  case MR_E_NOTFOUND: return "not_found_error";
  case MR_E_CONFLICT: return "conflict_error";
  case MR_E_AUTH: return "authentication_error";
  case MR_E_DENIED: return "permission_error";
  case MR_E_TOO_LARGE: return "request_too_large";
  case MR_E_LIMIT:
  case MR_E_FULL: return "rate_limit_error";
  case MR_E_TIMEOUT: return "timeout_error";
  case MR_E_CANCELLED: return "cancelled";
  case MR_E_CLOSED: return "closed";
  case MR_E_IO: return "io_error";
  case MR_E_UNSUPPORTED: return "unsupported";
  default: return "api_error";
  }
}

LJMP void mr_lua_push_err(lua_State *L, struct mr_lua_vm *s, const struct mr_err *e)
{
  luaL_checkstack(L, 4, "error");
  lua_createtable(L, 0, 6);
  lua_pushstring(L, type_of(e));
  lua_setfield(L, -2, "type");
  lua_pushstring(L, e->message[0] ? e->message : mr_strerror(e->code));
  lua_setfield(L, -2, "message");
  if (e->http_status) lua_pushinteger(L, e->http_status), lua_setfield(L, -2, "status");
  if (e->field[0]) lua_pushstring(L, e->field), lua_setfield(L, -2, "field");
  if (e->error_code[0]) lua_pushstring(L, e->error_code), lua_setfield(L, -2, "error_code");
  if (e->request_id[0]) lua_pushstring(L, e->request_id), lua_setfield(L, -2, "request_id");
  int c = e->code;
  lua_pushboolean(L, c == MR_E_FULL || c == MR_E_LIMIT || c == MR_E_TIMEOUT || c == MR_E_UNAVAILABLE ||
                         e->http_status == 429 || e->http_status >= 500);
  lua_setfield(L, -2, "retryable");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_errmt);
  lua_setmetatable(L, -2);
}

static const char *raw_string(lua_State *L, int idx, const char *key)
{
  lua_pushstring(L, key);
  lua_rawget(L, idx);
  const char *p = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
  lua_pop(L, 1); /* the table keeps it alive */
  return p;
}

/* Length of the UTF-8 character at p, 0 if there is none. */
static size_t utf8_len(const unsigned char *p)
{
  size_t n = p[0] < 0x80                   ? 1
             : p[0] >= 0xC2 && p[0] < 0xE0 ? 2
             : p[0] >= 0xE0 && p[0] < 0xF0 ? 3
             : p[0] >= 0xF0 && p[0] < 0xF5 ? 4
                                           : 0;
  for (size_t i = 1; i < n; i++)
    if ((p[i] & 0xC0) != 0x80) return 0;
  if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) || (p[0] == 0xF0 && p[1] < 0x90) ||
      (p[0] == 0xF4 && p[1] >= 0x90))
    return 0;
  return n;
}

void mr_lua_scrub(char *text)
{
  for (unsigned char *p = (unsigned char *)text; *p;) {
    size_t n = utf8_len(p);
    if (!n) *p = '?';
    p += n ? n : 1;
  }
}

const char *mr_lua_errtext(lua_State *L, struct mr_lua_vm *s, int idx, char *buf, size_t n)
{
  if (idx < 0) idx = lua_gettop(L) + idx + 1;
  const char *p = NULL, *type = NULL;
  if (lua_type(L, idx) == LUA_TSTRING) p = lua_tostring(L, idx);
  if (lua_type(L, idx) == LUA_TTABLE) p = raw_string(L, idx, "message"), type = raw_string(L, idx, "type");
  if (!p)
    snprintf(buf, n, "(the error is a %s value)", luaL_typename(L, idx));
  else if (type)
    snprintf(buf, n, "%s: %s", type, p);
  else
    snprintf(buf, n, "%s", p);
  mr_lua_scrub(buf); /* it goes into JSON; and it may have been cut inside of a character */
  return buf;
}

static int err_tostring(lua_State *L)
{
  lua_getfield(L, 1, "type");
  lua_getfield(L, 1, "message");
  lua_pushfstring(L, "%s: %s", lua_isstring(L, -2) ? lua_tostring(L, -2) : "error",
                  lua_isstring(L, -1) ? lua_tostring(L, -1) : "?");
  return 1;
}

/* "file:line: " of the innermost user code from this level on, or "". */
static bool in_user_code(lua_State *L, int level, char *out, size_t n)
{
  lua_Debug ar;
  out[0] = 0;
  for (; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.currentline <= 0 || strncmp(ar.source, "=moonrig", 8) == 0) continue;
    snprintf(out, n, "%s:%d: ", ar.short_src, ar.currentline);
    return true;
  }
  return false;
}

/* ... or the file that loads, when it called in tail position. */
static void position(lua_State *L, int level, char *out, size_t n)
{
  bool found = in_user_code(L, level, out, n);
  const char *file = mr_lua_loading_file(L, mr_lua_self(L));
  if (!file) return;
  if (!found || mr_lua_tail_called(L, level, file)) snprintf(out, n, "%s: ", file);
  lua_pop(L, 1);
}

LJMP int mr_lua_raise_text(lua_State *L, const char *msg)
{
  char where[LUA_IDSIZE + 16];
  position(L, 1, where, sizeof where);
  lua_pushfstring(L, "%s%s", where, msg);
  return lua_error(L);
}

LJMP int mr_lua_raise(lua_State *L, const char *fmt, ...)
{
  char msg[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(msg, sizeof msg, fmt, ap);
  va_end(ap);
  return mr_lua_raise_text(L, msg);
}

/* ----------------------------------------------------------------- budgets */

/*
 * LuaJIT bounds its own stack but not C's: a string.gsub that calls itself takes 9 KB of it a level, and two
 * thousand levels fit. So the hook looks: a thousand instructions are at most some 150 such levels.
 */
#if LUA_VERSION_NUM < 504
static void find_stack(struct mr_lua_vm *s)
{
  pthread_attr_t a;
  void *low = NULL;
  size_t size = 0;
  if (s->stack_half && pthread_equal(s->stack_thread, pthread_self())) return;
  s->stack_thread = pthread_self();
  s->stack_half = NULL;
  if (pthread_getattr_np(s->stack_thread, &a)) return;
  if (pthread_attr_getstack(&a, &low, &size) == 0) s->stack_half = (char *)low + size / 2;
  pthread_attr_destroy(&a);
}
static bool stack_low(struct mr_lua_vm *s)
{
  return (char *)__builtin_frame_address(0) < s->stack_half;
}
#else
static void find_stack(struct mr_lua_vm *s)
{
  (void)s;
}
static bool stack_low(struct mr_lua_vm *s)
{
  (void)s;
  return false;
}
#endif

static const char *slice_over(struct mr_lua_vm *s)
{
  if (atomic_load(&s->slice) == MR_SLICE_GONE) return "stuck: these scripts were started again elsewhere";
  if (atomic_load_explicit(&s->h->stop, memory_order_relaxed) && !s->closing)
    return "stopped: the program is closing";
  if (spent_us() < s->slice_end_us) return NULL;
  return s->current ? "time budget spent: the task ran too long without waiting"
                    : "time budget spent: the top level of the scripts ran too long";
}

static void on_count(lua_State *L, lua_Debug *ar)
{
  struct mr_lua_vm *s = mr_lua_self(L);
  char where[LUA_IDSIZE + 16];
  (void)ar;
  atomic_fetch_add_explicit(&s->beat, 1, memory_order_relaxed);
  if (stack_low(s)) luaL_error(L, "stack overflow: too many nested C calls");
  if (!s->spent) {
    const char *why = slice_over(s);
    if (!why) {
      if (lua_gethookcount(L) != HOOK_COUNT) /* a coroutine that an earlier, spent slice left behind */
        lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_COUNT);
      return;
    }
    position(L, 0, where, sizeof where);
    snprintf(s->spent_why, sizeof s->spent_why, "%s%s", where, why); /* said again until the task has ended */
    s->spent = true;
  }
  lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
  lua_pushstring(L, s->spent_why);
  lua_error(L);
}

void mr_lua_slice_begin(struct mr_lua_vm *s, lua_State *L, int ms)
{
  find_stack(s);
  atomic_fetch_add_explicit(&s->beat, 1, memory_order_relaxed);
  atomic_store(&s->slice, MR_SLICE_IN);
  s->spent = false;
  s->in_user = true;
  s->slice_end_us = spent_us() + (int64_t)ms * 1000;
  if (!s->o.jit) lua_sethook(L, on_count, LUA_MASKCOUNT, HOOK_COUNT);
}

void mr_lua_slice_end(struct mr_lua_vm *s, lua_State *L)
{
  int in = MR_SLICE_IN;
  if (!atomic_compare_exchange_strong(&s->slice, &in, MR_SLICE_OUT)) pthread_exit(NULL);
  lua_sethook(L, NULL, 0, 0);
  s->in_user = false;
}

static int collect(lua_State *L)
{
  lua_gc(L, LUA_GCCOLLECT, 0);
  return 0;
}

/* LuaJIT does not collect when an allocation fails, so garbage alone could reach the limit. */
void mr_lua_make_room(struct mr_lua_vm *s)
{
  char msg[64];
  if (s->mem_used <= s->collect_at) return;
  mr_lua_protect(s, collect, NULL, msg, sizeof msg);
  size_t usual = s->o.memory_max / 4 * 3, more = s->mem_used + s->o.memory_max / 16;
  s->collect_at = more > usual ? more : usual;
}

int mr_lua_protect(struct mr_lua_vm *s, lua_CFunction fn, void *ud, char *msg, size_t n)
{
  int rc = mr_compat_cpcall(s->L, fn, ud);
  if (rc == 0) return MR_OK;
  mr_lua_errtext(s->L, s, -1, msg, n);
  lua_pop(s->L, 1);
  return rc == LUA_ERRMEM ? MR_E_NOMEM : MR_E_INVALID;
}

void mr_lua_describe(lua_State *L, char *out, size_t n)
{
  lua_Debug ar;
  char where[LUA_IDSIZE + 16];
  snprintf(out, n, "a C function");
  if (!lua_getstack(L, 0, &ar) || !lua_getinfo(L, "nS", &ar)) return;
  in_user_code(L, 0, where, sizeof where);
  size_t len = strlen(where);
  if (len > 2) where[len - 2] = 0; /* its ": " */
  snprintf(out, n, "%s %s%s%s", ar.what && *ar.what == 'C' ? "the C function" : "the function",
           ar.name ? ar.name : "(no name)", len > 2 ? ", called at " : "", len > 2 ? where : "");
}

/* ------------------------------------------------------- libraries, modules */

static int at_panic(lua_State *L)
{
  mr_lua_log(mr_lua_self(L), MR_LOG_ERROR, "script", "bug: an unprotected Lua error");
  return 0; /* Lua aborts */
}

/* Loader of a library module, embedded or (development) from opts.lua_path. Upvalues: script, name. */
static int load_module(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *name = lua_tostring(L, lua_upvalueindex(2));
  const struct mr_lua_source *src = mr_lua_sources;
  while (src->name && strcmp(src->name, name) != 0)
    src++;
  char chunk[64];
  luaL_gsub(L, name, ".", "/");
  snprintf(chunk, sizeof chunk, "=%s%s.lua", lua_tostring(L, -1), strchr(name, '.') ? "" : "/init");
  const char *p = (const char *)src->p;
  size_t n = src->n;
  if (s->o.lua_path) {
    FILE *f = fopen(lua_pushfstring(L, "%s/%s", s->o.lua_path, chunk + 1), "rbe");
    char *buf = lua_newuserdata(L, MODULE_MAX);
    n = f ? fread(buf, 1, MODULE_MAX, f) : 0;
    p = buf;
    if (!f || fclose(f)) return luaL_error(L, "cannot read %s of lua_path", chunk + 1);
  }
  if (luaL_loadbufferx(L, p, n, chunk, "t")) return lua_error(L);
  lua_call(L, 0, 1);
  return 1;
}

static int open_natives(lua_State *L)
{
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushcclosure(L, mr_lua_native, 1);
  lua_call(L, 0, 1);
  return 1;
}

static void preload(lua_State *L, struct mr_lua_vm *s)
{
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "preload");
  for (const struct mr_lua_source *src = mr_lua_sources; src->name; src++) {
    lua_pushlightuserdata(L, s);
    lua_pushstring(L, src->name);
    lua_pushcclosure(L, load_module, 2);
    lua_setfield(L, -2, src->name);
  }
  lua_pushlightuserdata(L, s);
  lua_pushcclosure(L, open_natives, 1);
  lua_setfield(L, -2, "moonrig.native");
  lua_pop(L, 2);
}

static int open_state(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, 1);
  luaL_openlibs(L);
#if LUA_VERSION_NUM < 504
  lua_getglobal(L, "package");
  lua_getfield(L, -1, "loaded");
  lua_pushnil(L);
  lua_setfield(L, -2, "ffi"); /* no budget holds for code that writes to memory */
  lua_getfield(L, -2, "preload");
  lua_pushnil(L);
  lua_setfield(L, -2, "ffi");
  lua_settop(L, 1);
  lua_pushnil(L); /* its userdata bring finalizers, which run anywhere and whose errors LuaJIT passes on */
  lua_setglobal(L, "newproxy");
  if (!s->o.jit) luaJIT_setmode(L, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
#endif
  lua_newtable(L);
  s->ref_tasks = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->ref_ids = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->ref_entries = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  lua_pushcfunction(L, err_tostring);
  lua_setfield(L, -2, "__tostring");
  lua_pushstring(L, "moonrig.err");
  lua_setfield(L, -2, "__name");
  s->ref_errmt = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  s->ref_stamps = luaL_ref(L, LUA_REGISTRYINDEX);
  mr_lua_box_open(L, s);
  mr_lua_op_open(L, s);
  mr_lua_value_open(L, s);
  mr_lua_stream_open(L, s);
  mr_lua_route_open(L, s);
  mr_lua_http_open(L, s);
  mr_lua_new_open(L, s);
  preload(L, s);
  if (s->o.test) mr_lua_test_open(L, s);
  lua_getglobal(L, "require");
  lua_pushliteral(L, "moonrig.boot");
  lua_call(L, 1, 0);
  return 0;
}

/* All natives are called through this. Upvalues: the VM (theirs), their entry. */
static int call_native(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const luaL_Reg *entry = lua_touserdata(L, lua_upvalueindex(2));
  if (atomic_load_explicit(&s->slice, memory_order_relaxed) == MR_SLICE_GONE)
    return mr_lua_raise(L, "stuck: these scripts were started again elsewhere");
  return entry->func(L);
}

LJMP int mr_lua_native(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  static const luaL_Reg *const lists[] = {
      mr_lua_task_natives, mr_lua_op_natives,     mr_lua_call_natives,   mr_lua_stream_natives,
      mr_lua_io_natives,   mr_lua_json_natives,   mr_lua_base_natives,   mr_lua_model_natives,
      mr_lua_file_natives, mr_lua_crypto_natives, mr_lua_sqlite_natives, mr_lua_tty_natives,
      mr_lua_http_natives, mr_lua_new_natives,    mr_lua_route_natives,  mr_lua_kv_natives,
      mr_lua_on_natives,   mr_lua_status_natives, mr_lua_folder_natives};
  lua_newtable(L);
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    for (const luaL_Reg *r = lists[i]; r->name; r++) {
      lua_pushlightuserdata(L, s);
      lua_pushlightuserdata(L, (void *)r);
      lua_pushcclosure(L, call_native, 2);
      lua_setfield(L, -2, r->name);
    }
  lua_pushlightuserdata(L, s); /* what a waiting task yields; co.lua passes it through */
  lua_setfield(L, -2, "WAIT");
  lua_pushlightuserdata(L, NULL); /* lua-cjson's null is the same value */
  lua_setfield(L, -2, "null");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_arraymt);
  lua_setfield(L, -2, "array_mt");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_errmt);
  lua_setfield(L, -2, "err_mt");
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_parents); /* coroutine -> the one that resumed it; co.lua fills it */
  lua_setfield(L, -2, "parents");
  lua_pushboolean(L, s->o.jit);
  lua_setfield(L, -2, "jit");
  return 1;
}

int mr_lua_vm_open(struct mr_lua_vm *s, struct mr_err *err)
{
  s->ref_tasks = s->ref_ids = s->ref_entries = s->ref_errmt = s->ref_arraymt = LUA_NOREF;
  s->ref_intmt = s->ref_boxmt = s->ref_streammt = s->ref_webmt = s->ref_stamps = s->ref_parents = LUA_NOREF;
  s->collect_at = s->o.memory_max / 4 * 3;
  s->L = lua_newstate(mr_lua_vm_alloc, s);
  if (!s->L) return mr_lua_err(err, MR_E_NOMEM, "cannot make a Lua state");
  lua_atpanic(s->L, at_panic);
  char msg[384];
  int rc = mr_lua_protect(s, open_state, s, msg, sizeof msg);
  if (rc) return mr_lua_err(err, MR_E_INTERNAL, "the embedded Lua modules do not load: %s", msg);
  return MR_OK;
}

void mr_lua_vm_close(struct mr_lua_vm *s)
{
  if (s->L) lua_close(s->L);
  s->L = NULL;
}
