/*
 * txn.c - rows decided together become one commit. Each row is applied when it is decided and published when
 * the commit is durable; a failed commit poisons the session. processed_at is strictly increasing in a
 * session: max(clock, last + 1 us).
 */
#include "agent/work.h"

#include <stdio.h>

struct mr_commit_wait {
  struct mr_session *s;
  int64_t seq;
  struct mr_arena *arena;
  struct mr_log_row *rows;
  int n;
  struct mr_works_in works;
  void (*done)(void *ud, int code, const struct mr_err *err);
  void *ud;
};

int mr_txn_begin(struct mr_txn *t, struct mr_thread *th, const struct mr_origin *who, const char *label)
{
  struct mr_session *s = th->s;
  struct mr_origin self = {.workspace = s->ws};

  memset(t, 0, sizeof *t);
  t->s = s;
  t->th = th;
  t->label = label;
  t->what = MR_SESSION_HEAD;
  t->was = s->status;
  t->arena = mr_arena_new(s->d->mem, 2048);
  t->c = mr_commit_new(s->d->store, who ? who : &self);
  if (!t->arena || !t->c) t->code = MR_E_NOMEM;
  return t->code;
}

struct mr_thread *mr_txn_on(struct mr_txn *t, struct mr_thread *th)
{
  struct mr_thread *was = t->th;
  t->th = th;
  return was;
}

static int64_t next_us(struct mr_session *s)
{
  int64_t now = mr_loop_wall_us(s->d->loop);
  s->last_us = now > s->last_us || MR_SWITCH("clock-trust") ? now : s->last_us + 1;
  return s->last_us;
}

static void add_row(struct mr_txn *t, struct mr_log_row row)
{
  int code;

  if (t->code != MR_OK) return;
  if (t->n == t->cap) {
    int cap = t->cap ? t->cap * 2 : 16;
    struct mr_log_row *v = mr_arena_alloc(t->arena, (size_t)cap * sizeof *v);
    if (!v) {
      t->code = MR_E_NOMEM;
      return;
    }
    if (t->n) memcpy(v, t->rows, (size_t)t->n * sizeof *v);
    t->rows = v;
    t->cap = cap;
  }
  row.body = mr_arena_str(t->arena, row.body);
  row.type = mr_arena_str(t->arena, row.type);
  row.event_id = mr_arena_str(t->arena, row.event_id);
  row.thread_id = mr_thread_primary(t->th) ? MR_S("") : mr_str_c(t->th->id); /* the thread outlives the rows */
  if (!row.body.p || !row.type.p || !row.event_id.p) {
    t->code = MR_E_NOMEM;
    return;
  }
  t->rows[t->n++] = row;
  code = mr_state_apply(t->s, &row);
  if (code != MR_OK) t->code = code;
}

void mr_txn_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, const char *type, const char *id,
                 char id_out[MR_ID_LEN])
{
  char made[MR_ID_MAX];

  if (!id) {
    if (mr_id_make(t->s->d->sys, made, "sevt") != MR_OK) t->code = t->code ? t->code : MR_E_IO;
    id = made;
  }
  if (id_out) snprintf(id_out, MR_ID_LEN, "%s", id);
  mr_buf_init(b, t->s->d->mem, SIZE_MAX / 2);
  mr_jw_init(w, b);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", type);
  mr_jw_kc(w, "id", id);
}

/* The event in b, which stays without its end, as a row of the present thread. "type" and "id" are the first two
 * members, written by mr_txn_wire without escapes. */
static void wire_row(struct mr_txn *t, struct mr_buf *b)
{
  struct mr_log_row row = {.kind = MR_ROW_WIRE, .processed_us = next_us(t->s)};
  size_t n = b->n;
  struct mr_str rest;
  char at[28];

  mr_time_format(row.processed_us, at);
  mr_buf_printf(b, ",\"processed_at\":\"%s\"}", at);
  if (b->failed) {
    t->code = t->code ? t->code : b->failed;
    return;
  }
  rest = row.body = mr_buf_get(b);
  rest.p += sizeof "{\"type\":\"" - 1;
  rest.n -= sizeof "{\"type\":\"" - 1;
  row.type = mr_str_split(&rest, '"');
  rest.p += sizeof ",\"id\":\"" - 1;
  rest.n -= sizeof ",\"id\":\"" - 1;
  row.event_id = mr_str_split(&rest, '"');
  add_row(t, row);
  b->n = n;
}

