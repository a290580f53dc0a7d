/*
 * ask.c - mr_ask: one user message and the turn it makes, as one operation. On the loop it opens the session's
 * event stream, then sends the message, then follows the stream to the next session.status_idle behind that
 * message; the reply is put together from what went by.
 *
 * Not here: waiting for what a turn is blocked on. A turn that stops for confirmations or results of the host
 * ends the ask with "pending"; answering them and asking on is the host's.
 *
 * Invariant: the op's flight reference holds while one of the two calls of the domain is under way; the reply
 * goes out when both are over.
 */
#include "host/host_t.h"
#include "ops/ops.h"

#include <stdio.h>

enum { EARLY_MAX = 512, KEYS_MAX = 16, CONTENT_MAX = 16 << 20, SUMMARY_MAX = 64 << 20 };

struct held {
  struct held *next;
  int64_t pos;
  yyjson_doc *doc;
  struct mr_str json;
};

struct mr_ask {
  struct mr_op *op;
  const struct mr_mem *mem;
  const char *session;  /* in the op's arena */
  yyjson_doc *message;  /* input of sessions.events.send, until sent */
  struct mr_call *send; /* the stream is op->c */
  char id[MR_ID_MAX];   /* of the message's event, once sent */
  bool started, over;   /* the message was taken; the turn has ended, or cannot go on */
  int code;             /* valid when over */
  struct mr_err err;
  struct held *early, **early_tail; /* events from before we know the message's id */
  int nearly;
  struct held *uses; /* tool uses of the latest model reply, newest first */
  struct mr_buf text;
  struct {
    char key[48];
    int64_t sum;
  } usage[KEYS_MAX];
  int nusage;
  yyjson_doc *idle; /* the event that ended it */
};

static void held_free(struct mr_ask *a, struct held **list)
{
  for (struct held *h = *list, *next; h; h = next) {
    next = h->next;
    yyjson_doc_free(h->doc);
    mr_mem_free(a->mem, (char *)(uintptr_t)h->json.p);
    mr_mem_free(a->mem, h);
  }
  *list = NULL;
}

void mr_ask_free(struct mr_op *op)
{
  struct mr_ask *a = op->ask;

  if (!a) return;
  op->ask = NULL;
  mr_op_call_free(&a->send);
  held_free(a, &a->early);
  held_free(a, &a->uses);
  yyjson_doc_free(a->message);
  yyjson_doc_free(a->idle);
  mr_buf_free(&a->text);
  mr_mem_free(a->mem, a);
}

/* ---- the reply ---- */

static void write_pending(struct mr_ask *a, struct mr_jw *w, yyjson_val *ids)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(ids);
  yyjson_val *v;

  mr_jw_arr(w);
  while (ids && (v = yyjson_arr_iter_next(&it))) {
    struct held *h = a->uses;
    yyjson_val *use;
    bool custom;
    while (h && !mr_str_eq(mr_json_get_str(yyjson_doc_get_root(h->doc), "id"), mr_json_str(v)))
      h = h->next;
    use = h ? yyjson_doc_get_root(h->doc) : NULL;
    custom = mr_str_is(mr_json_get_str(use, "type"), "agent.custom_tool_use");
    mr_jw_obj(w);
    mr_jw_kstr(w, "id", mr_json_str(v));
    mr_jw_kc(w, "kind",
             custom                                                           ? "custom"
             : mr_str_is(mr_json_get_str(use, "evaluated_permission"), "ask") ? "confirm"
                                                                              : "tool");
    mr_jw_key(w, "name");
    if (use)
      mr_jw_str(w, mr_json_get_str(use, "name"));
    else
      mr_jw_null(w);
    mr_jw_key(w, "input");
    w->after_key = false;
    mr_json_write(w->b, mr_json_get(use, "input"), false); /* null when the use went by before */
    mr_jw_obj_end(w);
  }
  mr_jw_arr_end(w);
}

