"""POST /v1/messages and /v1/messages/count_tokens, passed through: to a provider of the Messages API byte for byte,
to one of chat completions translated; errors, limits, fallbacks, clients that leave or read slowly."""
import contextlib
import http.client
import json
import threading
import time

from kit import KEY, LIMIT, MODEL, UPSTREAM_KEY, Mock, Server, World, equal, test, true, wait

CONFIG = """{{ models = {{
  anthropic = {{ base_url = "{a}", api_key = "{key}" }},
  ["local"] = {{ kind = "openai", base_url = "{o}/v1", api_key = "{key}" }},
  one = {{ kind = "anthropic", base_url = "{a}", api_key = "{key}", max_concurrency = 1, queue_max = 1 }},
  stranger = {{ kind = "anthropic", base_url = "{a}", api_key = "sk-ant-not-the-right-one" }},
  nobody = {{ kind = "openai", base_url = "http://127.0.0.1:1", connect_ms = 2000 }},
  route = {{ qwen = "local:qwen3", alias = "anthropic:claude-haiku-4-5", single = "one:claude-haiku-4-5",
    strange = "stranger:claude-haiku-4-5", away = "nobody:x", back = {{ "nobody:x", "local:y", "anthropic:claude-z" }} }},
  fallback = {{ ["claude-sonnet-*"] = "local:qwen3" }},
}} }}"""


@contextlib.contextmanager
def passing(w, **kw):
    s = Server(env={"MOONRIG_API_KEY": KEY}, config=CONFIG.format(a=w.mock.url, o=w.mock.url, key=UPSTREAM_KEY))
    try:
        yield World(s.url, mock=w.mock, server=s)
    finally:
        s.stop()


def body(text, model=MODEL, **more):
    return dict({"model": model, "max_tokens": 64, "messages": [{"role": "user", "content": text}]}, **more)


def direct(w, raw, path="/v1/messages"):
    c = http.client.HTTPConnection("127.0.0.1", w.mock.port, timeout=LIMIT)
    c.request("POST", path, body=raw, headers={"x-api-key": UPSTREAM_KEY, "anthropic-version": "2023-06-01",
                                               "content-type": "application/json"})
    r = c.getresponse()
    try:
        return r.status, r.read()
    finally:
        c.close()


def newest(w):
    return w.mock.get(f"/requests?since={w.mock.count() - 1}")[-1]


def frames(text):
    out = []
    for f in text.decode().split("\n\n"):
        if f:
            name, data = f.split("\n", 1)
            out.append(json.loads(data.removeprefix("data: ")))
            equal(name, "event: " + out[-1]["type"])
    return out


def whole(events):
    """The message that the events of a stream make; their order is checked."""
    equal((events[0]["type"], events[-2]["type"], events[-1]["type"]), ("message_start", "message_delta", "message_stop"))
    m, open_ = dict(events[0]["message"], content=[]), None
    for e in events[1:-2]:
        if e["type"] == "ping":
            continue
        if e["type"] == "content_block_start":
            equal((open_, e["index"]), (None, len(m["content"])))
            m["content"].append(dict(e["content_block"], partial=""))
            open_ = e["index"]
            continue
        equal(e["index"], open_)
        b = m["content"][-1]
        if e["type"] == "content_block_stop":
            partial = b.pop("partial")
            if b["type"] == "tool_use":
                b["input"] = json.loads(partial or "{}")
            open_ = None
        elif e["delta"]["type"] == "text_delta":
            b["text"] += e["delta"]["text"]
        elif e["delta"]["type"] == "input_json_delta":
            b["partial"] += e["delta"]["partial_json"]
    equal(open_, None)
    m.update({k: v for k, v in events[-2]["delta"].items() if k in m})
    m["usage"] = dict(m["usage"], **events[-2]["usage"])
    return m


# ---------------------------------------------------------------------------------------- the Messages API

@test(model=True)
def the_bytes_go_through(w):
    with passing(w) as p:
        for stream in (False, True):
            raw = ('{ "model":"%s", "max_tokens": 9,"x-unknown":[1.0,1e3,"\\u00e9"], "stream" : %s,\n'
                   '"messages":[{"role":"user","content":"[[say h\u00e9 {model}]] [[think]]"}]}'
                   % (MODEL, str(stream).lower())).encode()
            r = p.ask("POST", "/v1/messages?beta=true", body=raw, headers={
                "anthropic-beta": "one-2026-01-01,two-2026-01-01", "content-type": "application/json", "cookie": "a=b"})
            sent = newest(w)
            equal(sent["path"], "/v1/messages")
            equal(sent["raw"], raw.decode())
            h = sent["headers"]
            equal((h["x-api-key"], h["anthropic-version"], h["anthropic-beta"]),
                  (UPSTREAM_KEY, "2026-10-21", "one-2026-01-01,two-2026-01-01"))
            true(not {"authorization", "cookie"} & set(h) and KEY not in json.dumps(h), h)
            equal((r.status, r.body), direct(w, raw))
            true(r.headers["content-type"].startswith("text/event-stream" if stream else "application/json"), r.headers)
            own = r.headers.get("moonrig-request-id") or r.headers["request-id"]
            true(own.startswith("req_"), r.headers)


