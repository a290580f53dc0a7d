/* http_conn_t.h - bodies shared by the files of the HTTP server: server, listener, connection, parser,
 * exchange. */
#ifndef MR_NET_HTTP_CONN_T_H
#define MR_NET_HTTP_CONN_T_H

#include <llhttp.h>
#include <netinet/in.h>
#include <sys/types.h>
#include <sys/uio.h>
#include "net/http_io.h"
#include "net/http_server.h"

struct event;
struct mr_http_conn;
struct mr_http_parse;

enum {
  MR_HTTP_IN_SIZE = 64 << 10, /* one read brings at most this */
  MR_HTTP_SHARED = 256 << 10,
  MR_HTTP_DISCARD_MAX = 256 << 10 /* of a body that nobody wants, to keep the connection */
};

struct mr_http_listener {
  struct mr_http_listener *next;
  struct mr_http_server *s;
  struct mr_ready ready;
  struct event *ev;
  int fd;
  struct mr_http_tls *tls; /* NULL: plain */
  char *unix_path;         /* removed at the end, if it is still ours: */
  dev_t dev;
  ino_t ino;
};

struct mr_http_server {
  struct mr_loop *l;
  const struct mr_mem *mem;
  const struct mr_sys *sys;
  struct mr_http_server_opts o;
  struct mr_http_listener *listeners;
  struct mr_http_conn *conns;
  struct mr_http_parse *spare;  /* parsers between requests */
  struct mr_timer accept_again; /* after EMFILE */
  struct mr_http_server_stats stats;
  struct mr_buf head; /* an answer's head is put together here */
  char *in;           /* what one read brings; MR_HTTP_IN_SIZE bytes */
  int64_t date_s;     /* what date says */
  char date[40];
  size_t gathered; /* memory of frames that leave at the end of this pass (sse.c) */
  char *shared;    /* frames of this pass that many streams have in common; MR_HTTP_SHARED bytes, or NULL */
  size_t nshared;  /* bytes in use, MR_HTTP_ROOM before the first frame; 0: none */
  size_t shared_at, shared_json, shared_name; /* the last of them: its place, the lengths of json and name, */
  int64_t shared_pos;                         /* its position */
  int sharing;                                /* streams that send some of them */
  int active, nspare;
  int refusing; /* connections over the limit that are told so */
  bool stopping, accept_paused;
};

/* What a connection waits for, each with its own limit. */
enum mr_http_wait {
  MR_WAIT_NONE,      /* the handler */
  MR_WAIT_HANDSHAKE, /* of TLS */
  MR_WAIT_IDLE,      /* the first byte of a request */
  MR_WAIT_HEAD,      /* the end of its headers */
  MR_WAIT_BODY,      /* more of its body */
  MR_WAIT_OUT,       /* the peer reading */
  MR_WAIT_LINGER     /* the peer closing */
};

struct mr_http_peer_addr {
  uint8_t family; /* AF_INET, AF_INET6, else local */
  in_port_t port; /* network order, like ip */
  uint8_t ip[16];
};

struct mr_http_conn {
  struct mr_http_server *s;
  struct mr_http_conn *next, **link;
  struct mr_http_io io;
  struct event *rd, *wr;       /* wr only while something waits to be written */
  struct mr_http_x *x;         /* the exchange, NULL between them */
  struct mr_http_parse *parse; /* from a message's first byte to its last */
  struct mr_buf *in;           /* read and not parsed, or NULL */
  struct mr_buf *out;          /* written and not taken by the kernel, or NULL */
  size_t out_off;              /* how much of out has been taken */
  size_t slack;                /* the largest piece in out, if it is large against the bound */
  size_t held;                 /* of an event stream: memory of out, as far as stats.stream_bytes knows */
  size_t dropped;              /* bytes read and thrown away */
  int64_t deadline_us;
  struct mr_ready ready;
  struct mr_timer timer; /* due at deadline_us or before */
  struct mr_http_peer_addr peer;
  int unsent;                     /* in the kernel's buffer, when the deadline was set */
  uint8_t wait;                   /* enum mr_http_wait, of deadline_us */
  bool readable : 1, blocked : 1; /* the kernel: a read may bring bytes; a write would not take any */
  bool reading : 1;               /* rd is added */
  bool eof : 1;                   /* the peer will not send any more */
  bool keep : 1;                  /* another request may follow */
  bool closing : 1;               /* the last answer is in out */
  bool lingering : 1;             /* it is out; reads on for a moment so that the peer gets to see it */
  bool over : 1, failed : 1;      /* to be closed: in order, or now and with a reset */
  bool running : 1;
  bool moved : 1;   /* progress since the deadline was set */
  bool counted : 1; /* in stats.connections */
  bool stream : 1;  /* an event stream: what waits is counted in stats.stream_bytes */
};

