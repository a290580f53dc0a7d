/* Sandboxes made ahead: taken over once, by a session that may; never shared; gone at the end and after a crash. */
#include "sandbox_kit.h"

#include "net/guard.h"
#include "net/http_client.h"
#include "sandbox/local/cgroup.h"

static int warm_dirs(const struct rig *r, char name[64], int skip)
{
  char path[600];
  struct dirent *e;
  DIR *d;
  int n = 0;

  snprintf(path, sizeof path, "%s/s", r->root);
  CHECK((d = opendir(path)) != NULL);
  while ((e = readdir(d)))
    if (strncmp(e->d_name, "warm-", 5) == 0 && n++ == skip && name)
      snprintf(name, 64, "%.63s", e->d_name);
  closedir(d);
  return n;
}

/* A sandbox of that name whose shell could run: its PID 1 was seen by the driver, which then makes the next. */
static void until_warm(struct rig *r, int want)
{
  char name[64];
  int ready = 0;

  for (int i = 0; i < 100000 && ready < want; i++) {
    if (mr_loop_pump(r->loop, 10000) != MR_MORE)
      usleep(300);
    ready = warm_dirs(r, NULL, 0);
    for (int k = 0; ready == want && k < want; k++) {
      char lock[100];
      if (warm_dirs(r, name, k) != want)
        ready = 0;
      snprintf(lock, sizeof lock, "s/%s/lock", name);
      if (ready && (!exists(r, lock) || launcher_of(r, name) == 0))
        ready = 0;
    }
  }
  CHECK_INT(ready, want);
  for (int i = 0; i < 600; i++) { /* the last one's hello */
    mr_loop_pump(r->loop, 1000);
    usleep(1000);
  }
}

static struct rig warm_rig(int n)
{
  struct rig r;

  open_rig_with(&r, (struct mr_sandbox_options){.warm = n});
  until_warm(&r, n);
  return r;
}

static void taken_over(void)
{
  struct rig r = warm_rig(2);
  pid_t was[2];
  long uid[2];
  char name[2][64], path[200], source[400];
  struct answer a;
  FILE *f;

  for (int i = 0; i < 2; i++) {
    warm_dirs(&r, name[i], i);
    was[i] = launcher_of(&r, name[i]);
    snprintf(path, sizeof path, "s/%s/workspace", name[i]);
    uid[i] = owner(&r, path);
  }
  snprintf(source, sizeof source, "%s/upload", test_dir());
  f = fopen(source, "w");
  CHECK(f && fputs("given", f) >= 0 && fclose(f) == 0);
  struct mr_sandbox_mount m = {source, "/mnt/session/uploads/in.txt"};
  struct mr_sandbox *s = mr_sandbox_get(r.d, &(struct mr_sandbox_spec){.session_id = "sesn_one", .mounts = &m, .nmounts = 1}, NULL);
  struct mr_sandbox *t = get(&r, "sesn_two");
  a = sh(&r, s, "e1", "pwd; cat /mnt/session/uploads/in.txt; echo mine > f; id -u");
  CHECK_STR(mr_str_c(a.text), "/workspace\ngiven1000");
  sh(&r, t, "e1", "test ! -e f");
  pid_t one = launcher_of(&r, "sesn_one"), two = launcher_of(&r, "sesn_two");
  CHECK(one != two && (one == was[0] || one == was[1]) && (two == was[0] || two == was[1]));
  CHECK_INT(owner(&r, "s/sesn_one/workspace"), one == was[0] ? uid[0] : uid[1]);
  if (geteuid() == 0)
    CHECK(uid[0] != uid[1] && owner(&r, "s/sesn_one/workspace/f") == owner(&r, "s/sesn_one/workspace"));
  CHECK(!exists(&r, "s/sesn_two/workspace/f"));
  until_warm(&r, 2); /* others */
  for (int i = 0; i < 2; i++) {
    warm_dirs(&r, name[i], i);
    CHECK(launcher_of(&r, name[i]) != one && launcher_of(&r, name[i]) != two);
  }
  /* a second life is like any other's */
  kill(one, SIGTERM);
  while (launcher_of(&r, "sesn_one") == one)
    mr_loop_pump(r.loop, 1000);
  a = ask(&r, s, "e2", "bash", "{\"command\":\"cat f\"}");
  a = sh(&r, s, "e3", "cat f");
  CHECK_STR(mr_str_c(a.text), "mine");
  destroy(&r, "sesn_one");
  destroy(&r, "sesn_two");
  mr_sandbox_put(&s);
  mr_sandbox_put(&t);
  if (geteuid() == 0)
    CHECK_INT(entries_below(&r, "u"), 2);
  close_rig(&r);
  CHECK_INT(processes(r.root), 0);
  CHECK_INT(entries_below(&r, "s") + entries_below(&r, "u") + entries_below(&r, "trash"), 0);
}

TEST(taken_over_root) { taken_over(); }
TEST(taken_over_user)
{
  become_user();
  taken_over();
}

