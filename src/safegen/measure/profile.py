"""What the real rows look like, and a running tally of staged rows against it.

A profile holds real values (levels, bounds) and therefore lives in memory only: it is never
written, and findings name strata by ids such as `native_country#3`, the third most frequent level
of that column in the source. A tally is updated batch by batch and needs constant memory, but for
eight bytes per key. Ids and personal data have no levels: of these it is counted which real ones
are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from safegen.measure.clusters import Spread, Units, encoded, independent_units, spread
from safegen.measure.identifiers import Identifiers, IdentifierTally, identifies, owners
from safegen.measure.keys import KeyTally, judged_keys
from safegen.tables.matching import matching
from safegen.tables.numbers import decoded
from safegen.tables.schema import Column, TableSchema
from safegen.tables.sources import TABLE

if TYPE_CHECKING:
    from safegen.contracts import Scalar

__all__ = ["ColumnProfile", "ColumnTally", "TableProfile", "TableTally", "named", "profiles"]


Coded = tuple[npt.NDArray[np.int64], Mapping[Any, Any]]

_UNJUDGED = ("id", "personal", "image")


def named(table: str, column: str) -> str:
    """A column's name in a finding: the only table of a dataset has no name worth a word."""
    return column if table == TABLE else f"{table}.{column}"


def numbers(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any] | None:
    """The values of a numeric or temporal column without missing ones; None for other types."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    t = pa.types
    if t.is_dictionary(kind):
        return numbers(array.dictionary_decode())
    if t.is_boolean(kind):
        return None
    if t.is_decimal(kind):
        array = pc.cast(array, pa.float64(), safe=False)
    elif t.is_temporal(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        array = array.view(width)
    elif not (t.is_integer(kind) or t.is_floating(kind)):
        return None
    values = np.asarray(array.drop_null())
    if values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    return values


def _measured(column: Column, array: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any] | None:
    """The numbers of a column; None for one of levels, also when its levels are numbers."""
    return None if column.kind == "categorical" else numbers(array)


def missing(array: pa.Array | pa.ChunkedArray) -> int:
    """How many values are missing: null, or NaN in a float column."""
    if pa.types.is_dictionary(array.type):
        array = decoded(array)  # a dictionary may hold a null itself
    nulls = int(array.null_count)
    if pa.types.is_floating(array.type):
        nulls += int(pc.sum(pc.is_nan(array)).as_py() or 0)
    return nulls


def _present(array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which values are there: neither null nor NaN."""
    if pa.types.is_dictionary(array.type):
        array = decoded(array)
    there = pc.is_valid(array)
    if pa.types.is_floating(array.type):
        there = pc.and_(there, pc.invert(pc.fill_null(pc.is_nan(array), True)))
    return np.asarray(there)


def _levels(array: pa.Array | pa.ChunkedArray) -> Counter[Any]:
    counts: Counter[Any] = Counter()
    for entry in pc.value_counts(array).to_pylist():
        value = entry["values"]
        if value is not None and value == value:
            counts[value] += entry["counts"]
    return counts


@dataclass(frozen=True)
class ColumnProfile:
    """One column of the real rows: n, missing, levels or tails within the conditions asked for;
    and the bounds (`low`, `high`, all `known` levels) of the whole source."""

    column: Column
    rows: int
    missing: int
    levels: dict[Any, int] | None = None
    known: frozenset[Any] = frozenset()
    low: Any = None
    high: Any = None
    tails: dict[str, tuple[Any, int]] = field(default_factory=dict)
    top: int = 0
    constant: bool = False
    spreads: tuple[Spread, ...] = ()  # over what chance draws whole: one per path to a root table

    @property
    def judged(self) -> bool:
        """Ids and invented personal data have no support to keep, and images no levels."""
        return self.column.kind not in _UNJUDGED

    @classmethod
    def of(
        cls,
        column: Column,
        array: pa.ChunkedArray,
        whole: pa.ChunkedArray,
        tail: float,
        units: Sequence[Units],
    ) -> ColumnProfile:
        rows, absent = len(array), missing(array)
        values = _measured(column, array)
        common: dict[str, Any] = {"column": column, "rows": rows, "missing": absent}
        if column.kind in _UNJUDGED:
            return cls(**common)
        if rows == absent:
            nothing = np.empty(0, dtype=np.int64)
            return cls(**common, spreads=_spreads(units, array, {}, lambda: (nothing, {})))
        if values is None:
            counts = _levels(array)
            top = max(counts.values())

            def ranked() -> Coded:
                distinct, codes = encoded(decoded(array))
                return codes, {level: number for number, level in enumerate(distinct)}

            return cls(
                **common,
                spreads=_spreads(units, array, counts, ranked),
                levels=dict(counts.most_common()),
                known=frozenset(_levels(whole)),
                top=top,
                constant=len(counts) == 1,
            )
        distinct, counted = np.unique(values, return_counts=True)
        everything = numbers(whole)
        assert everything is not None
        low_cut = np.quantile(values, tail, method="higher")
        high_cut = np.quantile(values, 1 - tail, method="lower")
        # The cut itself belongs to the tail only when it is not a point mass.
        beyond = {"low": distinct < low_cut, "high": distinct > high_cut}
        counts = Counter({side: int(counted[part].sum()) for side, part in beyond.items()})
        return cls(
            **common,
            spreads=_spreads(
                units, array, counts, lambda: (np.searchsorted(distinct, values), beyond)
            ),
            low=everything.min(),
            high=everything.max(),
            tails={"low": (low_cut, counts["low"]), "high": (high_cut, counts["high"])},
            top=int(counted.max()),
            constant=len(distinct) == 1,
        )


