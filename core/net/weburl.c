/* weburl.c - see weburl.h. */
#include "net/weburl.h"

#include <curl/curl.h>
#include <stdio.h>

static int bad(struct mr_err *err, const char *what)
{
  return mr_err_set(err, MR_E_INVALID, "url", "%s", what);
}

/* The part as a string of libcurl's, or NULL. */
static char *part(CURLU *u, CURLUPart what, unsigned flags)
{
  char *s = NULL;

  return curl_url_get(u, what, &s, flags) == CURLUE_OK ? s : NULL;
}

static void lower(char *p, size_t n)
{
  for (size_t i = 0; i < n && p[i]; i++)
    if (p[i] >= 'A' && p[i] <= 'Z') p[i] = (char)(p[i] + 32);
}

static int take(struct mr_weburl *out, CURLU *u, struct mr_err *err)
{
  char *user = part(u, CURLUPART_USER, 0), *scheme = part(u, CURLUPART_SCHEME, 0),
       *host = part(u, CURLUPART_HOST, 0), *url = NULL;
  int code = MR_OK;
  size_t n;

  curl_url_set(u, CURLUPART_FRAGMENT, NULL, 0);
  if (user)
    code = bad(err, "a URL with a user name");
  else if (!scheme || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
    code = bad(err, "only http and https URLs");
  else if (!host || !host[0] || strlen(host) >= sizeof out->host)
    code = bad(err, "a URL without a usable host");
  if (code != MR_OK) goto out;
  n = strlen(host);
  lower(host, n);
  if (n > 1 && host[n - 1] == '.') host[--n] = '\0';
  if (curl_url_set(u, CURLUPART_HOST, host, 0) != CURLUE_OK) {
    code = bad(err, "a URL without a usable host");
    goto out;
  }
  memcpy(out->host, host, n + 1);
  url = part(u, CURLUPART_URL, CURLU_NO_DEFAULT_PORT);
  if (!url || strlen(url) >= sizeof out->url) {
    code = bad(err, "a URL that is too long");
    goto out;
  }
  memcpy(out->url, url, strlen(url) + 1);
  out->rest = strstr(out->url, "://") + 3;
out:
  curl_free(user);
  curl_free(scheme);
  curl_free(host);
  curl_free(url);
  return code;
}

int mr_weburl_read(struct mr_weburl *out, const char *base, struct mr_str ref, struct mr_err *err)
{
  char text[MR_WEBURL_MAX];
  CURLU *u;
  int code = MR_OK;

  if (ref.n >= sizeof text) return bad(err, "a URL that is too long");
  for (size_t i = 0; i < ref.n; i++)
    if ((unsigned char)ref.p[i] < ' ' || ref.p[i] == 0x7f) return bad(err, "a URL with control characters");
  memcpy(text, ref.p ? ref.p : "", ref.n);
  text[ref.n] = '\0';
  u = curl_url();
  if (!u) return mr_err_nomem(err);
  if (base && curl_url_set(u, CURLUPART_URL, base, 0) != CURLUE_OK)
    code = bad(err, "no usable URL");
  else if (base && (text[0] == '\0' || text[0] == '#'))
    ; /* the page itself */
  else if (curl_url_set(u, CURLUPART_URL, text, CURLU_URLENCODE | CURLU_NON_SUPPORT_SCHEME) != CURLUE_OK)
    code = bad(err, "no usable URL");
  if (code == MR_OK) code = take(out, u, err);
  curl_url_cleanup(u);
  return code;
}

bool mr_weburl_in_domain(const struct mr_weburl *u, struct mr_str domain)
{
  struct mr_str host = mr_str_c(u->host);

  if (mr_str_ieq(host, domain)) return true;
  return host.n > domain.n + 1 && host.p[host.n - domain.n - 1] == '.' && domain.n &&
         mr_str_ieq(mr_str_n(host.p + host.n - domain.n, domain.n), domain);
}
