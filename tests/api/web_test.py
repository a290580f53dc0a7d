"""web_fetch and web_search, end to end: a server of this test plays the web, on the loopback, which the operator lists
(API: resources §3.2, §4.9, items 38 to 43 of its checklist; what the settings may hold: agents_test.py)."""
import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

from kit import Skip, equal, last, message, said, test, text, true, wait
from stage import (TOOLSET, answer, calls, custom, fresh, idles, interrupt, needs_sandbox, own, rules, spawn, agents, status, thread,
                   thread_events)
from transfer_test import export, fork, import_

PRIVATE = {"MOONRIG_ALLOW_PRIVATE_HOSTS": "127.0.0.1"}
PAGE = b"""<!doctype html><html><head><title> A page
 of tests </title><style>p { color: red }</style><script>var secret = "<p>script</p>";</script></head>
<body><nav><a href="/other">Other</a></nav><h1>Head</h1><p>First &amp; <b>bold</b>
   words. <a href="more?x=1#part">More</a></p><p hidden>hidden words</p>
<ul><li>one<li>two <a href='javascript:x()'>no link</a></ul>
<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table><pre>  kept
    as it is</pre><img src=x alt="a picture"></body></html>"""


class Web:
    """The web. pages: path -> (type, body), or a function of the handler."""

    def __init__(self):
        self.pages, self.asked, self.gate = {}, [], threading.Event()
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, body=b""):
                web.asked.append((self.command, self.path, dict(self.headers), body))
                page = web.pages.get(self.path.split("?")[0])
                if callable(page):
                    page(self)
                elif page is None:
                    self.send(404, b"no such page", "text/plain")
                else:
                    self.send(200, page[1], page[0])

            def send(self, status, body=b"", type_=None, **headers):
                self.send_response(status)
                if type_:
                    self.send_header("content-type", type_)
                for k, v in headers.items():
                    self.send_header(k.replace("_", "-"), v)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer(self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def moved(self, path, to):
        self.pages[path] = lambda h: h.send(302, location=to)

    def held(self, path):
        """A page that comes when the gate is open."""
        def page(h):
            self.gate.wait(60)
            h.send(200, b"late words", "text/plain")
        self.pages[path] = page

    def paths(self):
        return [a[1] for a in self.asked]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def web_and(w, config="", **more):
    with Web() as web, own(w, config, **dict(PRIVATE, **more)) as v:
        yield web, v


def fetch(url):
    return "web_fetch", {"url": url}


def search(query):
    return "web_search", {"query": query}


def worker(v, *steps, fetch=None, search=None, tools=(), **fields):
    """An agent that makes these calls, (name, input) or a list of them at once, when it is told to Go."""
    configs = [dict(c, name=n) for n, c in (("web_fetch", fetch), ("web_search", search)) if c]
    do = " ;; ".join(calls(*(s if isinstance(s, list) else [s])) for s in steps)
    return v.new_agent(tools=[dict(TOOLSET, configs=configs), *tools], system=rules(("^Go", do + " ;; [[say Done.]]")), **fields)


def go(v, *steps, says="Go", session=None, environment=None, **settings):
    """The results of these calls, and the session."""
    session = session or v.session(agent=worker(v, *steps, **settings)["id"], **({"environment_id": environment} if environment else {}))
    with v.stream(session) as feed:
        v.send(session, message(says))
        events = feed.until(lambda all_: idles(all_, "end_turn"), "the end of the turn", 120)
    equal(said(events)[-1:], ["Done."])
    return [e for e in events if e["type"] == "agent.tool_result"], session


def failed(result, code, *names):
    (block,) = result["content"]
    true(result["is_error"] is True and block["type"] == "text" and block["text"].startswith(code + ": "), result)
    for n in names:
        true(n in block["text"], block["text"])


def document(result):
    true(not result["is_error"], result)
    (block,) = result["content"]
    equal(block["type"], "document")
    return block


# pages


@test(model=True)
def a_page_as_text(w):
    with web_and(w) as (web, v):
        web.pages["/page"] = ("text/html; charset=utf-8", PAGE)
        (r,), s = go(v, fetch(web.url + "/page"), says=f"Go to {web.url}/page, please.")
        d = document(r)
        equal((d["title"], d["context"]), ("A page of tests", web.url + "/page"))
        equal(d["source"]["media_type"], "text/plain")
        have = d["source"]["data"]
        for words in (f"[Other]({web.url}/other)", "# Head", "First & bold words.", f"[More]({web.url}/more?x=1)", "- one\n- two no link",
                      "a | b\n1 | 2", "```\n  kept\n    as it is\n```", "[image: a picture]"):
            true(words in have, f"{words!r} in {have!r}")
        for words in ("script", "color", "hidden", "javascript", "<"):
            true(words not in have, f"{words!r} in {have!r}")
        use = last(v.events(s), "agent.tool_use")
        equal((use["name"], use["evaluated_permission"]), ("web_fetch", "allow"))
        true("moonrig" in web.asked[0][2]["User-Agent"], web.asked)
        # and the model was given it
        sent = [m for r in v.mock.get("/requests")["requests" if isinstance(v.mock.get("/requests"), dict) else slice(None)] for m in [json.dumps(r)]]
        true(any("kept" in m and "web_fetch" in m for m in sent), "what the model was sent")


@test(model=True)
def texts_of_other_kinds(w):
    kinds = {"/a.txt": ("text/plain", b"plain words"), "/a.md": ("text/markdown", b"# Title\n<b>as it is</b>"),
             "/a.json": ("application/json", b'{"a": [1, 2]}'), "/a.xml": ("application/atom+xml", b"<feed><x>1</x></feed>"),
             "/nothing": ("application/octet-stream", b"words without a type"), "/empty": ("text/plain", b"")}
    with web_and(w) as (web, v):
        web.pages.update(kinds)
        results, _ = go(v, [fetch(web.url + k) for k in kinds], says="Go " + " ".join(web.url + k for k in kinds))
        for (path, (_, body)), r in zip(kinds.items(), results):
            equal(document(r)["source"]["data"], body.decode() or "(There is no text here.)", path)


@test(model=True)
def charsets(w):
    words = "Grüße, żółw, привет, 日本"
    pages = {"/header": ("text/html; charset=ISO-8859-1", "<p>Grüße".encode("latin1"), "Grüße"),
             "/meta": ("text/html", '<meta charset="windows-1251"><p>привет'.encode("cp1251"), "привет"),
             "/equiv": ("text/html", '<meta http-equiv=content-type content="text/html; charset=shift_jis"><p>日本'.encode("shift_jis"), "日本"),
             "/none": ("text/html", f"<p>{words}".encode(), words), "/mark": ("text/plain", words.encode("utf-16"), words),
             "/bad": ("text/plain; charset=utf-8", b"a\xff\x00b\x1b[31mc", "a\ufffdb[31mc"),
             "/odd": ("text/plain; charset=iso-2022-cn-ext", b"plain", "plain"), "/old": ("text/plain", "Grüße".encode("latin1"), "Grüße")}
    with web_and(w) as (web, v):
        web.pages.update({k: p[:2] for k, p in pages.items()})
        results, _ = go(v, [fetch(web.url + k) for k in pages], says="Go " + " ".join(web.url + k for k in pages))
        for (path, page), r in zip(pages.items(), results):
            equal(document(r)["source"]["data"], page[2], path)


@test(model=True)
def pdfs_and_what_is_not_taken(w):
    pdf = b"%PDF-1.4\n" + bytes(range(256))
    with web_and(w) as (web, v):
        web.pages.update({"/a.pdf": ("application/pdf", pdf), "/b": ("application/octet-stream", pdf), "/big.pdf": ("application/pdf", pdf + b"x" * 7864320),
                          "/image": ("image/png", b"\x89PNG\r\n\x1a\n"), "/zip": ("application/zip", b"PK\3\4"), "/bytes": ("", b"\0\1\2\3"),
                          "/no.pdf": ("application/pdf", b"no pdf")})
        wanted = ["/a.pdf", "/b", "/big.pdf", "/image", "/zip", "/bytes", "/no.pdf"]
        results, _ = go(v, [fetch(web.url + k) for k in wanted], says="Go " + " ".join(web.url + k for k in wanted))
        for r in results[:2]:
            equal(document(r)["source"], {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(pdf).decode()})
        failed(results[2], "url_not_accessible", "7864320")
        for r in results[3:]:
            failed(r, "unsupported_content_type")


@test(model=True)
def sizes(w):
    with web_and(w) as (web, v):
        def endless(h):
            h.send_response(200)
            h.send_header("content-type", "text/plain")
            h.send_header("connection", "close")
            h.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(200):
                    h.wfile.write(b"x" * 100000)
            h.close_connection = True

        web.pages["/told"] = ("text/plain", b"x" * (10 * 1024 * 1024 + 1))
        web.pages["/endless"] = endless
        bomb = gzip.compress(b"x" * (50 << 20))
        web.pages["/bomb"] = lambda h: h.send(200, bomb, "text/plain", content_encoding="gzip")
        web.pages["/packed"] = lambda h: h.send(200, gzip.compress(b"packed words"), "text/plain", content_encoding="gzip")
        wanted = ["/told", "/endless", "/bomb", "/packed"]
        results, _ = go(v, [fetch(web.url + k) for k in wanted], says="Go " + " ".join(web.url + k for k in wanted))
        for r in results[:3]:
            failed(r, "url_not_accessible", "10 MiB")
        equal(document(results[3])["source"]["data"], "packed words")
        web.pages["/words"] = ("text/plain", b"word " * 10000)
        (r,), _ = go(v, fetch(web.url + "/words"), says=f"Go {web.url}/words", fetch={"max_content_tokens": 50})
        have = document(r)["source"]["data"]
        true(have.startswith("word word") and len(have) < 400 and "left out" in have, have)


@test(model=True)
def a_body_that_nobody_reads(w):
    """Of an error and of a redirect the head is enough. A body behind it that never ends, packed or not, keeps nobody."""
    packed = gzip.compress(b"x" * (16 << 20))

    with web_and(w) as (web, v):
        def endless(status, piece, **headers):
            def page(h):
                h.send_response(status)
                for k, x in dict(headers, content_type="text/plain", connection="close").items():
                    h.send_header(k.replace("_", "-"), x)
                h.end_headers()
                h.close_connection = True
                with contextlib.suppress(OSError):
                    while not web.gate.is_set():
                        h.wfile.write(piece)
            return page

        web.pages["/end"] = ("text/plain", b"the end")
        web.pages["/plain"] = endless(404, b"x" * 100000)
        web.pages["/packed"] = endless(503, packed, content_encoding="gzip")
        web.pages["/moved"] = endless(302, packed, content_encoding="gzip", location="/end")
        wanted = ["/plain", "/packed", "/moved"]
        results, _ = go(v, [fetch(web.url + k) for k in wanted], says="Go " + " ".join(web.url + k for k in wanted))
        failed(results[0], "url_not_accessible", "HTTP 404")
        failed(results[1], "url_not_accessible", "HTTP 503")
        equal(document(results[2])["source"]["data"], "the end")


@test(model=True)
def a_hostile_page(w):
    """Depth, and end tags without an element: the parser's time is bounded, and the server goes on meanwhile."""
    with web_and(w) as (web, v):
        distinct = b"<p>first words</p><a " + b" ".join(b"a%d" % i for i in range(800000))
        pages = {"/distinct": distinct, "/deep": b"<div>" * 400000 + b"deep", "/ends": b"<p>first words</p>" + b"<div>" * 900 + b"</span>" * 1000000,
                 "/attributes": b"<a " + b"x=1 " * 1000000 + b">x", "/links": b"<p>first words</p>" + b'<a href="/x">y</a>' * 300000,
                 "/comment": b"first words<!--" + b"-" * 4000000, "/entity": b"first words" + b"&#x41" * 1000000}
        web.pages.update({k: ("text/html", p) for k, p in pages.items()})
        results, _ = go(v, [fetch(web.url + k) for k in pages], says="Go " + " ".join(web.url + k for k in pages))
        for r in results:
            true(len(json.dumps(document(r))) < 130000, len(json.dumps(r)))


@test(model=True)
def a_large_page_goes_to_a_file(w):
    """Item 48."""
    needs_sandbox()
    with web_and(w) as (web, v):
        body = b"".join(b"line %d of it\n" % i for i in range(8000))
        web.pages["/long"] = ("text/plain", body)
        (r, listed), s = go(v, fetch(web.url + "/long"), ("bash", {"command": "cat /tmp/tool_output/*.txt | sha256sum"}), says=f"Go {web.url}/long")
        have = document(r)["source"]["data"]
        true(have.startswith("line 0 of it") and have.rstrip().endswith("line 7999 of it") and "/tmp/tool_output/" in have, have[:100])
        true(len(have) < 12000, len(have))
        equal(listed["content"][0]["text"].split()[0], hashlib.sha256(body).hexdigest())


# what fails


@test(model=True)
def what_goes_wrong(w):
    with web_and(w) as (web, v):
        web.pages["/error"] = lambda h: h.send(500, b"secret of the server", "text/plain")
        web.pages["/cut"] = lambda h: (h.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhalf"), setattr(h, "close_connection", True))
        long = web.url + "/" + "x" * 250
        wanted = [web.url + "/none", web.url + "/error", web.url + "/cut", "http://127.0.0.1:1/x", "https://nowhere.invalid/", long, "ftp://example.com/x",
                  "http://a:b@127.0.0.1/", "not a url"]
        results, s = go(v, [fetch(u) for u in wanted] + [("web_fetch", {}), ("web_fetch", {"url": 7})], says="Go " + " ".join(wanted))
        codes = ["url_not_accessible"] * 5 + ["url_too_long"] + ["invalid_tool_input"] * 5
        for code, r in zip(codes, results):
            failed(r, code)
        failed(results[0], "url_not_accessible", "404")
        true("secret" not in json.dumps(results), results[1])
        equal(len(results), len(codes))
        _, events = v.turn(message("[[say still here]]"), session=s)
        equal(said(events), ["still here"])


@test(model=True)
def redirects(w):
    """32, as a model would try it."""
    with web_and(w) as (web, v):
        web.pages["/end"] = ("text/plain", b"the end")
        for i in range(5):
            web.moved(f"/r{i}", f"/r{i + 1}" if i < 4 else web.url + "/end")
        for i in range(20):
            web.moved(f"/s{i}", f"s{i + 1}")
        inward = {"/loop": f"http://127.0.0.2:{web.port}/end", "/meta": "http://169.254.169.254/latest/", "/six": "http://[::1]/", "/file": "file:///etc/passwd",
                  "/gopher": f"gopher://127.0.0.1:{web.port}/_x", "/user": f"http://a:b@127.0.0.1:{web.port}/end"}
        for path, to in inward.items():
            web.moved(path, to)
        wanted = ["/r0", "/s0", *inward]
        results, _ = go(v, [fetch(web.url + p) for p in wanted], says="Go " + " ".join(web.url + p for p in wanted))
        d = document(results[0])
        equal((d["source"]["data"], d["context"]), ("the end", web.url + "/end"))
        failed(results[1], "url_not_accessible", "redirects")
        equal(web.paths().count("/s5"), 1)
        equal(web.paths().count("/s6"), 0)
        for r in results[2:]:
            failed(r, "url_not_allowed")
        failed(results[2], "url_not_allowed", "127.0.0.2", "loopback")
        failed(results[3], "url_not_allowed", "link-local")


@test(model=True)
def addresses_inside_are_refused(w):
    """Without a word of the operator the loopback is no web; with it only what is listed."""
    with Web() as web, own(w) as v:
        web.pages["/x"] = ("text/plain", b"inside")
        forms = [f"http://127.0.0.1:{web.port}/x", f"http://localhost:{web.port}/x", f"http://2130706433:{web.port}/x", f"http://0x7f.1:{web.port}/x",
                 f"http://[::ffff:127.0.0.1]:{web.port}/x", f"http://0.0.0.0:{web.port}/x", "http://169.254.169.254/x", v.url + "/health"]
        results, _ = go(v, [fetch(u) for u in forms], says="Go " + " ".join(forms))
        for r in results:
            failed(r, "url_not_allowed", "may not be reached")
        equal(web.asked, [])


# which URLs


@test(model=True)
def only_urls_of_the_conversation(w):
    with web_and(w) as (web, v):
        web.pages["/a"] = ("text/html", b'<a href="/linked">x</a>')
        web.pages["/linked"] = web.pages["/b"] = web.pages["/c"] = ("text/plain", b"words")
        steps = [fetch(web.url + "/b"), fetch(web.url + "/a?q=secret"), fetch(web.url + "/a"), fetch(web.url + "/linked#part")]
        (b, q, a, linked), s = go(v, *steps, says=f"Go and see ({web.url}/a).")
        failed(b, "url_not_in_prior_context")
        failed(q, "url_not_in_prior_context")
        document(a)
        document(linked)
        equal(web.paths(), ["/a", "/linked"])
        # what a model or the sandbox says is no source; a later message is one, to the same session too
        s2 = v.session(agent=worker(v, fetch(web.url + "/b"))["id"])
        (first,), _ = go(v, session=s2)
        failed(first, "url_not_in_prior_context")
        (second,), _ = go(v, session=s2, says=f"Go: 127.0.0.1:{web.port}/b, or {web.url}/b?x.")
        failed(second, "url_not_in_prior_context")
        (third,), _ = go(v, session=s2, says=f"Go: <{web.url}/b>")
        document(third)


@test(model=True)
def urls_after_a_restart_and_in_a_copy(w):
    with Web() as web:
        web.pages["/a"] = web.pages["/b"] = ("text/plain", b"words")
        with own(w, keep=True, **PRIVATE) as v:
            agent = worker(v, fetch(web.url + "/a"), fetch(web.url + "/b"))
            (a, b), s = go(v, session=v.session(agent=agent["id"]), says=f"Go {web.url}/a")
            document(a)
            failed(b, "url_not_in_prior_context")
        with own(w, data=v.server.data, **PRIVATE) as v2:
            (a, b), _ = go(v2, session=s)
            document(a)
            failed(b, "url_not_in_prior_context")
            for copy in (fork(v2, s), import_(v2, export(v2, s))):
                (a, b), _ = go(v2, session=copy)
                document(a)
                failed(b, "url_not_in_prior_context")


@test(model=True)
def sources_of_urls(w):
    """Item 43: each source can be closed, and results of tools be named."""
    with Web() as web:
        web.pages.update({f"/{n}": ("text/plain", b"words") for n in ("user", "client", "other", "found", "page2")})
        web.pages["/page"] = ("text/html", b'<a href="/page2">x</a>')
        web.pages["/search"] = lambda h: h.send(200, json.dumps({"results": [{"url": web.url + "/found", "title": "T", "content": "C"}]}).encode(),
                                                "application/json")
        with own(w, 'web = { search = { url = "%s/search?q={query}" } }' % web.url, **PRIVATE) as v:
            ref = lambda kind, *names: {"type": kind, "tools": [{"type": "tool_reference", "name": n} for n in names]}
            everything = {"user", "client", "other", "found", "page2"}
            for sources, open_ in ((None, everything),
                                   ({"user_input": "none"}, everything - {"user", "page2"}),
                                   ({"client_tool_results": "none"}, everything - {"client", "other"}),
                                   ({"client_tool_results": ref("only", "lookup")}, everything - {"other"}),
                                   ({"client_tool_results": ref("except", "lookup")}, everything - {"client"}),
                                   ({"server_tool_results": "none"}, everything - {"found", "page2"}),
                                   ({"server_tool_results": ref("only", "web_search")}, everything - {"page2"}),
                                   ({"server_tool_results": ref("except", "web_search")}, everything - {"found"})):
                steps = [[("lookup", {}), ("second", {}), search("x"), fetch(web.url + "/page")],
                         [fetch(f"{web.url}/{n}") for n in ("user", "client", "other", "found", "page2")]]
                agent = worker(v, *steps, tools=[custom("lookup"), custom("second")], fetch={"url_sources": sources})
                s = v.session(agent=agent["id"])
                with v.stream(s) as feed:
                    v.send(s, message(f"Go {web.url}/user {web.url}/page"))
                    feed.until(lambda all_: idles(all_, "requires_action"), "the calls")
                    for use in [e for e in feed.events if e["type"] == "agent.custom_tool_use"]:
                        v.send(s, answer(use["id"], f"see {web.url}/" + ("client" if use["name"] == "lookup" else "other")))
                    feed.until(lambda all_: idles(all_, "end_turn"), "the end")
                    results = [e for e in feed.events if e["type"] == "agent.tool_result"][-5:]
                for name, r in zip(("user", "client", "other", "found", "page2"), results):
                    if name in open_:
                        document(r)
                    else:
                        failed(r, "url_not_in_prior_context")


def named(*names):
    helper = Path(__file__).resolve().parent / "names.py"
    under = (sys.executable, str(helper), ",".join(names), "--")
    if subprocess.run([*under, "/bin/true"]).returncode == 77:
        raise Skip("no namespaces for hosts of one's own on this machine")
    return under


HOSTS = ("example.com", "docs.example.com", "www.example.com", "other.org", "ample.com")


@test(model=True)
def domains(w):
    """Items 41, 42; a redirect is bound by them, too."""
    with Web() as web, own(w, under=named(*HOSTS), **PRIVATE) as v:
        web.pages["/"] = ("text/plain", b"words")
        web.moved("/out", f"http://other.org:{web.port}/")
        web.moved("/in", f"http://www.example.com:{web.port}/")
        urls = [f"http://{h}:{web.port}/" for h in HOSTS] + [f"http://docs.example.com:{web.port}/out", f"http://docs.example.com:{web.port}/in"]
        for settings, open_ in (({}, [1, 1, 1, 1, 1, 1, 1]),
                                ({"allowed_domains": ["example.com"]}, [1, 1, 1, 0, 0, 0, 1]),
                                ({"allowed_domains": ["docs.example.com", "other.org"]}, [0, 1, 0, 1, 0, 1, 0]),
                                ({"blocked_domains": ["DOCS.example.com"]}, [1, 0, 1, 1, 1, 0, 0]),
                                ({"blocked_domains": ["example.com", "other.org"]}, [0, 0, 0, 0, 1, 0, 0])):
            results, _ = go(v, [fetch(u) for u in urls], says="Go " + " ".join(urls), fetch=settings)
            for url, yes, r in zip(urls, open_, results):
                if yes:
                    equal(document(r)["source"]["data"], "words")
                else:
                    failed(r, "url_not_allowed")
        (r,), _ = go(v, fetch(web.url + "/"), says=f"Go {web.url}/", fetch={"allowed_domains": ["example.com"]})
        failed(r, "url_not_allowed")


@test(model=True)
def domains_of_a_child(w):
    """Allowed ones intersect, blocked ones add up; the nearest of the other settings counts."""
    with Web() as web, own(w, under=named(*HOSTS), **PRIVATE) as v:
        web.pages["/"] = ("text/plain", b"words " * 1000)
        urls = [f"http://{h}:{web.port}/" for h in HOSTS]
        for above, own_, open_, short in (({"allowed_domains": ["example.com"]}, {"allowed_domains": ["docs.example.com", "other.org"]}, [0, 1, 0, 0, 0], False),
                                          ({"blocked_domains": ["docs.example.com"]}, {"blocked_domains": ["other.org"]}, [1, 0, 1, 0, 1], False),
                                          ({"allowed_domains": ["other.org"]}, {"allowed_domains": ["example.com"]}, [0, 0, 0, 0, 0], False),
                                          ({"allowed_domains": ["example.com"], "max_content_tokens": 10}, {}, [1, 1, 1, 0, 0], True),
                                          ({"max_content_tokens": 10}, {"max_content_tokens": 100000}, [1, 1, 1, 1, 1], False)):
            name = fresh("child")
            child = worker(v, [fetch(u) for u in urls], name=name, fetch=own_)
            config = [dict(above, name="web_fetch")]
            lead = agents(v, child["id"], system=rules(("^Begin", calls(spawn(name, "Go")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")),
                          tools=[dict(TOOLSET, configs=config)])
            s = v.session(agent=lead["id"])
            with v.stream(s) as feed:
                v.send(s, message("Begin " + " ".join(urls)))
                feed.until(lambda all_: "Heard." in said(all_) and idles(all_, "end_turn"), "the end", 60)
            results = [e for e in thread_events(v, s, thread(v, s, name)) if e["type"] == "agent.tool_result"]
            equal(len(results), len(urls))
            for yes, r in zip(open_, results):
                if yes:
                    equal(len(document(r)["source"]["data"]) < 200, short)
                else:
                    failed(r, "url_not_allowed")


# searching


def engine(web, results, key="results"):
    web.pages["/search"] = lambda h: h.send(200, json.dumps({key: results}).encode(), "application/json")


@test(model=True)
def a_search(w):
    with Web() as web:
        engine(web, [{"url": f"https://site{i}.example.com/a", "title": f"Title {i}", "content": "words\n here"} for i in range(30)] +
               [{"url": "javascript:x", "title": "no"}, "nothing"])
        with own(w, 'web = { search = { url = "%s/search?format=json&q={query}&c={country}&city={city}&n={count}", headers = { ["X-Key"] = os.getenv("SEARCH_KEY") } } }, prices = { search_usd_per_1000 = 1000 }'
                 % web.url, SEARCH_KEY="the key", **PRIVATE) as v:
            (r,), s = go(v, search("  what is a/b & c?"), search={"user_location": {"type": "approximate", "country": "NO", "timezone": "Europe/Oslo"}})
            true(not r["is_error"], r)
            equal(r["content"][0], {"type": "search_result", "source": "https://site0.example.com/a", "title": "Title 0",
                                    "content": [{"type": "text", "text": "words\n here"}], "citations": {"enabled": False}})
            equal(len(r["content"]), 10)
            (method, path, headers, _), = web.asked
            equal(urllib.parse.parse_qsl(urllib.parse.urlsplit(path).query), [("format", "json"), ("q", "what is a/b & c?"), ("c", "NO"), ("n", "10")])
            equal((method, headers["X-Key"]), ("GET", "the key"))
            usage = last(v.events(s), "session.usage")["usage"]
            equal(usage["server_tool_use"], {"web_search_requests": 1, "web_fetch_requests": 0})
            true(100 <= int(usage["list_cost"]["amount"]) < 110, usage)


@test(model=True)
def a_search_by_post(w):
    with Web() as web:
        web.pages["/search"] = lambda h: h.send(200, json.dumps({"web": {"found": [{"link": "https://a.example.com/", "name": "A", "about": {"lines": ["b", "c"]}}]}}).encode(),
                                                "application/json")
        config = """web = { search = { url = "%s/search", body = { q = "{query}", num = "{count}", gl = "{country}", deep = { "{query}!" } },
                     results = "web.found", fields = { url = "link", title = "name", text = "about.lines" }, max_results = 3 } }""" % web.url
        with own(w, config, **PRIVATE) as v:
            (r,), _ = go(v, search('say "hi"'))
            equal([(b["source"], b["title"], b["content"][0]["text"]) for b in r["content"]], [("https://a.example.com/", "A", "b\nc")])
            (method, _, headers, body), = web.asked
            equal((method, json.loads(body)), ("POST", {"q": 'say "hi"', "num": 3, "deep": ['say "hi"!']}))
            equal(headers["Content-Type"], "application/json")


@test(model=True)
def domains_of_a_search(w):
    with Web() as web:
        engine(web, [{"url": u, "title": u, "content": "x"} for u in ("https://example.com/blog/1", "https://example.com/blogs", "https://docs.example.com/blog",
                                                                    "https://other.org/", "https://ample.com/blog")])
        with own(w, 'web = { search = { url = "%s/search?q={query}" } }' % web.url, **PRIVATE) as v:
            for settings, want in (({"allowed_domains": ["example.com/blog"]}, ["https://example.com/blog/1", "https://docs.example.com/blog"]),
                                   ({"blocked_domains": ["example.com", "other.org/"]}, ["https://ample.com/blog"]), ({"allowed_domains": ["nobody.net"]}, None)):
                (r,), _ = go(v, search("x"), search=settings)
                if want:
                    equal([b["source"] for b in r["content"]], want)
                else:
                    equal(r["content"], text("No results."))
                    true(not r["is_error"], r)


@test(model=True)
def searches_that_fail(w):
    with own(w) as v:
        (r,), _ = go(v, search("x"))
        failed(r, "unavailable", "web.search.url")
    with Web() as web:
        with own(w, 'web = { search = { url = "%s/search?q={query}" } }' % web.url, **PRIVATE) as v:
            for page, code in ((lambda h: h.send(429), "too_many_requests"), (lambda h: h.send(401, b"the secret reason"), "unavailable"),
                               (lambda h: h.send(302, location=web.url + "/moved"), "unavailable"), (("text/html", b"<html>"), "unavailable"),
                               (("application/json", b'{"results": 7}'), "unavailable"), (lambda h: h.send(414), "request_too_large"),
                               (("application/json", b'{"results": [' + b" " * (1 << 20) + b"]}"), "unavailable")):
                web.pages["/search"] = page
                (r,), _ = go(v, search("x"))
                failed(r, code)
                true("secret" not in json.dumps(r), r)
            true("/moved" not in web.paths(), web.paths())
            results, _ = go(v, [search(""), search("x" * 501), ("web_search", {})])
            for r, code in zip(results, ("invalid_tool_input", "query_too_long", "invalid_tool_input")):
                failed(r, code)
    for bad, names in (('url = "ftp://x/{query}"', "web.search.url"), ('url = "https://x/"', "query"), ('url = "https://x/{query}", headers = { a = 7 }', "headers"),
                       ('url = "https://x/{query}", more = 1', "web.search.more")):
        try:
            with own(w, "web = { search = { %s } }" % bad):
                raise RuntimeError("it starts")
        except AssertionError as e:
            true(names in str(e), e)


# the life of a call


@test(model=True)
def an_interrupt_gives_a_fetch_up(w):
    with web_and(w) as (web, v):
        web.held("/held")
        s = v.session(agent=worker(v, [fetch(web.url + "/held")])["id"])
        with v.stream(s) as feed:
            v.send(s, message(f"Go {web.url}/held"))
            wait(lambda: "/held" in web.paths(), "the request")
            v.send(s, interrupt())
            feed.until(lambda all_: idles(all_, "end_turn"), "the idle")
            r = last(feed.events, "agent.tool_result")
        true(r["is_error"] and "interrupted" in r["content"][0]["text"], r)
        web.gate.set()
        web.pages["/other"] = ("text/plain", b"words")
        (r,), _ = go(v, fetch(web.url + "/other"), says=f"Go {web.url}/other")
        document(r)


@test(model=True)
def many_at_once(w):
    """Four of a session at a time; the others wait in line, and other sessions have places of their own."""
    with web_and(w) as (web, v):
        paths = [f"/held{i}" for i in range(10)]
        for p in paths:
            web.held(p)
        web.pages["/quick"] = ("text/plain", b"words")
        s = v.session(agent=worker(v, [fetch(web.url + p) for p in paths])["id"])
        with v.stream(s) as feed:
            v.send(s, message("Go " + " ".join(web.url + p for p in paths)))
            wait(lambda: len(web.paths()) == 4, "four requests")
            (r,), _ = go(v, fetch(web.url + "/quick"), says=f"Go {web.url}/quick")
            document(r)
            equal(len(web.paths()), 5)
            web.gate.set()
            feed.until(lambda all_: idles(all_, "end_turn"), "the end")
            results = [e for e in feed.events if e["type"] == "agent.tool_result"]
        equal([document(r)["source"]["data"] for r in results], ["late words"] * 10)


@test(model=True)
def a_fetch_that_a_crash_cut(w):
    with Web() as web:
        web.held("/held")
        with contextlib.suppress(AssertionError):
            with own(w, keep=True, **PRIVATE) as v:
                s = v.session(agent=worker(v, fetch(web.url + "/held"))["id"])
                v.send(s, message(f"Go {web.url}/held"))
                wait(lambda: "/held" in web.paths(), "the request")
                v.server.process.send_signal(signal.SIGKILL)
        with own(w, data=v.server.data, **PRIVATE) as v2:
            wait(lambda: status(v2, s) == "idle", "idle", 60)
            events = v2.events(s)
            r = last(events, "agent.tool_result")
            true(r["is_error"] and "interrupted" in r["content"][0]["text"], r)
            equal(said(events), ["Done."])
            equal(web.paths(), ["/held"])


def listens(v):
    try:
        socket.create_connection((v.host, v.port)).close()
    except OSError:
        return False
    return True


@test(model=True)
def a_stop_waits_for_a_fetch(w):
    with Web() as web:
        web.held("/held")
        with own(w, keep=True, **PRIVATE) as v:
            s = v.session(agent=worker(v, fetch(web.url + "/held"))["id"])
            v.send(s, message(f"Go {web.url}/held"))
            wait(lambda: "/held" in web.paths(), "the request")
            v.server.process.send_signal(signal.SIGTERM)
            wait(lambda: not listens(v), "the stop")
            web.gate.set()
            equal(v.server.process.wait(60), 0)
        with own(w, data=v.server.data, **PRIVATE) as v2:
            wait(lambda: status(v2, s) == "idle", "idle", 60)
            equal(document(last(v2.events(s), "agent.tool_result"))["source"]["data"], "late words")


@test(model=True)
def self_hosted(w):
    """The server runs them; the client runs the others."""
    with web_and(w) as (web, v):
        web.pages["/x"] = ("text/plain", b"words")
        env = v.ok("POST", "/v1/environments", {"name": "theirs", "config": {"type": "self_hosted"}})["id"]
        (r,), s = go(v, fetch(web.url + "/x"), says=f"Go {web.url}/x", environment=env)
        equal(document(r)["source"]["data"], "words")
        agent = worker(v, [fetch(web.url + "/x"), ("bash", {"command": "true"})])
        s = v.session(agent=agent["id"], environment_id=env)
        with v.stream(s) as feed:
            v.send(s, message(f"Go {web.url}/x"))
            idle = feed.until(lambda all_: idles(all_, "requires_action"), "the client's part")
            use = {e["name"]: e["id"] for e in feed.events if e["type"] == "agent.tool_use"}
            equal(idles(idle)[-1]["stop_reason"]["event_ids"], [use["bash"]])
            v.refused(400, "POST", f"/v1/sessions/{s['id']}/events", {"events": [{"type": "user.tool_result", "tool_use_id": use["web_fetch"], "content": text("mine")}]})
            v.send(s, {"type": "user.tool_result", "tool_use_id": use["bash"], "content": text("yours")})
            feed.until(lambda all_: idles(all_, "end_turn"), "the end")


@test(model=True)
def they_ask_and_are_disabled_as_others(w):
    with web_and(w) as (web, v):
        web.pages["/x"] = ("text/plain", b"words")
        s = v.session(agent=worker(v, fetch(web.url + "/x"), fetch={"permission_policy": {"type": "always_ask"}})["id"])
        with v.stream(s) as feed:
            v.send(s, message(f"Go {web.url}/x"))
            feed.until(lambda all_: idles(all_, "requires_action"), "the ask")
            equal(web.asked, [])
            v.send(s, {"type": "user.tool_confirmation", "tool_use_id": last(feed.events, "agent.tool_use")["id"], "result": "allow"})
            feed.until(lambda all_: idles(all_, "end_turn"), "the end")
            document(last(feed.events, "agent.tool_result"))
        (r,), _ = go(v, fetch(web.url + "/x"), says=f"Go {web.url}/x", fetch={"enabled": False})
        true(r["is_error"] and "denied" in r["content"][0]["text"], r)
