"""kit.py - a plain runner: @test collects, run() runs in order and prints "ok NAME" or "not ok NAME" with details.

A test fails by raising, or by taking longer than its limit. Feed reads a stream in a thread of its own from the
moment it is made; until() waits for what is to come, never for a time.
"""
import os
import signal
import threading
import traceback

import anthropic

LIMIT = 60
URL, KEY, MODEL_URL = os.environ["SDK_URL"], os.environ["SDK_KEY"], os.environ["SDK_MODEL_URL"]
SANDBOX = bool(os.environ["SDK_SANDBOX"])
MODEL = "claude-opus-4-7"
BEGIN = ["session.status_running", "session.thread_status_running"]
TRIPLE = ["session.thread_status_idle", "session.usage", "session.status_idle"]
TESTS = []


def connect(cls=anthropic.Anthropic, **options):
    """A client whose every answer has to fit the SDK's models exactly."""
    return cls(**dict({"api_key": KEY, "base_url": URL, "_strict_response_validation": True}, **options))


client = connect()
beta = client.beta


def test(name):
    return lambda fn: TESTS.append((name, fn)) or fn


class Late(Exception):
    pass


def alarm(*_):
    raise Late("over the limit of %d s" % LIMIT)


def run(only):
    signal.signal(signal.SIGALRM, alarm)
    failed = 0
    for name, fn in TESTS:
        if only and not any(name.startswith(o) for o in only):
            continue
        signal.alarm(LIMIT)
        try:
            fn()
            signal.alarm(0)
            print("ok " + name, flush=True)
        except Exception as e:
            signal.alarm(0)
            failed += 1
            lines = traceback.format_exception(e)
            print("not ok %s\n%s" % (name, "".join("  " + x for x in "".join(lines).splitlines(True)[-28:])), flush=True)
    return failed


def same(got, want, what=""):
    assert got == want, "%s\n  got:  %r\n  want: %r" % (what, got, want)


def fails(cls, status, fn, *args, **kw):
    """The error that a call has to end with, looked at as far as all errors are alike."""
    try:
        value = fn(*args, **kw)
    except anthropic.APIStatusError as e:
        assert isinstance(e, cls), "%s is no %s: %s" % (type(e), cls, e)
        same(e.status_code, status)
        assert (e.request_id or "").startswith("req_"), e.request_id
        same(e.body["request_id"], e.request_id)
        assert e.type == e.body["error"]["type"] and len(e.body["error"]["message"]) > 8, e.body
        return e
    raise AssertionError("should have failed; it gave %r" % (value,))


def code_of(e):
    """The machine's word for an error: an attribute from 2.0 on, in the body before."""
    in_body = (e.body["error"].get("details") or {}).get("error_code")
    same(getattr(e, "error_code", in_body), in_body)
    return in_body


def text(s):
    return [{"type": "text", "text": s}]


def message(s):
    return {"type": "user.message", "content": text(s)}


def types(events):
    return [e.type for e in events]


def said(events):
    return [b.text for e in events if e.type == "agent.message" for b in e.content]


def of(events, kind):
    return [e for e in events if e.type == kind]


class Feed:
    def __init__(self, stream):
        self.stream, self.events, self.ended, self.error = stream, [], False, None
        self.news = threading.Condition()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            for e in self.stream:
                with self.news:
                    self.events.append(e)
                    self.news.notify_all()
        except Exception as e:
            self.error = e
        with self.news:
            self.ended = True
            self.news.notify_all()

    def until(self, fn, what):
        with self.news:
            there = self.news.wait_for(lambda: self.ended or fn(self.events), LIMIT - 10)
            if not fn(self.events):
                raise AssertionError("%s before %s: %r %s" % ("the stream ended" if there else "in vain", what,
                                                              self.error, types(self.events)))
            return list(self.events)

    def idle(self, since=0, reason="end_turn"):
        """The events from `since` to the first idle of the session with this reason."""
        def is_idle(e):
            return e.type == "session.status_idle" and e.stop_reason.type == reason

        self.until(lambda all: any(is_idle(e) for e in all[since:]), "session.status_idle " + reason)
        part = self.events[since:]
        return part[:next(i for i, e in enumerate(part) if is_idle(e)) + 1]

    def end(self):
        self.thread.join(LIMIT - 10)
        assert self.ended, "the stream stays open"
        if self.error:
            raise self.error
        return self.events

    def close(self):
        self.stream.close()


def send(session, *events):
    return beta.sessions.events.send(session.id, events=list(events)).data


def opened(agent, environment, **params):
    """A session and its stream."""
    session = beta.sessions.create(agent=agent.id, environment_id=environment.id, **params)
    return session, Feed(beta.sessions.events.stream(session.id))
