"""The bash tool: state, ends, time-outs, output (attacks 20-25)."""
import os, re, time
from kit import test, eventually

LOST = "variables, functions and the working directory of the old shell are lost"


@test
def state_persists(box):
    b = box()
    assert b.bash("cd /usr; export A=1; v=2; f() { echo f$1; }; umask 027; shopt -s nullglob; set -o pipefail; exec 7<<<seven").content == []
    assert b.bash("pwd; echo $A $v; f x; umask; shopt nullglob | cut -f2; false | true || echo pipefail; cat <&7").text == "/usr\n1 2\nfx\n0027\non\npipefail\nseven"
    assert b.bash("echo $HOME; cd; pwd; echo $TERM $LANG $-").text.startswith("/workspace\n/workspace\ndumb C.UTF-8 ")


@test
def answers(box):
    b = box()
    r = b.bash("echo out; echo err >&2; echo out2")
    assert not r.error and r.text == "out\nerr\nout2", r
    r = b.bash("echo said; exit_with() { return $1; }; exit_with 3")
    assert r.error and r.text == "said", r
    r = b.bash("exit_with 42")
    assert r.error and r.text == "exit 42", r
    r = b.bash("nosuchcommand")
    assert r.error and r.text.endswith("nosuchcommand: command not found"), r
    r = b.bash("printf 'a\\n\\n\\n'")
    assert r.text == "a"
    r = b.bash("true")
    assert not r.error and r.content == []
    r = b.bash("return 9")
    assert r.error and r.text == "exit 9"
    r = b.bash("(exit 300)")
    assert r.text == "exit 44"
    r = b.bash("kill -9 $BASHPID & wait $!")
    assert r.error and "Killed" in r.text or r.text == "exit 137", r


@test
def syntax_errors_leave_the_shell(box):
    b = box()
    b.bash("x=1")
    for bad in ("if fi", "echo 'open", "cat <<", "(", "for", "x=$(", "))"):
        r = b.bash(bad)
        assert r.error and "line" in r.text, (bad, r)
    assert b.bash("cat <<E\nopen end").text.endswith("open end")
    assert b.bash("echo $x").text == "1"


@test
def standard_input_is_empty(box):
    b = box()
    for cmd in ("cat", "read x; echo got=$x", "python3 -", "head -c 5", "while read l; do echo $l; done", "bash -s", "tee /dev/null"):
        t0 = time.monotonic()
        r = b.bash(cmd + "; echo next")
        assert r.text.endswith("next") and time.monotonic() - t0 < 5, (cmd, r)
    assert b.bash("echo still; [ -t 0 ] || echo no tty; exec 0<&-; echo a").text == "still\nno tty\na"
    assert b.bash("cat; echo b").text == "b"


@test
def shell_death_is_detected_and_said(box):
    b = box()
    for cmd, how in (("exit 3", "exit status 3"), ("exec true", "exit status 0"), ("kill -9 $$", "killed by signal 9"),
                     ("set -e; echo before; false; echo not", "exit status 1"), ("exit", "exit status 0"), ("kill -TERM $$", "killed by signal 15"),
                     ("exec python3 -c 'import sys; sys.exit(6)'", "exit status 6"),
                     ("set -u; echo $nosuch; echo not", "exit status 127")):
        assert b.bash("x=lost; cd /usr").content == []
        r = b.bash(cmd)
        assert r.error and r.text.startswith(f"bash: bash session terminated ({how})\n") and LOST in r.text, (cmd, r)
        assert ("before" in cmd) == ("Output before that:\nbefore" in r.text), r
        r = b.bash("echo ${x-none} $PWD")
        assert not r.error and r.text == "none /workspace", (cmd, r)


@test
def death_between_commands_is_said_later(box):
    b = box()
    b.bash("x=1; (sleep 0.2; kill -9 $$) >/dev/null 2>&1 &")
    time.sleep(0.5)
    r = b.bash("echo ${x-none}")
    assert not r.error and r.text == f"[the shell had ended since the last command, this is a new one: {LOST}]\nnone", r
    assert b.bash("echo ok").text == "ok"


