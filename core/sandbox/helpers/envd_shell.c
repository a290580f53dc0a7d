/*
 * envd_shell - the bash tool: one persistent shell, one command at a time (API: tools 4.2; how bash is
 * driven: envd_proc.c).
 *
 *   OFF/IDLE -> RUNNING -> ENDING -> IDLE           the status came; wait a moment for the pipe to close
 *               RUNNING -> ABORTING -> ENDING/OFF   time is over or cancelled
 *               any -> OFF                          bash ended; what it left is killed
 *
 * The invariant: a running call is answered once, when it leaves RUNNING, ENDING or ABORTING, and whenever
 * the state of the shell was lost a result says so. A command given up is killed with all other processes of
 * the sandbox, so nothing of it is left; where bash returns to its loop within half a second the shell and
 * its variables stay, else it is killed too.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "envd.h"

enum {
  END_MS = 50,
  ABORT_MS = 500,
  ABORT_TICK_MS = 25,
  CLEAR_MS = 2000,
  CLEAR_TICK_MS = 5,
  GIVE_TICK_MS = 1,
  LISTEN_MS = 3,
  DRAIN = 8 << 20
};

static const char lost_text[] = "variables, functions and the working directory of the old shell are lost";

void shell_init(struct envd *e)
{
  struct shell *s = &e->shell;
  s->status = s->out.fd = s->out.log = -1;
  for (int i = 0; i < ENVD_OUTPUTS; i++)
    e->outputs[i].fd = e->outputs[i].log = -1;
}

/* Killing takes effect a little later; the next command must find ports and files free. */
bool shell_free(struct envd *e)
{
  struct shell *s = &e->shell;
  if (s->call) return false;
  if (s->clearing && (envd_now() >= s->clearing || !proc_left(e, s->pid > 0))) s->clearing = 0;
  if (s->clearing) s->tick = envd_now() + CLEAR_TICK_MS;
  return !s->clearing;
}

static void unlink_out(struct envd *e)
{
  char path[128];
  snprintf(path, sizeof path, "%s/w/out.%u", e->run, e->shell.serial);
  unlink(path);
}

/* bash and all it started are gone, or as good as. */
static void shell_off(struct envd *e)
{
  proc_kill(e, false);
  e->shell.pid = 0;
  e->shell.state = SHELL_OFF;
  e->shell.tick = envd_now();
  e->shell.clearing = e->shell.tick + CLEAR_MS;
}

/* What bash and others say when the limit of processes was met does not say whose limit, nor how high it is. */
static void say_limit(struct envd *e, struct ebuf *out)
{
  static const char again[] = "Resource temporarily unavailable";
  const struct ebuf *t = &e->shell.tail;
  if (e->jail.nproc && t->n && memmem(t->p, t->n, again, sizeof again - 1) && memmem(t->p, t->n, "fork", 4))
    ebuf_f(out, "\n[the sandbox may have %lld processes and threads at a time]", (long long)e->jail.nproc);
}

/* The visible end of the output, as text. */
static void visible(struct envd *e, struct ebuf *out)
{
  struct shell *s = &e->shell;
  struct ebuf text = {.max = 16u << 20};
  ebuf_text(&text, s->tail.p, s->tail.n, true);
  while (text.n && text.p[text.n - 1] == '\n')
    text.n--;
  size_t at = envd_tail(text.p, text.n, ENVD_VISIBLE);
  if (at || s->cut) ebuf_s(out, "[output truncated]\n");
  ebuf_put(out, text.p + at, text.n - at);
  ebuf_free(&text);
  say_limit(e, out);
}

/* Ends the call with text, and leaves the pipe to whatever still prints. */
static void answer(struct envd *e, struct ebuf *text, bool is_error)
{
  struct shell *s = &e->shell;
  struct call *c = s->call;
  struct ebuf content = {0};
  bool cancelled = c->cancel;
  unlink_out(e);
  if (s->out.fd >= 0) output_background(e, &s->out);
  envd_content(&content, text->p, text->n);
  ebuf_free(text);
  ebuf_free(&s->tail);
  s->call = NULL;
  s->aborted = s->cut = s->full = false;
  if (cancelled) {
    ebuf_free(&content);
    call_cancelled(e, c);
  } else {
    call_answer(e, c, &content, is_error);
  }
}

