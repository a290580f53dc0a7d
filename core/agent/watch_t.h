/*
 * watch_t.h - what the files of watchers share: a watcher and its list of events. What it does as a whole is
 * said in watch.c; watch_list.c keeps the list and hands out, watch_read.c knows positions and reads the log.
 * Loop thread only.
 */
#ifndef MR_AGENT_WATCH_T_H
#define MR_AGENT_WATCH_T_H

#include "agent/session_t.h"

enum {
  MR_WATCH_OUT_MAX = 64,        /* events with the host */
  MR_WATCH_LIVE_MAX = 256,      /* events in the list that are not done */
  MR_WATCH_LIST_MAX = 4096,     /* with those that are */
  MR_WATCH_BYTES_MAX = 4 << 20, /* their text */
  MR_WATCH_PAGE = 128,          /* rows of one read */
  MR_WATCH_SAVE_US = 200000,
  MR_WATCH_AGAIN_US = 1000000
};

enum mr_watch_state { MR_WATCH_WAITING, MR_WATCH_OUT, MR_WATCH_DONE };

struct mr_watch_entry {
  struct mr_watch_entry *next, *prev;
  struct mr_watch *w;
  enum mr_watch_state state;
  struct mr_shown shown; /* strings in text */
  size_t bytes;
  char *text; /* NULL once done */
};

struct mr_watch {
  struct mr_watch *next;
  struct mr_domain *d;
  char *name, *agent; /* agent: name or id, NULL = all */
  struct mr_str *types;
  int ntypes;  /* 0 = all */
  int filters; /* counts how often the filter changed */
  bool durable;
  bool loaded;  /* its position is known */
  bool behind;  /* what is published now is not taken; it comes from the log */
  bool asking;  /* the store reads for it */
  bool saving;  /* the store writes its position */
  bool removed; /* freed when neither goes on */
  int64_t began, read, saved;
  struct mr_watch_entry *first, *last;
  struct mr_watch_entry *out[MR_WATCH_OUT_MAX];
  int nlive, nout, nlist;
  size_t bytes;
  struct mr_ready step;
  struct mr_timer timer; /* to save, or to try again what failed */
};

struct mr_watches {
  struct mr_domain *d;
  struct mr_watch *list;
  int n;
  int64_t pos; /* the newest that was published */
};

/* watch_list.c */
/* Into the list. False: no room, or no memory; nothing changed. One that is in it already is not taken twice. */
bool mr_watch_take(struct mr_watch *w, const struct mr_all_row *r);
bool mr_watch_wants(const struct mr_watch *w, struct mr_str type, struct mr_str agent_id,
                    struct mr_str agent_name);
void mr_watch_entry_free(struct mr_watch_entry *e);
void mr_watch_entry_done(struct mr_watch_entry *e); /* its text goes, its place stays */
void mr_watch_trim(struct mr_watch *w);             /* what is done at the front, and read past */
void mr_watch_hand_out(struct mr_watch *w);
void mr_watch_drop(struct mr_watch *w); /* what is out is not waited for any more */

/* watch_read.c */
void mr_watch_step(struct mr_ready *r);
void mr_watch_timer(struct mr_timer *t);
/* Where it began, unless it has a position. Commits are made in order: nothing that is committed from here on
 * is durable without it, so a kill right after the first registration leaves nothing out. */
void mr_watch_save_first(struct mr_watch *w);
void mr_watch_save(struct mr_watch *w);      /* now, if it is durable and has moved */
void mr_watch_save_soon(struct mr_watch *w); /* likewise, a little later */
void mr_watch_free(struct mr_watch *w);
void mr_watch_release(struct mr_watch *w); /* frees it if it was removed and the store has nothing of it */

#endif
