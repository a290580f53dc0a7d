/*
 * openai_form - canonical requests in the form of chat completions. Private to this room.
 *
 * Invariant: what becomes of a fragment depends on that fragment alone, so that a longer session's
 * request begins with the bytes of the shorter one and server-side prefix caches keep hitting.
 */
#ifndef MR_MODEL_OPENAI_FORM_H
#define MR_MODEL_OPENAI_FORM_H

#include "model/model.h"

/* A thinking block with reasoning of such a server has as its signature this mark and the name of the field that it
 * came in, which is the one it goes back in. */
#define MR_REASONING_MARK "moonrig:"

/* home: the maker's own service, which knows no fields but its own. Appends the whole request body. MR_E_INVALID: a fragment that is no message. */
int mr_openai_body(struct mr_buf *b, const struct mr_model_req *r, bool home, struct mr_err *err);
/* Adds the parameters besides model, messages and tools (openai_extra.c). */
int mr_openai_extra(struct mr_jw *w, const struct mr_model_req *r, struct mr_err *err);

#endif
