"""Sessions whose model is served by something else than the Messages API, or by several: tools, images, reasoning and
broken arguments through chat completions; another provider that stands in; a provider that asks to wait."""
from kit import equal, last, message, said, test, true, types
from messages_test import passing

TOOL = {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": {"type": "object"}}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


def session(p, model):
    agent = p.new_agent(model=model, tools=[TOOL], system="You keep the books.")
    return p.session(agent=agent["id"])


def chats(w, since):
    return [r["body"] for r in w.mock.get(f"/requests?since={since}") if r["path"] == "/v1/chat/completions"]


def answer(e, *content):
    return {"type": "user.custom_tool_result", "custom_tool_use_id": e["id"], "content": list(content)}


@test(model=True)
def a_session_on_chat_completions(w):
    with passing(w) as p:
        since, s = w.mock.count(), session(p, "qwen")
        _, events = p.turn({"type": "user.message", "content": [{"type": "text", "text":
                            '[[think]] [[tools lookup {"n":1} | lookup {"n":2}]] ;; [[say saw it]]'}, PNG]},
                           session=s, reason="requires_action")
        uses = [e for e in events if e["type"] == "agent.custom_tool_use"]
        equal([e["input"] for e in uses], [{"n": 1}, {"n": 2}])
        true("agent.thinking" in types(events), types(events))
        _, events = p.turn(answer(uses[1], {"type": "text", "text": "two"}), answer(uses[0], {"type": "text", "text": "one"}, PNG), session=s)
        equal(said(events)[-1], "saw it")
        usage = last(events, "span.model_request_end")["model_usage"]
        true(usage["input_tokens"] + usage["cache_read_input_tokens"] > 0 and usage["output_tokens"] > 0, usage)
        one, two = chats(w, since)
        equal((one["model"], one["messages"][0]), ("qwen3", {"role": "system", "content": "You keep the books."}))
        url = "data:image/png;base64," + PNG["source"]["data"]
        equal(one["messages"][1]["content"][1], {"type": "image_url", "image_url": {"url": url}})
        equal(two["messages"][:2], one["messages"])
        asked, first, second, image = two["messages"][2:]
        equal((asked["role"], asked["reasoning_content"], len(asked["tool_calls"])),
              ("assistant", "Let me think about that.", 2))
        equal([(m["role"], m["tool_call_id"]) for m in (first, second)],
              [("tool", c["id"]) for c in asked["tool_calls"]])
        equal((second["content"], image["role"], image["content"][0]["image_url"]["url"]), ("two", "user", url))


@test(model=True)
def broken_arguments_do_not_end_a_session(w):
    with passing(w) as p:
        for model in ("qwen", "claude-haiku-4-5"):
            s = session(p, model)
            with p.stream(s) as feed:
                p.send(s, message("[[badtool no_such_tool]] ;; [[say went on]]"))
                events = feed.idle()
            equal((said(events), events[-1]["stop_reason"]["type"]), (["went on"], "end_turn"))
            equal(sum(e["type"] == "session.error" for e in events), 0)


@test(model=True)
def another_provider_stands_in_for_a_session(w):
    with passing(w) as p:
        since, s = w.mock.count(), session(p, "back")
        for text in ("one", "two"):
            _, events = p.turn(message(f"[[say {text} from {{model}}]]"), session=s)
            equal(said(events), [f"{text} from y"])
            equal(sum(e["type"] == "session.error" for e in events), 0)
        equal([b["model"] for b in chats(w, since)], ["y", "y"])
        # Output was seen, so nobody stands in: the turn is tried again.
        _, events = p.turn(message("[[cut x1]] [[say whole]] [[long 100]]"), session=s)
        true("local: the stream was cut before its end" in last(events, "session.error")["error"]["message"], events)
        equal((said(events)[-1].split()[-1], [b["model"] for b in chats(w, since)][2:]), ("w99", ["y", "y"]))


@test(model=True)
def a_pause_holds_for_all_sessions_of_a_provider(w):
    with passing(w) as p:
        first, second = session(p, "single"), session(p, "single")
        with p.stream(first) as a, p.stream(second) as b:
            p.send(first, message("[[error 429 retry 6 x1]] [[say first]]"))
            a.until(lambda all_: "session.error" in types(all_), "the error")
            n = w.mock.count()
            p.send(second, message("[[say second]]"))
            b.until(lambda all_: "span.model_request_start" in types(all_), "the second to ask")
            equal(w.mock.count(), n)  # it waits in line, and does not fail
            events = b.idle()
            equal((said(events), sum(e["type"] == "session.error" for e in events)), (["second"], 0))
            equal(said(a.idle()), ["first"])
