/*
 * environments.c - where sessions' commands run, as configuration (API: resources §7). Not versioned; a
 * running sandbox keeps the configuration that it was made with.
 */
#include "agent/work_t.h"

#include <stdio.h>

static const char *const managers[] = {"apt", "cargo", "gem", "go", "npm", "pip"};

/* ---- the config, with every default filled in ---- */

static yyjson_val *pick(yyjson_val *given, yyjson_val *old, const char *key)
{
  yyjson_val *v = mr_json_get(given, key);
  return v && !yyjson_is_null(v) ? v : mr_json_get(old, key);
}

static bool host_ok(struct mr_str h)
{
  if (mr_str_starts(h, MR_S("*."))) h.p += 2, h.n -= 2;
  for (size_t i = 0; i < h.n; i++) {
    char ch = h.p[i];
    if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '-' ||
          ch == '.' || ch == '_'))
      return false;
  }
  return h.n > 0 && h.n <= 253 && h.p[0] != '.' && h.p[h.n - 1] != '.';
}

static int write_networking(struct mr_call *c, struct mr_jw *w, yyjson_val *given, yyjson_val *old,
                            bool *managers_ok)
{
  struct mr_str type = mr_json_get_str(given, "type");
  yyjson_val *hosts, *v;
  yyjson_arr_iter it;

  if (!type.n) type = mr_json_get_str(old, "type");
  if (!type.n || mr_str_is(type, "unrestricted")) {
    *managers_ok = true;
    mr_jw_raw(w, MR_S("{\"type\":\"unrestricted\"}"));
    return MR_OK;
  }
  if (!mr_str_is(type, "limited"))
    return mr_err_set(&c->err, MR_E_INVALID, "config.networking.type",
                      "config.networking.type: unrestricted or limited");
  hosts = pick(given, old, "allowed_hosts");
  it = yyjson_arr_iter_with(hosts);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "limited");
  mr_jw_key(w, "allowed_hosts");
  mr_jw_arr(w);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (!host_ok(mr_json_str(v)))
      return mr_err_set(
          &c->err, MR_E_INVALID, "config.networking.allowed_hosts",
          "config.networking.allowed_hosts: host names, or *.example.com; no scheme, port or path");
    mr_jw_str(w, mr_json_str(v));
  }
  mr_jw_arr_end(w);
  mr_jw_key(w, "allow_mcp_servers");
  mr_jw_bool(w, yyjson_get_bool(pick(given, old, "allow_mcp_servers")));
  *managers_ok = yyjson_get_bool(pick(given, old, "allow_package_managers"));
  mr_jw_key(w, "allow_package_managers");
  mr_jw_bool(w, *managers_ok);
  mr_jw_obj_end(w);
  return MR_OK;
}

/* Names of packages: MR_E_INVALID names the list. */
static int check_packages(struct mr_call *c, yyjson_val *given)
{
  char field[64];
  yyjson_val *v;

  for (size_t i = 0; i < sizeof managers / sizeof *managers; i++) {
    yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(given, managers[i]));
    snprintf(field, sizeof field, "config.packages.%s", managers[i]);
    while ((v = yyjson_arr_iter_next(&it)))
      if (!mr_sandbox_package_ok(mr_json_str(v)))
        return mr_err_set(&c->err, MR_E_INVALID, field,
                          "%s: names of packages: not empty, no control characters, no \"-\" in front", field);
  }
  return MR_OK;
}

static size_t write_packages(struct mr_jw *w, yyjson_val *given, yyjson_val *old)
{
  size_t n = 0;

  mr_jw_obj(w);
  mr_jw_kc(w, "type", "packages");
  for (size_t i = 0; i < sizeof managers / sizeof *managers; i++) {
    yyjson_val *v = pick(given, old, managers[i]);
    n += yyjson_arr_size(v);
    mr_jw_key(w, managers[i]);
    if (yyjson_is_arr(v)) {
      w->after_key = false;
      mr_json_write(w->b, v, false);
    } else {
      mr_jw_raw(w, MR_S("[]"));
    }
  }
  mr_jw_obj_end(w);
  return n;
}

