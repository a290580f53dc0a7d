/* resources - files given to a session: copies of their own, mounted read-only (API: session resources). */
#ifndef MR_AGENT_RESOURCES_H
#define MR_AGENT_RESOURCES_H

#include "agent/session_t.h"

struct mr_resource {
  char id[MR_ID_LEN];
  struct mr_str file_id; /* of the session's copy */
  struct mr_str mount_path;
  int64_t created_us;
  struct mr_doc_row doc; /* the copy's document, for the commit */
};
struct mr_resources {
  struct mr_resource *v;
  int n;
  /* while copying */
  struct mr_call *c;
  yyjson_val *list;
  struct mr_session *onto; /* the session that one is added to; NULL: it is being made */
  struct mr_str session_id;
  void (*fn)(void *ud, int code);
  void *ud;
};

/* Copies each file of list (params of the API; NULL or empty: none) one after the other; r->onto was set by
 * the caller, or NULL. fn once, from the
 * drain; on failure c->err is set and what was copied is dropped by mr_resources_drop. */
void mr_resources_copy(struct mr_call *c, struct mr_resources *r, yyjson_val *list, struct mr_str session_id,
                       void (*fn)(void *ud, int code), void *ud);
/* What a session in a self-hosted environment may be given: memory stores alone (API: resources §8.9). One type, a list
 * of new resources. */
int mr_resource_check_own(struct mr_call *c, struct mr_str type, const char *field);
int mr_resources_check_own(struct mr_call *c, yyjson_val *list);
void mr_resources_commit(const struct mr_resources *r, struct mr_commit *cm); /* the copies' documents */
void mr_resources_write(const struct mr_resources *r, struct mr_jw *w);       /* an array of resources */
void mr_resources_drop(struct mr_domain *d, struct mr_resources *r);          /* removes copied blobs */
/* Mount path of a file: rooted under /mnt/session/uploads; in the arena, p NULL and err when refused. */
struct mr_str mr_resource_path(struct mr_call *c, struct mr_str given, struct mr_str file_id,
                               const char *field);

#endif
