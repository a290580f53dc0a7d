/*
 * driver - a runtime that may be killed at any moment, and the client that uses it, in one process.
 *
 *   driver DIR LOG begin SCENARIO[,SCENARIO...]   makes a session for each and plays its client to the end
 *   driver DIR LOG resume                         after a kill: waits until all sessions have finished by
 *                                                 themselves, prints them; then the clients go on: what waits
 *                                                 for an answer gets one, and a last message must be answered
 *   driver DIR LOG list                           prints the sessions
 *
 * DIR holds the store and what the fake tools keep (fakes.h). LOG gets one line of JSON for everything that
 * was acknowledged, the moment the client has it: {"k":"made"}, {"k":"sent"} (the answer to a send),
 * {"k":"event"} and {"k":"preview"} (of the stream), {"k":"resumed"}. Written with write(2): what a process
 * wrote before SIGKILL is there, but for a line that the kill cut. Printed sessions are one line each:
 * {"k":"settled" or "list","session":..,"events":[..]}.
 *
 * Exit codes: 0; 2 broken; 3 over the time limit (what did not finish is on stderr).
 * Environment: CRASH_MODEL the model's file, CRASH_NO_TOOLS, CRASH_CLOCK_S (the wall clock is that much
 * ahead), CRASH_STOP_MS (begin ends in order so long after the first messages, as after SIGTERM),
 * CRASH_GRACE_MS, CRASH_FAILS (the fault makes a commit fail: who hears of it gives up, the sessions go on),
 * CRASH_LIMIT_S (20), and in debug builds MOONRIG_FAULT and MOONRIG_SWITCH.
 * Everything runs on the loop's thread; tests/crash/suite judges.
 */
#include "client.h"

enum { POLL_US = 3000 };

/* ---- life ---- */

static int64_t clock_us(void *ud)
{
  return fake_now_us() + ((struct world *)ud)->clock_us;
}

static void print_line(void *ud, int level, struct mr_str line)
{
  (void)ud;
  if (level <= MR_LOG_WARN || getenv("CRASH_LOG"))
    fprintf(stderr, "[%d] " MR_FMT "\n", level, MR_ARG(line));
}

static void show_unfinished(struct world *w)
{
  struct req *r = req_new(w, NULL, NULL, "{\"limit\":1000}");
  yyjson_arr_iter it;
  yyjson_doc *doc;
  yyjson_val *v;

  mr_sessions_list(&r->c);
  for (int i = 0; i < 500 && !r->done; i++) {
    mr_loop_pump(w->loop, 0);
    usleep(1000);
  }
  fprintf(stderr, "driver: over the time limit while %s (%d sends, %d calls open, %d streams):", w->doing, w->sending,
          w->calls - w->open - 1, w->open);
  doc = yyjson_read(r->out, strlen(r->out), 0);
  it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  while (doc && (v = yyjson_arr_iter_next(&it)))
    fprintf(stderr, " %s %s %s;", mr_json_get_str(v, "id").p, mr_json_get_str(v, "title").p, mr_json_get_str(v, "status").p);
  fprintf(stderr, "\n");
  exit(3);
}

static void on_limit(struct mr_timer *t)
{
  struct world *w = MR_OF(t, struct world, limit);
  w->doing = w->doing ? w->doing : "starting";
  w->limit.fn = NULL;
  mr_loop_stop(w->loop);
}

/* Runs the loop until somebody stops it; every wait of the driver passes here or in ask. */
static void turn_loop(struct world *w)
{
  if (!w->limit.fn)
    show_unfinished(w);
  mr_loop_run(w->loop);
}

