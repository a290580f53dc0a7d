"""A program in a terminal emulator (tmux), for the tests of this suite."""
import re, subprocess, time
from kit import BIN, SLOW, clean_env


class Screen:
    """A program in a terminal of its own; the screen is what the emulator made of its output."""
    made = 0

    def __init__(self, tmp, *args, width=100, height=40):
        Screen.made += 1
        self.tmp, self.sock = tmp, str(tmp / f"tmux{Screen.made}")  # a server of its own: an old one takes time to go
        conf = tmp / "tmux.conf"
        conf.write_text("set -g history-limit 20000\nset -g escape-time 0\nset -g default-terminal screen-256color\n"
                        "set -g status off\n")
        env = clean_env()
        env.pop("TMUX", None)
        # a shell says how it ended: tmux itself may miss that
        shell = ["sh", "-c", 'trap : INT; "$@"; printf "\\n[status %s]" $?; exec sleep 1000', "sh", BIN]
        subprocess.run(["tmux", "-u", "-S", self.sock, "-f", str(conf), "new-session", "-d", "-x", str(width), "-y", str(height),
                        "-c", str(tmp)] + shell + list(args), env=env, check=True, timeout=30 * SLOW)

    def tmux(self, *args):
        return subprocess.run(["tmux", "-S", self.sock] + list(args), capture_output=True, text=True, check=True,
                              timeout=30 * SLOW).stdout

    def text(self, whole=True):
        """All lines that were shown (or those of the screen), without blanks at their ends."""
        out = self.tmux("capture-pane", "-p", "-J", *(["-S", "-"] if whole else []))
        return "\n".join(line.rstrip() for line in out.split("\n")).rstrip("\n")

    def wait(self, pattern, limit=30):
        end = time.monotonic() + limit * SLOW
        while True:
            text = self.text()
            m = re.search(pattern, text, re.S)
            if m:
                return m
            assert time.monotonic() < end, f"never on the screen: {pattern!r}\n{text}\n{text[-300:]!r}"
            time.sleep(0.03)

    def rests(self, after):
        """Waits until this was shown and the prompt is the last line."""
        return self.wait(after + r".*\n>$")

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def enter(self, text):
        self.type(text)
        self.tmux("send-keys", "Enter")

    def key(self, name):
        self.tmux("send-keys", name)

    def end(self, limit=30):
        """Waits for the program's end; its exit status."""
        return int(self.wait(r"\[status (\d+)\]$", limit)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.sock, "kill-server"], capture_output=True, timeout=30 * SLOW)
