/* host50 - a host in fifty lines: a tool in C, one turn, the answer on stdout (the model is played by played.h). */
#include "played.h"
static void weather(void *ud, struct mr_use *use) /* finishes at once; could do so any number of frames later */
{
  struct mr_str city = mr_ext()->as_str(mr_ext()->get(mr_use_input_val(use), S("city")));
  char result[100];
  snprintf(result, sizeof result, "\"18 degrees in %.*s\"", (int)city.n, city.p);
  mr_use_finish(&use, result);
}
static void answered(void *done, const struct mr_reply *r)
{
  struct mr_str text = mr_ext()->as_str(mr_ext()->get(r->val, S("text")));
  printf("%.*s%s\n", (int)text.n, text.p, r->err ? r->err->message : "");
  *(int *)done = 1;
}
static const char *create(struct mr_runtime *rt, char id[64], const char *op, const char *json) /* the new object's id */
{
  struct mr_err err = {.size = sizeof err};
  char *reply = NULL, *at;
  if (mr_call_wait(rt, op, json, 10000, &reply, &err)) fprintf(stderr, "%s: %s\n", op, err.message);
  at = reply ? strstr(reply, "\"id\":\"") : NULL;
  snprintf(id, 64, "%.*s", at ? (int)strcspn(at + 6, "\"") : 0, at ? at + 6 : "");
  mr_free(rt, reply);
  return id;
}
int main(void)
{
  struct mr_provider p = {.size = sizeof p, .name = "played", .models = "test", .run = played};
  struct mr_tool t = {.size = sizeof t, .name = "weather", .run = weather};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = answered};
  struct mr_runtime *rt;
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  char json[300], agent[64], env[64], session[64];
  int done = 0;
  mr_config_init(&c);
  c.store = ":memory:";
  if (mr_open(&rt, &c, &err) || mr_tool_add(rt, &t, &err) || mr_provider_add(rt, &p, &err)) return puts(err.message), 1;
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}",
           create(rt, agent, "agents.create", "{\"name\":\"a\",\"model\":\"test\",\"tools\":[{\"type\":\"custom\",\"name\":\"weather\","
                                              "\"description\":\"The weather\",\"input_schema\":{\"type\":\"object\"}}]}"),
           create(rt, env, "environments.create", "{\"name\":\"e\",\"config\":{\"type\":\"cloud\"}}"));
  if (mr_ask(rt, create(rt, session, "sessions.create", json), "The weather in Bergen?", &cbs, &done, NULL, &err)) return puts(err.message), 1;
  while (!done) {
    mr_wait(rt, 1000);
    mr_dispatch(rt, 0, 0);
  }
  return mr_close(&rt) != MR_OK;
}
