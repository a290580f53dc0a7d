"""Items 46 to 63 of the resource checklist as a session sees them: which tools there are and who may run them, large
results, the built-in tools in the session's sandbox (API: resources §3, §4). Case by case, beside the reference
toolset: tests/sandbox/conform."""
import json
import re
import tempfile
from pathlib import Path

from kit import KEY, UPSTREAM_KEY, Server, World, equal, last, message, test, true, types, wait
from restart_test import kill
from stage import RETRIES, TOOLSET, confirm, custom, go_on, needs_sandbox, refused, requests


def session(w, *tools, **fields):
    return w.session(agent=w.new_agent(tools=list(tools), **fields)["id"])


def result(events):
    e = last(events, "agent.tool_result")
    return e["is_error"], "".join(b.get("text", "") for b in e["content"])


class Hands:
    """One session with the whole toolset; each call a turn."""

    def __init__(self, w):
        needs_sandbox()
        self.w, self.s = w, session(w, TOOLSET)

    def __call__(self, tool, **input):
        _, events = self.w.turn(message(f"[[tool {tool} {json.dumps(input)}]] ;; [[say done]]"), session=self.s)
        return result(events)


def offered(w, *tools):
    """The names of the tools that the model is offered."""
    s = session(w, *tools)
    since = w.mock.count()
    w.turn(message("[[say hello]]"), session=s)
    return [t["name"] for t in requests(w, since)[-1]["body"].get("tools", [])]


def config(name, **fields):
    return {"name": name, **fields}


ASK, ALLOW = {"type": "always_ask"}, {"type": "always_allow"}
SANDBOX = ["bash", "read", "write", "edit", "glob", "grep"]


@test(model=True)
def tools_046_what_is_disabled_is_not_offered(w):
    def some(**fields):
        return [n for n in offered(w, dict(TOOLSET, **fields)) if n in SANDBOX]
    equal(some(), SANDBOX)
    equal(some(configs=[config("bash", enabled=False), config("edit", enabled=False)]), ["read", "write", "glob", "grep"])
    equal(some(default_config={"enabled": False}), [])
    equal(some(default_config={"enabled": False}, configs=[config("read", enabled=True), config("grep", enabled=True)]), ["read", "grep"])
    equal(some(default_config={"enabled": False}, configs=[config("read", permission_policy=ASK)]), [])
    equal(some(default_config={"permission_policy": ASK}, configs=[config("bash", enabled=False)]), SANDBOX[1:])


@test(model=True)
def tools_046_calling_what_is_disabled(w):
    for tools in ([dict(TOOLSET, configs=[config("bash", enabled=False)])], [dict(TOOLSET, default_config={"enabled": False})],
                  [dict(TOOLSET, configs=[config("bash", enabled=False, permission_policy=ASK)])], [custom()]):
        s = session(w, *tools)
        _, events = w.turn(message('[[tool bash {"command":"echo ran"}]] ;; [[say {result}]]'), session=s)
        use = last(events, "agent.tool_use")
        equal(use["evaluated_permission"], "deny")
        true("evaluation" not in use, "a refusal by the server is no evaluation of a policy")
        error, text = result(events)
        true(error and "ran" not in text, text)
        refused(w, s, confirm(use["id"]))


def called(w, tool, **fields):
    """The session, its events at rest, and the use of one tool under these settings of the toolset."""
    s = session(w, dict(TOOLSET, **fields))
    w.send(s, message(f'[[tool {tool} {{"pattern":"*","command":"echo ran"}}]] ;; [[say {{result}}]]'))
    wait(lambda: "session.status_idle" in types(w.events(s)), "idle", 60)
    events = w.events(s)
    return s, events, last(events, "agent.tool_use")


@test(model=True)
def tools_047_policies_of_each_tool_and_the_default(w):
    needs_sandbox()
    for tool, fields, want in (("bash", {}, "allow"), ("bash", {"default_config": {"permission_policy": ASK}}, "ask"),
                               ("bash", {"default_config": {"permission_policy": ASK}, "configs": [config("bash", permission_policy=ALLOW)]}, "allow"),
                               ("glob", {"default_config": {"permission_policy": ALLOW}, "configs": [config("glob", permission_policy=ASK)]}, "ask"),
                               ("bash", {"configs": [config("glob", permission_policy=ASK)]}, "allow"),
                               ("bash", {"default_config": {"permission_policy": ASK}, "configs": [config("bash", enabled=True)]}, "ask")):
        s, events, use = called(w, tool, **fields)
        equal((use["evaluated_permission"], use["evaluation"]), (want, {"type": "always_" + want}), (tool, fields))
        equal("agent.tool_result" in types(events), want == "allow", "what is asked about waits")
        if want == "allow":
            refused(w, s, confirm(use["id"]))
        else:
            rest = go_on(w, s, confirm(use["id"]))
            true(not result(rest)[0], rest)


@test(model=True)
def tools_048_a_large_result_is_a_file(w):
    h = Hands(w)
    error, text = h("bash", command="head -c 100001 /dev/zero | tr '\\0' x")
    path = re.search(r"\[100001 characters; the middle is left out here. The whole output is in (/\S+)\]", text)
    true(not error and path and len(text) < 11000, text[-300:])
    equal(h("bash", command=f"wc -c <{path[1]}"), (False, "100001"))
    equal(h("read", file_path=path[1]), (False, "x" * 100001))
    equal(h("bash", command="head -c 100000 /dev/zero | tr '\\0' x"), (False, "x" * 100000))
    error, text = h("bash", command="head -c 100001 /dev/zero | tr '\\0' y; false")
    true(error and "The whole output is in" in text, text[-300:])
    h("bash", command="head -c 150000 /dev/zero | tr '\\0' z >big; split -b 50 big")
    error, text = h("read", file_path="big")
    true(not error and "[150000 characters" in text, text[-300:])


