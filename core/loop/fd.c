/* fd.c - see fd.h. libevent is asked only for what poll(2) says is not readable yet: epoll refuses plain files, and
 * libevent would complain about that on stderr. */
#include "loop/fd.h"

#include <event2/event.h>
#include <poll.h>

static void forget(struct mr_fd_wait *w)
{
  if (w->ev) event_free(w->ev);
  w->ev = NULL;
}

static void on_ready(struct mr_ready *r)
{
  struct mr_fd_wait *w = MR_OF(r, struct mr_fd_wait, ready);

  forget(w);
  w->fn(w);
}

static void on_event(evutil_socket_t fd, short what, void *ud)
{
  struct mr_fd_wait *w = ud;

  (void)fd;
  (void)what;
  mr_ready_post(w->loop, &w->ready);
}

void mr_fd_init(struct mr_fd_wait *w, void (*fn)(struct mr_fd_wait *w))
{
  *w = (struct mr_fd_wait){.fn = fn};
  mr_ready_init(&w->ready, on_ready);
}

int mr_fd_wait(struct mr_loop *l, struct mr_fd_wait *w, int fd)
{
  struct pollfd p = {.fd = fd, .events = POLLIN};

  w->loop = l;
  if (poll(&p, 1, 0) > 0) {
    if (p.revents & POLLNVAL) return MR_E_INVALID;
    mr_ready_post(l, &w->ready);
    return MR_OK;
  }
  w->ev = event_new(mr_loop_base(l), fd, EV_READ, on_event, w);
  if (w->ev && event_add(w->ev, NULL) == 0) return MR_OK;
  forget(w);
  return MR_E_NOMEM;
}

void mr_fd_cancel(struct mr_fd_wait *w)
{
  forget(w);
  if (w->loop) mr_ready_cancel(w->loop, &w->ready);
}
