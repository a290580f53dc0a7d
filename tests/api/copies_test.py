"""Copies (fork, export and import) of sessions with several threads, outcomes, a summary, a budget: what a copy is,
how it comes to rest, that its models are asked what the originals' would be."""
import json
import os
import random
import re

from budget_test import PRICES, limit, paused
from kit import NOBODY, TRIPLE, equal, last, message, said, test, text, true, types, wait
from multiagent_test import Play
from outcomes_test import END, START, evaluations, graded, writer
from stage import (agents, answer, at_gate, calls, confirm, custom, fresh, gate, go_on, idles, interrupt, lead, outcome, own, policy, refused,
                   requests, rules, spans_closed, spawn, status, thread, thread_events, threads, until_idle, verdicts)
from transfer_test import edited, export, fork, import_, mutated, send_file

SUMMED = "context = { compact_at_tokens = 10000 }"


def copies(w, s, **fields):
    return fork(w, s), import_(w, export(w, s), **fields)


def logs(w, s):
    """All events of a session: the session's own list, and each child's."""
    return [w.events(s)] + [thread_events(w, s, t) for t in threads(w, s)[1:]]


def shape(w, s, times=False):
    """The logs with ids by their first place; without what differs from run to run."""
    seen = {}
    body = re.sub(r'"(sevt|sthr|outc)_01[1-9A-HJ-NP-Za-km-z]{22}"', lambda m: f'"#{seen.setdefault(m[0], len(seen))}"', json.dumps(logs(w, s)))
    return [[e if times else {k: v for k, v in e.items() if k not in ("processed_at", "usage", "model_usage", "budget")} for e in log] for log in json.loads(body)]


def rests(w, s, closed=True):
    """It is idle and stays so: nothing runs, nothing is open on any thread."""
    equal(status(w, s), "idle")
    before = logs(w, s)
    for events in before:
        spans_closed(events)
    for t in threads(w, s):
        true(t["status"] in ("idle", "terminated"), t)
    if closed:
        equal(types(before[0])[-2:], ["session.usage", "session.status_idle"])
    equal(logs(w, s), before)
    return before[0]


def asked(w, s, *events, reason="end_turn"):
    """What models are asked, byte for byte, until the session is idle again."""
    n = w.mock.count()
    go_on(w, s, *events, reason=reason)
    return sorted(r["raw"] for r in requests(w, n))


def same_everywhere(w, s, make, reason="end_turn", **fields):
    """The original and its copies make the same requests when the same is said to them, and so do copies of those."""
    have = copies(w, s, **fields)
    again = import_(w, export(w, have[0]), **fields)
    want = shape(w, s, times=True)
    for c in have + (again,):
        equal(shape(w, c, times=True), want)
    sent = asked(w, s, *make(s), reason=reason)
    for c in have + (again,):
        equal(asked(w, c, *make(c), reason=reason), sent)
        equal(shape(w, c), shape(w, s))
    return sent


def team(w, part="[[think]] [[say Looking.]] [[tool lookup {\"q\":\"x\"}]] ;; [[say Found: {result}]]", tools=(), **more):
    """A session of a lead whose child did a part; all of it is over. The id that the lead knows its child by."""
    name = fresh("child")
    child = w.new_agent(name=name, system=rules(("Begin", part), ("Again", "[[say Once more, of {messages} messages.]]")), tools=[custom()])
    system = rules(("^Go", calls(spawn(name, "Begin")) + " ;; [[say Waiting for {result}]]"), (".", "[[say Heard.]]"))
    s = lead(w, child, system=system, tools=tools, **more)
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        until_idle(feed, "requires_action")
        w.send(s, answer(last(feed.events, "agent.custom_tool_use")["id"], "a thing"))
        until_idle(feed)
    return s, thread(w, s, name)["id"]


def to_child(id_, what="Again"):
    return message(calls(("send_to_agent", {"thread_id": id_, "message": what})) + " ;; [[say Waiting.]]")


# ------------------------------------------------------------------------------------------------ several threads

