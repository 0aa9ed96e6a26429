"""The two digests: what must not matter to them does not, and everything else does."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen.tables.batches import Batches
from safegen.tables.cells import exact_cells, tolerant_cells
from safegen.tables.digesting import table_digests
from safegen.tables.digests import SCHEME, LookupDigest, RowsDigest, combine
from safegen.tables.numbers import decoded, single
from safegen.tables.sources import read_source

KEY = b"k" * 32
FAST = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def logical(table: pa.Table, chunk: int | None = None) -> str:
    digest = RowsDigest(table.schema)
    for batch in table.to_batches(max_chunksize=chunk):
        digest.update(batch)
    return digest.value()


def lookup(table: pa.Table, key: bytes = KEY) -> str:
    digest = LookupDigest(table.schema, key)
    for batch in table.to_batches():
        digest.update(batch)
    return digest.value()


def looked_up(source: Any) -> str:
    _, found = table_digests(next(iter(read_source(source).tables.values())), [("k", KEY)])
    return found["k"].value()


CELLS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "unsigned": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "real": (pa.float64(), st.floats(allow_nan=False)),
    "word": (pa.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=6)),
    "truth": (pa.bool_(), st.booleans()),
    "moment": (
        pa.timestamp("us"),
        st.datetimes(dt.datetime(1800, 1, 1), dt.datetime(2200, 1, 1)),
    ),
    "day": (pa.date32(), st.dates()),
    "money": (
        pa.decimal128(38, 3),
        st.decimals(-(10**34), 10**34, places=3, allow_nan=False, allow_infinity=False),
    ),
    "raw": (pa.binary(), st.binary(max_size=4)),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    names = draw(st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=5, unique=True))
    rows = draw(st.integers(1, 12))
    columns = {}
    for name in names:
        type_, values = CELLS[name]
        cells = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[name] = pa.array(cells, type_)
    return pa.table(columns)


# ---- what does not matter to the logical digest --------------------------------------------------


@FAST
@given(tables(), st.randoms(use_true_random=False), st.integers(1, 5))
def test_order_of_rows_and_columns_and_chunks_do_not_matter(
    table: pa.Table, random: Any, chunk: int
) -> None:
    rows = list(range(table.num_rows))
    names = list(table.schema.names)
    random.shuffle(rows)
    random.shuffle(names)
    shuffled = table.take(pa.array(rows)).select(names)
    assert logical(shuffled, chunk) == logical(table)
    assert lookup(shuffled) == lookup(table)


@FAST
@given(tables(), st.integers(0, 12))
def test_digests_of_parts_merge_into_that_of_the_whole(table: pa.Table, cut: int) -> None:
    first, second = RowsDigest(table.schema), RowsDigest(table.schema)
    for digest, part in ((first, table.slice(0, cut)), (second, table.slice(cut))):
        for batch in part.to_batches():
            digest.update(batch)
    second.merge(first)
    assert second.value() == logical(table)
    assert second.rows == table.num_rows


@FAST
@given(tables())
def test_a_resave_as_parquet_or_arrow_does_not_matter(table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3, compression="gzip", use_dictionary=True)
    saved = pq.read_table(io.BytesIO(sink.getvalue()), read_dictionary=["word"])
    assert logical(saved) == logical(table)
    assert lookup(saved) == lookup(table)


@FAST
@given(st.lists(st.none() | st.integers(-100, 100), min_size=1), st.booleans())
def test_integer_width_does_not_matter(values: list[int | None], signed: bool) -> None:
    if not signed:
        values = [None if v is None else abs(v) for v in values]
    wide = logical(pa.table({"a": pa.array(values, pa.int64())}))
    for type_ in (pa.int8(), pa.int16(), pa.int32()) if signed else (pa.uint8(), pa.uint64()):
        assert logical(pa.table({"a": pa.array(values, type_)})) == wide


@FAST
@given(st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_string_layout_does_not_matter(values: list[str | None]) -> None:
    plain = pa.array(values, pa.string())
    wanted = exact_cells(plain)
    layouts: list[pa.Array] = [
        plain.cast(pa.large_string()),
        pa.array(values, pa.string_view()),
        plain.dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            plain.dictionary_encode().indices.cast(pa.uint32()),  # as polars has it
            plain.dictionary_encode().dictionary.cast(pa.large_string()),
        ),
    ]
    for array in layouts:
        assert np.array_equal(exact_cells(array), wanted), array.type
        assert np.array_equal(tolerant_cells(array), tolerant_cells(plain)), array.type


def test_a_dictionary_longer_than_its_slice_counts_the_slice_only() -> None:
    words = pa.array([f"w{i}" for i in range(1000)]).dictionary_encode()
    part = words.slice(990, 5)
    assert np.array_equal(exact_cells(part), exact_cells(part.dictionary_decode()))


def test_a_dictionary_may_hold_a_null_in_every_chunk() -> None:
    words = pa.array(["a", None, "c"])
    chunk = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None], pa.int8()), words)
    column = pa.chunked_array([chunk, chunk.take(pa.array([2, 1]))])
    expected = ["a", None, "c", None, "c", None]
    assert single(column).type == column.type
    assert single(column).to_pylist() == decoded(column).to_pylist() == expected


def test_each_chunk_may_have_its_own_dictionary() -> None:
    chunks = [
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int8()), pa.array(["x", "y"])),
        pa.DictionaryArray.from_arrays(pa.array([1, 0, 0], pa.int8()), pa.array(["x", "z"])),
    ]
    table = pa.table({"a": pa.chunked_array(chunks)})
    plain = pa.table({"a": ["x", "y", None, "z", "x", "x"]})
    assert logical(table) == logical(plain)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_units_of_time_do_not_matter(unit: str) -> None:
    seconds = [-1, 0, 1, None, -10_000_000_000 if unit != "ns" else -9_000_000_000]
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    ticks = [None if s is None else s * scale for s in seconds]
    for make in (pa.timestamp, pa.duration):
        given_ = exact_cells(pa.array(ticks, pa.int64()).view(make(unit)))
        assert np.array_equal(given_, exact_cells(pa.array(seconds, pa.int64()).view(make("s"))))


def test_times_dates_and_their_widths() -> None:
    clock = [dt.time(0, 0, 1), None, dt.time(23, 59, 59)]
    narrow = exact_cells(pa.array(clock, pa.time32("s")))
    for type_ in (pa.time32("ms"), pa.time64("us"), pa.time64("ns")):
        assert np.array_equal(exact_cells(pa.array(clock, type_)), narrow)
    days = [dt.date(1, 1, 1), dt.date(1969, 12, 31), None, dt.date(9999, 12, 31)]
    assert np.array_equal(
        exact_cells(pa.array(days, pa.date32())), exact_cells(pa.array(days, pa.date64()))
    )
    odd = pa.array([5, -5], pa.int64()).view(pa.date64())  # not at midnight, which Arrow allows
    assert np.array_equal(
        exact_cells(odd), exact_cells(pa.array([0, -1], pa.int32()).view(pa.date32()))
    )


def test_nanoseconds_before_1970_are_told_apart() -> None:
    array = pa.array([-2, -1, 0, 1], pa.int64()).view(pa.timestamp("ns"))
    assert len({bytes(c) for c in exact_cells(array)}) == 4


def test_zeros_nan_and_null() -> None:
    zeros = exact_cells(pa.array([0.0, -0.0]))
    assert bytes(zeros[0]) == bytes(zeros[1])
    nothing = exact_cells(pa.array([math.nan, None]))
    assert bytes(nothing[0]) == bytes(nothing[1]) == bytes(17)
    assert bytes(exact_cells(pa.nulls(1))[0]) == bytes(17)
    assert bytes(exact_cells(pa.array([math.inf]))[0]) != bytes(
        exact_cells(pa.array([-math.inf]))[0]
    )
    for type_ in (pa.string(), pa.int64(), pa.bool_(), pa.date32(), pa.time32("s"), pa.binary()):
        zero = pa.array([0], pa.int32()).view(type_) if type_ == pa.time32("s") else None
        assert bytes(exact_cells(pa.nulls(1, type_))[0]) == bytes(17)
        if zero is not None:
            assert bytes(exact_cells(zero)[0]) != bytes(17)


def test_large_numbers_are_told_apart() -> None:
    big = pa.array([2**63, 2**63 + 1, 2**64 - 1, 2**63 - 1, None], pa.uint64())
    signed = pa.array([-(2**63), -(2**63) + 1, -1, 2**63 - 1, 0], pa.int64())
    cells = [bytes(c) for c in (*exact_cells(big), *exact_cells(signed))]
    assert len(set(cells)) == 9  # 2^63 - 1 is the same number in both


@pytest.mark.parametrize("make", [pa.decimal128, pa.decimal256])
def test_every_digit_of_a_decimal_counts(make: Callable[[int, int], pa.DataType]) -> None:
    digits = "1234567890" * 3 + "12345678"  # 38 of them; Python's decimals round to 28
    values = [decimal.Decimal(digits), decimal.Decimal(digits) + 1]
    first, second = exact_cells(pa.array(values, make(38, 0)))
    assert bytes(first) != bytes(second)
    cents = [decimal.Decimal("1.50"), decimal.Decimal("-0.07"), None]
    narrow = exact_cells(pa.array(cents, make(20, 2)))
    assert np.array_equal(narrow, exact_cells(pa.array(cents, make(30, 9))))


@pytest.mark.parametrize("type_", [pa.decimal32(5, 2), pa.decimal64(9, 2)])
def test_narrow_decimals_are_decimals(type_: pa.DataType) -> None:
    cents = [decimal.Decimal("1.5"), None]
    assert np.array_equal(
        exact_cells(pa.array(cents, type_)), exact_cells(pa.array(cents, pa.decimal128(20, 5)))
    )


NESTED: list[pa.Array] = [
    pa.array([[1, 2], None, []]),
    pa.array([{"a": 1}, None, {"a": 2}]),
    pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    pa.array([b"a", None, b""], pa.binary_view()),
    pa.array([b"aa", None, b"bb"], pa.binary(2)),
    pa.array([b"a" * 16, None, b"b" * 16], pa.uuid()),
    pa.array([(1, 2, 3), None, (0, 0, 0)], pa.month_day_nano_interval()),
    pa.array([np.float16(1.5), None, np.float16(2.5)], pa.float16()),
    pa.array([1, None, 2], pa.duration("ns")),
    pa.array([5, None, 6]).dictionary_encode(),
    pa.array(["a", None, "b"], pa.string_view()),
]


@pytest.mark.parametrize("array", NESTED, ids=lambda a: str(a.type))
def test_types_of_every_kind_have_cells(array: pa.Array) -> None:
    for cells in (exact_cells, tolerant_cells):
        whole = cells(array)
        assert whole.shape == (3, 17)
        assert len({bytes(c) for c in whole}) == 3
        assert np.array_equal(cells(array.slice(1)), whole[1:])
        assert np.array_equal(cells(array.slice(0, 0)), whole[:0])


def test_run_ends_and_binary_views_are_layouts_too() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    assert np.array_equal(exact_cells(runs), exact_cells(pa.array(["a", "a", "b"])))
    views = pa.array([b"a", None], pa.binary_view())
    assert np.array_equal(exact_cells(views), exact_cells(pa.array([b"a", None], pa.binary())))


@FAST
@given(tables(), st.integers(0, 11), st.integers(0, 11))
def test_a_slice_is_what_it_holds(table: pa.Table, start: int, length: int) -> None:
    part = table.slice(start, length)
    copied = part.take(pa.array(range(part.num_rows), pa.int64()))
    assert logical(part) == logical(copied)
    assert lookup(part) == lookup(copied)


def test_empty_tables_differ_by_their_columns_only() -> None:
    empty = pa.table({"a": pa.array([], pa.int64())})
    assert logical(empty) == logical(pa.table({"a": pa.array([], pa.string())}))
    assert logical(empty) != logical(pa.table({"b": pa.array([], pa.int64())}))
    batch = pa.record_batch([pa.array([], pa.int64())], ["a"])
    for digest in (RowsDigest(batch.schema), LookupDigest(batch.schema, KEY)):
        before = digest.value()
        digest.update(batch)
        assert digest.value() == before


# ---- what matters --------------------------------------------------------------------------------


@FAST
@given(tables(), st.data())
def test_any_changed_cell_changes_the_digest(table: pa.Table, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(table.schema.names))
    row = data.draw(st.integers(0, table.num_rows - 1))
    type_, values = CELLS[name]
    cells = table.column(name).to_pylist()
    new = data.draw((st.none() | values).filter(lambda v: v != cells[row]))
    cells[row] = new
    index = table.schema.get_field_index(name)
    changed = table.set_column(index, name, pa.array(cells, type_))
    assert logical(changed) != logical(table)


@FAST
@given(tables(), st.integers(0, 11))
def test_a_dropped_or_doubled_row_or_a_renamed_column_changes_both(
    table: pa.Table, row: int
) -> None:
    row %= table.num_rows
    kept = [i for i in range(table.num_rows) if i != row]
    others = [
        table.take(pa.array(kept, pa.int64())),
        pa.concat_tables([table, table.slice(row, 1)]),
        table.rename_columns([*table.schema.names[:-1], "other"]),
    ]
    for other in others:
        assert logical(other) != logical(table)
        assert lookup(other) != lookup(table)


def test_types_that_mean_something_else_are_told_apart() -> None:
    cells = [
        exact_cells(array)[0]
        for array in (
            pa.array([1]),
            pa.array([1.0]),
            pa.array(["1"]),
            pa.array([True]),
            pa.array([decimal.Decimal(1)]),
            pa.array([b"1"]),
            pa.array([1], pa.int64()).view(pa.timestamp("s")),
            pa.array([1], pa.int64()).view(pa.timestamp("s", "UTC")),
            pa.array([1], pa.int64()).view(pa.duration("s")),
            pa.array([1], pa.int32()).view(pa.date32()),
            pa.array([1], pa.int32()).view(pa.time32("s")),
        )
    ]
    assert len({bytes(c) for c in cells}) == len(cells)


def test_cells_do_not_swap_between_columns_or_rows() -> None:
    table = pa.table({"a": [1, 2], "b": [3, 4]})
    assert logical(table) != logical(pa.table({"a": [3, 4], "b": [1, 2]}))
    assert logical(table) != logical(pa.table({"a": [1, 2], "b": [4, 3]}))


def test_doubling_a_row_many_times_does_not_wrap_around() -> None:
    """65,536 copies of a row are zero in every 16-bit lane; the count of rows tells."""
    one = pa.table({"a": [7]})
    many = pa.table({"a": np.full(65_537, 7)})
    assert logical(many) != logical(one)


def test_provenance_columns_are_not_content() -> None:
    table = pa.table({"a": [1, 2]})
    tagged = table.append_column("_safegen_origin", pa.array(["synthetic"] * 2))
    assert logical(tagged) == logical(table)
    assert lookup(tagged) == lookup(table)


def test_other_columns_do_not_merge() -> None:
    first, second = (
        RowsDigest(pa.schema({"a": pa.int64()})),
        RowsDigest(pa.schema({"b": pa.int64()})),
    )
    with pytest.raises(ValueError, match="columns"):
        first.merge(second)


def test_the_digest_is_the_one_that_was_published() -> None:
    """Manifests hold these digests for ever."""
    table = pa.table({"b": ["x", None, "é"], "a": [1, -2, None], "c": [0.5, math.nan, -0.0]})
    digest = RowsDigest(table.schema, PUBLISHED)
    digest.update(table.to_batches()[0])
    for scheme, hexadecimal in PUBLISHED.items():
        assert digest.value(scheme) == f"{scheme}:{hexadecimal}"
    assert logical(table) == digest.value(SCHEME)


PUBLISHED = {
    "safegen-rows-v1": "68d6d3ea4f33ef4d37753304b3d29890aa901740f60acc8d3b297ff9f854e06d",
    "safegen-rows-v2": "215608a18b7c3373f9ba2b7a6c0bc35a0e2fd13fd0a35aaa59cf84d99ab82078",
}


def test_combine_names_tables() -> None:
    assert combine({"t": "d"}) == "d"
    assert combine({"a": "1", "b": "2"}) == combine({"b": "2", "a": "1"})
    assert combine({"a": "1", "b": "2"}) != combine({"a": "2", "b": "1"})


def test_tallies_ride_along_with_every_batch() -> None:
    seen: list[int] = []
    rows, _ = table_digests(
        Batches.of(pa.table({"a": range(5)})), seen=[lambda b: seen.append(b.num_rows)]
    )
    assert (rows.rows, seen) == (5, [5])


# ---- what the lookup digest survives -------------------------------------------------------------


def mixed() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 200
    moments = pd.Timestamp("1969-12-30 23:59:59.123456") + pd.to_timedelta(
        rng.integers(0, 10**15, n), "us"
    )
    table = pd.DataFrame(
        {
            "whole": rng.integers(-(10**12), 10**12, n),
            # pandas' own reader of CSV drops digits of small numbers that are written in full.
            "real": rng.normal(0, 1, n) * 10.0 ** rng.integers(3, 12, n),
            "small": [float(f"{v:.7g}") for v in rng.normal(0, 1, n) * 1e-9],
            "narrow": rng.normal(0, 10, n).astype("float32"),
            "code": [f"{i:05d}" for i in range(n)],
            "word": rng.choice(["Zürich", "bern, BE", 'a "b"', "two\nlines", "None", "x"], n),
            "truth": rng.random(n) < 0.5,
            "moment": moments.astype("datetime64[us]"),
            "day": moments.date,
            "gap": np.where(rng.random(n) < 0.3, np.nan, rng.integers(0, 9, n)),
        }
    )
    table.loc[::7, "word"] = None
    return table


def _pandas_csv(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, index=False)


def _polars_csv(table: pd.DataFrame, path: Path) -> None:
    pl.from_pandas(table).write_csv(path)


def _arrow_csv(table: pd.DataFrame, path: Path) -> None:
    pcsv.write_csv(pa.Table.from_pandas(table, preserve_index=False), path)


def _duckdb_csv(table: pd.DataFrame, path: Path) -> None:
    duckdb.from_df(table).write_csv(str(path), header=True)


WRITERS = [_pandas_csv, _polars_csv, _arrow_csv, _duckdb_csv]
READERS: list[Callable[[Path], Any]] = [
    lambda p: p,  # ours
    pd.read_csv,
    lambda p: pd.read_csv(p, parse_dates=["moment", "day"], dtype={"whole": "float64"}),
    lambda p: pd.read_csv(p, dtype=str),
    pl.read_csv,
    lambda p: pl.read_csv(p, try_parse_dates=True),
    pcsv.read_csv,
    lambda p: duckdb.read_csv(str(p)).to_arrow_table(),
]


@pytest.mark.parametrize("write", WRITERS, ids=lambda f: f.__name__)
def test_the_lookup_digest_survives_csv(write: Callable[..., None], tmp_path: Path) -> None:
    table = mixed()
    wanted = looked_up(table)
    write(table, tmp_path / "x.csv")
    for i, read in enumerate(READERS):
        assert looked_up(read(tmp_path / "x.csv")) == wanted, i


def test_the_lookup_digest_survives_changes_of_type() -> None:
    table = mixed()
    wanted = looked_up(table)
    others = {
        "polars": pl.from_pandas(table),
        "lazy": pl.from_pandas(table).lazy(),
        "categories": table.astype({"word": "category"}),
        "polars categories": pl.from_pandas(table).with_columns(
            pl.col("word").cast(pl.Categorical)
        ),
        "strings": table.assign(code=[int(c) for c in table["code"]]),
        "nullable": table.convert_dtypes(),
        "arrow types": table.convert_dtypes(dtype_backend="pyarrow"),
        "upcast": table.astype({"narrow": "float64", "whole": "float64"}),
        "objects": table.astype({"truth": object}),
        "UTC": table.assign(moment=table["moment"].dt.tz_localize("UTC")),
        "ns": table.astype({"moment": "datetime64[ns]"}),
        "names": table.rename(columns={"whole": "Whole ", "code": "CODE"}),
        "order": table[sorted(table.columns, reverse=True)].sample(frac=1, random_state=0),
    }
    for name, other in others.items():
        assert looked_up(other) == wanted, name


def test_numbers_at_the_edges_of_what_is_kept() -> None:
    def told(*values: float | None) -> list[bytes]:
        return [bytes(c) for c in tolerant_cells(pa.array(values, pa.float64()))]

    assert len(set(told(1e15 + 1, 1e15 + 2, 1e15, 2.0**53 - 1))) == 4  # whole: every digit
    assert len(set(told(0.1234567890123, 0.1234567890124))) == 1  # a fraction: twelve
    assert len(set(told(9.9999999999999, 10.0))) == 1
    assert len(set(told(math.inf, -math.inf, 1e308, -1e308, 0.0, 1e-289))) == 6
    assert told(math.nan, None, 5.0)[:2] == [bytes(17)] * 2
    assert len(set(told(1e-300, 0.0, -0.0))) == 1


def test_the_lookup_digest_is_the_one_that_ledgers_hold() -> None:
    day, at = dt.date(2020, 2, 29), dt.datetime(2020, 2, 29, 1, 2, 3, 4)
    table = pa.table(
        {
            "Word": ["Zürich", None, "007"],
            "n": [1, -2, 2**53 + 1],
            "x": [0.1, 1e300, math.nan],
            "narrow": pa.array([0.1, 2.5, None], pa.float32()),
            "flag": [True, False, None],
            "day": [day, None, day],
            "at": [at, None, at],
            "clock": [at.time(), None, at.time()],
            "cent": [decimal.Decimal("1.50"), None, decimal.Decimal("-0.07")],
            "raw": [b"", None, b"a"],
            "kind": pa.array(["a", None, "b"]).dictionary_encode(),
            "list": [[1], None, []],
        }
    )
    held = "37004a6ac1edbbfb43dc2eb726f04fd2514914f22de38a0fb93c12179e41ab7c"
    assert lookup(table, b"0123456789abcdef" * 2) == held


def test_names_that_change_case_keep_their_columns() -> None:
    """Sorted by what they are called, "B" comes before "a"; folded it does not."""
    assert lookup(pa.table({"B": [1], "a": [2]})) == lookup(pa.table({"b": [1], "A": [2]}))
    assert lookup(pa.table({"B": [1], "a": [2]})) != lookup(pa.table({"b": [2], "A": [1]}))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([""]), pa.array([None], pa.string())),
        (pa.array(["007"]), pa.array([7])),
        (pa.array(["-inf"]), pa.array([-math.inf])),
        (pa.array(["inf"]), pa.array([math.inf])),
        (pa.array(["True"]), pa.array([True])),
        (pa.array(["2020-02-29"]), pa.array([dt.date(2020, 2, 29)])),
        (
            pa.array(["2020-02-29T01:02:03.000004"]),
            pa.array([dt.datetime(2020, 2, 29, 1, 2, 3, 4)]),
        ),
        (pa.array(["12:34:56"]), pa.array([dt.time(12, 34, 56)])),
        (pa.array(["12:34:56.000007"]), pa.array([dt.time(12, 34, 56, 7)], pa.time64("ns"))),
        (pa.array([decimal.Decimal("1.10")]), pa.array([1.1])),
        (pa.array([0.1], pa.float32()), pa.array([0.1])),
        (pa.array([0.10000000149011612]), pa.array([0.1], pa.float32())),
        (pa.array([-0.0]), pa.array([0])),
        (pa.array(["e\u0301"]), pa.array(["É"])),
        (pa.array([2**53 + 1]), pa.array([float(2**53)])),
        (pa.array([1.7976931348623157e308]), pa.array(["1.7976931348623157e308"])),
        (pa.array([5e-324]), pa.array(["5e-324"])),
    ],
)
def test_spellings_of_one_value(first: pa.Array, second: pa.Array) -> None:
    assert bytes(tolerant_cells(first)[0]) == bytes(tolerant_cells(second)[0])


@FAST
@given(st.text(max_size=45))
def test_any_text_has_a_cell(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    assert tolerant_cells(pa.array([text], pa.string())).shape == (1, 17)


@pytest.mark.parametrize(
    "text",
    ["9999-12-31T23:59:59+14:00", "0001-01-01 00:00:00-14:00", "1e999", "99:99:99", "+", "."],
)
def test_texts_at_the_edge_have_cells(text: str) -> None:
    assert tolerant_cells(pa.array([text])).shape == (1, 17)


def test_the_lookup_digest_needs_its_key_and_its_content() -> None:
    table = pa.Table.from_pandas(mixed(), preserve_index=False)
    wanted = lookup(table)
    assert lookup(table, b"other" * 8) != wanted
    for name in table.schema.names:
        changed = table.to_pandas()
        column = changed[name].tolist()
        column[0], column[1] = column[1], column[0]
        if column[0] == column[1]:
            continue
        changed[name] = column
        assert lookup(pa.Table.from_pandas(changed, preserve_index=False)) != wanted, name
