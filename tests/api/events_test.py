"""What clients send and what comes of it: turns, tools, permissions, interrupts, failures (API: sessions, sending
events, the agent loop, permission flow)."""
import threading

from kit import BEGIN, NOBODY, TRIPLE, equal, last, message, said, test, text, true, types, wait
from stage import answer, asked, confirm, go_on, refused

@test
def blocks_that_cannot_be(w):
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
def results_of_all_kinds(w):
    found = {"type": "search_result", "source": "https://e.com", "title": "t", "content": text("c"), "citations": {"enabled": False}}
    for result, want in (({"content": text("4 C")}, "4 C"), ({"content": text("bad"), "is_error": True}, "bad"), ({"content": []}, ""),
                         ({}, ""), ({"content": [found]}, ""), ({"content": text("a") + text("b")}, "a\nb")):
        s, _, (use,) = asked(w, '[[tool lookup {"q":"x"}]] ;; [[say <{result}>]]')
        events = go_on(w, s, dict({"type": "user.custom_tool_result", "custom_tool_use_id": use}, **result))
        equal(said(events), [f"<{want}>"], str(result))
        equal(types(events), ["user.custom_tool_result", *BEGIN, "span.model_request_start", "agent.message", "span.model_request_end", *TRIPLE])


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
def broken_tool_input_is_an_error_for_the_model(w):
    s = w.session()
    w.send(s, message("[[badtool lookup]] ;; [[say over]]"))
    wait(lambda: w.events(s) and types(w.events(s))[-1] == "session.status_idle", "idle")
    true(w.get("/health").json["status"] == "ok", "alive")


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