@test
def hostile_shell_settings(box):
    """Each is followed by a command that must work, in this shell or, where the result said so, in a new one."""
    b = box()
    for cmd in ("printf() { echo fake; }; .() { echo fake; }; source() { :; }; read() { :; }; exit() { :; }; eval() { :; }",
                "IFS=0123456789", "readonly _ REPLY IFS PWD", "set -f -u -x -v", "trap 'echo dbg' DEBUG; trap 'echo ret' RETURN; trap 'echo err' ERR; set -T -E",
                "PROMPT_COMMAND='echo pc'; PS1='p> '; PS4='+++'; BASH_ENV=/nowhere; ENV=/nowhere", "exec >/dev/null 2>&1", "exec 1>&- 2>&- 0<&-",
                "for fd in {3..260}; do eval \"exec $fd>&-\"; done", "set -o posix", "set -C; set -k; set -h", "alias builtin=echo printf=echo; shopt -s expand_aliases extdebug",
                "set -m", "trap '' 1 2 3 13 15 63 64", "unset PATH HOME", "PATH=", "umask 777", "ulimit -f 0", "set -r", "ulimit -n 4", "POSIXLY_CORRECT=1", "LC_ALL=C; LANG=xx",
                "enable -n printf read . builtin", "set -- a b c; shift", "shopt -s extdebug; trap false DEBUG", "set -e", "OPTIND=x; SECONDS=y; RANDOM=; LINENO=7", "hash -p /bin/false ls"):
        r = b.bash(cmd, 3000)
        said = "terminated" in r.text or "timed out" in r.text
        r2 = b.bash("echo alive; /bin/true", 3000)
        assert "alive" in r2.text, (cmd, r, r2)
        if said or "[the shell had ended" in r2.text:
            continue
        assert b.bash("/bin/false").error, cmd
        assert b.bash(restart=True, command="echo fresh $((6*7))").text == "fresh 42", cmd


@test
def shell_that_cannot_answer(box):
    b = box()
    for cmd in ("builtin() { :; }", "set -n", "trap '' 63; while :; do :; done"):
        t0 = time.monotonic()
        r = b.bash("x=1; " + cmd, 700)
        assert r.error and r.text.startswith("bash: bash command timed out after 700ms\n") and LOST in r.text, (cmd, r)
        assert time.monotonic() - t0 < 3
        assert b.bash("echo ${x-none}").text == "none"


@test
def forged_status(box):
    b = box()
    forge = "for fd in {3..255}; do printf '0\\n' >&$fd; printf '%032d 0\\n' 0 >&$fd; done 2>/dev/null; "
    assert b.bash("ls /proc/$$/fd | sort -n | head -3 | tr '\\n' ' '; ls -l /proc/self/fd | grep -c /run/moonrig").text.startswith("0 1 2")
    r = b.bash(forge + "(exit 5)")  # some of these are copies of its own output
    assert r.error and set(r.text.replace("exit 5", "").split()) <= {"0", "0" * 32}, r
    assert b.bash("echo x").text == "x"
    # into the status pipe by its name: without the word of this command it is noise
    r = b.bash("for i in {1..500}; do printf '%032d 0\\n0\\n' $i; done >/run/moonrig/w/status; (exit 6)")
    assert r.error and r.text == "exit 6", r
    r = b.bash("printf 'no newline' >/run/moonrig/w/status; echo x; (exit 8)")
    assert r.error and r.text == "x", r
    # the word was read before the command runs, and where it came from gives nothing more, nor takes anything
    r = b.bash("timeout 0.3 cat /run/moonrig/ctl; (echo fake >/run/moonrig/ctl); rm -rf /run/moonrig/*; mkfifo /run/moonrig/w/x; ls /run/moonrig; cat /run/moonrig/bash")
    assert not r.error and "fake" not in r.text.replace("echo fake", "") and r.text.count("ermission denied") >= 3 and "\nbash\nctl\nw\n" in r.text, r
    # a process in the background cannot answer for a later command
    b.bash("(while :; do printf '%032d 0\\n' 7; sleep 0.001; done >/run/moonrig/w/status) 2>/dev/null &")
    for i in range(20):
        r = b.bash(f"x=$((x+1)); (exit $((x+10)))")
        assert r.error and r.text == f"exit {11 + i}", r
    # one that eats what starts a command: that command times out and says so, the next works
    b.call("bash", restart=True)
    b.bash("(cat /run/moonrig/ctl >/dev/null 2>&1; :) &")
    for i in range(3):
        b.bash("echo a", 700)
    assert b.bash(restart=True, command="echo b").text == "b"


