/*
 * layer_t.h - layers: the packages of environments, installed once and shown read-only to every sandbox of an
 * environment with that list.
 *
 *   layer.c        which layers this runtime needs, who waits for them (loop thread)
 *   layer_build.c  building one, in sandboxes of its own (loop thread)
 *   layer_disk.c   <root>/layers: looking, locking, taking over what was built, sweeping (pool)
 *
 * A layer is <root>/layers/<hash>: a tree for what apt brought ("apt"), one for the rest ("more"), and
 * manifest.json. It appears whole, by a rename, and is never changed afterwards. <hash>.lock is locked (flock) by
 * whoever builds it, <hash>.tmp is what there is of it so far. The hash covers the lists, what of the machine they
 * were installed for, and the script that installs.
 */
#ifndef MR_SANDBOX_LAYER_T_H
#define MR_SANDBOX_LAYER_T_H

#include "sandbox/local/local_t.h"

enum { MR_LAYER_APT = 1, MR_LAYER_MORE = 2 }; /* its trees; a set of them */

enum mr_layer_state {
  MR_LAYER_UNKNOWN,
  MR_LAYER_LOOKING, /* pool: is it there, may we build it */
  MR_LAYER_WAITING, /* somebody else builds it: looked for again and again */
  MR_LAYER_BUILDING,
  MR_LAYER_READY
};

struct mr_prepare { /* somebody who waits without a sandbox */
  struct mr_prepare *next;
  mr_sandbox_fn fn;
  void *ud;
};

struct mr_layer {
  struct mr_local *l;
  struct mr_layer *next, **link;
  int refs; /* sandboxes in memory that need it: it is not swept meanwhile */
  struct mr_arena *arena;
  struct mr_sandbox_packages packages;
  const char *key; /* the lists as JSON */
  enum mr_layer_state state;
  char hash[MR_LAYER_HASH];
  int trees; /* once it is ready */
  struct mr_layer_job *job;
  struct mr_prepare *prepares;
  struct mr_timer timer;
  /* while it is being built */
  int lock;            /* -1 or locked */
  struct mr_box *box;  /* the sandbox in which it is */
  int tree;            /* MR_LAYER_APT or MR_LAYER_MORE */
  int step, package;   /* what runs */
  unsigned calls;      /* for ids */
  int64_t deadline_us; /* of the whole */
  char doing[200];     /* "npm 2/6: express@4"; "" when nothing is */
};

/* The entry for these lists, one reference more. NULL: no memory. */
struct mr_layer *mr_layer_get(struct mr_local *l, const struct mr_sandbox_packages *p);
void mr_layer_free(struct mr_layer *y); /* when nobody needs it and nothing is under way */
void mr_layers_free(struct mr_local *l);
/* The end of looking and building: everybody who waited is told. text NULL: it is there. */
void mr_layer_over(struct mr_layer *y, const char *text);
void mr_layer_build(struct mr_layer *y);              /* state BUILDING, lock held */
void mr_layer_quote(struct mr_buf *b, const char *s); /* in single quotes, as sh takes it */
void mr_layer_sweep(struct mr_local *l);              /* starts a job that removes the least recently used */
const char *mr_manager_name(int manager);             /* "apt", ... */

/* ---- pool ---- */

enum mr_layer_task { MR_LAYER_LOOK, MR_LAYER_TAKE, MR_LAYER_DROP, MR_LAYER_SWEEP };
struct mr_layer_job {
  struct mr_job job;
  struct mr_local_conf *conf;
  struct mr_layer *layer; /* loop thread only; NULL once the driver is gone, and for a sweep */
  enum mr_layer_task task;
  char hash[MR_LAYER_HASH];
  char *text;                 /* the lists (LOOK, TAKE); hashes with a space between (SWEEP) */
  bool used[MR_PKG_MANAGERS]; /* LOOK: which managers */
  int tree;                   /* TAKE */
  bool publish;               /* TAKE: it is the last tree */
  int lock;                   /* LOOK: taken, or -1 with trees 0: somebody else builds it */
  int trees;                  /* LOOK and TAKE: it is there */
  int code;
  struct mr_err err;
};
struct mr_layer_job *mr_layer_job_new(struct mr_local *l, enum mr_layer_task task, const char *text,
                                      void (*done)(struct mr_job *j)); /* NULL: no memory */
void mr_layer_job_free(struct mr_layer_job *k);
int mr_layer_submit(struct mr_layer *y, struct mr_layer_job *k); /* takes k (NULL: MR_E_NOMEM) */
void mr_layer_work(struct mr_job *j, void *worker);
/* Name of the sandbox that builds a tree. */
void mr_layer_session(const char *hash, int tree, char out[MR_SESSION_MAX]);
/* A build that nobody is at any more, by its sandbox's name; true when it was one. */
bool mr_layer_leftover(const struct mr_local_conf *c, const char *session);

#endif
