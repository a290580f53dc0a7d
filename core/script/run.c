/*
 * run - the life of one VM: made, loaded, its turns, control commands, rig.main, its end.
 *
 * A turn: wait for the doorbell, dispatch a bounded number of callbacks (they only settle and make ready),
 * carry out what was asked for (control, a reload, changed files), resume what is ready.
 *
 * Invariant: at any time one thread is in here for a VM: first the one that opens, then its worker
 * (guard.c), in the end the one that closes.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { DISPATCH_MAX = 256, CLOSE_MS = 2000, BETWEEN_MS = 2 };

/* ------------------------------------------------------------------- making */

static void on_control(void *ud, const char *command, const struct mr_val *arg, uint64_t id)
{
  struct mr_lua_vm *s = ud;
  (void)arg;
  if (s->control_wanted || s->closing) {
    const char *busy = "{\"error\":\"another command is being carried out\"}";
    s->ext->control_done(s->rt, id, MR_E_BUSY, (struct mr_str){busy, strlen(busy)});
    return;
  }
  s->control_wanted = true;
  s->control_id = id;
  snprintf(s->control, sizeof s->control, "%s", command);
}

int mr_lua_vm_new(struct mr_lua_vm **out, struct mr_script *h, struct mr_lua_vm *before, struct mr_err *err)
{
  struct mr_lua_vm *s = mr_lua_alloc(sizeof *s);
  *out = NULL;
  if (!s) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  s->h = h;
  s->rt = h->rt;
  s->ext = h->ext;
  s->o = h->o;
  atomic_init(&s->slice, MR_SLICE_OUT);
  atomic_init(&s->beat, 0);
  s->before = before;
  int rc = mr_lua_vm_open(s, err);
  if (rc) {
    mr_lua_vm_end(&s);
    return rc;
  }
  *out = s;
  return MR_OK;
}

int mr_lua_vm_load(struct mr_lua_vm *s, struct mr_err *err)
{
  struct mr_lua_vm *before = s->before;
  int rc;
  s->ext->on_control(s->rt, on_control, s);
  s->listens = true;
  if (before && before->cur) s->last_number = before->cur->number - 1;
  if (before && before->cur && !s->hung) {
    s->replay = before->cur->files;
    rc = mr_lua_gen_reload(s, err);
    s->replay = NULL;
    if (rc) rc = mr_lua_gen_reload(s, err); /* as they lie on disk now */
  } else {
    rc = mr_lua_gen_reload(s, err);
  }
  if (before) mr_lua_recs_replace(s, before);
  s->before = NULL;
  mr_lua_watch(s);
  return rc;
}

/* ----------------------------------------------------------------- control */

int mr_lua_vm_reload(struct mr_lua_vm *s, int rollback, struct mr_err *err)
{
  int rc = rollback ? mr_lua_gen_rollback(s, err) : mr_lua_gen_reload(s, err);
  mr_lua_watch(s);
  return rc;
}

static struct mr_str text(const char *p)
{
  return (struct mr_str){p, strlen(p)};
}

static void answer_control(struct mr_lua_vm *s, int rc)
{
  const struct mr_ext *x = s->ext;
  struct mr_doc *doc = mr_lua_status(s);
  char *json = NULL;
  size_t n = 0;
  if (doc) x->write(s->rt, x->doc_root(doc), 0, &json, &n);
  x->control_done(s->rt, s->control_id, rc, json ? (struct mr_str){json, n} : text("{}"));
  mr_free(s->rt, json);
  x->doc_free(doc);
}

void mr_lua_vm_refuse_control(struct mr_lua_vm *s, const char *why)
{
  snprintf(s->last_error, sizeof s->last_error, "%s", why);
  if (s->control_wanted) answer_control(s, MR_E_CLOSED);
  s->control_wanted = false;
}

static void commands(struct mr_lua_vm *s)
{
  struct mr_err err = {.size = sizeof err};
  int rc = MR_OK;
  if (s->control_wanted) {
    if (strcmp(s->control, "reload") == 0)
      rc = mr_lua_vm_reload(s, 0, &err);
    else if (strcmp(s->control, "rollback") == 0)
      rc = mr_lua_vm_reload(s, 1, &err);
    else if (strcmp(s->control, "status") != 0)
      rc = MR_E_UNSUPPORTED;
    s->control_wanted = false;
    answer_control(s, rc);
  }
  mr_lua_reloads_run(s);
  if (atomic_exchange(&s->h->asked, 0)) mr_lua_vm_reload(s, 0, &err);
  if (s->watch_hit) {
    s->watch_hit = false;
    if (mr_lua_files_changed(s))
      mr_lua_vm_reload(s, 0, &err);
    else
      mr_lua_watch(s); /* a new directory, perhaps */
  }
}

int mr_lua_vm_turn(struct mr_lua_vm *s)
{
  int rc;
  if (!s->ready && !s->reloads) {
    rc = mr_wait(s->rt, s->between ? BETWEEN_MS : -1);
    if (rc < 0 && rc != MR_E_TIMEOUT) return rc;
  }
  rc = mr_dispatch(s->rt, DISPATCH_MAX, 0);
  if (rc < 0) return rc;
  if (atomic_load(&s->h->stop)) return MR_OK;
  commands(s);
  if (s->between) s->between(s);
  mr_lua_run_ready(s);
  return MR_OK;
}

/* ---------------------------------------------------------------- rig.main */

