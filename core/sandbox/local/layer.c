/*
 * layer.c - the layers that this runtime needs: one entry for each different list of packages, and who waits for it.
 * unknown -> looking -> ready, or -> building (layer_build.c) -> ready; or -> waiting, when another server that shares
 * the directory builds it.
 *
 * Invariant: whoever waits is told once, and a build goes on when nobody waits any more: what it made is there for
 * the next. What failed is not remembered: the next call tries again. Loop thread.
 */
#include "sandbox/local/layer_t.h"

#include <stdio.h>
#include <unistd.h>

enum { LOOK_AGAIN_US = 500000 };

const char *mr_manager_name(int manager)
{
  static const char *const names[MR_PKG_MANAGERS] = {"apt", "cargo", "gem", "go", "npm", "pip"};
  return names[manager];
}

/* ---- entries ---- */

static const char *key_of(struct mr_arena *a, const struct mr_sandbox_packages *p)
{
  struct mr_buf b;
  struct mr_jw w;
  const char *key;

  mr_buf_init(&b, mr_arena_mem(a), 4 << 20);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  for (int i = 0; i < MR_PKG_MANAGERS; i++) {
    if (!p->n[i]) continue;
    mr_jw_key(&w, mr_manager_name(i));
    mr_jw_arr(&w);
    for (int k = 0; k < p->n[i]; k++)
      mr_jw_c(&w, p->names[i][k]);
    mr_jw_arr_end(&w);
  }
  mr_jw_obj_end(&w);
  key = b.failed ? NULL : mr_arena_str(a, mr_buf_get(&b)).p;
  mr_buf_free(&b);
  return key;
}

static bool copy_lists(struct mr_arena *a, const struct mr_sandbox_packages *from,
                       struct mr_sandbox_packages *to)
{
  for (int i = 0; i < MR_PKG_MANAGERS; i++) {
    const char **list = mr_arena_alloc(a, ((size_t)from->n[i] + 1) * sizeof *list);
    if (!list) return false;
    for (int k = 0; k < from->n[i]; k++)
      if (!(list[k] = mr_arena_str(a, mr_str_c(from->names[i][k])).p)) return false;
    to->names[i] = list;
    to->n[i] = from->n[i];
  }
  return true;
}

static void on_timer(struct mr_timer *t);

struct mr_layer *mr_layer_get(struct mr_local *l, const struct mr_sandbox_packages *p)
{
  struct mr_arena *a = mr_arena_new(l->mem, 2048);
  const char *key = a ? key_of(a, p) : NULL;
  struct mr_layer *y = l->layers;

  while (key && y && strcmp(y->key, key) != 0)
    y = y->next;
  if (key && !y && (y = mr_mem_zalloc(l->mem, sizeof *y))) {
    if (!copy_lists(a, p, &y->packages)) {
      mr_mem_free(l->mem, y);
      mr_arena_free(&a);
      return NULL;
    }
    y->l = l;
    y->key = key;
    y->arena = a;
    a = NULL;
    y->lock = -1;
    mr_timer_init(&y->timer, on_timer);
    y->link = &l->layers;
    y->next = l->layers;
    if (y->next) y->next->link = &y->next;
    l->layers = y;
  }
  mr_arena_free(&a);
  if (!key || !y) return NULL;
  y->refs++;
  return y;
}

static void unlink_free(struct mr_layer *y)
{
  struct mr_prepare *p;

  mr_timer_cancel(y->l->loop, &y->timer);
  if (y->lock >= 0) close(y->lock);
  while ((p = y->prepares)) {
    y->prepares = p->next;
    mr_mem_free(y->l->mem, p);
  }
  *y->link = y->next;
  if (y->next) y->next->link = y->link;
  mr_arena_free(&y->arena);
  mr_mem_free(y->l->mem, y);
}

void mr_layer_free(struct mr_layer *y)
{
  if (y->refs == 0 && !y->job && !y->prepares && y->state != MR_LAYER_BUILDING && y->state != MR_LAYER_WAITING)
    unlink_free(y);
}

void mr_layer_release(struct mr_layer **yp)
{
  struct mr_layer *y = *yp;

  *yp = NULL;
  if (!y) return;
  y->refs--;
  mr_layer_free(y);
}

void mr_layers_free(struct mr_local *l)
{
  for (struct mr_box *b = l->boxes; b; b = b->next)
    b->layer = NULL;
  while (l->layers) {
    if (l->layers->job) l->layers->job->layer = NULL;
    unlink_free(l->layers);
  }
}

/* ---- those who wait ---- */

