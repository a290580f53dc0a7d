/*
 * content.c - content blocks (API: sessions §4.1): checking what clients send, making blocks of what a tool
 * handler returned, and their form in a model request.
 */
#include "agent/content.h"

#include <stdio.h>

struct check {
  const struct mr_mem *m;
  const struct mr_file_refs *files;
  const char *field;
  size_t i; /* of the block */
  struct mr_err *err;
};

static int bad(struct check *k, const char *what)
{
  char path[96];
  snprintf(path, sizeof path, "%s[%zu]", k->field, k->i);
  return mr_err_set(k->err, MR_E_INVALID, path, "%s: %s", path, what);
}

/* member: of the block's source. */
static int bad_source(struct check *k, int code, const char *member, const char *what)
{
  char path[128];
  snprintf(path, sizeof path, "%s[%zu].source.%s", k->field, k->i, member);
  return mr_err_set(k->err, code, path, "%s %s", path, what);
}

/* ---- media ---- */

enum mr_media mr_media_of(struct mr_str media_type)
{
  static const char *const images[] = {"image/png", "image/jpeg", "image/gif", "image/webp"};
  static const char *const texts[] = {"application/json",     "application/xml",        "application/yaml",
                                      "application/x-yaml",   "application/toml",       "application/sql",
                                      "application/x-ndjson", "application/javascript", "application/x-sh"};
  struct mr_str type = mr_str_trim(mr_str_split(&media_type, ';'));

  for (size_t i = 0; i < sizeof images / sizeof *images; i++)
    if (mr_str_ieq(type, mr_str_c(images[i]))) return MR_MEDIA_IMAGE;
  if (mr_str_ieq(type, MR_S("application/pdf"))) return MR_MEDIA_PDF;
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    if (mr_str_ieq(type, mr_str_c(texts[i]))) return MR_MEDIA_TEXT;
  return mr_str_starts(type, MR_S("text/")) || mr_str_ends(type, MR_S("+json")) ||
                 mr_str_ends(type, MR_S("+xml"))
             ? MR_MEDIA_TEXT
             : MR_MEDIA_OTHER;
}

const char *mr_media_image(struct mr_str b)
{
  if (mr_str_starts(b, mr_str_n("\x89PNG\r\n\x1a\n", 8))) return "image/png";
  if (mr_str_starts(b, mr_str_n("\xff\xd8\xff", 3))) return "image/jpeg";
  if (mr_str_starts(b, MR_S("GIF87a")) || mr_str_starts(b, MR_S("GIF89a"))) return "image/gif";
  if (b.n >= 12 && memcmp(b.p, "RIFF", 4) == 0 && memcmp(b.p + 8, "WEBP", 4) == 0) return "image/webp";
  return NULL;
}

/* Readers look for the mark in the first kilobyte. */
bool mr_media_pdf(struct mr_str b)
{
  for (size_t i = 0; i + 5 <= b.n && i < 1024; i++)
    if (memcmp(b.p + i, "%PDF-", 5) == 0) return true;
  return false;
}

/* ---- checking ---- */

static bool base64_form(struct mr_str s)
{
  size_t n = s.n;

  while (n && s.n - n < 2 && s.p[n - 1] == '=')
    n--;
  for (size_t i = 0; i < n; i++) {
    char c = s.p[i];
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '/'))
      return false;
  }
  return n > 0 && s.n % 4 == 0;
}

static bool web_url(struct mr_str url)
{
  struct mr_str https = MR_S("https://"), http = MR_S("http://");
  struct mr_str scheme = mr_str_ieq(mr_str_n(url.p, url.n < https.n ? url.n : https.n), https) ? https : http;

  if (url.n <= scheme.n || !mr_str_ieq(mr_str_n(url.p, scheme.n), scheme)) return false;
  for (size_t i = 0; i < url.n; i++)
    if ((unsigned char)url.p[i] <= ' ') return false;
  return url.p[scheme.n] != '/';
}

