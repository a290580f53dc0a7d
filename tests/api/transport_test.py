"""Items 1 to 10 of the session checklist: keys, headers, error bodies, query forms, limits (API: sessions §1)."""
import json

from kit import MODEL, NOBODY, Reply, equal, message, test, true, types
from stage import answer, asked, confirm, gate, at_gate, fresh, outcome, refused


@test
def t_001_both_forms_of_a_key(w):
    for headers in ({}, {"authorization": None, "x-api-key": w.key}):
        w.ok("GET", "/v1/sessions?limit=1", headers=headers)
    for headers in ({"authorization": None}, {"authorization": "Bearer sk-mr-wrong"},
                    {"authorization": None, "x-api-key": "sk-mr-wrong"}, {"authorization": "Bearer "}):
        w.refused(401, "GET", "/v1/sessions?limit=1", headers=headers, type_="authentication_error")
        w.refused(401, "POST", "/v1/sessions", {}, headers=headers, type_="authentication_error")


@test
def t_002_the_beta_header_is_asked_for_by_name(w):
    s = w.session()
    one = f"/v1/sessions/{s['id']}"
    for verb, path, body in (("GET", "/v1/sessions", None), ("POST", "/v1/sessions", {}), ("GET", one, None), ("POST", one, {"title": "x"}),
                             ("GET", one + "/events", None), ("POST", one + "/events", {"events": [message("x")]}), ("DELETE", one, None),
                             ("POST", one + "/archive", None), ("GET", one + "/threads", None), ("GET", one + "/resources", None)):
        for beta in (None, "files-api-2025-04-14"):
            w.refused(400, verb, path, body, headers={"anthropic-beta": beta}, names="anthropic-beta.*managed-agents-2026-04-01|managed-agents-2026-04-01.*anthropic-beta")
    with w.stream(s, headers={"anthropic-beta": None}) as feed:
        equal(feed.status, 400)
        true("managed-agents-2026-04-01" in feed.reply.error["message"], feed.reply.error)
    w.ok("GET", one, headers={"anthropic-beta": "files-api-2025-04-14, managed-agents-2026-04-01"})
    equal(w.events(s), [], "nothing was done")


@test
def t_003_beta_true_changes_nothing(w):
    s = w.session(title="beta")
    for path in (f"/v1/sessions/{s['id']}/events", f"/v1/sessions/{s['id']}/threads", f"/v1/sessions/{s['id']}/resources", f"/v1/agents/{w.agent['id']}"):
        with_, without = w.ok("GET", path + "?beta=true"), w.ok("GET", path)
        for answer_ in with_, without:
            [x.pop("stats", None) for x in answer_.get("data", [])]
        equal(with_, without, path)
    made = w.ok("POST", "/v1/sessions?beta=true", {"agent": w.agent["id"], "environment_id": w.environment["id"], "title": "beta"})
    strange = ("id", "created_at", "updated_at", "stats", "usage")
    equal({k: v for k, v in made.items() if k not in strange}, {k: v for k, v in s.items() if k not in strange})
    equal(w.ok("POST", f"/v1/sessions/{made['id']}?beta=true", {"title": "now"})["title"], "now")
    with w.stream(made, "?beta=true") as feed:
        equal(feed.status, 200)
        equal(w.ok("DELETE", f"/v1/sessions/{made['id']}?beta=true")["type"], "session_deleted")


@test
def t_004_old_and_new_versions(w):
    for version in ("2023-06-01", "2026-10-21"):
        h = {"anthropic-version": version}
        s = w.ok("POST", "/v1/sessions", {"agent": w.agent["id"], "environment_id": w.environment["id"]}, headers=h)
        equal({k for k in w.ok("GET", f"/v1/sessions/{s['id']}", headers=h)}, set(s), "the newest shape for everybody")
        with w.stream(s, headers=h) as feed:
            equal(feed.status, 200)


@test
def t_005_every_answer_has_a_request_id(w):
    s = w.session()
    seen = []
    for verb, path, body, headers in (("GET", f"/v1/sessions/{s['id']}", None, {}), ("GET", "/v1/sessions", None, {}), ("GET", "/v1/nowhere", None, {}),
                                      ("GET", f"/v1/sessions/sesn_{NOBODY}", None, {}), ("POST", "/v1/sessions", {}, {}),
                                      ("GET", "/v1/sessions", None, {"authorization": None}), ("GET", "/v1/sessions", None, {"anthropic-beta": None}),
                                      ("PUT", "/v1/sessions", {}, {}), ("POST", f"/v1/sessions/{s['id']}/archive", None, {}), ("DELETE", f"/v1/sessions/{s['id']}", None, {})):
        r = w.ask(verb, path, body, headers=headers)
        true(r.headers.get("request-id", "").startswith("req_"), f"{verb} {path}: {r.headers}")
        if r.status >= 400:
            true(r.error, "whose envelope repeats it")
        seen.append(r.headers["request-id"])
    with w.stream(w.session()) as feed:
        seen.append(feed.headers["request-id"])
    equal(len(set(seen)), len(seen), "each its own")


