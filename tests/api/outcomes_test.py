"""Items 88 to 92 of the session checklist: outcomes and their grader (API: sessions §11)."""
import json

from kit import BEGIN, TRIPLE, equal, last, message, said, test, true, types
from stage import (answer, at_gate, calls, custom, fresh, gate, idles, in_order, interrupt, lead, outcome, requests, rules, spans_closed, spawn, status, thread,
                   until_idle, verdicts)

TURN = ["span.model_request_start", "agent.message", "span.model_request_end"]
START, END = "span.outcome_evaluation_start", "span.outcome_evaluation_end"
GRADER = {"input_tokens": 2400, "output_tokens": 350, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 1800}


def writer(w, *more, tools=()):
    """A session of an agent that writes when asked to and revises when something is missing."""
    system = rules(("is missing", "[[say Revised.]]"), *more, ("Write it", "[[say Draft written.]]"))
    return w.session(agent=w.new_agent(name="writer", system=system, tools=list(tools))["id"])


def evaluations(w, s):
    return w.ok("GET", f"/v1/sessions/{s['id']}")["outcome_evaluations"]


def graded(w, s, *said_, description="Write it", **more):
    """Everything that came of an outcome that was graded so."""
    with w.stream(s) as feed:
        w.send(s, outcome(description, verdicts(*said_), **more))
        until_idle(feed)
        return list(feed.events)


@test(model=True)
def t_088_no_idle_between_draft_and_grading(w):
    draft, grade = fresh(), fresh()
    s = writer(w, ("Write it", f"[[gate {draft}]] [[say Draft written.]]"))
    with w.stream(s) as feed:
        (e,) = w.send(s, outcome("Write it", verdicts(f"@{grade} satisfied: It is all there.")))
        at_gate(w, draft, feed)
        (o,) = evaluations(w, s)
        equal((o["type"], o["outcome_id"], o["description"], o["iteration"], o["result"], o["completed_at"]),
              ("outcome_evaluation", e["outcome_id"], "Write it", 0, "running", None))
        gate(w, draft)
        at_gate(w, grade)
        feed.until(lambda all_: START in types(all_), "the grading", 60)
        equal((evaluations(w, s)[0]["result"], status(w, s)), ("evaluating", "running"))
        equal(idles(w.events(s)), [])
        equal(w.all(f"/v1/sessions/{s['id']}/threads")[0]["status"], "running")
        gate(w, grade)
        until_idle(feed)
    events = feed.events
    equal(types(events), ["user.define_outcome"] + BEGIN + TURN + [START, END] + TRIPLE)
    start, end = events[6], events[7]
    equal((set(start), start["outcome_id"], start["iteration"]), ({"type", "id", "processed_at", "outcome_id", "iteration"}, e["outcome_id"], 0))
    equal({k: v for k, v in end.items() if k not in ("id", "processed_at")},
          {"type": END, "outcome_evaluation_start_id": start["id"], "outcome_id": e["outcome_id"], "iteration": 0, "result": "satisfied",
           "explanation": "It is all there.", "usage": GRADER})
    (o,) = evaluations(w, s)
    equal((o["result"], o["explanation"], o["iteration"], bool(o["completed_at"])), ("satisfied", "It is all there.", 0, True))
    equal(w.events(s), events)


@test(model=True)
def t_088_a_long_grading_shows_life(w):
    grade = fresh()
    s = writer(w)
    with w.stream(s) as feed:
        (e,) = w.send(s, outcome("Write it", verdicts(f"@{grade} satisfied: yes")))
        feed.until(lambda all_: "span.outcome_evaluation_ongoing" in types(all_), "a sign of life", 60)
        gate(w, grade)
        until_idle(feed)
    _, ongoing, _ = in_order(feed.events, START, "span.outcome_evaluation_ongoing", END)
    equal((set(ongoing), ongoing["outcome_id"], ongoing["iteration"]), ({"type", "id", "processed_at", "outcome_id", "iteration"}, e["outcome_id"], 0))


