/*
 * on - rig.on: events of all sessions handled in Lua; and tasks that belong to nobody, for rig.schedule.
 *
 * A watcher is registered under its name with a record that stays the same over reloads; the function is
 * looked up in the current generation when an event arrives inside mr_dispatch, and its task keeps that
 * generation. An event whose task ended, well or badly or over its time, is done. One whose task was broken
 * off because the scripts got stuck in another is given back, and shown to the fresh VM.
 *
 * Invariant: each event is ended exactly once, by its task's finish or fail. Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

/* ------------------------------------------------------------------ events */

static void log_late(struct mr_lua_task *t)
{
  if (t->cancelled && strcmp(mr_lua_task_why(t), "the deadline passed") == 0)
    mr_lua_log(t->s, MR_LOG_ERROR, t->label, "cancelled: it was over its time");
}

static void seen_fail(struct mr_lua_task *t, const char *msg)
{
  (void)msg;
  if (!t->seen) return;
  log_late(t);
  if (mr_lua_gone(t->s) && t != t->s->current)
    mr_seen_again(&t->seen);
  else
    mr_seen_done(&t->seen);
  t->seen = NULL;
}

static void seen_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  (void)L, (void)nres;
  if (t->seen) mr_seen_done(&t->seen);
  t->seen = NULL;
}

struct event {
  struct mr_lua_rec *rec;
  struct mr_seen *seen;
};

static int start_event(lua_State *L)
{
  struct event *e = lua_touserdata(L, 1);
  struct mr_lua_vm *s = e->rec->s;
  struct mr_str id = mr_seen_session(e->seen);
  char label[200];
  lua_settop(L, 0);
  if (!s->cur) return luaL_error(L, "no scripts are loaded");
  mr_lua_entry(L, s, "on");
  mr_lua_gen_push(L, s->cur);
  lua_getfield(L, -1, "on_by_name");
  lua_pushstring(L, e->rec->name);
  lua_rawget(L, -2);
  lua_replace(L, 2);
  lua_settop(L, 2); /* entry, declaration */
  if (!lua_istable(L, 2)) return luaL_error(L, "no function for this watcher is loaded any more");
  int64_t timeout_ms = mr_lua_field_int(L, 2, "timeout_ms", 60000);
  lua_settop(L, 2);
  mr_lua_push_val(L, s, mr_seen_event(e->seen), MR_V_WIRE);
  lua_pushlstring(L, id.p, id.n);
  snprintf(label, sizeof label, "on %s", e->rec->name);
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_EVENT, 3, label);
  t->finish = seen_finish;
  t->fail = seen_fail;
  t->seen = e->seen;
  e->seen = NULL;
  mr_lua_task_deadline(t, timeout_ms * 1000);
  return 0;
}

static void on_seen(void *ud, struct mr_seen *seen)
{
  struct event e = {ud, seen};
  char msg[300];
  if (mr_lua_gone(e.rec->s)) {
    mr_seen_again(&e.seen);
    return;
  }
  if (mr_lua_protect(e.rec->s, start_event, &e, msg, sizeof msg) == MR_OK) return;
  mr_lua_log(e.rec->s, MR_LOG_ERROR, e.rec->name, msg);
  if (e.seen) mr_seen_done(&e.seen);
}

/* ------------------------------------------------------------ registration */

static struct mr_lua_rec *find(struct mr_lua_vm *s, const char *name)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->kind == MR_REC_ON && strcmp(r->name, name) == 0) return r;
  return mr_lua_rec_new(s, MR_REC_ON, name, "");
}

static bool planned(lua_State *L, int list, const struct mr_lua_rec *r)
{
  int n = (int)mr_compat_rawlen(L, list);
  bool yes = false;
  for (int i = 1; i <= n && !yes; i++) {
    lua_rawgeti(L, list, i);
    yes = strcmp(mr_lua_field(L, list + 1, "name", ""), r->name) == 0;
    lua_settop(L, list);
  }
  return yes;
}

LJMP int mr_lua_watchers_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err)
{
  lua_settop(L, plan);
  lua_getfield(L, plan, "watchers");
  int list = lua_gettop(L), n = (int)mr_compat_rawlen(L, list);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, list, i);
    struct mr_watcher w = {.size = sizeof w, .run = on_seen};
    w.name = mr_lua_field(L, list + 1, "name", "");
    w.events = mr_lua_field(L, list + 1, "events", NULL);
    w.agent = mr_lua_field(L, list + 1, "agent", NULL);
    w.flags = mr_lua_field_int(L, list + 1, "durable", 0) ? MR_ON_DURABLE : 0;
    struct mr_lua_rec *r = find(s, w.name);
    w.ud = r;
    int rc = r ? mr_on(s->rt, &w, err) : mr_lua_err(err, MR_E_NOMEM, "out of memory");
    if (rc) {
      if (!err->message[0]) mr_lua_err(err, rc, "watcher %s: %s", w.name, mr_strerror(rc));
      return rc;
    }
    r->live = true;
    lua_settop(L, list);
  }
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (r->kind != MR_REC_ON || !r->live || planned(L, list, r)) continue;
    mr_on_remove(s->rt, r->name);
    r->live = false;
  }
  lua_settop(L, plan);
  return MR_OK;
}

/* ----------------------------------------------------------------- natives */

static void alone_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  (void)L, (void)t, (void)nres;
}
static void alone_fail(struct mr_lua_task *t, const char *msg)
{
  (void)msg;
  if (!mr_lua_gone(t->s)) log_late(t);
}

/* detach(label, seconds, fn, ...): a task without a parent, of the caller's generation; errors are logged. */
static int n_detach(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  char label[80];
  snprintf(label, sizeof label, "%s", luaL_checkstring(L, 1));
  lua_Number sec = luaL_checknumber(L, 2);
  luaL_checktype(L, 3, LUA_TFUNCTION);
  if (!s->current) return mr_lua_raise(L, "a task can only be started by a task");
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->current->gen, MR_TASK_EVENT, lua_gettop(L) - 3, label);
  t->finish = alone_finish;
  t->fail = alone_fail;
  mr_lua_task_deadline(t, (int64_t)(sec * 1e6));
  lua_pushinteger(L, (lua_Integer)t->id);
  return 1;
}

/* serving(): do these scripts serve, or is this a job that ends with rig.main? */
static int n_serving(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushboolean(L, !s->once);
  return 1;
}

/* alive(id): is there such a task? */
static int n_alive(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  lua_pushboolean(L, mr_lua_task_find(L, s, (uint64_t)luaL_checknumber(L, 1)) != NULL);
  return 1;
}

const luaL_Reg mr_lua_on_natives[] = {
    {"detach", n_detach}, {"serving", n_serving}, {"alive", n_alive}, {NULL, NULL}};
