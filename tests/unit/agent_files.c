/* Files and session resources (API: resources §9; the numbers are those of its checklist). */
#include "agent_kit.h"

#include <sys/stat.h>
#include <unistd.h>

static const char *no_model(struct rig *g, struct mr_str last, int k)
{
  (void)g, (void)last, (void)k;
  return NULL;
}

/* A sandbox driver that only says where outputs lie. */
static char outputs_root[256];
static int fake_outputs(struct mr_sandbox_driver *d, const char *session, char out[4096])
{
  (void)d;
  snprintf(out, 4096, "%s/%s", outputs_root, session);
  return MR_OK;
}
static void fake_destroy(struct mr_sandbox_driver *d, const char *id, const char *ref, mr_sandbox_fn fn, void *ud)
{
  (void)d, (void)id, (void)ref, (void)fn, (void)ud;
}
static const struct mr_sandbox_vtable vtable = {.outputs_path = fake_outputs, .destroy = fake_destroy};
static struct mr_sandbox_driver driver = {&vtable};

static struct rig g;

static void open_here(void)
{
  char dir[300];
  g = (struct rig){.model = no_model};
  g.opts.sandbox = &driver;
  snprintf(outputs_root, sizeof outputs_root, "%s/outputs", test_dir());
  mkdir(outputs_root, 0700);
  snprintf(dir, sizeof dir, "%s/store", test_dir());
  rig_open(&g, dir);
}

#define GET(pointer, text) CHECK_STR(mr_str_c(rig_get(&g, pointer)), text)
#define INVALID(fn, p0, json, field, words) rig_refused(&g, fn, p0, NULL, json, MR_E_INVALID, 400, field, words)

/* ---- uploads and downloads: calls that go on after run returns ---- */

struct moved { struct mr_call c; yyjson_doc *in; bool over; char head[256]; char got[1 << 20]; size_t n; int pause; };

static void moved_done(struct mr_call *c) { MR_OF(c, struct moved, c)->over = true; }
static void moved_head(struct mr_call *c, struct mr_str name, struct mr_str type, int64_t size)
{
  struct moved *m = MR_OF(c, struct moved, c);
  snprintf(m->head, sizeof m->head, MR_FMT " " MR_FMT " %lld", MR_ARG(name), MR_ARG(type), (long long)size);
}
static int moved_bytes(struct mr_call *c, struct mr_str b)
{
  struct moved *m = MR_OF(c, struct moved, c);
  CHECK(m->n + b.n <= sizeof m->got);
  memcpy(m->got + m->n, b.p, b.n);
  m->n += b.n;
  return m->pause ? MR_MORE : MR_OK;
}

static struct moved *moved_new(const char *p0, const char *json)
{
  struct moved *m = calloc(1, sizeof *m);
  m->in = yyjson_read(json, strlen(json), 0);
  CHECK(m->in);
  m->c = (struct mr_call){.d = g.d, .mem = &test_sys()->mem, .arena = mr_arena_new(&test_sys()->mem, 512),
                          .in = yyjson_doc_get_root(m->in), .done = moved_done, .out_head = moved_head, .out_bytes = moved_bytes};
  CHECK_INT(mr_store_workspace(g.store, MR_S("default"), &m->c.who.workspace, NULL), MR_OK);
  m->c.path[0] = mr_str_c(p0);
  mr_buf_init(&m->c.out, m->c.mem, 1 << 20);
  return m;
}

static int moved_end(struct moved *m)
{
  for (int i = 0; i < 5000 && !m->over; i++) {
    rig_pump(&g);
    if (m->pause && m->c.out_drained && !m->over)
      m->c.out_drained(&m->c);
  }
  CHECK(m->over);
  g.code = m->c.code;
  g.err = m->c.err;
  snprintf(g.last, sizeof g.last, MR_FMT, MR_ARG(mr_buf_get(&m->c.out)));
  mr_buf_free(&m->c.out);
  mr_arena_free(&m->c.arena);
  yyjson_doc_free(m->in);
  free(m);
  return g.code;
}

static int upload(const char *json, const char *bytes, size_t n, int end)
{
  struct moved *m = moved_new(NULL, json);
  mr_files_upload(&m->c);
  for (size_t at = 0; at < n && m->c.feed; at += 1000)
    CHECK(m->c.feed(&m->c, mr_str_n(bytes + at, n - at < 1000 ? n - at : 1000)) >= 0);
  if (m->c.feed_end)
    m->c.feed_end(&m->c, end);
  return moved_end(m);
}

