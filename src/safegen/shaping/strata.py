"""Rare regions of the real rows (strata), and how much more often each is to be drawn.

A stratum is a set of cells of one column, or of the target and another. Boosts are multipliers of
a row's chance to be kept; a row in several strata has the largest. Weights undo them exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.policy import TailsParams
from safegen.shaping.coding import Coder, Coding
from safegen.shaping.drawing import inclusion
from safegen.tables.numbers import decoded
from safegen.tables.schema import TableSchema

__all__ = ["Strata", "Stratum", "StrataTally", "people_of", "rare_strata"]

ROUNDS, MOST_BOOST = 12, 1_000.0

MOST_STRATA = 1_000
"""Strata that are boosted, at most: the first tiers and the rarest. With a target of twenty levels
there may be tens of thousands, which together are all rows."""

_NAMED, _TARGET, _LEVEL, _TAIL = range(4)


@dataclass(frozen=True, eq=False)
class Stratum:
    """One region. `share` is its share of the real rows, `quota` the share of rows it is to have.

    columns: one of the coder's, or the target's and another's. cells: (width,) bool of each; a row
    is inside where it is of all.
    """

    id: str
    tier: int
    columns: tuple[int, ...]
    cells: tuple[np.ndarray, ...]
    real_rows: int
    share: float
    boost: float = 1.0
    quota: float = 0.0

    def inside(self, rows: Coding) -> np.ndarray:
        """(rows,) bool."""
        found = np.ones(rows.rows, dtype=bool)
        for column, cells in zip(self.columns, self.cells, strict=True):
            found &= cells[rows.fine[column]]
        return found


@dataclass(frozen=True, eq=False)
class Strata:
    """Every stratum that is boosted, and by how much; by id those with too few people, and those
    that the policy names and too few real rows are in; and how many are too many."""

    coder: Coder
    strata: tuple[Stratum, ...]
    few: tuple[str, ...] = ()
    scarce: tuple[str, ...] = ()
    left_out: int = 0
    mean: float = 1.0  # boost of a row
    min_count: int = 1

    def boosts(self, rows: Coding) -> np.ndarray:
        """(rows,) float64, 1 outside of all strata."""
        found = np.ones(rows.rows)
        for columns, cells in self._tables.items():
            np.maximum(found, cells[tuple(rows.fine[c] for c in columns)], out=found)
        return found

    def boosted(
        self, real: Coding, candidates: Coding, weights: np.ndarray, boost: float, most: float
    ) -> Strata:
        """These strata with quotas and boosts, `boost` at most: those of one tier have the same,
        and the first tiers come first, while at most `most` of the rows to be are there for one.

        As many as of the real rows, or of the candidates by their weights, whichever are more: real
        tails coincide, and those of a model may be spread over many rows.
        """
        limit = 1 / (1 - most)
        parts = np.full(real.rows, 1 / real.rows), weights / weights.sum()
        boosts = np.ones(real.rows), np.ones(candidates.rows)
        found = []
        for tier in sorted({s.tier for s in self.strata}):
            those = [s for s in self.strata if s.tier == tier]
            same, fresh = boost, []
            for rows, part, now in zip((real, candidates), parts, boosts, strict=True):
                new = np.zeros(rows.rows, dtype=bool)
                for s in those:
                    new |= s.inside(rows)
                new &= now == 1
                room = max(limit - float(part @ now), 0.0)
                same = min(same, 1 + room / max(float(part[new].sum()), 1e-12))
                fresh.append(new)
            for now, new in zip(boosts, fresh, strict=True):
                now[new] = same
            found += [replace(s, boost=same) for s in those]
        mean = max(float(part @ now) for part, now in zip(parts, boosts, strict=True))
        quotas = [float(boosts[0][s.inside(real)].sum()) / (mean * real.rows) for s in found]
        strata = tuple(replace(s, quota=q) for s, q in zip(found, quotas, strict=True))
        return replace(self, strata=strata, mean=mean)

    def reaching(self, candidates: Coding, weights: np.ndarray, pool: int) -> Strata:
        """These strata with the boosts at which they reach their quotas.

        A candidate of the pilot whose boosted weight is above what a pool can give is taken for
        sure, and no more: then the others of its stratum have to be boosted more.
        """
        count = candidates.rows // pool
        inside = [np.flatnonzero(s.inside(candidates)) for s in self.strata]
        found = self
        for _ in range(ROUNDS):
            chances = inclusion(weights * found.boosts(candidates), count)
            got = [float(chances[rows].sum()) / count for rows in inside]
            lack = [
                float(np.clip(s.quota / max(g, 1e-12), 1.0, 2.0))
                for s, g in zip(found.strata, got, strict=True)
            ]
            if max(lack, default=1.0) < 1.02:
                break
            strata = [
                replace(s, boost=min(s.boost * x, MOST_BOOST))
                for s, x in zip(found.strata, lack, strict=True)
            ]
            found = replace(found, strata=tuple(strata))
        return found

    def for_boosts(self, candidates: Coding, weights: np.ndarray, pool: int) -> float:
        """The share of rows that are there for a boost: by as much the others have become fewer."""
        count = candidates.rows // pool
        boosts = self.boosts(candidates)
        others = boosts == 1
        now = float(inclusion(weights * boosts, count)[others].sum())
        return 1 - now / max(float(inclusion(weights, count)[others].sum()), 1e-12)

    @property
    def most(self) -> float:
        """How many times as often as the mean row one of the most boosted is to be drawn."""
        return max((s.boost for s in self.strata), default=1.0) / self.mean

    @cached_property
    def _tables(self) -> dict[tuple[int, ...], np.ndarray]:
        """The largest boost by cell, for all strata of the same columns together."""
        found: dict[tuple[int, ...], np.ndarray] = {}
        for s in self.strata:
            table = found.setdefault(s.columns, np.ones([len(x) for x in s.cells]))
            cells = np.ix_(*s.cells)
            table[cells] = np.maximum(table[cells], s.boost)
        return found


def rare_strata(real: pa.Table, schema: TableSchema, coder: Coder, params: TailsParams) -> Strata:
    """The strata of the real rows, without boosts."""
    rows = coder.code(real)
    people = people_of(real, schema)
    every = list(_candidates(coder, rows, schema, params))
    scarce = [s.id for s in every if s.tier == _NAMED and s.real_rows < params.min_count]
    wanted = [s for s in every if s.real_rows >= params.min_count]
    first = sorted(range(len(wanted)), key=lambda i: (wanted[i].tier, wanted[i].real_rows))
    kept: list[Stratum] = []
    few: list[Stratum] = []
    for i in sorted(first[:MOST_STRATA]):
        stratum = wanted[i]
        inside = stratum.inside(rows)
        public = all(schema.column(coder.names[c]).public for c in stratum.columns)
        count = stratum.real_rows if people is None else len(np.unique(people[inside]))
        (kept if public or count >= params.min_people else few).append(stratum)
    return Strata(
        coder,
        tuple(sorted(kept, key=lambda s: s.tier)),
        tuple(s.id for s in few),
        tuple(scarce),
        max(len(wanted) - MOST_STRATA, 0),
        min_count=params.min_count,
    )


def people_of(real: pa.Table, schema: TableSchema) -> np.ndarray | None:
    """Each row's entity by number; None where rows are people."""
    if schema.entity is None:
        return None
    codes = decoded(real.column(schema.entity)).dictionary_encode().indices
    return np.asarray(codes.fill_null(-1))


