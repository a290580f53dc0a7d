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
#include "host/host_t.h"

enum { OUT_MAX = 256, TEXT_MAX = 16 << 20, REPLY_MAX = 32 << 20, REQUEST_MAX = 256 << 20 };

struct slot {
  struct slot *next;
  char *name;
  struct mr_runtime *rt;
  struct mr_provider_vtable v;
  /* the registration; the lock */
  bool registered;
  void (*run)(void *ud, struct mr_model_use *use);
  void (*cancel)(void *ud, struct mr_model_use *use);
  void *ud;
  /* loop */
  int out;
  struct mr_model_use *first, **last;
};

struct mr_players {
  pthread_mutex_t lock;
  struct slot *slots;          /* never freed before the runtime ends */
};

struct mr_model_use {
  struct mr_given g;
  struct mr_model_call call;   /* the router's handle */
  struct slot *slot;
  /* loop */
  struct mr_model_use *next;
  bool waiting, ended, announced;
  struct mr_model_req req;     /* borrowed until ended */
  struct mr_model_cbs cbs;
  void *ud;
  struct mr_ready over;        /* done from this side: cancelled, or it cannot be put to the host */
  enum mr_model_status over_as;
  /* the host's */
  char *session, *text;        /* text: the request */
  size_t session_n, text_n;
  yyjson_doc *doc;             /* the request, parsed when handed out */
  void (*cancel)(void *ud, struct mr_model_use *use);
  void *cancel_ud;
  pthread_mutex_t lock;        /* guards these two */
  struct mr_buf delta;         /* text not on the loop yet */
  bool delta_posted;
  struct mr_post delta_post;
  /* the answer */
  enum mr_model_status status;
  char *content, *stop_reason, *stop_details, *message;
  struct mr_usage usage;
};

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
  if (q->max_tokens > 0)
    mr_jw_kint(&w, "max_tokens", q->max_tokens);
  if (q->effort.n) {
    mr_jw_key(&w, "output_config");
    mr_jw_obj(&w);
    mr_jw_kstr(&w, "effort", q->effort);
    mr_jw_obj_end(&w);
  }
  if (q->speed.n)
    mr_jw_kstr(&w, "speed", q->speed);
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

static void hand_out(struct slot *s)
{
  struct mr_model_use *u;

  while ((u = s->first) && s->out < OUT_MAX) {
    s->first = u->next;
    if (!s->first)
      s->last = &s->first;
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
  mr_buf_init(&u->delta, b.mem, TEXT_MAX);
  pthread_mutex_unlock(&u->lock);
  if (!u->ended && b.n) {
    if (!u->announced && u->cbs.block)
      u->cbs.block(u->ud, 0, MR_S("text"));
    u->announced = true;
    if (u->cbs.text)
      u->cbs.text(u->ud, 0, mr_buf_get(&b));
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
    if (u->cbs.block)
      u->cbs.block(u->ud, i, type);
    if (mr_str_is(type, "text") && text.n && u->cbs.text)
      u->cbs.text(u->ud, i, text);
  }
  yyjson_doc_free(doc);
}

static void on_answer(struct mr_post *p)
{
  struct mr_model_use *u = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_model_use, g);
  struct mr_model_reply r = {.status = u->status, .content = mr_str_c(u->content), .usage = u->usage,
                             .stop_reason = mr_str_c(u->stop_reason), .stop_details = mr_str_c(u->stop_details),
                             .message = mr_str_c(u->message)};

  if (!u->ended) {
    flush(u);
    if (u->status == MR_MODEL_OK)
      announce(u);
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
                             .message = u->over_as == MR_MODEL_CANCELLED ? MR_S("cancelled") : MR_S("out of memory")};

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
  struct slot *s = self;
  const struct mr_mem *m = mr_rt_mem(s->rt);
  struct mr_model_use *u = mr_mem_zalloc(m, sizeof *u);

  if (!u)
    return mr_err_nomem(err);
  u->session = mr_mem_strdup(m, q->session_id);
  if (!u->session) {
    mr_mem_free(m, u);
    return mr_err_nomem(err);
  }
  u->session_n = q->session_id.n;
  mr_given_init(&u->g, s->rt, run_use, run_cancel, on_answer, use_free);
  pthread_mutex_init(&u->lock, NULL);
  mr_buf_init(&u->delta, m, TEXT_MAX);
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
  struct slot *s = self;

  if (u->ended || u->over.link)
    return;
  u->over_as = MR_MODEL_CANCELLED;
  mr_given_ref(&u->g);
  mr_ready_post(u->g.rt->loop, &u->over);
  if (u->waiting) {
    u->waiting = false;
    for (at = &s->first; *at != u; at = &(*at)->next)
      continue;
    *at = u->next;
    if (!*at)
      s->last = at;
    mr_given_unref(&u->g);
  } else if (mr_given_drop(&u->g)) {
    use_over(u);
  }
}

/* ---- the registry ---- */

int mr_players_new(struct mr_runtime *rt)
{
  rt->players = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->players);
  if (!rt->players)
    return MR_E_NOMEM;
  pthread_mutex_init(&rt->players->lock, NULL);
  return MR_OK;
}

