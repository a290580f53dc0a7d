/*
 * wire.c - a sandbox's connection to its envd: frames of helpers/proto.h, and the pipe on which launcher
 * and bubblewrap say why something failed. libevent's callbacks only note what is ready; reading, parsing
 * and what follows run in the drain.
 *
 * What comes in was written inside the sandbox: each frame is bounded and checked before anything is
 * believed, and anything that is not of the protocol ends the connection. Loop thread.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox/helpers/proto.h"

enum { READ_PIECE = 64 << 10, READ_TURNS = 8, OUT_MAX = 64 << 20, KEEP_CAP = 1 << 20 };

/* ---- out ---- */

static void flush(struct mr_box *b)
{
  while (b->out.n > 0 && b->fd >= 0) {
    ssize_t n = send(b->fd, b->out.p, b->out.n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      event_add(b->wr, NULL);
      return;
    }
    if (n < 0) {
      b->broken = true;
      mr_ready_post(b->l->loop, &b->io);
      return;
    }
    mr_buf_drop(&b->out, (size_t)n);
  }
  if (b->out.n == 0 && b->out.cap > KEEP_CAP) mr_buf_free(&b->out);
}

/* A frame: begin, write the object, end. */
static size_t frame_begin(struct mr_box *b, struct mr_jw *w, const char *t)
{
  static const unsigned char none[MR_ENVD_HEADER];
  size_t at = b->out.n;

  mr_buf_add(&b->out, none, sizeof none);
  mr_jw_init(w, &b->out);
  mr_jw_obj(w);
  mr_jw_kc(w, "t", t);
  return at;
}

static void frame_end(struct mr_box *b, struct mr_jw *w, size_t at)
{
  mr_jw_obj_end(w);
  if (b->out.failed || b->out.n - at > MR_ENVD_FRAME_MAX) {
    b->broken = true; /* no memory, or envd does not read: the connection starts again */
    mr_ready_post(b->l->loop, &b->io);
    return;
  }
  mr_envd_header_put((unsigned char *)b->out.p + at, (uint32_t)(b->out.n - at - MR_ENVD_HEADER));
  if (!event_pending(b->wr, EV_WRITE, NULL)) flush(b);
}

void mr_wire_call(struct mr_box *b, const struct mr_op *o)
{
  struct mr_jw w;
  size_t at;

  if (b->fd < 0 || b->broken) return;
  at = frame_begin(b, &w, "call");
  mr_jw_kstr(&w, "id", o->id);
  mr_jw_kstr(&w, "name", o->name);
  mr_jw_kraw(&w, "input", o->input);
  if (o->timeout_ms > 0) mr_jw_kint(&w, "timeout_ms", o->timeout_ms);
  frame_end(b, &w, at);
}

void mr_wire_ask(struct mr_box *b, const char *t, struct mr_str id)
{
  struct mr_jw w;
  size_t at;

  if (b->fd < 0 || b->broken) return;
  at = frame_begin(b, &w, t);
  mr_jw_kstr(&w, "id", id);
  frame_end(b, &w, at);
}

/* Bytes that wait, with a descriptor on the first of them. */
static void flush_with(struct mr_box *b, int fd)
{
  union {
    struct cmsghdr h;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec v = {.iov_base = b->out.p, .iov_len = b->out.n};
  struct msghdr m = {
      .msg_iov = &v, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
  struct cmsghdr *h = CMSG_FIRSTHDR(&m);
  ssize_t n;

  h->cmsg_level = SOL_SOCKET;
  h->cmsg_type = SCM_RIGHTS;
  h->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(h), &fd, sizeof fd);
  n = sendmsg(b->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (n > 0) mr_buf_drop(&b->out, (size_t)n); /* else it goes without: the sandbox has no network then */
}

/* The first frame: it may carry the way out. Nothing was sent before, so there is room for it. */
static void attach(struct mr_box *b, int64_t version)
{
  struct mr_jw w;
  struct mr_err err;
  int theirs = -1;
  size_t at = frame_begin(b, &w, "attach");

  mr_jw_kint(&w, "proto", version);
  mr_jw_obj_end(&w);
  if (b->out.failed) {
    b->broken = true;
    mr_ready_post(b->l->loop, &b->io);
    return;
  }
  mr_envd_header_put((unsigned char *)b->out.p + at, (uint32_t)(b->out.n - at - MR_ENVD_HEADER));
  if (b->l->egress && b->token[0] && version >= MR_ENVD_PROTO_EGRESS &&
      mr_egress_link_new(&b->way, b->l->egress, b->session, b->token, b->policy, &theirs, &err) == MR_OK) {
    flush_with(b, theirs);
    close(theirs);
  }
  flush(b);
}

/* ---- in ---- */

static bool is_source(yyjson_val *v)
{
  yyjson_val *s = mr_json_get(v, "source");
  return mr_json_get_str(s, "type").p && mr_json_get_str(s, "media_type").p && mr_json_get_str(s, "data").p;
}

/* Content as a tool result may have it: text, images and documents, nothing that is not ours. */
static bool content_ok(yyjson_val *content)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;

  if (!yyjson_is_arr(content)) return false;
  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_str t = mr_json_get_str(v, "type");
    if (mr_str_is(t, "text") ? !mr_json_get_str(v, "text").p
                             : !((mr_str_is(t, "image") || mr_str_is(t, "document")) && is_source(v)))
      return false;
  }
  return true;
}

