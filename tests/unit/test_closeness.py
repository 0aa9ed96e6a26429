"""Columns, pairs, tails and rare levels: by hand, at the margin, and the sanity checks that
measures of fidelity have been found to fail (order, names, scale, outliers, lost modes, sizes)."""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.measure.gaps import BINS, PAIRS, _tv, marginal_cells, may_judge, pair_cells
from safegen.measure.masses import mass_cells, rare_levels, tails
from safegen.measure.measured import GROUPS
from safegen.measure.samples import Samples, samples
from safegen.measure.verdicts import Cell
from safegen.tables.schema import infer_schema

ROWS = 4_000


def law(seed: int, rows: int = ROWS) -> pa.Table:
    """Numbers with a tail, a point mass and missing values, and levels that depend on them."""
    rng = np.random.default_rng([1, seed])
    x = rng.normal(size=rows)
    group = np.array(list("abcdef"))[np.searchsorted([-1, -0.3, 0.3, 1, 2.3], x)]
    return pa.table(
        {
            "x": x,
            "pay": np.exp(x + rng.normal(size=rows)),
            "gain": np.where(rng.random(rows) < 0.8, 0.0, rng.exponential(size=rows)),
            "score": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.2),
            "group": group,
            "flag": rng.random(rows) < 1 / (1 + np.exp(-x)),
        }
    )


def both(real: pa.Table, made: pa.Table, **more: Any) -> Samples:
    return samples(real, made, infer_schema(real), **more)


def columns(real: pa.Table, made: pa.Table, margin: float = 0.05) -> tuple[Cell, dict[str, Cell]]:
    (mean,), cells = marginal_cells(both(real, made), margin, 0.05)
    return mean, {c.name: c for c in cells}


def pairs(real: pa.Table, made: pa.Table, worst: float = 0.4) -> tuple[Cell, dict[str, Cell]]:
    (mean,), cells, _ = pair_cells(both(real, made), 0.12, worst, 0.05)
    return mean, {c.name: c for c in cells}


def masses(real: pa.Table, made: pa.Table, what: Any = tails) -> tuple[list[Cell], dict[str, Cell]]:
    found = both(real, made)
    pooled, cells = mass_cells(found, what(found), (0.8, 1.25), (0.8, 1.25), 0.05)
    return pooled, {c.name: c for c in cells}


def put(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, pa.array(values))


def of(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table.column(name).to_numpy(zero_copy_only=False))


def everything(real: pa.Table, made: pa.Table) -> dict[str, float]:
    """Every estimate, by the question and the cell."""
    found = both(real, made)
    parts: list[Cell] = []
    pooled, cells = marginal_cells(found, 0.05, 0.05)
    parts += [*pooled, *cells]
    pooled, cells, _ = pair_cells(found, 0.12, 0.4, 0.05)
    parts += [*pooled, *cells]
    for what in (tails, rare_levels):
        pooled, cells = mass_cells(found, what(found), (0.8, 1.25), (0.8, 1.25), 0.05)
        parts += [*pooled, *cells]
    return {cell.name: cell.value for cell in parts}