@test(model=True)
def a_team_is_copied_whole(w):
    s, child = team(w)
    (sent,) = same_everywhere(w, s, lambda c: [message("[[say next]]")])
    true("Found: a thing" in sent and child in sent, "the lead knows what it was told, and by whom")
    have = (s,) + copies(w, s)  # lead and child work at once from here on
    of_child = [[r for r in asked(w, c, to_child(child)) if "Once more, of {messages}" in r] for c in have]
    equal(of_child, [of_child[0]] * 3)
    true(len(of_child[0]) == 1 and "Looking." in of_child[0][0], "the child goes on with all that it knows")
    equal([[e["content"] for e in thread_events(w, c, threads(w, c)[1]) if "message" in e["type"]][-1] for c in have], [text("Once more, of 5 messages.")] * 3)
    f = fork(w, s)
    ids = {t["id"] for t in threads(w, s)}
    true(not ids & {t["id"] for t in threads(w, f)}, "threads of its own")
    equal([t["agent"] for t in threads(w, f)], [t["agent"] for t in threads(w, s)])
    equal([(t["usage"], t["parent_thread_id"]) for t in threads(w, f)][1], (None, threads(w, f)[0]["id"]))
    go_on(w, f, message(calls(("list_agents", {})) + " ;; [[say {result}]]"))
    true(child in said(w.events(f))[-1] and threads(w, f)[1]["id"] not in said(w.events(f))[-1], "by the name that it was told")


@test(model=True)
def a_fork_at_every_event_of_a_team_rests_and_goes_on(w):
    s, child = team(w)
    go_on(w, s, to_child(child))
    events = w.events(s)
    for i, e in enumerate(events):
        f = fork(w, s, e["id"])
        got = rests(w, f)
        equal(types(got[:i + 1]), types(events[:i + 1]), f"fork at {i}, {e['type']}")
        stop = last(got, "session.status_idle")["stop_reason"]
        if stop["type"] == "requires_action":
            equal(len(stop["event_ids"]), 1)
            go_on(w, f, answer(stop["event_ids"][0], "another"))
            true("Found: another" in str(w.events(f)), "the child went on")
        else:
            rest = go_on(w, f, message("[[say goes on]]"))
            true(said(rest)[-1] in ("goes on", "Heard."), f"at {i}, {e['type']}: {said(rest)}")
    for e in thread_events(w, s, child):
        f = fork(w, s, e["id"])
        rests(w, f)


@test(model=True)
def a_child_that_waits_waits_in_the_copy(w):
    with Play(w, '[[tool bash {"command":"echo ran"}]] ;; [[say Result {result}]]', tools=[policy("bash", "always_ask")]) as p:
        p.feed.until(lambda all_: idles(all_, "requires_action"), "the session to be blocked", 60)
        s, n = p.s, w.mock.count()
        for c in copies(w, s):
            equal(shape(w, c, times=True), shape(w, s, times=True))
            (use,) = last(rests(w, c), "session.status_idle")["stop_reason"]["event_ids"]
            refused(w, c, message("x"), names="waiting on responses to events")
            go_on(w, c, confirm(use, "deny", deny_message="Not here."))
            got = last(w.events(c), "agent.thread_message_received")
            true("Not here." in got["content"][0]["text"], got)
            equal(said(w.events(c))[-1], "Heard.")
        equal(w.mock.count(), n + 4, "nothing else was asked")
        use = last(w.events(s), "agent.tool_use")["id"]
        f = fork(w, s, use)  # at the call: on both logs, and it is interrupted
        equal([types(x).count("agent.tool_use") for x in logs(w, f)], [1, 1])
        rests(w, f)
        go_on(w, s, interrupt())


@test(model=True)
def a_child_that_runs_is_idle_in_the_copy(w):
    door = fresh()
    with Play(w, f"[[gate {door}]] [[say Done.]]") as p:
        at_gate(w, door)
        for c in copies(w, p.s):
            events = rests(w, c)
            equal(types(events)[-3:], TRIPLE, "the child's idle, and the session's")
            mine = thread_events(w, c, threads(w, c)[1])
            equal(types(mine)[-2:], ["span.model_request_end", "session.thread_status_idle"])
            equal((mine[-2]["is_error"], mine[-1]["id"]), (True, events[-3]["id"]))
            rest = go_on(w, c, to_child(p.thread["id"]))
            equal(last(rest, "agent.thread_message_received")["content"], text("Once more."))
        gate(w, door)
        p.end()


