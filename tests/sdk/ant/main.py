"""main.py - a story told with ant: agents, environments, sessions, streams, tools, threads, outcomes, budgets.

Each command has a name under which its requests stand in wire.json. What a command prints is compared with what the
API says; event orders are those of the worked traces (API: sessions).
"""
import json
import os
import sys
import traceback
import uuid

from ant import WIRE, Live, Recorded

program, only = os.environ.get("MOONRIG_ANT"), [a for a in sys.argv[1:] if a != "--record"]
record = "--record" in sys.argv
ant = Live(program) if program else Recorded()
known = ant.names.known
TESTS = []
MODEL = "claude-opus-4-7"
BEGIN = ["session.status_running", "session.thread_status_running"]
TURN = ["span.model_request_start", "agent.message", "span.model_request_end"]
TRIPLE = ["session.thread_status_idle", "session.usage", "session.status_idle"]
ASK = {"type": "agent_toolset_20260401", "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]}


def test(name):
    return lambda fn: TESTS.append((name, fn))


def same(got, want):
    assert got == want, "\n  got:  %r\n  want: %r" % (got, want)


def types(events):
    return [e["type"] for e in events]


def of(events, kind):
    return [e for e in events if e["type"] == kind]


def said(events):
    return [b["text"] for e in of(events, "agent.message") for b in e["content"]]


def message(s):
    return {"type": "user.message", "content": [{"type": "text", "text": s}]}


def send(step, session, *events):
    words = [w for e in events for w in ("--event", json.dumps(e))]
    return ant.run(step, "beta:sessions:events", "send", "--session-id", known[session], *words)


def opened(name, agent="agent", body=None):
    """A session by the name, and its stream."""
    agent_id, environment = ("--agent", known[agent]), ("--environment-id", known["environment"])
    ant.new_id("%s/create" % name, name, "beta:sessions", "create", *agent_id, *environment, body=body)
    return ant.stream("%s/stream" % name, "beta:sessions:events", "stream", "--session-id", known[name])


@test("crud/agent")
def _():
    ant.new_id("agent/create", "agent", "beta:agents", "create", "--name", "clerk", "--model", "{id: %s}" % MODEL,
               "--system", "You keep the books.", "--tool", json.dumps(ASK), "--metadata", "{team: finance}")
    agent = ant.run("agent/retrieve", "beta:agents", "retrieve", "--agent-id", known["agent"]).one
    same((agent["name"], agent["version"], agent["metadata"]), ("clerk", 1, {"team": "finance"}))
    two = ant.run("agent/update", "beta:agents", "update", "--agent-id", known["agent"], "--version", "1", "--description", "Keeps books").one
    same((two["version"], two["description"]), (2, "Keeps books"))
    versions = ant.run("agent/versions", "beta:agents:versions", "list", "--agent-id", known["agent"], "--limit", "1").all
    same([v["version"] for v in versions], [2, 1])
    assert known["agent"] in [a["id"] for a in ant.run("agent/list", "beta:agents", "list").all]


@test("crud/environment")
def _():
    ant.new_id("environment/create", "environment", "beta:environments", "create", "--name", "office",
               "--config", "{type: cloud, networking: {type: limited, allowed_hosts: [example.com]}}")
    got = ant.run("environment/retrieve", "beta:environments", "retrieve", "--environment-id", known["environment"]).one
    same((got["name"], got["config"]["networking"]["allowed_hosts"]), ("office", ["example.com"]))
    assert "default" in [e["name"] for e in ant.run("environment/list", "beta:environments", "list").all]


@test("session/stream-send-list-archive")
def _():
    stream = opened("plain")
    sent = send("plain/send", "plain", message("[[say Hello from the ledger.]]")).one["data"]
    events = stream.idle()
    old = "session.usage" not in types(events)  # 1.x does not know it, and lets it pass by
    same(types(events), [t for t in [*BEGIN, "user.message", *TURN, *TRIPLE] if not (old and t == "session.usage")])
    same((said(events), events[2]["id"]), (["Hello from the ledger."], sent[0]["id"]))
    listed = ant.run("plain/list", "beta:sessions:events", "list", "--session-id", known["plain"], "--limit", "2").all
    same([e for e in listed if not (old and e["type"] == "session.usage")], events)
    some = ant.run("plain/some", "beta:sessions:events", "list", "--session-id", known["plain"], "--type", "agent.message", "--type", "user.message").all
    same(types(some), ["user.message", "agent.message"])
    got = ant.run("plain/retrieve", "beta:sessions", "retrieve", "--session-id", known["plain"]).one
    same((got["status"], got["agent"]["version"]), ("idle", 2))
    sessions = ant.run("plain/sessions", "beta:sessions", "list", "--agent-id", known["agent"], "--status", "idle", "--limit", "1").all
    same(sessions[0]["id"], known["plain"])
    updated = ant.run("plain/update", "beta:sessions", "update", "--session-id", known["plain"], "--title", "March").one
    same(updated["title"], "March")
    done = ant.run("plain/archive", "beta:sessions", "archive", "--session-id", known["plain"]).one
    same(done["status"], "terminated")
    stream.until(lambda all: "session.status_terminated" in types(all), "the end")
    same(ant.run("plain/delete", "beta:sessions", "delete", "--session-id", known["plain"]).one["type"], "session_deleted")


@test("session/previews-and-an-interrupted-stream")
def _():
    opened("previewed").end()
    stream = ant.stream("previewed/deltas", "beta:sessions:events", "stream", "--session-id", known["previewed"], "--event-delta", "agent.message")
    send("previewed/send", "previewed", message("[[say One two three four five.]] [[slow 5 ms]]"))
    events = stream.idle()
    seen = "".join(e["delta"]["content"]["text"] for e in of(events, "event_delta"))
    whole, = of(events, "agent.message")
    same(of(events, "event_start")[0]["event"]["id"], whole["id"])
    assert seen and whole["content"][0]["text"].startswith(seen)
    stream.end()
    same(ant.run("previewed/retrieve", "beta:sessions", "retrieve", "--session-id", known["previewed"]).one["status"], "idle")


@test("confirmation/allow-and-deny")
def _():
    stream = opened("asked")
    send("asked/send", "asked", message('[[tool bash {"command":"echo $((6*7))"}]] ;; [[say {result}]]'))
    asked = stream.idle(reason="requires_action")
    use, = of(asked, "agent.tool_use")
    known["use"] = use["id"]
    same((use["evaluated_permission"], asked[-1]["stop_reason"]["event_ids"]), ("ask", [use["id"]]))
    refused = send("asked/refused", "asked", message("hello?"))
    assert refused.status == 1 and "waiting on responses to events [%s]" % use["id"] in refused.error, refused.error
    send("asked/allow", "asked", {"type": "user.tool_confirmation", "tool_use_id": use["id"], "result": "allow"}).one
    rest = stream.idle(len(asked))
    assert of(rest, "agent.tool_result"), types(rest)
    if os.environ["SDK_SANDBOX"]:
        same(said(rest), ["42"])
    before = len(asked) + len(rest)
    send("asked/again", "asked", message('[[tool bash {"command":"rm -rf build"}]] ;; [[say {result}]]'))
    more = stream.idle(before, "requires_action")
    known["use"] = of(more, "agent.tool_use")[0]["id"]
    deny = {"type": "user.tool_confirmation", "tool_use_id": known["use"], "result": "deny", "deny_message": "Use staging."}
    send("asked/deny", "asked", deny).one
    assert "Use staging." in said(stream.idle(before + len(more)))[0]
    stream.end()


@test("interrupt/and-redirect")
def _():
    stream = opened("stopped")
    send("stopped/send", "stopped", message("[[long 4000]] [[slow 20 ms]]"))
    stream.until(lambda all: of(all, "span.model_request_start"), "the model to be asked")
    send("stopped/stop", "stopped", {"type": "user.interrupt"}, message("[[say Just three lines.]]")).one
    events = stream.until(lambda all: len(of(all, "session.status_idle")) == 2, "two idles")
    same(said(events), ["Just three lines."])
    stream.end()


@test("threads/list-and-stream")
def _():
    opened("threaded").end()
    thread = ant.run("threaded/threads", "beta:sessions:threads", "list", "--session-id", known["threaded"]).one
    known["thread"] = thread["id"]
    same(thread["parent_thread_id"], None)
    on = ["--session-id", known["threaded"], "--thread-id", thread["id"]]
    same(ant.run("threaded/retrieve", "beta:sessions:threads", "retrieve", *on).one["id"], thread["id"])
    stream = ant.stream("threaded/thread-stream", "beta:sessions:threads:events", "stream", *on)
    send("threaded/send", "threaded", message("[[say On the thread.]]"))
    events = stream.until(lambda all: of(all, "session.thread_status_idle"), "the thread to be idle")
    same(said(events), ["On the thread."])
    listed = ant.run("threaded/thread-list", "beta:sessions:threads:events", "list", *on).all
    assert [e["id"] for e in events][0] == listed[0]["id"]
    stream.end()


@test("errors/status-and-message")
def _():
    r = ant.run("errors/unknown", "beta:agents", "retrieve", "--agent-id", "agent_01" + "2" * 22)
    assert r.status == 1 and "404" in r.error, r.error
    r = ant.run("errors/message", "--transform-error", "error.message", "--format-error", "yaml", "beta:agents", "create", "--name", "",
                "--model", "{id: %s}" % MODEL)
    assert r.status == 1 and "name" in r.error, r.error


@test("outcome/two-iterations")
def _():
    stream = opened("graded")
    known["nonce"] = uuid.uuid4().hex
    grades = [{"result": "needs_revision", "explanation": "No sources. [[say Draft two.]]"},
              {"result": "satisfied", "explanation": "Sources are named."}]
    verdicts = " | ".join(json.dumps(dict(g, nonce=known["nonce"])) for g in grades)
    outcome = {"type": "user.define_outcome", "description": "[[say Draft one.]]",
               "rubric": {"type": "text", "content": "Names its sources. [[verdict %s]]" % verdicts}}
    assert send("graded/define", "graded", outcome).one["data"][0]["outcome_id"].startswith("outc_")
    events = stream.idle()
    same([e["result"] for e in of(events, "span.outcome_evaluation_end")], ["needs_revision", "satisfied"])
    same(said(events), ["Draft one.", "Draft two."])
    got = ant.run("graded/retrieve", "beta:sessions", "retrieve", "--session-id", known["graded"]).one
    same(got["outcome_evaluations"][0]["result"], "satisfied")
    stream.end()


@test("coordinator/two-threads-and-a-cross-posted-confirmation")
def _():
    for name, tools in [("reviewer", []), ("tester", [ASK])]:
        ant.new_id("team/" + name, name, "beta:agents", "create", "--name", name, "--model", "{id: %s}" % MODEL,
                   *[w for t in tools for w in ("--tool", json.dumps(t))])
    ant.new_id("team/lead", "lead", "beta:agents", "create", "--name", "lead", "--model", "{id: %s}" % MODEL,
               "--multiagent", json.dumps({"type": "coordinator", "agents": [known["reviewer"], known["tester"]]}))
    stream = opened("team", "lead")
    tasks = [("reviewer", "[[say 1 issue at line 42.]]"), ("tester", '[[tool bash {"command":"make test"}]] ;; [[say 12 tests pass.]]')]
    calls = " | ".join("create_agent " + json.dumps({"agent": a, "prompt": p}) for a, p in tasks)
    send("team/send", "team", message("[[tools %s]] ;; [[say Delegated.]]" % calls))
    first = stream.idle(reason="requires_action")
    created = {e["agent_name"]: e["session_thread_id"] for e in of(first, "session.thread_created")}
    same(sorted(created), ["reviewer", "tester"])
    use, = of(first, "agent.tool_use")
    same(use["session_thread_id"], created["tester"])
    known["use"], known["thread"] = use["id"], created["tester"]
    threads = ant.run("team/threads", "beta:sessions:threads", "list", "--session-id", known["team"]).all
    same([t["agent"]["name"] for t in threads], ["lead", "reviewer", "tester"])
    on = ["--session-id", known["team"], "--thread-id", known["thread"]]
    child = ant.stream("team/child", "beta:sessions:threads:events", "stream", *on)
    send("team/allow", "team", {"type": "user.tool_confirmation", "tool_use_id": use["id"], "result": "allow"}).one
    report, = of(stream.idle(len(first)), "agent.thread_message_received")
    same(report["content"][0]["text"], "12 tests pass.")
    child.until(lambda all: of(all, "agent.tool_result") and of(all, "session.thread_status_idle"), "the child to be idle")
    child.end(), stream.end()


def budget(cents):
    return {"budget": {"type": "limit", "max_list_cost": {"amount": cents, "currency": "USD"}}}


@test("budget/pause-and-raise")
def _():
    stock = {"type": "custom", "name": "stock_level", "description": "d", "input_schema": {"type": "object"}}
    ant.new_id("spender/agent", "spender", "beta:agents", "create", "--name", "spender", "--model", "{id: %s}" % MODEL, "--tool", json.dumps(stock))
    stream = opened("spent", "spender", body=budget("10"))
    send("spent/send", "spent", message('[[tool stock_level {"article":"nails"}]] [[usage in=1000 out=10000]] ;; [[say Done.]]'))
    paused = stream.idle(reason="budget_reached")
    refused = send("spent/refused", "spent", message("go on"))
    assert refused.status == 1 and "400" in refused.error, refused.error
    ant.run("spent/raise", "beta:sessions", "update", "--session-id", known["spent"], body=budget("1000000")).one
    same(said(stream.idle(len(paused))), ["Done."])
    stream.end()


@test("apply/what-a-second-run-rests-on")
def _():
    """A declarative tool that finds the same thing as before changes nothing: an echo that stays, no new version."""
    first = ant.run("again/retrieve", "beta:agents", "retrieve", "--agent-id", known["agent"]).one
    words = ["--agent-id", known["agent"], "--version", "2", "--name", "clerk", "--model", "{id: %s}" % MODEL, "--description", "Keeps books",
             "--system", "You keep the books.", "--tool", json.dumps([ASK]), "--metadata", "{team: finance}"]
    same(ant.run("again/update", "beta:agents", "update", *words).one, first)
    same(ant.run("again/twice", "beta:agents", "retrieve", "--agent-id", known["agent"]).one, first)
    office = ant.run("again/environment", "beta:environments", "retrieve", "--environment-id", known["environment"]).one
    words = ["--environment-id", known["environment"], "--name", "office",
             "--config", "{type: cloud, networking: {type: limited, allowed_hosts: [example.com]}}"]
    now = ant.run("again/same-environment", "beta:environments", "update", *words).one
    same(dict(now, updated_at=office["updated_at"]), office)  # it has no versions, so a time is all that may differ


@test("old-clients/key-header-version-and-beta-parameter")
def _():
    requests = [r for step in ant.steps.values() for r in step]
    old = ant.version.startswith("1.")
    same({"x-api-key" in r["headers"] for r in requests}, {old})
    same({"authorization" in r["headers"] for r in requests}, {not old})
    same({r["headers"]["anthropic-version"] for r in requests}, {"2023-06-01" if old else "2026-10-21"})
    if old:
        same({"beta=true" in r["path"] for r in requests}, {True})


def main():
    failed = 0
    print("ok world/ant-%s%s" % (ant.version, "" if program else "-by-its-requests"))
    for name, fn in TESTS:
        if only and not any(name.startswith(o) or o.startswith(name.split("/")[0]) for o in only):
            continue
        try:
            fn()
            print("ok " + name, flush=True)
        except Exception:
            failed += 1
            print("not ok " + name)
            print("".join("  " + x for x in traceback.format_exc().splitlines(True)[-20:]), flush=True)
    if record and program:
        ant.save()
        print("wrote %s" % WIRE)
    sys.stdout.flush()
    os._exit(1 if failed else 0)


main()
