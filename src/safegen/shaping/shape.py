"""Step 7: which candidates of a block become its rows. Constants are fixed once, from a pilot.

A block's candidates are drawn in pools, and each pool gives its rows on its own: so a shorter
request is a prefix of a longer one, and any process can make any block.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.lineage.watermark import Watermark
from safegen.policy import SelectionParams, TailsParams
from safegen.shaping.calibration import Calibration, calibration
from safegen.shaping.coding import Coder, Coding, Rarest
from safegen.shaping.drawing import inclusion, systematic
from safegen.shaping.raking import Raking, rake
from safegen.shaping.strata import Strata, StrataTally, people_of, rare_strata
from safegen.tables.numbers import taken
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.policy import Policy
    from safegen.tables.schema import TableSchema

__all__ = ["Shape", "asked_for", "marked_shape", "shape_for"]

CANDIDATES = 8_192
"""Candidates from which rows are drawn at once: enough for their shares to be the model's."""

PILOT = (8_192, 32_768, 131_072)
"""Candidates of which constants are found: four for each real row up to the last; of few real rows
24 for each up to the second, or what a pilot says of rare levels is chance; the first at least."""

MARKED, ASKED_FOR = 2_048, 64
"""Candidates from which rows are drawn at once where nothing but the watermark picks, of which
there are two for a row: a small request samples no more than these. Fewer where they have to meet
conditions, of which there may be few."""

MORE = 4
"""Times as many candidates where there are strata: what a pilot has too few of comes out wrong."""

MOST = 16
"""Candidates for a row, at most: a region that would need more stays short."""

AIMS = 5
"""Times that boosts are found, at most, until they take no more rows than the policy grants."""

PARITY = 0.8
"""Least share of a level after selection, over its real share (see docs/policies.md)."""

ROWS = 30
"""Real rows of a level from which on that is asked."""

PEOPLE = 30
"""People (rows, where no column is declared entity) of the real rows to select by, at least: what
fewer have in common is about them, and conditions may leave one."""

_DRAWN = 7_001  # names the stream of draws from pools


