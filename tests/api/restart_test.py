"""Item 112 of the session checklist: a server that is killed between a call and its result, and comes back (API:
sessions §8; what must be the same after a crash is tested at every barrier in tests/crash)."""
import signal

from kit import KEY, UPSTREAM_KEY, Server, World, equal, last, message, said, test, types, true, wait
from stage import RETRIES, TOOLSET, answer, custom, go_on, idles, needs_sandbox, spans_closed, status


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
