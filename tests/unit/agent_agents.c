/* Agents: resolved objects, versions, conflicts, no-op updates, archive, lists (API: resources §2, §3; the
 * numbers are those of its checklist). Shapes are checked above the domain, in ops. */
#include "agent_kit.h"

static const char *no_model(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last, (void)k;
  return NULL;
}

static struct rig g;
static char id[64];

static void open_with(const char *json)
{
  g = (struct rig){.model = no_model};
  rig_open(&g, test_dir());
  if (json) {
    rig_ok(&g, mr_agents_create, NULL, NULL, json);
    snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  }
}

#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)
#define INVALID(fn, p0, json, field, words) rig_refused(&g, fn, p0, NULL, json, MR_E_INVALID, 400, field, words)

TEST(create_fills_every_default) /* 13, 14 */
{
  open_with("{\"name\":\"a\",\"model\":{\"id\":\"m\",\"effort\":\"high\"}}");
  GET("/type", "agent");
  GET("/version", "1");
  GET("/description", "null");
  GET("/system", "null");
  GET("/multiagent", "null");
  GET("/archived_at", "null");
  GET("/execution_identity/type", "service_account");
  GET("/model/id", "m");
  GET("/model/speed", "standard");
  GET("/model/effort/type", "high");
  GET("/model/inference_geo", "(absent)");
  CHECK(strstr(g.last, "\"tools\":[]") && strstr(g.last, "\"mcp_servers\":[]") && strstr(g.last, "\"skills\":[]"));
  CHECK(strstr(g.last, "\"metadata\":{}"));
  CHECK(strncmp(id, "agent_01", 8) == 0 && strlen(id) == 30);
  rig_close(&g);
}

TEST(an_update_makes_a_version_and_keeps_the_old_one) /* 16, 19, 27 */
{
  open_with("{\"name\":\"a\",\"model\":\"m\",\"system\":\"s1\",\"metadata\":{\"k\":\"v\"}}");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"version\":1,\"description\":\"d\"}");
  GET("/version", "2");
  GET("/description", "d");
  GET("/system", "s1");
  GET("/metadata/k", "v");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"system\":\"s3\"}"); /* without a version: unconditional */
  GET("/version", "3");
  rig_ok(&g, mr_agents_retrieve, id, NULL, "{\"version\":1}");
  GET("/description", "null");
  GET("/system", "s1");
  rig_ok(&g, mr_agents_retrieve, id, NULL, NULL);
  GET("/version", "3");
  rig_ok(&g, mr_agents_versions_list, id, NULL, "{\"limit\":2}");
  GET("/data/0/version", "3");
  GET("/data/1/version", "2");
  {
    char json[256];
    snprintf(json, sizeof json, "{\"limit\":2,\"page\":\"%s\"}", rig_get(&g, "/next_page"));
    rig_ok(&g, mr_agents_versions_list, id, NULL, json);
  }
  GET("/data/0/version", "1");
  GET("/data/1", "(absent)");
  GET("/next_page", "null");
  rig_close(&g);
}

TEST(a_stale_version_is_a_conflict_even_when_nothing_changes) /* 17, 18 */
{
  char at[64];
  open_with("{\"name\":\"a\",\"model\":\"m\"}");
  snprintf(at, sizeof at, "%s", rig_get(&g, "/updated_at"));
  rig_ok(&g, mr_agents_update, id, NULL, "{\"version\":1,\"name\":\"a\",\"model\":\"m\",\"description\":null}");
  GET("/version", "1");
  CHECK_STR(mr_str_c(rig_get(&g, "/updated_at")), at);
  rig_ok(&g, mr_agents_update, id, NULL, "{\"name\":\"b\"}");
  GET("/version", "2");
  rig_refused(&g, mr_agents_update, id, NULL, "{\"version\":1,\"name\":\"b\"}", MR_E_CONFLICT, 409, "version", "at version 2, not 1");
  CHECK_STR(mr_str_c(g.err.type), "conflict_error");
  rig_refused(&g, mr_agents_update, id, NULL, "{\"version\":3,\"name\":\"b\"}", MR_E_CONFLICT, 409, "version", "at version 2, not 3");
  rig_close(&g);
}

