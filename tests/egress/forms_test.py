"""The tables: forms of URLs and of CONNECT, names and addresses, framings; each with what must come of it. Numbers in
names are those of the attacks in tests/sandbox/README.md."""
from kit import GOOD, OWN, ROOT, Box, Server, certificate, skip, test

bad = Server("SECRET", "127.0.0.1")  # loopback: nobody may reach it
P = bad.port
good = Server("good", GOOD, P)
own = Server("OWN", OWN, P)
plain = Server("plain", GOOD, 80) if ROOT else None
tls = Server("tls", GOOD, 443, certificate("allowed.test")) if ROOT else None
RESOLVER = {
    "allowed.test": [[GOOD]], "x.wild.test": [[GOOD]], "wild.test": [[GOOD]], "xwild.test": [[GOOD]],
    "denied.test": [[GOOD]], "loop.test": [["127.0.0.1"]], "own.test": [[OWN]], "meta.test": [["169.254.169.254"]],
    "rebind.test": [[GOOD], ["127.0.0.1"]], "mixed.test": [["127.0.0.1", GOOD]], "six.test": [["::1"]],
    "mapped.test": [["::ffff:127.0.0.1"]], "nat64.test": [["64:ff9b::7f00:1"]], "localhost": [["127.0.0.1", "::1"]],
    "blocked.test": [[GOOD]], "named.test": [["127.0.0.1"]],
}
OPTIONS = dict(allow_private=[GOOD, OWN, "named.test"], ports=[[P, P]], own_ports=[], blocked_hosts=["blocked.test"],
               package_hosts=[], resolver=RESOLVER, debug=True)
LIMITED = dict(limited=True, hosts=["allowed.test", "*.wild.test", "loop.test", "rebind.test", GOOD, "blocked.test"])
OPEN = dict(limited=False)


def get(url, host=None, extra="", method="GET", body=""):
    h = url.split("//", 1)[-1].split("/")[0].split("?")[0].split("#")[0] if host is None else host
    return f"{method} {url} HTTP/1.1\r\nHost: {h}\r\nAUTH\r\n{extra}\r\n{body}".encode()


def connect(to, host=None, extra=""):
    return f"CONNECT {to} HTTP/1.1\r\nHost: {to if host is None else host}\r\nAUTH\r\n{extra}\r\n".encode()


def status(answer):
    return int(answer[9:12]) if answer.startswith("HTTP/1.1 ") else 0


def check(box, rows, network, session):
    answers = box.raw([q for q, _, _ in rows], session, network)
    wrong = []
    for (q, want, text), a in zip(rows, answers):
        if status(a) != want or (text and text not in a) or "SECRET" in a or "OWN " in a:
            wrong.append(f"{q!r}\n    wanted {want} {text!r}, got {a[:400]!r}")
    assert not wrong, "\n".join(wrong)


def both(fn):
    """As root, each sandbox with a host uid of its own, and as an ordinary user."""
    def run(user):
        box = Box(user=user, **OPTIONS)
        try:
            fn(box)
        finally:
            box.close()
    for user in (False, True) if ROOT else (True,):
        def one(user=user):
            run(user)
        one.__name__ = ("user_" if user else "root_") + fn.__name__
        test(one)


