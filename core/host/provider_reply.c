/*
 * provider_reply.c - how a model that the host plays answers: the reply, in the form of the Messages API, is read
 * and put into the form that the turn stores. Any thread; the use is released whatever the reply is worth, or the
 * turn would wait for ever.
 */
#include "host/provider_t.h"

enum { REPLY_MAX = 32 << 20 };

static char *fail_text(struct mr_model_use *u, const char *text)
{
  struct mr_str s = mr_str_c(text);

  s.n = mr_utf8_cut(s, 2000);
  return mr_mem_strdup(mr_rt_mem(u->g.rt), s);
}

static enum mr_model_status status_of(const char *type)
{
  static const struct {
    const char *type;
    enum mr_model_status status;
  } map[] = {{"overloaded_error", MR_MODEL_OVERLOADED},
             {"rate_limit_error", MR_MODEL_RATE_LIMITED},
             {"billing_error", MR_MODEL_BILLING},
             {"invalid_request_error", MR_MODEL_REFUSED_REQUEST},
             {"authentication_error", MR_MODEL_REFUSED_REQUEST},
             {"permission_error", MR_MODEL_REFUSED_REQUEST},
             {"not_found_error", MR_MODEL_REFUSED_REQUEST},
             {"request_too_large", MR_MODEL_REFUSED_REQUEST}};

  for (size_t i = 0; type && i < sizeof map / sizeof *map; i++)
    if (strcmp(type, map[i].type) == 0) return map[i].status;
  return MR_MODEL_FAILED;
}

int mr_model_use_fail(struct mr_model_use **up, const char *error_type, const char *message)
{
  struct mr_model_use *u = up ? *up : NULL;
  int code = u ? mr_rt_check(u->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  *up = NULL;
  u->status = status_of(error_type);
  u->message = fail_text(u, message && message[0] ? message : "the model failed");
  mr_given_answer(&u->g);
  return MR_OK;
}

/* Content blocks as they will be stored; a tool_use without id or input gets one. */
static int write_content(struct mr_model_use *u, yyjson_val *content, bool *tools)
{
  yyjson_arr_iter it = yyjson_arr_iter_with(content);
  yyjson_val *b, *k;
  char id[MR_ID_MAX];
  struct mr_buf out;
  struct mr_jw w;
  int code = yyjson_is_arr(content) ? MR_OK : MR_E_INVALID;

  *tools = false;
  mr_buf_init(&out, mr_rt_mem(u->g.rt), REPLY_MAX);
  mr_jw_init(&w, &out);
  mr_jw_arr(&w);
  while (code == MR_OK && (b = yyjson_arr_iter_next(&it))) {
    yyjson_obj_iter oi = yyjson_obj_iter_with(b);
    bool tool = mr_str_is(mr_json_get_str(b, "type"), "tool_use");
    if (!mr_json_get_str(b, "type").n || (tool && !mr_json_get_str(b, "name").n) ||
        (mr_str_is(mr_json_get_str(b, "type"), "text") && !yyjson_is_str(mr_json_get(b, "text")))) {
      code = MR_E_INVALID;
      break;
    }
    *tools = *tools || tool;
    mr_jw_obj(&w);
    while ((k = yyjson_obj_iter_next(&oi))) {
      if (tool && yyjson_equals_str(k, "id") && !mr_json_get_str(b, "id").n) continue;
      mr_jw_key_s(&w, mr_json_str(k));
      w.after_key = false;
      mr_json_write(&out, yyjson_obj_iter_get_val(k), false);
    }
    if (tool && !mr_json_get_str(b, "id").n) {
      code = mr_id_make(&u->g.rt->sys, id, "toolu");
      mr_jw_kc(&w, "id", id);
    }
    if (tool && !mr_json_get(b, "input")) mr_jw_kraw(&w, "input", MR_S("{}"));
    mr_jw_obj_end(&w);
  }
  mr_jw_arr_end(&w);
  if (code == MR_OK) code = out.failed;
  u->content = code == MR_OK ? mr_buf_take(&out, NULL) : NULL;
  mr_buf_free(&out);
  return code == MR_OK && !u->content ? MR_E_NOMEM : code;
}

static void read_usage(struct mr_usage *out, yyjson_val *u)
{
  yyjson_val *made = mr_json_get(u, "cache_creation");

  out->input = mr_json_get_int(u, "input_tokens", 0);
  out->output = mr_json_get_int(u, "output_tokens", 0);
  out->cache_read = mr_json_get_int(u, "cache_read_input_tokens", 0);
  out->cache_write_1h = mr_json_get_int(made, "ephemeral_1h_input_tokens", 0);
  out->cache_write_5m =
      mr_json_get_int(made, "ephemeral_5m_input_tokens", mr_json_get_int(u, "cache_creation_input_tokens", 0));
}

static int read_reply(struct mr_model_use *u, yyjson_val *reply)
{
  const struct mr_mem *m = mr_rt_mem(u->g.rt);
  struct mr_str why = mr_json_get_str(reply, "stop_reason");
  yyjson_val *details = mr_json_get(reply, "stop_details");
  struct mr_buf b;
  bool tools;
  int code = write_content(u, mr_json_get(reply, "content"), &tools);

  if (code != MR_OK) return code;
  read_usage(&u->usage, mr_json_get(reply, "usage"));
  u->stop_reason = mr_mem_strdup(m, why.n ? why : tools ? MR_S("tool_use") : MR_S("end_turn"));
  if (yyjson_is_obj(details)) {
    mr_buf_init(&b, m, 1 << 16);
    mr_json_write(&b, details, false);
    u->stop_details = mr_buf_take(&b, NULL);
  }
  return u->stop_reason ? MR_OK : MR_E_NOMEM;
}

static int answer(struct mr_model_use **up, int code)
{
  struct mr_model_use *u = *up;

  *up = NULL;
  if (code != MR_OK) { /* released all the same, or the turn would wait for ever */
    u->status = code == MR_E_NOMEM ? MR_MODEL_FAILED : MR_MODEL_REFUSED_REQUEST;
    u->message = fail_text(u, code == MR_E_INVALID ? "the provider's reply is not {\"content\":[blocks]}"
                                                   : mr_strerror(code));
  }
  mr_given_answer(&u->g);
  return code;
}

int mr_model_finish_val(struct mr_model_use **up, yyjson_val *reply)
{
  return answer(up, read_reply(*up, reply));
}

int mr_model_use_finish(struct mr_model_use **up, const char *json)
{
  struct mr_model_use *u = up ? *up : NULL;
  struct mr_runtime *rt;
  yyjson_doc *doc = NULL;
  int code = u ? mr_rt_check(u->g.rt, NULL) : MR_E_INVALID;

  if (code != MR_OK) return code;
  rt = u->g.rt;
  mr_rt_ref(rt); /* the document's memory: the use may be the runtime's last holder */
  code = mr_json_parse(mr_rt_mem(rt), mr_str_c(json), REPLY_MAX, &doc, NULL);
  code = code == MR_OK ? mr_model_finish_val(up, yyjson_doc_get_root(doc)) : answer(up, code);
  yyjson_doc_free(doc);
  mr_rt_unref(rt);
  return code;
}
