"""Constraints hold in every row: by our own count, and by SDV's."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import safegen
import safegen.plugins
from safegen.backends.sdv.copula import CopulaModel
from safegen.backends.sdv.gaussian_copula import GaussianCopula, Options
from safegen.cli import main
from safegen.demo import place_data
from safegen.engines.blocks import sample_block
from safegen.errors import BackendError, SourceError, UsageError
from safegen.tables.codec import Codec
from safegen.tables.offered import offered
from safegen.tables.schema import infer_schema

pytest.importorskip("sdv", reason="SDV is not installed: pip install 'safegen[sdv]'")

N = 1_000


def options(*constraints: Any, **more: Any) -> Options:
    return Options.model_validate({"constraints": list(constraints), **more})


def codec_of(table: pa.Table, *constraints: Any, declared: Any = None, **more: Any) -> Codec:
    schema = infer_schema(table, declared)
    held = options(*constraints).constraints
    return Codec.fit(table, schema, seed=1, constraints=held, **more)


def fit(table: pa.Table, *constraints: Any, **more: Any) -> CopulaModel:
    return GaussianCopula().fit(
        {"t": table}, {"t": infer_schema(table)}, options(*constraints, **more), seed=7
    )


def sample(model: CopulaModel, rows: int = 5_000, **more: Any) -> pa.Table:
    found = model.sample(rows, **({"seed": 3, "block": 0} | more))["t"]
    found.validate(full=True)
    return found


def wild(codec: Codec, rows: int, seed: int) -> pa.Table:
    """Rows of features that no model should give: far out of range, any code."""
    rng = np.random.default_rng(seed)
    features: dict[str, np.ndarray] = {}
    for feature in codec.features:
        if feature.kind == "categorical":
            features[feature.name] = rng.integers(0, feature.levels, rows).astype(np.int32)
        else:
            size = rng.choice([1.0, 1e3, 1e9, 1e17], rows)
            features[feature.name] = rng.normal(0, 1, rows) * size
    found = codec.decode(features, first_row=0, seed=seed, rows=rows)
    found.validate(full=True)
    assert found.schema.equals(codec.arrow_schema)
    return found


def sdv_valid(spec: Mapping[str, Any], real: pa.Table, found: pa.Table) -> np.ndarray:
    """Which rows SDV itself calls valid."""
    import sdv.cag
    from sdv.metadata import Metadata

    names = [
        n
        for key, x in spec.items()
        if key.startswith(("column", "low", "mid", "high"))
        for n in (x if isinstance(x, list) else [x])
    ]
    combined = spec["type"] in ("FixedCombinations", "OneHotEncoding")
    timed = pa.types.is_temporal(real.schema.field(names[0]).type)
    sdtype = "categorical" if combined else "datetime" if timed else "numerical"
    columns = {name: {"sdtype": sdtype} for name in names}
    metadata = Metadata.load_from_dict(
        {"METADATA_SPEC_VERSION": "V1", "tables": {"t": {"columns": columns}}, "relationships": []}
    )
    parameters = {key: x for key, x in spec.items() if key != "type"}
    oracle = getattr(sdv.cag, spec["type"])(**parameters)
    frame = {"t": found.select(names).to_pandas(date_as_object=False)}
    oracle.fit({"t": real.select(names).to_pandas(date_as_object=False)}, metadata)
    valid = oracle.is_valid(frame, metadata)["t"]
    return np.asarray(valid, dtype=bool)


def less(table: pa.Table, low: str, high: str, strict: bool = False) -> bool:
    compare = pc.less if strict else pc.less_equal
    found = [table.column(n) for n in (low, high)]
    if pa.types.is_floating(found[0].type) or pa.types.is_floating(found[1].type):
        found = [c.cast(pa.float64()) for c in found]
        found = [pc.if_else(pc.is_nan(c), None, c) for c in found]
    return bool(pc.all(compare(*found)).as_py() in (True, None))


@pytest.fixture(scope="module")
def adult(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    path, what = place_data(tmp_path_factory.mktemp("adult"))
    assert what.startswith("Adult"), "the Adult wheel is missing: make install"
    table = pq.read_table(path).replace_schema_metadata(None).slice(0, 6_000)
    return table.select(["age", "education", "educational-num", "gender", "income"])


EDUCATION = {"type": "FixedCombinations", "column_names": ["education", "educational-num"]}


class TestAdult:
    def test_education_agrees_with_its_number_and_does_not_without_the_constraint(
        self, adult: pa.Table
    ) -> None:
        held, free = sample(fit(adult, EDUCATION)), sample(fit(adult))
        assert sdv_valid(EDUCATION, adult, held).all()
        assert sdv_valid(EDUCATION, adult, free).mean() < 0.7
        assert held.schema.equals(adult.schema)
        for name in ("education", "educational-num"):
            wanted = adult.column(name).to_pandas().value_counts(normalize=True)
            got = held.column(name).to_pandas().value_counts(normalize=True)
            assert wanted.sub(got, fill_value=0).abs().max() < 0.02

    def test_blocks_prefixes_and_a_saved_model(self, adult: pa.Table, tmp_path: Path) -> None:
        model = fit(adult, EDUCATION)
        model.save(tmp_path / "m")
        text = (tmp_path / "m" / "model.json").read_text()
        assert "education#educational-num" in text
        again = GaussianCopula().load(tmp_path / "m")
        whole = sample(model, 3_000, block=2)
        assert sample(again, 3_000, block=2).equals(whole)
        assert sample(model, 700, block=2).equals(whole.slice(0, 700))
        assert not sample(model, 3_000, block=1).equals(whole)
        broken = text.replace('"stage": "combinations"', '"stage": "combination"')
        assert broken != text
        (tmp_path / "m" / "model.json").write_text(broken)
        with pytest.raises(BackendError):
            GaussianCopula().load(tmp_path / "m")

    def test_a_condition_on_a_held_column_is_met_exactly(self, adult: pa.Table) -> None:
        model = fit(adult, EDUCATION)
        found = sample(model, 400, conditions={"education": "Bachelors"})
        assert set(found.column("education").to_pylist()) == {"Bachelors"}
        assert set(found.column("educational-num").to_pylist()) == {13}
        with pytest.raises(UsageError, match="education"):
            sample(model, 10, conditions={"education": "Bachelors", "educational-num": 9})
        with pytest.raises(UsageError, match="education"):
            sample(model, 10, conditions={"education": "None at all"})

    def test_through_the_command_line_and_into_the_manifest(
        self, adult: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pq.write_table(adult, tmp_path / "a.parquet")
        ledger = str(tmp_path / "ledger.db")
        arguments = [
            "generate", str(tmp_path / "a.parquet"), "--rows", "500", "--policy", "lab",
            "--out", str(tmp_path / "out"), "--ledger", ledger,
            "--set", f"constraints={json.dumps([EDUCATION])}",
        ]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert not end.value.code, capsys.readouterr().err
        ds = safegen.open(tmp_path / "out", policy="lab", ledger=ledger)
        held = ds.manifest.generator.options["constraints"]
        assert held == [EDUCATION | {"table_name": None}]
        assert sdv_valid(EDUCATION, adult, ds.to_arrow()).all()


def trips(rows: int = N, seed: int = 5) -> pa.Table:
    """Three times in a row, each missing in some rows; a price and its discount; a step."""
    rng = np.random.default_rng(seed)
    start = rng.integers(0, 1_000, rows)
    middle = start + rng.integers(1, 50, rows)
    end = middle + rng.integers(1, 400, rows)

    def gaps(share: float) -> np.ndarray:
        return rng.random(rows) < share

    price = np.round(rng.lognormal(3, 1, rows), 2)
    return pa.table(
        {
            "start": pa.array(start, pa.int32(), mask=gaps(0.1)),
            "middle": pa.array(middle, pa.int64(), mask=gaps(0.2)),
            "end": pa.array(end, pa.int64(), mask=gaps(0.3)),
            "discount": np.round(price * rng.random(rows), 2),
            "price": price,
            "step": pa.array(rng.integers(-5, 90, rows) * 25, pa.int16(), mask=gaps(0.1)),
            "half": rng.integers(0, 50, rows) * 500.0,
            "country": pa.array(rng.choice(["a", "b", None], rows)),
        }
    )


INEQUALITY = {"type": "Inequality", "low_column_name": "discount", "high_column_name": "price"}
RANGE = {
    "type": "Range",
    "low_column_name": "start",
    "middle_column_name": "middle",
    "high_column_name": "end",
}
STEP = {"type": "FixedIncrements", "column_name": "step", "increment_value": 25}
HALF = {"type": "FixedIncrements", "column_name": "half", "increment_value": 500}
ALL = (INEQUALITY, RANGE, STEP, HALF)


class TestNumbers:
    @pytest.mark.parametrize("spec", ALL, ids=lambda s: s["type"])
    def test_rows_of_the_copula_are_valid_by_sdv(self, spec: dict[str, Any]) -> None:
        real = trips()
        found = sample(fit(real, *ALL))
        assert found.schema.equals(real.schema)
        assert sdv_valid(spec, real, found).all()
        for name in real.column_names:
            wanted, got = (t.column(name).null_count / len(t) for t in (real, found))
            assert abs(wanted - got) < 0.06, name

    def test_without_constraints_the_copula_violates_the_inequality_and_the_range(self) -> None:
        real = trips()
        found = sample(fit(real))
        assert not sdv_valid(INEQUALITY, real, found).all()
        assert not sdv_valid(RANGE, real, found).all()
        for specs in ((), (HALF,)):
            found = sample(fit(real, *specs, default_distribution="norm"))
            assert sdv_valid(HALF, real, found).all() == bool(specs)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32), strict=st.booleans(), clip=st.booleans())
    def test_no_features_whatever_break_them(self, seed: int, strict: bool, clip: bool) -> None:
        real = trips(300)
        specs = [{**INEQUALITY}, {**RANGE, "strict_boundaries": strict}, STEP, HALF]
        codec = codec_of(real, *specs, rounding=clip, clip=clip)
        found = wild(codec, 2_000, seed)
        for spec in specs:
            assert sdv_valid(spec, real, found).all(), spec
        for name in ("start", "middle", "end", "discount", "price", "step", "half"):
            wanted, got = (pc.min_max(t.column(name)).as_py() for t in (real, found))
            assert wanted["min"] <= got["min"], name
            assert wanted["max"] >= got["max"], name

    def test_what_goes_in_comes_out(self) -> None:
        real = trips()
        codec = codec_of(real, *ALL)
        features = codec.encode(real, seed=2)
        assert codec.decode(features, first_row=0, seed=2).equals(real)
        again = Codec.from_json(json.loads(json.dumps(codec.to_json())))
        assert again.decode(features, first_row=0, seed=2).equals(real)
        assert again.encode(real, seed=2).keys() == features.keys()

    def test_conditions_on_either_side(self) -> None:
        model = replace(fit(trips(), *ALL), block_rows=8_192)
        assert set(sample(model, 200, conditions={"start": 40})["start"].to_pylist()) == {40}
        rejected = sample(model, 50, conditions={"end": 500})
        assert set(rejected["end"].to_pylist()) == {500}
        assert rejected.slice(0, 20).equals(sample(model, 20, conditions={"end": 500}))
        both = sample(model, 20, conditions={"country": "a", "end": None, "step": 50})
        assert (
            both.select(["country", "end", "step"]).to_pylist()
            == [{"country": "a", "end": None, "step": 50}] * 20
        )
        with pytest.raises(UsageError, match="step"):
            sample(model, 10, conditions={"step": 51})
        with pytest.raises(BackendError, match="of 8,000 rows"):
            sample(model, 8_000, conditions={"end": 500})


DAY = datetime.timedelta(days=1)


def pairs(kind: str, least: int, rows: int = 400) -> pa.Table:
    """A low and a high column of one odd type or of two; the high one missing at times."""
    rng = np.random.default_rng(9)
    low = rng.integers(0, 4_000, rows)
    high = low + least + rng.integers(0, 90, rows)
    gap = rng.random(rows) < 0.1
    plain = pa.array(low), pa.array(high, mask=gap)
    if kind == "date32 and timestamp[ns, tz-less]":
        return pa.table(
            {
                "low": plain[0].cast(pa.int32()).cast(pa.date32()),
                "high": pc.multiply(plain[1], 86_400 * 10**9).cast(pa.timestamp("ns")),
            }
        )
    if kind == "timestamp[s] and date64":
        return pa.table(
            {
                "low": pc.multiply(plain[0], 86_400).cast(pa.timestamp("s")),
                "high": plain[1].cast(pa.int32()).cast(pa.date32()).cast(pa.date64()),
            }
        )
    if kind == "two zones":
        steps = [pc.multiply(a, 3_600 * 10**6) for a in plain]
        return pa.table(
            {
                "low": steps[0].cast(pa.timestamp("us", "Europe/Berlin")),
                "high": steps[1].cast(pa.timestamp("us", "UTC")),
            }
        )
    if kind == "nanoseconds of centuries":
        scale = 2**63 // 4_200
        return pa.table(
            {
                n: pc.multiply(a, scale).cast(pa.timestamp("ns"))
                for n, a in zip(("low", "high"), plain, strict=True)
            }
        )
    if kind == "times of day":
        return pa.table(
            {
                "low": plain[0].cast(pa.int32()).cast(pa.time32("s")),
                "high": pc.multiply(plain[1], 10**9).cast(pa.time64("ns")),
            }
        )
    if kind == "durations":
        return pa.table(
            {
                "low": plain[0].cast(pa.duration("s")),
                "high": pc.multiply(plain[1], 1_000).cast(pa.duration("ms")),
            }
        )
    if kind == "decimals":
        words = [None if x is None else decimal.Decimal(x) / 100 for x in plain[1].to_pylist()]
        return pa.table(
            {
                "low": pa.array(
                    [decimal.Decimal(int(x)) / 1_000 for x in low], pa.decimal128(9, 3)
                ),
                "high": pa.array(words, pa.decimal128(8, 2)),
            }
        )
    if kind == "int8 and uint64":
        return pa.table(
            {
                "low": pa.array(low % 100, pa.int8()),
                "high": pa.array(low % 100 + high, pa.uint64(), mask=gap),
            }
        )
    if kind == "float64 and float32 with other decimals":
        return pa.table(
            {"low": low / 1_000, "high": pa.array(np.where(gap, np.nan, high / 100), pa.float32())}
        )
    if kind == "floats without decimals":
        noise = rng.normal(0, 1, rows)
        return pa.table({"low": noise, "high": noise + rng.exponential(1e-9, rows) + 1e-12})
    if kind == "float16":
        return pa.table(
            {
                n: pa.array(np.asarray(x, np.float16))
                for n, x in (("low", low / 8), ("high", low / 8 + 60))
            }
        )
    if kind == "float and int":
        return pa.table({"low": low / 10, "high": pa.array(high, pa.int32(), mask=gap)})
    assert kind == "levels"
    return pa.table({"low": low % 3, "high": pa.array(low % 3 + least + high % 2, mask=gap)})


KINDS = (
    "date32 and timestamp[ns, tz-less]",
    "timestamp[s] and date64",
    "two zones",
    "nanoseconds of centuries",
    "times of day",
    "durations",
    "decimals",
    "int8 and uint64",
    "float64 and float32 with other decimals",
    "floats without decimals",
    "float16",
    "float and int",
    "levels",
)
SDV_COMPARES = (
    "int8 and uint64",
    "float64 and float32 with other decimals",
    "float and int",
    "floats without decimals",
    "levels",
    "nanoseconds of centuries",
    "two zones",
)


class TestTypes:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("strict", [False, True])
    def test_every_type_keeps_its_order(self, kind: str, strict: bool) -> None:
        real = pairs(kind, least=int(strict))
        spec = {
            "type": "Inequality",
            "low_column_name": "low",
            "high_column_name": "high",
            "strict_boundaries": strict,
        }
        codec = codec_of(real, spec)
        back = codec.decode(codec.encode(real, seed=1), first_row=0, seed=1)
        if kind == "floats without decimals":
            np.testing.assert_allclose(back["high"], real["high"], rtol=1e-15)
        elif kind != "nanoseconds of centuries":  # a few ns, as any such column
            assert back.to_pandas().equals(real.to_pandas())
        for found in (back, wild(codec, 3_000, 4), sample(fit(real, spec), 1_000)):
            assert found.schema.equals(real.schema)
            if kind in SDV_COMPARES:
                assert sdv_valid(spec, real, found).all()
            else:
                wide = found.schema.field("high").type
                wide = {
                    "decimals": pa.decimal128(20, 3),
                    "timestamp[s] and date64": pa.timestamp("ms"),
                    "float16": pa.float64(),
                }.get(kind, wide)
                found = pa.table({n: found[n].cast(wide) for n in ("low", "high")})
                assert less(found, "low", "high", strict)
        missing = wild(codec, 3_000, 4).column("high").to_pandas().isna().any()
        assert missing == real.column("high").to_pandas().isna().any()

    def test_a_value_that_nothing_can_lie_above_leaves_the_other_missing(self) -> None:
        """A contract that starts after the last known end has none, in the source and here."""
        start = pa.array(np.arange(1_000))
        end = pa.array(
            np.where(np.arange(1_000) < 500, np.arange(1_000) + 1, 0), mask=np.arange(1_000) >= 500
        )
        real = pa.table({"start": start, "end": end})
        spec = {"type": "Inequality", "low_column_name": "start", "high_column_name": "end"}
        found = sample(fit(real, spec), 5_000)
        assert less(found, "start", "end")
        late = found.filter(pc.greater(found["start"], 500))
        assert late["end"].null_count == len(late) > 1_000

    def test_combinations_of_any_types_with_nulls_and_unused_levels(self) -> None:
        rng = np.random.default_rng(2)
        at = rng.integers(0, 6, N)
        words = pa.DictionaryArray.from_arrays(
            pa.array(at % 3, pa.int8(), mask=at == 5),
            pa.array(["x", "y", "z", "never"]),
            ordered=True,
        )
        real = pa.table(
            {
                "word": words,
                "day": pa.array(at * 1_000, pa.int32()).cast(pa.date32()),
                "score": pa.array(np.where(at == 2, np.nan, at / 8), pa.float16()),
                "amount": pa.array([decimal.Decimal(int(x)) / 4 for x in at], pa.decimal128(7, 2)),
                "free": rng.normal(0, 1, N),
            }
        )
        spec = {"type": "FixedCombinations", "column_names": ["word", "day", "score", "amount"]}
        codec = codec_of(real, spec)
        back = codec.decode(codec.encode(real, seed=1), first_row=0, seed=1)
        assert back.schema.equals(real.schema)
        model = fit(real, spec)
        found = sample(model)
        assert found.schema.equals(real.schema)
        assert found.column("word").chunk(0).dictionary.to_pylist() == ["x", "y", "z", "never"]

        def seen(table: pa.Table) -> set[str]:
            return {repr(r) for r in table.drop_columns(["free"]).to_pylist()}

        assert seen(back) == seen(found) == seen(real)
        assert len(seen(real)) == 6
        got = sample(model, 60, conditions={"word": "x"})  # two combinations: by rejection
        assert set(got["word"].to_pylist()) == {"x"}
        assert len(seen(got)) == 2
        missing = sample(model, 60, conditions={"word": None, "free": 0.5})
        assert missing["day"].unique().to_pylist() == [datetime.date(1970, 1, 1) + 5_000 * DAY]

    @pytest.mark.parametrize("type_", [pa.bool_(), pa.int8(), pa.float64()], ids=str)
    def test_one_hot_codes_of_any_type(self, type_: pa.DataType) -> None:
        rng = np.random.default_rng(4)
        at = rng.choice(3, N, p=[0.6, 0.3, 0.1])
        real = pa.table(
            {f"is {i}": pa.array((at == i).astype(np.int8)).cast(type_) for i in range(3)}
            | {"x": at + rng.normal(0, 1, N)}
        )
        spec = {"type": "OneHotEncoding", "column_names": ["is 0", "is 1", "is 2"]}
        model = fit(real, spec)
        found = sample(model)
        assert found.schema.equals(real.schema)
        assert sdv_valid(spec, real, found).all()
        assert not sdv_valid(spec, real, sample(fit(real))).all()
        one = sample(model, 50, conditions={"is 2": True if type_ == pa.bool_() else 1})
        assert pc.sum(one["is 2"].cast(pa.int8())).as_py() == 50


class TestRefused:
    @pytest.mark.parametrize(
        ("spec", "count"),
        [
            (INEQUALITY, 3),
            (RANGE, 3),
            (STEP, 3),
            ({"type": "OneHotEncoding", "column_names": ["yes", "no"]}, 3),
        ],
        ids=lambda x: x["type"] if isinstance(x, dict) else "",
    )
    def test_rows_of_the_source_that_violate_one(self, spec: dict[str, Any], count: int) -> None:
        frame = trips(200).to_pandas().assign(yes=1, no=0)
        good = pa.Table.from_pandas(frame, preserve_index=False)
        codec_of(good, spec)
        at = frame.index[frame[["start", "middle", "end", "step"]].notna().all(axis=1)][:count]
        frame.loc[at, ["discount", "start", "step", "no"]] = [1e6, 1e6, 26, 1]
        bad = pa.Table.from_pandas(frame, preserve_index=False)
        with pytest.raises(SourceError, match=rf"{count} row\(s\)") as refusal:
            codec_of(bad, spec)
        assert "1000000" not in str(refusal.value)
        assert any(repr(n) in str(refusal.value) for n in ("price", "start", "step", "yes"))

    @pytest.mark.parametrize(
        ("specs", "match"),
        [
            ([{**STEP, "column_name": "stepp"}], "did you mean 'step'"),
            ([{**STEP, "column_name": "key"}], "invented"),
            ([{**STEP, "column_name": "country"}], "numeric"),
            ([{**INEQUALITY, "high_column_name": "country"}], "categorical"),
            ([{**INEQUALITY, "high_column_name": "day"}], "not all numeric"),
            ([{**INEQUALITY, "high_column_name": "discount"}], "twice"),
            ([STEP, STEP], "several constraints"),
            ([STEP, {"type": "FixedCombinations", "column_names": ["step", "country"]}], "several"),
            ([INEQUALITY, {**INEQUALITY, "low_column_name": "price",
                           "high_column_name": "discount"}], "circle"),
            ([{**STEP, "table_name": "other"}], "names no table"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_held(self, specs: Sequence[Any], match: str) -> None:
        table = trips()
        table = table.append_column("key", pa.array([f"k{i}" for i in range(N)]))
        table = table.append_column("day", pa.array(range(N), pa.int32()).cast(pa.date32()))
        with pytest.raises(UsageError, match=match):
            fit(table, *specs)

    def test_combinations_that_would_be_the_rows_themselves(self) -> None:
        real = trips(300)
        spec = {"type": "FixedCombinations", "column_names": ["discount", "price"]}
        with pytest.raises(SourceError, match="the rows themselves"):
            fit(real, spec)

    @pytest.mark.parametrize(
        ("given", "match"),
        [
            ([{"type": "ProgrammableConstraint"}], "Generator.wrap"),
            ([{"type": "Inequalty"}], "Inequality"),
            ([{**STEP, "increment_value": 0}], "greater than 0"),
            ([{**STEP, "increment_value": 2.5}], "multiple of 1"),
            ([{**STEP, "colum_name": "x"}], "colum_name"),
            ([{"type": "FixedCombinations", "column_names": ["a"]}], "at least 2"),
        ],
    )
    def test_options_that_cannot_be_meant(self, given: Any, match: str) -> None:
        with pytest.raises(UsageError, match=match):
            safegen.Generator("sdv.gaussian_copula", options={"constraints": given})


class TestChains:
    def test_a_chain_holds_in_whatever_order_it_is_written(self) -> None:
        real = trips()
        first = {"type": "Inequality", "low_column_name": "start", "high_column_name": "middle"}
        then = {"type": "Inequality", "low_column_name": "middle", "high_column_name": "end"}
        group = {"type": "FixedCombinations", "column_names": ["step", "country"]}
        half = {"type": "Inequality", "low_column_name": "half", "high_column_name": "cap"}
        real = real.append_column("cap", pc.add(real["half"], 3.25))
        for specs in ([first, then, group, half, HALF], [HALF, half, group, then, first]):
            found = wild(codec_of(real, *specs), 2_000, 6)
            for spec in specs:
                assert sdv_valid(spec, real, found).all()

    def test_a_column_above_two_others(self) -> None:
        real = trips()
        real = real.append_column("top", pc.add(pc.fill_null(real["end"], 2_000), 5))
        specs = [
            {"type": "Inequality", "low_column_name": n, "high_column_name": "top",
             "strict_boundaries": strict}
            for n, strict in (("start", False), ("end", True))
        ]  # fmt: skip
        found = wild(codec_of(real, *specs), 2_000, 8)
        for spec in specs:
            assert sdv_valid(spec, real, found).all()


class TestObjectsOfSdv:
    def test_they_are_converted_and_give_the_same_model(self) -> None:
        from sdv.cag import FixedCombinations, FixedIncrements, Inequality, OneHotEncoding, Range

        given = options(
            FixedCombinations(column_names=["a", "b"]),
            Inequality("low", "high", strict_boundaries=True),
            Range("low", "mid", "high", table_name="t"),
            FixedIncrements("step", 25),
            OneHotEncoding(["a", "b"], learning_strategy="categorical"),
        )
        written = json.loads(given.model_dump_json())["constraints"]
        assert options(*written) == given
        assert [w["type"] for w in written] == [
            "FixedCombinations", "Inequality", "Range", "FixedIncrements", "OneHotEncoding"
        ]  # fmt: skip
        assert written[1]["strict_boundaries"] is True
        assert written[2] == {
            "type": "Range", "table_name": "t", "low_column_name": "low",
            "middle_column_name": "mid", "high_column_name": "high", "strict_boundaries": True,
        }  # fmt: skip

    def test_code_is_refused_with_the_way_out(self) -> None:
        from sdv.cag import SingleTableProgrammableConstraint

        class Mine(SingleTableProgrammableConstraint):
            pass

        with pytest.raises(UsageError, match=r"Generator\.wrap"):
            safegen.Generator("sdv.gaussian_copula", options={"constraints": [Mine()]})


def test_a_distribution_for_a_held_column_is_refused_and_for_a_free_one_taken() -> None:
    real = trips()
    fit(real, INEQUALITY, numerical_distributions={"discount": "gamma"})
    with pytest.raises(UsageError, match="held by a constraint"):
        fit(real, INEQUALITY, numerical_distributions={"price": "gamma"})


def test_missing_values_come_back_as_they_were_written() -> None:
    """NaN stays NaN, null stays null; a high value without its low one keeps its own shape."""
    rng = np.random.default_rng(1)
    low = np.where(rng.random(N) < 0.3, np.nan, rng.normal(0, 1, N))
    high = np.where(np.isnan(low), 100.0, np.nan_to_num(low) + 1) + np.round(rng.random(N), 3)
    high[rng.random(N) < 0.2] = np.nan
    real = pa.table({"low": low, "high": high})
    spec = {"type": "Inequality", "low_column_name": "low", "high_column_name": "high"}
    found = sample(fit(real, spec))
    assert found["high"].null_count == found["low"].null_count == 0
    frame: pd.DataFrame = found.to_pandas()
    assert abs(frame["high"].isna().mean() - 0.2) < 0.03
    assert abs(frame["low"].isna().mean() - 0.3) < 0.03
    alone = frame.loc[frame["low"].isna(), "high"].dropna()
    assert alone.between(99, 102).all()
    assert (frame.dropna()["high"] < 10).all()


class TestOffered:
    def test_what_the_source_obeys_and_nothing_else(self, adult: pa.Table) -> None:
        gen = safegen.Generator(policy="lab")
        gen.prepare(adult)
        [found] = gen.offered()
        assert found.model_dump(exclude_none=True) == EDUCATION
        given = safegen.Generator(policy="lab", options={"constraints": [EDUCATION]})
        given.prepare(adult)
        assert given.offered() == []
        one_row_otherwise = adult.to_pandas()
        one_row_otherwise.loc[7, "educational-num"] += 1
        gen.prepare(one_row_otherwise)
        assert gen.offered() == []

    def test_dates_in_order_and_one_column_above_several(self) -> None:
        rng = np.random.default_rng(3)
        town = rng.integers(0, 12, N)
        start = rng.integers(0, 900, N)
        day = {"start": start, "end": start + rng.integers(0, 60, N), "other": start[::-1]}
        real = pa.table(
            {n: pa.array(x, pa.int32()).cast(pa.date32()) for n, x in day.items()}
            | {"town": pa.array(town).cast(pa.string()), "land": town // 3, "free": town[::-1] % 5}
            | {"flag": town > 5}
        )
        found = offered(real, infer_schema(real))
        assert [c.columns for c in found] == [("town", "land"), ("start", "end")]
        codec = codec_of(real, *found)
        assert codec.decode(codec.encode(real, seed=1), first_row=0, seed=1).equals(real)

    def test_the_command_line_says_how_to_keep_them(
        self, adult: pa.Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        pq.write_table(adult, tmp_path / "a.parquet")
        words = ["generate", str(tmp_path / "a.parquet"), "--rows", "9", "--dry-run"]
        option = f"constraints={json.dumps([EDUCATION])}"
        for more in ([], ["--set", option]):
            with pytest.raises(SystemExit):
                main([*words, "--policy", "lab", *more])
            assert (f"--set '{option}'" in capsys.readouterr().err) == (not more)


TINY = {
    "ctgan": {"epochs": 1, "batch_size": 100},
    "sdv.tvae": {"epochs": 1, "batch_size": 100},
    "diffusion.tabular": {"steps": 10, "width": 16, "layers": 1, "sampling_steps": 2},
}


HELD = [
    {"type": "FixedCombinations", "column_names": ["town", "land"]},
    {"type": "Inequality", "low_column_name": "start", "high_column_name": "end"},
]


@pytest.fixture(scope="module")
def ordered() -> pa.Table:
    rng = np.random.default_rng(5)
    start = rng.integers(0, 900, 400)
    town = rng.integers(0, 12, 400)
    return pa.table(
        {
            "start": pa.array(start, pa.int32()).cast(pa.date32()),
            "end": pa.array(start + rng.integers(0, 60, 400), pa.int32()).cast(pa.date32()),
            "town": pa.array(town).cast(pa.string()),
            "land": pa.array(town // 3).cast(pa.string()),
        }
    )


@pytest.fixture(scope="module", params=sorted(TINY))
def constrained(request: pytest.FixtureRequest, ordered: pa.Table) -> tuple[Any, Any, Any]:
    """A backend, and its models with and without constraints."""
    backend = safegen.plugins.load(safegen.plugins.BACKENDS, request.param)()
    models = [
        backend.fit(
            {"t": ordered},
            {"t": infer_schema(ordered)},
            backend.Options.model_validate({**TINY[request.param], "constraints": held}),
            seed=7,
        )
        for held in (HELD, [])
    ]
    return backend, *models


class TestOtherBackends:
    """Networks that have hardly been trained, whose rows would obey nothing by themselves."""

    @staticmethod
    def broken(real: pa.Table, found: pa.Table) -> tuple[int, int]:
        known = set(zip(*(real.column(c).to_pylist() for c in ("town", "land")), strict=True))
        pairs = zip(*(found.column(c).to_pylist() for c in ("town", "land")), strict=True)
        late = pc.sum(pc.greater(found.column("start"), found.column("end"))).as_py()
        return sum(pair not in known for pair in pairs), late

    def test_constraints_hold_and_do_not_without(
        self, constrained: tuple[Any, Any, Any], ordered: pa.Table
    ) -> None:
        _, held, free = constrained
        assert self.broken(ordered, sample(held, 500)) == (0, 0)
        assert min(self.broken(ordered, sample(free, 500))) > 0

    def test_conditions_on_what_a_constraint_ties_are_met(
        self, constrained: tuple[Any, Any, Any], ordered: pa.Table
    ) -> None:
        backend, held, _ = constrained
        for wanted in ({"land": "2"}, {"town": "7"}):
            found = sample_block(held, backend, 60, seed=3, block=0, conditions=wanted)["t"]
            [(column, value)] = wanted.items()
            assert found.column(column).to_pylist() == [value] * 60
            assert self.broken(ordered, found) == (0, 0)


class TestRelatedTables:
    @staticmethod
    def made(ordered: pa.Table, constraints: Any) -> pa.Table:
        from safegen.tables.relations import related

        owners = np.random.default_rng(2).integers(0, 150, ordered.num_rows)
        tables = {
            "owner": pa.table({"owner_id": np.arange(150), "age": np.arange(150) % 60}),
            "stay": ordered.append_column("owner_id", pa.array(owners)),
        }
        schemas = related(tables, {n: infer_schema(t) for n, t in tables.items()}, {})
        hma = safegen.plugins.load(safegen.plugins.BACKENDS, "sdv.hma")()
        options = hma.Options.model_validate({"constraints": constraints})
        model = hma.fit(tables, schemas, options, seed=7)
        found: pa.Table = model.sample(400, seed=1, block=0)["stay"]
        return found

    def test_they_hold_in_the_table_that_they_name_and_do_not_without(
        self, ordered: pa.Table
    ) -> None:
        broken = TestOtherBackends.broken
        held = self.made(ordered, [{**c, "table_name": "stay"} for c in HELD])
        assert held.num_rows > 500
        assert broken(ordered, held) == (0, 0)
        assert min(broken(ordered, self.made(ordered, []))) > 0

    def test_one_that_names_no_table_or_a_key_is_an_error(self, ordered: pa.Table) -> None:
        with pytest.raises(UsageError, match="needs a table_name"):
            self.made(ordered, HELD)
        keyed = {"type": "FixedCombinations", "column_names": ["owner_id", "land"]}
        with pytest.raises(UsageError, match="owner_id"):
            self.made(ordered, [{**keyed, "table_name": "stay"}])


class TestSequences:
    """`town` and `land` are constant within sequences, `start` and `end` change."""

    @staticmethod
    def table(ordered: pa.Table) -> pa.Table:
        first = pa.array(np.repeat(np.arange(100), 4))
        still = ordered.slice(0, 100).select(["town", "land"]).take(first)
        moving = ordered.select(["start", "end"])
        table = pa.table([*still.columns, *moving.columns], names=["town", "land", "start", "end"])
        table = table.append_column("day", pa.array(["mon", "tue"] * 200))
        return table.append_column("user", first).append_column("n", pa.array(range(400)))

    def made(self, ordered: pa.Table, constraints: Any, **more: Any) -> pa.Table:
        par = safegen.plugins.load(safegen.plugins.BACKENDS, "sdv.par")()
        options = par.Options.model_validate({"epochs": 1, "constraints": constraints, **more})
        roles = {"user": {"role": "sequence_key"}, "n": {"role": "sequence_index"}}
        table = self.table(ordered)
        model = par.fit({"t": table}, {"t": infer_schema(table, roles)}, options, seed=7)
        found: pa.Table = model.sample(150, seed=1, block=0)["t"]
        return found

    def test_they_hold_on_either_part_and_do_not_without(self, ordered: pa.Table) -> None:
        real, broken = self.table(ordered), TestOtherBackends.broken
        assert broken(real, self.made(ordered, HELD)) == (0, 0)
        assert min(broken(real, self.made(ordered, []))) > 0

    def test_one_across_both_parts_is_refused_with_the_way_out(self, ordered: pa.Table) -> None:
        mixed = {"type": "FixedCombinations", "column_names": ["town", "day"]}
        with pytest.raises(UsageError, match="town is constant within each sequence and day"):
            self.made(ordered, [mixed])
        # The way that the message names: town is then said at every step.
        self.made(ordered, [mixed], context_columns=["land"])
        for name in ("user", "n"):
            with pytest.raises(UsageError, match=f"'{name}' is the sequence"):
                self.made(ordered, [{**mixed, "column_names": ["town", name]}])
        with pytest.raises(UsageError, match="no column 'dya'; did you mean 'day'"):
            self.made(ordered, [{**mixed, "column_names": ["town", "dya"]}])
        for name in ("#length", "#step", "nowhere"):
            with pytest.raises(UsageError, match=f"no column '{name}'"):
                self.made(ordered, [{**mixed, "column_names": ["day", name]}])
