/* Rosters: "multiagent" on agents in both forms, what sessions keep of it, and what the machine reads there (API:
 * sessions §12.1, resources §2.6). */
#include "agent_kit.h"
#include "agent/roster.h"

static const char *no_model(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last, (void)k;
  return NULL;
}

static struct rig g;
static char one[64], two[64], gone[64], nested[64], pinned[64];

static void make(const char *json, char id[64])
{
  rig_ok(&g, mr_agents_create, NULL, NULL, json);
  snprintf(id, 64, "%s", rig_get(&g, "/id"));
}

/* Agents to choose from: one and two (of two versions), one in another place, one archived, one with a roster. */
static void open_agents(void)
{
  char json[400];

  g = (struct rig){.model = no_model};
  rig_open(&g, test_dir());
  make("{\"name\":\"reviewer\",\"model\":\"m\",\"system\":\"review\"}", one);
  make("{\"name\":\"tester\",\"model\":\"m2\",\"description\":\"first\"}", two);
  rig_ok(&g, mr_agents_update, two, NULL, "{\"description\":\"second\"}");
  make("{\"name\":\"pinned\",\"model\":{\"id\":\"m\",\"inference_geo\":\"us\"}}", pinned);
  make("{\"name\":\"gone\",\"model\":\"m\"}", gone);
  rig_ok(&g, mr_agents_archive, gone, NULL, NULL);
  snprintf(json, sizeof json, "{\"name\":\"lead\",\"model\":\"m\",\"multiagent\":{\"type\":\"coordinator\",\"agents\":[\"%s\"]}}", one);
  make(json, nested);
}

/* text with $1, $2, $P, $G, $N, $S for ids */
static const char *fill(const char *text, const char *self)
{
  static char out[8192];
  size_t n = 0;

  for (const char *p = text; *p; p++) {
    const char *id = NULL;
    if (*p == '$') {
      p++;
      id = *p == '1' ? one : *p == '2' ? two : *p == 'P' ? pinned : *p == 'G' ? gone : *p == 'N' ? nested : self;
      n += (size_t)snprintf(out + n, sizeof out - n, "%s", id);
    } else {
      out[n++] = *p;
    }
  }
  out[n] = '\0';
  return out;
}

static const char *agent_of(const char *multiagent)
{
  static char json[8192];
  snprintf(json, sizeof json, "{\"name\":\"lead\",\"model\":\"m\",\"multiagent\":%s}", fill(multiagent, "?"));
  return json;
}

#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)

TEST(a_coordinator_is_echoed_in_order_with_versions)
{
  char id[64];
  open_agents();
  make(agent_of("{\"type\":\"coordinator\",\"agents\":[{\"type\":\"advisor\",\"model\":\"m9\"},\"$2\",{\"type\":\"self\"},"
                "{\"type\":\"agent\",\"id\":\"$1\"}]}"), id);
  GET("/multiagent/type", "coordinator");
  GET("/multiagent/agents/0/id", two);
  GET("/multiagent/agents/0/version", "2");
  GET("/multiagent/agents/1/id", id);
  GET("/multiagent/agents/1/version", "1");
  GET("/multiagent/agents/2/id", one);
  GET("/multiagent/agents/3/type", "advisor");
  GET("/multiagent/agents/3/model", "m9");
  rig_ok(&g, mr_agents_create, NULL, NULL, agent_of("{\"type\":\"coordinator\",\"agents\":[{\"type\":\"agent\",\"id\":\"$2\",\"version\":1}]}"));
  GET("/multiagent/agents/0/version", "1");
  rig_close(&g);
}

