/*
 * models_t - the router's structs, shared by its files: models.c (providers, their life), config.c (what the
 * configuration says), tries.c (from a model's name to who can serve it, and the wait for a place there), calls.c
 * (model calls with their fallbacks) and pass*.c (requests of the Messages API that are passed through).
 *
 * Invariant: a provider lives until it is out of the router and nobody uses it: each struct mr_tries counts in
 * `users` of all its candidates until it is freed.
 */
#ifndef MR_MODEL_MODELS_T_H
#define MR_MODEL_MODELS_T_H

#include "base/json.h"
#include "model/gate.h"
#include "model/providers.h"

enum { MR_MODEL_IDS = 512, MR_TARGETS = 8, MR_PROVIDERS_MAX = 64, MR_NAME_MAX = 64 };
enum mr_model_kind { MR_KIND_HOST = 0, MR_KIND_ANTHROPIC, MR_KIND_OPENAI, MR_KIND_SCRIPTED };

struct mr_model_entry {
  struct mr_model_entry *next; /* of its list */
  const struct mr_mem *mem;
  enum mr_model_kind kind;
  const struct mr_provider_vtable *v; /* NULL: refusal says why it cannot be used */
  void *self;                         /* of ANTHROPIC and OPENAI: a struct mr_upstream */
  char *name, *patterns;              /* patterns: comma list, host providers only */
  struct mr_err refusal;              /* code 0 when usable */
  struct mr_gate gate;
  int users;
  bool gone; /* out of the router: freed with the last user */
};

struct mr_model_target {
  struct mr_str provider, id; /* id there; empty = the same. Point into the config */
};
struct mr_model_route {
  struct mr_str pattern;
  struct mr_model_target to[MR_TARGETS]; /* in order: the first serves, the others stand in */
  int n;
};
struct mr_model_routes {
  struct mr_model_route *v;
  int n;
};

struct mr_models {
  const struct mr_sys *sys;
  struct mr_loop *loop;
  struct mr_http_client *http;
  yyjson_doc *config;
  struct mr_model_routes routes, falls;
  struct mr_model_entry *own, *host; /* configured, in order of the configuration; the host's, newest first */
  struct mr_str ids[MR_MODEL_IDS];
  int nids;
  int refs; /* the owner, and each request that is passed through: it counts in pass_bytes to its end */
  int64_t pass_bytes; /* of bodies that are being passed through */
  uint64_t fallbacks; /* requests that another candidate got, so far */
};

/* ---- models.c ---- */
struct mr_model_entry *mr_model_entry_find(struct mr_models *m, struct mr_str name); /* host's first; or NULL */
void mr_model_entry_unuse(struct mr_model_entry *e);
void mr_models_unref(struct mr_models *m); /* the last one frees the struct; its providers are gone before */
const char *mr_model_usual(struct mr_str model); /* the provider that such names have by custom, or NULL */
/* How well a pattern ("id" or "prefix*") fits: -1 not, exact above any prefix. */
int mr_model_fit(struct mr_str pattern, struct mr_str model);
/* The route that fits best, or NULL. */
const struct mr_model_route *mr_model_route_find(const struct mr_model_routes *r, struct mr_str model);

/* ---- config.c ---- */
/* The provider sections of a checked "models" object, in order: name, its kind and its object. MR_KIND_HOST: no more.
 * i counts from 0. */
enum mr_model_kind mr_models_section(yyjson_val *models, int i, struct mr_str *name, yyjson_val **section);
int mr_models_routes(const struct mr_mem *m, yyjson_val *models, const char *key, struct mr_model_routes *out,
                     struct mr_err *err);
void mr_models_gate_limits(yyjson_val *section, struct mr_gate_limits *out);

/* ---- tries.c ---- */
struct mr_try {
  struct mr_model_entry *e;
  struct mr_str id; /* in the arena */
};
/* A request's way through its candidates. Zeroed before mr_tries_find; freed with mr_tries_free in every case. */
struct mr_tries {
  struct mr_models *m;
  struct mr_try t[MR_TARGETS * 2 + 1];
  int n, at;
  bool inside; /* holds a place at t[at] */
  struct mr_waiter w;
  char why[MR_NAME_MAX + 200]; /* after none: why nobody could be asked */
  int64_t retry_after_ms;
  void (*go)(struct mr_tries *t);   /* from the drain, after mr_tries_enter said MR_MORE: inside t[at] now */
  void (*none)(struct mr_tries *t); /* ... or nobody took it */
};
/* Candidates for a model. MR_E_INVALID says what to configure. */
int mr_tries_find(struct mr_tries *t, struct mr_models *m, struct mr_str model, struct mr_arena *a,
                  struct mr_err *err);
/* To the first candidate from t[at] on that has a place, or a line to wait in. MR_OK: inside. MR_MORE: waits. MR_E_LIMIT:
 * none, see why and retry_after_ms. */
int mr_tries_enter(struct mr_tries *t);
void mr_tries_leave(struct mr_tries *t, int64_t tokens); /* gives the place back */
/* Leaves after a failure. True: at is the next candidate now, for mr_tries_enter. */
bool mr_tries_next(struct mr_tries *t);
void mr_tries_free(struct mr_tries *t);
/* Worth asking somebody else? */
bool mr_model_transient(enum mr_model_status st);

#endif
