/*
 * input.c - does what a model wrote fit the schema of the tool? Asked before the hooks of permit, for tools that
 * a handler of this process answers; the model reads what is wrong and can mend it, and no handler meets a missing
 * field. What a client answers is the client's to check, as in the API.
 *
 * A part of JSON Schema, the one that schemas of tools are written in: see known. What it does not know ($ref,
 * format, ...) it lets pass, and it is unsure then, so that oneOf and not do not build on it: it never refuses what
 * another validator would take.
 *
 * Loop thread. Bounded: DEPTH levels and STEPS values in all, what is beyond passes; patterns of PATTERN_MAX bytes on
 * ASCII texts of TEXT_MAX, and only those that mean the same to regcomp and repeat nothing more than REPEAT_MAX times.
 */
#include "agent/session_t.h"

#include <math.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>

enum { DEPTH = 32, STEPS = 100000, PATTERN_MAX = 256, TEXT_MAX = 4096, REPEAT_MAX = 1000, PATH_BYTES = 160 };

struct fit {
  char path[PATH_BYTES]; /* of the value that is looked at: "lines[2].qty" */
  char *out;
  size_t n;
  int depth, steps;
  bool unsure; /* something was let pass unseen */
};

static const char known[] =
    " type enum const required properties additionalProperties items minLength maxLength pattern minimum "
    "maximum"
    " exclusiveMinimum exclusiveMaximum minItems maxItems allOf anyOf oneOf not"
    " title description default examples deprecated readOnly writeOnly $schema $id $comment $defs definitions ";

static bool fits(struct fit *f, yyjson_val *schema, yyjson_val *v);

__attribute__((format(printf, 2, 3))) static bool wrong(struct fit *f, const char *fmt, ...)
{
  va_list ap;
  int k = snprintf(f->out, f->n, "%s ", f->path[0] ? f->path : "the input");

  va_start(ap, fmt);
  if (k >= 0 && (size_t)k < f->n) vsnprintf(f->out + k, f->n - (size_t)k, fmt, ap);
  va_end(ap);
  return false;
}

/* One step down, and back. */
static bool at_key(struct fit *f, yyjson_val *schema, struct mr_str key, yyjson_val *v)
{
  size_t was = strlen(f->path);
  bool ok;

  snprintf(f->path + was, sizeof f->path - was, "%s%.*s", was ? "." : "", (int)mr_utf8_cut(key, 60), key.p);
  ok = fits(f, schema, v);
  f->path[was] = '\0';
  return ok;
}

static bool at_index(struct fit *f, yyjson_val *schema, size_t i, yyjson_val *v)
{
  size_t was = strlen(f->path);
  bool ok;

  snprintf(f->path + was, sizeof f->path - was, "[%zu]", i);
  ok = fits(f, schema, v);
  f->path[was] = '\0';
  return ok;
}

/* ---- types ---- */

static bool whole(yyjson_val *v)
{
  return yyjson_is_int(v) || (yyjson_is_real(v) && floor(yyjson_get_real(v)) == yyjson_get_real(v));
}

static bool is(yyjson_val *v, struct mr_str type)
{
  if (mr_str_is(type, "object")) return yyjson_is_obj(v);
  if (mr_str_is(type, "array")) return yyjson_is_arr(v);
  if (mr_str_is(type, "string")) return yyjson_is_str(v);
  if (mr_str_is(type, "boolean")) return yyjson_is_bool(v);
  if (mr_str_is(type, "null")) return yyjson_is_null(v);
  if (mr_str_is(type, "number")) return yyjson_is_num(v);
  if (mr_str_is(type, "integer")) return whole(v);
  return true;
}

static const char *kind(yyjson_val *v)
{
  return yyjson_is_obj(v)    ? "an object"
         : yyjson_is_arr(v)  ? "an array"
         : yyjson_is_str(v)  ? "a string"
         : yyjson_is_bool(v) ? "a boolean"
         : yyjson_is_null(v) ? "null"
                             : "a number";
}

