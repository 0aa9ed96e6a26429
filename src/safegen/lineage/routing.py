"""Which of many releases of one form a table is compared with.

A part of every release's fingerprints, those below a bound, are kept together in a file of the
user's cache, by fingerprint and not by release: so a table is held against all of them at once, and
only the releases that it has most in common with are looked at in full. All levels stay what they
are, for they are shared by all releases, looked at or not; what is not looked at is less likely to
be found, and `Routed.least` says so.

The file is made of the ledger's attachments and can be thrown away. It carries a code that only the
ledger's key gives: what was changed, or is of another ledger, is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.poly1305 import Poly1305
from scipy.special import ndtri

from safegen.errors import LedgerError
from safegen.folders import cache_folder, make_private
from safegen.ledger import Attached
from safegen.lineage.detection import ALPHA, needed_whole, surplus_for
from safegen.lineage.fingerprints import RARELY, Prints, WholeRows
from safegen.lineage.registering import Known

__all__ = ["DIRECT", "Routed", "Routes", "routes"]

DIRECT, BY_ROWS = 12, 4
"""Releases of a form that are looked at in full: by their views, and more by whole rows."""

KEPT = 1_024
"""Fingerprints of a view that are kept of each release, at most: of its rows and of its decoys."""

MOST, MOST_ROWS = 2**18, 2**24
"""Fingerprints of a view, and of whole rows, that are kept of all releases, at most: 10 bytes each,
and 12. Where there are more the bound is lowered for all, and `Routed.least` says so."""

_NONCE, _TAG = 16, 16  # bytes in front of the file's contents
_STALE = 3_600  # seconds after which nobody is still writing a draft
_OFTEN = 2**8 - 1  # what is there more often counts as this
_TOGETHER = 64  # releases that are read before they are joined
_ROWS = pa.schema([("cell", pa.uint64()), ("owner", pa.uint32())])
_VIEWS = pa.schema(
    [
        ("cell", pa.uint32()),
        ("owner", pa.uint32()),
        ("released", pa.uint8()),
        ("decoys", pa.uint8()),
    ]
)
_FACTS = ("rows", "distinct", "trials", "chance", "kept")


@dataclass(frozen=True, eq=False)
class Part:
    """Fingerprints of all releases, sorted: whose each is, and how often. below: what they are
    below, as a share of all that there may be."""

    below: float
    cells: np.ndarray
    owner: np.ndarray
    released: np.ndarray
    decoys: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[Part], most: int) -> Part:
        """All of these, below the smallest bound, or one that leaves no more than `most`."""
        below = min(p.below for p in parts)
        while sum(_end(p, below) for p in parts) > most:
            below /= 2
        columns = [
            np.concatenate([getattr(p, name)[: _end(p, below)] for p in parts])
            for name in ("cells", "owner", "released", "decoys")
        ]
        order = np.argsort(columns[0], kind="stable")
        return cls(below, *(c[order] for c in columns))

    def bound(self, below: float) -> np.integer[Any]:
        """The first fingerprint that is not below a share of all that there may be."""
        bits = 32 if self.cells.dtype == np.uint32 else 48
        found: np.integer[Any] = self.cells.dtype.type(min(int(below * 2.0**bits), 2**bits - 1))
        return found

    def sums(self, releases: int) -> np.ndarray:
        """(3, releases) of each release the cells that no decoy has, the rows of both kinds, and by
        how many more of them were released."""
        mine, others = self.released.astype(float), self.decoys.astype(float)
        every = ((others == 0).astype(float), mine + others, mine - others)
        return np.stack([np.bincount(self.owner, x, releases) for x in every])

    def met(self, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(hits,) where some of the sorted fingerprints `wanted` are, and (wanted,) how many times
        each is."""
        wanted = wanted.astype(self.cells.dtype, copy=False)
        first = np.searchsorted(self.cells, wanted, "left")
        many = np.searchsorted(self.cells, wanted, "right") - first
        start = np.repeat(first - np.concatenate([[0], np.cumsum(many)[:-1]]), many)
        return start + np.arange(len(start)), many


@dataclass(frozen=True, eq=False)
class Routed:
    """The releases to look at in full; for the others, the share of a table's rows from which on
    they would have been among these, and found (0 where there are no others)."""

    chosen: tuple[Attached, ...]
    least: float