TEST(the_newer_form_has_all_its_members)
{
  open_agents();
  rig_ok(&g, mr_agents_create, NULL, NULL, agent_of("{\"type\":\"multiagent_20261001\"}"));
  CHECK(strstr(g.last, "\"multiagent\":{\"type\":\"multiagent_20261001\",\"advisor\":{\"type\":\"disabled\"},\"subagents\":{\"type\":"
                       "\"enabled\",\"inline_agents\":{\"type\":\"enabled\"},\"predefined_agents\":[]},\"workflows\":{\"type\":\"enabled\","
                       "\"inline_agents\":{\"type\":\"enabled\"},\"predefined_agents\":[]}}"));
  rig_ok(&g, mr_agents_create, NULL, NULL,
         agent_of("{\"type\":\"multiagent_20261001\",\"advisor\":{\"type\":\"enabled\",\"model\":\"m9\"},\"workflows\":{\"type\":\"disabled\"},"
                  "\"subagents\":{\"type\":\"enabled\",\"inline_agents\":{\"type\":\"disabled\"},\"predefined_agents\":[\"$1\",{\"type\":\"self\"}]}}"));
  GET("/multiagent/advisor/model", "m9");
  GET("/multiagent/workflows/type", "disabled");
  GET("/multiagent/workflows/inline_agents", "(absent)");
  GET("/multiagent/subagents/inline_agents/type", "disabled");
  GET("/multiagent/subagents/predefined_agents/0/id", one);
  rig_close(&g);
}

TEST(what_a_roster_may_not_hold)
{
  static const char *const cases[][3] = {
      {"{\"type\":\"team\"}", "multiagent.type", "coordinator"},
      {"{}", "multiagent.type", "coordinator"},
      {"{\"type\":\"coordinator\"}", "multiagent.agents", "1 to 20"},
      {"{\"type\":\"coordinator\",\"agents\":[]}", "multiagent.agents", "1 to 20"},
      {"{\"type\":\"coordinator\",\"agents\":{}}", "multiagent.agents", "1 to 20"},
      {"{\"type\":\"coordinator\",\"agents\":[5]}", "multiagent.agents[0]", "agent id"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"robot\"}]}", "multiagent.agents[0]", "self or advisor"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"agent\"}]}", "multiagent.agents[0]", "id"},
      {"{\"type\":\"coordinator\",\"agents\":[\"\"]}", "multiagent.agents[0]", "id"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"agent\",\"id\":\"$1\",\"version\":0}]}", "multiagent.agents[0]", "version"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"agent\",\"id\":\"$1\",\"version\":\"1\"}]}", "multiagent.agents[0]", "version"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"agent\",\"id\":\"$1\",\"version\":7}]}", "multiagent.agents[0]", "this version"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$1\",\"agent_unknown\"]}", "multiagent.agents[1]", "no agent agent_unknown"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$G\"]}", "multiagent.agents[0]", "archived"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$N\"]}", "multiagent.agents[0]", "one level deep"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$P\"]}", "multiagent.agents[0]", "inference_geo"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$1\",{\"type\":\"agent\",\"id\":\"$1\",\"version\":1}]}", "multiagent.agents[1]", "twice"},
      {"{\"type\":\"coordinator\",\"agents\":[\"$2\",{\"type\":\"agent\",\"id\":\"$2\",\"version\":1}]}", "multiagent.agents[1]", "twice"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"self\"},{\"type\":\"self\"}]}", "multiagent.agents[1]", "twice"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"advisor\"}]}", "multiagent.agents[0]", "needs a model"},
      {"{\"type\":\"coordinator\",\"agents\":[{\"type\":\"advisor\",\"model\":\"a\"},{\"type\":\"advisor\",\"model\":\"a\"}]}", "multiagent.agents[1]", "one advisor"},
      {"{\"type\":\"multiagent_20261001\",\"advisor\":{\"type\":\"enabled\"}}", "multiagent.advisor.model", "needs a model"},
      {"{\"type\":\"multiagent_20261001\",\"advisor\":{\"model\":\"m\"}}", "multiagent.advisor", "type"},
      {"{\"type\":\"multiagent_20261001\",\"advisor\":true}", "multiagent.advisor", "type"},
      {"{\"type\":\"multiagent_20261001\",\"subagents\":{}}", "multiagent.subagents", "type"},
      {"{\"type\":\"multiagent_20261001\",\"workflows\":{\"type\":\"enabled\",\"inline_agents\":{}}}", "multiagent.workflows.inline_agents", "type"},
      {"{\"type\":\"multiagent_20261001\",\"workflows\":{\"type\":\"enabled\",\"inline_agents\":{\"type\":\"disabled\"}}}", "multiagent.workflows.predefined_agents", "must name"},
      {"{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"enabled\",\"predefined_agents\":\"$1\"}}", "multiagent.subagents.predefined_agents", "array"},
      {"{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"enabled\",\"predefined_agents\":[{\"type\":\"advisor\",\"model\":\"m\"}]}}", "multiagent.subagents.predefined_agents[0]", "self"},
      {"{\"type\":\"multiagent_20261001\",\"workflows\":{\"type\":\"enabled\",\"predefined_agents\":[\"$1\",\"$G\"]}}", "multiagent.workflows.predefined_agents[1]", "archived"},
  };
  char json[8192];
  size_t n;

  open_agents();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    rig_refused(&g, mr_agents_create, NULL, NULL, agent_of(cases[i][0]), MR_E_INVALID, 400, cases[i][1], cases[i][2]);
  n = (size_t)snprintf(json, sizeof json, "{\"name\":\"x\",\"model\":\"m\",\"multiagent\":{\"type\":\"coordinator\",\"agents\":[");
  for (int i = 0; i < 21; i++)
    n += (size_t)snprintf(json + n, sizeof json - n, "%s\"agent_%d\"", i ? "," : "", i);
  snprintf(json + n, sizeof json - n, "]}}");
  rig_refused(&g, mr_agents_create, NULL, NULL, json, MR_E_INVALID, 400, "multiagent.agents", "1 to 20");
  rig_close(&g);
}

