/*
 * access.c - who may call what (API: resources §8.1, §8.9). API keys may call everything but what is the workers'
 * alone. An environment key may serve the queue of its environment, and read and answer the sessions whose items are
 * in a worker's hands. A session token may do that for the one session of its item, as long as the item is its.
 * An operation says in ops.def to whom it is open; here are the limits within it. What may be sent to a session is
 * in events.c. Loop thread; the HTTP face asks before anything is read of a body.
 */
#include "agent/work_t.h"

static int deny(struct mr_err *err, const char *why)
{
  return mr_err_set(err, MR_E_DENIED, NULL, "%s", why);
}

/* Is the item in a worker's hands? Still so when its lease is over and nobody has come for it. */
static bool in_hands(const struct mr_domain *d, const struct mr_work *w)
{
  if (mr_work_shows(w, mr_loop_wall_us(d->loop)) == MR_WORK_STOPPED) return false;
  return w->state != MR_WORK_QUEUED || w->claimed_us;
}

static int check_environment(struct mr_domain *d, const struct mr_bearer *b, bool of_session,
                             const struct mr_str path[MR_PATH_MAX], struct mr_err *err)
{
  const struct mr_work *w;

  if (!of_session && !mr_str_eq(path[0], b->environment_id))
    return deny(err, "this key is of another environment");
  if (!of_session) return MR_OK;
  w = mr_work_of_session(d, b->workspace, path[0]);
  if (w && mr_str_is(b->environment_id, w->environment_id) && in_hands(d, w)) return MR_OK;
  return mr_err_set(err, MR_E_NOTFOUND, NULL,
                    "session " MR_FMT " not found, or its work item is in no worker's hands", MR_ARG(path[0]));
}

static int check_item(struct mr_domain *d, const struct mr_bearer *b, bool of_session, const char *route,
                      const struct mr_str path[MR_PATH_MAX], struct mr_err *err)
{
  const struct mr_work *w = mr_work_find(d, b->workspace, b->key_id);

  if (!of_session) {
    if (!mr_str_eq(path[0], b->environment_id) || !mr_str_eq(path[1], b->key_id))
      return deny(err, "this token is of another work item");
    if (!mr_str_ends(mr_str_c(route), MR_S("/ack"))) return MR_OK; /* they say themselves that it is over */
  } else if (!mr_str_eq(path[0], b->session_id)) {
    return mr_err_set(err, MR_E_NOTFOUND, NULL, "session " MR_FMT " not found", MR_ARG(path[0]));
  }
  if (b->past) return deny(err, "the work item of this token was given to another worker");
  if (!w || !in_hands(d, w)) return deny(err, "the work item of this token has stopped, or is queued again");
  return MR_OK;
}

int mr_bearer_check(struct mr_domain *d, const struct mr_bearer *b, unsigned open_to, const char *route,
                    const struct mr_str path[MR_PATH_MAX], struct mr_err *err)
{
  bool of_session = mr_str_starts(mr_str_c(route), MR_S("/v1/sessions/"));

  switch (b->kind) {
  case MR_BEARER_HOST: return MR_OK;
  case MR_BEARER_API:
    return open_to & MR_NOT_BY_API
               ? deny(err, "this is for workers: it takes an environment key, not an API key "
                           "(`moonrig key create --environment ID` makes one)")
               : MR_OK;
  case MR_BEARER_ENVIRONMENT:
    if (!(open_to & MR_BY_ENVIRONMENT)) return deny(err, "an environment key may not do this; an API key may");
    return check_environment(d, b, of_session, path, err);
  case MR_BEARER_ITEM:
    if (!(open_to & MR_BY_ITEM)) return deny(err, "the session token of a work item may not do this");
    return check_item(d, b, of_session, route, path, err);
  }
  return deny(err, "not allowed");
}
