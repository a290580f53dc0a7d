/*
 * read_log.c - the SQL of the log and the inbox, and their rows; see read.c.
 *
 * Both go through the index on (workspace, session), whose entries are in row-number order, so neither
 * sorts and a page costs its rows (plus those a filter skips). A log cursor is a position.
 *
 * MR_READ_ALL goes by row number over all sessions, for the machine itself: no workspace there.
 *
 * Invariant: the session is found by workspace and id in the same statement, so a tombstone hides its
 * rows at once. Reading threads.
 */
#include "store/sqlite/sqlite_t.h"

static void of_session(struct mr_sql *q, int64_t ws, struct mr_str id)
{
  mr_sql_int(q, " AND session_no = (SELECT session_no FROM sessions WHERE workspace_id = ?", ws);
  mr_sql_str(q, " AND id = ? AND deleted_us = 0)", id);
}

static void all_sql(const struct mr_read *rd, struct mr_sql *q)
{
  mr_sql_int(q,
             "SELECT l.pos, s.id, s.agent_id, json_extract(t.agent, '$.name'), l.type, l.body FROM log l"
             " CROSS JOIN sessions s ON s.session_no = l.session_no AND s.deleted_us = 0"
             " CROSS JOIN session_texts t ON t.session_no = l.session_no WHERE l.pos > ?",
             rd->q.all.after);
  mr_sql_int(q, " AND l.pos <= ? AND l.kind = 0 AND l.format = 0 AND l.thread IS NULL", rd->q.all.upto);
  if (rd->q.all.ntypes > 0)
    mr_sql_list(q, " AND l.type IN (SELECT value FROM json_each(?))", rd->q.all.types, rd->q.all.ntypes);
  mr_sql_add(q, " ORDER BY l.pos");
}

void mr_sqlite_log_sql(const struct mr_read *rd, struct mr_sql *q)
{
  const struct mr_log_query *d = &rd->q.log;

  if (rd->kind == MR_READ_ALL) {
    all_sql(rd, q);
    return;
  }
  if (rd->kind == MR_READ_INBOX) {
    mr_sql_int(q, "SELECT arrival, event_id, type, body FROM inbox WHERE workspace_id = ?", rd->ws);
    of_session(q, rd->ws, rd->id);
    mr_sql_add(q, " ORDER BY arrival");
    return;
  }
  mr_sql_int(q,
             "SELECT pos, kind, format, type, event_id, thread, processed_us, body FROM log"
             " WHERE workspace_id = ?",
             rd->ws);
  of_session(q, rd->ws, d->session_id);
  if (d->thread_id.n && !d->all_threads)
    mr_sql_str(q, " AND thread = ?", d->thread_id);
  else if (!d->all_threads)
    mr_sql_add(q, " AND thread IS NULL");
  if (d->event_id.n) mr_sql_str(q, " AND event_id = ?", d->event_id);
  if (!d->with_private) mr_sql_add(q, " AND kind = 0");
  if (d->ntypes > 0) mr_sql_list(q, " AND type IN (SELECT value FROM json_each(?))", d->types, d->ntypes);
  mr_sql_range(q, "processed_us", &d->processed);
  if (d->after_pos) mr_sql_int(q, d->descending ? " AND pos < ?" : " AND pos > ?", d->after_pos);
  mr_sql_add(q, d->descending ? " ORDER BY pos DESC" : " ORDER BY pos");
}

static bool inbox_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.inbox;
  struct mr_inbox_row *r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);

  if (!r) return false;
  rd->rows.inbox = rows;
  r->arrival = sqlite3_column_int64(st, 0);
  r->event_id = mr_sqlite_text(rd, st, 1, bytes);
  r->type = mr_sqlite_text(rd, st, 2, bytes);
  r->body = mr_sqlite_text(rd, st, 3, bytes);
  return true;
}

static bool all_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.all;
  struct mr_all_row *r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);

  if (!r) return false;
  rd->rows.all = rows;
  r->pos = sqlite3_column_int64(st, 0);
  r->session_id = mr_sqlite_text(rd, st, 1, bytes);
  r->agent_id = mr_sqlite_text(rd, st, 2, bytes);
  r->agent_name = mr_sqlite_text(rd, st, 3, bytes);
  r->type = mr_sqlite_text(rd, st, 4, bytes);
  r->body = mr_sqlite_text(rd, st, 5, bytes);
  return true;
}

bool mr_sqlite_log_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.log;
  struct mr_log_row *r;

  if (rd->kind == MR_READ_ALL) return all_row(rd, st, cap, bytes);
  if (rd->kind == MR_READ_INBOX) return inbox_row(rd, st, cap, bytes);
  r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);
  if (!r) return false;
  rd->rows.log = rows;
  r->pos = sqlite3_column_int64(st, 0);
  r->kind = sqlite3_column_int(st, 1);
  r->format = sqlite3_column_int(st, 2);
  r->type = mr_sqlite_text(rd, st, 3, bytes);
  r->event_id = mr_sqlite_text(rd, st, 4, bytes);
  r->thread_id = mr_sqlite_text(rd, st, 5, bytes);
  r->processed_us = sqlite3_column_int64(st, 6);
  r->body = mr_sqlite_text(rd, st, 7, bytes);
  return true;
}
