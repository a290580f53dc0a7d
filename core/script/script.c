/*
 * script - what core/main calls: options, opening, the two ways to run, the end. The VM itself is run.c's,
 * the thread it runs on guard.c's.
 *
 * Any one thread, except mr_script_stop and mr_script_ask_reload (any).
 */
#include <stdio.h>
#include <time.h>
#include "script/script_t.h"

/* ----------------------------------------------------------------- options */

static void free_opts(struct mr_script_opts *o)
{
  for (size_t i = 0; i < o->npaths; i++)
    mr_lua_free((char *)o->paths[i]);
  mr_lua_free((void *)o->paths);
  mr_lua_free((char *)o->root);
  mr_lua_free((char *)o->offline_model);
  mr_lua_free((char *)o->lua_path);
  mr_lua_free((char *)o->program);
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
  d->program = o->program ? mr_lua_strdup(o->program) : NULL;
  if (!paths || (o->root && !d->root) || (o->offline_model && !d->offline_model) ||
      (o->lua_path && !d->lua_path) || (o->program && !d->program))
    return MR_E_NOMEM;
  for (size_t i = 0; i < o->npaths; i++) {
    paths[i] = mr_lua_strdup(o->paths[i]);
    if (!paths[i]) return MR_E_NOMEM;
    d->npaths++;
  }
  if (!d->memory_max) d->memory_max = (size_t)256 << 20;
  if (!d->load_ms) d->load_ms = 2000;
  if (!d->burst_ms) d->burst_ms = 10000;
  if (!d->stuck_ms) d->stuck_ms = 30000;
  if (!d->tasks_max) d->tasks_max = 10000;
  return MR_OK;
}

/* ----------------------------------------------------------------- opening */

static void free_script(struct mr_script *h)
{
  free_opts(&h->o);
  pthread_cond_destroy(&h->cond);
  pthread_mutex_destroy(&h->lock);
  mr_lua_free(h);
}

static int make(struct mr_script **out, struct mr_runtime *rt, const struct mr_script_opts *o,
                struct mr_err *err)
{
  struct mr_script *h = mr_lua_alloc(sizeof *h);
  pthread_condattr_t a;
  *out = NULL;
  if (!h) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  h->rt = rt;
  h->ext = mr_ext();
  atomic_init(&h->stop, 0);
  atomic_init(&h->asked, 0);
  pthread_mutex_init(&h->lock, NULL);
  pthread_condattr_init(&a);
  pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
  pthread_cond_init(&h->cond, &a);
  pthread_condattr_destroy(&a);
  int rc = copy_opts(&h->o, o);
  if (rc)
    mr_lua_err(err, rc, "out of memory");
  else
    rc = mr_lua_vm_new(&h->vm, h, NULL, err);
  if (rc)
    free_script(h);
  else
    *out = h;
  return rc;
}

static void unmake(struct mr_script *h)
{
  if (h->vm) mr_lua_vm_end(&h->vm);
  free_script(h);
}

int mr_script_open(struct mr_script **out, struct mr_runtime *rt, const struct mr_script_opts *o,
                   struct mr_err *err)
{
  struct mr_script *h;
  int rc = make(&h, rt, o, err);
  *out = NULL;
  if (rc) return rc;
  rc = mr_lua_vm_load(h->vm, err);
  if (rc && h->o.watch && !h->vm->cur) rc = MR_OK; /* waits for the files to be mended */
  if (rc)
    unmake(h);
  else
    *out = h;
  return rc;
}

int mr_script_lint(struct mr_runtime *rt, const struct mr_script_opts *o, const char *stored,
                   void (*fn)(void *ud, const char *p, size_t n), void *ud, struct mr_err *err)
{
  struct mr_script *h;
  int rc = make(&h, rt, o, err);
  if (rc) return rc;
  rc = mr_lua_lint(h->vm, stored, fn, ud, err);
  unmake(h);
  return rc;
}

int64_t mr_script_generation(const struct mr_script *h)
{
  return h->vm->cur ? h->vm->cur->number : 0;
}

int mr_script_reload(struct mr_script *h, int rollback, struct mr_err *err)
{
  return mr_lua_vm_reload(h->vm, rollback, err);
}

/* ----------------------------------------------------------------- running */

int mr_script_loop(struct mr_script *h)
{
  int rc = mr_lua_guard(h, false);
  return rc == MR_E_CLOSED || rc == MR_E_CANCELLED ? MR_OK : rc;
}

int mr_script_run_main(struct mr_script *h, int argc, char **argv, int *exit_code, struct mr_err *err)
{
  struct mr_err own = {.size = sizeof own};
  *exit_code = 1;
  if (!err) err = &own;
  int rc = mr_lua_vm_main(h->vm, argc, argv, exit_code, err);
  if (rc) return rc;
  rc = mr_lua_guard(h, true);
  if (rc == MR_E_CLOSED || rc == MR_E_CANCELLED) rc = mr_lua_err(err, MR_E_CANCELLED, "stopped");
  return rc;
}

static void nothing(void *ud)
{
  (void)ud;
}

void mr_script_stop(struct mr_script *h)
{
  atomic_store(&h->stop, 1);
  h->ext->post(h->rt, nothing, NULL);
}

void mr_script_ask_reload(struct mr_script *h)
{
  atomic_store(&h->asked, 1);
  h->ext->post(h->rt, nothing, NULL);
}

int mr_script_close(struct mr_script **ph)
{
  struct mr_script *h = *ph;
  *ph = NULL;
  if (!h) return MR_OK;
  bool stuck = atomic_load(&h->vm->slice) == MR_SLICE_GONE;
  if (!stuck) mr_lua_vm_end(&h->vm);
  if (h->given_up == 0) free_script(h); /* else their threads may still look at it */
  return stuck ? MR_E_BUSY : MR_OK;
}
