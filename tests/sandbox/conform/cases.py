"""How cases are written down: case(NAME, CALL or [CALL...], files=...). A call is (TOOL, INPUT) or step(...).

How two answers compare: SAME (the text is part of the contract), VERDICT (accepted or refused alike; the words are
each one's own), has(...) (and both say these words), tail(N) (both were cut, and end alike), lines() (in any order),
differs(WHY, OURS): on purpose, and ours is an error or not, and says the words."""

CASES = []


class How:
    def __init__(self, kind, equal=None):
        self.kind, self.equal = kind, equal


SAME = How("same", lambda a, b: a == b)
VERDICT = How("verdict", lambda a, b: True)


def has(*words):
    return How(f"both have {words}", lambda a, b: all(w in a and w in b for w in words))


def tail(n):
    return How(f"cut, the last {n} the same", lambda a, b: a.startswith("[output truncated]\n") and b.startswith("[output truncated]\n") and a[-n:] == b[-n:])


def lines(clean=lambda line: line):
    return How("the same lines", lambda a, b: sorted(map(clean, a.strip("\n").split("\n"))) == sorted(map(clean, b.strip("\n").split("\n"))))


def differs(why, *words, error=False):
    how = How("differs")
    how.why = why
    how.match = lambda r: bool(r.error) == error and all(w in r.text for w in words)
    return how


class Case:
    pass


def step(*calls, how=SAME, limit=0, rg=False):
    """Calls made at the same time. limit: ms, as the server gives it to ours alone."""
    return {"calls": list(calls), "how": how, "limit": limit, "rg": rg}


def case(name, steps, how=SAME, files=None, rg=False, tree=True):
    c = Case()
    steps = steps if isinstance(steps, list) else [steps]
    c.name, c.files, c.tree = name, files or {}, tree
    c.steps = [s if isinstance(s, dict) else step(s, how=how, rg=rg) for s in steps]
    c.shell = any(call[0] == "bash" for s in c.steps for call in s["calls"])
    assert name not in [x.name for x in CASES], name
    CASES.append(c)