static const char *uploaded(const char *name)
{
  static char id[64];
  char json[256];
  snprintf(json, sizeof json, "{\"filename\":\"%s\",\"media_type\":\"text/plain\"}", name);
  CHECK_INT(upload(json, "hello", 5, MR_OK), MR_OK);
  snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  return id;
}

TEST(an_upload_is_a_file) /* 106, 108 */
{
  char id[64];
  open_here();
  CHECK_INT(upload("{\"filename\":\"dir/a.txt\",\"media_type\":\"text/plain\"}", "hello", 5, MR_OK), MR_OK);
  snprintf(id, sizeof id, "%s", rig_get(&g, "/id"));
  CHECK(strncmp(id, "file_01", 7) == 0);
  GET("/type", "file");
  GET("/filename", "a.txt");
  GET("/mime_type", "text/plain");
  GET("/size_bytes", "5");
  GET("/expires_at", "null");
  GET("/scope", "null");
  CHECK(strstr(g.last, "\"downloadable\":false"));
  rig_ok(&g, mr_files_retrieve_metadata, id, NULL, NULL);
  GET("/filename", "a.txt");
  {
    struct moved *m = moved_new(id, "{}");
    mr_files_download(&m->c);
    CHECK_INT(moved_end(m), MR_E_INVALID);
    CHECK_STR(mr_str_c(g.err.error_code), "file_not_downloadable");
    CHECK(strstr(g.err.message, id));
  }
  CHECK_INT(upload("{\"media_type\":\"text/csv\"}", "", 0, MR_OK), MR_OK);
  GET("/filename", "unnamed.csv");
  GET("/size_bytes", "0");
  CHECK_INT(upload("{\"filename\":\"x\"}", "", 0, MR_OK), MR_OK);
  GET("/mime_type", "application/octet-stream");
  rig_close(&g);
}

TEST(bad_uploads_leave_nothing) /* 109 */
{
  open_here();
  CHECK_INT(upload("{\"filename\":\"a:b\"}", "x", 1, MR_OK), MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.field), "filename");
  CHECK_INT(upload("{\"filename\":\"a\",\"expires_in_seconds\":3599}", "x", 1, MR_OK), MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.field), "expires_in_seconds");
  CHECK_INT(upload("{\"filename\":\"a\"}", "x", 1, MR_E_CLOSED), MR_E_CLOSED); /* the connection broke */
  rig_ok(&g, mr_files_list, NULL, NULL, NULL);
  GET("/data/0", "(absent)");
  CHECK_INT(upload("{\"filename\":\"a\",\"expires_in_seconds\":3600}", "x", 1, MR_OK), MR_OK);
  CHECK(strcmp(rig_get(&g, "/expires_at"), "null") != 0);
  rig_close(&g);
}

TEST(lists_and_ids) /* 107 */
{
  char a[64], b[64], json[256];
  open_here();
  snprintf(a, sizeof a, "%s", uploaded("a.txt"));
  snprintf(b, sizeof b, "%s", uploaded("b.txt"));
  rig_ok(&g, mr_files_list, NULL, NULL, "{\"limit\":1}");
  GET("/data/0/id", b);
  snprintf(json, sizeof json, "{\"limit\":1,\"page\":\"%s\"}", rig_get(&g, "/next_page"));
  rig_ok(&g, mr_files_list, NULL, NULL, json);
  GET("/data/0/id", a);
  GET("/next_page", "null");
  snprintf(json, sizeof json, "{\"ids\":[\"%s\",\"file_01nobody\",\"%s\"]}", a, a);
  rig_ok(&g, mr_files_list, NULL, NULL, json);
  GET("/data/0/id", a);
  GET("/data/1", "(absent)");
  GET("/next_page", "null");
  snprintf(json, sizeof json, "{\"ids\":[\"%s\"],\"limit\":5}", a);
  INVALID(mr_files_list, NULL, json, "ids", "cannot be combined");
  INVALID(mr_files_list, NULL, "{\"scope_id\":\"agent_1\"}", "scope_id", "sesn_");
  INVALID(mr_files_list, NULL, "{\"limit\":1001}", "limit", "1 and 1000");
  rig_ok(&g, mr_files_delete, a, NULL, NULL);
  GET("/type", "file_deleted");
  GET("/id", a);
  rig_refused(&g, mr_files_delete, a, NULL, NULL, MR_E_NOTFOUND, 404, "", a);
  rig_refused(&g, mr_files_retrieve_metadata, a, NULL, NULL, MR_E_NOTFOUND, 404, "", a);
  rig_close(&g);
}

