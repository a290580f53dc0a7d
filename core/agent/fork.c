/*
 * fork.c - POST /moonrig/v1/sessions/{id}/fork: a new session whose history is the old one's up to an event, or up
 * to now. The cut is by log position, in all threads at once; the old session may be running, and is not touched.
 *
 * A cut inside a model's reply keeps the blocks of the reply up to the event, in the history that the model reads
 * too; what was going on is closed (copy_rest.c). The sandbox of the fork is a new one. Of a session as it is now it
 * gets the files, workspace and outputs; of an event in the past it cannot, as nobody kept what they were then. The
 * session's input files, and files of its outputs that were there at the event, are copied as files in either case.
 * Usage starts at zero. Loop thread.
 */
#include "agent/copy_t.h"

enum { PAGE = 500, FILES_MAX = 5000 };

struct fork {
  struct mr_copy k; /* first */
  struct mr_copy_env env;
  struct mr_copy_space space;
  struct mr_str agent, agent_id, doc;
  int64_t agent_version;
  int64_t cut, cut_us; /* the last position; files of the outputs up to this time */
  struct mr_str cut_type, cut_thread;
  int64_t reply; /* position of a reply that is cut, or 0 */
  int reply_events, seen;
  int64_t after;
  bool more;
  struct mr_doc_row *files; /* to be copied */
  int nfiles, at;
};

static void answer(struct mr_copy_space *s, int code)
{
  struct fork *p = MR_OF(s, struct fork, space);

  (void)code; /* k.code */
  p->k.c->cancel = NULL;
  mr_env_use_end(&p->env.use);
  mr_copy_answer(&p->k);
}

static void over(struct mr_copy *k)
{
  struct fork *p = MR_OF(k, struct fork, k);

  p->space.fn = answer;
  mr_copy_space_settle(&p->space);
}

static void stop(struct fork *p, int code)
{
  p->k.code = p->k.code ? p->k.code : code;
  mr_copy_abort(&p->k);
}

/* ---- the end: the client's part ---- */

static int write_doc(struct fork *p, struct mr_buf *out)
{
  struct mr_call *c = p->k.c;
  yyjson_doc *doc = NULL;
  yyjson_val *old, *key;
  yyjson_obj_iter it;
  struct mr_jw w;
  int code = mr_json_parse(c->mem, p->doc, SIZE_MAX, &doc, &c->err);

  if (code != MR_OK) return code;
  old = yyjson_doc_get_root(doc);
  it = yyjson_obj_iter_with(old);
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  code = mr_copy_label(&p->k, mr_json_get(old, "title"), mr_json_get(old, "metadata"), "fork of ",
                       "moonrig.forked_from", &w);
  while (code == MR_OK && (key = yyjson_obj_iter_next(&it))) {
    struct mr_str name = mr_json_str(key);
    if (mr_str_is(name, "title") || mr_str_is(name, "metadata") || mr_str_is(name, "self_hosted") ||
        mr_str_is(name, "environment"))
      continue;
    mr_jw_key_s(&w, name);
    w.after_key = false;
    mr_copy_value(&p->k, out, yyjson_obj_iter_get_val(key));
  }
  mr_copy_environment(&p->env, &w);
  mr_jw_obj_end(&w);
  yyjson_doc_free(doc);
  return code == MR_OK && out->failed ? mr_err_nomem(&c->err) : code;
}

static void on_space(struct mr_copy_space *s, int space_code)
{
  struct fork *p = MR_OF(s, struct fork, space);
  struct mr_buf doc;
  int code;

  mr_buf_init(&doc, p->k.c->mem, 1 << 22);
  code = space_code == MR_OK ? write_doc(p, &doc) : space_code;
  p->k.rest.self_hosted = p->env.self_hosted;
  if (code == MR_OK)
    mr_copy_finish(&p->k, mr_buf_get(&doc), p->env.id);
  else
    stop(p, code);
  mr_buf_free(&doc);
}

