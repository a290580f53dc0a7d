/* Sessions, the log, the inbox: every write read back, lists and filters, deletion, what is woken. */
#include <sqlite3.h>
#include "store_kit.h"

TEST(session_new_put_read)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct got g = {0};
    struct outcome o;
    struct mr_commit *c;
    struct mr_session_row s = ts_session("sesn_1", 10);

    ts_open(&t, m ? ":memory:" : test_dir());
    s.deployment_id = MR_S("depl_1"), s.last_us = 5, s.due_us = 6, s.owner_epoch = 2;
    c = ts_commit(&t);
    mr_commit_session_new(c, &s);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    c = ts_commit(&t);
    mr_commit_session_new(c, &s);
    CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
    CHECK(strcmp(o.code_text, "exists") == 0);
    ts_read(&t, &g, mr_read_session, t.ws, s.id);
    CHECK_INT(g.n, 1);
    CHECK_INT(g.sessions[0].rev, 1);
    CHECK(g.sessions[0].no > 0);
    CHECK_INT(g.sessions[0].owner_epoch, 2);
    CHECK_INT(g.sessions[0].agent_version, 1);
    CHECK_INT(g.sessions[0].last_us, 5);
    CHECK_INT(g.sessions[0].due_us, 6);
    CHECK_STR(g.sessions[0].deployment_id, "depl_1");
    CHECK_STR(g.sessions[0].agent, "{\"a\":1}");
    /* Only what is named changes. */
    s.status = MR_S("running"), s.updated_us = 11, s.agent = MR_S("no"), s.doc = MR_S("no");
    s.head = MR_S("{\"h\":2}"), s.agent_id = MR_S("no");
    c = ts_commit(&t);
    mr_commit_session_put(c, &s, MR_SESSION_HEAD);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    ts_read(&t, &g, mr_read_session, t.ws, s.id);
    CHECK_INT(g.sessions[0].rev, 2);
    CHECK_STR(g.sessions[0].status, "running");
    CHECK_STR(g.sessions[0].head, "{\"h\":2}");
    CHECK_STR(g.sessions[0].agent, "{\"a\":1}");
    CHECK_STR(g.sessions[0].agent_id, "agent_1");
    CHECK_STR(g.sessions[0].doc, "{\"resources\":[]}");
    /* The old rev and a stale epoch are refused. */
    c = ts_commit(&t);
    mr_commit_session_put(c, &s, 0);
    CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
    CHECK(strcmp(o.code_text, "rev") == 0);
    s.rev = 2, s.owner_epoch = 1;
    c = ts_commit(&t);
    mr_commit_session_put(c, &s, 0);
    CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
    s.owner_epoch = 2, s.agent = MR_S("{\"a\":2}"), s.agent_id = MR_S("agent_2"), s.agent_version = 9;
    s.doc = MR_S("{\"d\":2}");
    c = ts_commit(&t);
    mr_commit_session_put(c, &s, MR_SESSION_AGENT | MR_SESSION_DOC);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    ts_read(&t, &g, mr_read_session, t.ws, s.id);
    CHECK_STR(g.sessions[0].agent, "{\"a\":2}");
    CHECK_STR(g.sessions[0].agent_id, "agent_2");
    CHECK_INT(g.sessions[0].agent_version, 9);
    CHECK_STR(g.sessions[0].doc, "{\"d\":2}");
    CHECK_STR(g.sessions[0].head, "{\"h\":2}");
    got_free(&g);
    ts_close(&t);
  }
}

