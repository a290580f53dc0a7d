"""How a worker ends, and what the next one finds."""
import os, shutil, signal, time
from pathlib import Path
from workers import BIN, ENVIRONMENT, KEY, SLOW, run_cli, text, worker_test


def last_beat(q, item):
    return q.seen("POST", item + "/heartbeat$")[-1]["query"]


@worker_test
def drain_lets_running_tools_finish(q, work, tmp):
    """An item whose session has work left is not stopped: it is handed back with a short lease, so that another worker
    gets it. One whose session rests is stopped."""
    s, quiet = q.session(), q.session()
    q.idle(quiet)
    call = q.use(s, "bash", command="touch begun; while [ ! -e go ]; do sleep 0.1; done; echo finished")
    items = [q.enqueue(s), q.enqueue(quiet)]
    w = work()
    q.use(s, "bash", "ask", command="echo held")
    w.until("the command", lambda: any("sleep 0.1" in c for c in w.processes()))
    w.until("the other", lambda: q.state(items[1]) == "active")
    w.p.send_signal(signal.SIGTERM)
    w.until("the end of the one that does nothing", lambda: q.state(items[1]) == "stopped")
    q.use(s, "bash", command="echo too late")
    fresh = q.enqueue(q.session())
    time.sleep(2)
    assert q.state(items[0]) == "active" and w.p.poll() is None
    for f in (w.data / "worker/s").glob("*/workspace/begun"):
        (f.parent / "go").write_text("")
    assert w.ended() == 0
    assert text(q.results(s)[call]) == "finished" and set(q.results(s)) == {call}
    assert q.state(items[0]) == "active" and last_beat(q, items[0])["desired_ttl_seconds"] == "10"
    assert q.state(fresh) == "queued" and not [r for r in q.seen("POST", "/stop$") if items[0] in r["path"]]
    assert w.processes() == [] and list((w.data / "worker/s").iterdir()) == []


