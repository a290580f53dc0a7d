/*
 * net_dial - guarded connections: each address judged right before it is dialled and no other dialled, one look-up,
 * the next address when one fails, refusals, time, cancelling, no memory. The name server is ours: getaddrinfo of this
 * program stands in front of the C library's.
 */
#include "kit.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <unistd.h>

#include "net/dial.h"

static struct {
  pthread_mutex_t lock;
  const char *addr[8];
  int n, asked, code;
} names = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef int getaddrinfo_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);
__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *port,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
  getaddrinfo_fn *real;
  struct addrinfo h = *hints;
  int r = 0;

  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (hints->ai_flags & AI_NUMERICHOST) return real(host, port, hints, out);
  pthread_mutex_lock(&names.lock);
  names.asked++;
  h.ai_flags |= AI_NUMERICHOST;
  r = names.code;
  for (int i = 0; i < names.n && !r; i++) {
    r = real(names.addr[i], port, &h, out);
    while (!r && *out)
      out = &(*out)->ai_next;
  }
  pthread_mutex_unlock(&names.lock);
  return r;
}

struct rig {
  struct mr_loop *loop;
  struct mr_dialer *d;
  struct mr_dial *dial;
  int done, fd, code;
  char peer[64], message[300];
  char judged[400];
  const char *no[4]; /* addresses that are refused */
};

static bool allow(void *ud, const struct sockaddr *sa, char why[200])
{
  struct rig *r = ud;
  char text[64];

  if (sa->sa_family == AF_INET)
    inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, text, sizeof text);
  else
    inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, text, sizeof text);
  snprintf(r->judged + strlen(r->judged), sizeof r->judged - strlen(r->judged), "%s ", text);
  for (int i = 0; i < 4 && r->no[i]; i++)
    if (strcmp(r->no[i], text) == 0) {
      snprintf(why, 200, "%s is not allowed", text);
      return false;
    }
  return true;
}

static void on_dial(void *ud, int fd, const struct sockaddr *sa, const struct mr_err *err)
{
  struct rig *r = ud;

  r->done++;
  r->dial = NULL;
  r->fd = fd;
  r->code = err ? err->code : MR_OK;
  snprintf(r->message, sizeof r->message, "%.290s", err ? err->message : "");
  if (sa && sa->sa_family == AF_INET)
    inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, r->peer, sizeof r->peer);
}

static void rig_open(struct rig *r)
{
  struct mr_err err;

  *r = (struct rig){.fd = -1};
  names.n = names.asked = names.code = 0;
  CHECK_INT(mr_loop_new(&r->loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(r->loop);
  CHECK_INT(mr_dialer_new(&r->d, r->loop, &err), MR_OK);
}

static void rig_close(struct rig *r)
{
  if (r->fd >= 0) close(r->fd);
  mr_dialer_free(&r->d);
  mr_loop_free(&r->loop);
  CHECK_INT(test_allocs(), 0);
}

static void wait_done(struct rig *r)
{
  for (int i = 0; !r->done && i < 30000; i++)
    if (mr_loop_pump(r->loop, 1000) != MR_MORE) usleep(1000);
  CHECK_INT(r->done, 1);
}

static void dial(struct rig *r, const char *host, int port, int64_t ms)
{
  struct mr_dial_req q = {.host = host, .port = port, .allow = allow, .timeout_ms = ms};
  struct mr_err err;

  r->done = 0;
  r->judged[0] = r->peer[0] = '\0';
  if (r->fd >= 0) close(r->fd);
  r->fd = -1;
  CHECK_INT(mr_dial_start(r->d, &q, on_dial, r, &r->dial, &err), MR_OK);
  CHECK_INT(r->done, 0); /* never inside */
}

/* A listener on address; *port is taken, or given. */
static int listener(const char *address, int *port)
{
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)*port)};
  socklen_t n = sizeof sa;
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  inet_pton(AF_INET, address, &sa.sin_addr);
  CHECK(bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0 && listen(fd, 8) == 0);
  CHECK(getsockname(fd, (struct sockaddr *)&sa, &n) == 0);
  *port = ntohs(sa.sin_port);
  return fd;
}

TEST(addresses)
{
  struct rig r;
  int port = 0, fd;

  rig_open(&r);
  fd = listener("127.0.0.1", &port);
  dial(&r, "127.0.0.1", port, 0);
  wait_done(&r);
  CHECK(r.fd >= 0 && r.code == MR_OK);
  CHECK_STR(mr_str_c(r.peer), "127.0.0.1");
  CHECK_STR(mr_str_c(r.judged), "127.0.0.1 ");
  r.no[0] = "127.0.0.1";
  dial(&r, "127.0.0.1", port, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_DENIED);
  CHECK_STR(mr_str_c(r.message), "127.0.0.1 is not allowed");
  r.no[0] = NULL;
  close(fd);
  dial(&r, "127.0.0.1", port, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_IO);
  CHECK_INT(names.asked, 0); /* an address is not looked up */
  rig_close(&r);
}

