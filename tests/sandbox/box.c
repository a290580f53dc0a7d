/*
 * box - real sandboxes for tests that are written in another language: `box DIR OPTIONS`, OPTIONS a JSON object:
 * resolver {name: [[address, ..], ..]} (the answers of one look-up after the other, the last one for ever; other names
 * are not known), allow_private [..], ports [[a,b],..], package_hosts [..], blocked_hosts [..], own_ports [..], secrets
 * [{env, value, hosts}], ca_file, network false, user uid.
 * Standard input has one JSON object a line: {"session", "network": {limited, hosts, package_managers, mcp_hosts},
 * "command", "timeout_ms"}; each is answered by a line {"code", "is_error", "text"}. {"destroy": session} ends one;
 * {"restart": true} makes a new driver, as a server that was started again does.
 * At the end of the input all that it made is removed.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <grp.h>
#include <netdb.h>
#include <pthread.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "loop/child.h"
#include "loop/pool.h"
#include "net/guard.h"
#include "net/http_client.h"
#include "sandbox/sandbox.h"

enum { BOXES = 64, LIST = 64 };

struct box {
  char session[80];
  struct mr_sandbox *s;
};
struct world {
  struct mr_sys sys;
  struct mr_loop *loop;
  struct mr_childs *childs;
  struct mr_pool *pool;
  struct mr_http_client *http;
  struct mr_guard *guard;
  struct mr_sandbox_driver *d;
  yyjson_val *options;
  char root[300];
  struct box boxes[BOXES];
  int serial, done;
};

/* ---- a name server of our own: in place of the C library's ---- */

typedef int getaddrinfo_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);
static yyjson_val *names;
static int asked[LIST];
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

static yyjson_val *answers(const char *host)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(names);
  yyjson_val *k, *turns = NULL;
  size_t turn = 0;

  pthread_mutex_lock(&names_lock);
  for (int i = 0; !turns && i < LIST && (k = yyjson_obj_iter_next(&it)); i++) {
    if (!yyjson_equals_str(k, host)) continue;
    turns = yyjson_obj_iter_get_val(k);
    turn = (size_t)asked[i]++;
    if (turn >= yyjson_arr_size(turns)) turn = yyjson_arr_size(turns) - 1;
  }
  pthread_mutex_unlock(&names_lock);
  fprintf(stderr, "lookup %s %zu\n", host, turn);
  return yyjson_arr_get(turns, turn);
}

__attribute__((visibility("default"))) int getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                                                       struct addrinfo **out)
{
  getaddrinfo_fn *real;
  struct addrinfo h = *hints;
  yyjson_arr_iter it;
  yyjson_val *v, *list;

  *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
  if (!names || (hints->ai_flags & AI_NUMERICHOST)) return real(host, port, hints, out);
  list = answers(host);
  if (!list) return EAI_NONAME;
  h.ai_flags |= AI_NUMERICHOST;
  it = yyjson_arr_iter_with(list);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (real(yyjson_get_str(v), port, &h, out) != 0) return EAI_FAIL;
    while (*out)
      out = &(*out)->ai_next; /* each is freed by itself */
  }
  return 0;
}

static void die(const char *what, const char *why)
{
  fprintf(stderr, "box: %s: %s\n", what, why);
  exit(3);
}

static int strings(yyjson_val *list, struct mr_str *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;
  int n = 0;

  while (n < LIST && yyjson_is_arr(list) && (v = yyjson_arr_iter_next(&it)))
    out[n++] = mr_json_str(v);
  return n;
}

static bool own(void *ud, const struct sockaddr *sa)
{
  struct world *w = ud;
  int port = ntohs(((const struct sockaddr_in *)(const void *)sa)->sin_port);
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(w->options, "own_ports"));
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    if (yyjson_get_int(v) == port) return true;
  return false;
}

static int cstrings(yyjson_val *list, const char **out);

static int secrets(struct world *w, struct mr_sandbox_secret *out)
{
  static const char *hosts[LIST][LIST];
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(w->options, "secrets"));
  yyjson_val *v;
  int n = 0;

  while (n < LIST && (v = yyjson_arr_iter_next(&it))) {
    out[n] = (struct mr_sandbox_secret){.env = yyjson_get_str(mr_json_get(v, "env")),
                                        .value = yyjson_get_str(mr_json_get(v, "value")),
                                        .hosts = hosts[n]};
    out[n].nhosts = cstrings(mr_json_get(v, "hosts"), hosts[n]);
    n++;
  }
  return n;
}