TEST(who_needs_another_gets_its_own)
{
  struct rig r = warm_rig(1);
  const char *const hosts[] = {"example.com"};
  struct mr_sandbox_secret secret = {.env = "KEY", .value = "v", .hosts = hosts, .nhosts = 1};
  struct mr_sandbox_spec specs[] = {{.session_id = "sesn_limited", .network = {.limited = true}},
                                    {.session_id = "sesn_hosts", .network = {.limited = true, .hosts = hosts, .nhosts = 1}},
                                    {.session_id = "sesn_secret", .network = {.secrets = &secret, .nsecrets = 1}}};
  struct mr_sandbox *s;
  char name[64], now[64];
  pid_t was;

  warm_dirs(&r, name, 0);
  was = launcher_of(&r, name);
  for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
    s = mr_sandbox_get(r.d, &specs[i], NULL);
    sh(&r, s, "e", "echo ok");
    CHECK(launcher_of(&r, specs[i].session_id) != was);
    CHECK(warm_dirs(&r, now, 0) == 1 && strcmp(now, name) == 0 && launcher_of(&r, name) == was);
    destroy(&r, specs[i].session_id);
    mr_sandbox_put(&s);
  }
  /* a session that has files, though it says nothing of it */
  char path[400];
  snprintf(path, sizeof path, "%s/s/sesn_files", r.root);
  CHECK_INT(mkdir(path, 0700), 0);
  s = get(&r, "sesn_files");
  sh(&r, s, "e", "echo ok");
  CHECK(launcher_of(&r, "sesn_files") != was);
  for (int i = 0; i < 20000 && exists(&r, name); i++)
    mr_loop_pump(r.loop, 1000);
  until_warm(&r, 1);
  destroy(&r, "sesn_files");
  mr_sandbox_put(&s);
  close_rig(&r);
  CHECK_INT(processes(r.root), 0);
  CHECK_INT(entries_below(&r, "s") + entries_below(&r, "u"), 0);
}

/* One that died before it was needed; all of them under a driver that ends at any moment; a killed one. */
TEST(nothing_is_left)
{
  struct rig r = warm_rig(1);
  char name[64];
  struct answer a;
  int ready[2];
  char byte;

  warm_dirs(&r, name, 0);
  kill(launcher_of(&r, name), SIGKILL);
  struct mr_sandbox *s = get(&r, "sesn_after");
  a = ask(&r, s, "e", "bash", "{\"command\":\"echo first\"}"); /* it may die under this one, as any may */
  CHECK(a.code == MR_OK || a.code == MR_E_CLOSED);
  a = sh(&r, s, "e2", "echo ok");
  CHECK_STR(mr_str_c(a.text), "ok");
  destroy(&r, "sesn_after");
  mr_sandbox_put(&s);
  close_rig(&r);
  for (int i = 0; i < 8; i++) {
    open_rig_with(&r, (struct mr_sandbox_options){.warm = 3});
    for (int n = 0; n < i * 60; n++) {
      mr_loop_pump(r.loop, 1000);
      usleep(1000);
    }
    close_rig(&r);
  }
  CHECK_INT(pipe(ready), 0);
  pid_t pid = fork();
  if (pid == 0) {
    struct rig q = warm_rig(2);
    CHECK(write(ready[1], "x", 1) == 1);
    for (;;)
      mr_loop_pump(q.loop, 10000);
  }
  CHECK(read(ready[0], &byte, 1) == 1);
  kill(pid, SIGKILL);
  CHECK(waitpid(pid, NULL, 0) == pid);
  CHECK_INT(warm_dirs(&r, NULL, 0), 2);
  open_rig(&r); /* without any of its own */
  for (int i = 0; i < 100000 && (entries_below(&r, "s") || entries_below(&r, "trash") || processes(r.root)); i++) {
    mr_loop_pump(r.loop, 10000);
    usleep(300);
  }
  close_rig(&r);
  CHECK_INT(processes(r.root), 0);
  CHECK_INT(entries_below(&r, "s") + entries_below(&r, "trash") + entries_below(&r, "u"), 0);
}

static void read_small(const struct rig *r, const char *name, char *out, size_t n)
{
  char path[1100];
  FILE *f;

  snprintf(path, sizeof path, "%s/%s", r->root, name);
  f = fopen(path, "r");
  CHECK(f != NULL);
  out[fread(out, 1, n - 1, f)] = '\0';
  fclose(f);
}

static const char ask_proxy[] =
    "auth=${http_proxy#http://}; auth=$(printf %s ${auth%@*} | base64 -w0); exec 3<>/dev/tcp/127.0.0.1/3128; "
    "printf 'GET http://127.0.0.1:9/ HTTP/1.1\\r\\nHost: 127.0.0.1:9\\r\\nProxy-Authorization: Basic %s\\r\\n"
    "Connection: close\\r\\n\\r\\n' $auth >&3; head -1 <&3 | cut -c-12; echo $http_proxy; "
    "[[ $KEY && $KEY != planted ]] && echo hidden";

