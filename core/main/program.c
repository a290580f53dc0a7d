/*
 * program.c - see program.h. The program runs in a thread of its own; this one waits for signals. SIGINT is a message
 * to the program (an eventfd), which decides what it means; SIGTERM and SIGHUP end it. It watches the server's file too
 * (server_file.h), as only this room judges what may be believed of it.
 */
#include "main/client.h"
#include "main/program.h"
#include "main/server_file.h"
#include "script/script.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <unistd.h>

struct running {
  struct program *p;
  struct mr_runtime *rt;
  struct mr_script *script;
  int sig_fd, int_fd, over_fd;
  int dir_fd, moved[2]; /* the data directory's changes; a pipe that the program reads. -1: none */
  char url[256], key[128];
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

/* ---- where the server of the data directory is ---- */

static void watch_open(struct running *r)
{
  r->dir_fd = r->moved[0] = r->moved[1] = -1;
  if (!r->p->data || pipe2(r->moved, O_CLOEXEC | O_NONBLOCK) != 0) return;
  r->dir_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  if (r->dir_fd >= 0 && inotify_add_watch(r->dir_fd, r->p->data, IN_MOVED_TO | IN_ONLYDIR) < 0) {
    close(r->dir_fd);
    r->dir_fd = -1;
  }
  mr_server_file_read(r->p->data, r->url, sizeof r->url, r->key, sizeof r->key);
}

/* "URL TAB KEY" for the program, when they are others than before. */
static void watch_look(struct running *r)
{
  char events[4096], url[256] = "", key[128] = "", line[400];
  int n;

  while (read(r->dir_fd, events, sizeof events) > 0) {
  }
  if (!mr_server_file_read(r->p->data, url, sizeof url, key, sizeof key) ||
      (strcmp(url, r->url) == 0 && strcmp(key, r->key) == 0))
    return;
  memcpy(r->url, url, sizeof url);
  memcpy(r->key, key, sizeof key);
  n = snprintf(line, sizeof line, "%s\t%s\n", url, r->p->key ? r->p->key : key);
  if (write(r->moved[1], line, (size_t)n) < 0)
    return; /* full: it reads what is older first, and is told again */
}

static void close_fd(int fd)
{
  if (fd >= 0) close(fd);
}

static void *program_thread(void *arg)
{
  struct running *r = arg;
  char *argv[PROGRAM_ARGS], fd[32];

  if (r->moved[0] >= 0)
    snprintf(fd, sizeof fd, "%d %d", r->int_fd, r->moved[0]);
  else
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
  struct pollfd p[3] = {{.fd = r->sig_fd, .events = POLLIN},
                        {.fd = r->over_fd, .events = POLLIN},
                        {.fd = r->dir_fd, .events = POLLIN}}; /* one that is -1 is passed over */
  struct signalfd_siginfo si;

  for (;;) {
    if (poll(p, 3, -1) < 0) continue;
    if (p[1].revents) return;
    if (p[2].revents) watch_look(r);
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
  watch_open(&r);
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
  close_fd(r.dir_fd);
  close_fd(r.moved[0]);
  close_fd(r.moved[1]);
  return status;
}

int mr_program_client(struct program *p, struct settings *s)
{
  bool told = s->url != NULL;
  int status;

  p->store = ":memory:";
  p->options = "{\"asleep\":true,\"sandbox\":{\"enabled\":false}}";
  if ((status = mr_client_find(s)) != EXIT_OK) return status;
  p->args[1] = s->url;
  p->args[2] = s->key;
  p->args[3] = s->json ? "json" : NULL;
  p->data = told ? NULL : s->data;
  p->key = s->key_given ? s->key : NULL;
  return mr_program_run(p);
}
