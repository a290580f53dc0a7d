"""Items 93 to 102 of the session checklist: coordinators and their threads (API: sessions §12)."""
from kit import BEGIN, MODEL, NOBODY, TRIPLE, equal, last, message, said, test, text, true, types, wait
from stage import (agents, answer, at_gate, calls, confirm, custom, fresh, gate, idles, in_order, interrupt, lead, of_thread, policy, refused,
                   rules, spans_closed, spawn, status, thread, thread_events, thread_stream, threads, until_idle)

TURN = ["span.model_request_start", "agent.message", "span.model_request_end"]


class Play:
    """A lead with one child, which does `part` when it is told to begin. The lead's answer to the child's report is
    "Heard."; it starts the child when the user says Go, and says "Waiting."."""

    def __init__(self, w, part, tools=(), prompt="Begin", more=()):
        self.w, self.name = w, fresh("child")
        self.child = w.new_agent(name=self.name, system=rules(("Begin", part), ("Again", "[[say Once more.]]")), tools=list(tools))
        system = rules(*more, ("^Go", calls(spawn(self.name, prompt)) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]"))
        self.s = lead(w, self.child, system=system)
        self.feed = None

    def __enter__(self):
        self.feed = self.w.stream(self.s)
        self.w.send(self.s, message("Go"))
        self.feed.until(lambda all_: "Waiting." in said(all_), "the lead to wait", 60)
        primary = self.primary
        self.feed.until(lambda all_: of_thread(all_, primary)[-1] == "session.thread_status_idle", "its idle", 60)
        return self

    def __exit__(self, *_):
        self.feed.close()

    @property
    def primary(self):
        return next(t["id"] for t in threads(self.w, self.s) if not t["parent_thread_id"])

    @property
    def thread(self):
        return thread(self.w, self.s, self.name)

    def end(self):
        """Everything is done: the child has reported and the lead has heard it."""
        self.feed.until(lambda all_: "Heard." in said(all_) and idles(all_, "end_turn"), "the end", 60)
        return list(self.feed.events)


@test
def t_093_threads_of_a_plain_session(w):
    s = w.session()
    (t,) = threads(w, s)
    equal((t["type"], t["session_id"], t["parent_thread_id"], t["status"], t["workflow_run_id"], t["archived_at"]),
          ("session_thread", s["id"], None, "idle", None, None))
    true(t["id"].startswith("sthr_01") and "multiagent" not in t["agent"], t)
    equal({k: v for k, v in s["agent"].items() if k != "multiagent"}, t["agent"])
    equal(w.ok("GET", f"/v1/sessions/{s['id']}/threads/{t['id']}")["id"], t["id"])
    for q, n in (("?statuses[]=running", 0), ("?statuses[]=running&statuses[]=idle&limit=1", 1), ("?limit=1", 1)):
        equal(len(w.all(f"/v1/sessions/{s['id']}/threads{q}")), n, q)
    equal(thread_events(w, s, t), [])
    for path in ("", "/events", "/stream"):
        w.refused(404, "GET", f"/v1/sessions/{s['id']}/threads/sthr_{NOBODY}{path}")
        w.refused(404, "GET", f"/v1/sessions/{w.session()['id']}/threads/{t['id']}{path}")


@test(model=True)
def t_093_the_primary_threads_list_is_the_sessions(w):
    with Play(w, "[[say Done.]]") as p:
        p.end()
        equal(thread_events(w, p.s, p.primary), w.events(p.s))


@test(model=True)
def t_094_spawning(w):
    door = fresh()
    with Play(w, f'[[gate {door}]] [[tool no_such_tool {{}}]] ;; [[say Done.]]') as p:
        t = p.thread
        equal((t["parent_thread_id"], t["agent"]["name"], t["agent"]["id"], t["workflow_run_id"], t["status"]), (p.primary, p.name, p.child["id"], None, "running"))
        events = p.feed.events
        created, sent, running = [e for e in events if t["id"] in (e.get("session_thread_id"), e.get("to_session_thread_id"))]
        equal([e["type"] for e in (created, sent, running)], ["session.thread_created", "agent.thread_message_sent", "session.thread_status_running"])
        bare = lambda e: {k: v for k, v in e.items() if k not in ("id", "processed_at", "type")}
        equal(bare(created), {"session_thread_id": t["id"], "agent_name": p.name, "workflow_run_id": None})
        equal(bare(sent), {"to_session_thread_id": t["id"], "to_agent_name": p.name, "content": text("Begin")})
        equal(bare(running), {"session_thread_id": t["id"], "agent_name": p.name})
        equal(types(events), BEGIN + ["user.message", "span.model_request_start", "span.model_request_end", "session.thread_created", "agent.thread_message_sent",
                                      "session.thread_status_running"] + TURN + ["session.thread_status_idle"], "no tool use is shown for the spawning")
        gate(w, door)
        events = p.end()
        mine = thread_events(w, p.s, t)
        equal(types(mine)[:3], ["agent.thread_message_received", "session.thread_status_running", "span.model_request_start"])
        equal(bare(mine[0]), {"from_session_thread_id": p.primary, "content": text("Begin")}, "no name: it is from the primary")
        true("agent.tool_use" in types(mine), types(mine))
        true("agent.tool_use" not in types(events) and "agent.tool_result" not in types(events) and "Done." not in said(events), types(events))
        true(not {e["id"] for e in mine if e["type"].startswith(("agent.tool", "span.", "agent.message"))} & {e["id"] for e in events}, "none of the child's work")


@test(model=True)
def t_094_an_agent_that_the_model_describes(w):
    name = fresh("helper")
    inline = {"name": name, "description": "Helps.", "system": rules(("Begin", "[[say {model} did it.]]")), "prompt": "Begin"}
    a = w.new_agent(name="lead", system=rules(("^Go", calls(("create_agent", inline)) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")),
                    multiagent={"type": "multiagent_20261001"})
    equal(a["multiagent"]["subagents"]["type"], "enabled")
    equal((a["multiagent"]["advisor"], a["multiagent"]["subagents"]["inline_agents"]), ({"type": "disabled"}, {"type": "enabled"}))
    s = w.session(agent=a["id"])
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        until_idle(feed)
    t = thread(w, s, name)
    equal((t["agent"]["type"], t["agent"]["description"], t["agent"]["model"]["id"]), ("inline", "Helps.", MODEL))
    equal(last(feed.events, "agent.thread_message_received")["content"], text(f"{MODEL} did it."))


@test(model=True)
def t_094_a_thread_goes_on_with_its_history(w):
    again = calls(("send_to_agent", {"name": "@", "message": "Again"}))
    name = fresh("child")
    child = w.new_agent(name=name, system=rules(("Begin", "[[say First.]]"), ("Again", "[[say Second, of {messages} messages.]]")))
    s = lead(w, child, system=rules(("^Go", calls(spawn(name, "Begin")) + " ;; [[say Waiting.]]"), ("More", again.replace("@", name) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        until_idle(feed)
        w.send(s, message("More"))
        until_idle(feed, n=2)
    equal(len(threads(w, s)), 2, "the same thread")
    t = thread(w, s, name)
    equal([e["content"] for e in feed.events if e["type"] == "agent.thread_message_sent"], [text("Begin"), text("Again")])
    equal([e["content"][0]["text"] for e in feed.events if e["type"] == "agent.thread_message_received"], ["First.", "Second, of 3 messages."])
    equal(types(thread_events(w, s, t)).count("agent.thread_message_received"), 2)


@test(model=True)
def t_095_a_session_runs_while_a_child_does(w):
    door = fresh()
    with Play(w, f"[[gate {door}]] [[say Done.]]") as p:
        at_gate(w, door)
        equal(status(w, p.s), "running")
        equal(idles(w.events(p.s)), [], "no idle of the session")
        equal({t["agent"]["name"]: t["status"] for t in threads(w, p.s)}, {"lead": "idle", p.name: "running"})
        for q, n in (("statuses[]=running", 1), ("statuses[]=idle", 1), ("statuses[]=idle&statuses[]=running", 2), ("statuses[]=terminated", 0)):
            equal(len(w.all(f"/v1/sessions/{p.s['id']}/threads?{q}")), n, q)
        equal(of_thread(p.feed.events, p.primary), ["session.thread_status_running", "session.thread_status_idle"])
        w.refused(400, "POST", f"/v1/sessions/{p.s['id']}/archive")
        w.refused(400, "DELETE", f"/v1/sessions/{p.s['id']}")
        gate(w, door)
        events = p.end()
        equal(len(idles(events)), 1, "one, when the last thread stops")
        equal(types(events)[-3:], TRIPLE)
        equal(types(events).count("session.status_running"), 1)
        equal(status(w, p.s), "idle")


@test(model=True)
def t_096_a_childs_report(w):
    door = fresh()
    with Play(w, f"[[gate {door}]] [[say Nothing to complain of.]]") as p:
        gate(w, door)
        events = p.end()
        t = p.thread
        got = last(events, "agent.thread_message_received")
        bare = lambda e: {k: v for k, v in e.items() if k not in ("id", "processed_at", "type")}
        equal(bare(got), {"from_session_thread_id": t["id"], "from_agent_name": p.name, "content": text("Nothing to complain of.")})
        mine = thread_events(w, p.s, t)
        equal(types(mine)[-2:], ["agent.thread_message_sent", "session.thread_status_idle"])
        equal(bare(mine[-2]), {"to_session_thread_id": p.primary, "content": text("Nothing to complain of.")}, "no name: it is to the primary")
        i = events.index(got)
        equal((events[i + 1]["type"], events[i + 1]["session_thread_id"], events[i + 1]["stop_reason"]), ("session.thread_status_idle", t["id"], {"type": "end_turn"}))
        equal((events[i + 2]["type"], events[i + 2]["session_thread_id"]), ("session.thread_status_running", p.primary), "the report wakes the lead")
        spans_closed(events)
        spans_closed(mine)
        true(not [e for e in mine if e["type"].startswith(("session.status", "session.usage"))], "the session's own states are not the child's")


def child_asks(w, p, use_type):
    """The child's call on both streams; its thread."""
    p.feed.until(lambda all_: idles(all_, "requires_action"), "the session to be blocked", 60)
    t = p.thread
    (crossed,) = [e for e in p.feed.events if e["type"] == use_type]
    (mine,) = [e for e in thread_events(w, p.s, t) if e["type"] == use_type]
    equal(crossed["session_thread_id"], t["id"])
    true(mine.get("session_thread_id") is None, mine)
    equal(mine["id"], crossed["id"], "the same id on both")
    for e in (x for x in p.feed.events if x["type"].endswith("_idle") and x["stop_reason"]["type"] == "requires_action"):
        equal(e["stop_reason"]["event_ids"], [crossed["id"]])
    equal([x["session_thread_id"] for x in p.feed.events if x["type"] == "session.thread_status_idle" and x["stop_reason"]["type"] == "requires_action"], [t["id"]])
    return t, crossed


@test(model=True)
def t_097_a_childs_ask(w):
    with Play(w, '[[tool bash {"command":"echo ran"}]] ;; [[say Result {result}]]', tools=[policy("bash", "always_ask")]) as p:
        t, use = child_asks(w, p, "agent.tool_use")
        equal((use["evaluated_permission"], use["name"]), ("ask", "bash"))
        refused(w, p.s, message("x"), names="waiting on responses to events")
        (stored,) = w.send(p.s, confirm(use["id"], "deny", deny_message="Not now."))
        equal(stored["session_thread_id"], t["id"], "routed to the thread of the call")
        events = p.end()
        copy = last(events, "user.tool_confirmation")
        equal((copy["session_thread_id"], copy["tool_use_id"], copy["result"], bool(copy["processed_at"])), (t["id"], use["id"], "deny", True))
        (mine,) = [e for e in thread_events(w, p.s, t) if e["type"] == "user.tool_confirmation"]
        equal((mine["tool_use_id"], mine["result"]), (use["id"], "deny"))
        true("Not now." in last(events, "agent.thread_message_received")["content"][0]["text"], "the child went on")
        true("agent.tool_result" not in types(events), "its result is not cross-posted")
        refused(w, p.s, confirm(use["id"]))


@test(model=True)
def t_097_a_childs_custom_call(w):
    with Play(w, '[[tool lookup {"q":"x"}]] ;; [[say Result {result}]]', tools=[custom()]) as p:
        t, use = child_asks(w, p, "agent.custom_tool_use")
        (stored,) = w.send(p.s, answer(use["id"], "found it", session_thread_id="sthr_" + NOBODY))
        equal((stored["session_thread_id"], bool(stored["processed_at"])), (t["id"], True), "whatever the client says")
        events = p.end()
        equal(last(events, "user.custom_tool_result")["session_thread_id"], t["id"])
        equal(last(events, "agent.thread_message_received")["content"], text("Result found it"))
        refused(w, p.s, answer(use["id"]))


@test(model=True)
def t_097_asks_of_lead_and_child_at_once(w):
    """requires_action is the union of all that blocks."""
    name, hold, then = fresh("child"), fresh(), fresh()
    child = w.new_agent(name=name, system=rules(("Begin", f'[[gate {hold}]] [[tool lookup {{"q":"child"}}]] ;; [[gate {then}]] [[say Done.]]')), tools=[custom()])
    s = lead(w, child, tools=[custom()], system=rules(("^Go", calls(spawn(name, "Begin")) + ' ;; [[tool lookup {"q":"lead"}]] ;; [[say {result}]]'), (".", "[[say Heard.]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: "session.thread_status_idle" in types(all_), "the lead to be blocked", 60)
        equal((status(w, s), idles(feed.events)), ("running", []))
        gate(w, hold)
        until_idle(feed, "requires_action")
        uses = [e["id"] for e in feed.events if e["type"] == "agent.custom_tool_use"]
        equal((len(uses), sorted(idles(feed.events)[-1]["stop_reason"]["event_ids"])), (2, sorted(uses)))
        w.send(s, answer(uses[1], "for the child"), answer(uses[0], "for the lead"))
        feed.until(lambda all_: "for the lead" in said(all_), "the lead to go on", 60)
        gate(w, then)
        feed.until(lambda all_: idles(all_, "end_turn") and "Heard." in said(all_), "the end", 60)


@test(model=True)
def t_098_the_twenty_sixth_child_is_refused(w):
    name = fresh("child")
    more = calls(spawn(name, "One more")) + " ;; [[say Told: {result}]]"
    system = rules(("^Go", calls(*[spawn(name, f"Number {i}") for i in range(25)]) + " ;; [[say Waiting.]]"), ("Another", more), (".", "[[say Heard.]]"))
    s = lead(w, w.new_agent(name=name), system=system)
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: types(all_).count("agent.thread_message_received") == 25 and idles(all_), "25 reports", 120)
        wait(lambda: status(w, s) == "idle", "idle", 60)
        equal(types(feed.events).count("session.thread_created"), 25)
        children = [t for t in threads(w, s) if t["parent_thread_id"]]
        equal([t["status"] for t in children], ["idle"] * 25, "idle ones count")
        equal(threads(w, s)[0]["parent_thread_id"], None, "in the order of their making")
        _, events = w.turn(message("Another"), session=s)
        true("session.thread_created" not in types(events), types(events))
        true("25" in said(events)[-1] or "limit" in said(events)[-1], f"the model reads why: {said(events)}")
        w.ok("POST", f"/v1/sessions/{s['id']}/threads/{children[7]['id']}/archive")
        w.send(s, message("Another"))
        feed.until(lambda all_: types(all_).count("session.thread_created") == 26, "a place that was freed", 60)
        wait(lambda: status(w, s) == "idle", "idle", 60)


@test(model=True)
def t_099_archiving_threads(w):
    door = fresh()
    with Play(w, f'[[gate {door}]] [[tool lookup {{"q":"x"}}]] ;; [[say Done.]]', tools=[custom()]) as p:
        at_gate(w, door)
        t = p.thread
        path = f"/v1/sessions/{p.s['id']}/threads/"
        w.refused(400, "POST", f"{path}{t['id']}/archive")
        w.refused(404, "POST", f"{path}sthr_{NOBODY}/archive")
        gate(w, door)
        p.feed.until(lambda all_: idles(all_, "requires_action"), "the child to be blocked", 60)
        (use,) = idles(p.feed.events, "requires_action")[-1]["stop_reason"]["event_ids"]
        w.refused(400, "POST", f"{path}{p.primary}/archive")
        gone = w.ok("POST", f"{path}{t['id']}/archive")
        equal((gone["id"], gone["status"], bool(gone["archived_at"])), (t["id"], "terminated", True), "one that is blocked counts as idle")
        p.feed.until(lambda all_: of_thread(all_, t["id"])[-1] == "session.thread_status_terminated", "its end", 60)
        refused(w, p.s, answer(use))
        again = w.ok("POST", f"{path}{t['id']}/archive")
        equal((again["archived_at"], again["status"]), (gone["archived_at"], "terminated"), "again")
        equal(w.ok("GET", f"{path}{t['id']}")["status"], "terminated")
        equal([x["id"] for x in w.all(path[:-1] + "?statuses[]=terminated")], [t["id"]], "and stays in the list")
        equal(types(thread_events(w, p.s, t))[-1], "session.thread_status_terminated")
        with thread_stream(w, p.s, t) as closed:
            true(closed.status == 400 or closed.end() is not None, "nothing more to come")
        _, events = w.turn(message("hello"), session=p.s)
        equal(said(events), ["Heard."], "the session is not blocked any more")


@test(model=True)
def t_099_archiving_an_idle_thread(w):
    with Play(w, "[[say Done.]]") as p:
        p.end()
        t = p.thread
        with thread_stream(w, p.s, t) as own:
            equal(w.ok("POST", f"/v1/sessions/{p.s['id']}/threads/{t['id']}/archive")["status"], "terminated")
            equal(types(own.end()), ["session.thread_status_terminated"], "its own stream ends")
        p.feed.until(lambda all_: types(all_)[-1] == "session.thread_status_terminated", "the same on the primary", 60)
        equal(status(w, p.s), "idle", "the session lives on")


@test(model=True)
def t_100_an_interrupt_stops_all_threads(w):
    door, lead_door = fresh(), fresh()
    with Play(w, f"[[gate {door}]] [[say Done.]]", more=[("Work", f"[[gate {lead_door}]] [[say never]]")]) as p:
        w.send(p.s, message("Work"))
        at_gate(w, door)
        at_gate(w, lead_door)
        w.send(p.s, interrupt())
        until_idle(p.feed)
        gate(w, door)
        gate(w, lead_door)
        t = p.thread
        equal([x["status"] for x in threads(w, p.s)], ["idle", "idle"])
        equal((status(w, p.s), types(p.feed.events)[-2:]), ("idle", TRIPLE[1:]))
        equal([e["stop_reason"] for e in p.feed.events if e["type"] == "session.thread_status_idle" and e["session_thread_id"] == t["id"]], [{"type": "end_turn"}])
        true("agent.thread_message_received" not in types(p.feed.events) and "never" not in said(p.feed.events), "no report, no answer")
        mine = thread_events(w, p.s, t)
        spans_closed(mine)
        spans_closed(w.events(p.s))
        true("agent.message" not in types(mine) and "agent.thread_message_sent" not in types(mine), types(mine))


@test(model=True)
def t_100_an_interrupt_of_one_child(w):
    one, two, a, b = fresh("one"), fresh("two"), fresh(), fresh()
    s = lead(w, w.new_agent(name=one, system=rules(("Begin", f"[[gate {a}]] [[say One is done.]]"))), w.new_agent(name=two, system=rules(("Begin", f"[[gate {b}]] [[say Two is done.]]"))),
             system=rules(("^Go", calls(spawn(one, "Begin"), spawn(two, "Begin")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        at_gate(w, a)
        at_gate(w, b)
        feed.until(lambda all_: "session.thread_status_idle" in types(all_), "the lead to wait", 60)
        first = thread(w, s, one)
        w.send(s, interrupt(first["id"]))
        feed.until(lambda all_: of_thread(all_, first["id"])[-1] == "session.thread_status_idle", "its idle", 60)
        equal((status(w, s), idles(feed.events)), ("running", []), "the other goes on")
        equal(last(thread_events(w, s, first), "session.thread_status_idle")["stop_reason"], {"type": "end_turn"})
        gate(w, a)
        gate(w, b)
        until_idle(feed)
    reports = [e["from_agent_name"] for e in feed.events if e["type"] == "agent.thread_message_received"]
    equal(reports, [two], "no report of what was interrupted")
    mine = thread_events(w, s, first)
    true("agent.thread_message_sent" not in types(mine), types(mine))
    spans_closed(mine)


@test
def t_101_members_that_cannot_be(w):
    plain = w.new_agent(name=fresh("plain"))
    boss = agents(w, plain["id"], name=fresh("boss"))
    one = lambda *members, **more: dict({"type": "coordinator", "agents": list(members)}, **more)
    ref = lambda a, **more: dict({"type": "agent", "id": a["id"]}, **more)
    for many in (one(ref(boss)), one(ref(plain), ref(boss)), one(boss["id"]), {"type": "multiagent_20261001", "subagents": {"type": "enabled", "predefined_agents": [ref(boss)]}},
                 one(), one({"type": "self"}, {"type": "self"}), one(ref(plain), ref(plain)), one(*[{"type": "agent", "id": plain["id"], "version": 1}] * 21),
                 one(ref(plain, version=7)), one({"type": "agent", "id": "agent_" + NOBODY}), {"type": "coordinator"}, {"type": "swarm"}, {},
                 {"type": "multiagent_20261001", "subagents": {"type": "enabled", "inline_agents": {"type": "disabled"}, "predefined_agents": []}}):
        r = w.post("/v1/agents", {"name": "lead", "model": MODEL, "multiagent": many})
        true(r.status == 400 and "multiagent" in r.error["message"] or r.status == 404, f"{many}: {r.status} {r.body[:200]!r}")
    equal(w.post("/v1/agents", {"name": "lead", "model": MODEL, "multiagent": one(ref(boss))}).status, 400)
    gone = w.new_agent(name=fresh("gone"))
    w.ok("POST", f"/v1/agents/{gone['id']}/archive")
    w.refused(400, "POST", "/v1/agents", {"name": "lead", "model": MODEL, "multiagent": one(ref(gone))})
    w.refused(400, "POST", f"/v1/agents/{plain['id']}", {"multiagent": one(ref(boss))})


@test
def t_101_members_are_pinned_and_spelt_out(w):
    child = w.new_agent(name=fresh("child"), system="one")
    a = agents(w, child["id"], {"type": "self"})
    w.ok("POST", f"/v1/agents/{child['id']}", {"system": "two"})
    equal(a["multiagent"]["agents"][0], {"type": "agent", "id": child["id"], "version": 1}, "references on the agent")
    members = w.session(agent=a["id"])["agent"]["multiagent"]["agents"]
    equal((members[0]["id"], members[0]["version"], members[0]["system"], members[0]["name"]), (child["id"], 1, "one", child["name"]), "definitions on the session")


@test(model=True)
def t_102_a_child_with_exhausted_retries(w):
    with Play(w, "[[error 529]] never") as p:
        t = p.thread
        p.feed.until(lambda all_: of_thread(all_, t["id"])[-1] == "session.thread_status_terminated", "its end", 60)
        wait(lambda: status(w, p.s) == "idle", "idle", 60)
        events = w.events(p.s)
        idle, _ = in_order([e for e in events if e.get("session_thread_id") == t["id"]], "session.thread_status_idle", "session.thread_status_terminated")
        equal(idle["stop_reason"], {"type": "retries_exhausted"})
        true("session.error" not in types(events), "its errors are on its own stream")
        mine = thread_events(w, p.s, t)
        equal(last(mine, "session.error")["error"]["retry_status"], {"type": "exhausted"})
        spans_closed(mine)
        equal(w.ok("GET", f"/v1/sessions/{p.s['id']}/threads/{t['id']}")["status"], "terminated")
        equal(types(events)[-1], "session.status_idle")
        _, events = w.turn(message("hello"), session=p.s)
        equal(said(events), ["Heard."], "the session lives on")
