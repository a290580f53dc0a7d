/*
 * env.c - what programs inside are told by their environment: where the proxy is, with the session's token, and which
 * roots to trust. The usual names of curl, wget, git, pip, npm, node, cargo, gem, go, apt and their like.
 */
#include <stdio.h>
#include <unistd.h>

#include "sandbox/egress/egress_t.h"

void mr_egress_env(struct mr_jw *w, const char *token)
{
  static const char *const proxies[] = {"http_proxy",       "https_proxy",           "all_proxy",
                                        "HTTP_PROXY",       "HTTPS_PROXY",           "ALL_PROXY",
                                        "npm_config_proxy", "npm_config_https_proxy"};
  static const char *const roots[] = {
      "SSL_CERT_FILE",     "CURL_CA_BUNDLE",      "REQUESTS_CA_BUNDLE", "PIP_CERT",      "GIT_SSL_CAINFO",
      "CARGO_HTTP_CAINFO", "NODE_EXTRA_CA_CERTS", "npm_config_cafile",  "AWS_CA_BUNDLE", "BUNDLE_SSL_CA_CERT"};
  static const char *const bundles[] = {"/etc/ssl/certs/ca-certificates.crt",
                                        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"};
  char url[128];

  snprintf(url, sizeof url, "http://moonrig:%s@127.0.0.1:%d", token, (int)MR_EGRESS_PORT);
  for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++)
    mr_jw_kc(w, proxies[i], url);
  mr_jw_kc(w, "no_proxy", "localhost,127.0.0.1,::1");
  mr_jw_kc(w, "NO_PROXY", "localhost,127.0.0.1,::1");
  mr_jw_kc(w, "NODE_USE_ENV_PROXY", "1");
  for (size_t b = 0; b < sizeof bundles / sizeof *bundles; b++) {
    if (access(bundles[b], R_OK) != 0) continue;
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++)
      mr_jw_kc(w, roots[i], bundles[b]);
    return;
  }
}
