/*
 * stmts.c - the writer's statements: their SQL in one table, prepared at open and kept until close.
 *
 * Not here: what readers ask (read*.c), the schema (schema.c). Values are bound SQLITE_STATIC: they
 * live in the commit's arena, which outlives the step; a stale pointer that stays bound after a step is
 * replaced before the next one and never read.
 *
 * Invariant: every statement is reset when no step is running, so none keeps a transaction open.
 * Writer thread (and the opening thread before it starts).
 */
#include "store/sqlite/sqlite_t.h"

static const char *const sql[MR_W_COUNT] = {
    [MR_W_BEGIN] = "BEGIN IMMEDIATE",
    [MR_W_COMMIT] = "COMMIT",
    [MR_W_ROLLBACK] = "ROLLBACK",
    [MR_W_SAVE] = "SAVEPOINT one",
    [MR_W_RELEASE] = "RELEASE one",
    [MR_W_BACK] = "ROLLBACK TO one",
    [MR_W_DOC_INSERT] = "INSERT INTO docs(workspace_id, kind, id, parent, name, rev, version, "
                        "created_us, updated_us,"
                        " archived_us, body) VALUES(?1, ?2, ?3, ?4, ?5, 1, ?6, ?7, ?8, ?9, ?10)"
                        " ON CONFLICT DO NOTHING",
    /* created_us stays: a column named here has its indexes rewritten. */
    [MR_W_DOC_UPDATE] = "UPDATE docs SET rev = rev + 1, parent = ?4, name = ?5, version = ?6, updated_us = ?8,"
                        " archived_us = ?9, body = ?10"
                        " WHERE workspace_id = ?1 AND kind = ?2 AND id = ?3 AND (?7 < 0 OR rev = ?7)",
    [MR_W_DOC_DELETE] = "DELETE FROM docs WHERE workspace_id = ?1 AND kind = ?2 AND id = ?3 AND "
                        "(?4 < 0 OR rev = ?4)",
    [MR_W_DOC_REV] = "SELECT rev FROM docs WHERE workspace_id = ?1 AND kind = ?2 AND id = ?3",
    [MR_W_DOC_VERSION] = "INSERT INTO doc_versions(workspace_id, kind, id, version, created_us, body)"
                         " VALUES(?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
    [MR_W_NAME_TAKEN] = "SELECT 1 FROM docs WHERE workspace_id = ?1 AND kind = ?2 AND name = ?3 AND name <> ''"
                        " AND id <> ?4 AND archived_us = 0 LIMIT 1",
    [MR_W_SESSION_FIND] =
        "SELECT session_no FROM sessions WHERE workspace_id = ?1 AND id = ?2 AND deleted_us <= 0",
    [MR_W_SESSION_INSERT] =
        "INSERT INTO sessions(workspace_id, id, rev, created_us, updated_us, archived_us, "
        "deleted_us,"
        " status, agent_id, agent_version, environment_id, deployment_id, last_us, owner_epoch, "
        "due_us,"
        " head) VALUES(?1, ?2, 1, ?3, ?4, ?5, ?15, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"
        " ON CONFLICT DO NOTHING",
    [MR_W_SESSION_UPDATE] = "UPDATE sessions SET rev = rev + 1, updated_us = ?4, archived_us = ?5, status = ?6,"
                            " last_us = ?7, due_us = ?8, head = coalesce(?9, head)"
                            " WHERE session_no = ?1 AND rev = ?2 AND owner_epoch = ?3",
    [MR_W_SESSION_AGENT] = "UPDATE sessions SET agent_id = ?2, agent_version = ?3 WHERE session_no = ?1",
    [MR_W_SESSION_BORN] = "UPDATE sessions SET deleted_us = 0, environment_id = ?2"
                          " WHERE session_no = ?1 AND deleted_us = -1",
    [MR_W_SESSION_DELETE] = "UPDATE sessions SET rev = rev + 1, deleted_us = ?2 WHERE session_no = ?1",
    [MR_W_TEXTS_INSERT] =
        "INSERT INTO session_texts(workspace_id, session_no, agent, doc) VALUES(?1, ?2, ?3, ?4)",
    [MR_W_TEXTS_UPDATE] = "UPDATE session_texts SET agent = coalesce(?2, agent), doc = coalesce(?3, doc)"
                          " WHERE session_no = ?1",
    [MR_W_LOG_INSERT] =
        "INSERT INTO log(workspace_id, pos, session_no, kind, format, processed_us, type, event_id,"
        " thread, key_id, request_id, trace, body)"
        " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    [MR_W_INBOX_INSERT] =
        "INSERT INTO inbox(workspace_id, arrival, session_no, event_id, type, key_id, request_id,"
        " trace, body) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    [MR_W_INBOX_DELETE] = "DELETE FROM inbox WHERE workspace_id = ?1 AND session_no = ?2 AND event_id = ?3",
    [MR_W_WS_FIND] = "SELECT workspace_id FROM workspaces WHERE id = ?1",
    [MR_W_WS_INSERT] = "INSERT INTO workspaces(id) VALUES(?1)",
    [MR_W_META_SET] = "UPDATE meta SET value = ?2 WHERE key = ?1",
    [MR_W_PROBE] = "UPDATE meta SET value = zeroblob(65536) WHERE key = 'probe'",
    [MR_W_SWEEP_FIND] = "SELECT workspace_id, session_no FROM sessions WHERE deleted_us <> 0 AND deleted_us > 0"
                        " LIMIT 1",
    [MR_W_SWEEP_LOG] = "DELETE FROM log WHERE pos IN (SELECT pos FROM log WHERE workspace_id = ?1"
                       " AND session_no = ?2 LIMIT ?3)",
    [MR_W_SWEEP_INBOX] = "DELETE FROM inbox WHERE arrival IN (SELECT arrival FROM inbox WHERE workspace_id = ?1"
                         " AND session_no = ?2 LIMIT ?3)",
    [MR_W_SWEEP_TEXTS] = "DELETE FROM session_texts WHERE session_no = ?2",
    [MR_W_SWEEP_SESSION] = "DELETE FROM sessions WHERE session_no = ?2",
    [MR_W_KV_REV] = "SELECT rev FROM kv WHERE workspace_id = ?1 AND space = ?2 AND key = ?3"
                    " AND (expires_us = 0 OR expires_us > ?4)",
    [MR_W_KV_PUT] =
        "INSERT INTO kv(workspace_id, space, key, rev, expires_us, value) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
        " ON CONFLICT(workspace_id, space, key) DO UPDATE SET rev = ?4, expires_us = ?5, value = ?6",
    [MR_W_KV_DELETE] = "DELETE FROM kv WHERE workspace_id = ?1 AND space = ?2 AND key = ?3",
    [MR_W_KV_EXPIRED] = "SELECT workspace_id, space, key FROM kv WHERE expires_us <> 0 AND expires_us <= ?1"
                        " LIMIT 1",
};

