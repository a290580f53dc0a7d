/*
 * ext_db.c - SQLite files of scripts: connections, and the order of what is done in them. What happens inside of one
 * run is ext_db_run.c's.
 *
 * Not the runtime's own store (store/sqlite), which no script may open. Each connection has a queue of runs, of which
 * one at a time is a job of a small pool of threads; so runs of one connection are in order, and connections go side
 * by side without holding up the files and reads of others.
 *
 * Invariant: while db->busy, db->h and the first run are the pool's; everything else of a connection is guarded by
 * the table's lock. A run is in the queue, then its entry is in the host's queue, and that frees it.
 * Runs are asked for and cancelled on any thread.
 */
#include "host/ext_db_t.h"

enum { DB_THREADS = 4, DBS_MAX = 256, RUNS_MAX = 1000, SQL_MAX = 1 << 20 };

struct mr_ext_dbs {
  struct mr_pool *pool;
  struct mr_ext_db *all;
  int n;
  bool cut; /* closing: what waits is answered MR_E_CLOSED */
};

static void run_free(struct mr_db_run *r)
{
  const struct mr_mem *m = mr_rt_mem(r->db->rt);

  yyjson_doc_free(r->params);
  yyjson_doc_free(r->result);
  mr_mem_free(m, r->text);
  mr_mem_free(m, r);
}

static void db_free(struct mr_ext_db *db)
{
  struct mr_runtime *rt = db->rt;

  mr_mem_free(mr_rt_mem(rt), db->path);
  mr_mem_free(mr_rt_mem(rt), db);
  mr_rt_unref(rt);
}

static void lock(struct mr_ext_db *db)
{
  pthread_mutex_lock(&db->rt->ext->lock);
}

/* Frees it when nobody refers to it any more. */
static void unlock(struct mr_ext_db *db)
{
  bool over = db->refs == 0;

  pthread_mutex_unlock(&db->rt->ext->lock);
  if (over) db_free(db);
}

/* ---- telling the host ---- */

static void run_told(struct mr_entry *e)
{
  struct mr_db_run *r = MR_OF(e, struct mr_db_run, entry);
  struct mr_ext_db *db = r->db;
  struct mr_reply reply = {.size = sizeof reply, .code = r->code, .err = r->code == MR_OK ? NULL : &r->err};

  if (!r->opens) {
    reply.val = (const struct mr_val *)yyjson_doc_get_root(r->result);
    r->done(r->ud, &reply);
  } else {
    lock(db);
    db->refs += r->code == MR_OK; /* the host's */
    unlock(db);
    r->opened(r->ud, r->code, r->code == MR_OK ? db : NULL, reply.err);
  }
  run_free(r);
  mr_queue_release(&db->rt->queue);
  lock(db);
  db->refs--;
  unlock(db);
}

/* Lock held. The first run is over. */
static void run_tell(struct mr_ext_db *db)
{
  struct mr_db_run *r = db->head;

  db->head = r->next;
  if (!db->head) db->tail = &db->head;
  db->nruns--;
  if (r->id) mr_ext_drop(db->rt, r->id);
  r->id = 0;
  mr_queue_push(&db->rt->queue, &r->entry);
}

/* ---- one run after the other ---- */

/* Lock held, not busy: what is next goes to the pool, the closing of the file at last. */
static void db_next(struct mr_ext_db *db)
{
  struct mr_ext_dbs *x = db->rt->ext->dbs;
  struct mr_ext_db **at;
  bool work = db->head || (db->closed && db->h);

  db->busy = work && mr_pool_submit(x->pool, &db->job) == MR_OK;
  if (db->busy) return;
  while (db->head) { /* the pool takes nothing any more */
    mr_db_fail(db->head, MR_E_CLOSED, "the runtime is closing");
    run_tell(db);
  }
  if (!db->closed || db->h || db->gone) return;
  db->gone = true;
  db->refs--;
  for (at = &x->all; *at != db; at = &(*at)->next)
    continue;
  *at = db->next;
  x->n--;
}

static void on_work(struct mr_job *job, void *worker)
{
  struct mr_ext_db *db = MR_OF(job, struct mr_ext_db, job);
  struct mr_db_run *r = db->head;

  (void)worker;
  if (!r) {
    sqlite3_close(db->h);
    db->h = NULL;
  } else if (atomic_load(&r->stop)) {
    mr_db_fail(r, atomic_load(&r->stop), "cancelled");
  } else if (r->opens) {
    mr_db_do_open(db, r);
  } else {
    mr_db_do_run(db, r);
  }
}

