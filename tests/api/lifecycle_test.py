"""Items 11 to 32 of the session checklist: the session resource from create to delete (API: sessions §2)."""
from kit import BEGIN, NOBODY, TRIPLE, equal, message, said, test, text, true, types, wait
from stage import TOOLSET, at_gate, custom, fresh, gate, outcome, status, verdicts


def body(w, **fields):
    return dict({"agent": w.agent["id"], "environment_id": w.environment["id"]}, **fields)


def bad(w, names=None, **fields):
    return w.refused(400, "POST", "/v1/sessions", body(w, **fields), names=names)


def update(w, s, status=200, **fields):
    r = w.post(f"/v1/sessions/{s['id']}", fields)
    true(r.status == status, f"{fields}: {r.status}, not {status}: {r.body[:300]!r}")
    return r.json


def ids(w, query=""):
    return [s["id"] for s in w.all("/v1/sessions?limit=1000" + query)]


def override(w, a, **fields):
    return w.session(agent=dict({"type": "agent_with_overrides", "id": a["id"]}, **fields))["agent"]


def limit(amount="2500", currency="USD"):
    return {"type": "limit", "max_list_cost": {"amount": amount, "currency": currency}}


class Held:
    """A session in the middle of a model request, until the end of the block."""

    def __init__(self, w, s=None):
        self.w, self.s, self.door = w, s or w.session(), fresh()

    def __enter__(self):
        self.feed = self.w.stream(self.s)
        self.w.send(self.s, message(f"[[gate {self.door}]] [[say x]]"))
        at_gate(self.w, self.door, self.feed)
        return self.s

    def __exit__(self, *_):
        gate(self.w, self.door)
        self.feed.idle()
        self.feed.close()


@test
def t_011_a_new_session(w):
    a = w.new_agent()
    w.ok("POST", f"/v1/agents/{a['id']}", {"description": "the second version"})
    s = w.session(agent=a["id"])
    equal({k: s[k] for k in ("type", "status", "title", "metadata", "resources", "vault_ids", "outcome_evaluations", "budget", "archived_at")},
          {"type": "session", "status": "idle", "title": None, "metadata": {}, "resources": [], "vault_ids": [],
           "outcome_evaluations": [], "budget": None, "archived_at": None})
    true(isinstance(s["stats"], dict) and isinstance(s["usage"], dict), s)
    equal((s["agent"]["type"], s["agent"]["id"], s["agent"]["version"], s["agent"]["multiagent"]), ("agent", a["id"], 2, None))
    equal(s["environment_id"], w.environment["id"])
    true("metadata" not in s["agent"] and "created_at" not in s["agent"], s["agent"])
    true(s["id"].startswith("sesn_01"), s["id"])
    again = w.ok("GET", f"/v1/sessions/{s['id']}")
    for o in s, again:
        o.pop("stats")
    equal(again, s)
    equal(w.events(s), [], "no work was started")


@test
def t_012_a_session_keeps_the_agent_it_was_made_with(w):
    a = w.new_agent(system="one", tools=[custom()])
    s = w.session(agent=a["id"])
    w.ok("POST", f"/v1/agents/{a['id']}", {"system": "two", "tools": [], "name": "other"})
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["agent"], s["agent"])
    equal((s["agent"]["version"], s["agent"]["system"]), (1, "one"))
    equal(w.session(agent={"type": "agent", "id": a["id"], "version": 1})["agent"], s["agent"], "a pinned version")
    now = w.session(agent=a["id"])["agent"]
    equal((now["version"], now["system"], now["tools"], now["name"]), (2, "two", [], "other"))


