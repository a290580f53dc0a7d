/*
 * work_ops.c - what is asked about one item, or about all of an environment (API: resources §8.1-8.7): acknowledge,
 * heartbeat, stop, list, retrieve, update. Who may ask is looked at before (access.c). A live item is changed in
 * memory and committed; one that has stopped is read for it.
 */
#include "agent/work_t.h"

#include <stdio.h>

enum { LIST_DEFAULT = 20, LIST_MAX = 100, PAIRS = 16, KEY_CHARS = 64, VALUE_CHARS = 512 };

static const int64_t SOON_US = 2000000;

/* ---- the environment, and the item ---- */

static void on_env(void *ud, const struct mr_rows *r)
{
  struct mr_work_op *op = ud;
  struct mr_call *c = op->c;
  int code = mr_read_check(c, r, NULL, "environment", c->path[0]);
  bool own = false;

  if (code == MR_OK) mr_env_config(c->arena, r->docs[0].body, &own);
  if (code != MR_OK) {
    mr_call_done(c, code);
  } else if (!own) {
    mr_call_fail(c, MR_E_STATE, "environment_id",
                 "environment " MR_FMT
                 " is not self-hosted: its sessions run on this server, there is no work queue",
                 MR_ARG(c->path[0]));
  } else {
    op->env->known = true;
    op->fn(op);
  }
}

static void check_env(struct mr_work_op *op)
{
  struct mr_call *c = op->c;

  if (!c->d->works->loaded)
    mr_call_fail(c, MR_E_UNAVAILABLE, NULL, "the work queue could not be read");
  else if (op->env->known)
    op->fn(op);
  else
    mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), c->path[0], on_env, op);
}

static void begin(struct mr_call *c, struct mr_work_op *op)
{
  if (c->path[0].n >= MR_ID_LEN) {
    mr_not_found(c, "environment", c->path[0]);
  } else if (!op || !(op->env = mr_work_env(c->d, c->who.workspace, c->path[0]))) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
  } else {
    check_env(op);
  }
}

void mr_work_op_begin(struct mr_call *c, void (*fn)(struct mr_work_op *op))
{
  struct mr_work_op *op = mr_arena_alloc(c->arena, sizeof *op);

  if (op) *op = (struct mr_work_op){.c = c, .fn = fn};
  begin(c, op);
}

struct item_op {        /* an operation on one item: read first when it is not in memory */
  struct mr_work_op op; /* first */
  void (*then)(struct mr_work_op *op);
};

static void on_item(void *ud, const struct mr_rows *r)
{
  struct item_op *p = ud;
  struct mr_call *c = p->op.c;
  int code = mr_read_check(c, r, NULL, "work item", c->path[1]);

  if (code == MR_OK) code = mr_work_read(c->d, &p->op.apart, c->who.workspace, &r->docs[0]);
  if (code == MR_OK && !mr_str_is(c->path[0], p->op.apart.environment_id)) {
    mr_work_clear(c->d, &p->op.apart);
    mr_not_found(c, "work item", c->path[1]);
    return;
  }
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  p->op.apart.env = p->op.env;
  p->op.w = &p->op.apart;
  p->then(&p->op);
  mr_work_clear(c->d, &p->op.apart);
}

static void item_found(struct mr_work_op *op)
{
  struct item_op *p = MR_OF(op, struct item_op, op);
  struct mr_call *c = op->c;
  struct mr_work *w = mr_work_find(c->d, c->who.workspace, c->path[1]);

  if (w && (w->fresh || !mr_str_is(c->path[0], w->environment_id))) {
    mr_not_found(c, "work item", c->path[1]);
  } else if (w && w->lost) {
    mr_work_reread(c->d, w);
    mr_call_fail(c, MR_E_UNAVAILABLE, NULL, "work item %s cannot be changed now: try again", w->id);
  } else if (w) {
    op->w = w;
    p->then(op);
  } else {
    mr_read_doc(c->d->store, c->who.workspace, MR_S("work"), c->path[1], on_item, p);
  }
}

static void begin_item(struct mr_call *c, void (*then)(struct mr_work_op *op))
{
  struct item_op *p = mr_arena_alloc(c->arena, sizeof *p);

  if (p) *p = (struct item_op){.op = {.c = c, .fn = item_found}, .then = then};
  begin(c, p ? &p->op : NULL);
}

/* ---- changes ---- */

