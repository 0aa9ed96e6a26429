"""A table whose rows obey constraints ↔ a table in which nothing can break them.

Each stage takes columns away and puts others in their place from which the first follow: the
combination of several columns becomes one column of levels, a number that lies above others
becomes its distance to them, a multiple becomes its factor. What a model draws for these columns
is then turned back into the source's own columns, types and steps, and every row obeys.

Stages are chained: one that reads a column stands before the one that takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from safegen.contracts import Scalar
from safegen.errors import SourceError, UsageError
from safegen.tables.above import Above
from safegen.tables.columns import as_scalar, impossible, missing_is_nan, pack, unpack
from safegen.tables.combinations import Combinations
from safegen.tables.constraints import (
    Constraint,
    FixedCombinations,
    FixedIncrements,
    Inequality,
    OneHotEncoding,
    Range,
    on,
    refuse_violated,
)
from safegen.tables.numbers import decoded, from_numbers, scale_of, single, to_numbers
from safegen.tables.schema import Column, TableSchema
from safegen.tables.streams import stream
from safegen.tables.types import family

__all__ = ["Constraints"]

Conditions = dict[str, Scalar]


class Stage(Protocol):
    """One step from the source towards what a model learns, and back."""

    @property
    def takes(self) -> tuple[str, ...]:
        """The columns that it takes away or changes."""
        ...

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns that it needs as they are in the source."""
        ...

    def after(self, schema: pa.Schema) -> pa.Schema:
        """The schema that `transform` gives."""
        ...

    def transform(self, table: pa.Table, rng: np.random.Generator) -> pa.Table: ...
    def restore(self, table: pa.Table) -> pa.Table: ...

    def fix(self, conditions: Conditions) -> Conditions | None:
        """Conditions on what it takes as conditions on what it gives; None when they are none."""
        ...

    def to_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, eq=False)
class Constraints:
    """All constraints of a table, fitted. Without any, a table passes through as it is."""

    source: pa.Schema
    stages: tuple[Stage, ...]  # in the order of `transform`

    @classmethod
    def fit(
        cls, table: pa.Table, schema: TableSchema, constraints: Sequence[Constraint]
    ) -> Constraints:
        """Raises: UsageError for columns that cannot be held together, and for constraints that
        stand in each other's way; SourceError, with the count, when rows of the source violate
        one."""
        stages: list[Stage] = []
        taken = set(table.column_names)
        for constraint in constraints:
            _check_columns(constraint, schema)
        above: dict[str, list[tuple[str, bool]]] = {}
        for constraint in constraints:
            if isinstance(constraint, FixedCombinations | OneHotEncoding):
                if isinstance(constraint, OneHotEncoding):
                    _check_one_hot(constraint, table)
                combined = Combinations.fit(constraint.columns, table, taken)
                taken.add(combined.joint)
                stages.append(combined)
            elif isinstance(constraint, FixedIncrements):
                stages.append(Multiples.fit(constraint, table))
            else:
                low, *rest = constraint.columns
                strict = constraint.strict_boundaries
                for index, high in enumerate(rest):
                    others = [low, *rest[:index]]
                    above.setdefault(high, []).extend((name, strict) for name in others)
        for high, below in above.items():
            stage = Above.fit(high, dict.fromkeys(below), table, taken)
            taken.add(stage.distance)
            stages.append(stage)
        return cls(table.schema, tuple(_in_order(stages)))

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The columns that a model sees."""
        schema = self.source
        for stage in self.stages:
            schema = stage.after(schema)
        return schema

    @property
    def bounded(self) -> frozenset[str]:
        """The columns that must stay within the source's bounds for a value to lie above them."""
        return frozenset(name for stage in self.stages for name in (*stage.reads, *stage.takes))

    def schema(self, schema: TableSchema) -> TableSchema:
        """The roles of the columns that a model sees."""
        columns = []
        for field in self.arrow_schema:
            if field.name in schema.names:
                known = schema.column(field.name)
                columns.append(known.model_copy(update={"type": str(field.type)}))
                continue
            kind = "categorical" if pa.types.is_dictionary(field.type) else "numeric"
            kind = "datetime" if family(field.type) == "time" else kind
            columns.append(Column(name=field.name, type=str(field.type), kind=kind))  # type: ignore[arg-type]
        return TableSchema(columns=tuple(columns))

    def transform(self, table: pa.Table, *, seed: int) -> pa.Table:
        """What a model learns. Raises: SourceError when rows violate a constraint."""
        for index, stage in enumerate(self.stages):
            rng = np.random.default_rng(stream(seed, len(self.source), index))
            table = stage.transform(table, rng)
        return table

    def restore(self, table: pa.Table) -> pa.Table:
        """The source's columns. Every row obeys every constraint, whatever a model has drawn."""
        for stage in reversed(self.stages):
            table = stage.restore(table)
        return table.select(self.source.names)

    def conditions(self, conditions: Mapping[str, Scalar]) -> tuple[Conditions, Conditions]:
        """(what they fix in the columns that a model sees, those that only rejection can meet).

        Raises: UsageError when no row could meet them.
        """
        fixed, rest = dict(conditions), Conditions()
        for stage in self.stages:
            given = {name: fixed.pop(name) for name in stage.takes if name in fixed}
            if given and (found := stage.fix(given)) is not None:
                fixed |= found
            else:
                rest |= {name: conditions[name] for name in given}
        return fixed, rest

    def to_json(self) -> list[dict[str, Any]]:
        return [stage.to_json() for stage in self.stages]

    @classmethod
    def from_json(cls, document: Sequence[Mapping[str, Any]], source: pa.Schema) -> Constraints:
        stages = tuple(_STAGES[part["stage"]].from_json(part) for part in document)
        return cls(source, stages)


