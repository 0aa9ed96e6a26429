"""What the `fidelity` rule asks of one table's rows, and at how many rows each can be answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.measure.clusters import independent_units
from safegen.measure.gaps import marginal_cells, pair_cells
from safegen.measure.masses import mass_cells, rare_levels, tails
from safegen.measure.samples import MOST, Samples, samples
from safegen.measure.verdicts import Cell
from safegen.tables.schema import TableSchema
from safegen.tables.units import units

__all__ = ["QUESTIONS", "Answer", "comparable", "design_effects", "judged_counts"]


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


def judged_counts(
    real: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema], rows: int, params: Any
) -> dict[str, tuple[int, int]]:
    """By question how many cells can be judged when `rows` are asked for, and how many there are.

    From the real rows alone, as it is before anything is fitted. rows: as a request counts them,
    of a table, of sequences, or of the tables that refer to no other.
    """
    counts = dict.fromkeys(QUESTIONS, (0, 0))
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
            judged = sum(c.judged for c in answer.cells)
            total = len(answer.cells) + answer.few
            counts[name] = (counts[name][0] + judged, counts[name][1] + total)
    return counts
