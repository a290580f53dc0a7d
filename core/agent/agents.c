/*
 * agents.c - versioned agents (API: resources §2): create, update with version conflict and no-op detection,
 * archive, lists. The stored body is the wire object of the latest version; each version is kept.
 */
#include "agent/agents.h"
#include "agent/roster.h"

#include <stdio.h>

enum { LIST_DEFAULT = 20, LIST_MAX = 100 };

static void text_or_null(struct mr_jw *w, const char *key, yyjson_val *v)
{
  mr_jw_key(w, key);
  if (yyjson_is_str(v) && yyjson_get_len(v) > 0)
    mr_jw_str(w, mr_json_str(v));
  else
    mr_jw_null(w);
}

/* The value of a field in an update: what was sent, or what is stored. */
static yyjson_val *pick(yyjson_val *in, yyjson_val *old, const char *key)
{
  yyjson_val *v = mr_json_get(in, key);
  return v ? v : mr_json_get(old, key);
}

static int write_member(struct mr_call *c, struct mr_jw *w, const char *key, yyjson_val *v,
                        int (*resolve)(struct mr_call *c, yyjson_val *given, struct mr_buf *out))
{
  mr_jw_key(w, key);
  mr_jw_item(w);
  return resolve(c, v, w->b);
}

static int check_identity(struct mr_call *c, yyjson_val *v)
{
  struct mr_str type = mr_json_get_str(v, "type");

  if (!v || yyjson_is_null(v) || mr_str_is(type, "service_account")) return MR_OK;
  if (mr_str_is(type, "aws_role") && mr_json_get_str(v, "role_arn").n &&
      mr_json_get_str(v, "role_arn").n <= 2048)
    return MR_OK;
  return mr_err_set(
      &c->err, MR_E_INVALID, "execution_identity",
      "execution_identity: service_account, or aws_role with role_arn of at most 2,048 characters");
}

/* Where the model runs, if that is pinned: of the model that was sent, or of the stored one. */
static struct mr_str geo_of(yyjson_val *model, yyjson_val *old)
{
  return mr_json_get_str(model ? model : mr_json_get(old, "model"), "inference_geo");
}

static void write_identity(struct mr_jw *w, yyjson_val *identity)
{
  mr_jw_key(w, "execution_identity");
  if (!mr_str_is(mr_json_get_str(identity, "type"), "aws_role")) {
    mr_jw_raw(w, MR_S("{\"type\":\"service_account\"}"));
    return;
  }
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "aws_role");
  mr_jw_kstr(w, "role_arn", mr_json_get_str(identity, "role_arn"));
  mr_jw_obj_end(w);
}

struct version { /* what is written */
  struct mr_str id;
  int64_t version, created_us, updated_us;
  const struct mr_members *members; /* of its roster, or NULL */
};

/* The whole object, resolved, from what was sent over what is stored (old NULL: create). */
static int write_agent(struct mr_call *c, const struct version *v, yyjson_val *old, struct mr_buf *out)
{
  yyjson_val *in = c->in, *model = mr_json_get(in, "model");
  yyjson_val *identity = pick(in, old, "execution_identity");
  struct mr_roster_owner who = {v->id, geo_of(model, old), v->version};
  struct mr_jw w;
  int code = check_identity(c, identity);

  if (code != MR_OK) return code;
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "id", v->id);
  mr_jw_kc(&w, "type", "agent");
  mr_jw_kint(&w, "version", v->version);
  mr_jw_kstr(&w, "name", mr_json_str(pick(in, old, "name")));
  text_or_null(&w, "description", pick(in, old, "description"));
  text_or_null(&w, "system", pick(in, old, "system"));
  mr_jw_key(&w, "model");
  mr_jw_item(&w);
  code = mr_agent_model(c, model ? model : mr_json_get(old, "model"), mr_json_get(old, "model"), out);
  if (code == MR_OK) code = write_member(c, &w, "tools", pick(in, old, "tools"), mr_agent_tools);
  if (code == MR_OK) code = write_member(c, &w, "mcp_servers", pick(in, old, "mcp_servers"), mr_agent_servers);
  if (code == MR_OK) code = write_member(c, &w, "skills", pick(in, old, "skills"), mr_agent_skills);
  mr_jw_key(&w, "multiagent");
  mr_jw_item(&w);
  if (code == MR_OK)
    code = mr_roster_write(c, v->members, &who, mr_json_get(in, "multiagent"), mr_json_get(old, "multiagent"),
                           out);
  write_identity(&w, identity);
  mr_jw_key(&w, "metadata");
  mr_jw_item(&w);
  if (code == MR_OK)
    code = mr_metadata_merge(c, mr_json_get(old, "metadata"), mr_json_get(in, "metadata"), false, out);
  mr_jw_ktime(&w, "created_at", v->created_us);
  mr_jw_ktime(&w, "updated_at", v->updated_us);
  mr_jw_kraw(&w, "archived_at", MR_S("null"));
  mr_jw_obj_end(&w);
  return code;
}

