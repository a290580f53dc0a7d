"""What the tests of the session checklist share beyond kit.py: answers, plays of several parts on the model server
(rules of agents, gates), coordinators and their threads, servers with a configuration of their own."""
import contextlib
import itertools
import json
import os
import subprocess

from kit import BIN, KEY, UPSTREAM_KEY, Server, Skip, World, equal, message, text, true, types, wait

LIMIT = 60
_names = itertools.count(1)
TOOLSET = {"type": "agent_toolset_20260401"}
RETRIES = "retries = { max = 3, base_ms = 20, cap_ms = 100 }"


def custom(name="lookup"):
    return {"type": "custom", "name": name, "description": "Looks up", "input_schema": {"type": "object"}}


def policy(tool, type_):
    """The toolset with one tool under this policy."""
    return dict(TOOLSET, configs=[{"name": tool, "permission_policy": {"type": type_}}])


# sending

def refused(w, s, *events, names=None):
    return w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": list(events)}, names=names)


def answer(use, s="found", **more):
    return dict({"type": "user.custom_tool_result", "custom_tool_use_id": use, "content": text(s)}, **more)


def confirm(use, result="allow", **more):
    return dict({"type": "user.tool_confirmation", "tool_use_id": use, "result": result}, **more)


def interrupt(thread=None):
    return dict({"type": "user.interrupt"}, **({"session_thread_id": thread} if thread else {}))


def outcome(description="Do it.", rubric="- it is done", **more):
    return dict({"type": "user.define_outcome", "description": description,
                 "rubric": {"type": "text", "content": rubric}}, **more)


def asked(w, prompt='[[tool lookup {"q":"x"}]] ;; [[say {result}]]', type_="agent.custom_tool_use", session=None):
    s, events = w.turn(message(prompt), session=session, reason="requires_action")
    return s, events, [e["id"] for e in events if e["type"] == type_]


def go_on(w, s, *events, reason="end_turn"):
    """Sends events and waits until the session is idle for this reason once more; what came since."""
    n = len(w.events(s))
    w.send(s, *events)
    since = lambda: w.events(s)[n:]
    wait(lambda: [e for e in since() if e["type"] == "session.status_idle" and e["stop_reason"]["type"] == reason],
         f"idle {reason}", LIMIT)
    return since()


def status(w, s):
    return w.ok("GET", f"/v1/sessions/{s['id']}")["status"]


def requests(w, since=0):
    """What the model server was asked, oldest first."""
    return w.mock.get(f"/requests?since={since}")


# plays

def fresh(name="gate"):
    """A name that no other test uses, for a gate or a rubric."""
    return f"{name}-{os.getpid()}-{next(_names)}"


def gate(w, name):
    w.mock.get("/open/" + name)


def at_gate(w, name, feed=None):
    """A model request waits there. The model may be asked before what it is asked for is durable, and visible: with
    feed, a new turn's request is waited for there, too."""
    wait(lambda: name in w.mock.get("/waiting"), f"a model request at the gate {name}", LIMIT)
    if feed:
        feed.until(lambda all_: "span.model_request_start" in types(all_), "the model request", LIMIT)


def rules(*pairs):
    """A system prompt of (regex, steps)."""
    return "You play a part.\n" + "\n".join(f"when {regex} do {steps}" for regex, steps in pairs)


def calls(*uses):
    """A directive that makes these calls, (name, input) each, in one reply."""
    return "[[tools " + " | ".join(f"{name} {json.dumps(value)}" for name, value in uses) + "]]"


def spawn(agent, prompt):
    return "create_agent", {"agent": agent, "prompt": prompt}


def verdicts(*said):
    """A rubric of which the grader says these, one after the other."""
    return f"- it is done ({fresh('rubric')}) [[verdicts {' | '.join(said)}]]"


# several threads

def agents(w, *children, system=None, name="lead", tools=(), kind="coordinator", **more):
    """A coordinator over these agents."""
    many = {"type": kind, "agents": [c if isinstance(c, dict) else {"type": "agent", "id": c} for c in children]}
    return w.new_agent(name=name, system=system, tools=list(tools), multiagent=many, **more)


def lead(w, *children, **fields):
    """A session of a coordinator over these agents."""
    return w.session(agent=agents(w, *[c["id"] for c in children], **fields)["id"])


def threads(w, s):
    return w.all(f"/v1/sessions/{s['id']}/threads")


def thread(w, s, name):
    """The one thread of this agent."""
    found = [t for t in threads(w, s) if t["agent"].get("name") == name and t["parent_thread_id"]]
    equal(len(found), 1, f"threads of {name}")
    return found[0]


def thread_events(w, s, t):
    return w.all(f"/v1/sessions/{s['id']}/threads/{t['id'] if isinstance(t, dict) else t}/events")


def thread_stream(w, s, t, query=""):
    return w.stream(s, query, path=f"/v1/sessions/{s['id']}/threads/{t['id']}/stream")


def idles(events, reason=None):
    return [e for e in events if e["type"] == "session.status_idle" and reason in (None, e["stop_reason"]["type"])]


def until_idle(feed, reason="end_turn", n=1):
    return feed.until(lambda all_: len(idles(all_, reason)) >= n, f"{n} idles for {reason}", LIMIT)


def of_thread(events, t):
    """Types of the events that name this thread as theirs."""
    return [e["type"] for e in events if e.get("session_thread_id") == t]


# order

def in_order(events, *wanted):
    """That these types come in this order; others may come between. Returns their events."""
    found, i = [], 0
    for e in events:
        if i < len(wanted) and e["type"] == wanted[i]:
            found.append(e)
            i += 1
    true(i == len(wanted), f"{wanted[i] if i < len(wanted) else ''} (no. {i}) is missing in {types(events)}")
    return found


def spans_closed(events):
    starts = [e["id"] for e in events if e["type"] == "span.model_request_start"]
    ends = [e["model_request_start_id"] for e in events if e["type"] == "span.model_request_end"]
    equal(sorted(ends), sorted(starts), "every model request has one end")


# servers

@contextlib.contextmanager
def own(w, config="", data=None, keep=False, under=(), **env):
    """A server with this configuration beside the retries of the suite's; a World of it."""
    server = Server(env=dict({"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY,
                              "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url}, **env),
                    config="{ %s, %s }" % (RETRIES, config) if config else "{ %s }" % RETRIES, data=data, under=under)
    try:
        yield World(server.url, mock=w.mock, server=server)
    except BaseException:
        server.stop()
        raise
    else:
        equal(server.stop(keep=keep), 0)


def needs_sandbox():
    out = subprocess.run([BIN, "doctor", "--json"], capture_output=True, text=True).stdout
    if json.loads(out)["sandbox"] != "ok":
        raise Skip("sandboxes do not work on this machine: moonrig doctor says why")
