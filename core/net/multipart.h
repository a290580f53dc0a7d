/* multipart - incremental multipart/form-data parser (RFC 7578) for uploads: parts are streamed, only
 * part headers are kept (at most 8 KiB a part, 1,000 parts). */
#ifndef MR_NET_MULTIPART_H
#define MR_NET_MULTIPART_H

#include "base/buf.h"
#include "base/err.h"

struct mr_multipart;
struct mr_multipart_cbs {
  /* A part begins. filename/type: p NULL when absent. Return nonzero to stop. */
  int (*part)(void *ud, struct mr_str name, struct mr_str filename, struct mr_str type);
  int (*data)(void *ud, struct mr_str bytes);
  int (*end)(void *ud); /* of the part */
};
/* content_type: the request's header with its boundary. MR_E_INVALID when there is none. */
int mr_multipart_new(struct mr_multipart **out, const struct mr_mem *m, struct mr_str content_type,
                     const struct mr_multipart_cbs *cbs, void *ud, struct mr_err *err);
int mr_multipart_feed(struct mr_multipart *p, struct mr_str bytes, struct mr_err *err);
int mr_multipart_finish(struct mr_multipart *p, struct mr_err *err); /* MR_E_INVALID: cut short */
void mr_multipart_free(struct mr_multipart **p);

#endif