TEST(session_lists)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct mr_str want[2] = {MR_S("running"), MR_S("rescheduling")};
  static const char *const status[] = {"idle", "running", "rescheduling", "terminated"};
  char id[32], last[32];
  int seen = 0;

  ts_open(&t, test_dir());
  c = ts_commit(&t);
  for (int i = 0; i < 20; i++) {
    struct mr_session_row s = ts_session("", 100 + i / 5);
    snprintf(id, sizeof id, "sesn_%02d", i);
    s.id = mr_str_c(id), s.status = mr_str_c(status[i % 4]), s.archived_us = i == 19;
    s.agent_id = i % 2 ? MR_S("agent_odd") : MR_S("agent_even"), s.agent_version = 1 + i % 3;
    s.environment_id = i < 4 ? MR_S("env_a") : MR_S("env_b");
    s.deployment_id = i == 7 ? MR_S("depl_7") : MR_S("");
    s.doc = i == 3 ? MR_S("{\"resources\":[{\"type\":\"file\"},{\"memory_store_id\":\"memstore_1\"}]}")
                   : MR_S("{\"resources\":[{\"memory_store_id\":\"memstore_2\"}]}");
    if (i == 4)
      s.doc = MR_S("{}");
    mr_commit_session_new(c, &s);
  }
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
#define LIST(...) ts_read(&t, &g, mr_read_sessions, t.ws, &((struct mr_session_query){.limit = 100, __VA_ARGS__}))
  LIST(.ascending = true);
  CHECK_INT(g.n, 19);
  CHECK_STR(g.sessions[0].id, "sesn_00");
  LIST(.include_archived = true);
  CHECK_INT(g.n, 20);
  CHECK_STR(g.sessions[0].id, "sesn_19");
  LIST(.agent_id = MR_S("agent_odd"));
  CHECK_INT(g.n, 9);
  LIST(.agent_id = MR_S("agent_even"), .agent_version = 1);
  CHECK_INT(g.n, 4); /* 0 6 12 18 */
  LIST(.environment_id = MR_S("env_a"));
  CHECK_INT(g.n, 4);
  LIST(.deployment_id = MR_S("depl_7"));
  CHECK_INT(g.n, 1);
  LIST(.memory_store_id = MR_S("memstore_1"));
  CHECK_INT(g.n, 1);
  CHECK_STR(g.sessions[0].id, "sesn_03");
  LIST(.statuses = want, .nstatuses = 2);
  CHECK_INT(g.n, 10);
  LIST(.created = {.gte = 101, .lt = 103});
  CHECK_INT(g.n, 10);
  for (int asc = 0; asc < 2; asc++) {
    struct mr_session_query q = {.limit = 3, .ascending = asc, .include_archived = true};
    seen = 0;
    do {
      ts_read(&t, &g, mr_read_sessions, t.ws, &q);
      for (int i = 0; i < g.n; i++, seen++) {
        snprintf(id, sizeof id, "sesn_%02d", asc ? seen : 19 - seen);
        CHECK_STR(g.sessions[i].id, id);
      }
      snprintf(last, sizeof last, "%s", g.sessions[g.n - 1].id.p);
      q.after = (struct mr_cursor){g.sessions[g.n - 1].created_us, mr_str_c(last)};
    } while (g.more);
    CHECK_INT(seen, 20);
  }
  got_free(&g);
  ts_close(&t);
}

static void log_some(struct ts *t)
{
  struct mr_commit *c = ts_commit(t);
  struct mr_log_row r[6] = {
      ts_log("user.message", "sevt_1", 10, "{\"n\":1}"), ts_log("model.reply", "", 11, "{\"n\":2}"),
      ts_log("agent.message", "sevt_3", 12, "{\"n\":3}"), ts_log("agent.message", "sevt_4", 13, "{\"n\":4}"),
      ts_log("agent.thinking", "sevt_5", 14, "{\"n\":5}"), ts_log("user.message", "sevt_6", 15, "{\"n\":6}")};
  struct outcome o;

  r[1].kind = MR_ROW_PRIVATE, r[1].format = 3;
  r[4].thread_id = MR_S("sthr_2");
  mr_commit_log(c, MR_S("sesn_1"), r, 6);
  CHECK_INT(ts_submit(t, c, &o), MR_OK);
  CHECK(o.pos > 0);
}

