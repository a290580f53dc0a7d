/* json.c - bounded parsing with yyjson, and writing values back; see json.h. */
#include "base/json.h"
#include "base/err.h"

#include <math.h>
#include <stdlib.h>

static void *alc_malloc(void *ctx, size_t n)
{
  return mr_mem_alloc(ctx, n);
}
static void *alc_realloc(void *ctx, void *p, size_t old, size_t n)
{
  (void)old;
  return mr_mem_realloc(ctx, p, n);
}
static void alc_free(void *ctx, void *p)
{
  mr_mem_free(ctx, p);
}

void mr_json_alc(const struct mr_mem *m, yyjson_alc *alc)
{
  alc->malloc = alc_malloc;
  alc->realloc = alc_realloc;
  alc->free = alc_free;
  alc->ctx = (void *)(uintptr_t)m;
}

/* Nesting over the limit? Counts brackets outside strings; garbage is left to the parser. */
static bool too_deep(struct mr_str s)
{
  int depth = 0;
  bool in_str = false;

  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (in_str) {
      if (c == '\\')
        i++;
      else if (c == '"')
        in_str = false;
    } else if (c == '"') {
      in_str = true;
    } else if (c == '[' || c == '{') {
      if (++depth > MR_JSON_DEPTH) return true;
    } else if (c == ']' || c == '}') {
      depth--;
    }
  }
  return false;
}

int mr_json_parse(const struct mr_mem *m, struct mr_str text, size_t max_bytes, yyjson_doc **doc,
                  struct mr_err *err)
{
  yyjson_alc alc;
  yyjson_read_err re;

  *doc = NULL;
  if (text.n > max_bytes)
    return mr_err_set(err, MR_E_TOO_LARGE, NULL, "JSON of %zu bytes is over the limit of %zu", text.n,
                      max_bytes);
  if (text.n > MR_JSON_DEPTH && too_deep(text))
    return mr_err_set(err, MR_E_INVALID, NULL, "JSON is nested deeper than %d levels", MR_JSON_DEPTH);
  mr_json_alc(m, &alc);
  *doc = yyjson_read_opts((char *)(uintptr_t)(text.n ? text.p : ""), text.n, YYJSON_READ_NOFLAG, &alc, &re);
  if (*doc) return MR_OK;
  if (re.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION) return mr_err_nomem(err);
  return mr_err_set(err, MR_E_INVALID, NULL, "not valid JSON: %s at byte %zu", re.msg, re.pos);
}

struct mr_str mr_json_str(yyjson_val *v)
{
  if (!yyjson_is_str(v)) return mr_str_n(NULL, 0);
  return mr_str_n(yyjson_get_str(v), yyjson_get_len(v));
}

yyjson_val *mr_json_get(yyjson_val *obj, const char *key)
{
  return yyjson_is_obj(obj) ? yyjson_obj_get(obj, key) : NULL;
}

struct mr_str mr_json_get_str(yyjson_val *obj, const char *key)
{
  return mr_json_str(mr_json_get(obj, key));
}

int64_t mr_json_get_int(yyjson_val *obj, const char *key, int64_t dflt)
{
  yyjson_val *v = mr_json_get(obj, key);
  if (yyjson_is_uint(v)) return yyjson_get_uint(v) <= INT64_MAX ? (int64_t)yyjson_get_uint(v) : dflt;
  return yyjson_is_sint(v) ? yyjson_get_sint(v) : dflt;
}

bool mr_json_get_bool(yyjson_val *obj, const char *key, bool dflt)
{
  yyjson_val *v = mr_json_get(obj, key);
  return yyjson_is_bool(v) ? yyjson_get_bool(v) : dflt;
}

static int cmp_keys(const void *a, const void *b)
{
  return mr_str_cmp(mr_json_str(*(yyjson_val *const *)a), mr_json_str(*(yyjson_val *const *)b));
}

static void write_val(struct mr_buf *b, yyjson_val *v, bool sorted);

static void write_sorted(struct mr_buf *b, yyjson_val *obj)
{
  size_t n = yyjson_obj_size(obj), i = 0;
  yyjson_val **keys = mr_mem_alloc(b->mem, (n ? n : 1) * sizeof *keys);
  yyjson_obj_iter it = yyjson_obj_iter_with(obj);
  yyjson_val *k;

  if (!keys) {
    mr_buf_free(b);
    b->failed = MR_E_NOMEM;
    return;
  }
  while ((k = yyjson_obj_iter_next(&it)))
    keys[i++] = k;
  qsort(keys, n, sizeof *keys, cmp_keys);
  mr_buf_char(b, '{');
  for (i = 0; i < n; i++) {
    if (i) mr_buf_char(b, ',');
    mr_json_quote(b, mr_json_str(keys[i]));
    mr_buf_char(b, ':');
    write_val(b, yyjson_obj_iter_get_val(keys[i]), true);
  }
  mr_buf_char(b, '}');
  mr_mem_free(b->mem, keys);
}

