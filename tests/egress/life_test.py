"""Bodies and answers of every framing, many clients, a server that goes and comes back, and what programs inside see."""
import os, socket, threading, time

from forms_test import GOOD, LIMITED, OPEN, OPTIONS, P, RESOLVER, bad, check, get, good
from kit import LIMIT, ROOT, Box, skip, test


def curl(box, args, session="sesn_open", network=OPEN):
    return box.sh("curl -sS -m 60 " + args + " 2>&1", session, network)


@test
def answers():
    box = Box(**OPTIONS)
    u = f"http://allowed.test:{P}"
    assert curl(box, f"{u}/big | sha256sum") == curl(box, f"{u}/big --limit-rate 20M | sha256sum")
    assert "8388608" in curl(box, f"{u}/big | wc -c")
    assert curl(box, f"{u}/chunks").count("line") == 50
    assert curl(box, f"--http1.0 {u}/chunks").count("line") == 50
    assert "until the end" in curl(box, f"{u}/close")
    cut = curl(box, f"{u}/cut")
    assert "curl: (18)" in cut or "curl: (56)" in cut, cut  # half an answer is not taken for a whole one
    assert "204" in curl(box, f"-o /dev/null -w '%{{http_code}}' {u}/none")
    head = curl(box, f"-I {u}/x")
    assert "HTTP/1.1 200" in head and "good HEAD" not in head, head
    two = curl(box, f"-i {u}/two")
    assert two.count("Set-Cookie") == 2 and "X-Hop" not in two and two.count("Connection") == 1, two
    sent = curl(box, f"-o /dev/null -w '%{{size_upload}}' -T - {u}/put < <(head -c 3000000 /dev/zero)")
    assert len(good.seen[-1][3]) == 3000000, sent
    curl(box, f"-o /dev/null -H 'Expect: 100-continue' --data-binary @- {u}/post < <(head -c 2000000 /dev/zero)")
    assert len(good.seen[-1][3]) == 2000000
    # Programs of every kind find the proxy by themselves.
    assert "good GET /py" in box.sh(f"/usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen(\"{u}/py\").read())'", "sesn_open")
    box.close()


@test
def a32_redirects():
    box = Box(**OPTIONS)
    for to in ("http://127.0.0.1/", "http://169.254.169.254/", f"http://loop.test:{P}/", "http://0x7f.1/"):
        a = curl(box, f"--noproxy '' -L 'http://allowed.test:{P}/redirect?to={to}'")
        assert "not a public address" in a and "SECRET" not in a, a
    a = curl(box, f"-L 'http://allowed.test:{P}/redirect?to=http://denied.test:{P}/'", "sesn_lim", LIMITED)
    assert "denied.test is not in this environment's allowed_hosts" in a, a
    box.close()


@test
def a35_no_other_way():
    box = Box(**OPTIONS)
    out = box.sh(r"""/usr/bin/python3 - <<'END'
import socket
for kind, to in ((socket.SOCK_DGRAM, ("192.0.2.53", 53)), (socket.SOCK_DGRAM, ("8.8.8.8", 53)), (socket.SOCK_STREAM, ("8.8.8.8", 443)),
                 (socket.SOCK_STREAM, ("127.0.0.1", %d))):
    s = socket.socket(socket.AF_INET, kind)
    s.settimeout(5)
    try:
        s.connect(to); s.send(b"x"); print("OUT", to)
    except OSError as e:
        print("no", e.errno)
try:
    print("OUT", socket.getaddrinfo("allowed.test", 80))
except OSError as e:
    print("no name")
END
ls /proc/self/fd | tr '\n' ' '; ls -a / /run /run/moonrig 2>&1 | grep -i -E 'sock|egress|proxy|token'; true""" % P, "sesn_open")
    assert "OUT" not in out and out.count("no ") == 5 and "token" not in out, out
    # Names that would carry data out are not even looked up.
    a = curl(box, f"http://{'a' * 60}.{'b' * 60}.exfil.test/", "sesn_lim", LIMITED)
    assert "is not in this environment's allowed_hosts" in a and not [x for x in box.log if "exfil" in x and "lookup" in x], a
    box.close()


@test
def many_clients():
    box = Box(**OPTIONS)
    out = box.sh(f"""/usr/bin/python3 - <<'END'
import socket, threading, urllib.request
idle = [socket.create_connection(("127.0.0.1", 3128)) for _ in range(20)]  # some that say nothing
got = []
def one(i):
    try:
        got.append(urllib.request.urlopen("http://allowed.test:{P}/%d" % i, timeout=100).read())
    except Exception as e:
        got.append(repr(e).encode())
ts = [threading.Thread(target=one, args=(i,)) for i in range(150)]
[t.start() for t in ts]
[t.join() for t in ts]
print(sum(g.startswith(b"good") for g in got), [g for g in got if not g.startswith(b"good")][:3])
END""", "sesn_open")
    assert out.startswith("150 "), out
    # One that takes all the places hurts itself alone: another session goes on.
    box.ask(session="sesn_open", command="""/usr/bin/python3 -c '
import socket, time
a = [socket.create_connection(("127.0.0.1", 3128)) for _ in range(100)]
time.sleep(60)' >/dev/null 2>&1 &""")
    assert "good" in curl(box, f"http://allowed.test:{P}/other", "sesn_lim", LIMITED)
    box.close()


