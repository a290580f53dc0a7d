/*
 * web_search.c - web_search over the endpoint that the operator configured, one that answers with JSON:
 *
 *   web.search = { url = "https://search.example/search?format=json&q={query}" }
 *
 * {query}, {count} and, when the agent's user_location says them, {city} {region} {country} {timezone} are filled in, in
 * the URL, or in `body`, which then is sent as JSON by POST; a parameter or member with nothing to say is left out.
 * `headers` go along. `results` is where the list is in the answer ("results"; "web.results"), `fields` where in each
 * of its objects url, title and text are ("url", "title", "content"). README.md has examples.
 *
 * Results outside of the agent's domains are dropped. The endpoint is the operator's own choice: no guard, and no
 * redirects. Loop thread.
 */
#include "agent/web.h"

#include <stdio.h>

#include "net/url.h"

enum {
  ANSWER_MAX = 1 << 20,
  HEADERS_MAX = 20,
  COUNT = 10,
  COUNT_MAX = 50,
  TEXT_MAX = 4000,
  TITLE_MAX = 500,
  CONNECT_MS = 10000,
  STALL_MS = 20000
};

struct mr_search {
  yyjson_doc *doc; /* the section */
};

struct values { /* of the placeholders */
  struct mr_str query, city, region, country, timezone, count;
};

/* ---- configuration ---- */

static int bad(struct mr_err *err, const char *key, const char *what)
{
  char field[64];

  snprintf(field, sizeof field, "web.search%s%s", key[0] ? "." : "", key);
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s", field, what);
}

static bool has(struct mr_str s, const char *what)
{
  return s.n && memmem(s.p, s.n, what, strlen(what)) != NULL;
}

static bool body_has_query(yyjson_val *v)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(v);
  yyjson_arr_iter each = yyjson_arr_iter_with(v);
  yyjson_val *k;

  if (yyjson_is_str(v)) return has(mr_json_str(v), "{query}");
  while (yyjson_is_obj(v) && (k = yyjson_obj_iter_next(&it)))
    if (body_has_query(yyjson_obj_iter_get_val(k))) return true;
  while (yyjson_is_arr(v) && (k = yyjson_arr_iter_next(&each)))
    if (body_has_query(k)) return true;
  return false;
}

static bool header_ok(struct mr_str name, yyjson_val *value)
{
  struct mr_str v = mr_json_str(value);

  for (size_t i = 0; i < name.n; i++)
    if ((unsigned char)name.p[i] <= ' ' || (unsigned char)name.p[i] >= 0x7f || name.p[i] == ':') return false;
  for (size_t i = 0; i < v.n; i++)
    if ((unsigned char)v.p[i] < ' ' || v.p[i] == 0x7f) return false;
  return name.n && yyjson_is_str(value);
}

static int check_config(yyjson_val *c, struct mr_err *err)
{
  static const char *const strings[] = {"url", "title", "text"};
  yyjson_val *url = mr_json_get(c, "url"), *headers = mr_json_get(c, "headers"), *body = mr_json_get(c, "body"),
             *fields = mr_json_get(c, "fields"), *k, *f;
  yyjson_obj_iter it = yyjson_obj_iter_with(headers);
  struct mr_str u = mr_json_str(url);

  if (!mr_str_starts(u, MR_S("http://")) && !mr_str_starts(u, MR_S("https://")))
    return bad(err, "url", "an http or https URL, with {query} where the query goes");
  if (body && !yyjson_is_obj(body)) return bad(err, "body", "a table, sent as JSON");
  if (!has(u, "{query}") && !body_has_query(body))
    return bad(err, "url", "{query} is missing, here or in body");
  if (headers && !yyjson_is_obj(headers)) return bad(err, "headers", "a table of names and values");
  if (yyjson_obj_size(headers) > HEADERS_MAX) return bad(err, "headers", "at most 20");
  while (headers && (k = yyjson_obj_iter_next(&it)))
    if (!header_ok(mr_json_str(k), yyjson_obj_iter_get_val(k)))
      return bad(err, "headers", "names and values of headers, as strings");
  if (fields && !yyjson_is_obj(fields)) return bad(err, "fields", "a table with url, title and text");
  for (int i = 0; fields && i < 3; i++)
    if ((f = mr_json_get(fields, strings[i])) && !mr_json_str(f).n)
      return bad(err, "fields", "url, title and text are names of members");
  return MR_OK;
}