static void on_committed(void *ud, const struct mr_commit_result *r)
{
  struct mr_work_op *op = ud;
  struct mr_call *c = op->c;

  mr_work_settled(c->d, &op->in, r->code);
  if (r->code == MR_E_CONFLICT)
    mr_call_fail(c, MR_E_UNAVAILABLE, NULL, "the work item was changed at the same time: try again");
  else if (r->code != MR_OK)
    mr_call_fail_err(c, r->err);
  else
    mr_call_done(c, MR_OK);
}

void mr_work_op_commit(struct mr_work_op *op, struct mr_commit **cm, const char *label)
{
  mr_commit_label(*cm, label);
  mr_commit_submit(cm, on_committed, op);
}

/* Commits op->w as it is now, and answers with it. */
static void commit_item(struct mr_work_op *op, const char *label)
{
  struct mr_call *c = op->c;
  struct mr_commit *cm = mr_commit_new(c->d->store, &c->who);

  if (!cm) {
    op->w->lost = true; /* the change is not kept: it is read again */
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  mr_work_put(c->d, op->w, cm);
  op->in.v[op->in.n++] = op->w;
  if (!c->out.n) mr_work_wire(c->d, op->w, "null", &c->out);
  mr_work_op_commit(op, &cm, label);
}

static void answer(struct mr_work_op *op)
{
  mr_work_wire(op->c->d, op->w, "null", &op->c->out);
  mr_call_done(op->c, MR_OK);
}

/* ---- ack ---- */

static void ack(struct mr_work_op *op)
{
  struct mr_work *w = op->w;
  enum mr_work_state shows = mr_work_shows(w, mr_loop_wall_us(op->c->d->loop));

  if (shows == MR_WORK_STARTING) { /* once more: its answer was lost */
    answer(op);
    return;
  }
  if (w->state != MR_WORK_QUEUED) {
    mr_call_fail(op->c, MR_E_CONFLICT, NULL, "work item %s is %s: only a queued one is acknowledged", w->id,
                 mr_work_state_name(shows));
    return;
  }
  w->state = MR_WORK_STARTING;
  w->acked_us = mr_loop_wall_us(op->c->d->loop);
  w->ttl_s = op->c->d->lease_s;
  w->lease_us = w->acked_us + w->ttl_s * 1000000;
  commit_item(op, "work.ack");
}

void mr_environments_work_ack(struct mr_call *c)
{
  begin_item(c, ack);
}

/* ---- heartbeat ---- */

static void beat_time(const struct mr_work *w, char at[28])
{
  at[0] = '\0';
  if (w->beat_us) mr_time_format(w->beat_us, at);
}

static void lost_lease(struct mr_work_op *op, const char *why)
{
  struct mr_call *c = op->c;
  const struct mr_work *w = op->w;
  char at[28];

  beat_time(w, at);
  c->details = mr_str_c(mr_arena_printf(c->arena,
                                        "\"current_state\":{\"last_heartbeat\":%s%s%s,\"lease_extended\":false,"
                                        "\"state\":\"%s\",\"ttl_seconds\":%lld}",
                                        at[0] ? "\"" : "", at[0] ? at : "null", at[0] ? "\"" : "",
                                        mr_work_state_name(mr_work_shows(w, mr_loop_wall_us(c->d->loop))),
                                        (long long)w->ttl_s));
  mr_err_code(&c->err, MR_E_STATE, "heartbeat_precondition_failed", "expected_last_heartbeat",
              "work item %s: %s", w->id, why);
  c->err.http_status = 412;
  mr_call_done(c, MR_E_STATE);
}

static void write_beat(struct mr_work_op *op, bool extended)
{
  const struct mr_work *w = op->w;
  char at[28];

  beat_time(w, at);
  mr_buf_printf(&op->c->out,
                "{\"type\":\"work_heartbeat\",\"last_heartbeat\":\"%s\",\"lease_extended\":%s,\"state\":\"%s\","
                "\"ttl_seconds\":%lld}",
                at, extended ? "true" : "false",
                mr_work_state_name(mr_work_shows(w, mr_loop_wall_us(op->c->d->loop))), (long long)w->ttl_s);
}

static void beat(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  struct mr_work *w = op->w;
  struct mr_str expected = mr_json_get_str(c->in, "expected_last_heartbeat");
  int64_t now = mr_loop_wall_us(c->d->loop), ttl = mr_json_get_int(c->in, "desired_ttl_seconds", c->d->lease_s);
  char at[28];

  beat_time(w, at);
  if (c->by.past) {
    lost_lease(op, "it was given to another worker");
  } else if (w->state == MR_WORK_STOPPED || mr_work_shows(w, now) == MR_WORK_STOPPED) {
    write_beat(op, false);
    mr_call_done(c, MR_OK);
  } else if (w->state == MR_WORK_QUEUED) {
    lost_lease(op, "it is queued: nobody holds it");
  } else if (w->state != MR_WORK_STOPPING && expected.p &&
             !(at[0] ? mr_str_is(expected, at) : mr_str_is(expected, "NO_HEARTBEAT"))) {
    lost_lease(op, "its latest heartbeat is another one than expected, so another worker may hold it");
  } else {
    w->beat_us = now > w->beat_us ? now : w->beat_us + 1;
    w->ttl_s = ttl < 1 ? 1 : ttl > MR_WORK_TTL_MAX ? MR_WORK_TTL_MAX : ttl;
    w->lease_us = now + w->ttl_s * 1000000;
    if (w->state == MR_WORK_STARTING) w->state = MR_WORK_ACTIVE;
    if (!w->started_us) w->started_us = now;
    write_beat(op, true);
    commit_item(op, "work.beat");
  }
}

void mr_environments_work_heartbeat(struct mr_call *c)
{
  begin_item(c, beat);
}

/* ---- stop ---- */

/* Did something come to do shortly before the item's worker left, which that may not have seen? */
static bool left_too_soon(struct mr_domain *d, const struct mr_work *w)
{
  const struct mr_session *s = mr_session_loaded(d, w->ws, mr_str_c(w->session_id));

  if (!w->wanted_us || w->wanted_us + SOON_US < mr_loop_now_us(d->loop)) return false;
  return !s || s->status != MR_IDLE || s->inbox || mr_state_blocked(s);
}

static void stop_now(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  struct mr_work *w = op->w;
  struct mr_commit *cm = mr_commit_new(c->d->store, &c->who);

  if (!cm) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  if (c->by.kind >= MR_BEARER_ENVIRONMENT && left_too_soon(c->d, w)) w->again = true;
  if (!w->stop_asked_us) w->stop_asked_us = mr_loop_wall_us(c->d->loop);
  mr_work_stop(c->d, w, cm, &op->in);
  mr_work_wire(c->d, w, "null", &c->out);
  mr_work_token_over(c->d, w);
  mr_work_op_commit(op, &cm, "work.stop");
}

static void stop(struct mr_work_op *op)
{
  struct mr_work *w = op->w;
  enum mr_work_state shows = mr_work_shows(w, mr_loop_wall_us(op->c->d->loop));

  if (w->state == MR_WORK_STOPPED || op->c->by.past) {
    mr_call_fail(op->c, MR_E_CONFLICT, NULL,
                 op->c->by.past ? "work item %s was given to another worker: it is not yours to stop"
                                : "work item %s has stopped already",
                 w->id);
  } else if (mr_json_get_bool(op->c->in, "force", false) || shows == MR_WORK_QUEUED ||
             shows == MR_WORK_STOPPED) {
    stop_now(op);
  } else if (w->state == MR_WORK_STOPPING) {
    answer(op);
  } else {
    w->state = MR_WORK_STOPPING;
    w->stop_asked_us = mr_loop_wall_us(op->c->d->loop);
    commit_item(op, "work.stopping");
  }
}

void mr_environments_work_stop(struct mr_call *c)
{
  begin_item(c, stop);
}

/* ---- looking ---- */

void mr_environments_work_retrieve(struct mr_call *c)
{
  begin_item(c, answer);
}

static void on_list(void *ud, const struct mr_rows *r)
{
  struct mr_work_op *op = ud;
  struct mr_call *c = op->c;
  int code = r->code;

  if (code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  mr_buf_c(&c->out, "{\"data\":[");
  for (int i = 0; code == MR_OK && i < r->n; i++) {
    struct mr_work w = {0};
    if (i) mr_buf_char(&c->out, ',');
    code = mr_work_read(c->d, &w, c->who.workspace, &r->docs[i]);
    if (code == MR_OK) mr_work_wire(c->d, &w, "null", &c->out);
    mr_work_clear(c->d, &w);
  }
  mr_buf_c(&c->out, "],\"next_page\":");
  if (r->more)
    mr_json_quote(&c->out,
                  mr_page_by_time(c, false, false, r->docs[r->n - 1].created_us, r->docs[r->n - 1].id));
  else
    mr_buf_c(&c->out, "null");
  mr_buf_char(&c->out, '}');
  if (code != MR_OK)
    mr_call_fail(c, code, NULL, "the work items could not be read");
  else
    mr_call_done(c, MR_OK);
}

static void list(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  struct mr_doc_query q = {.kind = MR_S("work"), .parent = c->path[0], .include_archived = true};
  struct mr_page page;
  int code = mr_page_read(c, LIST_DEFAULT, LIST_MAX, false, &page);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  q.after = page.cur;
  q.limit = page.limit;
  mr_read_docs(c->d->store, c->who.workspace, &q, on_list, op);
}

void mr_environments_work_list(struct mr_call *c)
{
  mr_work_op_begin(c, list);
}

/* ---- metadata ---- */

/* Words at the beginning of keys that this server, and the API, keep for themselves. */
static bool reserved(struct mr_str key)
{
  static const char *const ours[] = {"anthropic", "moonrig"};

  for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
    size_t n = strlen(ours[i]);
    if (key.n >= n && mr_str_ieq(mr_str_n(key.p, n), mr_str_c(ours[i])) &&
        (key.n == n || strchr("._-:/", key.p[n])))
      return true;
  }
  return false;
}

static void problem(struct mr_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct mr_buf *b, const char *fmt, ...)
{
  char text[160];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  mr_buf_printf(b, "%s%s", b->n ? "; " : "", text);
}

static void check_pair(struct mr_str key, yyjson_val *v, struct mr_buf *b)
{
  int n = (int)mr_utf8_cut(key, 40);

  if (key.n == 0 || mr_utf8_chars(key) > KEY_CHARS)
    problem(b, "key \"%.*s%s\" must have 1 to %d characters", n, key.p ? key.p : "",
            (size_t)n < key.n ? "..." : "", KEY_CHARS);
  else if (reserved(key))
    problem(b, "key \"%.*s\" is reserved", n, key.p);
  if (!yyjson_is_null(v) && (!yyjson_is_str(v) || mr_utf8_chars(mr_json_str(v)) > VALUE_CHARS))
    problem(b, "the value of \"%.*s\" must be null or a string of at most %d characters", n, key.p ? key.p : "",
            VALUE_CHARS);
}

/* old with the patch applied, or what is wrong with it, all of it. */
static int merge(struct mr_call *c, const struct mr_work *w, char **merged)
{
  yyjson_val *patch = mr_json_get(c->in, "metadata"), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(patch);
  yyjson_doc *old = NULL;
  struct mr_buf wrong, out;
  int code = mr_json_parse(c->mem, mr_str_c(w->metadata ? w->metadata : "{}"), SIZE_MAX, &old, &c->err);

  mr_buf_init(&wrong, c->mem, 1 << 20);
  mr_buf_init(&out, c->mem, 1 << 20);
  while (yyjson_is_obj(patch) && (k = yyjson_obj_iter_next(&it)))
    check_pair(mr_json_str(k), yyjson_obj_iter_get_val(k), &wrong);
  if (code == MR_OK && !wrong.n) {
    code = mr_metadata_merge(c, yyjson_doc_get_root(old), patch, false, &out);
    if (code == MR_E_INVALID) problem(&wrong, "at most %d pairs", PAIRS);
  }
  if (wrong.n)
    code = mr_err_code(&c->err, MR_E_INVALID, "invalid_metadata", "metadata", "metadata: " MR_FMT,
                       MR_ARG(mr_buf_get(&wrong)));
  if (code == MR_OK && !(*merged = mr_mem_strdup(c->mem, mr_buf_get(&out)))) code = mr_err_nomem(&c->err);
  yyjson_doc_free(old);
  mr_buf_free(&wrong);
  mr_buf_free(&out);
  return code;
}

static void on_apart(void *ud, const struct mr_commit_result *r)
{
  struct mr_work_op *op = ud;

  op->in.n = 0; /* it is in no table */
  on_committed(op, r);
}

static void update(struct mr_work_op *op)
{
  struct mr_call *c = op->c;
  struct mr_work *w = op->w;
  struct mr_commit *cm;
  char *merged = NULL;
  int code = merge(c, w, &merged);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  mr_work_clear(c->d, w);
  w->metadata = merged;
  if (w != &op->apart) {
    commit_item(op, "work.update");
    return;
  }
  cm = mr_commit_new(c->d->store, &c->who);
  if (!cm) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  mr_work_put(c->d, w, cm);
  mr_work_wire(c->d, w, "null", &c->out);
  mr_commit_submit(&cm, on_apart, op);
}

void mr_environments_work_update(struct mr_call *c)
{
  begin_item(c, update);
}