static int session_with(const char *resources)
{
  char json[1024];
  rig_ok(&g, mr_agents_create, NULL, NULL, "{\"name\":\"a\",\"model\":\"m\"}");
  snprintf(g.agent, sizeof g.agent, "%s", rig_get(&g, "/id"));
  do {
    rig_ok(&g, mr_environments_list, NULL, NULL, NULL);
    snprintf(g.env, sizeof g.env, "%s", rig_get(&g, "/data/0/id"));
  } while (strncmp(g.env, "env_", 4) != 0);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"resources\":%s}", g.agent, g.env, resources);
  rig_call(&g, mr_sessions_create, NULL, NULL, json);
  snprintf(g.session, sizeof g.session, "%s", rig_get(&g, "/id"));
  return g.code;
}

TEST(a_session_has_copies_of_its_own) /* 110 */
{
  char a[64], copy[64], json[512], res[64];
  open_here();
  snprintf(a, sizeof a, "%s", uploaded("a.txt"));
  snprintf(json, sizeof json, "[{\"type\":\"file\",\"file_id\":\"%s\",\"mount_path\":\"/data.csv\"},{\"type\":\"file\",\"file_id\":\"%s\"}]", a, a);
  CHECK_INT(session_with(json), MR_OK);
  snprintf(copy, sizeof copy, "%s", rig_get(&g, "/resources/0/file_id"));
  CHECK(strcmp(copy, a) != 0);
  GET("/resources/0/mount_path", "/mnt/session/uploads/data.csv");
  snprintf(json, sizeof json, "/mnt/session/uploads/%s", a); /* by default the id that the client knows */
  CHECK_STR(mr_str_c(rig_get(&g, "/resources/1/mount_path")), json);
  snprintf(res, sizeof res, "%s", rig_get(&g, "/resources/0/id"));
  CHECK(strncmp(res, "sesrsc_01", 9) == 0);
  rig_ok(&g, mr_sessions_resources_retrieve, g.session, res, NULL);
  GET("/file_id", copy);
  rig_ok(&g, mr_files_retrieve_metadata, copy, NULL, NULL);
  GET("/scope/id", g.session);
  snprintf(json, sizeof json, "{\"agent\":\"%s\",\"environment_id\":\"%s\",\"initial_events\":[{\"type\":\"user.define_outcome\","
           "\"description\":\"d\",\"rubric\":{\"type\":\"file\",\"file_id\":\"%s\"}}]}", g.agent, g.env, copy);
  rig_refused(&g, mr_sessions_create, NULL, NULL, json, MR_E_NOTFOUND, 404, "initial_events[0].rubric.file_id", "this session can use");
  /* The original may go; the copy stays until the session does. */
  rig_ok(&g, mr_files_delete, a, NULL, NULL);
  rig_ok(&g, mr_files_retrieve_metadata, copy, NULL, NULL);
  rig_ok(&g, mr_sessions_resources_delete, g.session, res, NULL);
  GET("/type", "session_resource_deleted");
  rig_refused(&g, mr_files_retrieve_metadata, copy, NULL, NULL, MR_E_NOTFOUND, 404, "", copy);
  rig_refused(&g, mr_sessions_resources_retrieve, g.session, res, NULL, MR_E_NOTFOUND, 404, "", res);
  rig_refused(&g, mr_sessions_resources_delete, g.session, res, NULL, MR_E_NOTFOUND, 404, "", res);
  rig_ok(&g, mr_sessions_resources_list, g.session, NULL, NULL);
  snprintf(copy, sizeof copy, "%s", rig_get(&g, "/data/0/file_id"));
  GET("/data/1", "(absent)");
  rig_ok(&g, mr_sessions_delete, g.session, NULL, NULL);
  rig_refused(&g, mr_files_retrieve_metadata, copy, NULL, NULL, MR_E_NOTFOUND, 404, "", copy);
  rig_refused(&g, mr_sessions_resources_list, g.session, NULL, NULL, MR_E_NOTFOUND, 404, "", g.session);
  rig_close(&g);
}

