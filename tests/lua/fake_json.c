/*
 * fake_json - the fake host's JSON: readers and builders over yyjson, counted, so that a test sees what was
 * not freed.
 */
#include "fake_host_t.h"

#define V(v) ((yyjson_val *)(v))

/* ------------------------------------------------------------------- JSON */

struct mr_build {
  yyjson_mut_doc *doc;
  struct { yyjson_mut_val *v, *key; } stack[600];
  int depth, failed;
};
struct mr_doc { yyjson_doc *doc; };

static enum mr_kind kind(const struct mr_val *v)
{
  switch (yyjson_get_type(V(v))) {
  case YYJSON_TYPE_NULL: return MR_K_NULL;
  case YYJSON_TYPE_BOOL: return MR_K_BOOL;
  case YYJSON_TYPE_NUM:
    if (yyjson_is_real(V(v))) return MR_K_REAL;
    return yyjson_is_uint(V(v)) && yyjson_get_uint(V(v)) > INT64_MAX ? MR_K_UINT : MR_K_INT;
  case YYJSON_TYPE_STR: return MR_K_STR;
  case YYJSON_TYPE_ARR: return MR_K_ARR;
  case YYJSON_TYPE_OBJ: return MR_K_OBJ;
  default: return MR_K_NONE;
  }
}
static int as_bool(const struct mr_val *v) { return yyjson_get_bool(V(v)); }
static int64_t as_int(const struct mr_val *v) { return yyjson_get_sint(V(v)); }
static uint64_t as_uint(const struct mr_val *v) { return yyjson_get_uint(V(v)); }
static double as_real(const struct mr_val *v) { return yyjson_get_num(V(v)); }
static struct mr_str as_str(const struct mr_val *v)
{
  return (struct mr_str){yyjson_get_str(V(v)), yyjson_get_len(V(v))};
}
static size_t len(const struct mr_val *v) { return yyjson_is_ctn(V(v)) ? yyjson_get_len(V(v)) : 0; }
static const struct mr_val *get(const struct mr_val *o, struct mr_str k)
{
  return (const struct mr_val *)yyjson_obj_getn(V(o), k.p, k.n);
}
static int next(struct mr_iter *it)
{
  yyjson_val *c = V(it->of), *at = it->priv[0];
  size_t i = (size_t)it->priv[1];
  if (!yyjson_is_ctn(c) || i >= yyjson_get_len(c)) return 0;
  at = at ? at : unsafe_yyjson_get_first(c);
  if (yyjson_is_obj(c)) {
    it->key = (struct mr_str){yyjson_get_str(at), yyjson_get_len(at)};
    it->val = (const struct mr_val *)(at + 1);
    it->priv[0] = unsafe_yyjson_get_next(at + 1);
  } else {
    it->val = (const struct mr_val *)at;
    it->priv[0] = unsafe_yyjson_get_next(at);
  }
  it->priv[1] = (void *)(i + 1);
  return 1;
}
int fake_parse(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err)
{
  yyjson_read_err e;
  char msg[200];
  int depth = 0;
  (void)rt;
  for (size_t i = 0; i < json.n; i++) {
    depth += json.p[i] == '[' || json.p[i] == '{' ? 1 : json.p[i] == ']' || json.p[i] == '}' ? -1 : 0;
    if (depth > 512) return fake_fail(err, MR_E_INVALID, "nested too deep");
  }
  yyjson_doc *d = yyjson_read_opts((char *)json.p, json.n, 0, NULL, &e);
  if (!d) {
    snprintf(msg, sizeof msg, "%s at byte %zu", e.msg, e.pos);
    return fake_fail(err, MR_E_INVALID, msg);
  }
  *out = calloc(1, sizeof **out);
  (*out)->doc = d;
  fake.docs++;
  return MR_OK;
}
const struct mr_val *fake_root(const struct mr_doc *d)
{
  return d ? (const struct mr_val *)yyjson_doc_get_root(d->doc) : NULL;
}
void fake_doc_free(struct mr_doc *d)
{
  if (!d) return;
  fake.docs--;
  yyjson_doc_free(d->doc);
  free(d);
}
static int write_json(struct mr_runtime *rt, const struct mr_val *v, unsigned flags, char **out, size_t *n)
{
  (void)rt;
  *out = yyjson_val_write(V(v), flags & MR_JSON_PRETTY ? YYJSON_WRITE_PRETTY : 0, n);
  if (*out) fake.texts++;
  return *out ? MR_OK : MR_E_INVALID;
}
void mr_free(struct mr_runtime *rt, void *p)
{
  (void)rt;
  if (p) fake.texts--;
  free(p);
}
static struct mr_build *build(struct mr_runtime *rt)
{
  (void)rt;
  struct mr_build *b = calloc(1, sizeof *b);
  b->doc = yyjson_mut_doc_new(NULL);
  fake.builds++;
  return b;
}
static void put(struct mr_build *b, yyjson_mut_val *v)
{
  if (!b->depth) {
    yyjson_mut_doc_set_root(b->doc, v);
  } else if (yyjson_mut_is_arr(b->stack[b->depth - 1].v)) {
    yyjson_mut_arr_append(b->stack[b->depth - 1].v, v);
  } else {
    if (!b->stack[b->depth - 1].key) b->failed = 1;
    else yyjson_mut_obj_add(b->stack[b->depth - 1].v, b->stack[b->depth - 1].key, v);
    b->stack[b->depth - 1].key = NULL;
  }
}
static int utf8(struct mr_str s)
{
  yyjson_mut_doc *d = yyjson_mut_doc_new(NULL);
  yyjson_mut_doc_set_root(d, yyjson_mut_strn(d, s.p, s.n));
  char *t = yyjson_mut_write(d, 0, NULL);
  int ok = t != NULL;
  free(t);
  yyjson_mut_doc_free(d);
  return ok;
}
static void b_null(struct mr_build *b) { put(b, yyjson_mut_null(b->doc)); }
static void b_bool(struct mr_build *b, int v) { put(b, yyjson_mut_bool(b->doc, v)); }
static void b_int(struct mr_build *b, int64_t v) { put(b, yyjson_mut_sint(b->doc, v)); }
static void b_real(struct mr_build *b, double v)
{
  if (v != v || v > 1.7e308 || v < -1.7e308) b->failed = 2;
  put(b, yyjson_mut_real(b->doc, v));
}
static void b_str(struct mr_build *b, struct mr_str v)
{
  if (!utf8(v)) b->failed = 1;
  put(b, yyjson_mut_strncpy(b->doc, v.p ? v.p : "", v.n));
}
static void b_key(struct mr_build *b, struct mr_str k)
{
  if (!utf8(k)) b->failed = 1;
  b->stack[b->depth - 1].key = yyjson_mut_strncpy(b->doc, k.p, k.n);
}
static void b_open(struct mr_build *b, int arr)
{
  yyjson_mut_val *v = arr ? yyjson_mut_arr(b->doc) : yyjson_mut_obj(b->doc);
  put(b, v);
  b->stack[b->depth].key = NULL;
  b->stack[b->depth++].v = v;
}
static void b_close(struct mr_build *b) { b->depth--; }
static void b_val(struct mr_build *b, const struct mr_val *v) { put(b, yyjson_val_mut_copy(b->doc, V(v))); }
static void build_drop(struct mr_build **b)
{
  if (!*b) return;
  fake.builds--;
  yyjson_mut_doc_free((*b)->doc);
  free(*b);
  *b = NULL;
}
static int build_done(struct mr_build **pb, struct mr_doc **out, struct mr_err *err)
{
  struct mr_build *b = *pb;
  int failed = b->failed;
  yyjson_doc *d = failed ? NULL : yyjson_mut_doc_imut_copy(b->doc, NULL);
  build_drop(pb);
  if (!d) return fake_fail(err, MR_E_INVALID, failed == 2 ? "not a finite number" : "a string is not UTF-8");
  *out = calloc(1, sizeof **out);
  (*out)->doc = d;
  fake.docs++;
  return MR_OK;
}
char *fake_text(const struct mr_doc *d)
{
  return d ? yyjson_val_write(yyjson_doc_get_root(d->doc), 0, NULL) : NULL;
}

yyjson_val *fake_yy(const struct mr_doc *d) { return yyjson_doc_get_root(d->doc); }
void fake_doc_set(struct mr_doc *d, yyjson_doc *to)
{
  yyjson_doc_free(d->doc);
  d->doc = to;
}

void fake_json_table(struct mr_ext *t)
{
  t->kind = kind, t->as_bool = as_bool, t->as_int = as_int, t->as_uint = as_uint, t->as_real = as_real;
  t->as_str = as_str, t->len = len, t->get = get, t->next = next, t->parse = fake_parse, t->doc_root = fake_root;
  t->doc_free = fake_doc_free, t->write = write_json, t->build = build, t->b_null = b_null, t->b_bool = b_bool;
  t->b_int = b_int, t->b_real = b_real, t->b_str = b_str, t->b_key = b_key, t->b_open = b_open;
  t->b_close = b_close, t->b_val = b_val, t->build_done = build_done, t->build_drop = build_drop;
}