@both
def a33_urls_limited(box):
    n = int.from_bytes(bytes(map(int, GOOD.split("."))), "big")
    a, b, c, d = GOOD.split(".")
    no = "is not in this environment's allowed_hosts"
    check(box, [
        (get(f"http://allowed.test:{P}/a?b=c"), 200, f"good GET /a?b=c host=allowed.test:{P}"),
        (get(f"HTTP://ALLOWED.Test:{P}/"), 200, f"host=allowed.test:{P}"),
        (get(f"http://allowed.test.:{P}/"), 200, f"host=allowed.test:{P}"),
        (get(f"http://allowed.test:{P}"), 200, "good GET / "),
        (get(f"http://allowed.test:{P}?q"), 200, "good GET /?q "),
        (get(f"http://x.wild.test:{P}/"), 200, "good"),
        (get(f"http://wild.test:{P}/"), 403, "host wild.test " + no),
        (get(f"http://xwild.test:{P}/"), 403, no),
        (get(f"http://denied.test:{P}/"), 403, "host denied.test " + no),
        (get(f"http://allowed.test.denied.test:{P}/"), 403, no),
        (get(f"http://{GOOD}:{P}/"), 200, "good"),
        (get(f"http://{n}:{P}/"), 200, f"host={GOOD}:{P}"),
        (get(f"http://0x{n:x}:{P}/"), 200, f"host={GOOD}:{P}"),
        (get(f"http://0{int(a):o}.{b}.{c}.{d}:{P}/"), 200, "good"),
        (get(f"http://{a}.{b}.{int(c) * 256 + int(d)}:{P}/"), 200, "good"),
        (get(f"http://[::ffff:{GOOD}]:{P}/"), 200, "good"),
        (get(f"http://127.0.0.1:{P}/"), 403, "host 127.0.0.1 " + no),
        (get(f"http://2130706433:{P}/"), 403, "host 127.0.0.1 " + no),
        (get(f"http://user:pw@allowed.test:{P}/", "allowed.test"), 400, "user name"),
        (get(f"http://allowed.test@denied.test:{P}/", "denied.test"), 400, "user name"),
        (get(f"http://denied.test:{P}#allowed.test/", f"denied.test:{P}"), 400, ""),
        (get(f"http://denied.test:{P}/#allowed.test", f"denied.test:{P}"), 400, ""),
        (get(f"http://denied.test:{P}?.allowed.test/"), 403, no),
        (get(f"http://denied.test\\.allowed.test:{P}/"), 400, ""),
        (get(f"http://denied.test%2f.allowed.test:{P}/"), 400, "character"),
        (get(f"http://allowed.test%00.denied.test:{P}/"), 400, "character"),
        (f"GET http://allowed.test\0.denied.test:{P}/ HTTP/1.1\r\nHost: allowed.test\r\nAUTH\r\n\r\n".encode(), 400, "NUL"),
        ("GET http://\uff11\uff12\uff17.0.0.1/ HTTP/1.1\r\nHost: x\r\nAUTH\r\n\r\n".encode(), 400, ""),
        ("GET http://\u0430llowed.test/ HTTP/1.1\r\nHost: x\r\nAUTH\r\n\r\n".encode(), 400, ""),
        (get(f"http://xn--llowed-4ve.test:{P}/"), 403, no),
        (get(f"http://allowed..test:{P}/"), 400, "label"),
        (get(f"http://.allowed.test:{P}/"), 400, "label"),
        (get(f"http://:{P}/"), 400, ""),
        (get("http:///x", "allowed.test"), 400, ""),
        (get(f"http://allowed.test:{P}x/", "allowed.test"), 400, ""),
        (get("http://allowed.test:/", "allowed.test"), 400, "port"),
        (get("http://allowed.test:0/"), 400, "port"),
        (get("http://allowed.test:65616/"), 400, "port"),
        (get("http://allowed.test:22/"), 403, "port 22 of allowed.test is not open"),
        (get("https://allowed.test/"), 400, "CONNECT"),
        (get("ftp://allowed.test/"), 400, ""),
        (get("file:///etc/passwd", ""), 400, ""),
        (get("gopher://allowed.test/"), 400, ""),
        (get("/", "allowed.test"), 400, ""),
        (get("*", "allowed.test", method="OPTIONS"), 400, ""),
        (get(f"http://blocked.test:{P}/"), 403, "blocked by the operator"),
        (get(f"http://loop.test:{P}/"), 403, "host loop.test is at 127.0.0.1, which is not a public address"),
    ], LIMITED, "sesn_lim")


@both
def a33_addresses_unrestricted(box):
    hosts = ["127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1", "017700000001", "0",
             "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:7f00:1]",
             "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00:ec2::254]", "[fe80::1]", "169.254.169.254",
             "0xa9fea9fe", "10.0.0.1", "192.168.0.1", "172.16.0.1", "100.64.0.1", "224.0.0.1", "255.255.255.255",
             "127.0.0.1.", "127.0.0.1..", "localhost", "LOCALHOST.", "loop.test", "meta.test", "six.test", "mapped.test",
             "nat64.test"]
    rows = []
    for h in hosts:
        if h == "127.0.0.1..":
            rows.append((get(f"http://{h}:{P}/"), 400, ""))
            continue
        rows.append((get(f"http://{h}:{P}/"), 403, "not a public address"))
        rows.append((connect(f"{h}:443"), 403, "not a public address"))
    rows += [(get("http://256.0.0.1/"), 400, "IPv4"), (get("http://1.2.3.4.5/"), 400, "IPv4"), (get("http://0x/"), 403, ""),
             (get("http://09.0.0.1/"), 400, "IPv4"), (get("http://127.0.0.0x1g/"), 502, "does not exist"),
             (get("http://[fe80::1%25lo]/"), 400, "IPv6"), (get("http://[::1/"), 400, ""), (get("http://::1/"), 400, ""),
             (get("http://nowhere.test/"), 502, "host nowhere.test does not exist"),
             (get(f"http://named.test:{P}/"), 0, "")]
    named = rows.pop()
    check(box, rows, OPEN, "sesn_open")
    assert bad.hits == 0 or bad.seen == [], bad.seen
    a = box.raw([named[0]], "sesn_open", OPEN)[0]  # listed by its name: then any address of it is fine
    assert status(a) == 200 and f"SECRET GET / host=named.test:{P}" in a, a
    bad.seen.clear()


