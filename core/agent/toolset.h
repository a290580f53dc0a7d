/* toolset - the built-in tools of agent_toolset_20260401 as the model sees them (API: tools §4.1). What
 * they do is in sandbox/, but for web_fetch and web_search, which run in the server (web.h). */
#ifndef MR_AGENT_TOOLSET_H
#define MR_AGENT_TOOLSET_H

#include "base/str.h"

struct mr_toolset_tool {
  const char *name, *description, *schema;
};
const struct mr_toolset_tool *mr_toolset_at(int i); /* NULL past the end */
bool mr_toolset_has(struct mr_str name);
bool mr_toolset_web(struct mr_str name); /* run by this server, wherever the others run */
/* Where files are, for the system prompt; of a self-hosted environment, whose paths are its worker's. */
extern const char *const mr_toolset_note, *const mr_toolset_note_own;

#endif
