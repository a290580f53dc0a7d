/*
 * tool - tool handlers in Lua, and the records behind everything that is registered in the core.
 *
 * A tool is registered under its name with a record as user data that stays the same over reloads; the
 * handler is looked up in the current generation when a call arrives inside mr_dispatch, and the call's
 * task keeps that generation. The use is released exactly once: by the result, by the failure, or at once
 * when the core cancels (the model has its answer then; Lua hears when it is resumed).
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

struct mr_lua_rec *mr_lua_rec_new(struct mr_lua_vm *s, int kind, const char *name, const char *agent)
{
  struct mr_lua_rec *r = mr_lua_alloc(sizeof *r);
  if (!r) return NULL;
  r->s = s;
  r->kind = kind;
  r->hook_id = -1;
  snprintf(r->name, sizeof r->name, "%s", name);
  snprintf(r->agent, sizeof r->agent, "%s", agent);
  r->next = s->recs;
  s->recs = r;
  return r;
}

static void on_retired(void *ud)
{
  struct mr_lua_rec *rec = ud, **at = &rec->s->recs;
  rec->s->outstanding--;
  while (*at != rec)
    at = &(*at)->next;
  *at = rec->next;
  mr_lua_free(rec);
}

void mr_lua_rec_retire(struct mr_lua_rec *r)
{
  struct mr_lua_vm *s = r->s;
  r->live = false;
  if (s->closing || s->ext->post(s->rt, on_retired, r) != MR_OK) return; /* freed at the end */
  s->outstanding++;
}

bool mr_lua_gone(const struct mr_lua_vm *s)
{
  return s->closing || atomic_load(&s->slice) == MR_SLICE_GONE;
}

static bool has(const struct mr_lua_vm *s, const struct mr_lua_rec *of)
{
  for (const struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->live && r->kind == of->kind && strcmp(r->name, of->name) == 0 && strcmp(r->agent, of->agent) == 0)
      return true;
  return false;
}

static void take_back(struct mr_lua_rec *r)
{
  struct mr_runtime *rt = r->s->rt;
  if (r->kind == MR_REC_TOOL) mr_tool_remove(rt, r->name, r->agent[0] ? r->agent : NULL);
  if (r->kind == MR_REC_HOOK) mr_hook_remove(rt, r->hook_id);
  if (r->kind == MR_REC_PROVIDER) mr_provider_remove(rt, r->name);
  if (r->kind == MR_REC_ROUTE) mr_lua_route_take_back(r);
  if (r->kind == MR_REC_ON) mr_on_remove(rt, r->name);
}

void mr_lua_recs_replace(struct mr_lua_vm *s, struct mr_lua_vm *before)
{
  for (struct mr_lua_rec *r = before->recs; r; r = r->next)
    if (r->live && (r->kind == MR_REC_HOOK || !has(s, r))) take_back(r);
}

void mr_lua_recs_remove(struct mr_lua_vm *s)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (!r->live) continue;
    r->live = false;
    take_back(r);
  }
}

/* ------------------------------------------------------------------- calls */

static void tool_fail(struct mr_lua_task *t, const char *msg)
{
  char *text = t->use ? mr_lua_strdup(msg) : NULL;
  if (text) mr_lua_scrub(text);
  if (t->use) mr_use_fail(&t->use, text ? text : "the tool failed");
  t->use = NULL;
  mr_lua_free(text);
}

/* The library returns true, value or false, message. */
static void tool_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_lua_vm *s = t->s;
  struct mr_err err = {.size = sizeof err};
  if (!t->use) return;
  if (!lua_toboolean(L, 1)) {
    tool_fail(t, nres >= 2 && lua_isstring(L, 2) ? lua_tostring(L, 2) : "the tool failed");
    return;
  }
  if (nres < 2 || lua_isnil(L, 2)) {
    mr_use_finish(&t->use, NULL);
  } else {
    struct mr_doc *doc = mr_lua_to_doc(L, s, 2, 0, &err);
    if (!doc) {
      mr_lua_log(s, MR_LOG_ERROR, t->label, err.message);
      tool_fail(t, err.message);
      return;
    }
    s->ext->use_finish(&t->use, &doc);
  }
  t->use = NULL;
}

struct call {
  struct mr_lua_rec *rec;
  struct mr_use *use;
};

static void set_str(lua_State *L, const char *key, struct mr_str v)
{
  lua_pushlstring(L, v.p ? v.p : "", v.n);
  lua_setfield(L, -2, key);
}

