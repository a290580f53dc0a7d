/*
 * copy_ids.c - the ids of a copied session: each is made from the old one by SHA-256 under the copy's key, so equal
 * old ids become equal new ones wherever they stand and nothing is remembered. Which strings are ids is told by
 * their form and their place: whole strings of the form of an id in members that hold ids (id, *_id, *_ids), and
 * nowhere below what others wrote (foreign): texts, summaries and explanations are what they were, whatever they say.
 *
 * Invariant: a body without ids comes out as the bytes that went in. Loop thread; copy.c, fork.c and import.c call.
 */
#include "agent/copy_t.h"

#include <openssl/evp.h>
#include <stdio.h>

static const char digits[] = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
enum { RANDOM_CHARS = 22 };

static bool own_prefix(struct mr_str prefix)
{
  static const char *const own[] = {"sesn", "sthr", "sevt", "outc", "sesrsc", "wrun", "wrph"};

  for (size_t i = 0; i < sizeof own / sizeof *own; i++)
    if (mr_str_is(prefix, own[i])) return true;
  return false;
}

/* Other sessions' ids may stand in a log (in a tool's metadata, say): only this session's is its own. */
static bool is_own(const struct mr_copy *k, struct mr_str id)
{
  struct mr_str rest = id, prefix = mr_str_split(&rest, '_');

  if (!own_prefix(prefix) || rest.n < 8 || id.n >= MR_ID_MAX) return false;
  for (size_t i = 0; i < rest.n; i++)
    if (!((rest.p[i] >= '0' && rest.p[i] <= '9') || (rest.p[i] >= 'A' && rest.p[i] <= 'Z') ||
          (rest.p[i] >= 'a' && rest.p[i] <= 'z')))
      return false;
  return !mr_str_is(prefix, "sesn") || mr_str_eq(id, k->old_id);
}

void mr_copy_id(const struct mr_copy *k, struct mr_str old, char out[MR_ID_MAX])
{
  unsigned char data[sizeof k->key + MR_ID_MAX], sum[EVP_MAX_MD_SIZE];
  unsigned len = 0;
  size_t n;

  out[0] = '\0';
  for (int i = 0; i < k->nfiles; i++)
    if (mr_str_eq(k->files[i].old_id, old)) {
      memcpy(out, k->files[i].id, sizeof k->files[i].id);
      return;
    }
  if (!is_own(k, old)) return;
  memcpy(data, k->key, sizeof k->key);
  memcpy(data + sizeof k->key, old.p, old.n);
  if (EVP_Digest(data, sizeof k->key + old.n, sum, &len, EVP_sha256(), NULL) != 1 || len < RANDOM_CHARS) return;
  n = (size_t)snprintf(out, MR_ID_MAX, "%.*s_01", (int)((const char *)memchr(old.p, '_', old.n) - old.p),
                       old.p);
  for (int i = 0; i < RANDOM_CHARS; i++)
    out[n++] = digits[sum[i] % (sizeof digits - 1)];
  out[n] = '\0';
}

/* Members whose strings, and lists of strings, are ids. */
static bool holds_ids(struct mr_str key)
{
  return mr_str_is(key, "id") || mr_str_ends(key, MR_S("_id")) || mr_str_ends(key, MR_S("_ids"));
}

/* Written by a model, a client or the agent's author: nothing in it is looked at. */
static bool foreign(struct mr_str key)
{
  return mr_str_is(key, "content") || mr_str_is(key, "input") || mr_str_is(key, "agent") ||
         mr_str_is(key, "metadata");
}

static void copy_value(const struct mr_copy *k, struct mr_buf *out, yyjson_val *v, bool ids, bool calls);

