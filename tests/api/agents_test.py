"""Agents and their tools (API: resources, agents; tools on an agent)."""
from kit import MODEL, NOBODY, ID, equal, test, true

TOOLSET = "agent_toolset_20260401"
ALLOW, ASK = {"type": "always_allow"}, {"type": "always_ask"}
CUSTOM = {"type": "custom", "name": "look_up", "description": "Looks up", "input_schema": {"type": "object"}}
SERVER = {"type": "url", "name": "crm", "url": "https://mcp.example.com/"}
SERVED = {"type": "mcp_toolset", "mcp_server_name": "crm"}


def bad(w, names=None, **fields):
    return w.refused(400, "POST", "/v1/agents", dict({"name": "x", "model": MODEL}, **fields), names=names)


def tools_bad(w, *tools, names="tools"):
    return bad(w, names, tools=list(tools))


def update(w, a, status=200, **fields):
    r = w.post(f"/v1/agents/{a['id']}", fields)
    true(r.status == status, f"{fields}: {r.status} {r.body[:300]!r}")
    return r.json


@test
def resources_13_defaults_of_a_new_agent(w):
    a = w.ok("POST", "/v1/agents", {"name": "a", "model": "m-of-somebody"})
    equal({k: a[k] for k in a if k not in ("id", "model", "created_at", "updated_at")},
          {"type": "agent", "version": 1, "name": "a", "description": None, "system": None, "tools": [],
           "mcp_servers": [], "skills": [], "multiagent": None, "execution_identity": {"type": "service_account"},
           "metadata": {}, "archived_at": None})
    true(ID.fullmatch(a["id"]) and a["id"].startswith("agent_"), a["id"])
    equal((a["model"]["id"], a["model"]["speed"], set(a["model"])), ("m-of-somebody", "standard", {"id", "effort", "speed"}))
    equal(a["created_at"], a["updated_at"])
    equal(w.ok("GET", f"/v1/agents/{a['id']}"), a)


@test
def resources_14_effort_comes_back_as_an_object(w):
    for effort in ("high", {"type": "high"}):
        equal(w.new_agent(model={"id": MODEL, "effort": effort})["model"]["effort"], {"type": "high"})
    for effort in ("low", "medium", "max", "xhigh"):
        equal(w.new_agent(model={"id": MODEL, "effort": effort})["model"]["effort"], {"type": effort})
    default = w.new_agent()["model"]["effort"]
    equal(w.new_agent(model={"id": MODEL, "effort": None, "speed": None})["model"], {"id": MODEL, "effort": default, "speed": "standard"})
    equal(w.new_agent(model={"id": MODEL, "speed": "fast", "inference_geo": "us"})["model"]["inference_geo"], "us")
    for effort in ("huge", 1, {"type": "huge"}, {}, []):
        bad(w, "model", model={"id": MODEL, "effort": effort})
    bad(w, "model", model={"id": MODEL, "speed": "ludicrous"})
    bad(w, "model", model={})
    bad(w, "model", model=None)
    bad(w, "model", model="")


@test
def resources_15_names(w):
    w.refused(400, "POST", "/v1/agents", {"model": MODEL}, names="name")
    w.refused(400, "POST", "/v1/agents", {"name": "x"}, names="model")
    for name in ("", None, 1, ["x"], "x" * 257):
        bad(w, "name", name=name)
    equal(w.new_agent(name="x" * 256)["name"], "x" * 256)
    equal(w.new_agent(name="é" * 256)["name"], "é" * 256)
    equal(w.new_agent(name="Zoë \"the\" clerk\n\u2028 🧾")["name"], "Zoë \"the\" clerk\n\u2028 🧾")


@test
def resources_15_lengths(w):
    equal(len(w.new_agent(description="d" * 2048, system="s" * 100000)["system"]), 100000)
    bad(w, "description", description="d" * 2049)
    bad(w, "system", system="s" * 100001)
    for field in ("description", "system", "tools", "metadata", "skills", "mcp_servers"):
        bad(w, field, **{field: 7})
    equal(w.new_agent(description="", system="")["system"], None)