static void write_number(struct mr_buf *b, yyjson_val *v)
{
  struct mr_jw w;
  mr_jw_init(&w, b);
  if (yyjson_is_real(v))
    mr_jw_real(&w, yyjson_get_real(v));
  else if (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)
    mr_buf_printf(b, "%llu", (unsigned long long)yyjson_get_uint(v));
  else
    mr_jw_int(&w, yyjson_get_sint(v));
}

static void write_val(struct mr_buf *b, yyjson_val *v, bool sorted)
{
  bool first = true;
  yyjson_val *k;

  switch (yyjson_get_type(v)) {
  case YYJSON_TYPE_STR: mr_json_quote(b, mr_json_str(v)); break;
  case YYJSON_TYPE_NUM: write_number(b, v); break;
  case YYJSON_TYPE_BOOL: mr_buf_c(b, yyjson_get_bool(v) ? "true" : "false"); break;
  case YYJSON_TYPE_ARR: {
    yyjson_arr_iter it = yyjson_arr_iter_with(v);
    mr_buf_char(b, '[');
    while ((k = yyjson_arr_iter_next(&it))) {
      if (!first) mr_buf_char(b, ',');
      first = false;
      write_val(b, k, sorted);
    }
    mr_buf_char(b, ']');
    break;
  }
  case YYJSON_TYPE_OBJ: {
    yyjson_obj_iter it = yyjson_obj_iter_with(v);
    if (sorted) {
      write_sorted(b, v);
      break;
    }
    mr_buf_char(b, '{');
    while ((k = yyjson_obj_iter_next(&it))) {
      if (!first) mr_buf_char(b, ',');
      first = false;
      mr_json_quote(b, mr_json_str(k));
      mr_buf_char(b, ':');
      write_val(b, yyjson_obj_iter_get_val(k), sorted);
    }
    mr_buf_char(b, '}');
    break;
  }
  default: mr_buf_c(b, "null"); break;
  }
}

void mr_json_write(struct mr_buf *b, yyjson_val *v, bool sorted)
{
  write_val(b, v, sorted);
}

void mr_jw_val(struct mr_jw *w, yyjson_val *v)
{
  mr_jw_item(w);
  mr_json_write(w->b, v, false);
}

void mr_jw_kval(struct mr_jw *w, const char *key, yyjson_val *v)
{
  mr_jw_key(w, key);
  mr_jw_val(w, v);
}

static bool negative(yyjson_val *i)
{
  return yyjson_is_sint(i) && yyjson_get_sint(i) < 0;
}

/* A whole number and a real are equal only when the real is that number exactly. */
static bool int_is_real(yyjson_val *i, double r)
{
  if (r != floor(r) || r < -9223372036854775808.0 || r >= 18446744073709551616.0) return false;
  if (negative(i)) return r < 0 && yyjson_get_sint(i) == (int64_t)r;
  return r >= 0 && yyjson_get_uint(i) == (uint64_t)r;
}

static bool num_equal(yyjson_val *a, yyjson_val *b)
{
  if (yyjson_is_real(a))
    return yyjson_is_real(b) ? yyjson_get_real(a) == yyjson_get_real(b) : int_is_real(b, yyjson_get_real(a));
  if (yyjson_is_real(b)) return int_is_real(a, yyjson_get_real(b));
  return negative(a) == negative(b) && yyjson_get_uint(a) == yyjson_get_uint(b);
}

bool mr_json_equal(yyjson_val *a, yyjson_val *b)
{
  if (yyjson_get_type(a) != yyjson_get_type(b)) return false;
  switch (yyjson_get_type(a)) {
  case YYJSON_TYPE_NUM: return num_equal(a, b);
  case YYJSON_TYPE_STR: return mr_str_eq(mr_json_str(a), mr_json_str(b));
  case YYJSON_TYPE_BOOL: return yyjson_get_bool(a) == yyjson_get_bool(b);
  case YYJSON_TYPE_ARR: {
    yyjson_arr_iter ia = yyjson_arr_iter_with(a), ib = yyjson_arr_iter_with(b);
    yyjson_val *x, *y;
    if (yyjson_arr_size(a) != yyjson_arr_size(b)) return false;
    while ((x = yyjson_arr_iter_next(&ia)) && (y = yyjson_arr_iter_next(&ib)))
      if (!mr_json_equal(x, y)) return false;
    return true;
  }
  case YYJSON_TYPE_OBJ: {
    yyjson_obj_iter ia = yyjson_obj_iter_with(a);
    yyjson_val *k;
    if (yyjson_obj_size(a) != yyjson_obj_size(b)) return false;
    while ((k = yyjson_obj_iter_next(&ia))) {
      yyjson_val *y = yyjson_obj_getn(b, yyjson_get_str(k), yyjson_get_len(k));
      if (!y || !mr_json_equal(yyjson_obj_iter_get_val(k), y)) return false;
    }
    return true;
  }
  default: return true;
  }
}
