/*
 * openai_form - from content blocks to chat messages.
 *
 * For the openai provider; the way back (stream to blocks) is in openai.c, the parameters besides messages and tools
 * in openai_extra.c. One user fragment can become several messages: its tool results first, each a message of role
 * tool, since these must follow the calls at once; then what else it holds as one message of role user. Tool messages
 * carry text only, so images and files of results travel in that user message; text documents are inlined.
 * PDFs go to the OpenAI API alone: llama.cpp, vLLM and Ollama refuse a request that has one, and would with every later
 * turn. Documents by URL are fetched by nobody. The model reads that they are there.
 *
 * Reasoning goes back with the messages that called tools, in the field that it came in (DeepSeek refuses to go on
 * without, others think better with it); never to the OpenAI API itself, which neither gives nor takes it, and never
 * the thinking of another family, whose signature means nothing here.
 * A system message within the conversation stays one for the OpenAI API. The chat templates of most local models
 * (Qwen, Gemma, Mistral) fail on it, so other servers get it as a user message that says what it is.
 * Loop thread, no state; see the header for the invariant.
 */
#include "model/openai_form.h"
#include "base/json.h"

enum { FRAGMENT_MAX = 64 << 20 };

struct form {
  const struct mr_mem *mem;
  struct mr_jw w;
  bool home;
};

/* ---- parts of a user message ---- */

static void part_text(struct mr_jw *w, struct mr_str text)
{
  if (!text.n) return;
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "text");
  mr_jw_kstr(w, "text", text);
  mr_jw_obj_end(w);
}

/* "data:<type>;base64,<data>" as the next value. */
static void data_url(struct form *f, yyjson_val *source)
{
  struct mr_buf url;
  mr_buf_init(&url, f->mem, FRAGMENT_MAX);
  mr_buf_c(&url, "data:");
  mr_buf_str(&url, mr_json_get_str(source, "media_type"));
  mr_buf_c(&url, ";base64,");
  mr_buf_str(&url, mr_json_get_str(source, "data"));
  if (url.failed) f->w.b->failed = url.failed;
  mr_jw_str(&f->w, mr_buf_get(&url));
  mr_buf_free(&url);
}

static void part_image(struct form *f, yyjson_val *source)
{
  struct mr_jw *w = &f->w;
  struct mr_str kind = mr_json_get_str(source, "type");
  bool url = mr_str_is(kind, "url");
  if (!url && !mr_str_is(kind, "base64")) {
    part_text(w, MR_S("[an image that cannot be shown to this model]"));
    return;
  }
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "image_url");
  mr_jw_key(w, "image_url");
  mr_jw_obj(w);
  mr_jw_key(w, "url");
  if (url)
    mr_jw_str(w, mr_json_get_str(source, "url"));
  else
    data_url(f, source);
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
}

/* Such servers fetch images, but no documents. */
static void document_url(struct form *f, struct mr_str url)
{
  struct mr_buf t;
  mr_buf_init(&t, f->mem, FRAGMENT_MAX);
  mr_buf_printf(&t, "[a document that was not fetched and cannot be seen here; it is at " MR_FMT "]",
                MR_ARG(url));
  if (t.failed) f->w.b->failed = t.failed;
  part_text(&f->w, mr_buf_get(&t));
  mr_buf_free(&t);
}

static void part_document(struct form *f, yyjson_val *block)
{
  struct mr_jw *w = &f->w;
  yyjson_val *source = mr_json_get(block, "source");
  struct mr_str kind = mr_json_get_str(source, "type"), title = mr_json_get_str(block, "title");
  part_text(w, mr_json_get_str(block, "context"));
  if (mr_str_is(kind, "text")) {
    part_text(w, title);
    part_text(w, mr_json_get_str(source, "data"));
  } else if (mr_str_is(kind, "base64") && !f->home) {
    part_text(w, title);
    part_text(w, MR_S("[a PDF document; this model's server takes none, so it cannot be seen here]"));
  } else if (mr_str_is(kind, "base64")) {
    mr_jw_obj(w);
    mr_jw_kc(w, "type", "file");
    mr_jw_key(w, "file");
    mr_jw_obj(w);
    mr_jw_kstr(w, "filename", title.n ? title : MR_S("document.pdf"));
    mr_jw_key(w, "file_data");
    data_url(f, source);
    mr_jw_obj_end(w);
    mr_jw_obj_end(w);
  } else if (mr_str_is(kind, "url")) {
    document_url(f, mr_json_get_str(source, "url"));
  } else {
    part_text(w, MR_S("[a document that cannot be shown to this model]"));
  }
}

