/*
 * sse - event streams out, on http_server. Frames queued during one loop pass leave in one write; a
 * reader that falls behind its bound is cut (closed() tells) and catches up by list or Last-Event-ID;
 * it never slows others. Streams write with send() first and keep a buffer only after EAGAIN.
 * Loop thread.
 */
#ifndef MR_NET_SSE_H
#define MR_NET_SSE_H

#include "net/http_server.h"

struct mr_sse;
/* Sends the head (200, text/event-stream, no-cache, + headers) at once. ping_ms of silence sends
 * "event: ping" frames (0 = 15,000). The stream frees itself; closed runs once (ud of mr_sse_open).
 * MR_E_NOMEM: nothing was sent, the exchange is still the handler's. */
int mr_sse_open(struct mr_http_x *x, const struct mr_str *headers, int nheaders, int64_t ping_ms,
                void (*closed)(void *ud, struct mr_sse *s), void *ud, struct mr_sse **out);
/* One frame: "event: name", "id: pos" when pos > 0, "data: json". MR_OK; MR_MORE: taken, but the reader
 * is slow (over 256 KiB wait): who has a choice goes on at drained; MR_E_CLOSED when cut. json has no
 * line breaks. */
int mr_sse_event(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json);
/* drained runs after mr_sse_event said MR_MORE, once the reader has caught up; with the ud of open. */
void mr_sse_on_drained(struct mr_sse *s, void (*drained)(void *ud, struct mr_sse *s));
void mr_sse_end(struct mr_sse *s); /* flushes, then ends the reply properly */

#endif
