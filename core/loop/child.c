/*
 * child.c - one spawning thread, pidfds on the loop; see child.h. The thread lives as long as the
 * runtime, because a parent-death signal is tied to the thread that spawned.
 */
#include "loop/child.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif
enum { CHILD_ARGS_MAX = 256, CHILD_FDS_MAX = 16, KILL_WAIT_MS = 1000 };

struct mr_child {
  struct mr_childs *cs;
  struct mr_child *next, *prev; /* all children, loop thread */
  struct mr_child *queue_next;  /* waiting to be spawned */
  struct mr_post post;          /* the spawner's answer */
  struct mr_child_opts o;       /* pointers into arena */
  struct mr_arena *arena;
  struct event *ev; /* the pidfd */
  int pid, pidfd, error;
  bool spawned, released, over;
  bool calling; /* inside a callback, which may release it */
};

struct mr_childs {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  pthread_t thread;
  pthread_mutex_t lock; /* head, tail, closing */
  pthread_cond_t more;
  struct mr_child *head, **tail;
  struct mr_child *all;
  bool closing;
};

static void child_free(struct mr_child *c)
{
  if (c->next) c->next->prev = c->prev;
  if (c->prev)
    c->prev->next = c->next;
  else
    c->cs->all = c->next;
  if (c->ev) event_free(c->ev);
  if (c->pidfd >= 0) close(c->pidfd);
  mr_arena_free(&c->arena);
  mr_mem_free(c->cs->mem, c);
}

/* ---- spawning thread ---- */

/* The child's descriptor i becomes fds[i]; two steps, because a source may sit on another's target. */
static int file_actions(struct mr_child *c, posix_spawn_file_actions_t *fa, int *dups, int *ndups)
{
  for (int i = 0; i < c->o.nfds; i++) {
    int fd = c->o.fds[i];
    if (fd < 0) {
      if (posix_spawn_file_actions_addopen(fa, i, "/dev/null", O_RDWR, 0)) return ENOMEM;
      continue;
    }
    dups[*ndups] = fcntl(fd, F_DUPFD_CLOEXEC, 64);
    if (dups[*ndups] < 0) return errno;
    if (posix_spawn_file_actions_adddup2(fa, dups[(*ndups)++], i)) return ENOMEM;
  }
  return posix_spawn_file_actions_addclosefrom_np(fa, c->o.nfds);
}

/* The pidfd (close-on-exec from birth). ESRCH: it has ended and a waitpid(-1) of the host took it. */
static int watch_pid(struct mr_child *c)
{
  int e;

  c->pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0);
  if (c->pidfd >= 0 || errno == ESRCH) return 0;
  e = errno; /* no descriptor left: better no process than one that nobody watches */
  kill(c->pid, SIGKILL);
  waitpid(c->pid, NULL, 0);
  return e;
}

static int spawn(struct mr_child *c)
{
  static char *const no_env[] = {NULL};
  posix_spawn_file_actions_t fa;
  posix_spawnattr_t at;
  sigset_t none, dfl;
  char self[64];
  const char *path = c->o.argv[0];
  int dups[CHILD_FDS_MAX], ndups = 0, e, exe = -1;

  posix_spawn_file_actions_init(&fa);
  posix_spawnattr_init(&at);
  sigemptyset(&none);
  sigfillset(&dfl);
  sigdelset(&dfl, SIGKILL);
  sigdelset(&dfl, SIGSTOP);
  posix_spawnattr_setsigmask(&at, &none);
  posix_spawnattr_setsigdefault(&at, &dfl);
  posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  e = file_actions(c, &fa, dups, &ndups);
  if (e == 0 && c->o.exe_fd >= 0) {
    /* closefrom runs before exec, so name the descriptor through this process. */
    exe = c->o.exe_fd;
    snprintf(self, sizeof self, "/proc/%d/fd/%d", (int)getpid(), exe);
    path = self;
  }
  if (e == 0)
    e = posix_spawn(&c->pid, path, &fa, &at, (char *const *)(uintptr_t)c->o.argv,
                    c->o.envp ? (char *const *)(uintptr_t)c->o.envp : no_env);
  for (int i = 0; i < ndups; i++)
    close(dups[i]);
  posix_spawn_file_actions_destroy(&fa);
  posix_spawnattr_destroy(&at);
  return e ? e : watch_pid(c);
}

