/*
 * store.c - the front of the store: life cycle, deliveries to the loop thread, the cache of workspace
 * numbers. What a commit or a read is made of is in commit.c and read.c; files are blobs.c; the database
 * is a driver (struct mr_store_driver).
 *
 * Deliveries. Drivers finish commits and reads on their own threads and hand them to
 * mr_store_deliver; one post carries the whole list to the loop, where at most DELIVER_MAX run per pass.
 * Closing runs what is left on the closing thread.
 *
 * Invariant: see store_t.h. Loop thread, but for mr_store_deliver (any).
 */
#include "store/store_t.h"

enum { DELIVER_MAX = 512 };

/* ---- deliveries ---- */

static struct mr_done *take_done(struct mr_store *s)
{
  struct mr_done *d;

  pthread_mutex_lock(&s->mu);
  d = s->done_head;
  s->done_head = NULL;
  s->done_tail = &s->done_head;
  s->posted = false;
  pthread_mutex_unlock(&s->mu);
  return d;
}

/* Puts what a pass did not run back in front of what came meanwhile. */
static void untake_done(struct mr_store *s, struct mr_done *first)
{
  struct mr_done *last = first;
  bool post;

  while (last->next)
    last = last->next;
  pthread_mutex_lock(&s->mu);
  last->next = s->done_head;
  if (!s->done_head) s->done_tail = &last->next;
  s->done_head = first;
  post = !s->posted;
  s->posted = true;
  pthread_mutex_unlock(&s->mu);
  if (post) mr_loop_post(s->loop, &s->door->post);
}

static void door_fn(struct mr_post *p)
{
  struct mr_door *door = MR_OF(p, struct mr_door, post);
  struct mr_store *s = door->store;
  struct mr_done *d, *next;
  int n = 0;

  if (!s) {
    mr_mem_free(door->mem, door);
    return;
  }
  for (d = take_done(s); d && n < DELIVER_MAX; d = next, n++) {
    next = d->next;
    d->fn(d);
  }
  if (d) untake_done(s, d);
}

void mr_store_deliver(struct mr_store *s, struct mr_done *first)
{
  struct mr_done **tail = &first;
  bool post;

  if (!first) return;
  while (*tail)
    tail = &(*tail)->next;
  pthread_mutex_lock(&s->mu);
  *s->done_tail = first;
  s->done_tail = tail;
  post = !s->posted;
  s->posted = true;
  pthread_mutex_unlock(&s->mu);
  if (post) mr_loop_post(s->loop, &s->door->post);
}

static void spare_done(struct mr_done *d)
{
  struct mr_spare *sp = MR_OF(d, struct mr_spare, done);

  sp->used = false;
  sp->call(sp->fn, sp->ud, sp->code);
}

void mr_store_fail_later(struct mr_store *s, int code, mr_fail_call call, mr_any_fn fn, void *ud)
{
  for (int i = 0; i < MR_STORE_SPARES; i++) {
    struct mr_spare *sp = &s->spares[i];
    if (sp->used) continue;
    *sp =
        (struct mr_spare){.done.fn = spare_done, .code = code, .call = call, .fn = fn, .ud = ud, .used = true};
    mr_store_deliver(s, &sp->done);
    return;
  }
  call(fn, ud, code);
}

/* ---- life ---- */

static void store_free(struct mr_store *s)
{
  mr_mem_free(s->mem, s->workspaces);
  mr_mem_free(s->mem, s->spares);
  mr_mem_free(s->mem, s->dir);
  mr_mem_free(s->mem, s->door);
  pthread_mutex_destroy(&s->mu);
  mr_mem_free(s->mem, s);
}

static struct mr_store *store_alloc(struct mr_loop *l)
{
  const struct mr_sys *sys = mr_loop_sys(l);
  struct mr_store *s = mr_mem_zalloc(&sys->mem, sizeof *s);

  if (!s) return NULL;
  s->drv = &mr_store_sqlite;
  s->loop = l;
  s->sys = sys;
  s->mem = &sys->mem;
  s->lock_fd = -1;
  s->done_tail = &s->done_head;
  pthread_mutex_init(&s->mu, NULL);
  s->spares = mr_mem_zalloc(s->mem, MR_STORE_SPARES * sizeof *s->spares);
  s->workspaces = mr_mem_zalloc(s->mem, (size_t)MR_WS_SETS * MR_WS_WAYS * sizeof *s->workspaces);
  s->door = mr_mem_zalloc(s->mem, sizeof *s->door);
  if (!s->spares || !s->workspaces || !s->door) {
    store_free(s);
    return NULL;
  }
  s->door->store = s;
  s->door->mem = s->mem;
  s->door->post.fn = door_fn;
  return s;
}