static int write_config(struct mr_call *c, struct mr_jw *w, yyjson_val *given, yyjson_val *old)
{
  struct mr_str type = mr_json_get_str(given, "type"), had = mr_json_get_str(old, "type");
  bool managers_ok = true;
  size_t n;
  int code;

  if (type.n && had.n && !mr_str_eq(type, had))
    return mr_err_code(&c->err, MR_E_INVALID, "invalid_config_type_change", "config.type",
                       "config.type: an environment cannot change from " MR_FMT " to " MR_FMT, MR_ARG(had),
                       MR_ARG(type));
  if (!type.n) type = had.n ? had : MR_S("cloud");
  if (mr_str_is(type, "self_hosted")) {
    mr_jw_raw(w, MR_S("{\"type\":\"self_hosted\"}"));
    return MR_OK;
  }
  if (!mr_str_is(type, "cloud"))
    return mr_err_set(&c->err, MR_E_INVALID, "config.type", "config.type: cloud or self_hosted");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "cloud");
  mr_jw_key(w, "networking");
  code = write_networking(c, w, mr_json_get(given, "networking"), mr_json_get(old, "networking"), &managers_ok);
  if (code == MR_OK) code = check_packages(c, mr_json_get(given, "packages"));
  if (code != MR_OK) return code;
  mr_jw_key(w, "packages");
  n = write_packages(w, mr_json_get(given, "packages"), mr_json_get(old, "packages"));
  mr_jw_obj_end(w);
  if (n > 0 && !managers_ok)
    return mr_err_set(&c->err, MR_E_INVALID, "config.networking.allow_package_managers",
                      "config.networking.allow_package_managers: must be true when packages are listed");
  return MR_OK;
}

static int write_environment(struct mr_call *c, struct mr_str id, yyjson_val *old, int64_t created_us,
                             int64_t updated_us, struct mr_buf *out)
{
  yyjson_val *name = pick(c->in, old, "name"), *description = mr_json_get(c->in, "description");
  struct mr_jw w;
  int code;

  if (mr_str_is(mr_json_get_str(c->in, "scope"), "account"))
    return mr_err_set(&c->err, MR_E_INVALID, "scope", "scope: only organization is possible here");
  if (!description) description = mr_json_get(old, "description");
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "id", id);
  mr_jw_kc(&w, "type", "environment");
  mr_jw_kstr(&w, "name", mr_json_str(name));
  mr_jw_key(&w, "description");
  if (yyjson_is_str(description))
    mr_jw_str(&w, mr_json_str(description));
  else
    mr_jw_null(&w);
  mr_jw_key(&w, "config");
  code = write_config(c, &w, mr_json_get(c->in, "config"), mr_json_get(old, "config"));
  mr_jw_key(&w, "metadata");
  w.after_key = false;
  if (code == MR_OK)
    code = mr_metadata_merge(c, mr_json_get(old, "metadata"), mr_json_get(c->in, "metadata"), true, out);
  mr_jw_kc(&w, "scope", "organization");
  mr_jw_ktime(&w, "created_at", created_us);
  mr_jw_ktime(&w, "updated_at", updated_us);
  mr_jw_kraw(&w, "archived_at", MR_S("null"));
  mr_jw_obj_end(&w);
  return code;
}

/* ---- operations ---- */

void mr_environments_create(struct mr_call *c)
{
  struct mr_doc_row row = {.kind = MR_S("environment"), .rev = 1};
  char id[MR_ID_MAX];
  int code;

  if (mr_id_make(c->d->sys, id, "env") != MR_OK) {
    mr_call_fail(c, MR_E_IO, NULL, "no randomness");
    return;
  }
  row.id = mr_str_c(id);
  row.name = mr_json_get_str(c->in, "name");
  row.created_us = row.updated_us = mr_loop_wall_us(c->d->loop);
  code = write_environment(c, row.id, NULL, row.created_us, row.created_us, &c->out);
  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_doc_create(c, &row, false);
}

