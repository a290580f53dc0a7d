/*
 * resources.c - session resources: files (API: sessions §3, files §9.5). A file given to a session is copied,
 * so the response names another file_id than the request; the copy dies with the session. Repositories and
 * memory stores are not implemented yet and say so.
 */
#include "agent/resources.h"

#include <stdio.h>

enum { RESOURCES_MAX = 500 };
static const char uploads[] = "/mnt/session/uploads";

struct mr_str mr_resource_path(struct mr_call *c, struct mr_str given, struct mr_str file_id, const char *field)
{
  struct mr_str rest = given, part;
  bool rooted = mr_str_starts(given, MR_S("/mnt/session/uploads/"));
  char *path;

  if (!given.n) return mr_str_c(mr_arena_printf(c->arena, "%s/" MR_FMT, uploads, MR_ARG(file_id)));
  while (rest.p) {
    part = mr_str_split(&rest, '/');
    if (mr_str_is(part, "..") || memchr(part.p ? part.p : "", '\0', part.n) || given.n > 1024 ||
        given.p[given.n - 1] == '/') {
      mr_err_set(&c->err, MR_E_INVALID, field, "%s: a file path without \"..\", at most 1,024 bytes", field);
      return mr_str_n(NULL, 0);
    }
  }
  while (given.n && given.p[0] == '/')
    given.p++, given.n--;
  path = rooted ? mr_arena_printf(c->arena, "/" MR_FMT, MR_ARG(given))
                : mr_arena_printf(c->arena, "%s/" MR_FMT, uploads, MR_ARG(given));
  return mr_str_c(path);
}

/* ---- copying ---- */

static void copy_next(struct mr_resources *r);

static bool path_taken(const struct mr_resources *r, struct mr_str path)
{
  yyjson_val *mounted = r->onto ? mr_json_get(yyjson_doc_get_root(r->onto->doc), "resources") : NULL, *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(mounted);

  for (int i = 0; i < r->n; i++)
    if (mr_str_eq(r->v[i].mount_path, path)) return true;
  while (mounted && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "mount_path"), path)) return true;
  return false;
}

/* The input's name of a member of the resource at hand. */
static const char *field_of(const struct mr_resources *r, const char *member, char out[64])
{
  if (r->onto)
    snprintf(out, 64, "%s", member); /* one that is added is the whole input */
  else
    snprintf(out, 64, "resources[%d].%s", r->n, member);
  return out;
}

static void on_copy(struct mr_call *c, int code, const struct mr_doc_row *copy, void *ud)
{
  struct mr_resources *r = ud;
  struct mr_resource *x = &r->v[r->n];
  yyjson_val *item = yyjson_arr_get(r->list, (size_t)r->n);
  char field[64], id[MR_ID_MAX];

  if (code == MR_E_NOTFOUND) snprintf(c->err.field, sizeof c->err.field, "%s", field_of(r, "file_id", field));
  if (code == MR_OK && mr_id_make(c->d->sys, id, "sesrsc") != MR_OK)
    code = mr_err_set(&c->err, MR_E_IO, NULL, "no randomness");
  if (code == MR_OK) {
    x->doc = *copy;
    x->doc.id = mr_arena_str(c->arena, copy->id);
    x->doc.parent = mr_arena_str(c->arena, copy->parent);
    x->doc.name = mr_arena_str(c->arena, copy->name);
    x->doc.body = mr_arena_str(c->arena, copy->body);
    x->doc.kind = MR_S("file");
    x->file_id = x->doc.id;
    snprintf(x->id, sizeof x->id, "%s", id);
    x->created_us = mr_loop_wall_us(c->d->loop);
    field_of(r, "mount_path", field);
    /* By default the id that the client sent, not the copy's: it may be named in the same request's events. */
    x->mount_path =
        mr_resource_path(c, mr_json_get_str(item, "mount_path"), mr_json_get_str(item, "file_id"), field);
    if (!x->mount_path.p)
      code = c->err.code;
    else if (path_taken(r, x->mount_path))
      code = mr_err_set(&c->err, MR_E_INVALID, field, "%s: another resource is mounted there", field);
    r->n++; /* dropped with the others if refused */
  }
  if (code != MR_OK)
    r->fn(r->ud, code);
  else
    copy_next(r);
}

