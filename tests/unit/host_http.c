/* The HTTP face inside a runtime: listening, one request, the control channel, closing with requests open. */
#include "host_kit.h"

#include <netinet/in.h>
#include <sys/socket.h>

static const char *hold(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return NULL;
}

static int dial(const char *actual)
{
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const char *port = strrchr(actual, ':');
  a.sin_port = htons((uint16_t)strtol(port ? port + 1 : "0", NULL, 10));
  CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
  return fd;
}

static const char *http(struct mr_runtime *rt, const char *actual, const char *method, const char *path,
                        const char *key, const char *body)
{
  static char out[20000];
  struct pollfd p = {.fd = dial(actual), .events = POLLIN};
  size_t n = 0;
  ssize_t k = 1;
  snprintf(out, sizeof out, "%s %s HTTP/1.1\r\nhost: x\r\nx-api-key: %s\r\nanthropic-version: 2023-06-01\r\nconnection: close\r\n"
           "anthropic-beta: managed-agents-2026-04-01\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
           method, path, key, strlen(body), body);
  CHECK_INT(send(p.fd, out, strlen(out), MSG_NOSIGNAL), strlen(out));
  while (k > 0 && n < sizeof out - 1) {
    if (poll(&p, 1, 5) == 1 && (k = read(p.fd, out + n, sizeof out - 1 - n)) > 0)
      n += (size_t)k;
    mr_dispatch(rt, 0, 0);
  }
  out[n] = '\0';
  close(p.fd);
  return out;
}

static struct mr_runtime *open_key(void)
{
  struct mr_config c = host_config(":memory:");
  struct mr_runtime *rt;
  c.options = "{\"api_key\":\"sk-mr-0123456789012345678901234567890123456789\"}";
  CHECK_INT(mr_open(&rt, &c, NULL), MR_OK);
  return rt;
}
#define KEY "sk-mr-0123456789012345678901234567890123456789"

static int commands;
static void on_control(void *ud, const char *command, const struct mr_val *arg, uint64_t id)
{
  CHECK_STR(X()->as_str(X()->get(arg, S("command"))), command);
  commands++;
  if (strcmp(command, "status") == 0) {
    X()->control_done(ud, id, MR_OK, S("{\"generation\":7}"));
    X()->control_done(ud, id, MR_OK, S("{\"twice\":true}")); /* the second is ignored */
  } else {
    X()->control_done(ud, id, MR_E_INVALID, S("{\"error\":\"line 3: nonsense\"}"));
  }
}

static const char long_text[16385]; /* one more than /health takes */

