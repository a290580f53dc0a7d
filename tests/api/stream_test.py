"""Event streams: framing, opening, previews, pings, catching up (API: sessions, SSE stream; platform, SSE)."""
import json
import os
import re
import resource
import socket
import threading
import time

from kit import (KEY, NOBODY, TRIPLE, UPSTREAM_KEY, Server, Stream, World, equal, last, message, test, true, types, wait)

OLD_NAMES = re.compile(r"user\.|system\.message$|agent\.|session\.(?!usage$)|span\.|event_start$|event_delta$")


@test
def platform_25_headers_come_before_any_event(w):
    s = w.session()
    with w.stream(s) as feed:
        equal(feed.status, 200)
        true(feed.head_after < 2, f"headers after {feed.head_after:.3f} s")
        equal(feed.frames, [])
        equal(feed.headers["content-type"].split(";")[0], "text/event-stream")
        equal(feed.headers["cache-control"], "no-cache")
        true(feed.headers["request-id"].startswith("req_"), feed.headers)
        true("content-length" not in feed.headers, feed.headers)
        true("content-encoding" not in feed.headers, feed.headers)


@test(model=True)
def platform_26_each_frame_has_its_name(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.message") as feed:
        w.send(s, message('[[say a]] [[tool lookup {"q":"x"}]]'))
        feed.idle()
        ids = []
        for f in feed.frames:
            if f.get("event") == "ping":
                continue
            data = json.loads(f["data"])
            equal(f["event"], data["type"] if OLD_NAMES.match(data["type"]) else "message")
            true("\n" not in f["data"], f)
            true(re.fullmatch(r"event: [a-z_.]+\n(id: \d+\n)?data: \{.*\}\n\n", f["text"]), f["text"])
            true(("id" in f) == (not data["type"].startswith("event_")), f["text"])
            if "id" in f:
                ids.append(int(f["id"]))
        equal(ids, sorted(set(ids)), "positions grow")
        equal([f["event"] for f in feed.frames if "session.usage" in f["text"]], ["message"])


@test
def platform_27_accept_is_not_negotiated(w):
    for accept in ("application/json", "text/event-stream", "*/*", "image/png", None):
        with w.stream(w.session(), headers={"accept": accept}) as feed:
            equal((feed.status, feed.headers["content-type"].split(";")[0]), (200, "text/event-stream"), str(accept))


@test(local=True)
def platform_28_pings_keep_a_silent_stream_alive(w):
    server = Server(env={"MOONRIG_API_KEY": KEY}, config="{ api = { ping_ms = 50 } }")
    try:
        v = World(server.url)
        a, e = v.new_agent(model="gpt-x"), v.new_environment()
        made = v.post("/v1/sessions", {"agent": a["id"], "environment_id": e["id"]})
        if made.status != 200:  # no provider for the model is configured here
            server.stop()
            server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY}, config="{ api = { ping_ms = 50 } }")
            v = World(server.url)
            made = v.post("/v1/sessions", {"agent": v.new_agent()["id"], "environment_id": v.new_environment()["id"]})
        with v.stream(made.json) as feed:
            wait(lambda: len(feed.frames) >= 5, "five pings")
            for f in feed.frames:
                true(f["text"].startswith(":") or f["text"] == 'event: ping\ndata: {"type":"ping"}\n\n', f["text"])
            equal(feed.events, [])
            v.ok("POST", f"/v1/sessions/{made.json['id']}", {"title": "still there"})
            feed.until(lambda all_: types(all_) == ["session.updated"], "the event")
    finally:
        equal(server.stop(), 0)


@test(model=True)
def platform_30_last_event_id(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[say one]]"))
        feed.idle()
        frames = [f for f in feed.frames if "id" in f]
    events = [json.loads(f["data"]) for f in frames]
    equal(w.events(s), events)
    for i in (0, 3, len(frames) - 1):
        before = len(w.events(s))
        with w.stream(s, headers={"last-event-id": frames[i]["id"]}) as again:
            w.send(s, message("[[say more]]"))
            again.until(lambda all_: len(all_) >= before - i - 1 + len(events), "what was missed and one more turn")
            equal(again.events, w.events(s)[i + 1:], "no gap, nothing twice")
    for query, headers in (("?after=0", {}), ("", {"last-event-id": "0"}), ("?after=" + frames[2]["id"], {"last-event-id": "0"})):
        with w.stream(s, query, headers=headers) as whole:
            n = len(w.events(s))
            whole.until(lambda all_: len(all_) >= n, "everything: 0 is before the first, and the header counts")
            equal(whole.events, w.events(s))
    with w.stream(s, "?after=", headers={"last-event-id": ""}) as feed:
        equal(feed.status, 400, "an empty parameter is none of ours")
    with w.stream(s, headers={"last-event-id": ""}) as feed:
        equal(feed.status, 200, "an empty header is as none")


