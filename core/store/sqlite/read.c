/*
 * read.c - running a read: the connections of the reading threads, the statements they keep, and the
 * little builder that the queries' SQL comes from. Which SQL: read_docs.c, read_sessions.c, read_log.c.
 *
 * One read is one statement, so one snapshot; it is reset before the reply leaves the thread, so no
 * snapshot outlives a read and checkpoints are never held up. Values are always bound; lists of values
 * travel as one JSON array, so that the text of a statement depends on which filters are used and not on
 * how many values they have, and few texts cover all queries.
 *
 * Invariant: a reading connection cannot write (READONLY, query_only). Pool threads; in memory stores
 * the writer thread.
 */
#include "store/sqlite/sqlite_t.h"

#include <stdio.h>

enum { SQL_MAX = 4096, LIST_BYTES = 1 << 20 };

/* ---- building ---- */

void mr_sql_add(struct mr_sql *q, const char *text)
{
  mr_buf_c(&q->text, text);
}

void mr_sql_int(struct mr_sql *q, const char *text, int64_t v)
{
  mr_sql_add(q, text);
  if (q->n == MR_SQL_BINDS) {
    q->failed = true;
    return;
  }
  q->b[q->n].is_text = false;
  q->b[q->n++].i = v;
}

void mr_sql_str(struct mr_sql *q, const char *text, struct mr_str v)
{
  mr_sql_add(q, text);
  if (q->n == MR_SQL_BINDS) {
    q->failed = true;
    return;
  }
  q->b[q->n].is_text = true;
  q->b[q->n++].s = v;
}

void mr_sql_list(struct mr_sql *q, const char *text, const struct mr_str *v, int n)
{
  struct mr_buf b;
  struct mr_str json;

  mr_buf_init(&b, q->text.mem, LIST_BYTES);
  mr_buf_char(&b, '[');
  for (int i = 0; i < n; i++) {
    if (i) mr_buf_char(&b, ',');
    mr_json_quote(&b, v[i]);
  }
  mr_buf_char(&b, ']');
  json = mr_arena_str(q->arena, mr_buf_get(&b));
  if (b.failed || !json.p)
    q->failed = true;
  else
    mr_sql_str(q, text, json);
  mr_buf_free(&b);
}

void mr_sql_range(struct mr_sql *q, const char *column, const struct mr_range *r)
{
  const struct {
    int64_t v;
    const char *op;
  } ends[] = {{r->gt, ">"}, {r->gte, ">="}, {r->lt, "<"}, {r->lte, "<="}};
  char text[64];

  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
    if (!ends[i].v) continue;
    snprintf(text, sizeof text, " AND %s %s ?", column, ends[i].op);
    mr_sql_int(q, text, ends[i].v);
  }
}

void mr_sql_order(struct mr_sql *q, const char *prefix, const struct mr_cursor *after, bool ascending)
{
  char text[128];

  if (after->us || after->id.n) {
    snprintf(text, sizeof text, " AND (%screated_us, %sid) %s (?, ", prefix, prefix, ascending ? ">" : "<");
    mr_sql_int(q, text, after->us);
    mr_sql_str(q, "?)", after->id);
  }
  snprintf(text, sizeof text, " ORDER BY %screated_us %s, %sid %s", prefix, ascending ? "ASC" : "DESC", prefix,
           ascending ? "ASC" : "DESC");
  mr_sql_add(q, text);
}

/* ---- connections and their statements ---- */

void mr_sqlite_reader_clear(struct mr_reader *r)
{
  for (int i = 0; i < MR_READ_STMTS; i++) {
    sqlite3_finalize(r->kept[i].st);
    r->kept[i].st = NULL;
  }
}

struct worker {
  struct mr_sqlite *q;
  struct mr_reader r;
};

/* The connection opens at the first read: an idle store holds none. */
void *mr_sqlite_reader_new(void *ud)
{
  struct mr_sqlite *q = ud;
  struct worker *w = mr_mem_zalloc(q->store->mem, sizeof *w);

  if (w) w->q = q;
  return w;
}

void mr_sqlite_reader_free(void *ud, void *worker)
{
  struct mr_sqlite *q = ud;
  struct worker *w = worker;

  if (!w) return;
  mr_sqlite_reader_clear(&w->r);
  sqlite3_close(w->r.db);
  mr_mem_free(q->store->mem, w);
}

/* A statement with this text, prepared or kept; NULL on failure. */
static sqlite3_stmt *statement(struct mr_reader *r, const char *text)
{
  int oldest = 0;

  for (int i = 0; i < MR_READ_STMTS; i++) {
    sqlite3_stmt *st = r->kept[i].st;
    if (st && strcmp(sqlite3_sql(st), text) == 0) {
      r->kept[i].used = ++r->clock;
      return st;
    }
    if (r->kept[i].used < r->kept[oldest].used) oldest = i;
  }
  sqlite3_finalize(r->kept[oldest].st);
  r->kept[oldest].st = NULL;
  if (sqlite3_prepare_v3(r->db, text, -1, SQLITE_PREPARE_PERSISTENT, &r->kept[oldest].st, NULL) != SQLITE_OK)
    return NULL;
  r->kept[oldest].used = ++r->clock;
  return r->kept[oldest].st;
}

/* ---- running ---- */

struct shape {
  void (*sql)(const struct mr_read *rd, struct mr_sql *q);
  bool (*row)(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes);
};

