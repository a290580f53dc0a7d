/*
 * link.c - the proxy of a driver, and each sandbox's link to it. envd asks on the link's channel for a stream, one
 * byte for each client it has; a socketpair is made, one end goes to envd, the other is a connection of this link.
 * Descriptors only go to the sandbox: what comes from there is bytes, on sockets that this process made.
 */
#include "sandbox/egress/egress_t.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <unistd.h>

/* ---- the channel ---- */

/* fd -1: there is none for it. */
static bool send_fd(int channel, int fd)
{
  union {
    struct cmsghdr h;
    char room[CMSG_SPACE(sizeof(int))];
  } control = {0};
  char byte = fd >= 0 ? 'y' : 'n';
  struct iovec v = {.iov_base = &byte, .iov_len = 1};
  struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};

  if (fd >= 0) {
    m.msg_control = control.room;
    m.msg_controllen = sizeof control.room;
    struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    h->cmsg_level = SOL_SOCKET;
    h->cmsg_type = SCM_RIGHTS;
    h->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(h), &fd, sizeof fd);
  }
  return sendmsg(channel, &m, MSG_NOSIGNAL | MSG_DONTWAIT) == 1;
}

/* False: the channel is of no use any more. */
static bool give_stream(struct mr_egress_link *k)
{
  struct mr_egress *e = k->e;
  int pair[2];
  bool sent;

  if (k->nconns >= EGRESS_CONNS || e->nconns >= EGRESS_CONNS_ALL ||
      socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0)
    return send_fd(k->channel, -1);
  if (mr_conn_new(k, pair[0], NULL) != MR_OK) {
    close(pair[1]);
    return send_fd(k->channel, -1);
  }
  sent = send_fd(k->channel, pair[1]);
  close(pair[1]); /* unsent: the connection sees its end */
  return sent;
}

static void on_channel(evutil_socket_t fd, short what, void *ud)
{
  struct mr_egress_link *k = ud;
  (void)fd;
  (void)what;
  mr_ready_post(k->e->loop, &k->ready);
}

static void on_ready(struct mr_ready *r)
{
  struct mr_egress_link *k = MR_OF(r, struct mr_egress_link, ready);
  char byte;
  ssize_t n = 1;

  for (int i = 0; i < EGRESS_CONNS; i++) {
    n = recv(k->channel, &byte, 1, MSG_DONTWAIT);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0 || !give_stream(k)) return; /* envd is gone, or does not read: no more streams */
  }
  if (n > 0)
    mr_ready_post(k->e->loop, r);
  else
    event_add(k->rd, NULL);
}

int mr_egress_link_new(struct mr_egress_link **out, struct mr_egress *e, const char *session, const char *token,
                       const struct mr_egress_policy *policy, int *theirs, struct mr_err *err)
{
  struct mr_egress_link *k = mr_mem_zalloc(e->mem, sizeof *k);
  int pair[2];

  *out = NULL;
  if (!k) return mr_err_nomem(err);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) {
    mr_mem_free(e->mem, k);
    return mr_err_errno(err, "socketpair");
  }
  k->e = e;
  k->policy = policy;
  k->channel = pair[0];
  snprintf(k->session, sizeof k->session, "%s", session);
  snprintf(k->token, sizeof k->token, "%s", token);
  mr_ready_init(&k->ready, on_ready);
  k->next = e->links;
  k->link = &e->links;
  if (k->next) k->next->link = &k->next;
  e->links = k;
  k->rd = event_new(mr_loop_base(e->loop), k->channel, EV_READ, on_channel, k);
  if (!k->rd || event_add(k->rd, NULL) != 0) {
    close(pair[1]);
    mr_egress_link_free(&k);
    return mr_err_nomem(err);
  }
  *theirs = pair[1];
  *out = k;
  return MR_OK;
}

void mr_egress_link_free(struct mr_egress_link **kp)
{
  struct mr_egress_link *k = *kp;

  *kp = NULL;
  if (!k) return;
  while (k->conns)
    mr_conn_free(k->conns);
  if (k->rd) event_free(k->rd);
  mr_ready_cancel(k->e->loop, &k->ready);
  close(k->channel);
  *k->link = k->next;
  if (k->next) k->next->link = k->link;
  mr_mem_free(k->e->mem, k);
}

/* ---- what the commands' caller is told ---- */

void mr_egress_note(struct mr_egress_link *k, const char *why)
{
  for (int i = 0; i < k->nnotes; i++)
    if (strcmp(k->notes[i], why) == 0) return;
  if (k->nnotes < EGRESS_NOTES) snprintf(k->notes[k->nnotes++], sizeof k->notes[0], "%s", why);
}

