/*
 * sessions.c - the session resource: its wire object, retrieve, list, archive, delete. How one is made is in
 * session_create.c, what can be changed of it in session_update.c, what it does in turn.c.
 */
#include "agent/sessions.h"
#include "agent/work.h"

#include <stdio.h>

enum { SESSIONS_DEFAULT = 20, SESSIONS_MAX = 1000 };

/* ---- the wire object ---- */

static void raw_or(struct mr_jw *w, const char *key, yyjson_val *obj, const char *dflt)
{
  yyjson_val *v = mr_json_get(obj, key);

  mr_jw_key(w, key);
  if (!v) {
    mr_jw_raw(w, mr_str_c(dflt));
  } else {
    w->after_key = false;
    mr_json_write(w->b, v, false);
  }
}

static void write_stats(struct mr_jw *w, const struct mr_session_row *r, yyjson_val *head, int64_t now_us)
{
  int64_t active = mr_json_get_int(head, "threads_us", mr_json_get_int(head, "active_us", 0));
  int64_t open =
      mr_json_get_int(head, "threads_working", 0) * now_us - mr_json_get_int(head, "threads_since_us", 0);
  bool over = mr_str_is(r->status, "terminated");

  if (open > 0) active += open; /* overlaps count for each thread; the wall clock may have gone back */
  mr_jw_obj(w);
  mr_jw_key(w, "active_seconds");
  mr_jw_real(w, (double)(active / 1000) / 1000.0);
  mr_jw_key(w, "duration_seconds");
  mr_jw_real(w, (double)(((over ? r->updated_us : now_us) - r->created_us) / 1000) / 1000.0);
  mr_jw_obj_end(w);
}

void mr_session_wire(const struct mr_session_row *r, int64_t now_us, struct mr_buf *out)
{
  yyjson_doc *doc = NULL, *head = NULL;
  yyjson_val *d, *h;
  struct mr_jw w;

  mr_json_parse(out->mem, r->doc, SIZE_MAX, &doc, NULL);
  mr_json_parse(out->mem, r->head, SIZE_MAX, &head, NULL);
  d = yyjson_doc_get_root(doc);
  h = yyjson_doc_get_root(head);
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "id", r->id);
  mr_jw_kc(&w, "type", "session");
  mr_jw_kstr(&w, "status", r->status);
  mr_jw_kraw(&w, "agent", r->agent);
  mr_jw_kstr(&w, "environment_id", r->environment_id);
  raw_or(&w, "title", d, "null");
  raw_or(&w, "metadata", d, "{}");
  raw_or(&w, "resources", d, "[]");
  raw_or(&w, "vault_ids", d, "[]");
  raw_or(&w, "outcome_evaluations", h, "[]");
  raw_or(&w, "budget", d, "null");
  mr_jw_key(&w, "stats");
  write_stats(&w, r, h, now_us);
  raw_or(&w, "usage", h, "{}");
  mr_jw_ktime(&w, "created_at", r->created_us);
  mr_jw_ktime(&w, "updated_at", r->updated_us);
  mr_jw_ktime(&w, "archived_at", r->archived_us ? r->archived_us : -1);
  mr_jw_key(&w, "deployment_id");
  if (r->deployment_id.n)
    mr_jw_str(&w, r->deployment_id);
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  yyjson_doc_free(doc);
  yyjson_doc_free(head);
}

/* ---- retrieve and list ---- */

static void answer_row(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code == MR_OK) {
    mr_buf_reset(&c->out);
    mr_session_wire(&r->sessions[0], mr_loop_wall_us(c->d->loop), &c->out);
  }
  mr_call_done(c, code);
}

void mr_session_answer(struct mr_call *c, struct mr_str id)
{
  c->path[0] = mr_arena_str(c->arena, id);
  mr_read_session(c->d->store, c->who.workspace, c->path[0], answer_row, c);
}

void mr_sessions_retrieve(struct mr_call *c)
{
  mr_session_answer(c, c->path[0]);
}

struct list {
  struct mr_call *c;
  struct mr_page page;
  struct mr_session_query q;
};

