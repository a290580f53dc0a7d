/*
 * ext_t - what the files behind mr_ext() share: the objects that the host knows by number (timers, requests,
 * watches), documents in the host's hands, and the functions of the table, each under the name mr_x_<member>.
 *
 * A number is a place in a table and a count of how often the place was used, so that one that is over never
 * names another object.
 */
#ifndef MR_HOST_EXT_T_H
#define MR_HOST_EXT_T_H

#include "base/json.h"
#include "host/host_t.h"

enum mr_ext_kind { MR_EXT_NONE = 0, MR_EXT_TIMER, MR_EXT_HTTP, MR_EXT_WATCH, MR_EXT_FD, MR_EXT_DB };
enum { MR_EXT_MAX = 65536 };
struct mr_ext_id {
  enum mr_ext_kind kind;
  uint32_t uses, next_free;
  void *obj;
};

struct mr_inotify; /* ext_watch.c */
struct mr_ext_dbs; /* ext_db.c */

struct mr_ext_set {
  pthread_mutex_t lock; /* the table, and the states of what is in it */
  struct mr_ext_id *ids;
  uint32_t n, cap, free;      /* free: place + 1 of the first free one */
  struct mr_inotify *inotify; /* loop */
  struct mr_ext_dbs *dbs;     /* NULL until the first one is opened; set under the lock */
};

/* Lock held. 0: no memory, or MR_EXT_MAX of them. */
uint64_t mr_ext_put(struct mr_runtime *rt, enum mr_ext_kind kind, void *obj);
void *mr_ext_get(struct mr_runtime *rt, enum mr_ext_kind kind, uint64_t id); /* NULL: over */
void mr_ext_drop(struct mr_runtime *rt, uint64_t id);
/* MR_OK when new work may be taken; else the code, explained in err. Any thread. */
int mr_ext_check(struct mr_runtime *rt, struct mr_err *err);

struct mr_doc {
  struct mr_runtime *rt;
  yyjson_doc *doc;
};
/* Takes doc over, also when it fails. NULL: no memory. */
struct mr_doc *mr_doc_new(struct mr_runtime *rt, yyjson_doc *doc);
yyjson_doc *mr_doc_take(struct mr_doc **d); /* the document; the rest is freed; clears *d */

/* At the end, on the closing thread. */
void mr_timer_end(void *timer);
void mr_waiter_end(void *waiter);
void mr_dbs_end(struct mr_runtime *rt);
void mr_watches_end(struct mr_runtime *rt);

/* ---- ext_json.c ---- */
enum mr_kind mr_x_kind(const struct mr_val *v);
int mr_x_as_bool(const struct mr_val *v);
int64_t mr_x_as_int(const struct mr_val *v);
uint64_t mr_x_as_uint(const struct mr_val *v);
double mr_x_as_real(const struct mr_val *v);
struct mr_str mr_x_as_str(const struct mr_val *v);
size_t mr_x_len(const struct mr_val *v);
const struct mr_val *mr_x_get(const struct mr_val *obj, struct mr_str key);
int mr_x_next(struct mr_iter *it);
int mr_x_parse(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err);
const struct mr_val *mr_x_doc_root(const struct mr_doc *d);
void mr_x_doc_free(struct mr_doc *d);
int mr_x_write(struct mr_runtime *rt, const struct mr_val *v, unsigned flags, char **out, size_t *n);

/* ---- ext_build.c ---- */
struct mr_build *mr_x_build(struct mr_runtime *rt);
void mr_x_b_null(struct mr_build *b);
void mr_x_b_bool(struct mr_build *b, int v);
void mr_x_b_int(struct mr_build *b, int64_t v);
void mr_x_b_real(struct mr_build *b, double v);
void mr_x_b_str(struct mr_build *b, struct mr_str v);
void mr_x_b_key(struct mr_build *b, struct mr_str k);
void mr_x_b_open(struct mr_build *b, int is_array);
void mr_x_b_close(struct mr_build *b);
void mr_x_b_val(struct mr_build *b, const struct mr_val *v);
int mr_x_build_done(struct mr_build **b, struct mr_doc **out, struct mr_err *err);
void mr_x_build_drop(struct mr_build **b);

