"""Items 74 to 95 of the resources checklist: the work queue of self-hosted environments (API: resources §8)."""
import base64
import contextlib
import json
import re
import shutil
import tempfile
import threading
import time
import urllib.parse

from kit import NOBODY, TIME, World, equal, message, said, test, text, true, types, wait
from stage import LIMIT, TOOLSET, asked, confirm, fresh, gate, interrupt, own, policy, requests, status

BASH = '[[tool bash {"command":"true"}]] ;; [[say {result}]]'
FIELDS = {"id", "type", "environment_id", "state", "data", "metadata", "secret", "created_at", "acknowledged_at", "started_at",
          "latest_heartbeat_at", "stop_requested_at", "stopped_at"}


class Queue:
    """A self-hosted environment of its own, its key, and what workers do with it."""

    def __init__(self, w):
        self.w = w
        self.id = w.new_environment(name=fresh("own"), config={"type": "self_hosted"})["id"]
        self.made = w.ok("POST", "/moonrig/v1/keys", {"name": "workers", "environment_id": self.id})
        self.key = self.made["key"]

    def worker(self, key=None):
        """A World that sends this key."""
        return World(self.w.url, key or self.key, mock=self.w.mock, server=self.w.server)

    def path(self, item="", verb=""):
        return f"/v1/environments/{self.id}/work" + (f"/{item if isinstance(item, str) else item['id']}" if item else "") + (f"/{verb}" if verb else "")

    def session(self, tools=None, **fields):
        return self.w.session(agent=self.w.new_agent(tools=tools or [TOOLSET])["id"], environment_id=self.id, **fields)

    def poll(self, query="", **headers):
        return self.worker().ok("GET", self.path("poll") + query, headers=headers)

    def ack(self, item):
        return self.worker().ok("POST", self.path(item, "ack"))

    def beat(self, item, expected=None, ttl=None, key=None, status=200):
        q = {k: v for k, v in (("expected_last_heartbeat", expected), ("desired_ttl_seconds", ttl)) if v is not None}
        path = self.path(item, "heartbeat") + ("?" + urllib.parse.urlencode(q) if q else "")
        w = self.worker(key or (token(item) if not isinstance(item, str) and item["secret"] else self.key))
        return w.ok("POST", path) if status == 200 else w.refused(status, "POST", path, type_="invalid_request_error")

    def stop(self, item, key=None, **body):
        return self.worker(key or self.key).ok("POST", self.path(item, "stop"), body)

    def stats(self):
        return self.w.ok("GET", self.path("stats"))

    def depth(self):
        s = self.stats()
        return s["depth"], s["pending"]

    def read(self, item):
        return self.w.ok("GET", self.path(item))

    def claim(self):
        """Polled and acknowledged."""
        item = self.poll()
        true(item, "an item is queued")
        self.ack(item)
        return item

    def active(self, ttl=None):
        """Claimed, with a first heartbeat."""
        item = self.claim()
        return item, self.beat(item, "NO_HEARTBEAT", ttl)


def token(item):
    s = item["secret"]
    return json.loads(base64.urlsafe_b64decode(s + "=" * (-len(s) % 4)))["sessions_token"]


def result(use, s="ran there"):
    return {"type": "user.tool_result", "tool_use_id": use, "content": text(s)}


@test
def w_074_a_session_is_queued_when_it_is_made(w):
    q = Queue(w)
    equal(q.stats(), {"type": "work_queue_stats", "depth": 0, "pending": 0, "oldest_queued_at": None, "workers_polling": None})
    s = q.session()
    st = q.stats()
    equal((st["depth"], st["pending"]), (1, 0))
    true(TIME.fullmatch(st["oldest_queued_at"]), st)
    (item,) = q.worker().all(q.path())
    equal(set(item), FIELDS)
    equal((item["type"], item["state"], item["data"], item["environment_id"], item["metadata"]),
          ("work", "queued", {"type": "session", "id": s["id"]}, q.id, {}))
    true(re.fullmatch(r"work_01[0-9A-Za-z]{22}", item["id"]), item)
    equal([item[k] for k in ("acknowledged_at", "started_at", "latest_heartbeat_at", "stop_requested_at", "stopped_at")], [None] * 5)
    w.session()
    equal(q.depth(), (1, 0), "a session elsewhere does not count")


