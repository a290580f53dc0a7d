"""Caps beside the official one on cost: tokens, seconds, model requests, and the same call again and again. Each pauses
like a budget, in sessions whose model has no price too, and is counted from the log: a restart changes nothing."""
import time

from kit import BEGIN, MODEL, TRIPLE, equal, last, message, said, test, true, types, wait
from stage import agents, at_gate, calls, fresh, gate, idles, interrupt, own, refused, rules, spawn, status, threads, until_idle

STEP = ["span.model_request_start", "agent.tool_use", "span.model_request_end", "agent.tool_result"]
NOBODY = "claude-of-nobody"  # a model without a price


def caps(**c):
    return dict({"type": "limit"}, **{"max_" + k: v for k, v in c.items()})


def cost(cents):
    return {"amount": str(cents), "currency": "USD"}


def step(n=0, tokens=10):
    return '[[tool no_such_tool {"n":%d}]] [[usage in=%d out=0 read=0 write=0]]' % (n, tokens)


def update(w, s, budget, code=200, error=None, names=None):
    r = w.post(f"/v1/sessions/{s['id']}", {"budget": budget})
    true(r.status == code, f"{budget}: {r.status}, not {code}: {r.body[:300]!r}")
    if error:
        equal(r.code(), error)
    if names:
        true(names in r.error["message"], r.error)
    return r.json


def why(w, s):
    return w.ok("GET", f"/moonrig/v1/sessions/{s['id']}/why")


def bare(w, **fields):
    return w.session(agent=w.new_agent(model=NOBODY)["id"], **fields)


def paused(w, s, script, n=1):
    with w.stream(s) as feed:
        w.send(s, message(script))
        until_idle(feed, "budget_reached", n)
        return list(feed.events)


@test(model=True)
def steps_pause_a_session_without_a_price(w):
    s = bare(w, budget=caps(steps=2))
    equal(s["budget"], caps(steps=2))
    events = paused(w, s, f"{step(1)} ;; {step(2)} ;; [[say over]]")
    equal(types(events), BEGIN + ["user.message"] + STEP * 2 + TRIPLE)
    equal([e["stop_reason"] for e in events[-3:] if "stop_reason" in e], [{"type": "budget_reached"}] * 2)
    equal(events[-2]["budget"], caps(steps=2))
    refused(w, s, message("x"), names="reached its budget")
    got = why(w, s)
    true("step cap reached: 2 of 2 model requests; raise budget.max_steps" in got["sentence"], got)
    equal((got["waiting_on"][0]["kind"], got["waiting_on"][0]["name"]), ("budget", "max_steps"))
    true('"max_steps":4' in got["command"], got["command"])
    for n in 1, 2:
        update(w, s, caps(steps=n), 400, "budget_not_raised", "budget.max_steps must be greater than the 2 model requests")
    update(w, s, caps(steps=3, list_cost=cost(100)), 400, "model_not_budgetable")
    with w.stream(s) as feed:
        equal(update(w, s, caps(steps=3))["budget"], caps(steps=3))
        until_idle(feed, "budget_reached")
        equal(said(feed.events), ["over"], "the turn ends with the request that reaches the cap")
    equal(update(w, s, None)["budget"], None)
    equal(said(w.turn(message("[[say free]]"), session=s)[1]), ["free"])
    update(w, s, caps(steps=100), 400, "budget_create_only")


@test(model=True)
def tokens_of_every_kind_count(w):
    s = bare(w, budget=caps(tokens=100, steps=50))
    paused(w, s, "[[tool no_such_tool {}]] [[usage in=10 out=20 read=30 write=40]] ;; [[say over]]")
    true("token cap reached: 100 of 100 tokens; raise budget.max_tokens" in why(w, s)["sentence"], why(w, s))
    update(w, s, caps(tokens=100), 400, "budget_not_raised", "the 100 tokens that")
    update(w, s, caps(tokens=101, steps=1), 400, "budget_not_raised", "budget.max_steps")
    with w.stream(s) as feed:
        update(w, s, caps(steps=2))
        until_idle(feed, "budget_reached")
        equal(said(feed.events), ["over"])