static void tell(struct mr_layer *y, const char *text)
{
  struct mr_err err;
  struct mr_sandbox_result res = {.code = MR_OK, .content = MR_S("[]")};
  struct mr_prepare *p;
  struct mr_buf b;

  mr_buf_init(&b, y->l->mem, 1 << 16);
  if (text) {
    mr_buf_c(&b, "[{\"type\":\"text\",\"text\":");
    mr_json_quote(&b, mr_str_c(text));
    mr_buf_c(&b, "}]");
    res.is_error = true;
    res.content = b.failed ? MR_S("[]") : mr_buf_get(&b);
    mr_err_set(&err, MR_E_UNAVAILABLE, NULL, "%s", text);
    res.err = &err;
  }
  y->refs++; /* a callback may let go of the last one */
  while ((p = y->prepares)) {
    y->prepares = p->next;
    p->fn(p->ud, &res);
    mr_mem_free(y->l->mem, p);
  }
  y->refs--;
  mr_buf_free(&b);
}

void mr_layer_over(struct mr_layer *y, const char *text)
{
  y->doing[0] = '\0';
  y->state = text ? MR_LAYER_UNKNOWN : MR_LAYER_READY;
  if (y->lock >= 0) close(y->lock);
  y->lock = -1;
  mr_timer_cancel(y->l->loop, &y->timer);
  for (struct mr_box *b = y->l->boxes; b; b = b->next) {
    if (b->layer != y || b->state != MR_BOX_LAYER) continue;
    b->state = MR_BOX_COLD;
    if (text) mr_calls_answer(b, MR_CALLS_QUEUED, text, true);
    mr_box_step(b);
  }
  tell(y, text);
  mr_layer_free(y);
}

/* ---- looking ---- */

static void look_done(struct mr_job *j)
{
  struct mr_layer_job *k = MR_OF(j, struct mr_layer_job, job);
  struct mr_layer *y = k->layer;
  char text[500];

  if (y) {
    y->job = NULL;
    memcpy(y->hash, k->hash, sizeof y->hash);
    y->trees = k->trees;
    y->lock = k->lock;
    k->lock = -1;
    if (k->code != MR_OK) {
      snprintf(text, sizeof text, "The environment's packages could not be looked for: %s", k->err.message);
      mr_layer_over(y, text);
    } else if (y->trees) {
      mr_layer_over(y, NULL);
    } else if (y->lock >= 0) {
      y->state = MR_LAYER_BUILDING;
      mr_layer_build(y);
    } else {
      y->state = MR_LAYER_WAITING;
      snprintf(y->doing, sizeof y->doing, "another server installs them");
      mr_timer_set(y->l->loop, &y->timer, LOOK_AGAIN_US);
    }
  }
  mr_layer_job_free(k);
}

struct mr_layer_job *mr_layer_job_new(struct mr_local *l, enum mr_layer_task task, const char *text,
                                      void (*done)(struct mr_job *j))
{
  struct mr_layer_job *k = mr_mem_zalloc(l->mem, sizeof *k);

  if (!k) return NULL;
  k->conf = mr_local_conf_ref(l->conf);
  k->task = task;
  k->lock = -1;
  k->job.work = mr_layer_work;
  k->job.done = done;
  k->text = mr_mem_strdup(l->mem, mr_str_c(text));
  if (k->text) return k;
  mr_layer_job_free(k);
  return NULL;
}

void mr_layer_job_free(struct mr_layer_job *k)
{
  struct mr_local_conf *c = k->conf;
  const struct mr_mem *mem = &c->sys->mem;

  if (k->lock >= 0) close(k->lock);
  mr_mem_free(mem, k->text);
  mr_mem_free(mem, k);
  mr_local_conf_unref(&c);
}

int mr_layer_submit(struct mr_layer *y, struct mr_layer_job *k)
{
  int code = k ? mr_pool_submit(y->l->pool, &k->job) : MR_E_NOMEM;

  if (code != MR_OK) {
    if (k) mr_layer_job_free(k);
    return code;
  }
  k->layer = y;
  y->job = k;
  return MR_OK;
}

static int look(struct mr_layer *y)
{
  struct mr_layer_job *k = mr_layer_job_new(y->l, MR_LAYER_LOOK, y->key, look_done);

  for (int i = 0; k && i < MR_PKG_MANAGERS; i++)
    k->used[i] = y->packages.n[i] > 0;
  if (mr_layer_submit(y, k) != MR_OK) return MR_E_FULL;
  y->state = MR_LAYER_LOOKING;
  return MR_OK;
}

