/*
 * keys.c - API keys. A secret is shown once and stored as its SHA-256 alone (the document's name, so that it
 * is found by it). What was checked lately is kept, so that a request costs no read; revoking forgets it, and
 * what was read before the revocation was durable is not kept. A key that was made for an environment is the key of
 * its workers; the bearers of single work items are the queue's (work.c).
 */
#include "agent/work_t.h"

#include <stdio.h>

enum { CACHE = 256 };

struct mr_keys {
  char given[2][65]; /* SHA-256 of MOONRIG_API_KEY, and of the program's own key; "" when none */
  uint64_t revoked;  /* revocations so far */
  struct {
    char hash[65], id[MR_ID_LEN], environment_id[MR_ID_LEN];
    int64_t ws;
  } cache[CACHE];
  struct check *held, **held_tail; /* session tokens shown before the queue was read */
};

int mr_keys_init(struct mr_domain *d, struct mr_err *err)
{
  d->keys = mr_mem_zalloc(d->mem, sizeof *d->keys);
  if (!d->keys) return mr_err_nomem(err);
  d->keys->held_tail = &d->keys->held;
  return MR_OK;
}

void mr_keys_free(struct mr_domain *d)
{
  mr_mem_free(d->mem, d->keys);
  d->keys = NULL;
}

int mr_keys_bootstrap(struct mr_domain *d, bool own, struct mr_str secret, struct mr_err *err)
{
  if (secret.n < 8) return mr_err_set(err, MR_E_INVALID, "api_key", "an API key has at least 8 characters");
  mr_sha256_hex(secret, d->keys->given[own]);
  return MR_OK;
}

/* The id of a key that is not in the store, or NULL. */
static const char *given_key(const struct mr_domain *d, const char *hash)
{
  static const char *const ids[] = {"bootstrap", "local"};

  for (int i = 0; i < 2; i++)
    if (d->keys->given[i][0] && mr_str_eq_secret(mr_str_c(hash), mr_str_c(d->keys->given[i]))) return ids[i];
  return NULL;
}

static size_t slot(const char *hash)
{
  size_t v = 0;
  for (int i = 0; i < 8; i++)
    v = v * 31 + (unsigned char)hash[i];
  return v % CACHE;
}

struct check {
  struct mr_domain *d;
  struct check *next; /* held */
  char hash[65], *token;
  void (*fn)(void *ud, int code, const struct mr_bearer *by);
  void *ud;
  struct mr_ready ready;
  int code;
  struct mr_bearer by;
  char id[MR_ID_LEN], environment_id[MR_ID_LEN], session_id[MR_ID_LEN];
  uint64_t revoked; /* as it was when the read began */
};

static void tell(struct mr_ready *r)
{
  struct check *k = MR_OF(r, struct check, ready);
  if (k->by.kind == MR_BEARER_HOST) k->by.kind = k->environment_id[0] ? MR_BEARER_ENVIRONMENT : MR_BEARER_API;
  k->by.key_id = mr_str_c(k->id);
  k->by.environment_id = mr_str_c(k->environment_id);
  k->by.session_id = mr_str_c(k->session_id);
  k->fn(k->ud, k->code, &k->by);
  mr_mem_free(k->d->mem, k->token);
  mr_mem_free(k->d->mem, k);
}

static void on_key(void *ud, const struct mr_rows *r)
{
  struct check *k = ud;
  size_t at = slot(k->hash);

  k->code = r->code != MR_OK ? r->code : MR_E_AUTH;
  if (r->code == MR_OK && r->n > 0) {
    k->code = MR_OK;
    k->by.workspace = k->d->default_ws;
    snprintf(k->id, sizeof k->id, MR_FMT, MR_ARG(r->docs[0].id));
    snprintf(k->environment_id, sizeof k->environment_id, MR_FMT, MR_ARG(r->docs[0].parent));
  }
  if (k->code == MR_OK && k->revoked == k->d->keys->revoked) {
    memcpy(k->d->keys->cache[at].hash, k->hash, sizeof k->hash);
    memcpy(k->d->keys->cache[at].id, k->id, sizeof k->id);
    memcpy(k->d->keys->cache[at].environment_id, k->environment_id, sizeof k->environment_id);
    k->d->keys->cache[at].ws = k->by.workspace;
  }
  tell(&k->ready);
}

