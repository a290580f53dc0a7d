/*
 * hook - rig.hook: questions of the core answered in Lua, at every phase of a turn. What a handler returns is made
 * an answer by lua/moonrig/hook.lua; the core checks it.
 *
 * Each declaration is one hook in the core, in the order of declaration, with its own filter; the core
 * asks one after the other. A generation's hooks are added before those of the old one
 * are taken back, so that there is never a moment without one. An error in a handler is no opinion, or a
 * refusal with fail = "closed".
 *
 * Script thread only.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { HANDLER_US = 28 * 1000000 }; /* the core stops waiting after 30 s */

/* What a handler that fails has said, with fail = "closed". */
static const char *refusal(const char *phase)
{
  static const char *const v[][2] = {
      {"accept", "{\"refuse\":\"the accept hook failed\"}"},
      {"context", "{\"refuse\":\"the context hook failed\"}"},
      {"model", "{\"refuse\":\"the model hook failed\"}"},
      {"permit", "{\"decision\":\"deny\",\"message\":\"the permission hook failed\"}"},
      {"tools", "{\"refuse\":\"the result was withheld: the tools hook failed\"}"},
      {"settle", "{\"refuse\":\"the settle hook failed\"}"}};
  for (size_t i = 0; i < sizeof v / sizeof *v; i++)
    if (strcmp(phase, v[i][0]) == 0) return v[i][1];
  return NULL; /* idle: there is nothing to refuse */
}

static void hook_fail(struct mr_lua_task *t, const char *msg)
{
  if (!t->hook) return;
  if (t->cancelled) mr_lua_log(t->s, MR_LOG_WARN, t->label, msg); /* an error was logged where it was caught */
  mr_hook_decide(&t->hook, t->on_fail);
  t->hook = NULL;
}

/* The library returns the decision, or nothing. */
static void hook_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_err err = {.size = sizeof err};
  if (!t->hook) return;
  if (nres < 1 || lua_isnil(L, 1)) {
    mr_hook_decide(&t->hook, NULL);
  } else {
    struct mr_doc *doc = mr_lua_to_doc(L, t->s, 1, 0, &err);
    if (!doc) {
      mr_lua_log(t->s, MR_LOG_ERROR, t->label, err.message);
      hook_fail(t, err.message);
      return;
    }
    t->s->ext->hook_decide(&t->hook, &doc);
  }
  t->hook = NULL;
}

struct ask {
  struct mr_lua_rec *rec;
  struct mr_hook_call *call;
};

static int start_hook(lua_State *L)
{
  struct ask *a = lua_touserdata(L, 1);
  struct mr_lua_rec *r = a->rec;
  struct mr_lua_vm *s = r->s;
  char label[200];
  lua_settop(L, 0);
  mr_lua_entry(L, s, "hook");
  mr_lua_gen_push(L, r->gen);
  lua_getfield(L, -1, "hooks");
  lua_rawgeti(L, -1, r->index);
  lua_replace(L, 2);
  lua_settop(L, 2); /* entry, declaration */
  mr_lua_push_val(L, s, mr_hook_input(a->call), 0);
  snprintf(label, sizeof label, "hook %s", r->name);
  struct mr_lua_task *t = mr_lua_task_new(L, s, r->gen, MR_TASK_HOOK, 2, label);
  t->finish = hook_finish;
  t->fail = hook_fail;
  t->hook = a->call;
  t->on_fail = r->on_fail;
  a->call = NULL;
  mr_lua_task_deadline(t, HANDLER_US);
  return 0;
}

static void on_hook(void *ud, struct mr_hook_call *call)
{
  struct ask a = {ud, call};
  char msg[300] = "the scripts of this hook are gone";
  if (a.rec->gen && !mr_lua_gone(a.rec->s) &&
      mr_lua_protect(a.rec->s, start_hook, &a, msg, sizeof msg) == MR_OK)
    return;
  mr_lua_log(a.rec->s, MR_LOG_ERROR, a.rec->name, msg);
  if (a.call) mr_hook_decide(&a.call, a.rec->on_fail);
}

LJMP int mr_lua_hooks_apply(lua_State *L, struct mr_lua_vm *s, struct mr_lua_gen *g, int plan,
                            struct mr_err *err)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next)
    if (r->kind == MR_REC_HOOK && r->live && r->gen == g) return MR_OK; /* they never left */
  lua_settop(L, plan);
  lua_getfield(L, plan, "hooks");
  int hooks = lua_gettop(L), n = (int)mr_compat_rawlen(L, hooks);
  for (int i = 1; i <= n; i++) {
    lua_rawgeti(L, hooks, i);
    const char *phase = mr_lua_field(L, hooks + 1, "phase", "permit");
    const char *filter = mr_lua_field(L, hooks + 1, "filter", NULL);
    const char *name = mr_lua_field(L, hooks + 1, "name", phase);
    struct mr_lua_rec *r = mr_lua_rec_new(s, MR_REC_HOOK, name, "");
    if (!r) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
    r->gen = g;
    r->index = i;
    bool closed = mr_lua_field_int(L, hooks + 1, "fail_closed", 0) != 0;
    r->on_fail = closed ? refusal(phase) : NULL;
    int id = mr_hook_add(s->rt, phase, filter, closed ? MR_HOOK_FAIL_CLOSED : 0, on_hook, r, err);
    if (id < 0) {
      if (!err->message[0]) mr_lua_err(err, id, "hook %s: %s", name, mr_strerror(id));
      return id;
    }
    r->hook_id = id;
    r->live = true;
    lua_settop(L, hooks);
  }
  lua_settop(L, plan);
  return MR_OK;
}

void mr_lua_hooks_keep(struct mr_lua_vm *s, struct mr_lua_gen *g)
{
  for (struct mr_lua_rec *r = s->recs; r; r = r->next) {
    if (r->kind != MR_REC_HOOK || !r->live || r->gen == g) continue;
    mr_hook_remove(s->rt, r->hook_id);
    mr_lua_rec_retire(r);
  }
}
