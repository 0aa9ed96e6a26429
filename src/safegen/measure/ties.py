"""What columns have to do with each other, among the real rows and among the made ones."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from safegen.measure.compared import compared, subset
from safegen.measure.gaps import BINS, coarse
from safegen.tables.numbers import taken
from safegen.tables.schema import TableSchema

__all__ = ["COLUMNS", "Ties", "cramer", "ties"]

COLUMNS = 40  # of a table: the first
ROWS = 20_000  # of a kind that are looked at


class Ties(BaseModel):
    """Cramér's V of each pair of columns, in the order of `itertools.combinations`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    table: str
    columns: list[str]
    left_out: int
    rows: tuple[int, int]
    real: list[float]
    made: list[float]


def ties(
    table: str,
    real: pa.Table,
    made: pa.Table,
    schema: TableSchema,
    weights: np.ndarray,
    *,
    seed: int = 0,
) -> Ties | None:
    """How strongly each pair of columns hangs together on either side; None for one column.

    Numbers count by the real table's deciles, levels by name, of which all but the eleven most
    frequent ones are one.
    """
    kept = TableSchema(columns=schema.columns[:COLUMNS])
    if len(kept.columns) < 2:
        return None
    picked = [subset(t.num_rows, ROWS, seed) for t in (real, made)]
    sides = [
        taken(t.select(kept.names), rows) for t, rows in zip((real, made), picked, strict=True)
    ]
    sizes = (np.ones(len(picked[0])), weights[picked[1]])
    bins = [coarse(c) for c in compared(sides[0], sides[1], kept)]
    found: tuple[list[float], list[float]] = ([], [])
    for i, j in combinations(range(len(bins)), 2):
        for side in (0, 1):
            joint = np.bincount(bins[i][side] * BINS + bins[j][side], sizes[side], BINS * BINS)
            found[side].append(round(cramer(joint.reshape(BINS, BINS), len(picked[side])), 3))
    return Ties(
        table=table,
        columns=list(kept.names),
        left_out=len(schema.columns) - len(kept.columns),
        rows=(len(picked[0]), len(picked[1])),
        real=found[0],
        made=found[1],
    )


def cramer(counts: np.ndarray, n: int) -> float:
    """Cramér's V of a table of counts, 0 to 1, without what chance adds (Bergsma 2013, Journal of
    the Korean Statistical Society 42); 0 where a column does not vary. n: rows."""
    share = counts / counts.sum()
    share = share[share.sum(axis=1) > 0][:, share.sum(axis=0) > 0]
    r, k = share.shape
    if min(r, k) < 2 or n < 2:
        return 0.0
    expected = np.outer(share.sum(axis=1), share.sum(axis=0))
    phi = float(((share - expected) ** 2 / expected).sum())
    phi = max(0.0, phi - (r - 1) * (k - 1) / (n - 1))
    r_, k_ = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    return min(1.0, math.sqrt(phi / max(min(r_, k_) - 1, 1e-9)))
