"""Images, documents and files in messages and tool results, through to the model: what a provider receives, and what is
refused before it could (API: sessions, content blocks; files)."""
import base64
import json
import os
import shutil
import tempfile
from pathlib import Path

from kit import KEY, NOBODY, UPSTREAM_KEY, Server, World, equal, last, message, said, test, text, true, types, wait
from stage import RETRIES, TOOLSET, answer, asked, custom, go_on, interrupt, needs_sandbox, own, requests

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(range(256))
PDF = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + b"1 0 obj\n<< >>\nendobj\n" * 9 + b"%%EOF\n"
LOCAL = """models = {{ ["local"] = {{ kind = "openai", base_url = "{url}/v1", api_key = "{key}" }},
  route = {{ qwen = "local:qwen3" }} }}"""


def b64(data):
    return base64.b64encode(data).decode()


def upload(w, content, type_, name="a.bin"):
    r = w.upload(name, content, type_)
    equal(r.status, 200, r.body)
    return r.json["id"]


def image(fid):
    return {"type": "image", "source": {"type": "file", "file_id": fid}}


def document(fid, **more):
    return dict({"type": "document", "source": {"type": "file", "file_id": fid}}, **more)


def says(*blocks, prompt="[[say seen]]"):
    return {"type": "user.message", "content": text(prompt) + list(blocks)}


def newest(w, since=0):
    """The newest request of the model server, and its messages as bytes."""
    r = [r for r in requests(w, since) if r["path"].startswith("/v1/")][-1]
    return r, r["raw"][r["raw"].index('"messages":['):]


def received(w, since=0):
    """The content of the newest message that the model was sent."""
    return newest(w, since)[0]["body"]["messages"][-1]["content"]


@test(model=True)
def files_reach_the_model(w):
    csv = "a;b\r\n\u00fc;\u2028\"\\\n"
    png, pdf = upload(w, PNG, "image/png"), upload(w, PDF, "application/pdf")
    plain, data = upload(w, csv.encode(), "text/csv; charset=utf-8"), upload(w, b'{"k": [1]}', "application/json")
    sent = [image(png), document(pdf, title="The pdf", context=None), document(plain, context="Of May."), document(data)]
    s, events = w.turn(says(*sent))
    equal(last(events, "user.message")["content"], text("[[say seen]]") + sent, "the event is as it was sent")
    request, raw = newest(w)
    equal(request["body"]["messages"][-1]["content"], [
        {"type": "text", "text": "[[say seen]]"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PDF)}, "title": "The pdf", "context": None},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": csv}, "context": "Of May."},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": '{"k": [1]}'}}])
    for fid in (png, pdf, plain, data):  # what was sent once is sent again, whatever became of the file
        w.ok("DELETE", "/v1/files/" + fid)
        w.turn(message("[[say on]]"), session=s)
        before, raw = raw, newest(w)[1]
        true(raw.startswith(before[:-2]), "bytes of an earlier request were sent differently")


@test(model=True)
def a_file_twice_and_a_session_s_own_copy(w):
    png = upload(w, PNG, "image/png")
    s = w.session(resources=[{"type": "file", "file_id": png}])
    own_id = s["resources"][0]["file_id"]
    w.turn(says(image(png), image(own_id), image(png)), session=s)
    equal([b["source"]["data"] for b in received(w)[1:]], [b64(PNG)] * 3)
    other = w.session()
    r = w.refused(404, "POST", f"/v1/sessions/{other['id']}/events", {"events": [says(image(own_id))]}, names=r"content\[1\].source.file_id")
    equal(r.error["details"]["field"], "events[0].content[1].source.file_id")
    w.refused(404, "POST", "/v1/sessions", {"agent": w.agent["id"], "environment_id": w.environment["id"],
                                            "initial_events": [says(image(own_id))]}, names=r"initial_events\[0\].content\[1\].source.file_id")


@test(model=True)
def files_in_initial_events(w):
    s = w.session(initial_events=[says(document(upload(w, b"first", "text/plain")))])
    wait(lambda: "session.status_idle" in types(w.events(s)), "the turn")
    equal(received(w)[1]["source"], {"type": "text", "media_type": "text/plain", "data": "first"})


