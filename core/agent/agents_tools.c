/*
 * agents_tools.c - the members of an agent that have short and full forms: model, tools, MCP servers, skills.
 * What is stored, and answered, is the full form with every default filled in; single-field limits were
 * checked by the operation's shape.
 */
#include "agent/agents.h"
#include "agent/toolset.h"
#include "agent/web_tools.h"

#include <stdio.h>

enum { TOOLS_MAX = 256, SERVERS_MAX = 20 };

static int refuse(struct mr_call *c, const char *list, size_t i, const char *sub, const char *what)
{
  char field[96];
  snprintf(field, sizeof field, "%s[%zu]%s%s", list, i, sub[0] ? "." : "", sub);
  return mr_err_set(&c->err, MR_E_INVALID, field, "%s: %s", field, what);
}

/* ---- model ---- */

static bool effort_known(struct mr_str level)
{
  static const char *const efforts[] = {"low", "medium", "high", "xhigh", "max"};

  for (size_t i = 0; i < sizeof efforts / sizeof *efforts; i++)
    if (mr_str_is(level, efforts[i])) return true;
  return false;
}

struct mr_str mr_model_effort(struct mr_str model)
{
  bool medium = mr_str_starts(model, MR_S("claude-opus-5-5")) || mr_str_starts(model, MR_S("claude-haiku-5-5"));
  return medium ? MR_S("medium") : MR_S("high");
}

static int write_model(struct mr_call *c, yyjson_val *given, struct mr_str kept_effort, bool own_effort,
                       struct mr_buf *out)
{
  struct mr_str id = yyjson_is_str(given) ? mr_json_str(given) : mr_json_get_str(given, "id");
  yyjson_val *effort = mr_json_get(given, "effort");
  struct mr_str level = yyjson_is_str(effort) ? mr_json_str(effort) : mr_json_get_str(effort, "type");
  struct mr_str speed = mr_json_get_str(given, "speed"), geo = mr_json_get_str(given, "inference_geo");
  struct mr_jw w;

  if (!id.n) return mr_err_set(&c->err, MR_E_INVALID, "model", "model: a model id, or an object with id");
  if (effort && !yyjson_is_null(effort) && !effort_known(level))
    return mr_err_set(&c->err, MR_E_INVALID, "model.effort", "model.effort: low, medium, high, xhigh or max");
  if (speed.n && !mr_str_is(speed, "standard") && !mr_str_is(speed, "fast"))
    return mr_err_set(&c->err, MR_E_INVALID, "model.speed", "model.speed: standard or fast");
  if (geo.n && !mr_str_is(geo, "us") && !mr_str_is(geo, "global"))
    return mr_err_set(&c->err, MR_E_INVALID, "model.inference_geo", "model.inference_geo: us or global");
  if (!level.n || !own_effort) level = kept_effort.n ? kept_effort : mr_model_effort(id);
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "id", id);
  mr_jw_key(&w, "effort");
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "type", level);
  mr_jw_obj_end(&w);
  mr_jw_kstr(&w, "speed", speed.n ? speed : MR_S("standard"));
  if (geo.n) mr_jw_kstr(&w, "inference_geo", geo);
  mr_jw_obj_end(&w);
  return MR_OK;
}

int mr_agent_model(struct mr_call *c, yyjson_val *given, yyjson_val *old, struct mr_buf *out)
{
  struct mr_str id = yyjson_is_str(given) ? mr_json_str(given) : mr_json_get_str(given, "id"), kept = {0};

  if (old && mr_str_eq(mr_json_get_str(old, "id"), id))
    kept = mr_json_get_str(mr_json_get(old, "effort"), "type");
  return write_model(c, given, kept, true, out);
}

int mr_agent_model_override(struct mr_call *c, yyjson_val *given, struct mr_buf *out)
{
  if (yyjson_is_null(given))
    return mr_err_code(&c->err, MR_E_INVALID, "agent_model_required", "model",
                       "model: an override cannot clear the model");
  return write_model(c, given, mr_str_n(NULL, 0), false, out);
}

/* ---- tools ---- */

static bool policy_known(struct mr_str p)
{
  return mr_str_is(p, "always_allow") || mr_str_is(p, "always_ask") || mr_str_is(p, "auto");
}