void mr_environments_retrieve(struct mr_call *c)
{
  mr_doc_answer(c, "environment", c->path[0]);
}

void mr_environments_list(struct mr_call *c)
{
  mr_doc_list(c, "environment", 20, 100);
}

static int make_update(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body,
                       struct mr_doc_row *next)
{
  struct mr_call *c = p->c;

  if (old->archived_us)
    return mr_err_code(&c->err, MR_E_STATE, "environment_archived", NULL,
                       "environment " MR_FMT " is archived and cannot be changed", MR_ARG(old->id));
  next->updated_us = mr_loop_wall_us(c->d->loop);
  if (mr_json_get_str(c->in, "name").n) next->name = mr_json_get_str(c->in, "name");
  return write_environment(c, old->id, body, old->created_us, next->updated_us, &p->body);
}

static int make_archive(struct mr_doc_change *p, const struct mr_doc_row *old, yyjson_val *body,
                        struct mr_doc_row *next)
{
  if (old->archived_us) return MR_MORE;
  next->archived_us = mr_loop_wall_us(p->c->d->loop);
  mr_doc_archive(p, body, next->archived_us);
  return MR_OK;
}

static void change(struct mr_call *c, int (*make)(struct mr_doc_change *p, const struct mr_doc_row *old,
                                                  yyjson_val *body, struct mr_doc_row *next))
{
  struct mr_doc_change *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  *p = (struct mr_doc_change){.c = c, .kind = "environment", .id = c->path[0], .make = make};
  mr_doc_change(p);
}

void mr_environments_update(struct mr_call *c)
{
  change(c, make_update);
}
void mr_environments_archive(struct mr_call *c)
{
  change(c, make_archive);
}

/* ---- delete: only when no session refers to it ---- */

bool mr_env_use_begin(struct mr_domain *d, struct mr_env_use *u, int64_t workspace, struct mr_str id,
                      bool deleting)
{
  u->link = NULL;
  for (const struct mr_env_use *o = d->env_uses; o; o = o->next)
    if ((o->deleting || deleting) && o->workspace == workspace && mr_str_eq(o->id, id)) return false;
  u->workspace = workspace;
  u->id = id;
  u->deleting = deleting;
  u->next = d->env_uses;
  u->link = &d->env_uses;
  if (u->next) u->next->link = &u->next;
  d->env_uses = u;
  return true;
}

void mr_env_use_end(struct mr_env_use *u)
{
  if (!u->link) return;
  *u->link = u->next;
  if (u->next) u->next->link = u->link;
  u->link = NULL;
}

struct deletion {
  struct mr_call *c;
  struct mr_env_use use;
};

static void on_deleted(void *ud, const struct mr_commit_result *r)
{
  struct deletion *p = ud;
  struct mr_call *c = p->c;

  mr_env_use_end(&p->use);
  if (r->code == MR_E_CONFLICT) {
    mr_not_found(c, "environment", c->path[0]);
  } else if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
  } else {
    mr_buf_printf(&c->out, "{\"id\":\"" MR_FMT "\",\"type\":\"environment_deleted\"}", MR_ARG(c->path[0]));
    mr_call_done(c, MR_OK);
  }
}

static void refuse_used(struct mr_call *c)
{
  mr_call_fail(c, MR_E_CONFLICT, NULL,
               "environment " MR_FMT " is used by sessions; delete them first, or archive the "
               "environment",
               MR_ARG(c->path[0]));
}

static void on_emptied(void *ud, int code, const struct mr_err *err)
{
  struct deletion *p = ud;
  struct mr_call *c = p->c;
  struct mr_commit *cm = code == MR_OK ? mr_commit_new(c->d->store, &c->who) : NULL;

  if (cm) {
    mr_commit_doc_delete(cm, MR_S("environment"), c->path[0], -1);
    mr_commit_submit(&cm, on_deleted, p);
    return;
  }
  mr_env_use_end(&p->use);
  if (code != MR_OK)
    mr_call_fail_err(c, err);
  else
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
}

