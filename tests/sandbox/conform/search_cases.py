"""glob and grep (API: tools 4.6, 4.7). grep stands beside both searches of the reference, its own and ripgrep."""
from cases import SAME, VERDICT, case, differs, has, lines, step

DOUBLESTAR = "extended patterns are no part of doublestar patterns"
ESCAPE = "a backslash takes a wildcard its meaning; the reference reads it as a slash"
DOTS = "a name that begins with a dot is found by a part of the pattern that does so too, after ** as well"
FOLLOW = "links are followed where they stand before the first wildcard: a search that follows all it finds has no end"
SHUT = "what may not be read is passed over, as in the reference's own search"
NOT_THERE = "a directory that is not there, or is a file, is said"
PATH = "the path is always said, as the reference's own search does"
HIDDEN = "hidden and ignored files count on every machine, as in the reference's own search"
PCRE = "patterns are those of PCRE2 on every machine: of the reference's two kinds each has some that the other lacks"
STOPS = "a file ends at its first NUL, wherever that is in what is read at once"
SPECIAL = "nothing but files and directories is searched; ripgrep would wait for a FIFO"
LONG = "lines of more than 2,000 characters are skipped, as in the reference's own search"
CRLF = "a carriage return at the end of a line is not part of it, as in the reference's own search"


def glob(pattern, **more):
    return ("glob", {"pattern": pattern, **more})


# Files later in the list are newer.
TREE = {n: "" for n in ("a.txt", "b.csv", "sub/c.txt", "sub/deep/d.txt", "sub/deep/er/e.txt", ".hidden/f.txt", ".dot.txt", ".git/g.txt", "node_modules/h.txt",
                        "sub/node_modules/i.txt", "sp ace/[x].txt", "sub/é.md", "sub/.env", "z.TXT", "sub/we*ird")}
for p in ("*", "**", "**/*", "*.txt", "**/*.txt", "./*.txt", "sub/*", "sub/**", "sub/**/*", "**/deep/*", "**/deep/**", "**/deep/**/*.txt", "sub/*/d.txt", "*/*.txt", "*/*/*", "**/**/d.txt",
          "a.txt", "sub/c.txt", "sub//c.txt", "sub/./c.txt", "?.txt", "a.???", "[ab].*", "[!a].*", "[^a].*", "[a-c].*", "*.{txt,csv}", "{a,b}.*", "{a,{b,x}}.{csv,t?t}", "{sub,none}/**/*.txt",
          "sub/?.md", "sub/*.md", "**/é.md", ".*", ".hidden/*", "sub/.e*", ".dot.txt", "*.TXT", "*.Txt", "**/er/*", "nothing*", "sub", "sub/", "**/", "sp ace/*", "sp*/*", "sub/we[*]ird",
          ".git/*", "node_modules/**", "sub/node_modules/i.txt", "[[:alpha:]].txt", "[[:digit:]]*", "***", "*.*", "*a*", "*[*", "[", "{a", "a}", "a.txt*", "**.txt", "sub/**/d.txt", "#a", "!a.txt", "**/[[]x[]].txt"):
    case(f"glob/{p}", glob(p), files=TREE)
case("glob/**/.env", glob("**/.env"), how=differs(DOTS, "/workspace/sub/.env"), files=TREE)
for p in ("@(a|b).*", "!(b).txt", "{1..3}", "?(a).txt", "+(a).txt"):
    case(f"glob/extended: {p}", glob(p), how=SAME if p == "{1..3}" else differs(DOUBLESTAR, "no matches"), files=TREE)
case("glob/backslash", [glob("sub/we\\*ird")], how=differs(ESCAPE, "/workspace/sub/we*ird"), files=TREE)
for p in ("/etc/*", "/", "/workspace/*.txt", "..", "../*", "a/../b", "sub/..", "{a,..}/x", "{..,a}"):
    case(f"glob/refused: {p}", glob(p), how=VERDICT, files=TREE)
