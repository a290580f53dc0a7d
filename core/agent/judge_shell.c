/*
 * judge_shell.c - what a shell command would do, as far as its text says. It is split into simple commands as
 * the shell would split them; whatever the shell would work out itself (variables, substitutions, functions,
 * groups, redirections to files, here-documents) makes the whole a question. All of what is left must be on a
 * short list of commands that only read, with the options that write or start programs struck out.
 *
 * Refusals are looked for in every simple command, also in one that is a question otherwise, but never in
 * quoted text or here-documents: those are data. The list does not know what a person allowed before (an
 * alias, a function, another PATH): who allows that has allowed what it does.
 */
#include "agent/judge_t.h"

enum { TEXT_MAX = 4096, WORDS_MAX = 128, DEPTH_MAX = 3 };

struct scan {
  const char *p, *end;
  bool question; /* something in it is not understood */
  bool refuse;
  int commands;
  int nwords;
  struct mr_str word[WORDS_MAX];
  bool globs[WORDS_MAX]; /* the shell makes file names of it */
  char text[TEXT_MAX + WORDS_MAX];
  size_t used;
  int depth;
};

static enum mr_verdict judge(struct mr_str command, int depth);

/* ---- commands that only read ---- */

struct reader {
  const char *name;
  const char *shorts;   /* letters of short options that are not allowed */
  const char *longs[5]; /* beginnings of words that are not allowed */
  int operands;         /* at most so many words that are no options; -1: any */
};
/* Not among them: printf (%n assigns, what it names may hold a substitution), test, git, sed, awk, xargs. */
static const struct reader readers[] = {
    {"ls", "", {0}, -1},
    {"cat", "", {0}, -1},
    {"head", "", {0}, -1},
    {"tail", "", {0}, -1},
    {"wc", "", {0}, -1},
    {"pwd", "", {0}, -1},
    {"echo", "", {0}, -1},
    {"stat", "", {0}, -1},
    {"file", "CzZ", {"--c", "--u"}, -1},
    {"du", "", {0}, -1},
    {"df", "", {0}, -1},
    {"ps", "", {0}, -1},
    {"id", "", {0}, -1},
    {"whoami", "", {0}, -1},
    {"uname", "", {0}, -1},
    {"nproc", "", {0}, -1},
    {"basename", "", {0}, -1},
    {"dirname", "", {0}, -1},
    {"realpath", "", {0}, -1},
    {"readlink", "", {0}, -1},
    {"which", "", {0}, -1},
    {"true", "", {0}, -1},
    {"false", "", {0}, -1},
    {"sleep", "", {0}, -1},
    {"seq", "", {0}, -1},
    {"cut", "", {0}, -1},
    {"tr", "", {0}, -1},
    {"nl", "", {0}, -1},
    {"tac", "", {0}, -1},
    {"rev", "", {0}, -1},
    {"paste", "", {0}, -1},
    {"join", "", {0}, -1},
    {"comm", "", {0}, -1},
    {"cmp", "", {0}, -1},
    {"diff", "l", {"--pa"}, -1},
    {"od", "", {0}, -1},
    {"strings", "", {0}, -1},
    {"base64", "", {0}, -1},
    {"md5sum", "", {0}, -1},
    {"sha1sum", "", {0}, -1},
    {"sha256sum", "", {0}, -1},
    {"cksum", "", {0}, -1},
    {"uniq", "", {0}, 1},
    {"sort", "o", {"--o", "--co"}, -1},
    {"shuf", "o", {"--o"}, -1},
    {"tree", "oR", {0}, -1},
    {"grep", "", {0}, -1},
    {"egrep", "", {0}, -1},
    {"fgrep", "", {0}, -1},
    {"rg", "", {"--pre", "--hostname", "--search-zip"}, -1},
    {"jq", "", {0}, -1},
    {"find", "", {"-exec", "-ok", "-delete", "-fprint", "-fls"}, -1},
    {"date", "s", {"--s"}, -1},
    {"cd", "", {0}, 1},
};

static const struct reader *reader_of(struct mr_str name)
{
  for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
    if (mr_str_is(name, readers[i].name)) return &readers[i];
  return NULL;
}

