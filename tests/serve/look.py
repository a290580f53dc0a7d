"""moonrig ps, why, logs, attach as a pipe, and api: what they print, and their exit statuses."""
import json, os, re, signal, subprocess, threading, time
from kit import BIN, SLOW, clean_env, run_cli, test, user
from chat import start


class House:
    def __init__(self, tmp, serve):
        self.tmp, self.s = tmp, start(tmp, serve)

    def run(self, *args, input=None, env=None):
        return subprocess.run([BIN] + list(args) + ["--data", str(self.tmp / "data")], env=clean_env(**(env or {})), input=input,
                              capture_output=True, text=True, timeout=60 * SLOW)

    def out(self, *args, **more):
        r = self.run(*args, **more)
        assert r.returncode == 0, (args, r)
        return r.stdout

    def api(self, op, **fields):
        return json.loads(self.out("api", op, json.dumps(fields)))

    def session(self, text, **more):
        agent = [a for a in self.api("agents.list")["data"] if a["name"] == "teller"][0]["id"]
        env = self.api("environments.list")["data"][0]["id"]
        return self.api("sessions.create", agent=agent, environment_id=env, initial_events=[user(text)], **more)["id"]

    def why(self, sid, words):
        self.s.until(words, lambda: words in self.out("why", sid))
        return json.loads(self.out("why", sid, "--json"))


@test
def why_says_what_a_session_waits_for(tmp, serve):
    h = House(tmp, serve)
    sid = h.session("hello")
    w = h.why(sid, "finished ")
    assert (w["state"], w["waiting_on"][0]["kind"], w["stop_reason"]) == ("idle", "message", "end_turn"), w
    assert w["command"] == "moonrig attach " + sid
    ask = h.session("call pay 7")
    w = h.why(ask, "waits for approval of pay (sevt_")
    call = w["waiting_on"][0]
    assert (call["kind"], call["name"], w["stop_reason"]) == ("approval", "pay", "requires_action") and call["event_id"] in w["sentence"], w
    book = h.session("call book x")
    assert h.why(book, "waits for the client's answer to custom tool book (sevt_")["waiting_on"][0]["kind"] == "client_tool"
    slow = h.session("slow")
    w = h.why(slow, "a model request to test-1 runs since ")
    assert (w["state"], w["waiting_on"][0]["kind"], w["command"]) == ("running", "model", f"moonrig logs {slow} -f"), w
    h.api("sessions.events.send", session_id=slow, events=[user("more")])
    assert h.why(slow, "; 1 input is queued")["queued_inputs"] == 1
    h.api("sessions.events.send", session_id=slow, events=[{"type": "user.interrupt"}])
    h.why(slow, "finished ")  # with what was queued
    h.api("sessions.archive", session_id=slow)
    assert h.why(slow, "archived ")["waiting_on"] == []
    # the same over HTTP, and by name
    key = json.loads((tmp / "data/server.json").read_text())["key"]
    status, over_http, _ = h.s.request("GET", f"/moonrig/v1/sessions/{ask}/why", headers={"authorization": "Bearer " + key})
    assert status == 200 and over_http["waiting_on"][0]["event_id"] == call["event_id"], over_http
    assert h.api("sessions.why", session_id=ask)["waiting_on"] == over_http["waiting_on"]
    assert h.s.request("GET", f"/moonrig/v1/sessions/{ask}/why", headers={})[0] == 401
    assert h.s.request("GET", "/moonrig/v1/sessions/sesn_nowhere/why", headers={"authorization": "Bearer " + key})[0] == 404