@test
def w_075_a_poll_waits_for_work(w):
    q = Queue(w)
    began = time.monotonic()
    equal(q.poll(), None)
    true(time.monotonic() - began < 10, "without block_ms it is answered at once")
    began = time.monotonic()
    equal(q.poll("?block_ms=999"), None)
    true(time.monotonic() - began > 0.9, "with it, nothing comes before the time is over")
    got = []
    while not got:  # one of a row of polls is waiting when the session is made
        polls = threading.Thread(target=lambda: got.extend(filter(None, [q.poll("?block_ms=999") for _ in range(3)])))
        polls.start()
        s = q.session()
        polls.join(LIMIT)
    equal(got[0]["data"]["id"], s["id"])


@test
def w_075_items_go_out_in_order(w):
    q = Queue(w)
    made = [q.session()["id"] for _ in range(3)]
    equal([q.poll()["data"]["id"] for _ in range(3)], made)
    equal(q.poll(), None)


@test
def w_076_limits_of_block_ms(w):
    q = Queue(w)
    for bad in ("block_ms=0", "block_ms=1000", "block_ms=-1", "block_ms=x", "reclaim_older_than_ms=-1"):
        q.worker().refused(400, "GET", q.path("poll") + "?" + bad, names="block_ms|reclaim_older_than_ms")
    q.worker().ok("GET", q.path("poll") + "?block_ms=1&beta=true")


@test
def w_077_only_the_poll_has_the_secret(w):
    q = Queue(w)
    q.session()
    item = q.poll()
    true(isinstance(item["secret"], str) and item["secret"], item)
    for seen in (q.read(item), q.worker().all(q.path())[0], q.ack(item), q.stop(item)):
        equal((seen["id"], seen["secret"]), (item["id"], None))


@test
def w_078_the_secret_holds_a_session_token(w):
    q = Queue(w)
    q.session()
    item = q.poll()
    true(re.fullmatch(r"[A-Za-z0-9_-]+", item["secret"]), "the URL's base64, without padding")
    true(token(item).startswith("sk-ant-req-"), token(item))
    if w.server:
        true(token(item) not in w.server.log(), "and stands in no log")


@test
def w_079_no_item_goes_to_two_polls(w):
    q = Queue(w)
    made = {q.session()["id"] for _ in range(12)}
    got, lock = [], threading.Lock()

    def take():
        for _ in range(6):
            item = q.poll("?block_ms=20")
            with lock:
                got.append(item and item["data"]["id"])

    workers = [threading.Thread(target=take) for _ in range(6)]
    for t in workers:
        t.start()
    for t in workers:
        t.join(LIMIT)
    got = [x for x in got if x]
    equal(len(got), len(set(got)), "none twice")
    equal(set(got), made)


@test
def w_080_what_is_not_acknowledged_is_handed_out_again(w):
    q = Queue(w)
    s = q.session()
    first = q.poll()
    equal(q.depth(), (0, 1), "claimed, not acknowledged")
    equal(q.read(first)["state"], "queued")
    equal(q.poll(), None, "not within five seconds")
    second = wait(lambda: q.poll("?reclaim_older_than_ms=50"), "the item again")
    equal((second["id"], second["data"]["id"]), (first["id"], s["id"]))
    true(token(first) != token(second), "each poll has its own token")
    q.ack(second)
    q.beat(second, "NO_HEARTBEAT")
    lost = q.beat(first, "NO_HEARTBEAT", status=412)
    equal(lost.code(), "heartbeat_precondition_failed")
    q.worker(token(first)).refused(403, "GET", f"/v1/sessions/{s['id']}")
    r = q.worker(token(first)).refused(409, "POST", q.path(first, "stop"), {"force": True}, type_="conflict_error")
    equal(r.headers["x-should-retry"], "false")
    equal(q.read(first)["state"], "active", "the one that lost it cannot stop it")