void mr_players_free(struct mr_runtime *rt)
{
  struct mr_players *p = rt->players;

  if (!p)
    return;
  for (struct slot *s = p->slots, *next; s; s = next) {
    next = s->next;
    mr_mem_free(mr_rt_mem(rt), s->name);
    mr_mem_free(mr_rt_mem(rt), s);
  }
  pthread_mutex_destroy(&p->lock);
  mr_mem_free(mr_rt_mem(rt), p);
  rt->players = NULL;
}

/* Loop: slots are added here alone, so reading the list needs no lock. */
static struct slot *slot_of(struct mr_runtime *rt, const char *name)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct slot *s = rt->players->slots;

  while (s && strcmp(s->name, name) != 0)
    s = s->next;
  if (s || !(s = mr_mem_zalloc(m, sizeof *s)))
    return s;
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
  struct slot *s = slot_of(rt, p->name);
  int code = s ? mr_models_add(rt->models, &s->v, s, p->models, err) : mr_err_nomem(err);

  if (code != MR_OK)
    return code;
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
  if (code != MR_OK)
    return code;
  p = *given;
  if (!p.name || !p.name[0])
    return mr_err_set(err, MR_E_INVALID, "name", "name: a provider needs one");
  if (!p.models || !p.models[0])
    return mr_err_set(err, MR_E_INVALID, "models", "models: a comma list of model ids, or prefixes ending in *");
  if (!p.run)
    return mr_err_set(err, MR_E_INVALID, "run", "run: the provider \"%.80s\" needs a function", p.name);
  if (atomic_load(&rt->closing))
    return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  return mr_rt_sync(rt, add, &p, err);
}

static int drop(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  struct slot *s = rt->players->slots;

  (void)err;
  while (s && strcmp(s->name, arg) != 0)
    s = s->next;
  if (!s)
    return MR_E_NOTFOUND;
  pthread_mutex_lock(&rt->players->lock);
  s->registered = false;
  pthread_mutex_unlock(&rt->players->lock);
  return mr_models_remove(rt->models, s->name);
}

int mr_provider_remove(struct mr_runtime *rt, const char *name)
{
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && !name)
    code = MR_E_INVALID;
  if (code == MR_OK && atomic_load(&rt->closing))
    code = MR_E_CLOSED;
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
    if (mr_given_take(&u->g))
      run(ud, u);
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

  if (u->cancel && !(atomic_load(&u->g.state) & MR_GIVEN_ANSWERED))
    u->cancel(u->cancel_ud, u);
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

  if (code != MR_OK || !delta.n)
    return code;
  if (!mr_utf8_valid(delta))
    return MR_E_INVALID;
  if (atomic_load(&u->g.state) & MR_GIVEN_UNWANTED)
    return MR_E_CANCELLED;
  pthread_mutex_lock(&u->lock);
  if (u->delta.n + delta.n > TEXT_MAX) {
    code = MR_E_FULL;
  } else {
    mr_buf_str(&u->delta, delta);
    code = u->delta.failed;
    post = code == MR_OK && !u->delta_posted;
    u->delta_posted = u->delta_posted || post;
  }
  pthread_mutex_unlock(&u->lock);
  if (!post)
    return code;
  mr_given_ref(&u->g);
  if (mr_rt_post(u->g.rt, &u->delta_post) == MR_OK)
    return MR_OK;
  mr_given_unref(&u->g);
  return MR_E_CLOSED;
}

/* ---- the host's answer ---- */

static char *fail_text(struct mr_model_use *u, const char *text)
{
  struct mr_str s = mr_str_c(text);

  s.n = mr_utf8_cut(s, 2000);
  return mr_mem_strdup(mr_rt_mem(u->g.rt), s);
}

static enum mr_model_status status_of(const char *type)
{
  static const struct { const char *type; enum mr_model_status status; } map[] = {
      {"overloaded_error", MR_MODEL_OVERLOADED},         {"rate_limit_error", MR_MODEL_RATE_LIMITED},
      {"billing_error", MR_MODEL_BILLING},               {"invalid_request_error", MR_MODEL_REFUSED_REQUEST},
      {"authentication_error", MR_MODEL_REFUSED_REQUEST}, {"permission_error", MR_MODEL_REFUSED_REQUEST},
      {"not_found_error", MR_MODEL_REFUSED_REQUEST},     {"request_too_large", MR_MODEL_REFUSED_REQUEST}};

  for (size_t i = 0; type && i < sizeof map / sizeof *map; i++)
    if (strcmp(type, map[i].type) == 0)
      return map[i].status;
  return MR_MODEL_FAILED;
}

int mr_model_use_fail(struct mr_model_use **up, const char *error_type, const char *message)
{
  struct mr_model_use *u = up ? *up : NULL;
  int code = u ? mr_rt_check(u->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK)
    return code;
  *up = NULL;
  u->status = status_of(error_type);
  u->message = fail_text(u, message && message[0] ? message : "the model failed");
  mr_given_answer(&u->g);
  return MR_OK;
}

