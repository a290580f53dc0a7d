/*
 * content_files.c - the files that content blocks of events refer to ({"type":"file","file_id"}): what is known of them is
 * read before the events are checked, so that a block that no model could be given is refused when it is sent. The
 * bytes are read when a model is asked (turn_files.c).
 *
 * A file of a session's scope is that session's alone. Loop thread; events.c and session_create.c call.
 */
#include "agent/content.h"

enum { BLOCKS_MAX = 1000 }; /* from files, in one request */

struct reading {
  struct mr_call *c;
  struct mr_str session_id;
  struct mr_str *ids; /* each once */
  int n, blocks;
  struct mr_file_refs *out;
  void (*fn)(void *ud, int code);
  void *ud;
};

int mr_file_ref_read(const struct mr_domain *d, struct mr_str body, struct mr_str session_id,
                     struct mr_file_ref *out, yyjson_doc **doc)
{
  yyjson_val *f;
  int64_t expires = 0;
  int code = mr_json_parse(d->mem, body, SIZE_MAX, doc, NULL);

  if (code != MR_OK) return code;
  f = yyjson_doc_get_root(*doc);
  *out = (struct mr_file_ref){.id = mr_json_get_str(f, "id"),
                              .media_type = mr_json_get_str(f, "mime_type"),
                              .session_id = mr_json_get_str(mr_json_get(f, "scope"), "id"),
                              .size = mr_json_get_int(f, "size_bytes", 0)};
  if (out->session_id.n && !mr_str_eq(out->session_id, session_id)) code = MR_E_NOTFOUND;
  if (mr_time_parse(mr_json_get_str(f, "expires_at"), &expires) == MR_OK && expires <= mr_loop_wall_us(d->loop))
    code = MR_E_NOTFOUND;
  if (code != MR_OK) {
    yyjson_doc_free(*doc);
    *doc = NULL;
  }
  return code;
}

static int keep(struct reading *r, const struct mr_file_ref *f)
{
  struct mr_arena *a = r->c->arena;
  struct mr_file_ref *to = &r->out->v[r->out->n++];

  *to = (struct mr_file_ref){.id = mr_arena_str(a, f->id),
                             .media_type = mr_arena_str(a, f->media_type),
                             .session_id = mr_arena_str(a, f->session_id),
                             .size = f->size};
  return to->id.p && to->media_type.p && to->session_id.p ? MR_OK : mr_err_nomem(&r->c->err);
}

static void on_docs(void *ud, const struct mr_rows *rows)
{
  struct reading *r = ud;
  struct mr_file_ref f;
  yyjson_doc *doc;
  int code = rows->code;

  if (code != MR_OK) mr_err_copy(&r->c->err, rows->err);
  for (int i = 0; code == MR_OK && i < rows->n && r->out->n < r->n; i++) {
    code = mr_file_ref_read(r->c->d, rows->docs[i].body, r->session_id, &f, &doc);
    if (code == MR_OK) {
      code = keep(r, &f);
      yyjson_doc_free(doc);
    } else {
      code = code == MR_E_NOTFOUND ? MR_OK : mr_err_set(&r->c->err, code, NULL, "a file could not be read");
    }
  }
  r->fn(r->ud, code);
}

static int add(struct reading *r, struct mr_str id)
{
  if (r->blocks++ == BLOCKS_MAX)
    return mr_err_set(&r->c->err, MR_E_INVALID, "events", "more than %d blocks from files in one request",
                      BLOCKS_MAX);
  for (int i = 0; i < r->n; i++)
    if (mr_str_eq(r->ids[i], id)) return MR_OK;
  if (!r->ids) r->ids = mr_arena_alloc(r->c->arena, BLOCKS_MAX * sizeof *r->ids);
  if (!r->ids) return mr_err_nomem(&r->c->err);
  r->ids[r->n++] = id;
  return MR_OK;
}

static int collect(struct reading *r, yyjson_val *events)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(events), blocks;
  yyjson_val *ev, *content, *b;
  struct mr_str id;
  int code = MR_OK;

  while (yyjson_is_arr(events) && (ev = yyjson_arr_iter_next(&it))) {
    content = mr_json_get(ev, "content");
    blocks = yyjson_arr_iter_with(content);
    while (code == MR_OK && yyjson_is_arr(content) && (b = yyjson_arr_iter_next(&blocks)))
      if ((id = mr_content_file(b)).n) code = add(r, id);
  }
  return code;
}

void mr_file_refs_read(struct mr_call *c, yyjson_val *events, struct mr_str session_id,
                       struct mr_file_refs *out, void (*fn)(void *ud, int code), void *ud)
{
  struct reading *r = mr_arena_alloc(c->arena, sizeof *r);
  struct mr_doc_query q = {.kind = MR_S("file"), .include_archived = true};
  int code;

  *out = (struct mr_file_refs){0};
  if (!r) {
    fn(ud, mr_err_nomem(&c->err));
    return;
  }
  *r = (struct reading){.c = c, .session_id = session_id, .out = out, .fn = fn, .ud = ud};
  code = collect(r, events);
  if (code == MR_OK && r->n) {
    out->v = mr_arena_alloc(c->arena, (size_t)r->n * sizeof *out->v);
    if (!out->v) code = mr_err_nomem(&c->err);
  }
  if (code != MR_OK || !r->n) {
    fn(ud, code);
    return;
  }
  q.ids = r->ids;
  q.nids = q.limit = r->n;
  mr_read_docs(c->d->store, c->who.workspace, &q, on_docs, r);
}
