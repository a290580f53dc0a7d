/* Sessions copied and carried as files, by operation name through mr_call: sources and sinks of bytes, what breaks
 * off, watchers, memory that runs out. */
#include "host_kit.h"

enum { FILE_MAX = 1 << 20 };

struct file { char p[FILE_MAX]; size_t n, at, step; int fail_at, calls; bool endless; };

static const char *says_done(struct host *h, const char *last, int k)
{
  (void)h, (void)last, (void)k;
  return "[{\"type\":\"text\",\"text\":\"done\"}]";
}

static const char *looks(struct host *h, const char *last, int k)
{
  (void)h, (void)k;
  return last[0] == '[' ? "[{\"type\":\"text\",\"text\":\"seen\"}]" : "[{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{}}]";
}

static struct got exported;
static void take(void *ud, struct mr_str chunk)
{
  struct file *f = ud;
  CHECK(f->n + chunk.n < FILE_MAX);
  memcpy(f->p + f->n, chunk.p, chunk.n);
  f->n += chunk.n;
}

static void on_exported(void *ud, const struct mr_reply *r)
{
  (void)ud;
  got_reply(&exported, r);
}

static int export_(struct host *h, const char *id, struct file *f)
{
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_exported, .body = take};
  struct mr_req req = {.size = sizeof req, .op = "sessions.export"};
  char json[200];

  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", id);
  req.json = mr_str_c(json);
  memset(&exported, 0, sizeof exported);
  memset(f, 0, sizeof *f);
  CHECK_INT(mr_call(h->rt, &req, &cbs, f, NULL, &h->err), MR_OK);
  UNTIL(h->rt, exported.replies);
  return exported.code;
}

static int64_t give(void *ud, char *buf, size_t cap)
{
  struct file *f = ud;
  size_t n = f->n - f->at < cap ? f->n - f->at : cap;

  if (++f->calls == f->fail_at) return MR_E_IO;
  if (f->step && n > f->step) n = f->step;
  memcpy(buf, f->p + f->at, n);
  f->at += n;
  if (f->endless && f->at == f->n) f->at = 0;
  return (int64_t)n;
}

static int import_(struct host *h, struct file *f, const char *json, struct got *g, struct mr_op **op)
{
  struct mr_body body = {.size = sizeof body, .length = -1, .read = give, .ud = f};
  struct mr_req req = {.size = sizeof req, .op = "sessions.import", .body = &body, .json = mr_str_c(json)};

  memset(g, 0, sizeof *g);
  f->at = 0;
  f->calls = 0;
  return mr_call(h->rt, &req, &got_cbs, g, op, &h->err);
}

static int events_of(struct host *h, const char *id)
{
  char json[200];
  yyjson_doc *doc;
  int n;

  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"limit\":1000}", id);
  host_ok(h, "sessions.events.list", json);
  doc = yyjson_read(h->last, strlen(h->last), 0);
  n = (int)yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), "data"));
  yyjson_doc_free(doc);
  return n;
}

static int sessions(struct host *h)
{
  yyjson_doc *doc;
  int n;

  host_ok(h, "sessions.list", "{\"limit\":1000,\"include_archived\":true}");
  doc = yyjson_read(h->last, strlen(h->last), 0);
  n = (int)yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(doc), "data"));
  yyjson_doc_free(doc);
  return n;
}

static void turn(struct host *h, const char *text)
{
  struct got *g = calloc(1, sizeof *g);
  CHECK_INT(mr_ask(h->rt, h->session, text, &got_cbs, g, NULL, &h->err), MR_OK);
  UNTIL(h->rt, g->replies);
  CHECK_INT(g->code, MR_OK);
  free(g);
}

static void look(void *ud, struct mr_use *use)
{
  (void)ud;
  mr_use_finish(&use, "\"seen\"");
}

static void open_here(struct host *h)
{
  memset(h, 0, sizeof *h);
  h->rt = host_open(test_dir());
  host_play(h, says_done);
  host_session(h, NULL);
}