@test
def slow_reader():
    """What nobody reads is not gathered: the sender is stopped instead."""
    box = Box(**OPTIONS)
    s = socket.create_server((GOOD, 0))
    port, sent = s.getsockname()[1], [0]
    def serve():
        c, _ = s.accept()
        c.recv(65536)
        c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        c.settimeout(3)
        try:
            while sent[0] < 200 << 20:
                sent[0] += c.send(b"z" * 65536)
        except OSError:
            pass
        c.close()
    t = threading.Thread(target=serve)
    t.start()
    box.close()
    box = Box(**dict(OPTIONS, ports=[[port, port]]))
    box.ask(session="sesn_open", command=f"""/usr/bin/python3 -c '
import os, re, socket, base64, time
auth = base64.b64encode(re.match("http://(.*)@", os.environ["http_proxy"])[1].encode()).decode()
s = socket.create_connection(("127.0.0.1", 3128))
s.sendall(("GET http://allowed.test:{port}/ HTTP/1.1\\r\\nHost: allowed.test:{port}\\r\\nProxy-Authorization: Basic " + auth + "\\r\\n\\r\\n").encode())
time.sleep(100)' & disown""")
    t.join(LIMIT)
    assert 0 < sent[0] < 100 << 20, sent
    box.close()


@test
def server_away_and_back():
    first = Box(**OPTIONS)
    assert "good" in curl(first, f"http://allowed.test:{P}/1")
    token = first.sh("echo $http_proxy; S=kept", "sesn_open")
    first.ask(session="sesn_open", command="""( until grep -q 503 /workspace/away; do curl -s -m 20 -o /dev/null """
              f"""-w '%{{http_code}}\\n' http://allowed.test:{P}/2 >> /workspace/away; sleep 0.1; done ) >/dev/null 2>&1 &""")
    first.kill()
    away = os.path.join(first.dir, "sandboxes/s/sesn_open/workspace/away")
    end = time.time() + LIMIT
    while "503" not in (open(away).read() if os.path.exists(away) else "") and time.time() < end:
        time.sleep(0.1)
    assert "503" in open(away).read()
    second = Box(dir=first.dir, **OPTIONS)
    assert second.sh("echo $http_proxy", "sesn_open") == token and "kept" in second.sh("echo $S", "sesn_open")
    assert "good" in curl(second, f"http://allowed.test:{P}/3")
    second.ask(restart=True)
    assert "good" in curl(second, f"http://allowed.test:{P}/4")
    second.close()


@test
def no_network_without_the_option():
    box = Box(**dict(OPTIONS, network=False))
    out = box.sh("env | grep -ci proxy; curl -sS -m 5 http://127.0.0.1:3128/ 2>&1", "sesn_open")
    assert out.startswith("0") and "Failed to connect" in out, out
    box.close()


@test
def packages():
    """The registry that this machine reaches: in a limited environment with allow_package_managers and no hosts."""
    try:
        from pip._internal.models.index import PyPI
    except ImportError:
        skip("pip is not installed")
    hosts = {PyPI.netloc, PyPI.file_storage_domain}
    try:
        at = {a[4][0] for h in hosts for a in socket.getaddrinfo(h, 443)}
    except OSError:
        skip("no registry can be reached")
    box = Box(allow_private=sorted(at), debug=True)
    net = dict(limited=True, hosts=[], package_managers=True)
    pip = "cd /tmp; PIP_DISABLE_PIP_VERSION_CHECK=1 timeout 200 /usr/bin/python3 -m pip install --no-input --target /tmp/x "
    out = box.sh(pip + "six 2>&1 && /usr/bin/python3 -c 'import sys; sys.path.insert(0, \"/tmp/x\"); import six; print(six.__file__)'",
                 "sesn_pkg", net, timeout_ms=300000)
    assert "/tmp/x/six.py" in out, out
    out = box.sh(pip + "--retries 0 -i https://elsewhere.example/simple six 2>&1", "sesn_pkg", net)
    assert "host elsewhere.example is not in this environment's allowed_hosts" in out, out
    out = box.sh("curl -sS https://elsewhere.example/ 2>&1", "sesn_pkg", net)
    assert "response 403" in out and "[network] blocked: host elsewhere.example is not in" in out, out
    # Without the leave of the environment the registry is as closed as any host.
    out = box.sh(pip + "--retries 0 six 2>&1", "sesn_none", dict(limited=True, hosts=[]))
    assert "is not in this environment's allowed_hosts" in out and "/six" not in out, out
    box.close()