def _spreads(
    units: Sequence[Units],
    array: pa.ChunkedArray,
    counts: Mapping[Any, int],
    coded: Callable[[], Coded],
) -> tuple[Spread, ...]:
    """How a column's strata are spread over each kind of units, as `spread` says it.

    `counts` are the rows of each stratum: all there is to say where every row is a unit. `coded`
    numbers the distinct values: of all rows (or of those with a value), and what is in a stratum.
    """
    if all(u.codes is None for u in units):
        return tuple(Spread(u.noun, u.count, held=counts) for u in units)
    present = _present(array)
    codes, strata = coded()
    codes = codes[present] if len(codes) == len(present) else codes
    strata = {name: strata[name] for name in counts}
    return tuple(spread(u, present, codes, strata) for u in units)


@dataclass(frozen=True)
class TableProfile:
    """The real rows of one table, within the conditions asked for."""

    rows: int
    schema: pa.Schema
    columns: dict[str, ColumnProfile]
    keys: tuple[str, ...] = ()  # columns of which every staged value is kept, hashed
    identifiers: Mapping[str, Identifiers] = field(default_factory=dict)  # of the whole source


def profiles(
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, TableSchema],
    conditions: Mapping[str, Scalar] | None = None,
    tail: float = 0.01,
) -> dict[str, TableProfile]:
    """Profile the rows that meet the conditions, by table: each table by those it has columns of.

    Raises: SourceError for a condition of another type than its column.
    """
    conditions = conditions or {}
    kept = {
        name: matching(table, {k: v for k, v in conditions.items() if k in table.schema.names})
        for name, table in tables.items()
    }
    units = independent_units(kept, schemas)
    keys = judged_keys(schemas)
    return {
        name: TableProfile(
            kept[name].num_rows,
            table.schema,
            {
                c.name: ColumnProfile.of(
                    c, kept[name].column(c.name), table.column(c.name), tail, units[name]
                )
                for c in schemas[name].columns
            },
            tuple(keys[name]),
            _identifiers(table, schemas[name]),
        )
        for name, table in tables.items()
    }


def _identifiers(table: pa.Table, schema: TableSchema) -> dict[str, Identifiers]:
    columns = [c.name for c in schema.columns if identifies(c)]
    owner = owners(table, schema) if columns else np.empty(0, dtype=np.int64)
    return {name: Identifiers.of(table.column(name), owner) for name in columns}


