/*
 * load - the client of the turn benchmark: SESSIONS sessions at once, each with its event stream open; a turn is
 * a POST of a message, and is over when the stream shows the next session.status_idle. Raw sockets: what the
 * client costs is not measured.
 *
 * usage: load PORT KEY TURNS... < session ids, one a line. Prints "turns T seconds S". With several numbers the ids end
 * with an empty line, and each further batch waits for a line, the streams staying open.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX = 512, TAIL = 64 };
static const char idle[] = "event: session.status_idle\n";

struct lane {
  char id[64], tail[TAIL];
  int post, stream;
  size_t ntail;
};

static int dial(int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
    perror("load: connect");
    exit(1);
  }
  return fd;
}

static void say(int fd, const char *text, size_t n)
{
  if (send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) {
    perror("load: send");
    exit(1);
  }
}

static void post(struct lane *l, const char *key)
{
  static const char body[] =
      "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"go\"}]}]}";
  char req[768];
  int n = snprintf(req, sizeof req,
                   "POST /v1/sessions/%s/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
                   "anthropic-version: 2026-10-21\r\nanthropic-beta: managed-agents-2026-04-01\r\n"
                   "content-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", l->id, key, sizeof body - 1, body);
  say(l->post, req, (size_t)n);
}

/* How many ends of turns are in these bytes (and what was left of the last ones)? */
static int ends(struct lane *l, const char *p, size_t n)
{
  static char b[TAIL + 65536 + 1];
  int found = 0;
  size_t keep;

  memcpy(b, l->tail, l->ntail);
  memcpy(b + l->ntail, p, n);
  n += l->ntail;
  b[n] = '\0';
  for (char *at = b; (at = memmem(at, n - (size_t)(at - b), idle, sizeof idle - 1)); at += sizeof idle - 1)
    found++;
  keep = n < sizeof idle - 2 ? n : sizeof idle - 2;
  memcpy(l->tail, b + n - keep, keep);
  l->ntail = keep;
  return found;
}

static void open_lane(struct lane *l, struct pollfd p[2], int port, const char *key)
{
  static char buf[4096];
  int len = snprintf(buf, sizeof buf,
                     "GET /v1/sessions/%s/events/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
                     "anthropic-version: 2026-10-21\r\nanthropic-beta: managed-agents-2026-04-01\r\n\r\n",
                     l->id, key);
  l->post = dial(port);
  l->stream = dial(port);
  say(l->stream, buf, (size_t)len);
  if (recv(l->stream, buf, sizeof buf - 1, 0) <= 0 || strncmp(buf, "HTTP/1.1 200", 12) != 0) {
    fprintf(stderr, "load: no stream: %.200s\n", buf);
    exit(1);
  }
  p[0] = (struct pollfd){.fd = l->stream, .events = POLLIN};
  p[1] = (struct pollfd){.fd = l->post, .events = POLLIN};
}

/* The bytes that are there for connection i (even: a stream, odd: answers to posts): how many turns ended? */
static int take(struct lane *v, const struct pollfd *p, int i)
{
  static char buf[65536];
  ssize_t k = recv(p[i].fd, buf, sizeof buf - 1, 0);

  if (k <= 0) {
    fprintf(stderr, "load: a connection was closed\n");
    exit(1);
  }
  if (i % 2 == 0) return ends(&v[i / 2], buf, (size_t)k);
  if (strncmp(buf, "HTTP/1.1 200", 12) != 0) {
    fprintf(stderr, "load: %.300s\n", buf);
    exit(1);
  }
  return 0;
}

static void batch(struct lane *v, struct pollfd *p, int n, long turns, const char *key)
{
  long done = 0, started = 0;
  struct timespec a, b;

  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < n && started < turns; i++, started++)
    post(&v[i], key);
  while (done < turns) {
    if (poll(p, 2 * (nfds_t)n, 20000) <= 0) {
      fprintf(stderr, "load: nothing came for 20 s, %ld of %ld turns\n", done, turns);
      exit(1);
    }
    for (int i = 0; i < 2 * n; i++)
      for (int e = p[i].revents ? take(v, p, i) : 0; e > 0; e--) {
        done++;
        if (started < turns) {
          started++;
          post(&v[i / 2], key);
        }
      }
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  printf("turns %ld seconds %.3f\n", turns,
         (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9);
  fflush(stdout);
}

int main(int argc, char **argv)
{
  static struct lane v[MAX];
  static struct pollfd p[2 * MAX];
  char line[16];
  int n = 0;

  if (argc < 4) return 2;
  while (n < MAX && fgets(v[n].id, sizeof v[n].id, stdin)) {
    v[n].id[strcspn(v[n].id, "\n")] = '\0';
    if (!v[n].id[0]) break;
    n++;
  }
  for (int i = 0; i < n; i++)
    open_lane(&v[i], &p[2 * i], (int)strtol(argv[1], NULL, 10), argv[2]);
  for (int k = 3; k < argc && (k == 3 || fgets(line, sizeof line, stdin)); k++)
    batch(v, p, n, strtol(argv[k], NULL, 10), argv[2]);
  return 0;
}
