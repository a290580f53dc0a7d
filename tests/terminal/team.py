"""attach, ps and why with sessions of several threads, outcomes and budgets. The model is tests/mock/play.py."""
import contextlib, json, re, subprocess, sys, urllib.request
from pathlib import Path
from kit import run_cli, test
from screen import Screen

TOP = Path(__file__).resolve().parents[2]
TOOLSET = {"type": "agent_toolset_20260401", "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]}
LOOKUP = {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": {"type": "object"}}
CONFIG = '''{ prices = { date = "2026-11-28", hour_usd = 0, models = { ["claude-test"] =
  { input = 1000, output = 0, cache_read = 0, cache_write_5m = 0, cache_write_1h = 0 } } },
  retries = { max = 3, base_ms = 20, cap_ms = 100 } }'''


class Stage:
    """A server and its model server; a lead over a child that does `part`."""
    def __init__(self, tmp, serve, mock):
        self.tmp, self.mock = tmp, mock
        (tmp / "config.lua").write_text("return " + CONFIG + "\n")
        self.s = serve("--config", str(tmp / "config.lua"),
                       env={"MOONRIG_ANTHROPIC_API_KEY": "sk-test-upstream", "MOONRIG_ANTHROPIC_BASE_URL": mock})

    def get(self, path):
        with urllib.request.urlopen(self.mock + path, timeout=60) as r:
            return json.loads(r.read())

    def at_gate(self, name):
        self.s.until("a request at the gate " + name, lambda: name in self.get("/waiting"))

    def lead(self, part, tools=(), **fields):
        child = self.s.agent(name="helper", system=f"when Begin do {part}", tools=list(tools))
        go = "[[tools create_agent " + json.dumps({"agent": "helper", "prompt": "Begin the work"}) + "]] ;; [[say Waiting.]]"
        lead = self.s.agent(name="lead", system=f"when ^Go do {go}\nwhen . do [[say Heard.]]", tools=[],
                            multiagent={"type": "coordinator", "agents": [{"type": "agent", "id": child["id"]}]})
        return self.s.session(lead, **fields)

    def attach(self, sid, *args, **size):
        return Screen(self.tmp, "attach", sid, "--data", str(self.tmp / "data"), *args, **size)

    def cli(self, *args):
        r = run_cli(*args, "--data", str(self.tmp / "data"))
        assert r.returncode == 0, r
        return r.stdout

    def types(self, sid):
        return [e["type"] for e in self.s.events(sid)]


@contextlib.contextmanager
def stage(tmp, serve):
    p = subprocess.Popen([sys.executable, str(TOP / "tests/mock/play.py"), "--key", "sk-test-upstream"], stdout=subprocess.PIPE, text=True)
    try:
        yield Stage(tmp, serve, f"http://127.0.0.1:{int(p.stdout.readline().split()[1])}")
    finally:
        p.terminate()
        p.wait()
        p.stdout.close()


@test
def attach_shows_and_approves_what_a_child_asks(tmp, serve):
    with stage(tmp, serve) as g:
        sid = g.lead('[[tool bash {"command":"echo ran"}]] ;; [[say Result {result}]]', tools=[TOOLSET])
        with g.attach(sid) as t:
            t.rests("with lead")
            t.enter("Go")
            t.wait(r"\+ thread helper \(sthr_\w+\)\n.*> helper: Begin the work\n.*\[helper\] runs\n")
            t.wait(r"\* \[helper\] bash \{\"command\":\"echo ran\"\}\n.*\? allow \[helper\] bash [^\n]*\n  y\(es\) [^\n]*:$")
            assert "waits for approval of bash" in g.cli("why", sid) and "thread helper" in g.cli("why", sid), g.cli("why", sid)
            assert "waits for approval of bash" in g.cli("ps") or "thread helper" in g.cli("ps"), g.cli("ps")
            t.enter("n not today")
            t.rests(r"< helper: Result [^\n]*not today.*\nHeard\.")
            assert "Waiting." in t.text(), t.text()
            t.enter("/quit")
            assert t.end() == 0
        sid = g.lead('[[tool bash {"command":"echo ran"}]] ;; [[say Result {result}]]', tools=[TOOLSET])
        g.s.say(sid, "Go")
        g.s.until("the question", lambda: g.types(sid).count("session.status_idle") == 1)
        with g.attach(sid, "--from", "start") as t:  # who comes later is asked, too
            t.wait(r"\? allow \[helper\] bash [^\n]*\n  y\(es\) [^\n]*:$")
            t.enter("n no")
            t.rests(r"Heard\.")
        ends = [e for e in g.s.events(sid) if e["type"] == "user.tool_confirmation"]
        assert [e["result"] for e in ends] == ["deny"], ends


@test
def attach_answers_a_child_while_the_lead_works(tmp, serve):
    with stage(tmp, serve) as g:
        sid = g.lead('[[tool lookup {"q":"x"}]] ;; [[say Result {result}]]', tools=[LOOKUP])
        with g.attach(sid) as t:
            t.rests("with lead")
            t.enter("Go")
            t.wait(r"\* \[helper\] lookup .*lookup is a tool that a client answers, [^\n]*\n.*  its result: *$")
            t.enter("found it")
            t.rests(r"< helper: Result found it\n.*Heard\.")


@test
def attach_shows_grading_and_the_budget(tmp, serve):
    with stage(tmp, serve) as g:
        writer = g.s.agent(name="writer", system="when is missing do [[gate revise]] [[say Revised.]]\nwhen Write do [[say Draft.]] [[usage in=10 out=0 read=0 write=0]]")
        sid = g.s.session(writer)
        with g.attach(sid) as t:
            t.rests("with writer")
            g.s.ok("POST", f"/v1/sessions/{sid}/events", {"events": [
                {"type": "user.define_outcome", "description": "Write it", "max_iterations": 3,
                 "rubric": {"type": "text", "content": "- done [[verdicts @grade needs_revision: A title is missing. | satisfied: All is there.]]"}}]})
            t.wait(r"Draft\.\n.*\(graded, iteration 0\)")
            g.at_gate("grade")
            assert "is being graded" in g.cli("why", sid)
            assert "is being graded" in g.cli("ps"), g.cli("ps")
            g.get("/open/grade")
            t.wait(r"\(outcome: needs_revision: A title is missing\.\)")
            g.at_gate("revise")
            assert "revision 1" in g.cli("why", sid), g.cli("why", sid)
            g.get("/open/revise")
            t.rests(r"Revised\.\n.*\(outcome: satisfied: All is there\.\)")
        sid = g.s.session(writer, budget={"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}})
        with g.attach(sid) as t:
            t.rests("with writer")
            t.enter("[[tool no_such_tool {}]] [[usage in=2000 out=0 read=0 write=0]] ;; [[say over]] [[usage in=1 out=0 read=0 write=0]]")
            t.rests(r"\(the budget of \$1\.00 is reached \(\$2\.00 spent\)[^\n]*\)")
            t.enter("more")
            t.rests(r"moonrig: not sent: [^\n]*budget")
            g.s.ok("POST", f"/v1/sessions/{sid}", {"budget": {"type": "limit", "max_list_cost": {"amount": "10000", "currency": "USD"}}})
            t.rests(r"\(changed: budget\)\n.*over")
            t.enter("/quit")
            assert t.end() == 0


@test
def ps_and_why_of_a_child_at_work(tmp, serve):
    with stage(tmp, serve) as g:
        sid = g.lead("[[gate work]] [[say Done.]]")
        g.s.say(sid, "Go")
        g.at_gate("work")
        g.s.until("the lead to be idle", lambda: "session.thread_status_idle" in g.types(sid))
        for out in (g.cli("why", sid), g.cli("ps")):
            assert re.search(r"thread helper: a model request", out), out
        with g.attach(sid) as t:
            t.wait(r"thread helper: a model request")
            g.get("/open/work")
            t.rests(r"< helper: Done\.\n.*\[helper\] rests.*Heard\.")
            t.enter("/quit")
            assert t.end() == 0
        again = g.lead("[[error 529 retry 60]] [[say never]]")
        g.s.say(again, "Go")
        g.s.until("a retry", lambda: "session.thread_status_rescheduled" in g.types(again) and g.s.status(again) == "rescheduling")
        assert re.search(r"thread helper: retry 1 of 3 in \d+ s", g.cli("why", again)), g.cli("why", again)
