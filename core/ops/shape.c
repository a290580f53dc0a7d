/* shape.c - the one check of inputs; see shape.h. The path of a field is built on the way down, in a fixed
 * buffer: what does not fit is cut, never wrong. */
#include "ops/shape.h"

#include <stdio.h>

enum { DEPTH_MAX = 12 };

struct walk {
  struct mr_err *err;
  bool strict;
  int depth;
  char path[96];
};

static int bad(struct walk *k, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int bad(struct walk *k, const char *fmt, ...)
{
  char text[256];
  va_list ap;

  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  return mr_err_set(k->err, MR_E_INVALID, k->path, "%s: %s", k->path[0] ? k->path : "input", text);
}

static unsigned kind_of(yyjson_val *v)
{
  switch (yyjson_get_type(v)) {
  case YYJSON_TYPE_STR: return MR_F_STR;
  case YYJSON_TYPE_BOOL: return MR_F_BOOL;
  case YYJSON_TYPE_ARR: return MR_F_ARR;
  case YYJSON_TYPE_OBJ: return MR_F_OBJ;
  case YYJSON_TYPE_NUM: return yyjson_is_int(v) ? MR_F_INT | MR_F_NUM : MR_F_NUM;
  default: return 0;
  }
}

static const char *kinds_text(unsigned kind, char *out, size_t n)
{
  static const char *const names[] = {"a string",      "an integer", "a number",
                                      "true or false", "an object",  "an array"};
  size_t used = 0;

  out[0] = '\0';
  for (int i = 0; i < 6; i++)
    if (kind & (1u << i) && used < n)
      used += (size_t)snprintf(out + used, n - used, "%s%s", used ? " or " : "", names[i]);
  return out;
}

static bool listed(const char *values, struct mr_str s)
{
  struct mr_str rest = mr_str_c(values);
  while (rest.p)
    if (mr_str_eq(mr_str_split(&rest, '|'), s)) return true;
  return false;
}

static int check_object(struct walk *k, const struct mr_shape *s, yyjson_val *v);

static int check_str(struct walk *k, const struct mr_field *f, yyjson_val *v)
{
  struct mr_str s = mr_json_str(v);
  int64_t n = (int64_t)mr_utf8_chars(s);

  if (n < f->min)
    return f->min == 1 ? bad(k, "must not be empty") : bad(k, "at least %lld characters", (long long)f->min);
  if (f->max && n > f->max) return bad(k, "at most %lld characters, not %lld", (long long)f->max, (long long)n);
  if (f->values && !listed(f->values, s)) return bad(k, "must be one of %s", f->values);
  return MR_OK;
}

static int check_item(struct walk *k, const struct mr_field *f, yyjson_val *v, bool map)
{
  char text[96];

  if (map && (f->kind & MR_F_PATCH) && yyjson_is_null(v)) return MR_OK;
  if (f->item && !(f->item & kind_of(v))) return bad(k, "must be %s", kinds_text(f->item, text, sizeof text));
  if (yyjson_is_str(v) && f->item_max && (int64_t)mr_utf8_chars(mr_json_str(v)) > f->item_max)
    return bad(k, "at most %lld characters", (long long)f->item_max);
  return f->of && yyjson_is_obj(v) ? check_object(k, f->of, v) : MR_OK;
}

static int check_many(struct walk *k, const struct mr_field *f, yyjson_val *v)
{
  int64_t n = (int64_t)(yyjson_is_arr(v) ? yyjson_arr_size(v) : yyjson_obj_size(v));
  size_t at = strlen(k->path), i = 0;
  yyjson_val *x;
  int code = MR_OK;

  if (n < f->min) return bad(k, "at least %lld", (long long)f->min);
  if (f->max && n > f->max) return bad(k, "at most %lld, not %lld", (long long)f->max, (long long)n);
  if (yyjson_is_arr(v)) {
    yyjson_arr_iter it = yyjson_arr_iter_with(v);
    for (; code == MR_OK && (x = yyjson_arr_iter_next(&it)); i++) {
      snprintf(k->path + at, sizeof k->path - at, "[%zu]", i);
      code = check_item(k, f, x, false);
    }
  } else {
    yyjson_obj_iter it = yyjson_obj_iter_with(v);
    while (code == MR_OK && (x = yyjson_obj_iter_next(&it))) {
      snprintf(k->path + at, sizeof k->path - at, ".%.64s", yyjson_get_str(x));
      code = check_item(k, f, yyjson_obj_iter_get_val(x), true);
    }
  }
  if (code == MR_OK) k->path[at] = '\0';
  return code;
}

static int check_field(struct walk *k, const struct mr_field *f, yyjson_val *v)
{
  char text[96];

  if (yyjson_is_null(v)) return f->kind & MR_F_NULL ? MR_OK : bad(k, "must not be null");
  if (!(f->kind & MR_F_ANY & kind_of(v))) return bad(k, "must be %s", kinds_text(f->kind, text, sizeof text));
  if (yyjson_is_str(v)) return check_str(k, f, v);
  if (yyjson_is_int(v) && (f->min || f->max)) {
    int64_t i = yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX ? INT64_MAX : yyjson_get_sint(v);
    if (i < f->min || (f->max && i > f->max))
      return f->max ? bad(k, "must be between %lld and %lld", (long long)f->min, (long long)f->max)
                    : bad(k, "must be at least %lld", (long long)f->min);
    return MR_OK;
  }
  if (yyjson_is_obj(v) && f->of && !(f->kind & MR_F_ARR)) return check_object(k, f->of, v);
  return yyjson_is_arr(v) || yyjson_is_obj(v) ? check_many(k, f, v) : MR_OK;
}

static const struct mr_field *field_find(const struct mr_shape *s, struct mr_str name)
{
  for (int i = 0; i < s->n; i++)
    if (mr_str_is(name, s->fields[i].name)) return &s->fields[i];
  return NULL;
}

static int check_unknown(struct walk *k, const struct mr_shape *s, yyjson_val *v)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(v);
  size_t at = strlen(k->path);
  yyjson_val *key;

  while (k->strict && (key = yyjson_obj_iter_next(&it)))
    if (!field_find(s, mr_json_str(key))) {
      snprintf(k->path + at, sizeof k->path - at, "%s%.64s", at ? "." : "", yyjson_get_str(key));
      return bad(k, "no such field");
    }
  return MR_OK;
}

static int check_object(struct walk *k, const struct mr_shape *s, yyjson_val *v)
{
  size_t at = strlen(k->path);
  int code = check_unknown(k, s, v);

  if (++k->depth > DEPTH_MAX) return bad(k, "nested too deep");
  for (int i = 0; code == MR_OK && i < s->n; i++) {
    const struct mr_field *f = &s->fields[i];
    yyjson_val *m = mr_json_get(v, f->name);
    snprintf(k->path + at, sizeof k->path - at, "%s%s", at ? "." : "", f->name);
    if (m)
      code = check_field(k, f, m);
    else if (f->kind & MR_F_REQUIRED)
      code = bad(k, "required");
  }
  k->depth--;
  if (code == MR_OK) k->path[at] = '\0';
  return code;
}

int mr_shape_check(const struct mr_shape *s, yyjson_val *v, bool strict, struct mr_err *err)
{
  struct walk k = {.err = err, .strict = strict};

  return check_object(&k, s, v);
}