static void finish(struct fork *p)
{
  struct mr_call *c = p->k.c;
  bool wanted = mr_json_get_bool(c->in, "workspace", !mr_json_get_str(c->in, "event_id").n);

  p->space.fn = on_space;
  if (wanted && !p->env.self_hosted && mr_copy_space_can(&p->k))
    mr_copy_space_of(&p->space);
  else
    on_space(&p->space, MR_OK);
}

static void cancel(struct mr_call *c)
{
  struct fork *p = c->priv;
  mr_copy_space_cancel(&p->space);
}

/* ---- rows ---- */

static void next_rows(struct mr_copy *k);

static int copy_cut_reply(struct fork *p, const struct mr_log_row *row)
{
  struct mr_log_row cut = *row;
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  int code = mr_json_parse(p->k.c->mem, row->body, SIZE_MAX, &doc, &p->k.c->err);

  if (code != MR_OK) return code;
  mr_buf_init(&b, p->k.c->mem, SIZE_MAX / 2);
  mr_copy_cut_reply(&b, yyjson_doc_get_root(doc), p->reply_events);
  cut.body = mr_buf_get(&b);
  code = b.failed ? mr_err_nomem(&p->k.c->err) : mr_copy_row(&p->k, &cut, NULL);
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  return code;
}

static void on_rows(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;
  int code = r->code;

  if (code != MR_OK) mr_err_copy(&p->k.c->err, r->err);
  p->more = code == MR_OK && r->more;
  for (int i = 0; code >= 0 && i < r->n; i++) {
    const struct mr_log_row *row = &r->log[i];
    if (row->pos > p->cut) {
      p->more = false;
      break;
    }
    p->after = row->pos;
    code = row->pos == p->reply ? copy_cut_reply(p, row) : mr_copy_row(&p->k, row, NULL);
  }
  if (code < 0)
    stop(p, code);
  else if (code == MR_MORE)
    p->k.go = next_rows;
  else
    next_rows(&p->k);
}

static void next_rows(struct mr_copy *k)
{
  struct fork *p = MR_OF(k, struct fork, k);
  struct mr_log_query q = {
      .session_id = k->old_id, .all_threads = true, .with_private = true, .after_pos = p->after, .limit = PAGE};

  if (k->code != MR_OK)
    stop(p, k->code);
  else if (p->more)
    mr_read_log(k->c->d->store, k->c->who.workspace, &q, on_rows, p);
  else if (p->after < p->cut)
    stop(p, mr_err_set(&k->c->err, MR_E_NOTFOUND, NULL, "the session was deleted meanwhile"));
  else
    finish(p);
}

/* ---- files ---- */

static void next_file(struct fork *p);

static void on_blob(void *ud, int code, const struct mr_err *err)
{
  struct fork *p = ud;

  if (code == MR_OK) {
    p->at++;
    next_file(p);
  } else {
    mr_err_copy(&p->k.c->err, err);
    stop(p, code);
  }
}

/* The document of the copy: the old one with its ids. */
static int file_doc(struct fork *p, const struct mr_doc_row *from, struct mr_copy_file *f)
{
  struct mr_call *c = p->k.c;
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  int code = mr_json_parse(c->mem, from->body, SIZE_MAX, &doc, &c->err);

  if (code != MR_OK) return code;
  mr_buf_init(&b, c->mem, 1 << 20);
  mr_copy_value(&p->k, &b, yyjson_doc_get_root(doc));
  f->doc = *from;
  f->doc.id = mr_str_c(f->id);
  f->doc.parent = mr_str_c(p->k.id);
  f->doc.body = mr_arena_str(c->arena, mr_buf_get(&b));
  code = b.failed || !f->doc.body.n ? mr_err_nomem(&c->err) : MR_OK;
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  return code;
}

