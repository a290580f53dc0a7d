/*
 * sse.c - event streams on an exchange; see sse.h. Frames of one loop pass gather in a buffer that exists
 * only meanwhile, and leave together once the pass is over; an idle stream owns no buffer.
 */
#include "net/sse.h"

enum { GATHER_MAX = 8 << 20 };

struct mr_sse {
  struct mr_http_x *x;
  struct mr_loop *l;
  const struct mr_mem *mem;
  struct mr_buf out;
  struct mr_ready flush;
  struct mr_timer ping;
  int64_t ping_us;
  bool cut, ending;
  void (*closed)(void *ud, struct mr_sse *s);
  void *ud;
};

static void on_flush(struct mr_ready *r)
{
  struct mr_sse *s = MR_OF(r, struct mr_sse, flush);

  if (!s->cut && s->out.n > 0 && mr_http_write(s->x, mr_buf_get(&s->out)) == MR_E_CLOSED)
    s->cut = true;
  mr_buf_free(&s->out);
  if (s->cut)
    mr_http_cut(s->x);
  else if (s->ending)
    mr_http_end(s->x);
  else
    mr_timer_set(s->l, &s->ping, s->ping_us);
}

static void on_ping(struct mr_timer *t)
{
  struct mr_sse *s = MR_OF(t, struct mr_sse, ping);
  mr_sse_event(s, MR_S("ping"), 0, MR_S("{\"type\":\"ping\"}"));
}

static void on_closed(void *ud, struct mr_http_x *x, bool complete)
{
  struct mr_sse *s = ud;

  (void)x;
  (void)complete;
  mr_ready_cancel(s->l, &s->flush);
  mr_timer_cancel(s->l, &s->ping);
  mr_buf_free(&s->out);
  if (s->closed)
    s->closed(s->ud, s);
  mr_mem_free(s->mem, s);
}

int mr_sse_open(struct mr_http_x *x, const struct mr_str *headers, int nheaders, int64_t ping_ms,
                void (*closed)(void *ud, struct mr_sse *s), void *ud, struct mr_sse **out)
{
  static const struct mr_http_x_cbs cbs = {.closed = on_closed};
  struct mr_arena *a = mr_http_arena(x);
  const struct mr_mem *mem = mr_arena_mem(a);
  struct mr_str *all = mr_arena_alloc(a, ((size_t)nheaders + 3) * sizeof *all);
  struct mr_sse *s = mr_mem_zalloc(mem, sizeof *s);

  *out = NULL;
  if (!all || !s) {
    mr_mem_free(mem, s);
    return MR_E_NOMEM;
  }
  *s = (struct mr_sse){.x = x, .l = mr_http_loop(x), .mem = mem, .closed = closed, .ud = ud};
  s->ping_us = (ping_ms ? ping_ms : 15000) * 1000;
  mr_buf_init(&s->out, mem, GATHER_MAX);
  mr_ready_init(&s->flush, on_flush);
  mr_timer_init(&s->ping, on_ping);
  for (int i = 0; i < nheaders; i++)
    all[i] = headers[i];
  all[nheaders] = MR_S("content-type: text/event-stream; charset=utf-8");
  all[nheaders + 1] = MR_S("cache-control: no-cache");
  all[nheaders + 2] = MR_S("x-accel-buffering: no");
  mr_http_set(x, &cbs, s);
  mr_http_begin(x, 200, all, nheaders + 3, -1);
  mr_timer_set(s->l, &s->ping, s->ping_us);
  *out = s;
  return MR_OK;
}

int mr_sse_event(struct mr_sse *s, struct mr_str name, int64_t pos, struct mr_str json)
{
  if (s->cut || s->ending)
    return MR_E_CLOSED;
  mr_buf_c(&s->out, "event: ");
  mr_buf_str(&s->out, name);
  if (pos > 0)
    mr_buf_printf(&s->out, "\nid: %lld", (long long)pos);
  mr_buf_c(&s->out, "\ndata: ");
  mr_buf_str(&s->out, json);
  mr_buf_c(&s->out, "\n\n");
  if (s->out.failed)
    s->cut = true;
  mr_ready_post_last(s->l, &s->flush);
  return s->cut ? MR_E_CLOSED : MR_OK;
}

void mr_sse_end(struct mr_sse *s)
{
  s->ending = true;
  mr_ready_post_last(s->l, &s->flush);
}
