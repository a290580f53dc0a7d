/* repl.c - `moonrig repl`: a Lua prompt with a runtime of its own, or with a server's; lua/moonrig/repl.lua. */
#include "main/client.h"
#include "main/program.h"

static int repl(int argc, char **argv)
{
  struct settings s;
  struct program p = {.name = "moonrig.repl", .nargs = 3, .log = true};
  int status = mr_settings_read(&s, &mr_cmd_repl, TAKES_CLIENT | TAKES_REPL, argc, argv);

  if (status) return status;
  if (s.url) mr_client_url(&s); /* for its key */
  if (s.url && !s.key)
    fprintf(stderr, "moonrig: no key for %s: give one with --key or MOONRIG_API_KEY\n", s.url);
  p.store = s.data_given && !s.url ? s.data : ":memory:";
  p.options = s.url ? "{\"asleep\":true,\"sandbox\":{\"enabled\":false}}" : s.options;
  p.paths = s.paths;
  p.npaths = s.npaths;
  p.offline = s.offline;
  p.args[1] = s.url;
  p.args[2] = s.key;
  status = mr_program_run(&p);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_repl = {
    "repl", "[OPTIONS] [DIR|FILE.lua ...]", "a Lua prompt with the scripts loaded, or with a server (--url)",
    "  --url URL     rig is a client of this server\n"
    "  --key KEY     an API key of that server (MOONRIG_API_KEY, ANTHROPIC_API_KEY)\n"
    "  --data DIR    keep everything there, and have sandboxes (default: in memory)\n"
    "  --offline MODEL.lua  a Lua function that plays every model\n"
    "  --config FILE.lua    settings\n"
    "Expressions print their values. Functions of rig that wait can be called. Ctrl-C stops what runs, Ctrl-D "
    "leaves.\n",
    repl};