@test
def t_013_overrides_replace_what_they_give(w):
    servers = [{"type": "url", "name": "docs", "url": "https://example.com/mcp"}]
    a = w.new_agent(system="base", description="d", tools=[TOOLSET, custom(), {"type": "mcp_toolset", "mcp_server_name": "docs"}], mcp_servers=servers)
    w.ok("POST", f"/v1/agents/{a['id']}", {"description": "version two"})
    base = w.session(agent=a["id"])["agent"]
    s = override(w, a, system="mine")
    equal((s["id"], s["version"]), (a["id"], 2), "the base's")
    equal(dict(s, system="base"), base, "and nothing else has changed")
    equal([t["type"] for t in override(w, a, tools=[custom("other")], mcp_servers=[])["tools"]], ["custom"], "replaced, not merged")
    equal(override(w, a, tools=[], mcp_servers=[])["mcp_servers"], [])
    equal(override(w, a, tools=None, mcp_servers=None)["tools"], [])
    equal(override(w, a, model="claude-haiku-4-5")["model"]["id"], "claude-haiku-4-5")
    equal(override(w, a, model={"id": "claude-haiku-4-5", "effort": {"type": "low"}})["model"]["id"], "claude-haiku-4-5")
    one = override(w, a, version=1, system="x")
    equal((one["version"], one["description"], one["system"]), (1, "d", "x"))
    equal(w.ok("GET", f"/v1/agents/{a['id']}")["system"], "base", "the agent itself")
    with_ = lambda **o: dict({"type": "agent_with_overrides", "id": a["id"]}, **o)
    bad(w, "mcp", agent=with_(mcp_servers=[]))
    bad(w, r"agent\.tools\[0\]", agent=with_(tools=[{"type": "mcp_toolset", "mcp_server_name": "x"}]))
    bad(w, r"^agent\.tools\[0\]\.name", agent=with_(tools=[custom("bash")], mcp_servers=[]))
    bad(w, "system", agent=with_(system="s" * 100001))
    w.refused(404, "POST", "/v1/sessions", body(w, agent=with_(version=7)))


@test
def t_014_a_model_cannot_be_cleared_a_prompt_can(w):
    a = w.new_agent(system="base")
    r = bad(w, "model", agent={"type": "agent_with_overrides", "id": a["id"], "model": None})
    equal(r.code(), "agent_model_required")
    equal(override(w, a, system=None)["system"], None)
    equal(override(w, a)["system"], "base", "what is not there is inherited")


@test
def t_015_skills_need_tools(w):
    skill = {"type": "anthropic", "skill_id": "xlsx"}
    for tools in ([], None):
        bad(w, "skill", agent={"type": "agent_with_overrides", "id": w.agent["id"], "skills": [skill], "tools": tools})
    made = w.post("/v1/agents", {"name": "sheets", "model": "claude-opus-4-7", "tools": [TOOLSET], "skills": [skill]})
    if made.status == 200:
        for tools in ([], None):
            bad(w, "skill", agent={"type": "agent_with_overrides", "id": made.json["id"], "tools": tools})
        override(w, made.json, tools=[], skills=[])


@test(model=True)
def t_016_an_initial_message(w):
    door = fresh()
    s = w.session(initial_events=[message(f"[[gate {door}]] [[say first]]")])
    equal(s["status"], "running")
    true("initial_events" not in s, "not echoed")
    (e,) = [e for e in w.events(s) if e["type"] == "user.message"]
    true(e["id"].startswith("sevt_01"), "listed at once, with an id")
    gate(w, door)
    wait(lambda: status(w, s) == "idle", "idle")
    events = w.events(s)
    equal(types(events), BEGIN + ["user.message", "span.model_request_start", "agent.message", "span.model_request_end"] + TRIPLE)
    equal((events[2]["id"], said(events)), (e["id"], ["first"]))
    s = w.session(initial_events=[message("one"), message("[[say both]]")])
    wait(lambda: status(w, s) == "idle", "idle")
    equal([e["content"][0]["text"] for e in w.events(s) if e["type"] == "user.message"], ["one", "[[say both]]"], "in order")


@test(model=True)
def t_016_an_initial_outcome(w):
    s = w.session(initial_events=[outcome("[[say done]]", verdicts("satisfied: so it is"))])
    equal(s["status"], "running")
    wait(lambda: status(w, s) == "idle", "idle")
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["outcome_evaluations"][0]["result"], "satisfied")


@test
def t_017_initial_events_that_cannot_be(w):
    a = w.new_agent()
    fine = message("x")
    for events in ([{"type": "system.message", "content": text("x")}], [fine] * 51, [{"type": "user.interrupt"}], [outcome(), outcome()],
                   [{"type": "user.define_outcome", "description": "no rubric"}], [outcome(max_iterations=21)],
                   [{"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_x"}], [{"type": "user.tool_confirmation", "tool_use_id": "sevt_x", "result": "allow"}],
                   [fine, {"type": "user.message"}], [{}], ["x"], "x", [{"type": "user.message", "content": []}]):
        bad(w, "initial_events", agent=a["id"], initial_events=events)
    equal(ids(w, f"&agent_id={a['id']}"), [], "no session was made")


