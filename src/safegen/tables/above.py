"""A number or date that lies above others, as its distance to the highest of them.

Where it has a value and the others have none, the distance is a draw from the others' and the
value stands in a column of its own. Where none of its values lies above the others, it is
missing: so it is in the source too, for no row of it could be otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.contracts import Scalar
from safegen.errors import SourceError, UsageError
from safegen.tables.columns import missing_is_nan, pack, unpack
from safegen.tables.constraints import refuse_violated
from safegen.tables.numbers import from_numbers, scale_of, single, to_numbers
from safegen.tables.numeric import decimals_of
from safegen.tables.types import family

__all__ = ["Above"]


@dataclass(frozen=True, eq=False)
class Above:
    """`column` ≥ each of `below` (or >). Numbers are counted in `common`, the one type that holds
    all of these columns exactly; those of the column are low, low + step, …, high there, or have
    so many `decimals`."""

    column: str
    below: tuple[tuple[str, bool], ...]  # (name, whether strictly)
    distance: str  # the name of the column that takes its place
    type: pa.DataType
    common: pa.DataType
    low: float | int
    high: float | int
    step: int  # of whole numbers
    decimals: int | None  # of floats; None: all that the type has
    alone: bool  # whether rows have a value where all others are missing
    nan: bool

    @property
    def takes(self) -> tuple[str, ...]:
        return (self.column,)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.below)

    @classmethod
    def fit(
        cls,
        column: str,
        below: Iterable[tuple[str, bool]],
        table: pa.Table,
        taken: Iterable[str],
    ) -> Above:
        """Raises: UsageError for types that cannot be compared; SourceError for violations."""
        below, taken = tuple(below), set(taken)
        distance = f"{below[0][0]}#{column}"
        while distance in taken:
            distance += "#"
        values = {n: single(table.column(n)) for n in (*(name for name, _ in below), column)}
        common = _common(values)
        own = values[column]
        numbers, present = _counted(column, own, common)
        known = numbers[present]
        everything = [known, *(_known(n, values[n], common) for n, _ in below)]
        filled = [x for x in everything if len(x)]
        if filled:
            span = max(x.max().item() for x in filled) - min(x.min().item() for x in filled)
            if not np.isfinite(span) or (known.dtype.kind == "i" and span >= 2**63):
                raise _too_wide(values)
        low, high = (known.min().item(), known.max().item()) if len(known) else (0, 0)
        step, decimals = 1, None
        if known.dtype.kind == "i":
            step = max(int(np.gcd.reduce(known - low)), 1) if len(known) else 1
        elif len(known):
            decimals = decimals_of(known, own.type) if family(own.type) == "float" else 0
        stage = cls(
            column,
            below,
            distance,
            own.type,
            common,
            low,
            high,
            step,
            decimals,
            False,
            missing_is_nan(own),
        )
        _, there = _highest(stage._others(table))
        return replace(stage, alone=bool((present & ~there).any()))

    def after(self, schema: pa.Schema) -> pa.Schema:
        fields = []
        for field in schema:
            if field.name != self.column:
                fields.append(field)
                continue
            fields.append(pa.field(self.distance, self._distances))
            if self.alone:
                fields.append(field)
        return pa.schema(fields)

    @property
    def _distances(self) -> pa.DataType:
        if family(self.common) == "time":
            return pa.duration(self.common.unit)
        return pa.int64() if self._whole else pa.float64()

    @property
    def _whole(self) -> bool:
        return family(self.common) != "float"

    @property
    def _scale(self) -> int | None:
        return self.common.scale if family(self.common) == "decimal" else None

    def _others(self, table: pa.Table) -> list[_Other]:
        return [
            (*_counted(name, single(table.column(name)), self.common), strict)
            for name, strict in self.below
        ]

    def transform(self, table: pa.Table, rng: np.random.Generator) -> pa.Table:
        numbers, present = _counted(self.column, single(table.column(self.column)), self.common)
        others = self._others(table)
        floor, there = _highest(others)
        sign = "<" if any(strict for _, strict in self.below) else "≤"
        named = " and ".join(map(repr, self.reads))
        refuse_violated(
            f"{named} {sign} {self.column!r}", int((present & _breaks(numbers, others)).sum())
        )
        both, lonely = present & there, present & ~there
        if lonely.any() and not self.alone:
            raise SourceError(
                f"column {self.column!r}: {int(lonely.sum()):,} value(s) stand where {named} "
                "have none, and in the fit none did"
            )
        distances = np.where(both, numbers, 0) - np.where(both, floor, 0)
        if lonely.any() and both.any():
            distances[lonely] = rng.choice(distances[both], int(lonely.sum()))
        made = {self.distance: from_numbers(distances, present, self._distances)}
        if self.alone:
            rows = np.arange(len(numbers))
            rows[~lonely] = rng.choice(rows[lonely], int((~lonely).sum())) if lonely.any() else 0
            made[self.column] = single(table.column(self.column)).take(pa.array(rows))
        schema = self.after(table.schema)
        arrays = [made[n] if n in made else table.column(n) for n in schema.names]
        return pa.Table.from_arrays(arrays, schema=schema)

    def restore(self, table: pa.Table) -> pa.Table:
        others = self._others(table)
        floor, there = _highest(others)
        distances, present = to_numbers(single(table.column(self.distance)))
        start = np.where(there, np.minimum(floor, self.high), self.low)
        least = np.maximum(start, self.low)
        with np.errstate(over="ignore"):  # what overflows is cut off at the highest value
            wanted = start + np.clip(distances, 0, self.high - start)
            numbers = self._nearest(np.maximum(wanted, self.low))
            up = self._up(least)
            for candidate in (up, self._next(up), self.high):
                wrong = _breaks(numbers, others)
                numbers = np.where(wrong, np.minimum(candidate, self.high), numbers)
        values = self._values(numbers, present & there & ~_breaks(numbers, others))
        if self.alone:
            lonely = present & ~there
            values = _choose(lonely, single(table.column(self.column)), values)
            table = table.drop_columns([self.column])
        return table.append_column(self.column, values).drop_columns([self.distance])

    def _nearest(self, numbers: np.ndarray) -> np.ndarray:
        """The nearest numbers that the column can hold; they are within its bounds already."""
        if self._whole:
            steps, over = np.divmod(numbers - self.low, self.step)
            nearest: np.ndarray = self.low + (steps + (over >= self.step - over)) * self.step
            return nearest
        if self.decimals is not None:
            numbers = np.round(numbers, self.decimals)
        return np.asarray(np.clip(self._held(numbers), self.low, self.high))

    def _up(self, numbers: np.ndarray) -> np.ndarray:
        """The lowest numbers that the column can hold, and that are not below these."""
        if self._whole:
            up: np.ndarray = self.low - ((self.low - numbers) // self.step) * self.step
            return up
        if self.decimals is None:
            return self._held(numbers)
        scale = 10.0**self.decimals
        return self._held(np.round(np.ceil(numbers * scale) / scale, self.decimals))

    def _next(self, numbers: np.ndarray) -> np.ndarray:
        """The next number that the column can hold."""
        if self._whole:
            room = self.high - numbers >= self.step
            return np.asarray(np.where(room, numbers + self.step, self.high))
        if self.decimals is None:
            width = self.type.to_pandas_dtype()
            return np.asarray(np.nextafter(numbers.astype(width), width(np.inf)), np.float64)
        return self._held(np.round(numbers + 10.0**-self.decimals, self.decimals))

    def _held(self, numbers: np.ndarray) -> np.ndarray:
        """As the column's own type holds them."""
        if family(self.type) != "float":
            return numbers
        held: np.ndarray = numbers.astype(self.type.to_pandas_dtype()).astype(np.float64)
        return held

    def _values(self, numbers: np.ndarray, present: np.ndarray) -> pa.Array:
        if self.nan:
            numbers, present = np.where(present, numbers, np.nan), np.ones_like(present)
        if family(self.type) == "float":
            return from_numbers(numbers, present, self.type)
        whole = np.where(present, numbers, 0).astype(np.int64)
        common = self.common if self._whole else pa.int64()
        return from_numbers(whole, present, common, self._scale).cast(self.type)

    def fix(self, conditions: Mapping[str, Scalar]) -> None:
        """The distance alone says nothing about the value: only rejection can meet these."""

    def to_json(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT}
        return {
            "stage": "above",
            **kept,
            "below": [list(pair) for pair in self.below],
            "type": pack(pa.nulls(0, self.type)),
            "common": pack(pa.nulls(0, self.common)),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Above:
        return cls(
            below=tuple((str(name), bool(strict)) for name, strict in document["below"]),
            type=unpack(document["type"]).type,
            common=unpack(document["common"]).type,
            **{name: document[name] for name in _KEPT},
        )


_Other = tuple[np.ndarray, np.ndarray, bool]  # numbers, where there is one, whether strictly


def _highest(others: Sequence[_Other]) -> tuple[np.ndarray, np.ndarray]:
    """The highest of the others in each row, and where there is one."""
    (floor, there, _), *more = others
    for numbers, present, _ in more:
        floor = np.where(present & (~there | (numbers > floor)), numbers, floor)
        there = there | present
    return floor, there


def _breaks(numbers: np.ndarray, others: Sequence[_Other]) -> np.ndarray:
    """Which numbers do not lie above all others of their row."""
    wrong = np.zeros(len(numbers), bool)
    for below, present, strict in others:
        wrong |= present & ((numbers <= below) if strict else (numbers < below))
    return wrong


_KEPT = ("column", "distance", "low", "high", "step", "decimals", "alone", "nan")


def _choose(where: np.ndarray, one: pa.Array, other: pa.Array) -> pa.Array:
    """Values of `one` where it says so, else of `other`; of any type."""
    rows = np.arange(len(one))
    rows = np.where(where, rows, rows + len(one))
    return single(pa.chunked_array([one, other])).take(pa.array(rows))


def _common(values: Mapping[str, pa.Array]) -> pa.DataType:
    """The type in which all of the columns can be compared exactly. Raises: UsageError."""
    types = [array.type for array in values.values()]
    kinds = {family(t) for t in types}
    units = [t.unit for t in types if hasattr(t, "unit")]
    finest = max(units, key=["s", "ms", "us", "ns"].index, default="s")
    if kinds == {"time"}:
        if all(pa.types.is_duration(t) for t in types):
            return pa.duration(finest)
        if all(pa.types.is_time(t) for t in types):
            return pa.time32(finest) if finest in ("s", "ms") else pa.time64(finest)
        zones = {getattr(t, "tz", None) is not None for t in types}
        if all(pa.types.is_timestamp(t) or pa.types.is_date(t) for t in types) and len(zones) == 1:
            if any(pa.types.is_date64(t) for t in types) and finest == "s":
                finest = "ms"
            zone = types[0].tz if zones == {True} else None
            return pa.timestamp(finest, zone)
    elif kinds <= {"int"}:
        return pa.int64()
    elif kinds <= {"int", "float"}:
        return pa.float64()
    elif kinds <= {"int", "decimal"}:
        scales = [scale_of(a) for a in values.values() if family(a.type) == "decimal"]
        if None in scales:
            raise _too_wide(values)
        return pa.decimal128(38, max(s for s in scales if s is not None))
    named = ", ".join(f"{name!r} ({array.type})" for name, array in values.items())
    raise UsageError(f"columns {named} cannot be compared: cast them to one type")


def _counted(name: str, values: pa.Array, common: pa.DataType) -> tuple[np.ndarray, np.ndarray]:
    """The column's numbers in the units of `common`, and where there is one."""
    try:
        wide = values.cast(common)
        scale = common.scale if family(common) == "decimal" else None
        if scale is not None and scale_of(wide) is None:
            raise pa.ArrowInvalid
        return to_numbers(wide, scale)
    except pa.ArrowInvalid:
        raise SourceError(
            f"column {name!r} ({values.type}) has values that cannot be compared exactly with the "
            f"others of its constraint, as {common}: cast them to one type"
        ) from None


def _known(name: str, values: pa.Array, common: pa.DataType) -> np.ndarray:
    numbers, present = _counted(name, values, common)
    known: np.ndarray = numbers[present]
    return known


def _too_wide(values: Mapping[str, pa.Array]) -> SourceError:
    return SourceError(
        f"columns {', '.join(map(repr, values))} of one constraint span more than int64 counts: "
        "cast them to a coarser unit, or leave the constraint out"
    )