void mr_txn_end_wire(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w)
{
  (void)w;
  wire_row(t, b);
  mr_buf_free(b);
}

void mr_txn_end_wire_both(struct mr_txn *t, struct mr_buf *b, struct mr_jw *w, bool names_thread)
{
  struct mr_thread *th = t->th;

  wire_row(t, b);
  if (!mr_thread_primary(th)) {
    mr_txn_on(t, &t->s->main);
    if (names_thread) mr_jw_kc(w, "session_thread_id", th->id);
    wire_row(t, b);
    mr_txn_on(t, th);
  }
  mr_buf_free(b);
}

void mr_txn_plain(struct mr_txn *t, const char *type)
{
  struct mr_buf b;
  struct mr_jw w;
  mr_txn_wire(t, &b, &w, type, NULL, NULL);
  mr_txn_end_wire(t, &b, &w);
}

/* The input as an event of the present thread. What answers a child's call names the thread, as the last member: on the
 * child's own stream it does not. */
static void input_row(struct mr_txn *t, const struct mr_input *in)
{
  static const char tail[] = ",\"processed_at\":null}";
  struct mr_log_row row = {.kind = MR_ROW_WIRE, .processed_us = next_us(t->s)};
  size_t n = in->body.n - (sizeof tail - 1);
  char at[28], thread[MR_ID_LEN + 32];
  struct mr_buf b;

  snprintf(thread, sizeof thread, ",\"session_thread_id\":\"%s\"", t->th->id);
  if (!mr_thread_primary(t->th) && mr_str_ends(mr_str_n(in->body.p, n), mr_str_c(thread))) n -= strlen(thread);
  mr_time_format(row.processed_us, at);
  mr_buf_init(&b, t->s->d->mem, SIZE_MAX / 2);
  mr_buf_add(&b, in->body.p, n);
  mr_buf_printf(&b, ",\"processed_at\":\"%s\"}", at);
  row.type = in->type;
  row.event_id = mr_str_c(in->event_id);
  row.body = mr_buf_get(&b);
  if (b.failed)
    t->code = b.failed;
  else
    add_row(t, row);
  mr_buf_free(&b);
}

void mr_txn_take(struct mr_txn *t, struct mr_input *in)
{
  struct mr_session *s = t->s;
  struct mr_thread *was = mr_txn_on(t, &s->main);
  bool child = in->th && !mr_thread_primary(in->th) && !mr_str_is(in->type, "user.interrupt");

  if (child) {
    mr_txn_on(t, in->th);
    input_row(t, in);
    mr_txn_on(t, &s->main);
  }
  input_row(t, in); /* the last row: what a sender is shown */
  mr_txn_on(t, was);
  for (struct mr_input **at_in = &s->inbox; *at_in; at_in = &(*at_in)->next)
    if (*at_in == in) {
      *at_in = in->next;
      if (!in->next) s->inbox_tail = at_in;
      if (t->c && !MR_SWITCH("no-inbox-delete"))
        mr_commit_inbox_del(t->c, mr_str_c(s->id), mr_str_c(in->event_id));
      break; /* an input that is processed on receipt was never in the inbox */
    }
}

void mr_txn_private(struct mr_txn *t, const char *type, struct mr_str json)
{
  struct mr_log_row row = {
      .kind = MR_ROW_PRIVATE, .format = 1, .type = mr_str_c(type), .processed_us = t->s->last_us, .body = json};
  if (!json.n) t->code = t->code ? t->code : MR_E_NOMEM;
  add_row(t, row);
}

/* ---- committing ---- */

static void publish(struct mr_session *s, struct mr_log_row *rows, int n, int64_t first_pos)
{
  (void)MR_FAULT("publish.before");
  for (int i = 0; i < n; i++) {
    rows[i].pos = first_pos + i;
    if (rows[i].kind == MR_ROW_WIRE) {
      s->d->stats.events++;
      mr_stream_publish(s, &rows[i]);
    }
  }
  (void)MR_FAULT("publish.after");
}

