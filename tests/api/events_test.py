"""What clients send and what comes of it: turns, tools, permissions, interrupts, failures (API: sessions, sending
events, the agent loop, permission flow)."""
import threading
import time

from kit import BEGIN, NOBODY, TRIPLE, equal, last, message, said, test, text, true, types, wait

LOOK = '[[tool lookup {"q":"%s"}]]'


def refused(w, s, *events, names=None):
    return w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": list(events)}, names=names)


def answer(use, s="found", **more):
    return dict({"type": "user.custom_tool_result", "custom_tool_use_id": use, "content": text(s)}, **more)


def confirm(use, result="allow", **more):
    return dict({"type": "user.tool_confirmation", "tool_use_id": use, "result": result}, **more)


def asked(w, prompt="[[tool lookup {\"q\":\"x\"}]] ;; [[say {result}]]", type_="agent.custom_tool_use"):
    s, events = w.turn(message(prompt), reason="requires_action")
    return s, events, [e["id"] for e in events if e["type"] == type_]


def go_on(w, s, *events, reason="end_turn"):
    """Sends events and waits until the session is idle for this reason once more; what came since."""
    n = len(w.events(s))
    w.send(s, *events)
    wait(lambda: [e for e in w.events(s)[n:] if e["type"] == "session.status_idle" and e["stop_reason"]["type"] == reason],
         f"idle {reason}; {types(w.events(s)[n:])}")
    return w.events(s)[n:]


@test(model=True)
def sessions_37_sending_answers_at_once(w):
    s = w.session()
    before = time.monotonic()
    data = w.send(s, message("[[say slowly]] [[slow 300 ms]]"), message("[[say again]]"))
    true(time.monotonic() - before < 2, "at once")
    equal([(e["type"], e["processed_at"]) for e in data], [("user.message", None)] * 2)
    true(all(e["id"].startswith("sevt_01") for e in data), data)
    w.send(s, {"type": "user.interrupt"})
    wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")


@test(model=True)
def sessions_38_results_are_processed_on_receipt(w):
    s, _, (use,) = asked(w)
    (e,) = w.send(s, answer(use))
    true(e["processed_at"], e)
    equal(e["content"], text("found"))


@test(model=True)
def sessions_39_one_bad_event_refuses_all(w):
    s = w.session()
    for bad in ({"type": "user.message"}, {"type": "nothing"}, message(""), confirm("sevt_x"), {"content": text("x")}, "x", None):
        refused(w, s, message("fine"), bad, names=r"events\[1\]")
    equal(w.events(s), [])
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")


@test
def sessions_40_events_that_cannot_be(w):
    s = w.session()
    block = lambda b: {"type": "user.message", "content": [b]}
    img = lambda src: block({"type": "image", "source": src})
    doc = lambda src: block({"type": "document", "source": src})
    for e in (block({"type": "redacted"}), {"type": "user.messages", "content": text("x")}, {"type": "user.message"},
              {"type": "user.message", "content": "text"}, {"type": "user.message", "content": []}, block({"type": "text"}),
              block({"type": "text", "text": 1}), block({"type": "text", "text": ""}), block({"type": "video"}), block({}), block("x"), img({}),
              img({"type": "base64", "media_type": "image/png"}), img({"type": "base64", "media_type": "image/tiff", "data": "aGk="}),
              img({"type": "base64", "media_type": "image/png", "data": "not base64!"}), img({"type": "url"}), img({"type": "text", "data": "x"}),
              doc({"type": "text", "media_type": "text/html", "data": "x"}), doc({"type": "file"}), doc({}),
              block({"type": "search_result", "source": "s", "title": "t", "content": [], "citations": {"enabled": True}}),
              {"type": "session.status_idle"}, {"type": "agent.message", "content": text("x")}, {"type": "user.tool_confirmation"},
              {"type": "user.custom_tool_result"}, confirm("sevt_" + NOBODY), answer("sevt_" + NOBODY), confirm("sevt_x", "maybe"),
              {"type": "user.interrupt", "session_thread_id": "sthr_" + NOBODY}, {"type": "event_start"}, {}):
        r = refused(w, s, e, names=r"events\[0\]")
        true(r.error["details"]["field"].startswith("events[0]"), r.error)
    for body in ({}, {"events": []}, {"events": {}}, {"events": "x"}, {"events": [message("x")] * 1001}, []):
        w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", body)
    equal(w.events(s), [])


