"""Items 103 to 107 of the session checklist: budgets, what a session costs and how long it ran (API: sessions §13).

The prices are the test's own: a tenth of a cent for a token of input, nothing for the rest and for time."""
import time

from kit import BEGIN, MODEL, TRIPLE, equal, last, message, said, test, text, true, types, wait
from stage import (agents, answer, at_gate, calls, confirm, custom, fresh, gate, idles, interrupt, lead, outcome, own, policy, refused, rules, spawn,
                   status, thread_events, threads, until_idle, verdicts)

PRICES = 'prices = { date = "2026-11-28", hour_usd = 0, models = { ["%s"] = ' \
         '{ input = 1000, output = 0, cache_read = 0, cache_write_5m = 0, cache_write_1h = 0 } } }' % MODEL
STEP = ["span.model_request_start", "agent.tool_use", "span.model_request_end", "agent.tool_result"]
TURN = ["span.model_request_start", "agent.message", "span.model_request_end"]


def usage(tokens):
    return f"[[usage in={tokens} out=0 read=0 write=0]]"


def limit(cents):
    return {"type": "limit", "max_list_cost": {"amount": str(cents), "currency": "USD"}}


def step(tokens):
    return f"[[tool no_such_tool {{}}]] {usage(tokens)}"


def cost(w, s):
    return w.ok("GET", f"/v1/sessions/{s['id']}")["usage"]["list_cost"]["amount"]


def budget(w, s, value, code=200, error=None):
    r = w.post(f"/v1/sessions/{s['id']}", {"budget": value})
    true(r.status == code, f"{value}: {r.status}, not {code}: {r.body[:300]!r}")
    if error:
        equal(r.code(), error)
    return r.json


def paused(v, feed, s):
    """Sends what costs 120 cents in two requests and would go on; the session is over its cap then."""
    v.send(s, message(f"{step(600)} ;; {step(600)} ;; [[say over]] {usage(10)}"))
    until_idle(feed, "budget_reached")