static void on_spawned(struct mr_post *p);

static void *spawner(void *arg)
{
  struct mr_childs *cs = arg;
  struct mr_child *c;

  pthread_mutex_lock(&cs->lock);
  while (!cs->closing) {
    if (!cs->head) {
      pthread_cond_wait(&cs->more, &cs->lock);
      continue;
    }
    c = cs->head;
    cs->head = c->queue_next;
    if (!cs->head) cs->tail = &cs->head;
    pthread_mutex_unlock(&cs->lock);
    c->error = spawn(c);
    c->post.fn = on_spawned;
    mr_loop_post(cs->loop, &c->post);
    pthread_mutex_lock(&cs->lock);
  }
  pthread_mutex_unlock(&cs->lock);
  return NULL;
}

/* ---- loop thread ---- */

static void on_exit_event(evutil_socket_t fd, short what, void *ud);

/* Kills it and leaves no zombie; a process that does not die at once is left to init. */
static void end_now(struct mr_child *c)
{
  struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
  siginfo_t si;

  if (syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0) == 0 && poll(&p, 1, KILL_WAIT_MS) == 1)
    waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG);
}

static void finish(struct mr_child *c)
{
  siginfo_t si = {0};
  bool known =
      c->pidfd >= 0 && waitid(P_PIDFD, (id_t)c->pidfd, &si, WEXITED | WNOHANG) == 0 && si.si_pid == c->pid;

  c->over = true;
  if (c->ev) event_del(c->ev);
  c->calling = true;
  if (!c->released && c->o.ended)
    c->o.ended(c->o.ud, c, known, known && si.si_code == CLD_EXITED ? si.si_status : -1,
               known && si.si_code != CLD_EXITED ? si.si_status : 0);
  c->calling = false;
  if (c->released) child_free(c);
}

/* Out of libevent's callback first: the transition belongs to the drain. */
static void on_exit_post(struct mr_post *p)
{
  finish(MR_OF(p, struct mr_child, post));
}

static void on_exit_event(evutil_socket_t fd, short what, void *ud)
{
  struct mr_child *c = ud;
  (void)fd;
  (void)what;
  event_del(c->ev);
  c->post.fn = on_exit_post;
  mr_loop_post(c->cs->loop, &c->post);
}

static void on_spawned(struct mr_post *p)
{
  struct mr_child *c = MR_OF(p, struct mr_child, post);
  struct mr_err err;
  int code = MR_OK;

  c->spawned = true;
  c->calling = true;
  if (c->error == 0 && c->pidfd >= 0) {
    c->ev = event_new(mr_loop_base(c->cs->loop), c->pidfd, EV_READ, on_exit_event, c);
    if (!c->ev || event_add(c->ev, NULL) != 0) {
      c->error = ENOMEM;
      end_now(c);
    }
  }
  if (c->error) {
    errno = c->error;
    code = mr_err_errno(&err, c->o.argv[0]);
    c->over = true;
  }
  if (!c->released && c->o.started)
    c->o.started(c->o.ud, c, code, code == MR_OK ? c->pid : -1, code == MR_OK ? NULL : &err);
  c->calling = false;
  if (c->over && c->released)
    child_free(c);
  else if (!c->over && c->pidfd < 0)
    finish(c);
}

static int count(const char *const *v)
{
  int n = 0;
  while (v && v[n] && n <= CHILD_ARGS_MAX)
    n++;
  return n;
}

static const char *const *copy_strings(struct mr_arena *a, const char *const *v)
{
  int n = count(v);
  const char **out;

  out = mr_arena_alloc(a, ((size_t)n + 1) * sizeof *out);
  for (int i = 0; out && i < n; i++)
    if (!(out[i] = mr_arena_str(a, mr_str_c(v[i])).p)) return NULL;
  return out;
}

