/*
 * delegate.c - how a coordinator's model starts other agents and speaks to them: its hidden tools (API: sessions §12.3;
 * no event shows their calls, only what they do is seen). They run at once, in the transaction that records the reply
 * they are in: the thread, the message and the call's outcome are durable together.
 *
 * Depth is one: only the primary thread of a session whose agent has a roster has them. Loop thread; turn_model.c and
 * history.c call.
 */
#include "agent/price.h"
#include "agent/roster.h"
#include "agent/session_t.h"

#include <stdarg.h>
#include <stdio.h>

/* A name that a model gave, as a message can hold it. */
#define SHORT(s) (int)mr_utf8_cut(s, 200), (s).p ? (s).p : ""

enum { CHILDREN_MAX = 25, PROMPT_MAX = 1 << 20 };

enum tool { LIST, CREATE, SEND, ADVISE, NTOOLS };

static const struct {
  const char *name, *description, *schema;
} tools[NTOOLS] = {
    [LIST] = {"list_agents",
              "List the agents that you can start, and the threads of those that you started, with what each "
              "is doing.",
              "{\"type\":\"object\",\"properties\":{}}"},
    [CREATE] =
        {"create_agent",
         "Start an agent on a task of its own, in a new thread. It works in the background, sees only the "
         "prompt "
         "that you give it, and shares your files. Its report reaches you later as a message; do not wait for "
         "it by calling tools: end your turn, and you go on when it comes.",
         "{\"type\":\"object\",\"required\":[\"agent\",\"prompt\"],\"properties\":{"
         "\"agent\":{\"type\":\"string\",\"description\":\"name or id of one of the agents in list_agents\"},"
         "\"prompt\":{\"type\":\"string\",\"description\":\"the whole task\"}}}"},
    [SEND] =
        {"send_to_agent",
         "Send a message to an agent that you started. It goes on in its thread, with all that it knows, and "
         "reports again.",
         "{\"type\":\"object\",\"required\":[\"thread_id\",\"message\"],\"properties\":{"
         "\"thread_id\":{\"type\":\"string\",\"description\":\"session_thread_id of the agent's thread\"},"
         "\"message\":{\"type\":\"string\"}}}"},
    [ADVISE] = {"ask_advisor",
                "Ask the advisor, a stronger model that sees nothing but your question. The advice reaches you "
                "later as "
                "a message.",
                "{\"type\":\"object\",\"required\":[\"question\"],\"properties\":{\"question\":{\"type\":"
                "\"string\"}}}"},
};

static bool roster_of(const struct mr_thread *th, struct mr_roster *r)
{
  return mr_thread_primary(th) && mr_roster_read(th->agent, r);
}

/* An agent's own custom tool comes before one of these: a request with two tools of a name is refused. */
static bool offered(const struct mr_thread *th, const struct mr_roster *r, enum tool t)
{
  return (t == ADVISE ? r->advisor.n > 0 : r->subagents) && !mr_tool_schema(th, mr_str_c(tools[t].name));
}

static int find_tool(const struct mr_thread *th, const struct mr_roster *r, struct mr_str name)
{
  for (int i = 0; i < NTOOLS; i++)
    if (mr_str_is(name, tools[i].name) && offered(th, r, (enum tool)i)) return i;
  return -1;
}

bool mr_delegate_has(const struct mr_thread *th, struct mr_str name)
{
  struct mr_roster r;
  return roster_of(th, &r) && find_tool(th, &r, name) >= 0;
}

