/*
 * model_http - the providers over real connections: the HTTP client, the mock server tests/mock/messages.py
 * and everything between, plain and with TLS. The mock checks requests as the real service does, so a
 * conversation that goes on proves that what was sent back is what it had sent.
 */
#include "kit.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/json.h"
#include "model/model.h"

#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- the mock */

static int mock_start(const char *a, const char *b, const char *c, const char *d)
{
  char *argv[] = {"python3",
                  "tests/mock/messages.py",
                  (char *)(uintptr_t)a,
                  (char *)(uintptr_t)b,
                  (char *)(uintptr_t)c,
                  (char *)(uintptr_t)d,
                  NULL};
  int p[2], port = 0;
  char line[64] = "";
  pid_t pid;
  posix_spawn_file_actions_t fa;
  if (access(argv[1], R_OK) != 0) test_skip("run from the top of the tree");
  CHECK_INT(pipe(p), 0);
  posix_spawn_file_actions_init(&fa);
  posix_spawn_file_actions_adddup2(&fa, p[1], 1);
  posix_spawn_file_actions_addclose(&fa, p[0]);
  if (posix_spawnp(&pid, "python3", &fa, NULL, argv, environ) != 0) test_skip("no python3");
  posix_spawn_file_actions_destroy(&fa);
  close(p[1]);
  for (size_t n = 0; n < sizeof line - 1 && !strchr(line, '\n');) {
    ssize_t k = read(p[0], line + n, sizeof line - 1 - n);
    if (k <= 0) break;
    n += (size_t)k;
  }
  close(p[0]);
  CHECK_INT(sscanf(line, "listening %d", &port), 1);
  return port;
}

/* ---- a runtime's worth of parts */

struct rig {
  struct mr_loop *loop;
  struct mr_http_client *http;
  struct mr_models *models;
  struct mr_err err;
  int waiting; /* calls not done */
};

struct ask {
  struct rig *r;
  struct mr_model_call *call;
  struct mr_buf text, content, message, stop;
  enum mr_model_status status;
  struct mr_usage usage;
  int64_t retry_after_ms;
  int cancel_at, texts, done;
};

static void rig_open(struct rig *r, const char *config)
{
  *r = (struct rig){.err = {.size = sizeof r->err}};
  CHECK_INT(mr_loop_new(&r->loop, test_sys(), NULL, &r->err), MR_OK);
  mr_loop_enter(r->loop);
  CHECK_INT(mr_http_client_new(&r->http, r->loop, NULL, &r->err), MR_OK);
  struct mr_models_opts o = {
      .sys = test_sys(), .loop = r->loop, .http = r->http, .config = mr_str_c(config)};
  CHECK_INT(mr_models_new(&r->models, &o, &r->err), MR_OK);
}

static void rig_at(struct rig *r, const char *scheme, int port, const char *more)
{
  char config[600];
  snprintf(config, sizeof config,
           "{\"anthropic\":{\"base_url\":\"%s://127.0.0.1:%d\",\"api_key\":\"test-key\"%s},"
           "\"openai\":{\"base_url\":\"%s://127.0.0.1:%d\"%s}}",
           scheme, port, more, scheme, port, more);
  rig_open(r, config);
}

static void rig_close(struct rig *r)
{
  mr_models_free(&r->models);
  mr_http_client_free(&r->http);
  mr_loop_free(&r->loop);
  CHECK_INT(test_allocs(), 0);
}

static void on_text(void *ud, int index, struct mr_str delta)
{
  struct ask *a = ud;
  CHECK(!a->done);
  mr_buf_str(&a->text, delta);
  if (++a->texts == a->cancel_at) mr_models_cancel(a->call);
}

static void on_done(void *ud, const struct mr_model_reply *m)
{
  struct ask *a = ud;
  CHECK(!a->done);
  a->done = 1;
  a->status = m->status;
  a->usage = m->usage;
  a->retry_after_ms = m->retry_after_ms;
  mr_buf_str(&a->content, m->content);
  mr_buf_str(&a->message, m->message);
  mr_buf_str(&a->stop, m->stop_reason);
  if (--a->r->waiting == 0) mr_loop_stop(a->r->loop);
}