/* enabled and permission_policy of a config, falling back to dflt, then to the toolset's own defaults. */
static int write_setting(struct mr_call *c, struct mr_jw *w, yyjson_val *own, yyjson_val *dflt,
                         const char *policy, const char *list, size_t i)
{
  yyjson_val *on = mr_json_get(own, "enabled");
  struct mr_str p = mr_json_get_str(mr_json_get(own, "permission_policy"), "type");

  if (!yyjson_is_bool(on)) on = mr_json_get(dflt, "enabled");
  if (!p.n) p = mr_json_get_str(mr_json_get(dflt, "permission_policy"), "type");
  if (!p.n) p = mr_str_c(policy);
  if (!policy_known(p))
    return refuse(c, list, i, "permission_policy", "type is always_allow, always_ask or auto");
  mr_jw_key(w, "enabled");
  mr_jw_bool(w, yyjson_is_bool(on) ? yyjson_get_bool(on) : true);
  mr_jw_key(w, "permission_policy");
  mr_jw_obj(w);
  mr_jw_kstr(w, "type", p);
  mr_jw_obj_end(w);
  return MR_OK;
}

static int write_configs(struct mr_call *c, struct mr_jw *w, yyjson_val *tools, yyjson_val *tool, bool mcp,
                         const char *policy, size_t at)
{
  yyjson_val *configs = mr_json_get(tool, "configs"), *v, *u;
  yyjson_arr_iter it = yyjson_arr_iter_with(configs), again;
  char list[48], path[80];
  size_t i = 0, k;
  int code = MR_OK;

  snprintf(list, sizeof list, "tools[%zu].configs", at);
  mr_jw_arr(w);
  while (code == MR_OK && configs && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str name = mr_json_get_str(v, "name"), type = mr_json_get_str(v, "type");
    bool web = mr_toolset_web(name);
    if (!name.n || (!mcp && !mr_toolset_has(name)))
      return refuse(c, list, i, "name",
                    "not a tool of agent_toolset_20260401 (bash, read, write, edit, glob, "
                    "grep, web_fetch, web_search)");
    if (!mcp && type.n && !mr_str_eq(type, name)) return refuse(c, list, i, "type", "must equal name");
    again = yyjson_arr_iter_with(configs);
    for (k = 0; k < i && (u = yyjson_arr_iter_next(&again)); k++)
      if (mr_str_eq(mr_json_get_str(u, "name"), name)) return refuse(c, list, i, "name", "configured twice");
    mr_jw_obj(w);
    if (!mcp) mr_jw_kstr(w, "type", name);
    mr_jw_kstr(w, "name", name);
    code = write_setting(c, w, v, mr_json_get(tool, "default_config"), policy, list, i);
    snprintf(path, sizeof path, "%s[%zu]", list, i);
    if (code == MR_OK && web && !mcp) code = mr_web_tool_write(c, w, v, tools, path);
    mr_jw_obj_end(w);
    i++;
  }
  mr_jw_arr_end(w);
  return code;
}

static int write_toolset(struct mr_call *c, struct mr_jw *w, yyjson_val *tools, yyjson_val *tool, bool mcp,
                         size_t i)
{
  const char *policy = mcp ? "always_ask" : "always_allow";
  int code;

  mr_jw_obj(w);
  mr_jw_kstr(w, "type", mr_json_get_str(tool, "type"));
  if (mcp) mr_jw_kstr(w, "mcp_server_name", mr_json_get_str(tool, "mcp_server_name"));
  mr_jw_key(w, "default_config");
  mr_jw_obj(w);
  code = write_setting(c, w, mr_json_get(tool, "default_config"), NULL, policy, "tools", i);
  mr_jw_obj_end(w);
  mr_jw_key(w, "configs");
  if (code == MR_OK) code = write_configs(c, w, tools, tool, mcp, policy, i);
  mr_jw_obj_end(w);
  return code;
}

static bool has_ref(yyjson_val *v)
{
  yyjson_val *k;
  if (yyjson_is_arr(v)) {
    yyjson_arr_iter it = yyjson_arr_iter_with(v);
    while ((k = yyjson_arr_iter_next(&it)))
      if (has_ref(k)) return true;
  } else if (yyjson_is_obj(v)) {
    yyjson_obj_iter it = yyjson_obj_iter_with(v);
    while ((k = yyjson_obj_iter_next(&it)))
      if (mr_str_is(mr_json_str(k), "$ref") || has_ref(yyjson_obj_iter_get_val(k))) return true;
  }
  return false;
}

