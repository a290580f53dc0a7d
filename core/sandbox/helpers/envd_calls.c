/*
 * envd_calls - the calls by id: each is started at most once and answered once, however often and over how
 * many connections it is asked for.
 *
 * A record is made when a call arrives and goes WAITING -> RUNNING -> DONE or CANCELLED; DONE turns into GONE
 * when the answer had to make room. Kept: the newest answers up to MR_ENVD_KEEP_CALLS and MR_ENVD_KEEP_BYTES;
 * ids up to ENVD_IDS. An answer stays after it was sent, because the server may end before it wrote it down.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "envd.h"

static uint64_t hash(struct estr s)
{
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; i < s.n; i++)
    h = (h ^ (unsigned char)s.p[i]) * 1099511628211u;
  return h;
}

struct call *calls_find(struct envd *e, struct estr id)
{
  uint64_t h = hash(id);
  for (struct call *c = e->calls.newest; c; c = c->prev)
    if (c->hash == h && c->id_n == id.n && !memcmp(c->id, id.p, id.n)) return c;
  return NULL;
}

static bool is_open(const struct call *c)
{
  return c->state == CALL_WAITING || c->state == CALL_RUNNING;
}

static void say(struct envd *e, const char *t, struct estr id)
{
  struct ebuf b = {0};
  ebuf_f(&b, "{\"t\":\"%s\",\"id\":", t);
  ebuf_json(&b, id.p, id.n);
  ebuf_s(&b, "}");
  conn_send(e, &b);
  ebuf_free(&b);
}

static void say_answer(struct envd *e, const struct call *c)
{
  static const char gone[] = "[{\"type\":\"text\",\"text\":\"the result of this call is no longer kept\"}]";
  struct estr id = {c->id, c->id_n};
  struct ebuf b = {.max = MR_ENVD_FRAME_MAX};
  if (c->state == CALL_CANCELLED) {
    say(e, "cancelled", id);
    return;
  }
  ebuf_s(&b, "{\"t\":\"result\",\"id\":");
  ebuf_json(&b, id.p, id.n);
  ebuf_s(&b, ",\"content\":");
  if (c->state == CALL_GONE)
    ebuf_s(&b, gone);
  else
    ebuf_put(&b, c->content.p, c->content.n);
  ebuf_s(&b, c->state == CALL_GONE || c->is_error ? ",\"is_error\":true}" : ",\"is_error\":false}");
  conn_send(e, &b);
  ebuf_free(&b);
}

static void forget_content(struct calls *cs, struct call *c)
{
  if (c->counted) {
    cs->kept--;
    cs->bytes -= c->content.n;
    c->counted = false;
  }
  ebuf_free(&c->content);
}

static void drop(struct calls *cs, struct call *c)
{
  *(c->prev ? &c->prev->next : &cs->oldest) = c->next;
  *(c->next ? &c->next->prev : &cs->newest) = c->prev;
  if (cs->first_open == c) cs->first_open = c->next;
  cs->n--;
  forget_content(cs, c);
  ej_free(&c->doc);
  free(c->id);
  free(c);
}

static void make_room(struct calls *cs)
{
  for (struct call *c = cs->oldest; c && (cs->kept > MR_ENVD_KEEP_CALLS || cs->bytes > MR_ENVD_KEEP_BYTES);
       c = c->next) {
    if (c->state != CALL_DONE) continue;
    forget_content(cs, c);
    c->state = CALL_GONE;
  }
}

static void closed(struct envd *e, struct call *c)
{
  e->calls.open--;
  ej_free(&c->doc);
  c->input = NULL;
  if (c->asked) say_answer(e, c);
  c->asked = false;
  make_room(&e->calls);
}

void call_answer(struct envd *e, struct call *c, struct ebuf *content, bool is_error)
{
  static const char none[] =
      "[{\"type\":\"text\",\"text\":\"the result was too large for the memory of the sandbox\"}]";
  if (content->failed) {
    ebuf_free(content);
    content->failed = false;
    ebuf_s(content, none);
    is_error = true;
  }
  c->state = CALL_DONE;
  c->is_error = is_error;
  c->content = *content;
  *content = (struct ebuf){0};
  c->counted = true;
  e->calls.kept++;
  e->calls.bytes += c->content.n;
  closed(e, c);
}

void call_answer_text(struct envd *e, struct call *c, bool is_error, const char *fmt, ...)
{
  char text[2048];
  struct ebuf raw = {0}, content = {0};
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  ebuf_text(&raw, text, strlen(text), false);
  envd_content(&content, raw.p, raw.n);
  ebuf_free(&raw);
  call_answer(e, c, &content, is_error);
}

void call_cancelled(struct envd *e, struct call *c)
{
  c->state = CALL_CANCELLED;
  closed(e, c);
}

static enum tool tool_of(struct estr name)
{
  static const char *const names[] = {"bash", "read", "write", "edit", "glob", "grep"};
  for (int i = 0; i < TOOL_NONE; i++)
    if (name.p && strlen(names[i]) == name.n && !memcmp(names[i], name.p, name.n)) return (enum tool)i;
  return TOOL_NONE;
}

/* Forgets the oldest ids. Only here, where nobody walks the list. */
static void make_room_for_id(struct calls *cs)
{
  for (struct call *c = cs->oldest, *next; c && cs->n >= ENVD_IDS; c = next) {
    next = c->next;
    if (!is_open(c)) drop(cs, c);
  }
}

