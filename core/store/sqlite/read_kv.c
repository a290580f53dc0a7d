/*
 * read_kv.c - the SQL of durable values and their rows; see read.c.
 *
 * A prefix is a range of the primary key: from the prefix itself to the first text past all that begin with
 * it (its last byte plus one; UTF-8 has no byte that this could overflow).
 *
 * Invariant: every statement binds the workspace first; a row whose time is over is never shown. Reading
 * threads.
 */
#include "store/sqlite/sqlite_t.h"

static void range_sql(const struct mr_read *rd, struct mr_sql *q)
{
  struct mr_str prefix = rd->q.kv.key, end;

  /* One lower bound, the later: the planner searches by one of two, and might take that of the first page. */
  if (prefix.n && mr_str_cmp(rd->q.kv.after, prefix) < 0) mr_sql_str(q, " AND key >= ?", prefix);
  if (prefix.n) {
    end = mr_arena_str(rd->arena, prefix);
    if (end.p)
      ((char *)(uintptr_t)end.p)[end.n - 1]++;
    else
      q->failed = true;
    mr_sql_str(q, " AND key < ?", end);
  }
  if (rd->q.kv.after.n && mr_str_cmp(rd->q.kv.after, prefix) >= 0)
    mr_sql_str(q, " AND key > ?", rd->q.kv.after);
  mr_sql_add(q, " ORDER BY key");
}

void mr_sqlite_kv_sql(const struct mr_read *rd, struct mr_sql *q)
{
  mr_sql_int(q, "SELECT space, key, rev, expires_us, value FROM kv WHERE workspace_id = ?", rd->ws);
  mr_sql_str(q, " AND space = ?", rd->q.kv.space);
  mr_sql_int(q, " AND (expires_us = 0 OR expires_us > ?)", rd->q.kv.now_us);
  if (rd->kind == MR_READ_KV)
    mr_sql_str(q, " AND key = ?", rd->q.kv.key);
  else
    range_sql(rd, q);
}

bool mr_sqlite_kv_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.kv;
  struct mr_kv_row *r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);

  if (!r) return false;
  rd->rows.kv = rows;
  r->space = mr_sqlite_text(rd, st, 0, bytes);
  r->key = mr_sqlite_text(rd, st, 1, bytes);
  r->rev = sqlite3_column_int64(st, 2);
  r->expires_us = sqlite3_column_int64(st, 3);
  r->value = mr_sqlite_text(rd, st, 4, bytes);
  return true;
}
