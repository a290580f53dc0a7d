/*
 * net_tls - TLS: certificates made here (an authority, and a server's signed by it), our own HTTP client
 * (libcurl) and raw OpenSSL clients against the server in one loop.
 */
#include "net_kit.h"
#include "base/err.h"
#include "net/http_client.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* ---- certificates ---- */

static char ca_pem[300], cert_pem[300], key_pem[300], other_key[300], locked_key[300], both_pem[300];

static X509 *make_cert(EVP_PKEY *key, const char *name, const char *san, X509 *ca, EVP_PKEY *ca_key)
{
  X509 *x = X509_new();
  X509V3_CTX ctx;
  X509_EXTENSION *e;
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), ca ? 2 : 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x), 3600 * 24);
  X509_set_pubkey(x, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
  X509_set_issuer_name(x, X509_get_subject_name(ca ? ca : x));
  X509V3_set_ctx(&ctx, ca ? ca : x, x, NULL, NULL, 0);
  e = ca ? X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_alt_name, san)
         : X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, "critical,CA:TRUE");
  CHECK(e);
  X509_add_ext(x, e, -1);
  X509_EXTENSION_free(e);
  CHECK(X509_sign(x, ca_key, EVP_sha256()) > 0);
  return x;
}

static void put_cert(const char *path, X509 *x)
{
  FILE *f = fopen(path, "w");
  CHECK(f && PEM_write_X509(f, x) == 1);
  fclose(f);
}

static void put_key(const char *path, EVP_PKEY *k, const char *password, const char *mode)
{
  FILE *f = fopen(path, mode);
  CHECK(f && PEM_write_PrivateKey(f, k, password ? EVP_aes_128_cbc() : NULL, (const unsigned char *)password,
                                  password ? (int)strlen(password) : 0, NULL, NULL) == 1);
  fclose(f);
}

static void make_files(void)
{
  EVP_PKEY *ca_key = EVP_EC_gen("P-256"), *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
  X509 *ca = make_cert(ca_key, "test authority", NULL, NULL, ca_key);
  X509 *cert = make_cert(key, "localhost", "DNS:localhost,IP:127.0.0.1", ca, ca_key);
  const struct { char *path; const char *name; } names[] = {
      {ca_pem, "ca.pem"}, {cert_pem, "cert.pem"}, {key_pem, "key.pem"},
      {other_key, "other.pem"}, {locked_key, "locked.pem"}, {both_pem, "both.pem"}};
  for (size_t i = 0; i < 6; i++) snprintf(names[i].path, 300, "%s/%s", test_dir(), names[i].name);
  put_cert(ca_pem, ca);
  put_cert(cert_pem, cert);
  put_cert(both_pem, cert);
  put_key(key_pem, key, NULL, "w");
  put_key(both_pem, key, NULL, "a");
  put_key(other_key, other, NULL, "w");
  put_key(locked_key, key, "secret", "w");
  X509_free(ca);
  X509_free(cert);
  EVP_PKEY_free(ca_key);
  EVP_PKEY_free(key);
  EVP_PKEY_free(other);
}

static void tls_start(struct mr_http_server_opts o)
{
  make_files();
  listen_with = (struct mr_http_listen){.tls_cert = cert_pem, .tls_key = key_pem};
  kit_start(o, "127.0.0.1:0");
  CHECK(strncmp(url, "https://127.0.0.1:", 18) == 0);
}

/* ---- a raw client ---- */

static SSL_CTX *client_ctx;
static SSL *ssl_on(int fd, int max_version)
{
  if (!client_ctx) {
    client_ctx = SSL_CTX_new(TLS_client_method());
    CHECK_INT(SSL_CTX_load_verify_file(client_ctx, ca_pem), 1);
    SSL_CTX_set_verify(client_ctx, SSL_VERIFY_PEER, NULL);
  }
  SSL *s = SSL_new(client_ctx);
  SSL_set_fd(s, fd);
  SSL_set_min_proto_version(s, TLS1_VERSION);
  SSL_set_security_level(s, 0); /* so that a client may try what is too old */
  if (max_version) SSL_set_max_proto_version(s, max_version);
  SSL_set_connect_state(s);
  return s;
}

static bool shake(SSL *s)
{
  for (int i = 0; i < 3000; i++) {
    int r = SSL_do_handshake(s), e = SSL_get_error(s, r);
    if (r == 1) return true;
    if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) return false;
    turn(1);
  }
  return false;
}

