"""What must hold after a crash: the event lists compared with the client's log and the tools' own counts.

judge(log, settled, final, runs, ...) returns the complaints, [] when all is well. The log is what the client
had when the process died (and what it got after the restart); settled is each session as it was when it had
finished by itself; final is each session after the client went on. No process is run here.
"""
import json
from collections import defaultdict

INTERRUPTED = "Tool execution was interrupted before completion. Please retry."
TOOL_USES = ("agent.tool_use", "agent.custom_tool_use")
RESULTS = {"agent.tool_result": "tool_use_id", "user.custom_tool_result": "custom_tool_use_id"}


def text_of(event):
    return "\n".join(b.get("text", "") for b in event.get("content") or [])


def short(event):
    return f"{event['type']} {event.get('id', '?')[-6:]}"


class Session:
    """One session's facts: what its client saw and sent, what the lists say, what its tools did."""

    def __init__(self, sid):
        self.id, self.scenario = sid, "?"
        self.sent, self.seen, self.previews = [], [], []   # seen: a list for each life of the server
        self.settled = self.final = None                         # {"session", "events", "threads": {id: thread}}
        self.children = defaultdict(list)                        # thread: a list for each life, of its own stream
        self.runs = []                                           # (tool, key, event, attempt)
        self.bad = []

    def complain(self, text):
        self.bad.append(f"{self.scenario} {self.id[-6:]}: {text}")


def read(log, out, runs):
    sessions = {}
    get = lambda sid: sessions.setdefault(sid, Session(sid))
    life = 0
    for line in log.splitlines():
        try:
            j = json.loads(line)
        except json.JSONDecodeError:
            continue  # a write that a kill cut: the client did not have it whole
        if j["k"] == "resumed":
            life += 1
        elif j["k"] == "made":
            get(j["session"]).scenario = j["scenario"]
        elif j["k"] == "sent":
            get(j["session"]).sent += j["reply"]["data"]
        elif j["k"] == "event":
            s = get(j["session"])
            while len(s.seen) <= life:
                s.seen.append([])
            s.seen[life].append(j["data"])
            if j["data"]["type"].startswith("span.model_request"):
                s.previews.append((life, j["data"]))
        elif j["k"] == "thread_event":
            seen = get(j["session"]).children[j["thread"]]
            while len(seen) <= life:
                seen.append([])
            seen[life].append(j["data"])
        elif j["k"] == "preview":
            get(j["session"]).previews.append((life, j["data"]))
    for line in out.splitlines():
        j = json.loads(line)
        s = get(j["session"]["id"])
        if j["events"]["next_page"] or any(t["events"]["next_page"] for t in j["threads"]):
            s.complain("a list of this size has a second page")
        threads = {t["id"]: {"status": t["status"], "events": t["events"]["data"]} for t in j["threads"]}
        setattr(s, "settled" if j["k"] == "settled" else "final",
                {"session": j["session"], "events": j["events"]["data"], "threads": threads})
    for line in runs.splitlines():
        fields = line.split()
        if len(fields) == 6:
            _, tool, sid, key, event, attempt = fields
            get(sid).runs.append((tool, key, event, int(attempt)))
    return sessions


# ---- the log against the list


def acknowledged(s):
    events = s.final["events"]
    listed = {e["id"]: e for e in events}
    if len(listed) != len(events):
        twice = [e for i, e in enumerate(events) if any(f["id"] == e["id"] for f in events[:i])]
        s.complain(f"twice in the list: {', '.join(map(short, twice))}")
    for e in s.sent:
        if e["type"] == "user.interrupt" and e["processed_at"]:
            continue  # accepted, and nothing to interrupt: not stored
        got = listed.get(e["id"])
        if not got:
            s.complain(f"acknowledged and lost: {short(e)}")
        elif {k: v for k, v in got.items() if k != "processed_at"} != {k: v for k, v in e.items() if k != "processed_at"}:
            s.complain(f"acknowledged as something else: {short(e)}")
    order = [e["id"] for e in events if e["type"] == "user.message"]
    sent = [e["id"] for e in s.sent if e["type"] == "user.message" and e["id"] in listed]
    if [i for i in order if i in sent] != sent:
        s.complain("messages are not in the order in which they were sent")