@dataclass(frozen=True, eq=False)
class Routes:
    """What is kept of the releases of one form: their names, facts by name of the fact, whole rows,
    and for each view a part and its (views, 3, releases) sums."""

    names: tuple[tuple[str, str], ...]
    facts: Mapping[str, np.ndarray]
    whole: Part
    views: tuple[Part, ...]
    sums: np.ndarray

    def routed(
        self,
        there: Sequence[Attached],
        whole: WholeRows | None,
        views: Mapping[int, tuple[np.ndarray, np.ndarray]],
        rows: int,
        datasets: int,
        power: float,
    ) -> Routed:
        """Which releases to look at.

        there: the ledger's, of this form. whole: those of the table's whole rows, where they
        can be looked up. views: by number the distinct fingerprints, sorted, and counts, of `rows`
        rows. datasets: among which the level is shared. power: the chance of which `least` speaks.
        """
        number = {name: i for i, name in enumerate(self.names)}
        at = [number.get((a.dataset_id, a.name)) for a in there]
        fresh = [a for a, i in zip(there, at, strict=True) if i is None]
        known = {i: a for a, i in zip(there, at, strict=True) if i is not None}
        count = len(self.names)
        best, least = np.full(count, -np.inf), np.full(count, np.inf)
        tests = 4 * max(len(views), 1) * datasets
        for view, (cells, counts) in views.items():
            score, share = self._met(view, cells, counts, rows, tests, power)
            best, least = np.maximum(best, score), np.minimum(least, share)
        chosen = [int(i) for i in np.argsort(-best, kind="stable") if i in known][:DIRECT]
        if whole is not None:
            hits = self._hits(whole)
            for i in np.argsort(-hits, kind="stable")[:BY_ROWS].tolist():
                if hits[i] and i in known and i not in chosen:
                    chosen.append(i)
            least = np.minimum(least, self._least_whole(whole, datasets, power))
        others = np.array([i for i in known if i not in set(chosen)], dtype=np.intp)
        worst = float(least[others].max()) if len(others) else 0.0
        return Routed((*fresh, *(known[i] for i in chosen)), min(worst, 1.0))

    def _met(
        self,
        view: int,
        cells: np.ndarray,
        counts: np.ndarray,
        rows: int,
        tests: int,
        power: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """By release, how far from chance what a table shares with it is, in standard deviations;
        and the share from which on it would be chosen, and be found then."""
        count, part = len(self.names), self.views[view]
        kept, total, lean = self.sums[view]
        upto = len(cells) if part.below >= 1 else np.searchsorted(cells, part.bound(part.below))
        at, many = part.met(cells[:upto])
        owner = part.owner[at].astype(np.intp)
        released, decoys = (x[at].astype(float) for x in (part.released, part.decoys))
        alone = [
            np.bincount(owner, (mine > 0) & (others == 0), count)
            for mine, others in ((released, decoys), (decoys, released))
        ]
        score = (alone[0] - alone[1]) / np.sqrt(alone[0] + alone[1] + 1)
        # How often cells are there: as `detection` weighs them, about the mean over each release.
        both = released + decoys
        weights = np.repeat(counts[:upto], many)
        weights = weights / (weights + both * (rows * part.below / np.maximum(total[owner], 1)))
        mean = np.bincount(owner, weights * both, count) / np.maximum(total, 1)
        sum_ = np.bincount(owner, weights * (released - decoys), count) - mean * lean
        spread = np.bincount(owner, weights**2 * both, count) - mean**2 * total
        often_ = sum_ / np.sqrt(np.maximum(spread, 1e-12))
        score = np.maximum(score, np.where(spread > 1e-9, often_, -np.inf))
        # Chosen are those above the last that is: so much has to be there in what is kept; and what
        # is found, in all of it.
        bar = float(np.partition(score, -DIRECT)[-DIRECT]) if count > DIRECT else 0.0
        noise = alone[1]
        share = np.zeros(count)
        for deviations, scale in (
            (max(bar, 0.0) + float(ndtri(power)), 1.0),
            ((2 * np.log(tests / ALPHA)) ** 0.5 + float(ndtri(power)), 1 / part.below),
        ):
            square = deviations**2
            surplus = (square + np.sqrt(square**2 + 8 * noise * scale * square)) / 2
            with np.errstate(divide="ignore", invalid="ignore"):
                taken = -np.log1p(-surplus / (kept * scale)) * self.facts["rows"] / max(rows, 1)
            share = np.maximum(share, np.where(surplus < kept * scale, taken, np.inf))
        return score, share

    def _hits(self, whole: WholeRows) -> np.ndarray:
        """(releases,) distinct whole rows of a table that are theirs, beyond what chance gives, in
        about its standard deviations."""
        at, _ = self.whole.met(whole.distinct)
        hits = np.bincount(self.whole.owner[at], minlength=len(self.names))
        chance = self.facts["chance"] * self.whole.below
        by_chance = len(whole) * chance / np.maximum(self.facts["trials"], 1)
        found: np.ndarray = np.maximum(hits - by_chance, 0) / np.sqrt(1 + by_chance)
        return found

    def _least_whole(self, whole: WholeRows, datasets: int, power: float) -> np.ndarray:
        """(releases,) the share from which on whole rows are found: what the least known of them
        needs, for all."""
        facts = self.facts
        asked = (facts["chance"] <= RARELY) & (facts["trials"] > 0) & (facts["kept"] > 0)
        if not asked.any():
            return np.full(len(self.names), np.inf)
        needed = needed_whole(
            whole,
            chance=int(facts["chance"][asked].max()),
            trials=int(facts["trials"][asked].min()),
            distinct=int(facts["distinct"][asked].max()),
            datasets=datasets,
        )
        surplus = np.inf if needed is None else surplus_for(needed, 0.0, power)
        kept = facts["kept"] * self.whole.below  # more than enough to be chosen by
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = -np.log1p(-surplus / kept) * facts["rows"] + 1
        found: np.ndarray = np.where(asked & (surplus < kept), rows / max(len(whole), 1), np.inf)
        return found


def routes(
    ledger_id: str,
    known: Known,
    there: Sequence[Attached],
    read: Callable[[Attached], Prints],
) -> Routes:
    """What is kept of the releases of a form, from the cache; made again, and kept, where more than
    `DIRECT` of those in the ledger are not in it. Raises: LedgerError."""
    place = _place(ledger_id, known)
    kept = None if place is None else _read(place, known)
    names = {(a.dataset_id, a.name) for a in there}
    if kept is not None and not names >= set(kept.names):  # a backup was restored
        kept = None
    have = set(kept.names) if kept is not None else set()
    fresh = [a for a in there if (a.dataset_id, a.name) not in have]
    if kept is not None and len(fresh) <= DIRECT:
        return kept
    made = _made(kept, fresh, read, len(known.form.views))
    if place is not None:
        with contextlib.suppress(OSError):  # a cache that cannot be written is none
            _write(place, known, made)
    return made


def _made(
    kept: Routes | None, fresh: Sequence[Attached], read: Callable[[Attached], Prints], views: int
) -> Routes:
    """The routes of all releases; of a few at a time all that goes into them is in memory."""
    names = list(kept.names) if kept is not None else []
    facts = {n: [kept.facts[n]] if kept is not None else [] for n in _FACTS}
    parts = [[kept.whole, *kept.views] if kept is not None else [_NO_ROWS, *[_NO_VIEW] * views]]
    for where in fresh:
        prints = read(where)
        parts.append(_of(prints, len(names), views))
        names.append((where.dataset_id, where.name))
        for name in _FACTS:
            value = len(prints.own) if name == "kept" else getattr(prints, name)
            facts[name].append(np.array([value]))
        if len(parts) > _TOGETHER:
            parts = [_joined(parts)]
    whole, *joined = _joined(parts)
    sums = np.array([part.sums(len(names)) for part in joined]).reshape(-1, 3, len(names))
    told = {n: np.concatenate(values) for n, values in facts.items()}
    return Routes(tuple(names), told, whole, tuple(joined), sums)


def _of(prints: Prints, number: int, views: int) -> list[Part]:
    """What is kept of one release: of its whole rows, and of each view."""

    def part(below: float, cells: np.ndarray, *often: np.ndarray) -> Part:
        counts = [np.minimum(c, _OFTEN).astype(np.uint8) for c in often]
        return Part(below, cells, np.full(len(cells), number, np.uint32), *counts)

    none = np.zeros(len(prints.own), dtype=np.uint8)
    found = [part(1.0, prints.own, none, none)]
    for tally in prints.views:
        below = 1.0
        while len(tally.cells) * below > KEPT:
            below /= 2
        whole = Part(1.0, tally.cells, none, none, none)
        end = _end(whole, below)
        found.append(part(below, *(c[:end] for c in (tally.cells, tally.released, tally.decoys))))
    return found + [_NO_VIEW] * (views + 1 - len(found))  # one without decoys has no views


def _joined(parts: Sequence[Sequence[Part]]) -> list[Part]:
    return [
        Part.joined(each, MOST if i else MOST_ROWS)
        for i, each in enumerate(zip(*parts, strict=True))
    ]


def _empty(cells: type[np.integer[Any]]) -> Part:
    types: tuple[Any, ...] = (cells, np.uint32, np.uint8, np.uint8)
    return Part(1.0, *(np.zeros(0, t) for t in types))


_NO_ROWS, _NO_VIEW = _empty(np.uint64), _empty(np.uint32)


def _end(part: Part, below: float) -> int:
    if below >= part.below:
        return len(part.cells)
    return int(np.searchsorted(part.cells, part.bound(below)))


# ---- the file ------------------------------------------------------------------------------------


def _place(ledger_id: str, known: Known) -> Path | None:
    named = hashlib.sha256(known.form_id.encode()).hexdigest()[:32]
    try:
        folder = cache_folder() / "routes" / ledger_id
        make_private(folder)
    except LedgerError:
        return None
    return folder / f"{named}.arrow"


def _tag(known: Known, nonce: bytes, data: pa.Buffer) -> bytes:
    """Poly1305 with a key for this file alone."""
    key = hashlib.blake2b(
        known.form_id.encode(), key=known.key, digest_size=32, salt=nonce, person=b"routes-2"
    )
    return Poly1305.generate_tag(key.digest(), memoryview(data).cast("B"))


def _write(place: Path, known: Known, routes: Routes) -> None:
    """Two of Arrow's IPC streams, whole rows, and a batch for each view, behind nonce and tag."""
    parts = (routes.whole, *routes.views)
    told = {
        "names": json.dumps(routes.names).encode(),
        "facts": np.stack([routes.facts[n] for n in _FACTS]).astype("<i8").tobytes(),
        "below": np.array([part.below for part in parts], dtype="<f8").tobytes(),
        "sums": routes.sums.astype("<f8").tobytes(),
    }
    nonce = secrets.token_bytes(_NONCE)
    for old in place.parent.glob(".routes-*"):  # of processes that were killed
        if time.time() - old.stat().st_mtime > _STALE:
            old.unlink()
    descriptor, draft = tempfile.mkstemp(dir=place.parent, prefix=".routes-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(nonce + bytes(_TAG))
            for schema, some in ((_ROWS.with_metadata(told), parts[:1]), (_VIEWS, parts[1:])):
                with pa.ipc.new_stream(file, schema) as writer:
                    for part in some:
                        columns = (part.cells, part.owner, part.released, part.decoys)
                        arrays = [
                            pa.array(c, f.type) for c, f in zip(columns, schema, strict=False)
                        ]
                        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
            file.flush()
            with pa.memory_map(draft) as written:
                tag = _tag(known, nonce, written.read_buffer()[_NONCE + _TAG :])
            file.seek(_NONCE)
            file.write(tag)
        os.replace(draft, place)
    except BaseException:
        os.unlink(draft)
        raise


def _read(place: Path, known: Known) -> Routes | None:
    """What is kept, or None where there is nothing that the ledger's key vouches for."""
    try:
        with pa.memory_map(os.fspath(place)) as file:
            every = file.read_buffer()
    except OSError:
        return None
    nonce, tag = every[:_NONCE].to_pybytes(), every[_NONCE : _NONCE + _TAG].to_pybytes()
    data = every[_NONCE + _TAG :]
    if not hmac.compare_digest(tag, _tag(known, nonce.ljust(_NONCE, b"\0"), data)):
        return None
    source = pa.BufferReader(data)
    with pa.ipc.open_stream(source) as stream:
        told, rows = stream.schema.metadata, [*stream]
    with pa.ipc.open_stream(source) as stream:
        batches = [*rows, *stream]
    names = tuple((str(a), str(b)) for a, b in json.loads(told[b"names"]))
    below = np.frombuffer(told[b"below"], dtype="<f8").tolist()
    facts = np.frombuffer(told[b"facts"], dtype="<i8").reshape(len(_FACTS), -1)
    sums = np.frombuffer(told[b"sums"], dtype="<f8").reshape(len(below) - 1, 3, len(names))
    none = np.zeros(rows[0].num_rows, dtype=np.uint8)
    found = [[np.asarray(c) for c in batch.columns] for batch in batches]
    found[0] += [none, none]  # of whole rows those that no decoy has are kept
    whole, *views = (Part(one, *columns) for one, columns in zip(below, found, strict=True))
    return Routes(names, dict(zip(_FACTS, facts, strict=True)), whole, tuple(views), sums)