@test(model=True)
def a_report_that_waits_wakes_nobody_in_the_copy(w):
    s, _ = team(w)
    got = last(w.events(s), "agent.thread_message_received")
    n = w.mock.count()
    f = fork(w, s, got["id"])
    import_(w, export(w, f))
    c = import_(w, export(w, f))
    for x in (f, c):
        equal(types(rests(w, x)).count("agent.thread_message_received"), 1)
    equal(w.mock.count(), n, "no model was asked")
    sent = asked(w, f, message("[[say on]]"))
    equal((asked(w, c, message("[[say on]]")), len(sent)), (sent, 1))
    true("Found: a thing" in sent[0], "with what comes next the lead is told")


@test(model=True)
def a_report_that_waits_behind_a_question(w):
    """The lead waits for its client while the child's report waits for the lead."""
    name, hold = fresh("child"), fresh()
    child = w.new_agent(name=name, system=rules(("Begin", f"[[gate {hold}]] [[say Done with it.]]")))
    s = lead(w, child, tools=[custom()], system=rules(("^Go", calls(spawn(name, "Begin")) + ' ;; [[tool lookup {"q":"lead"}]] ;; [[say {result}]]'), (".", "[[say Heard.]]")))
    with w.stream(s) as feed:
        w.send(s, message("Go"))
        feed.until(lambda all_: "session.thread_status_idle" in types(all_), "the lead to be blocked", 60)
        gate(w, hold)
        until_idle(feed, "requires_action")
    same_everywhere(w, s, lambda c: [answer(last(w.events(c), "agent.custom_tool_use")["id"], "for the lead")])
    true("Heard." in said(w.events(s)), said(w.events(s)))


@test(model=True)
def a_thread_that_has_ended_stays_so(w):
    s, child = team(w)
    w.ok("POST", f"/v1/sessions/{s['id']}/threads/{child}/archive")
    for c in copies(w, s):
        equal(shape(w, c, times=True), shape(w, s, times=True))
        equal([t["status"] for t in threads(w, c)], ["idle", "terminated"])
        go_on(w, c, to_child(child))
        true("is archived" in str(requests(w)[-1]["body"]["messages"]), "its coordinator hears that")
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    f = fork(w, s)
    equal([t["status"] for t in threads(w, f)], ["idle", "terminated"])
    go_on(w, f, message("[[say alive]]"))


# ------------------------------------------------------------------------------------------------------- outcomes

def held(w, s, c):
    """Its evaluations, with the original's ids."""
    back = dict(zip((e["outcome_id"] for e in w.events(c) if e["type"] == "user.define_outcome"),
                    (e["outcome_id"] for e in w.events(s) if e["type"] == "user.define_outcome")))
    return [dict(o, outcome_id=back[o["outcome_id"]]) for o in evaluations(w, c)]


@test(model=True)
def outcomes_that_are_over_come_along(w):
    s = writer(w)
    graded(w, s, "needs_revision: A title is missing.", "satisfied: sevt_" + NOBODY)
    graded(w, s, "failed: It cannot be.")
    for c in copies(w, s):
        equal(held(w, s, c), evaluations(w, s))
        true(evaluations(w, c)[0]["outcome_id"] != evaluations(w, s)[0]["outcome_id"], "ids of its own")
        equal(w.ok("GET", f"/v1/sessions/{c['id']}")["usage"]["output_tokens"], 0)
    rubric = verdicts("satisfied: now")
    same_everywhere(w, s, lambda c: [outcome("Write it", rubric, max_iterations=1)])
    f = fork(w, s)
    graded(w, f, "satisfied: one more")
    equal(len(evaluations(w, f)), 4)