TEST(log_read)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct got g = {0};
    struct mr_str types[2] = {MR_S("user.message"), MR_S("x")};
    int64_t first;

    ts_open(&t, m ? ":memory:" : test_dir());
    ts_session_make(&t, "sesn_0", 1);
    ts_session_make(&t, "sesn_1", 1);
    log_some(&t);
#undef LIST
#define LOG(...) ts_read(&t, &g, mr_read_log, t.ws, &((struct mr_log_query){.session_id = MR_S("sesn_1"), __VA_ARGS__}))
    LOG(.limit = 10);
    CHECK_INT(g.n, 4);
    CHECK_STR(g.log[0].type, "user.message");
    CHECK_STR(g.log[0].event_id, "sevt_1");
    CHECK_STR(g.log[0].body, "{\"n\":1}");
    CHECK_STR(g.log[0].thread_id, "");
    CHECK_INT(g.log[0].processed_us, 10);
    first = g.log[0].pos;
    CHECK_INT(g.log[1].pos, first + 2);
    LOG(.limit = 10, .with_private = true);
    CHECK_INT(g.n, 5);
    CHECK_INT(g.log[1].kind, MR_ROW_PRIVATE);
    CHECK_INT(g.log[1].format, 3);
    CHECK_STR(g.log[1].event_id, "");
    LOG(.limit = 10, .thread_id = MR_S("sthr_2"));
    CHECK_INT(g.n, 1);
    CHECK_STR(g.log[0].thread_id, "sthr_2");
    LOG(.limit = 10, .types = types, .ntypes = 2, .descending = true);
    CHECK_INT(g.n, 2);
    CHECK_STR(g.log[0].event_id, "sevt_6");
    LOG(.limit = 10, .processed = {.gt = 10, .lte = 13});
    CHECK_INT(g.n, 2);
    LOG(.limit = 2);
    CHECK(g.more);
    LOG(.limit = 2, .after_pos = g.log[1].pos);
    CHECK_INT(g.n, 2);
    CHECK(!g.more);
    CHECK_STR(g.log[0].event_id, "sevt_4");
    LOG(.limit = 2, .descending = true, .after_pos = g.log[0].pos);
    CHECK_INT(g.n, 2);
    CHECK_STR(g.log[0].event_id, "sevt_3");
    ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_0"), .limit = 9});
    CHECK_INT(g.n, 0);
    ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_none"), .limit = 9});
    CHECK_INT(g.code, MR_OK);
    CHECK_INT(g.n, 0);
    got_free(&g);
    ts_close(&t);
  }
}

/* A reply over 16 MiB is cut, says so, and goes on from its last position. */
TEST(log_reply_is_bounded)
{
  struct ts t;
  struct got g = {0};
  enum { ROWS = 20, SIZE = 2 << 20 };
  char *big = malloc(SIZE + 1);
  int64_t after = 0;
  int seen = 0, replies = 0;

  memset(big, 'x', SIZE);
  big[SIZE] = '\0';
  ts_open(&t, test_dir());
  ts_session_make(&t, "sesn_1", 1);
  for (int i = 0; i < ROWS; i++) {
    struct mr_commit *c = ts_commit(&t);
    struct mr_log_row r = ts_log("agent.message", "sevt_1", i, big);
    mr_commit_log(c, MR_S("sesn_1"), &r, 1);
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  }
  do {
    LOG(.limit = 1000, .after_pos = after);
    CHECK_INT(g.code, MR_OK);
    CHECK(g.n > 0);
    seen += g.n;
    replies++;
    after = g.log[g.n - 1].pos;
  } while (g.more);
  CHECK_INT(seen, ROWS);
  CHECK(replies >= 2);
  free(big);
  got_free(&g);
  ts_close(&t);
}