@test
def resources_16_an_update_makes_a_version(w):
    one = w.new_agent(system="s", metadata={"a": "1"})
    two = update(w, one, description="new")
    equal((two["version"], two["description"], two["system"], two["metadata"]), (2, "new", "s", {"a": "1"}))
    true(two["updated_at"] > one["updated_at"] and two["created_at"] == one["created_at"], "times")
    equal(w.ok("GET", f"/v1/agents/{one['id']}?version=1")["description"], None)
    equal(w.ok("GET", f"/v1/agents/{one['id']}?version=2"), two)
    equal(w.ok("GET", f"/v1/agents/{one['id']}"), two)


@test
def resources_17_an_update_of_nothing_makes_none(w):
    a = w.new_agent(description="d", tools=[{"type": TOOLSET}, CUSTOM], metadata={"k": "v"})
    for fields in ({}, {"description": "d"}, {"name": a["name"], "model": MODEL}, {"tools": [{"type": TOOLSET}, CUSTOM]},
                   {"tools": a["tools"]}, {"metadata": {"k": "v"}}, {"metadata": None}, {"metadata": {"gone": None}},
                   {"model": a["model"]}, {"model": {"id": MODEL}}, {"version": 1, "description": "d"}, {"system": None},
                   {"execution_identity": None}):
        equal(update(w, a, **fields), a, str(fields))


@test
def resources_18_stale_versions_conflict(w):
    a = w.new_agent()
    update(w, a, description="two")
    for fields in ({"description": "x"}, {"description": "two"}, {}):
        update(w, a, 409, version=1, **fields)
    update(w, a, 409, version=3)
    equal(update(w, a, version=2, description="three")["version"], 3)


@test
def resources_19_updates_without_a_version_are_unconditional(w):
    a = w.new_agent()
    for i in range(3):
        equal(update(w, a, description=str(i), version=None if i == 1 else i + 1)["version"], i + 2)


@test
def resources_20_versions_that_cannot_be(w):
    a = w.new_agent()
    for v in (0, -1, "1", 1.5, True):
        update(w, a, 400, version=v)
    for v in ("0", "-1", "x", "1.5", "99999999999999999999"):
        w.refused(400, "GET", f"/v1/agents/{a['id']}?version={v}", names="version")
    w.refused(404, "GET", f"/v1/agents/{a['id']}?version=99")


@test
def resources_21_what_clears_and_what_cannot(w):
    a = w.new_agent(system="s", description="d")
    for empty in (None, ""):
        equal(update(w, a, system=empty, description=empty)["system"], None)
        update(w, a, system="s", description="d")
    for field in ("name", "model"):
        update(w, a, 400, **{field: None})
    update(w, a, 400, name="")


@test
def resources_22_clearing_tools(w):
    for empty in (None, []):
        equal(update(w, w.new_agent(tools=[CUSTOM]), tools=empty)["tools"], [])
    a = w.new_agent(tools=[SERVED], mcp_servers=[SERVER])
    update(w, a, 400, tools=[])
    update(w, a, 400, mcp_servers=[])
    equal(update(w, a, tools=[], mcp_servers=[])["mcp_servers"], [])


@test
def resources_23_metadata(w):
    a = w.new_agent(metadata={"a": "1", "b": "2"})
    equal(update(w, a, metadata={"a": None, "c": "3", "none": None})["metadata"], {"b": "2", "c": "3"})
    full = {f"k{i}": "v" for i in range(16)}
    b = w.new_agent(metadata=full)
    update(w, b, 400, metadata={"one more": "x"})
    equal(len(update(w, b, metadata={"k0": None, "new": "x"})["metadata"]), 16)
    w.new_agent(metadata={"k" * 64: "v" * 512})
    for m in ({"k" * 65: "v"}, {"k": "v" * 513}, {"": "v"}, {"k": 1}, {"k": None and 1, "l": ["x"]}, [],
              dict(full, more="x"), {"k": {"a": "b"}}):
        bad(w, "metadata", metadata=m)


@test
def resources_24_model_updates(w):
    a = w.new_agent(model={"id": MODEL, "effort": "low", "inference_geo": "us", "speed": "fast"})
    same = update(w, a, model={"id": MODEL})["model"]
    equal((same["effort"], same["speed"], "inference_geo" in same), ({"type": "low"}, "standard", False))
    default = w.new_agent(model="claude-sonnet-4-6")["model"]
    equal(update(w, a, model="claude-sonnet-4-6")["model"], default)