@test
def w_081_ack(w):
    q = Queue(w)
    q.session()
    item = q.poll()
    seen = q.ack(item)
    equal(seen["state"], "starting")
    true(TIME.fullmatch(seen["acknowledged_at"]), seen)
    equal(q.depth(), (0, 0))
    equal(q.stats()["oldest_queued_at"], None)
    equal(q.ack(item), seen, "again: the same")
    q.beat(item, "NO_HEARTBEAT")
    r = q.worker().refused(409, "POST", q.path(item, "ack"), type_="conflict_error")
    equal(r.headers["x-should-retry"], "false")
    for unknown in ("work_" + NOBODY, "x"):
        q.worker().refused(404, "POST", q.path(unknown, "ack"))


@test
def w_082_the_first_heartbeat(w):
    q = Queue(w)
    q.session()
    item = q.claim()
    b = q.beat(item, "NO_HEARTBEAT")
    equal((b["type"], b["state"], b["lease_extended"], b["ttl_seconds"]), ("work_heartbeat", "active", True, 300))
    seen = q.read(item)
    equal((seen["state"], seen["latest_heartbeat_at"]), ("active", b["last_heartbeat"]))
    true(TIME.fullmatch(seen["started_at"]), seen)
    for asked_, got in ((60, 60), (0, 1), (-5, 1), (100000, 3600)):
        b = q.beat(item, b["last_heartbeat"], asked_)
        equal(b["ttl_seconds"], got)
    q.worker(token(item)).refused(400, "POST", q.path(item, "heartbeat") + "?desired_ttl_seconds=x", names="desired_ttl_seconds")


@test
def w_083_preconditions(w):
    q = Queue(w)
    q.session()
    item, b = q.active()
    for wrong in ("NO_HEARTBEAT", "2020-01-01T00:00:00.000000Z", "", b["last_heartbeat"] + " "):
        r = q.beat(item, wrong, status=412)
        equal(r.error["details"]["error_code"], "heartbeat_precondition_failed")
        equal(r.error["details"]["current_state"],
              {"last_heartbeat": b["last_heartbeat"], "lease_extended": False, "state": "active", "ttl_seconds": 300})
    c = q.beat(item, b["last_heartbeat"])
    true(c["last_heartbeat"] > b["last_heartbeat"], (b, c))
    d = q.beat(item)
    true(d["last_heartbeat"] > c["last_heartbeat"], "nothing expected: nothing compared")
    queued = q.session()
    other = q.poll()
    r = q.beat(other, "NO_HEARTBEAT", status=412)
    equal(r.error["details"]["current_state"], {"last_heartbeat": None, "lease_extended": False, "state": "queued", "ttl_seconds": 300})
    equal(other["data"]["id"], queued["id"])


@test
def w_084_stop(w):
    q = Queue(w)
    q.session()
    item, b = q.active()
    seen = q.stop(item, key=w.key)
    equal(seen["state"], "stopping")
    true(TIME.fullmatch(seen["stop_requested_at"]), seen)
    equal(q.stop(item, key=w.key), seen, "once more changes nothing")
    for expected in (b["last_heartbeat"], "NO_HEARTBEAT", "anything", None):
        h = q.beat(item, expected)
        equal((h["state"], h["lease_extended"]), ("stopping", True))
    done = q.stop(item, key=token(item), force=True)
    equal(done["state"], "stopped")
    true(TIME.fullmatch(done["stopped_at"]), done)
    h = q.beat(item, "NO_HEARTBEAT")
    equal((h["state"], h["lease_extended"]), ("stopped", False))
    for key in (w.key, q.key, token(item)):
        for body in ({}, {"force": True}):
            r = q.worker(key).refused(409, "POST", q.path(item, "stop"), body, type_="conflict_error")
            equal(r.headers["x-should-retry"], "false")
    equal(q.read(item), dict(done, secret=None), "and it stays so")


