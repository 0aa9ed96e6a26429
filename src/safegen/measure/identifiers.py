"""Whether real identifiers turn up among staged rows: counted in all of them, batch by batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from safegen.measure.clusters import encoded
from safegen.tables.numbers import decoded
from safegen.tables.schema import ID_ROLES, Column, TableSchema
from safegen.tables.types import family

__all__ = ["NEIGHBOURS", "IdentifierTally", "Identifiers", "identifies", "owners"]

NEIGHBOURS = 8
_CIRCLES = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def identifies(column: Column) -> bool:
    """Whether its real values must not come out: ids, keys, entities and personal data, but for
    what the user declares public."""
    named = column.kind in ("id", "personal") or column.role in (*ID_ROLES, "personal")
    return named and not column.public


def owners(table: pa.Table, schema: TableSchema) -> npt.NDArray[np.int64]:
    """Whom each row is about, as a number: (rows,).

    The declared entity, else the sequence, else the row of the first table referred to, else the
    row itself.
    """
    referring = next((c.name for c in schema.columns if c.references), None)
    name = schema.entity or schema.sequence_key or referring
    if name is None:
        return np.arange(table.num_rows)
    found, codes = encoded(decoded(table.column(name)))
    unknown = codes < 0
    codes[unknown] = len(found) + np.arange(int(unknown.sum()))
    return codes


@dataclass(frozen=True, eq=False)
class Identifiers:
    """The distinct values of a real column, and how many people have each. In memory only."""

    values: pa.Array
    people: npt.NDArray[np.int64]

    @classmethod
    def of(cls, array: pa.ChunkedArray, owner: npt.NDArray[np.int64]) -> Identifiers:
        """Of a whole column and its `owners`."""
        plain = _plain(array)
        values = plain.drop_null().unique()
        at = _places(plain, values)
        pairs = np.unique(np.stack([at, owner])[:, at >= 0], axis=1)
        return cls(values, np.bincount(pairs[0], minlength=len(values)))

    def places(self, array: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Where each value of another array is among these, −1 for nowhere: (n,)."""
        return _places(_plain(array), self.values)


@dataclass
class IdentifierTally:
    """Which real identifiers were seen among staged values.

    `near` says the same of eight neighbours of each staged value, (8, distinct real values): the
    next numbers, or the text with another last letter or digit. Values that were made without
    knowledge of the real ones, by counting for instance, meet them no more often than their
    neighbours do; copies do.
    """

    real: Identifiers
    shown: npt.NDArray[np.bool_]  # (distinct real values,)
    near: npt.NDArray[np.bool_]

    @classmethod
    def against(cls, real: Identifiers) -> IdentifierTally:
        n = len(real.values)
        return cls(real, np.zeros(n, dtype=bool), np.zeros((NEIGHBOURS, n), dtype=bool))

    def __getstate__(self) -> dict[str, Any]:
        """Without the real: it is sent to be merged into a tally that has it."""
        return {k: v for k, v in vars(self).items() if k != "real"}

    @property
    def numbers(self) -> bool:
        """Whether the identifiers are numbers, which also count what is nobody's."""
        return family(self.real.values.type) in ("int", "float")

    def update(self, array: pa.Array | pa.ChunkedArray) -> None:
        """Let a batch of the column pass."""
        plain = _plain(array).drop_null()
        places = _places(plain, self.real.values)
        if (places >= 0).any():  # without any, neighbours are nothing to compare with
            _mark(self.shown, places)
            for step, near in enumerate(self.near, 1):
                _mark(near, _places(_neighbours(plain, step), self.real.values))

    def merge(self, other: IdentifierTally) -> None:
        """Add what another has seen of the same real identifiers."""
        self.shown |= other.shown
        self.near |= other.near


def _mark(marks: npt.NDArray[np.bool_], places: npt.NDArray[np.int64]) -> None:
    marks[places[places >= 0]] = True


def _places(array: pa.Array, values: pa.Array) -> npt.NDArray[np.int64]:
    """Where each value is in `values`, −1 for nowhere: (n,). Another type is compared as texts."""
    if array.type != values.type:
        array, values = array.cast(pa.large_string()), values.cast(pa.large_string())
    found = pc.fill_null(pc.index_in(array, value_set=values, skip_nulls=True), -1)
    return np.asarray(found).astype(np.int64)


def _plain(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Values that Arrow can look up: texts, integers, floats without NaN, bytes of UUIDs."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if isinstance(array.type, pa.BaseExtensionType):
        return array.storage
    array = decoded(array)
    if family(array.type) == "text":
        return array.cast(pa.large_string())
    if pa.types.is_floating(array.type):
        return pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def _neighbours(array: pa.Array, step: int) -> pa.Array:
    """So many numbers on, or the text with its last letter or digit as many on in its circle (null
    where it ends otherwise); none for other types."""
    if family(array.type) == "text":
        last = pc.utf8_slice_codeunits(array, -1)
        after = "".join(c[step:] + c[:step] for c in _CIRCLES)
        other = pa.array(list(after), pa.large_string()).take(
            pc.index_in(last, value_set=pa.array(list("".join(_CIRCLES)), pa.large_string()))
        )
        start = pc.utf8_slice_codeunits(array, 0, -1)
        return pc.binary_join_element_wise(start, other, pa.scalar("", pa.large_string()))
    if family(array.type) in ("int", "float"):
        numbers = np.asarray(array)
        top = np.iinfo(numbers.dtype).max - step if numbers.dtype.kind in "iu" else np.inf
        return pa.array(numbers[numbers < top] + numbers.dtype.type(step), type=array.type)
    return array.slice(0, 0)
