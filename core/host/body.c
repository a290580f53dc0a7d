/*
 * body.c - the bytes of uploads and downloads, between the domain on the loop and the host in mr_dispatch.
 *
 * Uploads are pulled: the loop asks for a piece when the domain has room, the host's source fills it inside a
 * dispatch, the loop feeds it on. One piece is under way at a time. Downloads are pushed: at most CHUNKS
 * pieces wait for the host; then the domain pauses until the host has taken most of them.
 */
#include "host/host_t.h"

enum { PIECE = 64 << 10, CHUNKS = 4, CHUNKS_LOW = 2 };

struct mr_upload {
  struct mr_body body;
  int64_t total; /* bytes fed so far */
  int64_t got;   /* in chunk, or MR_E* */
  struct mr_entry pull;
  struct mr_post pulled;
  struct mr_op *op;
  bool under_way;
  char chunk[PIECE];
};

/* ---- uploads ---- */

static void on_pulled(struct mr_post *p)
{
  struct mr_upload *u = MR_OF(p, struct mr_upload, pulled);
  struct mr_op *op = u->op;
  struct mr_call *c = op->c;
  int code = MR_MORE;

  u->under_way = false;
  if (!c || !c->feed || op->why) goto out;
  if (u->got < 0) {
    code = mr_err_set(&c->err, u->got >= MR_E_INTERNAL ? (int)u->got : MR_E_CANCELLED, "body",
                      "body: its source gave up after %lld bytes", (long long)u->total);
  } else if (u->got == 0) {
    code = u->body.length >= 0 && u->total < u->body.length
               ? mr_err_set(&c->err, MR_E_INVALID, "body", "body: ended after %lld of %lld bytes",
                            (long long)u->total, (long long)u->body.length)
               : MR_OK;
  } else if (u->body.length >= 0 && u->total + u->got > u->body.length) {
    code = mr_err_set(&c->err, MR_E_INVALID, "body", "body: gave more than the %lld bytes it announced",
                      (long long)u->body.length);
  } else {
    int r;
    u->total += u->got;
    r = c->feed(c, mr_str_n(u->chunk, (size_t)u->got));
    if (r == MR_OK) mr_upload_next(op);
    code = r < 0 ? r : MR_MORE;
  }
  if (code != MR_MORE && c->feed_end) c->feed_end(c, code);
out:
  mr_op_unref(op);
}

static void run_pull(struct mr_entry *e)
{
  struct mr_upload *u = MR_OF(e, struct mr_upload, pull);
  struct mr_op *op = u->op;

  if (atomic_load(&op->cancelled) || atomic_load(&op->rt->closing))
    u->got = MR_E_CANCELLED;
  else
    u->got = u->body.read(u->body.ud, u->chunk, sizeof u->chunk);
  if (u->got > (int64_t)sizeof u->chunk) u->got = MR_E_INVALID;
  if (mr_rt_post(op->rt, &u->pulled) != MR_OK) mr_op_unref(op);
}

void mr_upload_next(struct mr_op *op)
{
  struct mr_upload *u = op->upload;

  if (!u || u->under_way || op->replied || op->why) return;
  u->under_way = true;
  mr_op_ref(op);
  mr_queue_push(&op->rt->queue, &u->pull);
}

/* The upload's name and type as fields of the input, where the input does not have them. */
static int name_it(struct mr_op *op, const struct mr_body *b, struct mr_err *err)
{
  yyjson_val *in = yyjson_doc_get_root(op->in);
  yyjson_mut_doc *doc;
  yyjson_mut_val *root;
  yyjson_alc alc;
  bool ok = true;

  if ((!b->filename && !b->media_type) || (op->in && !yyjson_is_obj(in))) return MR_OK;
  mr_json_alc(mr_rt_mem(op->rt), &alc);
  doc = yyjson_mut_doc_new(&alc);
  root = !doc ? NULL : in ? yyjson_val_mut_copy(doc, in) : yyjson_mut_obj(doc);
  if (root && b->filename && !mr_json_get(in, "filename"))
    ok = yyjson_mut_obj_add_strcpy(doc, root, "filename", b->filename);
  if (root && b->media_type && !mr_json_get(in, "media_type"))
    ok = ok && yyjson_mut_obj_add_strcpy(doc, root, "media_type", b->media_type);
  yyjson_doc_free(op->in);
  op->in = NULL;
  if (root && ok) {
    yyjson_mut_doc_set_root(doc, root);
    op->in = yyjson_mut_doc_imut_copy(doc, &alc);
  }
  yyjson_mut_doc_free(doc);
  return op->in ? MR_OK : mr_err_nomem(err);
}

