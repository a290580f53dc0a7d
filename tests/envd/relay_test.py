"""The way out: clients of the proxy port are relayed to descriptors that the server sends; without a server, 503."""
import json, socket, struct, threading
from kit import eventually, test

PORT = 3128
READ = f"exec 3<>/dev/tcp/127.0.0.1/{PORT}; "


def attach(b, proto=2, fds=1):
    """A connection whose attach carries the channel; our end of it."""
    c = b.connect(attach=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    body = json.dumps({"t": "attach", "proto": proto}).encode()
    socket.send_fds(c.s, [struct.pack("<I", len(body)) + body], [theirs.fileno()] * fds)
    theirs.close()
    ours.settimeout(20)
    b.c = c
    return ours


def give(channel):
    """As the server does: a stream for the client that was announced."""
    assert channel.recv(8) == b"c"
    ours, theirs = socket.socketpair()
    socket.send_fds(channel, [b"y"], [theirs.fileno()])
    theirs.close()
    ours.settimeout(20)
    return ours


@test
def relayed_both_ways(box):
    b = box({"proxy_port": PORT}, attach=False)
    channel = attach(b)
    id = b.start("bash", {"command": READ + "echo hello >&3; read -r x <&3; echo got $x; cat <&3 | wc -c; exec 3>&-"})
    s = give(channel)
    assert s.recv(100) == b"hello\n"
    s.sendall(b"line\n" + b"z" * 3000000)
    s.shutdown(socket.SHUT_WR)
    assert b.wait(id).text == "got line\n3000000"
    assert s.recv(100) == b""
    id = b.start("bash", {"command": READ + "head -c 5000000 /dev/zero >&3; exec 3>&-; echo sent"})
    s, n = give(channel), 0
    while x := s.recv(1 << 16):
        n += len(x)
    assert n == 5000000
    s.close()
    assert b.wait(id).text == "sent"


@test
def many_and_in_order(box):
    b = box({"proxy_port": PORT}, attach=False)
    channel = attach(b)
    id = b.start("bash", {"command": f"""python3 - <<'END'
import socket
a = [socket.create_connection(("127.0.0.1", {PORT})) for _ in range(100)]
for i, s in enumerate(a): s.sendall(b"%d" % i)
print(sorted(int(s.recv(100)) for s in a) == list(range(100)))
END"""}, 60000)
    for i in range(64):  # as many as it relays at a time
        s = give(channel)
        threading.Thread(target=lambda s=s: (s.sendall(s.recv(100)), s.recv(1), s.close()), daemon=True).start()
    channel.settimeout(0.5)
    try:
        channel.recv(8)
        assert False, "more than 64 at a time"
    except TimeoutError:
        pass
    b.c.send({"t": "cancel", "id": id})
    assert b.wait(id).t == "cancelled"


@test
def no_server_no_stream(box):
    b = box({"proxy_port": PORT}, attach=False)
    b.c = b.connect()  # an old server: no channel
    ask = READ + "timeout 20 cat <&3 | head -1 | tr -d '\\r'; exec 3>&-"
    away = "HTTP/1.1 503 the network of this sandbox is away for a moment: try again"
    assert b.bash(ask).text == away
    channel = attach(b)
    id = b.start("bash", {"command": ask})
    assert channel.recv(8) == b"c"
    channel.send(b"n")
    assert b.wait(id).text == away
    id = b.start("bash", {"command": ask})
    assert channel.recv(8) == b"c"
    channel.close()  # while one waits
    assert b.wait(id).text == away
    assert b.bash(ask).text == away
    # The channel goes with its connection; a new one brings another.
    channel = attach(b)
    id = b.start("bash", {"command": READ + "read -r x <&3; echo $x; echo $x >&3; cat <&3; echo end"})
    s = give(channel)
    s.sendall(b"first\n")
    assert s.recv(100) == b"first\n"
    b.c.close()
    channel2 = attach(b)
    assert channel.recv(8) == b""
    s.close()  # the old server's streams end with it
    b.c.send({"t": "status", "id": id})
    assert b.wait(id).text == "first\nend"
    id = b.start("bash", {"command": READ + "cat <&3"})
    s = give(channel2)
    s.sendall(b"second")
    s.close()
    assert b.wait(id).text == "second"


@test
def nothing_of_it_is_the_payloads(box):
    b = box({"proxy_port": PORT}, attach=False)
    channel = attach(b, fds=3)  # more than one is no more than one
    out = b.bash(f"ls /proc/self/fd | tr '\\n' ' '; ls /proc/1/fd 2>&1 | head -3; "
                 f"python3 -c 'import socket; s = socket.socket(); s.bind((\"127.0.0.1\", {PORT}))' 2>&1 | tail -1")
    assert "Permission denied" in out.text and "Address already in use" in out.text, out
    # A version 1 server's descriptor is not taken for a channel.
    b.c.close()
    old = attach(b, proto=1)
    assert eventually(lambda: b.bash(READ + "head -1 <&3").text.startswith("HTTP/1.1 503"))
    channel.close()
    old.close()


@test
def broken_channel_messages(box):
    b = box({"proxy_port": PORT}, attach=False)
    channel = attach(b)
    for i in range(50):  # answers that nobody asked for, with and without a descriptor
        a, c = socket.socketpair()
        socket.send_fds(channel, [b"y"], [c.fileno()])
        c.close()
        assert a.recv(1) == b""
        channel.send(b"n")
    id = b.start("bash", {"command": READ + "cat <&3"})
    s = give(channel)
    s.sendall(b"still fine")
    s.close()
    assert b.wait(id).text == "still fine"


@test
def port_in_the_configuration(box):
    b = box({"proxy_port": 0}, attach=False)
    assert "proxy_port" in b.report and b.ended()
    b = box(attach=False)
    b.c = b.connect()
    assert "refused" in b.bash(f"(exec 3<>/dev/tcp/127.0.0.1/{PORT}) 2>&1").text
