/*
 * patience - how long an upstream may be silent. Two limits: until the first word (long: a local model may
 * read its prompt for minutes), and from byte to byte afterwards (short). Pings and comments are bytes, not
 * words: they show that the server lives, and keep a stream alive for no longer than the first limit, counted
 * from the last word. Private to this room.
 *
 * late is called once, from the drain; what it does about it is its own. Loop thread.
 */
#ifndef MR_MODEL_PATIENCE_H
#define MR_MODEL_PATIENCE_H

#include "loop/loop.h"

struct mr_patience {
  struct mr_loop *loop;
  int64_t first_us, stall_us;
  int64_t byte_us, word_us; /* when the last came */
  bool any;                 /* a word came */
  bool held;                /* we do not read: the silence is ours */
  struct mr_timer timer;
  void (*late)(struct mr_patience *p);
};

/* Starts to wait. MR_E_NOMEM. */
int mr_patience_start(struct mr_patience *p, struct mr_loop *l, int64_t first_ms, int64_t stall_ms,
                      void (*late)(struct mr_patience *p));
void mr_patience_byte(struct mr_patience *p);
void mr_patience_word(struct mr_patience *p);
void mr_patience_hold(struct mr_patience *p, bool hold);
void mr_patience_stop(struct mr_patience *p);
/* Which limit was passed: true = nothing at all came after the first word for stall; false = no word. */
bool mr_patience_stalled(const struct mr_patience *p);

#endif