static bool option_fits(const struct reader *r, struct mr_str word, bool globs)
{
  const char *slash = memchr(word.p, '/', word.n);

  for (int i = 0; i < 5 && r->longs[i]; i++)
    if (mr_str_starts(word, mr_str_c(r->longs[i]))) return false;
  if (!mr_str_starts(word, MR_S("--")))
    for (size_t i = 1; i < word.n; i++)
      if (strchr(r->shorts, word.p[i])) return false;
  return !slash || mr_judge_path(mr_str_n(slash, (size_t)(word.p + word.n - slash)), globs);
}

/* Names that a pattern becomes may begin with "-", and are as many as there are. */
static bool may_become_option(const struct reader *r, struct mr_str word)
{
  return r->operands >= 0 || ((r->shorts[0] || r->longs[0]) && strchr("-*?[", word.p[0]));
}

/* Words behind "--" count as options, too: it may itself be what an option before it takes. */
static bool only_reads(const struct scan *s)
{
  const struct reader *r = reader_of(s->word[0]);
  int operands = 0;

  if (!r) return false;
  for (int i = 1; i < s->nwords; i++) {
    struct mr_str word = s->word[i];
    if (!word.n) continue;
    if (s->globs[i] && may_become_option(r, word)) return false;
    if (word.p[0] == '-' && word.n > 1) {
      if (!option_fits(r, word, s->globs[i])) return false;
      continue;
    }
    operands++;
    if (!mr_judge_path(word, s->globs[i]) || (mr_str_is(mr_str_c(r->name), "date") && word.p[0] != '+'))
      return false;
  }
  return r->operands < 0 || operands <= r->operands;
}

/* ---- what is refused ---- */

static bool has_flag(const struct scan *s, int from, const char *letters, const char *longer)
{
  for (int i = from; i < s->nwords; i++) {
    struct mr_str w = s->word[i];
    if (longer && mr_str_is(w, longer)) return true;
    if (w.n < 2 || w.p[0] != '-' || w.p[1] == '-') continue;
    for (size_t k = 1; k < w.n; k++)
      if (strchr(letters, w.p[k])) return true;
  }
  return false;
}

/* A directory that holds everything: the root, one right below it, the home, what the session was given. Not
 * the working directory or the scratch one: to empty those may be what somebody wants. */
static bool is_everything(struct mr_str path)
{
  static const char *const whole[] = {"~", "$HOME", "/mnt/session", "/mnt/memory", NULL};
  bool absolute = path.n && path.p[0] == '/';

  while (path.n > 1 && strchr("/*.", path.p[path.n - 1]) && memchr(path.p, '/', path.n - 1))
    path.n--;
  while (path.n && path.p[path.n - 1] == '/')
    path.n--;
  if (absolute && (!path.n || !memchr(path.p + 1, '/', path.n - 1)))
    return !mr_str_is(path, "/tmp") && !mr_str_is(path, "/workspace");
  for (int i = 0; whole[i]; i++)
    if (mr_str_is(path, whole[i])) return true;
  return false;
}

static bool names_everything(const struct scan *s, int from)
{
  for (int i = from; i < s->nwords; i++)
    if (is_everything(s->word[i])) return true;
  return false;
}

static bool is_disk(struct mr_str path)
{
  static const char *const disks[] = {"/dev/sd",     "/dev/hd",      "/dev/vd",  "/dev/xvd", "/dev/nvme",
                                      "/dev/mmcblk", "/dev/mapper/", "/dev/dm-", "/dev/mem", "/dev/kmem",
                                      NULL};
  for (int i = 0; disks[i]; i++)
    if (mr_str_starts(path, mr_str_c(disks[i]))) return true;
  return false;
}

static bool any_disk(const struct scan *s, int from, struct mr_str prefix)
{
  for (int i = from; i < s->nwords; i++) {
    struct mr_str w = s->word[i];
    if (mr_str_starts(w, prefix) && is_disk(mr_str_n(w.p + prefix.n, w.n - prefix.n))) return true;
  }
  return false;
}

