/*
 * store_kit.h - helpers of the store's tests: a store on a loop of its own, commits and reads that wait
 * for their callback, and a copy of the rows a read brought. Everything is waited for; the deadline only
 * turns a hang into a failure.
 */
#ifndef MR_TEST_STORE_KIT_H
#define MR_TEST_STORE_KIT_H

#include <stdlib.h>
#include <unistd.h>
#include "kit.h"
#include "store/store_t.h"

struct ts {
  struct mr_loop *loop;
  struct mr_store *s;
  int64_t ws;
};

struct outcome { int calls, code, swept; int64_t pos, rev; char code_text[48], field[96], message[384]; };

/* Rows of the last read, copied. */
struct got {
  int calls, code, n;
  bool more;
  struct mr_arena *arena;
  struct mr_doc_row *docs;
  struct mr_session_row *sessions;
  struct mr_log_row *log;
  struct mr_inbox_row *inbox;
  struct mr_kv_row *kv;
  struct mr_all_row *all;
};

#define TS_UNUSED __attribute__((unused)) static

/* As test_fail_after, but with an atomic counter: the store's threads allocate too. */
__attribute__((unused)) static long ts_allocs_left = -1;
__attribute__((unused)) static void *(*ts_real_alloc)(void *ud, void *p, size_t old_size, size_t new_size);

