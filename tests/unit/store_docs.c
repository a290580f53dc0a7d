/* Documents: every write, compare and set, names, versions, lists; on files and in memory. */
#include "store_kit.h"

static const char *const both[] = {NULL, ":memory:"}; /* NULL: a fresh directory */

static void open_nth(struct ts *t, int i)
{
  ts_open(t, both[i] ? both[i] : test_dir());
}

static int put(struct ts *t, struct mr_doc_row d, int64_t expect, struct outcome *o)
{
  struct mr_commit *c = ts_commit(t);
  mr_commit_doc_put(c, &d, expect);
  return ts_submit(t, c, o);
}

TEST(doc_put_and_read_back)
{
  for (int i = 0; i < 2; i++) {
    struct ts t;
    struct got g = {0};
    struct mr_doc_row d = ts_doc("agent", "agent_1", 1000, "{\"x\":1}");
    open_nth(&t, i);
    d.parent = MR_S("sesn_1"), d.name = MR_S("Ann"), d.version = 7, d.archived_us = 0, d.updated_us = 1001;
    CHECK_INT(put(&t, d, 0, NULL), MR_OK);
    ts_read(&t, &g, mr_read_doc, t.ws, MR_S("agent"), MR_S("agent_1"));
    CHECK_INT(g.code, MR_OK);
    CHECK_INT(g.n, 1);
    CHECK_STR(g.docs[0].kind, "agent");
    CHECK_STR(g.docs[0].id, "agent_1");
    CHECK_STR(g.docs[0].parent, "sesn_1");
    CHECK_STR(g.docs[0].name, "Ann");
    CHECK_STR(g.docs[0].body, "{\"x\":1}");
    CHECK_INT(g.docs[0].rev, 1);
    CHECK_INT(g.docs[0].version, 7);
    CHECK_INT(g.docs[0].created_us, 1000);
    CHECK_INT(g.docs[0].updated_us, 1001);
    ts_read(&t, &g, mr_read_doc, t.ws, MR_S("agent"), MR_S("agent_2"));
    CHECK_INT(g.code, MR_E_NOTFOUND);
    CHECK_INT(g.n, 0);
    got_free(&g);
    ts_close(&t);
  }
}

TEST(doc_expectations)
{
  struct ts t;
  struct got g = {0};
  struct outcome o;
  struct mr_commit *c;
  struct mr_doc_row d = ts_doc("agent", "agent_1", 1000, "{\"v\":1}");

  ts_open(&t, test_dir());
  CHECK_INT(put(&t, d, 1, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "not_found") == 0);
  CHECK_INT(put(&t, d, -1, &o), MR_E_CONFLICT);
  CHECK_INT(put(&t, d, 0, &o), MR_OK);
  CHECK_INT(put(&t, d, 0, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "exists") == 0);
  CHECK(strcmp(o.field, "agent") == 0);
  d.body = MR_S("{\"v\":2}");
  CHECK_INT(put(&t, d, 2, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "rev") == 0);
  CHECK_INT(put(&t, d, 1, &o), MR_OK);
  CHECK_INT(put(&t, d, -1, &o), MR_OK);
  ts_read(&t, &g, mr_read_doc, t.ws, MR_S("agent"), MR_S("agent_1"));
  CHECK_INT(g.docs[0].rev, 3);
  CHECK_STR(g.docs[0].body, "{\"v\":2}");
  /* expect: the reference must be at that rev, or merely exist. */
  for (int rev = -1; rev <= 4; rev++) {
    c = ts_commit(&t);
    mr_commit_doc_expect(c, MR_S("agent"), MR_S("agent_1"), rev);
    CHECK_INT(ts_submit(&t, c, &o), rev == -1 || rev == 3 ? MR_OK : MR_E_CONFLICT);
  }
  c = ts_commit(&t);
  mr_commit_doc_delete(c, MR_S("agent"), MR_S("agent_1"), 2);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  c = ts_commit(&t);
  mr_commit_doc_delete(c, MR_S("agent"), MR_S("agent_1"), 3);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  c = ts_commit(&t);
  mr_commit_doc_delete(c, MR_S("agent"), MR_S("agent_1"), -1);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  c = ts_commit(&t);
  mr_commit_doc_delete(c, MR_S("agent"), MR_S("agent_1"), 0);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  got_free(&g);
  ts_close(&t);
}