static int check_written(struct mr_call *c, struct mr_buf *body, yyjson_doc **doc)
{
  int code = mr_json_parse(c->mem, mr_buf_get(body), SIZE_MAX, doc, &c->err);
  return code == MR_OK ? mr_agent_cross_check(c, yyjson_doc_get_root(*doc), false) : code;
}

static void create(void *ud, int code, const struct mr_members *members)
{
  struct mr_call *c = ud;
  int64_t now = mr_loop_wall_us(c->d->loop);
  struct version v = {mr_str_c(c->priv), 1, now, now, members};
  struct mr_doc_row row = {.kind = MR_S("agent"), .rev = 1, .version = 1};
  yyjson_doc *doc = NULL;

  row.id = v.id;
  row.name = mr_json_get_str(c->in, "name");
  row.created_us = row.updated_us = now;
  if (code == MR_OK) code = write_agent(c, &v, NULL, &c->out);
  if (code == MR_OK) code = check_written(c, &c->out, &doc);
  yyjson_doc_free(doc);
  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_doc_create(c, &row, true);
}

void mr_agents_create(struct mr_call *c)
{
  yyjson_val *roster = mr_json_get(c->in, "multiagent");
  char *id = mr_arena_alloc(c->arena, MR_ID_MAX);

  if (!id || mr_id_make(c->d->sys, id, "agent") != MR_OK) {
    mr_call_fail(c, MR_E_IO, NULL, "no randomness");
    return;
  }
  c->priv = id;
  if (yyjson_is_obj(roster))
    mr_roster_gather(c, roster, NULL, mr_str_c(id), create, c);
  else
    create(c, MR_OK, NULL);
}

/* ---- update ---- */

/* Equal but for version and times? */
static bool same_agent(yyjson_val *a, yyjson_val *b)
{
  static const char *const keys[] = {"name",   "description",        "system",  "model", "tools", "mcp_servers",
                                     "skills", "execution_identity", "metadata"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (!mr_json_equal(mr_json_get(a, keys[i]), mr_json_get(b, keys[i]))) return false;
  return mr_roster_same(mr_json_get(a, "multiagent"), mr_json_get(b, "multiagent"), mr_json_get_str(a, "id"));
}

static int make_update(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body,
                       struct mr_doc_row *next)
{
  struct mr_call *c = p->c;
  int64_t given = mr_json_get_int(c->in, "version", 0), now = mr_loop_wall_us(c->d->loop);
  struct version v = {old->id, old->version + 1, old->created_us, now, c->priv};
  yyjson_doc *doc = NULL;
  bool same;
  int code;

  if (given && given != old->version)
    return mr_err_set(&c->err, MR_E_CONFLICT, "version",
                      "version: the agent is at version %lld, not %lld; read it again and repeat the change",
                      (long long)old->version, (long long)given);
  if (old->archived_us)
    return mr_err_set(&c->err, MR_E_STATE, NULL, "agent " MR_FMT " is archived and cannot be changed",
                      MR_ARG(old->id));
  next->version = v.version;
  next->updated_us = now;
  code = write_agent(c, &v, body, &p->body);
  if (code == MR_OK) code = check_written(c, &p->body, &doc);
  same = code == MR_OK && same_agent(yyjson_doc_get_root(doc), body);
  yyjson_doc_free(doc);
  if (code == MR_OK && mr_json_get_str(c->in, "name").n) next->name = mr_json_get_str(c->in, "name");
  return same ? MR_MORE : code;
}

static void update(void *ud, int code, const struct mr_members *members)
{
  struct mr_doc_change *p = ud;

  p->c->priv = (void *)(uintptr_t)members;
  if (code != MR_OK)
    mr_call_done(p->c, code);
  else
    mr_doc_change(p);
}

/* The agents of the roster are read first: those that are sent, and those that stay and must fit the model. */
static void on_before(void *ud, const struct mr_rows *r)
{
  struct mr_doc_change *p = ud;
  struct mr_call *c = p->c;
  yyjson_doc *doc = NULL;
  int code = mr_read_check(c, r, NULL, "agent", p->id);

  if (code == MR_OK) code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK)
    mr_roster_gather(c, mr_json_get(c->in, "multiagent"), mr_json_get(yyjson_doc_get_root(doc), "multiagent"),
                     p->id, update, p);
  else
    mr_call_done(c, code);
  yyjson_doc_free(doc);
}

