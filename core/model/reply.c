/*
 * reply - content blocks of a streamed reply, gathered exactly as they came.
 *
 * For the streaming providers; the scripted one writes its array at once. A block keeps the object it
 * began as, so that members and types we do not know survive the way back to the upstream; what grew
 * in deltas replaces the member it belongs to. A tool's input is kept as the model wrote it, less the
 * space between tokens: parsing checks it, but numbers and escapes stay the model's.
 * Loop thread; the callbacks run inside mr_reply_open and mr_reply_add.
 */
#include "model/reply.h"
#include "base/json.h"

static const char *const field_key[] = {"", "text", "thinking", "input"};

void mr_reply_init(struct mr_reply_build *rb, const struct mr_mem *m, const struct mr_model_cbs *cbs, void *ud)
{
  *rb = (struct mr_reply_build){.mem = m, .cbs = cbs, .ud = ud};
}

static void block_free(const struct mr_mem *m, struct mr_rblock *b)
{
  if (!b) return;
  mr_buf_free(&b->head);
  mr_buf_free(&b->grow);
  mr_buf_free(&b->sig);
  mr_buf_free(&b->cites);
  mr_mem_free(m, b);
}

void mr_reply_free(struct mr_reply_build *rb)
{
  for (int i = 0; i < rb->n; i++)
    block_free(rb->mem, rb->b[i]);
  mr_mem_free(rb->mem, rb->b);
  mr_mem_free(rb->mem, rb->place);
  rb->b = NULL;
  rb->place = NULL;
  rb->n = rb->cap = rb->placed = 0;
}

static int room(struct mr_reply_build *rb)
{
  if (rb->n < rb->cap) return MR_OK;
  if (rb->n >= MR_REPLY_BLOCKS) return MR_E_TOO_LARGE;
  int cap = rb->cap ? rb->cap * 2 : 8;
  void *b = mr_mem_realloc(rb->mem, rb->b, (size_t)cap * sizeof *rb->b);
  if (!b) return MR_E_NOMEM;
  rb->b = b;
  void *p = mr_mem_realloc(rb->mem, rb->place, (size_t)cap * sizeof *rb->place);
  if (!p) return MR_E_NOMEM;
  rb->place = p;
  rb->cap = cap;
  return MR_OK;
}

static int append(struct mr_reply_build *rb, struct mr_buf *to, struct mr_str s)
{
  if (rb->bytes + s.n > MR_REPLY_MAX) return MR_E_TOO_LARGE;
  rb->bytes += s.n;
  mr_buf_str(to, s);
  return to->failed;
}

static void announce(struct mr_reply_build *rb, int i, struct mr_str kind)
{
  rb->b[i]->at = rb->placed;
  rb->place[rb->placed++] = i;
  if (rb->cbs->block) rb->cbs->block(rb->ud, rb->b[i]->at, kind);
}

int mr_reply_open(struct mr_reply_build *rb, int index, struct mr_str kind, struct mr_str head,
                  struct mr_rblock **out)
{
  int rc = room(rb);
  if (rc != MR_OK) return rc;
  struct mr_rblock *b = mr_mem_zalloc(rb->mem, sizeof *b);
  if (!b) return MR_E_NOMEM;
  *b = (struct mr_rblock){.index = index, .at = -1};
  mr_buf_init(&b->head, rb->mem, MR_REPLY_MAX);
  mr_buf_init(&b->grow, rb->mem, MR_REPLY_MAX);
  mr_buf_init(&b->sig, rb->mem, MR_REPLY_MAX);
  mr_buf_init(&b->cites, rb->mem, MR_REPLY_MAX);
  if (mr_str_is(kind, "text")) {
    b->field = MR_RF_TEXT;
    b->text = true;
  } else if (mr_str_is(kind, "thinking")) {
    b->field = MR_RF_THINKING;
  } else if (mr_str_is(kind, "tool_use")) {
    b->field = MR_RF_INPUT;
  }
  rb->b[rb->n++] = b;
  rc = append(rb, &b->head, head);
  if (rc != MR_OK) return rc;
  if (!b->text) announce(rb, rb->n - 1, kind);
  *out = b;
  return MR_OK;
}

