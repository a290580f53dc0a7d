"""The forms of the two protocols, Messages and chat completions: what a request has to look like (as the real services
check it), and how a reply is laid out in events. Used by messages.py, which decides what is said. No state."""
import base64
import hashlib
import hmac
import json
import re

SECRET = b"mock"


class Refused(Exception):
    def __init__(self, status, message, kind=None):
        super().__init__(message)
        self.status, self.kind = status, kind


def sign(thinking):
    return base64.b64encode(hmac.new(SECRET, thinking.encode(), hashlib.sha256).digest()).decode()


def new_id(prefix, *parts):
    return prefix + "_01" + hashlib.sha256(repr(parts).encode()).hexdigest()[:22]


def text_of(content):
    if isinstance(content, str):
        return content
    return "\n".join(b.get("text", "") for b in content or [] if b.get("type") == "text")


def results_of(message):
    if message.get("role") != "user" or isinstance(message.get("content"), str):
        return []
    return [b for b in message.get("content") or [] if b.get("type") == "tool_result"]


# ---------------------------------------------------------------------------------------------- requests

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
    check_messages(messages)


def check_messages(messages):
    """Every call is answered in the next message, no message is empty."""
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
    if kind in ("image", "document"):
        check_source(kind, b.get("source") or {}, where + "." + kind + ".source")
    if kind == "tool_result":
        inner = b.get("content") if isinstance(b.get("content"), list) else []
        if b.get("is_error") and any(x.get("type") != "text" for x in inner):
            raise Refused(400, where + ".tool_result: all content must be type \"text\" if \"is_error\" is true")
        for i, x in enumerate(inner):
            check_block(m, x, "%s.content.%d" % (where, i), open_calls, seen)
    if kind == "tool_use":
        if m["role"] != "assistant" or not isinstance(b.get("input"), dict):
            raise Refused(400, where + ": tool_use.input must be an object")
        if b.get("id") in seen:
            raise Refused(400, where + ": `tool_use` ids must be unique")
        seen.add(b.get("id"))
        open_calls.add(b.get("id"))


def check_source(kind, source, where):
    how, media = source.get("type"), source.get("media_type")
    if how == "file":
        raise Refused(404, where + ": no file with id " + str(source.get("file_id")))
    if how == "base64":
        if media not in (("image/png", "image/jpeg", "image/gif", "image/webp") if kind == "image" else ("application/pdf",)):
            raise Refused(400, where + ".base64.media_type: not supported: " + str(media))
        if kind == "image" and len(source.get("data") or "") > 5 << 20:
            raise Refused(400, where + ".base64: image exceeds 5 MB maximum")
        try:
            base64.b64decode(source.get("data") or "", validate=True)
        except ValueError:
            raise Refused(400, where + ".base64.data: not base64")
    elif how == "text" and kind == "document":
        if media != "text/plain" or not source.get("data"):
            raise Refused(400, where + ".text: media_type text/plain and data are required")
    elif how != "url":
        raise Refused(400, where + ": unknown source")


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
                try:
                    value = json.loads(t["function"]["arguments"])
                except ValueError:
                    raise Refused(400, "messages: the arguments of %s are no JSON" % t["id"])
                blocks.append({"type": "tool_use", "id": t["id"], "name": t["function"]["name"], "input": value})
            out.append({"role": "assistant", "content": blocks})
        else:
            out.append({"role": "user", "content": blocks})
    tools = [dict(t["function"], input_schema=t["function"].get("parameters")) for t in body.get("tools") or []]
    return dict(body, messages=out, system=system, tools=tools)


# ---------------------------------------------------------------------------------------------- replies

def pieces(s):
    """A text in pieces of uneven length."""
    sizes, i, k = (1, 3, 7, 2, 12, 5), 0, 0
    while i < len(s):
        n = sizes[k % len(sizes)] if len(s) < 2000 else 64
        yield s[i:i + n]
        i, k = i + n, k + 1


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
        s = b.get("given") or (json.dumps(b["input"], ensure_ascii=False) if b["input"] else "")
        deltas = [{"type": "input_json_delta", "partial_json": x} for x in [""] + list(pieces(s))]
    else:
        start = b
    yield "content_block_start", {"type": "content_block_start", "index": i, "content_block": start}
    for k, d in enumerate(deltas):
        if p.error and k and k >= len(deltas) // 2 and i == len(p.blocks) - 1:
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
            s = b.get("given") or json.dumps(b["input"])
            yield chunk({"tool_calls": [{"index": calls, "id": b["id"], "type": "function",
                                         "function": {"name": b["name"], "arguments": ""}}]})
            for x in pieces(s):
                yield None, None
                yield chunk({"tool_calls": [{"index": calls, "function": {"arguments": x}}]})
            calls += 1
        else:
            key = "content" if b["type"] == "text" else "reasoning_content"
            parts = list(pieces(b.get("text") or b.get("thinking") or ""))
            for x in parts[:len(parts) // 2 + 1] if p.error else parts:
                yield None, None
                yield chunk({key: x})
    if p.error:
        yield "", {"error": {"type": p.error[1], "message": "mock error in the stream"}}
        return
    if p.refusal:
        for x in pieces(p.details["explanation"]):
            yield chunk({"refusal": x})
    finish = {"tool_use": "tool_calls", "max_tokens": "length", "refusal": "content_filter"}
    yield chunk({}, "stop" if p.refusal else finish.get(p.stop, "stop"))
    if (brain.body.get("stream_options") or {}).get("include_usage"):
        read = usage["cache_read_input_tokens"]
        every = usage["input_tokens"] + usage["cache_creation_input_tokens"] + read
        yield "", dict(base, choices=[], usage={"prompt_tokens": every, "completion_tokens": usage["output_tokens"],
                                                "total_tokens": every + usage["output_tokens"],
                                                "prompt_tokens_details": {"cached_tokens": read}})
