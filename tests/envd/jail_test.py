"""What the payload cannot do (the attacks that envd answers for: 4-6, 8-13, 15, 30, 40)."""
import errno, os
from kit import test

PROBE = r'''
import ctypes, errno, os, socket, platform
libc = ctypes.CDLL(None, use_errno=True)
X = platform.machine() == "x86_64"
def sc(name, nr, *a):
    ctypes.set_errno(0)
    r = libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(x) for x in a])
    e = ctypes.get_errno()
    print(name, "OPEN" if r >= 0 else errno.errorcode.get(e, e))
sc("keyctl", 250 if X else 219, 0, -3, 0)
sc("add_key", 248 if X else 217, 0, 0, 0, 0, 0)
sc("io_uring_setup", 425, 1, 0)
sc("io_uring_enter", 426, 0, 0, 0, 0)
sc("userfaultfd", 323 if X else 282, 1)
sc("bpf", 321 if X else 280, 0, 0, 0)
sc("perf_event_open", 298 if X else 241, 0, 0, 0, 0, 0)
sc("unshare", 272 if X else 97, 0x10000000)
sc("setns", 308 if X else 268, 0, 0)
sc("mount", 165 if X else 40, 0, 0, 0, 0, 0)
sc("umount2", 166 if X else 39, 0, 0)
sc("chroot", 161 if X else 51, 0)
sc("pivot_root", 155 if X else 41, 0, 0)
sc("fsopen", 430, 0, 0)
sc("open_tree", 428, -100, 0, 0)
sc("move_mount", 429, 0, 0, 0, 0, 0)
sc("open_by_handle_at", 304 if X else 265, 0, 0, 0)
sc("process_vm_readv", 310 if X else 270, 1, 0, 0, 0, 0, 0)
sc("pidfd_getfd", 438, 0, 0, 0)
sc("kexec_load", 246 if X else 104, 0, 0, 0, 0)
sc("init_module", 175 if X else 105, 0, 0, 0)
sc("reboot", 169 if X else 142, 0, 0, 0, 0)
sc("clone-newuser", 56 if X else 220, 0x10000011, 0, 0, 0, 0)
sc("clone3", 435, 0, 0)
sc("sethostname", 170 if X else 161, 0, 0)
for name, req in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCSTI-high", 0x5412 | (1 << 32))):
    sc(name, 16 if X else 29, 0, req, 0)
for name, fam in (("AF_UNIX", 1), ("AF_INET", 2), ("AF_INET6", 10), ("AF_NETLINK", 16), ("AF_PACKET", 17), ("AF_ALG", 38), ("AF_VSOCK", 40), ("AF_KEY", 15),
                  ("AF_TIPC", 30), ("AF_BLUETOOTH", 31), ("AF_XDP", 44), ("AF_X25", 9), ("AF_APPLETALK", 5), ("AF_high", 40 | (1 << 32))):
    sc(name, 41 if X else 198, fam, 2 if fam != 40 else 1, 0)
sc("raw", 41 if X else 198, 2, 3, 1)
'''
ALLOWED = {"AF_UNIX", "AF_INET", "AF_INET6"}
REFUSED = {"EPERM", "ENOSYS", "EAFNOSUPPORT"}


@test
def system_calls(box):
    b = box()
    b.call("write", file_path="probe.py", content=PROBE)
    r = b.bash("python3 probe.py")
    assert not r.error, r
    got = dict(line.split() for line in r.text.split("\n"))
    assert len(got) > 40
    bad = {k: v for k, v in got.items() if (v != "OPEN" if k in ALLOWED else v not in REFUSED)}
    assert not bad, bad
    assert got["clone3"] == "ENOSYS" and got["AF_VSOCK"] == "EAFNOSUPPORT" and got["AF_high"] == "EAFNOSUPPORT", got
    # what programs need still works: threads, subprocesses, pipes, ttys
    r = b.bash("python3 -c \"import threading,subprocess,pty,os; t=threading.Thread(target=lambda: print('thread')); t.start(); t.join(); print(subprocess.check_output(['echo','child']).decode(), end=''); m,s=pty.openpty(); os.write(s,b'x'); print(os.read(m,1))\"")
    assert r.text == "thread\nchild\nb'x'", r


@test
def foreign_architecture_dies(box):
    if os.uname().machine != "x86_64":
        return
    b = box()
    # x32: getpid with bit 30 set
    r = b.bash("python3 -c \"import ctypes; ctypes.CDLL(None).syscall(ctypes.c_long(0x40000027)); print(6*7)\"; echo status $?")
    assert "42" not in r.text and "status 159" in r.text, r  # SIGSYS
    # i386: int 0x80 from machine code
    code = r"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax,20; int 0x80; ret
    r = b.bash(f"python3 -c \"import ctypes,mmap; m=mmap.mmap(-1,4096,prot=7); m.write(b'{code}'); f=ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m))); f(); print(6*7)\"; echo status $?")
    assert "42" not in r.text and ("status 159" in r.text or "status 139" in r.text), r


