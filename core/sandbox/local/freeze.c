/*
 * freeze.c - stops what runs in a sandbox while its files are copied, by a connection of its own to envd, which
 * stops every process but itself and says so. The connection is the freeze: when it closes, by the copy's end,
 * this program's death or envd's own limit, everything goes on. An envd that is older than the message is left
 * running, and so is one that was not reached: the caller is told. Pool threads.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/helpers/proto.h"

enum { FREEZE_MAX_MS = 300000, ANSWER_MS = 10000, FRAME_MAX = 4096 };

static int64_t now_ms(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool read_all(int fd, void *to, size_t n, int64_t until)
{
  struct pollfd p = {.fd = fd, .events = POLLIN};
  char *at = to;

  while (n > 0) {
    int64_t left = until - now_ms();
    ssize_t got = recv(fd, at, n, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (got > 0) {
      at += got;
      n -= (size_t)got;
    } else if (left <= 0 || poll(&p, 1, (int)left) == 0) {
      return false;
    }
  }
  return true;
}

static yyjson_doc *read_frame(const struct mr_local_conf *c, int fd, int64_t until)
{
  unsigned char head[MR_ENVD_HEADER];
  char text[FRAME_MAX];
  yyjson_doc *doc = NULL;
  size_t n;

  if (!read_all(fd, head, sizeof head, until)) return NULL;
  n = mr_envd_header_get(head);
  if (n == 0 || n > sizeof text || !read_all(fd, text, n, until)) return NULL;
  return mr_json_parse(&c->sys->mem, mr_str_n(text, n), n, &doc, NULL) == MR_OK ? doc : NULL;
}

static bool knows(yyjson_doc *hello)
{
  yyjson_val *root = yyjson_doc_get_root(hello);

  return mr_str_is(mr_json_get_str(root, "t"), "hello") &&
         yyjson_get_sint(yyjson_arr_get(mr_json_get(root, "proto"), 1)) >= MR_ENVD_PROTO_FREEZE;
}

int mr_local_freeze(const struct mr_local_conf *c, int dir, bool *still)
{
  int64_t until = now_ms() + ANSWER_MS;
  int fd = mr_local_connect(dir), n, refused = fd < 0 ? errno : 0;
  unsigned char frame[MR_ENVD_HEADER + 64];
  yyjson_doc *doc = fd >= 0 ? read_frame(c, fd, until) : NULL;
  bool ok = doc && knows(doc);

  yyjson_doc_free(doc);
  if (ok) {
    n = snprintf((char *)frame + MR_ENVD_HEADER, 64, "{\"t\":\"freeze\",\"ms\":%d}", FREEZE_MAX_MS);
    mr_envd_header_put(frame, (uint32_t)n);
    ok = send(fd, frame, MR_ENVD_HEADER + (size_t)n, MSG_NOSIGNAL) == MR_ENVD_HEADER + n;
    doc = ok ? read_frame(c, fd, until) : NULL;
    ok = doc && mr_str_is(mr_json_get_str(yyjson_doc_get_root(doc), "t"), "frozen");
    yyjson_doc_free(doc);
  }
  *still = ok || refused == ENOENT || refused == ECONNREFUSED; /* nobody is there */
  if (!ok && fd >= 0) close(fd);
  return ok ? fd : -1;
}

bool mr_local_frozen(int fd)
{
  char byte;
  return recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
}
