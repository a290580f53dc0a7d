/*
 * fake_state - the fake host's durable values (in memory, by the fake clock) and watchers: what is registered, and
 * the events that a test injects with host.seen.
 */
#include "fake_host_t.h"

/* ------------------------------------------------------------------- values */

struct row { struct row *next; char *space, *key, *value; int64_t rev, expires; };
struct kvjob { void (*done)(void *, const struct mr_reply *); void *ud; char *json; struct mr_err err; };
static struct row *rows;
static int64_t last_rev = 1000;

static int64_t wall(void) { return fake.wall0 + fake.now_us; }
static char *dup_str(struct mr_str s)
{
  char *p = malloc(s.n + 1);
  if (s.n) memcpy(p, s.p, s.n);
  p[s.n] = 0;
  return p;
}
static void row_free(struct row **at)
{
  struct row *r = *at;
  *at = r->next;
  free(r->space), free(r->key), free(r->value), free(r);
}
static struct row **row_find(const char *space, const char *key)
{
  struct row **at = &rows;
  while (*at && (strcmp((*at)->space, space) != 0 || strcmp((*at)->key, key) < 0)) at = &(*at)->next;
  if (*at && strcmp((*at)->key, key) == 0 && (*at)->expires && (*at)->expires <= wall()) row_free(at);
  return at;
}
static int is(struct row **at, const char *space, const char *key)
{
  return *at && strcmp((*at)->space, space) == 0 && strcmp((*at)->key, key) == 0;
}
static void refuse(struct mr_err *e, int code, int status, const char *why)
{
  fake_fail(e, code, why);
  e->http_status = status;
  snprintf(e->type, sizeof e->type, status == 404 ? "not_found_error" : status == 409 ? "conflict_error" : "api_error");
}
static char *quote(const char *s)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_doc_set_root(d, yyjson_mut_str(d, s));
  char *t = yyjson_mut_write(d, 0, NULL);
  yyjson_mut_doc_free(d);
  return t;
}
static char *row_json(const struct row *r, int with_key)
{
  char *key = quote(r->key), at[64] = "", *out = malloc(strlen(r->value) + strlen(key) + 200);
  if (r->expires) {
    time_t sec = (time_t)(r->expires / 1000000);
    struct tm tm;
    gmtime_r(&sec, &tm);
    size_t n = strftime(at, sizeof at, ",\"expires_at\":\"%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(at + n, sizeof at - n, ".%06dZ\"", (int)(r->expires % 1000000));
  }
  sprintf(out, "{%s%s%s\"value\":%s,\"rev\":%lld%s}", with_key ? "\"key\":" : "", with_key ? key : "", with_key ? "," : "",
          r->value, (long long)r->rev, at);
  free(key);
  return out;
}
static char *list(const char *space, const char *prefix, const char *after, int limit)
{
  char *out = strdup("{\"data\":[");
  int n = 0, more = 0;
  for (struct row *r = rows; r; r = r->next) {
    if (strcmp(r->space, space) != 0 || strncmp(r->key, prefix, strlen(prefix)) != 0 || strcmp(r->key, after) <= 0) continue;
    if (r->expires && r->expires <= wall()) continue;
    if (n == limit) { more = 1; break; }
    char *one = row_json(r, 1);
    out = realloc(out, strlen(out) + strlen(one) + 40);
    if (n++) strcat(out, ",");
    strcat(out, one);
    free(one);
  }
  out = realloc(out, strlen(out) + 40);
  strcat(out, more ? "],\"more\":true}" : "],\"more\":false}");
  return out;
}
static int check(struct row **at, const char *space, const char *key, int64_t expect, struct mr_err *err)
{
  int there = is(at, space, key);
  if (expect < 0 || (expect == 0 ? !there : there && (*at)->rev == expect)) return 1;
  refuse(err, MR_E_CONFLICT, 409, "the key was changed by someone else");
  return 0;
}
static void kv_done(void *a, void *b)
{
  struct kvjob *j = a;
  struct mr_doc *doc = NULL;
  (void)b;
  if (j->json) fake_parse(NULL, (struct mr_str){j->json, strlen(j->json)}, &doc, NULL);
  struct mr_reply r = {.size = sizeof r, .code = j->err.code, .err = j->err.code ? &j->err : NULL, .val = fake_root(doc)};
  j->done(j->ud, &r);
  fake_doc_free(doc);
  free(j->json);
  free(j);
}
static void carry_out(const struct mr_ext_kv *q, struct mr_doc *value, struct kvjob *j)
{
  char *space = dup_str(q->space), *key = dup_str(q->key), *after = dup_str(q->after), rev[60];
  struct row **at = row_find(space, key);
  if (fake.kv_fail > 0) {
    fake.kv_fail--;
    refuse(&j->err, MR_E_UNAVAILABLE, 503, "the disk is full");
  } else if (strcmp(q->op, "list") == 0) {
    j->json = list(space, key, after, q->limit ? q->limit : 100);
  } else if (strcmp(q->op, "get") == 0) {
    if (is(at, space, key)) j->json = row_json(*at, 0);
    else refuse(&j->err, MR_E_NOTFOUND, 404, "no such key");
  } else if (check(at, space, key, q->expect, &j->err)) {
    if (is(at, space, key)) row_free(at);
    if (strcmp(q->op, "put") == 0) {
      struct row *r = calloc(1, sizeof *r);
      *r = (struct row){*at, strdup(space), strdup(key), fake_text(value), ++last_rev, q->ttl_us ? wall() + q->ttl_us : 0};
      *at = r;
    }
    snprintf(rev, sizeof rev, "{\"rev\":%lld}", (long long)last_rev);
    j->json = strdup(rev);
  }
  free(space), free(key), free(after);
}
static int ext_kv(struct mr_runtime *rt, const struct mr_ext_kv *q, struct mr_doc **value,
                  void (*done)(void *, const struct mr_reply *), void *ud, struct mr_err *err)
{
  (void)rt, (void)err;
  struct kvjob *j = calloc(1, sizeof *j);
  j->done = done, j->ud = ud;
  carry_out(q, value ? *value : NULL, j);
  if (value) fake_doc_free(*value), *value = NULL;
  fake_push(kv_done, j, NULL);
  return MR_OK;
}
void fake_state_put(const char *space, const char *key, const char *json)
{
  struct row **at = row_find(space, key);
  if (is(at, space, key)) row_free(at);
  if (!json) return;
  struct row *r = calloc(1, sizeof *r);
  *r = (struct row){*at, strdup(space), strdup(key), strdup(json), ++last_rev, 0};
  *at = r;
}
const char *fake_state_get(const char *space, const char *key)
{
  struct row **at = row_find(space, key);
  return is(at, space, key) ? (*at)->value : NULL;
}
void fake_state_free(void)
{
  while (rows) row_free(&rows);
}

