/*
 * json - reading JSON: yyjson with our limits and our errors. Values are used through yyjson's own
 * accessors (yyjson_obj_getn, yyjson_get_str, ...); this header adds what is missing.
 *
 * Untrusted text is bounded before it is parsed: at most max_bytes, at most 512 levels deep (checked
 * by a scan that allocates nothing), UTF-8, no trailing text, no duplicate-key guessing (first wins).
 */
#ifndef MR_BASE_JSON_H
#define MR_BASE_JSON_H

#include <yyjson.h>
#include "base/buf.h"

enum { MR_JSON_DEPTH = 512 };

/* Parses text into *doc (yyjson_doc_free). MR_E_INVALID with the byte offset in err.message,
 * MR_E_TOO_LARGE, MR_E_NOMEM. Integers up to 64 bits stay exact; longer ones and reals are kept as
 * yyjson reads them. */
int mr_json_parse(const struct mr_mem *m, struct mr_str text, size_t max_bytes, yyjson_doc **doc,
                  struct mr_err *err);
struct mr_str mr_json_str(yyjson_val *v);                  /* empty (p NULL) when not a string */
yyjson_val *mr_json_get(yyjson_val *obj, const char *key); /* NULL when absent or not an object */
struct mr_str mr_json_get_str(yyjson_val *obj, const char *key);
int64_t mr_json_get_int(yyjson_val *obj, const char *key, int64_t dflt);
bool mr_json_get_bool(yyjson_val *obj, const char *key, bool dflt);
/* Appends the value as compact text; sorted = object keys in byte order, at all depths. */
void mr_json_write(struct mr_buf *b, yyjson_val *v, bool sorted);
/* The same as the next value of a writer; with its key. */
void mr_jw_val(struct mr_jw *w, yyjson_val *v);
void mr_jw_kval(struct mr_jw *w, const char *key, yyjson_val *v);
/* Same value? Objects compare without order; numbers by value. */
bool mr_json_equal(yyjson_val *a, yyjson_val *b);
/* yyjson allocator on mr_mem; fill *alc, valid while m is. */
void mr_json_alc(const struct mr_mem *m, yyjson_alc *alc);

#endif