static bool on_hello(struct mr_box *b, yyjson_val *root)
{
  yyjson_val *range = mr_json_get(root, "proto");
  int64_t lo = yyjson_get_sint(yyjson_arr_get(range, 0)), hi = yyjson_get_sint(yyjson_arr_get(range, 1));

  if (b->state != MR_BOX_HELLO || !yyjson_is_arr(range) || lo > MR_ENVD_PROTO_MAX || hi < MR_ENVD_PROTO_MIN)
    return false;
  attach(b, hi < MR_ENVD_PROTO_MAX ? hi : MR_ENVD_PROTO_MAX);
  mr_box_up(b);
  return true;
}

static bool on_frame(struct mr_box *b, yyjson_val *root)
{
  struct mr_str t = mr_json_get_str(root, "t"), id = mr_json_get_str(root, "id");
  yyjson_val *content = mr_json_get(root, "content");

  if (b->state == MR_BOX_HELLO || mr_str_is(t, "hello")) return mr_str_is(t, "hello") && on_hello(b, root);
  if (mr_str_is(t, "accepted"))
    mr_box_accepted(b, id);
  else if (mr_str_is(t, "cancelled"))
    mr_box_result(b, id, MR_E_CANCELLED, NULL, true);
  else if (mr_str_is(t, "unknown"))
    mr_box_result(b, id, MR_E_NOTFOUND, NULL, true);
  else if (mr_str_is(t, "result") && content_ok(content))
    mr_box_result(b, id, MR_OK, content, mr_json_get_bool(root, "is_error", false));
  else if (mr_str_is(t, "result"))
    mr_box_result(b, id, MR_E_PROTOCOL, NULL, true);
  else
    return false;
  return true;
}

static bool parse(struct mr_box *b)
{
  size_t at = 0, n;
  yyjson_doc *doc;
  bool ok = true;

  while (ok && b->fd >= 0 && b->in.n - at >= MR_ENVD_HEADER) {
    n = mr_envd_header_get((const unsigned char *)b->in.p + at);
    if (n == 0 || n > MR_ENVD_FRAME_MAX) return false;
    if (b->in.n - at - MR_ENVD_HEADER < n) break;
    ok = mr_json_parse(b->l->mem, mr_str_n(b->in.p + at + MR_ENVD_HEADER, n), n, &doc, NULL) == MR_OK;
    if (ok) {
      ok = on_frame(b, yyjson_doc_get_root(doc));
      yyjson_doc_free(doc);
    }
    at += MR_ENVD_HEADER + n;
  }
  if (at && b->fd >= 0) mr_buf_drop(&b->in, at);
  if (b->in.n == 0 && b->in.cap > KEEP_CAP) mr_buf_free(&b->in);
  return ok;
}

/* False at the end of the connection. */
static bool read_some(struct mr_box *b)
{
  for (int i = 0; i < READ_TURNS; i++) {
    char *p = mr_buf_reserve(&b->in, READ_PIECE);
    ssize_t n = p ? recv(b->fd, p, READ_PIECE, MSG_DONTWAIT) : 0;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      b->readable = false;
      return true;
    }
    if (n <= 0) return false;
    b->in.n += (size_t)n;
    if (!parse(b) || b->fd < 0) {
      mr_log(mr_loop_sys(b->l->loop), MR_LOG_ERROR, "sandbox", "%s: its first process broke the protocol",
             b->session);
      return false;
    }
  }
  return true;
}