def _check_columns(constraint: Constraint, schema: TableSchema) -> None:
    names = constraint.columns
    if len(set(names)) < len(names):
        raise UsageError(f"constraint {constraint.type} names a column twice")
    if isinstance(constraint, FixedCombinations | OneHotEncoding):
        fits: tuple[str, ...] = ("categorical", "boolean", "numeric", "datetime")
    else:
        fits = ("numeric",) if isinstance(constraint, FixedIncrements) else ("numeric", "datetime")
    kinds = set()
    for name in names:
        column = schema.column(name)
        kinds.add(column.kind)
        if column.kind not in fits:
            invented = column.kind in ("id", "personal")
            why = "its values are invented" if invented else f"it takes {' or '.join(fits)} columns"
            raise UsageError(
                f"constraint {constraint.type}: column {name!r} is {column.kind}, and {why}"
            )
    if isinstance(constraint, Inequality | Range) and len(kinds) > 1:
        raise UsageError(
            f"constraint {constraint.type}: {', '.join(names)} are not all numeric or all datetime"
        )


def _check_one_hot(constraint: OneHotEncoding, table: pa.Table) -> None:
    ones = np.zeros(table.num_rows)
    wrong = np.zeros(table.num_rows, bool)
    for name in constraint.columns:
        values = decoded(table.column(name))
        if family(values.type) not in ("bool", "int", "float"):
            raise UsageError(
                f"constraint OneHotEncoding: column {name!r} is {values.type}, and 0 and 1 are "
                "numbers or booleans"
            )
        numbers = np.asarray(values.cast(pa.float64()).fill_null(np.nan))
        wrong |= ~np.isin(numbers, (0.0, 1.0))
        ones += numbers
    refuse_violated(on(constraint.type, constraint.columns), int((wrong | (ones != 1)).sum()))


def _in_order(stages: Sequence[Stage]) -> list[Stage]:
    """Readers of a column before what takes it away. Raises: UsageError when there is no order."""
    left, ordered = list(stages), []
    names = [name for stage in stages for name in stage.takes]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"column {name!r} is held by several constraints that cannot be kept at once: "
                "join their columns in one FixedCombinations, or leave one of them out"
            )
    while left:
        free = [s for s in left if not any(set(s.takes) & set(o.reads) for o in left if o is not s)]
        if not free:
            raise UsageError(
                f"the constraints on {', '.join(s.takes[0] for s in left)} refer to each other in "
                "a circle: leave one of them out"
            )
        ordered.append(free[0])
        left.remove(free[0])
    return ordered


