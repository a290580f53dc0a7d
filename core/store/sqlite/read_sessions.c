/*
 * read_sessions.c - the SQL of session queries and their rows; see read.c.
 *
 * Heads and texts are two tables (schema.c) joined by number, one look-up a row. Lists go by
 * (created_us, id) like documents. What must be woken comes from the partial index of awake sessions and
 * from the inbox, both small whatever the number of idle sessions.
 *
 * Invariant: every statement binds the workspace first (but waking, which is for the machine itself);
 * tombstoned sessions never appear. Reading threads.
 */
#include "store/sqlite/sqlite_t.h"

#define COLUMNS                                                                                                \
  "s.id, s.session_no, s.rev, s.created_us, s.updated_us, s.archived_us, s.status, s.agent_id,"                \
  " s.environment_id, s.deployment_id, s.agent_version, s.last_us, s.owner_epoch, s.due_us, "                  \
  "s.head,"                                                                                                    \
  " t.agent, t.doc"

static void list_sql(const struct mr_session_query *d, struct mr_sql *q)
{
  if (d->agent_id.n) mr_sql_str(q, " AND s.agent_id = ?", d->agent_id);
  if (d->agent_version) mr_sql_int(q, " AND s.agent_version = ?", d->agent_version);
  if (d->environment_id.n) mr_sql_str(q, " AND s.environment_id = ?", d->environment_id);
  if (d->deployment_id.n) mr_sql_str(q, " AND s.deployment_id = ?", d->deployment_id);
  if (d->memory_store_id.n)
    mr_sql_str(q,
               " AND EXISTS (SELECT 1 FROM json_each(t.doc, '$.resources') r"
               " WHERE json_extract(r.value, '$.memory_store_id') = ?)",
               d->memory_store_id);
  if (d->nstatuses > 0)
    mr_sql_list(q, " AND s.status IN (SELECT value FROM json_each(?))", d->statuses, d->nstatuses);
  if (!d->include_archived) mr_sql_add(q, " AND s.archived_us = 0");
  mr_sql_range(q, "s.created_us", &d->created);
  mr_sql_order(q, "s.", &d->after, d->ascending);
}

void mr_sqlite_sessions_sql(const struct mr_read *rd, struct mr_sql *q)
{
  if (rd->kind == MR_READ_WAKE) {
    /* The workspace comes in owner_epoch; nothing big is read. */
    mr_sql_int(q,
               "SELECT s.id, s.session_no, s.rev, s.created_us, s.updated_us, s.archived_us, s.status,"
               " s.agent_id, s.environment_id, s.deployment_id, s.agent_version, s.last_us,"
               " s.workspace_id, s.due_us, '', '', '' FROM"
               " (SELECT session_no AS no FROM sessions INDEXED BY sessions_wake"
               "   WHERE deleted_us = 0 AND status IN ('running', 'rescheduling')"
               "  UNION SELECT session_no FROM inbox)"
               " CROSS JOIN sessions s ON s.session_no = no"
               " WHERE no > ? AND s.deleted_us = 0 ORDER BY no",
               rd->after_no);
    return;
  }
  mr_sql_int(q,
             "SELECT " COLUMNS " FROM sessions s CROSS JOIN session_texts t"
             " ON t.session_no = s.session_no WHERE s.workspace_id = ? AND s.deleted_us = 0",
             rd->ws);
  if (rd->kind == MR_READ_SESSION)
    mr_sql_str(q, " AND s.id = ?", rd->id);
  else
    list_sql(&rd->q.sessions, q);
}

bool mr_sqlite_sessions_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.sessions;
  struct mr_session_row *r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);

  if (!r) return false;
  rd->rows.sessions = rows;
  r->id = mr_sqlite_text(rd, st, 0, bytes);
  r->no = sqlite3_column_int64(st, 1);
  r->rev = sqlite3_column_int64(st, 2);
  r->created_us = sqlite3_column_int64(st, 3);
  r->updated_us = sqlite3_column_int64(st, 4);
  r->archived_us = sqlite3_column_int64(st, 5);
  r->status = mr_sqlite_text(rd, st, 6, bytes);
  r->agent_id = mr_sqlite_text(rd, st, 7, bytes);
  r->environment_id = mr_sqlite_text(rd, st, 8, bytes);
  r->deployment_id = mr_sqlite_text(rd, st, 9, bytes);
  r->agent_version = sqlite3_column_int64(st, 10);
  r->last_us = sqlite3_column_int64(st, 11);
  r->owner_epoch = sqlite3_column_int64(st, 12);
  r->due_us = sqlite3_column_int64(st, 13);
  r->head = mr_sqlite_text(rd, st, 14, bytes);
  r->agent = mr_sqlite_text(rd, st, 15, bytes);
  r->doc = mr_sqlite_text(rd, st, 16, bytes);
  return true;
}
