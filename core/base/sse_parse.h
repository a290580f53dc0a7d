/*
 * sse_parse - incremental parser for text/event-stream (WHATWG), used on model streams. Feed bytes as
 * they come; fn is called once a frame. Bounded: a frame over max_frame bytes is MR_E_TOO_LARGE.
 */
#ifndef MR_BASE_SSE_PARSE_H
#define MR_BASE_SSE_PARSE_H

#include "base/buf.h"

struct mr_sse_parser {
  struct mr_buf line, data, event; /* the partial line; data and event name of the open frame */
  size_t max_frame;
  bool skip_lf, any, bom_done;
  /* event: "" when the frame names none. Strings are borrowed. Return nonzero to stop with it. */
  int (*fn)(void *ud, struct mr_str event, struct mr_str data);
  void *ud;
};

void mr_sse_parser_init(struct mr_sse_parser *p, const struct mr_mem *m, size_t max_frame,
                        int (*fn)(void *ud, struct mr_str event, struct mr_str data), void *ud);
int mr_sse_parser_feed(struct mr_sse_parser *p, struct mr_str bytes); /* MR_OK, MR_E*, or fn's value */
void mr_sse_parser_free(struct mr_sse_parser *p);

#endif