TEST(fork_export_import_by_name)
{
  static struct host h;
  static struct file f;
  static struct got g;
  char json[300], in[200], copy[64];

  open_here(&h);
  turn(&h, "one");
  turn(&h, "two");
  CHECK_INT(events_of(&h, h.session), 18);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"event_id\":\"%s\"}", h.session, pick(h.last, "/data/4/id"));
  CHECK_STR(mr_str_c(pick(h.last, "/data/4/type")), "agent.message");
  host_ok(&h, "sessions.fork", json);
  snprintf(copy, sizeof copy, "%s", pick(h.last, "/id"));
  CHECK_STR(mr_str_c(pick(h.last, "/metadata/moonrig.forked_from")), h.session);
  CHECK_STR(mr_str_c(pick(h.last, "/usage/input_tokens")), "0");
  CHECK_INT(events_of(&h, copy), 5 + 4); /* the request's end, and the idle session's rows */
  CHECK_INT(export_(&h, h.session, &f), MR_OK);
  CHECK(!exported.bad_order && f.n > 1000);
  snprintf(in, sizeof in, "{\"environment_id\":\"%s\",\"title\":\"from a file\"}", h.env);
  for (int i = 0; i < 3; i++) { /* also split anywhere */
    f.step = i == 1 ? 11 : i == 2 ? 997 : 0;
    CHECK_INT(import_(&h, &f, in, &g, NULL), MR_OK);
    UNTIL(h.rt, g.replies);
    if (g.code != MR_OK) test_fail(__FILE__, __LINE__, "%s", g.err.message);
    CHECK_STR(mr_str_c(pick(g.json, "/title")), "from a file");
    snprintf(h.session, sizeof h.session, "%s", pick(g.json, "/id"));
    CHECK_INT(events_of(&h, h.session), 18);
    turn(&h, "three");
    CHECK_INT(events_of(&h, h.session), 27);
  }
  CHECK_INT(import_(&h, &f, "{}", &g, NULL), MR_OK); /* into "default" */
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_OK);
  CHECK_INT(export_(&h, "sesn_01nobody", &f), MR_E_NOTFOUND);
  CHECK_INT(f.n, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(an_import_that_breaks_off_leaves_nothing)
{
  static struct host h;
  static struct file f;
  static struct got g;
  struct mr_op *op;
  size_t whole;
  char in[100];

  open_here(&h);
  turn(&h, "one");
  CHECK_INT(export_(&h, h.session, &f), MR_OK);
  whole = f.n;
  snprintf(in, sizeof in, "{\"environment_id\":\"%s\"}", h.env);
  f.step = 100;
  f.fail_at = 20;
  CHECK_INT(import_(&h, &f, in, &g, NULL), MR_OK);
  UNTIL(h.rt, g.replies);
  CHECK_INT(g.code, MR_E_IO);
  f.fail_at = 0;
  for (size_t n = 0; n < whole - 1; n += whole / 23) {
    f.n = n;
    CHECK_INT(import_(&h, &f, in, &g, NULL), MR_OK);
    UNTIL(h.rt, g.replies);
    CHECK_INT(g.code, MR_E_INVALID);
    CHECK_STR(mr_str_c(g.err.field), "file");
  }
  f.n = whole - 200; /* no last line: it is waited for */
  f.step = 0;
  f.fail_at = 0;
  CHECK_INT(import_(&h, &f, in, &g, &op), MR_OK);
  f.endless = true;
  UNTIL(h.rt, f.calls > 0);
  mr_op_cancel(op);
  mr_op_release(op);
  UNTIL(h.rt, g.replies);
  CHECK(g.code == MR_E_CANCELLED || g.code == MR_E_INVALID);
  CHECK_INT(sessions(&h), 1);
  f.endless = false;
  f.step = 64;
  f.n = whole;
  CHECK_INT(import_(&h, &f, in, &g, NULL), MR_OK); /* closed upon */
  UNTIL(h.rt, f.calls > 5);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(g.replies, 1);
  CHECK(g.code != MR_OK);
  CHECK_INT(test_allocs(), 0);
  h.rt = host_open(test_dir());
  CHECK_INT(sessions(&h), 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

struct seen { int n; char sessions[200][48]; };

static void on_seen(void *ud, struct mr_seen *e)
{
  struct seen *s = ud;
  CHECK(s->n < 200);
  snprintf(s->sessions[s->n++], sizeof s->sessions[0], "%.*s", (int)mr_seen_session(e).n, mr_seen_session(e).p);
  CHECK_INT(mr_seen_done(&e), MR_OK);
}

/* What came with a copy is no news; what happens in it is. Also to a watcher that reads on from the log. */
TEST(watchers_are_not_shown_what_is_copied)
{
  static struct host h;
  static struct seen now, later;
  struct mr_watcher w = {.size = sizeof w, .name = "now", .events = "[\"user.message\"]", .run = on_seen, .ud = &now};
  struct mr_watcher d = {.size = sizeof d, .name = "later", .events = "[\"user.message\"]", .flags = MR_ON_DURABLE,
                         .run = on_seen, .ud = &later};
  char json[200], first[64];

  open_here(&h);
  CHECK_INT(mr_on(h.rt, &d, &h.err), MR_OK);
  turn(&h, "one");
  UNTIL(h.rt, later.n == 1);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  h.rt = host_open(test_dir());
  host_play(&h, says_done);
  CHECK_INT(mr_on(h.rt, &w, &h.err), MR_OK);
  snprintf(first, sizeof first, "%s", h.session);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
  host_ok(&h, "sessions.fork", json);
  snprintf(h.session, sizeof h.session, "%s", pick(h.last, "/id"));
  turn(&h, "two");
  UNTIL(h.rt, now.n == 1);
  CHECK_INT(mr_on(h.rt, &d, &h.err), MR_OK); /* catches up over the copy */
  UNTIL(h.rt, later.n == 2);
  turn(&h, "three");
  UNTIL(h.rt, later.n == 3 && now.n == 2);
  CHECK_STR(mr_str_c(later.sessions[0]), first);
  CHECK_STR(mr_str_c(later.sessions[1]), h.session);
  CHECK_STR(mr_str_c(now.sessions[0]), h.session);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* Memory that runs out at every moment of a copy: it says so, or is whole; nothing crashes, nothing leaks. */
TEST(copies_without_memory)
{
  static struct file f;
  int made = 0, failed = 0;

  for (int n = 0; n < 1500 && made < 3; n += 1 + n / 30) {
    static struct host h;
    static struct got g;
    struct mr_tool t = {.size = sizeof t, .name = "look", .run = look};
    char json[200];
    int had;

    memset(&h, 0, sizeof h);
    h.rt = host_open(":memory:");
    host_play(&h, looks);
    CHECK_INT(mr_tool_add(h.rt, &t, NULL), MR_OK);
    host_session(&h, "[" CUSTOM("look") "]");
    turn(&h, "go");
    CHECK_INT(export_(&h, h.session, &f), MR_OK);
    had = sessions(&h);
    memset(&g, 0, sizeof g);
    snprintf(json, sizeof json, "{\"environment_id\":\"%s\"}", h.env);
    test_fail_after(n);
    if (import_(&h, &f, json, &g, NULL) == MR_OK)
      for (int i = 0; i < 60 && !g.replies; i++)
        host_turn(h.rt, 1);
    test_fail_after(-1);
    for (int i = 0; i < 3000 && !g.replies && f.calls; i++)
      host_turn(h.rt, 10);
    CHECK(g.replies <= 1);
    made += g.replies && g.code == MR_OK;
    failed += !g.replies || g.code != MR_OK;
    had = sessions(&h) - had; /* it may be there when only the answer could not be made */
    CHECK(g.replies && g.code == MR_OK ? had == 1 : had == 0 || (had == 1 && g.code == MR_E_NOMEM));
    snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h.session);
    test_fail_after(n);
    mr_call_wait(h.rt, "sessions.fork", json, 60, NULL, NULL);
    test_fail_after(-1);
    turn(&h, "go on");
    CHECK_INT(mr_close(&h.rt), MR_OK);
    if (test_allocs() != 0)
      test_fail(__FILE__, __LINE__, "%ld blocks left after the allocation %d failed", test_allocs(), n);
  }
  CHECK(made >= 1 && failed > 10);
}
