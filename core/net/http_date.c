/*
 * http_date.c - dates of HTTP headers (RFC 9110 5.6.7, all three forms), read by libcurl. Pure; any thread.
 */
#include "net/http_client.h"

#include <curl/curl.h>
#include <stdio.h>

int64_t mr_http_date(struct mr_str s)
{
  char text[64];
  time_t at;

  if (s.n >= sizeof text) return 0;
  snprintf(text, sizeof text, MR_FMT, MR_ARG(s));
  at = curl_getdate(text, NULL);
  return at > 0 ? (int64_t)at * 1000000 : 0;
}
