"""What every column codec offers, and the codecs of columns of levels and of nulls.

A column codec turns one Arrow column into plain features and back, exactly. A `LevelsColumn`
makes one categorical feature, in which a missing value is a level of its own. A column that
never varies makes no feature at all.
"""

from __future__ import annotations

import base64
import datetime
import decimal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.contracts import Scalar
from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.numbers import decoded, single
from safegen.tables.streams import stream
from safegen.tables.types import computable, family

__all__ = [
    "ColumnCodec",
    "Condition",
    "Feature",
    "Features",
    "LevelsColumn",
    "NullColumn",
    "Place",
    "as_scalar",
    "codes_of",
    "impossible",
    "missing_is_nan",
    "pack",
    "unpack",
]

Features = dict[str, np.ndarray]
Condition = dict[str, tuple[Literal["level", "value"], float]]


@dataclass(frozen=True)
class Feature:
    """One plain input of a backend: float64 without nulls, or codes 0 … levels − 1 (int32)."""

    name: str
    kind: Literal["numeric", "categorical"]
    levels: int  # 0 for numeric
    column: str  # the user's column that it comes from


@dataclass(frozen=True)
class Place:
    """Where decoded rows stand in the whole output: what invented values depend on."""

    first_row: int
    rows: int
    seed: int
    index: int  # number of the column

    def rng(self) -> np.random.Generator:
        """A generator that depends on (seed, first row, column) only."""
        return np.random.default_rng(stream(self.seed, self.first_row, self.index))


class ColumnCodec(Protocol):
    """One user column, both ways."""

    @property
    def name(self) -> str: ...
    @property
    def features(self) -> tuple[Feature, ...]: ...
    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features: ...
    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array: ...
    def condition(self, value: Scalar) -> Condition: ...
    def to_json(self) -> dict[str, Any]: ...


