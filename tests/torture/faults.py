"""Requests that fail: by a status, in the stream, by the connection's end. What is worth a retry is retried, with the
waiting time that the provider names; what is not gives the turn up, and what was queued behind it."""
import signal
import time

from scene import BEGIN, END, LIMIT, PACE, Mock, Scene, judge, once, refused, retry, said, shape, spent

TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


FAILED, RATE, OVERLOADED = "model_request_failed_error", "model_rate_limited_error", "model_overloaded_error"


@test
def refused_requests(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        for status in (400, 401, 403, 404, 413):
            n = len(s.mock.requests())
            s.run((f"[[error {status}]]", refused(FAILED)))
            assert len(s.mock.requests()) == n + 2, "asked again, though that is useless"


@test
def no_money(tmp, serve, provider):
    how = {"anthropic": ("402", "400 type billing_error"), "openai": ("402", "429 type insufficient_quota")}[provider]
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[error {h}]]", refused("billing_error")) for h in how])


@test
def transient_statuses(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[error {how} x1]] [[say fine]]", once(kind))
                for how, kind in (("429", RATE), ("500", FAILED), ("502 html", FAILED), ("503", FAILED), ("504", FAILED),
                                  ("529", OVERLOADED), ("408", FAILED), ("529 html", OVERLOADED), ("429 html", RATE),
                                  ("200 html", FAILED))])


@test
def spent_retries(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[error {how}]]", spent(kind)) for how, kind in (("429", RATE), ("500", FAILED), ("502 html", FAILED),
                                                                      ("529", OVERLOADED), ("stream", OVERLOADED))])


@test
def different_failures_in_a_row(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        s.run(("[[error 529 x1]] [[error 500 x1]] [[say fine]]", BEGIN + retry(OVERLOADED) + retry(FAILED) + END))


@test
def each_request_has_its_retries(tmp, serve, provider):
    step = '[[error 529 x2]] [[tool bash {"command":"echo here"}]];;[[error 529 x2]] [[say {result}]]'
    with Scene(tmp, serve, provider) as s:
        ev = s.run((step, BEGIN + 2 * retry(OVERLOADED) + ["use bash", "end", "result", "start"] + 2 * retry(OVERLOADED) + END))
        assert said(ev)[0].strip() == "here", said(ev)


@test
def retry_after(tmp, serve, provider):
    """Seconds, a fraction of one, a date: the next request is not made before."""
    ways = {"429 retry 1": (RATE, 1), "429 retry-ms 700": (RATE, 0.7), "429 date 3": (RATE, None), "529 retry 1": (OVERLOADED, 1),
            "503 retry 1": (FAILED, 1), "503 date 2": (FAILED, None)}
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[error {how} x1]] [[say fine]]", once(kind)) for how, (kind, _) in ways.items()])
        early = {}
        for how, (_, seconds) in ways.items():
            first, second = [r for r in s.mock.requests() if f"[[error {how} x1]]" in r["raw"] and "still here" not in r["raw"]]
            due = first["at"] + seconds if seconds else first["retry_at"]
            if second["at"] < due - 0.005:
                early[how] = due - second["at"]
        assert not early, f"asked again so many seconds too early: {early}"


@test
def many_at_once(tmp, serve, provider):
    """Forty sessions with failures of all kinds at the same time, on one server."""
    text = "[[say a text that is long enough to be cut into two parts of some size]]"
    ways = [("error 500", FAILED), ("error 429 retry-ms 90", RATE), ("error 529", OVERLOADED), ("error stream overloaded_error", OVERLOADED),
            ("die rst mid", FAILED), ("die eof first", FAILED), ("die end mid", FAILED), ("garbage", FAILED)]
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[{way} x{1 + i % 2}]] [[split {1 + i}]] {text}", once(kind, 1 + i % 2)) for i in range(4) for way, kind in ways],
              *[(f"[[{way}]] {text}", spent(kind)) for way, kind in ways])


