/*
 * ops - every operation of the system, once. ops.def has a line for each; from it come the HTTP routes,
 * mr_call by name, the Lua tables and the test against the official SDK. Shapes (shape.h) say what an
 * input may hold; one walk checks it and names the field.
 *
 * What it is not for: carrying an operation out, that is agent/; framing, that is api/ and host/.
 * A face makes a call here, sets its callbacks, and starts it:
 *   mr_op_call_new -> fill who, in or path, face, done, ... -> mr_op_start. Loop thread.
 */
#ifndef MR_OPS_OPS_H
#define MR_OPS_OPS_H

#include "agent/domain.h"
#include "ops/shape.h"

enum mr_op_kind {
  MR_OP_JSON,    /* JSON in, JSON out */
  MR_OP_EVENTS,  /* a stream of events */
  MR_OP_BODY_IN, /* an upload (multipart over HTTP) */
  MR_OP_BODY_OUT /* a download */
};
enum {
  MR_OP_LIST = 1,   /* has limit and page */
  MR_OP_TODO = 2,   /* in the SDKs, not implemented yet: 501 */
  MR_OP_PASS = 4,   /* over HTTP the body goes through as it is (api/pass.c); elsewhere like any other */
  MR_OP_SECRET = 8, /* the answer holds a secret that is kept nowhere */
  /* 16 to 64: to whom it is open, MR_BY_* of agent/domain.h */
  MR_OP_QUERY = 128 /* over HTTP its input is the query, also of a POST */
};

struct mr_opdef {
  const char *name; /* "sessions.events.send" */
  const char *verb; /* "POST" */
  const char *path; /* "/v1/sessions/{session_id}/events" */
  enum mr_op_kind kind;
  unsigned flags;
  const char *beta;               /* what anthropic-beta must hold over HTTP; NULL = nothing */
  const struct mr_shape *in;      /* of body or query */
  void (*run)(struct mr_call *c); /* NULL with MR_OP_TODO */
};

int mr_op_count(void);
const struct mr_opdef *mr_op_at(int i);                /* NULL past the end */
const struct mr_opdef *mr_op_find(struct mr_str name); /* by name, or NULL */
/* Route of an HTTP request. path is raw (percent-coded); parameters come decoded in the arena. NULL: no
 * such path, or a parameter that is not UTF-8 or has a slash; *allowed then says whether another verb would
 * fit (405). HEAD counts as GET. */
const struct mr_opdef *mr_op_route(struct mr_arena *a, struct mr_str verb, struct mr_str path,
                                   struct mr_str params[MR_PATH_MAX], bool *allowed);

/* A call for a face, with an arena of its own; freed by mr_op_call_free, from done or later. NULL: out of
 * memory. */
struct mr_call *mr_op_call_new(struct mr_domain *d, const struct mr_mem *m);
void mr_op_call_free(struct mr_call **c);
/* Checks c->in (NULL counts as the empty object) by the shape and runs the operation. Path parameters may
 * stand in c->path, or, when those are empty, in c->in by their names. done comes in every case, never
 * inside. */
void mr_op_start(struct mr_call *c, const struct mr_opdef *op);
/* Query string to an input object by the shape's kinds: "limit=5&statuses[]=a&created_at[gte]=.."; arrays
 * also as repeated keys and as "a,b". The document is the call's. What the shape does not know is ignored. */
int mr_op_query(struct mr_call *c, const struct mr_opdef *op, struct mr_str query, struct mr_err *err);
/* Takes over a parsed document as the call's input; freed with the call. */
void mr_op_input(struct mr_call *c, yyjson_doc *doc);

#endif
