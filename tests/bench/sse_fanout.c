/*
 * sse_fanout - what it costs to deliver an event to many open streams, against a bare send() of the same
 * bytes to as many sockets, in the same run.
 *
 * Ours: N readers of an event stream on the HTTP server, over TCP on loopback; each event is given to every
 * stream, then the loop turns until all is sent. Bare: N accepted sockets, one send() for each reader and
 * event, of the frame as it is on the wire. One thread plays all readers. CPU is that of the sending thread
 * alone (loopback makes it pay for the receiver's network stack too, in both). First one event a pass, the
 * worst case; then 16 a pass, against one send() of 16 frames. Rounds alternate; the medians are compared.
 *
 * usage: sse_fanout [readers] [events a round] [rounds]. Exit 1 over the limit of 1.60; the goal is 1.15.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "net/sse.h"

enum { READERS_MAX = 8000, BURST = 16, ROUNDS_MAX = 25, JSON = 240 };
static const double limit = 1.60, goal = 1.15;

static void die(const char *what)
{
  fprintf(stderr, "sse_fanout: %s: %s\n", what, strerror(errno));
  exit(2);
}

static double cpu(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *v, int n)
{
  qsort(v, (size_t)n, sizeof *v, by_value);
  return v[n / 2];
}

/* ---- the readers ---- */

static int readers, epfd;
static uint64_t got; /* bytes, of the reading thread */

static void *read_all(void *ud)
{
  static char buf[1 << 18];
  struct epoll_event ev[256];

  for (;;) {
    int n = epoll_wait(epfd, ev, 256, -1);
    for (int i = 0; i < n; i++) {
      ssize_t k = recv(ev[i].data.fd, buf, sizeof buf, 0);
      if (k > 0)
        __atomic_add_fetch(&got, (uint64_t)k, __ATOMIC_RELAXED);
    }
  }
  return ud;
}

static void wait_for(uint64_t bytes)
{
  for (int i = 0; __atomic_load_n(&got, __ATOMIC_RELAXED) < bytes; i++) {
    if (i > 20000)
      die("bytes got lost");
    usleep(1000);
  }
}

static int dial(in_port_t port)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = port};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0)
    die("connect");
  return fd;
}

static void watch(int fd)
{
  struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

  fcntl(fd, F_SETFL, O_NONBLOCK);
  if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &e) != 0)
    die("epoll");
}

/* ---- bare ---- */

static int bare_fd[READERS_MAX];
static char frame[BURST * 1024];
static size_t frame_n;

static void bare_open(void)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  socklen_t n = sizeof a;
  int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(l, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (bind(l, (struct sockaddr *)&a, sizeof a) != 0 || listen(l, 100) != 0 ||
      getsockname(l, (struct sockaddr *)&a, &n) != 0)
    die("listen");
  for (int i = 0; i < readers; i++) {
    watch(dial(a.sin_port));
    bare_fd[i] = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (bare_fd[i] < 0)
      die("accept");
  }
  close(l);
}

static double bare_round(int passes, int burst)
{
  uint64_t target = got + (uint64_t)passes * (uint64_t)readers * frame_n * (uint64_t)burst;
  double t = cpu();

  for (int p = 0; p < passes; p++)
    for (int i = 0; i < readers; i++)
      if (send(bare_fd[i], frame, frame_n * (size_t)burst, MSG_NOSIGNAL) != (ssize_t)frame_n * burst)
        die("send");
  t = cpu() - t;
  wait_for(target);
  return t * 1e6 / ((double)passes * readers * burst);
}

/* ---- ours ---- */

static struct mr_sys sys;
static struct mr_loop *loop;
static struct mr_http_server *server;
static struct mr_sse *stream[READERS_MAX];
static int streams;
static char json[JSON + 1];

static void on_closed(void *ud, struct mr_sse *s)
{
  (void)ud;
  (void)s;
  die("a stream was cut");
}

static void on_request(void *ud, struct mr_http_x *x)
{
  (void)ud;
  if (mr_sse_open(x, NULL, 0, 3600000, on_closed, NULL, &stream[streams++]) != MR_OK)
    die("mr_sse_open");
}

