"""Starts envd as process 1 of a minimal bubblewrap sandbox and speaks its protocol (core/sandbox/helpers/proto.h).

Started as root the sandbox gets another uid, as the launcher does it, so that limits and permissions hold.
"""
import io, itertools, json, os, shutil, signal, socket, struct, subprocess, tempfile, threading, time, traceback
from concurrent.futures import ThreadPoolExecutor

BUILD = os.environ.get("MOONRIG_BUILD") or os.path.join(os.path.dirname(__file__), "../../build")
ENVD = os.path.join(BUILD, "helpers/envd-asan")
if not os.path.exists(ENVD):
    ENVD = os.path.join(BUILD, "helpers/envd")
UIDS = itertools.count(60000 + os.getpid() % 4000) if os.getuid() == 0 else itertools.repeat(os.getuid())
LOCK = threading.Lock()  # making a box uses fixed fd numbers


class Closed(Exception):
    pass


def comm(pid):
    """A process's name, "" of one that has ended."""
    try:
        return open(f"/proc/{pid}/comm").read()
    except OSError:
        return ""


class Conn:
    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(path)
        self.buf = b""
        self.frames = []

    def send(self, obj):
        self.raw(json.dumps(obj).encode())

    def raw(self, body):
        self.s.sendall(struct.pack("<I", len(body)) + body)

    def recv(self, timeout=20):
        end = time.monotonic() + timeout
        while True:
            if len(self.buf) >= 4:
                n = struct.unpack("<I", self.buf[:4])[0]
                if len(self.buf) >= 4 + n:
                    body, self.buf = self.buf[4:4 + n], self.buf[4 + n:]
                    return json.loads(body.decode())
            self.s.settimeout(max(0.001, end - time.monotonic()))
            try:
                b = self.s.recv(1 << 20)
            except ConnectionResetError:
                b = b""
            if not b:
                raise Closed()
            self.buf += b

    def until(self, t, id=None, timeout=20):
        """The next frame of type t for id; what comes before for others is kept for later calls."""
        for i, f in enumerate(self.frames):
            if f["t"] in t and (id is None or f.get("id") == id):
                return self.frames.pop(i)
        end = time.monotonic() + timeout
        while True:
            f = self.recv(end - time.monotonic())
            if f["t"] in t and (id is None or f.get("id") == id):
                return f
            self.frames.append(f)

    def closed(self, timeout=20):
        try:
            while True:
                self.recv(timeout)
        except Closed:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.s.close()


class Result:
    def __init__(self, frame):
        self.t, self.content, self.error = frame["t"], frame.get("content"), frame.get("is_error")
        self.text = "".join(b.get("text", "") for b in self.content or [])

    def __repr__(self):
        return f"<{self.t} error={self.error} {self.text[:1500]!r}>"