static bool find_destroys(const struct scan *s, int at)
{
  bool acts = false;
  for (int i = at; i < s->nwords; i++)
    acts = acts || mr_str_is(s->word[i], "-delete") || mr_str_is(s->word[i], "rm");
  return acts && at + 1 < s->nwords && is_everything(s->word[at + 1]);
}

/* The place of the command's own name: behind assignments, and what starts another command. */
static int name_at(const struct scan *s)
{
  static const char *const before[] = {"sudo", "command", "exec", "nohup", "time",  "env", "builtin",
                                       "then", "do",      "else", "if",    "while", "!",   NULL};
  int i = 0;

  for (; i < s->nwords; i++) {
    bool skip = memchr(s->word[i].p, '=', s->word[i].n) || (i && mr_str_starts(s->word[i], MR_S("-")));
    for (int k = 0; before[k]; k++)
      skip = skip || mr_str_is(s->word[i], before[k]);
    if (!skip) break;
  }
  return i;
}

static struct mr_str base_name(struct mr_str path)
{
  for (size_t i = path.n; i > 0; i--)
    if (path.p[i - 1] == '/') return mr_str_n(path.p + i, path.n - i);
  return path;
}

static bool is_shell(struct mr_str name)
{
  return mr_str_is(name, "sh") || mr_str_is(name, "bash") || mr_str_is(name, "dash") || mr_str_is(name, "zsh");
}

static bool destroys(const struct scan *s)
{
  static const char *const always[] = {"shutdown", "reboot",  "halt",   "poweroff", "insmod",
                                       "modprobe", "nsenter", "wipefs", "fdisk",    "sfdisk",
                                       "parted",   "mkswap",  "kexec",  NULL};
  int at = name_at(s);
  struct mr_str name;

  if (at >= s->nwords) return false;
  name = base_name(s->word[at]);
  for (int i = 0; always[i]; i++)
    if (mr_str_is(name, always[i])) return true;
  if (mr_str_is(name, "mkfs") || mr_str_starts(name, MR_S("mkfs."))) return true;
  if (mr_str_is(name, "rm"))
    return has_flag(s, at + 1, "", "--no-preserve-root") ||
           (has_flag(s, at + 1, "rR", "--recursive") && names_everything(s, at + 1));
  if (mr_str_is(name, "chmod") || mr_str_is(name, "chown") || mr_str_is(name, "chgrp"))
    return has_flag(s, at + 1, "R", "--recursive") && names_everything(s, at + 1);
  if (mr_str_is(name, "dd")) return any_disk(s, at + 1, MR_S("of="));
  if (mr_str_is(name, "shred") || mr_str_is(name, "tee")) return any_disk(s, at + 1, MR_S(""));
  if (mr_str_is(name, "kill")) return s->nwords > at + 1 && mr_str_is(s->word[s->nwords - 1], "-1");
  if (mr_str_is(name, "find")) return find_destroys(s, at);
  for (int i = at + 1; is_shell(name) && i + 1 < s->nwords; i++)
    if (mr_str_is(s->word[i], "-c")) return judge(s->word[i + 1], s->depth + 1) == MR_JUDGE_DENY;
  return false;
}

/* ---- the words ---- */

static void command_over(struct scan *s)
{
  if (s->nwords) {
    s->commands++;
    s->refuse = s->refuse || destroys(s);
    s->question = s->question || !only_reads(s);
  }
  s->nwords = 0;
  s->used = 0;
}

static void word_char(struct scan *s, char c)
{
  if (s->used < sizeof s->text) s->text[s->used++] = c;
}

/* In double quotes the shell still works things out; what it would is kept as text. */
static void double_quoted(struct scan *s)
{
  for (; s->p < s->end && *s->p != '"'; s->p++) {
    if (*s->p == '$' || *s->p == '`') s->question = true;
    if (*s->p == '\\' && s->p + 1 < s->end && strchr("$`\"\\\n", s->p[1]) && *++s->p == '\n')
      continue; /* the lines are joined */
    word_char(s, *s->p);
  }
  if (s->p < s->end)
    s->p++;
  else
    s->question = true;
}

