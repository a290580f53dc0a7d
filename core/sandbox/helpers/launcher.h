/*
 * launcher.h - what the files of the launcher share; see launcher.c. Nothing else includes it.
 */
#ifndef MR_LAUNCHER_H
#define MR_LAUNCHER_H

#include <stdbool.h>
#include <sys/types.h>

/* The descriptors the driver gives; all others are closed at once. */
enum {
  LAUNCHER_REPORT = 2, /* lines for the driver; also standard error of bubblewrap */
  LAUNCHER_LISTEN = 3, /* envd's listening socket */
  LAUNCHER_READY = 4,  /* envd's start report: the same pipe as LAUNCHER_REPORT */
  LAUNCHER_ENVD = 5,   /* the program to run as PID 1, in a sealed memory file */
  LAUNCHER_LOCK = 6,   /* <session>/lock: the record lock is held as long as the sandbox lives */
  LAUNCHER_FDS = 7,
  LAUNCHER_ARGS = 512, /* of bubblewrap's command line */
  LAUNCHER_LAYERS = 4,
  LAUNCHER_SHOWN = 60 /* places other than /usr that layers add to */
};

struct launch {
  bool probe; /* run a shell that does nothing instead of envd, then end */
  bool bare;  /* UNSAFE: envd without bubblewrap, in no namespace; never as root */
  bool switch_uid, disable_userns;
  uid_t uid;                          /* host uid and gid of everything inside, when switch_uid */
  const char *bwrap;                  /* path of bubblewrap */
  const char *dir;                    /* the session's directory: workspace, outputs, uploads */
  const char *config;                 /* envd's argument */
  const char *cgroup;                 /* cgroup.procs to enter, or NULL */
  const char *roots;                  /* certificates to show at LAUNCHER_ROOTS, or NULL */
  const char *layer[LAUNCHER_LAYERS]; /* trees of packages, the uppermost first */
  int nlayers;
  bool apt;                             /* show what apt needs to resolve and fetch packages */
  long long tmp, shm;                   /* bytes of /tmp and /dev/shm */
  long long nproc, nofile, fsize, data; /* rlimits; 0 = left alone */
  /* filled on the way */
  int bwrap_fd, roots_fd;
  bool staged; /* the session's directories are at LAUNCHER_STAGE in a mount namespace of ours */
  bool usr;    /* /usr with the layers on top is at LAUNCHER_STAGE "/usr" */
  char shown[LAUNCHER_SHOWN][2][320]; /* more of the layers: where it is staged, and its place inside */
  int nshown;
  char path[3][4200]; /* host paths of workspace, outputs, uploads as bubblewrap sees them */
  const char *argv[LAUNCHER_ARGS];
  int argc;
  char number[16][24]; /* texts of numbers in argv */
  int numbers;
};
#define LAUNCHER_STAGE "/tmp"
#define LAUNCHER_ROOTS "/etc/ssl/sandbox-roots.pem"

/* Prints one line on the report and ends the process. */
void launcher_die(const char *what, const char *detail) __attribute__((noreturn));
/* ---- launcher_layer.c: packages ---- */

/* Not root: makes a user and a mount namespace, in which it may mount what it may read. */
void launcher_layer_namespace(void);
/* Opens the layers, in the mount namespace that they are used in, before the stage covers their places. */
void launcher_layer_open(struct launch *l, int fd[LAUNCHER_LAYERS]);
/* Stages /usr and what else the layers hold; closes fd. */
void launcher_layer_stage(struct launch *l, const int fd[LAUNCHER_LAYERS]);

/* Started as root, or with layers: makes the session's directories reachable for the session's uid, whatever the modes
 * of the directories above them, in a mount namespace of this process alone. */
void launcher_stage(struct launch *l);
/* Fills l->argv with bubblewrap's command line; descriptors it names are open and inherited. */
void launcher_args(struct launch *l, int info_fd);

#endif