TEST(listen_and_answer)
{
  struct mr_runtime *rt = open_key();
  struct mr_err err = {.size = sizeof err};
  char actual[100];

  CHECK_INT(mr_listen(rt, "127.0.0.1:0", actual, sizeof actual, &err), MR_OK);
  CHECK(strncmp(actual, "http://127.0.0.1:", 17) == 0);
  CHECK(strstr(http(rt, actual, "GET", "/health", "", ""), "\"generation\":0"));
  CHECK(strstr(http(rt, actual, "GET", "/v1/agents", "wrong", ""), "401"));
  CHECK(strstr(http(rt, actual, "GET", "/v1/agents", KEY, ""), "\"data\":[]"));
  X()->set_generation(rt, 3, S("a \"broken\" file"));
  CHECK(strstr(http(rt, actual, "GET", "/health", "", ""), "\"generation\":3,\"script_error\":\"a \\\"broken\\\" file\""));
  CHECK(strstr(http(rt, actual, "GET", "/health", "", ""), "\"scripts\":null"));
  X()->set_scripts(rt, S("{\"files\":2}"));
  X()->set_scripts(rt, (struct mr_str){long_text, sizeof long_text});
  CHECK(strstr(http(rt, actual, "GET", "/health", "", ""), "\"scripts\":{\"files\":2}"));
  CHECK(strstr(http(rt, actual, "POST", "/moonrig/v1/control", KEY, "{\"command\":\"status\"}"), "501"));
  CHECK_INT(X()->on_control(rt, on_control, rt), MR_OK);
  CHECK(strstr(http(rt, actual, "POST", "/moonrig/v1/control", KEY, "{\"command\":\"status\"}"), "{\"generation\":7}"));
  CHECK(strstr(http(rt, actual, "POST", "/moonrig/v1/control", KEY, "{\"command\":\"reload\"}"), "line 3: nonsense"));
  CHECK_INT(X()->on_control(rt, NULL, NULL), MR_OK);
  CHECK(strstr(http(rt, actual, "POST", "/moonrig/v1/control", KEY, "{\"command\":\"status\"}"), "501"));
  CHECK_INT(commands, 2);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(bad_addresses_are_refused)
{
  struct mr_runtime *rt = open_key();
  struct mr_err err = {.size = sizeof err};
  char actual[100];

  CHECK_INT(mr_listen(rt, "", actual, sizeof actual, &err), MR_E_INVALID);
  CHECK_INT(mr_listen(rt, "{\"addres\":\"127.0.0.1:0\"}", actual, sizeof actual, &err), MR_E_INVALID);
  CHECK(strstr(err.message, "addres"));
  CHECK_INT(mr_listen(rt, "{\"insecure_http\":true}", actual, sizeof actual, &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "address");
  CHECK_INT(mr_listen(rt, "0.0.0.0:0", actual, sizeof actual, &err), MR_E_DENIED);
  CHECK_INT(mr_listen(rt, "{\"address\":\"0.0.0.0:0\",\"insecure_http\":true}", actual, sizeof actual, &err), MR_OK);
  CHECK_INT(mr_listen(rt, "127.0.0.1:0", NULL, 0, &err), MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static void never(void *ud, const char *command, const struct mr_val *arg, uint64_t id)
{
  (void)command;
  (void)arg;
  *(uint64_t *)ud = id;
}

/* Streams, a command that nobody answers, half a request: all open when the runtime closes. */
TEST(close_with_requests_open)
{
  for (int i = 0; i < 12; i++) {
    static struct host h;
    struct mr_err err = {.size = sizeof err};
    char actual[100], text[2000], path[200];
    uint64_t id = 0;
    int fd[6];

    memset(&h, 0, sizeof h);
    h.rt = open_key();
    host_play(&h, hold);
    host_session(&h, NULL);
    host_say(&h, "hi");
    CHECK_INT(mr_listen(h.rt, "127.0.0.1:0", actual, sizeof actual, &err), MR_OK);
    CHECK_INT(X()->on_control(h.rt, never, &id), MR_OK);
    snprintf(path, sizeof path, "/v1/sessions/%s/events/stream", h.session);
    for (int k = 0; k < 6; k++) {
      fd[k] = dial(actual);
      snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nhost: x\r\nx-api-key: " KEY "\r\nanthropic-version: 2023-06-01\r\n"
               "anthropic-beta: managed-agents-2026-04-01\r\ncontent-length: %s\r\n\r\n%s", k == 0 || k > 3 ? "GET" : "POST",
               k == 0 ? path : k == 1 ? "/moonrig/v1/control" : k == 2 ? "/v1/agents" : k == 3 ? "/v1/files" : "/v1/sessions",
               k == 1 ? "20" : k == 2 ? "100" : k == 3 ? "5" : "0", k == 1 ? "{\"command\":\"reload\"" : "");
      if (k == 1)
        snprintf(text + strlen(text), sizeof text - strlen(text), "}");
      CHECK(send(fd[k], text, strlen(text), MSG_NOSIGNAL) > 0);
    }
    if (i % 2)
      UNTIL(h.rt, id || i % 4 == 3);
    if (i % 3 == 0)
      mr_stop(h.rt, 50);
    CHECK_INT(mr_close(&h.rt), MR_OK);
    for (int k = 0; k < 6; k++)
      close(fd[k]);
    CHECK_INT(test_allocs(), 0);
  }
}
