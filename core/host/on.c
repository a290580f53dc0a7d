/*
 * on.c - watchers in the host: their registry, and carrying events to the dispatcher and word of them back.
 * Which event is shown when is the domain's business (agent/watch.c).
 *
 * A watcher has a slot, by name, that lasts over removal and replacement; its function is looked up when an
 * event is handed out in mr_dispatch, so after mr_on or mr_on_remove returned on the dispatching thread, the
 * old function is called for nothing new.
 *
 * Invariant: an event that was handed out ends once: done, to be shown again, or dropped by the domain
 * (removal, close), after which the host's word for it only frees.
 */
#include "host/host_t.h"

enum { NAME_MAX_BYTES = 128, TYPES_MAX = 100, SLOTS_MAX = 10000 };

struct slot {
  struct slot *next;
  char *name;
  void (*run)(void *ud, struct mr_seen *e); /* NULL: removed */
  void *ud;
};

struct mr_onlookers {
  pthread_mutex_t lock;
  struct slot *slots; /* never freed before the runtime ends */
  int n;
};

struct mr_seen {
  struct mr_given g;
  struct mr_shown *shown; /* loop: NULL once the domain does not wait for it */
  struct slot *slot;
  struct mr_str session, agent, body;
  int64_t pos;
  yyjson_doc *doc; /* the event, parsed when handed out */
  bool again;      /* the host's word */
  char strings[];
};

int mr_onlookers_new(struct mr_runtime *rt)
{
  rt->onlookers = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->onlookers);
  if (!rt->onlookers) return MR_E_NOMEM;
  pthread_mutex_init(&rt->onlookers->lock, NULL);
  return MR_OK;
}

void mr_onlookers_free(struct mr_runtime *rt)
{
  struct mr_onlookers *o = rt->onlookers;

  if (!o) return;
  for (struct slot *s = o->slots, *next; s; s = next) {
    next = s->next;
    mr_mem_free(mr_rt_mem(rt), s->name);
    mr_mem_free(mr_rt_mem(rt), s);
  }
  pthread_mutex_destroy(&o->lock);
  mr_mem_free(mr_rt_mem(rt), o);
  rt->onlookers = NULL;
}

/* ---- the domain's side, on the loop ---- */

static void seen_free(struct mr_given *g)
{
  struct mr_seen *e = MR_OF(g, struct mr_seen, g);

  yyjson_doc_free(e->doc);
  mr_mem_free(mr_rt_mem(g->rt), e);
}

static void run_dropped(struct mr_entry *entry)
{
  mr_given_unref(MR_OF(entry, struct mr_given, unwanted));
}

static void on_answer(struct mr_post *p)
{
  struct mr_seen *e = MR_OF(MR_OF(p, struct mr_given, answer), struct mr_seen, g);
  struct mr_shown *shown = e->shown;

  e->shown = NULL;
  if (shown) mr_watch_done(e->g.rt->domain, shown, e->again);
  mr_given_unref(&e->g); /* the post's */
  mr_given_unref(&e->g);
}

/* Lock held. */
static struct slot *find(struct mr_onlookers *o, struct mr_str name)
{
  struct slot *s = o->slots;

  while (s && !mr_str_is(name, s->name))
    s = s->next;
  return s;
}

static void run_seen(struct mr_entry *entry)
{
  struct mr_seen *e = MR_OF(MR_OF(entry, struct mr_given, give), struct mr_seen, g);
  struct mr_runtime *rt = e->g.rt;
  void (*run)(void *ud, struct mr_seen *e);
  void *ud;

  pthread_mutex_lock(&rt->onlookers->lock);
  run = e->slot->run;
  ud = e->slot->ud;
  pthread_mutex_unlock(&rt->onlookers->lock);
  if (!run || atomic_load(&rt->closing)) {
    e->again = true;
    mr_given_refuse(&e->g);
  } else if (mr_json_parse(mr_rt_mem(rt), e->body, SIZE_MAX, &e->doc, NULL) != MR_OK) {
    mr_log(&rt->sys, MR_LOG_ERROR, "on", "%s: an event was left out: out of memory", e->slot->name);
    mr_given_refuse(&e->g);
  } else if (mr_given_take(&e->g)) {
    run(ud, e);
  }
}