@test
def errors_in_the_stream(tmp, serve, provider):
    text = "[[say this text begins and is cut in the middle, so that its preview is nothing]]"
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[error stream {how} x1]] {text}", once(kind)) for how, kind in
                (("overloaded_error", OVERLOADED), ("rate_limit_error", RATE), ("api_error", FAILED), ("timeout_error", FAILED),
                 ("something_new", FAILED))])
        s.run(("[[error stream billing_error]]", refused("billing_error")), ("[[error stream invalid_request_error]]", refused(FAILED)))


@test
def dies(tmp, serve, provider):
    """Reset, closed, ended in order: before the first event, in the middle, before the last."""
    text = "[[say a text that is long enough to be cut into two parts of some size]]"
    ways = [f"{how} {where}" for how in ("rst", "eof", "end") for where in ("first", "mid", "late")]
    ways = [w for w in ways if (provider, w) != ("openai", "end late")]
    with Scene(tmp, serve, provider) as s:
        s.run(*[(f"[[die {w} x1]] {text}", once(FAILED)) for w in ways])


@test
def dies_before_the_head(tmp, serve, provider):
    """On a fresh connection. On one that was used before, it looks like one that timed out, and another is tried at once."""
    for way in ("rst", "eof"):
        with Scene(tmp, serve, provider) as s:
            s.run((f"[[die {way} head x1]] [[say fine]]", once(FAILED)))
            s.run((f"[[die {way} head]] [[say never]]", spent(FAILED)))
            s.s.stop()


@test
def dies_in_a_tool_call(tmp, serve, provider):
    call = '[[tool bash {"command":"echo so >> /tmp/made; cat /tmp/made"}]];;[[say {result}]]'
    with Scene(tmp, serve, provider) as s:
        for w in ("rst mid", "eof mid", "end mid"):
            ev = s.run((f"[[die {w} x1]] {call}", BEGIN + retry(FAILED) + ["use bash", "end", "result", "start"] + END))
            assert said(ev)[0].strip() == "so", f"the call of the cut reply ran, too: {said(ev)}"


@test
def an_end_without_last_word(tmp, serve, provider):
    """Chat completions without [DONE] are whole when a finish_reason came: servers differ."""
    with Scene(tmp, serve, provider) as s:
        s.run(("[[die end late x1]] [[say whole]]", BEGIN + END))


an_end_without_last_word.only = ["openai"]


