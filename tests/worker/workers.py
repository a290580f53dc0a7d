"""A real `moonrig worker` on a queue of workqueue.py, or on another, and what the tests share."""
import os, re, shutil, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "serve"))
from kit import BIN, SLOW, below, clean_env, descendants, end_sandboxes, main, processes, run_cli, test
from workqueue import ENVIRONMENT, KEY, WorkQueue


class Worker:
    """--data is `name` below tmp; its log is `name`.log."""

    def __init__(self, tmp, url, *args, name="w", env=None, environment=ENVIRONMENT, key=KEY, user=None):
        self.tmp, self.data, self.path = tmp, tmp / name, tmp / (name + ".log")
        self.log, program, who = open(self.path, "ab"), BIN, {}
        if user:  # the program must be reachable for the other uid, wherever the tree lies
            program = shutil.copy(BIN, tmp / "moonrig")
            self.data.mkdir(exist_ok=True)
            os.chown(self.data, user, user)
            who = {"user": user, "group": user, "extra_groups": []}
        env = clean_env(MOONRIG_ENVIRONMENT_KEY=key, MOONRIG_URL=url, **(env or {}))
        self.p = subprocess.Popen([program, "worker", "--environment", environment, "--data", str(self.data)] + list(args),
                                  env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=tmp, **who)

    def text(self):
        return self.path.read_text(errors="replace")

    def until(self, what, fn, limit=30):
        end = time.monotonic() + limit * SLOW
        while True:
            v = fn()
            if v:
                return v
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.text()[-3000:]}"
            time.sleep(0.02)

    def said(self, pattern, limit=30):
        return self.until(pattern, lambda: re.search(pattern, self.text()), limit)

    def ended(self, limit=40):
        try:
            return self.p.wait(limit * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError("the worker does not end\n" + self.text()[-3000:])

    def stop(self, sig=signal.SIGTERM, limit=40):
        self.p.send_signal(sig)
        return self.ended(limit)

    def processes(self):
        """Command lines of all processes of this worker's sandboxes: below a launcher that has its directory."""
        parent, cmd = processes()
        roots = [p for p, line in cmd.items() if str(self.data) in line and "moonrig-launcher" in line]
        return [cmd.get(p, "") for r in roots for p in below(r, parent)]

    def put(self, path, text=""):
        """Writes a file inside its sandbox, by any process there that lives long enough."""
        def one():
            parent, cmd = processes()
            roots = [p for p, line in cmd.items() if str(self.data) in line and "moonrig-launcher" in line]
            for p in (p for r in roots for p in below(r, parent) if "sleep" in cmd.get(p, "") or "bash" in cmd.get(p, "")):
                try:
                    with open(f"/proc/{p}/root{path}.part", "w") as f:
                        f.write(text)
                    os.rename(f"/proc/{p}/root{path}.part", f"/proc/{p}/root{path}")
                    return True
                except OSError:
                    pass
        self.until("a process inside", one)

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        self.log.close()


def worker_test(fn, user=None):
    """A test of a queue and workers on it: fn(q, work, tmp)."""
    def run(tmp, serve):
        q, workers = WorkQueue(), []
        try:
            def work(*args, url=None, **k):
                workers.append(Worker(tmp, url or q.url, *args, user=user, **k))
                return workers[-1]
            fn(q, work, tmp)
            assert not q.wrong, [(r["verb"], r["path"], r["auth"]) for r in q.wrong]
        except Exception:
            for w in workers:
                print("\n".join("  " + line for line in w.text().split("\n")[-25:]), file=sys.stderr)
            raise
        finally:
            for w in workers:
                w.close()
            q.close()
    run.__name__ = ("user_" if user else "") + fn.__name__
    return test(run)


def attack(fn):
    """Where the worker was started as root, and, where this machine lets us, by an ordinary user."""
    worker_test(fn)
    if os.geteuid() == 0:
        worker_test(fn, 1500)
    return fn


def text(result):
    return "".join(b["text"] for b in result["content"] if b["type"] == "text")