static void copy_next(struct mr_resources *r)
{
  struct mr_call *c = r->c;
  yyjson_val *item = yyjson_arr_get(r->list, (size_t)r->n);
  struct mr_str type = mr_json_get_str(item, "type");
  char field[64];

  if (!item) {
    r->fn(r->ud, MR_OK);
    return;
  }
  if (!mr_str_is(type, "file")) {
    field_of(r, "type", field);
    r->fn(r->ud, mr_err_set(&c->err, MR_E_UNSUPPORTED, field,
                            "%s: " MR_FMT " is not implemented yet; only file", field, MR_ARG(type)));
    return;
  }
  if (!mr_json_get_str(item, "file_id").n) {
    snprintf(field, sizeof field, "resources[%d].file_id", r->n);
    r->fn(r->ud, mr_err_set(&c->err, MR_E_INVALID, field, "%s: required", field));
    return;
  }
  mr_files_copy_to_session(c, mr_json_get_str(item, "file_id"), r->session_id, on_copy, r);
}

void mr_resources_copy(struct mr_call *c, struct mr_resources *r, yyjson_val *list, struct mr_str session_id,
                       void (*fn)(void *ud, int code), void *ud)
{
  size_t n = yyjson_arr_size(list);

  *r = (struct mr_resources){
      .c = c, .list = list, .session_id = session_id, .onto = r->onto, .fn = fn, .ud = ud};
  r->v = mr_arena_alloc(c->arena, (n + 1) * sizeof *r->v);
  if (!r->v)
    fn(ud, mr_err_nomem(&c->err));
  else if (n > RESOURCES_MAX)
    fn(ud, mr_err_set(&c->err, MR_E_INVALID, "resources", "resources: at most %d", RESOURCES_MAX));
  else
    copy_next(r);
}

int mr_resource_check_own(struct mr_call *c, struct mr_str type, const char *field)
{
  if (mr_str_is(type, "memory_store")) return MR_OK;
  return mr_err_set(&c->err, MR_E_INVALID, field,
                    "%s: the environment is self-hosted, its sessions take only memory stores: " MR_FMT
                    " is mounted by the server, which does not run their tools",
                    field, MR_ARG(type));
}

int mr_resources_check_own(struct mr_call *c, yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;
  char field[64];
  int code = MR_OK;

  for (int i = 0; code == MR_OK && yyjson_is_arr(list) && (v = yyjson_arr_iter_next(&it)); i++) {
    snprintf(field, sizeof field, "resources[%d].type", i);
    code = mr_resource_check_own(c, mr_json_get_str(v, "type"), field);
  }
  return code;
}

void mr_resources_commit(const struct mr_resources *r, struct mr_commit *cm)
{
  for (int i = 0; i < r->n; i++)
    mr_commit_doc_put(cm, &r->v[i].doc, 0);
}

void mr_resources_drop(struct mr_domain *d, struct mr_resources *r)
{
  for (int i = 0; i < r->n; i++)
    mr_blob_delete(d->store, r->v[i].file_id);
  r->n = 0;
}

static void write_one(const struct mr_resource *x, struct mr_jw *w)
{
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "file");
  mr_jw_kc(w, "id", x->id);
  mr_jw_kstr(w, "file_id", x->file_id);
  mr_jw_kstr(w, "mount_path", x->mount_path);
  mr_jw_ktime(w, "created_at", x->created_us);
  mr_jw_ktime(w, "updated_at", x->created_us);
  mr_jw_obj_end(w);
}

void mr_resources_write(const struct mr_resources *r, struct mr_jw *w)
{
  mr_jw_arr(w);
  for (int i = 0; i < r->n; i++)
    write_one(&r->v[i], w);
  mr_jw_arr_end(w);
}

/* ---- the operations on a session's list ---- */

static bool mounted(const struct mr_session *s, struct mr_str path)
{
  yyjson_val *list = mr_json_get(yyjson_doc_get_root(s->doc), "resources"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(list);

  while (list && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "mount_path"), path)) return true;
  return false;
}

struct change {
  struct mr_call *c;
  struct mr_session *s;
  struct mr_resources added;
  struct mr_str removed_file;
  yyjson_doc *list; /* the one resource of an add, as a list */
};

