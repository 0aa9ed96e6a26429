"""What a report draws of real and made rows: numbers in which no real value stands.

Shares of real rows are taken between round numbers (1, 2 or 5 times a power of ten) that the range
of the made rows decides, or up to quantiles of the made rows, which are named by their rank. Levels
have the ids that findings give them, `#k` for the k-th most frequent in the source; their names are
words of the real data, shown where the user declared a column public or the policy lets reports
quote real values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from safegen.decision import Decision
from safegen.measure.compared import floats, plain, subset
from safegen.measure.drawn import Drawn
from safegen.measure.questions import comparable
from safegen.measure.scales import Tick, bins_of, ticks_of
from safegen.measure.ties import Ties, ties
from safegen.tables.numbers import taken
from safegen.tables.schema import Column, TableSchema

__all__ = [
    "Bins",
    "ColumnFigures",
    "Figures",
    "Levels",
    "Measured",
    "Picture",
    "Sample",
    "Weights",
    "column_figures",
    "level_name",
    "parts_of",
    "weights_shown",
]

MOST = 50_000  # rows of a kind that are looked at
SHOWN = 10  # levels of a column
MOST_PARTS = 400  # of a finding
ROWS_A_BIN = 20  # about, of rows that lie evenly: bins of few rows show chance and single rows
POINTS = 40  # of a curve of ranks
_TEXT = 40  # characters of a level's name

Pair = tuple[float, float]  # of the real rows, of the made ones


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Bins(_Part):
    """Shares of rows between round numbers, below the first and above the last of them."""

    real: list[float]
    made: list[float]
    below: Pair
    above: Pair
    ticks: list[Tick]
    ranks: list[Pair]  # the shares of rows up to quantiles of the made rows


class Levels(_Part):
    """Shares of the most frequent levels, and of all others together."""

    names: list[str]
    named: bool  # whether the names are those of the data
    real: list[float]
    made: list[float]
    others: int
    rest: Pair
    new: float  # of made rows: levels that no real row has


class ColumnFigures(_Part):
    """One column, real beside made. missing: shares of all rows; the others are of the rest."""

    table: str
    name: str
    rows: tuple[int, int]
    missing: Pair
    bins: Bins | None = None
    levels: Levels | None = None


class Measured(_Part):
    """A number that a finding rests on, as `decision.Part` has it."""

    name: str
    value: float
    interval: tuple[float, float]
    within: tuple[float | None, float | None]
    judged: bool


class Sample(_Part):
    """Some made rows as text; None where a cell is withheld."""

    table: str
    heads: list[str]
    rows: list[list[str | None]]


class Picture(_Part):
    """A made image, small: base64 of a PNG or JPEG file."""

    kind: Literal["png", "jpeg"]
    data: str = Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=65_536)
    width: int
    height: int


class Weights(_Part):
    """The rows' weights: shares of rows between round numbers, and how many rows of equal weight
    they are worth (Kish 1965)."""

    rows: int
    effective: float
    shares: list[float]
    ticks: list[Tick]


class Figures(_Part):
    """All that a report draws and a manifest does not hold."""

    asked: int
    noun: str  # what was counted there
    columns: list[ColumnFigures] = []
    ties: list[Ties] = []
    parts: dict[str, list[Measured]] = {}  # by finding
    samples: list[Sample] = []
    pictures: list[Picture] = []
    withheld: int = 0  # pictures that are copies of real ones
    weights: Weights | None = None
    real_values: bool = False
    problem: str | None = None  # why there is less

    def without_rows(self) -> Figures:
        """What a refused release may leave: no row and no picture of it."""
        return self.model_copy(update={"samples": [], "pictures": [], "withheld": 0})


def column_figures(
    table: str,
    real: pa.Table,
    made: Drawn,
    schema: TableSchema,
    *,
    real_values: bool,
    seed: int = 0,
) -> tuple[list[ColumnFigures], Ties | None]:
    """Each column that has a distribution, and what pairs of columns have to do with each other;
    nothing where one side has no rows.
    """
    if not real.num_rows or not made.table.num_rows:
        return [], None
    picked = [subset(t.num_rows, MOST, seed) for t in (real, made.table)]
    sides = [taken(t, rows) for t, rows in zip((real, made.table), picked, strict=True)]
    weights = made.weights[picked[1]]
    found = []
    kept = comparable(schema)
    for column in () if kept is None else kept.columns:
        pair = (sides[0].column(column.name), sides[1].column(column.name))
        if column.kind in ("numeric", "datetime"):
            found.append(_numbers(table, column, *pair, weights))
        else:
            found.append(_levels(table, column, *pair, weights, real_values))
    return found, None if kept is None else ties(
        table, sides[0], sides[1], kept, weights, seed=seed
    )


def _numbers(
    table: str,
    column: Column,
    real: pa.ChunkedArray,
    made: pa.ChunkedArray,
    weights: np.ndarray,
) -> ColumnFigures:
    values = [floats(x) for x in (real, made)]
    there = [np.isfinite(x) for x in values]
    known = [x[t] for x, t in zip(values, there, strict=True)]
    sizes = [np.ones(len(known[0])), weights[there[1]]]
    base = ColumnFigures(
        table=table,
        name=column.name,
        rows=(len(values[0]), len(values[1])),
        missing=(
            _rounded(1 - there[0].mean()),
            _rounded(1 - float(sizes[1].sum() / weights.sum())),
        ),
    )
    if not len(known[0]) or not len(known[1]):
        return base
    order = np.argsort(known[1], kind="stable")
    ordered, upto = known[1][order], np.cumsum(sizes[1][order]) / sizes[1].sum()
    at = [np.searchsorted(upto, p).clip(max=len(ordered) - 1) for p in (0.005, 0.995)]
    few = min(len(x) for x in known)
    scale = bins_of(float(ordered[at[0]]), float(ordered[at[1]]), made.type, few // ROWS_A_BIN)
    shares, below, above = zip(
        *(_binned(x, w, scale.edges) for x, w in zip(known, sizes, strict=True)), strict=True
    )
    cuts = np.searchsorted(upto, np.arange(1, POINTS) / POINTS).clip(max=len(ordered) - 1)
    ranks = [
        (_upto(known[0], sizes[0], cut), _upto(known[1], sizes[1], cut))
        for cut in np.unique(ordered[cuts])
    ]
    bins = Bins(
        real=shares[0],
        made=shares[1],
        below=below,
        above=above,
        ticks=ticks_of(scale),
        ranks=ranks,
    )
    return base.model_copy(update={"bins": bins})


def _binned(
    values: np.ndarray, weights: np.ndarray, edges: np.ndarray
) -> tuple[list[float], float, float]:
    total = float(weights.sum())
    counts = np.histogram(values, edges, weights=weights)[0] / total
    outside = [float(weights[part].sum()) for part in (values < edges[0], values > edges[-1])]
    return [_rounded(x) for x in counts], *(_rounded(x / total) for x in outside)  # type: ignore[return-value]


def _upto(values: np.ndarray, weights: np.ndarray, cut: float) -> float:
    return _rounded(float(weights[values <= cut].sum() / weights.sum()))


def _levels(
    table: str,
    column: Column,
    real: pa.ChunkedArray,
    made: pa.ChunkedArray,
    weights: np.ndarray,
    real_values: bool,
) -> ColumnFigures:
    parts = [plain(x) for x in (real, made)]
    parts[1] = parts[1].cast(parts[0].type)
    encoded = pa.chunked_array(parts).combine_chunks().dictionary_encode()
    codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy() + 1
    cells, n = len(encoded.dictionary) + 1, len(parts[0])
    counts = np.bincount(codes[:n], minlength=cells).astype(float)
    sums = np.bincount(codes[n:], weights, minlength=cells)
    base = ColumnFigures(
        table=table,
        name=column.name,
        rows=(n, len(parts[1])),
        missing=(_rounded(counts[0] / counts.sum()), _rounded(sums[0] / sums.sum())),
    )
    known = (counts[1:].sum(), sums[1:].sum())
    if not known[0] or not known[1]:
        return base
    order = np.argsort(-counts[1:], kind="stable") + 1
    real_levels = order[counts[order] > 0]
    top, rest = real_levels[:SHOWN], real_levels[SHOWN:]
    named = real_values or column.public or column.kind == "boolean"
    levels = Levels(
        names=[
            level_name(encoded.dictionary[int(k) - 1].as_py()) if named else f"#{rank}"
            for rank, k in enumerate(top, 1)
        ],
        named=named,
        real=[_rounded(x) for x in counts[top] / known[0]],
        made=[_rounded(x) for x in sums[top] / known[1]],
        others=len(rest),
        rest=(_rounded(counts[rest].sum() / known[0]), _rounded(sums[rest].sum() / known[1])),
        new=_rounded(sums[1:][counts[1:] == 0].sum() / known[1]),
    )
    return base.model_copy(update={"levels": levels})


def level_name(value: object) -> str:
    """A level as a page names it, where it may."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def weights_shown(made: Mapping[str, Drawn], rows: int, effective: float | None) -> Weights | None:
    """The weights of the one table that has different ones; None where all are alike.

    effective: of all rows, where it is known; else of those that were drawn.
    """
    for drawn in made.values():
        if not drawn.weighted:
            continue
        weights = drawn.weights
        own = float(weights.sum() ** 2 / (weights**2).sum()) / len(weights) * rows
        scale = bins_of(0.0, float(np.quantile(weights, 0.995)), pa.float64())
        shares = np.histogram(np.minimum(weights, scale.edges[-1]), scale.edges)[0] / len(weights)
        return Weights(
            rows=rows,
            effective=_rounded(own if effective is None else effective),
            shares=[_rounded(x) for x in shares],
            ticks=ticks_of(scale),
        )
    return None


def parts_of(decision: Decision) -> dict[str, list[Measured]]:
    """The numbers that each finding rests on: the first `MOST_PARTS` of each."""
    return {
        name: [
            Measured(
                name=p.name,
                value=float(p.value),
                interval=(float(p.interval[0]), float(p.interval[1])),
                within=tuple(None if x is None else float(x) for x in p.within),  # type: ignore[arg-type]
                judged=p.judged,
            )
            for p in finding.parts[:MOST_PARTS]
            if all(map(math.isfinite, (p.value, *p.interval)))
        ]
        for name, finding in decision.findings.items()
        if finding.parts
    }


def _rounded(value: float) -> float:
    return round(float(value), 5) if math.isfinite(value) else 0.0
