/*
 * messages_fast - a model server for benchmarks: the Messages streaming protocol with no time to think and
 * as little CPU as a server can use, so that what is measured is the runtime and not this.
 *
 * A turn is two calls: a request whose last message holds no tool_result gets one tool_use (the first
 * tool of the request, or --tool), any other gets --deltas text deltas. One thread, epoll, keep-alive,
 * loopback only. It believes its clients: bodies are searched, not parsed, and nothing is checked; use
 * messages.py for that.
 *
 *   messages_fast [--port 0] [--tool NAME] [--input JSON] [--deltas 50]
 *
 * Prints "listening PORT". GET /count answers {"count":N}.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 128, BODY_MAX = 64 << 20, HEAD_MAX = 64 << 10 };

struct conn {
  int fd;
  char *in;
  size_t n, cap;
  const char *out; /* what is left to write: of text, or of own */
  size_t left;
  char own[4096];
};

struct server {
  int ep;
  const char *tool, *input;
  char *text; /* the whole text response, made once */
  size_t text_n;
  unsigned long count, tools, bytes; /* bytes: of all bodies */
};

/* ---- responses ---- */

static const char head[] =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
static const char begin[] =
    "event: message_start\ndata: "
    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_fast\",\"type\":\"message\","
    "\"role\":\"assistant\",\"model\":\"fast\",\"content\":[],\"stop_reason\":null,\"usage\":{"
    "\"input_tokens\":100,"
    "\"output_tokens\":1}}}\n\n";

static size_t frame(char *to, size_t cap, const char *data)
{
  int n = snprintf(to, cap, "%zx\r\n%s\r\n", strlen(data), data);
  return n < 0 || (size_t)n >= cap ? 0 : (size_t)n;
}

static size_t finish(char *to, size_t cap, const char *stop, int tokens)
{
  char d[512];
  snprintf(d, sizeof d,
           "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n"
           "event: message_delta\ndata: "
           "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"%s\"},\"usage\":"
           "{\"output_tokens\":%d}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
           stop, tokens);
  size_t n = frame(to, cap, d);
  return n + (size_t)snprintf(to + n, cap - n, "0\r\n\r\n");
}

static bool make_text(struct server *s, int deltas)
{
  size_t cap = 4096 + (size_t)deltas * 256, n = 0;
  char d[256];
  s->text = malloc(cap);
  if (!s->text) return false;
  n += (size_t)snprintf(s->text, cap, "%s", head);
  n += frame(s->text + n, cap - n, begin);
  n += frame(s->text + n, cap - n,
             "event: content_block_start\ndata: "
             "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
             "{\"type\":\"text\",\"text\":\"\"}}\n\n");
  for (int i = 0; i < deltas; i++) {
    snprintf(
        d, sizeof d,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
        "{\"type\":\"text_delta\",\"text\":\"word%d \"}}\n\n",
        i);
    n += frame(s->text + n, cap - n, d);
  }
  n += finish(s->text + n, cap - n, "end_turn", deltas);
  s->text_n = n;
  return true;
}

static void answer_tool(struct server *s, struct conn *c, const char *name, size_t name_n)
{
  char d[1536], in[1024];
  size_t q = 0;
  for (const char *p = s->input; *p && q + 2 < sizeof in; p++) {
    if (*p == '"' || *p == '\\') in[q++] = '\\';
    in[q++] = *p;
  }
  in[q] = 0;
  size_t n = (size_t)snprintf(c->own, sizeof c->own, "%s", head);
  n += frame(c->own + n, sizeof c->own - n, begin);
  snprintf(d, sizeof d,
           "event: content_block_start\ndata: "
           "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
           "\"tool_use\",\"id\":\"toolu_fast%lu\",\"name\":\"%.*s\",\"input\":{}}}\n\nevent: "
           "content_block_delta\ndata: "
           "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"input_json_delta\","
           "\"partial_json\":\"%s"
           "\"}}\n\n",
           ++s->tools, (int)name_n, name, in);
  n += frame(c->own + n, sizeof c->own - n, d);
  n += finish(c->own + n, sizeof c->own - n, "tool_use", 20);
  c->out = c->own;
  c->left = n;
}

static const char *find(const char *p, size_t n, const char *what)
{
  return memmem(p, n, what, strlen(what));
}

