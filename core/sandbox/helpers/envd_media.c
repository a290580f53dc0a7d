/*
 * envd_media - images and PDFs for the tool read: told by their first bytes, given whole as base64.
 *
 * What a provider would refuse must not get into a session's history, where it would be refused with every later
 * request: so an image needs a header with a size that models take, and an end, and a PDF its end; else the result
 * is an error that says what to do.
 */
#include <stdio.h>
#include <string.h>

#include "envd.h"

enum { IMAGE_MAX = 3932160 /* 5 MiB as base64 */, PDF_MAX = 7864320 /* 10 MiB */, SIDE_MAX = 8000 };

const char *media_type(const char *p, size_t n)
{
  if (n >= 8 && !memcmp(p, "\x89PNG\r\n\x1a\n", 8)) return "image/png";
  if (n >= 3 && !memcmp(p, "\xff\xd8\xff", 3)) return "image/jpeg";
  if (n >= 6 && (!memcmp(p, "GIF87a", 6) || !memcmp(p, "GIF89a", 6))) return "image/gif";
  if (n >= 12 && !memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4)) return "image/webp";
  if (n >= 5 && !memcmp(p, "%PDF-", 5)) return "application/pdf";
  return NULL;
}

static bool is_pdf(const char *type)
{
  return !strcmp(type, "application/pdf");
}

size_t media_max(const char *type)
{
  return is_pdf(type) ? PDF_MAX : IMAGE_MAX;
}

struct size {
  unsigned w, h;
};

static unsigned big(const unsigned char *p, int n)
{
  unsigned v = 0;
  for (int i = 0; i < n; i++)
    v = v << 8 | p[i];
  return v;
}

static unsigned little(const unsigned char *p, int n)
{
  unsigned v = 0;
  while (n--)
    v = v << 8 | p[n];
  return v;
}

static bool png(const unsigned char *p, size_t n, struct size *s)
{
  if (n < 45 || memcmp(p + 12, "IHDR", 4)) return false;
  *s = (struct size){big(p + 16, 4), big(p + 20, 4)};
  return memmem(p + n - (n < 4096 ? n : 4096), n < 4096 ? n : 4096, "IEND\xae\x42\x60\x82", 8);
}

static bool gif(const unsigned char *p, size_t n, struct size *s)
{
  if (n < 14) return false;
  *s = (struct size){little(p + 6, 2), little(p + 8, 2)};
  return memchr(p + n - (n < 256 ? n : 256), 0x3b, n < 256 ? n : 256);
}

/* The segments up to the one with the size; then there must be an end. */
static bool jpeg(const unsigned char *p, size_t n, struct size *s)
{
  for (size_t i = 2; i + 9 < n;) {
    if (p[i] != 0xff) return false;
    unsigned char kind = p[i + 1];
    if (kind == 0xff) {
      i++;
    } else if (kind == 0x01 || (kind >= 0xd0 && kind <= 0xd8)) {
      i += 2;
    } else if (kind >= 0xc0 && kind <= 0xcf && kind != 0xc4 && kind != 0xc8 && kind != 0xcc) {
      *s = (struct size){big(p + i + 7, 2), big(p + i + 5, 2)};
      return memmem(p + i, n - i, "\xff\xd9", 2);
    } else if (kind == 0xd9 || kind == 0xda || big(p + i + 2, 2) < 2) {
      return false;
    } else {
      i += 2 + big(p + i + 2, 2);
    }
  }
  return false;
}

static bool webp(const unsigned char *p, size_t n, struct size *s)
{
  if (n < 30 || little(p + 4, 4) > n - 8) return false;
  if (!memcmp(p + 12, "VP8X", 4)) {
    *s = (struct size){1 + little(p + 24, 3), 1 + little(p + 27, 3)};
  } else if (!memcmp(p + 12, "VP8L", 4) && p[20] == 0x2f) {
    unsigned bits = little(p + 21, 4);
    *s = (struct size){1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff)};
  } else if (!memcmp(p + 12, "VP8 ", 4) && !memcmp(p + 23, "\x9d\x01\x2a", 3)) {
    *s = (struct size){little(p + 26, 2) & 0x3fff, little(p + 28, 2) & 0x3fff};
  } else {
    return false;
  }
  return true;
}

/* Whether it is whole, and how large. */
static bool whole(const char *type, const struct ebuf *file, struct size *s)
{
  const unsigned char *p = (const unsigned char *)file->p;
  size_t n = file->n, tail = n < 2048 ? n : 2048;
  switch (is_pdf(type) ? 'p' : type[6]) {
  case 'p': return is_pdf(type) ? memmem(p + n - tail, tail, "%%EOF", 5) != NULL : png(p, n, s);
  case 'g': return gif(p, n, s);
  case 'j': return jpeg(p, n, s);
  default: return webp(p, n, s);
  }
}

void media_give(struct tool_run *r, struct estr shown, const char *type, const struct ebuf *file)
{
  struct size s = {1, 1};
  bool pdf = is_pdf(type);
  if (file->n > media_max(type)) {
    tool_fail(r, "%s: %s is %s of more than %zu bytes. %s", r->name, shown.p, pdf ? "a PDF" : "an image",
              media_max(type),
              pdf ? "Take its text or some of its pages out with bash and read those."
                  : "Make a smaller copy of it with bash and read that.");
  } else if (!whole(type, file, &s) || !s.w || !s.h) {
    tool_fail(r, "%s: %s begins like %s but is damaged or not complete", r->name, shown.p,
              pdf ? "a PDF" : "an image");
  } else if (s.w > SIDE_MAX || s.h > SIDE_MAX) {
    tool_fail(
        r,
        "%s: %s has %u x %u pixels, more than %d on a side. Make a smaller copy of it with bash and read that.",
        r->name, shown.p, s.w, s.h, SIDE_MAX);
  } else {
    ebuf_f(&r->content, "[{\"type\":\"%s\",\"source\":{\"type\":\"base64\",\"media_type\":\"%s\",\"data\":\"",
           pdf ? "document" : "image", type);
    ebuf_base64(&r->content, (const unsigned char *)file->p, file->n);
    ebuf_s(&r->content, "\"}}]");
  }
}
