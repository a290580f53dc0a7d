/*
 * snapshot.c - from the agent of a session create (an id, a pinned version, or overrides) to the snapshot that
 * the session keeps (API: sessions §2.3, §2.4). Later changes of the agent do not reach it.
 */
#include "agent/agents.h"

#include <stdio.h>

struct resolve {
  struct mr_call *c;
  yyjson_val *given;
  struct mr_str id;
  int64_t version; /* wanted; 0 = latest */
  void (*fn)(struct mr_call *c, int code, const struct mr_resolved *r);
  struct mr_resolved out;
};

static void end(struct resolve *p, int code)
{
  p->fn(p->c, code, code == MR_OK ? &p->out : NULL);
}

/* What the writers of an agent's members say of "tools[0]" is here about "agent.tools[0]". */
static int within_agent(struct resolve *p, int code)
{
  struct mr_err was = p->c->err;
  char field[sizeof was.field + 8];

  if (code == MR_OK || !was.field[0] || mr_str_starts(mr_str_c(was.field), MR_S("agent."))) return code;
  snprintf(field, sizeof field, "agent.%s", was.field);
  if (was.error_code[0]) return mr_err_code(&p->c->err, code, was.error_code, field, "agent.%s", was.message);
  return mr_err_set(&p->c->err, code, field, "agent.%s", was.message);
}

static int override_member(struct resolve *p, struct mr_jw *w, yyjson_val *agent, const char *key,
                           int (*write)(struct mr_call *c, yyjson_val *given, struct mr_buf *out))
{
  yyjson_val *v =
      mr_str_is(mr_json_get_str(p->given, "type"), "agent_with_overrides") ? mr_json_get(p->given, key) : NULL;

  mr_jw_key(w, key);
  w->after_key = false;
  if (v) return within_agent(p, write(p->c, v, w->b));
  mr_json_write(w->b, mr_json_get(agent, key), false);
  return MR_OK;
}

static int write_system(struct mr_call *c, yyjson_val *v, struct mr_buf *out)
{
  (void)c;
  if (yyjson_is_str(v) && yyjson_get_len(v))
    mr_json_write(out, v, false);
  else
    mr_buf_c(out, "null");
  return MR_OK;
}

static int write_model(struct mr_call *c, yyjson_val *v, struct mr_buf *out)
{
  if (yyjson_is_null(v))
    return mr_err_code(&c->err, MR_E_INVALID, "agent_model_required", "agent.model",
                       "agent.model: an override cannot clear the model");
  return mr_agent_model(c, v, NULL, out);
}

static int write_snapshot(struct resolve *p, yyjson_val *agent, struct mr_buf *b)
{
  static const char *const same[] = {"id", "version", "name", "description"};
  struct mr_jw w;
  int code;

  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "agent");
  for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
    mr_jw_key(&w, same[i]);
    w.after_key = false;
    mr_json_write(b, mr_json_get(agent, same[i]), false);
  }
  code = override_member(p, &w, agent, "system", write_system);
  if (code == MR_OK) code = override_member(p, &w, agent, "model", write_model);
  if (code == MR_OK) code = override_member(p, &w, agent, "tools", mr_agent_tools);
  if (code == MR_OK) code = override_member(p, &w, agent, "mcp_servers", mr_agent_servers);
  if (code == MR_OK) code = override_member(p, &w, agent, "skills", mr_agent_skills);
  mr_jw_key(&w, "execution_identity");
  w.after_key = false;
  mr_json_write(b, mr_json_get(agent, "execution_identity"), false);
  mr_jw_kraw(&w, "multiagent", MR_S("null"));
  mr_jw_obj_end(&w);
  return code;
}

static void on_body(void *ud, const struct mr_rows *r)
{
  struct resolve *p = ud;
  struct mr_call *c = p->c;
  yyjson_doc *doc = NULL, *made = NULL;
  struct mr_buf b;
  char version[32];
  int code;

  snprintf(version, sizeof version, "%lld", (long long)p->version);
  code =
      mr_read_check(c, r, "agent.version",
                    mr_arena_printf(c->arena, "agent " MR_FMT ": version", MR_ARG(p->id)), mr_str_c(version));
  if (code != MR_OK) {
    end(p, code);
    return;
  }
  mr_buf_init(&b, c->mem, 1 << 24);
  code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK) code = write_snapshot(p, yyjson_doc_get_root(doc), &b);
  if (code == MR_OK) code = mr_json_parse(c->mem, mr_buf_get(&b), SIZE_MAX, &made, &c->err);
  if (code == MR_OK) code = within_agent(p, mr_agent_cross_check(c, yyjson_doc_get_root(made)));
  if (code == MR_OK) {
    p->out.snapshot = mr_buf_get(&b);
    p->out.id = p->id;
    p->out.version = mr_json_get_int(yyjson_doc_get_root(doc), "version", 1);
  }
  end(p, code);
  yyjson_doc_free(doc);
  yyjson_doc_free(made);
  mr_buf_free(&b);
}

static void on_agent(void *ud, const struct mr_rows *r)
{
  struct resolve *p = ud;
  struct mr_call *c = p->c;
  int code = mr_read_check(c, r, "agent", "agent", p->id);

  if (code != MR_OK) {
    end(p, code);
  } else if (r->docs[0].archived_us) {
    end(p, mr_err_set(&c->err, MR_E_STATE, "agent", "agent " MR_FMT " is archived", MR_ARG(p->id)));
  } else {
    p->out.rev = r->docs[0].rev;
    if (p->version && p->version != r->docs[0].version)
      mr_read_doc_version(c->d->store, c->who.workspace, MR_S("agent"), p->id, p->version, on_body, p);
    else
      on_body(p, r);
  }
}

void mr_agents_resolve(struct mr_call *c, yyjson_val *agent,
                       void (*fn)(struct mr_call *c, int code, const struct mr_resolved *r))
{
  struct resolve *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    fn(c, mr_err_nomem(&c->err), NULL);
    return;
  }
  p->c = c;
  p->given = agent;
  p->fn = fn;
  p->id = yyjson_is_str(agent) ? mr_json_str(agent) : mr_json_get_str(agent, "id");
  p->version = mr_json_get_int(agent, "version", 0);
  if (!p->id.n)
    end(p, mr_err_set(&c->err, MR_E_INVALID, "agent", "agent: an agent id, or an object with type and id"));
  else
    mr_read_doc(c->d->store, c->who.workspace, MR_S("agent"), p->id, on_agent, p);
}
