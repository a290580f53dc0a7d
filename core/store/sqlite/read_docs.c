/*
 * read_docs.c - the SQL of document queries and their rows; see read.c.
 *
 * Lists go by (created_us, id), newest first unless asked otherwise; a cursor is the last row seen, and
 * the comparison is of the pair, so equal times lose and repeat nothing. A partial index is used only
 * where the query repeats its condition (parent <> '', name <> '').
 *
 * Invariant: every statement binds the workspace first. Reading threads.
 */
#include "store/sqlite/sqlite_t.h"

#define COLUMNS "kind, id, parent, name, rev, version, created_us, updated_us, archived_us, body"

static void list_sql(const struct mr_read *rd, struct mr_sql *q)
{
  const struct mr_doc_query *d = &rd->q.docs;

  mr_sql_str(q, " AND kind = ?", d->kind);
  if (d->parent.p)
    mr_sql_str(q, d->parent.n ? " AND parent <> '' AND parent = ?" : " AND parent = ?", d->parent);
  if (!d->include_archived) mr_sql_add(q, " AND archived_us = 0");
  mr_sql_range(q, "created_us", &d->created);
  if (d->nids > 0) mr_sql_list(q, " AND id IN (SELECT value FROM json_each(?))", d->ids, d->nids);
  mr_sql_order(q, "", &d->after, d->ascending);
}

static void versions_sql(const struct mr_read *rd, struct mr_sql *q)
{
  mr_sql_int(q,
             "SELECT kind, id, '', '', version, version, created_us, created_us, 0, body"
             " FROM doc_versions WHERE workspace_id = ?",
             rd->ws);
  mr_sql_str(q, " AND kind = ?", rd->doc_kind);
  mr_sql_str(q, " AND id = ?", rd->id);
  if (rd->kind == MR_READ_DOC_VERSION)
    mr_sql_int(q, " AND version = ?", rd->version);
  else if (rd->below)
    mr_sql_int(q, " AND version < ?", rd->below);
  mr_sql_add(q, " ORDER BY version DESC");
}

void mr_sqlite_docs_sql(const struct mr_read *rd, struct mr_sql *q)
{
  if (rd->kind == MR_READ_DOC_VERSION || rd->kind == MR_READ_DOC_VERSIONS) {
    versions_sql(rd, q);
    return;
  }
  mr_sql_int(q, "SELECT " COLUMNS " FROM docs WHERE workspace_id = ?", rd->ws);
  switch (rd->kind) {
  case MR_READ_DOC:
    mr_sql_str(q, " AND kind = ?", rd->doc_kind);
    mr_sql_str(q, " AND id = ?", rd->id);
    break;
  case MR_READ_DOC_NAMED:
    mr_sql_str(q, " AND kind = ?", rd->doc_kind);
    mr_sql_str(q, " AND name <> '' AND name = ? AND archived_us = 0 ORDER BY created_us DESC, id DESC",
               rd->name);
    break;
  default: list_sql(rd, q);
  }
}

bool mr_sqlite_docs_row(struct mr_read *rd, sqlite3_stmt *st, int *cap, size_t *bytes)
{
  void *rows = (void *)(uintptr_t)rd->rows.docs;
  struct mr_doc_row *r = mr_read_row(rd, &rows, cap, rd->rows.n, sizeof *r);

  if (!r) return false;
  rd->rows.docs = rows;
  r->kind = mr_sqlite_text(rd, st, 0, bytes);
  r->id = mr_sqlite_text(rd, st, 1, bytes);
  r->parent = mr_sqlite_text(rd, st, 2, bytes);
  r->name = mr_sqlite_text(rd, st, 3, bytes);
  r->rev = sqlite3_column_int64(st, 4);
  r->version = sqlite3_column_int64(st, 5);
  r->created_us = sqlite3_column_int64(st, 6);
  r->updated_us = sqlite3_column_int64(st, 7);
  r->archived_us = sqlite3_column_int64(st, 8);
  r->body = mr_sqlite_text(rd, st, 9, bytes);
  return true;
}
