"""main.py - runs the suite against the server of $SDK_URL. Arguments select tests by name."""
import os
import sys

import anthropic

import kit


@kit.test("world/the-sdk-is-the-pinned-one")
def _():
    kit.same(anthropic.__version__, os.environ["SDK_VERSION"])


import story  # noqa: E402,F401  the order of the imports is the order of the tests
import work   # noqa: E402,F401
import worker # noqa: E402,F401
import edges  # noqa: E402,F401

failed = kit.run(sys.argv[1:])
sys.stdout.flush()
os._exit(1 if failed else 0)  # streams that a failed test left open keep no one
