"""work.py - what runs longer: an outcome and its grader, a coordinator with two threads, a budget.

API: sessions §11 to §13, worked traces E and F. The models' parts are in the texts (tests/mock/messages.py).
"""
import json
import uuid

import anthropic

from kit import BEGIN, MODEL, TRIPLE, Feed, beta, fails, message, of, opened, said, same, send, test, types
from story import ASK, WEATHER, s

GRADES = [{"result": "needs_revision", "explanation": "No sources. [[say Draft two.]]"},
          {"result": "satisfied", "explanation": "Sources are named."}]


@test("outcome/two-iterations")
def _():
    session, feed = opened(s.agent, s.environment)
    verdicts = " | ".join(json.dumps(dict(g, nonce=uuid.uuid4().hex)) for g in GRADES)
    defined, = send(session, {"type": "user.define_outcome", "description": "[[say Draft one.]]",
                              "rubric": {"type": "text", "content": "Names its sources. [[verdict %s]]" % verdicts}})
    assert defined.processed_at and defined.outcome_id.startswith("outc_")
    same(defined.max_iterations, 3)
    events = [e for e in feed.idle() if e.type != "span.outcome_evaluation_ongoing"]
    turn = ["span.model_request_start", "agent.message", "span.model_request_end"]
    grade = ["span.outcome_evaluation_start", "span.outcome_evaluation_end"]
    same(types(events), ["user.define_outcome", *BEGIN, *turn, *grade, *turn, *grade, *TRIPLE])
    same(said(events), ["Draft one.", "Draft two."])
    starts, ends = of(events, grade[0]), of(events, grade[1])
    same([(e.iteration, e.result) for e in ends], [(0, "needs_revision"), (1, "satisfied")])
    same([e.outcome_evaluation_start_id for e in ends], [e.id for e in starts])
    same([e.explanation for e in ends], [g["explanation"] for g in GRADES])
    assert all(e.usage.output_tokens > 0 and e.outcome_id == defined.outcome_id for e in ends)
    same(events[-1].stop_reason.type, "end_turn")
    outcome, = beta.sessions.retrieve(session.id).outcome_evaluations
    same((outcome.outcome_id, outcome.result, outcome.iteration), (defined.outcome_id, "satisfied", 1))
    assert outcome.completed_at
    feed.close()


@test("outcome/interrupted")
def _():
    session, feed = opened(s.agent, s.environment)
    outcome = {"type": "user.define_outcome", "description": "[[long 4000]] [[slow 20 ms]]",
               "rubric": {"type": "text", "content": "Is long."}}
    send(session, outcome)
    feed.until(lambda all: "span.model_request_start" in types(all), "the model to be asked")
    fails(anthropic.BadRequestError, 400, send, session, outcome)
    send(session, {"type": "user.interrupt"})
    end, = of(feed.idle(), "span.outcome_evaluation_end")
    same((end.result, end.outcome_evaluation_start_id), ("interrupted", ""))
    same(beta.sessions.retrieve(session.id).outcome_evaluations[0].result, "interrupted")
    feed.close()


def team():
    """A coordinator and the two that it may set to work."""
    reviewer = beta.agents.create(name="reviewer", model=MODEL)
    tester = beta.agents.create(name="tester", model=MODEL, tools=ASK)
    lead = beta.agents.create(name="lead", model=MODEL, multiagent={
        "type": "coordinator", "agents": [reviewer.id, {"type": "agent", "id": tester.id}]})
    same([(a.type, a.id, a.version) for a in lead.multiagent.agents], [("agent", reviewer.id, 1), ("agent", tester.id, 1)])
    fails(anthropic.BadRequestError, 400, beta.agents.create, name="deeper", model=MODEL,
          multiagent={"type": "coordinator", "agents": [lead.id]})
    return lead


DELEGATE = "[[tools %s]] ;; [[say Delegated.]]" % " | ".join("create_agent " + json.dumps({"agent": a, "prompt": p}) for a, p in [
    ("reviewer", "[[say 1 issue at line 42.]]"),
    ("tester", '[[tool bash {"command":"make test"}]] ;; [[say 12 tests pass.]]')])


