"""Fork, export and import of sessions (our own operations, below /moonrig/v1/)."""
import base64
import hashlib
import json
import random
import re
import time
from pathlib import Path

from kit import NOBODY, TRIPLE, equal, last, message, said, test, text, true, types, wait

LOOK = '[[tool lookup {"q":"x"}]]'
RICH = ('[[think]] [[say first]] [[tools lookup {"q":"a"} | lookup {"q":"b"}]] ;; [[say {result}]] ;; [[say never]]')


def fork(w, s, event=None, **fields):
    return w.ok("POST", f"/moonrig/v1/sessions/{s['id']}/fork", dict(fields, **({"event_id": event} if event else {})))


def export(w, s):
    r = w.get(f"/moonrig/v1/sessions/{s['id']}/export")
    equal(r.status, 200)
    equal(r.headers["content-type"], "application/jsonl")
    return r.body


def sent_version(data):
    return json.loads(data.split(b"\n", 1)[0])["version"]


def send_file(w, data, **fields):
    boundary = "moonrig-test-boundary"
    parts = "".join(f'--{boundary}\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items())
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="s.jsonl"\r\n\r\n'
    body = (parts + head).encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return w.ask("POST", "/moonrig/v1/sessions/import", body=body,
                 headers={"content-type": "multipart/form-data; boundary=" + boundary})


def import_(w, data, **fields):
    r = send_file(w, data, **dict({"environment_id": w.environment["id"]}, **fields))
    true(r.status == 200, f"{r.status} {r.body[:400]!r}")
    return r.json


def sealed(lines):
    """Lines without the last one, and the last one that they need."""
    body = b"".join(x + b"\n" for x in lines)
    rows = sum(x.startswith((b'{"row":"wire"', b'{"row":"private"')) for x in lines)
    return body + json.dumps({"row": "end", "rows": rows, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def normal(events):
    """Events with ids by their first place."""
    seen = {}
    body = re.sub(r'"(se|st)[a-z]+_01[1-9A-HJ-NP-Za-km-z]{22}"', lambda m: f'"#{seen.setdefault(m[0], len(seen))}"',
                  json.dumps(events))
    return json.loads(body)


def idles(w, s, reason=None):
    return sum(e["type"] == "session.status_idle" and reason in (None, e["stop_reason"]["type"]) for e in w.events(s))


def say(w, s, what, reason="end_turn"):
    """One message to the end of its turn; the model request that it made first."""
    n, m = idles(w, s, reason), w.mock.count()
    w.send(s, message(what))
    wait(lambda: idles(w, s, reason) > n, f"idle {reason}; {types(w.events(s))}")
    return next(r for r in w.mock.get(f"/requests?since={m}") if json.dumps(what)[1:-1] in r["raw"])


def answer_all(w, s):
    """Answers custom tools until the session is idle for good."""
    while True:
        e = last(w.events(s), "session.status_idle")
        if e["stop_reason"]["type"] != "requires_action":
            return
        w.send(s, *({"type": "user.custom_tool_result", "custom_tool_use_id": i, "content": text("found " + str(k))}
                    for k, i in enumerate(e["stop_reason"]["event_ids"])))
        wait(lambda: last(w.events(s), "session.status_idle")["id"] != e["id"], "the next idle")


def rich(w):
    s = w.session(title="the original", metadata={"k": "v"})
    say(w, s, "hello")
    say(w, s, RICH, reason="requires_action")
    answer_all(w, s)
    say(w, s, "[[say last]]")
    return s


def history(request):
    """What was sent to the model but for the newest message."""
    m = request["body"]["messages"]
    return json.dumps([m[:-1], request["body"].get("system"), request["body"].get("tools")])


def at_rest(w, s):
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")


# ---------------------------------------------------------------------------------------------------- fork

@test(model=True)
def fork_now_is_a_session_of_its_own(w):
    s = rich(w)
    before = w.events(s)
    f = fork(w, s)
    true(f["id"] != s["id"] and f["type"] == "session", f)
    equal(f["title"], "fork of the original")
    equal(f["metadata"], {"k": "v", "moonrig.forked_from": s["id"]})
    equal((f["status"], f["environment_id"], f["archived_at"]), ("idle", s["environment_id"], None))
    equal(f["agent"], s["agent"])
    equal(f["usage"]["output_tokens"], 0)
    events = w.events(f)
    equal(normal(events), normal(before))
    true(not {e["id"] for e in events} & {e["id"] for e in before}, "ids of its own")
    equal(w.events(s), before)
    a, b = say(w, s, "and now?"), say(w, f, "and now?")
    equal(history(a), history(b))
    threads = w.all(f"/v1/sessions/{f['id']}/threads")
    equal(len(threads), 1)
    equal(last(events, "session.thread_status_idle")["session_thread_id"], threads[0]["id"])


@test(model=True)
def fork_at_every_event_rests_and_goes_on(w):
    s = rich(w)
    events = w.events(s)
    for i, e in enumerate(events):
        f = fork(w, s, e["id"])
        got = w.events(f)
        equal(normal(got[:i + 1]), normal(events[:i + 1]), f"fork at {i}, {e['type']}")
        more = types(got[i + 1:])
        blocked = got and last(got, "session.status_idle")["stop_reason"]["type"] == "requires_action"
        if e["type"] == "session.status_idle":
            equal(more, [], f"at {i}")
        else:
            equal(more[-3:], TRIPLE, f"at {i}, {e['type']}")
            true(set(more[:-3]) <= {"span.model_request_end", "user.custom_tool_result"}, more)
        at_rest(w, f)
        if blocked:
            answer_all(w, f)
        elif i % 3 == 0 or "agent" in e["type"]:
            n = len(w.events(f))
            say(w, f, "[[say goes on]]")
            equal(said(w.events(f)[n:]), ["goes on"], f"at {i}, {e['type']}")


@test(model=True)
def fork_of_a_waiting_session_can_be_answered_otherwise(w):
    s = w.session()
    say(w, s, '[[tool bash {"command":"true"}]] ;; [[say {result}]]', reason="requires_action")
    use = last(w.events(s), "agent.tool_use")["id"]
    f = fork(w, s)
    other = last(w.events(f), "agent.tool_use")["id"]
    equal(last(w.events(f), "session.status_idle")["stop_reason"]["event_ids"], [other])
    w.refused(400, "POST", f"/v1/sessions/{f['id']}/events",
              {"events": [{"type": "user.tool_confirmation", "tool_use_id": use, "result": "deny"}]})
    w.send(f, {"type": "user.tool_confirmation", "tool_use_id": other, "result": "deny", "deny_message": "not here"})
    wait(lambda: idles(w, f, "end_turn"), "the end of the fork's turn")
    true("not here" in said(w.events(f))[-1], said(w.events(f)))
    equal(last(w.events(s), "session.status_idle")["stop_reason"]["type"], "requires_action")


@test(model=True)
def fork_of_a_running_session_leaves_it_alone(w):
    s = w.session()
    w.send(s, message("[[slow 200 ms]] [[say one two three four five]]"))
    wait(lambda: "span.model_request_start" in types(w.events(s)), "the request")
    f = fork(w, s)
    equal(types(w.events(f))[-4:], ["span.model_request_end"] + TRIPLE)
    equal(last(w.events(f), "span.model_request_end")["is_error"], True)
    equal(last(w.events(f), "span.model_request_end")["model_request_start_id"],
          last(w.events(f), "span.model_request_start")["id"])
    at_rest(w, f)
    wait(lambda: idles(w, s), "the original's turn")
    equal(said(w.events(s)), ["one two three four five"])
    say(w, f, "[[say here]]")


@test(model=True)
def fork_refuses_what_cannot_be(w):
    s, other = w.session(), w.session()
    say(w, s, "[[say x]]")
    say(w, other, "[[say x]]")
    path = f"/moonrig/v1/sessions/{s['id']}/fork"
    w.refused(404, "POST", path, {"event_id": "sevt_" + NOBODY}, names="sevt_")
    w.refused(404, "POST", path, {"event_id": w.events(other)[0]["id"]})
    w.refused(404, "POST", "/moonrig/v1/sessions/sesn_" + NOBODY + "/fork", {})
    w.refused(404, "POST", path, {"environment_id": "env_" + NOBODY}, names="env_")
    w.refused(400, "POST", path, {"event_id": 1}, names="event_id")
    w.refused(400, "POST", path, {"metadata": {"k": 1}}, names="metadata")
    f = fork(w, s, title="mine", metadata={"a": "b"})
    equal((f["title"], f["metadata"]), ("mine", {"a": "b", "moonrig.forked_from": s["id"]}))
    equal(types(w.events(fork(w, w.session()))), [])
    full = {f"k{i}": "v" for i in range(16)}
    equal(fork(w, w.session(metadata=full))["metadata"], full)  # no room for where it is from


@test(model=True)
def fork_of_an_archived_session_lives(w):
    s = w.session()
    say(w, s, "[[say x]]")
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    f = fork(w, s)
    equal((f["status"], f["archived_at"]), ("idle", None))
    say(w, f, "[[say y]]")
    equal(said(w.events(f)), ["x", "y"])


def uploaded(w, name, content):
    r = w.upload(name, content)
    equal(r.status, 200)
    return r.json["id"]


@test(model=True)
def copies_have_files_of_their_own(w):
    big = bytes(range(256)) * 3000
    s = w.session(resources=[{"type": "file", "file_id": uploaded(w, "a.bin", big), "mount_path": "/a.bin"},
                             {"type": "file", "file_id": uploaded(w, "empty.txt", b""), "mount_path": "/empty.txt"}])
    data = export(w, s)
    w.ok("POST", f"/v1/sessions/{s['id']}/events", {"events": [message("[[say x]]")]})
    wait(lambda: idles(w, s), "idle")
    f, i = fork(w, s), import_(w, data)
    w.delete(f"/v1/sessions/{s['id']}")
    for c in (f, i):
        equal([r["mount_path"] for r in c["resources"]], [r["mount_path"] for r in s["resources"]])
        true(not {r["file_id"] for r in c["resources"]} & {r["file_id"] for r in s["resources"]}, "the same files")
        for r, size in zip(c["resources"], (len(big), 0)):
            m = w.ok("GET", f"/v1/files/{r['file_id']}")
            equal((m["size_bytes"], m["scope"]), (size, {"type": "session", "id": c["id"]}))
        again = [json.loads(x) for x in export(w, c).splitlines()]
        have = b"".join(base64.b64decode(x["data"]) for x in again if x.get("row") == "bytes")
        equal(have, big)
    n = len(w.all(f"/v1/files?scope_id={f['id']}"))
    w.ok("DELETE", f"/v1/sessions/{f['id']}")
    equal((n, len(w.all(f"/v1/files?scope_id={i['id']}"))), (2, 2))


@test(model=True)
def copies_pay_for_themselves(w):
    s = w.session()
    say(w, s, "[[usage in=100 out=20]] [[say x]]")
    for c in (fork(w, s), import_(w, export(w, s))):
        equal(c["usage"]["input_tokens"], 0)
        say(w, c, "[[usage in=7 out=3]] [[say y]]")
        wait(lambda: w.ok("GET", f"/v1/sessions/{c['id']}")["status"] == "idle", "idle")
        usage = w.ok("GET", f"/v1/sessions/{c['id']}")["usage"]
        equal((usage["input_tokens"], usage["output_tokens"]), (7, 3))
        equal(last(w.events(c), "session.usage")["usage"]["input_tokens"], 7)


# ---------------------------------------------------------------------------------------- export and import

@test(model=True)
def export_and_import_keep_everything(w):
    s = rich(w)
    data = export(w, s)
    header = json.loads(data.splitlines()[0])
    equal((header["format"], header["version"], header["session"]["id"]), ("moonrig.session", 1, s["id"]))
    equal(json.loads(data.splitlines()[-1])["row"], "end")
    one, two = import_(w, data), import_(w, data, title="another")
    true(one["id"] != two["id"], "two sessions")
    equal((one["title"], two["title"]), ("the original", "another"))
    equal(one["metadata"], {"k": "v", "moonrig.imported_from": s["id"]})
    equal(one["agent"], s["agent"])
    equal(normal(w.events(one)), normal(w.events(s)))
    a, b, c = (say(w, x, "what now?") for x in (s, one, two))
    equal(history(a), history(b))
    equal(history(a), history(c))
    # a copy of a copy
    equal(normal(w.events(import_(w, export(w, one)))), normal(w.events(one)))
    # an event can be forked at in an imported session, too
    e = [x for x in w.events(one) if x["type"] == "agent.custom_tool_use"][0]
    equal(types(w.events(fork(w, one, e["id"])))[-4:], ["user.custom_tool_result"] + TRIPLE)


@test(model=True)
def a_file_of_version_1_can_be_imported(w):
    """Written once; every later version must read it."""
    data = (Path(__file__).parent / "exported_v1.jsonl").read_bytes()
    c = import_(w, data)
    equal((c["title"], c["metadata"]["k"], c["agent"]["name"]), ("a golden session", "v", "clerk"))
    rows = [json.loads(x) for x in data.splitlines()]
    equal(normal(w.events(c)), normal([r["body"] for r in rows if r.get("row") == "wire"]))
    (r,) = c["resources"]
    equal((r["mount_path"], w.ok("GET", f"/v1/files/{r['file_id']}")["size_bytes"]), ("/mnt/session/uploads/a.txt", 7))
    (use,) = last(w.events(c), "session.status_idle")["stop_reason"]["event_ids"]
    w.send(c, {"type": "user.tool_confirmation", "tool_use_id": use, "result": "deny"})
    wait(lambda: idles(w, c, "end_turn") == 2, "the end of the turn")
    sent = say(w, c, "[[say done]]")["body"]["messages"]
    equal([m["role"] for m in sent], ["user", "assistant", "user", "assistant", "user", "assistant", "user", "assistant", "user"])
    equal([b["type"] for b in sent[1]["content"]], ["thinking", "text", "tool_use", "tool_use"])
    equal([b["content"][0]["text"] for b in sent[2]["content"]], ["found 0", "found 1"])


@test(model=True)
def import_comes_to_rest(w):
    s = w.session()
    w.send(s, message("[[slow 300 ms]] [[say one two three four five]]"))
    wait(lambda: "span.model_request_start" in types(w.events(s)), "the request")
    w.send(s, message("one more thing"))
    c = import_(w, export(w, s))
    events = w.events(c)
    equal(types(events)[-5:], ["span.model_request_end", "user.message"] + TRIPLE)
    true(events[-4]["processed_at"], events[-4])
    at_rest(w, c)
    r = say(w, c, "[[say now]]")
    true("one more thing" in r["raw"], r["raw"])
    w.send(s, {"type": "user.interrupt"})
    wait(lambda: idles(w, s), "idle")


@test(model=True)
def import_refuses_damage(w):
    s = rich(w)
    data = export(w, s)
    lines = data.splitlines()
    known = {x["id"] for x in w.all("/v1/sessions?include_archived=true&limit=1000")}
    rnd = random.Random(7)
    for n in [0, 1, len(lines[0]), len(lines[0]) + 1, len(data) - len(lines[-1]) - 1] + rnd.sample(range(len(data) - 1), 20):
        r = send_file(w, data[:n], environment_id=w.environment["id"])
        true(r.status == 400 and "file" in r.error["message"] or "session" in r.error["message"], f"{n}: {r.status} {r.body!r}")
    for _ in range(30):
        at = rnd.randrange(len(data))
        b = bytearray(data)
        b[at] ^= 1 << rnd.randrange(8)
        r = send_file(w, bytes(b), environment_id=w.environment["id"])
        equal(r.status, 400, f"byte {at}: {data[max(0, at - 20):at + 20]!r} {r.body[:200]!r}")
    for what, names in ((b"hello\n", "line 1"), (b'{"format":"other"}\n', "moonrig.session"), (b"[]\n", "line 1"),
                        (lines[0].replace(b'"version":1,"moonrig"', b'"version":99,"moonrig"') + b"\n", "99"),
                        (sealed(lines[:-1]) + b"{}\n", "after the last"), (b"", "empty")):
        r = send_file(w, what, environment_id=w.environment["id"])
        equal(r.status, 400, what[:80])
        true(names in r.error["message"], r.error)
    for usage in ({"input_tokens": 1 << 62}, {"output_tokens": -1}, {"cache_read_input_tokens": 0.5}, 5):
        def used(v):
            if v.get("body", {}).get("type") == "span.model_request_end":
                v["body"]["model_usage"] = usage
            return v
        r = send_file(w, edited(lines[:-1], used), environment_id=w.environment["id"])
        equal(r.status, 400, usage)
        true("model_usage" in r.error["message"], r.error)
    r = send_file(w, data, environment_id="env_" + NOBODY)
    equal(r.status, 404)
    now = {x["id"] for x in w.all("/v1/sessions?include_archived=true&limit=1000")}
    equal(now, known, "nothing of them is there")


def mutated(rnd, lines):
    """A file that somebody changed and sealed again."""
    lines = list(lines)
    for _ in range(rnd.choice((1, 1, 1, 2, 5))):
        i = rnd.randrange(len(lines))
        how = rnd.randrange(7)
        if how == 0 and len(lines) > 1:
            del lines[i]
        elif how == 1:
            lines.insert(rnd.randrange(len(lines) + 1), lines[i])
        elif how == 2:
            k = rnd.randrange(len(lines))
            lines[i], lines[k] = lines[k], lines[i]
        elif how == 3:
            b = bytearray(lines[i])
            b[rnd.randrange(len(b))] = rnd.choice(b'{}[]",:0x\\\x00\xff')
            lines[i] = bytes(b)
        else:
            try:
                v = json.loads(lines[i])
            except ValueError:
                continue
            at = v
            while True:  # somewhere in it
                keys = list(at) if isinstance(at, dict) else list(range(len(at)))
                if not keys:
                    break
                k = rnd.choice(keys)
                if isinstance(at[k], (dict, list)) and rnd.random() < 0.8:
                    at = at[k]
                    continue
                if how == 4 and isinstance(at, dict):
                    del at[k]
                else:
                    at[k] = rnd.choice((None, 0, -1, 1 << 62, 1e300, "", "x" * 5000, [], {}, True, [[[]]], "sevt_" + NOBODY,
                                        at[k] if not isinstance(at[k], str) else at[k][:-1] + "2"))
                break
            lines[i] = json.dumps(v, separators=(",", ":")).encode()
    return sealed(lines)


@test(model=True)
def import_of_hostile_files(w):
    s = rich(w)
    lines = export(w, s).splitlines()[:-1]
    good = bad = 0
    for seed in range(160):
        data = mutated(random.Random(seed), lines)
        r = send_file(w, data, environment_id=w.environment["id"])
        if r.status != 200:
            true(400 <= r.status < 500 and r.error, f"seed {seed}: {r.status} {r.body[:300]!r}")
            bad += 1
            continue
        good += 1
        c = r.json
        try:
            events = w.events(c)
            equal(w.ok("GET", f"/v1/sessions/{c['id']}")["status"], "idle")
            end = [e for e in events if e["type"] == "session.status_idle"]
            if end and end[-1]["stop_reason"]["type"] == "requires_action":
                w.send(c, {"type": "user.interrupt"})
                wait(lambda: not idles(w, c) or last(w.events(c), "session.status_idle")["stop_reason"]["type"] != "requires_action",
                     "the interrupt")
            n = idles(w, c)
            w.send(c, message("[[say still here]]"))
            wait(lambda: idles(w, c) > n, f"seed {seed}: an idle; {types(w.events(c))[-6:]}")
            export(w, c)
            w.ok("DELETE", f"/v1/sessions/{c['id']}")
        except AssertionError as e:
            raise AssertionError(f"seed {seed}: {e}")
    true(good > 5 and bad > 50, f"{good} taken, {bad} refused")


def edited(lines, change):
    """Each row as change leaves it (None: gone), sealed."""
    out = [lines[0]]
    for x in lines[1:]:
        v = change(json.loads(x))
        if v is not None:
            out += [json.dumps(y, separators=(",", ":")).encode() for y in (v if isinstance(v, list) else [v])]
    return sealed(out)


@test(model=True)
def import_runs_nothing(w):
    s = w.session()
    say(w, s, '[[tools bash {"command":"echo ran"} | lookup {"q":"x"}]] ;; [[say {result}]]', reason="requires_action")
    lines = export(w, s).splitlines()[:-1]
    use, look = (last(w.events(s), t)["id"] for t in ("agent.tool_use", "agent.custom_tool_use"))

    def allowed(v):  # as if nobody had to be asked
        if v["body"].get("id") == use and v["body"].get("evaluated_permission"):
            v["body"].update(evaluated_permission="allow", evaluation={"type": "always_allow"})
        return v

    def confirmed(v):
        if v["body"].get("type") != "session.status_idle":
            return v
        at = v["at"] + 1
        time_ = v["body"]["processed_at"][:-7] + "%06dZ" % (at % 1000000)
        return [v, {"row": "wire", "at": at, "body": {"type": "user.tool_confirmation", "id": use[:-3] + "zzz",
                    "tool_use_id": use, "result": "allow", "processed_at": time_}}]

    def claimed(v):
        if v["body"].get("type") != "session.thread_status_idle":
            return v
        return [{"row": "private", "at": v["at"], "format": 1, "type": "tool.claim",
                 "body": {"event_id": look, "owned": True, "idempotent": True}}, v]

    def nothing(v):
        return None if v["body"].get("type") in TRIPLE else v

    for change, waits in ((lambda v: v, 2), (allowed, 1), (confirmed, 1), (claimed, 1), (nothing, 0)):
        r = send_file(w, edited(lines, change), environment_id=w.environment["id"])
        equal(r.status, 200, r.body)
        c, events = r.json, w.events(r.json)
        reason = last(events, "session.status_idle")["stop_reason"]
        equal((reason["type"], len(reason.get("event_ids", []))), ("requires_action", waits) if waits else ("end_turn", 0))
        equal(len([e for e in events if e["type"] == "agent.tool_result" and "interrupted" not in str(e)]), 0)
        equal(w.events(c), events)
        answer = [{"type": "user.custom_tool_result", "custom_tool_use_id": i, "content": text("y")} if
                  [e for e in events if e["id"] == i][0]["type"] == "agent.custom_tool_use" else
                  {"type": "user.tool_confirmation", "tool_use_id": i, "result": "deny"} for i in reason.get("event_ids", [])]
        if answer:
            w.send(c, *answer)
            wait(lambda: idles(w, c, "end_turn"), f"the end; {types(w.events(c))}")
        else:
            say(w, c, "[[say fine]]")


@test(model=True)
def import_of_a_long_session(w):
    s = w.session()
    say(w, s, "[[say one]]")
    lines = export(w, s).splitlines()[:-1]
    rows = [json.loads(x) for x in lines[1:]]
    out, at = [lines[0]], max(r["at"] for r in rows)
    base = at - 3000 * len(rows) * 10
    for turn in range(3000):
        for r in rows:
            base += 1
            x = json.dumps(dict(r, at=base))
            for e in re.findall(r"sevt_01\w{22}", x):
                x = x.replace(e, "sevt_01" + ("%022d" % (turn * 1000 + hash(e) % 1000)).replace("0", "z"))
            v = json.loads(x)
            if "processed_at" in v["body"]:
                us = base % 1000000
                v["body"]["processed_at"] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(base // 1000000)) + ".%06dZ" % us
            out.append(json.dumps(v, separators=(",", ":")).encode())
    data = sealed(out)
    c = import_(w, data)
    n = len(w.all(f"/v1/sessions/{c['id']}/events?limit=1000"))
    equal(n, 3000 * sum(r["row"] == "wire" for r in rows))
    again = export(w, c)
    equal(len(again.splitlines()), len(out) + 2)  # its mark and the last line
    equal(said(w.events(fork(w, c, w.events(c)[50]["id"])))[:2], ["one", "one"])


@test(model=True)
def outputs_come_along_as_files(w):
    agent = w.new_agent(tools=[{"type": "agent_toolset_20260401"}])
    s = w.session(agent=agent["id"])
    say(w, s, '[[tool bash {"command":"mkdir -p /mnt/session/outputs/d && echo made > /mnt/session/outputs/d/made.txt"}]]')
    wait(lambda: w.all(f"/v1/files?scope_id={s['id']}"), "the file")
    early = [e for e in w.events(s) if e["type"] == "user.message"][0]["id"]
    data = export(w, s)
    for c, n in ((fork(w, s), 1), (import_(w, data), 1), (fork(w, s, early), 0)):
        files = w.all(f"/v1/files?scope_id={c['id']}")
        equal([f["filename"] for f in files], ["made.txt"] * n)
        for f in files:
            r = w.get(f"/v1/files/{f['id']}/content")
            equal((r.status, r.body), (200, b"made\n"))
    rows = [json.loads(x) for x in data.splitlines()]
    equal([r["name"] for r in rows if r.get("row") == "file"], ["d/made.txt"])