static void world_open(struct world *w, const char *dir, const char *log)
{
  const char *model = getenv("CRASH_MODEL"), *shift = getenv("CRASH_CLOCK_S"), *limit = getenv("CRASH_LIMIT_S");
  static const char config[] = "{\"retries\":{\"base_ms\":20,\"cap_ms\":40},\"prices\":{\"date\":\"2026-11-28\",\"hour_usd\":0,"
                               "\"models\":{\"priced\":{\"input\":0,\"output\":1000}}},\"outcomes\":{\"heartbeat_ms\":5}}";
  char path[600], models[900];
  struct mr_config c = {.size = sizeof c, .wall_us = clock_us, .log = print_line, .ud = w};
  struct mr_store_opts so = {.dir = path};
  struct mr_models_opts mo = {0};
  struct mr_tool_runner tools = {&w->fakes, fake_owns, fake_start, fake_cancel};
  struct mr_domain_opts o = {0};
  struct mr_err err = {.size = sizeof err};

  w->fails = getenv("CRASH_FAILS") != NULL;
  w->clock_us = shift ? strtoll(shift, NULL, 10) * 1000000 : 0;
  w->log = open(log, O_CREAT | O_APPEND | O_WRONLY | O_CLOEXEC, 0600);
  if (w->log >= 0 && write(w->log, "\n", 1) != 1) /* a kill may have cut the line before */
    die(log, "cannot write");
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/store", dir);
  snprintf(models, sizeof models, "{\"scripted\":{\"file\":\"%s\"},\"route\":{\"m\":\"scripted\",\"priced\":\"scripted\"}}",
           model ? model : "tests/crash/model.jsonl");
  w->config = yyjson_read(config, strlen(config), 0);
  mr_sys_init(&w->sys, &c);
  mo.sys = &w->sys;
  mo.config = mr_str_c(models);
  if (w->log < 0 || mr_loop_new(&w->loop, &w->sys, NULL, &err) || mr_store_open(&w->store, w->loop, &so, &err) ||
      mr_http_client_new(&w->http, w->loop, NULL, &err) ||
      mr_pool_new(&w->pool, w->loop, 1, 100, "driver", NULL, NULL, NULL, &err))
    die("open", w->log < 0 ? log : err.message);
  mo.loop = w->loop;
  mo.http = w->http;
  fakes_init(&w->fakes, dir, w->loop, &w->d);
  w->driver.base.v = &fake_vtable;
  w->driver.f = &w->fakes;
  o = (struct mr_domain_opts){.loop = w->loop, .store = w->store, .pool = w->pool, .sandbox = &w->driver.base,
                              .tools = &tools, .config = yyjson_doc_get_root(w->config)};
  if (!w->config || mr_models_new(&w->models, &mo, &err))
    die("models", err.message);
  o.models = w->models;
  if (mr_domain_new(&w->d, &o, &err) || mr_store_workspace(w->store, MR_S("default"), &w->ws, &err))
    die("domain", err.message);
  mr_timer_init(&w->limit, on_limit);
  mr_timer_set(w->loop, &w->limit, (limit ? strtoll(limit, NULL, 10) : 20) * 1000000);
  mr_domain_start(w->d);
}

static void on_drained(void *ud)
{
  struct world *w = ud;
  w->drained = true;
  mr_loop_stop(w->loop);
}

static void on_pause(struct mr_timer *t)
{
  mr_loop_stop(MR_OF(t, struct world, pause)->loop);
}

static void wait_us(struct world *w, int64_t us)
{
  mr_timer_init(&w->pause, on_pause);
  mr_timer_set(w->loop, &w->pause, us);
  while (mr_timer_pending(&w->pause))
    turn_loop(w);
}

static void settle_loop(struct world *w)
{
  while (mr_loop_pump(w->loop, 0) == MR_MORE)
    continue;
}

/* As the program does it: drain, cut after the grace time, wait for what was cut, free in order. */
static void world_close(struct world *w, int64_t grace_us)
{
  struct mr_domain_stats d;
  struct mr_store_stats st;

  mr_timer_cancel(w->loop, &w->pause);
  mr_domain_drain(w->d, on_drained, w);
  for (int64_t waited = 0; (w->open || !w->drained) && waited < grace_us; waited += POLL_US)
    wait_us(w, POLL_US);
  mr_domain_cut(w->d);
  do {
    wait_us(w, POLL_US);
    mr_domain_stats(w->d, &d);
    mr_store_stats(w->store, &st);
  } while (w->open || w->calls || d.model_running || d.handlers_running || st.queued);
  mr_timer_cancel(w->loop, &w->limit);
  mr_timer_cancel(w->loop, &w->pause);
  settle_loop(w);
  mr_pool_free(&w->pool);
  mr_store_close(&w->store);
  settle_loop(w);
  mr_domain_free(&w->d);
  settle_loop(w);
  mr_models_free(&w->models);
  mr_http_client_free(&w->http);
  mr_loop_free(&w->loop);
  yyjson_doc_free(w->config);
  for (int i = 0; i < w->nclients; i++)
    free(w->clients[i]);
  close(w->log);
  close(w->fakes.runs);
}

static struct client *client_new(struct world *w, const char *id)
{
  struct client *cl = calloc(1, sizeof *cl);

  if (w->nclients == SESSIONS_MAX)
    die("clients", "too many");
  cl->w = w;
  snprintf(cl->id, sizeof cl->id, "%s", id);
  return w->clients[w->nclients++] = cl;
}

/* ---- begin ---- */

