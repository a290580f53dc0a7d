#!/usr/bin/env python3
"""The model server of messages.py, for plays of several parts. Besides what that one knows:

    when REGEX do STEPS       a line of an agent's system prompt: what it answers, in steps as of a user's text, to
                              text that holds no directives itself and that REGEX is found in; the first line wins
    [[gate NAME]]             says nothing before GET /open/NAME was asked for (a gate stays open)
    [[verdicts A | B | ..]]   in a rubric: what the grader says when it is asked with it for the first, second, ..
                              time (the last again and again); each is "RESULT: EXPLANATION", after "@NAME " held
                              back by a gate, or "error STATUS". Its usage is in=2400 out=350 read=1800
    {thread}                  in [[say ..]]: the thread ids that the tool results at hand name

A request that offers the tool submit_verdict is a grader's. One without tools whose last text, or whose system
prompt, speaks of a summary is a compaction's: the answer is a summary that says how many messages it is of.

    GET /open/NAME            opens a gate
    GET /waiting              the gates that requests wait at, now
"""
import re
import sys
import threading
import urllib.parse

sys.dont_write_bytecode = True
import messages  # noqa: E402

WAIT = 60  # seconds at a gate that nobody opens
RULE = re.compile(r"^\s*when (.+?) do (\S.*)$", re.M)
VERDICTS = re.compile(r"\[\[verdicts (.*?)\]\]", re.S)
VERDICT = re.compile(r"(?:@(?P<gate>\S+)\s+)?(?:error (?P<status>\d+)|(?P<result>\w+):\s*(?P<why>.*))", re.S)


class Gates:
    def __init__(self):
        self.changed = threading.Condition()
        self.opened, self.waiting = set(), []

    def open(self, name):
        with self.changed:
            self.opened.add(name)
            self.changed.notify_all()

    def wait(self, name):
        with self.changed:
            self.waiting.append(name)
            self.changed.notify_all()
            self.changed.wait_for(lambda: name in self.opened, WAIT)
            self.waiting.remove(name)


GATES = Gates()


class Brain(messages.Brain):
    def __init__(self, state, body, *more):
        super().__init__(state, body, *more)
        self.tools = [t.get("name") for t in body.get("tools") or []]
        self.rules = RULE.findall(messages.text_of(body.get("system")))
        self.text = VERDICTS.sub("", self.text)  # those are the grader's, wherever else a rubric went
        # A text beside tool results counts when a rule is meant for it: a message that came while tools ran.
        for i in range(len(self.messages) - 1, self.at, -1):
            m = self.messages[i]
            text = VERDICTS.sub("", messages.text_of(m["content"]))
            if m["role"] == "user" and self.ruled(text):
                self.at, self.text = i, text
                self.turn = sum(1 for x in self.messages[i + 1:] if x["role"] == "assistant")
                break

    def ruled(self, text):
        return next((steps for regex, steps in self.rules if text and re.search(regex, text)), None)

    def plan(self):
        if "submit_verdict" in self.tools:
            return self.graded()
        if "[[" not in self.text:
            steps = self.ruled(self.text)
            if steps:
                self.text = steps
            elif self.compacting():
                p = messages.Plan()
                p.text("A summary of %d messages." % len(self.messages))
                p.stop = "end_turn"
                return p
        return super().plan()

    def compacting(self):
        last = messages.text_of(self.messages[-1]["content"]) if self.messages else ""
        return not self.tools and re.search("summar", last + messages.text_of(self.body.get("system")), re.I)

    def graded(self):
        texts = [messages.text_of(self.body.get("system"))] + [messages.text_of(m["content"]) for m in self.messages]
        found = VERDICTS.search("\n".join(texts))
        if not found and "[[verdict " in "\n".join(texts):
            return super().plan()
        p = messages.Plan()
        said = [x.strip() for x in found[1].split("|")] if found else ["satisfied: nothing to the contrary was said"]
        n = 0
        while n < len(said) - 1 and not self.state.play(("verdict", found[0], n), 1):
            n += 1
        m = VERDICT.fullmatch(said[n])
        if not m:
            raise messages.Refused(400, "mock: no verdict: " + said[n])
        if m["gate"]:
            GATES.wait(m["gate"])
        if m["status"]:
            status = int(m["status"])
            p.error = (status, messages.TYPES.get(status, "api_error"), {})
            return p
        p.blocks.append({"type": "tool_use", "id": messages.new_id("toolu", self.key, n), "name": "submit_verdict",
                         "input": {"result": m["result"], "explanation": m["why"].strip()}})
        p.stop, p.usage = "tool_use", {"in": 2400, "out": 350, "read": 1800, "write": 0}
        return p

    def fill(self, s):
        return super().fill(s.replace("{thread}", " ".join(re.findall(r"sthr_\w+", self.result_text()))))

    def directive(self, p, word, rest, n):
        if word == "gate":
            GATES.wait(rest)
        else:
            super().directive(p, word, rest, n)


class Handler(messages.Handler):
    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path.startswith("/open/"):
            GATES.open(path[6:])
            self.reply(200, {})
        elif path == "/waiting":
            with GATES.changed:
                names = list(GATES.waiting)
            self.reply(200, names)
        else:
            super().do_GET()


messages.Brain, messages.Handler = Brain, Handler
if __name__ == "__main__":
    messages.main()
