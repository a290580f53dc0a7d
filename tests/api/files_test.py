"""Files and the file resources of sessions (API: resources, files and session resources)."""
import hashlib
import json
import os
import subprocess

from kit import BIN, NOBODY, equal, last, message, test, true, wait


@test
def resources_106_file_names(w):
    for given, want in (("a.txt", "a.txt"), ("dir/a.txt", "a.txt"), ("/x/y/z.csv", "z.csv"), ("Ünïcode – ✓.txt", "Ünïcode – ✓.txt"),
                        ("a b.txt", "a b.txt"), ("no-extension", "no-extension"), ("x" * 255, "x" * 255)):
        f = w.upload(given).json
        equal(f["filename"], want)
    for given in ("", None):
        f = w.upload(given).json
        true(f["filename"].startswith("unnamed"), f["filename"])
    for given in ("a:b", "a<b", "a|b", "a?b", "a*b", "x" * 256, "a\x01b", "a>b"):
        r = w.upload(given)
        true(r.status == 400, f"{given!r}: {r.status} {r.body[:200]!r}")
        equal(r.error["type"], "invalid_request_error")


@test
def a_file(w):
    content = os.urandom(100000)
    f = w.upload("data.bin", content, "application/octet-stream").json
    equal({k: f[k] for k in ("type", "filename", "mime_type", "size_bytes", "downloadable", "expires_at")},
          {"type": "file", "filename": "data.bin", "mime_type": "application/octet-stream", "size_bytes": 100000,
           "downloadable": False, "expires_at": None})
    equal(w.ok("GET", f"/v1/files/{f['id']}"), f)
    equal(w.upload("x.bin", b"", None).json["mime_type"], "application/octet-stream")
    equal(w.upload("x.bin", b"").json["size_bytes"], 0)
    equal(w.ok("DELETE", f"/v1/files/{f['id']}"), {"id": f["id"], "type": "file_deleted"})
    w.refused(404, "GET", f"/v1/files/{f['id']}")
    w.refused(404, "DELETE", f"/v1/files/{f['id']}")


