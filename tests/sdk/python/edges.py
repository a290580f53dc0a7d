"""edges.py - paging, errors, streams that are taken up again, and clients of last summer."""
import http.client
import json
import re
import urllib.parse

import anthropic

from kit import KEY, MODEL, URL, Feed, beta, client, code_of, connect, fails, message, opened, same, send, test, types
from story import s

NOBODY = "01" + "2" * 22
# What clients of two generations let through; anything newer has to travel as "message".
NAMED = re.compile(r"^(user\.|system\.message$|agent\.|session\.(?!usage$)|span\.|event_start$|event_delta$)")


@test("paging/sessions")
def _():
    made = [beta.sessions.create(agent=s.agent.id, environment_id=s.environment.id).id for _ in range(5)]
    everything = [x.id for x in beta.sessions.list(limit=2)]
    same(everything[:5], made[::-1], "newest first")
    same(len(set(everything)), len(everything))
    same([x.id for x in beta.sessions.list(limit=3, order="asc")][-5:], made)
    same([x.id for x in beta.sessions.list(statuses=["idle", "running"], agent_id=s.agent.id)][:5], made[::-1])
    page = beta.sessions.list(limit=2)
    same((page.prev_page, [x.id for x in page.get_next_page().data]), (None, everything[2:4]))
    back = beta.sessions.list(limit=2, page=page.get_next_page().prev_page)
    same([x.id for x in back.data], everything[:2])
    fails(anthropic.BadRequestError, 400, beta.sessions.list, page=page.next_page, order="asc")


@test("errors/status-type-code-request-id")
def _():
    gone = fails(anthropic.NotFoundError, 404, beta.agents.retrieve, "agent_" + NOBODY)
    same((gone.type, code_of(gone)), ("not_found_error", None))
    bad = fails(anthropic.BadRequestError, 400, beta.agents.create, name="", model=MODEL)
    assert bad.type == "invalid_request_error" and "name" in str(bad)
    keyless = connect(api_key="sk-mr-wrong")
    same(fails(anthropic.AuthenticationError, 401, keyless.beta.agents.list).type, "authentication_error")
    model = fails(anthropic.BadRequestError, 400, beta.sessions.create, environment_id=s.environment.id,
                  agent={"type": "agent_with_overrides", "id": s.agent.id, "model": None})
    same(code_of(model), "agent_model_required")
    fails(anthropic.NotFoundError, 404, beta.sessions.events.send, "sesn_" + NOBODY, events=[message("x")])
    session = beta.sessions.create(agent=s.agent.id, environment_id=s.environment.id)
    second = fails(anthropic.BadRequestError, 400, send, session, message("fine"), {"type": "user.message"})
    assert "events[1]" in str(second), second
    same(list(beta.sessions.events.list(session.id)), [], "a refused batch stores nothing")
    fails(anthropic.BadRequestError, 400, beta.sessions.events.stream, session.id, event_deltas=["agent.song"])


@test("errors/conflict-is-not-tried-again")
def _():
    agent = beta.agents.create(name="conflict", model=MODEL)
    beta.agents.update(agent.id, version=1, name="two")
    e = fails(anthropic.ConflictError, 409, beta.agents.update, agent.id, version=1, name="three")
    same((e.type, e.response.headers["x-should-retry"]), ("conflict_error", "false"))
    same(e.response.request.headers["x-stainless-retry-count"], "0")


@test("stream/last-event-id")
def _():
    session, feed = opened(s.agent, s.environment)
    raw = Raw("GET", "/v1/sessions/%s/events/stream" % session.id)
    send(session, message("[[say One.]]"))
    first = feed.idle()
    frames = raw.frames(len(first))
    same([json.loads(f["data"])["id"] for f in frames], [e.id for e in first])
    numbers = [int(f["id"]) for f in frames]
    same(numbers, sorted(set(numbers)))
    raw.close()
    # The SDK's own stream, told where it was: exactly what it missed, then what comes.
    again = Feed(beta.sessions.events.stream(session.id, extra_headers={"Last-Event-ID": str(numbers[3])}))
    again.until(lambda all: len(all) >= len(first) - 4, "what was missed")
    send(session, message("[[say Two.]]"))
    both = first + feed.idle(len(first))
    again.until(lambda all: len(all) >= len(both) - 4, "what comes")
    same([e.id for e in again.events], [e.id for e in both[4:]])
    again.close(), feed.close()