@test
def resources_25_servers_and_toolsets_belong_together(w):
    ok = w.new_agent(tools=[SERVED], mcp_servers=[SERVER])
    equal(ok["tools"], [{"type": "mcp_toolset", "mcp_server_name": "crm", "default_config": {"enabled": True, "permission_policy": ASK}, "configs": []}])
    bad(w, mcp_servers=[SERVER])
    bad(w, tools=[SERVED])
    bad(w, tools=[SERVED], mcp_servers=[SERVER, SERVER])
    bad(w, tools=[SERVED], mcp_servers=[dict(SERVER, type="stdio")])
    bad(w, tools=[SERVED, SERVED], mcp_servers=[SERVER])
    many = [dict(SERVER, name=f"s{i}") for i in range(21)]
    bad(w, "mcp_servers", mcp_servers=many, tools=[dict(SERVED, mcp_server_name=s["name"]) for s in many])
    w.new_agent(mcp_servers=many[:20], tools=[dict(SERVED, mcp_server_name=s["name"]) for s in many[:20]])


@test
def resources_26_archived_agents(w):
    a = w.new_agent(name="to be archived")
    gone = w.ok("POST", f"/v1/agents/{a['id']}/archive")
    true(gone["archived_at"], gone)
    equal(w.ok("POST", f"/v1/agents/{a['id']}/archive"), gone, "again")
    equal(w.ok("GET", f"/v1/agents/{a['id']}"), gone)
    update(w, a, 400, name="x")
    w.refused(400, "POST", "/v1/sessions", {"agent": a["id"], "environment_id": w.environment["id"]}, names="archived")
    ids = lambda q: [x["id"] for x in w.all("/v1/agents" + q)]
    true(a["id"] not in ids("?limit=100"), "hidden")
    true(a["id"] in ids("?limit=100&include_archived=true"), "shown")
    true(a["id"] not in ids("?limit=100&include_archived=false"), "hidden")
    w.refused(400, "GET", "/v1/agents?include_archived=maybe", names="include_archived")


@test
def resources_27_versions(w):
    a = w.new_agent()
    made = [a] + [update(w, a, description=f"v{i}") for i in range(2, 6)]
    equal(w.all(f"/v1/agents/{a['id']}/versions"), made[::-1])
    equal(w.all(f"/v1/agents/{a['id']}/versions?limit=2"), made[::-1])
    w.refused(404, "GET", f"/v1/agents/agent_{NOBODY}/versions")


@test
def resources_29_sessions_keep_their_agent(w):
    a = w.new_agent(system="old")
    s = w.session(agent=a["id"])
    update(w, a, system="new")
    again = w.ok("GET", f"/v1/sessions/{s['id']}")
    equal((again["agent"]["version"], again["agent"]["system"]), (1, "old"))
    equal(w.session(agent=a["id"])["agent"]["version"], 2)
    equal(w.session(agent={"type": "agent", "id": a["id"], "version": 1})["agent"]["system"], "old")
    w.refused(404, "POST", "/v1/sessions", {"agent": {"type": "agent", "id": a["id"], "version": 9}, "environment_id": w.environment["id"]})


@test
def resources_34_to_36_toolset_defaults(w):
    a = w.new_agent(tools=[{"type": TOOLSET}])
    equal(a["tools"], [{"type": TOOLSET, "default_config": {"enabled": True, "permission_policy": ALLOW}, "configs": []}])
    a = w.new_agent(tools=[{"type": TOOLSET, "default_config": {"permission_policy": ASK}, "configs": [
        {"name": "bash", "enabled": False}, {"name": "read", "permission_policy": ALLOW}, {"type": "edit", "name": "edit"}]}])
    t = a["tools"][0]
    equal(t["default_config"], {"enabled": True, "permission_policy": ASK})
    equal(t["configs"], [{"type": "bash", "name": "bash", "enabled": False, "permission_policy": ASK},
                         {"type": "read", "name": "read", "enabled": True, "permission_policy": ALLOW},
                         {"type": "edit", "name": "edit", "enabled": True, "permission_policy": ASK}])
    a = w.new_agent(tools=[{"type": TOOLSET, "default_config": {"enabled": False}, "configs": [{"name": "bash", "enabled": True}]}])
    equal([c["enabled"] for c in a["tools"][0]["configs"]], [True])
    a = w.new_agent(tools=[{"type": TOOLSET, "default_config": None}, dict(SERVED, configs=[{"name": "find", "enabled": False}])], mcp_servers=[SERVER])
    equal(a["tools"][1]["configs"], [{"name": "find", "enabled": False, "permission_policy": ASK}])
    for policy in ALLOW, ASK, {"type": "auto"}:
        t = {"type": TOOLSET, "default_config": {"permission_policy": policy}}
        equal(w.new_agent(tools=[t])["tools"][0]["default_config"]["permission_policy"], policy)


