/*
 * upstream - one streaming request to an HTTP provider: what anthropic and openai share. It sends the
 * parts that the provider laid out, feeds the event stream to the provider's frame function, and turns
 * the end, good or bad, into one struct mr_model_reply. Private to this room.
 *
 * Invariant: done is called once, from the drain, when the HTTP request is over; only then are the
 * borrowed fragments free. A cancelled call calls nothing but done.
 */
#ifndef MR_MODEL_UPSTREAM_H
#define MR_MODEL_UPSTREAM_H

#include "base/json.h"
#include "base/sse_parse.h"
#include "model/failure.h"
#include "model/patience.h"
#include "model/providers.h"
#include "model/reply.h"

enum { MR_UP_HEADERS = 8, MR_UP_FRAME_MAX = 33 << 20 };

/* A provider's self: where it asks, and how. */
struct mr_upstream {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  struct mr_http_client *http;
  char *name;                /* "anthropic": starts every message */
  char *url, *key, *ca_file; /* key and ca_file may be NULL */
  bool cache, cache_1h;
  bool home; /* the maker's own service, not one that speaks like it */
  int64_t connect_ms, first_ms, stall_ms, total_ms;
};

struct mr_up_call {
  struct mr_model_call call; /* first */
  struct mr_upstream *up;    /* not to be touched after done: it may be gone */
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_http_out *out;
  struct mr_str *parts; /* the body; fragments are borrowed from the caller */
  int nparts, parts_cap;
  struct mr_buf own; /* the parts that we wrote; complete before it is referred to */
  struct mr_buf header[MR_UP_HEADERS];
  int nheaders;
  struct mr_sse_parser sse;
  struct mr_reply_build rb;
  struct mr_buf refusal; /* start of the body of a response that is no stream */
  struct mr_buf stop_reason, stop_details;
  struct mr_usage usage;
  struct mr_failure failure;
  int64_t wait_ms;        /* retry-after of the response */
  struct mr_timer linger; /* after the last frame: how long the connection may stay open */
  int status;             /* HTTP; 0 before the head */
  bool streaming;         /* a 200 with an event stream */
  bool complete;          /* enough came to make a reply, should the response end here */
  bool finished;          /* the stream said that it is over */
  bool cancelled, timed_out;
  struct mr_patience patience;
  /* The provider's reader of frames; data is NULL for the frame "[DONE]". */
  int (*frame)(struct mr_up_call *c, struct mr_str event, yyjson_val *data);
  void *extra; /* the provider's, freed with the call */
};

/* Fills a self from the options. tail is appended to the base URL ("/v1/messages"); always_v1: the path has /v1
 * whatever the base is, else only when the base has no path of its own. */
struct mr_up_kind {
  const char *name, *default_base, *tail, *key_variable;
  bool always_v1;
};
int mr_upstream_init(struct mr_upstream *u, const struct mr_provider_opts *o, const struct mr_up_kind *k,
                     struct mr_err *err);
void mr_upstream_clear(struct mr_upstream *u);

struct mr_up_call *mr_up_new(struct mr_upstream *u, const struct mr_provider_vtable *v,
                             const struct mr_model_cbs *cbs, void *ud, struct mr_err *err);
void mr_up_header(struct mr_up_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Adds a body part, borrowed until done. Ignored when out of memory, which mr_up_start reports. */
void mr_up_part(struct mr_up_call *c, struct mr_str s);
void mr_up_drop(struct mr_up_call *c); /* frees a call that was not started */
/* Sends it. On failure the call is freed and nothing is called. */
int mr_up_start(struct mr_up_call *c, struct mr_err *err);
void mr_up_cancel(void *self, struct mr_model_call *call); /* a vtable's cancel */
/* For frame functions: fail the call with this class (returns the code to return). */
int mr_up_fail(struct mr_up_call *c, enum mr_model_status st, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int mr_up_fail_from(struct mr_up_call *c, yyjson_val *error_holder); /* {"error":{..}} in a stream */
int mr_up_gather(struct mr_up_call *c, int rc); /* passes MR_OK; explains what reply.h returns */
void mr_up_finish(struct mr_up_call *c);        /* the stream is complete */

#endif
