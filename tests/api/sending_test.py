"""Items 37 to 50 of the session checklist: what clients may send, and when (API: sessions §5)."""
import json
import time

from kit import NOBODY, equal, last, message, said, test, text, true, types, wait
from stage import (TOOLSET, answer, asked, at_gate, confirm, custom, fresh, gate, go_on, interrupt, outcome, policy, refused, requests, status,
                   until_idle, verdicts)

SYSTEM = {"type": "system.message", "content": text("Be brief.")}
BASH = '[[tool bash {"command":"true"}]] ;; [[say {result}]]'


def self_hosted(w):
    """A session whose tools run at the client, with a call of bash that waits for it; and the call's id."""
    e = w.new_environment(name=fresh("own"), config={"type": "self_hosted"})
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"], environment_id=e["id"])
    _, _, (use,) = asked(w, BASH, "agent.tool_use", session=s)
    return s, use


@test(model=True)
def t_037_sending_answers_at_once(w):
    door = fresh()
    s = w.session()
    before = time.monotonic()
    data = w.send(s, message(f"[[gate {door}]] [[say one]]"), message("[[say two]]"))
    true(time.monotonic() - before < 10, "it does not wait for the model")
    equal([(e["type"], e["processed_at"]) for e in data], [("user.message", None)] * 2)
    equal([e["content"] for e in data], [text(f"[[gate {door}]] [[say one]]"), text("[[say two]]")], "in the order of the request")
    true(all(e["id"].startswith("sevt_01") for e in data), data)
    gate(w, door)
    wait(lambda: status(w, s) == "idle", "idle")
    equal([e["id"] for e in w.events(s) if e["type"] == "user.message"], [e["id"] for e in data])


@test(model=True)
def t_038_a_custom_result_is_processed_on_receipt(w):
    s, _, (use,) = asked(w)
    (e,) = w.send(s, answer(use))
    true(e["processed_at"], e)
    equal(e["content"], text("found"))


@test(model=True)
def t_038_an_outcome_is_processed_on_receipt(w):
    s = w.session()
    rubric = verdicts("satisfied: yes")
    (e,) = w.send(s, outcome("[[say done]]", rubric))
    true(e["processed_at"] and e["outcome_id"].startswith("outc_01"), e)
    equal((e["max_iterations"], e["rubric"], e["description"]), (3, {"type": "text", "content": rubric}, "[[say done]]"))
    wait(lambda: status(w, s) == "idle", "idle")
    equal([x for x in w.events(s) if x["id"] == e["id"]], [e], "the same in the list")


@test(model=True)
def t_038_a_tool_result_is_processed_on_receipt(w):
    s, use = self_hosted(w)
    (e,) = w.send(s, {"type": "user.tool_result", "tool_use_id": use, "content": text("ran at the client")})
    true(e["processed_at"], e)
    wait(lambda: said(w.events(s)) == ["ran at the client"], "the model to read it")


@test(model=True)
def t_039_one_bad_event_refuses_all(w):
    s = w.session()
    for bad in ({"type": "user.message"}, {"type": "nothing"}, message(""), confirm("sevt_x"), {"content": text("x")}, "x", None,
                {"type": "user.define_outcome", "description": "without a rubric"}):
        refused(w, s, message("fine"), bad, names=r"events\[1\]")
        refused(w, s, message("fine"), bad, message("fine"), names=r"events\[1\]")
    equal(w.events(s), [])
    equal(status(w, s), "idle")


@test
def t_040_events_that_cannot_be(w):
    s = w.session()
    block = lambda b: {"type": "user.message", "content": [b]}
    for e in (block({"type": "redacted"}), {"type": "user.messages", "content": text("x")}, {"type": "user.message"}, {"type": "user.message", "content": "text"},
              {"type": "user.message", "content": []}, block({"type": "text"}), block({"type": "video"}), block("x"), {"type": "interrupt"},
              block({"type": "search_result", "source": "s", "title": "t", "content": [], "citations": {"enabled": True}}),
              {"type": "session.status_idle"}, {"type": "agent.message", "content": text("x")}, {"type": "event_start"}, {},
              {"type": "system.message", "content": [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]},
              {"type": "system.message", "content": []}, {"type": "user.custom_tool_result"}, {"type": "user.tool_confirmation", "result": "allow"}):
        r = refused(w, s, e, names=r"events\[0\]")
        equal(r.error["type"], "invalid_request_error")
    for body in ({}, {"events": []}, {"events": {}}, {"events": "x"}, []):
        w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", body)
    equal(w.events(s), [])


