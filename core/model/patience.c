/*
 * patience - see patience.h. The timer is not moved with each byte (streams have thousands): when it fires,
 * what is left is counted from the last byte and word, and it is set again. Loop thread.
 */
#include "model/patience.h"

static int64_t left_us(const struct mr_patience *p)
{
  int64_t now = mr_loop_now_us(p->loop), word = p->word_us + p->first_us - now,
          byte = p->byte_us + p->stall_us - now;

  return p->any && byte < word ? byte : word;
}

static void on_timer(struct mr_timer *t)
{
  struct mr_patience *p = MR_OF(t, struct mr_patience, timer);
  int64_t left = p->held ? p->stall_us : left_us(p);

  if (left > 0)
    mr_timer_set(p->loop, t, left);
  else
    p->late(p);
}

int mr_patience_start(struct mr_patience *p, struct mr_loop *l, int64_t first_ms, int64_t stall_ms,
                      void (*late)(struct mr_patience *p))
{
  int64_t now = mr_loop_now_us(l);

  *p = (struct mr_patience){.loop = l, .first_us = first_ms * 1000, .stall_us = stall_ms * 1000, .late = late};
  p->byte_us = p->word_us = now;
  mr_timer_init(&p->timer, on_timer);
  return mr_timer_set(l, &p->timer, p->first_us);
}

void mr_patience_byte(struct mr_patience *p)
{
  p->byte_us = mr_loop_now_us(p->loop);
}

void mr_patience_word(struct mr_patience *p)
{
  p->word_us = p->byte_us;
  if (!p->any) mr_timer_set(p->loop, &p->timer, p->stall_us); /* the shorter limit holds from here */
  p->any = true;
}

void mr_patience_hold(struct mr_patience *p, bool hold)
{
  p->held = hold;
  if (hold) return;
  p->byte_us = mr_loop_now_us(p->loop);
  p->word_us = p->byte_us;
}

void mr_patience_stop(struct mr_patience *p)
{
  if (p->loop) mr_timer_cancel(p->loop, &p->timer);
}

bool mr_patience_stalled(const struct mr_patience *p)
{
  return p->any && mr_loop_now_us(p->loop) - p->byte_us >= p->stall_us;
}
