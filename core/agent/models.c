/* models.c - GET /v1/models: the model ids that are routed here, in the shape of the SDK's model list. */
#include "agent/agent_t.h"

static void write_model(struct mr_jw *w, struct mr_str id)
{
  static const char *const unknown[] = {"line",         "max_input_tokens",        "max_tokens",
                                        "capabilities", "allowed_fallback_models", "deprecated_at",
                                        "retires_at"};

  mr_jw_obj(w);
  mr_jw_kc(w, "type", "model");
  mr_jw_kstr(w, "id", id);
  mr_jw_kstr(w, "display_name", id);
  mr_jw_kc(w, "created_at", "1970-01-01T00:00:00Z"); /* this and what is null: unknown here */
  mr_jw_kc(w, "lifecycle", "active");
  for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
    mr_jw_key(w, unknown[i]);
    mr_jw_null(w);
  }
  mr_jw_obj_end(w);
}

void mr_models_list(struct mr_call *c)
{
  struct mr_str id, first = {NULL, 0}, last = {NULL, 0}, after = mr_json_get_str(c->in, "after_id");
  int64_t limit = mr_json_get_int(c->in, "limit", 20), n = 0;
  bool open = !after.n, more = false;
  struct mr_jw w;

  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_key(&w, "data");
  mr_jw_arr(&w);
  for (int i = 0; (id = mr_models_at(c->d->models, i)).p; i++) {
    if (open && n < limit) {
      write_model(&w, id);
      first = n++ ? first : id;
      last = id;
    } else if (open) {
      more = true;
    }
    open = open || mr_str_eq(id, after);
  }
  mr_jw_arr_end(&w);
  mr_jw_key(&w, "has_more");
  mr_jw_bool(&w, more);
  for (int k = 0; k < 2; k++) {
    struct mr_str edge = k ? last : first;
    mr_jw_key(&w, k ? "last_id" : "first_id");
    if (edge.p)
      mr_jw_str(&w, edge);
    else
      mr_jw_null(&w);
  }
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

void mr_models_retrieve(struct mr_call *c)
{
  struct mr_str id;
  struct mr_jw w;

  for (int i = 0; (id = mr_models_at(c->d->models, i)).p; i++) {
    if (!mr_str_eq(id, c->path[0])) continue;
    mr_jw_init(&w, &c->out);
    write_model(&w, id);
    mr_call_done(c, MR_OK);
    return;
  }
  mr_not_found(c, "model", c->path[0]);
}
