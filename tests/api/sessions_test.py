"""Sessions, their lists, updates and ends (API: sessions, resource, list, update, archive, delete)."""
import threading

from kit import (KEY, MODEL, NOBODY, UPSTREAM_KEY, BEGIN, TRIPLE, Server, World, equal, last, message, said, test, text, true,
                 types, wait)


def body(w, **fields):
    return dict({"agent": w.agent["id"], "environment_id": w.environment["id"]}, **fields)


def bad(w, names=None, **fields):
    return w.refused(400, "POST", "/v1/sessions", body(w, **fields), names=names)


def update(w, s, status=200, **fields):
    r = w.post(f"/v1/sessions/{s['id']}", fields)
    true(r.status == status, f"{fields}: {r.status} {r.body[:300]!r}")
    return r.json


def ids(w, query=""):
    return [s["id"] for s in w.all("/v1/sessions?limit=1000" + query)]


@test
def bad_fields(w):
    w.refused(400, "POST", "/v1/sessions", {"environment_id": w.environment["id"]}, names="agent")
    w.refused(400, "POST", "/v1/sessions", {"agent": w.agent["id"]}, names="environment_id")
    for agent in (None, 1, [], "", {}, {"type": "agent"}, {"type": "person", "id": "x"}, {"id": w.agent["id"]}):
        bad(w, "agent", agent=agent)
    bad(w, "agent", agent={"type": "agent", "id": w.agent["id"], "version": 0})
    bad(w, "environment_id", environment_id=1)
    bad(w, "title", title=1)
    bad(w, "metadata", metadata={"a": None and 1, "b": 2})
    bad(w, "metadata", metadata={f"k{i}": "v" for i in range(17)})
    bad(w, "resources", resources={})
    bad(w, "resources", resources=["file_x"])
    w.refused(404, "POST", "/v1/sessions", body(w, agent="agent_" + NOBODY))
    w.refused(404, "POST", "/v1/sessions", body(w, environment_id="env_" + NOBODY))
    r = w.post("/v1/sessions", body(w, vault_ids=["vlt_" + NOBODY]))
    true(r.status in (400, 404), r.status)
    w.session(title=None, metadata={}, resources=[], vault_ids=[], budget=None)


@test
def a_model_that_nobody_serves(w):
    a = w.new_agent(model="llama-of-nobody")
    r = w.refused(400, "POST", "/v1/sessions", body(w, agent=a["id"]), names="llama-of-nobody")
    true("model" in r.error["message"], r.error)


@test
def platform_23_created_at_edges_of_sessions(w):
    a = w.new_agent(name="edges")
    made = [w.session(agent=a["id"]) for _ in range(4)]
    at = made[1]["created_at"]
    index = {s["id"]: i for i, s in enumerate(made)}
    for op, want in (("gt", [2, 3]), ("gte", [1, 2, 3]), ("lt", [0]), ("lte", [0, 1])):
        equal(sorted(index[i] for i in ids(w, f"&agent_id={a['id']}&created_at[{op}]={at}")), want, op)
    equal(ids(w, f"&agent_id={a['id']}&created_at[gt]={made[0]['created_at']}&created_at[lt]={made[2]['created_at']}"), [made[1]["id"]])


@test(model=True)
def archive_while_blocked(w):
    s, _ = w.turn(message('[[tool lookup {"q":"x"}]]'), reason="requires_action")
    equal(w.ok("POST", f"/v1/sessions/{s['id']}/archive")["status"], "terminated")
    equal(types(w.events(s))[-1], "session.status_terminated")


@test
def deleted_archived_sessions(w):
    s = w.session()
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}")


