/*
 * web - web_fetch and web_search at work (API: resources §4.9). They run in the server, for every kind of environment:
 * the address of each hop is shown to the guard, the lists of the agent and of those above it say which domains, and
 * web_fetch goes only to URLs that the conversation has already (web_seen.c). What goes wrong is a result that the model
 * reads, "CODE: why", never an error of the API.
 *
 *   web.c          calls: checked, in line, under way, given up, over
 *   web_fetch.c    the hops of a fetch, and what becomes of its body (web_page.c, in a pool thread)
 *   web_search.c   the configured search endpoint
 *   web_rules.c    what an agent may see, its parents' rules included
 *   web_seen.c     the URLs of a conversation
 */
#ifndef MR_AGENT_WEB_H
#define MR_AGENT_WEB_H

#include "agent/session_t.h"
#include "net/http_client.h"
#include "net/weburl.h"

/* ---- web.c ---- */

enum mr_webcall_state { MR_WEBCALL_LINE, MR_WEBCALL_ASKING, MR_WEBCALL_READING };

struct mr_webcall {
  struct mr_webcall *next, **link; /* in order of arrival */
  struct mr_webtools *web;         /* NULL: the domain is gone */
  const struct mr_mem *mem;
  struct mr_tcall *call; /* NULL: nobody wants the result */
  enum mr_webcall_state state;
  bool search;
  struct mr_timer deadline;
  struct mr_http_out *out; /* the request under way */
  int status, hops;
  bool bodiless;  /* its head says all: the body is not waited for */
  int code;       /* why the body is not taken, and */
  char error[32]; /* ... what that is called */
  struct mr_err err;
  struct mr_str location, type; /* of the newest head; in the arena */
  struct mr_str sent;           /* the body of a query */
  struct mr_arena *arena;
  struct mr_buf body;
  struct mr_weburl url;    /* of the newest hop */
  struct mr_webpage *page; /* being read */
  int results_max;
};

struct mr_webtools {
  struct mr_domain *d;
  struct mr_webcall *runs;
  int reading; /* pages in the pool: one at a time, so that it has a thread for others */
  struct mr_timer again;
  struct mr_search *search; /* NULL: no endpoint is configured */
};

/* content: JSON, an array of blocks. The run is gone after these. */
void mr_webtool_done(struct mr_webcall *r, struct mr_str content);
void mr_webtool_fail(struct mr_webcall *r, const char *error, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* A request that ended without an answer, as such a failure. */
void mr_webtool_fail_io(struct mr_webcall *r, const struct mr_http_out_done *d);
/* Nobody waits any more: frees the run. True: it was so. */
bool mr_webtool_unwanted(struct mr_webcall *r);

/* ---- web_fetch.c, web_search.c ---- */
void mr_webtool_fetch(struct mr_webcall *r); /* r->url is asked for */
void mr_webtool_read(struct mr_webcall *r);  /* its body goes to the pool; MR_WEBCALL_READING */
void mr_webpage_stop(struct mr_webpage *p);  /* it is read for nobody */
void mr_webtool_query(struct mr_webcall *r, struct mr_str query);
/* Section web.search of the configuration (NULL: none). MR_E_INVALID names the key. */
int mr_search_new(struct mr_search **out, const struct mr_mem *m, yyjson_val *config, struct mr_err *err);
void mr_search_free(struct mr_search **s, const struct mr_mem *m);

/* ---- web_page.c: bytes of the web as a content block; any thread, no state ---- */
struct mr_webpage_in {
  const struct mr_mem *mem;
  struct mr_str bytes, type; /* type: the Content-Type, or empty */
  const char *url;
  int64_t tokens_max; /* of text; 0: none */
  const int *stop;    /* not 0: give up (atomic) */
};
enum { MR_WEBPAGE_RAW_MAX = 10 << 20, MR_WEBPAGE_PDF_MAX = 7864320, MR_WEBPAGE_TEXT_MAX = 1 << 20 };
/* Is it worth being read? False: of a kind that is not taken; decided again by mr_webpage_block. */
bool mr_webpage_type_ok(struct mr_str type);
/* One document block as a JSON array. MR_E_INVALID: of a kind that is not taken; MR_E_TOO_LARGE: a PDF; err says why. */
int mr_webpage_block(const struct mr_webpage_in *in, struct mr_buf *out, struct mr_err *err);
/* web_text.c: text of a charset (its label; empty: unknown) as UTF-8 without control characters. */
void mr_webpage_utf8(struct mr_str bytes, struct mr_str label, struct mr_buf *out);
bool mr_webpage_charset_known(struct mr_str label);
/* web_html.c: HTML in UTF-8 as text: links as [text](url), headings, lists, tables as lines. title: of the page. Ends
 * early when *stop is not 0, at a time limit and when out is full. */
int mr_webpage_html(struct mr_str html, const char *url, const int *stop, struct mr_buf *out,
                    struct mr_buf *title);

/* ---- web_rules.c ---- */
/* May th, by its lists and by those of the threads above it, see this URL? tool: "web_fetch" or "web_search". */
bool mr_webtool_allowed(struct mr_thread *th, const char *tool, const struct mr_weburl *u);
/* Which of the sources of a URL (bits of web_seen.c) count for th. */
uint64_t mr_webtool_sources(struct mr_thread *th);
/* The nearest setting of a tool, or NULL. */
yyjson_val *mr_webtool_setting(struct mr_thread *th, const char *tool, const char *what);

#endif