@test
def process_one_is_out_of_reach(box):
    b = box()
    r = b.bash("for f in environ fd mem root cwd exe map_files maps auxv stack; do cat /proc/1/$f >/dev/null 2>&1 && echo readable $f; ls /proc/1/$f/ >/dev/null 2>&1 && echo listable $f; done; ls -l /proc/1/exe >/dev/null 2>&1 && echo exe; echo x 2>/dev/null >/proc/1/oom_score_adj && echo oom; echo end")
    assert r.text == "end", r
    r = b.bash("python3 - 2>&1 </workspace/none || python3 -c \"import ctypes; l=ctypes.CDLL(None,use_errno=True); print(l.ptrace(16,1,0,0), ctypes.get_errno())\"")
    assert r.text.endswith("-1 1") or r.text.endswith("-1 13"), r
    # nor are the children that do file operations
    b.bash("mkdir d; for i in $(seq 60); do seq 30000 >d/$i; done")
    id = b.start("grep", {"pattern": "([0-9]+)+[x-z]$", "path": "d"}, 3000)
    r = b.bash("""for i in $(seq 200); do for p in /proc/[0-9]*; do p=${p#/proc/}; read -r name </proc/$p/comm 2>/dev/null; case $name in envd*) [ $p = 1 ] || { kill -9 $p 2>&1 && echo killed; cat /proc/$p/mem >/dev/null 2>/tmp/e && echo read; ls -l /proc/$p/fd >/dev/null 2>&1 && echo fds; echo found; break 2; };; esac; done; done""")
    lines = r.text.split("\n")
    assert lines[-1] == "found" and "fds" not in lines and "read" not in lines, r
    if b.c.hello["landlock"] >= 6:
        assert "killed" not in lines, r
    b.wait(id)


@test
def nothing_is_inherited(box):
    os.environ["ANTHROPIC_API_KEY"] = "sk-planted-secret"
    try:
        b = box({"env": {"HTTP_PROXY": "http://127.0.0.1:3128", "A=B": "no", "N": 5}})
    finally:
        del os.environ["ANTHROPIC_API_KEY"]
    r = b.bash("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "planted" not in r.text and "ANTHROPIC" not in r.text and "HTTP_PROXY=http://127.0.0.1:3128" in r.text and "A=B" not in r.text, r
    assert b.bash("ls /proc/self/fd | tr '\\n' ' '; exec 9>&1; bash -c 'ls /proc/self/fd' | tr '\\n' ' '; exec 9>&-").text.startswith("0 1 2 3 ")
    assert b.bash("ulimit -c; grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status | tr -d '\\t'").text.startswith("0\nCapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\nSeccomp:2")
    assert b.bash("cat /proc/self/sessionid >/dev/null; ps -o tty= -p $$ 2>/dev/null; exec 2>/dev/null; : </dev/tty || echo no tty").text.endswith("no tty")


@test
def writing_is_limited(box):
    b = box()
    if not b.c.hello["landlock"]:
        r = b.bash("touch /usr/x")
        assert r.error
        return
    ok = ["/workspace/x", "/tmp/x", "/mnt/session/outputs/x", "/dev/shm/x"]
    no = ["/x", "/usr/x", "/etc/x", "/dev/x", "/run/moonrig/x", "/run/moonrig/w/x", "/mnt/session/uploads/x", "/mnt/x", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj", "/proc/sysrq-trigger"]
    for p in ok:
        assert not b.bash(f"echo x >{p} && mkdir {p}.d && mv {p} {p}.d/y && rm -r {p}.d").error, p
    for p in no:
        r = b.bash(f"echo 0 >{p}")
        assert r.error, (p, r)
    assert b.bash("for d in null zero full random urandom; do [ $d = full ] || echo x >/dev/$d; done; echo a >/dev/stdout; echo b >/dev/stderr; echo c >/dev/fd/1; echo d | tee /dev/stderr").text == "a\nb\nc\nd\nd"
    # the same for the file tools
    for p in no:
        assert b.call("write", file_path=p, content="0").error, p


@test
def renames_between_directories(box):
    b = box()
    r = b.bash("mkdir a c; echo x >a/f; mv a/f c/g; ln c/g a/h; mv c a/; cat a/c/g; python3 -c \"import os; os.rename('a/h', 'h'); os.rename('a/c', 'c')\"; ls")
    assert r.text == "x\na\nc\nh", r


@test
def without_landlock(box):
    b = box(refuse=(444, errno.ENOSYS))
    assert b.c.hello["landlock"] == 0 and b.c.hello["seccomp"] is True
    assert b.bash("echo x >/workspace/f; cat f; python3 -c 'import os; os.kill(1, 9)'; ls -l /proc/1/fd 2>&1 | grep -c denied").text == "x\n1"
    fails = b.call("write", file_path="/mnt/session/x", content="x")
    assert fails.error and fails.text == "write: /mnt/session/x is inside read-only directory /mnt/session", fails
    r = b.bash("echo 0 >/proc/self/oom_score_adj; (echo y >/run/moonrig/ctl) & rm -f /run/moonrig/w/status; true", 2000)
    for i in range(3):
        r = b.bash("echo fine", 2000)
    assert r.text == "fine", r


@test
def a_line_too_many(box):
    # without Landlock the payload can write where the commands come from: its shell may end of it, which is said
    b = box(refuse=(444, errno.ENOSYS))
    for line in ("", ":", "nosuchcommand", "exit 5", "((", "\\\\builtin return 3"):
        b.bash("v=kept", 5000)
        b.bash(f"(printf '%s\\n' '{line}' >/run/moonrig/ctl) >/dev/null 2>&1 &", 5000)
        for i in range(4):
            r = b.bash("echo ${v-lost}", 5000)
            assert r.text == "kept" or "timed out" in r.text or r.text.endswith("lost") and "the shell had ended" in r.text or "terminated" in r.text or r.text == "lost" and i, (line, i, r)
        assert r.text in ("kept", "lost"), (line, r)


@test
def without_seccomp_it_does_not_start(box):
    b = box(refuse=(317 if os.uname().machine == "x86_64" else 277, errno.EPERM), attach=False)
    assert b.report in ("seccomp: no filter can be made here\n", "seccomp: the filter cannot be loaded\n"), b.report
    assert b.ended()
