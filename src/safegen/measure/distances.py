"""How far generated rows are from real ones: one column at a time, and two.

Neither distance is 0 between two samples of one reality: on Adult, 32,561 rows against the other
16,281, the shape error is 0.6 % and the pair error 1.8 %. Compare with what real rows reach.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pyarrow as pa

from safegen.errors import UsageError
from safegen.measure.compared import compared
from safegen.measure.measured import GROUPS, Measured, grouped, jackknife, mean_interval
from safegen.tables.schema import TableSchema

__all__ = ["pair_error", "shape_error"]

_METHOD = f"{{}}; 95 % by a jackknife of {GROUPS} groups of rows in each sample"


def shape_error(real: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0) -> Measured:
    """Mean over columns of KS (numbers, dates) or total variation (levels), in percent.

    A missing value is a level of its own, and for KS stands below every number. Raises:
    UsageError when there is nothing to compare.
    """
    orders = grouped(real.num_rows, seed), grouped(made.num_rows, seed)
    found = [
        jackknife(
            column.codes[0][orders[0]],
            column.codes[1][orders[1]],
            column.cells,
            kolmogorov_smirnov if column.numeric else total_variation,
        )
        for column in compared(real, made, schema)
    ]
    value, interval = mean_interval(found, 0.0, 1.0)
    what = f"mean of KS and total variation over {len(found)} columns"
    return _percent("shape_error", value, interval, real, made, what, seed)


def pair_error(real: pa.Table, made: pa.Table, schema: TableSchema, *, seed: int = 0) -> Measured:
    """Mean over column pairs of the total variation of their joint, in percent.

    Numbers and dates count by the real table's decile bins (ten distinct numbers at most: by
    number), missing values as a bin of their own. Raises: UsageError for fewer than two columns.
    """
    orders = grouped(real.num_rows, seed), grouped(made.num_rows, seed)
    columns = [
        (c.bins[0][orders[0]], c.bins[1][orders[1]], c.widths) for c in compared(real, made, schema)
    ]
    if len(columns) < 2:
        raise UsageError("a pair error needs two columns that can be compared")
    found = []
    for (first, other, _), (second, another, width) in combinations(columns, 2):
        both = np.concatenate([first * width + second, other * width + another])
        # Many of the cells of two columns with many levels are empty: number the others only.
        if (cells := int(both.max()) + 1) > len(both):
            seen, both = np.unique(both, return_inverse=True)
            cells = len(seen)
        size = len(first)
        found.append(jackknife(both[:size], both[size:], cells, total_variation))
    value, interval = mean_interval(found, 0.0, 1.0)
    what = f"mean total variation over {len(found)} column pairs, decile bins and levels"
    return _percent("pair_error", value, interval, real, made, what, seed)


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Half the sum of absolute differences of two vectors of shares."""
    return float(np.abs(p - q).sum() / 2)


def kolmogorov_smirnov(p: np.ndarray, q: np.ndarray) -> float:
    """The largest difference of the distribution functions of shares over ordered cells."""
    return float(np.abs(np.cumsum(p - q)).max())


def _percent(
    name: str,
    value: float,
    interval: tuple[float, float],
    real: pa.Table,
    made: pa.Table,
    what: str,
    seed: int,
) -> Measured:
    low, high = interval
    return Measured(
        name,
        100 * value,
        (100 * low, 100 * high),
        made.num_rows,
        real.num_rows,
        _METHOD.format(what),
        seed,
    )
