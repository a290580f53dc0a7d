/*
 * providers - the built-in providers as the router makes them. Private to this room.
 *
 * Each constructor copies its strings, returns a vtable and its self, and does no network; free of the
 * vtable releases it. A constructor refuses what can never work (a moonrig key as upstream key, a base
 * URL that is none), with a message for the operator.
 */
#ifndef MR_MODEL_PROVIDERS_H
#define MR_MODEL_PROVIDERS_H

#include "model/model.h"

struct mr_provider_opts {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  struct mr_http_client *http;
  struct mr_str name;          /* in messages; empty = the kind's */
  struct mr_str base_url, key; /* empty = the default; none */
  struct mr_str ca_file;       /* empty = the client's roots */
  struct mr_str file;          /* scripted: the recorded lines */
  bool cache;                  /* anthropic: ask for prompt caching */
  bool cache_1h;               /* ... and for an hour of it, not five minutes */
  /* Patience; 0 = the default. connect: 10 s. first: from the request to the first word of the model, and
   * the longest that pings alone keep a stream alive: 600 s. stall: no byte after the first word: 120 s.
   * total: two hours. */
  int64_t connect_ms, first_ms, stall_ms, total_ms;
};

int mr_anthropic_new(void **self, const struct mr_provider_opts *o, struct mr_err *err);
int mr_openai_new(void **self, const struct mr_provider_opts *o, struct mr_err *err);
int mr_scripted_new(void **self, const struct mr_provider_opts *o, struct mr_err *err);
extern const struct mr_provider_vtable mr_anthropic_vtable, mr_openai_vtable, mr_scripted_vtable;

#endif
