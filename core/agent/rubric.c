/*
 * rubric.c - the rubric of an outcome that is a file: its text, read before the event is checked and stored, so that the
 * event holds what the outcome is graded by (API: sessions §4.2). Loop thread.
 */
#include "agent/events.h"
#include "agent/outcome.h"

#include <stdio.h>

struct reading {
  struct mr_call *c;
  char field[96];
  struct mr_str file_id;
  void (*fn)(void *ud, int code, struct mr_str text);
  void *ud;
};

static void on_bytes(void *ud, int code, struct mr_str bytes)
{
  struct reading *r = ud;
  struct mr_str text = mr_str_n("", 0);

  if (code != MR_OK) {
    code = mr_err_set(&r->c->err, code, r->field, "%s: the file could not be read", r->field);
  } else if (bytes.n > 4 * (size_t)MR_RUBRIC_MAX || !mr_utf8_valid(bytes) || !mr_str_trim(bytes).n) {
    code = mr_err_set(&r->c->err, MR_E_INVALID, r->field,
                      "%s: must be a text file of at most %d characters, not blank", r->field, MR_RUBRIC_MAX);
  } else {
    text = mr_arena_str(r->c->arena, bytes);
    if (!text.p) code = mr_err_nomem(&r->c->err);
  }
  r->fn(r->ud, code, text);
}

static void on_file(void *ud, const struct mr_rows *rows)
{
  struct reading *r = ud;
  struct mr_call *c = r->c;
  int code = mr_read_check(c, rows, r->field, "file", r->file_id);
  struct mr_file_ref f;
  yyjson_doc *doc = NULL;

  if (code == MR_OK) { /* c->path[0]: the session; empty, it is about to be made */
    code = mr_file_ref_read(c->d, rows->docs[0].body, c->path[0], &f, &doc);
    yyjson_doc_free(doc);
    if (code != MR_OK)
      mr_err_set(&c->err, code, r->field,
                 code == MR_E_NOTFOUND ? "%s: is that of no file that this session can use"
                                       : "%s: the file could not be read",
                 r->field);
  }
  if (code != MR_OK)
    r->fn(r->ud, code, mr_str_n("", 0));
  else
    mr_blob_read(c->d->store, r->file_id, 0, 4 * (size_t)MR_RUBRIC_MAX + 1, on_bytes, r);
}

void mr_rubric_read(struct mr_call *c, yyjson_val *events, const char *field,
                    void (*fn)(void *ud, int code, struct mr_str text), void *ud)
{
  struct reading *r = mr_arena_alloc(c->arena, sizeof *r);
  yyjson_arr_iter it = yyjson_arr_iter_with(events);
  yyjson_val *ev, *rubric;
  int i = 0;

  for (; r && yyjson_is_arr(events) && (ev = yyjson_arr_iter_next(&it)); i++) {
    rubric = mr_json_get(ev, "rubric");
    if (!mr_str_is(mr_json_get_str(ev, "type"), "user.define_outcome") ||
        !mr_str_is(mr_json_get_str(rubric, "type"), "file"))
      continue;
    *r = (struct reading){.c = c, .file_id = mr_json_get_str(rubric, "file_id"), .fn = fn, .ud = ud};
    snprintf(r->field, sizeof r->field, "%s[%d].rubric.file_id", field, i);
    if (r->file_id.n)
      mr_read_doc(c->d->store, c->who.workspace, MR_S("file"), r->file_id, on_file, r);
    else
      fn(ud, mr_err_set(&c->err, MR_E_INVALID, r->field, "%s: required", r->field), mr_str_n("", 0));
    return;
  }
  fn(ud, r ? MR_OK : mr_err_nomem(&c->err), mr_str_n("", 0));
}