@test
def many_sessions_at_once(w):
    got, lock = [], threading.Lock()

    def make():
        for _ in range(10):
            s = w.session(title="at once")
            with lock:
                got.append(s["id"])
    ts = [threading.Thread(target=make) for _ in range(8)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    equal(len(set(got)), 80)
    true(set(got) <= set(ids(w)), "all are listed")


@test(model=True)
def a_session_goes_on_with_its_history(w):
    s, one = w.turn(message("[[say one]]"))
    _, two = w.turn(message("[[say {messages} messages; {model}]]"), session=s)
    equal(said(two), [f"3 messages; {MODEL}"])
    equal(last(one, "session.status_idle")["stop_reason"], {"type": "end_turn"})
    equal(w.events(s), one + two)


def limit(amount):
    return {"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}


@test
def a_budget_is_kept_and_shown(w):
    s = w.session(budget=limit("2500"))
    equal(s["budget"], limit("2500"))
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["budget"], limit("2500"))
    with w.stream(s) as feed:
        equal(update(w, s, budget=limit("2500"))["budget"], limit("2500"), "the same: nothing happens")
        equal(update(w, s, budget=limit("100"))["budget"], limit("100"), "less, but more than was spent")
        equal(update(w, s, budget=limit("5000"), title="rich")["title"], "rich")
        equal(update(w, s, budget=None)["budget"], None)
        equal(update(w, s, budget=None)["budget"], None, "again")
        events = feed.until(lambda all_: len(all_) >= 3, "three updates")
        equal([{k: v for k, v in e.items() if k not in ("type", "id", "processed_at")} for e in events],
              [{"budget": limit("100")}, {"budget": limit("5000"), "title": "rich"}, {"budget": None}])
    equal(types(w.events(s)), ["session.updated"] * 3)
    for have in (s, w.session()):
        r = w.refused(400, "POST", f"/v1/sessions/{have['id']}", {"budget": limit("100")})
        equal(r.code(), "budget_create_only")


@test
def budgets_need_prices(w):
    w.session(agent=w.new_agent(model="claude-opus-5")["id"], budget=limit("1"))
    fast = {"id": "claude-haiku-4-5", "speed": "fast"}
    worker = w.new_agent(model=fast)
    lead = w.new_agent(multiagent={"type": "coordinator", "agents": [worker["id"]]})
    for agent in (lead["id"], worker["id"], {"type": "agent_with_overrides", "id": w.agent["id"], "model": fast}):
        r = bad(w, "no list price", agent=agent, budget=limit("100"))
        equal(r.code(), "model_not_budgetable")
        w.session(agent=agent)


@test
def budgets_that_cannot_be_set_change_nothing(w):
    s = w.session(budget=limit("100"), title="t")
    for b in (1, "100", [], {}, {"type": "limit"}, dict(limit("100"), type="other"), limit("0"), limit("00"), limit(" 1"), limit("1.5"), limit(100), limit(None),
              limit("9" * 30), {"type": "limit", "max_list_cost": {"amount": "100"}}, {"type": "limit", "max_list_cost": {"amount": "100", "currency": "usd"}}):
        r = w.refused(400, "POST", f"/v1/sessions/{s['id']}", {"budget": b, "title": "other"}, names="budget")
        true(r.error["details"]["field"].startswith("budget"), r.error)
        bad(w, "budget", budget=b)
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["title"], "t")
    equal(w.events(s), [])


@test(model=True)
def a_budget_below_what_was_spent(w):
    s = w.session(budget=limit("100000"))
    w.turn(message("[[usage in=100000 out=100000]] [[say hello]]"), session=s)  # 0.50 + 2.50 USD
    for amount in ("1", "299", "300"):
        r = w.refused(400, "POST", f"/v1/sessions/{s['id']}", {"budget": limit(amount)}, names="must be greater than the session's consumed list cost")
        equal(r.code(), "budget_not_raised")
    equal(update(w, s, budget=limit("400"))["budget"], limit("400"))