TEST(an_update_merges_the_newer_form_and_replaces_the_older)
{
  char id[64];
  open_agents();
  make(agent_of("{\"type\":\"multiagent_20261001\",\"workflows\":{\"type\":\"disabled\"},\"advisor\":{\"type\":\"enabled\",\"model\":\"m9\"},"
                "\"subagents\":{\"type\":\"enabled\",\"inline_agents\":{\"type\":\"disabled\"},\"predefined_agents\":[\"$2\"]}}"), id);
  rig_ok(&g, mr_agents_update, two, NULL, "{\"description\":\"third\"}");
  rig_ok(&g, mr_agents_update, id, NULL, fill("{\"multiagent\":{\"type\":\"multiagent_20261001\",\"advisor\":{\"type\":\"enabled\"}}}", id));
  GET("/version", "1"); /* nothing changed: the model stays, the list stays pinned */
  rig_ok(&g, mr_agents_update, id, NULL, fill("{\"multiagent\":{\"type\":\"multiagent_20261001\",\"workflows\":null,\"subagents\":{\"type\":\"enabled\",\"inline_agents\":null}}}", id));
  GET("/version", "2");
  GET("/multiagent/advisor/model", "m9");
  GET("/multiagent/workflows/type", "enabled"); /* null is the default */
  GET("/multiagent/subagents/inline_agents/type", "enabled");
  GET("/multiagent/subagents/predefined_agents/0/version", "2");
  rig_refused(&g, mr_agents_update, id, NULL, "{\"multiagent\":{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"enabled\",\"inline_agents\":{\"type\":\"disabled\"},\"predefined_agents\":[]}}}",
              MR_E_INVALID, 400, "multiagent.subagents.predefined_agents", "must name");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"multiagent\":{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"disabled\"},\"advisor\":null}}");
  GET("/multiagent/subagents/type", "disabled");
  GET("/multiagent/advisor/type", "disabled");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"multiagent\":{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"enabled\"}}}");
  GET("/multiagent/subagents/predefined_agents/0", "(absent)"); /* nothing of what was disabled comes back */
  rig_ok(&g, mr_agents_update, id, NULL, fill("{\"multiagent\":{\"type\":\"coordinator\",\"agents\":[\"$2\"]}}", id));
  GET("/multiagent/agents/0/version", "3");
  rig_ok(&g, mr_agents_update, id, NULL, fill("{\"multiagent\":{\"type\":\"coordinator\",\"agents\":[\"$1\"]}}", id));
  GET("/multiagent/agents/0/id", one);
  GET("/multiagent/agents/1", "(absent)");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"multiagent\":null}");
  GET("/multiagent", "null");
  rig_close(&g);
}

