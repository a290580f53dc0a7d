/*
 * status - what is known of the generations: which run, with what tasks, what the last attempts came to; and
 * rig.reload, by which a task asks for another one.
 *
 * One document says it all: `moonrig reload --status` prints it, rig.generations() returns it, and the part
 * that does not change from call to call is in /health. A task's wish is a pend in s->reloads; the loop carries it
 * out between two turns, as a reload must not run inside of a task, and then wakes the task, which goes on on
 * the generation it began on.
 *
 * Script thread only. Not here: loading (reload.c), when files changed (watch.c).
 */
#include <stdio.h>
#include <time.h>
#include "script/script_t.h"

static struct mr_str text(const char *p)
{
  return (struct mr_str){p, strlen(p)};
}

/* ---------------------------------------------------------------- document */

struct doc {
  const struct mr_ext *x;
  struct mr_build *b;
};

static void key(struct doc *d, const char *name)
{
  d->x->b_key(d->b, text(name));
}

static void put_int(struct doc *d, const char *name, int64_t v)
{
  key(d, name);
  d->x->b_int(d->b, v);
}

static void put_text(struct doc *d, const char *name, const char *v) /* "" is null */
{
  key(d, name);
  if (v[0])
    d->x->b_str(d->b, text(v));
  else
    d->x->b_null(d->b);
}

static void put_time(struct doc *d, const char *name, int64_t us)
{
  char at[40] = "";
  time_t sec = (time_t)(us / 1000000);
  struct tm tm;
  if (us && gmtime_r(&sec, &tm)) {
    size_t n = strftime(at, sizeof at, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(at + n, sizeof at - n, ".%03dZ", (int)(us / 1000 % 1000));
  }
  put_text(d, name, at);
}

static void put_try(struct doc *d, const struct mr_lua_try *t)
{
  d->x->b_open(d->b, 0);
  put_time(d, "at", t->at_us);
  put_text(d, "what", t->what);
  put_int(d, "generation", t->number);
  put_int(d, "files", t->files);
  key(d, "took_ms");
  d->x->b_real(d->b, (double)t->took_us / 1000);
  put_text(d, "error", t->error);
  d->x->b_close(d->b);
}

static void put_history(struct mr_lua_vm *s, struct doc *d)
{
  const struct mr_script *h = s->h;
  int n = h->ntries < MR_LUA_TRIES ? h->ntries : MR_LUA_TRIES;
  key(d, "history");
  d->x->b_open(d->b, 1);
  for (int i = 1; i <= n; i++) /* the latest first */
    put_try(d, &h->tries[(h->ntries - i) % MR_LUA_TRIES]);
  d->x->b_close(d->b);
}

/* Members that change with an attempt only. */
static void put_settled(struct mr_lua_vm *s, struct doc *d)
{
  put_int(d, "generation", s->cur ? s->cur->number : 0);
  key(d, "previous");
  if (s->prev)
    d->x->b_int(d->b, s->prev->number);
  else
    d->x->b_null(d->b);
  put_int(d, "files", s->cur ? s->cur->nfiles : 0);
  put_text(d, "error", s->last_error);
  put_time(d, "error_at", s->last_error[0] ? s->error_us : 0);
  put_history(s, d);
}

static const char *const kinds[MR_TASK_KINDS] = {"main",  "tool",  "hook",  "model",
                                                 "start", "spawn", "route", "event"};

static void put_live(struct mr_lua_vm *s, struct doc *d, const struct mr_lua_gen *g)
{
  int64_t oldest = 0, now = s->ext->now_us(s->rt);
  int by_kind[MR_TASK_KINDS] = {0}, total = 0;
  for (const struct mr_lua_task *t = s->tasks; t; t = t->next) {
    if (t->gen != g) continue;
    by_kind[t->kind]++;
    total++;
    if (now - t->began_us > oldest) oldest = now - t->began_us;
  }
  d->x->b_open(d->b, 0);
  put_int(d, "number", g->number);
  put_int(d, "files", g->nfiles);
  put_int(d, "running", total);
  key(d, "tasks");
  d->x->b_open(d->b, 0);
  for (int i = 0; i < MR_TASK_KINDS; i++)
    if (by_kind[i]) put_int(d, kinds[i], by_kind[i]);
  d->x->b_close(d->b);
  key(d, "oldest_s");
  if (total)
    d->x->b_real(d->b, (double)oldest / 1e6);
  else
    d->x->b_null(d->b);
  d->x->b_close(d->b);
}

struct mr_doc *mr_lua_status(struct mr_lua_vm *s)
{
  struct doc d = {s->ext, s->ext->build(s->rt)};
  struct mr_doc *out = NULL;
  if (!d.b) return NULL;
  d.x->b_open(d.b, 0);
  put_settled(s, &d);
  put_int(&d, "tasks", s->ntasks);
  put_int(&d, "memory_bytes", (int64_t)s->mem_used);
  key(&d, "live");
  d.x->b_open(d.b, 1);
  for (const struct mr_lua_gen *g = s->gens; g; g = g->next)
    put_live(s, &d, g);
  d.x->b_close(d.b);
  d.x->b_close(d.b);
  d.x->build_done(&d.b, &out, NULL);
  return out;
}

/* ------------------------------------------------------------------ /health */

static void publish(struct mr_lua_vm *s)
{
  struct doc d = {s->ext, s->ext->build(s->rt)};
  struct mr_doc *doc = NULL;
  char *json = NULL;
  size_t n = 0;
  s->ext->set_generation(s->rt, s->cur ? s->cur->number : 0, text(s->last_error));
  if (!d.b) return;
  d.x->b_open(d.b, 0);
  put_settled(s, &d);
  d.x->b_close(d.b);
  if (d.x->build_done(&d.b, &doc, NULL) == MR_OK &&
      d.x->write(s->rt, d.x->doc_root(doc), 0, &json, &n) == MR_OK)
    s->ext->set_scripts(s->rt, (struct mr_str){json, n});
  mr_free(s->rt, json);
  d.x->doc_free(doc);
}

void mr_lua_status_note(struct mr_lua_vm *s, const struct mr_lua_try *t)
{
  struct mr_lua_try *at = &s->h->tries[s->h->ntries++ % MR_LUA_TRIES];
  *at = *t;
  mr_lua_scrub(at->error); /* it may have been cut inside of a character */
  snprintf(s->last_error, sizeof s->last_error, "%s", at->error);
  s->error_us = t->at_us;
  publish(s);
}

void mr_lua_status_fail(struct mr_lua_vm *s, const char *msg)
{
  snprintf(s->last_error, sizeof s->last_error, "%s", msg);
  mr_lua_scrub(s->last_error);
  s->error_us = s->ext->wall_us(s->rt);
  publish(s);
}

/* --------------------------------------------------------------- rig.reload */

static void undo_reload(struct mr_lua_pend *p)
{
  struct mr_lua_pend **at = &p->s->reloads;
  while (*at != p)
    at = &(*at)->next;
  *at = p->next;
  mr_lua_pend_drop(p);
}

/* reload(rollback) -> generation; or nil, err */
static int n_reload(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  int rollback = lua_toboolean(L, 1);
  mr_lua_may_wait(L, s, "rig.reload");
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_reload), **at = &s->reloads;
  if (!p) return luaL_error(L, "out of memory");
  p->rollback = rollback;
  while (*at)
    at = &(*at)->next;
  *at = p;
  return mr_lua_pend_wait(L, p);
}

