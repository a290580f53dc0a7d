"""Item 112 of the session checklist: a server that is killed between a call and its result, and comes back (API:
sessions §8; what must be the same after a crash is tested at every barrier in tests/crash)."""
import signal

from kit import BEGIN, KEY, TRIPLE, UPSTREAM_KEY, Server, World, equal, last, message, said, test, types, true, wait
from stage import (RETRIES, TOOLSET, answer, at_gate, calls, confirm, custom, fresh, gate, go_on, idles, lead, needs_sandbox, outcome, policy, rules,
                   spans_closed, spawn, status, thread, thread_events, threads, verdicts)


def server(w, data=None):
    s = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url},
               config="{ %s }" % RETRIES, data=data)
    return World(s.url, mock=w.mock, server=s)


def kill(v):
    v.server.stop(signal.SIGKILL, keep=True)


def whole(before, events):
    """What was seen is there as it was, and the rest is in order."""
    equal(events[:len(before)], before, "no event lost, none changed")
    equal(len({e["id"] for e in events}), len(events), "no id twice")
    at = [e["processed_at"] for e in events]
    equal(at, sorted(set(at)), "times grow over the restart")
    spans_closed(events)
    uses = [e["id"] for e in events if e["type"] in ("agent.tool_use", "agent.custom_tool_use")]
    results = [e.get("tool_use_id") or e.get("custom_tool_use_id") for e in events if e["type"] in ("agent.tool_result", "user.custom_tool_result")]
    equal(sorted(results), sorted(uses), "each call has one result")


@test(model=True)
def t_112_killed_while_a_tool_runs(w):
    needs_sandbox()
    v = server(w)
    s = v.session(agent=v.new_agent(tools=[TOOLSET])["id"])
    with v.stream(s) as feed:
        v.send(s, message('[[tool bash {"command":"sleep 2; echo survived"}]] ;; [[say It said: {result}]]'))
        feed.until(lambda all_: "span.model_request_end" in types(all_), "the call")
        before = list(feed.events)
        equal(types(before)[-2:], ["agent.tool_use", "span.model_request_end"])
        kill(v)
    again = server(w, v.server.data)
    try:
        true(status(again, s) in ("running", "idle"), "consistently")
        wait(lambda: status(again, s) == "idle", "idle", 60)
        events = again.events(s)
        whole(before, events)
        result = last(events, "agent.tool_result")
        equal(result["tool_use_id"], before[-2]["id"])
        true(result["content"][0]["text"].strip() == "survived" or result["is_error"] and "interrupted" in result["content"][0]["text"], result)
        equal(said(events), ["It said: " + result["content"][0]["text"].strip()])
        equal(idles(events)[-1]["stop_reason"], {"type": "end_turn"})
        _, more = again.turn(message("[[say on]]"), session=s)
        equal(said(more), ["on"])
    finally:
        equal(again.server.stop(), 0)


@test(model=True)
def t_112_killed_while_the_client_is_to_answer(w):
    v = server(w)
    s = v.session(agent=v.new_agent(tools=[custom()])["id"])
    with v.stream(s) as feed:
        v.send(s, message('[[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say {result}]]'))
        feed.idle()
        before = list(feed.events)
        kill(v)
    again = server(w, v.server.data)
    try:
        equal((status(again, s), again.events(s)), ("idle", before))
        one, two = idles(before)[-1]["stop_reason"]["event_ids"]
        go_on(again, s, answer(one, "1"), reason="requires_action")
        kill(again)
        third = server(w, v.server.data)
    except BaseException:
        again.server.stop()
        raise
    try:
        equal(idles(third.events(s))[-1]["stop_reason"]["event_ids"], [two])
        go_on(third, s, answer(two, "2"))
        events = third.events(s)
        whole(before, events)
        equal(said(events), ["1\n2"])
    finally:
        equal(third.server.stop(), 0)


def come_back(w, v, s, go=None):
    """Kills the server, starts it again on its data and waits until the session is idle; its World, its events."""
    kill(v)
    again = server(w, v.server.data)
    try:
        if go:
            go(again)
        wait(lambda: status(again, s) == "idle", "idle", 60)
        return again, again.events(s)
    except BaseException:
        again.server.stop()
        raise