@test(model=True)
def platform_30_after_an_event(w):
    s, events = w.turn(message("[[say one]]"))
    for query, headers in (("?after=" + events[3]["id"], {}), ("", {"last-event-id": events[3]["id"]})):
        with w.stream(s, query, headers=headers) as feed:
            before = sum(e["type"] == "session.status_idle" for e in w.events(s))
            w.send(s, message("[[say more]]"))
            feed.idle(before + 1)
            equal(feed.events, w.events(s)[4:])


@test(model=True)
def platform_30_bad_positions_are_named(w):
    s, events = w.turn(message("[[say one]]"))
    other = w.turn(message("[[say two]]"))[1][0]["id"]
    for bad in ("x", "-1", "9" * 30, "1.5", "1" * 15, "sevt_" + NOBODY, "sevt_", "sevt_" + "x" * 200, "y" * 3000, other, "1&limit=1"):
        with w.stream(s, headers={"last-event-id": bad}) as feed:
            equal((feed.status, feed.reply.error["type"]), (400, "invalid_request_error"), bad)
            true(feed.reply.error["message"].startswith("last-event-id: "), feed.reply.error)
            equal(feed.reply.json["error"]["details"]["field"], "last-event-id")
        if bad != "1&limit=1":
            with w.stream(s, "?after=" + bad) as feed:
                equal(feed.status, 400, bad)
                true(feed.reply.error["message"].startswith("after: "), feed.reply.error)
    t = w.all(f"/v1/sessions/{s['id']}/threads")[0]["id"]
    path = f"/v1/sessions/{s['id']}/threads/{t}/stream"
    with w.stream(s, path=path, headers={"last-event-id": "x"}) as feed:
        equal(feed.status, 400)
    with w.stream(s, path=path, query="?after=" + events[4]["id"]) as feed:
        feed.until(lambda all_: len(all_) >= len(events) - 5, "the rest")
        equal(feed.events, events[5:])


@test(model=True)
def platform_30_the_last_events_of_a_session_can_be_had(w):
    """A reader that was away when the session ended gets the end, then the end of the stream, then a refusal."""
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[say one]]"))
        feed.idle()
        seen = [f for f in feed.frames if "id" in f]
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    events = w.events(s)
    with w.stream(s, headers={"last-event-id": seen[2]["id"]}) as feed:
        equal(feed.status, 200)
        equal(feed.end(), events[3:])
        true(feed.error is None, feed.error)
        final = [f for f in feed.frames if "id" in f][-1]["id"]
    equal(events[-1]["type"], "session.status_terminated")
    for headers in ({"last-event-id": final}, {}):
        with w.stream(s, headers=headers) as feed:
            equal(feed.status, 400)


@test(model=True)
def platform_30_a_long_past_is_replayed_as_fast_as_it_is_read(w):
    """More than may wait for a reader, and the reader is slow."""
    s = w.session()
    for _ in range(8):
        w.turn(*[message("x" * 100000) for _ in range(10)], session=s)
    events = w.events(s)
    true(sum(len(json.dumps(e)) for e in events) > 8 << 20, "more than the bound")
    with w.stream(s, "?after=0") as feed:
        feed.until(lambda all_: len(all_) >= len(events), "everything")
        equal(feed.events, events)
    sock = socket.create_connection((w.host, w.port), timeout=60)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"GET /v1/sessions/{s['id']}/events/stream?after=0 HTTP/1.1\r\nhost: x\r\n"
    sock.sendall((head + "".join(f"{k}: {v}\r\n" for k, v in w.headers(None).items()) + "\r\n").encode())
    w.send(s, message("[[say the last]]"))
    wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")
    got = b""
    while got.count(b"event: session.status_idle") < 9:
        piece = sock.recv(1 << 20)
        true(piece, f"cut after {len(got)} bytes")
        got += piece
    sock.close()
    equal(re.findall(rb'"id":"(sevt_\w+)"', got), [e["id"].encode() for e in w.events(s)])


@test(model=True)
def platform_30_reconnecting_loses_nothing(w):
    """Open stream, list, go on with the stream; cut it again and again."""
    s = w.session()
    seen = {}
    for i in range(6):
        w.send(s, message(f"[[say {'word ' * 20}{i}]] [[slow 3 ms]]"))
        with w.stream(s) as feed:
            for e in w.events(s):
                if e.get("processed_at"):
                    seen.setdefault(e["id"], e)
            time.sleep(0.02 * i)
            for e in list(feed.events):
                seen.setdefault(e["id"], e)
    wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "idle")
    everything = w.events(s)
    for e in everything:
        seen.setdefault(e["id"], e)
    equal([seen[e["id"]] for e in everything], everything)
    true(set(seen) == {e["id"] for e in everything}, "nothing was seen that is not in the list")


@test(model=True)
def platform_31_a_late_reader_gets_no_deltas(w):
    s = w.session()
    q = "?event_deltas[]=agent.message&event_deltas%5B%5D=agent.thinking"
    with w.stream(s, q) as early:
        w.send(s, message("[[long 200]] [[slow 5 ms]]"))
        early.until(lambda all_: "event_delta" in types(all_), "a delta")
        with w.stream(s, q) as late:
            early.idle()
            late.idle()
            true(not [t for t in types(late.events) if t.startswith("event_")], types(late.events))
            equal(last(late.events, "agent.message"), last(early.events, "agent.message"))


