/*
 * control.c - what the HTTP face and the host's scripts have with each other: the listener (mr_listen), the
 * scripts' generation that /health shows, and the control commands (reload, rollback, status) that come over
 * HTTP and are answered by the host.
 *
 * Invariant: each command is answered once: by the host, by its time limit, or at the end. The command's struct
 * lives until the runtime's lists are freed or the host's answer has been told, because the queue and the host
 * may still name it.
 */
#include "host/ext_t.h"

#include <stdio.h>

enum { COMMANDS_MAX = 64, SCRIPTS_MAX = 16384, ANSWER_US = 120 * 1000 * 1000 };

struct command {
  struct command *next; /* the lock */
  struct mr_runtime *rt;
  uint64_t id;
  char name[40];
  yyjson_doc *arg;
  void (*done)(void *cud, int code, struct mr_str json); /* loop: NULL once told */
  void *cud;
  struct mr_entry entry;
  bool given;    /* the lock: its entry has run */
  bool answered; /* the lock: the answer is on its way */
  struct mr_post post;
  struct mr_timer timer;
  int code;
  char *json;
};

struct mr_control {
  pthread_mutex_t lock;
  void (*fn)(void *ud, const char *command, const struct mr_val *arg, uint64_t id);
  void *ud;
  int64_t generation;
  char last_error[384];
  char *scripts; /* JSON; NULL: none */
  struct command *commands;
  int n;
  uint64_t next_id;
};

/* ---- commands, on the loop ---- */

static void command_free(struct command *c)
{
  const struct mr_mem *m = mr_rt_mem(c->rt);

  yyjson_doc_free(c->arg);
  mr_mem_free(m, c->json);
  mr_mem_free(m, c);
}

static void tell(struct command *c, int code, struct mr_str json)
{
  void (*done)(void *, int, struct mr_str) = c->done;

  if (!done) return;
  c->done = NULL;
  mr_timer_cancel(c->rt->loop, &c->timer);
  done(c->cud, code, json);
}

static void unlink_command(struct mr_control *ct, struct command *c)
{
  for (struct command **at = &ct->commands; *at; at = &(*at)->next)
    if (*at == c) {
      *at = c->next;
      ct->n--;
      return;
    }
}

/* Answered, and its entry gone: then nobody names it any more. */
static void on_answer(struct mr_post *p)
{
  struct command *c = MR_OF(p, struct command, post);
  struct mr_control *ct = c->rt->control;

  tell(c, c->code, mr_str_c(c->json ? c->json : ""));
  pthread_mutex_lock(&ct->lock);
  unlink_command(ct, c);
  pthread_mutex_unlock(&ct->lock);
  command_free(c);
}

static void on_timer(struct mr_timer *t)
{
  tell(MR_OF(t, struct command, timer), MR_E_TIMEOUT, MR_S("the scripts did not answer in time"));
}

static void run_command(struct mr_entry *e)
{
  struct command *c = MR_OF(e, struct command, entry);
  struct mr_runtime *rt = c->rt;
  struct mr_control *ct = rt->control;
  void (*fn)(void *, const char *, const struct mr_val *, uint64_t);
  void *ud;

  if (atomic_load(&rt->closing)) return;
  pthread_mutex_lock(&ct->lock);
  c->given = true;
  fn = ct->fn;
  ud = ct->ud;
  pthread_mutex_unlock(&ct->lock);
  if (fn)
    fn(ud, c->name, (const struct mr_val *)yyjson_doc_get_root(c->arg), c->id);
  else
    mr_x_control_done(rt, c->id, MR_E_UNSUPPORTED, MR_S("this server runs no scripts"));
}