@test
def t_018_empty_initial_events(w):
    for e in ([], None):
        s = w.session(initial_events=e)
        equal(s["status"], "idle")
        equal(w.events(s), [])


@test
def t_019_budgets_that_cannot_be(w):
    a = w.new_agent()
    for amount in ("25.00", "0", "-1", 25, 25.5, "", "007", "1e3", " 5", None, "9" * 40):
        bad(w, "budget", agent=a["id"], budget=limit(amount))
    for currency in ("EUR", "usd", None, 1):
        bad(w, "budget", agent=a["id"], budget=limit("100", currency))
    for budget in ({}, {"type": "limit"}, {"type": "cap", "max_list_cost": {"amount": "1", "currency": "USD"}}, [], "100", {"type": "limit", "max_list_cost": "100"}):
        bad(w, "budget", agent=a["id"], budget=budget)
    equal(ids(w, f"&agent_id={a['id']}"), [], "no session was made")
    for amount in ("1", "2500", "100000"):
        equal(w.session(budget=limit(amount))["budget"], limit(amount))


@test
def t_020_lists_are_newest_first(w):
    a = w.new_agent()
    made = [w.session(agent=a["id"])["id"] for _ in range(5)]
    q = f"&agent_id={a['id']}"
    equal(ids(w, q), made[::-1])
    equal(ids(w, q + "&order=desc"), made[::-1])
    equal(ids(w, q + "&order=asc"), made)


@test
def t_021_archived_sessions_are_hidden(w):
    a = w.new_agent()
    made = [w.session(agent=a["id"])["id"] for _ in range(3)]
    w.ok("POST", f"/v1/sessions/{made[1]}/archive")
    q = f"&agent_id={a['id']}"
    for hidden in ("", "&include_archived=false"):
        equal(ids(w, q + hidden), [made[2], made[0]], hidden)
    equal(ids(w, q + "&include_archived=true"), made[::-1])


@test(model=True)
def t_022_filters_by_status_and_version(w):
    a = w.new_agent(tools=[custom()])
    idle, gone, running = [w.session(agent=a["id"]) for _ in range(3)]
    w.ok("POST", f"/v1/sessions/{gone['id']}/archive")
    q = f"&agent_id={a['id']}&include_archived=true"
    with Held(w, running):
        for form in ("statuses[]=%s&statuses[]=%s", "statuses%%5B%%5D=%s&statuses%%5B%%5D=%s", "statuses=%s&statuses=%s", "statuses=%s,%s"):
            equal(ids(w, q + "&" + form % ("idle", "terminated")), [gone["id"], idle["id"]], form)
            equal(ids(w, q + "&" + form % ("running", "terminated")), [running["id"], gone["id"]], form)
        equal(ids(w, q + "&statuses[]=running"), [running["id"]])
        equal(ids(w, q + "&statuses[]=rescheduling"), [])
    w.ok("POST", f"/v1/agents/{a['id']}", {"description": "two"})
    two = w.session(agent=a["id"])
    equal(ids(w, f"&agent_id={a['id']}&agent_version=2"), [two["id"]])
    true(two["id"] in ids(w, "&agent_version=7"), "alone it is ignored")
    equal(ids(w, "&deployment_id=depl_x"), [])
    equal(ids(w, "&memory_store_id=memstore_x"), [])


@test
def t_023_walking_forward_and_back(w):
    a = w.new_agent()
    made = [w.session(agent=a["id"])["id"] for _ in range(7)][::-1]
    for order in ("desc", "asc"):
        want = made if order == "desc" else made[::-1]
        q = f"/v1/sessions?agent_id={a['id']}&order={order}"
        pages, page, second = [], "", None
        while True:
            j = w.ok("GET", q + "&limit=3" + page)
            equal(set(j), {"data", "next_page", "prev_page"})
            pages.append([s["id"] for s in j["data"]])
            equal(j["prev_page"] is None, len(pages) == 1)
            if not j["next_page"]:
                break
            page = "&page=" + j["next_page"]
            second = second or page
        equal(j["next_page"], None)
        equal(sum(pages, []), want)
        equal([s["id"] for s in w.ok("GET", q + "&limit=2" + second)["data"]], want[3:5], "another limit")
        back = [pages[-1]]
        while j["prev_page"]:
            j = w.ok("GET", q + "&limit=3&page=" + j["prev_page"])
            back.insert(0, [s["id"] for s in j["data"]])
        equal(back, pages, "the same items, back")


