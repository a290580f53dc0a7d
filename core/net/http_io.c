/* http_io.c - see http_io.h. OpenSSL reads and writes through a BIO of our own, so that a broken connection
 * is an error and not a SIGPIPE; its method table belongs to the listener, not to the process. */
#include "net/http_io.h"

#include <errno.h>
#include <linux/sockios.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct mr_http_tls {
  const struct mr_mem *mem;
  SSL_CTX *ctx;
  BIO_METHOD *bio;
  int refs; /* the listener's, and each connection's: a BIO needs its method table */
};

static int64_t outcome(ssize_t n)
{
  if (n >= 0) return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? MR_IO_AGAIN : MR_IO_ERROR;
}

static int bio_write(BIO *b, const char *p, int n)
{
  ssize_t r = send((int)(intptr_t)BIO_get_data(b), p, (size_t)n, MSG_NOSIGNAL);

  BIO_clear_retry_flags(b);
  if (r < 0 && outcome(r) == MR_IO_AGAIN) BIO_set_retry_write(b);
  return (int)r;
}

static int bio_read(BIO *b, char *p, int n)
{
  ssize_t r = recv((int)(intptr_t)BIO_get_data(b), p, (size_t)n, 0);

  BIO_clear_retry_flags(b);
  if (r < 0 && outcome(r) == MR_IO_AGAIN) BIO_set_retry_read(b);
  BIO_set_shutdown(b, r == 0); /* means "at its end" here: OpenSSL asks by BIO_CTRL_EOF */
  return (int)r;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
  (void)num;
  (void)ptr;
  if (cmd == BIO_CTRL_EOF) return BIO_get_shutdown(b);
  return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static int bio_create(BIO *b)
{
  BIO_set_init(b, 1);
  BIO_set_shutdown(b, 0);
  return 1;
}

int mr_http_io_init(struct mr_http_io *io, int fd, struct mr_http_tls *tls)
{
  BIO *bio;
  SSL *ssl;

  *io = (struct mr_http_io){.fd = fd};
  if (!tls) return MR_OK;
  ssl = SSL_new(tls->ctx);
  bio = BIO_new(tls->bio);
  if (!ssl || !bio) {
    SSL_free(ssl);
    BIO_free(bio);
    return MR_E_NOMEM;
  }
  BIO_set_data(bio, (void *)(intptr_t)fd);
  SSL_set_bio(ssl, bio, bio);
  SSL_set_accept_state(ssl);
  tls->refs++;
  io->tls = tls;
  io->ssl = ssl;
  return MR_OK;
}

/* The queue of errors belongs to the thread, and the thread may be a host's: leave nothing in it. */
static int64_t tls_outcome(struct mr_http_io *io, int r)
{
  int e = SSL_get_error(io->ssl, r);

  ERR_clear_error();
  if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) return MR_IO_AGAIN;
  return e == SSL_ERROR_ZERO_RETURN ? 0 : MR_IO_ERROR;
}

int64_t mr_http_io_read(struct mr_http_io *io, char *buf, size_t n)
{
  int r;

  if (!io->ssl) return outcome(recv(io->fd, buf, n, 0));
  ERR_clear_error();
  r = SSL_read(io->ssl, buf, n > INT32_MAX ? INT32_MAX : (int)n);
  io->want_write = r <= 0 && SSL_want_write((SSL *)io->ssl);
  return r > 0 ? r : tls_outcome(io, r);
}

int64_t mr_http_io_writev(struct mr_http_io *io, const struct iovec *v, int n)
{
  struct msghdr m = {.msg_iov = (struct iovec *)(uintptr_t)v, .msg_iovlen = (size_t)n};
  return outcome(sendmsg(io->fd, &m, MSG_NOSIGNAL));
}

int64_t mr_http_io_write(struct mr_http_io *io, const char *buf, size_t n)
{
  int r;

  if (!io->ssl) return outcome(send(io->fd, buf, n, MSG_NOSIGNAL));
  ERR_clear_error();
  r = SSL_write(io->ssl, buf, n > INT32_MAX ? INT32_MAX : (int)n);
  if (r > 0) return r;
  r = (int)tls_outcome(io, r);
  return r == 0 ? MR_IO_ERROR : r;
}

bool mr_http_io_handshake(const struct mr_http_io *io)
{
  return io->ssl && !SSL_is_init_finished(io->ssl);
}

bool mr_http_io_hung_up(const struct mr_http_io *io)
{
  struct pollfd p = {.fd = io->fd};
  return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR)) != 0;
}