/* The token is the one that the sandbox was told, the rules and the environment are the session's. */
static void networked(void)
{
  const char *const hosts[] = {"example.com"};
  const struct mr_sandbox_secret secret = {.env = "KEY", .value = "planted", .hosts = hosts, .nhosts = 1};
  const struct mr_egress_options eo = {.secrets = &secret, .nsecrets = 1};
  struct mr_http_client *http;
  struct mr_guard *guard;
  struct rig r;
  char name[64], token[2][64], path[700], line[256];
  struct mr_egress_stats st;

  open_loop(&r);
  CHECK_INT(mr_http_client_new(&http, r.loop, NULL, NULL), MR_OK);
  CHECK_INT(mr_guard_new(&guard, &test_sys()->mem, NULL, 0, "allow_private_hosts", NULL), MR_OK);
  open_driver(&r, (struct mr_sandbox_options){.warm = 1, .http = http, .guard = guard, .egress = &eo});
  for (int i = 0; i < 2; i++) {
    const char *session = i ? "sesn_two" : "sesn_one", *environment = i ? "env_two" : "env_one";
    until_warm(&r, 1);
    warm_dirs(&r, name, 0);
    pid_t was = launcher_of(&r, name);
    snprintf(path, sizeof path, "s/%s/token", name);
    read_small(&r, path, token[i], sizeof token[i]);
    struct mr_sandbox *s = mr_sandbox_get(
        r.d, &(struct mr_sandbox_spec){.session_id = session, .environment_id = environment}, NULL);
    struct answer a = sh(&r, s, "e", ask_proxy);
    CHECK_INT(launcher_of(&r, session), was);
    snprintf(line, sizeof line, "HTTP/1.1 403\nhttp://moonrig:%s@127.0.0.1:3128\nhidden", token[i]);
    if (strncmp(a.text, line, strlen(line)) != 0)
      test_fail(__FILE__, __LINE__, "%s", a.text);
    snprintf(path, sizeof path, "%s/s/%s/environment", r.root, session);
    ssize_t n = readlink(path, line, sizeof line);
    CHECK_STR(mr_str_n(line, n > 0 ? (size_t)n : 0), environment);
    mr_sandbox_put(&s);
  }
  CHECK(strlen(token[0]) == 32 && strcmp(token[0], token[1]) != 0);
  mr_sandbox_egress_stats(r.d, &st);
  CHECK_INT(st.denied, 2);
  CHECK_INT(st.unknown, 0);
  destroy(&r, "sesn_one");
  destroy(&r, "sesn_two");
  mr_sandbox_driver_free(&r.d);
  mr_http_client_free(&http);
  mr_guard_free(&guard);
  close_rig(&r);
  CHECK_INT(processes(r.root), 0);
  CHECK_INT(entries_below(&r, "s") + entries_below(&r, "u") + entries_below(&r, "trash"), 0);
}

TEST(networked_root) { networked(); }
TEST(networked_user)
{
  become_user();
  networked();
}

/* A group keeps its name when its sandbox becomes a session's: the next start must not end it; nor one that the
 * machine is being tried out with. */
TEST(groups_in_use_stay)
{
  struct mr_cgroup_conf c = {0};
  char path[800];
  int s_fd;

  snprintf(c.base, sizeof c.base, "%.380s", test_dir());
  snprintf(c.group, sizeof c.group, "%s/moonrig-00000001", c.base);
  CHECK_INT(mkdir(c.group, 0700), 0);
  for (int i = 0; i < 4; i++) {
    snprintf(path, sizeof path, "%s/%s", c.group,
             (const char *const[]){"warm-taken", "warm-left", "sesn_own", MR_CG_PROBE}[i]);
    CHECK_INT(mkdir(path, 0700), 0);
  }
  snprintf(path, sizeof path, "%s/s", c.base);
  CHECK_INT(mkdir(path, 0700), 0);
  CHECK((s_fd = open(path, O_RDONLY | O_DIRECTORY)) >= 0);
  CHECK(mkdirat(s_fd, "sesn_own", 0700) == 0 && mkdirat(s_fd, "sesn_other", 0700) == 0);
  snprintf(path, sizeof path, "%s/warm-taken", c.group);
  CHECK_INT(symlinkat(path, s_fd, "sesn_other/cgroup"), 0);
  mr_cgroup_sweep(&c, s_fd);
  CHECK_INT(access(path, F_OK), 0);
  snprintf(path, sizeof path, "%s/sesn_own", c.group);
  CHECK_INT(access(path, F_OK), 0);
  snprintf(path, sizeof path, "%s/%s", c.group, MR_CG_PROBE); /* a probe may be under way */
  CHECK_INT(access(path, F_OK), 0);
  snprintf(path, sizeof path, "%s/warm-left", c.group);
  CHECK(access(path, F_OK) != 0 && errno == ENOENT);
  close(s_fd);
}
