/*
 * host_kit - a runtime for tests of the C face: opened in a directory or in memory, with a model that a
 * function of the test plays. Calls are made and waited for through the public headers alone.
 */
#ifndef MR_TEST_HOST_KIT_H
#define MR_TEST_HOST_KIT_H

#include "kit.h"
#include "base/buf.h"
#include "base/json.h"
#include "moonrig_ext.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>
#include <yyjson.h>

#define S(lit) ((struct mr_str){(lit), sizeof(lit) - 1})

/* Plays a model: writes the content array for a request, or NULL to hold the use (it is in h->held). */
struct host {
  struct mr_runtime *rt;
  const char *(*model)(struct host *h, const char *last, int k);
  int asked, cancelled;
  struct mr_model_use *held;
  char agent[64], env[64], session[64];
  char last[200000];           /* the latest answer of host_call */
  struct mr_err err;
};

__attribute__((unused)) static const struct mr_ext *X(void) { return mr_ext(); }

__attribute__((unused)) static struct mr_config host_config(const char *store)
{
  struct mr_config c;
  mr_config_init(&c);
  c.store = store;
  c.alloc = test_sys()->mem.fn;
  c.log = test_sys()->log;
  return c;
}

__attribute__((unused)) static struct mr_runtime *host_open(const char *store)
{
  struct mr_config c = host_config(store);
  struct mr_runtime *rt = NULL;
  struct mr_err err = {.size = sizeof err};
  if (mr_open(&rt, &c, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "open: %d %s", err.code, err.message);
  return rt;
}

__attribute__((unused)) static void host_turn(struct mr_runtime *rt, int ms)
{
  mr_wait(rt, ms);
  mr_dispatch(rt, 0, 0);
}

#define UNTIL(rt, cond)                                                                              \
  do {                                                                                               \
    int n_ = 0;                                                                                      \
    while (!(cond)) {                                                                                \
      if (n_++ > 3000)                                                                               \
        test_fail(__FILE__, __LINE__, "never: %s", #cond);                                           \
      host_turn(rt, 10);                                                                             \
    }                                                                                                \
  } while (0)

/* The text that a model sees last: all text of the last message, or its tool results. */
__attribute__((unused)) static void last_text(const struct mr_val *req, char *out, size_t n)
{
  char *json = NULL;
  struct mr_iter it = {.of = X()->get(req, S("messages"))};
  const struct mr_val *last = NULL;
  (void)json;
  while (X()->next(&it))
    last = it.val;
  out[0] = '\0';
  if (last) {
    struct mr_iter c = {.of = X()->get(last, S("content"))};
    while (X()->next(&c)) {
      struct mr_str t = X()->as_str(X()->get(c.val, S("text")));
      size_t at = strlen(out);
      if (t.n)
        snprintf(out + at, n - at, "%.*s", (int)t.n, t.p);
      struct mr_iter r = {.of = X()->get(c.val, S("content"))};
      while (X()->next(&r)) {
        t = X()->as_str(X()->get(r.val, S("text")));
        at = strlen(out);
        snprintf(out + at, n - at, "[%.*s]", (int)t.n, t.p);
      }
    }
  }
}

__attribute__((unused)) static void host_model(void *ud, struct mr_model_use *use)
{
  struct host *h = ud;
  char last[4096], reply[8192];
  const char *content;
  last_text(mr_model_use_request(use), last, sizeof last);
  content = h->model(h, last, h->asked++);
  if (!content) {
    h->held = use;
    return;
  }
  if (content[0] == '!') {
    mr_model_use_fail(&use, content + 1, "the test's model fails");
    return;
  }
  snprintf(reply, sizeof reply, "{\"content\":%s,\"usage\":{\"input_tokens\":10,\"output_tokens\":5}}", content);
  CHECK_INT(mr_model_use_finish(&use, reply), MR_OK);
  CHECK(use == NULL);
}

__attribute__((unused)) static void host_model_cancel(void *ud, struct mr_model_use *use)
{
  struct host *h = ud;
  CHECK(h->held == use);
  h->held = NULL;
  h->cancelled++;
  mr_model_use_fail(&use, "api_error", "cancelled");
}

__attribute__((unused)) static void host_play(struct host *h, const char *(*model)(struct host *h, const char *last, int k))
{
  struct mr_provider p = {.size = sizeof p, .name = "played", .models = "test*", .run = host_model,
                          .cancel = host_model_cancel, .ud = h};
  h->model = model;
  if (mr_provider_add(h->rt, &p, &h->err) != MR_OK)
    test_fail(__FILE__, __LINE__, "provider: %s", h->err.message);
}

/* Calls and waits. Returns the code; the answer is in h->last. */
__attribute__((unused)) static int host_call(struct host *h, const char *op, const char *json)
{
  char *out = NULL;
  int code = mr_call_wait(h->rt, op, json, 20000, &out, &h->err);
  snprintf(h->last, sizeof h->last, "%s", out ? out : "");
  mr_free(h->rt, out);
  return code;
}

__attribute__((unused)) static void host_ok(struct host *h, const char *op, const char *json)
{
  int code = host_call(h, op, json);
  if (code != MR_OK)
    test_fail(__FILE__, __LINE__, "%s %s: %d %s", op, json, code, h->err.message);
}

/* A content array of one text block. */
__attribute__((unused)) static const char *say(const char *before, const char *text)
{
  static char out[20000];
  struct mr_buf b;
  char all[8000];
  snprintf(all, sizeof all, "%s%s", before, text);
  mr_buf_init(&b, &test_sys()->mem, sizeof out);
  mr_buf_c(&b, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(&b, mr_str_c(all));
  mr_buf_c(&b, "}]");
  snprintf(out, sizeof out, "%s", b.p);
  mr_buf_free(&b);
  return out;
}

/* A member of a JSON text by pointer, as text. */
__attribute__((unused)) static const char *pick(const char *json, const char *pointer)
{
  static char out[4096];
  yyjson_doc *doc = yyjson_read(json, strlen(json), 0);
  yyjson_val *v = yyjson_ptr_get(yyjson_doc_get_root(doc), pointer);
  char *text = v ? yyjson_val_write(v, 0, NULL) : NULL;
  snprintf(out, sizeof out, "%s", !v ? "(absent)" : yyjson_is_str(v) ? yyjson_get_str(v) : text);
  free(text);
  yyjson_doc_free(doc);
  return out;
}

/* An agent with these tools (a JSON array) and a session of it. */
__attribute__((unused)) static void host_session(struct host *h, const char *tools)
{
  char json[4096];
  snprintf(json, sizeof json, "{\"name\":\"assistant\",\"model\":\"test\",\"tools\":%s}", tools ? tools : "[]");
  host_ok(h, "agents.create", json);
  snprintf(h->agent, sizeof h->agent, "%s", pick(h->last, "/id"));
  host_ok(h, "environments.create", "{\"name\":\"place\",\"config\":{\"type\":\"cloud\"}}");
  snprintf(h->env, sizeof h->env, "%s", pick(h->last, "/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", h->agent, h->env);
  host_ok(h, "sessions.create", json);
  snprintf(h->session, sizeof h->session, "%s", pick(h->last, "/id"));
}

__attribute__((unused)) static void host_say(struct host *h, const char *text)
{
  char json[8192];
  snprintf(json, sizeof json,
           "{\"session_id\":\"%s\",\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}]}",
           h->session, text);
  host_ok(h, "sessions.events.send", json);
}

__attribute__((unused)) static const char *host_status(struct host *h)
{
  char json[200];
  snprintf(json, sizeof json, "{\"session_id\":\"%s\"}", h->session);
  host_ok(h, "sessions.retrieve", json);
  return pick(h->last, "/status");
}

/* The events of the session as JSON text, in h->last. */
__attribute__((unused)) static void host_events(struct host *h)
{
  char json[200];
  snprintf(json, sizeof json, "{\"session_id\":\"%s\",\"limit\":1000}", h->session);
  host_ok(h, "sessions.events.list", json);
}

#define CUSTOM(name) "{\"type\":\"custom\",\"name\":\"" name "\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}"

/* What came back from mr_call or mr_ask. */
struct got {
  int replies, code, events, chunks;
  char json[100000], types[100000];
  size_t bytes;
  int64_t pos;
  struct mr_err err;
  bool bad_order;              /* an event after the reply */
};

__attribute__((unused)) static void got_reply(void *ud, const struct mr_reply *r)
{
  struct got *g = ud;
  g->replies++;
  g->code = r->code;
  snprintf(g->json, sizeof g->json, "%.*s", (int)r->json.n, r->json.p ? r->json.p : "");
  if (r->err)
    g->err = *r->err;
}

__attribute__((unused)) static void got_event(void *ud, struct mr_str event, const struct mr_val *val, int64_t pos)
{
  struct got *g = ud;
  struct mr_str type = X()->as_str(X()->get(val, S("type")));
  size_t n = strlen(g->types);
  (void)event;
  g->bad_order |= g->replies > 0;
  g->events++;
  if (pos)
    g->pos = pos;
  if (n + type.n + 2 < sizeof g->types)
    snprintf(g->types + n, sizeof g->types - n, "%s%.*s", n ? " " : "", (int)type.n, type.p);
}

__attribute__((unused)) static void got_body(void *ud, struct mr_str chunk)
{
  struct got *g = ud;
  g->bad_order |= g->replies > 0;
  g->chunks++;
  g->bytes += chunk.n;
}

__attribute__((unused)) static const struct mr_callbacks got_cbs = {sizeof(struct mr_callbacks), got_reply, got_event, got_body};

__attribute__((unused)) static int count_fds(void)
{
  DIR *d = opendir("/proc/self/fd");
  int n = 0;
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

__attribute__((unused)) static int count_threads(void)
{
  DIR *d = opendir("/proc/self/task");
  int n = 0;
  while (readdir(d))
    n++;
  closedir(d);
  return n;
}

#endif
