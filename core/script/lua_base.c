/*
 * lua_base - the natives that do not wait: clocks, log, where a script lies, what the library hands to C.
 *
 * Script thread only.
 */
#include <stdlib.h>
#include "script/script_t.h"

LJMP const char *mr_lua_field(lua_State *L, int idx, const char *key, const char *dflt)
{
  lua_getfield(L, idx, key);
  return lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : dflt;
}

LJMP int64_t mr_lua_field_int(lua_State *L, int idx, const char *key, int64_t dflt)
{
  lua_getfield(L, idx, key);
  int64_t v = lua_type(L, -1) == LUA_TNUMBER ? (int64_t)lua_tonumber(L, -1) : dflt;
  lua_pop(L, 1);
  return v;
}

LJMP const char *mr_lua_loading_file(lua_State *L, struct mr_lua_vm *s)
{
  if (s->current || !s->loading) return NULL;
  mr_lua_gen_push(L, s->loading);
  const char *file = mr_lua_field(L, -1, "file", NULL);
  lua_remove(L, -2);
  if (!file) lua_pop(L, 1);
  return file;
}

LJMP void mr_lua_entry(lua_State *L, struct mr_lua_vm *s, const char *name)
{
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_entries);
  lua_getfield(L, -1, name);
  lua_remove(L, -2);
}

/* entry(name, fn): what C calls by name */
static int n_entry(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  luaL_checktype(L, 2, LUA_TFUNCTION);
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_entries);
  lua_pushvalue(L, 1);
  lua_pushvalue(L, 2);
  lua_rawset(L, -3);
  return 0;
}

static int n_now(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushnumber(L, (lua_Number)s->ext->wall_us(s->rt) / 1e6);
  return 1;
}

static int n_mono(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushnumber(L, (lua_Number)s->ext->now_us(s->rt) / 1e6);
  return 1;
}

void mr_lua_log(struct mr_lua_vm *s, int level, const char *source, const char *text)
{
  while (*text) {
    size_t n = strcspn(text, "\n");
    if (n) s->ext->log(s->rt, level, source, (struct mr_str){text, n});
    text += n;
    if (*text) text++;
  }
}

/* log(level, source, text); level: 0 error .. 3 debug */
static int n_log(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  mr_lua_log(s, (int)luaL_checkinteger(L, 1), luaL_checkstring(L, 2), luaL_checkstring(L, 3));
  return 0;
}

bool mr_lua_tail_called(lua_State *L, int level, const char *file)
{
  lua_Debug ar;
  for (; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "S", &ar);
    if (ar.source[0] == '@' && strcmp(ar.source + 1, file) == 0) return false;
  }
  return true;
}

/* where() -> source file and line of the calling user code; the file alone when it called in tail
 * position while it loads (return rig.tool{...}); nil outside of any */
static int n_where(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_Debug ar;
  for (int level = 1; lua_getstack(L, level, &ar); level++) {
    lua_getinfo(L, "Sl", &ar);
    if (ar.source[0] != '@') continue;
    const char *file = mr_lua_loading_file(L, s);
    if (file && mr_lua_tail_called(L, level, file)) return 1;
    lua_pushstring(L, ar.source + 1);
    lua_pushinteger(L, ar.currentline);
    return 2;
  }
  return mr_lua_loading_file(L, s) ? 1 : 0;
}

/* raise(message): an error with the position of the user's code */
static int n_raise(lua_State *L)
{
  return mr_lua_raise_text(L, luaL_checkstring(L, 1));
}

/* generation() -> the table of the generation that the caller belongs to; loading = true while it loads */
static int n_generation(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_gen *g = mr_lua_gen_here(s);
  if (!g) return 0;
  mr_lua_gen_push(L, g);
  lua_pushboolean(L, !s->current && s->loading == g);
  return 2;
}

/* failed(message): the current generation's start failed; shown by /health */
static int n_failed(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *m = luaL_checkstring(L, 1);
  if (s->current && s->cur && s->current->gen == s->cur) mr_lua_status_fail(s, m);
  return 0;
}

const luaL_Reg mr_lua_base_natives[] = {{"entry", n_entry},
                                        {"now", n_now},
                                        {"mono", n_mono},
                                        {"log", n_log},
                                        {"where", n_where},
                                        {"raise", n_raise},
                                        {"generation", n_generation},
                                        {"failed", n_failed},
                                        {NULL, NULL}};