/* Content blocks as they will be stored; a tool_use without id or input gets one. */
static int write_content(struct mr_model_use *u, yyjson_val *content, bool *tools)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *b, *k;
  char id[MR_ID_MAX];
  struct mr_buf out;
  struct mr_jw w;
  int code = yyjson_is_arr(content) ? MR_OK : MR_E_INVALID;

  *tools = false;
  mr_buf_init(&out, mr_rt_mem(u->g.rt), REPLY_MAX);
  mr_jw_init(&w, &out);
  mr_jw_arr(&w);
  while (code == MR_OK && (b = yyjson_arr_iter_next(&it))) {
    yyjson_obj_iter oi = yyjson_obj_iter_with(b);
    bool tool = mr_str_is(mr_json_get_str(b, "type"), "tool_use");
    if (!mr_json_get_str(b, "type").n || (tool && !mr_json_get_str(b, "name").n) ||
        (mr_str_is(mr_json_get_str(b, "type"), "text") && !yyjson_is_str(mr_json_get(b, "text")))) {
      code = MR_E_INVALID;
      break;
    }
    *tools = *tools || tool;
    mr_jw_obj(&w);
    while ((k = yyjson_obj_iter_next(&oi))) {
      if (tool && yyjson_equals_str(k, "id") && !mr_json_get_str(b, "id").n)
        continue;
      mr_jw_key_s(&w, mr_json_str(k));
      w.after_key = false;
      mr_json_write(&out, yyjson_obj_iter_get_val(k), false);
    }
    if (tool && !mr_json_get_str(b, "id").n) {
      code = mr_id_make(&u->g.rt->sys, id, "toolu");
      mr_jw_kc(&w, "id", id);
    }
    if (tool && !mr_json_get(b, "input"))
      mr_jw_kraw(&w, "input", MR_S("{}"));
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  if (code == MR_OK)
    code = out.failed;
  u->content = code == MR_OK ? mr_buf_take(&out, NULL) : NULL;
  mr_buf_free(&out);
  return code == MR_OK && !u->content ? MR_E_NOMEM : code;
}

static void read_usage(struct mr_usage *out, yyjson_val *u)
{
  yyjson_val *made = mr_json_get(u, "cache_creation");

  out->input = mr_json_get_int(u, "input_tokens", 0);
  out->output = mr_json_get_int(u, "output_tokens", 0);
  out->cache_read = mr_json_get_int(u, "cache_read_input_tokens", 0);
  out->cache_write_1h = mr_json_get_int(made, "ephemeral_1h_input_tokens", 0);
  out->cache_write_5m = mr_json_get_int(made, "ephemeral_5m_input_tokens",
                                        mr_json_get_int(u, "cache_creation_input_tokens", 0));
}

static int read_reply(struct mr_model_use *u, yyjson_val *reply)
{
  const struct mr_mem *m = mr_rt_mem(u->g.rt);
  struct mr_str why = mr_json_get_str(reply, "stop_reason");
  yyjson_val *details = mr_json_get(reply, "stop_details");
  struct mr_buf b;
  bool tools;
  int code = write_content(u, mr_json_get(reply, "content"), &tools);

  if (code != MR_OK)
    return code;
  read_usage(&u->usage, mr_json_get(reply, "usage"));
  u->stop_reason = mr_mem_strdup(m, why.n ? why : tools ? MR_S("tool_use") : MR_S("end_turn"));
  if (yyjson_is_obj(details)) {
    mr_buf_init(&b, m, 1 << 16);
    mr_json_write(&b, details, false);
    u->stop_details = mr_buf_take(&b, NULL);
  }
  return u->stop_reason ? MR_OK : MR_E_NOMEM;
}

static int answer(struct mr_model_use **up, int code)
{
  struct mr_model_use *u = *up;

  *up = NULL;
  if (code != MR_OK) { /* released all the same, or the turn would wait for ever */
    u->status = code == MR_E_NOMEM ? MR_MODEL_FAILED : MR_MODEL_REFUSED_REQUEST;
    u->message = fail_text(u, code == MR_E_INVALID ? "the provider's reply is not {\"content\":[blocks]}"
                                                   : mr_strerror(code));
  }
  mr_given_answer(&u->g);
  return code;
}

int mr_model_finish_val(struct mr_model_use **up, yyjson_val *reply)
{
  return answer(up, read_reply(*up, reply));
}

int mr_model_use_finish(struct mr_model_use **up, const char *json)
{
  struct mr_model_use *u = up ? *up : NULL;
  struct mr_runtime *rt;
  yyjson_doc *doc = NULL;
  int code = u ? mr_rt_check(u->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK)
    return code;
  rt = u->g.rt;
  mr_rt_ref(rt); /* the document's memory: the use may be the runtime's last holder */
  code = mr_json_parse(mr_rt_mem(rt), mr_str_c(json), REPLY_MAX, &doc, NULL);
  code = code == MR_OK ? mr_model_finish_val(up, yyjson_doc_get_root(doc)) : answer(up, code);
  yyjson_doc_free(doc);
  mr_rt_unref(rt);
  return code;
}
