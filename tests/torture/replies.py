"""Replies that arrive: in any pieces, among any noise, of any size; refusals, broken tool calls, stops of all kinds."""
import json

from scene import BEGIN, END, SECRET, Scene, results, said, shape

TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


HARD = "na\u00efve Gr\u00fc\u00dfe \U0001f600 \u4f60\u597d \u2028 \"quoted\" \\back\\ end"
TOOL_INPUT = {"command": "printf '%s' 'gr\u00fc\u00df \U0001f600 \"x\" \\\\ \u4f60'"}
TWO_STEPS = f"[[say {HARD}]] [[tool bash {json.dumps(TOOL_INPUT, ensure_ascii=False)}]];;WAY [[say {{result}}]]"
TWO_SHAPE = BEGIN + ["message", "use bash", "end", "result", "start"] + END


def came_whole(w, ev):
    use = [e for e in ev if e["type"] == "agent.tool_use"]
    assert use[0]["input"] == TOOL_INPUT, use
    assert said(ev) == [HARD, "gr\u00fc\u00df \U0001f600 \"x\" \\\\ \u4f60"], said(ev)


@test
def pieces(tmp, serve, provider):
    """1, 2, 3, 7 bytes at a time; inside UTF-8 sequences, inside CR LF, between the lines of an event."""
    with Scene(tmp, serve, provider) as s:
        ways = ["[[split 1]]", "[[split 2]]", "[[split 3]]", "[[split 7]]", "[[split utf8]]", "[[split crlf]]", "[[split lines]]",
                "[[split raw]]", "[[split crlf]] [[split 1]]", "[[eol crlf]]", "[[eol cr]]", "[[eol cr]] [[split 1]]", "[[eol crlf]] [[split lines]]"]
        s.run(*[(way + TWO_STEPS.replace("WAY", way), TWO_SHAPE, came_whole) for way in ways])


@test
def noise(tmp, serve, provider):
    """Pings, comments, events, members, deltas, blocks and fields that nobody knows."""
    with Scene(tmp, serve, provider) as s:
        ways = ["[[noise]]", "[[noise]] [[split 1]]", "[[noise]] [[split crlf]]", "[[noise]] [[eol cr]]"]
        s.run(*[(way + TWO_STEPS.replace("WAY", way), TWO_SHAPE, came_whole) for way in ways])


@test
def unknown_blocks(tmp, serve, provider):
    """Not shown, not lost: the provider gets them back as they were."""
    with Scene(tmp, serve, provider) as s:
        s.run(('[[unknown]] [[say so]] [[tool bash {"command":"echo x"}]];;[[noise]] [[unknown]] [[say {result}]]',
               BEGIN + ["message", "use bash", "end", "result", "start"] + END))
        kept = [b for m in s.mock.requests()[-1]["body"]["messages"] for b in m["content"] if b["type"] == "mock_novelty"]
        assert kept == [{"type": "mock_novelty", "data": {"b": [1, 2.5, None], "a": "\u00e9"}}] * 2, kept


unknown_blocks.only = ["anthropic"]


@test
def five_calls_at_once(tmp, serve, provider):
    calls = " | ".join(f'bash {{"command":"sleep 0.{5 - i}; echo call {i}"}}' for i in range(5))
    with Scene(tmp, serve, provider) as s:
        ev = s.run((f"[[tools {calls}]];;[[say {{result}}]]", BEGIN + 5 * ["use bash"] + ["end"] + 5 * ["result"] + ["start"] + END))
        assert [r.strip() for r in results(ev)] == [f"call {i}" for i in range(5)], results(ev)
        uses = [e["id"] for e in ev if e["type"] == "agent.tool_use"]
        assert [e["tool_use_id"] for e in ev if e["type"] == "agent.tool_result"] == uses, "the order of the calls"


BROKEN = BEGIN + ["use bash", "end", "result!", "start"] + END


@test
def broken_tool_input(tmp, serve, provider):
    """The turn goes on with an error result that the model can read; no retry."""
    def judge(w, ev):
        use = [e for e in ev if e["type"] == "agent.tool_use"][0]
        assert isinstance(use["input"], dict), use
        none = any("[[badtool bash null]]" in e["content"][0]["text"] for e in ev if e["type"] == "user.message")  # some servers say it for no arguments
        assert ("required" if none else "JSON") in results(ev)[0], results(ev)
        assert said(ev) == ["Result: " + ("Error: " if provider == "openai" else "") + results(ev)[0]], said(ev)
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[badtool bash {how}]]", BROKEN, judge) for how in ("", "[1,2]", '"command"', "42", "null", '{"command":"true"}}', "{command:true}",
                                                                         '{"command":"\\ud800"}', "not json")])