def streamed(s):
    events = s.final["events"]
    place = {e["id"]: i for i, e in enumerate(events)}
    for life, seen in enumerate(s.seen):
        for e in seen:
            if e["id"] not in place:
                s.complain(f"published and lost: {short(e)}")
            elif events[place[e["id"]]] != e:
                s.complain(f"published as something else: {short(e)}")
        places = [place[e["id"]] for e in seen if e["id"] in place]
        if not places:
            continue
        first = 0 if life == 0 else places[0]
        if places != list(range(first, first + len(places))):
            s.complain(f"the stream does not show the list without gaps, in order: {places}")


def previewed(s):
    final = {e["id"]: e for e in s.final["events"]}
    cut = {e["model_request_start_id"] for e in s.final["events"] if e.get("model_request_start_id") and e["is_error"]}
    texts, life, span = {}, 0, None
    for at, e in s.previews:
        if at != life:
            life, span, texts = at, None, {}
        if e["type"] == "span.model_request_start":
            span = e["id"]
        elif e["type"] == "span.model_request_end":
            span = None
        elif e["type"] == "event_start":
            if not span:
                s.complain("a preview before the start of its request")
            texts[e["event"]["id"]] = ""
            if span in cut and e["event"]["id"] in final:
                s.complain(f"the id of a reply that was cut is used again: {short(final[e['event']['id']])}")
        else:
            eid = e["event_id"]
            if eid not in texts:
                s.complain("a delta without its start")
                continue
            texts[eid] += e["delta"]["content"]["text"]
            if eid in final and not text_of(final[eid]).startswith(texts[eid]):
                s.complain(f"the preview of {short(final[eid])} is no prefix of it")


# ---- the list in itself


def times(s, events):
    last = ""
    for e in events:
        if not e["processed_at"]:
            s.complain(f"not processed: {short(e)}")
            continue
        if e["processed_at"] <= last:
            s.complain(f"processed_at does not rise: {short(e)} {e['processed_at']} after {last}")
        last = e["processed_at"]


class Grammar:
    """Walks a list and says where it is not what a session may do."""

    def __init__(self, s, events):
        self.s, self.events = s, events
        self.running, self.blocked, self.span = False, False, None
        self.open = {}            # tool uses without result, in order
        self.batch = []           # tool uses of the latest reply
        self.verdict = {}
        self.said = []            # results of the latest batch

    def complain(self, text, e):
        self.s.complain(f"{text}: {short(e)}")

    def walk(self):
        for i, e in enumerate(self.events):
            before = self.events[i - 1]["type"] if i else ""
            after = self.events[i + 1]["type"] if i + 1 < len(self.events) else ""
            self.one(e, before, after)
        if self.events and self.events[-1]["type"] != "session.status_idle":
            self.complain("the list does not end with an idle", self.events[-1])
        if self.running:
            self.s.complain("the session never became idle")

    def one(self, e, before, after):
        t = e["type"]
        if t == "session.status_running":
            if self.running:
                self.complain("runs already", e)
            if after != "session.thread_status_running":
                self.complain("not followed by its thread", e)
            self.running, self.blocked = True, False
        elif t == "session.thread_status_idle" and after != "session.usage":
            self.complain("not followed by usage", e)
        elif t == "session.usage" and (before, after) != ("session.thread_status_idle", "session.status_idle"):
            self.complain("not between the two idles", e)
        elif t == "session.status_idle":
            self.idle(e, before)
        elif t == "session.status_rescheduled":
            self.running = False
        elif t.startswith("span.model_request"):
            self.span_event(e)
        elif t in ("agent.message", "agent.thinking") + TOOL_USES:
            self.content(e)
        elif t in RESULTS:
            self.result(e)
        elif t == "user.tool_confirmation":
            self.verdict[e["tool_use_id"]] = e["result"]
        elif t == "user.message" and (not self.running or self.span):
            self.complain("taken at the wrong moment", e)

    def idle(self, e, before):
        reason = e["stop_reason"]
        if before != "session.usage" or self.span:
            self.complain("idle at the wrong moment", e)
        waits = [i for i, u in self.open.items() if i not in self.verdict]
        if reason["type"] == "requires_action":
            if reason["event_ids"] != waits or not waits:
                self.complain(f"waits for {reason['event_ids']}, not {waits}", e)
            self.blocked = True
        else:
            if self.open:
                self.complain(f"ends with open calls {list(self.open)}", e)
            self.blocked = False
        self.running = False

    def span_event(self, e):
        if e["type"] == "span.model_request_start":
            if self.span or not self.running or self.open:
                self.complain("a request at the wrong moment", e)
            self.span, self.batch_new = e["id"], []
            ends = [f for f in self.events if f.get("model_request_start_id") == e["id"]]
            if len(ends) != 1:
                self.complain(f"{len(ends)} ends", e)
            self.fails = bool(ends) and ends[0]["is_error"]
        else:
            if self.span != e["model_request_start_id"]:
                self.complain("ends no open request", e)
            self.span = None
            self.batch = self.batch_new

    def content(self, e):
        if not self.span or self.fails:
            self.complain("outside a request that succeeded", e)
        if e["type"] in TOOL_USES:
            self.open[e["id"]] = e
            self.batch_new.append(e["id"])
            self.said = []
        elif e["type"] == "agent.message":
            self.told(e)

    def told(self, e):
        said = "Results: " + "\n".join(t for _, t in sorted(self.said))
        if text_of(e).startswith("Results: ") and text_of(e) != said:
            self.complain(f"the model was not told what the tools said ({said[:200]!r}, not {text_of(e)[:200]!r})", e)

    def result(self, e):
        use = e[RESULTS[e["type"]]]
        if use not in self.open or self.span or not (self.running or self.blocked):
            self.complain("a result at the wrong moment", e)
            return
        self.said.append((self.batch.index(use), text_of(e)))
        del self.open[use]


