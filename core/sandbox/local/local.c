/*
 * local.c - the local sandbox driver: launcher -> bubblewrap -> envd on this machine. This file is the
 * driver itself: its configuration, the table of its sandboxes, the probe of the machine.
 *
 *   box.c      one session's sandbox: a state machine on the loop thread
 *   calls.c    its calls, from queued to answered
 *   wire.c     its connection to envd: frames (helpers/proto.h)
 *   watch.c    its disk space
 *   destroy.c  ending one for good; what a crash left behind
 *   keep.c     checkpoint and restore
 *   warm.c     sandboxes made ahead
 *   diagnose.c what is in force, and what lives
 *   probe.c    what the machine offers                      | these run in pool jobs:
 *   open.c     attach, or prepare directories and a socket  | they block, and know the
 *   end.c uids.c uploads.c tree.c ../run.c cgroup.c         | conf and their arguments
 *   layer_disk.c freeze.c                                   |
 *   layer.c    packages of environments (layer_t.h)
 *   image.c    the helper programs as descriptors
 *
 * Invariant: a sandbox is found by its session id alone. Nothing that must survive a crash is in memory:
 * the directory, the socket in it, the lock that the launcher holds and the uid registry say everything.
 */
#include "sandbox/local/layer_t.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  PROBE_AGAIN_US = 10 * 1000000,
  LOOKING_AFTER = 32, /* processes of bubblewrap and envd */
  FILES_MIN = 20000
};

struct mr_probe_job {
  struct mr_job job;
  struct mr_local *l; /* NULL once the driver is gone */
  struct mr_local_conf *conf;
  struct mr_local_machine machine;
};

struct mr_sweep {
  struct mr_job job;
  struct mr_local *l; /* NULL once the driver is gone */
  struct mr_local_conf *conf;
};