static void ssl_say(SSL *s, struct mr_str text)
{
  while (text.n) {
    int n = SSL_write(s, text.p, text.n > 20000 ? 20000 : (int)text.n);
    if (n > 0) text.p += n, text.n -= (size_t)n;
    else turn(1);
  }
}

/* Until text, or n bytes, or (neither) an orderly end. */
static bool ssl_hear(SSL *s, const char *text, size_t want)
{
  for (int i = 0; i < 6000; i++) {
    turn(1);
    int n = SSL_read(s, got + ngot, 100000);
    if (n > 0) ngot += (size_t)n;
    got[ngot] = '\0';
    if (text && strstr(got, text)) return true;
    if (want && ngot >= want) return true;
    if (n <= 0) {
      int e = SSL_get_error(s, n);
      if (e == SSL_ERROR_ZERO_RETURN) return !text && !want;
      if (e != SSL_ERROR_WANT_READ && e != SSL_ERROR_WANT_WRITE) return false;
      if (i > 1000) usleep(200);
    }
  }
  return false;
}

#define GET(path) "GET " path " HTTP/1.1\r\nhost: x\r\n\r\n"

TEST(exchanges_on_one_connection)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial();
  SSL *s = ssl_on(fd, 0);
  CHECK(shake(s));
  CHECK_INT(SSL_version(s), TLS1_3_VERSION);
  fresh();
  ssl_say(s, MR_S(GET("/query?a") GET("/query?b")));
  CHECK(ssl_hear(s, "\r\n\r\nb", 0));
  fresh();
  ssl_say(s, MR_S("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n\r\n"));
  static char body[900000];
  memset(body, 't', sizeof body);
  ssl_say(s, mr_str_n(body, sizeof body));
  CHECK(ssl_hear(s, NULL, sizeof body + 50));
  CHECK_INT(strspn(strstr(got, "\r\n\r\n") + 4, "t"), sizeof body);
  fresh();
  ssl_say(s, MR_S("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
  CHECK(ssl_hear(s, NULL, 0)); /* close_notify, not a cut */
  CHECK(strstr(got, "hello"));
  SSL_free(s);
  close(fd);
  kit_stop();
}

TEST(large_answer_to_a_slow_reader)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial(), small = 1 << 15;
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  SSL *s = ssl_on(fd, TLS1_2_VERSION);
  CHECK(shake(s));
  CHECK_INT(SSL_version(s), TLS1_2_VERSION);
  fresh();
  ssl_say(s, MR_S(GET("/big?9000000") GET("/query?after")));
  turn(20);
  CHECK(ssl_hear(s, "\r\n\r\nafter", 0));
  const char *body = strstr(got, "\r\n\r\n") + 4;
  for (size_t i = 0; i < 9000000; i++)
    if (body[i] != (char)('a' + i % 23)) test_fail(__FILE__, __LINE__, "byte %zu is wrong", i);
  SSL_free(s);
  close(fd);
  kit_stop();
}

TEST(paused_body)
{
  static char body[500000];
  tls_start((struct mr_http_server_opts){0});
  int fd = dial(), left = sizeof body;
  SSL *s = ssl_on(fd, 0);
  CHECK(shake(s));
  pause_body = true;
  memset(body, 'p', sizeof body);
  ssl_say(s, MR_S("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 500000\r\n\r\n"));
  for (int i = 0; i < 100000 && !complete_n; i++) {
    int n = left ? SSL_write(s, body + sizeof body - left, left > 16000 ? 16000 : left) : 0;
    if (n > 0) left -= n;
    turn(1);
    if (held && i % 5 == 0) mr_http_body_resume(held);
  }
  CHECK(paused_pieces > 10);
  fresh();
  CHECK(ssl_hear(s, NULL, sizeof body + 50));
  SSL_free(s);
  close(fd);
  kit_stop();
}

TEST(streams)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial();
  SSL *s = ssl_on(fd, 0);
  CHECK(shake(s));
  fresh();
  ssl_say(s, MR_S(GET("/sse")));
  CHECK(ssl_hear(s, "\r\n\r\n", 0));
  for (int i = 1; i <= 3; i++) {
    mr_sse_event(stream, MR_S("x"), i, MR_S("{}"));
    turn(3);
  }
  CHECK(ssl_hear(s, "id: 3\n", 0));
  SSL_shutdown(s); /* the reader leaves */
  close(fd);
  CHECK(until(&stream_closed, 1));
  SSL_free(s);
  kit_stop();
}

TEST(old_versions_are_refused)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial();
  SSL *s = ssl_on(fd, TLS1_1_VERSION);
  CHECK(!shake(s));
  SSL_free(s);
  close(fd);
  turn(20);
  CHECK_INT(opened, 0);
  kit_stop();
}

