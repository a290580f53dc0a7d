/*
 * fake_ext - the rest of the fake host's extension table: time, HTTP, files, watching, log, control.
 */
#include "fake_host_t.h"

/* --------------------------------------------------------- time, files, log */

static int64_t ext_now(struct mr_runtime *rt) { (void)rt; return fake.now_us; }
static int64_t ext_wall(struct mr_runtime *rt) { (void)rt; return fake.wall0 + fake.now_us; }
static int ext_timer(struct mr_runtime *rt, int64_t us, void (*fn)(void *), void *ud, uint64_t *id)
{
  (void)rt;
  if (fake.no_memory_timer) return MR_E_NOMEM;
  struct fake_timer *t = calloc(1, sizeof *t), **at = &fake.timers;
  *t = (struct fake_timer){NULL, fake.next_id++, fake.now_us + us, fn, ud};
  while (*at) at = &(*at)->next;
  *at = t;
  *id = t->id;
  return MR_OK;
}
static int ext_timer_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  for (struct fake_timer **at = &fake.timers; *at; at = &(*at)->next) {
    if ((*at)->id != id) continue;
    struct fake_timer *t = *at;
    *at = t->next;
    free(t);
    return 1;
  }
  return 0;
}
static void call_posted(void *a, void *b) { void (*fn)(void *); memcpy(&fn, &b, sizeof fn); fn(a); }
static int ext_post(struct mr_runtime *rt, void (*fn)(void *), void *ud)
{
  (void)rt;
  void *p;
  memcpy(&p, &fn, sizeof p);
  fake_push(call_posted, ud, p);
  return MR_OK;
}
static void put_str(struct mr_build *b, const char *key, struct mr_str v)
{
  mr_ext()->b_key(b, (struct mr_str){key, strlen(key)});
  mr_ext()->b_str(b, v.p ? v : (struct mr_str){"", 0});
}
static int ext_http(struct mr_runtime *rt, const struct mr_ext_http_req *req, const struct mr_ext_http_cbs *cbs,
                    void *ud, uint64_t *id, struct mr_err *err)
{
  (void)rt, (void)err;
  const struct mr_ext *x = mr_ext();
  struct mr_build *b = x->build(NULL);
  struct mr_doc *doc = NULL;
  x->b_open(b, 0);
  put_str(b, "method", (struct mr_str){req->method, strlen(req->method)});
  put_str(b, "url", (struct mr_str){req->url, strlen(req->url)});
  put_str(b, "body", req->body);
  x->b_key(b, (struct mr_str){"timeout_ms", 10}), x->b_int(b, req->timeout_ms);
  x->b_key(b, (struct mr_str){"max_body", 8}), x->b_int(b, req->max_body);
  x->b_key(b, (struct mr_str){"follow", 6}), x->b_int(b, req->follow);
  if (req->unix_path) put_str(b, "unix_path", (struct mr_str){req->unix_path, strlen(req->unix_path)});
  if (req->guard) x->b_key(b, (struct mr_str){"guard", 5}), x->b_int(b, req->guard);
  if (req->idle_ms) x->b_key(b, (struct mr_str){"idle_ms", 7}), x->b_int(b, req->idle_ms);
  if (req->connect_ms) x->b_key(b, (struct mr_str){"connect_ms", 10}), x->b_int(b, req->connect_ms);
  x->b_key(b, (struct mr_str){"headers", 7}), x->b_open(b, 1);
  for (int i = 0; req->headers && req->headers[i]; i++)
    x->b_str(b, (struct mr_str){req->headers[i], strlen(req->headers[i])});
  x->b_close(b), x->b_close(b);
  if (x->build_done(&b, &doc, err)) return err->code;
  struct fake_call *c = fake_call_new("http", doc, ud);
  c->is_http = 1;
  c->http = *cbs;
  c->reply_chunks = cbs->chunk != NULL;
  *id = c->id;
  fake_push(fake_call_ask, c, NULL);
  return MR_OK;
}
static void ext_http_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  struct fake_call *c = fake_call_by_id(id);
  if (!c) return;
  c->cancelled = 1;
  fake_call_settle(c, NULL, MR_E_CANCELLED, "cancelled", 0, "");
}
static void ext_http_pause(struct mr_runtime *rt, uint64_t id, int pause)
{
  (void)rt;
  struct fake_call *c = fake_call_by_id(id);
  if (c) c->http_paused = pause;
}

struct filejob { void (*done)(void *, const struct mr_reply *, struct mr_str); void *ud; char *json, *raw; size_t n;
  struct mr_err err; };
