"""Canonical cells: seventeen bytes per value, a tag and a payload.

*Exact* cells are for the logical digest: equal cells mean equal values of one logical type.
*Tolerant* cells are for the lookup digest: a value is brought to what survives a trip through CSV
and other tools (numbers by value, strings that are numbers or dates as those, null spellings as
null; images to their pixels). Cells are made column by column on whole batches.
"""

from __future__ import annotations

import contextlib
import decimal
import hashlib
import math
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from safegen.tables.images import MAGIC, image_bytes, is_image, pixels_of, without_stamp

__all__ = [
    "DIGITS",
    "LONG",
    "WIDTH",
    "Cells",
    "coded",
    "exact_cells",
    "row_cells",
    "tolerant_cells",
]

WIDTH = 17  # one tag byte, sixteen bytes of payload
_NULL_CELL = bytes(WIDTH)
DIGITS = 12
"""Significant decimal digits of a number that tolerant cells keep."""

LONG = 1_000
"""The exponent of a whole number of more digits: its payload is the number itself."""

_TINY = 1e-290  # what is smaller counts as zero there
_EXACT = decimal.Context(prec=100)  # Python's default would round to 28 digits; decimal256 has 76

_POWERS = 10.0 ** np.arange(-300.0, 309.0)  # of ten, by number + 300: powers are slow to take
_PIECE = 64 * 1024 * 1024  # bytes of cells made at once: 4,096 rows of a thousand columns

Cells = npt.NDArray[np.uint8]