static int on_command(void *ud, struct mr_str name, yyjson_val *arg,
                      void (*done)(void *cud, int code, struct mr_str json), void *cud)
{
  struct mr_runtime *rt = ud;
  struct mr_control *ct = rt->control;
  struct command *c;
  struct mr_buf b;
  bool listened;
  int code;

  pthread_mutex_lock(&ct->lock);
  listened = ct->fn != NULL;
  code = ct->n < COMMANDS_MAX ? MR_OK : MR_E_FULL;
  pthread_mutex_unlock(&ct->lock);
  if (!listened) return MR_E_UNSUPPORTED;
  if (code != MR_OK) return code;
  c = mr_mem_zalloc(mr_rt_mem(rt), sizeof *c);
  if (!c) return MR_E_NOMEM;
  c->rt = rt;
  snprintf(c->name, sizeof c->name, "%.*s", (int)(name.n > 39 ? 39 : name.n), name.p ? name.p : "");
  c->done = done;
  c->cud = cud;
  c->entry.run = run_command;
  c->post.fn = on_answer;
  mr_timer_init(&c->timer, on_timer);
  mr_buf_init(&b, mr_rt_mem(rt), 1 << 20);
  mr_json_write(&b, arg, false);
  code = b.failed ? b.failed : mr_json_parse(mr_rt_mem(rt), mr_buf_get(&b), SIZE_MAX, &c->arg, NULL);
  mr_buf_free(&b);
  if (code == MR_OK) code = mr_timer_set(rt->loop, &c->timer, ANSWER_US);
  if (code != MR_OK) {
    command_free(c);
    return code;
  }
  pthread_mutex_lock(&ct->lock);
  c->id = ++ct->next_id;
  c->next = ct->commands;
  ct->commands = c;
  ct->n++;
  pthread_mutex_unlock(&ct->lock);
  mr_queue_push(&rt->queue, &c->entry);
  return MR_OK;
}

void mr_x_control_done(struct mr_runtime *rt, uint64_t id, int code, struct mr_str json)
{
  struct mr_control *ct;
  struct command *c;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  ct = rt->control;
  pthread_mutex_lock(&ct->lock);
  for (c = ct->commands; c && !(c->id == id && c->given && !c->answered); c = c->next)
    continue;
  if (c) c->answered = true;
  pthread_mutex_unlock(&ct->lock);
  if (!c) return;
  c->code = code;
  c->json = mr_mem_strdup(mr_rt_mem(rt), json);
  mr_rt_post(rt, &c->post); /* closing: mr_control_free has it in its list */
}

void mr_control_close(struct mr_runtime *rt)
{
  struct mr_control *ct = rt->control;

  for (struct command *c = ct ? ct->commands : NULL; c; c = c->next)
    tell(c, MR_E_CLOSED, MR_S("the program is closing"));
}

/* ---- the host's side ---- */

void mr_x_set_generation(struct mr_runtime *rt, int64_t generation, struct mr_str last_error)
{
  struct mr_control *ct;

  if (mr_ext_check(rt, NULL) != MR_OK) return;
  ct = rt->control;
  pthread_mutex_lock(&ct->lock);
  ct->generation = generation;
  last_error.n = mr_utf8_cut(last_error, sizeof ct->last_error - 1);
  if (last_error.n) memcpy(ct->last_error, last_error.p, last_error.n);
  ct->last_error[last_error.n] = '\0';
  pthread_mutex_unlock(&ct->lock);
}

void mr_x_set_scripts(struct mr_runtime *rt, struct mr_str json)
{
  char *copy, *old;

  if (mr_ext_check(rt, NULL) != MR_OK || json.n > SCRIPTS_MAX) return;
  copy = mr_mem_strdup(mr_rt_mem(rt), json);
  if (!copy) return;
  pthread_mutex_lock(&rt->control->lock);
  old = rt->control->scripts;
  rt->control->scripts = copy;
  pthread_mutex_unlock(&rt->control->lock);
  mr_mem_free(mr_rt_mem(rt), old);
}

int mr_x_on_control(struct mr_runtime *rt,
                    void (*fn)(void *ud, const char *command, const struct mr_val *arg, uint64_t id), void *ud)
{
  int code = mr_ext_check(rt, NULL);

  if (code != MR_OK) return code;
  pthread_mutex_lock(&rt->control->lock);
  rt->control->fn = fn;
  rt->control->ud = ud;
  pthread_mutex_unlock(&rt->control->lock);
  return MR_OK;
}

/* ---- the HTTP face ---- */

static void health(void *ud, struct mr_buf *out)
{
  struct mr_control *ct = ((struct mr_runtime *)ud)->control;

  pthread_mutex_lock(&ct->lock);
  mr_buf_printf(out, "\"generation\":%lld,\"script_error\":", (long long)ct->generation);
  if (ct->last_error[0])
    mr_json_quote(out, mr_str_c(ct->last_error));
  else
    mr_buf_c(out, "null");
  mr_buf_printf(out, ",\"scripts\":%s", ct->scripts ? ct->scripts : "null");
  pthread_mutex_unlock(&ct->lock);
}

