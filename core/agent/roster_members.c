/*
 * roster_members.c - reading the agents that a roster names, one after the other: their latest document (is it
 * there, is it archived) and, where another version is pinned, that version. What it finds is judged elsewhere
 * (roster_save.c, snapshot.c). Loop thread.
 */
#include "agent/roster.h"

struct gather {
  struct mr_call *c;
  struct mr_members m;
  int at, cap;
  struct mr_str self;
  bool failed;
  void (*fn)(void *ud, int code, const struct mr_members *m);
  void *ud;
};

const struct mr_member *mr_member_find(const struct mr_members *m, struct mr_str id, int64_t asked)
{
  for (int i = 0; m && i < m->n; i++)
    if (m->v[i].asked == asked && mr_str_eq(m->v[i].id, id)) return &m->v[i];
  return NULL;
}

/* ---- whom ---- */

static void want(struct gather *g, yyjson_val *entry)
{
  struct mr_str id = yyjson_is_str(entry) ? mr_json_str(entry) : mr_json_get_str(entry, "id");
  int64_t version = mr_json_get_int(entry, "version", 0);

  if (!id.n || id.n > MR_ROSTER_ID_MAX || mr_str_eq(id, g->self) || mr_member_find(&g->m, id, version) ||
      g->m.n == g->cap)
    return;
  if (yyjson_is_obj(entry) && !mr_str_is(mr_json_get_str(entry, "type"), "agent")) return;
  g->m.v[g->m.n].id = mr_arena_str(g->c->arena, id);
  g->m.v[g->m.n].asked = version;
  if (g->m.v[g->m.n].id.p)
    g->m.n++;
  else
    g->failed = true;
}

static void want_list(struct gather *g, yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;

  for (int i = 0; i < MR_ROSTER_MAX && yyjson_is_arr(list) && (v = yyjson_arr_iter_next(&it)); i++)
    want(g, v);
}

static void want_all(struct gather *g, yyjson_val *multiagent)
{
  want_list(g, mr_json_get(multiagent, "agents"));
  want_list(g, mr_json_get(mr_json_get(multiagent, "subagents"), "predefined_agents"));
  want_list(g, mr_json_get(mr_json_get(multiagent, "workflows"), "predefined_agents"));
}

/* ---- reading ---- */

static void read_next(struct gather *g);

static struct mr_str keep(struct gather *g, struct mr_str s)
{
  struct mr_str copy = s.n ? mr_arena_str(g->c->arena, s) : mr_str_n("", 0);
  if (!copy.p) g->failed = true;
  return copy;
}

static void take(struct gather *g, struct mr_str body)
{
  struct mr_member *m = &g->m.v[g->at];
  yyjson_doc *doc = NULL;
  yyjson_val *agent, *model;
  struct mr_buf b;

  if (mr_json_parse(g->c->mem, body, SIZE_MAX, &doc, NULL) != MR_OK) {
    g->failed = true;
    return;
  }
  agent = yyjson_doc_get_root(doc);
  model = mr_json_get(agent, "model");
  m->version = mr_json_get_int(agent, "version", 1);
  m->nested = yyjson_is_obj(mr_json_get(agent, "multiagent"));
  m->name = keep(g, mr_json_get_str(agent, "name"));
  m->model = keep(g, mr_json_get_str(model, "id"));
  m->speed = keep(g, mr_json_get_str(model, "speed"));
  m->geo = keep(g, mr_json_get_str(model, "inference_geo"));
  mr_buf_init(&b, g->c->mem, SIZE_MAX / 2);
  mr_roster_alone(agent, &b);
  m->definition = keep(g, mr_buf_get(&b));
  if (b.failed) g->failed = true;
  mr_buf_free(&b);
  yyjson_doc_free(doc);
}

static bool is_there(const struct mr_rows *r)
{
  return r->code == MR_OK && r->n > 0;
}

static bool read_failed(struct gather *g, const struct mr_rows *r)
{
  if (r->code == MR_OK || r->code == MR_E_NOTFOUND) return false;
  mr_err_copy(&g->c->err, r->err);
  g->fn(g->ud, r->code, NULL);
  return true;
}

static void on_version(void *ud, const struct mr_rows *r)
{
  struct gather *g = ud;

  if (read_failed(g, r)) return;
  if (is_there(r))
    take(g, r->docs[0].body);
  else
    g->m.v[g->at].no_version = true;
  g->at++;
  read_next(g);
}

static void on_agent(void *ud, const struct mr_rows *r)
{
  struct gather *g = ud;
  struct mr_member *m = &g->m.v[g->at];

  if (read_failed(g, r)) return;
  m->missing = !is_there(r);
  if (!m->missing) {
    m->archived = r->docs[0].archived_us != 0;
    if (m->asked && m->asked != r->docs[0].version) {
      mr_read_doc_version(g->c->d->store, g->c->who.workspace, MR_S("agent"), m->id, m->asked, on_version, g);
      return;
    }
    take(g, r->docs[0].body);
  }
  g->at++;
  read_next(g);
}

static void read_next(struct gather *g)
{
  if (g->failed)
    g->fn(g->ud, mr_err_nomem(&g->c->err), NULL);
  else if (g->at == g->m.n)
    g->fn(g->ud, MR_OK, &g->m);
  else
    mr_read_doc(g->c->d->store, g->c->who.workspace, MR_S("agent"), g->m.v[g->at].id, on_agent, g);
}

void mr_roster_gather(struct mr_call *c, yyjson_val *one, yyjson_val *other, struct mr_str self,
                      void (*fn)(void *ud, int code, const struct mr_members *m), void *ud)
{
  struct gather *g = mr_arena_alloc(c->arena, sizeof *g);
  int cap = 2 * 3 * MR_ROSTER_MAX;

  if (g) g->m.v = mr_arena_alloc(c->arena, (size_t)cap * sizeof *g->m.v);
  if (!g || !g->m.v) {
    fn(ud, mr_err_nomem(&c->err), NULL);
    return;
  }
  g->c = c;
  g->cap = cap;
  g->self = self;
  g->fn = fn;
  g->ud = ud;
  want_all(g, one);
  want_all(g, other);
  read_next(g);
}
