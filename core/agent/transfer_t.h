/*
 * transfer_t - the file that a session is exported to and imported from, version 1 or 2: lines of JSON.
 *
 *   {"format":"moonrig.session","version":2,"moonrig":..,"exported_at":..,"primary":"sthr_..","session":{..}}
 *   {"row":"file","id","filename","mime_type","size_bytes","downloadable","created_at","name","sha256"}
 *   {"row":"workspace","size_bytes"}              (2) once at most: the session's files in the sandbox, a tar archive of
 *                                                 "workspace/..." and "outputs/..." (sandbox/sandbox.h)
 *   {"row":"bytes","data":"<base64>"}             of the file or workspace before it, at most MR_FILE_CHUNK bytes each
 *   {"row":"wire","at":<microseconds>,"thread":"sthr_..",...,"body":{the event}}    thread: not of the primary one
 *   {"row":"private","at","thread","format","type","id","body":{..}}                the machine's own rows
 *   {"row":"inbox","body":{an event that waits}}
 *   {"row":"end","rows":<wire and private>,"sha256":"<of every byte before this line>"}
 *
 * In this order; wire and private rows in log order. A file is of version 2 when it holds a workspace. The header's session is the wire object: nothing that the API
 * does not show of a session (tokens of vaults and repositories) is in the file.
 */
#ifndef MR_AGENT_TRANSFER_T_H
#define MR_AGENT_TRANSFER_T_H

#include "agent/copy_t.h"
#include "agent/files.h"

#include <openssl/evp.h>

#define MR_EXPORT_FORMAT "moonrig.session"
enum {
  MR_EXPORT_VERSION = 2,
  MR_FILE_CHUNK = 192 << 10,
  MR_LINE_MAX = 64 << 20, /* bytes of a line */
  MR_EXPORT_FILES = 2000,
  MR_EXPORT_WORKSPACE = 320 << 20 /* bytes of the archive: what an upload of 500 MB has room for */
};

/* import_check.c: does a line hold what it must? Else MR_E_INVALID, and err says what is wrong with it. */
struct mr_import_row {
  struct mr_log_row row; /* borrowed from the line's document */
  yyjson_val *body;
};
int mr_import_row(const struct mr_mem *m, yyjson_val *line, bool wire, int64_t now_us, int64_t last_us,
                  struct mr_import_row *out, struct mr_err *err);
/* A message that waits, in the call's arena; NULL: another input, of a turn that is over. */
int mr_import_input(struct mr_call *c, yyjson_val *line, struct mr_copy_input **out);
/* The agent's snapshot, made anew from the file's as if a client had sent it. */
int mr_import_agent(struct mr_call *c, yyjson_val *agent, struct mr_buf *out);
/* Is it the agent of a child thread? */
int mr_import_child(struct mr_call *c, yyjson_val *agent);
/* A file's line; f: its document, but for id, session and times (strings borrowed), name and sha256 as given. */
int mr_import_file(struct mr_call *c, yyjson_val *line, struct mr_file *f, struct mr_str *name,
                   struct mr_str *sha256);
/* The files among the session's resources, with the copies' ids. */
int mr_import_resources(struct mr_copy *k, yyjson_val *resources, struct mr_jw *w);

#endif