@test(model=True)
def only_the_name_of_the_model_is_changed(w):
    with passing(w) as p:
        raw = b'{"metadata":{"model":"x"},\n"max_tokens":5, "model" :  "alias","messages":[{"role":"user","content":"\\"model\\":\\"alias\\""}]}'
        equal(p.ask("POST", "/v1/messages", body=raw).status, 200)
        equal(newest(w)["raw"].encode(), raw.replace(b'"model" :  "alias"', b'"model" :  "claude-haiku-4-5"'))
        p.refused(400, "POST", "/v1/messages", names="write the key without escapes",
                  body=raw.replace(b'"model" :', b'"mod\\u0065l" :'))


@test(model=True)
def who_may_ask(w):
    with passing(w) as p:
        n = w.mock.count()
        p.refused(401, "POST", "/v1/messages", body("hi"), headers={"authorization": None})
        p.refused(401, "POST", "/v1/messages", body("hi"), headers={"authorization": "Bearer sk-mr-wrong"})
        p.refused(400, "POST", "/v1/messages", body("hi"), headers={"anthropic-version": None}, names="anthropic-version")
        equal(w.mock.count(), n)
        equal(p.post("/v1/messages", body("hi"), headers={"authorization": None, "x-api-key": KEY,
                                                          "anthropic-beta": None}).status, 200)
        equal(p.get("/v1/messages").status, 405)


@test(model=True)
def what_is_no_request(w):
    with passing(w) as p:
        n = w.mock.count()
        p.refused(400, "POST", "/v1/messages", body=b"", names="not valid JSON")
        p.refused(400, "POST", "/v1/messages", body=b'{"model":', names="not valid JSON")
        p.refused(400, "POST", "/v1/messages", [], names="JSON object")
        p.refused(400, "POST", "/v1/messages", {"messages": []}, names="^model: ")
        p.refused(400, "POST", "/v1/messages", {"model": MODEL}, names="^messages: ")
        p.refused(400, "POST", "/v1/messages", body=b'{"model":"a","model":"b","messages":[]}', names="given twice")
        p.refused(404, "POST", "/v1/messages", body("hi", model="no-such"), names="no provider for no-such")
        p.refused(413, "POST", "/v1/messages", body=b" " * ((32 << 20) + 1), type_="request_too_large")
        equal(w.mock.count(), n)


@test(model=True)
def errors_of_the_upstream_are_the_answer(w):
    with passing(w) as p:
        for status in (400, 413, 500, 529):
            text = f"[[error {status}]]"
            r = p.post("/v1/messages", body(text))
            equal((r.status, r.json["error"]), (status, json.loads(direct(w, json.dumps(body(text)))[1])["error"]))
        r = p.post("/v1/messages", body("[[error stream overloaded_error]]", stream=True))
        equal((r.status, frames(r.body)[-1]["error"]["type"]), (200, "overloaded_error"))
        r = p.post("/v1/messages", body("[[error 429 retry 1]]"))
        equal((r.status, r.headers["retry-after"], r.json["error"]["type"]), (429, "1", "rate_limit_error"))
        r = p.post("/v1/messages", body("hi", model="strange"))
        equal((r.status, r.json["error"]["message"]), (401, "invalid x-api-key: [key]"))
        r = p.post("/v1/messages", body("hi", model="away"))
        equal((r.status, r.error["type"]), (502, "api_error"))
        # a stream that breaks off does so for the client, too
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            r = p.post("/v1/messages", body("[[cut]] [[long 500]]", stream=True))
            raise AssertionError("the stream ended as if it were whole")