class TestByHand:
    def test_distances(self) -> None:
        real = pa.table({"l": ["a"] * 50 + ["b"] * 50, "n": [0.0] * 50 + [1.0] * 50})
        made = pa.table({"l": ["a"] * 40 + ["b"] * 60, "n": [0.0] * 80 + [1.0] * 20})
        mean, cells = columns(real, made)
        assert cells["l"].value == pytest.approx(0.1)
        assert cells["n"].value == pytest.approx(0.3)
        assert mean.value == pytest.approx(0.2)

    def test_weights_undo_what_was_oversampled(self) -> None:
        """Rows of level b are there four times as often, with a quarter of the weight."""
        real = pa.table({"l": ["a"] * 150 + ["b"] * 50})
        made = pa.table({"l": ["a"] * 150 + ["b"] * 200})
        weights = np.repeat([1.0, 0.25], [150, 200])
        found = both(real, made, weights=weights)
        ((cell,),) = (marginal_cells(found, 0.05, 0.05)[1],)
        assert cell.value == pytest.approx(0)
        # Kish: (Σw)² / Σw² = 200² / (150 + 200/16).
        assert found.sizes == (200, pytest.approx(200**2 / 162.5))

    @pytest.mark.parametrize(("n", "m"), [(30, 30), (40, 10)])
    def test_what_chance_shows_is_the_mean_deviation_of_a_binomial(self, n: int, m: int) -> None:
        """One level of 12 rows, another of the rest: ½ Σ E|p̂ − q̂|, summed by its definition."""
        total, part = n + m, n / (n + m)
        table = pa.table({"l": ["a"] * 12 + ["b"] * (total - 12)})
        order = pa.array(np.random.default_rng(0).permutation(total))
        mixed = table.take(order)
        found = both(mixed.slice(0, n), mixed.slice(n))
        column = found.columns[0]
        shown = found.deviation(*found.shares(column.codes, column.cells))
        by_hand = 0.0
        for size in (12, total - 12):
            chances = [comb(size, k) * part**k * (1 - part) ** (size - k) for k in range(size + 1)]
            by_hand += sum(c * abs(k - size * part) for k, c in enumerate(chances)) / 2
        assert shown == pytest.approx(by_hand * (1 / n + 1 / m))

    def test_ratios_of_masses(self) -> None:
        """Beyond the real 5 % cut: 50 of 1,000 real rows and 25 made ones."""
        real = pa.table({"x": np.arange(1000.0)})
        x = np.arange(1000.0)
        x[950::2] = 500.0
        _, cells = masses(real, pa.table({"x": x}))
        # Half a row is added on either side, so that none is no infinite loss.
        assert cells["x#high 5%"].value == pytest.approx(25.5 / 50.5, rel=0.03)
        assert cells["x#low 5%"].value == pytest.approx(1, rel=0.03)

    def test_a_point_mass_at_the_cut_is_no_tail(self) -> None:
        real = pa.table({"x": np.maximum(np.arange(1000.0) - 800, 0)})
        _, cells = masses(real, real)
        assert not any("low" in name for name in cells)
        assert "x#high 5%" in cells

    def test_rare_levels_go_by_rank_and_missing_is_one(self) -> None:
        values = ["c"] * 9_700 + ["r"] * 100 + ["s"] * 20 + [None] * 60 + ["d"] * 120
        table = pa.table({"x": values})
        pooled, cells = masses(table, table, rare_levels)
        assert set(cells) == {"x#3", "x#missing"}
        # The real shares are raised by their relative variance: 1 in 100, and 1 in 60.
        assert pooled[0].value == pytest.approx((1 / 1.01 + 1 / (1 + 1 / 60)) / 2, abs=1e-3)
        assert pooled[1].value == 1


class TestAtTheMargin:
    """True differences at the margin are met in at most 5 %: of 200 runs at most 25, which more
    than 5 % would exceed with a chance below 1e-4 (binomial), and none is unmet without end."""

    RUNS, MOST = 200, 25

    def rate(self, run: Callable[[int], Cell]) -> tuple[int, int]:
        cells = [run(seed) for seed in range(self.RUNS)]
        return sum(c.kept for c in cells), sum(c.p <= 0.05 for c in cells)

    def test_a_column_of_numbers(self) -> None:
        """Shares .5/.5 against .6/.4 of two numbers: KS .1, at the point where noise is largest."""

        def run(seed: int) -> Cell:
            rng = np.random.default_rng([2, seed])
            real, made = (pa.table({"x": (rng.random(2_000) < p) * 1.0}) for p in (0.5, 0.6))
            return columns(real, made, 0.1)[1]["x"]

        met, unmet = self.rate(run)
        assert 0 < met <= self.MOST
        assert unmet <= self.MOST

    def test_a_column_of_many_levels(self) -> None:
        def run(seed: int) -> Cell:
            rng = np.random.default_rng([3, seed])
            even = np.full(40, 1 / 40)
            tilted = even * np.repeat([1.2, 0.8], 20)  # total variation .1
            real, made = (
                pa.table({"x": rng.choice(40, 3_000, p=p).astype(str)}) for p in (even, tilted)
            )
            return columns(real, made, 0.1)[1]["x"]

        met, unmet = self.rate(run)
        assert met <= self.MOST
        assert unmet <= self.MOST

    def test_the_mean_of_tails(self) -> None:
        def run(seed: int) -> Cell:
            rng = np.random.default_rng([4, seed])
            real, x = rng.normal(size=3_000), rng.normal(size=3_000)
            out = (np.abs(x) > 1.2815516) & (rng.random(3_000) < 0.2)
            x[out] = rng.normal(size=out.sum()) / 10
            return masses(pa.table({"x": real}), pa.table({"x": x}))[0][0]

        met, unmet = self.rate(run)
        assert met <= self.MOST
        assert unmet <= self.MOST

    def test_no_fault_is_met_at_these_sizes(self) -> None:
        """The other half: rows without fault clear the margin, in all of 40 runs."""
        for seed in range(40):
            real, made = law(2 * seed, 12_000), law(2 * seed + 1, 12_000)
            mean, cells = columns(real, made)
            assert all(c.kept for c in (mean, *cells.values()) if c.judged), seed
            assert all(c.judged for c in cells.values())