/* ---- ext_timer.c ---- */
int mr_x_timer(struct mr_runtime *rt, int64_t us, void (*fn)(void *ud), void *ud, uint64_t *id);
int mr_x_timer_cancel(struct mr_runtime *rt, uint64_t id);
int mr_x_post(struct mr_runtime *rt, void (*fn)(void *ud), void *ud);

/* ---- ext_http.c ---- */
int mr_x_http(struct mr_runtime *rt, const struct mr_ext_http_req *req, const struct mr_ext_http_cbs *cbs,
              void *ud, uint64_t *id, struct mr_err *err);
void mr_x_http_cancel(struct mr_runtime *rt, uint64_t id);
void mr_x_http_pause(struct mr_runtime *rt, uint64_t id, int pause);

/* ---- ext_file.c, ext_watch.c ---- */
int mr_x_file(struct mr_runtime *rt, const char *op, const char *path, struct mr_str arg,
              void (*done)(void *ud, const struct mr_reply *r, struct mr_str raw), void *ud,
              struct mr_err *err);
int mr_x_watch(struct mr_runtime *rt, const char *path, void (*fn)(void *ud, struct mr_str path), void *ud,
               uint64_t *id, struct mr_err *err);
void mr_x_watch_cancel(struct mr_runtime *rt, uint64_t id);

/* ---- ext_fd.c, ext_crypto.c ---- */
int mr_x_readable(struct mr_runtime *rt, int fd, void (*fn)(void *ud), void *ud, uint64_t *id,
                  struct mr_err *err);
int mr_x_readable_cancel(struct mr_runtime *rt, uint64_t id);
int mr_x_digest(const char *digest, const struct mr_str *key, struct mr_str data, unsigned char *out,
                size_t *n);
int mr_x_random(struct mr_runtime *rt, void *buf, size_t n);

/* ---- ext_db.c ---- */
int mr_x_db_open(struct mr_runtime *rt, const char *path, int readonly,
                 void (*done)(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err), void *ud,
                 struct mr_err *err);
int mr_x_db_run(struct mr_ext_db *db, const struct mr_ext_db_run *q, struct mr_doc **params,
                void (*done)(void *ud, const struct mr_reply *r), void *ud, uint64_t *id, struct mr_err *err);
void mr_x_db_cancel(struct mr_runtime *rt, uint64_t id);
void mr_x_db_close(struct mr_ext_db **db);

/* ---- ext_kv.c ---- */
int mr_x_kv(struct mr_runtime *rt, const struct mr_ext_kv *k, struct mr_doc **value,
            void (*done)(void *ud, const struct mr_reply *r), void *ud, struct mr_err *err);

/* ---- ext_roots.c ---- */
int mr_roots_check(yyjson_val *options, struct mr_err *err); /* the option's form */
bool mr_roots_set(struct mr_runtime *rt);
/* The path to work on instead, in out (PATH_MAX); or MR_E_DENIED. itself: a link is not followed. */
int mr_roots_resolve(struct mr_runtime *rt, const char *path, bool itself, char *out, struct mr_err *err);

/* ---- control.c ---- */
void mr_x_set_generation(struct mr_runtime *rt, int64_t generation, struct mr_str last_error);
void mr_x_set_scripts(struct mr_runtime *rt, struct mr_str json);
int mr_x_on_control(struct mr_runtime *rt,
                    void (*fn)(void *ud, const char *command, const struct mr_val *arg, uint64_t id), void *ud);
void mr_x_control_done(struct mr_runtime *rt, uint64_t id, int code, struct mr_str json);

#endif
