"""Whether a table has rows of a registered release: the ring of fingerprints.

A random part of the rows is enough to know the columns by and to look at views; whole rows are
looked up all, for one in a thousand counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.errors import LedgerError
from safegen.ledger import Attached, Ledger
from safegen.lineage.detection import ALPHA, POWER, Met, met_on_views, met_watermark, met_whole
from safegen.lineage.facts import Evidence
from safegen.lineage.fingerprints import Cells, Hasher, Prints, SentHasher, WholeRows
from safegen.lineage.forms import Matched, Profile
from safegen.lineage.registering import FORMS, PRINTS, Known, known_forms
from safegen.lineage.routing import DIRECT, routes
from safegen.lineage.watermark import Watermark
from safegen.processes import abreast
from safegen.tables.batches import Batches, is_provenance
from safegen.tables.numbers import single, taken
from safegen.tables.words import Column, is_plain, joined

__all__ = ["SAMPLE", "Found", "Sample", "Searched", "copies", "merged", "searched", "thinned"]

SAMPLE = 32_768
"""Rows that are looked at on views: of a tenth of synthetic ones among them no test misses many."""

MOST_FORMS = 16
"""Forms that a table is compared with, those most like it."""

SHOWN = 20
"""Datasets of which rows were found that are named, those with the most first."""

KNOWN_BY = 8_192
"""Rows by which columns are known."""


@dataclass(frozen=True)
class Found:
    """Rows of a dataset in a table; by their watermark only rows of some release."""

    dataset_id: str | None
    met: Met
    depth: int
    effective_depth: float


@dataclass(frozen=True)
class Searched:
    """What a search of one table came to. datasets: in the ledger, with fingerprints; alike: those
    of them with columns like the table's. p: the smallest of all tests', for as many as there are.
    least: the share of rows from which on rows of any of these are found with a chance of `power`;
    None where none is alike. rings: the same of each kind of test for itself, by its name: the
    smallest p, and the share."""

    found: tuple[Found, ...]
    datasets: int
    alike: int
    p: float
    least: float | None
    power: float = POWER
    rings: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class Sample:
    """A random part of a table's rows, `size` at most, while they pass by; which, only the ledger's
    key says."""

    def __init__(self, table: Batches, key: bytes, size: int = SAMPLE):
        seed = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-sample").digest()
        self._names = [
            f.name for f in table.schema if not is_provenance(f.name) and is_plain(f.type)
        ]
        self._rng = np.random.default_rng(int.from_bytes(seed, "little"))
        self._pieces: list[tuple[np.ndarray, dict[str, Column]]] = []
        self.size = size
        # Of a table of known size hardly more rows are looked at than will stay.
        most = size + 6 * size**0.5 + 100
        self._cut = np.inf if table.rows is None else most / max(table.rows, 1)

    def __call__(self, batch: pa.RecordBatch) -> None:
        drawn = self._rng.random(batch.num_rows)
        stay = np.flatnonzero(drawn < self._cut)
        if not len(stay) or not self._names:
            return
        table = taken(pa.Table.from_batches([batch.select(self._names)]), stay)
        columns = {n: Column.of(single(table.column(n))) for n in self._names}
        self._pieces.append((drawn[stay], columns))
        if sum(len(d) for d, _ in self._pieces) > 2 * self.size:
            self._thin()

    def merge(self, other: Sample) -> None:
        """Add the rows that another sample kept of other rows of the table."""
        self._pieces += other._pieces
        if sum(len(d) for d, _ in self._pieces) > 2 * self.size:
            self._thin()

    def _thin(self) -> None:
        drawn = np.concatenate([d for d, _ in self._pieces])
        stay = np.argsort(drawn, kind="stable")[: self.size]
        columns = {n: joined([c[n] for _, c in self._pieces])[stay] for n in self._names}
        if len(stay) == self.size:
            self._cut = float(drawn[stay[-1]])
        self._pieces = [(drawn[stay], columns)]

    def columns(self) -> dict[str, Column]:
        """The rows' columns, in random order; nothing where no row has passed."""
        if not self._pieces:
            return {}
        self._thin()
        return self._pieces[0][1]


def thinned(batches: Batches, share: float, key: bytes) -> Batches:
    """A random share of a table's rows; which, only the ledger's key says."""
    if share >= 1:
        return batches
    seed = hashlib.blake2b(key=key, digest_size=7, person=b"safegen-thinned").digest()

    def opened() -> Iterator[pa.RecordBatch]:
        rng = np.random.default_rng(int.from_bytes(seed, "little"))
        for batch in batches:
            stay = np.flatnonzero(rng.random(batch.num_rows) < share)
            yield from taken(pa.Table.from_batches([batch]), stay).combine_chunks().to_batches()

    return Batches(batches.schema, opened)


