/* sys.c - clocks, randomness, log lines, ids and times; see sys.h. */
#include "base/sys.h"

#include <stdio.h>
#include <sys/random.h>
#include <time.h>

static int64_t clock_us(clockid_t id)
{
  struct timespec t;
  clock_gettime(id, &t);
  return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t sys_wall(void *ud)
{
  (void)ud;
  return clock_us(CLOCK_REALTIME);
}
static int64_t sys_mono(void *ud)
{
  (void)ud;
  return clock_us(CLOCK_MONOTONIC);
}

static int sys_random(void *ud, void *buf, size_t n)
{
  char *p = buf;
  (void)ud;
  while (n) {
    ssize_t k = getrandom(p, n < 256 ? n : 256, 0);
    if (k < 0) return -1;
    p += k;
    n -= (size_t)k;
  }
  return 0;
}

void mr_sys_init(struct mr_sys *s, const struct mr_config *c)
{
  memset(s, 0, sizeof *s);
  mr_mem_init(&s->mem, c ? c->alloc : NULL, c ? c->ud : NULL);
  s->wall_us = c && c->wall_us ? c->wall_us : sys_wall;
  s->mono_us = c && c->mono_us ? c->mono_us : sys_mono;
  s->random = c && c->random ? c->random : sys_random;
  s->log = c ? c->log : NULL;
  s->log_level = MR_LOG_INFO;
  s->ud = c ? c->ud : NULL;
}

int64_t mr_wall_us(const struct mr_sys *s)
{
  return s->wall_us(s->ud);
}
int64_t mr_mono_us(const struct mr_sys *s)
{
  return s->mono_us(s->ud);
}

void mr_log(const struct mr_sys *s, int level, const char *room, const char *fmt, ...)
{
  char line[2000];
  va_list ap;
  int n, k;

  if (!s->log || level > s->log_level) return;
  n = snprintf(line, sizeof line, "%s: ", room);
  va_start(ap, fmt);
  k = vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
  va_end(ap);
  n = k < 0 ? n : n + k;
  if (n > (int)sizeof line - 1) n = (int)sizeof line - 1;
  for (int i = 0; i < n; i++) /* one line, whatever the message held */
    if ((unsigned char)line[i] < 0x20) line[i] = ' ';
  s->log(s->ud, level, mr_str_n(line, mr_utf8_whole(mr_str_n(line, (size_t)n))));
}

int mr_id_make(const struct mr_sys *s, char out[MR_ID_MAX], const char *prefix)
{
  static const char alphabet[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
  unsigned char raw[32];
  size_t have = 0, at = 0;
  int n = snprintf(out, MR_ID_MAX, "%.20s_01", prefix);

  for (int k = 0; k < 22;) {
    if (at == have) {
      if (s->random(s->ud, raw, sizeof raw) != 0) return MR_E_IO;
      have = sizeof raw;
      at = 0;
    }
    if (raw[at] < 232) { /* 4 * 58: the rest would favour the first digits */
      out[n++] = alphabet[raw[at] % 58];
      k++;
    }
    at++;
  }
  out[n] = '\0';
  return MR_OK;
}

/* Days since 1970-01-01 of a civil date, and back (H. Hinnant's algorithms). */
static int64_t days_from_civil(int64_t y, int m, int d)
{
  int64_t era;
  int64_t yoe, doy, doe;
  y -= m <= 2;
  era = (y >= 0 ? y : y - 399) / 400;
  yoe = y - era * 400;
  doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1;
  doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
  return era * 146097 + doe - 719468;
}

static void civil_from_days(int64_t z, int *y, int *m, int *d)
{
  int64_t era, doe, yoe, doy, mp;
  z += 719468;
  era = (z >= 0 ? z : z - 146096) / 146097;
  doe = z - era * 146097;
  yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
  doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
  mp = (5 * doy + 2) / 153;
  *d = (int)(doy - (153 * mp + 2) / 5 + 1);
  *m = (int)(mp < 10 ? mp + 3 : mp - 9);
  *y = (int)(yoe + era * 400 + (*m <= 2));
}

void mr_time_format(int64_t wall_us, char out[28])
{
  int y, m, d;
  int64_t days, sec;

  if (wall_us < 0 || wall_us > INT64_C(253402300799999999)) {
    out[0] = '\0';
    return;
  }
  days = wall_us / INT64_C(86400000000);
  sec = wall_us / 1000000 % 86400;
  civil_from_days(days, &y, &m, &d);
  snprintf(out, 28, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ", (unsigned)y % 10000, (unsigned)m % 100,
           (unsigned)d % 100, (unsigned)(sec / 3600), (unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
           (unsigned)(wall_us % 1000000));
}

/* The next n digits as a number, or -1. */
static int digits(struct mr_str *s, int n)
{
  int v = 0;
  if (s->n < (size_t)n) return -1;
  for (int i = 0; i < n; i++) {
    unsigned d = (unsigned)(s->p[i] - '0');
    if (d > 9) return -1;
    v = v * 10 + (int)d;
  }
  s->p += n;
  s->n -= (size_t)n;
  return v;
}

static bool eat(struct mr_str *s, char a, char b)
{
  if (!s->n || (s->p[0] != a && s->p[0] != b)) return false;
  s->p++;
  s->n--;
  return true;
}

int mr_time_parse(struct mr_str s, int64_t *wall_us)
{
  static const char mdays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  int y, mo, d, h, mi, sec, oh = 0, om = 0, sign = 0, leap;
  int64_t frac = 0, unit = 100000, t;

  if ((y = digits(&s, 4)) < 0 || !eat(&s, '-', '-') || (mo = digits(&s, 2)) < 1 || mo > 12 ||
      !eat(&s, '-', '-') || (d = digits(&s, 2)) < 1 || !eat(&s, 'T', 't') || (h = digits(&s, 2)) < 0 ||
      h > 23 || !eat(&s, ':', ':') || (mi = digits(&s, 2)) < 0 || mi > 59 || !eat(&s, ':', ':') ||
      (sec = digits(&s, 2)) < 0 || sec > 60)
    return MR_E_INVALID;
  leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
  if (d > mdays[mo - 1] + (mo == 2 && leap)) return MR_E_INVALID;
  if (eat(&s, '.', '.')) {
    int k = 0, v;
    for (; k < 9 && s.n && (v = digits(&s, 1)) >= 0; k++, unit /= 10)
      frac += v * unit;
    if (k == 0) return MR_E_INVALID;
  }
  if (!eat(&s, 'Z', 'z')) {
    sign = s.n && s.p[0] == '-' ? -1 : 1;
    if (!eat(&s, '+', '-') || (oh = digits(&s, 2)) < 0 || oh > 23 || !eat(&s, ':', ':') ||
        (om = digits(&s, 2)) < 0 || om > 59)
      return MR_E_INVALID;
  }
  if (s.n) return MR_E_INVALID;
  t = days_from_civil(y, mo, d) * 86400 + h * 3600 + mi * 60 + sec - sign * (oh * 3600 + om * 60);
  *wall_us = t * 1000000 + frac;
  return MR_OK;
}