bool mr_session_name_ok(const char *s)
{
  size_t n = s ? strlen(s) : 0;

  if (n == 0 || n >= MR_SESSION_MAX) return false;
  return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

struct mr_box *mr_local_find(struct mr_local *l, const char *session)
{
  struct mr_box *b = l->boxes;

  while (b && (strcmp(b->session, session) != 0 || b->state == MR_BOX_GONE))
    b = b->next;
  return b;
}

/* ---- configuration ---- */

struct mr_local_conf *mr_local_conf_ref(struct mr_local_conf *c)
{
  c->refs++;
  return c;
}

void mr_local_conf_unref(struct mr_local_conf **cp)
{
  struct mr_local_conf *c = *cp;
  const struct mr_mem *m;

  *cp = NULL;
  if (!c || --c->refs > 0) return;
  m = &c->sys->mem;
  const int fds[] = {c->s_fd, c->u_fd, c->trash_fd, c->layers_fd, c->launcher_fd, c->envd_fd, c->keep_fd};
  for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
    if (fds[i] >= 0) close(fds[i]);
  mr_mem_free(m, c->root);
  mr_mem_free(m, c->libexec);
  mr_mem_free(m, c->build_env);
  mr_mem_free(m, c);
}

static int open_sub(int root, const char *name, int *fd, struct mr_err *err)
{
  if (mkdirat(root, name, 0700) != 0 && errno != EEXIST) return mr_err_errno(err, name);
  *fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return *fd < 0 ? mr_err_errno(err, name) : MR_OK;
}

static int open_dirs(struct mr_local_conf *c, const char *root, struct mr_err *err)
{
  char path[PATH_MAX];
  int fd, code;

  if (mkdir(root, 0700) != 0 && errno != EEXIST) return mr_err_errno(err, root);
  if (!realpath(root, path)) return mr_err_errno(err, root);
  c->root = mr_mem_strdup(&c->sys->mem, mr_str_c(path));
  if (!c->root) return mr_err_nomem(err);
  fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return mr_err_errno(err, path);
  code = open_sub(fd, "s", &c->s_fd, err);
  if (code == MR_OK) code = open_sub(fd, "u", &c->u_fd, err);
  if (code == MR_OK) code = open_sub(fd, "trash", &c->trash_fd, err);
  if (code == MR_OK) code = open_sub(fd, "layers", &c->layers_fd, err);
  close(fd);
  return code;
}

/* Environment variables of build sandboxes, as the lines of a script that set them. */
static int build_env(struct mr_local_conf *c, const char *json, struct mr_err *err)
{
  static const char names[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789";
  yyjson_doc *doc = NULL;
  yyjson_val *k, *v;
  yyjson_obj_iter it;
  struct mr_buf b;
  int code = mr_json_parse(&c->sys->mem, mr_str_c(json ? json : "{}"), 64 << 10, &doc, err);

  if (code != MR_OK) return code;
  mr_buf_init(&b, &c->sys->mem, 256 << 10);
  it = yyjson_obj_iter_with(yyjson_doc_get_root(doc));
  if (!yyjson_is_obj(yyjson_doc_get_root(doc)) || yyjson_obj_size(yyjson_doc_get_root(doc)) > 64)
    code = MR_E_INVALID;
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str name = mr_json_str(k), value = mr_json_str(v = yyjson_obj_iter_get_val(k));
    if (!yyjson_is_str(v) || name.n == 0 || strspn(name.p, names) != name.n || memchr(value.p, 0, value.n) ||
        (name.p[0] >= '0' && name.p[0] <= '9'))
      code = MR_E_INVALID;
    mr_buf_printf(&b, "export " MR_FMT "=", MR_ARG(name));
    if (code == MR_OK) mr_layer_quote(&b, value.p);
    mr_buf_c(&b, "\n");
  }
  if (code != MR_OK)
    mr_err_set(
        err, code, "sandbox.build_env",
        "sandbox.build_env: must be an object of at most 64 strings, by the names of environment variables");
  c->build_env = code == MR_OK ? mr_mem_strdup(&c->sys->mem, mr_buf_get(&b)) : NULL;
  if (code == MR_OK && (!c->build_env || b.failed)) code = mr_err_nomem(err);
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  return code;
}

static int conf_new(struct mr_local_conf **out, const struct mr_sys *sys, const struct mr_sandbox_options *o,
                    struct mr_err *err)
{
  struct mr_local_conf *c = mr_mem_zalloc(&sys->mem, sizeof *c);
  int code;

  if (!c) return mr_err_nomem(err);
  *out = c;
  c->refs = 1;
  c->sys = sys;
  c->s_fd = c->u_fd = c->trash_fd = c->layers_fd = c->launcher_fd = c->envd_fd = c->keep_fd = -1;
  c->as_root = geteuid() == 0;
  c->uid_first = o->uid_first ? o->uid_first : 2000000;
  c->uid_count = o->uid_count ? o->uid_count : 65536;
  c->orphan_ttl_s = o->orphan_ttl_s ? o->orphan_ttl_s : 300;
  c->memory_max = o->memory_max ? o->memory_max : INT64_C(4) << 30;
  c->tmp_max = o->tmp_max ? o->tmp_max : INT64_C(512) << 20;
  c->disk_max = o->disk_max ? o->disk_max : INT64_C(10) << 30;
  c->file_max = c->disk_max < INT64_C(4) << 30 ? c->disk_max : INT64_C(4) << 30;
  c->nproc = o->nproc ? o->nproc : 512;
  c->nofile = 8192;
  c->files_max = c->disk_max / 4096 > FILES_MIN ? c->disk_max / 4096 : FILES_MIN;
  c->layers_max = o->layers_max ? o->layers_max : INT64_C(20) << 30;
  c->build_timeout_s = o->build_timeout_s ? o->build_timeout_s : 1800;
  c->network = o->http != NULL;
  c->require_limits = o->require_limits;
  c->bare = o->bare;
  c->cgroup.memory_max = o->memory_total ? o->memory_total : INT64_C(4) << 30;
  c->cgroup.pids_max = c->nproc + LOOKING_AFTER;
  c->cgroup.cpu_percent = o->cpu_percent;
  if (c->uid_first <= 0 || c->uid_count < 2 || c->uid_first + c->uid_count > INT32_MAX)
    return mr_err_set(err, MR_E_INVALID, "sandbox.uid_first",
                      "sandbox.uid_first and sandbox.uid_count name no usable range of host uids");
  if (c->bare && (c->as_root || getuid() == 0))
    return mr_err_set(err, MR_E_DENIED, "sandbox.driver",
                      "sandbox.driver: none is refused as root: commands of agents would own this machine");
  if (c->bare)
    mr_log(sys, MR_LOG_WARN, "sandbox",
           "UNSAFE: sandbox.driver is none: commands of agents run as uid %d, kept from nothing",
           (int)geteuid());
  code = open_dirs(c, o->root, err);
  if (code == MR_OK && o->libexec && !(c->libexec = mr_mem_strdup(&sys->mem, mr_str_c(o->libexec))))
    code = mr_err_nomem(err);
  if (code == MR_OK) code = build_env(c, o->build_env, err);
  if (code != MR_OK) return code;
  mr_cgroup_find(&c->cgroup, c->root);
  mr_cgroup_sweep(&c->cgroup, -1);
  return mr_local_image(c, err);
}

/* ---- the machine ---- */

void mr_local_machine_set(struct mr_local *l, const struct mr_local_machine *m)
{
  l->machine = *m;
  for (int i = 0; i < m->nfeatures; i++)
    l->machine.features[i].detail = l->machine.detail[i];
}

static void probe_work(struct mr_job *j, void *worker)
{
  struct mr_probe_job *p = MR_OF(j, struct mr_probe_job, job);
  (void)worker;
  mr_local_probe(p->conf, &p->machine);
}

static void probe_done(struct mr_job *j)
{
  struct mr_probe_job *p = MR_OF(j, struct mr_probe_job, job);
  struct mr_local *l = p->l;
  const struct mr_mem *mem = &p->conf->sys->mem;

  if (l) {
    l->probing = NULL;
    mr_local_machine_set(l, &p->machine);
    if (p->machine.code != MR_OK) mr_log(p->conf->sys, MR_LOG_WARN, "sandbox", "%s", p->machine.err.message);
    for (struct mr_box *b = l->boxes; b; b = b->next)
      if (b->state == MR_BOX_PROBING) mr_box_step(b);
  }
  mr_local_conf_unref(&p->conf);
  mr_mem_free(mem, p);
}

const struct mr_local_machine *mr_local_machine_get(struct mr_local *l)
{
  struct mr_probe_job *p;
  bool stale = l->machine.code != MR_OK && mr_loop_now_us(l->loop) - l->machine.at_us > PROBE_AGAIN_US;

  if (l->machine.known && !stale) return &l->machine;
  if (l->probing) return NULL;
  p = mr_mem_zalloc(l->mem, sizeof *p);
  if (p) {
    p->l = l;
    p->conf = mr_local_conf_ref(l->conf);
    p->job.work = probe_work;
    p->job.done = probe_done;
    if (mr_pool_submit(l->pool, &p->job) == MR_OK) {
      l->probing = p;
      return NULL;
    }
    mr_local_conf_unref(&p->conf);
    mr_mem_free(l->mem, p);
  }
  l->machine.code =
      mr_err_set(&l->machine.err, MR_E_UNAVAILABLE, NULL, "the machine cannot be probed now: too busy");
  return &l->machine;
}

static int local_report(struct mr_sandbox_driver *d, const struct mr_sandbox_feature **f, int *n,
                        struct mr_err *err)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  struct mr_local_machine *m;

  if (!l->machine.known) {
    m = mr_mem_alloc(l->mem, sizeof *m);
    if (!m) return mr_err_nomem(err);
    mr_local_probe(l->conf, m);
    mr_local_machine_set(l, m);
    mr_mem_free(l->mem, m);
  }
  *f = l->machine.features;
  *n = l->machine.nfeatures;
  if (l->machine.code != MR_OK && err) mr_err_copy(err, &l->machine.err);
  return l->machine.code;
}

