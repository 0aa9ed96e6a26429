"""The copula on real SDV: each trap of the library below, closed."""

from __future__ import annotations

import decimal
import logging
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from safegen.backends.sdv.adopted import Adopted, AdoptedModel
from safegen.backends.sdv.copula import CopulaModel
from safegen.backends.sdv.gaussian_copula import GaussianCopula, Options
from safegen.contracts import Backend, Model
from safegen.demo import place_data
from safegen.errors import BackendError, MissingExtra, SourceError, UsageError
from safegen.tables.schema import infer_schema

pytest.importorskip("sdv", reason="SDV is not installed: pip install 'safegen[sdv]'")

N = 2_000
SAMPLE = 20_000


def fit(
    table: pa.Table, declared: Mapping[str, Mapping[str, Any]] | None = None, **options: Any
) -> CopulaModel:
    schema = infer_schema(table, declared)
    return GaussianCopula().fit({"t": table}, {"t": schema}, Options(**options), seed=7)


def sample(model: Model, rows: int = SAMPLE, **arguments: Any) -> pa.Table:
    found = model.sample(rows, **({"seed": 1, "block": 0} | arguments))["t"]
    found.validate(full=True)
    return found


def shares(values: pa.ChunkedArray) -> dict[Any, float]:
    return values.to_pandas().value_counts(normalize=True, dropna=False).to_dict()


