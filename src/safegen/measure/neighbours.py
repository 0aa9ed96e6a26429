"""How close rows are to each other: whether generated ones keep too close to those trained on.

Numbers become normal scores by their rank among the real rows (a missing one is a level of its
own), levels corners of equal distance; so a column with another level counts as much as two
numbers drawn at random differ in the mean. Ids and invented personal data have no place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.errors import MissingExtra
from safegen.measure.compared import Compared, compared
from safegen.measure.copies import clustered_share, compared_columns
from safegen.measure.identifiers import owners
from safegen.measure.intervals import ABLE, ABLE_AT, difference_interval
from safegen.measure.keys import row_hashes
from safegen.measure.measured import auc
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema
from safegen.tables.streams import stream

__all__ = ["FEWEST", "Closeness", "Told", "able_before", "closeness", "measurable", "told"]

Points = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

FEWEST = 20  # rows of each kind
TARGETS = 100_000  # real rows that distances are measured to, at most
PROBES = 4_000  # rows of a kind that distances are measured from, at most
WORK = 6e10  # products of coordinates per search: three seconds of one core
AT_ONCE = 1 << 29  # bytes of points that are searched at once: 500 columns have 64 kB to a row
CORNERS = 16  # levels beyond which a column's corners are random ones in as many dimensions
KNOTS = 100  # values between which numbers are scaled alike, at most
BETWEEN = 10  # real rows from one of them to the next, at least
LEVELS = (0.001, 0.003, 0.01)  # shares of the real rows that are called close
REMOTE = 0.1  # share of the real rows that lie furthest from any other: the tails
_AWAY = 1e-6  # a distance that is none


def measurable(schema: TableSchema) -> bool:
    """Whether rows of it have distances: images would need more than their pixels."""
    return bool(compared_columns(schema)) and all(c.kind != "image" for c in schema.columns)


# ---- close to one real row -----------------------------------------------------------------------


@dataclass(frozen=True)
class Closeness:
    """How many rows are close to a real row, of generated and of other real rows.

    A row's closeness is its distance to the nearest real row over that one's distance to the next
    real row: what is far less than 1 has little but that row to come from. `level` is the share of
    real rows that defines "close"; `remote`: only of rows whose nearest lies far from the others.
    The shares are worth those of so many independent rows: generated rows close to one real row
    count as one person's, and real rows are close to each other in pairs. `targets`: the real rows
    that distances were measured to.
    """

    level: float
    remote: bool
    close: int
    rows: int
    share: float
    effective: float
    real_share: float
    real_effective: float
    targets: int

    def able(self, margin: float) -> bool:
        """Whether rows that keep as far from real ones as these do are told from a share of
        `margin` that does not."""
        return _near_able(self.level, self.rows, self.real_effective, margin)


def _near_able(level: float, rows: float, real_rows: float, margin: float) -> bool:
    # What is close is cut at a real row: as much chance as one real row more would be.
    shares = (level + 1 / real_rows) * rows, rows, level * real_rows, real_rows
    return difference_interval(*shares, alpha=ABLE_AT)[1] <= margin


def closeness(
    anchor: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0
) -> list[Closeness]:
    """Each level over all rows, the closest first, and the last over the remote ones; empty for
    too few rows.

    Real rows are held against the other real rows: of n independent rows, one is to the n − 1
    others what a new row is. Rows of one person are not each other's neighbours. Copies are
    counted elsewhere and left out: rows that are a real row, and real rows that are there twice.
    """
    rng = np.random.default_rng(stream(seed, 1))
    columns = compared_columns(schema)
    real, mine = row_hashes(anchor, columns), row_hashes(made, columns)
    found, first, counts = np.unique(real, return_index=True, return_counts=True)
    targets = _some(first, TARGETS, rng)
    single = np.isin(targets, first[counts == _usual(counts)])
    new = np.flatnonzero(~np.isin(mine, found))
    if min(len(targets), int(single.sum()), len(new)) < FEWEST:
        return []
    kept = taken(anchor, targets)
    points, others = _clouds(compared(kept, taken(made, new), schema))
    most = _affordable(points.rows, points.dimensions)
    new = _some(np.arange(others.rows), most, rng)
    probes = _some(np.flatnonzero(single), most, rng)
    owner = owners(kept, schema)
    alone = len(np.unique(owner)) == len(owner)
    search = _Search(points, owner, neighbours=3 if alone else 10)
    rows = search.ratios(others.at(new), None)
    real_rows = search.ratios(points.at(probes), probes)
    far = np.quantile(real_rows.space, 1 - REMOTE)
    result = []
    for level, tails in (*((level, False) for level in LEVELS), (LEVELS[-1], True)):
        a, b = (r.part(r.space >= far) if tails else r for r in (rows, real_rows))
        if min(len(a.value), len(b.value)) >= FEWEST:
            cut = np.quantile(b.value, level, method="higher")
            close = a.value < cut
            share, effective = clustered_share(close, a.nearest)
            result.append(
                Closeness(
                    level=level,
                    remote=tails,
                    close=int(close.sum()),
                    rows=len(close),
                    share=share,
                    effective=effective if share else float(len(close)),
                    real_share=float((b.value < cut).mean()),
                    real_effective=len(b.value) / 2,
                    targets=points.rows,
                )
            )
    return result


def _usual(counts: Rows) -> int:
    """How often a row is there that is judged: once. Where hardly any is, for the source holds its
    rows several times over, as often as most are: then it is by that alone that they have twins."""
    times = np.bincount(counts)
    most = int(times.argmax())
    return most if times[1] < FEWEST and 2 * times[most] > len(counts) else 1


# ---- told from rows held out ---------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """How well rows trained on are told from rows held out: the area under the ROC curve, and its
    standard error. `remote`: among the rows that lie furthest from any other."""

    remote: bool
    area: float
    error: float
    members: int
    others: int
    people: tuple[int, int]  # whose rows they are

    def able(self, limit: float) -> bool:
        """Whether an area of one half is told from the limit."""
        return _told_able(*self.people, limit)


def _told_able(members: int, others: int, limit: float) -> bool:
    """By the area's standard error at one half (Hanley and McNeil 1982, Radiology 143)."""
    return 0.5 + ABLE * math.sqrt((1 / members + 1 / others) / 12) <= limit


