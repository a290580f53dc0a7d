/*
 * provider.c - models played by the host: a provider of model/ whose requests go through the queue.
 *
 * Like a tool, a player has a slot by its name that lasts over replacement; which function runs is looked up
 * when a request is handed out. At most OUT_MAX requests of a slot are with the host; the others wait on the
 * loop as they came, borrowed, and are put together only when their turn has come.
 *
 * Text may be streamed from any thread: it gathers in the use and goes to the loop as one post at a time.
 * Invariant: the router's done is called exactly once a request, from the drain: by the host's answer, or by
 * cancel; after it (`ended`) nothing of the request is touched.
 */
#include "host/provider_t.h"

enum { OUT_MAX = 256, REQUEST_MAX = 256 << 20 };

/* ---- requests, on the loop ---- */

static void use_free(struct mr_given *g)
{
  struct mr_model_use *u = MR_OF(g, struct mr_model_use, g);
  const struct mr_mem *m = mr_rt_mem(g->rt);

  yyjson_doc_free(u->doc);
  mr_buf_free(&u->delta);
  pthread_mutex_destroy(&u->lock);
  mr_mem_free(m, u->session);
  mr_mem_free(m, u->text);
  mr_mem_free(m, u->content);
  mr_mem_free(m, u->stop_reason);
  mr_mem_free(m, u->stop_details);
  mr_mem_free(m, u->message);
  mr_mem_free(m, u);
}

/* The request in the form of the Messages API. */
static int write_request(struct mr_model_use *u)
{
  const struct mr_model_req *q = &u->req;
  struct mr_buf b;
  struct mr_jw w;

  mr_buf_init(&b, mr_rt_mem(u->g.rt), REQUEST_MAX);
  mr_jw_init(&w, &b);
  mr_jw_obj(&w);
  mr_jw_kstr(&w, "model", q->model);
  if (q->max_tokens > 0) mr_jw_kint(&w, "max_tokens", q->max_tokens);
  if (q->effort.n) {
    mr_jw_key(&w, "output_config");
    mr_jw_obj(&w);
    mr_jw_kstr(&w, "effort", q->effort);
    mr_jw_obj_end(&w);
  }
  if (q->speed.n) mr_jw_kstr(&w, "speed", q->speed);
  mr_jw_kraw(&w, "system", q->system.n ? q->system : MR_S("[]"));
  mr_jw_kraw(&w, "tools", q->tools.n ? q->tools : MR_S("[]"));
  mr_jw_key(&w, "messages");
  mr_jw_arr(&w);
  for (int i = 0; i < q->nmessages; i++)
    mr_jw_raw(&w, q->messages[i]);
  mr_jw_arr_end(&w);
  mr_jw_obj_end(&w);
  u->text = mr_buf_take(&b, &u->text_n);
  return u->text ? MR_OK : MR_E_NOMEM;
}

static void hand_out(struct mr_player *s)
{
  struct mr_model_use *u;

  while ((u = s->first) && s->out < OUT_MAX) {
    s->first = u->next;
    if (!s->first) s->last = &s->first;
    u->next = NULL;
    u->waiting = false;
    s->out++;
    if (write_request(u) == MR_OK) {
      mr_given_push(&u->g);
      continue;
    }
    u->over_as = MR_MODEL_FAILED;
    mr_given_ref(&u->g);
    mr_ready_post(u->g.rt->loop, &u->over);
    s->out--;
    mr_given_unref(&u->g);
  }
}

/* The host's part is over, or never began: the next request may go. */
static void use_over(struct mr_model_use *u)
{
  u->slot->out--;
  hand_out(u->slot);
  mr_given_unref(&u->g);
}

/* Gives the router what the host has streamed since the last time. */
static void flush(struct mr_model_use *u)
{
  struct mr_buf b;

  pthread_mutex_lock(&u->lock);
  b = u->delta;
  mr_buf_init(&u->delta, b.mem, MR_DELTA_MAX);
  pthread_mutex_unlock(&u->lock);
  if (!u->ended && b.n) {
    if (!u->announced && u->cbs.block) u->cbs.block(u->ud, 0, MR_S("text"));
    u->announced = true;
    if (u->cbs.text) u->cbs.text(u->ud, 0, mr_buf_get(&b));
  }
  mr_buf_free(&b);
}

static void on_delta(struct mr_post *p)
{
  struct mr_model_use *u = MR_OF(p, struct mr_model_use, delta_post);

  pthread_mutex_lock(&u->lock);
  u->delta_posted = false;
  pthread_mutex_unlock(&u->lock);
  flush(u);
  mr_given_unref(&u->g);
}

/* A host that streamed nothing: its blocks are announced as a streaming provider would. */
static void announce(struct mr_model_use *u)
{
  yyjson_doc *doc = NULL;
  yyjson_val *b;
  yyjson_arr_iter it;
  int i = 0;

  if (u->announced || mr_json_parse(mr_rt_mem(u->g.rt), mr_str_c(u->content), SIZE_MAX, &doc, NULL) != MR_OK)
    return;
  it = yyjson_arr_iter_with(yyjson_doc_get_root(doc));
  for (; (b = yyjson_arr_iter_next(&it)) != NULL; i++) {
    struct mr_str type = mr_json_get_str(b, "type"), text = mr_json_get_str(b, "text");
    if (u->cbs.block) u->cbs.block(u->ud, i, type);
    if (mr_str_is(type, "text") && text.n && u->cbs.text) u->cbs.text(u->ud, i, text);
  }
  yyjson_doc_free(doc);
}

