"""Several clients at the same thing, and much of everything."""
import random
import threading
import time

from kit import MODEL, BEGIN, equal, last, message, said, test, text, true, types, wait


def together(*fns):
    """Runs the functions at the same moment; what they return."""
    out, gate = [None] * len(fns), threading.Barrier(len(fns))

    def run(i, fn):
        gate.wait()
        try:
            out[i] = fn()
        except Exception as e:  # told by the main thread
            out[i] = e
    ts = [threading.Thread(target=run, args=(i, fn)) for i, fn in enumerate(fns)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    for x in out:
        if isinstance(x, Exception):
            raise x
    return out


@test
def one_of_many_updates_wins(w):
    for _ in range(5):
        a = w.new_agent()
        got = together(*[lambda i=i: w.post(f"/v1/agents/{a['id']}", {"version": 1, "description": f"by {i}"}) for i in range(8)])
        equal(sorted(r.status for r in got), [200] + [409] * 7)
        won = [r.json for r in got if r.status == 200][0]
        equal(w.ok("GET", f"/v1/agents/{a['id']}"), won)
        equal([v["version"] for v in w.all(f"/v1/agents/{a['id']}/versions")], [2, 1])


@test
def unconditional_updates_make_a_version_each(w):
    a = w.new_agent()
    got = together(*[lambda i=i: w.post(f"/v1/agents/{a['id']}", {"description": f"by {i}"}) for i in range(8)])
    fine = [r for r in got if r.status == 200]
    true(all(r.status in (200, 409) for r in got), [r.status for r in got])
    versions = w.all(f"/v1/agents/{a['id']}/versions")
    equal([v["version"] for v in versions], list(range(len(fine) + 1, 0, -1)))
    equal(sorted(r.json["version"] for r in fine), list(range(2, len(fine) + 2)))
    equal(len(fine), 8, "without a version nobody is refused")


@test
def no_session_of_an_agent_that_was_archived_first(w):
    for _ in range(8):
        a = w.new_agent()
        made, gone = together(lambda: w.post("/v1/sessions", {"agent": a["id"], "environment_id": w.environment["id"]}),
                              lambda: w.post(f"/v1/agents/{a['id']}/archive"))
        equal(gone.status, 200)
        true(made.status in (200, 400), made.status)
        w.refused(400, "POST", "/v1/sessions", {"agent": a["id"], "environment_id": w.environment["id"]})


@test(model=True)
def sending_and_deleting(w):
    for _ in range(8):
        s = w.session()
        sent, gone = together(lambda: w.post(f"/v1/sessions/{s['id']}/events", {"events": [message("[[say x]]")]}),
                              lambda: w.delete(f"/v1/sessions/{s['id']}"))
        true((sent.status, gone.status) in ((200, 400), (404, 200), (200, 200), (400, 200)), (sent.status, gone.status))
        if gone.status == 200:
            w.refused(404, "GET", f"/v1/sessions/{s['id']}")
        else:
            wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")


@test(model=True)
def sending_and_archiving(w):
    for _ in range(8):
        s = w.session()
        sent, gone = together(lambda: w.post(f"/v1/sessions/{s['id']}/events", {"events": [message("[[say x]]")]}),
                              lambda: w.post(f"/v1/sessions/{s['id']}/archive"))
        if gone.status == 200:
            time.sleep(0.05)
            true(types(w.events(s))[-1] == "session.status_terminated", f"{sent.status}: {types(w.events(s))}")
        else:
            equal((sent.status, gone.status), (200, 400))


@test(model=True)
def many_senders_to_one_session(w):
    s = w.session()
    with w.stream(s) as feed:
        got = together(*[lambda i=i: [w.send(s, message(f"message {i}.{k}"))[0]["id"] for k in range(5)] for i in range(8)])
        wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle" and
             sum(e["type"] == "user.message" and bool(e["processed_at"]) for e in w.events(s)) == 40, "all 40 to be taken", 60)
        events = w.events(s)
        feed.until(lambda all_: len(all_) >= len(events), "all")
        equal(feed.events, events)
    ids = [e["id"] for e in events if e["type"] == "user.message"]
    equal(sorted(ids), sorted(x for one in got for x in one), "each once")
    for one in got:
        equal([i for i in ids if i in one], one, "in the order of each sender")
    at = [e["processed_at"] for e in events]
    equal(at, sorted(set(at)), "times grow strictly")


