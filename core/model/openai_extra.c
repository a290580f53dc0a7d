/*
 * openai_extra - the parameters of a request besides its messages and tools, in the form of chat completions:
 * limits, effort, and what a client of the Messages API says in a request that is passed through (struct
 * mr_model_req.extra).
 *
 * What has no counterpart is left out (top_k, metadata, container, context_management ...): the reply is still
 * what was asked for. Loop thread, no state. Called by openai_form.c.
 */
#include "model/models_t.h"
#include "model/openai_form.h"

/* Models of the family's first server refuse max_tokens; others know only that. */
static bool new_limit(struct mr_str model)
{
  const char *usual = mr_model_usual(model);
  return usual && strcmp(usual, "openai") == 0;
}

static void number(struct mr_jw *w, yyjson_val *extra, const char *key)
{
  yyjson_val *v = mr_json_get(extra, key);
  if (!yyjson_is_num(v)) return;
  mr_jw_key(w, key);
  mr_jw_real(w, yyjson_get_num(v));
}

static void stops(struct mr_jw *w, yyjson_val *list)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(list);
  yyjson_val *v;
  if (!yyjson_arr_size(list)) return;
  mr_jw_key(w, "stop");
  mr_jw_arr(w);
  while ((v = yyjson_arr_iter_next(&it)))
    if (yyjson_is_str(v)) mr_jw_str(w, mr_json_str(v));
  mr_jw_arr_end(w);
}

static void choice(struct mr_jw *w, yyjson_val *v)
{
  struct mr_str type = mr_json_get_str(v, "type");
  if (yyjson_is_true(mr_json_get(v, "disable_parallel_tool_use")))
    mr_jw_kraw(w, "parallel_tool_calls", MR_S("false"));
  if (mr_str_is(type, "any")) mr_jw_kc(w, "tool_choice", "required");
  if (mr_str_is(type, "none")) mr_jw_kc(w, "tool_choice", "none");
  if (!mr_str_is(type, "tool")) return; /* auto is what they do by themselves */
  mr_jw_key(w, "tool_choice");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "function");
  mr_jw_key(w, "function");
  mr_jw_obj(w);
  mr_jw_kstr(w, "name", mr_json_get_str(v, "name"));
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
}

/* output_config.format, or the older output_format: a JSON schema that the reply must fit. */
static void format(struct mr_jw *w, yyjson_val *v)
{
  yyjson_val *schema = mr_json_get(v, "schema");
  struct mr_buf t;
  if (!mr_str_is(mr_json_get_str(v, "type"), "json_schema") || !yyjson_is_obj(schema)) return;
  mr_buf_init(&t, w->b->mem, 1 << 20);
  mr_json_write(&t, schema, false);
  mr_jw_key(w, "response_format");
  mr_jw_obj(w);
  mr_jw_kc(w, "type", "json_schema");
  mr_jw_key(w, "json_schema");
  mr_jw_obj(w);
  mr_jw_kc(w, "name", "output");
  mr_jw_kraw(w, "strict", MR_S("true"));
  mr_jw_kraw(w, "schema", mr_buf_get(&t));
  mr_jw_obj_end(w);
  mr_jw_obj_end(w);
  if (t.failed) w->b->failed = t.failed;
  mr_buf_free(&t);
}

int mr_openai_extra(struct mr_jw *w, const struct mr_model_req *r, struct mr_err *err)
{
  yyjson_doc *d = NULL;
  yyjson_val *x;
  /* Without a wish the server's own default stands: local models often hold less than ours. */
  if (r->max_tokens > 0)
    mr_jw_kint(w, new_limit(r->model) ? "max_completion_tokens" : "max_tokens", r->max_tokens);
  if (r->effort.n) {
    bool high = mr_str_is(r->effort, "xhigh") || mr_str_is(r->effort, "max");
    mr_jw_kstr(w, "reasoning_effort", high ? MR_S("high") : r->effort);
  }
  if (!r->extra.n) return MR_OK;
  int rc = mr_json_parse(w->b->mem, r->extra, SIZE_MAX, &d, err);
  if (rc != MR_OK) return rc;
  x = yyjson_doc_get_root(d);
  number(w, x, "temperature");
  number(w, x, "top_p");
  stops(w, mr_json_get(x, "stop_sequences"));
  choice(w, mr_json_get(x, "tool_choice"));
  yyjson_val *f = mr_json_get(mr_json_get(x, "output_config"), "format");
  format(w, f ? f : mr_json_get(x, "output_format"));
  yyjson_doc_free(d);
  return MR_OK;
}