TEST(doc_names)
{
  struct ts t;
  struct got g = {0};
  struct outcome o;
  struct mr_commit *c;
  struct mr_doc_row d = ts_doc("environment", "env_1", 1, "{}");

  ts_open(&t, test_dir());
  d.name = MR_S("prod");
  CHECK_INT(put(&t, d, 0, NULL), MR_OK);
  c = ts_commit(&t);
  mr_commit_name_unique(c, MR_S("environment"), MR_S("prod"), MR_S("env_2"));
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  CHECK(strcmp(o.code_text, "name_taken") == 0);
  c = ts_commit(&t);
  mr_commit_name_unique(c, MR_S("environment"), MR_S("prod"), MR_S("env_1")); /* its own */
  mr_commit_name_unique(c, MR_S("agent"), MR_S("prod"), MR_S("agent_1"));     /* another kind */
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  d.id = MR_S("env_2"), d.created_us = 2;
  CHECK_INT(put(&t, d, 0, NULL), MR_OK);
  ts_read(&t, &g, mr_read_doc_named, t.ws, MR_S("environment"), MR_S("prod"), 1);
  CHECK_INT(g.n, 1);
  CHECK(g.more);
  CHECK_STR(g.docs[0].id, "env_2");
  d.archived_us = 5;
  CHECK_INT(put(&t, d, 1, NULL), MR_OK);
  ts_read(&t, &g, mr_read_doc_named, t.ws, MR_S("environment"), MR_S("prod"), 5);
  CHECK_INT(g.n, 1);
  CHECK_STR(g.docs[0].id, "env_1");
  d.id = MR_S("env_1"), d.archived_us = 6;
  CHECK_INT(put(&t, d, 1, NULL), MR_OK);
  c = ts_commit(&t);
  mr_commit_name_unique(c, MR_S("environment"), MR_S("prod"), MR_S("env_3")); /* only archived ones */
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  got_free(&g);
  ts_close(&t);
}

TEST(doc_versions)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct outcome o;

  ts_open(&t, test_dir());
  for (int v = 1; v <= 5; v++) {
    char body[32];
    snprintf(body, sizeof body, "{\"v\":%d}", v);
    c = ts_commit(&t);
    mr_commit_doc_version(c, MR_S("agent"), MR_S("agent_1"), v, 100 + v, mr_str_c(body));
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
  }
  c = ts_commit(&t);
  mr_commit_doc_version(c, MR_S("agent"), MR_S("agent_1"), 3, 1, MR_S("{}"));
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  ts_read(&t, &g, mr_read_doc_version, t.ws, MR_S("agent"), MR_S("agent_1"), 3);
  CHECK_STR(g.docs[0].body, "{\"v\":3}");
  CHECK_INT(g.docs[0].created_us, 103);
  ts_read(&t, &g, mr_read_doc_version, t.ws, MR_S("agent"), MR_S("agent_1"), 9);
  CHECK_INT(g.code, MR_E_NOTFOUND);
  ts_read(&t, &g, mr_read_doc_versions, t.ws, MR_S("agent"), MR_S("agent_1"), 0, 2);
  CHECK_INT(g.n, 2);
  CHECK(g.more);
  CHECK_INT(g.docs[0].version, 5);
  ts_read(&t, &g, mr_read_doc_versions, t.ws, MR_S("agent"), MR_S("agent_1"), 4, 10);
  CHECK_INT(g.n, 3);
  CHECK(!g.more);
  CHECK_INT(g.docs[2].version, 1);
  got_free(&g);
  ts_close(&t);
}

/* 40 documents, four to a time stamp, read in pages of 7 in both directions: each exactly once. */
TEST(doc_list_pages_with_equal_times)
{
  for (int m = 0; m < 2; m++) {
    struct ts t;
    struct got g = {0};
    struct mr_commit *c;
    char id[32];

    open_nth(&t, m);
    c = ts_commit(&t);
    for (int i = 0; i < 40; i++) {
      struct mr_doc_row d;
      snprintf(id, sizeof id, "file_%02d", (i * 7) % 40);
      d = ts_doc("file", id, 1000 + ((i * 7) % 40) / 4, "{}");
      mr_commit_doc_put(c, &d, 0);
    }
    CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
    for (int asc = 0; asc < 2; asc++) {
      struct mr_doc_query q = {.kind = MR_S("file"), .ascending = asc, .limit = 7};
      int seen = 0, pages = 0;
      char last[32] = "";
      do {
        ts_read(&t, &g, mr_read_docs, t.ws, &q);
        CHECK_INT(g.code, MR_OK);
        for (int i = 0; i < g.n; i++, seen++) {
          snprintf(id, sizeof id, "file_%02d", asc ? seen : 39 - seen);
          CHECK_STR(g.docs[i].id, id);
        }
        snprintf(last, sizeof last, "%s", g.docs[g.n - 1].id.p);
        q.after = (struct mr_cursor){g.docs[g.n - 1].created_us, mr_str_c(last)};
        pages++;
      } while (g.more);
      CHECK_INT(seen, 40);
      CHECK_INT(pages, 6);
    }
    got_free(&g);
    ts_close(&t);
  }
}

