"""Drives our tools (envd in its sandbox, tests/envd/kit.py) and the official reference toolset (ref.mjs in a sandbox
of the same shape) with the same calls on equal folders, and compares: accepted or refused, the text, what is on
disk afterwards. Where ours differs on purpose the case says why; a difference that is gone fails too, and their
number is printed."""
import json, os, shutil, stat, subprocess, sys, time, traceback

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "../../envd")]
import kit
from cases import CASES
import bash_cases, file_cases, search_cases  # noqa: F401

NODE, SDK = os.environ["NODE"], os.environ["SDK_DIR"]
ENV = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/workspace", "SHELL": "/bin/bash",
       "LANG": "C.UTF-8", "ANTHROPIC_API_KEY": "planted", "anthropic_lower": "planted"}


class Ref:
    """The reference, inside bubblewrap with the same view: /workspace, /tmp, /mnt/session."""

    def __init__(self, uid, dir, ws):
        cmd = ["bwrap", "--unshare-all", "--unshare-user", "--uid", "1000", "--gid", "1000", "--as-pid-1", "--cap-drop", "ALL",
               "--new-session", "--clearenv", "--die-with-parent"]
        for k, v in ENV.items():
            cmd += ["--setenv", k, v]
        cmd += ["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64",
                "--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/etc/passwd", "/etc/passwd", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache",
                "--size", str(64 << 20), "--tmpfs", "/tmp", "--bind", ws, "/workspace", "--bind", os.path.join(dir, "refout"), "/mnt/session/outputs",
                "--ro-bind", os.path.join(dir, "up"), "/mnt/session/uploads", "--ro-bind", os.path.join(dir, "sdk"), "/sdk",
                "--ro-bind", os.path.join(dir, "node"), "/node", "--ro-bind", os.path.join(dir, "ref.mjs"), "/ref.mjs", "--remount-ro", "/",
                "--chdir", "/workspace", "--", "/bin/bash", "-c", "umask 022; exec /node /ref.mjs /sdk"]
        who = {"user": uid, "group": uid, "extra_groups": []} if os.getuid() == 0 else {}
        self.p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **who)

    def ask(self, asked):
        self.p.stdin.write(json.dumps(asked) + "\n")
        self.p.stdin.flush()
        line = self.p.stdout.readline()
        if not line:
            raise AssertionError("the reference ended")
        return json.loads(line)

    def close(self):
        self.p.stdin.close()
        try:
            self.p.wait(20)
        except subprocess.TimeoutExpired:
            self.p.kill()
            self.p.wait()


class World:
    def __init__(self):
        self.box = kit.Box()
        self.uid, self.dir = self.box.uid, self.box.dir
        self.ours, self.theirs = self.box.path("ws"), self.box.path("refws")
        for d in ("refws", "refout"):
            os.mkdir(self.box.path(d))
            os.chown(self.box.path(d), self.uid, self.uid)
        # another uid may not reach the build directory
        shutil.copytree(os.path.join(SDK, "node_modules"), self.box.path("sdk/node_modules"), symlinks=True,
                        ignore=lambda d, names: [n for n in names if n.endswith((".map", ".d.ts", ".d.mts"))])
        shutil.copy(os.path.realpath(NODE), self.box.path("node"))
        shutil.copy(os.path.join(HERE, "ref.mjs"), self.box.path("ref.mjs"))
        self.ref = Ref(self.uid, self.dir, self.theirs)

    def close(self):
        self.ref.close()
        self.box.close()

    def fill(self, files):
        for top in (self.ours, self.theirs):
            empty(top)
            for name, what in files.items():
                make(os.path.join(top, name), what)
            own(top, self.uid)
            for i, (name, what) in enumerate(files.items()):
                if not isinstance(what, tuple) or what[0] in ("file", "hard"):
                    os.utime(os.path.join(top, name), (1_700_000_000 + i,) * 2)
            for name, what in files.items():  # what is shut, last
                if isinstance(what, tuple) and len(what) > 2:
                    os.chmod(os.path.join(top, name), what[2])

    def step(self, s):
        """Both answers to one step: a call, or several at the same time."""
        calls = s["calls"]
        ids = [self.box.start(c[0], c[1], s["limit"]) for c in calls]
        asked = [{"tool": c[0], "input": c[1], "rg": s["rg"]} for c in calls]
        theirs = self.ref.ask(asked if len(asked) > 1 else asked[0])
        ours = [self.box.wait(i, 60) for i in ids]
        return ours, theirs if len(asked) > 1 else [theirs]