static void next_file(struct fork *p)
{
  struct mr_call *c = p->k.c;
  const struct mr_doc_row *from = &p->files[p->at];
  struct mr_copy_file *f;
  int code;

  if (p->at == p->nfiles) {
    code = mr_copy_begin(&p->k, p->agent, p->agent_id, p->agent_version);
    p->more = true;
    if (code == MR_OK)
      next_rows(&p->k);
    else
      stop(p, code);
    return;
  }
  f = mr_copy_file_new(&p->k, from->id);
  code = f ? file_doc(p, from, f) : mr_err_nomem(&c->err);
  if (code == MR_OK) /* files holds f until it grows: its strings stay */
    mr_blob_copy(c->d->store, from->id, f->doc.id, on_blob, p);
  else
    stop(p, code);
}

static bool is_resource(yyjson_val *resources, struct mr_str file_id)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(resources);
  yyjson_val *v;

  while (resources && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "file_id"), file_id)) return true;
  return false;
}

static void on_files(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;
  struct mr_call *c = p->k.c;
  yyjson_doc *doc = NULL;
  yyjson_val *resources;

  if (r->code != MR_OK) {
    mr_err_copy(&c->err, r->err);
    stop(p, r->code);
    return;
  }
  if (r->more) {
    stop(p,
         mr_err_set(&c->err, MR_E_STATE, NULL, "session " MR_FMT " has more than %d files: it cannot be copied",
                    MR_ARG(c->path[0]), r->n));
    return;
  }
  mr_json_parse(c->mem, p->doc, SIZE_MAX, &doc, NULL);
  resources = mr_json_get(yyjson_doc_get_root(doc), "resources");
  p->files = mr_arena_alloc(c->arena, (size_t)(r->n + 1) * sizeof *p->files);
  for (int i = 0; p->files && i < r->n; i++) {
    struct mr_doc_row *f = &p->files[p->nfiles];
    if (!is_resource(resources, r->docs[i].id) && r->docs[i].created_us > p->cut_us) continue;
    *f = r->docs[i];
    f->kind = MR_S("file");
    f->id = mr_arena_str(c->arena, f->id);
    f->name = mr_arena_str(c->arena, f->name);
    f->body = mr_arena_str(c->arena, f->body);
    p->nfiles++;
  }
  yyjson_doc_free(doc);
  if (p->files)
    next_file(p);
  else
    stop(p, mr_err_nomem(&c->err));
}

static void on_env(struct mr_copy_env *e, int code)
{
  struct fork *p = MR_OF(e, struct fork, env);
  struct mr_doc_query q = {.kind = MR_S("file"),
                           .parent = p->k.old_id,
                           .include_archived = true,
                           .ascending = true,
                           .limit = FILES_MAX};

  if (code == MR_OK)
    mr_read_docs(p->k.c->d->store, p->k.c->who.workspace, &q, on_files, p);
  else
    stop(p, code);
}

/* ---- where the cut is ---- */

static void go_on(struct fork *p)
{
  p->after = 0;
  mr_copy_env(&p->env, p->env.id);
}

/* What turn_reply.c makes of a reply's blocks; a coordinator's own calls are shown to nobody. */
static bool stands_for_block(const struct mr_log_row *r)
{
  return r->kind == MR_ROW_WIRE || mr_str_is(r->type, "tool.hidden");
}

/* Backwards from the cut to the reply that it lies in, or to the end or the beginning of a request. */
static void on_back(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;

  if (r->code != MR_OK) {
    mr_err_copy(&p->k.c->err, r->err);
    stop(p, r->code);
    return;
  }
  for (int i = 0; i < r->n && !p->reply; i++) {
    if (mr_str_is(r->log[i].type, "model.reply")) {
      p->reply = r->log[i].pos;
      p->reply_events = p->seen;
    } else if (mr_str_starts(r->log[i].type, MR_S("span.model_request_"))) {
      go_on(p); /* of no reply that is known */
      return;
    }
    p->seen += stands_for_block(&r->log[i]);
    p->after = r->log[i].pos;
  }
  if (!p->reply && r->more) {
    struct mr_log_query q = {.session_id = p->k.old_id,
                             .thread_id = p->cut_thread.n ? p->cut_thread : mr_str_n(NULL, 0),
                             .with_private = true,
                             .descending = true,
                             .after_pos = p->after,
                             .limit = PAGE};
    mr_read_log(p->k.c->d->store, p->k.c->who.workspace, &q, on_back, p);
    return;
  }
  go_on(p);
}