@test(model=True)
def an_evaluation_is_ended_in_the_copy(w):
    draft, grade = fresh(), fresh()
    s = writer(w, ("Write it", f"[[gate {draft}]] [[say Draft written.]]"))
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts(f"@{grade} satisfied: yes")))
        at_gate(w, draft, feed)
        early = copies(w, s)
        gate(w, draft)
        at_gate(w, grade)
        feed.until(lambda all_: START in types(all_), "the grading", 60)
        late = copies(w, s)
        gate(w, grade)
        until_idle(feed)
    for c, begun in [(x, False) for x in early] + [(x, True) for x in late]:
        events = rests(w, c)
        end = last(events, END)
        equal((end["result"], end["explanation"], end["iteration"]), ("interrupted", "", 0))
        equal(end["outcome_evaluation_start_id"], last(events, START)["id"] if begun else "")
        equal([(o["result"], bool(o["completed_at"])) for o in evaluations(w, c)], [("interrupted", True)])
        graded(w, c, "satisfied: the next")
        equal([o["result"] for o in evaluations(w, c)], ["interrupted", "satisfied"])
    equal(evaluations(w, s)[0]["result"], "satisfied", "the original was left alone")


@test(model=True)
def a_fork_at_every_event_of_an_outcome_rests_and_goes_on(w):
    s = writer(w)
    events = graded(w, s, "needs_revision: A title is missing.", "satisfied: All is there.")
    for i, e in enumerate(events):
        f = fork(w, s, e["id"])
        got = rests(w, f)
        equal(types(got[:i + 1]), types(events[:i + 1]), f"fork at {i}, {e['type']}")
        (o,) = evaluations(w, f)
        true(o["result"] in ("interrupted", "satisfied"), o)
        equal(said(graded(w, f, "satisfied: the next"))[-1:], ["Draft written."], f"at {i}, {e['type']}")


@test(model=True)
def an_outcome_whose_agent_waits_is_graded_in_the_copy(w):
    s = writer(w, ("Write it", '[[tool lookup {"q":"x"}]] ;; [[say Draft written.]]'), tools=[custom()])
    with w.stream(s) as feed:
        w.send(s, outcome("Write it", verdicts("satisfied: yes")))
        until_idle(feed, "requires_action")
    same_everywhere(w, s, lambda c: [answer(last(w.events(c), "agent.custom_tool_use")["id"])])
    equal(last(w.events(s), END)["result"], "satisfied")


# ----------------------------------------------------------------------------------- summaries, budgets, own tools

@test(model=True)
def a_summary_stands_for_the_history_in_the_copy(w):
    with own(w, SUMMED) as v:
        s = v.session(agent=v.new_agent(tools=[])["id"])
        for i, tokens in enumerate((100, 20000, 500)):
            go_on(v, s, message(f"[[say Answer {i}.]] [[usage in={tokens} out=10 read=0 write=0]]"))
        true("agent.thread_context_compacted" in types(v.events(s)), types(v.events(s)))
        (sent,) = same_everywhere(v, s, lambda c: [message("[[say next]] [[usage in=20000 out=10 read=0 write=0]]")])
        true("summary of" in sent and "Answer 0" not in sent, "not what was before")
        # it is due: the copy sums up, as the original does
        equal(len(same_everywhere(v, s, lambda c: [message("[[say after]] [[usage in=10 out=10 read=0 write=0]]")])), 2)


@test(model=True)
def a_copy_has_spent_nothing(w):
    with own(w, PRICES) as v:
        s = v.session(budget=limit(100))
        with v.stream(s) as feed:
            paused(v, feed, s)
        n = v.mock.count()
        f, c = copies(v, s)
        for x in (f, c):
            equal(types(rests(v, x))[-3:], TRIPLE)
            equal(v.events(x)[-1]["stop_reason"], {"type": "end_turn"})
            equal(v.ok("GET", f"/v1/sessions/{x['id']}")["usage"]["output_tokens"], 0)
        equal((v.mock.count(), f["budget"], c["budget"]), (n, limit(100), None))
        for x in (f, c):
            go_on(v, x, message("[[say on]] [[usage in=10 out=0 read=0 write=0]]"))
        equal(last(v.events(f), "session.usage")["usage"]["list_cost"]["amount"], "1")