def searched(
    batches: Batches | None, sample: Sample, ledger: Ledger, power: float = POWER
) -> Searched:
    """Look for rows of registered datasets in a table: whole rows in all of its batches or, without
    these, in the sample. Raises: LedgerError."""
    keys = dict(ledger.lookup_keys())
    attached = ledger.attached(PRINTS, FORMS)
    of_form: dict[str, list[Attached]] = {}
    for where in (a for a in attached if a.kind == PRINTS):
        of_form.setdefault(where.name.rpartition("/")[0], []).append(where)
    every = sum(map(len, of_form.values()))
    columns = sample.columns()
    if not every or not columns:
        return Searched((), every, 0, 1.0, None, power)
    forms = [k for k in known_forms(ledger, keys, attached) if k.form_id in of_form]
    alike = _alike(
        forms, {n: Profile(c[np.arange(min(len(c), KNOWN_BY))]) for n, c in columns.items()}
    )
    whole = _whole(alike, columns if batches is None else batches)
    some = {n: c[np.arange(min(len(c), SAMPLE))] for n, c in columns.items()}
    seen = _Seen(ledger, every, power)
    for form_id, (known, match) in alike.items():
        mine = {c.number: some[c.name] for c in match.columns}
        seen.marked(
            met_watermark(Watermark.of(known.key, known.form), match, mine, len(of_form), power)
        )
        cells = Cells(_hasher(known), known.form, mine, match)
        there = seen.routed(of_form[form_id], known, match, cells, whole.get(form_id))
        seen.compared(there, known, match, cells, whole.get(form_id))
    return seen.outcome(sum(len(of_form[form_id]) for form_id in alike))


class _Seen:
    """What one table's search has come to so far."""

    def __init__(self, ledger: Ledger, datasets: int, power: float):
        self._ledger, self._datasets, self._power = ledger, datasets, power
        self._found: list[Found] = []
        self._least: list[float] = []
        self._rings: dict[str, tuple[float, float]] = {}

    def marked(self, met: Met | None) -> None:
        """The watermark of one form."""
        self._asked("watermark", met)
        if met is not None and met.p <= ALPHA:
            self._found.append(Found(None, met, 1, 1.0))

    def routed(
        self,
        there: Sequence[Attached],
        known: Known,
        match: Matched,
        cells: Cells,
        rows: WholeRows | None,
    ) -> Sequence[Attached]:
        """Of many releases of one form those that the table has most in common with; what the
        others would have needed counts as what is not found."""
        if len(there) <= DIRECT:
            return there
        views = {i: cells.counted(v) for i, v in enumerate(known.form.views) if match.has(v)}
        kept = routes(self._ledger.ledger_id, known, there, self._prints)
        looked_at = len(next(iter(cells.columns.values())))
        found = kept.routed(there, rows, views, looked_at, self._datasets, self._power)
        self._least.append(found.least)
        return [*found.chosen]

    def compared(
        self,
        there: Sequence[Attached],
        known: Known,
        match: Matched,
        cells: Cells,
        rows: WholeRows | None,
    ) -> None:
        """Releases of one form, each on its views and by whole rows."""
        for view in known.form.views:  # found once, and not by each thread
            if match.has(view):
                cells.counted(view)

        def one(read: tuple[Attached, bytes]) -> tuple[Attached, Met | None, Met | None]:
            where, data = read
            prints = _parsed(data, where)
            parts = met_on_views(prints, known.form, match, cells, self._datasets, self._power)
            found = None if rows is None else met_whole(prints, rows, self._datasets, self._power)
            return where, parts, found

        # Those of a few releases are in memory at a time: of eight million rows each is 100 MB.
        for told in abreast(one, ((where, self._ledger.attachment(where)) for where in there)):
            self._told(*told)

    def outcome(self, alike: int) -> Searched:
        return Searched(
            tuple(sorted(self._found, key=lambda f: -f.met.share)),
            self._datasets,
            alike,
            min((p for p, _ in self._rings.values()), default=1.0),
            max(self._least, default=None),
            self._power,
            self._rings,
        )

    def _told(self, where: Attached, parts: Met | None, rows: Met | None) -> None:
        told = [*self._asked("parts of rows", parts), *self._asked("whole rows", rows)]
        if not told:
            return
        best = min(told, key=lambda m: m.p)
        if best.p <= ALPHA:
            record = self._ledger.get(where.dataset_id)
            if record is None:
                raise LedgerError(f"dataset {where.dataset_id} has fingerprints and no record")
            self._found.append(Found(where.dataset_id, best, record.depth, record.effective_depth))
        self._least.append(min(m.least for m in told))

    def _asked(self, ring: str, met: Met | None) -> list[Met]:
        if met is None:
            return []
        p, share = self._rings.get(ring, (1.0, 0.0))
        self._rings[ring] = min(p, met.p), max(share, met.least)
        return [met]

    def _prints(self, where: Attached) -> Prints:
        return _parsed(self._ledger.attachment(where), where)