TEST(what_was_read_can_be_sent_back)
{
  char id[64], version[16], body[8192];
  yyjson_doc *doc;
  yyjson_val *m;
  char *text;

  open_agents();
  make(agent_of("{\"type\":\"coordinator\",\"agents\":[{\"type\":\"self\"},\"$1\",{\"type\":\"advisor\",\"model\":\"m9\"}]}"), id);
  for (int i = 0; i < 2; i++) {
    snprintf(version, sizeof version, "%s", rig_get(&g, "/version"));
    doc = yyjson_read(g.last, strlen(g.last), 0);
    m = yyjson_obj_get(yyjson_doc_get_root(doc), "multiagent");
    text = yyjson_val_write(m, 0, NULL);
    snprintf(body, sizeof body, "{\"multiagent\":%s}", text);
    free(text);
    yyjson_doc_free(doc);
    rig_ok(&g, mr_agents_update, id, NULL, body);
    CHECK_STR(mr_str_c(rig_get(&g, "/version")), version); /* no version of it */
    GET("/multiagent/agents/0/version", version);
    rig_ok(&g, mr_agents_update, id, NULL, "{\"description\":\"new\"}"); /* the agent itself is at its new version */
    GET("/multiagent/agents/0/version", "2");
  }
  rig_close(&g);
}

TEST(pins_of_places_stay_uniform_when_the_model_changes)
{
  char id[64];
  open_agents();
  rig_ok(&g, mr_agents_create, NULL, NULL,
         fill("{\"name\":\"l\",\"model\":{\"id\":\"m\",\"inference_geo\":\"us\"},\"multiagent\":{\"type\":\"coordinator\",\"agents\":[\"$P\"]}}", "?"));
  snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  rig_refused(&g, mr_agents_update, id, NULL, "{\"model\":\"m\"}", MR_E_INVALID, 400, "multiagent.agents[0]", "inference_geo");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"model\":{\"id\":\"m3\",\"inference_geo\":\"us\"}}");
  rig_ok(&g, mr_agents_update, id, NULL, "{\"model\":\"m\",\"multiagent\":null}");
  rig_close(&g);
}

/* ---- sessions ---- */

static yyjson_doc *snapshot; /* of the session that was made last */

static yyjson_val *session_of(const char *agent_json, const char *more)
{
  char json[8192];
  yyjson_doc *doc;
  char *text;

  for (int i = 0; i < 10000 && !g.env[0]; i++) {
    rig_ok(&g, mr_environments_list, NULL, NULL, NULL);
    if (strcmp(rig_get(&g, "/data/0/name"), "default") == 0) snprintf(g.env, sizeof g.env, "%s", rig_get(&g, "/data/0/id"));
    rig_pump(&g);
  }
  snprintf(json, sizeof json, "{\"environment_id\":\"%s\",\"agent\":%s%s}", g.env, agent_json, more);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  doc = yyjson_read(g.last, strlen(g.last), 0);
  text = yyjson_val_write(yyjson_obj_get(yyjson_doc_get_root(doc), "agent"), 0, NULL);
  yyjson_doc_free(snapshot);
  snapshot = yyjson_read(text, strlen(text), 0);
  free(text);
  yyjson_doc_free(doc);
  return yyjson_doc_get_root(snapshot);
}

static struct mr_str at(yyjson_val *v, const char *pointer)
{
  v = yyjson_ptr_get(v, pointer);
  return yyjson_is_str(v) ? mr_json_str(v) : mr_str_c(!v ? "(absent)" : yyjson_is_null(v) ? "null" : "?");
}