static const struct mr_model_cbs cbs = {NULL, on_text, on_done};

static void ask_start(struct rig *r, struct ask *a, const char *model, const struct mr_str *m,
                      int n)
{
  struct mr_model_req q = {
      .model = mr_str_c(model),
      .messages = m,
      .nmessages = n,
      .tools = MR_S(
          "[{\"name\":\"look\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]"),
      .system = MR_S("[{\"type\":\"text\",\"text\":\"Be kind.\"}]")};
  int cancel_at = a->cancel_at;
  *a = (struct ask){.r = r, .cancel_at = cancel_at};
  struct mr_buf *all[] = {&a->text, &a->content, &a->message, &a->stop};
  for (int i = 0; i < 4; i++)
    mr_buf_init(all[i], &test_sys()->mem, 1 << 26);
  if (mr_models_start(r->models, &q, &cbs, a, &a->call, &r->err) != MR_OK)
    test_fail(__FILE__, __LINE__, "start: %s", r->err.message);
  CHECK(!a->done);
  r->waiting++;
}

static void ask_free(struct ask *a)
{
  mr_buf_free(&a->text);
  mr_buf_free(&a->content);
  mr_buf_free(&a->message);
  mr_buf_free(&a->stop);
}

static void user(struct mr_buf *b, const char *text)
{
  struct mr_jw w;
  mr_buf_init(b, &test_sys()->mem, 1 << 26);
  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "role", "user");
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kc(&w, "text", text);
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
}

/* One user text, one reply. */
static void say(struct rig *r, struct ask *a, const char *model, const char *text)
{
  struct mr_buf b;
  user(&b, text);
  struct mr_str m = mr_buf_get(&b);
  ask_start(r, a, model, &m, 1);
  mr_loop_run(r->loop);
  mr_buf_free(&b);
  CHECK(a->done);
}

static void expect(struct ask *a, enum mr_model_status st, const char *part)
{
  const char *s = st == MR_MODEL_OK ? a->text.p : a->message.p;
  if (a->status != st || !strstr(s ? s : "", part))
    test_fail(__FILE__, __LINE__, "status %d, \"%s\" (%s) without \"%s\"", (int)a->status,
              a->message.p ? a->message.p : "", a->text.p ? a->text.p : "", part);
  ask_free(a);
}

static const char CL[] = "claude-opus-4-7", GPT[] = "gpt-5.2";

/* ---- */

static void two_turns(const char *model, int port)
{
  struct rig r;
  struct ask a = {0}, b = {0};
  struct mr_buf m[3];
  rig_at(&r, "http", port, "");
  user(&m[0], "[[think Gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80]] [[say Let me look.]] [[tools look "
              "{\"q\": \"a b\", \"n\": [1, 2.50]} | "
              "look {}]] ;; [[say I saw {result} with {tools} as {system}]]");
  struct mr_str s[3] = {mr_buf_get(&m[0])};
  ask_start(&r, &a, model, s, 1);
  mr_loop_run(r.loop);
  CHECK_INT(a.status, MR_MODEL_OK);
  CHECK_STR(mr_buf_get(&a.text), "Let me look.");
  CHECK_STR(mr_buf_get(&a.stop), "tool_use");
  CHECK(a.usage.output > 0 && a.usage.input + a.usage.cache_write_5m > 0);
  mr_buf_init(&m[1], &test_sys()->mem, 1 << 20);
  mr_buf_printf(&m[1], "{\"role\":\"assistant\",\"content\":%s}", a.content.p);
  mr_buf_init(&m[2], &test_sys()->mem, 1 << 20);
  mr_buf_c(&m[2], "{\"role\":\"user\",\"content\":[");
  const char *at = a.content.p;
  for (int i = 0; i < 2; i++) {
    at = strstr(at, "\"id\":\"") + 6;
    mr_buf_printf(&m[2],
                  "%s{\"type\":\"tool_result\",\"tool_use_id\":\"%.*s\",\"content\":[{\"type\":"
                  "\"text\",\"text\":\"r%d\"}]}",
                  i ? "," : "", (int)strcspn(at, "\""), at, i);
  }
  mr_buf_c(&m[2], "]}");
  for (int i = 1; i < 3; i++)
    s[i] = mr_buf_get(&m[i]);
  ask_start(&r, &b, model, s, 3);
  mr_loop_run(r.loop);
  expect(&b, MR_MODEL_OK, "I saw r0\nr1 with look as Be kind.");
  CHECK(b.usage.cache_read > 0 ||
        model == GPT); /* the first request's messages were found in the cache */
  ask_free(&a);
  for (int i = 0; i < 3; i++)
    mr_buf_free(&m[i]);
  rig_close(&r);
}

