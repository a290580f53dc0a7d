/*
 * agent_kit - a whole domain for tests: a real loop, a real store in a directory, and a model played by a
 * function of the test. Calls are made and waited for by pumping the loop.
 */
#ifndef MR_TEST_AGENT_KIT_H
#define MR_TEST_AGENT_KIT_H

#include "kit.h"
#include "agent/domain.h"
#include "base/json.h"
#include "loop/loop.h"
#include "net/http_client.h"

#include <poll.h>
#include <stdlib.h>

/* The test's model: reads the request's last message, writes content blocks. hold: do not answer yet. */
struct rig {
  struct mr_loop *loop;
  struct mr_store *store;
  struct mr_http_client *http;
  struct mr_models *models;
  struct mr_pool *pool;
  struct mr_domain *d;
  struct mr_domain_opts opts;
  const char *(*model)(struct rig *g, struct mr_str last_message, int k); /* NULL answer: hold */
  void (*sees)(struct rig *g, const struct mr_model_req *q); /* the whole request; may be NULL */
  int asked;                   /* model requests so far */
  int input;                   /* tokens that each is said to have; 0: 10 */
  struct played *held;
  char last[65536];            /* answer of the latest call */
  void (*joins)(void *call, struct mr_commit *c); /* mr_origin.last of each call; may be NULL */
  struct mr_err err;
  int code;
  char agent[64], env[64], session[64];
};

struct played {
  struct mr_model_call base;
  struct rig *g;
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_ready ready;
  char *content;
  int input;
  bool cancelled;
};

static void played_tell(struct mr_ready *r)
{
  struct played *p = MR_OF(r, struct played, ready);
  struct mr_model_reply m = {.status = p->cancelled ? MR_MODEL_CANCELLED : MR_MODEL_OK, .content = mr_str_c(p->content),
                             .stop_reason = MR_S("end_turn"), .usage = {.input = p->input ? p->input : 10, .output = 5}};
  struct rig *g = p->g;
  if (p->content && strncmp(p->content, "!", 1) == 0) {
    m.status = strcmp(p->content, "!refused") == 0 ? MR_MODEL_REFUSED_REQUEST : MR_MODEL_OVERLOADED;
    m.message = MR_S("the test's model fails");
  }
  if (!p->cancelled && m.status == MR_MODEL_OK && strstr(p->content, "\"text\"") == p->content + 9) {
    p->cbs.block(p->ud, 0, MR_S("text"));
    p->cbs.text(p->ud, 0, MR_S("Hel"));
    p->cbs.text(p->ud, 0, MR_S("lo"));
  }
  if (g->held == p)
    g->held = NULL;
  p->cbs.done(p->ud, &m);
  free(p->content);
  free(p);
}

static const struct mr_provider_vtable played_vtable;
static int played_start(void *self, const struct mr_model_req *q, const struct mr_model_cbs *cbs, void *ud,
                        struct mr_model_call **out, struct mr_err *err)
{
  struct rig *g = self;
  struct played *p = calloc(1, sizeof *p);
  if (g->sees)
    g->sees(g, q);
  const char *a = g->model(g, q->messages[q->nmessages - 1], g->asked++);
  (void)err;
  p->g = g;
  p->input = g->input;
  p->base = (struct mr_model_call){&played_vtable, g};
  p->cbs = *cbs;
  p->ud = ud;
  mr_ready_init(&p->ready, played_tell);
  if (a) {
    p->content = strdup(a);
    mr_ready_post(g->loop, &p->ready);
  } else {
    g->held = p;
  }
  *out = &p->base;
  return MR_OK;
}

static void played_cancel(void *self, struct mr_model_call *c)
{
  struct played *p = (struct played *)(void *)c;
  (void)self;
  p->cancelled = true;
  mr_ready_post(p->g->loop, &p->ready);
}

static const struct mr_provider_vtable played_vtable = {"played", played_start, played_cancel, NULL};

static void rig_pump(struct rig *g)
{
  struct pollfd none = {-1, 0, 0};
  mr_loop_pump(g->loop, 0);
  if (mr_loop_next_timeout_us(g->loop) != 0)
    poll(&none, 1, 1);
}

