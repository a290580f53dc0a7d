/*
 * roster.c - what a session's "multiagent" means to the machine, and agents that a model describes itself. See
 * roster.h; nothing here reads the store.
 */
#include "agent/roster.h"
#include "agent/agents.h"

#include <stdio.h>

enum { NAME_MAX_CHARS = 256, DESCRIPTION_MAX = 2048, SYSTEM_MAX = 100000, NAMED_TOOLS_MAX = 64 };

/* ---- a session's roster ---- */

static bool enabled(yyjson_val *part)
{
  return mr_str_is(mr_json_get_str(part, "type"), "enabled");
}

static yyjson_val *some(yyjson_val *list)
{
  return yyjson_arr_size(list) ? list : NULL;
}

bool mr_roster_read(yyjson_val *agent, struct mr_roster *r)
{
  yyjson_val *m = mr_json_get(agent, "multiagent"), *sub = mr_json_get(m, "subagents"), *v;
  yyjson_val *flows = mr_json_get(m, "workflows"), *list = mr_json_get(m, "agents");
  yyjson_arr_iter it = yyjson_arr_iter_with(list);

  *r = (struct mr_roster){0};
  if (!yyjson_is_obj(m)) return false;
  if (list) {
    while ((v = yyjson_arr_iter_next(&it)))
      if (mr_str_is(mr_json_get_str(v, "type"), "advisor"))
        r->advisor = mr_json_get_str(v, "model");
      else
        r->subagents = true;
    r->agents = r->subagents ? list : NULL;
    return true;
  }
  if (enabled(mr_json_get(m, "advisor"))) r->advisor = mr_json_get_str(mr_json_get(m, "advisor"), "model");
  r->subagents = enabled(sub);
  r->inline_agents = r->subagents && enabled(mr_json_get(sub, "inline_agents"));
  r->agents = r->subagents ? some(mr_json_get(sub, "predefined_agents")) : NULL;
  r->workflows = enabled(flows);
  r->workflow_inline = r->workflows && enabled(mr_json_get(flows, "inline_agents"));
  r->planned = r->workflows ? some(mr_json_get(flows, "predefined_agents")) : NULL;
  return true;
}

yyjson_val *mr_roster_find(yyjson_val *members, struct mr_str name)
{
  static const char *const by[] = {"id", "name"};

  for (int i = 0; members && name.n && i < 2; i++) {
    yyjson_arr_iter it = yyjson_arr_iter_with(members);
    yyjson_val *v;
    while ((v = yyjson_arr_iter_next(&it)))
      if (mr_str_is(mr_json_get_str(v, "type"), "agent") && mr_str_eq(mr_json_get_str(v, by[i]), name))
        return v;
  }
  return NULL;
}

int mr_roster_models(yyjson_val *agent,
                     int (*fn)(void *ud, struct mr_str model, struct mr_str speed, const char *field), void *ud)
{
  yyjson_val *model = mr_json_get(agent, "model"), *v;
  struct mr_roster r;
  int code = fn(ud, mr_json_get_str(model, "id"), mr_json_get_str(model, "speed"), "agent.model");

  mr_roster_read(agent, &r);
  for (int i = 0; i < 2; i++) {
    yyjson_val *list = i ? r.planned : r.agents;
    yyjson_arr_iter it = yyjson_arr_iter_with(list);
    while (code == MR_OK && list && (v = yyjson_arr_iter_next(&it))) {
      model = mr_json_get(v, "model");
      if (mr_str_is(mr_json_get_str(v, "type"), "agent"))
        code = fn(ud, mr_json_get_str(model, "id"), mr_json_get_str(model, "speed"), "agent.multiagent");
    }
  }
  if (code == MR_OK && r.advisor.n) code = fn(ud, r.advisor, mr_str_n("", 0), "agent.multiagent");
  return code;
}

void mr_roster_alone(yyjson_val *agent, struct mr_buf *out)
{
  static const char *const keys[] = {"id",    "version", "name",        "description", "system",
                                     "model", "tools",   "mcp_servers", "skills",      "execution_identity"};
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "agent");
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    mr_jw_kval(&w, keys[i], mr_json_get(agent, keys[i]));
  mr_jw_obj_end(&w);
}

void mr_roster_advisor(struct mr_str model, struct mr_buf *out)
{
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "advisor");
  mr_jw_kstr(&w, "model", model);
  mr_jw_obj_end(&w);
}

/* ---- agents that a model describes ---- */

const char *const mr_roster_inline_schema =
    "{\"type\":\"object\",\"properties\":{"
    "\"name\":{\"type\":\"string\",\"description\":\"short, says what the agent is for\"},"
    "\"description\":{\"type\":\"string\"},"
    "\"system\":{\"type\":\"string\",\"description\":\"the agent's instructions\"},"
    "\"model\":{\"type\":\"string\",\"description\":\"default: yours\"},"
    "\"effort\":{\"type\":\"string\",\"enum\":[\"low\",\"medium\",\"high\",\"xhigh\",\"max\"]},"
    "\"tools\":{\"type\":\"array\",\"items\":{\"type\":\"string\"},\"description\":\"names of your tools that "
    "it "
    "gets, or of MCP servers; default: all of yours\"}},\"required\":[\"name\"]}";

