/*
 * probe - does a configured provider answer, with the key that is set, and does it have the models that are routed to
 * it? For `moonrig check-config`. One small real request: the list of models, or, where a server has no such list,
 * one token of the first model that is routed to it.
 */
#ifndef MR_MODEL_PROBE_H
#define MR_MODEL_PROBE_H

#include "model/model.h"

enum mr_probe_outcome {
  MR_PROBE_OK,
  MR_PROBE_REFUSED,     /* it answers, but not as it should: key, model, address */
  MR_PROBE_UNREACHABLE, /* no answer */
  MR_PROBE_SKIPPED      /* nothing was asked */
};
struct mr_probe {
  const char *name, *kind; /* of the provider; live as long as the router */
  enum mr_probe_outcome outcome;
  char url[400];   /* where it was asked; "" when it has no address */
  char found[500]; /* what was found; holds no key */
  char fix[300];   /* what to do about it, or "" */
};

int mr_models_providers(const struct mr_models *m); /* how many are configured */
/* Asks the i-th (in the order of the configuration); done once, from the drain, with strings borrowed. ask false:
 * only what can be said without a request. MR_E_NOTFOUND past the end. */
int mr_models_probe(struct mr_models *m, int i, bool ask, void (*done)(void *ud, const struct mr_probe *p),
                    void *ud, struct mr_err *err);
/* The i-th target of a route or fallback whose provider is not configured (a script may still add it). False: no
 * more. */
bool mr_models_loose(struct mr_models *m, int i, struct mr_str *pattern, struct mr_str *provider);

#endif