@test(model=True)
def calls_of_a_self_hosted_session(w):
    home = w.new_environment(name=fresh("own"), config={"type": "self_hosted"})["id"]
    agent = w.new_agent(tools=[{"type": "agent_toolset_20260401"}])["id"]
    s = w.session(agent=agent, environment_id=home)
    go_on(w, s, message('[[tool bash {"command":"ls"}]] ;; [[say {result}]]'), reason="requires_action")
    result = lambda c: {"type": "user.tool_result", "tool_use_id": last(w.events(c), "agent.tool_use")["id"], "content": text("of a client")}
    away = fork(w, s, environment_id=w.environment["id"]), import_(w, export(w, s))
    for c in (fork(w, s), import_(w, export(w, s), environment_id=home)):
        equal(shape(w, c, times=True), shape(w, s, times=True))
        go_on(w, c, result(c))
        equal(said(w.events(c)), ["of a client"])
        same_everywhere(w, c, lambda x: [message("[[say next]]")], environment_id=home)
    for c in away:  # there the server would run it
        equal(types(rests(w, c))[-4:], ["agent.tool_result"] + TRIPLE)
        refused(w, c, result(c))
        go_on(w, c, message("[[say here]]"))


# ------------------------------------------------------------------------------------------------------ strictness

def everything(v):
    """Sessions with what there is: threads, hidden calls, mail, costs, an outcome, a summary."""
    s, child = team(v)
    go_on(v, s, to_child(child))
    go_on(v, s, outcome("Write it.", verdicts("needs_revision: A title is missing.", "satisfied: yes")))
    go_on(v, s, message("[[say much]] [[usage in=20000 out=10 read=0 write=0]]"))
    go_on(v, s, message("[[say more]] [[usage in=100 out=10 read=0 write=0]]"))
    asks, _ = team(v)
    with Play(v, '[[tool lookup {"q":"x"}]] ;; [[say Result {result}]]', tools=[custom()]) as p:
        p.feed.until(lambda all_: idles(all_, "requires_action"), "the session to be blocked", 60)
    late = fork(v, asks, last(v.events(asks), "agent.thread_message_received")["id"])  # its mail waits
    return [export(v, x).splitlines()[:-1] for x in (s, p.s, late)]


@test(model=True)
def an_import_refuses_what_the_machine_never_writes(w):
    with own(w, SUMMED + ", " + PRICES) as v:
        lines = everything(v)[0]
    rows = [json.loads(x) for x in lines[1:]]
    kinds = {r.get("type") or r["body"]["type"] for r in rows}
    for kind in ("thread.created", "tool.hidden", "tool.outcome", "tool.result", "mail.taken", "mail.notice", "usage.cost", "context.compacted",
                 "session.thread_created", "user.define_outcome", START, END):
        true(kind in kinds, f"{kind} is not in {sorted(kinds)}")
    seen = {}

    def change(kind, how, nth=0):
        seen[0] = -1

        def one(r):
            if (r.get("type") or r["body"].get("type")) != kind:
                return r
            seen[0] += 1
            return how(r) if seen[0] == nth else r
        return edited(lines, one)

    def put(**fields):
        return lambda r: dict(r, body=dict(r["body"], **fields))

    def less(*keys):
        return lambda r: dict(r, body={k: v for k, v in r["body"].items() if k not in keys})

    gone = lambda r: None
    other = lambda r: {k: v for k, v in dict(r, thread=None if r.get("thread") else "sthr_" + NOBODY).items() if v is not None}
    agent = next(r for r in rows if r.get("type") == "thread.created")["body"]["agent"]
    for what in ((change("thread.created", gone)), change("thread.created", put(id="x")), change("thread.created", less("agent")),
                 change("thread.created", lambda r: [r, r]), change("thread.created", put(agent=dict(agent, tools="none"))),
                 change("thread.created", put(agent={"type": "advisor"})), change("thread.created", put(created_us=1 << 62)),
                 change("thread.created", put(known_as="sthr_../x")), change("thread.created", put(agent=dict(agent, id="sevt_" + NOBODY))),
                 change("tool.hidden", put(event_id="sevt_" + NOBODY)), change("tool.hidden", less("input")), change("tool.hidden", less("name")),
                 change("tool.result", gone), change("tool.result", lambda r: [r, r]), change("tool.result", put(content="text")),
                 change("tool.outcome", put(content=[{"text": "x"}])), change("tool.outcome", put(event_id="sevt_" + NOBODY)),
                 change("mail.taken", gone), change("mail.taken", put(n=7)), change("mail.taken", put(n=0)), change("mail.taken", less("n")),
                 change("mail.taken", lambda r: [r, r]), change("mail.notice", less("text")), change("mail.notice", gone),
                 change("usage.cost", put(cost=-1)), change("usage.cost", put(cost="1")), change("context.compacted", less("summary")),
                 change("agent.thread_message_received", gone), change("agent.thread_message_received", put(content="x")),
                 change("agent.thread_message_received", put(from_session_thread_id="sthr_" + NOBODY)), change("agent.thread_message_sent", put(to_session_thread_id="sthr_" + NOBODY)),
                 change("session.thread_created", put(session_thread_id="sthr_" + NOBODY)), change("session.thread_status_idle", put(session_thread_id="sthr_" + NOBODY)),
                 change("session.thread_status_idle", put(stop_reason={"type": "tired"})), change("session.thread_status_idle", gone, 0),
                 change("session.status_idle", put(stop_reason={"type": "requires_action", "event_ids": ["sevt_" + NOBODY]})),
                 change("session.status_idle", put(stop_reason={"type": "requires_action", "event_ids": []})),
                 change("user.define_outcome", less("outcome_id")), change("user.define_outcome", put(rubric={"type": "file", "file_id": "x"})),
                 change("user.define_outcome", put(max_iterations=1000)), change("user.define_outcome", put(description=" ")), change("user.define_outcome", gone),
                 change(START, gone), change(START, put(iteration=5)), change(START, put(outcome_id="outc_" + NOBODY)), change(END, gone), change(END, put(result="splendid")),
                 change(END, less("explanation")), change(END, put(outcome_evaluation_start_id="")), change(END, lambda r: [r, r]),
                 change("user.message", lambda r: dict(r, thread=next(x["thread"] for x in rows if x.get("thread"))), 1),
                 change("model.reply", other, 0)):
        r = send_file(w, what, environment_id=w.environment["id"])
        true(r.status == 400 and "line" in r.error["message"], f"{r.status} {r.body[:300]!r} {seen}")