@test(model=True)
def t_088_an_answer_without_a_verdict_costs_too(w):
    s = writer(w)
    events = graded(w, s, "perhaps: I cannot say.", "satisfied: It is all there.")
    (end,) = [e for e in events if e["type"] == END]
    equal((end["result"], end["usage"]), ("satisfied", {k: 2 * n for k, n in GRADER.items()}))


@test(model=True)
def t_088_what_the_grader_is_told(w):
    s = writer(w)
    n = w.mock.count()
    graded(w, s, "satisfied: yes")
    (asked_,) = [r["body"] for r in requests(w, n) if any(t["name"] == "submit_verdict" for t in r["body"].get("tools") or [])]
    told = json.dumps([asked_.get("system"), asked_["messages"]])
    for part in ("Write it", "- it is done", "Draft written."):
        true(part in told, f"{part!r} of description, rubric and transcript")


@test(model=True)
def t_088_a_blocked_turn_is_not_graded(w):
    s = writer(w, ("Write it", '[[tool lookup {"q":"x"}]] ;; [[say Draft written.]]'), tools=[custom()])
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts("satisfied: yes")))
        until_idle(feed, "requires_action")
        true(START not in types(feed.events), types(feed.events))
        equal(evaluations(w, s)[0]["result"], "running")
        w.send(s, answer(last(feed.events, "agent.custom_tool_use")["id"]))
        until_idle(feed)
    equal(last(feed.events, END)["result"], "satisfied")


@test(model=True)
def t_088_a_rubric_in_a_file(w):
    rubric = verdicts("satisfied: as in the file")
    f = w.upload("rubric.md", rubric.encode(), "text/markdown").json
    s = writer(w)
    with w.stream(s) as feed:
        (e,) = w.send(s, {"type": "user.define_outcome", "description": "Write it", "rubric": {"type": "file", "file_id": f["id"]}})
        equal(e["rubric"], {"type": "text", "content": rubric}, "resolved to text")
        until_idle(feed)
    equal(last(feed.events, END)["explanation"], "as in the file")


@test(model=True)
def t_089_needs_revision(w):
    s = writer(w)
    n = w.mock.count()
    events = graded(w, s, "needs_revision: A Sources section is missing.", "needs_revision: A title is missing.", "satisfied: All is there.")
    equal(types(events), ["user.define_outcome"] + BEGIN + (TURN + [START, END]) * 3 + TRIPLE)
    ends = [e for e in events if e["type"] == END]
    equal([(e["iteration"], e["result"]) for e in ends], [(0, "needs_revision"), (1, "needs_revision"), (2, "satisfied")])
    equal([e["iteration"] for e in events if e["type"] == START], [0, 1, 2])
    equal([e["outcome_evaluation_start_id"] for e in ends], [e["id"] for e in events if e["type"] == START])
    equal(said(events), ["Draft written.", "Revised.", "Revised."], "without the client")
    true("A title is missing." in json.dumps(requests(w, n)[4]["body"]["messages"]), "the agent reads why")
    (o,) = evaluations(w, s)
    equal((o["iteration"], o["result"], o["explanation"]), (2, "satisfied", "All is there."))
    spans_closed(events)


@test(model=True)
def t_090_the_last_allowed_evaluation(w):
    for most, n in ((1, 1), (2, 2), (None, 3)):
        s = writer(w)
        events = graded(w, s, "needs_revision: Much is missing.", **({"max_iterations": most} if most else {}))
        equal(types(events), ["user.define_outcome"] + BEGIN + (TURN + [START, END]) * n + TURN + TRIPLE, str(most))
        equal([e["result"] for e in events if e["type"] == END], ["needs_revision"] * (n - 1) + ["max_iterations_reached"])
        equal(events[-1]["stop_reason"], {"type": "end_turn"})
        (o,) = evaluations(w, s)
        equal((o["result"], o["iteration"], bool(o["completed_at"]), o["explanation"]), ("max_iterations_reached", n - 1, True, "Much is missing."))


@test(model=True)
def t_090_a_rubric_that_does_not_fit(w):
    s = writer(w)
    events = graded(w, s, "failed: There is nothing to grade.")
    equal(types(events), ["user.define_outcome"] + BEGIN + TURN + [START, END] + TRIPLE, "no turn more")
    equal((last(events, END)["result"], evaluations(w, s)[0]["result"]), ("failed", "failed"))