enum { PLAIN, BOSS, AGENTS };

/* The agent of this kind, made when it is first asked for; a coordinator has the plain one in its roster. */
static const char *agent_of(struct world *w, char agents[2][AGENTS][64], int priced, int kind)
{
  static const char tools[] =
      "[{\"type\":\"agent_toolset_20260401\",\"configs\":[{\"name\":"
      "\"write\",\"permission_policy\":{\"type\":\"always_ask\"}}]},"
      "{\"type\":\"custom\",\"name\":\"counter\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
      "{\"type\":\"custom\",\"name\":\"lookup\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
      "{\"type\":\"custom\",\"name\":\"ask_human\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}]";
  const char *model = priced ? "priced" : "m";
  char json[2048], roster[256] = "";
  struct req *r;

  if (agents[priced][kind][0])
    return agents[priced][kind];
  if (kind == BOSS)
    snprintf(roster, sizeof roster, ",\"multiagent\":{\"type\":\"coordinator\",\"agents\":[\"%s\",{\"type\":\"advisor\","
             "\"model\":\"%s\"}]}", agent_of(w, agents, priced, PLAIN), model);
  snprintf(json, sizeof json, "{\"name\":\"%s\",\"model\":\"%s\",\"tools\":%s%s}", kind == BOSS ? "boss" : "assistant", model,
           tools, roster);
  r = ask(w, mr_agents_create, NULL, json);
  member(r, "/id", agents[priced][kind], sizeof agents[0][0]);
  req_free(r);
  return agents[priced][kind];
}

static void make_session(struct world *w, char agents[2][AGENTS][64], const char *env, const char *name)
{
  char json[512], id[64];
  const struct scenario *sc = NULL;
  struct client *cl;
  struct req *r;

  for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
    if (strcmp(scenarios[i].name, name) == 0)
      sc = &scenarios[i];
  if (!sc)
    die("no such scenario", name);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"title\":\"%s\"%s}", agent_of(w, agents, sc->priced, sc->agent),
           env, name, sc->priced ? ",\"budget\":{\"type\":\"limit\",\"max_list_cost\":{\"amount\":\"50\",\"currency\":\"USD\"}}" : "");
  r = ask(w, mr_sessions_create, NULL, json);
  cl = client_new(w, member(r, "/id", id, sizeof id));
  log_line(w, "{\"k\":\"made\",\"session\":\"%s\",\"scenario\":\"%s\"}\n", id, name);
  req_free(r);
  cl->sc = sc;
  follow(cl);
}

static void on_stop(struct mr_timer *t)
{
  struct world *w = MR_OF(t, struct world, stopper);
  w->stop = true;
  mr_loop_stop(w->loop);
}

static void settle(struct world *w, const char *doing);

static void begin(struct world *w, char *names)
{
  const char *stop = getenv("CRASH_STOP_MS");
  char agents[2][AGENTS][64] = {{""}}, env[64] = "";
  struct req *r;

  agent_of(w, agents, 0, PLAIN);
  while (!env[0]) {
    r = ask(w, mr_environments_list, NULL, NULL);
    member(r, "/data/0/id", env, sizeof env);
    req_free(r);
  }
  for (char *name = names, *next; name; name = next) {
    next = strchr(name, ',');
    if (next)
      *next++ = '\0';
    make_session(w, agents, env, name);
  }
  w->doing = "playing the scenarios";
  mr_timer_init(&w->stopper, on_stop);
  if (stop)
    mr_timer_set(w->loop, &w->stopper, strtoll(stop, NULL, 10) * 1000);
  for (int i = 0; i < w->nclients; i++)
    act(w->clients[i], w->clients[i]->sc->steps[w->clients[i]->step++].act);
  for (int i = 0; i < w->nclients; i++)
    while (!w->clients[i]->over && !w->stop)
      turn_loop(w);
  if (w->fails)
    settle(w, "waiting for what was loaded again");
}

/* ---- resume and list ---- */

/* The threads besides the primary, each with its own list. */
static void show_threads(struct world *w, struct client *cl)
{
  struct req *r = ask(w, mr_sessions_threads_list, cl->id, NULL);
  yyjson_doc *doc = yyjson_read(r->out, strlen(r->out), 0);
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  yyjson_val *v;
  int n = 0;

  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_str id = mr_json_get_str(v, "id"), status = mr_json_get_str(v, "status");
    struct req *e;
    if (n++ == 0) /* its list is the session's */
      continue;
    e = ask_thread(w, mr_sessions_threads_events_list, cl->id, id, NULL);
    printf("%s{\"id\":\"" MR_FMT "\",\"status\":\"" MR_FMT "\",\"events\":%s}", n > 2 ? "," : "", MR_ARG(id), MR_ARG(status),
           e->out);
    req_free(e);
  }
  yyjson_doc_free(doc);
  req_free(r);
}

