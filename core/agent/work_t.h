/*
 * work_t - the insides of the work queue: an item, and the tables of those that are live. An item is a document
 * (kind "work", parent its environment, archived when it has stopped); the live ones are in memory too, where every
 * decision is made: applied, committed against the revision that was read, then visible. A commit that fails makes an
 * item lost: it is read again before anything else happens to it.
 *
 * Leases end by the wall clock and nothing happens at that moment: an item whose lease is over reads as queued, or, if
 * it was being stopped, as stopped (mr_work_shows), and whoever touches it next finds it so. Loop thread.
 */
#ifndef MR_AGENT_WORK_T_H
#define MR_AGENT_WORK_T_H

#include "agent/doc.h"
#include "agent/work.h"

enum mr_work_state { MR_WORK_QUEUED, MR_WORK_STARTING, MR_WORK_ACTIVE, MR_WORK_STOPPING, MR_WORK_STOPPED };
enum { MR_WORK_BUCKETS = 1024, MR_WORK_PAST = 8, MR_WORK_TTL_MAX = 3600 };
enum { MR_WORK_BY_ID, MR_WORK_BY_SESSION, MR_WORK_TABLES };
static const int64_t MR_WORK_RECLAIM_US = 5000000;

struct mr_work_env;
struct mr_work {
  struct mr_work *next,
      **link; /* in its environment's line, oldest first; link NULL: it has stopped, or is no one's */
  struct mr_work *hash[MR_WORK_TABLES];
  struct mr_work *old_next; /* of those that stopped lately */
  struct mr_work_env *env;
  int64_t ws, rev;
  char id[MR_ID_LEN], environment_id[MR_ID_LEN], session_id[MR_ID_LEN];
  enum mr_work_state state;
  int64_t created_us, acked_us, started_us, beat_us, stop_asked_us, stopped_us; /* 0: not yet */
  int64_t claimed_us; /* given to a poll; 0: to none */
  int64_t lease_us;   /* wall clock: until then it is its worker's; 0: nobody's */
  int64_t ttl_s;
  char token[65];              /* SHA-256 of the bearer that the latest poll was given; "": none */
  char past[MR_WORK_PAST][65]; /* of earlier polls, newest first */
  bool again;                  /* something came to do while it was being stopped */
  char *metadata;              /* JSON; NULL: {} */
  int64_t wanted_us;           /* when something last came to do, loop clock */
  int commits;                 /* that are not over */
  bool fresh;                  /* its first commit is not over: nobody sees it */
  bool lost, reading;          /* a commit failed; it is being read again */
};

struct mr_work_poll; /* work_poll.c */
struct mr_work_env {
  struct mr_work_env *next;
  struct mr_domain *d;
  int64_t ws;
  char id[MR_ID_LEN];
  bool known; /* it is there and self-hosted */
  struct mr_work *first, **last;
  struct mr_work_poll *polls, **polls_tail; /* that wait, in order */
  struct mr_work_seen *seen;                /* workers that polled (work_poll.c) */
  int nseen;
};

struct mr_works {
  bool loaded;
  struct mr_work_env *envs;
  struct mr_work *table[MR_WORK_TABLES][MR_WORK_BUCKETS];
  struct mr_work *old, **old_tail; /* stopped: their tokens still are understood for a while */
  int nold;
};

/* ---- work.c ---- */
/* Made when it is new; NULL: no memory. */
struct mr_work_env *mr_work_env(struct mr_domain *d, int64_t ws, struct mr_str id);
/* An item that is live, or stopped lately; a session's, live. NULL: none. */
struct mr_work *mr_work_find(struct mr_domain *d, int64_t ws, struct mr_str id);
struct mr_work *mr_work_of_session(struct mr_domain *d, int64_t ws, struct mr_str session_id);
/* A new bearer of the item, which the latest one is not any more: "sk-ant-req-...", in the arena. p NULL: no memory. */
struct mr_str mr_work_token(struct mr_domain *d, struct mr_work *w, struct mr_arena *a);
/* The event streams of its bearers end: it stopped, or has another. */
void mr_work_token_over(struct mr_domain *d, const struct mr_work *w);
/* Whose bearer is this? past: of an earlier poll. NULL: nobody's. */
struct mr_work *mr_work_of_token(struct mr_domain *d, int64_t ws, struct mr_str token, bool *past);
void mr_work_over(struct mr_domain *d, struct mr_work *w, int code); /* a commit of mr_work_put is */
/* A new item, queued, not seen before its commit is over. NULL: no memory, or no randomness. */
struct mr_work *mr_work_new(struct mr_domain *d, struct mr_commit *cm, int64_t ws, struct mr_str environment_id,
                            struct mr_str session_id);
/* It stops now, and what came to do meanwhile gets an item of its own: both become part of cm. */
void mr_work_stop(struct mr_domain *d, struct mr_work *w, struct mr_commit *cm, struct mr_works_in *in);
void mr_work_reread(struct mr_domain *d, struct mr_work *w); /* a lost one, unless it is being read already */
/* Its items are forgotten: they will not be there. */
void mr_work_drop_env(struct mr_domain *d, struct mr_work_env *e);

/* ---- work_doc.c ---- */
enum mr_work_state mr_work_shows(const struct mr_work *w, int64_t now_us);
const char *mr_work_state_name(enum mr_work_state st);
/* From its document; strings are copied. MR_E_INTERNAL, MR_E_NOMEM. */
int mr_work_read(struct mr_domain *d, struct mr_work *w, int64_t ws, const struct mr_doc_row *r);
void mr_work_clear(struct mr_domain *d, struct mr_work *w); /* what it holds */
/* The object that clients see; secret: JSON, "null" but for a poll. */
void mr_work_wire(struct mr_domain *d, const struct mr_work *w, const char *secret, struct mr_buf *out);
/* The item as it is now becomes its document in cm. One more commit of it is under way: mr_work_over ends it. */
void mr_work_put(struct mr_domain *d, struct mr_work *w, struct mr_commit *cm);

/* ---- work_poll.c ---- */
void mr_work_offer(struct mr_domain *d, struct mr_work_env *e); /* there may be something for polls that wait */
void mr_work_polls_end(struct mr_domain *d, struct mr_work_env *e);
void mr_work_env_free(struct mr_domain *d, struct mr_work_env *e);

/* ---- work_ops.c: operations on one environment, or one item ---- */
struct mr_work_op {
  struct mr_call *c;
  struct mr_work_env *env;
  struct mr_work *w;    /* of an operation on one item */
  struct mr_work apart; /* w, when it is not in memory */
  void (*fn)(struct mr_work_op *op);
  struct mr_works_in in;
};
/* fn when the environment of the path (path[0]) is there and self-hosted; an answer else. */
void mr_work_op_begin(struct mr_call *c, void (*fn)(struct mr_work_op *op));
/* Submits, and answers with what c->out holds. */
void mr_work_op_commit(struct mr_work_op *op, struct mr_commit **cm, const char *label);

#endif
