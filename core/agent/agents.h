/* agents - resolving what a client wrote to the full form that is stored (API: resources §2-§3). */
#ifndef MR_AGENT_AGENTS_H
#define MR_AGENT_AGENTS_H

#include "agent/doc.h"

/* Each writes one resolved member as JSON, or sets c->err (field named under prefix, "" at the top level). */
int mr_agent_model(struct mr_call *c, yyjson_val *given, yyjson_val *old, struct mr_buf *out);
int mr_agent_tools(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
int mr_agent_servers(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
int mr_agent_skills(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
/* Rules between members of a resolved agent: every MCP server has its toolset and the other way round. */
int mr_agent_cross_check(struct mr_call *c, yyjson_val *agent);

#endif
