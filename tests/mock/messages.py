#!/usr/bin/env python3
"""A model server for tests: speaks the Messages API and chat completions, streaming; needs only python3.

    messages.py [--port 0] [--tls-cert C --tls-key K] [--key KEY] [--lenient] [--drip]

Prints "listening PORT" and serves 127.0.0.1. What it answers is decided by the request alone. The newest
user text may hold directives; steps are separated by ;; and the k-th reply since that text plays the k-th:

    [[say TEXT]]              that text; {result} {last} {system} {model} {tools} {messages} are filled in
    [[tool NAME {json}]]      a tool call; [[tools A {..} | B {..}]] several at once
    [[think]] [[think TEXT]]  a signed thinking block first; [[redacted]] a redacted one
    [[long N]]                N words
    [[slow N ms]]             a pause between deltas
    [[error 529 x2]]          fails twice, then goes on with the step; without x: always. More words:
                              "type T", "retry SECONDS", "retry-ms MS"; [[error stream T x1]] in mid-stream
    [[cut]] [[hang]]          drops the connection in mid-stream; says nothing more (x2 as above)
    [[refuse]] [[max]] [[pause]]   other stop reasons
    [[badtool NAME]] [[unknown]] [[garbage]]   broken tool input; a block of unknown type; a frame of no JSON
    [[usage in=1 out=2 read=3 write=4]]
    [[verdict {json} | {json}]]    nothing for an agent; a grader, which is offered the tool submit_verdict, calls
                              it with the k-th of these the k-th time that it meets this very directive

With no directive left: after tool results "Result: <their text>", else "You said: <text>".
Requests are checked as the real service checks them (tool calls answered at once, no empty text, thinking
unchanged, at most four cache breakpoints, no sampling parameters) and refused with 400; --lenient does not.

    GET /count            {"count": n, "live": streams open now}
    GET /requests?since=n the latest 1,000: [{n, path, headers, body, raw, aborted}]
    POST /reset           forgets them
"""
import argparse
import base64
import hashlib
import hmac
import http.server
import json
import re
import select
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

SECRET = b"mock"
KEEP = 1000
MAX_BODY = 64 << 20
TYPES = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
         404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
         504: "timeout_error", 529: "overloaded_error"}


class State:
    """What the server remembers: requests, failures played, prefixes cached."""

    def __init__(self, options):
        self.options = options
        self.lock = threading.Lock()
        self.requests, self.count, self.live = [], 0, 0
        self.played, self.prefixes = {}, {}

    def record(self, path, headers, raw):
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = None
        with self.lock:
            self.count += 1
            r = {"n": self.count, "path": path, "headers": headers, "body": body,
                 "raw": raw.decode("utf-8", "replace"), "aborted": False}
            self.requests.append(r)
            del self.requests[:-KEEP]
        return r

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


class Refused(Exception):
    def __init__(self, status, message, kind=None):
        super().__init__(message)
        self.status, self.kind = status, kind or TYPES.get(status, "invalid_request_error")


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


def text_of(content):
    if isinstance(content, str):
        return content
    return "\n".join(b.get("text", "") for b in content or [] if b.get("type") == "text")


def results_of(message):
    if message.get("role") != "user" or isinstance(message.get("content"), str):
        return []
    return [b for b in message.get("content") or [] if b.get("type") == "tool_result"]


class Plan:
    """What to answer: blocks, and how."""

    def __init__(self):
        self.blocks, self.stop, self.details = [], None, None
        self.delay, self.cut, self.hang, self.error, self.garbage = 0.0, False, False, None, False
        self.usage = {}

    def text(self, s):
        self.blocks.append({"type": "text", "text": s})


def sign(thinking):
    return base64.b64encode(hmac.new(SECRET, thinking.encode(), hashlib.sha256).digest()).decode()


def new_id(prefix, *parts):
    return prefix + "_01" + hashlib.sha256(repr(parts).encode()).hexdigest()[:22]


def times_in(words):
    for w in words:
        if re.fullmatch(r"x\d+", w):
            return int(w[1:])
    return None