static void rig_open(struct rig *g, const char *dir)
{
  struct mr_store_opts so = {.dir = dir};
  struct mr_models_opts mo = {0};
  struct mr_err err;

  if (mr_loop_new(&g->loop, test_sys(), NULL, &err) || mr_store_open(&g->store, g->loop, &so, &err) ||
      mr_http_client_new(&g->http, g->loop, NULL, &err) ||
      mr_pool_new(&g->pool, g->loop, 2, 1000, "test", NULL, NULL, NULL, &err))
    test_fail(__FILE__, __LINE__, "open: %s", err.message);
  mo.sys = test_sys();
  mo.loop = g->loop;
  mo.http = g->http;
  if (mr_models_new(&g->models, &mo, &err) || mr_models_add(g->models, &played_vtable, g, "*", &err))
    test_fail(__FILE__, __LINE__, "models: %s", err.message);
  g->opts.loop = g->loop;
  g->opts.store = g->store;
  g->opts.models = g->models;
  g->opts.pool = g->pool;
  if (mr_domain_new(&g->d, &g->opts, &err))
    test_fail(__FILE__, __LINE__, "domain: %s", err.message);
  mr_domain_start(g->d);
}

__attribute__((unused)) static void rig_close(struct rig *g)
{
  mr_domain_cut(g->d);
  for (int i = 0; i < 50; i++)
    rig_pump(g);
  mr_pool_free(&g->pool);
  mr_store_close(&g->store);
  mr_domain_free(&g->d);
  mr_models_free(&g->models);
  mr_http_client_free(&g->http);
  mr_loop_free(&g->loop);
}

#define MAYBE __attribute__((unused)) static

struct made { struct mr_call c; struct rig *g; yyjson_doc *in; bool over; };

static void made_done(struct mr_call *c)
{
  struct made *m = MR_OF(c, struct made, c);
  m->over = true;
  mr_loop_stop(m->g->loop);
}

/* Makes a call; rig_answer waits for its answer. */
static struct made *rig_begin(struct rig *g, void (*fn)(struct mr_call *c), const char *p0, const char *p1, const char *json)
{
  struct made *m = calloc(1, sizeof *m);
  m->g = g;
  m->c.d = g->d;
  m->c.mem = &test_sys()->mem;
  m->c.arena = mr_arena_new(m->c.mem, 1024);
  m->c.path[0] = mr_str_c(p0);
  m->c.path[1] = mr_str_c(p1);
  m->c.done = made_done;
  m->c.who.last = g->joins;
  m->c.who.ud = &m->c;
  if (mr_store_workspace(g->store, MR_S("default"), &m->c.who.workspace, NULL) ||
      mr_json_parse(m->c.mem, mr_str_c(json ? json : "{}"), 1 << 24, &m->in, &g->err))
    test_fail(__FILE__, __LINE__, "bad call: %s", json);
  m->c.in = yyjson_doc_get_root(m->in);
  mr_buf_init(&m->c.out, m->c.mem, 1 << 26);
  fn(&m->c);
  return m;
}

/* The answer is in g->last, or g->err. Returns the code. */
static int rig_answer(struct rig *g, struct made *m)
{
  while (!m->over) /* one that is never answered runs into the test's time limit */
    mr_loop_run(g->loop);
  g->code = m->c.code;
  g->err = m->c.err;
  snprintf(g->last, sizeof g->last, "%.*s", (int)m->c.out.n, m->c.out.p ? m->c.out.p : "");
  mr_buf_free(&m->c.out);
  yyjson_doc_free(m->in);
  mr_arena_free(&m->c.arena);
  free(m);
  return g->code;
}

static int rig_call(struct rig *g, void (*fn)(struct mr_call *c), const char *p0, const char *p1, const char *json)
{
  return rig_answer(g, rig_begin(g, fn, p0, p1, json));
}

/* A string member of the latest answer, by JSON pointer. */
MAYBE const char *rig_get(struct rig *g, const char *pointer)
{
  static char out[4096];
  yyjson_doc *doc = yyjson_read(g->last, strlen(g->last), 0);
  yyjson_val *v = yyjson_ptr_get(yyjson_doc_get_root(doc), pointer);
  if (yyjson_is_str(v))
    snprintf(out, sizeof out, "%s", yyjson_get_str(v));
  else if (yyjson_is_int(v))
    snprintf(out, sizeof out, "%lld", (long long)yyjson_get_sint(v));
  else
    snprintf(out, sizeof out, "%s", v ? (yyjson_is_null(v) ? "null" : "?") : "(absent)");
  yyjson_doc_free(doc);
  return out;
}

