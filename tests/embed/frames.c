/*
 * frames - a game's loop: sixty frames a second, mr_dispatch with a budget in each, forty characters whose
 * turns run at the same time and whose tool finishes some frames after it was called. Prints what the worst
 * dispatch cost this thread; fails when a turn is lost.
 */
#include <moonrig_ext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define S(text) ((struct mr_str){text, strlen(text)})

enum { CHARACTERS = 40, FRAMES_MAX = 1200, BUDGET_US = 500 };

static struct { struct mr_use *use; int frame; } walking[CHARACTERS];
static int frame, walked, answered;

static int64_t now_us(void)
{
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t cpu_us(void) /* of this thread: what others do with the machine is not our cost */
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void walk(void *ud, struct mr_use *use)
{
  for (int i = 0; i < CHARACTERS; i++)
    if (!walking[i].use) {
      walking[i].use = use;
      walking[i].frame = frame + 10 + i % 7;
      return;
    }
  mr_use_fail(&use, "nobody is free to walk");
}

static void model(void *ud, struct mr_model_use *use)
{
  size_t n = mr_ext()->len(mr_ext()->get(mr_model_use_request(use), S("messages")));
  mr_model_use_text(use, S("so "));
  mr_model_use_finish(&use, n == 1 ? "{\"content\":[{\"type\":\"tool_use\",\"name\":\"walk\",\"input\":{}}]}"
                                   : "{\"content\":[{\"type\":\"text\",\"text\":\"so I have arrived\"}]}");
}

static void on_reply(void *ud, const struct mr_reply *r)
{
  if (r->code == MR_OK && strstr(r->json.p, "arrived"))
    answered++;
  else
    printf("not ok frames\n  %s\n", r->err ? r->err->message : r->json.p);
}

static const char *create(struct mr_runtime *rt, char id[64], const char *op, const char *json)
{
  struct mr_err err = {.size = sizeof err};
  char *reply = NULL, *at;
  if (mr_call_wait(rt, op, json, 20000, &reply, &err) != MR_OK) {
    printf("not ok frames\n  %s: %s\n", op, err.message);
    exit(1);
  }
  at = strstr(reply, "\"id\":\"") + 6;
  snprintf(id, 64, "%.*s", (int)strcspn(at, "\""), at);
  mr_free(rt, reply);
  return id;
}

/* One frame: what the runtime has for us, then the world, then the rest of 1/60 s. */
static int64_t turn(struct mr_runtime *rt)
{
  int64_t began = now_us(), spent = cpu_us();
  struct timespec rest = {0, 0};

  mr_dispatch(rt, 0, BUDGET_US);
  spent = cpu_us() - spent;
  for (int i = 0; i < CHARACTERS; i++)
    if (walking[i].use && walking[i].frame <= frame) {
      mr_use_finish(&walking[i].use, "\"arrived\"");
      walked++;
    }
  rest.tv_nsec = 1000 * (16667 - (now_us() - began));
  if (rest.tv_nsec > 0)
    nanosleep(&rest, NULL);
  frame++;
  return spent;
}

int main(void)
{
  struct mr_provider p = {.size = sizeof p, .name = "played", .models = "test", .run = model};
  struct mr_tool t = {.size = sizeof t, .name = "walk", .run = walk};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_reply};
  struct mr_runtime *rt;
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  char json[300], agent[64], env[64], ids[CHARACTERS][64];
  int64_t spent, worst = 0;

  mr_config_init(&c);
  c.store = ":memory:";
  if (mr_open(&rt, &c, &err) || mr_tool_add(rt, &t, &err) || mr_provider_add(rt, &p, &err))
    return printf("not ok frames\n  %s\n", err.message), 1;
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}",
           create(rt, agent, "agents.create", "{\"name\":\"a\",\"model\":\"test\",\"tools\":[{\"type\":\"custom\",\"name\":\"walk\","
                                       "\"description\":\"Walks there\",\"input_schema\":{\"type\":\"object\"}}]}"),
           create(rt, env, "environments.create", "{\"name\":\"e\",\"config\":{\"type\":\"cloud\"}}"));
  for (int i = 0; i < CHARACTERS; i++)
    create(rt, ids[i], "sessions.create", json);
  for (int i = 0; i < CHARACTERS; i++)
    if (mr_ask(rt, ids[i], "Go.", &cbs, NULL, NULL, &err) != MR_OK)
      return printf("not ok frames\n  %s\n", err.message), 1;
  while (answered < CHARACTERS && frame < FRAMES_MAX) {
    spent = turn(rt);
    worst = spent > worst ? spent : worst;
  }
  if (mr_close(&rt) != MR_OK || answered < CHARACTERS || walked != CHARACTERS)
    return printf("not ok frames\n  %d of %d turns ended, %d walked, in %d frames\n", answered, CHARACTERS, walked, frame), 1;
  printf("ok frames\n  %d turns in %d frames, the worst dispatch took %lld us of %d\n", answered, frame, (long long)worst,
         BUDGET_US);
  return 0;
}