static bool type_fits(struct fit *f, yyjson_val *type, yyjson_val *v)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(type);
  yyjson_val *t;
  struct mr_str one = mr_json_str(type);

  if (yyjson_is_str(type) && !is(v, one)) {
    bool vowel = one.n && strchr("aeiou", one.p[0]);
    return wrong(f, "must be %s " MR_FMT ", not %s", vowel ? "an" : "a", MR_ARG(one), kind(v));
  }
  if (!yyjson_is_arr(type)) return true;
  while ((t = yyjson_arr_iter_next(&it)))
    if (is(v, mr_json_str(t))) return true;
  return wrong(f, "is %s, which is not one of its types", kind(v));
}

static bool same(yyjson_val *a, yyjson_val *b)
{
  if (yyjson_is_num(a) && yyjson_is_num(b)) return yyjson_get_num(a) == yyjson_get_num(b); /* 5 is 5.0 */
  return yyjson_equals(a, b);
}

static bool enum_fits(struct fit *f, yyjson_val *list, yyjson_val *v)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *x;
  char names[200];
  size_t n = 0;

  names[0] = '\0';
  while ((x = yyjson_arr_iter_next(&it))) {
    if (same(x, v)) return true;
    if (yyjson_is_str(x) && n < sizeof names)
      n += (size_t)snprintf(names + n, sizeof names - n, "%s%.60s", n ? ", " : "", yyjson_get_str(x));
  }
  return names[0] ? wrong(f, "must be one of: %s", names) : wrong(f, "has a value that is not in its enum");
}

/* ---- strings ---- */

/* The most that nested {n,m} of a pattern can repeat something. */
static int64_t repeats(struct mr_str p)
{
  int64_t product = 1, n = 0, most = 0;

  for (size_t i = 0, in = 0; i < p.n && product <= REPEAT_MAX; i++) {
    if (p.p[i] == '{') {
      in = 1;
      n = most = 0;
    } else if (in && p.p[i] >= '0' && p.p[i] <= '9' && n <= REPEAT_MAX) {
      n = n * 10 + (p.p[i] - '0');
      most = n > most ? n : most;
    } else if (in && p.p[i] == ',') {
      n = 0;
    } else if (in) {
      in = 0;
      product *= most ? most : 1;
    }
  }
  return product;
}

/* A pattern as regcomp reads it: \d, \w and \s become classes. False: it may mean something else there. */
static bool translate(struct mr_str p, char *out, size_t n)
{
  size_t k = 0;
  bool in_set = false;

  for (size_t i = 0; i < p.n; i++) {
    unsigned char c = (unsigned char)p.p[i], next = i + 1 < p.n ? (unsigned char)p.p[i + 1] : 0;
    const char *put = NULL;
    if (k + 20 > n || c >= 0x80 || c == 0) return false;
    if (c == '(' && next == '?') return false;
    if (c == '{' && !in_set && (next < '0' || next > '9')) return false; /* a brace, elsewhere */
    if (c == '[' && in_set) return false;
    if (c == '[' && (next == ']' || (next == '^' && i + 2 < p.n && p.p[i + 2] == ']'))) return false;
    if (c == '[' || c == ']') in_set = c == '[';
    if (c != '\\') {
      out[k++] = (char)c;
      continue;
    }
    i++;
    if (next == 'd') put = in_set ? "0-9" : "[0-9]";
    if (next == 'w') put = in_set ? "A-Za-z0-9_" : "[A-Za-z0-9_]";
    if (next == 's') put = in_set ? " \t\r\n\f\v" : "[ \t\r\n\f\v]";
    if (put) {
      k += (size_t)snprintf(out + k, n - k, "%s", put);
    } else if (!in_set && next && strchr(".^$*+?()[]{}|\\/-", next)) {
      if (strchr("/-", next) == NULL) out[k++] = '\\';
      out[k++] = (char)next;
    } else {
      return false;
    }
  }
  out[k] = '\0';
  return !in_set;
}

