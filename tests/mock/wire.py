"""How a reply of the model server travels: its frames as bytes, and all that can happen to them on the way.

A Way holds what a plan asks for (the directives below, one object for each reply); Wire writes the frames of one
streaming response through it: cut into pieces, with noise between them, with a stall, or with an early end. What a
reply says is decided in messages.py; nothing here reads it. The invariant: without a wish the bytes are those that the
real service sends, and a piece is a chunk and a write of its own, so that the reader gets it alone.

    [[split N|utf8|crlf|lines|raw]]  pieces of N bytes; cut inside every UTF-8 sequence; between CR and LF; after each
                                     line; raw: every byte of the response, head and chunk sizes too, in a write of its own
    [[eol crlf|cr]]                  line ends of the event stream
    [[noise]]                        comments, pings, events, members, deltas and SSE fields that nobody knows; a BOM;
                                     JSON over several data lines
    [[stall WHERE [MS] [pings] [xN]]]    says nothing (or only pings), so long or for ever, then goes on
    [[die rst|eof|end WHERE [xN]]]   a reset; the connection's end in mid-response; the response's orderly end
                                     WHERE: head (before the status line), first (before the first event), mid, late
                                     (before the last event), over (after it)
"""
import json
import select
import socket
import struct
import time

PLACES = ("head", "first", "mid", "late", "over")
FOR_EVER = 900


class Died(Exception):
    """The connection was ended as the plan wanted."""


class Way:
    def __init__(self):
        self.split, self.eol, self.noise, self.stall, self.die = None, "\n", False, None, None

    def directive(self, word, words, play):
        """Takes one; False if it is none of these. play(): must it happen (again)?"""
        if word == "split":
            self.split = words[0]
            if words[0] == "crlf":
                self.eol = "\r\n"
        elif word == "eol":
            self.eol = {"crlf": "\r\n", "cr": "\r", "lf": "\n"}[words[0]]
        elif word == "noise":
            self.noise = True
        elif word == "stall" and words[0] in PLACES:
            ms = [int(x) for x in words[1:] if x.isdigit()]
            if play():
                self.stall = (words[0], ms[0] / 1000 if ms else None, "pings" in words)
        elif word == "die" and words[0] in ("rst", "eof", "end") and words[1] in PLACES:
            if play():
                self.die = (words[0], words[1])
        else:
            return False
        return True


class Dribble:
    """A file that writes each byte by itself."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        for i in range(len(data)):
            self.file.write(data[i:i + 1])

    def __getattr__(self, name):
        return getattr(self.file, name)


def pieces(data, split):
    """A frame's bytes as they are sent."""
    if split is None or split == "raw":
        return [data]
    if split.isdigit():
        n = int(split)
        return [data[i:i + n] for i in range(0, len(data), n)]
    if split == "utf8":
        cuts = [i for i in range(1, len(data)) if 0x80 <= data[i] < 0xc0]
    elif split == "crlf":
        cuts = [i for i in range(1, len(data)) if data[i - 1:i + 1] == b"\r\n"]
    elif split == "lines":
        cuts = [i for i in range(1, len(data)) if data[i - 1] in b"\r\n" and data[i - 1:i + 1] != b"\r\n"]
    else:
        raise ValueError("split " + split)
    return [data[a:b] for a, b in zip([0] + cuts, cuts + [len(data)])]


def frame(event, text, eol="\n"):
    lines = ["event: " + event] if event else []
    return (eol.join(lines + ["data: " + x for x in text.split("\n")]) + eol + eol).encode()


NEWS = {"a": [1, 2.5, None], "b": {"c": "\u00e9"}}