static void start(struct world *w)
{
  struct mr_sandbox_secret secret[LIST];
  struct mr_str priv[LIST], packages[LIST], blocked[LIST];
  int ports[LIST][2], nports = 0;
  yyjson_arr_iter it = yyjson_arr_iter_with(mr_json_get(w->options, "ports"));
  yyjson_val *v;
  struct mr_egress_options eo = {.ports = (const int(*)[2])ports, .package_hosts = packages, .blocked_hosts = blocked,
                                 .own = own, .own_ud = w};
  struct mr_sandbox_options o = {.root = w->root, .orphan_ttl_s = 60, .egress = &eo};
  struct mr_err err = {0};

  while (nports < LIST && (v = yyjson_arr_iter_next(&it))) {
    ports[nports][0] = yyjson_get_int(yyjson_arr_get(v, 0));
    ports[nports++][1] = yyjson_get_int(yyjson_arr_get(v, 1));
  }
  eo.nports = nports;
  eo.secrets = secret;
  eo.nsecrets = secrets(w, secret);
  eo.ca_file = yyjson_get_str(mr_json_get(w->options, "ca_file"));
  eo.npackage_hosts = strings(mr_json_get(w->options, "package_hosts"), packages);
  if (!mr_json_get(w->options, "package_hosts")) eo.package_hosts = NULL;
  eo.nblocked_hosts = strings(mr_json_get(w->options, "blocked_hosts"), blocked);
  if (mr_loop_new(&w->loop, &w->sys, NULL, &err) != MR_OK) die("loop", err.message);
  mr_loop_enter(w->loop);
  if (mr_guard_new(&w->guard, &w->sys.mem, priv, strings(mr_json_get(w->options, "allow_private"), priv),
                   "allow_private", &err) != MR_OK ||
      mr_http_client_new(&w->http, w->loop, NULL, &err) != MR_OK)
    die("net", err.message);
  o.guard = w->guard;
  if (mr_json_get_bool(w->options, "network", true)) o.http = w->http;
  if (mr_childs_new(&w->childs, w->loop, &err) != MR_OK ||
      mr_pool_new(&w->pool, w->loop, 2, 100, "box", NULL, NULL, NULL, &err) != MR_OK ||
      mr_sandbox_local_new(&w->d, w->loop, w->childs, w->pool, &o, &err) != MR_OK)
    die("driver", err.message);
}

static void stop(struct world *w)
{
  for (int i = 0; i < BOXES; i++)
    if (w->boxes[i].s) mr_sandbox_put(&w->boxes[i].s);
  mr_http_client_free(&w->http);
  mr_sandbox_driver_free(&w->d);
  mr_pool_free(&w->pool);
  mr_childs_free(&w->childs);
  mr_guard_free(&w->guard);
  mr_loop_free(&w->loop);
}

/* ---- one line ---- */

static void say(struct mr_buf *b)
{
  mr_buf_char(b, '\n');
  fwrite(b->p, 1, b->n, stdout);
  fflush(stdout);
  mr_buf_free(b);
}

static void on_result(void *ud, const struct mr_sandbox_result *r)
{
  struct world *w = ud;
  struct mr_buf b, text;
  struct mr_jw jw;
  yyjson_doc *doc = NULL;
  yyjson_arr_iter it;
  yyjson_val *v;

  mr_buf_init(&b, &w->sys.mem, 64 << 20);
  mr_buf_init(&text, &w->sys.mem, 64 << 20);
  if (r->code != MR_OK) {
    mr_buf_c(&text, r->err ? r->err->message : "");
  } else if (mr_json_parse(&w->sys.mem, r->content, 64 << 20, &doc, NULL) == MR_OK) {
    it = yyjson_arr_iter_with(yyjson_doc_get_root(doc));
    while ((v = yyjson_arr_iter_next(&it))) {
      if (text.n) mr_buf_char(&text, '\n');
      mr_buf_str(&text, mr_json_get_str(v, "text"));
    }
    yyjson_doc_free(doc);
  }
  mr_jw_init(&jw, &b);
  mr_jw_obj(&jw);
  mr_jw_kint(&jw, "code", r->code);
  mr_jw_key(&jw, "is_error");
  mr_jw_bool(&jw, r->is_error);
  mr_jw_kstr(&jw, "text", mr_buf_get(&text));
  mr_jw_obj_end(&jw);
  say(&b);
  mr_buf_free(&text);
  w->done = 1;
}

static void on_gone(void *ud, const struct mr_sandbox_result *r)
{
  struct world *w = ud;
  if (r->code != MR_OK) fprintf(stderr, "box: destroy: %s\n", r->err->message);
  w->done = 1;
}

static void wait(struct world *w)
{
  while (!w->done)
    if (mr_loop_pump(w->loop, 10000) != MR_MORE) usleep(300);
}

static int cstrings(yyjson_val *list, const char **out)
{
  struct mr_str s[LIST];
  int n = strings(list, s);

  for (int i = 0; i < n; i++)
    out[i] = s[i].p;
  return n;
}

static struct box *get(struct world *w, yyjson_val *line)
{
  const char *hosts[LIST], *mcp[LIST], *session = yyjson_get_str(mr_json_get(line, "session"));
  yyjson_val *n = mr_json_get(line, "network");
  struct mr_sandbox_spec spec = {.session_id = session ? session : "sesn_box"};
  struct box *b = NULL;

