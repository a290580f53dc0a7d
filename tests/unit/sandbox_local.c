/* The local sandbox driver with the real launcher, bubblewrap and envd: as root, where each session gets a
 * host uid of its own, and as an ordinary user. */
#include "sandbox_kit.h"

/* ---- one sandbox ---- */

static void basics(void)
{
  struct rig r;
  struct mr_sandbox *s;
  struct answer a;
  char input[200];

  open_rig(&r);
  s = get(&r, "sesn_basics");
  CHECK(!exists(&r, "s/sesn_basics")); /* made at the first call */
  CHECK_STR(mr_str_c(mr_sandbox_ref(s)), "");
  a = sh(&r, s, "e1", "echo hello");
  CHECK_STR(mr_str_c(a.text), "hello");
  CHECK(mr_sandbox_ref(s)[0] != '\0');
  a = sh(&r, s, "e2", "id -u; pwd; echo $HOME");
  CHECK_STR(mr_str_c(a.text), "1000\n/workspace\n/workspace");
  sh(&r, s, "e3", "touch /workspace/mine");
  if (geteuid() == 0)
    CHECK(owner(&r, "s/sesn_basics/workspace/mine") > 2000000 && owner(&r, "s/sesn_basics/workspace/mine") < 2065536);
  else
    CHECK_INT(owner(&r, "s/sesn_basics/workspace/mine"), geteuid());
  /* the shell's state is kept */
  sh(&r, s, "e4", "cd /tmp && export KEPT=yes && f() { echo f; }");
  a = sh(&r, s, "e5", "pwd; echo $KEPT; f");
  CHECK_STR(mr_str_c(a.text), "/tmp\nyes\nf");
  /* a command that fails is an answer, not a failure of the sandbox */
  a = ask(&r, s, "e6", "bash", "{\"command\":\"echo out; exit 3\"}");
  CHECK_INT(a.code, MR_OK);
  CHECK(strstr(a.text, "out") != NULL);
  /* file tools */
  a = ask(&r, s, "w1", "write", "{\"file_path\":\"/workspace/a/b.txt\",\"content\":\"one\\ntwo\\n\"}");
  CHECK(a.code == MR_OK && !a.is_error);
  a = ask(&r, s, "w2", "edit", "{\"file_path\":\"/workspace/a/b.txt\",\"old_string\":\"two\",\"new_string\":\"2\"}");
  CHECK(a.code == MR_OK && !a.is_error);
  a = ask(&r, s, "w3", "read", "{\"file_path\":\"/workspace/a/b.txt\"}");
  CHECK(a.code == MR_OK && !a.is_error && strstr(a.text, "one") && strstr(a.text, "2"));
  a = ask(&r, s, "w4", "glob", "{\"pattern\":\"**/*.txt\"}");
  CHECK(a.code == MR_OK && strstr(a.text, "b.txt"));
  a = ask(&r, s, "w5", "grep", "{\"pattern\":\"^on\"}");
  CHECK(a.code == MR_OK && strstr(a.text, "b.txt"));
  a = ask(&r, s, "w6", "read", "{\"file_path\":\"/etc/shadow\"}");
  CHECK(a.code == MR_OK && a.is_error);
  a = ask(&r, s, "w7", "no_such_tool", "{}");
  CHECK(a.code == MR_OK && a.is_error);
  /* the host's side of the outputs */
  char path[4096], want[600];
  snprintf(want, sizeof want, "%s/s/sesn_basics/outputs", r.root);
  CHECK_INT(mr_sandbox_outputs_path(r.d, "sesn_basics", path), MR_OK);
  CHECK(strcmp(path, want) == 0);
  sh(&r, s, "o1", "echo result > /mnt/session/outputs/r.txt");
  CHECK(exists(&r, "s/sesn_basics/outputs/r.txt"));
  /* bad calls are refused, and nothing is called back */
  struct mr_sandbox_call bad = {.exec_id = MR_S("x"), .name = MR_S("bash"), .input = MR_S("{\"command\":")};
  CHECK_INT(mr_sandbox_call(s, &bad, on_answer, &a), MR_E_INVALID);
  bad.input = MR_S("[1]");
  CHECK_INT(mr_sandbox_call(s, &bad, on_answer, &a), MR_E_INVALID);
  bad.input = MR_S("{}");
  bad.exec_id.n = 0;
  CHECK_INT(mr_sandbox_call(s, &bad, on_answer, &a), MR_E_INVALID);
  snprintf(input, sizeof input, "%s", "../x");
  CHECK(mr_sandbox_get(r.d, &(struct mr_sandbox_spec){.session_id = input}, NULL) == NULL);
  destroy(&r, "sesn_basics");
  CHECK(!exists(&r, "s/sesn_basics"));
  CHECK_INT(entries_below(&r, "u"), 0);
  CHECK_INT(entries_below(&r, "trash"), 0);
  CHECK_INT(processes(r.root), 0);
  a = (struct answer){0};
  CHECK_INT(mr_sandbox_call(s, &(struct mr_sandbox_call){.exec_id = MR_S("z"), .name = MR_S("bash"), .input = MR_S("{}")},
                            on_answer, &a), MR_E_CLOSED);
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(basics_root) { basics(); }
TEST(basics_user)
{
  become_user();
  basics();
}

TEST(calls_at_the_same_time)
{
  struct rig r;
  struct answer a[12];
  int done = 0;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_many"), *t = get(&r, "sesn_other");
  for (int i = 0; i < 12; i++) {
    char id[16], input[200];
    snprintf(id, sizeof id, "id%d", i);
    if (i % 2)
      snprintf(input, sizeof input, "{\"command\":\"sleep 0.05; echo n%d; echo $$ > /workspace/n%d\"}", i, i);
    else
      snprintf(input, sizeof input, "{\"file_path\":\"/workspace/f%d\",\"content\":\"x\"}", i);
    start(&r, i % 3 ? s : t, id, i % 2 ? "bash" : "write", input, &a[i]);
  }
  while (done < 12) {
    done = 0;
    mr_loop_pump(r.loop, 10000);
    usleep(1000);
    for (int i = 0; i < 12; i++)
      done += a[i].count;
  }
  for (int i = 0; i < 12; i++) {
    char want[16];
    snprintf(want, sizeof want, "n%d", i);
    CHECK_INT(a[i].code, MR_OK);
    CHECK_INT(a[i].count, 1);
    if (i % 2)
      CHECK(strstr(a[i].text, want) != NULL);
  }
  CHECK_INT(entries_below(&r, "s"), 2);
  destroy(&r, "sesn_many");
  destroy(&r, "sesn_other");
  mr_sandbox_put(&s);
  mr_sandbox_put(&t);
  close_rig(&r);
}

TEST(same_id_runs_once)
{
  struct rig r;
  struct answer a;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_once");
  sh(&r, s, "one", "echo x >> /workspace/log; wc -l < /workspace/log");
  a = sh(&r, s, "one", "echo x >> /workspace/log; wc -l < /workspace/log");
  CHECK_STR(mr_str_c(a.text), "1");
  a = sh(&r, s, "two", "wc -l < /workspace/log");
  CHECK_STR(mr_str_c(a.text), "1");
  /* status of it: the same answer; of another: not found */
  a = (struct answer){0};
  CHECK_INT(mr_sandbox_status(s, MR_S("two"), on_answer, &a), MR_OK);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_OK);
  a = (struct answer){0};
  CHECK_INT(mr_sandbox_status(s, MR_S("never"), on_answer, &a), MR_OK);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_NOTFOUND);
  destroy(&r, "sesn_once");
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(cancel)
{
  struct rig r;
  struct answer a, b;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_cancel");
  /* before anything is there */
  start(&r, s, "c0", "bash", "{\"command\":\"echo no\"}", &a);
  mr_sandbox_cancel(s, MR_S("c0"));
  CHECK_INT(a.count, 0);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_CANCELLED);
  /* while it runs, with another one waiting behind it */
  sh(&r, s, "c1", "echo warm");
  start(&r, s, "c2", "bash", "{\"command\":\"touch /workspace/started; sleep 300\"}", &a);
  start(&r, s, "c3", "bash", "{\"command\":\"echo behind\"}", &b);
  while (!exists(&r, "s/sesn_cancel/workspace/started"))
    mr_loop_pump(r.loop, 1000);
  mr_sandbox_cancel(s, MR_S("c2"));
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_CANCELLED);
  until(&r, &b.count, 1);
  CHECK_INT(b.code, MR_OK);
  CHECK(strstr(b.text, "behind") != NULL);
  CHECK_INT(a.count, 1);
  destroy(&r, "sesn_cancel");
  mr_sandbox_put(&s);
  close_rig(&r);
}

