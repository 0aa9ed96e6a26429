"""What a report draws: shares between round numbers, ranks, levels by rank, pairs; no values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.decision import Finding, Part, decide
from safegen.measure.drawn import Drawn
from safegen.measure.figures import Figures, column_figures, parts_of, weights_shown
from safegen.measure.scales import bins_of, ticks_of
from safegen.measure.ties import COLUMNS, cramer, ties
from safegen.policy import Policy
from safegen.tables.schema import TableSchema, infer_schema


def drawn(table: pa.Table, weights: Any = None) -> Drawn:
    return Drawn(table, np.ones(table.num_rows) if weights is None else np.asarray(weights))


def both(real: dict[str, Any], made: dict[str, Any], **more: Any) -> Any:
    tables = pa.table(real), pa.table(made)
    schema = infer_schema(tables[0], more.pop("roles", {}))
    return column_figures(
        "table", tables[0], drawn(tables[1], more.pop("weights", None)), schema, real_values=False
    )


def test_shares_lie_between_round_numbers() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(50, 10, 5_000), rng.normal(52, 10, 4_000)
    (column,), pairs = both({"x": real}, {"x": made})
    bins = column.bins
    assert pairs is None  # one column
    assert bins is not None
    assert 15 <= len(bins.made) <= 40
    for side, shares in enumerate((bins.real, bins.made)):
        assert sum(shares) + bins.below[side] + bins.above[side] == pytest.approx(1, abs=1e-3)
    assert [name for _, name in bins.ticks] == ["30", "40", "50", "60", "70"] or all(
        float(name) % 5 == 0 for _, name in bins.ticks
    )
    # up to the quantiles of the made rows there are more real rows, for these are smaller
    assert all(made_share == pytest.approx(k / 40, abs=0.01) for k, (_, made_share) in
               enumerate(bins.ranks, 1))  # fmt: skip
    assert bins.ranks[19][0] > 0.55


def test_alike_rows_follow_the_diagonal_also_with_a_point_mass() -> None:
    rng = np.random.default_rng(1)
    values = np.where(rng.random(8_000) < 0.7, 0.0, rng.lognormal(5, 2, 8_000))
    (column,), _ = both({"x": values}, {"x": rng.permutation(values)})
    assert column.bins is not None
    assert max(abs(a - b) for a, b in column.bins.ranks) == 0
    assert column.bins.real == column.bins.made


def test_a_lost_tail_shows_beside_the_chart() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=10_000)
    made = real[np.abs(real) < 1.5]
    (column,), _ = both({"x": real}, {"x": made})
    assert column.bins is not None
    assert column.bins.below[0] > 0.03
    assert column.bins.below[1] == pytest.approx(0, abs=0.006)


def test_levels_are_named_by_rank_and_new_ones_counted() -> None:
    real = ["often"] * 600 + ["seldom"] * 300 + ["rare"] * 100 + [None] * 250
    made = ["seldom"] * 500 + ["often"] * 400 + ["unheard of"] * 100
    (column,), _ = both({"x": real}, {"x": made}, roles={"x": {"kind": "categorical"}})
    levels = column.levels
    assert levels is not None
    assert levels.names == ["#1", "#2", "#3"]
    assert (levels.real, levels.made) == ([0.6, 0.3, 0.1], [0.4, 0.5, 0.0])
    assert (levels.new, column.missing) == (0.1, (0.2, 0.0))
    assert "often" not in json.dumps(column.model_dump(mode="json"))


def test_weights_count() -> None:
    made = {"x": ["a"] * 50 + ["b"] * 50}
    roles = {"x": {"kind": "categorical"}}
    weights = np.repeat([1.5, 0.5], 50)
    (column,), _ = both({"x": ["a", "b"] * 50}, made, weights=weights, roles=roles)
    assert column.levels is not None
    assert column.levels.made == [0.75, 0.25]
    shown = weights_shown({"table": drawn(pa.table(made), weights)}, 1_000, None)
    assert shown is not None
    assert shown.effective == pytest.approx(800)
    assert sum(shown.shares) == pytest.approx(1)
    assert weights_shown({"table": drawn(pa.table(made))}, 1_000, None) is None


@pytest.mark.parametrize(
    ("low", "high", "type_", "names"),
    [
        (0, 99, pa.int64(), ["0", "20", "40", "60", "80", "100"]),
        (1, 5, pa.int8(), ["1", "2", "3", "4", "5"]),
        (0.0, 2.5e6, pa.float64(), ["0", "500k", "1M", "1.5M", "2M", "2.5M"]),
        (-0.002, 0.002, pa.float32(), ["-0.002", "-0.001", "0", "0.001", "0.002"]),
        (18_000, 29_000, pa.date32(), ["2020", "2030", "2040", "2050"]),
        (18_000, 18_300, pa.date32(), ["2019-07", "2019-10", "2020-01"]),
        (0, 86_399, pa.time32("s"), ["00:00", "06:00", "12:00", "18:00", "24:00"]),
        (7.0, 7.0, pa.float64(), None),
        (5, 5, pa.int64(), ["5"]),
        (-(2**62), 2**62, pa.timestamp("ns"), None),
    ],
)
def test_scales_are_round(low: float, high: float, type_: Any, names: Any) -> None:
    scale = bins_of(low, high, type_)
    assert 1 <= len(scale.edges) - 1 <= 80
    assert scale.edges[0] <= low
    assert scale.edges[-1] > high
    ticks = ticks_of(scale)
    assert all(0 <= place <= 1 for place, _ in ticks)
    assert [p for p, _ in ticks] == sorted(p for p, _ in ticks)
    if names is not None:
        assert [name for _, name in ticks] == names


def test_every_type_can_be_drawn_and_said() -> None:
    from safegen.measure.excerpts import sample
    from safegen.testing.examples import example_traps

    example = example_traps(400)
    ((name, table),) = example.tables.items()
    schema = example.schemas[name]
    made = drawn(table)
    found, pairs = column_figures(name, table, made, schema, real_values=False)
    assert {c.name for c in found} >= {c.name for c in schema.columns if c.kind == "numeric"}
    assert pairs is not None
    for shown in (False, True):
        one = sample(name, made, table, schema, real_values=shown)
        assert one is not None
        assert example.canary not in json.dumps(one.model_dump(mode="json")) or shown


def test_cramer_knows_what_hangs_together() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.integers(0, 5, (2, 2_000))

    def table(x: Any, y: Any) -> Any:
        return np.histogram2d(x, y, bins=[range(6), range(6)])[0]

    assert cramer(table(a, a), 2_000) == pytest.approx(1, abs=0.01)
    assert cramer(table(a, b), 2_000) < 0.05
    assert cramer(table(a, a * 0), 2_000) == 0


def test_ties_are_of_pairs_in_order_and_of_the_first_columns() -> None:
    rng = np.random.default_rng(4)
    n = 800
    x = rng.normal(size=n)
    real = {"a": x, "b": x + 0.1 * rng.normal(size=n), "c": rng.normal(size=n)}
    made = {k: rng.permutation(v) for k, v in real.items()}
    _, found = both(real, made)
    assert found is not None
    assert found.columns == ["a", "b", "c"]
    assert [v > 0.5 for v in found.real] == [True, False, False]
    assert max(found.made) < 0.2
    many = pa.table({f"c{i}": rng.normal(size=60) for i in range(COLUMNS + 3)})
    schema = infer_schema(many, {})
    assert isinstance(schema, TableSchema)
    wide = ties("t", many, many, schema, np.ones(60))
    assert wide is not None
    assert (len(wide.columns), wide.left_out) == (COLUMNS, 3)


def test_figures_go_through_json_and_hold_finite_numbers_only() -> None:
    finding = Finding(
        "support",
        "levels",
        "met",
        "seen",
        "wanted",
        value=0.5,
        interval=(0.4, 0.6),
        within=(None, 0.7),
        parts=(
            Part("a", 0.5, (0.4, 0.6), (None, 0.7)),
            Part("b", float("nan"), (0.0, 1.0), (None, None)),
        ),
    )
    decision = decide(Policy.load("baseline"), "release", [finding], ledger={})
    parts = parts_of(decision)
    assert [p.name for p in parts["support/levels"]] == ["a"]
    figures = Figures(asked=10, noun="rows", parts=parts)
    assert Figures.model_validate_json(figures.model_dump_json()) == figures
    told = decision.to_json()["findings"]["support/levels"]
    assert (told["value"], told["within"]) == (0.5, [None, 0.7])
    assert "parts" not in told