case("glob/a name with dots is none of them", glob("..a/*"), files={"..a/x": ""})
case("glob/no pattern", ("glob", {}))
case("glob/empty pattern", glob(""))
case("glob/path", [glob("*", path="sub"), glob("*.txt", path="/workspace/sub"), glob("**/*.txt", path="sub/"), glob("*", path="./sub/../sub"), glob("*", path=""), glob("*", path=None), glob("*", path=".")], files=TREE)
case("glob/path in a hidden directory", [glob("*", path=".hidden"), glob("*", path=".git"), glob("*", path="node_modules")], files=TREE)
case("glob/path outside", [glob("*", path="/etc"), glob("*", path=".."), glob("*", path="/")])
case("glob/path is a link outside", glob("*", path="l"), files={"l": ("link", "/etc")})
case("glob/path is a link", glob("*", path="l"), files={"d/f": "", "l": ("link", "d")})
case("glob/path is not there", glob("*", path="none"), how=differs(NOT_THERE, "glob: none: no such file or directory", error=True))
case("glob/path is a file", glob("*", path="a.txt"), how=differs(NOT_THERE, "glob: a.txt: not a directory", error=True), files=TREE)
case("glob/uploads and tmp", [glob("*", path="/mnt/session/uploads"), ("bash", {"command": "mkdir -p /tmp/conform-g; touch /tmp/conform-g/f"}), glob("**", path="/tmp/conform-g")])
LINKS = {"d/f": "", "a": "", "l": ("link", "a"), "dl": ("link", "d"), "sub/up": ("link", "../d"), "out": ("link", "/etc"), "none": ("link", "nowhere"), "p": ("fifo", None), "loop": ("link", ".")}
for p in ("*", "**", "l", "dl/*", "dl/**", "*l/*", "sub/up/f", "sub/up/*", "sub/*/f", "**/up/f", "out/*", "out/passwd", "none", "p", "dl", "loop/a", "loop/d/*", "d/../a"):
    case(f"glob/links: {p}", glob(p), how=VERDICT if ".." in p else SAME, files=LINKS)
case("glob/links: */up/f", glob("*/up/f"), how=differs(FOLLOW, "no matches"), files=LINKS)
case("glob/newest first", [glob("*")], files={n: "" for n in "zaymbx"})
case("glob/200 at most", [glob("*"), glob("f1*")], files={f"f{i}": "" for i in range(250)})
case("glob/deep", glob("**/f"), files={"d/" * 30 + "f": "", "d/f": ""})
case("glob/shut directories are passed over", glob("**"), files={"d/f": "", "a": "", "d": ("dir", None, 0)})
case("glob/empty folder", [glob("*"), glob("**")])

TEXT = {"a.txt": "one\nTwo two\nthree\n", "sub/b.txt": "two\nfour", ".hidden/h": "two\n", ".dot": "two\n", ".git/c": "two\n", "node_modules/d": "two\n", "sub/node_modules/x": "two\n",
        "latin": b"two caf\xe9\n", "empty": "", "u": "€uro\n漢字 two\n", "l": ("link", "a.txt"), "p": ("fifo", None), "dl": ("link", "sub")}


def grep(pattern, **more):
    return ("grep", {"pattern": pattern, **more})


def both(name, call, walker=SAME, rg=SAME, files=TEXT):
    """Beside the built-in search, whose order is that of the directory; and beside ripgrep."""
    case(f"grep/{name}", step(call, how=lines() if walker is SAME else walker), files=files)
    case(f"grep/rg: {name}", step(call, how=lines() if rg is SAME else rg, rg=True), files=files)


