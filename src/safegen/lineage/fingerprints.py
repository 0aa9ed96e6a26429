"""Keyed fingerprints of rows (`safegen-fp1`), and the test that tells a released table's rows.

A row's fingerprint on a view is AES-128 of a keyed sum of its cells' words: nobody without the
ledger's key can say which row it is of. What is kept of a release are the fingerprints of its
rows, less those of real ones, and of as many *decoys*: rows of the same model and policy from a
stream that only the ledger's key gives, never released. A table that has nothing to do with the
release meets what was released as often as what could have been, whatever it is made of: of h
fingerprints that it shares with either, Binomial(h, ½) are of the release (the idea of target-decoy
search; Elias & Gygi 2007). No assumption about the data is in that, so that a subset of odd real
rows is not accused.

A whole row is looked at on its own too, against the rows that are known not to be copies: real rows
and decoys, each left out in turn (Fisher's exact test); or, where some of these would pass for
copies, against the decoys alone, as parts are.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from safegen.lineage.forms import FINE_DIGITS, Form, Matched, View
from safegen.tables.words import Column, mixed

__all__ = [
    "RARELY",
    "SEEN",
    "Cells",
    "Hasher",
    "Prints",
    "SentHasher",
    "Tally",
    "WholeRows",
    "places",
]

RARELY = 3
"""Rows that are no copies and would pass for some, at most, where whole rows are looked up against
all that are known."""

SEEN = 16_384
"""Rows of a release, its first, that are fingerprinted on every view, and as many decoys."""

_DIGITS = 6
"""Significant digits of a whole row's cells: what single precision keeps."""

_WHOLE = 48  # bits of a whole row's fingerprint: one in 28 million rows meets one of 10 million
_PART = 32  # of a view's: rows meet those of decoys by chance as often as those of a release


@dataclass(frozen=True)
class Hasher:
    """Fingerprints under one key, of tables with columns of these names, folded and in order."""

    key: bytes
    names: tuple[str, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        return Hasher, (self.key, self.names)  # what is made of them is made again

    @cached_property
    def _master(self) -> bytes:
        h = hashlib.blake2b(key=self.key, digest_size=32, person=b"safegen-fp1")
        h.update("\x00".join(self.names).encode())
        return h.digest()

    @property
    def signature(self) -> str:
        """What tables of one kind have in common, for nobody else to read."""
        return hashlib.blake2b(b"signature", key=self._master, digest_size=16).hexdigest()

    def _numbers(self, *what: object, count: int) -> np.ndarray:
        text = "\x00".join(map(str, what)).encode()
        data = hashlib.shake_256(self._master + text).digest(8 * count)
        return np.frombuffer(data, dtype="<u8")

    @cached_property
    def _cipher(self) -> Any:
        key = hashlib.blake2b(b"rows", key=self._master, digest_size=16).digest()
        # One block per row, each alone: a permutation that nobody without the key can compute.
        return Cipher(algorithms.AES(key), modes.ECB())

    def part(self, number: int, words: np.ndarray) -> np.ndarray:
        """(rows, 2) uint64: what a column of words puts into the sums."""
        start, one, two = self._numbers("column", number, count=3)
        odd = np.stack([one, two]) | np.uint64(1)
        found: np.ndarray = mixed(words + start)[:, None] * odd
        return found

    def rows(self, parts: Sequence[np.ndarray], view: str) -> np.ndarray:
        """(rows,) uint64 fingerprints of rows, by what their columns put into the sums."""
        state = parts[0] + self._numbers("view", view, count=2)
        for part in parts[1:]:
            state += part
        data = self._cipher.encryptor().update(state.view(np.uint8).data)
        found: np.ndarray = np.frombuffer(data, dtype="<u8").reshape(-1, 2)[:, 0]
        return found

    def _whole_part(self, number: int, column: Column) -> np.ndarray:
        return self.part(number, column.words(_DIGITS))

    def whole(self, columns: Mapping[int, Column]) -> np.ndarray:
        """(rows,) uint64 fingerprints of whole rows, of 48 bits, of all columns by number."""
        parts = [columns[i].each(partial(self._whole_part, i)) for i in range(len(self.names))]
        return self.rows(parts, "whole") >> np.uint64(64 - _WHOLE)


@dataclass(frozen=True)
class SentHasher(Hasher):
    """A hasher that another machine is given: of the ledger's key it has no more than tables of
    these columns are hashed with."""

    master: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, hasher: Hasher) -> SentHasher:
        return cls(b"", hasher.names, hasher._master)

    @property
    def _master(self) -> bytes:
        return self.master

    def __reduce__(self) -> tuple[Any, ...]:
        return SentHasher, (b"", self.names, self.master)  # a cipher does not pickle


