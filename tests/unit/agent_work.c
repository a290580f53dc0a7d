/* The work queue: leases by the wall clock, the order over restarts, and, in debug flavours, commits that fail: nothing
 * of them was visible, and the item is what is durable. */
#include "agent_kit.h"

static const char *says(struct rig *g, struct mr_str last, int k)
{
  (void)g;
  (void)last;
  (void)k;
  return "[{\"type\":\"text\",\"text\":\"Hello.\"}]";
}

static char home[64];

/* A self-hosted environment, and an agent. */
static void settle(struct rig *g)
{
  rig_ok(g, mr_environments_create, NULL, NULL, "{\"name\":\"own\",\"config\":{\"type\":\"self_hosted\"}}");
  snprintf(home, sizeof home, "%s", rig_get(g, "/id"));
  rig_ok(g, mr_agents_create, NULL, NULL, "{\"name\":\"hand\",\"model\":\"m\"}");
  snprintf(g->agent, sizeof g->agent, "%s", rig_get(g, "/id"));
}

static int make(struct rig *g, char id[64])
{
  char json[256];
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g->agent, home);
  rig_call(g, mr_sessions_create, NULL, NULL, json);
  snprintf(id, 64, "%s", rig_get(g, "/id"));
  return g->code;
}

/* The session of the item that a poll gets, "" none; its id in item. */
static const char *polled(struct rig *g, char item[64])
{
  static char session[64];
  rig_ok(g, mr_environments_work_poll, home, NULL, NULL);
  item[0] = session[0] = '\0';
  if (strcmp(g->last, "null") == 0)
    return session;
  snprintf(item, 64, "%s", rig_get(g, "/id"));
  snprintf(session, sizeof session, "%s", rig_get(g, "/data/id"));
  CHECK(strlen(rig_get(g, "/secret")) > 100);
  return session;
}

static const char *state(struct rig *g, const char *item)
{
  rig_ok(g, mr_environments_work_retrieve, home, item, NULL);
  return rig_get(g, "/state");
}

/* What could not be stored is read again, what a start reads is there. */
static void calm(struct rig *g)
{
  for (int i = 0; i < 100; i++)
    rig_pump(g);
}

static int depth(struct rig *g)
{
  calm(g);
  rig_ok(g, mr_environments_work_stats, home, NULL, NULL);
  return atoi(rig_get(g, "/depth"));
}

#define NOW INT64_C(1800000000000000)

TEST(leases_end_by_the_wall_clock)
{
  struct rig g = {.model = says};
  char session[64], item[64], beat[128], json[256];

  test_clock_set(1000000, NOW);
  rig_open(&g, test_dir());
  settle(&g);
  CHECK_INT(make(&g, session), MR_OK);
  CHECK_STR(mr_str_c(polled(&g, item)), session);
  test_clock_set(5900000, NOW + 4900000);
  CHECK_STR(mr_str_c(polled(&g, item)), "");
  test_clock_set(6100000, NOW + 5100000);
  CHECK_STR(mr_str_c(polled(&g, item)), session); /* not acknowledged within five seconds */
  rig_ok(&g, mr_environments_work_ack, home, item, NULL);
  test_clock_set(6100000, NOW + 5100000 + 299000000);
  CHECK_STR(mr_str_c(state(&g, item)), "starting");
  test_clock_set(6100000, NOW + 5100000 + 300000000);
  CHECK_STR(mr_str_c(state(&g, item)), "queued"); /* never a sign of life */
  CHECK_INT(depth(&g), 1);
  CHECK_STR(mr_str_c(polled(&g, item)), session);
  rig_ok(&g, mr_environments_work_ack, home, item, NULL);
  rig_ok(&g, mr_environments_work_heartbeat, home, item, "{\"expected_last_heartbeat\":\"NO_HEARTBEAT\",\"desired_ttl_seconds\":60}");
  snprintf(beat, sizeof beat, "%s", rig_get(&g, "/last_heartbeat"));
  snprintf(json, sizeof json, "{\"expected_last_heartbeat\":\"%s\"}", beat);
  test_clock_set(6100000, NOW + 5100000 + 300000000 + 59000000);
  rig_ok(&g, mr_environments_work_heartbeat, home, item, json);
  CHECK_STR(mr_str_c(rig_get(&g, "/ttl_seconds")), "300"); /* asked for once is not asked for ever */
  rig_refused(&g, mr_environments_work_heartbeat, home, item, json, MR_E_STATE, 412, "expected_last_heartbeat", "another worker");
  CHECK_STR(mr_str_c(g.err.error_code), "heartbeat_precondition_failed");
  /* Two heartbeats at one instant are two. */
  rig_ok(&g, mr_environments_work_heartbeat, home, item, NULL);
  snprintf(beat, sizeof beat, "%s", rig_get(&g, "/last_heartbeat"));
  rig_ok(&g, mr_environments_work_heartbeat, home, item, NULL);
  CHECK(strcmp(beat, rig_get(&g, "/last_heartbeat")) < 0);
  rig_close(&g);
}

TEST(a_restart_keeps_the_order)
{
  struct rig g = {.model = says};
  char made[700][64], item[64];
  const char *dir = test_dir();

  rig_open(&g, dir);
  settle(&g);
  for (int i = 0; i < 700; i++) /* more than a page of the load */
    CHECK_INT(make(&g, made[i]), MR_OK);
  CHECK_STR(mr_str_c(polled(&g, item)), made[0]);
  rig_ok(&g, mr_environments_work_stop, home, item, "{\"force\":true}");
  rig_close(&g);
  rig_open(&g, dir);
  calm(&g);
  for (int i = 1; i < 700; i++)
    CHECK_STR(mr_str_c(polled(&g, item)), made[i]);
  CHECK_STR(mr_str_c(polled(&g, item)), "");
  rig_close(&g);
}

