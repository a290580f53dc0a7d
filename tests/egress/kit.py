"""Real sandboxes with a network, servers on this machine for them, and a test's bookkeeping.

Everything listens on a loopback address of this run's own (127.x.y.z), so that ports 80 and 443 are free on it and two
runs beside each other do not meet. Names are answered by a resolver inside tests/sandbox/box; nothing leaves the
machine but in the tests that say so.
"""
import base64, http.server, json, os, random, shutil, socket, ssl, subprocess, sys, tempfile, threading, time, traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("MOONRIG_BUILD", os.path.join(TOP, "build"))
BOX = os.path.join(BUILD, "tests/sandbox/box")
LIMIT = 120  # seconds for whatever is waited for
ROOT = os.getuid() == 0

r = random.Random(os.getpid() ^ time.time_ns())
GOOD = f"127.{r.randint(1, 200)}.{r.randint(1, 250)}.{r.randint(1, 250)}"  # what the operator lists
OWN = GOOD.rsplit(".", 1)[0] + ".251"  # listed as well; the server's own listeners count as there
TMP = tempfile.mkdtemp(prefix="moonrig-egress.")
os.chmod(TMP, 0o755)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *a):
        pass

    def answer(self):
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while True:
                n = int(self.rfile.readline().split(b";")[0], 16)
                body += self.rfile.read(n)
                self.rfile.readline()
                if not n:
                    break
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, list(self.headers.items()), body))
        kind = self.path.split("?")[0]
        if kind == "/redirect":
            self.send_response(302)
            self.send_header("Location", self.path.split("?to=")[1])
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif kind == "/big":
            self.send_response(200)
            self.send_header("Content-Length", str(8 << 20))
            self.end_headers()
            for i in range(128):
                self.wfile.write(bytes([i]) * 65536)
        elif kind == "/chunks":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i in range(50):
                self.wfile.write(b"5\r\nline\n\r\n")
            self.wfile.write(b"0\r\n\r\n")
        elif kind == "/close":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(b"until the end\n")
            self.close_connection = True
        elif kind == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 10)
            self.close_connection = True
        elif kind == "/none":
            self.send_response(204)
            self.end_headers()
        elif kind == "/two":
            self.send_response(200)
            self.send_header("Set-Cookie", "a=1")
            self.send_header("Set-Cookie", "b=2")
            self.send_header("Connection", "x-hop, keep-alive")
            self.send_header("X-Hop", "1")
            self.send_header("Content-Length", "3")
            self.end_headers()
            self.wfile.write(b"two")
        else:
            text = f"{self.server.mark} {self.command} {self.path} host={self.headers.get('Host')} body={len(body)}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = do_DELETE = answer


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def __init__(self, mark, address, port=0, cert=None):
        super().__init__((address, port), Handler)
        self.mark, self.seen, self.hits, self.cert = mark, [], 0, None
        self.port = self.server_address[1]
        if cert:
            self.cert = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.cert.load_cert_chain(*cert)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def finish_request(self, request, client_address):
        self.hits += 1
        if self.cert:
            request = self.cert.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *a):
        pass


def certificate(name):
    """A self-signed certificate and its key, made by openssl."""
    cert, key = os.path.join(TMP, name + ".pem"), os.path.join(TMP, name + ".key")
    if not os.path.exists(cert):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-days", "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:" + name, "-keyout", key,
                        "-out", cert], check=True, capture_output=True)
    return cert, key


