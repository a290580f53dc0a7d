/*
 * box.c - one session's sandbox on the loop thread: the calls that wait or run in it, and the state
 * machine that gets it running (cold -> probing -> layer -> opening -> hello -> up -> lost -> cold).
 *
 * Invariant: a call is sent to one life of a sandbox only. When the connection is lost, what was sent is
 * asked for again at the same envd, by id; when that envd is gone, it ends with MR_E_CLOSED and is never
 * run again by us. Calls that were not sent yet go to the next sandbox.
 *
 * Every transition runs in step() or in a completion on the loop; functions of the vtable only note what
 * is wanted and post. Callbacks come from deliver() alone.
 */
#include "sandbox/local/layer_t.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "sandbox/helpers/proto.h"

enum {
  HELLO_US = 20 * 1000000, /* from the spawn or the connection to envd's first word */
  REASON_US = 1000000,     /* for the launcher's last word once the connection is gone */
  TICK_US = 1000000,
  IDLE_TICK_US = 30 * 1000000,
  ACCEPT_US = 30 * 1000000, /* envd answers at once, whatever the call does */
  CANCEL_US = 15 * 1000000,
  DISK_US = 2 * 1000000,
  BUILD_TTL_S = 30, /* of a sandbox that nobody will attach to again */
  FAILURES_MAX = 3
};

static void set_timer(struct mr_box *b, int64_t us)
{
  mr_timer_set(b->l->loop, &b->timer, us);
}

/* ---- getting it running ---- */

static void close_given(struct mr_box *b)
{
  for (size_t i = 0; i < sizeof b->given / sizeof *b->given; i++) {
    if (b->given[i] >= 0) close(b->given[i]);
    b->given[i] = -1;
  }
}

static void on_started(void *ud, struct mr_child *c, int code, int pid, const struct mr_err *err)
{
  struct mr_box *b = ud;

  (void)pid;
  b->spawning = false;
  close_given(b);
  if (code != MR_OK) {
    mr_log(mr_loop_sys(b->l->loop), MR_LOG_ERROR, "sandbox", "%s: launcher: %s", b->session, err->message);
    snprintf(b->reason, sizeof b->reason, "launcher: %.300s", err->message);
    b->reason_over = true;
    mr_child_release(&b->child); /* the socket closes with what was given: the connection ends by itself */
  } else if (b->state == MR_BOX_GONE) {
    mr_child_kill(c, SIGTERM);
  }
  mr_box_step(b);
}

static void on_ended(void *ud, struct mr_child *c, bool known, int status, int sig)
{
  struct mr_box *b = ud;

  (void)c;
  (void)known;
  (void)status;
  (void)sig;
  mr_child_release(&b->child);
  b->reason_over = true;
  mr_box_step(b);
}

static const char *arg(struct mr_arena *a, const char *name, int64_t v)
{
  return mr_arena_printf(a, "%s=%lld", name, (long long)v);
}

/* Without namespaces the host's own paths, and no limit of processes: it would count all that the user runs. */
static void bare_config(const struct mr_box *b, struct mr_jw *w)
{
  static const char *const names[] = {"workspace", "run", "outputs", "uploads"};
  char path[4][4300];

  for (int i = 0; i < 4; i++)
    snprintf(path[i], sizeof path[i], "%.4096s/s/%s/%s", b->l->conf->root, b->session, names[i]);
  mr_jw_kc(w, "home", path[0]);
  mr_jw_kc(w, "run", path[1]);
  mr_jw_key(w, "write");
  mr_jw_arr(w);
  mr_jw_c(w, path[0]);
  mr_jw_c(w, path[2]);
  mr_jw_c(w, "/tmp");
  mr_jw_arr_end(w);
  mr_jw_key(w, "read_only");
  mr_jw_arr(w);
  mr_jw_c(w, path[3]);
  mr_jw_arr_end(w);
  mr_jw_key(w, "bare");
  mr_jw_bool(w, true);
}

