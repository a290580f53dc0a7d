"""Environments (API: resources, environments)."""
import threading

from kit import NOBODY, equal, message, test, true, wait
from stage import needs_sandbox

EMPTY = {"type": "packages", "apt": [], "cargo": [], "gem": [], "go": [], "npm": [], "pip": []}


def bad(w, names=None, **fields):
    return w.refused(400, "POST", "/v1/environments", dict({"name": "x"}, **fields), names=names)


@test
def resources_64_defaults(w):
    for config in ({}, {"config": None}, {"config": {"type": "cloud"}}, {"config": {"type": "cloud", "networking": None, "packages": None}}):
        e = w.new_environment(**config)
        equal(e["config"], {"type": "cloud", "networking": {"type": "unrestricted"}, "packages": EMPTY}, str(config))
    equal({k: e[k] for k in ("type", "description", "metadata", "archived_at", "name")},
          {"type": "environment", "description": None, "metadata": {}, "archived_at": None, "name": "office"})
    true(e["id"].startswith("env_"), e)
    equal(w.ok("GET", f"/v1/environments/{e['id']}"), e)
    equal(w.new_environment(config={"type": "self_hosted"})["config"], {"type": "self_hosted"})


@test
def resources_65_limited_networks_and_packages(w):
    net = {"type": "limited"}
    for allow in ({}, {"allow_package_managers": False}, {"allow_package_managers": None}):
        bad(w, "allow_package_managers", config={"type": "cloud", "networking": dict(net, **allow), "packages": {"pip": ["requests"]}})
    e = w.new_environment(config={"type": "cloud", "networking": dict(net, allow_package_managers=True), "packages": {"pip": ["requests"]}})
    equal(e["config"]["packages"], dict(EMPTY, pip=["requests"]))
    w.new_environment(config={"type": "cloud", "networking": net, "packages": {"pip": []}})


@test
def resources_66_a_limited_network_is_answered_in_full(w):
    for given in ({}, {"allowed_hosts": None}, {"allowed_hosts": []}):
        e = w.new_environment(config={"type": "cloud", "networking": dict({"type": "limited"}, **given)})
        equal(e["config"]["networking"], {"type": "limited", "allowed_hosts": [], "allow_mcp_servers": False, "allow_package_managers": False})
    e = w.new_environment(config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.com", "*.b.com"], "allow_mcp_servers": True}})
    equal(e["config"]["networking"]["allowed_hosts"], ["a.com", "*.b.com"])
    for host in ("https://a.com", "a.com:80", "a.com/x", "", "*", "a b", "*.*.com", "a.*.com"):
        bad(w, "allowed_hosts", config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": [host]}})


@test
def resources_67_what_an_update_may_not_do(w):
    e = w.new_environment()
    r = w.refused(400, "POST", f"/v1/environments/{e['id']}", {"config": {"type": "self_hosted"}})
    equal(r.code(), "invalid_config_type_change")
    w.ok("POST", f"/v1/environments/{e['id']}/archive")
    equal(w.refused(400, "POST", f"/v1/environments/{e['id']}", {"name": "y"}).code(), "environment_archived")


@test
def resources_68_updates_merge_the_configuration(w):
    e = w.new_environment(config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["a.com"], "allow_package_managers": True},
                                  "packages": {"pip": ["x"], "npm": ["y"]}}, description="d")
    path = f"/v1/environments/{e['id']}"
    now = w.ok("POST", path, {"config": {"type": "cloud", "networking": {"type": "limited", "allow_mcp_servers": True}}})
    equal(now["config"]["networking"], {"type": "limited", "allowed_hosts": ["a.com"], "allow_mcp_servers": True, "allow_package_managers": True})
    equal(now["config"]["packages"], e["config"]["packages"])
    now = w.ok("POST", path, {"config": {"type": "cloud", "packages": {"pip": []}}})
    equal((now["config"]["packages"]["pip"], now["config"]["packages"]["npm"]), ([], ["y"]))
    equal(w.ok("POST", path, {"config": {"type": "cloud", "networking": {"type": "unrestricted"}}})["config"]["networking"], {"type": "unrestricted"})
    equal(w.ok("POST", path, {"config": None, "name": None})["name"], e["name"])
    w.refused(400, "POST", path, {"config": {"type": "cloud", "networking": {"type": "limited", "allow_package_managers": False}}})
    true(w.ok("GET", path)["updated_at"] > e["updated_at"], "updated_at")


@test
def resources_69_clearing(w):
    e = w.new_environment(description="d", metadata={"a": "1", "b": "2", "c": "3"})
    path = f"/v1/environments/{e['id']}"
    equal(w.ok("POST", path, {"description": ""})["description"], "")
    equal(w.ok("POST", path, {"description": None})["description"], None)
    equal(w.ok("POST", path, {"metadata": {"a": None, "b": ""}})["metadata"], {"c": "3"})
    w.refused(400, "POST", path, {"name": ""}, names="name")


@test
def resources_70_delete(w):
    e = w.new_environment()
    s = w.session(environment_id=e["id"])
    r = w.delete(f"/v1/environments/{e['id']}")
    true(r.status in (400, 409) and r.error, f"refused while a session refers to it: {r.status}")
    if r.status == 409:
        equal(r.headers.get("x-should-retry"), "false")
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    equal(w.ok("DELETE", f"/v1/environments/{e['id']}"), {"id": e["id"], "type": "environment_deleted"})
    for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/archive")):
        w.refused(404, verb, f"/v1/environments/{e['id']}{path}")
    w.refused(404, "POST", "/v1/sessions", {"agent": w.agent["id"], "environment_id": e["id"]})


