"""Idempotency-Key: a POST that is sent again has its effect once (platform, 18; our extension)."""
import http.client
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time

from kit import KEY, NOBODY, UPSTREAM_KEY, Server, World, equal, message, test, true, wait

ENV = {"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY}


def fresh():
    return f"key-{random.getrandbits(64):x}"


def replayed(reply):
    return reply.headers.get("idempotent-replayed") == "true"


def again(w, key, path, body, times=2, **kw):
    """The first answer, after it was given the same number of times again."""
    first = w.post(path, body, headers={"idempotency-key": key}, **kw)
    true(not replayed(first), "the first is none")
    for _ in range(times):
        r = w.post(path, body, headers={"idempotency-key": key}, **kw)
        equal((r.status, r.body, replayed(r)), (first.status, first.body, True))
        true(r.headers["request-id"] != first.headers["request-id"], "a request of its own")
    return first


@test
def platform_18_creates_happen_once(w):
    for path, body in (("/v1/agents", {"name": fresh(), "model": "claude-opus-4-7"}), ("/v1/environments", {"name": fresh()}),
                       ("/v1/sessions", {"agent": w.agent["id"], "environment_id": w.environment["id"], "title": fresh()})):
        first = again(w, fresh(), path, body)
        equal(first.status, 200)
        same = [o for o in w.all(path) if o.get("name") == body.get("name") and o.get("title") == body.get("title")]
        equal([o["id"] for o in same], [first.json["id"]])
        equal(w.post(path, body).status, 200, "without a key")
        equal(w.post(path, body, headers={"idempotency-key": fresh()}).status, 200, "another key")
        same = [o for o in w.all(path) if o.get("name") == body.get("name") and o.get("title") == body.get("title")]
        equal(len(same), 3)


@test(model=True)
def events_are_taken_once(w):
    s = w.session()
    with w.stream(s) as feed:
        first = again(w, fresh(), f"/v1/sessions/{s['id']}/events", {"events": [message("[[say x]]")]}, times=4)
        feed.idle()
        w.turn(message("[[say y]]"), session=s)
    equal([e["id"] for e in w.events(s) if e["type"] == "user.message"][0], first.json["data"][0]["id"])
    equal(sum(e["type"] == "user.message" for e in w.events(s)), 2)


@test
def every_post_can_be_repeated(w):
    s, a, e = w.session(), w.new_agent(), w.new_environment()
    f = w.upload().json["id"]
    again(w, fresh(), f"/v1/sessions/{s['id']}", {"title": "t"})
    equal(sum(x["type"] == "session.updated" for x in w.events(s)), 1)
    again(w, fresh(), f"/v1/agents/{a['id']}", {"version": a["version"], "name": "other"})
    equal(w.get(f"/v1/agents/{a['id']}").json["version"], a["version"] + 1)
    again(w, fresh(), f"/v1/environments/{e['id']}", {"name": fresh()})
    again(w, fresh(), f"/v1/sessions/{s['id']}/resources", {"type": "file", "file_id": f})
    equal(len(w.get(f"/v1/sessions/{s['id']}/resources").json["data"]), 1)
    again(w, fresh(), f"/v1/agents/{a['id']}/archive", None)
    again(w, fresh(), f"/v1/environments/{e['id']}/archive", None)
    again(w, fresh(), f"/v1/sessions/{s['id']}/archive", None)
    equal(w.get("/v1/agents", headers={"idempotency-key": "x" * 300}).status, 200, "reading knows no keys")


@test
def uploads_are_compared_by_their_parts(w):
    """Clients draw a new boundary for each try."""
    key, n = fresh(), len(w.all("/v1/files"))

    def upload(content, boundary, name="a.txt"):
        body = (f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\ncontent-type: text/plain\r\n\r\n').encode()
        return w.ask("POST", "/v1/files", body=body + content + f"\r\n--{boundary}--\r\n".encode(),
                     headers={"content-type": "multipart/form-data; boundary=" + boundary, "idempotency-key": key})

    big = os.urandom(3 << 20)
    first = upload(big, "one")
    equal(first.status, 200)
    for boundary in ("two", "three-" * 8):
        r = upload(big, boundary)
        equal((r.status, r.body, replayed(r)), (200, first.body, True))
    for content, name in ((big[:-1], "a.txt"), (big, "b.txt"), (b"", "a.txt")):
        r = upload(content, "four", name)
        equal((r.status, r.json["error"]["details"]["field"]), (400, "idempotency-key"))
    equal(len(w.all("/v1/files")), n + 1)
    equal(w.get(f"/v1/files/{first.json['id']}").json["size_bytes"], len(big))


@test
def a_key_is_for_one_request(w):
    key = fresh()
    first = w.post("/v1/environments", {"name": "one"}, headers={"idempotency-key": key})
    s = w.session()
    for path, body in (("/v1/environments", {"name": "two"}), ("/v1/environments?x=1", {"name": "one"}), ("/v1/agents", {"name": "one"}),
                       (f"/v1/sessions/{s['id']}/archive", None)):
        r = w.refused(400, "POST", path, body, names="^idempotency-key: ", headers={"idempotency-key": key})
        true(not replayed(r), "it is not the first answer")
    equal(w.get(f"/v1/sessions/{s['id']}").json["archived_at"], None)
    equal(w.post("/v1/environments", {"name": "one"}, headers={"idempotency-key": key}).body, first.body, "and stays so")
    for bad in ("", "x" * 256, "k\u00e9y"):
        w.refused(400, "POST", "/v1/environments", {"name": "one"}, names="^idempotency-key: ",
                  headers={"idempotency-key": bad.encode("latin-1")})


@test(local=True)
def keys_are_the_callers_own(w):
    key = fresh()
    mine = w.post("/v1/environments", {"name": "mine"}, headers={"idempotency-key": key})
    made = [w.ok("POST", "/moonrig/v1/keys", {"name": "k"}, headers={"idempotency-key": key}) for _ in range(2)]
    true(made[0]["id"] != made[1]["id"] and "key" in made[1], "an answer with a secret is not kept")
    theirs = World(w.url, made[0]["key"]).post("/v1/environments", {"name": "theirs"}, headers={"idempotency-key": key})
    equal((theirs.status, replayed(theirs)), (200, False))
    true(theirs.json["id"] != mine.json["id"], "another caller")


@test
def refusals_are_kept_and_failures_are_not(w):
    first = again(w, fresh(), "/v1/sessions", {"agent": f"agent_{NOBODY}", "environment_id": w.environment["id"]})
    equal(first.status, 404)
    again(w, fresh(), "/v1/agents", {"name": 7})
    c = fresh()
    first = w.ask("POST", "/v1/agents", body=b"{not json", headers={"idempotency-key": c})
    r = w.ask("POST", "/v1/agents", body=b"{not json", headers={"idempotency-key": c})
    equal((first.status, r.status, r.body, replayed(r)), (400, 400, first.body, True))
    key = fresh()
    for _ in range(2):
        r = w.post("/v1/vaults", {"name": "v"}, headers={"idempotency-key": key})
        if r.status == 501:
            true(not replayed(r), "asked again")
    key = fresh()
    for auth in ("Bearer nobody", None):
        equal(w.post("/v1/environments", {"name": "x"}, headers={"idempotency-key": key, "authorization": auth}).status, 401)
    equal(w.post("/v1/environments", {"name": "x"}, headers={"idempotency-key": key}).status, 200)


@test
def requests_at_the_same_time_wait_for_the_first(w):
    for path, body in (("/v1/sessions", {"agent": w.agent["id"], "environment_id": w.environment["id"], "title": fresh()}),
                       (f"/v1/sessions/{w.session()['id']}", {"title": "all at once"})):
        key, replies, gate = fresh(), [], threading.Barrier(24)

        def one():
            gate.wait()
            replies.append(w.post(path, body, headers={"idempotency-key": key}))

        threads = [threading.Thread(target=one) for _ in range(24)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal({r.status for r in replies}, {200})
        equal(len({r.body for r in replies}), 1)
        equal(sum(not replayed(r) for r in replies), 1)


@test
def whoever_goes_away_leaves_the_key_to_the_next(w):
    key, held = fresh(), []
    for _ in range(3):  # the first never sends its body, the others wait, and go too
        c = w.connect()
        c.putrequest("POST", "/v1/environments")
        for k, v in w.headers({"idempotency-key": key, "content-length": "16", "content-type": "application/json"}).items():
            c.putheader(k, v)
        c.endheaders()
        held.append(c)
    answer = []
    t = threading.Thread(target=lambda: answer.append(w.post("/v1/environments", {"name": "last"}, headers={"idempotency-key": key})))
    t.start()
    for c in held:
        c.close()
    t.join(60)
    equal([a.status for a in answer], [200])
    equal(w.post("/v1/environments", {"name": "last"}, headers={"idempotency-key": key}).body, answer[0].body)


@test(local=True)
def records_are_bounded(w):
    server = Server(env=ENV, config="{ api = { idempotency_max = 4096 } }")
    try:
        v = World(server.url)
        made = {}
        for _ in range(50):
            key = fresh()
            r = v.post("/v1/environments", {"name": "x"}, headers={"idempotency-key": key})
            if r.status != 200:
                break
            made[key] = r.body
        equal((r.status, r.error["type"]), (429, "rate_limit_error"))
        true(2 < len(made) < 20, len(made))
        for key, body in made.items():
            equal(v.post("/v1/environments", {"name": "x"}, headers={"idempotency-key": key}).body, body)
        equal(v.post("/v1/environments", {"name": "x"}).status, 200)
        server.stop(signal.SIGKILL, keep=True)
        server = Server(env=ENV, config="{ api = { idempotency_max = 4096 } }", data=server.data)
        v = World(server.url)
        v.refused(429, "POST", "/v1/environments", {"name": "x"}, headers={"idempotency-key": fresh()}, type_="rate_limit_error")
        equal(v.post("/v1/environments", {"name": "x"}, headers={"idempotency-key": key}).status, 200)
    finally:
        server.stop()


@test(local=True)
def a_killed_server_remembers(w):
    """Clients that repeat what they got no answer for, over kills at any moment: one environment, agent and session
    for each key, and the answer that was given is given again."""
    data = tempfile.mkdtemp(prefix="moonrig-once-")
    answers, names, lock = {}, {}, threading.Lock()
    server = Server(env=ENV, data=data)
    try:
        v = World(server.url)
        agent, environment = v.new_agent(), v.new_environment()
        stop = threading.Event()

        def client(v, seed):
            rnd = random.Random(seed)
            while not stop.is_set():
                with lock:
                    retry = [k for k in names if k not in answers]
                    key = rnd.choice(retry) if retry and rnd.random() < 0.5 else fresh()
                    kind = names.setdefault(key, rnd.choice(["environments", "agents", "sessions"]))
                body = {"environments": {"name": key}, "agents": {"name": key, "model": "claude-opus-4-7"},
                        "sessions": {"agent": agent["id"], "environment_id": environment["id"], "title": key}}[kind]
                try:
                    r = v.post("/v1/" + kind, body, headers={"idempotency-key": key})
                except (OSError, http.client.HTTPException):
                    return
                if r.status == 503:
                    continue
                equal(r.status, 200)
                with lock:
                    equal(answers.setdefault(key, r.body), r.body)

        for round_ in range(5):
            stop.clear()
            threads = [threading.Thread(target=client, args=(v, round_ * 10 + i)) for i in range(4)]
            for t in threads:
                t.start()
            before = len(answers)
            wait(lambda: len(answers) >= before + 20 + round_ * 7, "some answers", 60)
            server.stop(signal.SIGKILL, keep=True)
            stop.set()
            for t in threads:
                t.join()
            shutil.rmtree(server.dir)
            server = Server(env=ENV, data=data)
            v = World(server.url)
        unanswered = [k for k in names if k not in answers]
        for key, kind in names.items():
            body = {"environments": {"name": key}, "agents": {"name": key, "model": "claude-opus-4-7"},
                    "sessions": {"agent": agent["id"], "environment_id": environment["id"], "title": key}}[kind]
            r = v.post("/v1/" + kind, body, headers={"idempotency-key": key})
            equal((r.status, answers.setdefault(key, r.body)), (200, r.body))
        for kind in ("environments", "agents", "sessions"):
            there = [(o.get("title") or o.get("name"), o["id"]) for o in v.all(f"/v1/{kind}?limit=100")]
            there = [x for x in there if x[0].startswith("key-")]
            want = {(k, json.loads(answers[k])["id"]) for k in names if names[k] == kind}
            equal(set(there) - want, set(), f"{kind} that nobody was told of ({len(unanswered)} requests had no answer)")
            equal(len(there), len(want))
    finally:
        server.stop()
        shutil.rmtree(data, ignore_errors=True)
