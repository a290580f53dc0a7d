"""moonrig chat: at a terminal, and as a pipe."""
import json, subprocess
from kit import BIN, SLOW, clean_env, run_cli, test
from term import Term

MODEL = '''
local rig = require "moonrig"
local function gate(name) while not rig.fs.stat("GATES/" .. name) do rig.sleep(0.02) end end
return function(request, ctx)
  local m = request.messages[#request.messages]
  local c = type(m.content) == "table" and m.content[#m.content] or { type = "text", text = m.content }
  if c.type == "tool_result" then
    return "result: " .. (type(c.content) == "string" and c.content or c.content[1] and c.content[1].text or "nothing")
  end
  if c.text == "stream" then
    ctx:text "first "
    gate "stream"
    ctx:text "second"
    return "first second"
  elseif c.text == "slow" then
    ctx:text "thinking "
    gate "never"
  end
  local name, arg = c.text:match "^call (%S+) ?(.*)$"
  if name then return { { type = "tool_use", name = name, input = { arg = arg } } } end
  return "you said " .. rig.json.encode(c.text)
end
'''
SCRIPT = '''
local rig = require "moonrig"
local pay = rig.tool { name = "pay", description = "Pays", run = function(input) return "paid " .. input.arg end,
  input_schema = { type = "object", properties = { arg = { type = "string" } } } }
local escape = rig.tool { name = "escape", description = "Says odd things", run = function() return "\\27[31mred\\nline" end }
local book = rig.tool { name = "book", description = "Books", answered_by = "client" }
rig.agent { name = "teller", model = "test-1", tools = { pay, book, escape } }
rig.hook { phase = "permit", tool = "pay", run = function() return "ask", "money" end }
'''


def start(tmp, serve, script=SCRIPT):
    (tmp / "model.lua").write_text(MODEL.replace("GATES", str(tmp)))
    (tmp / "agent.lua").write_text(script)
    s = serve("--offline", str(tmp / "model.lua"), str(tmp / "agent.lua"), key=None)
    s.until("the agent", lambda: "teller" in run_cli("api", "agents.list", "--data", str(tmp / "data")).stdout)
    return s


def chat(tmp, text, *args, env=None):
    return subprocess.run([BIN, "chat", "--data", str(tmp / "data")] + list(args), env=clean_env(**(env or {})), input=text,
                          capture_output=True, text=True, timeout=60 * SLOW)


def api(tmp, op, **fields):
    r = run_cli("api", op, json.dumps(fields), "--data", str(tmp / "data"))
    assert r.returncode == 0, r.stderr
    return json.loads(r.stdout)


def messages(tmp, sid):
    ev = api(tmp, "sessions.events.list", session_id=sid, limit=1000)["data"]
    return [e["content"][0]["text"] for e in ev if e["type"] == "user.message"]


@test
def chat_streams_and_asks_at_a_terminal(tmp, serve):
    start(tmp, serve)
    with Term("chat", "--data", str(tmp / "data"), cwd=tmp) as t:
        sid = t.expect(r"session (sesn_\w+) with teller")[1]
        t.expect(r"> ")
        t.type("stream\n")
        t.expect("first ")
        assert "second" not in t.out
        (tmp / "stream").write_text("")
        t.expect(r"second\r\n.*> ")
        assert t.out.count("second") == 1
        t.type("call pay 5\n")
        t.expect(r"\* pay \{\"arg\":\"5\"\}.*allow pay.*w\(hy\): ")
        t.type("why\n")
        t.expect(r"the policy says: money;.*\"arg\": \"5\".*w\(hy\): ")
        t.type("y\n")
        t.expect(r"= paid 5.*result: paid 5\r\n.*> ")
        t.type("call pay 6\n")
        t.expect(r"w\(hy\): ")
        t.type("n too much\n")
        t.expect(r"! .*too much.*> ")
        t.type("call pay 7\n")
        t.expect(r"w\(hy\): ")
        t.type("a\n")
        t.expect(r"paid 7.*result.*> ")
        t.type("call pay 8\n")
        t.expect(r"as always.*paid 8.*result.*> ")
        t.type("call book x\n")
        t.expect(r"nobody here does.*its result .*: ")
        t.type("booked it\n")
        t.expect(r"result: booked it.*> ")
        t.type("call escape\n")
        t.expect(r"= \?\[31mred line.*> ")
        t.type("/usage\n")
        t.expect(r"this chat: [1-9]\d* tokens in.*the session: [1-9].*> ")
        t.type("/events 3\n")
        t.expect(r"session.status_idle.*end_turn.*> ")
        t.type("/sessions\n")
        t.expect(r"\*" + sid + r"  idle +teller.*> ")
        t.type("/quit\n")
        t.expect("attach " + sid)
        assert t.end() == 0
    assert api(tmp, "sessions.retrieve", session_id=sid)["status"] == "idle"


