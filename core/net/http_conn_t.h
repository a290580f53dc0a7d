/* http_conn_t.h - bodies shared by the files of the HTTP server: server, listener, connection, exchange. */
#ifndef MR_NET_HTTP_CONN_T_H
#define MR_NET_HTTP_CONN_T_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <llhttp.h>
#include "net/http_server.h"
#include "net/http_io.h"

struct mr_http_conn;

struct mr_http_listener {
  struct mr_http_listener *next;
  struct mr_http_server *s;
  struct mr_ready ready;
  struct event ev;
  int fd;
  struct mr_http_tls *tls;       /* NULL: plain */
  char *unix_path;               /* removed at the end */
};

struct mr_http_server {
  struct mr_loop *l;
  const struct mr_mem *mem;
  const struct mr_sys *sys;
  struct mr_http_server_opts o;
  struct mr_http_listener *listeners;
  struct mr_http_conn *conns;
  struct mr_timer accept_again;  /* after EMFILE */
  struct mr_http_server_stats stats;
  struct mr_buf scratch;         /* one message is put together here before it goes out */
  char *in;                      /* what one read brings; IN_SIZE bytes */
  int active;
  bool stopping, accept_paused;
};

enum mr_conn_state {
  MR_CONN_IDLE,      /* between requests */
  MR_CONN_HEAD,      /* bytes of a request came, its headers are not whole */
  MR_CONN_EXCHANGE,  /* headers whole; x is there */
  MR_CONN_LINGER,    /* all was said; reads on for a moment so that the peer sees it */
  MR_CONN_DEAD       /* to be freed */
};

struct mr_http_conn {
  struct mr_http_server *s;
  struct mr_http_conn *next, **link;
  struct mr_http_io io;
  struct event rd, wr;
  struct mr_ready ready;
  struct mr_timer timer;
  int timer_kind;
  llhttp_t parser;
  enum mr_conn_state state;
  struct mr_http_x *x;
  struct mr_buf head;            /* request line and headers while they come */
  struct mr_buf in;              /* read, not yet parsed: pipelined, or behind a paused body */
  struct mr_buf out;             /* written, not yet taken by the kernel */
  bool readable, writable, eof, keep, running, message_done, body_paused, too_big, failed;
  bool progress;                 /* bytes moved since the timer was set */
};

struct mr_http_header { struct mr_str name, value; };

struct mr_http_x {
  struct mr_http_conn *c;        /* NULL: the connection died, closed() is to come */
  struct mr_arena *arena;
  struct mr_str method, path, query, peer;
  struct mr_http_header *headers;
  int nheaders;
  const struct mr_http_x_cbs *cbs;
  void *ud;
  int64_t length;                /* of the request body; -1 chunked */
  int64_t body_max, body_seen, left; /* left: of an answer with a known length */
  bool wants_body, over, last_given, expect, head_only;
  bool begun, chunked, until_close, ended, want_drain, old; /* old: HTTP/1.0 */
};

/* http_conn.c */
void mr_http_conn_new(struct mr_http_listener *l, int fd);
void mr_http_conn_kill(struct mr_http_conn *c);    /* closed() runs, everything is freed; not in callbacks */
void mr_http_conn_wake(struct mr_http_conn *c);    /* look at it in the drain */
void mr_http_conn_send(struct mr_http_conn *c, struct mr_str bytes); /* now, or kept; failed is set on errors */
/* http_parse.c */
/* Gives bytes to the parser; returns how many were used (the rest is kept by the caller), or MR_E_*: answer and
 * close. */
int64_t mr_http_parse(struct mr_http_conn *c, struct mr_str bytes);
void mr_http_parse_init(struct mr_http_conn *c);

#endif