/* Said first what happened, then what was printed. */
static void answer_event(struct envd *e, const char *what)
{
  struct ebuf text = {0};
  ebuf_s(&text, what);
  output_tail(e, &e->shell.out, DRAIN);
  if (e->shell.tail.n) {
    ebuf_s(&text, "\nOutput before that:\n");
    visible(e, &text);
  }
  answer(e, &text, true);
}

static void answer_given_up(struct envd *e, bool kept)
{
  char what[700], first[400];
  if (e->shell.full)
    snprintf(first, sizeof first, "bash: the command was ended: %s. Delete some before writing more.",
             e->disk.why);
  else
    snprintf(first, sizeof first, "bash: bash command timed out after %lldms",
             (long long)e->shell.call->timeout_ms);
  snprintf(what, sizeof what, "%s\nEvery process was killed, background ones too; %s%s.", first,
           kept ? "the shell kept its state" : "the shell had to be killed as well: ", kept ? "" : lost_text);
  answer_event(e, what);
}

static void finish(struct envd *e)
{
  struct shell *s = &e->shell;
  struct ebuf text = {0};
  bool background = s->out.fd >= 0;
  if (s->state == SHELL_ENDING) s->state = s->pid ? SHELL_IDLE : SHELL_OFF;
  if (s->aborted) {
    answer_given_up(e, true);
    return;
  }
  if (s->lost)
    ebuf_f(&text, "[the shell had ended since the last command, this is a new one: %s]\n", lost_text);
  s->lost = false;
  if (e->disk.note)
    ebuf_f(&text, "[every process was killed: %s; delete some before writing more]\n", e->disk.why);
  e->disk.note = false;
  size_t said = text.n;
  visible(e, &text);
  if (text.n == said && s->code) ebuf_f(&text, "exit %d", s->code);
  if (background)
    ebuf_f(&text, "%s[what the background processes print from now on goes to /tmp/background/%u.log]",
           text.n > said ? "\n" : "", s->serial);
  answer(e, &text, s->code != 0);
}

static void ending(struct envd *e)
{
  struct shell *s = &e->shell;
  if (s->aborted && s->pid) { /* what it started while it was returning */
    proc_kill(e, true);
    s->clearing = envd_now() + CLEAR_MS;
  }
  s->state = SHELL_ENDING;
  s->tick = envd_now() + END_MS;
  if (!output_tail(e, &s->out, DRAIN)) finish(e);
}

/* --- giving a command up ------------------------------------------------------------------------------ */

static void abort_again(struct envd *e)
{
  struct shell *s = &e->shell;
  bool kept = proc_kill(e, true);
  if (!kept || envd_now() >= s->give_up) {
    shell_off(e);
    answer_given_up(e, false);
    return;
  }
  kill(s->pid, SIGRTMAX - 1);
  s->tick = envd_now() + ABORT_TICK_MS;
}

static void abort_start(struct envd *e)
{
  struct shell *s = &e->shell;
  s->aborted = true;
  s->state = SHELL_ABORTING;
  s->give_up = envd_now() + ABORT_MS;
  abort_again(e);
}

bool shell_over(struct envd *e)
{
  if (e->shell.state != SHELL_RUNNING) return false;
  e->shell.full = true;
  abort_start(e);
  return true;
}

void shell_cancel(struct envd *e)
{
  e->shell.call->cancel = true;
  if (e->shell.state == SHELL_RUNNING) abort_start(e);
}

/* --- running one ------------------------------------------------------------------------------------- */

static bool put_file(struct envd *e, const char *name, const char *p, size_t n)
{
  char path[128];
  snprintf(path, sizeof path, "%s/%s", e->run, name);
  if (unlink(path) && errno != ENOENT) return false;
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  size_t done = 0;
  while (done < n) {
    ssize_t w = write(fd, p + done, n - done);
    if (w < 0 && errno == EINTR) continue;
    if (w <= 0) break;
    done += (size_t)w;
  }
  close(fd);
  return done == n;
}

