/*
 * judge.c - the rules for tools; those for shell commands are in judge_shell.c. See judge.h.
 *
 * - read, glob, grep: allowed below the directories that are the session's (and the memory it was given), by
 *   their text: a relative path, or an absolute one below them, without "..".
 * - write, edit: allowed in /workspace and /mnt/session/outputs, but not where a name begins with a dot
 *   (settings, hooks, keys): those are asked about.
 * - web_search: allowed. web_fetch: asked about, as an address can carry out whatever the model puts into it.
 * - bash: judge_shell.c. Tools of MCP servers, and any that are not known: asked about.
 */
#include "agent/judge_t.h"

static struct mr_judgement say(enum mr_verdict v, const char *why)
{
  return (struct mr_judgement){v,
                               v == MR_JUDGE_ALLOW ? NULL
                               : v == MR_JUDGE_ASK ? "indeterminate"
                                                   : "high_risk",
                               why};
}

static bool below(struct mr_str path, const char *const roots[])
{
  for (int i = 0; roots[i]; i++) {
    struct mr_str root = mr_str_c(roots[i]);
    if (mr_str_starts(path, root) && (path.n == root.n || path.p[root.n] == '/')) return true;
  }
  return false;
}

static bool has_pattern(struct mr_str s)
{
  for (size_t i = 0; i < s.n; i++)
    if (strchr("*?[", s.p[i])) return true;
  return false;
}

/* No component leads up: neither "..", nor, where patterns count, one that could mean it (".*"). */
static bool stays_down(struct mr_str path, bool globs)
{
  while (path.n) {
    struct mr_str part = mr_str_split(&path, '/');
    if (mr_str_is(part, "..") || (globs && mr_str_starts(part, MR_S(".")) && has_pattern(part))) return false;
  }
  return true;
}

static bool may(struct mr_str path, const char *const roots[], bool globs)
{
  if (!path.n || memchr(path.p, 0, path.n) || path.p[0] == '~' || !stays_down(path, globs)) return false;
  return path.p[0] != '/' || below(path, roots);
}

bool mr_judge_path(struct mr_str path, bool globs)
{
  static const char *const readable[] = {"/workspace", "/mnt/session", "/mnt/memory",
                                         "/tmp",       "/dev/null",    NULL};
  return may(path, readable, globs);
}

static bool may_write(struct mr_str path)
{
  static const char *const writable[] = {"/workspace", "/mnt/session/outputs", NULL};

  if (!may(path, writable, false)) return false;
  while (path.n)
    if (mr_str_starts(mr_str_split(&path, '/'), MR_S("."))) return false;
  return true;
}

static struct mr_judgement judge_file(yyjson_val *input, bool write)
{
  struct mr_str path = mr_json_get_str(input, "file_path");

  if (write ? may_write(path) : mr_judge_path(path, false))
    return say(MR_JUDGE_ALLOW, write ? "a file of the session's own" : "reads a file of the session");
  return say(MR_JUDGE_ASK, write ? "writes outside of the working directories, or a hidden file"
                                 : "reads outside of the session's directories");
}

static struct mr_judgement judge_search(yyjson_val *input, bool pattern_is_path)
{
  struct mr_str pattern = mr_json_get_str(input, "pattern");
  yyjson_val *path = mr_json_get(input, "path");

  if (!pattern.n || (pattern_is_path && !mr_judge_path(pattern, true)) ||
      (path && !yyjson_is_null(path) && !mr_judge_path(mr_json_str(path), false)))
    return say(MR_JUDGE_ASK, "searches outside of the session's directories");
  return say(MR_JUDGE_ALLOW, "searches files of the session");
}

static struct mr_judgement judge_bash(yyjson_val *input)
{
  struct mr_str command = mr_json_get_str(input, "command");

  if (command.n) return mr_judge_command(command);
  if (mr_json_get_bool(input, "restart", false)) return say(MR_JUDGE_ALLOW, "starts the session's shell anew");
  return say(MR_JUDGE_ASK, "no command");
}

struct mr_judgement mr_judge(const struct mr_case *c)
{
  if (c->mcp) return say(MR_JUDGE_ASK, "nothing is known of this server's tools");
  if (!yyjson_is_obj(c->input)) return say(MR_JUDGE_ASK, "the input is no object");
  if (mr_str_is(c->tool, "read")) return judge_file(c->input, false);
  if (mr_str_is(c->tool, "write") || mr_str_is(c->tool, "edit")) return judge_file(c->input, true);
  if (mr_str_is(c->tool, "glob")) return judge_search(c->input, true);
  if (mr_str_is(c->tool, "grep")) return judge_search(c->input, false);
  if (mr_str_is(c->tool, "bash")) return judge_bash(c->input);
  if (mr_str_is(c->tool, "web_search")) return say(MR_JUDGE_ALLOW, "searches the web");
  if (mr_str_is(c->tool, "web_fetch")) return say(MR_JUDGE_ASK, "an address can carry data out");
  return say(MR_JUDGE_ASK, "there are no rules for this tool");
}

struct mr_judgement mr_judge_command(struct mr_str command)
{
  switch (mr_judge_shell(command)) {
  case MR_JUDGE_ALLOW: return say(MR_JUDGE_ALLOW, "commands that only read");
  case MR_JUDGE_DENY: return say(MR_JUDGE_DENY, "destroys what cannot be brought back, or breaks out");
  default: return say(MR_JUDGE_ASK, "not known to be harmless");
  }
}

void mr_judgement_write(struct mr_jw *w, const struct mr_judgement *j)
{
  static const char *const names[] = {"allow", "ask", "deny"};

  mr_jw_obj(w);
  mr_jw_kc(w, "type", "auto");
  mr_jw_key(w, "evaluated_permission");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", names[j->verdict]);
  if (j->reason_code) mr_jw_kc(w, "reason_code", j->reason_code);
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
}