@test(model=True)
def interrupts_and_messages_at_random(w):
    rng = random.Random(11)
    s = w.session()
    with w.stream(s) as feed:
        for i in range(25):
            w.post(f"/v1/sessions/{s['id']}/events", {"events": [rng.choice([{"type": "user.interrupt"}, message("[[long 60]] [[slow 2 ms]]"), message("[[say quick]]")])]})
            time.sleep(rng.random() * 0.05)
        w.send(s, message("[[say the end]]"))
        feed.until(lambda all_: "the end" in said(all_) and types(all_)[-1] == "session.status_idle", "the end")
        events = w.events(s)
        equal(feed.events, events)
    open_, ended = set(), set()
    for e in events:
        if e["type"] == "span.model_request_start":
            true(not open_, "one request at a time")
            open_.add(e["id"])
        if e["type"] == "span.model_request_end":
            open_.remove(e["model_request_start_id"])
            ended.add(e["model_request_start_id"])
    true(not open_, "every request has its end")
    running = False
    for a, b in zip(types(events), types(events)[1:]):
        if a == "session.status_running":
            true(not running and b == BEGIN[1], "once per turn")
            running = True
        if a == "session.status_idle":
            running = False
    equal(types(events)[-3:], ["session.thread_status_idle", "session.usage", "session.status_idle"])


@test(model=True)
def waiting_events_in_pages(w):
    """What waits is listed after the log (ascending), and nothing twice, whatever the page."""
    s = w.session()
    w.send(s, message("[[long 4000]] [[slow 5 ms]]"))
    wait(lambda: "span.model_request_start" in types(w.events(s)), "the model to be asked")
    waiting = [w.send(s, message(f"later {i}"))[0]["id"] for i in range(7)]
    all_ = w.events(s)
    equal([e["id"] for e in all_[-7:]], waiting)
    for limit in (1, 2, 3, 5, 20):
        equal(w.events(s, f"?limit={limit}"), all_, f"limit={limit}")
    equal([e["id"] for e in w.events(s, "?types[]=user.message")][1:], waiting)
    equal([e["id"] for e in w.events(s, "?types[]=user.message&limit=2")][1:], waiting)
    desc = [e["id"] for e in w.events(s, "?order=desc")]
    true(len(desc) == len(set(desc)), "nothing twice")
    w.send(s, {"type": "user.interrupt"})
    wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")


@test(model=True)
def long_logs_page(w):
    s = w.session()
    for _ in range(30):
        w.turn(*[message(f"[[say {'x' * 50}]]") for _ in range(10)], session=s)
    all_ = w.events(s, "?limit=1000")
    true(len(all_) > 400, len(all_))
    for limit in (1000, 250, 99, 7):
        equal(w.events(s, f"?limit={limit}"), all_, f"limit={limit}")
    equal(w.events(s, "?order=desc&limit=100"), all_[::-1])
    mid = all_[len(all_) // 2]["processed_at"]
    equal(w.events(s, f"?created_at[gte]={mid}&limit=50"), all_[len(all_) // 2:])
    equal(w.events(s), all_, "the default page")


@test(model=True)
def large_messages(w):
    big = "x" * (4 << 20)
    s, events = w.turn({"type": "user.message", "content": text("[[say got it]]") + text(big)})
    equal(said(events), ["got it"])
    equal(last(events, "user.message")["content"][1]["text"], big)
    equal(w.events(s), events)
    _, more = w.turn(message("[[long 200000]]"), session=s)
    true(len(said(more)[0]) > 1000000, len(said(more)[0]))
    equal(w.events(s), events + more)


@test
def text_of_all_kinds_survives(w):
    odd = ["\u0000"[:0] + "tab\tnewline\ncr\r", "\u2028\u2029", "\u202e rtl", "🧾👩‍👩‍👧", "\ufeffbom", "a\u0301", "\ud7ff\ue000", "\U0010ffff", "</script>", "\\u0041", "\x7f\x1f"]
    a = w.new_agent(description="|".join(odd), metadata={f"k{i}": x for i, x in enumerate(odd)})
    equal((a["description"], list(a["metadata"].values())), ("|".join(odd), odd))
    equal(w.ok("GET", f"/v1/agents/{a['id']}")["metadata"], a["metadata"])
    s = w.session(agent={"type": "agent", "id": a["id"]}, title=odd[3], metadata={odd[3]: odd[1]})
    equal((s["title"], s["metadata"]), (odd[3], {odd[3]: odd[1]}))
    equal(w.new_agent(model={"id": MODEL}, tools=[{"type": "custom", "name": "n", "description": "|".join(odd), "input_schema": {
        "type": "object", "properties": {"p": {"const": odd, "x": [1, 1.5, -0.0, 1e300, 123456789012345678, None, True]}}}}])
        ["tools"][0]["input_schema"]["properties"]["p"], {"const": odd, "x": [1, 1.5, -0.0, 1e300, 123456789012345678, None, True]})


@test
def nul_characters_are_refused_or_kept(w):
    r = w.post("/v1/agents", {"name": "a\u0000b", "model": MODEL})
    true(r.status == 400 or r.json["name"] == "a\u0000b", r.body)
    w.ok("GET", "/v1/agents?limit=1")
