/*
 * once.c - Idempotency-Key: a POST that a caller repeats under the same key, because it never saw the answer, has its
 * effect once and gets the answer of the first. The record (a digest of the request, status, body) is a durable value
 * for a day; it is part of the commit that has the effect, wherever the answer is known by then, which is everywhere
 * but in sessions.update and in the archives of sessions and threads: theirs follows in a commit of its own before the
 * answer goes out, and what a crash between the two repeats changes nothing more.
 *
 * Not for answers that hold a secret (keys.create), nor for what is passed through. Answers of 500 and more, 408, 429
 * and 499 are not kept: such a request may be repeated. The same key with another operation or body is refused. A
 * request whose key is in use waits until that one is over. What a day's records take is bounded
 * (api.idempotency_max): over it requests with new keys get 429; others are not concerned.
 *
 * Invariant: at most one request runs for a caller's key. Used by the files of this room alone; loop thread.
 */
#include "api/api_t.h"

#include <openssl/evp.h>
#include <stdio.h>

enum { KEY_MAX = 255, KEEP_S = 24 * 3600, ROW_COST = 256 };
#define SPACE MR_S("idempotency")

struct mr_once {
  struct mr_exchange *q;
  struct mr_once *next, **link; /* the keys in use, or who waits for one */
  struct mr_once *line;         /* of one in use: who waits for it */
  struct mr_str key;            /* the caller's id, a space, the header; in memory of its own */
  EVP_MD_CTX *sha;
  char digest[65]; /* once the body is whole, or "" */
  bool holds, found, kept, keeping;
  char want[65]; /* found: the digest of the first request */
  int status;    /* found, or being kept: the answer */
  struct mr_buf answer;
};

/* ---- what the records take, by the hour in which they were made ---- */

static int64_t hour_of(const struct mr_api *a)
{
  return mr_wall_us(a->sys) / 3600000000;
}

static int64_t taken(struct mr_api *a, int64_t now)
{
  int64_t n = 0;

  for (int i = 0; i < MR_ONCE_HOURS; i++) {
    if (a->once_hours[i].hour <= now - MR_ONCE_HOURS) a->once_hours[i] = (struct mr_once_hour){0};
    n += a->once_hours[i].bytes;
  }
  return n;
}

/* This hour's sum goes with the record, under "#" and the hour. */
static void count(struct mr_api *a, struct mr_commit *cm, size_t bytes)
{
  int64_t now = hour_of(a);
  struct mr_once_hour *h = &a->once_hours[now % MR_ONCE_HOURS];
  char key[32], value[32];
  struct mr_kv_row row = {.space = SPACE, .expires_us = (now + MR_ONCE_HOURS + 1) * 3600000000};

  if (h->hour != now) *h = (struct mr_once_hour){.hour = now};
  h->bytes += (int64_t)bytes;
  snprintf(key, sizeof key, "#%lld", (long long)now);
  snprintf(value, sizeof value, "%lld", (long long)h->bytes);
  row.key = mr_str_c(key);
  row.value = mr_str_c(value);
  mr_commit_kv_put(cm, &row, -1);
}

/* ---- the record ---- */

static void put(struct mr_once *o, struct mr_commit *cm, int status, struct mr_str answer)
{
  struct mr_api *a = o->q->a;
  struct mr_kv_row row = {.space = SPACE, .key = o->key};
  struct mr_buf b;

  mr_buf_init(&b, a->mem, SIZE_MAX / 4);
  mr_buf_printf(&b, "{\"digest\":\"%s\",\"status\":%d,\"answer\":", o->digest, status);
  mr_buf_str(&b, answer);
  mr_buf_char(&b, '}');
  row.expires_us = mr_wall_us(a->sys) + KEEP_S * INT64_C(1000000);
  row.value = mr_buf_get(&b);
  if (!b.failed) {
    mr_commit_kv_put(cm, &row, -1);
    count(a, cm, o->key.n + row.value.n + ROW_COST);
  }
  o->kept = !b.failed;
  mr_buf_free(&b);
}

void mr_once_with_effect(void *ud, struct mr_commit *cm)
{
  struct mr_exchange *q = ud;
  struct mr_once *o = q->once;

  if (!o || !o->holds || !o->digest[0] || !q->call) return;
  if (q->call->out.n > 0 && !q->call->out.failed) {
    put(o, cm, 200, mr_buf_get(&q->call->out));
  } else if (o->kept) { /* the effect is taken back, as of a copy that failed */
    mr_commit_kv_delete(cm, SPACE, o->key, -1);
    o->kept = false;
  }
}

/* ---- the digest ---- */

static void digest_str(struct mr_once *o, struct mr_str s)
{
  uint64_t n = s.n; /* before it, so that no two lists of strings look alike */

  EVP_DigestUpdate(o->sha, &n, sizeof n);
  if (s.n) EVP_DigestUpdate(o->sha, s.p, s.n);
}

