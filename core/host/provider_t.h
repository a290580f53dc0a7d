/* provider_t - a model played by the host, and a request to it: shared by provider.c (the loop's side and
 * handing out) and provider_reply.c (the host's answers). */
#ifndef MR_HOST_PROVIDER_T_H
#define MR_HOST_PROVIDER_T_H

#include "host/host_t.h"

enum { MR_DELTA_MAX = 16 << 20 }; /* streamed text that the loop has not taken yet */

struct mr_player {
  struct mr_player *next;
  char *name;
  struct mr_runtime *rt;
  struct mr_provider_vtable v;
  /* the registration; the lock */
  bool registered;
  void (*run)(void *ud, struct mr_model_use *use);
  void (*cancel)(void *ud, struct mr_model_use *use);
  void *ud;
  /* loop */
  int out;
  struct mr_model_use *first, **last;
};

struct mr_players {
  pthread_mutex_t lock;
  struct mr_player *slots; /* never freed before the runtime ends */
};

struct mr_model_use {
  struct mr_given g;
  struct mr_model_call call; /* the router's handle */
  struct mr_player *slot;
  /* loop */
  struct mr_model_use *next;
  bool waiting, ended, announced;
  struct mr_model_req req; /* borrowed until ended */
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_ready over; /* done from this side: cancelled, or it cannot be put to the host */
  enum mr_model_status over_as;
  /* the host's */
  char *session, *text; /* text: the request */
  size_t session_n, text_n;
  yyjson_doc *doc; /* the request, parsed when handed out */
  void (*cancel)(void *ud, struct mr_model_use *use);
  void *cancel_ud;
  pthread_mutex_t lock; /* guards these two */
  struct mr_buf delta;  /* text not on the loop yet */
  bool delta_posted;
  struct mr_post delta_post;
  /* the answer */
  enum mr_model_status status;
  char *content, *stop_reason, *stop_details, *message;
  struct mr_usage usage;
};

#endif