static int start_call(lua_State *L)
{
  struct call *c = lua_touserdata(L, 1);
  struct mr_lua_vm *s = c->rec->s;
  char label[200];
  lua_settop(L, 0);
  if (!s->cur) return luaL_error(L, "no scripts are loaded");
  mr_lua_entry(L, s, "tool");
  mr_lua_gen_push(L, s->cur);
  lua_getfield(L, -1, "tools_by_key");
  lua_pushfstring(L, "%s\n%s", c->rec->name, c->rec->agent);
  lua_rawget(L, -2);
  lua_replace(L, -3);
  lua_settop(L, 2); /* entry, declaration */
  if (!lua_istable(L, 2)) return luaL_error(L, "no handler for this tool is loaded any more");
  mr_lua_push_val(L, s, mr_use_input_val(c->use), 0);
  lua_createtable(L, 0, 8); /* the handler's ctx; lua/moonrig/tool.lua fills it up */
  set_str(L, "tool_use_id", mr_use_id(c->use));
  set_str(L, "session_id", mr_use_session(c->use));
  set_str(L, "thread", mr_use_thread(c->use));
  set_str(L, "agent", mr_use_agent(c->use));
  lua_pushinteger(L, mr_use_attempt(c->use));
  lua_setfield(L, -2, "attempt");
  lua_pushnumber(L, (lua_Number)mr_use_deadline_ms(c->use) / 1000);
  lua_setfield(L, -2, "deadline"); /* from now */
  snprintf(label, sizeof label, "tool %s", c->rec->name);
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_TOOL, 3, label);
  t->finish = tool_finish;
  t->fail = tool_fail;
  t->use = c->use;
  c->use = NULL;
  s->ext->use_input_drop(t->use);
  return 0;
}

static void on_use(void *ud, struct mr_use *use)
{
  struct call c = {ud, use};
  char msg[300];
  if (mr_lua_gone(c.rec->s)) {
    mr_use_fail(&c.use, "the scripts that had this tool are gone");
    return;
  }
  if (mr_lua_protect(c.rec->s, start_call, &c, msg, sizeof msg) == MR_OK) return;
  mr_lua_log(c.rec->s, MR_LOG_ERROR, c.rec->name, msg);
  if (c.use) mr_use_fail(&c.use, msg);
}

static void on_cancel(void *ud, struct mr_use *use)
{
  struct mr_lua_rec *rec = ud;
  for (struct mr_lua_task *t = rec->s->tasks; t; t = t->next) { /* not found when the VM was given up: failed */
    if (t->use != use) continue;
    tool_fail(t, "cancelled");
    mr_lua_task_cancel(t, "the tool call was cancelled or its time is over");
    return;
  }
}

/* ------------------------------------------------------------ registration */

static struct mr_lua_rec *find(struct mr_lua_vm *s, const char *name, const char *agent)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->kind == MR_REC_TOOL && strcmp(r->name, name) == 0 && strcmp(r->agent, agent) == 0) return r;
  return mr_lua_rec_new(s, MR_REC_TOOL, name, agent);
}

static bool planned(lua_State *L, int tools, const struct mr_lua_rec *r)
{
  int n = (int)mr_compat_rawlen(L, tools);
  bool yes = false;
  for (int i = 1; i <= n && !yes; i++) {
    lua_rawgeti(L, tools, i);
    yes = strcmp(mr_lua_field(L, -1, "name", ""), r->name) == 0 &&
          strcmp(mr_lua_field(L, -2, "agent", ""), r->agent) == 0;
    lua_settop(L, tools);
  }
  return yes;
}

LJMP int mr_lua_tools_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err)
{
  lua_settop(L, plan);
  lua_getfield(L, plan, "tools");
  int tools = lua_gettop(L), n = (int)mr_compat_rawlen(L, tools);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, tools, i);
    int d = lua_gettop(L);
    const char *agent = mr_lua_field(L, d, "agent", "");
    struct mr_tool t = {.size = sizeof t, .run = on_use, .cancel = on_cancel};
    t.name = mr_lua_field(L, d, "name", "");
    t.description = mr_lua_field(L, d, "description", "");
    t.input_schema = mr_lua_field(L, d, "schema", "{\"type\":\"object\"}");
    t.agent = agent[0] ? agent : NULL;
    t.timeout_ms = (int)mr_lua_field_int(L, d, "timeout_ms", 0);
    t.concurrency = (int)mr_lua_field_int(L, d, "concurrency", 0);
    t.flags = (unsigned)mr_lua_field_int(L, d, "flags", 0);
    struct mr_lua_rec *r = find(s, t.name, agent);
    t.ud = r;
    int rc = r ? mr_tool_add(s->rt, &t, err) : mr_lua_err(err, MR_E_NOMEM, "out of memory");
    if (rc) {
      if (!err->message[0]) mr_lua_err(err, rc, "tool %s: %s", t.name, mr_strerror(rc));
      return rc;
    }
    r->live = true;
    lua_settop(L, tools);
  }
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (r->kind != MR_REC_TOOL || !r->live || planned(L, tools, r)) continue;
    mr_tool_remove(s->rt, r->name, r->agent[0] ? r->agent : NULL);
    r->live = false;
  }
  lua_settop(L, plan);
  return MR_OK;
}
