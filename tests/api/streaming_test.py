"""Items 51 to 64 of the session checklist: the event stream and its previews (API: sessions §7). What the official
client makes of it (55, 62) is in tests/sdk/ts/items_test.mjs as well."""
import json
import random
import re

from kit import BEGIN, NOBODY, TRIPLE, equal, last, message, said, test, true, types, wait
from stage import at_gate, custom, fresh, gate, lead, own, rules, spawn, calls, status, thread, thread_events, thread_stream, until_idle

OLD_NAMES = re.compile(r"user\.|system\.message$|agent\.|session\.(?!usage$)|span\.|event_start$|event_delta$")
DELTAS = "?event_deltas[]=agent.message"
BOTH = DELTAS + "&event_deltas[]=agent.thinking"


def kinds(events, prefix="event_"):
    return [e for e in events if e["type"].startswith(prefix)]


def previews_hold(events):
    """What the official accumulator demands: a start before its deltas and once, indices without gaps, the whole
    event last, its text beginning with what came before. Returns the ids that were begun."""
    texts, over = {}, set()
    for e in events:
        if e["type"] == "event_start":
            true(e["event"]["id"] not in texts, "begun twice")
            texts[e["event"]["id"]] = []
        elif e["type"] == "event_delta":
            true(e["event_id"] in texts and e["event_id"] not in over, f"a delta without its start: {e}")
            parts, i = texts[e["event_id"]], e["delta"].get("index", 0)
            true(i <= len(parts), f"a gap before index {i}")
            if i == len(parts):
                parts.append("")
            parts[i] += e["delta"]["content"]["text"]
        elif e.get("id") in texts:
            over.add(e["id"])
            for i, part in enumerate(texts[e["id"]]):
                true(e["content"][i]["text"].startswith(part), f"{part!r} is no beginning of {e['content'][i]}")
    return list(texts)


@test(model=True)
def t_051_headers_come_before_any_event(w):
    s = w.session()
    with w.stream(s) as feed:  # returns when the headers are here, and nothing has been sent
        equal((feed.status, feed.frames), (200, []))
        equal(feed.headers["content-type"].split(";")[0], "text/event-stream")
        equal(feed.headers["cache-control"], "no-cache")
        w.send(s, message("[[say x]]"))
        until_idle(feed)
        equal(feed.events, w.events(s), "everything is seen")


@test(model=True)
def t_052_frames(w):
    s = w.session()
    with w.stream(s, BOTH) as feed:
        w.send(s, message('[[think]] [[say a "line"\\nand more]] [[tool lookup {"q":"x"}]]'))
        until_idle(feed, "requires_action")
        for f in feed.frames:
            if f.get("event") == "ping":
                continue
            data = json.loads(f["data"])
            # Old clients know no session.usage by name and pass "message" for every type.
            equal(f["event"], data["type"] if OLD_NAMES.match(data["type"]) else "message")
            true(re.fullmatch(r"event: [a-z_.]+\n(id: \d+\n)?data: \{.*\}\n\n", f["text"]), f["text"])