TEST(http_on_a_tls_port_and_garbage)
{
  tls_start((struct mr_http_server_opts){0});
  const char *say_it[] = {GET("/"), "", "\x16\x03\x01", "\x16\x03\x01\xff\xff garbage garbage garbage garbage", "\x80\x01"};
  for (size_t i = 0; i < sizeof say_it / sizeof *say_it; i++) {
    int fd = dial();
    say(fd, mr_str_c(say_it[i]));
    turn(10);
    close(fd);
    turn(5);
  }
  int fd = dial();
  SSL *s = ssl_on(fd, 0);
  CHECK(shake(s));
  fresh();
  ssl_say(s, MR_S(GET("/")));
  CHECK(ssl_hear(s, "hello", 0));
  CHECK_INT(opened, 1);
  SSL_free(s);
  close(fd);
  kit_stop();
}

TEST(slow_handshakes_end)
{
  test_clock_set(1000000, 1000000);
  tls_start((struct mr_http_server_opts){.header_ms = 2000, .idle_ms = 60000});
  struct mr_http_server_stats st;
  int fd = dial(), good = dial();
  SSL *s = ssl_on(good, 0);
  say(fd, MR_S("\x16\x03\x01"));
  CHECK(shake(s));
  turn(20);
  test_clock_set(3100000, 3100000);
  turn(20);
  mr_http_server_stats(server, &st);
  CHECK_INT(st.connections, 1); /* who has shaken hands may be idle */
  fresh();
  ssl_say(s, MR_S(GET("/")));
  CHECK(ssl_hear(s, "hello", 0));
  SSL_free(s);
  close(fd);
  close(good);
  kit_stop();
}

TEST(handshake_byte_by_byte)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial();
  SSL *s = ssl_on(fd, 0);
  BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
  SSL_set_bio(s, in, out);
  bool done = false, asked = false;
  char answer[4096] = "";
  for (int i = 0; i < 20000 && !strstr(answer, "hello"); i++) {
    char c[4096];
    if (!done) done = SSL_do_handshake(s) == 1;
    if (done && !asked) asked = SSL_write(s, GET("/"), sizeof GET("/") - 1) > 0;
    bool said = BIO_read(out, c, 1) == 1;
    if (said) CHECK_INT(send(fd, c, 1, 0), 1);
    turn(1);
    ssize_t n = recv(fd, c, sizeof c, 0);
    if (n > 0) BIO_write(in, c, (int)n);
    else if (!said) usleep(500); /* all is on the way */
    if (asked) {
      int k = SSL_read(s, c, sizeof c - 1);
      if (k > 0) snprintf(answer, sizeof answer, "%.*s", k, c);
    }
  }
  CHECK(strstr(answer, "hello"));
  SSL_free(s);
  close(fd);
  kit_stop();
}

TEST(freed_in_every_state)
{
  tls_start((struct mr_http_server_opts){0});
  int fd[5];
  SSL *s[5];
  const char *text[] = {"GET / HT", GET("/hold"), GET("/sse"), GET("/big?20000000"), "nonsense\r\n\r\n"};
  for (int i = 0; i < 5; i++) {
    fd[i] = dial();
    s[i] = ssl_on(fd[i], 0);
    CHECK(shake(s[i]));
    ssl_say(s[i], mr_str_c(text[i]));
    turn(20);
  }
  int half = dial();
  say(half, MR_S("\x16\x03\x01"));
  turn(5);
  kit_stop();
  for (int i = 0; i < 5; i++) SSL_free(s[i]), close(fd[i]);
  close(half);
}

TEST(stop_says_goodbye)
{
  tls_start((struct mr_http_server_opts){0});
  int fd = dial();
  SSL *s = ssl_on(fd, 0);
  CHECK(shake(s));
  turn(10);
  mr_http_server_stop(server);
  fresh();
  CHECK(ssl_hear(s, NULL, 0));
  SSL_free(s);
  close(fd);
  kit_stop();
}

/* Many clients end with a FIN alone. It is no error: what was asked for is still wanted, as without TLS. */
TEST(half_closed_without_goodbye)
{
  static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
  tls_start((struct mr_http_server_opts){0});
  for (size_t i = 0; i < 2; i++) {
    int fd = dial();
    SSL *s = ssl_on(fd, versions[i]);
    CHECK(shake(s));
    ssl_say(s, MR_S(GET("/hold")));
    for (int k = 0; k < 3000 && !held; k++) turn(1);
    CHECK(held);
    shutdown(fd, SHUT_WR);
    turn(20);
    CHECK(held);
    reply_text(held, 200, MR_S("still here"));
    fresh();
    CHECK(ssl_hear(s, "still here", 0));
    CHECK(ssl_hear(s, NULL, 0));
    SSL_free(s);
    close(fd);
  }
  CHECK_INT(complete_n, 2);
  kit_stop();
}

