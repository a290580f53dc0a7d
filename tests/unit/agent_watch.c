/* Watchers in the domain: what another filter does to the list and to a durable position, while events are out.
 * Who watches is played here, so that the test decides when an event is done. */
#include "agent_kit.h"

enum { MAX = 8192 };

static struct play {
  struct rig *g;
  struct mr_shown *out[MAX]; /* not done */
  int nout, n;
  char texts[MAX][40];       /* everything that was shown; or its type */
} f;

static int show(void *ud, struct mr_shown *e)
{
  const char *at = memmem(e->body.p, e->body.n, "\"text\":\"", 8);
  (void)ud;
  CHECK(f.nout < MAX && f.n < MAX);
  if (!at)
    at = memmem(e->body.p, e->body.n, "\"type\":\"", 8);
  CHECK(at != NULL);
  snprintf(f.texts[f.n++], sizeof f.texts[0], "%.*s", (int)strcspn(at + 8, "\""), at + 8);
  e->host = f.texts[f.n - 1];
  f.out[f.nout++] = e;
  return MR_OK;
}

static void drop(void *ud, struct mr_shown *e)
{
  int i = 0;
  (void)ud;
  while (i < f.nout && f.out[i] != e)
    i++;
  CHECK(i < f.nout);
  f.out[i] = f.out[--f.nout];
}
static const struct mr_watch_host host = {.show = show, .drop = drop};

static const char *answers(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  (void)k;
  return "[{\"type\":\"text\",\"text\":\"done\"}]";
}

static void play(struct rig *g, const char *dir)
{
  memset(&f, 0, sizeof f);
  *g = (struct rig){.model = answers, .opts = {.watch_host = &host}};
  f.g = g;
  rig_open(g, dir);
}

static void watch(struct rig *g, int ntypes)
{
  const struct mr_str types[] = {MR_S("user.message"), MR_S("agent.message")};
  CHECK_INT(mr_watch_add(g->d, &(struct mr_watch_opts){.name = MR_S("w"), .types = types, .ntypes = ntypes,
                                                       .durable = true}, NULL), MR_OK);
}

static int shown(const char *text)
{
  int n = 0;
  for (int i = 0; i < f.n; i++)
    n += strcmp(f.texts[i], text) == 0;
  return n;
}

static void until_shown(struct rig *g, const char *text)
{
  for (int i = 0; i < 5000 && !shown(text); i++)
    rig_pump(g);
  CHECK(shown(text) > 0);
}

static void done(const char *text)
{
  for (int i = 0; i < f.nout; i++)
    if (strcmp(f.out[i]->host, text) == 0) {
      struct mr_shown *e = f.out[i];
      f.out[i] = f.out[--f.nout];
      mr_watch_done(f.g->d, e, false);
      return;
    }
  test_fail(__FILE__, __LINE__, "%s is not out", text);
}

static void say(struct rig *g, const char *session, const char *text, int idles)
{
  snprintf(g->session, sizeof g->session, "%s", session);
  rig_say(g, text);
  rig_idles(g, idles);
}

/* a1 of one session is out, a2 of it waits; b1 of another is out. */
static void a1_and_b1_are_out(struct rig *g)
{
  char a[64], b[64], json[400];
  play(g, test_dir());
  rig_session(g, "[]");
  snprintf(a, sizeof a, "%s", g->session);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g->agent, g->env);
  rig_ok(g, mr_sessions_create, NULL, NULL, json);
  snprintf(b, sizeof b, "%s", rig_get(g, "/id"));
  watch(g, 1);
  for (int i = 0; i < 20; i++)
    rig_pump(g); /* its position is known, and it has caught up */
  say(g, a, "a1", 1);
  until_shown(g, "a1");
  say(g, a, "a2", 2);
  say(g, b, "b1", 1);
  until_shown(g, "b1");
  CHECK_INT(f.n, 2);
}