class Raw:
    """A request by hand, as the curl of a year ago would make it."""

    def __init__(self, verb, path, body=None, **headers):
        u = urllib.parse.urlsplit(URL)
        self.connection = http.client.HTTPConnection(u.hostname, u.port, timeout=50)
        head = {"x-api-key": KEY, "anthropic-version": "2023-06-01", "anthropic-beta": "managed-agents-2026-04-01"}
        if body is not None:
            head["content-type"] = "application/json"
        self.connection.request(verb, path, json.dumps(body) if body is not None else None, dict(head, **headers))
        self.response = self.connection.getresponse()

    def json(self):
        same(self.response.status, 200)
        return json.loads(self.response.read())

    def frames(self, n):
        """The next n events of a stream, each as its fields; keep-alives are passed over."""
        found, fields = [], {}
        while len(found) < n:
            line = self.response.readline().decode().rstrip("\n")
            if line and not line.startswith(":"):
                name, _, value = line.partition(":")
                assert name not in fields, "a field twice: " + line
                fields[name] = value.removeprefix(" ")
            elif not line:
                if fields and fields.get("event") != "ping":
                    found.append(fields)
                fields = {}
        return found

    def close(self):
        self.connection.sock and self.connection.close()


@test("old-clients/x-api-key-beta-true-and-the-first-version")
def _():
    agent = Raw("POST", "/v1/agents?beta=true", {"name": "old", "model": MODEL}).json()
    session = Raw("POST", "/v1/sessions?beta=true", {"agent": agent["id"], "environment_id": s.environment.id}).json()
    stream = Raw("GET", "/v1/sessions/%s/events/stream?beta=true&event_deltas[]=agent.message" % session["id"])
    Raw("POST", "/v1/sessions/%s/events?beta=true" % session["id"], {"events": [message("[[say Old hat.]]")]}).json()
    idle = None
    while idle is None:
        frame, = stream.frames(1)
        event = json.loads(frame["data"])
        same(frame["event"], event["type"] if NAMED.match(event["type"]) else "message", "the name of the frame")
        idle = event if event["type"] == "session.status_idle" else None
    bare = Raw("GET", "/v1/sessions/%s/events?beta=true&types=agent.message&types=user.message" % session["id"]).json()
    coded = Raw("GET", "/v1/sessions/%s/events?types%%5B%%5D=agent.message&types%%5B%%5D=user.message" % session["id"]).json()
    same(bare, coded)
    same([e["type"] for e in bare["data"]], ["user.message", "agent.message"])
    done = Raw("POST", "/v1/sessions/%s/archive?beta=true" % session["id"]).json()
    same((done["status"], done["id"]), ("terminated", session["id"]))
    Raw("DELETE", "/v1/sessions/%s?beta=true" % session["id"]).json()
    stream.close()


@test("old-clients/this-one-as-it-authenticates-and-asks")
def _():
    """Either generation's own way: a bearer and the new version, or x-api-key, ?beta=true and the first one."""
    sent = beta.sessions.with_raw_response.retrieve(beta.sessions.create(agent=s.agent.id, environment_id=s.environment.id).id)
    request, new = sent.http_response.request, int(anthropic.__version__.split(".")[0]) >= 2
    same(request.headers.get("authorization"), "Bearer " + KEY if new else None)
    same(request.headers.get("x-api-key"), None if new else KEY)
    same(request.headers["anthropic-version"], "2026-10-21" if new else "2023-06-01")
    same("beta=true" in str(request.url), not new)
    other = connect(api_key=None, auth_token=KEY) if not new else client
    same(types(other.beta.sessions.events.list(sent.parse().id)), [])
