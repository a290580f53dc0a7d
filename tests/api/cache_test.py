"""What a provider receives over a long session: bytes before the cache breakpoint stay as they were sent, so that its
prompt cache keeps hitting; thinking goes back as it came."""
import json

from kit import equal, last, message, said, test, true, types

TOOL = {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": {"type": "object"}}


def requests(w, since, n):
    got = [r for r in w.mock.get(f"/requests?since={since}") if r["path"] == "/v1/messages"]
    equal(len(got), n)
    return got


@test(model=True)
def bytes_before_the_breakpoint_stay(w):
    agent = w.new_agent(tools=[TOOL], system="You keep the books.")
    s = w.session(agent=agent["id"])
    since, turns = w.mock.count(), 12
    for i in range(turns):
        with w.stream(s) as feed:
            w.send(s, message(f"[[think]] [[tools lookup {{\"n\":{i}}} | lookup {{\"n\":\"\u00e9\"}}]] ;; [[think]] [[say turn {i}]]"))
            events = feed.until(lambda all_: "session.status_idle" in types(all_), "the calls")
        uses = [e for e in events if e["type"] == "agent.custom_tool_use"]
        equal(len(uses), 2)
        _, events = w.turn(*[{"type": "user.custom_tool_result", "custom_tool_use_id": e["id"],
                              "content": [{"type": "text", "text": f"r{i}"}]} for e in uses], session=s)
        equal(said(events)[-1], f"turn {i}")
        span = last(events, "span.model_request_end")["model_usage"]
        true(span["cache_read_input_tokens"] > 0, f"turn {i} read nothing from the cache: {span}")
    before = ""
    for r in requests(w, since, 2 * turns):
        raw = r["raw"]
        # Everything up to the end of the messages was sent like this before; the rest of the request is "]}".
        true(raw.startswith(before), "bytes of an earlier request were sent differently")
        true(raw.endswith("]}"), raw[-40:])
        before = raw[:-2]
        # One breakpoint each after tools and system, one of the request's own; none that moves among the messages.
        equal((raw.count('"cache_control"'), json.dumps(r["body"]["messages"]).count("cache_control")), (3, 0))
        equal([list(b)[-1] for b in (r["body"]["tools"][-1], r["body"]["system"][-1])], ["cache_control"] * 2)
        true("cache_control" in r["body"], "the request's own")
