"""One column of numbers ↔ a float64 feature, with point masses and nulls split off.

A column with nulls or point masses makes two features: a categorical `name#state`, which says
whether a row is missing, sits on a mass or is continuous, and the number itself. Where a row is
not continuous its number is drawn from the continuous rows, so the marginal stays right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa

from safegen.contracts import Scalar
from safegen.errors import BackendError, SourceError
from safegen.tables.columns import (
    Condition,
    Feature,
    Features,
    LevelsColumn,
    Place,
    as_scalar,
    codes_of,
    impossible,
    missing_is_nan,
)
from safegen.tables.numbers import DAY_MS, from_numbers, limits, scale_of, single, to_numbers
from safegen.tables.types import family

__all__ = ["NumericColumn", "decimals_of", "fit_numeric"]

FEW_NUMBERS = 20  # at most this many distinct numbers, each with that many rows: levels
MASS_SHARE = 0.05  # a number this frequent is a point mass: a smooth marginal would lose it
MASS_ROWS = 20
MOST_MASSES = 8
EXACT = 1 << 53  # the integers that float64 holds without a gap
SAFE_EXPONENT = 300  # floats beyond 2**±300 are scaled: variances of them overflow float64


@dataclass(frozen=True, eq=False)
class NumericColumn:
    """A column of numbers. The feature is x itself wherever float64 holds it exactly.

    Integers, decimals, dates and times: feature = (x − offset) / unit, rounded on the way back
    to multiples of `step`; offset and unit are 0 and 1 unless |x| passes 2⁵³. Floats: feature =
    x · 2^−exponent, rounded to `decimals`. `low` and `high` bound the decoded feature.
    """

    name: str
    type: pa.DataType
    scale: int | None  # of a decimal
    offset: int
    unit: int
    step: int
    exponent: int
    decimals: int | None
    low: float
    high: float
    masses: tuple[float, ...]  # in feature units, ascending
    below: int  # how many masses come before the continuous part in the order of the states
    missing: bool
    nan: bool
    fill: float  # stands in for the continuous part where a table has none
    state: str  # the name of the state feature

    @property
    def features(self) -> tuple[Feature, ...]:
        number = Feature(self.name, "numeric", 0, self.name)
        states = self.missing + len(self.masses) + 1
        if states == 1:
            return (number,)
        return (Feature(self.state, "categorical", states, self.name), number)

    @property
    def continuous(self) -> int:
        """The state of rows that are neither missing nor on a mass."""
        return self.missing + self.below

    def _mass_state(self, index: int) -> int:
        return self.missing + index + (index >= self.below)

    def forward(self, numbers: np.ndarray) -> np.ndarray:
        """Source numbers → float64 feature."""
        if numbers.dtype.kind == "f":
            scaled: np.ndarray = np.ldexp(numbers, -self.exponent)
            return scaled
        if self.offset == 0 and self.unit == 1:
            return numbers.astype(np.float64)
        low, high = (self.offset + self.unit * int(x) for x in (self.low, self.high))
        inside = np.clip(numbers, low, high)
        steps = _wrapped(inside) - np.uint64(self.offset % 2**64)
        return (steps // np.uint64(self.unit)).astype(np.float64)

    def backward(self, feature: np.ndarray) -> np.ndarray:
        """Feature → source numbers: rounded like the source, then bounded."""
        if family(self.type) == "float":
            low, high = np.ldexp([self.low, self.high], self.exponent)
            with np.errstate(over="ignore"):  # beyond the type's range: cut off below
                found: np.ndarray = np.ldexp(feature, self.exponent)
                if self.decimals is not None:
                    found = np.round(found, self.decimals)
            np.clip(found, low, high, out=found)
            return found
        whole = np.clip(np.rint(feature / self.step) * self.step, self.low, self.high)
        steps = _wrapped(whole.astype(np.int64)) * np.uint64(self.unit)
        numbers = steps + np.uint64(self.offset % 2**64)
        return numbers if pa.types.is_uint64(self.type) else numbers.view(np.int64)

    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features:
        numbers, present = to_numbers(single(values), self.scale)
        absent = int((~present).sum())
        if absent and not self.missing:
            raise SourceError(
                f"column {self.name!r}: {absent:,} value(s) are missing, where none was in the fit"
            )
        feature = self.forward(numbers)
        states = np.full(len(feature), self.continuous, np.int32)
        for index, mass in enumerate(self.masses):
            states[feature == mass] = self._mass_state(index)
        states[~present] = 0
        smooth = present & (states == self.continuous)
        known = feature[smooth]
        gaps = int((~smooth).sum())
        if gaps:
            fill = rng.choice(known, gaps) if len(known) else np.full(gaps, self.fill)
            feature[~smooth] = fill
        named = self.features
        return {self.name: feature} if len(named) == 1 else {self.state: states, self.name: feature}

    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array:
        feature = np.asarray(features[self.name], dtype=np.float64)
        named = self.features
        present = np.ones(len(feature), dtype=bool)
        if len(named) > 1:
            states = codes_of(named[0], features)
            feature = np.where(states == self.continuous, feature, self.fill)
            if self.missing:
                present = states != 0
        bad = int((~np.isfinite(feature)).sum())
        if bad:
            raise BackendError(f"column {self.name!r}: the model gave {bad:,} non-finite number(s)")
        numbers = self.backward(feature)
        if len(named) > 1:
            masses = self.backward(np.array(self.masses))
            for index, mass in enumerate(masses):
                numbers[states == self._mass_state(index)] = mass
        if self.nan:
            numbers, present = np.where(present, numbers, np.nan), np.ones_like(present)
        return from_numbers(numbers, present, self.type, self.scale)

    def condition(self, value: Scalar) -> Condition:
        one = as_scalar(self.name, value, self.type).cast(self.type)
        try:
            numbers, present = to_numbers(one, self.scale)
        except pa.ArrowInvalid:
            raise impossible(self.name, "the source has fewer decimals") from None
        if not present[0]:
            if not self.missing:
                raise impossible(self.name, "the source has no missing value")
            return {self.state: ("level", 0)}
        feature = self.forward(numbers)
        if not from_numbers(self.backward(feature), present, self.type, self.scale).equals(one):
            raise impossible(self.name, "outside the source's range, or between its steps")
        number = float(feature[0])
        for index, mass in enumerate(self.masses):
            if number == mass:
                return {self.state: ("level", self._mass_state(index))}
        fixed: Condition = {self.name: ("value", number)}
        return (
            {self.state: ("level", self.continuous), **fixed} if len(self.features) > 1 else fixed
        )

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in _FIELDS}
        return {"codec": "numeric", **plain, "masses": list(self.masses)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], type_: pa.DataType) -> Self:
        plain = {name: document[name] for name in _FIELDS}
        if not np.isfinite([plain[n] for n in ("low", "high", "fill")]).all():
            raise ValueError
        if not plain["low"] <= plain["high"] or not np.isfinite(document["masses"]).all():
            raise ValueError
        if not all(isinstance(plain[n], int) for n in ("offset", "unit", "step", "below")):
            raise TypeError
        if not -(1 << 63) <= plain["offset"] < 1 << 64 or not 0 <= plain["below"] <= MOST_MASSES:
            raise ValueError
        if not all(1 <= plain[n] < 1 << 64 for n in ("unit", "step")):
            raise ValueError
        return cls(type=type_, masses=tuple(float(x) for x in document["masses"]), **plain)


_FIELDS = tuple(f.name for f in fields(NumericColumn) if f.name not in ("type", "masses"))


def _wrapped(numbers: np.ndarray) -> np.ndarray:
    """Two's complement as uint64, where sums wrap and so stay exact."""
    return numbers if numbers.dtype == np.uint64 else numbers.astype(np.int64).view(np.uint64)


