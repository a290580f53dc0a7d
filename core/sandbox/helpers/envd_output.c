/*
 * envd_output - what commands print. Each command has a FIFO of its own, for both streams, so the order is
 * kept and what a background process prints later cannot turn up in the output of another command: it goes
 * to /tmp/background/N.log.
 *
 * Bounded: the end of a command's output is kept, 1 MiB; a log starts over at 1 MiB; a process that floods
 * its log is read at 2.5 MiB a second, and at most ENVD_OUTPUTS commands have one.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "envd.h"

enum { NO_LOG = -2, WINDOW_MS = 100, WINDOW_BYTES = 256 << 10 };

bool output_open(struct envd *e, struct output *o, uint32_t serial)
{
  char path[128];
  *o = (struct output){.fd = -1, .log = -1, .serial = serial};
  snprintf(path, sizeof path, "%s/w/out.%u", e->run, serial);
  if (unlink(path) && errno != ENOENT) return false;
  if (mkfifo(path, 0600)) return false;
  o->fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
  return o->fd >= 0;
}

void output_close(struct output *o)
{
  if (o->fd >= 0) close(o->fd);
  if (o->log >= 0) close(o->log);
  o->fd = o->log = -1;
}

/* Appends to the tail, of which the last ENVD_KEEP_OUTPUT bytes stay. */
static void keep(struct shell *s, const char *p, size_t n)
{
  struct ebuf *t = &s->tail;
  t->max = 4u * ENVD_KEEP_OUTPUT;
  if (t->n + n > 2u * ENVD_KEEP_OUTPUT) {
    size_t drop = t->n - ENVD_KEEP_OUTPUT;
    memmove(t->p, t->p + drop, ENVD_KEEP_OUTPUT);
    t->n = ENVD_KEEP_OUTPUT;
    s->cut = true;
  }
  ebuf_put(t, p, n);
  if (t->failed) { /* no memory: rather less output than none */
    t->failed = false;
    t->n = 0;
    s->cut = true;
  }
}

int output_tail(struct envd *e, struct output *o, size_t max)
{
  char chunk[65536];
  if (o->fd < 0) return 0;
  for (size_t got = 0; got < max;) {
    ssize_t n = read(o->fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) return 1;
    if (n <= 0) {
      output_close(o);
      return 0;
    }
    keep(&e->shell, chunk, (size_t)n);
    got += (size_t)n;
  }
  return 1;
}

void output_background(struct envd *e, struct output *o)
{
  int slot = 0;
  for (int i = 0; i < ENVD_OUTPUTS; i++) {
    if (e->outputs[i].fd < 0) {
      slot = i;
      break;
    }
    if (e->outputs[i].serial < e->outputs[slot].serial) slot = i;
  }
  output_close(&e->outputs[slot]); /* when all are taken: the oldest, whose writers get EPIPE */
  e->outputs[slot] = *o;
  o->fd = o->log = -1;
}

static void log_open(struct output *o)
{
  char name[32];
  o->log = NO_LOG;
  mkdir("/tmp/background", 0755);
  /* The directory and the file must be what they look like: the payload may have put links there. */
  int dir = open("/tmp/background", O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir < 0) return;
  snprintf(name, sizeof name, "%u.log", o->serial);
  int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0644);
  if (fd >= 0) o->log = fd;
  close(dir);
}

static void log_put(struct output *o, const char *p, size_t n)
{
  static const char note[] = "[earlier output dropped]\n";
  if (o->log == -1) log_open(o);
  if (o->log < 0) return;
  if (o->logged + n > ENVD_LOG_MAX && !ftruncate(o->log, 0)) {
    ssize_t w = write(o->log, note, sizeof note - 1);
    o->logged = w > 0 ? (size_t)w : 0;
  }
  ssize_t w = write(o->log, p, n); /* a full disk loses output, nothing else */
  if (w > 0) o->logged += (size_t)w;
}

void output_on_background(struct envd *e, int i)
{
  char chunk[65536];
  struct output *o = &e->outputs[i];
  int64_t now = envd_now();
  if (o->fd < 0 || now < o->paused_until) return;
  ssize_t n = read(o->fd, chunk, sizeof chunk);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    output_close(o);
    return;
  }
  log_put(o, chunk, (size_t)n);
  if (now > o->paused_until + WINDOW_MS) {
    o->paused_until = now; /* a new window starts here */
    o->window = 0;
  }
  o->window += (size_t)n;
  if (o->window >= WINDOW_BYTES) {
    o->paused_until = now + WINDOW_MS;
    o->window = 0;
  }
}
