"""One pass over a table, for all that is to be known of its rows: here, or where they are.

Of rows that are elsewhere (`Batches.there`) each part is looked at in the process that has it, and
what comes back adds up: digests, counts of marks and provenance columns, and the cells of random
rows, 32,768 of all parts together. What is sent there has keys that are derived from the ledger's:
one for its lookup digests, one for which rows are random. The ledger's own key stays here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from safegen.lineage.image_marks import Claims
from safegen.lineage.in_band import InBand
from safegen.lineage.marks import Marks
from safegen.lineage.search import SAMPLE, Sample
from safegen.tables.batches import Batches
from safegen.tables.digesting import table_digests
from safegen.tables.digests import LookupDigest, RowsDigest, TableDigests

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Look", "digested", "looked"]

Keys = Sequence[tuple[str, bytes]]


@dataclass
class Look:
    """What was found in the rows of a table. `sample` is None where no ledger has keys."""

    rows: RowsDigest
    lookups: dict[str, LookupDigest]
    in_band: InBand
    marks: Marks
    sample: Sample | None = None

    def merge(self, other: Look) -> None:
        """Add what was found in other rows of the same table."""
        self.rows.merge(other.rows)
        for key_id, lookup in self.lookups.items():
            lookup.merge(other.lookups[key_id])
        self.in_band.merge(other.in_band)
        self.marks.merge(other.marks)
        if self.sample is not None and other.sample is not None:
            self.sample.merge(other.sample)


def looked(batches: Batches, keys: Keys, also: Collection[str] = ()) -> Look:
    """Look at all rows of a table. keys: of the ledger, by their id; the first says which rows are
    random. also: older schemes of the logical digest that are wanted too.

    Raises: SourceError where they cannot be read.
    """
    claims = Claims()
    in_band, marks = InBand(batches.schema, claims), Marks(batches.schema, claims)
    sample = Sample(batches, keys[0][1]) if keys else None
    if batches.there is None:
        seen: list[Callable[[pa.RecordBatch], None]] = [in_band, marks]
        if sample is not None:  # without a key nobody looks for rows
            seen.append(sample)
        rows, lookups = table_digests(batches, keys, seen, also)
        return Look(rows, lookups, in_band, marks, sample)
    digests = TableDigests(batches.schema, keys, also)
    whole = Look(digests.rows, digests.lookups, in_band, marks, sample)
    there = _Looking(
        batches.schema,
        batches.rows,
        {key_id: one.handed_over() for key_id, one in digests.lookups.items()},
        tuple(also),
        hashlib.blake2b(key=keys[0][1], digest_size=32, person=b"safegen-sent").digest()
        if keys
        else None,
    )
    for part in batches.there(there):
        whole.merge(part)
    return whole


def digested(
    batches: Batches, keys: Keys, also: Collection[str] = ()
) -> tuple[RowsDigest, dict[str, LookupDigest]]:
    """The digests of a table alone."""
    if batches.there is None:
        return table_digests(batches, keys, also=also)
    look = looked(batches, keys, also)
    return look.rows, look.lookups


@dataclass(frozen=True)
class _Looking:
    """Looks at one part of a table, in whatever process has it."""

    schema: pa.Schema
    rows: int | None
    lookups: Mapping[str, Mapping[str, Any]] = field(repr=False)
    also: tuple[str, ...]
    key: bytes | None = field(repr=False)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Look:
        lookups = {key_id: LookupDigest.taken_over(one) for key_id, one in self.lookups.items()}
        claims = Claims()
        look = Look(
            RowsDigest(self.schema, self.also),
            lookups,
            InBand(self.schema, claims),
            Marks(self.schema, claims),
        )
        for batch in batches:
            if look.sample is None and self.key is not None:
                look.sample = self._sample(batch, self.key)
            look.rows.update(batch)
            LookupDigest.update_all(lookups.values(), batch)
            for tally in (look.in_band, look.marks, look.sample):
                if tally is not None:
                    tally(batch)
        return look

    def _sample(self, first: pa.RecordBatch, key: bytes) -> Sample:
        """Random rows of this part: other ones than of the others, whatever it is called there."""
        begins = RowsDigest(self.schema)
        begins.update(first.slice(0, 16))
        part = hashlib.blake2b(begins.value().encode(), key=key, digest_size=32).digest()
        return Sample(Batches(self.schema, lambda: (), self.rows), part, SAMPLE)
