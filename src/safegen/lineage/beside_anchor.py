"""Whether rows of which nobody knows what they are look like rows that are attested to be real.

The last ring, and no verdict rests on it: other people, another year and a generator all look
unlike the anchor, and a good generator hardly does. What it finds is a note in the decision.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from safegen.errors import SafegenError, upstream
from safegen.lineage.facts import SourceFacts
from safegen.lineage.search import thinned
from safegen.tables.batches import Batches, is_provenance
from safegen.tables.digests import folded
from safegen.tables.schema import infer_schema
from safegen.tables.sources import Source
from safegen.tables.types import family, is_text

__all__ = ["told_apart"]

ROWS = 5_000
"""Rows of either kind that are compared, about; a second or two."""

FEWEST = 200
"""Rows of either kind below which nothing is told."""


def told_apart(sources: Sequence[Source], facts: Sequence[SourceFacts]) -> list[str]:
    """A note for each source without evidence that stands beside one that is attested to be real
    and has two of its columns or more: how well a classifier tells their rows apart (C2ST)."""
    single = [(s, f) for s, f in zip(sources, facts, strict=True) if len(s.tables) == 1]
    anchors = [(s, f) for s, f in single if f.origin == "real" and f.attested]
    notes = []
    for source, of in single:
        if of.origin != "unknown":
            continue
        for anchor, said in anchors:
            real, made = (next(iter(s.tables.values())) for s in (anchor, source))
            if (note := _note(real, made)) is not None:
                notes.append(f"{of.uri} beside the attested rows of {said.uri}: {note}")
                break
    return notes


def _note(real: Batches, made: Batches) -> str | None:
    from safegen.measure.classifiers import c2st  # scikit-learn is loaded when it is needed

    mine, theirs = _columns(real.schema), _columns(made.schema)
    names = [n for n in mine if n in theirs and mine[n][1] == theirs[n][1]]
    if len(names) < 2:
        return None
    try:
        anchor, rows = (
            _rows(batches, [of[n][0] for n in names]).rename_columns(names)
            for batches, of in ((real, mine), (made, theirs))
        )
        if min(anchor.num_rows, rows.num_rows) < FEWEST:
            return None
        found = c2st(anchor, rows, infer_schema(anchor))
    except Exception as error:  # what nothing rests on must not stop a check
        said = str(error) if isinstance(error, SafegenError) else upstream(error)
        return f"not compared: {said}"
    low, high = found.interval
    said = (
        "not told apart"
        if low <= 0.5
        else "told apart: another population, another time or a generator"
    )
    return f"AUC {found.value:.3f} ({low:.3f} to {high:.3f}), {said}; no verdict rests on this"


def _columns(schema: pa.Schema) -> dict[str, tuple[str, str]]:
    """The columns that can be compared, by their folded names, and what kind each has."""
    found: dict[str, tuple[str, str]] = {}
    for field in schema:
        kind: str = "text" if is_text(field.type) else family(field.type)
        kind = "number" if kind in ("int", "float", "decimal") else kind
        if kind in ("text", "number", "time", "bool") and not is_provenance(field.name):
            found[folded(field.name)] = field.name, kind
    return found


def _rows(batches: Batches, names: list[str]) -> pa.Table:
    """About `ROWS` of a table's rows, drawn at random."""
    count = batches.rows
    if count is None:
        count = sum(b.num_rows for b in batches)
    return thinned(batches.select(names), min(ROWS / max(count, 1), 1.0), b"looks").table()