TEST(a_session_keeps_full_definitions)
{
  char id[64], json[400];
  yyjson_val *agent, *member;
  struct mr_roster r;
  struct mr_buf b;

  open_agents();
  make(agent_of("{\"type\":\"coordinator\",\"agents\":[{\"type\":\"self\"},\"$1\",\"$2\",{\"type\":\"advisor\",\"model\":\"m9\"}]}"), id);
  rig_ok(&g, mr_agents_update, one, NULL, "{\"system\":\"other\"}"); /* later: not seen */
  rig_ok(&g, mr_agents_archive, two, NULL, NULL);                     /* nor this */
  snprintf(json, sizeof json, "{\"type\":\"agent_with_overrides\",\"id\":\"%s\",\"system\":\"mine\",\"model\":\"m7\"}", id);
  agent = session_of(json, "");
  CHECK_STR(at(agent, "/multiagent/type"), "coordinator");
  CHECK_STR(at(agent, "/multiagent/agents/0/system"), "mine"); /* a copy of the coordinator: with the overrides */
  CHECK_STR(at(agent, "/multiagent/agents/0/model/id"), "m7");
  CHECK_STR(at(agent, "/multiagent/agents/0/multiagent"), "(absent)");
  CHECK_STR(at(agent, "/multiagent/agents/1/system"), "review");
  CHECK_STR(at(agent, "/multiagent/agents/2/description"), "second");
  CHECK_STR(at(agent, "/multiagent/agents/2/metadata"), "(absent)");
  CHECK_STR(at(agent, "/multiagent/agents/2/execution_identity/type"), "service_account");
  CHECK_STR(at(agent, "/multiagent/agents/3/type"), "advisor");

  CHECK(mr_roster_read(agent, &r));
  CHECK(r.subagents && !r.inline_agents && !r.workflows && !r.planned);
  CHECK_STR(r.advisor, "m9");
  member = mr_roster_find(r.agents, MR_S("tester"));
  CHECK_STR(at(member, "/id"), two);
  CHECK(mr_roster_find(r.agents, mr_str_c(two)) == member);
  CHECK_STR(at(mr_roster_find(r.agents, MR_S("lead")), "/id"), id);
  CHECK(!mr_roster_find(r.agents, MR_S("advisor")) && !mr_roster_find(r.agents, MR_S("")) && !mr_roster_find(NULL, MR_S("x")));

  mr_buf_init(&b, &test_sys()->mem, 1 << 20);
  mr_roster_alone(agent, &b);
  CHECK(strstr(mr_buf_get(&b).p, "\"system\":\"mine\"") && !strstr(b.p, "multiagent"));
  mr_buf_reset(&b);
  mr_roster_advisor(r.advisor, &b);
  CHECK_STR(mr_buf_get(&b), "{\"type\":\"advisor\",\"model\":\"m9\"}");
  mr_buf_free(&b);
  yyjson_doc_free(snapshot);
  rig_close(&g);
}

TEST(the_newer_form_of_a_session)
{
  char json[400];
  yyjson_val *agent;
  struct mr_roster r;

  open_agents();
  make(agent_of("{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"enabled\",\"inline_agents\":{\"type\":\"disabled\"},\"predefined_agents\":[\"$1\"]},"
                "\"workflows\":{\"type\":\"enabled\",\"predefined_agents\":[\"$2\"]}}"), g.agent);
  snprintf(json, sizeof json, "\"%s\"", g.agent);
  agent = session_of(json, "");
  CHECK(mr_roster_read(agent, &r));
  CHECK(r.subagents && !r.inline_agents && r.workflows && r.workflow_inline && !r.advisor.n);
  CHECK(mr_roster_find(r.agents, MR_S("reviewer")) && !mr_roster_find(r.agents, MR_S("tester")));
  CHECK(mr_roster_find(r.planned, MR_S("tester")));
  make(agent_of("{\"type\":\"multiagent_20261001\",\"subagents\":{\"type\":\"disabled\"},\"advisor\":{\"type\":\"enabled\",\"model\":\"m9\"}}"), g.agent);
  snprintf(json, sizeof json, "\"%s\"", g.agent);
  agent = session_of(json, "");
  CHECK(mr_roster_read(agent, &r) && !r.subagents && !r.agents && r.workflows);
  CHECK_STR(r.advisor, "m9");
  snprintf(json, sizeof json, "\"%s\"", one);
  CHECK(!mr_roster_read(session_of(json, ""), &r) && !r.subagents && !r.advisor.n);
  yyjson_doc_free(snapshot);
  rig_close(&g);
}

TEST(copies_of_the_coordinator_follow_an_update)
{
  static const char *const tool = "{\"type\":\"custom\",\"name\":\"ask\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}";
  char json[1000], id[64];
  yyjson_val *agent;

  open_agents();
  make(agent_of("{\"type\":\"coordinator\",\"agents\":[\"$1\",{\"type\":\"self\"}]}"), id);
  snprintf(json, sizeof json, "\"%s\"", id);
  agent = session_of(json, "");
  CHECK_STR(at(agent, "/multiagent/agents/1/tools/0/name"), "(absent)");
  snprintf(json, sizeof json, "{\"agent\":{\"tools\":[%s]}}", tool);
  rig_ok(&g, mr_sessions_update, g.session, NULL, json);
  GET("/agent/tools/0/name", "ask");
  GET("/agent/multiagent/agents/0/tools/0", "(absent)");
  GET("/agent/multiagent/agents/1/tools/0/name", "ask");
  GET("/agent/multiagent/agents/1/id", id);
  rig_ok(&g, mr_sessions_update, g.session, NULL, json); /* the same again */
  CHECK_STR(mr_str_c(rig_types(&g)), "updated");
  yyjson_doc_free(snapshot);
  rig_close(&g);
}

