/*
 * ext_crypto.c - digests, HMAC and randomness for bindings, by OpenSSL.
 *
 * Not for secrets of the server's own (agent/keys.c), nor for ciphers: what scripts need to sign a request and to
 * check a webhook. Any thread; nothing is kept between calls.
 */
#include "host/ext_t.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const EVP_MD *digest_named(const char *name)
{
  static const struct {
    const char *name;
    const EVP_MD *(*fn)(void);
  } all[] = {{"sha256", EVP_sha256},
             {"sha1", EVP_sha1},
             {"sha512", EVP_sha512},
             {"md5", EVP_md5},
             {"blake2b512", EVP_blake2b512}};

  for (size_t i = 0; name && i < sizeof all / sizeof *all; i++)
    if (strcmp(name, all[i].name) == 0) return all[i].fn();
  return NULL;
}

int mr_x_digest(const char *digest, const struct mr_str *key, struct mr_str data, unsigned char *out, size_t *n)
{
  const EVP_MD *md = digest_named(digest);
  const unsigned char *p = (const unsigned char *)(data.p ? data.p : "");
  unsigned len = 0;
  int ok;

  *n = 0;
  if (!md || (key && key->n > INT_MAX)) return MR_E_INVALID;
  if (key)
    ok = HMAC(md, key->p ? key->p : "", (int)key->n, p, data.n, out, &len) != NULL;
  else
    ok = EVP_Digest(p, data.n, out, &len, md, NULL);
  if (!ok) return MR_E_UNSUPPORTED; /* this OpenSSL's configuration forbids it */
  *n = len;
  return MR_OK;
}

int mr_x_random(struct mr_runtime *rt, void *buf, size_t n)
{
  int code = mr_rt_check(rt, NULL);

  if (code != MR_OK) return code;
  return rt->sys.random(rt->sys.ud, buf, n) == 0 ? MR_OK : MR_E_IO;
}
