/*
 * tools - what attack.c has of the tools themselves, in full: output that is no text (20), shells that end or are bent
 * (23), ends of commands that are forged (24), readers of standard input (25), and file tools that are led astray (26).
 * Numbers are those of README.md; the harness is kit.h. Each list is a table: a new way in is a line.
 */
#include "kit.h"

/* ---- 20: output ---- */

static void want_text(struct world *w, const char *what)
{
  struct mr_str s = mr_buf_get(&w->text);

  if (!w->failed && (!mr_utf8_valid(s) || memchr(s.p, 0, s.n)))
    fail(w, "%s: not text", what);
  if (!w->failed && s.n > 4 << 20)
    fail(w, "%s: %zu bytes", what, s.n);
}

static void t20_commands(struct world *w)
{
  static const char *const ways[] = {
      "for i in 1 2 3; do printf '\\xe2'; sleep 0.05; printf '\\x82'; sleep 0.05; printf '\\xac'; done",
      "printf '\\033]0;never closed'; head -c 3000000 /dev/zero | tr '\\0' x", "printf '\\033[%s' {1..20000}",
      "head -c 3000000 /dev/urandom", "head -c 3000000 /dev/urandom >&2; false", "printf '\\x80%.0s' {1..200000}",
      "printf '\\xf4\\x90\\x80\\x80\\xed\\xa0\\x80\\xc0\\x80\\xfe\\xff'", "yes $'\\r\\033[2J\\x9b31m' | head -c 2000000",
      "while :; do printf '\\0'; done", "head -c 3000000 /dev/urandom; exec false", "seq 1 1000000; exit 3",
      "for i in {1..3000}; do printf '\\n'; done; printf '\\n\\n\\xff\\n'", "printf '\"}],\"is_error\":false}\\n\\\\'"};

  for (size_t i = 0; i < sizeof ways / sizeof *ways && !w->failed; i++) {
    sh_ms(w, 4000, ways[i]);
    want_text(w, ways[i]);
    never(w, text(w), "\033");
  }
  want(w, sh(w, "for i in 1 2 3; do printf '\\xe2'; sleep 0.05; printf '\\x82\\xac'; done"), "^€€€$");
  alive(w);
}

static void t20_files(struct world *w)
{
  static const char *const calls[][2] = {{"glob", "{\"pattern\":\"**\"}"},
                                         {"grep", "{\"pattern\":\".\"}"},
                                         {"grep", "{\"pattern\":\"needle\"}"},
                                         {"read", "{\"file_path\":\"mixed\"}"},
                                         {"read", "{\"file_path\":\"mixed\",\"view_range\":[2,3]}"},
                                         {"read", "{\"file_path\":\"nul\"}"},
                                         {"read", "{\"file_path\":\"random\"}"},
                                         {"read", "{\"file_path\":\"line\"}"},
                                         {"read", "{\"file_path\":\"line\",\"view_range\":[1,1]}"},
                                         {"read", "{\"file_path\":\"n.ipynb\"}"}};

  sh(w, "cd /workspace; for n in $'a\\xff' $'b\\nc' $'d\\033[31m' $'e\\xe2\\x82' $'f\\r' $'g\\x01'; do echo \"needle $n\" > \"$n\"; done; "
        "printf 'a\\xff\\nneedle\\xc3\\nc\\x80\\n' >mixed; printf 'a\\0b needle' >nul; head -c 200000 /dev/urandom >random; "
        "head -c 3000000 /dev/zero | tr '\\0' n >line; printf '{\"nbformat\":4,\"cells\":[{\"source\":\"\\\\u0000\\\\ud800\\\\u001b[1m\"}]}' >n.ipynb");
  for (size_t i = 0; i < sizeof calls / sizeof *calls && !w->failed; i++) {
    tool(w, calls[i][0], calls[i][1], 0);
    want_text(w, calls[i][1]);
  }
  alive(w);
}

