"""story.py - agents, environments, sessions; send, stream, previews; tools, confirmations, interrupt.

Event orders are those of the worked traces (API: sessions, worked traces A to D).
"""
import asyncio
from types import SimpleNamespace

import anthropic
from anthropic.lib.sessions import accumulate_managed_agents_event

from kit import (BEGIN, MODEL, SANDBOX, TRIPLE, Feed, beta, connect, fails, message, of, opened, said, same, send, test, text,
                 types)

s = SimpleNamespace()
ASK = [{"type": "agent_toolset_20260401", "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}]}]
WEATHER = {"type": "custom", "name": "get_weather", "description": "The weather of a city",
           "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


@test("crud/agent")
def _():
    s.agent = beta.agents.create(name="clerk", model=MODEL, system="You keep the books.", metadata={"team": "finance"},
                                 tools=[*ASK, WEATHER])
    same((s.agent.version, s.agent.model.id, s.agent.metadata), (1, MODEL, {"team": "finance"}))
    same(s.agent.tools[0].configs[0].permission_policy.type, "always_ask")
    s.agent = beta.agents.update(s.agent.id, version=1, description="Keeps books")
    same((s.agent.version, s.agent.description), (2, "Keeps books"))
    same(beta.agents.retrieve(s.agent.id, version=1).description, None)
    same([v.version for v in beta.agents.versions.list(s.agent.id, limit=1)], [2, 1])
    assert s.agent.id in [a.id for a in beta.agents.list(limit=1)]
    gone = beta.agents.archive(beta.agents.create(name="short-lived", model=MODEL).id)
    assert gone.archived_at


@test("crud/environment")
def _():
    s.environment = beta.environments.create(name="office", metadata={"a": "1"}, config={
        "type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["example.com"]}})
    same(s.environment.config.networking.allowed_hosts, ["example.com"])
    same(beta.environments.update(s.environment.id, metadata={"a": None, "b": "2"}).metadata, {"b": "2"})
    same(beta.environments.retrieve(s.environment.id).metadata, {"b": "2"})
    assert "default" in [e.name for e in beta.environments.list()]
    extra = beta.environments.create(name="extra")
    assert beta.environments.archive(extra.id).archived_at
    same(beta.environments.delete(extra.id).type, "environment_deleted")


@test("crud/session")
def _():
    made = beta.sessions.create(agent={"type": "agent", "id": s.agent.id, "version": 2}, environment_id=s.environment.id,
                                title="March", metadata={"month": "3", "drop": "1"})
    same((made.status, made.agent.version, made.title, made.budget), ("idle", 2, "March", None))
    same(beta.sessions.retrieve(made.id).agent, made.agent)
    now = beta.sessions.update(made.id, title="April", metadata={"drop": None})
    same((now.title, now.metadata), ("April", {"month": "3"}))
    assert made.id in [x.id for x in beta.sessions.list(agent_id=s.agent.id)]
    feed = Feed(beta.sessions.events.stream(made.id))
    same(beta.sessions.delete(made.id).type, "session_deleted")
    same(types(feed.end())[-1], "session.deleted")
    fails(anthropic.NotFoundError, 404, beta.sessions.retrieve, made.id)


@test("session/initial-events")
def _():
    made = beta.sessions.create(agent=s.agent.id, environment_id=s.environment.id, initial_events=[message("[[say First.]]")])
    same(made.status, "running")
    feed = Feed(beta.sessions.events.stream(made.id))
    if not any(e.type == "session.status_idle" for e in beta.sessions.events.list(made.id)):
        feed.idle()
    same(said(beta.sessions.events.list(made.id)), ["First."])
    feed.close()


@test("stream/before-send-and-list-after")
def _():
    session, feed = opened(s.agent, s.environment)
    sent = send(session, message("[[say Hello from the ledger.]]"))
    events = feed.idle()
    same(types(events), [*BEGIN, "user.message", "span.model_request_start", "agent.message", "span.model_request_end", *TRIPLE])
    same((said(events), events[2].id, events[1].agent_name), (["Hello from the ledger."], sent[0].id, "clerk"))
    same((events[-1].stop_details, events[5].model_request_start_id), (None, events[3].id))
    listed = list(beta.sessions.events.list(session.id))
    same([e.to_dict() for e in listed], [e.to_dict() for e in events])
    same([e.id for e in beta.sessions.events.list(session.id, limit=2)], [e.id for e in listed], "pages of two")
    same([e.id for e in beta.sessions.events.list(session.id, order="desc", limit=4)], [e.id for e in listed][::-1])
    same(types(beta.sessions.events.list(session.id, types=["agent.message", "user.message"])), ["user.message", "agent.message"])
    page = beta.sessions.events.list(session.id, limit=4)
    same((len(page.data), page.has_next_page(), len(page.get_next_page().data)), (4, True, 4))
    thread, = beta.sessions.threads.list(session.id)
    same((thread.id, thread.parent_thread_id, thread.status), (events[1].session_thread_id, None, "idle"))
    same(beta.sessions.threads.retrieve(thread.id, session_id=session.id).id, thread.id)
    same(types(beta.sessions.threads.events.list(thread.id, session_id=session.id)), types(events))
    done = beta.sessions.archive(session.id)
    same((done.status, bool(done.archived_at), types(feed.end())[-1]), ("terminated", True, "session.status_terminated"))
    assert session.id not in [x.id for x in beta.sessions.list()]
    assert session.id in [x.id for x in beta.sessions.list(include_archived=True)]


@test("stream/previews-fold-into-the-message")
def _():
    session, plain = opened(s.agent, s.environment)
    feed = Feed(beta.sessions.events.stream(session.id, event_deltas=["agent.message"]))
    send(session, message("[[say One two three four five.]] [[slow 5 ms]]"))
    events, seen, folded = feed.idle(), "", None
    for e in events:
        folded = accumulate_managed_agents_event(folded, e)
        if e.type == "event_delta":
            seen += e.delta.content.text
            same(folded.content[0].text, seen)
    whole, = of(events, "agent.message")
    same((of(events, "event_start")[0].event.id, folded.id), (whole.id, whole.id))
    assert seen and whole.content[0].text.startswith(seen)
    same((folded.content[0].text, folded.processed_at), (whole.content[0].text, whole.processed_at))
    assert not [t for t in types(plain.idle()) if t.startswith("event_")]
    feed.close(), plain.close()


@test("tools/answered-by-the-client")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message('[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Rome"}]] ;; [[say {result}]]'))
    asked = feed.idle(reason="requires_action")
    oslo, rome = of(asked, "agent.custom_tool_use")
    same((asked[-1].stop_reason.event_ids, rome.input), ([oslo.id, rome.id], {"city": "Rome"}))
    first, = send(session, {"type": "user.custom_tool_result", "custom_tool_use_id": oslo.id, "content": text("4 C")})
    assert first.processed_at, "a result is processed on receipt"
    partial = feed.idle(len(asked), "requires_action")
    same((types(partial), partial[-1].stop_reason.event_ids), (["user.custom_tool_result", *TRIPLE], [rome.id]))
    send(session, {"type": "user.custom_tool_result", "custom_tool_use_id": rome.id, "content": text("18 C")})
    same(said(feed.idle(len(asked) + len(partial))), ["4 C\n18 C"])
    feed.close()


def runner(session, tools, act=None):
    """What the SDK's tool runner does until it stops by itself; act() comes when it has been started."""
    async def go():
        async with connect(anthropic.AsyncAnthropic) as c:
            calls = []

            async def work():
                async for call in c.beta.sessions.events.tool_runner(session.id, tools=tools, max_idle=0.3):
                    calls.append(call)

            task = asyncio.ensure_future(work())
            if act:
                await asyncio.get_running_loop().run_in_executor(None, act)
            await asyncio.wait_for(task, 50)
            return calls

    return asyncio.run(go())


@anthropic.beta_async_tool(name="get_weather", description="The weather of a city")
async def weather(city: str) -> str:
    return city + ": 12 C"


@test("tools/runner")
def _():
    session, feed = opened(s.agent, s.environment)
    calls = runner(session, [weather], lambda: send(session, message(
        '[[tools get_weather {"city":"Oslo"} | get_weather {"city":"Bonn"}]] ;; [[say {result}]]')))
    same([(c.name, c.posted, c.is_error) for c in calls], [("get_weather", True, False)] * 2)
    same(said(feed.idle()), ["Oslo: 12 C\nBonn: 12 C"])
    feed.close()


@test("tools/runner-attached-later-and-until-the-session-ends")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message('[[tool get_weather {"city":"Kiel"}]] ;; [[say {result}]]'))
    feed.idle(reason="requires_action")
    same([(c.posted, c.confirmation) for c in runner(session, [weather])], [(True, None)])
    same(said(feed.idle()), ["Kiel: 12 C"])
    beta.sessions.archive(session.id)
    feed.end()
    same(runner(session, [weather]), [], "a runner on an ended session ends")


@test("tools/runner-cannot-answer-for-the-server")
def _():
    hands = beta.agents.create(name="hands", model=MODEL, tools=[{"type": "agent_toolset_20260401"}])
    session, feed = opened(hands, s.environment)

    @anthropic.beta_async_tool(name="bash", description="x")
    async def rival(command: str) -> str:
        return "made up"

    calls = runner(session, [rival], lambda: send(session, message('[[tool bash {"command":"sleep 0.3; echo real"}]] ;; [[say {result}]]')))
    same([c.posted for c in calls], [False])
    events = feed.idle()
    assert not of(events, "user.tool_result")
    if SANDBOX:
        same(said(events), ["real"])
    feed.close()


@test("confirmation/allow")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message('[[tool bash {"command":"echo $((6*7))"}]] ;; [[say {result}]]'))
    asked = feed.idle(reason="requires_action")
    use, = of(asked, "agent.tool_use")
    same((use.evaluated_permission, asked[-1].stop_reason.event_ids), ("ask", [use.id]))
    refused = fails(anthropic.BadRequestError, 400, send, session, message("hello?"))
    assert "waiting on responses to events [%s]" % use.id in str(refused)
    send(session, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"})
    rest = feed.idle(len(asked))
    same(types(rest), [*BEGIN, "user.tool_confirmation", "agent.tool_result", "span.model_request_start", "agent.message",
                       "span.model_request_end", *TRIPLE])
    if SANDBOX:
        same(said(rest), ["42"])
    feed.close()


@test("confirmation/deny")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message('[[tool bash {"command":"rm -rf build"}]] ;; [[say {result}]]'))
    asked = feed.idle(reason="requires_action")
    use, = of(asked, "agent.tool_use")
    send(session, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "deny", "deny_message": "Use staging."})
    rest = feed.idle(len(asked))
    result, = of(rest, "agent.tool_result")
    assert result.is_error and "Use staging." in said(rest)[0]
    fails(anthropic.BadRequestError, 400, send, session, {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "allow"})
    feed.close()


@test("interrupt/and-redirect")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message("[[long 4000]] [[slow 20 ms]]"))
    feed.until(lambda all: "span.model_request_start" in types(all), "the model to be asked")
    sent = send(session, {"type": "user.interrupt"}, message("[[say Just three lines.]]"))
    same([e.processed_at for e in sent], [None, None])
    events = feed.until(lambda all: len(of(all, "session.status_idle")) == 2, "two idles")
    same(types(events), [*BEGIN, "user.message", "span.model_request_start", "span.model_request_end", "user.interrupt", *TRIPLE,
                         *BEGIN, "user.message", "span.model_request_start", "agent.message", "span.model_request_end", *TRIPLE])
    same((events[4].is_error, events[8].stop_reason.type, said(events)), (True, "end_turn", ["Just three lines."]))
    feed.close()


@test("interrupt/while-blocked")
def _():
    session, feed = opened(s.agent, s.environment)
    send(session, message('[[tool get_weather {"city":"Oslo"}]]'))
    asked = feed.idle(reason="requires_action")
    send(session, {"type": "user.interrupt"})
    rest = feed.idle(len(asked))
    same(types(rest)[-3:], TRIPLE)
    assert not of(rest, "span.model_request_start"), "the model is not asked"
    feed.close()