TEST(inbox_take)
{
  struct ts t;
  struct got g = {0};
  struct outcome o;
  struct mr_commit *c;
  struct mr_inbox_row r = {.type = MR_S("user.message"), .body = MR_S("{\"processed_at\":null}")};
  struct mr_log_row row = ts_log("user.message", "sevt_2", 1, "{}");
  const char *ids[3] = {"sevt_9", "sevt_2", "sevt_5"};

  ts_open(&t, test_dir());
  ts_session_make(&t, "sesn_1", 1);
  for (int i = 0; i < 3; i++) {
    r.event_id = mr_str_c(ids[i]);
    c = ts_commit(&t);
    mr_commit_inbox_add(c, MR_S("sesn_1"), &r);
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  }
  ts_read(&t, &g, mr_read_inbox, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.n, 3);
  for (int i = 0; i < 3; i++)
    CHECK_STR(g.inbox[i].event_id, ids[i]);
  CHECK(g.inbox[0].arrival < g.inbox[1].arrival);
  CHECK_STR(g.inbox[0].body, "{\"processed_at\":null}");
  /* The turn takes one: gone from the inbox and in the log, in one commit; a second time it fails whole. */
  for (int i = 0; i < 2; i++) {
    c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), &row, 1);
    mr_commit_inbox_del(c, MR_S("sesn_1"), MR_S("sevt_2"));
    CHECK_INT(ts_submit(&t, c, &o), i == 0 ? MR_OK : MR_E_CONFLICT);
  }
  CHECK(strcmp(o.field, "inbox") == 0);
  ts_read(&t, &g, mr_read_inbox, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.n, 2);
  LOG(.limit = 9);
  CHECK_INT(g.n, 1);
  got_free(&g);
  ts_close(&t);
}

static int64_t count(const char *dir, const char *sql)
{
  char path[4200];
  sqlite3 *db;
  sqlite3_stmt *st;
  int64_t n = -1;

  snprintf(path, sizeof path, "%s/store.db", dir);
  CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
  CHECK_INT(sqlite3_prepare_v2(db, sql, -1, &st, NULL), SQLITE_OK);
  if (sqlite3_step(st) == SQLITE_ROW)
    n = sqlite3_column_int64(st, 0);
  sqlite3_finalize(st);
  sqlite3_close(db);
  return n;
}

/* Not found at once, to reads and to writes; then the rows go; positions are not given again. */
TEST(session_delete)
{
  struct ts t;
  struct got g = {0};
  struct outcome o;
  struct mr_commit *c;
  struct mr_session_row s = ts_session("sesn_1", 1);
  struct mr_log_row row[100];
  struct mr_inbox_row in = {.event_id = MR_S("sevt_2"), .type = MR_S("user.message"), .body = MR_S("{}")};
  char dir[4096];
  int64_t highest = 0;

  snprintf(dir, sizeof dir, "%s", test_dir());
  ts_open(&t, dir);
  ts_session_make(&t, "sesn_0", 1);
  ts_session_make(&t, "sesn_1", 1);
  for (int i = 0; i < 100; i++)
    row[i] = ts_log("agent.message", "sevt_1", 1, "{}");
  for (int i = 0; i < 23; i++) {
    c = ts_commit(&t);
    mr_commit_log(c, MR_S("sesn_1"), row, 100);
    mr_commit_log(c, i == 0 ? MR_S("sesn_0") : MR_S("sesn_1"), row, 1);
    mr_commit_inbox_add(c, MR_S("sesn_1"), &in);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    highest = o.pos + 100;
  }
  c = ts_commit(&t);
  mr_commit_session_delete(c, MR_S("sesn_1"));
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  ts_read(&t, &g, mr_read_session, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.code, MR_E_NOTFOUND);
  LOG(.limit = 9);
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_inbox, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_sessions, t.ws, &(struct mr_session_query){.limit = 9});
  CHECK_INT(g.n, 1);
  ts_read(&t, &g, mr_read_sessions_to_wake, 10, 0);
  CHECK_INT(g.n, 0);
  for (int i = 0; i < 3; i++) {
    c = ts_commit(&t);
    if (i == 0)
      mr_commit_session_delete(c, MR_S("sesn_1"));
    else if (i == 1)
      mr_commit_log(c, MR_S("sesn_1"), row, 1);
    else
      mr_commit_session_put(c, &s, 0);
    CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
    CHECK(strcmp(o.code_text, "not_found") == 0);
  }
  for (int i = 0; count(dir, "SELECT count(*) FROM sessions") != 1; i++) {
    CHECK(i < 10000);
    usleep(1000);
  }
  CHECK_INT(count(dir, "SELECT count(*) FROM log"), 1);
  CHECK_INT(count(dir, "SELECT count(*) FROM inbox"), 0);
  CHECK_INT(count(dir, "SELECT count(*) FROM session_texts"), 1);
  ts_close(&t);
  ts_open(&t, dir);
  c = ts_commit(&t);
  mr_commit_log(c, MR_S("sesn_0"), row, 1);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  CHECK_INT(o.pos, highest + 1);
  got_free(&g);
  ts_close(&t);
}

