/*
 * ca.c - the authority that answers for a host in its place, when a secret has to be put into what a sandbox sends
 * there (secret.c): one of this machine's own, made at its first start and kept beside the sandboxes, so that a
 * sandbox that outlives the server goes on trusting it. Its key never leaves the host (0600); sandboxes with secrets
 * see its certificate behind the machine's own roots in one file. Leaves live in memory alone, one a host.
 */
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sandbox/egress/tls.h"

enum { LEAVES = 256, CA_DAYS = 3650, LEAF_DAYS = 90, LEAF_USED_DAYS = 60, BUNDLE_MAX = 8 << 20 };

struct leaf {
  char host[256];
  X509 *cert;
  int64_t made_us;
};
struct mr_ca {
  const struct mr_mem *mem;
  struct mr_loop *loop;
  EVP_PKEY *key, *leaf_key;
  X509 *cert;
  struct leaf leaves[LEAVES];
  int nleaves;
  char bundle[4200];
};

static bool extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
  X509V3_CTX ctx;
  X509_EXTENSION *x;
  bool ok;

  X509V3_set_ctx_nodb(&ctx);
  X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
  x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
  ok = x && X509_add_ext(cert, x, -1) == 1;
  X509_EXTENSION_free(x);
  return ok;
}

/* Everything but the signature and the extensions. */
static X509 *begin(const char *name, EVP_PKEY *key, int days)
{
  X509 *c = X509_new();
  unsigned char serial[16];
  BIGNUM *n = NULL;
  X509_NAME *subject = c ? X509_get_subject_name(c) : NULL;
  bool ok = c && RAND_bytes(serial, sizeof serial) == 1;

  serial[0] = (unsigned char)((serial[0] & 0x7f) | 1);
  n = ok ? BN_bin2bn(serial, sizeof serial, NULL) : NULL;
  ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(c)) && X509_set_version(c, 2) == 1 &&
       X509_gmtime_adj(X509_getm_notBefore(c), -86400) &&
       X509_gmtime_adj(X509_getm_notAfter(c), 86400L * days) &&
       X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0) == 1 &&
       X509_set_pubkey(c, key) == 1;
  BN_free(n);
  if (ok) return c;
  X509_free(c);
  return NULL;
}

static int failed(struct mr_err *err, const char *what)
{
  unsigned long e = ERR_peek_last_error();
  const char *why = ERR_reason_error_string(e);

  ERR_clear_error();
  return mr_err_set(err, MR_E_INTERNAL, NULL, "%s: %s", what, why ? why : "failed");
}

/* ---- the authority ---- */

