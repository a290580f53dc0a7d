/*
 * fake_host_t - what the files of the fake host share: one queue, one clock, what is open.
 */
#ifndef FAKE_HOST_T_H
#define FAKE_HOST_T_H
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>
#include "fake_host.h"
#include "moonrig_ext.h"

struct fake_timer { struct fake_timer *next; uint64_t id; int64_t at; void (*fn)(void *); void *ud; };
struct fake_watch { struct fake_watch *next; uint64_t id; char path[500]; void (*fn)(void *, struct mr_str); void *ud; };

/* An operation or HTTP request under way. */
struct fake_call {
  struct fake_call *next;
  uint64_t id;
  char op[80];
  struct mr_doc *params;
  struct mr_callbacks cbs;
  struct mr_ext_http_cbs http;
  void *ud;
  struct mr_op *handle;
  int is_http, settled, cancelled;
  int reply_chunks, http_told, http_paused; /* http with a chunk callback */
  char *json;
  struct mr_err err;
  char *body;
  size_t bodyn;
};
struct mr_op { struct fake_call *c; };

/* A tool use, hook call or model request; and what was registered for them. */
struct mr_use {
  struct mr_use *next;
  uint64_t id;
  int settled, attempt;
  char name[80], sid[40];
  struct mr_doc *input;
  char *result, *error, *text;
  const struct fake_reg *reg;
};
struct fake_reg {
  struct fake_reg *next;
  int kind, id;              /* 't', 'h', 'm', 'o' */
  char name[80], agent[80], schema[2000], filter[200];
  unsigned flags;
  int timeout, concurrency;
  void (*run)(void *, struct mr_use *);
  void (*cancel)(void *, struct mr_use *);
  void *ud;
};

struct fake {
  lua_State *L;
  host_stats_fn stats;
  host_lint_fn lint;
  int64_t now_us, wall0;
  uint64_t next_id;
  struct fake_timer *timers;
  struct fake_watch *watches;
  struct fake_call *calls;
  struct mr_use *uses;
  struct fake_reg *regs;
  int docs, builds, texts, ops, uses_open, controls;
  int full;                  /* calls answer MR_E_FULL */
  int refuse_tool;           /* the tool named "refused" is refused */
  atomic_int second;         /* open runtimes of rig.new */
  int no_memory_timer;       /* timers cannot be made */
  int kv_fail;               /* so many requests for values fail */
  char logs[1 << 16];
  int64_t generation;
  char generation_error[1000], scripts[16385];
  void (*control_fn)(void *, const char *, const struct mr_val *, uint64_t);
  void *control_ud;
  char control_answer[20000];
};
extern struct fake fake;

void fake_push(void (*fn)(void *a, void *b), void *a, void *b); /* into the queue */
int fake_queued(void);
int fake_fail(struct mr_err *err, int code, const char *msg);

int fake_parse(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err);
const struct mr_val *fake_root(const struct mr_doc *d);
void fake_doc_free(struct mr_doc *d);
char *fake_text(const struct mr_doc *d); /* malloc */
yyjson_val *fake_yy(const struct mr_doc *d);
void fake_doc_set(struct mr_doc *d, yyjson_doc *to); /* takes to, frees what was there */
void fake_json_table(struct mr_ext *t);

struct fake_call *fake_call_new(const char *op, struct mr_doc *params, void *ud);
struct fake_call *fake_call_by_id(uint64_t id);
void fake_call_ask(void *call, void *unused); /* asks the test's handler; for the queue */
void fake_call_settle(struct fake_call *c, const char *json, int code, const char *msg, int status, const char *type);
void fake_http_chunks(struct fake_call *c, yyjson_val *root);
void fake_ops_table(struct mr_ext *t);
void fake_uses_table(struct mr_ext *t);
void fake_ext_table(struct mr_ext *t);
void fake_web_open(lua_State *L);
int fake_web_left(void);
void fake_state_table(struct mr_ext *t);
void fake_state_free(void);
void fake_state_put(const char *space, const char *key, const char *json); /* NULL: removes */
const char *fake_state_get(const char *space, const char *key);
void fake_drop_reg(int kind, const char *name);
struct fake_reg *fake_new_reg(int kind, const char *name);
int fake_use_end(struct mr_use **u, const char *result, const char *error);
#endif