@dataclass
class Cells:
    """The columns of some rows, by their number in the form, as views cut them."""

    hasher: Hasher
    form: Form
    columns: Mapping[int, Column]
    match: Matched | None = None  # None: the form's own columns
    _parts: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    _counted: dict[View, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def _part(self, number: int, cut: str) -> np.ndarray:
        if (number, cut) not in self._parts:
            column, form = self.columns[number], self.form.columns[number]
            coarse = cut == "coarse" and form.numeric
            words = form.coarse(self._numbers(number)) if coarse else column.words(FINE_DIGITS)
            self._parts[number, cut] = self.hasher.part(number, words)
        return self._parts[number, cut]

    def _numbers(self, number: int) -> np.ndarray:
        numbers = self.columns[number].numbers
        scale = "same" if self.match is None else self.match.by_number[number].scale
        if scale == "same":
            return numbers
        return self.form.columns[number].ranked(numbers, falling=scale == "falling")

    def words(self, view: View) -> np.ndarray:
        """(rows,) uint64: keyed words of the rows' cells."""
        parts = [self._part(i, view.cut) for i in view.columns]
        return self.hasher.rows(parts, f"{view.cut}:{','.join(map(str, view.columns))}")

    def view(self, view: View) -> np.ndarray:
        """(rows,) uint32 fingerprints."""
        return (self.words(view) & np.uint64(2**_PART - 1)).astype(np.uint32)

    def counted(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """The distinct fingerprints, in order, and how often each is there; found once."""
        if view not in self._counted:
            self._counted[view] = np.unique(self.view(view), return_counts=True)
        return self._counted[view]


@dataclass(frozen=True, eq=False)
class WholeRows:
    """The fingerprints of a table's whole rows, for all releases that they are held against: the
    distinct ones, in order, and how often each is there."""

    distinct: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, fingerprints: np.ndarray) -> WholeRows:
        """Those of rows, one each."""
        return cls(*np.unique(fingerprints, return_counts=True))

    def __len__(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def twins(self) -> int:
        """Pairs of rows that are equal."""
        return int((self.counts * (self.counts - 1) // 2).sum())


@dataclass(frozen=True, eq=False)
class Tally:
    """How often the cells of a view are in a release, and how often in its decoys.

    (cells,) arrays of 32-bit fingerprints, in order, and of counts. Cells that only one of both
    has, and real rows, too, are left out.
    """

    cells: np.ndarray
    released: np.ndarray
    decoys: np.ndarray

    @classmethod
    def of(cls, released: np.ndarray, decoys: np.ndarray, real: np.ndarray) -> Tally:
        """The tally of fingerprints, one a row."""
        cells, codes = np.unique(np.concatenate([released, decoys]), return_inverse=True)
        some, others = (
            np.bincount(c, minlength=len(cells))
            for c in (codes[: len(released)], codes[len(released) :])
        )
        kept = ((some > 0) & (others > 0)) | ~np.isin(cells, real)
        return cls(cells[kept], some[kept], others[kept])


@dataclass(frozen=True, eq=False)
class Prints:
    """What is kept of one released table.

    rows, distinct: of the table. seen: those of them on views. trials, chance: rows known not to be
    copies, and those of them that would pass for some. printed, beside: rows of the release and of
    the decoys that are looked up whole. whole: their tally, without real rows; where `chance` is
    `RARELY` or less without decoys, and what these have in common with the release. views: for each
    view of the form the tally of the first rows and of the decoys.
    """

    rows: int
    distinct: int
    seen: int
    trials: int
    chance: int
    printed: int
    beside: int
    whole: Tally
    views: tuple[Tally, ...]

    @cached_property
    def own(self) -> np.ndarray:
        """Fingerprints of whole rows that only the release has."""
        found: np.ndarray = self.whole.cells[self.whole.decoys == 0]
        return found

    def to_bytes(self) -> bytes:
        """As Parquet: a row group for whole rows and one for each view, each sorted and kept by its
        differences."""
        sink = io.BytesIO()
        groups = [(t.cells, t.released, t.decoys) for t in (self.whole, *self.views)]
        facts = {name: getattr(self, name) for name in _FACTS}
        schema = _SCHEMA.with_metadata({_KEY: json.dumps(facts)})
        with pq.ParquetWriter(
            sink,
            schema,
            use_dictionary=[*_COUNTS],
            column_encoding={"print": "DELTA_BINARY_PACKED"},
            compression="none",
            write_statistics=False,
        ) as writer:
            for cells, *counts in groups:
                wide = cells.view(np.int64) if cells.itemsize == 8 else cells.astype(np.int64)
                columns = [pa.array(wide)]
                columns += [pa.array(c.astype(np.uint16, copy=False)) for c in counts]
                # One row group each, an empty one too.
                writer.write_batch(
                    pa.RecordBatch.from_arrays(columns, schema=schema),
                    row_group_size=max(len(cells), 1),
                )
        return sink.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Prints:
        """What `to_bytes` wrote. Raises: ValueError when it is none."""
        try:
            file = pq.ParquetFile(io.BytesIO(data))
            if not file.schema_arrow.equals(_SCHEMA):
                raise ValueError("other columns")
            facts = json.loads(file.metadata.metadata[_KEY.encode()])
            lengths = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            cells, *counts = (np.asarray(c) for c in file.read().columns)
            ends = [*pairwise(np.cumsum([0, *lengths]))]
            (a, b), *others = ends
            whole = Tally(cells[a:b].view(np.uint64), *(c[a:b] for c in counts))
            views = [
                Tally(cells[a:b].astype(np.uint32), *(c[a:b].astype(np.int64) for c in counts))
                for a, b in others
            ]
            return cls(
                **{name: int(facts[name]) for name in _FACTS},
                whole=whole,
                views=tuple(views),
            )
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no fingerprints ({type(error).__name__})") from None


_FACTS = ("rows", "distinct", "seen", "trials", "chance", "printed", "beside")
_COUNTS = ("released", "decoys")
_KEY = "safegen-fp1"
_SCHEMA = pa.schema(
    [
        pa.field("print", pa.int64(), nullable=False),
        *(pa.field(name, pa.uint16(), nullable=False) for name in _COUNTS),
    ]
)


def places(sorted_: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where some words are among sorted ones, and which of them are."""
    if not len(sorted_):
        return np.zeros(0, np.intp), np.zeros(len(some), dtype=bool)
    at = np.minimum(np.searchsorted(sorted_, some), len(sorted_) - 1)
    there = sorted_[at] == some
    return at[there], there