void mr_agents_update(struct mr_call *c)
{
  static const char *const fixed[] = {"name", "model"};
  struct mr_doc_change *p = mr_arena_alloc(c->arena, sizeof *p);

  for (int i = 0; i < 2; i++)
    if (yyjson_is_null(mr_json_get(c->in, fixed[i]))) {
      mr_call_fail(c, MR_E_INVALID, fixed[i], "%s: cannot be cleared", fixed[i]);
      return;
    }
  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  *p = (struct mr_doc_change){
      .c = c, .kind = "agent", .id = c->path[0], .make = make_update, .version_row = true};
  if (yyjson_is_obj(mr_json_get(c->in, "multiagent")) || mr_json_get(c->in, "model"))
    mr_read_doc(c->d->store, c->who.workspace, MR_S("agent"), p->id, on_before, p);
  else
    update(p, MR_OK, NULL);
}

static int make_archive(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body,
                        struct mr_doc_row *next)
{
  if (old->archived_us) return MR_MORE;
  next->archived_us = mr_loop_wall_us(p->c->d->loop);
  mr_doc_archive(p, body, next->archived_us);
  return MR_OK;
}

void mr_agents_archive(struct mr_call *c)
{
  struct mr_doc_change *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  *p = (struct mr_doc_change){.c = c, .kind = "agent", .id = c->path[0], .make = make_archive};
  mr_doc_change(p);
}

/* ---- reading ---- */

static void on_version(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  char version[32];
  int code;

  snprintf(version, sizeof version, "%lld", (long long)mr_json_get_int(c->in, "version", 0));
  code =
      mr_read_check(c, r, "version", mr_arena_printf(c->arena, "agent " MR_FMT ": version", MR_ARG(c->path[0])),
                    mr_str_c(version));
  if (code == MR_OK) mr_buf_str(&c->out, r->docs[0].body);
  mr_call_done(c, code);
}

void mr_agents_retrieve(struct mr_call *c)
{
  int64_t version = mr_json_get_int(c->in, "version", 0);

  if (version)
    mr_read_doc_version(c->d->store, c->who.workspace, MR_S("agent"), c->path[0], version, on_version, c);
  else
    mr_doc_answer(c, "agent", c->path[0]);
}

void mr_agents_list(struct mr_call *c)
{
  mr_doc_list(c, "agent", LIST_DEFAULT, LIST_MAX);
}

static void on_versions(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  struct mr_jw w;

  if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  if (r->n == 0 && !mr_json_get(c->in, "page")) {
    mr_not_found(c, "agent", c->path[0]);
    return;
  }
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < r->n; i++)
    mr_jw_raw(&w, r->docs[i].body);
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "next_page");
  if (r->more)
    mr_jw_str(&w, mr_page_by_pos(c, false, r->docs[r->n - 1].version));
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_agents_versions_list(struct mr_call *c)
{
  struct mr_page page;
  int code = mr_page_read(c, LIST_DEFAULT, LIST_MAX, false, &page);

  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_read_doc_versions(c->d->store, c->who.workspace, MR_S("agent"), c->path[0], page.pos, page.limit,
                         on_versions, c);
}