@pytest.fixture(scope="module")
def adult(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Adult as the demonstration finds it, under names without hyphens: its last 32,561 rows, in
    which its one person from the rarest country stands."""
    path, what = place_data(tmp_path_factory.mktemp("adult"))
    assert what.startswith("Adult"), "the Adult wheel is missing: make install"
    table = pq.read_table(path).replace_schema_metadata(None).slice(48_842 - 32_561)
    other = {"educational-num": "education_num", "gender": "sex"}
    return table.rename_columns([other.get(n, n.replace("-", "_")) for n in table.column_names])


@pytest.fixture(scope="module")
def adult_model(adult: pa.Table) -> CopulaModel:
    return fit(adult)


@pytest.fixture(scope="module")
def mixed() -> pa.Table:
    """A table with a bit of everything, and dependence."""
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1, N)
    return pa.table(
        {
            "x": np.round(x, 2),
            "y": pa.array(x + rng.normal(0, 0.5, N), mask=x > 1),
            "n": (50 + 10 * x + rng.normal(0, 5, N)).astype(np.int16),
            "level": np.array(["low", "mid", "high"])[
                np.digitize(x + rng.normal(0, 0.3, N), [-1, 1])
            ],
            "yes": x + rng.normal(0, 1, N) > 0,
            "when": pa.array((1.6e9 + 1e6 * x).astype(np.int64)).cast(pa.timestamp("s")),
            "id": np.arange(N),
        }
    )


@pytest.fixture(scope="module")
def mixed_model(mixed: pa.Table) -> CopulaModel:
    return fit(mixed)


def test_it_is_a_backend(mixed_model: CopulaModel) -> None:
    assert isinstance(GaussianCopula(), Backend)
    assert isinstance(mixed_model, Model)
    assert isinstance(Adopted(), Backend)


class TestTraps:
    @pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
    def test_dates_of_every_unit_are_right(self, unit: str) -> None:
        seconds = np.random.default_rng(1).integers(1_500_000_000, 1_600_000_000, N)
        times = pa.array(seconds).cast(pa.timestamp("s")).cast(pa.timestamp(unit))
        table = pa.table({"when": times, "x": seconds % 97})
        out = sample(fit(table), 2_000)["when"]
        assert out.type == times.type
        years = pc.year(out).to_pandas()
        assert years.between(2017, 2020).all()
        assert pc.year(times).to_pandas().mean() == pytest.approx(years.mean(), abs=0.1)

    @pytest.mark.parametrize("ordered", [True, False])
    def test_shares_and_levels_of_a_category_are_kept(self, ordered: bool) -> None:
        rng = np.random.default_rng(1)
        words = rng.choice(["b", "a", "c"], N, p=[0.7, 0.25, 0.05]).astype(object)
        words[rng.random(N) < 0.1] = None
        frame = pd.DataFrame(
            {
                "c": pd.Categorical(words, ["b", "a", "c", "never"], ordered=ordered),
                "x": rng.normal(0, 1, N),
            }
        )
        table = pa.Table.from_pandas(frame)
        out = sample(fit(table)).to_pandas()["c"]
        assert out.dtype == frame["c"].dtype
        real = frame["c"].value_counts(normalize=True, dropna=False)
        for level, share in real.items():
            got = out.isna().mean() if pd.isna(level) else (out == level).mean()
            assert got == pytest.approx(share, abs=0.015)
        assert "never" not in set(out)

    def test_half_floats_and_tiny_numbers_are_not_null(self) -> None:
        x = np.random.default_rng(1).normal(3, 1, N)
        table = pa.table({"half": x.astype(np.float16), "tiny": x * 1e-300, "huge": x * 1e300})
        out = sample(fit(table))
        assert out.schema.equals(table.schema)
        for name in table.column_names:
            real, got = (np.asarray(t[name], dtype=float) for t in (table, out))
            scale = {"half": 1.0, "tiny": 1e300, "huge": 1e-300}[name]
            assert (got * scale).mean() == pytest.approx((real * scale).mean(), abs=0.1)
            assert (got * scale).std() == pytest.approx((real * scale).std(), rel=0.1)

    def test_infinity_is_refused(self) -> None:
        with pytest.raises(SourceError, match="'x' has 1 infinite"):
            fit(pa.table({"x": [*range(50), float("inf")]}))

    def test_large_integers_are_exact(self) -> None:
        big = pa.array([2**63 + 2**40 + 3 * i for i in range(1_000)], pa.uint64())
        out = sample(fit(pa.table({"n": big})))["n"]
        assert pc.count_distinct(out).as_py() > 900
        assert pc.min(out).as_py() >= 2**63 + 2**40
        assert {(v - 2**40) % 3 for v in out.to_pylist()} == {(2**63) % 3}

    def test_types_that_sdv_cannot_take(self) -> None:
        rng = np.random.default_rng(1)
        days = pa.array(rng.integers(0, 9_999, N).astype(np.int32))
        table = pa.table(
            {
                "date": days.cast(pa.date32()),
                "time": days.cast(pa.time32("s")),
                "span": days.cast(pa.int64()).cast(pa.duration("ms")),
                "cash": pa.array([decimal.Decimal(int(i)) / 100 for i in days.to_numpy()]),
                "word": pa.array(["a", "b"] * (N // 2), pa.string_view()),
                "coded": pa.array(["a", "b"] * (N // 2)).dictionary_encode(),
                "none": pa.nulls(N),
            }
        )
        out = sample(fit(table), 1_000)
        assert out.schema.equals(table.schema)
        for name in ("date", "time", "span", "cash"):
            real, got = table[name].to_pylist(), out[name].to_pylist()
            assert min(real) <= min(got) <= max(got) <= max(real)
            assert len(set(got)) > 500

    def test_odd_column_names(self) -> None:
        names = ["1", " ", "c0", "x#state", "x", "é\n", "t.is_null"]
        columns = [np.random.default_rng(i).normal(0, 1, 50) for i in range(len(names))]
        table = pa.Table.from_arrays([pa.array(c) for c in columns], names=names)
        with pytest.raises(SourceError, match="no name"):
            fit(table)
        table = table.drop_columns([" "])
        assert sample(fit(table), 10).column_names == table.column_names

    def test_real_ids_are_never_given_out(self) -> None:
        rng = np.random.default_rng(1)
        patient = rng.integers(100_000, 103_000, N)
        table = pa.table({"patient": patient, "x": rng.normal(0, 1, N)})
        model = fit(table, {"patient": {"role": "entity"}})
        blocks = [sample(model, 500, block=i)["patient"].to_pylist() for i in range(2)]
        out = {value for block in blocks for value in block}
        assert len(out) == 1_000
        assert not out & set(patient.tolist())

    def test_a_city_is_not_replaced(self, adult: pa.Table) -> None:
        city = pa.array(["New York/NY", "Graz"] * 50)
        out = sample(fit(pa.table({"city": city, "x": range(100)})), 100)
        assert set(out["city"].to_pylist()) == {"New York/NY", "Graz"}

    def test_a_zero_inflated_column_keeps_its_zeros_and_its_mean(
        self, adult: pa.Table, adult_model: CopulaModel
    ) -> None:
        rows = 65_536
        out = sample(adult_model, rows)
        for name in ("capital_gain", "capital_loss"):
            real, got = adult[name].to_numpy(), out[name].to_numpy()
            share = (real == 0).mean()
            error = np.sqrt(share * (1 - share) * (1 / len(real) + 1 / rows))
            assert abs((got == 0).mean() - share) < 4 * error
            error = real.std() * np.sqrt(1 / len(real) + 1 / rows)
            assert abs(got.mean() - real.mean()) < 4 * error

    def test_every_marginal_of_adult_is_kept(
        self, adult: pa.Table, adult_model: CopulaModel
    ) -> None:
        out = sample(adult_model, 32_561)
        for name in adult.column_names:
            real, got = adult[name].to_pandas(), out[name].to_pandas()
            if real.dtype == object:
                both = pd.concat([s.value_counts(normalize=True) for s in (real, got)], axis=1)
                error = both.fillna(0).diff(axis=1).iloc[:, 1].abs().sum() / 2
            else:
                grid = np.unique(real)
                error = max(abs((real <= g).mean() - (got <= g).mean()) for g in grid[::7])
            assert error < 0.015, name  # SDV's own default: 0.126 on average

    def test_dependence_of_adult_is_kept(self, adult: pa.Table, adult_model: CopulaModel) -> None:
        """A correlation of scores, taken at face value, would shrink these by half."""
        out = sample(adult_model, 32_561)

        def rich(table: pa.Table, name: str, value: str) -> float:
            frame = table.to_pandas()
            return float((frame[frame[name] == value]["income"] == ">50K").mean())

        for name, value in (
            ("sex", "Female"),
            ("education", "Masters"),
            ("education", "11th"),
            ("marital_status", "Never-married"),
            ("relationship", "Husband"),
        ):
            assert rich(out, name, value) == pytest.approx(rich(adult, name, value), abs=0.11)

    def test_missing_shares_are_kept_and_missing_not_at_random_partly(
        self, mixed: pa.Table, mixed_model: CopulaModel
    ) -> None:
        out = sample(mixed_model).to_pandas()
        real = mixed.to_pandas()
        assert out["y"].isna().mean() == pytest.approx(real["y"].isna().mean(), abs=0.02)
        assert real[real["x"] > 1]["y"].isna().mean() == 1.0
        assert out[out["x"] > 1]["y"].isna().mean() > 0.6  # SDV: the unconditional 0.16
        assert out[out["x"] < 0]["y"].isna().mean() < 0.03

    def test_correlation_is_kept(self, mixed: pa.Table, mixed_model: CopulaModel) -> None:
        out, real = sample(mixed_model).to_pandas(), mixed.to_pandas()
        names = ["x", "n", "yes"]
        difference = out[names].corr() - real[names].corr()
        assert difference.abs().to_numpy().max() < 0.05
        assert out.groupby("level")["x"].mean()["high"] == pytest.approx(
            real.groupby("level")["x"].mean()["high"], abs=0.15
        )

    @pytest.mark.parametrize("share", [0.5, 0.9])
    def test_two_columns_with_zeros_keep_their_correlation(self, share: float) -> None:
        rng = np.random.default_rng(5)
        rows = 20_000
        z = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], rows)
        a, b = np.where(z > np.quantile(z, share), np.round(np.exp(z), 2), 0.0).T
        a[rng.random(rows) < 0.05] = 3.5  # a second mass, at random
        table = pa.table({"a": a, "b": b})
        real, out = table.to_pandas(), sample(fit(table)).to_pandas()
        expected = real.corr("spearman").iloc[0, 1]
        assert out.corr("spearman").iloc[0, 1] == pytest.approx(expected, abs=0.05)
        both = ((real["a"] == 0) & (real["b"] == 0)).mean()
        assert ((out["a"] == 0) & (out["b"] == 0)).mean() == pytest.approx(both, abs=0.02)

    def test_correlation_of_masses_with_missing_values_is_kept(self) -> None:
        rng = np.random.default_rng(6)
        z = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], SAMPLE)
        a, b = np.where(z > 0.3, np.round(z, 2), 0.0).T
        table = pa.table({"a": pa.array(a, mask=rng.random(SAMPLE) < 0.3), "b": b})
        real, out = table.to_pandas(), sample(fit(table)).to_pandas()
        expected = real.corr("spearman").iloc[0, 1]
        assert out.corr("spearman").iloc[0, 1] == pytest.approx(expected, abs=0.05)
        assert out["a"].isna().mean() == pytest.approx(0.3, abs=0.015)
        assert (out["a"] == 0).mean() == pytest.approx((real["a"] == 0).mean(), abs=0.015)

    def test_a_grid_of_values_is_kept(self) -> None:
        rng = np.random.default_rng(7)
        hours, minutes = rng.integers(5, 24, SAMPLE), 5 * rng.integers(0, 12, SAMPLE)
        limit = 10_000 * np.ceil(rng.gamma(2.0, 8.0, SAMPLE)).astype(int)
        limit[:2] = 16_383, 327_680  # two values beside the grid: its step is 1
        clock = hours * 100 + minutes
        clock[0] = 1_201
        table = pa.table({"clock": clock, "limit": limit})
        out = sample(fit(table)).to_pandas()
        assert (out["clock"] % 100 > 59).mean() < 0.0005
        assert (out["limit"] % 10_000 != 0).mean() < 0.001
        for name in ("clock", "limit"):
            top = table[name].to_pandas().value_counts(normalize=True).head(20)
            got = out[name].value_counts(normalize=True)
            assert (top - got.reindex(top.index, fill_value=0)).abs().max() < 0.01

    def test_values_of_one_row_are_not_copied(self) -> None:
        rng = np.random.default_rng(8)
        x = np.where(rng.random(SAMPLE) < 0.4, 0.0, rng.lognormal(3, 1, SAMPLE))
        out = sample(fit(pa.table({"x": x, "y": rng.normal(0, 1, SAMPLE)}))).to_pandas()
        alone = set(x[x > 0])
        assert out["x"].isin(alone).mean() < 0.001
        assert not out["x"].between(0, x[x > 0].min(), inclusive="neither").any()  # a gap
        assert (out["x"] == 0).mean() == pytest.approx(0.4, abs=0.015)

    def test_a_model_stays_small_and_keeps_its_masses_with_many_values(self) -> None:
        rng = np.random.default_rng(10)
        many = rng.integers(0, 20_000, 60_000)
        many[:6_000], many[6_000:9_000] = 7, 12_345
        model = fit(pa.table({"n": many, "y": rng.normal(0, 1, 60_000)}))
        (knots,) = (len(m.arrays()["at"]) for m in model.marginals[:1])
        assert knots < 20_000
        out = sample(model, 65_536)["n"].to_pandas()
        assert (out == 7).mean() == pytest.approx(0.1, abs=0.006)
        assert (out == 12_345).mean() == pytest.approx(0.05, abs=0.005)
        assert out.quantile(0.6) == pytest.approx(np.quantile(many, 0.6), rel=0.03)

    def test_one_row_is_not_handed_back(self) -> None:
        with pytest.raises(SourceError, match="at least 20"):
            fit(pa.table({"x": [1.0]}))

    def test_columns_that_never_vary_and_tables_without_features(self) -> None:
        table = pa.table({"id": range(60), "one": ["a"] * 60, "none": pa.nulls(60)})
        out = sample(fit(table), 3)
        assert out["one"].to_pylist() == ["a"] * 3
        assert sample(fit(pa.table({"x": np.arange(60.0)})), 100)["x"].to_numpy().max() <= 59

    def test_a_column_of_nothing_but_rare_levels(self) -> None:
        table = pa.table({"w": [f"w{i // 2}" for i in range(200)], "x": np.arange(200.0)})
        assert len(set(sample(fit(table))["w"].to_pylist())) == 100


class TestOptions:
    def test_gaussian_kde_is_refused_beyond_a_thousand_rows(self) -> None:
        table = pa.table({"x": np.arange(1_001.0)})
        with pytest.raises(UsageError, match="gaussian_kde is for at most 1,000 rows"):
            fit(table, default_distribution="gaussian_kde")
        with pytest.raises(UsageError, match="gaussian_kde"):
            fit(table, numerical_distributions={"x": "gaussian_kde"})
        out = sample(fit(table.slice(0, 200), default_distribution="gaussian_kde"), 500)
        assert 80 < out["x"].to_numpy().mean() < 120

    @pytest.mark.parametrize("family", ["norm", "beta", "truncnorm", "uniform", "gamma"])
    def test_distributions_of_sdv(self, family: str) -> None:
        x = np.random.default_rng(1).gamma(9.0, 2.0, N)
        table = pa.table({"x": x, "y": -x})
        model = fit(table, numerical_distributions={"x": family}, enforce_min_max_values=False)
        out = sample(model)["x"].to_numpy()
        if family != "uniform":
            assert out.mean() == pytest.approx(x.mean(), rel=0.1)
        if family == "gamma":
            assert out.max() > x.max()  # ten times the rows, and nothing cuts them off
        clipped = sample(fit(table, numerical_distributions={"x": family}))["x"].to_numpy()
        assert x.min() <= clipped.min() <= clipped.max() <= x.max()

    def test_what_cannot_be_meant(self, mixed: pa.Table) -> None:
        with pytest.raises(UsageError, match="'xx' does not exist; did you mean 'x'"):
            fit(mixed, numerical_distributions={"xx": "norm"})
        with pytest.raises(UsageError, match="'level' is not numeric"):
            fit(mixed, numerical_distributions={"level": "norm"})
        two = pa.table({"x": [0, 1] * 50, "y": range(100)})
        with pytest.raises(UsageError, match="'x' has too few distinct"):
            fit(two, numerical_distributions={"x": "norm"})
        for wrong in ({"epochs": 3}, {"default_distribution": "cauchy"}, {"locales": []}):
            with pytest.raises(ValueError, match="validation error"):
                Options(**wrong)  # type: ignore[arg-type]
        with pytest.raises(SourceError, match="one table"):
            GaussianCopula().fit({}, {}, Options(), seed=1)


class TestSampling:
    def test_same_seed_same_rows_and_other_seed_other_rows(self, mixed: pa.Table) -> None:
        first, second = fit(mixed), fit(mixed)
        assert sample(first, 500).equals(sample(second, 500))
        assert not sample(first, 500).equals(sample(first, 500, seed=2))
        assert not sample(first, 500).equals(sample(first, 500, block=1))

    @pytest.mark.parametrize("rows", [0, 1, 7, 1_023, 1_024, 1_025, 5_000])
    @pytest.mark.parametrize("conditions", [None, {"yes": True}, {"level": "mid", "n": 50}])
    def test_fewer_rows_are_a_prefix_of_more(
        self, mixed_model: CopulaModel, rows: int, conditions: dict[str, Any] | None
    ) -> None:
        more = sample(mixed_model, 5_000, conditions=conditions)
        assert more.slice(0, rows).equals(sample(mixed_model, rows, conditions=conditions))

    def test_the_number_of_threads_changes_nothing(
        self, mixed_model: CopulaModel, tmp_path: Path
    ) -> None:
        mixed_model.save(tmp_path)
        script = (
            "import sys, hashlib; from pathlib import Path\n"
            "from safegen.backends.sdv.gaussian_copula import GaussianCopula\n"
            "t = GaussianCopula().load(Path(sys.argv[1])).sample(3000, seed=1, block=0)['t']\n"
            "print(hashlib.sha256(str(t.to_pydict()).encode()).hexdigest())\n"
        )
        digests = set()
        for threads in ("1", "4"):
            command = [sys.executable, "-c", script, str(tmp_path)]
            limits = {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
            environment = os.environ | limits | {"PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            digests.add(done.stdout)
        assert len(digests) == 1

    def test_fit_leaves_the_world_as_it_was(
        self, mixed: pa.Table, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        import torch

        before = mixed.slice(0)
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        expected = (random.random(), np.random.random(), torch.rand(1).item())
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        with caplog.at_level(logging.DEBUG):
            sample(fit(mixed), 10)
        assert (random.random(), np.random.random(), torch.rand(1).item()) == expected
        assert mixed.equals(before)
        assert logging.root.manager.disable == 0
        assert [r for r in caplog.records if r.name.startswith(("sdv", "rdt", "copulas"))] == []
        assert capfd.readouterr() == ("", "")

    def test_rows_out_of_range(self, mixed_model: CopulaModel) -> None:
        for rows in (-5, 65_537):
            with pytest.raises(UsageError, match="a block has"):
                sample(mixed_model, rows)


class TestConditions:
    @pytest.mark.parametrize(
        "conditions",
        [
            {"yes": True},
            {"level": "high"},
            {"y": None},
            {"n": 55},
            {"x": 0.25},
            {"level": "high", "yes": False, "n": 70, "y": None},
        ],
    )
    def test_every_row_meets_them(
        self, mixed_model: CopulaModel, conditions: dict[str, Any]
    ) -> None:
        out = sample(mixed_model, 2_000, conditions=conditions)
        assert out.num_rows == 2_000
        for name, value in conditions.items():
            assert set(out[name].to_pylist()) == {value}

    def test_a_number_that_many_rows_hold_is_met_and_the_others_follow(self) -> None:
        rng = np.random.default_rng(9)
        z = rng.multivariate_normal([0, 0], [[1, 0.8], [0.8, 1]], SAMPLE)
        table = pa.table({"a": np.where(z[:, 0] > 0, np.round(z[:, 0], 3), 0.0), "b": z[:, 1]})
        real, model = table.to_pandas(), fit(table)
        out = sample(model, 5_000, conditions={"a": 0.0}).to_pandas()
        assert (out["a"] == 0).all()
        alike = real[real["a"] == 0]["b"]
        assert out["b"].mean() == pytest.approx(alike.mean(), abs=0.05)
        assert out["b"].std() == pytest.approx(alike.std(), abs=0.05)

    def test_the_other_columns_follow(self, mixed: pa.Table, mixed_model: CopulaModel) -> None:
        free = sample(mixed_model, 65_536).to_pandas()
        for name, value in (("level", "high"), ("yes", False), ("n", 60)):
            out = sample(mixed_model, 5_000, conditions={name: value}).to_pandas()
            alike = free[free[name] == value]
            assert out["x"].mean() == pytest.approx(alike["x"].mean(), abs=0.1)
            assert out["x"].std() == pytest.approx(alike["x"].std(), abs=0.1)
        both = sample(mixed_model, 5_000, conditions={"level": "high", "yes": False}).to_pandas()
        alike = free[(free["level"] == "high") & ~free["yes"]]
        assert both["x"].mean() == pytest.approx(alike["x"].mean(), abs=0.15)

    def test_rare_ones_are_met_in_full(self, adult_model: CopulaModel) -> None:
        conditions = {"native_country": "Holand-Netherlands", "sex": "Female", "age": 17}
        out = sample(adult_model, 1_000, conditions=conditions)
        assert out.num_rows == 1_000
        assert set(out["native_country"].to_pylist()) == {"Holand-Netherlands"}

    def test_impossible_ones_name_the_column_not_the_value(self, mixed_model: CopulaModel) -> None:
        for name, value in (("level", "secret"), ("n", 30_000), ("id", 5), ("levl", "mid")):
            with pytest.raises(UsageError, match=name) as caught:
                sample(mixed_model, 10, conditions={name: value})
            assert "secret" not in str(caught.value)


class TestSaved:
    def test_a_model_is_the_same_after_a_round_trip(
        self, mixed: pa.Table, mixed_model: CopulaModel, tmp_path: Path
    ) -> None:
        a, b = tmp_path / "a", tmp_path / "b"
        mixed_model.save(a)
        fit(mixed).save(b)
        assert {f.name for f in a.iterdir()} == {"model.json", "arrays.npz"}
        for file in a.iterdir():  # the same table, options and seed: the same bytes
            assert file.read_bytes() == (b / file.name).read_bytes()
        loaded = GaussianCopula().load(a)
        assert sample(loaded, 2_000).equals(sample(mixed_model, 2_000))

    def test_a_damaged_model_is_refused(self, mixed_model: CopulaModel, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="cannot be read"):
            GaussianCopula().load(tmp_path)
        mixed_model.save(tmp_path)
        np.savez(tmp_path / "arrays.npz", correlation=np.array([{}], dtype=object))
        with pytest.raises(BackendError, match="fit it again"):
            GaussianCopula().load(tmp_path)

    def test_loading_and_sampling_needs_no_sdv(
        self, mixed_model: CopulaModel, tmp_path: Path
    ) -> None:
        mixed_model.save(tmp_path)
        script = (
            "import sys; from pathlib import Path\n"
            "from safegen.backends.sdv.gaussian_copula import GaussianCopula\n"
            "assert not {'numpy', 'pandas', 'torch', 'scipy'} & set(sys.modules)\n"
            "GaussianCopula().load(Path(sys.argv[1])).sample(10, seed=1, block=0)\n"
            "assert not {'sdv', 'copulas', 'torch'} & set(sys.modules)\n"
        )
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", script, str(tmp_path)]
        subprocess.run(command, env=environment, check=True)


class TestUpstream:
    def test_without_sdv_the_remedy_is_said(
        self, mixed: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "sdv.single_table", None)
        with pytest.raises(MissingExtra, match=r"pip install 'safegen\[sdv\]'"):
            fit(mixed)

    def test_an_upstream_failure_shows_its_place_and_no_value(
        self, mixed: pa.Table, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from sdv.single_table import GaussianCopulaSynthesizer

        def broken(*_: object) -> None:
            try:
                raise KeyError("secret 4711")
            except KeyError as error:
                raise ValueError("Sampling terminated. secret 4711") from error

        monkeypatch.setattr(GaussianCopulaSynthesizer, "_fit", broken)
        monkeypatch.delenv("SAFEGEN_DEBUG", raising=False)
        with pytest.raises(BackendError) as caught:
            fit(mixed, default_distribution="norm")
        assert "KeyError in test_gaussian_copula.py" in str(caught.value)  # the real cause
        assert "4711" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.fixture(scope="module")
def table(mixed: pa.Table) -> pa.Table:
    return (
        mixed.drop_columns(["when"])
        .append_column("c", mixed["level"].combine_chunks().dictionary_encode())
        .drop_columns(["level"])
    )


@pytest.fixture(scope="module")
def synthesizer(table: pa.Table) -> Any:
    from sdv.metadata import Metadata
    from sdv.single_table import GaussianCopulaSynthesizer

    from safegen.backends.undisturbed import undisturbed

    with undisturbed():
        frame = table.to_pandas().astype({"c": str})
        metadata = Metadata.detect_from_dataframes({"t": frame})
        synthesizer = GaussianCopulaSynthesizer(metadata)
        synthesizer.fit({"t": frame})
    return synthesizer


@pytest.fixture(scope="module")
def model(table: pa.Table, synthesizer: Any) -> AdoptedModel:
    return AdoptedModel.adopt(synthesizer, "t", table, infer_schema(table), seed=1)


class TestAdopted:
    def test_rows_repeat_and_have_the_sources_schema(
        self, model: AdoptedModel, table: pa.Table, tmp_path: Path
    ) -> None:
        first = sample(model, 500)
        assert first.schema.equals(table.schema)
        assert first.slice(0, 90).equals(sample(model, 90))
        other = sample(model, 500, block=1)
        assert not first["x"].equals(other["x"])
        assert not set(first["id"].to_pylist()) & set(other["id"].to_pylist())
        assert not first.equals(sample(model, 500, seed=2))
        model.save(tmp_path)
        assert sample(Adopted().load(tmp_path), 500).equals(first)

    def test_fewer_rows_than_asked_are_an_error(
        self, model: AdoptedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = type(model.synthesizer).sample
        monkeypatch.setattr(
            type(model.synthesizer),
            "sample",
            lambda self, num_rows: {"t": short(self, num_rows=num_rows)["t"].head(40)},
        )
        with pytest.raises(BackendError, match="40 of 16,384"):
            sample(model, 10)

    def test_values_that_do_not_fit_are_an_error_without_values(
        self, model: AdoptedModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame = pd.DataFrame({c: ["secret"] * 16_384 for c in model.arrow_schema.names})
        monkeypatch.setattr(type(model.synthesizer), "sample", lambda self, num_rows: {"t": frame})
        with pytest.raises(BackendError, match=r"column 'x'.*double") as caught:
            sample(model, 10)
        assert "secret" not in str(caught.value)

    def test_what_cannot_be_adopted(
        self, model: AdoptedModel, table: pa.Table, synthesizer: Any
    ) -> None:
        from sdv.single_table import TVAESynthesizer

        for wrong, part in (("a string", "not str"), (synthesizer._model, "single-table")):
            with pytest.raises(UsageError, match=part):
                AdoptedModel.adopt(wrong, "t", table, infer_schema(table), seed=1)
        unfitted = TVAESynthesizer(synthesizer.metadata)
        with pytest.raises(UsageError, match="not fitted"):
            AdoptedModel.adopt(unfitted, "t", table, infer_schema(table), seed=1)
        with pytest.raises(UsageError, match="conditions"):
            sample(model, 10, conditions={"yes": True})
        with pytest.raises(UsageError, match="does not fit"):
            Adopted().fit({}, {}, Options(), seed=1)