static yyjson_val *find(struct mr_session *s, struct mr_str id)
{
  yyjson_val *list = mr_json_get(yyjson_doc_get_root(s->doc), "resources"), *v;
  yyjson_arr_iter it = yyjson_arr_iter_with(list);

  while (list && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_eq(mr_json_get_str(v, "id"), id)) return v;
  return NULL;
}

static void on_stored(void *ud, int code, const struct mr_err *err)
{
  struct change *p = ud;
  struct mr_session *s = p->s;

  if (code == MR_OK && p->removed_file.n) mr_blob_delete(s->d->store, p->removed_file);
  if (code == MR_OK)
    mr_call_done(p->c, MR_OK);
  else
    mr_call_fail_err(p->c, err);
  mr_session_unref(s);
}

/* Writes the client's part again, with one resource more or less, and commits it. */
static void store_change(struct change *p)
{
  struct mr_session *s = p->s;
  struct mr_call *c = p->c;
  yyjson_val *old = yyjson_doc_get_root(s->doc), *k, *v;
  yyjson_obj_iter it = yyjson_obj_iter_with(old);
  struct mr_buf b;
  struct mr_jw w;
  struct mr_txn t;

  mr_buf_init(&b, c->mem, 1 << 22);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  while ((k = yyjson_obj_iter_next(&it))) {
    yyjson_arr_iter each = yyjson_arr_iter_with(yyjson_obj_iter_get_val(k));
    mr_jw_key_s(&w, mr_json_str(k));
    if (!mr_str_is(mr_json_str(k), "resources")) {
      w.after_key = false;
      mr_json_write(&b, yyjson_obj_iter_get_val(k), false);
      continue;
    }
    mr_jw_arr(&w);
    while ((v = yyjson_arr_iter_next(&each))) {
      if (p->removed_file.n && mr_str_eq(mr_json_get_str(v, "file_id"), p->removed_file)) continue;
      mr_jw_raw(&w, MR_S(" ")); /* for its comma; the value follows as it is */
      mr_json_write(&b, v, false);
    }
    if (p->added.n) write_one(&p->added.v[0], &w);
    mr_jw_arr_end(&w);
  }
  mr_jw_obj_end(&w);
  s->doc_json = mr_session_copy(s, mr_buf_get(&b));
  mr_buf_free(&b);
  if (!s->doc_json.n || mr_session_parse_docs(s, &c->err) != MR_OK) {
    mr_call_done(c, mr_err_nomem(&c->err));
    mr_session_unref(s);
    return;
  }
  mr_txn_begin(&t, &s->main, &c->who, "resource");
  t.what |= MR_SESSION_DOC;
  if (t.c && p->added.n) mr_resources_commit(&p->added, t.c);
  if (t.c && p->removed_file.n) mr_commit_doc_delete(t.c, MR_S("file"), p->removed_file, -1);
  mr_txn_commit(&t, on_stored, p);
}

static void on_added(void *ud, int code)
{
  struct change *p = ud;
  struct mr_jw w;

  yyjson_doc_free(p->list);
  if (code == MR_OK && mounted(p->s, p->added.v[0].mount_path))
    code = mr_err_set(&p->c->err, MR_E_INVALID, "mount_path",
                      "mount_path: another resource is mounted at " MR_FMT, MR_ARG(p->added.v[0].mount_path));
  if (code != MR_OK) {
    mr_resources_drop(p->c->d, &p->added);
    mr_call_done(p->c, code);
    mr_session_unref(p->s);
    return;
  }
  mr_jw_init(&w, &p->c->out);
  write_one(&p->added.v[0], &w);
  store_change(p);
}

static struct change *change_new(struct mr_call *c, int code, struct mr_session *s, const struct mr_err *err)
{
  struct change *p;

  if (code != MR_OK) {
    mr_call_fail_err(c, err);
    return NULL;
  }
  p = mr_arena_alloc(c->arena, sizeof *p);
  if (!p || s->status == MR_TERMINATED) {
    mr_call_fail(c, p ? MR_E_STATE : MR_E_NOMEM, NULL, "session %s is terminated and cannot be changed", s->id);
    mr_session_unref(s);
    return NULL;
  }
  p->c = c;
  p->s = s;
  return p;
}

