"""A freeze: what stands, what goes on meanwhile (the relay, words about calls), and what of time counts."""
import socket, time
from kit import test
from relay_test import PORT, READ, attach, give


def freeze(b, ms=60000):
    c = b.connect(attach=False)
    c.send({"t": "freeze", "ms": ms})
    assert c.until(("frozen", "error"))["t"] == "frozen"
    return c


@test
def a_freeze_takes_no_time(box):
    b = box({"proxy_port": PORT, "disk_max": 1 << 30, "files_max": 10000}, attach=False)
    channel = attach(b, proto=3)
    id = b.start("bash", {"command": READ + "echo up >&3; read -r x <&3; echo got $x", "timeout_ms": 4000})
    s = give(channel)
    assert s.recv(100) == b"up\n"
    f = freeze(b)
    late = b.start("write", {"file_path": "late", "content": "x"})
    assert b.c.until(("accepted",), late)  # told, though it waits
    s.sendall(b"line\n")  # taken, though nobody reads it
    time.sleep(4.5)  # longer than the command's time
    assert not [x for x in b.c.frames if x["t"] == "result"], b.c.frames
    f.close()
    assert b.wait(id).text == "got line"
    assert not b.wait(late).error
    assert b.bash("echo still").text == "still"


@test
def one_at_a_time_and_not_by_the_server(box):
    b = box()
    f = freeze(b)
    for c in (b.connect(attach=False), b.c):
        c.send({"t": "freeze", "ms": 1000})
        assert "freeze" in c.until(("error",))["message"] and c.closed()
    f.close()
    b.c = b.connect()
    assert b.bash("echo on").text == "on"


@test
def who_waits_for_a_way_out_waits_on(box):
    b = box({"proxy_port": PORT}, attach=False)
    channel = attach(b, proto=3)
    id = b.start("bash", {"command": READ + "timeout 30 cat <&3"})
    assert channel.recv(8) == b"c"
    f = freeze(b)
    ours, theirs = socket.socketpair()
    socket.send_fds(channel, [b"y"], [theirs.fileno()])
    theirs.close()
    ours.sendall(b"answer")
    ours.close()
    f.close()
    assert b.wait(id).text == "answer"
