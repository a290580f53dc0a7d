/*
 * host_t - the runtime's body and what the files of this room share. Only host/ knows all rooms: it puts
 * them together (runtime.c), takes them apart in order (close.c), and carries calls and answers between the
 * host's threads and the loop thread.
 *
 * Threads. "loop" = the runtime's loop thread; "host" = whichever thread calls; "dispatcher" = the thread
 * inside mr_dispatch. What crosses goes through mr_rt_post (to the loop) and mr_queue_push (to the host);
 * members say whose they are.
 *
 * Lifetimes. The runtime's struct is counted: by the host until mr_close, and by each handle that the host
 * may hold beyond it (operations, uses, hook calls, model uses, documents). After mr_close only memory,
 * clocks and counters of it are used.
 */
#ifndef MR_HOST_HOST_T_H
#define MR_HOST_HOST_T_H

#include <unistd.h>
#include "agent/domain.h"
#include "api/api.h"
#include "host/options.h"
#include "host/queue.h"
#include "loop/child.h"
#include "moonrig_ext.h"

struct mr_tools;     /* tools.c */
struct mr_hookset;   /* hooks.c */
struct mr_players;   /* provider.c */
struct mr_onlookers; /* on.c */
struct mr_ext_set;   /* ext.c: timers, requests, watches */
struct mr_control;   /* control.c */

struct mr_runtime {
  atomic_int refs;
  pid_t pid; /* of the process that opened it */
  struct mr_sys sys;
  enum mr_loop_mode mode;
  yyjson_doc *options;
  struct mr_queue queue;
  atomic_bool started; /* the domain was woken, or is about to be */
  atomic_bool closing; /* mr_close is settling: nothing new is taken */

  /* made in mr_open, used on the loop, freed by mr_close */
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool, *hands; /* hands: the sandbox driver's own */
  struct mr_store *store;
  struct mr_http_client *http;
  struct mr_guard *guard; /* allow_private_hosts */
  struct mr_models *models;
  struct mr_sandbox_driver *sandbox;
  struct mr_domain *domain;
  struct mr_api *api;
  pthread_t thread; /* of MR_LOOP_THREAD */
  bool threaded;    /* it is running */

  pthread_mutex_t loop_lock; /* guards these, and the loop against being freed under a post */
  pthread_t loop_owner;      /* the thread that runs the loop */
  bool loop_gone;
  pthread_mutex_t lock; /* guards the members down to stop_over, and registries */
  pthread_cond_t cond;  /* a sync call is over; the loop thread may begin */
  struct mr_post start_post, stop_post, close_post;
  bool stop_posted, stop_asked;
  int64_t stop_at_us;    /* when grace is over */
  atomic_bool stop_over; /* nothing runs any more, or grace is over */
  atomic_bool quiet;     /* closing: what could be ended has ended */

  /* loop */
  struct mr_op *ops; /* started; without a reply yet, or with an operation that runs on */
  int nops;
  bool stopping, drained;
  struct mr_timer stop_timer, quiet_timer;
  int64_t quiet_until_us;
  struct mr_entry bell; /* wakes a waiting host when the stop is over */

  struct mr_tools *tools;
  struct mr_hookset *hooks;
  struct mr_players *players;
  struct mr_onlookers *onlookers;
  struct mr_ext_set *ext;
  struct mr_control *control;
};

/* ---- runtime.c ---- */
/* MR_OK; MR_E_INVALID for NULL, MR_E_FORKED in another process. Any thread. */
int mr_rt_check(const struct mr_runtime *rt, struct mr_err *err);
void mr_rt_ref(struct mr_runtime *rt);
void mr_rt_unref(struct mr_runtime *rt);
/* Wakes the domain's sessions, the first time. Host. */
void mr_rt_start(struct mr_runtime *rt);
/* Posts to the loop; MR_E_CLOSED: fn will not run. Any thread. */
int mr_rt_post(struct mr_runtime *rt, struct mr_post *p);
bool mr_rt_on_loop(struct mr_runtime *rt);
void mr_rt_own_loop(struct mr_runtime *rt); /* the calling thread runs the loop from now on */
/* Runs fn on the loop and waits for it; inside the loop, at once. MR_E_CLOSED, or what fn returned. */
int mr_rt_sync(struct mr_runtime *rt, int (*fn)(struct mr_runtime *rt, void *arg, struct mr_err *err),
               void *arg, struct mr_err *err);