struct described {
  struct mr_models *models;
  yyjson_val *agent, *input;
  struct mr_err *err;
};

static int bad(struct described *d, const char *field, const char *what)
{
  return mr_err_set(d->err, MR_E_INVALID, field, "%s: %s", field, what);
}

/* A text of the input, NULL or of so many characters; empty when absent. */
static int text(struct described *d, const char *key, size_t max, struct mr_str *out)
{
  yyjson_val *v = mr_json_get(d->input, key);
  char what[64];

  *out = mr_json_str(v);
  if (!v || yyjson_is_null(v) || (yyjson_is_str(v) && mr_utf8_chars(*out) <= max)) return MR_OK;
  snprintf(what, sizeof what, "a string of at most %zu characters", max);
  return bad(d, key, what);
}

/* The coordinator's model object, or the model that was named. */
static int write_model(struct described *d, struct mr_jw *w)
{
  static const char *const efforts[] = {"low", "medium", "high", "xhigh", "max"};
  yyjson_val *own = mr_json_get(d->agent, "model");
  struct mr_str model, effort, geo = mr_json_get_str(own, "inference_geo");
  bool known, same;
  int code = text(d, "model", 256, &model);

  if (code == MR_OK) code = text(d, "effort", 16, &effort);
  if (code != MR_OK) return code;
  known = !effort.n;
  for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
    known = known || mr_str_is(effort, efforts[i]);
  if (!known) return bad(d, "effort", "low, medium, high, xhigh or max");
  same = !model.n || mr_str_eq(model, mr_json_get_str(own, "id"));
  if (!same && d->models && mr_models_check(d->models, model, d->err) != MR_OK)
    return bad(d, "model", "there is no such model here; leave it out to use your own");
  if (same) model = mr_json_get_str(own, "id");
  if (same && !effort.n) effort = mr_json_get_str(mr_json_get(own, "effort"), "type");
  mr_jw_obj(w);
  mr_jw_kstr(w, "id", model);
  mr_jw_key(w, "effort");
  mr_jw_obj(w);
  mr_jw_kstr(w, "type", effort.n ? effort : mr_model_effort(model));
  mr_jw_obj_end(w);
  mr_jw_kstr(w, "speed", same ? mr_json_get_str(own, "speed") : MR_S("standard"));
  if (geo.n) mr_jw_kstr(w, "inference_geo", geo);
  mr_jw_obj_end(w);
  return MR_OK;
}

/* ---- its tools ---- */

static const char *const built_in[] = {"bash", "read", "write",     "edit",
                                       "glob", "grep", "web_fetch", "web_search"};
enum { BUILT_IN = sizeof built_in / sizeof *built_in };

static bool named(yyjson_val *names, struct mr_str name)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(names);
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_str(v), name)) return true;
  return false;
}

static yyjson_val *config_of(yyjson_val *set, struct mr_str tool)
{
  yyjson_val *configs = mr_json_get(set, "configs"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(configs);

  while (configs && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "name"), tool)) return v;
  return NULL;
}

/* Does this entry of an agent's tools hold the tool, or is it the server's, of this name? */
static bool holds(yyjson_val *entry, struct mr_str name)
{
  struct mr_str type = mr_json_get_str(entry, "type");
  yyjson_val *setting = config_of(entry, name);
  bool known = false;

  if (mr_str_is(type, "custom")) return mr_str_eq(mr_json_get_str(entry, "name"), name);
  if (mr_str_is(type, "mcp_toolset")) return mr_str_eq(mr_json_get_str(entry, "mcp_server_name"), name);
  for (int i = 0; i < BUILT_IN; i++)
    known = known || mr_str_is(name, built_in[i]);
  return known && mr_json_get_bool(setting ? setting : mr_json_get(entry, "default_config"), "enabled", true);
}

static int check_names(struct described *d, yyjson_val *names)
{
  yyjson_val *tools = mr_json_get(d->agent, "tools"), *v, *entry;
  yyjson_arr_iter it = yyjson_arr_iter_with(names), in;
  char what[320];

  if (!yyjson_is_arr(names) || yyjson_arr_size(names) > NAMED_TOOLS_MAX)
    return bad(d, "tools", "an array of at most 64 names of tools");
  while ((v = yyjson_arr_iter_next(&it))) {
    bool found = false;
    in = yyjson_arr_iter_with(tools);
    while (tools && (entry = yyjson_arr_iter_next(&in)))
      found = found || (yyjson_is_str(v) && holds(entry, mr_json_str(v)));
    if (found) continue;
    snprintf(what, sizeof what, "you have no tool \"%.128s\" to give",
             yyjson_is_str(v) ? yyjson_get_str(v) : "");
    return bad(d, "tools", what);
  }
  return MR_OK;
}

