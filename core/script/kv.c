/*
 * kv - durable values, as one native that waits. lua/moonrig/kv.lua is its public side; ctx:once and
 * rig.schedule keep their records with it, in spaces of their own.
 *
 * Script thread only; the store works on the runtime's own threads.
 */
#include "script/script_t.h"

struct answer {
  struct mr_lua_vm *s;
  const struct mr_reply *r;
};

static void push_answer(lua_State *L, void *ud)
{
  struct answer *a = ud;
  mr_lua_push_val(L, a->s, a->r->val, 0);
}

static void on_kv(void *ud, const struct mr_reply *r)
{
  struct mr_lua_pend *p = ud;
  struct answer a = {p->s, r};
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_answer, &a);
}

static void undo_kv(struct mr_lua_pend *p)
{
  (void)p; /* cannot be stopped; on_kv comes and frees */
}

/* kv(op, space, key, {after=, limit=, ttl=seconds, expect=rev}, value) */
static int n_kv(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_ext_kv q = {.size = sizeof q};
  struct mr_doc *doc = NULL;
  q.op = luaL_checkstring(L, 1);
  q.space.p = luaL_checklstring(L, 2, &q.space.n);
  q.key.p = luaL_checklstring(L, 3, &q.key.n);
  luaL_checktype(L, 4, LUA_TTABLE);
  lua_settop(L, 5);
  q.limit = (int)mr_lua_field_int(L, 4, "limit", 0);
  q.expect = mr_lua_field_int(L, 4, "expect", -1);
  lua_getfield(L, 4, "ttl");
  q.ttl_us = lua_isnil(L, -1) ? 0 : (int64_t)(luaL_checknumber(L, -1) * 1e6);
  lua_getfield(L, 4, "after"); /* stays on the stack */
  if (!lua_isnil(L, -1)) q.after.p = luaL_checklstring(L, -1, &q.after.n);
  mr_lua_may_wait(L, s, "rig.kv");
  if (strcmp(q.op, "put") == 0) {
    doc = mr_lua_to_doc(L, s, 5, 0, &err);
    if (!doc) return mr_lua_fail_now(L, s, &err);
  }
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_kv);
  int rc = MR_E_NOMEM;
  if (p)
    rc = s->ext->kv(s->rt, &q, &doc, on_kv, p, &err);
  else
    s->ext->doc_free(doc);
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

const luaL_Reg mr_lua_kv_natives[] = {{"kv", n_kv}, {NULL, NULL}};
