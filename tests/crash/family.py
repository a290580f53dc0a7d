"""What must hold of a session with several threads: each thread's list in itself, the session's list as the sum of them,
and what stands on both. Built on check.py, which calls check() and followed().
"""
from check import Grammar, everywhere, short, times

STATUS = "session.thread_status_"


class Thread(Grammar):
    """One thread's own events. tid None: the primary's, in the list of a session that has others."""

    def one(self, e, before, after):
        t = e["type"]
        if t == STATUS + "running":
            if self.running:
                self.complain("runs already", e)
            self.running, self.blocked = True, False
        elif t == STATUS + "idle":
            self.stops(e)
        elif t in (STATUS + "rescheduled", STATUS + "terminated"):
            if self.span:
                self.complain("stops inside a request", e)
            self.running = False
        elif t == "agent.thread_message_sent" and "to_agent_name" not in e:
            self.told(e)
        elif not t.startswith("session."):
            super().one(e, before, after)

    def stops(self, e):
        waits = [i for i in self.open if i not in self.verdict]
        reason = e["stop_reason"]
        if self.span:
            self.complain("idle inside a request", e)
        self.running, self.blocked = False, reason["type"] == "requires_action"
        if self.blocked and (reason["event_ids"] != waits or not waits):
            self.complain(f"waits for {reason['event_ids']}, not {waits}", e)
        if not self.blocked and self.open:
            self.complain(f"ends with open calls {list(self.open)}", e)

    def finish(self, name):
        if self.running or self.blocked or self.span or self.open:
            self.s.complain(f"thread {name} has not ended: {self.running} {self.blocked} {self.span} {list(self.open)}")


def is_copy(e, children):
    return e.get("session_thread_id") in children


def check(s, which):
    children = which["threads"]
    both = (STATUS, "agent.tool_use", "agent.custom_tool_use", "user.")
    primary = [e for e in which["events"] if not is_copy(e, children)]
    parts = [(None, primary)] + [(tid, t["events"]) for tid, t in children.items()]
    for tid, events in parts:
        g = Thread(s, events)
        for e in events:
            g.one(e, "", "")
        g.finish(tid or "primary")
    created = [e["session_thread_id"] for e in which["events"] if e["type"] == "session.thread_created"]
    if created != list(children):
        s.complain(f"created {created}, and there are {list(children)}")
    for tid, t in children.items():
        times(s, t["events"])
        copies = {e["id"] for e in which["events"] if is_copy(e, {tid}) and e["type"].startswith(both)}
        own = [e for e in t["events"] if e["type"].startswith(STATUS)]
        seen = [e for e in which["events"] if is_copy(e, {tid}) and e["type"].startswith(STATUS)]
        timeless = lambda rows: [{k: v for k, v in e.items() if k != "processed_at"} for e in rows]
        if timeless(own) != timeless(seen):
            s.complain(f"the two streams differ: {[short(e) for e in own]}, {[short(e) for e in seen]}")
        if copies - {e["id"] for e in t["events"]}:
            s.complain(f"on the session's stream, and not on the thread's: {copies}")
        last = own[-1]["type"] if own else "none"
        if STATUS + t["status"] != last:
            s.complain(f"thread is {t['status']}, its last row {last}")
    mail(s, which)
    shared(s, which)


def mail(s, which):
    """What was sent was received, once, in order; an advisor's question and advice are only received."""
    lists = {None: which["events"], **{tid: t["events"] for tid, t in which["threads"].items()}}
    advisor = [e["session_thread_id"] for e in which["events"]
               if e["type"] == "session.thread_created" and e["agent_name"] == "anthropic.advisor"]
    for tid in lists:
        if tid is None or tid in advisor:
            continue
        for at, to, peer in ((None, tid, "to"), (tid, None, "from")):
            sent = [e["content"] for e in lists[at] if e["type"] == "agent.thread_message_sent" and
                    (at is not None or e["to_session_thread_id"] == tid)]
            got = [e["content"] for e in lists[to] if e["type"] == "agent.thread_message_received" and
                   (to is not None or e["from_session_thread_id"] == tid)]
            if sent != got:
                s.complain(f"sent {sent}, received {got}")
    prompts = [str(e["content"]) for e in which["events"] if e["type"] == "agent.thread_message_sent"]
    if len(prompts) != len(set(prompts)):
        s.complain(f"an agent was started twice: {prompts}")
    ended = [e for e in everywhere(which) if e["type"] == "agent.thread_message_sent" and "to_agent_name" not in e]
    if s.scenario not in ("family_cut", "family_dies", "advised") and len(ended) != len(which["threads"]):
        s.complain(f"{len(which['threads'])} agents, {len(ended)} reports")


def shared(s, which):
    """The session's status is what its threads' add up to."""
    state, session, waits = {}, "idle", {}
    for e in which["events"]:
        t = e["type"]
        if t.startswith(STATUS):
            state[e["session_thread_id"]] = t[len(STATUS):]
            waits[e["session_thread_id"]] = (e.get("stop_reason") or {}).get("event_ids", [])
        elif t == "session.status_running":
            if session == "running":
                s.complain(f"runs already: {short(e)}")
            session = "running"
        elif t == "session.status_idle":
            session = "idle"
            if "running" in state.values() or "rescheduled" in state.values():
                s.complain(f"idle while a thread runs: {short(e)} {state}")
            asked = sorted(i for w in waits.values() for i in w)
            if sorted(e["stop_reason"].get("event_ids", [])) != asked:
                s.complain(f"waits for {e['stop_reason']}, its threads for {asked}")
        elif t == "session.status_rescheduled":
            session = "rescheduled"
            if "running" in state.values() or "rescheduled" not in state.values():
                s.complain(f"rescheduled at the wrong moment: {short(e)} {state}")
    if not which["events"] or which["events"][-1]["type"] != "session.status_idle":
        s.complain("the list does not end with an idle")


def followed(s):
    """What a client saw of a child's own stream is in its list, the same and without gaps."""
    for tid, lives in s.children.items():
        events = s.final["threads"].get(tid, {"events": []})["events"]
        place = {e["id"]: i for i, e in enumerate(events)}
        for seen in lives:
            if any(e["id"] not in place or events[place[e["id"]]] != e for e in seen):
                s.complain(f"published on thread {tid} and lost, or changed: {[short(e) for e in seen]}")
                continue
            places = [place[e["id"]] for e in seen]
            if places != list(range(places[0], places[0] + len(places))) if places else False:
                s.complain(f"thread {tid}: the stream does not show the list without gaps: {places}")