static bool name_ok(struct mr_str s, size_t max, const char *extra)
{
  for (size_t i = 0; i < s.n; i++) {
    char ch = s.p[i];
    if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
          (ch && strchr(extra, ch))))
      return false;
  }
  return s.n >= 1 && s.n <= max;
}

static int check_custom(struct mr_call *c, yyjson_val *tool, size_t i)
{
  struct mr_str name = mr_json_get_str(tool, "name");
  yyjson_val *schema = mr_json_get(tool, "input_schema"), *props = mr_json_get(schema, "properties"), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(props);

  if (!name_ok(name, 128, "_-")) return refuse(c, "tools", i, "name", "1 to 128 characters of A-Z a-z 0-9 _ -");
  if (mr_toolset_has(name) || mr_str_starts(name, MR_S("mcp__")))
    return refuse(c, "tools", i, "name", "this name is reserved");
  if (!mr_json_get_str(tool, "description").n) return refuse(c, "tools", i, "description", "must not be empty");
  if (!mr_str_is(mr_json_get_str(schema, "type"), "object"))
    return refuse(c, "tools", i, "input_schema", "its type must be \"object\"");
  if (props && !yyjson_is_obj(props) && !yyjson_is_null(props))
    return refuse(c, "tools", i, "input_schema", "properties must be an object");
  if (mr_json_get(schema, "oneOf") || mr_json_get(schema, "anyOf") || mr_json_get(schema, "allOf"))
    return refuse(c, "tools", i, "input_schema", "oneOf, anyOf and allOf are not allowed at the top level");
  if (has_ref(schema)) return refuse(c, "tools", i, "input_schema", "$ref is not allowed");
  while (yyjson_is_obj(props) && (k = yyjson_obj_iter_next(&it)))
    if (!name_ok(mr_json_str(k), 64, "_.-"))
      return refuse(c, "tools", i, "input_schema",
                    "property names have 1 to 64 characters of A-Z a-z 0-9 _ . -");
  return MR_OK;
}

/* Same kind and same name as an earlier tool of the list? */
static bool repeated(yyjson_val *list, yyjson_val *tool, size_t i, const char *key)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;

  for (size_t k = 0; k < i && (v = yyjson_arr_iter_next(&it)); k++)
    if (mr_str_eq(mr_json_get_str(v, "type"), mr_json_get_str(tool, "type")) &&
        (!key || mr_str_eq(mr_json_get_str(v, key), mr_json_get_str(tool, key))))
      return true;
  return false;
}

static int write_tool(struct mr_call *c, struct mr_jw *w, yyjson_val *list, yyjson_val *tool, size_t i)
{
  struct mr_str type = mr_json_get_str(tool, "type");
  int code;

  if (mr_str_is(type, "agent_toolset_20260401")) {
    if (repeated(list, tool, i, NULL)) return refuse(c, "tools", i, "type", "only one agent_toolset_20260401");
    return write_toolset(c, w, list, tool, false, i);
  }
  if (mr_str_is(type, "mcp_toolset")) {
    if (!mr_json_get_str(tool, "mcp_server_name").n || repeated(list, tool, i, "mcp_server_name"))
      return refuse(c, "tools", i, "mcp_server_name", "one toolset for each declared server");
    return write_toolset(c, w, list, tool, true, i);
  }
  if (!mr_str_is(type, "custom"))
    return refuse(c, "tools", i, "type", "agent_toolset_20260401, mcp_toolset or custom");
  code = check_custom(c, tool, i);
  if (code == MR_OK && repeated(list, tool, i, "name")) code = refuse(c, "tools", i, "name", "used twice");
  if (code != MR_OK) return code;
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "custom");
  mr_jw_kstr(w, "name", mr_json_get_str(tool, "name"));
  mr_jw_kstr(w, "description", mr_json_get_str(tool, "description"));
  mr_jw_key(w, "input_schema");
  w->after_key = false;
  mr_json_write(w->b, mr_json_get(tool, "input_schema"), true);
  mr_jw_obj_end(w);
  return MR_OK;
}