static void on_users(void *ud, const struct mr_rows *r)
{
  struct deletion *p = ud;
  struct mr_call *c = p->c;

  if (r->code == MR_OK && r->n == 0) {
    mr_work_environment_gone(c, c->path[0], on_emptied, p);
    return;
  }
  mr_env_use_end(&p->use);
  if (r->code != MR_OK)
    mr_call_fail_err(c, r->err);
  else
    refuse_used(c);
}

void mr_environments_delete(struct mr_call *c)
{
  struct mr_session_query q = {.environment_id = c->path[0], .include_archived = true, .limit = 1};
  struct deletion *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  if (mr_env_use_begin(c->d, &p->use, c->who.workspace, c->path[0], true))
    mr_read_sessions(c->d->store, c->who.workspace, &q, on_users, p);
  else
    refuse_used(c);
}

/* ---- the first environment ---- */

struct ensure {
  struct mr_domain *d;
  void (*fn)(void *ud, int code);
  void *ud;
  struct mr_call call;
  yyjson_doc *in;
};

static void ensure_end(struct ensure *p, int code)
{
  p->fn(p->ud, code);
  yyjson_doc_free(p->in);
  mr_arena_free(&p->call.arena);
  mr_buf_free(&p->call.out);
  mr_mem_free(p->d->mem, p);
}

static void on_ensured(struct mr_call *c)
{
  ensure_end(MR_OF(c, struct ensure, call), c->code);
}

static void on_named(void *ud, const struct mr_rows *r)
{
  struct ensure *p = ud;
  struct mr_call *c = &p->call;

  if (r->code != MR_OK || r->n > 0) {
    ensure_end(p, r->code);
    return;
  }
  c->d = p->d;
  c->mem = p->d->mem;
  c->who.workspace = p->d->default_ws;
  c->done = on_ensured;
  c->arena = mr_arena_new(c->mem, 512);
  mr_buf_init(&c->out, c->mem, 1 << 16);
  if (!c->arena || mr_json_parse(c->mem, MR_S("{\"name\":\"default\"}"), 64, &p->in, NULL) != MR_OK) {
    ensure_end(p, MR_E_NOMEM);
    return;
  }
  c->in = yyjson_doc_get_root(p->in);
  mr_environments_create(c);
}

void mr_environments_ensure_default(struct mr_domain *d, void (*fn)(void *ud, int code), void *ud)
{
  struct ensure *p = mr_mem_zalloc(d->mem, sizeof *p);

  if (!p) {
    fn(ud, MR_E_NOMEM);
    return;
  }
  p->d = d;
  p->fn = fn;
  p->ud = ud;
  mr_read_doc_named(d->store, d->default_ws, MR_S("environment"), MR_S("default"), 1, on_named, p);
}

struct mr_str mr_env_config(struct mr_arena *a, struct mr_str body, bool *self_hosted)
{
  yyjson_doc *doc = NULL;
  yyjson_val *config = NULL;
  struct mr_buf b;
  struct mr_str out;

  mr_buf_init(&b, mr_arena_mem(a), 1 << 20);
  if (mr_json_parse(mr_arena_mem(a), body, SIZE_MAX, &doc, NULL) == MR_OK)
    config = mr_json_get(yyjson_doc_get_root(doc), "config");
  *self_hosted = mr_str_is(mr_json_get_str(config, "type"), "self_hosted");
  if (config) mr_json_write(&b, config, false);
  out = mr_arena_str(a, config && !b.failed ? mr_buf_get(&b) : MR_S("{}"));
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  return out.p ? out : MR_S("{}");
}

bool mr_env_self_hosted(yyjson_val *doc)
{
  return mr_str_is(mr_json_get_str(mr_json_get(doc, "environment"), "type"), "self_hosted") ||
         mr_json_get_bool(doc, "self_hosted", false); /* as it was written before the whole config was kept */
}