@test(model=True)
def the_same_bytes_after_a_restart(w):
    with own(w, keep=True) as v:
        fids = [upload(v, PNG, "image/png"), upload(v, b"one\n", "text/plain")]
        s, _ = v.turn(says(image(fids[0]), document(fids[1], title="T")))
        first, server = newest(w)[1], v.server
    with own(w, data=server.data, keep=True) as v:
        v.turn(message("[[say on]]"), session=s)
        second = newest(w)[1]
        true(second.startswith(first[:-2]), "bytes of an earlier request were sent differently")
        v.ok("DELETE", "/v1/files/" + fids[0])
    gone = []
    for _ in range(2):  # nothing is left of the file but its id, and that is said, always in the same words
        with own(w, data=server.data, keep=True) as v:
            v.turn(message("[[say on]]"), session=s)
            m = newest(w)[0]["body"]["messages"][0]
            gone.append(json.dumps(m))
            equal(m["content"][1]["type"], "text")
            true(fids[0] in m["content"][1]["text"] and "no such file" in m["content"][1]["text"], m["content"][1])
            equal(m["content"][2]["source"]["data"], "one\n")
    equal(gone[0], gone[1])
    with own(w, data=server.data):
        pass


@test(model=True)
def files_that_are_not_what_they_say(w):
    for content, type_, block, want in (
            (JPEG, "image/png", image, "image/jpeg"), (b"GIF89a" + bytes(9), "image/webp", image, "image/gif"),
            (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp", image, "image/webp"), (b"hello", "image/png", image, "no PNG"),
            (b"hello", "application/pdf", document, "no PDF"), (b"\xff\xfe\0a", "text/plain", document, "UTF-8"),
            (b" \n", "text/plain", document, "empty"), (b"", "image/png", image, "no PNG")):
        fid = upload(w, content, type_)
        _, events = w.turn(says(block(fid)))
        equal(said(events), ["seen"], want)
        got = received(w)[1]
        if want.startswith("image/"):
            equal((got["source"]["media_type"], got["source"]["data"]), (want, b64(content)))
        else:
            equal(got["type"], "text")
            true(fid in got["text"] and want in got["text"], got)


@test(model=True)
def what_no_model_takes_is_refused(w):
    s = w.session()
    odd, png, txt = upload(w, b"\0", "application/octet-stream"), upload(w, PNG, "image/png"), upload(w, b"x", "text/plain")
    big, huge = upload(w, PNG + bytes(3932160), "image/png"), upload(w, PDF + bytes(23 << 20), "application/pdf")
    src = lambda kind, **source: {"type": kind, "source": source}
    for block, field, status in (
            (image("file_" + NOBODY), "file_id", 404), (image("nothing"), "file_id", 404), (document("file_" + NOBODY), "file_id", 404),
            (image(odd), "file_id", 400), (document(odd), "file_id", 400), (image(txt), "file_id", 400), (document(png), "file_id", 400),
            (image(big), "file_id", 400), (document(huge), "file_id", 400), (src("image", type="file"), "file_id", 400),
            (src("image", type="file", file_id=7), "file_id", 400), (src("image", type="url", url="ftp://a/b.png"), "url", 400),
            (src("image", type="url", url="https://"), "url", 400), (src("document", type="url", url="file:///etc/passwd"), "url", 400),
            (src("document", type="url", url="https://a b"), "url", 400), (src("image", type="base64", media_type="application/pdf", data="aGk="), "media_type", 400),
            (src("document", type="base64", media_type="image/png", data="aGk="), "media_type", 400),
            (src("document", type="base64", media_type="application/pdf", data="a"), "data", 400),
            (src("document", type="base64", media_type="text/plain", data="//79"), "data", 400),
            (src("image", type="base64", media_type="image/png", data="A" * ((5 << 20) + 4)), "data", 400),
            (src("document", type="text", media_type="text/plain", data=""), "data", 400)):
        for n, events in ((0, [says(block)]), (1, [message("fine"), says(block)])):
            r = w.refused(status, "POST", f"/v1/sessions/{s['id']}/events", {"events": events})
            equal(r.error["details"]["field"], f"events[{n}].content[1].source.{field}", str(block)[:200])
    for block in (document(txt, title=1), document(txt, context=[])):
        w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": [says(block)]}, names=r"events\[0\].content\[1\]")
    w.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": [says(*[document(txt)] * 1001)]}, names="more than 1000")
    equal(w.events(s), [])
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle")


@test(model=True)
def a_request_has_a_bound(w):
    with own(w, "context = { compact_at_tokens = 100000000 }") as v:
        s, fids = None, [upload(v, (c * 11_000_000).encode(), "text/plain") for c in "abc"]
        for fid in fids:
            s, events = v.turn(says(document(fid)), session=s)
            equal(said(events)[-1], "seen")
        request, raw = newest(w)
        blocks = [m["content"][1] for m in request["body"]["messages"] if m["role"] == "user"]
        equal([b["type"] for b in blocks], ["document", "document", "text"])
        true(fids[2] in blocks[2]["text"] and "too large" in blocks[2]["text"], blocks[2])
        true(len(raw) < 32_000_000)
        _, events = v.turn(message("[[say on]]"), session=s)
        equal(said(events)[-1], "on")


@test(model=True)
def texts_as_base64_go_as_text(w):
    w.turn(says({"type": "document", "source": {"type": "base64", "media_type": "text/markdown", "data": b64("# \u00e9".encode())}, "title": "T"}))
    equal(received(w)[1], {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "# \u00e9"}, "title": "T"})


