/*
 * test.c - `moonrig test`: each *_test.lua in a runtime of its own, in memory, with a clock that stands still and
 * no key, so that nothing leaves the machine; and `moonrig record`, which writes what t.replay reads. What tests
 * can do is lua/moonrig/test.lua; here are the files, the clock, the log and the report.
 *
 * The clock runs again once the tests are over: the runtime's own end waits for time.
 */
#include "main/client.h"
#include "base/buf.h"
#include "script/script.h"

#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

enum { FILES_MAX = 2000, DEPTH_MAX = 8, LOG_MAX = 16 << 20 };
#define CLOCK_BEGIN_US INT64_C(1767225600000000) /* 2026-01-01T00:00:00Z */

struct files {
  char *v[FILES_MAX];
  int n;
  bool full;
};

struct run {
  struct mr_mem mem;
  _Atomic int64_t moved_us;
  _Atomic int64_t since_us; /* real time at which the clock began to run; 0 = it stands still */
  pthread_mutex_t lock;     /* log */
  struct mr_buf log;
  bool json;
  int passed, failed;
};

/* ---- clock and log ---- */

static int64_t real_us(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static int64_t mono_us(void *ud)
{
  struct run *r = ud;
  int64_t since = atomic_load(&r->since_us);
  return 1000000 + atomic_load(&r->moved_us) + (since ? real_us() - since : 0);
}
static int64_t wall_us(void *ud)
{
  return CLOCK_BEGIN_US + mono_us(ud) - 1000000;
}
static void advance(void *ud, int64_t us)
{
  struct run *r = ud;
  atomic_fetch_add(&r->moved_us, us);
}

static void log_line(void *ud, int level, struct mr_str line)
{
  static const char *const names[] = {"error ", "warn ", "info ", "debug "};
  struct run *r = ud;

  pthread_mutex_lock(&r->lock);
  mr_buf_c(&r->log, names[level >= 0 && level < 4 ? level : 0]);
  mr_buf_str(&r->log, line);
  mr_buf_char(&r->log, '\n');
  pthread_mutex_unlock(&r->lock);
}
static size_t logged(void *ud, size_t from, char *to, size_t n)
{
  struct run *r = ud;
  size_t k;

  pthread_mutex_lock(&r->lock);
  k = from < r->log.n ? r->log.n - from : 0;
  if (k > n) k = n;
  if (k) memcpy(to, r->log.p + from, k);
  pthread_mutex_unlock(&r->lock);
  return k;
}

/* ---- the report ---- */

static void indented(struct mr_str text)
{
  while (text.n) {
    const char *nl = memchr(text.p, '\n', text.n);
    size_t n = nl ? (size_t)(nl - text.p) : text.n;
    printf("  %.*s\n", (int)n, text.p);
    n += nl != NULL;
    text.p += n;
    text.n -= n;
  }
}

static void result(void *ud, struct mr_str json)
{
  struct run *r = ud;
  yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
  yyjson_val *v = yyjson_doc_get_root(doc);
  bool ok = mr_json_get_bool(v, "ok", false);

  if (ok)
    r->passed++;
  else
    r->failed++;
  if (r->json) {
    printf(MR_FMT "\n", MR_ARG(json));
  } else {
    printf("%s " MR_FMT "\n", ok ? "ok" : "not ok", MR_ARG(mr_json_get_str(v, "name")));
    if (!ok) {
      if (mr_json_get_str(v, "where").n) printf("  at " MR_FMT "\n", MR_ARG(mr_json_get_str(v, "where")));
      indented(mr_json_get_str(v, "message"));
      indented(mr_json_get_str(v, "trace"));
    }
  }
  fflush(stdout);
  yyjson_doc_free(doc);
}

/* A failure of the file itself. */
static void file_failed(struct run *r, const char *file, const char *message)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_val *o = yyjson_mut_obj(d);
  char *text;

  yyjson_mut_doc_set_root(d, o);
  yyjson_mut_obj_add_str(d, o, "name", file);
  yyjson_mut_obj_add_bool(d, o, "ok", false);
  yyjson_mut_obj_add_str(d, o, "message", message);
  text = mr_main_json(d);
  result(r, mr_str_c(text ? text : "{}"));
  mr_main_free(text);
  yyjson_mut_doc_free(d);
}

/* ---- one file ---- */

