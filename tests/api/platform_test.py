"""What every request has in common: keys, versions, betas, ids, errors, sizes, encodings (API: platform)."""
import gzip
import http.client
import json
import re
import subprocess
import time

from kit import BETA, BIN, ID, KEY, MODEL, NOBODY, Server, World, equal, test, true

READS = ["/v1/agents", "/v1/environments", "/v1/sessions", "/v1/files", "/v1/models"]


@test
def platform_01_both_forms_of_a_key(w):
    for path in READS:
        for h in ({"authorization": f"Bearer {w.key}"}, {"authorization": f"bearer {w.key}"},
                  {"authorization": None, "x-api-key": w.key}, {"authorization": None, "X-Api-Key": w.key}):
            equal(w.get(path, headers=h).status, 200, f"{path} {list(h)}")


@test
def platform_01_wrong_and_missing_keys(w):
    for path in READS:
        for h in ({"authorization": "Bearer sk-mr-wrong"}, {"authorization": None}, {"authorization": "Bearer"},
                  {"authorization": None, "x-api-key": "sk-mr-wrong"}, {"authorization": f"Basic {w.key}"},
                  {"authorization": "Bearer " + w.key + "x"}, {"authorization": "Bearer " + w.key[:-1]},
                  {"authorization": "Bearer " + "x" * 10000}):
            w.refused(401, "GET", path, headers=h)
    for verb, path in (("POST", "/v1/agents"), ("DELETE", f"/v1/sessions/sesn_{NOBODY}"), ("POST", "/v1/files"),
                       ("GET", f"/v1/sessions/sesn_{NOBODY}/events/stream"), ("GET", "/v1/vaults")):
        w.refused(401, verb, path, headers={"authorization": None})


@test
def platform_02_versions(w):
    for v in ("2023-06-01", "2026-10-21"):
        equal(w.get("/v1/agents", headers={"anthropic-version": v}).status, 200, v)
    for path in READS:
        w.refused(400, "GET", path, headers={"anthropic-version": None}, names="anthropic-version: header is required")


@test
def platform_03_missing_beta_names_the_header(w):
    for verb, path, body in (("POST", "/v1/agents", {"name": "x", "model": MODEL}), ("GET", "/v1/agents", None),
                             ("GET", "/v1/environments", None), ("GET", "/v1/sessions", None),
                             ("GET", f"/v1/sessions/sesn_{NOBODY}/events/stream", None), ("GET", "/v1/vaults", None),
                             ("GET", "/v1/deployments", None)):
        for beta in (None, "", "managed-agents", "managed-agents-2026-04-012"):
            r = w.refused(400, verb, path, body, headers={"anthropic-beta": beta}, names=BETA)
            true("anthropic-beta" in r.error["message"], r.error["message"])
        equal(w.ask(verb, path, body).status in (200, 404, 501), True, path)
    for path in ("/v1/files", "/v1/models"):
        equal(w.get(path, headers={"anthropic-beta": None}).status, 200, path)


@test
def platform_03_a_list_of_betas(w):
    for beta in (f"{BETA},files-api-2025-04-14", f"x,{BETA}", f" x , {BETA} ,y", f"{BETA},{BETA}"):
        equal(w.get("/v1/agents", headers={"anthropic-beta": beta}).status, 200, beta)


