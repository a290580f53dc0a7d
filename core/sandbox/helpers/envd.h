/*
 * envd - PID 1 of a sandbox: what its files share. proto.h says what it is told and answers.
 *
 *   envd.c         start, configuration, the poll loop
 *   envd_conn.c    connections and frames          envd_calls.c   calls by id, kept answers
 *   envd_relay.c   clients of the egress proxy
 *   envd_shell.c   the persistent bash             envd_proc.c    starting it, killing the rest
 *   envd_output.c  what commands print             envd_worker.c  a child per file tool
 *   envd_path.c    where they may go               envd_read.c, envd_media.c, envd_notebook.c
 *   envd_file.c    write, edit                     envd_walk.c, envd_glob.c, envd_grep.c
 *   envd_jail.c    seccomp and Landlock            envd_text.c, envd_json.c   bytes, text, JSON
 *   envd_freeze.c  everything stands still         envd_disk.c    what files may take
 *
 * One thread, one struct envd, no writable statics; nothing in the loop blocks: every fd is O_NONBLOCK, and
 * what may hang (files, patterns) runs in a child that is killed when its time is over. Whatever the payload
 * does, envd answers each call once.
 */
#ifndef MR_SANDBOX_ENVD_H
#define MR_SANDBOX_ENVD_H

#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "proto.h"

enum {
  ENVD_CONNS = 6,             /* one attached, the others about to attach */
  ENVD_ATTACH_MS = 10000,     /* time to send the attach */
  ENVD_OUT_MAX = 80 << 20,    /* bytes waiting for a reader before it is cut */
  ENVD_OPEN_CALLS = 256,      /* calls waiting or running */
  ENVD_IDS = 16384,           /* ids remembered after their answer had to go */
  ENVD_WORKERS = 8,           /* file tools at the same time; more wait */
  ENVD_OUTPUTS = 64,          /* commands whose background processes still print */
  ENVD_KEEP_OUTPUT = 1 << 20, /* bytes kept of a command's output, its end */
  ENVD_LOG_MAX = 1 << 20,     /* bytes of a file with background output */
  ENVD_VISIBLE = 102400,      /* characters of output in a result (API: tools 4.2, 4.7) */
  ENVD_FILE_MAX = 262144,     /* bytes that read and edit take at once (4.3) */
  ENVD_COMMAND_MAX = 1 << 20,
  ENVD_TIMEOUT_MAX = 24 * 3600 * 1000,
  ENVD_WRITE_DIRS = 16,
  ENVD_VARIABLES = 128,     /* of the payload's environment, with an end */
  ENVD_RELAYS = 64,         /* clients of the proxy at the same time; more wait in the backlog */
  ENVD_RELAY_BUF = 32 << 10 /* bytes, each way */
};

/* --- envd_text.c: bytes ------------------------------------------------------------------------------ */
struct estr {
  const char *p;
  size_t n;
};

