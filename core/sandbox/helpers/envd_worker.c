/*
 * envd_worker - a child for each file tool: a file system that hangs, or a pattern that never ends, stops
 * that child alone, and it is killed when its time is over. The child is in the jail before it looks at
 * anything, holds no fd but its pipe, and is as unreadable for the payload as envd itself.
 *
 * It answers on the pipe with the content (a JSON array) and one more byte, 0 or 1, for is_error; without
 * that byte the answer is not whole and an error is given instead.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "envd.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

enum { GOT_MAX = 28 << 20, GRACE_MS = 2000 };

static const char *const names[] = {"bash", "read", "write", "edit", "glob", "grep"};

bool workers_free(const struct envd *e)
{
  for (int i = 0; i < ENVD_WORKERS; i++)
    if (!e->workers[i].call) return true;
  return false;
}

static bool put_all(int fd, const char *p, size_t n)
{
  while (n) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) return false;
    p += w;
    n -= (size_t)w;
  }
  return true;
}

__attribute__((noreturn)) static void work(struct envd *e, struct call *c, int out)
{
  static void (*const tools[])(struct tool_run *) = {NULL,      tool_read, tool_write,
                                                     tool_edit, tool_glob, tool_grep};
  struct tool_run r = {.e = e,
                       .input = c->input,
                       .name = names[c->tool],
                       .timeout_ms = c->timeout_ms,
                       .deadline = envd_now() + c->timeout_ms,
                       .content = {.max = GOT_MAX}};
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  umask(022);
  if (!jail_enter(&e->jail, false) || dup2(out, 0) < 0) _exit(1);
  syscall(SYS_close_range, 3, ~0U, 0);
  tools[c->tool](&r);
  char last = r.is_error ? '1' : '0';
  _exit(r.content.failed || !put_all(0, r.content.p, r.content.n) || !put_all(0, &last, 1));
}

void worker_start(struct envd *e, struct call *c)
{
  struct worker *w = e->workers;
  int fds[2];
  while (w->call)
    w++;
  if (!c->timeout_ms) c->timeout_ms = e->cfg.file_ms;
  if (pipe2(fds, O_CLOEXEC)) {
    call_answer_text(e, c, true, "%s: %s", names[c->tool], strerror(errno));
    return;
  }
  pid_t pid = fork();
  if (!pid) work(e, c, fds[1]);
  int err = errno;
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    call_answer_text(e, c, true, "%s: no process for it: %s", names[c->tool], strerror(err));
    return;
  }
  fcntl(fds[0], F_SETFL, O_NONBLOCK);
  /* glob and grep end by themselves with what they found; this is for when they cannot. */
  int64_t grace = c->tool == TOOL_GLOB || c->tool == TOOL_GREP ? GRACE_MS : 0;
  *w = (struct worker){.pid = pid,
                       .fd = fds[0],
                       .call = c,
                       .got = {.max = GOT_MAX + 65536},
                       .kill_at = envd_now() + c->timeout_ms + grace};
}

/* Frees the slot; whatever still runs is killed and reaped later. */
static struct call *release(struct worker *w)
{
  struct call *c = w->call;
  if (w->pid > 0) kill(w->pid, SIGKILL);
  close(w->fd);
  ebuf_free(&w->got);
  *w = (struct worker){.fd = -1};
  return c;
}

void worker_on_data(struct envd *e, int i)
{
  struct worker *w = &e->workers[i];
  ssize_t n;
  for (;;) {
    if (!ebuf_room(&w->got, 65536)) break;
    n = read(w->fd, w->got.p + w->got.n, 65536);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) break;
    w->got.n += (size_t)n;
  }
  struct ebuf got = w->got;
  w->got = (struct ebuf){0};
  struct call *c = release(w);
  char last = got.n && !got.failed ? got.p[got.n - 1] : 0;
  if (last == '0' || last == '1') {
    got.n--;
    call_answer(e, c, &got, last == '1');
  } else {
    ebuf_free(&got);
    call_answer_text(e, c, true, "%s: it ended without a result: it was killed, or ran out of memory",
                     names[c->tool]);
  }
}

void worker_on_exit(struct envd *e, pid_t pid)
{
  for (int i = 0; i < ENVD_WORKERS; i++)
    if (e->workers[i].pid == pid) e->workers[i].pid = 0; /* what it wrote is still in the pipe */
}

void worker_on_time(struct envd *e, int i)
{
  struct call *c = release(&e->workers[i]);
  call_answer_text(e, c, true, "%s: timed out after %lldms", names[c->tool], (long long)c->timeout_ms);
}

void worker_cancel(struct envd *e, struct call *c)
{
  for (int i = 0; i < ENVD_WORKERS; i++) {
    if (e->workers[i].call != c) continue;
    release(&e->workers[i]);
    call_cancelled(e, c);
    return;
  }
}
