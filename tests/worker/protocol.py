"""What the queue and the session see of a worker that nothing disturbs."""
import threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from workers import ENVIRONMENT, KEY, text, worker_test

ITEM = "/v1/environments/" + ENVIRONMENT + "/work"


@worker_test
def a_session_with_all_six_tools(q, work, tmp):
    s = q.session()
    w = work("--idle", "1")
    item = q.enqueue(s)
    calls = [q.use(s, "bash", command="export X=7; cd /tmp; echo one; echo two >&2"),
             q.use(s, "write", file_path="/workspace/a.txt", content="alpha\nbeta\n"),
             q.use(s, "bash", command="true")]
    q.idle(s, *calls)
    w.until("the first results", lambda: len(q.results(s)) == 3)
    calls += [q.use(s, "bash", command="echo $X; pwd; exit_code() { return 3; }; exit_code"),
              q.use(s, "read", file_path="/workspace/a.txt"),
              q.use(s, "edit", file_path="/workspace/a.txt", old_string="beta", new_string="gamma")]
    w.until("the second results", lambda: len(q.results(s)) == 6)
    calls += [q.use(s, "glob", pattern="*.txt"), q.use(s, "grep", pattern="gam+a"),
              q.use(s, "read", file_path="/workspace/none")]
    w.until("all results", lambda: len(q.results(s)) == 9)
    got = [q.results(s)[c] for c in calls]
    assert [r["is_error"] for r in got] == [False, False, False, True, False, False, False, False, True], got
    assert text(got[0]) == "one\ntwo" and text(got[2]) == "(no output)", got
    assert text(got[3]) == "7\n/tmp", got[3]  # one shell for all commands
    assert text(got[4]).rstrip("\n") == "alpha\nbeta" and "a.txt" in text(got[6]) and "gamma" in text(got[7]), got
    q.idle(s)
    w.until("the end of the item", lambda: q.state(item) == "stopped")
    assert q.seen("POST", "/stop$")[-1]["body"] == {"force": True}