TEST(what_cannot_be_cleared_says_so_and_what_can_is) /* 21, 22, 23 */
{
  open_with("{\"name\":\"a\",\"model\":\"m\",\"system\":\"s\",\"description\":\"d\",\"metadata\":{\"a\":\"1\",\"b\":\"2\"},"
            "\"tools\":[{\"type\":\"agent_toolset_20260401\"}]}");
  INVALID(mr_agents_update, id, "{\"name\":null}", "name", "cannot be cleared");
  INVALID(mr_agents_update, id, "{\"model\":null}", "model", "cannot be cleared");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"system\":\"\",\"description\":null,\"tools\":null,\"metadata\":{\"a\":null,\"c\":\"3\"}}");
  GET("/system", "null");
  GET("/description", "null");
  GET("/tools/0", "(absent)");
  GET("/metadata/a", "(absent)");
  GET("/metadata/b", "2");
  GET("/metadata/c", "3");
  GET("/version", "2");
  rig_close(&g);
}

TEST(metadata_has_limits)
{
  char json[4096];
  size_t n;
  open_with("{\"name\":\"a\",\"model\":\"m\",\"metadata\":{\"k0\":\"v\"}}");
  n = (size_t)snprintf(json, sizeof json, "{\"metadata\":{");
  for (int i = 1; i <= 16; i++) /* the merged result counts */
    n += (size_t)snprintf(json + n, sizeof json - n, "%s\"k%d\":\"v\"", i > 1 ? "," : "", i);
  snprintf(json + n, sizeof json - n, "}}");
  INVALID(mr_agents_update, id, json, "metadata", "at most 16 pairs");
  INVALID(mr_agents_update, id, "{\"metadata\":{\"\":\"v\"}}", "metadata", "1 to 64 characters");
  INVALID(mr_agents_update, id, "{\"metadata\":{\"k\":7}}", "metadata", "metadata.k: a string");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"metadata\":null}");
  GET("/version", "1");
  rig_close(&g);
}

TEST(model_parts_are_replaced_by_their_own_rules) /* 24 */
{
  open_with("{\"name\":\"a\",\"model\":{\"id\":\"m\",\"effort\":\"low\",\"speed\":\"fast\",\"inference_geo\":\"us\"}}");
  GET("/model/inference_geo", "us");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"model\":\"m\"}");
  GET("/model/effort/type", "low"); /* same id: kept */
  GET("/model/speed", "standard");
  GET("/model/inference_geo", "(absent)");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"model\":\"m2\"}");
  GET("/model/effort/type", "high"); /* another id: its default */
  INVALID(mr_agents_update, id, "{\"model\":{\"id\":\"m\",\"effort\":\"huge\"}}", "model.effort", "low");
  INVALID(mr_agents_update, id, "{\"model\":{\"id\":\"m\",\"inference_geo\":\"mars\"}}", "model.inference_geo", "us");
  rig_close(&g);
}

TEST(tools_are_resolved) /* 34 to 36 */
{
  open_with("{\"name\":\"a\",\"model\":\"m\",\"mcp_servers\":[{\"type\":\"url\",\"name\":\"s\",\"url\":\"https://mcp.example.com/\"}],"
            "\"tools\":[{\"type\":\"agent_toolset_20260401\",\"default_config\":{\"permission_policy\":{\"type\":\"always_ask\"}},"
            "\"configs\":[{\"name\":\"bash\",\"permission_policy\":{\"type\":\"always_allow\"}},{\"name\":\"edit\",\"enabled\":false}]},"
            "{\"type\":\"mcp_toolset\",\"mcp_server_name\":\"s\"}]}");
  GET("/tools/0/default_config/permission_policy/type", "always_ask");
  GET("/tools/0/configs/0/name", "bash");
  GET("/tools/0/configs/0/type", "bash");
  GET("/tools/0/configs/0/permission_policy/type", "always_allow");
  GET("/tools/0/configs/1/permission_policy/type", "always_ask");
  GET("/tools/0/configs/2", "(absent)");
  GET("/tools/1/default_config/permission_policy/type", "always_ask");
  GET("/tools/1/mcp_server_name", "s");
  CHECK(strstr(g.last, "\"name\":\"edit\",\"enabled\":false") || strstr(g.last, "\"enabled\":false"));
  rig_close(&g);
}