@test(model=True)
def urls_and_search_results_as_they_are(w):
    blocks = [{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
              {"type": "document", "source": {"type": "url", "url": "http://example.com/a.pdf"}, "title": "A"}]
    w.turn(says(*blocks))
    equal(received(w)[1:], blocks)
    found = {"type": "search_result", "source": "https://e.com", "title": "t", "content": text("c"), "citations": {"enabled": True}}
    s, _, (use,) = asked(w)
    go_on(w, s, dict(answer(use), content=[found]))
    equal(received(w)[0]["content"], [found])


@test(model=True)
def files_in_results(w):
    png, txt = upload(w, PNG, "image/png"), upload(w, b"lines", "text/plain")
    shown = [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}},
             {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "lines"}}]
    for failed in (False, True):
        s, _, (use,) = asked(w, '[[tool lookup {"source":{"type":"file","file_id":"x"}}]] ;; [[say ok]]')
        before = newest(w)[1]
        events = go_on(w, s, dict(answer(use, "see"), content=text("see") + [image(png), document(txt)], is_error=failed))
        equal(said(events)[-1], "ok")
        (result,) = received(w)
        # services refuse pictures in a result that is an error
        equal(result["content"], text("(This call failed.)") * failed + text("see") + shown)
        true("is_error" not in result, "no error flag beside an image")
        true(newest(w)[1].startswith(before[:-2]))
        call = newest(w)[0]["body"]["messages"][1]["content"][0]
        equal(call["input"], {"source": {"type": "file", "file_id": "x"}}, "inputs of calls are left alone")
    r = w.refused(404, "POST", f"/v1/sessions/{asked(w)[0]['id']}/events", {"events": [dict(answer(use), content=[image("file_" + NOBODY)])]})
    equal(r.error["details"]["field"], "events[0].content[0].source.file_id")


@test(model=True)
def chat_completions_get_what_they_can(w):
    with own(w, LOCAL.format(url=w.mock.url, key=UPSTREAM_KEY)) as v:
        a = v.new_agent(model="qwen", tools=[custom()])
        fids = upload(v, PNG, "image/png"), upload(v, b"lines", "text/plain"), upload(v, PDF, "application/pdf")
        link = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
        page = {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}
        s, events = v.turn(says(image(fids[0]), document(fids[1], title="T", context="C"), document(fids[2], title="P"), link, page,
                                prompt='[[think]] [[tool lookup {}]] ;; [[say ok]]'), session=v.session(agent=a["id"]), reason="requires_action")
        shown = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64(PNG)}}
        got = received(w)
        equal(got[1:5] + got[7:8], [shown, *text("C"), *text("T"), *text("lines"), {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}])
        equal(got[5], *text("P"))
        true("PDF" in got[6]["text"] and "cannot" in got[6]["text"], got[6])
        true("https://example.com/a.pdf" in got[8]["text"] and "not fetched" in got[8]["text"], got[8])
        (use,) = [e["id"] for e in events if e["type"] == "agent.custom_tool_use"]
        found = {"type": "search_result", "source": "https://e.com", "title": "t", "content": text("c"), "citations": {"enabled": True}}
        go_on(v, s, dict(answer(use), content=text("see") + [found, image(fids[0]), document(fids[1], title="T")]))
        r, raw = newest(w)
        *_, tool, shows = r["body"]["messages"]
        equal((tool["role"], tool["content"]), ("tool", "see\nt\nhttps://e.com\nc\n[image, see the next message]\nT\nlines"))
        equal((shows["role"], shows["content"]), ("user", [shown]))
        true("signature" not in raw and '"thinking"' not in raw, "thinking that another service signed")


