/*
 * compact.c - compaction (API: sessions §8.7): when the latest request of a thread came near what its model can hold,
 * the next one asks for a summary, which then stands for the history. Events are never changed: only what the model is
 * given becomes shorter, and the log says so (agent.thread_context_compacted, and a private row with the summary).
 *
 * The request has the history as it was sent before, tools too (a model's API wants them where calls are in the
 * history), so that the provider's cache is hit once more; only tool_choice forbids to use them. It has a span like any
 * other request, and no preview. Not state: that a request in flight is one for a summary; after a crash it is decided
 * again from the same numbers.
 */
#include "agent/turn_model_t.h"

static const char ask[] = "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"The conversation is "
                          "about to be shortened: everything "
                          "above will be replaced by the summary that you write now. Write down all that is "
                          "needed to go on without it: what "
                          "was asked for, in the words that matter; what was decided and why; what is done, "
                          "with the names of files, commands "
                          "and ids; what failed; what is to be done next. Write nothing else.\"}]}";

static int check_tokens(const char *field, yyjson_val *v, struct mr_err *err)
{
  if (yyjson_is_int(v) && yyjson_get_sint(v) >= 100) return MR_OK;
  return mr_err_set(err, MR_E_INVALID, field, "%s: tokens, a whole number of at least 100", field);
}

int mr_context_config(struct mr_domain *d, yyjson_val *config, struct mr_err *err)
{
  yyjson_obj_iter it = yyjson_obj_iter_with(config), models;
  yyjson_val *k, *v, *m;
  struct mr_buf b;
  int code = MR_OK;

  if (!config) return MR_OK;
  if (!yyjson_is_obj(config)) return mr_err_set(err, MR_E_INVALID, "context", "context: must be a table");
  while (code == MR_OK && (k = yyjson_obj_iter_next(&it))) {
    v = yyjson_obj_iter_get_val(k);
    if (yyjson_equals_str(k, "compact_at_tokens")) {
      code = check_tokens("context.compact_at_tokens", v, err);
    } else if (yyjson_equals_str(k, "models") && yyjson_is_obj(v)) {
      models = yyjson_obj_iter_with(v);
      while (code == MR_OK && (m = yyjson_obj_iter_next(&models)))
        code = check_tokens("context.models", yyjson_obj_iter_get_val(m), err);
    } else {
      code = mr_err_set(err, MR_E_INVALID, "context",
                        "context: compact_at_tokens, and models = { [\"id or prefix*\"] = tokens }");
    }
  }
  mr_buf_init(&b, d->mem, 1 << 20);
  mr_json_write(&b, config, false);
  if (code == MR_OK)
    code = b.failed ? mr_err_nomem(err) : mr_json_parse(d->mem, mr_buf_get(&b), SIZE_MAX, &d->context, err);
  mr_buf_free(&b);
  return code;
}

int64_t mr_compact_at(const struct mr_domain *d, struct mr_str model)
{
  yyjson_val *models = mr_json_get(yyjson_doc_get_root(d->context), "models"), *k;
  yyjson_obj_iter it = yyjson_obj_iter_with(models);
  int64_t found = mr_json_get_int(yyjson_doc_get_root(d->context), "compact_at_tokens", 150000);
  size_t best = 0;

  while (models && (k = yyjson_obj_iter_next(&it))) {
    struct mr_str name = mr_json_str(k);
    bool prefix = mr_str_ends(name, MR_S("*"));
    if (prefix ? mr_str_starts(model, mr_str_n(name.p, name.n - 1)) : mr_str_eq(name, model)) {
      size_t weight =
          prefix ? name.n : SIZE_MAX; /* an exact name before a prefix, a longer prefix before a shorter */
      if (weight < best) continue;
      best = weight;
      found = yyjson_get_sint(yyjson_obj_iter_get_val(k));
    }
  }
  return found;
}

bool mr_compact_wanted(const struct mr_thread *th)
{
  return th->nhistory > 1 && th->context_tokens >= mr_compact_at(th->s->d, th->model);
}

