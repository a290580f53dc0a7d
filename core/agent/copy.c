/*
 * copy.c - making a session from rows; see copy_t.h. Rows are gathered and written in commits of a bounded size, two
 * of them under way at most; the session is unborn until the last one.
 *
 * Invariant: over comes when no commit is under way any more; then the session is there whole, or nothing of it is
 * (a crash in between leaves an unborn one, which the next open deletes, and blobs without a document, which are
 * swept). Loop thread; fork.c and import.c call.
 */
#include "agent/copy_t.h"

#include <stdio.h>

enum { COMMIT_ROWS = 500, COMMIT_BYTES = 2 << 20, UNDER_WAY = 2, TITLE_MAX = 512, METADATA_MAX = 16 };

static int fail(struct mr_copy *k, int code)
{
  if (k->code == MR_OK) k->code = code;
  return code;
}

int mr_copy_init(struct mr_copy *k, struct mr_call *c)
{
  const struct mr_sys *sys = c->d->sys;

  k->c = c;
  k->rest.mem = c->mem;
  k->rest.arena = c->arena;
  k->rest.primary = k->old_primary;
  if (sys->random(sys->ud, k->key, sizeof k->key) != 0)
    return fail(k, mr_err_set(&c->err, MR_E_IO, NULL, "no randomness"));
  mr_copy_id(k, k->old_id, k->id);
  mr_copy_id(k, k->old_primary, k->primary);
  if (!k->id[0] || !k->primary[0])
    return fail(k, mr_err_set(&c->err, MR_E_INVALID, "file", "a session needs ids of its own and its thread"));
  return MR_OK;
}

/* ---- commits ---- */

static void end_now(struct mr_copy *k);

static void on_commit(void *ud, const struct mr_commit_result *r)
{
  struct mr_copy *k = ud;
  void (*go)(struct mr_copy * k) = k->go;

  k->under_way--;
  if (r->code != MR_OK && k->code == MR_OK) {
    mr_err_copy(&k->c->err, r->err);
    fail(k, r->code);
  }
  if (k->ending) {
    if (k->under_way == 0) end_now(k);
  } else if (go && k->under_way < UNDER_WAY) {
    k->go = NULL;
    go(k);
  }
}

static void submit(struct mr_copy *k)
{
  if (!k->cm) return;
  mr_commit_label(k->cm, "copy");
  k->under_way++;
  k->nrows = 0;
  k->bytes = 0;
  mr_commit_submit(&k->cm, on_commit, k);
}

static int need_commit(struct mr_copy *k)
{
  if (k->code != MR_OK) return k->code;
  if (!k->cm) k->cm = mr_commit_new(k->c->d->store, &k->c->who);
  return k->cm ? MR_OK : fail(k, mr_err_nomem(&k->c->err));
}

int mr_copy_begin(struct mr_copy *k, struct mr_str agent, struct mr_str agent_id, int64_t agent_version)
{
  struct mr_session_row row = {.id = mr_str_c(k->id),
                               .status = MR_S("idle"),
                               .agent_id = agent_id,
                               .agent_version = agent_version,
                               .owner_epoch = 1,
                               .unborn = true,
                               .agent = agent,
                               .doc = MR_S("{}"),
                               .head = MR_S("{}")};

  row.created_us = row.updated_us = k->created_us = mr_loop_wall_us(k->c->d->loop);
  k->agent = mr_arena_str(k->c->arena, agent);
  k->agent_id = mr_arena_str(k->c->arena, agent_id);
  k->agent_version = agent_version;
  if (!k->agent.p || !k->agent_id.p) return fail(k, mr_err_nomem(&k->c->err));
  if (need_commit(k) != MR_OK) return k->code;
  mr_commit_session_new(k->cm, &row);
  k->began = true;
  submit(k);
  return MR_OK;
}

/* ---- rows ---- */