@test
def platform_04_beta_true_changes_nothing(w):
    session = w.session()
    sid, aid, eid = session["id"], w.agent["id"], w.environment["id"]
    for path in READS + [f"/v1/agents/{aid}", f"/v1/agents/{aid}/versions", f"/v1/environments/{eid}",
                         f"/v1/sessions/{sid}", f"/v1/sessions/{sid}/events", f"/v1/sessions/{sid}/resources",
                         f"/v1/sessions/{sid}/threads", f"/v1/models/{MODEL}"]:
        one, two = w.ok("GET", path + "?beta=true"), w.ok("GET", path)
        for s in one, two, *one.get("data", []), *two.get("data", []):
            s.pop("stats", None)  # time goes on
        equal(one, two, path)
    for verb, path, body in (("POST", f"/v1/agents/{aid}", {"metadata": {}}), ("POST", f"/v1/environments/{eid}", {}),
                             ("POST", f"/v1/sessions/{sid}", {"title": "t"}), ("POST", f"/v1/sessions/{sid}/archive", None),
                             ("DELETE", f"/v1/sessions/{sid}", None)):
        equal(w.ask(verb, path + "?beta=true", body).status, 200, f"{verb} {path}")
    equal(w.ask("POST", "/v1/sessions?beta=true", {"agent": aid, "environment_id": eid}).status, 200)
    equal(w.upload().status, 200)


@test
def platform_05_memory_betas_exclude_each_other(w):
    memory = "agent-memory-2026-07-22"
    w.refused(400, "GET", "/v1/memory_stores", headers={"anthropic-beta": f"{memory},{BETA}"}, names="anthropic-beta")
    w.refused(400, "GET", "/v1/memory_stores", headers={"anthropic-beta": None}, names=memory)
    for beta in (memory, BETA):
        true(w.get("/v1/memory_stores", headers={"anthropic-beta": beta}).status in (200, 501), beta)


@test
def platform_06_unknown_betas_do_no_harm(w):
    equal(w.get("/v1/agents", headers={"anthropic-beta": f"foo-2099-01-01,{BETA}"}).status, 200)
    equal(w.get("/v1/files", headers={"anthropic-beta": "foo-2099-01-01"}).status, 200)


@test
def platform_07_every_answer_has_a_request_id(w):
    seen = set()
    for verb, path, kw in (("GET", "/v1/agents", {}), ("GET", "/v1/nothing", {}), ("PUT", "/v1/agents", {}),
                           ("GET", "/v1/agents", {"headers": {"authorization": None}}), ("GET", "/v1/vaults", {}),
                           ("GET", f"/v1/agents/agent_{NOBODY}", {}), ("POST", "/v1/agents", {"body": b"{"}),
                           ("GET", "/v1/agents", {"headers": {"anthropic-beta": None}}), ("GET", "/health", {}),
                           ("GET", "/metrics", {})):
        r = w.ask(verb, path, **kw)
        rid = r.headers.get("request-id", "")
        true(ID.fullmatch(rid) and rid.startswith("req_"), f"{verb} {path}: request-id {rid!r}")
        true(rid not in seen, "the same request-id twice")
        seen.add(rid)
        if r.status >= 400:
            equal(r.json["request_id"], rid)


