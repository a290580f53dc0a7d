/*
 * roster - who a coordinator may delegate to (API: sessions §12.1, resources §2.6): the member "multiagent"
 * of agents, in both its forms, and what a session's copy of it means to the machine.
 *
 * On an agent, members are references pinned to versions when it is saved; on a session they are full agent
 * definitions without "multiagent" (depth 1). So a session needs no look-up to start a thread. The copies of
 * the coordinator itself ("self") follow what the session overrides or updates; others never change.
 */
#ifndef MR_AGENT_ROSTER_H
#define MR_AGENT_ROSTER_H

#include "agent/agent_t.h"

enum { MR_ROSTER_MAX = 20, MR_ROSTER_ID_MAX = 256 };
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
/* fn for the model of every agent that a session may run, its own first, the advisor's last, until it returns
 * other than MR_OK; that is returned. field: for messages. Agents that a model describes are not known yet. */
int mr_roster_models(yyjson_val *agent,
                     int (*fn)(void *ud, struct mr_str model, struct mr_str speed, const char *field),
                     void *ud);
/* An agent, or a session's, as the agent of a thread: without "multiagent" and what only resources have. */
void mr_roster_alone(yyjson_val *agent, struct mr_buf *out);
/* {"type":"advisor","model":..}, a thread's agent. */
void mr_roster_advisor(struct mr_str model, struct mr_buf *out);

/* An agent that a model describes when it starts a thread, as a thread's agent of type "inline": {"name",
 * "description"?, "system"?, "model"?, "effort"?, "tools"?: [names]}. It works with what the coordinator has:
 * its model unless named, its tools and servers (or only the named ones: built-in and custom tools by name,
 * MCP servers by theirs), its skills and identity; policies stay the coordinator's. models may be NULL (not
 * checked). MR_E_INVALID names the member; its message is fit for the model. */
int mr_roster_inline(struct mr_models *models, yyjson_val *agent, yyjson_val *input, struct mr_buf *out,
                     struct mr_err *err);
/* The JSON schema of that input, an object. */
extern const char *const mr_roster_inline_schema;

/* ---- saving an agent, making a session (roster_save.c, roster_members.c) ---- */

struct mr_member { /* an agent that a roster names, as it was read; strings in the call's arena */
  struct mr_str id;
  int64_t asked, version; /* asked: 0 the latest */
  bool missing, no_version, archived, nested;
  struct mr_str name, model, speed, geo;
  struct mr_str definition; /* as a thread's agent: JSON */
};
struct mr_members {
  struct mr_member *v;
  int n;
};
/* Reads every agent that these configurations (as clients write them or as they are stored; either may be NULL)
 * name, but not self. fn once, at once or from the drain; on failure c->err is set. */
void mr_roster_gather(struct mr_call *c, yyjson_val *one, yyjson_val *other, struct mr_str self,
                      void (*fn)(void *ud, int code, const struct mr_members *m), void *ud);
const struct mr_member *mr_member_find(const struct mr_members *m, struct mr_str id, int64_t asked);

/* Who is saved. */
struct mr_roster_owner {
  struct mr_str id, geo; /* geo: its model's inference_geo, or empty */
  int64_t version;
};
/* Writes "multiagent" as it is stored: given over old (NULL: none), checked, members pinned. m: what was
 * gathered of both; NULL when given is NULL and nothing is to be checked. Errors name the member. */
int mr_roster_write(struct mr_call *c, const struct mr_members *m, const struct mr_roster_owner *who,
                    yyjson_val *given, yyjson_val *old, struct mr_buf *out);
/* Equal, but for the version of the agent itself? */
bool mr_roster_same(yyjson_val *a, yyjson_val *b, struct mr_str self);
/* Writes a session's "multiagent": the references of an agent's (m: what was gathered of it) as definitions,
 * or, m NULL, a session's own again. Where it is the agent itself, alone (its definition, JSON) is written. */
int mr_roster_expand(struct mr_call *c, const struct mr_members *m, yyjson_val *multiagent,
                     const struct mr_roster_owner *who, struct mr_str alone, struct mr_buf *out);

#endif
