/*
 * net_guarded - the HTTP client with a guard, against real servers on the loopback: one that plays the web and is listed
 * (127.0.0.1), one that plays what is inside (127.0.0.2). Each way in is tried without a guard first, to see that it
 * is one. Names are resolved by a resolver of the test's own, which can change its mind (tests/sandbox: 31 to 33).
 */
#include "net_kit.h"
#include "net/guard.h"
#include "net/http_client.h"

#include <netdb.h>
#include <semaphore.h>

static struct mr_http_client *client;
static struct mr_http_server *web, *inside;
static int web_port, inside_port;
static struct mr_guard *guard; /* lists 127.0.0.1 */

/* ---- the resolver: libcurl's, in this process ---- */

static int lookups; /* of rebind.example */
static sem_t asked, answer, left; /* of stuck.example: whoever asks waits for its answer, which is no address */

static struct addrinfo *entry(const char *ip, int at, struct addrinfo *next)
{
  struct addrinfo *a = calloc(1, sizeof *a);
  struct sockaddr_in *sa = calloc(1, sizeof *sa);

  sa->sin_family = AF_INET;
  sa->sin_port = htons((uint16_t)at);
  inet_pton(AF_INET, ip, &sa->sin_addr);
  *a = (struct addrinfo){.ai_family = AF_INET,
                         .ai_socktype = SOCK_STREAM,
                         .ai_protocol = IPPROTO_TCP,
                         .ai_addrlen = sizeof *sa,
                         .ai_addr = (struct sockaddr *)sa,
                         .ai_next = next};
  return a;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *a)
{
  for (struct addrinfo *next; a; a = next) {
    next = a->ai_next;
    free(a->ai_addr);
    free(a);
  }
}

__attribute__((visibility("default"))) int getaddrinfo(const char *name, const char *service,
                                                       const struct addrinfo *hints, struct addrinfo **out)
{
  int at = service ? atoi(service) : 0;
  struct in_addr v4;

  (void)hints;
  *out = NULL;
  if (strncasecmp(name, "rebind.example", 14) == 0)
    *out = entry(__atomic_fetch_add(&lookups, 1, __ATOMIC_SEQ_CST) ? "127.0.0.2" : "127.0.0.1", at, NULL);
  else if (strncasecmp(name, "inside.example", 14) == 0)
    *out = entry("127.0.0.2", at, NULL);
  else if (strncasecmp(name, "both.example", 12) == 0)
    *out = entry("127.0.0.2", at, entry("127.0.0.1", at, NULL));
  else if (strncasecmp(name, "localhost", 9) == 0)
    *out = entry("127.0.0.2", at, NULL);
  else if (strncasecmp(name, "stuck.example", 13) == 0) {
    sem_post(&asked);
    sem_wait(&answer);
    sem_post(&left);
  }
  else if (inet_aton(name, &v4)) /* as the system's does, in all forms */
    *out = entry(inet_ntoa(v4), at, NULL);
  return *out ? 0 : EAI_NONAME;
}

/* ---- the servers ---- */

static void on_web(void *ud, struct mr_http_x *x)
{
  struct mr_str h;
  char line[600];

  (void)ud;
  if (mr_str_is(mr_http_path(x), "/to")) {
    snprintf(line, sizeof line, "location: %.*s", MR_ARG(mr_http_query(x)));
    h = mr_str_c(line);
    mr_http_reply(x, 302, &h, 1, MR_S(""));
  } else if (mr_str_is(mr_http_path(x), "/long")) {
    static char body[2 << 20];
    mr_http_reply(x, 200, NULL, 0, mr_str_n(body, sizeof body));
  } else if (mr_str_is(mr_http_path(x), "/again")) {
    h = MR_S("location: /again");
    mr_http_reply(x, 302, &h, 1, MR_S(""));
  } else {
    mr_http_reply(x, 200, NULL, 0, MR_S("the web"));
  }
}

static void on_inside(void *ud, struct mr_http_x *x)
{
  (void)ud;
  mr_http_reply(x, 200, NULL, 0, MR_S("a secret"));
}