@test
def ps_lists_the_sessions(tmp, serve):
    h = House(tmp, serve)
    assert h.out("ps") == "no sessions\n"
    sids = [h.session("hello", title=f"number {i}\x1b[31m") for i in range(4)]
    sids.append(h.session("call pay 1"))
    for sid in sids:
        h.s.until("rest", lambda: h.api("sessions.retrieve", session_id=sid)["status"] == "idle" and
                  "waits for" in h.out("why", sid))
    h.api("sessions.archive", session_id=sids[0])
    lines = h.out("ps").splitlines()
    assert lines[0].split() == ["SESSION", "STATE", "AGENT", "AGE", "USED", "TITLE", "WHY"], lines
    assert [line.split()[0] for line in lines[1:]] == sids[:0:-1], lines
    assert "waits for approval of pay (" in lines[1] and "number 3?[31m" in lines[2] and "finished" in lines[2], lines
    assert re.search(r"  idle +teller +\d+s +\d+/\d+ ", lines[1]), lines
    assert len(h.out("ps", "--all").splitlines()) == 6
    page = h.out("ps", "--limit", "2").splitlines()
    assert [line.split()[0] for line in page[1:3]] == [sids[4], sids[3]], page
    more = re.match(r"more: moonrig (ps --limit 2 --page \S+)$", page[3])
    page = h.out(*more[1].split()).splitlines()
    assert [line.split()[0] for line in page[1:]] == [sids[2], sids[1]], page
    data = json.loads(h.out("ps", "--json", "--all", "--limit", "3"))
    assert [d["session"]["id"] for d in data["data"]] == sids[4:1:-1] and data["next_page"], data
    assert data["data"][0]["why"]["waiting_on"][0]["kind"] == "approval" and data["data"][0]["session"]["budget"] is None
    for bad in (["x"], ["--limit", "0"], ["--limit", "x"], ["--from", "now"]):
        assert h.run("ps", *bad).returncode == 2, bad


@test
def logs_print_events(tmp, serve):
    h = House(tmp, serve)
    sid = h.session("call pay 3")
    h.why(sid, "approval")
    lines = h.out("logs", sid).splitlines()
    assert re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ  session.status_running", lines[0]), lines
    assert any(re.search(r"agent.tool_use +pay \{\"arg\":\"3\"\}$", line) for line in lines), lines
    assert re.search(r"session.status_idle +requires_action$", lines[-1]), lines
    events = h.api("sessions.events.list", session_id=sid, limit=1000)["data"]
    assert [json.loads(line) for line in h.out("logs", sid, "--json").splitlines()] == events
    for bad in ([], ["a", "b"]):
        assert h.run("logs", *bad).returncode == 2
    assert h.run("logs", "sesn_nowhere").returncode == 1
    assert h.run("why", "sesn_nowhere").returncode == 1


