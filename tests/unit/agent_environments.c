/* Environments (API: resources §7, the numbers are those of its checklist) and API keys. */
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
  for (int i = 0; i < 1000 && strcmp(rig_get(&g, "/data/0/name"), "default") != 0; i++)
    rig_pump(&g), rig_ok(&g, mr_environments_list, NULL, NULL, NULL); /* the first start makes one */
  if (json) {
    rig_ok(&g, mr_environments_create, NULL, NULL, json);
    snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  }
}

#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)
#define INVALID(fn, p0, json, field, words) rig_refused(&g, fn, p0, NULL, json, MR_E_INVALID, 400, field, words)

TEST(a_name_is_enough) /* 64 */
{
  open_with("{\"name\":\"e\"}");
  CHECK(strncmp(id, "env_01", 6) == 0);
  GET("/type", "environment");
  GET("/description", "null");
  GET("/config/type", "cloud");
  GET("/config/networking/type", "unrestricted");
  GET("/scope", "organization");
  GET("/archived_at", "null");
  CHECK(strstr(g.last, "\"packages\":{\"type\":\"packages\",\"apt\":[],\"cargo\":[],\"gem\":[],\"go\":[],\"npm\":[],\"pip\":[]}"));
  rig_close(&g);
}

TEST(limited_networks_have_all_members_and_rules) /* 65, 66, 71 */
{
  open_with(NULL);
  INVALID(mr_environments_create, NULL, "{\"name\":\"e\",\"config\":{\"type\":\"cloud\",\"networking\":{\"type\":\"limited\"},"
          "\"packages\":{\"pip\":[\"x\"]}}}", "config.networking.allow_package_managers", "must be true");
  INVALID(mr_environments_create, NULL, "{\"name\":\"e\",\"config\":{\"type\":\"cloud\",\"networking\":{\"type\":\"limited\","
          "\"allowed_hosts\":[\"https://x.example.com\"]}}}", "config.networking.allowed_hosts", "no scheme");
  INVALID(mr_environments_create, NULL, "{\"name\":\"e\",\"config\":{\"type\":\"cloud\",\"networking\":{\"type\":\"none\"}}}",
          "config.networking.type", "unrestricted or limited");
  INVALID(mr_environments_create, NULL, "{\"name\":\"e\",\"config\":{\"type\":\"moon\"}}", "config.type", "cloud or self_hosted");
  INVALID(mr_environments_create, NULL, "{\"name\":\"e\",\"scope\":\"account\"}", "scope", "organization");
  rig_ok(&g, mr_environments_create, NULL, NULL, "{\"name\":\"e\",\"config\":{\"type\":\"cloud\",\"networking\":{\"type\":\"limited\"}}}");
  CHECK(strstr(g.last, "\"networking\":{\"type\":\"limited\",\"allowed_hosts\":[],\"allow_mcp_servers\":false,"
                       "\"allow_package_managers\":false}"));
  rig_close(&g);
}

TEST(updates_merge) /* 67, 68, 69 */
{
  open_with("{\"name\":\"e\",\"description\":\"d\",\"metadata\":{\"a\":\"1\",\"b\":\"2\"},\"config\":{\"type\":\"cloud\",\"packages\":{\"pip\":[\"x\"]}}}");
  rig_ok(&g, mr_environments_update, id, NULL,
         "{\"config\":{\"type\":\"cloud\",\"networking\":{\"type\":\"limited\",\"allow_package_managers\":true,\"allowed_hosts\":[\"*.example.com\"]}}}");
  CHECK(strstr(g.last, "\"pip\":[\"x\"]"));
  GET("/config/networking/allowed_hosts/0", "*.example.com");
  GET("/description", "d");
  rig_ok(&g, mr_environments_update, id, NULL, "{\"description\":\"\",\"metadata\":{\"a\":\"\",\"c\":\"3\"},\"name\":null}");
  GET("/description", "");
  GET("/name", "e");
  GET("/metadata/a", "(absent)");
  GET("/metadata/b", "2");
  GET("/metadata/c", "3");
  GET("/config/networking/allowed_hosts/0", "*.example.com");
  rig_ok(&g, mr_environments_update, id, NULL, "{\"description\":null}");
  GET("/description", "null");
  INVALID(mr_environments_update, id, "{\"config\":{\"type\":\"self_hosted\"}}", "config.type", "cannot change from cloud to self_hosted");
  CHECK_STR(mr_str_c(g.err.error_code), "invalid_config_type_change");
  rig_ok(&g, mr_environments_archive, id, NULL, NULL);
  rig_refused(&g, mr_environments_update, id, NULL, "{\"name\":\"x\"}", MR_E_STATE, 400, "", id);
  CHECK_STR(mr_str_c(g.err.error_code), "environment_archived");
  rig_close(&g);
}

TEST(delete_only_when_no_session_uses_it) /* 70 */
{
  char json[256], session[64];
  open_with("{\"name\":\"e\"}");
  rig_ok(&g, mr_agents_create, NULL, NULL, "{\"name\":\"a\",\"model\":\"m\"}");
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\"}", rig_get(&g, "/id"), id);
  rig_ok(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(session, sizeof session, "%s", rig_get(&g, "/id"));
  rig_refused(&g, mr_environments_delete, id, NULL, NULL, MR_E_CONFLICT, 409, "", id);
  rig_ok(&g, mr_environments_archive, id, NULL, NULL);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_STATE, 400, "environment_id", id);
  rig_ok(&g, mr_sessions_delete, session, NULL, NULL);
  rig_ok(&g, mr_environments_delete, id, NULL, NULL);
  GET("/id", id);
  GET("/type", "environment_deleted");
  rig_refused(&g, mr_environments_retrieve, id, NULL, NULL, MR_E_NOTFOUND, 404, "", id);
  rig_refused(&g, mr_environments_delete, id, NULL, NULL, MR_E_NOTFOUND, 404, "", id);
  rig_refused(&g, mr_environments_update, id, NULL, "{}", MR_E_NOTFOUND, 404, "", id);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_NOTFOUND, 404, "environment_id", id);
  rig_ok(&g, mr_environments_list, NULL, NULL, "{\"include_archived\":true}");
  GET("/data/0/name", "default");
  GET("/data/1", "(absent)");
  rig_close(&g);
}

