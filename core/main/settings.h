/*
 * settings - what the program was told: flag over environment over configuration file over default. Unknown
 * settings are errors that name where they came from.
 */
#ifndef MR_MAIN_SETTINGS_H
#define MR_MAIN_SETTINGS_H

#include "main/main_t.h"

enum { LISTEN_MAX = 16, PATHS_MAX = 256 };

struct settings {
  const char *listen[LISTEN_MAX];
  int nlisten;
  const char *tls_cert, *tls_key, *data, *config, *offline;
  const char *url, *key;  /* of commands that speak to a server */
  const char *session;    /* chat */
  const char *from;       /* attach */
  const char *page;       /* ps */
  const char *body;       /* api: a file to send, or to write */
  int limit;              /* ps */
  bool all, follow, list; /* ps, logs, api */
  bool watch, insecure_http, json, quiet;
  bool no_requests;                /* check-config */
  bool rollback, status, drain;    /* reload */
  const char *only;                /* test */
  const char *dir;                 /* new */
  const char *output;              /* export */
  const char *title, *environment; /* fork, import, key */
  bool no_workspace;               /* fork, export */
  int timeout_s;
  const char *environment_key, *network; /* worker, with environment */
  int max_sessions, drain_s, keep_s, idle_s, lease_s;
  bool once;
  bool url_given;  /* --url; the environment's is not used with --data */
  bool data_given; /* --data, or MOONRIG_DATA */
  bool key_given;  /* --key, or MOONRIG_API_KEY */
  int grace_s;
  const char *paths[PATHS_MAX]; /* what is left of the command line */
  int npaths;
  char *options;    /* JSON for mr_open */
  yyjson_doc *file; /* the configuration file; strings above may point into it */
  char url_buf[256], key_buf[128], config_buf[1024], offline_buf[1024];
  char local_key[72]; /* what the commands of this machine use, by the server's file */
};

/* Flags of one command: which of the settings it takes. */
enum {
  TAKES_SERVER = 1,
  TAKES_CLIENT = 2,
  TAKES_RELOAD = 4,
  TAKES_JSON = 8,
  STOP_AT_PATH = 16,
  TAKES_CHAT = 32,
  TAKES_REPL = 64,
  TAKES_TEST = 1024,
  TAKES_NEW = 2048,
  TAKES_ATTACH = 4096,
  TAKES_PS = 8192,
  TAKES_LOGS = 16384,
  TAKES_API = 32768,
  TAKES_CHECK = 65536, /* the path is the configuration */
  TAKES_EXPORT = 131072,
  TAKES_COPY = 262144,
  TAKES_KEY = 524288,
  TAKES_WORKER = 1048576, /* and the configuration file */
  TAKES_DOCTOR = 2097152, /* a configuration, when one is named */
  TAKES_FORK = 4194304
};

/* Reads argv (without the program's name; argv[0] is the command). 0, or the exit status after it said why.
 * With STOP_AT_PATH everything after the first path is the script's. */
int mr_settings_read(struct settings *s, const struct command *c, unsigned takes, int argc, char **argv);
void mr_settings_free(struct settings *s);

#endif