/* A growing buffer; once a write would pass max or memory is out, failed is set and writes do nothing. */
struct ebuf {
  char *p;
  size_t n, cap, max;
  bool failed;
};
bool ebuf_room(struct ebuf *b, size_t n); /* p[n .. n+room) may be written */
void ebuf_put(struct ebuf *b, const void *p, size_t n);
void ebuf_s(struct ebuf *b, const char *s);
void ebuf_f(struct ebuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ebuf_free(struct ebuf *b);
void ebuf_json(struct ebuf *b, const char *p, size_t n); /* as a JSON string; p is valid UTF-8 */
void ebuf_base64(struct ebuf *b, const unsigned char *p, size_t n);
/* As valid UTF-8: each bad sequence and each NUL becomes U+FFFD; terminal escapes go when ansi. */
void ebuf_text(struct ebuf *b, const char *p, size_t n, bool ansi);

bool envd_utf8(const char *p, size_t n);
/* Where the last max characters of valid UTF-8 start; where its first max characters end. */
size_t envd_tail(const char *p, size_t n, size_t max);
size_t envd_head(const char *p, size_t n, size_t max);
/* A result's content: one text block, or none when there is no text. */
void envd_content(struct ebuf *b, const char *p, size_t n);
int64_t envd_now(void); /* ms, monotonic */

/* --- envd_json.c ------------------------------------------------------------------------------------- */
enum ej_type { EJ_NULL, EJ_BOOL, EJ_INT, EJ_REAL, EJ_STR, EJ_ARR, EJ_OBJ };
struct ej {
  enum ej_type t;
  struct estr key, s; /* of an object's member; of a string (s.p[s.n] is 0) */
  int64_t i;          /* of a number without fraction and of a bool */
  struct ej *first, *next;
};
struct ej_doc {
  struct ej *root;
  char *text;
  void *nodes;
};
/* Takes a copy of the text; false with *why set when it is no JSON of ours (UTF-8, 64 levels, 64k values). */
bool ej_parse(struct ej_doc *d, const char *p, size_t n, const char **why);
void ej_free(struct ej_doc *d);
const struct ej *ej_get(const struct ej *obj, const char *key); /* NULL; null counts as absent */
struct estr ej_str(const struct ej *obj, const char *key);      /* p is NULL unless a string */

/* --- envd_jail.c ------------------------------------------------------------------------------------- */
struct jail {
  unsigned short filter_n;
  void *filter;       /* struct sock_filter[] */
  int landlock;       /* ABI in use; 0 = not in force */
  int files, payload; /* Landlock rulesets, or -1 */
  int64_t nproc;      /* processes and threads of the payload; 0 = what envd itself may have */
};
struct envd;
/* Builds the filter and the rulesets, and proves in a child that the filter loads. */
bool jail_init(struct envd *e, char *why, size_t n);
/* In a child, for good. False: do not run anything. */
bool jail_enter(const struct jail *j, bool payload);

/* --- calls ------------------------------------------------------------------------------------------- */
enum tool { TOOL_BASH, TOOL_READ, TOOL_WRITE, TOOL_EDIT, TOOL_GLOB, TOOL_GREP, TOOL_NONE };
enum call_state { CALL_WAITING, CALL_RUNNING, CALL_DONE, CALL_CANCELLED, CALL_GONE };
struct call {
  struct call *prev, *next; /* older, newer */
  char *id;
  size_t id_n;
  uint64_t hash;
  enum call_state state;
  enum tool tool;
  bool asked;     /* the attached connection wants the answer */
  bool restarted; /* bash: its restart is done */
  bool again;     /* bash: the shell ended before it could take the command */
  bool untold;    /* it was not said yet that it is accepted */
  bool cancel;    /* it runs, and what it runs is being killed */
  bool counted;   /* among the kept answers */
  bool is_error;
  struct ebuf content; /* the answer: JSON array */
  struct ej_doc doc;   /* the frame, until the answer is there */
  const struct ej *input;
  int64_t timeout_ms;
};
struct calls {
  struct call *oldest, *newest, *first_open;
  int n, open, kept;
  size_t bytes;
  int64_t tell_at; /* when what is untold is told; 0: nothing is */
};

struct call *calls_find(struct envd *e, struct estr id);
void calls_receive(struct envd *e, struct ej_doc *frame); /* takes the frame */
void calls_status(struct envd *e, struct estr id);
void calls_cancel(struct envd *e, struct estr id);
/* The one way an open call ends. content is taken. */
void call_answer(struct envd *e, struct call *c, struct ebuf *content, bool is_error);
void call_answer_text(struct envd *e, struct call *c, bool is_error, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void call_cancelled(struct envd *e, struct call *c);
void calls_run(struct envd *e);  /* starts what can start */
void calls_tell(struct envd *e); /* that they are accepted */
void calls_detached(struct envd *e);

/* --- connections ------------------------------------------------------------------------------------- */
struct conn {
  int fd;
  int64_t attach_by;
  int given; /* a descriptor that came with its bytes, or -1 */
  struct ebuf in, out;
  size_t sent;
};
void conn_accept(struct envd *e);
void conn_read(struct envd *e, int i);
void conn_write(struct envd *e, int i);
void conn_close(struct envd *e, int i);
void conn_send(struct envd *e, const struct ebuf *json); /* to the attached one, if any */
void conn_say(struct envd *e, int i, const char *json);

/* --- envd_freeze.c ----------------------------------------------------------------------------------- */
bool freeze_begin(struct envd *e, int conn, int64_t ms); /* false: there is one, or ms is none */
void freeze_on_time(struct envd *e);
void freeze_end(struct envd *e); /* its connection is closed */

/* --- the shell --------------------------------------------------------------------------------------- */
struct output { /* one command's pipe */
  int fd, log;  /* -1; log: the file that takes what comes after the command ended */
  uint32_t serial;
  size_t logged, window; /* bytes in the file; bytes in the current 100 ms */
  int64_t paused_until;  /* a flood is read no faster */
};
enum shell_state {
  SHELL_OFF,  /* no bash */
  SHELL_IDLE, /* it waits for a command */
  SHELL_RUNNING,
  SHELL_ENDING,   /* status is there; a moment for the pipe to close */
  SHELL_ABORTING, /* everything but bash is killed, bash was told to return */
};
struct shell {
  enum shell_state state;
  pid_t pid;
  int status; /* a FIFO of the run directory, open for both ends */
  struct call *call;
  struct output out; /* of the running command */
  struct ebuf tail;  /* the end of its output */
  bool cut;          /* there was more before */
  bool lost;         /* the shell ended outside a command: the next result says so */
  bool going;        /* bash has been told what to do */
  bool aborted;      /* time is over or the call was cancelled */
  bool full;         /* or the disk is */
  char nonce[33];
  struct ebuf heard; /* from the status FIFO */
  int code;          /* exit status of the command */
  int64_t deadline, tick, give_up;
  int64_t listen_at; /* a quick command is not listened to, what it printed is read at its end: one wake less */
  int64_t clearing;  /* until then the next command waits for what was killed to be gone; or 0 */
  uint32_t serial;
};
void shell_init(struct envd *e);
bool shell_over(struct envd *e); /* the disk is full: the running command ends; false when there is none */
void shell_run(struct envd *e, struct call *c); /* the shell is OFF or IDLE */
bool shell_free(struct envd *e);
void shell_cancel(struct envd *e); /* the running call */
void shell_on_status(struct envd *e);
void shell_on_output(struct envd *e);
void shell_on_exit(struct envd *e, int status); /* bash was reaped */
void shell_on_time(struct envd *e);
int64_t shell_due(const struct envd *e); /* INT64_MAX: nothing to wait for */

bool proc_shell_start(struct envd *e); /* pid, status; false: errno */
bool proc_run_dir(struct envd *e);     /* makes what the run directory must hold */
/* Whether a process lives that proc_kill would not spare. */
bool proc_left(const struct envd *e, bool keep_shell);
/* SIGKILLs every process but envd, its workers and, when keep_shell, bash. True when bash was kept. */
bool proc_kill(struct envd *e, bool keep_shell);

bool output_open(struct envd *e, struct output *o, uint32_t serial);
/* Reads what is there, at most max bytes, into the shell's tail. 1 = more may come, 0 = closed. */
int output_tail(struct envd *e, struct output *o, size_t max);
void output_background(struct envd *e, struct output *o); /* moves it to e->outputs */
void output_on_background(struct envd *e, int i);
void output_close(struct output *o);

/* --- envd_disk.c ------------------------------------------------------------------------------------- */
struct disk {
  int64_t max, files_max;         /* bytes, files and directories; max 0 = not watched */
  int64_t bytes, files;           /* found by the last walk */
  int64_t allowed, files_allowed; /* above which everything is killed; more than max when it was over already */
  int64_t free_bytes, free_files; /* of the file system, then */
  int64_t tick, walked_at, walk_ms;
  pid_t walker;
  int fd;          /* of the walker, or -1 */
  uint32_t serial; /* the shell's command when it began */
  bool measured, settled, stopped, over;
  bool closed; /* far over: shells that start now can write no file */
  bool note;   /* the next command's result says why */
  char why[200];
};
void disk_on_time(struct envd *e);
void disk_on_walk(struct envd *e);
void disk_wake(struct envd *e); /* something runs */

/* --- envd_relay.c: the way out ------------------------------------------------------------------------ */
struct relay_way { /* one direction */
  char *p;
  size_t at, n;
  bool eof, shut; /* nothing more comes; the other side was told so */
};
struct relay {
  int client, server;        /* -1: free; not given yet */
  uint64_t serial;           /* in the order in which they came */
  int64_t give_up;           /* for a server, or for the client's end once it was refused; else 0 */
  bool refused;              /* told so: what it still sends is dropped */
  struct relay_way up, down; /* to the server, to the client */
};
struct relays {
  int listen, channel; /* -1 */
  uint64_t serial;
  struct relay r[ENVD_RELAYS];
};
enum relay_what { RELAY_LISTEN, RELAY_CHANNEL, RELAY_CLIENT, RELAY_SERVER };
void relay_init(struct envd *e);
bool relay_listen(struct envd *e, int port, char *why, size_t n);
void relay_channel(struct envd *e, int fd); /* takes the descriptor (or -1) in place of the one before */
/* What to poll a descriptor of relay i for; 0: not now. */
short relay_events(const struct envd *e, enum relay_what what, int i, int *fd);
void relay_on(struct envd *e, enum relay_what what, int i, short revents);
int64_t relay_due(const struct envd *e);
void relay_on_time(struct envd *e);
void relay_thaw(struct envd *e, int64_t ms); /* nobody inside could run for so long */

/* --- workers ----------------------------------------------------------------------------------------- */
struct worker {
  pid_t pid;
  int fd;
  struct call *call;
  struct ebuf got;
  int64_t kill_at;
};
bool workers_free(const struct envd *e);
void worker_start(struct envd *e, struct call *c);
void worker_on_data(struct envd *e, int i);
void worker_on_exit(struct envd *e, pid_t pid);
void worker_on_time(struct envd *e, int i); /* its time is over */
void worker_cancel(struct envd *e, struct call *c);

/* The tools, run in a worker: each leaves its content in r->content. */
struct tool_run {
  const struct envd *e;
  const struct ej *input;
  const char *name; /* "read", for messages */
  int64_t timeout_ms, deadline;
  struct ebuf content;
  bool is_error;
};
void tool_text(struct tool_run *r, const char *p, size_t n); /* any bytes */
void tool_fail(struct tool_run *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void tool_errno(struct tool_run *r, const char *shown, int err); /* "read: X: no such file or directory" */
const char *tool_error(int err, char unknown[48]);               /* the words alone */
/* False: said. An empty string counts only where that makes sense. */
bool tool_required(struct tool_run *r, const char *key, bool may_be_empty, struct estr *out);
void tool_read(struct tool_run *r);
void tool_write(struct tool_run *r);
void tool_edit(struct tool_run *r);
void tool_glob(struct tool_run *r);
void tool_grep(struct tool_run *r);

/* --- envd_path.c ------------------------------------------------------------------------------------- */
struct path {
  struct estr shown;   /* as the model wrote it */
  char real[PATH_MAX]; /* absolute, without links; what is not there yet is as named */
  size_t root;         /* length of the root in it */
  const char
      *read_only; /* the directory of the configuration that it lies in, which may not be written; or NULL */
};
/* False: said. It need not be there. */
bool path_resolve(struct tool_run *r, struct estr shown, struct path *p);
/* O_PATH. -1: said. p changes when links did meanwhile. */
int path_open(struct tool_run *r, struct path *p, struct stat *st);
/* Its directory (O_PATH), made when missing, and its name there. -1: said when *err is 0, else that errno. */
int path_parent(struct tool_run *r, struct path *p, const char **name, int *err);
int path_reopen(int fd, int flags); /* a regular file or a directory; closes fd */
bool path_under(const char *path, const char *dir);

/* A regular file; -1: said. */
int tool_open(struct tool_run *r, struct path *p, struct stat *st);
/* Up to max bytes of fd into b, those that it has counted. False: said. */
bool tool_slurp(struct tool_run *r, struct estr shown, int fd, struct ebuf *b, size_t max);

/* --- envd_media.c, envd_notebook.c ------------------------------------------------------------------- */
/* What the first bytes say: "image/png", "application/pdf", ... or NULL. */
const char *media_type(const char *p, size_t n);
/* The whole file as a block that shows it. */
void media_give(struct tool_run *r, struct estr shown, const char *type, const struct ebuf *file);
size_t media_max(const char *type);
/* A notebook as text. False: it is none, nothing was said. */
bool notebook_give(struct tool_run *r, struct estr shown, const struct ebuf *file);

/* One regular file below the walked directory; rel is its path from there. */
struct walk_entry {
  int dir;
  const char *name, *rel;
  struct timespec at; /* last written */
};
struct walk {
  struct tool_run *r;
  bool (*fn)(void *ud, const struct walk_entry *e); /* false ends the walk */
  void *ud;
  bool no_hidden; /* does not go into directories whose name begins with a dot */
  int levels;     /* so many and no deeper; 0: as far as they go */
  int entries;    /* seen so far */
  bool cut, late; /* 50,000 entries or 40 levels; the deadline */
  bool ended;     /* fn said so */
};
/* Regular files below dir (which is closed), each directory in the order of names, without .git and
 * node_modules. */
void walk_run(struct walk *w, int dir);
/* Opens name, no link, for reading when it is a regular file; -1 with errno, ENOTSUP when it is none. */
int walk_open_regular(int dir, const char *name);

/* --- envd.c ------------------------------------------------------------------------------------------ */
struct config {
  struct ej_doc doc;
  int64_t orphan_ms, bash_ms, file_ms, proxy_port;
  const char *home, *run;
  const char *write[ENVD_WRITE_DIRS], *read_only[ENVD_WRITE_DIRS];
  const struct ej *env;
  bool bare; /* not PID 1 of anything: what it looks after is what descends from it */
};
struct envd {
  struct config cfg;
  char run[64]; /* the run directory in use */
  int listen, signals, null, home;
  struct conn conns[ENVD_CONNS];
  int attached; /* index, or -1 */
  int freezer;  /* likewise: the connection that everything stands still for */
  int64_t frozen_at, freeze_look;
  int64_t orphan_at;
  struct calls calls;
  struct shell shell;
  struct output outputs[ENVD_OUTPUTS];
  struct worker workers[ENVD_WORKERS];
  struct relays relays;
  struct jail jail;
  struct disk disk;
  bool quit;
};

#endif
