/*
 * layer_build.c - building a layer: a sandbox for each tree, in which helpers/install.sh installs what is listed, a
 * manager at a time and most of them a package at a time, so that what goes on, and what failed, has a name. The
 * first sandbox unpacks what apt brings; the second sees that on top of /usr and has the others, in the order of
 * resources §7.5. What they wrote is taken over by a pool job (layer_disk.c), which ends the sandbox before.
 *
 * A build sandbox is a sandbox as every other, under a uid of its own and with nothing of a session in it; its network
 * is the package registries. Loop thread.
 */
#include "sandbox/local/layer_t.h"

#include <stdio.h>

extern const unsigned char mr_helper_install[];
extern const size_t mr_helper_install_size;

/* What one call of the sandbox's shell does: the script's functions, apt's alternatives, then manager by manager. */
enum { STEP_SCRIPT, STEP_ALTERNATIVES, STEP_MANAGERS };
enum { TAIL_LINES = 20, TAIL_BYTES = 2000, CALL_MS_MIN = 1000 };

static int manager_of(const struct mr_layer *y)
{
  return y->step - STEP_MANAGERS;
}

/* Those of which versions have to fit together are installed all at once. */
static bool at_once(int manager)
{
  return manager == MR_PKG_APT || manager == MR_PKG_PIP;
}

/* ---- the end, good or bad ---- */

static void leave(struct mr_layer *y)
{
  struct mr_sandbox *s = y->box ? &y->box->base : NULL;

  if (y->box) y->box->builds = NULL;
  y->box = NULL;
  mr_sandbox_put(&s);
}

static void drop_done(struct mr_job *j)
{
  struct mr_layer_job *k = MR_OF(j, struct mr_layer_job, job);

  if (k->layer) {
    k->layer->job = NULL;
    mr_layer_over(k->layer, k->text);
  }
  mr_layer_job_free(k);
}

static void fail(struct mr_layer *y, const char *what, const char *output)
{
  const char *text, *last = strrchr(output, '\n');
  struct mr_layer_job *k;
  struct mr_buf b;

  mr_log(y->l->conf->sys, MR_LOG_WARN, "sandbox", "packages %s: not installed: %s%s%s", y->hash, what,
         output[0] ? ": " : "", last ? last + 1 : output);
  mr_buf_init(&b, y->l->mem, 1 << 16);
  mr_buf_printf(&b, "The environment's packages could not be installed: %s%s%s\nThe next call tries again.",
                what, output[0] ? ":\n" : "", output);
  text = b.failed ? what : b.p;
  leave(y);
  k = mr_layer_job_new(y->l, MR_LAYER_DROP, text, drop_done);
  if (k) memcpy(k->hash, y->hash, sizeof k->hash);
  if (mr_layer_submit(y, k) != MR_OK) mr_layer_over(y, text); /* the next look clears up */
  mr_buf_free(&b);
}

static void start_tree(struct mr_layer *y, int tree);

static void take_done(struct mr_job *j)
{
  struct mr_layer_job *k = MR_OF(j, struct mr_layer_job, job);
  struct mr_layer *y = k->layer;
  struct mr_local *l = y ? y->l : NULL;

  if (y) {
    y->job = NULL;
    y->trees = k->trees;
    if (k->code != MR_OK) {
      fail(y, k->err.message, "");
    } else if (!k->publish) {
      start_tree(y, MR_LAYER_MORE);
    } else {
      mr_log(k->conf->sys, MR_LOG_INFO, "sandbox", "packages %s: installed", y->hash);
      mr_layer_over(y, NULL);
      mr_layer_sweep(l);
    }
  }
  mr_layer_job_free(k);
}

static void take(struct mr_layer *y)
{
  struct mr_layer_job *k;

  leave(y);
  snprintf(y->doing, sizeof y->doing, "putting them in place");
  k = mr_layer_job_new(y->l, MR_LAYER_TAKE, y->key, take_done);
  if (k) {
    memcpy(k->hash, y->hash, sizeof k->hash);
    k->tree = y->tree;
    k->trees = y->trees;
    k->publish = y->tree == MR_LAYER_MORE;
  }
  if (mr_layer_submit(y, k) != MR_OK) fail(y, "the server is too busy", "");
}

/* ---- one call after the other ---- */

static void next_call(struct mr_layer *y);

/* The last lines of what a command said. */
static const char *tail(struct mr_str text)
{
  const char *end = text.p + text.n, *at = end;

  for (int lines = 0; at > text.p && end - at < TAIL_BYTES; at--)
    if (at[-1] == '\n' && ++lines == TAIL_LINES) break;
  while (at > text.p && at < end && ((unsigned char)*at & 0xc0) == 0x80)
    at++;
  return at;
}

static void what_runs(const struct mr_layer *y, char *out, size_t n)
{
  int m = manager_of(y);

  if (m < 0)
    snprintf(out, n, "preparing");
  else if (at_once(m) && y->packages.n[m] == 1)
    snprintf(out, n, "%s %.120s", mr_manager_name(m), y->packages.names[m][0]);
  else if (at_once(m))
    snprintf(out, n, "%s, %d packages", mr_manager_name(m), y->packages.n[m]);
  else
    snprintf(out, n, "%s %d/%d, %.120s", mr_manager_name(m), y->package + 1, y->packages.n[m],
             y->packages.names[m][y->package]);
}