/* Commits find it and no read does, until it is born; what was not when the program ended is gone at the next open. */
TEST(session_unborn)
{
  struct ts t;
  struct got g = {0};
  struct outcome o;
  struct mr_commit *c;
  struct mr_session_row s;
  struct mr_log_row row = ts_log("agent.message", "sevt_1", 1, "{}"), copied = ts_log("user.message", "sevt_2", 1, "{}");
  char dir[4096];

  copied.format = MR_ROW_COPIED;
  snprintf(dir, sizeof dir, "%s", test_dir());
  ts_open(&t, dir);
  for (int i = 0; i < 2; i++) {
    s = ts_session(i ? "sesn_1" : "sesn_2", 1);
    s.unborn = true;
    s.status = MR_S("running");
    c = ts_commit(&t);
    mr_commit_session_new(c, &s);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
    c = ts_commit(&t);
    mr_commit_log(c, s.id, &row, 1);
    mr_commit_log(c, s.id, &copied, 1);
    CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  }
  ts_read(&t, &g, mr_read_session, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.code, MR_E_NOTFOUND);
  LOG(.limit = 9);
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_sessions, t.ws, &(struct mr_session_query){.include_archived = true, .limit = 9});
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_sessions_to_wake, 10, 0);
  CHECK_INT(g.n, 0);
  c = ts_commit(&t);
  mr_commit_session_new(c, &s); /* its id is taken */
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  c = ts_commit(&t);
  mr_commit_session_put(c, &s, 0);
  mr_commit_session_born(c, MR_S("sesn_1"), MR_S("env_2"));
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  ts_read(&t, &g, mr_read_session, t.ws, MR_S("sesn_1"));
  CHECK_INT(g.n, 1);
  CHECK_STR(g.sessions[0].environment_id, "env_2");
  LOG(.limit = 9);
  CHECK_INT(g.n, 2);
  ts_read(&t, &g, mr_read_all, 0, INT64_MAX, NULL, 0, 9);
  CHECK_INT(g.n, 1); /* what is copied is no news */
  CHECK_STR(g.all[0].type, "agent.message");
  ts_close(&t);
  CHECK_INT(count(dir, "SELECT count(*) FROM sessions"), 2);
  ts_open(&t, dir);
  for (int i = 0; count(dir, "SELECT count(*) FROM sessions") != 1; i++) {
    CHECK(i < 10000);
    usleep(1000);
  }
  CHECK_INT(count(dir, "SELECT count(*) FROM log"), 2);
  got_free(&g);
  ts_close(&t);
}