/* ---- life and death ---- */

/* A process that uses a sandbox and is killed in the middle of a command. */
static void first_life(void)
{
  struct rig r;
  struct answer a;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_life");
  sh(&r, s, "l1", "cd /tmp; export LIFE=one; echo $$ > /workspace/shell");
  start(&r, s, "l2", "bash", "{\"command\":\"touch /workspace/started; sleep 1; echo finished in $LIFE\"}", &a);
  while (!exists(&r, "s/sesn_life/workspace/started"))
    mr_loop_pump(r.loop, 1000);
  kill(getpid(), SIGKILL);
}

static void survives_kill(void)
{
  struct rig r;
  struct answer a = {0};
  int status;
  pid_t launcher, pid = fork();

  if (pid == 0)
    first_life();
  CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  open_rig(&r);
  launcher = launcher_of(&r, "sesn_life");
  CHECK(launcher > 0);
  struct mr_sandbox *s = get(&r, "sesn_life");
  CHECK_INT(mr_sandbox_status(s, MR_S("l2"), on_answer, &a), MR_OK);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_OK);
  CHECK(strstr(a.text, "finished in one") != NULL);
  a = sh(&r, s, "l3", "pwd; echo $LIFE; test $$ = $(cat /workspace/shell) && echo same shell");
  CHECK_STR(mr_str_c(a.text), "/tmp\none\nsame shell");
  CHECK_INT(launcher_of(&r, "sesn_life"), launcher);
  destroy(&r, "sesn_life");
  CHECK_INT(processes(r.root), 0);
  CHECK(!exists(&r, "s/sesn_life"));
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(survives_kill_root) { survives_kill(); }
TEST(survives_kill_user)
{
  become_user();
  survives_kill();
}

