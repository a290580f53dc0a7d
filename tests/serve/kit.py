"""A real `moonrig serve` on a port that the system gives, a small client, and what the tests share."""
import http.client, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
BIN = os.environ.get("MOONRIG_BIN", str(TOP / "build/moonrig"))
KEY = "sk-mr-test-key-of-the-suite"
HEADERS = {"authorization": "Bearer " + KEY, "anthropic-version": "2026-10-21",
           "anthropic-beta": "managed-agents-2026-04-01", "content-type": "application/json"}
SLOW = 5 if os.environ.get("MOONRIG_FLAVOR") in ("asan", "tsan", "debug") else 1


def clean_env(**more):
    env = {k: v for k, v in os.environ.items() if not k.endswith(("API_KEY", "BASE_URL")) and not k.startswith("MOONRIG_")}
    env.update(more)
    return env


class Server:
    def __init__(self, tmp, *args, env=None, key=KEY, listen="127.0.0.1:0"):
        self.tmp, self.args, self.listen = Path(tmp), list(args), listen
        self.env = clean_env(**(env or {}))
        if key:
            self.env["MOONRIG_API_KEY"] = key
        self.start()

    def start(self):
        self.lines = []
        self.log = open(self.tmp / "log", "ab")
        self.p = subprocess.Popen([BIN, "serve", "--listen", self.listen, "--data", str(self.tmp / "data")] + self.args,
                                  env=self.env, stdout=subprocess.PIPE, stderr=self.log, text=True, cwd=self.tmp)
        for line in self.p.stdout:
            self.lines.append(line.rstrip("\n"))
            m = re.match(r"listening on https?://127\.0\.0\.1:(\d+)", line)
            if m:
                self.port = int(m[1])
            if line.startswith("listening"):
                break
        else:
            raise AssertionError("the server did not start: " + self.stderr())

    def stderr(self):
        return (self.tmp / "log").read_text(errors="replace")[-3000:]

    def request(self, verb, path, body=None, headers=HEADERS):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30 * SLOW)
        try:
            c.request(verb, path, json.dumps(body) if body is not None else None, headers)
            r = c.getresponse()
            text = r.read()
            return r.status, json.loads(text) if text[:1] in (b"{", b"[") else text, dict(r.getheaders())
        finally:
            c.close()

    def ok(self, verb, path, body=None):
        status, out, _ = self.request(verb, path, body)
        assert status == 200, (verb, path, status, out)
        return out

    def agent(self, **fields):
        return self.ok("POST", "/v1/agents", dict({"name": "a", "model": "claude-test"}, **fields))

    def environment(self):
        return self.ok("GET", "/v1/environments")["data"][0]["id"]

    def session(self, agent, *texts, **fields):
        body = {"agent": agent if isinstance(agent, str) else agent["id"], "environment_id": self.environment()}
        if texts:
            body["initial_events"] = [user(t) for t in texts]
        return self.ok("POST", "/v1/sessions", dict(body, **fields))["id"]

    def say(self, sid, *texts):
        return self.ok("POST", f"/v1/sessions/{sid}/events", {"events": [user(t) for t in texts]})

    def events(self, sid):
        out, page = [], ""
        while True:
            r = self.ok("GET", f"/v1/sessions/{sid}/events?limit=1000{page}")
            out += r["data"]
            if not r["next_page"]:
                return out
            page = "&page=" + r["next_page"]

    def status(self, sid):
        return self.ok("GET", f"/v1/sessions/{sid}")["status"]

    def until(self, what, fn, limit=30):
        end = time.monotonic() + limit * SLOW
        while True:
            v = fn()
            if v:
                return v
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.stderr()}"
            time.sleep(0.02)

    def settled(self, sid, limit=30):
        """The events once the session is idle and nothing waits."""
        def look():
            ev = self.events(sid)
            last = [e["type"] for e in ev if e["type"].startswith("session.status_")]
            return ev if last and last[-1] in ("session.status_idle", "session.status_terminated") and \
                all(e.get("processed_at") for e in ev) else None
        return self.until("session " + sid, look, limit)

    def stop(self, sig=signal.SIGTERM, limit=30):
        if self.p.poll() is None:
            self.p.send_signal(sig)
        try:
            self.p.wait(limit * SLOW)
        finally:
            if self.p.poll() is None:
                self.p.kill()
                self.p.wait()
            self.p.stdout.close()
            self.log.close()
        return self.p.returncode

    def restart(self, sig=signal.SIGTERM):
        code = self.stop(sig)
        self.start()
        return code


def user(text):
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def run_cli(*args, env=None, cwd=None, limit=60):
    return subprocess.run([BIN] + list(args), env=clean_env(**(env or {})), cwd=cwd, capture_output=True, text=True,
                          timeout=limit * SLOW)


def processes():
    """Parent and command line of every process, by /proc."""
    parent, cmd = {}, {}
    for d in Path("/proc").iterdir():
        if d.name.isdigit():
            try:
                stat = (d / "stat").read_text()
                parent[int(d.name)] = int(stat[stat.rindex(")") + 2:].split()[1])
                cmd[int(d.name)] = (d / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (OSError, ValueError):
                pass
    return parent, cmd


def commands():
    return processes()[1].values()


def below(pid, parent):
    out, grew = {pid}, True
    while grew:
        new = {p for p, pp in parent.items() if pp in out} - out
        grew, out = bool(new), out | new
    return out


def descendants(pid):
    """Command lines of all processes below pid."""
    parent, cmd = processes()
    return [cmd.get(p, "") for p in below(pid, parent) - {pid}]


def end_sandboxes(tmp):
    """Sandboxes outlive their server; those of a test that is over are ended here."""
    parent, cmd = processes()
    for pid, line in cmd.items():
        if str(tmp) in line and "moonrig-launcher" in line:
            for p in below(pid, parent):
                try:
                    os.kill(p, signal.SIGKILL)
                except ProcessLookupError:
                    pass


TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


def main():
    failed = False
    for fn in TESTS:
        if sys.argv[1:] and fn.__name__ not in sys.argv[1:]:
            continue
        tmp = tempfile.mkdtemp(prefix="moonrig-serve.")
        os.chmod(tmp, 0o755)
        servers = []
        try:
            fn(Path(tmp), lambda *a, **k: servers.append(Server(tmp, *a, **k)) or servers[-1])
            print("ok " + fn.__name__, flush=True)
        except Exception as e:
            import traceback
            failed = True
            print("not ok " + fn.__name__)
            for line in (traceback.format_exc() + (servers[-1].stderr() if servers else "")).split("\n")[-45:]:
                print("  " + line)
        finally:
            for s in servers:
                if s.p.poll() is None:
                    s.p.kill()
                    s.p.wait()
            end_sandboxes(tmp)
            shutil.rmtree(tmp, ignore_errors=True)
    sys.exit(1 if failed else 0)
