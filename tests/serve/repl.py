"""moonrig repl: at a terminal, as a pipe, with scripts, with a server."""
import subprocess
from kit import BIN, SLOW, clean_env, test
from chat import start
from term import Term


def repl(text, *args, cwd, env=None):
    return subprocess.run([BIN, "repl"] + list(args), input=text, capture_output=True, text=True, cwd=cwd,
                          env=clean_env(**(env or {})), timeout=60 * SLOW)


@test
def repl_at_a_terminal(tmp, serve):
    with Term("repl", cwd=tmp) as t:
        t.expect(r"/help.*> ")
        t.type("1 + 1\n")
        t.expect(r"\r\n2\r\n.*> ")
        t.type("for i = 1, 2 do\n")
        t.expect(r">> ")
        t.type("print('line', i)\n")
        t.expect(r">> ")
        t.type("end\n")
        t.expect(r"line\t? *1\r\nline\t? *2\r\n.*> ")
        t.type("rig.sleep(0.01)\n")
        t.expect(r"> ")
        t.type("print 'started' rig.sleep(1000)\n")
        t.expect(r"\r\nstarted\r\n")
        t.type("\x03")
        t.expect(r"interrupted\r\n.*> ")
        t.type("local function f() error 'broken' end f()\n")
        t.expect(r"prompt:1: broken\r\nstack traceback:.*'f'.*> ")
        t.type("if x then\n")
        t.expect(r">> ")
        t.type("\x03")
        t.expect(r"\^?C?\r\n.*> ")
        t.type("\x03")
        t.expect(r"leaves.*> ")
        t.type("rig.crypto.sha1 'abc'\n")
        t.expect(r"a9993e36.*> ")
        t.type("\x04")
        assert t.end() == 0


@test
def repl_as_a_pipe(tmp, serve):
    (tmp / "s.lua").write_text("local rig = require 'moonrig'\nfunction twice(n) return n * 2 end\n"
                               "rig.agent { name = 'a', model = 'm' }\n")
    r = repl("twice(4)\n_ + 1\n{ b = 1, a = { 1, 'x' }, [3] = false }\nnil\nx = 5\nx, 'y'\nrig.agents.list().data[1].name\n"
             "-- a comment\nrequire('moonrig') == rig\nlocal t = {} t.t = t return t\n", "s.lua", cwd=tmp)
    assert r.returncode == 0, r
    assert r.stdout == ('8\n9\n{\n  [3] = false,\n  a = {\n    1,\n    "x",\n  },\n  b = 1,\n}\nnil\n5\n"y"\n"a"\ntrue\n'
                        '{\n  t = <the same table again>,\n}\n'), r.stdout
    assert not (tmp / "moonrig-data").exists()
    r = repl("1 +\n2\nerror 'no'\nthis is wrong\n7\nf(", cwd=tmp)
    assert r.returncode == 1 and r.stdout == "3\n7\n", r
    assert "prompt:1: no" in r.stderr and "syntax error" in r.stderr and "<eof>" in r.stderr, r.stderr
    r = repl("t = {} for i = 1, 1000 do t[i] = i end\nt\n", cwd=tmp)
    assert "... 940 more" in r.stdout and r.stdout.count("\n") < 70, r.stdout
    r = repl("rig.agents.create { name = 'kept', model = 'm' }.name\n", "--data", "d", cwd=tmp)
    assert r.stdout == '"kept"\n', r
    r = repl("rig.agents.list().data[1].name\n/quit\n1\n", "--data", "d", cwd=tmp)
    assert r.stdout == '"kept"\n' and r.returncode == 0, r
    r = repl("", "nowhere.lua", cwd=tmp)
    assert r.returncode == 1 and "nowhere.lua" in r.stderr, r


@test
def repl_with_a_server(tmp, serve):
    import json
    s = start(tmp, serve)
    key = json.loads((tmp / "data/server.json").read_text())["key"]
    url = f"http://127.0.0.1:{s.port}"
    r = repl("rig.agents.list().data[1].name\nrig.session{ agent = 'teller' }:ask('hi').text\n", "--url", url, "--key", key,
             cwd=tmp)
    assert r.returncode == 0 and r.stdout == '"teller"\n"you said \\"hi\\""\n', r