def _candidates(
    coder: Coder, rows: Coding, schema: TableSchema, params: TailsParams
) -> Iterator[Stratum]:
    n = rows.rows
    target = coder.names.index(schema.target) if schema.target in coder.names else None
    if target is not None and not coder.is_levels(target):
        target = None

    def stratum(id_: str, tier: int, count: int, *cells: tuple[int, np.ndarray]) -> Stratum:
        columns, inside = zip(*cells, strict=True)
        return Stratum(id_, tier, columns, inside, int(count), count / max(n, 1))

    for i, name in enumerate(coder.names):
        width = coder.width(i, fine=True)
        counts = np.bincount(rows.fine[i], minlength=width)
        if coder.is_named(i):
            number = sum(coder.is_named(j) for j in range(i + 1))
            yield stratum(f"named#{number}", _NAMED, counts[1], (i, np.array([False, True])))
        elif coder.is_levels(i):
            for code in range(1, width - 1):
                if 0 < counts[code] <= params.rare * n:
                    tier = _TARGET if i == target else _LEVEL
                    cells = np.arange(width) == code
                    yield stratum(f"{name}#{code}", tier, counts[code], (i, cells))
            if target is None or i == target:
                continue
            both = np.zeros((coder.width(target, fine=True), width), dtype=np.int64)
            np.add.at(both, (rows.fine[target], rows.fine[i]), 1)
            for a, b in np.argwhere((both > 0) & (both <= params.rare * n)):
                if 0 < a < len(both) - 1 and 0 < b < width - 1 and counts[b] > params.rare * n:
                    id_ = f"{coder.names[target]}#{a}×{name}#{b}"
                    cell = (target, np.arange(len(both)) == a), (i, np.arange(width) == b)
                    yield stratum(id_, _LEVEL, both[a, b], *cell)
        else:
            for side, order in (("low", 1), ("high", -1)):
                codes = np.arange(1, width)[::order]
                upto = np.cumsum(counts[codes])
                inside = codes[upto <= params.rare * n * 1.1]  # bins hold a hundredth, about
                if len(inside) and (count := counts[inside].sum()):
                    cells = np.isin(np.arange(width), inside)
                    yield stratum(f"{name}#{side}", _TAIL, count, (i, cells))