@test
def w_084_stop_of_a_queued_item(w):
    q = Queue(w)
    q.session()
    (item,) = q.worker().all(q.path())
    equal(q.stop(item)["state"], "stopped")
    equal(q.depth(), (0, 0))
    equal(q.poll(), None)


@test
def w_085_a_lease_that_ends(w):
    q = Queue(w)
    s = q.session()
    item, b = q.active(ttl=1)
    equal(b["ttl_seconds"], 1)
    again = wait(lambda: q.poll("?block_ms=500"), "the item to be queued again")
    equal((again["id"], again["state"], again["acknowledged_at"], again["latest_heartbeat_at"]), (item["id"], "queued", None, None))
    r = q.beat(item, b["last_heartbeat"], status=412)
    equal(r.error["details"]["current_state"]["state"], "queued")
    q.worker(token(item)).refused(403, "GET", f"/v1/sessions/{s['id']}")
    q.ack(again)
    c = q.beat(again, "NO_HEARTBEAT")
    equal(q.beat(item, b["last_heartbeat"], status=412).error["details"]["current_state"]["last_heartbeat"], c["last_heartbeat"])


@test
def w_085_a_late_heartbeat_keeps_what_nobody_took(w):
    q = Queue(w)
    q.session()
    item, b = q.active(ttl=1)
    wait(lambda: q.depth() == (1, 0), "the lease to end")
    equal(q.read(item)["state"], "queued")
    b = q.beat(item, b["last_heartbeat"])
    equal((b["state"], b["lease_extended"]), ("active", True))
    equal(q.depth(), (0, 0))


@test
def w_085_an_item_being_stopped_whose_worker_is_gone(w):
    q = Queue(w)
    s = q.session()
    item, b = q.active(ttl=1)
    q.stop(item, key=w.key)
    wait(lambda: q.read(item)["state"] == "stopped", "the lease to end")
    equal(q.beat(item, b["last_heartbeat"])["state"], "stopped")
    equal(q.poll(), None)
    w.send(s, message("hello"))
    again = q.poll()
    true(again["id"] != item["id"] and again["data"]["id"] == s["id"], again)


@test
def w_086_what_each_key_may_not(w):
    q, other = Queue(w), Queue(w)
    s = q.session()
    item = q.poll()
    worker = q.worker()
    worker.refused(403, "GET", q.path(item))
    worker.refused(403, "POST", q.path(item), {"metadata": {"a": "b"}})
    worker.refused(403, "GET", "/v1/memory_stores", headers={"anthropic-beta": "agent-memory-2026-07-22"})
    for path in ("/v1/agents", "/v1/environments", f"/v1/environments/{q.id}", "/v1/sessions", "/v1/files", "/v1/models", "/moonrig/v1/keys",
                 "/v1/vaults", f"/v1/sessions/{s['id']}/threads", f"/moonrig/v1/sessions/{s['id']}/why"):
        worker.refused(403, "GET", path)
    worker.refused(403, "POST", "/v1/sessions", {})
    worker.refused(403, "POST", "/v1/messages", {})
    worker.refused(403, "POST", "/moonrig/v1/keys", {"name": "more", "environment_id": q.id})
    worker.refused(403, "POST", "/moonrig/v1/control", {"command": "status"})
    worker.refused(403, "GET", other.path("poll"))
    worker.refused(403, "GET", other.path("stats"))
    worker.refused(404, "POST", q.path("work_" + NOBODY, "stop"), {})
    for verb, path in (("GET", q.path()), ("GET", q.path("poll")), ("POST", q.path(item, "ack")), ("POST", q.path(item, "heartbeat"))):
        w.refused(403, verb, path, names="environment key")
    w.refused(401, "GET", q.path("poll"), headers={"authorization": "Bearer sk-mr-env-nobody"})
    w.refused(401, "GET", q.path("poll"), headers={"authorization": "Bearer sk-ant-req-nobody_nothing"})


