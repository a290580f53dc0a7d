"""What read shows of images, PDFs, notebooks and binaries."""
import base64, json, os
from kit import test
from file_test import put, fails
from media import gif, jpeg, pdf, png, webp


@test
def read_images(box):
    b = box()
    for name, data, kind in (("p.png", png(3, 2), "png"), ("j", jpeg(fill=os.urandom(20000).replace(b"\xff", b"")), "jpeg"), ("g.dat", gif(), "gif"),
                             ("w", webp(), "webp"), ("wl", webp("VP8L", 7, 9), "webp"), ("wy.txt", webp("VP8 ", 7, 9), "webp"), ("side", png(8000, 1), "png")):
        put(b, name, data)
        for call in (dict(file_path=name), dict(file_path=name, view_range=[1, 2])):
            r = b.call("read", **call)
            assert not r.error and len(r.content) == 1 and r.content[0]["type"] == "image" and r.content[0]["source"]["media_type"] == "image/" + kind, r
            assert r.content[0]["source"]["type"] == "base64" and base64.b64decode(r.content[0]["source"]["data"], validate=True) == data
    for pad in (1, 2, 3, 4):  # every end of base64
        put(b, "s", png(pad=pad))
        assert base64.b64decode(b.call("read", file_path="s").content[0]["source"]["data"], validate=True) == png(pad=pad)
    put(b, "huge.png", png(pad=4_000_000))
    fails(b.call("read", file_path="huge.png"), "read: huge.png is an image of more than 3932160 bytes. Make a smaller copy of it with bash and read that.")
    for name, data in (("wide.png", png(8001, 1)), ("high.png", png(1, 8001)), ("wide.gif", gif(9000, 1)), ("high.jpeg", jpeg(1, 60000)), ("wide.webp", webp("VP8X", 10000, 1))):
        put(b, name, data)
        r = b.call("read", file_path=name)
        assert r.error and "pixels, more than 8000 on a side. Make a smaller copy" in r.text, r


@test
def damaged_images(box):
    """What a provider would refuse stays out of the session."""
    b = box()
    for data in (png()[:40], b"\x89PNG\r\n\x1a\n" + bytes(60), png(5, 5)[:-8], png(0, 5), jpeg()[:30], jpeg()[:-2], b"\xff\xd8\xff\xe0\0\x10JFIF", b"\xff\xd8\xff" + bytes(100),
                 b"\xff\xd8\xff\xe0\0\0" + bytes(50), gif()[:12], gif()[:-1].replace(b";", b""), webp()[:25], webp()[:-1], b"RIFF\0\0\0\0WEBPxxxx" + bytes(30), gif(0, 0), jpeg(0, 4),
                 b"\xff\xd8" + b"\xff\xe0\0\2" * 3000 + b"\xff\xd9"):
        put(b, "x", data)
        fails(b.call("read", file_path="x"), "read: x begins like an image but is damaged or not complete")


@test
def read_pdfs(box):
    b = box()
    for data in (pdf(), pdf(5_000_000)):
        put(b, "d.pdf", data)
        r = b.call("read", file_path="d.pdf")
        assert not r.error and len(r.content) == 1 and r.content[0]["type"] == "document" and r.content[0]["source"]["media_type"] == "application/pdf", r
        assert base64.b64decode(r.content[0]["source"]["data"], validate=True) == data
    put(b, "huge.pdf", pdf(8_000_000))
    fails(b.call("read", file_path="huge.pdf"), "read: huge.pdf is a PDF of more than 7864320 bytes. Take its text or some of its pages out with bash and read those.")
    put(b, "cut.pdf", pdf()[:60])
    fails(b.call("read", file_path="cut.pdf"), "read: cut.pdf begins like a PDF but is damaged or not complete")


@test
def binaries(box):
    b = box()
    put(b, "bin", b"\x7fELF\0\0\xff\xfe")
    fails(b.call("read", file_path="bin"), "read: bin is a binary file (8 bytes). Look at it with bash, for example with od or strings.")
    put(b, "utf16", "\ufeffhello".encode("utf-16-le"))
    assert "is a binary file" in b.call("read", file_path="utf16").text
    put(b, "nul", "log\0line\n")
    assert b.call("read", file_path="nul").text == "log\ufffdline\n"
    put(b, "edge", ("\0" + "a" * 8190 + "\u20ac" + "b" * 10).encode())  # a character over the end of what is looked at
    assert b.call("read", file_path="edge").text == "\ufffd" + "a" * 8190 + "\u20ac" + "b" * 10