struct mr_http_x {
  struct mr_http_conn *c;
  struct mr_arena *arena; /* made when asked for */
  char *text;             /* path, query, then name and value of each header, all NUL-terminated */
  uint32_t npath, nquery, ntext;
  const char *peer; /* in the arena, or NULL */
  struct mr_http_x_cbs cbs;
  void *ud;
  int64_t length; /* of the request's body; -1 chunked */
  int64_t body_max, body_seen;
  int64_t left;                                        /* bytes of the answer still promised; -1 unknown */
  uint8_t method;                                      /* of llhttp */
  bool old : 1;                                        /* HTTP/1.0 */
  bool expect : 1;                                     /* waits for 100 Continue */
  bool asked : 1, paused : 1, over : 1, last_told : 1; /* the body: mr_http_body and what came of it */
  bool begun : 1, ended : 1;                           /* the answer */
  bool chunked : 1, bodyless : 1, want_drain : 1;
};

/* http_conn.c */
void mr_http_conn_new(struct mr_http_listener *l, int fd, const struct mr_http_peer_addr *peer, bool refuse);
void mr_http_conn_kill(struct mr_http_conn *c); /* closed() runs, everything is freed */
void mr_http_conn_wake(struct mr_http_conn *c); /* look at it in the drain */
/* To the kernel now, or kept for later; c->failed is set on errors. */
void mr_http_conn_send(struct mr_http_conn *c, const struct iovec *v, int n);
size_t mr_http_conn_waiting(const struct mr_http_conn *c);
void mr_http_conn_stream(struct mr_http_conn *c, bool on); /* it is one, or not any more */

/* http_exchange.c */
struct mr_http_x *mr_http_x_new(struct mr_http_conn *c); /* of c->parse; NULL: no memory */
void mr_http_x_free(struct mr_http_x **x);
enum { MR_HTTP_ROOM = 18 };
/* mr_http_write of bytes with MR_HTTP_ROOM bytes of room before and two after them, which are used: what
 * goes out is in one piece. */
int mr_http_write_room(struct mr_http_x *x, char *bytes, size_t n);
void mr_http_refusal(struct mr_http_conn *c, int status, const char *why); /* outside of an exchange */

/* http_listen.c */
void mr_http_listeners_close(struct mr_http_server *s);

/* ---- http_parse.c: requests out of bytes. It calls nobody; what it finds is told by feed. */

enum { MR_HTTP_FIELDS_MAX = 200 };

struct mr_http_field {
  uint32_t name, nname, value, nvalue; /* places in text */
};

struct mr_http_parse {
  struct mr_http_parse *next;
  llhttp_t p;
  struct mr_buf text; /* the target, then names (lower case) and values */
  size_t ntarget;
  struct mr_http_field field[MR_HTTP_FIELDS_MAX];
  int nfields;
  size_t head_n;           /* bytes of the head so far */
  int64_t body_n, frame_n; /* bytes of the body so far, and around it */
  struct mr_str piece;     /* of the body, found by the last feed */
  int status;              /* of the refusal, and its reason */
  const char *why;
  bool head_done, in_name, whole;
  bool waiting; /* feed again, also without bytes */
};

enum mr_http_found {
  MR_FOUND_NOTHING, /* all bytes were used, more are needed */
  MR_FOUND_HEAD,    /* the head is whole, and whole says whether the message is */
  MR_FOUND_PIECE,
  MR_FOUND_END,  /* of a message with a body */
  MR_FOUND_ERROR /* status, why */
};
struct mr_http_parse *mr_http_parse_get(struct mr_http_server *s);
void mr_http_parse_put(struct mr_http_server *s, struct mr_http_parse **q); /* NULL allowed */
void mr_http_parse_drop_spare(struct mr_http_server *s);
/* Takes the bytes it uses off *in. */
enum mr_http_found mr_http_parse_feed(struct mr_http_parse *q, size_t max_header, struct mr_str *in);
struct mr_str mr_http_parse_field(const struct mr_http_parse *q, struct mr_str name);

#endif