static int start(struct mr_http_server **s, const char *address, void (*fn)(void *ud, struct mr_http_x *x))
{
  struct mr_http_server_opts o = {.on_request = fn};
  struct mr_http_listen l = {.address = address};
  struct mr_err err = {0};

  CHECK_INT(mr_http_server_new(s, loop, &o, &err), MR_OK);
  if (mr_http_server_listen(*s, &l, url, sizeof url, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "%s", err.message);
  return atoi(strrchr(url, ':') + 1);
}

static struct mr_guard *listing(const char *entry_text)
{
  struct mr_str e = mr_str_c(entry_text);
  struct mr_guard *g;
  struct mr_err err = {0};

  CHECK_INT(mr_guard_new(&g, &test_sys()->mem, &e, e.n ? 1 : 0, "allow_private_hosts", &err), MR_OK);
  return g;
}

static void begin(void)
{
  struct mr_err err = {0};

  CHECK_INT(mr_loop_new(&loop, test_sys(), NULL, &err), MR_OK);
  mr_loop_enter(loop);
  web_port = start(&web, "127.0.0.1:0", on_web);
  inside_port = start(&inside, "127.0.0.2:0", on_inside);
  CHECK_INT(mr_http_client_new(&client, loop, NULL, &err), MR_OK);
  guard = listing("127.0.0.1");
}

static void end(void)
{
  mr_http_client_free(&client);
  mr_http_server_free(&web);
  mr_http_server_free(&inside);
  mr_guard_free(&guard);
  mr_loop_free(&loop);
  CHECK_INT(test_allocs(), 0);
}

static struct mr_http_server_stats stats(struct mr_http_server *s)
{
  struct mr_http_server_stats st;
  mr_http_server_stats(s, &st);
  return st;
}

/* ---- one request ---- */

struct got {
  int done, code, status;
  char body[64], message[400];
};

static int on_bytes(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  struct got *g = ud;
  size_t n = strlen(g->body);
  (void)r;
  snprintf(g->body + n, sizeof g->body - n, "%.*s", MR_ARG(bytes));
  return MR_OK;
}

static void on_over(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  struct got *g = ud;
  (void)r;
  g->code = d->code;
  g->status = d->status;
  if (d->err) snprintf(g->message, sizeof g->message, "%s", d->err->message);
  g->done++;
}

static struct got get_with(struct mr_http_out_req q)
{
  static const struct mr_http_out_cbs cbs = {NULL, on_bytes, on_over};
  struct mr_http_out *out;
  struct mr_err err = {0};
  struct got g = {0};
  int64_t limit = mr_mono_us(test_sys()) + 20 * INT64_C(1000000);

  q.method = "GET";
  CHECK_INT(mr_http_out_start(client, &q, &cbs, &g, &out, &err), MR_OK);
  while (!g.done && mr_mono_us(test_sys()) < limit) {
    turn(1);
    if (!g.done) usleep(200);
  }
  CHECK(g.done);
  return g;
}

static struct got get(const struct mr_guard *with, const char *fmt, int at)
{
  char text[700];

  snprintf(text, sizeof text, fmt, at, at);
  return get_with((struct mr_http_out_req){.url = text, .follow = 5, .guard = with, .connect_timeout_ms = 5000});
}

static void denied(struct got g, const char *fmt, const char *why)
{
  if (g.code != MR_E_DENIED || !strstr(g.message, why))
    test_fail(__FILE__, __LINE__, "%s: code %d, status %d, \"%s\", body \"%s\"", fmt, g.code, g.status, g.message,
              g.body);
}

TEST(what_is_listed_is_reached)
{
  struct got g;
  struct mr_guard *named;

  begin();
  g = get(guard, "http://127.0.0.1:%d/", web_port);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(g.body), "the web");
  named = listing("inside.example"); /* by its name, whatever its address */
  g = get(named, "http://Inside.Example.:%d/", inside_port);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(g.body), "a secret");
  denied(get(named, "http://127.0.0.2:%d/", inside_port), "its address", "127.0.0.2, a loopback address");
  denied(get(named, "http://other.inside.example@127.0.0.2:%d/", inside_port), "as a user", "user name");
  denied(get(named, "http://127.0.0.2:%d/#inside.example", inside_port), "as a fragment", "loopback");
  mr_guard_free(&named);
  end();
}

