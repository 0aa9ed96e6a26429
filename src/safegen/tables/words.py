"""Columns as 64-bit words, for hashing many rows at a time.

Words are made of tolerant cells, so that what survives CSV and other types has the same word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from safegen.tables.cells import DIGITS, LONG, Cells, tolerant_cells

__all__ = ["Column", "is_plain", "joined", "mixed"]

_NUMBER, _MOMENT, _CLOCK = (ord(c) for c in "ftc")
_ONE, _TWO, _THREE = (
    np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9)
)

_LOOKED_AT, _FEW = 1_024, 0.5
"""Values that are few are looked up once each: at the first of them is seen whether they are."""


def is_plain(kind: pa.DataType) -> bool:
    """Whether cells of a type are single values: texts, numbers, moments."""
    t = pa.types
    if t.is_dictionary(kind):
        return is_plain(kind.value_type)
    numbers = t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
    return bool(_is_text(kind) or numbers or t.is_temporal(kind) or t.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind))


def mixed(words: np.ndarray) -> np.ndarray:
    """Words of which every bit depends on every bit (SplitMix64; Steele, Lea & Flood 2014)."""
    words = words ^ (words >> np.uint64(30))
    words *= np.uint64(0xBF58476D1CE4E5B9)
    words ^= words >> np.uint64(27)
    words *= np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words


@dataclass(frozen=True, eq=False)
class Column:
    """The tolerant cells of one column: (rows,) tags, and their two payload words.

    codes: where there are few different values the cells are those of the values, and these say
    which one each row has; what is asked is asked of each value once.
    """

    tags: np.ndarray
    low: np.ndarray
    high: np.ndarray
    codes: np.ndarray | None = None

    @classmethod
    def of(cls, array: pa.Array) -> Column:
        """The cells of an Arrow array."""
        coded = _coded(array)
        if coded is None:
            return cls._taken_apart(tolerant_cells(array))
        values = cls._taken_apart(tolerant_cells(coded.dictionary))
        nulls = Column(*(np.append(part, part.dtype.type(0)) for part in values._parts))
        codes = coded.indices.cast(pa.int64()).fill_null(len(values))
        return Column(*nulls._parts, np.asarray(codes))

    @classmethod
    def _taken_apart(cls, cells: Cells) -> Column:
        low, high = (
            np.ascontiguousarray(cells[:, a : a + 8]).view("<i8").reshape(-1) for a in (1, 9)
        )
        return cls(np.ascontiguousarray(cells[:, 0]), low, high)

    @property
    def _parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.tags, self.low, self.high

    def __getitem__(self, rows: np.ndarray) -> Column:
        codes = rows if self.codes is None else self.codes[rows]
        if self.codes is not None and len(codes) > len(self.tags):
            return Column(*self._parts, codes)
        return Column(*(part[codes] for part in self._parts))

    def __len__(self) -> int:
        return len(self.tags if self.codes is None else self.codes)

    def each(self, asked: Callable[[Column], np.ndarray]) -> np.ndarray:
        """(rows, …) what is asked of a column of cells, of each different value once."""
        if self.codes is None:
            return asked(self)
        found: np.ndarray = np.take(asked(Column(*self._parts)), self.codes, axis=0)
        return found

    @cached_property
    def present(self) -> np.ndarray:
        """(rows,) bool: whether there is a value."""
        return self.each(lambda cells: cells.tags != 0)

    @cached_property
    def numbers(self) -> np.ndarray:
        """(rows,) float64: values of numbers, microseconds of moments, seconds of times of day;
        NaN where there is none of these, and for what is not finite."""
        return self.each(_numbers)

    def words(self, digits: int) -> np.ndarray:
        """(rows,) uint64: equal values have equal words, numbers to so many significant digits."""
        return self.each(lambda cells: _words(cells, digits))


def joined(columns: Sequence[Column]) -> Column:
    """One column after the other."""
    parts = zip(*(c._parts for c in columns), strict=True)
    if all(c.codes is None for c in columns):
        return Column(*(np.concatenate(p) for p in parts))
    first = np.cumsum([0, *(len(c.tags) for c in columns)])
    codes = [
        at + (np.arange(len(c)) if c.codes is None else c.codes)
        for at, c in zip(first, columns, strict=False)
    ]
    tags, low, high = (np.concatenate(p) for p in parts)
    return Column(tags, low, high, np.concatenate(codes))


def _coded(array: pa.Array) -> pa.DictionaryArray | None:
    """A column by its different values, where these are few; of numbers some rows tell."""
    kind, t = array.type, pa.types
    if not t.is_dictionary(kind):
        if not _is_text(kind):
            if not (t.is_integer(kind) or t.is_float64(kind) or t.is_date(kind)):
                return None
            some = array.slice(0, _LOOKED_AT)
            if len(some.unique()) > _FEW * len(some):
                return None
        array = array.dictionary_encode()
    return array if 2 * len(array.dictionary) < len(array) and is_plain(kind) else None


def _numbers(cells: Column) -> np.ndarray:
    usual = (cells.tags == _NUMBER) & (cells.high < LONG)
    power = np.where(usual, cells.high, 0) - (DIGITS - 1)
    values = cells.low.astype(np.float64)
    # A power of ten up to 10^22 is exact, one below 1 is not: so 1 is read as 1.
    scale = 10.0 ** np.abs(power)
    values = np.where(usual, np.where(power < 0, values / scale, values * scale), values)
    values = np.where(cells.tags == _CLOCK, values + cells.high / 1e9, values)
    finite = np.isin(cells.tags, (_NUMBER, _MOMENT, _CLOCK)) & (
        (cells.tags != _NUMBER) | (cells.high <= LONG)
    )
    found: np.ndarray = np.where(finite, values, np.nan)
    return found


def _words(cells: Column, digits: int) -> np.ndarray:
    low, high = cells.low, cells.high
    usual = (cells.tags == _NUMBER) & (high < LONG)
    if usual.any():
        short = np.rint(low / 10.0 ** (DIGITS - digits)).astype(np.int64)
        carried = np.abs(short) >= 10**digits
        short, power = np.where(carried, short // 10, short), high + carried
        low, high = np.where(usual, short, low), np.where(usual, power, high)
    one, two = low.astype(np.uint64) * _ONE, high.astype(np.uint64) * _TWO
    return mixed((one ^ (one >> np.uint64(29))) + two + cells.tags * _THREE)