@test
def resources_37_tool_names(w):
    tools_bad(w, {"type": TOOLSET, "configs": [{"name": "teleport"}]}, names=r"tools\[0\]\.configs\[0\]\.name")
    tools_bad(w, {"type": TOOLSET, "configs": [{"name": "bash", "type": "read"}]}, names=r"tools\[0\]\.configs\[0\]\.type")
    tools_bad(w, {"type": TOOLSET, "configs": [{"name": "bash"}, {"name": "bash"}]}, names=r"tools\[0\]\.configs\[1\]")
    tools_bad(w, {"type": TOOLSET, "configs": [{}]}, names=r"tools\[0\]\.configs\[0\]\.name")
    tools_bad(w, {"type": TOOLSET}, {"type": TOOLSET}, names=r"tools\[1\]")
    tools_bad(w, {"type": "agent_toolset_20990101"}, names=r"tools\[0\]\.type")
    tools_bad(w, {"type": TOOLSET, "default_config": {"permission_policy": {"type": "never"}}}, names="permission_policy")
    tools_bad(w, {"type": TOOLSET, "configs": [{"name": "bash", "enabled": "yes"}]}, names=r"configs\[0\]\.enabled")
    tools_bad(w, {}, names=r"tools\[0\]\.type")
    tools_bad(w, "bash", names=r"tools\[0\]")
    bad(w, "tools", tools={})


def web(name, **fields):
    return {"type": TOOLSET, "configs": [dict({"name": name}, **fields)]}


@test
def resources_38_domain_lists(w):
    r = tools_bad(w, web("web_fetch", allowed_domains=["a.com"], blocked_domains=["b.com"]))
    true("Only one of allowed_domains or blocked_domains may be set." in r.error["message"], r.error)
    for field in ("allowed_domains", "blocked_domains"):
        r = tools_bad(w, web("web_search", **{field: []}))
        true("Empty list of domains is ambiguous. Provide at least one domain or null." in r.error["message"], r.error)
        tools_bad(w, web("web_search", **{field: [f"d{i}.com" for i in range(65)]}), names=field)
        w.new_agent(tools=[web("web_search", **{field: [f"d{i}.com" for i in range(64)]})])
        w.new_agent(tools=[web("web_fetch", **{field: None})])


@test
def resources_39_what_is_a_domain(w):
    for d in ("https://x.com", "x.com:443", "*.x.com", "127.0.0.1", "::1", "localhost", "a.localhost", "a.internal", "b.local",
              "co.uk", "intranet", "exämple.com", "a b.com", "-a.com", "a-.com", "a..com", "", "user@x.com", "x.invalid"):
        r = tools_bad(w, web("web_fetch", allowed_domains=["fine.com", d]))
        true("allowed_domains.1" in r.error["message"] or "allowed_domains[1]" in r.error["message"], f"{d}: {r.error['message']}")
    tools_bad(w, web("web_fetch", allowed_domains=["a.com", "A.com"]))
    for d in ("example.com", "Docs.Example.com", "xn--exmple-cua.com", "a_b.example.co.uk", "example.com/"):
        w.new_agent(tools=[web("web_fetch", allowed_domains=[d])])


@test
def resources_40_paths_in_domains(w):
    w.new_agent(tools=[web("web_search", allowed_domains=["example.com/blog"])])
    tools_bad(w, web("web_fetch", allowed_domains=["example.com/blog"]))
    tools_bad(w, web("web_search", allowed_domains=["example.com/a?b"]))


@test
def resources_43_url_sources(w):
    none = {"user_input": "none", "client_tool_results": "none", "server_tool_results": "none"}
    tools_bad(w, web("web_fetch", url_sources=none), names="url_sources")
    a = w.new_agent(tools=[web("web_fetch", url_sources={"user_input": "all"})])
    equal(a["tools"][0]["configs"][0]["url_sources"], {"user_input": {"type": "all"}, "client_tool_results": None, "server_tool_results": None})