/* The toolset with all but the named tools off; policies and settings stay. */
static void narrow_toolset(struct mr_buf *out, yyjson_val *set, yyjson_val *names)
{
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "type", mr_json_get_str(set, "type"));
  mr_jw_kval(&w, "default_config", mr_json_get(set, "default_config"));
  mr_jw_key(&w, "configs");
  mr_jw_item(&w);
  mr_buf_char(out, '[');
  for (int i = 0, n = 0; i < BUILT_IN; i++) {
    yyjson_val *own = config_of(set, mr_str_c(built_in[i]));
    bool on = named(names, mr_str_c(built_in[i]));
    if (on && !own) continue;
    if (n++) mr_buf_char(out, ',');
    if (on) {
      mr_json_write(out, own, false);
      continue;
    }
    mr_buf_printf(out, "{\"type\":\"%s\",\"name\":\"%s\",\"enabled\":false,\"permission_policy\":", built_in[i],
                  built_in[i]);
    mr_json_write(out, mr_json_get(own ? own : mr_json_get(set, "default_config"), "permission_policy"), false);
    mr_buf_char(out, '}');
  }
  mr_buf_char(out, ']');
  mr_jw_obj_end(&w);
}

static void narrow_tools(struct mr_buf *out, yyjson_val *tools, yyjson_val *names)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);
  yyjson_val *v;
  int n = 0;

  mr_buf_char(out, '[');
  while (tools && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str type = mr_json_get_str(v, "type");
    bool set = mr_str_is(type, "agent_toolset_20260401"), any = set;
    for (int i = 0; set && i < BUILT_IN; i++)
      any = (i && any) || named(names, mr_str_c(built_in[i]));
    if (!set) any = named(names, mr_json_get_str(v, mr_str_is(type, "custom") ? "name" : "mcp_server_name"));
    if (!any) continue;
    if (n++) mr_buf_char(out, ',');
    if (set)
      narrow_toolset(out, v, names);
    else
      mr_json_write(out, v, false);
  }
  mr_buf_char(out, ']');
}

/* The servers whose toolset it has. */
static void narrow_servers(struct mr_buf *out, yyjson_val *servers, yyjson_val *names)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(servers);
  yyjson_val *v;
  int n = 0;

  mr_buf_char(out, '[');
  while (servers && (v = yyjson_arr_iter_next(&it))) {
    if (!named(names, mr_json_get_str(v, "name"))) continue;
    if (n++) mr_buf_char(out, ',');
    mr_json_write(out, v, false);
  }
  mr_buf_char(out, ']');
}

static void write_tools(struct described *d, struct mr_jw *w, yyjson_val *names)
{
  if (!names) {
    mr_jw_kval(w, "tools", mr_json_get(d->agent, "tools"));
    mr_jw_kval(w, "mcp_servers", mr_json_get(d->agent, "mcp_servers"));
    return;
  }
  mr_jw_key(w, "tools");
  mr_jw_item(w);
  narrow_tools(w->b, mr_json_get(d->agent, "tools"), names);
  mr_jw_key(w, "mcp_servers");
  mr_jw_item(w);
  narrow_servers(w->b, mr_json_get(d->agent, "mcp_servers"), names);
}

static void text_or_null(struct mr_jw *w, const char *key, struct mr_str s)
{
  mr_jw_key(w, key);
  if (s.n)
    mr_jw_str(w, s);
  else
    mr_jw_null(w);
}

int mr_roster_inline(struct mr_models *models, yyjson_val *agent, yyjson_val *input, struct mr_buf *out,
                     struct mr_err *err)
{
  struct described d = {models, agent, input, err};
  yyjson_val *names = mr_json_get(input, "tools");
  struct mr_str name, description, system;
  struct mr_jw w;
  int code = text(&d, "name", NAME_MAX_CHARS, &name);

  if (code == MR_OK) code = text(&d, "description", DESCRIPTION_MAX, &description);
  if (code == MR_OK) code = text(&d, "system", SYSTEM_MAX, &system);
  if (code == MR_OK && (!name.n || mr_str_is(name, MR_ADVISOR_NAME)))
    code = bad(&d, "name", "1 to 256 characters, and not " MR_ADVISOR_NAME);
  if (yyjson_is_null(names)) names = NULL;
  if (code == MR_OK && names) code = check_names(&d, names);
  if (code != MR_OK) return code;
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "inline");
  mr_jw_kstr(&w, "name", name);
  text_or_null(&w, "description", description);
  text_or_null(&w, "system", system);
  mr_jw_key(&w, "model");
  code = write_model(&d, &w);
  write_tools(&d, &w, names);
  mr_jw_kval(&w, "skills", mr_json_get(agent, "skills"));
  mr_jw_kval(&w, "execution_identity", mr_json_get(agent, "execution_identity"));
  mr_jw_obj_end(&w);
  return code == MR_OK && out->failed ? mr_err_nomem(err) : code;
}
