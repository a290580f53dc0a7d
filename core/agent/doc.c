/* doc.c - see doc.h; and metadata, which every resource has. */
#include "agent/doc.h"

enum { TRIES = 100, METADATA_PAIRS = 16, METADATA_KEY = 64, METADATA_VALUE = 512 };

/* ---- metadata ---- */

static int check_pair(struct mr_call *c, struct mr_str key, yyjson_val *v)
{
  if (key.n == 0 || mr_utf8_chars(key) > METADATA_KEY)
    return mr_err_set(&c->err, MR_E_INVALID, "metadata", "metadata: keys have 1 to %d characters",
                      METADATA_KEY);
  if (!yyjson_is_str(v) || mr_utf8_chars(mr_json_str(v)) > METADATA_VALUE)
    return mr_err_set(&c->err, MR_E_INVALID, "metadata",
                      "metadata." MR_FMT ": a string of at most %d characters", (int)(key.n > 64 ? 64 : key.n),
                      key.p, METADATA_VALUE);
  return MR_OK;
}

int mr_metadata_merge(struct mr_call *c, yyjson_val *old, yyjson_val *patch, bool empty_deletes,
                      struct mr_buf *out)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(old);
  yyjson_val *k, *v;
  struct mr_jw w;
  int n = 0, code;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  while (old && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str key = mr_json_str(k);
    v = yyjson_is_obj(patch) ? yyjson_obj_getn(patch, key.p, key.n) : NULL;
    if (v) continue; /* written below, or deleted */
    mr_jw_key_s(&w, key);
    mr_jw_str(&w, mr_json_str(yyjson_obj_iter_get_val(k)));
    n++;
  }
  it = yyjson_obj_iter_with(patch);
  while (yyjson_is_obj(patch) && (k = yyjson_obj_iter_next(&it))) {
    v = yyjson_obj_iter_get_val(k);
    if (yyjson_is_null(v) || (empty_deletes && yyjson_is_str(v) && yyjson_get_len(v) == 0)) continue;
    code = check_pair(c, mr_json_str(k), v);
    if (code != MR_OK) return code;
    mr_jw_key_s(&w, mr_json_str(k));
    mr_jw_str(&w, mr_json_str(v));
    n++;
  }
  mr_jw_obj_end(&w);
  if (n > METADATA_PAIRS)
    return mr_err_set(&c->err, MR_E_INVALID, "metadata", "metadata: at most %d pairs", METADATA_PAIRS);
  return out->failed ? mr_err_nomem(&c->err) : MR_OK;
}

/* ---- answers ---- */

struct look {
  struct mr_call *c;
  const char *kind;
  struct mr_str id;
};

static void on_doc(void *ud, const struct mr_rows *r)
{
  struct look *p = ud;
  int code = mr_read_check(p->c, r, NULL, p->kind, p->id);

  if (code == MR_OK) mr_buf_str(&p->c->out, r->docs[0].body);
  mr_call_done(p->c, code);
}

void mr_doc_answer(struct mr_call *c, const char *kind, struct mr_str id)
{
  struct look *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  *p = (struct look){c, kind, id};
  mr_read_doc(c->d->store, c->who.workspace, mr_str_c(kind), id, on_doc, p);
}

static void on_list(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  struct mr_jw w;

  if (r->code != MR_OK) {
    mr_call_fail_err(c, r->err);
    return;
  }
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; i < r->n; i++)
    mr_jw_raw(&w, r->docs[i].body);
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "next_page");
  if (r->more)
    mr_jw_str(&w, mr_page_by_time(c, false, false, r->docs[r->n - 1].created_us, r->docs[r->n - 1].id));
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_doc_list(struct mr_call *c, const char *kind, int dflt, int max)
{
  struct mr_doc_query q = {.kind = mr_str_c(kind)};
  struct mr_page page;
  int code = mr_page_read(c, dflt, max, false, &page);

  if (code == MR_OK) code = mr_page_range(c, &q.created);
  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  q.include_archived = mr_json_get_bool(c->in, "include_archived", false);
  q.after = page.cur;
  q.limit = page.limit;
  mr_read_docs(c->d->store, c->who.workspace, &q, on_list, c);
}

/* ---- writing ---- */