/* ---- agents that a model describes ---- */

static yyjson_doc *described;
static struct mr_err why;

static int describe(yyjson_val *agent, const char *input)
{
  yyjson_doc *in = NULL;
  struct mr_buf b;
  int code;

  yyjson_doc_free(described);
  described = NULL;
  mr_buf_init(&b, &test_sys()->mem, 1 << 20);
  CHECK(mr_json_parse(&test_sys()->mem, mr_str_c(input), 1 << 20, &in, NULL) == MR_OK);
  code = mr_roster_inline(NULL, agent, yyjson_doc_get_root(in), &b, &why);
  if (code == MR_OK) CHECK((described = yyjson_read(b.p, b.n, 0)) != NULL);
  mr_buf_free(&b);
  yyjson_doc_free(in);
  return code;
}

static const char *const owner =
    "{\"type\":\"agent\",\"id\":\"a\",\"name\":\"lead\",\"system\":\"secret\",\"model\":{\"id\":\"m\",\"effort\":{\"type\":\"low\"},\"speed\":\"fast\",\"inference_geo\":\"us\"},"
    "\"tools\":[{\"type\":\"agent_toolset_20260401\",\"default_config\":{\"enabled\":true,\"permission_policy\":{\"type\":\"always_ask\"}},\"configs\":["
    "{\"type\":\"bash\",\"name\":\"bash\",\"enabled\":false,\"permission_policy\":{\"type\":\"always_ask\"}},"
    "{\"type\":\"web_fetch\",\"name\":\"web_fetch\",\"enabled\":true,\"permission_policy\":{\"type\":\"auto\"},\"allowed_domains\":[\"a.com\"]}]},"
    "{\"type\":\"custom\",\"name\":\"pay\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}},"
    "{\"type\":\"mcp_toolset\",\"mcp_server_name\":\"crm\",\"default_config\":{\"enabled\":true,\"permission_policy\":{\"type\":\"always_ask\"}},\"configs\":[]}],"
    "\"mcp_servers\":[{\"type\":\"url\",\"name\":\"crm\",\"url\":\"https://x\"}],\"skills\":[],\"execution_identity\":{\"type\":\"service_account\"},\"multiagent\":null}";

TEST(a_described_agent_has_what_the_coordinator_has)
{
  yyjson_doc *doc = yyjson_read(owner, strlen(owner), 0);
  yyjson_val *agent = yyjson_doc_get_root(doc), *v;

  CHECK(describe(agent, "{\"name\":\"scout\"}") == MR_OK);
  v = yyjson_doc_get_root(described);
  CHECK_STR(at(v, "/type"), "inline");
  CHECK_STR(at(v, "/name"), "scout");
  CHECK_STR(at(v, "/description"), "null");
  CHECK_STR(at(v, "/system"), "null"); /* not the coordinator's instructions */
  CHECK_STR(at(v, "/model/speed"), "fast");
  CHECK_STR(at(v, "/model/effort/type"), "low");
  CHECK(mr_json_equal(mr_json_get(v, "tools"), mr_json_get(agent, "tools")));
  CHECK(mr_json_equal(mr_json_get(v, "mcp_servers"), mr_json_get(agent, "mcp_servers")));
  CHECK_STR(at(v, "/id"), "(absent)");
  CHECK_STR(at(v, "/multiagent"), "(absent)");
  CHECK(describe(agent, "{\"name\":\"scout\",\"system\":\"look\",\"model\":\"m2\",\"effort\":\"max\",\"description\":null}") == MR_OK);
  v = yyjson_doc_get_root(described);
  CHECK_STR(at(v, "/model/id"), "m2");
  CHECK_STR(at(v, "/model/effort/type"), "max");
  CHECK_STR(at(v, "/model/speed"), "standard");
  CHECK_STR(at(v, "/model/inference_geo"), "us"); /* stays where the coordinator is */
  yyjson_doc_free(described);
  yyjson_doc_free(doc);
}

