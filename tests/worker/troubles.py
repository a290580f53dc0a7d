"""What goes wrong on the way: the worker goes on, and each call is run once."""
import re, time
from workers import end_sandboxes, text, worker_test

COUNT = "echo x >> count; wc -l < count"


@worker_test
def the_queue_fails_in_every_way(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", command=COUNT)
    q.enqueue(s)
    q.fail("GET", "/poll$", 500, 429, 408, times=3)
    w = work()
    w.until("the result", lambda: call in q.results(s), 90)
    polls = q.seen("GET", "/poll$")
    gaps = [b["at"] - a["at"] for a, b in zip(polls, polls[1:])]
    assert gaps[0] > 0.4 and gaps[1] > 0.9 and gaps[2] > 1.9, gaps  # one second, doubled, and a quarter of jitter
    assert len(re.findall("the queue does not answer", w.text())) == 3 and "answers again" in w.text()


@worker_test
def a_poll_that_is_never_answered(q, work, tmp):
    q.fail("GET", "/poll$", "hang")
    w = work()
    w.until("the poll", lambda: q.seen("GET", "/poll$"))
    s = q.session()
    call = q.use(s, "bash", command=COUNT)
    q.enqueue(s)
    w.until("the result", lambda: call in q.results(s), 60)


@worker_test
def acknowledgement_and_session_fail_at_first(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", command=COUNT)
    item = q.enqueue(s)
    q.fail("POST", "/ack$", 500)
    q.fail("POST", "/heartbeat$", 500, "drop", times=2)
    q.fail("GET", f"/v1/sessions/{s}$", 503, "drop", times=2)
    w = work()
    w.until("the result", lambda: call in q.results(s), 90)
    assert len(q.seen("POST", "/ack$")) == 2 and text(q.results(s)[call]) == "1"


@worker_test
def streams_break_and_calls_run_once(q, work, tmp):
    s = q.session()
    q.enqueue(s)
    w = work()
    calls = []
    for n in range(4):
        w.until("a stream", lambda: w.text().count("broke off") == n and len(q.seen("GET", "/events$")) > n)
        calls.append(q.use(s, "bash", command=COUNT + "; sleep 0.5"))
        if n == 3:
            break
        q.drop_streams()
        calls.append(q.use(s, "bash", command=COUNT))  # while nobody listens
    w.until("all results", lambda: len(q.results(s)) == len(calls), 60)
    assert sorted(int(text(q.results(s)[c]).split()[0]) for c in calls) == list(range(1, len(calls) + 1))


@worker_test
def a_history_that_cannot_be_read_starts_nothing(q, work, tmp):
    s = q.session()
    answered = q.use(s, "bash", command=COUNT)
    q.add(s, {"type": "user.tool_result", "tool_use_id": answered, "content": [], "is_error": False})
    call = q.use(s, "bash", command=COUNT)
    q.page = 2
    q.enqueue(s)
    fails = iter([None, 500, None, "drop", 502])
    q.fail("GET", "/events$", lambda r: next(fails, None), times=99)
    q.fail("GET", "/stream$", 500, "drop", times=2)
    w = work()
    w.until("the result", lambda: call in q.results(s), 60)
    assert text(q.results(s)[call]) == "1"


@worker_test
def a_history_page_that_is_too_large(q, work, tmp):
    s = q.session()
    for n in range(5):
        q.add(s, {"type": "user.message", "content": [{"type": "text", "text": "x" * (30 << 20)}]})
    call = q.use(s, "bash", command=COUNT)
    q.enqueue(s)
    w = work()
    w.until("the result", lambda: call in q.results(s), 120)
    assert {r["query"]["limit"] for r in q.seen("GET", "/events$")} >= {"1000", "100"}


@worker_test
def results_are_sent_until_they_are_taken(q, work, tmp):
    s = q.session()
    calls = [q.use(s, "bash", command=COUNT) for _ in range(2)]
    q.enqueue(s)
    q.fail("POST", "/events$", 500, "drop", 429, "lost", times=4)
    w = work()
    w.until("both results", lambda: len(q.results(s)) == 2, 60)
    q.idle(s)
    assert sorted(text(q.results(s)[c]) for c in calls) == ["1", "2"]
    last = q.use(s, "bash", command=COUNT)
    w.until("another", lambda: last in q.results(s))
    assert text(q.results(s)[last]) == "3"


@worker_test
def a_result_that_is_refused_is_answered_otherwise(q, work, tmp):
    s = q.session()
    q.enqueue(s)
    q.fail("POST", "/events$", 413)
    call = q.use(s, "bash", command=COUNT)
    w = work()
    w.until("an answer", lambda: call in q.results(s))
    assert q.results(s)[call]["is_error"] and "could not be delivered" in text(q.results(s)[call])


@worker_test
def somebody_else_answers_while_it_runs(q, work, tmp):
    s = q.session()
    q.enqueue(s)
    w = work()
    for kind in ("agent.tool_result", "user.tool_result"):  # an interrupt, or another client
        call = q.use(s, "bash", command="sleep 613")
        w.until("the command", lambda: any("sleep 613" in c for c in w.processes()))
        q.add(s, {"type": kind, "tool_use_id": call, "content": [], "is_error": True})
        w.until("its end", lambda: not any("sleep 613" in c for c in w.processes()))
    last = q.use(s, "bash", command="echo on")
    w.until("the next", lambda: last in q.results(s))
    posted = [e["tool_use_id"] for r in q.seen("POST", "/events$") for e in r["body"]["events"]]
    assert posted == [last], posted


@worker_test
def a_dead_sandbox_is_an_answer(q, work, tmp):
    s = q.session()
    q.enqueue(s)
    w = work()
    call = q.use(s, "bash", command="echo kept > f; sleep 614")
    w.until("the command", lambda: any("sleep 614" in c for c in w.processes()))
    end_sandboxes(w.data)
    w.until("an answer", lambda: call in q.results(s), 60)
    assert q.results(s)[call]["is_error"], q.results(s)
    last = q.use(s, "bash", command="cat f")
    w.until("the next", lambda: last in q.results(s), 60)
    assert text(q.results(s)[last]) == "kept"


@worker_test
def refusals_end_the_item_or_the_worker(q, work, tmp):
    s = q.session()
    q.use(s, "bash", command=COUNT)
    item = q.enqueue(s)
    q.fail("POST", "/heartbeat$", 403)
    w = work("--once")
    assert w.ended() == 1 and q.state(item) == "stopped" and q.results(s) == {}
    for status in (401, 403, 404, 400):
        q.fail("GET", "/poll$", status)
        w = work(name=f"w{status}")
        assert w.ended() == 1 and f"the server answered {status}" in w.text(), w.text()
    w = work(key="sk-ant-oat01-another", name="other")
    assert w.ended() == 1 and "not the environment's key" in w.text()
    q.wrong.clear()
