/*
 * compat - one source for Lua 5.4 and for LuaJIT (the 5.1 API plus LuaJIT's own additions): every
 * difference that this room meets, and nothing else. Never lua_yieldk, lua_callk, lua_pcallk: a C
 * function that waits does `return lua_yield(L, n)` as its last act, which both engines have.
 */
#ifndef MR_SCRIPT_COMPAT_H
#define MR_SCRIPT_COMPAT_H

#include <lua.h>
#include <lauxlib.h>
#include <lualib.h>

#if LUA_VERSION_NUM >= 504
#define mr_compat_rawlen(L, i)              lua_rawlen(L, i)
#define mr_compat_isint(L, i)               lua_isinteger(L, i)
#define mr_compat_resume(co, from, n, nres) lua_resume(co, from, n, nres)
#define mr_compat_setenv(L, i)              ((void)lua_setupvalue(L, i, 1)) /* pops the table; i: a main chunk */
#if LUA_VERSION_RELEASE_NUM >= 50406
#define mr_compat_reset(co, from) ((void)lua_closethread(co, from))
#else
#define mr_compat_reset(co, from) ((void)lua_resetthread(co))
#endif
static inline int mr_compat_cpcall(lua_State *L, lua_CFunction fn, void *ud)
{
  if (!lua_checkstack(L, 8)) return LUA_ERRMEM;
  lua_pushcfunction(L, fn); /* no upvalues: allocates nothing */
  lua_pushlightuserdata(L, ud);
  return lua_pcall(L, 1, 0, 0); /* no results, like LuaJIT's lua_cpcall */
}
#else
#define mr_compat_rawlen(L, i)              lua_objlen(L, i)
#define mr_compat_isint(L, i)               0 /* one kind of number: a double */
#define mr_compat_resume(co, from, n, nres) mr_compat_resume51(co, n, nres)
#define mr_compat_setenv(L, i)              ((void)lua_setfenv(L, i))
#define mr_compat_reset(co, from)           ((void)0) /* no to-be-closed variables */
#define mr_compat_cpcall(L, fn, ud)         lua_cpcall(L, fn, ud)
static inline int mr_compat_resume51(lua_State *co, int n, int *nres)
{
  int rc = lua_resume(co, n);
  *nres = lua_gettop(co);
  return rc;
}
#endif
#endif
