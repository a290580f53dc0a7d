/*
 * moonrig_ext.h - services for language bindings, as one table of functions.
 *
 * What it is for: the Lua binding (and others like it) needs JSON values without JSON text, timers,
 * outgoing HTTP, files and file watching on the runtime's loop. mr_ext(rt) returns the table; a
 * binding uses nothing but this and moonrig.h. It is to moonrig.h what lauxlib.h is to lua.h.
 * What it is not for: programs; the table is not stable before 1.0. Check size before using a
 * member that came later.
 *
 * Threads: callbacks run inside mr_dispatch, like every other callback. JSON readers and builders
 * may be used on any thread, one thread at a time per document.
 */
#ifndef MOONRIG_EXT_H
#define MOONRIG_EXT_H

#include "moonrig.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Kinds of a JSON value. */
enum mr_kind {
  MR_K_NONE = 0,
  MR_K_NULL,
  MR_K_BOOL,
  MR_K_INT,
  MR_K_UINT,
  MR_K_REAL,
  MR_K_STR,
  MR_K_ARR,
  MR_K_OBJ
};

struct mr_build; /* a JSON document under construction */
struct mr_doc;   /* a finished JSON document that owns its values */

/* Walks an array or object in order: zero it, set .of, call next until it returns 0. */
struct mr_iter {
  const struct mr_val *of;  /* the array or object */
  const struct mr_val *val; /* current value */
  struct mr_str key;        /* current key (objects) */
  void *priv[2];
};

struct mr_ext_http_req {
  uint32_t size;
  const char *method, *url;
  const char *const *headers; /* "Name: value" lines, NULL-terminated, or NULL */
  struct mr_str body;
  int64_t timeout_ms;    /* whole request; 0 = 60,000, -1 = no limit */
  int64_t max_body;      /* response bytes kept; over it MR_E_TOO_LARGE; 0 = 16 MiB (with chunk: no limit) */
  int follow;            /* redirects to follow, at most 10 */
  int64_t connect_ms;    /* until connected; 0 = 10,000 */
  int64_t idle_ms;       /* no byte for so long = MR_E_TIMEOUT; 0 = off. A pause of the host's does not count */
  const char *unix_path; /* connect to this socket instead of the URL's host; NULL = no */
  int guard; /* not 0: only public addresses and those of allow_private_hosts, at each redirect; else
                            MR_E_DENIED. For URLs that somebody else chose */
};
struct mr_ext_http_reply {
  uint32_t size;
  int code; /* MR_OK when an HTTP response arrived whole, whatever its status */
  int status;
  struct mr_str headers; /* "name: value\n" lines, names in lower case */
  struct mr_str body;
  const struct mr_err *err;
};
struct mr_ext_http_cbs {
  uint32_t size;
  void (*chunk)(void *ud, struct mr_str data);               /* NULL: the body is collected into reply.body */
  void (*done)(void *ud, const struct mr_ext_http_reply *r); /* exactly once, last */
  /* Once, before any chunk; may be NULL. Headers as in the reply, which has them again. */
  void (*head)(void *ud, int status, struct mr_str headers);
};

/* One request to the durable key-value store. op: "get", "put", "delete", "list". Keys: 1 to 512 bytes of UTF-8,
 * ordered by bytes. Values: JSON, at most 1 MiB as text. */
struct mr_ext_kv {
  uint32_t size;
  const char *op;
  struct mr_str space; /* keys of different spaces do not meet: "kv", "once", ...; at most 64 bytes */
  struct mr_str key;   /* list: the prefix */
  struct mr_str after; /* list: keys past this one */
  int limit;           /* list: 0 = 100, at most 1,000 */
  int64_t ttl_us;      /* put: 0 = for ever */
  int64_t expect;      /* put, delete: -1 = whatever is there, 0 = must not exist, else its rev */
};

/* A connection to an SQLite file of the host's own, and one thing to do in it. */
struct mr_ext_db;
enum {
  MR_DB_TRANSACTION = 1, /* part of one: MR_E_STATE when none is open (any more) */
  MR_DB_CONTROL =
      2 /* BEGIN, COMMIT and ROLLBACK are allowed; else each statement is a transaction of its own */
};
struct mr_ext_db_run {
  uint32_t size;
  struct mr_str sql;  /* may hold several statements when there are no params */
  int max_rows;       /* 0 = 10,000; over it MR_E_TOO_LARGE */
  int64_t max_bytes;  /* of the rows; 0 = 16 MiB; over it MR_E_TOO_LARGE */
  int64_t timeout_ms; /* of waiting for locks and running; 0 = 60,000; past it MR_E_TIMEOUT */
  unsigned flags;     /* MR_DB_* */
};

struct mr_ext {
  uint32_t size;