TEST(sessions_to_wake)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct mr_inbox_row in = {.event_id = MR_S("sevt_2"), .type = MR_S("user.message"), .body = MR_S("{}")};
  int64_t other, no;
  char id[32];

  ts_open(&t, test_dir());
  CHECK_INT(mr_store_workspace(t.s, MR_S("wrkspc_other"), &other, NULL), MR_OK);
  for (int w = 0; w < 2; w++) {
    c = ts_commit_in(&t, w ? other : t.ws);
    for (int i = 0; i < 6; i++) {
      struct mr_session_row s = ts_session("", 1);
      snprintf(id, sizeof id, "sesn_%d", i);
      s.id = mr_str_c(id);
      s.status = i == 1 ? MR_S("running") : i == 2 ? MR_S("rescheduling") : MR_S("idle");
      s.due_us = i == 2 ? 77 : 0;
      mr_commit_session_new(c, &s);
      if (i == 4)
        mr_commit_inbox_add(c, s.id, &in);
      if (i == 4)
        mr_commit_inbox_add(c, s.id, &in);
    }
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  }
  ts_read(&t, &g, mr_read_sessions_to_wake, 100, 0);
  CHECK_INT(g.n, 6);
  CHECK_STR(g.sessions[0].id, "sesn_1");
  CHECK_STR(g.sessions[0].status, "running");
  CHECK_STR(g.sessions[1].id, "sesn_2");
  CHECK_INT(g.sessions[1].due_us, 77);
  CHECK_STR(g.sessions[2].id, "sesn_4");
  CHECK_INT(g.sessions[0].owner_epoch, t.ws);
  CHECK_INT(g.sessions[5].owner_epoch, other);
  ts_read(&t, &g, mr_read_sessions_to_wake, 4, 0);
  CHECK_INT(g.n, 4);
  CHECK(g.more);
  no = g.sessions[3].no;
  ts_read(&t, &g, mr_read_sessions_to_wake, 4, no);
  CHECK_INT(g.n, 2);
  CHECK(!g.more);
  got_free(&g);
  ts_close(&t);
}

static void plan_has(sqlite3 *db, const char *sql, const char *want)
{
  char explain[2048], all[4096] = "";
  sqlite3_stmt *st;

  snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", sql);
  CHECK_INT(sqlite3_prepare_v2(db, explain, -1, &st, NULL), SQLITE_OK);
  while (sqlite3_step(st) == SQLITE_ROW)
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s\n", sqlite3_column_text(st, 3));
  sqlite3_finalize(st);
  if (!strstr(all, want) || strstr(all, "TEMP B-TREE"))
    test_fail(__FILE__, __LINE__, "plan of %s is:\n%s", sql, all);
}

/* The queries that must not scan or sort, asked of the query planner itself. */
TEST(plans_use_the_indexes)
{
  struct ts t;
  char path[4200];
  sqlite3 *db;

  ts_open(&t, test_dir());
  snprintf(path, sizeof path, "%s/store.db", mr_store_dir(t.s));
  CHECK_INT(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
  plan_has(db, "SELECT pos FROM log WHERE workspace_id=1 AND session_no=2 AND kind=0 AND pos>5 ORDER BY pos",
           "USING INDEX log_session");
  plan_has(db, "SELECT body FROM docs WHERE workspace_id=1 AND kind='a' AND archived_us=0"
               " AND (created_us, id) < (1, 'x') ORDER BY created_us DESC, id DESC", "USING INDEX docs_created");
  plan_has(db, "SELECT body FROM docs WHERE workspace_id=1 AND kind='a' AND parent <> '' AND parent='x'"
               " ORDER BY created_us DESC, id DESC", "USING INDEX docs_parent");
  plan_has(db, "SELECT 1 FROM docs WHERE workspace_id=1 AND kind='a' AND name='n' AND name<>'' AND id<>'i'"
               " AND archived_us=0 LIMIT 1", "USING INDEX docs_name");
  plan_has(db, "SELECT s.id FROM sessions s CROSS JOIN session_texts t ON t.session_no=s.session_no"
               " WHERE s.workspace_id=1 AND s.deleted_us=0 AND s.archived_us=0"
               " AND (s.created_us, s.id) < (1,'x') ORDER BY s.created_us DESC, s.id DESC",
           "USING INDEX sessions_created");
  plan_has(db, "SELECT workspace_id, session_no FROM sessions WHERE deleted_us <> 0 AND deleted_us > 0 LIMIT 1",
           "sessions_deleted");
  sqlite3_close(db);
  ts_close(&t);
}
