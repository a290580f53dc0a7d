/*
 * web_page.c - what was fetched as one document block (API: resources §4.9): HTML as readable text (web_html.c), other
 * texts as they are, a PDF as base64; nothing else. Runs in a pool thread on memory of its own.
 */
#include "agent/content.h"
#include "agent/web.h"

#include <stdio.h>

enum { BYTES_A_TOKEN = 4, SNIFF = 1024 };
enum kind { OTHER, HTML, TEXT, PDF };

static struct mr_str main_type(struct mr_str type)
{
  return mr_str_trim(mr_str_split(&type, ';'));
}

static bool says_nothing(struct mr_str type)
{
  return !type.n || mr_str_ieq(type, MR_S("application/octet-stream")) ||
         mr_str_ieq(type, MR_S("binary/octet-stream")) || mr_str_ieq(type, MR_S("unknown/unknown"));
}

static enum kind kind_of(struct mr_str type)
{
  if (mr_str_ieq(type, MR_S("text/html")) || mr_str_ieq(type, MR_S("application/xhtml+xml"))) return HTML;
  switch (mr_media_of(type)) {
  case MR_MEDIA_TEXT: return mr_str_ieq(type, MR_S("image/svg+xml")) ? OTHER : TEXT;
  case MR_MEDIA_PDF: return PDF;
  default: return OTHER;
  }
}

bool mr_webpage_type_ok(struct mr_str type)
{
  type = main_type(type);
  return says_nothing(type) || kind_of(type) != OTHER;
}

/* What the bytes are, when the server does not say. */
static enum kind sniff(struct mr_str b)
{
  struct mr_str head = mr_str_trim(mr_str_n(b.p, b.n < SNIFF ? b.n : SNIFF));

  if (mr_media_pdf(b)) return PDF;
  if (memchr(head.p ? head.p : "", 0, head.n) || mr_utf8_cut(head, head.n) + 4 < head.n) return OTHER;
  if ((head.n >= 14 && strncasecmp(head.p, "<!doctype html", 14) == 0) ||
      (head.n >= 5 && strncasecmp(head.p, "<html", 5) == 0))
    return HTML;
  return TEXT;
}

/* ---- the charset ---- */

/* The value behind "charset=" in s, from *at on. */
static struct mr_str charset_in(struct mr_str s)
{
  for (size_t i = 0; i + 8 < s.n; i++) {
    size_t from = i + 8, to;
    if ((s.p[i] | 32) != 'c' || strncasecmp(s.p + i, "charset=", 8) != 0) continue;
    while (from < s.n && strchr(" \"'", s.p[from]))
      from++;
    for (to = from; to < s.n && !strchr(" \"';/>", s.p[to]);)
      to++;
    return mr_str_n(s.p + from, to - from);
  }
  return mr_str_n(NULL, 0);
}

/* As the server says, else as the page says at its beginning. One that is not known says nothing. */
static struct mr_str charset(struct mr_str type, struct mr_str bytes, enum kind kind)
{
  struct mr_str label = charset_in(type);

  if (mr_webpage_charset_known(label) || kind != HTML) return label;
  label = charset_in(mr_str_n(bytes.p, bytes.n < 4 * SNIFF ? bytes.n : 4 * SNIFF));
  /* It was read as ASCII, so it is none of these. */
  return mr_str_starts(label, MR_S("utf-16")) || mr_str_starts(label, MR_S("UTF-16")) ? MR_S("utf-8") : label;
}

/* ---- the block ---- */

static void begin(struct mr_jw *w, struct mr_buf *out)
{
  mr_jw_init(w, out);
  mr_jw_arr(w);
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "document");
  mr_jw_key(w, "source");
  mr_jw_obj(w);
}

static void end(struct mr_jw *w, struct mr_str title, const char *url)
{
  mr_jw_obj_end(w);
  mr_jw_key(w, "title");
  if (title.n)
    mr_jw_str(w, title);
  else
    mr_jw_null(w);
  mr_jw_kc(w, "context", url);
  mr_jw_obj_end(w);
  mr_jw_arr_end(w);
}

