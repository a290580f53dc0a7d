#!/usr/bin/env python3
"""A model server for tests: speaks the Messages API and chat completions, streaming; needs only python3.

    messages.py [--port 0] [--tls-cert C --tls-key K] [--key KEY] [--lenient] [--drip]

Prints "listening PORT" and serves 127.0.0.1. What it answers is decided by the request, unless a test has queued
a step that fits it. The newest user text may hold directives; steps are separated by ;; and the k-th reply since that
text plays the k-th:

    [[say TEXT]]              that text; {result} {last} {system} {model} {tools} {messages} are filled in, {bytes N} is
                              so much text (also in a tool's input)
    [[tool NAME {json}]]      a tool call; [[tools A {..} | B {..}]] several at once
    [[think]] [[think TEXT]]  a signed thinking block first; [[redacted]] a redacted one
    [[long N]]                N words
    [[slow N ms]]             a pause between deltas
    [[error 529 x2]]          fails twice, then goes on with the step; without x: always. More words:
                              "type T", "retry SECONDS", "retry-ms MS", "date SECONDS" (retry-after as a date so far
                              ahead), "html" (a page, no JSON); [[error stream T x1]] in mid-stream
    [[cut]] [[hang]]          [[die eof mid]] and [[stall mid]] (x2 as above)
    [[split ..]] [[eol ..]] [[noise]] [[stall ..]] [[die ..]]   on the way: wire.py
    [[refuse [CATEGORY WHY]]] [[refusal TEXT]] [[max]] [[pause]] [[empty]]   other stop reasons; refusal: in the field
                              of this name, where the protocol has it; empty: no block
    [[badtool NAME [TEXT]]] [[unknown]] [[garbage]]   broken tool input; a block of unknown type; a frame of no JSON
    [[usage in=1 out=2 read=3 write=4]]
    [[verdict {json} | {json}]]    nothing for an agent; a grader, which is offered the tool submit_verdict, calls
                              it with the k-th of these the k-th time that it meets this very directive

With no directive left: after tool results "Result: <their text>", else "You said: <text>".
Requests are checked as the real service checks them (tool calls answered at once, no empty text, thinking
unchanged, at most four cache breakpoints, no sampling parameters) and refused with 400; --lenient does not.

    GET /count            {"count": n, "live": streams open now}
    GET /requests?since=n the latest 1,000: [{n, at, path, headers, body, raw, aborted, retry_at}]
    GET /raw?n=N          the body of one, byte for byte
    POST /script          ["[[..]]" or {"do": "[[..]]", "when": {"text": part of the newest user text, "model": its id,
                          "path": the end of the path}}]: steps in a queue; a request takes the first that fits it
    GET /script           the steps that are left
    POST /reset           forgets all of this
"""
import argparse
import email.utils
import hashlib
import http.server
import json
import re
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
from forms import Refused, blocks_of, canonical, check, check_messages, completion_events, message_events, new_id, results_of, sign, text_of  # noqa: E402
from wire import Died, Way, Wire  # noqa: E402

KEEP = 1000
MAX_BODY = 64 << 20
TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
         404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
         504: "timeout_error", 529: "overloaded_error"}
CHAT_TYPES = {401: ("invalid_request_error", "invalid_api_key"), 402: ("insufficient_quota", "insufficient_quota"),
              404: ("invalid_request_error", "model_not_found"), 429: ("requests", "rate_limit_exceeded"),
              529: ("overloaded_error", None)}


def parsed(raw):
    try:
        return json.loads(raw) if raw else None
    except ValueError:
        return None


