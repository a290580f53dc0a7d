"""read, write, edit, glob, grep: inputs, limits, words (attacks 20 and 26)."""
import os, time
from kit import test, eventually


def put(b, name, data):
    """As the payload's user, from outside."""
    p = b.path("ws/" + name)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    with open(p, "wb") as f:
        f.write(data if isinstance(data, bytes) else data.encode())
    for root, dirs, files in os.walk(b.path("ws")):
        for x in [root] + [os.path.join(root, y) for y in dirs + files]:
            os.chown(x, b.uid, b.uid, follow_symlinks=False)


OUTSIDE = " is outside the session's working directory and its other permitted directories"


def fails(r, text):
    assert r.error and r.text == text, (r, text)


@test
def read(box):
    b = box()
    put(b, "a.txt", "one\ntwo\nthree\n")
    assert b.call("read", file_path="a.txt").text == "one\ntwo\nthree\n"
    assert b.call("read", file_path="/workspace/a.txt").text == "one\ntwo\nthree\n"
    assert b.call("read", file_path="/mnt/session/uploads/given.txt").text == "given\n"
    for rng, want in (([1, 1], "one"), ([2, 3], "two\nthree"), ([2, -1], "two\nthree\n"), ([3, 0], "three\n"), ([1, 99], "one\ntwo\nthree\n"), ([], "one\ntwo\nthree\n"),
                      ([0, 1], "one"), ([-1, -1], "one\ntwo\nthree\n"), ([3, 2], ""), ([4, 9], "")):
        assert b.call("read", file_path="a.txt", view_range=rng).text == want, rng
    for bad in ([1], [1, 2, 3], "1", {}, 5):
        fails(b.call("read", file_path="a.txt", view_range=bad), "read: view_range must be [start_line, end_line]")
    fails(b.call("read", file_path="a.txt", view_range=[1, "2"]), "read: view_range must be [start_line, end_line], two whole numbers")
    put(b, "empty", "")
    r = b.call("read", file_path="empty")
    assert not r.error and r.content == []
    put(b, "latin", b"caf\xe9\n")
    assert b.call("read", file_path="latin").text == "caf\ufffd\n"
    put(b, "crlf", "a\r\nb\r\n")
    assert b.call("read", file_path="crlf", view_range=[1, 2]).text == "a\r\nb\r"


@test
def read_errors(box):
    b = box()
    put(b, "f", "x")
    fails(b.call("read"), "read: file_path is required")
    fails(b.call("read", file_path=5), "read: file_path must be a string")
    fails(b.call("read", file_path=""), "read: file_path is required")
    assert b.call("read", file_path="a\0b").error
    fails(b.call("read", file_path="none"), "read: none: no such file or directory")
    fails(b.call("read", file_path="f/x"), "read: f/x: not a directory")
    fails(b.call("read", file_path="."), "read: . is not a regular file")
    fails(b.call("read", file_path="n" * 300), f'path "{"n" * 300}": file name too long')
    b.bash("ln -s loop loop; touch secret; chmod 0 secret; mkdir -m 0 shut")
    fails(b.call("read", file_path="loop"), 'path "loop": too many levels of symbolic links')
    fails(b.call("read", file_path="secret"), "read: secret: permission denied")
    fails(b.call("read", file_path="shut/x"), 'path "shut/x": permission denied')
    assert b.call("read", file_path="d/" * 3000).text.endswith('": file name too long')
    for p in ("../" * 2000 + "etc", "/etc/passwd", "/", "/workspace/..", "/workspace2", "/proc/1/environ", "/proc/self/root/etc/passwd", "/mnt"):
        assert b.call("read", file_path=p).text.endswith(OUTSIDE), p


@test
def read_limits(box):
    b = box()
    put(b, "big", "0123456789abcde\n" * 16384)  # 262,144 bytes
    assert len(b.call("read", file_path="big").text) == 262144
    put(b, "big", "0123456789abcde\n" * 18750)  # 300,000
    fails(b.call("read", file_path="big"), "read: big has 300000 bytes, which exceeds 262144-byte limit. Use view_range to read a part of it, for example [1, 500]")
    assert b.call("read", file_path="big", view_range=[18749, -1]).text == "0123456789abcde\n" * 2
    assert len(b.call("read", file_path="big", view_range=[1, 16384]).text) == 262143
    fails(b.call("read", file_path="big", view_range=[1, 17000]), "read: view_range [1, 17000] of big exceeds 262144-byte limit. Narrow the view_range")
    put(b, "long", "short\n" + "x" * 300000 + "\nlast\n")
    fails(b.call("read", file_path="long", view_range=[2, 2]), "read: line 2 of long exceeds 262144-byte limit; view_range cannot make it shorter. Take a part of it with bash, for example with cut")
    assert b.call("read", file_path="long", view_range=[3, 3]).text == "last"
    b.bash("truncate -s 1T sparse")
    assert "has 1099511627776 bytes" in b.call("read", file_path="sparse").text
    assert "line 1 of sparse exceeds" in b.call("read", file_path="sparse", view_range=[1, 1]).text