/* ---- the driver's table ---- */

static int outputs_path(struct mr_sandbox_driver *d, const char *session_id, char out[4096])
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  int n;

  if (!mr_session_name_ok(session_id)) return MR_E_INVALID;
  n = snprintf(out, 4096, "%s/s/%s/outputs", l->conf->root, session_id);
  return n < 4096 ? MR_OK : MR_E_TOO_LARGE;
}

/* A start of a process that is under way uses descriptors of the box: let it come to its end. */
static void wait_for_spawns(struct mr_local *l)
{
  bool busy = true;

  for (int i = 0; busy && i < 200; i++) {
    busy = mr_keeps_spawning(l);
    for (struct mr_box *b = l->boxes; b; b = b->next)
      busy |= b->spawning;
    if (busy) {
      mr_loop_run_posts(l->loop);
      usleep(5000);
    }
  }
}

static void local_free(struct mr_sandbox_driver *d)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);

  wait_for_spawns(l);
  mr_warm_free(l);
  mr_timer_cancel(l->loop, &l->retry);
  if (l->probing) l->probing->l = NULL;
  if (l->sweeping) l->sweeping->l = NULL;
  mr_destroys_free(l);
  mr_keeps_free(l);
  mr_layers_free(l);
  mr_diagnoses_free(l);
  while (l->boxes)
    mr_box_free(l->boxes);
  mr_egress_free(&l->egress);
  mr_local_conf_unref(&l->conf);
  mr_mem_free(l->mem, l);
}

