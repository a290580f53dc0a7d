/* Durable values through the extension table: limits, expectations, pages, time to live, close. */
#include "host_kit.h"

struct answer {
  int calls, code;
  char json[4000], field[96], why[48];
};

static void on_kv(void *ud, const struct mr_reply *r)
{
  struct answer *a = ud;
  a->calls++;
  a->code = r->code;
  CHECK((r->code == MR_OK) == (r->val != NULL) && (r->code == MR_OK) == (r->err == NULL));
  snprintf(a->json, sizeof a->json, "%.*s", (int)r->json.n, r->json.p ? r->json.p : "");
  snprintf(a->why, sizeof a->why, "%s", r->err ? r->err->error_code : "");
}

static int kv(struct mr_runtime *rt, struct mr_ext_kv q, const char *value, struct answer *a)
{
  struct mr_doc *doc = NULL;
  struct mr_err err = {.size = sizeof err};
  int code, calls = a->calls;

  q.size = sizeof q;
  if (!q.space.p) q.space = S("kv");
  if (value) CHECK_INT(X()->parse(rt, mr_str_c(value), &doc, &err), MR_OK);
  code = X()->kv(rt, &q, &doc, on_kv, a, &err);
  CHECK(doc == NULL);
  snprintf(a->field, sizeof a->field, "%s", err.field);
  if (code != MR_OK) return code;
  CHECK_INT(a->calls, calls);
  UNTIL(rt, a->calls == calls + 1);
  return a->code;
}

static int put(struct mr_runtime *rt, const char *key, const char *value, int64_t expect, struct answer *a)
{
  return kv(rt, (struct mr_ext_kv){.op = "put", .key = mr_str_c(key), .expect = expect}, value, a);
}

static int64_t rev_of(const struct answer *a)
{
  return strtoll(pick(a->json, "/rev"), NULL, 10);
}