@test
def special_files(box):
    """Attack 26: neither opened nor waited for; links are followed as long as they stay in the session's directories."""
    b = box()
    b.bash("mkfifo fifo; ln -s fifo lfifo; python3 -c \"import socket; s=socket.socket(socket.AF_UNIX); s.bind('sock')\"; mkdir dir; ln -s dir ldir; echo in >dir/in; ln -s /etc/passwd pw; ln -s dir/in lin; ln -s nowhere dangling")
    for p in ("fifo", "lfifo", "sock", "dir", "ldir"):
        t0 = time.monotonic()
        fails(b.call("read", file_path=p), f"read: {p} is not a regular file")
        fails(b.call("edit", file_path=p, old_string="a", new_string="b"), f"edit: {p} is not a regular file")
        assert b.call("write", file_path=p, content="x").error
        assert b.call("grep", pattern="x", path=p).error == ("dir" not in p)
        assert time.monotonic() - t0 < 3, p
    b.bash("ln -s /dev/zero zero; ln -s /proc/self/root magic; ln -s pw pw2; ln -s /workspace/../etc up")
    for p in ("/dev/null", "/dev/zero", "/dev/ptmx", "/dev/tty", "/proc/self/fd", "pw", "pw2", "zero", "magic/etc/passwd", "magic", "up/passwd", "../etc/passwd", "/etc/../etc/passwd"):
        for tool, more in (("read", {}), ("write", {"content": "x"}), ("edit", {"old_string": "a", "new_string": "b"})):
            fails(b.call(tool, file_path=p, **more), f'path "{p}"' + OUTSIDE)
        fails(b.call("grep", pattern="x", path=p), f'path "{p}"' + OUTSIDE)
        fails(b.call("glob", pattern="*", path=p), f'path "{p}"' + OUTSIDE)
    assert b.call("read", file_path="magic/workspace/dir/in").text == "in\n"  # there and back
    fails(b.call("write", file_path="fifo", content="x"), "write: fifo is not a regular file")
    fails(b.call("write", file_path="dir", content="x"), "write: dir: is a directory")
    fails(b.call("write", file_path=".", content="x"), "write: .: is a directory")
    assert b.bash("stat -c %F fifo sock dir").text == "fifo\nsocket\ndirectory"
    assert b.call("read", file_path="lin").text == "in\n"
    r = b.call("grep", pattern=".", path=".")
    assert r.text == "/workspace/dir/in:1:in", r
    # writing through a link changes what it leads to
    assert not b.call("write", file_path="lin", content="new").error
    assert b.bash("cat dir/in; readlink lin").text == "newdir/in"
    assert not b.call("write", file_path="dangling", content="d").error
    assert b.bash("cat nowhere; readlink dangling").text == "dnowhere"
    assert not b.call("write", file_path="ldir/deep/er/f", content="x").error
    assert b.bash("cat dir/deep/er/f").text == "x"
    # nothing of the host: an absolute link leads into the sandbox's tree
    os.symlink("/root/secret", b.path("ws/host"))
    fails(b.call("read", file_path="host"), 'path "host"' + OUTSIDE)


