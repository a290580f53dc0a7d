/* host50 - a host in about fifty lines: one tool in C, a model played in C, one turn, the answer on stdout.
 * gcc host50.c -lmoonrig; run without arguments. */
#include <moonrig.h>
#include <moonrig_ext.h>
#include <stdio.h>
#include <string.h>

static void weather(void *ud, struct mr_use *use) /* the tool: finishes at once, could do so frames later */
{
  struct mr_str city = mr_ext()->as_str(mr_ext()->get(mr_use_input_val(use), (struct mr_str){"city", 4}));
  char result[200];
  (void)ud;
  snprintf(result, sizeof result, "\"18 degrees in %.*s\"", (int)city.n, city.p);
  mr_use_finish(&use, result);
}

static void model(void *ud, struct mr_model_use *use) /* no result yet: call the tool; else say what it said */
{
  const struct mr_ext *x = mr_ext();
  const struct mr_val *messages = x->get(mr_model_use_request(use), (struct mr_str){"messages", 8});
  struct mr_iter it = {.of = messages}, block = {0}, part = {0};
  char reply[400] = "{\"content\":[{\"type\":\"tool_use\",\"name\":\"weather\",\"input\":{\"city\":\"Bergen\"}}]}";
  (void)ud;
  while (x->next(&it))
    block = (struct mr_iter){.of = x->get(it.val, (struct mr_str){"content", 7})};
  while (x->next(&block)) /* of the last message */
    for (part = (struct mr_iter){.of = x->get(block.val, (struct mr_str){"content", 7})}; x->next(&part);) {
      struct mr_str text = x->as_str(x->get(part.val, (struct mr_str){"text", 4}));
      snprintf(reply, sizeof reply, "{\"content\":[{\"type\":\"text\",\"text\":\"It is %.*s.\"}]}", (int)text.n, text.p);
    }
  mr_model_use_finish(&use, reply);
}

static void answered(void *done, const struct mr_reply *r)
{
  struct mr_str text = mr_ext()->as_str(mr_ext()->get(r->val, (struct mr_str){"text", 4}));
  printf("%.*s%s\n", (int)text.n, text.p, r->err ? r->err->message : "");
  *(int *)done = 1;
}

static int call(struct mr_runtime *rt, const char *op, const char *json, const char *key, char out[100])
{
  struct mr_err err = {.size = sizeof err};
  char *reply = NULL, *at;
  if (mr_call_wait(rt, op, json, 10000, &reply, &err) != MR_OK)
    return fprintf(stderr, "%s: %s\n", op, err.message);
  at = strstr(reply, key); /* "id":"..." */
  sscanf(at ? at + strlen(key) : "", "%99[^\"]", out);
  mr_free(rt, reply);
  return 0;
}

int main(void)
{
  struct mr_provider p = {.size = sizeof p, .name = "played", .models = "test", .run = model};
  struct mr_tool t = {.size = sizeof t, .name = "weather", .run = weather};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = answered};
  struct mr_runtime *rt;
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  char agent[100], env[100], session[100], json[600];
  int done = 0;

  mr_config_init(&c);
  c.store = ":memory:";
  if (mr_open(&rt, &c, &err) || mr_tool_add(rt, &t, &err) || mr_provider_add(rt, &p, &err))
    return fprintf(stderr, "%s\n", err.message), 1;
  if (call(rt, "agents.create", "{\"name\":\"a\",\"model\":\"test\",\"tools\":[{\"type\":\"custom\",\"name\":\"weather\","
           "\"description\":\"The weather\",\"input_schema\":{\"type\":\"object\"}}]}", "\"id\":\"", agent) ||
      call(rt, "environments.create", "{\"name\":\"e\",\"config\":{\"type\":\"cloud\"}}", "\"id\":\"", env))
    return 1;
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", agent, env);
  if (call(rt, "sessions.create", json, "\"id\":\"", session))
    return 1;
  if (mr_ask(rt, session, "What is the weather in Bergen?", &cbs, &done, NULL, &err))
    return fprintf(stderr, "%s\n", err.message), 1;
  while (!done) {
    mr_wait(rt, 1000);
    mr_dispatch(rt, 0, 0);
  }
  return mr_close(&rt) != MR_OK;
}