TEST(anthropic_two_turns)
{
  two_turns(CL, mock_start(NULL, NULL, NULL, NULL));
}
TEST(anthropic_in_drips)
{
  two_turns(CL, mock_start("--drip", NULL, NULL, NULL));
}
TEST(openai_two_turns)
{
  two_turns(GPT, mock_start(NULL, NULL, NULL, NULL));
}

TEST(failures)
{
  struct rig r;
  struct ask a = {0};
  rig_at(&r, "http", mock_start(NULL, NULL, NULL, NULL), "");
  for (int i = 0; i < 2; i++) {
    const char *model = i ? GPT : CL;
    say(&r, &a, model, "[[error 529 x1]] [[say fine now]]");
    expect(&a, MR_MODEL_OVERLOADED, "overloaded_error");
    say(&r, &a, model, "[[error 529 x1]] [[say fine now]]");
    expect(&a, MR_MODEL_OK, "fine now");
    say(&r, &a, model, "[[error 429 retry 3]]");
    CHECK_INT(a.retry_after_ms, 3000);
    expect(&a, MR_MODEL_RATE_LIMITED, "HTTP 429");
    say(&r, &a, model, "[[error 402]]");
    expect(&a, MR_MODEL_BILLING, "HTTP 402");
    say(&r, &a, model, "[[error 400]]");
    expect(&a, MR_MODEL_REFUSED_REQUEST, "HTTP 400");
    say(&r, &a, model, "[[error 500]]");
    expect(&a, MR_MODEL_FAILED, "HTTP 500");
    say(&r, &a, model, "[[error stream overloaded_error]] [[long 50]]");
    expect(&a, MR_MODEL_OVERLOADED, "mock error in the stream");
    say(&r, &a, model, "[[cut]] [[long 50]]");
    expect(&a, MR_MODEL_FAILED, "cut before its end");
    say(&r, &a, model, "[[garbage]] [[long 50]]");
    expect(&a, MR_MODEL_FAILED, "no JSON");
    say(&r, &a, model, "[[badtool look]]");
    CHECK(strstr(a.content.p, "\"input\":{\"INVALID_JSON\":\"{\\\"a\\\": 1\"}") != NULL);
    expect(&a, MR_MODEL_OK, "");
    say(&r, &a, model, "[[refuse]]");
    CHECK_STR(mr_buf_get(&a.stop), "refusal");
    expect(&a, MR_MODEL_OK, "");
    say(&r, &a, model, "[[max]] [[say cut sho]]");
    CHECK_STR(mr_buf_get(&a.stop), "max_tokens");
    expect(&a, MR_MODEL_OK, "cut sho");
  }
  rig_close(&r);
  rig_at(&r, "http", mock_start("--key", "another", NULL, NULL), "");
  say(&r, &a, CL, "hi");
  expect(&a, MR_MODEL_REFUSED_REQUEST, "invalid x-api-key: [key]");
  rig_close(&r);
  rig_at(&r, "http", 1, "");
  say(&r, &a, CL, "hi");
  expect(&a, MR_MODEL_FAILED, "no answer");
  rig_close(&r);
}

