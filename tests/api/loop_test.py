"""Items 65 to 75 of the session checklist: turns, failures, compaction, large outputs (API: sessions §8, §9)."""
import json
import re
import time

from kit import BEGIN, TRIPLE, equal, last, message, said, test, true, types, wait
from stage import (TOOLSET, answer, asked, at_gate, fresh, gate, go_on, idles, interrupt, lead, needs_sandbox, own, requests, rules,
                   spans_closed, spawn, calls, status, thread, until_idle)

FAILED = ["span.model_request_start", "span.model_request_end", "session.error", "session.thread_status_rescheduled", "session.status_rescheduled"]


@test(model=True)
def t_065_a_simple_turn(w):
    s, events = w.turn(message("[[say Hello!]]"))
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal([set(e) - {"type", "id", "processed_at"} for e in events],
          [set(), {"session_thread_id", "agent_name"}, {"content"}, set(), {"content"}, {"model_request_start_id", "is_error", "model_usage"},
           {"session_thread_id", "agent_name", "stop_reason", "stop_details"}, {"usage", "budget"}, {"stop_reason", "stop_details"}])
    at = [e["processed_at"] for e in events]
    equal(at, sorted(set(at)), "strictly increasing times")
    true(all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", x) for x in at), at)
    equal(len({e["id"] for e in events}), len(events))
    equal(w.events(s), events)


@test(model=True)
def t_066_the_place_of_tools(w):
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"])
    _, events = w.turn(message('[[think]] [[say Looking.]] [[tools glob {"pattern":"*"} | no_such {} | glob {"pattern":"a"}]] ;; [[say {result}]]'), session=s)
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.thinking", "agent.message", "agent.tool_use", "agent.tool_use", "agent.tool_use",
                                  "span.model_request_end", "agent.tool_result", "agent.tool_result", "agent.tool_result",
                                  "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    uses = [e["id"] for e in events if e["type"] == "agent.tool_use"]
    equal([e["tool_use_id"] for e in events if e["type"] == "agent.tool_result"], uses, "in the order of the calls")
    s, events, uses = asked(w, '[[say Asking.]] [[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say {result}]]')
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.message", "agent.custom_tool_use", "agent.custom_tool_use",
                                  "span.model_request_end"] + TRIPLE)
    equal(said(go_on(w, s, answer(uses[1], "2"), answer(uses[0], "1"))), ["1\n2"], "results reach the model in the order of the calls")


