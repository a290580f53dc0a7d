/*
 * lua_call - the operations of the system, as natives: one blocking call each, with bodies for uploads and
 * downloads. lua/moonrig/api.lua makes rig.agents.create and the others of it from ops().
 *
 * A download into a file goes to a temporary name beside it and is renamed at its end, so that the file is
 * whole or not there. Reading and writing bodies is plain file I/O in the callbacks, a chunk at a time.
 *
 * Script thread only.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/stat.h>
#include "script/script_t.h"

enum { DOWNLOAD_MAX = 256 * 1024 * 1024, TIMEOUT_MAX = 1000000 /* as of HTTP requests */ };

/* ------------------------------------------------------------------ results */

struct reply {
  struct mr_lua_pend *p;
  const struct mr_reply *r;
};

static void push_reply(lua_State *L, void *ud)
{
  struct reply *x = ud;
  const struct mr_lua_transfer *b = x->p->body;
  if (b && b->path) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, b->path);
    lua_setfield(L, -2, "path");
    lua_pushnumber(L, (lua_Number)b->n);
    lua_setfield(L, -2, "size");
  } else if (b && b->is_download)
    lua_pushlstring(L, b->buf ? b->buf : "", b->n);
  else if (x->r->val)
    mr_lua_push_val(L, x->p->s, x->r->val, MR_V_WIRE);
  else
    lua_pushboolean(L, 1);
}

/* The file of a download gets its name; or why not, in err. */
static int finish_file(struct mr_lua_transfer *b, struct mr_err *err)
{
  int rc = close(b->fd);
  b->fd = -1;
  if (rc == 0) rc = rename(b->part, b->path);
  if (rc) return mr_lua_err(err, MR_E_IO, "%s: %s", b->path, strerror(errno));
  mr_lua_free(b->part);
  b->part = NULL;
  return MR_OK;
}

static void on_reply(void *ud, const struct mr_reply *r)
{
  struct mr_lua_pend *p = ud;
  struct mr_lua_transfer *b = p->body;
  struct mr_err err = {.size = sizeof err};
  struct reply x = {p, r};
  mr_op_release(p->op);
  p->op = NULL;
  if (b && b->code) { /* we cancelled it: the reason is ours */
    if (b->code == MR_E_IO)
      mr_lua_err(&err, b->code, "%s: %s", b->path, strerror(b->os_error));
    else
      mr_lua_err(&err, b->code, "the download is larger than %d bytes; give { to = path }", DOWNLOAD_MAX);
    mr_lua_pend_fail(p, b->code, &err);
  } else if (r->code) {
    mr_lua_pend_fail(p, r->code, r->err);
  } else if (p->task && b && b->path && finish_file(b, &err) != MR_OK) {
    mr_lua_pend_fail(p, err.code, &err);
  } else {
    mr_lua_pend_value(p, push_reply, &x);
  }
}

/* ---------------------------------------------------------------- downloads */

static void stop(struct mr_lua_pend *p, int code)
{
  struct mr_lua_transfer *b = p->body;
  b->code = code;
  b->os_error = errno;
  mr_op_cancel(p->op);
}

static void to_file(struct mr_lua_pend *p, struct mr_str chunk)
{
  struct mr_lua_transfer *b = p->body;
  while (chunk.n) {
    ssize_t n = write(b->fd, chunk.p, chunk.n);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      stop(p, MR_E_IO);
      return;
    }
    b->n += (size_t)n;
    chunk.p += n;
    chunk.n -= (size_t)n;
  }
}

static void on_body(void *ud, struct mr_str chunk)
{
  struct mr_lua_pend *p = ud;
  struct mr_lua_transfer *b = p->body;
  if (!p->task || b->code) return;
  if (b->path) {
    to_file(p, chunk);
    return;
  }
  size_t need = b->n + chunk.n;
  if (need > b->cap) {
    size_t cap = need < 65536 ? 65536 : need * 2;
    char *q = need > DOWNLOAD_MAX ? NULL : mr_lua_realloc(b->buf, cap);
    if (!q) {
      stop(p, MR_E_TOO_LARGE);
      return;
    }
    b->buf = q;
    b->cap = cap;
  }
  if (chunk.n) memcpy(b->buf + b->n, chunk.p, chunk.n);
  b->n = need;
}