@test
def resources_44_custom_tools(w):
    equal(w.new_agent(tools=[CUSTOM])["tools"], [CUSTOM])
    for name in ("bash", "web_search", "mcp__x", "with space", "", "ü", "x" * 129, None, "a.b"):
        tools_bad(w, dict(CUSTOM, name=name), names=r"tools\[0\]\.name")
    w.new_agent(tools=[dict(CUSTOM, name="A-b_" + "9" * 124)])
    tools_bad(w, dict(CUSTOM, description=""), names=r"tools\[0\]\.description")
    tools_bad(w, {"type": "custom", "name": "x", "input_schema": {"type": "object"}}, names=r"tools\[0\]\.description")
    tools_bad(w, {"type": "custom", "name": "x", "description": "d"}, names=r"tools\[0\]\.input_schema")
    tools_bad(w, CUSTOM, CUSTOM, names=r"tools\[1\]")


@test
def resources_45_input_schemas(w):
    good = {"type": "object", "properties": {"a.b-c_1": {"type": ["string", "null"], "enum": ["x", None]},
                                             "deep": {"anyOf": [{"type": "integer"}, {"type": "array", "items": {}}]}},
            "required": ["deep"], "additionalProperties": False, "description": "a schema", "x-note": 1}
    equal(w.new_agent(tools=[dict(CUSTOM, input_schema=good)])["tools"][0]["input_schema"], good)
    equal(w.new_agent(tools=[dict(CUSTOM, input_schema={"type": "object", "properties": None, "required": None})])["tools"][0]["input_schema"]["type"], "object")
    for schema in ({"type": "array"}, {}, {"type": "object", "properties": {"a": {"items": [{"$ref": "#/x"}]}}},
                   {"type": "object", "$ref": "#"}, {"type": "object", "anyOf": []}, {"type": "object", "oneOf": [{}]},
                   {"type": "object", "allOf": [{}]}, {"type": "object", "properties": {"a b": {}}},
                   {"type": "object", "properties": {"x" * 65: {}}}, {"type": "object", "properties": []}, [], "object", None):
        tools_bad(w, dict(CUSTOM, input_schema=schema), names=r"tools\[0\]\.input_schema")


@test
def platform_19_lists_page(w):
    made = [w.new_agent(name=f"page {i}")["id"] for i in range(7)]
    for limit in (1, 3, 7, 100):
        equal([a["id"] for a in w.all(f"/v1/agents?limit={limit}")][:7], made[::-1], f"limit={limit}")
    first = w.ok("GET", "/v1/agents?limit=2")
    true(first["next_page"].startswith("page_"), first["next_page"])
    equal(set(first), {"data", "next_page"})
    w.new_agent(name="between the pages")
    second = w.ok("GET", "/v1/agents?limit=3&page=" + first["next_page"])
    equal([a["id"] for a in second["data"]], made[4::-1][:3], "a page goes on where the last one ended, with another limit")


@test
def platform_20_bad_cursors_and_limits(w):
    for q in ("limit=0", "limit=101", "limit=-1", "limit=x", "limit=1.5", "limit=", "limit=99999999999999999999"):
        w.refused(400, "GET", "/v1/agents?" + q, names="limit")
    for page in ("x", "page_", "page_%21%21", "page_AAAA", "page_" + "A" * 600, "page_bm9uc2Vuc2U%3D"):
        w.refused(400, "GET", "/v1/agents?page=" + page, names="page")


@test
def platform_23_created_at_edges(w):
    made = [w.new_agent(name=f"edge {i}") for i in range(3)]
    at = made[1]["created_at"]
    ids = lambda q: [a["id"] for a in w.all("/v1/agents?limit=100&" + q)]
    mine = {a["id"]: i for i, a in enumerate(made)}
    sees = lambda q: sorted(mine[i] for i in ids(q) if i in mine)
    enc = at.replace(":", "%3A")
    equal(sees(f"created_at[gte]={at}"), [1, 2])
    equal(sees(f"created_at%5Bgte%5D={enc}"), [1, 2])
    equal(sees(f"created_at[lte]={at}"), [0, 1])
    equal(sees(f"created_at[gte]={at}&created_at[lte]={at}"), [1])
    for q in ("created_at[gte]=yesterday", "created_at[gte]=2026-13-01T00:00:00Z", "created_at[gte]="):
        w.refused(400, "GET", "/v1/agents?" + q, names="created_at")


