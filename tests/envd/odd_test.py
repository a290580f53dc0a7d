"""Odd files, paths and patterns for the file tools: whatever they are, each call has an answer of its own."""
import os, random
from kit import test
from file_test import put
from media import gif, jpeg, pdf, png, webp
from read_test import notebook

SEEDS = [png(3, 3), png(pad=100), gif(), jpeg(), webp(), webp("VP8L", 4, 4), webp("VP8 ", 4, 4), pdf(), b"a\r\nb\0c\n" * 50,
         notebook({"cell_type": "code", "id": "x", "source": ["a\n", "b"], "outputs": [{"output_type": "stream", "text": ["q"]}, {"output_type": "error", "traceback": ["t"]},
                                                                                      {"data": {"text/plain": ["z"], "image/png": "AA"}}]}).encode()]
PARTS = ["..", ".", "a", "b", "link", "out", "d", "*", "**", "?", "[", "[a", "[!a]", "[[:alpha:]]", "{", "}", "{a,b}", ",", "\\", "\\*", ".h", ".git", "x" * 250, "\u00e9", "\U0001f600", ""]
REGEX = ["(", ")", "a", "*", "+", "?", "[", "a-z", "]", "{2}", "{2,", "|", "^", "$", "\\d", "\\u00e9", "\\x", ".", "(?i)", "(?=", "(?<n>", "\\k<n>", "\u00e9"]


def spoilt(rng, data):
    d = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        k, at = rng.random(), rng.randrange(len(d) + 1)
        if k < 0.5 and at < len(d):
            d[at] = rng.choice([0, 255, 0xd9, 0xc0, 10, 34, 91, 93, rng.randrange(256)])
        elif k < 0.7:
            del d[at:]
        elif k < 0.85:
            d[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 9)))
        else:
            d[at:at] = d[at:rng.randint(at, len(d))]
    return bytes(d)


@test
def odd_inputs(box):
    b = box()
    seed = int(os.environ.get("MOONRIG_SEED") or random.randrange(1 << 30))
    rng = random.Random(seed)
    for f in ("a", "d/a", "d/b/c", ".h/x", "\u00e9"):
        put(b, f, "a\n\u00e9 b\n" * 3)
    b.bash("ln -s d link; ln -s /etc out")
    join = lambda parts, sep: "".join(rng.choice(parts) + rng.choice(["", sep]) for _ in range(rng.randint(1, 8)))
    for _ in range(60):
        name, path = f"f{rng.randrange(8)}" + rng.choice(["", ".ipynb", ".png"]), join(PARTS, "/")
        put(b, name, spoilt(rng, rng.choice(SEEDS)))
        calls = [("read", {"file_path": name, "view_range": [rng.randint(-3, 9), rng.randint(-3, 9)]}), ("read", {"file_path": name}), ("read", {"file_path": path}),
                 ("glob", {"pattern": path, "path": rng.choice(["", "d", path])}), ("grep", {"pattern": join(REGEX, ""), "path": rng.choice(["", "d", path])}),
                 ("edit", {"file_path": name, "old_string": rng.choice(["a", "\n", "b\n"]), "new_string": rng.choice(["", "x", "a"]), "replace_all": True})]
        for id, call in [(b.start(*c), c) for c in calls]:
            r = b.wait(id, 60)
            assert r.t == "result" and "ended without a result" not in r.text and "timed out" not in r.text, (f"MOONRIG_SEED={seed}", call, r)
            assert "root:" not in r.text, (f"MOONRIG_SEED={seed}", call, r)
