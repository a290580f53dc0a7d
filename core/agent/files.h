/* files - what the files of the agent room that deal with files share. */
#ifndef MR_AGENT_FILES_H
#define MR_AGENT_FILES_H

#include "agent/doc.h"

struct mr_file {
  struct mr_str id, filename, mime_type, session_id; /* session_id: its scope, or empty */
  int64_t size, created_us, expires_us;              /* expires 0 = never */
  bool downloadable;
};
/* A name without its directories, or one made from the media type; MR_E_INVALID for characters that no name holds. */
int mr_file_name(struct mr_call *c, struct mr_str *name, struct mr_str media);
void mr_file_write(struct mr_buf *out, const struct mr_file *f); /* the wire object */

/* ---- outputs.c: a session's outputs directory. Pool threads ---- */
/* A regular file below it; fd is the walk's. False: enough. */
typedef bool (*mr_outputs_fn)(void *ud, const char *path, int fd, int64_t size);
void mr_outputs_walk(const char *dir, mr_outputs_fn fn, void *ud);
/* openat beneath root, through no link; -1 and errno. */
int mr_outputs_open(int root, const char *path, int flags);

#endif
