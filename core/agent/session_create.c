/*
 * session_create.c - POST /v1/sessions: resolves the agent to a snapshot, checks the environment, copies the
 * input files, and makes the session, its files and its first inputs in one commit. Nothing exists before.
 */
#include "agent/events.h"
#include "agent/resources.h"
#include "agent/roster.h"
#include "agent/work.h"

#include <stdio.h>

enum { INITIAL_EVENTS_MAX = 50, RESOURCES_MAX = 500, FILE_DOCUMENTS_MAX = 100 };

struct create {
  struct mr_call *c;
  char id[MR_ID_MAX], primary[MR_ID_MAX];
  struct mr_str snapshot, agent_id;
  int64_t agent_version, agent_rev, env_rev;
  struct mr_caps caps; /* of its budget */
  struct mr_str environment_id;
  bool self_hosted;
  struct mr_str env_config; /* JSON */
  struct mr_env_use use;
  struct mr_event_batch initial;
  struct mr_accept accept;
  struct mr_subject agent;
  struct mr_resources res;
  struct mr_works_in works;
};

static void fail(struct create *p, int code)
{
  mr_env_use_end(&p->use);
  mr_accept_end(&p->accept);
  mr_resources_drop(p->c->d, &p->res);
  mr_call_done(p->c, code);
}

static void on_woken(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  (void)ud;
  (void)err;
  if (code != MR_OK) return; /* it is found at the next start */
  mr_turn_wake(&s->main);
  mr_session_unref(s);
}

static void on_committed(void *ud, const struct mr_commit_result *r)
{
  struct create *p = ud;
  struct mr_call *c = p->c;

  mr_work_settled(c->d, &p->works, r->code);
  if (r->code != MR_OK) {
    mr_err_copy(&c->err, r->err);
    if (r->code == MR_E_CONFLICT)
      mr_err_set(&c->err, MR_E_STATE, r->err->field, "the %s was changed at the same time: try again",
                 r->err->field);
    fail(p, c->err.code);
    return;
  }
  mr_env_use_end(&p->use);
  if (p->initial.n > 0) mr_session_get(c->d, c->who.workspace, mr_str_c(p->id), on_woken, NULL);
  mr_call_done(c, MR_OK);
}

/* The client's part of a new session. */
static int write_doc(struct create *p, struct mr_buf *b)
{
  struct mr_call *c = p->c;
  yyjson_val *title = mr_json_get(c->in, "title");
  struct mr_buf metadata;
  struct mr_jw w;
  int code;

  mr_buf_init(&metadata, c->mem, 1 << 20);
  code = mr_metadata_merge(c, NULL, mr_json_get(c->in, "metadata"), false, &metadata);
  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_key(&w, "title");
  if (yyjson_is_str(title))
    mr_jw_str(&w, mr_json_str(title));
  else
    mr_jw_null(&w);
  mr_jw_kraw(&w, "metadata", mr_buf_get(&metadata));
  mr_jw_key(&w, "resources");
  mr_resources_write(&p->res, &w);
  mr_jw_kraw(&w, "vault_ids", MR_S("[]"));
  mr_jw_key(&w, "budget");
  mr_budget_write(&w, &p->caps);
  mr_jw_kraw(&w, "environment", p->env_config);
  mr_jw_obj_end(&w);
  mr_buf_free(&metadata);
  return code;
}

static void commit(struct create *p)
{
  struct mr_call *c = p->c;
  struct mr_session_row row = {0};
  struct mr_buf doc, head;
  struct mr_commit *cm = mr_commit_new(c->d->store, &c->who);
  int64_t now = mr_loop_wall_us(c->d->loop);
  struct mr_usage none = {0};
  struct mr_jw w;
  int code;

  mr_buf_init(&doc, c->mem, 1 << 22);
  mr_buf_init(&head, c->mem, 1 << 16);
  code = cm ? write_doc(p, &doc) : mr_err_nomem(&c->err);
  mr_jw_init(&w, &head);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "primary", p->primary);
  mr_jw_kint(&w, "active_us", 0);
  mr_jw_kint(&w, "running_since_us", 0);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &none, 0, -1);
  mr_jw_obj_end(&w);
  if (code != MR_OK) {
    mr_commit_drop(&cm);
    fail(p, code);
    goto out;
  }
  row.id = mr_str_c(p->id);
  row.created_us = row.updated_us = now;
  row.status = p->initial.n ? MR_S("running") : MR_S("idle");
  row.agent_id = p->agent_id;
  row.agent_version = p->agent_version;
  row.environment_id = p->environment_id;
  row.owner_epoch = 1;
  row.agent = p->snapshot;
  row.doc = mr_buf_get(&doc);
  row.head = mr_buf_get(&head);
  mr_commit_doc_expect(cm, MR_S("environment"), p->environment_id, p->env_rev);
  mr_commit_session_new(cm, &row);
  mr_resources_commit(&p->res, cm);
  for (int i = 0; i < p->initial.n; i++)
    mr_events_inbox_add(cm, row.id, &p->initial.v[i]);
  if (p->self_hosted) mr_work_session_made(c->d, cm, &p->works, c->who.workspace, p->environment_id, row.id);
  mr_session_wire(&row, now, &c->out);
  mr_commit_label(cm, "create");
  mr_commit_submit(&cm, on_committed, p);
