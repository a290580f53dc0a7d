"""The attacks 39 and 40 of tests/sandbox: a lease that is lost, and a payload that looks for the worker's keys."""
import subprocess, time
from shlex import quote
from workers import KEY, attack, clean_env, text, worker_test

SLEEP = "(setsid nohup sleep 611 > /dev/null 2>&1 &); echo started > mark; sleep 612"


def running(w):
    return w.until("the commands", lambda: {n for n in ("sleep 611", "sleep 612") if any(n in c for c in w.processes())} ==
                   {"sleep 611", "sleep 612"})


def nothing_after(q, path, t, seconds=3):
    time.sleep(seconds)
    late = [(r["verb"], r["path"]) for r in q.requests if r["at"] > t and path in r["path"]]
    assert late == [], late


@attack
def a39_lease_stolen_while_a_command_runs(q, work, tmp):
    q.ttl = 4
    s = q.session()
    q.use(s, "bash", command=SLEEP)
    item = q.enqueue(s)
    w = work("--max-sessions", "1")
    running(w)
    q.steal(item)
    w.said("the lease is another's")
    t = time.monotonic()
    w.until("the end of its processes", lambda: w.processes() == [])
    nothing_after(q, item, t)
    assert q.results(s) == {} and q.state(item) == "active" and not q.seen("POST", "/stop$")
    other = q.session()  # the worker goes on with others
    call = q.use(other, "bash", command="cat mark; echo on")
    q.enqueue(other)
    w.until("the other's result", lambda: call in q.results(other))
    assert text(q.results(other)[call]).endswith("on")


@worker_test
def a39_lease_lost_while_a_result_is_sent_again(q, work, tmp):
    q.ttl = 4
    s = q.session()
    call = q.use(s, "bash", command="echo late")
    item = q.enqueue(s)
    q.fail("POST", "/events$", 503, times=1000)
    w = work()
    w.until("two tries", lambda: len(q.seen("POST", "/events$")) >= 2)
    q.steal(item)
    w.said("the lease is another's")
    t = time.monotonic()
    nothing_after(q, s, t, 4)
    assert call not in q.results(s)


@worker_test
def a39_lease_assumed_lost_when_no_heartbeat_is_answered(q, work, tmp):
    q.ttl = 4
    s = q.session()
    q.use(s, "bash", command=SLEEP)
    item = q.enqueue(s)
    w = work()
    running(w)
    q.fail("POST", "/heartbeat$", 500, "drop", "hang", 503, 503, 503, 503, 503, 503, times=9)
    w.said("no heartbeat was answered for 4 s")
    t = time.monotonic()
    w.until("the end of its processes", lambda: w.processes() == [])
    nothing_after(q, s, t)
    assert q.results(s) == {} and not q.seen("POST", "/stop$")


@worker_test
def a39_lease_not_extended(q, work, tmp):
    q.ttl = 4
    s = q.session()
    q.use(s, "bash", command=SLEEP)
    item = q.enqueue(s)
    w = work("--once")
    running(w)
    q.item(item)["extend"] = False
    assert w.ended() == 1
    assert w.processes() == [] and q.results(s) == {} and q.state(item) == "active"


@attack
def a39_stop_while_a_command_runs(q, work, tmp):
    q.ttl = 4
    s = q.session()
    call = q.use(s, "bash", command=SLEEP)
    item = q.enqueue(s)
    w = work()
    running(w)
    q.stop(item)
    w.until("the stop", lambda: q.state(item) == "stopped")
    assert not any("sleep 612" in c for c in w.processes())
    assert q.results(s) == {} and q.seen("POST", "/stop$")[-1]["body"] == {"force": True}
    again = q.enqueue(s)  # its next item: the call is still open, and was started once
    w.until("an answer", lambda: call in q.results(s))
    assert q.results(s)[call]["is_error"] is True


@attack
def a40_the_payload_sees_no_keys(q, work, tmp):
    planted = {"ANTHROPIC_API_KEY": "sk-ant-planted-api-key", "ANTHROPIC_AUTH_TOKEN": "sk-ant-planted-token",
               "ANTHROPIC_WORK_SECRET": "planted-work-secret", "ANTHROPIC_ENVIRONMENT_KEY": "sk-ant-oat01-planted",
               "MOONRIG_API_KEY": "sk-mr-planted", "MOONRIG_ANYTHING": "planted-anything", "anthropic_lower": "planted-lower"}
    # Everything that a payload can ask about itself and others, and files; then what looks like ours in it.
    look = ("{ env; set; cd /proc; for p in [0-9]* self thread-self; do cat $p/environ $p/cmdline $p/maps $p/status "
            "$p/task/*/environ $p/net/unix; ls -l $p/fd $p/cwd $p/exe $p/root; "
            "for f in $p/fd/* $p/root/proc/1/fd/*; do timeout 0.2 head -c 65536 $f; done; done; "
            "find / -xdev -newer /usr/bin/env -type f -size -64k -not -path '/usr/*' -not -path '/proc/*' -exec cat {} +; "
            "} < /dev/null 2> /dev/null | tr '\\0' '\\n' | grep -a -i -e plant[e]d -e sk-an[t]- -e anthropi[c] "
            "-e moonrig[_] -e key-of-the-env[i] -e token-of-it[e]m | sort | uniq -c; echo looked")
    outside = subprocess.run(["bash", "-c", "env | grep -c -e planted -e sk-ant"], env=clean_env(MOONRIG_ENVIRONMENT_KEY=KEY, **planted),
                             stdout=subprocess.PIPE, text=True)
    assert int(outside.stdout) >= 7, "the search finds nothing where there is something"
    s = q.session()
    item = q.enqueue(s)
    w = work(env=planted)
    here = q.use(s, "bash", command="PLANT=planted bash -c " + quote(look))
    found = q.use(s, "bash", command="bash -c " + quote(look))
    cmd = q.use(s, "grep", pattern="planted|sk-ant-|key-of-the-environment", path="/proc")
    w.until("the results", lambda: len(q.results(s)) == 3, 120)
    r = q.results(s)
    assert "PLANT=planted" in text(r[here]) and text(r[here]).endswith("looked"), "the search finds nothing inside"
    assert text(r[found]) == "looked", r[found]
    assert q.item(item)["token"] not in str(r) and "sk-ant-oat01" not in str(r), r
    assert not [k for k in (KEY, q.item(item)["token"]) if k in w.text()], "a key is in the log"


@worker_test
def a40_a_key_on_the_command_line_is_wiped(q, work, tmp):
    w = work("--environment-key", KEY, key="")
    w.said("waiting for work")
    line = open(f"/proc/{w.p.pid}/cmdline", "rb").read()
    assert KEY.encode() not in line and b"--environment-key" in line, line