@test
def t_006_error_bodies(w):
    s = w.session()
    for status, type_, r in ((400, "invalid_request_error", w.post("/v1/sessions", {})), (401, "authentication_error", w.get("/v1/sessions", headers={"authorization": None})),
                             (404, "not_found_error", w.get(f"/v1/sessions/sesn_{NOBODY}")), (400, "invalid_request_error", w.post(f"/v1/sessions/{s['id']}", {"vault_ids": []})),
                             (404, "not_found_error", w.get("/v1/nowhere"))):
        equal((r.status, r.error["type"]), (status, type_))
        true(set(r.error) <= {"type", "message", "details"}, r.error)
    r = w.post("/v1/sessions", {"agent": {"type": "agent_with_overrides", "id": w.agent["id"], "model": None}, "environment_id": w.environment["id"]})
    equal(r.code(), "agent_model_required", "a machine's code stands in details.error_code")
    equal(set(r.json), {"type", "error", "request_id"})


@test(model=True)
def t_007_three_forms_of_a_list_in_a_query(w):
    s, events = w.turn(message("[[say x]]"))
    wanted = ["user.message", "agent.message"]
    for form in ("types[]=%s&types[]=%s", "types%%5B%%5D=%s&types%%5B%%5D=%s", "types=%s&types=%s"):
        equal(types(w.events(s, "?" + form % tuple(wanted))), wanted, form)
        equal(types(w.events(s, "?limit=1&" + form % tuple(wanted))), wanted, form)
    at = events[3]["processed_at"]
    for form in ("created_at[gte]=", "created_at%5Bgte%5D="):
        equal(w.events(s, "?" + form + at), events[3:], form)
    for form in ("event_deltas[]=agent.message&event_deltas[]=agent.thinking", "event_deltas%5B%5D=agent.message&event_deltas%5B%5D=agent.thinking",
                 "event_deltas=agent.message&event_deltas=agent.thinking"):
        with w.stream(s, "?" + form) as feed:
            equal(feed.status, 200, form)


@test
def t_008_a_body_over_32_mb(w):
    s = w.session()
    path = f"/v1/sessions/{s['id']}/events"
    c = w.connect()
    c.putrequest("POST", path)
    for k, v in w.headers({"content-type": "application/json", "content-length": str((32 << 20) + 4096)}).items():
        c.putheader(k, v)
    c.endheaders()
    c.send(b'{"events":[')
    r = c.getresponse()
    got = Reply(r.status, r.getheaders(), r.read())
    equal((got.status, got.error["type"]), (413, "request_too_large"))
    c.close()
    big = json.dumps({"events": [message("x" * (33 << 20))]}).encode()
    w.refused(413, "POST", path, body=big, headers={"content-type": "application/json"}, type_="request_too_large")
    equal(w.events(s), [])


@test(model=True)
def t_009_no_refusal_of_a_state_is_a_409(w):
    """A client of today tries a 409 again by itself; what is refused for good is a 400."""
    door = fresh()
    s = w.session()
    one = f"/v1/sessions/{s['id']}"
    primary = w.all(one + "/threads")[0]["id"]
    with w.stream(s) as feed:
        w.send(s, message(f"[[gate {door}]] [[say x]]"))
        at_gate(w, door, feed)
        for verb, path, body in (("POST", one + "/archive", None), ("DELETE", one, None), ("POST", one, {"agent": {"tools": []}}),
                                 ("POST", f"{one}/threads/{primary}/archive", None)):
            w.refused(400, verb, path, body)
        gate(w, door)
        feed.idle()
    w.refused(400, "POST", f"{one}/threads/{primary}/archive")
    w.refused(400, "POST", one, {"vault_ids": ["vlt_x"]})
    w.refused(400, "POST", one, {"budget": {"type": "limit", "max_list_cost": {"amount": "100", "currency": "USD"}}})
    _, _, (use,) = asked(w, session=s)
    refused(w, s, message("while it is blocked"))
    refused(w, s, outcome())
    refused(w, s, answer(use), answer(use))
    refused(w, s, confirm(use))
    w.ok("POST", one + "/archive")
    refused(w, s, message("to an archived one"))
    w.refused(400, "POST", one, {"title": "x"})


@test
def t_010_archive_without_a_body(w):
    for headers in ({}, {"content-type": "application/json"}):
        s = w.session()
        c = w.connect()
        c.putrequest("POST", f"/v1/sessions/{s['id']}/archive")
        for k, v in w.headers(dict(headers, **{"content-length": "0"})).items():
            c.putheader(k, v)
        c.endheaders()
        r = c.getresponse()
        equal((r.status, json.loads(r.read())["status"]), (200, "terminated"))
        c.close()
    a = w.new_agent(model=MODEL)
    equal(bool(w.ok("POST", f"/v1/agents/{a['id']}/archive")["archived_at"]), True)
