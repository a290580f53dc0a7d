"""Items 76 to 82 of the session checklist: who may run a tool (API: sessions §10)."""
import time

from kit import BEGIN, TRIPLE, equal, last, message, said, test, true, types
from stage import TOOLSET, asked, confirm, custom, go_on, needs_sandbox, own, policy, refused, status

TOUCH = '[[tool bash {"command":"touch /tmp/ran; echo ran"}]] ;; [[say {result}]]'
RAN = '[[tool glob {"pattern":"/tmp/ran"}]] ;; [[say {result}]]'
OVER = ["span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE


def session(w, *tools, **fields):
    return w.session(agent=w.new_agent(tools=list(tools), **fields)["id"])


def asked_bash(w, prompt=TOUCH):
    s = session(w, policy("bash", "always_ask"))
    _, events, uses = asked(w, prompt, "agent.tool_use", session=s)
    return s, events, uses


def ran(w, s):
    """Whether TOUCH was run in the session's sandbox."""
    _, events = w.turn(message(RAN), session=s)
    return "/tmp/ran" in said(events)[-1]


@test(model=True)
def t_076_the_toolset_runs_without_asking(w):
    needs_sandbox()
    s = session(w, TOOLSET)
    _, events = w.turn(message('[[tool bash {"command":"echo ran"}]] ;; [[say {result}]]'), session=s)
    e = last(events, "agent.tool_use")
    equal((e["evaluated_permission"], e["evaluation"]), ("allow", {"type": "always_allow"}))
    equal(said(events), ["ran"])


@test
def t_076_a_servers_tools_ask(w):
    s = session(w, TOOLSET, {"type": "mcp_toolset", "mcp_server_name": "docs"},
                mcp_servers=[{"type": "url", "name": "docs", "url": "https://example.com/mcp"}])
    equal([t["default_config"] for t in s["agent"]["tools"]],
          [{"enabled": True, "permission_policy": {"type": "always_allow"}}, {"enabled": True, "permission_policy": {"type": "always_ask"}}])


@test(model=True)
def t_077_asking(w):
    needs_sandbox()
    s, events, (use,) = asked_bash(w)
    e = last(events, "agent.tool_use")
    equal((e["name"], e["evaluated_permission"], e["evaluation"]), ("bash", "ask", {"type": "always_ask"}))
    equal([x["stop_reason"] for x in events if x["type"].endswith("_idle")], [{"type": "requires_action", "event_ids": [use]}] * 2)
    time.sleep(0.2)  # would it run, it did now
    equal(types(w.events(s))[-1], "session.status_idle", "nothing runs until it is confirmed")
    rest = go_on(w, s, confirm(use))
    equal(types(rest), BEGIN + ["user.tool_confirmation", "agent.tool_result"] + OVER)
    equal((rest[2]["tool_use_id"], rest[2]["result"], bool(rest[2]["processed_at"])), (use, "allow", True))
    equal((rest[3]["tool_use_id"], rest[3]["content"][0]["text"].strip()), (use, "ran"))


@test(model=True)
def t_077_auto_asks_what_it_cannot_judge(w):
    s = session(w, policy("bash", "auto"))
    _, events, (use,) = asked(w, '[[tool bash {"command":"make install"}]] ;; [[say {result}]]', "agent.tool_use", session=s)
    e = last(events, "agent.tool_use")
    equal(e["evaluated_permission"], "ask")
    equal((e["evaluation"]["type"], e["evaluation"]["evaluated_permission"]["type"], e["evaluation"]["evaluated_permission"]["reason_code"]),
          ("auto", "ask", "indeterminate"))
    go_on(w, s, confirm(use, "deny"))


@test(model=True)
def t_077_auto_allows_what_only_reads(w):
    s = session(w, dict(TOOLSET, default_config={"enabled": True, "permission_policy": {"type": "auto"}}))
    _, events = w.turn(message('[[tools glob {"pattern":"*"} | read {"file_path":"/workspace/notes.txt"} | grep {"pattern":"x"}]] ;; [[say {result}]]'), session=s)
    for e in [e for e in events if e["type"] == "agent.tool_use"]:
        equal((e["evaluated_permission"], e["evaluation"]), ("allow", {"type": "auto", "evaluated_permission": {"type": "allow"}}), e["name"])


@test(model=True)
def t_078_two_asks_one_answered(w):
    needs_sandbox()
    s, events, (one, two) = asked_bash(w, '[[tools bash {"command":"touch /tmp/ran; echo 1"} | bash {"command":"echo 2"}]] ;; [[say {result}]]')
    equal(events[-1]["stop_reason"]["event_ids"], [one, two])
    part = go_on(w, s, confirm(one), reason="requires_action")
    equal(types(part), ["user.tool_confirmation"] + TRIPLE)
    equal([e["stop_reason"]["event_ids"] for e in part if e["type"].endswith("_idle")], [[two], [two]])
    equal(status(w, s), "idle")
    time.sleep(0.2)  # would one run, it did now
    equal(types(w.events(s))[-4:], ["user.tool_confirmation"] + TRIPLE, "no execution yet")
    rest = go_on(w, s, confirm(two, "deny", deny_message="not that one"))
    equal(types(rest), BEGIN + ["user.tool_confirmation", "agent.tool_result", "agent.tool_result"] + OVER)
    equal([e["tool_use_id"] for e in rest if e["type"] == "agent.tool_result"], [one, two], "in the order of the calls")
    true("1" in said(rest)[0] and "not that one" in said(rest)[0], said(rest))


@test(model=True)
def t_079_denials(w):
    needs_sandbox()
    s, _, (use,) = asked_bash(w)
    rest = go_on(w, s, confirm(use, "deny", deny_message="Use staging."))
    equal(types(rest), BEGIN + ["user.tool_confirmation", "agent.tool_result"] + OVER)
    r = last(rest, "agent.tool_result")
    equal((r["tool_use_id"], r["is_error"]), (use, True))
    true("Use staging." in r["content"][0]["text"], r)
    true("Use staging." in said(rest)[0], "the model reads it")
    equal(last(rest, "user.tool_confirmation")["deny_message"], "Use staging.")
    true(not ran(w, s), "it was not run")


@test(model=True)
def t_080_a_tool_that_is_not_enabled(w):
    s = session(w, dict(TOOLSET, configs=[{"name": "write", "enabled": False}]))
    for name, value in (("write", '{"file_path":"a","content":"b"}'), ("no_such_tool", '{"a":1}')):
        _, events = w.turn(message(f"[[tool {name} {value}]] ;; [[say {{result}}]]"), session=s)
        e = last(events, "agent.tool_use")
        equal((e["name"], e["evaluated_permission"], "evaluation" in e), (name, "deny", False))
        r = last(events, "agent.tool_result")
        equal((r["tool_use_id"], r["is_error"], r["content"][0]["text"]), (e["id"], True, f"Permission to use {name} has been denied."))
        equal(said(events), [f"Permission to use {name} has been denied."], "the turn goes on")
        refused(w, s, confirm(e["id"]))


@test(model=True)
def t_080_auto_denies_what_destroys(w):
    s = session(w, policy("bash", "auto"))
    for command in ("rm -rf /", "mkfs.ext4 /dev/sda1", "dd if=/dev/zero of=/dev/sda", "sudo reboot"):
        _, events = w.turn(message('[[tool bash {"command":"%s"}]] ;; [[say {result}]]' % command), session=s)
        e = last(events, "agent.tool_use")
        equal((e["evaluated_permission"], e["evaluation"]),
              ("deny", {"type": "auto", "evaluated_permission": {"type": "deny", "reason_code": "high_risk"}}), command)
        r = last(events, "agent.tool_result")
        equal((r["tool_use_id"], r["is_error"], r["content"][0]["text"]), (e["id"], True, "Permission to use bash has been denied."))
        refused(w, s, confirm(e["id"]))
        equal(status(w, s), "idle")


@test(model=True)
def t_081_custom_calls_have_no_permission(w):
    s = session(w, custom(), dict(TOOLSET, default_config={"enabled": True, "permission_policy": {"type": "always_ask"}}))
    _, events, _ = asked(w, session=s)
    equal(set(last(events, "agent.custom_tool_use")) - {"session_thread_id"}, {"type", "id", "name", "input", "processed_at"})


@test(model=True)
def t_082_a_blocked_session_waits_over_a_restart(w):
    """Nothing counts the hours of a blocked session: neither its idle state in memory nor a server that starts anew."""
    with own(w, keep=True) as v:
        agent = v.new_agent(tools=[policy("bash", "always_ask"), custom()])["id"]
        s = v.session(agent=agent)
        _, before, uses = asked(v, '[[tools lookup {"q":"x"} | bash {"command":"true"}]] ;; [[say {result}]]', "agent.custom_tool_use", session=s)
        use = last(before, "agent.tool_use")["id"]
        data = v.server.data
    with own(w, data=data) as v:
        equal((status(v, s), v.events(s)), ("idle", before))
        refused(v, s, message("hello"), names="waiting on responses to events")
        part = go_on(v, s, {"type": "user.custom_tool_result", "custom_tool_use_id": uses[0], "content": [{"type": "text", "text": "late"}]}, reason="requires_action")
        equal(part[-1]["stop_reason"]["event_ids"], [use])
        rest = go_on(v, s, confirm(use, "deny", deny_message="too late"))
        true("late" in said(rest)[0] and "too late" in said(rest)[0], said(rest))