class Brain:
    def __init__(self, state, body):
        self.state, self.body, self.messages = state, body, body["messages"]
        self.at = max((i for i, m in enumerate(self.messages) if m["role"] == "user" and text_of(m["content"])
                       and not (results_of(m) and "[[" not in text_of(m["content"]))), default=-1)
        self.text = text_of(self.messages[self.at]["content"]) if self.at >= 0 else ""
        self.turn = sum(1 for m in self.messages[self.at + 1:] if m["role"] == "assistant")
        self.results = results_of(self.messages[-1]) if self.messages else []
        self.key = hashlib.sha256(json.dumps([body.get("model"), body.get("system"), self.messages],
                                             sort_keys=True).encode()).hexdigest()

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
        return s

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
        p, steps = Plan(), steps_of(self.text)
        step = steps[self.turn] if self.turn < len(steps) else []
        for n, directive in enumerate(step):
            word, _, rest = directive.partition(" ")
            self.directive(p, word, rest.strip(), n)
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
            p.cut = p.cut or self.state.play(key, times_in(rest.split()))
        elif word == "hang":
            p.hang = p.hang or self.state.play(key, times_in(rest.split()))
        elif word == "garbage":
            p.garbage = p.garbage or self.state.play(key, times_in(rest.split()))
        elif word == "refuse":
            p.stop, p.details = "refusal", {"type": "refusal", "category": "cyber", "explanation": "declined by the mock"}
        elif word == "max":
            p.stop = "max_tokens"
        elif word == "pause":
            p.stop = "pause_turn"
        elif word == "badtool":
            self.tool(p, rest + ' {"a":1}')
            p.blocks[-1]["broken"] = True
        elif word == "unknown":
            p.blocks.append({"type": "mock_novelty", "data": {"b": [1, 2.5, None], "a": "\u00e9"}})
        elif word == "verdict":
            pass
        elif word == "usage":
            p.usage = {k: int(v) for k, v in re.findall(r"(\w+)=(\d+)", rest)}
        else:
            raise Refused(400, "mock: unknown directive " + word)

    def tool(self, p, rest):
        name, _, tail = rest.partition(" ")
        tail = tail.lstrip()
        value, end = json.JSONDecoder().raw_decode(tail) if tail.startswith("{") else ({}, 0)
        p.blocks.append({"type": "tool_use", "id": new_id("toolu", self.key, len(p.blocks)), "name": name,
                         "input": value})
        return tail[end:]

    def error(self, p, words, key):
        if p.error or not self.state.play(key, times_in(words)):
            return
        options = {words[i]: words[i + 1] for i in range(len(words) - 1) if words[i] in ("type", "retry", "retry-ms")}
        if words[0] == "stream":
            p.error = ("stream", words[1] if len(words) > 1 and words[1][0] != "x" else "overloaded_error", {})
            return
        status, headers = int(words[0]), {}
        if "retry" in options:
            headers["retry-after"] = options["retry"]
        if "retry-ms" in options:
            headers["retry-after-ms"] = options["retry-ms"]
        p.error = (status, options.get("type") or TYPES.get(status, "api_error"), headers)


# ---------------------------------------------------------------------------------------------- checks

def blocks_of(m):
    c = m.get("content")
    return [{"type": "text", "text": c}] if isinstance(c, str) else c


