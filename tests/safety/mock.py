"""The model server of the benchmarks (tests/mock/messages_fast), or nothing that depends on Lua: agents with a tool call it
once and then talk; agents without talk at once."""
import os, subprocess
from pathlib import Path

BUILD = Path(os.environ.get("MOONRIG_BUILD", Path(__file__).resolve().parent.parent.parent / "build"))


class Mock:
    def __init__(self, *args):
        self.p = subprocess.Popen([str(BUILD / "tests/mock/messages_fast"), "--input", "{}", *args], stdout=subprocess.PIPE, text=True)
        self.port = self.p.stdout.readline().split()[1]

    def close(self):
        self.p.kill()
        self.p.wait()
        self.p.stdout.close()