int mr_control_api(struct mr_runtime *rt, struct mr_err *err)
{
  struct mr_api_opts o = {.loop = rt->loop,
                          .domain = rt->domain,
                          .store = rt->store,
                          .models = rt->models,
                          .config = yyjson_doc_get_root(rt->options),
                          .ud = rt,
                          .health = health,
                          .control = on_command};

  rt->control = mr_mem_zalloc(mr_rt_mem(rt), sizeof *rt->control);
  if (!rt->control) return mr_err_nomem(err);
  pthread_mutex_init(&rt->control->lock, NULL);
  return mr_api_new(&rt->api, &o, err);
}

void mr_control_free(struct mr_runtime *rt)
{
  struct mr_control *ct = rt->control;

  if (!ct) return;
  for (struct command *c = ct->commands, *next; c; c = next) {
    next = c->next;
    command_free(c);
  }
  pthread_mutex_destroy(&ct->lock);
  mr_mem_free(mr_rt_mem(rt), ct->scripts);
  mr_mem_free(mr_rt_mem(rt), ct);
  rt->control = NULL;
}

struct listen {
  struct mr_http_listen l;
  char *actual;
  size_t n;
};

static int on_listen(struct mr_runtime *rt, void *arg, struct mr_err *err)
{
  struct listen *l = arg;

  if (rt->stopping) return mr_err_set(err, MR_E_CLOSED, NULL, "the runtime is stopping");
  return mr_api_listen(rt->api, &l->l, l->actual, l->n, err);
}

static int read_spec(const struct mr_mem *m, const char *spec, yyjson_doc **doc, struct mr_http_listen *l,
                     struct mr_err *err)
{
  yyjson_val *o, *k, *v;
  yyjson_obj_iter it;
  int code;

  if (spec[0] != '{') {
    l->address = spec;
    return MR_OK;
  }
  code = mr_json_parse(m, mr_str_c(spec), 1 << 16, doc, err);
  if (code != MR_OK) return code;
  o = yyjson_doc_get_root(*doc);
  it = yyjson_obj_iter_with(o);
  while ((k = yyjson_obj_iter_next(&it))) {
    const char *key = yyjson_get_str(k);
    v = yyjson_obj_iter_get_val(k);
    if (strcmp(key, "insecure_http") == 0 && yyjson_is_bool(v))
      l->insecure_http = yyjson_get_bool(v);
    else if (strcmp(key, "address") == 0 && yyjson_is_str(v))
      l->address = yyjson_get_str(v);
    else if (strcmp(key, "tls_cert") == 0 && yyjson_is_str(v))
      l->tls_cert = yyjson_get_str(v);
    else if (strcmp(key, "tls_key") == 0 && yyjson_is_str(v))
      l->tls_key = yyjson_get_str(v);
    else
      return mr_err_set(
          err, MR_E_INVALID, "spec",
          "spec: %.60s: address, tls_cert and tls_key are strings, insecure_http is true or false", key);
  }
  return MR_OK;
}

int mr_listen(struct mr_runtime *rt, const char *spec, char *actual, size_t n, struct mr_err *err)
{
  char ignored[256];
  struct listen l = {.actual = actual && n ? actual : ignored, .n = actual && n ? n : sizeof ignored};
  yyjson_doc *doc = NULL;
  int code = mr_ext_check(rt, err);

  if (actual && n) actual[0] = '\0';
  if (code != MR_OK) return code;
  if (!spec || !spec[0])
    return mr_err_set(err, MR_E_INVALID, "spec", "spec: an address such as \"127.0.0.1:8400\"");
  code = read_spec(mr_rt_mem(rt), spec, &doc, &l.l, err);
  if (code == MR_OK && !l.l.address)
    code = mr_err_set(err, MR_E_INVALID, "address", "address: needed, such as \"127.0.0.1:8400\"");
  if (code == MR_OK) {
    mr_rt_start(rt);
    code = mr_rt_sync(rt, on_listen, &l, err);
  }
  yyjson_doc_free(doc);
  return code;
}