static int check_file(struct check *k, yyjson_val *source, bool document)
{
  struct mr_str id = mr_json_get_str(source, "file_id");
  const struct mr_file_ref *f = NULL;
  enum mr_media media;

  if (!id.n) return bad_source(k, MR_E_INVALID, "file_id", "is required");
  if (!k->files) return MR_OK;
  for (int j = 0; j < k->files->n && !f; j++)
    if (mr_str_eq(k->files->v[j].id, id)) f = &k->files->v[j];
  if (!f) return bad_source(k, MR_E_NOTFOUND, "file_id", "is that of no file that this session can use");
  media = mr_media_of(f->media_type);
  if (document ? media != MR_MEDIA_PDF && media != MR_MEDIA_TEXT : media != MR_MEDIA_IMAGE)
    return bad_source(k, MR_E_INVALID, "file_id",
                      document ? "is not that of a PDF or a text (by its mime_type)"
                               : "is not that of a PNG, JPEG, GIF or WebP image (by its mime_type)");
  if (f->size > (media == MR_MEDIA_IMAGE ? MR_IMAGE_MAX
                 : media == MR_MEDIA_PDF ? MR_SOURCE_MAX / 4 * 3
                                         : MR_SOURCE_MAX))
    return bad_source(k, MR_E_INVALID, "file_id",
                      media == MR_MEDIA_IMAGE ? "is that of an image of more than 3932160 bytes"
                                              : "is that of a file that is too large for a request to a model");
  return MR_OK;
}

/* Is it a text that a model can be given? */
static bool base64_text(const struct mr_mem *m, struct mr_str data)
{
  unsigned char *p = mr_mem_alloc(m, data.n / 4 * 3 + 4);
  int64_t n = p ? mr_base64_decode(data, p) : -1;
  bool yes = n >= 0 && mr_utf8_valid(mr_str_n((char *)p, (size_t)n));

  mr_mem_free(m, p);
  return yes;
}

static int check_base64(struct check *k, yyjson_val *source, bool document)
{
  enum mr_media media = mr_media_of(mr_json_get_str(source, "media_type"));
  struct mr_str data = mr_json_get_str(source, "data");

  if (!document && media != MR_MEDIA_IMAGE)
    return bad_source(k, MR_E_INVALID, "media_type", "must be image/png, image/jpeg, image/gif or image/webp");
  if (document && media != MR_MEDIA_PDF && media != MR_MEDIA_TEXT)
    return bad_source(k, MR_E_INVALID, "media_type", "must be application/pdf or that of a text");
  if (!base64_form(data)) return bad_source(k, MR_E_INVALID, "data", "must be base64");
  if (media == MR_MEDIA_IMAGE && data.n > MR_IMAGE_BASE64_MAX)
    return bad_source(k, MR_E_INVALID, "data", "is an image of more than 5 MiB of base64");
  if (data.n > MR_SOURCE_MAX)
    return bad_source(k, MR_E_INVALID, "data", "is too large for a request to a model");
  if (media == MR_MEDIA_TEXT && !base64_text(k->m, data))
    return bad_source(k, MR_E_INVALID, "data", "is no text in UTF-8");
  return MR_OK;
}

/* What a model's API would refuse stays out of the log: it would be asked again with every later turn. */
static int check_source(struct check *k, yyjson_val *block, bool document)
{
  yyjson_val *source = mr_json_get(block, "source");
  struct mr_str type = mr_json_get_str(source, "type");

  if (mr_str_is(type, "url"))
    return web_url(mr_json_get_str(source, "url"))
               ? MR_OK
               : bad_source(k, MR_E_INVALID, "url", "must be an http or https URL");
  if (mr_str_is(type, "file")) return check_file(k, source, document);
  if (document && mr_str_is(type, "text") && !mr_str_is(mr_json_get_str(source, "media_type"), "text/plain"))
    return bad_source(k, MR_E_INVALID, "media_type", "must be text/plain");
  if (document && mr_str_is(type, "text"))
    return mr_json_get_str(source, "data").n ? MR_OK : bad_source(k, MR_E_INVALID, "data", "is required");
  if (!mr_str_is(type, "base64"))
    return bad(k, document ? "source.type must be base64, url, file or text"
                           : "source.type must be base64, url or file");
  return check_base64(k, source, document);
}

