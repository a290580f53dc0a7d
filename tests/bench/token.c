/*
 * token - the time that the server adds to a token: from the moment at which the provider has sent its bytes to the
 * moment at which a client of the event stream has them. One process plays both, with one clock (CLOCK_MONOTONIC): a
 * model server that sends one token at a time, at a steady pace, and a client that opened the stream with previews.
 * What the kernel and the two wake-ups cost without a server between is measured in the same run, through a thread
 * that only reads and writes on.
 *
 * usage: token [tokens] [microseconds between them]. Prints "listening PORT" (the model server's), reads a line
 * "PORT KEY SESSION" (the server's), then prints "server p50 A p99 B max C us, relay p50 D p99 E max F us, N tokens".
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TOKENS_MAX = 200000, WARM = 50, WAIT_MS = 20000 };

static int tokens = 4000, gap_us = 1000, got;
static int64_t sent_ns[TOKENS_MAX], took_ns[TOKENS_MAX];

static void die(const char *what)
{
  fprintf(stderr, "token: %s: %s\n", what, strerror(errno));
  exit(2);
}

static int64_t now_ns(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int hear(int *port)
{
  struct sockaddr_in a = {.sin_family = AF_INET};
  socklen_t n = sizeof a;
  int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(l, (struct sockaddr *)&a, n) != 0 || listen(l, 16) != 0 || getsockname(l, (struct sockaddr *)&a, &n) != 0)
    die("listen");
  *port = ntohs(a.sin_port);
  return l;
}

static void no_delay(int fd)
{
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static int dial(int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) die("connect");
  no_delay(fd);
  return fd;
}

static void say(int fd, const char *text)
{
  size_t n = strlen(text);
  if (send(fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) die("send");
}

/* One chunk of the model's answer. */
static void chunk(int fd, const char *event, const char *data)
{
  char frame[600], text[700];

  snprintf(frame, sizeof frame, "event: %s\ndata: %s\n\n", event, data);
  snprintf(text, sizeof text, "%zx\r\n%s\r\n", strlen(frame), frame);
  say(fd, text);
}

/* ---- the client: finds "#<number>;" in what it reads ---- */

static char tail[1 << 20];
static size_t ntail;

static void read_some(int fd)
{
  ssize_t k = recv(fd, tail + ntail, sizeof tail - 1 - ntail, MSG_DONTWAIT);
  int64_t now = now_ns();
  char *p = tail, *end;

  if (k == 0) die("the stream ended");
  if (k < 0) return;
  ntail += (size_t)k;
  tail[ntail] = '\0';
  while ((p = memchr(p, '#', (size_t)(tail + ntail - p)))) {
    long i = strtol(p + 1, &end, 10);
    if (*end == '\0') break; /* the rest is to come */
    if (*end == ';' && i == got && i < tokens) took_ns[got++] = now - sent_ns[i];
    p++;
  }
  if (!p) {
    ntail = 0;
  } else {
    ntail -= (size_t)(p - tail);
    memmove(tail, p, ntail);
  }
}

