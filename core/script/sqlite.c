/*
 * sqlite - SQLite files as natives that wait; lua/moonrig/sqlite.lua is their public side: transactions, forms of
 * parameters, iterators.
 *
 * A connection is a box: closed when Lua says so or collects it, and when its VM is given up, as an open transaction
 * would lock the file for ever. Bytes that are not UTF-8 travel as base64, so that
 * Lua gives and gets plain strings. Script thread only; the work is done on threads of the runtime.
 */
#include "script/script_t.h"

/* ----------------------------------------------------------------- opening */

struct mr_lua_db {
  struct mr_lua_db *prev, *next; /* of the VM */
  struct mr_ext_db *db;
};

static void close_db(struct mr_lua_vm *s, void *p)
{
  struct mr_lua_db *d = p;
  s->ext->db_close(&d->db);
  if (d->prev)
    d->prev->next = d->next;
  else
    s->dbs = d->next;
  if (d->next) d->next->prev = d->prev;
  mr_lua_free(d);
}

void mr_lua_dbs_close(struct mr_lua_vm *s)
{
  for (struct mr_lua_db *d = s->dbs; d; d = d->next)
    s->ext->db_close(&d->db);
}

static LJMP struct mr_lua_box *check_db(lua_State *L, struct mr_lua_vm *s)
{
  struct mr_lua_box *b = lua_touserdata(L, 1);
  int same = 0;
  if (b && !lua_islightuserdata(L, 1) && lua_getmetatable(L, 1)) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_boxmt);
    same = lua_rawequal(L, -1, -2) && b->free == close_db;
    lua_pop(L, 2);
  }
  if (!same) luaL_error(L, "a database expected, got %s", luaL_typename(L, 1));
  return b;
}

struct opened {
  struct mr_lua_vm *s;
  struct mr_ext_db *db;
};

static void push_db(lua_State *L, void *ud)
{
  struct opened *o = ud;
  struct mr_lua_box *b = mr_lua_box(L, o->s, close_db);
  struct mr_lua_db *d = mr_lua_alloc(sizeof *d);
  if (!d) luaL_error(L, "out of memory");
  d->db = o->db;
  o->db = NULL;
  d->next = o->s->dbs;
  if (d->next) d->next->prev = d;
  o->s->dbs = d;
  b->p = d;
}

static void on_open(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err)
{
  struct mr_lua_pend *p = ud;
  struct opened o = {p->s, db};
  if (code)
    mr_lua_pend_fail(p, code, err);
  else
    mr_lua_pend_value(p, push_db, &o);
  o.s->ext->db_close(&o.db); /* nobody took it */
}

static void undo_open(struct mr_lua_pend *p)
{
  (void)p; /* on_open comes, closes and frees */
}

static int refused(lua_State *L, struct mr_lua_vm *s, struct mr_lua_pend *p, int rc, struct mr_err *err)
{
  mr_lua_pend_drop(p);
  if (!err->message[0]) mr_lua_err(err, rc, "%s", mr_strerror(rc));
  return mr_lua_fail_now(L, s, err);
}

/* db_open(path, readonly) */
static int n_db_open(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  const char *path = luaL_checkstring(L, 1);
  int readonly = lua_toboolean(L, 2);
  if (!s->ext->db_open) return mr_lua_raise(L, "rig.sqlite: this host has no SQLite");
  mr_lua_may_wait(L, s, "rig.sqlite.open");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_open);
  int rc = p ? s->ext->db_open(s->rt, path, readonly, on_open, p, &err) : MR_E_NOMEM;
  return rc ? refused(L, s, p, rc, &err) : mr_lua_pend_wait(L, p);
}

/* db_close(db) */
static int n_db_close(lua_State *L)
{
  check_db(L, lua_touserdata(L, lua_upvalueindex(1)));
  lua_settop(L, 1);
  mr_lua_box_drop(L, -1);
  return 0;
}

/* -------------------------------------------------------------- parameters */

static bool is_utf8(const char *text, size_t n)
{
  const unsigned char *p = (const unsigned char *)text, *end = p + n;
  while (p < end) {
    int more = *p < 0x80                 ? 0
               : *p >= 0xc2 && *p < 0xe0 ? 1
               : (*p & 0xf0) == 0xe0     ? 2
               : *p >= 0xf0 && *p < 0xf5 ? 3
                                         : -1;
    if (more < 0 || end - p <= more) return false;
    if ((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) ||
        (*p == 0xf4 && p[1] > 0x8f))
      return false;
    for (p++; more > 0; more--, p++)
      if ((*p & 0xc0) != 0x80) return false;
  }
  return true;
}

