"""The worked traces of the session API (sessions §16) as files in golden/, compared whole: every event, its order and
its fields, on the stream and in the list, of children on theirs.

Files are in a normal form: ids are numbered by kind as they come up (<sevt 1>), times are <time>, seconds <seconds>,
cents <cents>; the pieces of a preview are joined. Usage figures are those that the model server was told to report.
Lines that begin with # are remarks. MOONRIG_GOLDEN=write writes what came instead of comparing: to be read, then."""
import json
import os
import re
from pathlib import Path

from kit import ID, TIME, TOP, equal, last, message, said, test, text, true, types
from stage import (TOOLSET, agents, answer, at_gate, calls, confirm, custom, fresh, gate, idles, interrupt, needs_sandbox, of_thread, outcome, policy, rules,
                   spawn, thread, thread_events, thread_stream, threads, until_idle)

DIR = Path(TOP) / "tests/api/golden"


def use(given, out):
    return f"[[usage in={given} out={out} read=0 write=0]]"


class Form:
    """The normal form of events; one for all streams of a session, so that a thread has one name."""

    def __init__(self):
        self.names, self.counts = {}, {}

    def name(self, m):
        kind = m[0].split("_")[0]
        if m[0] not in self.names:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.names[m[0]] = f"<{kind} {self.counts[kind]}>"
        return self.names[m[0]]

    def forget_events(self):
        """A child's stream numbers its own events anew."""
        self.names = {k: v for k, v in self.names.items() if not k.startswith("sevt_")}
        self.counts.pop("sevt", None)

    def of(self, v, key=None):
        if key == "active_seconds" and isinstance(v, (int, float)):
            return "<seconds>"
        if isinstance(v, dict):
            return {k: "<cents>" if k == "amount" and key == "list_cost" and re.fullmatch(r"\d+", str(x)) else self.of(x, k) for k, x in v.items()}
        if isinstance(v, list):
            return [self.of(x) for x in v]
        if isinstance(v, str):
            return "<time>" if key == "processed_at" and TIME.fullmatch(v) else ID.sub(self.name, v)
        return v

    def events(self, events):
        return [self.of(e) for e in joined(events)]


def joined(events):
    """Deltas that follow each other as one."""
    out = []
    for e in json.loads(json.dumps(events)):
        if e["type"] == "event_delta" and out and out[-1]["type"] == "event_delta" and out[-1]["event_id"] == e["event_id"] \
                and out[-1]["delta"].get("index", 0) == e["delta"].get("index", 0):
            out[-1]["delta"]["content"]["text"] += e["delta"]["content"]["text"]
        else:
            out.append(e)
    return out


