/*
 * script_file - reading a recorded model file, choosing its lines.
 *
 * See scripted.c for the form of a line and the header for the invariant. The file is read once, when
 * the provider is made; a line that is no proper one is refused then, by number, not in the middle of a
 * conversation. Loop thread.
 */
#include "model/script_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum { FILE_MAX = 32 << 20, LINES_MAX = 100000, TEXT_MAX = 64 << 20 };

#define FIELD "models.scripted.file"

static int read_all(const char *path, struct mr_buf *b, struct mr_err *err)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC), rc = MR_OK;
  if (fd < 0) return mr_err_set(err, MR_E_INVALID, FIELD, FIELD ": cannot open %s: %s", path, strerror(errno));
  for (;;) {
    char *p = mr_buf_reserve(b, 1 << 16);
    if (!p) break;
    ssize_t n = read(fd, p, 1 << 16);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) rc = mr_err_errno(err, path);
    if (n <= 0) break;
    b->n += (size_t)n;
  }
  close(fd);
  if (rc == MR_OK && b->failed) rc = mr_err_set(err, b->failed, FIELD, FIELD ": %s is too large", path);
  return rc;
}

static int room(struct mr_script *s, struct mr_err *err)
{
  if (s->n >= LINES_MAX) return mr_err_set(err, MR_E_TOO_LARGE, FIELD, FIELD ": over %d lines", LINES_MAX);
  if (s->n & (s->n - 1)) return MR_OK; /* grown at 0 and at powers of two */
  size_t cap = s->n ? (size_t)s->n * 2 : 1;
  void *p = mr_mem_realloc(s->mem, s->lines, cap * sizeof *s->lines);
  if (!p) return mr_err_nomem(err);
  s->lines = p;
  return MR_OK;
}

static int add_line(struct mr_script *s, int number, struct mr_str text, struct mr_err *err)
{
  struct mr_script_line l = {0};
  struct mr_err why = {.size = sizeof why};
  int rc = mr_json_parse(s->mem, text, FILE_MAX, &l.doc, &why);
  if (rc != MR_OK) return mr_err_set(err, rc, FIELD, FIELD ": %s line %d: %s", s->path, number, why.message);
  l.root = yyjson_doc_get_root(l.doc);
  l.reply = mr_json_get(l.root, "reply");
  l.error = mr_json_get(l.root, "error");
  l.match = mr_json_get_str(l.root, "match");
  if (l.reply ? !yyjson_is_arr(mr_json_get(l.reply, "content")) : !yyjson_is_obj(l.error))
    rc = mr_err_set(err, MR_E_INVALID, FIELD,
                    FIELD ": %s line %d: wants \"reply\" with a \"content\" array, or \"error\"", s->path,
                    number);
  if (rc == MR_OK) rc = room(s, err);
  if (rc == MR_OK)
    s->lines[s->n++] = l;
  else
    yyjson_doc_free(l.doc);
  return rc;
}

int mr_script_load(struct mr_script *s, const struct mr_mem *m, const char *path, struct mr_err *err)
{
  struct mr_buf all;
  memset(s, 0, sizeof *s);
  s->mem = m;
  mr_buf_init(&all, m, FILE_MAX);
  s->path = mr_mem_strdup(m, mr_str_c(path));
  int rc = s->path ? read_all(path, &all, err) : mr_err_nomem(err);
  struct mr_str rest = mr_buf_get(&all);
  for (int number = 1; rc == MR_OK && rest.n; number++) {
    struct mr_str line = mr_str_trim(mr_str_split(&rest, '\n'));
    if (line.n && line.p[0] != '#') rc = add_line(s, number, line, err);
  }
  if (rc == MR_OK && s->n == 0) rc = mr_err_set(err, MR_E_INVALID, FIELD, FIELD ": %s holds no line", path);
  mr_buf_free(&all);
  if (rc != MR_OK) mr_script_free(s);
  return rc;
}

void mr_script_free(struct mr_script *s)
{
  for (int i = 0; i < s->n; i++)
    yyjson_doc_free(s->lines[i].doc);
  mr_mem_free(s->mem, s->lines);
  mr_mem_free(s->mem, s->path);
  s->lines = NULL;
  s->path = NULL;
  s->n = 0;
}

void mr_script_view_free(struct mr_script_view *v)
{
  mr_buf_free(&v->last);
  mr_buf_free(&v->user_text);
  mr_buf_free(&v->tool_result);
}

/* ---- texts of a message ---- */

static void add(struct mr_buf *b, struct mr_str s)
{
  if (!s.n) return;
  if (b->n) mr_buf_char(b, '\n');
  mr_buf_str(b, s);
}