static void envd_config(const struct mr_box *b, struct mr_buf *out)
{
  const struct mr_local_conf *c = b->l->conf;
  struct mr_jw w;

  mr_buf_c(out, "config=");
  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "proto");
  mr_jw_arr(&w);
  mr_jw_int(&w, MR_ENVD_PROTO_MIN);
  mr_jw_int(&w, MR_ENVD_PROTO_MAX);
  mr_jw_arr_end(&w);
  mr_jw_kint(&w, "orphan_ttl_s", b->builds ? BUILD_TTL_S : c->orphan_ttl_s);
  if (c->bare) {
    bare_config(b, &w);
  } else {
    mr_jw_kint(&w, "nproc", c->nproc);
    mr_jw_kint(&w, "disk_max", c->disk_max);
    mr_jw_kint(&w, "files_max", c->files_max);
  }
  if (b->l->egress && !c->bare) mr_jw_kint(&w, "proxy_port", MR_EGRESS_PORT);
  mr_jw_key(&w, "env");
  mr_jw_obj(&w);
  if (b->l->egress && !c->bare) mr_egress_env(&w, b->token, b->policy);
  if (mr_layer_has(b, MR_PKG_NPM)) mr_jw_kc(&w, "NODE_PATH", "/usr/local/lib/node_modules");
  mr_jw_obj_end(&w);
  mr_jw_obj_end(&w);
}

static int spawn(struct mr_box *b, const struct mr_open *o, struct mr_err *err)
{
  const struct mr_local_conf *c = b->l->conf;
  struct mr_arena *a = mr_arena_new(b->l->mem, 8192);
  const char *argv[24], *roots = b->l->egress ? mr_egress_roots(b->l->egress, b->policy) : NULL;
  char layers[2][MR_LAYER_PATH];
  struct mr_buf config;
  int fds[7] = {-1, -1, b->given[1], b->given[0], b->given[1], b->given[2], b->given[3]}, n = 0, code;
  struct mr_child_opts opts = {.argv = argv,
                               .exe_fd = c->launcher_fd,
                               .fds = fds,
                               .nfds = 7,
                               .started = on_started,
                               .ended = on_ended,
                               .ud = b};

  if (!a) return mr_err_nomem(err);
  mr_buf_init(&config, b->l->mem, 64 << 10);
  envd_config(b, &config);
  argv[n++] = "moonrig-launcher";
  if (c->bare)
    argv[n++] = "bare=1";
  else
    argv[n++] = mr_arena_printf(a, "bwrap=%s", b->l->machine.bwrap);
  argv[n++] = mr_arena_printf(a, "dir=%s/s/%s", c->root, b->session);
  argv[n++] = config.failed ? NULL : mr_arena_str(a, mr_buf_get(&config)).p;
  argv[n++] = arg(a, "disable_userns", b->l->machine.disable_userns);
  argv[n++] = arg(a, "tmp", c->tmp_max);
  argv[n++] = arg(a, "shm", c->tmp_max < 64 << 20 ? c->tmp_max : 64 << 20);
  argv[n++] = arg(a, "nproc", c->nproc);
  argv[n++] = arg(a, "nofile", c->nofile);
  argv[n++] = arg(a, "fsize", c->file_max);
  argv[n++] = arg(a, "data", c->memory_max);
  if (roots) argv[n++] = mr_arena_printf(a, "roots=%s", roots);
  if (c->as_root) argv[n++] = arg(a, "uid", o->uid);
  if (b->builds && b->builds->tree == MR_LAYER_APT) argv[n++] = "apt=1";
  for (int i = 0, have = mr_layer_paths(b, layers); i < have; i++)
    argv[n++] = mr_arena_printf(a, "layer=%s", layers[i]);
  if (o->cgroup[0]) argv[n++] = mr_arena_printf(a, "cgroup=%s", o->cgroup);
  argv[n] = NULL;
  code = MR_OK;
  for (int i = 0; i < n; i++)
    code = argv[i] ? code : MR_E_NOMEM;
  code = code ? mr_err_nomem(err) : mr_child_spawn(b->l->childs, &opts, &b->child, err);
  b->spawning = code == MR_OK;
  mr_buf_free(&config);
  mr_arena_free(&a);
  return code;
}

