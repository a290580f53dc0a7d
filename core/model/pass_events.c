/*
 * pass_events - the answer of the Messages API, made of what a model call gave: one message, or the events of its
 * stream (message_start, then each block with start, deltas and stop, message_delta, message_stop).
 *
 * Text is written on as it comes. A block of another kind is known only when the call is over; it and what follows it
 * are written then, so that blocks begin in the order of their numbers, as clients count on. Thinking is left out:
 * what such a provider gives has no signature, and could not be sent back to the Messages API.
 * The input's tokens are known at the end, too: message_start says 0, and the usage of message_delta, which is
 * cumulative, says them all. Loop thread; called by pass_form.c.
 */
#include "model/pass_t.h"

enum { EVENT_MAX = 64 << 20 };

#define LINE(lit)                                                                                              \
  {                                                                                                            \
    lit, sizeof(lit) - 1                                                                                       \
  }

static bool is_thinking(struct mr_str kind)
{
  return mr_str_is(kind, "thinking") || mr_str_is(kind, "redacted_thinking");
}

static void usage(struct mr_jw *w, const struct mr_usage *u)
{
  mr_jw_key(w, "usage");
  mr_jw_obj(w);
  mr_jw_kint(w, "input_tokens", u->input);
  mr_jw_kint(w, "cache_creation_input_tokens", u->cache_write_5m + u->cache_write_1h);
  mr_jw_kint(w, "cache_read_input_tokens", u->cache_read);
  mr_jw_kint(w, "output_tokens", u->output);
  mr_jw_obj_end(w);
}

/* ---- events ---- */

static void event_begin(struct mr_buf *b, struct mr_jw *w, const char *type)
{
  mr_buf_printf(b, "event: %s\ndata: ", type);
  mr_jw_init(w, b);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", type);
}

static void event_end(struct mr_buf *b, struct mr_jw *w)
{
  mr_jw_obj_end(w);
  mr_buf_c(b, "\n\n");
}

static void send_events(struct mr_pass *p, struct mr_buf *b)
{
  if (b->n) p->cbs.data(p->ud, mr_buf_get(b));
  mr_buf_free(b);
}

static void message_start(struct mr_pass *p, struct mr_buf *b)
{
  static const struct mr_usage none;
  struct mr_jw w;

  event_begin(b, &w, "message_start");
  mr_jw_key(&w, "message");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "id", p->id);
  mr_jw_kc(&w, "type", "message");
  mr_jw_kc(&w, "role", "assistant");
  mr_jw_kstr(&w, "model", p->model);
  mr_jw_kraw(&w, "content", MR_S("[]"));
  mr_jw_kraw(&w, "stop_reason", MR_S("null"));
  mr_jw_kraw(&w, "stop_sequence", MR_S("null"));
  usage(&w, &none);
  mr_jw_obj_end(&w);
  event_end(b, &w);
}

static void begin(struct mr_pass *p, struct mr_buf *b)
{
  static const struct mr_str lines[] = {LINE("content-type: text/event-stream; charset=utf-8"),
                                        LINE("cache-control: no-cache")};
  if (p->began) return;
  p->began = p->headed = true;
  p->cbs.head(p->ud, 200, lines, 2, -1);
  message_start(p, b);
}

static void start(struct mr_buf *b, int index, struct mr_str block)
{
  struct mr_jw w;

  event_begin(b, &w, "content_block_start");
  mr_jw_kint(&w, "index", index);
  mr_jw_kraw(&w, "content_block", block);
  event_end(b, &w);
}

static void delta(struct mr_buf *b, int index, const char *type, const char *key, struct mr_str value)
{
  struct mr_jw w;

  event_begin(b, &w, "content_block_delta");
  mr_jw_kint(&w, "index", index);
  mr_jw_key(&w, "delta");
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", type);
  mr_jw_kstr(&w, key, value);
  mr_jw_obj_end(&w);
  event_end(b, &w);
}

static void stop(struct mr_pass *p, struct mr_buf *b)
{
  struct mr_jw w;

  if (p->open < 0) return;
  event_begin(b, &w, "content_block_stop");
  mr_jw_kint(&w, "index", p->open);
  event_end(b, &w);
  p->open = -1;
}

void mr_pass_block(struct mr_pass *p, struct mr_str kind)
{
  struct mr_buf b;

  if (!p->stream || p->held || is_thinking(kind)) return;
  mr_buf_init(&b, p->mem, EVENT_MAX);
  begin(p, &b);
  stop(p, &b);
  if (mr_str_is(kind, "text")) {
    p->open = p->sent++;
    start(&b, p->open, MR_S("{\"type\":\"text\",\"text\":\"\"}"));
  } else {
    p->held = true;
  }
  send_events(p, &b);
}

void mr_pass_text(struct mr_pass *p, struct mr_str text)
{
  struct mr_buf b;

  if (!p->stream || p->held || p->open < 0) return;
  mr_buf_init(&b, p->mem, EVENT_MAX);
  delta(&b, p->open, "text_delta", "text", text);
  send_events(p, &b);
}

