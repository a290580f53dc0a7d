/*
 * copy_space.c - the files of a copied session: what its workspace and outputs held in the sandbox. They are unpacked
 * beside the new session while that is unborn, and become its own after the commit that makes it be there: a crash in
 * between leaves files that the next start removes, never half of them in a session.
 *
 * A session that never had a sandbox, and one whose tools its client runs, has no files here; a copy of it neither.
 * Loop thread; fork.c and import.c call, export.c makes archives by itself.
 */
#include "agent/copy_t.h"

#include <stdio.h>
#include <unistd.h>

bool mr_copy_space_can(const struct mr_copy *k)
{
  return mr_sandbox_can_keep(k->c->d->sandbox);
}

static void end(struct mr_copy_space *s, int code)
{
  void (*fn)(struct mr_copy_space * s, int code) = s->fn;

  s->fn = NULL;
  fn(s, code);
}

/* In the words of a client: what it asked for was a copy. */
static int failed(struct mr_copy_space *s, int code, const struct mr_err *err, const char *how)
{
  struct mr_call *c = s->k->c;
  const char *why = err ? err->message : mr_strerror(code);
  bool large = code == MR_E_TOO_LARGE, bad = code == MR_E_INVALID;

  if (s->from_file && (large || bad))
    return mr_err_set(&c->err, MR_E_INVALID, "file", "file: the session's files: %s", why);
  return mr_err_set(&c->err, large ? MR_E_STATE : code, NULL, "the session's files could not be copied: %s%s",
                    why, how);
}

static void on_unpacked(void *ud, const struct mr_sandbox_kept *r)
{
  struct mr_copy_space *s = ud;

  s->staged = r->code == MR_OK;
  end(s, r->code == MR_OK ? MR_OK : failed(s, r->code, r->err, ""));
}

void mr_copy_space_unpack(struct mr_copy_space *s, int fd)
{
  struct mr_sandbox_keep_opts o = {.session_id = s->k->id, .fn = on_unpacked, .ud = s};
  int code;

  mr_sandbox_keep_free(&s->keep);
  code = mr_sandbox_restore(s->k->c->d->sandbox, fd, &o, &s->keep);
  if (code != MR_OK) end(s, failed(s, code, NULL, ""));
}

static void on_packed(void *ud, const struct mr_sandbox_kept *r)
{
  static const char without[] = "; fork with \"workspace\": false to leave them out";
  struct mr_copy_space *s = ud;

  if (r->code == MR_E_NOTFOUND) {
    end(s, MR_OK);
  } else if (r->code != MR_OK) {
    end(s, failed(s, r->code, r->err, without));
  } else {
    if (r->skipped || !r->frozen)
      mr_log(s->k->c->d->sys, MR_LOG_WARN, "copy", MR_FMT ": %lld things of the workspace are no files%s",
             MR_ARG(s->k->old_id), (long long)r->skipped, r->frozen ? "" : "; it changed while it was copied");
    mr_copy_space_unpack(s, r->fd);
    close(r->fd);
  }
}

void mr_copy_space_of(struct mr_copy_space *s)
{
  const char *old = mr_arena_str(s->k->c->arena, s->k->old_id).p;
  struct mr_sandbox_keep_opts o = {.session_id = old, .fn = on_packed, .ud = s};
  int code = old ? mr_sandbox_checkpoint(s->k->c->d->sandbox, &o, &s->keep) : MR_E_NOMEM;

  if (code != MR_OK) end(s, failed(s, code, NULL, ""));
}

static void on_taken(void *ud, const struct mr_sandbox_kept *r)
{
  struct mr_copy_space *s = ud;
  struct mr_call *c = s->k->c;

  s->staged = false;
  mr_sandbox_keep_free(&s->keep);
  if (r->code != MR_OK)
    s->k->code = mr_err_set(&c->err, r->code, NULL, "session %s was made, but not its files: %s", s->k->id,
                            r->err ? r->err->message : mr_strerror(r->code));
  end(s, s->k->code);
}

void mr_copy_space_settle(struct mr_copy_space *s)
{
  if (s->staged && s->k->code == MR_OK && mr_sandbox_take(s->keep, on_taken, s) == MR_OK) return;
  s->staged = false;
  mr_sandbox_keep_free(&s->keep);
  end(s, s->k->code);
}

void mr_copy_space_cancel(struct mr_copy_space *s)
{
  if (!s->fn || !s->keep || s->staged) return; /* what was born, or is about to be, is left its files */
  mr_sandbox_keep_free(&s->keep);
  end(s, mr_err_set(&s->k->c->err, MR_E_CANCELLED, NULL, "cancelled"));
}