static void build_bytes(lua_State *L, const struct mr_ext *x, struct mr_build *b, const char *p, size_t n)
{
  char *text = lua_newuserdata(L, 4 * ((n + 2) / 3) + 1);
  x->b_open(b, 0);
  x->b_key(b, (struct mr_str){"base64", 6});
  x->b_str(b, (struct mr_str){text, mr_lua_base64(p, n, false, text)});
  x->b_close(b);
  lua_pop(L, 1);
}

/* The value at the top of the stack; pops it. A table is { blob = bytes }. */
LJMP static void build_value(lua_State *L, struct mr_lua_vm *s, struct mr_build *b)
{
  const struct mr_ext *x = s->ext;
  struct mr_err err = {.size = sizeof err};
  struct mr_doc *doc;
  size_t n;
  const char *p;
  switch (lua_type(L, -1)) {
  case LUA_TSTRING:
    p = lua_tolstring(L, -1, &n);
    if (is_utf8(p, n))
      x->b_str(b, (struct mr_str){p, n});
    else
      build_bytes(L, x, b, p, n);
    break;
  case LUA_TTABLE:
    lua_getfield(L, -1, "blob");
    p = lua_tolstring(L, -1, &n);
    build_bytes(L, x, b, p ? p : "", p ? n : 0);
    lua_pop(L, 1);
    break;
  default:
    doc = mr_lua_to_doc(L, s, lua_gettop(L), 0, &err); /* NaN: has no value */
    if (doc)
      x->b_val(b, x->doc_root(doc));
    else
      x->b_null(b);
    x->doc_free(doc);
  }
  lua_pop(L, 1);
}

static void drop_build(struct mr_lua_vm *s, void *p)
{
  struct mr_build *b = p;
  s->ext->build_drop(&b);
}

/* The parameters at idx: n values, or names when n < 0. Pushes a box that holds the builder. */
LJMP static struct mr_lua_box *build_params(lua_State *L, struct mr_lua_vm *s, int idx, int n)
{
  const struct mr_ext *x = s->ext;
  struct mr_lua_box *box = mr_lua_box(L, s, drop_build);
  box->p = x->build(s->rt);
  if (!box->p) luaL_error(L, "out of memory");
  x->b_open(box->p, n >= 0);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, i);
    build_value(L, s, box->p);
  }
  if (n < 0)
    for (lua_pushnil(L); lua_next(L, idx);) {
      struct mr_str k;
      k.p = lua_tolstring(L, -2, &k.n);
      x->b_key(box->p, k);
      build_value(L, s, box->p);
    }
  x->b_close(box->p);
  return box;
}

/* -------------------------------------------------------------------- runs */

struct ran {
  struct mr_lua_vm *s;
  const struct mr_val *v;
};

static const struct mr_val *member(const struct mr_ext *x, const struct mr_val *v, const char *key)
{
  return x->get(v, (struct mr_str){key, strlen(key)});
}

LJMP static void push_cell(lua_State *L, struct mr_lua_vm *s, const struct mr_val *v)
{
  const struct mr_ext *x = s->ext;
  size_t bad;
  if (x->kind(v) == MR_K_OBJ) {
    struct mr_str t = x->as_str(member(x, v, "base64"));
    if (mr_lua_push_unbase64(L, t.p ? t.p : "", t.n, &bad)) return;
    luaL_error(L, "bug: base64 of the core");
  }
  mr_lua_push_val(L, s, v, 0);
}

/* A row as a table by column name; a null column is absent. The columns' names are the table at names. */
LJMP static void push_row(lua_State *L, struct mr_lua_vm *s, const struct mr_val *row, int names)
{
  struct mr_iter it = {.of = row};
  lua_createtable(L, 0, (int)s->ext->len(row));
  for (int i = 1; s->ext->next(&it); i++) {
    if (s->ext->kind(it.val) == MR_K_NULL) continue;
    lua_rawgeti(L, names, i);
    push_cell(L, s, it.val);
    lua_rawset(L, -3);
  }
}