int mr_search_new(struct mr_search **out, const struct mr_mem *m, yyjson_val *config, struct mr_err *err)
{
  struct mr_search *s;
  struct mr_buf b;
  int code;

  *out = NULL;
  if (!config || yyjson_is_null(config)) return MR_OK;
  code = check_config(config, err);
  if (code != MR_OK) return code;
  s = mr_mem_zalloc(m, sizeof *s);
  if (!s) return mr_err_nomem(err);
  mr_buf_init(&b, m, 1 << 20);
  mr_json_write(&b, config, false);
  code = b.failed ? mr_err_nomem(err) : mr_json_parse(m, mr_buf_get(&b), SIZE_MAX, &s->doc, err);
  mr_buf_free(&b);
  if (code != MR_OK) mr_search_free(&s, m);
  *out = s;
  return code;
}

void mr_search_free(struct mr_search **s, const struct mr_mem *m)
{
  if (*s) yyjson_doc_free((*s)->doc);
  mr_mem_free(m, *s);
  *s = NULL;
}

/* ---- the request ---- */

static const struct mr_str *value_of(const struct values *v, struct mr_str name)
{
  return mr_str_is(name, "query")      ? &v->query
         : mr_str_is(name, "count")    ? &v->count
         : mr_str_is(name, "city")     ? &v->city
         : mr_str_is(name, "region")   ? &v->region
         : mr_str_is(name, "country")  ? &v->country
         : mr_str_is(name, "timezone") ? &v->timezone
                                       : NULL;
}

/* s with its placeholders filled in; coded: for a URL. False: one of them has nothing to say. */
static bool fill(struct mr_arena *a, struct mr_str s, const struct values *v, bool coded, struct mr_buf *out)
{
  bool said = true;

  for (size_t i = 0; i < s.n; i++) {
    const char *close = s.p[i] == '{' ? memchr(s.p + i, '}', s.n - i) : NULL;
    const struct mr_str *x = close ? value_of(v, mr_str_n(s.p + i + 1, (size_t)(close - s.p) - i - 1)) : NULL;
    if (!x) {
      mr_buf_char(out, s.p[i]);
      continue;
    }
    said = said && x->n;
    mr_buf_str(out, coded ? mr_url_encode(a, *x) : *x);
    i = (size_t)(close - s.p);
  }
  return said;
}

static void fill_url(struct mr_arena *a, struct mr_str url, const struct values *v, struct mr_buf *out)
{
  struct mr_str rest = url, path = mr_str_split(&rest, '?');
  bool first = true;

  fill(a, path, v, true, out);
  while (rest.p) {
    size_t was = out->n;
    struct mr_str one = mr_str_split(&rest, '&');
    mr_buf_char(out, first ? '?' : '&');
    if (fill(a, one, v, true, out) || out->failed)
      first = false;
    else
      out->n = was;
  }
}

/* False, and nothing written: it has nothing to say. */
static bool fill_json(struct mr_arena *a, struct mr_jw *w, const char *key, yyjson_val *t,
                      const struct values *v)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(t);
  yyjson_arr_iter each = yyjson_arr_iter_with(t);
  yyjson_val *k;
  struct mr_buf b;
  bool said = true;

  mr_buf_init(&b, w->b->mem, 1 << 20);
  if (yyjson_is_str(t)) said = fill(a, mr_json_str(t), v, false, &b);
  if (said && key) mr_jw_key(w, key);
  if (!said)
    ;
  else if (mr_str_is(mr_json_str(t), "{count}"))
    mr_jw_raw(w, v->count);
  else if (yyjson_is_str(t))
    mr_jw_str(w, mr_buf_get(&b));
  else if (yyjson_is_obj(t)) {
    mr_jw_obj(w);
    while ((k = yyjson_obj_iter_next(&it)))
      fill_json(a, w, yyjson_get_str(k), yyjson_obj_iter_get_val(k), v);
    mr_jw_obj_end(w);
  } else if (yyjson_is_arr(t)) {
    mr_jw_arr(w);
    while ((k = yyjson_arr_iter_next(&each)))
      fill_json(a, w, NULL, k, v);
    mr_jw_arr_end(w);
  } else {
    mr_jw_val(w, t);
  }
  mr_buf_free(&b);
  return said;
}

/* ---- the answer ---- */

