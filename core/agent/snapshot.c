/*
 * snapshot.c - from the agent of a session create (an id, a pinned version, or overrides) to the snapshot
 * that the session keeps (API: sessions §2.3, §2.4), with the full definition of every agent of its roster;
 * and what a session may change of it later (§2.6). Later changes of the agents do not reach it.
 */
#include "agent/agents.h"
#include "agent/roster.h"

#include <stdio.h>

enum { SNAPSHOT_MAX = 1 << 24 };

struct resolve {
  struct mr_call *c;
  yyjson_val *given;
  struct mr_str id;
  int64_t version; /* wanted; 0 = latest */
  yyjson_doc *doc; /* the agent at that version */
  void (*fn)(struct mr_call *c, int code, const struct mr_resolved *r);
  struct mr_resolved out;
};

static void end(struct resolve *p, int code)
{
  p->fn(p->c, code, code == MR_OK ? &p->out : NULL);
  yyjson_doc_free(p->doc);
  p->doc = NULL;
}

/* What the writers of an agent's members say of "tools[0]" is here about "agent.tools[0]". */
static int within_agent(struct mr_call *c, int code)
{
  struct mr_err was = c->err;
  char field[sizeof was.field + 8];

  if (code == MR_OK || !was.field[0] || mr_str_starts(mr_str_c(was.field), MR_S("agent."))) return code;
  snprintf(field, sizeof field, "agent.%s", was.field);
  if (was.error_code[0]) return mr_err_code(&c->err, code, was.error_code, field, "agent.%s", was.message);
  return mr_err_set(&c->err, code, field, "agent.%s", was.message);
}

/* ---- one agent with what replaces its members ---- */

static int write_system(struct mr_call *c, yyjson_val *v, struct mr_buf *out)
{
  (void)c;
  mr_json_write(out, yyjson_is_str(v) && yyjson_get_len(v) ? v : NULL, false);
  return MR_OK;
}

struct member { /* how a replacement of it is written; NULL: it stays */
  const char *key;
  int (*write)(struct mr_call *c, yyjson_val *given, struct mr_buf *out);
};

/* agent as that of a thread, with the members that change holds (null clears) for those of the table. */
static int write_alone(struct mr_call *c, yyjson_val *agent, yyjson_val *change, struct mr_buf *b)
{
  static const struct member members[] = {{"id", NULL},
                                          {"version", NULL},
                                          {"name", NULL},
                                          {"description", NULL},
                                          {"system", write_system},
                                          {"model", mr_agent_model_override},
                                          {"tools", mr_agent_tools},
                                          {"mcp_servers", mr_agent_servers},
                                          {"skills", mr_agent_skills},
                                          {"execution_identity", NULL}};
  struct mr_jw w;
  int code = MR_OK;

  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "agent");
  for (size_t i = 0; code == MR_OK && i < sizeof members / sizeof *members; i++) {
    yyjson_val *v = members[i].write ? mr_json_get(change, members[i].key) : NULL;
    mr_jw_key(&w, members[i].key);
    mr_jw_item(&w);
    if (v)
      code = members[i].write(c, v, b);
    else
      mr_json_write(b, mr_json_get(agent, members[i].key), false);
  }
  mr_jw_obj_end(&w);
  return within_agent(c, code);
}

/* The rules between its members, for what a session changed. */
static int check_alone(struct mr_call *c, struct mr_str alone, yyjson_val *change, yyjson_doc **doc)
{
  int code = mr_json_parse(c->mem, alone, SIZE_MAX, doc, &c->err);

  if (code == MR_OK && change) code = mr_agent_cross_check(c, yyjson_doc_get_root(*doc), true);
  if (code == MR_OK && mr_json_get(change, "tools")) code = mr_agent_skills_check(c, yyjson_doc_get_root(*doc));
  return within_agent(c, code);
}

/* The whole: alone, and the roster (of references with m, of definitions without). */
static int write_snapshot(struct mr_call *c, struct mr_str alone, yyjson_val *root, yyjson_val *roster,
                          const struct mr_members *m, struct mr_buf *b)
{
  struct mr_roster_owner who = {mr_json_get_str(root, "id"),
                                mr_json_get_str(mr_json_get(root, "model"), "inference_geo"),
                                mr_json_get_int(root, "version", 1)};
  int code;

  mr_buf_add(b, alone.p, alone.n - 1); /* without its closing brace */
  mr_buf_c(b, ",\"multiagent\":");
  code = mr_roster_expand(c, m, roster, &who, alone, b);
  mr_buf_char(b, '}');
  if (code == MR_OK && b->failed == MR_E_TOO_LARGE)
    return mr_err_set(&c->err, MR_E_TOO_LARGE, "agent",
                      "agent: with the agents of its roster it is over %d bytes", SNAPSHOT_MAX);
  return code == MR_OK && b->failed ? mr_err_nomem(&c->err) : code;
}

/* roster: of the agent's document, with members gathered, or of a session's snapshot, without. */
static int make(struct mr_call *c, yyjson_val *agent, yyjson_val *change, const struct mr_members *m,
                struct mr_buf *out)
{
  yyjson_doc *doc = NULL;
  struct mr_buf alone;
  int code;

  mr_buf_init(&alone, c->mem, SNAPSHOT_MAX);
  code = write_alone(c, agent, change, &alone);
  if (code == MR_OK && alone.failed) code = mr_err_nomem(&c->err);
  if (code == MR_OK) code = check_alone(c, mr_buf_get(&alone), change, &doc);
  if (code == MR_OK)
    code = write_snapshot(c, mr_buf_get(&alone), yyjson_doc_get_root(doc), mr_json_get(agent, "multiagent"), m,
                          out);
  yyjson_doc_free(doc);
  mr_buf_free(&alone);
  return code;
}

int mr_snapshot_change(struct mr_call *c, yyjson_val *snapshot, yyjson_val *change, struct mr_buf *out)
{
  mr_buf_init(out, c->mem, SNAPSHOT_MAX);
  return make(c, snapshot, change, NULL, out);
}

/* ---- of a new session ---- */

static void on_members(void *ud, int code, const struct mr_members *m)
{
  struct resolve *p = ud;
  yyjson_val *agent = yyjson_doc_get_root(p->doc);
  bool overrides = mr_str_is(mr_json_get_str(p->given, "type"), "agent_with_overrides");
  struct mr_buf b;

  mr_buf_init(&b, p->c->mem, SNAPSHOT_MAX);
  if (code == MR_OK) code = make(p->c, agent, overrides ? p->given : NULL, m, &b);
  if (code == MR_OK) {
    p->out.snapshot = mr_buf_get(&b);
    p->out.id = p->id;
    p->out.version = mr_json_get_int(agent, "version", 1);
  }
  end(p, code);
  mr_buf_free(&b);
}

static void on_body(void *ud, const struct mr_rows *r)
{
  struct resolve *p = ud;
  struct mr_call *c = p->c;
  char version[32];
  int code;

  snprintf(version, sizeof version, "%lld", (long long)p->version);
  code =
      mr_read_check(c, r, "agent.version",
                    mr_arena_printf(c->arena, "agent " MR_FMT ": version", MR_ARG(p->id)), mr_str_c(version));
  if (code == MR_OK) code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &p->doc, &c->err);
  if (code == MR_OK)
    mr_roster_gather(c, mr_json_get(yyjson_doc_get_root(p->doc), "multiagent"), NULL, p->id, on_members, p);
  else
    end(p, code);
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