static struct mr_str put(char **at, struct mr_str s)
{
  struct mr_str out = mr_str_n(*at, s.n);

  if (s.n) memcpy(*at, s.p, s.n);
  (*at)[s.n] = '\0';
  *at += s.n + 1;
  return out;
}

static int show(void *ud, struct mr_shown *shown)
{
  struct mr_runtime *rt = ud;
  size_t n = shown->session_id.n + shown->agent_name.n + shown->body.n + 3;
  struct mr_seen *e = mr_mem_alloc(mr_rt_mem(rt), sizeof *e + n);
  char *at;

  if (!e) return MR_E_NOMEM;
  memset(e, 0, sizeof *e);
  mr_given_init(&e->g, rt, run_seen, run_dropped, on_answer, seen_free);
  at = e->strings;
  e->session = put(&at, shown->session_id);
  e->agent = put(&at, shown->agent_name);
  e->body = put(&at, shown->body);
  e->pos = shown->pos;
  e->shown = shown;
  shown->host = e;
  pthread_mutex_lock(&rt->onlookers->lock);
  e->slot = find(rt->onlookers, shown->watcher);
  pthread_mutex_unlock(&rt->onlookers->lock);
  mr_given_push(&e->g);
  return MR_OK;
}

static void drop(void *ud, struct mr_shown *shown)
{
  struct mr_seen *e = shown->host;

  (void)ud;
  e->shown = NULL;
  if (mr_given_drop(&e->g)) mr_given_unref(&e->g);
}

struct mr_watch_host mr_onlookers_host(struct mr_runtime *rt)
{
  return (struct mr_watch_host){.ud = rt, .show = show, .drop = drop};
}

/* ---- registration ---- */

struct adding {
  struct mr_watch_opts o;
  struct mr_str types[TYPES_MAX];
};

static int read_types(struct mr_runtime *rt, const char *json, struct adding *a, yyjson_doc **doc,
                      struct mr_err *err)
{
  yyjson_val *list, *v;
  yyjson_arr_iter it;

  *doc = NULL;
  if (!json || !json[0]) return MR_OK;
  if (mr_json_parse(mr_rt_mem(rt), mr_str_c(json), 1 << 16, doc, NULL) != MR_OK) goto bad;
  list = yyjson_doc_get_root(*doc);
  if (yyjson_is_null(list)) return MR_OK;
  if (!yyjson_is_arr(list) || yyjson_arr_size(list) > TYPES_MAX || yyjson_arr_size(list) == 0) goto bad;
  it = yyjson_arr_iter_with(list);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (!yyjson_is_str(v) || yyjson_get_len(v) == 0) goto bad;
    a->types[a->o.ntypes++] = mr_json_str(v);
  }
  a->o.types = a->types;
  return MR_OK;
bad:
  return mr_err_set(err, MR_E_INVALID, "events",
                    "events: a JSON list of 1 to %d event types, e.g. [\"session.error\"], or NULL for all",
                    TYPES_MAX);
}

static int check(const struct mr_watcher *w, struct mr_err *err)
{
  struct mr_str name = mr_str_c(w->name);

  if (name.n < 1 || name.n > NAME_MAX_BYTES || !mr_utf8_valid(name))
    return mr_err_set(err, MR_E_INVALID, "name", "name: 1 to %d bytes of UTF-8", NAME_MAX_BYTES);
  if (!w->run) return mr_err_set(err, MR_E_INVALID, "run", "run: a watcher needs a function");
  if (w->flags & ~(unsigned)MR_ON_DURABLE)
    return mr_err_set(err, MR_E_INVALID, "flags", "flags: %u is no combination of MR_ON_*", w->flags);
  return MR_OK;
}

static int add(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  struct adding *a = arg;
  return mr_watch_add(rt->domain, &a->o, err);
}

