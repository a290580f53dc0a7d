/*
 * program.c - see program.h. The program runs in a thread of its own; this one waits for signals. SIGINT is a message
 * to the program (an eventfd), which decides what it means; SIGTERM and SIGHUP end it.
 */
#include "main/program.h"
#include "script/script.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct running {
  struct program *p;
  struct mr_runtime *rt;
  struct mr_script *script;
  int sig_fd, int_fd, over_fd;
  int exit_code;
  struct mr_err err; /* of the thread; read after it ended */
};

static void log_line(void *ud, int level, struct mr_str line)
{
  (void)ud;
  if (level <= MR_LOG_WARN) fprintf(stderr, "moonrig: " MR_FMT "\n", MR_ARG(line));
}

static int open_all(struct running *r)
{
  struct program *p = r->p;
  struct mr_script_opts o = {
      .size = sizeof o, .paths = p->paths, .npaths = (size_t)p->npaths, .offline_model = p->offline};
  struct mr_config c;
  struct mr_err err = {0};
  int code;

  mr_config_init(&c);
  c.store = p->store;
  c.options = p->options;
  c.log = p->log ? log_line : NULL;
  code = mr_open(&r->rt, &c, &err);
  if (code != MR_OK) return mr_main_fail(code == MR_E_INVALID ? EXIT_USAGE : EXIT_FAILED, &err);
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  o.program = p->name;
  if (mr_script_open(&r->script, r->rt, &o, &err) != MR_OK) return mr_main_fail(EXIT_FAILED, &err);
  return EXIT_OK;
}

static void ring(int fd)
{
  uint64_t one = 1;
  if (write(fd, &one, sizeof one) < 0) return; /* the counter is full: it is readable anyway */
}

static void *program_thread(void *arg)
{
  struct running *r = arg;
  char *argv[PROGRAM_ARGS], fd[16];

  snprintf(fd, sizeof fd, "%d", r->int_fd);
  argv[0] = fd;
  for (int i = 1; i < r->p->nargs; i++)
    argv[i] = (char *)(uintptr_t)(r->p->args[i] ? r->p->args[i] : "");
  if (mr_script_run_main(r->script, r->p->nargs, argv, &r->exit_code, &r->err) != MR_OK && r->exit_code == 0)
    r->exit_code = EXIT_FAILED;
  ring(r->over_fd);
  return NULL;
}

static void watch_signals(struct running *r)
{
  struct pollfd p[2] = {{.fd = r->sig_fd, .events = POLLIN}, {.fd = r->over_fd, .events = POLLIN}};
  struct signalfd_siginfo si;

  for (;;) {
    if (poll(p, 2, -1) < 0) continue;
    if (p[1].revents) return;
    if (read(r->sig_fd, &si, sizeof si) != (ssize_t)sizeof si) continue;
    if (si.ssi_signo != SIGINT) {
      mr_script_stop(r->script);
      r->exit_code = EXIT_FAILED;
      return;
    }
    ring(r->int_fd);
  }
}

static int signals_open(void)
{
  sigset_t set;

  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int mr_program_run(struct program *p)
{
  struct running r = {.p = p, .sig_fd = signals_open()};
  pthread_t thread;
  int status;

  r.int_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  r.over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  status = open_all(&r);
  if (status == EXIT_OK && pthread_create(&thread, NULL, program_thread, &r) != 0) {
    fprintf(stderr, "moonrig: no thread\n");
    status = EXIT_FAILED;
  } else if (status == EXIT_OK) {
    watch_signals(&r);
    pthread_join(thread, NULL);
    status = r.exit_code;
    if (r.err.code != MR_OK && r.err.code != MR_E_CANCELLED) mr_main_fail(status, &r.err);
  }
  mr_script_close(&r.script);
  mr_close(&r.rt);
  close(r.sig_fd);
  close(r.int_fd);
  close(r.over_fd);
  return status;
}