@test(model=True)
def t_053_a_new_connection_gets_no_past(w):
    s, _ = w.turn(message("[[say x]]"))
    with w.stream(s) as feed:
        w.send(s, message("[[say y]]"))
        equal(types(until_idle(feed)), BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
        equal(said(feed.events), ["y"])


@test(model=True)
def t_054_stream_and_list_make_one_log(w):
    """Open the stream, list, go on with the stream, skip what is known: over connections that are cut anywhere."""
    rng = random.Random(54)
    s = w.session()
    seen = {}
    order = []

    def take(events):
        for e in events:
            if e.get("processed_at") and e["id"] not in seen:
                seen[e["id"]] = e
                order.append(e["id"])
    for i in range(12):
        with w.stream(s) as feed:
            take(w.events(s))
            w.send(s, message(f"[[say {'word ' * 20}{i}]] [[slow 3 ms]]"))
            n = rng.randrange(12)
            feed.until(lambda all_: len(all_) >= n or types(all_)[-1:] == ["session.status_idle"], "some events", 60)
            take(list(feed.events))
    wait(lambda: status(w, s) == "idle", "idle", 60)
    everything = w.events(s)
    take(everything)
    equal(sorted(order), sorted(e["id"] for e in everything), "every event exactly once")
    equal([seen[e["id"]] for e in everything], everything, "and the same in both")
    equal(order, [e["id"] for e in everything], "in order")


@test(local=True)
def t_055_keep_alive_frames_are_no_events(w):
    with own(w, "api = { ping_ms = 50 }") as v:
        s = v.session()
        with v.stream(s) as feed:
            wait(lambda: len(feed.frames) >= 5, "five of them", 60)
            for f in feed.frames:
                true(f["text"].startswith(":") or f["text"] == 'event: ping\ndata: {"type":"ping"}\n\n', f["text"])
            v.ok("POST", f"/v1/sessions/{s['id']}", {"title": "still there"})
            equal(types(feed.until(lambda all_: all_, "the event")), ["session.updated"])


@test(model=True)
def t_056_a_stream_outlives_idle_times(w):
    s = w.session()
    with w.stream(s) as feed:
        for i in range(4):
            w.send(s, message(f"[[say {i}]]"))
            until_idle(feed, n=i + 1)
            true(not feed.ended, "open after the idle")
        equal(said(feed.events), ["0", "1", "2", "3"])
        equal(feed.events, w.events(s))


@test
def t_057_event_deltas(w):
    s = w.session()
    many = "&".join(["event_deltas[]=agent.message"] * 101)
    for q in ("event_deltas[]=foo", "event_deltas[]=agent.message&event_deltas[]=agent.tool_use", "event_deltas[]=", many, "event_deltas=foo"):
        for path in (None, f"/v1/sessions/{s['id']}/threads/{w.all('/v1/sessions/' + s['id'] + '/threads')[0]['id']}/stream"):
            with w.stream(s, "?" + q, path=path) as feed:
                equal(feed.status, 400, q[:60])
                true("event_deltas" in feed.reply.error["message"], feed.reply.error)
    with w.stream(s, "?" + "&".join(["event_deltas[]=agent.message"] * 100)) as feed:
        equal(feed.status, 200, "a hundred")


@test(model=True)
def t_058_previews(w):
    s = w.session()
    with w.stream(s, DELTAS) as feed:
        w.send(s, message("[[say The quick brown fox — über den Zaun 🦊 and on.]] [[slow 3 ms]]"))
        events = until_idle(feed)
    starts, deltas, whole = kinds(events, "event_start"), kinds(events, "event_delta"), last(events, "agent.message")
    equal([e["event"] for e in starts], [{"type": "agent.message", "id": whole["id"]}])
    true(len(deltas) >= 2, "in pieces")
    for e in deltas:
        equal((set(e), e["event_id"], e["delta"]["type"], e["delta"].get("index", 0), e["delta"]["content"]["type"]),
              ({"type", "event_id", "delta"}, whole["id"], "content_delta", 0, "text"))
    equal(previews_hold(events), [whole["id"]])
    order = types(events)
    true(order.index("span.model_request_start") < order.index("event_start") < order.index("event_delta") < order.index("agent.message")
         < order.index("span.model_request_end"), order)


@test(model=True)
def t_059_previews_only_where_asked_for(w):
    s = w.session()
    with w.stream(s) as plain, w.stream(s, DELTAS) as texts:
        w.send(s, message("[[think]] [[say thought]] [[slow 2 ms]]"))
        until_idle(plain)
        until_idle(texts)
        equal(kinds(plain.events), [])
        equal({e["event"]["type"] for e in kinds(texts.events, "event_start")}, {"agent.message"})
        equal([e for e in texts.events if not e["type"].startswith("event_")], plain.events)
    for path in (f"/v1/sessions/{s['id']}/events", f"/v1/sessions/{s['id']}/threads/{w.all('/v1/sessions/' + s['id'] + '/threads')[0]['id']}/events"):
        equal(kinds(w.all(path)), [], "in no list")


@test(model=True)
def t_060_thinking_is_begun_and_no_more(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.thinking") as feed:
        w.send(s, message("[[think A secret thought.]] [[say thought]] [[slow 2 ms]]"))
        events = until_idle(feed)
    whole = last(events, "agent.thinking")
    equal(kinds(events), [{"type": "event_start", "event": {"type": "agent.thinking", "id": whole["id"]}}])
    equal(set(whole), {"type", "id", "processed_at"}, "no content")
    true("secret" not in json.dumps([e for e in events if e["type"] != "user.message"]), "what was thought is not shown")


@test(model=True)
def t_061_a_late_reader_gets_no_part_of_a_preview(w):
    s = w.session()
    with w.stream(s, BOTH) as early:
        w.send(s, message("[[think]] [[long 300]] [[slow 10 ms]]"))
        early.until(lambda all_: "event_delta" in types(all_), "a delta")
        with w.stream(s, BOTH) as late:
            until_idle(early)
            until_idle(late)
            equal(kinds(late.events), [])
            equal(last(late.events, "agent.message"), last(early.events, "agent.message"))
            w.send(s, message("[[say the next one]]"))
            until_idle(late, n=2)
            true(kinds(late.events), "the next request is shown in full")
            previews_hold(late.events)


@test(model=True)
def t_062_previews_can_be_accumulated(w):
    s = w.session(agent=w.new_agent(tools=[custom()])["id"])
    n = 0
    with w.stream(s, BOTH) as feed:
        for prompt in ("[[think]] [[say one]] [[say two]] [[slow 2 ms]]", "[[say one]] [[think]] [[tools lookup {} | lookup {}]]", "[[long 2000]]",
                       "[[error stream overloaded_error x1]] [[say a b c d e f g h]] [[slow 2 ms]]", "[[cut x1]] [[say a b c d e f g h]]"):
            n += 1
            w.send(s, message(prompt))
            events = feed.until(lambda all_: types(all_).count("session.status_idle") >= n, "idle", 60)
            if events[-1]["stop_reason"]["type"] == "requires_action":
                n += 1
                w.send(s, *[{"type": "user.custom_tool_result", "custom_tool_use_id": i} for i in events[-1]["stop_reason"]["event_ids"]])
                events = feed.until(lambda all_: types(all_).count("session.status_idle") >= n and all_[-1]["stop_reason"]["type"] == "end_turn", "the end", 60)
    true(len(previews_hold(events)) >= 7, "several were begun")
    listed = {e["id"] for e in w.events(s)}
    ended = [i for i in previews_hold(events) if i in listed]
    equal(sorted(ended), sorted(e["id"] for e in w.events(s) if e["type"] in ("agent.message", "agent.thinking")), "each whole event had its start")


@test
def t_063_paths_of_streams(w):
    s = w.session()
    t = w.all(f"/v1/sessions/{s['id']}/threads")[0]["id"]
    with w.stream(s, path=f"/v1/sessions/{s['id']}/threads/{t}/stream") as feed:
        equal(feed.status, 200)
    for path in (f"/v1/sessions/{s['id']}/threads/{t}/events/stream", f"/v1/sessions/sesn_{NOBODY}/events/stream",
                 f"/v1/sessions/{s['id']}/threads/sthr_{NOBODY}/stream", f"/v1/sessions/{s['id']}/stream"):
        with w.stream(s, path=path) as feed:
            equal((feed.status, feed.reply.error["type"]), (404, "not_found_error"), path)


@test(model=True)
def t_064_a_childs_text_is_previewed_to_its_own_readers(w):
    child, start, talk = fresh("child"), fresh(), fresh()
    speaks = f"[[gate {start}]] [[tool no_such_tool {{}}]] ;; [[gate {talk}]] [[say The child speaks.]] [[tool no_such_tool {{}}]] ;; [[say The report.]]"
    s = lead(w, w.new_agent(name=child, system=rules(("Begin", speaks))),
             system=rules(("report", "[[say The lead heard.]]"), ("^Go", calls(spawn(child, "Begin")) + " ;; [[say The lead waits.]]")))
    begun = lambda feed: [e["event"]["id"] for e in kinds(feed.events, "event_start")]
    shown = lambda feed: "".join(e["delta"]["content"]["text"] for e in kinds(feed.events, "event_delta"))
    with w.stream(s, BOTH) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: "The lead waits." in said(all_), "the lead", 60)
        at_gate(w, start)
        t = thread(w, s, child)
        with thread_stream(w, s, t, BOTH) as own_:
            equal(own_.status, 200)
            gate(w, start)
            at_gate(w, talk)  # of the second request, which this reader saw begin
            with thread_stream(w, s, t, BOTH) as late:
                gate(w, talk)
                until_idle(feed)
                for f in own_, late:
                    f.until(lambda all_: "session.thread_status_idle" in types(all_), "the child's end", 60)
            equal(shown(feed), "The lead waits.The lead heard.")
            whole = next(e for e in thread_events(w, s, t) if e["type"] == "agent.message")
            equal(whole["content"][0]["text"], "The child speaks.")
            true(whole["id"] in begun(own_) and "The child speaks." in shown(own_), types(own_.events))
            true(whole["id"] not in begun(late) and "child speaks" not in shown(late), "nothing of a request that was under way")
            true(whole["id"] in {e.get("id") for e in late.events}, "but the whole message")
            for f in feed, own_, late:
                previews_hold(f.events)