def check(body, headers):
    if "anthropic-version" not in headers:
        raise Refused(400, "anthropic-version: header is required")
    for field in ("temperature", "top_p", "top_k"):
        if field in body:
            raise Refused(400, field + ": this field is no longer supported")
    if not isinstance(body.get("max_tokens"), int) or body["max_tokens"] < 1:
        raise Refused(400, "max_tokens: field required")
    messages = body["messages"]
    if not messages or messages[0].get("role") != "user":
        raise Refused(400, "messages: first message must use the \"user\" role")
    marks = json.dumps(body).count('"cache_control"')
    if marks > 4:
        raise Refused(400, "A maximum of 4 blocks with cache_control may be provided. Found %d." % marks)
    for t in body.get("tools") or []:
        if t.get("type") in (None, "custom") and not re.fullmatch(r"[a-zA-Z0-9_-]{1,128}", t.get("name", "")):
            raise Refused(400, "tools: name must match ^[a-zA-Z0-9_-]{1,128}$")
    open_calls, seen = set(), set()
    for i, m in enumerate(messages):
        where = "messages.%d" % i
        if m.get("role") not in ("user", "assistant", "system") or not isinstance(blocks_of(m), list):
            raise Refused(400, where + ": role or content is not valid")
        if m["role"] == "system":
            continue
        answered = {b.get("tool_use_id") for b in blocks_of(m) if b.get("type") == "tool_result"}
        if open_calls - answered:
            raise Refused(400, where + ": `tool_use` ids were found without `tool_result` blocks immediately after: "
                          + ", ".join(sorted(open_calls - answered)))
        if answered - open_calls:
            raise Refused(400, where + ": unexpected `tool_use_id` found in `tool_result` blocks: "
                          + ", ".join(map(str, answered - open_calls)))
        open_calls = set()
        if not blocks_of(m) and i != len(messages) - 1:
            raise Refused(400, where + ": all messages must have non-empty content")
        for j, b in enumerate(blocks_of(m)):
            check_block(m, b, "%s.content.%d" % (where, j), open_calls, seen)
    if open_calls:
        raise Refused(400, "messages: `tool_use` ids were found without `tool_result` blocks immediately after: "
                      + ", ".join(sorted(open_calls)))


def check_block(m, b, where, open_calls, seen):
    kind = b.get("type")
    if kind == "text" and not (b.get("text") or "").strip():
        raise Refused(400, where + ": text content blocks must contain non-whitespace text")
    if kind == "thinking" and b.get("signature") != sign(b.get("thinking", "")):
        raise Refused(400, where + ": Invalid `signature` in `thinking` block")
    if kind == "tool_use":
        if m["role"] != "assistant" or not isinstance(b.get("input"), dict):
            raise Refused(400, where + ": tool_use.input must be an object")
        if b.get("id") in seen:
            raise Refused(400, where + ": `tool_use` ids must be unique")
        seen.add(b.get("id"))
        open_calls.add(b.get("id"))


# ---------------------------------------------------------------------------------------------- streaming

def pieces(s):
    """A text in pieces of uneven length."""
    sizes, i, k = (1, 3, 7, 2, 12, 5), 0, 0
    while i < len(s):
        n = sizes[k % len(sizes)] if len(s) < 2000 else 64
        yield s[i:i + n]
        i, k = i + n, k + 1


def usage_of(state, body, p):
    def tokens(x):
        return len(json.dumps(x)) // 4 + 1
    messages, head = body["messages"], tokens([body.get("system"), body.get("tools")])
    total, read, written = head + sum(tokens(m) for m in messages), 0, 0
    if '"cache_control"' in json.dumps(body):
        h, digests = hashlib.sha256(json.dumps([body.get("model"), body.get("tools"), body.get("system")]).encode()), []
        for m in messages:
            h.update(json.dumps(m).encode())
            digests.append(h.hexdigest())
        n = state.cached(digests)
        read = head + sum(tokens(m) for m in messages[:n]) if n else 0
        written = max(0, total - read - 4)
    u = p.usage
    read, written = u.get("read", read), u.get("write", written)
    fresh = u.get("in", max(0, total - read - written))
    out = u.get("out", sum(tokens(b) for b in p.blocks))
    return {"input_tokens": fresh, "cache_creation_input_tokens": written, "cache_read_input_tokens": read,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
            "output_tokens": out, "service_tier": "standard"}


class Cut(Exception):
    pass


def message_events(brain, p, usage):
    """(event, data) pairs of a Messages stream. None asks for the plan's pause."""
    first = dict(usage, output_tokens=1)
    yield "message_start", {"type": "message_start", "message": {
        "id": new_id("msg", brain.key), "type": "message", "role": "assistant", "model": brain.body.get("model"),
        "content": [], "stop_reason": None, "stop_sequence": None, "usage": first}}
    for i, b in enumerate(p.blocks):
        yield from block_events(i, b, p)
        if i == 0:
            yield "ping", {"type": "ping"}
    if p.error:
        yield "error", {"type": "error", "error": {"type": p.error[1], "message": "mock error in the stream"}}
        return
    if p.cut:
        raise Cut()
    yield "message_delta", {"type": "message_delta", "delta": {"stop_reason": p.stop, "stop_sequence": None,
                                                               "stop_details": p.details},
                            "usage": {"output_tokens": usage["output_tokens"]}}
    yield "message_stop", {"type": "message_stop"}