class Box:
    """A driver and its sandboxes, in a process of their own (tests/sandbox/box.c)."""

    def __init__(self, user=False, dir=None, **options):
        self.dir = dir or tempfile.mkdtemp(dir=TMP)
        if user and ROOT:
            options["user"] = 1500
        self.log = []
        self.p = subprocess.Popen([BOX, self.dir, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, errors="replace")
        self.reader = threading.Thread(target=lambda: [self.log.append(line.rstrip()) for line in self.p.stderr], daemon=True)
        self.reader.start()

    def ask(self, **line):
        self.p.stdin.write(json.dumps(line) + "\n")
        self.p.stdin.flush()
        out = self.p.stdout.readline()
        assert out, "box ended: " + "\n".join(self.log[-20:])
        return json.loads(out)

    def sh(self, command, session="sesn_a", network=None, timeout_ms=LIMIT * 1000):
        a = self.ask(session=session, network=network or {}, command=command, timeout_ms=timeout_ms)
        assert a["code"] == 0, (a, self.log[-10:])
        return a["text"]

    def raw(self, requests, session="sesn_a", network=None):
        """Sends bytes to the proxy from inside, each on a connection of its own; what came back. A request is bytes, or
        a list: bytes to send, then (the answer to the first) further bytes, or ("tls", server name, bytes)."""
        code = INSIDE % (base64.b64encode(json.dumps([encode(q) for q in requests]).encode()).decode(),)
        text = self.sh("/usr/bin/python3 - <<'END'\n" + code + "\nEND\n", session, network)
        start = text.find("RAW ")
        assert start >= 0, text
        return [base64.b64decode(x).decode("latin-1") for x in json.loads(text[start + 4:].split("\n")[0])]

    def close(self):
        self.p.stdin.close()
        self.p.wait(LIMIT)
        self.reader.join(LIMIT)
        assert self.p.returncode == 0, (self.p.returncode, self.log[-40:])

    def kill(self):
        self.p.kill()
        self.p.wait()


def encode(q):
    if isinstance(q, bytes):
        q = [q]
    return [base64.b64encode(x).decode() if isinstance(x, bytes) else ["tls", x[1], base64.b64encode(x[2]).decode()] for x in q]


# Runs inside. AUTH in a request becomes the proxy's password line.
INSIDE = r"""
import base64, json, os, re, socket, ssl, sys
user = re.match("http://(.*)@", os.environ["http_proxy"])[1]
auth = b"Proxy-Authorization: Basic " + base64.b64encode(user.encode()) + b"\r\n"
def all_of(s):
    got = b""
    try:
        while len(got) < 300000:
            x = s.recv(65536)
            if not x: break
            got += x
    except OSError as e:
        got += b" ERROR " + str(e).encode()
    return got
def one(parts):
    s = socket.create_connection(("127.0.0.1", 3128), 30)
    s.settimeout(30)
    got = b""
    for i, p in enumerate(parts):
        if i and not got.startswith(b"HTTP/1.1 200"): break
        if isinstance(p, list):
            c = ssl.create_default_context()
            c.check_hostname = False
            c.verify_mode = ssl.CERT_NONE
            try:
                s = c.wrap_socket(s, server_hostname=p[1] or None)
            except (OSError, ssl.SSLError) as e:
                return got + b" TLS " + str(e).encode()
            s.sendall(base64.b64decode(p[2]))
        else:
            try:
                s.sendall(base64.b64decode(p).replace(b"AUTH\r\n", auth))
            except OSError as e:
                got += b" SEND " + str(e).encode()
        if i + 1 < len(parts) and not i:
            while b"\r\n\r\n" not in got:
                x = s.recv(1)
                if not x: break
                got += x
    return got + all_of(s)
out = []
for q in json.loads(base64.b64decode("%s")):
    try:
        out.append(base64.b64encode(one(q)).decode())
    except Exception as e:
        out.append(base64.b64encode(b"EXCEPTION " + repr(e).encode()).decode())
print("RAW " + json.dumps(out))
"""

tests = []


def test(fn):
    tests.append(fn)
    return fn


def skip(why):
    raise Skip(why)


class Skip(Exception):
    pass


def main(names):
    failed = ran = 0
    for fn in tests:
        if names and not any(n in fn.__name__ for n in names):
            continue
        ran += 1
        try:
            fn()
            print("ok", fn.__name__, flush=True)
        except Skip as e:
            print("skip", fn.__name__, "#", e, flush=True)
        except Exception:
            failed += 1
            print("not ok", fn.__name__)
            print("".join("  " + line + "\n" for line in traceback.format_exc()[-6000:].splitlines()), end="", flush=True)
    shutil.rmtree(TMP, ignore_errors=True)
    if not ran:
        print("not ok none\n  no test has such a name")
    return 1 if failed or not ran else 0