@test
def t_024_a_cursor_keeps_its_order(w):
    [w.session() for _ in range(2)]
    for order, other in (("desc", "asc"), ("asc", "desc")):
        cursor = w.ok("GET", "/v1/sessions?limit=1&order=" + order)["next_page"]
        w.refused(400, "GET", f"/v1/sessions?limit=1&order={other}&page={cursor}", names="page|order")
        w.ok("GET", f"/v1/sessions?limit=2&order={order}&page={cursor}")
    cursor = w.ok("GET", "/v1/sessions?limit=1")["next_page"]
    w.refused(400, "GET", "/v1/sessions?order=asc&page=" + cursor)
    for q in ("order=up", "statuses[]=sleeping", "limit=0", "limit=x", "page=nonsense", "include_archived=2", "created_at[gte]=x", "agent_version=x"):
        w.refused(400, "GET", "/v1/sessions?" + q)


@test
def t_025_metadata_is_patched_by_key(w):
    s = w.session(metadata={"keep": "1", "drop": "2", "change": "3"})
    equal(update(w, s, metadata={"drop": None, "change": "4", "new": "5"})["metadata"], {"keep": "1", "change": "4", "new": "5"})
    equal(update(w, s, metadata={})["metadata"], {"keep": "1", "change": "4", "new": "5"})
    equal(update(w, s, metadata=None)["metadata"], {"keep": "1", "change": "4", "new": "5"})
    equal(update(w, s, metadata={"keep": None, "change": None, "new": None})["metadata"], {})
    for metadata in ({"a": 1}, {f"k{i}": "v" for i in range(17)}, {"k" * 65: "v"}, {"k": "v" * 513}, []):
        update(w, s, 400, metadata=metadata)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["metadata"], {})
    cleared = [e for e in w.events(s) if e["type"] == "session.updated"][-1]
    true("metadata" not in cleared, "absent when nothing is left")


@test
def t_026_an_update_of_nothing_says_nothing(w):
    s = w.session(title="t", metadata={"k": "v"}, agent=w.new_agent(tools=[custom()])["id"])
    with w.stream(s) as feed:
        for nothing in ({}, {"title": "t"}, {"metadata": {"k": "v"}}, {"metadata": {"none": None}}, {"metadata": None}, {"metadata": {}}, {"agent": {}},
                        {"agent": {"tools": s["agent"]["tools"]}}, {"agent": {"mcp_servers": []}}):
            now = update(w, s, **nothing)
            equal((now["title"], now["metadata"], now["agent"]), (s["title"], s["metadata"], s["agent"]))
        update(w, s, title="the one change")
        equal(types(feed.until(lambda all_: all_, "the one update")), ["session.updated"])
    equal(len(w.events(s)), 1)


@test
def t_027_an_updated_title(w):
    s = w.session(title="old", metadata={"k": "v"})
    with w.stream(s) as feed:
        for title in ("new", None):
            equal(update(w, s, title=title)["title"], title)
        events = feed.until(lambda all_: len(all_) >= 2, "two updates")
        equal(types(events), ["session.updated"] * 2)
        equal([set(e) for e in events], [{"type", "id", "processed_at", "title"}] * 2)
        equal([e["title"] for e in events], ["new", None])
    equal(w.events(s), events, "listed, too")
    true(w.ok("GET", f"/v1/sessions/{s['id']}")["updated_at"] > s["updated_at"], "updated_at")
    update(w, s, 400, title=1)


