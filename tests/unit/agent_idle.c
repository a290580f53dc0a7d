/* An idle session is a row and nothing else: what was loaded for it goes, and comes back when something
 * happens. */
#include "agent_kit.h"

#include <malloc.h>
#include <time.h>

static const char *says_hello(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last, (void)k;
  return "[{\"type\":\"text\",\"text\":\"Hello\"}]";
}

static int loaded(struct rig *g)
{
  struct mr_domain_stats st;
  mr_domain_stats(g->d, &st);
  return st.sessions_loaded;
}

static int64_t mono(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* Moves the monotonic clock, and lets what is due happen. */
static void later(struct rig *g, int64_t us)
{
  test_clock_set(mono() + us, -1);
  for (int i = 0; i < 50; i++)
    rig_pump(g);
}

static void one_turn(struct rig *g, const char *session, int turns)
{
  if (session != g->session)
    snprintf(g->session, sizeof g->session, "%s", session);
  rig_say(g, "hi");
  rig_idles(g, turns);
}

TEST(sessions_at_rest_are_unloaded)
{
  enum { N = 200, KEPT = 64 };
  static char ids[N][64];
  struct rig g = {.model = says_hello};
  char json[256];
  long blocks;

  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  one_turn(&g, g.session, 1);
  later(&g, 6000000);
  CHECK_INT(loaded(&g), 0);
  blocks = test_allocs();
  for (int i = 0; i < N; i++) {
    snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g.agent, g.env);
    rig_ok(&g, mr_sessions_create, NULL, NULL, json);
    snprintf(ids[i], sizeof ids[i], "%s", rig_get(&g, "/id"));
    CHECK(loaded(&g) <= KEPT + 1); /* making one loads none */
    one_turn(&g, ids[i], 1);
  }
  CHECK(loaded(&g) > 0 && loaded(&g) <= KEPT + 1);
  later(&g, 13000000);
  CHECK_INT(loaded(&g), 0);
  CHECK_INT(test_allocs(), blocks);
  one_turn(&g, ids[0], 2); /* and works when it comes back */
  one_turn(&g, ids[N - 1], 2);
  rig_close(&g);
}

TEST(many_idle_sessions_cost_no_memory)
{
  enum { N = 2000 };
  struct rig g = {.model = says_hello};
  char json[512];
  long blocks;
  size_t before;

  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  one_turn(&g, g.session, 1);
  later(&g, 6000000);
  blocks = test_allocs();
  before = mallinfo2().uordblks;
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"title\":\"a title of some length\"}", g.agent, g.env);
  for (int i = 0; i < N; i++) {
    rig_ok(&g, mr_sessions_create, NULL, NULL, json);
    if (i % 100 == 0) {
      snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
      one_turn(&g, g.session, 1);
    }
  }
  later(&g, 26000000);
  CHECK_INT(loaded(&g), 0);
  CHECK_INT(test_allocs(), blocks);
  printf("# %.1f bytes a session, the store's page cache included\n", (double)(mallinfo2().uordblks - before) / N);
  rig_close(&g);
}

TEST(what_refers_to_a_session_keeps_it)
{
  struct rig g = {.model = says_hello};
  rig_open(&g, test_dir());
  rig_session(&g, NULL);
  one_turn(&g, g.session, 1);
  CHECK_INT(loaded(&g), 1); /* for a short while: the next message often comes soon */
  later(&g, 4000000);
  CHECK_INT(loaded(&g), 1);
  later(&g, 11000000);
  CHECK_INT(loaded(&g), 0);
  rig_close(&g);
}