TEST(put_get_delete_and_expectations)
{
  struct mr_runtime *rt = host_open(test_dir());
  struct answer a = {0};
  int64_t rev;

  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("a")}, NULL, &a), MR_E_NOTFOUND);
  CHECK_INT(put(rt, "a", "{\"n\":9007199254740993}", 0, &a), MR_OK);
  rev = rev_of(&a);
  CHECK(rev > 0);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("a")}, NULL, &a), MR_OK);
  CHECK_STR(mr_str_c(pick(a.json, "/value")), "{\"n\":9007199254740993}");
  CHECK_STR(mr_str_c(pick(a.json, "/expires_at")), "(absent)");
  CHECK_INT(rev_of(&a), rev);
  CHECK_INT(put(rt, "a", "1", 0, &a), MR_E_CONFLICT);
  CHECK_STR(mr_str_c(a.why), "exists");
  CHECK_INT(put(rt, "a", "1", rev, &a), MR_OK);
  CHECK_INT(put(rt, "a", "2", rev, &a), MR_E_CONFLICT);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "delete", .key = S("a"), .expect = rev}, NULL, &a), MR_E_CONFLICT);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("a")}, NULL, &a), MR_OK);
  CHECK_STR(mr_str_c(pick(a.json, "/value")), "1");
  CHECK_INT(mr_close(&rt), MR_OK);
  rt = host_open(test_dir()); /* it is on disk */
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "delete", .key = S("a"), .expect = -1}, NULL, &a), MR_OK);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("a")}, NULL, &a), MR_E_NOTFOUND);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(pages_and_time_to_live)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct answer a = {0};
  struct mr_ext_kv list = {.op = "list", .key = S("a/"), .limit = 2};

  for (int i = 0; i < 3; i++) {
    char key[16];
    snprintf(key, sizeof key, "a/%d", i);
    CHECK_INT(put(rt, key, "[]", -1, &a), MR_OK);
  }
  CHECK_INT(put(rt, "b", "1", -1, &a), MR_OK);
  CHECK_INT(kv(rt, list, NULL, &a), MR_OK);
  CHECK_STR(mr_str_c(pick(a.json, "/data/1/key")), "a/1");
  CHECK_STR(mr_str_c(pick(a.json, "/more")), "true");
  list.after = S("a/1");
  CHECK_INT(kv(rt, list, NULL, &a), MR_OK);
  CHECK_STR(mr_str_c(pick(a.json, "/data/0/key")), "a/2");
  CHECK_STR(mr_str_c(pick(a.json, "/more")), "false");
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "put", .key = S("t"), .ttl_us = 3600000000, .expect = -1}, "1", &a),
            MR_OK);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("t")}, NULL, &a), MR_OK);
  CHECK(strcmp(pick(a.json, "/expires_at"), "(absent)") != 0);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "put", .key = S("t"), .ttl_us = 1, .expect = -1}, "1", &a), MR_OK);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = S("t")}, NULL, &a), MR_E_NOTFOUND);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(what_is_refused)
{
  struct mr_runtime *rt = host_open(":memory:");
  struct answer a = {0};
  static char long_key[600], big[(1 << 20) + 40];
  struct {
    struct mr_ext_kv q;
    const char *value, *field;
    int code;
  } bad[] = {
      {{.op = "take", .key = S("a")}, NULL, "op", MR_E_INVALID},
      {{.op = "get"}, NULL, "key", MR_E_INVALID},
      {{.op = "get", .key = {long_key, 513}}, NULL, "key", MR_E_INVALID},
      {{.op = "get", .key = S("\xff")}, NULL, "key", MR_E_INVALID},
      {{.op = "get", .key = S("a"), .space = {long_key, 65}}, NULL, "space", MR_E_INVALID},
      {{.op = "put", .key = S("a")}, NULL, "value", MR_E_INVALID},
      {{.op = "put", .key = S("a")}, big, "value", MR_E_TOO_LARGE},
      {{.op = "put", .key = S("a"), .ttl_us = -1}, "1", "ttl", MR_E_INVALID},
      {{.op = "put", .key = S("a"), .expect = -2}, "1", "expect", MR_E_INVALID},
      {{.op = "list", .limit = 1001}, NULL, "limit", MR_E_INVALID},
  };

  memset(long_key, 'k', sizeof long_key - 1);
  memset(big, 'x', sizeof big - 2);
  big[0] = big[sizeof big - 2] = '"';
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK_INT(kv(rt, bad[i].q, bad[i].value, &a), bad[i].code);
    CHECK_STR(mr_str_c(a.field), bad[i].field);
  }
  CHECK_INT(a.calls, 0);
  CHECK_INT(kv(rt, (struct mr_ext_kv){.op = "get", .key = {long_key, 512}}, NULL, &a), MR_E_NOTFOUND);
  CHECK_INT(mr_close(&rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

/* What is under way when the runtime closes is answered, once, by the write or by the close. */
TEST(close_with_requests_under_way)
{
  struct mr_runtime *rt = host_open(test_dir());
  static struct answer a[50];
  struct mr_err err = {.size = sizeof err};

  for (int i = 0; i < 50; i++) {
    struct mr_doc *doc = NULL;
    struct mr_ext_kv q = {.size = sizeof q, .op = i % 2 ? "put" : "list", .space = S("kv"), .key = S("a"), .expect = -1};
    CHECK_INT(X()->parse(rt, S("1"), &doc, &err), MR_OK);
    CHECK_INT(X()->kv(rt, &q, &doc, on_kv, &a[i], &err), MR_OK);
  }
  CHECK_INT(mr_close(&rt), MR_OK);
  for (int i = 0; i < 50; i++) {
    CHECK_INT(a[i].calls, 1);
    CHECK(a[i].code == MR_OK || a[i].code == MR_E_CLOSED);
  }
  CHECK_INT(test_allocs(), 0);
}