@test
def chat_is_interrupted_by_ctrl_c(tmp, serve):
    start(tmp, serve)
    with Term("chat", "teller", "--data", str(tmp / "data"), cwd=tmp) as t:
        sid = t.expect(r"session (sesn_\w+)")[1]
        t.expect("> ")
        t.type("slow\n")
        t.expect("thinking ")
        t.type("\x03")
        t.expect(r"stopping.*\(interrupted\).*> ")
        t.type("hello\n")
        t.expect(r'you said "hello".*> ')
        t.type("call pay 1\n")
        t.expect(r"w\(hy\): ")
        t.type("\x03")
        t.expect(r"\(interrupted\).*> ")
        t.type("\x03")
        t.expect("leaves.*> ")
        t.type("again\n")
        t.expect(r'you said "again".*> ')
        t.type("\x03")
        t.expect("leaves.*> ")
        t.type("\x03")
        assert t.end() == 0
    assert api(tmp, "sessions.retrieve", session_id=sid)["status"] == "idle"
    with Term("chat", "--session", sid, "--data", str(tmp / "data"), cwd=tmp) as t:
        t.expect(r"> hello.*you said \"hello\".*> again.*> ")
        t.type("slow\n")
        t.expect("thinking ")
        t.type("\x03")
        t.expect("stopping")
        t.type("\x03")
        assert t.end() in (0, 130)
    with Term("chat", "--session", sid, "--data", str(tmp / "data"), cwd=tmp) as t:
        t.expect("> ")
        t.type("still here?\n")
        t.expect(r'you said "still here\?".*> ')
        t.type("\x04")
        assert t.end() == 0


@test
def a_paste_of_lines_is_one_message(tmp, serve):
    start(tmp, serve)
    with Term("chat", "--data", str(tmp / "data"), cwd=tmp, env={"NO_COLOR": "1"}) as t:
        sid = t.expect(r"session (sesn_\w+)")[1]
        t.expect("> ")
        t.type("one\ntwo\nthree\n")
        t.expect(r"you said .*> ")
        t.type("a\\\n")
        t.expect(r"\r\n\. ")
        t.type("b\n")
        t.expect(r"you said .*> ")
        t.type("//slash\n")
        t.expect(r"you said .*> ")
        t.type("\x04")
        assert t.end() == 0
        assert "\x1b" not in t.out
    assert messages(tmp, sid) == ["one\ntwo\nthree", "a\nb", "/slash"]


