/* What the test runner (script_test.c) uses of the fake host. */
#ifndef FAKE_HOST_H
#define FAKE_HOST_H
#include <stddef.h>
typedef void (*host_stats_fn)(char *out, size_t n, int long_lived);
__attribute__((visibility("default"))) void host_set_stats(host_stats_fn fn); /* adds to what host.open() says */
/* What host.lint(path, stored or nil) does: calls fn once with the report; 0, or an error's text in out. */
typedef int (*host_lint_fn)(const char *path, const char *stored, void (*fn)(void *ud, const char *p, size_t n), void *ud,
                            char *out, size_t n);
__attribute__((visibility("default"))) void host_set_lint(host_lint_fn fn);
/* After the script was closed: 0 when nothing is left open; out says what is. */
__attribute__((visibility("default"))) int host_end(char *out, size_t n);
/* A call of a tool ('t'), hook ('h') or model provider ('m') that is registered; see struct mr_use. */
struct mr_use;
__attribute__((visibility("default"))) const struct mr_use *host_inject(int kind, const char *name);
/* A request to a route, with a client that takes nothing; NULL: there is none. And how it stands: 0 open, 1 ended,
 * 2 failed; its status. */
struct mr_web;
__attribute__((visibility("default"))) struct mr_web *host_ask(const char *method, const char *path);
__attribute__((visibility("default"))) int host_asked(const struct mr_web *w, int *status);
#endif