# ---- the tools


def key_of(use):
    given = use["input"]
    return given.get("key") or next(iter(given.values()), "none").split()[-1]


def everywhere(which):
    """The events of all lists; what is on two comes as the thread's own has it."""
    own = [e for t in which["threads"].values() for e in t["events"]]
    ids = {e["id"] for e in own}
    return [e for e in which["events"] if e["id"] not in ids] + own


def executed(s, interrupts, sandbox_gone, tools_gone, kept):
    events = everywhere(s.final)
    uses = {e["id"]: e for e in events if e["type"] in TOOL_USES}
    results = {e[RESULTS[e["type"]]]: e for e in events if e["type"] in RESULTS}
    count = defaultdict(list)
    for tool, key, event, attempt in s.runs:
        count[tool, key].append((event, attempt))
        if event not in uses:
            s.complain(f"{tool} {key} ran, and its call is not in the list")
    for (tool, key), runs in count.items():
        if tool != "lookup" and len(runs) > 1:
            s.complain(f"{tool} {key} was executed {len(runs)} times")
        tries = [a for _, a in runs]  # one may be missing: a crash between the intent and the start
        if tries != sorted(set(tries)):
            s.complain(f"{tool} {key}: attempts {tries}")
    for uid, use in uses.items():
        res, n = results.get(uid), len(count[use["name"], key_of(use)])
        cut = bool(res) and text_of(res) == INTERRUPTED
        if not res:
            s.complain(f"no result: {short(use)}")
        elif cut != bool(res.get("is_error")) and "denied" not in text_of(res):
            s.complain(f"is_error does not fit {text_of(res)!r}")
        elif cut and key_of(use) in kept:
            s.complain(f"the result of {key_of(use)} was durable, and is gone")
        elif cut and not interrupts:
            if use["name"] == "lookup" and not tools_gone:
                s.complain("an idempotent handler was not run again")
            if use["name"] in ("bash", "write") and n and not sandbox_gone:
                s.complain("a command's result was thrown away")
        elif text_of(res).startswith("done:") and use["name"] != "ask_human":
            said, big = text_of(res).split("\n")[0], key_of(use).startswith("big")
            if said != "done:" + key_of(use) and not tools_gone:
                s.complain(f"a result of another call: {said!r}")
            if big and f"The whole output is in /tmp/tool_output/{uid}.txt" not in text_of(res):
                s.complain("a large result is not in a file")
            if n == 0 and not tools_gone:
                s.complain(f"a result of a call that never ran: {text_of(res)!r}")


