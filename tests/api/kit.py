"""What the tests of this directory share: the processes (moonrig, the model server of tests/mock), requests by hand,
event streams, and the list of tests.

A test is a function marked @test; its argument is a World. `local` tests need a server of their own making (its
process, its configuration) and are skipped against MOONRIG_URL; `model` tests need the model server, too.
"""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BIN = os.environ.get("MOONRIG_BIN") or str(TOP / "build" / "moonrig")
KEY = "sk-mr-test-0123456789abcdefghijklmnop"
UPSTREAM_KEY = "sk-upstream-of-the-test"
BETA = "managed-agents-2026-04-01"
MODEL = "claude-opus-4-7"
NOBODY = "01" + "2" * 22
ID = re.compile(r"[a-z]+_01[1-9A-HJ-NP-Za-km-z]{22}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
LIMIT = 20

TESTS = []


def test(fn=None, *, local=False, model=False):
    if fn is None:
        return lambda f: test(f, local=local, model=model)
    fn.local, fn.model = local or model, model
    TESTS.append(fn)
    return fn


class Skip(Exception):
    pass


def equal(have, want, what=""):
    if have != want:
        raise AssertionError(f"{what + ': ' if what else ''}{have!r}, not {want!r}")


def true(x, what="not so"):
    if not x:
        raise AssertionError(what)


def wait(fn, what, seconds=LIMIT):
    """The first true value of fn()."""
    end = time.monotonic() + seconds
    while True:
        x = fn()
        if x:
            return x
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


class Reply:
    def __init__(self, status, headers, body):
        self.status, self.body = status, body
        self.headers = {k.lower(): v for k, v in headers}

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.status} without JSON: {self.body[:200]!r}")

    @property
    def error(self):
        """error of an error envelope, whose form is checked."""
        j = self.json
        true(self.status >= 400, f"{self.status}, not an error: {self.body[:300]!r}")
        equal(j.get("type"), "error")
        true(set(j) == {"type", "error", "request_id"}, f"keys of the envelope: {sorted(j)}")
        equal(j["request_id"], self.headers.get("request-id"), "request_id")
        true(isinstance(j["error"]["message"], str) and j["error"]["message"], "a message")
        return j["error"]

    def code(self):
        return (self.error.get("details") or {}).get("error_code")


class Server:
    """A `moonrig serve`."""

    def __init__(self, env=None, config=None, args=(), scripts=(), data=None, under=()):
        self.dir = Path(tempfile.mkdtemp(prefix="moonrig-api-"))
        self.data = data or self.dir / "data"
        cmd = [*under, BIN, "serve", "--listen", "127.0.0.1:0", "--data", str(self.data), *args]
        if config:
            (self.dir / "moonrig.lua").write_text("return " + config)
            cmd += ["--config", str(self.dir / "moonrig.lua")]
        clean = {k: v for k, v in os.environ.items() if not re.match(r"(ANTHROPIC|OPENAI|MOONRIG)_", k)}
        self.err = open(self.dir / "stderr", "w+")
        self.process = subprocess.Popen(cmd + list(scripts), cwd=self.dir, stdin=subprocess.DEVNULL, text=True,
                                        stdout=subprocess.PIPE, stderr=self.err, env=dict(clean, **(env or {})))
        self.out, self.url = [], None
        for line in self.process.stdout:
            self.out.append(line)
            m = re.match(r"listening on (\S+)", line)
            if m:
                self.url = m[1]
                break
        if not self.url:
            self.process.wait()
            raise AssertionError("no server: " + "".join(self.out) + self.log())

    def log(self):
        self.err.flush()
        return (self.dir / "stderr").read_text(errors="replace")[-4000:]

    def stop(self, sig=signal.SIGTERM, keep=False):
        if sig and self.process.poll() is None:  # None: it was told already
            self.process.send_signal(sig)
        try:
            code = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "does not stop"
        self.process.stdout.close()
        self.err.close()
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
        return code