#ifdef MR_DEBUG
static void failing(const char *fault)
{
  CHECK_INT(setenv("MOONRIG_FAULT", fault, 1), 0);
}

TEST(a_claim_that_could_not_be_stored_was_none)
{
  struct rig g = {.model = says};
  char session[64], item[64];

  rig_open(&g, test_dir());
  settle(&g);
  CHECK_INT(make(&g, session), MR_OK);
  failing("commit.work.claim.before=fail@1");
  rig_refused(&g, mr_environments_work_poll, home, NULL, NULL, MR_E_UNAVAILABLE, 503, "", "");
  CHECK_INT(depth(&g), 1);
  CHECK_STR(mr_str_c(polled(&g, item)), session);
  rig_close(&g);
}

TEST(a_stop_that_could_not_be_stored_was_none)
{
  struct rig g = {.model = says};
  char session[64], item[64];

  rig_open(&g, test_dir());
  settle(&g);
  CHECK_INT(make(&g, session), MR_OK);
  polled(&g, item);
  rig_ok(&g, mr_environments_work_ack, home, item, NULL);
  failing("commit.work.stop.before=fail@1");
  rig_refused(&g, mr_environments_work_stop, home, item, "{\"force\":true}", MR_E_UNAVAILABLE, 503, "", "");
  calm(&g);
  CHECK_STR(mr_str_c(state(&g, item)), "starting");
  rig_ok(&g, mr_environments_work_heartbeat, home, item, "{\"expected_last_heartbeat\":\"NO_HEARTBEAT\"}");
  CHECK_STR(mr_str_c(state(&g, item)), "active");
  rig_ok(&g, mr_environments_work_stop, home, item, "{\"force\":true}");
  CHECK_STR(mr_str_c(state(&g, item)), "stopped");
  rig_close(&g);
}

TEST(an_ack_that_could_not_be_stored_was_none)
{
  struct rig g = {.model = says};
  char session[64], item[64];

  rig_open(&g, test_dir());
  settle(&g);
  CHECK_INT(make(&g, session), MR_OK);
  polled(&g, item);
  failing("commit.work.ack.before=fail@1");
  rig_refused(&g, mr_environments_work_ack, home, item, NULL, MR_E_UNAVAILABLE, 503, "", "");
  calm(&g);
  CHECK_STR(mr_str_c(state(&g, item)), "queued");
  rig_ok(&g, mr_environments_work_ack, home, item, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/state")), "starting");
  rig_close(&g);
}

TEST(an_item_is_there_with_what_it_is_for_or_not_at_all)
{
  struct rig g = {.model = says};
  char session[64], item[64];

  rig_open(&g, test_dir());
  settle(&g);
  failing("commit.create.before=fail@1");
  CHECK_INT(make(&g, session), MR_E_UNAVAILABLE);
  CHECK_INT(depth(&g), 0);
  CHECK_INT(make(&g, session), MR_OK);
  polled(&g, item);
  rig_ok(&g, mr_environments_work_stop, home, item, "{\"force\":true}");
  snprintf(g.session, sizeof g.session, "%s", session);
  failing("commit.inbox.before=fail@1");
  rig_call(&g, mr_sessions_events_send, session, NULL,
           "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"lost\"}]}]}");
  CHECK_INT(g.code, MR_E_UNAVAILABLE);
  CHECK_INT(depth(&g), 0);
  rig_say(&g, "again");
  CHECK_INT(depth(&g), 1);
  failing("commit.archive.before=fail@1");
  rig_idles(&g, 1);
  rig_call(&g, mr_sessions_archive, session, NULL, NULL);
  CHECK_INT(g.code, MR_E_UNAVAILABLE);
  CHECK_INT(depth(&g), 1); /* it still is the session's */
  rig_ok(&g, mr_sessions_archive, session, NULL, NULL);
  CHECK_INT(depth(&g), 0);
  rig_close(&g);
}

/* The next item is made by a stop that is not stored, and stopped by an archive that is not either. */
TEST(an_item_that_never_was_is_nowhere)
{
  struct rig g = {.model = says};
  char session[64], item[64], next[64];
  struct made *stop;

  rig_open(&g, test_dir());
  settle(&g);
  CHECK_INT(make(&g, session), MR_OK);
  snprintf(g.session, sizeof g.session, "%s", session);
  polled(&g, item);
  rig_ok(&g, mr_environments_work_ack, home, item, NULL);
  rig_ok(&g, mr_environments_work_stop, home, item, NULL);
  CHECK_STR(mr_str_c(rig_get(&g, "/state")), "stopping");
  rig_say(&g, "more");
  rig_until(&g, "idle");
  failing("commit.work.stop.before=fail,commit.archive.before=fail");
  stop = rig_begin(&g, mr_environments_work_stop, home, item, "{\"force\":true}");
  CHECK(rig_call(&g, mr_sessions_archive, session, NULL, NULL) != MR_OK); /* its own fault, or it was built on nothing */
  CHECK_INT(rig_answer(&g, stop), MR_E_UNAVAILABLE);
  unsetenv("MOONRIG_FAULT");
  calm(&g);
  CHECK_STR(mr_str_c(state(&g, item)), "stopping");
  rig_ok(&g, mr_environments_work_stop, home, item, "{\"force\":true}");
  CHECK_STR(mr_str_c(polled(&g, next)), session); /* what came meanwhile has its item now */
  CHECK(strcmp(item, next) != 0);
  rig_ok(&g, mr_environments_work_stop, home, next, "{\"force\":true}");
  rig_close(&g);
}
#endif