/* A block that nothing was written of yet. */
static void whole_block(struct mr_pass *p, struct mr_buf *b, yyjson_val *v)
{
  struct mr_buf t;

  p->open = p->sent++;
  mr_buf_init(&t, p->mem, EVENT_MAX);
  if (mr_str_is(mr_json_get_str(v, "type"), "tool_use")) {
    mr_buf_c(&t, "{\"type\":\"tool_use\",\"id\":");
    mr_json_quote(&t, mr_json_get_str(v, "id"));
    mr_buf_c(&t, ",\"name\":");
    mr_json_quote(&t, mr_json_get_str(v, "name"));
    mr_buf_c(&t, ",\"input\":{}}");
    start(b, p->open, mr_buf_get(&t));
    mr_buf_reset(&t);
    mr_json_write(&t, mr_json_get(v, "input"), false);
    delta(b, p->open, "input_json_delta", "partial_json", mr_buf_get(&t));
  } else if (mr_str_is(mr_json_get_str(v, "type"), "text")) {
    start(b, p->open, MR_S("{\"type\":\"text\",\"text\":\"\"}"));
    delta(b, p->open, "text_delta", "text", mr_json_get_str(v, "text"));
  } else {
    mr_json_write(&t, v, false);
    start(b, p->open, mr_buf_get(&t));
  }
  if (t.failed) b->failed = t.failed;
  mr_buf_free(&t);
  stop(p, b);
}

static void end_events(struct mr_buf *b, const struct mr_model_reply *m)
{
  struct mr_jw w;

  event_begin(b, &w, "message_delta");
  mr_jw_key(&w, "delta");
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "stop_reason", m->stop_reason);
  mr_jw_kraw(&w, "stop_sequence", MR_S("null"));
  if (m->stop_details.n) mr_jw_kraw(&w, "stop_details", m->stop_details);
  mr_jw_obj_end(&w);
  usage(&w, &m->usage);
  event_end(b, &w);
  event_begin(b, &w, "message_stop");
  event_end(b, &w);
}

static void finish_stream(struct mr_pass *p, const struct mr_model_reply *m, yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;
  struct mr_buf b;
  int i = 0, have = p->sent;

  mr_buf_init(&b, p->mem, (size_t)EVENT_MAX * 2);
  begin(p, &b);
  stop(p, &b);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (is_thinking(mr_json_get_str(v, "type"))) continue;
    if (i++ >= have) whole_block(p, &b, v);
  }
  end_events(&b, m);
  if (b.failed) {
    mr_buf_free(&b);
    mr_pass_over(p, false);
    return;
  }
  send_events(p, &b);
  mr_pass_over(p, true);
}

/* ---- the message ---- */

static void write_message(struct mr_pass *p, const struct mr_model_reply *m, yyjson_val *content,
                          struct mr_buf *b)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;
  struct mr_buf t;
  struct mr_jw w;

  mr_buf_init(&t, p->mem, EVENT_MAX);
  mr_jw_init(&w, b);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "id", p->id);
  mr_jw_kc(&w, "type", "message");
  mr_jw_kc(&w, "role", "assistant");
  mr_jw_kstr(&w, "model", p->model);
  mr_jw_key(&w, "content");
  mr_jw_arr(&w);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (is_thinking(mr_json_get_str(v, "type"))) continue;
    mr_buf_reset(&t);
    mr_json_write(&t, v, false);
    mr_jw_raw(&w, mr_buf_get(&t));
  }
  mr_jw_arr_end(&w);
  mr_jw_kstr(&w, "stop_reason", m->stop_reason);
  mr_jw_kraw(&w, "stop_sequence", MR_S("null"));
  if (m->stop_details.n) mr_jw_kraw(&w, "stop_details", m->stop_details);
  usage(&w, &m->usage);
  mr_jw_obj_end(&w);
  if (t.failed) b->failed = t.failed;
  mr_buf_free(&t);
}

void mr_pass_finish(struct mr_pass *p, const struct mr_model_reply *m)
{
  static const struct mr_str lines[] = {LINE("content-type: application/json")};
  yyjson_doc *d = NULL;
  struct mr_buf b;

  if (mr_json_parse(p->mem, m->content, SIZE_MAX, &d, NULL) != MR_OK) {
    mr_pass_error(p, 502, "api_error", 0, MR_S("the model's reply could not be read"));
    return;
  }
  if (p->stream) {
    finish_stream(p, m, yyjson_doc_get_root(d));
    yyjson_doc_free(d);
    return;
  }
  mr_buf_init(&b, p->mem, (size_t)EVENT_MAX * 2);
  write_message(p, m, yyjson_doc_get_root(d), &b);
  yyjson_doc_free(d);
  if (b.failed) {
    mr_pass_error(p, 500, "api_error", 0, MR_S("out of memory for the reply"));
  } else {
    p->headed = true;
    p->cbs.head(p->ud, 200, lines, 1, (int64_t)b.n);
    p->cbs.data(p->ud, mr_buf_get(&b));
    mr_pass_over(p, true);
  }
  mr_buf_free(&b);
}

void mr_pass_break(struct mr_pass *p, const char *type, struct mr_str why)
{
  struct mr_buf b;

  mr_buf_init(&b, p->mem, 1 << 16);
  mr_buf_c(&b, "event: error\ndata: ");
  mr_pass_envelope(p, type, why, &b);
  mr_buf_c(&b, "\n\n");
  send_events(p, &b);
  mr_pass_over(p, true);
}