static void push_result(lua_State *L, void *ud)
{
  struct ran *r = ud;
  const struct mr_ext *x = r->s->ext;
  struct mr_iter it = {.of = member(x, r->v, "rows")};
  luaL_checkstack(L, 12, "rows");
  lua_createtable(L, 0, 4);
  mr_lua_push_val(L, r->s, member(x, r->v, "columns"), 0);
  int names = lua_gettop(L);
  lua_createtable(L, (int)x->len(it.of), 0);
  for (int i = 1; x->next(&it); i++) {
    push_row(L, r->s, it.val, names);
    lua_rawseti(L, -2, i);
  }
  lua_setfield(L, -3, "rows");
  lua_setfield(L, -2, "columns");
  mr_lua_push_val(L, r->s, member(x, r->v, "changes"), 0);
  lua_setfield(L, -2, "changes");
  mr_lua_push_val(L, r->s, member(x, r->v, "last_id"), 0);
  lua_setfield(L, -2, "last_id");
}

static void on_run(void *ud, const struct mr_reply *r)
{
  struct mr_lua_pend *p = ud;
  struct ran d = {p->s, r->val};
  if (r->code)
    mr_lua_pend_fail(p, r->code, r->err);
  else
    mr_lua_pend_value(p, push_result, &d);
}

static void undo_run(struct mr_lua_pend *p)
{
  p->s->ext->db_cancel(p->s->rt, p->id); /* on_run still comes and frees */
}

/* db_run(db, sql, params, n, { max_rows=, max_bytes=, timeout_ms=, flags= }); n: how many, -1 by name, nil none */
static int n_db_run(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_ext_db_run q = {.size = sizeof q};
  struct mr_doc *doc = NULL;
  struct mr_lua_box *box = check_db(L, s), *params = NULL;
  q.sql.p = luaL_checklstring(L, 2, &q.sql.n);
  q.max_rows = (int)mr_lua_field_int(L, 5, "max_rows", 0);
  q.max_bytes = mr_lua_field_int(L, 5, "max_bytes", 0);
  q.timeout_ms = mr_lua_field_int(L, 5, "timeout_ms", 0);
  q.flags = (unsigned)mr_lua_field_int(L, 5, "flags", 0);
  if (lua_istable(L, 3)) params = build_params(L, s, 3, (int)luaL_checkinteger(L, 4));
  mr_lua_may_wait(L, s, "rig.sqlite");
  struct mr_lua_db *d = box->p;
  int rc = d ? MR_OK : mr_lua_err(&err, MR_E_CLOSED, "the database is closed");
  if (rc == MR_OK && params) {
    struct mr_build *b = params->p;
    params->p = NULL;
    rc = s->ext->build_done(&b, &doc, &err);
  }
  struct mr_lua_pend *p = rc ? NULL : mr_lua_pend_new(s, undo_run);
  if (rc == MR_OK) rc = p ? s->ext->db_run(d->db, &q, &doc, on_run, p, &p->id, &err) : MR_E_NOMEM;
  s->ext->doc_free(doc);
  return rc ? refused(L, s, p, rc, &err) : mr_lua_pend_wait(L, p);
}

static void on_undone(void *ud, const struct mr_reply *r)
{
  struct mr_lua_vm *s = ud;
  (void)r; /* no transaction was open any more, perhaps */
  s->outstanding--;
}

/* db_rollback(db): soon, before whatever is asked for later; does not wait, so that a cancelled task can do it */
static int n_db_rollback(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_db *d = check_db(L, s)->p;
  struct mr_ext_db_run q = {
      .size = sizeof q, .sql = {"ROLLBACK", 8}, .flags = MR_DB_TRANSACTION | MR_DB_CONTROL};
  if (d && s->ext->db_run(d->db, &q, NULL, on_undone, s, NULL, NULL) == MR_OK) s->outstanding++;
  return 0;
}

/* within(id): is the running task that one, or was it started by it? */
static int n_within(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  uint64_t id = (uint64_t)luaL_checknumber(L, 1);
  struct mr_lua_task *t = s->current;
  while (t && t->id != id)
    t = t->parent;
  lua_pushboolean(L, t != NULL);
  return 1;
}

const luaL_Reg mr_lua_sqlite_natives[] = {{"db_open", n_db_open},         {"db_run", n_db_run},
                                          {"db_rollback", n_db_rollback}, {"db_close", n_db_close},
                                          {"within", n_within},           {NULL, NULL}};
