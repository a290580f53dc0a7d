/*
 * secret.c - secrets that a sandbox uses without having them (API: resources §11.3): inside, a variable holds a
 * placeholder; in what is sent to one of the secret's hosts, over TLS that the proxy opened for it, the placeholder in
 * a header's value becomes the secret. Anywhere else it goes out as it is, and means nothing. Answers are not looked at.
 *
 * A placeholder comes from the session's token, so it is the same after a restart and another one in each session.
 */
#include <stdio.h>

#include "sandbox/egress/egress_t.h"

enum { VALUE_MAX = 16 << 10 };

void mr_secret_placeholder(const char *token, const char *env, char out[MR_EGRESS_PLACEHOLDER])
{
  char text[400], hex[65];
  int n = snprintf(text, sizeof text, "moonrig placeholder\n%s\n%s", token, env);

  mr_sha256_hex(mr_str_n(text, n > 0 && n < (int)sizeof text ? (size_t)n : sizeof text - 1), hex);
  snprintf(out, MR_EGRESS_PLACEHOLDER, "mr-placeholder-%.32s", hex);
}

static bool is_for(const struct mr_sandbox_secret *s, const char *host)
{
  for (int i = 0; i < s->nhosts; i++)
    if (mr_host_matches(mr_str_c(s->hosts[i]), mr_str_c(host))) return true;
  return false;
}

bool mr_secret_wanted(const struct mr_egress_policy *p, const struct mr_target *t)
{
  for (int i = 0; !t->literal && i < p->nsecrets; i++)
    if (is_for(&p->secrets[i], t->host)) return true;
  return false;
}

/* text with the placeholders of host's secrets replaced. */
static bool replace(const struct mr_egress_conn *c, struct mr_str text, struct mr_buf *out)
{
  const struct mr_egress_policy *p = c->k->policy;
  char mark[EGRESS_SECRETS][MR_EGRESS_PLACEHOLDER] = {{0}};
  bool any = false;

  /* Once for a value: it may have thousands of places that look like one. */
  for (int i = 0; i < p->nsecrets; i++)
    if (is_for(&p->secrets[i], c->target.host)) mr_secret_placeholder(c->k->token, p->secrets[i].env, mark[i]);
  while (text.n) {
    size_t used = 0;
    bool may = mr_str_starts(text, MR_S("mr-placeholder-"));
    for (int i = 0; may && i < p->nsecrets && !used; i++) {
      if (!mark[i][0] || !mr_str_starts(text, mr_str_c(mark[i]))) continue;
      mr_buf_c(out, p->secrets[i].value);
      used = strlen(mark[i]);
    }
    any |= used > 0;
    if (!used) mr_buf_char(out, text.p[0]);
    text.p += used ? used : 1;
    text.n -= used ? used : 1;
  }
  return any;
}

/* "Basic " and base64 of name:password: what curl, git and package managers make of a password. */
static bool basic(const struct mr_egress_conn *c, struct mr_str value, struct mr_buf *out)
{
  const struct mr_mem *m = c->k->e->mem;
  unsigned char plain[3100];
  struct mr_buf open;
  char *text;
  int64_t n;
  bool done = false;

  if (value.n < 7 || value.n > 4000 || !mr_str_ieq(mr_str_n(value.p, 6), MR_S("basic "))) return false;
  n = mr_base64_decode(mr_str_trim(mr_str_n(value.p + 6, value.n - 6)), plain);
  if (n <= 0) return false;
  mr_buf_init(&open, m, VALUE_MAX * 4);
  if (replace(c, mr_str_n((char *)plain, (size_t)n), &open) && !open.failed) {
    text = mr_buf_reserve(out, 6 + 4 * ((open.n + 2) / 3) + 1);
    if (text) {
      memcpy(text, "Basic ", 6);
      out->n += 6 + mr_base64_encode(mr_buf_get(&open), text + 6);
      done = true;
    }
  }
  mr_buf_free(&open);
  return done;
}

void mr_secret_change(void *ud, struct mr_str name, struct mr_str value, struct mr_buf *out)
{
  const struct mr_egress_conn *c = ud;

  if (mr_str_ieq(name, MR_S("authorization")) && basic(c, value, out)) return;
  if (!memmem(value.p ? value.p : "", value.n, "mr-placeholder-", 15))
    mr_buf_str(out, value);
  else
    replace(c, value, out);
}

/* ---- the table ---- */

static int copy(struct mr_arena *a, const struct mr_sandbox_secret *from, struct mr_sandbox_secret *to)
{
  const char **hosts = mr_arena_alloc(a, ((size_t)from->nhosts + 1) * sizeof *hosts);

  to->env = mr_arena_str(a, mr_str_c(from->env)).p;
  to->value = mr_arena_str(a, mr_str_c(from->value)).p;
  to->hosts = hosts;
  to->nhosts = from->nhosts;
  for (int i = 0; hosts && i < from->nhosts; i++)
    if (!(hosts[i] = mr_arena_str(a, mr_str_c(from->hosts[i])).p)) return MR_E_NOMEM;
  return to->env && to->value && hosts ? MR_OK : MR_E_NOMEM;
}

int mr_secrets_copy(struct mr_arena *a, const struct mr_sandbox_secret *from, int n,
                    struct mr_sandbox_secret **to, int *nto)
{
  *to = mr_arena_alloc(a, ((size_t)n + 1) * sizeof **to);
  for (int i = 0; *to && i < n; i++)
    if (copy(a, &from[i], &(*to)[i]) != MR_OK) return MR_E_NOMEM;
  *nto = *to ? n : 0;
  return *to ? MR_OK : MR_E_NOMEM;
}
