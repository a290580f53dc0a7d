"""The program at a real terminal: a pty, what it shows, what is typed."""
import os, pty, re, select, signal, time
from kit import BIN, SLOW, clean_env


class Term:
    def __init__(self, *args, cwd, env=None):
        self.out, self.at = "", 0
        full = clean_env(TERM="xterm", **(env or {}))
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(BIN, [BIN] + list(args), full)

    def more(self, seconds):
        """Takes in what is shown; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.out += data.decode(errors="replace")
        return bool(data)

    def expect(self, pattern, limit=30):
        """Waits until this is shown, after what was expected before; returns the match."""
        end = time.monotonic() + limit * SLOW
        while True:
            m = re.compile(pattern, re.S).search(self.out, self.at)
            if m:
                self.at = m.end()
                return m
            assert time.monotonic() < end and self.more(0.2), f"never shown: {pattern!r}\n{self.out[-2000:]!r}"

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self, limit=30):
        """Waits for the program's end; its exit status."""
        end = time.monotonic() + limit * SLOW
        while self.more(0.05):
            assert time.monotonic() < end, f"it does not end\n{self.out[-2000:]!r}"
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.fd)