  /* --- JSON, reading. A NULL value reads as MR_K_NONE. */
  enum mr_kind (*kind)(const struct mr_val *v);
  int (*as_bool)(const struct mr_val *v);
  int64_t (*as_int)(const struct mr_val *v);   /* MR_K_INT */
  uint64_t (*as_uint)(const struct mr_val *v); /* MR_K_UINT: above INT64_MAX */
  double (*as_real)(const struct mr_val *v);   /* any number */
  struct mr_str (*as_str)(const struct mr_val *v);
  size_t (*len)(const struct mr_val *v); /* of arrays and objects */
  const struct mr_val *(*get)(const struct mr_val *obj, struct mr_str key);
  int (*next)(struct mr_iter *it);
  /* Parses JSON text (UTF-8, at most 512 deep). The document is the caller's (doc_free). */
  int (*parse)(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err);
  const struct mr_val *(*doc_root)(const struct mr_doc *d);
  void (*doc_free)(struct mr_doc *d);
  /* Writes a value as text; flags MR_JSON_*. The text is freed with mr_free. */
  int (*write)(struct mr_runtime *rt, const struct mr_val *v, unsigned flags, char **out, size_t *n);

  /* --- JSON, building: a writer with a stack. Values go into the open array or object; in an
   * object, key() names the next value. Object keys are kept in the order given (bindings sort).
   * Errors are sticky and reported by build_done. */
  struct mr_build *(*build)(struct mr_runtime *rt);
  void (*b_null)(struct mr_build *b);
  void (*b_bool)(struct mr_build *b, int v);
  void (*b_int)(struct mr_build *b, int64_t v);
  void (*b_real)(struct mr_build *b, double v);       /* NaN and infinities fail the build */
  void (*b_str)(struct mr_build *b, struct mr_str v); /* must be UTF-8, else the build fails */
  void (*b_key)(struct mr_build *b, struct mr_str k);
  void (*b_open)(struct mr_build *b, int is_array);
  void (*b_close)(struct mr_build *b);
  void (*b_val)(struct mr_build *b, const struct mr_val *v);                       /* deep copy */
  int (*build_done)(struct mr_build **b, struct mr_doc **out, struct mr_err *err); /* clears b */
  void (*build_drop)(struct mr_build **b);

  /* --- calls and answers with built documents instead of text; each consumes *doc always. */
  int (*call)(struct mr_runtime *rt, const struct mr_req *req, struct mr_doc **doc,
              const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err);
  int (*use_finish)(struct mr_use **u, struct mr_doc **doc);
  int (*hook_decide)(struct mr_hook_call **c, struct mr_doc **doc);
  int (*model_finish)(struct mr_model_use **u, struct mr_doc **doc);
  /* Names of all operations: index from 0, NULL past the end. verb: "POST"; path with {names};
   * flags MR_OPF_*. */
  const char *(*op_at)(int index, const char **verb, const char **path, unsigned *flags);

  /* --- time */
  int64_t (*now_us)(struct mr_runtime *rt); /* monotonic, the runtime's clock */
  int64_t (*wall_us)(struct mr_runtime *rt);
  /* fn once after us microseconds; *id for timer_cancel. A cancelled timer never calls. */
  int (*timer)(struct mr_runtime *rt, int64_t us, void (*fn)(void *ud), void *ud, uint64_t *id);
  int (*timer_cancel)(struct mr_runtime *rt, uint64_t id); /* 1 if it will not fire any more */
  /* fn as soon as possible, from a later entry of the queue; the way to wake a dispatcher from any
   * thread. */
  int (*post)(struct mr_runtime *rt, void (*fn)(void *ud), void *ud);

  /* --- outgoing HTTP (http and https). *id for http_cancel; done still comes. */
  int (*http)(struct mr_runtime *rt, const struct mr_ext_http_req *req, const struct mr_ext_http_cbs *cbs,
              void *ud, uint64_t *id, struct mr_err *err);
  void (*http_cancel)(struct mr_runtime *rt, uint64_t id);

  /* --- files, off the loop thread. op: "read", "write" (atomic), "append", "list", "stat",
   * "mkdir" (parents too), "remove" (a file or an empty directory), "rename". arg: bytes for
   * write and append, the new name for rename. reply.val: read -> string when UTF-8 (else
   * {"base64":..}), list -> array of {name, type, size, mtime}, stat -> one of these. */
  int (*file)(struct mr_runtime *rt, const char *op, const char *path, struct mr_str arg,
              void (*done)(void *ud, const struct mr_reply *r, struct mr_str raw), void *ud,
              struct mr_err *err);
  /* Watches files and directories for changes (inotify); fn after 20 ms of quiet, with one changed
   * path. */
  int (*watch)(struct mr_runtime *rt, const char *path, void (*fn)(void *ud, struct mr_str path), void *ud,
               uint64_t *id, struct mr_err *err);
  void (*watch_cancel)(struct mr_runtime *rt, uint64_t id);