/* create_agent of a coordinator whose model may describe agents itself: "agent", or the members of a description. */
static void inline_schema(struct mr_jw *w)
{
  yyjson_doc *doc = NULL;
  yyjson_obj_iter it;
  yyjson_val *k;

  mr_jw_raw(
      w,
      MR_S("{\"type\":\"object\",\"required\":[\"prompt\"],\"properties\":{"
           "\"prompt\":{\"type\":\"string\",\"description\":\"the whole task\"},"
           "\"agent\":{\"type\":\"string\",\"description\":\"name or id of one of the agents in list_agents; "
           "leave it out to describe one with the other members\"}"));
  mr_json_parse(w->b->mem, mr_str_c(mr_roster_inline_schema), SIZE_MAX, &doc, NULL);
  it = yyjson_obj_iter_with(mr_json_get(yyjson_doc_get_root(doc), "properties"));
  while (doc && (k = yyjson_obj_iter_next(&it))) {
    mr_buf_char(w->b, ',');
    mr_json_quote(w->b, mr_json_str(k));
    mr_buf_char(w->b, ':');
    mr_json_write(w->b, yyjson_obj_iter_get_val(k), true);
  }
  mr_buf_c(w->b, "}}");
  yyjson_doc_free(doc);
}

void mr_delegate_tools(const struct mr_thread *th, struct mr_jw *w)
{
  struct mr_roster r;

  if (!roster_of(th, &r)) return;
  for (int i = 0; i < NTOOLS; i++) {
    if (!offered(th, &r, (enum tool)i)) continue;
    mr_jw_obj(w);
    mr_jw_kc(w, "name", tools[i].name);
    mr_jw_kc(w, "description", tools[i].description);
    mr_jw_key(w, "input_schema");
    if (i == CREATE && r.inline_agents)
      inline_schema(w);
    else
      mr_jw_raw(w, mr_str_c(tools[i].schema));
    mr_jw_obj_end(w);
  }
}

/* ---- outcomes ---- */

struct hidden { /* a call being run */
  struct mr_txn *t;
  struct mr_tcall *call;
  struct mr_roster roster;
  yyjson_val *input;
};

/* What the model is told. */
static void outcome(struct hidden *h, struct mr_str text, bool is_error)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, h->t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "event_id", h->call->event_id);
  mr_jw_key(&w, "is_error");
  mr_jw_bool(&w, is_error);
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kstr(&w, "text", text);
  mr_jw_obj_end(&w);
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  mr_txn_private(h->t, "tool.outcome", mr_buf_get(&b));
  mr_buf_free(&b);
}

static void refuse(struct hidden *h, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void refuse(struct hidden *h, const char *fmt, ...)
{
  char text[400];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  outcome(h, mr_str_c(text), true);
}

static void thread_outcome(struct hidden *h, const struct mr_thread *th)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, h->t->s->d->mem, 1 << 16);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "session_thread_id", th->known_as);
  mr_jw_kstr(&w, "agent", th->agent_name);
  mr_jw_kc(&w, "status", mr_status_name(th->status));
  mr_jw_obj_end(&w);
  outcome(h, mr_buf_get(&b), false);
  mr_buf_free(&b);
}

/* ---- list_agents ---- */

static void list_agents(struct hidden *h)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(h->roster.agents);
  yyjson_val *v;
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, h->t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_key(&w, "agents");
  mr_jw_arr(&w);
  while (h->roster.agents && (v = yyjson_arr_iter_next(&it))) {
    mr_jw_obj(&w);
    mr_jw_kstr(&w, "id", mr_json_get_str(v, "id"));
    mr_jw_kstr(&w, "name", mr_json_get_str(v, "name"));
    if (mr_json_get_str(v, "description").n) mr_jw_kstr(&w, "description", mr_json_get_str(v, "description"));
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "threads");
  mr_jw_arr(&w);
  for (struct mr_thread *th = h->t->s->main.next; th; th = th->next) {
    if (mr_thread_advisor(th)) continue;
    mr_jw_obj(&w);
    mr_jw_kc(&w, "session_thread_id", th->known_as);
    mr_jw_kstr(&w, "agent", th->agent_name);
    mr_jw_kc(&w, "status", mr_thread_blocked(th) ? "waiting for the user" : mr_status_name(th->status));
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  outcome(h, mr_buf_get(&b), false);
  mr_buf_free(&b);
}

/* ---- create_agent, ask_advisor ---- */

