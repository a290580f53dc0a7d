/*
 * ext_build.c - JSON for bindings, building: a writer with a stack, for values that come one after the other
 * from an interpreter's own tables. The first mistake is kept and reported by build_done; what follows it is
 * ignored. A builder belongs to one thread at a time.
 */
#include "host/ext_t.h"

#include <math.h>

struct level {
  yyjson_mut_val *v, *key;
};

struct mr_build {
  struct mr_runtime *rt;
  yyjson_mut_doc *doc;
  yyjson_alc alc;
  struct level *stack;
  int depth, cap;
  int code;
  const char *why;
};

static void fail(struct mr_build *b, int code, const char *why)
{
  if (b->code == MR_OK) {
    b->code = code;
    b->why = why;
  }
}

struct mr_build *mr_x_build(struct mr_runtime *rt)
{
  struct mr_build *b = mr_rt_check(rt, NULL) == MR_OK ? mr_mem_zalloc(mr_rt_mem(rt), sizeof *b) : NULL;

  if (!b) return NULL;
  mr_json_alc(mr_rt_mem(rt), &b->alc);
  b->doc = yyjson_mut_doc_new(&b->alc);
  if (!b->doc) {
    mr_mem_free(mr_rt_mem(rt), b);
    return NULL;
  }
  mr_rt_ref(rt);
  b->rt = rt;
  return b;
}

void mr_x_build_drop(struct mr_build **bp)
{
  struct mr_build *b = *bp;
  struct mr_runtime *rt;

  if (!b) return;
  *bp = NULL;
  rt = b->rt;
  yyjson_mut_doc_free(b->doc);
  mr_mem_free(mr_rt_mem(rt), b->stack);
  mr_mem_free(mr_rt_mem(rt), b);
  mr_rt_unref(rt);
}

static void put(struct mr_build *b, yyjson_mut_val *v)
{
  struct level *top = b->depth ? &b->stack[b->depth - 1] : NULL;

  if (b->code != MR_OK) return;
  if (!v) {
    fail(b, MR_E_NOMEM, "out of memory");
  } else if (!top && yyjson_mut_doc_get_root(b->doc)) {
    fail(b, MR_E_INVALID, "a document holds one value");
  } else if (!top) {
    yyjson_mut_doc_set_root(b->doc, v);
  } else if (yyjson_mut_is_arr(top->v)) {
    yyjson_mut_arr_append(top->v, v);
  } else if (!top->key) {
    fail(b, MR_E_INVALID, "a value in an object needs a key");
  } else {
    yyjson_mut_obj_add(top->v, top->key, v);
    top->key = NULL;
  }
}

static yyjson_mut_val *text(struct mr_build *b, struct mr_str s)
{
  if (b->code == MR_OK && !mr_utf8_valid(s)) fail(b, MR_E_INVALID, "a string is not UTF-8");
  return b->code == MR_OK ? yyjson_mut_strncpy(b->doc, s.p ? s.p : "", s.n) : NULL;
}

void mr_x_b_null(struct mr_build *b)
{
  put(b, yyjson_mut_null(b->doc));
}
void mr_x_b_bool(struct mr_build *b, int v)
{
  put(b, yyjson_mut_bool(b->doc, v != 0));
}

void mr_x_b_int(struct mr_build *b, int64_t v)
{
  put(b, v < 0 ? yyjson_mut_sint(b->doc, v) : yyjson_mut_uint(b->doc, (uint64_t)v));
}

void mr_x_b_real(struct mr_build *b, double v)
{
  if (!isfinite(v)) fail(b, MR_E_INVALID, "a number is not finite: JSON has no NaN and no infinity");
  put(b, yyjson_mut_real(b->doc, v));
}

void mr_x_b_str(struct mr_build *b, struct mr_str v)
{
  put(b, text(b, v));
}

void mr_x_b_key(struct mr_build *b, struct mr_str k)
{
  struct level *top = b->depth ? &b->stack[b->depth - 1] : NULL;
  yyjson_mut_val *key = text(b, k);

  if (b->code != MR_OK) return;
  if (!top || !yyjson_mut_is_obj(top->v) || top->key)
    fail(b, MR_E_INVALID, "a key belongs into an object, before its value");
  else if (!key)
    fail(b, MR_E_NOMEM, "out of memory");
  else
    top->key = key;
}

void mr_x_b_open(struct mr_build *b, int is_array)
{
  yyjson_mut_val *v = is_array ? yyjson_mut_arr(b->doc) : yyjson_mut_obj(b->doc);

  put(b, v);
  if (b->code != MR_OK) return;
  if (b->depth >= MR_JSON_DEPTH) {
    fail(b, MR_E_INVALID, "nested deeper than 512 levels");
    return;
  }
  if (b->depth == b->cap) {
    int cap = b->cap ? b->cap * 2 : 16;
    struct level *s = mr_mem_realloc(mr_rt_mem(b->rt), b->stack, (size_t)cap * sizeof *s);
    if (!s) {
      fail(b, MR_E_NOMEM, "out of memory");
      return;
    }
    b->stack = s;
    b->cap = cap;
  }
  b->stack[b->depth++] = (struct level){.v = v};
}

void mr_x_b_close(struct mr_build *b)
{
  if (b->code != MR_OK) return;
  if (b->depth == 0 || b->stack[b->depth - 1].key)
    fail(b, MR_E_INVALID, b->depth ? "a key has no value" : "nothing is open");
  else
    b->depth--;
}

void mr_x_b_val(struct mr_build *b, const struct mr_val *v)
{
  if (!v)
    fail(b, MR_E_INVALID, "there is no value to copy");
  else
    put(b, yyjson_val_mut_copy(b->doc, (yyjson_val *)(uintptr_t)v));
}

int mr_x_build_done(struct mr_build **bp, struct mr_doc **out, struct mr_err *err)
{
  struct mr_build *b = *bp;
  yyjson_doc *doc = NULL;
  int code;

  *out = NULL;
  if (b->code == MR_OK && (b->depth || !yyjson_mut_doc_get_root(b->doc)))
    fail(b, MR_E_INVALID, b->depth ? "an array or object is still open" : "the document is empty");
  if (b->code == MR_OK && !(doc = yyjson_mut_doc_imut_copy(b->doc, &b->alc)))
    fail(b, MR_E_NOMEM, "out of memory");
  if (doc && !(*out = mr_doc_new(b->rt, doc))) fail(b, MR_E_NOMEM, "out of memory");
  code = b->code == MR_OK ? MR_OK : mr_err_set(err, b->code, NULL, "%s", b->why);
  mr_x_build_drop(bp);
  return code;
}