static void single_quoted(struct scan *s)
{
  while (s->p < s->end && *s->p != '\'')
    word_char(s, *s->p++);
  if (s->p < s->end)
    s->p++;
  else
    s->question = true;
}

static bool ends_word(char c)
{
  return strchr(" \t\n;|&<>(){}`", c) != NULL; /* NUL too */
}

/* One word into w; false: there is none here. */
static bool read_word(struct scan *s, struct mr_str *w, bool *globs)
{
  size_t from = s->used;
  const char *began = s->p;

  while (s->p < s->end && !ends_word(*s->p)) {
    char c = *s->p++;
    if (c == '\'') {
      single_quoted(s);
    } else if (c == '"') {
      double_quoted(s);
    } else if (c == '\\') {
      if (s->p == s->end || *s->p == '\n') s->question = true;
      if (s->p < s->end) word_char(s, *s->p++);
    } else {
      if (c == '$') s->question = true;
      if (strchr("*?[", c)) *globs = true;
      word_char(s, c);
    }
  }
  *w = mr_str_n(s->text + from, s->used - from);
  return s->p > began;
}

static void add_word(struct scan *s)
{
  struct mr_str w;
  bool globs = false;

  if (!read_word(s, &w, &globs)) return;
  /* the 2 of 2> is no word */
  if (w.n == 1 && w.p[0] >= '0' && w.p[0] <= '9' && s->p < s->end && (*s->p == '>' || *s->p == '<')) return;
  if (s->nwords == WORDS_MAX) {
    s->question = true;
    return;
  }
  s->globs[s->nwords] = globs;
  s->word[s->nwords++] = w;
}

/* At < or >: only what goes nowhere, or joins the outputs, is understood. */
static void redirection(struct scan *s)
{
  bool in = *s->p == '<', joins, globs;
  struct mr_str to;

  if (in && s->end - s->p > 1 && s->p[1] == '<') { /* a here-document: the rest may be data */
    s->question = true;
    s->p = s->end;
    return;
  }
  s->p++;
  if (s->p < s->end && (*s->p == '>' || *s->p == '|')) s->p++;
  joins = s->p < s->end && *s->p == '&';
  s->p += joins;
  while (s->p < s->end && (*s->p == ' ' || *s->p == '\t'))
    s->p++;
  if (!read_word(s, &to, &globs)) to = mr_str_n("", 0);
  if (!in && is_disk(to)) s->refuse = true;
  if (mr_str_is(to, "/dev/null") || (joins && (mr_str_is(to, "1") || mr_str_is(to, "2")))) return;
  s->question = true;
}

static void separator(struct scan *s)
{
  char c = *s->p, next = s->end - s->p > 1 ? s->p[1] : '\0';

  if (c == '&' && next == '>') { /* both outputs */
    s->p++;
    redirection(s);
    return;
  }
  command_over(s);
  if (c == '&' && next != '&') s->question = true;
  if (c == '|' && next == '&') s->question = true;
  if (strchr("(){}`", c)) s->question = true; /* NUL too */
  s->p += (c == '&' || c == '|') && next == c ? 2 : 1;
}

static enum mr_verdict judge(struct mr_str command, int depth)
{
  struct scan s;

  if (command.n > TEXT_MAX || depth > DEPTH_MAX) return MR_JUDGE_ASK;
  if (command.n && memchr(command.p, 0, command.n)) return MR_JUDGE_ASK; /* shells leave it out, or end there */
  memset(&s, 0, sizeof s);
  s.p = command.p;
  s.end = command.p + command.n;
  s.depth = depth;
  while (s.p < s.end) {
    char c = *s.p;
    if (c == ' ' || c == '\t')
      s.p++;
    else if (c == '#')
      while (s.p < s.end && *s.p != '\n')
        s.p++;
    else if (c == '<' || c == '>')
      redirection(&s);
    else if (ends_word(c))
      separator(&s);
    else
      add_word(&s);
  }
  command_over(&s);
  if (s.refuse) return MR_JUDGE_DENY;
  return s.question || !s.commands ? MR_JUDGE_ASK : MR_JUDGE_ALLOW;
}

enum mr_verdict mr_judge_shell(struct mr_str command)
{
  return judge(command, 0);
}