static bool is_type(yyjson_val *block, const char *type)
{
  return mr_str_is(mr_json_get_str(block, "type"), type);
}

static void part(struct form *f, yyjson_val *block)
{
  if (is_type(block, "text"))
    part_text(&f->w, mr_json_get_str(block, "text"));
  else if (is_type(block, "image"))
    part_image(f, mr_json_get(block, "source"));
  else if (is_type(block, "document"))
    part_document(f, block);
}

static bool is_plain(yyjson_val *block)
{
  return is_type(block, "document") && is_type(mr_json_get(block, "source"), "text");
}

/* Of a result's blocks: what a tool message cannot hold. */
static bool is_media(yyjson_val *block)
{
  return is_type(block, "image") || (is_type(block, "document") && !is_plain(block));
}

/* ---- text of content ---- */

static void line(struct mr_buf *out, struct mr_str s)
{
  if (s.n && out->n) mr_buf_char(out, '\n');
  mr_buf_str(out, s);
}

/* Appends the text of content (a string, or blocks joined by line ends). */
static void text_of(struct mr_buf *out, yyjson_val *content)
{
  if (yyjson_is_str(content)) {
    mr_buf_str(out, mr_json_str(content));
    return;
  }
  size_t i, max;
  yyjson_val *b;
  yyjson_arr_foreach(content, i, max, b)
  {
    if (is_plain(b)) {
      line(out, mr_json_get_str(b, "context"));
      line(out, mr_json_get_str(b, "title"));
      line(out, mr_json_get_str(mr_json_get(b, "source"), "data"));
    } else if (is_media(b)) {
      line(out, is_type(b, "image") ? MR_S("[image, see the next message]")
                                    : MR_S("[document, see the next message]"));
    } else if (is_type(b, "search_result")) {
      line(out, mr_json_get_str(b, "title"));
      line(out, mr_json_get_str(b, "source"));
      text_of(out, mr_json_get(b, "content"));
    } else {
      line(out, mr_json_get_str(b, "text"));
    }
  }
}

static void string_of(struct form *f, const char *key, const char *before, yyjson_val *content)
{
  struct mr_buf t;
  mr_buf_init(&t, f->mem, FRAGMENT_MAX);
  text_of(&t, content);
  struct mr_buf all;
  mr_buf_init(&all, f->mem, FRAGMENT_MAX);
  mr_buf_c(&all, before);
  mr_buf_str(&all, mr_buf_get(&t));
  if (t.failed || all.failed) f->w.b->failed = t.failed ? t.failed : all.failed;
  mr_jw_kstr(&f->w, key, mr_buf_get(&all));
  mr_buf_free(&t);
  mr_buf_free(&all);
}

/* ---- messages ---- */

static void tool_message(struct form *f, yyjson_val *block)
{
  mr_jw_obj(&f->w);
  mr_jw_kc(&f->w, "role", "tool");
  mr_jw_kstr(&f->w, "tool_call_id", mr_json_get_str(block, "tool_use_id"));
  string_of(f, "content", mr_json_get_bool(block, "is_error", false) ? "Error: " : "",
            mr_json_get(block, "content"));
  mr_jw_obj_end(&f->w);
}

static void user(struct form *f, yyjson_val *content)
{
  struct mr_jw *w = &f->w;
  size_t i, max, j, jmax;
  yyjson_val *b, *in;
  bool rest = false;
  yyjson_arr_foreach(content, i, max, b)
  {
    if (!is_type(b, "tool_result")) {
      rest = true;
      continue;
    }
    tool_message(f, b);
    yyjson_arr_foreach(mr_json_get(b, "content"), j, jmax, in) rest = rest || is_media(in);
  }
  if (!rest) return;
  mr_jw_obj(w);
  mr_jw_kc(w, "role", "user");
  mr_jw_key(w, "content");
  mr_jw_arr(w);
  yyjson_arr_foreach(content, i, max, b)
  {
    if (!is_type(b, "tool_result")) {
      part(f, b);
      continue;
    }
    yyjson_arr_foreach(mr_json_get(b, "content"), j, jmax, in) if (is_media(in)) part(f, in);
  }
  mr_jw_arr_end(w);
  mr_jw_obj_end(w);
}

