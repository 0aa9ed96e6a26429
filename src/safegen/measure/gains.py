"""Whether a refit on synthetic rows carries them further away from the real ones: a loop's gain.

Of each part of the data (a level with at least 30 real rows, missing values, a 5 % tail) there are
three shares: of the real rows, of the synthetic rows at hand, and of rows made by a model that has
seen nothing but these. With L the log odds of each, the gain is
g = exp(|L(again) − L(real)| − |L(made) − L(real)|). Where a share w of the training rows is real,
pooling pulls what a fit is shown back by about 1 − w, so a loop is stable in this part while
g (1 − w) < 1: a generator that doubles the odds of a class at each fit needs more than one real
row in two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from safegen.measure.verdicts import MISSED, Cell, Verdict, normal_point, verdict

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.tables.schema import TableSchema

__all__ = ["ALPHA", "TAIL", "Probe", "counted", "gains"]

ALPHA = 0.05
TAIL = 0.05  # share of the real rows at each end of a numeric column
ROWS = 30  # real rows in a part, from which on it is looked at


@dataclass(frozen=True)
class Probe:
    """What a loop's refit has shown: counts of rows, no values.

    rows: real, synthetic, and made again of the synthetic ones. parts: of each its id and how many
    of these rows are in it. selected: whether rows were made again as releases under the policy
    are. problem: why there is nothing to see; broken: whether that is a fault and no limit.
    """

    rows: tuple[int, int, int] = (0, 0, 0)
    parts: tuple[tuple[str, int, int, int], ...] = ()
    selected: bool = False
    problem: str | None = None
    broken: bool = False

    @property
    def weight(self) -> float:
        """The share of the training rows that is real."""
        return self.rows[0] / max(self.rows[0] + self.rows[1], 1)

    def to_json(self) -> dict[str, Any]:
        """The probe as a saved model keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Probe:
        """The probe that `to_json` wrote. Raises: TypeError, KeyError, ValueError on others."""
        fields = dict(document)
        real, made, again = (int(n) for n in fields["rows"])
        fields["rows"] = (real, made, again)
        fields["parts"] = tuple(
            (str(name), int(a), int(b), int(c)) for name, a, b, c in fields["parts"]
        )
        return cls(**fields)


def counted(
    real: pa.Table, made: pa.Table, again: pa.Table, schema: TableSchema, *, selected: bool
) -> Probe:
    """How many rows of each of the three tables are in each part of the real one."""
    import pyarrow as pa

    from safegen.measure.compared import compared

    shown = [c for c in schema.columns if c.kind not in ("id", "personal", "image")]
    rows = (real.num_rows, made.num_rows, again.num_rows)
    parts: list[tuple[str, int, int, int]] = []
    if shown and min(rows):
        schema = schema.model_copy(update={"columns": tuple(shown)})
        both = pa.concat_tables([made.select(schema.names), again.select(schema.names)])
        for column in compared(real.select(schema.names), both, schema):
            if column.values is None:
                names, codes, cells = _levels(column.name, column.codes[0], column.cells)
                sides = [codes[c] for c in column.codes]
            else:
                names, cells = [f"{column.name}#{part}" for part in _TAILS], len(_TAILS)
                cuts = _cuts(column.values[0])
                sides = [_sides(values, *cuts) for values in column.values]
            split = [sides[0], sides[1][: rows[1]], sides[1][rows[1] :]]
            counts = np.stack([np.bincount(s, minlength=cells + 1)[:cells] for s in split])
            kept = np.flatnonzero((counts[0] >= ROWS) & (counts[0] < rows[0]))
            parts += [(names[k], *map(int, counts[:, k])) for k in kept]  # type: ignore[misc]
    return Probe(rows, tuple(parts), selected)


def gains(probe: Probe, most: float) -> Verdict:
    """Whether g (1 − w) of any part is `most` or more, at the level of .05.

    A cell's value and bounds are g (1 − w). The error is that of three independent binomials
    (delta method, half a row more on either side: Gart and Zweifel 1967). A model repeats a part of
    the chance in the rows that it is shown, so that is too large rather than too small. Where the
    gap before may have had the other sign than the gap after, it is in the figure twice, and so is
    its error. The gain is at most the step from `made` to `again`, whose bound holds as well. A
    part is judged where a generator that gives back what it is shown would pass at these numbers of
    rows.
    """
    if not probe.parts:
        return verdict([], [], ALPHA)
    counts = np.array([part[1:] for part in probe.parts], dtype=float)
    rows = np.array(probe.rows, dtype=float)
    odds = np.log((counts + 0.5) / (rows - counts + 0.5))
    variance = 1 / (counts + 0.5) + 1 / (rows - counts + 0.5)
    before, after = odds[:, 1] - odds[:, 0], odds[:, 2] - odds[:, 0]
    gain = np.abs(after) - np.abs(before)
    step = np.sqrt(variance[:, 1] + variance[:, 2])
    shown = np.sqrt(variance[:, 0] + variance[:, 1])
    z = normal_point(ALPHA)
    turned = before * np.sign(after) < z * shown
    error = np.sqrt(step**2 + np.where(turned, 4 * shown**2, 0.0))
    synthetic = 1 - probe.weight
    limit = math.log(most / synthetic) if synthetic else math.inf
    high = np.minimum(gain + z * error, np.abs(after - before) + z * step)
    share = (counts[:, 0] + 0.5) / (rows[0] + 1)
    faithful = np.sqrt((1 / rows[1] + 1 / rows[2]) / (share * (1 - share)))
    room = (z + normal_point(MISSED / (2 * len(gain)))) * faithful
    normal = NormalDist()
    cells = [
        Cell(
            name,
            synthetic * math.exp(gain[k]),
            synthetic * math.exp(gain[k] - z * error[k]),
            synthetic * math.exp(high[k]),
            normal.cdf((limit - gain[k]) / error[k]) if math.isfinite(limit) else 1.0,
            bool(high[k] < limit),
            bool(room[k] <= limit),
            (None, most),
        )
        for k, (name, *_) in enumerate(probe.parts)
    ]
    return verdict([], cells, ALPHA)


_TAILS: Sequence[str] = (f"low {TAIL:.0%}", f"high {TAIL:.0%}", "missing")


def _levels(name: str, real: np.ndarray, cells: int) -> tuple[list[str], np.ndarray, int]:
    """Ids by rank among the real rows, and the place of each code; a code of 0 is missing."""
    counts = np.bincount(real, minlength=cells)
    order = np.argsort(-counts, kind="stable")
    order = order[(counts[order] > 0) & (order > 0)]
    place = np.full(cells, len(order) + 1)  # what no real row has is in no part
    place[order] = np.arange(len(order))
    place[0] = len(order)
    return (
        [f"{name}#{rank + 1}" for rank in range(len(order))] + [f"{name}#missing"],
        place,
        (len(order) + 1),
    )


def _cuts(real: np.ndarray) -> tuple[float, float]:
    """Beyond which a number lies in a tail: values of the real rows that are in none themselves."""
    known = real[~np.isnan(real)]
    if not len(known):
        return math.nan, math.nan
    return (
        float(np.quantile(known, TAIL, method="higher")),
        float(np.quantile(known, 1 - TAIL, method="lower")),
    )


def _sides(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The part of `_TAILS` that each value is in; 3 for none of them."""
    codes = np.where(values < low, 0, np.where(values > high, 1, 3))
    codes[np.isnan(values)] = 2
    return codes