static bool text_or_null(yyjson_val *v)
{
  return !v || yyjson_is_null(v) || yyjson_is_str(v);
}

static bool texts_only(yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    if (!mr_str_is(mr_json_get_str(v, "type"), "text") || !mr_json_get_str(v, "text").p) return false;
  return yyjson_is_arr(list);
}

static int check_block(struct check *k, yyjson_val *b, unsigned allowed)
{
  struct mr_str type = mr_json_get_str(b, "type");

  if (mr_str_is(type, "text") && (allowed & MR_BLOCK_TEXT))
    return mr_json_get_str(b, "text").p ? MR_OK : bad(k, "text must be a string");
  if (mr_str_is(type, "image") && (allowed & MR_BLOCK_IMAGE)) return check_source(k, b, false);
  if (mr_str_is(type, "document") && (allowed & MR_BLOCK_DOCUMENT)) {
    if (!text_or_null(mr_json_get(b, "title")) || !text_or_null(mr_json_get(b, "context")))
      return bad(k, "title and context must be strings");
    return check_source(k, b, true);
  }
  if (mr_str_is(type, "search_result") && (allowed & MR_BLOCK_SEARCH)) {
    if (!mr_json_get_str(b, "source").p || !mr_json_get_str(b, "title").p ||
        !texts_only(mr_json_get(b, "content")) ||
        !yyjson_is_bool(mr_json_get(mr_json_get(b, "citations"), "enabled")))
      return bad(k, "a search_result has source, title, content of text blocks and citations.enabled");
    return MR_OK;
  }
  if (mr_str_is(type, "redacted")) return bad(k, "redacted blocks are made by the server only");
  return bad(k, "this kind of content block is not allowed here");
}

int mr_content_check(const struct mr_mem *m, yyjson_val *arr, unsigned allowed,
                     const struct mr_file_refs *files, const char *field, struct mr_err *err)
{
  struct check k = {.m = m, .files = files, .field = field, .err = err};
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  yyjson_val *b;
  int code = MR_OK;

  if (!yyjson_is_arr(arr)) return mr_err_set(err, MR_E_INVALID, field, "%s: an array of content blocks", field);
  for (; code == MR_OK && (b = yyjson_arr_iter_next(&it)); k.i++)
    code = check_block(&k, b, allowed);
  return code;
}

static bool blank(yyjson_val *block)
{
  return mr_str_is(mr_json_get_str(block, "type"), "text") && !mr_str_trim(mr_json_get_str(block, "text")).n;
}

bool mr_content_blank(yyjson_val *arr)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  yyjson_val *b;

  while ((b = yyjson_arr_iter_next(&it)))
    if (!blank(b)) return false;
  return true;
}

/* ---- tool handlers' results ---- */

/* Other tables may have a member "type" too. */
static bool is_block(yyjson_val *v)
{
  struct mr_str t = mr_json_get_str(v, "type");

  if (mr_str_is(t, "text")) return mr_json_get_str(v, "text").p;
  if (mr_str_is(t, "image") || mr_str_is(t, "document")) return yyjson_is_obj(mr_json_get(v, "source"));
  return mr_str_is(t, "search_result") && yyjson_is_arr(mr_json_get(v, "content"));
}