@test
def w_086_an_environment_key_reads_sessions_in_its_workers_hands(w):
    q, other = Queue(w), Queue(w)
    s, away = q.session(), other.session()
    path = f"/v1/sessions/{s['id']}"
    q.worker().refused(404, "GET", path, names="no worker's hands")
    item = q.poll()
    equal(q.worker().ok("GET", path)["id"], s["id"])
    equal(q.worker().ok("GET", path + "/events?limit=1000")["data"], [])
    q.worker().refused(403, "POST", path + "/events", {"events": [message("hello")]}, names="user.tool_result")
    other.poll()
    q.worker().refused(404, "GET", f"/v1/sessions/{away['id']}")
    q.stop(item, force=True)
    q.worker().refused(404, "GET", path)


@test
def w_086_environment_keys(w):
    q = Queue(w)
    equal((q.made["type"], q.made["environment_id"], q.made["name"]), ("environment_key", q.id, "workers"))
    true(q.key.startswith("sk-mr-env-"), q.key)
    (listed,) = [k for k in w.ok("GET", "/moonrig/v1/keys")["data"] if k["id"] == q.made["id"]]
    equal(listed, {k: v for k, v in q.made.items() if k != "key"})
    q.session()
    q.poll()
    w.ok("DELETE", "/moonrig/v1/keys/" + q.made["id"])
    q.worker().refused(401, "GET", q.path("poll"))
    for env, status_ in ((w.environment["id"], 400), ("env_" + NOBODY, 404)):
        w.refused(status_, "POST", "/moonrig/v1/keys", {"name": "x", "environment_id": env}, names="environment")
    w.refused(400, "POST", "/moonrig/v1/keys", {"name": "x", "environment_id": 7}, names="environment_id")
    w.refused(400, "GET", f"/v1/environments/{w.environment['id']}/work/stats", names="not self-hosted")
    w.refused(404, "GET", f"/v1/environments/env_{NOBODY}/work/stats")


@test(model=True)
def w_087_what_a_session_token_may(w):
    q = Queue(w)
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session())
    item = q.poll()
    holder, path = q.worker(token(item)), f"/v1/sessions/{s['id']}"
    holder.ok("POST", q.path(item, "ack"))
    b = q.beat(item, "NO_HEARTBEAT")
    equal(holder.ok("GET", path)["id"], s["id"])
    true(use in [e["id"] for e in holder.ok("GET", path + "/events?limit=1000")["data"]], "its events")
    with holder.stream(s) as feed:
        equal(feed.status, 200)
        other = w.session()
        for bad in (message("x"), interrupt(), confirm(use), {"type": "system.message", "content": text("x")}):
            holder.refused(403, "POST", path + "/events", {"events": [bad]}, names="nothing else")
        holder.refused(403, "POST", path + "/events", {"events": [result(use), message("x")]})
        for verb, p in (("GET", f"/v1/sessions/{other['id']}"), ("GET", f"/v1/sessions/{other['id']}/events"),
                        ("POST", f"/v1/sessions/{other['id']}/events")):
            holder.refused(404, verb, p, {"events": [result(use)]} if verb == "POST" else None)
        for verb, p in (("GET", q.path("poll")), ("GET", q.path()), ("GET", q.path("stats")), ("GET", q.path(item)), ("GET", "/v1/sessions"),
                        ("GET", "/v1/agents"), ("DELETE", path), ("POST", path + "/archive"), ("POST", path), ("GET", path + "/resources"),
                        ("GET", "/v1/models"), ("GET", "/v1/environments/" + q.id), ("POST", "/v1/messages"), ("GET", "/moonrig/v1/keys")):
            holder.refused(403, verb, p, {} if verb == "POST" else None)
        second = q.session()
        theirs = q.poll()
        equal(theirs["data"]["id"], second["id"])
        for verb in ("heartbeat", "stop", "ack"):
            holder.refused(403, "POST", q.path(theirs, verb), names="another work item")
        (e,) = holder.send(s, result(use, "the worker was here"))
        true(e["processed_at"], e)
        wait(lambda: said(w.events(s)) == ["the worker was here"], "the model to read it")
        q.stop(item, key=token(item), force=True)
        feed.end()
    holder.refused(403, "GET", path, names="stopped")
    holder.refused(403, "GET", path + "/events")
    holder.refused(403, "POST", path + "/events", {"events": [result(use)]})
    true(b["lease_extended"], b)