/* 33. reaches: without a guard the request arrives, which is the attack. */
TEST(hosts_in_all_forms)
{
  static const struct {
    const char *url;
    bool reaches;
    const char *why;
  } forms[] = {
      {"http://127.0.0.2:%d/", true, "loopback"},
      {"http://2130706434:%d/", true, "loopback"},
      {"http://0x7f000002:%d/", true, "loopback"},
      {"http://0X7F.2:%d/", true, "loopback"},
      {"http://0177.0.0.2:%d/", true, "loopback"},
      {"http://017700000002:%d/", true, "loopback"},
      {"http://127.2:%d/", true, "loopback"},
      {"http://[::ffff:127.0.0.2]:%d/", true, "loopback"},
      {"http://[::FFFF:7F00:2]:%d/", true, "loopback"},
      {"http://[0:0:0:0:0:ffff:127.0.0.2]:%d/", true, "loopback"},
      {"HTTP://LocalHost:%d/", false, "loopback"},
      {"http://localhost.:%d/", false, "loopback"},
      {"http://inside.example:%d/", true, "loopback"},
      {"http://INSIDE.EXAMPLE.:%d/", true, "loopback"},
      {"http://a@127.0.0.2:%d/", true, "user name"},
      {"http://127.0.0.1:80@127.0.0.2:%d/", true, "user name"},
      {"http://127.0.0.2:%d#127.0.0.1/", true, "loopback"},
      {"http://127.0.0.2:%d?127.0.0.1", true, "loopback"},
      {"http:/127.0.0.2:%d/", true, ""},
      {"http://0.0.0.0:%d/", false, "this host"},
      {"http://0:%d/", false, "this host"},
      {"http://[::]:%d/", false, "reserved"},
      {"http://[::1]:%d/", false, "loopback"},
      {"http://[64:ff9b::7f00:2]:%d/", false, "loopback"},
      {"http://[64:ff9b::a9fe:a9fe]:%d/", false, "link-local"},
      {"http://[2002:7f00:2::]:%d/", false, "loopback"},
      {"http://[fd00:ec2::254]:%d/", false, "private"},
      {"http://169.254.169.254:%d/", false, "link-local"},
      {"http://10.0.0.1:%d/", false, "private"},
      {"http://100.64.0.1:%d/", false, "shared"},
  };
  uint64_t before;

  begin();
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    if (forms[i].reaches) {
      struct got g = get(NULL, forms[i].url, inside_port);
      if (g.code != MR_OK && strchr(forms[i].url, '[')) /* no IPv6 here */
        fprintf(stderr, "without a guard %s: %s\n", forms[i].url, g.message);
      else if (g.code != MR_OK || strcmp(g.body, "a secret") != 0)
        test_fail(__FILE__, __LINE__, "without a guard %s does not arrive: %s", forms[i].url, g.message);
    }
    before = stats(inside).accepted;
    denied(get(guard, forms[i].url, inside_port), forms[i].url, forms[i].why);
    CHECK_INT(stats(inside).accepted, before);
  }
  end();
}

/* Forms that only some readers of URLs take for an address: whatever this one takes them for, nothing arrives. */
TEST(hosts_in_odd_forms)
{
  static const char *const forms[] = {"http://127.0.0.2.:%d/",
                                      "http://127.0.0.2%%00.example:%d/",
                                      "http://127.0.0.2%%2eexample:%d/",
                                      "http://127.0.0.2\\@127.0.0.1:%d/",
                                      "http://127.0.0.2 .example:%d/",
                                      "http://\xe2\x91\xa0\xe2\x91\xa1\xe2\x91\xa6.0.0.\xe2\x91\xa1:%d/",
                                      "http://\xef\xbc\x91\xef\xbc\x92\xef\xbc\x97\xe3\x80\x82" "0.0.2:%d/",
                                      "http://[::ffff:127.0.0.2%%25lo]:%d/",
                                      "http://[fe80::1%%25lo]:%d/",
                                      "http://[v1.127.0.0.2]:%d/",
                                      "http://256.1.1.1:%d/",
                                      "file:///etc/hostname?%d",
                                      "gopher://127.0.0.2:%d/_x",
                                      "dict://127.0.0.2:%d/x",
                                      "ftp://127.0.0.2:%d/"};

  begin();
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
    struct got g = get(guard, forms[i], inside_port);
    if (g.code == MR_OK) test_fail(__FILE__, __LINE__, "%s: \"%s\"", forms[i], g.body);
    CHECK_INT(stats(inside).accepted, 0);
  }
  end();
}