#define WITH(tools) "{\"name\":\"a\",\"model\":\"m\",\"tools\":[" tools "]}"
#define CUSTOM(name, schema) "{\"type\":\"custom\",\"name\":\"" name "\",\"description\":\"d\",\"input_schema\":" schema "}"
#define SET(configs) "{\"type\":\"agent_toolset_20260401\",\"configs\":[" configs "]}"
#define PROP(name, schema) "{\"type\":\"object\",\"properties\":{\"" name "\":" schema "}}"
#define BAD(json, field, words) INVALID(mr_agents_create, NULL, json, field, words)
#define OBJ "{\"type\":\"object\"}"

TEST(bad_tools_name_their_place) /* 25, 37, 44, 45 */
{
  open_with(NULL);
  BAD(WITH(SET("{\"name\":\"fly\"}")), "tools[0].configs[0].name", "not a tool of agent_toolset_20260401");
  BAD(WITH(SET("{\"name\":\"bash\",\"type\":\"read\"}")), "tools[0].configs[0].type", "must equal name");
  BAD(WITH(SET("{\"name\":\"bash\"},{\"name\":\"bash\"}")), "tools[0].configs[1].name", "configured twice");
  BAD(WITH(SET("") "," SET("")), "tools[1].type", "only one");
  BAD(WITH(CUSTOM("bash", OBJ)), "tools[0].name", "reserved");
  BAD(WITH(CUSTOM("mcp__x", OBJ)), "tools[0].name", "reserved");
  BAD(WITH(CUSTOM("a b", OBJ)), "tools[0].name", "1 to 128 characters");
  BAD(WITH(CUSTOM("a", OBJ) "," CUSTOM("a", OBJ)), "tools[1].name", "used twice");
  BAD(WITH(CUSTOM("a", "{\"type\":\"array\"}")), "tools[0].input_schema", "its type must be \"object\"");
  BAD(WITH(CUSTOM("a", "{\"type\":\"object\",\"anyOf\":[]}")), "tools[0].input_schema", "anyOf");
  BAD(WITH(CUSTOM("a", PROP("x", "{\"items\":{\"$ref\":\"#\"}}"))), "tools[0].input_schema", "$ref");
  BAD(WITH(CUSTOM("a", PROP("a b", "{}"))), "tools[0].input_schema", "property names");
  BAD("{\"name\":\"a\",\"model\":\"m\",\"mcp_servers\":[{\"type\":\"url\",\"name\":\"s\",\"url\":\"https://x.example.com\"}]}",
      "mcp_servers", "needs an mcp_toolset");
  BAD(WITH("{\"type\":\"mcp_toolset\",\"mcp_server_name\":\"s\"}"), "tools[0].mcp_server_name", "names no server");
  rig_close(&g);
}

