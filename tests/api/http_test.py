"""HTTP itself, by hand: framing, pipelines, keep-alive, limits, and bytes that are no HTTP at all."""
import os
import random
import socket
import threading
import time

from kit import equal, test, true


def head(w, line, *more, key=True):
    lines = [line, "host: x"] + ([f"authorization: Bearer {w.key}", "anthropic-version: 2023-06-01", "anthropic-beta: managed-agents-2026-04-01"] if key else [])
    return ("\r\n".join(lines + list(more)) + "\r\n\r\n").encode()


def alive(w):
    equal(w.get("/health").json["status"], "ok")
    w.ok("GET", "/v1/agents?limit=1")


def status(out):
    true(out.startswith(b"HTTP/1."), f"no answer: {out[:100]!r}")
    return int(out.split(b" ", 2)[1])


@test
def garbage_on_the_port(w):
    rng = random.Random(20261123)
    cases = [b"", b"\0", b"\r\n", b"\r\n" * 10000, b"GET", b"GET /", b"GET / HTTP/1.1", b"\xff" * 100000, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),
             b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(200), b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\nhost: x\n\n", b"GET  /  HTTP/1.1\r\n\r\n",
             b"get / HTTP/1.1\r\n\r\n", b"G\0T / HTTP/1.1\r\n\r\n", b"GET /\x01 HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /" + b"a" * 1000000 + b" HTTP/1.1\r\n\r\n",
             b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 1000000 + b"\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100000 + b"\r\n", b"SSH-2.0-OpenSSH_9.2\r\n",
             b"\x05\x01\x00", b"{\"jsonrpc\":\"2.0\"}", b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
             b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n", b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
             b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
             b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
             b"POST /v1/agents HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"GET / HTTP/1.1\r\na b: c\r\n\r\n"]
    cases += [rng.randbytes(rng.randrange(1, 3000)) for _ in range(100)]
    good = head(w, "GET /v1/agents?limit=1 HTTP/1.1")
    for _ in range(100):  # a good request with some bytes changed
        b = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            b[rng.randrange(len(b))] = rng.randrange(256)
        cases.append(bytes(b))
    for c in cases:
        out = w.raw(c, 3)
        if out:
            true(out.startswith(b"HTTP/1.1 "), f"{c[:60]!r}: {out[:100]!r}")
    alive(w)


@test
def garbage_bodies(w):
    rng = random.Random(7)
    for path in ("/v1/agents", "/v1/sessions", "/v1/environments", "/v1/files"):
        for _ in range(30):
            body = rng.randbytes(rng.randrange(1, 2000))
            r = w.ask("POST", path, body=body, headers={"content-type": rng.choice(["application/json", "multipart/form-data; boundary=x", "text/plain"])})
            true(400 <= r.status < 500, f"{path} {body[:40]!r}: {r.status}")
    good = b'{"name":"x","model":"claude-opus-4-7","tools":[{"type":"agent_toolset_20260401","configs":[{"name":"bash"}]}],"metadata":{"a":"b"}}'
    for _ in range(300):
        b = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            b[rng.randrange(len(b))] = rng.randrange(256)
        r = w.ask("POST", "/v1/agents", body=bytes(b), headers={"content-type": "application/json"})
        true(r.status == 200 or 400 <= r.status < 500, f"{bytes(b)!r}: {r.status} {r.body[:200]!r}")
    alive(w)


@test
def garbage_queries(w):
    rng = random.Random(8)
    for _ in range(200):
        q = "".join(rng.choice("limit=&page[]%2order.created_at[gte]5B\u00e9") for _ in range(rng.randrange(1, 60))).encode()
        out = w.raw(head(w, "GET /v1/agents?HERE HTTP/1.1", "connection: close").replace(b"HERE", q.replace(b" ", b"")))
        true(not out or status(out) in (200, 400), f"{q!r}: {out[:100]!r}")
    for q in ("limit=%", "limit=%4", "limit=%zz", "page=%00", "a=" + "b" * 20000, "&&&&", "=", "[]=1", "created_at=1", "created_at[gte][x]=1", "limit[]=1", "limit=1&limit=2"):
        true(w.get("/v1/agents?" + q).status in (200, 400, 414, 431), q[:40])
    alive(w)


@test
def keep_alive(w):
    c = w.connect()
    seen = set()
    for i in range(50):
        r = w.ask("GET", f"/v1/agents?limit={1 + i % 3}", connection=c)
        equal(r.status, 200)
        seen.add(id(c.sock))
    r = w.ask("POST", "/v1/agents", {"model": "m"}, connection=c)
    equal(r.status, 400, "an error keeps the connection")
    equal(w.ask("GET", "/v1/nothing", connection=c).status, 404)
    equal(w.ask("GET", "/v1/agents", connection=c).status, 200)
    equal(len(seen), 1, "one connection")
    c.close()