static int make(struct mr_ca *a, struct mr_err *err)
{
  a->key = EVP_EC_gen("P-256");
  a->cert = a->key ? begin("moonrig sandbox authority of this machine", a->key, CA_DAYS) : NULL;
  if (!a->cert || X509_set_issuer_name(a->cert, X509_get_subject_name(a->cert)) != 1 ||
      !extension(a->cert, a->cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") ||
      !extension(a->cert, a->cert, NID_key_usage, "critical,keyCertSign") ||
      !extension(a->cert, a->cert, NID_subject_key_identifier, "hash") ||
      !X509_sign(a->cert, a->key, EVP_sha256()))
    return failed(err, "making the sandboxes' authority");
  return MR_OK;
}

/* Written whole under another name first: a half file is never read. */
static FILE *begin_file(const char *dir, char path[4200])
{
  int fd;

  snprintf(path, 4200, "%s/egress.tmp", dir);
  unlink(path);
  fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  return fd >= 0 ? fdopen(fd, "w") : NULL;
}

static int end_file(FILE *f, bool ok, const char *from, const char *to, struct mr_err *err)
{
  ok = ok && fflush(f) == 0 && fsync(fileno(f)) == 0;
  if (fclose(f) != 0 || !ok || rename(from, to) != 0) return mr_err_errno(err, to);
  return MR_OK;
}

static int keep(struct mr_ca *a, const char *dir, const char *path, struct mr_err *err)
{
  char tmp[4200];
  FILE *f = begin_file(dir, tmp);

  if (!f) return mr_err_errno(err, tmp);
  return end_file(
      f, PEM_write_PrivateKey(f, a->key, NULL, NULL, 0, NULL, NULL) == 1 && PEM_write_X509(f, a->cert) == 1,
      tmp, path, err);
}

static bool load(struct mr_ca *a, const char *path)
{
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  FILE *f = fd >= 0 ? fdopen(fd, "r") : NULL;

  if (!f) return false;
  a->key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
  a->cert = PEM_read_X509(f, NULL, NULL, NULL);
  fclose(f);
  ERR_clear_error();
  if (a->key && a->cert && X509_check_private_key(a->cert, a->key) == 1 &&
      X509_cmp_time(X509_get0_notAfter(a->cert), NULL) > 0)
    return true;
  EVP_PKEY_free(a->key);
  X509_free(a->cert);
  a->key = NULL;
  a->cert = NULL;
  return false;
}

/* The machine's roots, and ours. */
static int write_bundle(struct mr_ca *a, const char *dir, const char *roots, struct mr_err *err)
{
  char tmp[4200], piece[16384];
  FILE *f = begin_file(dir, tmp), *in = roots ? fopen(roots, "re") : NULL;
  size_t n, all = 0;
  bool ok = f != NULL;

  if (!f) {
    if (in) fclose(in);
    return mr_err_errno(err, tmp);
  }
  while (ok && in && (n = fread(piece, 1, sizeof piece, in)) > 0)
    ok = fwrite(piece, 1, n, f) == n && (all += n) < BUNDLE_MAX;
  if (in) fclose(in);
  ok = ok && fputs("\n", f) >= 0 && PEM_write_X509(f, a->cert) == 1;
  return end_file(f, ok, tmp, a->bundle, err);
}

int mr_ca_new(struct mr_ca **out, struct mr_loop *l, const char *dir, const char *roots, struct mr_err *err)
{
  const struct mr_mem *m = &mr_loop_sys(l)->mem;
  struct mr_ca *a = mr_mem_zalloc(m, sizeof *a);
  char path[4200];
  int code = MR_OK;

  *out = a;
  if (!a) return mr_err_nomem(err);
  a->mem = m;
  a->loop = l;
  if (snprintf(path, sizeof path, "%s/egress-authority.pem", dir) >= (int)sizeof path ||
      snprintf(a->bundle, sizeof a->bundle, "%s/egress-roots.pem", dir) >= (int)sizeof a->bundle)
    code = mr_err_set(err, MR_E_INVALID, NULL, "the path of the sandboxes' directory is too long");
  if (code == MR_OK && !load(a, path)) {
    code = make(a, err);
    if (code == MR_OK) code = keep(a, dir, path, err);
  }
  if (code == MR_OK) code = write_bundle(a, dir, roots, err);
  if (code == MR_OK && !(a->leaf_key = EVP_EC_gen("P-256")))
    code = failed(err, "a key for the sandboxes' hosts");
  if (code != MR_OK) mr_ca_free(out);
  return code;
}

static void drop_leaves(struct mr_ca *a)
{
  while (a->nleaves)
    X509_free(a->leaves[--a->nleaves].cert);
}

void mr_ca_free(struct mr_ca **ap)
{
  struct mr_ca *a = *ap;

  *ap = NULL;
  if (!a) return;
  drop_leaves(a);
  EVP_PKEY_free(a->key);
  EVP_PKEY_free(a->leaf_key);
  X509_free(a->cert);
  mr_mem_free(a->mem, a);
}

const char *mr_ca_bundle(const struct mr_ca *a)
{
  return a->bundle;
}

/* ---- leaves ---- */

static X509 *sign(struct mr_ca *a, const char *host)
{
  char names[300];
  /* The name of a subject has 64 characters at most; who checks looks at the other one. */
  X509 *c = begin(strlen(host) < 64 ? host : "sandbox", a->leaf_key, LEAF_DAYS);

  snprintf(names, sizeof names, "DNS:%s", host);
  if (c && X509_set_issuer_name(c, X509_get_subject_name(a->cert)) == 1 &&
      extension(c, a->cert, NID_basic_constraints, "critical,CA:FALSE") &&
      extension(c, a->cert, NID_key_usage, "critical,digitalSignature") &&
      extension(c, a->cert, NID_ext_key_usage, "serverAuth") &&
      extension(c, a->cert, NID_subject_alt_name, names) &&
      extension(c, a->cert, NID_authority_key_identifier, "keyid:always") && X509_sign(c, a->key, EVP_sha256()))
    return c;
  X509_free(c);
  ERR_clear_error();
  return NULL;
}

bool mr_ca_leaf(struct mr_ca *a, const char *host, struct x509_st **cert, struct evp_pkey_st **key)
{
  int64_t now = mr_loop_now_us(a->loop);
  X509 *made;

  *key = a->leaf_key;
  for (int i = 0; i < a->nleaves; i++) {
    *cert = a->leaves[i].cert;
    if (strcmp(a->leaves[i].host, host) != 0) continue;
    if (now - a->leaves[i].made_us < INT64_C(86400000000) * LEAF_USED_DAYS) return true;
    drop_leaves(a);
  }
  if (a->nleaves == LEAVES) drop_leaves(a);
  made = sign(a, host);
  if (!made) return false;
  a->leaves[a->nleaves] = (struct leaf){.cert = made, .made_us = now};
  snprintf(a->leaves[a->nleaves++].host, sizeof a->leaves[0].host, "%s", host);
  *cert = made;
  return true;
}