int mr_store_open_with(struct mr_store **out, struct mr_loop *l, const struct mr_store_opts *o,
                       const struct mr_store_internal *in, struct mr_err *err)
{
  struct mr_store *s;
  int code = MR_OK;

  *out = NULL;
  if (!o->dir) return mr_err_set(err, MR_E_INVALID, "store", "no data directory was given");
  s = store_alloc(l);
  if (!s) return mr_err_nomem(err);
  s->memory = strcmp(o->dir, ":memory:") == 0;
  if (!s->memory)
    code = mr_dir_open(s, o->dir, o->wait_ms, err);
  else if (!(s->dir = mr_mem_strdup(s->mem, MR_S(":memory:"))))
    code = mr_err_nomem(err);
  if (code == MR_OK) code = s->drv->open(s, o, in, err);
  if (code == MR_OK) code = mr_blobs_open(s, in, err);
  if (code != MR_OK) mr_store_close(&s);
  *out = s;
  return code;
}

int mr_store_open(struct mr_store **out, struct mr_loop *l, const struct mr_store_opts *o, struct mr_err *err)
{
  return mr_store_open_with(out, l, o, NULL, err);
}

/* A callback may submit again; that comes back as MR_E_CLOSED, so this ends. */
static void run_all_done(struct mr_store *s)
{
  struct mr_done *d, *next;

  do {
    pthread_mutex_lock(&s->mu);
    d = s->done_head;
    s->done_head = NULL;
    s->done_tail = &s->done_head;
    pthread_mutex_unlock(&s->mu);
    for (next = d; next; next = d) {
      d = next->next;
      next->fn(next);
    }
  } while (s->done_head);
}

void mr_store_close(struct mr_store **sp)
{
  struct mr_store *s = *sp;

  if (!s) return;
  s->closing = true;
  mr_blobs_close(s);
  if (s->self) s->drv->drain(s);
  run_all_done(s);
  if (s->self) s->drv->close(s);
  mr_dir_close(s);
  mr_loop_run_posts(s->loop); /* ours, if it is still under way */
  if (s->posted) {
    s->door->store = NULL;
    s->door = NULL;
  }
  store_free(s);
  *sp = NULL;
}

const char *mr_store_dir(const struct mr_store *s)
{
  return s->dir;
}

bool mr_store_failing(const struct mr_store *s, struct mr_err *err)
{
  return s->drv->failing(s, err);
}

void mr_store_stats(const struct mr_store *s, struct mr_store_stats *out)
{
  s->drv->stats(s, out);
}

bool mr_store_id_ok(struct mr_str id)
{
  if (id.n == 0 || id.n > MR_STORE_ID_MAX) return false;
  for (size_t i = 0; i < id.n; i++) {
    char c = id.p[i];
    if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-'))
      return false;
  }
  return true;
}

/* ---- workspaces ---- */

/* The set of cache slots an id may be in (FNV-1a). */
static struct mr_ws_slot *ws_set(struct mr_store *s, struct mr_str id)
{
  uint32_t h = 2166136261u;

  for (size_t i = 0; i < id.n; i++)
    h = (h ^ (unsigned char)id.p[i]) * 16777619u;
  return &s->workspaces[(size_t)(h % MR_WS_SETS) * MR_WS_WAYS];
}

int mr_store_workspace(struct mr_store *s, struct mr_str workspace_id, int64_t *ws, struct mr_err *err)
{
  struct mr_ws_slot *set;
  int code;

  *ws = 0;
  if (!mr_store_id_ok(workspace_id))
    return mr_err_set(err, MR_E_INVALID, "workspace", "\"%.*s\" is not a workspace id",
                      (int)(workspace_id.n < 80 ? workspace_id.n : 80), workspace_id.p ? workspace_id.p : "");
  set = ws_set(s, workspace_id);
  for (int i = 0; i < MR_WS_WAYS; i++)
    if (set[i].ws && mr_str_is(workspace_id, set[i].id)) {
      *ws = set[i].ws;
      return MR_OK;
    }
  code = s->closing ? mr_err_set(err, MR_E_CLOSED, NULL, "the store is closing")
                    : s->drv->workspace(s, workspace_id, ws, err);
  if (code != MR_OK) return code;
  memmove(&set[1], &set[0], (MR_WS_WAYS - 1) * sizeof *set);
  memcpy(set[0].id, workspace_id.p, workspace_id.n);
  set[0].id[workspace_id.n] = '\0';
  set[0].ws = *ws;
  return MR_OK;
}