out:
  mr_buf_free(&doc);
  mr_buf_free(&head);
}

static void on_resources(void *ud, int code)
{
  struct create *p = ud;
  if (code != MR_OK)
    fail(p, code);
  else
    commit(p);
}

/* ---- initial events ---- */

static int refuse_initial(struct mr_call *c, int i, const char *sub, const char *what)
{
  char field[64];
  snprintf(field, sizeof field, "initial_events[%d]%s%s", i, sub[0] ? "." : "", sub);
  return mr_err_set(&c->err, MR_E_INVALID, field, "%s: %s", field, what);
}

static int file_documents(yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;
  int n = 0;

  while (yyjson_is_arr(content) && (v = yyjson_arr_iter_next(&it)))
    n += mr_str_is(mr_json_get_str(v, "type"), "document") &&
         mr_str_is(mr_json_get_str(mr_json_get(v, "source"), "type"), "file");
  return n;
}

/* What may begin a session at all; what each event holds is checked with those that come later (events.c). */
static int check_list(struct mr_call *c, yyjson_val *events)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(events);
  yyjson_val *ev;
  int outcomes = 0, documents = 0;

  if (yyjson_arr_size(events) > INITIAL_EVENTS_MAX)
    return mr_err_set(&c->err, MR_E_INVALID, "initial_events", "initial_events: at most %d events",
                      INITIAL_EVENTS_MAX);
  for (int i = 0; yyjson_is_arr(events) && (ev = yyjson_arr_iter_next(&it)); i++) {
    struct mr_str type = mr_json_get_str(ev, "type");
    bool outcome = mr_str_is(type, "user.define_outcome");
    if (!outcome && !mr_str_is(type, "user.message"))
      return refuse_initial(c, i, "type",
                            "cannot be an initial event: only user.message and user.define_outcome can");
    if (outcome && outcomes++) return refuse_initial(c, i, "type", "only one outcome at a time");
    if (outcome && !yyjson_is_obj(mr_json_get(ev, "rubric"))) return refuse_initial(c, i, "rubric", "required");
    documents += file_documents(mr_json_get(ev, "content"));
    if (documents > FILE_DOCUMENTS_MAX)
      return refuse_initial(c, i, "content", "more than 100 documents from files in initial_events");
  }
  return MR_OK;
}

static int check_initial(struct create *p)
{
  struct mr_call *c = p->c;
  yyjson_val *events = mr_accept_events(&p->accept, mr_json_get(c->in, "initial_events"));
  int code = check_list(c, events);

  return code == MR_OK ? mr_events_check(c, NULL, events, "initial_events", &p->initial) : code;
}

static void copy_resources(struct create *p)
{
  mr_accept_end(&p->accept);
  mr_resources_copy(p->c, &p->res, mr_json_get(p->c->in, "resources"), mr_str_c(p->id), on_resources, p);
}

/* The files that blocks refer to, then fn. */
static void read_files(struct create *p, void (*fn)(void *ud, int code))
{
  yyjson_val *events = mr_accept_events(&p->accept, mr_json_get(p->c->in, "initial_events"));
  mr_file_refs_read(p->c, events, mr_str_n("", 0), &p->initial.files, fn, p);
}

static void on_accepted_files(void *ud, int code)
{
  struct create *p = ud;

  if (code == MR_OK) code = check_initial(p);
  if (code != MR_OK)
    fail(p, code);
  else
    copy_resources(p);
}

static void on_accepted(struct mr_accept *a, int code)
{
  struct create *p = MR_OF(a, struct create, accept);

  p->c->cancel = NULL;
  if (code != MR_OK)
    fail(p, code);
  else
    read_files(p, on_accepted_files);
}

static void cancel_accept(struct mr_call *c)
{
  mr_accept_cancel(&((struct create *)c->priv)->accept);
}

