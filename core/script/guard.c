/*
 * guard - the thread that runs a VM, and the caller of mr_script_loop or mr_script_run_main, who watches it.
 *
 * The count hook never fires inside a C function: one string.find with a bad pattern can hold up all tasks
 * for ever. So the VM has a worker thread of its own. When its beat stands still for opts.stuck_ms in user
 * code, the watcher gives the VM up: it settles everybody who waits for it, makes a fresh VM with the files
 * of the same generation and gives that a new worker. A few times; then the loop ends with an error. And
 * when the program shall stop, the watcher does not wait for a worker that is stuck (at io.read, perhaps).
 * While rig.main runs a VM is only given up for that: reading from a terminal is its right.
 *
 * Invariant: vm->slice says who may touch the VM's struct. IN: only the worker (and there only user code and
 * natives run). The watcher gives up by turning IN into GONE, once; from then on the struct is the
 * watcher's, natives raise, and the worker, when it comes out of the slice, ends without a word
 * (mr_lua_slice_end). What Lua holds stays with it, and is never freed.
 */
#include <errno.h>
#include <stdio.h>
#include <time.h>
#include "script/script_t.h"

enum { LOOK_MS = 100, STOP_MS = 2000, GIVE_UP_MAX = 5 };

/* ------------------------------------------------------------------ worker */

struct job {
  struct mr_script *h;
  struct mr_lua_vm *vm;
  bool main, fresh;
};

static int work_on(struct job *j)
{
  struct mr_lua_vm *s = j->vm;
  struct mr_err err = {.size = sizeof err};
  int rc = MR_OK;
  s->once = j->main && !j->h->o.test; /* tests of schedules run under rig.main */
  if (j->fresh && mr_lua_vm_load(s, &err) != MR_OK)
    mr_lua_log(s, MR_LOG_ERROR, "script", "no handler is left; mend the scripts and reload");
  while (rc == MR_OK && !(j->main && s->main_done) && !atomic_load(&j->h->stop))
    rc = mr_lua_vm_turn(s);
  if (rc == MR_OK && !(j->main && s->main_done)) rc = MR_E_CANCELLED;
  return rc;
}

static void *worker(void *arg)
{
  struct job *j = arg;
  struct mr_script *h = j->h;
  int rc = work_on(j); /* does not come back when the VM was given up */
  mr_lua_free(j);
  pthread_mutex_lock(&h->lock);
  h->rc = rc;
  h->over = true;
  pthread_cond_signal(&h->cond);
  pthread_mutex_unlock(&h->lock);
  return NULL;
}

/* ----------------------------------------------------------------- watching */

/* Waits a little; true when the worker has ended. */
static bool over(struct mr_script *h)
{
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += LOOK_MS * 1000000L;
  if (until.tv_nsec >= 1000000000L) until.tv_sec++, until.tv_nsec -= 1000000000L;
  pthread_mutex_lock(&h->lock);
  while (!h->over)
    if (pthread_cond_timedwait(&h->cond, &h->lock, &until) == ETIMEDOUT) break;
  bool is = h->over;
  pthread_mutex_unlock(&h->lock);
  return is;
}

static bool give_up(struct mr_lua_vm *s, const char *why)
{
  int in = MR_SLICE_IN;
  char where[200] = "", line[400];
  lua_State *L = s->current ? s->current->co : s->L; /* they stand still */
  mr_lua_describe(L, where, sizeof where);
  if (!atomic_compare_exchange_strong(&s->slice, &in, MR_SLICE_GONE)) return false;
  snprintf(line, sizeof line, "%s: %s in %s", s->current ? s->current->label : "loading", why, where);
  mr_lua_log(s, MR_LOG_ERROR, "script", line);
  s->h->given_up++;
  mr_lua_tasks_drop(s, "the scripts got stuck and were started again");
  mr_lua_streams_cancel(s);
  mr_lua_https_cancel(s);
  mr_lua_news_close(s);
  mr_lua_dbs_close(s);
  mr_lua_unwatch(s);
  mr_lua_vm_refuse_control(s, "the scripts got stuck and were started again");
  return true;
}

/* What has been seen of a worker. */
struct seen {
  unsigned beat;
  int64_t since_us, stop_us;
};

enum verdict { GO_ON, STUCK, TOO_LATE };

static enum verdict look(struct mr_script *h, struct seen *x, bool main)
{
  struct mr_lua_vm *s = h->vm;
  int64_t now = mr_lua_mono_us();
  unsigned beat = atomic_load(&s->beat);
  bool in = atomic_load(&s->slice) == MR_SLICE_IN;
  if (!in || beat != x->beat) {
    x->beat = beat;
    x->since_us = now;
  }
  if (atomic_load(&h->stop) && !x->stop_us) x->stop_us = now;
  if (x->stop_us && in && now - x->stop_us > STOP_MS * 1000LL) return TOO_LATE;
  if ((main && !h->o.test) || !in || now - x->since_us <= h->o.stuck_ms * 1000LL) return GO_ON;
  return main ? TOO_LATE : STUCK; /* a test file is not started again */
}

static int start(struct mr_script *h, pthread_t *thread, bool main, bool fresh)
{
  struct job *j = mr_lua_alloc(sizeof *j);
  if (!j) return MR_E_NOMEM;
  *j = (struct job){h, h->vm, main, fresh};
  h->over = false;
  if (pthread_create(thread, NULL, worker, j) == 0) {
    pthread_setname_np(*thread, "mr-script");
    return MR_OK;
  }
  mr_lua_free(j);
  return MR_E_UNAVAILABLE;
}

/* The fresh VM takes the place of the one that was given up. */
static int replace(struct mr_script *h)
{
  struct mr_err err = {.size = sizeof err};
  struct mr_lua_vm *vm = NULL, *before = h->vm->before ? h->vm->before : h->vm; /* whose records the core has */
  if (h->given_up > GIVE_UP_MAX) {
    mr_lua_log(before, MR_LOG_ERROR, "script", "the scripts got stuck too often");
    return MR_E_INTERNAL;
  }
  int rc = mr_lua_vm_new(&vm, h, before, &err);
  if (rc)
    mr_lua_log(before, MR_LOG_ERROR, "script", err.message);
  else
    vm->hung = before != h->vm, h->vm = vm;
  return rc;
}

static const char *why_of(const struct mr_script *h, enum verdict v)
{
  return v == STUCK || !atomic_load(&h->stop) ? "stuck" : "still busy, and the program shall stop,";
}

int mr_lua_guard(struct mr_script *h, bool main)
{
  pthread_t thread;
  int rc = start(h, &thread, main, false);
  struct seen x = {0, mr_lua_mono_us(), 0};
  while (rc == MR_OK) {
    if (over(h)) {
      pthread_join(thread, NULL);
      return h->rc;
    }
    enum verdict v = look(h, &x, main);
    if (v == GO_ON || !give_up(h->vm, why_of(h, v))) continue;
    pthread_detach(thread);
    if (v == TOO_LATE) return MR_E_CANCELLED;
    rc = replace(h);
    if (rc == MR_OK) rc = start(h, &thread, main, true);
    x = (struct seen){0, mr_lua_mono_us(), 0};
  }
  return rc;
}
