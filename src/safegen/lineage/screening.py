"""A look at a random part of a source: enough to find a small share of synthetic rows in it.

Nothing is read but those rows, so no digest says what the whole is: who was attested to be real is
not known to be so from a part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from safegen.ledger import Ledger
from safegen.lineage.documents import from_folder, from_stamps
from safegen.lineage.evidence import parts_of
from safegen.lineage.facts import Evidence, SourceFacts, combined
from safegen.lineage.image_search import images_searched, with_images
from safegen.lineage.in_band import InBand
from safegen.lineage.search import (
    SAMPLE,
    Sample,
    Searched,
    copies,
    merged,
    searched,
    thinned,
)
from safegen.manifest import PublicKey
from safegen.tables.batches import Batches
from safegen.tables.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["screened"]

POWER = 0.999
"""The chance to find the share that is asked for."""

_OFTEN = 1_400
"""Rows of the share that is asked for that are looked at first: where few real rows pass for
released ones, more than it takes."""

_MOST = 2**17
"""Rows that are kept, at most. More pass by, and leave their fingerprints."""


def screened(
    source: Source, ledger: Ledger | None, share: float, keys: Sequence[PublicKey] = ()
) -> SourceFacts:
    """Read a source once or a few times and look at as many random rows as it takes to find, with a
    chance of 99.9 %, a `share` of rows of any registered release; all rows of a small table.

    Its manifest, stamps and provenance columns are read, too; `keys` as `resolve` has them.
    Raises: LedgerError.
    """
    problems: list[str] = []
    pieces: list[Evidence] = []
    for part, one in parts_of(source):
        pieces += [replace(p, part=part) for p in from_folder(one, ledger, problems, keys)]
    pieces += from_stamps(source.stamps)
    rows = 0
    searches: list[Searched] = []
    epochs = ledger.key_epochs() if ledger is not None else []
    for name, batches in source.tables.items():
        tally = InBand(batches.schema)
        size = min(max(int(_OFTEN / share), SAMPLE), _MOST)
        first = Sample(batches, epochs[0][1], size) if epochs else None
        count = _passed(batches, [tally, *([first] if first is not None else [])])
        rows += count
        if (piece := tally.evidence(name)) is not None:
            pieces.append(piece)
        if ledger is None or first is None:
            continue
        search, size = searched(None, first, ledger, POWER), first.size
        while size < count and (wanted := _wanted(search, share, size)) > size:
            size = min(wanted, count)
            search = searched(thinned(batches, size / count, epochs[0][1]), first, ledger, POWER)
        search = with_images(search, images_searched(batches, ledger))
        searches.append(search)
        part = name if len(source.tables) > 1 else None
        pieces += [replace(p, part=part) for p in copies(search)]
    facts = combined(source.uri, list(source.tables), rows, "", {}, pieces, problems)
    return replace(facts, search=merged(searches))


def _wanted(search: Searched, share: float, size: int) -> int:
    """Rows that will do, where so many did not; of more rows no more parts are looked at."""
    if search.found or search.least is None or "whole rows" not in search.rings:
        return size
    return 0 if search.least <= share else int(1.2 * size * max(search.least / share, 2))


def _passed(batches: Batches, seen: list[Callable[[pa.RecordBatch], None]]) -> int:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        for one in seen:
            one(batch)
    return rows
