"""A work queue and its sessions over real HTTP, as the API's worker protocol has it: poll, ack, heartbeat with
preconditions and leases, stop, sessions with an event log, streams. It fails on demand, and keeps what it was asked.

Not a model of a server's sessions: a test writes the agent's events itself, and sees what the worker makes of them."""
import base64, itertools, json, re, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

ENVIRONMENT, KEY = "env_01Worker", "sk-ant-oat01-key-of-the-environment-4711"
TOOLS = ("bash", "read", "write", "edit", "glob", "grep")


def now():
    t = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".%06dZ" % (t % 1 * 1e6)


class Session:
    def __init__(self, id):
        self.id, self.status, self.events, self.gone = id, "running", [], False
        self.resources, self.skills = [], []


class Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # workers cut their connections


class WorkQueue:
    def __init__(self, ttl=300):
        self.ttl, self.lock = ttl, threading.Condition()
        self.items, self.sessions, self.requests, self.faults, self.wrong = [], {}, [], [], []
        self.ids, self.epoch, self.workers, self.polls_open = itertools.count(1), 0, set(), 0
        self.http = Http(("127.0.0.1", 0), self.handler())
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.drop_streams()
        self.http.shutdown()
        self.http.server_close()

    # ---- what a test does ----

    def session(self, *events, id=None):
        s = Session(id or f"sesn_01Worker{next(self.ids)}")
        self.sessions[s.id] = s
        for e in events:
            self.add(s.id, e)
        return s.id

    def enqueue(self, session, secret=True, type="session", **more):
        n = next(self.ids)
        w = {"id": f"work_01W{n}", "type": "work", "environment_id": ENVIRONMENT, "state": "queued", "metadata": {},
             "data": {"type": type, "id": session}, "created_at": now(), "secret": None, "acknowledged_at": None,
             "started_at": None, "latest_heartbeat_at": None, "stop_requested_at": None, "stopped_at": None}
        token = f"sk-ant-req-token-of-item-{n}"
        if secret is True:
            secret = base64.urlsafe_b64encode(json.dumps({"sessions_token": token}).encode()).decode().rstrip("=")
        else:
            token = KEY
        item = {"work": dict(w, **more), "secret": secret or None, "token": token, "claimed": 0, "beat": 0, "ttl": self.ttl}
        with self.lock:
            self.items.append(item)
            self.lock.notify_all()
        return w["id"]

    def item(self, id):
        return next(i for i in self.items if i["work"]["id"] == id)

    def state(self, id):
        with self.lock:
            return self.item(id)["work"]["state"]

    def stop(self, id):
        with self.lock:
            self.item(id)["work"].update(state="stopping", stop_requested_at=now())

    def steal(self, id):
        """Another worker has the lease now."""
        with self.lock:
            self.item(id)["work"]["latest_heartbeat_at"] = "2026-01-01T00:00:00.000001Z"
            self.item(id)["beat"] += 3600

    def add(self, session, event):
        with self.lock:
            event = dict({"id": f"sevt_01Worker{next(self.ids)}", "processed_at": now()}, **event)
            self.sessions[session].events.append(event)
            self.lock.notify_all()
        return event["id"]

    def use(self, session, name, permission="allow", **input):
        e = {"type": "agent.tool_use", "name": name, "input": input}
        return self.add(session, dict(e, evaluated_permission=permission) if permission else e)

    def idle(self, session, *blockers):
        reason = {"type": "requires_action", "event_ids": list(blockers)} if blockers else {"type": "end_turn"}
        return self.add(session, {"type": "session.status_idle", "stop_reason": reason})

    def results(self, session):
        with self.lock:
            return {e["tool_use_id"]: e for e in self.sessions[session].events if e["type"] == "user.tool_result"}

    def fail(self, verb, path, *what, times=1):
        """what: a status, "drop" (no answer), "hang", "lost" (done, but the answer is lost), or a function of the request."""
        f = {"verb": verb, "path": re.compile(path), "what": list(what), "left": times}
        with self.lock:
            self.faults.append(f)
        return f

    def drop_streams(self):
        with self.lock:
            self.epoch += 1
            self.lock.notify_all()

    def seen(self, verb, path):
        with self.lock:
            return [r for r in self.requests if r["verb"] == verb and re.search(path, r["path"])]

    # ---- HTTP ----

    def fault(self, verb, path):
        with self.lock:
            for f in self.faults:
                if f["left"] and f["verb"] == verb and f["path"].search(path):
                    f["left"] -= 1
                    return f["what"][0] if len(f["what"]) == 1 else f["what"].pop(0)

    def handler(self):
        q = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *a):
                pass

            def answer(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def error(self, status, message, **details):
                e = {"type": "invalid_request_error", "message": message}
                self.answer(status, {"type": "error", "error": dict(e, details=details) if details else e})

            def do(self, verb):
                u = urlsplit(self.path)
                n = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(n)) if n else None
                query = {k: v[0] for k, v in parse_qs(u.query, keep_blank_values=True).items()}
                auth = self.headers.get("authorization", "")
                r = {"verb": verb, "path": u.path, "query": query, "raw": u.query, "body": body, "auth": auth,
                     "headers": dict(self.headers), "at": time.monotonic()}
                with q.lock:
                    q.requests.append(r)
                what = q.fault(verb, u.path)
                if callable(what):
                    what = what(r)
                if what == "drop":
                    self.close_connection = True
                    return
                if what == "hang":
                    time.sleep(120)
                    return
                if isinstance(what, int):
                    return self.error(what, f"made to fail with {what}")
                if what == "lost":
                    self.answer = lambda *a: setattr(self, "close_connection", True)
                try:
                    q.route(self, r)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def do_GET(self):
                self.do("GET")

            def do_POST(self):
                self.do("POST")

        return Handler

    def route(self, h, r):
        m = re.fullmatch(r"/v1/environments/([^/]+)/work/(poll|[^/]+/(ack|heartbeat|stop))", r["path"])
        if "managed-agents-2026-04-01" not in r["headers"].get("anthropic-beta", ""):
            return h.error(400, "no beta header")
        if m and unquote(m[1]) == ENVIRONMENT:
            if m[2] == "poll":
                return self.poll(h, r)
            return self.work(h, r, unquote(m[2].split("/")[0]), m[3])
        m = re.fullmatch(r"/v1/sessions/([^/]+)(/events|/events/stream)?", r["path"])
        s = self.sessions.get(unquote(m[1])) if m else None
        if not s or s.gone:
            return h.error(404, "not found")
        with self.lock:
            tokens = {i["token"] for i in self.items if i["work"]["data"]["id"] == s.id}
        if r["auth"].removeprefix("Bearer ") not in tokens:
            self.wrong.append(r)
            return h.error(401, "not the token of an item of this session")
        if not m[2]:
            return h.answer(200, {"id": s.id, "type": "session", "status": s.status, "resources": s.resources,
                                  "environment_id": ENVIRONMENT, "agent": {"skills": s.skills}})
        if m[2] == "/events/stream":
            return self.stream(h, s)
        return self.list(h, r, s) if r["verb"] == "GET" else self.send(h, r, s)

    def poll(self, h, r):
        if r["auth"] != "Bearer " + KEY:
            self.wrong.append(r)
            return h.error(401, "not the environment's key")
        block = r["query"].get("block_ms")
        if block is not None and not 1 <= int(block) <= 999:
            return h.error(400, "block_ms")
        end = time.monotonic() + int(block or 0) / 1000
        self.workers.add(r["headers"].get("anthropic-worker-id") or r["headers"].get("Anthropic-Worker-Id"))
        with self.lock:
            while True:
                t = time.monotonic()
                for i in self.items:
                    w = i["work"]
                    if w["state"] in ("starting", "active") and t - i["beat"] > i["ttl"]:
                        w.update(state="queued", latest_heartbeat_at=None)
                        i["claimed"] = 0
                    if w["state"] == "queued" and (not i["claimed"] or t - i["claimed"] > 5):
                        i["claimed"] = t
                        return h.answer(200, dict(w, secret=i["secret"]))
                if t >= end:
                    return h.answer(200, None)
                self.lock.wait(end - t)

    def work(self, h, r, id, verb):
        with self.lock:
            i = next((i for i in self.items if i["work"]["id"] == id), None)
            if not i:
                return h.error(404, "no such item")
            w, token = i["work"], r["auth"].removeprefix("Bearer ")
            if token != (KEY if verb == "ack" else i["token"]):
                self.wrong.append(r)
                return h.error(401, "wrong credential")
            if verb == "ack":
                if w["state"] != "queued":
                    return h.error(409, "not queued")
                w.update(state="starting", acknowledged_at=now())
                i["beat"] = time.monotonic()
                return h.answer(200, w)
            if verb == "stop":
                if w["state"] == "stopped":
                    return h.error(409, "stopped already")
                w.update(state="stopped" if (r["body"] or {}).get("force") else "stopping", stopped_at=now())
                return h.answer(200, w)
            if w["state"] in ("stopping", "stopped"):
                return h.answer(200, {"type": "work_heartbeat", "last_heartbeat": w["latest_heartbeat_at"] or "",
                                      "lease_extended": w["state"] == "stopping", "state": w["state"],
                                      "ttl_seconds": i["ttl"]})
            expected, have = r["query"].get("expected_last_heartbeat"), w["latest_heartbeat_at"]
            if expected is not None and expected != (have or "NO_HEARTBEAT"):
                return h.error(412, "the lease is another's", error_code="heartbeat_precondition_failed",
                               current_state={"last_heartbeat": have, "lease_extended": False, "state": w["state"],
                                              "ttl_seconds": i["ttl"]})
            i["beat"] = time.monotonic()
            if "desired_ttl_seconds" in r["query"]:
                i["asked_ttl"] = int(r["query"]["desired_ttl_seconds"])
            w.update(state="active", latest_heartbeat_at=now(), started_at=w["started_at"] or now())
            extended = i.get("extend", True)
            return h.answer(200, {"type": "work_heartbeat", "last_heartbeat": w["latest_heartbeat_at"],
                                  "lease_extended": extended, "state": w["state"], "ttl_seconds": i["ttl"]})

    def stream(self, h, s):
        h.send_response(200)
        h.send_header("content-type", "text/event-stream")
        h.end_headers()
        h.close_connection = True
        with self.lock:
            at, epoch = len(s.events), self.epoch
        h.wfile.flush()
        while True:
            with self.lock:
                self.lock.wait_for(lambda: self.epoch != epoch or len(s.events) > at, 1)
                if self.epoch != epoch:
                    return
                new, at = s.events[at:], len(s.events)
            text = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in new) or ": ping\n\n"
            h.wfile.write(text.encode())
            h.wfile.flush()

    def list(self, h, r, s):
        limit, start = int(r["query"].get("limit", 20)), int(r["query"].get("page", "page_0")[5:])
        if limit > 1000:
            return h.error(400, "limit")
        limit = min(limit, getattr(self, "page", limit))
        with self.lock:
            data, more = s.events[start:start + limit], len(s.events) > start + limit
        h.answer(200, {"data": data, "next_page": f"page_{start + limit}" if more else None})

    def send(self, h, r, s):
        with self.lock:
            events = r["body"]["events"]
            for e in events:
                use = next((u for u in s.events if u["id"] == e.get("tool_use_id")), None)
                done = any(x.get("tool_use_id") == e.get("tool_use_id") for x in s.events if x["type"].endswith("tool_result"))
                if e["type"] != "user.tool_result" or not use or use["type"] != "agent.tool_use" or done:
                    return h.error(400, "not a call that waits")
                if set(e) - {"type", "tool_use_id", "content", "is_error"} or not all("type" in b for b in e["content"]):
                    return h.error(400, "fields")
                s.events.append(dict(e, id=f"sevt_01Worker{next(self.ids)}", processed_at=now()))
            self.lock.notify_all()
        h.answer(200, {"data": events})