@test
def chat_as_a_pipe(tmp, serve):
    start(tmp, serve)
    r = chat(tmp, "hello\n\ncall pay 5\ny\nlast without newline")
    assert r.returncode == 0, r
    lines = r.stdout.split("\n")
    assert lines[1:] == ['you said "hello"', '* pay {"arg":"5"}', "  = paid 5", "result: paid 5",
                         'you said "last without newline"', ""], lines
    assert "\x1b" not in r.stdout
    sid = lines[0].split()[1]
    r = chat(tmp, "call pay 9\n", "--session", sid)  # nobody says yes
    assert r.returncode == 1 and "waits for an answer: moonrig attach " + sid in r.stdout, r
    assert api(tmp, "sessions.retrieve", session_id=sid)["status"] == "idle"
    r = chat(tmp, "y\nbye\n", "--session", sid)
    assert r.returncode == 0 and "  = paid 9\nresult: paid 9\nyou said \"bye\"\n" in r.stdout, r
    r = chat(tmp, "call book x\n")
    assert r.returncode == 1 and "nobody here does" in r.stdout and "result: nobody answers" in r.stdout, r
    r = chat(tmp, "hi\n", "--json", "teller")
    types = [json.loads(line)["type"] for line in r.stdout.splitlines()]
    assert r.returncode == 0 and types[-1] == "session.status_idle" and "agent.message" in types, r


@test
def chat_says_what_is_missing(tmp, serve):
    r = chat(tmp, "")
    assert r.returncode == 3 and "no server runs on" in r.stderr, r
    s = start(tmp, serve, SCRIPT + 'rig.agent { name = "other", model = "test-1" }')
    r = chat(tmp, "")
    assert r.returncode == 2 and "which agent? " in r.stderr and "other" in r.stderr and "teller" in r.stderr, r
    r = chat(tmp, "", "nobody")
    assert r.returncode == 1 and 'no agent is named "nobody"; there is: ' in r.stderr and "teller" in r.stderr, r
    r = chat(tmp, "", "--key", "sk-mr-wrong-key", "teller")
    assert r.returncode == 1 and "--key" in r.stderr, r
    r = chat(tmp, "", "--session", "sesn_nowhere")
    assert r.returncode == 1, r
    r = chat(tmp, "", "--session", "x", "teller")
    assert r.returncode == 2, r
    with Term("chat", "--data", str(tmp / "data"), cwd=tmp) as t:
        t.expect("which agent")
        t.type("other\n")
        t.expect("with other.*> ")
        t.type("/new teller\n")
        t.expect("with teller.*> ")
        t.type("/quit\n")
        assert t.end() == 0
    url = f"http://127.0.0.1:{s.port}"
    with Term("chat", "teller", "--data", str(tmp / "data"), cwd=tmp) as t:
        t.expect("with teller.*> ")
        s.stop()
        t.expect("the server is away")
        t.type("anybody?\n")
        t.expect("moonrig: not sent: ")
        t.type("\x04")
        assert t.end() == 3
    r = chat(tmp, "", "--url", url)
    assert r.returncode == 3, r
    assert not (tmp / "data/server.json").exists()


@test
def the_local_key_is_for_its_owner_and_dies_with_the_server(tmp, serve):
    s = start(tmp, serve)
    f = tmp / "data/server.json"
    assert f.stat().st_mode & 0o777 == 0o600
    key = json.loads(f.read_text())["key"]
    h = {"authorization": "Bearer " + key, "anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01"}
    assert s.request("GET", "/v1/agents", headers=h)[0] == 200
    assert "local" not in run_cli("key", "list", "--data", str(tmp / "data")).stdout  # it is in no store
    s.stop()
    assert not f.exists()
    f.write_text("left over")
    f.chmod(0o644)
    with open(f) as spy:  # opened while others could
        s.start()
        assert spy.read() == "left over" and f.stat().st_mode & 0o777 == 0o600
    f.chmod(0o622)  # somebody else may have written it
    assert run_cli("reload", "--status", "--data", str(tmp / "data")).returncode == 3
    f.chmod(0o600)
    assert s.request("GET", "/v1/agents", headers=h)[0] == 401
    assert run_cli("reload", "--status", "--data", str(tmp / "data"), env={"ANTHROPIC_API_KEY": "sk-ant-x"}).returncode == 0