int mr_agent_tools(struct mr_call *c, yyjson_val *given, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(given);
  yyjson_val *v;
  struct mr_jw w;
  size_t i = 0;
  int code = MR_OK;

  if (yyjson_arr_size(given) > TOOLS_MAX)
    return mr_err_set(&c->err, MR_E_INVALID, "tools", "tools: at most %d", TOOLS_MAX);
  mr_jw_init(&w, out);
  mr_jw_arr(&w);
  while (code == MR_OK && yyjson_is_arr(given) && (v = yyjson_arr_iter_next(&it)))
    code = write_tool(c, &w, given, v, i++);
  mr_jw_arr_end(&w);
  return code;
}

/* ---- MCP servers and skills ---- */

int mr_agent_servers(struct mr_call *c, yyjson_val *given, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(given);
  yyjson_val *v;
  struct mr_jw w;
  size_t i = 0;

  if (yyjson_arr_size(given) > SERVERS_MAX)
    return mr_err_set(&c->err, MR_E_INVALID, "mcp_servers", "mcp_servers: at most %d", SERVERS_MAX);
  mr_jw_init(&w, out);
  mr_jw_arr(&w);
  for (; yyjson_is_arr(given) && (v = yyjson_arr_iter_next(&it)); i++) {
    struct mr_str name = mr_json_get_str(v, "name"), url = mr_json_get_str(v, "url");
    if (!mr_str_is(mr_json_get_str(v, "type"), "url"))
      return refuse(c, "mcp_servers", i, "type", "must be \"url\"");
    if (!name.n || name.n > 255 || repeated(given, v, i, "name"))
      return refuse(c, "mcp_servers", i, "name", "1 to 255 characters, each name once");
    if (!url.n || url.n > 2048) return refuse(c, "mcp_servers", i, "url", "1 to 2,048 characters");
    mr_jw_obj(&w);
    mr_jw_kc(&w, "type", "url");
    mr_jw_kstr(&w, "name", name);
    mr_jw_kstr(&w, "url", url);
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  return MR_OK;
}

int mr_agent_skills(struct mr_call *c, yyjson_val *given, struct mr_buf *out)
{
  if (yyjson_arr_size(given) > 0)
    return refuse(c, "skills", 0, "skill_id", "there is no skill of this id (skills are not implemented yet)");
  mr_buf_c(out, "[]");
  return MR_OK;
}

static bool can_read(yyjson_val *tools)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(tools);
  yyjson_val *t;

  while (tools && (t = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(t, "type"), "agent_toolset_20260401")) return true;
  return false;
}

int mr_agent_skills_check(struct mr_call *c, yyjson_val *agent)
{
  if (!yyjson_arr_size(mr_json_get(agent, "skills")) || can_read(mr_json_get(agent, "tools"))) return MR_OK;
  return mr_err_set(&c->err, MR_E_INVALID, "tools",
                    "tools: skills are read with the tool read of agent_toolset_20260401, which must stay");
}

int mr_agent_cross_check(struct mr_call *c, yyjson_val *agent, bool session)
{
  yyjson_val *tools = mr_json_get(agent, "tools"), *servers = mr_json_get(agent, "mcp_servers"), *t, *s;
  yyjson_arr_iter ti = yyjson_arr_iter_with(tools), si;
  size_t used = 0, i = 0;

  while ((t = yyjson_arr_iter_next(&ti))) {
    bool found = !mr_str_is(mr_json_get_str(t, "type"), "mcp_toolset");
    bool mcp = !found;
    si = yyjson_arr_iter_with(servers);
    while (!found && (s = yyjson_arr_iter_next(&si)))
      found = mr_str_eq(mr_json_get_str(s, "name"), mr_json_get_str(t, "mcp_server_name"));
    if (!found) return refuse(c, "tools", i, "mcp_server_name", "names no server of mcp_servers");
    used += mcp;
    i++;
  }
  if (!session && used < yyjson_arr_size(servers))
    return mr_err_set(&c->err, MR_E_INVALID, "mcp_servers",
                      "mcp_servers: every server needs an mcp_toolset in tools");
  return MR_OK;
}
