/*
 * watch.c - how much a sandbox has on disk, seen from outside. The limit is envd's to keep (helpers/envd_disk.c), which
 * looks often and stops commands gently; this is for an envd that does not, because it is older or was taken over. A
 * pool job walks the directories every few seconds while calls run; a sandbox well above the limit is ended, its files
 * stay.
 */
#include "sandbox/local/local_t.h"

#include <stdio.h>
#include <unistd.h>

static const int64_t DISK_SLACK = INT64_C(256) << 20;

static void disk_work(struct mr_job *j, void *worker)
{
  struct mr_disk_job *m = MR_OF(j, struct mr_disk_job, job);
  int dir = mr_local_session_dir(m->conf, m->session, false);

  (void)worker;
  if (dir < 0) return;
  m->size = mr_tree_size(dir, "workspace", INT64_MAX / 4) + mr_tree_size(dir, "outputs", INT64_MAX / 4);
  close(dir);
}

static void disk_done(struct mr_job *j)
{
  struct mr_disk_job *m = MR_OF(j, struct mr_disk_job, job);
  struct mr_box *b = m->box;
  const struct mr_mem *mem = &m->conf->sys->mem;
  int64_t max = m->conf->disk_max;
  char text[300];

  if (b) {
    b->measuring = NULL;
    b->disk_at_us = mr_loop_now_us(b->l->loop);
    /* One that is over from the start may still run, so that something can be deleted in it. */
    if (b->disk_allowed == 0) b->disk_allowed = (m->size > max ? m->size : max) + DISK_SLACK + max / 4;
    if (b->state == MR_BOX_UP && m->size > b->disk_allowed) {
      snprintf(
          text, sizeof text,
          "The sandbox was ended: its files in /workspace and /mnt/session/outputs take more than %lld MiB. "
          "Delete some before writing more.",
          (long long)(max >> 20));
      mr_box_kill(b, text);
    }
    mr_box_step(b);
  }
  mr_local_conf_unref(&m->conf);
  mr_mem_free(mem, m);
}

void mr_box_measure(struct mr_box *b)
{
  struct mr_disk_job *m = b->measuring ? NULL : mr_mem_zalloc(b->l->mem, sizeof *m);

  if (!m) return;
  m->conf = mr_local_conf_ref(b->l->conf);
  m->box = b;
  m->job.work = disk_work;
  m->job.done = disk_done;
  snprintf(m->session, sizeof m->session, "%s", b->session);
  if (mr_pool_submit(b->l->pool, &m->job) == MR_OK) {
    b->measuring = m;
    return;
  }
  mr_local_conf_unref(&m->conf);
  mr_mem_free(b->l->mem, m);
}
