/*
 * script_file - the lines of a recorded model file, and which of them a request takes. Private to this
 * room; scripted.c plays the line that was found.
 *
 * Invariant: the choice depends on the request's own messages alone (every assistant message stands for
 * one line taken), so a restarted program goes on where the conversation is. Only how often an error
 * line has failed is remembered, in a small ring, as a failure leaves nothing in the messages.
 */
#ifndef MR_MODEL_SCRIPT_FILE_H
#define MR_MODEL_SCRIPT_FILE_H

#include "base/json.h"
#include "model/model.h"

enum { MR_SCRIPT_RING = 1024 };

struct mr_script_line {
  yyjson_doc *doc;
  yyjson_val *root, *reply, *error; /* reply or error, one of them */
  struct mr_str match;
};

struct mr_script {
  const struct mr_mem *mem;
  char *path;
  struct mr_script_line *lines;
  int n;
  struct {
    uint64_t who;
    int times;
  } ring[MR_SCRIPT_RING]; /* failures already played */
  int at;
};

/* What a request holds, as texts. */
struct mr_script_view {
  struct mr_buf last;        /* all text of the last message: what match looks at */
  struct mr_buf user_text;   /* text of the newest user message that has text */
  struct mr_buf tool_result; /* text of the newest message with tool results */
  int replies;               /* assistant messages */
  int used;                  /* lines taken by them */
};

int mr_script_load(struct mr_script *s, const struct mr_mem *m, const char *path, struct mr_err *err);
void mr_script_free(struct mr_script *s);
void mr_script_view_free(struct mr_script_view *v);
/* Fills v (freed by the caller in any case) and *out, which is NULL when no line is left that fits. */
int mr_script_take(struct mr_script *s, const struct mr_model_req *r, struct mr_script_view *v,
                   const struct mr_script_line **out, struct mr_err *err);

#endif
