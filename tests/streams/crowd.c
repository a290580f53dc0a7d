/*
 * crowd - many readers of event streams, in one process: those that read, and those that never do. The readers count
 * what they get and hash its order; what they were sent is compared by who started them (tests/streams, tests/bench).
 *
 * usage: crowd PORT KEY READERS SILENT, session ids on standard input, one a line, then an empty line. Reader i reads
 * session i modulo their number; the SILENT last ones have a small window and never read. Prints "open" when all heads
 * of the others came. Then commands:
 *   wait SESSION N   answers "seen" when each reader of that session has N events (not previews, not pings)
 *   report           a line for each session: "session I readers R count C last POSITION same 0|1", then
 *                    "lost R silent-cut S latency-us p50 P p99 Q max M n N": readers that were cut, silent ones that
 *                    were, and how long an event took whose title, or metadata k0, begins with the CLOCK_MONOTONIC ns of its
 *                    making
 * Ends with its input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SESSIONS_MAX = 64, LINE = 640, SLOTS = 100000, SLOT_NS = 10000 };

struct reader {
  int fd, session;
  bool silent, head, gone;
  uint64_t count, hash, last;
  int n; /* bytes of an unfinished line, as far as they matter */
  char line[LINE];
};

static struct reader *readers;
static int nreaders, nsilent, nsessions, heads, ep;
static char ids[SESSIONS_MAX][64];
static uint32_t slot[SLOTS + 1];
static uint64_t nlatency, worst;

static void die(const char *what)
{
  fprintf(stderr, "crowd: %s: %s\n", what, strerror(errno));
  exit(2);
}

static uint64_t now_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void dial(struct reader *r, int port, const char *key)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  char text[512];
  int n, small = 4096;

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  r->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (r->fd < 0) die("socket");
  if (r->silent) setsockopt(r->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  if (connect(r->fd, (struct sockaddr *)&a, sizeof a) != 0) die("connect");
  n = snprintf(text, sizeof text,
               "GET /v1/sessions/%s/events/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
               "anthropic-version: 2026-10-21\r\nanthropic-beta: managed-agents-2026-04-01\r\n\r\n",
               ids[r->session], key);
  if (send(r->fd, text, (size_t)n, MSG_NOSIGNAL) != n) die("send");
  fcntl(r->fd, F_SETFL, O_NONBLOCK);
}

/* ---- reading ---- */

static void latency(const char *line)
{
  const char *k0 = strstr(line, "\"k0\":\""), *title = strstr(line, "\"title\":\"");
  uint64_t then = k0 ? strtoull(k0 + 6, NULL, 10) : title ? strtoull(title + 9, NULL, 10) : 0, took = now_ns() - then;

  if (then < 1000000) return;
  slot[took / SLOT_NS < SLOTS ? took / SLOT_NS : SLOTS]++;
  nlatency++;
  if (took > worst) worst = took;
}

static void on_line(struct reader *r)
{
  r->line[r->n] = '\0';
  if (!r->head) {
    r->head = strcmp(r->line, "\r") == 0;
    if (r->head) heads++;
    if (strncmp(r->line, "HTTP/1.1 ", 9) == 0 && strncmp(r->line + 9, "200", 3) != 0) {
      fprintf(stderr, "crowd: %s\n", r->line);
      exit(2);
    }
  } else if (strncmp(r->line, "id: ", 4) == 0) {
    uint64_t id = strtoull(r->line + 4, NULL, 10);
    if (id <= r->last) fprintf(stderr, "crowd: %llu after %llu\n", (unsigned long long)id, (unsigned long long)r->last);
    r->last = id;
    r->hash = (r->hash ^ id) * 1099511628211u;
    r->count++;
  } else if (strncmp(r->line, "data: ", 6) == 0) {
    latency(r->line);
  }
}

static void drain(struct reader *r)
{
  static char buf[1 << 18];
  ssize_t k = recv(r->fd, buf, sizeof buf, 0);

  if (k <= 0 && (k == 0 || (errno != EAGAIN && errno != EINTR))) {
    epoll_ctl(ep, EPOLL_CTL_DEL, r->fd, NULL);
    r->gone = true;
  }
  for (ssize_t i = 0; i < k; i++) {
    if (buf[i] == '\n') {
      on_line(r);
      r->n = 0;
    } else if (r->n < LINE - 1) {
      r->line[r->n++] = buf[i];
    }
  }
}

