/*
 * calls.c - the calls of one sandbox: queued, sent, accepted, done; see box.c for the life around them.
 * A call leaves the list once, in op_finish, and its callback comes from mr_calls_deliver alone: in the
 * drain, never inside the call that it answers. Loop thread.
 */
#include "sandbox/local/local_t.h"

#include <stdio.h>

#include "sandbox/helpers/proto.h"

static void op_free(struct mr_box *b, struct mr_op *o)
{
  mr_buf_free(&o->content);
  mr_mem_free(b->l->mem, o);
}

static struct mr_op *op_find(struct mr_box *b, struct mr_str id, bool sent)
{
  struct mr_op *o = b->ops;
  while (o && !(mr_str_eq(o->id, id) && (!sent || o->state != MR_OP_QUEUED)))
    o = o->next;
  return o;
}

/* Moves it to the done list; its callback comes from the drain. */
static void op_finish(struct mr_box *b, struct mr_op *o, int code, const char *text)
{
  struct mr_op **at = &b->ops;

  while (*at != o)
    at = &(*at)->next;
  *at = o->next;
  if (!o->next) b->ops_tail = at;
  b->nops--;
  o->next = NULL;
  o->code = o->cancelled ? MR_E_CANCELLED : code;
  if (o->code == MR_E_CANCELLED) text = "The call was cancelled.";
  if (o->code != MR_OK) mr_err_set(&o->err, o->code, NULL, "%s", text ? text : mr_strerror(o->code));
  *b->done_tail = o;
  b->done_tail = &o->next;
  mr_ready_post(b->l->loop, &b->deliver);
}

static int op_class(const struct mr_op *o)
{
  return o->state != MR_OP_QUEUED ? MR_CALLS_SENT : o->kind == MR_OP_CALL ? MR_CALLS_QUEUED : MR_CALLS_STATUS;
}

int mr_calls_present(const struct mr_box *b)
{
  int set = 0;
  for (const struct mr_op *o = b->ops; o; o = o->next)
    set |= op_class(o);
  return set;
}

void mr_calls_fail(struct mr_box *b, int classes, int code, const char *text)
{
  struct mr_op *o = b->ops, *next;

  for (; o; o = next) {
    next = o->next;
    if (op_class(o) & classes) op_finish(b, o, code, text);
  }
}

void mr_calls_answer(struct mr_box *b, int classes, const char *text, bool is_error)
{
  struct mr_op *o = b->ops, *next;

  for (; o; o = next) {
    next = o->next;
    if (!(op_class(o) & classes)) continue;
    o->is_error = is_error;
    mr_buf_c(&o->content, "[{\"type\":\"text\",\"text\":");
    mr_json_quote(&o->content, mr_str_c(text));
    mr_buf_c(&o->content, "}]");
    op_finish(b, o, o->content.failed, NULL);
  }
}

void mr_calls_drop(struct mr_box *b)
{
  struct mr_op *o;

  while ((o = b->ops)) {
    b->ops = o->next;
    op_free(b, o);
  }
  while ((o = b->done)) {
    b->done = o->next;
    op_free(b, o);
  }
  b->ops_tail = &b->ops;
  b->done_tail = &b->done;
  b->nops = 0;
}

void mr_calls_deliver(struct mr_ready *r)
{
  struct mr_box *b = MR_OF(r, struct mr_box, deliver);
  struct mr_op *o;

  b->delivering = true;
  while (!b->released && (o = b->done)) {
    struct mr_sandbox_result res = {.code = o->code, .is_error = o->is_error, .err = o->code ? &o->err : NULL};
    b->done = o->next;
    if (!b->done) b->done_tail = &b->done;
    res.content = o->code == MR_OK ? mr_buf_get(&o->content) : MR_S("[]");
    o->fn(o->ud, &res);
    op_free(b, o);
  }
  b->delivering = false;
  mr_box_settle(b);
}