def notebook(*cells, **more):
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **more})


@test
def read_notebooks(box):
    b = box()
    put(b, "n.ipynb", notebook(
        {"cell_type": "markdown", "id": "m1", "metadata": {}, "source": ["# Title\n", "text"]},
        {"cell_type": "code", "id": "c1", "execution_count": 3, "source": "print('x')\n1/0", "outputs": [
            {"output_type": "stream", "name": "stdout", "text": ["x\n", "y\n"]},
            {"output_type": "execute_result", "data": {"text/plain": ["42"], "text/html": "<b>42</b>"}, "execution_count": 3},
            {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo=", "text/plain": "<Figure>"}},
            {"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": ["\u001b[0;31mTraceback\u001b[0m", "line 1"]}]},
        {"cell_type": "code", "execution_count": None, "source": [], "outputs": [{"output_type": "error", "ename": "E", "evalue": "v", "traceback": []}]},
        {"cell_type": "raw", "source": "raw"}))
    want = ("--- cell 1: markdown, id m1 ---\n# Title\ntext\n\n--- cell 2: code, id c1, run 3 ---\nprint('x')\n1/0\n--- output of cell 2 ---\nx\ny\n42\n"
            "<Figure>\n[image/png, not shown here]\nTraceback\nline 1\n\n--- cell 3: code ---\n--- output of cell 3 ---\nE: v\n\n--- cell 4: raw ---\nraw\n")
    assert b.call("read", file_path="n.ipynb").text == want, b.call("read", file_path="n.ipynb").text
    assert b.call("read", file_path="n.ipynb", view_range=[1, 1]).text.startswith('{"cells": [')
    # what is none is text
    for text in ("", "{}", "[1]", "not json", '{"cells": 5, "nbformat": 4}', '{"worksheets": [], "nbformat": 3}', '{"cells": []}'):
        put(b, "t.ipynb", text)
        assert b.call("read", file_path="t.ipynb").text == text, text
    put(b, "e.ipynb", notebook())
    assert b.call("read", file_path="e.ipynb").text == "[a notebook without cells]"
    put(b, "odd.ipynb", notebook(5, None, {"cell_type": 7, "source": {"a": 1}, "outputs": [5, {}, {"data": [1]}, {"data": {"text/plain": 5}}, {"output_type": "error"}]}, {"source": [1, "x", None]}))
    assert b.call("read", file_path="odd.ipynb").text == "--- cell 1: unknown ---\n--- output of cell 1 ---\nerror: \n\n--- cell 2: unknown ---\nx\n"


@test
def large_notebooks(box):
    b = box()
    put(b, "n.ipynb", notebook({"cell_type": "code", "source": "x", "outputs": [{"output_type": "stream", "text": "\u20ac" * 400_000}]},
                               {"cell_type": "code", "source": "y", "outputs": [{"output_type": "display_data", "data": {"image/png": "A" * 3_000_000}}]}))
    r = b.call("read", file_path="n.ipynb")
    assert not r.error and "\u20ac" * 10000 + "\n[1170000 bytes more; the notebook file has them]\n" in r.text and len(r.text) < 10400, r
    put(b, "n.ipynb", notebook(*({"cell_type": "markdown", "source": "x" * 30000} for _ in range(10))))
    r = b.call("read", file_path="n.ipynb")
    assert r.error and "has 10 cells, whose text exceeds 262144-byte limit. Use view_range" in r.text, r
    put(b, "n.ipynb", notebook({"cell_type": "markdown", "source": "x" * (17 << 20)}))
    assert "exceeds 262144-byte limit" in b.call("read", file_path="n.ipynb").text
    put(b, "n.ipynb", '{"nbformat":4,"cells":[' + "[" * 100 + "]" * 100 + "]}")
    assert b.call("read", file_path="n.ipynb").text.startswith('{"nbformat":4')
