/* http_gate.c - see http_gate.h. libcurl's callbacks, on the loop thread. */
#include "net/http_gate.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

/* The host that the transfer is about to ask, as libcurl reads its URL: after redirects the newest one. */
static bool host_listed(const struct mr_http_gate *g, char out[80])
{
  CURLU *u = curl_url();
  char *url = NULL, *host = NULL;
  bool listed = false;

  snprintf(out, 80, "?");
  if (u && curl_easy_getinfo(g->easy, CURLINFO_EFFECTIVE_URL, &url) == CURLE_OK && url &&
      curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
      curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK) {
    snprintf(out, 80, "%.79s", host);
    listed = mr_guard_host_listed(g->guard, mr_str_c(host));
  }
  curl_free(host);
  curl_url_cleanup(u);
  return listed;
}

static bool may_dial(struct mr_http_gate *g, const struct sockaddr *sa)
{
  char host[80], address[64];

  if (mr_guard_addr_ok(g->guard, sa) || host_listed(g, host)) return true;
  mr_guard_addr_text(sa, address);
  snprintf(g->denied, sizeof g->denied, "%s leads to %s, %s, which may not be reached from here", host, address,
           mr_guard_addr_class(sa));
  return false;
}

static curl_socket_t on_open(void *ud, curlsocktype purpose, struct curl_sockaddr *a)
{
  struct mr_http_gate *g = ud;

  if (purpose != CURLSOCKTYPE_IPCXN || !may_dial(g, &a->addr)) return CURL_SOCKET_BAD;
  return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

static int on_request(void *ud, char *remote, char *local, int remote_port, int local_port)
{
  struct mr_http_gate *g = ud;
  struct sockaddr_in v4 = {.sin_family = AF_INET};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
  const struct sockaddr *sa = (const struct sockaddr *)(const void *)&v4;

  (void)local, (void)remote_port, (void)local_port;
  if (inet_pton(AF_INET, remote, &v4.sin_addr) != 1) {
    sa = (const struct sockaddr *)(const void *)&v6;
    if (inet_pton(AF_INET6, remote, &v6.sin6_addr) != 1) return CURL_PREREQFUNC_ABORT;
  }
  return may_dial(g, sa) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

void mr_http_gate_set(struct mr_http_gate *g, CURL *easy, const struct mr_guard *guard)
{
  g->guard = guard;
  g->easy = easy;
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
  curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, g);
  curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request);
  curl_easy_setopt(easy, CURLOPT_PREREQDATA, g);
  curl_easy_setopt(easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
}

bool mr_http_gate_denied(struct mr_http_gate *g, CURLcode result)
{
  if (!g->guard || result == CURLE_OK) return false;
  if (result == CURLE_UNSUPPORTED_PROTOCOL)
    snprintf(g->denied, sizeof g->denied, "only http and https are followed");
  else if (result == CURLE_LOGIN_DENIED)
    snprintf(g->denied, sizeof g->denied, "a URL with a user name is not followed");
  return g->denied[0] != '\0';
}