static void check_token(struct check *k)
{
  bool past = false;
  struct mr_work *w = mr_work_of_token(k->d, k->d->default_ws, mr_str_c(k->token), &past);

  k->code = w ? MR_OK : mr_works_loaded(k->d) ? MR_E_AUTH : MR_E_UNAVAILABLE;
  if (w) {
    k->by.kind = MR_BEARER_ITEM;
    k->by.workspace = w->ws;
    k->by.past = past;
    memcpy(k->id, w->id, sizeof k->id);
    memcpy(k->environment_id, w->environment_id, sizeof k->environment_id);
    memcpy(k->session_id, w->session_id, sizeof k->session_id);
  }
  mr_ready_post(k->d->loop, &k->ready);
}

/* Its answer is posted by whoever finds it: now, or when the queue is read. */
static void token_shown(struct check *k, struct mr_str secret)
{
  k->token = mr_mem_strdup(k->d->mem, secret);
  if (!k->token) {
    k->code = MR_E_NOMEM;
    mr_ready_post(k->d->loop, &k->ready);
  } else if (k->d->started && !k->d->ready) {
    *k->d->keys->held_tail = k;
    k->d->keys->held_tail = &k->next;
  } else {
    check_token(k);
  }
}

void mr_keys_ready(struct mr_domain *d)
{
  struct check *k = d->keys->held, *next;

  d->keys->held = NULL;
  d->keys->held_tail = &d->keys->held;
  for (; k; k = next) {
    next = k->next;
    k->next = NULL;
    check_token(k);
  }
}

void mr_keys_check(struct mr_domain *d, struct mr_str secret,
                   void (*fn)(void *ud, int code, const struct mr_bearer *by), void *ud)
{
  struct check *k = mr_mem_zalloc(d->mem, sizeof *k);
  size_t at;

  if (!k) {
    fn(ud, MR_E_NOMEM, &(struct mr_bearer){0});
    return;
  }
  k->d = d;
  k->fn = fn;
  k->ud = ud;
  mr_ready_init(&k->ready, tell);
  mr_sha256_hex(secret, k->hash);
  at = slot(k->hash);
  if (mr_str_starts(secret, MR_S("sk-ant-req-"))) {
    token_shown(k, secret);
    return;
  }
  if (!secret.n) {
    k->code = MR_E_AUTH;
  } else if (given_key(d, k->hash)) {
    k->by.workspace = d->default_ws;
    snprintf(k->id, sizeof k->id, "%s", given_key(d, k->hash));
  } else if (mr_str_eq_secret(mr_str_c(k->hash), mr_str_c(d->keys->cache[at].hash))) {
    k->by.workspace = d->keys->cache[at].ws;
    memcpy(k->id, d->keys->cache[at].id, sizeof k->id);
    memcpy(k->environment_id, d->keys->cache[at].environment_id, sizeof k->environment_id);
  } else {
    k->revoked = d->keys->revoked;
    mr_read_doc_named(d->store, d->default_ws, MR_S("key"), mr_str_c(k->hash), 1, on_key, k);
    return;
  }
  mr_ready_post(d->loop, &k->ready);
}

int mr_secret_make(const struct mr_sys *sys, char out[MR_SECRET_CHARS + 1])
{
  static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  unsigned char raw[MR_SECRET_CHARS];

  if (sys->random(sys->ud, raw, sizeof raw) != 0) return MR_E_IO;
  for (int i = 0; i < MR_SECRET_CHARS; i++)
    out[i] = alphabet[raw[i] & 63];
  out[MR_SECRET_CHARS] = '\0';
  return MR_OK;
}