static void open_failed(struct mr_box *b, const struct mr_err *err)
{
  char text[500];

  mr_log(mr_loop_sys(b->l->loop), MR_LOG_ERROR, "sandbox", "%s: %s", b->session, err->message);
  snprintf(text, sizeof text, "The sandbox could not be started: %s", err->message);
  mr_calls_fail(b, MR_CALLS_QUEUED, err->code, text);
  mr_calls_fail(b, MR_CALLS_ALL, MR_E_CLOSED, mr_calls_died);
  b->state = MR_BOX_COLD;
}

/* What the pool found: a connection, or all that a new sandbox needs. */
static void opened(struct mr_box *b, struct mr_open *o)
{
  struct mr_err err = o->err;
  int code = MR_OK, report = -1;

  memcpy(b->token, o->token, sizeof b->token);
  if (o->how == MR_OPEN_MADE) {
    const int given[5] = {o->listen, o->report[1], fcntl(b->l->conf->envd_fd, F_DUPFD_CLOEXEC, 3), o->lock, -1};
    memcpy(b->given, given, sizeof given);
    report = o->report[0];
    o->listen = o->lock = o->report[0] = o->report[1] = -1;
    if (b->child) /* of the life before; nobody waits for its end any more */
      mr_child_release(&b->child);
    code = spawn(b, o, &err);
    if (code != MR_OK) close_given(b);
  }
  if (code == MR_OK) {
    code = mr_wire_open(b, o->conn, report, &err);
    o->conn = -1;
  } else if (report >= 0) {
    close(report);
  }
  if (code != MR_OK) {
    open_failed(b, &err);
    return;
  }
  b->state = MR_BOX_HELLO;
  set_timer(b, HELLO_US);
}

static void open_done(struct mr_job *j)
{
  struct mr_open *o = MR_OF(j, struct mr_open, job);
  struct mr_box *b = o->box;
  char oom[400];

  if (b) {
    b->job = NULL;
    if (o->warm[0]) mr_local_destroy(&b->l->base, o->warm, NULL, NULL, NULL); /* the session had files */
    if (o->how == MR_OPEN_MADE) {
      b->note_oom |= o->oom && !b->told_oom;
      b->told_oom = false;
    }
    mr_calls_oom(o->conf, false, oom);
    if (b->released && o->how == MR_OPEN_MADE)
      o->how = MR_OPEN_DEAD; /* nobody waits for it: the next one makes it */
    if (b->state == MR_BOX_OPENING || b->state == MR_BOX_ENDING) {
      if (o->how == MR_OPEN_FAILED && !o->end_only)
        open_failed(b, &o->err);
      else if (o->how == MR_OPEN_FAILED || o->how == MR_OPEN_DEAD) {
        b->told_oom |= o->oom && (mr_calls_present(b) & (MR_CALLS_SENT | MR_CALLS_STATUS));
        mr_calls_fail(b, MR_CALLS_SENT | MR_CALLS_STATUS, MR_E_CLOSED, o->oom ? oom : mr_calls_died);
      } else if (!b->released)
        opened(b, o);
      if (b->state == MR_BOX_OPENING || b->state == MR_BOX_ENDING) b->state = MR_BOX_COLD;
    }
    mr_box_step(b);
  }
  mr_open_free(o);
}

static int copy_mounts(struct mr_arena *a, const struct mr_sandbox_mount *from, int n,
                       struct mr_sandbox_mount **to)
{
  *to = mr_arena_alloc(a, ((size_t)n + 1) * sizeof **to);
  for (int i = 0; *to && i < n; i++) {
    (*to)[i].host_path = mr_arena_str(a, mr_str_c(from[i].host_path)).p;
    (*to)[i].path = mr_arena_str(a, mr_str_c(from[i].path)).p;
    if (!(*to)[i].host_path || !(*to)[i].path) return MR_E_NOMEM;
  }
  return *to ? MR_OK : MR_E_NOMEM;
}