static inline const struct mr_mem *mr_rt_mem(const struct mr_runtime *rt)
{
  return &rt->sys.mem;
}
int mr_rt_open_parts(struct mr_runtime *rt, const struct mr_config *c, struct mr_err *err); /* parts.c */
int mr_rt_egress(struct mr_runtime *rt, struct mr_egress_options *o, struct mr_arena *a,
                 struct mr_err *err);          /* egress.c */
void mr_rt_close_parts(struct mr_runtime *rt); /* parts.c: on the closing thread, loop not running */
void mr_rt_free_lists(struct mr_runtime *rt);  /* parts.c: tools, hooks, timers, ...: after the last callback */

/* ---- close.c, modes.c ---- */
void mr_rt_close_init(struct mr_runtime *rt);
/* A turn of the loop on the calling thread, for modes without a loop thread; then at most wait_ms idle. */
void mr_rt_turn(struct mr_runtime *rt, int wait_ms);
/* Waits for the queue, turning the loop where nobody else does. */
int mr_rt_wait(struct mr_runtime *rt, int timeout_ms);

/* ---- call.c, call_new.c ---- */
struct mr_op {
  struct mr_runtime *rt;      /* counted */
  atomic_int refs;            /* the handle; the reply to come; posts and entries under way */
  const struct mr_opdef *def; /* NULL: mr_ask */
  struct mr_callbacks cbs;
  void *ud;
  struct mr_arena *arena; /* strings; the host's until start, then the loop's */
  yyjson_doc *in;         /* until start */
  struct mr_caller who;   /* strings in arena */
  int64_t deadline_ms;
  atomic_bool cancelled; /* by the host; no event or body callback after it */
  struct mr_post start, cancel;
  struct mr_entry reply;

  /* loop */
  struct mr_op *next, **link; /* rt->ops */
  struct mr_call *c;          /* runs; NULL before and after; may outlast the reply */
  struct mr_ready kick;       /* a cancel that had to wait for a stream to open */
  struct mr_timer deadline;
  bool timed, replied;
  int why;          /* MR_E_CANCELLED, _TIMEOUT, _CLOSED or _FULL: ended from this side */
  int64_t last_pos; /* newest event given to the queue */
  bool paused;      /* a download waits for the host */

  /* what the reply will say; the loop's, then the reply entry's */
  int code;
  struct mr_err err;
  char *json;
  size_t json_n;

  atomic_int backlog;       /* events or chunks in the queue */
  atomic_size_t backlog_n;  /* their bytes */
  struct mr_upload *upload; /* body.c */
  struct mr_ask *ask;       /* ask.c */
  struct mr_post drained;   /* a download's host has caught up */
  atomic_bool drained_posted;
};

enum { MR_HOST_JSON_MAX = 32 << 20, MR_BACKLOG_MAX = 2048, MR_BACKLOG_BYTES = 16 << 20 };

void mr_op_init(struct mr_op *op); /* the functions of its posts, entries and timers */
/* A call, not started: input is taken over in every case (may be NULL). */
int mr_op_make(struct mr_runtime *rt, const struct mr_req *req, yyjson_doc *input,
               const struct mr_callbacks *cbs, void *ud, struct mr_op **out, struct mr_err *err);
int mr_op_make_ask(struct mr_runtime *rt, const struct mr_callbacks *cbs, void *ud, struct mr_op **out,
                   struct mr_err *err);
/* Starts it, gives the handle (or drops it when out is NULL). */
int mr_op_submit(struct mr_op *op, struct mr_op **out, struct mr_err *err);
int mr_call_doc(struct mr_runtime *rt, const struct mr_req *req, yyjson_doc *input,
                const struct mr_callbacks *cbs, void *ud, struct mr_op **op, struct mr_err *err);
void mr_op_ref(struct mr_op *op);
void mr_op_unref(struct mr_op *op);
/* Loop: the reply goes out; err may be NULL, json's memory is taken over. Only the first one counts. */
void mr_op_settle(struct mr_op *op, int code, const struct mr_err *err, char *json, size_t n);
/* Loop: a call of the domain for this op, its origin filled in. */
int mr_op_call(struct mr_op *op, struct mr_call **out, struct mr_err *err);
void mr_op_explain(struct mr_op *op, struct mr_err *err); /* op->why in words; keeps the request id */
void mr_op_unlink(struct mr_op *op);                      /* loop: when replied and nothing runs, off rt->ops */
void mr_op_end(struct mr_op *op, int why);                /* loop: cancel, deadline, close */
/* Loop: one event for the host; MR_E_CLOSED when it must be cut (op->why is set). */
int mr_op_event(struct mr_op *op, int64_t pos, struct mr_str json);
void mr_ops_close(struct mr_runtime *rt);   /* loop: ends what can be ended, MR_E_CLOSED */
void mr_ops_abandon(struct mr_runtime *rt); /* the domain is gone: whoever has no reply gets MR_E_CLOSED */