class TestSanity:
    def test_the_order_of_rows_changes_nothing(self) -> None:
        real, made = law(1), law(2)
        rng = np.random.default_rng(3)
        turned = [t.take(pa.array(rng.permutation(t.num_rows))) for t in (real, made)]
        assert everything(*turned) == pytest.approx(everything(real, made))

    def test_the_order_of_columns_changes_nothing_but_the_names_of_pairs(self) -> None:
        real, made = law(1), law(2)
        names = list(reversed(real.schema.names))
        turned = everything(real.select(names), made.select(names))
        back = {" × ".join(sorted(n.split(" × "))): v for n, v in turned.items()}
        here = {" × ".join(sorted(n.split(" × "))): v for n, v in everything(real, made).items()}
        assert back == pytest.approx(here)

    def test_the_names_of_levels_change_nothing(self) -> None:
        def renamed(table: pa.Table) -> pa.Table:
            turned = {c: chr(ord("z") - i) for i, c in enumerate("abcdef")}
            return put(table, "group", [turned[v] for v in table.column("group").to_pylist()])

        real, made = law(1), law(2)
        assert everything(renamed(real), renamed(made)) == pytest.approx(everything(real, made))

    @pytest.mark.parametrize("change", [np.exp, lambda x: 5 * x - 3, lambda x: x**3])
    def test_a_growing_map_of_a_column_changes_nothing(self, change: Any) -> None:
        real, made = law(1), law(2)
        mapped = [put(t, "x", change(of(t, "x"))) for t in (real, made)]
        assert everything(*mapped) == pytest.approx(everything(real, made))

    def test_one_outlier_changes_next_to_nothing(self) -> None:
        real, made = law(1), law(2)
        x = of(made, "x").copy()
        x[7] = 1e12
        before, after = everything(real, made), everything(real, put(made, "x", x))
        # One row of 4,000: 1/4000 of a distance, and of 40 rows in a tail one more.
        assert all(abs(after[n] - before[n]) < 0.05 for n in before)

    def test_a_lost_mode_is_found_where_mean_and_variance_are_kept(self) -> None:
        """Three modes, of which the middle one is lost; the others move so that mean and variance
        stay."""
        rng = np.random.default_rng(5)
        centres = rng.choice([-2.0, 0.0, 2.0], ROWS, p=[0.25, 0.5, 0.25])
        kept = rng.choice([-1.0, 1.0], ROWS) * np.sqrt(2)
        real, made = (
            pa.table({"x": c + 0.3 * rng.normal(size=ROWS), "y": rng.normal(size=ROWS)})
            for c in (centres, kept)
        )
        assert np.var(of(made, "x")) == pytest.approx(np.var(of(real, "x")), rel=0.1)
        assert columns(real, made)[1]["x"].p < 1e-6
        assert columns(real, made)[1]["y"].p > 0.5

    def test_one_column_of_many_that_differs_is_found(self) -> None:
        """Of sixty columns one is shifted by a deviation: the mean hides it, the cell does not."""
        rng = np.random.default_rng(6)
        real, made = (
            pa.table({f"c{i:02d}": rng.normal(size=ROWS) for i in range(60)}) for _ in range(2)
        )
        made = put(made, "c17", of(made, "c17") + 1)
        mean, cells = columns(real, made)
        assert mean.kept
        assert {n for n, c in cells.items() if c.p < 0.05 / 61} == {"c17"}

    def test_more_rows_do_not_move_the_bounds_apart(self) -> None:
        """Between samples of one law the bounds hold 0 at every size, and close in."""
        highs = []
        for rows in (500, 2_000, 8_000, 32_000):
            mean, _ = columns(law(1, rows), law(2, rows))
            assert mean.low < 0.01
            highs.append(mean.high)
        assert highs == sorted(highs, reverse=True)
        assert highs[-1] < highs[0] / 4

    def test_samples_of_other_sizes_are_told_to_be_alike(self) -> None:
        for rows in ((500, 20_000), (20_000, 500)):
            mean, cells = columns(law(1, rows[0]), law(2, rows[1]))
            assert all(c.p > 0.05 for c in (mean, *cells.values()))

    def test_a_broken_pair_is_found_and_its_columns_are_not_blamed(self) -> None:
        real, made = law(1), law(2)
        broken = put(made, "group", np.random.default_rng(0).permutation(of(made, "group")))
        _, cells = pairs(real, broken)
        assert cells["x × group"].p < 1e-3
        assert pairs(real, made)[1]["x × group"].p == 1
        assert columns(real, broken)[1]["group"].p == 1

    def test_swollen_tails_are_found_as_thinned_ones_are(self) -> None:
        real, made = law(1, 20_000), law(2, 20_000)
        for factor, end in ((0.85, 0), (1.2, 1)):
            changed = put(made, "x", factor * of(made, "x"))
            pooled, cells = masses(real.select(["x"]), changed.select(["x"]))
            assert pooled[end].p < 0.01
            assert pooled[1 - end].p > 0.5
            assert min(c.p for c in cells.values()) < 1e-3
        assert all(c.p > 0.05 for c in masses(real, made)[0])