def block_events(i, b, p):
    kind, deltas = b["type"], []
    if kind == "text":
        start = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": s} for s in pieces(b["text"])]
    elif kind == "thinking":
        start = {"type": "thinking", "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": s} for s in pieces(b["thinking"])]
        deltas.append({"type": "signature_delta", "signature": b["signature"]})
    elif kind == "tool_use":
        start = {"type": "tool_use", "id": b["id"], "name": b["name"], "input": {}}
        s = json.dumps(b["input"], ensure_ascii=False) if b["input"] else ""
        s = s[:-1] if b.get("broken") else s
        deltas = [{"type": "input_json_delta", "partial_json": x} for x in [""] + list(pieces(s))]
    else:
        start = b
    yield "content_block_start", {"type": "content_block_start", "index": i, "content_block": start}
    for k, d in enumerate(deltas):
        if (p.cut or p.error) and k and k >= len(deltas) // 2 and i == len(p.blocks) - 1:
            return
        yield None, None
        yield "content_block_delta", {"type": "content_block_delta", "index": i, "delta": d}
    yield "content_block_stop", {"type": "content_block_stop", "index": i}


def completion_events(brain, p, usage):
    """(None, data) pairs of a chat completions stream."""
    base = {"id": new_id("chatcmpl", brain.key), "object": "chat.completion.chunk", "created": 0,
            "model": brain.body.get("model")}

    def chunk(delta, finish=None):
        return "", dict(base, choices=[{"index": 0, "delta": delta, "finish_reason": finish}])
    yield chunk({"role": "assistant", "content": ""})
    calls = 0
    for b in p.blocks:
        if b["type"] == "tool_use":
            s = json.dumps(b["input"])
            s = s[:-1] if b.get("broken") else s
            yield chunk({"tool_calls": [{"index": calls, "id": b["id"], "type": "function",
                                         "function": {"name": b["name"], "arguments": ""}}]})
            for x in pieces(s):
                yield None, None
                yield chunk({"tool_calls": [{"index": calls, "function": {"arguments": x}}]})
            calls += 1
        else:
            key = "content" if b["type"] == "text" else "reasoning_content"
            parts = list(pieces(b.get("text") or b.get("thinking") or ""))
            for x in parts[:len(parts) // 2 + 1] if p.cut or p.error else parts:
                yield None, None
                yield chunk({key: x})
    if p.error:
        yield "", {"error": {"type": p.error[1], "message": "mock error in the stream"}}
        return
    if p.cut:
        raise Cut()
    yield chunk({}, {"tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}.get(p.stop, "stop"))
    if (brain.body.get("stream_options") or {}).get("include_usage"):
        read = usage["cache_read_input_tokens"]
        every = usage["input_tokens"] + usage["cache_creation_input_tokens"] + read
        yield "", dict(base, choices=[], usage={"prompt_tokens": every, "completion_tokens": usage["output_tokens"],
                                                "total_tokens": every + usage["output_tokens"],
                                                "prompt_tokens_details": {"cached_tokens": read}})


def canonical(body):
    """A chat completions request in the form of the Messages API, for the brain."""
    out, system = [], []
    for m in body.get("messages") or []:
        c = m.get("content")
        blocks = [{"type": "text", "text": c}] if isinstance(c, str) and c else \
            [b for b in c or [] if isinstance(b, dict)] if not isinstance(c, str) else []
        if m["role"] in ("system", "developer"):
            system += blocks
        elif m["role"] == "tool":
            r = {"type": "tool_result", "tool_use_id": m.get("tool_call_id"), "content": blocks}
            if out and out[-1]["role"] == "user" and results_of(out[-1]):
                out[-1]["content"].append(r)
            else:
                out.append({"role": "user", "content": [r]})
        elif m["role"] == "assistant":
            for t in m.get("tool_calls") or []:
                blocks.append({"type": "tool_use", "id": t["id"], "name": t["function"]["name"],
                               "input": json.loads(t["function"]["arguments"] or "{}")})
            out.append({"role": "assistant", "content": blocks})
        else:
            out.append({"role": "user", "content": blocks})
    tools = [dict(t["function"], input_schema=t["function"].get("parameters")) for t in body.get("tools") or []]
    return dict(body, messages=out, system=system, tools=tools)


# ---------------------------------------------------------------------------------------------- server

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 0
    disable_nagle_algorithm = True

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
        self.reply(status, {"type": "error", "error": {"type": kind, "message": message},
                            "request_id": new_id("req", self.state.count)}, headers)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/count":
            self.reply(200, {"count": self.state.count, "live": self.state.live})
        elif url.path == "/requests":
            since = int(urllib.parse.parse_qs(url.query).get("since", ["0"])[0])
            with self.state.lock:
                found = [r for r in self.state.requests if r["n"] > since]
            self.reply(200, found)
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
                    self.state.count = 0
                    self.state.played.clear()
                    self.state.prefixes.clear()
                return self.reply(200, {})
            self.answer(raw)
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
        chat = path.endswith("/chat/completions")
        try:
            if not chat and path not in ("/v1/messages", "/v1/messages/count_tokens"):
                raise Refused(404, "not found")
            key = self.state.options.key
            given = headers.get("x-api-key") or (headers.get("authorization") or "").replace("Bearer ", "")
            if key and given != key:
                raise Refused(401, "invalid x-api-key: " + given)
            body = record["body"]
            if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
                raise Refused(400, "messages: field required")
            if chat:
                body = canonical(body)
            elif path.endswith("/count_tokens"):
                return self.reply(200, {"input_tokens": len(raw) // 4})
            elif not self.state.options.lenient:
                check(body, headers)
            brain = Brain(self.state, body)
            plan = brain.plan()
            if plan.error and plan.error[0] != "stream":
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
        try:
            self.send_response(200)
            self.send_header("content-type", "text/event-stream; charset=utf-8")
            self.send_header("transfer-encoding", "chunked")
            self.send_header("request-id", new_id("req", record["n"]))
            self.end_headers()
            self.frames(brain, p, usage, chat)
            if chat:
                self.chunk(b"data: [DONE]\n\n")
            self.wfile.write(b"0\r\n\r\n")
        except Cut:
            self.close_connection = True
        except (BrokenPipeError, ConnectionError, ssl.SSLError, TimeoutError):
            record["aborted"] = True
            raise
        finally:
            with self.state.lock:
                self.state.live -= 1

    def frames(self, brain, p, usage, chat):
        events = completion_events(brain, p, usage) if chat else message_events(brain, p, usage)
        pending, n = b"", 0
        for event, data in events:
            if event is None:
                if p.delay:
                    self.chunk(pending)
                    pending = b""
                    time.sleep(p.delay)
                continue
            n += 1
            head = "event: %s\n" % event if event else ""
            text = json.dumps(data, ensure_ascii=n % 2 == 0)
            pending += (head + "data: " + text + "\n\n").encode()
            if p.garbage and n == 3:
                pending += b"event: content_block_delta\ndata: {broken\n\n"
            if p.hang and n == 2:
                self.chunk(pending)
                return self.wait_for_close()
            if len(pending) > 4096 or p.cut or p.delay or n == 1:
                self.chunk(pending)
                pending = b""
        self.chunk(pending)

    def chunk(self, data):
        if not data:
            return
        out = b"%x\r\n%s\r\n" % (len(data), data)
        if not self.state.options.drip:
            return self.wfile.write(out)
        for i in range(0, len(out), 3):
            self.wfile.write(out[i:i + 3])

    def wait_for_close(self):
        end = time.monotonic() + 900
        while time.monotonic() < end:
            if select.select([self.connection], [], [], 1.0)[0] and not self.connection.recv(1):
                raise ConnectionError("closed by the client")


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