/* The value of the first "name" inside the request's tools; the head of the body holds them. */
static const char *first_tool(const char *b, size_t n, size_t *len)
{
  const char *t = find(b, n, "\"tools\":[");
  const char *k = t ? find(t, n - (size_t)(t - b), "\"name\":\"") : NULL;
  if (!k) return NULL;
  k += 8;
  const char *end = memchr(k, '"', n - (size_t)(k - b));
  *len = end ? (size_t)(end - k) : 0;
  return end && *len <= 128 ? k : NULL;
}

static bool has_result(const char *b, size_t n)
{
  for (size_t end = n; end;) {
    const char *p = memrchr(b, '{', end);
    if (!p) break;
    size_t at = (size_t)(p - b);
    if (n - at > 8 && memcmp(p, "{\"role\":", 8) == 0)
      return find(p, n - at, "\"tool_result\"") != NULL;
    end = at;
  }
  return false;
}

static void answer(struct server *s, struct conn *c, const char *req, const char *body, size_t n)
{
  if (strncmp(req, "GET ", 4) == 0) {
    char d[96];
    int k = snprintf(d, sizeof d, "{\"count\":%lu,\"bytes\":%lu}", s->count, s->bytes);
    c->left = (size_t)snprintf(
        c->own, sizeof c->own,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s", k, d);
    c->out = c->own;
    return;
  }
  s->count++;
  s->bytes += n;
  size_t name_n = s->tool ? strlen(s->tool) : 0;
  const char *name = s->tool ? s->tool : first_tool(body, n, &name_n);
  if (name && !has_result(body, n)) {
    answer_tool(s, c, name, name_n);
    return;
  }
  c->out = s->text;
  c->left = s->text_n;
}

/* ---- requests ---- */

static const char *header(const char *h, const char *end, const char *name)
{
  size_t k = strlen(name);
  for (const char *p = h; p < end;) {
    const char *nl = memchr(p, '\n', (size_t)(end - p));
    if (!nl) return NULL;
    p = nl + 1;
    if ((size_t)(end - p) > k && strncasecmp(p, name, k) == 0 && p[k] == ':') return p + k + 1;
  }
  return NULL;
}

/* Joins a chunked body in place. Bytes of the whole on the wire, 0 when more must come; -1 broken. */
static long unchunk(char *b, size_t n, size_t *body_n)
{
  size_t at = 0, to = 0;
  for (;;) {
    char *nl = memchr(b + at, '\n', n - at), *stop = NULL;
    if (!nl) return 0;
    unsigned long k = strtoul(b + at, &stop, 16);
    size_t data = (size_t)(nl + 1 - b);
    if (stop == b + at || k > BODY_MAX) return -1;
    if (n - data < k + 2) return 0;
    /* Moved only once all of it is here, or a second look would read what was moved. */
    at = data + k + 2;
    if (k == 0) break;
  }
  for (size_t p = 0;;) {
    char *nl = memchr(b + p, '\n', n - p);
    unsigned long k = nl ? strtoul(b + p, NULL, 16) : 0;
    if (!k) break;
    p = (size_t)(nl + 1 - b);
    memmove(b + to, b + p, k);
    to += k;
    p += k + 2;
  }
  *body_n = to;
  return (long)at;
}

/* Answers the request at the front of c->in, if it is whole. False: close. */
static bool take(struct server *s, struct conn *c)
{
  if (c->left || !c->n) return true;
  char *end = memmem(c->in, c->n, "\r\n\r\n", 4);
  if (!end) return c->n < HEAD_MAX;
  char *body = end + 4;
  size_t have = c->n - (size_t)(body - c->in), body_n = 0;
  const char *len = header(c->in, end, "content-length"),
             *te = header(c->in, end, "transfer-encoding");
  long wire = 0;
  if (te) {
    wire = unchunk(body, have, &body_n);
    if (wire <= 0) return wire == 0;
  } else if (len) {
    body_n = strtoul(len, NULL, 10);
    if (body_n > BODY_MAX) return false;
    if (have < body_n) return true;
    wire = (long)body_n;
  }
  answer(s, c, c->in, body, body_n);
  size_t used = (size_t)(body - c->in) + (size_t)wire;
  memmove(c->in, c->in + used, c->n - used);
  c->n -= used;
  return true;
}

static void drop(struct conn *c)
{
  close(c->fd);
  free(c->in);
  free(c);
}

static bool push(struct server *s, struct conn *c)
{
  while (c->left) {
    const char *end = memmem(c->out, c->left, "\n\n\r\n", 4); /* one event a send, as providers do */
    ssize_t k = send(c->fd, c->out, end ? (size_t)(end + 4 - c->out) : c->left, MSG_NOSIGNAL);
    if (k < 0 && errno == EINTR) continue;
    if (k < 0 && errno == EAGAIN) break;
    if (k <= 0) return false;
    c->out += k;
    c->left -= (size_t)k;
    if (!c->left && !take(s, c)) return false;
  }
  struct epoll_event e = {.events = EPOLLIN | (c->left ? EPOLLOUT : 0u), .data.ptr = c};
  return !c->left || epoll_ctl(s->ep, EPOLL_CTL_MOD, c->fd, &e) == 0;
}

static bool pull(struct server *s, struct conn *c)
{
  for (;;) {
    if (c->cap - c->n < 65536) {
      size_t cap = c->cap ? c->cap * 2 : 131072;
      char *p = cap > 2 * (size_t)BODY_MAX ? NULL : realloc(c->in, cap);
      if (!p) return false;
      c->in = p;
      c->cap = cap;
    }
    size_t room = c->cap - c->n;
    ssize_t k = recv(c->fd, c->in + c->n, room, 0);
    if (k < 0 && errno == EINTR) continue;
    if (k < 0 && errno == EAGAIN) return true;
    if (k <= 0) return false;
    c->n += (size_t)k;
    if (!take(s, c)) return false;
    if ((size_t)k < room) return true; /* level-triggered: what comes later wakes us again */
  }
}

static void serve(struct server *s, struct conn *c, uint32_t events)
{
  bool was = c->left > 0, ok = true;
  if (events & (EPOLLHUP | EPOLLERR)) ok = false;
  if (ok && (events & EPOLLIN)) ok = pull(s, c);
  if (ok && c->left) ok = push(s, c);
  if (ok && was && !c->left) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    ok = epoll_ctl(s->ep, EPOLL_CTL_MOD, c->fd, &e) == 0;
  }
  if (!ok) drop(c);
}