int mr_sqlite_prepare(struct mr_sqlite *q, struct mr_err *err)
{
  for (int i = 0; i < MR_W_COUNT; i++)
    if (sqlite3_prepare_v3(q->db, sql[i], -1, SQLITE_PREPARE_PERSISTENT, &q->st[i], NULL) != SQLITE_OK)
      return mr_sqlite_err(q->db, 0, "prepare", err);
  return MR_OK;
}

void mr_sqlite_finalize(struct mr_sqlite *q)
{
  for (int i = 0; i < MR_W_COUNT; i++) {
    sqlite3_finalize(q->st[i]);
    q->st[i] = NULL;
  }
}

int mr_sqlite_step(struct mr_sqlite *q, enum mr_stmt w)
{
  int rc = sqlite3_step(q->st[w]);

  sqlite3_reset(q->st[w]);
  return rc;
}

void mr_sqlite_bind(sqlite3_stmt *st, int at, struct mr_str s)
{
  sqlite3_bind_text64(st, at, s.n ? s.p : "", s.n, SQLITE_STATIC, SQLITE_UTF8);
}

void mr_sqlite_bind_or_null(sqlite3_stmt *st, int at, struct mr_str s)
{
  if (s.n)
    sqlite3_bind_text64(st, at, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
  else
    sqlite3_bind_null(st, at);
}