/* The slot of this name gets the function; what it had is in *was (run NULL: nothing). */
static int set_slot(struct mr_runtime *rt, const struct mr_watcher *w, struct slot *was)
{
  const struct mr_mem *m = mr_rt_mem(rt);
  struct slot *s, *made = mr_mem_zalloc(m, sizeof *made);
  char *name = mr_mem_strdup(m, mr_str_c(w->name));
  int code = made && name ? MR_OK : MR_E_NOMEM;

  *was = (struct slot){0};
  pthread_mutex_lock(&rt->onlookers->lock);
  s = find(rt->onlookers, mr_str_c(w->name));
  if (!s && code == MR_OK && rt->onlookers->n >= SLOTS_MAX) code = MR_E_FULL;
  if (!s && code == MR_OK) {
    rt->onlookers->n++;
    s = made;
    s->name = name;
    s->next = rt->onlookers->slots;
    rt->onlookers->slots = s;
    made = NULL;
    name = NULL;
  }
  if (s) {
    *was = *s;
    s->run = w->run;
    s->ud = w->ud;
  }
  pthread_mutex_unlock(&rt->onlookers->lock);
  mr_mem_free(m, made);
  mr_mem_free(m, name);
  return s ? MR_OK : code;
}

int mr_on(struct mr_runtime *rt, const struct mr_watcher *given, struct mr_err *err)
{
  struct mr_watcher w = {0};
  struct adding a = {.o.durable = false};
  struct slot was;
  yyjson_doc *doc = NULL;
  int code = mr_rt_check(rt, err);

  if (code == MR_OK && (!given || given->size < sizeof w))
    code = mr_err_set(err, MR_E_INVALID, "size", "size: set it to sizeof(struct mr_watcher)");
  if (code == MR_OK && atomic_load(&rt->closing))
    code = mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is closing");
  if (code != MR_OK) return code;
  memcpy(&w, given, sizeof w);
  code = check(&w, err);
  if (code == MR_OK) code = read_types(rt, w.events, &a, &doc, err);
  if (code == MR_OK && (code = set_slot(rt, &w, &was)) != MR_OK)
    mr_err_set(err, code, "name", "%s",
               code == MR_E_FULL ? "name: watchers had too many names: use those again" : mr_strerror(code));
  if (code == MR_OK) {
    a.o.name = mr_str_c(w.name);
    a.o.agent = mr_str_c(w.agent);
    a.o.durable = (w.flags & MR_ON_DURABLE) != 0;
    code = mr_rt_sync(rt, add, &a, err);
    if (code != MR_OK) {
      w.run = was.run;
      w.ud = was.ud;
      set_slot(rt, &w, &was);
    }
  }
  yyjson_doc_free(doc);
  return code;
}

static int take_off(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  (void)err;
  return mr_watch_remove(rt->domain, *(struct mr_str *)arg);
}

int mr_on_remove(struct mr_runtime *rt, const char *name)
{
  struct mr_str n = mr_str_c(name);
  struct slot *s;
  int code = mr_rt_check(rt, NULL);

  if (code == MR_OK && atomic_load(&rt->closing)) code = MR_E_CLOSED;
  if (code != MR_OK) return code;
  pthread_mutex_lock(&rt->onlookers->lock);
  s = find(rt->onlookers, n);
  code = s && s->run ? MR_OK : MR_E_NOTFOUND;
  if (s) s->run = NULL;
  pthread_mutex_unlock(&rt->onlookers->lock);
  return code == MR_OK ? mr_rt_sync(rt, take_off, &n, NULL) : code;
}

/* ---- the host's side ---- */

static int end(struct mr_seen **ep, bool again)
{
  struct mr_seen *e = ep ? *ep : NULL;
  int code = e ? mr_rt_check(e->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  *ep = NULL;
  e->again = again;
  mr_given_answer(&e->g);
  return MR_OK;
}

int mr_seen_done(struct mr_seen **e)
{
  return end(e, false);
}

int mr_seen_again(struct mr_seen **e)
{
  return end(e, true);
}

const struct mr_val *mr_seen_event(const struct mr_seen *e)
{
  return (const struct mr_val *)yyjson_doc_get_root(e->doc);
}
struct mr_str mr_seen_session(const struct mr_seen *e)
{
  return e->session;
}
struct mr_str mr_seen_agent(const struct mr_seen *e)
{
  return e->agent;
}
int64_t mr_seen_pos(const struct mr_seen *e)
{
  return e->pos;
}
