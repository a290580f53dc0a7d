"""`moonrig worker` and `moonrig serve`: whole sessions, by the program on both ends."""
import signal, subprocess, time
from workers import SLOW, Worker, test
from kit import BIN, KEY, clean_env, user

# A message is lines of `NAME|key|value|key|value`: each line is one round's call. Then it says what came out.
MODEL = '''
local function text(m)
  if type(m.content) == "string" then return m.content end
  local out = {}
  for _, b in ipairs(m.content) do
    if b.type == "text" then out[#out + 1] = b.text end
    if b.type == "tool_result" then
      local c = b.content
      out[#out + 1] = (b.is_error and "!" or "") .. (type(c) == "string" and c or c and c[1] and c[1].text or "")
    end
  end
  return table.concat(out, "\\n")
end
return function(request)
  local at, results = 0, {}
  for i, m in ipairs(request.messages) do
    local c = type(m.content) == "table" and m.content[1] or {}
    if m.role == "user" and c.type ~= "tool_result" then at, results = i, {} end
    if c.type == "tool_result" then results[#results + 1] = text(m) end
  end
  local n = 0
  for line in text(request.messages[at]):gmatch "[^\\n]+" do
    n = n + 1
    if n > #results then
      local name, rest = line:match "^([^|]+)|?(.*)$"
      local input, key = {}, nil
      for part in rest:gmatch "[^|]+" do
        if key then input[key], key = part, nil else key = part end
      end
      return { { type = "tool_use", name = name, input = input } }
    end
  end
  return "results: " .. table.concat(results, " / ")
end
'''
TOOLSET = {"type": "agent_toolset_20260401"}


class House:
    """A server with a self-hosted environment, and workers of its queue."""

    def __init__(self, tmp, serve):
        (tmp / "model.lua").write_text(MODEL)
        self.tmp, self.server, self.workers = tmp, serve("--offline", str(tmp / "model.lua")), []
        self.environment = self.server.ok("POST", "/v1/environments", {"name": "own", "config": {"type": "self_hosted"}})["id"]
        self.key = self.server.ok("POST", "/moonrig/v1/keys", {"name": "w", "environment_id": self.environment})["key"]

    def work(self, *args, **k):
        w = Worker(self.tmp, f"http://127.0.0.1:{self.server.port}", *args, environment=self.environment, key=self.key, **k)
        self.workers.append(w)
        return w

    def session(self, *lines, tools=TOOLSET):
        agent = self.server.agent(tools=[tools])["id"]
        return self.server.ok("POST", "/v1/sessions", {"agent": agent, "environment_id": self.environment,
                                                       "initial_events": [user("\n".join(lines))] if lines else []})["id"]

    def say(self, sid, *lines):
        self.server.say(sid, "\n".join(lines))

    def items(self):
        return self.server.request("GET", f"/v1/environments/{self.environment}/work", headers={
            "authorization": "Bearer " + self.key, "anthropic-version": "2026-10-21",
            "anthropic-beta": "managed-agents-2026-04-01"})[1]["data"]

    def said(self, sid, n=1, limit=60):
        """What the agent said at the end of the n-th turn."""
        def look():
            events = self.server.events(sid)
            over = [e for e in events if e["type"] == "session.status_idle" and e["stop_reason"]["type"] == "end_turn"]
            return len(over) >= n and [e["content"][0]["text"] for e in events if e["type"] == "agent.message"][-1]
        return self.until(f"turn {n}", look, limit)

    def until(self, what, fn, limit=60):
        end = time.monotonic() + limit * SLOW
        while True:
            v = fn()
            if v:
                return v
            assert time.monotonic() < end, f"waited in vain for {what}\n" + "\n".join(w.text()[-3000:] for w in self.workers)
            time.sleep(0.05)

    def running(self, worker, command):
        self.until(command, lambda: any(command in c for c in worker.processes()))


def house_test(fn):
    def run(tmp, serve):
        h = House(tmp, serve)
        try:
            fn(h)
        finally:
            for w in h.workers:
                w.close()
    run.__name__ = "ours_" + fn.__name__
    return test(run)


@house_test
def a_session_with_bash_and_the_file_tools(h):
    w = h.work("--idle", "3")
    s = h.session("bash|command|cd /tmp; X=7; echo one", "write|file_path|/workspace/a.txt|content|alpha",
                  "edit|file_path|/workspace/a.txt|old_string|alpha|new_string|beta", "read|file_path|/workspace/a.txt",
                  "glob|pattern|*.txt", "grep|pattern|bet+a", "bash|command|echo $X; pwd; false", "read|file_path|/workspace/none")
    out = h.said(s).removeprefix("results: ").split(" / ")
    assert out[0] == "one" and "beta" in out[3] and "a.txt" in out[4] and "beta" in out[5], out
    assert out[6] == "!7\n/tmp" and out[7].startswith("!"), out
    h.until("the end of the item", lambda: [i["state"] for i in h.items()] == ["stopped"])
    events = h.server.events(s)
    assert [e["tool_use_id"] for e in events if e["type"] == "user.tool_result"] == \
        [e["id"] for e in events if e["type"] == "agent.tool_use"]
    h.say(s, "bash|command|echo $(cat /workspace/a.txt); echo $X")  # another item, the same sandbox
    assert h.said(s, 2) == "results: beta\n7"
    h.until("the end of the item", lambda: [i["state"] for i in h.items()] == ["stopped"] * 2)
    assert w.stop() == 0 and w.processes() == []


