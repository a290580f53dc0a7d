/*
 * failure - classes of upstream failures, waiting times, safe messages.
 *
 * For the streaming providers; not for failures of our own making above the model (budgets, hooks).
 * Both upstream families are read here, because their compatible servers mix the two forms.
 * One invariant: what leaves in a message was scrubbed of keys. Loop thread, no state.
 */
#include "model/failure.h"
#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>

enum { BODY_MAX = 1 << 20, DAY_MS = 86400 * 1000 };

static const struct {
  const char *type;
  enum mr_model_status st;
} by_type[] = {
    {"overloaded_error", MR_MODEL_OVERLOADED},
    {"server_overloaded", MR_MODEL_OVERLOADED},
    {"rate_limit_error", MR_MODEL_RATE_LIMITED},
    {"rate_limit_exceeded", MR_MODEL_RATE_LIMITED},
    {"billing_error", MR_MODEL_BILLING},
    {"insufficient_quota", MR_MODEL_BILLING},
    {"enforced_spend_limit_reached", MR_MODEL_BILLING},
    {"contract_spend_limit_reached", MR_MODEL_BILLING},
    {"invalid_request_error", MR_MODEL_REFUSED_REQUEST},
    {"authentication_error", MR_MODEL_REFUSED_REQUEST},
    {"permission_error", MR_MODEL_REFUSED_REQUEST},
    {"not_found_error", MR_MODEL_REFUSED_REQUEST},
    {"request_too_large", MR_MODEL_REFUSED_REQUEST},
};

static int type_find(struct mr_str t)
{
  for (size_t i = 0; i < sizeof by_type / sizeof by_type[0]; i++)
    if (mr_str_is(t, by_type[i].type)) return (int)i;
  return -1;
}

static bool has(struct mr_str s, const char *lit)
{
  size_t n = strlen(lit);
  for (size_t i = 0; i + n <= s.n; i++)
    if (memcmp(s.p + i, lit, n) == 0) return true;
  return false;
}

enum mr_model_status mr_failure_class(int http_status, struct mr_str type, struct mr_str code,
                                      struct mr_str text)
{
  int t = type_find(type), c = type_find(code);
  /* The code is the finer of the two: a 429 whose code is a spend limit is not worth a retry. */
  if (c >= 0 && by_type[c].st == MR_MODEL_BILLING) return MR_MODEL_BILLING;
  if (t >= 0 && by_type[t].st == MR_MODEL_BILLING) return MR_MODEL_BILLING;
  if (http_status == 402) return MR_MODEL_BILLING;
  if (http_status == 400 && has(text, "credit balance is too low")) return MR_MODEL_BILLING;
  if (http_status == 529) return MR_MODEL_OVERLOADED;
  if (t >= 0 && by_type[t].st == MR_MODEL_OVERLOADED) return MR_MODEL_OVERLOADED;
  if (http_status == 429) return MR_MODEL_RATE_LIMITED;
  if (http_status >= 500 || http_status == 408) return MR_MODEL_FAILED;
  if (http_status >= 300) return MR_MODEL_REFUSED_REQUEST;
  if (t >= 0) return by_type[t].st;
  if (c >= 0) return by_type[c].st;
  return MR_MODEL_FAILED;
}

static bool key_char(char c)
{
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' ||
         c == '*';
}

/* Length of what is shaped like a key at s ("sk-" and eight or more), or of the key itself, or 0. */
static size_t key_at(const char *s, struct mr_str key)
{
  if (key.n >= 4 && strncmp(s, key.p, key.n) == 0) return key.n;
  if (strncmp(s, "sk-", 3) != 0) return 0;
  size_t n = 3;
  while (key_char(s[n]))
    n++;
  return n >= 11 ? n : 0;
}

void mr_failure_scrub(char *s, struct mr_str key)
{
  static const char gone[] = "[key]";
  char *w = s;
  for (const char *r = s; *r;) {
    size_t k = key_at(r, key);
    /* A key of less than five bytes is no secret worth a longer text. */
    if (k >= sizeof gone - 1) {
      memcpy(w, gone, sizeof gone - 1);
      w += sizeof gone - 1;
      r += k;
      continue;
    }
    unsigned char c = (unsigned char)*r++;
    *w++ = (char)(c < 0x20 || c == 0x7f ? ' ' : c);
  }
  *w = 0;
  size_t n = (size_t)(w - s);
  if (mr_utf8_valid(mr_str_n(s, n))) return;
  size_t ok = mr_utf8_cut(mr_str_n(s, n), n);
  if (ok <= n) s[ok] = 0;
}

