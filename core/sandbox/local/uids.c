/*
 * uids.c - host uids of sandboxes when the server was started as root: one per session, for as long as
 * the session's files exist. The registry is the directory <root>/u: a symbolic link named by the uid
 * whose text is the session id; making one is atomic, on disk and between threads. Pool threads.
 */
#include "sandbox/local/local_t.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void uid_name(int64_t uid, char out[24])
{
  snprintf(out, 24, "%lld", (long long)uid);
}

static bool is_ours(const struct mr_local_conf *c, const char *name, const char *session)
{
  char text[MR_SESSION_MAX];
  ssize_t n = readlinkat(c->u_fd, name, text, sizeof text);

  return n > 0 && (size_t)n < sizeof text && mr_str_is(mr_str_n(text, (size_t)n), session);
}

int mr_local_uid_get(const struct mr_local_conf *c, const char *session, int64_t have, int64_t *uid,
                     struct mr_err *err)
{
  uint64_t h = 1469598103934665603u;
  int64_t n = c->uid_count - 1; /* the first is the probe's */
  char name[24];

  if (have > c->uid_first && have < c->uid_first + c->uid_count) {
    uid_name(have, name);
    if (is_ours(c, name, session) || symlinkat(session, c->u_fd, name) == 0) {
      *uid = have;
      return MR_OK;
    }
  }
  for (const char *p = session; *p; p++)
    h = (h ^ (unsigned char)*p) * 1099511628211u;
  for (int64_t i = 0; i < n; i++) {
    *uid = c->uid_first + 1 + (int64_t)((h + (uint64_t)i) % (uint64_t)n);
    uid_name(*uid, name);
    if (symlinkat(session, c->u_fd, name) == 0) return MR_OK;
    if (errno != EEXIST) return mr_err_errno(err, "registering a uid for the sandbox");
    if (is_ours(c, name, session)) return MR_OK; /* a crash came between the registration and the workspace */
  }
  return mr_err_set(err, MR_E_FULL, "sandbox.uid_count",
                    "all %lld host uids for sandboxes are in use: delete sessions, or raise sandbox.uid_count",
                    (long long)n);
}

int mr_local_uid_move(const struct mr_local_conf *c, int64_t uid, const char *from, const char *to)
{
  char name[24], tmp[32];

  uid_name(uid, name);
  if (!is_ours(c, name, from)) return MR_E_STATE;
  snprintf(tmp, sizeof tmp, "%s.new", name);
  unlinkat(c->u_fd, tmp, 0);
  return symlinkat(to, c->u_fd, tmp) == 0 && renameat(c->u_fd, tmp, c->u_fd, name) == 0 ? MR_OK : MR_E_IO;
}

void mr_local_uid_drop(const struct mr_local_conf *c, const char *session, int64_t have)
{
  char name[24];

  uid_name(have, name);
  if (is_ours(c, name, session)) unlinkat(c->u_fd, name, 0);
}