static void write_summary(struct mr_ask *a, struct mr_buf *out)
{
  yyjson_val *idle = yyjson_doc_get_root(a->idle), *stop = mr_json_get(idle, "stop_reason");
  yyjson_val *details = mr_json_get(idle, "stop_details");
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "text", mr_buf_get(&a->text));
  mr_jw_key(&w, "stop_reason");
  if (stop)
    mr_jw_str(&w, mr_json_get_str(stop, "type"));
  else
    mr_jw_c(&w, "terminated");
  mr_jw_key(&w, "stop_details");
  w.after_key = false;
  mr_json_write(out, details, false);
  mr_jw_key(&w, "usage");
  mr_jw_obj(&w);
  for (int i = 0; i < a->nusage; i++)
    mr_jw_kint(&w, a->usage[i].key, a->usage[i].sum);
  mr_jw_obj_end(&w);
  mr_jw_key(&w, "pending");
  write_pending(a, &w, mr_json_get(stop, "event_ids"));
  mr_jw_obj_end(&w);
}

/* The reply, once nothing of ours runs in the domain. */
static void check(struct mr_ask *a)
{
  struct mr_op *op = a->op;
  struct mr_buf out;
  char *json = NULL;
  size_t n = 0;

  if (!a->over || a->send || op->c) return;
  mr_buf_init(&out, a->mem, SUMMARY_MAX);
  if (a->code == MR_OK) {
    write_summary(a, &out);
    if (out.failed || a->text.failed)
      a->code = mr_err_set(&a->err, out.failed ? out.failed : a->text.failed, NULL,
                           "the turn's summary is too large");
    else
      json = mr_buf_take(&out, &n);
  }
  mr_buf_free(&out);
  mr_op_settle(op, a->code, &a->err, json, n);
}

static void over(struct mr_ask *a, int code, const struct mr_err *err)
{
  if (a->over) return;
  a->over = true;
  a->code = code;
  if (code != MR_OK && err) mr_err_copy(&a->err, err);
}

static void give_up(struct mr_ask *a)
{
  snprintf(a->err.request_id, sizeof a->err.request_id, MR_FMT, MR_ARG(a->op->who.request_id));
  mr_op_explain(a->op, &a->err);
  over(a, a->err.code, NULL);
}

/* ---- events ---- */

static void add_usage(struct mr_ask *a, yyjson_val *usage)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(usage);
  yyjson_val *k, *v;
  int i;

  while (usage && (k = yyjson_obj_iter_next(&it))) {
    v = yyjson_obj_iter_get_val(k);
    if (!yyjson_is_int(v) || yyjson_get_len(k) >= sizeof a->usage[0].key) continue;
    for (i = 0; i < a->nusage && strcmp(a->usage[i].key, yyjson_get_str(k)) != 0; i++)
      continue;
    if (i == KEYS_MAX) continue;
    if (i == a->nusage) snprintf(a->usage[a->nusage++].key, sizeof a->usage[0].key, "%s", yyjson_get_str(k));
    a->usage[i].sum += yyjson_get_sint(v);
  }
}

static void set_text(struct mr_ask *a, yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;

  mr_buf_reset(&a->text);
  while (content && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "text")) mr_buf_str(&a->text, mr_json_get_str(v, "text"));
}

static bool keep_use(struct mr_ask *a, yyjson_doc *doc)
{
  struct held *h = mr_mem_zalloc(a->mem, sizeof *h);

  if (!h) return false;
  h->doc = doc;
  h->next = a->uses;
  a->uses = h;
  return true;
}

/* Takes over doc. MR_E_CLOSED: the stream is not needed any more. */
static int take(struct mr_ask *a, int64_t pos, struct mr_str json, yyjson_doc *doc)
{
  yyjson_val *ev = yyjson_doc_get_root(doc);
  struct mr_str type = mr_json_get_str(ev, "type");

  if (!a->started && mr_str_is(mr_json_get_str(ev, "id"), a->id)) a->started = true;
  if (a->over || (a->started && mr_op_event(a->op, pos, json) != MR_OK)) {
    if (!a->over) give_up(a);
    yyjson_doc_free(doc);
    return MR_E_CLOSED;
  }
  if (mr_str_is(type, "session.status_terminated") || mr_str_is(type, "session.deleted") ||
      (a->started && mr_str_is(type, "session.status_idle"))) {
    struct mr_err err = {0};
    a->idle = doc;
    if (!a->started) mr_err_set(&err, MR_E_CLOSED, NULL, "the session ended before it took the message");
    over(a, err.code, &err);
    return MR_E_CLOSED;
  }
  if (a->started && mr_str_is(type, "span.model_request_start")) {
    held_free(a, &a->uses);
  } else if (a->started && mr_str_is(type, "span.model_request_end")) {
    add_usage(a, mr_json_get(ev, "model_usage"));
  } else if (a->started && mr_str_is(type, "agent.message")) {
    set_text(a, mr_json_get(ev, "content"));
  } else if (a->started && mr_str_starts(type, MR_S("agent.")) && mr_str_ends(type, MR_S("tool_use")) &&
             keep_use(a, doc)) {
    return MR_OK;
  }
  yyjson_doc_free(doc);
  return MR_OK;
}

