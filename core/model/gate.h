/*
 * gate - the limits of one provider: how many requests run at a time, how many begin in a minute, how many
 * tokens flow in a minute, and a pause that an upstream asked for (429 with retry-after). Who may not go yet
 * waits in line, first come first served; the line is bounded, and so is the time in it. Private to this room.
 *
 * Invariant: whoever was let in leaves once; a waiter is in the line or was told, never both. A minute is
 * any 60 seconds, not one of the clock: never more than the limit of requests begin within one. Tokens are
 * known only afterwards, so they are a level that drains: over the limit nobody starts until it sank.
 */
#ifndef MR_MODEL_GATE_H
#define MR_MODEL_GATE_H

#include "base/err.h"
#include "loop/loop.h"

struct mr_gate_limits {
  int concurrency; /* 0 = no limit */
  int per_minute;  /* requests; 0 = no limit */
  int64_t tokens;  /* per minute; 0 = no limit */
  int queue;       /* waiters at most */
  int64_t wait_ms; /* the longest wait */
};

/* Embed it. go: let in (MR_OK), waited too long (MR_E_TIMEOUT), or the gate is closed (MR_E_CLOSED). */
struct mr_waiter {
  struct mr_waiter *next, **link; /* link NULL when not in line */
  int64_t until_us;
  void (*go)(struct mr_waiter *w, int code);
};

struct mr_gate {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  struct mr_gate_limits l;
  int inside, waiting;
  struct mr_waiter *first, **last;
  int64_t paused_us; /* until then nobody starts */
  int64_t *starts;   /* ring of the last per_minute starts; -1: none */
  int start_at;
  int64_t level, level_us; /* tokens not drained yet, as of level_us */
  struct mr_timer timer;
  struct mr_ready ready;
};

int mr_gate_init(struct mr_gate *g, struct mr_loop *loop, const struct mr_gate_limits *l, struct mr_err *err);
void mr_gate_free(struct mr_gate *g); /* nobody waits or is inside any more */
/* MR_OK: inside, go on. MR_MORE: in line, go comes from the drain. MR_E_FULL: the line is full.
 * MR_E_LIMIT: the pause outlasts the longest wait. */
int mr_gate_enter(struct mr_gate *g, struct mr_waiter *w);
void mr_gate_drop(struct mr_gate *g,
                  struct mr_waiter *w); /* out of the line, untold; NULL-safe when not in it */
void mr_gate_leave(struct mr_gate *g, int64_t tokens);
void mr_gate_pause(struct mr_gate *g, int64_t ms);
int64_t mr_gate_paused_ms(const struct mr_gate *g); /* what is left of a pause */
void mr_gate_close(struct mr_gate *g);              /* everybody in line is told MR_E_CLOSED, now */

#endif