@test
def timeouts(box):
    b = box()
    b.bash("x=kept; cd /usr; setsid nohup sleep 301 >/dev/null 2>&1 &")
    for cmd in ("sleep 60", "sleep 60; sleep 60; echo no", "while :; do :; done", "while :; do sleep 0.05; done", "f() { while :; do sleep 1; done; }; f; f",
                "cat /dev/zero | tr 'x' 'y' | wc", "y=$(sleep 60; echo y); echo no", "(sleep 60; sleep 60) | cat; sleep 60", "sleep 60 & wait", "exec 8< <(sleep 60); read z <&8",
                "trap '' TERM INT HUP; sleep 60; echo no", "bash -c 'trap \"\" TERM; while :; do sleep 1; done'", "set -m; sleep 60; set +m", "python3 -c 'import os,time\nfor i in range(5): os.fork()==0 and os.setsid()\ntime.sleep(60)' 2>/dev/null"):
        t0 = time.monotonic()
        r = b.bash("echo seen; " + cmd, 300)
        took = time.monotonic() - t0
        assert r.error and r.text.startswith("bash: bash command timed out after 300ms\n") and "the shell kept its state" in r.text, (cmd, r)
        assert "Output before that:\nseen" in r.text and 0.29 < took < 1.5, (cmd, took, r)
        r = b.bash("echo $x $PWD")
        assert r.text.endswith("kept /usr") and not r.error, (cmd, r)
        left = b.bash("cat /proc/[0-9]*/stat 2>/dev/null").text  # and bash's "Killed sleep 60", perhaps
        assert set(re.findall(r"^\d+ \((.*)\) [^Z] ", left, re.M)) == {"bash", "envd"}, (cmd, left)


@test
def timeout_of_the_input(box):
    b = box({"bash_timeout_ms": 400})
    for call in (dict(command="sleep 9"), dict(command="sleep 9", timeout_ms=0)):
        r = b.wait(b.start("bash", call))
        assert r.text.startswith("bash: bash command timed out after 400ms"), r
    assert b.wait(b.start("bash", {"command": "sleep 0.6; echo x", "timeout_ms": 5000})).text == "x"
    assert "after 200ms" in b.wait(b.start("bash", {"command": "sleep 9", "timeout_ms": 9000}, 200)).text
    assert "after 150ms" in b.wait(b.start("bash", {"command": "sleep 9", "timeout_ms": 150}, 9000)).text


@test
def restart(box):
    b = box()
    b.bash("x=1; sleep 300 >/dev/null 2>&1 &")
    r = b.call("bash", restart=True)
    assert not r.error and r.text == "bash session restarted", r
    assert b.bash("echo ${x-gone}; pgrep -c sleep").text == "gone\n0"
    b.bash("x=2")
    assert b.call("bash", restart=True, command="echo ${x-gone}").text == "gone"
    assert b.call("bash", restart=False, command="echo x").text == "x"