@dataclass(frozen=True, eq=False)
class Shape:
    """How a block is made of candidates, of which there are `pool` for each row.

    A candidate's chance to be kept is proportional to the weight that selection gives it (`raking`;
    1 where that is off) times the boost of its strata; its weight in the release is what is left of
    the first over the chance, as Horvitz & Thompson (1952) have it. Of candidates with the same
    rarest cell as many are kept as their chances add up to, but for less than one: chance takes no
    rare level that the model has.
    """

    pool: int
    coder: Coder
    rarest: Rarest
    raking: Raking | None
    strata: Strata | None
    calibration: Calibration | None
    facts: dict[str, Any]
    watermark: Watermark | None = None
    at_once: int = CANDIDATES
    """Candidates of a pool, but no more than a block has."""

    def capacity(self, block_rows: int) -> int:
        """Rows of a full block, made of `block_rows` candidates."""
        drawn = min(self.at_once, block_rows)
        return (block_rows // drawn) * max(drawn // self.pool, 1)

    def candidates(self, rows: int, block_rows: int) -> int:
        """How many candidates `rows` rows of a block need; fewer are a prefix of more."""
        drawn = min(self.at_once, block_rows)
        return -(-rows // max(drawn // self.pool, 1)) * drawn

    def rows(
        self, candidates: pa.Table, rows: int, block_rows: int, *, seed: int, block: int
    ) -> tuple[pa.Table, np.ndarray | None]:
        """The first `rows` rows of a block, of its first candidates, and their weights, where they
        are not all 1."""
        drawn = min(self.at_once, block_rows)
        if self.calibration is not None:
            candidates = self.calibration(candidates)
        coded = self.coder.code(candidates)
        marked = None if self.watermark is None else self.watermark.preferences(candidates)
        chosen, weights = [], []
        for number, start in enumerate(range(0, candidates.num_rows, drawn)):
            rng = np.random.default_rng(stream(seed, _DRAWN, block, number))
            pool = coded.part(start, drawn)
            preferences = None if marked is None else marked[start : start + drawn]
            some, weight = self._drawn(pool, max(drawn // self.pool, 1), rng, preferences)
            chosen.append(start + some)
            weights.append(weight)
        table = taken(candidates, np.concatenate(chosen)[:rows])
        return table, None if self.strata is None else np.concatenate(weights)[:rows]

    def marked(self, candidates: pa.Table, seed: int) -> dict[str, float]:
        """What the watermark does to some candidates' rows: how much of it they have, and the mean
        total variation of their columns, in %, from rows drawn without it; and, for comparison, of
        two such draws from each other."""
        assert self.watermark is not None
        rows, plain = self.capacity(candidates.num_rows), replace(self, watermark=None)
        draws = [
            shape.rows(candidates, rows, candidates.num_rows, seed=seed + i, block=0)[0]
            for i, shape in enumerate((self, plain, plain))
        ]
        mine, without, again = map(self.coder.code, draws)
        return {
            "strength": self.watermark.strength(draws[0]),
            "shape_error": _apart(self.coder, mine, without),
            "shape_error_by_chance": _apart(self.coder, again, without),
        }

    def tally(self) -> StrataTally | None:
        """Counts what of the strata is in the rows; None where there are none."""
        return None if self.strata is None else StrataTally(self.strata)

    def _drawn(
        self,
        pool: Coding,
        count: int,
        rng: np.random.Generator,
        preferences: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of `count` rows of a pool, and their weights."""
        due = np.ones(pool.rows) if self.raking is None else self.raking.finished(pool)
        sizes = due if self.strata is None else due * self.strata.boosts(pool)
        chances = inclusion(sizes, count)
        chosen = systematic(chances, count, rng, self.rarest(pool), preferences)
        return chosen, due[chosen] / chances[chosen] * (count / due.sum())


def asked_for(policy: Policy) -> bool:
    """Whether the policy has rows chosen among candidates."""
    return any(policy.rule(name).severity != "off" for name in ("selection", "tails"))


def marked_shape(
    made: pa.Table, schema: TableSchema, watermark: Watermark, *, conditions: bool
) -> Shape:
    """Constants where nothing but a watermark picks. made: rows of the model, never released.
    conditions: whether candidates have to meet some."""
    coder = Coder.of(made, schema)
    rarest = coder.rarest(coder.code(made))
    at_once = ASKED_FOR if conditions else MARKED
    return Shape(2, coder, rarest, None, None, None, {}, watermark, at_once)


def shape_for(
    real: pa.Table,
    schema: TableSchema,
    policy: Policy,
    draw: Callable[[int], pa.Table],
    *,
    seed: int,
    constrained: Collection[str] = (),
    watermark: Watermark | None = None,
) -> Shape:
    """Constants for the model from which `draw(n)` takes n rows that are never released.

    real: the rows whose shares candidates are selected to have, and whose rare regions are boosted.
    constrained: columns that the model keeps in a relation with others: they are not calibrated.

    Raises: UsageError for strata that the policy names and the rows cannot have.
    """
    selection, tails = policy.rule("selection"), policy.rule("tails")
    assert isinstance(selection, SelectionParams)
    assert isinstance(tails, TailsParams)
    selected, boosted = selection.severity != "off", tails.severity != "off"
    facts: dict[str, Any] = {}
    if selected and _people(real, schema) < PEOPLE:
        selected = False
        facts["selection"] = {"method": "none", "real_rows": real.num_rows, "least_people": PEOPLE}
    coder = Coder.of(real, schema, tails.strata if boosted else ())
    strata = rare_strata(real, schema, coder, tails) if boosted else None
    known = coder.code(real)
    if not selected and (strata is None or not strata.strata):
        rarest, pool = coder.rarest(known), 1 if watermark is None else 2
        return Shape(pool, coder, rarest, None, strata, None, facts, watermark)
    least, few, most = PILOT
    rows = max(least, min(24 * real.num_rows, few), min(4 * real.num_rows, most))
    made = draw(rows if strata is None else MORE * rows)
    mapped = None
    if selected and selection.calibrate:
        mapped = calibration(real, made, schema, constrained)
        made = mapped(made)
    pilot = coder.code(made)
    bound = float(selection.pool) if selected else 1.0
    pool = int(np.ceil(bound))
    raking = None
    weights = np.ones(pilot.rows)
    if selected:
        raking = rake(
            coder,
            known,
            pilot.part(0, rows),
            pilot,
            target=schema.target,
            cap=bound,
            seed=seed,
        )
        weights = raking.weights(pilot)
        facts["selection"] = {
            "method": "raking",
            "columns": len(coder.columns),
            "pairs": len(raking.factors) - len(coder.columns),
            "real_rows": real.num_rows,
            "pilot_rows": pilot.rows,
            "calibrated": [] if mapped is None else list(mapped.maps),
            "short": _short(coder, known, pilot, weights),
            # Of the pool, as if equally weighted: 1 where nothing is selected, 1 / pool at least.
            "effective_share": float(weights.sum() ** 2 / (weights**2).sum() / pilot.rows),
        }
    if strata is not None:
        # As candidates are drawn from, pool by pool: there weights are not quite the pilot's.
        if raking is not None:
            pools = [pilot.part(i, CANDIDATES) for i in range(0, pilot.rows, CANDIDATES)]
            weights = np.concatenate([raking.finished(rows) for rows in pools])
        strata, pool = _boosted(strata, known, pilot, weights, tails, bound)
    if raking is not None:
        facts["selection"]["pool"] = pool
    return Shape(pool, coder, coder.rarest(known), raking, strata, mapped, facts, watermark)


def _boosted(
    strata: Strata,
    real: Coding,
    pilot: Coding,
    weights: np.ndarray,
    tails: TailsParams,
    bound: float,
) -> tuple[Strata, int]:
    """The strata with their boosts, and how many candidates a row these need.

    bound: the most that a weight is. Strata that coincide in reality and not in the model take more
    rows than their quotas say, and less is aimed at until at most `max_boosted` are for a boost.
    """
    aim = tails.max_boosted
    for _ in range(AIMS):
        found = strata.boosted(real, pilot, weights, tails.boost, aim)
        # A row of weight w in a stratum of boost b is wanted b · w times as often as others.
        pool = int(np.clip(np.ceil(bound * found.most), max(np.ceil(bound), 2), MOST))
        found = found.reaching(pilot, weights, pool)
        there = found.for_boosts(pilot, weights, pool)
        if there <= tails.max_boosted * 1.01:
            break
        aim *= tails.max_boosted / there
    return found, pool


def _apart(coder: Coder, one: Coding, other: Coding) -> float:
    """Mean total variation between columns, in %."""
    gaps = []
    for a, b, column in zip(one.coarse, other.coarse, range(len(coder.columns)), strict=True):
        width = coder.width(column, fine=False)
        shares = [np.bincount(x, minlength=width) / max(len(x), 1) for x in (a, b)]
        gaps.append(50 * float(np.abs(shares[0] - shares[1]).sum()))
    return float(np.mean(gaps)) if gaps else 0.0


def _people(real: pa.Table, schema: TableSchema) -> int:
    """How many people these rows are of."""
    entities = people_of(real, schema)
    return real.num_rows if entities is None else len(np.unique(entities))


def _short(coder: Coder, real: Coding, pilot: Coding, weights: np.ndarray) -> list[str]:
    """The levels that would have less than `PARITY` of their share: selection must not do to rare
    levels what a generator does. Those of too few real rows to tell are not among them."""
    found = []
    for i, name in enumerate(coder.names):
        if not coder.is_levels(i):
            continue
        width = coder.width(i, fine=True)
        counts = np.bincount(real.fine[i], minlength=width)
        due = counts / real.rows
        got = np.bincount(pilot.fine[i], weights, width) / weights.sum()
        seen = np.maximum(due * pilot.rows, 1.0)  # candidates that a faithful model has
        least = PARITY * due * (1 - 3 / np.sqrt(seen))
        few = np.flatnonzero((counts >= ROWS) & (got < least))
        found += [f"{name}#{code}" for code in few if 0 < code < width - 1]
    return found