@test
def large_files_stream(w):
    size = 64 << 20
    f = w.upload("large.bin", b"0123456789abcdef" * (size // 16), "application/octet-stream").json
    equal(f["size_bytes"], size)
    if w.server:
        peak = [int(x.split()[1]) for x in open(f"/proc/{w.server.process.pid}/status") if x.startswith("VmHWM")][0]
        if "asan" not in os.environ.get("MOONRIG_FLAVOR", ""):
            true(peak < 160 * 1024, f"an upload of 64 MB was streamed, not kept: {peak} KiB at most")
    w.ok("DELETE", f"/v1/files/{f['id']}")


@test
def resources_107_ids(w):
    a, b = w.upload("a").json["id"], w.upload("b").json["id"]
    for q in (f"ids[]={a}&ids[]={b}", f"ids%5B%5D={a}&ids%5B%5D={b}", f"ids={a}&ids={b}", f"ids[]={a}&ids[]={b}&ids[]={a}&ids[]=file_{NOBODY}"):
        j = w.ok("GET", "/v1/files?" + q)
        equal((sorted(f["id"] for f in j["data"]), j["next_page"]), (sorted([a, b]), None), q)
    w.refused(400, "GET", f"/v1/files?ids[]={a}&limit=5", names="ids|limit")
    page = w.ok("GET", "/v1/files?limit=1")["next_page"]
    w.refused(400, "GET", f"/v1/files?ids[]={a}&page={page}", names="ids|page")
    equal(w.ok("GET", f"/v1/files?ids[]=file_{NOBODY}")["data"], [])
    many = "&".join(f"ids[]=file_01{i:022d}".replace("0", "1") for i in range(101))
    true(w.get("/v1/files?" + many).status in (200, 400), "many ids")


@test
def resources_108_uploads_cannot_be_downloaded(w):
    f = w.upload().json
    equal(w.refused(400, "GET", f"/v1/files/{f['id']}/content").code(), "file_not_downloadable")
    w.refused(404, "GET", f"/v1/files/file_{NOBODY}/content")


@test(model=True)
def resources_108_and_111_outputs_can(w):
    if not sandboxed(w):
        return
    s = w.session(agent=w.new_agent(tools=[{"type": "agent_toolset_20260401"}])["id"])
    cmd = "seq 1 1000 > /mnt/session/outputs/numbers.txt"
    w.turn(message('[[tool bash {"command":"%s"}]] ;; [[say done]]' % cmd), session=s)
    path = f"/v1/files?scope_id={s['id']}"
    found = wait(lambda: w.ok("GET", path)["data"], "the output to be listed", 30)
    equal([(f["filename"], f["downloadable"], f["scope"]) for f in found], [("numbers.txt", True, {"type": "session", "id": s["id"]})])
    content = "".join(f"{i}\n" for i in range(1, 1001)).encode()
    r = w.get(f"/v1/files/{found[0]['id']}/content")
    equal((r.status, r.body, found[0]["size_bytes"]), (200, content, len(content)))
    true("numbers.txt" in r.headers["content-disposition"], r.headers)
    true(not r.headers["content-type"].startswith("application/json"), r.headers)
    head = w.ask("HEAD", f"/v1/files/{found[0]['id']}/content")
    equal((head.status, head.body, head.headers.get("content-length")), (200, b"", str(len(content))))
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    wait(lambda: w.get(f"/v1/files/{found[0]['id']}").status == 404, "the output to go with its session")


def sandboxed(w):
    return json.loads(subprocess.run([BIN, "doctor", "--json"], capture_output=True, text=True).stdout)["sandbox"] == "ok"


@test
def resources_109_expiry(w):
    for seconds in (3599, 0, -1, 7776001, "x", "", 1e9):
        r = w.upload(fields=[("expires_in_seconds", seconds)])
        true(r.status == 400, f"{seconds}: {r.status}")
        true("expires_in_seconds" in r.error["message"], r.error)
    f = w.upload(fields=[("expires_in_seconds", 3600)]).json
    true(f["expires_at"] > f["created_at"], f)
    w.upload(fields=[("colour", "red"), ("expires_in_seconds", 7776000)]).json["expires_at"]


@test
def files_page(w):
    made = [w.upload(f"page-{i}").json["id"] for i in range(5)]
    for limit in (1, 2, 5, 1000):
        equal([f["id"] for f in w.all(f"/v1/files?limit={limit}")][:5], made[::-1])
    w.refused(400, "GET", "/v1/files?limit=1001", names="limit")
    w.refused(400, "GET", "/v1/files?limit=0", names="limit")
    w.refused(400, "GET", "/v1/files?scope_id=agent_x", names="scope_id")


@test
def bad_uploads(w):
    kind = "multipart/form-data; boundary=b"
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx'
    cases = [
        (None, b"x"), ("application/json", b"{}"), ("multipart/form-data", part + b"\r\n--b--\r\n"), (kind, b""), (kind, b"--b--\r\n"),
        (kind, part), (kind, part + b"\r\n--b"), (kind, b"no boundary at all"),
        (kind, b'--b\r\ncontent-disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n'),
        (kind, part + b'\r\n--b\r\ncontent-disposition: form-data; name="file"; filename="b"\r\n\r\ny\r\n--b--\r\n'),
        (kind, b"--b\r\n" + b"x-long: " + b"a" * 100000 + b"\r\n\r\nx\r\n--b--\r\n"), (kind, b"--b\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=" + "b" * 300, part), ("multipart/form-data; boundary=", part), ("multipart/mixed; boundary=b", part + b"\r\n--b--\r\n"),
    ]
    before = len(w.all("/v1/files?limit=1000"))
    for type_, body in cases:
        r = w.ask("POST", "/v1/files", body=body, headers={"content-type": type_})
        true(400 <= r.status < 500, f"{type_} {body[:80]!r}: {r.status} {r.body[:200]!r}")
        true(r.error["message"], r.body)
    equal(len(w.all("/v1/files?limit=1000")), before, "a refused upload leaves no file")


@test
def broken_uploads_leave_nothing(w):
    before = len(w.all("/v1/files?limit=1000"))
    head = (f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {w.key}\r\nanthropic-version: 2023-06-01\r\n"
            "content-type: multipart/form-data; boundary=b\r\ncontent-length: 1000000\r\n\r\n").encode()
    part = b'--b\r\ncontent-disposition: form-data; name="file"; filename="half"\r\n\r\n' + b"x" * 300000
    for cut in (len(head), len(head) + 20, len(head) + len(part) // 2, len(head) + len(part)):
        w.raw((head + part)[:cut])
    equal(len(w.all("/v1/files?limit=1000")), before)
    if w.server:
        blobs = w.server.data / "blobs"
        wait(lambda: not [p for p in blobs.rglob("*") if p.is_file() and p.stat().st_size in range(1, 300001) and b"xxxxxxxx" in p.read_bytes()[:64]],
             "the halves to be swept")


@test
def odd_but_valid_multipart(w):
    body = (b"preamble, to be ignored\r\n--b\r\nContent-Type: text/plain\r\nCONTENT-DISPOSITION: form-data; filename=plain.txt; name=file\r\n\r\n"
            b"line\r\n--bnot the boundary\r\n--b --\r\nend\r\n--b--\r\nepilogue")
    r = w.ask("POST", "/v1/files", body=body, headers={"content-type": 'multipart/form-data; charset=utf-8; boundary="b"'})
    true(r.status in (200, 400), r.status)
    c = w.connect()
    whole = b'--b\r\ncontent-disposition: form-data; name="file"; filename="drip.txt"\r\n\r\n' + b"\r\n--\r\n-b\r\n--" * 50 + b"\r\n--b--\r\n"
    c.putrequest("POST", "/v1/files")
    for k, v in w.headers({"content-type": "multipart/form-data; boundary=b", "content-length": str(len(whole))}).items():
        c.putheader(k, v)
    c.endheaders()
    for i in range(0, len(whole), 7):
        c.send(whole[i:i + 7])
    r = c.getresponse()
    equal(r.status, 200)
    equal(json.loads(r.read())["size_bytes"], 12 * 50)
    c.close()


@test
def resources_110_session_files(w):
    f = w.upload("data.csv", b"a,b\n").json
    s = w.session(resources=[{"type": "file", "file_id": f["id"], "mount_path": "/data.csv"}, {"type": "file", "file_id": f["id"]},
                             {"type": "file", "file_id": f["id"], "mount_path": "/mnt/session/uploads/deep/er/x.csv"},
                             {"type": "file", "file_id": f["id"], "mount_path": "rel.csv"}, {"type": "file", "file_id": f["id"], "mount_path": None}][:4])
    equal([r["mount_path"] for r in s["resources"]], ["/mnt/session/uploads/data.csv", f"/mnt/session/uploads/{f['id']}",
                                                      "/mnt/session/uploads/deep/er/x.csv", "/mnt/session/uploads/rel.csv"])
    ids = [r["file_id"] for r in s["resources"]]
    true(f["id"] not in ids and len(set(ids)) == 4, "each its own copy")
    equal({k for r in s["resources"] for k in r}, {"type", "id", "file_id", "mount_path", "created_at", "updated_at"})
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["resources"], s["resources"])
    equal(w.all(f"/v1/sessions/{s['id']}/resources?limit=1"), s["resources"])
    equal(w.all(f"/v1/sessions/{s['id']}/resources"), s["resources"])
    make = lambda **r: {"agent": w.agent["id"], "environment_id": w.environment["id"], "resources": [dict({"type": "file", "file_id": f["id"]}, **r)]}
    for path in ("../x", "/a/../../x", "/mnt/session/uploads/../x", "x" * 2000, "/", "dir/"):
        w.refused(400, "POST", "/v1/sessions", make(mount_path=path), names="mount_path")
    twice = make(mount_path="/x")
    twice["resources"] *= 2
    w.refused(400, "POST", "/v1/sessions", twice, names="mount_path")
    w.refused(404, "POST", "/v1/sessions", make(file_id="file_" + NOBODY))
    w.refused(400, "POST", "/v1/sessions", make(file_id=None), names="file_id")
    w.refused(400, "POST", "/v1/sessions", dict(make(), resources=[{"type": "tape"}]), names=r"resources\[0\]\.type")
    w.refused(400, "POST", "/v1/sessions", dict(make(), resources=[{"type": "file", "file_id": f["id"]}] * 501), names="resources")


@test
def resources_110_added_files(w):
    f = w.upload("late.csv", b"late").json
    s = w.session()
    path = f"/v1/sessions/{s['id']}/resources"
    r = w.ok("POST", path, {"type": "file", "file_id": f["id"], "mount_path": "late.csv"})
    equal((r["mount_path"], r["type"]), ("/mnt/session/uploads/late.csv", "file"))
    equal(w.ok("GET", f"{path}/{r['id']}"), r)
    w.refused(400, "POST", path, {"type": "file", "file_id": f["id"], "mount_path": "/late.csv"}, names="mount_path")
    equal(w.ok("DELETE", f"{path}/{r['id']}"), {"id": r["id"], "type": "session_resource_deleted"})
    equal(w.all(path), [])
    for verb in ("GET", "DELETE"):
        w.refused(404, verb, f"{path}/{r['id']}")
    w.refused(404, "GET", f"{path}/sesrsc_{NOBODY}")
    equal(w.ok("GET", f"/v1/files/{f['id']}")["id"], f["id"], "the original stays")
    w.refused(404, "GET", f"/v1/files/{r['file_id']}")


@test
def resources_112_what_cannot_be_added(w):
    s = w.session()
    path = f"/v1/sessions/{s['id']}/resources"
    for body in ({"type": "memory_store", "memory_store_id": "memstore_x"}, {"type": "github_repository", "url": "https://github.com/a/b"},
                 {}, {"type": "file"}, {"file_id": "x"}):
        r = w.post(path, body)
        true(r.status in (400, 501), f"{body}: {r.status}")
    f = w.upload().json
    r = w.ok("POST", path, {"type": "file", "file_id": f["id"]})
    w.refused(400, "POST", f"{path}/{r['id']}", {"authorization_token": "t"})


@test(model=True)
def mounted_files_are_there_and_read_only(w):
    if not sandboxed(w):
        return
    content = b"invoice,amount\nA-1,10.00\n"
    f = w.upload("books.csv", content).json
    s = w.session(agent=w.new_agent(tools=[{"type": "agent_toolset_20260401"}])["id"],
                  resources=[{"type": "file", "file_id": f["id"], "mount_path": "/books.csv"}])
    run = '[[tool bash {"command":"sha256sum < /mnt/session/uploads/books.csv; echo x > /mnt/session/uploads/books.csv || echo refused"}]] ;; [[say {result}]]'
    _, events = w.turn(message(run), session=s)
    out = last(events, "agent.message")["content"][0]["text"]
    true(hashlib.sha256(content).hexdigest() in out and "refused" in out, out)


@test
def deleting_the_original_leaves_the_copy(w):
    f = w.upload("kept.csv", b"kept").json
    s = w.session(resources=[{"type": "file", "file_id": f["id"]}])
    w.ok("DELETE", f"/v1/files/{f['id']}")
    equal(w.ok("GET", f"/v1/sessions/{s['id']}/resources")["data"], s["resources"])
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    w.refused(404, "GET", f"/v1/files/{s['resources'][0]['file_id']}")


@test
def file_blocks_of_messages(w):
    s = w.session()
    block = lambda fid: {"type": "user.message", "content": [{"type": "document", "source": {"type": "file", "file_id": fid}}]}
    r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [block("file_" + NOBODY)]})
    true(r.status in (400, 404), f"a file that is not there: {r.status}")
    equal(w.events(s), [])
