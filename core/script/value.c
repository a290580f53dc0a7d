/*
 * value - JSON values and Lua values, walked in place: no JSON text between the core and Lua.
 *
 * Exactness: integers stay integers; one that a Lua number cannot hold (over 2^53 in LuaJIT, over 2^63-1
 * in 5.4) becomes a small userdata that prints, compares and encodes exactly. Arrays carry a metatable, so
 * that an empty one stays one. Objects are written with sorted keys, so that the same table always makes
 * the same bytes (key order in a Lua table differs from process to process, and prompts are cached by
 * their bytes).
 *
 * Tables with a field __mr in their metatable are handles: that field names what is encoded in their
 * place ("id" for an agent, "wire" for a tool).
 */
#include <stdio.h>
#include <stdlib.h>
#include <errno.h>
#include <math.h>
#include "script/script_t.h"

enum { MAX_DEPTH = 128 };
#define EXACT_MAX 9007199254740992 /* 2^53 */

struct big {
  uint64_t u;
  int64_t i;
  bool is_unsigned;
};

/* ----------------------------------------------------------- exact integers */

static struct big *to_big(lua_State *L, struct mr_lua_vm *s, int idx)
{
  struct big *b = lua_touserdata(L, idx);
  if (!b || lua_islightuserdata(L, idx) || !lua_getmetatable(L, idx)) return NULL;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_intmt);
  int same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? b : NULL;
}

static void push_big(lua_State *L, struct mr_lua_vm *s, struct big v)
{
  struct big *b = lua_newuserdata(L, sizeof *b);
  *b = v;
  lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_intmt);
  lua_setmetatable(L, -2);
}

static void push_int(lua_State *L, struct mr_lua_vm *s, int64_t i)
{
#if LUA_VERSION_NUM >= 504
  (void)s;
  lua_pushinteger(L, i);
#else
  if (i >= -EXACT_MAX && i <= EXACT_MAX)
    lua_pushnumber(L, (lua_Number)i);
  else
    push_big(L, s, (struct big){.i = i});
#endif
}

static int big_tostring(lua_State *L)
{
  struct big *b = lua_touserdata(L, 1);
  char t[32];
  if (b->is_unsigned)
    snprintf(t, sizeof t, "%llu", (unsigned long long)b->u);
  else
    snprintf(t, sizeof t, "%lld", (long long)b->i);
  lua_pushstring(L, t);
  return 1;
}

static int big_compare(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct big *a = to_big(L, s, 1), *b = to_big(L, s, 2);
  if (!a || !b) return luaL_error(L, "an exact integer compares with exact integers only (see rig.int)");
  if (a->is_unsigned != b->is_unsigned) return a->is_unsigned ? 1 : -1;
  if (a->is_unsigned) return a->u == b->u ? 0 : a->u < b->u ? -1 : 1;
  return a->i == b->i ? 0 : a->i < b->i ? -1 : 1;
}
static int big_eq(lua_State *L)
{
  lua_pushboolean(L, big_compare(L) == 0);
  return 1;
}
static int big_lt(lua_State *L)
{
  lua_pushboolean(L, big_compare(L) < 0);
  return 1;
}
static int big_le(lua_State *L)
{
  lua_pushboolean(L, big_compare(L) <= 0);
  return 1;
}

/* rig.int("9007199254740993"): a plain number where it fits, else an exact integer. */
static int n_int(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  const char *p = luaL_checkstring(L, 1);
  char *end = NULL;
  errno = 0;
  long long i = strtoll(p, &end, 10);
  if (end == p || *end || !((*p >= '0' && *p <= '9') || *p == '-'))
    return mr_lua_raise(L, "rig.int: \"%s\" is not a whole number", p);
  if (errno == 0) {
    push_int(L, s, i);
    return 1;
  }
  errno = 0;
  unsigned long long u = strtoull(p, &end, 10);
  if (errno || *p == '-') return mr_lua_raise(L, "rig.int: %s does not fit into 64 bits", p);
  push_big(L, s, (struct big){.u = u, .is_unsigned = true});
  return 1;
}

/* ----------------------------------------------------------------- reading */