static int add_row(struct mr_copy *k, const struct mr_log_row *from, yyjson_val *body)
{
  struct mr_log_row row = *from;
  char event_id[MR_ID_MAX], thread_id[MR_ID_MAX];
  struct mr_buf b;
  int code = need_commit(k);

  if (code != MR_OK) return code;
  mr_buf_init(&b, k->c->mem, SIZE_MAX / 2);
  mr_copy_value(k, &b, body);
  if (mr_str_is(row.type, "thread.created") && !mr_json_get(body, "known_as") && b.n) {
    b.n--; /* the coordinator's model goes on with the id that it was told */
    mr_buf_printf(&b, ",\"known_as\":\"" MR_FMT "\"}", MR_ARG(mr_json_get_str(body, "id")));
  }
  mr_copy_id(k, from->event_id, event_id);
  mr_copy_id(k, from->thread_id, thread_id);
  row.event_id = mr_str_c(event_id);
  row.thread_id = mr_str_c(thread_id);
  row.body = mr_buf_get(&b);
  if (row.kind == MR_ROW_WIRE) row.format = MR_ROW_COPIED;
  if (b.failed) code = fail(k, mr_err_nomem(&k->c->err));
  if (code == MR_OK) {
    mr_commit_log(k->cm, mr_str_c(k->id), &row, 1);
    k->nrows++;
    k->rows++;
    k->bytes += row.body.n + 256;
    if (row.processed_us > k->last_us) k->last_us = row.processed_us;
    if (k->nrows >= COMMIT_ROWS || k->bytes >= COMMIT_BYTES) submit(k);
  }
  mr_buf_free(&b);
  return code;
}

int mr_copy_row(struct mr_copy *k, const struct mr_log_row *row, yyjson_val *body)
{
  yyjson_doc *doc = NULL;
  int code = k->code;

  if (mr_str_is(row->type, "session.status_terminated")) return code; /* a copy is made to go on */
  if (code == MR_OK && !body) code = fail(k, mr_json_parse(k->c->mem, row->body, SIZE_MAX, &doc, &k->c->err));
  if (doc) body = yyjson_doc_get_root(doc);
  if (code == MR_OK) {
    int r = mr_rest_row(&k->rest, row, body, k->strict ? &k->c->err : NULL);
    if (r != MR_OK && (k->strict || r != MR_E_INVALID)) code = fail(k, r);
  }
  if (code == MR_OK) code = add_row(k, row, body);
  yyjson_doc_free(doc);
  return code == MR_OK && k->under_way >= UNDER_WAY ? MR_MORE : code;
}

struct mr_copy_file *mr_copy_file_new(struct mr_copy *k, struct mr_str old_id)
{
  struct mr_copy_file *f;

  if (k->nfiles == k->files_cap) {
    int cap = k->files_cap ? k->files_cap * 2 : 8;
    struct mr_copy_file *v = mr_arena_alloc(k->c->arena, (size_t)cap * sizeof *v);
    if (!v) return NULL;
    if (k->nfiles) memcpy(v, k->files, (size_t)k->nfiles * sizeof *v);
    k->files = v;
    k->files_cap = cap;
  }
  f = &k->files[k->nfiles];
  memset(f, 0, sizeof *f);
  f->old_id = mr_arena_str(k->c->arena, old_id);
  if (!f->old_id.p || mr_id_make(k->c->d->sys, f->id, "file") != MR_OK) return NULL;
  k->nfiles++;
  return f;
}

/* ---- the end ---- */

static void on_removed(void *ud, const struct mr_commit_result *r)
{
  struct mr_copy *k = ud;

  (void)r; /* if it failed, the next open does it */
  k->over(k);
}

/* Nothing is under way any more. */
static void end_now(struct mr_copy *k)
{
  struct mr_commit *cm;

  mr_rest_free(&k->rest);
  mr_work_settled(k->c->d, &k->works, k->code);
  mr_commit_drop(&k->cm);
  if (k->code != MR_OK) {
    mr_buf_reset(&k->c->out);
    for (int i = 0; i < k->nfiles; i++)
      mr_blob_delete(k->c->d->store, mr_str_c(k->files[i].id));
    k->nfiles = 0;
    cm = k->began ? mr_commit_new(k->c->d->store, &k->c->who) : NULL;
    if (cm) {
      mr_commit_session_delete(cm, mr_str_c(k->id));
      mr_commit_submit(&cm, on_removed, k);
      return;
    }
  }
  k->over(k);
}

/* "Where it came from" among the machine's own rows: what is before it was used and paid for elsewhere. */
static int add_mark(struct mr_copy *k)
{
  struct mr_log_row row = {.kind = MR_ROW_PRIVATE, .format = 1, .type = MR_S("session.copied")};
  struct mr_buf b;
  int code = need_commit(k);

  if (code != MR_OK) return code;
  mr_buf_init(&b, k->c->mem, 1024);
  mr_buf_c(&b, "{\"from\":");
  mr_json_quote(&b, k->old_id);
  mr_buf_printf(&b, ",\"rows\":%lld}", (long long)k->rows);
  row.body = mr_buf_get(&b);
  row.processed_us = k->last_us;
  mr_commit_log(k->cm, mr_str_c(k->id), &row, 1);
  mr_buf_free(&b);
  return MR_OK;
}