static void on_done(struct mr_job *job)
{
  struct mr_ext_db *db = MR_OF(job, struct mr_ext_db, job);

  lock(db);
  db->busy = false;
  if (!db->h) db->closed = true; /* was closed, or could not be opened */
  if (db->head && db->head->again)
    db->head->again = false;
  else if (db->head)
    run_tell(db);
  db_next(db);
  unlock(db);
}

/* Lock held; r has its slot of the host's queue. */
static void db_put(struct mr_ext_db *db, struct mr_db_run *r)
{
  r->next = NULL;
  *db->tail = r;
  db->tail = &r->next;
  db->refs++;
  db->nruns++;
  if (!db->busy) db_next(db);
}

static struct mr_db_run *run_new(struct mr_ext_db *db, void *ud)
{
  struct mr_db_run *r = mr_mem_zalloc(mr_rt_mem(db->rt), sizeof *r);

  if (!r) return NULL;
  r->db = db;
  r->ud = ud;
  atomic_init(&r->stop, 0);
  r->entry.run = run_told;
  return r;
}

/* ---- opening ---- */

/* Lock held, over the making of the threads too: that is once. */
static int dbs_ready(struct mr_runtime *rt, struct mr_err *err)
{
  struct mr_ext_dbs *x = rt->ext->dbs;
  int code;

  if (x) return x->cut ? mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing") : MR_OK;
  x = mr_mem_zalloc(mr_rt_mem(rt), sizeof *x);
  if (!x) return mr_err_nomem(err);
  code = mr_pool_new(&x->pool, rt->loop, DB_THREADS, DBS_MAX, "db", NULL, NULL, NULL, err);
  if (code == MR_OK)
    rt->ext->dbs = x;
  else
    mr_mem_free(mr_rt_mem(rt), x);
  return code;
}

static struct mr_ext_db *db_new(struct mr_runtime *rt, const char *path, bool readonly)
{
  struct mr_ext_db *db = mr_mem_zalloc(mr_rt_mem(rt), sizeof *db);
  bool plain = path[0] == '/' || strcmp(path, ":memory:") == 0;
  size_t n = strlen(path) + 3;

  if (!db) return NULL;
  mr_rt_ref(rt);
  db->rt = rt;
  db->refs = 1;
  db->readonly = readonly;
  db->tail = &db->head;
  db->job.work = on_work;
  db->job.done = on_done;
  db->path = mr_mem_alloc(mr_rt_mem(rt), n);
  if (db->path) {
    snprintf(db->path, n, "%s%s", plain ? "" : "./", path); /* so that it is no URI */
    return db;
  }
  db_free(db);
  return NULL;
}

static int db_start(struct mr_ext_db *db, struct mr_db_run *r, struct mr_err *err)
{
  struct mr_ext_set *x = db->rt->ext;
  int code;

  pthread_mutex_lock(&x->lock);
  code = dbs_ready(db->rt, err);
  if (code == MR_OK && x->dbs->n >= DBS_MAX)
    code = mr_err_set(err, MR_E_FULL, NULL, "more than %d databases are open: close some", DBS_MAX);
  if (code == MR_OK) {
    db->next = x->dbs->all;
    x->dbs->all = db;
    x->dbs->n++;
    db_put(db, r);
  }
  pthread_mutex_unlock(&x->lock);
  return code;
}

int mr_x_db_open(struct mr_runtime *rt, const char *path, int readonly,
                 void (*done)(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err), void *ud,
                 struct mr_err *err)
{
  struct mr_ext_db *db;
  struct mr_db_run *r;
  int code = mr_ext_check(rt, err);

  if (code != MR_OK) return code;
  if (!done) return mr_err_set(err, MR_E_INVALID, "done", "done: needed");
  if (!path || !path[0] || strlen(path) > 4000)
    return mr_err_set(err, MR_E_INVALID, "path", "path: a file name of 1 to 4,000 bytes, or \":memory:\"");
  db = db_new(rt, path, readonly != 0);
  if (!db) return mr_err_nomem(err);
  r = run_new(db, ud);
  code = r ? mr_queue_reserve(&rt->queue) : MR_E_NOMEM;
  if (code != MR_OK) {
    mr_err_set(err, code, NULL, "%s", mr_strerror(code));
  } else {
    r->opens = true;
    r->opened = done;
    code = db_start(db, r, err);
    if (code == MR_OK) return MR_OK;
    mr_queue_release(&rt->queue);
  }
  if (r) run_free(r);
  db_free(db);
  return code;
}

/* ---- asking ---- */

static int run_check(struct mr_ext_db *db, const struct mr_ext_db_run *q, bool done, struct mr_err *err)
{
  int code = mr_ext_check(db->rt, err);

  if (code != MR_OK) return code;
  if (!done) return mr_err_set(err, MR_E_INVALID, "done", "done: needed");
  if (!q || q->size < sizeof *q)
    return mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_ext_db_run)");
  if (!q->sql.n || q->sql.n > SQL_MAX || memchr(q->sql.p, 0, q->sql.n))
    return mr_err_set(err, MR_E_INVALID, "sql", "sql: 1 byte to 1 MiB of text, without NUL");
  return MR_OK;
}