static void on_add(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct change *p = change_new(c, code, s, err);
  yyjson_mut_doc *mut;
  yyjson_doc *list;
  size_t have;

  if (!p) return;
  if (s->self_hosted && mr_resource_check_own(c, MR_S("file"), "type") != MR_OK) {
    mr_call_done(c, c->err.code);
    mr_session_unref(s);
    return;
  }
  have = yyjson_arr_size(mr_json_get(yyjson_doc_get_root(s->doc), "resources"));
  if (have >= RESOURCES_MAX) {
    mr_call_fail(c, MR_E_INVALID, "resources", "resources: at most %d", RESOURCES_MAX);
    mr_session_unref(s);
    return;
  }
  mut = yyjson_mut_doc_new(NULL);
  yyjson_mut_doc_set_root(mut, yyjson_mut_arr(mut));
  yyjson_mut_arr_append(yyjson_mut_doc_get_root(mut), yyjson_val_mut_copy(mut, c->in));
  list = yyjson_mut_doc_imut_copy(mut, NULL);
  yyjson_mut_doc_free(mut);
  p->list = list;
  p->added.onto = s;
  mr_resources_copy(c, &p->added, yyjson_doc_get_root(list), mr_str_c(s->id), on_added, p);
}

void mr_sessions_resources_add(struct mr_call *c)
{
  if (!mr_str_is(mr_json_get_str(c->in, "type"), "file"))
    mr_call_fail(c, MR_E_INVALID, "type", "type: only file resources can be added to a session");
  else if (!mr_json_get_str(c->in, "file_id").n)
    mr_call_fail(c, MR_E_INVALID, "file_id", "file_id: required");
  else
    mr_session_get(c->d, c->who.workspace, c->path[0], on_add, c);
}

static void on_remove(void *ud, int code, struct mr_session *s, const struct mr_err *err)
{
  struct mr_call *c = ud;
  struct change *p = change_new(c, code, s, err);
  yyjson_val *v = p ? find(s, c->path[1]) : NULL;

  if (!p) return;
  if (!v) {
    mr_not_found(c, "resource", c->path[1]);
    mr_session_unref(s);
    return;
  }
  p->removed_file = mr_arena_str(c->arena, mr_json_get_str(v, "file_id"));
  mr_buf_printf(&c->out, "{\"id\":\"" MR_FMT "\",\"type\":\"session_resource_deleted\"}", MR_ARG(c->path[1]));
  store_change(p);
}

void mr_sessions_resources_delete(struct mr_call *c)
{
  mr_session_get(c->d, c->who.workspace, c->path[0], on_remove, c);
}

static void on_read(void *ud, const struct mr_rows *r)
{
  struct mr_call *c = ud;
  yyjson_doc *doc = NULL;
  yyjson_val *list, *v, *found = NULL;
  yyjson_arr_iter it;
  int code = mr_read_check(c, r, NULL, "session", c->path[0]);

  if (code != MR_OK) {
    mr_call_done(c, code);
    return;
  }
  mr_json_parse(c->mem, r->sessions[0].doc, SIZE_MAX, &doc, NULL);
  list = mr_json_get(yyjson_doc_get_root(doc), "resources");
  if (!c->path[1].n) {
    mr_buf_c(&c->out, "{\"data\":");
    mr_json_write(&c->out, list, false);
    mr_buf_c(&c->out, ",\"next_page\":null}");
  } else {
    it = yyjson_arr_iter_with(list);
    while (list && (v = yyjson_arr_iter_next(&it)))
      if (mr_str_eq(mr_json_get_str(v, "id"), c->path[1])) found = v;
    if (found) mr_json_write(&c->out, found, false);
  }
  if (c->path[1].n && !found)
    mr_not_found(c, "resource", c->path[1]);
  else
    mr_call_done(c, MR_OK);
  yyjson_doc_free(doc);
}

void mr_sessions_resources_list(struct mr_call *c)
{
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_read, c);
}

void mr_sessions_resources_retrieve(struct mr_call *c)
{
  mr_read_session(c->d->store, c->who.workspace, c->path[0], on_read, c);
}

void mr_sessions_resources_update(struct mr_call *c)
{
  mr_call_fail(c, MR_E_INVALID, "authorization_token",
               "authorization_token: only repositories have one, and this session has none");
}
