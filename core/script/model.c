/*
 * model - rig.provider and the offline model: Lua functions that play a language model.
 *
 * Registered by name with a record that stays over reloads; the function is looked up in the current
 * generation when a request arrives. What they return is brought into the form of a Messages reply by
 * lua/moonrig/model.lua.
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

static void fail_as(struct mr_lua_task *t, const char *type, const char *msg)
{
  char *text = t->model ? mr_lua_strdup(msg) : NULL;
  if (text) mr_lua_scrub(text);
  if (t->model) mr_model_use_fail(&t->model, type, text ? text : "the model function failed");
  t->model = NULL;
  mr_lua_free(text);
}

static void model_fail(struct mr_lua_task *t, const char *msg)
{
  fail_as(t, "api_error", msg);
}

/* The library returns a reply table; or nil, message, type. */
static void model_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_err err = {.size = sizeof err};
  if (!t->model) return;
  if (nres < 1 || !lua_istable(L, 1)) {
    const char *msg =
        nres >= 2 && lua_isstring(L, 2) ? lua_tostring(L, 2) : "the model function returned nothing";
    const char *type = nres >= 3 && lua_isstring(L, 3) ? lua_tostring(L, 3) : "api_error";
    fail_as(t, type, msg);
    return;
  }
  struct mr_doc *doc = mr_lua_to_doc(L, t->s, 1, 0, &err);
  if (!doc) {
    mr_lua_log(t->s, MR_LOG_ERROR, t->label, err.message);
    model_fail(t, err.message);
    return;
  }
  t->s->ext->model_finish(&t->model, &doc);
  t->model = NULL;
}

struct ask {
  struct mr_lua_rec *rec;
  struct mr_model_use *use;
};

static int start_model(lua_State *L)
{
  struct ask *a = lua_touserdata(L, 1);
  struct mr_lua_vm *s = a->rec->s;
  char label[200];
  lua_settop(L, 0);
  if (!s->cur) return luaL_error(L, "no scripts are loaded");
  mr_lua_entry(L, s, "model");
  mr_lua_gen_push(L, s->cur);
  lua_getfield(L, -1, "providers_by_name");
  lua_getfield(L, -1, a->rec->name);
  lua_replace(L, 2);
  lua_settop(L, 2); /* entry, declaration */
  if (!lua_istable(L, 2)) return luaL_error(L, "this model provider is not loaded any more");
  mr_lua_push_val(L, s, mr_model_use_request(a->use), 0);
  struct mr_str session = mr_model_use_session(a->use);
  lua_pushlstring(L, session.p ? session.p : "", session.n);
  snprintf(label, sizeof label, "model %s", a->rec->name);
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_MODEL, 3, label);
  t->finish = model_finish;
  t->fail = model_fail;
  t->model = a->use;
  a->use = NULL;
  return 0;
}

static void on_model(void *ud, struct mr_model_use *use)
{
  struct ask a = {ud, use};
  char msg[300] = "the scripts of this model are gone";
  if (!mr_lua_gone(a.rec->s) && mr_lua_protect(a.rec->s, start_model, &a, msg, sizeof msg) == MR_OK) return;
  mr_lua_log(a.rec->s, MR_LOG_ERROR, a.rec->name, msg);
  if (a.use) mr_model_use_fail(&a.use, "api_error", msg);
}

static void on_cancel(void *ud, struct mr_model_use *use)
{
  struct mr_lua_rec *rec = ud;
  for (struct mr_lua_task *t = rec->s->tasks; t; t = t->next) {
    if (t->model != use) continue;
    model_fail(t, "cancelled");
    mr_lua_task_cancel(t, "the model request was cancelled");
    return;
  }
}

static struct mr_lua_rec *find(struct mr_lua_vm *s, const char *name)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->kind == MR_REC_PROVIDER && strcmp(r->name, name) == 0) return r;
  return mr_lua_rec_new(s, MR_REC_PROVIDER, name, "");
}

LJMP int mr_lua_providers_apply(lua_State *L, struct mr_lua_vm *s, int plan, struct mr_err *err)
{
  lua_settop(L, plan);
  lua_getfield(L, plan, "providers");
  lua_getfield(L, plan, "provider_names"); /* set: name = true */
  int list = plan + 1, n = (int)mr_compat_rawlen(L, list);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, list, i);
    struct mr_provider p = {.size = sizeof p, .run = on_model, .cancel = on_cancel};
    p.name = mr_lua_field(L, plan + 3, "name", "");
    p.models = mr_lua_field(L, plan + 3, "models", "*");
    struct mr_lua_rec *r = find(s, p.name);
    p.ud = r;
    int rc = r ? mr_provider_add(s->rt, &p, err) : mr_lua_err(err, MR_E_NOMEM, "out of memory");
    if (rc) {
      if (!err->message[0]) mr_lua_err(err, rc, "provider %s: %s", p.name, mr_strerror(rc));
      return rc;
    }
    r->live = true;
    lua_settop(L, plan + 2);
  }
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (r->kind != MR_REC_PROVIDER || !r->live) continue;
    lua_getfield(L, plan + 2, r->name);
    bool keep = lua_toboolean(L, -1);
    lua_pop(L, 1);
    if (keep) continue;
    mr_provider_remove(s->rt, r->name);
    r->live = false;
  }
  lua_settop(L, plan);
  return MR_OK;
}

/* model_text(text): streams a piece of the answer of the request that the running task belongs to */
static int n_text(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_str text;
  text.p = luaL_checklstring(L, 1, &text.n);
  struct mr_lua_task *t = s->current;
  while (t && t->kind != MR_TASK_MODEL)
    t = t->parent;
  if (!t) return mr_lua_raise(L, "ctx:text belongs into a model function");
  if (t->model) mr_model_use_text(t->model, text);
  return 0;
}

const luaL_Reg mr_lua_model_natives[] = {{"model_text", n_text}, {NULL, NULL}};
