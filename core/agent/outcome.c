/*
 * outcome.c - see outcome.h: the state of outcomes, and how a turn's end becomes an evaluation and what follows from
 * it. An evaluation that a crash cut is begun again under the same start; the grader's verdict and what it leads to are
 * one commit.
 */
#include "agent/outcome.h"

#include <stdio.h>

static const char *const names[] = {
    "pending", "running", "evaluating", "satisfied", "max_iterations_reached", "failed", "interrupted"};

struct mr_grade {
  struct mr_session *s;
  struct mr_model_call *call;
  struct mr_timer beat, again;
  struct mr_str files; /* the grade's own */
  bool dropped;        /* interrupted or forgotten: what comes is ignored */
  bool waits;          /* for files or the grader: something holds the grade */
  int tries;
  struct mr_usage spent; /* by all tries */
};

/* ---- state ---- */

struct mr_outcome *mr_outcomes_active(struct mr_outcome *list)
{
  while (list && list->next)
    list = list->next;
  return list && list->result < MR_RESULT_SATISFIED ? list : NULL;
}

struct mr_outcome *mr_outcome_active(const struct mr_session *s)
{
  return mr_outcomes_active(s->outcomes);
}

bool mr_outcome_pending(const struct mr_session *s)
{
  const struct mr_outcome *o = mr_outcome_active(s);
  return o && o->result == MR_RESULT_PENDING;
}

static struct mr_str task_text(struct mr_session *s, const struct mr_outcome *o)
{
  return mr_str_c(mr_arena_printf(s->mem,
                                  MR_FMT
                                  "\n\nYour work will be graded against this rubric. Put deliverables below "
                                  "/mnt/session/outputs/.\n\n" MR_FMT,
                                  MR_ARG(o->description), MR_ARG(o->rubric)));
}

struct mr_outcome *mr_outcomes_add(struct mr_arena *mem, struct mr_outcome **list, yyjson_val *event)
{
  struct mr_outcome *o = mr_arena_alloc(mem, sizeof *o);

  if (!o) return NULL;
  snprintf(o->id, sizeof o->id, MR_FMT, MR_ARG(mr_json_get_str(event, "outcome_id")));
  o->description = mr_arena_str(mem, mr_json_get_str(event, "description"));
  o->rubric = mr_arena_str(mem, mr_json_get_str(mr_json_get(event, "rubric"), "content"));
  o->max_iterations = (int)mr_json_get_int(event, "max_iterations", MR_ITERATIONS);
  while (*list)
    list = &(*list)->next;
  *list = o;
  return o;
}

int mr_outcome_apply_define(struct mr_session *s, yyjson_val *event)
{
  struct mr_outcome *o = mr_outcomes_add(s->mem, &s->outcomes, event);

  return o ? mr_mail_apply(&s->main, task_text(s, o), NULL) : MR_E_NOMEM;
}

void mr_outcomes_taken(struct mr_outcome *list)
{
  struct mr_outcome *o = mr_outcomes_active(list);
  if (o && o->result == MR_RESULT_PENDING) o->result = MR_RESULT_RUNNING;
}

void mr_outcomes_start(struct mr_outcome *list, yyjson_val *event)
{
  struct mr_outcome *o = mr_outcomes_active(list);

  if (!o) return;
  o->result = MR_RESULT_EVALUATING;
  snprintf(o->start_id, sizeof o->start_id, MR_FMT, MR_ARG(mr_json_get_str(event, "id")));
}

int mr_outcomes_end(struct mr_arena *mem, struct mr_outcome *list, yyjson_val *event, int64_t at)
{
  struct mr_outcome *o = mr_outcomes_active(list);
  struct mr_str result = mr_json_get_str(event, "result"), text = mr_json_get_str(event, "explanation");

  if (!o) return MR_OK;
  o->start_id[0] = '\0';
  if (text.n && !(o->explanation = mr_arena_str(mem, text)).p) return MR_E_NOMEM;
  if (mr_str_is(result, "needs_revision")) {
    o->result = MR_RESULT_RUNNING;
    o->iteration++;
    return MR_OK;
  }
  o->result = MR_RESULT_FAILED;
  for (int i = MR_RESULT_SATISFIED; i <= MR_RESULT_INTERRUPTED; i++)
    if (mr_str_is(result, names[i])) o->result = (enum mr_result)i;
  o->completed_us = at;
  return MR_OK;
}