TEST(doc_list_filters)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct mr_str ids[2] = {MR_S("file_3"), MR_S("it's \"odd\"")};
  char id[32];

  ts_open(&t, test_dir());
  c = ts_commit(&t);
  for (int i = 1; i <= 9; i++) {
    struct mr_doc_row d;
    snprintf(id, sizeof id, "file_%d", i);
    d = ts_doc("file", id, i * 10, "{}");
    d.parent = i % 3 == 0 ? MR_S("sesn_a") : i % 3 == 1 ? MR_S("sesn_b") : MR_S("");
    d.archived_us = i == 9 ? 1 : 0;
    mr_commit_doc_put(c, &d, 0);
  }
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);
#define FILES MR_S("file")
#define LIST(...) ts_read(&t, &g, mr_read_docs, t.ws, &((struct mr_doc_query){.limit = 100, __VA_ARGS__}))
  LIST(.kind = FILES, .ascending = true);
  CHECK_INT(g.n, 8);
  LIST(.kind = FILES, .include_archived = true);
  CHECK_INT(g.n, 9);
  CHECK_STR(g.docs[0].id, "file_9");
  LIST(.kind = FILES, .parent = MR_S("sesn_a"));
  CHECK_INT(g.n, 2);
  LIST(.kind = FILES, .parent = MR_S(""));
  CHECK_INT(g.n, 3);
  LIST(.kind = FILES, .created = {.gt = 30, .lte = 50});
  CHECK_INT(g.n, 2);
  LIST(.kind = FILES, .created = {.gte = 30, .lt = 50});
  CHECK_INT(g.n, 2);
  LIST(.kind = FILES, .ids = ids, .nids = 2);
  CHECK_INT(g.n, 1);
  CHECK_STR(g.docs[0].id, "file_3");
  LIST(.kind = MR_S("agent"));
  CHECK_INT(g.n, 0);
  CHECK_INT(g.code, MR_OK);
  LIST(.kind = FILES, .ids = ids, .nids = 1001);
  CHECK_INT(g.code, MR_E_INVALID);
  got_free(&g);
  ts_close(&t);
}

TEST(two_workspaces_never_meet)
{
  struct ts t;
  struct got g = {0};
  struct mr_commit *c;
  struct outcome o;
  int64_t other, again;
  struct mr_doc_row d = ts_doc("agent", "agent_1", 1, "{\"w\":1}");
  struct mr_session_row s = ts_session("sesn_1", 1);
  struct mr_log_row row = ts_log("user.message", "sevt_1", 1, "{}");
  struct mr_inbox_row in = {.event_id = MR_S("sevt_2"), .type = MR_S("user.message"), .body = MR_S("{}")};

  ts_open(&t, test_dir());
  CHECK_INT(mr_store_workspace(t.s, MR_S("wrkspc_other"), &other, NULL), MR_OK);
  CHECK_INT(mr_store_workspace(t.s, MR_S("wrkspc_other"), &again, NULL), MR_OK);
  CHECK_INT(other, again);
  CHECK(other != t.ws);
  CHECK_INT(mr_store_workspace(t.s, MR_S("no/good"), &again, NULL), MR_E_INVALID);
  d.name = MR_S("same");
  c = ts_commit(&t);
  mr_commit_doc_put(c, &d, 0);
  mr_commit_doc_version(c, d.kind, d.id, 1, 1, d.body);
  mr_commit_session_new(c, &s);
  mr_commit_log(c, s.id, &row, 1);
  mr_commit_inbox_add(c, s.id, &in);
  CHECK_INT(ts_submit(&t, c, NULL), MR_OK);

  ts_read(&t, &g, mr_read_doc, other, MR_S("agent"), MR_S("agent_1"));
  CHECK_INT(g.code, MR_E_NOTFOUND);
  ts_read(&t, &g, mr_read_doc_version, other, MR_S("agent"), MR_S("agent_1"), 1);
  CHECK_INT(g.code, MR_E_NOTFOUND);
  ts_read(&t, &g, mr_read_doc_named, other, MR_S("agent"), MR_S("same"), 5);
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_docs, other, &(struct mr_doc_query){.kind = MR_S("agent"), .limit = 5});
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_session, other, MR_S("sesn_1"));
  CHECK_INT(g.code, MR_E_NOTFOUND);
  ts_read(&t, &g, mr_read_sessions, other, &(struct mr_session_query){.limit = 5});
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_log, other, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 5});
  CHECK_INT(g.n, 0);
  ts_read(&t, &g, mr_read_inbox, other, MR_S("sesn_1"));
  CHECK_INT(g.n, 0);
  /* Writes of the other one neither change nor find it; the same ids and names are free there. */
  c = ts_commit_in(&t, other);
  mr_commit_log(c, s.id, &row, 1);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  c = ts_commit_in(&t, other);
  mr_commit_session_delete(c, s.id);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_CONFLICT);
  c = ts_commit_in(&t, other);
  mr_commit_name_unique(c, d.kind, d.name, MR_S("agent_9"));
  mr_commit_doc_put(c, &d, 0);
  mr_commit_session_new(c, &s);
  CHECK_INT(ts_submit(&t, c, &o), MR_OK);
  ts_read(&t, &g, mr_read_log, t.ws, &(struct mr_log_query){.session_id = MR_S("sesn_1"), .limit = 5});
  CHECK_INT(g.n, 1);
  /* A commit without a workspace is refused. */
  c = ts_commit_in(&t, 0);
  mr_commit_doc_put(c, &d, 0);
  CHECK_INT(ts_submit(&t, c, &o), MR_E_INVALID);
  got_free(&g);
  ts_close(&t);
}
