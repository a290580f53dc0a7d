/*
 * session_update.c - POST /v1/sessions/{id} (API: sessions §2.6, §13.3): title, metadata, budget, and the
 * agent's tools and MCP servers. All of it is decided on the loaded session and committed with one
 * session.updated that has what really changed; what changes nothing writes nothing.
 *
 * The agent changes only while the session is idle, so nothing that is in flight was made of the old one.
 */
#include "agent/agents.h"
#include "agent/sessions.h"

#include <stdio.h>

struct change {
  struct mr_call *c;
  struct mr_session *s;
  bool title, metadata, agent, budget; /* which are other than they were */
  yyjson_val *new_title;
  struct mr_buf new_metadata, new_agent; /* JSON */
  struct mr_caps caps;                   /* the new budget; none in it: removed */
};

/* ---- what is asked for ---- */

static int read_metadata(struct change *p)
{
  struct mr_call *c = p->c;
  yyjson_val *old = mr_json_get(yyjson_doc_get_root(p->s->doc), "metadata");
  yyjson_doc *merged = NULL;
  int code = mr_metadata_merge(c, old, mr_json_get(c->in, "metadata"), false, &p->new_metadata);

  if (code == MR_OK) code = mr_json_parse(c->mem, mr_buf_get(&p->new_metadata), SIZE_MAX, &merged, &c->err);
  p->metadata = code == MR_OK && !mr_json_equal(yyjson_doc_get_root(merged), old);
  yyjson_doc_free(merged);
  return code;
}

static int read_agent(struct change *p)
{
  static const char *const keys[] = {"tools", "mcp_servers"};
  struct mr_call *c = p->c;
  yyjson_val *given = mr_json_get(c->in, "agent"), *old = yyjson_doc_get_root(p->s->agent_doc);
  yyjson_doc *made = NULL;
  int code;

  if (!given || yyjson_is_null(given)) return MR_OK;
  if (p->s->status != MR_IDLE)
    return mr_err_set(
        &c->err, MR_E_STATE, "agent",
        "agent: session %s is %s: tools and servers change only while it is idle, interrupt it first", p->s->id,
        mr_status_name(p->s->status));
  code = mr_snapshot_change(c, old, given, &p->new_agent);
  if (code == MR_OK) code = mr_json_parse(c->mem, mr_buf_get(&p->new_agent), SIZE_MAX, &made, &c->err);
  for (int i = 0; code == MR_OK && i < 2; i++)
    if (!mr_json_equal(mr_json_get(old, keys[i]), mr_json_get(yyjson_doc_get_root(made), keys[i])))
      p->agent = true;
  yyjson_doc_free(made);
  return code;
}

/* Each cap is to be more than what was used of it; the count of repeats begins again. */
static int check_raised(struct change *p)
{
  static const char *const what[] = {NULL, "tokens that the session has used",
                                     "seconds that the session has worked",
                                     "model requests that the session has made"};
  struct mr_session *s = p->s;
  char field[48];

  for (int i = 0; i < MR_CAP_REPEATS; i++) {
    int64_t used = mr_session_used(s, i);
    if (!p->caps.max[i] || used < p->caps.max[i]) continue;
    if (i == MR_CAP_COST)
      return mr_err_code(&p->c->err, MR_E_STATE, "budget_not_raised", "budget",
                         "budget.max_list_cost must be greater than the session's consumed list cost");
    snprintf(field, sizeof field, "budget.%s", mr_cap_key(i));
    return mr_err_code(&p->c->err, MR_E_STATE, "budget_not_raised", field,
                       "%s must be greater than the %lld %s", field, (long long)used, what[i]);
  }
  return MR_OK;
}

/* Budgets only replace budgets; the caps of the configuration are one. The same again lets a thread that was paused
 * for its repeats go on. */
static int read_budget(struct change *p)
{
  struct mr_call *c = p->c;
  struct mr_session *s = p->s;
  yyjson_val *given = mr_json_get(c->in, "budget");
  int code;

  if (!given) return MR_OK;
  if (yyjson_is_null(given)) {
    p->budget = mr_caps_any(&s->caps);
    return MR_OK;
  }
  code = mr_budget_read(given, &p->caps, &c->err);
  if (code != MR_OK) return code;
  if (!mr_caps_any(mr_session_caps(s)))
    return mr_err_code(&c->err, MR_E_STATE, "budget_create_only", "budget",
                       "budget: this session has none, and one can only be given when a session is created");
  code = check_raised(p);
  if (code == MR_OK && p->caps.max[MR_CAP_COST])
    code = mr_budget_check(s->d->prices, yyjson_doc_get_root(s->agent_doc), &c->err);
  p->budget = code == MR_OK && (!mr_caps_same(&p->caps, &s->caps) || mr_budget_over(s));
  return code;
}

static int read_all(struct change *p)
{
  yyjson_val *old = yyjson_doc_get_root(p->s->doc);
  int code;

  if (p->s->status == MR_TERMINATED)
    return mr_err_set(&p->c->err, MR_E_STATE, NULL, "session %s is terminated and cannot be changed", p->s->id);
  p->new_title = mr_json_get(p->c->in, "title");
  p->title = p->new_title && !mr_json_equal(p->new_title, mr_json_get(old, "title"));
  code = read_metadata(p);
  if (code == MR_OK) code = read_agent(p);
  return code == MR_OK ? read_budget(p) : code;
}

/* ---- the commit ---- */