static void sweep_work(struct mr_job *j, void *worker)
{
  (void)worker;
  mr_local_sweep(MR_OF(j, struct mr_sweep, job)->conf);
}

static void sweep_done(struct mr_job *j)
{
  struct mr_sweep *s = MR_OF(j, struct mr_sweep, job);
  const struct mr_mem *mem = &s->conf->sys->mem;

  if (s->l) s->l->sweeping = NULL;
  mr_local_conf_unref(&s->conf);
  mr_mem_free(mem, s);
}

static void sweep(struct mr_local *l)
{
  struct mr_sweep *s = mr_mem_zalloc(l->mem, sizeof *s);

  if (!s) return;
  s->l = l;
  s->conf = mr_local_conf_ref(l->conf);
  l->sweeping = s;
  s->job.work = sweep_work;
  s->job.done = sweep_done;
  if (mr_pool_submit(l->pool, &s->job) != MR_OK) sweep_done(&s->job); /* the next start sweeps */
}

extern const struct mr_sandbox_vtable mr_local_vtable;

int mr_sandbox_local_new(struct mr_sandbox_driver **out, struct mr_loop *loop, struct mr_childs *childs,
                         struct mr_pool *pool, const struct mr_sandbox_options *o, struct mr_err *err)
{
  const struct mr_sys *sys = mr_loop_sys(loop);
  struct mr_local *l = mr_mem_zalloc(&sys->mem, sizeof *l);
  int code;

  *out = NULL;
  if (!l) return mr_err_nomem(err);
  l->base.v = &mr_local_vtable;
  l->loop = loop;
  l->mem = &sys->mem;
  l->childs = childs;
  l->pool = pool;
  code = conf_new(&l->conf, sys, o, err);
  if (code == MR_OK && l->conf->network)
    code = mr_egress_new(&l->egress, loop, o->guard, l->conf->root, o->egress, err);
  if (code != MR_OK) {
    mr_local_conf_unref(&l->conf);
    mr_mem_free(l->mem, l);
    return code;
  }
  l->warm = o->bare ? 0 : o->warm; /* without namespaces the directory's name is what runs in it is told */
  mr_timer_init(&l->warm_timer, mr_warm_step);
  mr_warm_want(l, false);
  sweep(l);
  mr_layer_sweep(l);
  *out = &l->base;
  return MR_OK;
}

static const char *box_ref(const struct mr_sandbox *s)
{
  const struct mr_box *b = MR_OF(s, struct mr_box, base);
  return b->provisioned ? b->ref : "";
}

static const char *box_doing(const struct mr_sandbox *s)
{
  return mr_layer_doing(MR_OF(s, struct mr_box, base));
}

static void egress_stats(struct mr_sandbox_driver *d, struct mr_egress_stats *out)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  if (l->egress) mr_egress_stats(l->egress, out);
}

static void box_put(struct mr_sandbox *s)
{
  mr_box_put(MR_OF(s, struct mr_box, base));
}

const struct mr_sandbox_vtable mr_local_vtable = {.free = local_free,
                                                  .report = local_report,
                                                  .diagnose = mr_local_diagnose,
                                                  .get = mr_box_get,
                                                  .put = box_put,
                                                  .ref = box_ref,
                                                  .call = mr_box_call,
                                                  .status = mr_box_status,
                                                  .cancel = mr_box_cancel,
                                                  .destroy = mr_local_destroy,
                                                  .outputs_path = outputs_path,
                                                  .doing = box_doing,
                                                  .prepare = mr_local_prepare,
                                                  .prepare_cancel = mr_local_prepare_cancel,
                                                  .egress_stats = egress_stats,
                                                  .checkpoint = mr_keep_checkpoint,
                                                  .restore = mr_keep_restore,
                                                  .take = mr_keep_take,
                                                  .keep_free = mr_keep_free};