void mr_failure_set(struct mr_failure *f, enum mr_model_status st, const char *who, struct mr_str key,
                    const char *fmt, ...)
{
  if (f->status != MR_MODEL_OK) return;
  f->status = st;
  /* Twice the room: scrubbing must see a key whole, not one cut at the end of the message. */
  char text[MR_FAILURE_TEXT * 2];
  va_list ap;
  va_start(ap, fmt);
  int n = snprintf(text, sizeof text, "%s: ", who);
  if (n < 0 || (size_t)n >= sizeof text) n = 0;
  vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
  va_end(ap);
  mr_failure_scrub(text, key);
  size_t cut = mr_utf8_cut(mr_str_c(text), MR_FAILURE_TEXT - 1);
  memcpy(f->message, text, cut);
  f->message[cut] = 0;
}

void mr_failure_from(struct mr_failure *f, const struct mr_mem *m, const char *who, struct mr_str key,
                     int http_status, struct mr_str body)
{
  yyjson_doc *doc = NULL;
  struct mr_str type = {0}, code = {0}, text = {0};
  if (body.n && mr_json_parse(m, body, BODY_MAX, &doc, NULL) == MR_OK) {
    yyjson_val *root = yyjson_doc_get_root(doc), *e = mr_json_get(root, "error");
    if (yyjson_is_str(e)) text = mr_json_str(e);
    if (!yyjson_is_obj(e)) e = root;
    type = mr_json_get_str(e, "type");
    code = mr_json_get_str(e, "code");
    if (!text.n) text = mr_json_get_str(e, "message");
    struct mr_str ec = mr_json_get_str(mr_json_get(e, "details"), "error_code");
    if (ec.n) code = ec;
  }
  struct mr_str name = type.n ? type : code;
  /* Room for both in the message, and for a key that ends just past the cut to be seen whole. */
  if (name.n > 64) name.n = mr_utf8_cut(name, 64);
  if (text.n > 900) text.n = mr_utf8_cut(text, 900);
  enum mr_model_status st = mr_failure_class(http_status, type, code, text);
  if (http_status)
    mr_failure_set(f, st, who, key, "HTTP %d%s" MR_FMT "%s" MR_FMT, http_status, name.n ? " " : "",
                   MR_ARG(name), text.n ? ": " : "", MR_ARG(text));
  else
    mr_failure_set(f, st, who, key, MR_FMT "%s" MR_FMT, MR_ARG(name), text.n ? ": " : "", MR_ARG(text));
  yyjson_doc_free(doc);
}

/* The other form of retry-after, a date, as milliseconds from now; 0 when it is none, or has passed. */
static int64_t date_ms(struct mr_str s, int64_t now_us)
{
  int64_t at = mr_http_date(s);
  return at > now_us ? (at - now_us) / 1000 + 1 : 0;
}

/* Seconds as retry-after has them, whole or with a fraction, in milliseconds; -1 when it is none. */
static int64_t seconds_ms(struct mr_str s)
{
  struct mr_str whole = mr_str_split(&s, '.');
  int64_t sec = 0, ms = 0;
  if (mr_str_int(whole, &sec) != MR_OK || sec < 0 || sec > DAY_MS) return -1;
  int64_t unit = 100;
  for (size_t i = 0; i < s.n && unit > 0; i++, unit /= 10) {
    if (s.p[i] < '0' || s.p[i] > '9') return -1;
    ms += (s.p[i] - '0') * unit;
  }
  return sec * 1000 + ms;
}

int64_t mr_failure_wait(struct mr_str headers, int64_t now_us)
{
  int64_t ms = 0;
  struct mr_str v = mr_http_header(headers, "retry-after-ms");
  if (v.n) {
    struct mr_str whole = mr_str_split(&v, '.');
    if (mr_str_int(mr_str_trim(whole), &ms) != MR_OK) ms = 0;
  }
  if (ms <= 0) {
    v = mr_http_header(headers, "retry-after");
    if (v.n) ms = seconds_ms(mr_str_trim(v));
    if (ms < 0) ms = date_ms(mr_str_trim(v), now_us);
  }
  if (ms < 0) ms = 0;
  return ms > DAY_MS ? DAY_MS : ms;
}
