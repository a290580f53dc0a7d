#!/usr/bin/env python3
"""names.py NAME,NAME... -- COMMAND: runs it where these hosts are 127.0.0.1: with an /etc/hosts of its own, in a mount
namespace of its own. Exit status 77: this machine does not let it."""
import ctypes
import os
import sys
import tempfile

NEWNS, NEWUSER, BIND, REC, PRIVATE = 0x20000, 0x10000000, 4096, 16384, 1 << 18


def main():
    names, at = sys.argv[1].split(","), sys.argv.index("--")
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(NEWNS if uid == 0 else NEWNS | NEWUSER):
        sys.exit(77)
    if uid:
        for file, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{file}", "w") as f:
                f.write(line)
    with tempfile.NamedTemporaryFile("w", delete=False) as f:
        f.write("127.0.0.1 localhost\n" + "".join(f"127.0.0.1 {n}\n" for n in names))
    os.chmod(f.name, 0o644)
    if libc.mount(b"none", b"/", None, REC | PRIVATE, None) or libc.mount(f.name.encode(), b"/etc/hosts", None, BIND, None):
        sys.exit(77)
    os.unlink(f.name)
    os.execv(sys.argv[at + 1], sys.argv[at + 1:])


main()
