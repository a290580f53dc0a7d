/* Watchers: order, filters, one at a time, falling behind, durable positions, replacement, removal, close. */
#include "host_kit.h"

enum { SEEN_MAX = 4000 };

struct look {
  int n, marks; /* events; user.message events whose text was counted */
  bool hold;
  struct mr_seen *held[100];
  int nheld;
  char types[SEEN_MAX][40], sessions[SEEN_MAX][48], texts[SEEN_MAX][24];
  int64_t pos[SEEN_MAX];
};

static const char *says_done(struct host *h, const char *last, int k)
{
  (void)h, (void)last, (void)k;
  return "[{\"type\":\"text\",\"text\":\"done\"}]";
}

static void on_event(void *ud, struct mr_seen *e)
{
  struct look *l = ud;
  const struct mr_val *v = mr_seen_event(e);
  struct mr_str type = X()->as_str(X()->get(v, S("type"))), text = {0};
  struct mr_iter it = {.of = X()->get(v, S("content"))};

  if (X()->next(&it)) text = X()->as_str(X()->get(it.val, S("text")));
  CHECK(l->n < SEEN_MAX);
  snprintf(l->types[l->n], sizeof l->types[0], "%.*s", (int)type.n, type.p);
  snprintf(l->texts[l->n], sizeof l->texts[0], "%.*s", (int)text.n, text.p ? text.p : "");
  snprintf(l->sessions[l->n], sizeof l->sessions[0], "%.*s", (int)mr_seen_session(e).n, mr_seen_session(e).p);
  l->pos[l->n++] = mr_seen_pos(e);
  if (l->hold) {
    CHECK(l->nheld < 100);
    l->held[l->nheld++] = e;
  } else {
    CHECK_INT(mr_seen_done(&e), MR_OK);
    CHECK(e == NULL);
  }
}

static void let_go(struct look *l)
{
  for (int i = 0; i < l->nheld; i++)
    CHECK_INT(mr_seen_done(&l->held[i]), MR_OK);
  l->nheld = 0;
}

static int watch(struct host *h, struct look *l, const char *name, const char *events, const char *agent, unsigned flags)
{
  struct mr_watcher w = {.size = sizeof w, .name = name, .events = events, .agent = agent, .flags = flags,
                         .run = on_event, .ud = l};
  h->err = (struct mr_err){.size = sizeof h->err};
  return mr_on(h->rt, &w, &h->err);
}

static void open_host(struct host *h, const char *store)
{
  memset(h, 0, sizeof *h);
  h->rt = host_open(store);
  host_play(h, says_done);
}

static void new_session(struct host *h)
{
  char json[300];
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", h->agent, h->env);
  host_ok(h, "sessions.create", json);
  snprintf(h->session, sizeof h->session, "%s", pick(h->last, "/id"));
}

/* Turns that are over: a status that is asked for may still be that of the turn before. */
static int turns(struct host *h)
{
  int n = 0;
  host_events(h);
  for (const char *p = h->last; (p = strstr(p, "\"type\":\"session.status_idle\"")); p++)
    n++;
  return n;
}

static void say_and_idle(struct host *h, const char *text)
{
  int before = turns(h);
  host_say(h, text);
  UNTIL(h->rt, turns(h) > before);
}