@test
def w_089_workers_polling(w):
    q = Queue(w)
    q.poll()
    equal(q.stats()["workers_polling"], None, "none ever said who it is")
    for id_ in ("host-a", "host-b", "host-a", "x" * 400):
        q.poll(**{"Anthropic-Worker-ID": id_})
    equal(q.stats()["workers_polling"], 3)
    equal(Queue(w).stats()["workers_polling"], None)


@test(model=True)
def w_091_confirmations(w):
    q = Queue(w)
    ask = [policy("bash", "always_ask")]
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session(tools=ask))
    item, _ = q.active()
    holder = q.worker(token(item))
    holder.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": [result(use)]}, names="user.tool_confirmation")
    w.send(s, confirm(use))
    idle = lambda: [e for e in w.events(s) if e["type"] == "session.status_idle"][-1]
    wait(lambda: "user.tool_confirmation" in [e["type"] for e in w.events(s) if e["processed_at"]], "the confirmation to be taken")
    wait(lambda: status(w, s) == "idle" and idle()["stop_reason"] == {"type": "requires_action", "event_ids": [use]}, "it waits for the result")
    holder.send(s, result(use, "allowed and run"))
    wait(lambda: said(w.events(s)) == ["allowed and run"], "the model to read it")
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session(tools=ask))
    w.send(s, confirm(use, "deny", deny_message="Not on my machine."))
    wait(lambda: said(w.events(s)), "the model to go on")
    (r,) = [e for e in w.events(s) if e["type"] == "agent.tool_result"]
    equal((r["tool_use_id"], r["is_error"]), (use, True))
    true("Not on my machine." in json.dumps(r["content"]), r)
    true("user.tool_result" not in types(w.events(s)), "nobody else answers it")


@test(model=True)
def w_091_a_tool_that_is_not_enabled_never_reaches_the_worker(w):
    q = Queue(w)
    off = [dict(TOOLSET, configs=[{"name": "bash", "enabled": False}])]
    s, events = w.turn(message(BASH), session=q.session(tools=off))
    (r,) = [e for e in events if e["type"] == "agent.tool_result"]
    true(r["is_error"], r)
    equal([e["evaluated_permission"] for e in events if e["type"] == "agent.tool_use"], ["deny"])


@test(model=True)
def w_092_a_message_after_the_item_stopped(w):
    q = Queue(w)
    s = q.session()
    first, _ = q.active()
    w.turn(message("[[say hello]]"), session=s)
    equal(q.depth(), (0, 0), "its item is live: nothing new")
    wait(lambda: w.ok("POST", q.path(first, "stop"), {"force": True})["state"] == "stopped", "stopped")
    equal(q.depth(), (0, 0))
    w.turn(message("[[say hello again]]"), session=s)
    equal(q.depth(), (1, 0))
    second = q.poll()
    true(second["id"] != first["id"] and second["data"]["id"] == s["id"], second)
    w.turn(message("[[say and again]]"), session=s)
    equal(q.depth(), (0, 1), "one live item for each session")
    equal([i["id"] for i in q.worker().all(q.path())], [second["id"], first["id"]], "newest first")


@test(model=True)
def w_092_a_message_while_the_item_is_being_stopped(w):
    q = Queue(w)
    s = q.session()
    item, _ = q.active()
    q.stop(item, key=w.key)
    w.turn(message("[[say hello]]"), session=s)
    equal(q.depth(), (0, 0), "its worker has not ended yet")
    q.stop(item, key=token(item), force=True)
    equal(q.depth(), (1, 0), "what came meanwhile is queued")
    equal(q.poll()["data"]["id"], s["id"])


