/*
 * ext_db_t - what ext_db.c (connections, order) and ext_db_run.c (what one run does) share.
 */
#ifndef MR_HOST_EXT_DB_T_H
#define MR_HOST_EXT_DB_T_H

#include <sqlite3.h>
#include "host/ext_t.h"

struct mr_db_run {
  struct mr_db_run *next;
  struct mr_ext_db *db; /* counted */
  bool opens;           /* the first run of a connection */
  uint64_t id;          /* in the table, while it can be cancelled; 0 = never */
  atomic_int stop;      /* MR_E_CANCELLED, MR_E_CLOSED: end it */
  bool again;           /* the file was locked, nothing was done: it has another turn */
  char *text;
  size_t text_n;
  yyjson_doc *params;
  unsigned flags;
  int max_rows;
  int64_t max_bytes, until_us; /* on the runtime's monotonic clock */
  void (*done)(void *ud, const struct mr_reply *r);
  void (*opened)(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err);
  void *ud;
  struct mr_entry entry;
  int code;
  struct mr_err err;
  yyjson_doc *result;
};

struct mr_ext_db {
  struct mr_ext_db *next;
  struct mr_runtime *rt; /* counted */
  int refs;    /* the connection's, the host's, one for each run; the table's lock, as all down to busy */
  bool closed; /* by the host, or never opened */
  bool gone;   /* the connection let go of its reference */
  int nruns;
  struct mr_db_run *head, **tail;
  bool busy; /* job is with the pool; then h is its thread's */
  struct mr_job job;
  sqlite3 *h;
  char *path;
  bool readonly;
  struct mr_db_run *now; /* on the pool: what runs */
  bool stepping;         /* on the pool: a statement is, not prepared */
  bool again_ok, yields; /* on the pool: no statement of the run is over; it gave up waiting for a lock */
};

int mr_db_fail(struct mr_db_run *r, int code, const char *message); /* sets both; returns code */
void mr_db_do_open(struct mr_ext_db *db, struct mr_db_run *r);      /* pool */
void mr_db_do_run(struct mr_ext_db *db, struct mr_db_run *r);       /* pool */

#endif
