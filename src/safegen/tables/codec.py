"""A user's table ↔ plain features that any backend can learn, with an exact inverse.

Every trap of the libraries below is closed here, once: dates of any unit, dictionaries, tiny and
huge numbers, integers beyond 2⁵³, point masses, missing values, ids and personal data never
reach them. A backend sees float64 without nulls and codes with a known number of levels.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from safegen.contracts import Scalar
from safegen.errors import BackendError, SourceError, UsageError, reading
from safegen.tables.columns import (
    ColumnCodec,
    Condition,
    Feature,
    Features,
    LevelsColumn,
    NullColumn,
    Place,
)
from safegen.tables.constrained import Constraints
from safegen.tables.constraints import Constraint
from safegen.tables.invented import IdColumn, PersonalColumn
from safegen.tables.numbers import decoded, single, to_numbers
from safegen.tables.numeric import NumericColumn, fit_numeric
from safegen.tables.schema import Column, TableSchema, nearest
from safegen.tables.streams import stream
from safegen.tables.types import family

__all__ = ["Codec", "Condition", "Feature", "Features"]

FORMAT = "safegen.codec/1"
_TRIED = 16  # rows: more than a number has states

_CODECS: dict[str, Any] = {
    "null": NullColumn,
    "levels": LevelsColumn,
    "numeric": NumericColumn,
    "id": IdColumn,
    "personal": PersonalColumn,
}


@dataclass(frozen=True, eq=False)
class Codec:
    """What `fit` learned about each column: levels, bounds, rounding, masses. No rows."""

    schema: TableSchema
    arrow_schema: pa.Schema  # of the source, without metadata (a stamp must not be copied)
    columns: tuple[ColumnCodec, ...]  # of what the constraints make of it
    constraints: Constraints

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The features in column order. Ids, personal data and constants make none."""
        return tuple(feature for column in self.columns for feature in column.features)

    @cached_property
    def nominal(self) -> frozenset[str]:
        """The categorical features whose levels have no order of their own: texts, states."""
        return frozenset(
            feature.name
            for column in self.columns
            for feature in column.features
            if feature.levels > 2 and not (isinstance(column, LevelsColumn) and column.ordinal)
        )

    def is_continuous(self, column: str, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows of a numeric column are neither missing nor on a point mass: bool, (n,)."""
        for codec in self.columns:
            if isinstance(codec, NumericColumn) and codec.name == column:
                if len(codec.features) == 1:
                    return np.ones(len(features[column]), dtype=bool)
                there: np.ndarray = features[codec.state] == codec.continuous
                return there
        raise UsageError(f"no numeric column {column!r}")

    @classmethod
    def fit(
        cls,
        table: pa.Table,
        schema: TableSchema,
        *,
        seed: int,
        rounding: bool = True,
        clip: bool = True,
        smooth: Collection[str] = (),
        masses: bool = True,
        locales: Sequence[str] = ("en_US",),
        constraints: Sequence[Constraint] = (),
    ) -> Codec:
        """The codec of a table that `check_table` accepts.

        rounding: decoded numbers have the source's decimals, or are multiples of its step.
        clip: they stay within the source's minimum and maximum (else within the type's).
        smooth: numeric columns to keep whole, without levels or point masses, because the user
        named a distribution for them. masses: split point masses off the other numeric columns;
        without, numbers stay whole beside few levels and the state of missing values, for a
        backend whose marginals hold masses themselves. locales: Faker's, for personal columns.
        constraints: hold in every decoded row; their columns are rounded and clipped always.

        Raises: SourceError, UsageError and MissingExtra, naming the column.
        """
        if tuple(table.column_names) != schema.names:
            raise UsageError("the schema and the table do not have the same columns")
        arrow_schema = _plain_schema(table)
        table = pa.Table.from_arrays(table.columns, schema=arrow_schema)
        held = Constraints.fit(table, schema, constraints)
        table = held.transform(table, seed=seed)
        taken = {*arrow_schema.names, *table.column_names}
        columns: list[ColumnCodec] = []
        for column in held.schema(schema).columns:
            state = column.name + "#state"
            while state in taken:
                state += "#"
            taken.add(state)
            values = single(table.column(column.name))
            if _all_missing(values):
                nan = family(values.type) == "float" and values.null_count == 0
                columns.append(NullColumn(column.name, values.type, nan))
            elif column.kind == "id":
                columns.append(IdColumn.fit(column.name, values))
            elif column.kind == "image":
                raise SourceError(
                    f"column {column.name!r} holds images, which models of tables do not take: use "
                    "diffusion.image, or drop the column"
                )
            elif column.kind == "personal":
                columns.append(_personal(column, values, locales, seed))
            elif column.kind in ("numeric", "datetime"):
                smoothed, bounded = column.name in smooth, column.name in held.bounded
                columns.append(
                    fit_numeric(
                        column.name,
                        values,
                        state=state,
                        rounding=rounding or bounded,
                        clip=clip or bounded,
                        smooth=smoothed,
                        masses=masses,
                    )
                )
            else:
                columns.append(LevelsColumn.fit(column.name, values))
        return cls(schema, arrow_schema, tuple(columns), held)

    def encode(self, table: pa.Table, *, seed: int) -> Features:
        """The features of rows with the fitted columns: float64 or int32, each of shape (n,).

        The rows need not be those of `fit`. Raises: SourceError when a column is absent, has
        another type, or holds levels or nulls that the fit has not seen.
        """
        for field in self.arrow_schema:
            if field.name not in table.column_names:
                raise SourceError(f"column {field.name!r} is not in the table")
            type_ = table.schema.field(field.name).type
            if type_ != field.type:
                raise SourceError(f"column {field.name!r} is {type_}, not {field.type}")
        table = self.constraints.transform(table.select(self.arrow_schema.names), seed=seed)
        features: Features = {}
        for index, column in enumerate(self.columns):
            values = single(table.column(column.name))
            features |= column.encode(values, np.random.default_rng(stream(seed, index)))
        return features

    def decode(
        self,
        features: Mapping[str, np.ndarray],
        *,
        first_row: int,
        seed: int,
        rows: int | None = None,
    ) -> pa.Table:
        """The rows that the features stand for, exactly in `arrow_schema`.

        `first_row` is the number of the first row in the whole output: surrogates are made from
        it, so they are unique across blocks. `rows` is needed only when there are no features.
        Raises: BackendError for features that are absent, of unequal length, not finite, or not
        codes.
        """
        absent = [f.name for f in self.features if f.name not in features]
        lengths = {len(features[f.name]) for f in self.features if f.name in features}
        lengths |= {rows} if rows is not None else set()
        if absent or len(lengths) != 1:
            raise BackendError(f"the model gave features of lengths {lengths}, without {absent}")
        (count,) = lengths
        arrays = [
            column.decode(features, Place(first_row, count, seed, index))
            for index, column in enumerate(self.columns)
        ]
        table = pa.Table.from_arrays(arrays, schema=self.constraints.arrow_schema)
        restored = self.constraints.restore(table)
        return pa.Table.from_arrays(restored.columns, schema=self.arrow_schema)

    def condition(self, column: str, value: Scalar) -> Condition:
        """What `column = value` fixes: `{feature: ("level", code)}` or `{feature: ("value", x)}`.

        Empty when every row meets it. Raises: UsageError naming the column, not the value, when
        no row could meet it, or when a constraint leaves it to rejection (see `conditions`).
        """
        fixed, rest = self.conditions({column: value})
        if rest:
            raise UsageError(f"condition on column {column!r}: a constraint ties it to others")
        return fixed

    def conditions(
        self, conditions: Mapping[str, Scalar]
    ) -> tuple[Condition, Mapping[str, Scalar]]:
        """(what they fix, as `condition` says it; those of constrained columns that fix nothing).

        The latter can be met by rejection only: draw with the others, and keep the rows that meet
        these (`safegen.tables.matching.drawn_until`). Raises: as `condition`.
        """
        for column in conditions:
            if column not in self.schema.names:
                raise UsageError(f"no column {column!r}{nearest(column, self.schema.names)}")
        inner, rest = self.constraints.conditions(conditions)
        fixed: Condition = {}
        for codec in self.columns:
            if codec.name in inner:
                fixed |= codec.condition(inner[codec.name])
        return fixed, rest

    def to_json(self) -> dict[str, Any]:
        """A document for `json.dumps`. Holds levels and bounds, which are real values."""
        return {
            "format": FORMAT,
            "schema": self.schema.model_dump(mode="json"),
            "arrow_schema": base64.b64encode(self.arrow_schema.serialize()).decode("ascii"),
            "columns": [column.to_json() for column in self.columns],
            "constraints": self.constraints.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Codec:
        """The inverse of `to_json`. Raises: BackendError for anything else.

        A few rows are decoded, which shows a broken column here and not in the middle of a run.
        """
        with reading("the model's codec"):
            if document["format"] != FORMAT:
                raise ValueError
            schema = TableSchema.model_validate(document["schema"])
            raw = base64.b64decode(document["arrow_schema"], validate=True)
            arrow_schema = pa.ipc.read_schema(pa.py_buffer(raw))
            constraints = Constraints.from_json(document.get("constraints", []), arrow_schema)
            inner = constraints.arrow_schema
            columns = tuple(
                _CODECS[column["codec"]].from_json(column, field.type)
                for column, field in zip(document["columns"], inner, strict=True)
            )
            if schema.names != tuple(arrow_schema.names) or inner.names != [
                c.name for c in columns
            ]:
                raise ValueError
            codec = cls(schema, arrow_schema, columns, constraints)
            rows = np.arange(_TRIED)
            tried = {
                f.name: (rows % f.levels).astype(np.int32) if f.levels else np.zeros(_TRIED)
                for f in codec.features
            }
            codec.decode(tried, first_row=0, seed=0, rows=_TRIED)
        return codec


def _personal(column: Column, values: pa.Array, locales: Sequence[str], seed: int) -> ColumnCodec:
    return PersonalColumn.fit(column.name, values, column.faker, locales, seed)


def _plain_schema(table: pa.Table) -> pa.Schema:
    return pa.schema([pa.field(f.name, f.type, nullable=f.nullable) for f in table.schema])


def _all_missing(values: pa.Array) -> bool:
    if family(values.type) == "float":
        return not to_numbers(values)[1].any()
    missing: int = decoded(values).null_count  # a dictionary may hold a null itself
    return missing == len(values)