@test
def write(box):
    b = box()
    assert b.call("write", file_path="n/e/w.txt", content="h\u00e9\n").text == "wrote 4 bytes to n/e/w.txt"
    assert b.bash("stat -c %a n n/e n/e/w.txt; cat n/e/w.txt").text == "700\n700\n600\nh\u00e9"
    b.bash("echo old >x; chmod 755 x; ln x y")
    assert b.call("write", file_path="/workspace/x", content="").text == "wrote 0 bytes to /workspace/x"
    assert b.bash("stat -c '%a %s' x; cat y; ls -A").text == "755 0\nold\nn\nx\ny"  # replaced, not written into
    assert b.call("write", file_path="nul", content="a\0b").text == "wrote 3 bytes to nul"
    assert b.bash("od -An -c nul").text.split() == ["a", "\\0", "b"]
    assert b.call("write", file_path="/tmp/t", content="x").text == "wrote 1 bytes to /tmp/t"
    assert b.call("write", file_path="/mnt/session/outputs/o.txt", content="out").text == "wrote 3 bytes to /mnt/session/outputs/o.txt"
    assert open(b.path("out/o.txt")).read() == "out"
    big = "0123456789" * 1_000_000
    assert b.call("write", file_path="big", content=big).text == "wrote 10000000 bytes to big"
    assert open(b.path("ws/big")).read() == big
    fails(b.call("write", file_path="x"), "write: content is required")
    fails(b.call("write", content="x"), "write: file_path is required")
    fails(b.call("write", file_path="x", content=5), "write: content must be a string")


@test
def write_refused(box):
    b = box()
    b.bash("touch f; mkdir -m 500 ro")
    fails(b.call("write", file_path="/mnt/session/uploads/given.txt", content="x"), "write: /mnt/session/uploads/given.txt is inside read-only directory /mnt/session/uploads")
    fails(b.call("write", file_path="/mnt/session/uploads/a/b", content="x"), "write: /mnt/session/uploads/a/b is inside read-only directory /mnt/session/uploads")
    fails(b.call("edit", file_path="/mnt/session/uploads/given.txt", old_string="given", new_string="x"), "edit: /mnt/session/uploads/given.txt is inside read-only directory /mnt/session/uploads")
    fails(b.call("write", file_path="/mnt/session/x", content="x"), "write: /mnt/session/x is inside read-only directory /mnt/session")
    for p in ("/usr/x", "/x", "/run/moonrig/in", "/run/moonrig/x", "/dev/x"):
        fails(b.call("write", file_path=p, content="x"), f'path "{p}"' + OUTSIDE)
    fails(b.call("write", file_path="f/x", content="x"), "write: f/x: not a directory")
    fails(b.call("write", file_path="ro/x", content="x"), "write: ro/x: permission denied")
    fails(b.call("write", file_path="n" * 300, content="x"), f'path "{"n" * 300}": file name too long')
    b.bash("head -c 63M /dev/zero >/tmp/fill; echo old >/tmp/keep")
    fails(b.call("write", file_path="/tmp/keep", content="x" * 4_000_000), "write: /tmp/keep: no space left on device")
    assert b.bash("cat /tmp/keep; ls -A /tmp | grep -c write").text == "old\n0"


@test
def write_is_atomic(box):
    b = box()
    a, z = "a" * 3_000_000, "z" * 3_000_000
    b.call("write", file_path="f", content=a)
    ids = [b.start("write", {"file_path": "f", "content": [a, z][i % 2]}) for i in range(8)]
    bad = 0
    path = b.path("ws/f")
    end = time.monotonic() + 1
    while time.monotonic() < end:
        data = open(path).read()
        bad += not (data == a or data == z)
    for i in ids:
        assert not b.wait(i).error
    assert bad == 0
    # killed half way: the old file stays, nothing else is left
    for ms in (1, 3, 6, 10, 15):
        b.wait(b.start("write", {"file_path": "f", "content": "q" * 20_000_000}, ms))
    data = open(path).read()
    assert data in (a, z) or data == "q" * 20_000_000
    assert b.bash("ls -A").text == "f"