/* The member at "a.b.c". */
static yyjson_val *at_path(yyjson_val *v, struct mr_str path)
{
  while (v && path.p && path.n) {
    struct mr_str name = mr_str_split(&path, '.');
    v = yyjson_obj_getn(v, name.p, name.n);
  }
  return v;
}

static struct mr_str path_of(yyjson_val *config, const char *key, struct mr_str dflt)
{
  struct mr_str s = mr_json_get_str(mr_json_get(config, "fields"), key);
  return s.n ? s : dflt;
}

/* A string, or the strings of an array, at most so many bytes. */
static void text_of(yyjson_val *v, size_t most, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  struct mr_str s = mr_json_str(v);
  yyjson_val *x;

  mr_buf_add(out, s.p, mr_utf8_cut(s, most));
  while (yyjson_is_arr(v) && (x = yyjson_arr_iter_next(&it)) && out->n < most) {
    s = mr_json_str(x);
    if (out->n) mr_buf_char(out, '\n');
    mr_buf_add(out, s.p, mr_utf8_cut(s, most - out->n));
  }
}

/* Citations are off, as in the documents of web_fetch: a model's API wants them all on or all off. */
static void result_block(struct mr_jw *w, struct mr_str url, struct mr_str title, struct mr_str text)
{
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "search_result");
  mr_jw_kstr(w, "source", url);
  mr_jw_kstr(w, "title", title.n ? title : url);
  mr_jw_key(w, "content");
  mr_jw_arr(w);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "text");
  mr_jw_kstr(w, "text", text.n ? text : MR_S("(no text)"));
  mr_jw_obj_end(w);
  mr_jw_arr_end(w);
  mr_jw_key(w, "citations");
  mr_jw_raw(w, MR_S("{\"enabled\":false}"));
  mr_jw_obj_end(w);
}

static int write_results(struct mr_webcall *r, yyjson_val *config, yyjson_val *list, struct mr_jw *w)
{
  struct mr_str url_at = path_of(config, "url", MR_S("url")),
                title_at = path_of(config, "title", MR_S("title")),
                text_at = path_of(config, "text", MR_S("content"));
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  struct mr_buf title, text;
  struct mr_weburl u;
  yyjson_val *v;
  int n = 0;

  while (n < r->results_max && (v = yyjson_arr_iter_next(&it))) {
    struct mr_str url = mr_json_str(at_path(v, url_at));
    if (mr_weburl_read(&u, NULL, url, NULL) != MR_OK || !mr_webtool_allowed(r->call->th, "web_search", &u))
      continue;
    mr_buf_init(&title, r->mem, 1 << 20);
    mr_buf_init(&text, r->mem, 1 << 20);
    text_of(at_path(v, title_at), TITLE_MAX, &title);
    text_of(at_path(v, text_at), TEXT_MAX, &text);
    result_block(w, url, mr_str_trim(mr_buf_get(&title)), mr_str_trim(mr_buf_get(&text)));
    mr_buf_free(&title);
    mr_buf_free(&text);
    n++;
  }
  return n;
}

static void answer(struct mr_webcall *r)
{
  yyjson_val *config = yyjson_doc_get_root(r->web->search->doc), *list;
  struct mr_str at = mr_json_get_str(config, "results");
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, r->mem, SIZE_MAX / 2);
  mr_jw_init(&w, &b);
  if (mr_json_parse(r->mem, mr_buf_get(&r->body), ANSWER_MAX, &doc, NULL) != MR_OK) {
    mr_webtool_fail(r, "unavailable", "the search endpoint did not answer with JSON");
    goto out;
  }
  list = at_path(yyjson_doc_get_root(doc), at.n ? at : MR_S("results"));
  if (!yyjson_is_arr(list)) {
    mr_webtool_fail(r, "unavailable",
                    "the search endpoint's answer has no list of results (web.search.results)");
    goto out;
  }
  mr_jw_arr(&w);
  if (write_results(r, config, list, &w) == 0)
    mr_jw_raw(&w, MR_S("{\"type\":\"text\",\"text\":\"No results.\"}"));
  mr_jw_arr_end(&w);
  if (b.failed)
    mr_webtool_fail(r, "unavailable", "out of memory");
  else
    mr_webtool_done(r, mr_buf_get(&b));
out:
  mr_buf_free(&b);
  yyjson_doc_free(doc);
}

static void on_head(void *ud, struct mr_http_out *out, int status, struct mr_str headers)
{
  struct mr_webcall *r = ud;

  (void)out;
  (void)headers;
  r->status = status;
}

