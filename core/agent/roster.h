/*
 * roster - who a coordinator may delegate to (API: sessions §12.1, resources §2.6): the member "multiagent" of
 * agents, in both its forms, and what a session's copy of it means to the machine.
 *
 * On an agent, members are references pinned to versions when it is saved; on a session they are full agent
 * definitions without "multiagent" (depth 1). So a session needs no look-up to start a thread. The copies of the
 * coordinator itself ("self") follow what the session overrides or updates; others never change.
 */
#ifndef MR_AGENT_ROSTER_H
#define MR_AGENT_ROSTER_H

#include "agent/agent_t.h"

enum { MR_ROSTER_MAX = 20 };
#define MR_ADVISOR_NAME "anthropic.advisor"

/* ---- a session's roster: what the machine asks. agent: the root of its snapshot, session.agent ---- */

struct mr_roster {
  bool subagents;        /* the primary thread may start threads: it gets the hidden tools */
  bool inline_agents;    /* ... also of agents that the model describes itself */
  bool workflows;        /* it may start workflow runs */
  bool workflow_inline;  /* ... whose plans describe agents */
  struct mr_str advisor; /* the advisor's model; empty: none */
  yyjson_val *agents;    /* of subagents: array of full definitions (never the advisor), or NULL */
  yyjson_val *planned;   /* of workflows, likewise */
};
/* False: the agent is alone (multiagent null); *r is all empty then. Borrows from agent. */
bool mr_roster_read(yyjson_val *agent, struct mr_roster *r);
/* The member (of agents or planned) that a model named: by its id, else by its name; the first of that name.
 * NULL: none. Its text is a thread's agent as it is. */
yyjson_val *mr_roster_find(yyjson_val *members, struct mr_str name);
/* A session's agent as the agent of its primary thread: everything but "multiagent". */
void mr_roster_alone(yyjson_val *agent, struct mr_buf *out);
/* {"type":"advisor","model":..}, a thread's agent. */
void mr_roster_advisor(struct mr_str model, struct mr_buf *out);

/* An agent that a model describes when it starts a thread, as a thread's agent of type "inline":
 * {"name", "description"?, "system"?, "model"?, "effort"?, "tools"?: [names]}. It works with what the coordinator
 * has: its model unless named, its tools and servers (or only the named ones: built-in and custom tools by name,
 * MCP servers by theirs), its skills and identity; policies stay the coordinator's. models may be NULL (not
 * checked). MR_E_INVALID names the member; its message is fit for the model. */
int mr_roster_inline(const struct mr_mem *m, struct mr_models *models, yyjson_val *agent, yyjson_val *input,
                     struct mr_buf *out, struct mr_err *err);
/* The JSON schema of that input, an object. */
extern const char *const mr_roster_inline_schema;

/* ---- saving an agent, making a session: see roster.c ---- */

#endif