static void turn(int ms, bool *input)
{
  struct epoll_event ev[512];
  int n = epoll_wait(ep, ev, 512, ms);

  for (int i = 0; i < n; i++) {
    struct reader *r = ev[i].data.ptr;
    if (!r) {
      *input = true;
    } else if (r->silent) { /* nothing but its end is of interest */
      epoll_ctl(ep, EPOLL_CTL_DEL, r->fd, NULL);
      r->gone = true;
    } else {
      drain(r);
    }
  }
}

/* ---- commands ---- */

static bool all_have(int session, uint64_t n)
{
  for (int i = 0; i < nreaders - nsilent; i++)
    if (readers[i].session == session && !readers[i].gone && readers[i].count < n) return false;
  return true;
}

static uint64_t at_share(double share)
{
  uint64_t want = (uint64_t)((double)nlatency * share), have = 0;

  for (int i = 0; i <= SLOTS; i++)
    if ((have += slot[i]) > want) return (uint64_t)(i + 1) * SLOT_NS / 1000;
  return 0;
}

static void report(void)
{
  int lost = 0, cut = 0;

  for (int s = 0; s < nsessions; s++) {
    const struct reader *first = NULL;
    int n = 0, same = 1;
    for (int i = 0; i < nreaders - nsilent; i++) {
      const struct reader *r = &readers[i];
      if (r->session != s) continue;
      if (!first) first = r;
      n++;
      same = same && r->count == first->count && r->hash == first->hash;
    }
    printf("session %d readers %d count %llu last %llu same %d\n", s, n, first ? (unsigned long long)first->count : 0,
           first ? (unsigned long long)first->last : 0, same);
  }
  for (int i = 0; i < nreaders; i++) {
    cut += readers[i].silent && readers[i].gone;
    lost += !readers[i].silent && readers[i].gone;
  }
  printf("lost %d silent-cut %d latency-us p50 %llu p99 %llu max %llu n %llu\n", lost, cut,
         (unsigned long long)at_share(0.5), (unsigned long long)at_share(0.99), (unsigned long long)(worst / 1000),
         (unsigned long long)nlatency);
  memset(slot, 0, sizeof slot);
  nlatency = worst = 0;
}

static void watch(int fd, struct reader *r)
{
  struct epoll_event e = {.events = r && r->silent ? EPOLLRDHUP : EPOLLIN, .data.ptr = r};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) != 0) die("epoll");
}

int main(int argc, char **argv)
{
  char line[128];
  struct rlimit lim;
  bool input = false;

  if (argc != 5) die("usage: crowd PORT KEY READERS SILENT");
  if (getrlimit(RLIMIT_NOFILE, &lim) == 0) {
    lim.rlim_cur = lim.rlim_max;
    setrlimit(RLIMIT_NOFILE, &lim);
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  setvbuf(stdin, NULL, _IONBF, 0);
  while (nsessions < SESSIONS_MAX && fgets(line, sizeof line, stdin) && line[0] != '\n')
    snprintf(ids[nsessions++], sizeof ids[0], "%.*s", (int)strcspn(line, "\n"), line);
  nreaders = (int)strtol(argv[3], NULL, 10);
  nsilent = (int)strtol(argv[4], NULL, 10);
  readers = calloc((size_t)nreaders, sizeof *readers);
  ep = epoll_create1(EPOLL_CLOEXEC);
  if (!readers || ep < 0 || nsessions == 0) die("start");
  for (int i = 0; i < nreaders; i++) {
    struct reader *r = &readers[i];
    r->session = i % nsessions;
    r->silent = i >= nreaders - nsilent;
    dial(r, (int)strtol(argv[1], NULL, 10), argv[2]);
    watch(r->fd, r);
    if (i % 50 == 0) turn(0, &input);
  }
  while (heads < nreaders - nsilent)
    turn(100, &input);
  printf("open\n");
  watch(STDIN_FILENO, NULL);
  for (;;) {
    input = false;
    turn(1000, &input);
    if (!input) continue;
    if (!fgets(line, sizeof line, stdin)) return 0;
    if (strncmp(line, "wait ", 5) == 0) {
      char *end;
      int session = (int)strtol(line + 5, &end, 10);
      uint64_t n = strtoull(end, NULL, 10);
      while (!all_have(session, n))
        turn(1000, &input);
      printf("seen\n");
    } else {
      report();
    }
  }
}