def same(name, form, events):
    path = DIR / (name + ".jsonl")
    have = form.events(events)
    if os.environ.get("MOONRIG_GOLDEN") == "write":
        path.write_text("".join(json.dumps(e, ensure_ascii=False) + "\n" for e in have))
        return
    want = [json.loads(line) for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    for i, (h, x) in enumerate(zip(have, want)):
        equal(h, x, f"{name}, event {i + 1}")
    equal([e["type"] for e in have], [e["type"] for e in want], name)


def compare(w, s, name, feed, form=None):
    """Stream and list of a session against the file."""
    form = form or Form()
    events = [e for e in feed.events if not e["type"].startswith("event_")]
    same(name, form, events)
    equal(w.events(s), events, "the list")
    return form


def session(w, name, *tools, system=None, **fields):
    return w.session(agent=w.new_agent(name=name, system=system, tools=list(tools))["id"], **fields)


@test(model=True)
def t_065_trace_A_a_simple_turn(w):
    s = session(w, "assistant", system=rules(("Say hi", f"[[say Hello!]] [[slow 2 ms]] {use(812, 6)}")))
    with w.stream(s) as plain, w.stream(s, "?event_deltas[]=agent.message") as previews:
        w.send(s, message("Say hi"))
        until_idle(plain)
        until_idle(previews)
        compare(w, s, "A", plain)
        same("A-previews", Form(), previews.events)
        equal([e for e in previews.events if not e["type"].startswith("event_")], plain.events)


@test(model=True)
def t_077_trace_B_a_tool_that_asks_is_allowed(w):
    needs_sandbox()
    s = session(w, "assistant", policy("bash", "always_ask"),
                system=rules(("Delete", f'[[say I will remove build/.]] [[tool bash {{"command":"rm -rf build"}}]] {use(900, 60)} ;; [[say Done.]] {use(990, 8)}')))
    with w.stream(s) as feed:
        w.send(s, message("Delete build/"))
        until_idle(feed, "requires_action")
        w.send(s, confirm(last(feed.events, "agent.tool_use")["id"]))
        until_idle(feed)
        compare(w, s, "B", feed)


@test(model=True)
def t_079_trace_B_prime_the_same_call_denied(w):
    s = session(w, "assistant", policy("bash", "always_ask"),
                system=rules(("Delete", f'[[say I will remove build/.]] [[tool bash {{"command":"rm -rf build"}}]] {use(900, 60)} ;; [[say I will use staging.]] {use(1010, 9)}')))
    with w.stream(s) as feed:
        w.send(s, message("Delete build/"))
        until_idle(feed, "requires_action")
        w.send(s, confirm(last(feed.events, "agent.tool_use")["id"], "deny", deny_message="Use staging."))
        until_idle(feed)
        compare(w, s, "B-prime", feed)


@test(model=True)
def t_078_trace_C_two_custom_calls_answered_one_by_one(w):
    s = session(w, "assistant", custom("get_weather"),
                system=rules(("Weather", calls(("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})) + f" {use(700, 70)} ;; [[say Oslo 4 C, Rome 18 C.]] {use(800, 20)}")))
    with w.stream(s) as feed:
        w.send(s, message("Weather in Oslo and Rome?"))
        until_idle(feed, "requires_action")
        oslo, rome = [e["id"] for e in feed.events if e["type"] == "agent.custom_tool_use"]
        w.send(s, answer(oslo, "4 C", is_error=False))
        until_idle(feed, "requires_action", 2)
        w.send(s, answer(rome, "18 C", is_error=False))
        until_idle(feed)
        compare(w, s, "C", feed)


@test(model=True)
def t_084_trace_D_interrupt_and_redirect(w):
    s = session(w, "assistant", system=rules(("essay", f"[[long 10000]] [[slow 20 ms]] {use(820, 310)}"), ("3 lines", f"[[say One. Two. Three.]] {use(850, 12)}")))
    with w.stream(s) as feed, w.stream(s, "?event_deltas[]=agent.message") as previews:
        w.send(s, message("Write a 10,000 word essay"))
        previews.until(lambda all_: "event_delta" in types(all_), "the essay to begin")
        sent = w.send(s, interrupt(), message("Just 3 lines."))
        form = Form()
        equal([{k: v for k, v in e.items() if k != "id"} for e in sent],
              [{"type": "user.interrupt", "processed_at": None}, {"type": "user.message", "content": text("Just 3 lines."), "processed_at": None}])
        until_idle(feed, n=2)
        compare(w, s, "D", feed, form)
        equal([e["id"] for e in sent], [next(e["id"] for e in feed.events if e["type"] == "user.interrupt"), last(feed.events, "user.message")["id"]])


@test(model=True)
def t_089_trace_E_an_outcome_of_two_iterations(w):
    needs_sandbox()
    report = "/mnt/session/outputs/report.md"
    write = calls(("write", {"file_path": report, "content": "# Report"}))
    edit = calls(("edit", {"file_path": report, "old_string": "# Report", "new_string": "# Report\n\n## Sources"}))
    s = session(w, "writer", TOOLSET, system=rules(("No Sources", f"{edit} {use(1500, 90)} ;; [[say Added Sources.]] {use(1600, 15)}"),
                                                   ("Write /mnt", f"{write} {use(1000, 200)} ;; [[say Draft written.]] {use(1200, 20)}")))
    rubric = "- has a Sources section [[verdicts needs_revision: No Sources section. | satisfied: Sources section present.]]"
    with w.stream(s) as feed:
        (e,) = w.send(s, outcome("Write " + report, rubric))
        until_idle(feed)
        compare(w, s, "E", feed)
        equal(e, feed.events[0], "the echo is the event")


@test(model=True)
def t_094_trace_F_a_coordinator_with_two_children(w):
    needs_sandbox()
    one, two = fresh(), fresh()
    f = w.upload("utils.c", b"int main(void);\n").json
    reviewer = w.new_agent(name="reviewer", tools=[TOOLSET], system=rules(
        ("Review", f'[[gate {one}]] [[tool read {{"file_path":"/mnt/session/uploads/utils.c"}}]] {use(400, 40)} ;; [[say 1 issue at line 42.]] {use(900, 60)}')))
    tester = w.new_agent(name="tester", tools=[policy("bash", "always_ask")], system=rules(
        ("Write tests", f'[[gate {two}]] [[tool bash {{"command":"echo 12 passed"}}]] {use(300, 30)} ;; [[say 12 tests pass.]] {use(500, 20)}')))
    lead = agents(w, reviewer["id"], tester["id"], name="lead", system=rules(
        ("12 tests", f"[[say Summary: 1 issue, 12 tests pass.]] {use(2100, 30)}"), ("1 issue", f"[[say Reviewer found 1 issue; tests pending.]] {use(1900, 14)}"),
        ("Review and test", calls(spawn("reviewer", "Review utils.c"), spawn("tester", "Write tests for utils.c")) +
         f" {use(1500, 180)} ;; [[say Delegated; waiting for both.]] {use(1700, 12)}")))
    s = w.session(agent=lead["id"], resources=[{"type": "file", "file_id": f["id"], "mount_path": "/utils.c"}])
    with w.stream(s) as feed:
        w.send(s, message("Review and test utils.c"))
        primary = next(t["id"] for t in threads(w, s) if not t["parent_thread_id"])
        yields = lambda n: feed.until(lambda all_: of_thread(all_, primary).count("session.thread_status_idle") >= n, f"the lead to yield {n} times", 60)
        yields(1)
        at_gate(w, one)
        at_gate(w, two)
        with thread_stream(w, s, thread(w, s, "reviewer")) as r, thread_stream(w, s, thread(w, s, "tester")) as t:
            gate(w, one)
            yields(2)
            gate(w, two)
            until_idle(feed, "requires_action")
            (stored,) = w.send(s, confirm(last(feed.events, "agent.tool_use")["id"]))
            until_idle(feed)
            form = compare(w, s, "F", feed)
            true(said(feed.events)[-1].startswith("Summary"), said(feed.events))
            for name, own in (("reviewer", r), ("tester", t)):
                mine = thread_events(w, s, thread(w, s, name))
                end = own.until(lambda all_: len(all_) >= 1 and all_[-1]["id"] == mine[-1]["id"], "its last event", 60)
                equal([e for e in end if not e["type"].startswith("event_")], mine[-len(end):], "what its own stream showed since it was opened")
                form.forget_events()
                # The answer's copy may or may not repeat the thread that it was routed to.
                same("F-" + name, form, [{k: v for k, v in e.items() if k != "session_thread_id" or not e["type"].startswith("user.")} for e in mine])
            equal(stored["session_thread_id"], thread(w, s, "tester")["id"])
    equal(len(idles(feed.events)), 2, "blocked, and done")