@test(model=True)
def t_041_blocked_sessions_take_only_answers(w):
    s, _, uses = asked(w, '[[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say {result}]]')
    r = refused(w, s, message("hello"))
    equal(r.error["message"], "Invalid user.message event at events[0]: waiting on responses to events [%s]; only `user.tool_confirmation`, "
          "`user.custom_tool_result`, `user.tool_result`, or `user.interrupt` may be sent" % ", ".join(uses))
    refused(w, s, answer(uses[0]), message("x"), names=r"events\[1\].*waiting on responses to events \[%s\]" % uses[1])
    equal(status(w, s), "idle")
    events = go_on(w, s, answer(uses[0]), answer(uses[1]), message("and [[say more]]"))
    equal([e["type"] for e in events if e["type"].startswith("user.")], ["user.custom_tool_result"] * 2 + ["user.message"])


@test(model=True)
def t_042_messages_while_running(w):
    door = fresh()
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] [[say first]]"))
        at_gate(w, door)
        sent = [w.send(s, message(f"[[say number {i}]]"))[0] for i in range(3)]
        equal([e["processed_at"] for e in sent], [None] * 3)
        waiting = [e for e in w.events(s) if e["type"] == "user.message" and e["processed_at"] is None]
        equal([e["id"] for e in waiting], [e["id"] for e in sent], "what waits is listed last")
        gate(w, door)
        wait(lambda: status(w, s) == "idle", "idle")
        events = feed.until(lambda all_: types(all_)[-1] == "session.status_idle" and types(all_).count("user.message") == 4, "all taken")
    equal([e["id"] for e in events if e["type"] == "user.message"][1:], [e["id"] for e in sent], "in order")
    true(all(e["processed_at"] for e in events), "all processed")
    true("number 2" in said(events)[-1], said(events))
    equal(w.events(s), events)


@test(model=True)
def t_043_a_deny_message_needs_a_denial(w):
    s, _, (use,) = asked(w, BASH, "agent.tool_use")
    refused(w, s, confirm(use, deny_message="no"), names="deny_message")
    refused(w, s, confirm(use, "maybe"), names="result")
    go_on(w, s, confirm(use, "deny", deny_message="no"))


@test(model=True)
def t_044_confirmations_that_cannot_be(w):
    s, _, (use,) = asked(w, BASH, "agent.tool_use")
    refused(w, s, confirm("sevt_" + NOBODY), names=r"events\[0\]")
    refused(w, s, confirm(use, "deny"), confirm(use, "deny"), names=r"events\[1\]")
    refused(w, s, answer(use))
    go_on(w, s, confirm(use, "deny"))
    refused(w, s, confirm(use, "deny"))
    refused(w, s, confirm(use))
    s, events = w.turn(message('[[tool write {"file_path":"a","content":"b"}]] ;; [[say {result}]]'))
    denied = last(events, "agent.tool_use")
    equal(denied["evaluated_permission"], "deny")
    refused(w, s, confirm(denied["id"]))
    free = w.new_agent(tools=[dict(policy("bash", "always_ask"), configs=[{"name": "bash", "permission_policy": {"type": "always_ask"}}]), custom()])
    s = w.session(agent=free["id"])
    _, _, (call,) = asked(w, session=s)
    refused(w, s, confirm(call), names=r"events\[0\]")
    go_on(w, s, answer(call))


@test(model=True)
def t_044_a_call_that_was_allowed_takes_no_confirmation(w):
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"])
    _, events = w.turn(message('[[tool glob {"pattern":"*"}]] ;; [[say over]]'), session=s)
    e = last(events, "agent.tool_use")
    equal(e["evaluated_permission"], "allow")
    refused(w, s, confirm(e["id"]))
    refused(w, s, confirm(e["id"], "deny"))


@test(model=True)
def t_045_results_that_cannot_be(w):
    s, _, (use,) = asked(w)
    refused(w, s, answer("sevt_" + NOBODY))
    refused(w, s, answer(use), answer(use), names=r"events\[1\]")
    refused(w, s, answer(use, content=[{"type": "redacted"}]), names=r"events\[0\]")
    refused(w, s, answer(use, is_error="yes"), names=r"events\[0\]")
    other, _, (theirs,) = asked(w)
    refused(w, s, answer(theirs))
    go_on(w, s, answer(use))
    refused(w, s, answer(use))
    go_on(w, other, {"type": "user.custom_tool_result", "custom_tool_use_id": theirs})


@test(model=True)
def t_046_tool_results_are_for_self_hosted_environments(w):
    s, _, (use,) = asked(w, BASH, "agent.tool_use")
    refused(w, s, {"type": "user.tool_result", "tool_use_id": use, "content": text("x")}, names=r"events\[0\]")
    go_on(w, s, confirm(use, "deny"))
    refused(w, s, {"type": "user.tool_result", "tool_use_id": use, "content": text("x")}, names=r"events\[0\]")


