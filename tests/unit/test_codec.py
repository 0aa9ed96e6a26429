"""The codec: what goes in comes back exactly, and what must not come back never does."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.codec import Codec
from safegen.tables.schema import infer_schema

N = 400
RNG = np.random.default_rng(5)


def fitted(values: Any, declared: dict[str, Any] | None = None, **options: Any) -> Codec:
    table = pa.table({"x": values})
    schema = infer_schema(table, {"x": declared} if declared else None)
    codec = Codec.fit(table, schema, seed=1, **options)
    return Codec.from_json(json.loads(json.dumps(codec.to_json(), allow_nan=False)))


def back(values: Any, declared: dict[str, Any] | None = None, **options: Any) -> pa.Table:
    codec, table = fitted(values, declared, **options), pa.table({"x": values})
    features = codec.encode(table, seed=2)
    for feature in codec.features:
        array = features[feature.name]
        assert array.dtype == (np.float64 if feature.kind == "numeric" else np.int32)
        if feature.kind == "numeric":
            assert np.isfinite(array).all()
        else:
            assert array.min() >= 0
            assert array.max() < feature.levels
    return codec.decode(features, first_row=0, seed=3, rows=table.num_rows)


def assert_exact(values: Any, declared: dict[str, Any] | None = None) -> None:
    table = pa.table({"x": values})
    table.validate(full=True)
    out = back(values, declared)
    out.validate(full=True)
    assert out.schema == table.schema
    assert out["x"].equals(table["x"])


def whole(type_: pa.DataType, many: bool = True) -> pa.Array:
    """Numbers over the range of the type (or few of them), with nulls."""
    bits = np.iinfo(type_.to_pandas_dtype())
    low, high = max(bits.min, -(2**53)), min(bits.max, 2**53)
    numbers = RNG.integers(low, high, N, endpoint=True) if many else RNG.integers(0, 5, N)
    return pa.array(numbers, mask=RNG.random(N) < 0.1).cast(type_)


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
INTEGERS += [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


class TestEveryTypeComesBack:
    @pytest.mark.parametrize("type_", INTEGERS, ids=str)
    @pytest.mark.parametrize("many", [True, False])
    def test_integers(self, type_: pa.DataType, many: bool) -> None:
        assert_exact(whole(type_, many))

    @pytest.mark.parametrize("start", [2**53, 2**62, -(2**63)])
    def test_integers_beyond_2_to_53_are_exact(self, start: int) -> None:
        assert_exact(pa.array([start + i * 3 for i in range(N)], pa.int64()))

    def test_uint64_beyond_2_to_63_is_exact(self) -> None:
        assert_exact(pa.array([2**64 - 1 - 7 * i for i in range(N)], pa.uint64()))
        assert_exact(pa.array([2**63 * (i % 2) for i in range(N)], pa.uint64()))
        assert_exact(pa.array([2**40 * i * i for i in range(N)], pa.uint64()))  # a common step

    def test_integers_that_float64_cannot_hold_are_refused_with_a_way_out(self) -> None:
        values = pa.array([i * (2**54 // 100 + 1) * 3 + i % 3 for i in range(N)], pa.int64())
        with pytest.raises(SourceError, match=r"'x' \(int64\) has 400 .*declare it role id"):
            fitted(values)
        assert_exact(values, {"kind": "categorical"})

    @pytest.mark.parametrize("type_", [pa.float16(), pa.float32(), pa.float64()], ids=str)
    @pytest.mark.parametrize("decimals", [0, 1, 2, None])
    def test_floats(self, type_: pa.DataType, decimals: int | None) -> None:
        numbers = RNG.normal(50, 20, N)
        numbers = numbers if decimals is None else np.round(numbers, decimals)
        assert_exact(pa.array(numbers.astype(type_.to_pandas_dtype()), mask=RNG.random(N) < 0.1))

    @pytest.mark.parametrize("size", [1e-300, 1e-320, 1e-160, 1e160, 1e307])
    def test_tiny_and_huge_floats(self, size: float) -> None:
        numbers = RNG.normal(0, 1, N) * size
        assert_exact(pa.array(numbers))
        table = pa.table({"x": numbers})
        encoded = fitted(numbers).encode(table, seed=1)["x"]
        assert 1e-200 < np.abs(encoded).max() < 1e200

    def test_nan_comes_back_as_nan_and_null_as_null(self) -> None:
        numbers = np.where(np.arange(N) % 5 == 0, np.nan, RNG.normal(0, 1, N))
        for values in (numbers, np.where(np.isnan(numbers), np.nan, np.sign(numbers))):
            out = back(values)["x"]
            assert out.null_count == 0
            np.testing.assert_array_equal(out.to_numpy(), values)
            assert_exact(pa.array(values, from_pandas=True))

    @pytest.mark.parametrize(
        "type_",
        [pa.decimal128(9, 2), pa.decimal128(38, 18), pa.decimal256(70, 18), pa.decimal64(12, 3)],
        ids=str,
    )
    def test_decimals(self, type_: pa.DataType) -> None:
        numbers = [decimal.Decimal(int(i)) / 100 for i in RNG.integers(-(10**6), 10**6, N)]
        assert_exact(pa.array([*numbers, None], type_))

    def test_decimals_beyond_64_bits_are_refused(self) -> None:
        numbers = [decimal.Decimal(10**30 + i * 7) for i in range(N)]
        with pytest.raises(SourceError, match="declare it role id"):
            fitted(pa.array(numbers, pa.decimal128(38, 0)))

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    @pytest.mark.parametrize("zone", [None, "UTC", "Europe/Vienna"])
    def test_timestamps_of_every_unit(self, unit: str, zone: str | None) -> None:
        seconds = RNG.integers(-(10**9), 2 * 10**9, N)
        times = pa.array(seconds).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
        assert_exact(
            pa.concat_arrays(
                [times.cast(pa.timestamp(unit, zone)), pa.nulls(20, pa.timestamp(unit, zone))]
            )
        )

    def test_nanoseconds_over_years_lose_a_few_nanoseconds_at_most(self) -> None:
        stamps = RNG.integers(10**18, 16 * 10**17, N)
        out = back(pa.array(stamps).cast(pa.timestamp("ns")))["x"].cast(pa.int64()).to_numpy()
        assert np.abs(out - stamps).max() < 128

    @pytest.mark.parametrize(
        "type_",
        [pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns")],
        ids=str,
    )
    def test_times(self, type_: pa.DataType) -> None:
        seconds = pa.array(RNG.integers(0, 86_400, N).astype(np.int32), mask=RNG.random(N) < 0.1)
        assert_exact(seconds.cast(pa.time32("s")).cast(type_))

    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_durations(self, unit: str) -> None:
        assert_exact(pa.array(RNG.integers(0, 10**12, N)).cast(pa.duration(unit)))

    @pytest.mark.parametrize("type_", [pa.date32(), pa.date64()], ids=str)
    def test_dates(self, type_: pa.DataType) -> None:
        days = pa.array(RNG.integers(-40_000, 20_000, N).astype(np.int32)).cast(pa.date32())
        assert_exact(days.cast(type_))

    @pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
    def test_strings(self, type_: pa.DataType) -> None:
        words = ["ä", "", "b b", None, "same", "same"] * 50
        assert_exact(pa.array(words, type_))

    def test_bool_and_null(self) -> None:
        assert_exact(pa.array([True, False, None] * 50))
        assert_exact(pa.nulls(50))
        assert_exact(pa.nulls(50, pa.timestamp("ms")))
        assert_exact(pa.array([True] * 50))  # never varies: no feature
        assert fitted(pa.array([True] * 50)).features == ()

    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("index", [pa.int8(), pa.uint16(), pa.int64()], ids=str)
    @pytest.mark.parametrize(
        "words",
        [
            pa.array(["low", "mid", "high", "never"]),
            pa.array(["low", "mid", "high", "never"], pa.large_string()),
            pa.array(["low", "mid", "high", "never"], pa.string_view()),
            pa.array([3.5, 1.0, 2.0, 9.0]),
            pa.array([1, 2, 3, 4], pa.timestamp("us", "UTC")),
            pa.array([decimal.Decimal("1.10"), decimal.Decimal("0.5"), 7, 8], pa.decimal128(5, 2)),
        ],
        ids=lambda w: str(w.type),
    )
    def test_dictionaries(self, ordered: bool, index: pa.DataType, words: pa.Array) -> None:
        codes = pa.array([2, 0, None, 1, 0] * 20, index)
        values = pa.DictionaryArray.from_arrays(codes, words, ordered=ordered)
        assert_exact(values)
        out = back(values)["x"].chunk(0)
        assert out.dictionary.equals(words)  # order and the unused level kept
        assert fitted(values).features[0].levels == 4  # three used ones, and missing

    def test_chunks_with_different_dictionaries(self) -> None:
        chunks = [
            pa.array(["a", "b"] * 20).dictionary_encode(),
            pa.array(["c", "b"] * 20).dictionary_encode(),
        ]
        values = pa.chunked_array(chunks)
        assert back(values)["x"].to_pylist() == values.to_pylist()

    def test_nullability_is_kept_and_metadata_is_not(self) -> None:
        field = pa.field("x", pa.int32(), nullable=False, metadata={"secret": "1"})
        schema = pa.schema([field], metadata={"safegen": "a stamp of another dataset"})
        table = pa.table([pa.array(range(N), pa.int32())], schema=schema)
        codec = Codec.fit(table, infer_schema(table), seed=1)
        out = codec.decode(codec.encode(table, seed=1), first_row=0, seed=1)
        assert out.schema.equals(schema)
        assert out.schema.metadata is None
        assert out.schema.field("x").metadata is None


class TestNumbersAreSplitWell:
    def test_point_masses_and_nulls_become_states_in_value_order(self) -> None:
        body = RNG.normal(50, 5, 200)
        values = np.concatenate([np.zeros(100), body, np.full(60, 999.0), np.full(40, np.nan)])
        codec = fitted(pa.array(values, from_pandas=True))
        assert [(f.name, f.kind, f.levels) for f in codec.features] == [
            ("x#state", "categorical", 4),
            ("x", "numeric", 0),
        ]
        features = codec.encode(pa.table({"x": pa.array(values, from_pandas=True)}), seed=1)
        expected = np.concatenate([np.ones(100), np.full(200, 2), np.full(60, 3), np.zeros(40)])
        np.testing.assert_array_equal(features["x#state"], expected)
        assert set(features["x"]) <= set(body)  # others are drawn from the continuous part

    def test_few_numbers_are_levels_in_value_order(self) -> None:
        codec = fitted(pa.array([10, 2, 33, None] * 100))
        assert [(f.kind, f.levels) for f in codec.features] == [("categorical", 4)]
        codes = {"x": np.arange(4)}
        assert codec.decode(codes, first_row=0, seed=1)["x"].to_pylist() == [None, 2, 10, 33]

    def test_a_state_never_takes_a_users_name(self) -> None:
        table = pa.table({"x": [*range(N), None], "x#state": ["a", *["b"] * N]})
        names = [f.name for f in Codec.fit(table, infer_schema(table), seed=1).features]
        assert len(set(names)) == 3

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            (np.arange(0, 4000, 10), 20),  # multiples of ten
            (np.arange(N) / 4, 12.25),  # two decimals
            (np.arange(N), 12),
        ],
    )
    def test_rounding_is_learned(self, values: np.ndarray, expected: float) -> None:
        given = {"x": np.array([{20: 17.0, 12.25: 12.2491, 12: 12.3}[expected]])}
        assert fitted(values).decode(given, first_row=0, seed=1)["x"].to_pylist() == [expected]

    def test_rounding_can_be_left_out(self) -> None:
        raw = {"x": np.array([12.2491])}
        codec = fitted(np.arange(N) / 4, rounding=False)
        assert codec.decode(raw, first_row=0, seed=1)["x"].to_pylist() == [12.2491]
        days = pa.array(range(0, 10 * N, 10), pa.int32()).cast(pa.date32()).cast(pa.date64())
        out = fitted(days, rounding=False).decode({"x": np.array([1e9])}, first_row=0, seed=1)
        out.validate(full=True)  # still whole days

    @pytest.mark.parametrize(
        "type_",
        [
            pa.int8(),
            pa.uint64(),
            pa.date32(),
            pa.float32(),
            pa.time32("s"),
            pa.float64(),
            pa.decimal128(4, 1),
            pa.timestamp("ns"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("clip", [True, False])
    def test_clipping_to_the_source_or_to_the_type(self, type_: pa.DataType, clip: bool) -> None:
        values = pa.array(np.arange(1, 101, dtype=np.int32))
        if pa.types.is_decimal(type_):
            values = pa.array([decimal.Decimal(i) for i in range(1, 101)], type_)
        values = values.cast(pa.int64() if pa.types.is_timestamp(type_) else values.type).cast(
            type_
        )
        wild = {"x": np.array([-1e300, 1e300])}
        out = fitted(values, clip=clip).decode(wild, first_row=0, seed=1)
        out.validate(full=True)
        if clip:
            assert out["x"].equals(pa.chunked_array([values.take([0, 99])]))
        else:
            assert pc.all(pc.not_equal(out["x"], pa.chunked_array([values.take([0, 99])]))).as_py()

    def test_smooth_columns_stay_whole(self) -> None:
        values = np.concatenate([np.zeros(200), np.arange(200.0)])
        assert len(fitted(values).features) == 2
        assert [f.kind for f in fitted(values, smooth={"x"}).features] == ["numeric"]

    def test_without_masses_only_missing_values_and_few_numbers_are_split_off(self) -> None:
        values = np.concatenate([np.zeros(200), np.arange(200.0)])
        assert [f.kind for f in fitted(values, masses=False).features] == ["numeric"]
        holes = pa.array(values, mask=np.arange(400) % 7 == 0)
        codec = fitted(holes, masses=False)
        assert [(f.kind, f.levels) for f in codec.features] == [("categorical", 2), ("numeric", 0)]
        table = pa.table({"x": holes})
        assert codec.decode(codec.encode(table, seed=1), first_row=0, seed=1).equals(table)
        few = np.repeat(np.arange(5.0), 80)
        assert [f.kind for f in fitted(few, masses=False).features] == ["categorical"]


class TestIdsAndPersonalData:
    def test_integer_surrogates_are_above_every_real_id(self) -> None:
        codec = fitted(pa.array(range(1000, 1100), pa.int32()), {"role": "id"})
        out = codec.decode({}, first_row=7, seed=1, rows=3)
        assert out["x"].to_pylist() == [10_007, 10_008, 10_009]
        assert out.schema.field("x").type == pa.int32()

    @pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
    def test_text_surrogates_differ_from_every_real_id(self, type_: pa.DataType) -> None:
        real = pa.array(["syn-0000000000", "synx-1", *map(str, range(98))], type_)
        out = fitted(real, {"role": "key"}).decode({}, first_row=0, seed=1, rows=100)["x"]
        assert out.type == type_
        assert out[0].as_py() == "synxx-0000000000"
        assert not set(out.to_pylist()) & set(real.to_pylist())

    def test_uuid_surrogates(self) -> None:
        real = pa.array([bytes([i]) * 16 for i in range(100)], pa.uuid())
        codec = fitted(real)
        blocks = [
            codec.decode({}, first_row=i, seed=1, rows=100)["x"].to_pylist() for i in (0, 100)
        ]
        values = {v for block in blocks for v in block}
        assert len(values) == 200
        assert {v.version for v in values} == {8}
        assert not values & set(real.to_pylist())

    def test_float_and_dictionary_ids(self) -> None:
        out = fitted(pa.array([1.0, 2.0, None] * 30), {"role": "entity"})
        values = out.decode({}, first_row=0, seed=1, rows=1000)["x"]
        assert 200 < values.null_count < 460  # a third, as in the source
        words = pa.array([f"w{i}" for i in range(100)]).dictionary_encode()
        coded = fitted(words, {"role": "id"}).decode({}, first_row=0, seed=1, rows=300)["x"]
        assert coded.type == words.type
        assert not set(coded.to_pylist()) & set(words.to_pylist())

    def test_ids_without_room_are_refused(self) -> None:
        with pytest.raises(SourceError, match="no room for surrogates"):
            fitted(pa.array(range(100), pa.int8()), {"role": "id"})
        small = fitted(pa.array(range(100), pa.int16()), {"role": "id"})
        with pytest.raises(UsageError, match="ask for fewer"):
            small.decode({}, first_row=40_000, seed=1, rows=1)
        narrow = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 50, pa.int8()), ["a", "b"])
        with pytest.raises(SourceError, match="no room for new values"):
            fitted(narrow, {"role": "id"})

    def test_a_longer_request_extends_a_shorter_one(self) -> None:
        codec = fitted(pa.array([f"u{i}@x.org" for i in range(90)] + [None] * 30))
        long, short = (codec.decode({}, first_row=9, seed=1, rows=n) for n in (500, 90))
        assert long.slice(0, 90).equals(short)
        assert not codec.decode({}, first_row=9, seed=2, rows=90).equals(short)

    def test_mail_addresses_are_invented_and_unique(self) -> None:
        real = [f"u{i}@example.org" for i in range(100)]
        codec = fitted(pa.array(real))
        assert "u7@example" not in json.dumps(codec.to_json())
        out = codec.decode({}, first_row=0, seed=1, rows=5000)["x"].to_pylist()
        assert len(set(out)) == 5000
        assert all(value.count("@") == 1 for value in out)
        assert not set(out) & set(real)

    def test_a_provider_and_a_locale_can_be_chosen(self) -> None:
        values = pa.array(["a", "b"] * 60)
        out = fitted(values, {"role": "personal", "faker": "city"}, locales=["de_DE"])
        assert out.decode({}, first_row=0, seed=1, rows=10)["x"].null_count == 0
        with pytest.raises(UsageError, match="no provider 'citty'"):
            fitted(values, {"role": "personal", "faker": "citty"})
        with pytest.raises(UsageError, match="say which Faker provider"):
            fitted(values, {"role": "personal"})

    def test_a_real_value_is_not_invented_by_chance(self) -> None:
        from faker import Faker

        fake = Faker("en_US")
        real = sorted({fake.first_name_female() for _ in range(4000)})
        codec = fitted(pa.array(real * 3), {"role": "personal", "faker": "first_name"})
        out = codec.decode({}, first_row=0, seed=1, rows=2000)["x"].to_pylist()
        assert not set(out) & set(real)


class TestConditions:
    def test_levels_and_values(self) -> None:
        table = pa.table(
            {
                "age": pa.array([*range(18, 98)] * 5, pa.int16()),
                "gain": pa.array([0.0] * 300 + [1.5 + i for i in range(99)] + [None]),
                "sex": pa.array(["f", "m"] * 200),
                "day": pa.array(range(400), pa.int32()).cast(pa.date32()),
                "one": pa.array(["same"] * 400),
                "id": range(400),
            }
        )
        codec = Codec.fit(table, infer_schema(table), seed=1)
        assert (
            codec.condition("age", 40) == codec.condition("age", "40") == {"age": ("value", 40.0)}
        )
        assert codec.condition("age", 40.0) == {"age": ("value", 40.0)}
        assert codec.condition("sex", "m") == {"sex": ("level", 1)}
        assert codec.condition("gain", 0) == {"gain#state": ("level", 1)}
        assert codec.condition("gain", None) == {"gain#state": ("level", 0)}
        assert codec.condition("gain", 2.5) == {"gain#state": ("level", 2), "gain": ("value", 2.5)}
        assert codec.condition("day", "1970-01-03") == {"day": ("value", 2.0)}
        assert codec.condition("one", "same") == {}
        impossible: list[tuple[str, Any]] = [
            ("age", 17), ("age", 40.5), ("age", "forty"), ("age", None), ("age", True),
            ("sex", "x"), ("sex", 1), ("sex", None), ("gain", 2.25), ("day", "yesterday"),
            ("day", 3), ("one", "other"), ("id", 3),
        ]  # fmt: skip
        for column, value in impossible:
            with pytest.raises(UsageError) as caught:
                codec.condition(column, value)
            assert f"'{column}'" in str(caught.value)
            assert "forty" not in str(caught.value)
        with pytest.raises(UsageError, match="did you mean 'age'"):
            codec.condition("aeg", 1)


class TestStrict:
    def test_what_a_model_must_not_give(self) -> None:
        values = pa.array([*range(200), None])
        codec = fitted(values)
        good = codec.encode(pa.table({"x": values}), seed=1)
        bad: list[dict[str, np.ndarray]] = [
            {"x": good["x"]},
            {**good, "x": good["x"][:3]},
            {**good, "x": np.full(201, np.nan)},
            {**good, "x#state": good["x#state"] + 1},
            {**good, "x#state": good["x#state"].astype(float)},
        ]
        for features in bad:
            with pytest.raises(BackendError):
                codec.decode(features, first_row=0, seed=1)

    def test_other_rows(self) -> None:
        codec = fitted(pa.array(["a", "b"] * 20))
        with pytest.raises(SourceError, match=r"'x': 2 value\(s\) are not among"):
            codec.encode(pa.table({"x": ["a", "secret", None]}), seed=1)
        with pytest.raises(SourceError, match="not in the table"):
            codec.encode(pa.table({"y": ["a"]}), seed=1)
        with pytest.raises(SourceError, match="is int64, not string"):
            codec.encode(pa.table({"x": [1]}), seed=1)
        with pytest.raises(SourceError, match="missing, where none was"):
            fitted(pa.array(range(N))).encode(pa.table({"x": [1, None]}), seed=1)

    def test_documents(self) -> None:
        document = fitted(pa.array(range(N))).to_json()
        bad: list[dict[str, Any]] = [
            {},
            {**document, "format": "safegen.codec/9"},
            {**document, "columns": []},
            {**document, "columns": [{"codec": "pickle"}]},
            {**document, "arrow_schema": "AAAA"},
        ]
        for broken in bad:
            with pytest.raises(BackendError, match="fit it again"):
                Codec.from_json(broken)

    def test_the_same_seed_gives_the_same_codec(self) -> None:
        values = pa.array([f"u{i}@example.org" for i in range(90)])
        assert fitted(values).to_json() == fitted(values).to_json()


def _column(elements: st.SearchStrategy[Any], type_: pa.DataType) -> st.SearchStrategy[pa.Array]:
    column = st.lists(st.none() | elements, min_size=20, max_size=80)
    return column.map(lambda values: pa.array(values, type_))


_FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e140, max_value=1e140)
_CENTURIES = (datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1))
_COLUMNS = st.one_of(
    _column(st.integers(-(2**53), 2**53), pa.int64()),
    _column(st.integers(2**64 - 2**50, 2**64 - 1), pa.uint64()),
    _column(st.integers(-128, 127), pa.int8()),
    _column(_FINITE, pa.float64()),
    _column(st.floats(width=32, allow_nan=False, allow_infinity=False), pa.float32()),
    _column(st.floats(width=16, allow_nan=False, allow_infinity=False), pa.float16()),
    _column(st.booleans(), pa.bool_()),
    _column(st.text(max_size=3), pa.string()),
    _column(st.dates(), pa.date32()),
    _column(st.datetimes(*_CENTURIES), pa.timestamp("us")),
    _column(st.decimals(-9999, 9999, places=2), pa.decimal128(20, 4)),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=_COLUMNS)
def test_any_column_comes_back_exactly(values: pa.Array) -> None:
    kind = "categorical" if pa.types.is_string(values.type) else None
    assert_exact(values, {"kind": kind} if kind else None)
