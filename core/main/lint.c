/*
 * lint.c - `moonrig lint`: what is wrong with scripts, without a server. With --url or --data, what is stored
 * there is fetched first, and compared with what the scripts declare.
 *
 * The scripts are loaded in a runtime in memory that serves nothing. Blocking, on the command's only thread.
 */
#include "main/client.h"
#include "base/buf.h"
#include "script/script.h"

#include <stdlib.h>

enum { STORED_MAX = 64 << 20, PAGES_MAX = 200 };

static void collect(void *ud, const char *p, size_t n)
{
  mr_buf_add(ud, p, n);
}

/* ---- what is stored ---- */

/* Adds the members of all pages of a list, as "NAME":[...]. */
static int add_list(struct settings *s, const char *op, const char *name, struct mr_buf *b)
{
  char page[512] = "", in[600];
  int status = EXIT_OK, n = 0;

  mr_buf_printf(b, "\"%s\":[", name);
  for (int i = 0; i < PAGES_MAX && status == EXIT_OK && (i == 0 || page[0]); i++) {
    char *out = NULL;
    snprintf(in, sizeof in, page[0] ? "{\"limit\":100,\"page\":\"%s\"}" : "{\"limit\":100}", page);
    status = mr_client_op(s, op, in, true, &out);
    if (status == EXIT_OK) {
      yyjson_doc *doc = yyjson_read(out, strlen(out), 0);
      yyjson_val *root = yyjson_doc_get_root(doc), *x;
      yyjson_arr_iter it = yyjson_arr_iter_with(yyjson_obj_get(root, "data"));
      while ((x = yyjson_arr_iter_next(&it))) {
        if (n++) mr_buf_char(b, ',');
        mr_json_write(b, x, false);
      }
      snprintf(page, sizeof page, MR_FMT, MR_ARG(mr_json_get_str(root, "next_page")));
      yyjson_doc_free(doc);
    }
    mr_main_free(out);
  }
  mr_buf_char(b, ']');
  return status;
}

static int fetch(struct settings *s, struct mr_buf *b)
{
  int status;

  mr_buf_char(b, '{');
  status = add_list(s, "agents.list", "agents", b);
  mr_buf_char(b, ',');
  if (status == EXIT_OK) status = add_list(s, "environments.list", "environments", b);
  mr_buf_char(b, '}');
  if (status == EXIT_OK && b->failed) {
    fprintf(stderr, "moonrig: what is stored is too large to compare\n");
    status = EXIT_FAILED;
  }
  return status;
}

/* ---- looking ---- */

static int look(const struct settings *s, const char *stored, struct mr_buf *out)
{
  static const char *const here[] = {"."};
  struct mr_script_opts o = {.size = sizeof o, .paths = s->paths, .npaths = (size_t)s->npaths};
  struct mr_runtime *rt = NULL;
  struct mr_config c;
  struct mr_err err = {.size = sizeof err};
  int code;

  if (o.npaths == 0) {
    o.paths = here;
    o.npaths = 1;
  }
  o.lua_path = getenv("MOONRIG_LUA_PATH");
  mr_config_init(&c);
  c.store = ":memory:";
  c.options = "{\"asleep\":true}";
  code = mr_open(&rt, &c, &err);
  if (code == MR_OK) code = mr_script_lint(rt, &o, stored, collect, out, &err);
  mr_close(&rt);
  if (code == MR_OK) return EXIT_OK;
  return mr_main_fail(code == MR_E_NOTFOUND ? EXIT_USAGE : EXIT_FAILED, &err);
}

/* ---- showing ---- */

static const char *str(yyjson_val *o, const char *name)
{
  const char *p = yyjson_get_str(yyjson_obj_get(o, name));
  return p ? p : "";
}

static void show_changes(yyjson_val *changes)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(changes), fi;
  yyjson_val *x, *f;

  while ((x = yyjson_arr_iter_next(&it))) {
    printf("a start would %s %s \"%s\"\n", str(x, "change"), str(x, "kind"), str(x, "name"));
    fi = yyjson_arr_iter_with(yyjson_obj_get(x, "fields"));
    while ((f = yyjson_arr_iter_next(&fi)))
      printf("  %s\n", yyjson_get_str(f));
  }
}

/* Returns the number of problems. */
static size_t show(const char *json, size_t n, bool quiet)
{
  yyjson_doc *doc = yyjson_read(json, n, 0);
  yyjson_val *root = yyjson_doc_get_root(doc), *problems = yyjson_obj_get(root, "problems"), *x;
  yyjson_arr_iter it = yyjson_arr_iter_with(problems);
  size_t count = yyjson_arr_size(problems);
  long long files = (long long)mr_json_get_int(root, "files", 0);

  while (!quiet && (x = yyjson_arr_iter_next(&it)))
    printf("%s:%lld: %s [%s]\n  fix: %s\n", str(x, "file"), (long long)mr_json_get_int(x, "line", 1),
           str(x, "message"), str(x, "rule"), str(x, "fix"));
  if (!quiet) {
    show_changes(yyjson_obj_get(root, "changes"));
    if (files == 0 && count == 0) fprintf(stderr, "moonrig lint: there is no script here\n");
    printf("%zu problem%s in %lld file%s\n", count, count == 1 ? "" : "s", files, files == 1 ? "" : "s");
  }
  yyjson_doc_free(doc);
  return count;
}

static int lint(int argc, char **argv)
{
  struct settings s;
  struct mr_mem mem;
  struct mr_buf stored, out;
  int status = mr_settings_read(&s, &mr_cmd_lint, TAKES_CLIENT, argc, argv);
  bool compare = false;

  if (status) return status;
  for (int i = 1; i < argc; i++) /* said here, not meant by the environment or the default */
    compare = compare || strncmp(argv[i], "--url", 5) == 0 || strncmp(argv[i], "--data", 6) == 0;
  mr_mem_init(&mem, NULL, NULL);
  mr_buf_init(&stored, &mem, STORED_MAX);
  mr_buf_init(&out, &mem, STORED_MAX);
  if (compare) status = fetch(&s, &stored);
  if (status == EXIT_OK) status = look(&s, compare ? mr_buf_get(&stored).p : NULL, &out);
  if (status == EXIT_OK) {
    struct mr_str json = mr_buf_get(&out);
    if (s.json) printf(MR_FMT "\n", MR_ARG(json));
    if (show(json.p, json.n, s.json) > 0) status = EXIT_FAILED;
  }
  mr_buf_free(&stored);
  mr_buf_free(&out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_lint = {
    "lint", "[DIR|FILE.lua ...] [OPTIONS]", "what is wrong with scripts, each with its line and what to do",
    "  --url URL     compare with what that server has stored: what would a start change?\n"
    "  --data DIR    ... with what the data directory holds\n"
    "  --key KEY     an API key of that server (MOONRIG_API_KEY, ANTHROPIC_API_KEY)\n"
    "  --json        print the report as JSON\n"
    "Without a path: the current directory. Exit status 1 if there is a problem.\n"
    "The scripts' top-level code is run, without a server; no handler is.\n",
    lint};