  for (int i = BOXES; i-- > 0;)
    if (!w->boxes[i].session[0] || strcmp(w->boxes[i].session, spec.session_id) == 0) b = &w->boxes[i];
  for (int i = 0; i < BOXES; i++)
    if (strcmp(w->boxes[i].session, spec.session_id) == 0) b = &w->boxes[i];
  if (!b) die("boxes", "too many");
  if (b->s) return b;
  spec.network.limited = mr_json_get_bool(n, "limited", false);
  spec.network.package_managers = mr_json_get_bool(n, "package_managers", false);
  spec.network.hosts = hosts;
  spec.network.nhosts = cstrings(mr_json_get(n, "hosts"), hosts);
  spec.network.mcp_hosts = mcp;
  spec.network.nmcp_hosts = cstrings(mr_json_get(n, "mcp_hosts"), mcp);
  snprintf(b->session, sizeof b->session, "%s", spec.session_id);
  b->s = mr_sandbox_get(w->d, &spec, NULL);
  if (!b->s) die("sandbox", "none");
  return b;
}

static void run(struct world *w, yyjson_val *line)
{
  struct mr_sandbox_call c = {.name = MR_S("bash"), .timeout_ms = (int)mr_json_get_int(line, "timeout_ms", 0)};
  struct box *b = get(w, line);
  struct mr_buf input;
  char id[64];

  snprintf(id, sizeof id, "exec%d-%lld", ++w->serial, (long long)mr_mono_us(&w->sys));
  mr_buf_init(&input, &w->sys.mem, 1 << 20);
  mr_buf_c(&input, "{\"command\":");
  mr_json_quote(&input, mr_json_get_str(line, "command"));
  mr_buf_c(&input, "}");
  c.exec_id = mr_str_c(id);
  c.input = mr_buf_get(&input);
  w->done = 0;
  if (mr_sandbox_call(b->s, &c, on_result, w) != MR_OK) die("call", "refused");
  wait(w);
  mr_buf_free(&input);
}

static void end(struct world *w, struct box *b)
{
  w->done = 0;
  mr_sandbox_destroy(w->d, b->session, NULL, on_gone, w);
  wait(w);
  if (b->s) mr_sandbox_put(&b->s);
  b->session[0] = '\0';
}

static void one(struct world *w, char *text)
{
  yyjson_doc *doc;
  yyjson_val *line;

  if (mr_json_parse(&w->sys.mem, mr_str_c(text), 1 << 20, &doc, NULL) != MR_OK) die("input", "no JSON");
  line = yyjson_doc_get_root(doc);
  if (mr_json_get(line, "restart")) {
    stop(w);
    start(w);
    printf("{}\n");
  } else if (mr_json_get(line, "destroy")) {
    for (int i = 0; i < BOXES; i++)
      if (mr_str_is(mr_json_get_str(line, "destroy"), w->boxes[i].session)) end(w, &w->boxes[i]);
    printf("{}\n");
  } else {
    run(w, line);
  }
  fflush(stdout);
  yyjson_doc_free(doc);
}

static void log_line(void *ud, int level, struct mr_str line)
{
  (void)ud;
  fprintf(stderr, "[%d] %.*s\n", level, (int)line.n, line.p);
}

/* Between two lines the loop turns: sandboxes go on. */
static bool next(struct world *w, char *text, size_t n)
{
  size_t used = 0;
  fd_set set;
  struct timeval soon;

  for (;;) {
    FD_ZERO(&set);
    FD_SET(0, &set);
    soon = (struct timeval){.tv_usec = 1000};
    while (mr_loop_pump(w->loop, 10000) == MR_MORE)
      continue;
    if (select(1, &set, NULL, NULL, &soon) <= 0) continue;
    ssize_t got = read(0, text + used, 1);
    if (got <= 0 || used + 1 == n) return false;
    if (text[used] == '\n') break;
    used++;
  }
  text[used] = '\0';
  return true;
}

int main(int argc, char **argv)
{
  static char text[1 << 20];
  static struct world w;
  struct mr_config c = {.log = log_line};
  yyjson_doc *doc;
  uid_t uid;

  if (argc != 3) return 2;
  mr_sys_init(&w.sys, &c);
  if (mr_json_parse(&w.sys.mem, mr_str_c(argv[2]), 1 << 20, &doc, NULL) != MR_OK) die("options", "no JSON");
  w.options = yyjson_doc_get_root(doc);
  names = mr_json_get(w.options, "resolver");
  if (mr_json_get_bool(w.options, "debug", false)) w.sys.log_level = MR_LOG_DEBUG;
  snprintf(w.root, sizeof w.root, "%s/sandboxes", argv[1]);
  uid = (uid_t)mr_json_get_int(w.options, "user", 0);
  if (uid && (chown(argv[1], uid, uid) != 0 || setgroups(0, NULL) != 0 || setresgid(uid, uid, uid) != 0 ||
              setresuid(uid, uid, uid) != 0 || prctl(PR_SET_DUMPABLE, 1) != 0))
    die("user", "cannot become it");
  start(&w);
  while (next(&w, text, sizeof text))
    one(&w, text);
  for (int i = 0; i < BOXES; i++)
    if (w.boxes[i].session[0]) end(&w, &w.boxes[i]);
  stop(&w);
  yyjson_doc_free(doc);
  return 0;
}