static bool in_reply(struct mr_str type)
{
  return mr_str_is(type, "agent.message") || mr_str_is(type, "agent.thinking") ||
         mr_str_is(type, "agent.tool_use") || mr_str_is(type, "agent.custom_tool_use") ||
         mr_str_is(type, "agent.mcp_tool_use");
}

static void on_event(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;
  struct mr_call *c = p->k.c;
  struct mr_log_query q = {.session_id = p->k.old_id, .with_private = true, .descending = true, .limit = PAGE};
  int code = mr_read_check(c, r, "event_id", "event", mr_json_get_str(c->in, "event_id"));

  if (code != MR_OK) {
    stop(p, code);
    return;
  }
  p->cut = r->log[r->n - 1].pos; /* a child's event that is shown on the primary's log has a second row there */
  p->cut_us = r->log[r->n - 1].processed_us;
  p->cut_thread = mr_arena_str(c->arena, r->log[0].thread_id);
  if (!in_reply(r->log[0].type)) {
    go_on(p);
    return;
  }
  q.after_pos = p->cut + 1;
  if (p->cut_thread.n) q.thread_id = p->cut_thread;
  mr_read_log(c->d->store, c->who.workspace, &q, on_back, p);
}

static void on_last(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;

  if (r->code != MR_OK) {
    mr_err_copy(&p->k.c->err, r->err);
    stop(p, r->code);
    return;
  }
  p->cut = r->n ? r->log[0].pos : 0;
  go_on(p);
}

static void on_session(void *ud, const struct mr_rows *r)
{
  struct fork *p = ud;
  struct mr_call *c = p->k.c;
  struct mr_log_query q = {.session_id = c->path[0], .all_threads = true, .limit = 2};
  const struct mr_session_row *s = &r->sessions[0];
  yyjson_doc *head = NULL, *agent = NULL;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code == MR_OK) code = mr_json_parse(c->mem, s->head, SIZE_MAX, &head, &c->err);
  if (code == MR_OK) code = mr_json_parse(c->mem, s->agent, SIZE_MAX, &agent, &c->err);
  if (code == MR_OK) {
    p->k.old_id = c->path[0];
    p->k.old_primary = mr_arena_str(c->arena, mr_json_get_str(yyjson_doc_get_root(head), "primary"));
    p->k.agent_name = mr_arena_str(c->arena, mr_json_get_str(yyjson_doc_get_root(agent), "name"));
    p->agent = mr_arena_str(c->arena, s->agent);
    p->agent_id = mr_arena_str(c->arena, s->agent_id);
    p->agent_version = s->agent_version;
    p->env.id = mr_arena_str(c->arena, s->environment_id);
    p->doc = mr_arena_str(c->arena, s->doc);
    code = p->agent.p && p->doc.p ? mr_copy_init(&p->k, c) : mr_err_nomem(&c->err);
  }
  yyjson_doc_free(head);
  yyjson_doc_free(agent);
  q.event_id = mr_json_get_str(c->in, "event_id");
  q.with_private = q.descending = !q.event_id.n;
  if (code != MR_OK)
    stop(p, code);
  else
    mr_read_log(c->d->store, c->who.workspace, &q, q.event_id.n ? on_event : on_last, p);
}

void mr_sessions_fork(struct mr_call *c)
{
  struct fork *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  if (mr_json_get_bool(c->in, "workspace", false) && mr_json_get_str(c->in, "event_id").n) {
    mr_call_fail(
        c, MR_E_INVALID, "workspace",
        "workspace: the files of the session are kept as they are now, not as they were at an event; leave "
        "out one of workspace and event_id");
    return;
  }
  p->k.c = p->env.c = c;
  p->space.k = &p->k;
  c->priv = p;
  c->cancel = cancel;
  p->k.rest.mem = c->mem;
  p->k.over = over;
  p->env.fn = on_env;
  p->cut_us = INT64_MAX;
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_session, p);
}