static int op_add(struct mr_box *b, enum mr_op_kind kind, const struct mr_sandbox_call *c, mr_sandbox_fn fn,
                  void *ud)
{
  struct mr_op *o;
  char *p;

  if (b->state == MR_BOX_GONE) return MR_E_CLOSED;
  if (c->exec_id.n == 0 || c->exec_id.n > MR_ENVD_ID_MAX || !mr_utf8_valid(c->exec_id) || c->name.n > 64)
    return MR_E_INVALID;
  if (b->nops >= MR_BOX_OPS_MAX) return MR_E_FULL;
  o = mr_mem_zalloc(b->l->mem, sizeof *o + c->exec_id.n + c->name.n + c->input.n);
  if (!o) return MR_E_NOMEM;
  p = (char *)(o + 1);
  o->kind = kind;
  o->id = mr_str_n(memcpy(p, c->exec_id.p, c->exec_id.n), c->exec_id.n);
  p += c->exec_id.n;
  o->name = mr_str_n(c->name.n ? memcpy(p, c->name.p, c->name.n) : p, c->name.n);
  p += c->name.n;
  o->input = mr_str_n(c->input.n ? memcpy(p, c->input.p, c->input.n) : p, c->input.n);
  o->timeout_ms = c->timeout_ms;
  o->fn = fn;
  o->ud = ud;
  mr_buf_init(&o->content, b->l->mem, MR_BOX_FRAME_MAX * 2);
  *b->ops_tail = o;
  b->ops_tail = &o->next;
  b->nops++;
  mr_box_step(b);
  return MR_OK;
}

/* The input goes into a frame as it is: it must be one JSON object. */
static int check_object(struct mr_box *b, struct mr_str json)
{
  yyjson_doc *doc;
  int code = mr_json_parse(b->l->mem, json, MR_BOX_INPUT_MAX, &doc, NULL);

  if (code != MR_OK) return code;
  if (!yyjson_is_obj(yyjson_doc_get_root(doc))) code = MR_E_INVALID;
  yyjson_doc_free(doc);
  return code;
}

int mr_box_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud)
{
  struct mr_box *b = MR_OF(s, struct mr_box, base);
  int code = check_object(b, c->input);

  return code == MR_OK ? op_add(b, MR_OP_CALL, c, fn, ud) : code;
}

int mr_box_status(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud)
{
  return op_add(MR_OF(s, struct mr_box, base), MR_OP_STATUS, &(struct mr_sandbox_call){.exec_id = exec_id}, fn,
                ud);
}

void mr_box_cancel(struct mr_sandbox *s, struct mr_str exec_id)
{
  struct mr_box *b = MR_OF(s, struct mr_box, base);
  struct mr_op *o, *next;

  for (o = b->ops; o; o = next) {
    next = o->next;
    if (!mr_str_eq(o->id, exec_id) || o->cancelled) continue;
    o->cancelled = true;
    o->since_us = mr_loop_now_us(b->l->loop);
    if (o->state == MR_OP_QUEUED)
      op_finish(b, o, MR_E_CANCELLED, NULL);
    else if (b->state == MR_BOX_UP)
      mr_wire_ask(b, "cancel", o->id);
  }
}

static void send_one(struct mr_box *b, struct mr_op *o)
{
  /* What envd had accepted is asked for, not called: its answer may have been dropped meanwhile, and an
   * id that it does not know any more must not start again. */
  o->lost = o->state == MR_OP_ACCEPTED;
  if (!o->cancelled) o->since_us = mr_loop_now_us(b->l->loop);
  if (o->kind == MR_OP_STATUS || o->lost)
    mr_wire_ask(b, "status", o->id);
  else
    mr_wire_call(b, o);
  o->state = MR_OP_SENT;
  if (o->cancelled) mr_wire_ask(b, "cancel", o->id);
}

void mr_box_accepted(struct mr_box *b, struct mr_str id)
{
  for (struct mr_op *o = b->ops; o; o = o->next)
    if (o->state == MR_OP_SENT && mr_str_eq(o->id, id)) o->state = MR_OP_ACCEPTED;
}