static void on_list(void *ud, const struct mr_rows *r)
{
  struct list *l = ud;
  struct mr_call *c = l->c;
  bool back = l->page.backward, asc = l->page.ascending;
  bool has_next = back || r->more, has_prev = back ? r->more : l->page.cur.us != 0;
  int64_t now = mr_loop_wall_us(c->d->loop);
  struct mr_jw w;

  if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < r->n; i++) {
    if (i) mr_buf_char(&c->out, ',');
    mr_session_wire(&r->sessions[back ? r->n - 1 - i : i], now, &c->out);
  }
  mr_jw_arr_end(&w);
  for (int side = 0; side < 2; side++) {
    const struct mr_session_row *edge = r->n ? &r->sessions[(side == 0) == back ? 0 : r->n - 1] : NULL;
    mr_jw_key(&w, side == 0 ? "next_page" : "prev_page");
    if (edge && (side == 0 ? has_next : has_prev))
      mr_jw_str(&w, mr_page_by_time(c, asc, side == 1, edge->created_us, edge->id));
    else
      mr_jw_null(&w);
  }
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_sessions_list(struct mr_call *c)
{
  struct list *l = mr_arena_alloc(c->arena, sizeof *l);
  yyjson_val *st = mr_json_get(c->in, "statuses"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(st);
  struct mr_str *statuses;
  bool asc = mr_str_is(mr_json_get_str(c->in, "order"), "asc");
  int code;

  statuses = l ? mr_arena_alloc(c->arena, (yyjson_arr_size(st) + 1) * sizeof *statuses) : NULL;
  if (!statuses) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  l->c = c;
  code = mr_page_read(c, SESSIONS_DEFAULT, SESSIONS_MAX, asc, &l->page);
  if (code == MR_OK) code = mr_page_range(c, &l->q.created);
  if (code == MR_OK) code = mr_page_within(c, &l->page, &l->q.created);
  if (code == MR_OK) code = mr_page_statuses(c);
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  while (st && (v = yyjson_arr_iter_next(&it)))
    statuses[l->q.nstatuses++] = mr_json_str(v);
  l->q.statuses = statuses;
  l->q.agent_id = mr_json_get_str(c->in, "agent_id");
  l->q.agent_version = l->q.agent_id.n ? mr_json_get_int(c->in, "agent_version", 0) : 0;
  l->q.deployment_id = mr_json_get_str(c->in, "deployment_id");
  l->q.memory_store_id = mr_json_get_str(c->in, "memory_store_id");
  l->q.include_archived = mr_json_get_bool(c->in, "include_archived", false);
  l->q.ascending = asc != l->page.backward;
  l->q.after = l->page.cur;
  l->q.limit = l->page.limit;
  mr_read_sessions(c->d->store, c->who.workspace, &l->q, on_list, l);
}

/* ---- archive and delete ---- */

struct removal {
  struct mr_call *c;
  struct mr_session *s;
  struct mr_str *blobs; /* of a deletion */
  int nblobs;
  struct mr_works_in works; /* of a deletion */
};

static void on_archived(void *ud, int code, const struct mr_err *err)
{
  struct removal *p = ud;
  struct mr_session *s = p->s;

  if (code == MR_OK && s->d->sandbox) mr_sandbox_destroy(s->d->sandbox, s->id, s->sandbox_ref, NULL, NULL);
  if (code != MR_OK)
    mr_call_fail_err(p->c, err);
  else
    mr_session_answer(p->c, mr_str_c(s->id));
  mr_session_unref(s);
}

static void on_archive(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct removal *p = c->priv;
  struct mr_txn t;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return;
  }
  p->s = s;
  if (s->status == MR_TERMINATED) {
    mr_session_answer(c, mr_str_c(s->id));
    mr_session_unref(s);
    return;
  }
  if (s->status != MR_IDLE) {
    mr_call_fail(c, MR_E_STATE, NULL, "session %s is %s: interrupt it before archiving", s->id,
                 mr_status_name(s->status));
    mr_session_unref(s);
    return;
  }
  mr_txn_begin(&t, &s->main, &c->who, "archive");
  while (s->inbox) {
    if (t.c) mr_commit_inbox_del(t.c, mr_str_c(s->id), mr_str_c(s->inbox->event_id));
    s->inbox = s->inbox->next;
  }
  s->inbox_tail = &s->inbox;
  s->archived_us = mr_loop_wall_us(s->d->loop);
  mr_txn_plain(&t, "session.status_terminated");
  mr_txn_commit(&t, on_archived, p);
}