@test
def output_is_capped(box):
    b = box()
    t0 = time.monotonic()
    r = b.bash("yes | head -c 50M; echo end")
    assert not r.error and r.text.startswith("[output truncated]\n") and r.text.endswith("y\nend"), r.text[:50]
    assert len(r.text) == len("[output truncated]\n") + 102400 and time.monotonic() - t0 < 10
    r = b.bash("head -c 102400 /dev/zero | tr '\\0' a")
    assert r.text == "a" * 102400
    r = b.bash("head -c 102401 /dev/zero | tr '\\0' a")
    assert r.text == "[output truncated]\n" + "a" * 102400
    r = b.bash("python3 -c \"print('\\u20ac' * 102401, end='')\"")  # characters, not bytes
    assert r.text == "[output truncated]\n" + "\u20ac" * 102400
    r = b.bash("yes", 400)
    assert r.error and "timed out" in r.text and len(r.text) < 110000
    r = b.bash("head -c 300M /dev/zero")
    assert r.text.endswith("\ufffd" * 1000) and len(r.text) == len("[output truncated]\n") + 102400
    rss = int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{b.envd()}/status").read())[1])
    assert rss < 60000 or "asan" in __import__("kit").ENVD, rss


@test
def output_is_text(box):
    b = box()
    for raw, want in ((r"a\0b", "a\ufffdb"), (r"\377\376x", "\ufffd\ufffdx"), (r"\303", "\ufffd"), (r"\303\251", "\u00e9"), (r"\355\240\200", "\ufffd" * 3),
                      (r"\360\237\230\200!", "\U0001f600!"), (r"\360\237\230", "\ufffd"), (r"\300\200", "\ufffd\ufffd"), (r"\364\220\200\200", "\ufffd" * 4),
                      (r"\033[1;31mred\033[0m", "red"), (r"\033]0;title\007text", "text"), (r"\033]8;;http://x\033\\link\033]8;;\033\\", "link"),
                      (r"\033(Bx\033=y\033M", "xy"), (r"a\033", "a"), (r"\033[", ""), (r"\033]never closed\nx", "never closed\nx"), (r"\033[?25lx\033[2K", "x"),
                      (r"tab\tret\r\nbell\a", "tab\tret\r\nbell\a"), (r"\"quote\\ \x7f \x01", "\"quote\\ \x7f \x01")):
        r = b.bash(f"printf '{raw}'")
        assert r.text == want, (raw, r)
    r = b.bash("head -c 200000 /dev/urandom")
    assert len(r.text) <= 102400 + 19
    assert b.bash("echo ok").text == "ok"


@test
def background_output_is_kept_apart(box):
    b = box()
    r = b.bash("(sleep 0.3; echo late; sleep 0.2; echo later) & echo now")
    assert r.text.startswith("now\n[what the background processes print from now on goes to /tmp/background/"), r
    log = re.search(r"/tmp/background/\d+\.log", r.text)[0]
    assert b.bash("sleep 0.4; echo mine").text == "mine"
    assert eventually(lambda: b.call("read", file_path=log).text == "late\nlater\n"), b.call("read", file_path=log)
    r = b.bash("sleep 0.01 & echo quick")  # closes the pipe at once: nothing to say
    assert r.text == "quick", r
    r = b.bash("sleep 5 >/dev/null 2>&1 & disown; echo quiet")
    assert r.text == "quiet", r
    # a flood goes to a bounded file and disturbs nobody
    r = b.bash("yes flood & echo $! >pid")
    log = re.search(r"/tmp/background/\d+\.log", r.text)[0]
    time.sleep(1)
    t0 = time.monotonic()
    assert b.bash("echo calm").text == "calm" and time.monotonic() - t0 < 1
    assert 0 < int(b.bash(f"stat -c %s {log}").text) <= (1 << 20) + 100
    assert b.bash("kill $(cat pid); sleep 0.1; jobs -r | grep -c yes").text.endswith("0")
    # the payload decides what /tmp/background is, but not where envd writes
    b.bash("rm -rf /tmp/background; ln -s /workspace /tmp/background; (sleep 0.2; echo x) &")
    time.sleep(0.5)
    assert b.bash("ls /workspace").text == "pid"