def copies(searched: Searched) -> list[Evidence]:
    """A piece for each dataset of which rows were found."""
    pieces = []
    for found in searched.found[:SHOWN]:
        met = found.met
        low, high = met.interval
        share = min(max(met.share, 1 / max(met.rows, 1)), 1.0)
        if found.dataset_id is None:
            text = f"rows have this ledger's watermark ({met.what}, {met.found:,} of them"
        else:
            text = (
                f"{met.found:,} fingerprints of {met.rows:,} rows are of dataset "
                f"{found.dataset_id} ({met.what}; {met.decoys:,.3g} by chance"
            )
        pieces.append(
            Evidence(
                "fingerprints" if found.dataset_id else "watermark",
                f"{text}, p {_p(met.p)}): {100 * met.share:.3g} % of the rows, "
                f"{100 * low:.3g} to {100 * high:.3g} %",
                "synthetic" if met.share >= 1 else "mixed",
                share=share,
                depth=max(found.depth, 1),
                effective_depth=share * max(found.effective_depth, 1.0),
                lower_bound=True,
                dataset_id=found.dataset_id,
            )
        )
    return pieces


def merged(searches: Sequence[Searched]) -> dict[str, Any] | None:
    """What the searches of a source's tables could have found, for a decision; None without any."""
    if not searches:
        return None
    least = [s.least for s in searches]
    return {
        "datasets": max(s.datasets for s in searches),
        "alike": max(s.alike for s in searches),
        "found": sum(len(s.found) for s in searches),
        "p": min(min(s.p for s in searches) * len(searches), 1.0),
        "least": None if None in least else max(x for x in least if x is not None),
        "power": min(s.power for s in searches),
        "rings": {
            ring: {
                "p": min(min(p for p, _ in of) * len(searches), 1.0),
                "least": max(share for _, share in of),
            }
            for ring in dict.fromkeys(r for s in searches for r in s.rings)
            if (of := [s.rings[ring] for s in searches if ring in s.rings])
        },
    }


def _p(p: float) -> str:
    return "below 1e-300" if p < 1e-300 else f"{p:.1g}"


def _alike(
    forms: Sequence[Known], table: Mapping[str, Profile]
) -> dict[str, tuple[Known, Matched]]:
    """The forms that a table may be of, by id: those most like it."""
    found = [(known, known.form.matched(table)) for known in forms if known.form.may_be(table)]
    likeness = [match.likeness(known.form, len(table)) for known, match in found]
    first = [i for i in np.argsort([-x for x in likeness], kind="stable") if likeness[i] > 0]
    return {found[i][0].form_id: found[i] for i in first[:MOST_FORMS]}


def _hasher(known: Known) -> Hasher:
    return Hasher(known.key, tuple(c.name for c in known.form.columns))


def _whole(
    alike: Mapping[str, tuple[Known, Matched]], rows: Batches | Mapping[str, Column]
) -> dict[str, WholeRows]:
    """Fingerprints of rows, for the forms whose columns are all there."""
    prints = RowPrints(
        {
            form_id: (_hasher(known), {c.number: c.name for c in match.columns})
            for form_id, (known, match) in alike.items()
            if match.whole(known.form)
        }
    )
    if not prints.wanted:
        return {}
    found = [prints.of(rows)] if isinstance(rows, Mapping) else prints.passing(rows)
    parts: dict[str, list[np.ndarray]] = {}
    for some in found:
        for form_id, words in some.items():
            parts.setdefault(form_id, []).append(words)
    return {form_id: WholeRows.of(np.concatenate(words)) for form_id, words in parts.items()}


@dataclass(frozen=True)
class RowPrints:
    """What takes the fingerprints of whole rows, for forms by their id: under which hasher, and
    which columns are which of the form's."""

    wanted: Mapping[str, tuple[Hasher, Mapping[int, str]]]

    def of(self, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
        """Those of some rows, by form."""
        return {
            form_id: hasher.whole({i: columns[n] for i, n in names.items()})
            for form_id, (hasher, names) in self.wanted.items()
        }

    def passing(self, batches: Batches) -> Iterator[dict[str, np.ndarray]]:
        """Those of a table's rows, batch by batch; where they are elsewhere, taken there."""
        if batches.there is not None:
            sent = {f: (SentHasher.of(h), names) for f, (h, names) in self.wanted.items()}
            return batches.there(RowPrints(sent))
        return abreast(self._batch, batches)

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> dict[str, np.ndarray]:
        """Those of a part of a table."""
        found = [*map(self._batch, batches)]
        return {f: np.concatenate([one[f] for one in found]) for f in (found[0] if found else ())}

    def _batch(self, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        names = {n for _, of in self.wanted.values() for n in of.values()}
        return self.of({n: Column.of(batch.column(batch.schema.get_field_index(n))) for n in names})


def _parsed(data: bytes, where: Attached) -> Prints:
    try:
        return Prints.from_bytes(data)
    except ValueError as error:
        raise LedgerError(
            f"the fingerprints of dataset {where.dataset_id} cannot be read ({error}): run "
            "`safegen ledger verify`"
        ) from None