@test(model=True)
def time_at_work_counts(w):
    door = fresh()
    s = bare(w, budget=caps(seconds=1))
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] {step()} ;; [[say over]]"))
        at_gate(w, door)
        time.sleep(1.2)  # what is measured
        gate(w, door)
        until_idle(feed, "budget_reached")
    true("time cap reached: " in why(w, s)["sentence"] and "raise budget.max_seconds" in why(w, s)["sentence"], why(w, s))
    update(w, s, caps(seconds=1), 400, "budget_not_raised", "seconds that the session has worked")
    with w.stream(s) as feed:
        update(w, s, caps(seconds=1000))
        until_idle(feed)
        equal(said(feed.events), ["over"])


@test(model=True)
def the_same_call_again_and_again(w):
    s = bare(w, budget=caps(repeats=3))
    events = paused(w, s, f"{step(1)} ;; {step(2)} ;; {step(1)} ;; {step(2)} ;; {step(2)} ;; {step(2)} ;; {step(2)} ;; [[say over]]")
    equal(types(events), BEGIN + ["user.message"] + STEP * 6 + TRIPLE)
    got = why(w, s)
    true("repeat cap reached: no_such_tool was called 3 times in a row with the same input" in got["sentence"], got)
    equal(got["waiting_on"][0]["name"], "max_repeats")
    n = len(w.events(s))
    with w.stream(s) as feed:
        update(w, s, caps(repeats=3))
        until_idle(feed)
        equal((types(feed.events)[0], said(feed.events)), ("session.updated", ["over"]), "the same budget, given again, begins the count anew")
    true(len(w.events(s)) > n)
    before = len(w.events(s))
    equal(update(w, s, caps(repeats=3))["budget"], caps(repeats=3))
    equal(len(w.events(s)), before, "otherwise the same is no change")


@test(model=True)
def calls_of_one_reply_count_too(w):
    s = bare(w, budget=caps(repeats=3))
    same = ("no_such_tool", {"n": 1})
    events = paused(w, s, calls(("no_such_tool", {"n": 2}), same, same, same) + " ;; [[say over]]")
    equal(types(events).count("agent.tool_use"), 4)
    equal(types(events).count("span.model_request_start"), 1)


@test(model=True)
def a_message_begins_the_count_anew(w):
    s = bare(w, budget=caps(repeats=2))
    for _ in range(3):
        _, events = w.turn(message(f"{step(1)} ;; [[say fine]]"), session=s)
    equal(said(w.events(s)), ["fine"] * 3)
    paused(w, s, f"{step(1)} ;; {step(1)} ;; [[say over]]")
    with w.stream(s) as feed:
        update(w, s, caps(repeats=3))
        until_idle(feed)