def pack(values: pa.Array) -> str:
    """An Arrow array as text: base64 of an IPC stream. Exact for every type, and no pickle."""
    batch = pa.record_batch([values], names=["values"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return base64.b64encode(sink.getvalue().to_pybytes()).decode("ascii")


def unpack(text: str) -> pa.Array:
    """The inverse of `pack`, validated."""
    table = pa.ipc.open_stream(base64.b64decode(text, validate=True)).read_all()
    table.validate(full=True)
    return single(table.column(0))


def codes_of(feature: Feature, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """The codes of a categorical feature as int64. Raises: BackendError when out of range."""
    codes = np.asarray(features[feature.name])
    if codes.dtype.kind not in "iu":
        raise BackendError(f"column {feature.column!r}: the model gave {codes.dtype}, not codes")
    if len(codes) and (codes.min() < 0 or codes.max() >= feature.levels):
        raise BackendError(f"column {feature.column!r}: the model gave codes that do not exist")
    return codes.astype(np.int64)


def missing_is_nan(values: pa.Array) -> bool:
    """Whether missing numbers are written as NaN, not as nulls, so that they come back so."""
    return family(values.type) == "float" and values.null_count == 0


def as_scalar(column: str, value: Scalar, type_: pa.DataType) -> pa.Array:
    """A user's value as an array of one, in the column's type.

    Text is parsed the way the command line writes it: numbers, ISO 8601 dates and times; a
    duration is a whole number of the column's unit.
    Raises: UsageError naming the column and its type, not the value.
    """
    inner = type_.value_type if pa.types.is_dictionary(type_) else type_
    plain, kind = computable(inner), family(inner)
    try:
        if value is None:
            return pa.nulls(1, plain)
        if kind == "text" and not isinstance(value, str):
            raise ValueError
        if not isinstance(value, str) and (kind == "bool") != isinstance(value, bool):
            raise ValueError
        if pa.types.is_duration(inner):
            return pa.array([int(value)], plain)
        if kind == "time" and not isinstance(value, str):
            raise ValueError
        if pa.types.is_time(inner):
            return pa.array([datetime.time.fromisoformat(str(value))], plain)
        if kind == "decimal":
            return pa.array([decimal.Decimal(str(value))], plain)
        beyond = isinstance(value, int) and value >= 2**63  # which is int64 by default
        return pa.array([value], pa.uint64() if beyond else None).cast(plain)
    except (pa.ArrowException, ArithmeticError, ValueError, TypeError):
        raise UsageError(
            f"condition on column {column!r}: the value cannot be read as {inner}"
        ) from None


def impossible(column: str, why: str) -> UsageError:
    return UsageError(f"condition on column {column!r}: {why}")


@dataclass(frozen=True)
class NullColumn:
    """A column without any value in the source: comes back null (NaN where it was NaN)."""

    name: str
    type: pa.DataType
    nan: bool = False
    features: tuple[Feature, ...] = ()

    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features:
        return {}

    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array:
        if self.nan:
            return pa.array(np.full(place.rows, np.nan, self.type.to_pandas_dtype()), self.type)
        return pa.nulls(place.rows, self.type)

    def condition(self, value: Scalar) -> Condition:
        if value is None:
            return {}
        raise impossible(self.name, "it has no value in the source")

    def to_json(self) -> dict[str, Any]:
        return {"codec": "null", "name": self.name, "nan": self.nan}

    @classmethod
    def from_json(cls, document: Mapping[str, Any], type_: pa.DataType) -> Self:
        return cls(str(document["name"]), type_, bool(document["nan"]))


@dataclass(frozen=True, eq=False)
class LevelsColumn:
    """A column of levels: code 0 is missing (when the source has missing values), then `levels`.

    `levels` are those that occur, in value order; in dictionary order for a dictionary column,
    whose whole dictionary (unused levels, order, index type) comes back as it was.
    """

    name: str
    type: pa.DataType
    levels: pa.Array  # in the computable type, no nulls
    missing: bool
    nan: bool = False
    dictionary: pa.Array | None = None

    @classmethod
    def fit(cls, name: str, values: pa.Array) -> Self:
        plain = _without_nan(decoded(values))
        dictionary = None
        found = plain.unique().drop_null()
        if pa.types.is_dictionary(values.type):
            words = values.dictionary.cast(computable(values.dictionary.type))
            dictionary = words.unique().drop_null()
            used = pc.is_in(dictionary, value_set=found)
            found = dictionary.filter(used)
        else:
            found = found.take(pc.array_sort_indices(found))
        missing = plain.null_count > 0
        nan = missing and missing_is_nan(values)
        return cls(name, values.type, found, missing, nan, dictionary)

    @property
    def features(self) -> tuple[Feature, ...]:
        levels = len(self.levels) + self.missing
        return (Feature(self.name, "categorical", levels, self.name),) if levels > 1 else ()

    @property
    def ordinal(self) -> bool:
        """Whether the codes have an order that means something."""
        if self.missing:
            return False
        if pa.types.is_dictionary(self.type):
            return bool(self.type.ordered)
        return family(self.type) != "text"

    def encode(self, values: pa.Array, rng: np.random.Generator) -> Features:
        codes = self._codes(_without_nan(decoded(values)))
        unknown = int((codes < 0).sum())
        if unknown:
            raise SourceError(
                f"column {self.name!r}: {unknown:,} value(s) are not among those fitted"
            )
        return {f.name: codes.astype(np.int32) for f in self.features}

    def _codes(self, plain: pa.Array) -> np.ndarray:
        found = pc.index_in(plain, value_set=self.levels).fill_null(-1).to_numpy()
        codes: np.ndarray = np.where(found >= 0, found.astype(np.int64) + self.missing, -1)
        if self.missing:
            codes[np.asarray(pc.is_null(plain))] = 0
        return codes

    def decode(self, features: Mapping[str, np.ndarray], place: Place) -> pa.Array:
        named = self.features
        codes = codes_of(named[0], features) if named else np.zeros(place.rows, np.int64)
        absent = (codes == 0) if self.missing else None
        at = pa.array(codes - self.missing, mask=absent)
        if self.dictionary is not None:
            where = pc.index_in(self.levels, value_set=self.dictionary)
            return pa.DictionaryArray.from_arrays(
                where.take(at).cast(self.type.index_type),
                self.dictionary.cast(self.type.value_type),
                ordered=self.type.ordered,
            )
        taken = self.levels.take(at)
        return (taken.fill_null(float("nan")) if self.nan else taken).cast(self.type)

    def condition(self, value: Scalar) -> Condition:
        code = int(self._codes(as_scalar(self.name, value, self.type))[0])
        if code < 0:
            what = "no missing value" if value is None else "no such value"
            raise impossible(self.name, f"the source has {what}")
        return {f.name: ("level", code) for f in self.features}

    def to_json(self) -> dict[str, Any]:
        return {
            "codec": "levels",
            "name": self.name,
            "levels": pack(self.levels),
            "missing": self.missing,
            "nan": self.nan,
            "dictionary": None if self.dictionary is None else pack(self.dictionary),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], type_: pa.DataType) -> Self:
        words = document["dictionary"]
        return cls(
            str(document["name"]),
            type_,
            unpack(document["levels"]),
            bool(document["missing"]),
            bool(document["nan"]),
            None if words is None else unpack(words),
        )


def _without_nan(values: pa.Array) -> pa.Array:
    if family(values.type) != "float":
        return values
    return pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