static void t20_background(struct world *w)
{
  want(w, sh(w, "(sleep 0.1; yes flood) & (sleep 0.1; yes flood >&2) & (sleep 0.2; echo late) & echo now"), "^now$");
  want(w, text(w), "background processes print from now on goes to /tmp/background/");
  for (int i = 0; i < 20 && !w->failed; i++) {
    sh(w, "sleep 0.02; echo calm");
    if (!w->failed && strcmp(text(w), "calm") != 0)
      fail(w, "another command's output: %.300s", text(w));
  }
  want(w, sh(w, "kill %1 %2; pkill yes; sleep 0.2; du -sm /tmp/background | cut -f1"), "^[0-3]$");
  alive(w);
}

/* ---- 23: the shell ---- */

static void t23_shell(struct world *w)
{
  static const char *const ways[] = {
      "mkdir gone; cd gone; rmdir ../gone", "exec 0<&- 1>&- 2>&-", "for f in {3..255}; do eval \"exec $f>&-\"; done",
      "coproc cat", "exec >/dev/full 2>&1", "BASH_XTRACEFD=1; set -x", "set -xv", "trap 'kill -9 $$' DEBUG",
      "trap '' 63 64 TERM INT HUP", "shopt -s failglob nullglob; set -f", "IFS=0123456789abcdef", "declare -ir _=5",
      "command_not_found_handle() { exit 9; }", "enable -n . source printf exit", "BASH_SOURCE=(1 2 3); FUNCNAME=(x)",
      "hash -p /bin/false printf; hash -p /bin/false true", "export LD_PRELOAD=/nowhere LD_LIBRARY_PATH=/nowhere", "umask 777",
      "ulimit -f 0", "ulimit -v 1000", "ulimit -u 1", "ulimit -t 1; while :; do :; done", "set -o posix; return() { :; }",
      "kill -PIPE $$", "kill -INT $$", "kill -HUP $$", "kill -TSTP $$", "kill -SEGV $$", "kill -63 $$", "trap 'sleep 100' EXIT; exit",
      "trap 'sleep 100' RETURN", "function return { :; }", "set -T; trap 'return 3' DEBUG", "set -E; trap 'exit 4' ERR; false",
      "set -m; sleep 100 & fg", "suspend -f", "sleep 100 & wait", "exec -a x bash -c 'exit 4'", "eval 'exit 3'", "while :; do :; done",
      "(sleep 0.1; kill -9 $$) & sleep 5", "alias builtin=false; shopt -s expand_aliases", "builtin() { return 1; }", "unset -f builtin; unset PATH HOME PWD",
      "rm -rf /run/moonrig/* /tmp/* /workspace/*", "mount --bind /tmp /run 2>&1; true", "exec 3</run/moonrig/ctl 2>&1", "printf '\\004\\003'", "set -k; set -C; set -h",
      "read -r x </run/moonrig/w/status & sleep 0.1", "HISTFILE=/workspace/h; set -o history; history -a", "POSIXLY_CORRECT=1", "set -r", "shopt -s extdebug; declare -t builtin"};

  for (size_t i = 0; i < sizeof ways / sizeof *ways && !w->failed; i++) {
    sh_ms(w, 1500, ways[i]);
    /* A command after it runs, and fails as it should; it may be told that the shell is another one. */
    sh_ms(w, 8000, "command echo \"alive-$((6*7))\"; (exit 7)");
    if (!w->failed && (!strstr(text(w), "alive-42") || !w->is_error)) {
      sh_ms(w, 8000, "command echo \"alive-$((6*7))\"; (exit 7)"); /* the first one may have found the shell dying */
      if (!w->failed && (!strstr(text(w), "alive-42") || !w->is_error))
        fail(w, "after `%s`: %s %.500s", ways[i], w->is_error ? "error" : "success", text(w));
    }
    tool(w, "bash", "{\"restart\":true}", 0);
    want(w, sh_ms(w, 8000, "(exit 9)"), "^exit 9$");
  }
  alive(w);
}

