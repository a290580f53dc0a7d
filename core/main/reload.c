/*
 * reload.c - `moonrig reload`: asks a running server to load its scripts again, to go back, or what runs.
 *
 * It only speaks the control route; what a reload is, is core/script's. --drain asks for the status again and
 * again: calls end when they end, and a server has nothing to wait for on behalf of a client.
 * Blocking, on the command's only thread.
 */
#include "main/client.h"

#include <stdlib.h>
#include <time.h>

enum { DRAIN_S = 60, LOOK_MS = 100 };

static yyjson_val *member(yyjson_val *o, const char *name)
{
  return yyjson_obj_get(o, name);
}

static long long number(yyjson_val *o, const char *name)
{
  return (long long)mr_json_get_int(o, name, 0);
}

/* ---- what is shown ---- */

static void show_live(yyjson_val *g, long long current)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(member(g, "tasks"));
  yyjson_val *k;
  const char *sep = "";

  printf("  %lld%s: %lld files, ", number(g, "number"), number(g, "number") == current ? " (current)" : "",
         number(g, "files"));
  if (number(g, "running") == 0) printf("nothing runs");
  while ((k = yyjson_obj_iter_next(&it))) {
    printf("%s%s %lld", sep, yyjson_get_str(k), (long long)yyjson_get_sint(yyjson_obj_iter_get_val(k)));
    sep = ", ";
  }
  if (number(g, "running") > 0) printf("; the oldest since %.1f s", yyjson_get_num(member(g, "oldest_s")));
  printf("\n");
}

static void show_status(yyjson_val *root)
{
  yyjson_val *x;
  yyjson_arr_iter it;
  struct mr_str error = mr_json_get_str(root, "error");

  printf("generation %lld, %lld files\n", number(root, "generation"), number(root, "files"));
  if (error.n)
    printf("last attempt, %s: " MR_FMT "\n", yyjson_get_str(member(root, "error_at")), MR_ARG(error));
  printf("generations:\n");
  it = yyjson_arr_iter_with(member(root, "live"));
  while ((x = yyjson_arr_iter_next(&it)))
    show_live(x, number(root, "generation"));
  printf("attempts, the latest first:\n");
  it = yyjson_arr_iter_with(member(root, "history"));
  while ((x = yyjson_arr_iter_next(&it))) {
    error = mr_json_get_str(x, "error");
    printf("  %s %s %lld, %.1f ms", yyjson_get_str(member(x, "at")), yyjson_get_str(member(x, "what")),
           number(x, "generation"), yyjson_get_num(member(x, "took_ms")));
    if (error.n) printf(", refused: " MR_FMT, MR_ARG(error));
    printf("\n");
  }
}

/* ---- asking ---- */

/* *out: the answer's JSON text. */
static int ask(struct settings *s, const char *command, char **out)
{
  char in[64];

  snprintf(in, sizeof in, "{\"command\":\"%s\"}", command);
  return mr_client_control(s, in, out);
}

/* Tasks on generations that are not the current one. */
static long long left(yyjson_val *root)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(member(root, "live"));
  yyjson_val *g;
  long long n = 0;

  while ((g = yyjson_arr_iter_next(&it)))
    if (number(g, "number") != number(root, "generation")) n += number(g, "running");
  return n;
}

static int64_t now_ms(void)
{
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Looks until only the current generation has tasks. *out becomes the last status. */
static int drain(struct settings *s, int seconds, char **out)
{
  const struct timespec pause = {0, LOOK_MS * 1000000L};
  int64_t until = now_ms() + (int64_t)seconds * 1000;

  for (;;) {
    yyjson_doc *doc = yyjson_read(*out, strlen(*out), 0);
    long long n = left(yyjson_doc_get_root(doc));
    int status;

    yyjson_doc_free(doc);
    if (n == 0) return EXIT_OK;
    if (now_ms() >= until) {
      fprintf(stderr, "moonrig: after %d s %lld task%s of older generations still run%s\n", seconds, n,
              n == 1 ? "" : "s", n == 1 ? "s" : "");
      return EXIT_FAILED;
    }
    nanosleep(&pause, NULL);
    mr_main_free(*out);
    *out = NULL;
    status = ask(s, "status", out);
    if (status != EXIT_OK) return status;
  }
}

static int show(const struct settings *s, const char *out, int status)
{
  yyjson_doc *doc = yyjson_read(out, strlen(out), 0);
  yyjson_val *root = yyjson_doc_get_root(doc);
  struct mr_str error = mr_json_get_str(root, "error");

  if (s->json)
    printf("%s\n", out);
  else if (s->status || (s->drain && status != EXIT_OK))
    show_status(root);
  else
    printf("generation %lld%s" MR_FMT "\n", number(root, "generation"), error.n ? ": " : "", MR_ARG(error));
  if (error.n && !s->status && status == EXIT_OK) status = EXIT_FAILED;
  yyjson_doc_free(doc);
  return status;
}

static int reload(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_reload, TAKES_CLIENT | TAKES_RELOAD, argc, argv);
  int64_t seconds = DRAIN_S;
  char *out = NULL;

  if (status) return status;
  if (s.rollback && s.status) return mr_main_usage(&mr_cmd_reload, "one of --rollback and --status");
  if (s.npaths > (s.drain ? 1 : 0)) return mr_main_usage(&mr_cmd_reload, "no arguments, but --drain SECONDS");
  if (s.npaths == 1 && (mr_str_int(mr_str_c(s.paths[0]), &seconds) != MR_OK || seconds < 0 || seconds > 86400))
    return mr_main_usage(&mr_cmd_reload, "--drain takes whole seconds, not \"%s\"", s.paths[0]);
  status = ask(&s, s.rollback ? "rollback" : s.status ? "status" : "reload", &out);
  if (status == EXIT_OK && s.drain) status = drain(&s, (int)seconds, &out);
  if (out) status = show(&s, out, status);
  mr_main_free(out);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_reload = {
    "reload", "[--rollback | --status] [--drain [SECONDS]] [OPTIONS]",
    "load the scripts of a running server again",
    "  --rollback    back to the generation before\n"
    "  --status      load nothing: say what runs on which generation, and what the last attempts came to\n"
    "  --drain [S]   wait until only the current generation has calls (default 60 seconds); exit 1 if some "
    "are\n"
    "                left, and say which\n" CLIENT_OPTIONS,
    reload};
