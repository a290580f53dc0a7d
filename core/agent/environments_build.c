/*
 * environments_build.c - the operation environments.build: installs an environment's packages now, instead of at the
 * first tool call of its first session, and answers when they are there, or with what went wrong. What is installed
 * already is not installed again. A client that goes away ends nothing. Loop thread.
 */
#include "agent/agent_t.h"

struct build {
  struct mr_call *c;
  bool waits;
};

static void answer(struct build *p, const char *state, struct mr_str message)
{
  struct mr_call *c = p->c;
  struct mr_jw w;

  c->cancel = NULL;
  mr_jw_init(&w, &c->out);
  mr_jw_obj(&w);
  mr_jw_kc(&w, "type", "environment_build");
  mr_jw_kstr(&w, "environment_id", c->path[0]);
  mr_jw_kc(&w, "state", state);
  mr_jw_key(&w, "message");
  if (message.n)
    mr_jw_str(&w, message);
  else
    mr_jw_null(&w);
  mr_jw_obj_end(&w);
  mr_call_done(c, MR_OK);
}

static void on_built(void *ud, const struct mr_sandbox_result *r)
{
  struct build *p = ud;
  yyjson_doc *doc = NULL;

  p->waits = false;
  if (r->code != MR_OK) {
    p->c->cancel = NULL;
    mr_call_fail_err(p->c, r->err);
    return;
  }
  mr_json_parse(p->c->mem, r->content, SIZE_MAX, &doc, NULL);
  answer(p, r->is_error ? "failed" : "ready",
         mr_json_get_str(yyjson_arr_get_first(yyjson_doc_get_root(doc)), "text"));
  yyjson_doc_free(doc);
}

static void cancel(struct mr_call *c)
{
  struct build *p = c->priv;

  if (!p->waits) return;
  c->cancel = NULL;
  mr_sandbox_prepare_cancel(c->d->sandbox, on_built, p);
  mr_call_fail(c, MR_E_CANCELLED, NULL, "cancelled; the installation goes on");
}

static int start(struct build *p, yyjson_val *config)
{
  struct mr_sandbox_spec spec = {.environment_id = ""};
  struct mr_call *c = p->c;
  int n = 0, code;

  if (mr_str_is(mr_json_get_str(config, "type"), "self_hosted"))
    return mr_err_set(&c->err, MR_E_INVALID, NULL,
                      "environment " MR_FMT " is self-hosted: its workers see to its packages",
                      MR_ARG(c->path[0]));
  if (!c->d->sandbox) return mr_err_set(&c->err, MR_E_UNSUPPORTED, NULL, "this runtime has no sandbox");
  mr_env_packages(c->arena, config, &spec.packages);
  for (int i = 0; i < MR_PKG_MANAGERS; i++)
    n += spec.packages.n[i];
  if (n == 0) {
    answer(p, "ready", (struct mr_str){0});
    return MR_OK;
  }
  c->priv = p;
  c->cancel = cancel;
  p->waits = true;
  code = mr_sandbox_prepare(c->d->sandbox, &spec, on_built, p);
  if (code == MR_OK) return MR_OK;
  c->cancel = NULL;
  return mr_err_set(&c->err, code, NULL, "the packages cannot be installed now: %s", mr_strerror(code));
}

static void on_doc(void *ud, const struct mr_rows *r)
{
  struct build *p = ud;
  struct mr_call *c = p->c;
  int code = mr_read_check(c, r, NULL, "environment", c->path[0]);
  yyjson_doc *doc = NULL;

  if (code == MR_OK) code = mr_json_parse(c->mem, r->docs[0].body, SIZE_MAX, &doc, &c->err);
  if (code == MR_OK) code = start(p, mr_json_get(yyjson_doc_get_root(doc), "config"));
  yyjson_doc_free(doc);
  if (code != MR_OK) mr_call_done(c, code);
}

void mr_environments_build(struct mr_call *c)
{
  struct build *p = mr_arena_alloc(c->arena, sizeof *p);

  if (!p) {
    mr_call_fail(c, MR_E_NOMEM, NULL, "out of memory");
    return;
  }
  p->c = c;
  mr_read_doc(c->d->store, c->who.workspace, MR_S("environment"), c->path[0], on_doc, p);
}