static bool pattern_fits(struct fit *f, struct mr_str pattern, struct mr_str text)
{
  char re[PATTERN_MAX * 14];
  regex_t compiled;
  bool ascii = true; /* regcomp may count bytes */
  int miss;

  if (!pattern.p) return true;
  for (size_t i = 0; i < text.n; i++)
    ascii = ascii && text.p[i] > 0;
  if (!ascii || text.n > TEXT_MAX || pattern.n > PATTERN_MAX || repeats(pattern) > REPEAT_MAX ||
      !translate(pattern, re, sizeof re) || regcomp(&compiled, re, REG_EXTENDED | REG_NOSUB) != 0) {
    f->unsure = true;
    return true;
  }
  miss = regexec(&compiled, text.p, 0, NULL, 0);
  regfree(&compiled);
  return miss == REG_NOMATCH ? wrong(f, "must match " MR_FMT, MR_ARG(pattern)) : true;
}

static bool length_fits(struct fit *f, yyjson_val *schema, const char *min, const char *max, int64_t n,
                        const char *what)
{
  int64_t least = mr_json_get_int(schema, min, 0), most = mr_json_get_int(schema, max, INT64_MAX);

  if (n < least) return wrong(f, "must have at least %lld %s", (long long)least, what);
  return n > most ? wrong(f, "must have at most %lld %s", (long long)most, what) : true;
}

static bool string_fits(struct fit *f, yyjson_val *schema, struct mr_str s)
{
  return length_fits(f, schema, "minLength", "maxLength", (int64_t)mr_utf8_chars(s), "characters") &&
         pattern_fits(f, mr_json_get_str(schema, "pattern"), s);
}

/* ---- numbers, arrays, objects ---- */

static bool number_fits(struct fit *f, yyjson_val *schema, double v)
{
  yyjson_val *min = mr_json_get(schema, "minimum"), *max = mr_json_get(schema, "maximum"),
             *over = mr_json_get(schema, "exclusiveMinimum"), *under = mr_json_get(schema, "exclusiveMaximum");

  if (yyjson_is_num(min) && v < yyjson_get_num(min))
    return wrong(f, "must be at least %.15g", yyjson_get_num(min));
  if (yyjson_is_num(max) && v > yyjson_get_num(max))
    return wrong(f, "must be at most %.15g", yyjson_get_num(max));
  if (yyjson_is_num(over) && v <= yyjson_get_num(over))
    return wrong(f, "must be more than %.15g", yyjson_get_num(over));
  if (yyjson_is_num(under) && v >= yyjson_get_num(under))
    return wrong(f, "must be less than %.15g", yyjson_get_num(under));
  return true;
}

static bool array_fits(struct fit *f, yyjson_val *schema, yyjson_val *v)
{
  yyjson_val *items = mr_json_get(schema, "items"), *x;
  yyjson_arr_iter it = yyjson_arr_iter_with(v);

  if (!length_fits(f, schema, "minItems", "maxItems", (int64_t)yyjson_arr_size(v), "items")) return false;
  if (!items || mr_json_get(schema, "prefixItems")) return true; /* the first ones are others */
  for (size_t i = 0; (x = yyjson_arr_iter_next(&it)); i++)
    if (!at_index(f, items, i, x)) return false;
  return true;
}

static bool object_fits(struct fit *f, yyjson_val *schema, yyjson_val *v)
{
  yyjson_val *required = mr_json_get(schema, "required"), *fields = mr_json_get(schema, "properties"),
             *others = mr_json_get(schema, "additionalProperties"), *k, *x;
  yyjson_arr_iter names = yyjson_arr_iter_with(required);
  yyjson_obj_iter it = yyjson_obj_iter_with(v);

  while ((k = yyjson_arr_iter_next(&names)))
    if (yyjson_is_str(k) && !yyjson_obj_getn(v, yyjson_get_str(k), yyjson_get_len(k)))
      return wrong(f, "needs the field %.60s", yyjson_get_str(k));
  while ((k = yyjson_obj_iter_next(&it))) {
    struct mr_str key = mr_json_str(k);
    x = yyjson_obj_getn(fields, key.p, key.n);
    if (!x && mr_json_get(schema, "patternProperties")) continue;
    if (!x && yyjson_is_false(others)) return wrong(f, "must not have the field %.60s", yyjson_get_str(k));
    if (!x) x = others;
    if (x && !at_key(f, x, key, yyjson_obj_iter_get_val(k))) return false;
  }
  return true;
}