static void on_answer(struct mr_post *p)
{
  struct mr_model_use *u = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_model_use, g);
  struct mr_model_reply r = {.status = u->status,
                             .content = mr_str_c(u->content),
                             .usage = u->usage,
                             .stop_reason = mr_str_c(u->stop_reason),
                             .stop_details = mr_str_c(u->stop_details),
                             .message = mr_str_c(u->message)};

  if (!u->ended) {
    flush(u);
    if (u->status == MR_MODEL_OK) announce(u);
    u->ended = true;
    u->cbs.done(u->ud, &r);
  }
  mr_given_unref(&u->g); /* the post's */
  use_over(u);
}

static void on_over(struct mr_ready *r)
{
  struct mr_model_use *u = MR_OF(r, struct mr_model_use, over);
  struct mr_model_reply m = {.status = u->over_as,
                             .message =
                                 u->over_as == MR_MODEL_CANCELLED ? MR_S("cancelled") : MR_S("out of memory")};

  if (!u->ended) {
    u->ended = true;
    u->cbs.done(u->ud, &m);
  }
  mr_given_unref(&u->g);
}

static void run_use(struct mr_entry *e);
static void run_cancel(struct mr_entry *e);

static int start(void *self, const struct mr_model_req *q, const struct mr_model_cbs *cbs, void *ud,
                 struct mr_model_call **out, struct mr_err *err)
{
  struct mr_player *s = self;
  const struct mr_mem *m = mr_rt_mem(s->rt);
  struct mr_model_use *u = mr_mem_zalloc(m, sizeof *u);

  if (!u) return mr_err_nomem(err);
  u->session = mr_mem_strdup(m, q->session_id);
  if (!u->session) {
    mr_mem_free(m, u);
    return mr_err_nomem(err);
  }
  u->session_n = q->session_id.n;
  mr_given_init(&u->g, s->rt, run_use, run_cancel, on_answer, use_free);
  pthread_mutex_init(&u->lock, NULL);
  mr_buf_init(&u->delta, m, MR_DELTA_MAX);
  mr_ready_init(&u->over, on_over);
  u->delta_post.fn = on_delta;
  u->call = (struct mr_model_call){&s->v, s};
  u->slot = s;
  u->req = *q;
  u->cbs = *cbs;
  u->ud = ud;
  u->waiting = true;
  *s->last = u;
  s->last = &u->next;
  *out = &u->call;
  hand_out(s);
  return MR_OK;
}

static void cancel(void *self, struct mr_model_call *call)
{
  struct mr_model_use *u = MR_OF(call, struct mr_model_use, call), **at;
  struct mr_player *s = self;

  if (u->ended || u->over.link) return;
  u->over_as = MR_MODEL_CANCELLED;
  mr_given_ref(&u->g);
  mr_ready_post(u->g.rt->loop, &u->over);
  if (u->waiting) {
    u->waiting = false;
    for (at = &s->first; *at != u; at = &(*at)->next)
      continue;
    *at = u->next;
    if (!*at) s->last = at;
    mr_given_unref(&u->g);
  } else if (mr_given_drop(&u->g)) {
    use_over(u);
  }
}

/* ---- the registry ---- */

int mr_players_new(struct mr_runtime *rt)
{
  rt->players = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->players);
  if (!rt->players) return MR_E_NOMEM;
  pthread_mutex_init(&rt->players->lock, NULL);
  return MR_OK;
}

void mr_players_free(struct mr_runtime *rt)
{
  struct mr_players *p = rt->players;

  if (!p) return;
  for (struct mr_player *s = p->slots, *next; s; s = next) {
    next = s->next;
    mr_mem_free(mr_rt_mem(rt), s->name);
    mr_mem_free(mr_rt_mem(rt), s);
  }
  pthread_mutex_destroy(&p->lock);
  mr_mem_free(mr_rt_mem(rt), p);
  rt->players = NULL;
}

/* Loop: slots are added here alone, so reading the list needs no lock. */
static struct mr_player *slot_of(struct mr_runtime *rt, const char *name)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct mr_player *s = rt->players->slots;

  while (s && strcmp(s->name, name) != 0)
    s = s->next;
  if (s || !(s = mr_mem_zalloc(m, sizeof *s))) return s;
  s->name = mr_mem_strdup(m, mr_str_c(name));
  if (!s->name) {
    mr_mem_free(m, s);
    return NULL;
  }
  s->rt = rt;
  s->last = &s->first;
  s->v = (struct mr_provider_vtable){.name = s->name, .start = start, .cancel = cancel};
  s->next = rt->players->slots;
  rt->players->slots = s;
  return s;
}

