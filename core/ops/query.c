/*
 * query.c - a query string to the input object that its shape describes: kinds come from the table, so
 * limit=5 is a number and statuses[]=idle an array. The text is rebuilt as JSON and parsed by the one parser.
 */
#include "net/url.h"
#include "ops/ops.h"

#include <stdio.h>

enum { PAIRS_MAX = 256 };

struct pair {
  struct mr_str name, value;
};
struct query {
  struct pair v[PAIRS_MAX];
  int n;
};

static int keep(void *ud, struct mr_str name, struct mr_str value)
{
  struct query *q = ud;

  if (q->n == PAIRS_MAX) return MR_E_TOO_LARGE;
  q->v[q->n++] = (struct pair){name, value};
  return MR_OK;
}

static bool named(struct mr_str name, const char *field, const char *tail)
{
  size_t n = strlen(field);
  return mr_str_starts(name, mr_str_n(field, n)) && mr_str_is(mr_str_n(name.p + n, name.n - n), tail);
}

static int scalar(struct mr_jw *w, unsigned kind, struct mr_str s, const char *field, struct mr_err *err)
{
  int64_t n;

  if (kind & MR_F_BOOL) {
    if (!mr_str_is(s, "true") && !mr_str_is(s, "false"))
      return mr_err_set(err, MR_E_INVALID, field, "%s: must be true or false", field);
    mr_jw_bool(w, mr_str_is(s, "true"));
  } else if (kind & MR_F_INT && mr_str_int(s, &n) == MR_OK) {
    mr_jw_int(w, n);
  } else if (kind & MR_F_INT && !(kind & MR_F_STR)) {
    return mr_err_set(err, MR_E_INVALID, field, "%s: must be an integer", field);
  } else {
    mr_jw_str(w, s);
  }
  return MR_OK;
}

/* name[]=a, name=a&name=b, name=a,b */
static int array(struct mr_jw *w, const struct mr_field *f, const struct query *q, struct mr_err *err)
{
  int code = MR_OK;

  mr_jw_key(w, f->name);
  mr_jw_arr(w);
  for (int i = 0; code == MR_OK && i < q->n; i++) {
    struct mr_str rest = q->v[i].value;
    if (named(q->v[i].name, f->name, "[]"))
      code = scalar(w, f->item, rest, f->name, err);
    else if (named(q->v[i].name, f->name, ""))
      while (code == MR_OK && rest.p)
        code = scalar(w, f->item, mr_str_split(&rest, ','), f->name, err);
  }
  mr_jw_arr_end(w);
  return code;
}

/* created_at[gte]=.. */
static int object(struct mr_jw *w, const struct mr_field *f, const struct query *q, struct mr_err *err)
{
  char tail[72];
  int code = MR_OK;

  mr_jw_key(w, f->name);
  mr_jw_obj(w);
  for (int k = 0; code == MR_OK && f->of && k < f->of->n; k++) {
    snprintf(tail, sizeof tail, "[%s]", f->of->fields[k].name);
    for (int i = 0; code == MR_OK && i < q->n; i++)
      if (named(q->v[i].name, f->name, tail)) {
        mr_jw_key(w, f->of->fields[k].name);
        code = scalar(w, f->of->fields[k].kind, q->v[i].value, f->name, err);
        break;
      }
  }
  mr_jw_obj_end(w);
  return code;
}

static bool given(const struct mr_field *f, const struct query *q)
{
  for (int i = 0; i < q->n; i++) {
    struct mr_str n = q->v[i].name;
    size_t len = strlen(f->name);
    if (mr_str_starts(n, mr_str_c(f->name)) && (n.n == len || n.p[len] == '[')) return true;
  }
  return false;
}

static int field(struct mr_jw *w, const struct mr_field *f, const struct query *q, struct mr_err *err)
{
  if (f->kind & MR_F_ARR) return array(w, f, q, err);
  if (f->kind & MR_F_OBJ) return object(w, f, q, err);
  for (int i = 0; i < q->n; i++)
    if (named(q->v[i].name, f->name, "")) {
      mr_jw_key(w, f->name);
      return scalar(w, f->kind, q->v[i].value, f->name, err);
    }
  return MR_OK;
}

int mr_op_query(struct mr_call *c, const struct mr_opdef *op, struct mr_str text, struct mr_err *err)
{
  struct query *q = mr_mem_zalloc(c->mem, sizeof *q); /* not in the arena: a stream's lives long */
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  struct mr_jw w;
  int code;

  if (!q) return mr_err_nomem(err);
  mr_buf_init(&b, c->mem, 1 << 20);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  code = mr_url_query(c->arena, text, keep, q);
  if (code != MR_OK)
    mr_err_set(err, MR_E_INVALID, NULL,
               code == MR_E_INVALID ? "the query string is not well-formed"
                                    : "the query string has too many parameters");
  for (int i = 0; code == MR_OK && i < op->in->n; i++)
    if (given(&op->in->fields[i], q)) code = field(&w, &op->in->fields[i], q, err);
  mr_jw_obj_end(&w);
  if (code == MR_OK) code = mr_json_parse(c->mem, mr_buf_get(&b), SIZE_MAX, &doc, err);
  mr_buf_free(&b);
  mr_mem_free(c->mem, q);
  if (code == MR_OK) mr_op_input(c, doc);
  return code;
}