static int children(const struct mr_session *s)
{
  int n = 0;
  for (const struct mr_thread *th = s->main.next; th; th = th->next)
    n += th->status != MR_TERMINATED && !mr_thread_advisor(th);
  return n;
}

static int all_threads(const struct mr_session *s)
{
  int n = 0;
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    n++;
  return n;
}

/* The rows of a new thread. NULL: the transaction has failed. */
static struct mr_thread *create(struct mr_txn *t, struct mr_str agent)
{
  struct mr_session *s = t->s;
  struct mr_thread *th = &s->main;
  struct mr_buf b;
  struct mr_jw w;
  char id[MR_ID_MAX];

  if (mr_id_make(s->d->sys, id, "sthr") != MR_OK) {
    t->code = t->code ? t->code : MR_E_IO;
    return NULL;
  }
  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "id", id);
  mr_jw_kint(&w, "created_us", mr_loop_wall_us(s->d->loop));
  mr_jw_kraw(&w, "agent", agent);
  mr_jw_obj_end(&w);
  mr_txn_private(t, "thread.created", mr_buf_get(&b));
  mr_buf_free(&b);
  while (th->next)
    th = th->next;
  if (t->code != MR_OK) return NULL;
  mr_txn_wire(t, &b, &w, "session.thread_created", NULL, NULL);
  mr_jw_kc(&w, "session_thread_id", th->id);
  mr_jw_kstr(&w, "agent_name", th->agent_name);
  mr_jw_kraw(&w, "workflow_run_id", MR_S("null"));
  mr_txn_end_wire(t, &b, &w);
  return th;
}

/* Gives a thread a message of the primary's, and it works. An advisor's question is on its own stream alone. */
static void tell(struct mr_txn *t, struct mr_thread *th, struct mr_str text)
{
  struct mr_buf content;

  mr_mail_text(t, text, &content);
  if (!mr_thread_advisor(th)) mr_mail_sent(t, &t->s->main, th, mr_buf_get(&content));
  mr_mail_received(t, &t->s->main, th, mr_buf_get(&content));
  mr_buf_free(&content);
  mr_mail_wake(t, th);
}

/* The text of the agent that the input names or describes, in out. False: refused. */
static bool chosen(struct hidden *h, struct mr_buf *out)
{
  struct mr_session *s = h->t->s;
  struct mr_str name = mr_json_get_str(h->input, "agent");
  yyjson_val *member;
  struct mr_err err;

  if (name.n || !h->roster.inline_agents) {
    if (mr_str_is(name, "self")) name = s->main.agent_id;
    member = mr_roster_find(h->roster.agents, name);
    if (!member) {
      refuse(h, "there is no agent \"%.*s\": list_agents says which there are", SHORT(name));
      return false;
    }
    mr_json_write(out, member, false);
    return true;
  }
  name = mr_json_get_str(h->input, "model");
  if (s->caps.max[MR_CAP_COST] && name.n && !mr_price_find(s->d->prices, name, MR_S(""))) {
    refuse(h, "model: this session has a budget, and %.*s has no list price; leave it out to use your own",
           SHORT(name));
    return false;
  }
  if (mr_roster_inline(s->d->models, s->main.agent, h->input, out, &err) == MR_OK) return true;
  outcome(h, mr_str_c(err.message), true);
  return false;
}

static void create_agent(struct hidden *h)
{
  struct mr_str prompt = mr_json_get_str(h->input, "prompt");
  struct mr_thread *th;
  struct mr_buf agent;

  if (!mr_str_trim(prompt).n || prompt.n > PROMPT_MAX) {
    refuse(h, prompt.n > PROMPT_MAX ? "prompt: longer than 1 MiB" : "prompt: required: the whole task");
    return;
  }
  if (children(h->t->s) >= CHILDREN_MAX || all_threads(h->t->s) >= MR_THREADS_MAX) {
    refuse(h,
           "too many agents: %d threads of agents are open, idle ones too; go on with one of them by "
           "send_to_agent",
           children(h->t->s));
    return;
  }
  mr_buf_init(&agent, h->t->s->d->mem, SIZE_MAX / 2);
  if (chosen(h, &agent) && (th = create(h->t, mr_buf_get(&agent)))) {
    tell(h->t, th, prompt);
    thread_outcome(h, th);
  }
  mr_buf_free(&agent);
}

