/* messages.create without HTTP: a provider of the host answers, errors become the call's, a cancelled call ends. */
#include "host_kit.h"

static const char *echo(struct host *h, const char *last, int k)
{
  (void)h;
  (void)k;
  return strcmp(last, "busy") == 0 ? "!overloaded_error" : say("you said ", last);
}

static const char *hold(struct host *h, const char *last, int k)
{
  (void)h;
  (void)last;
  (void)k;
  return NULL;
}

TEST(a_message_is_one_object)
{
  static struct host h;

  h.rt = host_open(":memory:");
  host_play(&h, echo);
  host_ok(&h, "messages.create", "{\"model\":\"test-1\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
  CHECK_STR(mr_str_c(pick(h.last, "/content/0/text")), "you said hi");
  CHECK_STR(mr_str_c(pick(h.last, "/usage/input_tokens")), "10");
  CHECK_STR(mr_str_c(pick(h.last, "/model")), "test-1");
  CHECK_INT(host_call(&h, "messages.create", "{\"model\":\"test-1\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"busy\"}]}"),
            MR_E_FULL);
  CHECK_INT(h.err.http_status, 529);
  CHECK_STR(mr_str_c(h.err.type), "overloaded_error");
  CHECK_INT(host_call(&h, "messages.create", "{\"model\":\"test-1\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"), MR_E_INVALID);
  CHECK(strstr(h.err.message, "max_tokens"));
  CHECK_INT(host_call(&h, "messages.create", "{\"model\":\"none\",\"max_tokens\":9,\"messages\":[]}"), MR_E_NOTFOUND);
  CHECK_INT(host_call(&h, "messages.create", "{\"model\":\"test-1\",\"stream\":true,\"messages\":[]}"), MR_E_INVALID);
  CHECK_STR(mr_str_c(h.err.field), "stream");
  CHECK_INT(host_call(&h, "messages.count_tokens", "{\"model\":\"test-1\",\"messages\":[]}"), MR_E_INVALID);
  CHECK(strstr(h.err.message, "played, which cannot count tokens"));
  CHECK_INT(mr_close(&h.rt), MR_OK);
  CHECK_INT(test_allocs(), 0);
}

TEST(a_cancelled_call_ends)
{
  static struct host h;
  static struct got g;
  struct mr_op *op = NULL;
  struct mr_req req = {.size = sizeof req, .op = "messages.create",
                       .json = S("{\"model\":\"test-1\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}")};

  for (int close = 0; close < 2; close++) {
    memset(&g, 0, sizeof g);
    memset(&h, 0, sizeof h);
    h.rt = host_open(":memory:");
    host_play(&h, hold);
    CHECK_INT(mr_call(h.rt, &req, &got_cbs, &g, &op, &h.err), MR_OK);
    UNTIL(h.rt, h.held);
    if (!close) {
      mr_op_cancel(op);
      UNTIL(h.rt, g.replies);
      CHECK_INT(g.code, MR_E_CANCELLED);
      UNTIL(h.rt, h.cancelled);
    }
    mr_op_release(op);
    CHECK_INT(mr_close(&h.rt), MR_OK);
    CHECK_INT(g.replies, 1);
    CHECK_INT(test_allocs(), 0);
  }
}
