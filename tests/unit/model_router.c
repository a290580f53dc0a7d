/*
 * model_router - which provider gets a model, what is said when none does, providers of the host and
 * their life.
 */
#include "model_kit.h"

static struct mr_str model_sent(void)
{
  const char *p = strstr(fake->body.p, "\"model\":\"") + 9;
  return mr_str_n(p, (size_t)(strchr(p, '"') - p));
}

static void goes_to(struct bench *b, const char *model, const char *url_part, const char *sent)
{
  struct heard h;
  heard_init(&h);
  CHECK_INT(mr_models_check(b->models, mr_str_c(model), &b->err), MR_OK);
  CHECK_INT(ask(b, &h, model, &hi, 1), MR_OK);
  if (!strstr(fake->url, url_part))
    test_fail(__FILE__, __LINE__, "%s went to %s", model, fake->url);
  CHECK(mr_str_is(model_sent(), sent));
  fake_end(MR_E_IO);
  heard_free(&h);
}

static void refused(struct bench *b, const char *model, const char *part)
{
  CHECK_INT(mr_models_check(b->models, mr_str_c(model), &b->err), MR_E_INVALID);
  CHECK_INT(b->err.http_status, 400);
  if (!strstr(b->err.message, part))
    test_fail(__FILE__, __LINE__, "\"%s\" is not in \"%s\"", part, b->err.message);
}

TEST(usual_names)
{
  struct bench b;
  bench_open(&b, NULL, "ka", "ko");
  goes_to(&b, "claude-sonnet-4-6", "https://api.anthropic.com/v1/messages", "claude-sonnet-4-6");
  goes_to(&b, "gpt-5.2", "https://api.openai.com/v1/chat/completions", "gpt-5.2");
  goes_to(&b, "o4-mini", "/chat/completions", "o4-mini");
  refused(&b, "llama3", "\"route\":{\"llama3\":");
  refused(&b, "opus", "no provider for opus");
  refused(&b, "scripted", "models.scripted.file");
  bench_close(&b);
}

TEST(what_to_configure)
{
  struct bench b;
  bench_open(&b, NULL, NULL, NULL);
  refused(&b, "claude-opus-4-7", "MOONRIG_ANTHROPIC_API_KEY");
  refused(&b, "gpt-5.2", "MOONRIG_OPENAI_API_KEY");
  CHECK(mr_models_at(b.models, 0).p == NULL);
  bench_close(&b);
}

TEST(our_own_key_is_refused)
{
  struct bench b;
  struct heard h;
  bench_open(&b, "{\"openai\":{\"base_url\":\"http://up.test\"}}", "sk-mr-abcdef0123456789", NULL);
  refused(&b, "claude-opus-4-7", "is a moonrig key");
  refused(&b, "claude-opus-4-7", "Set MOONRIG_ANTHROPIC_API_KEY to the key of the upstream");
  CHECK(!strstr(b.err.message, "abcdef"));
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "claude-opus-4-7", &hi, 1), MR_E_INVALID);
  CHECK(mr_models_at(b.models, 0).p == NULL);
  goes_to(&b, "gpt-5.2", "http://up.test/v1/chat", "gpt-5.2"); /* the rest works */
  bench_close(&b);
  bench_open(&b, NULL, "sk-ant-x\r\nhost: evil", NULL);
  refused(&b, "claude-opus-4-7", "character that no key has");
  bench_close(&b);
  bench_open(&b, "{\"anthropic\":{\"base_url\":\"file:///etc/passwd\"}}", NULL, NULL);
  refused(&b, "claude-opus-4-7", "http:// or https://");
  bench_close(&b);
}

TEST(routes)
{
  struct bench b;
  bench_open(
      &b,
      "{\"anthropic\":{\"base_url\":\"http://a.test/v1/\"},\"openai\":{\"base_url\":\"http://"
      "o.test/api/v9/\"},"
      "\"route\":{\"*\":\"openai\",\"claude-*\":\"openai:big\",\"claude-haiku-*\":\"anthropic\","
      "\"claude-haiku-4-5\":\"openai:small:q4\",\"x\":\"nowhere\",\"fast\":\"anthropic:claude-"
      "haiku-4-5\"}}",
      NULL, NULL);
  goes_to(&b, "anything", "http://o.test/api/v9/chat/completions", "anything");
  goes_to(&b, "claude-opus-4-7", "http://o.test/api/v9/chat/completions", "big");
  goes_to(&b, "claude-haiku-3", "http://a.test/v1/messages", "claude-haiku-3");
  goes_to(&b, "claude-haiku-4-5", "o.test", "small:q4");
  goes_to(&b, "fast", "http://a.test/v1/messages", "claude-haiku-4-5");
  refused(&b, "x", "provider nowhere, which is not configured");
  CHECK_STR(mr_models_at(b.models, 0), "claude-haiku-4-5");
  CHECK_STR(mr_models_at(b.models, 1), "x");
  CHECK_STR(mr_models_at(b.models, 2), "fast");
  CHECK_STR(mr_models_at(b.models, 3), "claude-opus-4-7");
  CHECK_STR(mr_models_at(b.models, 4), "claude-sonnet-4-6");
  CHECK(mr_models_at(b.models, 5).p == NULL);
  CHECK(mr_models_at(b.models, -1).p == NULL);
  bench_close(&b);
}