@test
def many_background_jobs(box):
    b = box(nproc=2000)
    for i in range(80):
        r = b.bash(f"sleep 100 & echo {i}")
        assert r.text.startswith(f"{i}\n[what"), r
    assert b.bash("pgrep -c sleep").text == "80"
    assert b.bash(restart=True, command="pgrep -c sleep").text == "0"
    assert eventually(lambda: len(os.listdir(f"/proc/{b.envd()}/fd")) < 20)


@test
def daemons_do_not_survive_a_timeout(box):
    b = box()
    b.bash("""cat >d.py <<'E'
import os, signal, time
for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(s, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
open('/workspace/daemon', 'w').write(str(os.getpid()))
while True: time.sleep(0.05); open('/workspace/beat', 'w').write('x')
E
python3 d.py; nohup setsid python3 d.py >/dev/null 2>&1 &""")
    assert eventually(lambda: os.path.exists(b.path("ws/beat")))
    r = b.bash("sleep 50", 200)
    assert "timed out" in r.text
    os.unlink(b.path("ws/beat"))
    time.sleep(0.3)
    assert not os.path.exists(b.path("ws/beat"))


@test
def fork_bomb(box):
    b = box(nproc=150)
    b.bash("x=kept")
    r = b.bash("bomb() { bomb | bomb & }; bomb; sleep 30", 700)
    assert r.error and "timed out" in r.text, r
    r = b.bash("echo ${x-lost}; ls /proc | grep -c '^[0-9]'", 5000)
    assert not r.error and int(r.text.split("\n")[-1]) <= 6, r


@test
def kill_everything(box):
    b = box()
    r = b.bash("kill -9 -1; echo after")
    assert "after" in r.text or "terminated" in r.text, r
    r = b.bash("python3 -c 'import os; os.kill(-1, 9)'; echo x")
    assert r.error and "terminated (killed by signal 9)" in r.text, r
    r = b.bash("kill -9 1; kill -TERM 1; kill -STOP 1; kill -SEGV 1; echo done")
    assert r.text.endswith("done"), r
    r = b.bash("python3 -c 'import os; os.kill(-1, 19)'; echo x", 500)
    assert "timed out" in r.text, r
    r = b.bash("kill -STOP $$; echo y", 500)
    assert "timed out" in r.text or r.text == "y", r
    assert b.bash("echo alive").text == "alive"
    assert b.call("write", file_path="f", content="x").text == "wrote 1 bytes to f"


@test
def zombies_are_reaped(box):
    b = box()
    b.bash("for i in $(seq 100); do (sleep 0.05 & ) ; done")
    time.sleep(0.3)
    assert b.bash("cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z '").text == "0"


@test
def full_tmp_does_not_stop_the_shell(box):
    b = box(tmp=1 << 20)
    r = b.bash("head -c 2M /dev/zero >/tmp/full")
    assert r.error and "No space left" in r.text, r
    assert b.bash("i=0; while : >/tmp/i$i; do i=$((i+1)); [ $i -gt 3000 ] && break; done 2>/dev/null; echo x").text.endswith("x")
    assert b.bash("echo fine; sleep 0.3 & rm -rf /tmp/*; echo ok").text.startswith("fine\nok")


@test
def run_directory_spoilt(box):
    """Without Landlock, or without a run directory of its own, the payload can break it: then it starts afresh."""
    b = box({"run": "/tmp/none"})
    b.bash("x=1")
    assert b.bash("ls -d /tmp/.moonrig*").text.startswith("/tmp/.moonrig.")
    b.bash("rm -rf /tmp/.moonrig*", 1500)
    r = b.bash("echo ${x-none}")
    assert not r.error and r.text.endswith("none") , r