TEST(the_first_environment_is_made_once)
{
  open_with(NULL);
  rig_close(&g);
  open_with(NULL);
  rig_ok(&g, mr_environments_list, NULL, NULL, NULL);
  GET("/data/0/name", "default");
  GET("/data/1", "(absent)");
  rig_close(&g);
}

/* ---- keys ---- */

struct checked { int n, code; int64_t ws; char id[64]; };

static void on_checked(void *ud, int code, const struct mr_bearer *by)
{
  struct checked *c = ud;
  c->n++;
  c->code = code;
  c->ws = by->workspace;
  snprintf(c->id, sizeof c->id, MR_FMT, MR_ARG(by->key_id));
}

static int check(const char *secret, struct checked *c)
{
  memset(c, 0, sizeof *c);
  mr_keys_check(g.d, mr_str_c(secret), on_checked, c);
  CHECK_INT(c->n, 0); /* never inside the call */
  for (int i = 0; i < 2000 && !c->n; i++)
    rig_pump(&g);
  CHECK_INT(c->n, 1);
  return c->code;
}

TEST(keys_are_shown_once_and_checked)
{
  char secret[128], key[64];
  struct checked c;
  open_with(NULL);
  rig_ok(&g, mr_keys_create, NULL, NULL, "{\"name\":\"laptop\"}");
  snprintf(secret, sizeof secret, "%s", rig_get(&g, "/key"));
  snprintf(key, sizeof key, "%s", rig_get(&g, "/id"));
  GET("/name", "laptop");
  CHECK(strncmp(secret, "sk-mr-", 6) == 0 && strlen(secret) == 49);
  rig_ok(&g, mr_keys_list, NULL, NULL, NULL);
  GET("/data/0/id", key);
  GET("/data/0/key", "(absent)");
  CHECK(!strstr(g.last, secret + 6));
  for (int i = 0; i < 2; i++) { /* from the store, then from memory */
    CHECK_INT(check(secret, &c), MR_OK);
    CHECK_STR(mr_str_c(c.id), key);
    CHECK(c.ws > 0);
  }
  CHECK_INT(check("sk-mr-wrong", &c), MR_E_AUTH);
  CHECK_INT(check("", &c), MR_E_AUTH);
  secret[20] ^= 1;
  CHECK_INT(check(secret, &c), MR_E_AUTH);
  rig_close(&g);
}

TEST(a_revoked_key_is_refused_at_once_and_for_ever)
{
  char secret[128], key[64];
  struct checked c, race = {0};
  open_with(NULL);
  rig_ok(&g, mr_keys_create, NULL, NULL, "{\"name\":\"k\"}");
  snprintf(secret, sizeof secret, "%s", rig_get(&g, "/key"));
  snprintf(key, sizeof key, "%s", rig_get(&g, "/id"));
  CHECK_INT(check(secret, &c), MR_OK);
  rig_ok(&g, mr_keys_revoke, key, NULL, NULL);
  CHECK(strcmp(rig_get(&g, "/revoked_at"), "(absent)") != 0);
  CHECK_INT(check(secret, &c), MR_E_AUTH);
  rig_ok(&g, mr_keys_revoke, key, NULL, NULL);
  rig_close(&g);
  open_with(NULL);
  CHECK_INT(check(secret, &c), MR_E_AUTH);
  rig_refused(&g, mr_keys_revoke, "apikey_01nobody", NULL, NULL, MR_E_NOTFOUND, 404, "", "apikey_01nobody");
  /* A check that began before the revocation was durable must not be remembered past it. */
  for (int i = 0; i < 30; i++) {
    rig_ok(&g, mr_keys_create, NULL, NULL, "{\"name\":\"k\"}");
    snprintf(secret, sizeof secret, "%s", rig_get(&g, "/key"));
    snprintf(key, sizeof key, "%s", rig_get(&g, "/id"));
    for (int k = 0; k < i / 4; k++)
      rig_pump(&g);
    race.n = 0;
    mr_keys_check(g.d, mr_str_c(secret), on_checked, &race);
    rig_ok(&g, mr_keys_revoke, key, NULL, NULL);
    CHECK_INT(check(secret, &c), MR_E_AUTH);
    for (int k = 0; k < 2000 && !race.n; k++)
      rig_pump(&g);
    CHECK_INT(check(secret, &c), MR_E_AUTH);
  }
  rig_close(&g);
}

TEST(a_bootstrap_key_lives_with_the_runtime)
{
  struct checked c;
  struct mr_err err = {0};
  open_with(NULL);
  CHECK_INT(mr_keys_bootstrap(g.d, false, MR_S("short"), &err), MR_E_INVALID);
  CHECK_STR(mr_str_c(err.field), "api_key");
  CHECK_INT(mr_keys_bootstrap(g.d, false, MR_S("a long enough secret"), &err), MR_OK);
  CHECK_INT(check("a long enough secret", &c), MR_OK);
  CHECK_STR(mr_str_c(c.id), "bootstrap");
  rig_close(&g);
  open_with(NULL);
  CHECK_INT(check("a long enough secret", &c), MR_E_AUTH);
  rig_close(&g);
}
