"""What an environment's networking lets a session's commands reach (API: resources, environments 7.5), through the
whole server; the proxy's own tables are in tests/egress."""
import http.server
import json
import re
import threading

from files_test import sandboxed
from kit import KEY, UPSTREAM_KEY, Server, World, equal, message, test, true

TOOLS = [{"type": "agent_toolset_20260401"}]


class Web(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Host")))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from the web\n")

    def log_message(self, *a):
        pass


def open_server(w, config="", env=None):
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    web.seen = []
    threading.Thread(target=web.serve_forever, daemon=True).start()
    port = web.server_address[1]
    s = Server(env=dict({"MOONRIG_API_KEY": KEY, "MOONRIG_ANTHROPIC_API_KEY": UPSTREAM_KEY, "MOONRIG_ANTHROPIC_BASE_URL": w.mock.url},
                        **(env or {})),
               config='{ allow_private_hosts = { "127.0.0.0/8" }, egress = { ports = { "1024-65535" }, package_hosts = {} %s } }' % config)
    return s, World(s.url, mock=w.mock, server=s), web, port


def run(v, networking, command, **agent):
    e = v.new_environment(config={"type": "cloud", "networking": networking})
    s = v.session(agent=v.new_agent(tools=TOOLS + agent.pop("tools", []), **agent)["id"], environment_id=e["id"])
    _, events = v.turn(message("[[tool bash %s]] ;; [[say done]]" % json.dumps({"command": command})), session=s)
    results = [x for x in events if x["type"] == "agent.tool_result"]
    equal(len(results), 1)
    return "\n".join(b.get("text", "") for b in results[0]["content"])


@test(model=True)
def resources_72_limited_networks(w):
    if not sandboxed(w):
        return
    server, v, web, port = open_server(w)
    try:
        ask = f"curl -sS -m 30 --noproxy '' http://127.0.0.1:{port}/a 2>&1; curl -sS -m 30 http://other.example/ 2>&1"
        said = run(v, {"type": "limited", "allowed_hosts": ["127.0.0.1"]}, ask)
        true("hello from the web" in said and "host other.example is not in this environment's allowed_hosts" in said, said)
        equal([x[1] for x in web.seen], [f"127.0.0.1:{port}"])
        said = run(v, {"type": "limited", "allowed_hosts": []}, ask)
        true("hello" not in said and "[network] blocked: host 127.0.0.1 is not in" in said, said)
        true("hello from the web" in run(v, {"type": "unrestricted"}, ask))
        # The server itself is nobody's, though its address is listed.
        said = run(v, {"type": "unrestricted"}, f"curl -sS -m 30 --noproxy '' {v.url}/health 2>&1; "
                   f"curl -sS -m 30 --noproxy '' http://127.77.1.2:{v.port}/health 2>&1")
        equal(said.count("is this server itself"), 4, said)  # in the answer, and in the note
        true('"status"' not in said, said)
        # The agent's MCP servers, if the environment says so.
        mcp = dict(mcp_servers=[{"type": "url", "name": "m", "url": f"http://127.0.0.1:{port}/mcp"}],
                   tools=[{"type": "mcp_toolset", "mcp_server_name": "m"}])
        net = {"type": "limited", "allowed_hosts": []}
        true("hello" not in run(v, net, ask, **dict(mcp)))
        true("hello from the web" in run(v, dict(net, allow_mcp_servers=True), ask, **dict(mcp)))
        metrics = v.get("/metrics").body.decode()
        let, denied = (float(re.search(rf"^moonrig_sandbox_requests_{k} (\S+)$", metrics, re.M)[1]) for k in ("total", "denied_total"))
        true(let >= 3 and denied >= 6, metrics)
    finally:
        web.shutdown()
        equal(server.stop(), 0)


@test(model=True)
def resources_73_a_running_session_keeps_its_network(w):
    if not sandboxed(w):
        return
    server, v, web, port = open_server(w)
    try:
        e = v.new_environment(config={"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["127.0.0.1"]}})
        s = v.session(agent=v.new_agent(tools=TOOLS)["id"], environment_id=e["id"])
        v.ok("POST", f"/v1/environments/{e['id']}", {"config": {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["x.example"]}}})
        cmd = json.dumps({"command": f"curl -sS -m 30 --noproxy '' http://127.0.0.1:{port}/a 2>&1"})
        _, events = v.turn(message(f"[[tool bash {cmd}]] ;; [[say {{result}}]]"), session=s)
        true("hello from the web" in json.dumps(events), events)
    finally:
        web.shutdown()
        equal(server.stop(), 0)


@test(model=True)
def credentials_are_checked_and_never_told(w):
    for config, names in ((', credentials = 7', "egress.credentials: must be a list"),
                          (', credentials = { { env = "PATH", hosts = { "a.example" }, value_env = "X" } }', r"egress\.credentials\.0\.env"),
                          (', credentials = { { env = "K", hosts = {}, value_env = "X" } }', r"egress\.credentials\.0\.hosts"),
                          (', credentials = { { env = "K", hosts = { "http://a" }, value_env = "X" } }', r"egress\.credentials\.0\.hosts"),
                          (', credentials = { { env = "K", hosts = { "a.example" }, value_env = "NOT_SET" } }', r"egress\.credentials\.0\.value_env: the environment variable NOT_SET is not set"),
                          (', credentials = { { env = "K", hosts = { "a.example" }, value_file = "/nowhere" } }', r"egress\.credentials\.0: either"),
                          (', credentials = { { env = "K", hosts = { "a.example" }, value_env = "BAD" } }', r"egress\.credentials\.0: either"),
                          (', blocked_hosts = { "a b" }', r"egress\.blocked_hosts\.0"), (', blocked_hosts = 7', r"egress\.blocked_hosts: must be"),
                          (', ports = { 0 }', r"egress\.ports\.0"), (', ports = { 80, "9-8" }', r"egress\.ports\.1"), (', frobs = {}', r"egress\.frobs")):
        try:
            server, _, web, _ = open_server(w, config, {"BAD": "two\nlines"})
        except AssertionError as e:
            true(re.search(names, str(e)), f"{config}: {e}")
            true("two\nlines" not in str(e), e)
            continue
        server.stop()
        raise AssertionError(config + " was taken")
    if not sandboxed(w):
        return
    server, v, web, port = open_server(w, ', credentials = { { env = "THE_KEY", hosts = { "a.example" }, value_env = "REAL" } }',
                                       {"REAL": "s3cr3t-90210"})
    try:
        said = run(v, {"type": "unrestricted"}, "echo $THE_KEY; env | grep -c s3cr3t; test -r $SSL_CERT_FILE && echo roots; "
                   f"curl -s --noproxy '' -H \"x-k: $THE_KEY\" http://127.0.0.1:{port}/k")
        true(re.match(r"mr-placeholder-[0-9a-f]{32}\n0\nroots\nhello", said), said)
        true("s3cr3t" not in server.log())
    finally:
        web.shutdown()
        equal(server.stop(), 0)