/* Before the send is answered the message's id is not known: such events wait. */
static int hold(struct mr_ask *a, int64_t pos, struct mr_str json, yyjson_doc *doc)
{
  struct held *h = a->nearly < EARLY_MAX ? mr_mem_zalloc(a->mem, sizeof *h) : NULL;
  char *copy = h ? mr_mem_strdup(a->mem, json) : NULL;

  if (!copy) {
    mr_mem_free(a->mem, h);
    yyjson_doc_free(doc);
    a->op->why = MR_E_FULL;
    give_up(a);
    return MR_E_CLOSED;
  }
  h->pos = pos;
  h->json = mr_str_n(copy, json.n);
  h->doc = doc;
  *a->early_tail = h;
  a->early_tail = &h->next;
  a->nearly++;
  return MR_OK;
}

static int on_event(struct mr_call *c, struct mr_str name, int64_t pos, struct mr_str json)
{
  struct mr_ask *a = ((struct mr_op *)c->face)->ask;
  struct mr_err err = {0};
  yyjson_doc *doc;

  (void)name;
  if (a->over) return MR_E_CLOSED;
  if (mr_json_parse(a->mem, json, SIZE_MAX, &doc, &err) != MR_OK) {
    over(a, err.code, &err);
    return MR_E_CLOSED;
  }
  return a->id[0] ? take(a, pos, json, doc) : hold(a, pos, json, doc);
}

/* ---- the two calls ---- */

static void end_stream(struct mr_ask *a)
{
  if (a->op->c && a->op->c->cancel) a->op->c->cancel(a->op->c);
}

static void on_sent(struct mr_call *c)
{
  struct mr_ask *a = ((struct mr_op *)c->face)->ask;
  yyjson_doc *doc = NULL;
  struct mr_str id = {0};

  a->send = NULL;
  if (c->code != MR_OK && a->op->why) {
    give_up(a);
  } else if (c->code != MR_OK) {
    over(a, c->code, &c->err);
  } else if (mr_json_parse(a->mem, mr_buf_get(&c->out), SIZE_MAX, &doc, &c->err) == MR_OK) {
    id = mr_json_get_str(yyjson_arr_get(mr_json_get(yyjson_doc_get_root(doc), "data"), 0), "id");
    snprintf(a->id, sizeof a->id, MR_FMT, MR_ARG(id));
  }
  if (!a->over && !a->id[0])
    over(a, mr_err_set(&c->err, MR_E_INTERNAL, NULL, "the message was sent, but its id is not in the answer"),
         &c->err);
  yyjson_doc_free(doc);
  mr_op_call_free(&c);
  while (!a->over && a->early) {
    struct held *h = a->early;
    a->early = h->next;
    take(a, h->pos, h->json, h->doc);
    h->doc = NULL;
    h->next = NULL;
    held_free(a, &h);
  }
  if (a->over && a->op->c)
    end_stream(a); /* the stream's end makes the reply, after which the ask may be gone */
  else
    check(a);
}

static void on_opened(struct mr_call *c)
{
  struct mr_op *op = c->face;
  struct mr_ask *a = op->ask;
  struct mr_err err = {0};

  if (op->why) { /* ended while the session was loaded; not from in here */
    mr_ready_post(op->rt->loop, &op->kick);
    return;
  }
  if (mr_op_call(op, &a->send, &err) != MR_OK) {
    over(a, err.code, &err);
    mr_ready_post(op->rt->loop, &op->kick);
    return;
  }
  a->send->done = on_sent;
  a->send->path[0] = mr_str_c(a->session);
  mr_op_input(a->send, a->message);
  a->message = NULL;
  mr_op_start(a->send, mr_op_find(MR_S("sessions.events.send")));
}

