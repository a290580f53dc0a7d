/*
 * web_fetch.c - the request of a fetch, hop by hop: redirects are followed here, at most HOPS of them, so that the lists
 * of the agent hold for each; the guard holds for each address. The body is bounded while it comes, and read in a pool
 * thread (web_page.c), one page at a time. Loop thread but for the job.
 */
#include "agent/web.h"

#include <stdio.h>

enum { HOPS = 5, CONNECT_MS = 10000, STALL_MS = 20000 };

static int refuse(struct mr_webcall *r, const char *error, int code, const char *why)
{
  snprintf(r->error, sizeof r->error, "%s", error);
  return r->code = mr_err_set(&r->err, code, NULL, "%s", why);
}

static void on_head(void *ud, struct mr_http_out *out, int status, struct mr_str headers)
{
  struct mr_webcall *r = ud;
  struct mr_str length = mr_http_header(headers, "content-length");
  char why[160];
  int64_t n;

  r->status = status;
  r->location = status >= 300 && status < 400 ? mr_arena_str(r->arena, mr_http_header(headers, "location"))
                                              : mr_str_n(NULL, 0);
  r->type = mr_arena_str(r->arena, mr_http_header(headers, "content-type"));
  /* A page about an error says nothing to the model, and may be without end. */
  r->bodiless = status < 200 || status > 299;
  if (r->bodiless) {
    mr_http_out_cancel(out);
    return;
  }
  if (r->type.n && !mr_webpage_type_ok(r->type)) {
    snprintf(why, sizeof why, "this is %.80s; HTML, other texts and PDFs can be fetched", r->type.p);
    refuse(r, "unsupported_content_type", MR_E_INVALID, why);
  } else if (mr_str_int(length, &n) == MR_OK && n > MR_WEBPAGE_RAW_MAX) {
    refuse(r, "url_not_accessible", MR_E_TOO_LARGE, "there are more than 10 MiB");
  }
  if (r->code != MR_OK) mr_http_out_cancel(out);
}

static int on_data(void *ud, struct mr_http_out *out, struct mr_str bytes)
{
  struct mr_webcall *r = ud;

  (void)out;
  if (!r->call) return MR_E_CANCELLED;
  mr_buf_str(&r->body, bytes);
  return r->body.failed;
}

static void on_redirect(struct mr_webcall *r)
{
  struct mr_weburl next;
  struct mr_err err = {0};

  if (++r->hops > HOPS) {
    mr_webtool_fail(r, "url_not_accessible", "it redirects more than %d times", HOPS);
  } else if (mr_weburl_read(&next, r->url.url, r->location, &err) != MR_OK) {
    mr_webtool_fail(r, "url_not_allowed", "it redirects to %s", err.message);
  } else if (!mr_webtool_allowed(r->call->th, "web_fetch", &next)) {
    mr_webtool_fail(r, "url_not_allowed",
                    "it redirects to %.100s, where the domains set for web_fetch do not let it go", next.host);
  } else {
    r->url = next;
    r->url.rest = r->url.url + (next.rest - next.url);
    mr_buf_reset(&r->body);
    mr_webtool_fetch(r);
  }
}

static void on_done(void *ud, struct mr_http_out *out, const struct mr_http_out_done *d)
{
  struct mr_webcall *r = ud;

  (void)out;
  r->out = NULL;
  if (mr_webtool_unwanted(r)) return;
  if (d->code == MR_E_TOO_LARGE && r->code == MR_OK)
    refuse(r, "url_not_accessible", MR_E_TOO_LARGE, "there are more than 10 MiB");
  if ((d->code != MR_OK && !(r->bodiless && d->code == MR_E_CANCELLED)) || r->code != MR_OK) {
    mr_webtool_fail_io(r, d);
  } else if (r->location.n) {
    on_redirect(r);
  } else if (r->status < 200 || r->status > 299) {
    mr_webtool_fail(r, "url_not_accessible", "HTTP %d", r->status);
  } else {
    r->state = MR_WEBCALL_READING;
    mr_timer_set(r->web->d->loop, &r->web->again, 0);
  }
}

