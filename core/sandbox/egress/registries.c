/*
 * registries.c - which hosts `allow_package_managers` opens when the operator did not say (egress.package_hosts):
 * those that this machine's own pip, npm, go, gem, cargo and apt get packages from, by their configuration or built
 * in. So a machine with a mirror opens the mirror, and no host's name has to stand in a program.
 *
 * The clients are asked once, when the first request needs to know: one shell, some hundred milliseconds, no
 * network. Nothing of it comes from a sandbox. Who asked waits (MR_CONN_ASK) until conf.packages_known.
 */
#include <stdio.h>
#include <stdlib.h>

#include "loop/pool.h"
#include "sandbox/egress/egress_t.h"
#include "sandbox/run.h"

enum { ASK_MS = 20000, OUTPUT = 16 << 10, HOSTS = 100 };

/* "URL" a line; "wide URL" when the hosts beside it count too, as an index and its files have different ones. */
static const char script[] =
    "for p in python3 /usr/bin/python3; do $p -c 'from pip._internal.models.index import PyPI as p\n"
    "print(p.simple_url); print(\"https://\" + p.file_storage_domain + \"/\")'; done\n"
    "for k in index-url extra-index-url; do pip config get global.$k; pip config get install.$k; done\n"
    "npm config get registry\n"
    "go env GOPROXY | tr ',|' '\\n\\n'; go env GOSUMDB | sed 's#^\\([a-z0-9.-]*\\).*#https://\\1/#'\n"
    "gem sources | sed -n 's#^http#wide http#p'\n"
    "c=$(rustup which cargo || command -v cargo) && grep -aoE 'sparse\\+https://[A-Za-z0-9.-]+/' \"$c\" | "
    "sed 's#^sparse.#wide #'\n"
    "grep -hoE 'https?://[^\"]+' ~/.cargo/config.toml ~/.cargo/config\n"
    "cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources | "
    "grep -v '^ *#' | grep -oE 'https?://[^ ]+'\n";

struct mr_registries {
  struct mr_job job;
  struct mr_egress *e; /* NULL: gone */
  const struct mr_mem *mem;
  struct mr_pool *pool;
  char path[1024], home[600];
  char out[OUTPUT];
  int code;
};

static void ask(struct mr_job *j, void *worker)
{
  struct mr_registries *r = MR_OF(j, struct mr_registries, job);
  const char *argv[] = {"/bin/sh", "-c", script, NULL}, *envp[] = {r->path, r->home, "PIP_NO_INPUT=1", NULL};

  (void)worker;
  r->code = mr_sandbox_run(argv, envp, -1, ASK_MS, r->out, sizeof r->out);
}

static bool host_ok(const char *h)
{
  return strchr(h, '.') && strlen(h) < 200 && strspn(h, "abcdefghijklmnopqrstuvwxyz0123456789-._") == strlen(h);
}

/* The host of a URL, or what is beside it: "index.example.com" -> "*.example.com", "example.com" -> "*.example.com". */
static bool pattern(struct mr_str line, char out[300], bool *wide)
{
  struct mr_target t;
  size_t at = 0, end;

  *wide = mr_str_starts(line, MR_S("wide "));
  if (*wide) line.p += 5, line.n -= 5;
  while (at + 3 <= line.n && memcmp(line.p + at, "://", 3) != 0)
    at++;
  if (at + 3 > line.n || memchr(line.p, ' ', at)) return false;
  for (end = at += 3; end < line.n && !memchr("/?# ", line.p[end], 4);)
    end++;
  for (size_t i = at; i < end; i++)
    if (line.p[i] == '@') at = i + 1;
  if (mr_target_read(mr_str_n(line.p + at, end - at), 443, &t, NULL) != MR_OK || !host_ok(t.host)) return false;
  snprintf(out, 300, "%s", t.host);
  return true;
}

static void add(struct mr_egress *e, const char *host)
{
  struct mr_egress_conf *c = &e->conf;
  struct mr_str copy;

  for (int i = 0; i < c->npackages; i++)
    if (mr_str_is(c->packages[i], host)) return;
  copy = c->npackages < HOSTS ? mr_arena_str(e->arena, mr_str_c(host)) : mr_str_n(NULL, 0);
  if (copy.p) c->packages[c->npackages++] = copy;
}

static void take(struct mr_egress *e, struct mr_str rest)
{
  char host[300], beside[310];
  const char *dot;
  bool wide;

  while (rest.p) {
    if (!pattern(mr_str_trim(mr_str_split(&rest, '\n')), host, &wide)) continue;
    add(e, host);
    dot = strchr(host, '.');
    if (!wide) continue;
    snprintf(beside, sizeof beside, "*%s%s", strchr(dot + 1, '.') ? "" : ".",
             strchr(dot + 1, '.') ? dot : host);
    add(e, beside);
  }
}

static void told(struct mr_job *j)
{
  struct mr_registries *r = MR_OF(j, struct mr_registries, job);
  struct mr_egress *e = r->e;

  if (!e) return;
  e->conf.packages = mr_arena_alloc(e->arena, HOSTS * sizeof *e->conf.packages);
  if (e->conf.packages) take(e, mr_str_c(r->out));
  e->conf.packages_known = true;
  if (r->code || !e->conf.npackages)
    mr_log(mr_loop_sys(e->loop), MR_LOG_WARN, "egress",
           "where this machine's package managers get packages from is not known%s%s: set egress.package_hosts",
           r->code ? ": " : "", r->code ? strerror(r->code) : "");
  for (int i = 0; i < e->conf.npackages; i++)
    mr_log(mr_loop_sys(e->loop), MR_LOG_DEBUG, "egress", "package managers: " MR_FMT,
           MR_ARG(e->conf.packages[i]));
  for (struct mr_egress_link *k = e->links; k; k = k->next)
    for (struct mr_egress_conn *c = k->conns; c; c = c->next)
      if (c->state == MR_CONN_ASK) mr_conn_step(c);
}

void mr_registries_ask(struct mr_egress *e)
{
  static const char dirs[] = "/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin";
  const char *path = getenv("PATH"), *home = getenv("HOME");
  struct mr_registries *r = e->registries;

  if (r) return;
  r = mr_mem_zalloc(e->mem, sizeof *r);
  if (r && mr_pool_new(&r->pool, e->loop, 1, 1, "registries", NULL, NULL, NULL, NULL) == MR_OK) {
    r->e = e;
    r->mem = e->mem;
    r->job.work = ask;
    r->job.done = told;
    snprintf(r->path, sizeof r->path, "PATH=%.800s%s%s", path ? path : "", path ? ":" : "", dirs);
    snprintf(r->home, sizeof r->home, "HOME=%.500s", home ? home : "/");
    e->registries = r;
    if (mr_pool_submit(r->pool, &r->job) == MR_OK) return;
  }
  if (r && !e->registries) mr_mem_free(e->mem, r);
  e->conf.packages_known = true; /* none, rather than waiting for ever */
}

void mr_registries_free(struct mr_registries **rp)
{
  struct mr_registries *r = *rp;

  *rp = NULL;
  if (!r) return;
  r->e = NULL;
  mr_pool_free(&r->pool);
  mr_mem_free(r->mem, r);
}