TEST(status_of_nothing)
{
  struct rig r;
  struct answer a = {0};

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_none");
  CHECK_INT(mr_sandbox_status(s, MR_S("x"), on_answer, &a), MR_OK);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_CLOSED);
  CHECK(!exists(&r, "s/sesn_none")); /* asking makes nothing */
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(death_under_a_call)
{
  struct rig r;
  struct answer a, b;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_death");
  sh(&r, s, "d1", "export GONE=1; echo kept > /workspace/file");
  start(&r, s, "d2", "bash", "{\"command\":\"touch /workspace/started; sleep 300\"}", &a);
  while (!exists(&r, "s/sesn_death/workspace/started"))
    mr_loop_pump(r.loop, 1000);
  kill(launcher_of(&r, "sesn_death"), SIGKILL);
  until(&r, &a.count, 1);
  CHECK_INT(a.code, MR_E_CLOSED);
  CHECK(strstr(a.text, "are kept") != NULL);
  /* the old id is not run again by asking; the next call gets a new sandbox on the same files */
  b = (struct answer){0};
  CHECK_INT(mr_sandbox_status(s, MR_S("d2"), on_answer, &b), MR_OK);
  until(&r, &b.count, 1);
  CHECK_INT(b.code, MR_E_CLOSED);
  b = sh(&r, s, "d3", "cat /workspace/file; echo [$GONE]");
  CHECK_STR(mr_str_c(b.text), "kept\n[]");
  /* the same for a polite end */
  kill(launcher_of(&r, "sesn_death"), SIGTERM);
  for (int i = 0; i < 400; i++) { /* a call that is sent meanwhile would go down with it */
    mr_loop_pump(r.loop, 1000);
    usleep(1000);
  }
  b = sh(&r, s, "d4", "cat /workspace/file");
  CHECK_STR(mr_str_c(b.text), "kept");
  destroy(&r, "sesn_death");
  CHECK_INT(processes(r.root), 0);
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(put_and_get)
{
  struct rig r;
  struct answer a, b;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_put");
  sh(&r, s, "p1", "export STAYS=1");
  start(&r, s, "p2", "bash", "{\"command\":\"sleep 0.3; echo later $STAYS\"}", &a);
  for (int i = 0; i < 50; i++) {
    mr_loop_pump(r.loop, 1000);
    usleep(1000);
  }
  mr_sandbox_put(&s); /* no callback from now on */
  s = get(&r, "sesn_put");
  b = (struct answer){0};
  CHECK_INT(mr_sandbox_status(s, MR_S("p2"), on_answer, &b), MR_OK);
  until(&r, &b.count, 1);
  CHECK_INT(b.code, MR_OK);
  CHECK(strstr(b.text, "later 1") != NULL);
  CHECK_INT(a.count, 0);
  /* and put at every moment of a start */
  for (int i = 0; i < 30; i++) {
    char name[32];
    snprintf(name, sizeof name, "sesn_put%d", i);
    struct mr_sandbox *t = get(&r, name);
    start(&r, t, "q", "bash", "{\"command\":\"echo ready\"}", &a);
    for (int k = 0; k < i; k++) {
      mr_loop_pump(r.loop, 1000);
      usleep(700);
    }
    mr_sandbox_put(&t);
    if (i % 2) { /* taken up again */
      t = get(&r, name);
      b = sh(&r, t, "q2", "echo again");
      CHECK_STR(mr_str_c(b.text), "again");
      mr_sandbox_put(&t);
    }
    destroy(&r, name);
  }
  mr_sandbox_put(&s);
  destroy(&r, "sesn_put");
  CHECK_INT(entries_below(&r, "s"), 0);
  CHECK_INT(processes(r.root), 0);
  close_rig(&r);
}

static int zombies(void)
{
  char path[64], line[300];
  struct dirent *e;
  int n = 0;
  DIR *d = opendir("/proc");

  while ((e = readdir(d))) {
    int pid, ppid;
    char state;
    snprintf(path, sizeof path, "/proc/%.20s/stat", e->d_name);
    FILE *f = e->d_name[0] >= '0' && e->d_name[0] <= '9' ? fopen(path, "r") : NULL;
    if (!f)
      continue;
    if (fgets(line, sizeof line, f) && strrchr(line, ')') && sscanf(line, "%d", &pid) == 1 &&
        sscanf(strrchr(line, ')') + 2, "%c %d", &state, &ppid) == 2)
      n += state == 'Z' && ppid == getpid();
    fclose(f);
  }
  closedir(d);
  return n;
}

static void twenty(void)
{
  struct rig r;
  int fds = -1;

  open_rig(&r);
  for (int i = 0; i < 21; i++) {
    char name[32];
    snprintf(name, sizeof name, "sesn_twenty%d", i);
    struct mr_sandbox *s = get(&r, name);
    sh(&r, s, "x", "mkdir -p a/b/c && echo x > a/b/c/d && chmod 000 a/b && ln -s /etc/passwd link; (sleep 500 &); echo ok");
    destroy(&r, name);
    CHECK_INT(processes(r.root), 0);
    mr_sandbox_put(&s);
    for (int k = 0; k < 100 && zombies(); k++) { /* the launcher's end is on its way */
      mr_loop_pump(r.loop, 1000);
      usleep(1000);
    }
    CHECK_INT(zombies(), 0);
    if (i == 0)
      fds = entries("/proc/self/fd");
    CHECK_INT(entries("/proc/self/fd"), fds);
  }
  CHECK_INT(entries_below(&r, "s"), 0);
  CHECK_INT(entries_below(&r, "u"), 0);
  CHECK_INT(entries_below(&r, "trash"), 0);
  close_rig(&r);
}

TEST(twenty_leave_nothing_root) { twenty(); }
TEST(twenty_leave_nothing_user)
{
  become_user();
  twenty();
}

/* Each allocation in turn fails, and all after it, while a call runs: the call is answered once or refused,
 * and the driver works again afterwards. */
TEST(out_of_memory)
{
  struct rig r;
  int refused = 0, failed = 0, good = 0;

  open_rig(&r);
  struct mr_sandbox *warm = get(&r, "sesn_warm");
  sh(&r, warm, "w", "echo");
  for (int n = 0; n < 60 && good < 3; n++) {
    struct mr_sandbox_call c = {.exec_id = MR_S("x"), .name = MR_S("bash"), .input = MR_S("{\"command\":\"echo hi\"}")};
    struct answer a = {0};
    char name[32];
    int code;

    snprintf(name, sizeof name, "sesn_oom%d", n);
    struct mr_sandbox *s = get(&r, name);
    test_fail_after(n);
    code = mr_sandbox_call(s, &c, on_answer, &a);
    for (int i = 0; i < 100 && code == MR_OK && a.count == 0; i++) {
      mr_loop_pump(r.loop, 10000);
      usleep(2000);
    }
    test_fail_after(-1);
    if (code == MR_OK) {
      until(&r, &a.count, 1);
      good += a.code == MR_OK;
      failed += a.code != MR_OK;
    } else {
      CHECK_INT(code, MR_E_NOMEM);
      refused++;
    }
    a = sh(&r, s, "y", "echo works");
    CHECK_STR(mr_str_c(a.text), "works");
    mr_sandbox_put(&s);
    destroy(&r, name);
  }
  CHECK(refused > 0 && failed > 0 && good > 0);
  mr_sandbox_put(&warm);
  destroy(&r, "sesn_warm");
  close_rig(&r);
}

/* ---- files ---- */

static void write_file(const char *path, const char *text)
{
  FILE *f = fopen(path, "w");
  CHECK(f != NULL);
  fputs(text, f);
  fclose(f);
}

TEST(uploads)
{
  struct rig r;
  char one[400], two[400];
  struct answer a;

  open_rig(&r);
  snprintf(one, sizeof one, "%s/blob1", test_dir());
  snprintf(two, sizeof two, "%s/blob2", test_dir());
  write_file(one, "first");
  write_file(two, "second");
  CHECK(chmod(one, 0600) == 0 && chmod(two, 0600) == 0);
  struct mr_sandbox_mount m[] = {{one, "/mnt/session/uploads/data/in.csv"}, {two, "/second.txt"}};
  struct mr_sandbox_spec spec = {.session_id = "sesn_up", .mounts = m, .nmounts = 1};
  struct mr_sandbox *s = mr_sandbox_get(r.d, &spec, NULL);
  a = sh(&r, s, "u1", "export SAME=1; cat /mnt/session/uploads/data/in.csv; ls /mnt/session/uploads");
  CHECK_STR(mr_str_c(a.text), "firstdata");
  a = ask(&r, s, "u2", "bash", "{\"command\":\"echo x > /mnt/session/uploads/data/in.csv; rm -f /mnt/session/uploads/data/in.csv; chmod 777 /mnt/session/uploads/data/in.csv; touch /mnt/session/uploads/n\"}");
  a = sh(&r, s, "u3", "cat /mnt/session/uploads/data/in.csv; ls /mnt/session/uploads");
  CHECK_STR(mr_str_c(a.text), "firstdata");
  /* another one comes while it runs, the first one goes */
  mr_sandbox_put(&s);
  m[0] = m[1];
  s = mr_sandbox_get(r.d, &spec, NULL);
  a = sh(&r, s, "u4", "cat /mnt/session/uploads/second.txt; ls /mnt/session/uploads; echo $SAME");
  CHECK_STR(mr_str_c(a.text), "secondsecond.txt\n1");
  mr_sandbox_put(&s);
  /* a path that leaves the directory is refused */
  m[0].path = "/mnt/session/uploads/../../x";
  s = mr_sandbox_get(r.d, &spec, NULL);
  destroy(&r, "sesn_up");
  mr_sandbox_put(&s);
  s = mr_sandbox_get(r.d, &spec, NULL);
  a = ask(&r, s, "u5", "bash", "{\"command\":\"true\"}");
  CHECK_INT(a.code, MR_E_INVALID);
  CHECK(strstr(a.text, "mount_path") != NULL);
  mr_sandbox_put(&s);
  destroy(&r, "sesn_up");
  CHECK(access(one, R_OK) == 0 && access(two, R_OK) == 0);
  close_rig(&r);
}

TEST(deep_trees_go)
{
  struct rig r;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_deep");
  sh(&r, s, "x", "perl -e 'for (1..5000) { mkdir(q(d)) and chdir(q(d)) or die }'; ls d");
  destroy(&r, "sesn_deep");
  CHECK_INT(entries_below(&r, "trash"), 0);
  mr_sandbox_put(&s);
  close_rig(&r);
}

/* ---- a first process that was taken over ---- */

static void say_n(int fd, const void *p, size_t n)
{
  if (send(fd, p, n, MSG_NOSIGNAL) < 0)
    _exit(9);
}

static void frame(int fd, const char *json)
{
  unsigned char h[MR_ENVD_HEADER];
  mr_envd_header_put(h, (uint32_t)strlen(json));
  say_n(fd, h, sizeof h);
  say_n(fd, json, strlen(json));
}

static void misbehave(int fd, const char *mode)
{
  static const char answer[] = "{\"t\":\"result\",\"id\":\"h1\",\"content\":[{\"type\":\"text\",\"text\":\"slow\"}],\"is_error\":false}";
  char buf[4096];

  if (strcmp(mode, "nohello") == 0)
    frame(fd, answer);
  frame(fd, strcmp(mode, "badproto") == 0 ? "{\"t\":\"hello\",\"proto\":[7,9]}" : "{\"t\":\"hello\",\"proto\":[1,1]}");
  for (int calls = 0; calls < 2; calls++) /* attach and call may come in one piece */
    if (recv(fd, buf, sizeof buf, 0) <= 0 || memmem(buf, sizeof buf, "\"h1\"", 4))
      break;
  if (strcmp(mode, "huge") == 0)
    say_n(fd, "\xff\xff\xff\x7f{", 5);
  else if (strcmp(mode, "zero") == 0)
    say_n(fd, "\0\0\0\0", 4);
  else if (strcmp(mode, "notjson") == 0)
    frame(fd, "{\"t\":\"result\",");
  else if (strcmp(mode, "badcontent") == 0)
    frame(fd, "{\"t\":\"result\",\"id\":\"h1\",\"content\":[{\"type\":\"tool_use\",\"text\":\"x\"}],\"is_error\":false}");
  else if (strcmp(mode, "dies") == 0)
    _exit(3);
  if (strcmp(mode, "flood") == 0) {
    for (int i = 0; i < 20000; i++)
      frame(fd, "{\"t\":\"result\",\"id\":\"never asked\",\"content\":[],\"is_error\":false}");
    frame(fd, answer);
  }
  if (strcmp(mode, "slow") == 0) {
    unsigned char h[MR_ENVD_HEADER];
    mr_envd_header_put(h, sizeof answer - 1);
    for (int i = 0; i < MR_ENVD_HEADER; i++)
      say_n(fd, h + i, 1), usleep(2000);
    for (size_t i = 0; i < sizeof answer - 1; i++)
      say_n(fd, answer + i, 1), usleep(500);
  }
  while (recv(fd, buf, sizeof buf, 0) > 0)
    ;
}

/* This program as PID 1 of a sandbox: the file mode says how it behaves. */
__attribute__((constructor)) static void hostile(void)
{
  char mode[32] = "";
  int fd;

  if (getpid() != 1 || (fd = open("/mnt/session/uploads/mode", O_RDONLY)) < 0)
    return;
  ssize_t n = read(fd, mode, sizeof mode - 1);
  if (n <= 0)
    _exit(8);
  if (strcmp(mode, "refuses") == 0)
    _exit(1);
  if (strcmp(mode, "explains") == 0) {
    static const char why[] = "there is no room\n";
    if (write(MR_ENVD_FD_REPORT, why, sizeof why - 1) < 0)
      _exit(7);
    _exit(1);
  }
  for (;;) {
    int c = accept(MR_ENVD_FD_LISTEN, NULL, NULL);
    if (c < 0)
      _exit(6);
    misbehave(c, mode);
    close(c);
  }
}

static void link_in(const char *dir, const char *name, const char *to)
{
  char path[600];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  CHECK(symlink(to, path) == 0);
}

TEST(hostile_first_process)
{
  static const struct { const char *mode; int code; const char *text; } c[] = {
      {"huge", MR_E_CLOSED, ""}, {"zero", MR_E_CLOSED, ""}, {"notjson", MR_E_CLOSED, ""},
      {"nohello", MR_E_CLOSED, ""}, {"badproto", MR_E_CLOSED, ""}, {"badcontent", MR_E_PROTOCOL, "not valid"},
      {"dies", MR_E_CLOSED, "are kept"}, {"explains", MR_E_CLOSED, "there is no room"}, {"refuses", MR_E_CLOSED, "launcher: exit"},
      {"flood", MR_OK, "slow"}, {"slow", MR_OK, "slow"}};
  char self[400], launcher[500], libexec[300], mode[300];
  struct rig r;
  ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

  CHECK(n > 0);
  self[n] = '\0';
  snprintf(launcher, sizeof launcher, "%.*s/../../helpers/launcher", (int)(strrchr(self, '/') - self), self);
  snprintf(libexec, sizeof libexec, "%s/libexec", test_dir());
  snprintf(mode, sizeof mode, "%s/mode", test_dir());
  CHECK(mkdir(libexec, 0755) == 0);
  link_in(libexec, "launcher", launcher);
  link_in(libexec, "envd", self);
  /* memory: this program may be one that a sanitizer was built into */
  open_rig_with(&r, (struct mr_sandbox_options){.libexec = libexec, .memory_max = INT64_C(1) << 50});
  for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
    struct mr_sandbox_mount m = {mode, "/mode"};
    char name[64];
    struct answer a;
    write_file(mode, c[i].mode);
    snprintf(name, sizeof name, "sesn_hostile_%s", c[i].mode);
    struct mr_sandbox *s = mr_sandbox_get(r.d, &(struct mr_sandbox_spec){.session_id = name, .mounts = &m, .nmounts = 1}, NULL);
    a = ask(&r, s, "h1", "bash", "{\"command\":\"x\"}");
    if (a.code != c[i].code || !strstr(a.text, c[i].text))
      test_fail(__FILE__, __LINE__, "%s: code %d, %s", c[i].mode, a.code, a.text);
    destroy(&r, name);
    mr_sandbox_put(&s);
    CHECK(unlink(mode) == 0);
  }
  CHECK_INT(processes(r.root), 0);
  close_rig(&r);
}

