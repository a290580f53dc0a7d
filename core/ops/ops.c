/*
 * ops.c - the operation table and calls on it; see ops.h. The table is compiled from ops.def; everything
 * here walks it in order (a hundred lines: a hash would be slower to read than to run).
 */
#include "ops/ops.h"
#include "net/url.h"

enum { OUT_MAX = 64 << 20 };

#define BETA_NONE    NULL
#define BETA_AGENTS  "managed-agents-2026-04-01"
#define BETA_MEMORY  "agent-memory-2026-07-22"
#define BETA_DREAMS  "dreaming-2026-04-21"
#define BETA_TUNNELS "mcp-tunnels-2026-06-22"
#define LIST         MR_OP_LIST
#define SECRET       MR_OP_SECRET
#define PASS         MR_OP_PASS
#define QUERY        MR_OP_QUERY
#define ENV          MR_BY_ENVIRONMENT
#define ITEM         MR_BY_ITEM
#define NO_API       MR_NOT_BY_API

#define OP(name, verb, path, kind, beta, flags, shape, fn) extern const struct mr_shape mr_shape_##shape;
#define TODO(name, verb, path, kind, beta, flags)
#include "ops/ops.def"
#undef OP
#undef TODO

const struct mr_shape mr_shape_none = {NULL, 0};