@test(model=True)
def tokens_are_counted_by_who_can(w):
    with passing(w) as p:
        raw = json.dumps(body("how many")).encode()
        r = p.ask("POST", "/v1/messages/count_tokens", body=raw)
        equal((r.status, r.json), (200, {"input_tokens": len(raw) // 4}))
        equal(newest(w)["path"], "/v1/messages/count_tokens")
        p.refused(400, "POST", "/v1/messages/count_tokens", body("hi", model="qwen"), names="local, which cannot count tokens")


@test(model=True)
def a_client_that_leaves_is_not_answered(w):
    with passing(w) as p:
        c = p.connect()
        c.request("POST", "/v1/messages", body=json.dumps(body("[[slow 10 ms]] [[long 5000]]", stream=True)),
                  headers=p.headers({"content-type": "application/json"}))
        r = c.getresponse()
        r.read(200)
        equal(w.mock.get("/count")["live"], 1)
        c.close()
        r.close()
        wait(lambda: w.mock.get("/count")["live"] == 0, "the upstream's stream to be cut")
        equal(p.post("/v1/messages", body("hi")).status, 200)


@test(model=True)
def a_slow_reader_slows_the_upstream(w):
    with passing(w) as p:
        raw = json.dumps(body("[[long 700000]]", stream=True)).encode()
        want = direct(w, raw)[1]
        true(len(want) > 9 << 20, f"{len(want)} bytes")
        c = p.connect()
        c.request("POST", "/v1/messages", body=raw, headers=p.headers({"content-type": "application/json"}))
        r = c.getresponse()
        got = r.read(1000)
        # Nothing is read until the bytes that the server sent stand still: it waits for us, and the upstream for it.
        def sent():
            line = next(x for x in p.get("/metrics").body.decode().splitlines() if x.startswith("moonrig_http_sent_bytes_total"))
            return float(line.split()[1])
        seen = [0.0] * 5
        while seen[-1] - seen[0] > 20000 or not seen[0]:  # asking adds to it
            time.sleep(0.1)
            seen = seen[1:] + [sent()]
        equal(w.mock.get("/count")["live"], 1)
        true(seen[-1] < len(want), "all of it was sent to who does not read")
        got += r.read()
        equal(len(got), len(want))
        true(got == want, "other bytes")
        c.close()


@test(model=True)
def a_large_request_goes_through(w):
    with passing(w) as p:
        r = p.post("/v1/messages", body("x" * (20 << 20) + "[[say large]]"))
        equal((r.status, r.json["content"]), (200, [{"type": "text", "text": "large"}]))


# ---------------------------------------------------------------------------------------- limits and fallbacks

@test(model=True)
def requests_wait_in_line(w):
    with passing(w) as p:
        out, live = {}, []

        def ask(k):
            out[k] = p.post("/v1/messages", body(f"[[slow 20 ms]] [[say number {k} {'x' * 200}]]", model="single", stream=True))
        threads = [threading.Thread(target=ask, args=(k,)) for k in range(2)]
        threads[0].start()
        wait(lambda: w.mock.get("/count")["live"] == 1, "the first to be asked")
        n = w.mock.count()
        threads[1].start()
        wait(lambda: b'moonrig_provider_waiting{provider="one"} 1' in p.get("/metrics").body or not threads[0].is_alive(),
             "the second in line")
        while any(t.is_alive() for t in threads) and len(live) < 1000:
            live.append(w.mock.get("/count")["live"])
            if len(live) == 3:
                equal(w.mock.count(), n)
        for t in threads:
            t.join(LIMIT)
        true(max(live) == 1, f"{max(live)} at a time")
        equal([out[k].status for k in range(2)], [200, 200])


@test(model=True)
def a_full_line_is_said(w):
    with passing(w) as p:
        held = []
        for _ in range(2):
            c = p.connect()
            c.request("POST", "/v1/messages", body=json.dumps(body("[[hang]]", model="single", stream=True)),
                      headers=p.headers({"content-type": "application/json"}))
            held.append(c)
            wait(lambda: w.mock.get("/count")["live"] == 1, "the first to hang")
        r = wait(lambda: (lambda x: x.status == 429 and x)(
            p.ask("POST", "/v1/messages", body("hi", model="single"), connection=None)) or None, "a full line")
        equal((r.error["type"], r.headers["retry-after"]), ("rate_limit_error", "1"))
        true("queue_max" in r.error["message"], r.error)
        for c in held:
            c.close()
        wait(lambda: w.mock.get("/count")["live"] == 0, "the held ones to be cut")


@test(model=True)
def another_provider_stands_in(w):
    with passing(w) as p:
        for stream in (False, True):
            text = f"[[error 529 x1]] [[say from {{model}}]] {stream}"
            equal(p.post("/v1/messages", body(text, model="qwen")).status, 529)  # its one failure; the other has its own
            r = p.post("/v1/messages", body(text, model="claude-sonnet-4-6", stream=stream))
            equal((r.status, newest(w)["path"]), (200, "/v1/chat/completions"))
            m = whole(frames(r.body)) if stream else r.json
            equal((m["content"][0]["text"], m["model"]), ("from qwen3", "claude-sonnet-4-6"))
        true(b"moonrig_model_fallbacks_total 2" in p.get("/metrics").body, "two fallbacks")
        r = p.post("/v1/messages", body("[[say from {model}]]", model="back"))
        equal(r.json["content"][0]["text"], "from y")
        r = p.post("/v1/messages", body("[[error 400]]", model="claude-sonnet-4-6"))
        equal((r.status, newest(w)["path"]), (400, "/v1/messages"))


# ---------------------------------------------------------------------------------------- chat completions

@test(model=True)
def a_translated_message(w):
    with passing(w) as p:
        tools = [{"name": "pay", "description": "Pays", "input_schema": {"type": "object"}}]
        ask = body('[[say first]] [[tools pay {"n":12345678901} | pay {}]]', model="qwen", system="Be brief.", tools=tools,
                   stop_sequences=["END"], temperature=0.5, tool_choice={"type": "any"})
        for stream in (False, True):
            r = p.post("/v1/messages", dict(ask, stream=stream))
            equal(r.status, 200)
            m = whole(frames(r.body)) if stream else r.json
            equal([b["type"] for b in m["content"]], ["text", "tool_use", "tool_use"])
            equal((m["content"][0]["text"], m["content"][1]["input"], m["content"][2]["input"]), ("first", {"n": 12345678901}, {}))
            equal((m["type"], m["role"], m["model"], m["stop_reason"], m["stop_sequence"]),
                  ("message", "assistant", "qwen", "tool_use", None))
            true(m["id"].startswith("msg_") and m["usage"]["input_tokens"] > 0 and m["usage"]["output_tokens"] > 0, m)
            sent = newest(w)
            equal(sent["headers"]["authorization"], "Bearer " + UPSTREAM_KEY)
            b = sent["body"]
            equal((b["model"], b["max_tokens"], b["stop"], b["temperature"], b["tool_choice"]),
                  ("qwen3", 64, ["END"], 0.5, "required"))
            equal(b["messages"][0], {"role": "system", "content": "Be brief."})
            equal(b["tools"][0]["function"]["parameters"], {"type": "object"})
        more = dict(ask, messages=ask["messages"] + [
            {"role": "assistant", "content": m["content"]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": b["id"], "content": "paid"}
                                         for b in m["content"][1:]]}])
        r = p.post("/v1/messages", more)
        equal((r.json["content"], r.json["stop_reason"]), ([{"type": "text", "text": "Result: paid\npaid"}], "end_turn"))


@test(model=True)
def translated_text_comes_as_it_is_said(w):
    with passing(w) as p:
        c = p.connect()
        c.request("POST", "/v1/messages", body=json.dumps(body("[[slow 5 ms]] [[think]] [[long 300]]", model="qwen", stream=True)),
                  headers=p.headers({"content-type": "application/json"}))
        r = c.getresponse()
        first = b""
        while b"text_delta" not in first:
            first += r.read(10)
        equal(w.mock.get("/count")["live"], 1)  # while the upstream speaks
        events = frames(first + r.read())
        true(sum(e["type"] == "content_block_delta" for e in events) > 20, len(events))
        m = whole(events)
        equal([b["type"] for b in m["content"]], ["text"])  # reasoning without a signature is not passed on
        true(m["content"][0]["text"].endswith("w299"), m["content"])


@test(model=True)
def translated_errors_have_the_form_of_the_api(w):
    with passing(w) as p:
        for status, type_ in ((529, "overloaded_error"), (400, "invalid_request_error"), (402, "billing_error")):
            r = p.post("/v1/messages", body(f"[[error {status}]]", model="qwen", stream=status == 529))
            equal((r.status, r.error["type"]), (status, type_))
        r = p.post("/v1/messages", body("[[error 500]]", model="qwen"))
        equal((r.status, r.error["type"]), (502, "api_error"))
        r = p.post("/v1/messages", body("[[error stream server_error]] [[long 100]]", model="qwen", stream=True))
        last = frames(r.body)[-1]
        equal((r.status, last["type"], last["error"]["type"]), (200, "error", "api_error"))
        p.refused(400, "POST", "/v1/messages", {"model": "qwen", "messages": [{"role": "user", "content": "x"}]}, names="^max_tokens")
        p.refused(400, "POST", "/v1/messages", body("x", model="qwen", messages=[]), names="^messages")
        p.refused(400, "POST", "/v1/messages", body("x", model="qwen", messages=[{"role": "robot", "content": "x"}]), names=r"messages\.0\.role")
        for stop, reason in (("[[refuse]]", "refusal"), ("[[max]] [[say cut]]", "max_tokens")):
            equal(p.post("/v1/messages", body(stop, model="qwen")).json["stop_reason"], reason)