TEST(bad_config)
{
  static const char *const bad[] = {"[]", "{", "{\"route\":7}", "{\"route\":{\"a\":7}}",
                                    "{\"route\":{\"a\":\":x\"}}"};
  struct mr_err err = {.size = sizeof err};
  struct mr_loop *l;
  CHECK_INT(mr_loop_new(&l, test_sys(), NULL, &err), MR_OK);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct mr_models_opts o = {.sys = test_sys(), .loop = l, .config = mr_str_c(bad[i])};
    struct mr_models *m;
    CHECK_INT(mr_models_new(&m, &o, &err), MR_E_INVALID);
    CHECK(m == NULL && err.message[0]);
  }
  mr_loop_free(&l);
  CHECK_INT(test_allocs(), 0);
}

/* ---- a provider of the host */

struct own {
  int freed, started, cancelled;
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_model_call call;
};

static int own_start(void *self, const struct mr_model_req *req, const struct mr_model_cbs *cbs,
                     void *ud, struct mr_model_call **out, struct mr_err *err)
{
  struct own *o = self;
  o->started++;
  o->cbs = *cbs;
  o->ud = ud;
  *out = &o->call;
  return MR_OK;
}
static void own_cancel(void *self, struct mr_model_call *c)
{
  ((struct own *)self)->cancelled++;
}
static void own_free(void *self)
{
  ((struct own *)self)->freed++;
}
static const struct mr_provider_vtable own_v = {"own", own_start, own_cancel, own_free};
static const struct mr_provider_vtable two_v = {"two", own_start, own_cancel, own_free};

static void finish(struct own *o)
{
  struct mr_model_reply r = {.content = MR_S("[]"), .stop_reason = MR_S("end_turn")};
  o->cbs.block(o->ud, 0, MR_S("text"));
  o->cbs.text(o->ud, 0, MR_S("t"));
  o->cbs.done(o->ud, &r);
}

TEST(host_providers)
{
  struct bench b;
  struct heard h;
  struct own a = {.call = {&own_v, &a}}, c = {.call = {&two_v, &c}},
             again = {.call = {&own_v, &again}};
  bench_open(&b,
             "{\"anthropic\":{\"base_url\":\"http://"
             "a.test\"},\"route\":{\"claude-*\":\"anthropic\",\"r\":\"own\"}}",
             NULL, NULL);
  CHECK_INT(mr_models_add(b.models, &own_v, &a, "", &b.err), MR_E_INVALID);
  CHECK_INT(mr_models_add(b.models, &own_v, &a, "claude-*, test", &b.err), MR_OK);
  CHECK_INT(mr_models_add(b.models, &two_v, &c, "claude-opus-4-7", &b.err), MR_OK);
  CHECK_STR(mr_models_at(b.models, 0), "claude-opus-4-7");
  CHECK_STR(mr_models_at(b.models, 1), "test");
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "claude-opus-4-7", &hi, 1), MR_OK);
  CHECK_INT(c.started, 1);
  mr_models_cancel(h.call);
  CHECK_INT(c.cancelled, 1);
  finish(&c);
  CHECK_STR(mr_buf_get(&h.log), "block 0 text\ntext 0 t\n");
  heard_free(&h);
  heard_init(&h);
  CHECK_INT(ask(&b, &h, "r", &hi, 1), MR_OK); /* a route may name it */
  CHECK_INT(a.started, 1);
  /* Replaced while a call runs: freed when that is done. */
  CHECK_INT(mr_models_add(b.models, &own_v, &again, "test", &b.err), MR_OK);
  CHECK_INT(a.freed, 0);
  finish(&a);
  CHECK_INT(a.freed, 1);
  heard_free(&h);
  CHECK_INT(mr_models_remove(b.models, "two"), MR_OK);
  CHECK_INT(c.freed, 1);
  CHECK_INT(mr_models_remove(b.models, "two"), MR_E_NOTFOUND);
  goes_to(&b, "claude-opus-4-7", "a.test", "claude-opus-4-7");
  /* The router goes while calls of both kinds run. */
  struct heard h2;
  heard_init(&h);
  heard_init(&h2);
  CHECK_INT(ask(&b, &h, "test", &hi, 1), MR_OK);
  CHECK_INT(ask(&b, &h2, "claude-x", &hi, 1), MR_OK);
  mr_models_free(&b.models);
  CHECK_INT(again.freed, 0);
  finish(&again);
  CHECK_INT(again.freed, 1);
  mr_models_cancel(h2.call);
  fake_end(MR_E_CANCELLED);
  CHECK(h.done && h2.done);
  heard_free(&h);
  heard_free(&h2);
  bench_close(&b);
}

TEST(torture)
{
  struct mr_err err = {.size = sizeof err};
  struct mr_loop *l;
  struct mr_models *m = NULL;
  CHECK_INT(mr_loop_new(&l, test_sys(), NULL, &err), MR_OK);
  struct mr_models_opts o = {.sys = test_sys(),
                             .loop = l,
                             .anthropic_key = "k",
                             .openai_key = "k",
                             .ca_file = "/x",
                             .config = MR_S("{\"route\":{\"a\":\"openai\"}}")};
  int rc = MR_E_NOMEM;
  for (long n = 0; n < 200 && rc != MR_OK; n++) {
    test_fail_after(n);
    rc = mr_models_new(&m, &o, &err);
    test_fail_after(-1);
    if (rc != MR_OK) CHECK_INT(rc, MR_E_NOMEM);
  }
  CHECK_INT(rc, MR_OK);
  mr_models_free(&m);
  mr_loop_free(&l);
  CHECK_INT(test_allocs(), 0);
}