const char mr_calls_died[] =
    "The sandbox ended while this was running. Its processes, the shell's state and /tmp are lost; files in "
    "/workspace and /mnt/session/outputs are kept. The next call starts a new sandbox.";

void mr_calls_oom(const struct mr_local_conf *c, bool anew, char out[400])
{
  snprintf(out, 400,
           "The sandbox ran out of memory (its limit is %lld MiB for all that runs in it) and was ended%s. Its "
           "processes, "
           "the shell's state and /tmp are lost; files in /workspace and /mnt/session/outputs are kept.%s",
           (long long)(c->cgroup.memory_max >> 20), anew ? " before this call" : "",
           anew ? " This is a new one.\n" : " The next call starts a new sandbox.");
}

/* The blocks of an answer; before them what the model must know of the life before. */
static void write_content(struct mr_box *b, struct mr_op *o, yyjson_val *content)
{
  char text[400];
  struct mr_buf rest;

  if (!b->note_oom) {
    mr_json_write(&o->content, content, false);
    return;
  }
  b->note_oom = false;
  mr_calls_oom(b->l->conf, true, text);
  mr_buf_init(&rest, b->l->mem, MR_BOX_FRAME_MAX * 2);
  mr_json_write(&rest, content, false);
  mr_buf_c(&o->content, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(&o->content, mr_str_c(text));
  mr_buf_c(&o->content, yyjson_arr_size(content) ? "}," : "}");
  if (rest.n > 1) mr_buf_str(&o->content, mr_str_n(rest.p + 1, rest.n - 1));
  if (rest.failed) o->content.failed = rest.failed;
  mr_buf_free(&rest);
}

/* A command whose connections were refused may say little of why ("response 403"): its answer gets a block more. */
static void add_notes(struct mr_box *b, struct mr_op *o)
{
  struct mr_buf notes;

  mr_buf_init(&notes, b->l->mem, 4096);
  if (mr_str_is(o->name, "bash") && !o->content.failed && o->content.n >= 2 &&
      mr_egress_link_notes(b->way, &notes)) {
    bool first = o->content.n == 2;
    o->content.n--; /* the array's end */
    mr_buf_c(&o->content, first ? "{\"type\":\"text\",\"text\":" : ",{\"type\":\"text\",\"text\":");
    mr_json_quote(&o->content, mr_buf_get(&notes));
    mr_buf_c(&o->content, "}]");
  }
  mr_buf_free(&notes);
}

void mr_box_result(struct mr_box *b, struct mr_str id, int code, yyjson_val *content, bool is_error)
{
  struct mr_op *o;

  while ((o = op_find(b, id, true))) {
    b->failures = 0;
    o->is_error = is_error;
    if (content) {
      write_content(b, o, content);
      add_notes(b, o);
    }
    if (o->content.failed)
      op_finish(b, o, o->content.failed, "The answer of the sandbox is too large.");
    else if (code == MR_E_NOTFOUND && o->kind == MR_OP_CALL)
      op_finish(b, o, MR_E_CLOSED, mr_calls_died);
    else
      op_finish(b, o, code, code == MR_E_PROTOCOL ? "The sandbox gave an answer that is not valid." : NULL);
  }
}

void mr_calls_send(struct mr_box *b, int classes)
{
  for (struct mr_op *o = b->ops; o && b->fd >= 0 && !b->broken; o = o->next)
    if (op_class(o) & classes) send_one(b, o);
}

bool mr_calls_stuck(const struct mr_box *b, int64_t accept_us, int64_t cancel_us)
{
  int64_t now = mr_loop_now_us(b->l->loop);

  for (const struct mr_op *o = b->ops; o; o = o->next)
    if (o->state != MR_OP_QUEUED && ((o->state == MR_OP_SENT && now - o->since_us > accept_us) ||
                                     (o->cancelled && now - o->since_us > cancel_us)))
      return true;
  return false;
}