def row_cells(
    batch: pa.RecordBatch, names: Sequence[str], cells: Callable[[pa.Array], Cells]
) -> Iterator[npt.NDArray[np.void]]:
    """The cells of every row side by side, in the order of `names`: some rows at a time."""
    form = np.dtype([(str(i), f"V{WIDTH}") for i in range(len(names))])
    step = max(_PIECE // max(form.itemsize, 1), 1)
    for first in range(0, batch.num_rows, step):
        piece = batch.slice(first, step)
        rows = np.empty(piece.num_rows, dtype=form)
        for i, name in enumerate(names):
            column = piece.column(piece.schema.get_field_index(name))
            rows[str(i)] = cells(column).view(f"V{WIDTH}").ravel()
        yield rows.view(f"V{form.itemsize}")


def coded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with texts as dictionaries: for who makes cells of them more than once."""
    columns = [c.dictionary_encode() if _is_text(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _cells(tag: bytes, low: npt.NDArray[Any], high: npt.NDArray[Any] | None = None) -> Cells:
    """Cells of one tag and one or two 64-bit payload words (little endian)."""
    out = np.zeros((len(low), WIDTH), dtype=np.uint8)
    out[:, 0] = tag[0]
    out[:, 1:9] = np.ascontiguousarray(low).astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    if high is not None:
        out[:, 9:] = (
            np.ascontiguousarray(high).astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
        )
    return out


def _nulled(cells: Cells, array: pa.Array) -> Cells:
    if array.null_count:
        cells[np.asarray(array.is_null())] = 0
    return cells


def _floats(array: pa.Array) -> Cells:
    """Finite or infinite numbers by their bits; -0 is 0 and NaN is null."""
    values = np.asarray(array.cast(pa.float64()).fill_null(math.nan), dtype=np.float64)
    cells = _cells(b"f", (values + 0.0).view(np.int64))
    cells[np.isnan(values)] = 0
    return cells


def _by_value(array: pa.Array, cell: Callable[[Any], bytes]) -> Cells:
    """Cells computed once per distinct value; `cell` gives 17 bytes."""
    if pa.types.is_dictionary(array.type) and len(array.dictionary) > len(array):
        array = array.dictionary_decode()  # a slice needs few words of a long dictionary
    words = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
    told = [_NULL_CELL if v is None else cell(v) for v in words.dictionary.to_pylist()]
    table = np.frombuffer(b"".join([*told, _NULL_CELL]), dtype=f"V{WIDTH}")
    codes = words.indices.cast(pa.int64())
    if codes.null_count:
        codes = codes.fill_null(len(told))
    return np.take(table, np.asarray(codes)).view(np.uint8).reshape(-1, WIDTH)


def _hashed(tag: bytes, data: bytes) -> bytes:
    return tag + hashlib.blake2b(data, digest_size=16).digest()


def _instants(array: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Whole seconds and nanoseconds of timestamps, durations and times of any unit."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[array.type.unit]
    storage = pa.int32() if array.type.bit_width == 32 else pa.int64()
    ticks = np.asarray(array.view(storage).cast(pa.int64()).fill_null(0), dtype=np.int64)
    seconds, rest = np.divmod(ticks, per_second)
    return seconds, rest * (10**9 // per_second)


def _days(array: pa.Array) -> npt.NDArray[np.int64]:
    """Days since 1970; a date64 that holds a time of day counts as its day."""
    storage, per_day = (
        (pa.int32(), 1) if pa.types.is_date32(array.type) else (pa.int64(), 86_400_000)
    )
    ticks = np.asarray(array.view(storage).cast(pa.int64()).fill_null(0), dtype=np.int64)
    return ticks // per_day


def _plain(array: pa.Array) -> pa.Array:
    """An array without dictionary or extension wrapping (strings stay dictionary encoded)."""
    if pa.types.is_run_end_encoded(array.type):
        array = pc.run_end_decode(array)
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if pa.types.is_dictionary(array.type) and not _is_text(array.type.value_type):
        array = array.dictionary_decode()
    return array


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _text_type(kind: pa.DataType) -> bool:
    return _is_text(kind) or (pa.types.is_dictionary(kind) and _is_text(kind.value_type))


def exact_cells(array: pa.Array) -> Cells:
    """One 17-byte cell per value: equal cells mean equal values of one logical type.

    Integer width, float width, time unit, string layout and dictionary encoding do not matter;
    integer, float, decimal and text are kept apart.
    """
    array = _plain(array)
    kind = array.type
    t = pa.types
    if t.is_null(kind):
        return np.zeros((len(array), WIDTH), dtype=np.uint8)
    if _text_type(kind):
        return _by_value(array, lambda v: _hashed(b"s", v.encode()))
    if t.is_boolean(kind):
        values = np.asarray(array.fill_null(False).cast(pa.int8()))
        return _nulled(_cells(b"b", values), array)
    if t.is_uint64(kind):
        values = np.asarray(array.fill_null(0), dtype=np.uint64)
        cells = _cells(b"i", values.view(np.int64))
        cells[values > np.uint64(2**63 - 1), 0] = ord("u")
        return _nulled(cells, array)
    if t.is_integer(kind):
        return _nulled(_cells(b"i", np.asarray(array.cast(pa.int64()).fill_null(0))), array)
    if t.is_floating(kind):
        return _floats(array)
    if t.is_date(kind):
        return _nulled(_cells(b"d", _days(array)), array)
    if t.is_timestamp(kind):
        return _nulled(_cells(b"T" if kind.tz else b"t", *_instants(array)), array)
    if t.is_duration(kind):
        return _nulled(_cells(b"r", *_instants(array)), array)
    if t.is_time(kind):
        return _nulled(_cells(b"c", *_instants(array)), array)
    if t.is_decimal(kind):
        wide = array if kind.bit_width >= 128 else array.cast(pa.decimal128(38, kind.scale))
        return _by_value(wide, lambda v: _hashed(b"m", str(v.normalize(_EXACT)).encode()))
    if t.is_binary_view(kind):
        array, kind = array.cast(pa.large_binary()), pa.large_binary()
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        return _by_value(array, lambda v: _hashed(b"y", v))
    if is_image(kind):
        return _images(array, without_stamp)
    cells = np.zeros((len(array), WIDTH), dtype=np.uint8)
    for i, value in enumerate(array.to_pylist()):
        if value is not None:
            cells[i] = np.frombuffer(_hashed(b"x", repr(value).encode()), dtype=np.uint8)
    return cells


def _images(array: pa.Array, content: Callable[[bytes], bytes]) -> Cells:
    """Images by what they hold; their names, and our stamp in them, are no content."""
    cells = np.zeros((len(array), WIDTH), dtype=np.uint8)
    for i, data in enumerate(image_bytes(array)):
        if data is not None:
            cells[i] = np.frombuffer(_hashed(b"p", content(data)), dtype=np.uint8)
    return cells


def _pixels(data: bytes) -> bytes:
    try:
        return pixels_of(data)
    except ValueError:
        return data  # no image: an odd file is still itself


_NULLS = frozenset(
    {"", "#n/a", "#n/a n/a", "#na", "-1.#ind", "-1.#qnan", "-nan", "1.#ind", "1.#qnan", "<na>"}
    | {"n/a", "na", "nan", "none", "null", "nat"}
)
_INFINITE = frozenset({"inf", "infinity"})  # signed ones begin as numbers do


def _tolerant_text(value: str) -> bytes:
    """What a text means after a trip through CSV: null, a number, a moment, or a folded text."""
    text = unicodedata.normalize("NFC", value).strip()
    folded = text.casefold()
    if folded in _NULLS:
        return _NULL_CELL
    if folded in _INFINITE:
        return _number_cell(float(text))
    if text[:1] in "+-.0123456789" and len(text) <= 40 and "_" not in text:
        for read in (_number_text, _moment_text, _time_text):
            try:
                return read(text)
            except (ValueError, OverflowError):
                continue
    return _hashed(b"s", folded.encode())


def _number_text(text: str) -> bytes:
    return _number_cell(float(text))


def _number_cell(value: float) -> bytes:
    return _number_cells(np.array([value])).tobytes()


def _time_text(text: str) -> bytes:
    """A time of day with its seconds, as `_instants` gives it."""
    if text.count(":") != 2:
        raise ValueError
    clock = time.fromisoformat(text)
    seconds = clock.hour * 3600 + clock.minute * 60 + clock.second
    return b"c" + seconds.to_bytes(8, "little") + (clock.microsecond * 1000).to_bytes(8, "little")


def _moment_text(text: str) -> bytes:
    if len(text) < 10:
        raise ValueError
    moment = datetime.fromisoformat(text)
    delta = moment.replace(tzinfo=moment.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    micros = delta.days * 86_400_000_000 + delta.seconds * 1_000_000 + delta.microseconds
    return b"t" + micros.to_bytes(8, "little", signed=True) + bytes(8)


def _number_cells(values: npt.NDArray[np.float64]) -> Cells:
    """Numbers by what tools keep of them: 12 significant decimal digits, and -0 is 0.

    Parsers differ in the last bits. Rounding in decimal keeps its boundaries away from the short
    decimals that data mostly are; rounding in binary would have one near every eight-thousandth.
    Whole numbers are exact up to 2^53. A fraction that a 32-bit float holds is taken for one and
    read by its shortest text (0.1, not 0.10000000149), which is what a CSV of it holds.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        size = np.abs(values)
        whole = (values == np.trunc(values)) & (size < 2**53)
        if not whole.all():
            values = _as_narrow(values, size, whole)
            size = np.abs(values)
        usual = (size >= _TINY) & np.isfinite(values)
        exponent = np.floor(np.log10(np.where(usual, size, 1.0)))
        powers = _POWERS[(300 + DIGITS - 1 - exponent).astype(np.intp)]
        digits = np.where(usual, np.rint(values * powers), 0.0)
        if (carried := np.abs(digits) >= 10.0**DIGITS).any():  # 9.9999999999999 is 10
            digits, exponent = np.where(carried, digits / 10, digits), exponent + carried
        if (long := whole & (size >= 10.0**DIGITS)).any():
            digits, exponent = np.where(long, values, digits), np.where(long, LONG, exponent)
        if (infinite := np.isinf(values)).any():
            digits = np.where(infinite, np.sign(values), digits)
            exponent = np.where(infinite, 2_000, exponent)
    cells = _cells(b"f", digits.astype(np.int64), exponent.astype(np.int64))
    if (missing := np.isnan(values)).any():
        cells[missing] = 0
    return cells


def _as_narrow(
    values: npt.NDArray[np.float64], size: npt.NDArray[np.float64], whole: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Fractions that a 32-bit float holds as the shortest text of one, the others as they are."""
    narrow = values.astype(np.float32)
    was_narrow = ~whole & (np.abs(narrow - values) <= 4 * np.spacing(size))
    if not was_narrow.any():
        return values
    texts = pa.array(narrow[was_narrow]).cast(pa.string())
    values = values.copy()
    values[was_narrow] = np.asarray(texts.cast(pa.float64()))
    return values


def tolerant_cells(array: pa.Array) -> Cells:
    """One cell per value that survives CSV, other dtypes and other tools."""
    array = _plain(array)
    kind = array.type
    t = pa.types
    if _text_type(kind):
        return _by_value(array, _tolerant_text)
    if t.is_boolean(kind):
        return _by_value(array, lambda v: _hashed(b"s", b"true" if v else b"false"))
    if t.is_float16(kind) or t.is_float32(kind):
        # The shortest text of a narrow float is what a CSV holds.
        array = array.cast(pa.float32()).cast(pa.string()).cast(pa.float64())
        kind = array.type
    if t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind):
        numbers = pc.cast(array, pa.float64(), safe=False).fill_null(math.nan)
        return _number_cells(np.asarray(numbers, dtype=np.float64))
    if t.is_date(kind):
        return _nulled(_cells(b"t", _days(array) * 86_400_000_000), array)
    if t.is_timestamp(kind):
        seconds, nanos = _instants(array)
        return _nulled(_cells(b"t", seconds * 1_000_000 + nanos // 1000), array)
    if t.is_time(kind):
        seconds, nanos = _instants(array)
        return _nulled(_cells(b"c", seconds, nanos // 1000 * 1000), array)
    if is_image(kind):
        return _images(array, _pixels)
    cells = exact_cells(array)
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_binary_view(kind):
        # An image without its struct is still the image; other bytes stay what they are.
        for i, value in enumerate(array):
            data = value.as_py()
            if data is not None and data.startswith(MAGIC):
                with contextlib.suppress(ValueError):
                    cells[i] = np.frombuffer(_hashed(b"p", pixels_of(data)), dtype=np.uint8)
    return cells