static int on_data(void *ud, struct mr_http_out *out, struct mr_str bytes)
{
  struct mr_webcall *r = ud;

  (void)out;
  if (!r->call) return MR_E_CANCELLED;
  if (r->body.n + bytes.n > ANSWER_MAX) {
    snprintf(r->error, sizeof r->error, "unavailable");
    return r->code = mr_err_set(&r->err, MR_E_TOO_LARGE, NULL, "the search endpoint's answer is over 1 MiB");
  }
  mr_buf_str(&r->body, bytes);
  return r->body.failed;
}

static void on_done(void *ud, struct mr_http_out *out, const struct mr_http_out_done *d)
{
  struct mr_webcall *r = ud;

  (void)out;
  r->out = NULL;
  if (mr_webtool_unwanted(r)) return;
  if (d->code != MR_OK || r->code != MR_OK)
    mr_webtool_fail_io(r, d);
  else if (r->status == 429)
    mr_webtool_fail(r, "too_many_requests", "the search endpoint answered HTTP 429");
  else if (r->status == 413 || r->status == 414)
    mr_webtool_fail(r, "request_too_large", "the search endpoint answered HTTP %d", r->status);
  else if (r->status < 200 || r->status > 299)
    mr_webtool_fail(r, "unavailable", "the search endpoint answered HTTP %d", r->status);
  else
    answer(r);
}

static struct values values_of(struct mr_webcall *r, struct mr_str query)
{
  yyjson_val *at = mr_webtool_setting(r->call->th, "web_search", "user_location");
  const char *count = mr_arena_printf(r->arena, "%d", r->results_max);

  return (struct values){.query = mr_arena_str(r->arena, mr_str_trim(query)),
                         .city = mr_json_get_str(at, "city"),
                         .region = mr_json_get_str(at, "region"),
                         .country = mr_json_get_str(at, "country"),
                         .timezone = mr_json_get_str(at, "timezone"),
                         .count = mr_str_c(count ? count : "10")};
}

static int set_headers(struct mr_webcall *r, yyjson_val *given, bool body, struct mr_str *lines)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(given);
  yyjson_val *k;
  int n = 0;

  lines[n++] = MR_S("User-Agent: moonrig/" MR_VERSION " (web_search)");
  lines[n++] = MR_S("Accept: application/json");
  if (body) lines[n++] = MR_S("Content-Type: application/json");
  while (given && (k = yyjson_obj_iter_next(&it))) {
    const char *line =
        mr_arena_printf(r->arena, "%s: %s", yyjson_get_str(k), yyjson_get_str(yyjson_obj_iter_get_val(k)));
    if (line) lines[n++] = mr_str_c(line);
  }
  return n;
}

void mr_webtool_query(struct mr_webcall *r, struct mr_str query)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  yyjson_val *config = yyjson_doc_get_root(r->web->search->doc), *body = mr_json_get(config, "body");
  struct mr_str lines[HEADERS_MAX + 3];
  struct mr_http_out_req q = {.method = body ? "POST" : "GET",
                              .headers = lines,
                              .connect_timeout_ms = CONNECT_MS,
                              .stall_ms = STALL_MS,
                              .decode = true};
  struct mr_err err = {0};
  struct values v;
  struct mr_buf b;
  struct mr_jw w;

  r->results_max = (int)mr_json_get_int(config, "max_results", COUNT);
  if (r->results_max > COUNT_MAX) r->results_max = COUNT_MAX;
  v = values_of(r, query);
  mr_buf_init(&b, r->mem, 1 << 20);
  fill_url(r->arena, mr_json_get_str(config, "url"), &v, &b);
  q.url = mr_arena_str(r->arena, mr_buf_get(&b)).p;
  mr_buf_reset(&b);
  mr_jw_init(&w, &b);
  if (body) fill_json(r->arena, &w, NULL, body, &v);
  r->sent = mr_arena_str(r->arena, mr_buf_get(&b));
  q.body = &r->sent;
  q.nbody = body != NULL;
  q.nheaders = set_headers(r, mr_json_get(config, "headers"), body != NULL, lines);
  if (b.failed || !q.url || !r->sent.p)
    mr_webtool_fail(r, "unavailable", "out of memory");
  else if (mr_http_out_start(r->web->d->http, &q, &cbs, r, &r->out, &err) != MR_OK)
    mr_webtool_fail(r, "unavailable", "%s", err.message);
  mr_buf_free(&b);
}
