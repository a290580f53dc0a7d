"""What the suites of this directory share: a server with bounds, and the crowd (crowd.c) that reads its streams."""
import os
import re
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/api"))
import kit  # noqa: E402
from kit import KEY, UPSTREAM_KEY, Server, World, equal, true, wait  # noqa: E402

PIECE = 80 << 10  # what one pass gathers is taken whole, also when it goes over a reader's bound
CROWD = Path(os.environ.get("MOONRIG_BUILD") or TOP / "build") / "tests/streams/crowd"


class Crowd:
    def __init__(self, w, sessions, readers, silent):
        self.p = subprocess.Popen([str(CROWD), str(w.port), w.key, str(readers), str(silent)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True, bufsize=1)
        self.sent = [0] * len(sessions)
        self.w, self.sessions = w, sessions
        self.p.stdin.write("".join(s + "\n" for s in sessions) + "\n")
        equal(self.line(), "open")

    def line(self):
        out = self.p.stdout.readline()
        true(out, "the crowd is gone")
        return out.strip()

    def publish(self, i, size, connection=None):
        """One event on session i, as long as size or so, that says when it was made."""
        title = f"{time.monotonic_ns()} ".ljust(min(size, 500), "x")
        body = {"title": title}
        if size > 500:
            body["metadata"] = {f"k{k}": (f"{time.monotonic_ns()} ".ljust(500, "y")) for k in range((size - 1) // 500)}
        self.w.ok("POST", f"/v1/sessions/{self.sessions[i]}", body, connection=connection)
        self.sent[i] += 1

    def seen(self, i):
        """All readers of session i have all its events."""
        self.p.stdin.write(f"wait {i} {self.sent[i]}\n")
        equal(self.line(), "seen")

    def report(self):
        """[(readers, count, last position, all the same)] of the sessions; lost, silent ones cut, latencies."""
        self.p.stdin.write("report\n")
        rows = []
        while True:
            line = self.line()
            m = re.match(r"session \d+ readers (\d+) count (\d+) last (\d+) same (\d)", line)
            if not m:
                break
            rows.append(tuple(int(x) for x in m.groups()))
        m = re.match(r"lost (\d+) silent-cut (\d+) latency-us p50 (\d+) p99 (\d+) max (\d+) n (\d+)", line)
        return rows, dict(zip(("lost", "cut", "p50", "p99", "max", "n"), map(int, m.groups())))

    def stop(self):
        self.p.stdin.close()
        self.p.wait(60)
        self.p.stdout.close()


def status(pid, field):
    return int(re.search(field + r":\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def metrics(w):
    return {k: float(v) for k, v in re.findall(r"^moonrig_(\w+) (\S+)$", w.get("/metrics").body.decode(), re.M)}


def server(stream_max, streams_max, more=""):
    s = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY},
               config=f"{{ api = {{ stream_max = {stream_max}, streams_max = {streams_max}, max_connections = 15000{more} }} }}")
    return s, World(s.url)


def check_bounds(s, w, before, streams, streams_max):
    """Memory and what /metrics says of it. A stream's own memory is not in the bound."""
    m = metrics(w)
    equal(m["streams_waiting_bytes_bound"], streams_max)
    true(0 < m["streams_waiting_bytes_max"] <= streams_max, f"{m['streams_waiting_bytes_max']} of {streams_max}")
    true(m["streams_waiting_bytes"] <= m["streams_waiting_bytes_max"], m)
    true(m["stream_reader_bytes_max"] <= m["stream_reader_bytes_bound"] + PIECE, m)
    grown, flavor = status(s.process.pid, "VmHWM") - before, os.environ.get("MOONRIG_FLAVOR", "release")
    bound = streams_max + streams * 6144 + (16 << 20)
    true(grown <= bound or flavor in ("asan", "tsan"), f"{grown >> 20} MiB for {streams} streams; the bound is {bound >> 20} MiB")
    return m, grown