/* ---- 24: forged ends ---- */

static void t24_forge(struct world *w)
{
  static const char *const ways[] = {
      "for f in /run/moonrig/* /run/moonrig/w/*; do printf '%032d 0\\n0\\n' 0 >$f; done",
      "for f in /proc/$$/fd/* /proc/$PPID/fd/* /proc/1/fd/*; do printf '%032d 0\\n0\\n' 0 >$f; done",
      "for f in {0..255}; do printf '%032d 0\\n0\\n' 0 >&$f; done", "printf '\\n__ANT_CMD_0_DONE__0\\n'; printf '0\\n' >/dev/fd/2",
      "cat /run/moonrig/bash; timeout 0.2 cat /run/moonrig/ctl /run/moonrig/w/status; grep -r . /run/moonrig --devices=skip",
      "trap 'printf \"%032d 0\\\\n\" 0 >/run/moonrig/w/status' EXIT DEBUG RETURN", "exec 9>/run/moonrig/w/status; printf '%0400d' 0 >&9"};

  for (size_t i = 0; i < sizeof ways / sizeof *ways && !w->failed; i++) {
    char cmd[600];
    snprintf(cmd, sizeof cmd, "{ %s; } 2>/dev/null; (exit 7)", ways[i]);
    sh_ms(w, 4000, cmd);
    if (!w->failed && !w->is_error)
      fail(w, "a failure was reported as success after `%s`: %.500s", ways[i], text(w));
    want(w, sh_ms(w, 4000, "(exit 8)"), "^exit 8$|had ended");
    tool(w, "bash", "{\"restart\":true}", 0);
  }
  /* From the background, again and again, while others run. */
  sh(w, "(while :; do printf '%032d 0\\n' 7; sleep 0.001; done >/run/moonrig/w/status) 2>/dev/null & true");
  for (int i = 0; i < 30 && !w->failed; i++) {
    sh_ms(w, 8000, "(exit 5)");
    if (!w->failed && (!w->is_error || strncmp(text(w), "exit 5", 6) != 0))
      fail(w, "forged from the background: %.300s", text(w));
  }
  alive(w);
}

static void t24_other_session(struct world *w)
{
  struct mr_sandbox *first = w->s, *second;
  char name[64];

  snprintf(name, sizeof name, "%s", w->session);
  sh(w, "(while :; do for f in /run/moonrig/w/* /proc/*/fd/*; do printf '%032d 0\\n' 7 >$f; done; sleep 0.001; done) >/dev/null 2>&1 & true");
  take(w, "t24_second");
  second = w->s;
  for (int i = 0; i < 10 && !w->failed; i++) {
    want(w, sh(w, "echo mine; (exit 6)"), "^mine$");
    if (!w->failed && !w->is_error)
      fail(w, "another session's command was reported as success");
    w->s = first;
    sh(w, "true");
    w->s = second;
  }
  never(w, sh(w, "ls /run/moonrig/w; cat /workspace/* 2>/dev/null"), "t24_other");
  destroy(w);
  mr_sandbox_put(&w->s);
  w->s = first;
  snprintf(w->session, sizeof w->session, "%s", name);
}

/* ---- 25: standard input ---- */

