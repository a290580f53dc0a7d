/*
 * cgroup.h - one control group for each sandbox, where this process may make some (cgroup v2): limits of
 * memory, processes and CPU for the sandbox as a whole, and a way to kill everything in it at once.
 *
 * Nothing is kept in memory: a session's group is what the link <session>/cgroup names, so that another
 * server finds it. All functions block a little (files of the kernel's): pool threads, and the opening one.
 */
#ifndef MR_SANDBOX_CGROUP_H
#define MR_SANDBOX_CGROUP_H

#include "base/err.h"
#include "base/sys.h"

enum { MR_CG_MEMORY = 1, MR_CG_PIDS = 2, MR_CG_CPU = 4, MR_CG_KILL = 8, MR_CG_PATH = 600 };
#define MR_CG_PROBE "probe" /* the name of the group that the machine is tried out with */

struct mr_cgroup_conf {
  char base[400];  /* where groups can be made; "" = nowhere, and why says why */
  char group[480]; /* <base>/moonrig-<hash of the driver's root> */
  char root[1024]; /* the driver's; noted at group, so that others see when it is gone. "" = too long */
  bool own;        /* base is the group that this process is in */
  int there;       /* of MEMORY, PIDS, CPU: controllers that base can hand down */
  int64_t memory_max, pids_max; /* bytes, tasks */
  int cpu_percent;              /* of one core; 0 = no limit */
  char why[200];                /* what is in the way of limits; "" = nothing */
};

/* Looks where groups can be made. Changes nothing. root: the driver's, absolute. */
void mr_cgroup_find(struct mr_cgroup_conf *c, const char *root);
/* Makes the group of a session anew, and the link to it in its directory. *force: which of MR_CG_* are in
 * force; 0 and MR_OK when there can be none. out: the group's cgroup.procs. */
int mr_cgroup_make(const struct mr_cgroup_conf *c, const char *session, int dir, char out[MR_CG_PATH],
                   int *force, char why[200]);
/* Kills what is in a session's group, waits for it, removes group and link. No group: MR_OK. */
int mr_cgroup_end(const struct mr_cgroup_conf *c, int dir, struct mr_err *err);
/* What a crash left. s_fd >= 0: groups that no session below it has any more, with all that is in them.
 * -1: empty ones, before any is made, and those of drivers whose root is gone; blocks shortly. */
void mr_cgroup_sweep(const struct mr_cgroup_conf *c, int s_fd);

struct mr_cgroup_stats {
  int64_t memory, memory_max, pids, pids_max; /* -1 = not limited, or not known */
  int64_t oom_kills, forks_refused;           /* since the sandbox was made */
};
bool mr_cgroup_stats(int dir, struct mr_cgroup_stats *s);

#endif
