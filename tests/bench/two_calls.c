/*
 * two_calls - the peer of the turn benchmark: a bare libcurl program that makes the two streamed model calls of
 * a turn and nothing else. N turns at a time on one multi handle, keep-alive; the answers are read and dropped.
 *
 * usage: two_calls PORT TURNS CONCURRENCY [BYTES]. Prints "turns T seconds S cpu_us_per_turn U". With BYTES each of
 * the N has bodies of its own that are so large, as a long conversation's are.
 */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char first[] =
    "{\"model\":\"claude-bench\",\"max_tokens\":4096,\"stream\":true,\"tools\":[{\"name\":\"noop\",\"description\":\"d\","
    "\"input_schema\":{\"type\":\"object\"}}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
    "\"text\":\"go\"}]}]}";
static const char second[] =
    "{\"model\":\"claude-bench\",\"max_tokens\":4096,\"stream\":true,\"tools\":[{\"name\":\"noop\",\"description\":\"d\","
    "\"input_schema\":{\"type\":\"object\"}}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
    "\"text\":\"go\"}]},{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"noop\","
    "\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"toolu_1\","
    "\"content\":\"ok\"}]}]}";

struct lane { CURL *h; int step; const char *body[2]; };

/* The body with so much space before it that it has this size. */
static const char *padded(const char *body, size_t bytes)
{
  size_t n = strlen(body);
  char *p = bytes > n ? malloc(bytes + 1) : NULL; /* banned-ok: a peer, not the library */

  if (!p) return body;
  memset(p, ' ', bytes - n);
  memcpy(p + bytes - n, body, n + 1);
  return p;
}

static size_t drop(char *p, size_t size, size_t n, void *ud)
{
  (void)p;
  (void)ud;
  return size * n;
}

static void begin(CURLM *m, struct lane *l)
{
  curl_easy_setopt(l->h, CURLOPT_POSTFIELDS, l->body[l->step]);
  curl_multi_add_handle(m, l->h);
}

int main(int argc, char **argv)
{
  long turns, done = 0, started = 0;
  int lanes, running;
  char url[64];
  struct lane *v;
  struct curl_slist *headers = NULL;
  struct timespec a, b;
  struct rusage r;
  CURLM *m = curl_multi_init();

  if (argc < 4)
    return 2;
  size_t bytes = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
  turns = strtol(argv[2], NULL, 10);
  lanes = (int)strtol(argv[3], NULL, 10);
  snprintf(url, sizeof url, "http://127.0.0.1:%s/v1/messages", argv[1]);
  headers = curl_slist_append(headers, "content-type: application/json");
  headers = curl_slist_append(headers, "anthropic-version: 2023-06-01");
  headers = curl_slist_append(headers, "x-api-key: sk-ant-bench");
  headers = curl_slist_append(headers, "expect:");
  curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)lanes);
  v = calloc((size_t)lanes, sizeof *v); /* banned-ok: a peer, not the library */
  clock_gettime(CLOCK_MONOTONIC, &a);
  for (int i = 0; i < lanes; i++) {
    v[i].h = curl_easy_init();
    v[i].body[0] = padded(first, bytes);
    v[i].body[1] = padded(second, bytes);
    curl_easy_setopt(v[i].h, CURLOPT_URL, url);
    curl_easy_setopt(v[i].h, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(v[i].h, CURLOPT_WRITEFUNCTION, drop);
    curl_easy_setopt(v[i].h, CURLOPT_PRIVATE, (char *)&v[i]);
    curl_easy_setopt(v[i].h, CURLOPT_NOSIGNAL, 1L);
    if (started < turns) {
      started++;
      begin(m, &v[i]);
    }
  }
  while (done < turns) {
    CURLMsg *msg;
    int left;
    curl_multi_perform(m, &running);
    while ((msg = curl_multi_info_read(m, &left))) {
      struct lane *l = NULL;
      if (msg->msg != CURLMSG_DONE)
        continue;
      if (msg->data.result != CURLE_OK) {
        fprintf(stderr, "two_calls: %s\n", curl_easy_strerror(msg->data.result));
        return 1;
      }
      curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&l);
      curl_multi_remove_handle(m, l->h);
      l->step = !l->step;
      if (!l->step)
        done++;
      if (l->step || started < turns) {
        started += !l->step;
        begin(m, l);
      }
    }
    if (done < turns)
      curl_multi_poll(m, NULL, 0, 1000, NULL);
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  getrusage(RUSAGE_SELF, &r);
  printf("turns %ld seconds %.3f cpu_us_per_turn %.1f\n", turns,
         (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
         ((double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1e6 + (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec)) /
             (double)turns);
  return 0;
}