/* ---- libcurl, as our client uses it ---- */

static int done_n, done_code, done_status;
static struct mr_buf answer;
static void on_head(void *ud, struct mr_http_out *r, int status, struct mr_str headers) {}
static int on_data(void *ud, struct mr_http_out *r, struct mr_str bytes)
{
  mr_buf_str(&answer, bytes);
  return 0;
}
static void on_done(void *ud, struct mr_http_out *r, const struct mr_http_out_done *d)
{
  done_n++;
  done_code = d->code;
  done_status = d->status;
}

static void fetch(struct mr_http_client *c, const char *method, const char *path, const char *ca, struct mr_str body)
{
  static const struct mr_http_out_cbs cbs = {on_head, on_data, on_done};
  char full[300];
  struct mr_http_out *r;
  struct mr_err err;
  snprintf(full, sizeof full, "%s%s", url, path);
  const struct mr_http_out_req q = {.method = method, .url = full, .ca_file = ca, .body = &body, .nbody = body.n > 0};
  mr_buf_reset(&answer);
  done_n = 0;
  CHECK_INT(mr_http_out_start(c, &q, &cbs, NULL, &r, &err), MR_OK);
  CHECK(until(&done_n, 1));
}

TEST(libcurl_verifies_us)
{
  struct mr_http_client *c;
  struct mr_err err;
  static char body[700000];
  tls_start((struct mr_http_server_opts){0});
  mr_buf_init(&answer, &test_sys()->mem, 32 << 20);
  CHECK_INT(mr_http_client_new(&c, loop, NULL, &err), MR_OK);
  fetch(c, "GET", "/query?curl", ca_pem, MR_S(""));
  CHECK_INT(done_code, MR_OK);
  CHECK_INT(done_status, 200);
  CHECK_STR(mr_buf_get(&answer), "curl");
  memset(body, 'c', sizeof body);
  fetch(c, "POST", "/echo", ca_pem, mr_str_n(body, sizeof body));
  CHECK_INT(done_status, 200);
  CHECK_INT(answer.n, sizeof body);
  fetch(c, "GET", "/big?6000000", ca_pem, MR_S(""));
  CHECK_INT(answer.n, 6000000);
  fetch(c, "GET", "/", NULL, MR_S("")); /* the system does not know this authority */
  CHECK_INT(done_code, MR_E_IO);
  mr_http_client_free(&c);
  mr_buf_free(&answer);
  kit_stop();
}

/* ---- files ---- */

static void refused(const char *cert, const char *key, const char *field, const char *file, const char *why)
{
  struct mr_err err = {0};
  char actual[100];
  struct mr_http_listen l = {.address = "127.0.0.1:0", .tls_cert = cert, .tls_key = key};
  CHECK_INT(mr_http_server_listen(server, &l, actual, sizeof actual, &err), MR_E_INVALID);
  if (strcmp(err.field, field) != 0 || !strstr(err.message, file) || !strstr(err.message, why))
    test_fail(__FILE__, __LINE__, "%s: %s", err.field, err.message);
  CHECK_INT(ERR_peek_error(), 0); /* the queue may be a host's */
}

TEST(bad_files_are_named)
{
  kit_start((struct mr_http_server_opts){0}, "127.0.0.1:0");
  make_files();
  refused("/nonexistent/c.pem", key_pem, "tls_cert", "/nonexistent/c.pem", "No such file");
  refused(cert_pem, "/nonexistent/k.pem", "tls_key", "/nonexistent/k.pem", "No such file");
  refused(key_pem, key_pem, "tls_cert", key_pem, "no start line");
  refused(cert_pem, ca_pem, "tls_key", ca_pem, "");
  refused(cert_pem, other_key, "tls_key", other_key, "key");
  refused(cert_pem, locked_key, "tls_key", locked_key, "password");
  refused(NULL, key_pem, "tls_cert", "tls_cert", "needed");
  struct mr_http_listen one = {.address = "0.0.0.0:0", .tls_cert = both_pem}; /* and not only loopback */
  struct mr_err err;
  CHECK_INT(mr_http_server_listen(server, &one, url, sizeof url, &err), MR_OK);
  CHECK(strncmp(url, "https://0.0.0.0:", 16) == 0);
  kit_stop();
}
