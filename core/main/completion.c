/* completion.c - `moonrig completion SHELL`: a script that completes commands, their options, and operations after `api`.
 * The script asks `moonrig completion words [COMMAND]` for the words, so it fits the program that is installed. */
#include "main/settings.h"
#include "ops/ops.h"

static const char bash[] =
    "_moonrig() {\n"
    "  local cur=${COMP_WORDS[COMP_CWORD]} of=${COMP_WORDS[1]}\n"
    "  [ \"$COMP_CWORD\" -gt 1 ] || of=\n"
    "  COMPREPLY=($(compgen -W \"$(moonrig completion words $of 2>/dev/null)\" -- \"$cur\"))\n"
    "}\n"
    "complete -o default -F _moonrig moonrig\n";
static const char zsh[] = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n";
static const char fish[] = "complete -c moonrig -n __fish_use_subcommand -f -a '(moonrig completion words)'\n"
                           "complete -c moonrig -n 'not __fish_use_subcommand' -a '(moonrig completion words "
                           "(commandline -opc)[2])'\n";

/* The options are the words of the help that begin with dashes at the begin of a line. */
static void print_options(const char *help)
{
  struct mr_str rest = mr_str_c(help);

  while (rest.p) {
    struct mr_str line = mr_str_split(&rest, '\n');
    size_t i = 0, end;
    while (i < line.n && line.p[i] == ' ')
      i++;
    if (i != 2 || line.p[i] != '-') continue;
    for (; i < line.n && line.p[i] == '-'; i = end + 1) { /* "-f, --follow" */
      for (end = i; end < line.n && line.p[end] != ' ' && line.p[end] != ',';)
        end++;
      printf("%.*s\n", (int)(end - i), line.p + i);
      if (end >= line.n || line.p[end] != ',') break;
      end++;
    }
  }
}

static int words(const char *of)
{
  const struct command *c;
  const struct mr_opdef *op;

  for (int i = 0; (c = mr_main_command(i)); i++) {
    if (!of) printf("%s\n", c->name);
    if (of && strcmp(of, c->name) == 0) print_options(c->help);
  }
  if (!of) printf("version\nhelp\n");
  for (int i = 0; of && strcmp(of, "api") == 0 && (op = mr_op_at(i)); i++)
    printf("%s\n", op->name);
  for (int i = 0; of && strcmp(of, "help") == 0 && (c = mr_main_command(i)); i++)
    printf("%s\n", c->name);
  return EXIT_OK;
}

static int completion(int argc, char **argv)
{
  struct settings s;
  const char *what;
  int status = mr_settings_read(&s, &mr_cmd_completion, 0, argc, argv);

  if (status) return status;
  what = s.npaths ? s.paths[0] : "";
  if (strcmp(what, "words") == 0 && s.npaths <= 2) return words(s.npaths == 2 ? s.paths[1] : NULL);
  if (s.npaths != 1) return mr_main_usage(&mr_cmd_completion, "bash, zsh or fish");
  if (strcmp(what, "zsh") == 0) printf("%s", zsh);
  if (strcmp(what, "bash") == 0 || strcmp(what, "zsh") == 0)
    printf("%s", bash);
  else if (strcmp(what, "fish") == 0)
    printf("%s", fish);
  else
    return mr_main_usage(&mr_cmd_completion, "bash, zsh or fish, not \"%s\"", what);
  return EXIT_OK;
}

const struct command mr_cmd_completion = {"completion",
                                          "bash | zsh | fish",
                                          "a script that completes commands, options and operations",
                                          "bash, zsh:  eval \"$(moonrig completion bash)\"\n"
                                          "fish:       moonrig completion fish | source\n",
                                          completion,
                                          NULL};