/* ---- the report ---- */

static void report_line(struct mr_box *b, struct mr_str line)
{
  size_t n = strlen(b->reason), room = sizeof b->reason - n - 1;

  if (line.n == 0 || mr_str_is(line, "ready")) return;
  if (mr_str_starts(line, MR_S("launcher: exit")) || mr_str_starts(line, MR_S("launcher: signal")))
    b->reason_over = true;
  if (n && room > 2) {
    memcpy(b->reason + n, "; ", 3);
    n += 2;
    room -= 2;
  }
  if (line.n > room) line.n = mr_utf8_cut(line, room);
  memcpy(b->reason + n, line.p, line.n);
  b->reason[n + line.n] = '\0';
}

/* Lines are short and written whole; a piece that ends without a newline is a line too. */
static void read_report(struct mr_box *b)
{
  char piece[2048];
  ssize_t n;

  while (b->report >= 0 && (n = read(b->report, piece, sizeof piece)) != 0) {
    struct mr_str rest = mr_str_n(piece, n > 0 ? (size_t)n : 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return;
    while (rest.p)
      report_line(b, mr_str_trim(mr_str_split(&rest, '\n')));
  }
  b->reason_over = true;
  mr_wire_report_close(b);
}

/* ---- events ---- */

static void on_readable(evutil_socket_t fd, short what, void *ud)
{
  struct mr_box *b = ud;
  (void)fd;
  (void)what;
  b->readable = true;
  mr_ready_post(b->l->loop, &b->io);
}

static void on_other(evutil_socket_t fd, short what, void *ud)
{
  struct mr_box *b = ud;
  (void)fd;
  (void)what;
  mr_ready_post(b->l->loop, &b->io);
}

void mr_wire_io(struct mr_ready *r)
{
  struct mr_box *b = MR_OF(r, struct mr_box, io);
  bool over = b->reason_over;

  if (b->report >= 0) {
    read_report(b);
    if (b->report >= 0) event_add(b->report_ev, NULL);
    if (b->reason_over != over) mr_box_step(b);
  }
  if (b->fd >= 0 && !b->broken && b->out.n > 0 && !event_pending(b->wr, EV_WRITE, NULL)) flush(b);
  if (b->fd >= 0 && !b->broken && b->readable && !read_some(b)) b->broken = true;
  if (b->fd >= 0 && b->broken)
    mr_box_lost(b);
  else if (b->fd >= 0 && b->readable)
    mr_ready_post(b->l->loop, &b->io); /* more is there: at the next pass */
  else if (b->fd >= 0)
    event_add(b->rd, NULL);
}

int mr_wire_open(struct mr_box *b, int fd, int report, struct mr_err *err)
{
  struct event_base *base = mr_loop_base(b->l->loop);

  mr_wire_report_close(b);
  b->fd = fd;
  b->report = report;
  b->reason[0] = '\0';
  b->readable = b->broken = false;
  b->reason_over = report < 0;
  mr_buf_init(&b->in, b->l->mem, MR_ENVD_FRAME_MAX + MR_ENVD_HEADER + READ_PIECE);
  mr_buf_init(&b->out, b->l->mem, OUT_MAX);
  b->rd = event_new(base, fd, EV_READ, on_readable, b);
  b->wr = event_new(base, fd, EV_WRITE, on_other, b);
  b->report_ev = report >= 0 ? event_new(base, report, EV_READ, on_other, b) : NULL;
  if (!b->rd || !b->wr || (report >= 0 && !b->report_ev) || event_add(b->rd, NULL) != 0 ||
      (b->report_ev && event_add(b->report_ev, NULL) != 0)) {
    mr_wire_close(b);
    mr_wire_report_close(b);
    return mr_err_nomem(err);
  }
  return MR_OK;
}

void mr_wire_report_close(struct mr_box *b)
{
  if (b->report_ev) event_free(b->report_ev);
  b->report_ev = NULL;
  if (b->report >= 0) close(b->report);
  b->report = -1;
}

void mr_wire_close(struct mr_box *b)
{
  if (b->rd) event_free(b->rd);
  if (b->wr) event_free(b->wr);
  b->rd = b->wr = NULL;
  mr_egress_link_free(&b->way);
  if (b->fd >= 0) close(b->fd);
  b->fd = -1;
  mr_buf_free(&b->in);
  mr_buf_free(&b->out);
}
