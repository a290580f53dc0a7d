/*
 * config - the configuration file of the program: a Lua file that returns a table, run once in a VM of its
 * own with base, string, table, math and os.getenv, and written as JSON. Nothing of the scripts' VM is used.
 */
#include <stdio.h>
#include <string.h>
#include "script/script_t.h"

enum { DEPTH_MAX = 16, STEPS_MAX = 10000000, FILE_MAX = 1 << 20 };

struct out {
  void (*fn)(void *ud, const char *p, size_t n);
  void *ud;
};

static void put(struct out *o, const char *p)
{
  o->fn(o->ud, p, strlen(p));
}

static void put_string(struct out *o, const char *p, size_t n)
{
  char t[8];
  put(o, "\"");
  for (size_t i = 0; i < n; i++) {
    unsigned char c = (unsigned char)p[i];
    if (c == '"' || c == '\\') {
      snprintf(t, sizeof t, "\\%c", c);
      put(o, t);
    } else if (c < 0x20) {
      snprintf(t, sizeof t, "\\u%04x", c);
      put(o, t);
    } else {
      o->fn(o->ud, p + i, 1);
    }
  }
  put(o, "\"");
}

static void put_number(lua_State *L, struct out *o, int i)
{
  char t[40];
  lua_Number v = lua_tonumber(L, i);
  if (v == (lua_Number)(int64_t)v && v < 9e15 && v > -9e15)
    snprintf(t, sizeof t, "%lld", (long long)v);
  else
    snprintf(t, sizeof t, "%.17g", v);
  put(o, t);
}

static void put_value(lua_State *L, struct out *o, int depth); /* of the top; leaves it there; may raise */

static void put_table(lua_State *L, struct out *o, int depth)
{
  size_t n = mr_compat_rawlen(L, -1);
  int first = 1;

  if (depth >= DEPTH_MAX) luaL_error(L, "nested too deep");
  if (n > 0) {
    put(o, "[");
    for (size_t i = 1; i <= n; i++) {
      if (i > 1) put(o, ",");
      lua_rawgeti(L, -1, (int)i);
      put_value(L, o, depth + 1);
      lua_pop(L, 1);
    }
    put(o, "]");
    return;
  }
  put(o, "{");
  for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
    size_t len;
    const char *k;
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "keys must be strings");
    k = lua_tolstring(L, -2, &len);
    if (!first) put(o, ",");
    first = 0;
    put_string(o, k, len);
    put(o, ":");
    put_value(L, o, depth + 1);
  }
  put(o, "}");
}

static void put_value(lua_State *L, struct out *o, int depth)
{
  size_t n;
  const char *p;

  luaL_checkstack(L, 4, "config");
  switch (lua_type(L, -1)) {
  case LUA_TBOOLEAN: put(o, lua_toboolean(L, -1) ? "true" : "false"); break;
  case LUA_TNUMBER: put_number(L, o, -1); break;
  case LUA_TSTRING:
    p = lua_tolstring(L, -1, &n);
    put_string(o, p, n);
    break;
  case LUA_TTABLE: put_table(L, o, depth); break;
  default: luaL_error(L, "a setting cannot be a %s", luaL_typename(L, -1));
  }
}

static void too_long(lua_State *L, lua_Debug *ar)
{
  (void)ar;
  lua_sethook(L, too_long, LUA_MASKCOUNT, 1); /* a pcall loop cannot swallow it */
  luaL_error(L, "runs too long for a configuration file");
}

struct job {
  const char *path, *text;
  size_t n;
  struct out o;
};

static int run(lua_State *L)
{
  struct job *j = lua_touserdata(L, 1);
  static const char *const gone[] = {"dofile", "loadfile", "load", "loadstring", "collectgarbage"};

  luaL_openlibs(L);
  lua_getglobal(L, "os");
  lua_getfield(L, -1, "getenv");
  lua_newtable(L);
  lua_insert(L, -2);
  lua_setfield(L, -2, "getenv");
  lua_setglobal(L, "os");
  lua_settop(L, 1);
  for (size_t i = 0; i < sizeof gone / sizeof *gone; i++) {
    lua_pushnil(L);
    lua_setglobal(L, gone[i]);
  }
  static const char *const libs[] = {"io", "package", "debug", "require", "ffi", "jit"};
  for (size_t i = 0; i < sizeof libs / sizeof *libs; i++) {
    lua_pushnil(L);
    lua_setglobal(L, libs[i]);
  }
  lua_pushfstring(L, "@%s", j->path);
  if (luaL_loadbufferx(L, j->text, j->n, lua_tostring(L, -1), "t")) return lua_error(L);
  lua_sethook(L, too_long, LUA_MASKCOUNT, STEPS_MAX);
  lua_call(L, 0, 1);
  lua_sethook(L, NULL, 0, 0);
  if (!lua_istable(L, -1)) return luaL_error(L, "%s: must return a table of settings", j->path);
  put_value(L, &j->o, 0);
  return 0;
}

static int fail(struct mr_err *err, const char *message)
{
  if (err) {
    memset(err, 0, sizeof *err);
    err->size = sizeof *err;
    err->code = MR_E_INVALID;
    err->http_status = 400;
    snprintf(err->type, sizeof err->type, "invalid_request_error");
    snprintf(err->message, sizeof err->message, "%.380s", message);
  }
  return MR_E_INVALID;
}

int mr_script_config(const char *path, void (*fn)(void *ud, const char *p, size_t n), void *ud,
                     struct mr_err *err)
{
  struct job j = {.path = path, .o = {fn, ud}};
  char message[512], *text = mr_lua_alloc(FILE_MAX + 1);
  FILE *f = text ? fopen(path, "re") : NULL;
  lua_State *L = NULL;
  int rc = MR_OK;

  if (!f) {
    snprintf(message, sizeof message, "%s: cannot be read", path);
    rc = fail(err, message);
    goto out;
  }
  j.text = text;
  j.n = fread(text, 1, FILE_MAX + 1, f);
  fclose(f);
  if (j.n > FILE_MAX || (j.n && text[0] == '\033')) {
    snprintf(message, sizeof message, "%s: not a configuration file in Lua", path);
    rc = fail(err, message);
    goto out;
  }
  L = luaL_newstate();
  if (!L || mr_compat_cpcall(L, run, &j) != 0)
    rc = fail(err, L && lua_tostring(L, -1) ? lua_tostring(L, -1) : "out of memory");
out:
  if (L) lua_close(L);
  mr_lua_free(text);
  return rc;
}