@test("coordinator/two-threads-and-a-cross-posted-confirmation")
def _():
    session, feed = opened(team(), s.environment)
    same([a.name for a in session.agent.multiagent.agents], ["reviewer", "tester"])
    send(session, message(DELEGATE))
    first = feed.idle(reason="requires_action")
    created = {e.agent_name: e.session_thread_id for e in of(first, "session.thread_created")}
    same(sorted(created), ["reviewer", "tester"])
    same({e.to_agent_name: e.to_session_thread_id for e in of(first, "agent.thread_message_sent")}, created)
    same([said_by.content[0].text for said_by in of(first, "agent.thread_message_received")], ["1 issue at line 42."])
    use, = of(first, "agent.tool_use")
    same((use.session_thread_id, use.evaluated_permission, first[-1].stop_reason.event_ids), (created["tester"], "ask", [use.id]))
    threads = list(beta.sessions.threads.list(session.id))
    same([(t.agent.name, t.parent_thread_id is None) for t in threads], [("lead", True), ("reviewer", False), ("tester", False)])
    same([t.id for t in beta.sessions.threads.list(session.id, limit=1)], [t.id for t in threads])
    on_thread = {"session_id": session.id}
    child = Feed(beta.sessions.threads.events.stream(created["tester"], **on_thread))
    send(session, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"})
    rest = feed.idle(len(first))
    answer, = of(rest, "user.tool_confirmation")
    same((answer.session_thread_id, answer.tool_use_id), (created["tester"], use.id))
    report, = of(rest, "agent.thread_message_received")
    same((report.from_session_thread_id, report.from_agent_name, report.content[0].text), (created["tester"], "tester", "12 tests pass."))
    assert not of(rest, "agent.tool_result"), "a child's results are its own"
    own = child.until(lambda all: "session.thread_status_idle" in types(all), "the child to be idle")
    for kind in ["user.tool_confirmation", "agent.tool_result", "span.model_request_end", "agent.thread_message_sent"]:
        assert of(own, kind), "%s in %s" % (kind, types(own))
    listed = list(beta.sessions.threads.events.list(created["tester"], **on_thread))
    same(types(listed)[0], "agent.thread_message_received")
    same([(e.id, getattr(e, "session_thread_id", None)) for e in of(listed, "agent.tool_use")], [(use.id, None)])
    done = beta.sessions.threads.archive(created["reviewer"], **on_thread)
    same((done.status, bool(done.archived_at)), ("terminated", True))
    same([t.status for t in beta.sessions.threads.list(session.id)], ["idle", "terminated", "idle"])
    fails(anthropic.BadRequestError, 400, beta.sessions.threads.archive, threads[0].id, **on_thread)
    child.close(), feed.close()


def budget(cents):
    return {"type": "limit", "max_list_cost": {"amount": cents, "currency": "USD"}}


@test("budget/pause-and-raise")
def _():
    stock = {"type": "custom", "name": "stock_level", "description": "d", "input_schema": {"type": "object"}}
    agent = beta.agents.create(name="spender", model=MODEL, tools=[stock, WEATHER])
    session, feed = opened(agent, s.environment, budget=budget("10"))
    same(session.budget.max_list_cost.amount, "10")
    send(session, message('[[tool stock_level {"article":"nails"}]] [[usage in=1000 out=10000]] ;; [[say Done.]]'))
    paused = feed.idle(reason="budget_reached")
    same(types(paused)[-3:], TRIPLE)
    same((paused[-3].stop_reason.type, len(of(paused, "span.model_request_start"))), ("budget_reached", 1))
    same(paused[-2].budget.max_list_cost.amount, "10")
    cost = int(paused[-2].usage.list_cost.amount)
    assert cost >= 10, cost
    fails(anthropic.BadRequestError, 400, send, session, message("go on"))
    low = fails(anthropic.BadRequestError, 400, beta.sessions.update, session.id, budget=budget(str(cost - 1)))
    assert "budget.max_list_cost must be greater than the session's consumed list cost" in str(low), low
    beta.sessions.update(session.id, budget=budget(str(cost * 100)))
    rest = feed.idle(len(paused))
    same((of(rest, "session.updated")[0].budget.max_list_cost.amount, said(rest)), (str(cost * 100), ["Done."]))
    same(beta.sessions.update(session.id, budget=None).budget, None)
    fails(anthropic.BadRequestError, 400, beta.sessions.update, session.id, budget=budget("5"))
    feed.close()