static void on_stream_done(struct mr_call *c)
{
  struct mr_op *op = c->face;
  struct mr_ask *a = op->ask;
  struct mr_err err = c->err;

  op->c = NULL;
  mr_ready_cancel(op->rt->loop, &op->kick);
  if (op->why)
    give_up(a);
  else if (c->code != MR_OK)
    over(a, c->code, &err);
  else
    over(a, mr_err_set(&err, MR_E_CLOSED, NULL, "the session's events ended before the turn did"), &err);
  mr_op_call_free(&c);
  check(a);
}

void mr_ask_start(struct mr_op *op, struct mr_call *c)
{
  op->c = c;
  c->event = on_event;
  c->opened = on_opened;
  c->done = on_stream_done;
  c->path[0] = mr_str_c(op->ask->session);
  mr_op_start(c, mr_op_find(MR_S("sessions.events.stream")));
}

void mr_ask_end(struct mr_op *op)
{
  struct mr_ask *a = op->ask;

  if (a->send && a->send->cancel) /* hooks are asked about the message: it is not stored yet */
    a->send->cancel(a->send);
  else if (op->c) /* one that was stored is not taken back */
    end_stream(a);
}

/* ---- on the host's thread ---- */

static bool are_blocks(yyjson_val *v)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(v);
  yyjson_val *b;

  if (!yyjson_is_arr(v) || yyjson_arr_size(v) == 0) return false;
  while ((b = yyjson_arr_iter_next(&it)))
    if (!yyjson_is_obj(b)) return false;
  return true;
}

static int message_of(struct mr_ask *a, struct mr_str content, struct mr_err *err)
{
  yyjson_doc *blocks = NULL;
  struct mr_buf b;
  int code;

  if (content.n > CONTENT_MAX)
    return mr_err_set(err, MR_E_TOO_LARGE, "content", "content: at most %d bytes", CONTENT_MAX);
  if (!mr_utf8_valid(content)) return mr_err_set(err, MR_E_INVALID, "content", "content: must be UTF-8");
  if (content.n && content.p[0] == '[' && mr_json_parse(a->mem, content, CONTENT_MAX, &blocks, NULL) != MR_OK)
    blocks = NULL; /* text that begins with a bracket */
  mr_buf_init(&b, a->mem, 4 * (size_t)CONTENT_MAX);
  mr_buf_c(&b, "{\"events\":[{\"type\":\"user.message\",\"content\":");
  if (are_blocks(yyjson_doc_get_root(blocks))) {
    mr_buf_str(&b, content);
  } else {
    mr_buf_c(&b, "[{\"type\":\"text\",\"text\":");
    mr_json_quote(&b, content);
    mr_buf_c(&b, "}]");
  }
  mr_buf_c(&b, "}]}");
  yyjson_doc_free(blocks);
  code = b.failed ? mr_err_nomem(err) : mr_json_parse(a->mem, mr_buf_get(&b), SIZE_MAX, &a->message, err);
  mr_buf_free(&b);
  return code;
}

int mr_ask(struct mr_runtime *rt, const char *session_id, const char *content, const struct mr_callbacks *cbs,
           void *ud, struct mr_op **out, struct mr_err *err)
{
  struct mr_op *op;
  struct mr_ask *a;
  int code = mr_rt_check(rt, err);

  if (out) *out = NULL;
  if (code == MR_OK && (!session_id || !session_id[0]))
    code = mr_err_set(err, MR_E_INVALID, "session_id", "session_id: needed");
  if (code == MR_OK && !content)
    code = mr_err_set(err, MR_E_INVALID, "content", "content: text, or a JSON array of content blocks");
  if (code != MR_OK) return code;
  code = mr_op_make_ask(rt, cbs, ud, &op, err);
  if (code != MR_OK) return code;
  op->ask = a = mr_mem_zalloc(mr_rt_mem(rt), sizeof *a);
  code = a ? MR_OK : mr_err_nomem(err);
  if (code == MR_OK) {
    a->op = op;
    a->mem = mr_rt_mem(rt);
    a->early_tail = &a->early;
    mr_buf_init(&a->text, a->mem, SUMMARY_MAX / 2);
    a->session = mr_arena_str(op->arena, mr_str_c(session_id)).p;
    code = a->session ? message_of(a, mr_str_c(content), err) : mr_err_nomem(err);
  }
  if (code != MR_OK) {
    mr_op_unref(op);
    return code;
  }
  return mr_op_submit(op, out, err);
}
