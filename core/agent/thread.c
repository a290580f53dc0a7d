/*
 * thread.c - the threads of a loaded session as objects: made, found, freed. What they do is turn.c; the thread
 * endpoints are threads.c.
 *
 * A thread lives in its session's memory until the session is unloaded, an archived one too: its history stays
 * readable. Loop thread.
 */
#include "agent/roster.h"
#include "agent/session_t.h"

#include <stdio.h>

bool mr_thread_primary(const struct mr_thread *th)
{
  return th == &th->s->main;
}

bool mr_thread_blocked(const struct mr_thread *th)
{
  return th->status == MR_IDLE && th->stop == MR_STOP_REQUIRES_ACTION;
}

bool mr_thread_advisor(const struct mr_thread *th)
{
  return mr_str_is(mr_json_get_str(th->agent, "type"), "advisor");
}

struct mr_thread *mr_thread_find(struct mr_session *s, struct mr_str id)
{
  struct mr_thread *th = &s->main;

  if (id.n == 0) return th;
  while (th && !mr_str_is(id, th->id))
    th = th->next;
  return th;
}

struct mr_thread *mr_thread_of_call(struct mr_session *s, struct mr_str event_id)
{
  struct mr_thread *th = &s->main;

  while (th && !mr_state_call(th, event_id))
    th = th->next;
  return th;
}

void mr_thread_init(struct mr_session *s, struct mr_thread *th)
{
  th->s = s;
  mr_ready_init(&th->step, mr_turn_step);
  mr_timer_init(&th->retry, mr_turn_retry);
}

void mr_thread_free(struct mr_thread *th)
{
  struct mr_domain *d = th->s->d;

  mr_ready_cancel(d->loop, &th->step);
  mr_timer_cancel(d->loop, &th->retry);
  yyjson_doc_free(th->agent_doc);
  mr_history_free(th);
  th->agent_doc = NULL;
}

void mr_thread_set_agent(struct mr_thread *th, yyjson_val *agent)
{
  yyjson_val *model = mr_json_get(agent, "model");

  th->agent = agent;
  th->agent_id = mr_json_get_str(agent, "id");
  th->agent_name = mr_json_get_str(agent, "name");
  th->model = mr_json_get_str(model, "id");
  if (!th->model.n) th->model = mr_json_str(model);
  if (mr_thread_advisor(th)) th->agent_name = MR_S(MR_ADVISOR_NAME);
  th->effort = mr_json_get_str(mr_json_get(model, "effort"), "type");
  th->speed = mr_json_get_str(model, "speed");
  th->system = th->tools = mr_str_n(NULL, 0);
}

struct mr_thread *mr_thread_new(struct mr_session *s, struct mr_str id, struct mr_str parent,
                                struct mr_str agent)
{
  struct mr_thread *th = mr_arena_alloc(s->mem, sizeof *th), *last = &s->main;

  if (!th || id.n >= MR_ID_LEN || parent.n >= MR_ID_LEN ||
      mr_json_parse(s->d->mem, agent, SIZE_MAX, &th->agent_doc, NULL) != MR_OK)
    return NULL;
  mr_thread_init(s, th);
  snprintf(th->id, sizeof th->id, MR_FMT, MR_ARG(id));
  snprintf(th->known_as, sizeof th->known_as, MR_FMT, MR_ARG(id));
  snprintf(th->parent, sizeof th->parent, MR_FMT, MR_ARG(parent));
  mr_thread_set_agent(th, yyjson_doc_get_root(th->agent_doc));
  while (last->next)
    last = last->next;
  last->next = th;
  return th;
}

void mr_input_route(struct mr_session *s, struct mr_input *in, yyjson_val *body)
{
  struct mr_str ref = mr_json_get_str(body, "tool_use_id");

  if (!ref.n) ref = mr_json_get_str(body, "custom_tool_use_id");
  snprintf(in->ref, sizeof in->ref, MR_FMT, MR_ARG(ref));
  if (ref.n)
    in->th = mr_thread_of_call(s, ref);
  else if (mr_str_is(in->type, "user.interrupt"))
    in->th = mr_json_get_str(body, "session_thread_id").n
                 ? mr_thread_find(s, mr_json_get_str(body, "session_thread_id"))
                 : NULL;
  else
    in->th = &s->main;
  if (ref.n && !in->th) in->th = &s->main; /* its call was ended otherwise: whoever has it records it */
}
