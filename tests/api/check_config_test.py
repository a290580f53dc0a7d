"""moonrig check-config: the program, its exit status, one line for each provider; real requests to servers that are
played here as the ones people have answer (with and without a list of models, with a key of their own)."""
import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from kit import BIN, LIMIT, equal, test, true


class Served(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def allowed(self):
        self.server.seen.append((self.command, self.path))
        have = self.headers.get("x-api-key") or (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if self.server.key in (None, have):
            return True
        self.reply(401, {"error": {"type": "authentication_error", "message": "no such key: " + have}})
        return False

    def do_GET(self):
        if not self.allowed():
            return
        if self.server.models is None:
            return self.reply(404, {"detail": "Not Found"})
        self.reply(200, {"object": "list", "data": [{"id": x, "object": "model"} for x in self.server.models]})

    def do_POST(self):
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.allowed():
            return
        equal(sent["max_tokens"], 1)
        if sent["model"] != "there":
            return self.reply(404, {"error": {"message": "model not found"}})
        self.reply(200, {"choices": [{"message": {"content": "ok"}}]})


@contextlib.contextmanager
def served(models, key=None):
    s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Served)
    s.models, s.key, s.seen = models, key, []
    threading.Thread(target=s.serve_forever, daemon=True).start()
    s.url = f"http://127.0.0.1:{s.server_address[1]}"
    try:
        yield s
    finally:
        s.shutdown()
        s.server_close()


def check(config=None, *args, env=None):
    """Exit status, lines by name (or what --json says), stderr."""
    with tempfile.TemporaryDirectory(prefix="moonrig-check-") as d:
        cmd = [BIN, "check-config", *args]
        if config is not None:
            Path(d, "c.lua").write_text("return " + config)
            cmd.append(str(Path(d, "c.lua")))
        clean = {k: v for k, v in os.environ.items() if not re.match(r"(ANTHROPIC|OPENAI|MOONRIG)_", k)}
        r = subprocess.run(cmd, capture_output=True, text=True, timeout=LIMIT * 3, cwd=d, env=dict(clean, **(env or {})),
                           stdin=subprocess.DEVNULL)
        equal([x.name for x in Path(d).iterdir() if x.name != "c.lua"], [], "what it left behind")
    if "--json" in args:
        return r.returncode, json.loads(r.stdout), r.stderr
    return r.returncode, {x.split()[1]: (x.split()[0], x) for x in r.stdout.splitlines()}, r.stderr


@test(local=True)
def check_config_asks_each_provider(w):
    with served(["claude-x", "claude-y"], key="right") as a, served(["qwen3:latest"]) as o, served(None) as bare:
        config = f"""{{ models = {{ anthropic = {{ base_url = "{a.url}", api_key = "right" }},
            ollama = {{ kind = "openai", base_url = "{o.url}" }}, bare = {{ kind = "openai", base_url = "{bare.url}/v1" }},
            route = {{ q = "ollama:qwen3", t = "bare:there" }} }} }}"""
        status, lines, err = check(config)
        equal((status, err, {k: v[0] for k, v in lines.items()}),
              (0, "", {"configuration": "ok", "anthropic": "ok", "ollama": "ok", "bare": "ok"}))
        true(f"{a.url}/v1: 2 models" in lines["anthropic"][1], lines)
        true("not among" not in lines["ollama"][1] and '"there" answers' in lines["bare"][1], lines)
        equal((a.seen, bare.seen), ([("GET", "/v1/models")], [("GET", "/v1/models"), ("POST", "/v1/chat/completions")]))
        del a.seen[:], bare.seen[:]
        status, lines, _ = check(config, "--offline")
        equal((status, a.seen + bare.seen, lines["anthropic"][0]), (0, [], "skipped"))


@test(local=True)
def check_config_says_what_to_do(w):
    with served(["m"], key="right") as a, served(None) as bare, socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # bound, but not listened on: nobody else gets the port
        port = gone.getsockname()[1]
        base = f'anthropic = {{ base_url = "{a.url}", api_key = "sk-ant-wrong-0123456789" }}'
        status, lines, _ = check("{ models = { " + base + " } }")
        equal((status, lines["anthropic"][0]), (1, "REFUSED"))
        true("HTTP 401" in lines["anthropic"][1] and "no such key: [key]" in lines["anthropic"][1]
             and "The key was refused: correct MOONRIG_ANTHROPIC_API_KEY" in lines["anthropic"][1], lines)
        status, lines, _ = check(f'{{ models = {{ x = {{ kind = "openai", base_url = "{bare.url}" }}, route = {{ a = "x:other" }} }} }}')
        equal((status, lines["x"][0]), (1, "REFUSED"))
        status, lines, _ = check(f'{{ models = {{ x = {{ kind = "openai", base_url = "http://127.0.0.1:{port}" }} }} }}')
        equal((status, lines["x"][0]), (3, "UNREACHABLE"))
        true("models.x.base_url" in lines["x"][1], lines)
        status, said, _ = check(f'{{ models = {{ x = {{ kind = "openai", base_url = "{a.url}", api_key = "right" }}, '
                                f'route = {{ b = {{ "x:n", "gone" }} }} }} }}', "--json")
        by = {c["name"]: c for c in said["checks"]}
        equal((status, said["ok"], by["x"]["state"], by["route"]["state"]), (0, True, "ok", "note"))
        true('"n" is not among them' in by["x"]["found"] and "gone" in by["route"]["found"], by)
    status, lines, _ = check()
    equal((status, lines["models"][0]), (1, "REFUSED"))
    status, _, _ = check(None, "--offline", env={"MOONRIG_OPENAI_BASE_URL": "http://127.0.0.1:1"})
    equal(status, 0)


@test(local=True)
def check_config_refuses_a_wrong_configuration(w):
    for config, names in (("{ modelz = {} }", "modelz: unknown option"),
                          ('{ models = { x = { base_url = "http://a" } } }', r"models\.x\.kind"),
                          ('{ models = { openai = { max_concurrency = "2" } } }', r"models\.openai\.max_concurrency"),
                          ('{ models = { route = { a = 7 } } }', r"models\.route"),
                          ('{ api = { ping = 7 } }', r"api\.ping"), ('{ tls_cert = "/no/such.pem", tls_key = "/no/such.key" }', "tls_cert: /no/such.pem"),
                          ('{ scripts = { "/no/such.lua" } }', "scripts"), ("{ listen = 7 }", "listen"),
                          ('{ sandbox = { driver = "none" } }', r"sandbox\.unsafe: must be true"), ('{ sandbox = { driver = "docker" } }', r"sandbox\.driver"),
                          ('{ sandbox = { root = 7 } }', r"sandbox\.root"), ("nonsense(", "c.lua")):
        status, lines, err = check(config)
        equal((status, lines), (2, {}), config)
        true(re.search(names, err), f"{config}: {err}")
    status, said, _ = check("{ api = { ping = 7 } }", "--json")
    equal((status, said["ok"], said["checks"][0]["state"]), (2, False, "REFUSED"))
    status, _, err = check(None, "a", "b")
    equal(status, 2)
    status, _, err = check(None, "/no/such/file.lua")
    equal(status, 2)


@test(local=True)
def the_readme_names_every_setting(w):
    root = Path(__file__).resolve().parents[2]
    text = (root / "README.md").read_text()
    inside = {"local_key", "asleep"}  # of the program to itself

    def table(path, pattern):
        found = re.findall(pattern, (root / "core" / path).read_text(), re.M)
        true(len(found) > 5, path)
        return found

    names = [n for n in table("host/options.c", r'^    {"([a-z_.]+)", K_(?!OBJ)') if n not in inside]
    names += table("model/config.c", r"^    {\"([a-z_]+)\", '")
    known = re.search(r"known\[\] = {(.*?)}", (root / "core/api/api.c").read_text(), re.S)
    names += ["api." + n for n in re.findall(r'"(\w+)"', known[1])]
    names += table("main/settings.c", r'{"([a-z_]+)", F_\w+, AT\(\w+\)}') + ["listen", "scripts"]

    def named(n):
        last = n.split(".")[-1]
        return re.search(rf"`{re.escape(n)}[`.]|`{last}`|\b{last} =", text)

    equal([n for n in names if not named(n)], [])