int mr_upload_new(struct mr_op *op, const struct mr_body *given, struct mr_err *err)
{
  struct mr_upload *u;
  struct mr_body b = {.length = -1};

  if (given->size < sizeof b)
    return mr_err_set(err, MR_E_INVALID, "body.size", "body.size: set it to sizeof(struct mr_body)");
  b = *given;
  if (!b.read) return mr_err_set(err, MR_E_INVALID, "body.read", "body.read: needed, it gives the bytes");
  if ((b.filename && !mr_utf8_valid(mr_str_c(b.filename))) ||
      (b.media_type && !mr_utf8_valid(mr_str_c(b.media_type))))
    return mr_err_set(err, MR_E_INVALID, "body.filename", "body.filename and body.media_type must be UTF-8");
  op->upload = u = mr_mem_alloc(mr_rt_mem(op->rt), sizeof *u);
  if (!u) return mr_err_nomem(err);
  memset(u, 0, offsetof(struct mr_upload, chunk));
  u->body = b;
  u->body.filename = u->body.media_type = NULL; /* the host's strings, ours only now */
  u->op = op;
  u->pull.run = run_pull;
  u->pulled.fn = on_pulled;
  return name_it(op, &b, err);
}

void mr_upload_free(struct mr_op *op)
{
  mr_mem_free(mr_rt_mem(op->rt), op->upload);
  op->upload = NULL;
}

/* ---- downloads ---- */

struct chunk {
  struct mr_entry entry;
  struct mr_op *op;
  size_t n;
  char bytes[];
};

static void on_drained(struct mr_post *p)
{
  struct mr_op *op = MR_OF(p, struct mr_op, drained);

  atomic_store(&op->drained_posted, false);
  if (op->paused && op->c && op->c->out_drained && atomic_load(&op->backlog) <= CHUNKS_LOW) {
    op->paused = false;
    op->c->out_drained(op->c);
  }
  mr_op_unref(op);
}

static void run_chunk(struct mr_entry *e)
{
  struct chunk *k = MR_OF(e, struct chunk, entry);
  struct mr_op *op = k->op; /* its reply comes after us */

  if (!atomic_load(&op->cancelled)) op->cbs.body(op->ud, mr_str_n(k->bytes, k->n));
  mr_mem_free(mr_rt_mem(op->rt), k);
  if (atomic_fetch_sub(&op->backlog, 1) - 1 > CHUNKS_LOW || atomic_exchange(&op->drained_posted, true)) return;
  mr_op_ref(op);
  if (mr_rt_post(op->rt, &op->drained) != MR_OK) mr_op_unref(op);
}

int mr_download_bytes(struct mr_call *c, struct mr_str bytes)
{
  struct mr_op *op = c->face;
  struct chunk *k;

  if (op->replied || op->why) return MR_E_CLOSED;
  if (!op->cbs.body || !bytes.n) return MR_OK;
  k = mr_mem_alloc(mr_rt_mem(op->rt), sizeof *k + bytes.n);
  if (!k) {
    op->why = MR_E_CANCELLED;
    return MR_E_CLOSED;
  }
  k->entry.run = run_chunk;
  k->op = op;
  k->n = bytes.n;
  memcpy(k->bytes, bytes.p, bytes.n);
  op->drained.fn = on_drained;
  op->paused = atomic_fetch_add(&op->backlog, 1) + 1 >= CHUNKS;
  mr_queue_push(&op->rt->queue, &k->entry);
  return op->paused ? MR_MORE : MR_OK;
}
