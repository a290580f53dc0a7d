"""The protocol: attach, at most once, answers after a reconnect, cancel, bad frames, limits, the orphan's end."""
import json, os, signal, struct, time
from media import png
from kit import Conn, test, eventually


@test
def start_reports_what_is_wrong(box):
    for config, said in (({"orphan_ttl_s": "x"}, "orphan_ttl_s"), ({"home": "/nowhere"}, "/nowhere"),
                         ({"proto": [7, 9]}, "proto"), ({"write": ["tmp"]}, "write"), ({"env": []}, "env")):
        b = box(config, attach=False)
        assert said in b.report and b.report.count("\n") == 1, b.report
        assert b.ended()


@test
def hello_and_attach(box):
    b = box(attach=False)
    c = b.connect(attach=False)
    assert c.hello["t"] == "hello" and c.hello["proto"] == [1, 3] and c.hello["seccomp"] is True, c.hello
    c.send({"t": "call", "id": "a", "name": "bash", "input": {"command": "echo x"}})
    assert c.until(("error",))["message"] == "the first frame must be attach"
    assert c.closed()
    c = b.connect(attach=False)
    c.send({"t": "attach", "proto": 4})
    assert "proto" in c.until(("error",))["message"] and c.closed()
    b.c = b.connect()
    b.c.send({"t": "status", "id": "a"})
    assert b.c.recv() == {"t": "unknown", "id": "a"}


@test
def started_at_most_once(box):
    b = box()
    first = b.bash("echo one >>count; wc -l <count")
    for again in ("call1", "call1"):
        b.c.send({"t": "call", "id": again, "name": "bash", "input": {"command": "echo two >>count; wc -l <count"}})
        assert b.wait(again).text == first.text == "1"
    id = b.start("bash", {"command": "sleep 0.3; echo x >>count; echo done"})
    b.c.send({"t": "call", "id": id, "name": "bash", "input": {"command": "echo other"}})
    assert b.wait(id).text == "done"
    b.c.send({"t": "status", "id": id})
    assert b.wait(id).text == "done"
    assert b.bash("wc -l <count").text == "2"


@test
def result_waits_for_a_new_connection(box):
    b = box()
    id = b.start("bash", {"command": "S=kept; cd /usr; sleep 0.3; echo while nobody was there"})
    b.c.until(("accepted",), id)
    b.c.close()
    time.sleep(0.5)
    b.c = b.connect()
    assert b.c.hello["kept"] == 1 and b.c.hello["running"] == 0, b.c.hello
    b.c.send({"t": "status", "id": id})
    assert b.wait(id).text == "while nobody was there"
    assert b.bash("echo $S $PWD").text == "kept /usr"
    # and one that is still running is waited for
    id = b.start("bash", {"command": "sleep 0.5; echo later"})
    b.c.until(("accepted",), id)
    b.c.close()
    b.c = b.connect()
    assert b.c.hello["running"] == 1
    b.c.send({"t": "status", "id": id})
    assert b.c.until(("accepted", "result"), id)["t"] == "accepted"
    assert b.wait(id).text == "later"


@test
def a_new_attach_replaces_the_old(box):
    b = box()
    id = b.start("bash", {"command": "sleep 0.3; echo x"})
    b.c.until(("accepted",), id)
    old, b.c = b.c, b.connect()
    assert old.closed()
    b.c.send({"t": "status", "id": id})
    assert b.wait(id).text == "x"


@test
def unasked_answers_are_not_sent(box):
    b = box()
    id = b.start("bash", {"command": "sleep 0.2; echo x"})
    b.c.until(("accepted",), id)
    b.c.close()
    b.c = b.connect()
    time.sleep(0.4)
    assert b.bash("echo y").text == "y"
    assert not [f for f in b.c.frames if f.get("id") == id], b.c.frames


@test
def cancel(box):
    b = box()
    b.bash("x=5")
    running = b.start("bash", {"command": "(trap '' TERM INT; setsid sleep 300) & sleep 300"})
    waiting = b.start("bash", {"command": "echo ran >/workspace/ran"})
    b.c.until(("accepted",), waiting)
    t0 = time.monotonic()
    b.c.send({"t": "cancel", "id": waiting})
    assert b.wait(waiting).t == "cancelled"
    b.c.send({"t": "cancel", "id": running})
    assert b.wait(running).t == "cancelled"
    assert time.monotonic() - t0 < 3
    assert b.bash("echo $x; ls; pgrep -c sleep").text == "5\n0"
    for id in (running, waiting):
        b.c.send({"t": "status", "id": id})
        assert b.wait(id).t == "cancelled"
    done = b.start("bash", {"command": "echo fine"})
    assert b.wait(done).text == "fine"
    b.c.send({"t": "cancel", "id": done})
    assert b.wait(done).text == "fine"
    b.c.send({"t": "cancel", "id": "never"})
    assert b.wait("never").t == "unknown"