void mr_outcomes_write(struct mr_jw *w, const struct mr_outcome *list)
{
  mr_jw_arr(w);
  for (const struct mr_outcome *o = list; o; o = o->next) {
    mr_jw_obj(w);
    mr_jw_kc(w, "type", "outcome_evaluation");
    mr_jw_kc(w, "outcome_id", o->id);
    mr_jw_kstr(w, "description", o->description);
    mr_jw_kint(w, "iteration", o->iteration);
    mr_jw_kc(w, "result", names[o->result]);
    mr_jw_key(w, "explanation");
    if (o->explanation.n)
      mr_jw_str(w, o->explanation);
    else
      mr_jw_null(w);
    mr_jw_ktime(w, "completed_at", o->completed_us ? o->completed_us : -1);
    mr_jw_obj_end(w);
  }
  mr_jw_arr_end(w);
}

/* ---- rows ---- */

static void span_row(struct mr_txn *t, const char *type, const struct mr_outcome *o)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, type, NULL, NULL);
  mr_jw_kc(&w, "outcome_id", o->id);
  mr_jw_kint(&w, "iteration", o->iteration);
  mr_txn_end_wire(t, &b, &w);
}

static void end_row(struct mr_txn *t, const struct mr_outcome *o, const char *result, struct mr_str explanation,
                    const struct mr_usage *u)
{
  struct mr_buf b;
  struct mr_jw w;

  mr_txn_wire(t, &b, &w, "span.outcome_evaluation_end", NULL, NULL);
  mr_jw_kc(&w, "outcome_evaluation_start_id", o->start_id);
  mr_jw_kc(&w, "outcome_id", o->id);
  mr_jw_kint(&w, "iteration", o->iteration);
  mr_jw_kc(&w, "result", result);
  mr_jw_kstr(&w, "explanation", explanation.n ? explanation : MR_S(""));
  mr_jw_key(&w, "usage");
  mr_span_usage(&w, u);
  mr_txn_end_wire(t, &b, &w);
}

/* ---- the machine ---- */

static bool others_work(const struct mr_session *s)
{
  for (const struct mr_thread *th = s->main.next; th; th = th->next)
    if (th->status == MR_RUNNING || th->status == MR_RESCHEDULING ||
        (th->status == MR_IDLE && (th->stop == MR_STOP_REQUIRES_ACTION || th->stop == MR_STOP_BUDGET)))
      return true; /* its turn is open */
  return false;
}

bool mr_outcome_grades(struct mr_txn *t)
{
  struct mr_outcome *o = mr_outcome_active(t->s);

  if (!mr_thread_primary(t->th) || !o || o->result != MR_RESULT_RUNNING || others_work(t->s)) return false;
  if (mr_thread_over(t->th))
    mr_turn_idle(t, MR_STOP_BUDGET, MR_S("null"));
  else
    span_row(t, "span.outcome_evaluation_start", o);
  return true;
}

void mr_outcome_resume(struct mr_txn *t)
{
  struct mr_thread *primary = &t->s->main, *was;
  struct mr_outcome *o = mr_outcome_active(t->s);

  if (!o || o->result != MR_RESULT_RUNNING || others_work(t->s)) return;
  if (primary->status != MR_IDLE || primary->stop != MR_STOP_END_TURN || primary->nmail ||
      mr_thread_over(primary))
    return;
  was = mr_txn_on(t, primary);
  mr_turn_running(t);
  mr_outcome_grades(t);
  mr_txn_on(t, was);
}

bool mr_outcome_evaluating(const struct mr_thread *th)
{
  struct mr_outcome *o = mr_thread_primary(th) ? mr_outcome_active(th->s) : NULL;
  return o && o->start_id[0];
}