class Mock:
    """The model server."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, str(TOP / "tests/mock/play.py"), "--key", UPSTREAM_KEY],
                                        stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().split()[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def get(self, path):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        c.request("GET", path)
        try:
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def count(self):
        return self.get("/count")["count"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


class World:
    """A server and how to speak to it. Objects that many tests need are made once: w.agent, w.environment."""

    def __init__(self, url=None, key=KEY, mock=None, server=None):
        self.url, self.key, self.mock, self.server = url, key, mock, server
        u = urllib.parse.urlsplit(url)
        self.host, self.port, self.tls = u.hostname, u.port or (443 if u.scheme == "https" else 80), u.scheme == "https"
        self._agent = self._environment = None

    def connect(self, timeout=LIMIT):
        cls = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        return cls(self.host, self.port, timeout=timeout)

    def headers(self, more):
        h = {"authorization": "Bearer " + self.key, "anthropic-version": "2026-10-21", "anthropic-beta": BETA}
        h.update(more or {})
        return {k: v for k, v in h.items() if v is not None}

    def ask(self, verb, path, json_=None, headers=None, body=None, connection=None):
        h = self.headers(headers)
        if json_ is not None:
            body = json.dumps(json_).encode()
            h.setdefault("content-type", "application/json")
        c = connection or self.connect()
        try:
            c.request(verb, path, body=body, headers=h)
            r = c.getresponse()
            return Reply(r.status, r.getheaders(), r.read())
        finally:
            if not connection:
                c.close()

    def get(self, path, **kw):
        return self.ask("GET", path, **kw)

    def post(self, path, json_=None, **kw):
        return self.ask("POST", path, json_, **kw)

    def delete(self, path, **kw):
        return self.ask("DELETE", path, **kw)

    def ok(self, verb, path, json_=None, **kw):
        r = self.ask(verb, path, json_, **kw)
        true(r.status == 200, f"{verb} {path}: {r.status} {r.body[:400]!r}")
        return r.json

    def refused(self, status, verb, path, json_=None, names=None, type_=None, **kw):
        """An error of this status; names: a pattern that its message must have."""
        r = self.ask(verb, path, json_, **kw)
        sent = json.dumps(json_)[:200] if json_ is not None else ""
        true(r.status == status, f"{verb} {path} {sent}: {r.status}, not {status}: {r.body[:300]!r}")
        e = r.error
        if type_ or status in (400, 401, 403, 404):
            equal(e["type"], type_ or {400: "invalid_request_error", 401: "authentication_error",
                                       403: "permission_error", 404: "not_found_error"}[status])
        if names:
            true(re.search(names, e["message"]), f"{sent}: {e['message']!r} does not name {names}")
        return r

    # objects

    def new_agent(self, **fields):
        return self.ok("POST", "/v1/agents", dict({"name": "clerk", "model": MODEL}, **fields))

    def new_environment(self, **fields):
        return self.ok("POST", "/v1/environments", dict({"name": "office"}, **fields))

    @property
    def agent(self):
        if not self._agent:
            schema = {"type": "object", "properties": {"q": {"type": "string"}}}
            ask = {"permission_policy": {"type": "always_ask"}}
            self._agent = self.new_agent(tools=[
                {"type": "agent_toolset_20260401", "configs": [dict(ask, name="bash"), {"name": "write", "enabled": False}]},
                {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": schema}])
        return self._agent

    @property
    def environment(self):
        self._environment = self._environment or self.new_environment()
        return self._environment

    def session(self, **fields):
        return self.ok("POST", "/v1/sessions",
                       dict({"agent": self.agent["id"], "environment_id": self.environment["id"]}, **fields))

    def send(self, session, *events):
        sid = session if isinstance(session, str) else session["id"]
        return self.ok("POST", f"/v1/sessions/{sid}/events", {"events": list(events)})["data"]

    def events(self, session, query=""):
        sid = session if isinstance(session, str) else session["id"]
        return self.all(f"/v1/sessions/{sid}/events{query}")

    def turn(self, *events, session=None, reason="end_turn"):
        """Sends events to a (new) session; the session and its events once it is idle for this reason."""
        session = session or self.session()
        with self.stream(session) as s:
            self.send(session, *events)
            s.until(lambda all_: [e for e in all_ if e["type"] == "session.status_idle"
                                  and e["stop_reason"]["type"] == reason], f"idle {reason}")
            return session, list(s.events)

    def upload(self, name="a.txt", content=b"x", type_="text/plain", headers=None, fields=()):
        boundary = "moonrig-test-boundary"
        parts = [f'--{boundary}\r\ncontent-disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields]
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"'
        head += f'; filename="{name}"' if name is not None else '; filename=""'
        head += f"\r\ncontent-type: {type_}\r\n\r\n" if type_ else "\r\n\r\n"
        body = b"".join(parts) + head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return self.ask("POST", "/v1/files", body=body,
                        headers=dict({"content-type": "multipart/form-data; boundary=" + boundary}, **(headers or {})))

    def all(self, path):
        """Every item of a list, page by page."""
        out, page, n = [], None, 0
        while True:
            sep = "&" if "?" in path else "?"
            j = self.ok("GET", path + (f"{sep}page={urllib.parse.quote(page)}" if page else ""))
            out += j["data"]
            page, n = j["next_page"], n + 1
            if not page:
                return out
            true(n < 2000, "the list has no end")

    def stream(self, session, query="", headers=None, path=None):
        sid = session if isinstance(session, str) else session["id"]
        return Stream(self, (path or f"/v1/sessions/{sid}/events/stream") + query, headers)

    def raw(self, data, seconds=5, half_close=True):
        """Sends bytes as they are; what comes back until the server closes, or b'' after a reset."""
        with socket.create_connection((self.host, self.port), timeout=seconds) as s:
            out = b""
            try:
                s.sendall(data)
                if half_close:
                    s.shutdown(socket.SHUT_WR)
                while True:
                    got = s.recv(65536)
                    if not got:
                        return out
                    out += got
            except OSError:
                return out


class Stream:
    """An event stream, read by a thread of its own. frames: all of them; events: those with data but pings."""

    def __init__(self, w, path, headers=None):
        self.frames, self.events, self.ended, self.error = [], [], False, None
        self.changed = threading.Condition()
        self.connection = w.connect(timeout=None)
        began = time.monotonic()
        self.connection.connect()
        self.connection.sock.settimeout(LIMIT)
        self.connection.request("GET", path, headers=w.headers(headers))
        self.response = self.connection.getresponse()
        self.head_after = time.monotonic() - began
        self.status = self.response.status
        self.headers = {k.lower(): v for k, v in self.response.getheaders()}
        if self.status != 200:
            self.reply = Reply(self.status, self.response.getheaders(), self.response.read())
            self.ended = True
            return
        self.connection.sock.settimeout(None)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        frame, text = {}, []
        try:
            while True:
                line = self.response.readline()
                if not line:
                    break
                line = line.decode()
                text.append(line)
                if line == "\n":
                    self._add(frame, "".join(text))
                    frame, text = {}, []
                elif line.startswith(":"):
                    frame["comment"] = line[1:].strip()
                else:
                    k, _, v = line.rstrip("\n").partition(": ")
                    frame[k] = v
        except (OSError, ValueError, http.client.HTTPException, AttributeError) as e:
            self.error = e
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def _add(self, frame, text):
        frame["text"] = text
        with self.changed:
            self.frames.append(frame)
            if "data" in frame and frame.get("event") != "ping":
                self.events.append(json.loads(frame["data"]))
            self.changed.notify_all()

    def until(self, fn, what, seconds=LIMIT):
        end = time.monotonic() + seconds
        with self.changed:
            while not fn(self.events):
                left = end - time.monotonic()
                seen = " ".join(e["type"] for e in self.events)
                true(left > 0, f"waited {seconds} s in vain for {what}; so far: {seen}")
                true(not self.ended, f"the stream ended before {what}: {self.error}; {seen}")
                self.changed.wait(left)
            return list(self.events)

    def idle(self, n=1):
        return self.until(lambda all_: sum(e["type"] == "session.status_idle" for e in all_) >= n, f"{n} idles")

    def end(self, seconds=LIMIT):
        with self.changed:
            true(self.changed.wait_for(lambda: self.ended, seconds), f"the stream is open after {seconds} s")
        return self.events

    def close(self):
        with contextlib.suppress(OSError, AttributeError):
            self.connection.sock.shutdown(socket.SHUT_RDWR)
        with self.changed:
            self.changed.wait_for(lambda: self.ended, 2)
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def text(s):
    return [{"type": "text", "text": s}]


def message(s):
    return {"type": "user.message", "content": text(s)}


def types(events):
    return [e["type"] for e in events]


def last(events, type_):
    found = [e for e in events if e["type"] == type_]
    true(found, f"no {type_} in {types(events)}")
    return found[-1]


def said(events):
    return [b["text"] for e in events if e["type"] == "agent.message" for b in e["content"]]


BEGIN = ["session.status_running", "session.thread_status_running"]
TRIPLE = ["session.thread_status_idle", "session.usage", "session.status_idle"]
