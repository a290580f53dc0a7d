/* http_io.c - see http_io.h. OpenSSL reads and writes through a BIO of our own, so that a broken connection
 * is an error and not a SIGPIPE; its method table belongs to the listener, not to the process. */
#include "net/http_io.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

struct mr_http_tls {
  const struct mr_mem *mem;
  SSL_CTX *ctx;
  BIO_METHOD *bio;
  int refs;                      /* the listener's, and each connection's: a BIO needs its method table */
};

static int64_t outcome(ssize_t n)
{
  if (n >= 0)
    return n;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? MR_IO_AGAIN : MR_IO_ERROR;
}

static int bio_write(BIO *b, const char *p, int n)
{
  ssize_t r = send((int)(intptr_t)BIO_get_data(b), p, (size_t)n, MSG_NOSIGNAL);

  BIO_clear_retry_flags(b);
  if (r < 0 && outcome(r) == MR_IO_AGAIN)
    BIO_set_retry_write(b);
  return (int)r;
}

static int bio_read(BIO *b, char *p, int n)
{
  ssize_t r = recv((int)(intptr_t)BIO_get_data(b), p, (size_t)n, 0);

  BIO_clear_retry_flags(b);
  if (r < 0 && outcome(r) == MR_IO_AGAIN)
    BIO_set_retry_read(b);
  return (int)r;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
  (void)b;
  (void)num;
  (void)ptr;
  return cmd == BIO_CTRL_FLUSH || cmd == BIO_CTRL_DUP;
}

static int bio_create(BIO *b)
{
  BIO_set_init(b, 1);
  return 1;
}

int mr_http_io_init(struct mr_http_io *io, int fd, struct mr_http_tls *tls)
{
  BIO *bio;
  SSL *ssl;

  *io = (struct mr_http_io){.fd = fd};
  if (!tls)
    return MR_OK;
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

static int64_t tls_outcome(struct mr_http_io *io, int r)
{
  int e = SSL_get_error(io->ssl, r);

  ERR_clear_error();
  if (e == SSL_ERROR_WANT_WRITE)
    io->want_write = true;
  if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE)
    return MR_IO_AGAIN;
  return e == SSL_ERROR_ZERO_RETURN ? 0 : MR_IO_ERROR;
}

int64_t mr_http_io_read(struct mr_http_io *io, char *buf, size_t n)
{
  int r;

  if (!io->ssl)
    return outcome(recv(io->fd, buf, n, 0));
  ERR_clear_error();
  r = SSL_read(io->ssl, buf, (int)n);
  return r > 0 ? r : tls_outcome(io, r);
}

int64_t mr_http_io_write(struct mr_http_io *io, const char *buf, size_t n)
{
  int r;

  if (!io->ssl)
    return outcome(send(io->fd, buf, n, MSG_NOSIGNAL));
  ERR_clear_error();
  io->want_write = false;
  r = SSL_write(io->ssl, buf, n > INT32_MAX ? INT32_MAX : (int)n);
  if (r > 0)
    return r;
  r = (int)tls_outcome(io, r);
  return r == 0 ? MR_IO_ERROR : r;
}

void mr_http_io_shutdown(struct mr_http_io *io)
{
  if (io->ssl && SSL_is_init_finished(io->ssl)) {
    SSL_shutdown(io->ssl);
    ERR_clear_error();
  }
  shutdown(io->fd, SHUT_WR);
}

void mr_http_io_close(struct mr_http_io *io)
{
  SSL_free(io->ssl);
  io->ssl = NULL;
  mr_http_tls_free(&io->tls);
  if (io->fd >= 0)
    close(io->fd);
  io->fd = -1;
}

/* ---- certificates ---- */

static int refuse(struct mr_err *err, const char *field, const char *path)
{
  char why[160];

  ERR_error_string_n(ERR_get_error(), why, sizeof why);
  ERR_clear_error();
  return mr_err_set(err, MR_E_INVALID, field, "%s: %s cannot be used: %s", field, path, why);
}

static int load(SSL_CTX *ctx, const char *cert, const char *key, struct mr_err *err)
{
  if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1)
    return refuse(err, "tls_cert", cert);
  if (SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
    return refuse(err, "tls_key", key);
  if (SSL_CTX_check_private_key(ctx) != 1)
    return mr_err_set(err, MR_E_INVALID, "tls_key", "tls_key: %s is not the key of %s", key, cert);
  return MR_OK;
}

static int alpn(SSL *ssl, const unsigned char **out, unsigned char *n, const unsigned char *in, unsigned int nin,
                void *ud)
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
  if (!t)
    return mr_err_nomem(err);
  t->mem = m;
  t->refs = 1;
  ERR_clear_error();
  t->ctx = SSL_CTX_new(TLS_server_method());
  t->bio = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "moonrig");
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
  SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_alpn_select_cb(t->ctx, alpn, NULL);
  code = load(t->ctx, cert, key, err);
out:
  if (code != MR_OK)
    mr_http_tls_free(&t);
  *out = t;
  return code;
}

void mr_http_tls_free(struct mr_http_tls **tp)
{
  struct mr_http_tls *t = *tp;

  *tp = NULL;
  if (!t || --t->refs > 0)
    return;
  SSL_CTX_free(t->ctx);
  BIO_meth_free(t->bio);
  mr_mem_free(t->mem, t);
}
