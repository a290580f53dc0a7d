/* agents - resolving what a client wrote to the full form that is stored (API: resources §2-§3). */
#ifndef MR_AGENT_AGENTS_H
#define MR_AGENT_AGENTS_H

#include "agent/doc.h"

/* Each writes one resolved member as JSON, or sets c->err (field named under prefix, "" at the top level). */
int mr_agent_model(struct mr_call *c, yyjson_val *given, yyjson_val *old, struct mr_buf *out);
/* A session's own: the effort in it is checked, but the model runs at its default. null is refused. */
int mr_agent_model_override(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
struct mr_str mr_model_effort(struct mr_str model); /* a model's default effort */
int mr_agent_tools(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
int mr_agent_servers(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
int mr_agent_skills(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
/* Rules between members of a resolved agent: every MCP toolset has its server and the other way round; a session
 * may have servers that it does not use. */
int mr_agent_cross_check(struct mr_call *c, yyjson_val *agent, bool session);
/* Of a session whose tools are replaced: skills need the toolset. */
int mr_agent_skills_check(struct mr_call *c, yyjson_val *agent);

/* snapshot.c: a session's agent with its members replaced by those of change (tools, mcp_servers; null clears),
 * also where its roster holds itself. out is begun here; the caller frees it. */
int mr_snapshot_change(struct mr_call *c, yyjson_val *snapshot, yyjson_val *change, struct mr_buf *out);

#endif