static int open_download(struct mr_lua_pend *p, const char *to, struct mr_err *err)
{
  struct mr_lua_transfer *b = p->body;
  size_t n = strlen(to) + 64;
  b->is_download = true;
  if (!*to) return MR_OK;
  b->path = mr_lua_strdup(to);
  b->part = mr_lua_alloc(n);
  if (!b->path || !b->part) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  snprintf(b->part, n, "%s.part-%ld-%llu", to, (long)getpid(), (unsigned long long)++p->s->next_id);
  b->fd = open(b->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (b->fd >= 0) return MR_OK;
  mr_lua_err(err, MR_E_IO, "%s: %s", to, strerror(errno));
  mr_lua_free(b->part);
  b->part = NULL;
  return err->code;
}

/* ------------------------------------------------------------------ uploads */

static int64_t read_body(void *ud, char *buf, size_t cap)
{
  struct mr_lua_transfer *b = ((struct mr_lua_pend *)ud)->body;
  if (b->fd >= 0) {
    ssize_t n;
    do
      n = read(b->fd, buf, cap);
    while (n < 0 && errno == EINTR);
    return n < 0 ? MR_E_IO : n;
  }
  size_t left = b->upn - b->upoff, n = left < cap ? left : cap;
  if (n) memcpy(buf, b->up + b->upoff, n);
  b->upoff += n;
  return (int64_t)n;
}

struct upload {
  const char *path, *filename, *media_type;
  struct mr_str bytes;
};

static int open_upload(struct mr_lua_pend *p, const struct upload *u, struct mr_body *body, struct mr_err *err)
{
  struct mr_lua_transfer *b = p->body;
  struct stat st;
  *body = (struct mr_body){.size = sizeof *body,
                           .filename = u->filename,
                           .media_type = u->media_type,
                           .read = read_body,
                           .ud = p,
                           .length = (int64_t)u->bytes.n};
  if (u->path) {
    b->fd = open(u->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (b->fd < 0 || fstat(b->fd, &st) != 0)
      return mr_lua_err(err, errno == ENOENT ? MR_E_NOTFOUND : MR_E_IO, "%s: %s", u->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return mr_lua_err(err, MR_E_INVALID, "%s is not a plain file", u->path);
    body->length = st.st_size;
    return MR_OK;
  }
  b->up = mr_lua_alloc(u->bytes.n + 1);
  if (!b->up) return mr_lua_err(err, MR_E_NOMEM, "out of memory");
  memcpy(b->up, u->bytes.p, u->bytes.n);
  b->upn = u->bytes.n;
  return MR_OK;
}

/* -------------------------------------------------------------------- calls */

static void undo_call(struct mr_lua_pend *p)
{
  mr_op_cancel(p->op); /* on_reply still comes and frees */
}

/* The table {path= | bytes=, filename=, media_type=} at idx; its strings stay on the stack. */
static LJMP struct upload read_upload(lua_State *L, int idx)
{
  struct upload u = {.path = mr_lua_field(L, idx, "path", NULL),
                     .filename = mr_lua_field(L, idx, "filename", NULL),
                     .media_type = mr_lua_field(L, idx, "media_type", NULL)};
  lua_getfield(L, idx, "bytes");
  if (!u.path) u.bytes.p = luaL_checklstring(L, -1, &u.bytes.n);
  return u;
}

/* call(op, params, {timeout=s, body={...}, to=path or "" for a string}) */
static int n_call(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  struct mr_err err = {.size = sizeof err};
  struct mr_callbacks cbs = {.size = sizeof cbs, .reply = on_reply};
  struct mr_body body;
  struct upload up = {0};
  struct mr_req req = {.size = sizeof req, .op = luaL_checkstring(L, 1)};
  const char *to = NULL;
  bool upload = false;
  char what[80];
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_checkstack(L, 24, "call");
  lua_settop(L, 3);
  if (lua_istable(L, 3)) {
    lua_getfield(L, 3, "timeout");
    lua_Number sec = lua_isnil(L, -1) ? 0 : luaL_checknumber(L, -1);
    if (!(sec >= 0 && sec <= TIMEOUT_MAX))
      return mr_lua_raise(L, "rig.%s: timeout is seconds, more than 0, at most %d", req.op, TIMEOUT_MAX);
    req.deadline_ms = (int64_t)(sec * 1000);
    to = mr_lua_field(L, 3, "to", NULL);
    lua_getfield(L, 3, "body");
    upload = lua_istable(L, -1);
    if (upload) up = read_upload(L, lua_gettop(L));
  }
  snprintf(what, sizeof what, "rig.%s", req.op);
  mr_lua_may_wait(L, s, what);
  struct mr_doc *doc = mr_lua_to_doc(L, s, 2, MR_V_WIRE, &err);
  if (!doc) return mr_lua_fail_now(L, s, &err);
  /* Nothing below raises before all is given away or freed. */
  struct mr_lua_pend *p = mr_lua_pend_new(s, undo_call);
  if (p && (upload || to)) p->body = mr_lua_alloc(sizeof *p->body);
  if (p && p->body) p->body->fd = -1;
  bool ready = p && (p->body || !(upload || to));
  int rc = ready ? MR_OK : mr_lua_err(&err, MR_E_NOMEM, "out of memory");
  if (rc == MR_OK && upload) {
    rc = open_upload(p, &up, &body, &err);
    req.body = &body;
  }
  if (rc == MR_OK && to) {
    rc = open_download(p, to, &err);
    cbs.body = on_body;
  }
  if (rc)
    s->ext->doc_free(doc);
  else
    rc = s->ext->call(s->rt, &req, &doc, &cbs, p, &p->op, &err);
  if (rc == MR_OK) return mr_lua_pend_wait(L, p);
  mr_lua_pend_drop(p);
  if (!err.message[0]) mr_lua_err(&err, rc, "%s", mr_strerror(rc));
  return mr_lua_fail_now(L, s, &err);
}

/* ops() -> array of {name=, verb=, path=, beta=, stream=, list=, upload=, download=, todo=} */
static int n_ops(lua_State *L)
{
  struct mr_lua_vm *s = lua_touserdata(L, lua_upvalueindex(1));
  static const struct {
    const char *name;
    unsigned flag;
  } flags[] = {{"stream", MR_OPF_STREAM},
               {"upload", MR_OPF_BODY_IN},
               {"download", MR_OPF_BODY_OUT},
               {"list", MR_OPF_LIST},
               {"todo", MR_OPF_TODO}};
  const char *name, *verb, *path;
  unsigned f;
  lua_newtable(L);
  for (int i = 0; (name = s->ext->op_at(i, &verb, &path, &f)) != NULL; i++) {
    lua_newtable(L);
    lua_pushstring(L, name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, verb);
    lua_setfield(L, -2, "verb");
    lua_pushstring(L, path);
    lua_setfield(L, -2, "path");
    lua_pushstring(L, s->ext->op_beta(i)); /* NULL: nil */
    lua_setfield(L, -2, "beta");
    for (size_t k = 0; k < sizeof flags / sizeof flags[0]; k++) {
      lua_pushboolean(L, (f & flags[k].flag) != 0);
      lua_setfield(L, -2, flags[k].name);
    }
    lua_rawseti(L, -2, i + 1);
  }
  return 1;
}

const luaL_Reg mr_lua_call_natives[] = {{"call", n_call}, {"ops", n_ops}, {NULL, NULL}};