class TestSizes:
    def test_pairs_of_a_wide_table_are_drawn(self) -> None:
        rng = np.random.default_rng(0)
        table = pa.table({f"c{i}": rng.normal(size=200) for i in range(40)})
        pooled, cells, every = pair_cells(both(table, table), 0.12, 0.4, 0.05)
        assert (len(pooled), len(cells), every) == (1, PAIRS, 780)

    def test_one_column_has_no_pairs(self) -> None:
        table = pa.table({"x": np.arange(100.0)})
        assert pair_cells(both(table, table), 0.12, 0.4, 0.05) == ([], [], 0)

    def test_a_column_of_as_many_levels_as_rows_is_not_called_lost(self) -> None:
        """Two samples of a law with a million levels share none; nothing is known, nothing said."""
        rng = np.random.default_rng(0)
        real, made = (
            pa.table({"x": pa.array(rng.integers(0, 10**6, 1000).astype(str)), "y": ["a"] * 1000})
            for _ in range(2)
        )
        schema = infer_schema(real, {"x": {"kind": "categorical"}})
        _, cells = marginal_cells(samples(real, made, schema), 0.05, 0.05)
        assert cells[0].value > 0.95
        assert cells[0].p > 0.05
        assert cells[0].high > 0.95
        assert not cells[0].judged

    def test_what_can_be_judged_grows_with_rows_and_falls_with_cells(self) -> None:
        noise = [np.sqrt(2 / n) for n in (1_000, 3_000, 10_000, 30_000)]
        for occupied in (0, 2, 12, 100):
            even = (occupied / (2 * np.pi)) ** 0.5  # what chance shows in as many equal cells
            known = [may_judge(s, 0.05, 0.05, 15, occupied, even * s) for s in noise]
            assert known == sorted(known)
            assert known[-1]
            fewer = [may_judge(s, 0.05, 0.05, 1, occupied, even * s) for s in noise]
            assert all(f >= k for f, k in zip(fewer, known, strict=True))

    def test_what_is_said_to_be_judged_is_cleared_by_rows_without_fault(self) -> None:
        """At the smallest number of rows at which a column may be judged, 100 runs clear it: each
        misses with a chance of at most 0.002."""
        rows = next(n for n in range(500, 20_000, 100) if may_judge((2 / n) ** 0.5, 0.1, 0.05, 1))
        missed = 0
        for seed in range(100):
            rng = np.random.default_rng([7, seed])
            real, made = (pa.table({"x": rng.normal(size=rows)}) for _ in range(2))
            missed += not columns(real, made, 0.1)[1]["x"].kept
        assert missed <= 3

    def test_bins_hold_all_that_is_told_apart(self) -> None:
        table = pa.table({"l": [str(i % 40) for i in range(4_000)], "n": np.arange(4_000.0)})
        found = both(table, table)
        for column in found.columns:
            from safegen.measure.gaps import coarse

            assert set(np.concatenate(coarse(column))) <= set(range(BINS))
        assert found.groups[0].max() == GROUPS - 1


def test_a_cell_whose_rows_are_all_in_one_group_of_the_jackknife_breaks_nothing() -> None:
    """Five made rows of a new level, by chance all in one group: without it the cell is empty."""
    real, made = law(1, 1_000), law(2, 1_000)
    found = both(real, made)
    group = found.groups[1] == 0
    codes = np.zeros(1_000, dtype=np.int64), np.zeros(1_000, dtype=np.int64)
    codes[0][:500] = codes[1][:500] = 1
    codes[1][np.flatnonzero(group)[:6]] = 2
    gap = _tv(found, codes, 3)
    assert gap.excess_left is not None
    assert np.abs(gap.excess_left).max() < 1