/* Submits the pool's part. end_only: kill what is there instead. */
static void open_start(struct mr_box *b, bool may_make, bool end_only)
{
  struct mr_open *o = mr_mem_zalloc(b->l->mem, sizeof *o);
  struct mr_err err;
  int code = MR_E_NOMEM;

  if (o) {
    o->conf = mr_local_conf_ref(b->l->conf);
    o->conn = o->listen = o->report[0] = o->report[1] = o->lock = -1;
    o->box = b;
    o->may_make = may_make;
    if (may_make && b->plain && !b->provisioned) mr_warm_take(b->l, o->warm);
    o->end_only = end_only;
    snprintf(o->session, sizeof o->session, "%s", b->session);
    if (b->layer) memcpy(o->layer, b->layer->hash, sizeof o->layer);
    snprintf(o->environment, sizeof o->environment, "%s", b->environment);
    o->job.work = mr_open_work;
    o->job.done = open_done;
    o->arena = mr_arena_new(b->l->mem, 1024);
    o->nmounts = b->nmounts;
    code = o->arena ? copy_mounts(o->arena, b->mounts, b->nmounts, &o->mounts) : MR_E_NOMEM;
    if (code == MR_OK) code = mr_pool_submit(b->l->pool, &o->job);
    if (code != MR_OK && o->warm[0]) mr_local_destroy(&b->l->base, o->warm, NULL, NULL, NULL);
    if (code != MR_OK) mr_open_free(o);
  }
  if (code == MR_OK) {
    b->job = o;
    b->state = end_only ? MR_BOX_ENDING : MR_BOX_OPENING;
    return;
  }
  mr_err_set(&err, code, NULL, "%s", code == MR_E_FULL ? "too much disk work is waiting" : mr_strerror(code));
  open_failed(b, &err);
}

void mr_box_up(struct mr_box *b)
{
  b->state = MR_BOX_UP;
  b->provisioned = true;
  b->reason[0] = '\0';
  b->disk_at_us = 0;
  b->disk_allowed = 0;
  mr_calls_send(b, MR_CALLS_SENT); /* on an earlier connection */
  mr_box_step(b);
}

void mr_box_lost(struct mr_box *b)
{
  b->failures++;
  mr_wire_close(b);
  b->was_up = b->state == MR_BOX_UP;
  b->state = MR_BOX_LOST;
  set_timer(b, REASON_US);
  mr_box_step(b);
}

/* Ends what does not behave; calls that were sent to it end with MR_E_CLOSED. */
void mr_box_kill(struct mr_box *b, const char *why)
{
  mr_log(mr_loop_sys(b->l->loop), MR_LOG_ERROR, "sandbox", "%s: ended: %s", b->session, why);
  mr_calls_fail(b, MR_CALLS_SENT, MR_E_CLOSED, why);
  mr_wire_close(b);
  mr_wire_report_close(b);
  mr_timer_cancel(b->l->loop, &b->timer);
  open_start(b, false, true);
}

/* The connection is gone and the launcher had its say. */
static void after_loss(struct mr_box *b)
{
  char text[600];

  mr_timer_cancel(b->l->loop, &b->timer);
  mr_wire_report_close(b);
  b->state = MR_BOX_COLD;
  if (b->was_up)
    mr_log(mr_loop_sys(b->l->loop), MR_LOG_WARN, "sandbox", "%s: connection lost%s%s", b->session,
           b->reason[0] ? ": " : "", b->reason);
  if (!b->was_up && b->reason[0]) {
    mr_log(mr_loop_sys(b->l->loop), MR_LOG_ERROR, "sandbox", "%s: not started: %s", b->session, b->reason);
    snprintf(text, sizeof text, "The sandbox could not be started: %s", b->reason);
    mr_calls_fail(b, MR_CALLS_ALL, MR_E_CLOSED, text);
    b->failures = 0;
    b->l->machine.known = false; /* what was found before may not hold any more */
    mr_layer_forget(b);
  } else if (b->failures >= FAILURES_MAX) {
    b->failures = 0;
    mr_calls_fail(b, MR_CALLS_ALL, MR_E_CLOSED,
                  "The sandbox's connection broke again and again; the sandbox was ended.");
    mr_box_kill(b, "its connection broke again and again");
  }
}