@test
def a_roster_over_http(w):
    worker = w.new_agent(name="worker", system="work")
    lead = w.new_agent(name="lead", multiagent={"type": "coordinator", "agents": [
        {"type": "advisor", "model": MODEL}, worker["id"], {"type": "self"}]})
    equal(lead["multiagent"], {"type": "coordinator", "agents": [
        {"type": "agent", "id": worker["id"], "version": 1}, {"type": "agent", "id": lead["id"], "version": 1},
        {"type": "advisor", "model": MODEL}]})
    equal(w.ok("GET", f"/v1/agents/{lead['id']}"), lead)
    update(w, worker, system="work harder")
    equal(update(w, lead, multiagent=lead["multiagent"]), lead, "what was read, sent back")
    equal(update(w, lead, multiagent={"type": "coordinator", "agents": [worker["id"]]})["multiagent"]["agents"][0]["version"], 2)
    w.ok("POST", f"/v1/agents/{worker['id']}/archive")
    equal(update(w, lead, description="d")["multiagent"]["agents"][0]["version"], 2, "a pinned member that is archived stays")
    r = bad(w, "archived", multiagent={"type": "coordinator", "agents": [worker["id"]]})
    equal(r.error["details"]["field"], "multiagent.agents[0]")
    for m in (1, "coordinator", [], {"type": "coordinator", "agents": worker["id"]}, {"type": "coordinator", "agents": [[]]},
              {"type": "coordinator", "agents": ["agent_" + NOBODY]}, {"type": "coordinator", "agents": ["x" * 1000]}):
        bad(w, "multiagent", multiagent=m)


@test
def a_roster_of_another_workspace_or_deeper(w):
    worker = w.new_agent()
    lead = w.new_agent(multiagent={"type": "multiagent_20261001", "subagents": {"type": "enabled", "predefined_agents": [worker["id"]]}})
    equal(lead["multiagent"]["workflows"], {"type": "enabled", "inline_agents": {"type": "enabled"}, "predefined_agents": []})
    bad(w, "one level", multiagent={"type": "multiagent_20261001", "workflows": {"type": "enabled", "predefined_agents": [lead["id"]]}})
    # a member may get a roster later: the version that is pinned has none
    update(w, worker, multiagent={"type": "multiagent_20261001"})
    equal(update(w, lead, name="still fine")["multiagent"], lead["multiagent"])
    bad(w, "one level", multiagent={"type": "coordinator", "agents": [worker["id"]]})
    w.new_agent(multiagent={"type": "coordinator", "agents": [{"type": "agent", "id": worker["id"], "version": 1}]})


@test
def effort_defaults_per_model(w):
    for model, effort in (("claude-opus-5-5", "medium"), ("claude-haiku-5-5", "medium"), ("claude-opus-5", "high"), ("a-model", "high")):
        a = w.new_agent(model=model)
        equal(a["model"]["effort"], {"type": effort}, model)
        equal(update(w, a, model={"id": "claude-opus-5-5", "effort": "low"})["model"]["effort"], {"type": "low"})
        equal(update(w, a, model={"id": "another"})["model"]["effort"], {"type": "high"}, "another model's default")


@test
def policies_are_resolved(w):
    auto = {"type": "auto"}
    a = w.new_agent(mcp_servers=[SERVER], tools=[
        {"type": TOOLSET, "default_config": {"permission_policy": auto}, "configs": [{"name": "bash"}, {"name": "read", "permission_policy": ALLOW}]},
        dict(SERVED, configs=[{"name": "any_name", "permission_policy": auto}, {"name": "other"}])])
    built_in, served = a["tools"]
    equal(built_in["default_config"], {"enabled": True, "permission_policy": auto})
    equal([(c["name"], c["permission_policy"]) for c in built_in["configs"]], [("bash", auto), ("read", ALLOW)])
    equal(served["default_config"], {"enabled": True, "permission_policy": ASK})
    equal([(c["name"], c["permission_policy"], "type" in c) for c in served["configs"]], [("any_name", auto, False), ("other", ASK, False)])
