"""Secrets that a sandbox uses and never has: put in on the way out, to their hosts alone."""
import base64, os, subprocess

from forms_test import GOOD, LIMITED, OPEN, OPTIONS, P, connect, good, plain, status, tls
from kit import ROOT, Box, certificate, skip, test

VALUE = "s3cr3t-value-90210"
SECRETS = [dict(env="THE_KEY", value=VALUE, hosts=["allowed.test", "*.wild.test"]),
           dict(env="OTHER_KEY", value="other-value", hosts=["elsewhere.test"])]


def open_box(user=False, **more):
    if not ROOT:
        skip("port 443 is root's")
    return Box(user=user, **dict(OPTIONS, secrets=SECRETS, ca_file=certificate("allowed.test")[0], **more))


def curl(box, args, session="sesn_open", network=OPEN):
    return box.sh("curl -sS -m 60 " + args + " 2>&1", session, network)


def seen(server, name):
    return [v for k, v in server.seen[-1][2] if k.lower() == name.lower()]


def holds(user):
    box = open_box(user)
    env = box.sh("env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; grep -rs s3cr3t / --include='*' -l "
                 "--exclude-dir=proc --exclude-dir=usr --exclude-dir=dev | head", "sesn_open", OPEN)
    assert VALUE not in env and "other-value" not in env and "THE_KEY=mr-placeholder-" in env, env
    mark = box.sh("echo -n $THE_KEY", "sesn_open")
    # In a header, to its host, over TLS: the value; the program trusts what it is shown.
    out = curl(box, "-H \"Authorization: Bearer $THE_KEY\" -H \"X-Two: a$THE_KEY-$THE_KEY\" https://allowed.test/h")
    assert "tls GET /h host=allowed.test" in out, out
    assert seen(tls, "authorization") == ["Bearer " + VALUE] and seen(tls, "x-two") == [f"a{VALUE}-{VALUE}"], tls.seen[-1]
    curl(box, "-u \"me:$THE_KEY\" https://allowed.test/")
    assert base64.b64decode(seen(tls, "authorization")[0].split()[1]).decode() == "me:" + VALUE
    # Not in the URL, nor in the body; another secret's placeholder means nothing there.
    curl(box, "-d \"k=$THE_KEY\" -H \"X-Other: $OTHER_KEY\" \"https://allowed.test/q?k=$THE_KEY\"")
    cmd, path, _, body = tls.seen[-1]
    assert mark in path and body.decode() == "k=" + mark and seen(tls, "x-other")[0].startswith("mr-placeholder-"), tls.seen[-1]
    # Not to another host, nor without TLS.
    curl(box, "-k -H \"X-K: $THE_KEY\" https://denied.test/")
    assert seen(tls, "x-k") == [mark]
    curl(box, "-H \"X-K: $THE_KEY\" http://allowed.test/")
    assert seen(plain, "x-k") == [mark]
    # The host's own certificate is what counts: this one is not x.wild.test's.
    out = curl(box, "-H \"X-K: $THE_KEY\" https://x.wild.test/")
    assert "cannot be passed on" in out and "mismatch" in out and len([s for s in tls.seen if s[1] == "/"]) == 2, out
    # Another session's placeholder is another one.
    theirs = box.sh("echo -n $THE_KEY", "sesn_lim", LIMITED)
    assert theirs != mark
    curl(box, f"-H 'X-K: {theirs}' https://allowed.test/")
    assert seen(tls, "x-k") == [theirs]
    # Bodies of every size and framing pass.
    assert curl(box, "https://allowed.test/big | sha256sum") == curl(box, f"http://allowed.test:{P}/big | sha256sum")
    curl(box, "-o /dev/null -T - https://allowed.test/put < <(head -c 3000000 /dev/zero)")
    assert len(tls.seen[-1][3]) == 3000000
    assert curl(box, "https://allowed.test/chunks").count("line") == 50
    out = box.sh("/usr/bin/python3 -c 'import os, urllib.request as u; print(u.urlopen(u.Request(\"https://allowed.test/py\", "
                 "headers={\"X-K\": os.environ[\"THE_KEY\"]})).read())'", "sesn_open")
    assert "tls GET /py" in out and seen(tls, "x-k") == [VALUE], out
    # A server that was started again knows the same placeholder, and the sandbox trusts it still.
    box.ask(restart=True)
    assert "tls GET" in curl(box, "-H \"X-K: $THE_KEY\" https://allowed.test/again") and seen(tls, "x-k") == [VALUE]
    box.close()
    tls.seen.clear()


@test
def secrets_root():
    holds(False)


@test
def secrets_user():
    holds(True)


@test
def secrets_keep_the_rules():
    """The rules come first: a secret for a host opens nothing, and names must agree as ever."""
    box = open_box()
    only = dict(limited=True, hosts=["x.wild.test"])
    out = curl(box, "https://allowed.test/ -H \"X-K: $THE_KEY\"", "sesn_x", only)
    assert "allowed.test is not in this environment's allowed_hosts" in out, out
    inner = b"GET /in HTTP/1.1\r\nHost: denied.test\r\n\r\n"
    a, b, c = box.raw([[connect("allowed.test:443"), ("tls", "denied.test", inner)],
                       [connect("allowed.test:443"), ("tls", "allowed.test", inner)],
                       [connect("allowed.test:443"), ("tls", "allowed.test", b"GET http://denied.test/ HTTP/1.1\r\nHost: denied.test\r\n\r\n")]],
                      "sesn_lim", LIMITED)
    assert " TLS " in a and "400 Bad Request" in b and "400 Bad Request" in c, (a, b, c)
    assert not tls.seen, tls.seen
    # The authority's key stays outside, and no one else can read it there.
    key = os.path.join(box.dir, "sandboxes/egress-authority.pem")
    assert os.stat(key).st_mode & 0o777 == 0o600 and "PRIVATE KEY" in open(key).read()
    assert "PRIVATE" not in box.sh("cat /etc/ssl/sandbox-roots.pem | grep PRIVATE; cat " + key, "sesn_x", only)
    leaf = box.sh("openssl s_client -proxy 127.0.0.1:3128 -proxy_user moonrig -proxy_pass env:T -connect allowed.test:443 "
                  "-servername allowed.test < /dev/null 2>&1", "sesn_lim", LIMITED)
    assert leaf  # whatever it says: no crash
    box.close()