TEST(names_are_looked_up_once)
{
  struct rig r;
  int port = 0, fd, other;

  rig_open(&r);
  fd = listener("127.0.0.1", &port);
  other = listener("127.0.0.3", &port);
  /* The first one is closed, the second refused by the rules, the third stands; the fourth is not needed. */
  names.addr[0] = "127.0.0.2", names.addr[1] = "127.0.0.3", names.addr[2] = "127.0.0.1", names.addr[3] = "127.0.0.4";
  names.n = 4;
  r.no[0] = "127.0.0.3";
  dial(&r, "some.test", port, 0);
  wait_done(&r);
  CHECK(r.fd >= 0);
  CHECK_STR(mr_str_c(r.peer), "127.0.0.1");
  CHECK_STR(mr_str_c(r.judged), "127.0.0.2 127.0.0.3 127.0.0.1 ");
  CHECK_INT(names.asked, 1);
  names.addr[0] = "127.0.0.3";
  names.n = 1;
  dial(&r, "some.test", port, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_DENIED);
  CHECK_INT(names.asked, 2);
  close(fd);
  close(other);
  rig_close(&r);
}

TEST(no_such_name)
{
  struct rig r;

  rig_open(&r);
  names.code = EAI_NONAME;
  dial(&r, "none.test", 80, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_NOTFOUND);
  CHECK_STR(mr_str_c(r.message), "host none.test does not exist");
  names.code = EAI_AGAIN;
  dial(&r, "none.test", 80, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_IO);
  names.code = 0; /* an answer without an address */
  dial(&r, "none.test", 80, 0);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_NOTFOUND);
  rig_close(&r);
}

TEST(time_and_cancelling)
{
  struct rig r;
  int port = 0, fd, n = 0, held[64];

  rig_open(&r);
  pthread_mutex_lock(&names.lock); /* a name server that does not answer */
  dial(&r, "slow.test", 80, 50);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_TIMEOUT);
  dial(&r, "slow.test", 80, 0);
  mr_dial_cancel(&r.dial);
  CHECK(r.dial == NULL);
  pthread_mutex_unlock(&names.lock);
  for (int i = 0; i < 200; i++)
    mr_loop_pump(r.loop, 1000), usleep(1000);
  CHECK_INT(r.done, 0);
  /* A listener whose backlog is full takes nobody: the connection hangs. */
  fd = listener("127.0.0.1", &port);
  listen(fd, 0);
  for (; n < 64; n++) {
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    held[n] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(held[n], (struct sockaddr *)&sa, sizeof sa);
  }
  dial(&r, "127.0.0.1", port, 300);
  wait_done(&r);
  CHECK_INT(r.code, MR_E_TIMEOUT);
  dial(&r, "127.0.0.1", port, 0);
  mr_loop_pump(r.loop, 1000);
  mr_dial_cancel(&r.dial);
  while (n)
    close(held[--n]);
  close(fd);
  rig_close(&r);
}

/* One that asks for names which nobody answers waits for itself; another has its own. */
TEST(owners_have_their_turn)
{
  struct mr_dial_req q = {.host = "slow.test", .port = 9, .allow = allow, .owner = &q};
  struct mr_dial *dials[20];
  struct rig r;
  struct mr_err err;
  int started = 0;

  rig_open(&r);
  pthread_mutex_lock(&names.lock);
  for (int i = 0; i < 20; i++)
    CHECK_INT(mr_dial_start(r.d, &q, on_dial, &r, &dials[i], &err), MR_OK);
  for (int i = 0; i < 10; i++)
    mr_dial_cancel(&dials[i]); /* what was begun for them still counts */
  for (int i = 0; i < 50; i++)
    mr_loop_pump(r.loop, 1000), usleep(1000);
  names.code = EAI_NONAME;
  pthread_mutex_unlock(&names.lock);
  for (int i = 0; r.done < 10 && i < 30000; i++)
    if (mr_loop_pump(r.loop, 1000) != MR_MORE) usleep(1000);
  CHECK_INT(r.done, 10);
  CHECK_INT(r.code, MR_E_NOTFOUND);
  started = names.asked;
  CHECK_INT(started, 13); /* three were under way, those that nobody wanted any more were not begun */
  rig_close(&r);
}

TEST(no_memory)
{
  for (long k = 0;; k++) {
    struct mr_dial_req q = {.host = "some.test", .port = 9, .allow = allow};
    struct rig r;
    struct mr_err err;
    int code;

    rig_open(&r);
    names.addr[0] = "127.0.0.1";
    names.n = 1;
    test_fail_after(k);
    code = mr_dial_start(r.d, &q, on_dial, &r, &r.dial, &err);
    test_fail_after(-1);
    if (code == MR_OK) wait_done(&r);
    rig_close(&r);
    if (code == MR_OK) break;
    CHECK_INT(code, MR_E_NOMEM);
    CHECK(k < 50);
  }
}