@test
def garbage(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        s.run(("[[garbage x1]] [[say a text of some length, please]]", once(FAILED)), ("[[garbage]] [[say text text text]]", spent(FAILED)))


@test
def gone_and_back(tmp, serve, provider):
    """Nothing listens at the provider's address; then it does again."""
    with Scene(tmp, serve, provider) as s:
        w, port = s.session(), s.mock.port
        s.mock.stop()
        w.say("hello?")
        w.idle()
        w.equal(spent(FAILED))
        s.mock = Mock(port)
        w.goes_on()


SLOWLY = f"max = 1, base_ms = {2000 * PACE}, cap_ms = {2000 * PACE}"


def rescheduling(w, text):
    w.say(text)
    w.until("the rescheduling", lambda all_: any(e["type"] == "session.status_rescheduled" for e in all_))
    assert w.status() == "rescheduling", w.status()


@test
def what_is_queued_is_flushed(tmp, serve, provider):
    with Scene(tmp, serve, provider, retries=SLOWLY) as s:
        w = s.session()
        rescheduling(w, "[[error 500]]")
        s.mock.script({"do": "[[stall head 1500]] [[error 500]]", "when": {"text": "error 500"}})
        w.until("the retry", lambda all_: sum(e["type"] == "span.model_request_start" for e in all_) == 2)
        queued = w.say("[[say lost]]")[0]
        assert queued["processed_at"] is None, queued
        w.idle()
        w.equal(spent(FAILED, 1))
        assert w.status() == "idle"
        assert queued["id"] not in [e["id"] for e in w.events()], "what was queued is there still"
        w.goes_on()
        assert "lost" not in said(w.events())


@test
def what_is_queued_behind_a_refused_request(tmp, serve, provider):
    with Scene(tmp, serve, provider) as s:
        w = s.session()
        s.mock.script("[[stall head 1500]] [[error 400]]")
        w.say("go")
        w.until("the request", lambda all_: any(e["type"] == "span.model_request_start" for e in all_))
        queued = w.say("[[say lost]]", "[[say lost too]]")
        w.idle()
        w.equal(refused(FAILED))
        assert not {q["id"] for q in queued} & {e["id"] for e in w.events()}, "what was queued is there still"
        w.goes_on()


@test
def what_is_queued_joins_the_retry(tmp, serve, provider):
    with Scene(tmp, serve, provider, retries=SLOWLY) as s:
        w = s.session()
        rescheduling(w, "[[error 500 x1]] [[say first]]")
        w.say("[[say both: {last}]]")
        w.idle()
        w.equal(BEGIN + ["end!", f"error {FAILED} retrying", "rescheduled", "running", "user", "start"] + END)
        w.goes_on()


@test
def interrupted_while_rescheduling(tmp, serve, provider):
    with Scene(tmp, serve, provider, retries="max = 5, base_ms = 3600000, cap_ms = 3600000") as s:
        w = s.session()
        rescheduling(w, "[[error 500 x1]] [[say never]]")
        n = len(s.mock.requests())
        w.send({"type": "user.interrupt"})
        w.idle()
        w.equal(BEGIN + ["end!", f"error {FAILED} retrying", "rescheduled", "interrupt", "idle end_turn"])
        assert len(s.mock.requests()) == n, "the model was asked"
        assert s.s.status(w.id) == "idle"
        w.goes_on()


@test
def killed_while_rescheduling(tmp, serve, provider):
    """kill -9, twice, while retries are due: after the restart each is made, when it is due, and once."""
    def without_cut(words):  # a restart so slow that a retry was due, and cut, before the next kill
        out = []
        for word in words:
            if word == "start" and out[-1] == "end!":
                out.pop()
            else:
                out.append(word)
        return out
    due = 6 * PACE
    with Scene(tmp, serve, provider, retries=f"max = 1, base_ms = {due * 1000}, cap_ms = {due * 1000}") as s:
        plain, waits, again = s.session(), s.session(), s.session()
        begun = time.monotonic()
        rescheduling(plain, "[[error 529 x1]] [[say fine]]")
        rescheduling(waits, f"[[error 429 retry {due + 2} x1]] [[say fine, later]]")
        rescheduling(again, "[[error 500 x1]] [[say fine, too]]")
        again.say("[[say queued]]")
        for _ in range(2):
            assert s.s.restart(signal.SIGKILL) == -signal.SIGKILL
        in_time = time.monotonic() - begun < due
        for w, want in ((plain, once(OVERLOADED)), (waits, once(RATE)),
                        (again, BEGIN + ["end!", f"error {FAILED} retrying", "rescheduled", "running", "user", "start"] + END)):
            s.s.until("the end of the turn", lambda: w.events()[-1]["type"] == "session.status_idle", LIMIT)
            judge(w.events())
            have = shape(w.events())
            assert (have if in_time else without_cut(have)) == want, have
        first, *more = [r for r in s.mock.requests() if "fine, later" in r["raw"]]
        assert more[0]["at"] >= first["at"] + due + 2 - 0.005, "the restart forgot the waiting time"
        assert len(more) == 1 or not in_time, "the retry was made twice"
        s.s.say(plain.id, "[[say still here]]")
        s.s.until("the answer", lambda: said(s.s.settled(plain.id))[-1] == "still here")


@test
def killed_in_mid_stream(tmp, serve, provider):
    """kill -9 while a reply comes: its request is closed as failed, and asked again."""
    with Scene(tmp, serve, provider) as s:
        w = s.session()
        w.say("[[stall mid x1]] [[say a text of some length that stands still]]")
        w.until("some text", lambda all_: any(e["type"] == "event_delta" for e in all_))
        assert s.s.restart(signal.SIGKILL) == -signal.SIGKILL
        ev = s.s.settled(w.id)
        judge(ev)
        assert shape(ev) == BEGIN + ["end!", "start"] + END, shape(ev)
        s.s.until("the cut of the first", lambda: s.mock.live() == 0)
