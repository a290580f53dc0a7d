/*
 * diagnose.c - what is in force for the sandboxes of one environment: the machine's features, and each sandbox
 * of it that lives, with the figures of its control group. Asked by operators, not on the way of a call.
 *
 * What lives is read from the directories, not from memory: sandboxes whose session nobody holds now are there,
 * too. One pool job; the callback comes once, at the latest when the driver goes.
 */
#include "sandbox/local/local_t.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIVE_MAX = 1000 };

struct mr_diagnose {
  struct mr_job job;
  struct mr_diagnose *next;
  struct mr_local *l; /* NULL once the driver is gone, and the callback has come */
  struct mr_local_conf *conf;
  char environment[MR_SESSION_MAX];
  struct mr_local_machine machine; /* known: as the driver has it; else probed here */
  struct mr_arena *arena;
  struct mr_sandbox_live *live;
  int nlive;
  mr_sandbox_diagnosis_fn fn;
  void *ud;
};

/* ---- pool ---- */

static bool belongs(int dir, const char *environment)
{
  char text[MR_SESSION_MAX];
  ssize_t n = readlinkat(dir, "environment", text, sizeof text);

  return n > 0 && n < (ssize_t)sizeof text && mr_str_is(mr_str_n(text, (size_t)n), environment);
}

static void look(struct mr_diagnose *g, const char *session)
{
  int dir = mr_local_session_dir(g->conf, session, false);
  struct mr_sandbox_live *v = &g->live[g->nlive];
  struct mr_cgroup_stats c;
  struct stat st;

  if (dir < 0) return;
  if (belongs(dir, g->environment) && mr_local_alive(dir)) {
    mr_cgroup_stats(dir, &c);
    *v = (struct mr_sandbox_live){
        .session_id = mr_arena_str(g->arena, mr_str_c(session)).p,
        .uid = fstatat(dir, "workspace", &st, AT_SYMLINK_NOFOLLOW) == 0 ? (int64_t)st.st_uid : -1,
        .memory = c.memory,
        .memory_max = c.memory_max,
        .pids = c.pids,
        .pids_max = c.pids_max,
        .forks_refused = c.forks_refused};
    g->nlive += v->session_id != NULL;
  }
  close(dir);
}

static void work(struct mr_job *j, void *worker)
{
  struct mr_diagnose *g = MR_OF(j, struct mr_diagnose, job);
  int fd = openat(g->conf->s_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
  struct dirent *e;

  (void)worker;
  if (!g->machine.known) mr_local_probe(g->conf, &g->machine);
  if (!d && fd >= 0) close(fd);
  while (d && g->nlive < LIVE_MAX && (e = readdir(d)))
    if (mr_session_name_ok(e->d_name)) look(g, e->d_name);
  if (d) closedir(d);
}

/* ---- loop thread ---- */

static void tell(struct mr_diagnose *g, int code)
{
  struct mr_local_machine *m = &g->machine;
  struct mr_err closed;
  struct mr_sandbox_diagnosis r = {
      .driver = g->conf->bare ? "none" : "local", .unsafe = g->conf->bare, .code = code, .err = &closed};

  mr_err_set(&closed, MR_E_CLOSED, NULL, "the runtime is closing");
  if (code == MR_OK) {
    for (int i = 0; i < m->nfeatures; i++)
      m->features[i].detail = m->detail[i];
    r.code = m->code;
    r.err = m->code ? &m->err : NULL;
    r.features = m->features;
    r.nfeatures = m->nfeatures;
    r.live = g->live;
    r.nlive = g->nlive;
  }
  g->fn(g->ud, &r);
}

static void diagnose_free(struct mr_diagnose *g)
{
  const struct mr_mem *mem = &g->conf->sys->mem;

  mr_local_conf_unref(&g->conf);
  mr_arena_free(&g->arena);
  mr_mem_free(mem, g);
}

static void done(struct mr_job *j)
{
  struct mr_diagnose *g = MR_OF(j, struct mr_diagnose, job), **at;

  if (g->l) {
    for (at = &g->l->diagnoses; *at != g;)
      at = &(*at)->next;
    *at = g->next;
    mr_local_machine_set(g->l, &g->machine);
    tell(g, MR_OK);
  }
  diagnose_free(g);
}

int mr_local_diagnose(struct mr_sandbox_driver *d, const char *environment_id, mr_sandbox_diagnosis_fn fn,
                      void *ud)
{
  struct mr_local *l = MR_OF(d, struct mr_local, base);
  struct mr_diagnose *g = mr_mem_zalloc(l->mem, sizeof *g);
  int code;

  if (!g) return MR_E_NOMEM;
  g->l = l;
  g->conf = mr_local_conf_ref(l->conf);
  g->fn = fn;
  g->ud = ud;
  g->job.work = work;
  g->job.done = done;
  if (l->machine.known && l->machine.code == MR_OK) g->machine = l->machine;
  snprintf(g->environment, sizeof g->environment, "%s", environment_id);
  g->arena = mr_arena_new(l->mem, 4096);
  g->live = g->arena ? mr_arena_alloc(g->arena, LIVE_MAX * sizeof *g->live) : NULL;
  code = g->live ? mr_pool_submit(l->pool, &g->job) : MR_E_NOMEM;
  if (code != MR_OK) {
    diagnose_free(g);
    return code;
  }
  g->next = l->diagnoses;
  l->diagnoses = g;
  return MR_OK;
}

void mr_diagnoses_free(struct mr_local *l)
{
  struct mr_diagnose *g;

  while ((g = l->diagnoses)) {
    l->diagnoses = g->next;
    g->l = NULL; /* the job runs on; done frees it */
    tell(g, MR_E_CLOSED);
  }
}