@test(model=True)
def prices_of_the_configuration(w):
    try:
        Server(env={"MOONRIG_API_KEY": KEY}, config='{ prices = { models = { m = { input = 1 } } } }').stop()
        raise AssertionError("a price without output was taken")
    except AssertionError as e:
        true("prices.models.m.output" in str(e), e)
    server = Server(env={"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url},
                    config='{ models = { route = { ["local-*"] = "anthropic" } }, '
                           'prices = { models = { ["local-*"] = { input = 0, output = 2.5 } }, hour_usd = 0 } }')
    try:
        own = World(server.url, mock=w.mock, server=server)
        a = own.new_agent(model="local-llama")
        s = own.session(agent=a["id"], budget=limit("100000"))
        own.turn(message("[[usage in=1000000 out=10000]] [[say hello]]"), session=s)  # 2.5 cents
        own.refused(400, "POST", f"/v1/sessions/{s['id']}", {"budget": limit("2")}, names="consumed")
        update(own, s, budget=limit("3"))
        equal(own.post("/v1/sessions", body(own, agent=own.new_agent(model={"id": "local-x", "speed": "fast"})["id"], budget=limit("5"))).code(), "model_not_budgetable")
    finally:
        server.stop()


@test
def overrides_of_the_model(w):
    a = w.new_agent(model={"id": MODEL, "effort": "low", "inference_geo": "us"})
    make = lambda **o: w.session(agent=dict({"type": "agent_with_overrides", "id": a["id"]}, **o))["agent"]["model"]
    equal(make(), {"id": MODEL, "effort": {"type": "low"}, "speed": "standard", "inference_geo": "us"})
    equal(make(model={"id": MODEL, "effort": "max"}), {"id": MODEL, "effort": {"type": "high"}, "speed": "standard"}, "an effort is not applied, the pin is cleared")
    equal(make(model="claude-haiku-4-5")["effort"], {"type": "high"})
    bad(w, "agent.model.effort", agent={"type": "agent_with_overrides", "id": a["id"], "model": {"id": MODEL, "effort": "huge"}})
    bad(w, "no provider", agent={"type": "agent_with_overrides", "id": a["id"], "model": "m-of-nobody"})


@test
def overrides_reach_copies_of_the_coordinator_alone(w):
    worker = w.new_agent(name="worker", system="work")
    lead = w.new_agent(name="lead", system="lead", multiagent={"type": "multiagent_20261001", "workflows": {"type": "disabled"},
                       "subagents": {"type": "enabled", "predefined_agents": [worker["id"], {"type": "self"}]}})
    s = w.session(agent={"type": "agent_with_overrides", "id": lead["id"], "system": "mine"})
    first, copy = s["agent"]["multiagent"]["subagents"]["predefined_agents"]
    equal((first["system"], copy["system"], copy["id"], copy["version"]), ("work", "mine", lead["id"], 1))
    equal(set(first), {"type", "id", "version", "name", "description", "system", "model", "tools", "mcp_servers", "skills", "execution_identity"})
    equal({k: v for k, v in s["agent"].items() if k != "multiagent"}, copy)
    bad(w, "inference_geo", agent={"type": "agent_with_overrides", "id": lead["id"], "model": {"id": MODEL, "inference_geo": "us"}})
    other = w.new_agent(multiagent={"type": "coordinator", "agents": [w.new_agent(model="m-of-nobody")["id"]]})
    bad(w, "agent.multiagent.*no provider", agent=other["id"])


@test
def servers_of_a_session(w):
    server = {"type": "url", "name": "crm", "url": "https://mcp.example.com/"}
    served = {"type": "mcp_toolset", "mcp_server_name": "crm"}
    a = w.new_agent(mcp_servers=[server], tools=[served])
    bad(w, r"agent\.tools\[0\]", agent={"type": "agent_with_overrides", "id": a["id"], "mcp_servers": []})
    s = w.session(agent=a["id"])
    for agent, names in (({"mcp_servers": []}, r"agent\.tools\[0\]"), ({"tools": [served, served]}, r"agent\.tools\[1\]"), ({"tools": 5}, "agent.tools"),
                         ({"mcp_servers": [5]}, "agent.mcp_servers"), ({"system": "x"}, "agent.system"), ({"tools": [], "model": "m"}, "agent.model")):
        w.refused(400, "POST", f"/v1/sessions/{s['id']}", {"agent": agent, "title": "no"}, names=names)
    equal(w.events(s), [])
    for nothing in (None, {}, {"tools": [served]}, {"tools": a["tools"], "mcp_servers": [server]}):
        update(w, s, agent=nothing)
    equal(w.events(s), [], "nothing changed")
    now = update(w, s, agent={"tools": [], "mcp_servers": []})
    equal((now["agent"]["tools"], now["agent"]["mcp_servers"]), ([], []))
    e = w.events(s)[0]
    equal((e["agent"], set(e)), (now["agent"], {"type", "id", "processed_at", "agent"}))
    equal(w.ok("GET", f"/v1/agents/{a['id']}"), a, "the agent itself")


@test(model=True)
def changed_tools_are_used_in_the_next_turn(w):
    tool = {"type": "custom", "name": "fresh", "description": "d", "input_schema": {"type": "object"}}
    s, _ = w.turn(message("[[say before]]"))
    update(w, s, agent={"tools": [tool]})
    _, events = w.turn(message("[[tool fresh {}]]"), session=s, reason="requires_action")
    use = last(events, "agent.custom_tool_use")
    equal(use["name"], "fresh")
    update(w, s, agent={"tools": []})
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "idle", "blocked is idle, too")


@test
def a_cursor_outside_of_the_filter(w):
    a = w.new_agent()
    made = [w.session(agent=a["id"]) for _ in range(3)]
    q = f"/v1/sessions?agent_id={a['id']}&limit=1"
    cursor = w.ok("GET", q)["next_page"]
    w.ok("GET", f"{q}&created_at[lte]={made[2]['created_at']}&page={cursor}")
    w.refused(400, "GET", f"{q}&created_at[lt]={made[2]['created_at']}&page={cursor}", names="page")
    w.refused(400, "GET", f"{q}&created_at[gt]={made[2]['created_at']}&page={cursor}", names="page")


@test
def documents_from_files_in_initial_events(w):
    file = {"type": "document", "source": {"type": "file", "file_id": "file_" + NOBODY}}
    many = {"type": "user.message", "content": [file] * 60}
    bad(w, "more than 100", initial_events=[many, many])
    bad(w, r"initial_events\[1\].*outcome", initial_events=[{"type": "user.define_outcome", "description": "d", "rubric": {"type": "text", "content": "r"}}] * 2)