static void push_at(lua_State *L, struct mr_lua_vm *s, const struct mr_val *v, unsigned flags, int depth)
{
  const struct mr_ext *x = s->ext;
  struct mr_iter it = {.of = v};
  struct mr_str str;
  lua_Integer n = 0;
  size_t len;
  if (depth > 512) luaL_error(L, "JSON nested too deep");
  luaL_checkstack(L, 6, "JSON nested too deep");
  switch (x->kind(v)) {
  case MR_K_NONE: lua_pushnil(L); break;
  case MR_K_NULL: lua_pushlightuserdata(L, NULL); break;
  case MR_K_BOOL: lua_pushboolean(L, x->as_bool(v)); break;
  case MR_K_INT: push_int(L, s, x->as_int(v)); break;
  case MR_K_UINT: push_big(L, s, (struct big){.u = x->as_uint(v), .is_unsigned = true}); break;
  case MR_K_REAL: lua_pushnumber(L, x->as_real(v)); break;
  case MR_K_STR:
    str = x->as_str(v);
    lua_pushlstring(L, str.p ? str.p : "", str.n);
    break;
  case MR_K_ARR:
    len = x->len(v);
    lua_createtable(L, len < 1 << 20 ? (int)len : 1 << 20, 0);
    while (x->next(&it)) {
      push_at(L, s, it.val, flags, depth + 1);
      lua_rawseti(L, -2, ++n);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->ref_arraymt);
    lua_setmetatable(L, -2);
    break;
  case MR_K_OBJ:
    len = x->len(v);
    lua_createtable(L, 0, len < 1 << 16 ? (int)len : 1 << 16);
    while (x->next(&it)) {
      if ((flags & MR_V_WIRE) && x->kind(it.val) == MR_K_NULL) continue;
      lua_pushlstring(L, it.key.p ? it.key.p : "", it.key.n);
      push_at(L, s, it.val, flags, depth + 1);
      lua_rawset(L, -3);
    }
    break;
  }
}

LJMP void mr_lua_push_val(lua_State *L, struct mr_lua_vm *s, const struct mr_val *v, unsigned flags)
{
  push_at(L, s, v, flags, 0);
}

/* ----------------------------------------------------------------- writing */

struct out {
  struct mr_lua_vm *s;
  struct mr_build *b;
  unsigned flags;
};

/* Members of API objects that are arrays: {} in a script means an empty one. */
static bool known_array(struct mr_str key)
{
  static const char *const names[] = {"tools",   "skills",   "mcp_servers",    "resources",    "vault_ids",
                                      "events",  "content",  "initial_events", "required",     "enum",
                                      "agents",  "statuses", "types",          "event_deltas", "allowed_hosts",
                                      "configs", "anyOf",    "oneOf",          "allOf",        NULL};
  for (const char *const *p = names; *p; p++)
    if (strlen(*p) == key.n && memcmp(*p, key.p, key.n) == 0) return true;
  return false;
}

struct key {
  const char *p;
  size_t n;
};

static int compare_keys(const void *a, const void *b)
{
  const struct key *x = a, *y = b;
  size_t n = x->n < y->n ? x->n : y->n;
  int c = n ? memcmp(x->p, y->p, n) : 0;
  return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

static void write_value(lua_State *L, struct out *o, int idx, struct mr_str key, int depth);

static void write_array(lua_State *L, struct out *o, int idx, size_t n, int depth)
{
  o->s->ext->b_open(o->b, 1);
  for (size_t i = 1; i <= n; i++) {
    lua_rawgeti(L, idx, (int)i);
    if (lua_isnil(L, -1)) mr_lua_raise(L, "cannot encode an array with a hole at index %d", (int)i);
    write_value(L, o, lua_gettop(L), (struct mr_str){"", 0}, depth + 1);
    lua_pop(L, 1);
  }
  o->s->ext->b_close(o->b);
}

static void write_object(lua_State *L, struct out *o, int idx, size_t n, int depth)
{
  const struct mr_ext *x = o->s->ext;
  struct key *keys = lua_newuserdata(L, n * sizeof *keys + 1);
  size_t i = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1), i++)
    keys[i].p = lua_tolstring(L, -2, &keys[i].n); /* keys are strings, and live as long as the table */
  qsort(keys, n, sizeof *keys, compare_keys);
  x->b_open(o->b, 0);
  for (i = 0; i < n; i++) {
    x->b_key(o->b, (struct mr_str){keys[i].p, keys[i].n});
    lua_pushlstring(L, keys[i].p, keys[i].n);
    lua_rawget(L, idx);
    write_value(L, o, lua_gettop(L), (struct mr_str){keys[i].p, keys[i].n}, depth + 1);
    lua_pop(L, 1);
  }
  x->b_close(o->b);
  lua_pop(L, 1);
}

