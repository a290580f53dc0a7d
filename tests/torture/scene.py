"""What the tests of this directory share: a server whose provider is the model server of tests/mock, sessions that are
watched while they run, and what must hold of every event list, whatever the provider did.

A shape is an event list in short words, which the tests compare: "running", "user", "start", "message", "use bash",
"end" ("end!" of a request that failed), "result" ("result!"), "error TYPE RETRY_STATUS", "rescheduled", "idle REASON".
Groups that belong together (both running events, both rescheduled ones, the three of an idle) are one word, and a
group that is not whole is a failure.
"""
import importlib.util, json, os, subprocess, sys, time, urllib.request
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/serve"))
from kit import HEADERS, KEY, SLOW, Server, main, user  # noqa: E402, F401

_spec = importlib.util.spec_from_file_location("api_kit", TOP / "tests/api/kit.py")
_api = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_api)

LIMIT = 60 * SLOW
PACE = min(SLOW, 2)  # of what is timed here: a limit that a busy machine must not pass by itself
SECRET = "sk-upstream-0123456789abcdef"
MODELS = {"anthropic": "claude-torture", "openai": "gpt-torture"}
TOOLS = [{"type": "agent_toolset_20260401"},
         {"type": "custom", "name": "lookup", "description": "Looks up", "input_schema": {"type": "object"}}]


class Mock:
    """The model server, in a process of its own."""

    def __init__(self, port=0):
        self.p = subprocess.Popen([sys.executable, str(TOP / "tests/mock/messages.py"), "--key", SECRET, "--port", str(port)],
                                  stdout=subprocess.PIPE, text=True)
        self.port = int(self.p.stdout.readline().split()[1])

    def ask(self, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=LIMIT) as r:
            return r.read()

    def requests(self):
        """Those for a reply, in the order in which they came."""
        return [r for r in json.loads(self.ask("/requests")) if r["path"].endswith(("/messages", "/completions"))]

    def raw(self, n):
        return self.ask(f"/raw?n={n}")

    def live(self):
        return json.loads(self.ask("/count"))["live"]

    def count(self):
        return json.loads(self.ask("/count"))["count"]

    def script(self, *steps):
        self.ask("/script", list(steps))

    def stop(self):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()


class Scene:
    """A server with one provider, and an agent there. models, retries, config: Lua text of the provider's
    section, of the section, and of more sections."""

    def __init__(self, tmp, serve, provider, config="", retries="max = 2, base_ms = 20, cap_ms = 80", models="", scripts=(), tools=TOOLS):
        self.tmp, self.provider, self.mock, self.previews = tmp, provider, Mock(), True
        (tmp / "config.lua").write_text(f"return {{ models = {{ {provider} = {{ {models} }} }}, retries = {{ {retries} }}, context = {{ compact_at_tokens = 10000000 }}, {config} }}")
        name = provider.upper()
        try:
            self.s = serve("--config", str(tmp / "config.lua"), *scripts,
                           env={f"MOONRIG_{name}_BASE_URL": f"http://127.0.0.1:{self.mock.port}", f"MOONRIG_{name}_API_KEY": SECRET})
            self.agent = self.s.agent(model=MODELS[provider], tools=tools)
            self.environment = self.s.environment()
        except BaseException:
            self.mock.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.mock.stop()

    def session(self):
        return Watched(self, self.s.ok("POST", "/v1/sessions", {"agent": self.agent["id"], "environment_id": self.environment})["id"])

    def run(self, *turns):
        """Each (text, shape or None[, judge]) in a session of its own, all at the same time; each session goes on
        afterwards. judge(session, events of the turn)."""
        begun = []
        for text, *rest in turns:
            w = self.session()
            w.say(text)
            begun.append((w, text, *rest))
        done = []
        for w, text, want, *judge in begun:
            have = w.idle()
            if want:
                w.equal(want, text)
            for j in judge:
                j(w, have)
            w.goes_on()
            done.append(have)
        return done[0]