TEST(stall_and_cancel)
{
  struct rig r;
  struct ask a = {0}, b = {0};
  int port = mock_start(NULL, NULL, NULL, NULL);
  rig_at(&r, "http", port, ",\"stall_ms\":1500");
  say(&r, &a, CL, "[[hang]]");
  expect(&a, MR_MODEL_FAILED, "stalled");
  say(&r, &a, CL, "[[say and on]]");
  expect(&a, MR_MODEL_OK, "and on");
  rig_close(&r);
  rig_at(&r, "http", port, "");
  a.cancel_at = 3;
  say(&r, &a, CL, "[[slow 20 ms]] [[long 500]]");
  CHECK_INT(a.texts, 3);
  expect(&a, MR_MODEL_CANCELLED, "cancelled");
  a.cancel_at = 0;
  /* At once, before anything was sent; the next call works. */
  struct mr_buf m;
  user(&m, "[[hang]]");
  struct mr_str s = mr_buf_get(&m);
  ask_start(&r, &b, GPT, &s, 1);
  mr_models_cancel(b.call);
  mr_loop_run(r.loop);
  expect(&b, MR_MODEL_CANCELLED, "cancelled");
  say(&r, &a, CL, "[[say still here]]");
  expect(&a, MR_MODEL_OK, "still here");
  /* The client goes while a call runs: done comes, once. */
  ask_start(&r, &b, CL, &s, 1);
  mr_models_free(&r.models);
  mr_http_client_free(&r.http);
  CHECK(b.done);
  ask_free(&b);
  mr_buf_free(&m);
  mr_loop_free(&r.loop);
  CHECK_INT(test_allocs(), 0);
}

TEST(large_and_many)
{
  enum { MANY = 200, BIG = 6 << 20 };
  struct rig r;
  static struct ask many[MANY], a;
  struct mr_buf m[MANY];
  rig_at(&r, "http", mock_start(NULL, NULL, NULL, NULL), "");
  char *big = malloc(BIG + 64);
  memset(big, 'x', BIG);
  snprintf(big + BIG, 64, "[[say {messages} in]] [[long 20000]]");
  say(&r, &a, CL, big);
  CHECK(a.text.n > 100000);
  expect(&a, MR_MODEL_OK, "1 in");
  free(big);
  for (int i = 0; i < MANY; i++) {
    char text[64];
    snprintf(text, sizeof text, "[[slow 5 ms]] [[say this is number %d.]]", i);
    user(&m[i], text);
    struct mr_str s = mr_buf_get(&m[i]);
    ask_start(&r, &many[i], i % 4 ? CL : GPT, &s, 1);
    /* Fragments are borrowed until done, so s must point into m. */
  }
  mr_loop_run(r.loop);
  for (int i = 0; i < MANY; i++) {
    char want[64];
    snprintf(want, sizeof want, "this is number %d.", i);
    expect(&many[i], MR_MODEL_OK, want);
    mr_buf_free(&m[i]);
  }
  rig_close(&r);
}

TEST(tls)
{
  struct rig r;
  struct ask a = {0};
  char cert[300], key[300], more[400];
  snprintf(cert, sizeof cert, "%s/cert.pem", test_dir());
  snprintf(key, sizeof key, "%s/key.pem", test_dir());
  char *argv[] = {"openssl",  "req",
                  "-x509",    "-newkey",
                  "rsa:2048", "-nodes",
                  "-days",    "2",
                  "-subj",    "/CN=127.0.0.1",
                  "-addext",  "subjectAltName=IP:127.0.0.1",
                  "-keyout",  key,
                  "-out",     cert,
                  NULL};
  pid_t pid;
  int st = 1;
  posix_spawn_file_actions_t fa;
  posix_spawn_file_actions_init(&fa);
  posix_spawn_file_actions_addopen(&fa, 2, "/dev/null", 1, 0);
  if (posix_spawnp(&pid, "openssl", &fa, NULL, argv, environ) != 0 || waitpid(pid, &st, 0) != pid ||
      st != 0)
    test_skip("no openssl command");
  posix_spawn_file_actions_destroy(&fa);
  int port = mock_start("--tls-cert", cert, "--tls-key", key);
  snprintf(more, sizeof more, ",\"ca_file\":\"%s\"", cert);
  rig_at(&r, "https", port, more);
  say(&r, &a, CL, "[[say over TLS]]");
  expect(&a, MR_MODEL_OK, "over TLS");
  rig_close(&r);
  rig_at(&r, "https", port, ""); /* the system's roots do not know it */
  say(&r, &a, CL, "[[say over TLS]]");
  expect(&a, MR_MODEL_FAILED, "no answer");
  rig_close(&r);
}