@dataclass
class ColumnTally:
    """What was seen of one staged column."""

    profile: ColumnProfile
    rows: int = 0
    missing: int = 0
    weight: float = 0.0
    squares: float = 0.0
    absent: float = 0.0  # weight of the missing
    outside: int = 0
    levels: Counter[Any] = field(default_factory=Counter)
    tails: Counter[str] = field(default_factory=Counter)
    low: Any = None
    high: Any = None
    several: bool = False

    def __getstate__(self) -> dict[str, Any]:
        """Without the profile: it is sent to be merged into a tally that has it."""
        return {k: v for k, v in vars(self).items() if k != "profile"}

    @property
    def absent_share(self) -> float:
        """The share of the missing, weighted: what would be missing without boosts."""
        return self.absent / self.weight if self.weight else 0.0

    @property
    def effective(self) -> float:
        """Rows of equal weight that are worth as much (Kish 1965)."""
        return self.weight**2 / self.squares if self.squares else 0.0

    def update(self, array: pa.Array, weights: npt.NDArray[np.float64] | None = None) -> None:
        """Count a batch. weights: of its rows; None: all are 1."""
        absent = missing(array)
        self.rows += len(array)
        self.missing += absent
        if weights is None:
            self.weight += len(array)
            self.squares += len(array)
            self.absent += absent
        else:
            self.weight += float(weights.sum())
            self.squares += float((weights**2).sum())
            self.absent += float(weights[~_present(array)].sum()) if absent else 0.0
        profile = self.profile
        if not profile.judged or profile.rows == profile.missing:
            return
        values = _measured(profile.column, array)
        if values is None:
            counts = _levels(array)
            self.several = (
                self.several
                or len(counts) > 1
                or bool(self.low is not None and counts and next(iter(counts)) != self.low)
            )
            if counts and self.low is None:
                self.low = next(iter(counts))
            if profile.levels is not None:
                for level, count in counts.items():
                    if level in profile.levels:
                        self.levels[level] += count
                    elif level not in profile.known:
                        self.outside += count
            return
        if not len(values):
            return
        self.outside += int(((values < profile.low) | (values > profile.high)).sum())
        for side, (cut, _) in profile.tails.items():
            beyond = values < cut if side == "low" else values > cut
            self.tails[side] += int(beyond.sum())
        low, high = values.min(), values.max()
        self.low = low if self.low is None else min(self.low, low)
        self.high = high if self.high is None else max(self.high, high)
        self.several = bool(self.low != self.high)

    def merge(self, other: ColumnTally) -> None:
        """Add what another has seen, of the rows that come after these."""
        for name in ("rows", "missing", "weight", "squares", "absent", "outside"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.levels.update(other.levels)
        self.tails.update(other.tails)
        if other.low is None:
            return
        if self.low is None:
            self.low, self.high, self.several = other.low, other.high, other.several
        elif other.high is None:  # levels: `low` is the first that was seen
            self.several |= other.several or self.low != other.low
        else:
            self.low, self.high = min(self.low, other.low), max(self.high, other.high)
            self.several = bool(self.low != self.high)


@dataclass
class TableTally:
    """Running tally of the staged rows of one table against its profile."""

    profile: TableProfile
    rows: int = 0
    schema: pa.Schema | None = None
    columns: dict[str, ColumnTally] = field(default_factory=dict)
    keys: dict[str, KeyTally] = field(default_factory=dict)  # of keys and foreign keys
    identifiers: dict[str, IdentifierTally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.keys = {name: KeyTally() for name in self.profile.keys}
        real = self.profile.identifiers
        self.identifiers = {name: IdentifierTally.against(i) for name, i in real.items()}
        self.columns = {n: ColumnTally(p) for n, p in self.profile.columns.items()}

    def __getstate__(self) -> dict[str, Any]:
        """Without the profile: it is sent to be merged into a tally that has it."""
        return {k: v for k, v in vars(self).items() if k != "profile"}

    def update(
        self, table: pa.Table | pa.RecordBatch, weights: npt.NDArray[np.float64] | None = None
    ) -> None:
        """Count a batch. weights: of its rows; None: all are 1."""
        self.schema = table.schema
        self.rows += table.num_rows
        for name, tally in self.columns.items():
            if name in table.schema.names:
                column = table.column(table.schema.get_field_index(name))
                if isinstance(column, pa.ChunkedArray):
                    column = column.combine_chunks()
                tally.update(column, weights)
                if name in self.keys:
                    self.keys[name].update(column)
                if name in self.identifiers:
                    self.identifiers[name].update(column)

    def merge(self, other: TableTally) -> None:
        """Add what another has seen against the same profile, of the rows that come after these."""
        self.schema = self.schema if other.schema is None else other.schema
        self.rows += other.rows
        for name, column in self.columns.items():
            column.merge(other.columns[name])
        for name, keys in self.keys.items():
            keys.merge(other.keys[name])
        for name, identifiers in self.identifiers.items():
            identifiers.merge(other.identifiers[name])