TEST(an_archived_agent_is_readable_and_nothing_else) /* 26 */
{
  char json[256];
  open_with("{\"name\":\"a\",\"model\":\"m\"}");
  rig_ok(&g, mr_agents_archive, id, NULL, NULL);
  CHECK(strcmp(rig_get(&g, "/archived_at"), "null") != 0);
  snprintf(json, sizeof json, "%s", rig_get(&g, "/archived_at"));
  rig_ok(&g, mr_agents_archive, id, NULL, NULL); /* again: as it is */
  CHECK_STR(mr_str_c(rig_get(&g, "/archived_at")), json);
  rig_refused(&g, mr_agents_update, id, NULL, "{\"name\":\"b\"}", MR_E_STATE, 400, "", id);
  rig_ok(&g, mr_agents_retrieve, id, NULL, NULL);
  rig_ok(&g, mr_agents_list, NULL, NULL, NULL);
  GET("/data/0", "(absent)");
  rig_ok(&g, mr_agents_list, NULL, NULL, "{\"include_archived\":true}");
  GET("/data/0/id", id);
  rig_ok(&g, mr_environments_list, NULL, NULL, NULL);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", id, rig_get(&g, "/data/0/id"));
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_STATE, 400, "agent", id);
  rig_close(&g);
}

TEST(unknown_agents_are_named) /* 20 */
{
  static const char nobody[] = "agent_01aaaaaaaaaaaaaaaaaaaaaa";
  open_with("{\"name\":\"a\",\"model\":\"m\"}");
  rig_refused(&g, mr_agents_retrieve, nobody, NULL, NULL, MR_E_NOTFOUND, 404, "", nobody);
  CHECK_STR(mr_str_c(g.err.type), "not_found_error");
  rig_refused(&g, mr_agents_retrieve, nobody, NULL, "{\"version\":1}", MR_E_NOTFOUND, 404, "version", nobody);
  rig_refused(&g, mr_agents_retrieve, id, NULL, "{\"version\":99}", MR_E_NOTFOUND, 404, "version", "99");
  rig_refused(&g, mr_agents_update, nobody, NULL, "{\"name\":\"b\"}", MR_E_NOTFOUND, 404, "", nobody);
  rig_refused(&g, mr_agents_archive, nobody, NULL, NULL, MR_E_NOTFOUND, 404, "", nobody);
  rig_refused(&g, mr_agents_versions_list, nobody, NULL, NULL, MR_E_NOTFOUND, 404, "", nobody);
  rig_close(&g);
}

TEST(lists_go_page_by_page_newest_first) /* 10 */
{
  char seen[45][64], json[256] = "{\"limit\":20}";
  int n = 0;
  open_with(NULL);
  for (int i = 0; i < 45; i++) {
    char made[128];
    snprintf(made, sizeof made, "{\"name\":\"a%d\",\"model\":\"m\"}", i);
    rig_ok(&g, mr_agents_create, NULL, NULL, made);
  }
  for (int page = 0; page < 4; page++) {
    rig_ok(&g, mr_agents_list, NULL, NULL, json);
    for (int i = 0; i < 20; i++) {
      char ptr[32];
      snprintf(ptr, sizeof ptr, "/data/%d/name", i);
      if (strcmp(rig_get(&g, ptr), "(absent)") == 0)
        break;
      CHECK(n < 45);
      snprintf(seen[n++], 64, "%s", rig_get(&g, ptr));
    }
    if (strcmp(rig_get(&g, "/next_page"), "null") == 0)
      break;
    snprintf(json, sizeof json, "{\"limit\":20,\"page\":\"%s\"}", rig_get(&g, "/next_page"));
  }
  CHECK_INT(n, 45);
  for (int i = 0; i < 45; i++) {
    char want[16];
    snprintf(want, sizeof want, "a%d", 44 - i);
    CHECK_STR(mr_str_c(seen[i]), want);
  }
  INVALID(mr_agents_list, NULL, "{\"limit\":101}", "limit", "1 and 100");
  INVALID(mr_agents_list, NULL, "{\"limit\":0}", "limit", "1 and 100");
  INVALID(mr_agents_list, NULL, "{\"page\":\"page_rubbish\"}", "page", "not a cursor");
  INVALID(mr_agents_list, NULL, "{\"created_at\":{\"gte\":\"yesterday\"}}", "created_at", "created_at[gte]");
  rig_ok(&g, mr_agents_list, NULL, NULL, "{\"created_at\":{\"gte\":\"2199-01-01T00:00:00Z\"}}");
  GET("/data/0", "(absent)");
  rig_close(&g);
}