static const struct mr_opdef table[] = {
#define OP(name, verb, path, kind, beta, flags, shape, fn)                                                     \
  {name, verb, path, MR_OP_##kind, flags, BETA_##beta, &mr_shape_##shape, mr_##fn},
#define TODO(name, verb, path, kind, beta, flags)                                                              \
  {name, verb, path, MR_OP_##kind, (flags) | MR_OP_TODO, BETA_##beta, &mr_shape_none, NULL},
#include "ops/ops.def"
#undef OP
#undef TODO
};

int mr_op_count(void)
{
  return (int)(sizeof table / sizeof *table);
}

const struct mr_opdef *mr_op_at(int i)
{
  return i >= 0 && i < mr_op_count() ? &table[i] : NULL;
}

const struct mr_opdef *mr_op_find(struct mr_str name)
{
  for (int i = 0; i < mr_op_count(); i++)
    if (mr_str_is(name, table[i].name)) return &table[i];
  return NULL;
}

/* ---- routes ---- */

/* Does a path fit? Literal segments count, so that the most literal route wins. -1: no. */
static int fits(const char *route, struct mr_str path, struct mr_str raw[MR_PATH_MAX])
{
  struct mr_str want = mr_str_c(route), have = path;
  int literals = 0, n = 0;

  while (want.p && have.p) {
    struct mr_str w = mr_str_split(&want, '/'), h = mr_str_split(&have, '/');
    if (w.n && w.p[0] == '{') {
      if (!h.n || n == MR_PATH_MAX) return -1;
      raw[n++] = h;
    } else if (!mr_str_eq(w, h)) {
      return -1;
    } else {
      literals++;
    }
  }
  return want.p || have.p ? -1 : literals;
}

static bool param_ok(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++)
    if ((unsigned char)s.p[i] < 0x20 || s.p[i] == '/' || s.p[i] == 0x7f) return false;
  return s.n > 0 && s.n <= 256 && mr_utf8_valid(s);
}

const struct mr_opdef *mr_op_route(struct mr_arena *a, struct mr_str verb, struct mr_str path,
                                   struct mr_str params[MR_PATH_MAX], bool *allowed)
{
  const struct mr_opdef *best = NULL;
  struct mr_str raw[MR_PATH_MAX], found[MR_PATH_MAX] = {{0}};
  int most = -1;

  if (mr_str_is(verb, "HEAD"))
    verb = MR_S("GET");
  else if (mr_str_is(verb, "PATCH")) /* some clients write updates so */
    verb = MR_S("POST");
  *allowed = false;
  if (path.n > 1 && path.p[path.n - 1] == '/') path.n--;
  for (int i = 0; i < mr_op_count(); i++) {
    int literals;
    memset(raw, 0, sizeof raw);
    literals = fits(table[i].path, path, raw);
    if (literals < 0) continue;
    if (!mr_str_is(verb, table[i].verb)) {
      *allowed = true;
    } else if (literals > most) {
      most = literals;
      best = &table[i];
      memcpy(found, raw, sizeof found);
    }
  }
  for (int i = 0; best && i < MR_PATH_MAX; i++) {
    params[i] = found[i].n ? mr_url_decode(a, found[i], false) : (struct mr_str){0};
    if (found[i].n && !param_ok(params[i])) {
      *allowed = false; /* no such object, whatever the verb */
      return NULL;
    }
  }
  return best;
}

/* ---- calls ---- */

struct op_call {
  struct mr_call c;
  const struct mr_opdef *op;
  yyjson_doc *input;
};

struct mr_call *mr_op_call_new(struct mr_domain *d, const struct mr_mem *m)
{
  struct op_call *o = mr_mem_zalloc(m, sizeof *o);

  if (!o) return NULL;
  o->c.d = d;
  o->c.mem = m;
  o->c.arena = mr_arena_new(m, 1024);
  mr_buf_init(&o->c.out, m, OUT_MAX);
  if (o->c.arena) return &o->c;
  mr_mem_free(m, o);
  return NULL;
}

void mr_op_call_free(struct mr_call **cp)
{
  struct mr_call *c = *cp;
  struct op_call *o;

  if (!c) return;
  o = MR_OF(c, struct op_call, c);
  *cp = NULL;
  yyjson_doc_free(o->input);
  mr_buf_free(&c->out);
  mr_arena_free(&c->arena);
  mr_mem_free(c->mem, o);
}

void mr_op_input(struct mr_call *c, yyjson_doc *doc)
{
  struct op_call *o = MR_OF(c, struct op_call, c);

  yyjson_doc_free(o->input);
  o->input = doc;
  c->in = yyjson_doc_get_root(doc);
}

/* Path parameters that a caller without a path wrote into the input. */
static int params_from_input(struct mr_call *c, const struct mr_opdef *op)
{
  struct mr_str rest = mr_str_c(op->path);
  int n = 0;

  while (rest.p) {
    struct mr_str seg = mr_str_split(&rest, '/');
    char name[64];
    if (!seg.n || seg.p[0] != '{') continue;
    if (!c->path[n].n && seg.n < sizeof name) {
      memcpy(name, seg.p + 1, seg.n - 2);
      name[seg.n - 2] = '\0';
      c->path[n] = mr_json_get_str(c->in, name);
      if (!param_ok(c->path[n]))
        return mr_err_set(&c->err, MR_E_INVALID, name, "%s: required, a string without slashes", name);
    }
    n++;
  }
  return MR_OK;
}

static void go(struct mr_call *c)
{
  MR_OF(c, struct op_call, c)->op->run(c);
}

void mr_op_start(struct mr_call *c, const struct mr_opdef *op)
{
  yyjson_doc *empty = NULL;
  int code = MR_OK;

  if (!c->in) {
    code = mr_json_parse(c->mem, MR_S("{}"), 2, &empty, &c->err);
    mr_op_input(c, empty);
  }
  if (code == MR_OK && !yyjson_is_obj(c->in))
    code = mr_err_set(&c->err, MR_E_INVALID, NULL, "the input must be a JSON object");
  if (code == MR_OK) code = params_from_input(c, op);
  if (code == MR_OK && !op->run)
    code = mr_err_set(&c->err, MR_E_UNSUPPORTED, NULL, "%s is not implemented in this version", op->name);
  if (code == MR_OK) code = mr_shape_check(op->in, c->in, c->strict, &c->err);
  MR_OF(c, struct op_call, c)->op = op;
  if (code == MR_OK && op->kind == MR_OP_BODY_IN)
    op->run(c); /* its face feeds it at once, and an upload needs nothing of a first start */
  else if (code == MR_OK)
    mr_domain_begin(c, go);
  else
    mr_call_done(c, code);
}