static void main_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_lua_vm *s = t->s;
  char msg[384];
  s->main_done = true;
  *t->exit_code = 0;
  if (nres >= 1 && lua_type(L, 1) == LUA_TNUMBER) {
    *t->exit_code = (int)lua_tonumber(L, 1) & 0xff;
  } else if (nres >= 1 && !lua_toboolean(L, 1) && (nres >= 2 || lua_isboolean(L, 1))) {
    *t->exit_code = 1;
    if (nres >= 2) mr_lua_errtext(L, s, 2, msg, sizeof msg);
    mr_lua_err(t->err, MR_E_INVALID, "%s", nres >= 2 ? msg : "rig.main returned false");
  }
}

static void main_fail(struct mr_lua_task *t, const char *msg)
{
  t->s->main_done = true;
  *t->exit_code = 1;
  mr_lua_err(t->err, t->cancelled ? MR_E_CANCELLED : MR_E_INVALID, "%s", msg);
}

struct start {
  struct mr_lua_vm *s;
  int argc;
  char **argv;
  int *exit_code;
  struct mr_err *err;
  bool found;
};

static int start_main(lua_State *L)
{
  struct start *r = lua_touserdata(L, 1);
  struct mr_lua_vm *s = r->s;
  lua_settop(L, 0);
  mr_lua_gen_push(L, s->cur);
  mr_lua_entry(L, s, "main");
  if (s->o.program)
    lua_pushstring(L, s->o.program);
  else
    lua_getfield(L, 1, "main");
  if (lua_isnil(L, -1)) return 0;
  r->found = true;
  mr_lua_gen_push(L, s->cur);
  lua_createtable(L, r->argc, 1);
  for (int i = 0; i < r->argc; i++) {
    lua_pushstring(L, r->argv[i]);
    lua_rawseti(L, -2, i);
  }
  struct mr_lua_task *t = mr_lua_task_new(L, s, s->cur, MR_TASK_MAIN, 3, "rig.main");
  t->finish = main_finish;
  t->fail = main_fail;
  t->exit_code = r->exit_code;
  t->err = r->err;
  return 0;
}

int mr_lua_vm_main(struct mr_lua_vm *s, int argc, char **argv, int *exit_code, struct mr_err *err)
{
  struct start r = {s, argc, argv, exit_code, err, false};
  char msg[384];
  if (!s->cur) return mr_lua_err(err, MR_E_STATE, "no scripts are loaded");
  s->main_done = false;
  int rc = mr_lua_protect(s, start_main, &r, msg, sizeof msg);
  if (rc) return mr_lua_err(err, rc, "%s", msg);
  if (!r.found) return mr_lua_err(err, MR_E_NOTFOUND, "no script calls rig.main(function(args) ... end)");
  return MR_OK;
}

/* ----------------------------------------------------------------- closing */

static void on_barrier(void *ud)
{
  struct mr_lua_vm *s = ud;
  s->outstanding--;
}

/* What the core queued for our records must be dispatched before they are freed; the queue is in order. */
static void barrier(struct mr_lua_vm *s)
{
  if (s->ext->post(s->rt, on_barrier, s) == MR_OK) s->outstanding++;
}

static void settle(struct mr_lua_vm *s, bool tasks)
{
  int64_t end = mr_lua_mono_us() + (int64_t)CLOSE_MS * 1000;
  while ((tasks ? s->tasks != NULL : s->outstanding > 0) && mr_lua_mono_us() < end) {
    if (tasks) mr_lua_run_ready(s);
    if (tasks ? s->tasks == NULL : s->outstanding == 0) break;
    if (mr_dispatch(s->rt, DISPATCH_MAX, 0) < 0) break;
    if (!s->ready) mr_wait(s->rt, 20);
  }
}

static void end_tasks(struct mr_lua_vm *s)
{
  for (struct mr_lua_task *t = s->tasks; t; t = t->next) {
    if (t->kind == MR_TASK_MAIN) t->exit_code = &s->late_code, t->err = &s->late_err; /* its caller is gone */
    mr_lua_task_cancel(t, "the program is closing");
  }
  settle(s, true);
  for (struct mr_lua_task *t = s->tasks; t; t = t->next) { /* those that do not care */
    struct mr_lua_pend *p = t->pend;
    t->pend = NULL;
    t->fail(t, "the program is closing");
    if (!p) continue;
    p->task = NULL;
    p->undo(p);
  }
}

void mr_lua_vm_end(struct mr_lua_vm **ps)
{
  struct mr_lua_vm *s = *ps;
  *ps = NULL;
  s->closing = true;
  if (s->L) {
    if (s->listens) s->ext->on_control(s->rt, NULL, NULL);
    mr_lua_vm_refuse_control(s, "the program is closing");
    mr_lua_recs_remove(s);
    mr_lua_unwatch(s);
    barrier(s);
    end_tasks(s);
    mr_lua_vm_close(s);
    mr_lua_test_close(s);
    settle(s, false);
  }
  if (s->outstanding > 0 || s->tasks) return; /* the core still holds pointers to it: leaked, once */
  while (s->recs) {
    struct mr_lua_rec *r = s->recs;
    s->recs = r->next;
    mr_lua_free(r);
  }
  while (s->gens) {
    struct mr_lua_gen *g = s->gens;
    s->gens = g->next;
    mr_lua_files_free(g->files);
    mr_lua_free(g);
  }
  mr_lua_free(s);
}