PLAIN = {k: v for k, v in TEXT.items() if not k.startswith(".") and k not in ("p", "node_modules/d", "sub/node_modules/x", "latin")}
ONE = differs(PATH)
both("a folder", grep("two"), files=PLAIN)
case("grep/what is passed over", step(grep("two"), how=lines()), files=TEXT)
case("grep/rg: what is passed over", step(grep("two"), how=differs(HIDDEN, "/workspace/.dot:1:two", "/workspace/.hidden/h:1:two"), rg=True), files=TEXT)
both("path is a directory", grep("two", path="sub"), files=PLAIN)
both("path is absolute", grep("four$", path="/workspace/sub"))
both("path is a link to a directory", grep("four", path="dl"))
both("path is a file", grep("^t", path="a.txt"), rg=differs(PATH, "/workspace/a.txt:3:three"))
both("path is a link to a file", grep("one", path="l"), rg=differs(PATH, "/workspace/a.txt:1:one"))
both("path with a slash at the end", grep("one", path="a.txt/"), rg=differs(PATH, "/workspace/a.txt:1:one"))
both("path is empty", grep("four", path=""))
both("path is a pruned directory", grep("two", path=".git"), files={".git/c": "two\n"})
both("path is not there", grep("x", path="none"), walker=differs(NOT_THERE, "grep: none: no such file or directory", error=True), rg=has("o such file or directory"))
case("grep/path is a fifo", step(grep("x", path="p"), how=differs(SPECIAL, "grep: p is not a regular file", error=True)), files=TEXT)
both("path is outside", grep("root", path="/etc"))
both("path is a link outside", grep("root", path="o"), files={"o": ("link", "/etc/passwd")})
both("path leads up", grep("x", path=".."))
both("no match", grep("nothing here"))
both("no match in a file", grep("nothing", path="a.txt"))
both("no pattern", ("grep", {}))
both("empty pattern", grep(""))
both("pattern is an option", grep("-e", path="sub"))
both("pattern is two options", grep("--files"))
both("anchors", grep("^two$", path="sub"), files=PLAIN)
both("case counts", grep("TWO"))
both("inline flag", grep("(?i)^t", path="a.txt"), walker=differs(PCRE, "/workspace/a.txt:2:Two two"), rg=differs(PATH, "/workspace/a.txt:2:Two two"))
both("word boundary", grep(r"\bt\w+e\b"))
both("classes", grep(r"[[:upper:]]wo"), walker=differs(PCRE, ":Two two"))
both("back reference", grep(r"(\w)\1"), rg=differs(PCRE, "/workspace/a.txt:3:three"))
both("look behind", grep(r"(?<=T)wo"), rg=differs(PCRE, "/workspace/a.txt:2:Two two"))
both("alternatives", grep("one|four"))
both("unicode", grep("漢.\\s"))
both("unicode escape", grep("\\u20ac"))
both("a dot is a character", grep("^.$", path="d"), walker=differs(PCRE, ":1:😀"), files={"d/f": "😀\n"})
both("bad utf-8", grep("caf", path="d"), files={"d/f": b"two caf\xe9\n"})
for p in ("(", "[a", "*", ")", "a{2,1}", "\\", "(?<n>a)(?<n>b)", "(?<", "[z-a]"):
    both(f"bad pattern: {p}", grep(p), walker=has("grep: "), rg=has("grep: "))
both("bad pattern is called so", grep("("), walker=has("grep: invalid regex: "), rg=VERDICT)
both("a brace stands for itself", grep("{", path="d"), rg=differs(PCRE, ":1:a{"), files={"d/f": "a{\n"})
both("empty lines", grep("^$", path="d"), files={"d/f": "a\n\nb\n"})
both("the last line without a newline", grep("four"))
both("line numbers", grep("x", path="d"), files={"d/f": "\n" * 9 + "x\n" + "\n" * 89 + "x"})
both("crlf", grep("two$", path="d"), rg=differs(CRLF, "/workspace/d/f:1:two"), files={"d/f": "two\r\n"})
both("no carriage return in the text", grep("two", path="d"), rg=differs(CRLF, "/workspace/d/f:1:two"), files={"d/f": "two\r\n"})
both("up to the first nul", grep("two", path="d"), walker=differs(STOPS, "/workspace/d/f:1:two"), rg=differs(STOPS, "/workspace/d/f:1:two"), files={"d/f": b"two\nmore two\0two\ntwo\n"})
both("lines of 2,000 characters", grep("w$", path="d"), files={"d/f": "€" * 1999 + "w\n"})
both("longer lines", grep("w$", path="d"), rg=differs(LONG, "/workspace/d/f:2:w"), files={"d/f": "x" * 2000 + "w\nw\n"})
both("longer lines of other characters", grep("w", path="d"), rg=differs(LONG, "no matches"), files={"d/f": "€" * 2000 + "w\n"})
both("ignored files", grep("two"), rg=differs(HIDDEN, "/workspace/x.log:1:two"), files={".ignore": "*.log\n", "x.log": "two\n"})
both("too much", grep("match"), walker=has("/workspace/f:2000:match this line\n", "\n[output truncated at 102400 bytes]"), rg=has("/workspace/f:2000:match this line\n", "\n[output truncated at 102400 bytes]"), files={"f": "match this line\n" * 20000})
both("many files", grep("x"), files={f"d{i % 7}/f{i}": "x\n" for i in range(100)})
both("deep", grep("x"), files={"d/" * 30 + "f": "x\n"})
case("grep/deeper than 40", step(grep("x"), how=has("/workspace/d/f:1:x")), files={"d/" * 45 + "f": "x\n", "d/f": "x\n"})
both("shut files and directories are passed over", grep("x"), rg=differs(SHUT, "/workspace/a:1:x"), files={"d/f": "x\n", "s": ("file", "x\n", 0), "a": "x\n", "d": ("dir", None, 0)})
both("odd names", grep("x"), files={"sp ace": "x\n", "grün": "x\n", "-e": "x\n"})
both("uploads", grep("given", path="/mnt/session/uploads"))
