/*
 * reply - gathering a streamed reply: content blocks that open, grow and end up as one JSON array in
 * the form of the Messages API. Private to this room; both streaming providers use it.
 *
 * Invariant: the index given to the callbacks is the block's place in the array that is written. A text
 * block is announced with its first visible character, so that one without any (which an upstream
 * refuses to read back) leaves no hole. Bounded: MR_REPLY_MAX bytes, MR_REPLY_BLOCKS blocks.
 */
#ifndef MR_MODEL_REPLY_H
#define MR_MODEL_REPLY_H

#include "model/model.h"

enum { MR_REPLY_MAX = 32 << 20, MR_REPLY_BLOCKS = 4096 };

enum mr_rfield { MR_RF_NONE = 0, MR_RF_TEXT, MR_RF_THINKING, MR_RF_INPUT };

struct mr_rblock {
  int index;            /* the upstream's number for it */
  int at;               /* place in the reply; -1 while not announced */
  enum mr_rfield field; /* what grow holds */
  bool text;            /* its text goes to the text callback */
  struct mr_buf head;   /* the block as it began, a JSON object */
  struct mr_buf grow;   /* text, thinking, or the partial JSON of input */
  struct mr_buf sig;    /* thinking's signature */
  struct mr_buf cites;  /* elements of citations, joined by commas */
};

struct mr_reply_build {
  const struct mr_mem *mem;
  const struct mr_model_cbs *cbs; /* borrowed; outlives this */
  void *ud;
  struct mr_rblock **b; /* as opened */
  int *place;           /* place[at] = index into b */
  int n, cap, placed;
  size_t bytes; /* gathered so far, all blocks */
};

void mr_reply_init(struct mr_reply_build *rb, const struct mr_mem *m, const struct mr_model_cbs *cbs, void *ud);
void mr_reply_free(struct mr_reply_build *rb);
/* Opens a block. kind: its type; head: the object it begins as. MR_E_TOO_LARGE, MR_E_NOMEM. */
int mr_reply_open(struct mr_reply_build *rb, int index, struct mr_str kind, struct mr_str head,
                  struct mr_rblock **out);
struct mr_rblock *mr_reply_find(struct mr_reply_build *rb, int index); /* newest of that number, or NULL */
/* Appends to a field of a block; text is passed to the callbacks. MR_E_TOO_LARGE, MR_E_NOMEM. */
int mr_reply_add(struct mr_reply_build *rb, struct mr_rblock *b, enum mr_rfield f, struct mr_str more);
/* Is this the "id" that the block began with? */
bool mr_reply_id_is(const struct mr_rblock *b, const struct mr_mem *m, struct mr_str id);
/* Is what was gathered of its input a whole JSON object? */
bool mr_reply_whole(struct mr_reply_build *rb, const struct mr_rblock *b);
int mr_reply_sign(struct mr_reply_build *rb, struct mr_rblock *b, struct mr_str more);
int mr_reply_cite(struct mr_reply_build *rb, struct mr_rblock *b, struct mr_str json);
/* Appends the array. cut: the reply ran into its length limit, so a last tool_use whose input is not
 * whole is left out. Another input that is no JSON object is put into one: {"INVALID_JSON": "<text>"}. */
int mr_reply_write(struct mr_reply_build *rb, bool cut, struct mr_buf *out);
bool mr_reply_has_tools(const struct mr_reply_build *rb);

#endif
