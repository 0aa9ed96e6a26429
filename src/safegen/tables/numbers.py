"""Arrow columns as numpy numbers and back, exactly.

Integers, dates, times and durations are int64 (uint64 for the unsigned 64-bit type) in the
column's own unit; decimals are their unscaled int64 at the smallest scale that loses nothing;
floats of any width are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.types import computable, family

__all__ = [
    "DAY_MS",
    "Limits",
    "decoded",
    "filtered",
    "from_numbers",
    "limits",
    "scale_of",
    "single",
    "taken",
    "to_numbers",
]

Limits = tuple[int, int]

DAY_MS = 86_400_000


def single(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array of the same type (one dictionary for all chunks)."""
    if not isinstance(values, pa.ChunkedArray):
        return values
    if values.num_chunks == 1:
        return values.chunk(0)
    if pa.types.is_dictionary(values.type):
        values = pa.chunked_array([_whole(c) for c in values.chunks], values.type)
        values = values.unify_dictionaries()
    return values.combine_chunks() if values.num_chunks else pa.array([], values.type)


def _whole(array: pa.DictionaryArray) -> pa.DictionaryArray:
    """The array; where its dictionary holds a null, which Arrow cannot unify, a null outside."""
    if not array.dictionary.null_count:
        return array
    return array.dictionary_decode().dictionary_encode().cast(array.type)


def decoded(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The plain values, without a dictionary, in a type that Arrow's functions take."""
    array = single(values)
    if pa.types.is_dictionary(array.type):
        words = array.dictionary.cast(computable(array.dictionary.type))
        array = pa.DictionaryArray.from_arrays(array.indices, words).dictionary_decode()
    return array.cast(computable(array.type))


def filtered(table: pa.Table, mask: pa.Array | pa.ChunkedArray) -> pa.Table:
    """`Table.filter`, also of string views, which Arrow cannot filter."""
    plain = pa.schema([f.with_type(computable(f.type)) for f in table.schema])
    return table.cast(plain).filter(mask).cast(table.schema)


def taken(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """`Table.take` of row numbers, also of string views, which Arrow cannot take."""
    if not any(pa.types.is_string_view(t) for t in table.schema.types):
        return table.take(pa.array(rows))
    plain = pa.schema([f.with_type(computable(f.type)) for f in table.schema])
    return table.cast(plain).take(pa.array(rows)).cast(table.schema)


def scale_of(values: pa.Array) -> int | None:
    """The smallest decimal scale that loses no digit and fits int64; None when there is none."""
    scale = values.type.scale
    for candidate in range(scale + 1):
        try:
            narrow = values.cast(pa.decimal128(38, candidate))
        except pa.ArrowInvalid:
            continue
        return candidate if _fits_int64(narrow) else None
    return None


def _halves(values: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The 16-byte little-endian two's complement of decimal128 as (n, 2) int64."""
    halves = np.frombuffer(values.buffers()[1], dtype="<i8").reshape(-1, 2)
    return halves[values.offset : values.offset + len(values)]


def _fits_int64(values: pa.Array) -> bool:
    halves = _halves(values.drop_null())
    return bool((halves[:, 1] == halves[:, 0] >> 63).all()) if len(halves) else True


def to_numbers(values: pa.Array, scale: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The numbers and a mask of those that are there; where it is False the number is 0.

    Shapes (n,) and (n,). NaN counts as missing. `scale` is for decimals (`scale_of`).
    """
    kind, type_ = family(values.type), values.type
    if kind == "float":
        numbers = values.cast(pa.float64()).to_numpy(zero_copy_only=False).astype(np.float64)
        present = ~np.isnan(numbers)
        return np.where(present, numbers, 0.0), present
    present = np.asarray(pc.is_valid(values))
    if kind == "decimal":
        narrow = values.cast(pa.decimal128(38, scale)).fill_null(0)
        return _halves(narrow)[:, 0].copy(), present
    if kind == "time":
        values = values.view(_integer(type_))
    numbers = values.fill_null(0).to_numpy()
    return numbers.astype(np.uint64 if pa.types.is_uint64(type_) else np.int64), present


def from_numbers(
    numbers: np.ndarray, present: np.ndarray, type_: pa.DataType, scale: int | None = None
) -> pa.Array:
    """The inverse of `to_numbers`: null wherever `present` is False."""
    kind, missing = family(type_), ~present if not present.all() else None
    if kind == "float":
        numpy_type = type_.to_pandas_dtype()
        return pa.array(numbers.astype(numpy_type), type=type_, mask=missing, from_pandas=False)
    if kind == "decimal":
        halves = np.stack([numbers.astype("<i8"), numbers.astype("<i8") >> 63], axis=1)
        bits = None if missing is None else pa.array(present).buffers()[1]
        raw = pa.Array.from_buffers(
            pa.decimal128(38, scale), len(numbers), [bits, pa.py_buffer(halves.tobytes())]
        )
        return raw.cast(type_)
    if kind == "time":
        storage = _integer(type_)
        whole = numbers.astype(storage.to_pandas_dtype())
        return pa.array(whole, type=storage, mask=missing).view(type_)
    return pa.array(numbers.astype(type_.to_pandas_dtype()), type=type_, mask=missing)


def _integer(type_: pa.DataType) -> pa.DataType:
    return pa.int32() if type_.bit_width == 32 else pa.int64()


def limits(type_: pa.DataType, scale: int | None = None) -> Limits:
    """Smallest and largest number that the type can hold, in the units of `to_numbers`.

    Dates and timestamps stop at the years 1 and 9999, which every reader can show.
    """
    if pa.types.is_decimal(type_):
        assert scale is not None
        top = min((10**type_.precision - 1) // 10 ** (type_.scale - scale), 2**63 - 1)
        return -top, top
    if pa.types.is_time(type_):
        return 0, 86_400 * _per_second(type_.unit) - 1
    bits = np.iinfo(_integer(type_).to_pandas_dtype() if family(type_) == "time" else np.int64)
    if pa.types.is_date(type_) or pa.types.is_timestamp(type_):
        if pa.types.is_timestamp(type_):
            day = 86_400 * _per_second(type_.unit)
        else:
            day = DAY_MS if pa.types.is_date64(type_) else 1
        return max(-719_162 * day, bits.min + 1), min(2_932_897 * day - 1, bits.max)
    if pa.types.is_integer(type_):
        bits = np.iinfo(type_.to_pandas_dtype())
    return int(bits.min), int(bits.max)


def _per_second(unit: str) -> int:
    return {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