void mr_once_part(struct mr_exchange *q, struct mr_str s)
{
  if (q->once) digest_str(q->once, s);
}

void mr_once_piece(struct mr_exchange *q, struct mr_str bytes)
{
  if (q->once && bytes.n) EVP_DigestUpdate(q->once->sha, bytes.p, bytes.n);
}

bool mr_once_body(struct mr_exchange *q)
{
  struct mr_once *o = q->once;
  unsigned char sum[EVP_MAX_MD_SIZE];
  unsigned n = 0;

  if (!o) return false;
  EVP_DigestFinal_ex(o->sha, sum, &n);
  for (unsigned i = 0; i < 32; i++)
    snprintf(o->digest + (size_t)2 * i, 3, "%02x", sum[i]);
  if (!o->found) return false;
  if (strcmp(o->digest, o->want) != 0)
    mr_exchange_fail(q, MR_E_INVALID, "idempotency-key",
                     "idempotency-key: it was used with another request in the last 24 hours: use a new one");
  else
    mr_exchange_send(q, o->status, mr_buf_get(&o->answer), true);
  mr_once_end(q);
  return true;
}

bool mr_once_found(const struct mr_exchange *q)
{
  return q->once && q->once->found;
}

/* ---- one after the other ---- */

static struct mr_once **bucket(struct mr_api *a, struct mr_str key)
{
  uint32_t h = 2166136261u;

  for (size_t i = 0; i < key.n; i++)
    h = (h ^ (unsigned char)key.p[i]) * 16777619u;
  return &a->onces[h % MR_ONCE_BUCKETS];
}

static void link_in(struct mr_once *o, struct mr_once **at)
{
  o->next = *at;
  o->link = at;
  if (o->next) o->next->link = &o->next;
  *at = o;
}

static void link_out(struct mr_once *o)
{
  if (!o->link) return;
  *o->link = o->next;
  if (o->next) o->next->link = o->link;
  o->next = NULL;
  o->link = NULL;
}

static void look_up(struct mr_once *o);

static void enter(struct mr_once *o)
{
  struct mr_once **at = bucket(o->q->a, o->key), *held = *at;

  while (held && !mr_str_eq(held->key, o->key))
    held = held->next;
  if (held) {
    for (at = &held->line; *at; at = &(*at)->next)
      continue;
    link_in(o, at);
    return;
  }
  o->holds = true;
  link_in(o, at);
  look_up(o);
}

/* The first that waited is next; it finds the record, if one was kept. */
static void release(struct mr_once *o)
{
  struct mr_once *first, *rest;

  o->holds = false;
  link_out(o);
  first = o->line;
  if (!first) return;
  link_out(first);
  rest = o->line;
  o->line = NULL;
  if (rest) {
    first->line = rest;
    rest->link = &first->line;
  }
  enter(first);
}

static int read_record(struct mr_once *o, struct mr_str value)
{
  struct mr_err err;
  yyjson_doc *doc = NULL;
  yyjson_val *root, *answer;
  int code = mr_json_parse(o->q->a->mem, value, SIZE_MAX, &doc, &err);

  if (code != MR_OK) return code;
  root = yyjson_doc_get_root(doc);
  answer = mr_json_get(root, "answer");
  snprintf(o->want, sizeof o->want, MR_FMT, MR_ARG(mr_json_get_str(root, "digest")));
  o->status = (int)mr_json_get_int(root, "status", 500);
  mr_buf_init(&o->answer, o->q->a->mem, SIZE_MAX / 4);
  if (answer) mr_json_write(&o->answer, answer, false);
  o->found = true;
  yyjson_doc_free(doc);
  return o->answer.failed ? MR_E_NOMEM : MR_OK;
}

static void on_record(void *ud, const struct mr_rows *r)
{
  struct mr_once *o = ud;
  struct mr_exchange *q = o->q;
  int code = r->code == MR_OK ? read_record(o, r->kv[0].value) : r->code;

  if (!q->x) {
    ;
  } else if (code != MR_OK && code != MR_E_NOTFOUND) {
    mr_exchange_fail(q, code, NULL, "the idempotency key could not be looked up now");
  } else if (!o->found && taken(q->a, hour_of(q->a)) >= q->a->once_max) {
    mr_exchange_fail(
        q, MR_E_LIMIT, "idempotency-key",
        "idempotency-key: the records of the last 24 hours take as much as they may: try again later");
  } else {
    mr_exchange_go(q);
  }
  mr_exchange_unref(q);
}

static void on_hours(void *ud, const struct mr_rows *r)
{
  struct mr_once *o = ud;
  struct mr_api *a = o->q->a;
  int64_t hour, bytes;

  for (int i = 0; r->code == MR_OK && !a->once_loaded && i < r->n; i++) {
    struct mr_str key = r->kv[i].key;
    if (mr_str_int(mr_str_n(key.p + 1, key.n - 1), &hour) == MR_OK && hour > 0 &&
        mr_str_int(r->kv[i].value, &bytes) == MR_OK)
      a->once_hours[hour % MR_ONCE_HOURS] = (struct mr_once_hour){hour, bytes};
  }
  a->once_loaded = a->once_loaded || r->code == MR_OK;
  mr_read_kv(a->o.store, o->q->by.workspace, SPACE, o->key, on_record, o);
}

