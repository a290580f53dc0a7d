/*
 * envd_notebook - a Jupyter notebook (format 4) as text for the tool read: the cells in order, what they printed,
 * and what is there but is no text. A file that is no such notebook is read as any other text; with a view_range
 * every notebook is, so that what edit changes can be seen.
 *
 * Bounded: each output's text is cut at OUTPUT_MAX characters, the whole at what read may return.
 */
#include <stdio.h>
#include <string.h>

#include "envd.h"

enum { OUTPUT_MAX = 10000, ALL_MAX = 64 << 20 };

/* A string, or an array of strings that belong together. */
static void text_of(struct ebuf *b, const struct ej *v)
{
  if (v && v->t == EJ_STR) ebuf_put(b, v->s.p, v->s.n);
  for (const struct ej *m = v && v->t == EJ_ARR ? v->first : NULL; m; m = m->next)
    if (m->t == EJ_STR) ebuf_put(b, m->s.p, m->s.n);
}

static void end_line(struct ebuf *b)
{
  if (b->n && b->p[b->n - 1] != '\n') ebuf_s(b, "\n");
}

/* v's text, its beginning when it is long. */
static void limited(struct ebuf *b, const struct ej *v)
{
  struct ebuf text = {.max = ALL_MAX};
  text_of(&text, v);
  size_t keep = envd_head(text.p, text.n, OUTPUT_MAX);
  ebuf_put(b, text.p, keep);
  if (keep < text.n) ebuf_f(b, "\n[%zu bytes more; the notebook file has them]", text.n - keep);
  end_line(b);
  if (text.failed) b->failed = true;
  ebuf_free(&text);
}

/* The best text of what a cell showed, and which other forms of it there are. */
static void shown_data(struct ebuf *b, const struct ej *data)
{
  static const char *const texts[] = {"text/plain", "text/markdown", "text/html", "application/json"};
  const struct ej *text = NULL;
  for (size_t i = 0; i < sizeof texts / sizeof *texts && !text; i++)
    text = data ? ej_get(data, texts[i]) : NULL;
  limited(b, text);
  for (const struct ej *m = data ? data->first : NULL; m; m = m->next)
    if (m->key.n > 6 && !memcmp(m->key.p, "image/", 6)) ebuf_f(b, "[%.60s, not shown here]\n", m->key.p);
}

static void output(struct ebuf *b, const struct ej *o)
{
  struct estr type = ej_str(o, "output_type");
  if (type.p && !strcmp(type.p, "stream")) {
    limited(b, ej_get(o, "text"));
  } else if (type.p && !strcmp(type.p, "error")) {
    const struct ej *trace = ej_get(o, "traceback");
    struct estr name = ej_str(o, "ename"), value = ej_str(o, "evalue");
    for (const struct ej *m = trace && trace->t == EJ_ARR ? trace->first : NULL; m; m = m->next)
      limited(b, m);
    if (!trace || trace->t != EJ_ARR || !trace->first)
      ebuf_f(b, "%.200s: %.2000s\n", name.p ? name.p : "error", value.p ? value.p : "");
  } else {
    const struct ej *data = ej_get(o, "data");
    shown_data(b, data && data->t == EJ_OBJ ? data : NULL);
  }
}

static void cell(struct ebuf *b, const struct ej *c, int number)
{
  struct estr type = ej_str(c, "cell_type"), id = ej_str(c, "id");
  const struct ej *run = ej_get(c, "execution_count"), *outputs = ej_get(c, "outputs");
  ebuf_f(b, "%s--- cell %d: %.20s", number > 1 ? "\n" : "", number, type.p ? type.p : "unknown");
  if (id.p) ebuf_f(b, ", id %.64s", id.p);
  if (run && run->t == EJ_INT) ebuf_f(b, ", run %lld", (long long)run->i);
  ebuf_s(b, " ---\n");
  text_of(b, ej_get(c, "source"));
  end_line(b);
  if (!outputs || outputs->t != EJ_ARR || !outputs->first) return;
  ebuf_f(b, "--- output of cell %d ---\n", number);
  for (const struct ej *o = outputs->first; o; o = o->next)
    if (o->t == EJ_OBJ) output(b, o);
}

bool notebook_give(struct tool_run *r, struct estr shown, const struct ebuf *file)
{
  struct ej_doc doc = {0};
  struct ebuf b = {.max = ALL_MAX}, clean = {.max = ALL_MAX};
  const char *why;
  int n = 0;
  bool is = file->n && ej_parse(&doc, file->p, file->n, &why) && doc.root->t == EJ_OBJ;
  const struct ej *cells = is ? ej_get(doc.root, "cells") : NULL;
  is = cells && cells->t == EJ_ARR && ej_get(doc.root, "nbformat");
  for (const struct ej *c = is ? cells->first : NULL; c; c = c->next)
    if (c->t == EJ_OBJ) cell(&b, c, ++n);
  if (is && !n) ebuf_s(&b, "[a notebook without cells]");
  ebuf_text(&clean, b.p, b.n, true); /* tracebacks are coloured */
  if (is && (b.failed || clean.failed || clean.n > ENVD_FILE_MAX))
    tool_fail(r,
              "read: %s has %d cells, whose text exceeds %d-byte limit. Use view_range to read lines of the "
              "file itself",
              shown.p, n, ENVD_FILE_MAX);
  else if (is)
    tool_text(r, clean.p, clean.n);
  ebuf_free(&b);
  ebuf_free(&clean);
  ej_free(&doc);
  return is;
}
