"""Small files of the kinds that read shows, whole as far as their outline goes; pad makes them larger."""
import struct, zlib


def png(w=1, h=1, pad=0):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = zlib.compress(b"".join(b"\0" + b"\x80" * w for _ in range(h))) if w * h < 10 ** 6 else b""
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)) +
            (chunk(b"paDd", bytes(pad)) if pad else b"") + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


def gif(w=1, h=1):
    return b"GIF89a" + struct.pack("<HH", w, h) + bytes.fromhex("800000ffffff0000002c00000000010001000002024401003b")


def jpeg(w=1, h=1, fill=b""):
    return (b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + b"\xff\xff\xfe\0\6note" + b"\xff\xc0\0\x0b\x08" + struct.pack(">HH", h, w) +
            b"\1\1\x11\0" + b"\xff\xda\0\x08\1\1\0\0\x3f\0" + fill + b"\x12\x34\xff\xd9")


def webp(kind="VP8X", w=1, h=1):
    body = {"VP8X": b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + struct.pack("<I", w - 1)[:3] + struct.pack("<I", h - 1)[:3],
            "VP8L": b"VP8L" + struct.pack("<I", 5) + b"\x2f" + struct.pack("<I", (w - 1) | (h - 1) << 14) + bytes(5),
            "VP8 ": b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", w, h)}[kind]
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def pdf(pad=0):
    return b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n" + b"x" * pad + b"\ntrailer<</Root 1 0 R>>\nstartxref\n9\n%%EOF\n"
