/* The history of a thread: fragments, the pieces that they make up, and what a request in flight borrows. */
#include "kit.h"
#include "agent/session_t.h"

static struct mr_domain d;
static struct mr_session s = {.d = &d};
static struct mr_thread th = {.s = &s};

static void begin(void)
{
  d.mem = &test_sys()->mem;
}

static int say(const char *content)
{
  yyjson_doc *doc = NULL;
  int code;

  CHECK_INT(mr_json_parse(&test_sys()->mem, mr_str_c(content), SIZE_MAX, &doc, NULL), MR_OK);
  code = mr_history_user(&th, yyjson_doc_get_root(doc), "user");
  yyjson_doc_free(doc);
  return code;
}

static int answer(const char *content)
{
  yyjson_doc *doc = NULL;
  int code;

  CHECK_INT(mr_json_parse(&test_sys()->mem, mr_str_c(content), SIZE_MAX, &doc, NULL), MR_OK);
  code = mr_history_reply(&th, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  return code;
}

static void say_n(int k)
{
  static char pad[4000], text[4200];

  memset(pad, 'x', sizeof pad);
  snprintf(text, sizeof text, "[{\"type\":\"text\",\"text\":\"%d %.*s\"}]", k, k * 37 % 300 + (k % 50 == 7 ? 3500 : 0), pad);
  CHECK_INT(say(text), MR_OK);
}

static struct mr_str joined(const struct mr_str *v, int n, struct mr_buf *b)
{
  mr_buf_init(b, &test_sys()->mem, SIZE_MAX / 2);
  for (int i = 0; i < n; i++) {
    if (i) mr_buf_char(b, ',');
    mr_buf_str(b, v[i]);
  }
  return mr_buf_get(b);
}

/* What messages and pieces say is the same; appended to b. */
static struct mr_str text_of(const struct mr_model_req *r, struct mr_buf *b)
{
  struct mr_buf other;
  struct mr_str text = joined(r->messages, r->nmessages, b);

  CHECK(mr_str_eq(joined(r->pieces, r->npieces, &other), text));
  mr_buf_free(&other);
  return text;
}

static struct mr_model_req lend(struct mr_arena **a)
{
  struct mr_model_req r = {.nmessages = -1};

  *a = mr_arena_new(&test_sys()->mem, 256);
  CHECK_INT(mr_history_lend(&th, *a, &r), MR_OK);
  return r;
}

static void give_back(struct mr_arena **a)
{
  mr_history_given_back(&th);
  mr_arena_free(a);
}

TEST(a_long_history_is_a_few_pieces_and_keeps_its_beginning)
{
  struct mr_buf before, now;
  struct mr_arena *a;
  struct mr_model_req r;

  begin();
  r = lend(&a);
  CHECK_INT(r.nmessages + r.npieces, 0);
  give_back(&a);
  mr_buf_init(&before, &test_sys()->mem, SIZE_MAX / 2);
  for (int k = 0; k < 1200; k++) {
    say_n(k);
    if (k % 100 && k != 1) continue;
    r = lend(&a);
    CHECK_INT(r.nmessages, k + 1);
    CHECK(r.plain && mr_str_starts(text_of(&r, &now), mr_buf_get(&before)));
    mr_buf_free(&before);
    before = now;
    give_back(&a);
  }
  CHECK(r.npieces < 30);
  CHECK_STR(th.history[1], "{\"role\":\"user\",\"content\":[{\"text\":\"1 xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\",\"type\":\"text\"}]}");
  mr_buf_free(&before);
  mr_history_free(&th);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_request_in_flight_keeps_what_it_borrowed)
{
  struct mr_arena *a[3];
  struct mr_model_req r[3];
  struct mr_buf was[3], is;

  begin();
  for (int i = 0; i < 3; i++) {
    for (int k = 0; k < 20 * (i + 1); k++)
      say_n(1000 * i + k);
    r[i] = lend(&a[i]);
    text_of(&r[i], &was[i]);
  }
  mr_history_clear(&th); /* a summary takes its place */
  CHECK_INT(th.nhistory, 0);
  for (int k = 0; k < 200; k++)
    say_n(k);
  CHECK_INT(th.nhistory, 200);
  for (int i = 2; i >= 0; i--) { /* the newest is over first: the others have theirs still */
    CHECK(mr_str_eq(text_of(&r[i], &is), mr_buf_get(&was[i])));
    give_back(&a[i]);
    mr_buf_free(&is);
    mr_buf_free(&was[i]);
    CHECK(!th.history_old == (i == 0));
  }
  mr_history_free(&th);
  CHECK_INT(test_allocs(), 0);
}

TEST(foreign_thinking_is_known_until_the_history_is_cleared)
{
  struct mr_arena *a;

  begin();
  CHECK_INT(say("[{\"type\":\"text\",\"text\":\"\\\"signature\\\":\\\"moonrig:reasoning\\\"\"}]"), MR_OK);
  CHECK_INT(answer("[{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"abc\"},{\"type\":\"text\",\"text\":\"a\"}]"), MR_OK);
  CHECK(lend(&a).plain);
  give_back(&a);
  CHECK_INT(answer("[{\"type\":\"thinking\",\"thinking\":\"t\",\"signature\":\"moonrig:reasoning\"}]"), MR_OK);
  CHECK(!lend(&a).plain);
  give_back(&a);
  mr_history_clear(&th);
  CHECK(lend(&a).plain);
  give_back(&a);
  mr_history_free(&th);
  CHECK_INT(test_allocs(), 0);
}

TEST(no_memory_leaves_the_history_as_it_was)
{
  struct mr_arena *a;
  struct mr_model_req r;
  struct mr_buf b;
  int failed = 0;

  begin();
  for (int k = 0, was; k < 400; k++) {
    was = th.nhistory;
    test_fail_after(k % 5);
    if (mr_history_user(&th, NULL, "user") != MR_OK) {
      failed++;
      CHECK_INT(th.nhistory, was);
    } else {
      CHECK_INT(th.nhistory, was + 1);
    }
    test_fail_after(-1);
  }
  CHECK(failed > 10 && th.nhistory > 100);
  r = lend(&a);
  text_of(&r, &b);
  give_back(&a);
  mr_buf_free(&b);
  mr_history_free(&th);
  CHECK_INT(test_allocs(), 0);
}
