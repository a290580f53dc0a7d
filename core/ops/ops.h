/*
 * ops - every operation of the system, once. ops.def has a line for each; from it come the HTTP routes,
 * mr_call by name, the Lua tables and the test against the official SDK. Shapes (shapes.def) say what an
 * input may hold; one decoder checks it, naming the field.
 *
 * A face makes a call here, sets its callbacks, and starts it:
 *   mr_op_call_new -> fill who, face, done, ... -> mr_op_start. The operation's run function is in agent/.
 */
#ifndef MR_OPS_OPS_H
#define MR_OPS_OPS_H

#include "agent/domain.h"

enum mr_op_kind {
  MR_OP_JSON,      /* JSON in, JSON out */
  MR_OP_EVENTS,    /* a stream of events */
  MR_OP_BODY_IN,   /* an upload (multipart over HTTP) */
  MR_OP_BODY_OUT   /* a download */
};
enum { MR_OP_LIST = 1,      /* has limit and page */
       MR_OP_BETA_AGENTS = 2, /* needs anthropic-beta: managed-agents-2026-04-01 */
       MR_OP_BETA_MEMORY = 4, /* needs agent-memory-2026-07-22 or managed-agents-2026-04-01, not both */
       MR_OP_TODO = 8,      /* in the SDK, not implemented yet: 501 */
       MR_OP_BETA_OTHER = 16 };

struct mr_shape;            /* of an input object: shape.h */
struct mr_opdef {
  const char *name;         /* "sessions.events.send" */
  const char *verb;         /* "POST" */
  const char *path;         /* "/v1/sessions/{session_id}/events" */
  enum mr_op_kind kind;
  unsigned flags;
  const struct mr_shape *in;/* of body or query; NULL = no fields */
  void (*run)(struct mr_call *c); /* NULL with MR_OP_TODO */
};

int mr_op_count(void);
const struct mr_opdef *mr_op_at(int i);                /* NULL past the end */
const struct mr_opdef *mr_op_find(struct mr_str name); /* by name, or NULL */
/* Route of an HTTP request. path is raw (percent-coded); parameters come decoded in the arena. NULL: no
 * such path; *allowed then says whether another verb would fit (405). HEAD counts as GET. */
const struct mr_opdef *mr_op_route(struct mr_arena *a, struct mr_str verb, struct mr_str path,
                                   struct mr_str params[MR_PATH_MAX], bool *allowed);

/* A call of op for a face; arena is made here, freed by mr_op_call_free. NULL: out of memory. */
struct mr_call *mr_op_call_new(struct mr_domain *d, const struct mr_sys *sys);
void mr_op_call_free(struct mr_call **c);
/* Checks c->in (or the empty object) by the shape and runs the operation. Path parameters may stand in
 * c->path, or, when those are empty, in c->in by their names. done comes in every case, never inside. */
void mr_op_start(struct mr_call *c, const struct mr_opdef *op);
/* Query string to an input object by the shape's kinds: "limit=5&statuses[]=a&created_at[gte]=.." */
int mr_op_query(struct mr_call *c, const struct mr_opdef *op, struct mr_str query, struct mr_err *err);

#endif
