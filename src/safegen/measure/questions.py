"""What the `fidelity` rule asks of one table's rows, and at how many rows each can be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.measure.classifiers import paired_error
from safegen.measure.clusters import independent_units
from safegen.measure.gaps import marginal_cells, pair_cells
from safegen.measure.masses import mass_cells, rare_levels, tails
from safegen.measure.samples import MOST, Samples, samples
from safegen.measure.verdicts import MISSED, Cell, normal_point
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema
from safegen.tables.streams import stream
from safegen.tables.units import units

__all__ = [
    "FEWEST_HELD",
    "QUESTIONS",
    "Answer",
    "Reach",
    "comparable",
    "design_effects",
    "enough_rows",
    "reached",
    "utility_judged",
]

FEWEST_HELD = 100  # rows to test a classifier on


@dataclass(frozen=True)
class Answer:
    """Cells of one table. every: how many there are, of which a part may have been looked at;
    few: how many more are in too few rows for any ratio."""

    pooled: list[Cell]
    cells: list[Cell]
    every: int
    few: int = 0


def _marginals(found: Samples, params: Any) -> Answer:
    pooled, cells = marginal_cells(found, params.column_margin, params.alpha)
    return Answer(pooled, cells, len(cells))


def _pairs(found: Samples, params: Any) -> Answer:
    return Answer(*pair_cells(found, params.pair_margin, params.worst_pair, params.alpha))


def _tails(found: Samples, params: Any) -> Answer:
    masses = tails(found)
    ends = (params.tail_ratio, params.tail_upper)
    pooled, cells = mass_cells(found, masses, ends, ends, params.alpha)
    return Answer(pooled, cells, len(cells), masses.few)


def _rare(found: Samples, params: Any) -> Answer:
    masses = rare_levels(found)
    single = (params.rare_level, 1 / params.rare_level)
    pooled, cells = mass_cells(
        found, masses, (params.rare_mass, params.rare_upper), single, params.alpha
    )
    return Answer(pooled, cells, len(cells), masses.few)


QUESTIONS: Mapping[str, Callable[[Samples, Any], Answer]] = {
    "marginals": _marginals,
    "pairs": _pairs,
    "tails": _tails,
    "rare": _rare,
}
"""By check of the rule. Each takes both samples and the rule's parameters."""


def comparable(schema: TableSchema) -> TableSchema | None:
    """The columns that have a distribution to compare: no ids, no invented data, no images. None
    where there is none."""
    kept = tuple(c for c in schema.columns if c.kind not in ("id", "personal", "image"))
    return TableSchema(columns=kept) if kept else None


def design_effects(
    tables: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema]
) -> dict[str, float]:
    """By table how many rows are worth one independent row: 1 where every row is drawn by itself.

    Where rows hang together it is Kish's n Σm² / (Σm)² for units of m rows: all rows of a unit
    count as copies of each other. (What only the longest units have varies more still; its design
    effect is at most the size of the longest.)
    """
    effects = {}
    for name, kinds in independent_units(tables, schemas).items():
        effects[name] = 1.0
        for kind in kinds:
            if kind.codes is None or not len(kind.codes):
                continue
            sizes = np.bincount(kind.codes[kind.codes >= 0]).astype(float)
            alone = int((kind.codes < 0).sum())
            squares = float((sizes**2).sum()) + alone
            effects[name] = max(effects[name], squares / len(kind.codes))
    return effects


@dataclass(frozen=True)
class Reach:
    """How many cells of a question can be judged, of how many; and on how many of its means a
    verdict is due, whatever chance does."""

    cells: int = 0
    every_cell: int = 0
    means: int = 0
    every_mean: int = 0

    @property
    def open(self) -> bool:
        """Whether chance may leave a generator without fault without a verdict."""
        return self.means < self.every_mean or (self.every_cell > 0 and not self.every_mean)

    def __add__(self, other: Reach) -> Reach:
        return Reach(
            self.cells + other.cells,
            self.every_cell + other.every_cell,
            self.means + other.means,
            self.every_mean + other.every_mean,
        )


def reached(
    real: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema], rows: int, params: Any
) -> dict[str, Reach]:
    """By question what can be judged when `rows` are asked for.

    From the real rows alone, as it is before anything is fitted. rows: as a request counts them,
    of a table, of sequences, or of the tables that refer to no other.
    """
    found_by = dict.fromkeys(QUESTIONS, Reach())
    effects = design_effects(real, schemas)
    share = rows / max(units(real, schemas), 1)
    for table, source in real.items():
        schema = comparable(schemas[table])
        if schema is None or not source.num_rows:
            continue
        found = samples(source, source, schema)
        made = min(share * source.num_rows, MOST)
        own = effects[table]
        found = replace(found, effects=(own, own * found.rows[1] / made))
        for name, ask in QUESTIONS.items():
            answer = ask(found, params)
            found_by[name] += Reach(
                sum(c.judged for c in answer.cells),
                len(answer.cells) + answer.few,
                sum(c.judged for c in answer.pooled),
                len(answer.pooled),
            )
    return found_by


def enough_rows(
    real: pa.Table, schema: TableSchema, rows: int, params: Any, most: int = MOST
) -> int | None:
    """From about how many real rows on, and as many made as `rows` is of the ones that there are,
    a verdict is due on each question; None where `most` do not do.

    More real rows are played by drawing from these with replacement, twice as many at a time.
    """
    n = int(real.num_rows)
    while 2 * n <= most:
        n *= 2
        drawn = np.random.default_rng(stream(0, n)).integers(0, real.num_rows, n)
        more = taken(real, np.sort(drawn))
        asked = round(rows * n / real.num_rows)
        reach = reached({"": more}, {"": schema}, asked, params)
        if not any(r.open for r in reach.values()):
            return n
    return None


def utility_judged(held: pa.Table, target: str, params: Any) -> bool:
    """Whether on these real rows, which no fit has seen, a generator without fault would be told
    from one that loses `utility_drop`. Known before anything is fitted."""
    counts = held.column(target).value_counts().field("counts").to_numpy()
    room = normal_point(params.alpha) + normal_point(MISSED)
    enough = int(held.num_rows) >= FEWEST_HELD
    return enough and bool(room * paired_error(counts) <= params.utility_drop)