@worker_test
def drain_has_an_end(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", command="trap '' TERM INT; while :; do sleep 615; done")
    item = q.enqueue(s)
    w = work("--drain", "2")
    w.until("the command", lambda: any("sleep 615" in c for c in w.processes()))
    t = time.monotonic()
    assert w.stop() == 0 and time.monotonic() - t > 1.8
    assert q.results(s)[call]["is_error"] and "had to end" in text(q.results(s)[call]), q.results(s)
    assert last_beat(q, item)["desired_ttl_seconds"] == "10" and q.state(item) == "active" and w.processes() == []


@worker_test
def drain_ends_when_results_are_not_taken_either(q, work, tmp):
    s = q.session()
    q.use(s, "bash", command="while :; do sleep 617; done")
    item = q.enqueue(s)
    w = work("--drain", "1")
    w.until("the command", lambda: any("sleep 617" in c for c in w.processes()))
    q.fail("POST", "/events$", 500, times=1000)
    assert w.stop() == 0
    assert q.results(s) == {} and q.state(item) == "active" and w.processes() == []


@worker_test
def the_second_signal_ends_at_once(q, work, tmp):
    s = q.session()
    call = q.use(s, "bash", command="echo kept > f; sleep 616")
    item = q.enqueue(s)
    w = work("--drain", "500")
    w.until("the command", lambda: any("sleep 616" in c for c in w.processes()))
    w.p.send_signal(signal.SIGINT)
    w.said("what runs has 500 s")
    assert w.stop(signal.SIGINT) == 1
    assert q.state(item) == "active"
    w = work()  # what is left is the next one's
    w.said("1 sandboxes of a worker before this one")
    assert w.stop() == 0 and w.processes() == [] and list((w.data / "worker/s").iterdir()) == []


@worker_test
def a_signal_while_nothing_is_served(q, work, tmp):
    w = work()
    w.said("waiting for work")
    assert w.stop() == 0
    q.fail("GET", "/poll$", "hang", times=9)
    w = work(name="hanging")
    w.until("a poll", lambda: len(q.seen("GET", "/poll$")) > 1)
    t = time.monotonic()
    assert w.stop() == 0 and time.monotonic() - t < 10 * SLOW


@worker_test
def once(q, work, tmp):
    s, other = q.session(), q.session()
    call = q.use(s, "bash", command="echo done")
    q.idle(s, call)
    items = [q.enqueue(s), q.enqueue(other)]
    w = work("--once", "--idle", "1")
    w.until("the result", lambda: call in q.results(s))
    q.idle(s)
    assert w.ended() == 0
    assert [q.state(i) for i in items] == ["stopped", "queued"] and w.processes() == []


@worker_test
def killed_and_started_again_a_call_runs_once(q, work, tmp):
    q.ttl = 6
    s = q.session()
    call = q.use(s, "bash", command="echo x >> count; X=9; while [ ! -e go ]; do sleep 0.1; done; cat count")
    item = q.enqueue(s)
    w = work()
    w.until("the command", lambda: any("sleep 0.1" in c for c in w.processes()))
    w.p.kill()
    w.p.wait()
    w = work()
    w.said("1 sandboxes of a worker before this one")
    w.until("the lease's end", lambda: len(q.seen("POST", "/ack$")) == 2)
    go = q.use(s, "write", file_path="/workspace/go", content="")
    w.until("both results", lambda: {call, go} <= set(q.results(s)))
    assert text(q.results(s)[call]) == "x", q.results(s)[call]
    last = q.use(s, "bash", command="echo $X")
    w.until("the shell", lambda: last in q.results(s))
    assert text(q.results(s)[last]) == "9"


@worker_test
def killed_another_claims(q, work, tmp):
    q.ttl = 4
    s = q.session()
    call = q.use(s, "bash", command="while [ ! -e go ]; do sleep 0.1; done; echo by $(cat go)")
    item = q.enqueue(s)
    w = work(name="one")
    w.until("the command", lambda: any("sleep 0.1" in c for c in w.processes()))
    two = work(name="two")
    two.said("waiting for work")
    w.p.kill()
    go = q.use(s, "write", file_path="/workspace/go", content="the second")
    two.until("the result", lambda: call in q.results(s), 60)
    assert text(q.results(s)[call]) == "by the second" and q.item(item)["work"]["state"] == "active"
    assert two.stop() == 0


@worker_test
def a_directory_has_one_worker(q, work, tmp):
    w = work()
    w.said("waiting for work")
    r = run_cli("worker", "--environment", ENVIRONMENT, "--data", str(w.data),
                env={"MOONRIG_ENVIRONMENT_KEY": KEY, "MOONRIG_URL": q.url})
    assert r.returncode == 1 and f"pid {w.p.pid}" in r.stderr, (r.returncode, r.stderr)


@worker_test
def where_no_sandbox_can_be_made_it_does_not_start(q, work, tmp):
    lib = tmp / "libexec"
    lib.mkdir()
    helpers = Path(os.environ.get("MOONRIG_BUILD", Path(BIN).parent)) / "helpers"
    for h in ("launcher", "envd"):
        shutil.copy(helpers / h, lib / h)
    (lib / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (lib / "bwrap").chmod(0o755)
    w = work(env={"MOONRIG_LIBEXEC": str(lib)})
    assert w.ended() == 3 and q.requests == []
    doctor = run_cli("doctor", "--quiet", env={"MOONRIG_LIBEXEC": str(lib)})
    assert doctor.returncode == 3 and doctor.stderr.strip() and doctor.stderr.strip() in w.text(), (doctor.stderr, w.text())


@worker_test
def wrong_usage(q, work, tmp):
    env = {"MOONRIG_ENVIRONMENT_KEY": KEY, "MOONRIG_URL": q.url}
    for args, more, says in (((), {}, "which environment"), (("--environment", "e"), {"MOONRIG_ENVIRONMENT_KEY": ""}, "no key"),
                             (("--environment", "e", "--max-sessions", "0"), {}, "1 to 256"),
                             (("--environment", "e", "--lease", "5"), {}, "10 to 3600"),
                             (("--environment", "e", "--network", "http://x/"), {}, "--network takes"),
                             (("--environment", "e", "--url", "ftp://x"), {}, "--url takes"),
                             (("--environment", "e", "extra"), {}, "no arguments")):
        r = run_cli("worker", *args, env=dict(env, **more), cwd=tmp)
        assert r.returncode == 2 and says in r.stderr, (args, r.returncode, r.stderr)
    r = run_cli("worker", "--environment", "e", "--data", str(tmp / "none"), env={"MOONRIG_ENVIRONMENT_KEY": KEY}, cwd=tmp)
    assert r.returncode == 3 and "no server" in r.stderr, r.stderr
    (tmp / "c.lua").write_text("return { sandbox = { nproc = 3 } }")
    r = run_cli("worker", "--environment", "e", "--config", str(tmp / "c.lua"), env=env, cwd=tmp)
    assert r.returncode == 2 and "sandbox.nproc" in r.stderr, r.stderr
    words = run_cli("completion", "words", "worker").stdout.split()
    text = run_cli("worker", "--help").stdout
    assert {"--environment", "--environment-key", "--drain", "--once"} <= set(words), words
    assert all(word in text for word in words) and "worker" in run_cli("--help").stdout
    assert q.requests == []
