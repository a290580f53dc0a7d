/*
 * egress_t.h - what the files of the egress proxy share:
 *
 *   link.c    the proxy of a driver, the channel of a sandbox, its connections' coming and going
 *   conn.c    one client: a state machine from its head to the end of its tunnel
 *   http.c    plain HTTP: a request rebuilt, an answer rebuilt, bodies framed anew
 *   side.c    one socket of a connection: what came in, what waits to go out
 *   head.c    heads and bodies by llhttp: nothing is forwarded that was not understood
 *   host.c    host names and addresses in their one canonical form
 *   policy.c  who may go where
 *   sni.c     the name in a TLS ClientHello
 *   secret.c  secrets put in on the way out; tls.c, ca.c: the TLS that this needs
 *   registries.c  the hosts of the package managers' registries, as this machine's own clients have them
 *   env.c     environment variables for what runs inside
 */
#ifndef MR_EGRESS_T_H
#define MR_EGRESS_T_H

#include <llhttp.h>
#include <sys/socket.h>

#include "net/dial.h"
#include "net/guard.h"
#include "net/http_io.h"
#include "sandbox/egress/egress.h"
#include "sandbox/egress/tls.h"

enum {
  EGRESS_HEAD_MAX = 32 << 10,    /* bytes of a request's head */
  EGRESS_ANSWER_MAX = 128 << 10, /* of an answer's */
  EGRESS_FIELDS = 100,
  EGRESS_CONNS = 128,      /* of one sandbox: twice what envd relays, as an end is seen here a moment later */
  EGRESS_CONNS_ALL = 2048, /* of all */
  EGRESS_PIECE = 16 << 10, /* of one read */
  EGRESS_HIGH = 64 << 10,  /* bytes that wait in one direction before reading pauses */
  EGRESS_PORTS = 64,
  EGRESS_NOTES = 4,
  EGRESS_SECRETS = 20
};

/* ---- host.c ---- */

struct mr_target {
  char host[256]; /* lower case, no trailing dot; an address in its usual form, IPv6 without brackets */
  int port;
  bool literal; /* an address */
};
/* "host:port", "[::1]:443". port 0: it must be there; else that is meant without one. MR_E_INVALID, and why. */
int mr_target_read(struct mr_str text, int port, struct mr_target *t, struct mr_err *err);
bool mr_target_same_host(const struct mr_target *a, const struct mr_target *b);
/* "host", "host:8080", "[::1]:8080": without the port when it is usual. */
void mr_target_text(const struct mr_target *t, int usual, char out[280]);

/* ---- head.c ---- */

struct mr_head_field {
  uint32_t name, nname, value, nvalue; /* in text */
};
enum mr_head_state { MR_HEAD_MORE, MR_HEAD_WHOLE, MR_HEAD_BAD };
struct mr_head {
  llhttp_t p;
  struct mr_buf raw, text;
  struct mr_head_field field[EGRESS_FIELDS];
  struct mr_buf *body; /* where pieces of the body go, while it is fed */
  size_t ntarget;      /* bytes of the request's target, or of the answer's reason, at the front of text */
  int nfields;
  enum mr_head_state state;
  bool request, done; /* done: the whole message */
  bool no_body;       /* an answer to HEAD */
  bool chunk_out;     /* the body is chunked again */
  const char *why;    /* it is bad */
};
void mr_head_init(struct mr_head *h, const struct mr_mem *m, bool request);
void mr_head_reset(struct mr_head *h); /* for the next one */
void mr_head_free(struct mr_head *h);
/* Takes bytes up to the end of the head; returns how many. */
size_t mr_head_feed(struct mr_head *h, struct mr_str in);
/* Takes bytes of the body, framed anew into out. The number taken; -1: bad framing. done says when it was the last. */
int64_t mr_head_body(struct mr_head *h, struct mr_str in, struct mr_buf *out);
bool mr_head_eof(struct mr_head *h, struct mr_buf *out); /* no more bytes: was that the end of the message? */
struct mr_str mr_head_target(const struct mr_head *h);
struct mr_str mr_head_name(const struct mr_head *h, int i);
struct mr_str mr_head_value(const struct mr_head *h, int i);
int mr_head_count(const struct mr_head *h, const char *name);
struct mr_str mr_head_get(const struct mr_head *h, const char *name); /* the first; p NULL */
/* Adds the fields that go on to the next hop, without those of framing and without host. */
typedef void (*mr_head_change_fn)(void *ud, struct mr_str name, struct mr_str value, struct mr_buf *out);
void mr_head_forward(const struct mr_head *h, struct mr_buf *out, mr_head_change_fn change, void *ud);

