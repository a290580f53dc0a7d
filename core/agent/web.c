/*
 * web.c - calls of web_fetch and web_search from their start to their result (web.h): checked at once, in line until
 * there is a place, under way, and over. Each has a deadline. At most RUNNING are under way in the runtime, SESSION of
 * them a session's, and IN_ALL wait; what is beyond is told so.
 *
 * A call that is under way holds its session, and a stop waits for it as for a handler. It is given up by an interrupt
 * or when the session goes; what it started ends then without it. After a crash it is closed, never begun again
 * (turn_recover.c). Loop thread.
 */
#include "agent/web.h"

#include <stdarg.h>
#include <stdio.h>

#include "agent/toolset.h"

enum { RUNNING = 16, SESSION = 4, IN_ALL = 256, DEADLINE_S = 60, URL_CHARS = 250, QUERY_CHARS = 500 };

/* ---- the end of a call ---- */

static void run_free(struct mr_webcall *r)
{
  if (r->link) {
    *r->link = r->next;
    if (r->next) r->next->link = r->link;
  }
  if (r->web) {
    mr_timer_cancel(r->web->d->loop, &r->deadline);
    if (r->web->runs) mr_timer_set(r->web->d->loop, &r->web->again, 0); /* there may be a place now */
  }
  mr_buf_free(&r->body);
  mr_arena_free(&r->arena);
  mr_mem_free(r->mem, r);
}

/* The call is not ours any more; the run goes on to its end without it. */
static void let_go(struct mr_webcall *r)
{
  struct mr_session *s = r->call->th->s;

  r->call->web = NULL;
  r->call = NULL;
  s->d->stats.handlers_running--;
  mr_domain_settled(s->d);
  mr_session_unref(s);
}

bool mr_webtool_unwanted(struct mr_webcall *r)
{
  if (r->call) return false;
  run_free(r);
  return true;
}

static void over(struct mr_webcall *r, struct mr_str content, bool is_error)
{
  struct mr_tcall *c = r->call;
  struct mr_session *s = c->th->s;

  mr_session_ref(s);
  let_go(r);
  mr_tools_finish(c, content, is_error);
  mr_session_unref(s);
  run_free(r);
}

void mr_webtool_done(struct mr_webcall *r, struct mr_str content)
{
  over(r, content, false);
}

