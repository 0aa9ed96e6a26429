"""Marks that other tools leave in what they make: reasons to ask, never proof.

SDV writes `sdv-id-…` and `sdv-pii-…` where it makes up ids and personal data; MOSTLY AI writes
`_RARE_` for values that it protects; dataset cards say in their front matter that rows are
synthetic. A person may have kept either among real rows, and anybody may write a card. What is in
image files is in `lineage.image_marks`.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from safegen.lineage.facts import Evidence
from safegen.lineage.image_marks import Claims, ImageMarks
from safegen.places import Place
from safegen.tables.batches import is_provenance
from safegen.tables.numbers import decoded
from safegen.tables.types import is_text

__all__ = ["RING", "Marks", "carded"]

RING = "marks"

_PREFIXES = {"sdv-id-": "SDV", "sdv-pii-": "SDV"}
_VALUES = {"_RARE_": "MOSTLY AI"}

_CARD_BYTES = 64 * 1024
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)
_SYNTHETIC = re.compile(
    r"^\s*(-\s*|tags:.*[\[,\s]|annotations_creators:.*[\[,\s])[\"']?(synthetic|machine-generated)\b",
    re.MULTILINE | re.IGNORECASE,
)


class Marks:
    """Counts the values of other tools while a table's batches pass by."""

    def __init__(self, schema: pa.Schema, claims: Claims | None = None) -> None:
        self._names = [f.name for f in schema if not is_provenance(f.name) and is_text(f.type)]
        self._found: dict[tuple[str, str], int] = {}
        self._images = ImageMarks(schema, RING, claims)

    def __call__(self, batch: pa.RecordBatch) -> None:
        self._images(batch)
        for name in self._names:
            values = decoded(batch.column(name))
            for mark, tool in _PREFIXES.items():
                self._count(tool, mark + "…", pc.starts_with(values, pattern=mark))
            for mark, tool in _VALUES.items():
                self._count(tool, mark, pc.equal(values, mark))

    def merge(self, other: Marks) -> None:
        """Add what was found in other rows of the same table."""
        for mark, count in other._found.items():
            self._found[mark] = self._found.get(mark, 0) + count
        self._images.merge(other._images)

    def _count(self, tool: str, mark: str, hits: pa.Array) -> None:
        count = pc.sum(hits).as_py() or 0
        if count:
            self._found[tool, mark] = self._found.get((tool, mark), 0) + count

    def evidence(self) -> list[Evidence]:
        """A piece for each kind of mark, which says nothing of how many rows are synthetic."""
        values = [
            Evidence(RING, f"{count:,} values are such as {tool} makes up ({mark})", "unknown")
            for (tool, mark), count in self._found.items()
        ]
        return values + self._images.evidence()


def carded(place: Place | None) -> list[Evidence]:
    """What a dataset card beside a file, or in a folder, says of its rows."""
    if place is None:
        return []
    card = (place if place.is_dir() else place.parent) / "README.md"
    try:
        with card.open("rb") as file:
            text = file.read(_CARD_BYTES).decode("utf-8", errors="replace")
    except OSError:
        return []
    front = _FRONT.match(text)
    if front is None or not _SYNTHETIC.search(front[1]):
        return []
    return [Evidence(RING, f"{card.name} beside it says that it is synthetic", "unknown")]