def empty(top):
    for root, dirs, _ in os.walk(top):
        for d in dirs:
            p = os.path.join(root, d)
            if not os.path.islink(p):
                os.chmod(p, 0o700)
    for name in os.listdir(top):
        p = os.path.join(top, name)
        shutil.rmtree(p) if os.path.isdir(p) and not os.path.islink(p) else os.unlink(p)


def make(path, what):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    kind, arg = what[:2] if isinstance(what, tuple) else ("file", what)
    if kind == "link":
        os.symlink(arg, path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dir":
        os.makedirs(path, exist_ok=True)
    elif kind == "hard":
        os.link(os.path.join(os.path.dirname(path), arg), path)
    else:
        with open(path, "wb") as f:
            f.write(arg if isinstance(arg, bytes) else arg.encode())


def own(top, uid):
    if os.getuid():
        return
    for root, dirs, names in os.walk(top):
        for n in dirs + names:
            os.chown(os.path.join(root, n), uid, uid, follow_symlinks=False)


def tree(top):
    """What is there: kinds, modes, contents, targets."""
    seen = {}
    for root, dirs, names in os.walk(top):
        for n in dirs + names:
            p = os.path.join(root, n)
            st = os.lstat(p)
            kind, mode = stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)
            body = os.readlink(p) if stat.S_ISLNK(kind) else None
            if stat.S_ISREG(kind):
                try:
                    body = open(p, "rb").read()
                except PermissionError:
                    body = st.st_size
            seen[os.path.relpath(p, top)] = (stat.filemode(st.st_mode), body)
    return seen


def check(case, n, how, ours, theirs):
    """Raises when the two do not stand to each other as the case says. Returns the reason of a difference, or None."""
    both = f"\nours:   {'error' if ours.error else 'ok'} {ours.text[:700]!r}\ntheirs: {'error' if theirs['error'] else 'ok'} {theirs['text'][:700]!r}"
    same = bool(ours.error) == theirs["error"]
    if how.kind == "differs":
        if same and ours.text == theirs["text"]:
            raise AssertionError(f"step {n}: no difference any more" + both)
        if not how.match(ours):
            raise AssertionError(f"step {n}: ours is not as the table says" + both)
        return how.why
    if not same:
        raise AssertionError(f"step {n}: one accepts, one refuses" + both)
    if not how.equal(ours.text, theirs["text"]):
        raise AssertionError(f"step {n}: the texts differ ({how.kind})" + both)


def run(world, case):
    world.fill(case.files)
    if case.shell:
        world.step({"calls": [("bash", {"restart": True})], "limit": 0, "rg": False})
    reasons = []
    for n, s in enumerate(case.steps):
        for ours, theirs in zip(*world.step(s)):
            why = check(case, n, s["how"], ours, theirs)
            if why and why not in reasons:
                reasons.append(why)
    if case.tree:
        a, b = tree(world.ours), tree(world.theirs)
        if a != b:
            raise AssertionError("the folders differ: " + repr({k: (a.get(k), b.get(k)) for k in a.keys() | b.keys() if a.get(k) != b.get(k)})[:1500])
    return reasons


def main(argv):
    wanted = [c for c in CASES if not argv or any(c.name.startswith(a) for a in argv)]
    if not shutil.which("rg", path=ENV["PATH"]):
        print("skip rg # ripgrep is not installed")
        wanted = [c for c in wanted if not any(s["rg"] for s in c.steps)]
    differ, failed = [], 0
    world = World()
    try:
        for c in wanted:
            began = time.monotonic()
            try:
                differ += [(c.name, why) for why in run(world, c)]
                print(f"ok {c.name}" + (f" # {time.monotonic() - began:.1f} s" if os.environ.get("SLOW") else ""), flush=True)
            except Exception as e:
                failed += 1
                print(f"not ok {c.name}")
                for line in (str(e) if isinstance(e, AssertionError) else traceback.format_exc()).splitlines():
                    print("  " + line)
                if world.ref.p.poll() is not None:
                    break
    finally:
        world.close()
    print(f"# {len(wanted)} cases, {len({n for n, _ in differ})} differ on purpose:")
    for name, why in differ:
        print(f"#   {name}: {why}")
    return 1 if failed else 0


if not os.path.exists(kit.ENVD):
    print("skip conform # envd is not built (SANDBOX=0)")
    sys.exit(0)
if not shutil.which("bwrap"):
    print("skip conform # bubblewrap is not installed")
    sys.exit(0)
sys.exit(main(sys.argv[1:]))
