"""sessions.why against the machine at work: what it says of sessions with several threads, outcomes, summaries, budgets
and clients that run the tools. (What a row alone brings about: tests/unit/agent_why.c.)"""
from budget_test import PRICES, limit, paused
from kit import equal, last, message, test, true, types, wait
from multiagent_test import Play
from outcomes_test import writer
from sending_test import self_hosted
from stage import (answer, at_gate, calls, confirm, custom, fresh, gate, idles, interrupt, lead, outcome, own, policy, rules, spawn, status,
                   until_idle, verdicts)


def why(w, s):
    return w.ok("GET", f"/moonrig/v1/sessions/{s['id']}/why")


def says(w, s, *words, kinds=None, state=None):
    """The answer, once its sentence has these words, and the session is in this state."""
    got = {}

    def look():
        got.update(why(w, s))
        return all(x in got["sentence"] for x in words) and state in (None, got["state"])
    try:
        wait(look, f"{words}", 60)
    except AssertionError as e:
        raise AssertionError(f"{e}; it says {got}")
    if kinds:
        equal(sorted(x["kind"] for x in got["waiting_on"]), sorted(kinds), got["sentence"])
    return got


@test(model=True)
def a_child_that_waits_for_approval(w):
    with Play(w, '[[tool bash {"command":"echo ran"}]] ;; [[say Result {result}]]', tools=[policy("bash", "always_ask")]) as p:
        p.feed.until(lambda all_: idles(all_, "requires_action"), "the session to be blocked", 60)
        use, t = last(p.feed.events, "agent.tool_use")["id"], p.thread["id"]
        got = says(w, p.s, f"thread {p.name}: waits for approval of bash ({use})", kinds=["approval"], state="idle")
        equal((got["waiting_on"][0]["thread_id"], got["waiting_on"][0]["event_id"], got["stop_reason"]), (t, use, "requires_action"))
        true("moonrig attach" in got["command"], got)
        w.send(p.s, confirm(use, "deny"))
        p.end()
        says(w, p.s, "finished", "waits for a message", kinds=["message"])


@test(model=True)
def children_at_work_while_the_lead_is_idle(w):
    """One works, one asks: the session runs, and both are said."""
    one, two, door = fresh("one"), fresh("two"), fresh()
    worker = w.new_agent(name=one, system=rules(("Begin", f"[[gate {door}]] [[say Done.]]")))
    asker = w.new_agent(name=two, system=rules(("Begin", '[[tool lookup {"q":"x"}]] ;; [[say Done.]]')), tools=[custom()])
    s = lead(w, worker, asker, system=rules(("^Go", calls(spawn(one, "Begin"), spawn(two, "Begin")) + " ;; [[say Waiting.]]"),
                                            ("More", "[[say More.]]"), (".", "[[say Heard.]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: "agent.custom_tool_use" in types(all_), "the question", 60)
        at_gate(w, door)
        for _ in range(2):
            got = says(w, s, f"thread {one}: a model request runs", f"thread {two}: waits for the client's answer to custom tool lookup (sevt_",
                       kinds=["model", "client_tool"], state="running")
            w.send(s, message("More"))  # the question is older than the lead's newest request then
            feed.until(lambda all_: types(all_).count("agent.message") >= 2, "the lead's answer", 60)
        true("moonrig logs" in got["command"], got)
        w.send(s, interrupt())
        until_idle(feed)
        gate(w, door)
    says(w, s, "interrupted", kinds=["message"])


@test(model=True)
def a_child_whose_request_is_tried_again(w):
    with own(w, "") as v:
        with Play(v, "[[error 529 retry 60]] [[say never]]") as p:
            got = says(v, p.s, f"thread {p.name}: retry 1 of 3 in ", "after model_overloaded_error", kinds=["retry"], state="rescheduling")
            true(got["waiting_on"][0]["due_at"], got)
            v.send(p.s, interrupt())
            until_idle(p.feed)


@test(model=True)
def an_outcome_from_draft_to_revision(w):
    draft, grade, revise = fresh(), fresh(), fresh()
    s = w.session(agent=w.new_agent(system=rules(("is missing", f"[[gate {revise}]] [[say Revised.]]"), ("Write it", f"[[gate {draft}]] [[say Draft.]]")))["id"])
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts(f"@{grade} needs_revision: A title is missing.", "satisfied: yes")))
        at_gate(w, draft)
        true("revision" not in says(w, s, "a model request to", kinds=["model"])["sentence"], "it is the draft")
        gate(w, draft)
        at_gate(w, grade)
        says(w, s, "the outcome is being graded (iteration 0) since", kinds=["grader"], state="running")
        gate(w, grade)
        at_gate(w, revise)
        says(w, s, "a model request to", "(revision 1 for the outcome)", kinds=["model"])
        gate(w, revise)
        until_idle(feed)
    says(w, s, "finished", kinds=["message"])


@test(model=True)
def at_the_budget(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
        got = says(v, s, "the budget of $1.00 is reached ($1.20 spent): goes on when it is raised", kinds=["budget"], state="idle")
        true("sessions.update" in got["command"] and '"240"' in got["command"], got)


@test(model=True)
def a_client_that_runs_the_tools(w):
    s, use = self_hosted(w)
    got = says(w, s, f"waits for a worker to run the tool bash ({use})", ", and none has taken the session", kinds=["worker"], state="idle")
    equal(got["waiting_on"][0]["event_id"], use)


@test(model=True)
def a_client_that_runs_a_childs_tools(w):
    """The lead works while the child's call waits."""
    home = w.new_environment(name=fresh("own"), config={"type": "self_hosted"})["id"]
    name, door = fresh("child"), fresh()
    child = w.new_agent(name=name, system=rules(("Begin", '[[tool bash {"command":"ls"}]] ;; [[say {result}]]')), tools=[{"type": "agent_toolset_20260401"}])
    a = w.new_agent(name="lead", system=rules(("^Go", calls(spawn(name, "Begin")) + f" ;; [[gate {door}]] [[say Waiting.]]"), (".", "[[say Heard.]]")),
                    multiagent={"type": "coordinator", "agents": [{"type": "agent", "id": child["id"]}]})
    s = w.session(agent=a["id"], environment_id=home)
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: "agent.tool_use" in types(all_), "the call", 60)
        at_gate(w, door)
        says(w, s, "a model request to", f"thread {name}: waits for a worker to run the tool bash", kinds=["model", "worker"], state="running")
        gate(w, door)
        until_idle(feed, "requires_action")
        says(w, s, f"thread {name}: waits for a worker to run the tool bash", kinds=["worker"], state="idle")
        w.send(s, {"type": "user.tool_result", "tool_use_id": last(feed.events, "agent.tool_use")["id"]})
        until_idle(feed)


@test(model=True)
def a_history_that_is_summed_up(w):
    with own(w, "context = { compact_at_tokens = 10000 }") as v:
        door = fresh()
        s = v.session(agent=v.new_agent(system=rules(("be shortened", f"[[gate {door}]] [[say A summary.]]")))["id"])
        v.turn(message("[[say one]] [[usage in=100 out=10 read=0 write=0]]"), session=s)
        v.turn(message("[[say two]] [[usage in=20000 out=10 read=0 write=0]]"), session=s)
        with v.stream(s) as feed:
            v.send(s, message("[[say three]]"))
            at_gate(v, door)
            says(v, s, "the history is being summed up by", kinds=["summary"], state="running")
            gate(v, door)
            until_idle(feed)
        true("agent.thread_context_compacted" in types(feed.events), types(feed.events))