def able_before(
    anchor: pa.Table, held: pa.Table, rows: int, schema: TableSchema, *, near: float, area: float
) -> tuple[bool, bool]:
    """Before anything is fitted, whether `closeness` can be judged at the margin `near` with so
    many rows asked for, and whether `told` can at `area`."""
    pool = pa.concat_tables([anchor, held])
    hashes = row_hashes(pool, compared_columns(schema))
    single = []
    for part in (hashes[: anchor.num_rows], hashes):
        _, first, counts = np.unique(part, return_index=True, return_counts=True)
        single.append(first[counts == _usual(counts)])
    probes = min(len(single[0]), PROBES)
    members = int((single[1] < anchor.num_rows).sum())
    both = [min(n, PROBES // 2) for n in (members, len(single[1]) - members)]
    return (
        probes >= FEWEST and _near_able(LEVELS[0], min(rows, PROBES), probes / 2, near),
        min(both) >= FEWEST and _told_able(both[0], both[1], area),
    )


def told(
    anchor: pa.Table, held: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0
) -> list[Told]:
    """The attack over all rows and over the remote ones; empty for too few rows.

    A row's score is its distance to the nearest other real row over that to the nearest generated
    one: a density of the generated rows over one of reality, as in DOMIAS (van Breugel et al. 2023,
    Membership Inference Attacks against Synthetic Data through Overfitting Detection, AISTATS),
    by nearest neighbours. Only rows that no other real row equals are scored: identical rows are
    held out together, and it is by chance alone that a single row is among the ones or the others;
    so for a generator that gives nothing away the area is ½ exactly.
    """
    rng = np.random.default_rng(stream(seed, 2))
    pool = pa.concat_tables([anchor, held])
    member = np.arange(pool.num_rows) < anchor.num_rows
    hashes = row_hashes(pool, compared_columns(schema))
    _, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    targets = _some(first, TARGETS, rng)
    single = np.isin(targets, first[counts == _usual(counts)])
    kept, member = taken(pool, targets), member[targets]
    if min((single & member).sum(), (single & ~member).sum(), made.num_rows) < FEWEST:
        return []
    points, others = _clouds(compared(kept, made, schema))
    most = _affordable(max(points.rows, others.rows), points.dimensions)
    probes = np.concatenate(
        [_some(np.flatnonzero(single & side), most // 2, rng) for side in (member, ~member)]
    )
    real = _Search(points, np.arange(points.rows), neighbours=2)
    to_real = real.of(points.at(probes), nobody=probes)[1][:, 0]
    to_made = _Search(others, np.arange(others.rows), neighbours=1).of(points.at(probes), nobody=-1)
    score = np.log(to_real + _AWAY) - np.log(to_made[1][:, 0] + _AWAY)
    owner, inside = owners(kept, schema)[probes], member[probes]
    remote = to_real >= np.quantile(to_real, 1 - REMOTE)
    result = []
    for tails, rows in ((False, np.ones(len(probes), dtype=bool)), (True, remote)):
        counted = int(inside[rows].sum()), int((~inside[rows]).sum())
        if min(counted) >= FEWEST:
            area, influence = auc(score[rows], inside[rows])
            _, code = np.unique(owner[rows], return_inverse=True)
            error = float(np.sqrt((np.bincount(code, weights=influence) ** 2).sum()))
            people = [len(np.unique(owner[rows & side])) for side in (inside, ~inside)]
            result.append(
                Told(tails, area, error / int(rows.sum()), *counted, (people[0], people[1]))
            )
    return result


# ---- space ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Part:
    """A column's coordinates: (rows, dimensions) numbers, or per row the corner that it is at."""

    numbers: Points | None
    corners: npt.NDArray[np.int8]  # (cells, dimensions)
    codes: Rows
    size: float  # of a corner's coordinates

    @property
    def dimensions(self) -> int:
        return int((self.corners if self.numbers is None else self.numbers).shape[1])

    def at(self, rows: Rows | slice) -> Points:
        if self.numbers is not None:
            return self.numbers[rows]
        return self.corners[self.codes[rows]] * np.float64(self.size)


@dataclass(frozen=True, eq=False)
class _Cloud:
    """A table's rows as points of a space, made when they are asked for."""

    parts: Sequence[_Part]
    rows: int

    @cached_property
    def dimensions(self) -> int:
        return sum(part.dimensions for part in self.parts)

    def at(self, rows: Rows | slice) -> Points:
        """(rows, dimensions)."""
        count = len(range(self.rows)[rows]) if isinstance(rows, slice) else len(rows)
        found = np.empty((count, self.dimensions))
        start = 0
        for part in self.parts:
            found[:, start : start + part.dimensions] = part.at(rows)
            start += part.dimensions
        return found

    def pieces(self) -> Iterator[tuple[int, Points]]:
        """All points, so many at once that they take `AT_ONCE` bytes at most, each time with the
        number of the first. Distances are the same as in one piece; which of several neighbours
        at the same distance is taken may not be."""
        # Of 256 rows as scikit-learn's search has it: products are then rounded as in one piece.
        step = max(AT_ONCE // (8 * self.dimensions) // 256, 1) * 256
        if step >= self.rows:
            yield 0, self._all
            return
        for start in range(0, self.rows, step):
            yield start, self.at(slice(start, start + step))

    @cached_property
    def _all(self) -> Points:
        return self.at(slice(None))


def _clouds(columns: Sequence[Compared]) -> tuple[_Cloud, _Cloud]:
    """Both tables' rows as points of one space."""
    parts = [_scores(c) if c.values is not None else _corners(*c.codes, c.cells) for c in columns]
    real, made = (_Cloud([p[side] for p in parts], len(columns[0].codes[side])) for side in (0, 1))
    return real, made


def _scores(column: Compared) -> tuple[_Part, _Part]:
    """Normal scores of numbers by mid-rank in the real rows at `KNOTS` of their values, straight
    between them; missing ones in the middle, a corner away.

    With every value a knot real numbers would stand as far apart as their ranks, evenly, and new
    ones would not: in one dimension or two they would all look close to a real one.
    """
    try:
        from scipy.special import ndtri
    except ImportError:
        raise _without_extra() from None
    assert column.values is not None
    real, made = column.values
    known = real[~np.isnan(real)]
    grid, counts = np.unique(known, return_counts=True)
    if not len(grid):
        return _numbers(np.zeros((len(real), 1))), _numbers(np.zeros((len(made), 1)))
    upto = np.cumsum(counts)
    scores = ndtri((upto - counts / 2) / len(known))
    wanted = max(min(KNOTS, len(known) // BETWEEN), 2)
    if len(grid) > 1:
        knots = np.searchsorted(upto, np.linspace(0, len(known), wanted))
        knots = np.unique(np.concatenate([[0], np.minimum(knots, len(grid) - 1)]))
        grid, scores = grid[knots], scores[knots]
    found = []
    for values in (real, made):
        absent = np.isnan(values)
        score = np.interp(np.where(absent, grid[0], values), grid, scores)
        found.append(np.stack([np.where(absent, 0.0, score), absent * np.sqrt(2)], axis=1))
    if not any(f[:, 1].any() for f in found):
        found = [f[:, :1] for f in found]
    return _numbers(found[0]), _numbers(found[1])


def _numbers(values: Points) -> _Part:
    return _Part(values, np.empty((0, 0), np.int8), np.empty(0, np.int64), 1.0)


def _corners(real: Rows, made: Rows, cells: int) -> tuple[_Part, _Part]:
    """One corner per level, √2 from all others; of many levels random ones, so far in the mean."""
    places, size = np.eye(cells, dtype=np.int8), 1.0
    if cells > CORNERS:
        rng = np.random.default_rng(stream(cells, 3))
        places = rng.choice(np.array([-1, 1], np.int8), (cells, CORNERS))
        size = 1 / CORNERS**0.5
    return _Part(None, places, real, size), _Part(None, places, made, size)


def _some(rows: Rows, most: int, rng: np.random.Generator) -> Rows:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _affordable(points: int, dimensions: int) -> int:
    return int(min(PROBES, max(500, WORK / (points * dimensions))))


@dataclass
class _Search:
    """The nearest real points of other people, exactly."""

    points: _Cloud
    owner: Rows
    neighbours: int

    def of(self, probes: Points, nobody: Rows | int) -> tuple[Rows, Points]:
        """The numbers and distances of each probe's nearest neighbours that are not of the person
        `nobody`, nearest first: (probes, neighbours) each; infinite where there is none left."""
        try:
            from sklearn.neighbors import NearestNeighbors
            from threadpoolctl import threadpool_limits
        except ImportError:
            raise _without_extra() from None
        distance, at = np.empty((len(probes), 0)), np.empty((len(probes), 0), np.int64)
        with threadpool_limits(1):  # its threads wait for each other spinning
            for start, points in self.points.pieces():
                count = min(self.neighbours, len(points))
                index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(points)
                further, where = index.kneighbors(probes)
                distance = np.concatenate([distance, further], axis=1)
                at = np.concatenate([at, where + start], axis=1)
                order = np.argsort(distance, axis=1, kind="stable")[:, : self.neighbours]
                distance = np.take_along_axis(distance, order, 1)
                at = np.take_along_axis(at, order, 1)
        mine = self.owner[at] == np.broadcast_to(nobody, len(probes))[:, None]
        distance = np.where(mine, np.inf, np.maximum(distance, _AWAY))
        order = np.argsort(distance, axis=1, kind="stable")
        return np.take_along_axis(at, order, 1), np.take_along_axis(distance, order, 1)

    def ratios(self, probes: Points, own: Rows | None) -> _Ratios:
        """The closeness of probes, those left out around which all rows are one person's.

        own: which points the probes are; None: none of them. The distance from a probe's nearest
        point to the next is to one of a third person.
        """
        person = -1 if own is None else self.owner[own]
        neighbours, distances = self.of(probes, person)
        near, distance = neighbours[:, 0], distances[:, 0]
        which, back = np.unique(near, return_inverse=True)
        after, spaces = self.of(self.points.at(which), self.owner[which])
        spaces = spaces[back]
        if own is not None:
            ours = self.owner[after[back]] == self.owner[own][:, None]
            spaces = np.where(ours, np.inf, spaces)
        space = spaces.min(axis=1)
        known = np.isfinite(distance) & np.isfinite(space)
        distance, space = distance[known], space[known]
        return _Ratios(distance / space, space, near[known])


@dataclass
class _Ratios:
    """Per row its closeness, the space around its nearest real row, and that one's number."""

    value: Points
    space: Points
    nearest: Rows

    def part(self, rows: npt.NDArray[np.bool_]) -> _Ratios:
        return _Ratios(self.value[rows], self.space[rows], self.nearest[rows])


def _without_extra() -> MissingExtra:
    return MissingExtra("this measurement needs scikit-learn: pip install 'safegen[sdv]'")