BIG = """local rig = require "moonrig"
return rig.tool { name = "big", description = "d", input_schema = { type = "object" }, run = function()
  local t = {}
  for i = 1, 20000 do t[i] = tostring(i) end
  return table.concat(t, "\\n")
end }
"""


def with_big(w, data=None):
    script = Path(tempfile.mkdtemp(prefix="moonrig-api-")) / "big.lua"
    script.write_text(BIG)
    s = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url},
               config="{ %s }" % RETRIES, data=data, scripts=[str(script)])
    return World(s.url, mock=w.mock, server=s)


def big(v, s):
    """Calls it; where the file is, or None."""
    _, events = v.turn(message("[[tool big {}]] ;; [[say ok]]"), session=s)
    e = last(events, "user.custom_tool_result")
    text = "".join(b.get("text", "") for b in e["content"])
    true("characters; the middle is left out" in text and len(text) < 11000, text[-300:])
    path = re.search(r"The whole output is in (/[^\]]+)\]", text)
    return path and path[1]


@test(model=True, local=True)
def tools_048_before_there_is_a_sandbox_and_after_a_restart(w):
    """The file is made all the same: in a sandbox that starts for it, and in one that the new server is not attached to."""
    needs_sandbox()
    v = with_big(w)
    s = session(v, TOOLSET, custom("big"))
    first = big(v, s)
    true(first, "a sandbox was started for it")
    kill(v)
    v = with_big(w, v.server.data)
    second = big(v, s)
    true(second and second != first, second)
    kill(v)
    v = with_big(w, v.server.data)
    try:
        for path in (first, second):
            _, events = v.turn(message(f'[[tool read {{"file_path":"{path}","view_range":[19999,20001]}}]] ;; [[say ok]]'), session=s)
            equal(result(events), (False, "19999\n20000"))
        blind = session(v, custom("big"))
        equal(big(v, blind), None, "nothing could read a file")
        able = session(v, dict(TOOLSET, default_config={"enabled": False}), custom("big"))
        equal(big(v, able), None, "nothing may read a file")
    finally:
        equal(v.server.stop(), 0)


@test(model=True)
def tools_049_to_055_bash(w):
    h = Hands(w)
    equal(h("bash", command="mkdir d; cd d; x=1"), (False, "(no output)"))
    equal(h("bash", command="pwd; echo $x"), (False, "/workspace/d\n1"))
    equal(h("bash", command="echo said; false"), (True, "said"))
    equal(h("bash", command="(exit 7)"), (True, "exit 7"))
    equal(h("bash", command="cat; echo after"), (False, "after"))
    error, text = h("bash", command="yes | head -c 300000", timeout_ms=60000)
    true(not error and text.startswith("[output truncated]\n"), text[:100])
    error, text = h("bash", command="(sleep 2; touch /workspace/late) & sleep 50", timeout_ms=300)
    true(error and text.startswith("bash: bash command timed out after 300ms"), text)
    equal(h("bash", command="sleep 2.5; ls /workspace"), (False, "d"))
    equal(h("bash", restart=True), (False, "bash session restarted"))
    equal(h("bash", command="echo [$x] $PWD; env | grep -ic anthropic; true"), (False, "[] /workspace\n0"))
    equal(h("bash"), (True, "bash: command is required"))


@test(model=True)
def tools_056_to_063_files(w):
    h = Hands(w)
    outside = " is outside the session's working directory and its other permitted directories"
    equal(h("read", file_path="/etc/passwd"), (True, 'path "/etc/passwd"' + outside))
    h("bash", command="ln -s /etc/passwd l; mkfifo p; seq 1 60000 >big")
    equal(h("read", file_path="l"), (True, 'path "l"' + outside))
    error, text = h("read", file_path="big")
    true(error and "view_range" in text and "262144" in text, text)
    equal(h("read", file_path="big", view_range=[59999, -1]), (False, "59999\n60000\n"))
    equal(h("read", file_path="p"), (True, "read: p is not a regular file"))
    equal(h("write", file_path="a/b/c.txt", content="gr\u00fcn\n"), (False, "wrote 6 bytes to a/b/c.txt"))
    equal(h("edit", file_path="a/b/c.txt", old_string="x", new_string="y"), (True, "edit: old_string not found in a/b/c.txt"))
    equal(h("edit", file_path="a/b/c.txt", old_string="gr\u00fcn", new_string="$&"), (False, "edited a/b/c.txt (1 replacement(s))"))
    equal(h("read", file_path="a/b/c.txt"), (False, "$&\n"))
    equal(h("glob", pattern="**/*.txt"), (False, "/workspace/a/b/c.txt"))
    equal(h("glob", pattern="*.none"), (False, "no matches"))
    true(h("glob", pattern="../*")[0] and h("glob", pattern="/etc/*")[0])
    equal(h("grep", pattern="nothing here"), (False, "no matches"))
    true(h("grep", pattern="(")[0])
    equal(h("write", file_path="/mnt/session/uploads/x", content="x"), (True, "write: /mnt/session/uploads/x is inside read-only directory /mnt/session/uploads"))