def fit_numeric(
    name: str,
    values: pa.Array,
    *,
    state: str,
    rounding: bool,
    clip: bool,
    smooth: bool,
    masses: bool = True,
) -> NumericColumn | LevelsColumn:
    """The codec of a numeric or datetime column that has at least one value.

    `smooth` keeps the column whole (no levels, no masses): the user has named a distribution.
    Without `masses` few numbers are still levels, but no mass is split off.
    Raises: SourceError when float64 cannot hold the values exactly and they are not few.
    """
    scale = scale_of(values) if family(values.type) == "decimal" else None
    if family(values.type) == "decimal" and scale is None:
        return _only_levels(name, values)
    numbers, present = to_numbers(values, scale)
    known = numbers[present]
    distinct, counts = np.unique(known, return_counts=True)
    few = len(distinct) <= FEW_NUMBERS and len(known) >= FEW_NUMBERS * len(distinct)
    if len(distinct) <= 2 or (few and not smooth):
        return LevelsColumn.fit(name, values)
    grid = _grid(values.type, known, rounding)
    if grid is None:
        return _only_levels(name, values)
    frequent = np.zeros(len(distinct), dtype=bool)
    if masses and not smooth:
        frequent = (counts >= MASS_SHARE * len(known)) & (counts >= MASS_ROWS)
        if frequent.sum() > MOST_MASSES:
            top = np.argsort(-counts, kind="stable")[:MOST_MASSES]
            frequent = np.isin(np.arange(len(distinct)), top)
    rest = distinct[~frequent]
    if len(rest) < 2:
        return LevelsColumn.fit(name, values)
    weights = np.cumsum(counts[~frequent])
    median = rest[np.searchsorted(weights, weights[-1] / 2)]
    column = NumericColumn(
        name=name,
        type=values.type,
        scale=scale,
        **grid._asdict(),
        masses=(),
        below=int((distinct[frequent] < median).sum()),
        missing=bool((~present).any()),
        nan=bool((~present).any()) and missing_is_nan(values),
        fill=0.0,
        state=state,
    )
    points = tuple(float(x) for x in column.forward(distinct[frequent]))
    fill = float(column.forward(np.array([median]))[0])
    bounds = {} if clip else _type_bounds(column)
    return replace(column, masses=points, fill=fill, **bounds)


