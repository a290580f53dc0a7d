"""Items 83 to 87 of the session checklist: interrupts in every state (API: sessions §8.6)."""
import time

from kit import BEGIN, NOBODY, TRIPLE, equal, message, said, test, true, types, wait
from stage import (TOOLSET, answer, asked, at_gate, calls, fresh, gate, go_on, idles, interrupt, lead, needs_sandbox, refused, rules, spawn, status,
                   thread, until_idle)

INTERRUPTED = "Tool execution was interrupted before completion. Please retry."


def midway(w, feed, s):
    """The model's text has begun and goes on for long."""
    w.send(s, message("[[long 3000]] [[slow 10 ms]]"))
    feed.until(lambda all_: "event_delta" in types(all_), "text to come")


@test(model=True)
def t_083_during_a_model_request(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.message") as feed:
        midway(w, feed, s)
        (sent,) = w.send(s, interrupt())
        equal((sent["type"], sent["processed_at"]), ("user.interrupt", None))
        until_idle(feed)
    events = [e for e in feed.events if not e["type"].startswith("event_")]
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"] + TRIPLE)
    equal((events[4]["is_error"], events[5]["id"]), (True, sent["id"]))
    true(events[5]["processed_at"], events[5])
    equal([e["stop_reason"] for e in events if e["type"].endswith("_idle")], [{"type": "end_turn"}] * 2)
    equal(w.events(s), events)
    wait(lambda: w.mock.get("/count")["live"] == 0, "the model's stream to be cut")


@test(model=True)
def t_083_before_the_model_says_anything(w):
    door = fresh()
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] [[say never]]"))
        at_gate(w, door)
        w.send(s, interrupt())
        until_idle(feed)
        gate(w, door)
    equal(types(feed.events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"] + TRIPLE)
    _, events = w.turn(message("[[say next]]"), session=s)
    equal(said(w.events(s)), ["next"])


@test(model=True)
def t_083_while_a_tool_runs(w):
    needs_sandbox()
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"])
    with w.stream(s) as feed:
        w.send(s, message('[[tools bash {"command":"sleep 300"} | bash {"command":"sleep 301"}]] ;; [[say never]]'))
        feed.until(lambda all_: "span.model_request_end" in types(all_), "the calls")
        w.send(s, interrupt())
        until_idle(feed)
    uses = [e["id"] for e in feed.events if e["type"] == "agent.tool_use"]
    results = [e for e in feed.events if e["type"] == "agent.tool_result"]
    equal([(e["tool_use_id"], e["is_error"], e["content"][0]["text"]) for e in results], [(u, True, INTERRUPTED) for u in uses])
    equal(types(feed.events)[-3:], TRIPLE)
    true("user.interrupt" in types(feed.events) and said(feed.events) == [], types(feed.events))


@test(model=True)
def t_083_while_a_retry_waits(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[error 529 retry 60]] x"))
        feed.until(lambda all_: "session.status_rescheduled" in types(all_), "a retry")
        n = w.mock.count()
        w.send(s, interrupt())
        until_idle(feed)
    true("user.interrupt" in types(feed.events), types(feed.events))
    equal((types(feed.events)[-3:], status(w, s), w.mock.count()), (TRIPLE, "idle", n))


@test(model=True)
def t_084_and_redirect_in_one_request(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.message") as feed:
        midway(w, feed, s)
        sent = w.send(s, interrupt(), message("[[say Just 3 lines.]]"))
        equal([e["processed_at"] for e in sent], [None, None])
        until_idle(feed, n=2)
    events = [e for e in feed.events if not e["type"].startswith("event_")]
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"] + TRIPLE +
          BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal([events[5]["id"], events[11]["id"]], [e["id"] for e in sent])
    equal(said(events), ["Just 3 lines."])


@test(model=True)
def t_084_what_was_queued_before_joins_the_next_turn(w):
    door = fresh()
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] [[say never]]"))
        at_gate(w, door)
        (queued,) = w.send(s, message("queued"))
        w.send(s, interrupt(), message("[[say after]]"))
        until_idle(feed, n=2)
        gate(w, door)
    events = feed.events
    equal(types(events)[9:], BEGIN + ["user.message", "user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal((events[11]["id"], said(events)), (queued["id"], ["after"]))


@test(model=True)
def t_085_while_blocked(w):
    for prompt, kind in (('[[tools lookup {"q":"a"} | lookup {"q":"b"}]]', "agent.custom_tool_use"), ('[[tools bash {"command":"true"} | bash {"command":"true"}]]', "agent.tool_use")):
        s, _, uses = asked(w, prompt, kind)
        n = w.mock.count()
        rest = go_on(w, s, interrupt())
        failed = [e for e in rest if e.get("is_error")]
        equal([e.get("tool_use_id") or e.get("custom_tool_use_id") for e in failed], uses)
        true(all(INTERRUPTED in e["content"][0]["text"] for e in failed), failed)
        equal(types(rest)[-3:], TRIPLE)
        equal(rest[-1]["stop_reason"], {"type": "end_turn"})
        true("session.status_running" not in types(rest) and "span.model_request_start" not in types(rest), types(rest))
        equal(w.mock.count(), n, "the model is not asked")
        for use in uses:
            refused(w, s, answer(use) if kind == "agent.custom_tool_use" else {"type": "user.tool_confirmation", "tool_use_id": use, "result": "allow"})
        _, after = w.turn(message("[[say on we go]]"), session=s)
        equal(said(after), ["on we go"])


@test(model=True)
def t_086_while_idle(w):
    fresh_one = w.session()
    s, events = w.turn(message("[[say x]]"))
    for session, before in ((s, events), (fresh_one, [])):
        r = w.post(f"/v1/sessions/{session['id']}/events", {"events": [interrupt()]})
        equal(r.status, 200)
        time.sleep(0.2)  # would something happen, it did now
        equal(status(w, session), "idle")
        equal([e for e in w.events(session) if e["type"] != "user.interrupt"], before, "no status change")
        equal(types(w.events(session))[-1:], types(before)[-1:], "and the idle stays the last")
    _, after = w.turn(message("[[say y]]"), session=s)
    equal(said(after), ["y"])


@test
def t_087_a_thread_that_never_was(w):
    s = w.session()
    refused(w, s, interrupt("sthr_" + NOBODY), names=r"events\[0\]")
    refused(w, s, interrupt("nonsense"), names=r"events\[0\]")
    equal(w.events(s), [])


@test(model=True)
def t_087_a_thread_that_has_ended(w):
    child = fresh("child")
    s = lead(w, w.new_agent(name=child), system=rules(("You said", "[[say heard]]"), ("^Go", calls(spawn(child, "hello")) + " ;; [[say spawned]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        until_idle(feed)
    t = thread(w, s, child)
    r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [interrupt(t["id"])]})
    equal(r.status, 200, "an idle one")
    equal(w.ok("POST", f"/v1/sessions/{s['id']}/threads/{t['id']}/archive")["status"], "terminated")
    refused(w, s, interrupt(t["id"]), names=r"events\[0\]")
    refused(w, s, message("x"), interrupt(t["id"]), names=r"events\[1\]")
    equal(len(idles(w.events(s))), 1, "nothing happened")