class Watched:
    """A session with its stream open, by default with previews."""

    def __init__(self, scene, sid):
        self.scene, self.s, self.id, self.at = scene, scene.s, sid, 0
        w = _api.World(f"http://127.0.0.1:{self.s.port}", KEY)
        query = "?event_deltas[]=agent.message&event_deltas[]=agent.thinking" if scene.previews else ""
        self.stream = _api.Stream(w, f"/v1/sessions/{sid}/events/stream{query}")
        assert self.stream.status == 200, self.stream.reply.body

    def send(self, *events):
        return self.s.ok("POST", f"/v1/sessions/{self.id}/events", {"events": list(events)})["data"]

    def say(self, *texts):
        return self.send(*[user(t) for t in texts])

    def events(self):
        return self.s.events(self.id)

    def status(self):
        return self.s.status(self.id)

    def until(self, what, fn):
        """fn(all that the stream said)."""
        return self.stream.until(fn, what, LIMIT)

    def idle(self):
        """The events that were recorded since the last call, up to the next idle."""
        def end(all_):
            return next((i + 1 for i in range(self.at, len(all_)) if all_[i]["type"] == "session.status_idle"), 0)
        all_ = self.until("an idle", end)
        begin, self.at = self.at, end(all_)
        self.turn = [e for e in all_[begin:self.at] if not e["type"].startswith("event_")]
        return self.turn

    def recorded(self):
        return [e for e in self.stream.events if not e["type"].startswith("event_")]

    def equal(self, want, what=""):
        have = shape(self.turn)
        assert have == want, f"{what}\n  have {' | '.join(have)}\n  want {' | '.join(want)}\n" + self.detail()

    def detail(self):
        return "\n".join(json.dumps(e, ensure_ascii=False)[:300] for e in self.turn if not e["type"].startswith("session.status"))

    def goes_on(self):
        """A next message is answered, and nothing that was recorded so far breaks a rule."""
        self.say("[[say still here]]")
        self.idle()
        self.equal(["running", "user", "start", "message", "end", "idle end_turn"], "the next message")
        assert said(self.turn) == ["still here"], said(self.turn)
        self.check()
        self.stream.close()

    def check(self):
        listed = self.events()
        assert self.recorded() == listed, "the stream and the list differ:\n" + "\n".join(
            f"{shape_word(a)} / {shape_word(b)}" for a, b in zip(self.recorded() + [None] * 9, listed + [None] * 9) if a != b)
        judge(listed)
        previews(self.stream.events)


def shape_word(e):
    return json.dumps(e)[:200] if e else "nothing"


USAGE = {"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"}


def judge(events):
    """What holds of every list of a session that is idle."""
    assert events[-1]["type"] == "session.status_idle", f"after the idle: {events[-1]}"
    ids = [e["id"] for e in events]
    assert len(set(ids)) == len(ids), "an id twice"
    times = [e["processed_at"] for e in events]
    assert all(times) and times == sorted(set(times)), "processed_at does not grow"
    open_ = None
    for e in events:
        if e["type"] == "span.model_request_start":
            assert open_ is None, "a request begins in another"
            open_ = e["id"]
        elif e["type"] == "span.model_request_end":
            assert open_ == e["model_request_start_id"], f"the end of no request: {e}"
            open_ = None
        elif e["type"].startswith("session.status") or e["type"] == "session.error":
            assert open_ is None, f"{e['type']} in a request"
        if e["type"] == "session.error":
            assert set(e["error"]) == {"type", "message", "retry_status"} and e["error"]["message"], e
            assert SECRET not in e["error"]["message"], e
        elif e["type"] == "span.model_request_end":
            assert USAGE <= set(e["model_usage"]) and all(e["model_usage"][k] >= 0 for k in USAGE), e
        elif e["type"].endswith("status_idle"):
            assert (e["stop_details"] is not None) == (e["stop_reason"]["type"] == "refusal"), e
    assert open_ is None, "a request without an end"
    uses = [e["id"] for e in events if e["type"] in ("agent.tool_use", "agent.custom_tool_use")]
    answered = [e.get("tool_use_id") or e.get("custom_tool_use_id") for e in events if e["type"] in ("agent.tool_result", "user.custom_tool_result")]
    assert sorted(uses) == sorted(answered), f"calls {uses} have the results {answered}"
    shape(events)