/* ---- sni.c ---- */

/* The server name of a ClientHello: 1 found (name has 256 bytes), 0 none in it, -1 more bytes are needed,
 * -2 it is none, or broken. */
int mr_sni_read(struct mr_str in, char name[256]);

/* ---- policy.c ---- */

struct mr_port_range {
  int first, last;
};
struct mr_egress_policy {
  const struct mr_mem *mem;
  struct mr_arena *arena;
  bool limited, package_managers;
  struct mr_str *hosts; /* of the environment, and of MCP servers */
  int nhosts;
  struct mr_sandbox_secret *secrets;
  int nsecrets;
};
struct mr_registries;
struct mr_egress_conf {
  struct mr_port_range ports[EGRESS_PORTS];
  int nports;
  struct mr_str *blocked, *packages; /* patterns */
  int nblocked, npackages;
  bool packages_known; /* else they are to be discovered when first needed */
  struct mr_sandbox_secret *secrets;
  int nsecrets;
};
enum mr_verdict {
  MR_LET,
  MR_DENY,
  MR_ASK
}; /* ask: the registries of package managers have to be known first */
enum mr_verdict mr_egress_judge(const struct mr_egress_policy *p, const struct mr_egress_conf *c,
                                const struct mr_target *t, char why[300]);
/* Only HTTP and TLS for the named host may be spoken there, nothing that hides where it goes. */
bool mr_egress_strict(const struct mr_egress_policy *p, const struct mr_target *t);

/* ---- secret.c ---- */

enum { MR_EGRESS_PLACEHOLDER = 48 };
void mr_secret_placeholder(const char *token, const char *env, char out[MR_EGRESS_PLACEHOLDER]);
bool mr_secret_wanted(const struct mr_egress_policy *p,
                      const struct mr_target *t); /* is there one for this host? */
/* A header's value with placeholders replaced (mr_head_change_fn; ud is the connection). */
void mr_secret_change(void *ud, struct mr_str name, struct mr_str value, struct mr_buf *out);
int mr_secrets_copy(struct mr_arena *a, const struct mr_sandbox_secret *from, int n,
                    struct mr_sandbox_secret **to, int *nto);

/* ---- side.c ---- */

struct mr_side {
  struct mr_http_io io; /* fd -1: not there */
  struct event *rd, *wr;
  bool readable, eof, failed, shut; /* shut: our end is closed */
  struct mr_buf in, out;
  struct mr_tls *tls; /* NULL: plain */
  struct mr_buf raw;  /* with tls: enciphered bytes that have to leave */
  bool ended;         /* with tls: close_notify was said */
};
struct mr_egress_conn;
void mr_side_init(struct mr_side *s, const struct mr_mem *m);
/* Takes fd; MR_E_NOMEM leaves it. ready is posted when it can be read or written. */
int mr_side_open(struct mr_side *s, struct mr_loop *l, int fd, struct mr_egress_conn *c);
void mr_side_close(struct mr_side *s);
/* From now on TLS, beginning with what came already; takes t. */
void mr_side_tls(struct mr_side *s, struct mr_tls *t);
/* Reads what is there, up to EGRESS_HIGH bytes that wait. True: something came. */
bool mr_side_fill(struct mr_side *s);
/* Writes what waits; then shuts, when fin. True: something went. */
bool mr_side_flush(struct mr_side *s, bool fin);
/* Writes from's input to `to` without a copy. */
bool mr_side_carry(struct mr_side *from, struct mr_side *to);
void mr_side_arm(struct mr_side *s, bool read, bool write);

