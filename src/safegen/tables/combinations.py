"""Columns whose values stand together only as in the source, as one column of levels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.contracts import Scalar
from safegen.errors import SourceError
from safegen.tables.columns import as_scalar, impossible, pack, unpack
from safegen.tables.constraints import on, refuse_violated
from safegen.tables.numbers import decoded, single

__all__ = ["Combinations"]

MOST_COMBINATIONS = 0.5
"""A larger share of rows that all have a combination of their own is refused: the combinations
would be the rows themselves."""


@dataclass(frozen=True, eq=False)
class Combinations:
    """Several columns as one of levels: the combinations that occur, in order of their codes."""

    joint: str
    combinations: pa.Table  # in the source's types

    @property
    def takes(self) -> tuple[str, ...]:
        return tuple(self.combinations.column_names)

    reads: tuple[str, ...] = ()

    @classmethod
    def fit(cls, names: Sequence[str], table: pa.Table, taken: Collection[str]) -> Combinations:
        """Raises: SourceError for combinations that are the rows themselves."""
        joint = "#".join(names)
        while joint in taken:
            joint += "#"
        columns = [single(table.column(name)) for name in names]
        first = np.unique(_codes(columns), return_index=True)[1]
        if len(first) > MOST_COMBINATIONS * table.num_rows and len(first) > 1:
            raise SourceError(
                f"FixedCombinations on {', '.join(map(repr, names))}: {len(first):,} combinations "
                f"in {table.num_rows:,} rows would be the rows themselves: name fewer columns"
            )
        return cls(
            joint, pa.table([column.take(pa.array(first)) for column in columns], list(names))
        )

    def after(self, schema: pa.Schema) -> pa.Schema:
        at = min(schema.get_field_index(name) for name in self.takes)
        fields = [f for f in schema if f.name not in self.takes]
        return pa.schema([*fields[:at], pa.field(self.joint, _JOINT), *fields[at:]])

    def transform(self, table: pa.Table, rng: np.random.Generator) -> pa.Table:
        columns = [
            pa.chunked_array([decoded(known), decoded(column)])
            for known, column in zip(
                self.combinations.columns, table.select(self.takes).columns, strict=True
            )
        ]
        codes = _codes([single(column) for column in columns])
        known, rows = np.split(codes, [self.combinations.num_rows])
        order = np.argsort(known)
        at = np.searchsorted(known[order], rows).clip(max=len(order) - 1)
        found = order[at]
        unknown = int((known[found] != rows).sum())
        refuse_violated(on("FixedCombinations", self.takes), unknown)
        levels = pa.array(np.arange(len(order), dtype=np.int32))
        joint = pa.DictionaryArray.from_arrays(pa.array(found.astype(np.int32)), levels)
        schema = self.after(table.schema)
        arrays = [joint if n == self.joint else table.column(n) for n in schema.names]
        return pa.Table.from_arrays(arrays, schema=schema)

    def restore(self, table: pa.Table) -> pa.Table:
        codes = decoded(table.column(self.joint))
        for name in self.takes:
            table = table.append_column(name, single(self.combinations.column(name)).take(codes))
        return table.drop_columns([self.joint])

    def fix(self, conditions: dict[str, Scalar]) -> dict[str, Scalar] | None:
        here = np.ones(self.combinations.num_rows, bool)
        for name, value in conditions.items():
            column = self.combinations.column(name)
            values = decoded(column)
            if value is None:
                here &= np.asarray(pc.is_null(values, nan_is_null=True))
                continue
            one = as_scalar(name, value, column.type).cast(values.type)
            here &= np.asarray(pc.equal(values, one[0]).fill_null(False))
        if not here.any():
            raise impossible(", ".join(conditions), "the source has no such combination")
        return {self.joint: int(np.flatnonzero(here)[0])} if here.sum() == 1 else None

    def to_json(self) -> dict[str, Any]:
        columns = {n: pack(single(self.combinations.column(n))) for n in self.takes}
        return {"stage": "combinations", "joint": self.joint, "columns": columns}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Combinations:
        columns = {name: unpack(text) for name, text in document["columns"].items()}
        return cls(str(document["joint"]), pa.table(columns))


_JOINT = pa.dictionary(pa.int32(), pa.int32())


def _codes(columns: Sequence[pa.Array]) -> np.ndarray:
    """A number for each row, the same for equal rows: (n,) int64. A missing value is a value."""
    codes = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        encoded = decoded(column).dictionary_encode(null_encoding="encode")
        codes = codes * max(len(encoded.dictionary), 1) + np.asarray(encoded.indices)
        codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    return codes