@test(model=True)
def thinking_goes_back_as_it_came(w):
    a = w.new_agent(tools=[custom()])
    s, _, (use,) = asked(w, '[[think \u00fcber "x" \u2028.]] [[redacted]] [[say Looking.]] [[tool lookup {"q":"x"}]] ;; [[think more]] [[say {result}]]',
                         session=w.session(agent=a["id"]))
    go_on(w, s, answer(use))
    blocks = newest(w)[0]["body"]["messages"][1]["content"]
    equal([b["type"] for b in blocks], ["redacted_thinking", "thinking", "text", "tool_use"])
    equal(blocks[1]["thinking"], '\u00fcber "x" \u2028.')
    true(blocks[1]["signature"] and blocks[0]["data"], blocks)  # the model server refuses what it did not sign
    before = newest(w)[1]
    _, events = w.turn(message("[[say on]]"), session=s)
    equal(said(events)[-1], "on")
    true(newest(w)[1].startswith(before[:-2]), "thinking was sent differently")


@test(model=True)
def thinking_and_files_go_with_the_history(w):
    with own(w, "context = { compact_at_tokens = 10000 }") as v:
        txt = upload(v, b"lines of it", "text/plain")
        s, _ = v.turn(says(document(txt), prompt="[[think deep]] [[say a]] [[usage in=20000]]"))
        true("lines of it" in newest(w)[1])
        _, events = v.turn(message("[[say b]]"), session=s)
        true("agent.thread_context_compacted" in types(events), types(events))
        asked_, after = [r for r in requests(w) if r["path"] == "/v1/messages"][-2:]
        true("lines of it" in asked_["raw"] and "deep" in asked_["raw"], "the request for the summary has all of it")
        true("lines of it" not in after["raw"] and "signature" not in after["raw"], "what was summarised")


SCRIPT = """
local rig = require "moonrig"
local png = "%s"
local function tool(name, run)
  rig.tool { name = name, description = name, input_schema = { type = "object" }, run = run }
end
tool("show", function() return { { type = "text", text = "see" },
  { type = "image", source = { type = "base64", media_type = "image/png", data = png } } } end)
tool("file", function(input) return { { type = "document", source = { type = "file", file_id = input.id }, title = "T" } } end)
tool("wrong", function() return { { type = "image", source = { type = "base64", media_type = "image/png", data = "?" } } } end)
tool("rows", function() return { { type = "document", id = 7 } } end)
rig.hook { phase = "context", agent = "watched", run = function(call)
  local kinds = {}
  for _, b in ipairs(call.messages[1].content) do kinds[#kinds + 1] = b.source and b.source.type or b.type end
  table.insert(call.messages[1].content, { type = "text", text = "context: " .. table.concat(kinds, " ") })
  return call.messages
end }
rig.hook { phase = "accept", agent = "adding", run = function(call)
  local kinds, content = {}, call.events[1].content
  for _, b in ipairs(content) do kinds[#kinds + 1] = b.source and b.source.type or b.type end
  content[#content + 1] = { type = "text", text = "accept: " .. table.concat(kinds, " ") }
  local id = content[1].text:match "add (%%S+)"
  if id then content[#content + 1] = { type = "document", source = { type = "file", file_id = id } } end
  return call.events
end }
rig.hook { phase = "model", agent = "watched", run = function(call)
  if call.bytes > 3000 or call.message.content[2].source.type ~= "file" then return false, "it saw the bytes" end
end }
"""