@test
def connection_close_and_old_clients(w):
    out = w.raw(head(w, "GET /v1/agents?limit=1 HTTP/1.1", "connection: close"), half_close=False)
    equal(status(out), 200)
    true(b"connection: close" in out.lower(), out[:300])
    out = w.raw(head(w, "GET /v1/agents?limit=1 HTTP/1.0"), half_close=False)
    equal(status(out), 200, "HTTP/1.0 ends with the connection")


@test
def pipelines(w):
    one = head(w, "GET /health HTTP/1.1", key=False)
    out = w.raw(one * 20 + head(w, "GET /v1/nothing HTTP/1.1", "connection: close"), half_close=False)
    equal((out.count(b"HTTP/1.1 200 OK"), out.count(b"HTTP/1.1 404")), (20, 1))
    body = b'{"name":"piped","model":"m"}'
    post = head(w, "POST /v1/agents HTTP/1.1", f"content-length: {len(body)}", "content-type: application/json") + body
    out = w.raw(post * 3 + head(w, "GET /v1/agents?limit=3 HTTP/1.1", "connection: close"), half_close=False)
    equal(out.count(b'"name":"piped"'), 6, "in order: made, then listed")


@test
def requests_in_small_pieces(w):
    body = b'{"name":"slow","model":"m"}'
    data = head(w, "POST /v1/agents HTTP/1.1", f"content-length: {len(body)}", "connection: close") + body
    with socket.create_connection((w.host, w.port), timeout=10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(data), 3):
            s.sendall(data[i:i + 3])
        out = b""
        while True:
            got = s.recv(65536)
            if not got:
                break
            out += got
    equal(status(out), 200)


@test
def chunked_bodies(w):
    def send(pieces, *more):
        return w.raw(head(w, "POST /v1/agents HTTP/1.1", "transfer-encoding: chunked", "connection: close") + b"".join(pieces) + b"".join(more), half_close=False)
    chunk = lambda b: b"%x\r\n%s\r\n" % (len(b), b)
    equal(status(send([chunk(b'{"name":'), chunk(b'"c","mod'), chunk(b'el":"m"}'), b"0\r\n\r\n"])), 200)
    equal(status(send([b'8;ext="x"\r\n{"name":\r\n', chunk(b'"c","model":"m"}'), b"0\r\ntrailer: x\r\n\r\n"])), 200)


@test
def expect_100_continue(w):
    body = b'{"name":"expected","model":"m"}'
    with socket.create_connection((w.host, w.port), timeout=10) as s:
        s.sendall(head(w, "POST /v1/agents HTTP/1.1", f"content-length: {len(body)}", "expect: 100-continue", "connection: close"))
        first = s.recv(1000)
        true(first.startswith(b"HTTP/1.1 100"), first)
        s.sendall(body)
        out = first[first.index(b"\r\n\r\n") + 4:]
        while True:
            got = s.recv(65536)
            if not got:
                break
            out += got
    equal(status(out), 200)


@test
def a_client_that_leaves(w):
    before = len(w.all("/v1/agents?limit=100"))
    body = b'{"name":"gone","model":"m"}'
    for cut in (10, 100, 200, 260):
        s = socket.create_connection((w.host, w.port))
        s.sendall((head(w, "POST /v1/agents HTTP/1.1", f"content-length: {len(body)}") + body)[:-cut % 300][:-1])
        s.close()
    for _ in range(20):
        s = socket.create_connection((w.host, w.port))
        s.sendall(head(w, "GET /v1/agents?limit=100 HTTP/1.1"))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()  # with a reset
    alive(w)
    equal(len(w.all("/v1/agents?limit=100")), before, "half a request makes nothing")


@test
def many_connections(w):
    socks = []
    try:
        for _ in range(300):
            s = socket.create_connection((w.host, w.port), timeout=10)
            s.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n")  # not whole
            socks.append(s)
        began = time.monotonic()
        alive(w)
        true(time.monotonic() - began < 5, "others are served meanwhile")
    finally:
        for s in socks:
            s.close()


@test
def requests_from_many_threads(w):
    errors = []

    def work(i):
        try:
            c = w.connect()
            for k in range(20):
                a = w.ask("POST", "/v1/agents", {"name": f"t{i}-{k}", "model": "m"}, connection=c).json
                equal(w.ask("GET", f"/v1/agents/{a['id']}", connection=c).json["name"], f"t{i}-{k}")
            c.close()
        except Exception as e:  # told by the main thread
            errors.append(e)
    ts = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    true(not errors, errors[:1])


@test
def header_names_have_no_case(w):
    r = w.ask("GET", "/v1/agents?limit=1", headers={"authorization": None, "AUTHORIZATION": f"Bearer {w.key}", "anthropic-version": None,
                                                    "Anthropic-Version": "2026-10-21", "anthropic-beta": None, "ANTHROPIC-BETA": "managed-agents-2026-04-01"})
    equal(r.status, 200)


@test
def secrets_are_not_echoed(w):
    r = w.ask("GET", "/v1/agents", headers={"authorization": "Bearer sk-mr-planted-secret-000"})
    true(b"planted-secret" not in r.body, r.body)
    if w.server:
        true("planted-secret" not in w.server.log(), "in the log")