TS_UNUSED void *ts_alloc(void *ud, void *p, size_t old_size, size_t new_size)
{
  long left = __atomic_load_n(&ts_allocs_left, __ATOMIC_SEQ_CST);
  while (new_size > 0 && left > 0 && !__atomic_compare_exchange_n(&ts_allocs_left, &left, left - 1, 0,
                                                                  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
    continue;
  return new_size > 0 && left == 0 ? NULL : ts_real_alloc(ud, p, old_size, new_size);
}

TS_UNUSED void ts_fail_after(long n)
{
  struct mr_mem *m = &test_sys()->mem;
  if (m->fn != ts_alloc) { /* before any thread runs */
    ts_real_alloc = m->fn;
    m->fn = ts_alloc;
  }
  __atomic_store_n(&ts_allocs_left, n, __ATOMIC_SEQ_CST);
}

TS_UNUSED void ts_until(struct mr_loop *l, const int *calls, int want)
{
  int64_t end = mr_loop_now_us(l) + 30000000;
  while (*calls < want) {
    mr_loop_pump(l, 0);
    if (*calls < want)
      usleep(50);
    if (mr_loop_now_us(l) > end)
      test_fail(__FILE__, __LINE__, "waited 30 s for a callback");
  }
}

TS_UNUSED int ts_open_code(struct ts *t, const char *dir, const struct mr_store_internal *in, int wait_ms,
                           struct mr_err *err)
{
  memset(t, 0, sizeof *t);
  CHECK_INT(mr_loop_new(&t->loop, test_sys(), NULL, NULL), MR_OK);
  mr_loop_enter(t->loop);
  return mr_store_open_with(&t->s, t->loop, &(struct mr_store_opts){.dir = dir, .wait_ms = wait_ms}, in, err);
}

TS_UNUSED void ts_open(struct ts *t, const char *dir)
{
  struct mr_err err = {0};
  if (ts_open_code(t, dir, NULL, 0, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "open: %s", err.message);
  CHECK_INT(mr_store_workspace(t->s, MR_S("wrkspc_default"), &t->ws, NULL), MR_OK);
}

TS_UNUSED void ts_close(struct ts *t)
{
  mr_store_close(&t->s);
  mr_loop_free(&t->loop);
}

TS_UNUSED struct mr_commit *ts_commit_in(struct ts *t, int64_t ws)
{
  struct mr_commit *c = mr_commit_new(t->s, &(struct mr_origin){ws, MR_S("key_1"), MR_S("req_1"), MR_S("")});
  CHECK(c != NULL);
  return c;
}

TS_UNUSED struct mr_commit *ts_commit(struct ts *t)
{
  return ts_commit_in(t, t->ws);
}

TS_UNUSED void ts_done(void *ud, const struct mr_commit_result *r)
{
  struct outcome *o = ud;
  o->calls++;
  o->code = r->code;
  o->pos = r->first_pos;
  o->rev = r->rev;
  o->swept = r->swept;
  if (r->err) {
    memcpy(o->code_text, r->err->error_code, sizeof o->code_text);
    memcpy(o->field, r->err->field, sizeof o->field);
    memcpy(o->message, r->err->message, sizeof o->message);
  }
}

TS_UNUSED int ts_submit(struct ts *t, struct mr_commit *c, struct outcome *out)
{
  struct outcome o = {0};
  mr_commit_submit(&c, ts_done, &o);
  CHECK(c == NULL);
  CHECK_INT(o.calls, 0); /* never inside the call */
  ts_until(t->loop, &o.calls, 1);
  if (out)
    *out = o;
  return o.code;
}

TS_UNUSED void got_free(struct got *g)
{
  mr_arena_free(&g->arena);
  memset(g, 0, sizeof *g);
}

TS_UNUSED struct mr_str got_str(struct got *g, struct mr_str s)
{
  return mr_arena_str(g->arena, s);
}

TS_UNUSED void ts_rows(void *ud, const struct mr_rows *r)
{
  struct got *g = ud;
  int calls = g->calls;

  got_free(g);
  g->calls = calls + 1;
  g->code = r->code;
  g->n = r->n;
  g->more = r->more;
  CHECK((r->code == MR_OK) == (r->err == NULL));
  g->arena = mr_arena_new(&test_sys()->mem, 4096);
  g->docs = mr_arena_alloc(g->arena, sizeof *g->docs * (size_t)(r->n + 1));
  g->sessions = mr_arena_alloc(g->arena, sizeof *g->sessions * (size_t)(r->n + 1));
  g->log = mr_arena_alloc(g->arena, sizeof *g->log * (size_t)(r->n + 1));
  g->inbox = mr_arena_alloc(g->arena, sizeof *g->inbox * (size_t)(r->n + 1));
  g->kv = mr_arena_alloc(g->arena, sizeof *g->kv * (size_t)(r->n + 1));
  g->all = mr_arena_alloc(g->arena, sizeof *g->all * (size_t)(r->n + 1));
  for (int i = 0; i < r->n && r->kv; i++) {
    struct mr_kv_row *k = &g->kv[i];
    *k = r->kv[i];
    k->space = got_str(g, k->space), k->key = got_str(g, k->key), k->value = got_str(g, k->value);
  }
  for (int i = 0; i < r->n && r->all; i++) {
    struct mr_all_row *l = &g->all[i];
    *l = r->all[i];
    l->session_id = got_str(g, l->session_id), l->agent_id = got_str(g, l->agent_id);
    l->agent_name = got_str(g, l->agent_name), l->type = got_str(g, l->type), l->body = got_str(g, l->body);
  }
  for (int i = 0; i < r->n && r->docs; i++) {
    struct mr_doc_row *d = &g->docs[i];
    *d = r->docs[i];
    d->kind = got_str(g, d->kind), d->id = got_str(g, d->id), d->parent = got_str(g, d->parent);
    d->name = got_str(g, d->name), d->body = got_str(g, d->body);
  }
  for (int i = 0; i < r->n && r->sessions; i++) {
    struct mr_session_row *s = &g->sessions[i];
    *s = r->sessions[i];
    s->id = got_str(g, s->id), s->status = got_str(g, s->status), s->agent_id = got_str(g, s->agent_id);
    s->environment_id = got_str(g, s->environment_id), s->deployment_id = got_str(g, s->deployment_id);
    s->agent = got_str(g, s->agent), s->doc = got_str(g, s->doc), s->head = got_str(g, s->head);
  }
  for (int i = 0; i < r->n && r->log; i++) {
    struct mr_log_row *l = &g->log[i];
    *l = r->log[i];
    l->type = got_str(g, l->type), l->event_id = got_str(g, l->event_id);
    l->thread_id = got_str(g, l->thread_id), l->body = got_str(g, l->body);
  }
  for (int i = 0; i < r->n && r->inbox; i++) {
    struct mr_inbox_row *x = &g->inbox[i];
    *x = r->inbox[i];
    x->event_id = got_str(g, x->event_id), x->type = got_str(g, x->type), x->body = got_str(g, x->body);
  }
}

/* ts_read(t, &g, mr_read_doc, ws, kind, id): asks and waits. */
#define ts_read(t, g, fn, ...)                                                               \
  do {                                                                                       \
    int before_ = (g)->calls;                                                                \
    fn((t)->s, __VA_ARGS__, ts_rows, (g));                                                   \
    CHECK_INT((g)->calls, before_);                                                          \
    ts_until((t)->loop, &(g)->calls, before_ + 1);                                           \
  } while (0)

TS_UNUSED struct mr_doc_row ts_doc(const char *kind, const char *id, int64_t created, const char *body)
{
  return (struct mr_doc_row){.kind = mr_str_c(kind), .id = mr_str_c(id), .created_us = created,
                             .updated_us = created, .body = mr_str_c(body)};
}

TS_UNUSED struct mr_session_row ts_session(const char *id, int64_t created)
{
  return (struct mr_session_row){
      .id = mr_str_c(id), .rev = 1, .created_us = created, .updated_us = created, .status = MR_S("idle"),
      .agent_id = MR_S("agent_1"), .agent_version = 1, .environment_id = MR_S("env_1"),
      .agent = MR_S("{\"a\":1}"), .doc = MR_S("{\"resources\":[]}"), .head = MR_S("{}")};
}

TS_UNUSED void ts_session_make(struct ts *t, const char *id, int64_t created)
{
  struct mr_commit *c = ts_commit(t);
  struct mr_session_row s = ts_session(id, created);
  mr_commit_session_new(c, &s);
  CHECK_INT(ts_submit(t, c, NULL), MR_OK);
}

TS_UNUSED struct mr_log_row ts_log(const char *type, const char *event, int64_t us, const char *body)
{
  return (struct mr_log_row){.type = mr_str_c(type), .event_id = mr_str_c(event), .processed_us = us,
                             .body = mr_str_c(body)};
}

#endif