static struct call *record(struct envd *e, struct estr id)
{
  struct calls *cs = &e->calls;
  make_room_for_id(cs);
  struct call *c = calloc(1, sizeof *c);
  char *copy = c ? malloc(id.n + 1) : NULL;
  if (!copy) {
    free(c);
    return NULL;
  }
  memcpy(copy, id.p, id.n);
  copy[id.n] = 0;
  c->id = copy;
  c->id_n = id.n;
  c->hash = hash(id);
  c->prev = cs->newest;
  *(cs->newest ? &cs->newest->next : &cs->oldest) = c;
  cs->newest = c;
  if (!cs->first_open) cs->first_open = c;
  cs->n++;
  cs->open++;
  return c;
}

/* A call that takes longer than that is accepted in words; one that does not is answered, which says as much
 * and saves waking the server twice. */
enum { TELL_MS = 2 };

void calls_tell(struct envd *e)
{
  e->calls.tell_at = 0;
  for (struct call *c = e->calls.first_open; c; c = c->next) {
    if (c->untold && c->asked && is_open(c)) say(e, "accepted", (struct estr){c->id, c->id_n});
    c->untold = false;
  }
}

static void known(struct envd *e, struct call *c)
{
  if (!is_open(c)) {
    say_answer(e, c);
    return;
  }
  c->asked = true;
  c->untold = false;
  say(e, "accepted", (struct estr){c->id, c->id_n});
}

void calls_receive(struct envd *e, struct ej_doc *frame)
{
  struct estr id = ej_str(frame->root, "id"), name = ej_str(frame->root, "name");
  struct call *c = calls_find(e, id);
  if (c) {
    known(e, c);
    ej_free(frame);
    return;
  }
  c = record(e, id);
  if (!c) {
    e->quit = true; /* not even memory for an id: an error result from the server is the better answer */
    ej_free(frame);
    return;
  }
  const struct ej *ms = ej_get(frame->root, "timeout_ms");
  c->tool = tool_of(name);
  c->doc = *frame;
  *frame = (struct ej_doc){0};
  c->input = ej_get(c->doc.root, "input");
  c->timeout_ms = ms && ms->t == EJ_INT && ms->i > 0 ? ms->i : 0;
  if (c->timeout_ms > ENVD_TIMEOUT_MAX) c->timeout_ms = ENVD_TIMEOUT_MAX;
  c->asked = c->untold = true;
  if (!e->calls.tell_at) e->calls.tell_at = envd_now() + TELL_MS;
  if (c->tool == TOOL_NONE) {
    call_answer_text(e, c, true, "there is no tool \"%.*s\"", (int)(name.n < 100 ? name.n : 100),
                     name.p ? name.p : "");
  } else if (!c->input || c->input->t != EJ_OBJ) {
    call_answer_text(e, c, true, "%.*s: the input must be an object", (int)name.n, name.p);
  } else if (e->calls.open > ENVD_OPEN_CALLS) {
    call_answer_text(e, c, true, "%.*s: too many calls are waiting, at most %d may", (int)name.n, name.p,
                     ENVD_OPEN_CALLS);
  }
}

void calls_status(struct envd *e, struct estr id)
{
  struct call *c = calls_find(e, id);
  if (c)
    known(e, c);
  else
    say(e, "unknown", id);
}

void calls_cancel(struct envd *e, struct estr id)
{
  struct call *c = calls_find(e, id);
  if (!c || !is_open(c)) {
    calls_status(e, id);
    return;
  }
  if (e->freezer >= 0) conn_close(e, e->freezer);
  c->asked = true;
  if (c->state == CALL_WAITING)
    call_cancelled(e, c);
  else if (c->tool == TOOL_BASH)
    shell_cancel(e);
  else
    worker_cancel(e, c);
}

void calls_run(struct envd *e)
{
  struct calls *cs = &e->calls;
  while (cs->first_open && !is_open(cs->first_open))
    cs->first_open = cs->first_open->next;
  bool bash = shell_free(e);
  for (struct call *c = cs->first_open, *next; c; c = next) {
    next = c->next;
    if (c->state != CALL_WAITING || !(c->tool == TOOL_BASH ? bash : workers_free(e))) continue;
    if ((c->tool == TOOL_WRITE || c->tool == TOOL_EDIT) && e->disk.over) {
      call_answer_text(e, c, true, "%s: %s. Delete some before writing more.",
                       c->tool == TOOL_WRITE ? "write" : "edit", e->disk.why);
      e->disk.settled = false; /* look again: something may have been deleted just now */
      e->disk.tick = 0;
      continue;
    }
    disk_wake(e);
    c->state = CALL_RUNNING;
    if (c->tool == TOOL_BASH)
      shell_run(e, c);
    else
      worker_start(e, c);
    if (c->tool == TOOL_BASH) bash = !is_open(c) && shell_free(e); /* in the order they came */
  }
}

void calls_detached(struct envd *e)
{
  for (struct call *c = e->calls.first_open; c; c = c->next)
    c->asked = c->untold = false;
}