/* With the new ids. */
static int write_outcomes(struct mr_copy *k, struct mr_jw *w)
{
  yyjson_doc *doc = NULL;
  struct mr_jw old;
  struct mr_buf b;
  int code;

  mr_buf_init(&b, k->c->mem, SIZE_MAX / 2);
  mr_jw_init(&old, &b);
  mr_outcomes_write(&old, k->rest.outcomes);
  code = b.failed ? mr_err_nomem(&k->c->err)
                  : mr_json_parse(k->c->mem, mr_buf_get(&b), SIZE_MAX, &doc, &k->c->err);
  mr_jw_key(w, "outcome_evaluations");
  w->after_key = false; /* the value is written past the writer */
  if (code == MR_OK) mr_copy_value(k, w->b, yyjson_doc_get_root(doc));
  yyjson_doc_free(doc);
  mr_buf_free(&b);
  return code;
}

static int write_head(struct mr_copy *k, struct mr_buf *out)
{
  struct mr_usage none = {0};
  struct mr_jw w;
  int code = MR_OK;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "primary", k->primary);
  mr_jw_kint(&w, "active_us", 0);
  mr_jw_kint(&w, "running_since_us", 0);
  mr_jw_key(&w, "usage");
  mr_usage_write(&w, &none, 0, -1);
  if (k->rest.outcomes) code = write_outcomes(k, &w);
  mr_jw_obj_end(&w);
  return code == MR_OK && out->failed ? mr_err_nomem(&k->c->err) : code;
}

void mr_copy_finish(struct mr_copy *k, struct mr_str doc, struct mr_str environment_id)
{
  struct mr_session_row row = {.id = mr_str_c(k->id), .rev = 1, .owner_epoch = 1, .status = MR_S("idle")};
  struct mr_buf head;
  int code = k->code;

  mr_buf_init(&head, k->c->mem, SIZE_MAX / 2);
  if (code == MR_OK) code = fail(k, mr_copy_close(k));
  if (code == MR_OK) code = add_mark(k);
  if (code == MR_OK) code = fail(k, write_head(k, &head));
  if (code == MR_OK) {
    row.last_us = k->last_us;
    row.updated_us = mr_loop_wall_us(k->c->d->loop);
    row.doc = doc;
    row.head = mr_buf_get(&head);
    for (int i = 0; i < k->nfiles; i++)
      mr_commit_doc_put(k->cm, &k->files[i].doc, 0);
    mr_commit_session_put(k->cm, &row, MR_SESSION_DOC | MR_SESSION_HEAD);
    mr_commit_session_born(k->cm, row.id, environment_id);
    if (k->rest.self_hosted)
      mr_work_session_made(k->c->d, k->cm, &k->works, k->c->who.workspace, environment_id, row.id);
    row.created_us = k->created_us;
    row.agent = k->agent;
    row.agent_id = k->agent_id;
    row.agent_version = k->agent_version;
    row.environment_id = environment_id;
    mr_session_wire(&row, row.updated_us, &k->c->out);
    submit(k);
  }
  mr_buf_free(&head);
  k->ending = true;
  if (k->under_way == 0) end_now(k);
}

void mr_copy_abort(struct mr_copy *k)
{
  if (k->code == MR_OK) fail(k, k->c->err.code ? k->c->err.code : MR_E_CANCELLED);
  k->ending = true;
  if (k->under_way == 0) end_now(k);
}

void mr_copy_answer(struct mr_copy *k)
{
  mr_call_done(k->c, k->code);
}

/* ---- title and metadata ---- */

static struct mr_str title_of(struct mr_copy *k, yyjson_val *old, const char *word)
{
  struct mr_str own = mr_json_get_str(k->c->in, "title"), was = mr_json_str(old);
  struct mr_str text;

  if (own.p) return own;
  text = mr_str_c(mr_arena_printf(k->c->arena, "%s" MR_FMT, word, MR_ARG(was.n || !word[0] ? was : k->old_id)));
  while (text.n && mr_utf8_chars(text) > TITLE_MAX)
    text.n = mr_utf8_cut(text, text.n - 1);
  return text;
}

