"""Columns as 64-bit words, for hashing many rows at a time.

Words are made of tolerant cells, so that what survives CSV and other types has the same word.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def is_plain(kind: pa.DataType) -> bool:
    """Whether cells of a type are single values: texts, numbers, moments."""
    t = pa.types
    if t.is_dictionary(kind):
        return is_plain(kind.value_type)
    texts = t.is_string(kind) or t.is_large_string(kind) or t.is_string_view(kind)
    numbers = t.is_boolean(kind) or t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
    return bool(texts or numbers or t.is_temporal(kind) or t.is_null(kind))


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
    """The tolerant cells of one column: (rows,) tags, and their two payload words."""

    tags: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, array: pa.Array) -> Column:
        """The cells of an Arrow array."""
        return cls.taken_apart(tolerant_cells(array))

    @classmethod
    def taken_apart(cls, cells: Cells) -> Column:
        """The cells that `tolerant_cells` made."""
        low, high = (
            np.ascontiguousarray(cells[:, a : a + 8]).view("<i8").reshape(-1) for a in (1, 9)
        )
        return cls(np.ascontiguousarray(cells[:, 0]), low, high)

    def __getitem__(self, rows: np.ndarray) -> Column:
        return Column(self.tags[rows], self.low[rows], self.high[rows])

    def __len__(self) -> int:
        return len(self.tags)

    @cached_property
    def present(self) -> np.ndarray:
        """(rows,) bool: whether there is a value."""
        found: np.ndarray = self.tags != 0
        return found

    @cached_property
    def numbers(self) -> np.ndarray:
        """(rows,) float64: values of numbers, microseconds of moments, seconds of times of day;
        NaN where there is none of these, and for what is not finite."""
        usual = (self.tags == _NUMBER) & (self.high < LONG)
        power = np.where(usual, self.high, 0) - (DIGITS - 1)
        values = self.low.astype(np.float64)
        # A power of ten up to 10^22 is exact, one below 1 is not: so 1 is read as 1.
        scale = 10.0 ** np.abs(power)
        values = np.where(usual, np.where(power < 0, values / scale, values * scale), values)
        values = np.where(self.tags == _CLOCK, values + self.high / 1e9, values)
        finite = np.isin(self.tags, (_NUMBER, _MOMENT, _CLOCK)) & (
            (self.tags != _NUMBER) | (self.high <= LONG)
        )
        found: np.ndarray = np.where(finite, values, np.nan)
        return found

    def words(self, digits: int) -> np.ndarray:
        """(rows,) uint64: equal values have equal words, numbers to so many significant digits."""
        low, high = self.low, self.high
        usual = (self.tags == _NUMBER) & (high < LONG)
        if usual.any():
            short = np.rint(low / 10.0 ** (DIGITS - digits)).astype(np.int64)
            carried = np.abs(short) >= 10**digits
            short, power = np.where(carried, short // 10, short), high + carried
            low, high = np.where(usual, short, low), np.where(usual, power, high)
        one, two = low.astype(np.uint64) * _ONE, high.astype(np.uint64) * _TWO
        return mixed((one ^ (one >> np.uint64(29))) + two + self.tags * _THREE)


def joined(columns: Sequence[Column]) -> Column:
    """One column after the other."""
    parts = zip(*((c.tags, c.low, c.high) for c in columns), strict=True)
    return Column(*(np.concatenate(p) for p in parts))