@test(model=True)
def t_047_a_system_message_alone_starts_nothing(w):
    s = w.session()
    n = w.mock.count()
    (e,) = w.send(s, SYSTEM)
    equal((e["type"], e["content"], e["processed_at"]), ("system.message", SYSTEM["content"], None))
    time.sleep(0.2)  # would a turn begin, it began now
    equal((status(w, s), w.mock.count()), ("idle", n))
    true("session.status_running" not in types(w.events(s)), types(w.events(s)))
    w.turn(message("[[say ok]]"), session=s)
    true("Be brief." in json.dumps(requests(w, n)[-1]["body"]["messages"]), "the next turn reads it")
    (e,) = [x for x in w.events(s) if x["type"] == "system.message"]
    true(e["processed_at"], e)


@test(model=True)
def t_047_a_system_message_with_a_message(w):
    s = w.session()
    n = w.mock.count()
    _, events = w.turn(message("[[say ok]]"), SYSTEM, session=s)
    equal([t for t in types(events) if t in ("user.message", "system.message")], ["user.message", "system.message"])
    sent = requests(w, n)
    equal(len(sent), 1, "one turn, one request")
    equal([m["role"] for m in sent[0]["body"]["messages"]], ["user", "system"])
    true("Be brief." in json.dumps(sent[0]["body"]["messages"][-1]), sent[0]["body"]["messages"])


@test
def t_047_a_system_message_is_the_last_and_only_one(w):
    s = w.session()
    for events, i in (([SYSTEM, message("x")], 0), ([message("x"), SYSTEM, SYSTEM], 1), ([SYSTEM, SYSTEM], 0), ([interrupt(), SYSTEM], 1)):
        refused(w, s, *events, names=r"events\[%d\]" % i if events[-1] is not SYSTEM else None)
    equal(w.events(s), [])


@test(model=True)
def t_048_a_system_message_while_blocked(w):
    s, _, (use,) = asked(w)
    refused(w, s, SYSTEM, names=r"events\[0\]")
    n = w.mock.count()
    events = go_on(w, s, answer(use), SYSTEM)
    equal([t for t in types(events) if t.endswith("custom_tool_result") or t == "system.message"], ["user.custom_tool_result", "system.message"])
    true("Be brief." in json.dumps(requests(w, n)[0]["body"]["messages"]), "the turn that goes on reads it")


@test(model=True)
def t_048_not_after_a_confirmation(w):
    s, _, (use,) = asked(w, BASH, "agent.tool_use")
    refused(w, s, confirm(use, "deny"), SYSTEM, names=r"events\[1\]")
    go_on(w, s, confirm(use, "deny"))


@test(model=True)
def t_049_one_outcome_at_a_time(w):
    door = fresh()
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, outcome(f"[[gate {door}]] [[say done]]", verdicts("satisfied: yes")))
        refused(w, s, outcome(), names=r"events\[0\]")
        gate(w, door)
        until_idle(feed)
    refused(w, s, outcome(), outcome(), names=r"events\[1\]")


@test
def t_049_outcomes_that_cannot_be(w):
    s = w.session()
    for bad in (outcome(rubric="x" * 262145), outcome(max_iterations=21), outcome(max_iterations=0), outcome(max_iterations="3"), outcome(max_iterations=1.5),
                {"type": "user.define_outcome", "description": "d"}, {"type": "user.define_outcome", "rubric": {"type": "text", "content": "r"}},
                outcome(description=7), {"type": "user.define_outcome", "description": "d", "rubric": "r"},
                {"type": "user.define_outcome", "description": "d", "rubric": {"type": "text"}}, {"type": "user.define_outcome", "description": "d", "rubric": {"type": "file"}}):
        refused(w, s, bad, names=r"events\[0\]")
    r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [{"type": "user.define_outcome", "description": "d", "rubric": {"type": "file", "file_id": "file_" + NOBODY}}]})
    true(r.status in (400, 404), r.status)
    equal(w.events(s), [])


@test(model=True)
def t_049_a_rubric_of_the_greatest_length(w):
    rubric = verdicts("satisfied: long but good")
    s, events = w.turn(outcome("[[say done]]", rubric + "x" * (262144 - len(rubric)), max_iterations=20))
    equal(last(events, "span.outcome_evaluation_end")["result"], "satisfied")


@test(model=True)
def t_050_sessions_that_have_ended(w):
    s, events = w.turn(message("[[say x]]"))
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    n = w.mock.count()
    for e in (message("x"), interrupt(), outcome(), SYSTEM, confirm("sevt_" + NOBODY), answer("sevt_" + NOBODY)):
        r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [e]})
        true(400 <= r.status < 500 and r.status not in (408, 409, 429), r.status)
        true(r.error["message"], r.error)
    equal((types(w.events(s))[len(events):], w.mock.count()), (["session.status_terminated"], n))
    blocked, _, (use,) = asked(w)
    w.ok("POST", f"/v1/sessions/{blocked['id']}/archive")
    equal(w.post(f"/v1/sessions/{blocked['id']}/events", {"events": [answer(use)]}).status // 100, 4)
    equal(types(w.events(blocked))[-1], "session.status_terminated")