int mr_copy_label(struct mr_copy *k, yyjson_val *old_title, yyjson_val *old_metadata, const char *word,
                  const char *key, struct mr_jw *w)
{
  yyjson_val *patch = mr_json_get(k->c->in, "metadata"), *m;
  struct mr_str title = title_of(k, old_title, word);
  struct mr_buf given, merged;
  yyjson_doc *doc = NULL, *mark = NULL, *checked = NULL;
  int code;

  mr_buf_init(&given, k->c->mem, 1 << 20);
  mr_buf_init(&merged, k->c->mem, 1 << 20);
  mr_jw_key(w, "title");
  if (title.n)
    mr_jw_str(w, title);
  else
    mr_jw_null(w);
  code = MR_OK;
  if (k->strict) { /* nobody checked it yet */
    code = mr_metadata_merge(k->c, NULL, old_metadata, false, &given);
    if (code == MR_OK) code = mr_json_parse(k->c->mem, mr_buf_get(&given), SIZE_MAX, &checked, &k->c->err);
    old_metadata = yyjson_doc_get_root(checked);
    mr_buf_reset(&given);
  }
  if (code == MR_OK) code = mr_metadata_merge(k->c, old_metadata, patch, false, &given);
  if (code == MR_OK) code = mr_json_parse(k->c->mem, mr_buf_get(&given), SIZE_MAX, &doc, &k->c->err);
  m = yyjson_doc_get_root(doc);
  if (code == MR_OK && (yyjson_obj_size(m) < METADATA_MAX || mr_json_get(m, key))) { /* else there is no room */
    struct mr_str text =
        mr_str_c(mr_arena_printf(k->c->arena, "{\"%s\":\"" MR_FMT "\"}", key, MR_ARG(k->old_id)));
    code = mr_json_parse(k->c->mem, text, SIZE_MAX, &mark, &k->c->err);
    if (code == MR_OK) code = mr_metadata_merge(k->c, m, yyjson_doc_get_root(mark), false, &merged);
  } else {
    mr_buf_str(&merged, mr_buf_get(&given));
  }
  if (code == MR_OK) mr_jw_kraw(w, "metadata", mr_buf_get(&merged));
  yyjson_doc_free(doc);
  yyjson_doc_free(mark);
  yyjson_doc_free(checked);
  mr_buf_free(&given);
  mr_buf_free(&merged);
  return code;
}

/* ---- the environment ---- */

void mr_copy_environment(const struct mr_copy_env *e, struct mr_jw *w)
{
  mr_jw_kraw(w, "environment", e->config);
}

static void env_found(struct mr_copy_env *e, const struct mr_rows *r, const char *name)
{
  struct mr_call *c = e->c;
  int code = mr_read_check(c, r, "environment_id", "environment", name ? mr_str_c(name) : e->id);

  if (code == MR_OK) e->id = mr_arena_str(c->arena, r->docs[0].id);
  if (code == MR_OK && r->docs[0].archived_us)
    code = mr_err_set(&c->err, MR_E_STATE, "environment_id",
                      "environment " MR_FMT " is archived: give another one as environment_id", MR_ARG(e->id));
  else if (code == MR_OK && !mr_env_use_begin(c->d, &e->use, c->who.workspace, e->id, false))
    code = mr_err_set(&c->err, MR_E_STATE, "environment_id", "environment " MR_FMT " is being deleted",
                      MR_ARG(e->id));
  if (code == MR_OK) e->config = mr_env_config(c->arena, r->docs[0].body, &e->self_hosted);
  e->fn(e, code);
}

static void on_env(void *ud, const struct mr_rows *r)
{
  env_found(ud, r, NULL);
}

static void on_default_env(void *ud, const struct mr_rows *r)
{
  env_found(ud, r, "default");
}

void mr_copy_env(struct mr_copy_env *e, struct mr_str dflt)
{
  struct mr_call *c = e->c;
  struct mr_str own = mr_json_get_str(c->in, "environment_id");

  e->id = own.n ? own : dflt;
  if (e->id.n)
    mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), e->id, on_env, e);
  else
    mr_read_doc_named(c->d->store, c->who.workspace, MR_S("environment"), MR_S("default"), 1, on_default_env,
                      e);
}