static void texts(struct mr_buf *b, yyjson_val *content)
{
  size_t i, max;
  yyjson_val *v;
  if (yyjson_is_str(content)) add(b, mr_json_str(content));
  yyjson_arr_foreach(content, i, max, v) add(b, mr_json_get_str(v, "text"));
}

/* Reads a message into v; last is replaced, the others only when the message has some. */
static void look(struct mr_script_view *v, yyjson_val *message)
{
  yyjson_val *content = mr_json_get(message, "content"), *b;
  bool user = mr_str_is(mr_json_get_str(message, "role"), "user"), result = false;
  struct mr_buf own;
  mr_buf_init(&own, v->last.mem, TEXT_MAX);
  texts(&own, content);
  mr_buf_reset(&v->last);
  size_t i, max;
  yyjson_arr_foreach(content, i, max, b)
  {
    if (!mr_str_is(mr_json_get_str(b, "type"), "tool_result")) continue;
    if (!result) mr_buf_reset(&v->tool_result);
    result = true;
    texts(&v->tool_result, mr_json_get(b, "content"));
  }
  if (user && own.n) {
    mr_buf_reset(&v->user_text);
    mr_buf_str(&v->user_text, mr_buf_get(&own));
  }
  if (result) add(&v->last, mr_buf_get(&v->tool_result));
  add(&v->last, mr_buf_get(&own));
  mr_buf_free(&own);
}

/* ---- the choice ---- */

static bool fits(const struct mr_script_line *l, struct mr_str last)
{
  return !l->match.n || (last.n >= l->match.n && memmem(last.p, last.n, l->match.p, l->match.n));
}

/* Takes the line that the reply to a message with this text took; lines that failed before it too. */
static void take_past(const struct mr_script *s, bool *taken, struct mr_script_view *v)
{
  for (int i = 0; i < s->n; i++) {
    if (taken[i] || !fits(&s->lines[i], mr_buf_get(&v->last))) continue;
    taken[i] = true;
    v->used++;
    if (s->lines[i].reply) return;
  }
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
  const unsigned char *c = p;
  for (size_t i = 0; i < n; i++)
    h = (h ^ c[i]) * UINT64_C(1099511628211);
  return h;
}

/* Has this error line failed this conversation, at this place, as often as it says? Counts if not. */
static bool spent(struct mr_script *s, const struct mr_model_req *r, int line, int replies)
{
  int64_t times = mr_json_get_int(s->lines[line].error, "times", 1);
  uint64_t who = fnv(UINT64_C(14695981039346656037), r->session_id.p, r->session_id.n);
  who = fnv(fnv(who, &line, sizeof line), &replies, sizeof replies);
  for (int i = 0; i < MR_SCRIPT_RING; i++) {
    if (s->ring[i].who != who || s->ring[i].times == 0) continue;
    if (s->ring[i].times >= times) return true;
    s->ring[i].times++;
    return false;
  }
  s->ring[s->at].who = who;
  s->ring[s->at].times = 1;
  s->at = (s->at + 1) % MR_SCRIPT_RING;
  return false;
}

int mr_script_take(struct mr_script *s, const struct mr_model_req *r, struct mr_script_view *v,
                   const struct mr_script_line **out, struct mr_err *err)
{
  *v = (struct mr_script_view){0};
  *out = NULL;
  mr_buf_init(&v->last, s->mem, TEXT_MAX);
  mr_buf_init(&v->user_text, s->mem, TEXT_MAX);
  mr_buf_init(&v->tool_result, s->mem, TEXT_MAX);
  bool *taken = mr_mem_zalloc(s->mem, (size_t)s->n * sizeof *taken);
  if (!taken) return mr_err_nomem(err);
  int rc = MR_OK;
  for (int i = 0; rc == MR_OK && i < r->nmessages; i++) {
    yyjson_doc *d = NULL;
    rc = mr_json_parse(s->mem, r->messages[i], TEXT_MAX, &d, err);
    if (rc != MR_OK) break;
    yyjson_val *m = yyjson_doc_get_root(d);
    if (mr_str_is(mr_json_get_str(m, "role"), "assistant")) {
      take_past(s, taken, v);
      v->replies++;
    }
    look(v, m);
    yyjson_doc_free(d);
  }
  for (int i = 0; rc == MR_OK && i < s->n && !*out; i++) {
    const struct mr_script_line *l = &s->lines[i];
    if (taken[i] || !fits(l, mr_buf_get(&v->last))) continue;
    if (l->reply || !spent(s, r, i, v->replies)) *out = l;
  }
  mr_mem_free(s->mem, taken);
  return rc;
}
