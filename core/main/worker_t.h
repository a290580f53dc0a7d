/*
 * worker_t - what the files of `moonrig worker` share: a program that takes items off the work queue of a self-hosted
 * environment and runs their sessions' tools in sandboxes of this machine (API: resources §8).
 *
 *   worker.c         options, parts, signals, the end
 *   worker_poll.c    the queue: poll, acknowledge, how many at a time
 *   worker_item.c    one item's life, from the claim to its stop
 *   worker_lease.c   its heartbeats
 *   worker_events.c  its session: the stream, and the history that decides
 *   worker_calls.c   its tool calls: hold, run, answer
 *   worker_boxes.c   the sandboxes, one per session, kept between items
 *   worker_http.c    one request
 *
 * Invariants. A call is started once: its id is the event's, and the sandbox starts an id once. Nothing is sent for an
 * item whose lease is lost. The environment's key and the items' tokens are in this process's memory and in requests
 * alone: no child gets them. One thread, the loop's; callbacks come from the drain, and items are freed from there alone.
 */
#ifndef MR_MAIN_WORKER_T_H
#define MR_MAIN_WORKER_T_H

#include "base/sse_parse.h"
#include "base/sys.h"
#include "loop/child.h"
#include "loop/fd.h"
#include "loop/loop.h"
#include "loop/pool.h"
#include "main/settings.h"
#include "net/http_client.h"
#include "sandbox/sandbox.h"

enum { WORKER_ID_MAX = 128, NETWORK_HOSTS_MAX = 64 };
#define WORKER_SECOND INT64_C(1000000)

struct item;
struct box;
struct ask;

struct worker {
  struct settings *set;
  struct mr_sys sys;
  const struct mr_mem *mem;
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_http_client *http;
  struct mr_guard *guard;
  struct mr_sandbox_driver *driver;
  yyjson_doc *options;
  int lock_fd;

  const char *url, *unix_path; /* without a slash at its end; the socket, or NULL */
  char environment[WORKER_ID_MAX];
  char key[512]; /* the environment's */
  char id[128];  /* ours, of polls */
  char root[4096];
  char hosts_text[2048];
  const char *hosts[NETWORK_HOSTS_MAX];
  struct mr_sandbox_network network; /* of all its sandboxes */

  struct ask *poll; /* worker_poll.c */
  struct mr_timer poll_timer;
  int64_t poll_at_us;
  int failures;
  bool told_waiting, told_failure;
  struct item *items;
  int nitems;

  struct box *boxes; /* worker_boxes.c */
  int nboxes;

  struct mr_fd_wait signals; /* worker.c */
  int signal_fd;
  struct mr_timer drain_timer, end_timer;
  struct mr_ready ended;
  bool draining, cut, ending;
  int status;
};

/* The worker ends, when what runs has ended: on a signal, or with the exit status of a failure. */
void mr_worker_drain(struct worker *w, int status);
/* Something ended: is there anything left to wait for? */
void mr_worker_check(struct worker *w);
void mr_worker_nomem(void) __attribute__((noreturn)); /* leases expire, and others take over */
void *mr_worker_zalloc(struct worker *w, size_t n);

/* ---- one request (worker_http.c) ---- */

struct question {
  const char *verb, *path;      /* path with its query; copied */
  const char *key;              /* bearer; copied */
  struct mr_str body;           /* JSON; p NULL: none; copied */
  int64_t timeout_us, stall_us; /* 0: none */
  const char *worker_id;        /* of polls */
  size_t max;                   /* of the answer; 0: 1 MiB */
  /* A stream: opened at a 2xx, then bytes as they come; nonzero ends it. NULL: the answer is collected. */
  void (*opened)(void *ud);
  int (*bytes)(void *ud, struct mr_str bytes);
};
struct answer {
  int status;       /* 0: none came, or it was no JSON */
  yyjson_val *json; /* of a collected answer, borrowed; NULL: none */
  const char *why;  /* of failures: for people */
  bool ok, fatal;   /* 2xx; a refusal that no retry helps: 4xx but 408, 409, 429 */
  bool too_large;
  int64_t retry_us; /* retry-after, bounded; 0: not said */
};
typedef void (*answer_fn)(void *ud, const struct answer *a);
/* Starts it. *slot must be NULL; it is NULL again when fn is called, once, from the drain. */
void mr_worker_ask(struct worker *w, struct ask **slot, const struct question *q, answer_fn fn, void *ud);
void mr_worker_drop(struct ask **slot); /* fn will not be called; NULL allowed */
void mr_worker_pause(struct ask *a, bool pause);
/* first, doubled with each failure before, up to cap, jittered; at least what the server asked for. */
int64_t mr_worker_backoff(struct worker *w, int failures, int64_t first_us, int64_t cap_us,
                          const struct answer *a);
int64_t mr_worker_random(struct worker *w, int64_t from, int64_t to);

/* ---- the queue (worker_poll.c) ---- */