class State:
    """What the server remembers: requests, failures played, prefixes cached."""

    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.requests, self.raws, self.count, self.live = [], {}, 0, 0
        self.played, self.prefixes, self.script = {}, {}, []

    def record(self, path, headers, raw):
        with self.lock:
            self.count += 1
            r = {"n": self.count, "at": time.time(), "path": path, "headers": headers, "aborted": False, "retry_at": None}
            self.requests.append(r)
            self.raws[self.count] = raw
            self.raws.pop(self.count - KEEP, None)
            del self.requests[:-KEEP]
        return r

    def since(self, n):
        with self.lock:
            found = [(r, self.raws[r["n"]]) for r in self.requests if r["n"] > n]
        return [dict(r, body=parsed(raw), raw=raw.decode("utf-8", "replace")) for r, raw in found]

    def next_step(self, brain, path):
        """The first queued step that fits, taken from the queue; or None."""
        with self.lock:
            for i, s in enumerate(self.script):
                when = s.get("when") or {}
                if when.get("text", "") in brain.text and when.get("model", brain.body.get("model")) == brain.body.get("model") \
                        and path.endswith(when.get("path", "")):
                    return self.script.pop(i)["do"]
        return None

    def play(self, key, times):
        """True while a failure that is to happen so many times (None: always) has to happen again."""
        if times is None:
            return True
        with self.lock:
            n = self.played.get(key, 0)
            if n >= times:
                return False
            self.played[key] = n + 1
            return True

    def cached(self, digests):
        """How many leading messages an earlier request already had."""
        with self.lock:
            best = max((i + 1 for i, d in enumerate(digests) if d in self.prefixes), default=0)
            for d in digests:
                self.prefixes[d] = True
            while len(self.prefixes) > 20000:
                del self.prefixes[next(iter(self.prefixes))]
        return best


# ---------------------------------------------------------------------------------------------- directives

def steps_of(text):
    """[[..]] groups of a text, as a list of steps, each a list of directive strings."""
    steps, i = [[]], 0
    while i < len(text):
        if text.startswith(";;", i):
            steps.append([])
            i += 2
        elif text.startswith("[[", i):
            i = group(text, i + 2, steps)
        else:
            i += 1
    return steps if any(steps) else []


def group(text, i, steps):
    start, depth, quoted = i, 0, False
    while i < len(text):
        c = text[i]
        if quoted:
            if c == "\\":
                i += 1
            elif c == '"':
                quoted = False
        elif depth and c == '"':
            quoted = True
        elif c in "{[":
            depth += 1
        elif depth and c in "}]":
            depth -= 1
        elif not depth and text.startswith("]]", i):
            steps[-1].append(text[start:i].strip())
            return i + 2
        elif not depth and text.startswith(";;", i):
            steps[-1].append(text[start:i].strip())
            steps.append([])
            start, i = i + 2, i + 1
        i += 1
    return i


class Plan:
    """What to answer: blocks, and how."""

    def __init__(self):
        self.blocks, self.stop, self.details = [], None, None
        self.delay, self.error, self.garbage = 0.0, None, False
        self.usage, self.way, self.empty, self.refusal, self.html, self.retry_at = {}, Way(), False, False, False, None

    def text(self, s):
        self.blocks.append({"type": "text", "text": s})


def times_in(words):
    for w in words:
        if re.fullmatch(r"x\d+", w):
            return int(w[1:])
    return None


