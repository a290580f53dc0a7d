/*
 * policy.c - who may go where, by the name that was asked for (API: resources §7.5). That the address behind the
 * name may be dialled is judged besides, at the dial (link.c, net/guard.h): both have to agree. An address that
 * stands in place of a name is a name here too: `limited` lets it pass only if it is listed just so.
 *
 * What a refusal says is read by a model: it names the host and the rule.
 */
#include "sandbox/egress/egress_t.h"

#include <stdio.h>

static bool listed(const struct mr_str *patterns, int n, const char *host)
{
  for (int i = 0; i < n; i++)
    if (mr_host_matches(patterns[i], mr_str_c(host))) return true;
  return false;
}

static bool port_open(const struct mr_egress_conf *c, int port)
{
  if (port == 80 || port == 443) return true;
  for (int i = 0; i < c->nports; i++)
    if (port >= c->ports[i].first && port <= c->ports[i].last) return true;
  return false;
}

enum mr_verdict mr_egress_judge(const struct mr_egress_policy *p, const struct mr_egress_conf *c,
                                const struct mr_target *t, char why[300])
{
  if (listed(c->blocked, c->nblocked, t->host)) {
    snprintf(why, 300, "host %.200s is blocked by the operator of this server", t->host);
    return MR_DENY;
  }
  if (p->limited && !listed(p->hosts, p->nhosts, t->host)) {
    if (p->package_managers && !c->packages_known) return MR_ASK;
    if (!p->package_managers || !listed(c->packages, c->npackages, t->host)) {
      snprintf(why, 300, "host %.200s is not in this environment's allowed_hosts", t->host);
      return MR_DENY;
    }
  }
  if (!port_open(c, t->port)) {
    snprintf(why, 300, "port %d of %.200s is not open: only 80, 443 and the operator's egress.ports are",
             t->port, t->host);
    return MR_DENY;
  }
  return MR_LET;
}

bool mr_egress_strict(const struct mr_egress_policy *p, const struct mr_target *t)
{
  return p->limited && (t->port == 443 || t->port == 80);
}

/* The session's secrets, then the operator's; of two for one variable the first counts. */
static int secrets(struct mr_egress_policy *p, const struct mr_egress *e, const struct mr_sandbox_network *n)
{
  const struct mr_egress_conf *c = &e->conf;
  struct mr_sandbox_secret all[EGRESS_SECRETS];
  int k = 0;

  for (int i = 0; i < n->nsecrets + c->nsecrets && k < EGRESS_SECRETS; i++) {
    const struct mr_sandbox_secret *s = i < n->nsecrets ? &n->secrets[i] : &c->secrets[i - n->nsecrets];
    bool known = false;
    for (int j = 0; j < k; j++)
      known |= strcmp(all[j].env, s->env) == 0;
    if (!known) all[k++] = *s;
  }
  return mr_secrets_copy(p->arena, all, k, &p->secrets, &p->nsecrets);
}

struct mr_egress_policy *mr_egress_policy_new(struct mr_egress *e, const struct mr_sandbox_network *n)
{
  struct mr_egress_policy *p = mr_mem_zalloc(e->mem, sizeof *p);
  struct mr_arena *a = p ? mr_arena_new(e->mem, 512) : NULL;
  int all = n->nhosts + n->nmcp_hosts;

  if (!a) goto fail;
  p->mem = e->mem;
  p->arena = a;
  p->limited = n->limited;
  p->package_managers = n->package_managers;
  p->hosts = mr_arena_alloc(a, ((size_t)all + 1) * sizeof *p->hosts);
  for (int i = 0; p->hosts && i < all; i++) {
    const char *host = i < n->nhosts ? n->hosts[i] : n->mcp_hosts[i - n->nhosts];
    p->hosts[p->nhosts] = mr_arena_str(a, mr_str_c(host));
    if (!p->hosts[p->nhosts++].p) goto fail;
  }
  if (!p->hosts || secrets(p, e, n) != MR_OK) goto fail;
  if (p->nsecrets) mr_egress_authority(e);
  return p;
fail:
  mr_arena_free(&a);
  mr_mem_free(e->mem, p);
  return NULL;
}

void mr_egress_policy_free(struct mr_egress_policy **pp)
{
  struct mr_egress_policy *p = *pp;

  *pp = NULL;
  if (!p) return;
  mr_arena_free(&p->arena);
  mr_mem_free(p->mem, p);
}