struct mr_rblock *mr_reply_find(struct mr_reply_build *rb, int index)
{
  for (int i = rb->n - 1; i >= 0; i--)
    if (rb->b[i]->index == index) return rb->b[i];
  return NULL;
}

static bool blank(struct mr_str s)
{
  return mr_str_trim(s).n == 0;
}

int mr_reply_add(struct mr_reply_build *rb, struct mr_rblock *b, enum mr_rfield f, struct mr_str more)
{
  if (more.n == 0) return MR_OK;
  if (b->field == MR_RF_NONE) b->field = f;
  if (b->field != f) return MR_E_PROTOCOL;
  int rc = append(rb, &b->grow, more);
  if (rc != MR_OK || !b->text) return rc;
  if (b->at < 0) {
    if (blank(more)) return MR_OK;
    int i = rb->n - 1;
    while (rb->b[i] != b)
      i--;
    announce(rb, i, MR_S("text"));
    more = mr_buf_get(&b->grow); /* with the space held back so far */
  }
  if (rb->cbs->text) rb->cbs->text(rb->ud, b->at, more);
  return MR_OK;
}

int mr_reply_sign(struct mr_reply_build *rb, struct mr_rblock *b, struct mr_str more)
{
  return append(rb, &b->sig, more);
}

int mr_reply_cite(struct mr_reply_build *rb, struct mr_rblock *b, struct mr_str json)
{
  if (b->cites.n) mr_buf_char(&b->cites, ',');
  return append(rb, &b->cites, json);
}

bool mr_reply_id_is(const struct mr_rblock *b, const struct mr_mem *m, struct mr_str id)
{
  yyjson_doc *d = NULL;
  if (mr_json_parse(m, mr_buf_get(&b->head), MR_REPLY_MAX, &d, NULL) != MR_OK) return false;
  bool same = mr_str_eq(mr_json_get_str(yyjson_doc_get_root(d), "id"), id);
  yyjson_doc_free(d);
  return same;
}

bool mr_reply_has_tools(const struct mr_reply_build *rb)
{
  for (int i = 0; i < rb->n; i++)
    if (rb->b[i]->field == MR_RF_INPUT) return true;
  return false;
}

/* JSON text without the space between tokens. */
static void minify(struct mr_buf *out, struct mr_str s)
{
  size_t from = 0;
  bool in = false;
  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (in) {
      if (c == '\\')
        i++;
      else if (c == '"')
        in = false;
    } else if (c == '"') {
      in = true;
    } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
      mr_buf_add(out, s.p + from, i - from);
      from = i + 1;
    }
  }
  if (from < s.n) mr_buf_add(out, s.p + from, s.n - from);
}

static bool is_object(struct mr_reply_build *rb, struct mr_str s)
{
  yyjson_doc *d = NULL;
  if (mr_json_parse(rb->mem, s, MR_REPLY_MAX, &d, NULL) != MR_OK) return false;
  bool ok = yyjson_is_obj(yyjson_doc_get_root(d));
  yyjson_doc_free(d);
  return ok;
}

bool mr_reply_whole(struct mr_reply_build *rb, const struct mr_rblock *b)
{
  return b->grow.n > 0 && is_object(rb, mr_buf_get(&b->grow));
}

static void grown(struct mr_jw *w, struct mr_rblock *b)
{
  mr_jw_key(w, field_key[b->field]);
  if (b->field != MR_RF_INPUT) {
    mr_jw_str(w, mr_buf_get(&b->grow));
    return;
  }
  struct mr_buf small;
  mr_buf_init(&small, b->grow.mem, b->grow.max);
  minify(&small, mr_buf_get(&b->grow));
  if (small.failed) w->b->failed = small.failed;
  mr_jw_raw(w, mr_buf_get(&small));
  mr_buf_free(&small);
}