  /* --- log, in the runtime's log; and the generation of scripts that /health reports. */
  void (*log)(struct mr_runtime *rt, int level, const char *source, struct mr_str line);
  void (*set_generation)(struct mr_runtime *rt, int64_t generation, struct mr_str last_error);
  /* The scripts' control channel: `moonrig reload` and its HTTP route end in fn, which must call
   * control_done once with a JSON object as text, e.g. {"generation":3} or {"error":"..."}. */
  int (*on_control)(struct mr_runtime *rt,
                    void (*fn)(void *ud, const char *command, const struct mr_val *arg, uint64_t id), void *ud);
  void (*control_done)(struct mr_runtime *rt, uint64_t id, int code, struct mr_str json);

  /* --- durable values. *value (put; may be NULL otherwise) is consumed always. reply.val: get ->
   * {"value","rev","expires_at"?} or MR_E_NOTFOUND; put -> {"rev"}; list -> {"data":[{"key","value","rev"}],"more"}.
   * MR_E_CONFLICT when the expectation does not hold. done after it is on disk. */
  int (*kv)(struct mr_runtime *rt, const struct mr_ext_kv *q, struct mr_doc **value,
            void (*done)(void *ud, const struct mr_reply *r), void *ud, struct mr_err *err);

  /* --- a descriptor of the host's own: fn once it is readable (or at its end, or closed by the other side; at once
   * for what cannot be waited for, such as a plain file). */
  int (*readable)(struct mr_runtime *rt, int fd, void (*fn)(void *ud), void *ud, uint64_t *id,
                  struct mr_err *err);
  int (*readable_cancel)(struct mr_runtime *rt, uint64_t id); /* 1 if fn will not be called any more */

  /* --- crypto, by OpenSSL. digest: "sha256", "sha1", "sha512", "md5", "blake2b512"; out has 64 bytes, *n is set; key
   * (may be NULL) makes it an HMAC. MR_E_INVALID for an unknown digest. */
  int (*digest)(const char *digest, const struct mr_str *key, struct mr_str data, unsigned char *out,
                size_t *n);
  int (*random)(struct mr_runtime *rt, void *buf, size_t n);

  /* --- SQLite files of scripts, each connection off the calling thread, its runs in the order in which they were
   * asked for. ATTACH of files, extensions, what lies in the data directory, and pragmas that set limits of the whole
   * process are refused. ":memory:" holds 256 MiB. *params (array, or object for :names; may be NULL) is consumed
   * always; {"base64":..} is a blob. reply.val: {"columns":[..],"rows":[[..]..],"changes","last_id"}, of the last
   * statement that has columns; a blob, or text that is not UTF-8, is {"base64":..}. done comes once, after db_cancel
   * with MR_E_CANCELLED if it was still on its way. */
  int (*db_open)(struct mr_runtime *rt, const char *path, int readonly,
                 void (*done)(void *ud, int code, struct mr_ext_db *db, const struct mr_err *err), void *ud,
                 struct mr_err *err);
  int (*db_run)(struct mr_ext_db *db, const struct mr_ext_db_run *q, struct mr_doc **params,
                void (*done)(void *ud, const struct mr_reply *r), void *ud, uint64_t *id, struct mr_err *err);
  void (*db_cancel)(struct mr_runtime *rt, uint64_t id);
  void (*db_close)(struct mr_ext_db **db); /* after what was asked for; runs that wait still answer */

  /* --- holds a streamed response back (1) and lets it go on (0): chunks under way still come, about 2 MiB at most;
   * the rest stays with the sender. No effect on a request that is over. */
  void (*http_pause)(struct mr_runtime *rt, uint64_t id, int pause);
  /* What anthropic-beta must hold for the operation op_at names by this index; NULL = nothing. */
  const char *(*op_beta)(int index);

  /* --- what /health shows as "scripts": a JSON object as text, at most 16 KiB (a longer one changes nothing). */
  void (*set_scripts)(struct mr_runtime *rt, struct mr_str json);

  /* --- frees what mr_use_input_val gave, which is NULL from then on; on the dispatching thread. */
  void (*use_input_drop)(struct mr_use *u);
};

enum { MR_JSON_SORTED = 1, MR_JSON_PRETTY = 2 };
enum { MR_OPF_STREAM = 1, MR_OPF_BODY_IN = 2, MR_OPF_BODY_OUT = 4, MR_OPF_LIST = 8, MR_OPF_TODO = 16 };

MR_API const struct mr_ext *mr_ext(void);

#ifdef __cplusplus
}
#endif
#endif