static void text_block(struct mr_buf *out, struct mr_str text)
{
  mr_buf_c(out, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(out, text);
  mr_buf_c(out, "}]");
}

int mr_content_from_result(const struct mr_mem *m, struct mr_str json, struct mr_buf *out, struct mr_err *err)
{
  yyjson_doc *doc = NULL;
  yyjson_val *root, *v;
  yyjson_arr_iter it;
  bool blocks;
  struct mr_buf b;
  int code = MR_OK;

  if (!mr_str_trim(json).n || mr_json_parse(m, json, SIZE_MAX, &doc, NULL) != MR_OK) {
    mr_buf_c(out, "[]");
    return MR_OK;
  }
  root = yyjson_doc_get_root(doc);
  blocks = yyjson_is_arr(root) && yyjson_arr_size(root) > 0;
  it = yyjson_arr_iter_with(root);
  while (blocks && (v = yyjson_arr_iter_next(&it)))
    blocks = is_block(v);
  if (yyjson_is_null(root)) {
    mr_buf_c(out, "[]");
  } else if (yyjson_is_str(root)) {
    text_block(out, mr_json_str(root));
  } else if (blocks) {
    code = mr_content_check(m, root, MR_BLOCK_ALL, NULL, "content", err);
    if (code == MR_OK) mr_json_write(out, root, false);
  } else {
    mr_buf_init(&b, m, SIZE_MAX / 2);
    mr_json_write(&b, root, true);
    text_block(out, mr_buf_get(&b));
    mr_buf_free(&b);
  }
  yyjson_doc_free(doc);
  return code;
}

/* ---- for the model ---- */

bool mr_content_text_only(yyjson_val *arr)
{
  return texts_only(arr);
}

struct mr_str mr_content_file(yyjson_val *block)
{
  yyjson_val *source = mr_json_get(block, "source");
  struct mr_str type = mr_json_get_str(block, "type");

  if ((!mr_str_is(type, "image") && !mr_str_is(type, "document")) ||
      !mr_str_is(mr_json_get_str(source, "type"), "file"))
    return mr_str_n(NULL, 0);
  return mr_json_get_str(source, "file_id");
}

void mr_content_sourced(struct mr_buf *out, yyjson_val *block, struct mr_str source)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(block);
  yyjson_val *k;
  struct mr_jw w;

  mr_jw_init(&w, out);
  mr_jw_obj(&w);
  while ((k = yyjson_obj_iter_next(&it))) {
    if (yyjson_equals_str(k, "source"))
      mr_jw_kraw(&w, "source", source);
    else
      mr_jw_kval(&w, yyjson_get_str(k), yyjson_obj_iter_get_val(k));
  }
  mr_jw_obj_end(&w);
}

void mr_content_text_source(struct mr_buf *out, struct mr_str text)
{
  mr_buf_c(out, "{\"data\":");
  mr_json_quote(out, text);
  mr_buf_c(out, ",\"media_type\":\"text/plain\",\"type\":\"text\"}");
}

/* A text that came as base64 goes as text: models' APIs take only PDFs in that form. False: it is none. */
static bool plain_document(const struct mr_mem *m, yyjson_val *block, struct mr_buf *out)
{
  yyjson_val *source = mr_json_get(block, "source");
  struct mr_str data = mr_json_get_str(source, "data");
  unsigned char *p;
  struct mr_buf b;
  int64_t n;

  if (!mr_str_is(mr_json_get_str(block, "type"), "document") ||
      !mr_str_is(mr_json_get_str(source, "type"), "base64") ||
      mr_media_of(mr_json_get_str(source, "media_type")) != MR_MEDIA_TEXT)
    return false;
  p = mr_mem_alloc(m, data.n / 4 * 3 + 4);
  n = p ? mr_base64_decode(data, p) : 0;
  if (!p) out->failed = MR_E_NOMEM;
  mr_buf_init(&b, m, SIZE_MAX / 2);
  mr_content_text_source(&b, n > 0 ? mr_str_n((char *)p, (size_t)n) : MR_S(""));
  mr_content_sourced(out, block, mr_buf_get(&b));
  mr_buf_free(&b);
  mr_mem_free(m, p);
  return true;
}

void mr_content_to_model(const struct mr_mem *m, yyjson_val *arr, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  yyjson_val *b;
  bool first = true;

  mr_buf_char(out, '[');
  while (arr && (b = yyjson_arr_iter_next(&it))) {
    if (blank(b)) continue; /* the model's API refuses it */
    if (!first) mr_buf_char(out, ',');
    first = false;
    if (!plain_document(m, b, out)) mr_json_write(out, b, true);
  }
  mr_buf_char(out, ']');
}

bool mr_content_names_file(struct mr_str s)
{
  static const char key[] = "\"file_id\"";
  const char *p = s.p, *end = s.p + s.n;

  while ((size_t)(end - p) >= sizeof key - 1 && (p = memchr(p, '"', (size_t)(end - p)))) {
    if ((size_t)(end - p) >= sizeof key - 1 && memcmp(p, key, sizeof key - 1) == 0) return true;
    p++;
  }
  return false;
}
