"""Fingerprints of more rows than are to be in memory: in sorted runs, on disk where there are many.

Fingerprints are as good as random numbers, so that those between two bounds are about as many in
each run: read so, piece by piece, all runs are one in order.

The file has no name, or loses it as soon as it is made, and nobody else may read it: it is gone
with the process, however that ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

__all__ = ["KEPT", "MOST_OFTEN", "Runs"]

KEPT = 2**23
"""Different fingerprints that are kept of a table, at most: of more those that are smaller than
some bound, which is a random part of them. In a ledger these are 35 MB."""

MOST_OFTEN = 2**16 - 1
"""What is there more often counts as this."""

_RUN = 2**20  # fingerprints that are sorted at a time
_HELD = 2**21  # those that are in memory; more go to disk
_SPOOLED, _RUNS = 4 * KEPT, 64  # those that are kept, and in how many runs, until these become one
_PIECE = 2**18  # those that are read at a time, about

_BITS, _PARTS = 48, 12  # of a fingerprint; of what a run can be read in parts by
_EDGES = np.arange(2**_PARTS + 1, dtype=np.uint64) << np.uint64(_BITS - _PARTS)
_STORED = np.dtype([("word", "<u8"), ("often", "<u2")])


class _File:
    """A file for this process alone, of distinct fingerprints and how often each is there; closed,
    and gone, when nobody uses it any more."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="safegen-", buffering=0)  # noqa: SIM115
        self.rows = 0
        weakref.finalize(self, self._file.close)

    def write(self, words: np.ndarray, often: np.ndarray) -> None:
        rows = np.empty(len(words), dtype=_STORED)
        rows["word"], rows["often"] = words, often
        self._file.seek(self.rows * _STORED.itemsize)
        data = memoryview(rows.tobytes())
        while data:
            data = data[self._file.write(data) :]
        self.rows += len(rows)

    def read(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        self._file.seek(first * _STORED.itemsize)
        data = self._file.read(count * _STORED.itemsize)
        if len(data) != count * _STORED.itemsize:
            raise OSError("a temporary file ended early")
        rows = np.frombuffer(data, dtype=_STORED)
        return rows["word"].copy(), rows["often"].copy()


@dataclass(frozen=True, eq=False)
class _Run:
    """Different fingerprints in order, and how often each is there; `edges` says where parts of it
    begin. In memory, or in a file from row `at` on."""

    edges: np.ndarray
    words: np.ndarray | None = None
    often: np.ndarray | None = None
    file: _File | None = None
    at: int = 0

    @classmethod
    def of(cls, words: np.ndarray, often: np.ndarray) -> _Run:
        return cls(np.searchsorted(words, _EDGES), words, often)

    def __len__(self) -> int:
        return int(self.edges[-1])

    def part(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """The parts from `first` to before `end`."""
        start, stop = int(self.edges[first]), int(self.edges[end])
        if self.file is None:
            assert self.words is not None
            assert self.often is not None
            return self.words[start:stop], self.often[start:stop]
        return self.file.read(self.at + start, stop - start)

    def held(self) -> _Run:
        """The same run, in memory."""
        return self if self.file is None else _Run(self.edges, *self.part(0, 2**_PARTS))


class Runs:
    """Fingerprints of 48 bits, each distinct one and how often it is there: of more than `KEPT`
    those below a bound, which hangs on all of them and not on the order in which they came.

    Can be pickled, and merged with others. Raises: OSError where the disk is full.
    """

    def __init__(self) -> None:
        self.count = 0
        self._loose: list[np.ndarray] = []
        self._runs: list[_Run] = []
        self._parts = 2**_PARTS  # those below the bound, as far as is known

    def add(self, words: np.ndarray) -> None:
        """Add the fingerprints of some rows; they are not changed."""
        self.count += len(words)
        self._loose.append(words)
        if sum(map(len, self._loose)) >= _RUN:
            self._sort()
            self._spool()

    def merge(self, later: Runs) -> None:
        """Add those of others, which are not to be used any more."""
        later._sort()
        self.count += later.count
        self._runs += later._runs
        self._parts = min(self._parts, later._parts)
        self._spool()

    def __getstate__(self) -> dict[str, object]:
        self._sort()
        return {**vars(self), "_runs": [run.held() for run in self._runs]}

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pieces of the distinct fingerprints, in order, and how often each of them is there."""
        self._sort()
        for piece, _, _ in self._pieces(self._bounded()):
            yield piece

    def words(self) -> np.ndarray:
        """All of them in one array, in order, each as often as it is there."""
        pieces = [np.repeat(words, often) for words, often in self]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.uint64)

    @property
    def bound(self) -> int:
        """What all that are kept are below."""
        self._sort()
        return int(_EDGES[self._bounded()])

    def _sort(self) -> None:
        """Make a run of what has come since the last one."""
        if not self._loose:
            return
        words = np.concatenate(self._loose)
        self._loose = []
        words.sort()
        if self._parts < 2**_PARTS:  # a slice would keep all of them
            words = words[: np.searchsorted(words, _EDGES[self._parts])].copy()
        first = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]])[: len(words)])
        often = np.minimum(np.diff(first, append=len(words)), MOST_OFTEN).astype(np.uint16)
        self._runs.append(_Run.of(words[first] if len(first) < len(words) else words, often))

    def _spool(self) -> None:
        """Move runs to disk, where too much is in memory; make one of all where they are many."""
        held = [run for run in self._runs if run.file is None]
        if sum(map(len, held)) > _HELD:
            self._runs = [run for run in self._runs if run.file is not None]
            file = self._runs[0].file if self._runs else _File()
            assert file is not None
            for run in held:
                at = file.rows
                for _, first, end in self._pieces(2**_PARTS, [run]):
                    file.write(*run.part(first, end))
                self._runs.append(_Run(run.edges, file=file, at=at))
        size = sum(map(len, self._runs))
        if len(self._runs) > _RUNS or size > _SPOOLED:
            self._runs = [self._one(None if size <= _HELD else _File())]

    def _one(self, file: _File | None) -> _Run:
        """All runs as one, in a file or in memory."""
        edges: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for (words, often), first, end in self._pieces(self._bounded()):
            edges.append(edges[-1][-1] + np.searchsorted(words, _EDGES[first + 1 : end + 1]))
            if file is None:
                kept.append((words, often))
            else:
                file.write(words, often)
        edges.append(np.full(2**_PARTS - self._parts, edges[-1][-1]))
        if file is not None:
            return _Run(np.concatenate(edges), file=file)
        words, often = (np.concatenate(column) for column in zip(*kept, strict=True))
        return _Run(np.concatenate(edges), words, often)

    def _bounded(self) -> int:
        """How many parts hold no more than `KEPT` different fingerprints, or 1."""
        if sum(map(len, self._runs)) > KEPT:
            found = 0
            for (words, _), first, end in self._pieces(self._parts):
                upto = found + np.searchsorted(words, _EDGES[first + 1 : end + 1])
                if upto[-1] > KEPT:
                    self._parts = max(first + int(np.count_nonzero(upto <= KEPT)), 1)
                    break
                found = int(upto[-1])
        return int(self._parts)

    def _pieces(
        self, parts: int, runs: list[_Run] | None = None
    ) -> Iterator[tuple[tuple[np.ndarray, np.ndarray], int, int]]:
        """Of the first parts of all runs some at a time: the distinct fingerprints, how often each
        is there, and which parts these are."""
        runs = self._runs if runs is None else runs
        step = max(parts * _PIECE // max(sum(map(len, runs)), 1), 1)
        for first in range(0, parts, step):
            end = min(first + step, parts)
            yield _together([run.part(first, end) for run in runs]), first, end


def _together(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """What is in some runs, as one."""
    found = [(words, often) for words, often in found if len(words)]
    if len(found) == 1:
        return found[0]
    if not found:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint16)
    words, often = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.argsort(words, kind="stable")  # which merges what is in order
    words = words[order]
    first = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))
    sums = np.add.reduceat(often[order], first, dtype=np.uint64)
    return words[first], np.minimum(sums, MOST_OFTEN).astype(np.uint16)
