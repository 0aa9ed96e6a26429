"""Whether rare levels are there, and in what number: the first thing that collapse takes.

A rare level is a level of a categorical or boolean column with at most 1 % of the real rows and
at least 30 of them; missing is a level.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from safegen.measure.compared import compared
from safegen.measure.intervals import share_interval
from safegen.measure.measured import GROUPS, Measured, grouped, jackknife, mean_interval
from safegen.tables.schema import TableSchema

__all__ = ["rare_coverage", "rare_mass"]

RARE = 0.01  # share of the real rows, at most
ROWS = 30  # real rows, at least: for these, absence by chance is out of the question


def rare_coverage(real: pa.Table, made: pa.Table, schema: TableSchema) -> Measured | None:
    """The share of rare levels that are present, over its expectation 1 − (1 − p)ⁿ at this n.

    None when the real rows have no rare level. It can exceed 1 slightly where n is small.
    """
    present, expected = 0, 0.0
    total = 0
    for real_codes, made_codes, cells, rare in _rare(real, made, schema):
        shares = np.bincount(real_codes, minlength=cells)[rare] / real.num_rows
        present += int((np.bincount(made_codes, minlength=cells)[rare] > 0).sum())
        expected += float((1 - (1 - shares) ** made.num_rows).sum())
        total += len(rare)
    if not total:
        return None
    scale = total / expected
    low, high = share_interval(present, total)
    return Measured(
        "rare_coverage",
        present / expected,
        (low * scale, high * scale),
        made.num_rows,
        real.num_rows,
        f"presence of {total} rare levels over its expectation; Wilson interval, 95 %",
        None,
    )


def rare_mass(
    real: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0
) -> Measured | None:
    """Mean over rare levels of min(1, generated share / real share); None without such levels.

    Chance lowers it, for a share too large does not make up for one too small: on Adult real
    rows reach .94.
    """
    orders = grouped(real.num_rows, seed), grouped(made.num_rows, seed)
    found, levels = [], []
    for real_codes, made_codes, cells, rare in _rare(real, made, schema):

        def mass(p: np.ndarray, q: np.ndarray, rare: np.ndarray = rare) -> float:
            return float(np.minimum(1.0, q[rare] / np.maximum(p[rare], 1e-12)).sum())

        found.append(jackknife(real_codes[orders[0]], made_codes[orders[1]], cells, mass))
        levels.append(len(rare))
    if not found:
        return None
    scale = len(found) / sum(levels)  # from the mean over columns to that over levels
    per_level = [(v * scale, left * scale) for v, left in found]
    value, interval = mean_interval(per_level, 0.0, 1.0)
    return Measured(
        "rare_mass",
        value,
        interval,
        made.num_rows,
        real.num_rows,
        f"mean of min(1, share ratio) over {sum(levels)} rare levels; 95 % by a jackknife of "
        f"{GROUPS} groups of rows in each sample",
        seed,
    )


def _rare(
    real: pa.Table, made: pa.Table, schema: TableSchema
) -> Iterator[tuple[np.ndarray, np.ndarray, int, np.ndarray]]:
    """Per column with rare levels: real codes, generated codes, how many codes, the rare ones."""
    for column in compared(real, made, schema):
        if column.numeric:
            continue
        counts = np.bincount(column.codes[0], minlength=column.cells)
        rare = np.flatnonzero((counts >= ROWS) & (counts <= RARE * real.num_rows))
        if len(rare):
            yield (*column.codes, column.cells, rare)
