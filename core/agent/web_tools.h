/* web_tools - the settings of web_fetch and web_search in an agent's toolset: what they may hold, and the full
 * form that is stored and answered. Who obeys them at run time is not decided here. */
#ifndef MR_AGENT_WEB_TOOLS_H
#define MR_AGENT_WEB_TOOLS_H

#include "agent/domain.h"

/* Writes the settings of cfg, the config of a web tool at path ("tools[0].configs[1]"), as members into the open
 * object of w. tools: the whole list, whose custom tools url_sources may name. */
int mr_web_tool_write(struct mr_call *c, struct mr_jw *w, yyjson_val *cfg, yyjson_val *tools, const char *path);

#endif