static struct shape shape_of(enum mr_read_kind kind)
{
  switch (kind) {
  case MR_READ_SESSION:
  case MR_READ_SESSIONS:
  case MR_READ_WAKE: return (struct shape){mr_sqlite_sessions_sql, mr_sqlite_sessions_row};
  case MR_READ_KV:
  case MR_READ_KVS: return (struct shape){mr_sqlite_kv_sql, mr_sqlite_kv_row};
  case MR_READ_ALL:
  case MR_READ_LOG:
  case MR_READ_INBOX: return (struct shape){mr_sqlite_log_sql, mr_sqlite_log_row};
  default: return (struct shape){mr_sqlite_docs_sql, mr_sqlite_docs_row};
  }
}

struct mr_str mr_sqlite_text(struct mr_read *rd, sqlite3_stmt *st, int col, size_t *bytes)
{
  const char *p = (const char *)sqlite3_column_text(st, col);
  struct mr_str s = mr_str_n(p, (size_t)sqlite3_column_bytes(st, col));

  if (!p || s.n == 0) return mr_str_n("", 0);
  *bytes += s.n;
  s = mr_arena_str(rd->arena, s);
  if (!s.p) rd->rows.code = MR_E_NOMEM;
  return s;
}

static void bind_all(sqlite3_stmt *st, const struct mr_sql *q)
{
  for (int i = 0; i < q->n; i++) {
    if (q->b[i].is_text)
      mr_sqlite_bind(st, i + 1, q->b[i].s);
    else
      sqlite3_bind_int64(st, i + 1, q->b[i].i);
  }
}

static int fetch(struct mr_reader *r, struct mr_read *rd, sqlite3_stmt *st, struct shape shape)
{
  size_t bytes = 0;
  int rc, cap = 0;

  while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
    if (rd->rows.n == rd->limit || bytes > MR_STORE_REPLY_BYTES) {
      rd->rows.more = true;
      return MR_OK;
    }
    if (!shape.row(rd, st, &cap, &bytes) || rd->rows.code != MR_OK) return mr_err_nomem(&rd->err);
    rd->rows.n++;
  }
  return rc == SQLITE_DONE ? MR_OK : mr_sqlite_err(r->db, 0, "read", &rd->err);
}

static bool is_one(enum mr_read_kind kind)
{
  return kind == MR_READ_DOC || kind == MR_READ_DOC_VERSION || kind == MR_READ_SESSION || kind == MR_READ_KV;
}

static int none_such(struct mr_read *rd)
{
  struct mr_str kind = rd->kind == MR_READ_SESSION ? MR_S("session")
                       : rd->kind == MR_READ_KV    ? MR_S("key")
                                                   : rd->doc_kind;
  struct mr_str id = rd->kind == MR_READ_KV ? rd->q.kv.key : rd->id;

  return mr_err_set(&rd->err, MR_E_NOTFOUND, NULL, "%.*s %.*s does not exist", MR_ARG(kind),
                    id.n < 200 ? (int)id.n : 200, id.p);
}

void mr_sqlite_read_run(struct mr_reader *r, struct mr_read *rd)
{
  struct shape shape = shape_of(rd->kind);
  struct mr_sql q = {.arena = rd->arena};
  sqlite3_stmt *st = NULL;
  int code;

  mr_buf_init(&q.text, rd->store->mem, SQL_MAX);
  shape.sql(rd, &q);
  mr_sql_int(&q, " LIMIT ?", (int64_t)rd->limit + 1);
  if (q.failed || q.text.failed) {
    code = mr_err_nomem(&rd->err);
  } else if (!(st = statement(r, mr_buf_get(&q.text).p))) {
    code = mr_sqlite_err(r->db, 0, "read", &rd->err);
  } else {
    bind_all(st, &q);
    code = fetch(r, rd, st, shape);
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
  }
  mr_buf_free(&q.text);
  if (code == MR_OK && rd->rows.n == 0 && is_one(rd->kind)) code = none_such(rd);
  rd->rows.code = code;
}

/* ---- the pool's side ---- */

static void read_work(struct mr_job *j, void *worker)
{
  struct mr_read *rd = MR_OF(j, struct mr_read, job);
  struct worker *w = worker;

  if (!w)
    rd->rows.code = mr_err_nomem(&rd->err);
  else if (!w->r.db)
    rd->rows.code = mr_sqlite_connect(w->q, SQLITE_OPEN_READONLY, &w->r.db, &rd->err);
  if (rd->rows.code == MR_OK) mr_sqlite_read_run(&w->r, rd);
}

static void read_finished(struct mr_job *j)
{
  mr_read_done(&MR_OF(j, struct mr_read, job)->done);
}

static int queue_here(struct mr_sqlite *q, struct mr_read *rd)
{
  int code = MR_OK;

  pthread_mutex_lock(&q->mu);
  if (q->stop) {
    code = MR_E_CLOSED;
  } else if (q->nreads >= MR_STORE_READS_MAX) {
    code = MR_E_FULL;
  } else {
    rd->next = NULL;
    *q->reads_tail = rd;
    q->reads_tail = &rd->next;
    q->nreads++;
    pthread_cond_signal(&q->more);
  }
  pthread_mutex_unlock(&q->mu);
  return code;
}

int mr_sqlite_read(struct mr_store *s, struct mr_read *rd)
{
  struct mr_sqlite *q = s->self;

  if (!q->path) return queue_here(q, rd);
  rd->job.work = read_work;
  rd->job.done = read_finished;
  return q->readers ? mr_pool_submit(q->readers, &rd->job) : MR_E_CLOSED;
}
