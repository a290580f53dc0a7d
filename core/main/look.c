/* look.c - `moonrig ps`, `why` and `logs`: what the sessions of a server do. All of it is lua/moonrig/look.lua; here are
 * their command lines. */
#include "main/client.h"
#include "main/program.h"

static int run(struct settings *s, struct program *p)
{
  int status;

  p->name = "moonrig.look";
  status = mr_program_client(p, s);
  mr_settings_free(s);
  return status;
}

static int ps(int argc, char **argv)
{
  struct settings s;
  char limit[16];
  int status = mr_settings_read(&s, &mr_cmd_ps, TAKES_CLIENT | TAKES_PS, argc, argv);

  if (status) return status;
  if (s.npaths) return mr_main_usage(&mr_cmd_ps, "no arguments");
  if (s.limit < 1 || s.limit > 1000) return mr_main_usage(&mr_cmd_ps, "--limit is 1 to 1000");
  snprintf(limit, sizeof limit, "%d", s.limit);
  return run(&s, &(struct program){.nargs = 9,
                                   .args = {[4] = "ps",
                                            [5] = s.all ? "all" : NULL,
                                            [6] = limit,
                                            [7] = s.watch ? "watch" : NULL,
                                            [8] = s.page}});
}

static int why(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_why, TAKES_CLIENT, argc, argv);

  if (status) return status;
  if (s.npaths != 1) return mr_main_usage(&mr_cmd_why, "the id of one session");
  return run(&s, &(struct program){.nargs = 6, .args = {[4] = "why", [5] = s.paths[0]}});
}

static int logs(int argc, char **argv)
{
  struct settings s;
  int status = mr_settings_read(&s, &mr_cmd_logs, TAKES_CLIENT | TAKES_LOGS, argc, argv);

  if (status) return status;
  if (s.npaths != 1) return mr_main_usage(&mr_cmd_logs, "the id of one session");
  return run(&s, &(struct program){.nargs = 7,
                                   .args = {[4] = "logs", [5] = s.paths[0], [6] = s.follow ? "follow" : NULL}});
}

const struct command mr_cmd_ps = {"ps", "[OPTIONS]",
                                  "the sessions of a server: state, agent, age, cost, and what each waits for",
                                  "  --all         archived ones too\n"
                                  "  --watch       look again every two seconds, until Ctrl-C\n"
                                  "  --limit N     sessions a page, newest first (default 20)\n"
                                  "  --page CURSOR the next page, as the last line of one says\n" CLIENT_OPTIONS
                                  "USED is the cost by list price, or tokens in/out where there is no price. "
                                  "--json: {\"data\":[{\"session\",\n"
                                  "\"why\"}],\"next_page\"}.\n",
                                  ps};

const struct command mr_cmd_why = {
    "why", "[OPTIONS] SESSION", "what a session waits for, in one sentence",
    CLIENT_OPTIONS "Over HTTP: GET /moonrig/v1/sessions/SESSION/why; in Lua: rig.sessions.why(id).\n", why};

const struct command mr_cmd_logs = {
    "logs", "[OPTIONS] SESSION", "a session's events, one a line",
    "  -f, --follow  go on with what happens from here on, until the session ends, or Ctrl-C; a server that "
    "goes\n"
    "                away is waited for, and no event is lost or printed twice\n" CLIENT_OPTIONS
    "Lines are when, type, what about; with --json each is the event as the API has it.\n",
    logs};
