/*
 * lua_io - files, as a native that waits. lua/moonrig/fs.lua is its public side: the forms of arguments and
 * results.
 *
 * Script thread only; the work itself runs in the runtime's pool.
 */
#include "script/script_t.h"

/* ------------------------------------------------------------------- files */

struct file_done {
  struct mr_lua_vm *s;
  const struct mr_reply *r;
  struct mr_str raw;
};

static void push_file(lua_State *L, void *ud)
{
  struct file_done *d = ud;
  enum mr_kind k = d->s->ext->kind(d->r->val);
  if (d->raw.p)
    lua_pushlstring(L, d->raw.p, d->raw.n);
  else if (k == MR_K_NONE || k == MR_K_NULL)
    lua_pushboolean(L, 1);
  else
    mr_lua_push_val(L, d->s, d->r->val, MR_V_WIRE);
}

static void on_file(void *ud, const struct mr_reply *r, struct mr_str raw)
{
  struct mr_lua_pend *p = ud;
  struct file_done d = {p->s, r, raw};
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_file, &d);
}

static void undo_file(struct mr_lua_pend *p)
{
  (void)p; /* cannot be stopped; on_file comes and frees */
}

/* file(op, path, arg) */
static int n_file(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *op = luaL_checkstring(L, 1), *path = luaL_checkstring(L, 2);
  struct mr_str arg = {NULL, 0};
  arg.p = luaL_optlstring(L, 3, "", &arg.n);
  mr_lua_may_wait(L, s, "rig.fs");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_file);
  int rc = p ? s->ext->file(s->rt, op, path, arg, on_file, p, &err) : MR_E_NOMEM;
  if (rc) {
    mr_lua_pend_drop(p);
    if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
    return mr_lua_fail_now(L, s, &err);
  }
  return mr_lua_pend_wait(L, p);
}

const luaL_Reg mr_lua_io_natives[] = {{"file", n_file}, {NULL, NULL}};
