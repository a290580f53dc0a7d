"""ant.py - two ways to run a command of ant: Live runs the program, Recorded makes the requests that it made.

A step is a name and the words of a command; what comes back is the exit status, the objects that it prints with
--format jsonl, and what it says on standard error. Live puts a proxy between the program and the server: it knows
when a stream is open, and what was asked can be written down (wire.json), with ids and keys replaced by the names
that the story gave them, so that Recorded can ask the same of another server.
"""
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import tempfile
import termios
import threading
import urllib.parse
from pathlib import Path

URL, KEY = os.environ["SDK_URL"], os.environ["SDK_KEY"]
WIRE = Path(__file__).parent / "wire.json"
LIMIT = 50
DROPPED = {"host", "connection", "content-length", "accept-encoding", "transfer-encoding"}


class Names:
    """Ids by the names of the story: {agent} stands for the id of this run."""

    def __init__(self):
        self.known = {"key": KEY}

    def take_out(self, s):
        for name, value in self.known.items():
            s = s.replace(value, "{%s}" % name)
        return s

    def put_in(self, s):
        return re.sub(r"\{(\w+)\}", lambda m: self.known.get(m[1], m[0]), s)


class Result:
    def __init__(self, status, items, error=""):
        self.status, self.items, self.error = status, items, error

    @property
    def one(self):
        assert self.status == 0 and len(self.items) == 1, (self.status, self.items, self.error)
        return self.items[0]

    @property
    def all(self):
        assert self.status == 0, (self.status, self.error)
        return self.items


class Stream:
    """Lines of a stream as they come; until() waits for what is to come."""

    def __init__(self, lines, end):
        self.events, self.over, self.end = [], False, end
        self.news = threading.Condition()
        threading.Thread(target=self.read, args=(lines,), daemon=True).start()

    def read(self, lines):
        try:
            for line in lines:
                with self.news:
                    self.events.append(json.loads(line))
                    self.news.notify_all()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass  # closed by this side
        with self.news:
            self.over = True
            self.news.notify_all()

    def until(self, fn, what):
        with self.news:
            self.news.wait_for(lambda: self.over or fn(self.events), LIMIT)
            assert fn(self.events), "in vain for %s: %s" % (what, [e["type"] for e in self.events])
            return list(self.events)

    def idle(self, since=0, reason="end_turn"):
        def is_idle(e):
            return e["type"] == "session.status_idle" and e["stop_reason"]["type"] == reason

        part = self.until(lambda all: any(map(is_idle, all[since:])), "session.status_idle " + reason)[since:]
        return part[:next(i for i, e in enumerate(part) if is_idle(e)) + 1]


# ---------------------------------------------------------------------------------------------- the program