int mr_http_io_unsent(const struct mr_http_io *io)
{
  int n = 0;
  return ioctl(io->fd, SIOCOUTQ, &n) == 0 ? n : 0;
}

void mr_http_io_shutdown(struct mr_http_io *io)
{
  if (io->ssl && SSL_is_init_finished(io->ssl)) {
    ERR_clear_error();
    SSL_shutdown(io->ssl);
    ERR_clear_error();
  }
  shutdown(io->fd, SHUT_WR);
}

void mr_http_io_close(struct mr_http_io *io, bool reset)
{
  const struct linger now = {.l_onoff = 1};

  if (reset && io->fd >= 0) setsockopt(io->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  SSL_free(io->ssl);
  io->ssl = NULL;
  mr_http_tls_free(&io->tls);
  if (io->fd >= 0) close(io->fd);
  io->fd = -1;
}

/* ---- certificates ---- */

static int refuse(struct mr_err *err, const char *field, const char *path)
{
  unsigned long e = ERR_peek_error();
  const char *why = ERR_reason_error_string(e);

  if (ERR_SYSTEM_ERROR(e)) why = strerror(ERR_GET_REASON(e));
  ERR_clear_error();
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s cannot be used: %s", field, path,
                    why ? why : "not a PEM file");
}

/* OpenSSL would ask on the terminal. */
static int no_password(char *buf, int size, int writing, void *ud)
{
  (void)buf;
  (void)size;
  (void)writing;
  *(bool *)ud = true;
  return -1;
}

static int load(SSL_CTX *ctx, const char *cert, const char *key, struct mr_err *err)
{
  bool encrypted = false;
  int code = MR_OK;

  SSL_CTX_set_default_passwd_cb(ctx, no_password);
  SSL_CTX_set_default_passwd_cb_userdata(ctx, &encrypted);
  if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
    code = refuse(err, "tls_cert", cert);
  else if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1 && encrypted)
    code = mr_err_set(err, MR_E_INVALID, "tls_key", "tls_key: %s has a password: give a key without one", key);
  else if (SSL_CTX_get0_privatekey(ctx) == NULL)
    code = refuse(err, "tls_key", key);
  else if (SSL_CTX_check_private_key(ctx) != 1)
    code = mr_err_set(err, MR_E_INVALID, "tls_key", "tls_key: %s is not the key of %s", key, cert);
  SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
  ERR_clear_error();
  return code;
}

static int alpn(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in,
                unsigned int nin, void *ud)
{
  static const unsigned char http[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

  (void)ssl;
  (void)ud;
  return SSL_select_next_proto((unsigned char **)(uintptr_t)out, n, http, sizeof http, in, nin) ==
                 OPENSSL_NPN_NEGOTIATED
             ? SSL_TLSEXT_ERR_OK
             : SSL_TLSEXT_ERR_NOACK;
}

int mr_http_tls_new(struct mr_http_tls **out, const struct mr_mem *m, const char *cert, const char *key,
                    struct mr_err *err)
{
  struct mr_http_tls *t = mr_mem_zalloc(m, sizeof *t);
  int code;

  *out = NULL;
  if (!t) return mr_err_nomem(err);
  t->mem = m;
  t->refs = 1;
  OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
  ERR_clear_error();
  t->ctx = SSL_CTX_new(TLS_server_method());
  /* No index of its own: a process has few of them, and nobody looks for this type. */
  t->bio = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "moonrig");
  if (!t->ctx || !t->bio) {
    code = mr_err_nomem(err);
    goto out;
  }
  BIO_meth_set_write(t->bio, bio_write);
  BIO_meth_set_read(t->bio, bio_read);
  BIO_meth_set_ctrl(t->bio, bio_ctrl);
  BIO_meth_set_create(t->bio, bio_create);
  SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
  SSL_CTX_set_mode(t->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                               SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF); /* tickets do it, without memory */
  SSL_CTX_set_alpn_select_cb(t->ctx, alpn, NULL);
  code = load(t->ctx, cert, key, err);
out:
  if (code != MR_OK) mr_http_tls_free(&t);
  *out = t;
  return code;
}

void mr_http_tls_free(struct mr_http_tls **tp)
{
  struct mr_http_tls *t = *tp;

  *tp = NULL;
  if (!t || --t->refs > 0) return;
  SSL_CTX_free(t->ctx);
  BIO_meth_free(t->bio);
  mr_mem_free(t->mem, t);
}