class Box:
    """One sandbox. config: envd's configuration. refuse: (system call, errno), as on a kernel that lacks it."""

    def __init__(self, config=None, refuse=(), attach=True, nproc=512, tmp=64 << 20):
        self.uid = next(UIDS)  # of its own: processes are counted by uid
        with LOCK:
            self.make(config or {}, refuse, nproc, tmp)
        self.n = 0
        self.c = None
        if attach:
            if self.report != "ready\n":
                self.log.seek(0)
                raise AssertionError(f"envd did not start: {self.report!r} {self.log.read()}")
            self.c = self.connect()

    def make(self, config, refuse, nproc, tmp):
        self.dir = tempfile.mkdtemp(prefix="envd-", dir=os.environ.get("TMPDIR", "/tmp"))
        for d in ("ws", "out", "up"):
            os.mkdir(self.path(d))
            os.chown(self.path(d), self.uid, self.uid)
        os.chmod(self.dir, 0o755)
        with open(self.path("up/given.txt"), "w") as f:
            f.write("given\n")
        shutil.copy(ENVD, self.path("envd"))  # the other uid may not reach where it was built
        self.sock = self.path("s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.sock)
        listener.listen(8)
        r, w = os.pipe()
        w, low = os.dup2(w, 90), w
        os.close(low)
        cmd = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--as-pid-1",
               "--cap-drop", "ALL", "--new-session", "--clearenv",
               "--setenv", "ASAN_OPTIONS", "detect_leaks=0:abort_on_error=1",
               "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib",
               "--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev",
               "--ro-bind-try", "/etc/passwd", "/etc/passwd", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache",
               "--size", str(tmp), "--tmpfs", "/tmp", "--perms", "0700", "--size", str(4 << 20), "--tmpfs", "/run/moonrig",
               "--bind", self.path("ws"), "/workspace", "--bind", self.path("out"), "/mnt/session/outputs",
               "--ro-bind", self.path("up"), "/mnt/session/uploads", "--ro-bind", self.path("envd"), "/envd", *(("--seccomp", "92") if refuse else ()),
               "--remount-ro", "/", "--", "/envd", json.dumps(config)]

        fds = []
        if refuse:
            nr, err = refuse
            ins = [(0x20, 0, 0, 0), (0x15, 0, 1, nr), (0x06, 0, 0, 0x50000 | err), (0x06, 0, 0, 0x7fff0000)]
            filter = os.memfd_create("filter")
            os.write(filter, b"".join(struct.pack("<HBBI", *i) for i in ins))
            os.lseek(filter, 0, 0)
            fds = [os.dup2(filter, 92)]
            os.close(filter)
        a, b = os.dup2(listener.fileno(), 91), w
        shell = ["bash", "-c", f"exec 3<&{a} 4>&{b}; exec {a}>&- {b}>&-; ulimit -u {nproc}; exec \"$@\"", "bash"]
        who = {"user": self.uid, "group": self.uid, "extra_groups": []} if os.getuid() == 0 else {}
        self.log = open(self.path("log"), "w+")
        self.p = subprocess.Popen(shell + cmd, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                  pass_fds=(a, b, *fds), **who)
        for fd in (a, b, *fds):
            os.close(fd)
        listener.close()
        with os.fdopen(r) as f:
            self.report = f.read()

    def path(self, name):
        return os.path.join(self.dir, name)

    def connect(self, attach=True):
        c = Conn(self.sock)
        c.hello = c.recv()
        if attach:
            c.send({"t": "attach", "proto": 1})
        return c

    def start(self, name, input, timeout_ms=0, id=None):
        self.n += 1
        id = id or f"call{self.n}"
        self.c.send({"t": "call", "id": id, "name": name, "input": input, "timeout_ms": timeout_ms})
        return id

    def wait(self, id, timeout=30):
        return Result(self.c.until(("result", "cancelled", "unknown"), id, timeout))

    def call(self, tool, timeout_ms=0, **input):
        return self.wait(self.start(tool, input, timeout_ms))

    def bash(self, command, timeout_ms=0, **more):
        return self.call("bash", timeout_ms, command=command, **more)

    def pids(self):
        """Host pids of the processes inside, envd first."""
        found, todo = [], [self.p.pid]
        while todo:
            pid = todo.pop(0)
            try:
                kids = open(f"/proc/{pid}/task/{pid}/children").read().split()
            except OSError:
                continue
            found += [int(k) for k in kids]
            todo += [int(k) for k in kids]
        return found

    def envd(self):
        return self.pids()[0]

    def workers(self):
        """Host pids of the processes that envd forked for file operations."""
        return [p for p in self.pids()[1:] if comm(p).startswith("envd")]

    def ended(self, timeout=10):
        try:
            self.p.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            return False

    def close(self):
        if self.c:
            self.c.close()
        for pid in self.pids()[:1]:  # with envd goes all that is inside
            os.kill(pid, signal.SIGKILL)
        self.p.kill()
        self.p.wait()
        self.log.seek(0)
        said = self.log.read()
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        if "Sanitizer" in said or "runtime error" in said:
            raise AssertionError("sanitizer: " + said[:3000])


def eventually(fn, timeout=10, step=0.01):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if fn():
            return True
        time.sleep(step)
    return False


TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


def run(fn):
    out, boxes = io.StringIO(), []

    def made(*a, **k):
        boxes.append(Box(*a, **k))
        return boxes[-1]

    try:
        t0 = time.monotonic()
        fn(made)
        while boxes:
            boxes.pop().close()
        print(f"ok {fn.__name__}" + (f" # {time.monotonic() - t0:.1f} s" if os.environ.get("SLOW") else ""), file=out)
    except Exception:
        print(f"not ok {fn.__name__}", file=out)
        for line in traceback.format_exc().splitlines():
            print("  " + line, file=out)
        for b in boxes:
            try:
                b.close()
            except Exception as e:
                print("  " + str(e), file=out)
    return out.getvalue()


def main(argv):
    failed = False
    with ThreadPoolExecutor(3) as pool:  # most of them wait
        for said in pool.map(run, [t for t in TESTS if not argv or t.__name__ in argv]):
            failed = failed or said.startswith("not ok")
            print(said, end="", flush=True)
    return 1 if failed else 0