@test(model=True)
def t_067_each_model_request_has_its_end(w):
    s = w.session()
    for prompt in ('[[tool no_such {}]] ;; [[tool no_such {}]] ;; [[say x]]', "[[error 529 x2]] [[say x]]", "[[refuse]] [[say no]]"):
        w.send(s, message(prompt))
        wait(lambda: status(w, s) == "idle" and idles(w.events(s)), "idle", 60)
    w.send(s, message("[[error 400]] x"))
    wait(lambda: idles(w.events(s), "retries_exhausted"), "idle", 60)
    with w.stream(s) as feed:
        w.send(s, message("[[long 3000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a request")
        w.send(s, interrupt())
        until_idle(feed)
    events = w.events(s)
    spans_closed(events)
    open_ = None
    for e in events:
        if e["type"] == "span.model_request_start":
            true(open_ is None, "one at a time")
            open_ = e["id"]
        if e["type"] == "span.model_request_end":
            equal(e["model_request_start_id"], open_)
            open_ = None


@test(model=True)
def t_068_usage_comes_right_before_each_idle(w):
    s, _, uses = asked(w, '[[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say x]]')
    go_on(w, s, answer(uses[0]), reason="requires_action")
    go_on(w, s, answer(uses[1]))
    go_on(w, s, message("[[refuse]] [[say no]]"), reason="refusal")
    go_on(w, s, message("[[error 400]] x"), reason="retries_exhausted")
    w.send(s, interrupt())
    time.sleep(0.2)  # would something follow, it did now
    all_ = types(w.events(s))
    equal(all_.count("session.status_idle"), 5)
    for i, t in enumerate(all_):
        if t == "session.status_idle":
            equal(all_[i - 2:i + 1], TRIPLE)
            true(i + 1 == len(all_) or all_[i + 1] in ("session.status_running", "user.custom_tool_result"), f"{all_[i + 1:i + 2]} after an idle")
    equal(all_[-1], "session.status_idle", "nothing follows the last one")


@test(model=True)
def t_069_stop_details(w):
    s, events = w.turn(message("[[say x]]"))
    for t in "session.thread_status_idle", "session.status_idle":
        e = last(events, t)
        true("stop_details" in e and e["stop_details"] is None, e)
    _, events = w.turn(message("[[say I had rather not.]] [[refuse]]"), session=s, reason="refusal")
    for t in "session.thread_status_idle", "session.status_idle":
        e = last(events, t)
        equal((e["stop_reason"], e["stop_details"]), ({"type": "refusal"}, {"type": "refusal", "category": "cyber", "explanation": "declined by the mock"}))
    _, events = w.turn(message("[[say on]]"), session=s)
    equal(said(events), ["on"], "a message goes on")


@test(model=True)
def t_070_the_first_thread_event_names_the_primary(w):
    for s in (w.session(), w.session(initial_events=[message("[[say x]]")])):
        if s["status"] == "idle":
            w.turn(message("[[say x]]"), session=s)
        wait(lambda: status(w, s) == "idle", "idle")
        first = next(e for e in w.events(s) if e["type"].startswith("session.thread_status_"))
        (primary,) = w.all(f"/v1/sessions/{s['id']}/threads")
        equal((first["type"], first["session_thread_id"], first["agent_name"]), ("session.thread_status_running", primary["id"], "clerk"))


@test(model=True)
def t_070_also_when_children_run(w):
    child = fresh("child")
    s = lead(w, w.new_agent(name=child), system=rules(("You said|hello", "[[say heard]]"), ("^Go", calls(spawn(child, "hello")) + " ;; [[say spawned]]")))
    _, events = w.turn(message("Go"), session=s)
    first = next(e for e in events if e["type"].startswith("session.thread_status_"))
    equal(first["session_thread_id"], next(t["id"] for t in w.all(f"/v1/sessions/{s['id']}/threads") if not t["parent_thread_id"]))
    true(thread(w, s, child)["id"] != first["session_thread_id"], "not the child")


@test(model=True)
def t_071_transient_failures(w):
    for how in ("[[error 529 x1]]", "[[error 500 x1]]", "[[error 429 x1 retry-ms 30]]", "[[error stream overloaded_error x1]]", "[[cut x1]]"):
        s, events = w.turn(message(how + " [[say Back.]]"))
        equal(types(events), BEGIN + ["user.message"] + FAILED + BEGIN + ["span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE, how)
        equal((events[4]["is_error"], events[5]["error"]["retry_status"]), (True, {"type": "retrying"}))
        true(events[5]["error"]["message"] and events[5]["error"]["type"], events[5])
        equal(said(events), ["Back."])


@test(model=True)
def t_071_the_status_while_a_retry_waits(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[error 529 x1 retry 4]] [[say Back.]]"))
        feed.until(lambda all_: "session.status_rescheduled" in types(all_), "the failure")
        equal(status(w, s), "rescheduling")
        equal(w.all(f"/v1/sessions/{s['id']}/threads")[0]["status"], "rescheduling")
        until_idle(feed)
        equal((status(w, s), said(feed.events)), ("idle", ["Back."]))


@test(model=True)
def t_072_exhausted_retries(w):
    s, events = w.turn(message("[[error 529]] never"), reason="retries_exhausted")
    states = [e["error"]["retry_status"]["type"] for e in events if e["type"] == "session.error"]
    equal(states, ["retrying"] * 3 + ["exhausted"])
    equal(types(events), BEGIN + ["user.message"] + (FAILED + BEGIN) * 3 + FAILED[:3] + TRIPLE)
    equal([e["stop_reason"] for e in events if e["type"].endswith("_idle")], [{"type": "retries_exhausted"}] * 2)
    equal(status(w, s), "idle")
    _, after = w.turn(message("[[say works again]]"), session=s)
    equal(said(after), ["works again"])


@test(model=True)
def t_072_what_waits_is_flushed_with_the_turn(w):
    door = fresh()
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] [[error 400]] x"))
        at_gate(w, door)
        w.send(s, message("[[say too late]]"), message("[[say much too late]]"))
        n = w.mock.count()
        gate(w, door)
        until_idle(feed, "retries_exhausted")
        w.send(s, message("[[say the next one]]"))
        until_idle(feed)
        equal((said(feed.events), w.mock.count()), (["the next one"], n + 1))
    true("too late" not in json.dumps(requests(w, n)[-1]["body"]["messages"]), "the model never hears of it")


@test(model=True)
def t_073_no_failure_of_the_model_ends_a_session(w):
    """What no retry helps can still be mended from outside (a key, a route, a bill): README.md says why nothing is
    terminal here. The turn ends as one whose retries are exhausted, and the next message works."""
    for how in ("[[error 400]]", "[[error 401]]", "[[error 402]]", "[[error 403]]", "[[error 404]]", "[[error 413]]"):
        s, events = w.turn(message(how), reason="retries_exhausted")
        equal(types(events), BEGIN + ["user.message"] + FAILED[:3] + TRIPLE, how)
        equal(last(events, "session.error")["error"]["retry_status"], {"type": "exhausted"}, how)
        equal(status(w, s), "idle")
        equal(said(w.turn(message("[[say works again]]"), session=s)[1]), ["works again"])


@test(model=True)
def t_074_compaction(w):
    with own(w, "context = { compact_at_tokens = 10000 }") as v:
        s = v.session(agent=v.new_agent(tools=[])["id"])
        _, one = v.turn(message("[[say The first answer.]] [[usage in=100 out=10 read=0 write=0]]"), session=s)
        _, two = v.turn(message("[[say The second answer.]] [[usage in=20000 out=10 read=0 write=0]]"), session=s)
        true("agent.thread_context_compacted" not in types(one + two[:6]), "not before it is full")
        n = w.mock.count()
        _, three = v.turn(message("[[say The third answer.]] [[usage in=500 out=10 read=0 write=0]]"), session=s)
        events = v.events(s)
        compacted = [e for e in events if e["type"] == "agent.thread_context_compacted"]
        equal([set(e) for e in compacted], [{"type", "id", "processed_at"}], "once, without figures")
        equal([e for e in events if e["id"] in {x["id"] for x in one + two}], one + two, "the history is as it was")
        equal(said(events), ["The first answer.", "The second answer.", "The third answer."], "and the summary is no message")
        sent = requests(w, n)
        asked_ = json.dumps(sent[-1]["body"])
        true("summary of" in asked_ and "The third answer." in asked_ and "The first answer." not in asked_, "the model goes on with the summary")
        spans_closed(events)
        _, four = v.turn(message("[[say The fourth answer.]]"), session=s)
        true("agent.thread_context_compacted" not in types(four), "not again")


@test(model=True)
def t_075_a_large_output_goes_to_a_file(w):
    needs_sandbox()
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"])
    path = re.compile(r"/[\w./-]*\w")
    for n in (18700, 30000):  # a little more than 100,000 characters, and more than bash itself keeps
        _, events = w.turn(message('[[tool bash {"command":"seq 1 %d"}]] ;; [[say done]]' % n), session=s)
        result = last(events, "agent.tool_result")["content"][0]["text"]
        true(len(result) <= 100000, f"{len(result)} characters for the model")
        true(path.findall(result), "the path of the file: " + result[-300:])
        where = path.findall(result)[-1]
        _, events = w.turn(message('[[tool bash {"command":"wc -c < %s; head -n 1 %s; tail -n 1 %s"}]] ;; [[say {result}]]' % (where, where, where)), session=s)
        size, first, end = said(events)[0].split("\n")[:3]
        equal(end, str(n), "the file has its end")
        true(int(size) >= 100000, f"{size} bytes in the file")
        true(first == "1" or n == 30000, f"and its beginning: {first}")
    _, events = w.turn(message('[[tool bash {"command":"seq 1 15000"}]] ;; [[say done]]'), session=s)
    equal(last(events, "agent.tool_result")["content"][0]["text"].split(), [str(i) for i in range(1, 15001)], "what is smaller is whole")