def noisy(event, data, n, eol):
    """The frame among others that a reader has to pass over."""
    out = ["\ufeff: good day" if n == 1 else ": good day", "", ":", ""]
    if event:
        out += ["event: ping", 'data: {"type": "ping"}', "", "event: galaxy_news",
                "data: " + json.dumps({"type": "galaxy_news", "index": 0, "delta": {"type": "text_delta", "text": "no"}}), ""]
        if event == "content_block_start":
            after = ["event: content_block_delta", "data: " + json.dumps(
                {"type": "content_block_delta", "index": data["index"], "delta": {"type": "sparkle_delta", "text": "no"}}), ""]
        else:
            after = []
    else:
        out += ["data: " + json.dumps({"object": "chat.completion.chunk", "choices": []}), "",
                "data: " + json.dumps({"object": "chat.completion.chunk", "choices": [
                    {"index": 0, "delta": {"sparkle": "no"}, "finish_reason": None}]}), "",
                "data: " + json.dumps({"galaxy_news": NEWS}), ""]
        after = []
    more = dict(data, novelty=NEWS)
    for key in ("delta", "message"):
        if isinstance(more.get(key), dict):
            more[key] = dict(more[key], novelty=NEWS)
    if more.get("choices"):
        more["choices"] = [dict(c, novelty=NEWS, logprobs=None) for c in more["choices"]]
    out += ["id: %d" % n, "retry: 250", "shade: blue", "id"]
    out += ["event: " + event] if event else []
    out += ["data:" + (" " if i % 2 else "") + x for i, x in enumerate(json.dumps(more, indent=1).split("\n"))]
    return (eol.join(out + [""] + after) + eol).encode()


class Wire:
    """One streaming response of a handler (http.server). events: (event, data) pairs, (None, None) for a pause."""

    def __init__(self, handler, way, delay, drip):
        self.h, self.way, self.delay, self.drip = handler, way, delay, drip

    def send(self, head, events, last, garbage=False):
        """head(): writes status line and headers. last: bytes after the last event (or b""). garbage: a frame of no JSON."""
        plain = self.h.wfile
        if self.way.split == "raw":
            self.h.wfile = Dribble(plain)
        try:
            self.at("head")
            head()
            self.at("first")
            self.frames(list(events), last, garbage)
            self.at("over")
            self.h.wfile.write(b"0\r\n\r\n")
        finally:
            self.h.wfile = plain

    def frames(self, events, last, garbage):
        plan = self.way.stall or self.way.die
        count = sum(e is not None for e, _ in events) + bool(last)
        stops = {max(1, count // 2): "mid", count - 1: "late"} if plan else {}
        pending, n = b"", 0
        for event, data in events:
            if event is None:
                if self.delay:
                    self.flush(pending)
                    pending = b""
                    time.sleep(self.delay)
                continue
            n += 1
            if self.way.noise:
                pending += noisy(event, data, n, self.way.eol)
            else:
                pending += frame(event, json.dumps(data, ensure_ascii=n % 2 == 0), self.way.eol)
            if garbage and n == 3:
                pending += frame("content_block_delta", "{broken", self.way.eol)
            if n in stops or len(pending) > 4096 or self.delay or n == 1 or self.way.split:
                self.flush(pending)
                pending = b""
            if n in stops:
                self.at(stops[n])
        self.flush(pending + last.replace(b"\n", self.way.eol.encode()))

    def flush(self, data):
        for piece in pieces(data, self.way.split) if data else []:
            out = b"%x\r\n%s\r\n" % (len(piece), piece)
            if self.drip:
                for i in range(0, len(out), 3):
                    self.h.wfile.write(out[i:i + 3])
            else:
                self.h.wfile.write(out)

    def at(self, place):
        """What happens here."""
        if self.way.stall and self.way.stall[0] == place:
            self.stall(*self.way.stall[1:])
        if self.way.die and self.way.die[1] == place:
            self.die(self.way.die[0], place)

    def stall(self, seconds, pings):
        end = time.monotonic() + (FOR_EVER if seconds is None else seconds)
        while (left := end - time.monotonic()) > 0:
            if select.select([self.h.connection], [], [], min(left, 0.1 if pings else 1))[0] and not self.h.connection.recv(1):
                raise ConnectionError("closed by the client")
            if pings:
                self.flush(b": ping\n\n" if self.h.chat else b'event: ping\ndata: {"type": "ping"}\n\n')

    def die(self, how, place):
        self.h.close_connection = True
        if how == "end":
            if place != "head":
                self.h.wfile.write(b"0\r\n\r\n")
        elif how == "rst":
            self.h.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            fd = self.h.connection.detach()
            socket.close(fd)
        raise Died()