static void greet(struct server *s, int lfd)
{
  for (;;) {
    int fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), one = 1;
    if (fd < 0) return;
    struct conn *c = calloc(1, sizeof *c);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c) c->fd = fd;
    if (!c || epoll_ctl(s->ep, EPOLL_CTL_ADD, fd, &e) != 0) {
      close(fd);
      free(c);
    }
  }
}

static int listen_on(int port)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  socklen_t n = sizeof a;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(fd, 1024) != 0) return -1;
  getsockname(fd, (struct sockaddr *)&a, &n);
  printf("listening %d\n", ntohs(a.sin_port));
  fflush(stdout);
  return fd;
}

int main(int argc, char **argv)
{
  struct server s = {.input = "{}"};
  struct epoll_event events[EVENTS], e = {.events = EPOLLIN};
  int port = 0, deltas = 50;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--port") == 0)
      port = (int)strtol(argv[i + 1], NULL, 10);
    else if (strcmp(argv[i], "--tool") == 0)
      s.tool = argv[i + 1];
    else if (strcmp(argv[i], "--input") == 0)
      s.input = argv[i + 1];
    else if (strcmp(argv[i], "--deltas") == 0)
      deltas = (int)strtol(argv[i + 1], NULL, 10);
  }
  int lfd = listen_on(port);
  s.ep = epoll_create1(EPOLL_CLOEXEC);
  if (lfd < 0 || s.ep < 0 || deltas < 0 || deltas > 100000 || !make_text(&s, deltas)) {
    fprintf(stderr, "messages_fast: cannot start: %s\n", strerror(errno));
    return 1;
  }
  epoll_ctl(s.ep, EPOLL_CTL_ADD, lfd, &e);
  for (;;) {
    int n = epoll_wait(s.ep, events, EVENTS, -1);
    for (int i = 0; i < n; i++) {
      if (!events[i].data.ptr)
        greet(&s, lfd);
      else
        serve(&s, events[i].data.ptr, events[i].events);
    }
    if (n < 0 && errno != EINTR) return 1;
  }
}
