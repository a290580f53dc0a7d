/* models_t - the router's structs. Private to models.c; apart from it for its size only. */
#ifndef MR_MODEL_MODELS_T_H
#define MR_MODEL_MODELS_T_H

#include "base/json.h"
#include "model/providers.h"

enum { MR_BUILT_IN = 3, MR_MODEL_IDS = 512 };

struct mr_model_entry {
  struct mr_model_entry *next; /* host providers, newest first */
  const struct mr_mem *mem;
  const struct mr_provider_vtable *v; /* NULL: refusal says why it cannot be used */
  void *self;
  char *name, *patterns; /* patterns: comma list, host providers only */
  struct mr_err refusal; /* code 0 when usable */
  int calls;             /* running */
  bool gone;             /* out of the router: freed with the last call */
};

struct mr_model_route {
  struct mr_str pattern, provider, id; /* id there; empty = the same. Point into the config */
};

struct mr_models {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  yyjson_doc *config;
  struct mr_model_route *routes;
  int nroutes;
  struct mr_model_entry *own[MR_BUILT_IN]; /* NULL: not configured */
  struct mr_model_entry *host;
  struct mr_str ids[MR_MODEL_IDS];
  int nids;
};

#endif