/* ---- conn.c, http.c ---- */

enum mr_conn_state {
  MR_CONN_HEAD, /* the request's head is coming */
  MR_CONN_ASK,  /* registries are being found out */
  MR_CONN_DIAL,
  MR_CONN_SNIFF, /* a tunnel whose first bytes say what it is */
  MR_CONN_TUNNEL,
  MR_CONN_HTTP,   /* a request going on, its answer coming back */
  MR_CONN_CLOSING /* the last bytes are leaving */
};
struct mr_egress_conn {
  struct mr_egress_conn *next, **link;
  struct mr_egress_link *k;
  enum mr_conn_state state;
  struct mr_side client, server;
  struct mr_head req, res;
  struct mr_target target;
  struct mr_dial *dial;
  struct mr_timer timer;
  struct mr_ready ready;
  int64_t moved_us; /* the last progress */
  bool connect;     /* it began as CONNECT; what comes inside is of the same target */
  bool inside;      /* that request was answered: heads are of what is in the tunnel */
  bool opened;      /* TLS of both sides ends here: secrets are put in */
  bool dead;
};
struct mr_egress_link {
  struct mr_egress_link *next, **link;
  struct mr_egress *e;
  char session[80], token[MR_EGRESS_TOKEN];
  const struct mr_egress_policy *policy;
  int channel;
  struct event *rd;
  struct mr_ready ready;
  struct mr_egress_conn *conns;
  int nconns;
  char notes[EGRESS_NOTES][300]; /* what was refused since it was last told */
  int nnotes;
  int nlogged; /* refusals since logged_us */
  int64_t logged_us;
};
struct mr_egress {
  struct mr_loop *loop;
  const struct mr_mem *mem;
  const struct mr_guard *guard;
  struct mr_arena *arena;
  struct mr_egress_conf conf;
  bool (*own)(void *ud, const struct sockaddr *sa);
  void *own_ud;
  struct mr_dialer *dialer;
  struct mr_tls_ctx *tls; /* NULL until there is a secret */
  struct mr_ca *ca;
  char dir[4096], ca_file[4096];    /* ca_file: "" = the system's */
  struct mr_registries *registries; /* asked, or NULL */
  struct mr_egress_link *links;
  int nconns;
  struct mr_egress_stats stats;
};

/* Finds out where this machine's package managers get packages from; known is called once, from the drain, and has
 * set conf.packages. Nothing when that is under way. */
void mr_registries_ask(struct mr_egress *e);
void mr_registries_free(struct mr_registries **r);

/* Makes e->ca and e->tls, when they are not there. */
int mr_egress_authority(struct mr_egress *e);
const char *mr_system_roots(void); /* env.c: the machine's bundle, or NULL */

int mr_conn_new(struct mr_egress_link *k, int fd, struct mr_err *err); /* takes fd */
void mr_conn_free(struct mr_egress_conn *c);
void mr_conn_step(struct mr_egress_conn *c); /* posts */
/* An answer of the proxy's own: status, and a sentence in the reason and the body. Then the connection closes. */
void mr_conn_say(struct mr_egress_conn *c, int status, const char *reason, const char *text);
void mr_conn_deny(struct mr_egress_conn *c, const char *why); /* 403, counted, logged and noted */
void mr_egress_note(struct mr_egress_link *k, const char *why);
bool mr_conn_http(struct mr_egress_conn *c); /* one turn of MR_CONN_HTTP; progress? */
/* The head as it goes to the server. False: said why not. */
bool mr_conn_request(struct mr_egress_conn *c);
/* What a request is for: its target is read and compared with its host. False: said why not. */
bool mr_conn_target(struct mr_egress_conn *c);

#endif