TEST(a_described_agent_gets_the_named_tools_alone)
{
  yyjson_doc *doc = yyjson_read(owner, strlen(owner), 0);
  yyjson_val *agent = yyjson_doc_get_root(doc), *v;

  CHECK(describe(agent, "{\"name\":\"s\",\"tools\":[\"read\",\"web_fetch\"]}") == MR_OK);
  v = yyjson_doc_get_root(described);
  CHECK_INT(yyjson_arr_size(mr_json_get(v, "tools")), 1);
  CHECK_INT(yyjson_arr_size(yyjson_ptr_get(v, "/tools/0/configs")), 7); /* all but read, which has the default */
  CHECK_STR(at(v, "/tools/0/configs/0/name"), "bash");
  CHECK(!yyjson_get_bool(yyjson_ptr_get(v, "/tools/0/configs/1/enabled")));
  CHECK_STR(at(v, "/tools/0/configs/1/permission_policy/type"), "always_ask");
  CHECK_STR(at(v, "/tools/0/configs/5/name"), "web_fetch");
  CHECK_STR(at(v, "/tools/0/configs/5/allowed_domains/0"), "a.com");
  CHECK_STR(at(v, "/tools/0/configs/5/permission_policy/type"), "auto");
  CHECK_INT(yyjson_arr_size(mr_json_get(v, "mcp_servers")), 0);
  CHECK(describe(agent, "{\"name\":\"s\",\"tools\":[\"pay\",\"crm\"]}") == MR_OK);
  v = yyjson_doc_get_root(described);
  CHECK_INT(yyjson_arr_size(mr_json_get(v, "tools")), 2);
  CHECK_STR(at(v, "/tools/1/mcp_server_name"), "crm");
  CHECK_STR(at(v, "/mcp_servers/0/name"), "crm");
  CHECK(describe(agent, "{\"name\":\"s\",\"tools\":[]}") == MR_OK);
  CHECK_INT(yyjson_arr_size(mr_json_get(yyjson_doc_get_root(described), "tools")), 0);
  yyjson_doc_free(described);
  yyjson_doc_free(doc);
}

TEST(what_a_description_may_not_say)
{
  static const char *const cases[][2] = {
      {"{}", "name"}, {"{\"name\":\"\"}", "name"}, {"{\"name\":5}", "name"}, {"{\"name\":\"anthropic.advisor\"}", "name"}, {"[]", "name"},
      {"{\"name\":\"s\",\"system\":[]}", "system"}, {"{\"name\":\"s\",\"description\":1}", "description"}, {"{\"name\":\"s\",\"effort\":\"huge\"}", "effort"},
      {"{\"name\":\"s\",\"effort\":{}}", "effort"}, {"{\"name\":\"s\",\"model\":{}}", "model"}, {"{\"name\":\"s\",\"tools\":\"read\"}", "tools"},
      {"{\"name\":\"s\",\"tools\":[5]}", "tools"}, {"{\"name\":\"s\",\"tools\":[\"fly\"]}", "tools"}, {"{\"name\":\"s\",\"tools\":[\"bash\"]}", "tools"},
  };
  yyjson_doc *doc = yyjson_read(owner, strlen(owner), 0), *schema = NULL;
  char *longer = calloc(1, 100400);

  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    if (describe(yyjson_doc_get_root(doc), cases[i][0]) != MR_E_INVALID || strcmp(why.field, cases[i][1]) != 0)
      test_fail(__FILE__, __LINE__, "%s: field \"%s\", not \"%s\"", cases[i][0], why.field, cases[i][1]);
  memset(longer, 'x', 100300);
  memcpy(longer, "{\"name\":\"s\",\"system\":\"", 22);
  memcpy(longer + 100299, "\"}", 2);
  CHECK(describe(yyjson_doc_get_root(doc), longer) == MR_E_INVALID && strcmp(why.field, "system") == 0);
  free(longer);
  CHECK(mr_json_parse(&test_sys()->mem, mr_str_c(mr_roster_inline_schema), 1 << 20, &schema, NULL) == MR_OK);
  CHECK_STR(at(yyjson_doc_get_root(schema), "/type"), "object");
  yyjson_doc_free(schema);
  yyjson_doc_free(doc);
}