@test(model=True)
def t_103_a_cap_is_reached(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        equal(s["budget"], limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
        events = feed.events
        equal(types(events), BEGIN + ["user.message"] + STEP * 2 + TRIPLE, "the request that crosses it is finished")
        equal([e["stop_reason"] for e in events[-3:] if "stop_reason" in e], [{"type": "budget_reached"}] * 2)
        equal((events[-2]["budget"], events[-2]["usage"]["list_cost"]), (limit(100), {"amount": "120", "currency": "USD"}))
        equal((cost(v, s), status(v, s)), ("120", "idle"))
        n = v.mock.count()
        for e in (message("x"), outcome(), {"type": "system.message", "content": text("x")}):
            refused(v, s, e, names=r"events\[0\].*user\.tool_confirmation")
        equal((v.events(s), v.mock.count()), (events, n))


@test(model=True)
def t_103_an_ask_outranks_the_cap(w):
    with own(w, PRICES) as v:
        s = v.session(agent=v.new_agent(tools=[policy("bash", "always_ask"), custom()])["id"], budget=limit(100))
        with v.stream(s) as feed:
            v.send(s, message('[[tools bash {"command":"true"} | lookup {}]] %s ;; [[say over]] %s' % (usage(1200), usage(10))))
            until_idle(feed, "requires_action")
            refused(v, s, message("x"))
            n = v.mock.count()
            v.send(s, confirm(last(feed.events, "agent.tool_use")["id"], "deny"))
            v.send(s, answer(last(feed.events, "agent.custom_tool_use")["id"]))
            until_idle(feed, "budget_reached")
            equal(v.mock.count(), n, "answers are recorded without a model request")
            true("agent.tool_result" in types(feed.events), types(feed.events))
            budget(v, s, limit(200))
            until_idle(feed)
            equal(said(feed.events), ["over"])


@test(model=True)
def t_103_a_turn_that_ends_at_the_cap(w):
    """The thread has finished; the session says why nothing more may be asked of it."""
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            v.send(s, message(f"[[say done]] {usage(1000)}"))
            feed.until(lambda all_: idles(all_), "idle", 60)
        equal(types(feed.events), BEGIN + ["user.message"] + TURN + TRIPLE)
        equal([e["stop_reason"]["type"] for e in feed.events if "stop_reason" in e], ["end_turn", "budget_reached"])
        refused(v, s, message("x"))


@test(model=True)
def t_103_what_has_no_price_has_no_budget(w):
    with own(w, PRICES) as v:
        a = v.new_agent(model="claude-of-nobody")
        made = v.post("/v1/sessions", {"agent": a["id"], "environment_id": v.environment["id"]})
        equal(made.status, 200, made.body[:300])
        r = v.refused(400, "POST", "/v1/sessions", {"agent": a["id"], "environment_id": v.environment["id"], "budget": limit(100)})
        equal(r.code(), "model_not_budgetable")


@test(model=True)
def t_103_children_pause_too(w):
    with own(w, PRICES) as v:
        name, door = fresh("child"), fresh()
        child = v.new_agent(name=name, system=rules(("Begin", f"[[gate {door}]] {step(600)} ;; {step(600)} ;; [[say Done.]] {usage(10)}")))
        system = rules(("^Go", calls(spawn(name, "Begin")) + f" {usage(10)} ;; [[say Waiting.]] {usage(10)}"), (".", f"[[say Heard.]] {usage(10)}"))
        s = v.session(agent=agents(v, child["id"], system=system)["id"], budget=limit(100))
        with v.stream(s) as feed:
            v.send(s, message("Go"))
            at_gate(v, door)
            feed.until(lambda all_: "session.thread_status_idle" in types(all_), "the lead to wait", 60)
            gate(v, door)
            until_idle(feed, "budget_reached")
            (t,) = [t for t in threads(v, s) if t["parent_thread_id"]]
            equal([e["stop_reason"]["type"] for e in feed.events if e["type"] == "session.thread_status_idle" and e["session_thread_id"] == t["id"]], ["budget_reached"])
            equal(types(feed.events)[-3:], TRIPLE)
            budget(v, s, limit(1000))
            until_idle(feed)
            equal(said(feed.events)[-1], "Heard.", "the child went on, and reported")


@test(model=True)
def t_104_an_interrupt_at_the_cap(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
            r = v.post(f"/v1/sessions/{s['id']}/events", {"events": [interrupt()]})
            equal(r.status, 200)
            time.sleep(0.2)  # would it be stored, it was now
            equal(v.events(s), feed.events)
            true("user.interrupt" not in types(feed.events), types(feed.events))
            equal(status(v, s), "idle")
            budget(v, s, limit(1000))
            until_idle(feed)
            equal(said(feed.events), ["over"], "and the turn goes on when the cap is raised")


@test(model=True)
def t_105_raising_the_cap(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
            n = len(feed.events)
            for cents in (1, 100, 119, 120):
                r = budget(v, s, limit(cents), 400, "budget_not_raised")
                true("budget.max_list_cost must be greater than the session's consumed list cost" in r["error"]["message"], r)
            equal(budget(v, s, limit(500))["budget"], limit(500))
            until_idle(feed, "end_turn")
            more = feed.events[n:]
            equal(types(more), ["session.updated"] + BEGIN + TURN + TRIPLE, "it resumes by itself")
            equal((set(more[0]), more[0]["budget"]), ({"type", "id", "processed_at", "budget"}, limit(500)))
            equal((said(more), cost(v, s)), (["over"], "121"))
            equal(v.events(s), feed.events)


@test(model=True)
def t_105_budgets_are_made_at_creation(w):
    with own(w, PRICES) as v:
        s = v.session()
        budget(v, s, limit(100), 400, "budget_create_only")
        s = v.session(budget=limit(100))
        for bad in ({"type": "limit", "max_list_cost": {"amount": "1.5", "currency": "USD"}}, limit(0), {}, "x"):
            budget(v, s, bad, 400)
        equal(budget(v, s, limit(50))["budget"], limit(50), "lower, but above what was spent")
        equal(budget(v, s, None)["budget"], None)
        budget(v, s, limit(100), 400, "budget_create_only")
        equal([e["budget"] for e in v.events(s)], [limit(50), None])


@test(model=True)
def t_105_removing_the_cap(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
            equal(budget(v, s, None)["budget"], None)
            until_idle(feed)
            equal(said(feed.events), ["over"])
            equal(feed.events[-2]["budget"], None)
            budget(v, s, limit(1000), 400, "budget_create_only")
            equal(said(v.turn(message(f"[[say free]] {usage(5000)}"), session=s)[1]), ["free"])


@test(model=True)
def t_106_time_is_counted_twice_where_two_ran(w):
    one, two, a, b = fresh("one"), fresh("two"), fresh(), fresh()
    s = lead(w, w.new_agent(name=one, system=rules(("Begin", f"[[gate {a}]] [[say One.]]"))), w.new_agent(name=two, system=rules(("Begin", f"[[gate {b}]] [[say Two.]]"))),
             system=rules(("^Go", calls(spawn(one, "Begin"), spawn(two, "Begin")) + " ;; [[say Waiting.]]"), (".", "[[say Heard.]]")))
    began = time.monotonic()
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        at_gate(w, a)
        at_gate(w, b)
        both = time.monotonic()
        time.sleep(1.5)  # what is measured
        both = time.monotonic() - both
        gate(w, a)
        gate(w, b)
        until_idle(feed)
    took = time.monotonic() - began
    now = w.ok("GET", f"/v1/sessions/{s['id']}")
    once, sum_ = now["usage"]["active_seconds"], now["stats"]["active_seconds"]
    true(both * 0.9 <= once <= took + 0.1, f"once: {once} s of {took} s, of which {both} s with two")
    true(sum_ >= once + both * 0.9, f"the sum: {sum_} s, beside {once} s")
    of_threads = sum(t["stats"]["active_seconds"] for t in threads(w, s))
    true(abs(of_threads - sum_) < 0.05, f"{of_threads} s of the threads, {sum_} s of the session")
    equal(last(feed.events, "session.usage")["usage"]["active_seconds"] <= once + 0.001, True)


@test(model=True)
def t_107_usage_adds_up(w):
    name = fresh("child")
    use = lambda n: f"[[usage in={n} out={n * 2} read={n * 3} write={n * 4}]]"
    child = w.new_agent(name=name, system=rules(("Begin", f"[[tool no_such_tool {{}}]] {use(7)} ;; [[say Done.]] {use(11)}")))
    s = lead(w, child, system=rules(("is missing", f"[[say Revised.]] {use(300)}"), ("^Go", calls(spawn(name, "Begin")) + f" {use(100)} ;; [[say Waiting.]] {use(200)}"),
                                    (".", f"[[say Heard.]] {use(400)}")))
    with w.stream(s) as feed:
        w.send(s, outcome("Go", verdicts("needs_revision: Much is missing.", "satisfied: yes")))
        until_idle(feed)
    wait(lambda: status(w, s) == "idle", "idle", 60)
    spent = [e["model_usage"] for t in threads(w, s) for e in thread_events(w, s, t) if e["type"] == "span.model_request_end"]
    spent += [e["usage"] for e in w.events(s) if e["type"] == "span.outcome_evaluation_end"]
    true(len(spent) >= 8, f"{len(spent)} requests")
    now = w.ok("GET", f"/v1/sessions/{s['id']}")["usage"]
    for k in "input_tokens", "output_tokens", "cache_read_input_tokens":
        equal(now[k], sum(u[k] for u in spent), k)
    equal(sum(now["cache_creation"].values()), sum(u["cache_creation_input_tokens"] for u in spent))
    told = last(w.events(s), "session.usage")["usage"]
    for k in "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation", "list_cost":
        equal(told[k], now[k], k)
    for t in threads(w, s):
        mine = [e["model_usage"] for e in thread_events(w, s, t) if e["type"] == "span.model_request_end"]
        true(t["usage"]["input_tokens"] >= sum(u["input_tokens"] for u in mine) if not t["parent_thread_id"] else
             t["usage"]["input_tokens"] == sum(u["input_tokens"] for u in mine), t["usage"])


@test(model=True)
def t_107_over_turns_of_one_thread(w):
    s = w.session()
    for i in range(1, 4):
        _, events = w.turn(message(f"[[say x]] [[usage in={i} out={10 * i} read={100 * i} write={1000 * i}]]"), session=s)
    u = last(events, "session.usage")["usage"]
    equal((u["input_tokens"], u["output_tokens"], u["cache_read_input_tokens"], sum(u["cache_creation"].values())), (6, 60, 600, 6000))
    equal(u["server_tool_use"], {"web_search_requests": 0, "web_fetch_requests": 0})
    end = last(events, "span.model_request_end")["model_usage"]
    equal((end["input_tokens"], end["output_tokens"], end["cache_read_input_tokens"], end["cache_creation_input_tokens"]), (3, 30, 300, 3000))
    equal(w.ok("GET", f"/v1/sessions/{s['id']}")["usage"]["output_tokens"], 60)