@test
def followed_logs_go_on_over_restarts(tmp, serve):
    h = House(tmp, serve)
    sid = h.session("one")
    h.why(sid, "finished")
    p = subprocess.Popen([BIN, "logs", "-f", "--json", sid, "--data", str(tmp / "data")], env=clean_env(), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    got, came = [], threading.Event()

    def read():
        for line in p.stdout:
            got.append(json.loads(line))
            came.set()
    reader = threading.Thread(target=read)
    reader.start()
    try:
        for i in range(4):
            h.s.until(f"idle {i}", lambda: sum(e["type"] == "session.status_idle" for e in got) == i + 1)
            if i == 3:
                break
            if i % 2 == 0:
                h.s.stop(signal.SIGKILL)
                h.s.start()
            h.api("sessions.events.send", session_id=sid, events=[user(f"more {i}")])
        h.api("sessions.archive", session_id=sid)
        assert p.wait(30 * SLOW) == 0, p.stderr.read()
        reader.join()
    finally:
        p.kill()
    assert got == h.api("sessions.events.list", session_id=sid, limit=1000)["data"]
    assert h.out("logs", "-f", sid) == h.out("logs", sid)  # one that is over ends at once


@test
def completion_knows_commands_options_and_operations(tmp, serve):
    script = run_cli("completion", "bash").stdout
    probe = script + """
moonrig() { "$BIN" "$@"; }
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _moonrig; echo "${COMPREPLY[@]}"; }
try moonrig att; try moonrig api sessions.ev; try moonrig logs --fo; try moonrig logs -f; try moonrig attach --from --u"""
    r = subprocess.run(["bash", "-c", probe], env=clean_env(BIN=BIN), capture_output=True, text=True, timeout=60 * SLOW)
    assert r.stdout.splitlines() == ["attach", "sessions.events.send sessions.events.list sessions.events.stream", "--follow", "-f", "--url"], r
    assert "bashcompinit" in run_cli("completion", "zsh").stdout and "complete -c moonrig" in run_cli("completion", "fish").stdout
    assert run_cli("completion").returncode == 2 and run_cli("completion", "csh").returncode == 2


@test
def attach_as_a_pipe(tmp, serve):
    h = House(tmp, serve)
    sid = h.session("hello")
    h.why(sid, "finished")
    out = h.out("attach", sid, "--from", "start", input="call pay 4\ny\nbye")
    assert out.splitlines()[1:] == ["> hello", 'you said "hello"', '* pay {"arg":"4"}', "  = paid 4", "result: paid 4",
                                    'you said "bye"'], out
    assert h.out("attach", sid, "--from", "now", input="").splitlines()[1:] == []
    assert "call pay 4" in h.out("attach", sid, input="")
    types = [json.loads(line)["type"] for line in h.out("attach", sid, "--json", "--from", "now", input="again\n").splitlines()]
    assert types[0] == "session.status_running" and types[-1] == "session.status_idle" and "user.message" in types, types
    # a tool of another client is left to it
    book = h.session("call book x")
    h.why(book, "custom tool book")
    r = h.run("attach", book, input="")
    assert r.returncode == 0 and "left to its client" in r.stdout, r
    h.why(book, "custom tool book")
    # a call is left open
    ask = h.session("call pay 5")
    h.why(ask, "approval")
    r = h.run("attach", ask, input="")
    assert r.returncode == 1 and "waits for an answer: moonrig attach " + ask in r.stdout, r
    h.api("sessions.archive", session_id=sid)
    r = h.run("attach", sid, input="")
    assert r.returncode == 1 and "has ended" in r.stderr, r
    for bad in ([], ["a", "b"], [sid, "--from", "here"]):
        assert h.run("attach", *bad).returncode == 2, bad


WRITES = '''
return function(request)
  local m = request.messages[#request.messages]
  local c = type(m.content) == "table" and m.content[#m.content] or {}
  if c.type == "tool_result" then return "done" end
  return { { type = "tool_use", name = "bash", input = { command = "cp /mnt/session/uploads/up.bin /mnt/session/outputs/out.bin" } } }
end
'''


@test
def api_sends_and_fetches_files(tmp, serve):
    (tmp / "model.lua").write_text(WRITES)
    s = serve("--offline", str(tmp / "model.lua"), key=None)
    data = os.urandom(300000)
    (tmp / "up.bin").write_bytes(data)

    def run(*args, **more):
        return subprocess.run([BIN, "api"] + list(args) + ["--data", str(tmp / "data")], env=clean_env(), capture_output=True,
                              timeout=60 * SLOW, **more)
    r = run("files.upload", '{"filename":"n\\u00e4me.bin","media_type":"application/x-test"}', "--file", str(tmp / "up.bin"))
    f = json.loads(r.stdout)
    assert (f["filename"], f["mime_type"], f["size_bytes"]) == ("näme.bin", "application/x-test", len(data)), r
    r = run("files.upload", "--file", "-", input=data)
    assert (json.loads(r.stdout)["filename"], json.loads(r.stdout)["size_bytes"]) == ("upload", len(data)), r
    r = run("files.download", json.dumps({"file_id": f["id"]}), "--file", str(tmp / "down.bin"))
    assert r.returncode == 1 and b"400" in r.stderr and not list(tmp.glob("down.bin*")), r  # only what a session made

    def call(op, **fields):
        r = run(op, json.dumps(fields))
        assert r.returncode == 0, r
        return json.loads(r.stdout)
    agent = call("agents.create", name="a", model="m", tools=[{"type": "agent_toolset_20260401"}])["id"]
    sid = call("sessions.create", agent=agent, environment_id=call("environments.list")["data"][0]["id"],
               resources=[{"type": "file", "file_id": f["id"], "mount_path": "up.bin"}], initial_events=[user("go")])["id"]
    out = s.until("the output", lambda: [x for x in call("files.list", scope_id=sid)["data"] if x["filename"].endswith("out.bin")])[0]
    here = json.dumps({"file_id": out["id"]})
    assert run("files.download", here).stdout == data
    assert run("files.download", here, "--file", str(tmp / "down.bin")).returncode == 0
    assert (tmp / "down.bin").read_bytes() == data and len(list(tmp.glob("down.bin*"))) == 1
    assert run("files.download", here, "--file", str(tmp / "no/such/place")).returncode == 1


@test
def api_calls_operations(tmp, serve):
    h = House(tmp, serve)
    sid = h.session("hello")
    h.why(sid, "finished")
    # input from a file and from standard input; what comes is as the server wrote it
    (tmp / "in.json").write_text(json.dumps({"session_id": sid}))
    for arg, text in (("@" + str(tmp / "in.json"), None), ("-", json.dumps({"session_id": sid}))):
        assert json.loads(h.out("api", "sessions.retrieve", arg, input=text))["budget"] is None
    # a stream, until the session is over
    p = subprocess.Popen([BIN, "api", "sessions.events.stream", json.dumps({"session_id": sid, "after": 1}), "--data",
                          str(tmp / "data")], env=clean_env(), text=True, stdout=subprocess.PIPE)
    seen = [json.loads(p.stdout.readline())["type"]]
    h.api("sessions.archive", session_id=sid)
    out, _ = p.communicate(timeout=30 * SLOW)
    seen += [json.loads(line)["type"] for line in out.splitlines()]
    assert p.returncode == 0 and seen[0] == "session.thread_status_running" and seen[-1] == "session.status_terminated", seen
    # what an operation takes, and what there is
    assert re.search(r"^  agent +string or object, required", run_cli("api", "--help", "sessions.create").stdout, re.M)
    p = run_cli("api", "--help", "nope")
    assert (p.returncode, p.stdout) == (2, "") and "no such operation: nope" in p.stderr
    assert run_cli("api", "sessions.create", "--help").stdout == run_cli("help", "api", "sessions.create").stdout
    names = [json.loads(line) for line in run_cli("api", "--list", "--json").stdout.splitlines()]
    assert {"name": "sessions.why", "verb": "GET", "path": "/moonrig/v1/sessions/{session_id}/why", "implemented": True} in names
    # what is wrong
    r = h.run("api", "sessions.retrieve", '{"session_id":"sesn_x"}')
    assert r.returncode == 1 and "404" in r.stderr and r.stdout == "", r
    r = h.run("api", "sessions.retrieve", '{"session_id":"sesn_x"}', "--json")
    assert r.returncode == 1 and json.loads(r.stderr)["error"]["type"] == "not_found_error", r
    for bad in (["nope"], ["sessions.retrieve"], ["sessions.list", "[1]"], ["sessions.list", "{"], ["sessions.list", "@/nowhere"],
                [], ["files.upload"], ["sessions.list", "{}", "--file", "x"], ["files.upload", "{}", "--file", "/nowhere"]):
        assert h.run("api", *bad).returncode == 2, bad
    for command in (["api", "sessions.list"], ["ps"], ["why", "x"], ["logs", "x"], ["attach", "x"]):
        assert run_cli(*command, "--url", "http://127.0.0.1:1").returncode == 3, command
        assert run_cli(*command, "--data", str(tmp / "none")).returncode == 3, command
        r = h.run(*command, "--key", "sk-mr-wrong")
        assert r.returncode == 1 and "--key" in r.stderr, (command, r)
        assert "--url" in run_cli(command[0], "--help").stdout