static int pdf_block(const struct mr_webpage_in *in, struct mr_buf *out, struct mr_err *err)
{
  struct mr_buf b;
  struct mr_jw w;
  char *to;

  if (in->bytes.n > MR_WEBPAGE_PDF_MAX)
    return mr_err_set(err, MR_E_TOO_LARGE, "url", "a PDF of more than %d bytes", MR_WEBPAGE_PDF_MAX);
  mr_buf_init(&b, in->mem, SIZE_MAX / 2);
  to = mr_buf_reserve(&b, 4 * ((in->bytes.n + 2) / 3) + 1);
  if (to) b.n += mr_base64_encode(in->bytes, to);
  begin(&w, out);
  mr_jw_kc(&w, "type", "base64");
  mr_jw_kc(&w, "media_type", "application/pdf");
  mr_jw_kstr(&w, "data", mr_buf_get(&b));
  end(&w, mr_str_n(NULL, 0), in->url);
  if (b.failed) out->failed = b.failed;
  mr_buf_free(&b);
  return out->failed ? mr_err_nomem(err) : MR_OK;
}

/* At most so much text, and a line that says so. */
static void cut(const struct mr_webpage_in *in, struct mr_buf *text)
{
  size_t most = MR_WEBPAGE_TEXT_MAX + 1000; /* HTML ends there by itself */

  if (in->tokens_max > 0 && in->tokens_max < MR_WEBPAGE_TEXT_MAX / BYTES_A_TOKEN)
    most = (size_t)in->tokens_max * BYTES_A_TOKEN;
  if (text->n <= most || text->failed) return;
  text->n = mr_utf8_cut(mr_buf_get(text), most);
  mr_buf_c(text, "\n\n[The text goes on; the rest is left out.]");
}

/* One line. */
static void tidy(struct mr_buf *title)
{
  size_t n = 0;

  for (size_t i = 0; i < title->n; i++) {
    bool space = strchr(" \t\r\n", title->p[i]) != NULL;
    if (space && (n == 0 || title->p[n - 1] == ' ')) continue;
    title->p[n++] = space ? ' ' : title->p[i];
  }
  if (n && title->p[n - 1] == ' ') n--;
  title->n = mr_utf8_cut(mr_str_n(title->p, n), n < 500 ? n : 500);
}

static int text_block(const struct mr_webpage_in *in, enum kind kind, struct mr_buf *out, struct mr_err *err)
{
  struct mr_buf whole, text, title;
  struct mr_jw w;
  int code = MR_OK;

  mr_buf_init(&whole, in->mem, SIZE_MAX / 2);
  mr_buf_init(&text, in->mem, SIZE_MAX / 2);
  mr_buf_init(&title, in->mem, 1 << 16);
  mr_webpage_utf8(in->bytes, charset(in->type, in->bytes, kind), kind == HTML ? &whole : &text);
  if (kind == HTML) code = mr_webpage_html(mr_buf_get(&whole), in->url, in->stop, &text, &title);
  if (code == MR_OK) code = whole.failed ? whole.failed : text.failed ? text.failed : title.failed;
  if (code == MR_OK) {
    cut(in, &text);
    tidy(&title);
  }
  if (code == MR_OK && mr_str_trim(mr_buf_get(&text)).n == 0) {
    mr_buf_reset(&text);
    mr_buf_c(&text, "(There is no text here.)");
  }
  begin(&w, out);
  mr_jw_kc(&w, "type", "text");
  mr_jw_kc(&w, "media_type", "text/plain");
  mr_jw_kstr(&w, "data", mr_buf_get(&text));
  end(&w, mr_buf_get(&title), in->url);
  if (code == MR_OK && out->failed) code = out->failed;
  mr_buf_free(&whole);
  mr_buf_free(&text);
  mr_buf_free(&title);
  return code == MR_OK ? MR_OK : mr_err_set(err, code, NULL, "%s", mr_strerror(code));
}

int mr_webpage_block(const struct mr_webpage_in *in, struct mr_buf *out, struct mr_err *err)
{
  struct mr_str type = main_type(in->type);
  enum kind kind = says_nothing(type) ? sniff(in->bytes) : kind_of(type);

  if (kind == PDF && !mr_media_pdf(in->bytes)) kind = OTHER;
  if (kind == PDF) return pdf_block(in, out, err);
  if (kind != OTHER) return text_block(in, kind, out, err);
  return mr_err_set(err, MR_E_INVALID, "url", "neither HTML nor another text nor a PDF%s" MR_FMT,
                    type.n ? ": " : "", MR_ARG(mr_str_n(type.p, type.n < 80 ? type.n : 80)));
}