@test
def edit(box):
    b = box()
    put(b, "f", "alpha beta alpha\nbeta gamma\n")
    os.chmod(b.path("ws/f"), 0o640)
    assert b.call("edit", file_path="f", old_string="gamma", new_string="$& \\1 \u20ac").text == "edited f (1 replacement(s))"
    assert b.bash("cat f; stat -c %a f").text == "alpha beta alpha\nbeta $& \\1 \u20ac\n640"
    fails(b.call("edit", file_path="f", old_string="alpha", new_string="x"), "edit: old_string appears 2 times in f (must be unique)")
    assert b.call("edit", file_path="f", old_string="alpha", new_string="alphaalpha", replace_all=True).text == "edited f (2 replacement(s))"
    fails(b.call("edit", file_path="f", old_string="delta", new_string="x"), "edit: old_string not found in f")
    fails(b.call("edit", file_path="f", old_string="", new_string="x"), "edit: old_string is required")
    fails(b.call("edit", file_path="f", old_string="a"), "edit: new_string is required")
    fails(b.call("edit", file_path="f", old_string="a", new_string="b", replace_all="x"), "edit: replace_all must be true or false")
    fails(b.call("edit", file_path="none", old_string="a", new_string="b"), "edit: none: no such file or directory")
    assert b.call("edit", file_path="f", old_string="beta alphaalpha\nbeta", new_string="", replace_all=False).text == "edited f (1 replacement(s))"
    assert b.bash("cat f").text == "alphaalpha  $& \\1 \u20ac"
    put(b, "raw", b"caf\xe9 x\0y")
    assert b.call("edit", file_path="raw", old_string="x", new_string="z").text == "edited raw (1 replacement(s))"
    assert open(b.path("ws/raw"), "rb").read() == b"caf\xe9 z\0y"
    put(b, "big", "x" * 262145)
    fails(b.call("edit", file_path="big", old_string="x", new_string="y"), "edit: big has 262145 bytes, which exceeds 262144-byte limit")
    put(b, "aaa", "a" * 100000)
    assert b.call("edit", file_path="aaa", old_string="a", new_string="b" * 10000, replace_all=True).error  # 1 GB
    assert b.call("edit", file_path="aaa", old_string="aa", new_string="b", replace_all=True).text == "edited aaa (50000 replacement(s))"


@test
def glob(box):
    b = box()
    names = ["a.txt", "b.csv", "sub/c.txt", "sub/deep/d.txt", ".hidden/e.txt", ".git/f.txt", "node_modules/g.txt", "sub/node_modules/h.txt", "sp ace/[x].txt", "sub/\u00e9.md"]
    for i, n in enumerate(names):
        put(b, n, "x")
        os.utime(b.path("ws/" + n), (1000 + i, 1000 + i))
    def g(pattern, **more):
        r = b.call("glob", pattern=pattern, **more)
        assert not r.error, r
        return [] if r.text == "no matches" else r.text.split("\n")
    w = "/workspace/"
    assert g("**/*.txt") == [w + "sp ace/[x].txt", w + "sub/deep/d.txt", w + "sub/c.txt", w + "a.txt"]
    assert g(".hidden/*") == g("**/.hidden/*.txt") == g(".h*/**") == [w + ".hidden/e.txt"] and g("*", path=".hidden") == g("**/*", path=".hidden") == [w + ".hidden/e.txt"]
    assert g("*.txt") == g("./*.txt") == [w + "a.txt"]
    assert g("*") == [w + "b.csv", w + "a.txt"]
    assert g("sub/**") == g("**", path="sub") == [w + "sub/\u00e9.md", w + "sub/deep/d.txt", w + "sub/c.txt"]
    assert g("**/deep/**/*.txt") == g("sub/**/d.txt") == g("**/**/deep/*") == [w + "sub/deep/d.txt"]
    assert g("*.{txt,csv}") == [w + "b.csv", w + "a.txt"] and g("{a,{b,x}}.{csv,t?t}") == [w + "b.csv", w + "a.txt"]
    assert g("[a-b].*") == [w + "b.csv", w + "a.txt"] and g("[!a].*") == [w + "b.csv"] and g("sub/?.md") == [w + "sub/\u00e9.md"]
    assert g("**/\\[x\\].txt") == g("**/[[]x[]].txt") == [w + "sp ace/[x].txt"]
    assert g("[unclosed") == [] and g("{unclosed") == [] and g("nothing*") == []
    assert g("*.txt", path="/workspace/sub") == g("*.txt", path="sub/") == [w + "sub/c.txt"]
    assert g("*", path="/mnt/session/uploads") == ["/mnt/session/uploads/given.txt"]
    b.bash("ln -s ../a.txt sub/inside; ln -s a.txt link; ln -s /etc/passwd outside; ln -s sub dirlink; mkfifo fifo; ln -s none dangling")
    assert set(g("*")) == {w + "a.txt", w + "b.csv"} and g("link") == g("*link") == []
    assert g("dirlink/c.txt") == [w + "dirlink/c.txt"] and g("c.txt", path="dirlink") == [w + "sub/c.txt"]
    assert w + "dirlink/c.txt" not in g("**")
    for p, said in (("/etc/*", "glob: pattern must be relative; give the directory as path"), ("../*", 'glob: pattern must not contain a ".." component'),
                    ("a/../b", 'glob: pattern must not contain a ".." component'), ("", "glob: pattern is required"), ("{a,..}/x", 'glob: pattern must not contain a ".." component'), ("x" * 5000, "glob: pattern must be 1 to 4095 characters without NUL"),
                    ("{" + "a," * 300 + "a}", "glob: pattern has too many alternatives"), ("{a,b}" * 20, "glob: pattern has too many alternatives"),
                    ("{" * 2000 + "}" * 2000, "glob: pattern has too many alternatives"), ("{a}" * 1300, "glob: pattern has too many alternatives")):
        fails(b.call("glob", pattern=p), said)
    fails(b.call("glob"), "glob: pattern is required")
    fails(b.call("glob", pattern="*", path="none"), "glob: none: no such file or directory")
    fails(b.call("glob", pattern="*", path="a.txt"), "glob: a.txt: not a directory")