static void push_number(lua_State *L, void *ud)
{
  lua_pushinteger(L, (lua_Integer) * (int64_t *)ud);
}

void mr_lua_reloads_run(struct mr_lua_vm *s)
{
  while (s->reloads) {
    struct mr_err err = {.size = sizeof err};
    struct mr_lua_pend *p = s->reloads;
    int rc = mr_lua_vm_reload(s, p->rollback, &err);
    int64_t number = s->cur ? s->cur->number : 0;
    if (s->reloads != p) continue; /* it was a watcher's, which ends with its generation */
    s->reloads = p->next;
    if (rc)
      mr_lua_pend_fail(p, rc, &err);
    else
      mr_lua_pend_value(p, push_number, &number);
  }
}

static void drop_doc(struct mr_lua_vm *s, void *doc)
{
  s->ext->doc_free(doc);
}

/* generations() -> the status document as a table */
static int n_generations(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_lua_box *box = mr_lua_box(L, s, drop_doc);
  struct mr_doc *doc = box->p = mr_lua_status(s);
  if (!doc) return luaL_error(L, "out of memory");
  mr_lua_push_val(L, s, s->ext->doc_root(doc), MR_V_WIRE);
  mr_lua_box_drop(L, -2);
  return 1;
}

const luaL_Reg mr_lua_status_natives[] = {{"reload", n_reload}, {"generations", n_generations}, {NULL, NULL}};