def totals(s, which):
    events, row = which["events"], which["session"]
    if row["status"] != "idle":
        s.complain(f"the session is {row['status']}")
    for name in ("input_tokens", "output_tokens"):
        n = sum((e.get("model_usage") or e["usage"])[name] for e in everywhere(which)
                if e["type"] in ("span.model_request_end", "span.outcome_evaluation_end"))
        if row["usage"][name] != n:
            s.complain(f"usage.{name} is {row['usage'][name]}, the requests add up to {n}")


def by_itself(s):
    """What the client had answered before the crash must not be asked again, nor wait."""
    events = s.settled["events"]
    n = len(events)
    if s.final["events"][:n] != events:
        s.complain("the list changed behind what was there")
    if not events or events[-1].get("stop_reason", {}).get("type") != "requires_action":
        return
    done = {e.get("tool_use_id") or e.get("custom_tool_use_id") for e in events if e["type"].startswith("user.")}
    left = [i for i in events[-1]["stop_reason"]["event_ids"] if i in done]
    if left:
        s.complain(f"waits for answers that were given: {left}")


# ---- outcomes


def graded(s, events):
    """Each evaluation has one end, and the turn goes on until there is a last one."""
    starts = [e for e in events if e["type"] == "span.outcome_evaluation_start"]
    ends = [e for e in events if e["type"] == "span.outcome_evaluation_end"]
    defined = [e["outcome_id"] for e in events if e["type"] == "user.define_outcome"]
    for e in starts:
        n = [x for x in ends if x["outcome_evaluation_start_id"] == e["id"]]
        if len(n) != 1:
            s.complain(f"{len(n)} ends: {short(e)}")
    for e in events:
        if e["type"].startswith("span.outcome_evaluation") and e["outcome_id"] not in defined:
            s.complain(f"of another outcome: {short(e)}")
    if [e["iteration"] for e in starts] != list(range(len(starts))):
        s.complain(f"iterations {[e['iteration'] for e in starts]}")
    results = [e["result"] for e in ends]
    waits = None
    for e in events:
        if e["type"] == "span.outcome_evaluation_end":
            waits = e if e["result"] == "needs_revision" else None
        elif e["type"] == "agent.message":
            waits = None
        elif e["type"] == "span.outcome_evaluation_start" and waits:
            s.complain(f"nothing was revised after {short(waits)}")
    if defined and (not results or results[:-1] != ["needs_revision"] * (len(results) - 1) or results[-1] not in
                    (("interrupted", "satisfied") if s.scenario == "ungraded" else ("satisfied",))):
        s.complain(f"graded as {results}")
    row = [(o["outcome_id"], o["result"]) for o in s.final["session"]["outcome_evaluations"]]
    if row != [(d, r) for d, r in zip(defined, results[-1:])]:
        s.complain(f"the session's outcomes are {row}, not {defined} {results[-1:]}")


def judge(log, out, runs, sandbox_gone=False, tools_gone=False, kept=()):
    import family  # which is built on this file
    bad = []
    for s in read(log, out, runs).values():
        if not s.final or not s.settled:
            s.complain("acknowledged and not listed")
        else:
            acknowledged(s)
            streamed(s)
            previewed(s)
            for which in (s.settled, s.final):
                times(s, which["events"])
                totals(s, which)
            if s.final["threads"] or s.scenario.startswith("family"):
                family.check(s, s.final)
                family.followed(s)
            else:
                Grammar(s, s.final["events"]).walk()
            graded(s, s.final["events"])
            cut = s.scenario in ("cut", "unblock", "interrupt", "ungraded", "compact_cut", "spill_cut", "family_cut")
            executed(s, cut, sandbox_gone, tools_gone, kept)
            by_itself(s)
            if s.final["events"] and s.final["events"][-1]["type"] == "session.status_idle" and \
                    not any("last words" in text_of(e) for e in s.final["events"] if e["type"] == "agent.message"):
                s.complain("the last message was not answered")
        bad += s.bad
    return bad