@test
def glob_limits(box):
    b = box()
    b.bash("mkdir many; cd many; for i in $(seq 1000 1300); do : >$i; done; touch -d '2030-01-01' 1234; touch -d '2000-01-01' 1300")
    lines = b.call("glob", pattern="many/*").text.split("\n")
    assert len(lines) == 200 and lines[0] == "/workspace/many/1234" and "/workspace/many/1300" not in lines
    t0 = time.monotonic()
    assert b.call("glob", pattern="*a" * 200 + "b").text == "no matches"
    put(b, "a" * 250, "")
    assert b.call("glob", pattern="**/" * 100 + "*a" * 100 + "b").text == "no matches" and time.monotonic() - t0 < 5
    b.bash("cd /tmp; d=.; for i in $(seq 60); do d=$d/d; done; mkdir -p $d; touch $d/deep d/d/up")
    r = b.call("glob", pattern="**", path="/tmp")
    assert "/tmp/d/d/up" in r.text and "deep" not in r.text and r.text.endswith("[the search was cut short after 50000 entries or 40 levels]"), r
    b.bash("mkdir /workspace/wide; cd /workspace/wide; python3 -c \"for i in range(50500): open(str(i),'w')\"")
    r = b.call("glob", pattern="**/7")
    assert "cut short after 50000 entries" in r.text, r
    b.bash("mkdir a b; touch a/x b/x")
    assert set(b.call("glob", pattern="wide/{a,b}/x").text.split("\n")) == {"/workspace/wide/b/x", "/workspace/wide/a/x"}  # straight to it
    assert b.call("glob", pattern="{wide,./wide//}/a/{x,?}").text == "/workspace/wide/a/x"  # once
    r = b.wait(b.start("glob", {"pattern": "**/zzz", "path": "/tmp"}, 5))
    assert r.error and "[the search was cut short after 5ms]" in r.text or "no matches" in r.text, r


@test
def grep(box):
    b = box()
    put(b, "a.txt", "one\nTwo two\nthree\n")
    put(b, "sub/b.txt", "two\r\nfour")
    put(b, ".git/c", "two\n")
    put(b, "node_modules/d", "two\n")
    put(b, "bin", b"two\nmore two\0two\ntwo\n")
    put(b, "latin", b"two caf\xe9\n")
    put(b, "long", "two " + "x" * 2000 + "\n\u20actwo" + "\u20ac" * 1990 + "\ntwo\n" + "y" * 100000 + "two\nlast two")
    def g(pattern, **more):
        r = b.call("grep", pattern=pattern, **more)
        assert not r.error, r
        return r.text.split("\n")
    w = "/workspace/"
    assert g("two") == [w + "a.txt:2:Two two", w + "bin:1:two", w + "latin:1:two caf\ufffd", w + "long:2:\u20actwo" + "\u20ac" * 1990, w + "long:3:two", w + "long:5:last two", w + "sub/b.txt:1:two"]
    assert g("two$", path="sub") == [w + "sub/b.txt:1:two"]
    assert g("^t", path="a.txt") == [w + "a.txt:3:three"] and g("(?i)^t", path="a.txt") == [w + "a.txt:2:Two two", w + "a.txt:3:three"]
    assert g("four$", path="sub") == [w + "sub/b.txt:2:four"] and g(r"\bo\w+", path="/workspace/a.txt") == [w + "a.txt:1:one"]
    assert g("nothing here") == ["no matches"] and g("^$", path="a.txt") == ["no matches"]
    assert g(".", path="a.txt") == [w + "a.txt:1:one", w + "a.txt:2:Two two", w + "a.txt:3:three"]
    assert g(r"(\w)\1", path="a.txt") == [w + "a.txt:3:three"]
    put(b, "u", "\u20acuro\n")
    assert g("^.uro$", path="u") == [w + "u:1:\u20acuro"] and g("(?i)\u20acURO", path="u") == g("\\u20ac", path="u") == g("\\x{20ac}", path="u") == [w + "u:1:\u20acuro"]
    for bad in ("(", "[a", "a{2,1}", "*", "\\C", "(?<n>a)(?<n>b)", "(?C1)" * 3 + "("):
        r = b.call("grep", pattern=bad)
        assert r.error and r.text.startswith("grep: invalid regex: ") and " at offset " in r.text, (bad, r)
    fails(b.call("grep"), "grep: pattern is required")
    fails(b.call("grep", pattern=""), "grep: pattern is required")
    fails(b.call("grep", pattern="x" * 70000), "grep: pattern is longer than 65536 bytes")
    fails(b.call("grep", pattern="x", path="none"), "grep: none: no such file or directory")
    b.bash("mkfifo fifo; ln -s a.txt link; mkdir -m 0 shut; echo two >no; chmod 0 no")
    assert len(g("two")) == 7
    fails(b.call("grep", pattern="x", path="fifo"), "grep: fifo is not a regular file")
    assert g("one", path="link") == [w + "a.txt:1:one"]