static void run_scripts(struct run *r, struct mr_runtime *rt, const struct settings *s, const char *file,
                        const char *root)
{
  struct mr_script_test t = {
      .size = sizeof t, .root = root, .only = s->only, .timeout_ms = s->timeout_s * 1000};
  struct mr_script_opts o = {.size = sizeof o, .paths = &file, .npaths = 1, .root = root, .test = &t};
  struct mr_script *script = NULL;
  struct mr_err err = {0};
  int before = r->passed + r->failed, code = 0, rc;
  char *args[] = {(char *)file, NULL};

  t.advance = advance;
  t.logged = logged;
  t.result = result;
  t.ud = r;
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  o.burst_ms = o.stuck_ms = t.timeout_ms;
  rc = mr_script_open(&script, rt, &o, &err);
  if (rc == MR_OK) rc = mr_script_run_main(script, 1, args, &code, &err);
  if (rc == MR_E_CANCELLED) { /* nobody else stops it: the last line of the log names the C function */
    pthread_mutex_lock(&r->lock);
    struct mr_str log = mr_str_trim(mr_buf_get(&r->log));
    const char *nl = log.n ? memrchr(log.p, '\n', log.n) : NULL;
    if (nl) log = (struct mr_str){nl + 1, log.n - (size_t)(nl + 1 - log.p)};
    snprintf(err.message, sizeof err.message, MR_FMT, MR_ARG(log));
    pthread_mutex_unlock(&r->lock);
  }
  if (rc != MR_OK || (code != 0 && err.message[0]))
    file_failed(r, file, err.message);
  else if (before == r->passed + r->failed && !s->only)
    file_failed(r, file, "no t.test(name, fn) in it");
  atomic_store(&r->since_us, real_us());
  mr_script_close(&script);
}

static int run_file(struct run *r, const struct settings *s, const char *file, const char *root)
{
  struct mr_runtime *rt = NULL;
  struct mr_config c;
  struct mr_err err = {0};

  mr_buf_init(&r->log, &r->mem, LOG_MAX);
  atomic_store(&r->moved_us, 0);
  atomic_store(&r->since_us, 0);
  mr_config_init(&c);
  c.store = ":memory:";
  c.log = log_line;
  c.wall_us = wall_us;
  c.mono_us = mono_us;
  c.ud = r;
  if (mr_open(&rt, &c, &err) != MR_OK) {
    mr_buf_free(&r->log);
    return mr_main_fail(EXIT_FAILED, &err);
  }
  run_scripts(r, rt, s, file, root);
  mr_close(&rt);
  mr_buf_free(&r->log);
  return EXIT_OK;
}

/* ---- which files ---- */

static bool ends(const char *s, const char *end)
{
  size_t n = strlen(s), k = strlen(end);
  return n > k && strcmp(s + n - k, end) == 0;
}

static void find(struct files *f, const char *dir, int depth)
{
  DIR *d = depth < DEPTH_MAX ? opendir(dir) : NULL;
  struct dirent *e;
  struct stat st;
  char path[PATH_MAX];

  if (!d) return;
  while ((e = readdir(d)) != NULL) {
    if (e->d_name[0] == '.' || e->d_name[0] == '_') continue;
    if (snprintf(path, sizeof path, "%s%s%s", strcmp(dir, ".") ? dir : "", strcmp(dir, ".") ? "/" : "",
                 e->d_name) >= (int)sizeof path ||
        stat(path, &st) != 0)
      continue;
    if (S_ISDIR(st.st_mode)) {
      find(f, path, depth + 1);
    } else if (ends(e->d_name, "_test.lua")) {
      if (f->n == FILES_MAX || !(f->v[f->n] = mr_main_copy(mr_str_c(path))))
        f->full = true;
      else
        f->n++;
    }
  }
  closedir(d);
}

