/*
 * mem - the room's memory: small C objects (tasks, pends, records), the allocator of the VM with its cap,
 * and boxes, userdata that own a C object across code that may raise.
 *
 * Invariant: while user code runs the VM holds at most opts.memory_max bytes; conversions and completions,
 * which run outside of user code and whose inputs are bounded by the core, may go 32 MiB over it, so that a
 * script at its cap can still be told so. Script thread only (the VM allocator); the rest any thread.
 */
#include <stdlib.h>
#include "script/script_t.h"

enum { OVERDRAFT = 32 * 1024 * 1024 };

void *mr_lua_alloc(size_t n)
{
  return calloc(1, n); /* banned-ok: the public headers offer no allocator */
}

void *mr_lua_realloc(void *p, size_t n)
{
  return realloc(p, n); /* banned-ok: as above */
}

void mr_lua_free(void *p)
{
  free(p); /* banned-ok: as above */
}

char *mr_lua_strdup(const char *p)
{
  size_t n = strlen(p) + 1;
  char *d = mr_lua_alloc(n);
  if (d) memcpy(d, p, n);
  return d;
}

void *mr_lua_vm_alloc(void *ud, void *p, size_t osize, size_t nsize)
{
  struct mr_lua_vm *s = ud;
  if (!p) osize = 0; /* 5.4 passes a type there */
  if (nsize == 0) {
    s->mem_used -= osize;
    mr_lua_free(p);
    return NULL;
  }
  if (nsize > osize) {
    size_t cap = s->o.memory_max + (s->in_user ? 0 : OVERDRAFT);
    if (s->mem_used + (nsize - osize) > cap) return NULL;
  }
  void *q = mr_lua_realloc(p, nsize);
  if (!q) return NULL;
  s->mem_used += nsize - osize;
  return q;
}

static void box_free(struct mr_lua_box *b)
{
  void *p = b->p;
  b->p = NULL;
  if (p) b->free(b->s, p);
}

static int box_gc(lua_State *L)
{
  if (atomic_load(&mr_lua_self(L)->slice) != MR_SLICE_GONE) box_free(lua_touserdata(L, 1));
  return 0;
}

void mr_lua_box_drop(lua_State *L, int idx)
{
  box_free(lua_touserdata(L, idx));
  lua_remove(L, idx);
}

LJMP struct mr_lua_box *mr_lua_box(lua_State *L, struct mr_lua_vm *s, void (*fn)(struct mr_lua_vm *, void *))
{
  struct mr_lua_box *b = lua_newuserdata(L, sizeof *b);
  b->s = s;
  b->p = NULL;
  b->free = fn;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_boxmt);
  lua_setmetatable(L, -2);
  return b;
}

LJMP void mr_lua_box_open(lua_State *L, struct mr_lua_vm *s)
{
  lua_newtable(L);
  lua_pushcfunction(L, box_gc);
  lua_setfield(L, -2, "__gc");
  s->ref_boxmt = luaL_ref(L, LUA_REGISTRYINDEX);
}