/* calls: the object is a call of a model's reply, whose own id is the provider's. */
static void copy_object(const struct mr_copy *k, struct mr_buf *out, yyjson_val *v, bool calls)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(v);
  yyjson_val *x;
  int n = 0;

  mr_buf_char(out, '{');
  while ((x = yyjson_obj_iter_next(&it))) {
    struct mr_str key = mr_json_str(x);
    yyjson_val *member = yyjson_obj_iter_get_val(x);
    if (n++) mr_buf_char(out, ',');
    mr_json_quote(out, key);
    mr_buf_char(out, ':');
    if (foreign(key) || (calls && mr_str_is(key, "id")))
      mr_json_write(out, member, false);
    else
      copy_value(k, out, member, holds_ids(key), mr_str_is(key, "calls"));
  }
  mr_buf_char(out, '}');
}

/* Recursion: as deep as mr_json_parse lets a document be. */
static void copy_value(const struct mr_copy *k, struct mr_buf *out, yyjson_val *v, bool ids, bool calls)
{
  char id[MR_ID_MAX] = "";
  yyjson_val *x;
  int n = 0;

  if (yyjson_is_arr(v)) {
    yyjson_arr_iter it = yyjson_arr_iter_with(v);
    mr_buf_char(out, '[');
    while ((x = yyjson_arr_iter_next(&it))) {
      if (n++) mr_buf_char(out, ',');
      copy_value(k, out, x, ids, calls);
    }
    mr_buf_char(out, ']');
  } else if (yyjson_is_obj(v)) {
    copy_object(k, out, v, calls);
  } else {
    if (ids && yyjson_is_str(v)) mr_copy_id(k, mr_json_str(v), id);
    if (id[0])
      mr_json_quote(out, mr_str_c(id));
    else
      mr_json_write(out, v, false);
  }
}

void mr_copy_value(const struct mr_copy *k, struct mr_buf *out, yyjson_val *v)
{
  copy_value(k, out, v, false, false);
}

/* ---- a reply that is cut ---- */

static bool is_thinking(yyjson_val *block)
{
  struct mr_str type = mr_json_get_str(block, "type");
  return mr_str_is(type, "thinking") || mr_str_is(type, "redacted_thinking");
}

/* How many blocks the first so many events stand for: as turn_reply.c makes events of blocks, a run of text is one,
 * thinking and tool uses are one each. No message may end with thinking. */
static size_t blocks_of(yyjson_val *content, int events, size_t *uses)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *v;
  bool in_text = false;
  size_t n = 0, keep = 0;

  *uses = 0;
  while ((v = yyjson_arr_iter_next(&it))) {
    struct mr_str type = mr_json_get_str(v, "type");
    bool text = mr_str_is(type, "text"), use = mr_str_is(type, "tool_use");
    if (text ? !in_text : use || is_thinking(v)) events--;
    if (events < 0) break;
    in_text = text;
    n++;
    if (use) (*uses)++;
    if (!is_thinking(v)) keep = n;
  }
  return v ? keep : yyjson_arr_size(content);
}

static void first_of(struct mr_buf *out, yyjson_val *list, size_t n)
{
  mr_buf_char(out, '[');
  for (size_t i = 0; i < n && i < yyjson_arr_size(list); i++) {
    if (i) mr_buf_char(out, ',');
    mr_json_write(out, yyjson_arr_get(list, i), false);
  }
  mr_buf_char(out, ']');
}

void mr_copy_cut_reply(struct mr_buf *out, yyjson_val *reply, int events)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(reply);
  yyjson_val *k;
  size_t uses, blocks = blocks_of(mr_json_get(reply, "content"), events, &uses);
  int n = 0;

  mr_buf_char(out, '{');
  while ((k = yyjson_obj_iter_next(&it))) {
    yyjson_val *v = yyjson_obj_iter_get_val(k);
    if (n++) mr_buf_char(out, ',');
    mr_json_quote(out, mr_json_str(k));
    mr_buf_char(out, ':');
    if (yyjson_equals_str(k, "content"))
      first_of(out, v, blocks);
    else if (yyjson_equals_str(k, "calls"))
      first_of(out, v, uses);
    else
      mr_json_write(out, v, false);
  }
  mr_buf_char(out, '}');
}