@both
def a31_rebinding(box):
    q = get(f"http://rebind.test:{P}/")
    a, b, c = box.raw([q, q, q], "sesn_lim", LIMITED)
    assert status(a) == 200 and "good" in a, a
    assert status(b) == status(c) == 403 and "127.0.0.1" in b and "SECRET" not in b + c, (b, c)
    looked = [line for line in box.log if line.startswith("lookup rebind.test")]
    assert len(looked) == 3, looked  # one look-up each: what was checked was dialled
    m = box.raw([get(f"http://mixed.test:{P}/")] * 3, "sesn_open", OPEN)
    assert all(status(x) == 200 and "good" in x for x in m), m  # the address that may not be dialled is passed over


@both
def a34_connect(box):
    if not ROOT:
        skip("ports 80 and 443 are root's")
    inner = b"GET /in HTTP/1.1\r\nHost: allowed.test\r\nConnection: close\r\n\r\n"
    no = "is not in this environment's allowed_hosts"
    check(box, [
        ([connect("allowed.test:443"), ("tls", "allowed.test", inner)], 200, "tls GET /in"),
        ([connect("ALLOWED.test.:443"), ("tls", "Allowed.Test", inner)], 200, "tls GET /in"),
        ([connect("allowed.test:443", "allowed.test"), ("tls", "allowed.test", inner)], 200, "tls GET /in"),
        ([connect("x.wild.test:443"), ("tls", "x.wild.test", inner)], 200, "tls GET /in"),
        ([connect("allowed.test:443"), ("tls", "denied.test", inner)], 200, " TLS "),
        ([connect("allowed.test:443"), ("tls", "", inner)], 200, " TLS "),
        ([connect("x.wild.test:443"), ("tls", "allowed.test", inner)], 200, " TLS "),
        (connect("denied.test:443"), 403, no),
        (connect("allowed.test:22"), 403, "port 22"),
        (connect("allowed.test:25"), 403, "port 25"),
        (connect("allowed.test"), 400, "port"),
        (connect("allowed.test:"), 400, ""),
        (connect("allowed.test:0"), 400, "port"),
        (connect("allowed.test:443443"), 400, ""),
        (connect("http://allowed.test:443/"), 400, ""),
        (connect("u@allowed.test:443", "allowed.test:443"), 400, ""),
        (connect("allowed.test:443", "denied.test:443"), 400, ""),
        (connect("denied.test:443", "allowed.test:443"), 400, ""),
        (connect("allowed.test:443", extra="Content-Length: 5\r\n"), 400, ""),
        (connect("loop.test:443"), 403, "127.0.0.1"),
        (connect("127.0.0.1:443"), 403, ""),
        (connect("[::1]:443"), 403, ""),
        # Inside a tunnel there is HTTP for that host, or TLS for it, and nothing else.
        ([connect("allowed.test:80"), inner], 200, "plain GET /in host=allowed.test"),
        ([connect("allowed.test:80"), inner.replace(b"allowed", b"denied")], 200, "400 Bad Request"),
        ([connect("allowed.test:80"), b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n"], 200, "400 Bad"),
        ([connect("allowed.test:80"), b"CONNECT denied.test:443 HTTP/1.1\r\nHost: denied.test:443\r\n\r\n"], 200, "400 Bad"),
        ([connect("allowed.test:80"), b"CONNECT allowed.test:80 HTTP/1.1\r\nHost: allowed.test:80\r\n\r\n"], 200, "400 Bad"),
        ([connect("allowed.test:443"), b"SSH-2.0-x\r\n\r\n"], 200, "400 Bad"),
        ([connect("allowed.test:443"), b"\x16\x03\x01\x00\x05hello"], 200, "\x15\x03\x01"),
    ], LIMITED, "sesn_lim")
    # In an unrestricted environment a tunnel may carry anything, but TLS names whom it was opened to.
    check(box, [
        ([connect("allowed.test:443"), ("tls", "allowed.test", inner)], 200, "tls GET /in"),
        ([connect("allowed.test:443"), ("tls", "other.test", inner)], 200, " TLS "),
        ([connect(f"{GOOD}:443"), ("tls", "", inner)], 200, "tls GET /in"),
        ([connect(f"{GOOD}:443"), ("tls", "allowed.test", inner)], 200, " TLS "),
        ([connect("allowed.test:80"), inner], 200, "plain GET /in"),
    ], OPEN, "sesn_open")


@both
def a34_smuggling(box):
    post = f"POST http://allowed.test:{P}/ HTTP/1.1\r\nHost: allowed.test:{P}\r\nAUTH\r\n"
    host = f"allowed.test:{P}"
    good.seen.clear()
    rows = [
        (post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
        (post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
        (post + "Content-Length: 5, 5\r\n\r\nhello", 400),
        (post + "Content-Length: +5\r\n\r\nhello", 400),
        (post + "Content-Length: 0x5\r\n\r\nhello", 400),
        (post + "Content-Length: -1\r\n\r\n", 400),
        (post + "Content-Length: 99999999999999999999\r\n\r\n", 400),
        (post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        (post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        (post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (post + "Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (post + "X: a\r\n b\r\n\r\n", 400),
        (post + "X: a\r\n\tTransfer-Encoding: chunked\r\n\r\n", 400),
        (post + "X: a\nY: b\r\n\r\n", 400),
        (post + "X: a\rY: b\r\n\r\n", 400),
        (post + "X: a\0b\r\n\r\n", 400),
        (post + "X Y: b\r\n\r\n", 400),
        (post + ": b\r\n\r\n", 400),
        (post + "Host: denied.test\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nHost: denied.test:{P}\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nHost: allowed.test:{P + 1}\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nHost: denied.test@allowed.test\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/2.0\r\nHost: {host}\r\nAUTH\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1 \r\nHost: {host}\r\nAUTH\r\n\r\n", 400),
        (f"FROB http://{host}/ HTTP/1.1\r\nHost: {host}\r\nAUTH\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nAUTH\r\n" + "X: y\r\n" * 200 + "\r\n", 400),
        (f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nAUTH\r\nX: " + "y" * 40000 + "\r\n\r\n", 400),
    ]
    check(box, [(q.encode("latin-1"), want, "") for q, want in rows], LIMITED, "sesn_lim")
    assert good.seen == [], good.seen
    # A body is framed anew, a second request behind the first goes nowhere, hop-by-hop fields stay here.
    second = f"GET http://{host}/second HTTP/1.1\r\nHost: {host}\r\nAUTH\r\n\r\n"
    check(box, [
        ((post + "Connection: X-Gone, close\r\nX-Gone: 1\r\nX-Kept: 2\r\nProxy-X: 3\r\nTE: trailers\r\nUpgrade: h2c\r\n"
          "Content-Length: 5\r\n\r\nhello" + second).encode(), 200, "body=5"),
        ((post + "Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0002\r\nde\r\n0\r\nTrailer: x\r\n\r\n" + second).encode(), 200, "body=5"),
        ((post + "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nok").encode(), 100, "body=2"),
    ], LIMITED, "sesn_lim")
    assert [s[1] for s in good.seen] == ["/"] * 3, good.seen
    names = [k.lower() for k, _ in good.seen[0][2]]
    assert "x-kept" in names and not {"x-gone", "te", "upgrade", "proxy-authorization"} & set(names), names
    assert names.count("host") == 1 and ("Connection", "close") in good.seen[0][2], good.seen[0][2]
    good.seen.clear()


@both
def a36_tokens(box):
    import re
    ours = box.sh("echo $http_proxy", "sesn_lim", LIMITED)
    other = box.sh("echo $http_proxy", "sesn_other", OPEN)
    token = [re.match(r"http://moonrig:([0-9a-f]{32})@127.0.0.1:3128", x)[1] for x in (ours, other)]
    assert token[0] != token[1]
    import base64
    def q(user):
        line = "Proxy-Authorization: Basic " + base64.b64encode(user.encode()).decode() + "\r\n" if user else ""
        return f"GET http://denied.test:{P}/ HTTP/1.1\r\nHost: denied.test:{P}\r\n{line}\r\n".encode()
    check(box, [(q(None), 407, "Proxy-Authenticate: Basic"), (q("moonrig:" + token[1]), 407, ""), (q("moonrig:"), 407, ""),
                (q("moonrig:" + token[0][:-1]), 407, ""), (q("moonrig:" + token[0] + "0"), 407, ""), (q(token[0]), 407, ""),
                (q("moonrig:" + token[0]), 403, "")], LIMITED, "sesn_lim")


@test
def a16_own_server():
    box = Box(**dict(OPTIONS, own_ports=[P]))
    check(box, [(get(f"http://own.test:{P}/"), 403, "this server itself"), (get(f"http://{OWN}:{P}/"), 403, "this server itself"),
                (connect(f"{OWN}:{P}"), 403, "this server itself"), (get(f"http://named.test:{P}/"), 403, "this server itself")],
          OPEN, "sesn_open")
    assert own.seen == [] and bad.seen == []
    box.close()