/* ---- combinations ---- */

/* Of a schema on its own: it fits, and nothing was let pass for that. */
static bool surely(struct fit *f, yyjson_val *schema, yyjson_val *v, bool *maybe)
{
  bool was = f->unsure, ok, sure;

  f->unsure = false;
  ok = fits(f, schema, v);
  sure = ok && !f->unsure;
  *maybe = *maybe || ok;
  f->unsure = was || f->unsure;
  return sure;
}

/* How many of a list of schemas it surely fits; maybe: it may fit any. */
static int count_fits(struct fit *f, yyjson_val *list, yyjson_val *v, bool *maybe)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *schema;
  int n = 0;

  *maybe = false;
  while ((schema = yyjson_arr_iter_next(&it)))
    n += surely(f, schema, v, maybe);
  return n;
}

static bool combinations_fit(struct fit *f, yyjson_val *schema, yyjson_val *v)
{
  yyjson_val *all = mr_json_get(schema, "allOf"), *any = mr_json_get(schema, "anyOf"),
             *one = mr_json_get(schema, "oneOf"), *not = mr_json_get(schema, "not"), *x;
  yyjson_arr_iter it = yyjson_arr_iter_with(all);
  bool maybe = false;

  while ((x = yyjson_arr_iter_next(&it)))
    if (!fits(f, x, v)) return false;
  if (yyjson_is_arr(any) && count_fits(f, any, v, &maybe) == 0 && !maybe)
    return wrong(f, "fits none of its alternatives");
  if (yyjson_is_arr(one) && (count_fits(f, one, v, &maybe) > 1 || !maybe))
    return wrong(f, "must fit exactly one of its alternatives");
  if (yyjson_is_obj(not ) && surely(f, not, v, &maybe)) return wrong(f, "must not be this");
  return true;
}

static bool all_known(yyjson_val *schema)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(schema);
  yyjson_val *k;
  char word[40];

  while ((k = yyjson_obj_iter_next(&it))) {
    snprintf(word, sizeof word, " %.36s ", yyjson_get_str(k));
    if (!strstr(known, word)) return false;
  }
  return true;
}

static bool fits(struct fit *f, yyjson_val *schema, yyjson_val *v)
{
  yyjson_val *list = mr_json_get(schema, "enum"), *exact = mr_json_get(schema, "const");
  bool ok;

  if (yyjson_is_false(schema)) return wrong(f, "must not be there");
  if (!yyjson_is_obj(schema)) return true;
  if (!all_known(schema)) f->unsure = true;
  if (f->depth == DEPTH || ++f->steps > STEPS || mr_json_get(schema, "$ref")) {
    f->unsure = true;
    return true;
  }
  f->depth++;
  ok = type_fits(f, mr_json_get(schema, "type"), v) && (!yyjson_is_arr(list) || enum_fits(f, list, v)) &&
       (!exact || same(exact, v) || wrong(f, "has another value than its schema's const")) &&
       (!yyjson_is_str(v) || string_fits(f, schema, mr_json_str(v))) &&
       (!yyjson_is_num(v) || number_fits(f, schema, yyjson_get_num(v))) &&
       (!yyjson_is_arr(v) || array_fits(f, schema, v)) && (!yyjson_is_obj(v) || object_fits(f, schema, v)) &&
       combinations_fit(f, schema, v);
  f->depth--;
  return ok;
}

bool mr_input_fits(yyjson_val *schema, yyjson_val *input, char *why, size_t n)
{
  struct fit f = {.out = why, .n = n};

  if (n) why[0] = '\0';
  if (mr_model_input_bad(input)) {
    snprintf(why, n, "the input is not valid JSON, or no object: write it again");
    return false;
  }
  return fits(&f, schema, input);
}