@test(model=True)
def w_092_a_message_as_the_worker_leaves(w):
    q = Queue(w)
    s = q.session()
    for _ in range(10):  # within two seconds, which a busy machine may need for less
        item, _ = q.active()
        door = fresh()
        w.send(s, message(f"[[gate {door}]] [[say hello]]"))
        q.stop(item, key=token(item), force=True)  # at once: its worker may not have seen the message
        again = q.depth()
        gate(w, door)
        wait(lambda: said(w.events(s)) and status(w, s) == "idle", "idle", LIMIT)
        if again == (1, 0):
            break
        w.turn(message("[[say back]]"), session=s)
    equal(again, (1, 0))
    again, _ = q.active()
    q.stop(again, key=token(again), force=True)
    equal(q.depth(), (0, 0), "but only once")


@test(model=True)
def w_092_an_interrupt_after_a_failed_item(w):
    q = Queue(w)
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session())
    item, _ = q.active()
    w.ok("POST", q.path(item, "stop"), {"force": True})
    equal(q.depth(), (0, 0))
    w.send(s, interrupt())
    equal(q.depth(), (1, 0))
    wait(lambda: [e for e in w.events(s) if e["type"] == "user.tool_result" and e["tool_use_id"] == use and e["is_error"]], "the call to be closed")
    w.ok("POST", q.path(q.poll(), "stop"), {"force": True})
    w.send(s, interrupt())
    equal(q.depth(), (0, 0), "nothing is open: nothing to do")


@test(model=True)
def w_092_a_confirmation_after_a_failed_item(w):
    q = Queue(w)
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session(tools=[policy("bash", "always_ask")]))
    item, _ = q.active()
    w.ok("POST", q.path(item, "stop"), {"force": True})
    w.send(s, confirm(use))
    equal(q.depth(), (1, 0), "somebody has to run it")


@test
def w_093_resources_of_self_hosted_sessions(w):
    q = Queue(w)
    agent = w.new_agent()["id"]
    file = w.upload().json["id"]
    for r in ({"type": "file", "file_id": file}, {"type": "github_repository", "url": "https://github.com/o/r", "authorization_token": "x"}):
        w.refused(400, "POST", "/v1/sessions", {"agent": agent, "environment_id": q.id, "resources": [r]}, names=r"resources\[0\].*self-hosted")
    s = q.session()
    w.refused(400, "POST", f"/v1/sessions/{s['id']}/resources", {"type": "file", "file_id": file}, names="self-hosted")
    equal(q.depth(), (1, 0), "what was refused is not queued")


@test(model=True)
def w_093_the_system_prompt_of_self_hosted_sessions(w):
    q = Queue(w)
    n = w.mock.count()
    w.turn(message("[[say hello]]"), session=q.session())
    asked_ = json.dumps(requests(w, n))
    true("/mnt/session" not in asked_ and "/workspace" not in asked_, "no path of our sandbox")
    n = w.mock.count()
    w.turn(message("[[say hello]]"))
    true("/mnt/session/outputs" in json.dumps(requests(w, n)), "which others are told")


@test
def w_094_metadata(w):
    q = Queue(w)
    q.session()
    (item,) = q.worker().all(q.path())
    update = lambda patch: w.ok("POST", q.path(item), {"metadata": patch})["metadata"]
    equal(update({"a": "1", "b": "2"}), {"a": "1", "b": "2"})
    equal(update({"a": None, "b": "3", "c": ""}), {"b": "3", "c": ""})
    equal(update({}), {"b": "3", "c": ""})
    equal(q.read(item)["metadata"], {"b": "3", "c": ""})
    for bad, names in (({"k" * 65: "v"}, "64"), ({"": "v"}, "64"), ({"k": "v" * 513}, "512"), ({"k": 7}, '"k"'), ({"anthropic.x": "v"}, "reserved"),
                       ({"moonrig": None}, "reserved"), ({f"k{i}": "v" for i in range(15)}, "16 pairs"),
                       ({"k" * 65: "v", "j": "v" * 600, "moonrig_x": "y"}, '64 characters; the value of "j" .*512.*; key "moonrig_x" is reserved')):
        r = w.refused(400, "POST", q.path(item), {"metadata": bad}, names=names)
        equal(r.code(), "invalid_metadata")
    w.refused(400, "POST", q.path(item), {}, names="metadata")
    w.refused(400, "POST", q.path(item), {"metadata": "x"}, names="metadata")
    equal(q.read(item)["metadata"], {"b": "3", "c": ""}, "unchanged")
    equal(q.poll()["metadata"], {"b": "3", "c": ""})
    q.stop(item)
    equal(update({"b": None}), {"c": ""}, "after the end, too")


