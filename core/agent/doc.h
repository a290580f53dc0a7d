/* doc - documents: the steps that agents, environments and files share on top of the store. */
#ifndef MR_AGENT_DOC_H
#define MR_AGENT_DOC_H

#include "agent/agent_t.h"

/* A change of one document: read, made again by make, committed against the revision that was read, and made
 * once more when somebody was faster (at most 100 times). The response is the new body. */
struct mr_doc_change {
  struct mr_call *c;
  const char *kind;
  struct mr_str id;
  /* Fills next (id, kind, rev set; created_us kept) from old. MR_OK; MR_MORE = nothing changes, answer the
   * old body; or an error in c->err. version_row: keep the new body as a version too. */
  int (*make)(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body, struct mr_doc_row *next);
  bool version_row;
  void (*after)(struct mr_doc_change *p); /* the change is durable; before the answer. May be NULL */
  int tries;
  struct mr_buf body; /* make writes the new body here */
};
void mr_doc_change(struct mr_doc_change *p);

/* Answers with the body of a document, 404 when unknown. */
void mr_doc_answer(struct mr_call *c, const char *kind, struct mr_str id);
/* Answers a page of documents' bodies: {"data":[..],"next_page":..}. */
void mr_doc_list(struct mr_call *c, const char *kind, int dflt, int max);
/* Commits a new document (c->out holds its body) and answers. version_row as above. */
void mr_doc_create(struct mr_call *c, struct mr_doc_row *row, bool version_row);
/* One member of a body replaced (or added at the end) by JSON text, the rest as it was. */
void mr_doc_archive(struct mr_doc_change *p, yyjson_val *body, int64_t at_us); /* "archived_at" set */
void mr_doc_replace(struct mr_buf *out, yyjson_val *body, const char *key, struct mr_str json);

#endif