static void file_done(void *a, void *b)
{
  struct filejob *j = a;
  struct mr_doc *doc = NULL;
  (void)b;
  if (j->json) fake_parse(NULL, (struct mr_str){j->json, strlen(j->json)}, &doc, NULL);
  struct mr_reply r = {.size = sizeof r, .code = j->err.code, .err = j->err.code ? &j->err : NULL, .val = fake_root(doc)};
  j->done(j->ud, &r, (struct mr_str){j->raw, j->n});
  fake_doc_free(doc);
  free(j->json);
  free(j->raw);
  free(j);
}
static char *info(const char *name, const struct stat *st)
{
  char t[700];
  snprintf(t, sizeof t, "{\"name\":\"%s\",\"type\":\"%s\",\"size\":%lld,\"mtime\":%lld}", name,
           S_ISDIR(st->st_mode) ? "directory" : "file", (long long)st->st_size, (long long)st->st_mtime);
  return strdup(t);
}
static char *listing(const char *path)
{
  DIR *d = opendir(path);
  struct dirent *e;
  struct stat st;
  if (!d) return NULL;
  char *all = strdup("["), full_path[1024];
  while ((e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.') continue;
    snprintf(full_path, sizeof full_path, "%s/%s", path, e->d_name);
    if (stat(full_path, &st)) continue;
    char *one = info(e->d_name, &st);
    all = realloc(all, strlen(all) + strlen(one) + 3);
    if (all[1]) memcpy(all + strlen(all), ",", 2);
    memcpy(all + strlen(all), one, strlen(one) + 1);
    free(one);
  }
  closedir(d);
  all = realloc(all, strlen(all) + 2);
  memcpy(all + strlen(all), "]", 2);
  return all;
}
static int make_dirs(const char *path)
{
  char part[1000];
  for (size_t i = 1; path[i - 1] && i < sizeof part; i++) {
    if (path[i] && path[i] != '/') continue;
    snprintf(part, sizeof part, "%.*s", (int)i, path);
    if (mkdir(part, 0755) && errno != EEXIST) return -1;
  }
  return 0;
}
static int ext_file(struct mr_runtime *rt, const char *op, const char *path, struct mr_str arg,
                    void (*done)(void *, const struct mr_reply *, struct mr_str), void *ud, struct mr_err *err)
{
  (void)rt, (void)err;
  struct filejob *j = calloc(1, sizeof *j);
  struct stat st;
  int bad = 0;
  j->done = done, j->ud = ud;
  if (strcmp(op, "read") == 0) {
    FILE *f = fopen(path, "rbe");
    bad = !f;
    j->raw = malloc(1 << 16);
    if (f) j->n = fread(j->raw, 1, 1 << 16, f), fclose(f);
  } else if (strcmp(op, "write") == 0 || strcmp(op, "append") == 0) {
    FILE *f = fopen(path, op[0] == 'w' ? "wbe" : "abe");
    bad = !f || fwrite(arg.p, 1, arg.n, f) != arg.n;
    if (f) fclose(f);
  } else if (strcmp(op, "stat") == 0) {
    bad = stat(path, &st);
    if (!bad) j->json = info(path, &st);
  } else if (strcmp(op, "list") == 0) {
    j->json = listing(path);
    bad = !j->json;
  } else if (strcmp(op, "mkdir") == 0) {
    bad = make_dirs(path);
  } else if (strcmp(op, "remove") == 0) {
    bad = remove(path);
  } else {
    char to[1000];
    snprintf(to, sizeof to, "%.*s", (int)arg.n, arg.p);
    bad = rename(path, to);
  }
  if (bad) fake_fail(&j->err, errno == ENOENT ? MR_E_NOTFOUND : MR_E_IO, strerror(errno));
  if (bad) free(j->raw), j->raw = NULL, j->n = 0;
  fake_push(file_done, j, NULL);
  return MR_OK;
}

static int ext_watch(struct mr_runtime *rt, const char *path, void (*fn)(void *, struct mr_str), void *ud,
                     uint64_t *id, struct mr_err *err)
{
  (void)rt, (void)err;
  struct fake_watch *w = calloc(1, sizeof *w);
  *w = (struct fake_watch){.next = fake.watches, .id = fake.next_id++, .fn = fn, .ud = ud};
  snprintf(w->path, sizeof w->path, "%s", path);
  fake.watches = w;
  *id = w->id;
  return MR_OK;
}
static void ext_watch_cancel(struct mr_runtime *rt, uint64_t id)
{
  (void)rt;
  for (struct fake_watch **at = &fake.watches; *at; at = &(*at)->next) {
    if ((*at)->id != id) continue;
    struct fake_watch *w = *at;
    *at = w->next;
    free(w);
    return;
  }
}

static void ext_log(struct mr_runtime *rt, int level, const char *source, struct mr_str line)
{
  (void)rt;
  size_t n = strlen(fake.logs);
  if (getenv("HOST_VERBOSE")) fprintf(stderr, "%d %s: %.*s\n", level, source, (int)line.n, line.p);
  if (n > sizeof fake.logs - 2000) n = 0;
  snprintf(fake.logs + n, sizeof fake.logs - n, "%d %s: %.*s\n", level, source, (int)line.n, line.p);
}
static void ext_set_generation(struct mr_runtime *rt, int64_t g, struct mr_str e)
{
  (void)rt;
  fake.generation = g;
  snprintf(fake.generation_error, sizeof fake.generation_error, "%.*s", (int)e.n, e.p);
}
static void ext_set_scripts(struct mr_runtime *rt, struct mr_str json)
{
  (void)rt;
  snprintf(fake.scripts, sizeof fake.scripts, "%.*s", (int)json.n, json.p);
}
static int ext_on_control(struct mr_runtime *rt, void (*fn)(void *, const char *, const struct mr_val *, uint64_t), void *ud)
{
  (void)rt;
  fake.control_fn = fn;
  fake.control_ud = ud;
  return MR_OK;
}
static void ext_control_done(struct mr_runtime *rt, uint64_t id, int code, struct mr_str json)
{
  (void)rt, (void)id;
  fake.controls--;
  snprintf(fake.control_answer, sizeof fake.control_answer, "%d %.*s", code, (int)json.n, json.p);
}
void fake_ext_table(struct mr_ext *t)
{
  t->now_us = ext_now, t->wall_us = ext_wall, t->timer = ext_timer, t->timer_cancel = ext_timer_cancel;
  t->post = ext_post, t->http = ext_http, t->http_cancel = ext_http_cancel, t->http_pause = ext_http_pause, t->file = ext_file;
  t->watch = ext_watch, t->watch_cancel = ext_watch_cancel, t->log = ext_log;
  t->set_generation = ext_set_generation, t->set_scripts = ext_set_scripts;
  t->on_control = ext_on_control, t->control_done = ext_control_done;
}
