/* api_t.h - what the files of this room share: the face and one exchange. */
#ifndef MR_API_API_T_H
#define MR_API_API_T_H

#include "api/api.h"
#include "net/multipart.h"
#include "net/sse.h"

/* What identifies this server to clients that ask for an organization and a workspace: there is one of each. */
#define MR_ORGANIZATION "00000000-0000-4000-8000-000000000000"
#define MR_WORKSPACE    "wrkspc_01MoonrigDefau1tSpace111"

struct mr_exchange;
struct mr_api_routed;
struct mr_once;
enum { MR_ONCE_BUCKETS = 64, MR_ONCE_HOURS = 25 };
struct mr_once_hour {
  int64_t hour, bytes; /* since 1970; of the records made in it */
};

struct mr_api {
  struct mr_api_opts o;
  const struct mr_mem *mem;
  const struct mr_sys *sys;
  struct mr_http_server *http;
  struct mr_exchange *all; /* not freed yet */
  bool strict, stopping;
  bool freed; /* mr_api_free was called; the last exchange frees */
  int64_t ping_ms, body_max;
  uint64_t answered[6]; /* by status class: 1xx..5xx */
  struct mr_api_routed *routes;
  int nroutes;
  struct mr_once *onces[MR_ONCE_BUCKETS]; /* idempotency keys in use */
  struct mr_once_hour once_hours[MR_ONCE_HOURS];
  bool once_loaded; /* the hours were read from the store */
  int64_t once_max;
  int nwebs;         /* requests to routes that are not over */
  int64_t web_bytes; /* of their bodies, as far as the host has not got them */
};

/* One request and its answer. Freed when the connection let go of it (closed) and nothing runs for it. */
struct mr_exchange {
  struct mr_api *a;
  struct mr_exchange *next, **link;
  struct mr_http_x *x;       /* NULL once closed */
  int refs;                  /* the connection, the key check, the call, the control command */
  char id[MR_ID_MAX];        /* req_... */
  const struct mr_opdef *op; /* NULL: the control route */
  struct mr_str params[MR_PATH_MAX];
  struct mr_call *call;   /* running, or NULL */
  struct mr_arena *arena; /* the connection's; gone with x */
  struct mr_buf body;
  bool authorized, body_whole, answered;
  bool begun;            /* what needs the body may start */
  struct mr_once *once;  /* with an idempotency key; or NULL */
  bool resumes;          /* a stream: "after" is the header last-event-id */
  struct mr_bearer by;   /* strings in the arena */
  struct mr_str details; /* of the error that is being answered; JSON members */
  /* uploads */
  struct mr_multipart *parts;
  struct mr_buf fields; /* "name=value&..." of parts that are fields, and of the file's head */
  struct mr_buf value;  /* the field that is being read */
  int64_t part_n;       /* bytes of the part so far */
  bool in_file, file_seen, paused;
  int failed; /* why the upload was given up */
  /* answers */
  struct mr_sse *sse;
  bool streaming; /* download begun */
  char allow[64]; /* of a 405: the methods that are there */
  struct mr_api_web *web;
  struct mr_pass *pass; /* passed through to a model, or NULL */
};

void mr_exchange_unref(struct mr_exchange *q);
struct mr_str mr_exchange_secret(struct mr_http_x *x); /* the key that a request shows; n 0: none */

/* request.c: input */
int mr_exchange_on_body(void *ud, struct mr_http_x *x, struct mr_str bytes, bool last);
void mr_exchange_begin(struct mr_exchange *q); /* authorized and checked: start what can start */
void mr_exchange_go(struct mr_exchange *q);    /* nothing of its idempotency key is in the way */
void mr_exchange_gone(struct mr_exchange *q);  /* the connection is gone: stop what runs */

/* once.c: idempotency keys. All but begin and end do nothing without one. */
bool mr_once_begin(struct mr_exchange *q);                      /* true: mr_exchange_go follows, or an answer */
void mr_once_part(struct mr_exchange *q, struct mr_str s);      /* the body's parts, in order */
void mr_once_piece(struct mr_exchange *q, struct mr_str bytes); /* bytes of one */
bool mr_once_body(struct mr_exchange *q); /* it is whole. true: answered, with what the first request got */
bool mr_once_found(const struct mr_exchange *q);         /* it was answered before: nothing may be started */
void mr_once_with_effect(void *ud, struct mr_commit *c); /* mr_origin.last; ud: the exchange */
bool mr_once_keep(struct mr_exchange *q, int status, struct mr_str answer); /* true: sent once it is kept */
void mr_once_end(struct mr_exchange *q);

/* pass.c: requests that are passed through to a model */
void mr_exchange_pass(struct mr_exchange *q); /* its body is whole */

/* reply.c: output */
/* Now, whatever is kept of it. */
void mr_exchange_send(struct mr_exchange *q, int status, struct mr_str json, bool replayed);
void mr_exchange_json(struct mr_exchange *q, int status, struct mr_str json);
void mr_exchange_error(struct mr_exchange *q, const struct mr_err *err);
void mr_exchange_fail(struct mr_exchange *q, int code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void mr_exchange_done(struct mr_call *c);
int mr_exchange_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json);
void mr_exchange_opened(struct mr_call *c);
void mr_exchange_out_head(struct mr_call *c, struct mr_str filename, struct mr_str media_type, int64_t size);
int mr_exchange_out_bytes(struct mr_call *c, struct mr_str bytes);
void mr_exchange_drained(void *ud, struct mr_http_x *x);

void mr_exchange_count(struct mr_exchange *q, int status);

/* routes.c: the host's paths */
enum { MR_ROUTE_PARAMS = 8 };
struct mr_api_routed { /* a route in the table, or only used by requests any more */
  struct mr_api_routed *next;
  struct mr_api_route r; /* strings are own copies */
  int refs;              /* the table, requests */
};
struct mr_api_match {
  struct mr_api_routed *r; /* counted */
  struct mr_str path;      /* decoded, like the parameters' values; in the arena */
  int n;
  struct mr_str name[MR_ROUTE_PARAMS], value[MR_ROUTE_PARAMS]; /* names: in r */
};
/* The most exact route for a path that is still encoded. MR_E_NOTFOUND; MR_E_UNSUPPORTED: it is there for the methods
 * that allow gets; MR_E_INVALID: it cannot be decoded. */
int mr_api_route_find(struct mr_api *a, struct mr_arena *arena, struct mr_str method, struct mr_str raw,
                      struct mr_api_match *out, char *allow, size_t n);
void mr_api_route_unref(struct mr_api *a, struct mr_api_routed **r); /* NULL allowed */
void mr_api_routes_free(struct mr_api *a);

/* web.c: requests to them */
void mr_web_request(struct mr_exchange *q);
int mr_web_on_body(struct mr_exchange *q, struct mr_str bytes, bool last);
void mr_web_drained(struct mr_exchange *q);
void mr_web_gone(struct mr_exchange *q);   /* the connection is gone */
void mr_web_free(struct mr_exchange *q);   /* with the exchange */
void mr_web_end_streams(struct mr_api *a); /* the server stops: event streams end properly */

/* status.c: /health and /metrics */
void mr_api_health(struct mr_exchange *q);
void mr_api_metrics(struct mr_exchange *q);

#endif