@test(model=True)
def handlers_and_hooks(w):
    script = Path(tempfile.mkdtemp(prefix="moonrig-api-")) / "kinds.lua"
    script.write_text(SCRIPT % b64(PNG))
    server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url},
                    config="{ %s }" % RETRIES, scripts=[str(script)])
    try:
        v = World(server.url, mock=w.mock, server=server)
        tools = [custom(name) for name in ("show", "file", "wrong", "rows")]
        plain = v.new_agent(name="plain", tools=tools)
        txt = upload(v, b"lines " * 1000, "text/plain")
        for call, want, failed in (("show {}", text("see") + [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}}], None),
                                   ('file {"id":"%s"}' % txt, [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "lines " * 1000}, "title": "T"}], None),
                                   ('file {"id":"file_%s"}' % NOBODY, "no such file", None), ("wrong {}", "content[0].source.data must be base64", True),
                                   ("rows {}", '[{"id":7,"type":"document"}]', None)):
            s, events = v.turn(message(f"[[tool {call}]] ;; [[say ok]]"), session=v.session(agent=plain["id"]))
            equal(said(events)[-1], "ok", call)
            (result,) = received(w)
            equal(result.get("is_error"), failed, call)
            if isinstance(want, str):
                true(want in result["content"][0]["text"], result)
            else:
                equal(result["content"], want)
                true(txt not in json.dumps(result))
        watched = v.new_agent(name="watched")
        v.turn(says(document(txt)), session=v.session(agent=watched["id"]))
        got = received(w)
        equal((got[1]["source"]["data"], got[2]["text"]), ("lines " * 1000, "context: text file"))
        adding = v.new_agent(name="adding")
        s, events = v.turn(says(document(txt), prompt=f"add {txt} [[say ok]]"), session=v.session(agent=adding["id"]))
        got = received(w)
        equal([b["type"] for b in got], ["text", "document", "text", "document"])
        equal((got[2]["text"], got[1]["source"]), ("accept: text file", got[3]["source"]))
        equal(got[3]["source"]["data"], "lines " * 1000)
        s = v.session(agent=adding["id"])
        v.refused(404, "POST", f"/v1/sessions/{s['id']}/events", {"events": [message(f"add file_{NOBODY}")]}, names="file_id")
        equal(v.events(s), [])
    finally:
        shutil.rmtree(script.parent)
        equal(server.stop(), 0)


@test(model=True)
def the_sandbox_reads_pictures(w):
    needs_sandbox()
    a = w.new_agent(tools=[TOOLSET])
    s = w.session(agent=a["id"], resources=[{"type": "file", "file_id": upload(w, c, t), "mount_path": p}
                                            for c, t, p in ((PNG, "image/png", "/a.png"), (PDF, "application/pdf", "/a.pdf"))])
    _, events = w.turn(message('[[tools read {"file_path":"/mnt/session/uploads/a.png"} | read {"file_path":"/mnt/session/uploads/a.pdf"}]] ;; [[say ok]]'), session=s)
    equal(said(events)[-1], "ok")
    png, pdf = received(w)
    equal(png["content"], [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(PNG)}}])
    equal(pdf["content"], [{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(PDF)}}])
    equal([e["content"][0]["type"] for e in events if e["type"] == "agent.tool_result"], ["image", "document"])


@test(model=True)
def interrupted_and_stopped_while_files_are_read(w):
    with own(w, keep=True) as v:
        fids = [upload(v, os.urandom(8).hex().encode() * 50000, "text/plain") for _ in range(8)]
        slow = says(*map(document, fids), prompt="[[say late]]")
        for _ in range(10):
            s = v.session()
            v.send(s, slow)
            v.send(s, interrupt())
            wait(lambda: v.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle" and "user.interrupt" in types(v.events(s)), "idle")
            _, events = v.turn(message("[[say on]]"), session=s)
            equal(said(events)[-1], "on")
        sessions = [v.session() for _ in range(5)]
        for s in sessions:
            v.send(s, slow)
        server = v.server
    with own(w, data=server.data) as v:  # what the stop left undone is done
        for s in sessions:
            wait(lambda: "session.status_idle" in types(v.events(s)), "the turn", 60)
            equal(said(v.events(s)), ["late"])