static void tool_calls(struct form *f, yyjson_val *content)
{
  struct mr_jw *w = &f->w;
  struct mr_buf args;
  size_t i, max;
  yyjson_val *b;
  bool open = false;
  mr_buf_init(&args, f->mem, FRAGMENT_MAX);
  yyjson_arr_foreach(content, i, max, b)
  {
    if (!is_type(b, "tool_use")) continue;
    if (!open) {
      mr_jw_key(w, "tool_calls");
      mr_jw_arr(w);
      open = true;
    }
    mr_buf_reset(&args);
    mr_json_write(&args, mr_json_get(b, "input"), false);
    if (args.failed) w->b->failed = args.failed;
    mr_jw_obj(w);
    mr_jw_kstr(w, "id", mr_json_get_str(b, "id"));
    mr_jw_kc(w, "type", "function");
    mr_jw_key(w, "function");
    mr_jw_obj(w);
    mr_jw_kstr(w, "name", mr_json_get_str(b, "name"));
    mr_jw_kstr(w, "arguments", mr_buf_get(&args));
    mr_jw_obj_end(w);
    mr_jw_obj_end(w);
  }
  if (open) mr_jw_arr_end(w);
  mr_buf_free(&args);
}

/* Reasoning that came from such a server, under the name it had there. */
static void reasoning(struct form *f, yyjson_val *content)
{
  static const char *const fields[] = {"reasoning_content", "reasoning"};
  struct mr_buf t;
  size_t i, max;
  yyjson_val *b;
  mr_buf_init(&t, f->mem, FRAGMENT_MAX);
  for (int k = 0; k < 2; k++) {
    mr_buf_reset(&t);
    yyjson_arr_foreach(content, i, max, b)
    {
      struct mr_str mark = mr_json_get_str(b, "signature");
      if (!is_type(b, "thinking") || !mr_str_starts(mark, MR_S(MR_REASONING_MARK))) continue;
      mark = mr_str_n(mark.p + sizeof MR_REASONING_MARK - 1, mark.n - (sizeof MR_REASONING_MARK - 1));
      if (mr_str_is(mark, fields[k])) mr_buf_str(&t, mr_json_get_str(b, "thinking"));
    }
    if (t.n) mr_jw_kstr(&f->w, fields[k], mr_buf_get(&t));
    if (t.failed) f->w.b->failed = t.failed;
  }
  mr_buf_free(&t);
}

static bool calls(yyjson_val *content)
{
  size_t i, max;
  yyjson_val *b;
  yyjson_arr_foreach(content, i, max, b) if (is_type(b, "tool_use")) return true;
  return false;
}

static void assistant(struct form *f, yyjson_val *content)
{
  bool called = yyjson_is_arr(content) && calls(content);
  mr_jw_obj(&f->w);
  mr_jw_kc(&f->w, "role", "assistant");
  string_of(f, "content", "", content);
  if (called && !f->home) reasoning(f, content);
  if (called) tool_calls(f, content);
  mr_jw_obj_end(&f->w);
}

static void system_within(struct form *f, yyjson_val *content)
{
  mr_jw_obj(&f->w);
  mr_jw_kc(&f->w, "role", f->home ? "system" : "user");
  string_of(f, "content", f->home ? "" : "[Message of the system, not of the user]\n", content);
  mr_jw_obj_end(&f->w);
}