static void on_call(void *ud, const struct mr_sandbox_result *r)
{
  struct mr_layer *y = ud;
  const struct mr_mem *mem = y->l->mem;
  yyjson_doc *doc = NULL;
  struct mr_str text;
  char *copy;
  char what[200];
  int m = manager_of(y);

  if (r->code == MR_OK && !r->is_error) {
    y->package++;
    if (m < 0 || at_once(m) || y->package >= y->packages.n[m]) y->package = 0, y->step++;
    next_call(y);
    return;
  }
  what_runs(y, what, sizeof what);
  if (r->code != MR_OK) {
    fail(y, what, r->err ? r->err->message : mr_strerror(r->code));
    return;
  }
  mr_json_parse(y->l->mem, r->content, SIZE_MAX, &doc, NULL);
  text = mr_str_trim(mr_json_get_str(yyjson_arr_get_first(yyjson_doc_get_root(doc)), "text"));
  copy = text.n ? mr_mem_strdup(mem, text) : NULL;
  yyjson_doc_free(doc);
  fail(y, what, copy ? tail(mr_str_c(copy)) : "");
  mr_mem_free(mem, copy);
}

/* In single quotes, as sh takes it. */
void mr_layer_quote(struct mr_buf *b, const char *s)
{
  mr_buf_char(b, '\'');
  for (; *s; s++)
    if (*s == '\'')
      mr_buf_c(b, "'\\''");
    else
      mr_buf_char(b, *s);
  mr_buf_char(b, '\'');
}

static void command(const struct mr_layer *y, struct mr_buf *b)
{
  int m = manager_of(y);

  if (y->step == STEP_SCRIPT) {
    mr_buf_str(b, mr_str_n((const char *)mr_helper_install, mr_helper_install_size));
    mr_buf_c(b, y->l->conf->build_env);
  } else if (y->step == STEP_ALTERNATIVES) {
    mr_buf_c(b, "mr_alternatives");
  } else {
    mr_buf_printf(b, "mr_install %s", mr_manager_name(m));
    for (int i = 0; i < y->packages.n[m]; i++) {
      if (!at_once(m) && i != y->package) continue;
      mr_buf_char(b, ' ');
      mr_layer_quote(b, y->packages.names[m][i]);
    }
  }
}

/* Over what this tree has nothing to do in. False: it is done. */
static bool skip(struct mr_layer *y)
{
  int m;

  if (y->step == STEP_ALTERNATIVES && (y->tree == MR_LAYER_APT || !y->packages.n[MR_PKG_APT])) y->step++;
  while ((m = manager_of(y)) >= 0 && m < MR_PKG_MANAGERS &&
         (!y->packages.n[m] || (m == MR_PKG_APT) != (y->tree == MR_LAYER_APT)))
    y->step++;
  return m < MR_PKG_MANAGERS;
}

static void next_call(struct mr_layer *y)
{
  int64_t left = (y->deadline_us - mr_loop_now_us(y->l->loop)) / 1000;
  struct mr_sandbox_call call = {.name = MR_S("bash")};
  struct mr_buf cmd, input;
  struct mr_jw w;
  char id[32];
  int code;

  if (!skip(y)) {
    take(y);
    return;
  }
  what_runs(y, y->doing, sizeof y->doing);
  mr_log(y->l->conf->sys, MR_LOG_INFO, "sandbox", "packages %s: %s", y->hash, y->doing);
  if (left < CALL_MS_MIN) {
    fail(y, y->doing, "the time for installing packages is over (sandbox.build_timeout_s)");
    return;
  }
  mr_buf_init(&cmd, y->l->mem, 1 << 20);
  mr_buf_init(&input, y->l->mem, 4 << 20);
  command(y, &cmd);
  mr_jw_init(&w, &input);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "command", mr_buf_get(&cmd));
  mr_jw_obj_end(&w);
  snprintf(id, sizeof id, "install_%u", ++y->calls);
  call.exec_id = mr_str_c(id);
  call.input = mr_buf_get(&input);
  call.timeout_ms = left < INT32_MAX ? (int)left : INT32_MAX;
  code = cmd.failed ? cmd.failed : input.failed ? input.failed : mr_box_call(&y->box->base, &call, on_call, y);
  mr_buf_free(&cmd);
  mr_buf_free(&input);
  if (code != MR_OK) fail(y, y->doing, mr_strerror(code));
}

/* ---- starting ---- */

static void start_tree(struct mr_layer *y, int tree)
{
  char session[MR_SESSION_MAX];
  struct mr_sandbox_spec spec = {
      .session_id = session, .environment_id = "", .network = {.limited = true, .package_managers = true}};
  struct mr_sandbox *s;

  mr_layer_session(y->hash, tree, session);
  s = mr_box_get(&y->l->base, &spec, NULL);
  if (!s) {
    fail(y, "a sandbox for it", "cannot be set up now");
    return;
  }
  y->box = MR_OF(s, struct mr_box, base);
  y->box->builds = y;
  y->tree = tree;
  y->step = STEP_SCRIPT;
  y->package = 0;
  next_call(y);
}

/* The lists came through the API, which looks at them, but may be older than that. */
static const char *bad_name(const struct mr_layer *y)
{
  for (int m = 0; m < MR_PKG_MANAGERS; m++)
    for (int i = 0; i < y->packages.n[m]; i++)
      if (!mr_sandbox_package_ok(mr_str_c(y->packages.names[m][i]))) return y->packages.names[m][i];
  return NULL;
}

void mr_layer_build(struct mr_layer *y)
{
  const char *bad = bad_name(y);
  char what[400];

  y->deadline_us = mr_loop_now_us(y->l->loop) + (int64_t)y->l->conf->build_timeout_s * 1000000;
  y->trees = 0;
  if (bad) {
    snprintf(what, sizeof what, "\"%.200s\" is not the name of a package", bad);
    fail(y, what, "");
  } else if (y->l->machine.known && y->l->machine.code == MR_OK && !y->l->machine.layers) {
    fail(y, y->l->machine.layers_why, "");
  } else {
    start_tree(y, y->packages.n[MR_PKG_APT] ? MR_LAYER_APT : MR_LAYER_MORE);
  }
}