/* A handle is encoded as one of its fields. True if idx was one (and has been written). */
static bool write_handle(lua_State *L, struct out *o, int idx, struct mr_str key, int depth, bool *array)
{
  *array = false;
  if (!lua_getmetatable(L, idx)) return false;
  lua_rawgeti(L, LUA_REGISTRYINDEX, o->s->ref_arraymt);
  *array = lua_rawequal(L, -1, -2);
  lua_pop(L, 1);
  lua_pushliteral(L, "__mr");
  lua_rawget(L, -2);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 2);
    return false;
  }
  lua_pushvalue(L, -1);
  lua_rawget(L, idx);
  if (lua_isnil(L, -1)) {
    lua_pushliteral(L, "name");
    lua_rawget(L, idx);
    const char *name = lua_tostring(L, -1);
    mr_lua_raise(L, "\"%s\" has no %s yet: it is made when its scripts become current", name ? name : "?",
                 lua_tostring(L, -3));
  }
  write_value(L, o, lua_gettop(L), key, depth + 1);
  lua_pop(L, 3);
  return true;
}

static void write_table(lua_State *L, struct out *o, int idx, struct mr_str key, int depth)
{
  bool array;
  if (depth > MAX_DEPTH)
    mr_lua_raise(L, "cannot encode a table nested more than %d deep (a cycle?)", MAX_DEPTH);
  luaL_checkstack(L, 8, "table nested too deep");
  if (write_handle(L, o, idx, key, depth, &array)) return;
  size_t n = mr_compat_rawlen(L, idx), total = 0, strings = 0;
  for (lua_pushnil(L); lua_next(L, idx); lua_pop(L, 1), total++) {
    int t = lua_type(L, -2);
    if (t == LUA_TSTRING)
      strings++;
    else if (t != LUA_TNUMBER)
      mr_lua_raise(L, "cannot encode a table with a %s as a key", luaL_typename(L, -2));
  }
  if (total == 0 && !array && (o->flags & MR_V_WIRE)) array = known_array(key);
  if (array || (total && strings == 0)) {
    if (strings) mr_lua_raise(L, "cannot encode an array that has named fields too");
    if (n != total) mr_lua_raise(L, "cannot encode an array with holes (or with keys that are not 1..n)");
    write_array(L, o, idx, n, depth);
  } else {
    if (strings != total) mr_lua_raise(L, "cannot encode a table with both named fields and an array part");
    write_object(L, o, idx, total, depth);
  }
}

static void write_number(lua_State *L, struct out *o, int idx)
{
  const struct mr_ext *x = o->s->ext;
  lua_Number d = lua_tonumber(L, idx);
#if LUA_VERSION_NUM >= 504
  if (lua_isinteger(L, idx))
    x->b_int(o->b, lua_tointeger(L, idx));
  else
    x->b_real(o->b, d);
#else
  if (d == floor(d) && d >= -EXACT_MAX && d <= EXACT_MAX && !(d == 0 && signbit(d)))
    x->b_int(o->b, (int64_t)d);
  else
    x->b_real(o->b, d);
#endif
}

static void write_value(lua_State *L, struct out *o, int idx, struct mr_str key, int depth)
{
  const struct mr_ext *x = o->s->ext;
  struct big *b;
  size_t n;
  const char *p;
  switch (lua_type(L, idx)) {
  case LUA_TNIL: x->b_null(o->b); return;
  case LUA_TBOOLEAN: x->b_bool(o->b, lua_toboolean(L, idx)); return;
  case LUA_TNUMBER: write_number(L, o, idx); return;
  case LUA_TSTRING:
    p = lua_tolstring(L, idx, &n);
    x->b_str(o->b, (struct mr_str){p, n});
    return;
  case LUA_TTABLE: write_table(L, o, idx, key, depth); return;
  case LUA_TLIGHTUSERDATA:
    if (!lua_touserdata(L, idx)) {
      x->b_null(o->b);
      return;
    }
    break;
  case LUA_TUSERDATA:
    b = to_big(L, o->s, idx);
    if (!b) break;
    if (!b->is_unsigned)
      x->b_int(o->b, b->i);
    else { /* the builder has no unsigned: through a parsed document */
      char t[32];
      struct mr_doc *d = NULL;
      int len = snprintf(t, sizeof t, "%llu", (unsigned long long)b->u);
      if (x->parse(o->s->rt, (struct mr_str){t, (size_t)len}, &d, NULL) == MR_OK)
        x->b_val(o->b, x->doc_root(d));
      x->doc_free(d);
    }
    return;
  default: break;
  }
  mr_lua_raise(L, "cannot encode a %s%s%.*s as JSON", luaL_typename(L, idx), key.n ? " in field " : "",
               (int)key.n, key.p);
}