static bool fresh_nonce(char out[33])
{
  unsigned char r[16];
  if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) return false;
  for (size_t i = 0; i < sizeof r; i++)
    snprintf(out + 2 * i, 3, "%02x", r[i]);
  return true;
}

/* Gives bash the line of this command; until it waits for one, a moment later. False: it cannot come there. */
static bool give_line(struct envd *e)
{
  struct shell *s = &e->shell;
  char path[128], line[768];
  snprintf(path, sizeof path, "%s/ctl", e->run);
  int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) {
    s->tick = envd_now() + GIVE_TICK_MS;
    return errno == ENXIO; /* nobody reads it yet */
  }
  /* One line, so that bash has read all of it before it does any of it; \\builtin is never an alias. */
  int n = snprintf(line, sizeof line,
                   "\\builtin . %s/bash </dev/null >%s/w/out.%u 2>&1; \\builtin printf '%%s %%d\\n' %s \"$?\" "
                   ">%s/w/status || \\builtin exit 113\n",
                   e->run, e->run, s->serial, s->nonce, e->run);
  struct stat st;
  s->going = !fstat(fd, &st) && S_ISFIFO(st.st_mode) && write(fd, line, (size_t)n) == n;
  close(fd);
  return s->going;
}

/* Hands the command to bash. */
static bool hand_over(struct envd *e, struct estr command)
{
  struct shell *s = &e->shell;
  if (s->state == SHELL_OFF) {
    if (!proc_shell_start(e)) return false;
    s->state = SHELL_IDLE;
  }
  s->serial++;
  s->heard.n = 0;
  s->going = false;
  return fresh_nonce(s->nonce) && put_file(e, "bash", command.p, command.n) &&
         output_open(e, &s->out, s->serial) && give_line(e);
}

/* False: the call was answered. */
static bool wanted(struct envd *e, struct call *c, struct estr *command, bool *restart)
{
  const struct ej *v = ej_get(c->input, "restart"), *t = ej_get(c->input, "timeout_ms");
  const char *wrong = NULL;
  *restart = v && v->i;
  *command = ej_str(c->input, "command");
  if (v && v->t != EJ_BOOL) wrong = "restart must be true or false";
  if (ej_get(c->input, "command") && !command->p) wrong = "command must be a string";
  if (t && (t->t != EJ_INT || t->i < 0))
    wrong = "timeout_ms must be a number of milliseconds, 0 for the default";
  if (command->p && memchr(command->p, 0, command->n)) wrong = "command must not contain a NUL character";
  if (command->n > ENVD_COMMAND_MAX)
    wrong = "command is longer than 1048576 bytes; write it to a file and run that";
  if (!command->n && !*restart && !wrong) wrong = "command is required";
  if (wrong) {
    call_answer_text(e, c, true, "bash: %s", wrong);
    return false;
  }
  int64_t asked = t && t->i ? t->i : 0, limit = c->timeout_ms;
  c->timeout_ms = asked && limit ? (asked < limit ? asked : limit)
                  : asked        ? asked
                  : limit        ? limit
                                 : e->cfg.bash_ms;
  if (c->timeout_ms > ENVD_TIMEOUT_MAX) c->timeout_ms = ENVD_TIMEOUT_MAX;
  return true;
}

void shell_run(struct envd *e, struct call *c)
{
  struct shell *s = &e->shell;
  struct estr command;
  bool restart;
  if (!wanted(e, c, &command, &restart)) return;
  if (restart && !c->restarted) {
    shell_off(e);
    s->lost = false;
    c->restarted = true;
    c->state = CALL_WAITING; /* for what was killed to be gone */
    return;
  }
  if (!command.n) {
    call_answer_text(e, c, false, "bash session restarted");
    return;
  }
  s->call = c;
  bool ok = hand_over(e, command);
  if (!ok && s->state != SHELL_OFF) { /* its run directory was spoilt: once more from the start */
    output_close(&s->out);
    shell_off(e);
    s->lost = true;
    ok = hand_over(e, command);
  }
  if (!ok) {
    int err = errno;
    output_close(&s->out);
    shell_off(e);
    s->call = NULL;
    call_answer_text(e, c, true, "bash: the shell could not be started: %s", strerror(err));
    return;
  }
  s->state = SHELL_RUNNING;
  s->listen_at = envd_now() + LISTEN_MS;
  s->deadline = envd_now() + c->timeout_ms;
}

