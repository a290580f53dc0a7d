/* Memory that runs out at every moment: what fails says so, nothing crashes, nothing leaks. */
#include "host_kit.h"

static const char *uses_then_says(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  return last[0] == '[' ? "[{\"type\":\"text\",\"text\":\"done\"}]" : "[{\"type\":\"tool_use\",\"name\":\"look\",\"input\":{}}]";
}

static void look(void *ud, struct mr_use *use)
{
  (void)ud;
  mr_use_finish(&use, "\"seen\"");
}

TEST(opening_without_memory)
{
  int opened = 0, failed = 0;

  for (int n = 0; n < 400 && opened < 3; n++) {
    struct mr_config c = host_config(":memory:");
    struct mr_runtime *rt = NULL;
    struct mr_err err = {.size = sizeof err};
    int code;
    test_fail_after(n);
    code = mr_open(&rt, &c, &err);
    test_fail_after(-1);
    if (code == MR_OK) {
      opened++;
      CHECK_INT(mr_close(&rt), MR_OK);
    } else {
      failed++;
      CHECK(rt == NULL);
      CHECK(err.code == code && err.message[0]);
    }
    if (test_allocs() != 0)
      test_fail(__FILE__, __LINE__, "%ld blocks left after the allocation %d failed", test_allocs(), n);
  }
  CHECK(opened == 3 && failed > 20);
}

static void quiet_model(void *ud, struct mr_model_use *use)
{
  struct host *h = ud;
  char last[400], reply[400];
  last_text(mr_model_use_request(use), last, sizeof last);
  snprintf(reply, sizeof reply, "{\"content\":%s}", h->model(h, last, h->asked++));
  mr_model_use_finish(&use, reply);
}

/* A whole turn with the n-th allocation and all later ones failing: until memory is back, calls fail, the
 * store drops what it could not do, sessions are loaded again; then everything works. */
TEST(a_turn_without_memory)
{
  for (int n = 0; n < 900; n += 1 + n / 40) {
    static struct host h;
    static struct got g;
    struct mr_tool t = {.size = sizeof t, .name = "look", .run = look};
    struct mr_provider p = {.size = sizeof p, .name = "played", .models = "test*", .run = quiet_model, .ud = &h};
    char *out = NULL;

    memset(&h, 0, sizeof h);
    memset(&g, 0, sizeof g);
    h.rt = host_open(":memory:");
    h.model = uses_then_says;
    CHECK_INT(mr_provider_add(h.rt, &p, NULL), MR_OK);
    CHECK_INT(mr_tool_add(h.rt, &t, NULL), MR_OK);
    host_session(&h, "[" CUSTOM("look") "]");
    test_fail_after(n);
    if (mr_ask(h.rt, h.session, "go", &got_cbs, &g, NULL, NULL) == MR_OK)
      for (int i = 0; i < 40 && !g.replies; i++)
        host_turn(h.rt, 1);
    mr_call_wait(h.rt, "agents.list", "{}", 20, &out, NULL);
    test_fail_after(-1);
    mr_free(h.rt, out);
    host_ok(&h, "agents.list", "{}"); /* alive */
    CHECK_INT(mr_close(&h.rt), MR_OK);
    CHECK(g.replies <= 1);
    if (test_allocs() != 0)
      test_fail(__FILE__, __LINE__, "%ld blocks left after the allocation %d failed", test_allocs(), n);
  }
}