/* ---- deciding ---- */

static void step_cold(struct mr_box *b)
{
  const struct mr_local_machine *m;
  int present = mr_calls_present(b);

  if (b->job || b->spawning || (present == 0 && !b->warm)) return;
  if (b->warm && b->tried) {
    mr_warm_lost(b);
    return;
  }
  if (present & (MR_CALLS_SENT | MR_CALLS_STATUS)) {
    open_start(b, false, false);
    return;
  }
  m = mr_local_machine_get(b->l);
  if (!m) {
    b->state = MR_BOX_PROBING;
  } else if (m->code != MR_OK) {
    if (b->warm) mr_warm_lost(b);
    mr_calls_fail(b, MR_CALLS_QUEUED, m->code, m->err.message);
  } else if (mr_layer_ready(b, m)) {
    b->tried = true;
    open_start(b, true, false);
  }
}

/* ---- the step ---- */

static void on_timer(struct mr_timer *t)
{
  struct mr_box *b = MR_OF(t, struct mr_box, timer);

  if (b->state == MR_BOX_HELLO) {
    if (++b->failures >= FAILURES_MAX - 1)
      mr_calls_fail(b, MR_CALLS_ALL, MR_E_CLOSED, "The sandbox does not answer when it is started.");
    mr_box_kill(b, "no answer after the start");
  } else if (b->state == MR_BOX_LOST) {
    b->reason_over = true;
  } else if (b->state == MR_BOX_UP && mr_calls_stuck(b, ACCEPT_US, CANCEL_US)) {
    mr_box_kill(
        b, "The sandbox did not answer any more and was ended. Files in /workspace and /mnt/session/outputs "
           "are kept.");
  } else if (b->state == MR_BOX_UP && mr_loop_now_us(b->l->loop) - b->disk_at_us > DISK_US) {
    mr_box_measure(b);
  }
  mr_box_step(b);
}

static void step_up(struct mr_box *b)
{
  mr_calls_send(b, MR_CALLS_QUEUED | MR_CALLS_STATUS);
  if (!mr_timer_pending(&b->timer) || (b->nops && b->timer.due_us > mr_loop_now_us(b->l->loop) + TICK_US))
    set_timer(b, b->nops ? TICK_US : IDLE_TICK_US);
}

static void step(struct mr_ready *r)
{
  struct mr_box *b = MR_OF(r, struct mr_box, step);

  if (b->destroy) {
    mr_destroy_step(b->destroy);
  } else if (!b->released) {
    if (b->state == MR_BOX_PROBING) b->state = MR_BOX_COLD;
    if (b->state == MR_BOX_LOST && b->reason_over) after_loss(b);
    if (b->state == MR_BOX_COLD) step_cold(b);
    if (b->state == MR_BOX_UP) step_up(b);
  }
  mr_box_settle(b);
}

void mr_box_step(struct mr_box *b)
{
  mr_ready_post(b->l->loop, &b->step);
}

/* ---- coming and going ---- */

int mr_box_new(struct mr_box **out, struct mr_local *l, const char *session)
{
  struct mr_box *b = mr_mem_zalloc(l->mem, sizeof *b);

  *out = b;
  if (!b) return MR_E_NOMEM;
  b->base.d = &l->base;
  b->l = l;
  b->fd = b->report = -1;
  for (size_t i = 0; i < sizeof b->given / sizeof *b->given; i++)
    b->given[i] = -1;
  b->ops_tail = &b->ops;
  b->done_tail = &b->done;
  snprintf(b->session, sizeof b->session, "%s", session);
  snprintf(b->ref, sizeof b->ref, "local:%s", session);
  mr_ready_init(&b->step, step);
  mr_ready_init(&b->deliver, mr_calls_deliver);
  mr_ready_init(&b->io, mr_wire_io);
  mr_timer_init(&b->timer, on_timer);
  b->link = &l->boxes;
  b->next = l->boxes;
  if (b->next) b->next->link = &b->next;
  l->boxes = b;
  return MR_OK;
}