@test
def cancel_a_file_tool(box):
    b = box()
    b.bash("mkdir d; for i in $(seq 40); do for j in 1 2 3 4 5; do seq 20000 >d/$i.$j; done; done")
    id = b.start("grep", {"pattern": "(x+x+)+y|[0-9]+[0-9]+[0-9]+[0-9]+a", "path": "d"})
    b.c.until(("accepted",), id)
    b.c.send({"t": "cancel", "id": id})
    assert b.wait(id).t == "cancelled"
    assert b.bash("echo x").text == "x"


@test
def bash_calls_in_turn_file_tools_beside(box):
    b = box()
    slow = b.start("bash", {"command": "sleep 0.6; echo slow; date +%s%N >a"})
    after = b.start("bash", {"command": "echo after"})
    t0 = time.monotonic()
    assert b.call("write", file_path="f", content="x").text == "wrote 1 bytes to f"
    assert time.monotonic() - t0 < 0.5
    order = [b.c.until(("result",))["id"] for _ in range(2)]
    assert order == [slow, after], order


@test
def bad_frames_end_the_connection_only(box):
    b = box()
    b.bash("x=still")
    raw = [struct.pack("<I", 0), struct.pack("<I", (32 << 20) + 1) + b"x" * 100, struct.pack("<I", 0xffffffff)]
    bodies = [b"x", b"{", b"[1", b'{"t":"call"}', b'{"t":5}', b"[]", b"null", b'"\\ud800"', b'{"t":"call","id":5}', b"\xff\xfe{}",
              b'{"t":"attach"}', b'{"t":"fly"}', b'{"t":"status"}', b'{"t":"call","id":""}', b"[" * 100000,
              b'{"t":"call","id":"' + b"i" * 300 + b'"}', b'{"a":' * 70 + b"1" + b"}" * 70, b'{"t":"\x00"}', os.urandom(5000),
              b"[" + b"1," * 70000 + b"1]", b'{"t":"cancel","id":{}}', b'{"t":"attach","proto":1e999}']
    for data in raw + [struct.pack("<I", len(x)) + x for x in bodies]:
        c = b.connect()
        c.s.sendall(data)
        assert c.until(("error",))["message"], data[:50]
        assert c.closed(), data[:50]
    c = b.connect()
    c.s.sendall(struct.pack("<I", 30 << 20) + b"[" * 1000)  # never completed
    time.sleep(0.05)
    c.close()
    b.c = b.connect()
    assert b.bash("echo $x").text == "still"


@test
def frames_in_pieces(box):
    b = box()
    body = json.dumps({"t": "call", "id": "p", "name": "bash", "input": {"command": "echo pieces"}}).encode()
    data = struct.pack("<I", len(body)) + body
    for i in range(len(data)):
        b.c.s.sendall(data[i:i + 1])
    assert b.wait("p").text == "pieces"
    # and many in one
    data = b""
    for i in range(100):
        body = json.dumps({"t": "call", "id": f"m{i}", "name": "bash", "input": {"command": f"echo {i}"}}).encode()
        data += struct.pack("<I", len(body)) + body
    b.c.s.sendall(data)
    assert [b.wait(f"m{i}").text for i in range(100)] == [str(i) for i in range(100)]


@test
def bad_calls_are_answered(box):
    b = box()
    for name, input, said in (("fly", {}, 'there is no tool "fly"'), ("bash", {}, "bash: command is required"),
                              ("bash", {"command": 5}, "bash: command must be a string"), ("bash", {"command": ""}, "bash: command is required"),
                              ("bash", {"command": "a\0b"}, "bash: command must not contain a NUL character"),
                              ("bash", {"command": "x", "timeout_ms": -1}, "bash: timeout_ms must be"),
                              ("bash", {"command": "x", "timeout_ms": "5"}, "bash: timeout_ms must be"),
                              ("bash", {"command": "x", "restart": "yes"}, "bash: restart must be"),
                              ("bash", {"command": "#" * (2 << 20)}, "bash: command is longer than 1048576 bytes"),
                              ("bash", None, "bash: the input must be an object"), ("read", [], "read: the input must be an object")):
        r = b.wait(b.start(name, input))
        assert r.error and r.text.startswith(said), (name, input if len(str(input)) < 99 else "", r)
    assert b.bash("#" * 900000 + "\necho long").text == "long"