@test(model=True)
def w_095_the_end_of_a_session(w):
    q = Queue(w)
    s = q.session()
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    equal(q.depth(), (0, 0), "queued: gone from the queue")
    equal(q.worker().all(q.path())[0]["state"], "stopped")
    s = q.session()
    item, b = q.active()
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    equal(q.worker(token(item)).ok("GET", f"/v1/sessions/{s['id']}")["status"], "terminated", "its worker can see why")
    equal(q.beat(item, b["last_heartbeat"])["state"], "stopping")
    equal(q.stop(item, key=token(item), force=True)["state"], "stopped")
    equal(q.poll(), None)
    s = q.session()
    item, b = q.active()
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    q.worker(token(item)).refused(404, "GET", f"/v1/sessions/{s['id']}")
    equal(q.beat(item, b["last_heartbeat"])["state"], "stopping")


@test
def w_list_and_delete(w):
    q = Queue(w)
    made = [q.session() for _ in range(5)]
    ids = [i["data"]["id"] for i in q.worker().all(q.path() + "?limit=2")]
    equal(ids, [s["id"] for s in made][::-1])
    for bad in ("limit=0", "limit=101", "page=page_x"):
        q.worker().refused(400, "GET", q.path() + "?" + bad)
    w.refused(409, "DELETE", "/v1/environments/" + q.id, type_="conflict_error")
    item = q.poll()
    w.refused(404, "GET", Queue(w).path(item))
    for s in made:
        w.ok("DELETE", "/v1/sessions/" + s["id"])
    w.ok("DELETE", "/v1/environments/" + q.id)
    w.refused(404, "GET", q.path("stats"))
    q.worker().refused(404, "GET", q.path("poll"))


@test(model=True)
def w_a_fork_has_an_item_of_its_own(w):
    q = Queue(w)
    s, _, (use,) = asked(w, BASH, "agent.tool_use", session=q.session())
    q.claim()
    f = w.ok("POST", f"/moonrig/v1/sessions/{s['id']}/fork", {})
    equal(q.depth(), (1, 0))
    equal(q.poll()["data"]["id"], f["id"])


@test(model=True)
def w_the_queue_survives_kill_9(w):
    data = tempfile.mkdtemp(prefix="moonrig-work-")
    try:
        with contextlib.suppress(AssertionError), own(w, data=data) as a:
            q = Queue(a)
            waiting = [q.session() for _ in range(3)]
            item, b = q.active()
            claimed = q.poll()
            a.server.process.kill()
        with own(w, data=data) as z:
            q.w = z
            equal(q.depth(), (1, 1))
            equal(q.poll()["data"]["id"], waiting[2]["id"])
            c = q.beat(item, b["last_heartbeat"])
            equal((c["state"], c["lease_extended"]), ("active", True), "the lease goes on, with the same token")
            equal(q.beat(item, b["last_heartbeat"], status=412).code(), "heartbeat_precondition_failed")
            q.ack(claimed)
            equal(q.beat(claimed, "NO_HEARTBEAT")["state"], "active")
            q.stop(claimed, force=True)
            equal(q.poll(), None)
            z.send(waiting[1], message("hello"))
            equal(q.poll()["data"]["id"], waiting[1]["id"])
    finally:
        shutil.rmtree(data, ignore_errors=True)