void mr_webtool_fetch(struct mr_webcall *r)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  const struct mr_str headers[] = {
      MR_S("User-Agent: Mozilla/5.0 (compatible; moonrig/" MR_VERSION "; web_fetch)"),
      MR_S("Accept: text/html,application/xhtml+xml,text/*;q=0.9,application/pdf;q=0.9,*/*;q=0.5"),
      MR_S("Accept-Language: en,*;q=0.5")};
  struct mr_http_out_req q = {.method = "GET",
                              .url = r->url.url,
                              .headers = headers,
                              .nheaders = 3,
                              .connect_timeout_ms = CONNECT_MS,
                              .stall_ms = STALL_MS,
                              .guard = r->web->d->guard,
                              .decode = true,
                              .body_max = MR_WEBPAGE_RAW_MAX};
  struct mr_err err = {0};

  r->bodiless = false;
  if (mr_http_out_start(r->web->d->http, &q, &cbs, r, &r->out, &err) != MR_OK)
    mr_webtool_fail(r, "unavailable", "%s", err.message);
}

/* ---- the page ---- */

struct mr_webpage {
  struct mr_job job;
  struct mr_webcall *run;
  struct mr_webpage_in in;
  struct mr_buf body, out;
  struct mr_err err;
  char *url, *type;
  int code, stop;
};

static void work(struct mr_job *j, void *worker)
{
  struct mr_webpage *p = MR_OF(j, struct mr_webpage, job);

  (void)worker;
  p->code = mr_webpage_block(&p->in, &p->out, &p->err);
}

static void page_free(struct mr_webpage *p)
{
  const struct mr_mem *m = p->in.mem;

  mr_buf_free(&p->body);
  mr_buf_free(&p->out);
  mr_mem_free(m, p->url);
  mr_mem_free(m, p->type);
  mr_mem_free(m, p);
}

static void on_read(struct mr_job *j)
{
  struct mr_webpage *p = MR_OF(j, struct mr_webpage, job);
  struct mr_webcall *r = p->run;

  r->page = NULL;
  if (r->web) {
    r->web->reading--;
    mr_timer_set(r->web->d->loop, &r->web->again, 0);
  }
  if (mr_webtool_unwanted(r))
    ;
  else if (p->code == MR_OK)
    mr_webtool_done(r, mr_buf_get(&p->out));
  else if (p->code == MR_E_INVALID)
    mr_webtool_fail(r, "unsupported_content_type", "this is %s", p->err.message);
  else if (p->code == MR_E_TOO_LARGE)
    mr_webtool_fail(r, "url_not_accessible", "this is %s", p->err.message);
  else
    mr_webtool_fail(r, "unavailable", "%s", p->err.message);
  page_free(p);
}

void mr_webpage_stop(struct mr_webpage *p)
{
  __atomic_store_n(&p->stop, 1, __ATOMIC_RELAXED);
}

void mr_webtool_read(struct mr_webcall *r)
{
  yyjson_val *most = mr_webtool_setting(r->call->th, "web_fetch", "max_content_tokens");
  struct mr_webpage *p = mr_mem_zalloc(r->mem, sizeof *p);

  if (p) {
    p->in.mem = r->mem;
    p->run = r;
    p->url = mr_mem_strdup(r->mem, mr_str_c(r->url.url));
    p->type = mr_mem_strdup(r->mem, r->type);
    p->body = r->body;
    mr_buf_init(&r->body, r->mem, SIZE_MAX / 2);
    mr_buf_init(&p->out, r->mem, SIZE_MAX / 2);
    p->in.bytes = mr_buf_get(&p->body);
    p->in.type = mr_str_c(p->type);
    p->in.url = p->url;
    p->in.tokens_max = yyjson_is_int(most) ? yyjson_get_sint(most) : 0;
    p->in.stop = &p->stop;
    p->job.work = work;
    p->job.done = on_read;
  }
  if (!p || !p->url || !p->type || mr_pool_submit(r->web->d->pool, &p->job) != MR_OK) {
    if (p) page_free(p);
    mr_webtool_fail(r, "unavailable", "the page cannot be read now; try again later");
    return;
  }
  r->page = p;
  r->web->reading++;
}