@test(model=True)
def t_028_tools_change_only_while_idle(w):
    s = w.session(agent=w.new_agent(tools=[custom("old")])["id"])
    tools = [custom("new")]
    with Held(w, s):
        update(w, s, 400, agent={"tools": tools})
        update(w, s, 400, title="with it", agent={"tools": []})
        equal(w.ok("GET", f"/v1/sessions/{s['id']}")["title"], None, "refused whole")
        update(w, s, title="a title does")
    with w.stream(s) as feed:
        now = update(w, s, agent={"tools": tools})
        equal(now["agent"], dict(s["agent"], tools=tools))
        (e,) = feed.until(lambda all_: all_, "the update")
        equal((e["type"], set(e), e["agent"]), ("session.updated", {"type", "id", "processed_at", "agent"}, now["agent"]))
    _, events = w.turn(message("[[say {tools}]]"), session=s)
    equal(said(events), ["new"], "from the next turn on")
    equal(update(w, s, agent={"tools": []})["agent"]["tools"], [])
    servers = [{"type": "url", "name": "docs", "url": "https://example.com/mcp"}]
    equal(update(w, s, agent={"mcp_servers": servers})["agent"]["mcp_servers"], servers)
    equal(w.ok("GET", f"/v1/agents/{s['agent']['id']}")["tools"][0]["name"], "old", "the agent itself")


@test
def t_029_what_cannot_be_updated(w):
    s = w.session()
    for agent in ({"model": "claude-haiku-4-5"}, {"system": "x"}, {"name": "x"}, {"tools": [], "model": "claude-haiku-4-5"}, {"skills": []},
                  {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]}, {"tools": "x"}, "x"):
        r = w.refused(400, "POST", f"/v1/sessions/{s['id']}", {"agent": agent})
        true("agent" in r.error["message"], r.error)
    w.refused(404, "POST", f"/v1/sessions/sesn_{NOBODY}", {"title": "x"})
    for vaults in ([], ["vlt_x"], "vlt_x"):
        update(w, s, 400, vault_ids=vaults)
    equal(w.events(s), [])


@test(model=True)
def t_030_archive(w):
    with Held(w) as s:
        w.refused(400, "POST", f"/v1/sessions/{s['id']}/archive")
        equal(status(w, s), "running")
    with w.stream(s) as feed:
        gone = w.ok("POST", f"/v1/sessions/{s['id']}/archive")
        equal((gone["status"], bool(gone["archived_at"])), ("terminated", True))
        feed.end()
        equal(types(feed.events), ["session.status_terminated"])
        equal(feed.error, None, "a proper end")
    equal(types(w.events(s))[-1], "session.status_terminated")
    again = w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    equal(again, dict(gone, stats=again["stats"]), "again")


@test(model=True)
def t_031_after_the_archive(w):
    s, events = w.turn(message("[[say x]]"))
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    for e in (message("x"), {"type": "user.interrupt"}, {"type": "system.message", "content": text("x")}):
        r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [e]})
        true(r.status in (400, 404), r.status)
        true(r.error, "an error's form")
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "terminated")
    equal(w.events(s)[:-1], events)
    true(s["id"] in ids(w, "&include_archived=true"), "listed")
    equal(len(w.all(f"/v1/sessions/{s['id']}/threads")), 1)
    update(w, s, 400, title="x")
    with w.stream(s) as closed:
        equal(closed.status, 400, "a stream of a terminated session")


@test(model=True)
def t_032_delete(w):
    with Held(w) as s:
        w.refused(400, "DELETE", f"/v1/sessions/{s['id']}")
    with w.stream(s) as one, w.stream(s) as two:
        equal(w.ok("DELETE", f"/v1/sessions/{s['id']}"), {"id": s["id"], "type": "session_deleted"})
        for feed in one, two:
            feed.end()
            equal((types(feed.events)[-1:], feed.error), (["session.deleted"], None))
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/archive"), ("GET", "/events"), ("GET", "/threads"), ("GET", "/resources"), ("GET", "/events/stream")):
        w.refused(404, verb, f"/v1/sessions/{s['id']}{path}")
    w.refused(404, "POST", f"/v1/sessions/{s['id']}/events", {"events": [message("x")]})
    true(s["id"] not in ids(w, "&include_archived=true"), "gone from lists")
    w.ok("GET", f"/v1/agents/{w.agent['id']}")
    w.ok("GET", f"/v1/environments/{w.environment['id']}")