bool mr_compact_limit(struct mr_txn *t)
{
  enum { IN_A_ROW = 3 };

  if (t->th->compactions < IN_A_ROW) return false;
  mr_turn_error(t, "compaction_limit_reached_error",
                MR_S("the history was summarised three times in a row, and no message or tool call came of it"),
                "exhausted");
  mr_turn_dead(t);
  return true;
}

int mr_compact_request(struct mr_model_run *r)
{
  struct mr_str *messages = mr_arena_alloc(r->arena, ((size_t)r->req.nmessages + 1) * sizeof *messages);

  if (!messages) return MR_E_NOMEM;
  memcpy(messages, r->req.messages, (size_t)r->req.nmessages * sizeof *messages);
  messages[r->req.nmessages] = mr_str_c(ask);
  r->req.messages = messages;
  r->req.nmessages++;
  r->req.pieces = NULL;
  if (r->req.tools.n) r->req.extra = MR_S("{\"tool_choice\":{\"type\":\"none\"}}");
  return MR_OK;
}

/* The text of the reply; empty: it has none. */
static struct mr_str summary_of(struct mr_model_run *r, struct mr_str content)
{
  yyjson_doc *doc = NULL;
  yyjson_arr_iter it;
  yyjson_val *v;
  struct mr_buf b;
  struct mr_str text;

  if (mr_json_parse(r->th->s->d->mem, content, SIZE_MAX, &doc, NULL) != MR_OK) return mr_str_n("", 0);
  mr_buf_init(&b, r->th->s->d->mem, SIZE_MAX / 2);
  it = yyjson_arr_iter_with(yyjson_doc_get_root(doc));
  while (yyjson_is_arr(yyjson_doc_get_root(doc)) && (v = yyjson_arr_iter_next(&it)))
    if (mr_str_is(mr_json_get_str(v, "type"), "text")) mr_buf_str(&b, mr_json_get_str(v, "text"));
  text = mr_arena_str(r->arena, mr_str_trim(mr_buf_get(&b)));
  mr_buf_free(&b);
  yyjson_doc_free(doc);
  return text;
}

bool mr_compact_done(struct mr_model_run *r, const struct mr_model_reply *m)
{
  struct mr_str summary = summary_of(r, m->content);
  struct mr_buf b;
  struct mr_txn t;
  bool model;

  if (!summary.n) return false;
  mr_txn_begin(&t, r->th, NULL, "compact");
  mr_turn_span_end(&t, false, &m->usage);
  mr_buf_init(&b, r->th->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "{\"summary\":");
  mr_json_quote(&b, summary);
  mr_buf_char(&b, '}');
  mr_txn_private(&t, "context.compacted", mr_buf_get(&b));
  mr_buf_free(&b);
  mr_txn_plain(&t, "agent.thread_context_compacted");
  model = mr_turn_advance(&t);
  r->th->model_run = NULL;
  mr_turn_commit(&t, model);
  mr_run_free(r);
  return true;
}

int mr_compact_apply(struct mr_thread *th, yyjson_val *j)
{
  yyjson_doc *doc = NULL;
  struct mr_buf b;
  int code;

  mr_buf_init(&b, th->s->d->mem, SIZE_MAX / 2);
  mr_buf_c(&b, "[{\"type\":\"text\",\"text\":");
  mr_json_quote(&b, mr_str_c(mr_arena_printf(th->s->mem,
                                             "The conversation so far was shortened. Its summary:\n\n" MR_FMT
                                             "\n\nGo on from there.",
                                             MR_ARG(mr_json_get_str(j, "summary")))));
  mr_buf_c(&b, "}]");
  code = mr_json_parse(th->s->d->mem, mr_buf_get(&b), SIZE_MAX, &doc, NULL);
  mr_buf_free(&b);
  mr_history_clear(th);
  th->context_tokens = 0;
  th->compactions++;
  th->wants_model = true;
  if (code == MR_OK) code = mr_history_user(th, yyjson_doc_get_root(doc), "user");
  yyjson_doc_free(doc);
  return code;
}