@test(model=True)
def an_interrupt_at_the_count(w):
    """What is cut while its newest call is the last that was allowed goes on with the next message."""
    tool = {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": {"type": "object"}}
    s = w.session(agent=w.new_agent(model=NOBODY, tools=[tool])["id"], budget=caps(repeats=2))
    with w.stream(s) as feed:
        w.send(s, message(calls(("lookup", {}), ("lookup", {})) + " ;; [[say over]]"))
        until_idle(feed, "requires_action")
        w.send(s, interrupt())
        until_idle(feed)
    equal(said(w.turn(message("[[say new]]"), session=s)[1]), ["new"])


@test(model=True)
def a_child_that_goes_round_in_circles_pauses_alone(w):
    one, two, door = fresh("one"), fresh("two"), fresh()
    a = w.new_agent(name=one, model=NOBODY, system=rules(("Begin", f"{step(1)} ;; {step(1)} ;; [[say One.]]")))
    b = w.new_agent(name=two, model=NOBODY, system=rules(("Begin", f"[[gate {door}]] {step(1)} ;; [[say Two.]]")))
    system = rules(("Go", calls(spawn(one, "Begin"), spawn(two, "Begin")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]"))
    s = w.session(agent=agents(w, a["id"], b["id"], system=system, model=NOBODY)["id"], budget=caps(repeats=2))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        at_gate(w, door)
        feed.until(lambda all_: [e for e in all_ if e["type"] == "session.thread_status_idle" and e["agent_name"] == one], "the first to pause", 60)
        equal([e["stop_reason"]["type"] for e in feed.events if e["type"] == "session.thread_status_idle" and e["agent_name"] == one], ["budget_reached"])
        equal(status(w, s), "running")
        gate(w, door)
        until_idle(feed, "budget_reached")
        true("Heard." in said(feed.events), "the other went on, and reported")
        true(f"thread {one}: repeat cap reached" in why(w, s)["sentence"], why(w, s))
        update(w, s, caps(repeats=5))
        until_idle(feed)
        equal(said(feed.events)[-1], "Heard.")
        equal(len([t for t in threads(w, s) if t["status"] == "idle"]), 3)


@test(model=True)
def caps_of_the_configuration(w):
    with own(w, "caps = { steps = 2, repeats = 5 }") as v:
        s = bare(v)
        equal(s["budget"], None, "they are not the session's own")
        paused(v, s, f"{step(1)} ;; {step(2)} ;; {step(3)} ;; [[say over]]")
        refused(v, s, message("x"), names="reached its budget")
        got = why(v, s)
        true("step cap reached: 2 of 2 model requests (the configuration's caps); raise budget.max_steps" in got["sentence"], got)
        true('"max_steps":4,"max_repeats":5' in got["command"], got["command"])
        update(v, s, caps(steps=2), 400, "budget_not_raised")
        update(v, s, None)
        equal(len(idles(v.events(s))), 1, "nothing of its own to remove")
        with v.stream(s) as feed:
            equal(update(v, s, caps(steps=4))["budget"], caps(steps=4))
            until_idle(feed, "budget_reached")
            equal(said(feed.events), ["over"])
        with v.stream(s) as feed:
            equal(update(v, s, None)["budget"], None)
            refused(v, s, message("x"), names="reached its budget")
        s = bare(v, budget=caps(tokens=1000000))
        v.turn(message(f"{step(1)} ;; {step(2)} ;; {step(3)} ;; [[say over]]"), session=s)


@test(model=True)
def a_copy_begins_at_nothing(w):
    with own(w, "caps = { steps = 2 }") as v:
        s = bare(v)
        paused(v, s, f"{step(1)} ;; {step(1)} ;; [[say over]]")
        f = v.ok("POST", f"/moonrig/v1/sessions/{s['id']}/fork", {})
        equal(said(v.turn(message("[[say free]]"), session=f)[1]), ["free"])
        paused(v, f, f"{step(1)} ;; [[say over]]")
        refused(v, s, message("x"), names="reached its budget")


@test(model=True)
def a_restart_counts_the_same(w):
    with own(w, keep=True) as v:
        data = v.server.data
        s, r = bare(v, budget=caps(steps=2)), bare(v, budget=caps(repeats=2))
        paused(v, s, f"{step(1)} ;; {step(2)} ;; [[say over]]")
        paused(v, r, f"{step(1)} ;; {step(1)} ;; [[say over]]")
        before = v.events(s), v.events(r), why(v, s)["sentence"].split(";")[0], why(v, r)["sentence"].split(";")[0]
    with own(w, data=data) as v:
        for x in s, r:
            refused(v, x, message("x"), names="reached its budget")
        equal((v.events(s), v.events(r), why(v, s)["sentence"].split(";")[0], why(v, r)["sentence"].split(";")[0]), before)
        update(v, s, caps(steps=2), 400, "budget_not_raised", "the 2 model requests")
        for x, c in (s, caps(steps=9)), (r, caps(repeats=2)):
            with v.stream(x) as feed:
                update(v, x, c)
                until_idle(feed)
                equal(said(feed.events), ["over"])


@test(model=True)
def budgets_that_are_none(w):
    a = w.new_agent(model=NOBODY)
    for budget in (caps(), caps(steps=0), caps(steps=True), caps(steps="5"), caps(steps=1.5), caps(repeats=1), caps(step=5, tokens=5),
                   caps(steps=None), caps(tokens=10**16), dict(caps(steps=5), type="cap")):
        w.refused(400, "POST", "/v1/sessions", {"agent": a["id"], "environment_id": w.environment["id"], "budget": budget}, names="budget")
    s = bare(w, budget=caps(steps=5))
    update(w, s, caps(steps=0), 400)
    equal(w.events(s), [])