def goes_on(w, c):
    """An imported session is at rest and can be used, whatever it is."""
    rests(w, c, closed=False)
    events = w.events(c)
    end = [e for e in events if e["type"] == "session.status_idle"]
    if end and end[-1]["stop_reason"]["type"] == "requires_action":
        go_on(w, c, interrupt())
    n, m = len(idles(w.events(c))), w.mock.count()
    w.send(c, message("[[say still here]]"))
    wait(lambda: len(idles(w.events(c))) > n, "an idle", 60)
    if w.events(c)[-1]["stop_reason"]["type"] != "retries_exhausted":  # a model may refuse what the file made of it
        true("still here" in str([r["raw"] for r in requests(w, m)]), "the model is asked")
    w.all(f"/v1/sessions/{c['id']}/threads")
    w.ok("GET", f"/moonrig/v1/sessions/{c['id']}/why")
    export(w, c)
    w.ok("DELETE", f"/v1/sessions/{fork(w, c)['id']}")
    w.ok("DELETE", f"/v1/sessions/{c['id']}")


@test(model=True)
def an_import_of_hostile_files_of_every_kind(w):
    with own(w, SUMMED + ", " + PRICES) as v:
        files = everything(v)
        good = bad = 0
        first, most = int(os.environ.get("SEED", "0")), int(os.environ.get("SEEDS", "180"))
        for seed in range(first, first + most):
            data = mutated(random.Random(seed), files[seed % len(files)])
            r = send_file(v, data, environment_id=v.environment["id"])
            if r.status != 200:
                true(400 <= r.status < 500 and r.error, f"seed {seed}: {r.status} {r.body[:300]!r}")
                bad += 1
                continue
            good += 1
            try:
                goes_on(v, r.json)
            except AssertionError as e:
                raise AssertionError(f"seed {seed}: {e}; {[[(x['type'], x.get('stop_reason')) for x in log[-6:]] for log in logs(v, r.json)]}")
        true(most < 180 or good > 5 and bad > 50, f"{good} taken, {bad} refused")