static void over(struct change *p, int code)
{
  mr_buf_free(&p->new_metadata);
  mr_buf_free(&p->new_agent);
  if (code != MR_OK)
    mr_call_done(p->c, code);
  else
    mr_session_answer(p->c, mr_str_c(p->s->id));
  mr_session_unref(p->s);
}

static void on_committed(void *ud, int code, const struct mr_err *err)
{
  struct change *p = ud;

  if (code != MR_OK) mr_err_copy(&p->c->err, err);
  over(p, code);
}

/* The client's part with what changed of it. */
static void write_doc(struct change *p, struct mr_buf *out)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(yyjson_doc_get_root(p->s->doc));
  yyjson_val *k;
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  while ((k = yyjson_obj_iter_next(&it))) {
    struct mr_str key = mr_json_str(k);
    if (p->budget && mr_str_is(key, "budget")) {
      mr_jw_key(&w, "budget");
      mr_budget_write(&w, &p->caps);
      continue;
    }
    mr_jw_key_s(&w, key);
    if (p->metadata && mr_str_is(key, "metadata"))
      mr_jw_raw(&w, mr_buf_get(&p->new_metadata));
    else
      mr_jw_val(&w, p->title && mr_str_is(key, "title") ? p->new_title : yyjson_obj_iter_get_val(k));
  }
  mr_jw_obj_end(&w);
}

/* The session as it is from here on. Its agent's document stays where it is unless it changes: a model
 * request in flight borrows from it. */
static int apply(struct change *p)
{
  struct mr_session *s = p->s;
  yyjson_doc *doc = NULL;
  struct mr_str json;
  struct mr_buf b;
  int code;

  mr_buf_init(&b, s->d->mem, 1 << 22);
  write_doc(p, &b);
  json = b.failed ? mr_str_n(NULL, 0) : mr_session_copy(s, mr_buf_get(&b));
  mr_buf_free(&b);
  code = json.n ? mr_json_parse(s->d->mem, json, SIZE_MAX, &doc, &p->c->err) : mr_err_nomem(&p->c->err);
  if (code != MR_OK) return code;
  yyjson_doc_free(s->doc);
  s->doc = doc;
  s->doc_json = json;
  if (p->budget) s->caps = p->caps;
  if (!p->agent) return MR_OK;
  json = mr_session_copy(s, mr_buf_get(&p->new_agent));
  if (!json.n) return mr_err_nomem(&p->c->err);
  s->agent_json = json;
  return mr_session_parse_docs(s, &p->c->err);
}

static int commit(struct change *p)
{
  struct mr_session *s = p->s;
  struct mr_txn t;
  struct mr_buf b;
  struct mr_jw w;
  int code = apply(p);

  if (code != MR_OK) { /* part of it may be in place */
    mr_session_poison(s, &p->c->err);
    return code;
  }
  mr_txn_begin(&t, &s->main, &p->c->who, "update");
  t.what |= MR_SESSION_DOC | (p->agent ? MR_SESSION_AGENT : 0);
  mr_txn_wire(&t, &b, &w, "session.updated", NULL, NULL);
  if (p->agent) mr_jw_kraw(&w, "agent", mr_buf_get(&p->new_agent));
  if (p->budget) {
    mr_jw_key(&w, "budget");
    mr_budget_write(&w, &p->caps);
  }
  if (p->metadata && !mr_str_is(mr_buf_get(&p->new_metadata), "{}"))
    mr_jw_kraw(&w, "metadata", mr_buf_get(&p->new_metadata));
  if (p->title) mr_jw_kval(&w, "title", p->new_title);
  mr_txn_end_wire(&t, &b, &w);
  if (p->budget) mr_turn_budget_changed(&t);
  mr_txn_commit(&t, on_committed, p);
  return MR_OK;
}

static void on_session(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct change *p = c->priv;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return;
  }
  p->s = s;
  mr_buf_init(&p->new_metadata, c->mem, 1 << 20);
  code = read_all(p);
  if (code == MR_OK && (p->title || p->metadata || p->agent || p->budget)) {
    code = commit(p);
    if (code == MR_OK) return;
  }
  over(p, code);
}

/* ---- what can be refused without the session ---- */

static int check_fields(struct mr_call *c)
{
  yyjson_val *agent = mr_json_get(c->in, "agent"), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(agent);
  char field[96];

  if (mr_json_get(c->in, "vault_ids"))
    return mr_err_set(&c->err, MR_E_INVALID, "vault_ids", "vault_ids: cannot be changed after creation");
  while (yyjson_is_obj(agent) && (k = yyjson_obj_iter_next(&it)))
    if (!mr_str_is(mr_json_str(k), "tools") && !mr_str_is(mr_json_str(k), "mcp_servers")) {
      struct mr_str key = mr_json_str(k);
      snprintf(field, sizeof field, "agent.%.*s", (int)mr_utf8_cut(key, 64), key.p);
      return mr_err_set(&c->err, MR_E_INVALID, field,
                        "%s: only tools and mcp_servers of a session's agent can be changed", field);
    }
  return MR_OK;
}

void mr_sessions_update(struct mr_call *c)
{
  struct change *p = mr_arena_alloc(c->arena, sizeof *p);
  int code = p ? check_fields(c) : mr_err_nomem(&c->err);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  p->c = c;
  c->priv = p;
  mr_session_get(c->d, c->who.workspace, c->path[0], on_session, c);
}