static void on_created(void *ud, const struct mr_commit_result *r)
{
  struct mr_call *c = ud;
  if (r->code != MR_OK)
    mr_call_fail_err(c, r->err);
  else
    mr_call_done(c, MR_OK);
}

void mr_doc_create(struct mr_call *c, struct mr_doc_row *row, bool version_row)
{
  struct mr_commit *cm = c->out.failed ? NULL : mr_commit_new(c->d->store, &c->who);

  if (!cm) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  row->body = mr_buf_get(&c->out);
  mr_commit_doc_put(cm, row, 0);
  if (version_row) mr_commit_doc_version(cm, row->kind, row->id, row->version, row->created_us, row->body);
  mr_commit_submit(&cm, on_created, c);
}

void mr_doc_replace(struct mr_buf *out, yyjson_val *body, const char *key, struct mr_str json)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(body);
  yyjson_val *k;
  bool found = false;
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  while ((k = yyjson_obj_iter_next(&it))) {
    mr_jw_key_s(&w, mr_json_str(k));
    if (mr_str_is(mr_json_str(k), key)) {
      mr_jw_raw(&w, json);
      found = true;
    } else {
      w.after_key = false;
      mr_json_write(out, yyjson_obj_iter_get_val(k), false);
    }
  }
  if (!found) mr_jw_kraw(&w, key, json);
  mr_jw_obj_end(&w);
}

void mr_doc_archive(struct mr_doc_change *p, yyjson_val *body, int64_t at_us)
{
  char at[28];
  mr_time_format(at_us, at);
  mr_doc_replace(&p->body, body, "archived_at", mr_str_c(mr_arena_printf(p->c->arena, "\"%s\"", at)));
}

static void change_try(struct mr_doc_change *p);

static void on_changed(void *ud, const struct mr_commit_result *r)
{
  struct mr_doc_change *p = ud;

  if (r->code == MR_E_CONFLICT && ++p->tries < TRIES) {
    mr_buf_reset(&p->c->out);
    change_try(p);
    return;
  }
  mr_buf_free(&p->body);
  if (r->code == MR_OK && p->after) p->after(p);
  if (r->code == MR_E_CONFLICT) /* of revisions: what the client asked for is not in conflict with anything */
    mr_call_fail(p->c, MR_E_UNAVAILABLE, NULL, "too many changes of this %s at the same time: try again",
                 p->kind);
  else if (r->code != MR_OK)
    mr_call_fail_err(p->c, r->err);
  else
    mr_call_done(p->c, MR_OK);
}

static void on_old(void *ud, const struct mr_rows *r)
{
  struct mr_doc_change *p = ud;
  struct mr_call *c = p->c;
  struct mr_doc_row next;
  struct mr_commit *cm;
  yyjson_doc *doc = NULL;
  int code = mr_read_check(c, r, NULL, p->kind, p->id);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  next = r->docs[0];
  mr_buf_free(&p->body);
  mr_buf_init(&p->body, c->mem, 1 << 24);
  code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK) code = p->make(p, &r->docs[0], yyjson_doc_get_root(doc), &next);
  yyjson_doc_free(doc);
  if (code != MR_OK) {
    if (code == MR_MORE) mr_buf_str(&c->out, r->docs[0].body);
    mr_buf_free(&p->body);
    mr_call_done(c, code == MR_MORE ? MR_OK : code);
    return;
  }
  cm = mr_commit_new(c->d->store, &c->who);
  if (!cm || p->body.failed) {
    mr_commit_drop(&cm);
    mr_buf_free(&p->body);
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  next.body = mr_buf_get(&p->body);
  mr_buf_str(&c->out, next.body);
  mr_commit_doc_put(cm, &next, r->docs[0].rev);
  if (p->version_row && next.version != r->docs[0].version)
    mr_commit_doc_version(cm, next.kind, next.id, next.version, next.updated_us, next.body);
  mr_commit_submit(&cm, on_changed, p);
}

static void change_try(struct mr_doc_change *p)
{
  mr_read_doc(p->c->d->store, p->c->who.workspace, mr_str_c(p->kind), p->id, on_old, p);
}

void mr_doc_change(struct mr_doc_change *p)
{
  mr_buf_init(&p->body, p->c->mem, 1 << 24);
  change_try(p);
}