@test(model=True)
def content_of_all_kinds(w):
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    content = [{"type": "text", "text": "[[say seen]] \u2028 zwölf 🧾 \\ \" </script>"},
               {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": png}},
               {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
               {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}, "title": "T", "context": None}]
    s, events = w.turn({"type": "user.message", "content": content})
    equal(last(events, "user.message")["content"], content)
    equal(said(events), ["seen"])


@test(model=True)
def sessions_41_blocked_sessions_take_only_answers(w):
    s, _, (use,) = asked(w)
    refused(w, s, message("hello"), names=r"waiting on responses to events \[%s\]; only `user\.tool_confirmation`" % use)
    refused(w, s, answer(use), message("x"), answer(use), names=r"events\[2\]")
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")
    events = go_on(w, s, answer(use), message("and [[say more]]"))
    equal([e["type"] for e in events if e["type"].startswith("user.")], ["user.custom_tool_result", "user.message"])


@test(model=True)
def sessions_42_messages_while_running(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[long 300]] [[slow 5 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a model request")
        sent = [w.send(s, message(f"[[say number {i}]]"))[0] for i in range(3)]
        equal([e["processed_at"] for e in sent], [None] * 3)
        waiting = [e for e in w.events(s) if e["type"] == "user.message" and e["processed_at"] is None]
        equal([e["id"] for e in waiting], [e["id"] for e in sent], "waiting events are listed last")
        wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")
        events = feed.until(lambda all_: types(all_)[-1] == "session.status_idle" and sum(e["type"] == "user.message" for e in all_) == 4, "all taken")
    equal([e["id"] for e in events if e["type"] == "user.message"][1:], [e["id"] for e in sent], "in order")
    true(all(e["processed_at"] for e in events), "all processed")
    equal(w.events(s), events)


@test(model=True)
def sessions_43_deny_messages(w):
    s, _, (use,) = asked(w, '[[tool bash {"command":"true"}]] ;; [[say {result}]]', "agent.tool_use")
    refused(w, s, confirm(use, deny_message="no"), names="deny_message")
    refused(w, s, confirm(use, "maybe"), names="result")
    go_on(w, s, confirm(use, "deny", deny_message="no"))


@test(model=True)
def sessions_44_confirmations_that_cannot_be(w):
    s, _, (use,) = asked(w, '[[tool bash {"command":"true"}]] ;; [[say {result}]]', "agent.tool_use")
    refused(w, s, confirm("sevt_" + NOBODY))
    refused(w, s, answer(use))
    refused(w, s, confirm(use, "deny"), confirm(use, "deny"), names=r"events\[1\]")
    events = go_on(w, s, confirm(use, "deny"))
    refused(w, s, confirm(use, "deny"))
    refused(w, s, confirm(use))
    equal(last(events, "agent.tool_result")["is_error"], True)
    s, _, (call,) = asked(w)
    refused(w, s, confirm(call), names=r"events\[0\]")


@test(model=True)
def sessions_45_results_that_cannot_be(w):
    s, _, (use,) = asked(w)
    refused(w, s, answer("sevt_" + NOBODY))
    refused(w, s, answer(use), answer(use), names=r"events\[1\]")
    refused(w, s, answer(use, content=[{"type": "redacted"}]), names=r"events\[0\]")
    refused(w, s, answer(use, is_error="yes"), names=r"events\[0\]")
    go_on(w, s, answer(use))
    refused(w, s, answer(use))
    other, _, (theirs,) = asked(w)
    refused(w, s, answer(theirs))
    go_on(w, other, answer(theirs))


@test(model=True)
def results_of_all_kinds(w):
    found = {"type": "search_result", "source": "https://e.com", "title": "t", "content": text("c"), "citations": {"enabled": False}}
    for result, want in (({"content": text("4 C")}, "4 C"), ({"content": text("bad"), "is_error": True}, "bad"), ({"content": []}, ""),
                         ({}, ""), ({"content": [found]}, ""), ({"content": text("a") + text("b")}, "a\nb")):
        s, _, (use,) = asked(w, '[[tool lookup {"q":"x"}]] ;; [[say <{result}>]]')
        events = go_on(w, s, dict({"type": "user.custom_tool_result", "custom_tool_use_id": use}, **result))
        equal(said(events), [f"<{want}>"], str(result))
        equal(types(events), ["user.custom_tool_result", *BEGIN, "span.model_request_start", "agent.message", "span.model_request_end", *TRIPLE])


@test(model=True)
def sessions_46_tool_results_are_for_self_hosted_environments(w):
    s, _, (use,) = asked(w, '[[tool bash {"command":"true"}]]', "agent.tool_use")
    refused(w, s, {"type": "user.tool_result", "tool_use_id": use, "content": text("x")}, names=r"events\[0\]")


@test(model=True)
def sessions_47_system_messages(w):
    s = w.session()
    sys_ = {"type": "system.message", "content": text("Be brief.")}
    r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [sys_]})
    if r.status == 501:
        return
    equal(r.status, 200)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")
    refused(w, s, sys_, message("x"))
    refused(w, s, message("x"), sys_, sys_)


@test(model=True)
def sessions_65_a_simple_turn(w):
    s, events = w.turn(message("[[say Hello!]]"))
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal([set(e) - {"type", "id", "processed_at"} for e in events],
          [set(), {"session_thread_id", "agent_name"}, {"content"}, set(), {"content"}, {"model_request_start_id", "is_error", "model_usage"},
           {"session_thread_id", "agent_name", "stop_reason", "stop_details"}, {"usage", "budget"}, {"stop_reason", "stop_details"}])
    equal(events[5]["model_request_start_id"], events[3]["id"])
    equal(events[5]["is_error"], False)
    equal((events[6]["stop_reason"], events[6]["stop_details"]), ({"type": "end_turn"}, None))
    equal((events[8]["stop_reason"], events[8]["stop_details"]), ({"type": "end_turn"}, None))
    equal(events[1]["session_thread_id"], w.all(f"/v1/sessions/{s['id']}/threads")[0]["id"])
    at = [e["processed_at"] for e in events]
    equal(at, sorted(set(at)), "strictly increasing times")
    equal(len({e["id"] for e in events}), len(events))


@test(model=True)
def sessions_66_and_67_the_place_of_tools(w):
    s, events, uses = asked(w, '[[say Looking.]] [[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say {result}]]')
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.message", "agent.custom_tool_use", "agent.custom_tool_use",
                                  "span.model_request_end"] + TRIPLE)
    equal(events[-1]["stop_reason"]["event_ids"], uses)
    events += go_on(w, s, answer(uses[0], "1"), answer(uses[1], "2"))
    starts = [e["id"] for e in events if e["type"] == "span.model_request_start"]
    equal([e["model_request_start_id"] for e in events if e["type"] == "span.model_request_end"], starts)
    equal(said(events)[-1], "1\n2")


