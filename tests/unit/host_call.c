/* Calls: replies, streams, uploads and downloads, cancel, deadlines, a full queue, asking. */
#include "host_kit.h"

#include <stdatomic.h>

static const char *echo(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  return say("you said ", last);
}

static const char *hold(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return NULL;
}

static int start(struct host *h, const char *op, const char *json, struct got *g, struct mr_op **handle)
{
  struct mr_req req = {.size = sizeof req, .op = op, .json = mr_str_c(json)};
  memset(g, 0, sizeof *g);
  return mr_call(h->rt, &req, &got_cbs, g, handle, &h->err);
}

TEST(a_call_replies_once_and_later)
{
  static struct host h;
  static struct got g;

  h.rt = host_open(":memory:");
  CHECK_INT(start(&h, "agents.retrieve", "{\"agent_id\":\"agent_none\"}", &g, NULL), MR_OK);
  usleep(20000);
  CHECK_INT(g.replies, 0); /* never before a dispatch */
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_NOTFOUND);
  CHECK_STR(mr_str_n(g.err.request_id, 4), "req_");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(g.replies, 1);
  CHECK_INT(test_allocs(), 0);
}

TEST(bad_calls_are_refused_at_once)
{
  static struct host h;
  static struct got g;
  struct mr_req req = {.size = sizeof req, .op = "agents.list", .json = S("{\"limit\":")};

  h.rt = host_open(":memory:");
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "json");
  req.json = S("{}");
  req.op = "agents.destroy";
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "op");
  CHECK(strstr(h.err.message, "agents.destroy"));
  req.op = NULL;
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  req.op = "files.upload";
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "body");
  req.size = 3;
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "size");
  CHECK_INT(host_call(&h, "agents.list", "{\"limit\":\"many\"}"), MR_E_INVALID); /* bad fields come by reply */
  CHECK_STR(mr_str_c(h.err.field), "limit");
  CHECK_INT(host_call(&h, "agents.list", "[]"), MR_E_INVALID);
  CHECK_INT(host_call(&h, "agents.retrieve", "{\"agent_id\":\"agent_nobody\"}"), MR_E_NOTFOUND);
  CHECK_INT(h.err.http_status, 404);
  CHECK_INT(host_call(&h, "deployments.list", "{}"), MR_E_UNSUPPORTED);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(callers_see_their_own_workspace)
{
  static struct host h;
  static struct got g;
  struct mr_caller who = {.workspace = S("wrkspc_other"), .request_id = S("req_mine")};
  struct mr_req req = {.size = sizeof req, .op = "agents.list", .caller = &who};

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK(strstr(g.json, "\"data\":[]"));
  memset(&g, 0, sizeof g);
  who.workspace = S("no such thing");
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.field), "workspace");
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_stream_follows_a_turn)
{
  static struct host h;
  static struct got g;
  struct mr_op *op;
  char json[200];

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  CHECK_INT(start(&h, "sessions.events.stream", json, &g, &op), MR_OK);
  host_say(&h, "one"); /* opened before sent: nothing is missed */
  UNTIL(h.rt, strstr(g.types, "session.status_idle"));
  CHECK(strstr(g.types, "user.message"));
  CHECK(strstr(g.types, "agent.message"));
  CHECK(g.pos > 0);
  CHECK_INT(g.replies, 0);
  mr_op_cancel(op);
  mr_op_cancel(op);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CANCELLED);
  mr_op_release(op);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(g.replies, 1);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_stream_of_a_session_that_is_not_there)
{
  static struct host h;
  static struct got g;

  h.rt = host_open(":memory:");
  CHECK_INT(start(&h, "sessions.events.stream", "{\"session_id\":\"sesn_none\"}", &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_NOTFOUND);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

TEST(a_stream_ends_when_the_runtime_stops)
{
  static struct host h;
  static struct got g;
  char json[200];

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  CHECK_INT(start(&h, "sessions.events.stream", json, &g, NULL), MR_OK);
  host_say(&h, "one");
  UNTIL(h.rt, strstr(g.types, "session.status_idle"));
  CHECK_INT(mr_stop(h.rt, 10000), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CLOSED);
  snprintf(json, sizeof json, "position %lld", (long long)g.pos);
  CHECK(strstr(g.err.message, json));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

/* A reader that does not dispatch is cut, is told where it was, and catches up from there. */
TEST(a_slow_reader_is_cut_with_its_position)
{
  static struct host h;
  static struct got g, after;
  struct mr_config c = host_config(":memory:");
  char json[300];

  c.queue_max = 64;
  CHECK_INT(mr_open(&h.rt, &c, &h.err), MR_OK);
  host_play(&h, echo);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  CHECK_INT(start(&h, "sessions.events.stream", json, &g, NULL), MR_OK);
  host_say(&h, "first");
  UNTIL(h.rt, strstr(g.types, "session.status_idle"));
  /* Titles make events; nobody dispatches while they are written. */
  for (int i = 0; i < 100; i++) {
    struct mr_req req = {.size = sizeof req, .op = "sessions.update"};
    char body[200];
    snprintf(body, sizeof body, "{\"session_id\":\"%s\",\"title\":\"t%d\"}", h.session, i);
    req.json = mr_str_c(body);
    if (mr_call(h.rt, &req, NULL, NULL, NULL, &h.err) == MR_E_FULL)
      break;
    usleep(2000);
  }
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CLOSED);
  CHECK(g.events > 20 && !g.bad_order);
  snprintf(json, sizeof json, "\"after\":%lld", (long long)g.pos);
  CHECK(strstr(g.err.message, json));
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"after\":%lld}", h.session, (long long)g.pos);
  CHECK_INT(start(&h, "sessions.events.stream", json, &after, NULL), MR_OK);
  UNTIL(h.rt, after.events > 0);
  CHECK(after.pos > g.pos);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_full_queue_refuses_calls)
{
  static struct host h;
  static struct got g[40];
  struct mr_config c = host_config(":memory:");
  int ok = 0;

  c.queue_max = 16;
  CHECK_INT(mr_open(&h.rt, &c, &h.err), MR_OK);
  for (int i = 0; i < 40; i++) {
    int code = start(&h, "agents.list", "{}", &g[i], NULL);
    if (code == MR_OK)
      ok++;
    else
      CHECK_INT(code, MR_E_FULL);
  }
  CHECK_INT(ok, 16);
  CHECK_INT(h.err.code, MR_E_FULL);
  for (int i = 0; i < 16; i++)
    UNTIL(h.rt, g[i].replies == 1);
  CHECK_INT(start(&h, "agents.list", "{}", &g[30], NULL), MR_OK);
  UNTIL(h.rt, g[30].replies == 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_deadline_ends_a_stream)
{
  static struct host h;
  static struct got g;
  char json[200];
  struct mr_req req = {.size = sizeof req, .op = "sessions.events.stream", .deadline_ms = 60};

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  req.json = mr_str_c(json);
  CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_TIMEOUT);
  CHECK(strstr(g.err.message, "60 ms"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

/* Cancelled at every moment: one reply, and a change that was made says so. */
TEST(cancel_is_sticky_and_tells_the_truth)
{
  static struct host h;
  static struct got g;
  struct mr_op *op;
  int cancelled = 0, done = 0;

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  for (int i = 0; i < 60; i++) {
    char json[100];
    snprintf(json, sizeof json, "{\"name\":\"a%d\",\"model\":\"test\"}", i);
    CHECK_INT(start(&h, "agents.create", json, &g, &op), MR_OK);
    usleep((useconds_t)(i % 4 * 50));
    mr_op_cancel(op);
    UNTIL(h.rt, g.replies);
    mr_op_release(op);
    CHECK(g.code == MR_OK || g.code == MR_E_CANCELLED);
    if (g.code == MR_OK)
      done++;
    else
      cancelled++;
  }
  host_ok(&h, "agents.list", "{\"limit\":100}");
  for (int i = 0; i < done; i++) { /* exactly those are there */
    char at[40];
    snprintf(at, sizeof at, "/data/%d/id", i);
    CHECK(strcmp(pick(h.last, at), "(absent)") != 0);
  }
  char at[40];
  snprintf(at, sizeof at, "/data/%d/id", done);
  CHECK_STR(mr_str_c(pick(h.last, at)), "(absent)");
  CHECK_INT(done + cancelled, 60);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(call_wait_gives_up_and_cleans_up)
{
  static struct host h;
  char json[200];

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  CHECK_INT(mr_call_wait(h.rt, "sessions.events.stream", json, 50, NULL, &h.err), MR_E_TIMEOUT);
  host_ok(&h, "agents.list", "{}");
  CHECK_INT(mr_call_wait(h.rt, "agents.list", "{}", -1, NULL, &h.err), MR_OK);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* ---- uploads and downloads ---- */

struct source { size_t size, at; int calls, fail_at; pthread_t thread; };

static int64_t give(void *ud, char *buf, size_t cap)
{
  struct source *s = ud;
  size_t n = s->size - s->at < cap ? s->size - s->at : cap;
  CHECK(pthread_equal(s->thread, pthread_self()));
  if (++s->calls == s->fail_at)
    return MR_E_IO;
  if (n > 10000)
    n = 10000;
  for (size_t i = 0; i < n; i++)
    buf[i] = (char)('a' + (s->at + i) % 26);
  s->at += n;
  return (int64_t)n;
}

static int upload(struct host *h, struct source *s, int64_t length, struct got *g, struct mr_op **op)
{
  struct mr_body body = {.size = sizeof body, .length = length, .filename = "data.txt", .media_type = "text/plain",
                         .read = give, .ud = s};
  struct mr_req req = {.size = sizeof req, .op = "files.upload", .body = &body};
  s->thread = pthread_self();
  memset(g, 0, sizeof *g);
  return mr_call(h->rt, &req, &got_cbs, g, op, &h->err);
}

TEST(an_upload_is_pulled_in_dispatch)
{
  static struct host h;
  static struct got g;
  struct source s = {.size = 3000000};

  h.rt = host_open(test_dir());
  CHECK_INT(upload(&h, &s, 3000000, &g, NULL), MR_OK);
  usleep(20000);
  CHECK_INT(s.calls, 0);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(pick(g.json, "/size_bytes")), "3000000");
  CHECK_STR(mr_str_c(pick(g.json, "/filename")), "data.txt");
  CHECK_STR(mr_str_c(pick(g.json, "/mime_type")), "text/plain");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(an_upload_that_breaks_off_leaves_nothing)
{
  static struct host h;
  static struct got g;
  struct source bad = {.size = 100000, .fail_at = 4}, shorter = {.size = 500}, longer = {.size = 5000};

  h.rt = host_open(test_dir());
  CHECK_INT(upload(&h, &bad, -1, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_IO);
  CHECK_STR(mr_str_c(g.err.field), "body");
  CHECK_INT(upload(&h, &shorter, 600, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_INVALID);
  CHECK_INT(upload(&h, &longer, 100, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_INVALID);
  host_ok(&h, "files.list", "{}");
  CHECK_STR(mr_str_c(pick(h.last, "/data/0/id")), "(absent)");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(an_upload_can_be_cancelled_and_closed_upon)
{
  static struct host h;
  static struct got g;
  struct source s = {.size = (size_t)1 << 30};
  struct mr_op *op;

  h.rt = host_open(test_dir());
  CHECK_INT(upload(&h, &s, -1, &g, &op), MR_OK);
  UNTIL(h.rt, s.calls > 5);
  mr_op_cancel(op);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CANCELLED);
  mr_op_release(op);
  CHECK_INT(upload(&h, &s, -1, &g, NULL), MR_OK);
  UNTIL(h.rt, s.calls > 10);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(g.replies, 1);
  CHECK_INT(g.code, MR_E_CLOSED);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_file_that_was_uploaded_cannot_be_downloaded)
{
  static struct host h;
  static struct got g;
  struct source s = {.size = 10};
  char json[100];

  h.rt = host_open(test_dir());
  CHECK_INT(upload(&h, &s, -1, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  snprintf(json, sizeof json, "{\"file_id\":\"%s\"}", pick(g.json, "/id"));
  CHECK_INT(start(&h, "files.download", json, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.error_code), "file_not_downloadable");
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

/* ---- asking ---- */

TEST(ask_follows_a_turn_to_its_end)
{
  static struct host h;
  static struct got g;

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_session(&h, NULL);
  for (int i = 0; i < 3; i++) {
    memset(&g, 0, sizeof g);
    CHECK_INT(mr_ask(h.rt, h.session, i ? "[{\"type\":\"text\",\"text\":\"blocks\"}]" : "[plain", &got_cbs, &g, NULL, &h.err), MR_OK);
    UNTIL(h.rt, g.replies);
    CHECK_INT(g.code, MR_OK);
    CHECK_STR(mr_str_c(pick(g.json, "/text")), i ? "you said blocks" : "you said [plain");
    CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "end_turn");
    CHECK_STR(mr_str_c(pick(g.json, "/usage/input_tokens")), "10");
    CHECK_STR(mr_str_c(pick(g.json, "/pending")), "[]");
    CHECK(strncmp(g.types, "user.message", 12) == 0);
    CHECK(strlen(g.types) > 19 && strcmp(g.types + strlen(g.types) - 19, "session.status_idle") == 0);
    CHECK(!g.bad_order);
  }
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

static const char *use_tool(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  return k == 0 ? "[{\"type\":\"tool_use\",\"name\":\"lookup\",\"input\":{\"id\":7}}]"
                : "[{\"type\":\"text\",\"text\":\"found\"}]";
}

TEST(ask_stops_at_what_the_turn_waits_for)
{
  static struct host h;
  static struct got g;
  char json[500];

  h.rt = host_open(":memory:");
  host_play(&h, use_tool);
  host_session(&h, "[" CUSTOM("lookup") "]");
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK_STR(mr_str_c(pick(g.json, "/stop_reason")), "requires_action");
  CHECK_STR(mr_str_c(pick(g.json, "/pending/0/kind")), "custom");
  CHECK_STR(mr_str_c(pick(g.json, "/pending/0/name")), "lookup");
  CHECK_STR(mr_str_c(pick(g.json, "/pending/0/input/id")), "7");
  snprintf(json, sizeof json,
           "{\"session_id\":\"%s\",\"events\":[{\"type\":\"user.custom_tool_result\",\"custom_tool_use_id\":\"%s\","
           "\"content\":[{\"type\":\"text\",\"text\":\"it\"}]}]}", h.session, pick(g.json, "/pending/0/id"));
  host_ok(&h, "sessions.events.send", json);
  UNTIL(h.rt, strcmp(host_status(&h), "idle") == 0);
  host_events(&h);
  CHECK(strstr(h.last, "found"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(asks_fail_with_reasons)
{
  static struct host h;
  static struct got g;
  struct mr_op *op;
  char json[200];

  h.rt = host_open(":memory:");
  host_play(&h, hold);
  host_session(&h, NULL);
  CHECK_INT(mr_ask(h.rt, "", "go", &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_INT(mr_ask(h.rt, h.session, NULL, &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_INT(mr_ask(h.rt, h.session, "\xff", &got_cbs, &g, NULL, &h.err), MR_E_INVALID);
  CHECK_INT(mr_ask(h.rt, "sesn_none", "go", &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_NOTFOUND);
  memset(&g, 0, sizeof g); /* a message that is refused */
  CHECK_INT(mr_ask(h.rt, h.session, "[{\"type\":\"nonsense\"}]", &got_cbs, &g, NULL, &h.err), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_INVALID);
  memset(&g, 0, sizeof g); /* cancelled in the middle */
  CHECK_INT(mr_ask(h.rt, h.session, "go", &got_cbs, &g, &op, &h.err), MR_OK);
  UNTIL(h.rt, h.held);
  mr_op_cancel(op);
  mr_op_release(op);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_CANCELLED);
  memset(&g, 0, sizeof g); /* the session is deleted meanwhile */
  CHECK_INT(mr_ask(h.rt, h.session, "and", &got_cbs, &g, NULL, &h.err), MR_OK);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"events\":[{\"type\":\"user.interrupt\"}]}", h.session);
  host_ok(&h, "sessions.events.send", json);
  UNTIL(h.rt, h.cancelled);
  memset(&g, 0, sizeof g); /* and the runtime closes */
  CHECK_INT(mr_ask(h.rt, h.session, "more", &got_cbs, &g, NULL, &h.err), MR_OK);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK(g.replies >= 1);
  CHECK_INT(g.code, MR_E_CLOSED);
  CHECK_INT(test_allocs(), 0);
}

/* ---- many threads ---- */

struct caller { struct mr_runtime *rt; int made, full; atomic_int *answered; };

static void count_reply(void *ud, const struct mr_reply *r)
{
  CHECK_INT(r->code, MR_OK);
  atomic_fetch_add((atomic_int *)ud, 1);
}

static void *call_many(void *arg)
{
  struct caller *c = arg;
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = count_reply};
  struct mr_req req = {.size = sizeof req, .op = "agents.list", .json = S("{}")};
  while (c->made < 300) {
    struct mr_op *op = NULL;
    int code = mr_call(c->rt, &req, &cbs, c->answered, &op, NULL);
    if (code == MR_E_FULL) {
      c->full++;
      usleep(500);
      continue;
    }
    CHECK_INT(code, MR_OK);
    c->made++;
    mr_op_release(op);
  }
  return NULL;
}

TEST(calls_from_many_threads)
{
  struct mr_config c = host_config(":memory:");
  struct mr_runtime *rt;
  struct caller who[4];
  pthread_t t[4];
  atomic_int answered;

  atomic_init(&answered, 0);
  c.queue_max = 50;
  CHECK_INT(mr_open(&rt, &c, NULL), MR_OK);
  for (int i = 0; i < 4; i++) {
    who[i] = (struct caller){rt, 0, 0, &answered};
    pthread_create(&t[i], NULL, call_many, &who[i]);
  }
  UNTIL(rt, atomic_load(&answered) == 1200);
  for (int i = 0; i < 4; i++)
    pthread_join(t[i], NULL);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}