@dataclass(frozen=True, eq=False)
class Multiples:
    """A column of multiples as their factors, whole numbers."""

    name: str
    type: pa.DataType
    scale: int | None  # of a decimal
    unit: int  # the increment, in the units of `to_numbers`
    nan: bool

    @property
    def takes(self) -> tuple[str, ...]:
        return (self.name,)

    reads: tuple[str, ...] = ()

    @classmethod
    def fit(cls, constraint: FixedIncrements, table: pa.Table) -> Multiples:
        values = single(table.column(constraint.column_name))
        scale = scale_of(values) if family(values.type) == "decimal" else None
        if family(values.type) == "decimal" and scale is None:
            raise SourceError(
                f"constraint FixedIncrements: column {constraint.column_name!r} ({values.type}) "
                "has more digits than int64 holds: cast it to float64 or to fewer digits"
            )
        nan = missing_is_nan(values)
        if family(values.type) == "float":
            exact = 1 << (np.finfo(values.type.to_pandas_dtype()).nmant + 1)
            if np.abs(to_numbers(values)[0]).max(initial=0) > exact:
                raise SourceError(
                    f"constraint FixedIncrements: column {constraint.column_name!r} has numbers "
                    f"above {exact:,}, between which {values.type} has gaps: cast it to int64"
                )
        unit = int(constraint.increment_value) * 10 ** (scale or 0)
        return cls(constraint.column_name, values.type, scale, unit, nan)

    def after(self, schema: pa.Schema) -> pa.Schema:
        at = schema.get_field_index(self.name)
        return schema.set(at, pa.field(self.name, self._factors))

    @property
    def _factors(self) -> pa.DataType:
        return pa.uint64() if pa.types.is_uint64(self.type) else pa.int64()

    def transform(self, table: pa.Table, rng: np.random.Generator) -> pa.Table:
        numbers, present = to_numbers(single(table.column(self.name)), self.scale)
        refuse_violated(on("FixedIncrements", self.takes), int((numbers % self.unit != 0).sum()))
        factors = from_numbers(numbers // self.unit, present, self._factors)
        at = table.schema.get_field_index(self.name)
        return table.set_column(at, self.name, factors)

    def restore(self, table: pa.Table) -> pa.Table:
        factors, present = to_numbers(single(table.column(self.name)))
        numbers = factors * self.unit
        if self.nan:
            numbers, present = np.where(present, numbers, np.nan), np.ones_like(present)
        values = from_numbers(numbers, present, self.type, self.scale)
        at = table.schema.get_field_index(self.name)
        return table.set_column(at, pa.field(self.name, self.type), values)

    def fix(self, conditions: Conditions) -> Conditions | None:
        one = as_scalar(self.name, conditions[self.name], self.type).cast(self.type)
        try:
            numbers, present = to_numbers(one, self.scale)
        except pa.ArrowInvalid:
            raise impossible(self.name, "the source has fewer decimals") from None
        if not present[0]:
            return {self.name: None}
        if numbers[0] % self.unit:
            raise impossible(self.name, f"no multiple of the increment {self.unit}")
        return {self.name: int(numbers[0] // self.unit)}

    def to_json(self) -> dict[str, Any]:
        kept = {"name": self.name, "scale": self.scale, "unit": self.unit, "nan": self.nan}
        return {"stage": "multiples", "type": pack(pa.nulls(0, self.type)), **kept}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Multiples:
        type_ = unpack(document["type"]).type
        kept = (document[key] for key in ("scale", "unit", "nan"))
        return cls(str(document["name"]), type_, *kept)


_STAGES: dict[str, Any] = {"combinations": Combinations, "multiples": Multiples, "above": Above}