static void ours_open(void)
{
  static const char get[] = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
  struct mr_http_server_opts o = {.on_request = on_request};
  struct mr_http_listen l = {.address = "127.0.0.1:0"};
  struct mr_err err;
  char url[64];

  mr_sys_init(&sys, NULL);
  if (mr_loop_new(&loop, &sys, NULL, &err) != MR_OK || mr_http_server_new(&server, loop, &o, &err) != MR_OK ||
      mr_http_server_listen(server, &l, url, sizeof url, &err) != MR_OK)
    die(err.message);
  mr_loop_enter(loop);
  for (int i = 0; i < readers; i++) {
    int fd = dial(htons((uint16_t)strtol(strrchr(url, ':') + 1, NULL, 10)));
    if (send(fd, get, sizeof get - 1, 0) < 0)
      die("send");
    while (streams <= i)
      mr_loop_pump(loop, 0);
    while (recv(fd, json, 1, MSG_PEEK) < 1) /* the head is there */
      continue;
    char head[1000];
    if (recv(fd, head, sizeof head, 0) < 1)
      die("no head");
    watch(fd);
  }
}

static double ours_round(int passes, int burst)
{
  struct mr_http_server_stats a, b;
  uint64_t before = got;
  double t;

  mr_http_server_stats(server, &a);
  t = cpu();
  for (int p = 0; p < passes; p++) {
    for (int e = 0; e < burst; e++)
      for (int i = 0; i < readers; i++)
        if (mr_sse_event(stream[i], MR_S("agent.message"), 123456 + p * burst + e, mr_str_n(json, JSON)) != MR_OK)
          die("mr_sse_event");
    mr_loop_pump(loop, 0);
  }
  t = cpu() - t;
  mr_http_server_stats(server, &b);
  if (b.events - a.events != (uint64_t)passes * (uint64_t)readers * (uint64_t)burst)
    die("events got lost");
  wait_for(before + b.bytes_out - a.bytes_out);
  return t * 1e6 / ((double)passes * readers * burst);
}

/* ---- both ---- */

static bool compare(const char *what, int passes, int burst, int rounds)
{
  double ours[ROUNDS_MAX], bare[ROUNDS_MAX], ratio[ROUNDS_MAX], r;

  for (int i = 0; i < rounds; i++) {
    bare[i] = bare_round(passes, burst);
    ours[i] = ours_round(passes, burst);
    ratio[i] = ours[i] / bare[i];
  }
  r = median(ratio, rounds);
  printf("%-18s %d readers: bare send %.2f us, event stream %.2f us per delivered event, ratio %.2f [%.2f-%.2f] "
         "(limit %.2f, goal %.2f)\n", what, readers, median(bare, rounds), median(ours, rounds), r, ratio[0],
         ratio[rounds - 1], limit, goal);
  return r <= limit;
}

int main(int argc, char **argv)
{
  int events = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 64;
  int rounds = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 7;
  struct rlimit r;
  pthread_t t;
  bool ok;

  readers = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1000;
  if (readers < 1 || readers > READERS_MAX || events < BURST || rounds < 1 || rounds > ROUNDS_MAX)
    die("usage: sse_fanout [readers] [events a round] [rounds]");
  if (getrlimit(RLIMIT_NOFILE, &r) == 0) {
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
  }
  epfd = epoll_create1(EPOLL_CLOEXEC);
  memset(json, 'x', JSON);
  json[0] = json[1] = json[JSON - 1] = '"';
  for (size_t i = 0; i < BURST; i++) /* as long as ours on the wire: a chunk of one frame */
    frame_n = (size_t)snprintf(frame + i * frame_n, sizeof frame - i * frame_n,
                               "11e\r\nevent: agent.message\nid: 123456\ndata: %s\n\n\r\n", json);
  bare_open();
  ours_open();
  if (pthread_create(&t, NULL, read_all, NULL) != 0)
    die("thread");
  bare_round(8, 1); /* warm */
  ours_round(8, 1);
  ok = compare("1 event a pass", events, 1, rounds);
  ok = compare("16 events a pass", events / BURST * 4, BURST, rounds) && ok;
  return ok ? 0 : 1;
}