MAYBE void rig_ok(struct rig *g, void (*fn)(struct mr_call *c), const char *p0, const char *p1, const char *json)
{
  if (rig_call(g, fn, p0, p1, json) != MR_OK)
    test_fail(__FILE__, __LINE__, "%s: %d %s", json ? json : "a call", g->code, g->err.message);
}

/* The call is refused with this code, HTTP status, field ("" none) and a message that holds these words. */
MAYBE void rig_refused(struct rig *g, void (*fn)(struct mr_call *c), const char *p0, const char *p1, const char *json,
                       int code, int http, const char *field, const char *words)
{
  rig_call(g, fn, p0, p1, json);
  if (g->code != code || g->err.code != code || g->err.http_status != http || strcmp(g->err.field, field) != 0 ||
      !strstr(g->err.message, words))
    test_fail(__FILE__, __LINE__, "%s: code %d (%d), http %d, field \"%s\", \"%s\"; wanted %d, %d, \"%s\", \"%s\"",
              json ? json : "a call", g->code, g->err.code, g->err.http_status, g->err.field, g->err.message, code, http,
              field, words);
}

/* An agent with these tools, and a session of it in the environment "default". */
MAYBE void rig_session(struct rig *g, const char *tools)
{
  char json[4096];
  snprintf(json, sizeof json, "{\"name\":\"assistant\",\"model\":\"m\",\"tools\":%s}", tools ? tools : "[]");
  rig_ok(g, mr_agents_create, NULL, NULL, json);
  snprintf(g->agent, sizeof g->agent, "%s", rig_get(g, "/id"));
  for (int i = 0; i < 10000; i++) {
    rig_ok(g, mr_environments_list, NULL, NULL, NULL);
    if (strcmp(rig_get(g, "/data/0/name"), "default") == 0)
      break;
    rig_pump(g);
  }
  snprintf(g->env, sizeof g->env, "%s", rig_get(g, "/data/0/id"));
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", g->agent, g->env);
  rig_ok(g, mr_sessions_create, NULL, NULL, json);
  snprintf(g->session, sizeof g->session, "%s", rig_get(g, "/id"));
}

MAYBE void rig_say(struct rig *g, const char *text)
{
  char json[8192];
  snprintf(json, sizeof json, "{\"events\":[{\"type\":\"user.message\",\"content\":[{\"type\":\"text\",\"text\":\"%s\"}]}]}", text);
  rig_ok(g, mr_sessions_events_send, g->session, NULL, json);
}

MAYBE void rig_until(struct rig *g, const char *status)
{
  for (int i = 0; i < 5000; i++) {
    rig_ok(g, mr_sessions_retrieve, g->session, NULL, NULL);
    if (strcmp(rig_get(g, "/status"), status) == 0)
      return;
    rig_pump(g);
  }
  test_fail(__FILE__, __LINE__, "the session is %s, not %s", rig_get(g, "/status"), status);
}

/* The types of all events, joined by spaces; short names: without "session." and "span.". */
MAYBE const char *rig_types(struct rig *g)
{
  static char out[8192];
  yyjson_doc *doc;
  yyjson_val *v;
  size_t n = 0;
  yyjson_arr_iter it;

  rig_ok(g, mr_sessions_events_list, g->session, NULL, NULL);
  doc = yyjson_read(g->last, strlen(g->last), 0);
  if (!doc)
    test_fail(__FILE__, __LINE__, "events are not JSON: %s", g->last);
  it = yyjson_arr_iter_with(yyjson_obj_get(yyjson_doc_get_root(doc), "data"));
  out[0] = '\0';
  while ((v = yyjson_arr_iter_next(&it))) {
    const char *t = yyjson_get_str(yyjson_obj_get(v, "type"));
    if (strncmp(t, "session.", 8) == 0)
      t += 8;
    else if (strncmp(t, "span.", 5) == 0)
      t += 5;
    n += (size_t)snprintf(out + n, sizeof out - n, "%s%s", n ? " " : "", t);
  }
  yyjson_doc_free(doc);
  return out;
}

/* Waits until n turns (or blocked ends of turns) are in the list. */
MAYBE void rig_idles(struct rig *g, int n)
{
  int have = 0;
  for (int i = 0; i < 3000; i++) {
    have = 0;
    for (const char *p = rig_types(g); (p = strstr(p, " status_idle")); p++)
      have++;
    if (have >= n)
      return;
    rig_pump(g);
  }
  test_fail(__FILE__, __LINE__, "%d idle events, not %d: %s", have, n, rig_types(g));
}

#endif
