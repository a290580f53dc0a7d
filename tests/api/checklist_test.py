"""The table of README.md: each of the 112 items of the session checklist names its tests, or says why it has none."""
import re
from pathlib import Path

from kit import TESTS, TOP, equal, test, true

HERE = Path(__file__).resolve().parent


def table():
    """{item: (tests, remark)} of README.md."""
    rows = {}
    for line in (HERE / "README.md").read_text().splitlines():
        m = re.match(r"\| (\d+) \| ([^|]*) \| ([^|]*) \|$", line)
        if m:
            true(int(m[1]) not in rows, f"item {m[1]} twice")
            rows[int(m[1])] = (re.findall(r"`([^`]+)`", m[2]), m[3].strip())
    return rows


def known():
    """Every test with an item's number in its name, as suite/test."""
    found = {"api/" + f.__module__.removesuffix("_test") + "/" + f.__name__ for f in TESTS if re.match(r"t_\d\d\d_", f.__name__)}
    for path in (TOP / "tests/sdk").rglob("*.mjs"):
        if "node_modules" not in path.parts:
            found |= {"sdk/ts/" + name for name in re.findall(r"'(items/t_\d\d\d_\w+)'", path.read_text())}
    return found


@test
def t_000_every_item_has_a_test(w):
    rows, tests = table(), known()
    equal(sorted(rows), list(range(1, 113)), "a line for each item")
    for item, (names, remark) in rows.items():
        true(names or remark, f"item {item} has neither a test nor a reason")
        for name in names:
            true(name in tests, f"item {item}: there is no test {name}")
            equal(int(re.search(r"t_(\d\d\d)_", name)[1]), item, name)
    listed = {name for names, _ in rows.values() for name in names}
    equal(sorted(tests - listed - {"api/checklist/t_000_every_item_has_a_test"}), [], "tests that no line names")


@test
def w_000_every_item_has_a_test(w):
    rows = {int(m[1]): (re.findall(r"`(api/[^`]+)`", m[2]), m[2].strip() or m[3].strip())
            for m in re.finditer(r"^\| W(\d+) \| ([^|]*) \| ([^|]*) \|$", (HERE / "README.md").read_text(), re.M)}
    tests = {"api/work/" + f.__name__ for f in TESTS if re.match(r"w_0[1-9]\d_", f.__name__)}
    equal(sorted(rows), list(range(74, 96)), "a line for each item")
    for item, (names, something) in rows.items():
        true(something, f"item {item} has neither a test nor a reason")
        for name in names:
            true(name in tests and int(re.search(r"w_(\d\d\d)_", name)[1]) == item, f"item {item}: {name}")
    equal(sorted(tests - {name for names, _ in rows.values() for name in names}), [], "tests that no line names")