static void grade_free(struct mr_grade *g)
{
  struct mr_session *s = g->s;
  struct mr_domain *d = s->d;

  if (s->grade == g) s->grade = NULL;
  mr_timer_cancel(d->loop, &g->beat);
  mr_timer_cancel(d->loop, &g->again);
  mr_mem_free(d->mem, (void *)(uintptr_t)g->files.p);
  mr_mem_free(d->mem, g);
  d->stats.model_running--;
  mr_domain_settled(d);
  mr_session_unref(s);
}

void mr_outcome_forget(struct mr_session *s)
{
  struct mr_grade *g = s->grade;

  if (!g) return;
  s->grade = NULL;
  g->dropped = true;
  mr_timer_cancel(s->d->loop, &g->beat);
  mr_timer_cancel(s->d->loop, &g->again);
  if (g->call)
    mr_models_cancel(g->call); /* its end comes, and frees */
  else if (!g->waits)
    grade_free(g);
}

/* What the agent is told: the grader's findings, or that they were the last. */
static void feedback(struct mr_txn *t, const struct mr_outcome *o, struct mr_str explanation, bool last)
{
  const char *text = mr_arena_printf(
      t->arena,
      last ? "The grader found that the rubric is still not met:\n" MR_FMT
             "\nNo further revision will be graded (%d "
             "evaluations). End with a short message that says what is done and what is missing."
           : "The grader found that the rubric is not met yet:\n" MR_FMT
             "\nRevise your work (evaluation %d of it "
             "is over).",
      MR_ARG(explanation), o->iteration + (last ? 1 : 0));
  mr_mail_notice(t, &t->s->main, mr_str_c(text));
}

static void verdict(struct mr_session *s, const struct mr_verdict_of *v, const struct mr_usage *spent)
{
  struct mr_outcome *o = mr_outcome_active(s);
  struct mr_str why = mr_arena_str(s->mem, v->explanation);
  bool revise = mr_str_is(v->result, "needs_revision"), model = false;
  bool last = revise && o->iteration + 1 >= o->max_iterations;
  struct mr_txn t;

  mr_txn_begin(&t, &s->main, NULL, "graded");
  end_row(&t, o,
          last                                ? "max_iterations_reached"
          : revise                            ? "needs_revision"
          : mr_str_is(v->result, "satisfied") ? "satisfied"
                                              : "failed",
          why, spent);
  mr_cost_row(&t, v->model, MR_S("standard"), spent); /* a grader is asked at no other speed */
  if (MR_SWITCH("verdict-split")) {
    mr_txn_commit(&t, NULL, NULL);
    mr_txn_begin(&t, &s->main, NULL, "graded");
  }
  if (revise) {
    feedback(&t, o, why, last);
    model = mr_turn_advance(&t);
  } else {
    mr_turn_idle(&t, MR_STOP_END_TURN, MR_S("null"));
  }
  mr_turn_commit(&t, model);
}

/* The grader could not be asked, and will not be again: the outcome fails, and the turn is given up. */
static void gave_up(struct mr_session *s, const struct mr_verdict_of *v, const struct mr_usage *spent)
{
  struct mr_outcome *o = mr_outcome_active(s);
  struct mr_txn t;

  mr_txn_begin(&t, &s->main, NULL, "graded");
  end_row(&t, o, "failed",
          mr_str_c(mr_arena_printf(t.arena, "The grader could not be asked: " MR_FMT, MR_ARG(v->message))),
          spent);
  mr_cost_row(&t, v->model, MR_S("standard"), spent);
  mr_turn_error(&t, "model_request_failed_error", v->message, "exhausted");
  mr_turn_dead(&t);
  mr_turn_commit(&t, false);
}

static void ask(struct mr_grade *g);

static void spend(struct mr_usage *sum, const struct mr_usage *u)
{
  sum->input += u->input;
  sum->output += u->output;
  sum->cache_read += u->cache_read;
  sum->cache_write_5m += u->cache_write_5m;
  sum->cache_write_1h += u->cache_write_1h;
}

static void on_again(struct mr_timer *timer)
{
  ask(MR_OF(timer, struct mr_grade, again));
}