static int add(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  const struct mr_provider *p = arg;
  struct mr_player *s = slot_of(rt, p->name);
  int code = s ? mr_models_add(rt->models, &s->v, s, p->models, err) : mr_err_nomem(err);

  if (code != MR_OK) return code;
  pthread_mutex_lock(&rt->players->lock);
  s->registered = true;
  s->run = p->run;
  s->cancel = p->cancel;
  s->ud = p->ud;
  pthread_mutex_unlock(&rt->players->lock);
  return MR_OK;
}

int mr_provider_add(struct mr_runtime *rt, const struct mr_provider *given, struct mr_err *err)
{
  struct mr_provider p = {0};
  int code = mr_rt_check(rt, err);

  if (code == MR_OK && (!given || given->size < sizeof p))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_provider)");
  if (code != MR_OK) return code;
  p = *given;
  if (!p.name || !p.name[0]) return mr_err_set(err, MR_E_INVALID, "name", "name: a provider needs one");
  if (!p.models || !p.models[0])
    return mr_err_set(err, MR_E_INVALID, "models",
                      "models: a comma list of model ids, or prefixes ending in *");
  if (!p.run)
    return mr_err_set(err, MR_E_INVALID, "run", "run: the provider \"%.80s\" needs a function", p.name);
  if (atomic_load(&rt->closing)) return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  return mr_rt_sync(rt, add, &p, err);
}

static int drop(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  struct mr_player *s = rt->players->slots;

  (void)err;
  while (s && strcmp(s->name, arg) != 0)
    s = s->next;
  if (!s) return MR_E_NOTFOUND;
  pthread_mutex_lock(&rt->players->lock);
  s->registered = false;
  pthread_mutex_unlock(&rt->players->lock);
  return mr_models_remove(rt->models, s->name);
}

int mr_provider_remove(struct mr_runtime *rt, const char *name)
{
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && !name) code = MR_E_INVALID;
  if (code == MR_OK && atomic_load(&rt->closing)) code = MR_E_CLOSED;
  return code == MR_OK ? mr_rt_sync(rt, drop, (void *)(uintptr_t)name, NULL) : code;
}

/* ---- the host's side ---- */

static void run_use(struct mr_entry *e)
{
  struct mr_model_use *u = MR_OF(MR_OF(e, struct mr_given, give), struct mr_model_use, g);
  struct mr_runtime *rt = u->g.rt;
  void (*run)(void *, struct mr_model_use *);
  void *ud;

  if (atomic_load(&rt->closing)) {
    mr_given_refuse(&u->g);
    return;
  }
  pthread_mutex_lock(&rt->players->lock);
  run = u->slot->registered ? u->slot->run : NULL;
  u->cancel = u->slot->cancel;
  u->cancel_ud = ud = u->slot->ud;
  pthread_mutex_unlock(&rt->players->lock);
  if (run && mr_json_parse(mr_rt_mem(rt), mr_str_n(u->text, u->text_n), SIZE_MAX, &u->doc, NULL) == MR_OK) {
    if (mr_given_take(&u->g)) run(ud, u);
    return;
  }
  u->status = MR_MODEL_FAILED;
  u->message = mr_mem_strdup(mr_rt_mem(rt), run ? MR_S("the request could not be read")
                                                : MR_S("the provider of this model was removed"));
  mr_given_refuse(&u->g);
}

static void run_cancel(struct mr_entry *e)
{
  struct mr_model_use *u = MR_OF(MR_OF(e, struct mr_given, unwanted), struct mr_model_use, g);

  if (u->cancel && !(atomic_load(&u->g.state) & MR_GIVEN_ANSWERED)) u->cancel(u->cancel_ud, u);
  mr_given_unref(&u->g);
}

const struct mr_val *mr_model_use_request(const struct mr_model_use *u)
{
  return (const struct mr_val *)yyjson_doc_get_root(u->doc);
}

struct mr_str mr_model_use_session(const struct mr_model_use *u)
{
  return mr_str_n(u->session, u->session_n);
}

int mr_model_use_text(struct mr_model_use *u, struct mr_str delta)
{
  int code = u ? mr_rt_check(u->g.rt, NULL) : MR_E_INVALID;
  bool post = false;

  if (code != MR_OK || !delta.n) return code;
  if (!mr_utf8_valid(delta)) return MR_E_INVALID;
  if (atomic_load(&u->g.state) & MR_GIVEN_UNWANTED) return MR_E_CANCELLED;
  pthread_mutex_lock(&u->lock);
  if (u->delta.n + delta.n > MR_DELTA_MAX) {
    code = MR_E_FULL;
  } else {
    mr_buf_str(&u->delta, delta);
    code = u->delta.failed;
    post = code == MR_OK && !u->delta_posted;
    u->delta_posted = u->delta_posted || post;
  }
  pthread_mutex_unlock(&u->lock);
  if (!post) return code;
  mr_given_ref(&u->g);
  if (mr_rt_post(u->g.rt, &u->delta_post) == MR_OK) return MR_OK;
  mr_given_unref(&u->g);
  return MR_E_CLOSED;
}