static void wait_until(int fd, int64_t when)
{
  struct pollfd p = {.fd = fd, .events = POLLIN};

  for (int64_t left; (left = when - now_ns()) > 0;) {
    struct timespec t = {.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    if (ppoll(&p, 1, &t, NULL) > 0) read_some(fd);
  }
}

static void pace(int model, int client, int as_frames)
{
  int64_t begin = now_ns() + 1000000;
  char text[300];

  got = 0;
  ntail = 0;
  for (int i = 0; i < tokens; i++) {
    wait_until(client, begin + (int64_t)i * gap_us * 1000);
    snprintf(text, sizeof text,
             "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"#%d; \"}}", i);
    sent_ns[i] = now_ns();
    if (as_frames)
      chunk(model, "content_block_delta", text);
    else
      say(model, text);
  }
  for (int64_t end = now_ns() + (int64_t)WAIT_MS * 1000000; got < tokens;) {
    wait_until(client, now_ns() + 1000000);
    if (now_ns() > end) {
      fprintf(stderr, "token: %d of %d came\n", got, tokens);
      exit(1);
    }
  }
}

static int by_value(const void *a, const void *b)
{
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void print(const char *what)
{
  int n = tokens - WARM;

  qsort(took_ns + WARM, (size_t)n, sizeof *took_ns, by_value);
  printf("%s p50 %.1f p99 %.1f max %.1f us", what, (double)took_ns[WARM + n / 2] / 1e3,
         (double)took_ns[WARM + (int)((double)n * 0.99)] / 1e3, (double)took_ns[WARM + n - 1] / 1e3);
}

/* ---- the model's side ---- */

/* Reads a request to its end: head, then content-length bytes. */
static void read_request(int fd)
{
  static char buf[1 << 20];
  size_t n = 0, want = 0;

  while (want == 0 || n < want) {
    ssize_t k = recv(fd, buf + n, sizeof buf - 1 - n, 0);
    char *end, *length;
    if (k <= 0) die("no request");
    n += (size_t)k;
    buf[n] = '\0';
    end = strstr(buf, "\r\n\r\n");
    length = strcasestr(buf, "content-length:");
    if (end && length) want = (size_t)(end + 4 - buf) + (size_t)strtoul(length + 15, NULL, 10);
  }
}

static int stream_open(int port, const char *key, const char *session)
{
  char text[600], head[2000];
  int fd = dial(port);

  snprintf(text, sizeof text,
           "GET /v1/sessions/%s/events/stream?event_deltas[]=agent.message HTTP/1.1\r\nhost: x\r\n"
           "authorization: Bearer %s\r\nanthropic-version: 2026-10-21\r\nanthropic-beta: managed-agents-2026-04-01\r\n\r\n",
           session, key);
  say(fd, text);
  if (recv(fd, head, sizeof head - 1, 0) < 12 || strncmp(head, "HTTP/1.1 200", 12) != 0) die("the stream");
  return fd;
}

static void post(int port, const char *key, const char *session)
{
  static const char body[] = "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"go\"}]}]}";
  char text[800];
  int fd = dial(port);

  snprintf(text, sizeof text,
           "POST /v1/sessions/%s/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\nanthropic-version: 2026-10-21\r\n"
           "anthropic-beta: managed-agents-2026-04-01\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
           session, key, sizeof body - 1, body);
  say(fd, text);
  if (recv(fd, text, sizeof text - 1, 0) < 12 || strncmp(text, "HTTP/1.1 200", 12) != 0) die("the message");
  close(fd);
}

static void through_server(int l)
{
  char line[400], key[200], session[100];
  int port, client, model;

  if (!fgets(line, sizeof line, stdin) || sscanf(line, "%d %199s %99s", &port, key, session) != 3) die("input");
  client = stream_open(port, key, session);
  post(port, key, session);
  model = accept(l, NULL, NULL);
  if (model < 0) die("accept");
  no_delay(model);
  read_request(model);
  say(model, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
  chunk(model, "message_start", "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\","
        "\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}}");
  chunk(model, "content_block_start",
        "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}");
  pace(model, client, 1);
  chunk(model, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}");
  chunk(model, "message_delta", "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":9}}");
  chunk(model, "message_stop", "{\"type\":\"message_stop\"}");
  say(model, "0\r\n\r\n");
  close(model);
  close(client);
}

/* ---- without a server between ---- */

static void *relay(void *ud)
{
  int *fd = ud;
  char buf[4096];
  ssize_t n;

  while ((n = recv(fd[0], buf, sizeof buf, 0)) > 0)
    if (send(fd[1], buf, (size_t)n, MSG_NOSIGNAL) != n) break;
  return NULL;
}

static void bare(int l, int port)
{
  int a = dial(port), ends[2], b;
  pthread_t t;

  ends[0] = accept(l, NULL, NULL);
  b = dial(port);
  ends[1] = accept(l, NULL, NULL);
  no_delay(ends[0]);
  no_delay(ends[1]);
  if (pthread_create(&t, NULL, relay, ends) != 0) die("thread");
  pace(a, b, 0);
  close(a);
  pthread_join(t, NULL);
}

int main(int argc, char **argv)
{
  int port, l;

  if (argc > 1) tokens = (int)strtol(argv[1], NULL, 10);
  if (argc > 2) gap_us = (int)strtol(argv[2], NULL, 10);
  if (tokens <= 2 * WARM || tokens > TOKENS_MAX || gap_us < 1) die("usage: token [tokens] [microseconds between them]");
  setvbuf(stdout, NULL, _IOLBF, 0);
  l = hear(&port);
  printf("listening %d\n", port);
  through_server(l);
  print("server");
  printf(", ");
  bare(l, port);
  print("relay");
  printf(", %d tokens\n", tokens);
  return 0;
}