static void show(struct world *w, struct client *cl, const char *kind)
{
  struct req *s = ask(w, mr_sessions_retrieve, cl->id, NULL), *e = ask(w, mr_sessions_events_list, cl->id, NULL);
  printf("{\"k\":\"%s\",\"session\":%s,\"events\":%s,\"threads\":[", kind, s->out, e->out);
  show_threads(w, cl);
  printf("]}\n");
  req_free(s);
  req_free(e);
}

static void find_sessions(struct world *w)
{
  struct req *r = ask(w, mr_sessions_list, NULL, "{\"limit\":1000,\"order\":\"asc\"}");
  yyjson_doc *doc = yyjson_read(r->out, strlen(r->out), 0);
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    client_new(w, mr_json_get_str(v, "id").p);
  yyjson_doc_free(doc);
  req_free(r);
}

/* Idle, and nothing sent waits to be taken; the client learns what it is asked. */
static bool settled(struct client *cl)
{
  struct req *s = ask(cl->w, mr_sessions_retrieve, cl->id, NULL), *e = NULL;
  struct mr_str last = {0};
  char status[32];
  bool yes = strcmp(member(s, "/status", status, sizeof status), "idle") == 0;
  yyjson_doc *doc;
  yyjson_arr_iter it;
  yyjson_val *v;

  req_free(s);
  if (!yes)
    return false;
  e = ask(cl->w, mr_sessions_events_list, cl->id, NULL);
  doc = yyjson_read(e->out, strlen(e->out), 0);
  it = yyjson_arr_iter_with(mr_json_get(yyjson_doc_get_root(doc), "data"));
  cl->ncustom = cl->npending = 0;
  while ((v = yyjson_arr_iter_next(&it))) {
    yes = yes && !yyjson_is_null(mr_json_get(v, "processed_at"));
    last = mr_json_get_str(v, "type");
    learn(cl, last.p, v);
  }
  yes = yes && (!last.p || mr_str_is(last, IDLE)); /* what was read first may be older */
  yyjson_doc_free(doc);
  req_free(e);
  return yes;
}

static void settle(struct world *w, const char *doing)
{
  w->doing = doing;
  while (w->sending)
    turn_loop(w);
  for (int i = 0; i < w->nclients; i++)
    while (!settled(w->clients[i]))
      wait_us(w, POLL_US);
}

static void list(struct world *w)
{
  find_sessions(w);
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "list");
}

static void resume(struct world *w)
{
  find_sessions(w);
  settle(w, "waiting for the sessions to finish by themselves");
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "settled");
  log_line(w, "{\"k\":\"resumed\"}\n");
  for (int i = 0; i < w->nclients; i++) {
    follow(w->clients[i]);
    if (w->clients[i]->npending)
      act(w->clients[i], "answers");
  }
  settle(w, "waiting for the turns that were answered");
  for (int i = 0; i < w->nclients; i++)
    if (w->clients[i]->paused)
      act(w->clients[i], "raise");
  settle(w, "waiting for the turns that were paused");
  for (int i = 0; i < w->nclients; i++) /* what a paused child asks when it goes on */
    if (w->clients[i]->npending)
      act(w->clients[i], "answers");
  settle(w, "waiting for the last answers");
  for (int i = 0; i < w->nclients; i++)
    act(w->clients[i], "say:last words");
  settle(w, "waiting for the last words");
  for (int i = 0; i < w->nclients; i++)
    show(w, w->clients[i], "list");
}

int main(int argc, char **argv)
{
  static struct world w;
  const char *grace = getenv("CRASH_GRACE_MS");

  if (argc < 4)
    die("usage", "driver DIR LOG begin SCENARIOS | resume | list");
  setvbuf(stdout, NULL, _IOFBF, 1 << 16);
  world_open(&w, argv[1], argv[2]);
  if (strcmp(argv[3], "begin") == 0 && argc == 5)
    begin(&w, argv[4]);
  else if (strcmp(argv[3], "resume") == 0)
    resume(&w);
  else if (strcmp(argv[3], "list") == 0)
    list(&w);
  else
    die("usage", "begin SCENARIOS, resume or list");
  world_close(&w, grace ? strtoll(grace, NULL, 10) * 1000 : 5000000);
  return 0;
}