@test
def resources_70_delete_and_create_at_the_same_time(w):
    """Whatever wins: never a session without its environment."""
    for _ in range(10):
        e = w.new_environment()
        got = {}
        ts = [threading.Thread(target=lambda: got.update(deleted=w.delete(f"/v1/environments/{e['id']}"))),
              threading.Thread(target=lambda: got.update(made=w.post("/v1/sessions", {"agent": w.agent["id"], "environment_id": e["id"]})))]
        for t in ts:
            t.start()
        for t in ts:
            t.join()
        true((got["deleted"].status == 200) != (got["made"].status == 200), f"{got['deleted'].status} and {got['made'].status}")
        if got["made"].status == 200:
            w.ok("DELETE", f"/v1/sessions/{got['made'].json['id']}")


@test
def resources_71_scope(w):
    bad(w, "scope", scope="account")
    bad(w, "scope", scope="planet")
    for scope in ("organization", None):
        w.new_environment(scope=scope)


@test
def archived_environments(w):
    e = w.new_environment()
    gone = w.ok("POST", f"/v1/environments/{e['id']}/archive")
    true(gone["archived_at"], gone)
    equal(w.ok("POST", f"/v1/environments/{e['id']}/archive"), gone)
    w.refused(400, "POST", "/v1/sessions", {"agent": w.agent["id"], "environment_id": e["id"]}, names="archived")
    listed = lambda q: [x["id"] for x in w.all("/v1/environments?limit=100" + q)]
    true(e["id"] not in listed("") and e["id"] in listed("&include_archived=true"), "in lists")


@test
def bad_fields(w):
    w.refused(400, "POST", "/v1/environments", {}, names="name")
    for name in ("", None, 1, "x" * 257):
        bad(w, "name", name=name)
    bad(w, "config", config={})
    bad(w, "config", config="cloud")
    bad(w, r"config\.type", config={"type": "moon"})
    bad(w, r"config\.packages", config={"type": "cloud", "packages": {"pip": "requests"}})
    bad(w, r"config\.packages", config={"type": "cloud", "packages": {"pip": [1]}})
    bad(w, r"config\.networking", config={"type": "cloud", "networking": "open"})
    bad(w, "metadata", metadata={"k": 1})
    bad(w, "description", description=1)


@test
def lists_page_newest_first(w):
    made = [w.new_environment(name=f"page {i}")["id"] for i in range(5)]
    for limit in (1, 2, 5):
        equal([e["id"] for e in w.all(f"/v1/environments?limit={limit}")][:5], made[::-1])
    for i in range(2):
        w.refused(404, "GET", f"/v1/environments/env_{NOBODY}")


@test(local=True)
def the_first_start_makes_a_default_environment(w):
    true("default" in [e["name"] for e in w.all("/v1/environments")], "an environment named default")


@test(model=True)
def diagnostics_of_an_environment(w):
    """What is in force for its sandboxes, and which of them live: those of no other environment."""
    needs_sandbox()
    e, other = w.new_environment(name="watched"), w.new_environment(name="another")
    path = f"/moonrig/v1/environments/{e['id']}/diagnostics"
    w.refused(404, "GET", "/moonrig/v1/environments/env_nowhere/diagnostics")
    d = w.ok("GET", path)
    equal((d["type"], d["environment_id"], d["driver"], d["unsafe"], d["ok"], d["message"], d["sandboxes"]),
          ("environment_diagnostics", e["id"], "local", False, True, None, []))
    features = {f["name"]: f for f in d["features"]}
    for name in ("bubblewrap", "host uids", "user namespaces", "namespaces", "capabilities", "no new privileges", "seccomp", "landlock",
                 "limits of a process", "memory limit", "process limit", "kill", "disk limit"):
        true(features[name]["detail"], name)
    true(all(f["ok"] for f in d["features"] if f["required"]), d)
    agent = w.new_agent(tools=[{"type": "agent_toolset_20260401"}])["id"]
    s = w.session(agent=agent, environment_id=e["id"])
    w.turn(message('[[tool bash {"command":"sleep 600 >/dev/null 2>&1 & echo up"}]] ;; [[say done]]'), session=s)
    live = w.ok("GET", path)["sandboxes"]
    equal([v["session_id"] for v in live], [s["id"]])
    true(live[0]["host_uid"] > 0, live)
    equal(w.ok("GET", f"/moonrig/v1/environments/{other['id']}/diagnostics")["sandboxes"], [])
    if features["memory limit"]["ok"]:
        true(0 < live[0]["memory_bytes"] < live[0]["memory_limit_bytes"] and live[0]["processes"] > 1, live)
    else:
        equal((live[0]["memory_bytes"], live[0]["memory_limit_bytes"]), (None, None))
        true("not for the sandbox as a whole" in features["memory limit"]["detail"], features["memory limit"])
    w.ok("DELETE", f"/v1/sessions/{s['id']}")
    wait(lambda: w.ok("GET", path)["sandboxes"] == [], "the sandbox to go with its session", 60)
    hosted = w.new_environment(config={"type": "self_hosted"})
    d = w.ok("GET", f"/moonrig/v1/environments/{hosted['id']}/diagnostics")
    equal((d["driver"], d["ok"], d["features"], d["sandboxes"]), ("self_hosted", True, [], []))
