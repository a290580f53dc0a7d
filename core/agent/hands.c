/*
 * hands.c - the sandbox of a session, as the driver is told about it: its input files, and what the configuration
 * of its environment says of the network and of packages, as it was when the session was made (API: resources
 * §7.4: a running session keeps it). Nothing is started here; the first call that needs it does that.
 * Called by the turn's tools and by spill.c, on the loop thread.
 */
#include "agent/session_t.h"

/* The strings of an array, NUL-terminated, in the arena. NULL when there are none, or no memory: *n is 0 then. */
static const char *const *strings(struct mr_arena *a, yyjson_val *arr, int *n)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  const char **list = mr_arena_alloc(a, (yyjson_arr_size(arr) + 1) * sizeof *list);
  yyjson_val *v;

  *n = 0;
  if (!list || !yyjson_is_arr(arr)) return NULL;
  while ((v = yyjson_arr_iter_next(&it))) {
    list[*n] = mr_arena_str(a, mr_json_str(v)).p;
    if (!list[*n]) {
      *n = 0;
      return NULL;
    }
    ++*n;
  }
  return list;
}

/* The host of a URL: "https://mcp.example.com:8443/sse" -> "mcp.example.com". */
static const char *host_of(struct mr_arena *a, struct mr_str url)
{
  size_t at = 0, end;

  while (at + 3 < url.n && memcmp(url.p + at, "://", 3) != 0)
    at++;
  if (at + 3 >= url.n) return NULL;
  for (end = at += 3; end < url.n && !memchr("/?#", url.p[end], 3);)
    if (url.p[end++] == '@') at = end;
  for (size_t i = at; i < end && url.p[at] != '['; i++)
    if (url.p[i] == ':') end = i;
  return end > at ? mr_arena_str(a, mr_str_n(url.p + at, end - at)).p : NULL;
}

/* Of the agent's MCP servers, when the environment lets its commands reach them. */
static void mcp_hosts(struct mr_arena *a, yyjson_val *servers, struct mr_sandbox_network *n)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(servers);
  const char **list = mr_arena_alloc(a, (yyjson_arr_size(servers) + 1) * sizeof *list);
  yyjson_val *v;

  while (list && yyjson_is_arr(servers) && (v = yyjson_arr_iter_next(&it)))
    if ((list[n->nmcp_hosts] = host_of(a, mr_json_get_str(v, "url")))) n->nmcp_hosts++;
  n->mcp_hosts = list;
}

static void network(struct mr_arena *a, yyjson_val *config, yyjson_val *agent, struct mr_sandbox_network *n)
{
  yyjson_val *v = mr_json_get(config, "networking");

  n->limited = mr_str_is(mr_json_get_str(v, "type"), "limited");
  n->hosts = strings(a, mr_json_get(v, "allowed_hosts"), &n->nhosts);
  n->package_managers = mr_json_get_bool(v, "allow_package_managers", false);
  if (mr_json_get_bool(v, "allow_mcp_servers", false)) mcp_hosts(a, mr_json_get(agent, "mcp_servers"), n);
}

void mr_env_packages(struct mr_arena *a, yyjson_val *config, struct mr_sandbox_packages *p)
{
  static const char *const names[MR_PKG_MANAGERS] = {"apt", "cargo", "gem", "go", "npm", "pip"};
  yyjson_val *v = mr_json_get(config, "packages");

  for (int i = 0; i < MR_PKG_MANAGERS; i++)
    p->names[i] = strings(a, mr_json_get(v, names[i]), &p->n[i]);
}

static void mounts(struct mr_session *s, struct mr_arena *a, struct mr_sandbox_spec *spec)
{
  yyjson_val *res = mr_json_get(yyjson_doc_get_root(s->doc), "resources"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(res);
  struct mr_sandbox_mount *list = mr_arena_alloc(a, (yyjson_arr_size(res) + 1) * sizeof *list);
  char path[4096];

  while (list && res && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str file = mr_json_get_str(v, "file_id");
    struct mr_sandbox_mount *m = &list[spec->nmounts];
    if (!mr_str_is(mr_json_get_str(v, "type"), "file") || mr_blob_path(s->d->store, file, path) != MR_OK)
      continue;
    m->host_path = mr_arena_str(a, mr_str_c(path)).p;
    m->path = mr_arena_str(a, mr_json_get_str(v, "mount_path")).p;
    spec->nmounts += m->host_path && m->path;
  }
  spec->mounts = list;
}

struct mr_sandbox *mr_session_hands(struct mr_session *s)
{
  yyjson_val *config = mr_json_get(yyjson_doc_get_root(s->doc), "environment");
  struct mr_sandbox_spec spec = {.session_id = s->id};
  struct mr_arena *a;

  if (s->sandbox || !s->d->sandbox) return s->sandbox;
  a = mr_arena_new(s->d->mem, 4096);
  if (!a) return NULL;
  spec.environment_id = mr_arena_str(a, s->environment_id).p;
  mounts(s, a, &spec);
  network(a, config, yyjson_doc_get_root(s->agent_doc), &spec.network);
  mr_env_packages(a, config, &spec.packages);
  s->sandbox = mr_sandbox_get(s->d->sandbox, &spec, s->sandbox_ref);
  mr_arena_free(&a);
  return s->sandbox;
}

void mr_session_hands_keep(struct mr_session *s)
{
  const char *ref = s->sandbox ? mr_sandbox_ref(s->sandbox) : "";
  char *copy;

  if (!ref[0] || (s->sandbox_ref && strcmp(ref, s->sandbox_ref) == 0)) return;
  copy = mr_mem_strdup(s->d->mem, mr_str_c(ref));
  if (!copy) return;
  mr_mem_free(s->d->mem, s->sandbox_ref);
  s->sandbox_ref = copy;
}