@test(model=True)
def t_112_killed_while_a_child_runs(w):
    v, name, door = server(w), fresh("child"), fresh()
    child = v.new_agent(name=name, system=rules(("Begin", f"[[gate {door}]] [[say Done.]]")))
    s = lead(v, child, system=rules(("^Go", calls(spawn(name, "Begin")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")))
    with v.stream(s) as feed:
        v.send(s, message("Go"))
        feed.until(lambda all_: "session.thread_status_idle" in types(all_), "the lead to wait", 60)
        at_gate(v, door)
        before, mine = list(feed.events), thread_events(v, s, thread(v, s, name))

    def go(again):
        equal(status(again, s), "running")
        equal({t["agent"]["name"]: t["status"] for t in threads(again, s)}, {"lead": "idle", name: "running"})
        gate(w, door)
    again, events = come_back(w, v, s, go)
    try:
        whole(before, events)
        equal(types(events).count("agent.thread_message_received"), 1)
        equal(said(events), ["Waiting.", "Heard."])
        whole(mine, thread_events(again, s, thread(again, s, name)))
        equal(types(events)[-3:], TRIPLE)
    finally:
        equal(again.server.stop(), 0)


@test(model=True)
def t_112_killed_while_an_outcome_is_graded(w):
    v, door = server(w), fresh()
    s = v.session()
    with v.stream(s) as feed:
        v.send(s, outcome("[[say Draft written.]]", verdicts(f"@{door} satisfied: It is there.")))
        at_gate(v, door)
        feed.until(lambda all_: "span.outcome_evaluation_start" in types(all_), "the grading", 60)
        before = list(feed.events)

    def go(again):
        equal(again.ok("GET", f"/v1/sessions/{s['id']}")["outcome_evaluations"][0]["result"], "evaluating")
        gate(w, door)
    again, events = come_back(w, v, s, go)
    try:
        whole(before, events)
        (end,) = [e for e in events if e["type"] == "span.outcome_evaluation_end" and e["result"] == "satisfied"]
        true(end["outcome_evaluation_start_id"] in {e["id"] for e in events}, end)
        equal(sum(e["type"] == "span.outcome_evaluation_end" for e in events), sum(e["type"] == "span.outcome_evaluation_start" for e in events))
        equal((said(events), types(events)[-3:]), (["Draft written."], TRIPLE))
        (o,) = again.ok("GET", f"/v1/sessions/{s['id']}")["outcome_evaluations"]
        equal((o["result"], o["iteration"]), ("satisfied", 0))
    finally:
        equal(again.server.stop(), 0)


@test(model=True)
def t_112_killed_while_a_retry_waits(w):
    v = server(w)
    s = v.session()
    with v.stream(s) as feed:
        v.send(s, message("[[error 529 x1 retry 3]] [[say Back.]]"))
        feed.until(lambda all_: "session.status_rescheduled" in types(all_), "the failure", 60)
        before = list(feed.events)
    again, events = come_back(w, v, s)
    try:
        whole(before, events)
        equal(types(events)[len(before):], [*BEGIN, "span.model_request_start", "agent.message", "span.model_request_end", *TRIPLE])
        equal(said(events), ["Back."])
    finally:
        equal(again.server.stop(), 0)


@test(model=True)
def t_112_killed_while_an_ask_waits(w):
    v = server(w)
    s = v.session(agent=v.new_agent(tools=[policy("bash", "always_ask")])["id"])
    with v.stream(s) as feed:
        v.send(s, message('[[tool bash {"command":"true"}]] ;; [[say {result}]]'))
        before = list(feed.idle())
    again, events = come_back(w, v, s)
    try:
        equal(events, before)
        (use,) = idles(before)[-1]["stop_reason"]["event_ids"]
        go_on(again, s, confirm(use, "deny", deny_message="Not now."))
        events = again.events(s)
        whole(before, events)
        true("Not now." in said(events)[0], said(events))
    finally:
        equal(again.server.stop(), 0)