bool mr_egress_link_notes(struct mr_egress_link *k, struct mr_buf *out)
{
  if (!k || !k->nnotes) return false;
  for (int i = 0; i < k->nnotes; i++)
    mr_buf_printf(out, "%s[network] blocked: %s", i ? "\n" : "", k->notes[i]);
  k->nnotes = 0;
  return true;
}

/* ---- the proxy ---- */

static int copy_list(struct mr_arena *a, const struct mr_str *from, int n, struct mr_str **to, int *nto)
{
  *to = mr_arena_alloc(a, ((size_t)n + 1) * sizeof **to);
  for (int i = 0; *to && i < n; i++) {
    (*to)[i] = mr_arena_str(a, from[i]);
    if (!(*to)[i].p) return MR_E_NOMEM;
  }
  *nto = n;
  return *to ? MR_OK : MR_E_NOMEM;
}

int mr_egress_authority(struct mr_egress *e)
{
  struct mr_err err;
  int code = MR_OK;

  if (e->ca) return MR_OK;
  if (!e->tls) code = mr_tls_ctx_new(&e->tls, e->mem, e->ca_file[0] ? e->ca_file : NULL, &err);
  if (code == MR_OK) code = mr_ca_new(&e->ca, e->loop, e->dir, mr_system_roots(), &err);
  if (code != MR_OK)
    mr_log(mr_loop_sys(e->loop), MR_LOG_ERROR, "egress", "secrets cannot be used: %s", err.message);
  return code;
}

const char *mr_egress_roots(const struct mr_egress *e, const struct mr_egress_policy *policy)
{
  return policy->nsecrets && e->ca ? mr_ca_bundle(e->ca) : NULL;
}

int mr_egress_new(struct mr_egress **out, struct mr_loop *l, const struct mr_guard *guard, const char *dir,
                  const struct mr_egress_options *o, struct mr_err *err)
{
  static const struct mr_egress_options none;
  struct mr_egress *e = mr_mem_zalloc(&mr_loop_sys(l)->mem, sizeof *e);
  int code = MR_OK;

  *out = e;
  if (!e) return mr_err_nomem(err);
  if (!o) o = &none;
  e->loop = l;
  e->mem = &mr_loop_sys(l)->mem;
  e->guard = guard;
  e->own = o->own;
  e->own_ud = o->own_ud;
  snprintf(e->dir, sizeof e->dir, "%s", dir);
  snprintf(e->ca_file, sizeof e->ca_file, "%s", o->ca_file ? o->ca_file : "");
  e->arena = mr_arena_new(e->mem, 512);
  for (int i = 0; i < o->nports && i < EGRESS_PORTS; i++)
    e->conf.ports[e->conf.nports++] = (struct mr_port_range){o->ports[i][0], o->ports[i][1]};
  if (!e->arena ||
      copy_list(e->arena, o->blocked_hosts, o->nblocked_hosts, &e->conf.blocked, &e->conf.nblocked) ||
      copy_list(e->arena, o->package_hosts, o->npackage_hosts, &e->conf.packages, &e->conf.npackages) ||
      mr_secrets_copy(e->arena, o->secrets, o->nsecrets, &e->conf.secrets, &e->conf.nsecrets))
    code = mr_err_nomem(err);
  e->conf.packages_known = o->package_hosts != NULL;
  if (code == MR_OK) code = mr_dialer_new(&e->dialer, l, err);
  if (code == MR_OK && e->conf.nsecrets && mr_egress_authority(e) != MR_OK)
    code =
        mr_err_set(err, MR_E_INVALID, "egress.credentials", "egress.credentials cannot be used: see the log");
  if (code != MR_OK) mr_egress_free(out);
  return code;
}

void mr_egress_free(struct mr_egress **ep)
{
  struct mr_egress *e = *ep;

  *ep = NULL;
  if (!e) return;
  while (e->links) {
    struct mr_egress_link *k = e->links;
    mr_egress_link_free(&k);
  }
  mr_registries_free(&e->registries);
  mr_dialer_free(&e->dialer);
  mr_ca_free(&e->ca);
  mr_tls_ctx_free(&e->tls);
  mr_arena_free(&e->arena);
  mr_mem_free(e->mem, e);
}

void mr_egress_stats(const struct mr_egress *e, struct mr_egress_stats *out)
{
  *out = e->stats;
}