static void error_content(struct mr_buf *b, const char *error, const char *why)
{
  char text[700];

  snprintf(text, sizeof text, "%s: %s", error, why);
  mr_buf_c(b, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(b, mr_str_c(text));
  mr_buf_c(b, "}]");
}

void mr_webtool_fail(struct mr_webcall *r, const char *error, const char *fmt, ...)
{
  char why[600];
  struct mr_buf b;
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(why, sizeof why, fmt, ap);
  va_end(ap);
  mr_buf_init(&b, r->mem, 1 << 14);
  error_content(&b, error, why);
  over(r, mr_buf_get(&b), true);
  mr_buf_free(&b);
}

void mr_webtool_fail_io(struct mr_webcall *r, const struct mr_http_out_done *d)
{
  const char *why = d->err ? d->err->message : mr_strerror(d->code);

  if (r->code != MR_OK)
    mr_webtool_fail(r, r->error, "%s", r->err.message);
  else if (d->code == MR_E_DENIED)
    mr_webtool_fail(r, "url_not_allowed", "%s", why);
  else
    mr_webtool_fail(r, r->search ? "unavailable" : "url_not_accessible", "%s", why);
}

static void on_deadline(struct mr_timer *t)
{
  struct mr_webcall *r = MR_OF(t, struct mr_webcall, deadline);

  r->code = mr_err_set(&r->err, MR_E_TIMEOUT, NULL, "no whole answer within %d s", (int)DEADLINE_S);
  snprintf(r->error, sizeof r->error, "%s", r->search ? "unavailable" : "url_not_accessible");
  if (r->out) mr_http_out_cancel(r->out); /* its end tells */
}

/* ---- the line ---- */

static int running_of(const struct mr_webtools *web, const struct mr_session *s)
{
  int n = 0;

  for (const struct mr_webcall *r = web->runs; r; r = r->next)
    n += r->state != MR_WEBCALL_LINE && (!s || (r->call && r->call->th->s == s));
  return n;
}

static void begin(struct mr_webcall *r)
{
  yyjson_doc *doc = NULL;

  r->state = MR_WEBCALL_ASKING;
  mr_timer_set(r->web->d->loop, &r->deadline, (int64_t)DEADLINE_S * 1000000);
  if (!r->search) {
    mr_webtool_fetch(r);
    return;
  }
  if (mr_json_parse(r->mem, r->call->input, SIZE_MAX, &doc, NULL) == MR_OK)
    mr_webtool_query(r, mr_json_get_str(yyjson_doc_get_root(doc), "query"));
  else
    mr_webtool_fail(r, "unavailable", "out of memory");
  yyjson_doc_free(doc);
}

/* Whoever may begin does, in order; one at a time, as one that ends at once changes the list. */
static void on_again(struct mr_timer *t)
{
  struct mr_webtools *web = MR_OF(t, struct mr_webtools, again);
  struct mr_webcall *r = web->runs;

  if (web->d->cut) return;
  if (web->reading == 0)
    for (r = web->runs; r && !(r->state == MR_WEBCALL_READING && !r->page);)
      r = r->next;
  else
    r = NULL;
  if (r) {
    mr_webtool_read(r);
    mr_timer_set(web->d->loop, t, 0);
    return;
  }
  if (running_of(web, NULL) >= RUNNING) return;
  for (r = web->runs; r; r = r->next)
    if (r->state == MR_WEBCALL_LINE && running_of(web, r->call->th->s) < SESSION) break;
  if (!r) return;
  begin(r);
  mr_timer_set(web->d->loop, t, 0);
}

/* ---- the start ---- */

/* NULL, or what is wrong, and why. */
static const char *check_fetch(struct mr_tcall *c, yyjson_val *in, struct mr_weburl *u, struct mr_err *why)
{
  struct mr_str url = mr_json_get_str(in, "url");

  if (!url.n) {
    mr_err_set(why, MR_E_INVALID, "url", "url is required");
    return "invalid_tool_input";
  }
  if (mr_utf8_chars(url) > URL_CHARS) {
    mr_err_set(why, MR_E_INVALID, "url", "a URL has at most %d characters", URL_CHARS);
    return "url_too_long";
  }
  if (mr_weburl_read(u, NULL, mr_str_trim(url), why) != MR_OK) return "invalid_tool_input";
  if (!mr_webtool_allowed(c->th, "web_fetch", u)) {
    mr_err_set(why, MR_E_DENIED, "url", "the domains set for web_fetch do not let it go to %.100s", u->host);
    return "url_not_allowed";
  }
  if (!mr_seen_has(c->th->s, u, mr_webtool_sources(c->th))) {
    mr_err_set(
        why, MR_E_DENIED, "url",
        "this URL did not come up in the conversation. Only those can be fetched that stand in what the user "
        "wrote, or in results of web_search, web_fetch or custom tools, exactly as they stand there");
    return "url_not_in_prior_context";
  }
  return NULL;
}

static const char *check_search(yyjson_val *in, struct mr_err *why)
{
  struct mr_str query = mr_str_trim(mr_json_get_str(in, "query"));

  if (!query.n) {
    mr_err_set(why, MR_E_INVALID, "query", "query is required");
    return "invalid_tool_input";
  }
  if (mr_utf8_chars(query) <= QUERY_CHARS) return NULL;
  mr_err_set(why, MR_E_INVALID, "query", "a query has at most %d characters", QUERY_CHARS);
  return "query_too_long";
}

static const char *check(struct mr_tcall *c, struct mr_webcall *r, struct mr_err *why)
{
  struct mr_webtools *web = c->th->s->d->web;
  yyjson_doc *doc = NULL;
  const char *wrong;
  int n = 0;

  if (mr_json_parse(r->mem, c->input, SIZE_MAX, &doc, why) != MR_OK) return "invalid_tool_input";
  wrong = r->search ? check_search(yyjson_doc_get_root(doc), why)
                    : check_fetch(c, yyjson_doc_get_root(doc), &r->url, why);
  yyjson_doc_free(doc);
  if (wrong) return wrong;
  if (r->search && !web->search) {
    mr_err_set(
        why, MR_E_UNAVAILABLE, NULL,
        "no search endpoint is configured on this server. Its operator sets one with web.search.url in the "
        "configuration; until then there is no web search");
    return "unavailable";
  }
  if (!web->d->http || !web->d->guard) {
    mr_err_set(why, MR_E_UNAVAILABLE, NULL, "this runtime makes no requests of its own");
    return "unavailable";
  }
  for (const struct mr_webcall *o = web->runs; o; o = o->next)
    n++;
  if (n < IN_ALL) return NULL;
  mr_err_set(why, MR_E_FULL, NULL, "%d requests wait already; try again later", n);
  return "too_many_requests";
}

static void append(struct mr_webtools *web, struct mr_webcall *r)
{
  struct mr_webcall **at = &web->runs;

  while (*at)
    at = &(*at)->next;
  *at = r;
  r->link = at;
}

static void on_nothing(struct mr_buf *b, struct mr_tcall *c, const char *error, const char *why)
{
  error_content(b, error, why);
  mr_tools_finish(c, mr_buf_get(b), true);
  mr_buf_free(b);
}

void mr_webtool_start(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;
  struct mr_webcall *r = mr_mem_zalloc(s->d->mem, sizeof *r);
  struct mr_err why = {0};
  const char *wrong;
  struct mr_buf b;

  mr_buf_init(&b, s->d->mem, 1 << 14);
  if (!r || !(r->arena = mr_arena_new(s->d->mem, 1024))) {
    mr_mem_free(s->d->mem, r);
    on_nothing(&b, c, "unavailable", "out of memory");
    return;
  }
  r->mem = s->d->mem;
  r->web = s->d->web;
  r->search = mr_str_is(c->name, "web_search");
  mr_timer_init(&r->deadline, on_deadline);
  mr_buf_init(&r->body, r->mem, SIZE_MAX / 2);
  wrong = check(c, r, &why);
  if (wrong) {
    run_free(r);
    on_nothing(&b, c, wrong, why.message);
    return;
  }
  r->call = c;
  c->web = r;
  s->d->stats.handlers_running++;
  mr_session_ref(s);
  append(r->web, r);
  mr_timer_set(s->d->loop, &r->web->again, 0);
}

void mr_webtool_drop(struct mr_tcall *c)
{
  struct mr_webcall *r = c->web;

  let_go(r);
  if (r->out)
    mr_http_out_cancel(r->out); /* its end frees the run */
  else if (r->page)
    mr_webpage_stop(r->page); /* likewise */
  else
    run_free(r);
}

/* ---- life ---- */

int mr_webtool_new(struct mr_domain *d, yyjson_val *config, struct mr_err *err)
{
  d->web = mr_mem_zalloc(d->mem, sizeof *d->web);
  if (!d->web) return mr_err_nomem(err);
  d->web->d = d;
  mr_timer_init(&d->web->again, on_again);
  return mr_search_new(&d->web->search, d->mem, mr_json_get(config, "search"), err);
}

/* All calls have been given up. Requests that are still under way end after the domain: nobody wants them. */
void mr_webtool_free(struct mr_domain *d)
{
  struct mr_webtools *web = d->web;

  if (!web) return;
  mr_timer_cancel(d->loop, &web->again);
  for (struct mr_webcall *r = web->runs, *next; r; r = next) {
    next = r->next;
    mr_timer_cancel(d->loop, &r->deadline);
    r->web = NULL;
    r->link = NULL;
    r->next = NULL;
  }
  mr_search_free(&web->search, d->mem);
  mr_mem_free(d->mem, web);
  d->web = NULL;
}