@test
def broken_tool_input_beside_a_good_one(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        ev = s.run(('[[say both]] [[badtool bash]] [[tool bash {"command":"echo good"}]]',
                    BEGIN + ["message", "use bash", "use bash", "end", "result!", "result", "start"] + END))
        assert results(ev)[1].strip() == "good", results(ev)


@test
def broken_input_of_a_custom_tool(tmp, serve, provider):
    """The client is not asked to make sense of it."""
    with Scene(tmp, serve, provider) as s:
        s.run(("[[badtool lookup]]", BEGIN + ["use lookup", "end", "result!", "start"] + END))


@test
def unknown_tool(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        ev = s.run(('[[tool nosuch {"a":1}]]', BEGIN + ["use nosuch", "end", "result!", "start"] + END))
        use = [e for e in ev if e["type"] == "agent.tool_use"]
        assert use and use[0]["evaluated_permission"] == "deny" and "evaluation" not in use[0], use
        assert results(ev) == ["Permission to use nosuch has been denied."], results(ev)


@test
def empty_reply(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        s.run(("[[empty]]", BEGIN + ["end", "idle end_turn"]), ("[[say  ]]", BEGIN + ["end", "idle end_turn"]),
              ('[[tool bash {"command":"echo x"}]];;[[empty]]', BEGIN + ["use bash", "end", "result", "start", "end", "idle end_turn"]),
              ("[[max]]", BEGIN + ["end", "idle end_turn"]))


@test
def refusal(tmp, serve, provider):
    def details(category, explanation, text=None):
        def judge(w, ev):
            d = ev[-1]["stop_details"]
            assert d["type"] == "refusal" and set(d) == {"type", "category", "explanation"}, d
            assert d["category"] == category and (explanation is any or d["explanation"] == explanation), d
            assert said(ev) == ([text] if text else []), said(ev)
        return judge

    def in_its_field(w, ev):  # shown as text or not, it is the explanation
        assert ev[-1]["stop_reason"]["type"] == "refusal" and shape(ev)[-2:] == ["end", "idle refusal"], shape(ev)
        assert ev[-1]["stop_details"] == {"type": "refusal", "category": None, "explanation": "I cannot help with that."}, ev[-1]
    plain, partial = BEGIN + ["end", "idle refusal"], BEGIN + ["message", "end", "idle refusal"]
    with Scene(tmp, serve, provider) as s:
        if provider == "anthropic":
            s.run(("[[refuse]]", plain, details("cyber", "declined by the mock")),
                  ("[[refuse bio We do not talk about this.]]", plain, details("bio", "We do not talk about this.")),
                  ("[[say Well,]] [[refuse general_harms No.]]", partial, details("general_harms", "No.", "Well,")))
        else:
            s.run(("[[refuse]]", plain, details(None, any)), ("[[say Well,]] [[refuse]]", partial, details(None, any, "Well,")),
                  ("[[refusal I cannot help with that.]]", None, in_its_field))


@test
def refusal_with_a_call(tmp, serve, provider):
    """What a refused reply calls is not run, no call stays open, and the history is one that the provider takes."""
    def judge(w, ev):
        assert ev[-1]["stop_reason"]["type"] == "refusal" and "start" not in shape(ev)[3:], shape(ev)
        assert all(e.get("is_error") for e in ev if e["type"] in ("agent.tool_result", "user.custom_tool_result")), ev
    with Scene(tmp, serve, provider) as s:
        s.run(('[[say Well,]] [[tool bash {"command":"touch /tmp/ran"}]] [[refuse]]', None, judge),
              ('[[say Well,]] [[tool lookup {"q":"x"}]] [[refuse]]', None, judge))


@test
def big_tool_input(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        ev = s.run(('[[tool write {"file_path":"/workspace/big","content":"{bytes 2000000}"}]];;'
                    '[[tool bash {"command":"wc -c < /workspace/big"}]];;[[say {result}]]',
                    BEGIN + ["use write", "end", "result", "start", "use bash", "end", "result", "start"] + END))
        assert said(ev)[0].strip() == "2000000", (said(ev), results(ev))


@test
def big_text(tmp, serve, provider):
    def judge(w, ev):
        assert len(said(ev)[0]) == 2000000, len(said(ev)[0])
    with Scene(tmp, serve, provider) as s:
        s.previews = False  # of so many small ones this reader would be too slow a one
        s.run(("[[say {bytes 2000000}]]", BEGIN + END, judge), ("[[split 4000]] [[say {bytes 2000000}]]", BEGIN + END, judge))


@test
def thinking(tmp, serve, provider):
    """Kept across tool calls as the provider demands: signed, in its place; of chat completions in the field it came in."""
    text = '[[think Gr\u00fcbeln]] [[say so]] [[tool bash {"command":"echo x"}]];;[[think more]] [[redacted]] [[say {result}]]'
    want = BEGIN + ["thinking", "message", "use bash", "end", "result", "start", *(2 if provider == "anthropic" else 1) * ["thinking"]] + END

    def judge(w, ev):
        assert all(set(e) == {"id", "type", "processed_at"} for e in ev if e["type"] == "agent.thinking")
        started = [e["event"]["id"] for e in w.stream.events if e["type"] == "event_start" and e["event"]["type"] == "agent.thinking"]
        assert started == [e["id"] for e in ev if e["type"] == "agent.thinking"], "each is previewed"
    with Scene(tmp, serve, provider) as s:
        s.run((text, want, judge), ("[[split 1]] " + text, want, judge), ("[[noise]] " + text, want, judge))
        last = s.mock.requests()[-1]["body"]["messages"]
        if provider == "anthropic":
            blocks = [b for m in last if m["role"] == "assistant" for b in m["content"]]
            kinds = [b["type"] for b in blocks]
            assert kinds == ["thinking", "text", "tool_use", "redacted_thinking", "thinking", "text"], kinds
            assert blocks[0]["thinking"] == "Gr\u00fcbeln" and blocks[0]["signature"], blocks[0]
        else:
            answers = [m for m in last if m["role"] == "assistant"]
            assert answers[0]["tool_calls"] and answers[0]["reasoning_content"] == "Gr\u00fcbeln" and answers[0]["content"] == "so", answers


@test
def max_tokens(tmp, serve, provider):
    """What came counts; a call that is cut off is none."""
    with Scene(tmp, serve, provider) as s:
        ev = s.run(("[[say part]] [[max]]", BEGIN + END), ("[[say part]] [[badtool bash]] [[max]]", BEGIN + END),
                   ('[[say part]] [[tool bash {"command":"echo whole"}]] [[badtool bash]] [[max]]',
                    BEGIN + ["message", "use bash", "end", "result", "start"] + END))
        assert said(ev) == ["part"], said(ev)


@test
def pause_turn(tmp, serve, provider):
    """The reply goes back, and the model goes on."""
    with Scene(tmp, serve, provider) as s:
        ev = s.run(("[[say one]] [[pause]];;[[say two]] [[pause]];;[[say three]]", BEGIN + ["message", "end", "start", "message", "end", "start"] + END))
        assert said(ev) == ["one", "two", "three"], said(ev)
        assert s.mock.requests()[1]["body"]["messages"][-1]["role"] == "assistant"


pause_turn.only = ["anthropic"]


@test
def usage_of_failed_requests(tmp, serve, provider):
    """Tokens that a request cost before it failed are counted, once."""
    with Scene(tmp, serve, provider) as s:
        ev = s.run(("[[die eof mid x1]] [[usage in=100 out=7 read=30]] [[say a text of some length]]",
                    BEGIN + ["end!", "error model_request_failed_error retrying", "rescheduled", "running", "start"] + END))
        ends = [e["model_usage"] for e in ev if e["type"] == "span.model_request_end"]
        total = [e for e in ev if e["type"] == "session.usage"][-1]["usage"]
        for a, b in (("input_tokens", "input_tokens"), ("output_tokens", "output_tokens"), ("cache_read_input_tokens", "cache_read_input_tokens")):
            assert total[a] == sum(u[b] for u in ends), (a, total, ends)
        assert ends[-1]["input_tokens"] == 100 and ends[-1]["output_tokens"] == 7 and ends[-1]["cache_read_input_tokens"] == 30, ends


@test
def no_key_where_it_does_not_belong(tmp, serve, provider):
    """The provider quotes the key in its refusal: it is in no event and no log."""
    with Scene(tmp, serve, provider) as s:
        s.mock.stop()
        s.mock = type(s.mock)(s.mock.port)
        s.run((f"[[error 401 type {SECRET}]]", BEGIN + ["end!", "error model_request_failed_error exhausted", "idle retries_exhausted"]))
        assert SECRET not in s.s.stderr()