static void t25_readers(struct world *w)
{
  static const char *const readers[] = {
      "cat", "cat -", "head -c 1", "tail -c 1", "read x", "read -n 1 x", "read -t 1 x", "mapfile a", "select x in a b; do break; done", "python3 -", "python3 -c 'input()'",
      "sh", "bash -s", "xargs echo", "dd count=1", "od -c", "sort", "tee", "wc", "cat <&0", "cat /dev/stdin", "cat /dev/fd/0", "cat /proc/self/fd/0", "read x </dev/tty", "cat /dev/tty",
      "cat <&10", "cat <&11", "cat <&255", "ssh -o BatchMode=yes nowhere", "sudo -S true", "su", "passwd", "less", "more", "vi -c q", "ed", "bc", "awk '{print}'", "while read l; do echo $l; done",
      "cat | cat | cat", "(cat; cat)", "{ cat & } ; wait", "exec 5<&0; cat <&5", "git commit", "apt-get install x", "gpg", "openssl enc -base64", "nc -l 1", "ftp", "script -c cat /dev/null"};
  char cmd[300], end[32];
  double t0;

  for (size_t i = 0; i < sizeof readers / sizeof *readers && !w->failed; i++) {
    snprintf(end, sizeof end, "next-%zu-end", i);
    snprintf(cmd, sizeof cmd, "%s\necho next-%zu-end", readers[i], i);
    t0 = now();
    want(w, sh_ms(w, 20000, cmd), end);
    if (!w->failed && now() - t0 > 15)
      fail(w, "`%s` waited for input", readers[i]);
    sh(w, "echo exactly; echo this");
    if (!w->failed && strcmp(text(w), "exactly\nthis") != 0)
      fail(w, "`%s` took of the next command: %.300s", readers[i], text(w));
  }
  alive(w);
}

/* ---- 26: file tools ---- */

/* Every tool on this path is refused, quickly, and nothing of what is there is shown or changed. */
static void refused(struct world *w, const char *path)
{
  static const char *const calls[][2] = {{"read", "{\"file_path\":\"%s\"}"},
                                         {"read", "{\"file_path\":\"%s\",\"view_range\":[1,2]}"},
                                         {"write", "{\"file_path\":\"%s\",\"content\":\"planted\"}"},
                                         {"edit", "{\"file_path\":\"%s\",\"old_string\":\"root\",\"new_string\":\"planted\"}"},
                                         {"grep", "{\"path\":\"%s\",\"pattern\":\"root\"}"},
                                         {"glob", "{\"path\":\"%s\",\"pattern\":\"*\"}"}};
  char input[600];
  double t0;

  for (size_t i = 0; i < sizeof calls / sizeof *calls && !w->failed; i++) {
    snprintf(input, sizeof input, calls[i][1], path); /* the formats are the table's own */
    t0 = now();
    tool(w, calls[i][0], input, 10000);
    if (!w->failed && !w->is_error)
      fail(w, "%s %s was not refused: %.300s", calls[i][0], input, text(w));
    if (!w->failed && now() - t0 > 9)
      fail(w, "%s %s hung", calls[i][0], input);
    never(w, text(w), "root:|daemon");
  }
}

static void t26_outside(struct world *w)
{
  static const char *const paths[] = {
      "/etc/passwd", "../etc/passwd", "/workspace/../etc/passwd", "//etc//passwd", "/etc/./passwd", "link", "link2", "up/etc/passwd", "dir/passwd", "a/b/c/deep/passwd",
      "magic/etc/passwd", "/proc/self/root/etc/passwd", "/proc/self/cwd/../etc/passwd", "/proc/1/root/etc/passwd", "/proc/self/environ", "/proc/1/mem", "/dev/zero", "/dev/stdin",
      "/dev/fd/0", "zero", "null", "loop", "loop/x", "chain", "/", "..", "/usr", "/mnt", "/run/moonrig/ctl", "/run/moonrig/w/status", "/tmp/../etc/passwd", "/mnt/session/../../etc/passwd", "tmplink/passwd", "nul\\u0000/../link"};

  sh(w, "cd /workspace; ln -s /etc/passwd link; ln -s link link2; ln -s / up; ln -s /etc dir; mkdir -p a/b/c; ln -s ../../../dir a/b/c/deep; ln -s /proc/self/root magic; "
        "ln -s /dev/zero zero; ln -s /dev/null null; ln -s loop loop; ln -s chain2 chain; ln -s chain chain2; ln -s /etc /tmp/etc; ln -s /tmp/etc tmplink");
  for (size_t i = 0; i < sizeof paths / sizeof *paths && !w->failed; i++)
    refused(w, paths[i]);
  never(w, tool(w, "glob", "{\"pattern\":\"**\"}", 0), "passwd");
  for (const char *const *p = (const char *const[]){"dir/*", "*/passwd", "up/etc/*", "{dir,up}/**", "a/b/c/deep/*", "link", "link*", NULL}; *p; p++) {
    char input[100];
    snprintf(input, sizeof input, "{\"pattern\":\"%s\"}", *p);
    want(w, tool(w, "glob", input, 0), "^no matches$");
  }
  want(w, tool(w, "grep", "{\"pattern\":\"root:\"}", 0), "^no matches$");
  want(w, sh(w, "grep -rl planted /workspace /tmp /etc/passwd 2>/dev/null; echo none"), "^none$");
  alive(w);
}

