"""Sessions, their lists, updates and ends (API: sessions, resource, list, update, archive, delete)."""
import threading

from kit import MODEL, NOBODY, equal, last, message, said, test, true, types


def body(w, **fields):
    return dict({"agent": w.agent["id"], "environment_id": w.environment["id"]}, **fields)


def bad(w, names=None, **fields):
    return w.refused(400, "POST", "/v1/sessions", body(w, **fields), names=names)


def update(w, s, status=200, **fields):
    r = w.post(f"/v1/sessions/{s['id']}", fields)
    true(r.status == status, f"{fields}: {r.status} {r.body[:300]!r}")
    return r.json


def ids(w, query=""):
    return [s["id"] for s in w.all("/v1/sessions?limit=1000" + query)]


@test
def bad_fields(w):
    w.refused(400, "POST", "/v1/sessions", {"environment_id": w.environment["id"]}, names="agent")
    w.refused(400, "POST", "/v1/sessions", {"agent": w.agent["id"]}, names="environment_id")
    for agent in (None, 1, [], "", {}, {"type": "agent"}, {"type": "person", "id": "x"}, {"id": w.agent["id"]}):
        bad(w, "agent", agent=agent)
    bad(w, "agent", agent={"type": "agent", "id": w.agent["id"], "version": 0})
    bad(w, "environment_id", environment_id=1)
    bad(w, "title", title=1)
    bad(w, "metadata", metadata={"a": None and 1, "b": 2})
    bad(w, "metadata", metadata={f"k{i}": "v" for i in range(17)})
    bad(w, "resources", resources={})
    bad(w, "resources", resources=["file_x"])
    w.refused(404, "POST", "/v1/sessions", body(w, agent="agent_" + NOBODY))
    w.refused(404, "POST", "/v1/sessions", body(w, environment_id="env_" + NOBODY))
    r = w.post("/v1/sessions", body(w, vault_ids=["vlt_" + NOBODY]))
    true(r.status in (400, 404), r.status)
    w.session(title=None, metadata={}, resources=[], vault_ids=[], budget=None)


@test
def a_model_that_nobody_serves(w):
    a = w.new_agent(model="llama-of-nobody")
    r = w.refused(400, "POST", "/v1/sessions", body(w, agent=a["id"]), names="llama-of-nobody")
    true("model" in r.error["message"], r.error)


@test
def platform_23_created_at_edges_of_sessions(w):
    a = w.new_agent(name="edges")
    made = [w.session(agent=a["id"]) for _ in range(4)]
    at = made[1]["created_at"]
    index = {s["id"]: i for i, s in enumerate(made)}
    for op, want in (("gt", [2, 3]), ("gte", [1, 2, 3]), ("lt", [0]), ("lte", [0, 1])):
        equal(sorted(index[i] for i in ids(w, f"&agent_id={a['id']}&created_at[{op}]={at}")), want, op)
    equal(ids(w, f"&agent_id={a['id']}&created_at[gt]={made[0]['created_at']}&created_at[lt]={made[2]['created_at']}"), [made[1]["id"]])


@test(model=True)
def archive_while_blocked(w):
    s, _ = w.turn(message('[[tool lookup {"q":"x"}]]'), reason="requires_action")
    equal(w.ok("POST", f"/v1/sessions/{s['id']}/archive")["status"], "terminated")
    equal(types(w.events(s))[-1], "session.status_terminated")


@test
def deleted_archived_sessions(w):
    s = w.session()
    w.ok("POST", f"/v1/sessions/{s['id']}/archive")
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    w.refused(404, "GET", f"/v1/sessions/{s['id']}")


@test
def many_sessions_at_once(w):
    got, lock = [], threading.Lock()

    def make():
        for _ in range(10):
            s = w.session(title="at once")
            with lock:
                got.append(s["id"])
    ts = [threading.Thread(target=make) for _ in range(8)]
    for t in ts:
        t.start()
    for t in ts:
        t.join()
    equal(len(set(got)), 80)
    true(set(got) <= set(ids(w)), "all are listed")


@test(model=True)
def a_session_goes_on_with_its_history(w):
    s, one = w.turn(message("[[say one]]"))
    _, two = w.turn(message("[[say {messages} messages; {model}]]"), session=s)
    equal(said(two), [f"3 messages; {MODEL}"])
    equal(last(one, "session.status_idle")["stop_reason"], {"type": "end_turn"})
    equal(w.events(s), one + two)