static void cited(struct mr_jw *w, struct mr_rblock *b)
{
  mr_jw_key(w, "citations");
  mr_jw_arr(w);
  mr_jw_raw(w, mr_buf_get(&b->cites));
  mr_jw_arr_end(w);
}

static int write_block(struct mr_reply_build *rb, struct mr_jw *w, struct mr_rblock *b)
{
  yyjson_doc *d = NULL;
  int rc = mr_json_parse(rb->mem, mr_buf_get(&b->head), MR_REPLY_MAX, &d, NULL);
  if (rc != MR_OK) return rc;
  const char *key = field_key[b->field];
  bool has_grown = b->grow.n > 0, has_sig = b->sig.n > 0, has_cites = b->cites.n > 0;
  struct mr_buf v;
  mr_buf_init(&v, rb->mem, MR_REPLY_MAX);
  size_t i, max;
  yyjson_val *k, *val;
  mr_jw_obj(w);
  yyjson_obj_foreach(yyjson_doc_get_root(d), i, max, k, val)
  {
    struct mr_str name = mr_json_str(k);
    if ((has_grown && mr_str_is(name, key)) || (has_sig && mr_str_is(name, "signature")) ||
        (has_cites && mr_str_is(name, "citations")))
      continue;
    /* An input that came with neither text nor object still has to be an object. */
    if (b->field == MR_RF_INPUT && !has_grown && mr_str_is(name, key) && !yyjson_is_obj(val)) continue;
    mr_buf_reset(&v);
    mr_json_write(&v, val, false);
    if (v.failed) w->b->failed = v.failed;
    mr_jw_key_s(w, name);
    mr_jw_raw(w, mr_buf_get(&v));
  }
  if (has_grown)
    grown(w, b);
  else if (b->field == MR_RF_INPUT && !yyjson_is_obj(mr_json_get(yyjson_doc_get_root(d), key)))
    mr_jw_kraw(w, key, MR_S("{}"));
  if (has_sig) mr_jw_kstr(w, "signature", mr_buf_get(&b->sig));
  if (has_cites) cited(w, b);
  mr_jw_obj_end(w);
  mr_buf_free(&v);
  yyjson_doc_free(d);
  return MR_OK;
}

/* What the model wrote for an input is no object: it goes into one, so that the block can be sent back. */
static int wrap(struct mr_reply_build *rb, struct mr_rblock *b)
{
  struct mr_buf in;
  struct mr_jw w;
  mr_buf_init(&in, rb->mem, (size_t)MR_REPLY_MAX * 2);
  mr_jw_init(&w, &in);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, MR_MODEL_BAD_INPUT, mr_buf_get(&b->grow));
  mr_jw_obj_end(&w);
  b->grow.max = (size_t)MR_REPLY_MAX * 2;
  mr_buf_reset(&b->grow);
  mr_buf_str(&b->grow, mr_buf_get(&in));
  if (in.failed) b->grow.failed = in.failed;
  mr_buf_free(&in);
  return b->grow.failed;
}

bool mr_model_input_bad(yyjson_val *input)
{
  return yyjson_obj_size(input) == 1 && yyjson_is_str(mr_json_get(input, MR_MODEL_BAD_INPUT));
}

int mr_reply_write(struct mr_reply_build *rb, bool cut, struct mr_buf *out)
{
  struct mr_jw w;
  mr_jw_init(&w, out);
  mr_jw_arr(&w);
  for (int i = 0; i < rb->placed; i++) {
    struct mr_rblock *b = rb->b[rb->place[i]];
    if (b->field == MR_RF_INPUT && mr_str_is(mr_str_trim(mr_buf_get(&b->grow)), "null"))
      mr_buf_reset(&b->grow); /* some servers' way to say that there is none */
    if (b->field == MR_RF_INPUT && b->grow.n && !is_object(rb, mr_buf_get(&b->grow))) {
      if (cut && i == rb->placed - 1) break;
      if (wrap(rb, b) != MR_OK) return b->grow.failed;
    }
    int rc = write_block(rb, &w, b);
    if (rc != MR_OK) return rc;
  }
  mr_jw_arr_end(&w);
  return out->failed;
}