static int by_name(const void *a, const void *b)
{
  return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Of the project that a test file or directory belongs to: where it lies, or what that lies in when it is tests/. */
static void root_of(const char *path, bool is_dir, char *out, size_t n)
{
  const char *slash = strrchr(path, '/'), *name;

  if (is_dir)
    snprintf(out, n, "%s", path);
  else if (slash)
    snprintf(out, n, "%.*s", (int)(slash - path), path);
  else
    snprintf(out, n, ".");
  while (strlen(out) > 1 && out[strlen(out) - 1] == '/')
    out[strlen(out) - 1] = '\0';
  name = strrchr(out, '/') ? strrchr(out, '/') + 1 : out;
  if (strcmp(name, "test") != 0 && strcmp(name, "tests") != 0) return;
  if (name == out)
    snprintf(out, n, ".");
  else
    out[name - out - 1] = '\0';
}

static int run_path(struct run *r, const struct settings *s, const char *path)
{
  struct files *f;
  struct stat st;
  char root[PATH_MAX];
  int status = EXIT_OK;

  if (stat(path, &st) != 0) {
    fprintf(stderr, "moonrig test: %s: no such file or directory\n", path);
    return EXIT_USAGE;
  }
  root_of(path, S_ISDIR(st.st_mode), root, sizeof root);
  if (!S_ISDIR(st.st_mode)) return run_file(r, s, path, root);
  f = mr_mem_zalloc(&r->mem, sizeof *f);
  if (!f) return EXIT_FAILED;
  find(f, path, 0);
  qsort(f->v, (size_t)f->n, sizeof *f->v, by_name);
  if (f->full)
    fprintf(stderr, "moonrig test: %s: more than %d test files; the others are left out\n", path, FILES_MAX);
  for (int i = 0; i < f->n && status == EXIT_OK; i++)
    status = run_file(r, s, f->v[i], root);
  for (int i = 0; i < f->n; i++)
    mr_main_free(f->v[i]);
  mr_mem_free(&r->mem, f);
  return status;
}

static int test(int argc, char **argv)
{
  struct settings s;
  struct run r = {0};
  int status = mr_settings_read(&s, &mr_cmd_test, TAKES_TEST | TAKES_JSON, argc, argv);

  if (status) return status;
  if (s.timeout_s < 1) return mr_main_usage(&mr_cmd_test, "--timeout is seconds, from 1 on");
  if (s.npaths == 0) s.paths[s.npaths++] = ".";
  mr_mem_init(&r.mem, NULL, NULL);
  pthread_mutex_init(&r.lock, NULL);
  r.json = s.json;
  for (int i = 0; i < s.npaths && status == EXIT_OK; i++)
    status = run_path(&r, &s, s.paths[i]);
  if (status == EXIT_OK && s.json) printf("{\"passed\":%d,\"failed\":%d}\n", r.passed, r.failed);
  if (status == EXIT_OK && !s.json) printf("%d passed, %d failed\n", r.passed, r.failed);
  if (status == EXIT_OK && r.passed + r.failed == 0 && s.only)
    fprintf(stderr, "moonrig test: no test has %s in its name\n", s.only);
  else if (status == EXIT_OK && r.passed + r.failed == 0)
    fprintf(stderr, "moonrig test: no test was found (files are named *_test.lua)\n");
  if (status == EXIT_OK && (r.failed > 0 || r.passed == 0)) status = EXIT_FAILED;
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_test = {
    "test", "[OPTIONS] [DIR|FILE_test.lua ...]",
    "run the tests of scripts: offline, with a clock that stands still",
    "  --only TEXT   only tests with this in their name\n"
    "  --timeout S   seconds of real time that a test may take (default 10)\n"
    "  --json        one JSON object a line\n"
    "Without a path: every *_test.lua below the working directory. lua/README.md describes the kit.\n",
    test};

/* ---- record ---- */

static int print_events(struct settings *s, const char *id, bool *first)
{
  char in[512], page[256] = "", *out = NULL;
  int status;

  do {
    yyjson_doc *doc;
    yyjson_arr_iter it;
    yyjson_val *v, *root;
    snprintf(in, sizeof in, "{\"session_id\":\"%.100s\",\"limit\":1000%s%s%s}", id,
             page[0] ? ",\"page\":\"" : "", page, page[0] ? "\"" : "");
    status = mr_client_op(s, "sessions.events.list", in, true, &out);
    if (status) return status;
    doc = yyjson_read(out, strlen(out), 0);
    root = yyjson_doc_get_root(doc);
    it = yyjson_arr_iter_with(mr_json_get(root, "data"));
    while ((v = yyjson_arr_iter_next(&it))) {
      struct mr_mem mem;
      struct mr_buf b;
      mr_mem_init(&mem, NULL, NULL);
      mr_buf_init(&b, &mem, LOG_MAX);
      mr_json_write(&b, v, false);
      printf("%s" MR_FMT, *first ? "\n" : ",\n", MR_ARG(mr_buf_get(&b)));
      *first = false;
      mr_buf_free(&b);
    }
    snprintf(page, sizeof page, MR_FMT, MR_ARG(mr_json_get_str(root, "next_page")));
    yyjson_doc_free(doc);
    mr_main_free(out);
  } while (page[0]);
  return EXIT_OK;
}

static int record(int argc, char **argv)
{
  struct settings s;
  char in[256], *out = NULL;
  bool first = true;
  int status = mr_settings_read(&s, &mr_cmd_record, TAKES_CLIENT, argc, argv);

  if (status) return status;
  if (s.npaths != 1 || strpbrk(s.paths[0], "\"\\")) return mr_main_usage(&mr_cmd_record, "one session id");
  snprintf(in, sizeof in, "{\"session_id\":\"%.100s\"}", s.paths[0]);
  status = mr_client_op(&s, "sessions.retrieve", in, true, &out);
  if (status == EXIT_OK) {
    printf("{\"session\":%s,\n\"events\":[", out);
    status = print_events(&s, s.paths[0], &first);
    printf("\n]}\n");
  }
  mr_main_free(out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_record = {
    "record", "SESSION [OPTIONS]", "print a session and its events, as t.replay of a test reads them",
    "  --url URL     the server (MOONRIG_URL, ANTHROPIC_BASE_URL; default: the one that serves --data)\n"
    "  --key KEY     an API key of that server (MOONRIG_API_KEY, ANTHROPIC_API_KEY)\n"
    "  --data DIR    the data directory (default ./moonrig-data, or MOONRIG_DATA)\n"
    "For example: moonrig record sesn_... > tests/refund.json\n",
    record};