/* ---- what the machine has ---- */

TEST(report)
{
  struct rig r;
  const struct mr_sandbox_feature *f;
  struct mr_err err = {0};
  int n;

  open_rig(&r);
  if (mr_sandbox_report(r.d, &f, &n, &err) != MR_OK)
    test_fail(__FILE__, __LINE__, "%s", err.message);
  CHECK(n >= 6);
  for (int i = 0; i < n; i++)
    CHECK(f[i].name[0] && f[i].detail[0] && (f[i].ok || !f[i].required));
  close_rig(&r);
}

/* The message of every call is the report's. */
static void unsupported(const char *want)
{
  struct rig r;
  const struct mr_sandbox_feature *f;
  struct mr_err err = {0};
  struct answer a;
  int n;

  open_rig(&r);
  struct mr_sandbox *s = get(&r, "sesn_missing");
  a = ask(&r, s, "x", "bash", "{\"command\":\"echo\"}");
  CHECK_INT(a.code, MR_E_UNSUPPORTED);
  if (!strstr(a.text, want))
    test_fail(__FILE__, __LINE__, "message: %s", a.text);
  CHECK(strstr(a.text, "fix: ") && !strchr(a.text, '\n'));
  CHECK_INT(mr_sandbox_report(r.d, &f, &n, &err), MR_E_UNSUPPORTED);
  CHECK(strcmp(err.message, a.text) == 0);
  mr_sandbox_put(&s);
  close_rig(&r);
}