/* ---- body.c ---- */
int mr_upload_new(struct mr_op *op, const struct mr_body *b, struct mr_err *err); /* host */
void mr_upload_free(struct mr_op *op);
void mr_upload_next(struct mr_op *op);                         /* loop: asks the host for the next piece */
int mr_download_bytes(struct mr_call *c, struct mr_str bytes); /* mr_call.out_bytes */

/* ---- ask.c ---- */
void mr_ask_start(struct mr_op *op, struct mr_call *c); /* loop; c will be the stream */
void mr_ask_end(struct mr_op *op);                      /* loop: op->why says why */
void mr_ask_free(struct mr_op *op);

/* ---- given.c: what the core gives to the host to answer: tool uses, hook calls, model requests, events ---- */
enum { MR_GIVEN_TAKEN = 1, MR_GIVEN_ANSWERED = 2, MR_GIVEN_UNWANTED = 4 };
struct mr_given {
  struct mr_runtime *rt;          /* counted */
  atomic_int refs;                /* the host's, the queue's, the loop's */
  atomic_int state;               /* MR_GIVEN_* */
  struct mr_entry give, unwanted; /* run: handler, cancel */
  struct mr_post answer;          /* on its way to the loop */
  void (*free)(struct mr_given *g);
};
/* One reference, the loop's. give, cancel and answer are the functions of its entries and its post. */
void mr_given_init(struct mr_given *g, struct mr_runtime *rt, void (*give)(struct mr_entry *e),
                   void (*cancel)(struct mr_entry *e), void (*answer)(struct mr_post *p),
                   void (*free)(struct mr_given *g));
void mr_given_ref(struct mr_given *g);
void mr_given_unref(struct mr_given *g);
void mr_given_push(struct mr_given *g); /* loop: into the queue */
/* Dispatcher, in give: true if the handler is to be called now; it owns a reference from then on. */
bool mr_given_take(struct mr_given *g);
/* Loop: settled without the host; its cancel comes if the handler was called. True: no answer will come
 * any more, the handler was never called. */
bool mr_given_drop(struct mr_given *g);
/* Any thread: the answer stands ready in g; sends it to the loop and gives up the host's reference. */
void mr_given_answer(struct mr_given *g);
/* Dispatcher, in give: the handler is not called (removed, closing); as if it had answered. */
void mr_given_refuse(struct mr_given *g);

/* ---- tools.c, hooks.c, provider.c ---- */
int mr_tools_new(struct mr_runtime *rt);
void mr_tools_free(struct mr_runtime *rt);
struct mr_tool_runner mr_tools_runner(struct mr_runtime *rt);
int mr_hooks_new(struct mr_runtime *rt);
void mr_hooks_close(struct mr_runtime *rt); /* loop: every question is answered with its default */
void mr_hooks_free(struct mr_runtime *rt);
struct mr_hooks mr_hooks_asker(struct mr_runtime *rt);
int mr_players_new(struct mr_runtime *rt);
void mr_players_free(struct mr_runtime *rt);
/* The answers with parsed documents; text is their front. They release the handle, whatever they return. */
int mr_use_finish_val(struct mr_use **u, yyjson_val *result);
void mr_use_input_drop(struct mr_use *u);
int mr_hook_decide_val(struct mr_hook_call **c, yyjson_val *decision);
int mr_model_finish_val(struct mr_model_use **u, yyjson_val *reply);

/* ---- on.c ---- */
int mr_onlookers_new(struct mr_runtime *rt);
void mr_onlookers_free(struct mr_runtime *rt);
struct mr_watch_host mr_onlookers_host(struct mr_runtime *rt);

/* ---- ext*.c, control.c ---- */
int mr_control_api(struct mr_runtime *rt, struct mr_err *err); /* makes rt->api */
void mr_control_close(struct mr_runtime *rt);                  /* loop: commands that wait get MR_E_CLOSED */
void mr_control_free(struct mr_runtime *rt);
int mr_ext_set_new(struct mr_runtime *rt);
void mr_ext_set_close(struct mr_runtime *rt); /* loop: requests end, timers and watches go */
void mr_ext_set_free(struct mr_runtime *rt);

#endif
