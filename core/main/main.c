/*
 * main.c - the moonrig program: finds the command and runs it. Help is written from the same table.
 */
#include "main/main_t.h"

#include <malloc.h>
#include <stdarg.h>

static const struct command *const commands[] = {
    &mr_cmd_serve,  &mr_cmd_worker, &mr_cmd_run,    &mr_cmd_new,    &mr_cmd_test,      &mr_cmd_lint,
    &mr_cmd_chat,   &mr_cmd_attach, &mr_cmd_ps,     &mr_cmd_why,    &mr_cmd_logs,      &mr_cmd_repl,
    &mr_cmd_key,    &mr_cmd_env,    &mr_cmd_reload, &mr_cmd_fork,   &mr_cmd_export,    &mr_cmd_import,
    &mr_cmd_record, &mr_cmd_api,    &mr_cmd_check,  &mr_cmd_doctor, &mr_cmd_completion};
enum { COMMANDS = sizeof commands / sizeof *commands };

const struct command *mr_main_command(int i)
{
  return i >= 0 && i < COMMANDS ? commands[i] : NULL;
}

int mr_main_fail(int status, const struct mr_err *err)
{
  fprintf(stderr, "moonrig: %s\n", err->message[0] ? err->message : mr_strerror(err->code));
  return status;
}

int mr_main_usage(const struct command *c, const char *fmt, ...)
{
  va_list ap;

  va_start(ap, fmt);
  fprintf(stderr, "moonrig %s: ", c->name);
  vfprintf(stderr, fmt, ap);
  fprintf(stderr, "\nusage: moonrig %s %s\nmoonrig %s --help says more\n", c->name, c->args, c->name);
  va_end(ap);
  return EXIT_USAGE;
}

char *mr_main_copy(struct mr_str s)
{
  struct mr_mem m;
  mr_mem_init(&m, NULL, NULL);
  return mr_mem_strdup(&m, s);
}

void mr_main_free(char *p)
{
  struct mr_mem m;
  mr_mem_init(&m, NULL, NULL);
  mr_mem_free(&m, p);
}

char *mr_main_json(yyjson_mut_doc *d)
{
  struct mr_mem m;
  yyjson_alc alc;

  mr_mem_init(&m, NULL, NULL);
  mr_json_alc(&m, &alc);
  return yyjson_mut_write_opts(d, 0, &alc, NULL, NULL);
}

static int help(void)
{
  printf("moonrig " MR_VERSION ": an agent runtime\n\nusage: moonrig COMMAND [OPTIONS] [ARGS]\n\n");
  for (int i = 0; i < COMMANDS; i++)
    printf("  %-12s %s\n", commands[i]->name, commands[i]->what);
  printf("  %-12s %s\n\n", "version", "the version");
  printf("moonrig COMMAND --help lists a command's options.\n"
         "Environment: MOONRIG_LISTEN, MOONRIG_DATA, MOONRIG_API_KEY (a key that clients may use),\n"
         "  MOONRIG_ANTHROPIC_API_KEY or ANTHROPIC_API_KEY, MOONRIG_ANTHROPIC_BASE_URL,\n"
         "  MOONRIG_OPENAI_API_KEY or OPENAI_API_KEY, MOONRIG_OPENAI_BASE_URL (model providers);\n"
         "  MOONRIG_URL or ANTHROPIC_BASE_URL (the server that commands speak to);\n"
         "  MOONRIG_ENVIRONMENT_KEY or ANTHROPIC_ENVIRONMENT_KEY (the queue that a worker serves);\n"
         "  MOONRIG_ALLOW_PRIVATE_HOSTS (private hosts and address ranges that sandboxes and web tools may "
         "reach)\n"
         "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not reachable or not possible here\n");
  return EXIT_OK;
}

static int help_of(const struct command *c, int argc, char **argv)
{
  int status = c->more ? c->more(argc, argv) : -1;

  if (status >= 0) return status;
  printf("usage: moonrig %s %s\n\n%s\n\n%s", c->name, c->args, c->what, c->help);
  return EXIT_OK;
}

/* What follows the script of `run` is the script's. */
static bool asks_help(const struct command *c, int argc, char **argv)
{
  for (int i = 1; i < argc && strcmp(argv[i], "--") != 0 && (c != &mr_cmd_run || argv[i][0] == '-'); i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
  return false;
}

/* Requests of long sessions are sent through large buffers that live as long as a request. Up to a bound their memory
 * stays with us: to give it back to the system and fault it in again costs more than to fill it. */
static void keep_memory(void)
{
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 8 << 20);
#endif
}

int main(int argc, char **argv)
{
  bool asked = argc > 2 && strcmp(argv[1], "help") == 0; /* help COMMAND */

  keep_memory();
  if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
      (argc == 2 && strcmp(argv[1], "help") == 0)) {
    help();
    return argc < 2 ? EXIT_USAGE : EXIT_OK;
  }
  if (strcmp(argv[1], "version") == 0 || strcmp(argv[1], "--version") == 0) {
    printf("moonrig " MR_VERSION "\n");
    return EXIT_OK;
  }
  for (int i = 0; i < COMMANDS; i++) {
    const struct command *c = commands[i];
    if (strcmp(argv[asked ? 2 : 1], c->name) != 0) continue;
    if (asked || asks_help(c, argc - 1, argv + 1)) return help_of(c, argc - 1 - asked, argv + 1 + asked);
    return c->run(argc - 1, argv + 1);
  }
  fprintf(stderr, "moonrig: no such command: %s (moonrig --help lists them)\n", argv[asked ? 2 : 1]);
  return EXIT_USAGE;
}