@worker_test
def the_order_of_requests(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", command="echo hello")
    item = q.enqueue(s)
    w = work("--idle", "1")
    w.until("the result", lambda: call in q.results(s))
    q.idle(s)
    w.until("the end of the item", lambda: q.state(item) == "stopped")
    seen = [(r["verb"], r["path"].replace(ITEM, "").replace(item, "ID").replace(s, "SID"), r) for r in q.requests]
    order = [f"{v} {p}" for v, p, r in seen if not p.endswith("poll")]
    want = ["POST /ID/ack", "POST /ID/heartbeat", "GET /v1/sessions/SID", "GET /v1/sessions/SID/events/stream",
            "GET /v1/sessions/SID/events", "POST /v1/sessions/SID/events", "POST /ID/stop"]
    assert order == want, order
    poll = seen[0][2]
    assert poll["raw"] == "block_ms=999" and poll["auth"] == "Bearer " + KEY, poll
    assert len(q.workers) == 1 and all(q.workers), q.workers
    beat = q.seen("POST", "/heartbeat$")[0]
    assert beat["raw"] == "expected_last_heartbeat=NO_HEARTBEAT" and beat["auth"] == "Bearer " + q.item(item)["token"]
    assert q.seen("POST", "/events$")[0]["body"] == {"events": [
        {"type": "user.tool_result", "tool_use_id": call, "is_error": False, "content": [{"type": "text", "text": "hello"}]}]}
    assert q.seen("GET", "/events$")[0]["query"] == {"limit": "1000"}


@worker_test
def heartbeats_echo_byte_for_byte(q, work, tmp):
    q.ttl = 2
    s = q.session()
    item = q.enqueue(s)
    w = work("--lease", "10")
    w.until("five heartbeats", lambda: len(q.seen("POST", "/heartbeat$")) >= 5)
    beats = q.seen("POST", "/heartbeat$")
    assert q.state(item) == "active" and q.item(item)["asked_ttl"] == 10  # the queue answered 412 to none
    assert (beats[4]["at"] - beats[0]["at"]) / 4 > 0.5, [b["at"] for b in beats]  # ttl / 2, and at least a second
    assert w.stop() == 0


@worker_test
def history_says_what_is_left_to_do(q, work, tmp):
    s = q.session()
    ran = lambda name: f"echo ran > /workspace/{name}; echo {name}"
    q.page = 4  # the history comes in pages
    answered = q.use(s, "bash", command=ran("answered"))
    q.add(s, {"type": "user.tool_result", "tool_use_id": answered, "content": [], "is_error": False})
    interrupted = q.use(s, "bash", command=ran("interrupted"))
    q.add(s, {"type": "agent.tool_result", "tool_use_id": interrupted, "content": [], "is_error": True})
    denied = q.use(s, "bash", "deny", command=ran("denied"))
    asked = q.use(s, "bash", "ask", command=ran("asked"))
    allowed = q.use(s, "bash", "ask", command=ran("allowed"))
    refused = q.use(s, "bash", "ask", command=ran("refused"))
    strange = q.use(s, "bash", "perhaps", command=ran("strange"))
    silent = q.use(s, "bash", None, command=ran("silent"))
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": allowed, "result": "allow"})
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": refused, "result": "deny"})
    custom = q.add(s, {"type": "agent.custom_tool_use", "name": "bash", "input": {"command": ran("custom")}})
    mcp = q.add(s, {"type": "agent.mcp_tool_use", "name": "bash", "input": {"command": ran("mcp")}, "evaluated_permission": "allow"})
    web = [q.use(s, "web_fetch", url="http://127.0.0.1/"), q.use(s, "web_search", query="x"), q.use(s, "unheard_of")]
    child = q.add(s, {"type": "agent.tool_use", "name": "bash", "input": {"command": ran("child")},
                      "evaluated_permission": "allow", "session_thread_id": "sthr_over"})
    q.add(s, {"type": "session.thread_status_terminated", "session_thread_id": "sthr_over"})
    q.enqueue(s)
    w = work()
    w.until("two results", lambda: len([c for c in (allowed, silent) if c in q.results(s)]) == 2)
    last = q.use(s, "bash", command="ls /workspace")
    w.until("the last result", lambda: last in q.results(s))
    assert text(q.results(s)[last]).split() == ["allowed", "silent"], q.results(s)[last]
    assert set(q.results(s)) == {answered, allowed, silent, last}
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": asked, "result": "allow"})
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": strange, "result": "deny"})
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": denied, "result": "allow"})
    w.until("what was asked", lambda: asked in q.results(s))
    last = q.use(s, "bash", command="ls /workspace")
    w.until("the last result", lambda: last in q.results(s))
    assert text(q.results(s)[last]).split() == ["allowed", "asked", "silent"], q.results(s)[last]


@worker_test
def a_call_that_waits_for_a_confirmation_keeps_the_worker(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", "ask", command="echo now")
    q.idle(s, call)
    item = q.enqueue(s)
    w = work("--idle", "1")
    w.said("waits for a confirmation")
    q.idle(s)  # as if the turn were over
    time.sleep(2.5)
    assert q.state(item) == "active"
    q.add(s, {"type": "user.tool_confirmation", "tool_use_id": call, "result": "allow"})
    w.until("the result", lambda: call in q.results(s))
    q.idle(s)
    w.until("the end of the item", lambda: q.state(item) == "stopped")


@worker_test
def idle_is_counted_from_the_end_of_the_turn(q, work, tmp):
    s = q.session()
    q.idle(s)
    item = q.enqueue(s)
    w = work("--idle", "6")
    w.until("the history", lambda: q.seen("GET", "/events$"))
    time.sleep(1)
    q.add(s, {"type": "session.usage"})  # any other event ends the countdown
    time.sleep(1)
    q.idle(s, "sevt_other")  # somebody's action is waited for
    time.sleep(7)
    assert q.state(item) == "active"
    t = time.monotonic()
    q.idle(s)
    q.add(s, {"type": "session.thread_status_terminated", "session_thread_id": "sthr_x"})  # does not count
    w.until("the end of the item", lambda: q.state(item) == "stopped")
    assert time.monotonic() - t > 5.5


@worker_test
def several_items_at_the_same_time(q, work, tmp):
    sessions = [q.session() for _ in range(3)]
    calls = [q.use(s, "bash", command="hostname > /dev/null; while [ ! -e go ]; do sleep 0.1; done; echo went") for s in sessions]
    items = [q.enqueue(s) for s in sessions]
    w = work("--max-sessions", "2", "--idle", "1")
    w.until("two items", lambda: [q.state(i) for i in items] == ["active", "active", "queued"])
    time.sleep(3)
    assert q.state(items[2]) == "queued", "a third item was claimed"
    go = q.use(sessions[0], "write", file_path="/workspace/go", content="")
    w.until("its result", lambda: {go, calls[0]} <= set(q.results(sessions[0])))
    assert calls[1] not in q.results(sessions[1])  # each has a workspace of its own
    q.idle(sessions[0])
    w.until("the third", lambda: q.state(items[2]) == "active")
    for n in (1, 2):
        q.use(sessions[n], "write", file_path="/workspace/go", content="")
        w.until("its result", lambda: calls[n] in q.results(sessions[n]))


@worker_test
def health_checks_and_sessions_that_are_over(q, work, tmp):
    over = q.session()
    q.sessions[over].status = "terminated"
    q.use(over, "bash", command="echo no")
    check, item = q.enqueue("hc_1", type="healthcheck"), q.enqueue(over)
    w = work()
    w.until("both", lambda: q.state(check) == "stopped" and q.state(item) == "stopped")
    assert q.results(over) == {} and w.processes() == []
    ended = q.session()
    q.use(ended, "bash", command="sleep 600")
    item = q.enqueue(ended)
    w.until("the command", lambda: any("sleep 600" in c for c in w.processes()))
    q.add(ended, {"type": "session.status_terminated"})
    w.until("the end of the item", lambda: q.state(item) == "stopped")
    w.until("the end of the sandbox", lambda: w.processes() == [])
    gone = q.session()
    q.sessions[gone].gone = True
    item = q.enqueue(gone)
    w.until("the end of the item", lambda: q.state(item) == "stopped")
    assert w.p.poll() is None


@worker_test
def a_secret_is_preferred_and_not_needed(q, work, tmp):
    """Attack 39: without a secret, or with one that holds nothing, the environment's key serves."""
    for secret in (None, "bm90IGpzb24", "e30", "%%%"):
        s = q.session()
        call = q.use(s, "bash", command="echo served")
        q.enqueue(s, secret=secret)
    w = work("--max-sessions", "9")
    for s in q.sessions:
        w.until("the result", lambda: q.results(s))
    assert {r["auth"] for r in q.requests} == {"Bearer " + KEY}


@worker_test
def sandboxes_are_kept_between_items(q, work, tmp):
    w = work("--idle", "1")
    s = q.session()

    def round(command):
        call = q.use(s, "bash", command=command)
        q.idle(s, call)
        item = q.enqueue(s)
        w.until("the result", lambda: call in q.results(s))
        q.idle(s)
        w.until("the end of the item", lambda: q.state(item) == "stopped")
        return text(q.results(s)[call])
    round("echo kept > f; Y=5")
    assert round("cat f; echo $Y") == "kept\n5"
    assert w.stop() == 0 and w.processes() == [] and list((w.data / "worker/s").iterdir()) == []
    w = work("--idle", "1", "--keep", "0")
    round("echo kept > f")
    w.until("the sandbox's end", lambda: w.processes() == [])
    assert "No such file" in round("cat f")


@worker_test
def the_network_that_commands_have(q, work, tmp):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"the page")

        def log_message(self, *a):
            pass
    page = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    page.daemon_threads = True
    threading.Thread(target=page.serve_forever, args=(0.05,), daemon=True).start()
    port = page.server_address[1]
    (tmp / "c.lua").write_text("return { egress = { ports = { %d } } }" % port)
    fetch = f"curl -sS --noproxy '' -m 20 -f http://localhost:{port}/ 2>&1; echo; curl -sS --noproxy '' -m 20 -f http://127.0.0.1:{q.port}/ 2>&1"
    for n, (args, listed, goes) in enumerate((((), True, True), ((), False, False), (("--network", "none"), True, False),
                                              (("--network", "localhost, packages"), True, True),
                                              (("--network", "*.example.com"), True, False))):
        s = q.session()
        call = q.use(s, "bash", command=fetch)
        q.enqueue(s)
        w = work("--config", str(tmp / "c.lua"), *args, name=f"n{n}",
                 env={"MOONRIG_ALLOW_PRIVATE_HOSTS": "localhost"} if listed else {})
        w.until("the result", lambda: call in q.results(s))
        out = text(q.results(s)[call])
        assert ("the page" in out) == goes, (args, listed, out)
        assert out.count("curl:") == 2 - goes, out  # the queue itself is not for commands
        w.p.kill()
    page.shutdown()
    page.server_close()
