/* script.roots: what file operations of bindings may touch, with links, "..", names that are not there yet. */
#include "host_kit.h"

#include <sys/stat.h>

static struct { int n, code; struct mr_err err; char raw[100]; } file;
static void on_file(void *ud, const struct mr_reply *r, struct mr_str raw)
{
  (void)ud;
  file.n++;
  file.code = r->code;
  memset(&file.err, 0, sizeof file.err);
  if (r->err)
    file.err = *r->err;
  snprintf(file.raw, sizeof file.raw, "%.*s", (int)raw.n, raw.p ? raw.p : "");
}

static int op(struct mr_runtime *rt, const char *what, const char *name, const char *arg)
{
  char path[600], to[600];
  struct mr_err err = {.size = sizeof err};
  snprintf(path, sizeof path, "%s%s%s", name[0] == '/' ? "" : test_dir(), name[0] == '/' ? "" : "/", name);
  snprintf(to, sizeof to, "%s/%s", test_dir(), arg ? arg : "");
  file.n = 0;
  CHECK_INT(X()->file(rt, what, path, strcmp(what, "rename") == 0 ? mr_str_c(to) : mr_str_c(arg ? arg : ""), on_file, NULL,
                      &err), MR_OK);
  UNTIL(rt, file.n);
  return file.code;
}

static void link_to(const char *to, const char *name)
{
  char path[600], target[600];
  snprintf(path, sizeof path, "%s/%s", test_dir(), name);
  snprintf(target, sizeof target, "%s%s%s", to[0] == '.' ? "" : test_dir(), to[0] == '.' ? "" : "/", to);
  CHECK_INT(symlink(target, path), 0);
}

static void dir(const char *name)
{
  char path[600];
  snprintf(path, sizeof path, "%s/%s", test_dir(), name);
  CHECK_INT(mkdir(path, 0777), 0);
}

TEST(nothing_outside_of_the_roots)
{
  struct mr_config c = host_config(":memory:");
  struct mr_runtime *rt;
  char options[1400];

  dir("in"), dir("in/sub"), dir("out"), dir("inner"), dir("real");
  link_to("real", "linked"); /* a root that is a link itself */
  snprintf(options, sizeof options, "{\"script\":{\"roots\":[\"%s/in\",\"%s/linked/\",\"/nowhere/at/all\"]}}", test_dir(),
           test_dir());
  c.options = options;
  CHECK_INT(mr_open(&rt, &c, NULL), MR_OK);
  CHECK_INT(op(rt, "write", "in/a", "one"), MR_OK);
  CHECK_INT(op(rt, "read", "in/a", NULL), MR_OK);
  CHECK_STR(mr_str_c(file.raw), "one");
  CHECK_INT(op(rt, "mkdir", "in/x/y/z", NULL), MR_OK);
  CHECK_INT(op(rt, "list", "in", NULL), MR_OK);
  CHECK_INT(op(rt, "write", "linked/b", "two"), MR_OK);
  CHECK_INT(op(rt, "read", "real/b", NULL), MR_OK);
  CHECK_INT(op(rt, "read", "in/sub/../a", NULL), MR_OK);
  CHECK_INT(op(rt, "read", "in/none", NULL), MR_E_NOTFOUND);
  CHECK_INT(op(rt, "rename", "in/a", "in/c"), MR_OK);
  /* and out */
  CHECK_INT(op(rt, "write", "out/f", "x"), MR_E_DENIED);
  CHECK_STR(mr_str_c(file.err.field), "path");
  CHECK(strstr(file.err.message, "outside of script.roots"));
  CHECK_INT(op(rt, "write", "inner/f", "x"), MR_E_DENIED); /* begins with the root's name */
  CHECK_INT(op(rt, "read", "/etc/passwd", NULL), MR_E_DENIED);
  CHECK_INT(op(rt, "read", "in/../out/f", NULL), MR_E_DENIED);
  CHECK_INT(op(rt, "mkdir", "in/new/../../out/d", NULL), MR_E_NOTFOUND);
  CHECK_INT(op(rt, "rename", "in/c", "out/c"), MR_E_DENIED);
  CHECK_INT(op(rt, "rename", "out/c", "in/d"), MR_E_DENIED);
  CHECK_INT(op(rt, "stat", "out", NULL), MR_E_DENIED);
  link_to("out", "in/door");
  CHECK_INT(op(rt, "write", "in/door/f", "x"), MR_E_DENIED);
  CHECK_INT(op(rt, "list", "in/door", NULL), MR_E_DENIED);
  link_to("out/dangling", "in/hole");
  CHECK(op(rt, "write", "in/hole", "x") < 0);
  CHECK(op(rt, "append", "in/hole", "x") < 0);
  link_to("./loop", "in/loop");
  CHECK(op(rt, "read", "in/loop", NULL) < 0);
  CHECK_INT(op(rt, "remove", "in/door", NULL), MR_OK); /* the link, not what it leads to */
  CHECK_INT(op(rt, "remove", "in/hole", NULL), MR_OK);
  CHECK_INT(mr_close(&rt), MR_OK);
  {
    char path[600];
    struct stat st;
    snprintf(path, sizeof path, "%s/out/dangling", test_dir());
    CHECK(stat(path, &st) != 0);
    snprintf(path, sizeof path, "%s/out", test_dir());
    CHECK_INT(stat(path, &st), 0);
  }
  CHECK_INT(test_allocs(), 0);
}

TEST(the_option_is_checked)
{
  static const char *const bad[] = {"{\"script\":{\"roots\":\"/tmp\"}}", "{\"script\":{\"roots\":[\"relative\"]}}",
                                    "{\"script\":{\"roots\":[5]}}", "{\"script\":{\"roots\":[\"/a\\u0000b\"]}}"};
  struct mr_config c = host_config(":memory:");
  struct mr_err err = {.size = sizeof err};
  struct mr_runtime *rt = NULL;
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    c.options = bad[i];
    CHECK_INT(mr_open(&rt, &c, &err), MR_E_INVALID);
    CHECK_STR(mr_str_c(err.field), "script.roots");
  }
  c.options = "{\"script\":{\"roots\":[]}}"; /* nothing at all */
  CHECK_INT(mr_open(&rt, &c, &err), MR_OK);
  CHECK_INT(op(rt, "read", "x", NULL), MR_E_DENIED);
  CHECK_INT(mr_close(&rt), MR_OK);
}