static int run_make(struct mr_ext_db *db, const struct mr_ext_db_run *q, void *ud, struct mr_db_run **out)
{
  struct mr_db_run *r = run_new(db, ud);

  *out = r;
  if (!r || !(r->text = mr_mem_strdup(mr_rt_mem(db->rt), q->sql))) return MR_E_NOMEM;
  r->text_n = q->sql.n;
  r->flags = q->flags;
  r->max_rows = q->max_rows > 0 ? q->max_rows : 10000;
  r->max_bytes = q->max_bytes > 0 ? q->max_bytes : 16 << 20;
  r->until_us = mr_mono_us(&db->rt->sys) + (q->timeout_ms > 0 ? q->timeout_ms : 60000) * 1000;
  return MR_OK;
}

static int run_put(struct mr_ext_db *db, struct mr_db_run *r, uint64_t *id)
{
  int code = MR_OK;

  lock(db);
  if (db->rt->ext->dbs->cut || db->closed)
    code = MR_E_CLOSED;
  else if (db->nruns >= RUNS_MAX || !(r->id = mr_ext_put(db->rt, MR_EXT_DB, r)))
    code = MR_E_FULL;
  if (code == MR_OK) {
    if (id) *id = r->id;
    db_put(db, r);
  }
  unlock(db);
  return code;
}

int mr_x_db_run(struct mr_ext_db *db, const struct mr_ext_db_run *q, struct mr_doc **params,
                void (*done)(void *ud, const struct mr_reply *r), void *ud, uint64_t *id, struct mr_err *err)
{
  yyjson_doc *given = params ? mr_doc_take(params) : NULL;
  struct mr_db_run *r = NULL;
  int code = run_check(db, q, done != NULL, err);

  if (id) *id = 0;
  if (code != MR_OK) {
    yyjson_doc_free(given);
    return code;
  }
  code = run_make(db, q, ud, &r);
  if (r) r->params = given;
  if (code == MR_OK) code = mr_queue_reserve(&db->rt->queue);
  if (code == MR_OK) {
    r->done = done;
    code = run_put(db, r, id);
    if (code == MR_OK) return MR_OK;
    mr_queue_release(&db->rt->queue);
  }
  if (r)
    run_free(r);
  else
    yyjson_doc_free(given);
  return mr_err_set(err, code, NULL, "%s",
                    code == MR_E_CLOSED ? "the database is closed"
                    : code == MR_E_FULL ? "too many statements wait: let some end, then try again"
                                        : mr_strerror(code));
}

void mr_x_db_cancel(struct mr_runtime *rt, uint64_t id)
{
  struct mr_db_run *r;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  pthread_mutex_lock(&rt->ext->lock);
  r = mr_ext_get(rt, MR_EXT_DB, id);
  if (r) atomic_store(&r->stop, MR_E_CANCELLED); /* whoever works on it looks there */
  pthread_mutex_unlock(&rt->ext->lock);
}

/* ---- closing ---- */

void mr_x_db_close(struct mr_ext_db **dbp)
{
  struct mr_ext_db *db = dbp ? *dbp : NULL;

  if (!db) return;
  *dbp = NULL;
  if (getpid() != db->rt->pid) return; /* in a forked process nothing is released */
  if (!db->rt->ext) {                  /* the runtime is closed: nobody else knows of it */
    db_free(db);
    return;
  }
  lock(db);
  db->refs--;
  db->closed = true;
  if (!db->busy && !db->gone) db_next(db);
  unlock(db);
}

/* The closing thread; the loop does not run. */
void mr_dbs_end(struct mr_runtime *rt)
{
  struct mr_ext_set *s = rt->ext;
  struct mr_ext_dbs *x = s->dbs;
  struct mr_ext_db *db;

  if (!x) return;
  pthread_mutex_lock(&s->lock);
  x->cut = true;
  for (db = x->all; db; db = db->next)
    for (struct mr_db_run *r = db->head; r; r = r->next)
      atomic_store(&r->stop, MR_E_CLOSED);
  pthread_mutex_unlock(&s->lock);
  mr_pool_free(&x->pool); /* runs end, and their on_done */
  while ((db = x->all)) {
    lock(db);
    sqlite3_close(db->h);
    db->h = NULL;
    db->closed = true;
    db_next(db); /* nothing to do: takes it off the list */
    unlock(db);
  }
  s->dbs = NULL;
  mr_mem_free(mr_rt_mem(rt), x);
}