static void on_environment(void *ud, const struct mr_rows *r)
{
  struct create *p = ud;
  struct mr_call *c = p->c;
  int code = mr_read_check(c, r, "environment_id", "environment", p->environment_id);

  if (code != MR_OK) {
    ;
  } else if (r->docs[0].archived_us) {
    code = mr_err_set(&c->err, MR_E_STATE, "environment_id", "environment " MR_FMT " is archived",
                      MR_ARG(p->environment_id));
  } else if (!mr_env_use_begin(c->d, &p->use, c->who.workspace, p->environment_id, false)) {
    code = mr_err_set(&c->err, MR_E_STATE, "environment_id", "environment " MR_FMT " is being deleted",
                      MR_ARG(p->environment_id));
  } else {
    p->env_rev = r->docs[0].rev;
    p->env_config = mr_env_config(c->arena, r->docs[0].body, &p->self_hosted);
    code = check_initial(p);
    if (code == MR_OK && p->self_hosted) code = mr_resources_check_own(c, mr_json_get(c->in, "resources"));
  }
  if (code != MR_OK) {
    fail(p, code);
    return;
  }
  c->cancel = cancel_accept;
  if (p->initial.n > 0 && mr_accept_ask(&p->accept, c, mr_str_c(p->id), &p->agent,
                                        mr_json_get(c->in, "initial_events"), on_accepted))
    return;
  c->cancel = NULL;
  copy_resources(p);
}

static void on_files(void *ud, int code)
{
  struct create *p = ud;
  struct mr_call *c = p->c;

  if (code != MR_OK)
    fail(p, code);
  else
    mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), p->environment_id, on_environment, p);
}

static void on_rubric(void *ud, int code, struct mr_str text)
{
  struct create *p = ud;

  p->initial.rubric = text;
  if (code != MR_OK)
    fail(p, code);
  else
    read_files(p, on_files);
}

static int served(void *ud, struct mr_str model, struct mr_str speed, const char *field)
{
  struct create *p = ud;
  struct mr_err why;

  (void)speed;
  if (mr_models_check(p->c->d->models, model, &why) == MR_OK) return MR_OK;
  if (strcmp(field, "agent.model") == 0) {
    mr_err_copy(&p->c->err, &why);
    return why.code;
  }
  return mr_err_set(&p->c->err, why.code, field, "%s: %s", field, why.message);
}

static void on_agent(struct mr_call *c, int code, const struct mr_resolved *r)
{
  struct create *p = c->priv;
  yyjson_doc *doc = NULL;
  yyjson_val *agent;

  if (code == MR_OK) code = mr_json_parse(c->mem, r->snapshot, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK) {
    agent = yyjson_doc_get_root(doc);
    code = mr_roster_models(agent, served, p);
    if (code == MR_OK && p->caps.max[MR_CAP_COST]) code = mr_budget_check(c->d->prices, agent, &c->err);
    p->agent.agent = mr_arena_str(c->arena, mr_json_get_str(agent, "name"));
  }
  yyjson_doc_free(doc);
  if (code != MR_OK) {
    fail(p, code);
    return;
  }
  p->snapshot = mr_arena_str(c->arena, r->snapshot);
  p->agent_id = mr_arena_str(c->arena, r->id);
  p->agent.agent_id = p->agent_id;
  p->agent_version = r->version;
  mr_rubric_read(c, mr_json_get(c->in, "initial_events"), "initial_events", on_rubric, p);
}

void mr_sessions_create(struct mr_call *c)
{
  struct create *p = mr_arena_alloc(c->arena, sizeof *p);
  yyjson_val *budget = mr_json_get(c->in, "budget");
  int code = MR_OK;

  if (!p || mr_id_make(c->d->sys, p->id, "sesn") != MR_OK ||
      mr_id_make(c->d->sys, p->primary, "sthr") != MR_OK) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  c->priv = p;
  p->environment_id = mr_json_get_str(c->in, "environment_id");
  if (yyjson_arr_size(mr_json_get(c->in, "vault_ids")) > 0)
    code = mr_err_set(&c->err, MR_E_NOTFOUND, "vault_ids", "vault_ids: no vault of this id");
  else if (budget && !yyjson_is_null(budget))
    code = mr_budget_read(budget, &p->caps, &c->err);
  if (code == MR_OK) code = check_list(c, mr_json_get(c->in, "initial_events"));
  if (code != MR_OK)
    mr_call_done(c, code);
  else
    mr_agents_resolve(c, mr_json_get(c->in, "agent"), on_agent);
}