@test(model=True)
def two_streams_see_the_same(w):
    s = w.session()
    with w.stream(s) as one, w.stream(s) as two:
        for i in range(3):
            w.send(s, message(f"[[say {i}]]"))
        one.until(lambda all_: sum(e["type"] == "user.message" for e in all_) == 3 and types(all_)[-1] == "session.status_idle", "all")
        n = len(one.events)
        two.until(lambda all_: len(all_) >= n, "as many")
        equal(two.events, one.events)
    equal(w.events(s), one.events)


@test(model=True)
def previews_of_a_request_that_fails_are_dropped(w):
    s = w.session()
    with w.stream(s, "?event_deltas[]=agent.message") as feed:
        w.send(s, message("[[error stream overloaded_error x1]] [[say one two three four five six]] [[slow 2 ms]]"))
        events = feed.idle()
    starts = [e["event"]["id"] for e in events if e["type"] == "event_start"]
    equal(len(starts), 2)
    equal([e["id"] for e in events if e["type"] == "agent.message"], [starts[1]])
    true(starts[0] not in {e["id"] for e in w.events(s)}, "the first id is never used")


@test(model=True)
def thread_streams(w):
    s = w.session()
    t = w.all(f"/v1/sessions/{s['id']}/threads")[0]["id"]
    with w.stream(s, path=f"/v1/sessions/{s['id']}/threads/{t}/stream") as thread, w.stream(s) as feed:
        w.send(s, message("[[say x]]"))
        feed.idle()
        thread.until(lambda all_: "session.thread_status_idle" in types(all_), "the thread's idle")
        equal([e for e in thread.events if not e["type"].startswith(("session.status", "session.usage"))],
              [e for e in feed.events if not e["type"].startswith(("session.status", "session.usage"))])


@test(model=True)
def a_slow_reader_holds_nobody_up(w):
    s = w.session()
    sock = socket.create_connection((w.host, w.port))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head = f"GET /v1/sessions/{s['id']}/events/stream?event_deltas[]=agent.message HTTP/1.1\r\nhost: x\r\n"
    sock.sendall((head + "".join(f"{k}: {v}\r\n" for k, v in w.headers(None).items()) + "\r\n").encode())
    with w.stream(s) as feed:
        for i in range(3):
            w.send(s, message("[[long 20000]]"))
            events = feed.idle(i + 1)
    equal(w.events(s), events)
    sock.close()
    w.get("/health").json


@test(model=True)
def streams_end_when_the_server_stops(w):
    server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url})
    v = World(server.url)
    s = v.session()
    feed = v.stream(s)
    began = time.monotonic()
    equal(server.stop(), 0)
    feed.end()
    true(time.monotonic() - began < 10, "an idle server stops at once")
    equal(feed.events, [])
    true(feed.error is None, f"a proper end of the body: {feed.error}")


@test(local=True)
def platform_65_a_thousand_idle_streams(w):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    s = w.session()
    rss = lambda: [int(x.split()[1]) for x in open(f"/proc/{w.server.process.pid}/status") if x.startswith("VmRSS")][0]
    head = f"GET /v1/sessions/{s['id']}/events/stream HTTP/1.1\r\nhost: x\r\n"
    head = (head + "".join(f"{k}: {v}\r\n" for k, v in w.headers(None).items()) + "\r\n").encode()
    socks = []
    before = rss()
    try:
        for i in range(1000):
            socks.append(socket.create_connection((w.host, w.port), timeout=20))
            socks[-1].sendall(head)
        for c in socks:
            true(c.recv(65536).startswith(b"HTTP/1.1 200 "), "a stream")
        grown = rss() - before
        w.ok("POST", f"/v1/sessions/{s['id']}", {"title": "to all"})
        for c in socks:
            true(b"session.updated" in c.recv(65536), "the event")
    finally:
        for c in socks:
            c.close()
    limit = 64 * 1024 if "asan" in os.environ.get("MOONRIG_FLAVOR", "") else 12 * 1024
    true(grown < limit, f"{grown} KiB for 1,000 streams; the bound is {limit}")
    wait(lambda: re.search(r"^moonrig_streams_open 0$", w.get("/metrics").body.decode(), re.M), "all to be let go")


@test(model=True)
def many_streams_of_a_running_session(w):
    s = w.session()
    feeds = [Stream(w, f"/v1/sessions/{s['id']}/events/stream?event_deltas[]=agent.message") for _ in range(50)]
    w.send(s, message("[[long 500]]"))
    for f in feeds:
        f.idle()
        equal([e for e in f.events if not e["type"].startswith("event_")], [e for e in feeds[0].events if not e["type"].startswith("event_")])
    threads = [threading.Thread(target=f.close) for f in feeds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal(types(w.events(s))[-3:], TRIPLE)
