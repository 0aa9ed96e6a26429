"""Round numbers to draw along: none of them is a value of the data but by accident."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

__all__ = ["Scale", "Tick", "bins_of", "ticks_of"]

BINS = (4, 24)  # about: at least, at most
TICKS = 4  # about

Tick = tuple[float, str]  # place, 0 to 1, and what stands there

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DAY = 86_400.0
_CLOCK = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)


@dataclass(frozen=True, eq=False)
class Scale:
    """Edges of bins in a column's own numbers. unit: seconds that one of these is, None where they
    are no times; dated: whether they count from 1970; single: whether a bin holds one whole number,
    which stands in its middle then."""

    edges: np.ndarray
    unit: float | None = None
    dated: bool = False
    single: bool = False


def bins_of(low: float, high: float, type_: pa.DataType, bins: int = BINS[1]) -> Scale:
    """Edges at round numbers around the range from low to high. bins: about how many, within
    `BINS`."""
    unit, dated = _unit(type_)
    whole = pa.types.is_integer(type_) or unit is not None
    step = _step(high - low, min(max(bins, BINS[0]), BINS[1]), low, unit)
    if whole and unit is None:
        step = max(step, 1.0) if high > low else 1.0
    first, last = math.floor(low / step), math.floor(high / step) + 1
    single = whole and unit is None and step == 1.0
    return Scale(np.arange(first, last + 1) * step, unit, dated, single)


def ticks_of(scale: Scale) -> list[Tick]:
    """A few round numbers along the bins."""
    low, high = float(scale.edges[0]), float(scale.edges[-1])
    if scale.dated and scale.unit and (high - low) * scale.unit > 120 * _DAY:
        return _months(low * scale.unit, high * scale.unit)
    step = _step(high - low, TICKS, low, scale.unit)
    if scale.single:
        step = max(1.0, step)
        return [
            (_place(k * step + 0.5, low, high), _said(k * step, step, scale))
            for k in range(math.ceil(low / step), math.ceil(high / step))
        ]
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return [(_place(k * step, low, high), _said(k * step, step, scale)) for k in numbers]


def _unit(type_: pa.DataType) -> tuple[float | None, bool]:
    t = pa.types
    if t.is_date32(type_):
        return _DAY, True
    if t.is_date64(type_):
        return 1e-3, True
    if t.is_timestamp(type_):
        return _SECONDS[type_.unit], True
    if t.is_time(type_) or t.is_duration(type_):
        return _SECONDS[type_.unit], False
    return None, False


def _step(span: float, parts: int, at: float, unit: float | None) -> float:
    """A round number of which about so many fit into the span."""
    if span <= 0:
        span = abs(at) or 1.0
        parts = 1
    rough = span / parts
    if unit is not None and rough * unit < _DAY:
        return min(_CLOCK, key=lambda s: abs(s - rough * unit)) / unit
    if unit is not None:
        return max(1.0, _round(rough * unit / _DAY)) * _DAY / unit
    return _round(rough)


def _round(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return min((s * size for s in (1, 2, 5, 10)), key=lambda s: abs(s - rough))


def _place(value: float, low: float, high: float) -> float:
    return round(min(max((value - low) / (high - low), 0.0), 1.0), 4)


def _said(value: float, step: float, scale: Scale) -> str:
    if scale.unit is None:
        return _number(value, step)
    seconds = value * scale.unit
    if not scale.dated:
        minutes = round(seconds / 60)
        if abs(seconds) > 2 * _DAY:
            return f"{seconds / _DAY:.6g} d"
        return f"{minutes // 60:02}:{minutes % 60:02}"
    moment = _moment(seconds)
    if moment is None:
        return ""
    return moment.strftime("%Y-%m-%d" if step * scale.unit >= _DAY else "%m-%d %H:%M")


def _number(value: float, step: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        large = abs(value) >= 10 * size or (abs(value) >= size and step >= size / 10)
        if large and abs(value) < 1e12:
            return f"{value / size:.4g}{letter}"
    return f"{0.0 if abs(value) < step / 1e6 else value:.6g}"


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    except OverflowError:
        return None


def _months(low: float, high: float) -> list[Tick]:
    """A few firsts of months, or of years; seconds since 1970."""
    ends = [moment for x in (low, high) if (moment := _moment(x)) is not None]
    if len(ends) < 2:
        return []
    first, last = (12 * e.year + e.month - 1 for e in ends)
    rough = (last - first) / TICKS
    step = next((s for s in (1, 2, 3, 6) if rough <= s), 12 * max(1, round(_round(rough / 12))))
    found = []
    for month in range(-(-first // step) * step, last + 1, step):
        at = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()
        if low <= at <= high:
            name = f"{month // 12}" if step >= 12 else f"{month // 12}-{month % 12 + 1:02}"
            found.append((_place(at, low, high), name))
    return found