static void ask_advisor(struct hidden *h)
{
  struct mr_str question = mr_json_get_str(h->input, "question");
  struct mr_thread *th;
  struct mr_buf agent;

  if (!mr_str_trim(question).n || question.n > PROMPT_MAX || all_threads(h->t->s) >= MR_THREADS_MAX) {
    refuse(h, "question: required, a text of at most 1 MiB; a session has at most %d threads", MR_THREADS_MAX);
    return;
  }
  mr_buf_init(&agent, h->t->s->d->mem, SIZE_MAX / 2);
  mr_roster_advisor(h->roster.advisor, &agent);
  if ((th = create(h->t, mr_buf_get(&agent)))) {
    tell(h->t, th, question);
    outcome(h, MR_S("The advisor was asked; its advice comes as a message."), false);
  }
  mr_buf_free(&agent);
}

/* ---- send_to_agent ---- */

/* By the id of its thread, else by the agent's name when just one open thread has it. */
static struct mr_thread *addressee(struct hidden *h)
{
  struct mr_str id = mr_json_get_str(h->input, "thread_id");
  struct mr_thread *found = NULL;
  int n = 0;

  if (!id.n) id = mr_json_get_str(h->input, "name");
  for (struct mr_thread *th = h->t->s->main.next; th; th = th->next) {
    if (mr_thread_advisor(th)) continue;
    if (mr_str_is(id, th->known_as) || mr_str_is(id, th->id)) return th;
    if (th->status == MR_TERMINATED || !mr_str_eq(id, th->agent_name)) continue;
    found = th;
    n++;
  }
  if (n == 1) return found;
  if (n)
    refuse(h, "%d threads are of agent \"%.*s\": give the session_thread_id of one", n, SHORT(id));
  else
    refuse(h, "there is no thread \"%.*s\": list_agents says which there are", SHORT(id));
  return NULL;
}

static void send_to_agent(struct hidden *h)
{
  struct mr_str message = mr_json_get_str(h->input, "message");
  struct mr_thread *th;

  if (!mr_str_trim(message).n || message.n > PROMPT_MAX) {
    refuse(h, "message: required, a text of at most 1 MiB");
    return;
  }
  if (!(th = addressee(h))) return;
  if (th->status == MR_TERMINATED) {
    refuse(h, "thread %s is archived: it takes no more messages", th->known_as);
    return;
  }
  tell(h->t, th, message);
  thread_outcome(h, th);
}

/* ---- running ---- */

static void run(struct mr_txn *t, struct mr_tcall *c)
{
  struct hidden h = {.t = t, .call = c};
  yyjson_doc *doc = NULL;

  if (!roster_of(t->th, &h.roster) || mr_json_parse(t->s->d->mem, c->input, SIZE_MAX, &doc, NULL) != MR_OK) {
    refuse(&h, "the input of %.*s cannot be read", SHORT(c->name));
    return;
  }
  h.input = yyjson_doc_get_root(doc);
  switch (find_tool(t->th, &h.roster, c->name)) {
  case LIST: list_agents(&h); break;
  case CREATE: create_agent(&h); break;
  case SEND: send_to_agent(&h); break;
  case ADVISE: ask_advisor(&h); break;
  default: refuse(&h, "there is no tool %.*s", SHORT(c->name));
  }
  yyjson_doc_free(doc);
}

void mr_delegate_run(struct mr_txn *t)
{
  struct mr_thread *th = t->th;

  for (int i = 0; i < th->ncalls; i++) {
    struct mr_tcall *c = th->calls[i];
    if (c->kind == MR_TOOL_HIDDEN && !c->finished && !c->resolved) run(t, c);
  }
}