@test
def too_many_calls(box):
    b = box()
    ids = [b.start("bash", {"command": "sleep 0.4" if i == 0 else f"echo {i}"}) for i in range(300)]
    r = [b.wait(i) for i in ids]
    refused = [x for x in r if "too many calls" in x.text]
    assert len(refused) == 300 - 256 and all(x.error for x in refused), len(refused)
    assert [x.text for x in r[1:256]] == [str(i) for i in range(1, 256)]


@test
def answers_are_kept_within_bounds(box):
    b = box()
    first = b.start("bash", {"command": "echo x >>n; echo first"})
    assert b.wait(first).text == "first"
    for i in range(300):
        b.bash(f"echo {i}")
    b.c.send({"t": "status", "id": first})
    r = b.wait(first)
    assert r.error and r.text == "the result of this call is no longer kept", r
    b.c.send({"t": "call", "id": first, "name": "bash", "input": {"command": "echo x >>n; echo first"}})
    assert b.wait(first).error
    assert b.bash("wc -l <n").text == "1"  # not run again
    b.c.send({"t": "status", "id": "call200"})
    assert not b.wait("call200").error
    # by size: images of 3 MB each are 4 MB in an answer
    with open(b.path("ws/i.png"), "wb") as f:
        f.write(png(pad=3_000_000))
    ids = [b.start("read", {"file_path": "i.png"}) for _ in range(12)]
    for i in ids:
        assert b.wait(i).content[0]["type"] == "image"
    c = b.connect()
    assert 1 <= c.hello["kept"] <= 8, c.hello


@test
def a_reader_that_does_not_read_is_cut(box):
    b = box()
    with open(b.path("ws/i.png"), "wb") as f:
        f.write(png(pad=3_900_000))
    for i in range(30):
        b.start("read", {"file_path": "i.png"})
    time.sleep(0.3)
    def running():
        c = b.connect(attach=False)
        n = c.hello["running"]
        c.close()
        return n
    assert eventually(lambda: running() == 0, 20, 0.1)
    b.c = b.connect()
    b.c.send({"t": "status", "id": "call30"})
    assert b.wait("call30").content[0]["type"] == "image"


@test
def orphan_ends(box):
    b = box({"orphan_ttl_s": 1}, attach=False)
    t0 = time.monotonic()
    assert b.ended(5) and 0.9 < time.monotonic() - t0 < 3
    b = box({"orphan_ttl_s": 1})
    b.bash("setsid nohup sleep 300 >/dev/null 2>&1 &")
    time.sleep(1.5)
    assert b.bash("echo attached").text == "attached"
    pids = b.pids()
    assert len(pids) >= 3, pids
    b.c.close()
    assert b.ended(5)
    assert eventually(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids))


@test
def shutdown_ends_everything(box):
    b = box()
    b.bash("for i in 1 2 3; do (trap '' TERM HUP INT; setsid nohup bash -c 'trap \"\" TERM HUP; sleep 300; sleep 300' >/dev/null 2>&1 &) ; done")
    pids = b.pids()
    assert len(pids) >= 5, pids
    b.c.send({"t": "shutdown"})
    assert b.c.closed() and b.ended()
    assert eventually(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids))


@test
def killed_envd_takes_all_along(box):
    b = box()
    b.bash("setsid nohup sleep 300 >/dev/null 2>&1 &")
    pids = b.pids()
    os.kill(b.envd(), signal.SIGKILL)
    assert b.c.closed() and b.ended()
    assert eventually(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids))


@test
def only_as_process_one(box):
    import fcntl, kit, socket, subprocess, tempfile
    d = tempfile.mkdtemp()
    s = socket.socket(socket.AF_UNIX)
    s.bind(d + "/s")
    s.listen(1)
    r, w = os.pipe()
    a, c = (fcntl.fcntl(f, fcntl.F_DUPFD, 200) for f in (s.fileno(), w))  # not 3 or 4, which bash is told to make
    p = subprocess.run(["bash", "-c", f'exec 3<&{a} 4>&{c}; exec "$0" {{}}', kit.ENVD], pass_fds=(a, c))
    os.close(w), os.close(a), os.close(c)
    assert p.returncode == 1 and b"process 1" in os.read(r, 999)
    os.close(r)