static void drop_build(struct mr_lua_vm *s, void *p)
{
  struct mr_build *b = p;
  s->ext->build_drop(&b);
}

LJMP struct mr_doc *mr_lua_to_doc(lua_State *L, struct mr_lua_vm *s, int idx, unsigned flags,
                                  struct mr_err *err)
{
  if (idx < 0) idx = lua_gettop(L) + idx + 1;
  luaL_checkstack(L, 8, "encode");
  struct mr_lua_box *box = mr_lua_box(L, s, drop_build);
  box->p = s->ext->build(s->rt);
  if (!box->p) {
    mr_lua_err(err, MR_E_NOMEM, "out of memory");
    lua_pop(L, 1);
    return NULL;
  }
  struct out o = {s, box->p, flags};
  write_value(L, &o, idx, (struct mr_str){"", 0}, 0);
  struct mr_build *b = box->p;
  box->p = NULL;
  lua_pop(L, 1);
  struct mr_doc *doc = NULL;
  return s->ext->build_done(&b, &doc, err) == MR_OK ? doc : NULL;
}

static void drop_doc(struct mr_lua_vm *s, void *p)
{
  s->ext->doc_free(p);
}
static void drop_text(struct mr_lua_vm *s, void *p)
{
  mr_free(s->rt, p);
}

LJMP int mr_lua_push_json(lua_State *L, struct mr_lua_vm *s, int idx, unsigned flags, unsigned jflags,
                          struct mr_err *err)
{
  if (idx < 0) idx = lua_gettop(L) + idx + 1;
  struct mr_lua_box *text = mr_lua_box(L, s, drop_text);
  struct mr_doc *doc = mr_lua_to_doc(L, s, idx, flags, err);
  if (!doc) {
    lua_pop(L, 1);
    return err->code ? err->code : MR_E_INVALID;
  }
  char *p = NULL;
  size_t n = 0;
  int rc = s->ext->write(s->rt, s->ext->doc_root(doc), jflags, &p, &n);
  s->ext->doc_free(doc);
  if (rc) {
    lua_pop(L, 1);
    return mr_lua_err(err, rc, "%s", mr_strerror(rc));
  }
  text->p = p;
  lua_pushlstring(L, p, n);
  mr_lua_box_drop(L, -2); /* not later, at a collection: what the core holds does not count for it */
  return MR_OK;
}

/* ------------------------------------------------------------------ natives */

/* json_encode(value, pretty, wire) -> text | nil, err */
static int n_encode(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  luaL_checkany(L, 1);
  unsigned flags = lua_toboolean(L, 3) ? MR_V_WIRE : 0, jflags = lua_toboolean(L, 2) ? MR_JSON_PRETTY : 0;
  if (mr_lua_push_json(L, s, 1, flags, jflags, &err) == MR_OK) return 1;
  lua_pushnil(L);
  mr_lua_push_err(L, s, &err);
  return 2;
}

/* json_decode(text, wire) -> value | nil, err */
static int n_decode(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_str text;
  struct mr_doc *doc = NULL;
  text.p = luaL_checklstring(L, 1, &text.n);
  lua_settop(L, 2);
  struct mr_lua_box *box = mr_lua_box(L, s, drop_doc);
  if (s->ext->parse(s->rt, text, &doc, &err) != MR_OK) {
    lua_pushnil(L);
    mr_lua_push_err(L, s, &err);
    return 2;
  }
  box->p = doc;
  mr_lua_push_val(L, s, s->ext->doc_root(doc), lua_toboolean(L, 2) ? MR_V_WIRE : 0);
  mr_lua_box_drop(L, -2);
  return 1;
}

const luaL_Reg mr_lua_json_natives[] = {
    {"json_encode", n_encode}, {"json_decode", n_decode}, {"int", n_int}, {NULL, NULL}};

LJMP void mr_lua_value_open(lua_State *L, struct mr_lua_vm *s)
{
  static const luaL_Reg meta[] = {
      {"__tostring", big_tostring}, {"__eq", big_eq}, {"__lt", big_lt}, {"__le", big_le}, {NULL, NULL}};
  lua_newtable(L);
  lua_pushliteral(L, "moonrig.array");
  lua_setfield(L, -2, "__name");
  s->ref_arraymt = luaL_ref(L, LUA_REGISTRYINDEX);
  lua_newtable(L);
  lua_pushlightuserdata(L, s);
  luaL_setfuncs(L, meta, 1);
  lua_pushliteral(L, "moonrig.int");
  lua_setfield(L, -2, "__name");
  s->ref_intmt = luaL_ref(L, LUA_REGISTRYINDEX);
}