static void on_verdict(void *ud, const struct mr_verdict_of *v)
{
  struct mr_grade *g = ud;
  struct mr_session *s = g->s;
  struct mr_domain *d = s->d;
  int64_t wait = d->retry_base_us;

  g->call = NULL;
  g->waits = false;
  spend(&g->spent, &v->usage);
  if (g->dropped || s->poisoned || s->deleted || !mr_outcome_evaluating(&s->main)) {
    grade_free(g);
    return;
  }
  if (v->code != MR_OK && v->transient && g->tries < d->retry_max && !d->draining) {
    for (int i = 0; i < g->tries && wait < d->retry_cap_us; i++)
      wait *= 2;
    g->tries++;
    mr_timer_set(d->loop, &g->again, wait > d->retry_cap_us ? d->retry_cap_us : wait);
    return;
  }
  s->grade = NULL;
  if (d->draining && v->code != MR_OK)
    ; /* the next start begins it again */
  else if (v->code == MR_OK)
    verdict(s, v, &g->spent);
  else
    gave_up(s, v, &g->spent);
  grade_free(g);
}

static void ask(struct mr_grade *g)
{
  struct mr_verdict_of none = {.code = MR_E_UNAVAILABLE};
  struct mr_err err;

  g->waits = true;
  (void)MR_FAULT("grade.ask.before");
  if (mr_grade_ask(g->s, mr_outcome_active(g->s), g->files, on_verdict, g, &g->call, &err) == MR_OK) {
    (void)MR_FAULT("grade.ask.after");
    return;
  }
  none.message = mr_str_c(err.message);
  on_verdict(g, &none);
}

static void on_files(void *ud, struct mr_str text)
{
  struct mr_grade *g = ud;

  g->waits = false;
  if (g->dropped || g->s->poisoned || g->s->deleted || g->s->d->draining) {
    grade_free(g);
    return;
  }
  g->files = text.n ? mr_str_c(mr_mem_strdup(g->s->d->mem, text)) : mr_str_n(NULL, 0);
  ask(g);
}

static void on_beat(struct mr_timer *timer)
{
  struct mr_grade *g = MR_OF(timer, struct mr_grade, beat);
  struct mr_session *s = g->s;
  struct mr_txn t;

  if (g->dropped || s->poisoned || s->deleted || s->d->draining || !mr_outcome_evaluating(&s->main)) return;
  mr_timer_set(s->d->loop, timer, s->d->heartbeat_us);
  mr_session_ref(s); /* the grade, which holds it, goes when there is no memory */
  mr_txn_begin(&t, &s->main, NULL, "heartbeat");
  span_row(&t, "span.outcome_evaluation_ongoing", mr_outcome_active(s));
  mr_txn_commit(&t, NULL, NULL);
  mr_session_unref(s);
}

void mr_outcome_begin(struct mr_session *s)
{
  struct mr_grade *g;

  if (s->grade || s->d->draining) return;
  g = mr_mem_zalloc(s->d->mem, sizeof *g);
  if (!g) return; /* the next wake tries again */
  g->s = s;
  mr_timer_init(&g->beat, on_beat);
  mr_timer_init(&g->again, on_again);
  s->grade = g;
  s->d->stats.model_running++;
  mr_session_ref(s);
  mr_timer_set(s->d->loop, &g->beat, s->d->heartbeat_us);
  g->waits = true;
  if (mr_outcome_files(s, on_files, g) != MR_OK) on_files(g, mr_str_n("", 0));
}

void mr_outcome_drain(struct mr_session *s)
{
  if (s->grade && !s->grade->waits) mr_outcome_forget(s); /* it waits for another try */
}

void mr_outcome_interrupted(struct mr_txn *t)
{
  struct mr_outcome *o = mr_outcome_active(t->s);
  struct mr_usage spent = t->s->grade ? t->s->grade->spent : (struct mr_usage){0};

  if (!o) return;
  mr_outcome_forget(t->s);
  end_row(t, o, "interrupted", mr_str_n("", 0), &spent);
  mr_cost_row(t, mr_grade_model(t->s), MR_S("standard"), &spent);
}