/* Loads the session, for an end of it. */
static void begin_removal(struct mr_call *c,
                          void (*fn)(void *ud, int code, struct mr_session *s, const struct mr_err *err))
{
  struct removal *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  c->priv = p;
  mr_session_get(c->d, c->who.workspace, c->path[0], fn, c);
}

void mr_sessions_archive(struct mr_call *c)
{
  begin_removal(c, on_archive);
}

static void on_deleted(void *ud, const struct mr_commit_result *r)
{
  struct removal *p = ud;
  struct mr_session *s = p->s;
  struct mr_log_row row = {.pos = INT64_MAX, .type = MR_S("session.deleted")};
  struct mr_buf b;
  char id[MR_ID_MAX], at[28];

  mr_work_settled(s->d, &p->works, r->code);
  if (r->code != MR_OK) {
    mr_call_fail_err(p->c, r->err);
    mr_session_unref(s);
    return;
  }
  mr_time_format(mr_loop_wall_us(s->d->loop), at);
  mr_buf_init(&b, s->d->mem, 512);
  if (mr_id_make(s->d->sys, id, "sevt") == MR_OK) {
    mr_buf_printf(&b, "{\"type\":\"session.deleted\",\"id\":\"%s\",\"processed_at\":\"%s\"}", id, at);
    row.body = mr_buf_get(&b);
    mr_stream_publish(s, &row);
  }
  mr_buf_free(&b);
  for (struct mr_thread *th = &s->main; th; th = th->next)
    mr_stream_end_all(th, MR_OK);
  if (s->d->sandbox) mr_sandbox_destroy(s->d->sandbox, s->id, s->sandbox_ref, NULL, NULL);
  for (int i = 0; i < p->nblobs; i++)
    mr_blob_delete(s->d->store, p->blobs[i]);
  mr_buf_printf(&p->c->out, "{\"id\":\"%s\",\"type\":\"session_deleted\"}", s->id);
  mr_call_done(p->c, MR_OK);
  mr_session_unref(s);
}

/* The session's own files go with it. */
static void on_scoped_files(void *ud, const struct mr_rows *r)
{
  struct removal *p = ud;
  struct mr_session *s = p->s;
  struct mr_commit *cm = mr_commit_new(s->d->store, &p->c->who);

  if (r->code != MR_OK || !cm || s->deleted || s->status == MR_RUNNING || s->status == MR_RESCHEDULING) {
    mr_commit_drop(&cm);
    mr_call_fail(p->c, r->code ? r->code : MR_E_STATE, NULL, "session %s could not be deleted now", s->id);
    mr_session_unref(s);
    return;
  }
  p->blobs = mr_arena_alloc(p->c->arena, (size_t)(r->n + 1) * sizeof *p->blobs);
  for (int i = 0; p->blobs && i < r->n; i++) {
    p->blobs[p->nblobs++] = mr_arena_str(p->c->arena, r->docs[i].id);
    mr_commit_doc_delete(cm, MR_S("file"), r->docs[i].id, -1);
  }
  s->deleted = true; /* no transition from here on */
  if (s->self_hosted) mr_work_session_gone(s, cm, &p->works);
  mr_commit_session_delete(cm, mr_str_c(s->id));
  mr_commit_submit(&cm, on_deleted, p);
}

static void on_delete(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct removal *p = c->priv;
  struct mr_doc_query q = {.kind = MR_S("file"), .include_archived = true, .limit = 10000};

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return;
  }
  if (s->status == MR_RUNNING || s->status == MR_RESCHEDULING) {
    mr_call_fail(c, MR_E_STATE, NULL, "session %s is %s: interrupt it before deleting", s->id,
                 mr_status_name(s->status));
    mr_session_unref(s);
    return;
  }
  p->s = s;
  q.parent = mr_str_c(s->id);
  mr_read_docs(c->d->store, c->who.workspace, &q, on_scoped_files, p);
}

void mr_sessions_delete(struct mr_call *c)
{
  begin_removal(c, on_delete);
}
