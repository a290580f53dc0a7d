"""Files in the sandbox that go with a session: forks, exports and imports of what its workspace holds; archives of
others that nobody should unpack."""
import base64
import io
import json
import tarfile

from kit import equal, last, message, said, test, true, types, wait
from transfer_test import export, fork, idles, import_, say, sealed, send_file, sent_version

TREE = ("mkdir -p a/b && echo one > a/one && chmod 640 a/one && echo run > a/b/run && chmod 755 a/b/run && ln -s a/one soft && ln a/one hard && "
        "truncate -s 8M sparse && printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null && touch 'sp ace' && "
        "echo made > /mnt/session/outputs/made.txt && mkdir many && for i in $(seq 10000); do echo $i > many/$i; done; export STATE=kept; cd a")
LIST = ("cd /workspace && { find . -type d -printf '%p %y %m %n\\n'; find . /mnt/session/outputs -not -type d -printf '%p %y %m %l %n %s %T@\\n'; "
        "cat a/one a/b/run hard soft /mnt/session/outputs/made.txt; md5sum sparse; cat many/*; } | sort | md5sum; du -k sparse | cut -f1; ls | wc -l")


def bash(w, s, command):
    """What the command printed."""
    say(w, s, f"[[tool bash {json.dumps({'command': command})}]]")
    result = last(w.events(s), "agent.tool_result")
    return "".join(b.get("text", "") for b in result["content"])


def working(w, **more):
    agent = w.new_agent(tools=[{"type": "agent_toolset_20260401"}])
    return w.session(agent=agent["id"], **more)


@test(model=True)
def a_workspace_goes_with_its_session(w):
    s = working(w)
    bash(w, s, TREE)
    want = bash(w, s, LIST)
    true(want.endswith("\n6"), want)
    bash(w, s, "(i=0; while :; do i=$((i+1)); echo $i > /tmp/n.new; mv /tmp/n.new /tmp/n; done) & cd /workspace")
    f = fork(w, s)
    data = export(w, s)
    equal(sent_version(data), 2)
    true(bash(w, s, "a=$(cat /tmp/n); sleep 0.2; b=$(cat /tmp/n); [ $b -gt $a ] && echo goes on") == "goes on", "what ran was only frozen")
    c = import_(w, data)
    again = import_(w, export(w, c))
    for x in (f, c, again):
        equal(bash(w, x, LIST), want)
        equal(bash(w, x, "echo ${STATE:-none}; ls /tmp"), "none")
        equal([x["filename"] for x in w.all(f"/v1/files?scope_id={x['id']}")], ["made.txt"])
    bash(w, f, "echo changed > a/one; rm -r many")
    equal(bash(w, s, LIST), want)  # each its own
    for x in (s, f, c, again):
        w.ok("DELETE", f"/v1/sessions/{x['id']}")


@test(model=True)
def a_workspace_is_of_now_or_not_there(w):
    s = working(w)
    bash(w, s, "echo first > f")
    early = last(w.events(s), "session.status_idle")["id"]
    bash(w, s, "echo second > f")
    equal(bash(w, fork(w, s), "cat f"), "second")
    for x in (fork(w, s, early), fork(w, s, early, workspace=False), fork(w, s, workspace=False)):
        equal(bash(w, x, "ls | wc -l"), "0")
    r = w.ask("POST", f"/moonrig/v1/sessions/{s['id']}/fork", {"event_id": early, "workspace": True})
    equal((r.status, r.json["error"]["type"]), (400, "invalid_request_error"))
    true("workspace" in r.json["error"]["message"], r.json)
    r = w.ask("POST", f"/moonrig/v1/sessions/{s['id']}/fork", {"workspace": "yes"})
    equal(r.status, 400)
    r = w.get(f"/moonrig/v1/sessions/{s['id']}/export?workspace=false")
    equal((r.status, sent_version(r.body)), (200, 1))
    true(b'"row":"workspace"' not in r.body, "left out")
    equal(bash(w, import_(w, r.body), "ls | wc -l"), "0")


@test(model=True)
def who_never_had_a_sandbox_has_no_workspace(w):
    s = working(w)
    say(w, s, "[[say nothing to do]]")
    f = fork(w, s)
    data = export(w, s)
    equal(sent_version(data), 1)
    for x in (f, import_(w, data)):
        equal(bash(w, x, "ls -A | wc -l"), "0")