struct mr_sandbox *mr_box_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, const char *ref)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  struct mr_arena *a = mr_arena_new(l->mem, 1024);
  struct mr_egress_policy *policy = l->egress ? mr_egress_policy_new(l->egress, &spec->network) : NULL;
  struct mr_sandbox_mount *mounts;
  struct mr_layer *layer = NULL;
  struct mr_box *b = NULL;
  int packages = 0;

  /* The directory of the session says all that there is to know; ref, that there is one. */
  if (!a || (l->egress && !policy) || !mr_session_name_ok(spec->session_id) ||
      copy_mounts(a, spec->mounts, spec->nmounts, &mounts) != MR_OK)
    goto fail;
  for (int i = 0; i < MR_PKG_MANAGERS; i++)
    packages += spec->packages.n[i];
  if (packages && !(layer = mr_layer_get(l, &spec->packages))) goto fail;
  b = mr_local_find(l, spec->session_id);
  if (b && !b->released) goto fail; /* one holder at a time */
  if (!b && mr_box_new(&b, l, spec->session_id) != MR_OK) goto fail;
  b->released = false;
  mr_arena_free(&b->arena);
  mr_egress_policy_free(&b->policy); /* no link has it: there is no connection while nobody holds the box */
  b->policy = policy;
  b->arena = a;
  b->mounts = mounts;
  b->nmounts = spec->nmounts;
  b->plain = mr_warm_fits(spec) && !(ref && ref[0]);
  mr_layer_release(&b->layer);
  b->layer = layer;
  b->builds = NULL;
  snprintf(b->environment, sizeof b->environment, "%s", spec->environment_id ? spec->environment_id : "");
  mr_box_step(b);
  return &b->base;
fail:
  mr_layer_release(&layer);
  mr_egress_policy_free(&policy);
  mr_arena_free(&a);
  return NULL;
}

void mr_box_free(struct mr_box *b)
{
  struct mr_loop *loop = b->l->loop;

  if (b->job) b->job->box = NULL;
  if (b->measuring) b->measuring->box = NULL;
  mr_wire_close(b);
  mr_wire_report_close(b);
  mr_child_release(&b->child);
  if (!b->spawning) close_given(b);
  mr_timer_cancel(loop, &b->timer);
  mr_ready_cancel(loop, &b->step);
  mr_ready_cancel(loop, &b->deliver);
  mr_ready_cancel(loop, &b->io);
  mr_calls_drop(b);
  mr_layer_release(&b->layer);
  *b->link = b->next;
  if (b->next) b->next->link = b->link;
  mr_egress_policy_free(&b->policy);
  mr_arena_free(&b->arena);
  mr_mem_free(b->l->mem, b);
}

void mr_box_settle(struct mr_box *b)
{
  if (b->released && !b->delivering && !b->job && !b->measuring && !b->spawning && !b->destroy) mr_box_free(b);
}

void mr_box_put(struct mr_box *b)
{
  b->released = true;
  mr_calls_drop(b);
  mr_wire_close(b);
  mr_wire_report_close(b);
  mr_timer_cancel(b->l->loop, &b->timer);
  if (b->state != MR_BOX_GONE && !b->job) b->state = MR_BOX_COLD;
  mr_box_settle(b);
}

bool mr_box_quiesce(struct mr_box *b)
{
  mr_calls_fail(b, MR_CALLS_ALL, MR_E_CLOSED, "The session's sandbox was removed.");
  mr_wire_close(b);
  mr_wire_report_close(b);
  mr_timer_cancel(b->l->loop, &b->timer);
  b->state = MR_BOX_GONE;
  if (b->child) mr_child_kill(b->child, SIGTERM);
  return !b->job && !b->measuring && !b->spawning;
}