@test(model=True)
def sessions_68_usage_comes_right_before_each_idle(w):
    s, _, (use,) = asked(w)
    go_on(w, s, answer(use))
    go_on(w, s, message("[[say x]]"))
    time.sleep(0.1)
    all_ = types(w.events(s))
    for i, t in enumerate(all_):
        if t == "session.status_idle":
            equal(all_[i - 2:i + 1], TRIPLE)
    equal(all_[-1], "session.status_idle", "nothing follows the last idle")


@test(model=True)
def sessions_69_refusals(w):
    _, events = w.turn(message("[[say I had rather not.]] [[refuse]]"), reason="refusal")
    equal(events[-1]["stop_details"], {"type": "refusal", "category": "cyber", "explanation": "declined by the mock"})
    equal(events[-3]["stop_reason"], {"type": "refusal"})


@test(model=True)
def sessions_71_transient_failures(w):
    for how in ("[[error 529 x1]]", "[[error 500 x1]]", "[[error 429 x1 retry-ms 30]]", "[[error stream overloaded_error x1]]", "[[cut x1]]"):
        s, events = w.turn(message(how + " [[say Back.]]"))
        equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "session.error",
                                      "session.thread_status_rescheduled", "session.status_rescheduled"] + BEGIN +
              ["span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE, how)
        equal(events[4]["is_error"], True)
        equal(events[5]["error"]["retry_status"], {"type": "retrying"})
        equal(said(events), ["Back."])


@test(model=True)
def sessions_71_the_status_while_waiting(w):
    s = w.session()
    w.send(s, message("[[error 529 x1 retry-ms 90]] [[say x]]"))
    seen = set()
    end = time.monotonic() + 10
    while "idle" not in seen and time.monotonic() < end:
        status = w.ok("GET", f"/v1/sessions/{s['id']}")["status"]
        if status == "idle" and not w.events(s):
            continue
        seen.add(status)
    true(seen <= {"running", "rescheduling", "idle"}, seen)


@test(model=True)
def sessions_72_exhausted_retries(w):
    s, events = w.turn(message("[[error 529]] never"), reason="retries_exhausted")
    errors = [e["error"]["retry_status"]["type"] for e in events if e["type"] == "session.error"]
    equal(errors, ["retrying"] * (len(errors) - 1) + ["exhausted"])
    true(len(errors) == 4, f"3 retries: {errors}")
    equal(events[-1]["stop_reason"], {"type": "retries_exhausted"})
    equal(types(events)[-4:], ["session.error"] + TRIPLE)
    _, after = w.turn(message("[[say works again]]"), session=s)
    equal(said(after), ["works again"])


@test(model=True)
def sessions_72_what_waits_is_flushed_with_the_turn(w):
    """A message that is sent while the last request fails is gone with it."""
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[error stream overloaded_error]] [[say one two three four five six seven]] [[slow 60 ms]]"))
        feed.until(lambda all_: sum(e["type"] == "span.model_request_start" for e in all_) == 4, "the last request")
        w.send(s, message("[[say too late]]"))
        events = feed.idle()
    equal(events[-1]["stop_reason"], {"type": "retries_exhausted"})
    time.sleep(0.1)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")
    true("too late" not in said(w.events(s)), "flushed")