def with_workspace(data, archive, **line):
    """The export with another archive in it."""
    lines = [x for x in data.split(b"\n") if x]
    head = json.loads(lines[0])
    head["version"] = 2
    rows = [x for x in lines[1:-1] if not x.startswith((b'{"row":"workspace"', b'{"row":"bytes"'))]
    parts = [json.dumps({"row": "bytes", "data": base64.b64encode(archive[i:i + (192 << 10)]).decode()}, separators=(",", ":")).encode()
             for i in range(0, len(archive), 192 << 10)]
    space = json.dumps(dict({"row": "workspace", "size_bytes": len(archive)}, **line), separators=(",", ":")).encode()
    return sealed([json.dumps(head).encode(), space] + parts + rows)


def tar(*entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, kind, what in entries:
            e = tarfile.TarInfo(name)
            e.type, e.mode = kind, 0o777
            if kind == tarfile.REGTYPE:
                e.size = len(what)
                t.addfile(e, io.BytesIO(what))
            else:
                e.linkname = what
                t.addfile(e)
    return out.getvalue()


@test(model=True)
def archives_that_nobody_should_unpack(w):
    s = working(w)
    bash(w, s, "echo here > f")
    data = export(w, s)
    before = {x["id"] for x in w.all("/v1/sessions")}
    F, L, H, D = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
    good = tar(("workspace/f", F, b"mine"), ("workspace/l", L, "/etc/passwd"))
    hostile = [(tar(("workspace/../../x", F, b"x")), "plain path"), (tar(("/tmp/x", F, b"x")), "plain path"), (tar(("elsewhere", F, b"x")), "below"),
               (tar(("workspace/l", L, "/tmp"), ("workspace/l/x", F, b"x")), "no directory"),
               (tar(("workspace/l", L, "../.."), ("workspace/l/x", F, b"x")), "no directory"),
               (tar(("workspace/h", H, "/etc/passwd")), "plain path"), (tar(("workspace/h", H, "workspace/../../etc/passwd")), "plain path"),
               (tar(("workspace/l", L, "/etc/passwd"), ("workspace/h", H, "workspace/l")), "no file of the archive"),
               (tar(("workspace/d", D, "")), "neither file"), (tar(("workspace/p", tarfile.FIFOTYPE, "")), "neither file"),
               (good[:600], "damaged"), (b"no archive at all" * 100, "damaged"), (b"\x1f\x8b" + good, "damaged")]
    for archive, why in hostile:
        r = send_file(w, with_workspace(data, archive), environment_id=w.environment["id"])
        equal((r.status, r.json["error"]["type"]), (400, "invalid_request_error"), why)
        true(why in r.json["error"]["message"] and "file" in r.json["error"]["message"], r.json)
    for line, why in (({"size_bytes": 0}, "size_bytes"), ({"size_bytes": -5}, "size_bytes"), ({"size_bytes": 1 << 40}, "size_bytes"),
                      ({"size_bytes": "x"}, "size_bytes"), ({"size_bytes": len(good) + 1}, "shorter"), ({"size_bytes": len(good) - 1}, "more than")):
        r = send_file(w, with_workspace(data, good, **line), environment_id=w.environment["id"])
        equal(r.status, 400, why)
        true(why in r.json["error"]["message"], r.json)
    twice = with_workspace(data, good).split(b"\n")
    r = send_file(w, sealed(twice[:3] + twice[1:-2]), environment_id=w.environment["id"])
    equal(r.status, 400)
    equal({x["id"] for x in w.all("/v1/sessions")}, before, "nothing was made")
    c = import_(w, with_workspace(data, good))
    equal(bash(w, c, "cat f; readlink l"), "mine/etc/passwd")


@test(model=True)
def a_session_whose_client_runs_the_tools_has_none(w):
    s = working(w)
    bash(w, s, "echo here > f")
    data = export(w, s)
    env = w.ok("POST", "/v1/environments", {"name": "theirs", "config": {"type": "self_hosted"}})
    for c in (fork(w, s, environment_id=env["id"]), import_(w, data, environment_id=env["id"])):
        equal(c["environment_id"], env["id"])
        true(w.ok("GET", f"/v1/sessions/{c['id']}")["status"] == "idle", c)


@test(model=True)
def a_turn_of_text_makes_no_sandbox(w):
    s = working(w)
    say(w, s, "[[say only words]]")
    say(w, s, "[[think]] [[say more of them]]")
    directory = w.server.data / "sandboxes" / "s" / s["id"]
    true(not directory.exists(), "it has no directory")
    bash(w, s, "true")
    true(directory.exists(), "now it has")
