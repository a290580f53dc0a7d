"""The program around the API: starting, keys, listeners, stopping, and what a turn leaves on the machine."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

from kit import BIN, KEY, MODEL, UPSTREAM_KEY, Server, World, equal, last, message, said, test, true, types, wait


def children(pid):
    """Processes below pid."""
    out, todo = [], [pid]
    while todo:
        p = todo.pop()
        for t in os.listdir(f"/proc/{p}/task"):
            try:
                kids = [int(x) for x in open(f"/proc/{p}/task/{t}/children").read().split()]
            except OSError:
                continue
            out += kids
            todo += kids
    return out


def refused(*args, env=None, status=2):
    r = subprocess.run([BIN, "serve", *args], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL,
                       env=dict({k: v for k, v in os.environ.items() if not k.startswith("MOONRIG_")}, **(env or {})))
    equal(r.returncode, status, " ".join(args) + ": " + r.stderr)
    true(r.stderr.strip(), "says why")
    true("listening" not in r.stdout, r.stdout)
    return r.stderr


@test(model=True)
def platform_63_a_text_only_turn_makes_no_sandbox(w):
    server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url})
    try:
        v = World(server.url, mock=w.mock, server=server)
        seen = set()
        over = threading.Event()

        def look():
            while not over.is_set():
                seen.update(children(server.process.pid))
                time.sleep(0.002)
        t = threading.Thread(target=look)
        t.start()
        a = v.new_agent(tools=[{"type": "agent_toolset_20260401"}])
        for i in range(3):
            _, events = v.turn(message(f"[[think]] [[say {i}]]"), session=v.session(agent=a["id"]))
            equal(said(events), [str(i)])
        over.set()
        t.join()
        equal(seen, set(), "processes that were started")
    finally:
        equal(server.stop(), 0)


@test(local=True)
def the_first_start_prints_a_key_once(w):
    first = Server()
    line = "".join(first.out)
    m = re.search(r"(sk-mr-\S+)", line)
    true(m, f"a key: {line!r}")
    v = World(first.url, m[1])
    made = v.new_agent()
    equal(World(first.url, "sk-mr-other").get("/v1/agents").status, 401)
    files = [p for p in first.data.rglob("*") if p.is_file()]
    true(files and not [p for p in files if m[1].encode() in p.read_bytes()], "the key itself is not stored")
    equal(first.stop(keep=True), 0)
    second = Server(data=first.data)
    try:
        true("sk-mr-" not in "".join(second.out), second.out)
        equal(World(second.url, m[1]).ok("GET", f"/v1/agents/{made['id']}"), made, "it works after a restart")
    finally:
        equal(second.stop(), 0)


@test(local=True)
def a_bootstrap_key_is_not_stored(w):
    one = Server(env={"MOONRIG_API_KEY": KEY})
    World(one.url).ok("GET", "/v1/agents")
    true("sk-mr-" not in "".join(one.out), one.out)
    equal(one.stop(keep=True), 0)
    two = Server(env={"MOONRIG_API_KEY": "sk-mr-another-key-of-the-test-00000"}, data=one.data)
    try:
        equal(World(two.url).get("/v1/agents").status, 401)
    finally:
        equal(two.stop(), 0)


@test(local=True)
def one_data_directory_one_server(w):
    one = Server(env={"MOONRIG_API_KEY": KEY})
    try:
        why = refused("--data", str(one.data), "--listen", "127.0.0.1:0", status=1)
        true(str(one.process.pid) in why, why)
        World(one.url).ok("GET", "/v1/agents")
    finally:
        equal(one.stop(), 0)


@test(local=True)
def settings_that_cannot_be(w):
    with tempfile.TemporaryDirectory() as d:
        data = ["--data", d + "/data"]
        refused(*data, "--no-such-flag")
        refused(*data, "--listen", "0.0.0.0:0")
        refused(*data, "--listen", "nonsense")
        refused(*data, "--listen", "127.0.0.1:99999")
        refused(*data, "--tls-cert", "/dev/null", "--listen", "127.0.0.1:0")
        true("sk-mr-" in refused(*data, "--listen", "127.0.0.1:0", env={"MOONRIG_ANTHROPIC_API_KEY": "sk-mr-mistaken"}), "the mix-up is explained")
        for text, names in (("{ api = { ping = 1 } }", "ping"), ("{ colour = 'red' }", "colour"), ("{ models = { anthropic = { key = 'x' } } }", "key"),
                            ("{ retries = { max = 'many' } }", "retries.max"), ("7", ""), ("{", "")):
            open(d + "/c.lua", "w").write("return " + text)
            r = subprocess.run([BIN, "serve", *data, "--config", d + "/c.lua", "--listen", "127.0.0.1:0"], capture_output=True, text=True, timeout=20)
            true(r.returncode in (1, 2) and names in r.stderr, f"{text}: {r.returncode} {r.stderr}")
        busy = socket.socket()
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        refused(*data, "--listen", f"127.0.0.1:{busy.getsockname()[1]}", status=1)


@test(local=True)
def several_listeners(w):
    path = tempfile.mktemp(prefix="moonrig-", suffix=".sock")
    server = Server(env={"MOONRIG_API_KEY": KEY}, args=["--listen", f"unix:{path},0600", "--listen", "[::1]:0"])
    try:
        lines = server.out + [server.process.stdout.readline() for _ in range(2)]
        urls = re.findall(r"listening on (\S+)", "".join(lines))
        equal([u.split(":")[0] for u in urls], ["http", "unix", "http"], str(urls))
        World(urls[0]).ok("GET", "/v1/agents")
        World(urls[2]).ok("GET", "/v1/agents")
        equal(os.stat(path).st_mode & 0o777, 0o600)
        s = socket.socket(socket.AF_UNIX)
        s.connect(path)
        s.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        true(s.recv(1000).startswith(b"HTTP/1.1 200"), "over the unix socket")
        s.close()
    finally:
        equal(server.stop(), 0)
    true(not os.path.exists(path), "the socket is removed")


@test(model=True)
def sigterm_lets_a_request_in_flight_end(w):
    server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url})
    v = World(server.url, mock=w.mock, server=server)
    s = v.session()
    v.send(s, message("[[long 60]] [[slow 10 ms]]"))
    with v.stream(s) as feed:
        c = v.connect()
        body = json.dumps({"name": "late", "model": MODEL}).encode()
        c.putrequest("POST", "/v1/agents")
        for k, x in v.headers({"content-type": "application/json", "content-length": str(len(body))}).items():
            c.putheader(k, x)
        c.endheaders()
        c.send(body[:10])
        time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        c.send(body[10:])
        r = c.getresponse()
        equal(r.status, 200, "the request that was under way")
        c.close()
        try:
            http.client.HTTPConnection(v.host, v.port, timeout=2).request("GET", "/health")
            true(server.process.poll() is None, "still there")
        except OSError:
            pass  # no new connections: right
        feed.end(30)
    equal(server.stop(sig=None, keep=True), 0)
    again = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url}, data=server.data)
    try:
        v = World(again.url, mock=w.mock, server=again)
        wait(lambda: v.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "the session to finish")
        events = v.events(s)
        equal(len({e["id"] for e in events}), len(events))
        equal(last(events, "session.status_idle")["stop_reason"], {"type": "end_turn"})
        starts = [e["id"] for e in events if e["type"] == "span.model_request_start"]
        equal([e["model_request_start_id"] for e in events if e["type"] == "span.model_request_end"], starts)
        true("late" in [a["name"] for a in v.all("/v1/agents")], "and what it made")
    finally:
        equal(again.stop(), 0)


@test(model=True)
def platform_62_kill_9_and_go_on(w):
    env = {"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url}
    server = Server(env=env)
    v = World(server.url, mock=w.mock, server=server)
    s = v.session()
    with v.stream(s) as feed:
        v.send(s, message("[[long 50]] [[slow 20 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "the request")
        before = list(feed.events)
        server.stop(signal.SIGKILL, keep=True)
    again = Server(env=env, data=server.data)
    try:
        v = World(again.url, mock=w.mock, server=again)
        wait(lambda: v.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "the session to finish")
        events = v.events(s)
        equal(events[:len(before)], before, "what was seen stays")
        equal(len({e["id"] for e in events}), len(events))
        ends = {e["model_request_start_id"]: e["is_error"] for e in events if e["type"] == "span.model_request_end"}
        equal(list(ends.values()), [True, False], "the cut request has its end")
    finally:
        equal(again.stop(), 0)


@test(local=True)
def the_command_line_speaks_to_the_server(w):
    env = dict({k: v for k, v in os.environ.items() if not k.startswith("MOONRIG_")}, MOONRIG_URL=w.url, MOONRIG_API_KEY=w.key)
    run = lambda *a: subprocess.run([BIN, *a], capture_output=True, text=True, timeout=20, env=env)
    made = json.loads(run("api", "agents.create", json.dumps({"name": "by hand", "model": MODEL}), "--json").stdout)
    equal(w.ok("GET", f"/v1/agents/{made['id']}")["name"], "by hand")
    got = run("api", "agents.retrieve", json.dumps({"agent_id": made["id"]}), "--json")
    equal((got.returncode, json.loads(got.stdout)["id"]), (0, made["id"]))
    bad = run("api", "agents.create", "{}", "--json")
    true(bad.returncode == 1 and "name" in bad.stderr + bad.stdout, bad)
    equal(run("api", "no.such.operation").returncode, 2)
    equal(subprocess.run([BIN, "api", "agents.list"], capture_output=True, timeout=20, env=dict(env, MOONRIG_URL="http://127.0.0.1:1")).returncode, 3)
    key = run("key", "create", "from the command line")
    equal(key.returncode, 0, key.stderr)
    secret = re.search(r"sk-mr-\S+", key.stdout)[0]
    World(w.url, secret).ok("GET", "/v1/agents")
    listed = run("key", "list").stdout
    true("from the command line" in listed and secret not in listed, listed)
    out = run("env").stdout
    true("ANTHROPIC_BASE_URL" in out, out)