@test(model=True)
def blank_messages_do_not_poison_a_session(w):
    for blank in ("", " \n\t"):
        s, _ = w.turn({"type": "user.message", "content": text("[[say a]]") + text(blank)})
        _, events = w.turn(message("[[say b]]"), session=s)
        equal(said(events), ["b"])
    s, _, (use,) = asked(w)
    go_on(w, s, answer(use, "  "))
    _, events = w.turn(message("[[say c]]"), session=s)
    equal(said(events), ["c"])


@test(model=True)
def failures_that_no_retry_helps(w):
    for how, kind in (("[[error 400]]", "model_request_failed_error"), ("[[error 402]]", "billing_error"), ("[[error 404]]", "model_request_failed_error")):
        _, events = w.turn(message(how), reason="retries_exhausted")
        e = last(events, "session.error")["error"]
        equal((e["type"], e["retry_status"]), (kind, {"type": "exhausted"}), how)
        equal(sum(x["type"] == "span.model_request_start" for x in events), 1, how)


@test(model=True)
def sessions_77_asking(w):
    s, events, (use,) = asked(w, '[[tool bash {"command":"echo ran"}]] ;; [[say {result}]]', "agent.tool_use")
    e = last(events, "agent.tool_use")
    equal((e["name"], e["input"], e["evaluated_permission"], e["evaluation"]), ("bash", {"command": "echo ran"}, "ask", {"type": "always_ask"}))
    true(e.get("session_thread_id") is None, e)
    equal(events[-1]["stop_reason"], {"type": "requires_action", "event_ids": [use]})
    time.sleep(0.1)
    equal(types(w.events(s))[-1], "session.status_idle", "nothing runs until it is confirmed")
    rest = go_on(w, s, confirm(use))
    equal(types(rest), BEGIN + ["user.tool_confirmation", "agent.tool_result", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)


@test(model=True)
def sessions_78_two_asks(w):
    s, _, (one, two) = asked(w, '[[tools bash {"command":"true"} | bash {"command":"false"}]] ;; [[say {result}]]', "agent.tool_use")
    part = go_on(w, s, confirm(one), reason="requires_action")
    true("agent.tool_result" not in types(part), types(part))
    equal(types(part)[-3:], TRIPLE)
    equal(part[-1]["stop_reason"]["event_ids"], [two])
    rest = go_on(w, s, confirm(two, "deny", deny_message="not that one"))
    equal([e["tool_use_id"] for e in rest if e["type"] == "agent.tool_result"], [one, two], "in the order of the calls")
    true("not that one" in said(rest)[0], said(rest))


@test(model=True)
def sessions_79_denials(w):
    s, _, (use,) = asked(w, '[[tool bash {"command":"touch /tmp/never"}]] ;; [[say {result}]]', "agent.tool_use")
    rest = go_on(w, s, confirm(use, "deny", deny_message="Use staging."))
    r = last(rest, "agent.tool_result")
    equal((r["tool_use_id"], r["is_error"]), (use, True))
    true("Use staging." in r["content"][0]["text"], r)
    true("Use staging." in said(rest)[0], "the model reads it")
    equal(last(rest, "user.tool_confirmation")["deny_message"], "Use staging.")


@test(model=True)
def sessions_80_disabled_and_unknown_tools(w):
    s, events = w.turn(message('[[tool write {"file_path":"a","content":"b"}]] ;; [[say {result}]]'))
    e = last(events, "agent.tool_use")
    equal((e["evaluated_permission"], "evaluation" in e), ("deny", False))
    r = last(events, "agent.tool_result")
    equal((r["tool_use_id"], r["is_error"]), (e["id"], True))
    refused(w, s, confirm(e["id"]))
    _, events = w.turn(message('[[tool no_such_tool {"a":1}]] ;; [[say {result}]]'))
    true(last(events, "agent.message"), "the turn goes on")
    equal(events[-1]["stop_reason"], {"type": "end_turn"})


@test(model=True)
def sessions_81_custom_calls_have_no_permission(w):
    _, events, _ = asked(w)
    e = last(events, "agent.custom_tool_use")
    equal(set(e) - {"session_thread_id"}, {"type", "id", "name", "input", "processed_at"})


@test(model=True)
def broken_tool_input_is_an_error_for_the_model(w):
    s = w.session()
    w.send(s, message("[[badtool lookup]] ;; [[say over]]"))
    wait(lambda: w.events(s) and types(w.events(s))[-1] == "session.status_idle", "idle")
    true(w.get("/health").json["status"] == "ok", "alive")


@test(model=True)
def sessions_83_interrupting_a_model_request(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.message") as feed:
        w.send(s, message("[[long 3000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "event_delta" in types(all_), "text to come")
        (sent,) = w.send(s, {"type": "user.interrupt"})
        equal(sent["processed_at"], None)
        events = [e for e in feed.idle() if not e["type"].startswith("event_")]
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"] + TRIPLE)
    equal((events[4]["is_error"], events[5]["id"], events[8]["stop_reason"]), (True, sent["id"], {"type": "end_turn"}))
    true(events[5]["processed_at"], events[5])
    wait(lambda: w.mock.get("/count")["live"] == 0, "the model's stream to be cut")


@test(model=True)
def sessions_84_interrupt_and_redirect(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[long 3000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a request")
        sent = w.send(s, {"type": "user.interrupt"}, message("[[say Just 3 lines.]]"))
        events = feed.idle(2)
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "user.interrupt"] + TRIPLE +
          BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal([events[5]["id"], events[11]["id"]], [e["id"] for e in sent])
    equal(said(events), ["Just 3 lines."])


@test(model=True)
def sessions_85_interrupting_a_blocked_session(w):
    for prompt, kind in (('[[tools lookup {"q":"a"} | lookup {"q":"b"}]]', "agent.custom_tool_use"), ('[[tool bash {"command":"true"}]]', "agent.tool_use")):
        s, _, uses = asked(w, prompt, kind)
        n = w.mock.count()
        rest = go_on(w, s, {"type": "user.interrupt"})
        equal(sorted(e.get("tool_use_id") or e.get("custom_tool_use_id") for e in rest if e.get("is_error")), sorted(uses))
        equal(types(rest)[-3:], TRIPLE)
        true("session.status_running" not in types(rest), types(rest))
        equal(w.mock.count(), n, "the model is not asked")
        _, after = w.turn(message("[[say on we go]]"), session=s)
        equal(said(after), ["on we go"])


@test(model=True)
def sessions_86_interrupting_an_idle_session(w):
    s, events = w.turn(message("[[say x]]"))
    w.send(s, {"type": "user.interrupt"})
    time.sleep(0.1)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")
    true([t for t in types(w.events(s))[len(events):] if t != "user.interrupt"] == [], types(w.events(s)))


@test(model=True)
def interrupting_while_a_retry_waits(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[error 529 retry 5]] x"))
        feed.until(lambda all_: "session.status_rescheduled" in types(all_), "a retry")
        w.send(s, {"type": "user.interrupt"})
        events = feed.idle()
    equal(events[-1]["stop_reason"], {"type": "end_turn"})
    true("user.interrupt" in types(events), types(events))


@test(model=True)
def platform_19_event_lists_page(w):
    s, events = w.turn(message("[[say x]]"))
    for limit in (1, 2, 4, 9, 1000):
        equal(w.events(s, f"?limit={limit}"), events, f"limit={limit}")
        equal(w.events(s, f"?limit={limit}&order=desc"), events[::-1], f"limit={limit} desc")
    j = w.ok("GET", f"/v1/sessions/{s['id']}/events?limit=9")
    equal(set(j), {"data", "next_page"})
    for q in ("limit=0", "limit=1001", "limit=x", "page=x", "order=up", "types[]=no.such_type", "created_at[gt]=x"):
        w.refused(400, "GET", f"/v1/sessions/{s['id']}/events?{q}")
    cursor = w.ok("GET", f"/v1/sessions/{s['id']}/events?limit=2")["next_page"]
    w.refused(400, "GET", f"/v1/sessions/{s['id']}/events?order=desc&page={cursor}")
    wanted = ["user.message", "agent.message", "session.usage"]
    for q in ("types[]=" + "&types[]=".join(wanted), "types%5B%5D=" + "&types%5B%5D=".join(wanted), "types=" + "&types=".join(wanted)):
        equal(types(w.events(s, "?" + q)), wanted)
        equal(types(w.events(s, "?limit=1&" + q)), wanted)


@test(model=True)
def platform_23_created_at_edges_of_events(w):
    s, events = w.turn(message("[[say x]]"))
    at = events[4]["processed_at"]
    for op, want in (("gt", events[5:]), ("gte", events[4:]), ("lt", events[:4]), ("lte", events[:5])):
        equal(w.events(s, f"?created_at[{op}]={at}"), want, op)
        equal(w.events(s, f"?created_at[{op}]={at}&order=desc&limit=3"), want[::-1], op)
    equal(w.events(s, f"?created_at[gte]={at}&created_at[lte]={at}"), [events[4]])


@test(model=True)
def usage_adds_up(w):
    s = w.session()
    for i in range(1, 4):
        _, events = w.turn(message(f"[[say x]] [[usage in={i} out={10 * i} read={100 * i} write={1000 * i}]]"), session=s)
    u = last(events, "session.usage")["usage"]
    equal((u["input_tokens"], u["output_tokens"], u["cache_read_input_tokens"]), (6, 60, 600))
    equal(sum(u["cache_creation"].values()), 6000)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["usage"]["output_tokens"], 60)
    end = last(events, "span.model_request_end")["model_usage"]
    equal((end["input_tokens"], end["output_tokens"], end["cache_read_input_tokens"], end["cache_creation_input_tokens"]), (3, 30, 300, 3000))


@test(model=True)
def sessions_75_huge_outputs_are_cut(w):
    a = w.new_agent(tools=[{"type": "agent_toolset_20260401"}])
    _, events = w.turn(message('[[tool bash {"command":"head -c 90000 /dev/zero | tr \'\\\\0\' x; seq 1 3"}]] ;; [[say done]]'), session=w.session(agent=a["id"]))
    r = last(events, "agent.tool_result")
    true(len(r["content"][0]["text"]) <= 110000, len(r["content"][0]["text"]))


@test(model=True)
def many_turns_at_once(w):
    errors = []

    def one(i):
        try:
            _, events = w.turn(message(f"[[say answer {i}]]"))
            equal(said(events), [f"answer {i}"])
        except Exception as e:  # told by the main thread
            errors.append(e)
    ts = [threading.Thread(target=one, args=(i,)) for i in range(40)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    true(not errors, errors[:1])


@test(model=True)
def the_same_answer_from_many_clients(w):
    """Exactly one of them is taken."""
    for _ in range(5):
        s, _, (use,) = asked(w)
        got = []
        ts = [threading.Thread(target=lambda i=i: got.append(w.post(f"/v1/sessions/{s['id']}/events", {"events": [answer(use, str(i))]}).status)) for i in range(6)]
        for t in ts:
            t.start()
        for t in ts:
            t.join()
        equal(sorted(got), [200] + [400] * 5)
        wait(lambda: types(w.events(s))[-1] == "session.status_idle" and w.events(s)[-1]["stop_reason"]["type"] == "end_turn", "the end")
        equal(sum(e["type"] == "user.custom_tool_result" for e in w.events(s)), 1)