@test(model=True)
def t_091_interrupted_before_grading(w):
    draft = fresh()
    s = writer(w, ("Write it", f"[[gate {draft}]] [[say Draft written.]]"))
    with w.stream(s) as feed:
        (e,) = w.send(s, outcome("Write it", verdicts("satisfied: yes")))
        at_gate(w, draft)
        w.send(s, interrupt())
        until_idle(feed)
        gate(w, draft)
    end = in_order(feed.events, "span.model_request_end", END, *TRIPLE)[1]
    equal((end["result"], end["outcome_evaluation_start_id"], end["outcome_id"], end["iteration"]), ("interrupted", "", e["outcome_id"], 0))
    true(START not in types(feed.events) and "user.interrupt" in types(feed.events), types(feed.events))
    equal(types(feed.events)[-3:], TRIPLE)
    (o,) = evaluations(w, s)
    equal((o["result"], bool(o["completed_at"])), ("interrupted", True))
    spans_closed(feed.events)


@test(model=True)
def t_091_interrupted_while_graded(w):
    grade = fresh()
    s = writer(w)
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts(f"@{grade} satisfied: yes")))
        at_gate(w, grade)
        w.send(s, interrupt())
        until_idle(feed)
        gate(w, grade)
    start, end = in_order(feed.events, START, END, *TRIPLE)[:2]
    equal((end["result"], end["outcome_evaluation_start_id"]), ("interrupted", start["id"]))
    equal((types(feed.events)[-3:], evaluations(w, s)[0]["result"]), (TRIPLE, "interrupted"))
    _, events = w.turn(message("[[say on]]"), session=s)
    equal(said(events), ["on"])
    true(START not in types(events), "it is over")


@test(model=True)
def t_092_one_outcome_after_another(w):
    s = writer(w)
    graded(w, s, "satisfied: the first is done")
    w.turn(message("[[say in between]]"), session=s)
    graded(w, s, "failed: the second cannot be")
    graded(w, s, "satisfied: the third is done", max_iterations=1)
    all_ = evaluations(w, s)
    equal([(o["result"], o["explanation"]) for o in all_],
          [("satisfied", "the first is done"), ("failed", "the second cannot be"), ("satisfied", "the third is done")])
    equal(len({o["outcome_id"] for o in all_}), 3)


@test(model=True)
def t_092_after_an_interrupted_one(w):
    grade = fresh()
    s = writer(w)
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts(f"@{grade} satisfied: yes")))
        at_gate(w, grade)
        w.send(s, interrupt())
        until_idle(feed)
        gate(w, grade)
        w.send(s, outcome("Write it", verdicts("satisfied: now")), message("and [[say so]]"))
        until_idle(feed, n=2)
    equal([o["result"] for o in evaluations(w, s)], ["interrupted", "satisfied"])


def _lead_that_waits(w):
    """A session whose outcome waits for a child, which waits for the client."""
    child = w.new_agent(name=fresh("child"), system=rules(("Begin", '[[tool lookup {"q":"x"}]] ;; [[say Done.]]')), tools=[custom()])
    return lead(w, child, system=rules(("Write it", calls(spawn(child["name"], "Begin")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]"))), child


def _graded_after(w, end):
    s, child = _lead_that_waits(w)
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts("satisfied: It is all there.")))
        feed.until(lambda all_: idles(all_, "requires_action"), "the child to be blocked", 60)
        equal([e for e in feed.events if e["type"] == START], [], "graded while a child's turn is open")
        end(s, thread(w, s, child["name"]))
        until_idle(feed)
        in_order(feed.events, START, END, "session.status_idle")
    equal(evaluations(w, s)[0]["result"], "satisfied")
    equal(status(w, s), "idle")


@test(model=True)
def t_089_graded_when_the_last_child_is_interrupted(w):
    _graded_after(w, lambda s, t: w.send(s, interrupt(t["id"])))


@test(model=True)
def t_089_graded_when_the_last_child_is_archived(w):
    _graded_after(w, lambda s, t: w.ok("POST", f"/v1/sessions/{s['id']}/threads/{t['id']}/archive"))