/* ----------------------------------------------------------------- watchers */

int mr_on(struct mr_runtime *rt, const struct mr_watcher *w, struct mr_err *err)
{
  (void)rt, (void)err;
  fake_drop_reg('o', w->name);
  struct fake_reg *r = fake_new_reg('o', w->name);
  r->run = (void (*)(void *, struct mr_use *))w->run, r->ud = w->ud, r->flags = w->flags;
  snprintf(r->filter, sizeof r->filter, "%s %s", w->events ? w->events : "", w->agent ? w->agent : "");
  return MR_OK;
}
int mr_on_remove(struct mr_runtime *rt, const char *name) { (void)rt; fake_drop_reg('o', name); return MR_OK; }
const struct mr_val *mr_seen_event(const struct mr_seen *e) { return fake_root(((const struct mr_use *)e)->input); }
struct mr_str mr_seen_session(const struct mr_seen *e) { (void)e; return (struct mr_str){"sesn_1", 6}; }
struct mr_str mr_seen_agent(const struct mr_seen *e) { (void)e; return (struct mr_str){"tester", 6}; }
int64_t mr_seen_pos(const struct mr_seen *e) { return (int64_t)((const struct mr_use *)e)->id; }
int mr_seen_done(struct mr_seen **e) { return fake_use_end((struct mr_use **)e, "done", NULL); }
int mr_seen_again(struct mr_seen **e) { return fake_use_end((struct mr_use **)e, "again", NULL); }

void fake_state_table(struct mr_ext *t) { t->kv = ext_kv; }