/* 32 */
TEST(redirects_are_looked_at_one_by_one)
{
  static const struct {
    const char *target;
    const char *why;
  } to[] = {{"http://127.0.0.2:%d/", "loopback"},      {"http://inside.example:%d/", "loopback"},
            {"//2130706434:%d/", "loopback"},          {"http://169.254.169.254:%d/latest/", "link-local"},
            {"http://[fd00:ec2::254]:%d/", "private"}, {"file:///etc/passwd?%d", "only http and https"},
            {"gopher://127.0.0.2:%d/_x", "only http"}, {"dict://127.0.0.2:%d/x", "only http and https"},
            {"ftp://127.0.0.2:%d/", "only http"},      {"http://a:b@127.0.0.2:%d/", "user name"}};
  char at[300];
  struct got g;

  begin();
  for (size_t i = 0; i < sizeof to / sizeof *to; i++) {
    snprintf(at, sizeof at, "http://127.0.0.1:%d/to?%s", web_port, to[i].target);
    denied(get(guard, at, inside_port), at, to[i].why);
  }
  CHECK_INT(stats(inside).accepted, 0);
  snprintf(at, sizeof at, "http://127.0.0.1:%d/to?http://127.0.0.2:%%d/", web_port);
  g = get(NULL, at, inside_port);
  CHECK_STR(mr_str_c(g.body), "a secret"); /* the attack, without a guard */
  g = get(guard, "http://127.0.0.1:%d/to?http://127.0.0.1:%d/", web_port);
  CHECK_STR(mr_str_c(g.body), "the web");
  end();
}

TEST(redirects_without_end)
{
  struct got g;

  begin();
  g = get(guard, "http://127.0.0.1:%d/again", web_port);
  CHECK_INT(g.code, MR_E_IO);
  CHECK(strstr(g.message, "redirects"));
  CHECK_INT(stats(web).requests, 6);
  end();
}

/* 31. The name is looked up anew for another port; by then it is another address. */
TEST(a_name_that_changes_its_mind)
{
  struct got g;
  char at[300];

  begin();
  g = get(guard, "http://rebind.example:%d/", web_port);
  CHECK_STR(mr_str_c(g.body), "the web");
  denied(get(guard, "http://rebind.example:%d/", inside_port), "rebound", "rebind.example leads to 127.0.0.2");
  CHECK_INT(lookups, 2);
  CHECK_INT(stats(inside).accepted, 0);

  __atomic_store_n(&lookups, 0, __ATOMIC_SEQ_CST);
  mr_http_client_free(&client); /* and what it remembers of names */
  CHECK_INT(mr_http_client_new(&client, loop, NULL, NULL), MR_OK);
  snprintf(at, sizeof at, "http://rebind.example:%d/to?http://rebind.example:%%d/", web_port);
  denied(get(guard, at, inside_port), at, "loopback");
  CHECK_INT(stats(inside).accepted, 0);
  g = get(NULL, "http://rebind.example:%d/", inside_port);
  CHECK_STR(mr_str_c(g.body), "a secret");
  end();
}

/* Of several addresses those that may be dialled are. */
TEST(a_name_with_two_addresses)
{
  struct got g;

  begin();
  g = get(guard, "http://both.example:%d/", web_port);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(g.body), "the web");
  end();
}

/* A name server that says nothing: neither a time-out, nor a request that is given up, nor the client's end waits for
 * it. Each of them would be the loop's waiting. */