def filler(n):
    line = "0123456789" * 6 + "abc\n"
    return (line * (n // len(line) + 1))[:n]


def enlarge(v):
    """{bytes N} in the strings of a value."""
    if isinstance(v, str):
        return re.sub(r"\{bytes (\d+)\}", lambda m: filler(int(m[1])), v)
    if isinstance(v, dict):
        return {k: enlarge(x) for k, x in v.items()}
    return [enlarge(x) for x in v] if isinstance(v, list) else v


class Brain:
    def __init__(self, state, body, path):
        self.path = path
        self.state, self.body, self.messages = state, body, body["messages"]
        self.at = max((i for i, m in enumerate(self.messages) if m["role"] == "user" and text_of(m["content"])
                       and not (results_of(m) and "[[" not in text_of(m["content"]))), default=-1)
        self.text = text_of(self.messages[self.at]["content"]) if self.at >= 0 else ""
        self.turn = sum(1 for m in self.messages[self.at + 1:] if m["role"] == "assistant")
        self.results = results_of(self.messages[-1]) if self.messages else []
        self.key = hashlib.sha256(json.dumps([body.get("model"), body.get("system"), self.messages]).encode()).hexdigest()

    def result_text(self):
        return "\n".join(text_of(r.get("content")) for r in self.results)

    def fill(self, s):
        system = self.body.get("system") or ""
        last = self.messages[-1] if self.messages else {"content": ""}
        for name, value in (("result", self.result_text()), ("last", text_of(last["content"])),
                            ("system", text_of(system)), ("model", self.body.get("model", "")),
                            ("tools", ",".join(t.get("name", "") for t in self.body.get("tools") or [])),
                            ("messages", str(len(self.messages)))):
            s = s.replace("{" + name + "}", value)
        return enlarge(s)

    def verdict(self):
        """What a grader is to say, wherever in its request that stands."""
        p, words = Plan(), [text_of(self.body.get("system"))] + [text_of(m["content"]) for m in self.messages]
        given = [d[7:].strip() for step in steps_of(" ".join(words)) for d in step if d.startswith("verdict ")]
        if not given:
            raise Refused(400, "mock: a grader without a verdict")
        values, rest = [], given[0]
        while rest:
            value, end = json.JSONDecoder().raw_decode(rest)
            values.append(value)
            rest = rest[end:].lstrip(" |")
        k = next((k for k in range(len(values)) if self.state.play((given[0], k), 1)), len(values) - 1)
        p.blocks.append({"type": "tool_use", "id": new_id("toolu", self.key), "name": "submit_verdict",
                         "input": values[k]})
        p.stop = "tool_use"
        return p

    def plan(self):
        if any(t.get("name") == "submit_verdict" for t in self.body.get("tools") or []):
            return self.verdict()
        queued = self.state.next_step(self, self.path)
        p, steps = Plan(), steps_of(self.text if queued is None else queued)
        turn = self.turn if queued is None else 0
        step = steps[turn] if turn < len(steps) else []
        for n, directive in enumerate(step):
            word, _, rest = directive.partition(" ")
            self.directive(p, word, rest.strip(), n)
        if p.empty:
            p.stop = p.stop or "end_turn"
        if not p.blocks and p.error is None and not p.stop:
            p.text("Result: " + self.result_text() if self.results else "You said: " + self.text)
        elif all(b["type"] in ("thinking", "redacted_thinking") for b in p.blocks) and not p.stop:
            p.text("Result: " + self.result_text() if self.results else "You said: " + self.text)
        if not p.stop:
            p.stop = "tool_use" if any(b["type"] == "tool_use" for b in p.blocks) else "end_turn"
        return p

    def directive(self, p, word, rest, n):
        key = (self.key, n)
        if word == "say":
            p.text(self.fill(rest))
        elif word == "tool":
            self.tool(p, rest)
        elif word == "tools":
            while rest:
                rest = self.tool(p, rest).lstrip()
                rest = rest[1:].lstrip() if rest.startswith("|") else ""
        elif word == "think":
            t = rest or "Let me think about that."
            p.blocks.insert(0, {"type": "thinking", "thinking": t, "signature": sign(t)})
        elif word == "redacted":
            p.blocks.insert(0, {"type": "redacted_thinking", "data": sign("redacted")})
        elif word == "long":
            p.text(" ".join("w%d" % i for i in range(int(rest))))
        elif word == "slow":
            p.delay = float(rest.split()[0]) / 1000
        elif word == "error":
            self.error(p, rest.split(), key)
        elif word == "cut":
            self.directive(p, "die", "eof mid " + rest, n)
        elif word == "hang":
            self.directive(p, "stall", "mid " + rest, n)
        elif word == "garbage":
            p.garbage = p.garbage or self.state.play(key, times_in(rest.split()))
        elif word == "refuse":
            category, _, why = rest.partition(" ")
            p.stop = "refusal"
            p.details = {"type": "refusal", "category": category or "cyber", "explanation": why or "declined by the mock"}
        elif word == "refusal":
            p.stop, p.refusal = "refusal", True
            p.details = {"type": "refusal", "category": None, "explanation": rest}
        elif word == "empty":
            p.empty = True
        elif word == "max":
            p.stop = "max_tokens"
        elif word == "pause":
            p.stop = "pause_turn"
        elif word == "badtool":
            name, _, given = rest.partition(" ")
            self.tool(p, name + ' {"a":1}')
            p.blocks[-1]["given"] = given or '{"a": 1'
        elif word == "unknown":
            p.blocks.append({"type": "mock_novelty", "data": {"b": [1, 2.5, None], "a": "\u00e9"}})
        elif word == "verdict":
            pass
        elif word == "usage":
            p.usage = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", rest)}
        elif not p.way.directive(word, rest.split(), lambda: self.state.play(key, times_in(rest.split()))):
            raise Refused(400, "mock: unknown directive " + word)

    def tool(self, p, rest):
        name, _, tail = rest.partition(" ")
        tail = tail.lstrip()
        value, end = json.JSONDecoder().raw_decode(tail) if tail.startswith("{") else ({}, 0)
        p.blocks.append({"type": "tool_use", "id": new_id("toolu", self.key, len(p.blocks)), "name": name,
                         "input": enlarge(value)})
        return tail[end:]

    def error(self, p, words, key):
        if p.error or not self.state.play(key, times_in(words)):
            return
        options = {words[i]: words[i + 1] for i in range(len(words) - 1) if words[i] in ("type", "retry", "retry-ms", "date")}
        if words[0] == "stream":
            p.error = ("stream", words[1] if len(words) > 1 and words[1][0] != "x" else "overloaded_error", {})
            return
        status, headers = int(words[0]), {}
        if "retry" in options:
            headers["retry-after"] = options["retry"]
        if "retry-ms" in options:
            headers["retry-after-ms"] = options["retry-ms"]
        if "date" in options:
            p.retry_at = int(time.time()) + int(options["date"])
            headers["retry-after"] = email.utils.formatdate(p.retry_at, usegmt=True)
        p.html = "html" in words
        p.error = (status, options.get("type"), headers)


MARK = re.compile(r',? ?"cache_control": \{[^{}]*\}')


def usage_of(state, body, p):
    def tokens(text):
        return len(text) // 4 + 1
    texts = [json.dumps(m) for m in body["messages"]]
    top = json.dumps([body.get("model"), body.get("tools"), body.get("system")])
    head, read, written = tokens(top), 0, 0
    total = head + sum(map(tokens, texts))
    if "cache_control" in body or '"cache_control"' in top or any('"cache_control"' in t for t in texts):
        h, digests = hashlib.sha256(MARK.sub("", top).encode()), []
        for t in texts:
            h.update((MARK.sub("", t) if "cache_control" in t else t).encode())
            digests.append(h.hexdigest())
        n = state.cached(digests)
        read = head + sum(map(tokens, texts[:n])) if n else 0
        written = max(0, total - read - 4)
    u = p.usage
    read, written = u.get("read", read), u.get("write", written)
    fresh = u.get("in", max(0, total - read - written))
    out = u.get("out", sum(tokens(json.dumps(b)) for b in p.blocks))
    return {"input_tokens": fresh, "cache_creation_input_tokens": written, "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": out, "service_tier": "standard"}


# ---------------------------------------------------------------------------------------------- server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True
    chat = False  # of the request in work

    def log_message(self, *args):
        pass

    @property
    def state(self):
        return self.server.state

    def reply(self, status, value, headers=None):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for k, v in (headers or {}).items():
            self.send_header(k, v)
        self.end_headers()
        self.wfile.write(data)

    def fail(self, status, kind, message, headers=None):
        if self.chat:
            type_, code = (kind, kind) if kind else CHAT_TYPES.get(status, ("server_error" if status >= 500 else
                                                                            "invalid_request_error", None))
            return self.reply(status, {"error": {"message": message, "type": type_, "param": None, "code": code}}, headers)
        kind = kind or TYPES.get(status, "api_error")
        self.reply(status, {"type": "error", "error": {"type": kind, "message": message},
                            "request_id": new_id("req", self.state.count)}, headers)

    def page(self, status):
        """What a proxy in between says."""
        data = b"<html><head><title>%d</title></head>\r\n<body><center><h1>%d Bad Gateway</h1></center></body></html>\r\n" \
            % (status, status)
        self.send_response(status)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/count":
            self.reply(200, {"count": self.state.count, "live": self.state.live})
        elif url.path == "/requests":
            since = int(urllib.parse.parse_qs(url.query).get("since", ["0"])[0])
            self.reply(200, self.state.since(since))
        elif url.path == "/raw":
            data = self.state.raws.get(int(urllib.parse.parse_qs(url.query)["n"][0]), b"")
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        elif url.path == "/script":
            self.reply(200, self.state.script)
        elif url.path == "/v1/models":
            self.reply(200, {"data": [{"id": "mock", "type": "model"}], "has_more": False})
        else:
            self.fail(404, "not_found_error", "not found")

    def do_POST(self):
        try:
            raw = self.body()
            if self.path == "/reset":
                with self.state.lock:
                    self.state.requests.clear()
                    self.state.raws.clear()
                    self.state.script.clear()
                    self.state.count = 0
                    self.state.played.clear()
                    self.state.prefixes.clear()
                return self.reply(200, {})
            if self.path == "/script":
                with self.state.lock:
                    self.state.script += [{"do": s} if isinstance(s, str) else s for s in json.loads(raw)]
                return self.reply(200, {})
            self.answer(raw)
        except Died:
            self.close_connection = True
        except (BrokenPipeError, ConnectionError, ssl.SSLError, TimeoutError):
            self.close_connection = True

    def body(self):
        if "chunked" in (self.headers.get("transfer-encoding") or ""):
            out = b""
            while True:
                n = int(self.rfile.readline().split(b";")[0], 16)
                out += self.rfile.read(n)
                self.rfile.readline()
                if n == 0 or len(out) > MAX_BODY:
                    return out
        return self.rfile.read(min(int(self.headers.get("content-length") or 0), MAX_BODY))

    def answer(self, raw):
        path = urllib.parse.urlsplit(self.path).path
        headers = {k.lower(): v for k, v in self.headers.items()}
        record = self.state.record(path, headers, raw)
        chat = self.chat = path.endswith("/chat/completions")
        try:
            if not chat and path not in ("/v1/messages", "/v1/messages/count_tokens"):
                raise Refused(404, "not found")
            key = self.state.options.key
            given = headers.get("x-api-key") or (headers.get("authorization") or "").replace("Bearer ", "")
            if key and given != key:
                raise Refused(401, "invalid x-api-key: " + given)
            body = parsed(raw)
            if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
                raise Refused(400, "messages: field required")
            if chat:
                body = canonical(body)
                if not self.state.options.lenient:
                    check_messages(body["messages"])
            elif path.endswith("/count_tokens"):
                beta = {"context_management": None} if "token-counting" in headers.get("anthropic-beta", "") else {}
                return self.reply(200, dict(beta, input_tokens=len(raw) // 4))
            elif not self.state.options.lenient:
                check(body, headers)
            brain = Brain(self.state, body, path)
            plan = brain.plan()
            if plan.error and plan.error[0] != "stream":
                Wire(self, plan.way, 0, False).at("head")
                record["retry_at"] = plan.retry_at
                if plan.html:
                    return self.page(plan.error[0])
                return self.fail(plan.error[0], plan.error[1], "mock error %d" % plan.error[0], plan.error[2])
            usage = usage_of(self.state, body, plan)
        except Refused as e:
            return self.fail(e.status, e.kind, str(e))
        if not body.get("stream"):
            return self.whole(brain, plan, usage, chat)
        self.stream(brain, plan, usage, chat, record)

    def whole(self, brain, p, usage, chat):
        if chat:
            text = "".join(b.get("text", "") for b in p.blocks)
            return self.reply(200, {"object": "chat.completion", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]})
        self.reply(200, {"id": new_id("msg", brain.key), "type": "message", "role": "assistant",
                         "model": brain.body.get("model"), "content": p.blocks, "stop_reason": p.stop,
                         "stop_sequence": None, "usage": usage})

    def stream(self, brain, p, usage, chat, record):
        with self.state.lock:
            self.state.live += 1
        def head():
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.send_header("request-id", new_id("req", record["n"]))
            self.end_headers()
        wire = Wire(self, p.way, p.delay, self.state.options.drip)
        try:
            events = completion_events(brain, p, usage) if chat else message_events(brain, p, usage)
            wire.send(head, events, b"data: [DONE]\n\n" if chat else b"", p.garbage)
        except (BrokenPipeError, ConnectionError, ssl.SSLError, TimeoutError):
            record["aborted"] = True
            raise
        finally:
            with self.state.lock:
                self.state.live -= 1


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 1024
    allow_reuse_address = True
    tls = None

    def get_request(self):
        sock, address = super().get_request()
        sock.settimeout(900)
        if self.tls:  # the handshake is made by the first read, in the connection's own thread
            sock = self.tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        return sock, address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError, TimeoutError)):
            super().handle_error(request, client_address)


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--port", type=int, default=0)
    a.add_argument("--tls-cert")
    a.add_argument("--tls-key")
    a.add_argument("--key", help="accept only this key")
    a.add_argument("--lenient", action="store_true", help="do not check requests")
    a.add_argument("--drip", action="store_true", help="write three bytes at a time")
    options = a.parse_args()
    threading.stack_size(512 * 1024)
    server = Server(("127.0.0.1", options.port), Handler)
    server.state = State(options)
    if options.tls_cert:
        server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.tls.load_cert_chain(options.tls_cert, options.tls_key)
    print("listening %d" % server.server_address[1], flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
