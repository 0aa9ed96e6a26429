"""What image files say of themselves: texts, XMP, EXIF and C2PA manifests, read without a decoder.

PNG: W3C, "Portable Network Graphics (PNG) Specification (Third Edition)", 11.3.3. JPEG: ITU-T T.81,
B.1; JUMBF in APP11: ISO/IEC 19566-5, D. WebP: RFC 9649. Where C2PA stands: "C2PA Technical
Specification 2.1", A.3. All is bounded, nothing is followed, and what is no such file has nothing.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from safegen.tables.images import CREDENTIAL, PNG, png_chunks

__all__ = ["JPEG", "MAX_BYTES", "WEBP", "Metadatum", "metadata_of"]

JPEG = b"\xff\xd8\xff"
WEBP = b"RIFF"

MAX_PARTS = 64
"""Chunks or segments of one file that are looked at."""

MAX_BYTES = 1 << 20
"""Bytes of one of them that are looked at."""

MAX_UNPACKED = 1 << 18
"""Bytes of a packed text that are unpacked: a small file can hold many more."""

_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_BOX = 16  # APP11: "JP", box instance, packet number, and the box's length and type

Kind = Literal["text", "xmp", "exif", "c2pa"]


@dataclass(frozen=True)
class Metadatum:
    """A part of a file. keyword: of a PNG text, in lower case. data: its bytes, unpacked."""

    kind: Kind
    data: bytes
    keyword: str = ""


def metadata_of(data: bytes) -> Iterator[Metadatum]:
    """The metadata of a PNG, JPEG or WebP file, in order; a C2PA manifest comes once."""
    if data.startswith(PNG):
        yield from _png(data)
    elif data.startswith(JPEG):
        yield from _jpeg(data)
    elif data.startswith(WEBP) and data[8:12] == b"WEBP":
        yield from _webp(data)


def _png(data: bytes) -> Iterator[Metadatum]:
    texts = (b"tEXt", b"zTXt", b"iTXt")
    told = (c for c in png_chunks(data) if c[2] in (*texts, b"eXIf", CREDENTIAL))
    for start, end, kind in islice(told, MAX_PARTS):
        body = data[start + 8 : min(end - 4, start + 8 + MAX_BYTES)]
        if kind in texts:
            name, _, rest = body.partition(b"\x00")
            keyword = name.decode("latin-1").strip().lower()
            text = _unpacked(kind, rest)
            yield Metadatum("xmp" if keyword == "xml:com.adobe.xmp" else "text", text, keyword)
        else:
            yield Metadatum("exif" if kind == b"eXIf" else "c2pa", body)


def _unpacked(kind: bytes, rest: bytes) -> bytes:
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, rest = rest[:1] == b"\x01", rest[2:]
        for _ in range(2):  # language, and the keyword in it
            _, _, rest = rest.partition(b"\x00")
    elif packed:
        rest = rest[1:]  # the method
    if not packed:
        return rest
    try:
        return zlib.decompressobj().decompress(rest, MAX_UNPACKED)
    except zlib.error:
        return b""


def _jpeg(data: bytes) -> Iterator[Metadatum]:
    boxes: list[bytes] = []
    for marker, body in islice(_segments(data), MAX_PARTS):
        if marker == 0xE1 and body.startswith(_XMP):
            yield Metadatum("xmp", body[len(_XMP) :])
        elif marker == 0xE1 and body.startswith(b"Exif\x00"):
            yield Metadatum("exif", body[6:])
        elif marker == 0xFE:
            yield Metadatum("text", body, "comment")
        elif marker == 0xEB and body.startswith(b"JP") and body[12:_BOX] == b"jumb":
            boxes.append(body[_BOX:])  # each packet repeats the head of its box
    manifest = b"".join(boxes)[:MAX_BYTES]
    if b"c2pa" in manifest:  # others use such boxes, too
        yield Metadatum("c2pa", manifest)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) before the picture begins."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # filling
            at += 1
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if marker in (0xD9, 0xDA) or size < 2 or at + 2 + size > len(data):
            return
        yield marker, data[at + 4 : at + 2 + size]
        at += 2 + size


def _webp(data: bytes) -> Iterator[Metadatum]:
    kinds: dict[bytes, Kind] = {b"XMP ": "xmp", b"EXIF": "exif", b"C2PA": "c2pa"}
    at = 12
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return
        name, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        if at + 8 + size > len(data):
            return
        if name in kinds:
            yield Metadatum(kinds[name], data[at + 8 : at + 8 + min(size, MAX_BYTES)])
        at += 8 + size + size % 2