@test
def grep_limits(box):
    b = box()
    put(b, "many", "match this line\n" * 20000)
    r = b.call("grep", pattern="match")
    assert not r.error and r.text.endswith("\n[output truncated at 102400 bytes]") and len(r.text) == 102400 + len("\n[output truncated at 102400 bytes]"), len(r.text)
    put(b, "hard", ("a" * 40 + "!\n") * 3)
    t0 = time.monotonic()
    r = b.call("grep", pattern="(a+)+$|(a|aa)+$|(a|a?)+$", path="hard")
    assert time.monotonic() - t0 < 15 and not r.error and r.text == "no matches\n[3 lines were skipped: matching them takes too long with this pattern]", r
    put(b, "hard", ("a" * 40 + "!\n") * 3000)
    t0 = time.monotonic()
    r = b.wait(b.start("grep", {"pattern": "(a+)+$|(a|aa)+$|(a|a?)+$", "path": "hard"}, 800))
    assert 0.7 < time.monotonic() - t0 < 4 and r.error and "[the search was cut short after 800ms]" in r.text, r
    put(b, "first", "found a\n")
    r = b.wait(b.start("grep", {"pattern": "found|(a+)+$|(a|aa)+$|(a|a?)+$"}, 800))
    assert not r.error and r.text.startswith("/workspace/first:1:found a\n") and r.text.endswith("[the search was cut short after 800ms]"), r
    for big in ("(((a{1000}){1000}){1000}){1000}", "(?:" * 300 + ")" * 300, "a" * 60000, "(a|b|c){65000}"):
        r = b.call("grep", pattern=big, path="first")
        assert r.error or r.text == "no matches", (big[:30], r)


@test
def stuck_files_are_given_up(box):
    b = box({"file_timeout_ms": 500})
    ids = [b.start("grep", {"pattern": "(x+x+)+y", "path": "."}) for _ in range(20)]
    t0 = time.monotonic()
    assert b.bash("echo beside").text == "beside" and time.monotonic() - t0 < 1
    for i in ids:
        b.wait(i)
    # stopped by a signal it cannot refuse: killed when its time is over. Landlock forbids the payload to do
    # it, so it is done from outside.
    b.bash("mkdir d; for i in $(seq 60); do seq 30000 >d/$i; done")
    import signal
    id = b.start("grep", {"pattern": "([0-9]+)+[x-z]$", "path": "d"}, 3000)
    assert eventually(b.workers)
    os.kill(b.workers()[0], signal.SIGSTOP)
    t0 = time.monotonic()
    r = b.wait(id)
    assert r.error and r.text == "grep: timed out after 3000ms" and time.monotonic() - t0 < 7, r
    assert eventually(lambda: not b.workers())
    id = b.start("grep", {"pattern": "([0-9]+)+[x-z]$", "path": "d"}, 3000)
    assert eventually(b.workers)
    os.kill(b.workers()[0], signal.SIGKILL)
    r = b.wait(id)
    assert r.error and r.text.startswith("grep: it ended without a result"), r
