"""A session of 300 turns with tools: what the provider receives begins, byte for byte, with what it received before, so
that its prompt cache keeps hitting; and it does hit, by the rules of the real one."""
import hashlib, json, re

from scene import BEGIN, END, Scene

TESTS = []
TURNS = 300
TOOL = '''local rig = require "moonrig"
return rig.tool { name = "note", description = "Keeps a note", input_schema = { type = "object" },
  run = function(input) return "noted " .. tostring(input.text) end }'''
NOTE = [{"type": "custom", "name": "note", "description": "Keeps a note", "input_schema": {"type": "object"}},
        {"type": "agent_toolset_20260401"}]
MARK = re.compile(rb',?"cache_control":\{[^{}]*\}')


def test(fn):
    TESTS.append(fn)
    return fn


def blocks(body):
    """The request's blocks in the order in which the cache sees them: (identity, has a breakpoint)."""
    parts = [("tools", t) for t in body.get("tools") or []]
    system = body.get("system") or []
    parts += [("system", b) for b in ([{"type": "text", "text": system}] if isinstance(system, str) else system)]
    for i, m in enumerate(body["messages"]):
        parts += [(f"{i} {m['role']}", b) for b in ([{"type": "text", "text": m["content"]}] if isinstance(m["content"], str) else m["content"])]
    out = [[where + json.dumps({k: v for k, v in b.items() if k != "cache_control"}, sort_keys=True), "cache_control" in b] for where, b in parts]
    if "cache_control" in body:  # the request's own: a breakpoint on its last block
        out[-1][1] = True
    return out


class Cache:
    """The provider's prompt cache: a prefix is written at each breakpoint, and found when it ends at most 20 blocks
    before a breakpoint of a later request."""
    LOOKBACK = 20

    def __init__(self):
        self.written = set()

    def request(self, body):
        """How many blocks were read, how many lie before the last breakpoint, how many there are."""
        h, prefixes, marks = hashlib.sha256(str(body["model"]).encode()), [], []
        for i, (identity, mark) in enumerate(blocks(body)):
            h.update(identity.encode())
            prefixes.append(h.hexdigest())
            if mark:
                marks.append(i)
        assert 1 <= len(marks) <= 4, f"{len(marks)} breakpoints"
        read = max((i + 1 for m in marks for i in range(max(0, m - self.LOOKBACK + 1), m + 1) if prefixes[i] in self.written), default=0)
        self.written.update(prefixes[m] for m in marks)
        return read, marks[-1] + 1, len(prefixes)


def play(tmp, serve, provider, texts):
    """The bodies of all requests of one session that hears these texts, turn by turn."""
    (tmp / "note.lua").write_text(TOOL)
    with Scene(tmp, serve, provider, scripts=[str(tmp / "note.lua")], tools=NOTE) as s:
        w = s.session()
        for i, (text, want) in enumerate(texts):
            w.say(text)
            w.idle()
            w.equal(want, f"turn {i}")
        w.check()
        return [s.mock.raw(n + 1) for n in range(s.mock.count())]


def turn(i):
    if i % 7 == 3:
        return f"[[say turn {i} without a tool]]", BEGIN + END
    if i % 11 == 5:
        calls = " | ".join(f'note {{"text":"{i}.{k} gr\u00fc\u00df"}}' for k in range(4))
        return f"[[think about {i}]] [[tools {calls}]];;[[say {{result}}]]", \
            BEGIN + ["thinking"] + 4 * ["use note"] + ["end"] + 4 * ["result"] + ["start"] + END
    return f'[[say turn {i}]] [[tool note {{"text":"{i} \U0001f600", "more":{{"z":1.50,"a":[]}}}}]];;[[say {{result}}]]', \
        BEGIN + ["message", "use note", "end", "result", "start"] + END


def openai_turn(i):
    text, want = turn(i)
    return re.sub(r"\[\[think .*?\]\] ", "", text), [w for w in want if w != "thinking"]


def same_prefix(bodies):
    """Without its breakpoints, each request but for the closing brackets is the beginning of the next."""
    for n, (a, b) in enumerate(zip(bodies, bodies[1:])):
        a, b = MARK.sub(b"", a), MARK.sub(b"", b)
        assert a.endswith(b"]}"), a[-100:]
        if not b.startswith(a[:-2]):
            at = next(i for i, (x, y) in enumerate(zip(a, b)) if x != y)
            raise AssertionError(f"request {n + 2} differs from the one before at byte {at} of {len(a)}:\n  {a[at - 80:at + 80]}\n  {b[at - 80:at + 80]}")


def before_the_breakpoint(bodies):
    """As they were sent: what lies before the last breakpoint of a request, but for the breakpoints, begins the next one."""
    for n, (a, b) in enumerate(zip(bodies, bodies[1:])):
        marks = list(MARK.finditer(a))
        assert marks, f"request {n + 1} has no breakpoint"
        prefix = MARK.sub(b"", a[:marks[-1].start()])
        assert MARK.sub(b"", b).startswith(prefix), f"request {n + 2}"


@test
def three_hundred_turns(tmp, serve, provider):
    texts = [(turn if provider == "anthropic" else openai_turn)(i) for i in range(TURNS)]
    bodies = play(tmp, serve, provider, texts)
    assert len(bodies) > 1.7 * TURNS
    same_prefix(bodies)
    if provider == "anthropic":
        before_the_breakpoint(bodies)
        cache, last = Cache(), 0
        for n, body in enumerate(bodies):
            read, end, all_ = cache.request(json.loads(body))
            assert read >= last, f"request {n + 1} reads {read} blocks, though {last} were written just before"
            assert end == all_, f"request {n + 1}: what comes after the last breakpoint is not cached"
            last = end


@test
def many_calls_at_once(tmp, serve, provider):
    """A reply with more blocks than the cache looks back over costs the messages before it once; tools and system are
    found even then, and the request after it finds everything again."""
    calls = " | ".join(f'note {{"text":"{k}"}}' for k in range(15))
    many = f"[[tools {calls}]];;[[tools {calls}]];;[[say done]]", \
        BEGIN + 2 * (15 * ["use note"] + ["end"] + 15 * ["result"] + ["start"]) + END
    cache, last = Cache(), 0
    for n, body in enumerate(play(tmp, serve, provider, [turn(0), many, turn(1), many, turn(2)])):
        body = json.loads(body)
        read, end, _ = cache.request(body)
        near = end - last <= Cache.LOOKBACK
        assert read >= (last if near or n == 0 else len(body["tools"])), f"request {n + 1} of {end} blocks reads {read} of the {last} before"
        last = end


many_calls_at_once.only = ["anthropic"]
