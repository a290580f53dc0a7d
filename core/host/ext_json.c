/*
 * ext_json.c - JSON for bindings, reading: a struct mr_val is a yyjson value of a document that somebody else
 * owns, so readers are casts. No text travels where a value can be walked in place.
 */
#include "host/ext_t.h"

#include <stdlib.h>

enum { WRITE_MAX = 256 << 20, PRETTY_STEP = 2 };

static yyjson_val *in(const struct mr_val *v)
{
  return (yyjson_val *)(uintptr_t)v;
}
static const struct mr_val *out_of(yyjson_val *v)
{
  return (const struct mr_val *)v;
}

enum mr_kind mr_x_kind(const struct mr_val *v)
{
  switch (yyjson_get_type(in(v))) {
  case YYJSON_TYPE_NULL: return MR_K_NULL;
  case YYJSON_TYPE_BOOL: return MR_K_BOOL;
  case YYJSON_TYPE_STR: return MR_K_STR;
  case YYJSON_TYPE_ARR: return MR_K_ARR;
  case YYJSON_TYPE_OBJ: return MR_K_OBJ;
  case YYJSON_TYPE_NUM:
    if (yyjson_is_real(in(v))) return MR_K_REAL;
    return yyjson_is_uint(in(v)) && yyjson_get_uint(in(v)) > INT64_MAX ? MR_K_UINT : MR_K_INT;
  default: return MR_K_NONE;
  }
}

int mr_x_as_bool(const struct mr_val *v)
{
  return yyjson_get_bool(in(v));
}
int64_t mr_x_as_int(const struct mr_val *v)
{
  return yyjson_get_sint(in(v));
}
uint64_t mr_x_as_uint(const struct mr_val *v)
{
  return yyjson_get_uint(in(v));
}
double mr_x_as_real(const struct mr_val *v)
{
  return yyjson_get_num(in(v));
}
struct mr_str mr_x_as_str(const struct mr_val *v)
{
  return mr_json_str(in(v));
}
size_t mr_x_len(const struct mr_val *v)
{
  return yyjson_is_ctn(in(v)) ? yyjson_get_len(in(v)) : 0;
}

const struct mr_val *mr_x_get(const struct mr_val *obj, struct mr_str key)
{
  return out_of(yyjson_obj_getn(in(obj), key.p ? key.p : "", key.n));
}

int mr_x_next(struct mr_iter *it)
{
  yyjson_val *of = in(it->of), *at = it->priv[0];
  size_t i = (size_t)(uintptr_t)it->priv[1];

  if (!yyjson_is_ctn(of) || i >= yyjson_get_len(of)) return 0;
  if (!at) at = unsafe_yyjson_get_first(of);
  it->key = mr_str_n(NULL, 0);
  if (yyjson_is_obj(of)) it->key = mr_json_str(at++);
  it->val = out_of(at);
  it->priv[0] = unsafe_yyjson_get_next(at);
  it->priv[1] = (void *)(uintptr_t)(i + 1);
  return 1;
}

int mr_x_parse(struct mr_runtime *rt, struct mr_str json, struct mr_doc **out, struct mr_err *err)
{
  yyjson_doc *doc = NULL;
  int code = mr_rt_check(rt, err);

  *out = NULL;
  if (code == MR_OK) code = mr_json_parse(mr_rt_mem(rt), json, WRITE_MAX, &doc, err);
  if (code != MR_OK) return code;
  *out = mr_doc_new(rt, doc);
  return *out ? MR_OK : mr_err_nomem(err);
}

const struct mr_val *mr_x_doc_root(const struct mr_doc *d)
{
  return d ? out_of(yyjson_doc_get_root(d->doc)) : NULL;
}

void mr_x_doc_free(struct mr_doc *d)
{
  struct mr_runtime *rt = d ? d->rt : NULL;

  if (!d) return;
  mr_rt_ref(rt); /* its memory is the document's */
  yyjson_doc_free(mr_doc_take(&d));
  mr_rt_unref(rt);
}

/* ---- text ---- */

static void line(struct mr_buf *b, int depth)
{
  mr_buf_char(b, '\n');
  for (int i = 0; i < depth * PRETTY_STEP; i++)
    mr_buf_char(b, ' ');
}

static int cmp_keys(const void *a, const void *b)
{
  return mr_str_cmp(mr_json_str(*(yyjson_val *const *)a), mr_json_str(*(yyjson_val *const *)b));
}

static void pretty(struct mr_buf *b, yyjson_val *v, bool sorted, int depth);

static void pretty_obj(struct mr_buf *b, yyjson_val *v, bool sorted, int depth)
{
  size_t n = yyjson_obj_size(v), i = 0;
  yyjson_val **keys = mr_mem_alloc(b->mem, n * sizeof *keys), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(v);

  if (!keys) {
    mr_buf_free(b);
    b->failed = MR_E_NOMEM;
    return;
  }
  while ((k = yyjson_obj_iter_next(&it)))
    keys[i++] = k;
  if (sorted) qsort(keys, n, sizeof *keys, cmp_keys);
  mr_buf_char(b, '{');
  for (i = 0; i < n; i++) {
    if (i) mr_buf_char(b, ',');
    line(b, depth + 1);
    mr_json_quote(b, mr_json_str(keys[i]));
    mr_buf_c(b, ": ");
    pretty(b, yyjson_obj_iter_get_val(keys[i]), sorted, depth + 1);
  }
  line(b, depth);
  mr_buf_char(b, '}');
  mr_mem_free(b->mem, keys);
}

static void pretty(struct mr_buf *b, yyjson_val *v, bool sorted, int depth)
{
  yyjson_arr_iter it;
  yyjson_val *x;
  bool first = true;

  if (yyjson_is_obj(v) && yyjson_obj_size(v)) {
    pretty_obj(b, v, sorted, depth);
  } else if (yyjson_is_arr(v) && yyjson_arr_size(v)) {
    it = yyjson_arr_iter_with(v);
    mr_buf_char(b, '[');
    while ((x = yyjson_arr_iter_next(&it))) {
      if (!first) mr_buf_char(b, ',');
      first = false;
      line(b, depth + 1);
      pretty(b, x, sorted, depth + 1);
    }
    line(b, depth);
    mr_buf_char(b, ']');
  } else {
    mr_json_write(b, v, sorted);
  }
}

int mr_x_write(struct mr_runtime *rt, const struct mr_val *v, unsigned flags, char **out, size_t *n)
{
  bool sorted = (flags & MR_JSON_SORTED) != 0;
  struct mr_buf b;
  int code = mr_rt_check(rt, NULL);

  *out = NULL;
  if (n) *n = 0;
  if (code == MR_OK && !v) code = MR_E_INVALID;
  if (code != MR_OK) return code;
  mr_buf_init(&b, mr_rt_mem(rt), WRITE_MAX);
  if (flags & MR_JSON_PRETTY)
    pretty(&b, in(v), sorted, 0);
  else
    mr_json_write(&b, in(v), sorted);
  code = b.failed;
  *out = mr_buf_take(&b, n);
  mr_buf_free(&b);
  return *out ? MR_OK : code ? code : MR_E_NOMEM;
}
