/*
 * spill.c - large tool output (API: sessions §8.8): a result whose text has more than TEXT_MAX characters goes to a file
 * in the session's sandbox, and the model and the event get its beginning, its end and the path. So one careless
 * command does not fill the history, and nothing is lost.
 *
 * The sandbox is the session's, attached again or made for it where it must be. A session that has none, and whose
 * agent has no tool to read files with, gets its results cut, and that is said. What a client sends itself is recorded
 * as it is, and so is what read gives of such a file, which was asked for with its size known. Until the file is
 * written the call counts as running; after a crash it is what it would be without a result. Loop thread.
 */
#include "agent/content.h"
#include "agent/session_t.h"

#include <stdio.h>

enum { TEXT_MAX = 100000, HEAD = 8000, TAIL = 2000 };
#define DIR "/tmp/tool_output/"

struct mr_spill {
  struct mr_spill *next; /* of the session's that are under way */
  struct mr_tcall *call;
  char path[MR_ID_LEN + 32], exec_id[MR_ID_MAX];
  struct mr_str content; /* the whole result; its own */
  bool is_error;
};

/* The text of a text block, or of a document that is text; p NULL: of neither. */
static struct mr_str text_of(yyjson_val *block)
{
  yyjson_val *source = mr_json_get(block, "source");

  if (mr_str_is(mr_json_get_str(block, "type"), "text")) return mr_json_get_str(block, "text");
  if (mr_str_is(mr_json_get_str(block, "type"), "document") &&
      mr_str_is(mr_json_get_str(source, "type"), "text"))
    return mr_json_get_str(source, "data");
  return mr_str_n(NULL, 0);
}

/* All text of the content in one piece. */
static void gather(yyjson_val *content, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;

  while (yyjson_is_arr(content) && (v = yyjson_arr_iter_next(&it)))
    if (text_of(v).p) {
      if (out->n) mr_buf_char(out, '\n');
      mr_buf_str(out, text_of(v));
    }
}

/* The preview as the first block that has text: a document stays one. */
static void preview_block(const struct mr_mem *m, yyjson_val *content, struct mr_str text, struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  struct mr_buf source;
  yyjson_val *v;

  while ((v = yyjson_arr_iter_next(&it)) && !text_of(v).p)
    continue;
  mr_buf_init(&source, m, SIZE_MAX / 2);
  if (mr_str_is(mr_json_get_str(v, "type"), "document")) {
    mr_content_text_source(&source, text);
    mr_content_sourced(out, v, mr_buf_get(&source));
  } else {
    mr_buf_c(out, "{\"type\":\"text\",\"text\":");
    mr_json_quote(out, text);
    mr_buf_char(out, '}');
  }
  mr_buf_free(&source);
}

/* The last n characters or fewer. */
static struct mr_str end_of(struct mr_str s, size_t n)
{
  size_t at = s.n > n ? s.n - n : 0;

  while (at < s.n && ((unsigned char)s.p[at] & 0xc0) == 0x80)
    at++;
  return mr_str_n(s.p + at, s.n - at);
}

/* The content with the preview in the place of its text; other blocks stay. path NULL: the rest is lost. */
static void preview(const struct mr_mem *m, yyjson_val *content, struct mr_str text, const char *path,
                    struct mr_buf *out)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  struct mr_str tail = end_of(text, TAIL);
  struct mr_buf b;
  yyjson_val *v;

  mr_buf_init(&b, m, SIZE_MAX / 2);
  mr_buf_add(&b, text.p, mr_utf8_cut(text, HEAD));
  if (path)
    mr_buf_printf(&b, "\n\n[%zu characters; the middle is left out here. The whole output is in %s]\n\n",
                  mr_utf8_chars(text), path);
  else
    mr_buf_printf(&b, "\n\n[%zu characters; the middle is left out]\n\n", mr_utf8_chars(text));
  mr_buf_str(&b, tail);
  mr_buf_char(out, '[');
  preview_block(m, content, mr_buf_get(&b), out);
  while ((v = yyjson_arr_iter_next(&it))) {
    if (text_of(v).p) continue;
    mr_buf_char(out, ',');
    mr_json_write(out, v, false);
  }
  mr_buf_char(out, ']');
  mr_buf_free(&b);
}

static void spill_free(const struct mr_mem *m, struct mr_spill *p)
{
  mr_mem_free(m, (void *)(uintptr_t)p->content.p);
  mr_mem_free(m, p);
}

static void unlink_spill(struct mr_spill *p)
{
  struct mr_spill **at = &p->call->th->s->spills;

  while (*at && *at != p)
    at = &(*at)->next;
  if (*at) *at = p->next;
}

void mr_spills_free(struct mr_session *s)
{
  for (struct mr_spill *p = s->spills, *next; p; p = next) {
    next = p->next;
    spill_free(s->d->mem, p);
  }
  s->spills = NULL;
}

