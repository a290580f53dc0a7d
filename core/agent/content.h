/*
 * content - what the files of the agent room that make, check and send content blocks share: kinds of media, and the
 * files (Files API) that blocks refer to.
 */
#ifndef MR_AGENT_CONTENT_H
#define MR_AGENT_CONTENT_H

#include "agent/agent_t.h"

/* ---- content.c: media ---- */

enum {
  MR_IMAGE_MAX = 3932160, /* bytes of an image: models' APIs take 5 MiB of base64 */
  MR_IMAGE_BASE64_MAX = 5 << 20,
  MR_MESSAGES_MAX =
      31000000, /* bytes of all messages of a request, files in their place: a model's API takes 32 MB,
                                 and system and tools need room too */
  MR_SOURCE_MAX = 30000000 /* bytes of one source, as base64 or as text */
};
enum mr_media { MR_MEDIA_OTHER, MR_MEDIA_IMAGE, MR_MEDIA_PDF, MR_MEDIA_TEXT };
enum mr_media mr_media_of(struct mr_str media_type); /* its parameters do not count */
const char *mr_media_image(struct mr_str bytes);     /* the type that the first bytes say, or NULL */
bool mr_media_pdf(struct mr_str bytes);
/* The block with this source (JSON text), else as it is. */
void mr_content_sourced(struct mr_buf *out, yyjson_val *block, struct mr_str source);
void mr_content_text_source(struct mr_buf *out, struct mr_str text); /* a document's source: plain text */

/* ---- content_files.c: the files that blocks of events refer to ---- */

struct mr_file_ref {
  struct mr_str id, media_type, session_id; /* session_id: the only one that may use it, or empty */
  int64_t size;
};
/* What a file's document says. MR_E_NOTFOUND: it has expired, or is of another session than session_id. */
int mr_file_ref_read(const struct mr_domain *d, struct mr_str body, struct mr_str session_id,
                     struct mr_file_ref *out, yyjson_doc **doc /* which has its strings */);
struct mr_file_refs {
  struct mr_file_ref *v;
  int n;
};
/* The id of the file that is the block's source, else p NULL. */
struct mr_str mr_content_file(yyjson_val *block);
/* Reads what is known of the files that content blocks of events (any JSON) refer to, those that session_id (empty:
 * one about to be made) may use: fn, once, at once or from the drain. out is valid as long as c; an id that is not in
 * it is that of no file. On failure c->err says why. */
void mr_file_refs_read(struct mr_call *c, yyjson_val *events, struct mr_str session_id,
                       struct mr_file_refs *out, void (*fn)(void *ud, int code), void *ud);

/* Checks an array of content blocks; allowed is a set of MR_BLOCK_*. field: for messages, e.g.
 * "events[0].content". files NULL: files are not looked at. */
enum { MR_BLOCK_TEXT = 1, MR_BLOCK_IMAGE = 2, MR_BLOCK_DOCUMENT = 4, MR_BLOCK_SEARCH = 8, MR_BLOCK_ALL = 15 };
int mr_content_check(const struct mr_mem *m, yyjson_val *arr, unsigned allowed,
                     const struct mr_file_refs *files, const char *field, struct mr_err *err);

/* May this JSON text have a block that refers to a file? Never a wrong no. */
bool mr_content_names_file(struct mr_str json);

#endif
