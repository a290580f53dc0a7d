/* chat.c - `moonrig chat`: finds the server, as the other commands do; the talk itself is lua/moonrig/chat.lua. */
#include "main/client.h"
#include "main/program.h"

static int chat(int argc, char **argv)
{
  struct settings s;
  struct program p = {.name = "moonrig.chat",
                      .store = ":memory:",
                      .options = "{\"asleep\":true,\"sandbox\":{\"enabled\":false}}",
                      .nargs = 6};
  int status = mr_settings_read(&s, &mr_cmd_chat, TAKES_CLIENT | TAKES_CHAT, argc, argv);

  if (status) return status;
  if (s.npaths > 1 || (s.npaths == 1 && s.session))
    return mr_main_usage(&mr_cmd_chat, "one agent, or --session");
  p.args[1] = mr_client_url(&s);
  if (!p.args[1]) {
    fprintf(stderr, "moonrig: no server runs on %s; start one with moonrig serve, or give --url\n", s.data);
    return EXIT_UNREACHABLE;
  }
  p.args[2] = s.key;
  p.args[3] = s.npaths ? s.paths[0] : NULL;
  p.args[4] = s.session;
  p.args[5] = s.json ? "json" : NULL;
  status = mr_program_run(&p);
  mr_settings_free(&s);
  return status;
}

const struct command mr_cmd_chat = {
    "chat", "[OPTIONS] [AGENT]", "talk to an agent of a running server",
    "  --session ID  go on with a session\n" CLIENT_OPTIONS
    "AGENT is a name or an id; with one agent it can be left out. When standard input is no terminal each "
    "line\n"
    "is a message, and an answer to a question that comes up (y, n REASON, a). --json prints events, one a "
    "line.\n"
    "Ctrl-C stops the agent's turn, a second one leaves; the session stays. /help lists commands.\n",
    chat};