static void committed(void *ud, const struct mr_commit_result *r)
{
  struct mr_commit_wait *cw = ud;
  struct mr_session *s = cw->s;
  const struct mr_mem *mem = s->d->mem;
  struct mr_arena *arena = cw->arena;

  mr_work_settled(s->d, &cw->works, r->code);
  if (r->code == MR_OK) {
    s->done_seq = cw->seq;
    publish(s, cw->rows, cw->n, r->first_pos);
    mr_idle_heard(s, cw->rows, cw->n);
  } else {
    mr_session_poison(s, r->err);
  }
  if (cw->done) cw->done(cw->ud, r->code, r->err);
  if (r->code == MR_OK && !s->poisoned) mr_turn_committed(s);
  mr_mem_free(mem, cw);
  mr_arena_free(&arena);
  mr_session_unref(s);
}

/* When the first of its waiting threads tries again; 0: none waits. */
static int64_t next_try(const struct mr_session *s)
{
  int64_t due = 0;

  if (s->status != MR_RESCHEDULING) return 0;
  for (const struct mr_thread *th = &s->main; th; th = th->next)
    if (th->status == MR_RESCHEDULING && (!due || th->due_us < due)) due = th->due_us;
  return due;
}

static void put_session(struct mr_txn *t)
{
  struct mr_session *s = t->s;
  struct mr_session_row row = {0};
  struct mr_buf head;

  mr_buf_init(&head, s->d->mem,
              SIZE_MAX / 2); /* outcomes are in it, and they are as long as clients make them */
  mr_state_head(s, &head);
  if (head.failed) t->code = head.failed;
  row.id = mr_str_c(s->id);
  row.rev = s->rev++;
  row.owner_epoch = s->owner_epoch;
  row.created_us = s->created_us;
  row.updated_us = s->updated_us;
  row.archived_us = s->archived_us;
  row.status = mr_str_c(mr_status_name(s->status));
  row.agent_id = s->agent_id;
  row.environment_id = s->environment_id;
  row.deployment_id = s->deployment_id;
  row.agent_version = s->agent_version;
  row.last_us = s->last_us;
  row.due_us = next_try(s);
  row.agent = s->agent_json;
  row.doc = s->doc_json;
  row.head = mr_buf_get(&head);
  mr_commit_session_put(t->c, &row, t->what);
  mr_buf_free(&head);
}

void mr_txn_commit(struct mr_txn *t, void (*done)(void *ud, int code, const struct mr_err *err), void *ud)
{
  struct mr_session *s = t->s;
  struct mr_commit_wait *cw = mr_mem_zalloc(s->d->mem, sizeof *cw);
  struct mr_err err;

  s->updated_us = mr_loop_wall_us(s->d->loop);
  if (t->code == MR_OK && cw && t->n) mr_commit_log(t->c, mr_str_c(s->id), t->rows, t->n);
  if (t->code == MR_OK && cw && !MR_SWITCH("no-head")) put_session(t);
  if (t->code != MR_OK || !cw) {
    /* The state may hold rows that will never be durable: forget it. */
    mr_err_set(&err, t->code ? t->code : MR_E_NOMEM, NULL, "out of memory");
    mr_commit_drop(&t->c);
    mr_arena_free(&t->arena);
    mr_mem_free(s->d->mem, cw);
    mr_session_poison(s, &err);
    if (done) done(ud, err.code, &err);
    return;
  }
  if (MR_SWITCH("publish-early")) publish(s, t->rows, t->n, (INT64_C(1) << 60) + s->seq * 1000);
  mr_commit_label(t->c, t->label);
  *cw = (struct mr_commit_wait){s, ++s->seq, t->arena, t->rows, t->n, {{NULL}, 0}, done, ud};
  if (s->self_hosted)
    mr_work_session_changes(s, t->c, &cw->works,
                            t->hands_wanted || (s->status == MR_RUNNING && t->was != MR_RUNNING));
  mr_session_ref(s);
  mr_commit_submit(&t->c, committed, cw);
}
