/* route_t - one HTTP request to a route of the host: shared by route.c (the loop's side, registering and handing out)
 * and route_web.c (what the host reads and answers). */
#ifndef MR_HOST_ROUTE_T_H
#define MR_HOST_ROUTE_T_H

#include "host/host_t.h"

enum {
  MR_WEB_MORE = 256 << 10,  /* waiting bytes above which a writer is to wait */
  MR_WEB_OUT_MAX = 4 << 20, /* for one that does not */
  MR_WEB_PIECE_MAX = 64 << 20,
  MR_WEB_HEAD_MAX = 64 << 10,
  MR_WEB_PARAMS = 8
};

struct mr_route_reg { /* what a registration is on the loop; the table of api/ owns it */
  struct mr_runtime *rt;
  void (*run)(void *ud, struct mr_web *w);
  void (*closed)(void *ud, struct mr_web *w);
  void *ud;
};

struct mr_web {
  struct mr_given g;
  struct mr_route_reg reg; /* as it was when the request was accepted */
  /* the request; does not change */
  char *text, *body;
  size_t body_n;
  struct mr_str method, path, query, headers, remote, pname[MR_WEB_PARAMS], pvalue[MR_WEB_PARAMS];
  int nparams;
  /* loop */
  struct mr_api_web *x;              /* NULL once it is over */
  bool begun, ending, waits, let_go; /* let_go: of the loop's reference */

  pthread_mutex_t lock; /* all below */
  int status;           /* 0: not started */
  int64_t length, written;
  struct mr_buf head; /* lines, each followed by a line feed */
  struct mr_buf out;
  bool closed, ended, broken; /* ended, broken: by the host */
  bool choked;                /* as waits */
  bool wanted;                /* drained is due */
  void (*drained)(void *ud);
  void *drained_ud;
  bool flow_posted, drain_queued;
  struct mr_post flow;
  struct mr_entry drain;
};

#endif