/* --- what happens to it ------------------------------------------------------------------------------ */

/* Looks for the word of this command with a number; whatever else is in the FIFO is noise. */
static bool heard_status(struct envd *e)
{
  struct shell *s = &e->shell;
  const char *at = s->heard.n ? memmem(s->heard.p, s->heard.n, s->nonce, 32) : NULL;
  const char *end = at ? memchr(at, '\n', s->heard.n - (size_t)(at - s->heard.p)) : NULL;
  if (end) {
    s->code = (int)(strtol(at + 32, NULL, 10) & 255);
    return true;
  }
  size_t used = at ? (size_t)(at - s->heard.p) : s->heard.n > 256 ? s->heard.n - 64 : 0;
  memmove(s->heard.p, s->heard.p + used, s->heard.n - used); /* a word may come in two parts */
  s->heard.n -= used;
  return false;
}

void shell_on_status(struct envd *e)
{
  struct shell *s = &e->shell;
  char chunk[4096];
  for (int i = 0; i < 64 && s->status >= 0; i++) {
    ssize_t n = read(s->status, chunk, sizeof chunk);
    if (n <= 0) return;
    if (s->state != SHELL_RUNNING && s->state != SHELL_ABORTING) continue;
    s->heard.max = 16384;
    ebuf_put(&s->heard, chunk, (size_t)n);
    if (heard_status(e)) ending(e);
  }
}

void shell_on_output(struct envd *e)
{
  struct shell *s = &e->shell;
  int open = output_tail(e, &s->out, 1 << 20);
  if (!open && s->state == SHELL_ENDING) finish(e);
}

void shell_on_exit(struct envd *e, int status)
{
  struct shell *s = &e->shell;
  char what[400], how[64];
  shell_on_status(e);
  bool busy = s->call && s->state != SHELL_ENDING, early = s->call && !busy;
  shell_off(e);
  if (early) { /* the command had ended before; its answer is on its way */
    finish(e);
    s->lost = true;
  } else if (!busy) {
    s->lost = true;
  } else if (s->aborted) {
    answer_given_up(e, false);
  } else if (!s->going && !s->call->again) { /* it had ended before: the command goes to a new one */
    s->call->again = s->lost = true;
    s->call->state = CALL_WAITING;
    s->call = NULL;
    unlink_out(e);
    output_close(&s->out);
  } else {
    if (WIFSIGNALED(status))
      snprintf(how, sizeof how, "killed by signal %d", WTERMSIG(status));
    else
      snprintf(how, sizeof how, "exit status %d", WEXITSTATUS(status));
    snprintf(what, sizeof what, "bash: bash session terminated (%s)\nThe next command runs in a new shell: %s.",
             how, lost_text);
    answer_event(e, what);
  }
}

void shell_on_time(struct envd *e)
{
  struct shell *s = &e->shell;
  int64_t now = envd_now();
  if (s->state == SHELL_RUNNING && now >= s->deadline)
    abort_start(e);
  else if (s->state == SHELL_RUNNING && !s->going && now >= s->tick && !give_line(e))
    kill(s->pid, SIGKILL);
  else if (s->state == SHELL_ABORTING && now >= s->tick)
    abort_again(e);
  else if (s->state == SHELL_ENDING && now >= s->tick)
    finish(e);
  else if (s->clearing)
    shell_free(e);
}

int64_t shell_due(const struct envd *e)
{
  const struct shell *s = &e->shell;
  switch (s->state) {
  case SHELL_RUNNING: return s->going || s->deadline < s->tick ? s->deadline : s->tick;
  case SHELL_ABORTING:
  case SHELL_ENDING: return s->tick;
  default: return s->clearing ? s->tick : INT64_MAX;
  }
}