@house_test
def chat_and_scripts_wait_for_the_worker(h):
    """Its calls are not asked about: neither answer would be taken."""
    h.work("--idle", "3")
    s = h.session()
    cli = ["--url", f"http://127.0.0.1:{h.server.port}", "--key", KEY]
    p = subprocess.run([BIN, "chat", "--session", s, *cli], input="bash|command|sleep 1; echo from chat\n", text=True,
                       capture_output=True, timeout=120 * SLOW, env=clean_env())
    assert p.returncode == 0 and "results: from chat" in p.stdout and "allow bash" not in p.stdout, (p.stdout, p.stderr)
    (h.tmp / "ask.lua").write_text(f'''
local rig = require "moonrig"
rig.main(function()
  local server = assert(rig.connect {{ base_url = "http://127.0.0.1:{h.server.port}", api_key = "{KEY}" }})
  local turn = assert(server.session "{s}":ask "bash|command|sleep 1; echo from lua")
  while turn.stop_reason == "requires_action" do turn = assert(turn:wait {{ timeout = 60 }}) end
  print(turn.stop_reason, turn.text)
end)''')
    p = subprocess.run([BIN, "run", str(h.tmp / "ask.lua"), "--data", str(h.tmp / "script")], text=True, capture_output=True,
                       timeout=120 * SLOW, env=clean_env())
    assert p.returncode == 0 and "end_turn\tresults: from lua" in p.stdout, (p.stdout, p.stderr)


@house_test
def confirmations(h):
    h.work()
    ask = dict(TOOLSET, default_config={"permission_policy": {"type": "always_ask"}})
    for verdict in ("allow", "deny"):
        s = h.session("bash|command|echo ran", tools=ask)
        call = h.until("the call", lambda: [e["id"] for e in h.server.events(s) if e["type"] == "agent.tool_use"])[0]
        time.sleep(1)
        assert not [e for e in h.server.events(s) if e["type"].endswith("tool_result")]
        h.server.ok("POST", f"/v1/sessions/{s}/events", {"events": [
            dict({"type": "user.tool_confirmation", "tool_use_id": call, "result": verdict}, **({"deny_message": "no"} if verdict == "deny" else {}))]})
        out = h.said(s)
        assert (out == "results: ran") == (verdict == "allow") and ("!" in out) == (verdict == "deny"), out


@house_test
def one_is_killed_and_another_claims(h):
    one = h.work("--lease", "10", name="one")
    s = h.session("bash|command|while [ ! -e /tmp/go ]; do sleep 0.21; done; echo by $(cat /tmp/go)")
    h.running(one, "sleep 0.21")
    two = h.work("--lease", "10", name="two")
    two.said("waiting for work")
    one.p.kill()
    h.running(two, "sleep 0.21")  # once the lease has run out
    call = h.until("the call", lambda: [e["id"] for e in h.server.events(s) if e["type"] == "agent.tool_use"])[0]
    two.put("/tmp/go", "the second")
    assert h.said(s) == "results: by the second"
    results = [e for e in h.server.events(s) if e["type"] == "user.tool_result"]
    assert [e["tool_use_id"] for e in results] == [call], results
    assert [i["state"] for i in h.items()] == ["active"]


@house_test
def a_worker_drains_and_another_goes_on(h):
    one = h.work(name="one")
    s = h.session("bash|command|while [ ! -e /tmp/go ]; do sleep 0.22; done; echo first", "bash|command|echo second")
    h.running(one, "sleep 0.22")
    one.p.send_signal(signal.SIGTERM)
    one.said("what runs has 30 s")
    one.put("/tmp/go")
    assert one.ended() == 0 and one.processes() == []
    two = h.work(name="two")
    said = h.said(s)
    assert said == "results: first / second", (said, one.text(), two.text())
    assert "second" not in one.text() and two.text().count(": runs") == 1


@house_test
def interrupts_and_archives_end_commands(h):
    w = h.work("--idle", "3")
    s = h.session("bash|command|sleep 618")
    h.running(w, "sleep 618")
    h.server.ok("POST", f"/v1/sessions/{s}/events", {"events": [{"type": "user.interrupt"}]})
    h.until("the command's end", lambda: not any("sleep 618" in c for c in w.processes()))
    h.until("the end of the item", lambda: [i["state"] for i in h.items()] == ["stopped"])
    h.say(s, "bash|command|echo again", "bash|command|sleep 619")
    h.running(w, "sleep 619")
    h.server.ok("POST", f"/v1/sessions/{s}/events", {"events": [{"type": "user.interrupt"}]})
    h.until("rest", lambda: h.server.status(s) == "idle")
    h.server.ok("POST", f"/v1/sessions/{s}/archive")
    h.until("the end of both", lambda: [i["state"] for i in h.items()] == ["stopped"] * 2)
    h.until("the sandbox's end", lambda: w.processes() == [])


@house_test
def the_server_is_killed_and_comes_back(h):
    s = h.session("bash|command|echo x >> count; while [ ! -e /tmp/go ]; do sleep 0.23; done; cat count")
    h.server.stop()
    h.server.listen = f"127.0.0.1:{h.server.port}"
    h.server.start()
    w = h.work()
    h.running(w, "sleep 0.23")
    h.server.stop(signal.SIGKILL)
    w.put("/tmp/go")
    w.said("not sent")
    h.server.start()
    assert h.said(s) == "results: x"


@house_test
def two_workers_share_a_queue(h):
    workers = [h.work("--max-sessions", "2", "--idle", "1", name=n) for n in ("one", "two")]
    sessions = [h.session("bash|command|echo session; sleep 1", "bash|command|pwd") for _ in range(8)]
    for s in sessions:
        assert h.said(s, limit=120) == "results: session / /workspace"
    assert all(": runs" in w.text() for w in workers)
    assert sum(w.text().count(": runs") for w in workers) == 16