static void look_up(struct mr_once *o)
{
  struct mr_api *a = o->q->a;

  o->q->refs++;
  if (a->once_loaded)
    mr_read_kv(a->o.store, o->q->by.workspace, SPACE, o->key, on_record, o);
  else
    mr_read_kvs(a->o.store, o->q->by.workspace, SPACE, MR_S("#"), mr_str_n("", 0), 100, on_hours, o);
}

/* ---- an exchange's part in it ---- */

static void once_free(struct mr_once *o)
{
  const struct mr_mem *m = o->q->a->mem;

  o->q->once = NULL;
  if (o->holds)
    release(o);
  else
    link_out(o);
  EVP_MD_CTX_free(o->sha);
  mr_buf_free(&o->answer);
  mr_mem_free(m, (char *)(uintptr_t)o->key.p);
  mr_mem_free(m, o);
}

void mr_once_end(struct mr_exchange *q)
{
  if (q->once) once_free(q->once);
}

static bool key_ok(struct mr_str key)
{
  for (size_t i = 0; i < key.n; i++)
    if ((unsigned char)key.p[i] < ' ' || (unsigned char)key.p[i] > '~') return false;
  return key.n > 0 && key.n <= KEY_MAX;
}

/* Who is asked for what: a path's parameters and the query belong to it. */
static bool digest_begin(struct mr_once *o)
{
  struct mr_exchange *q = o->q;

  o->sha = EVP_MD_CTX_new();
  if (!o->sha || EVP_DigestInit_ex(o->sha, EVP_sha256(), NULL) != 1) return false;
  digest_str(o, mr_str_c(q->op ? q->op->name : "control"));
  for (int i = 0; i < MR_PATH_MAX; i++)
    digest_str(o, q->params[i]);
  digest_str(o, mr_http_query(q->x));
  return true;
}

bool mr_once_begin(struct mr_exchange *q)
{
  struct mr_str key = mr_http_req_header(q->x, "idempotency-key");
  struct mr_once *o;
  struct mr_buf b;

  if (!key.p || (q->op && !mr_str_is(mr_str_c(q->op->verb), "POST"))) return false;
  if (q->op && q->op->flags & (MR_OP_SECRET | MR_OP_PASS)) return false;
  if (!key_ok(key)) {
    mr_exchange_fail(q, MR_E_INVALID, "idempotency-key", "idempotency-key: must be 1 to 255 ASCII characters");
    return true;
  }
  o = mr_mem_zalloc(q->a->mem, sizeof *o);
  mr_buf_init(&b, q->a->mem, 1 << 12);
  mr_buf_printf(&b, MR_FMT " " MR_FMT, MR_ARG(q->by.key_id), MR_ARG(key));
  if (o) {
    o->q = q;
    q->once = o;
    o->key.n = b.n;
    o->key.p = mr_buf_take(&b, NULL);
    mr_buf_init(&o->answer, q->a->mem, SIZE_MAX / 4);
  }
  if (!o || !o->key.p || !digest_begin(o)) {
    mr_buf_free(&b);
    mr_once_end(q);
    mr_exchange_fail(q, MR_E_NOMEM, NULL, "out of memory");
    return true;
  }
  enter(o);
  return true;
}

/* ---- the answer ---- */

static void on_kept(void *ud, const struct mr_commit_result *r)
{
  struct mr_exchange *q = ud;
  struct mr_once *o = q->once;

  if (r->code != MR_OK) /* what was done is done: better an answer without a record than none */
    mr_log(q->a->sys, MR_LOG_ERROR, "api", "%s: the answer could not be kept under its idempotency key: %s",
           q->id, r->err->message);
  mr_exchange_send(q, o->status, mr_buf_get(&o->answer), false);
  mr_once_end(q);
  mr_exchange_unref(q);
}

static bool worth_keeping(int status)
{
  return status < 500 && status != 408 && status != 429 && status != 499;
}

bool mr_once_keep(struct mr_exchange *q, int status, struct mr_str answer)
{
  struct mr_once *o = q->once;
  struct mr_commit *cm;

  if (!o || o->keeping) return o != NULL;
  if (!o->holds || o->found || !o->digest[0] || (o->kept && status == 200) || !worth_keeping(status))
    return false;
  mr_buf_str(&o->answer, answer);
  cm = mr_commit_new(q->a->o.store, &(struct mr_origin){.workspace = q->by.workspace});
  if (!cm || o->answer.failed) {
    mr_commit_drop(&cm);
    return false;
  }
  put(o, cm, status, answer);
  o->keeping = true;
  o->status = status;
  q->refs++;
  mr_commit_submit(&cm, on_kept, q);
  return true;
}
