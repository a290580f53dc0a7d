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
def sessions_11_defaults(w):
    s = w.session()
    equal({k: s[k] for k in ("type", "status", "title", "metadata", "resources", "vault_ids", "outcome_evaluations", "budget", "archived_at")},
          {"type": "session", "status": "idle", "title": None, "metadata": {}, "resources": [], "vault_ids": [],
           "outcome_evaluations": [], "budget": None, "archived_at": None})
    true(isinstance(s["stats"], dict) and isinstance(s["usage"], dict), s)
    equal((s["agent"]["id"], s["agent"]["version"], s["environment_id"]), (w.agent["id"], 1, w.environment["id"]))
    true("metadata" not in s["agent"] and "created_at" not in s["agent"], s["agent"])
    true(s["id"].startswith("sesn_"), s["id"])
    again = w.ok("GET", f"/v1/sessions/{s['id']}")
    for o in s, again:
        o.pop("stats")
    equal(again, s)
    equal(w.events(s), [], "no work was started")


@test
def sessions_13_overrides(w):
    a = w.new_agent(system="base", description="d", tools=[{"type": "agent_toolset_20260401"}])
    make = lambda **o: w.session(agent=dict({"type": "agent_with_overrides", "id": a["id"]}, **o))["agent"]
    s = make(system="mine")
    equal((s["system"], s["id"], s["version"], s["description"], s["tools"]), ("mine", a["id"], 1, "d", a["tools"]))
    equal(make(system=None)["system"], None)
    equal(make(tools=[])["tools"], [])
    equal(make(tools=None)["tools"], [])
    equal(make(model="claude-haiku-4-5")["model"]["id"], "claude-haiku-4-5")
    equal(make(version=1)["version"], 1)
    equal(w.ok("GET", f"/v1/agents/{a['id']}"), a, "the agent itself")
    bad(w, r"agent\.tools\[0\]", agent={"type": "agent_with_overrides", "id": a["id"], "tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]})
    bad(w, "system", agent={"type": "agent_with_overrides", "id": a["id"], "system": "s" * 100001})
    bad(w, r"^agent\.tools\[0\]\.name", agent={"type": "agent_with_overrides", "id": a["id"], "tools": [{"type": "custom", "name": "bash", "description": "d", "input_schema": {"type": "object"}}]})
    w.refused(404, "POST", "/v1/sessions", body(w, agent={"type": "agent_with_overrides", "id": a["id"], "version": 7}))


@test
def sessions_14_a_model_cannot_be_cleared(w):
    r = bad(w, agent={"type": "agent_with_overrides", "id": w.agent["id"], "model": None})
    equal(r.code(), "agent_model_required")


@test(model=True)
def sessions_16_initial_events(w):
    s = w.session(initial_events=[message("[[say first]]"), message("and [[say second]]")])
    equal(s["status"], "running")
    true("initial_events" not in s, "not echoed")
    wait(lambda: w.ok("GET", f"/v1/sessions/{s['id']}")["status"] == "idle", "the session to be idle")
    events = w.events(s)
    equal(types(events)[:4], BEGIN + ["user.message", "user.message"] if types(events)[3] == "user.message" else BEGIN + ["user.message", "span.model_request_start"])
    equal([e["content"][0]["text"] for e in events if e["type"] == "user.message"], ["[[say first]]", "and [[say second]]"])
    equal(types(events)[-3:], TRIPLE)


@test
def sessions_17_initial_events_that_cannot_be(w):
    before = len(ids(w))
    fine = message("x")
    for events in ([{"type": "system.message", "content": text("x")}], [fine] * 51, [{"type": "user.interrupt"}],
                   [{"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_x"}], [{"type": "user.define_outcome", "description": "x"}],
                   [fine, {"type": "user.message"}], [{}], ["x"], "x", [{"type": "user.message", "content": []}]):
        r = w.post("/v1/sessions", body(w, initial_events=events))
        true(r.status in (400, 501), f"{str(events)[:80]}: {r.status}")
        true("initial_events" in r.error["message"], r.error)
    equal(len(ids(w)), before, "no session was made")


@test
def sessions_18_no_initial_events(w):
    for e in ([], None):
        equal(w.session(initial_events=e)["status"], "idle")


@test
def sessions_19_budgets_that_cannot_be(w):
    for amount in ("25.00", "0", "-1", 25, "", "007"):
        r = w.post("/v1/sessions", body(w, budget={"type": "limit", "max_list_cost": {"amount": amount, "currency": "USD"}}))
        true(r.status in (400, 501), f"{amount!r}: {r.status}")


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
def sessions_20_to_24_lists(w):
    a = w.new_agent(name="lists")
    made = [w.session(agent=a["id"], title=f"s{i}") for i in range(7)]
    order = [s["id"] for s in made]
    q = f"&agent_id={a['id']}"
    equal(ids(w, q), order[::-1], "newest first")
    equal(ids(w, q + "&order=desc"), order[::-1])
    equal(ids(w, q + "&order=asc"), order)
    w.ok("POST", f"/v1/sessions/{order[3]}/archive")
    equal(ids(w, q), [i for i in order[::-1] if i != order[3]], "archived sessions are hidden")
    equal(ids(w, q + "&include_archived=true"), order[::-1])
    for form in ("statuses[]=idle&statuses[]=terminated", "statuses=idle&statuses=terminated", "statuses%5B%5D=idle&statuses%5B%5D=terminated",
                 "statuses=idle,terminated"):
        equal(ids(w, f"{q}&include_archived=true&{form}"), order[::-1], form)
    equal(ids(w, q + "&include_archived=true&statuses[]=terminated"), [order[3]])
    equal(ids(w, q + "&statuses[]=running"), [])
    w.ok("POST", f"/v1/agents/{a['id']}", {"description": "two"})
    two = w.session(agent=a["id"])
    equal(ids(w, q + "&agent_version=2"), [two["id"]])
    true(two["id"] in ids(w, "&agent_version=7"), "agent_version alone is ignored")
    equal(ids(w, "&deployment_id=depl_x"), [])
    equal(ids(w, "&memory_store_id=memstore_x"), [])


@test
def sessions_23_walking_both_ways(w):
    a = w.new_agent(name="walk")
    made = [w.session(agent=a["id"])["id"] for i in range(7)][::-1]
    for order in ("desc", "asc"):
        want = made if order == "desc" else made[::-1]
        q = f"/v1/sessions?agent_id={a['id']}&order={order}"
        forward, pages, page = [], [], ""
        while True:
            j = w.ok("GET", q + "&limit=3" + page)
            equal(set(j), {"data", "next_page", "prev_page"})
            pages.append(j)
            forward += [s["id"] for s in j["data"]]
            if not j["next_page"]:
                break
            page = "&page=" + j["next_page"]
        equal(forward, want)
        equal((pages[0]["prev_page"], pages[-1]["next_page"]), (None, None))
        back, j = [], pages[-1]
        while j["prev_page"]:
            j = w.ok("GET", q + "&limit=3&page=" + j["prev_page"])
            back = [s["id"] for s in j["data"]] + back
        equal(back, want[:6], "and back")
        equal(j["prev_page"], None)
        equal([s["id"] for s in w.ok("GET", q + "&limit=2&page=" + pages[0]["next_page"])["data"]], want[3:5], "another limit")


@test
def sessions_24_cursors_keep_their_order(w):
    [w.session() for _ in range(2)]
    cursor = w.ok("GET", "/v1/sessions?limit=1")["next_page"]
    w.refused(400, "GET", "/v1/sessions?limit=1&order=asc&page=" + cursor, names="page|order")
    w.ok("GET", "/v1/sessions?limit=1&order=desc&page=" + cursor)
    for q in ("order=up", "statuses[]=sleeping", "limit=0", "limit=x", "page=nonsense", "include_archived=2", "created_at[gte]=x", "agent_version=x"):
        w.refused(400, "GET", "/v1/sessions?" + q)


@test
def platform_23_created_at_edges_of_sessions(w):
    a = w.new_agent(name="edges")
    made = [w.session(agent=a["id"]) for _ in range(4)]
    at = made[1]["created_at"]
    index = {s["id"]: i for i, s in enumerate(made)}
    for op, want in (("gt", [2, 3]), ("gte", [1, 2, 3]), ("lt", [0]), ("lte", [0, 1])):
        equal(sorted(index[i] for i in ids(w, f"&agent_id={a['id']}&created_at[{op}]={at}")), want, op)
    equal(ids(w, f"&agent_id={a['id']}&created_at[gt]={made[0]['created_at']}&created_at[lt]={made[2]['created_at']}"), [made[1]["id"]])


@test
def sessions_25_to_27_updates(w):
    s = w.session(metadata={"keep": "1", "drop": "2"}, title="old")
    with w.stream(s) as feed:
        now = update(w, s, metadata={"drop": None, "new": "3"})
        equal(now["metadata"], {"keep": "1", "new": "3"})
        equal(update(w, s, title="new")["title"], "new")
        for nothing in ({}, {"title": "new"}, {"metadata": {"keep": "1"}}, {"metadata": {"none": None}}, {"metadata": None}):
            equal(update(w, s, **nothing)["title"], "new")
        equal(update(w, s, title=None)["title"], None)
        events = feed.until(lambda all_: len(all_) >= 3, "three updates")
        equal(types(events), ["session.updated"] * 3)
        equal([sorted(set(e) - {"type", "id", "processed_at"}) for e in events], [["metadata"], ["title"], ["title"]])
        equal(events[0]["metadata"], {"keep": "1", "new": "3"})
    equal(w.events(s), events, "listed, too")
    true(w.ok("GET", f"/v1/sessions/{s['id']}")["updated_at"] > s["updated_at"], "updated_at")


@test(model=True)
def sessions_28_tools_change_only_while_idle(w):
    s = w.session()
    tools = [{"type": "custom", "name": "new_tool", "description": "d", "input_schema": {"type": "object"}}]
    with w.stream(s) as feed:
        w.send(s, message("[[long 2000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a model request")
        r = w.post(f"/v1/sessions/{s['id']}", {"agent": {"tools": tools}})
        true(r.status in (400, 501), r.status)
        w.send(s, {"type": "user.interrupt"})
        feed.idle()
        r = w.post(f"/v1/sessions/{s['id']}", {"agent": {"tools": tools}})
        if r.status == 501:
            return
        equal(r.json["agent"]["tools"], tools)
        e = feed.until(lambda all_: all_[-1]["type"] == "session.updated", "session.updated")[-1]
        equal(e["agent"]["tools"], tools)


@test
def sessions_29_what_cannot_be_updated(w):
    s = w.session()
    for fields in ({"vault_ids": []}, {"vault_ids": ["vlt_x"]}, {"title": 1},
                   {"metadata": {"a": 1}}, {"metadata": {f"k{i}": "v" for i in range(17)}}):
        update(w, s, 400, **fields)
    for key in ("model", "system", "name"):
        r = w.post(f"/v1/sessions/{s['id']}", {"agent": {key: "x"}})
        true(r.status in (400, 501), f"{key}: {r.status}")
    w.refused(404, "POST", f"/v1/sessions/sesn_{NOBODY}", {"title": "x"})


@test(model=True)
def sessions_30_and_31_archive(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[long 2000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a model request")
        w.refused(400, "POST", f"/v1/sessions/{s['id']}/archive")
        w.send(s, {"type": "user.interrupt"})
        feed.idle()
        gone = w.ok("POST", f"/v1/sessions/{s['id']}/archive")
        equal((gone["status"], bool(gone["archived_at"])), ("terminated", True))
        feed.end()
        equal(types(feed.events)[-1], "session.status_terminated")
    again = w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    equal((again["archived_at"], again["status"]), (gone["archived_at"], "terminated"), "again")
    r = w.post(f"/v1/sessions/{s['id']}/events", {"events": [message("x")]})
    true(r.status in (400, 404), r.status)
    equal(types(w.events(s))[-1], "session.status_terminated")
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["status"], "terminated")
    update(w, s, 400, title="x")
    with w.stream(s) as closed:
        equal(closed.status, 400, "a stream of a terminated session")


@test(model=True)
def archive_while_blocked(w):
    s, _ = w.turn(message('[[tool lookup {"q":"x"}]]'), reason="requires_action")
    equal(w.ok("POST", f"/v1/sessions/{s['id']}/archive")["status"], "terminated")
    equal(types(w.events(s))[-1], "session.status_terminated")


@test(model=True)
def sessions_32_delete(w):
    s = w.session()
    with w.stream(s) as feed:
        w.send(s, message("[[long 2000]] [[slow 10 ms]]"))
        feed.until(lambda all_: "span.model_request_start" in types(all_), "a model request")
        w.refused(400, "DELETE", f"/v1/sessions/{s['id']}")
        w.send(s, {"type": "user.interrupt"})
        feed.idle()
        equal(w.ok("DELETE", f"/v1/sessions/{s['id']}"), {"id": s["id"], "type": "session_deleted"})
        feed.end()
        equal(types(feed.events)[-1], "session.deleted")
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/archive"), ("GET", "/events"), ("GET", "/threads"), ("GET", "/resources"), ("GET", "/events/stream")):
        w.refused(404, verb, f"/v1/sessions/{s['id']}{path}")
    true(s["id"] not in ids(w, "&include_archived=true"), "gone from lists")


@test
def deleted_archived_sessions(w):
    s = w.session()
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}")


@test
def sessions_93_threads_of_a_plain_session(w):
    s = w.session()
    threads = w.all(f"/v1/sessions/{s['id']}/threads")
    equal(len(threads), 1)
    t = threads[0]
    equal((t["type"], t["session_id"], t["parent_thread_id"], t["status"], t["workflow_run_id"], t["archived_at"]),
          ("session_thread", s["id"], None, "idle", None, None))
    true("multiagent" not in t["agent"], t["agent"])
    equal(w.ok("GET", f"/v1/sessions/{s['id']}/threads/{t['id']}")["id"], t["id"])
    equal(w.all(f"/v1/sessions/{s['id']}/threads?statuses[]=running"), [])
    equal(len(w.all(f"/v1/sessions/{s['id']}/threads?statuses[]=running&statuses[]=idle&limit=1")), 1)
    equal(w.all(f"/v1/sessions/{s['id']}/threads/{t['id']}/events"), [])
    w.refused(404, "GET", f"/v1/sessions/{s['id']}/threads/sthr_{NOBODY}")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}/threads/sthr_{NOBODY}/events")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}/threads/sthr_{NOBODY}/stream")
    other = w.session()
    w.refused(404, "GET", f"/v1/sessions/{other['id']}/threads/{t['id']}")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}/threads/{t['id']}/events/stream")


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
