/*
 * tls.c - TLS of the tunnels that are opened for a secret, see tls.h. OpenSSL works on memory alone: sockets stay the
 * business of side.c. HTTP/1.1 is the one protocol offered to either end. A server is verified by the machine's roots
 * and its name, as the client inside would have done.
 */
#include "sandbox/egress/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>

enum { PIECE = 16 << 10 };

struct mr_tls_ctx {
  const struct mr_mem *mem;
  SSL_CTX *server, *client;
};
struct mr_tls {
  const struct mr_mem *mem;
  SSL *ssl;
  BIO *in, *out; /* the ssl's */
  bool over;
  char why[200];
};

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

int mr_tls_ctx_new(struct mr_tls_ctx **out, const struct mr_mem *m, const char *roots, struct mr_err *err)
{
  struct mr_tls_ctx *c = mr_mem_zalloc(m, sizeof *c);
  bool ok;

  *out = c;
  if (!c) return mr_err_nomem(err);
  c->mem = m;
  OPENSSL_init_ssl(OPENSSL_INIT_NO_ATEXIT, NULL);
  c->server = SSL_CTX_new(TLS_server_method());
  c->client = SSL_CTX_new(TLS_client_method());
  ok = c->server && c->client && SSL_CTX_set_min_proto_version(c->server, TLS1_2_VERSION) &&
       SSL_CTX_set_min_proto_version(c->client, TLS1_2_VERSION) &&
       (roots ? SSL_CTX_load_verify_locations(c->client, roots, NULL)
              : SSL_CTX_set_default_verify_paths(c->client));
  ERR_clear_error();
  if (!ok) {
    mr_tls_ctx_free(out);
    return mr_err_set(err, MR_E_INVALID, NULL, "TLS for sandboxes: %s cannot be used",
                      roots ? roots : "OpenSSL");
  }
  SSL_CTX_set_verify(c->client, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_session_cache_mode(c->server, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(c->server, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET);
  SSL_CTX_set_options(c->client, SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_NO_RENEGOTIATION);
  SSL_CTX_set_mode(c->server, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_mode(c->client, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_select_cb(c->server, alpn, NULL);
  return MR_OK;
}

void mr_tls_ctx_free(struct mr_tls_ctx **cp)
{
  struct mr_tls_ctx *c = *cp;

  *cp = NULL;
  if (!c) return;
  SSL_CTX_free(c->server);
  SSL_CTX_free(c->client);
  mr_mem_free(c->mem, c);
}

static struct mr_tls *make(struct mr_tls_ctx *c, SSL_CTX *ctx)
{
  struct mr_tls *t = mr_mem_zalloc(c->mem, sizeof *t);

  if (!t) return NULL;
  t->mem = c->mem;
  t->ssl = SSL_new(ctx);
  t->in = BIO_new(BIO_s_mem());
  t->out = BIO_new(BIO_s_mem());
  if (t->ssl && t->in && t->out) {
    SSL_set_bio(t->ssl, t->in, t->out);
    return t;
  }
  BIO_free(t->in);
  BIO_free(t->out);
  mr_tls_free(&t);
  return NULL;
}

struct mr_tls *mr_tls_accept(struct mr_tls_ctx *c, struct mr_ca *a, const char *host)
{
  struct mr_tls *t = make(c, c->server);
  X509 *cert;
  EVP_PKEY *key;

  if (!t) return NULL;
  SSL_set_accept_state(t->ssl);
  if (!mr_ca_leaf(a, host, &cert, &key) || SSL_use_certificate(t->ssl, cert) != 1 ||
      SSL_use_PrivateKey(t->ssl, key) != 1)
    mr_tls_free(&t);
  ERR_clear_error();
  return t;
}

struct mr_tls *mr_tls_connect(struct mr_tls_ctx *c, const char *host)
{
  static const unsigned char http[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  struct mr_tls *t = make(c, c->client);

  if (!t) return NULL;
  SSL_set_connect_state(t->ssl);
  SSL_set_hostflags(t->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  if (SSL_set1_host(t->ssl, host) != 1 || SSL_set_tlsext_host_name(t->ssl, host) != 1 ||
      SSL_set_alpn_protos(t->ssl, http, sizeof http) != 0)
    mr_tls_free(&t);
  ERR_clear_error();
  return t;
}

void mr_tls_free(struct mr_tls **tp)
{
  struct mr_tls *t = *tp;

  *tp = NULL;
  if (!t) return;
  SSL_free(t->ssl);
  mr_mem_free(t->mem, t);
}

/* ---- bytes ---- */

static bool drain(struct mr_tls *t, struct mr_buf *raw)
{
  char *p;
  int n;

  while (BIO_ctrl_pending(t->out) > 0) {
    p = mr_buf_reserve(raw, PIECE);
    n = p ? BIO_read(t->out, p, PIECE) : -1;
    if (n <= 0) return false;
    raw->n += (size_t)n;
  }
  return true;
}

/* False: it is broken, and why says so. The queue of errors is the thread's: nothing of it is left. */
static bool fine(struct mr_tls *t, int r)
{
  int e = SSL_get_error(t->ssl, r);
  long verified = SSL_get_verify_result(t->ssl);
  const char *why = ERR_reason_error_string(ERR_peek_last_error());

  if (e == SSL_ERROR_ZERO_RETURN) t->over = true;
  if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE && e != SSL_ERROR_ZERO_RETURN)
    snprintf(t->why, sizeof t->why, "%s",
             verified != X509_V_OK ? X509_verify_cert_error_string(verified)
             : why                 ? why
                                   : "TLS failed");
  ERR_clear_error();
  return !t->why[0];
}

bool mr_tls_take(struct mr_tls *t, struct mr_str cipher, struct mr_buf *plain, struct mr_buf *raw)
{
  bool ok = !t->why[0];
  char *p;
  int r = 1;

  if (ok && cipher.n) ok = BIO_write(t->in, cipher.p, (int)cipher.n) == (int)cipher.n;
  while (ok && r > 0 && !t->over) {
    p = mr_buf_reserve(plain, PIECE);
    if (!p) return false;
    ERR_clear_error();
    r = SSL_read(t->ssl, p, PIECE);
    if (r > 0)
      plain->n += (size_t)r;
    else
      ok = fine(t, r);
  }
  return drain(t, raw) && ok; /* an alert has to leave, too */
}

bool mr_tls_put(struct mr_tls *t, struct mr_buf *plain, struct mr_buf *raw)
{
  bool ok = !t->why[0];
  int r = 1;

  while (ok && plain->n && SSL_is_init_finished(t->ssl) && r > 0) {
    ERR_clear_error();
    r = SSL_write(t->ssl, plain->p, plain->n > PIECE ? PIECE : (int)plain->n);
    if (r > 0)
      mr_buf_drop(plain, (size_t)r);
    else
      ok = fine(t, r);
  }
  return drain(t, raw) && ok;
}

void mr_tls_end(struct mr_tls *t, struct mr_buf *raw)
{
  if (SSL_is_init_finished(t->ssl) && !t->why[0]) SSL_shutdown(t->ssl);
  ERR_clear_error();
  drain(t, raw);
}

bool mr_tls_up(const struct mr_tls *t)
{
  return SSL_is_init_finished(t->ssl);
}

bool mr_tls_over(const struct mr_tls *t)
{
  return t->over;
}

const char *mr_tls_why(const struct mr_tls *t)
{
  return t->why;
}