def _type_bounds(column: NumericColumn) -> dict[str, Any]:
    """The bounds of the feature when only the column's type limits it."""
    if family(column.type) == "float":
        top = float(np.ldexp(np.finfo(column.type.to_pandas_dtype()).max, -column.exponent))
        return {"low": -top, "high": top}
    low, high = ((x - column.offset) // column.unit for x in limits(column.type, column.scale))
    bottom = 0 if column.offset else -EXACT
    return {
        "low": min(column.low, float(max(low, bottom))),
        "high": max(column.high, float(min(high, EXACT))),
    }


def _only_levels(name: str, values: pa.Array) -> LevelsColumn:
    levels = LevelsColumn.fit(name, values)
    if len(levels.levels) > max(FEW_NUMBERS, len(values) // FEW_NUMBERS):
        raise SourceError(
            f"column {name!r} ({values.type}) has {len(levels.levels):,} distinct values that "
            "span more than 2**53 steps, which no model can learn exactly: declare it role id "
            "or kind categorical, or cast it to float64"
        )
    return levels


class _Grid(NamedTuple):
    offset: int
    unit: int
    step: int
    exponent: int
    decimals: int | None
    low: float
    high: float


def _grid(type_: pa.DataType, known: np.ndarray, rounding: bool) -> _Grid | None:
    """How float64 holds the known numbers exactly; None when it cannot."""
    if known.dtype.kind == "f":
        exponent = int(np.frexp(np.abs(known).max())[1])
        if exponent > SAFE_EXPONENT:  # down, as far as the smallest number keeps its digits
            smallest = int(np.frexp(np.abs(known[known != 0]).min())[1])
            exponent = max(min(exponent, smallest + 960), 0)
        elif exponent >= -SAFE_EXPONENT:
            exponent = 0
        decimals = decimals_of(known, type_) if rounding and not exponent else None
        low, high = (float(np.ldexp(x, -exponent)) for x in (known.min(), known.max()))
        return _Grid(0, 1, 1, exponent, decimals, low, high)
    low, high = int(known.min()), int(known.max())
    natural = low >= -EXACT and high <= EXACT
    offset = 0 if natural else low
    steps = known if natural else _wrapped(known) - np.uint64(offset % 2**64)
    common = max(int(np.gcd.reduce(steps)), 1)
    unit = 1
    if high - low > EXACT and not natural:
        unit = common
        if (high - low) // unit > EXACT:
            if family(type_) != "time":
                return None
            unit = 1 << ((high - low).bit_length() - 53)  # a few nanoseconds
    step = max(common // unit, 1)
    if not rounding:
        step = math.gcd(step, DAY_MS) if pa.types.is_date64(type_) else 1
    bottom, top = ((x - offset) // unit for x in (low, high))
    return _Grid(offset, unit, step, 0, None, float(bottom), float(top))


def decimals_of(known: np.ndarray, type_: pa.DataType) -> int | None:
    """The fewest decimals (0 to 15) that write every number of the column exactly."""
    width = type_.to_pandas_dtype()

    def suffice(decimals: int, numbers: np.ndarray) -> bool:
        rounded = np.round(numbers, decimals)
        return np.array_equal(rounded.astype(width), numbers.astype(width))

    with np.errstate(over="ignore", invalid="ignore"):
        for decimals in range(16):
            if suffice(decimals, known[:1000]) and suffice(decimals, known):
                return decimals
    return None
