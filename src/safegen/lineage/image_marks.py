"""Marks of generators in image files: reasons to ask, never proof. No text of a file is ever told.

Programs that run diffusion models write their settings into PNG texts and EXIF; services say
`trainedAlgorithmicMedia` (IPTC, "Digital Source Type NewsCodes") in XMP or in a C2PA manifest. The
latter is more than a mark where its signature is sound and of this very file (`lineage.in_band`),
for which c2pa-python is needed. Cameras sign manifests, too: one that does not say so is no mark.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter

import pyarrow as pa

from safegen.errors import MissingExtra
from safegen.lineage.facts import Evidence
from safegen.tables.batches import is_provenance
from safegen.tables.credentials import Mime, parseable, read_credential
from safegen.tables.embedded import embedded, holds_binary
from safegen.tables.image_metadata import JPEG, WEBP, Metadatum, metadata_of
from safegen.tables.images import PNG

__all__ = ["Claims", "ImageMarks"]

_TRAINED = re.compile(rb"trainedAlgorithmic(Media|Data)", re.IGNORECASE)

_GENERATORS = {
    "Stable Diffusion": rb"stable[ _-]?diffusion|\bsdxl\b|automatic1111",
    "ComfyUI": rb"comfyui",
    "InvokeAI": rb"invoke-?ai",
    "NovelAI": rb"novelai",
    "Fooocus": rb"fooocus",
    "Midjourney": rb"midjourney",
    "DALL-E": rb"dall[^a-z]{1,3}e\b",
    "Adobe Firefly": rb"adobe[ _]firefly",
    "FLUX": rb"black[ -]forest[ -]labs",
}
_NAMED = {tool: re.compile(names, re.IGNORECASE) for tool, names in _GENERATORS.items()}

_SETTINGS = re.compile(rb"\bSteps: \d+, .{0,400}?\bSampler: ", re.DOTALL)
_NODES = re.compile(rb'"(class_type|nodes)"\s*:')
_JOB = re.compile(rb"\bJob ID: [0-9a-f]{8}-[0-9a-f]{4}-")

_SAYING = frozenset({"software", "source", "description", "comment", "generator", "creator tool"})
"""Keywords whose text names what made an image; a title or a caption may speak of anything."""

_OWN = {"invokeai_metadata": "InvokeAI", "invokeai_graph": "InvokeAI", "sd-metadata": "InvokeAI"}
_CREATOR = re.compile(rb"CreatorTool(?:>|=[\"'])([^<\"']{0,200})")
_MANIFEST = "c2pa"


_PLAIN = "a C2PA manifest that names no trained model; its signature was not checked"
_UNREAD = "a C2PA manifest that is packed or too large to be read"
_SIGNED = "a C2PA manifest that names trained models; its signature was not checked"
_BROKEN = "a C2PA manifest that names trained models, and is damaged or of another file"
_HOLDS = "a C2PA manifest that names trained models, and is of this very file"

_MAX_FILE = 1 << 26  # bytes of an image that the library is given
_MIMES: dict[bytes, Mime] = {PNG: "image/png", JPEG: "image/jpeg", WEBP: "image/webp"}


class Claims:
    """What C2PA manifests in image files come to; the same file is read once.

    No manifest is given to the library but what names a trained model and is `parseable`. What
    cannot be read is a mark.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def hold(self, data: bytes) -> bool:
        """Whether a file says that a trained model made it, or a part of it, in a manifest that is
        signed, by whomever, and of this very file."""
        return self.said(data) == _HOLDS

    def said(self, data: bytes) -> str | None:
        """What a file's manifests come to, in our words; None without one."""
        parts = [part.data for part in metadata_of(data) if part.kind == "c2pa"]
        if not parts:
            return None
        if not all(map(parseable, parts)):
            return _UNREAD
        if not any(map(_TRAINED.search, parts)):
            return _PLAIN
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest not in self._known:
            self._known[digest] = _checked(data)
        return self._known[digest]


def _checked(data: bytes) -> str:
    (mime,) = (m for start, m in _MIMES.items() if data.startswith(start))
    if len(data) > _MAX_FILE:
        return _SIGNED
    try:
        found = read_credential(io.BytesIO(data), mime)
    except MissingExtra:
        return _SIGNED
    if found is None or not found.holds:
        return _BROKEN
    return _HOLDS if found.trained else _PLAIN  # the words stand elsewhere in it


class ImageMarks:
    """Counts the image files that generators left a mark in while a table's batches pass by."""

    def __init__(self, schema: pa.Schema, ring: str, claims: Claims | None = None) -> None:
        self._ring = ring
        self._claims = claims or Claims()
        self._names = [f.name for f in schema if holds_binary(f.type) and not is_provenance(f.name)]
        self._found: Counter[str] = Counter()

    def __call__(self, batch: pa.RecordBatch) -> None:
        for name in self._names:
            column = batch.column(batch.schema.get_field_index(name))
            for _, data in embedded(column, (PNG, JPEG, WEBP)):
                # Each mark once a file, however often it is in it.
                parts = [p for p in metadata_of(data) if p.kind != "c2pa"]
                found = {m for part in parts for m in _marks(part)}
                if (said := self._claims.said(data)) not in (None, _HOLDS):
                    found.add(str(said))
                self._found.update(found)

    def merge(self, other: ImageMarks) -> None:
        """Add what was found in other rows of the same table."""
        self._found.update(other._found)

    def evidence(self) -> list[Evidence]:
        """A piece for each kind of mark."""
        return [
            Evidence(
                _MANIFEST if what == _PLAIN else self._ring,
                f"{count:,} image{'s' * (count != 1)} with {what}",
                "unknown",
            )
            for what, count in self._found.items()
        ]


_SAID = "a trained model as their DigitalSourceType in XMP"


def _marks(part: Metadatum) -> set[str]:
    """What a part of a file says, in our words."""
    if part.kind == "xmp":
        told = b" ".join(_CREATOR.findall(part.data))
        found = {_SAID} if _TRAINED.search(part.data) else set()
        return found | {f"{tool} named as their tool in XMP" for tool in _named(told)}
    if part.kind == "exif":  # of two bytes a letter, often
        text = part.data.replace(b"\x00", b"")
        found = {"settings of Stable Diffusion in EXIF"} if _SETTINGS.search(text) else set()
        return found | {f"{tool} named in EXIF" for tool in _named(text)}
    return _texts(part)


def _texts(part: Metadatum) -> set[str]:
    found: set[str] = set()
    if part.keyword in _OWN:
        found.add(f"settings of {_OWN[part.keyword]} in a text ({part.keyword})")
    if part.keyword in ("parameters", "comment", "description") and _SETTINGS.search(part.data):
        found.add(f"settings of Stable Diffusion in a text ({part.keyword})")
    if part.keyword in ("prompt", "workflow") and _NODES.search(part.data):
        found.add(f"settings of ComfyUI in a text ({part.keyword})")
    if part.keyword == "description" and _JOB.search(part.data):
        found.add("a job of Midjourney in a text (description)")
    if part.keyword in _SAYING:
        found |= {f"{tool} named in a text ({part.keyword})" for tool in _named(part.data)}
    return found


def _named(text: bytes) -> list[str]:
    return [tool for tool, names in _NAMED.items() if names.search(text)]