int mr_child_spawn(struct mr_childs *cs, const struct mr_child_opts *o, struct mr_child **out,
                   struct mr_err *err)
{
  struct mr_child *c;
  int *fds;

  *out = NULL;
  if (count(o->argv) > CHILD_ARGS_MAX || count(o->envp) > CHILD_ARGS_MAX || o->nfds > CHILD_FDS_MAX)
    return mr_err_set(err, MR_E_INVALID, NULL, "too many arguments for a child process");
  c = mr_mem_zalloc(cs->mem, sizeof *c);
  if (!c || !(c->arena = mr_arena_new(cs->mem, 512))) {
    mr_mem_free(cs->mem, c);
    return mr_err_nomem(err);
  }
  c->cs = cs;
  c->pidfd = -1;
  c->o = *o;
  c->next = cs->all;
  if (c->next) c->next->prev = c;
  cs->all = c;
  fds = mr_arena_alloc(c->arena, CHILD_FDS_MAX * sizeof *fds);
  c->o.argv = copy_strings(c->arena, o->argv);
  if (o->envp) c->o.envp = copy_strings(c->arena, o->envp);
  if (!fds || !c->o.argv || (o->envp && !c->o.envp)) {
    child_free(c);
    return mr_err_nomem(err);
  }
  for (int i = 0; i < o->nfds; i++)
    fds[i] = o->fds[i];
  c->o.fds = fds;
  pthread_mutex_lock(&cs->lock);
  if (cs->closing) {
    pthread_mutex_unlock(&cs->lock);
    child_free(c);
    return mr_err_set(err, MR_E_CLOSED, NULL, "no process is started any more: closing");
  }
  c->queue_next = NULL;
  *cs->tail = c;
  cs->tail = &c->queue_next;
  pthread_cond_signal(&cs->more);
  pthread_mutex_unlock(&cs->lock);
  *out = c;
  return MR_OK;
}

int mr_child_kill(struct mr_child *c, int sig)
{
  if (!c->spawned || c->over || c->pidfd < 0) return MR_E_STATE;
  return syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0) == 0 ? MR_OK : MR_E_STATE;
}

void mr_child_release(struct mr_child **cp)
{
  struct mr_child *c = *cp;
  if (!c) return;
  c->released = true;
  *cp = NULL;
  if (c->over && !c->calling) child_free(c);
}

int mr_childs_new(struct mr_childs **out, struct mr_loop *l, struct mr_err *err)
{
  const struct mr_mem *m = &mr_loop_sys(l)->mem;
  struct mr_childs *cs = mr_mem_zalloc(m, sizeof *cs);
  sigset_t all, old;
  int e;

  *out = NULL;
  if (!cs) return mr_err_nomem(err);
  cs->loop = l;
  cs->mem = m;
  cs->tail = &cs->head;
  pthread_mutex_init(&cs->lock, NULL);
  pthread_cond_init(&cs->more, NULL);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  e = pthread_create(&cs->thread, NULL, spawner, cs);
  pthread_sigmask(SIG_SETMASK, &old, NULL);
  if (e) {
    mr_mem_free(m, cs);
    errno = e;
    return mr_err_errno(err, "spawning thread");
  }
  pthread_setname_np(cs->thread, "mr-spawn");
  *out = cs;
  return MR_OK;
}

void mr_childs_free(struct mr_childs **csp)
{
  struct mr_childs *cs = *csp;
  if (!cs) return;
  pthread_mutex_lock(&cs->lock);
  cs->closing = true;
  pthread_cond_signal(&cs->more);
  pthread_mutex_unlock(&cs->lock);
  pthread_join(cs->thread, NULL);
  mr_loop_run_posts(cs->loop);
  while (cs->all) {
    if (cs->all->o.kill_on_free && cs->all->pidfd >= 0 && !cs->all->over) end_now(cs->all);
    child_free(cs->all);
  }
  pthread_cond_destroy(&cs->more);
  pthread_mutex_destroy(&cs->lock);
  mr_mem_free(cs->mem, cs);
  *csp = NULL;
}