static int message(struct form *f, struct mr_str fragment, struct mr_err *err)
{
  yyjson_doc *d = NULL;
  int rc = mr_json_parse(f->mem, fragment, FRAGMENT_MAX, &d, err);
  if (rc != MR_OK) return rc;
  yyjson_val *root = yyjson_doc_get_root(d), *content = mr_json_get(root, "content");
  struct mr_str role = mr_json_get_str(root, "role");
  if (!role.n || (!yyjson_is_str(content) && !yyjson_is_arr(content))) {
    rc = mr_err_set(err, MR_E_INVALID, "messages", "messages: a message has no role or no content");
  } else if (mr_str_is(role, "user") && yyjson_is_arr(content)) {
    user(f, content);
  } else if (mr_str_is(role, "assistant")) {
    assistant(f, content);
  } else if (mr_str_is(role, "system")) {
    system_within(f, content);
  } else {
    mr_jw_obj(&f->w);
    mr_jw_kstr(&f->w, "role", role);
    string_of(f, "content", "", content);
    mr_jw_obj_end(&f->w);
  }
  yyjson_doc_free(d);
  return rc;
}

/* ---- the rest of the request ---- */

static int system_message(struct form *f, struct mr_str system, struct mr_err *err)
{
  yyjson_doc *d = NULL;
  if (!system.n) return MR_OK;
  int rc = mr_json_parse(f->mem, system, FRAGMENT_MAX, &d, err);
  if (rc != MR_OK) return rc;
  yyjson_val *v = yyjson_doc_get_root(d);
  if (yyjson_is_str(v) || yyjson_arr_size(v) > 0) {
    mr_jw_obj(&f->w);
    mr_jw_kc(&f->w, "role", "system");
    string_of(f, "content", "", v);
    mr_jw_obj_end(&f->w);
  }
  yyjson_doc_free(d);
  return MR_OK;
}

static void function(struct form *f, yyjson_val *t)
{
  struct mr_jw *w = &f->w;
  struct mr_buf schema;
  mr_buf_init(&schema, f->mem, FRAGMENT_MAX);
  if (yyjson_is_obj(mr_json_get(t, "input_schema")))
    mr_json_write(&schema, mr_json_get(t, "input_schema"), false);
  else
    mr_buf_c(&schema, "{\"type\":\"object\"}");
  if (schema.failed) w->b->failed = schema.failed;
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "function");
  mr_jw_key(w, "function");
  mr_jw_obj(w);
  mr_jw_kstr(w, "name", mr_json_get_str(t, "name"));
  mr_jw_kstr(w, "description", mr_json_get_str(t, "description"));
  mr_jw_kraw(w, "parameters", mr_buf_get(&schema));
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
  mr_buf_free(&schema);
}

static int tools(struct form *f, struct mr_str list, struct mr_err *err)
{
  yyjson_doc *d = NULL;
  if (!list.n) return MR_OK;
  int rc = mr_json_parse(f->mem, list, FRAGMENT_MAX, &d, err);
  if (rc != MR_OK) return rc;
  size_t i, max;
  yyjson_val *t;
  if (yyjson_arr_size(yyjson_doc_get_root(d)) > 0) {
    mr_jw_key(&f->w, "tools");
    mr_jw_arr(&f->w);
    yyjson_arr_foreach(yyjson_doc_get_root(d), i, max, t)
    {
      struct mr_str type = mr_json_get_str(t, "type");
      if (!type.n || mr_str_is(type, "custom")) function(f, t);
    }
    mr_jw_arr_end(&f->w);
  }
  yyjson_doc_free(d);
  return MR_OK;
}

int mr_openai_body(struct mr_buf *b, const struct mr_model_req *r, bool home, struct mr_err *err)
{
  struct form f = {.mem = b->mem, .home = home};
  struct mr_jw *w = &f.w;
  mr_jw_init(w, b);
  mr_jw_obj(w);
  mr_jw_kstr(w, "model", r->model);
  mr_jw_kraw(w, "stream", MR_S("true"));
  mr_jw_kraw(w, "stream_options", MR_S("{\"include_usage\":true}"));
  int rc = mr_openai_extra(w, r, err);
  if (rc == MR_OK) rc = tools(&f, r->tools, err);
  if (rc != MR_OK) return rc;
  mr_jw_key(w, "messages");
  mr_jw_arr(w);
  rc = system_message(&f, r->system, err);
  for (int i = 0; rc == MR_OK && i < r->nmessages; i++)
    rc = message(&f, r->messages[i], err);
  if (rc != MR_OK) return rc;
  mr_jw_arr_end(w);
  mr_jw_obj_end(w);
  if (b->failed) return mr_err_set(err, b->failed, "messages", "the conversation is too large to send");
  return MR_OK;
}
