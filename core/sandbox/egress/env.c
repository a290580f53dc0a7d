/*
 * env.c - what programs inside are told by their environment: where the proxy is, with the session's token, and which
 * roots to trust. The usual names of curl, wget, git, pip, npm, node, cargo, gem, go, apt and their like.
 */
#include <stdio.h>
#include <unistd.h>

#include "sandbox/egress/egress_t.h"

const char *mr_system_roots(void)
{
  static const char *const bundles[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"};

  for (size_t i = 0; i < sizeof bundles / sizeof *bundles; i++)
    if (access(bundles[i], R_OK) == 0) return bundles[i];
  return NULL;
}

void mr_egress_env(struct mr_jw *w, const char *token, const struct mr_egress_policy *policy)
{
  static const char *const proxies[] = {"http_proxy",       "https_proxy",           "all_proxy",
                                        "HTTP_PROXY",       "HTTPS_PROXY",           "ALL_PROXY",
                                        "npm_config_proxy", "npm_config_https_proxy"};
  static const char *const roots[] = {
      "SSL_CERT_FILE",     "CURL_CA_BUNDLE",      "REQUESTS_CA_BUNDLE", "PIP_CERT",      "GIT_SSL_CAINFO",
      "CARGO_HTTP_CAINFO", "NODE_EXTRA_CA_CERTS", "npm_config_cafile",  "AWS_CA_BUNDLE", "BUNDLE_SSL_CA_CERT"};
  const char *bundle = policy->nsecrets ? MR_EGRESS_ROOTS : mr_system_roots();
  char url[128], mark[MR_EGRESS_PLACEHOLDER];

  snprintf(url, sizeof url, "http://moonrig:%s@127.0.0.1:%d", token, (int)MR_EGRESS_PORT);
  for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++)
    mr_jw_kc(w, proxies[i], url);
  mr_jw_kc(w, "no_proxy", "localhost,127.0.0.1,::1");
  mr_jw_kc(w, "NO_PROXY", "localhost,127.0.0.1,::1");
  mr_jw_kc(w, "NODE_USE_ENV_PROXY", "1");
  for (size_t i = 0; bundle && i < sizeof roots / sizeof *roots; i++)
    mr_jw_kc(w, roots[i], bundle);
  for (int i = 0; i < policy->nsecrets; i++) {
    mr_secret_placeholder(token, policy->secrets[i].env, mark);
    mr_jw_kc(w, policy->secrets[i].env, mark);
  }
}
