/* sandbox.c - the front: every call goes to the driver's table; see sandbox.h. */
#include "sandbox/sandbox.h"

void mr_sandbox_driver_free(struct mr_sandbox_driver **d)
{
  if (*d) (*d)->v->free(*d);
  *d = NULL;
}

int mr_sandbox_report(struct mr_sandbox_driver *d, const struct mr_sandbox_feature **f, int *n,
                      struct mr_err *err)
{
  return d->v->report(d, f, n, err);
}

int mr_sandbox_diagnose(struct mr_sandbox_driver *d, const char *environment_id, mr_sandbox_diagnosis_fn fn,
                        void *ud)
{
  return d->v->diagnose ? d->v->diagnose(d, environment_id, fn, ud) : MR_E_UNSUPPORTED;
}

struct mr_sandbox *mr_sandbox_get(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec,
                                  const char *ref)
{
  return d->v->get(d, spec, ref);
}

void mr_sandbox_put(struct mr_sandbox **s)
{
  if (*s) (*s)->d->v->put(*s);
  *s = NULL;
}

const char *mr_sandbox_ref(const struct mr_sandbox *s)
{
  return s->d->v->ref(s);
}

int mr_sandbox_call(struct mr_sandbox *s, const struct mr_sandbox_call *c, mr_sandbox_fn fn, void *ud)
{
  return s->d->v->call(s, c, fn, ud);
}

int mr_sandbox_status(struct mr_sandbox *s, struct mr_str exec_id, mr_sandbox_fn fn, void *ud)
{
  return s->d->v->status(s, exec_id, fn, ud);
}

void mr_sandbox_cancel(struct mr_sandbox *s, struct mr_str exec_id)
{
  s->d->v->cancel(s, exec_id);
}

void mr_sandbox_destroy(struct mr_sandbox_driver *d, const char *session_id, const char *ref, mr_sandbox_fn fn,
                        void *ud)
{
  d->v->destroy(d, session_id, ref, fn, ud);
}

int mr_sandbox_outputs_path(struct mr_sandbox_driver *d, const char *session_id, char out[4096])
{
  return d->v->outputs_path(d, session_id, out);
}

bool mr_sandbox_can_keep(const struct mr_sandbox_driver *d)
{
  return d && d->v->checkpoint;
}

int mr_sandbox_checkpoint(struct mr_sandbox_driver *d, const struct mr_sandbox_keep_opts *o,
                          struct mr_sandbox_keep **out)
{
  return mr_sandbox_can_keep(d) ? d->v->checkpoint(d, o, out) : MR_E_UNSUPPORTED;
}

int mr_sandbox_restore(struct mr_sandbox_driver *d, int fd, const struct mr_sandbox_keep_opts *o,
                       struct mr_sandbox_keep **out)
{
  return mr_sandbox_can_keep(d) ? d->v->restore(d, fd, o, out) : MR_E_UNSUPPORTED;
}

int mr_sandbox_take(struct mr_sandbox_keep *k, mr_sandbox_kept_fn fn, void *ud)
{
  return k->v->take(k, fn, ud);
}

void mr_sandbox_keep_free(struct mr_sandbox_keep **k)
{
  if (*k) (*k)->v->keep_free(*k);
  *k = NULL;
}

const char *mr_sandbox_doing(const struct mr_sandbox *s)
{
  return s->d->v->doing ? s->d->v->doing(s) : "";
}

int mr_sandbox_prepare(struct mr_sandbox_driver *d, const struct mr_sandbox_spec *spec, mr_sandbox_fn fn,
                       void *ud)
{
  return d->v->prepare ? d->v->prepare(d, spec, fn, ud) : MR_E_UNSUPPORTED;
}

void mr_sandbox_prepare_cancel(struct mr_sandbox_driver *d, mr_sandbox_fn fn, void *ud)
{
  if (d->v->prepare) d->v->prepare_cancel(d, fn, ud);
}

bool mr_sandbox_package_ok(struct mr_str name)
{
  for (size_t i = 0; i < name.n; i++)
    if ((unsigned char)name.p[i] < 32 || name.p[i] == 127) return false;
  return name.n > 0 && name.n <= 256 && name.p[0] != '-' && name.p[0] != ' ';
}

void mr_sandbox_egress_stats(struct mr_sandbox_driver *d, struct mr_egress_stats *out)
{
  *out = (struct mr_egress_stats){0};
  if (d && d->v->egress_stats) d->v->egress_stats(d, out);
}