TEST(events_come_in_order_and_filtered)
{
  struct host h;
  static struct look all, idle, other, some;
  static const char *const turn[] = {"user.message", "session.status_running", "session.status_idle"};

  open_host(&h, ":memory:");
  host_session(&h, NULL);
  say_and_idle(&h, "before");
  CHECK_INT(watch(&h, &all, "all", NULL, NULL, 0), MR_OK);
  CHECK_INT(watch(&h, &idle, "idle", "[\"session.status_idle\"]", "assistant", 0), MR_OK);
  CHECK_INT(watch(&h, &some, "some", "[\"user.message\",\"agent.message\"]", h.agent, 0), MR_OK);
  CHECK_INT(watch(&h, &other, "other", NULL, "somebody", 0), MR_OK);
  say_and_idle(&h, "one");
  UNTIL(h.rt, idle.n == 1 && some.n == 2 && all.n > 0 && strcmp(all.types[all.n - 1], "session.status_idle") == 0);
  CHECK_STR(mr_str_c(some.types[0]), "user.message");
  CHECK_STR(mr_str_c(some.texts[0]), "one"); /* not what was before */
  CHECK_STR(mr_str_c(some.types[1]), "agent.message");
  CHECK_STR(mr_str_c(all.sessions[0]), h.session);
  for (int i = 1; i < all.n; i++)
    CHECK(all.pos[i] > all.pos[i - 1]);
  for (size_t k = 0; k < sizeof turn / sizeof *turn; k++) {
    int at = 0;
    while (at < all.n && strcmp(all.types[at], turn[k]) != 0)
      at++;
    CHECK(at < all.n);
  }
  CHECK_INT(other.n, 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(one_at_a_time_in_a_session_and_sessions_side_by_side)
{
  struct host h;
  static struct look l;
  char first[48];

  open_host(&h, ":memory:");
  host_session(&h, NULL);
  memcpy(first, h.session, sizeof first);
  l.hold = true;
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\",\"agent.message\"]", NULL, 0), MR_OK);
  say_and_idle(&h, "a");
  say_and_idle(&h, "b");
  UNTIL(h.rt, l.n == 1);
  new_session(&h);
  say_and_idle(&h, "other");
  UNTIL(h.rt, l.n == 2);
  for (int i = 0; i < 5; i++)
    host_turn(h.rt, 5);
  CHECK_INT(l.n, 2); /* the first session's next one waits */
  CHECK_STR(mr_str_c(l.texts[1]), "other");
  CHECK_INT(mr_seen_done(&l.held[0]), MR_OK);
  l.held[0] = l.held[1], l.nheld = 1;
  UNTIL(h.rt, l.n == 3);
  CHECK_STR(mr_str_c(l.sessions[2]), first);
  CHECK_STR(mr_str_c(l.types[2]), "agent.message");
  l.hold = false;
  let_go(&l);
  UNTIL(h.rt, l.n == 6);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* Far more events than a watcher's list holds, while it does nothing: then it catches up, each once, in order. */
TEST(who_is_behind_reads_on_from_the_log)
{
  struct host h;
  static struct look slow, quick;
  enum { BATCHES = 12, EACH = 50 };
  struct mr_buf b;

  open_host(&h, test_dir());
  host_session(&h, NULL);
  slow.hold = true;
  CHECK_INT(watch(&h, &slow, "slow", "[\"user.message\"]", NULL, 0), MR_OK);
  CHECK_INT(watch(&h, &quick, "quick", "[\"user.message\"]", NULL, 0), MR_OK);
  for (int i = 0; i < BATCHES; i++) {
    int before = h.asked;
    mr_buf_init(&b, &test_sys()->mem, 1 << 20);
    mr_buf_printf(&b, "{\"session_id\":\"%s\",\"events\":[", h.session);
    for (int k = 0; k < EACH; k++)
      mr_buf_printf(&b, "%s{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"%d\"}]}", k ? "," : "",
                    i * EACH + k);
    mr_buf_c(&b, "]}");
    host_ok(&h, "sessions.events.send", b.p);
    mr_buf_free(&b);
    UNTIL(h.rt, h.asked > before);
  }
  UNTIL(h.rt, quick.n == BATCHES * EACH);
  CHECK_INT(slow.n, 1);
  slow.hold = false;
  let_go(&slow);
  UNTIL(h.rt, slow.n >= BATCHES * EACH);
  for (int i = 0; i < BATCHES * EACH; i++) {
    char want[24];
    snprintf(want, sizeof want, "%d", i);
    CHECK_STR(mr_str_c(slow.texts[i]), want);
    CHECK_STR(mr_str_c(quick.texts[i]), want);
    CHECK(i == 0 || slow.pos[i] > slow.pos[i - 1]);
  }
  host_say(&h, "live again");
  UNTIL(h.rt, slow.n == BATCHES * EACH + 1 && quick.n == BATCHES * EACH + 1);
  CHECK_STR(mr_str_c(slow.texts[BATCHES * EACH]), "live again");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_durable_position_lasts)
{
  struct host h;
  static struct look l;
  char session[64];

  open_host(&h, test_dir());
  host_session(&h, NULL);
  say_and_idle(&h, "never seen");
  CHECK_INT(watch(&h, &l, "pager", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  say_and_idle(&h, "one");
  UNTIL(h.rt, l.n == 1);
  l.hold = true;
  say_and_idle(&h, "two");
  UNTIL(h.rt, l.n == 2);
  say_and_idle(&h, "three");
  memcpy(session, h.session, sizeof session);
  CHECK_INT(mr_close(&h.rt), MR_OK); /* two is out, three waits */
  mr_seen_done(&l.held[0]);          /* too late to count */
  l.nheld = 0;

  open_host(&h, test_dir()); /* nobody watches */
  memcpy(h.session, session, sizeof session);
  say_and_idle(&h, "four");
  CHECK_INT(mr_close(&h.rt), MR_OK);

  open_host(&h, test_dir());
  memcpy(h.session, session, sizeof session);
  l.hold = false;
  CHECK_INT(watch(&h, &l, "pager", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  UNTIL(h.rt, l.n == 5);
  CHECK_STR(mr_str_c(l.texts[2]), "two"); /* again: it was not done */
  CHECK_STR(mr_str_c(l.texts[3]), "three");
  CHECK_STR(mr_str_c(l.texts[4]), "four");
  CHECK_INT(mr_on_remove(h.rt, "pager"), MR_OK);
  say_and_idle(&h, "five");
  CHECK_INT(l.n, 5);
  CHECK_INT(watch(&h, &l, "pager", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  UNTIL(h.rt, l.n >= 6); /* a removed one keeps its position; at least once */
  UNTIL(h.rt, strcmp(l.texts[l.n - 1], "five") == 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* Removed with an event out: that one is not done, and comes again. */
TEST(removal_with_events_out)
{
  struct host h;
  static struct look l;

  open_host(&h, ":memory:");
  host_session(&h, NULL);
  l.hold = true;
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  say_and_idle(&h, "one");
  say_and_idle(&h, "two");
  UNTIL(h.rt, l.n == 1);
  CHECK_INT(mr_on_remove(h.rt, "w"), MR_OK);
  CHECK_INT(mr_on_remove(h.rt, "w"), MR_E_NOTFOUND);
  let_go(&l); /* frees, and moves nothing */
  l.hold = false;
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  UNTIL(h.rt, l.n == 3);
  CHECK_STR(mr_str_c(l.texts[1]), "one");
  CHECK_STR(mr_str_c(l.texts[2]), "two");
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(replacement_keeps_the_position)
{
  struct host h;
  static struct look old, new;

  open_host(&h, ":memory:");
  host_session(&h, NULL);
  old.hold = true;
  CHECK_INT(watch(&h, &old, "w", "[\"user.message\"]", NULL, 0), MR_OK);
  say_and_idle(&h, "one");
  UNTIL(h.rt, old.n == 1);
  say_and_idle(&h, "two");
  CHECK_INT(watch(&h, &new, "w", "[\"agent.message\",\"user.message\"]", NULL, 0), MR_OK);
  let_go(&old);
  /* What the old filter did not want of the past is past; from what waited on, the new one counts. */
  UNTIL(h.rt, new.n >= 2 && strcmp(new.types[new.n - 1], "agent.message") == 0 &&
                  strcmp(new.texts[new.n - 2], "two") == 0);
  CHECK_INT(old.n, 1);
  for (int i = 0; i < new.n; i++)
    CHECK(strcmp(new.texts[i], "one") != 0);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(again_and_deleted_sessions)
{
  struct host h;
  static struct look l;
  char json[200], gone[64];

  open_host(&h, ":memory:");
  host_session(&h, NULL);
  l.hold = true;
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\"]", NULL, 0), MR_OK);
  say_and_idle(&h, "one");
  UNTIL(h.rt, l.n == 1);
  CHECK_INT(mr_seen_again(&l.held[0]), MR_OK);
  l.nheld = 0;
  UNTIL(h.rt, l.n == 2);
  CHECK_STR(mr_str_c(l.texts[1]), "one");
  CHECK(l.pos[0] == l.pos[1]);
  say_and_idle(&h, "two");
  memcpy(gone, h.session, sizeof gone);
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", gone);
  host_ok(&h, "sessions.delete", json);
  new_session(&h);
  l.hold = false;
  let_go(&l);
  say_and_idle(&h, "three");
  UNTIL(h.rt, l.n == 3);
  CHECK_STR(mr_str_c(l.texts[2]), "three"); /* two went with its session */
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(what_is_refused)
{
  struct host h;
  static struct look l;
  static char name[200];
  struct mr_watcher none = {.size = sizeof none, .name = "x"};

  open_host(&h, ":memory:");
  memset(name, 'n', 129);
  CHECK_INT(watch(&h, &l, "", NULL, NULL, 0), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "name");
  CHECK_INT(watch(&h, &l, name, NULL, NULL, 0), MR_E_INVALID);
  CHECK_INT(watch(&h, &l, "x", "[]", NULL, 0), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "events");
  CHECK_INT(watch(&h, &l, "x", "[1]", NULL, 0), MR_E_INVALID);
  CHECK_INT(watch(&h, &l, "x", "{", NULL, 0), MR_E_INVALID);
  CHECK_INT(watch(&h, &l, "x", NULL, NULL, 2), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "flags");
  CHECK_INT(mr_on(h.rt, &none, &h.err), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "run");
  CHECK_INT(mr_on_remove(h.rt, "x"), MR_E_NOTFOUND);
  CHECK_INT(mr_seen_done(NULL), MR_E_INVALID);
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(names_are_bounded)
{
  static struct host h;
  static struct look l;
  char name[20];
  int n = 0;

  open_host(&h, ":memory:");
  for (; n < 20000; n++) {
    snprintf(name, sizeof name, "w%d", n);
    if (watch(&h, &l, name, NULL, NULL, 0) != MR_OK) break;
    CHECK_INT(mr_on_remove(h.rt, name), MR_OK);
  }
  CHECK_INT(n, 10000);
  CHECK_INT(h.err.code, MR_E_FULL);
  CHECK_INT(watch(&h, &l, "w7", NULL, NULL, 0), MR_OK);
  CHECK_INT(mr_close(&h.rt), MR_OK);
}

/* Stop waits for a handler within grace; close does not. */
TEST(stop_and_close_with_events_out)
{
  struct host h;
  static struct look l;
  struct mr_seen *left;

  open_host(&h, test_dir());
  host_session(&h, NULL);
  l.hold = true;
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  say_and_idle(&h, "one");
  UNTIL(h.rt, l.n == 1);
  CHECK_INT(mr_stop(h.rt, 20000), MR_OK);
  for (int i = 0; i < 5; i++)
    host_turn(h.rt, 5);
  CHECK_INT(mr_stopped(h.rt), 0);
  let_go(&l);
  UNTIL(h.rt, mr_stopped(h.rt));
  CHECK_INT(mr_close(&h.rt), MR_OK);
  open_host(&h, test_dir());
  CHECK_INT(watch(&h, &l, "w", "[\"user.message\"]", NULL, MR_ON_DURABLE), MR_OK);
  host_session(&h, NULL);
  say_and_idle(&h, "two");
  UNTIL(h.rt, l.n == 2);
  CHECK_STR(mr_str_c(l.texts[1]), "two"); /* one was done before the stop was over */
  left = l.held[0];
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(mr_seen_done(&left), MR_OK); /* harmless, and the last that is freed */
  CHECK_INT(test_allocs(), 0);
}
