/* chat.c - `moonrig chat` and `moonrig attach`: a person in a new session, or in one that is there; both are
 * lua/moonrig/chat.lua. */
#include "main/client.h"
#include "main/program.h"

static int talk(struct settings *s, const char *agent, const char *session)
{
  struct program p = {.name = "moonrig.chat", .nargs = 7, .args = {[4] = agent, [5] = session, [6] = s->from}};
  int status = mr_program_client(&p, s);

  mr_settings_free(s);
  return status;
}

static int chat(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_chat, TAKES_CLIENT | TAKES_CHAT, argc, argv);

  if (status) return status;
  if (s.npaths > 1 || (s.npaths == 1 && s.session))
    return mr_main_usage(&mr_cmd_chat, "one agent, or --session");
  return talk(&s, s.npaths ? s.paths[0] : NULL, s.session);
}

static int attach(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_attach, TAKES_CLIENT | TAKES_ATTACH, argc, argv);

  if (status) return status;
  if (s.npaths != 1) return mr_main_usage(&mr_cmd_attach, "the id of one session");
  if (s.from && strcmp(s.from, "start") != 0 && strcmp(s.from, "now") != 0)
    return mr_main_usage(&mr_cmd_attach, "--from is start or now, not \"%s\"", s.from);
  return talk(&s, NULL, s.paths[0]);
}

#define HOW                                                                                                    \
  "What is typed is a message; while the agent works it is one, too, which it gets when it can. A call that\n" \
  "needs a yes is asked about: y, n REASON, a (always), w (why). When standard input is no terminal each "     \
  "line\n"                                                                                                     \
  "is a message, or an answer, read when the session rests or asks. --json prints events, one a line.\n"       \
  "Ctrl-C stops the agent's turn, a second one leaves, as do Ctrl-D and /detach; the session stays, and "      \
  "goes\n"                                                                                                     \
  "on. /help lists commands.\n"

const struct command mr_cmd_chat = {"chat", "[OPTIONS] [AGENT]", "talk to an agent of a running server",
                                    "  --session ID  go on with a session, as attach does\n" CLIENT_OPTIONS
                                    "AGENT is a name or an id; with one agent it can be left out.\n" HOW,
                                    chat};

const struct command mr_cmd_attach = {
    "attach", "[OPTIONS] SESSION", "join a session: watch it live, write, approve, interrupt",
    "  --from WHERE  start: show all that happened; now: only what happens from here on (default: the end of\n"
    "                what was said)\n" CLIENT_OPTIONS HOW
    "A server that goes away is waited for; nothing is lost or shown twice. What is waited for: moonrig why.\n",
    attach};
