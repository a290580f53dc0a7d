/*
 * script - opening, the script thread's loop, rig.main, control commands, closing.
 *
 * The loop: wait for the doorbell, dispatch a bounded number of callbacks (they only settle and make
 * ready), carry out what was asked for (control, changed files), resume what is ready. mr_script_stop sets
 * a flag that the count hook sees too, and posts, which wakes the wait.
 *
 * Script thread, except mr_script_stop and mr_script_ask_reload.
 */
#include <stdio.h>
#include "script/script_t.h"

enum { DISPATCH_MAX = 256, CLOSE_MS = 2000 };

/* ----------------------------------------------------------------- opening */

static void on_control(void *ud, const char *command, const struct mr_val *arg, uint64_t id)
{
  struct mr_script *s = ud;
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

static void free_opts(struct mr_script_opts *o)
{
  for (size_t i = 0; i < o->npaths; i++) mr_lua_free((char *)o->paths[i]);
  mr_lua_free((void *)o->paths);
  mr_lua_free((char *)o->root);
  mr_lua_free((char *)o->offline_model);
  mr_lua_free((char *)o->lua_path);
}

static int copy_opts(struct mr_script_opts *d, const struct mr_script_opts *o)
{
  char **paths = mr_lua_alloc((o->npaths + 1) * sizeof *paths);
  *d = *o;
  d->paths = (const char *const *)paths;
  d->npaths = 0;
  d->root = o->root ? mr_lua_strdup(o->root) : NULL;
  d->offline_model = o->offline_model ? mr_lua_strdup(o->offline_model) : NULL;
  d->lua_path = o->lua_path ? mr_lua_strdup(o->lua_path) : NULL;
  if (!paths || (o->root && !d->root) || (o->offline_model && !d->offline_model) || (o->lua_path && !d->lua_path))
    return MR_E_NOMEM;
  for (size_t i = 0; i < o->npaths; i++) {
    paths[i] = mr_lua_strdup(o->paths[i]);
    if (!paths[i]) return MR_E_NOMEM;
    d->npaths++;
  }
  if (!d->memory_max) d->memory_max = (size_t)256 << 20;
  if (!d->load_ms) d->load_ms = 2000;
  if (!d->burst_ms) d->burst_ms = 10000;
  if (!d->tasks_max) d->tasks_max = 10000;
  return MR_OK;
}

int mr_script_open(struct mr_script **out, struct mr_runtime *rt, const struct mr_script_opts *o,
                   struct mr_err *err)
{
  struct mr_script *s = mr_lua_alloc(sizeof *s);
  int rc = MR_E_NOMEM;
  *out = NULL;
  if (!s) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  s->rt = rt;
  s->ext = mr_ext();
  atomic_init(&s->stop, 0);
  rc = copy_opts(&s->o, o);
  if (rc) {
    mr_lua_err(err, rc, "out of memory");
    goto out;
  }
  rc = mr_lua_vm_open(s, err);
  if (rc) goto out;
  s->ext->on_control(rt, on_control, s);
  rc = mr_lua_gen_reload(s, err);
  if (rc && s->o.watch) rc = MR_OK;
  if (rc) goto out;
  mr_lua_watch(s);
  *out = s;
  s = NULL;
out:
  if (s) mr_script_close(&s);
  return rc;
}

int64_t mr_script_generation(const struct mr_script *s)
{
  return s->cur ? s->cur->number : 0;
}

/* ----------------------------------------------------------------- control */

int mr_script_reload(struct mr_script *s, int rollback, struct mr_err *err)
{
  int rc = rollback ? mr_lua_gen_rollback(s, err) : mr_lua_gen_reload(s, err);
  mr_lua_watch(s);
  return rc;
}

static struct mr_str text(const char *p)
{
  return (struct mr_str){p, strlen(p)};
}

static void answer_control(struct mr_script *s, int rc)
{
  const struct mr_ext *x = s->ext;
  struct mr_build *b = x->build(s->rt);
  struct mr_doc *doc = NULL;
  char *json = NULL;
  size_t n = 0;
  if (b) {
    x->b_open(b, 0);
    x->b_key(b, text("generation"));
    x->b_int(b, s->cur ? s->cur->number : 0);
    x->b_key(b, text("previous"));
    if (s->prev) x->b_int(b, s->prev->number); else x->b_null(b);
    x->b_key(b, text("tasks"));
    x->b_int(b, s->ntasks);
    x->b_key(b, text("memory_bytes"));
    x->b_int(b, (int64_t)s->mem_used);
    x->b_key(b, text("error"));
    if (s->last_error[0]) x->b_str(b, text(s->last_error)); else x->b_null(b);
    x->b_close(b);
    x->build_done(&b, &doc, NULL);
  }
  if (doc) x->write(s->rt, x->doc_root(doc), 0, &json, &n);
  x->control_done(s->rt, s->control_id, rc, json ? (struct mr_str){json, n} : text("{}"));
  mr_free(s->rt, json);
  x->doc_free(doc);
}

static void commands(struct mr_script *s)
{
  struct mr_err err = {.size = sizeof err};
  int rc = MR_OK;
  if (s->control_wanted) {
    if (strcmp(s->control, "reload") == 0)
      rc = mr_script_reload(s, 0, &err);
    else if (strcmp(s->control, "rollback") == 0)
      rc = mr_script_reload(s, 1, &err);
    else if (strcmp(s->control, "status") != 0)
      rc = MR_E_UNSUPPORTED;
    s->control_wanted = false;
    answer_control(s, rc);
  }
  if (atomic_exchange(&s->asked, 0)) mr_script_reload(s, 0, &err);
  if (s->watch_hit) {
    s->watch_hit = false;
    if (mr_lua_files_changed(s))
      mr_script_reload(s, 0, &err);
    else
      mr_lua_watch(s); /* a new directory, perhaps */
  }
}

/* -------------------------------------------------------------------- loop */

static int turn(struct mr_script *s)
{
  int rc;
  if (!s->ready) {
    rc = mr_wait(s->rt, -1);
    if (rc < 0 && rc != MR_E_TIMEOUT) return rc;
  }
  rc = mr_dispatch(s->rt, DISPATCH_MAX, 0);
  if (rc < 0) return rc;
  if (atomic_load(&s->stop)) return MR_OK;
  commands(s);
  mr_lua_run_ready(s);
  return MR_OK;
}

int mr_script_loop(struct mr_script *s)
{
  int rc = MR_OK;
  while (rc == MR_OK && !atomic_load(&s->stop)) rc = turn(s);
  return rc == MR_E_CLOSED ? MR_OK : rc;
}

static void nothing(void *ud)
{
  (void)ud;
}

void mr_script_stop(struct mr_script *s)
{
  atomic_store(&s->stop, 1);
  s->ext->post(s->rt, nothing, NULL);
}

void mr_script_ask_reload(struct mr_script *s)
{
  atomic_store(&s->asked, 1);
  s->ext->post(s->rt, nothing, NULL);
}

/* ---------------------------------------------------------------- rig.main */

static void main_finish(lua_State *L, struct mr_lua_task *t, int nres)
{
  struct mr_script *s = t->s;
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

struct run { struct mr_script *s; int argc; char **argv; int *exit_code; struct mr_err *err; bool found; };

static int start_main(lua_State *L)
{
  struct run *r = lua_touserdata(L, 1);
  struct mr_script *s = r->s;
  lua_settop(L, 0);
  mr_lua_gen_push(L, s->cur);
  mr_lua_entry(L, s, "main");
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

int mr_script_run_main(struct mr_script *s, int argc, char **argv, int *exit_code, struct mr_err *err)
{
  struct mr_err own = {.size = sizeof own};
  struct run r = {s, argc, argv, exit_code, err ? err : &own, false};
  char msg[384];
  int rc = MR_OK;
  *exit_code = 1;
  if (!s->cur) return mr_lua_err(err, MR_E_STATE, "no scripts are loaded");
  rc = mr_lua_protect(s, start_main, &r, msg, sizeof msg);
  if (rc) return mr_lua_err(err, rc, "%s", msg);
  if (!r.found) return mr_lua_err(err, MR_E_NOTFOUND, "no script calls rig.main(function(args) ... end)");
  s->main_done = false;
  while (rc == MR_OK && !s->main_done && !atomic_load(&s->stop)) rc = turn(s);
  if (s->main_done) return MR_OK;
  for (struct mr_lua_task *t = s->tasks; t; t = t->next) { /* their pointers are ours */
    if (t->kind != MR_TASK_MAIN) continue;
    t->exit_code = &s->late_code;
    t->err = &s->late_err;
  }
  if (rc == MR_OK || rc == MR_E_CLOSED) rc = mr_lua_err(err, MR_E_CANCELLED, "stopped");
  return rc;
}

/* ----------------------------------------------------------------- closing */

static void on_barrier(void *ud)
{
  struct mr_script *s = ud;
  s->outstanding--;
}

/* What the core queued for our records must be dispatched before they are freed; the queue is in order. */
static void barrier(struct mr_script *s)
{
  if (s->ext->post(s->rt, on_barrier, s) == MR_OK) s->outstanding++;
}

static void settle(struct mr_script *s, bool tasks)
{
  int64_t end = mr_lua_mono_us() + (int64_t)CLOSE_MS * 1000;
  while ((tasks ? s->tasks != NULL : s->outstanding > 0) && mr_lua_mono_us() < end) {
    if (tasks) mr_lua_run_ready(s);
    if (tasks ? s->tasks == NULL : s->outstanding == 0) break;
    if (mr_dispatch(s->rt, DISPATCH_MAX, 0) < 0) break;
    if (!s->ready) mr_wait(s->rt, 20);
  }
}

void mr_script_close(struct mr_script **ps)
{
  struct mr_script *s = *ps;
  *ps = NULL;
  if (!s) return;
  s->closing = true;
  s->ext->on_control(s->rt, NULL, NULL);
  if (s->control_wanted) answer_control(s, MR_E_CLOSED);
  s->control_wanted = false;
  mr_lua_recs_remove(s);
  mr_lua_watch(s); /* closing: takes the watches back */
  if (s->L) {
    barrier(s);
    for (struct mr_lua_task *t = s->tasks; t; t = t->next) mr_lua_task_cancel(t, "the program is closing");
    settle(s, true);
    for (struct mr_lua_task *t = s->tasks; t; t = t->next) {
      struct mr_lua_pend *p = t->pend;
      t->pend = NULL;
      t->fail(t, "the program is closing");
      if (!p) continue;
      p->task = NULL;
      p->undo(p);
    }
    mr_lua_vm_close(s);
    settle(s, false);
  }
  free_opts(&s->o);
  if (s->outstanding > 0 || s->tasks) return; /* the core still holds pointers to it: leaked, once */
  while (s->recs) {
    struct mr_lua_rec *r = s->recs;
    s->recs = r->next;
    mr_lua_free(r);
  }
  while (s->gens) {
    struct mr_lua_gen *g = s->gens;
    s->gens = g->next;
    mr_lua_free(g);
  }
  mr_lua_free(s);
}