class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes each request on, frame by frame, and tells `seen` of it once its answer has begun."""
    protocol_version = "HTTP/1.1"
    seen = None

    def log_message(self, *args):
        pass

    def any(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {k.lower(): v for k, v in self.headers.items() if k.lower() not in DROPPED}
        u = urllib.parse.urlsplit(URL)
        server = http.client.HTTPConnection(u.hostname, u.port, timeout=LIMIT)
        server.request(self.command, self.path, body or None, headers)
        answer = server.getresponse()
        self.seen({"verb": self.command, "path": self.path, "headers": headers, "body": body.decode()})
        self.send_response(answer.status)
        for k, v in answer.getheaders():
            if k.lower() not in DROPPED:
                self.send_header(k, v)
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while data := answer.read1(65536):
                self.wfile.write(data)
        except OSError:
            pass
        server.close()

    do_GET = do_POST = do_DELETE = any


class Live:
    def __init__(self, program):
        self.program, self.names, self.steps = program, Names(), {}
        self.step, self.opened = None, threading.Event()
        handler = type("Handler", (Proxy,), {"seen": lambda _, r: self.note(r)})
        self.proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.proxy.daemon_threads = True
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        self.home = tempfile.TemporaryDirectory(prefix="moonrig-ant-")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("ANTHROPIC")}
        self.env.update(HOME=self.home.name, XDG_CONFIG_HOME=self.home.name, ANTHROPIC_API_KEY=KEY, FORCE_COLOR="0")
        said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, env=self.env).stdout
        self.version = re.search(r"\d+\.\d+\.\d+", said)[0]

    def note(self, r):
        headers = {k: self.names.take_out(v) for k, v in sorted(r["headers"].items()) if not k.startswith("x-stainless-")}
        path = re.sub(r"page=page_[^&]*", "page={next_page}", self.names.take_out(r["path"]))
        r = dict(r, path=path, headers=headers, body=self.names.take_out(r["body"]))
        self.steps.setdefault(self.step, []).append(r)
        self.opened.set()

    def command(self, words, plain=False):
        base = ["--base-url", "http://127.0.0.1:%d" % self.proxy.server_address[1]]
        return [self.program, *base, *([] if plain else ["--format", "jsonl"]), *words]

    def run(self, step, *words, body=None, plain=False, cwd=None):
        self.step = step
        p = subprocess.run(self.command(words, plain), input=json.dumps(body) if body else None, text=True, env=self.env,
                           stdin=None if body else subprocess.DEVNULL, capture_output=True, timeout=LIMIT, cwd=cwd)
        if p.returncode:
            return Result(p.returncode, [], p.stderr + p.stdout)
        return Result(0, p.stdout if plain else [json.loads(x) for x in p.stdout.splitlines() if x])

    def new_id(self, step, name, *words, body=None):
        """Makes something and gives its bare id, as --transform prints it."""
        r = self.run(step, *words, "--transform", "id", "-r", body=body, plain=True)
        assert r.status == 0, r.error
        self.names.known[name] = r.items.strip()
        return r.items.strip()

    def stream(self, step, *words):
        self.step = step
        self.opened.clear()
        # It keeps back what fits on a screen, so this one has no room at all.
        screen, tty = os.openpty()
        termios.tcsetwinsize(tty, (3, 10000))
        modes = termios.tcgetattr(tty)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(tty, termios.TCSANOW, modes)
        p = subprocess.Popen(self.command(words), stdin=subprocess.DEVNULL, stdout=tty, env=dict(self.env, PAGER="cat"))
        os.close(tty)
        assert self.opened.wait(LIMIT), "no stream"

        def end():
            p.send_signal(signal.SIGINT)
            return p.wait(LIMIT)

        return Stream(open(screen, errors="replace"), end)

    def save(self):
        WIRE.write_text(json.dumps({"version": self.version, "steps": self.steps}, indent=1, sort_keys=True) + "\n")


# ---------------------------------------------------------------------------------------------- its requests

class Recorded:
    def __init__(self):
        wire = json.loads(WIRE.read_text())
        self.version, self.steps, self.names = wire["version"], wire["steps"], Names()

    def ask(self, r):
        u = urllib.parse.urlsplit(URL)
        c = http.client.HTTPConnection(u.hostname, u.port, timeout=LIMIT)
        c.request(r["verb"], self.names.put_in(r["path"]), self.names.put_in(r["body"]).encode() or None,
                  {k: self.names.put_in(v) for k, v in r["headers"].items()})
        socket = c.sock
        return c.getresponse(), socket

    def run(self, step, *words, **_):
        items = []
        for r in self.steps[step]:
            answer, _ = self.ask(r)
            value = json.loads(answer.read())
            if answer.status >= 400:
                return Result(1, [], "%d: %s" % (answer.status, value["error"]["message"]))
            if r["verb"] == "GET" and "next_page" in value:
                items += value["data"]
                self.names.known["next_page"] = urllib.parse.quote(value["next_page"] or "")
            else:
                items.append(value)
        return Result(0, items)

    def new_id(self, step, name, *words, **_):
        self.names.known[name] = self.run(step).one["id"]
        return self.names.known[name]

    def stream(self, step, *words):
        answer, socket = self.ask(self.steps[step][0])
        assert answer.status == 200, answer.status

        def lines():
            name = None
            for line in answer:
                line = line.decode().rstrip("\n")
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: ") and name != "ping":
                    # what its list of names lets through
                    if name == "message" or (name == json.loads(line[6:])["type"] and name != "session.usage"):
                        yield line[6:]

        def end():
            socket.shutdown(2)
            return 0

        return Stream(lines(), end)