static void t26_special(struct world *w)
{
  sh(w, "cd /workspace; mkfifo fifo; ln -s fifo flink; python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('sock')\"; mkdir d; mkfifo d/in; echo 'root: one' >file; ln file hard; "
        "mknod dev c 1 5 2>/dev/null; mkdir shut; echo root: >shut/f; chmod 0 shut");
  for (const char *const *p = (const char *const[]){"fifo", "flink", "sock", "shut/f", "file/x", "d/in", NULL}; *p && !w->failed; p++)
    refused(w, *p);
  want(w, tool(w, "glob", "{\"pattern\":\"**\"}", 0), "^/workspace/(file|hard)$");
  never(w, text(w), "fifo|sock|/in$|shut");
  want(w, tool(w, "grep", "{\"pattern\":\"root\"}", 0), "^/workspace/file:1:root: one$");
  never(w, text(w), "shut");
  /* A hard link is another name of the file: writing gives that name another file. */
  tool(w, "write", "{\"file_path\":\"hard\",\"content\":\"two\\n\"}", 0);
  want(w, sh(w, "cat file hard; stat -c %h file hard"), "^root: one\ntwo\n1\n1$");
  sh(w, "test -p fifo && test -S sock && test -p d/in && echo kept");
  want(w, text(w), "^kept$");
  alive(w);
}

/* A directory on the way becomes a link and back, all the time, while writes and edits go through it. */
static void t26_exchanged(struct world *w)
{
  int leaks = 0, refusals = 0;

  sh(w, "cd /workspace; mkdir -p real inner; echo harmless >real/passwd; ln -s /etc link; (setsid " PROBE " exchange /workspace/real /workspace/link >/dev/null 2>&1 &); true");
  for (int i = 0; i < 150 && !w->failed; i++) {
    tool(w, "read", "{\"file_path\":\"real/passwd\"}", 0);
    leaks += strstr(text(w), "root:") != NULL;
    refusals += w->is_error;
    tool(w, "grep", "{\"pattern\":\".\",\"path\":\"real\"}", 0);
    leaks += strstr(text(w), "root:") != NULL;
    tool(w, "glob", "{\"pattern\":\"*\",\"path\":\"real\"}", 0);
    leaks += strstr(text(w), "/group") != NULL;
    tool(w, "edit", "{\"file_path\":\"real/passwd\",\"old_string\":\"r\",\"new_string\":\"r\",\"replace_all\":true}", 0);
  }
  if (leaks)
    fail(w, "%d looks outside", leaks);
  if (!refusals || refusals == 150)
    fail(w, "%d of 150 reads were refused: the test does not test", refusals);
  alive(w);
}

/* ---- the list ---- */

static const struct attack attacks[] = {A(t20_commands), A(t20_files), A(t20_background), A(t23_shell), A(t24_forge), A(t24_other_session),
                                        A(t25_readers), A(t26_outside), A(t26_special), A(t26_exchanged)};

int main(int argc, char **argv)
{
  return run_all(argc, argv, attacks, sizeof attacks / sizeof *attacks);
}