void mr_worker_poll(struct worker *w);       /* polls when there is room for an item and nothing under way */
void mr_worker_poll_due(struct mr_timer *t); /* of poll_timer */
void mr_worker_poll_stop(struct worker *w);

/* ---- an item (worker_item.c) ---- */

enum item_end {
  END_NOT,
  END_IDLE,    /* the session's turn is over, and nothing came for a while */
  END_GONE,    /* the session was terminated or deleted */
  END_STOPPED, /* the queue wants it stopped */
  END_OVER,    /* the queue says that it is stopped: there is nothing to say */
  END_LOST,    /* the lease is another's, or may be: nothing is sent any more */
  END_FAILED,
  END_DRAINED
};

struct id_set {
  uint64_t *slots;
  size_t n, cap;
};

struct call;
struct item {
  struct worker *w;
  struct item *next, **link;
  char id[WORKER_ID_MAX], session[WORKER_ID_MAX];
  bool is_session, acked;
  char token[4096]; /* the bearer of its requests */
  enum item_end why;
  bool unfinished; /* when it ended: its session was in the middle of something */
  struct ask *ack, *stop;
  int stops; /* tried */
  struct mr_timer stop_timer;
  struct mr_ready step;

  /* worker_lease.c */
  struct ask *beat;
  struct mr_timer beat_timer, lease_timer;
  char last[WORKER_ID_MAX];
  int64_t ttl_us, interval_us, beat_us; /* beat_us: when the last one was sent */
  bool held;                            /* the first heartbeat was answered */
  void (*handed_back)(struct item *it);

  /* worker_events.c */
  struct ask *get, *stream, *list;
  struct mr_timer connect_timer, idle_timer;
  struct mr_sse_parser parser;
  int connects, list_limit;
  bool retrieved;  /* the session was read */
  bool live;       /* the stream is open, and the history was read after it was */
  int64_t live_us; /* since when */
  bool turn_over;  /* the last event that counts ends the turn */

  /* worker_calls.c */
  struct call *calls, **calls_tail;
  struct id_set seen, answered;
  struct box *box;
};

void mr_worker_item_new(struct worker *w, yyjson_val *work);
/* Begins its end; again: only a lease that is lost changes why. It is freed later, from the drain. */
void mr_worker_item_end(struct item *it, enum item_end why);
void mr_worker_item_step(struct item *it); /* posts: may it end, or go on ending? */
static inline bool mr_worker_ending(const struct item *it)
{
  return it->why != END_NOT;
}
/* Path below the item's environment or session. */
char *mr_worker_item_path(struct item *it, char *out, size_t n, const char *tail);
char *mr_worker_session_path(struct item *it, char *out, size_t n, const char *tail);

/* ---- its heartbeats (worker_lease.c) ---- */

void mr_worker_lease_begin(struct item *it); /* mr_worker_session_begin follows the first that is answered */
/* A last heartbeat, with the shortest lease: the item is another's soon. done is called in any case, from the drain. */
void mr_worker_lease_hand_back(struct item *it, void (*done)(struct item *it));
void mr_worker_lease_end(struct item *it);

/* ---- its session (worker_events.c) ---- */

void mr_worker_session_begin(struct item *it);
void mr_worker_session_end(struct item *it);
void mr_worker_session_again(struct item *it); /* another connection, and the history again */
void mr_worker_idle_check(struct item *it);

/* ---- its calls (worker_calls.c) ---- */

void mr_worker_call_seen(struct item *it, yyjson_val *event, bool live); /* agent.tool_use */
void mr_worker_call_answered(struct item *it, struct mr_str id);         /* by whomever */
void mr_worker_call_verdict(struct item *it, struct mr_str id, bool allow);
void mr_worker_calls_thread_over(struct item *it, struct mr_str thread);
void mr_worker_calls_forget_new(struct item *it); /* history is read again */
void mr_worker_calls_run(struct item *it);        /* starts what may start */
void mr_worker_calls_resend(struct item *it);     /* what could not be sent, after the history was read again */
bool mr_worker_calls_busy(const struct item *it); /* something runs, or is being sent */
bool mr_worker_calls_open(const struct item *it); /* or waits to */
void mr_worker_calls_cut(struct item *it);        /* what runs is ended, and its results say so */
void mr_worker_calls_end(struct item *it);        /* ends all; those in the sandbox come back in their time */
void mr_worker_calls_free(struct item *it);       /* after the box was given up */

/* ---- the sandboxes (worker_boxes.c) ---- */

void mr_worker_boxes_find(struct worker *w); /* what a worker before this one left */
/* The session's; NULL while the one before is being removed: mr_worker_calls_run comes then. *failed: there is none. */
struct box *mr_worker_box_take(struct item *it, bool *failed);
struct mr_sandbox *mr_worker_box_of(struct box *b);
void mr_worker_box_give(struct item *it, bool destroy); /* it->box; kept for a while, or removed */
void mr_worker_boxes_end(struct worker *w);             /* removes all */

#endif
