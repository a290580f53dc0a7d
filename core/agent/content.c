/*
 * content.c - content blocks (API: sessions §4.1): checking what clients send, making blocks of what a tool
 * handler returned, and their form in a model request.
 */
#include "agent/agent_t.h"

#include <stdio.h>

static int bad(struct mr_err *err, const char *field, size_t i, const char *what)
{
  char path[96];
  snprintf(path, sizeof path, "%s[%zu]", field, i);
  return mr_err_set(err, MR_E_INVALID, path, "%s: %s", path, what);
}

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

/* What a model's API would refuse stays out of the log: it would be asked again with every later turn. */
static int check_source(yyjson_val *block, bool document, const char *field, size_t i, struct mr_err *err)
{
  static const char *const images[] = {"image/png", "image/jpeg", "image/gif", "image/webp"};
  yyjson_val *source = mr_json_get(block, "source");
  struct mr_str type = mr_json_get_str(source, "type"), media = mr_json_get_str(source, "media_type");
  bool known = document && media.n;

  if (mr_str_is(type, "url"))
    return mr_json_get_str(source, "url").n ? MR_OK : bad(err, field, i, "source.url is required");
  if (mr_str_is(type, "file"))
    return bad(err, field, i,
               "source.type \"file\" is not implemented yet; send base64, or mount the file as "
               "a session resource");
  if (document && mr_str_is(type, "text") && !mr_str_is(media, "text/plain"))
    return bad(err, field, i, "source.media_type must be text/plain");
  if (document && mr_str_is(type, "text"))
    return mr_json_get_str(source, "data").p ? MR_OK : bad(err, field, i, "source.data is required");
  if (!mr_str_is(type, "base64"))
    return bad(err, field, i, "source.type must be base64, url, file or (documents) text");
  for (size_t k = 0; k < sizeof images / sizeof *images; k++)
    known = known || mr_str_is(media, images[k]);
  if (!known)
    return bad(err, field, i,
               document ? "source.media_type is required"
                        : "source.media_type must be image/png, "
                          "image/jpeg, image/gif or image/webp");
  return base64_form(mr_json_get_str(source, "data")) ? MR_OK
                                                      : bad(err, field, i, "source.data must be base64");
}

static bool texts_only(yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)))
    if (!mr_str_is(mr_json_get_str(v, "type"), "text") || !mr_json_get_str(v, "text").p) return false;
  return yyjson_is_arr(list);
}

static int check_block(yyjson_val *b, unsigned allowed, const char *field, size_t i, struct mr_err *err)
{
  struct mr_str type = mr_json_get_str(b, "type");

  if (mr_str_is(type, "text") && (allowed & MR_BLOCK_TEXT))
    return mr_json_get_str(b, "text").p ? MR_OK : bad(err, field, i, "text must be a string");
  if (mr_str_is(type, "image") && (allowed & MR_BLOCK_IMAGE)) return check_source(b, false, field, i, err);
  if (mr_str_is(type, "document") && (allowed & MR_BLOCK_DOCUMENT)) return check_source(b, true, field, i, err);
  if (mr_str_is(type, "search_result") && (allowed & MR_BLOCK_SEARCH)) {
    if (!mr_json_get_str(b, "source").p || !mr_json_get_str(b, "title").p ||
        !texts_only(mr_json_get(b, "content")) ||
        !yyjson_is_bool(mr_json_get(mr_json_get(b, "citations"), "enabled")))
      return bad(err, field, i,
                 "a search_result has source, title, content of text blocks and citations.enabled");
    return MR_OK;
  }
  if (mr_str_is(type, "redacted")) return bad(err, field, i, "redacted blocks are made by the server only");
  return bad(err, field, i, "this kind of content block is not allowed here");
}

int mr_content_check(yyjson_val *arr, unsigned allowed, const char *field, struct mr_err *err)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  yyjson_val *b;
  size_t i = 0;
  int code;

  if (!yyjson_is_arr(arr)) return mr_err_set(err, MR_E_INVALID, field, "%s: an array of content blocks", field);
  while ((b = yyjson_arr_iter_next(&it))) {
    code = check_block(b, allowed, field, i++, err);
    if (code != MR_OK) return code;
  }
  return MR_OK;
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

static bool is_block(yyjson_val *v)
{
  struct mr_str t = mr_json_get_str(v, "type");
  return mr_str_is(t, "text") || mr_str_is(t, "image") || mr_str_is(t, "document") ||
         mr_str_is(t, "search_result");
}

static void text_block(struct mr_buf *out, struct mr_str text)
{
  mr_buf_c(out, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(out, text);
  mr_buf_c(out, "}]");
}

void mr_content_from_result(const struct mr_mem *m, struct mr_str json, struct mr_buf *out)
{
  yyjson_doc *doc = NULL;
  yyjson_val *root, *v;
  yyjson_arr_iter it;
  bool blocks;
  struct mr_buf b;

  if (!mr_str_trim(json).n || mr_json_parse(m, json, SIZE_MAX, &doc, NULL) != MR_OK) {
    mr_buf_c(out, "[]");
    return;
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
    mr_json_write(out, root, false);
  } else {
    mr_buf_init(&b, m, SIZE_MAX / 2);
    mr_json_write(&b, root, true);
    text_block(out, mr_buf_get(&b));
    mr_buf_free(&b);
  }
  yyjson_doc_free(doc);
}

/* ---- for the model ---- */

void mr_content_to_model(yyjson_val *arr, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(arr);
  yyjson_val *b;
  bool first = true;

  mr_buf_char(out, '[');
  while (arr && (b = yyjson_arr_iter_next(&it))) {
    if (blank(b)) continue; /* the model's API refuses it */
    if (!first) mr_buf_char(out, ',');
    first = false;
    mr_json_write(out, b, true);
  }
  mr_buf_char(out, ']');
}