static const char busy_text[] = "The environment's packages cannot be looked for now: the server is too busy.";

static void on_timer(struct mr_timer *t)
{
  struct mr_layer *y = MR_OF(t, struct mr_layer, timer);
  if (y->refs == 0 && !y->prepares) {
    y->state = MR_LAYER_UNKNOWN;
    mr_layer_free(y);
  } else if (y->state == MR_LAYER_WAITING && look(y) != MR_OK) {
    mr_layer_over(y, busy_text);
  }
}

/* ---- what the driver asks ---- */

bool mr_layer_ready(struct mr_box *b, const struct mr_local_machine *m)
{
  struct mr_layer *y = b->layer;
  char text[500];

  if (!y || y->state == MR_LAYER_READY) return true;
  if (!m->layers) {
    snprintf(text, sizeof text, "The environment's packages cannot be installed on this machine: %s",
             m->layers_why);
    mr_calls_answer(b, MR_CALLS_QUEUED, text, true);
    return false;
  }
  b->state = MR_BOX_LAYER;
  if (y->state == MR_LAYER_UNKNOWN && look(y) != MR_OK) mr_layer_over(y, busy_text);
  return false;
}

void mr_layer_forget(struct mr_box *b)
{
  if (b->layer && b->layer->state == MR_LAYER_READY) b->layer->state = MR_LAYER_UNKNOWN;
}

const char *mr_layer_doing(const struct mr_box *b)
{
  return b->layer && b->state == MR_BOX_LAYER ? b->layer->doing : "";
}

bool mr_layer_has(const struct mr_box *b, enum mr_sandbox_manager m)
{
  return b->layer && b->layer->packages.n[m] > 0;
}

int mr_layer_paths(const struct mr_box *b, char out[2][MR_LAYER_PATH])
{
  static const char *const names[] = {"more", "apt"};
  static const int trees[] = {MR_LAYER_MORE, MR_LAYER_APT};
  const struct mr_layer *y = b->layer ? b->layer : b->builds;
  int n = 0;

  if (!y || (b->builds && y->tree == MR_LAYER_APT)) return 0;
  for (int i = 0; i < 2; i++) {
    if (!(trees[i] & y->trees)) continue;
    snprintf(out[n++], MR_LAYER_PATH, "%s/layers/%s%s/%s", y->l->conf->root, y->hash, b->builds ? ".tmp" : "",
             names[i]);
  }
  return n;
}

int mr_local_prepare(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, mr_sandbox_fn fn,
                     void *ud)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  struct mr_prepare *p = mr_mem_zalloc(l->mem, sizeof *p);
  struct mr_layer *y = p ? mr_layer_get(l, &spec->packages) : NULL;

  if (!y) {
    mr_mem_free(l->mem, p);
    return MR_E_NOMEM;
  }
  y->refs--;
  if ((y->state == MR_LAYER_UNKNOWN || y->state == MR_LAYER_READY) && look(y) != MR_OK) {
    mr_mem_free(l->mem, p);
    mr_layer_free(y);
    return MR_E_FULL;
  }
  p->fn = fn;
  p->ud = ud;
  p->next = y->prepares;
  y->prepares = p;
  return MR_OK;
}

void mr_local_prepare_cancel(struct mr_sandbox_driver *d, mr_sandbox_fn fn, void *ud)
{
  struct mr_prepare **at, *p;

  for (struct mr_layer *y = MR_OF(d, struct mr_local, base)->layers; y; y = y->next)
    for (at = &y->prepares; (p = *at);)
      if (p->fn == fn && p->ud == ud) {
        *at = p->next;
        mr_mem_free(y->l->mem, p);
      } else {
        at = &p->next;
      }
}

/* ---- sweeping ---- */

static void sweep_done(struct mr_job *j)
{
  mr_layer_job_free(MR_OF(j, struct mr_layer_job, job));
}

void mr_layer_sweep(struct mr_local *l)
{
  struct mr_layer_job *k;
  struct mr_buf b;

  mr_buf_init(&b, l->mem, 1 << 20);
  mr_buf_c(&b, " ");
  for (const struct mr_layer *y = l->layers; y; y = y->next)
    if (y->refs > 0 && y->hash[0]) mr_buf_printf(&b, "%s ", y->hash);
  k = b.failed ? NULL : mr_layer_job_new(l, MR_LAYER_SWEEP, b.p, sweep_done);
  mr_buf_free(&b);
  if (k && mr_pool_submit(l->pool, &k->job) != MR_OK) mr_layer_job_free(k); /* the next one does it */
}