/* Commits that are over; waits for them, while the loop stands still. */
static uint64_t commits(struct rig *g, uint64_t want)
{
  struct pollfd none = {-1, 0, 0};
  struct mr_store_stats st;
  for (int i = 0; i < 5000; i++) {
    mr_store_stats(g->store, &st);
    if (st.commits + st.failed >= want)
      break;
    poll(&none, 1, 1);
  }
  return st.commits + st.failed;
}

/* What is committed after a durable watcher was added is never durable without its first position. */
TEST(the_first_position_is_on_its_way_at_once)
{
  struct rig g;
  struct mr_watch_opts o = {.name = MR_S("v")};
  play(&g, test_dir());
  rig_session(&g, "[]");
  for (int i = 0; i < 20; i++)
    rig_pump(&g); /* nothing else is written any more */
  uint64_t before = commits(&g, 0);
  watch(&g, 1);
  CHECK_INT(commits(&g, before + 1), before + 1);
  CHECK_INT(mr_watch_add(g.d, &o, NULL), MR_OK);
  o.durable = true; /* one that becomes durable likewise */
  CHECK_INT(mr_watch_add(g.d, &o, NULL), MR_OK);
  CHECK_INT(commits(&g, before + 2), before + 2);
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}

/* With another filter a2 is read again. Stopped before that, the position is before a2 all the same, though an
 * event behind it is still in the list. */
TEST(another_filter_and_a_stop_skip_nothing)
{
  struct rig g;
  a1_and_b1_are_out(&g);
  watch(&g, 2);
  done("a1");
  rig_close(&g);
  play(&g, test_dir());
  watch(&g, 1);
  until_shown(&g, "a2");
  done("a2");
  until_shown(&g, "b1"); /* it was not done either */
  CHECK_INT(shown("a1"), 0);
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}

TEST(another_filter_shows_nothing_twice)
{
  struct rig g;
  a1_and_b1_are_out(&g);
  watch(&g, 2);
  done("b1");
  done("a1");
  until_shown(&g, "a2");
  done("a2");
  rig_say(&g, "b2");
  for (int i = 0; i < 5000 && !shown("b2"); i++) {
    while (f.nout)
      done(f.out[0]->host);
    rig_pump(&g);
  }
  CHECK_INT(shown("b2"), 1);
  CHECK_INT(shown("a1"), 1);
  CHECK_INT(shown("a2"), 1);
  CHECK_INT(shown("b1"), 1);
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}

static void done_of(struct rig *g, const char *session)
{
  for (int i = f.nout - 1; i >= 0; i--)
    if (mr_str_is(f.out[i]->session_id, session)) {
      struct mr_shown *e = f.out[i];
      f.out[i] = f.out[--f.nout];
      mr_watch_done(g->d, e, false);
    }
}

/* One event is never done; what came behind it fills the list. Read again from before all that, the watcher goes
 * on all the same. */
TEST(another_filter_when_the_list_is_full)
{
  struct rig g;
  char a[64], b[64], json[400];
  play(&g, test_dir());
  rig_session(&g, "[]");
  snprintf(a, sizeof a, "%s", g.session);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g.agent, g.env);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(b, sizeof b, "%s", rig_get(&g, "/id"));
  watch(&g, 0);
  for (int i = 0; i < 20; i++)
    rig_pump(&g);
  say(&g, a, "a1", 1);
  until_shown(&g, "session.status_running"); /* of a, and that is all for now */
  snprintf(g.session, sizeof g.session, "%s", b);
  for (int i = 1; i <= 450; i++) {
    rig_say(&g, "b");
    while (f.n < 1 + 9 * i) { /* the events of a turn */
      rig_pump(&g);
      done_of(&g, b);
    }
  }
  watch(&g, 1);
  done_of(&g, a);
  for (int i = 0; i < 20000 && !shown("a1"); i++) {
    rig_pump(&g);
    done_of(&g, b);
  }
  CHECK_INT(shown("a1"), 1);
  done_of(&g, a);
  rig_say(&g, "the end");
  for (int i = 0; i < 20000 && !shown("the end"); i++) {
    rig_pump(&g);
    done_of(&g, b);
  }
  CHECK_INT(shown("the end"), 1);
  rig_close(&g);
  CHECK_INT(test_allocs(), 0);
}
