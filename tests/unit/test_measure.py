"""The measurements against values worked out by hand, and against known nulls."""

from __future__ import annotations

import datetime
import pickle
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from safegen.demo import place_data
from safegen.errors import MissingExtra, UsageError
from safegen.measure.classifiers import CLASSES, c2st, classes_of, tstr
from safegen.measure.compared import compared
from safegen.measure.distances import pair_error, shape_error
from safegen.measure.drawn import Reservoir
from safegen.measure.measured import Measured, auc
from safegen.measure.rare import rare_coverage, rare_mass
from safegen.tables.schema import TableSchema, infer_schema
from safegen.tables.streams import stream

N = 400


def schema_of(table: pa.Table, **kinds: str) -> TableSchema:
    return infer_schema(table, {name: {"kind": kind} for name, kind in kinds.items()})


def shape(real: Any, made: Any, **more: Any) -> float:
    a, b = pa.table({"x": real}), pa.table({"x": made})
    return shape_error(a, b, schema_of(a, **more)).value


def pair(real: dict[str, Any], made: dict[str, Any]) -> float:
    a, b = pa.table(real), pa.table(made)
    return pair_error(a, b, infer_schema(a)).value


class TestShape:
    def test_levels_by_total_variation(self) -> None:
        # Shares .5 .3 .2 0 against .4 .3 .1 .2: the differences add up to .4.
        real, made = ["a"] * 50 + ["b"] * 30 + ["c"] * 20, ["a"] * 4 + ["b"] * 3 + ["c"] + ["d"] * 2
        assert shape(real, made) == pytest.approx(20)

    def test_numbers_by_kolmogorov_smirnov(self) -> None:
        # F = 0, .25, .5, .75, 1 at 0 … 4 against 0, 0, .25, .25, 1 (at 4): the gap is .5 at 3.
        assert shape([1, 2, 3, 4] * 25, [2, 4, 4, 4] * 25) == pytest.approx(50)

    def test_a_column_of_each_kind_counts_the_same(self) -> None:
        real = pa.table({"n": [0.0, 1.0] * 50, "l": ["a", "b"] * 50})
        made = pa.table({"n": [0.0, 1.0] * 50, "l": ["a"] * 100})
        assert shape_error(real, made, infer_schema(real)).value == pytest.approx(25)

    @pytest.mark.parametrize(
        "values",
        [
            [1.5, 2.5, None, None],
            [1.5, 2.5, float("nan"), float("nan")],
            ["a", "b", None, None],
            [True, False, None, None],
            [datetime.date(2020, 1, 1), datetime.date(2021, 1, 1), None, None],
        ],
    )
    def test_lost_missing_values_are_seen(self, values: list[Any]) -> None:
        """Half of the real rows are missing, none of the others."""
        real, made = pa.array(values * 25), pa.array(values[:2] * 50)
        assert shape(real, made) == pytest.approx(50)
        assert shape(real, real) == 0

    def test_ids_and_invented_data_are_not_compared(self) -> None:
        real = pa.table({"id": range(N), "x": [1, 2] * (N // 2)})
        made = pa.table({"id": range(N, 2 * N), "x": [1, 2] * (N // 2)})
        assert infer_schema(real).columns[0].kind == "id"
        assert shape_error(real, made, infer_schema(real)).value == 0

    def test_dictionaries_and_plain_texts_are_the_same_levels(self) -> None:
        real = pa.array(["a", "b"] * 50)
        assert shape(real, real.dictionary_encode()) == 0

    def test_decimals_are_numbers(self) -> None:
        real, made = (
            pa.array([Decimal(x) for x in values] * 25, pa.decimal128(9, 2))
            for values in ([1, 2, 3, 4], [2, 4, 4, 4])
        )
        assert shape(real, made) == pytest.approx(50)


class TestPair:
    def test_a_lost_dependence_by_hand(self) -> None:
        # Real: the diagonal, ½ each. Generated: all four cells with ¼. Half of 4 · ¼ is ½.
        real = {"a": ["x", "y"] * 50, "b": ["x", "y"] * 50}
        made = {"a": ["x", "x", "y", "y"] * 25, "b": ["x", "y"] * 50}
        assert pair(real, made) == pytest.approx(50)

    def test_the_mean_is_over_pairs(self) -> None:
        real = {"a": ["x", "y"] * 50, "b": ["x", "y"] * 50, "c": ["z"] * 100}
        made = {"a": ["x", "x", "y", "y"] * 25, "b": ["x", "y"] * 50, "c": ["z"] * 100}
        assert pair(real, made) == pytest.approx(50 / 3)

    def test_numbers_and_levels_share_a_joint_of_real_deciles(self) -> None:
        # Ten bins of ten rows each. The generated ones all lie in the first, of either level.
        real = {"n": list(range(100)), "l": ["x", "y"] * 50}
        made = {"n": [0] * 100, "l": ["x", "y"] * 50}
        assert pair(real, made) == pytest.approx(90)

    def test_bins_come_from_the_real_table(self) -> None:
        real = pa.table({"n": np.arange(100.0)})
        made = pa.table({"n": np.full(100, 1e9)})
        (column,) = compared(real, made, infer_schema(real))
        assert np.bincount(column.bins[0], minlength=column.widths).tolist() == [0, *[10] * 10]
        assert (column.bins[1] == 10).all()

    def test_a_number_of_few_values_is_binned_by_value(self) -> None:
        """Deciles would put the rare 3 with another; every one of ten values is its own bin."""
        real = pa.table({"n": [1] * 96 + [2] * 2 + [3] * 2})
        made = pa.table({"n": [1] * 96 + [2] * 4})
        (column,) = compared(real, made, infer_schema(real))
        assert sorted(set(column.bins[0])) == [1, 2, 3]

    def test_the_numbers_above_a_point_mass_are_a_bin(self) -> None:
        """With the bins closed on the left, 92 % zeros and the numbers above them would be one."""
        real = pa.table({"n": np.maximum(np.arange(200.0) - 184, 0)})
        (column,) = compared(real, real, infer_schema(real))
        assert len(set(column.bins[0])) == 2

    def test_missing_values_are_a_bin(self) -> None:
        real = {"n": pa.array([None, *range(99)]), "l": ["x"] * 100}
        made = {"n": pa.array([None] * 100, pa.int64()), "l": ["x"] * 100}
        assert pair(real, made) == pytest.approx(99)

    def test_many_levels_cost_no_memory(self) -> None:
        """A joint of 20,000 × 20,000 cells has as many that are not empty as there are rows."""
        words = [f"w{i}" for i in range(20_000)]
        real = pa.table({"a": words, "b": words})
        found = pair_error(real, real, schema_of(real, a="categorical", b="categorical"))
        assert found.value == 0

    def test_one_column_has_no_pair(self) -> None:
        table = pa.table({"x": ["a", "b"] * 20})
        with pytest.raises(UsageError, match="two columns"):
            pair_error(table, table, infer_schema(table))


class TestRare:
    def real(self) -> pa.Table:
        # 10,000 rows: "r" 100 (1 %) and missing 50 are rare; "s" 20 is too rare, "c" too common.
        values = ["c"] * 9_830 + ["r"] * 100 + ["s"] * 20 + [None] * 50
        return pa.table({"x": pa.array(values)})

    def test_mass_is_the_mean_of_shares_kept_at_most_one(self) -> None:
        made = pa.table({"x": pa.array(["c"] * 9_000 + ["r"] * 900 + [None] * 20 + ["c"] * 80)})
        found = rare_mass(self.real(), made, infer_schema(self.real()))
        assert found is not None
        assert found.value == pytest.approx((1.0 + 20 / 50) / 2)

    def test_coverage_is_over_its_expectation_at_this_n(self) -> None:
        made = pa.table({"x": pa.array(["c"] * 199 + ["r"])})
        found = rare_coverage(self.real(), made, infer_schema(self.real()))
        expected = (1 - 0.99**200) + (1 - 0.995**200)
        assert found is not None
        assert found.value == pytest.approx(1 / expected)

    def test_lost_levels_are_seen(self) -> None:
        made = pa.table({"x": pa.array(["c"] * 10_000)})
        schema = infer_schema(self.real())
        for found in (
            rare_mass(self.real(), made, schema),
            rare_coverage(self.real(), made, schema),
        ):
            assert found is not None
            assert found.value == 0

    def test_without_rare_levels_nothing_is_claimed(self) -> None:
        table = pa.table({"x": ["a", "b"] * 50, "n": range(100)})
        assert rare_mass(table, table, infer_schema(table)) is None
        assert rare_coverage(table, table, infer_schema(table)) is None


class TestAreas:
    def test_the_area_counts_pairs_and_ties_half(self) -> None:
        # Positives 3, 2 against 1, 2: 3 wins twice, 2 wins once and ties once: 3.5 of 4.
        area, influence = auc(np.array([3.0, 2, 1, 2]), np.array([True, True, False, False]))
        assert area == pytest.approx(3.5 / 4)
        assert influence.mean() == pytest.approx(0)

    def test_the_interval_is_delongs(self) -> None:
        rng = np.random.default_rng(4)
        scores, positive = rng.normal(size=60), np.arange(60) < 20
        scores[positive] += 1
        area, influence = auc(scores, positive)
        wins = scores[positive][:, None] > scores[~positive]
        a, b = wins.mean(axis=1), wins.mean(axis=0)
        delong = a.var() / 20 + b.var() / 40
        assert area == pytest.approx(wins.mean())
        assert (influence**2).sum() / 60**2 == pytest.approx(delong)

    def test_one_class_teaches_nothing(self) -> None:
        assert auc(np.arange(5.0), np.ones(5, bool))[0] == 0.5


class TestIntervals:
    def test_they_hold_the_truth_nineteen_times_in_twenty(self) -> None:
        """Shares ½ ½ against .7 .3, a total variation of 20 %."""
        schema = infer_schema(pa.table({"x": ["a", "b"]}))
        hits, repeats = 0, 300
        rng = np.random.default_rng(5)
        levels = np.array(["a", "b"])
        for seed in range(repeats):
            real, made = ((rng.random(N) > p).astype(int) for p in (0.5, 0.7))
            low, high = shape_error(
                pa.table({"x": levels[real]}), pa.table({"x": levels[made]}), schema, seed=seed
            ).interval
            hits += low <= 20 <= high
        assert 0.92 <= hits / repeats <= 0.98

    def test_the_same_seed_gives_the_same_interval(self) -> None:
        rng = np.random.default_rng(6)
        real, made = (pa.table({"x": rng.normal(size=N), "y": rng.normal(size=N)}) for _ in "ab")
        schema = infer_schema(real)
        assert pair_error(real, made, schema, seed=3) == pair_error(real, made, schema, seed=3)
        first, other = (pair_error(real, made, schema, seed=s) for s in (3, 4))
        assert first.value == other.value
        assert first.interval != other.interval


class TestUnusable:
    def test_no_rows_and_absent_columns_are_said(self) -> None:
        table = pa.table({"x": [1, 2] * 20})
        schema = infer_schema(table)
        with pytest.raises(UsageError, match="no generated rows"):
            shape_error(table, table.slice(0, 0), schema)
        with pytest.raises(UsageError, match="no column 'x'"):
            shape_error(table, table.rename_columns(["y"]), schema)

    def test_a_target_of_numbers_is_refused(self) -> None:
        table = pa.table({"x": np.arange(50.0), "y": ["a", "b"] * 25})
        schema = infer_schema(table)
        with pytest.raises(UsageError, match="must have levels"):
            tstr(table, table, schema, "x")
        assert tstr(table, table, schema, "y").name == "tstr"

    def test_without_scikit_learn_the_remedy_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
        table = pa.table({"x": np.arange(50.0)})
        with pytest.raises(MissingExtra, match="pip install"):
            c2st(table, table, infer_schema(table))


class TestClassifiers:
    def tables(self) -> tuple[pa.Table, pa.Table, pa.Table]:
        rng = np.random.default_rng(7)

        def draw(slope: float) -> pa.Table:
            x = rng.normal(size=2_000)
            y = np.where(rng.random(2_000) < 1 / (1 + np.exp(-slope * x)), "yes", "no")
            return pa.table({"x": x, "y": y})

        return draw(3), draw(3), draw(-3)

    def test_rows_that_are_alike_cannot_be_told_apart_and_others_can(self) -> None:
        real, alike, unlike = self.tables()
        schema = infer_schema(real)
        low, high = c2st(real, alike, schema).interval
        assert low < 0.5 < high
        assert c2st(real, unlike, schema).value > 0.8

    def test_what_was_learned_the_wrong_way_round_shows(self) -> None:
        real, alike, unlike = self.tables()
        schema = infer_schema(real)
        assert tstr(real, alike, schema, "y").value > 0.8
        assert tstr(real, unlike, schema, "y").value < 0.2

    def test_a_target_that_collapsed_teaches_nothing(self) -> None:
        real, alike, _ = self.tables()
        collapsed = alike.set_column(1, "y", pa.array(["yes"] * alike.num_rows))
        assert tstr(real, collapsed, infer_schema(real), "y").value == 0.5

    def test_more_than_two_levels_and_one_that_is_lost(self) -> None:
        rng = np.random.default_rng(8)
        x = rng.integers(0, 3, 1_500)
        real = pa.table({"x": x.astype(float), "y": np.array(["a", "b", "c"])[x]})
        schema = infer_schema(real, {"x": {"kind": "numeric"}})
        assert tstr(real, real, schema, "y").value == 1
        lost = real.filter(pa.array(x != 2))
        shares = np.bincount(x) / len(x)
        # Without "c" its rows score like "b": "a" is still perfect, "c" counts ½.
        b = shares[0] / (shares[0] + shares[2]) + 0.5 * shares[2] / (shares[0] + shares[2])
        expected = shares @ [1, b, 0.5]
        assert tstr(real, lost, schema, "y").value == pytest.approx(expected, abs=1e-6)

    def test_the_rarest_of_many_levels_of_a_target_are_one(self) -> None:
        rng = np.random.default_rng(4)

        def table(rows: int) -> pa.Table:
            level = np.minimum(rng.geometric(0.06, rows), 120)
            return pa.table({"x": level + 0.1 * rng.normal(size=rows), "y": level.astype(str)})

        real, made = table(3_000), table(3_000)
        schema = infer_schema(real, {"y": {"role": "target"}})
        (column,) = (c for c in compared(real, made, schema) if c.name == "y")
        truth, taught = classes_of(column)
        assert len(np.unique(truth)) == CLASSES
        assert set(taught) <= set(truth)
        counts = np.bincount(column.codes[0])
        kept = np.unique(truth)[:-1]
        assert counts[kept].min() >= np.delete(counts, kept).max()
        assert (
            truth[np.isin(column.codes[0], kept)] == column.codes[0][truth < column.cells]
        ).all()
        few = compared(real.slice(0, 50), made.slice(0, 50), schema)[-1]
        assert classes_of(few)[0] is few.codes[0]

    def test_more_levels_than_the_classifier_takes(self) -> None:
        rng = np.random.default_rng(9)
        words = pa.array([f"w{i}" for i in rng.integers(0, 900, 3_000)])
        table = pa.table({"w": words, "y": pa.array(rng.random(3_000) < 0.5)})
        assert tstr(table, table, infer_schema(table), "y").value > 0.3


def test_real_rows_reach_the_known_nulls_on_adult(tmp_path: Path) -> None:
    """32,561 training rows against the 16,281 others: shape .6 %, pair 1.8 %, C2ST ½, TSTR .927."""
    path, what = place_data(tmp_path)
    assert what.startswith("Adult")
    table = pq.read_table(path)
    test, train = table.slice(0, 16_281), table.slice(16_281)
    schema = infer_schema(train)

    def close(found: Measured | None, value: float, within: float) -> None:
        assert found is not None
        assert found.value == pytest.approx(value, abs=within)
        assert found.interval[0] < found.value < found.interval[1]
        assert (found.n, found.real_n) == (32_561, 16_281)

    close(shape_error(test, train, schema), 0.63, 0.02)
    close(pair_error(test, train, schema), 1.76, 0.02)
    close(rare_mass(test, train, schema), 0.92, 0.02)
    close(tstr(test, train, schema, "income"), 0.927, 0.002)
    low, high = c2st(test, train, schema).interval
    assert low < 0.5 < high


def test_the_bench_prints_what_is_measured_here(capsys: pytest.CaptureFixture[str]) -> None:
    """A point mass and missing values, on which formulas of the bench's own once differed."""
    import importlib.util

    path = Path(__file__).parents[2] / "bench" / "readme_figures.py"
    spec = importlib.util.spec_from_file_location("bench_readme_figures", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    rng = np.random.default_rng(10)

    def frame(zeros: float) -> Any:
        gain = np.where(rng.random(N) < zeros, 0.0, rng.normal(5, 1, N))
        x = np.where(rng.random(N) < 0.2, np.nan, rng.normal(size=N))
        return pa.table({"capital-gain": gain, "x": x, "l": rng.choice(["a", "b"], N)}).to_pandas()

    test, made = frame(0.92), frame(0.8)
    bench._say_quality("rows", made, test, None)
    both = [pa.Table.from_pandas(f, preserve_index=False) for f in (test, made)]
    schema = infer_schema(both[0])
    shape, pair = (error(*both, schema).value for error in (shape_error, pair_error))
    printed = capsys.readouterr().out
    assert f"shape {shape:5.1f} %  pair {pair:5.1f} %" in printed


def test_a_reservoir_keeps_every_row_as_likely_however_rows_are_cut() -> None:
    counts = np.zeros(1_000)
    for seed in range(300):
        kept = Reservoir(100, seed)
        for start in range(0, 1_000, 130):
            part = pa.table({"x": np.arange(start, min(start + 130, 1_000))})
            kept.update(part, np.arange(part.num_rows) + start + 1.0)
        drawn = kept.value()
        assert drawn is not None
        x = drawn.table.column("x").to_numpy()
        assert len(set(x)) == 100
        assert np.array_equal(drawn.weights, x + 1.0)
        counts[x] += 1
    # 30 ± 5.2 times each: no trend from first to last, no row left out.
    assert abs(np.corrcoef(np.arange(1_000), counts)[0, 1]) < 0.13
    assert counts.min() > 5
    assert Reservoir(100, 1).value() is None


@pytest.mark.parametrize("known", [True, False])
def test_parts_draw_the_rows_that_one_pass_draws(known: bool) -> None:
    """And where it is known how many rows there will be, no part keeps many more than its share."""
    rows, parts = 20_000, 20
    table = pa.table({"x": np.arange(rows)})
    merged, size = Reservoir(100, 5, rows=rows if known else None), rows // parts
    kept = []
    for part in range(parts):
        one = Reservoir(100, 5, part, rows if known else None)
        one.update(table.slice(part * size, size), np.ones(size))
        kept.append(sum(t.num_rows for t, _, _ in one._batches))
        merged.merge(pickle.loads(pickle.dumps(one)))
    assert merged.seen == rows
    drawn = merged.value()
    assert drawn is not None
    assert drawn.table.num_rows == 100
    keys = np.concatenate(
        [np.random.default_rng(stream(5, part, 0)).random(size) for part in range(parts)]
    )
    assert sorted(drawn.table.column("x").to_pylist()) == sorted(np.argsort(keys)[:100].tolist())
    assert (max(kept) < 40) == known