def previews(events):
    """A preview has one start, and is the beginning of its event, or of none when its request failed."""
    begun, final = {}, {e["id"]: e for e in events if "id" in e}
    for e in events:
        if e["type"] == "event_start":
            assert e["event"]["id"] not in begun, "a preview begins twice"
            begun[e["event"]["id"]] = {}
        elif e["type"] == "event_delta":
            d = e["delta"]
            got = begun[e["event_id"]]
            got[d.get("index", 0)] = got.get(d.get("index", 0), "") + d["content"]["text"]
    failed, current = set(), set()
    for e in events:
        if e["type"] == "event_start":
            current.add(e["event"]["id"])
        elif e["type"] == "span.model_request_end":
            failed |= current if e["is_error"] else set()
            current = set()
    for i, texts in begun.items():
        if i in failed:
            assert i not in final, "a preview of a failed request became an event"
            continue
        assert i in final, "a preview of which nothing came"
        for k, t in texts.items():
            assert final[i]["content"][k]["text"].startswith(t), (t[:80], final[i]["content"][k]["text"][:80])


GROUPS = [(["session.status_running", "session.thread_status_running"], lambda g: "running"),
          (["session.thread_status_rescheduled", "session.status_rescheduled"], lambda g: "rescheduled"),
          (["session.thread_status_idle", "session.usage", "session.status_idle"], lambda g: "idle " + g[2]["stop_reason"]["type"])]
WORDS = {"user.message": "user", "user.interrupt": "interrupt", "span.model_request_start": "start", "agent.message": "message",
         "agent.thinking": "thinking"}


def shape(events):
    out, i = [], 0
    while i < len(events):
        e = events[i]
        for types, word in GROUPS:
            if e["type"] in types:
                g = events[i:i + len(types)]
                assert [x["type"] for x in g] == types, f"{[x['type'] for x in g]}, not {types}"
                if "stop_reason" in g[0]:
                    assert g[0]["stop_reason"] == g[2]["stop_reason"] and g[0]["stop_details"] == g[2]["stop_details"], g
                out.append(word(g))
                i += len(types)
                break
        else:
            out.append(word_of(e))
            i += 1
    return out


def word_of(e):
    t = e["type"]
    if t in ("agent.tool_use", "agent.custom_tool_use"):
        return "use " + e["name"]
    if t in ("agent.tool_result", "user.custom_tool_result"):
        return "result!" if e.get("is_error") else "result"
    if t == "span.model_request_end":
        return "end!" if e["is_error"] else "end"
    if t == "session.error":
        return f"error {e['error']['type']} {e['error']['retry_status']['type']}"
    return WORDS.get(t, t)


def said(events):
    return ["".join(b["text"] for b in e["content"]) for e in events if e["type"] == "agent.message"]


def results(events):
    return ["".join(b.get("text", "") for b in e.get("content") or []) for e in events
            if e["type"] in ("agent.tool_result", "user.custom_tool_result")]


BEGIN = ["running", "user", "start"]
END = ["message", "end", "idle end_turn"]


def retry(kind):
    return ["end!", f"error {kind} retrying", "rescheduled", "running", "start"]


def once(kind, n=1):
    """Fails n times, then answers."""
    return BEGIN + n * retry(kind) + END


def spent(kind, n=2):
    """Fails until the retries are spent."""
    return BEGIN + n * retry(kind) + given_up(kind)


def given_up(kind):
    return ["end!", f"error {kind} exhausted", "idle retries_exhausted"]


def refused(kind):
    """Not worth a retry."""
    return BEGIN + given_up(kind)