/* What stands for the result: with the path when the file is there. */
static void finish(struct mr_spill *p, const char *path)
{
  struct mr_tcall *c = p->call;
  const struct mr_mem *m = c->th->s->d->mem;
  yyjson_doc *doc = NULL;
  struct mr_buf text, out;
  bool is_error = p->is_error;

  unlink_spill(p);
  mr_buf_init(&text, m, SIZE_MAX / 2);
  mr_buf_init(&out, m, SIZE_MAX / 2);
  if (mr_json_parse(m, p->content, SIZE_MAX, &doc, NULL) == MR_OK) {
    gather(yyjson_doc_get_root(doc), &text);
    preview(m, yyjson_doc_get_root(doc), mr_buf_get(&text), path, &out);
  }
  yyjson_doc_free(doc);
  spill_free(m, p);
  mr_tools_spilled(c, out.n && !out.failed ? mr_buf_get(&out) : MR_S("[]"), is_error);
  mr_buf_free(&text);
  mr_buf_free(&out);
}

static void on_written(void *ud, const struct mr_sandbox_result *r)
{
  struct mr_spill *p = ud;
  struct mr_session *s = p->call->th->s;

  (void)MR_FAULT("spill.written.before");
  mr_session_hands_keep(s);
  finish(p, r->code == MR_OK && !r->is_error ? p->path : NULL);
  mr_session_unref(s);
}

static int write_file(struct mr_spill *p, struct mr_str text)
{
  struct mr_session *s = p->call->th->s;
  struct mr_sandbox_call call = {.exec_id = mr_str_c(p->exec_id), .name = MR_S("write")};
  struct mr_buf b;
  int code;

  mr_buf_init(&b, s->d->mem, SIZE_MAX / 2);
  mr_buf_printf(&b, "{\"file_path\":\"%s\",\"content\":", p->path);
  mr_json_quote(&b, text);
  mr_buf_char(&b, '}');
  call.input = mr_buf_get(&b);
  (void)MR_FAULT("spill.write.before");
  code = b.failed ? b.failed : mr_sandbox_call(mr_session_hands(s), &call, on_written, p);
  (void)MR_FAULT("spill.write.after");
  mr_buf_free(&b);
  if (code == MR_OK) mr_session_ref(s);
  return code;
}

/* Is there a place for a file, and something that could read it? */
static bool can_keep(struct mr_tcall *c)
{
  struct mr_session *s = c->th->s;

  if (!s->d->sandbox || s->self_hosted) return false;
  return (s->sandbox || s->sandbox_ref || mr_tool_reads(c->th)) && mr_session_hands(s);
}

/* The file itself, read back. */
static bool is_own_file(const struct mr_tcall *c)
{
  yyjson_doc *doc = NULL;
  struct mr_str path;
  bool own;

  if (c->kind != MR_TOOL_BUILTIN || !mr_str_is(c->name, "read") ||
      mr_json_parse(c->th->s->d->mem, c->input, SIZE_MAX, &doc, NULL) != MR_OK)
    return false;
  path = mr_json_get_str(yyjson_doc_get_root(doc), "file_path");
  own = path.n > sizeof DIR - 1 && memcmp(path.p, DIR, sizeof DIR - 1) == 0;
  yyjson_doc_free(doc);
  return own;
}

bool mr_spill(struct mr_tcall *c, struct mr_str content, bool is_error)
{
  struct mr_session *s = c->th->s;
  const struct mr_mem *m = s->d->mem;
  struct mr_spill *p = NULL;
  yyjson_doc *doc = NULL;
  struct mr_buf text;
  char id[MR_ID_MAX];
  bool large;

  if (content.n <= TEXT_MAX || is_own_file(c) || mr_json_parse(m, content, SIZE_MAX, &doc, NULL) != MR_OK)
    return false;
  mr_buf_init(&text, m, SIZE_MAX / 2);
  gather(yyjson_doc_get_root(doc), &text);
  yyjson_doc_free(doc);
  large = !text.failed && text.n > TEXT_MAX && mr_utf8_chars(mr_buf_get(&text)) > TEXT_MAX;
  if (large) p = mr_mem_zalloc(m, sizeof *p);
  if (p && (p->content = mr_str_c(mr_mem_strdup(m, content))).p &&
      mr_id_make(s->d->sys, id, "spill") == MR_OK) {
    p->call = c;
    p->next = s->spills;
    s->spills = p;
    p->is_error = is_error;
    snprintf(p->exec_id, sizeof p->exec_id, "%s", id);
    snprintf(p->path, sizeof p->path, DIR "%s.txt", c->event_id);
    if (!can_keep(c) || write_file(p, mr_buf_get(&text)) != MR_OK) finish(p, NULL);
  } else if (p) {
    spill_free(m, p);
    large = false;
  }
  mr_buf_free(&text);
  return large && p;
}
