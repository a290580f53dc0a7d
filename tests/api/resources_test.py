"""Items 33 to 36 of the session checklist: what is mounted in a session (API: sessions §3). Repositories and memory
stores come with their own resources; README.md says so in its table."""
import hashlib

from kit import equal, message, said, test, true
from stage import TOOLSET, needs_sandbox


def mounted(w, content=b"a,b\n", **resource):
    f = w.upload("data.csv", content).json
    s = w.session(resources=[dict({"type": "file", "file_id": f["id"]}, **resource)])
    return f, s, s["resources"][0]


@test
def t_033_an_attached_file_is_a_copy(w):
    f, s, r = mounted(w)
    true(r["file_id"] != f["id"] and r["file_id"].startswith("file_"), "a new file_id")
    equal(r["mount_path"], f"/mnt/session/uploads/{f['id']}")
    equal(set(r), {"type", "id", "file_id", "mount_path", "created_at", "updated_at"})
    true(r["id"].startswith("sesrsc_"), r["id"])
    path = f"/v1/sessions/{s['id']}/resources"
    equal(w.ok("GET", path), {"data": [r], "next_page": None})
    equal(w.ok("GET", f"{path}/{r['id']}"), r)
    added = w.ok("POST", path, {"type": "file", "file_id": f["id"], "mount_path": "/late.csv"})
    equal(added["mount_path"], "/mnt/session/uploads/late.csv")
    true(len({f["id"], r["file_id"], added["file_id"]}) == 3, "each a copy of its own")
    other = w.ok("POST", path, {"type": "file", "file_id": w.upload().json["id"]})
    true(other["mount_path"].startswith("/mnt/session/uploads/file_"), other)
    equal(w.all(path + "?limit=1"), [r, added, other])
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["resources"], [r, added, other])


@test(model=True)
def t_033_the_copy_is_where_it_says_and_read_only(w):
    needs_sandbox()
    content = b"invoice,amount\nA-1,10.00\n"
    f = w.upload("books.csv", content).json
    s = w.session(agent=w.new_agent(tools=[TOOLSET])["id"], resources=[{"type": "file", "file_id": f["id"]}])
    path = s["resources"][0]["mount_path"]
    _, events = w.turn(message('[[tool bash {"command":"sha256sum < %s; echo x > %s || echo refused"}]] ;; [[say {result}]]' % (path, path)), session=s)
    true(hashlib.sha256(content).hexdigest() in said(events)[0] and "refused" in said(events)[0], said(events))


@test
def t_034_a_file_has_no_token_to_rotate(w):
    _, s, r = mounted(w)
    path = f"/v1/sessions/{s['id']}/resources/{r['id']}"
    w.refused(400, "POST", path, {"authorization_token": "ghp_secret"})
    equal(w.ok("GET", path), r)
    true(b"ghp_secret" not in w.get(f"/v1/sessions/{s['id']}").body, "never shown")


@test
def t_036_deleting_a_file_leaves_the_original(w):
    f, s, r = mounted(w)
    path = f"/v1/sessions/{s['id']}/resources"
    equal(w.ok("DELETE", f"{path}/{r['id']}"), {"id": r["id"], "type": "session_resource_deleted"})
    equal(w.all(path), [])
    w.refused(404, "GET", f"{path}/{r['id']}")
    w.refused(404, "DELETE", f"{path}/{r['id']}")
    equal(w.ok("GET", f"/v1/files/{f['id']}")["id"], f["id"])
    w.refused(404, "GET", f"/v1/files/{r['file_id']}")