TEST(bad_resources_make_no_session) /* 112 */
{
  char a[64], json[512];
  open_here();
  snprintf(a, sizeof a, "%s", uploaded("a.txt"));
  CHECK_INT(session_with("[{\"type\":\"file\",\"file_id\":\"file_01nobody\"}]"), MR_E_NOTFOUND);
  CHECK(strstr(g.err.message, "file_01nobody"));
  CHECK_STR(mr_str_c(g.err.field), "resources[0].file_id");
  snprintf(json, sizeof json, "[{\"type\":\"file\",\"file_id\":\"%s\",\"mount_path\":\"../../etc/passwd\"}]", a);
  CHECK_INT(session_with(json), MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.field), "resources[0].mount_path");
  snprintf(json, sizeof json, "[{\"type\":\"file\",\"file_id\":\"%s\",\"mount_path\":\"x\"},{\"type\":\"file\",\"file_id\":\"%s\",\"mount_path\":\"/x\"}]", a, a);
  CHECK_INT(session_with(json), MR_E_INVALID);
  CHECK_STR(mr_str_c(g.err.field), "resources[1].mount_path");
  rig_ok(&g, mr_sessions_list, NULL, NULL, "{\"include_archived\":true}");
  GET("/data/0", "(absent)");
  rig_ok(&g, mr_files_list, NULL, NULL, NULL);
  GET("/data/1", "(absent)"); /* the copies are gone with it */
  CHECK_INT(session_with("[]"), MR_OK);
  INVALID(mr_sessions_resources_add, g.session, "{\"type\":\"memory_store\",\"memory_store_id\":\"memstore_1\"}", "type", "only file");
  rig_refused(&g, mr_sessions_resources_add, g.session, NULL, "{\"type\":\"file\",\"file_id\":\"file_01nobody\"}", MR_E_NOTFOUND, 404,
              "file_id", "file_01nobody");
  snprintf(json, sizeof json, "{\"type\":\"file\",\"file_id\":\"%s\",\"mount_path\":\"later.txt\"}", a);
  rig_ok(&g, mr_sessions_resources_add, g.session, NULL, json);
  GET("/mount_path", "/mnt/session/uploads/later.txt");
  INVALID(mr_sessions_resources_add, g.session, json, "mount_path", "another resource");
  rig_close(&g);
}

TEST(outputs_become_files_of_the_session) /* 111, 108 */
{
  char path[600], id[64], json[128];
  FILE *f;
  open_here();
  CHECK_INT(session_with("[]"), MR_OK);
  snprintf(path, sizeof path, "%s/%s", outputs_root, g.session);
  mkdir(path, 0700);
  snprintf(path + strlen(path), 32, "/report.csv");
  f = fopen(path, "w");
  for (int i = 0; i < 60000; i++)
    fprintf(f, "%06d\n", i);
  fclose(f);
  snprintf(json, sizeof json, "{\"scope_id\":\"%s\"}", g.session);
  rig_ok(&g, mr_files_list, NULL, NULL, json);
  GET("/data/0/filename", "report.csv");
  GET("/data/0/scope/id", g.session);
  GET("/data/0/size_bytes", "420000");
  snprintf(id, sizeof id, "%s", rig_get(&g, "/data/0/id"));
  rig_ok(&g, mr_files_list, NULL, NULL, json);
  GET("/data/0/id", id); /* known content keeps its file */
  GET("/data/1", "(absent)");
  for (int pause = 0; pause < 2; pause++) { /* once as fast as it goes, once for a reader that has to wait */
    struct moved *m = moved_new(id, "{}");
    m->pause = pause;
    mr_files_download(&m->c);
    for (int i = 0; i < 5000 && !m->over; i++) {
      rig_pump(&g);
      if (pause && m->c.out_drained && i % 3 == 0)
        m->c.out_drained(&m->c); /* also too early, and too often */
    }
    CHECK_INT(m->n, 420000);
    CHECK(memcmp(m->got, "000000\n000001\n", 14) == 0 && memcmp(m->got + 419993, "059999\n", 7) == 0);
    CHECK(strncmp(m->head, "report.csv text/csv 420000", 20) == 0);
    CHECK_INT(moved_end(m), MR_OK);
  }
  {
    struct moved *m = moved_new(id, "{}");
    m->pause = 1;
    mr_files_download(&m->c);
    for (int i = 0; i < 500 && !m->n; i++)
      rig_pump(&g);
    m->c.cancel(&m->c); /* while the domain waits for the reader */
    m->pause = 0;
    CHECK_INT(moved_end(m), MR_E_CANCELLED);
  }
  f = fopen(path, "a");
  fprintf(f, "more\n");
  fclose(f);
  rig_ok(&g, mr_files_list, NULL, NULL, json);
  CHECK(strcmp(rig_get(&g, "/data/0/id"), id) != 0); /* new content, new file */
  rig_close(&g);
}