TEST(a_name_that_gets_no_answer)
{
  static const struct mr_http_out_cbs cbs = {.done = on_over};
  struct mr_http_out_req q = {.method = "GET", .url = "http://stuck.example/", .connect_timeout_ms = 5000};
  struct mr_http_out *out;
  struct mr_err err = {0};
  struct got g = {0};

  CHECK(sem_init(&asked, 0, 0) == 0 && sem_init(&answer, 0, 0) == 0 && sem_init(&left, 0, 0) == 0);
  begin();
  q.guard = guard;
  CHECK_INT(get_with((struct mr_http_out_req){.url = q.url, .guard = guard, .connect_timeout_ms = 50}).code, MR_E_TIMEOUT);
  sem_wait(&asked);
  CHECK_INT(mr_http_out_start(client, &q, &cbs, &g, &out, &err), MR_OK);
  while (sem_trywait(&asked) != 0)
    turn(1);
  mr_http_out_cancel(out);
  while (!g.done)
    turn(1);
  CHECK_INT(g.code, MR_E_CANCELLED);
  g = (struct got){0};
  CHECK_INT(mr_http_out_start(client, &q, &cbs, &g, &out, &err), MR_OK);
  while (sem_trywait(&asked) != 0)
    turn(1);
  end();
  CHECK_INT(g.code, MR_E_CLOSED);
  for (int i = 0; i < 3; i++)
    sem_post(&answer);
  for (int i = 0; i < 3; i++)
    sem_wait(&left);
}

TEST(a_body_is_as_long_as_it_may_be)
{
  struct got g;
  char at[100];

  begin();
  snprintf(at, sizeof at, "http://127.0.0.1:%d/long", web_port);
  for (int decode = 0; decode < 2; decode++) {
    struct mr_http_out_req q = {.url = at, .guard = guard, .decode = decode, .body_max = 2 << 20};
    CHECK_INT(get_with(q).code, MR_OK);
    q.body_max--;
    g = get_with(q);
    CHECK_INT(g.code, MR_E_TOO_LARGE);
    CHECK(strstr(g.message, "more than 2097151 bytes"));
  }
  end();
}

TEST(no_connection_goes_round_the_guard)
{
  struct mr_guard *none = listing(""), *all = listing("127.0.0.0/8");
  char at[300];
  uint64_t accepted;

  begin();
  CHECK_INT(get(NULL, "http://127.0.0.2:%d/", inside_port).code, MR_OK);
  CHECK_INT(get(NULL, "http://127.0.0.2:%d/", inside_port).code, MR_OK);
  CHECK_INT(stats(inside).accepted, 1); /* kept, and used again */
  denied(get(guard, "http://127.0.0.2:%d/", inside_port), "a kept connection", "loopback");
  snprintf(at, sizeof at, "http://127.0.0.1:%d/to?http://127.0.0.2:%%d/", web_port);
  denied(get(guard, at, inside_port), "a kept connection, by a redirect", "loopback");
  CHECK_INT(stats(inside).requests, 2);

  CHECK_INT(get(all, "http://127.0.0.2:%d/", inside_port).code, MR_OK);
  CHECK_INT(stats(inside).accepted, 2); /* one of its own */
  CHECK_INT(get(all, "http://127.0.0.2:%d/", inside_port).code, MR_OK);
  CHECK_INT(stats(inside).accepted, 2);
  denied(get(none, "http://127.0.0.2:%d/", inside_port), "another guard's", "loopback");
  denied(get(guard, at, inside_port), "another guard's, by a redirect", "loopback");
  CHECK_INT(stats(inside).requests, 4);
  accepted = stats(inside).accepted;
  CHECK_INT(get(NULL, "http://127.0.0.2:%d/", inside_port).code, MR_OK);
  CHECK_INT(stats(inside).accepted, accepted); /* still its own */
  mr_guard_free(&none);
  mr_guard_free(&all);
  end();
}

TEST(no_socket_of_this_host)
{
  struct mr_http_out_req q = {.method = "GET", .url = "http://x/", .unix_path = "/tmp/x"};
  struct mr_http_out_cbs cbs = {.done = on_over};
  struct mr_http_out *out;
  struct mr_err err = {0};
  struct got g = {0};

  begin();
  q.guard = guard;
  CHECK_INT(mr_http_out_start(client, &q, &cbs, &g, &out, &err), MR_E_INVALID);
  CHECK_INT(g.done, 0);
  end();
}
