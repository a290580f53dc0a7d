#!/usr/bin/env python3
"""The world of the SDK suites: the model server of tests/mock, `moonrig serve` in front of it, and one client.

    world.py [--config FILE] [--tls CA CERT KEY] [--script FILE]... [-- COMMAND...]

With a command: runs it with SDK_URL, SDK_KEY, SDK_MODEL_URL (the model server, for /requests and /count) and
SDK_SANDBOX (1: tool calls run on this machine), then ends the server and prints "ok world/ends-with-status-0",
or not ok with the server's log. Its exit status is the command's. Without one: prints those four as a line of
JSON, waits until standard input ends, and then prints how the server ended, {"server": STATUS, "log": TEXT}.

Only loopback, only ports that the system gave; nothing of the caller's environment that could lead a client to
another server gets through. MOONRIG_BIN names the program (build/moonrig). Needs python3 alone.
"""
import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BIN = os.environ.get("MOONRIG_BIN") or str(TOP / "build/moonrig")
KEY = "sk-mr-test-0123456789abcdefghijklmnop"
UPSTREAM_KEY = "sk-upstream-of-the-test"
LIMIT = 60  # seconds to start or to stop


def clean_env():
    strange = re.compile(r"^(ANTHROPIC|OPENAI|CLAUDE)_|^MOONRIG_(ANTHROPIC|OPENAI|URL|LISTEN|DATA|API_KEY)")
    return {k: v for k, v in os.environ.items() if not strange.match(k)}


class Child:
    """A process that prints a line when it is ready; what follows is read and kept."""

    def __init__(self, command, pattern, **options):
        self.tail, self.caught, self.ready = [], None, threading.Event()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, errors="replace", **options)
        self.reader = threading.Thread(target=self.read, args=(re.compile(pattern),), daemon=True)
        self.reader.start()
        if not self.ready.wait(LIMIT) or self.caught is None:
            self.stop()
            raise SystemExit("%s does not get ready:\n%s" % (command[0], "".join(self.tail)))

    def read(self, pattern):
        for line in self.process.stdout:
            self.tail = self.tail[-400:] + [line]
            found = self.caught is None and pattern.search(line)
            if found:
                self.caught = found[1]
                self.ready.set()
        self.ready.set()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "does not stop"
        self.reader.join(LIMIT)
        return status


class World:
    def __init__(self, a):
        self.dir = tempfile.mkdtemp(prefix="moonrig-sdk-")
        self.model = self.server = None
        try:
            self.start(a)
        except BaseException:
            self.close()
            raise

    def start(self, a):
        mock = [sys.executable, str(TOP / "tests/mock/messages.py"), "--key", UPSTREAM_KEY]
        serve = [BIN, "serve", "--listen", "127.0.0.1:0", "--data", self.dir + "/data"]
        if a.tls:
            mock += ["--tls-cert", a.tls[1], "--tls-key", a.tls[2]]
            serve += ["--tls-cert", a.tls[1], "--tls-key", a.tls[2]]
        config = a.config and Path(a.config).resolve()
        if not config:  # a worker looks after its lease every half of it
            config = Path(self.dir) / "moonrig.lua"
            config.write_text("return { work = { lease = 10 } }\n")
        serve += ["--config", str(config)]
        self.model = Child(mock, r"^listening (\d+)$")
        model_url = "%s://127.0.0.1:%s" % ("https" if a.tls else "http", self.model.caught)
        env = dict(clean_env(), MOONRIG_API_KEY=KEY)
        for provider in ("ANTHROPIC", "OPENAI"):
            env["MOONRIG_%s_API_KEY" % provider] = UPSTREAM_KEY
            env["MOONRIG_%s_BASE_URL" % provider] = model_url
        scripts = [str(Path(s).resolve()) for s in a.script or [TOP / "tests/sdk/tools.lua"]]
        self.server = Child(serve + scripts, r"^listening on (https?://\S+)$", cwd=self.dir, env=env)
        doctor = subprocess.run([BIN, "doctor", "--json"], stdout=subprocess.PIPE, text=True, env=env)
        sandbox = json.loads(doctor.stdout)["sandbox"] == "ok"
        self.facts = {"SDK_URL": self.server.caught, "SDK_KEY": KEY, "SDK_MODEL_URL": model_url,
                      "SDK_SANDBOX": "1" if sandbox else ""}

    def close(self):
        status = self.server.stop() if self.server else None
        if self.model:
            self.model.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
        return {"server": status, "log": "".join(self.server.tail) if self.server else ""}


def with_command(world, command):
    code = 1
    try:
        child = subprocess.Popen(command, env=dict(clean_env(), **world.facts))
        code = child.wait()
    finally:
        end = world.close()
        if end["server"] == 0:
            print("ok world/ends-with-status-0", flush=True)
        else:
            print("not ok world/ends-with-status-0\n  status %s" % end["server"])
            print("".join("  " + line for line in end["log"].splitlines(True)[-30:]), flush=True)
    return code if code else (0 if end["server"] == 0 else 1)


def main():
    argv, command = sys.argv[1:], None
    if "--" in argv:
        at = argv.index("--")
        argv, command = argv[:at], argv[at + 1:]
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--config")
    p.add_argument("--tls", nargs=3, metavar=("CA", "CERT", "KEY"))
    p.add_argument("--script", action="append")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    world = World(p.parse_args(argv))
    if command:
        return with_command(world, command)
    try:
        print(json.dumps(world.facts), flush=True)
        sys.stdin.read()
    finally:
        end = world.close()
    try:
        print(json.dumps(end), flush=True)
    except BrokenPipeError:  # nobody wants to know any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