@test
def platform_08_organization_and_workspace(w):
    for path in ("/v1/agents", f"/v1/agents/agent_{NOBODY}"):
        h = w.get(path).headers
        true(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", h.get("anthropic-organization-id", "")), h)
        true(h.get("anthropic-workspace-id", "").startswith("wrkspc_"), h)
    own = w.get("/v1/agents").headers["anthropic-workspace-id"]
    equal(w.get("/v1/agents", headers={"anthropic-workspace-id": own}).status, 200)
    r = w.get("/v1/agents", headers={"anthropic-workspace-id": "wrkspc_" + NOBODY})
    true(r.status in (400, 403), r.status)
    true("anthropic-workspace-id" in r.error["message"], r.error)


@test
def platform_09_posts_without_a_body(w):
    made = w.new_agent()["id"]
    for headers in ({}, {"content-length": "0"}, {"content-type": "application/json", "content-length": "0"}):
        c = w.connect()
        c.putrequest("POST", f"/v1/agents/{made}/archive")
        for k, v in w.headers(headers).items():
            c.putheader(k, v)
        c.endheaders()
        r = c.getresponse()
        equal(r.status, 200, str(headers))
        true(json.loads(r.read())["archived_at"], "archived")
        c.close()
    equal(w.ask("POST", f"/v1/agents/{made}/archive", {}).status, 200)


@test
def platform_10_json_is_called_json(w):
    for verb, path, body in (("GET", "/v1/agents", None), ("GET", "/v1/nothing", None), ("POST", "/v1/agents", {}),
                             ("GET", "/health", None), ("GET", "/v1/models", None)):
        equal(w.ask(verb, path, body).headers["content-type"].split(";")[0], "application/json", f"{verb} {path}")


@test
def platform_11_unknown_ids_routes_and_verbs(w):
    for path in (f"/v1/agents/agent_{NOBODY}", f"/v1/environments/env_{NOBODY}", f"/v1/sessions/sesn_{NOBODY}",
                 f"/v1/files/file_{NOBODY}", "/v1/models/none", "/v1/agents/x", f"/v1/sessions/{w.agent['id']}",
                 "/", "/v1", "/v1/", "/v2/agents", "/v1/agents/x/y/z", "/v1/Agents", "//v1/agents", "/v1/agents/",
                 "/v1/sessions/x/events/streams", "/v1/agents/%00", "/v1/agents/%2e%2e", "/v1/agents/a%2fb", "/index.html"):
        if path == "/v1/agents/":
            continue  # a slash too many may be forgiven
        w.refused(404, "GET", path)
    for verb, path in (("PUT", "/v1/agents"), ("DELETE", "/v1/agents"), ("DELETE", f"/v1/agents/{w.agent['id']}"),
                       ("PUT", "/v1/sessions"), ("GET", f"/v1/agents/{w.agent['id']}/archive"), ("POST", "/v1/models"),
                       ("POST", "/health"), ("DELETE", "/metrics"), ("OPTIONS", "/v1/agents"), ("TRACE", "/v1/agents")):
        r = w.ask(verb, path)
        true(r.status in (404, 405), f"{verb} {path}: {r.status}")
        equal(r.error["type"], "not_found_error" if r.status == 404 else "invalid_request_error")
    equal(w.ask("PUT", "/v1/agents").status, 405)


@test
def platform_11_head_is_get_without_a_body(w):
    for path in ("/v1/agents", "/health", f"/v1/agents/{w.agent['id']}", f"/v1/agents/agent_{NOBODY}"):
        head, get = w.ask("HEAD", path), w.ask("GET", path)
        equal((head.status, head.body), (get.status, b""), path)
        equal(head.headers["content-type"], get.headers["content-type"])
        equal(head.headers.get("content-length"), get.headers.get("content-length"), path)
    true(w.ask("HEAD", f"/v1/sessions/{w.session()['id']}/events/stream").status in (200, 405), "HEAD of a stream ends")


@test
def platform_12_malformed_json(w):
    bad = [b"{", b"", b"[]", b"null", b"1", b'"x"', b"{'a':1}", b'{"name":}', b'{"a":1}x', b'{"a":1,}', b"\xff\xfe",
           b'{"name":"\xff"}', b'{"name":"a\x00b"}', b"[" * 10000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"NaN",
           b'{"name":"x","model":"y"', b'{"name":"\\ud800"}', b'{"name":"x" "model":"y"}']
    for body in bad:
        r = w.post("/v1/agents", body=body, headers={"content-type": "application/json"})
        true(r.status == 400, f"{body[:40]!r}: {r.status} {r.body[:200]!r}")
        equal(r.error["type"], "invalid_request_error")


@test
def platform_12_a_body_without_its_label_is_read_as_json(w):
    r = w.post("/v1/agents", body=json.dumps({"name": "x", "model": MODEL}).encode())
    equal(r.status, 200, r.body[:200])


@test
def platform_12_oversized_bodies_are_refused_early(w):
    c = w.connect()
    c.putrequest("POST", "/v1/agents")
    for k, v in w.headers({"content-type": "application/json", "content-length": str(3 << 30)}).items():
        c.putheader(k, v)
    c.endheaders()
    c.send(b'{"name":"' + b"x" * 100000)  # of three gigabytes
    r = c.getresponse()
    body = json.loads(r.read())
    equal((r.status, body["error"]["type"]), (413, "request_too_large"))
    c.close()
    with_33 = b'{"name":"' + b"x" * (33 << 20) + b'"}'
    w.refused(413, "POST", "/v1/agents", body=with_33, type_="request_too_large")
    w.ok("GET", "/v1/agents")


@test
def platform_12_oversized_chunked_bodies(w):
    def chunks():
        yield b'{"name":"'
        for _ in range(40):
            yield b"x" * (1 << 20)
    c = w.connect()
    status = None
    try:
        c.request("POST", "/v1/agents", body=chunks(), headers=w.headers({"content-type": "application/json"}), encode_chunked=True)
        status = c.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        pass  # cut while we were sending: just as well
    true(status in (413, None), status)
    c.close()
    w.ok("GET", "/v1/agents")


@test
def platform_13_version_conflicts(w):
    a = w.new_agent()
    w.ok("POST", f"/v1/agents/{a['id']}", {"version": 1, "description": "two"})
    r = w.refused(409, "POST", f"/v1/agents/{a['id']}", {"version": 1, "description": "x"}, type_="conflict_error")
    equal(r.headers.get("x-should-retry"), "false")
    r = w.refused(409, "POST", f"/v1/agents/{a['id']}", {"version": 1, "description": "two"}, type_="conflict_error")
    equal(r.headers.get("x-should-retry"), "false")


@test
def platform_15_error_codes(w):
    e = w.new_environment()
    r = w.refused(400, "POST", f"/v1/environments/{e['id']}", {"config": {"type": "self_hosted"}})
    equal(r.code(), "invalid_config_type_change")
    w.ok("POST", f"/v1/environments/{e['id']}/archive")
    equal(w.refused(400, "POST", f"/v1/environments/{e['id']}", {"name": "x"}).code(), "environment_archived")
    f = w.upload().json
    equal(w.refused(400, "GET", f"/v1/files/{f['id']}/content").code(), "file_not_downloadable")


@test
def platform_17_charsets_and_encodings(w):
    body = json.dumps({"name": "x", "model": MODEL})
    for charset in ("utf-8", "UTF-8", '"utf-8"', "us-ascii"):
        equal(w.post("/v1/agents", body=body.encode(), headers={"content-type": "application/json; charset=" + charset}).status, 200, charset)
    r = w.refused(400, "POST", "/v1/agents", body=body.encode("utf-16"), headers={"content-type": "application/json; charset=utf-16"})
    equal(r.code(), "unsupported_charset")
    r = w.post("/v1/agents", body=gzip.compress(body.encode()), headers={"content-type": "application/json", "content-encoding": "gzip"})
    true(r.status == 200 or r.code() == "request_body_encoding_unsupported", r.body)


@test
def platform_24_ids_and_times(w):
    def walk(v, at):
        if isinstance(v, dict):
            for k, x in v.items():
                if k.endswith("_at") and x is not None:
                    true(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", x), f"{at}.{k}: {x}")
                if k == "id" and v.get("type") in prefixes:
                    true(ID.fullmatch(x) and x.startswith(prefixes[v["type"]]), f"{at}.{k}: {x}")
                walk(x, f"{at}.{k}")
        elif isinstance(v, list):
            for x in v:
                walk(x, at)
    prefixes = {"agent": "agent_", "environment": "env_", "session": "sesn_", "session_thread": "sthr_"}
    f = w.upload().json
    true(f["id"].startswith("file_") and ID.fullmatch(f["id"]), f["id"])
    s = w.session(resources=[{"type": "file", "file_id": f["id"]}])
    true(s["resources"][0]["id"].startswith("sesrsc_"), s["resources"])
    for o in (w.agent, w.environment, s, f, w.ok("GET", f"/v1/sessions/{s['id']}/threads")["data"][0]):
        walk(o, "")


@test
def unknown_fields_are_ignored(w):
    a = w.new_agent(colour="red")
    true("colour" not in a, a)
    s = w.session(weather={"a": [1]})
    true("weather" not in s, s)
    w.ok("GET", "/v1/agents?colour=red&limit=1")


@test(local=True)
def unknown_fields_are_errors_in_strict_mode(w):
    server = Server(env={"MOONRIG_API_KEY": KEY}, config="{ api = { strict = true } }")
    try:
        s = World(server.url)
        s.refused(400, "POST", "/v1/agents", {"name": "x", "model": MODEL, "colour": "red"}, names="colour")
        s.refused(400, "POST", "/v1/environments", {"name": "x", "config": {"type": "cloud", "colour": 1}}, names=r"config\.colour")
        s.ok("GET", "/v1/agents?beta=true")
        s.new_agent()
    finally:
        equal(server.stop(), 0)


@test(local=True)
def not_implemented_operations_say_so(w):
    out = subprocess.run([BIN, "api", "--list", "--json"], capture_output=True, text=True, check=True).stdout
    todo = [o for o in map(json.loads, out.splitlines()) if not o["implemented"]]
    true(len(todo) > 20, "operations to come")
    for o in todo:
        path = re.sub(r"\{[^}]*\}", "x_" + NOBODY, o["path"])
        for beta in (BETA, "agent-memory-2026-07-22", "dreaming-2026-04-21", "mcp-tunnels-2026-06-22"):
            r = w.ask(o["verb"], path, {} if o["verb"] == "POST" else None, headers={"anthropic-beta": beta})
            if r.status != 400:
                break
        equal((r.status, r.error["type"], r.headers.get("x-should-retry")), (501, "api_error", "false"), path)
        true(o["name"] in r.error["message"], r.error["message"])


@test
def health(w):
    j = w.ask("GET", "/health", headers={"authorization": None, "anthropic-version": None, "anthropic-beta": None}).json
    equal(j["status"], "ok")
    true(re.fullmatch(r"\d+\.\d+\.\d+.*", j["version"]), j)
    true(isinstance(j["generation"], int), j)


@test
def metrics_parse(w):
    r = w.ask("GET", "/metrics", headers={"authorization": None})
    equal(r.status, 200)
    true(r.headers["content-type"].startswith("text/plain"), r.headers)
    kinds, values = {}, {}
    for line in r.body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        elif not line.startswith("#"):
            m = re.fullmatch(r'([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (-?[0-9.e+]+)', line)
            true(m, line)
            true(m[1] in kinds, f"{m[1]} without a type")
            values[m[1] + (m[2] or "")] = float(m[3])
    true(all(n.startswith("moonrig_") for n in kinds), kinds)
    true(all(n.endswith("_total") for n, k in kinds.items() if k == "counter"), kinds)
    before = values["moonrig_http_requests_total"]
    w.ok("GET", "/v1/agents")
    again = re.search(r"^moonrig_http_requests_total (\d+)", w.get("/metrics").body.decode(), re.M)
    true(float(again[1]) > before, "requests are counted")


@test
def vendor_paths_are_not_ours(w):
    w.refused(404, "GET", "/v1/organizations/webhooks")
    w.refused(404, "GET", "/v1/organizations/me")


@test(local=True)
def keys_of_the_store(w):
    made = w.ok("POST", "/moonrig/v1/keys", {"name": "second"})
    true(made["key"].startswith("sk-mr-"), made)
    other = World(w.url, made["key"])
    other.ok("GET", "/v1/agents")
    listed = w.ok("GET", "/moonrig/v1/keys")["data"]
    mine = [k for k in listed if k["id"] == made["id"]]
    true(mine and "key" not in mine[0], "the secret is shown once")
    true(made["key"] not in json.dumps(listed), "the secret is shown once")
    w.ok("DELETE", f"/moonrig/v1/keys/{made['id']}")
    end = time.monotonic() + 5
    while other.get("/v1/agents").status != 401:
        true(time.monotonic() < end, "a revoked key works on")