@dataclass
class StrataTally:
    """What of each stratum is in the rows of a release, with weights and without."""

    strata: Strata
    rows: int = 0
    total: float = 0.0
    squares: float = 0.0

    def __post_init__(self) -> None:
        count = len(self.strata.strata)
        self._rows, self._weight, self._squares = (np.zeros(count) for _ in range(3))
        self._others, self._others_weight = 0, 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Without the strata: it is sent to be merged into a tally that has it."""
        return {k: v for k, v in vars(self).items() if k != "strata"}

    def update(self, table: pa.Table, weights: np.ndarray) -> None:
        coded = self.strata.coder.code(table)
        self.rows += table.num_rows
        self.total += float(weights.sum())
        self.squares += float((weights**2).sum())
        others = np.ones(table.num_rows, dtype=bool)
        for i, stratum in enumerate(self.strata.strata):
            there = stratum.inside(coded)
            others &= ~there
            inside = weights[there]
            self._rows[i] += len(inside)
            self._weight[i] += inside.sum()
            self._squares[i] += (inside**2).sum()
        self._others += int(others.sum())
        self._others_weight += float(weights[others].sum())

    def merge(self, other: StrataTally) -> None:
        """Add what of the same strata is in the rows that come after these."""
        for name in ("rows", "total", "squares", "_rows", "_weight", "_squares", "_others"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self._others_weight += other._others_weight

    @property
    def boosted(self) -> float:
        """The share of rows that are there for a boost: by as much those outside of all strata are
        fewer than their weights say."""
        if not self._others_weight:
            return 0.0
        return max(1 - self._others / self.rows * self.total / self._others_weight, 0.0)

    @property
    def effective(self) -> float:
        """The effective sample size (Kish 1965): rows of equal weight that are worth as much."""
        return float(self.total**2 / self.squares) if self.squares else 0.0

    def facts(self) -> dict[str, Any]:
        """For the manifest: by stratum its share in reality, its quota, and what it got."""
        found = [self._fact(i, s) for i, s in enumerate(self.strata.strata)]
        return {
            "rows": self.rows,
            "effective_rows": round(self.effective, 1),
            "boosted_share": round(self.boosted, 4),
            "strata": found,
            "too_few_people": list(self.strata.few),
            "too_few_rows": list(self.strata.scarce),
            "left_out": self.strata.left_out,
            "short": [
                s.id for i, s in enumerate(self.strata.strata) if self._rows[i] < self._least(s)
            ],
        }

    def _least(self, stratum: Stratum) -> float:
        """What a stratum has to have: its quota, but for chance (3 standard errors), and what
        `min_count` asks for."""
        due = stratum.quota * self.rows
        return float(max(due - 3 * due**0.5, self.strata.min_count))

    def _fact(self, i: int, stratum: Stratum) -> dict[str, Any]:
        weighted = float(self._weight[i] / self.total) if self.total else 0.0
        # Hájek's estimate of a share, and its standard error by linearisation.
        inside, outside = self._squares[i], self.squares - self._squares[i]
        variance = (1 - weighted) ** 2 * inside + weighted**2 * outside
        error = float(variance**0.5) / self.total if self.total else 0.0
        return {
            "id": stratum.id,
            "real_rows": stratum.real_rows,
            "share": stratum.share,
            "quota": stratum.quota,
            "rows": int(self._rows[i]),
            "weighted_share": weighted,
            "interval": [max(0.0, weighted - 1.96 * error), min(1.0, weighted + 1.96 * error)],
        }