TEST(bubblewrap_missing)
{
  if (geteuid() != 0)
    test_skip("hiding bwrap takes root");
  CHECK(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
  CHECK(mount("/dev/null", "/usr/bin/bwrap", NULL, MS_BIND, NULL) == 0);
  unsupported("apt install bubblewrap");
}

static void put_text(const char *path, const char *text)
{
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
  close(fd);
}

/* The rest of the test runs in a user namespace of its own, which allows no other. */
TEST(namespaces_missing)
{
  char path[64];
  int sync[2], back[2], status;
  pid_t pid;

#ifdef __SANITIZE_THREAD__
  test_skip("unshare(CLONE_NEWUSER) is for processes with one thread, and tsan has one of its own");
#endif
  if (geteuid() != 0)
    test_skip("mapping a range of uids takes root");
  CHECK(pipe(sync) == 0 && pipe(back) == 0);
  pid = fork();
  if (pid == 0) {
    char c;
    CHECK(unshare(CLONE_NEWUSER) == 0 && write(back[1], "x", 1) == 1 && read(sync[0], &c, 1) == 1);
    put_text("/proc/sys/user/max_user_namespaces", "0");
    unsupported("max_user_namespaces");
    exit(0);
  }
  CHECK(read(back[0], path, 1) == 1);
  snprintf(path, sizeof path, "/proc/%d/uid_map", (int)pid);
  put_text(path, "0 0 4000000");
  snprintf(path, sizeof path, "/proc/%d/gid_map", (int)pid);
  put_text(path, "0 0 4000000");
  CHECK(write(sync[1], "x", 1) == 1 && waitpid(pid, &status, 0) == pid);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(no_such_uids)
{
  struct rig r;
  const struct mr_sandbox_feature *f;
  struct mr_err err = {0};
  struct mr_sandbox_options o = {.root = "x", .uid_first = -1};
  struct mr_sandbox_driver *d;
  int n;

  open_rig(&r);
  CHECK_INT(mr_sandbox_report(r.d, &f, &n, &err), MR_OK);
  CHECK_INT(mr_sandbox_local_new(&d, r.loop, r.childs, r.pool, &o, &err), MR_E_INVALID);
  CHECK(strstr(err.field, "uid_first") != NULL);
  close_rig(&r);
}