static void create(struct mr_call *c, struct mr_str environment_id)
{
  struct mr_doc_row row = {.kind = MR_S("key"), .rev = 1, .parent = environment_id};
  char id[MR_ID_MAX], random[MR_SECRET_CHARS + 1], secret[64], hash[65];
  struct mr_str name = mr_json_get_str(c->in, "name");
  struct mr_buf body;
  struct mr_jw w;

  if (mr_id_make(c->d->sys, id, "apikey") != MR_OK || mr_secret_make(c->d->sys, random) != MR_OK) {
    mr_call_fail(c, MR_E_IO, NULL, "no randomness");
    return;
  }
  snprintf(secret, sizeof secret, "%s%s", environment_id.n ? "sk-mr-env-" : "sk-mr-", random);
  mr_sha256_hex(mr_str_c(secret), hash);
  row.id = mr_str_c(id);
  row.name = mr_str_c(hash);
  row.created_us = row.updated_us = mr_loop_wall_us(c->d->loop);
  mr_buf_init(&body, c->mem, 4096);
  mr_jw_init(&w, &body);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "id", id);
  mr_jw_kc(&w, "type", environment_id.n ? "environment_key" : "api_key");
  mr_jw_kstr(&w, "name", name);
  if (environment_id.n) mr_jw_kstr(&w, "environment_id", environment_id);
  mr_jw_ktime(&w, "created_at", row.created_us);
  mr_jw_obj_end(&w);
  mr_buf_str(&c->out, mr_buf_get(&body));
  mr_doc_create(c, &row, false);
  /* The stored body has no secret; the answer, and it alone, does. */
  mr_buf_reset(&c->out);
  mr_buf_add(&c->out, body.p, body.n ? body.n - 1 : 0);
  mr_buf_printf(&c->out, ",\"key\":\"%s\"}", secret);
  mr_buf_free(&body);
}

static void on_environment(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  struct mr_str id = mr_json_get_str(c->in, "environment_id");
  int code = mr_read_check(c, r, "environment_id", "environment", id);
  bool own = false;

  if (code == MR_OK) mr_env_config(c->arena, r->docs[0].body, &own);
  if (code != MR_OK)
    mr_call_done(c, code);
  else if (!own || r->docs[0].archived_us)
    mr_call_fail(c, MR_E_STATE, "environment_id", "environment " MR_FMT " %s: it has no workers", MR_ARG(id),
                 own ? "is archived" : "is not self-hosted");
  else
    create(c, id);
}

void mr_keys_create(struct mr_call *c)
{
  struct mr_str environment = mr_json_get_str(c->in, "environment_id");

  if (environment.n)
    mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), environment, on_environment, c);
  else
    create(c, environment);
}

void mr_keys_list(struct mr_call *c)
{
  mr_doc_list(c, "key", 100, 1000);
}

static void forget(struct mr_doc_change *p)
{
  memset(p->c->d->keys->cache, 0, sizeof p->c->d->keys->cache);
  p->c->d->keys->revoked++;
}

static int revoke(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body,
                  struct mr_doc_row *next)
{
  struct mr_buf at;
  struct mr_jw w;

  if (old->archived_us) return MR_MORE;
  next->archived_us = next->updated_us = mr_loop_wall_us(p->c->d->loop);
  mr_buf_init(&at, p->c->mem, 64);
  mr_jw_init(&w, &at);
  mr_jw_time(&w, next->archived_us);
  mr_doc_replace(&p->body, body, "revoked_at", mr_buf_get(&at));
  mr_buf_free(&at);
  return MR_OK;
}

void mr_keys_revoke(struct mr_call *c)
{
  struct mr_doc_change *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  *p = (struct mr_doc_change){.c = c, .kind = "key", .id = c->path[0], .make = revoke, .after = forget};
  mr_doc_change(p);
}
