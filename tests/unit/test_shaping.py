"""Selection and tails on made-up candidates: shares, chances, quotas and weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.errors import UsageError
from safegen.measure.distances import pair_error, shape_error
from safegen.policy import NamedStratum, Policy, TailsParams
from safegen.shaping.calibration import calibration
from safegen.shaping.coding import Coder
from safegen.shaping.drawing import inclusion, systematic, thinned
from safegen.shaping.raking import rake
from safegen.shaping.shape import CANDIDATES, PILOT, Shape, asked_for, shape_for
from safegen.shaping.strata import StrataTally, rare_strata
from safegen.tables.schema import TableSchema, infer_schema

ROWS = 20_000


def real_rows(seed: int = 0, rows: int = ROWS, link: float = 0.8) -> pa.Table:
    """A rare label, numbers that hang together, and levels that hang on a number."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=rows)
    y = link * x + np.sqrt(1 - link**2) * rng.normal(size=rows)
    town = np.array(["a", "b", "c", "d"])[np.digitize(x + rng.normal(size=rows), [-0.5, 0.8, 3.5])]
    label = rng.random(rows) < 1 / (1 + np.exp(6 - 1.2 * y))
    missing = rng.random(rows) < 0.1
    return pa.table(
        {
            "x": pa.array(x),
            "y": pa.array(y, mask=missing),
            "town": pa.array(town),
            "label": pa.array(np.where(label, "yes", "no")),
        }
    )


def schema_of(table: pa.Table, **more: Any) -> TableSchema:
    return infer_schema(table, {"label": {"role": "target"}, **more})


def policy(selection: bool = True, tails: bool = False, **params: Any) -> Policy:
    rules: dict[str, Any] = {
        "lineage": {"severity": "enforce"},
        "manifest": {"severity": "enforce"},
        "selection": {"severity": "enforce" if selection else "off"},
        "tails": {"severity": "enforce" if tails else "off", **(params if tails else {})},
    }
    lab = Policy.load("lab")
    made = {n: type(lab.rule(n)).model_validate(r) for n, r in rules.items()}
    return lab.model_copy(update={"rules": {**lab.rules, **made}})


def drawing(make: Callable[[int, int], pa.Table]) -> Callable[[int], pa.Table]:
    return lambda rows: make(99, rows)


def shaped(shape: Shape, make: Callable[[int, int], pa.Table], rows: int) -> Any:
    """Rows of blocks of 65,536 candidates, and their weights."""
    tables, weights = [], []
    full, left, block = shape.capacity(65_536), rows, 0
    while left > 0:
        wanted = min(full, left)
        candidates = make(1_000 + block, shape.candidates(wanted, 65_536))
        table, weight = shape.rows(candidates, wanted, 65_536, seed=5, block=block)
        tables.append(table)
        weights.append(np.ones(wanted) if weight is None else weight)
        left, block = left - wanted, block + 1
    return pa.concat_tables(tables), np.concatenate(weights)


def share(table: pa.Table, column: str, level: str, weights: np.ndarray | None = None) -> float:
    hit = np.asarray(table.column(column)) == level
    return float(np.average(hit, weights=weights))


# ---- drawing -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 50, allow_subnormal=False), min_size=1, max_size=60),
    st.integers(0, 100),
    st.integers(0, 2**31),
)
def test_chances_add_up_and_nothing_is_drawn_twice(
    sizes: list[float], some: int, seed: int
) -> None:
    count = min(some, len(sizes))
    chances = inclusion(np.array(sizes), count)
    assert (chances >= 0).all()
    assert (chances <= 1 + 1e-12).all()
    assert chances.sum() == pytest.approx(count)
    if count:
        drawn = systematic(chances, count, np.random.default_rng(seed))
        assert len(set(drawn.tolist())) == count
        # What is sure is always there.
        assert set(np.flatnonzero(chances > 1 - 1e-12)) <= set(drawn.tolist())


def test_rows_are_drawn_as_often_as_their_chances_say() -> None:
    sizes = np.array([0.1, 1, 2, 3, 4, 10.0])
    chances = inclusion(sizes, 3)
    rng = np.random.default_rng(1)
    times = np.zeros(6)
    for _ in range(20_000):
        times[systematic(chances, 3, rng)] += 1
    error = np.sqrt(chances * (1 - chances) / 20_000)
    assert (np.abs(times / 20_000 - chances) <= 4 * error + 1e-12).all()


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.01, 50), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 100),
    st.integers(0, 2**31),
)
def test_of_each_group_as_many_are_drawn_as_its_chances_add_up_to(
    rows: list[tuple[float, int]], some: int, seed: int
) -> None:
    count = min(some, len(rows))
    groups = np.array([group for _, group in rows])
    chances = inclusion(np.array([size for size, _ in rows]), count)
    drawn = systematic(chances, count, np.random.default_rng(seed), groups)
    assert len(set(drawn.tolist())) == count
    got = np.bincount(groups[drawn], minlength=6)
    assert (np.abs(got - np.bincount(groups, chances, minlength=6)) < 1 + 1e-9).all()


def test_rows_of_groups_are_drawn_as_often_as_their_chances_say_and_in_no_order() -> None:
    sizes, groups = np.array([0.1, 1, 2, 3, 4, 10.0]), np.array([0, 1, 0, 1, 0, 2])
    chances = inclusion(sizes, 3)
    rng = np.random.default_rng(1)
    times, firsts = np.zeros(6), np.zeros(3)
    for _ in range(20_000):
        drawn = systematic(chances, 3, rng, groups)
        times[drawn] += 1
        firsts[groups[drawn[0]]] += 1
    error = np.sqrt(chances * (1 - chances) / 20_000)
    assert (np.abs(times / 20_000 - chances) <= 4 * error + 1e-12).all()
    due = np.bincount(groups, chances) / 3
    assert (np.abs(firsts / 20_000 - due) <= 4 * np.sqrt(due * (1 - due) / 20_000)).all()


def test_thinned_rows_have_the_weighted_shares_and_real_rows_stay() -> None:
    rng = np.random.default_rng(2)
    group = rng.random(50_000) < 0.2
    weights = np.where(group, 0.2, 1.0)
    kept = thinned(weights, 7)
    assert len(set(kept.tolist())) == len(kept) == int(weights.sum())
    due = weights[group].sum() / weights.sum()
    assert group[kept].mean() == pytest.approx(due, abs=4 * (due / len(kept)) ** 0.5)
    assert np.array_equal(thinned(np.full(9, 0.3), 7), np.arange(9))


# ---- selection -----------------------------------------------------------------------------------


def wrong(seed: int, rows: int) -> pa.Table:
    """A model that has lost half of what hangs together, and that makes town b too often."""
    table = real_rows(seed, 2 * rows, link=0.4)
    rng = np.random.default_rng(seed)
    keep = (np.asarray(table.column("town")) != "b") | (rng.random(2 * rows) < 0.9)
    return table.filter(pa.array(keep)).slice(0, rows)


def correlation(table: pa.Table) -> float:
    whole = table.filter(table.column("y").is_valid())
    return float(np.corrcoef(whole.column("x").to_numpy(), whole.column("y").to_numpy())[0, 1])


def test_selection_mends_shares_and_pairs() -> None:
    real = real_rows()
    shape = shape_for(real, schema_of(real), policy(), drawing(wrong), seed=3)
    made, weights = shaped(shape, wrong, ROWS)
    raw = wrong(1_000, ROWS)
    assert np.all(weights == 1)
    assert made.num_rows == ROWS
    assert abs(correlation(raw) - 0.8) > 0.35
    assert abs(correlation(made) - 0.8) < 0.15
    for town in "abcd":
        due = share(real, "town", town)
        assert share(made, "town", town) == pytest.approx(due, abs=0.005 + 0.03 * due)


def test_levels_that_a_model_has_lost_are_named() -> None:
    """A pool cannot give what is not in it; a model that has it is not blamed."""
    real = real_rows()

    def without_d(seed: int, rows: int) -> pa.Table:
        table = real_rows(seed, rows + rows // 10)
        return table.filter(pc.not_equal(table.column("town"), "d")).slice(0, rows)

    for make, short in ((without_d, ["town#4"]), (real_rows, []), (wrong, [])):
        shape = shape_for(real, schema_of(real), policy(), drawing(make), seed=3)
        assert shape.facts["selection"]["short"] == short


def test_selection_leaves_a_right_model_as_it_is() -> None:
    """What has nothing to mend loses nothing: no cell drifts by more than chance allows."""
    real = real_rows()
    shape = shape_for(real, schema_of(real), policy(), drawing(real_rows), seed=3)
    made, _ = shaped(shape, real_rows, ROWS)
    for column, level in (("town", "a"), ("town", "d"), ("label", "yes")):
        due = share(real, column, level)
        error = (2 * due * (1 - due) / ROWS) ** 0.5
        assert abs(share(made, column, level) - due) < 4 * error
    assert correlation(made) == pytest.approx(correlation(real), abs=0.02)
    assert shape.facts["selection"]["effective_share"] > 0.9


def test_every_candidate_weight_is_bounded_and_one_on_average() -> None:
    real = real_rows()
    coder = Coder.of(real, schema_of(real))
    pilot = coder.code(wrong(4, 30_000))
    found = rake(
        coder, coder.code(real), pilot.part(0, 20_000), pilot, target="label", cap=4.0, seed=1
    )
    weights = found.weights(pilot)
    assert weights.min() >= 0
    assert weights.max() <= 4
    assert weights.mean() == pytest.approx(1, abs=1e-6)
    # Held-out candidates of the same model are weighted alike.
    assert found.weights(coder.code(wrong(5, 30_000))).mean() == pytest.approx(1, abs=0.05)


def test_a_model_far_from_reality_is_weighted_without_overflow() -> None:
    """Two in a hundred of its rows are spread as reality is, and cannot weigh enough: hundreds of
    factors grow, and their product was more than a float holds."""

    def far(seed: int, spread: float, rows: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        width = np.where(rng.random(rows) < spread, 1.0, 0.05)
        return pa.table({f"c{i}": width * rng.random(rows) for i in range(24)})

    real = far(0, 1.0, 2_000)
    coder = Coder.of(real, infer_schema(real), ())
    pilot = coder.code(far(1, 0.02, 8_192))
    found = rake(coder, coder.code(real), pilot, pilot, target=None, cap=4.0, seed=1)
    for weights in (found.weights(pilot), found.finished(coder.code(far(2, 0.02, 8_192)))):
        assert np.isfinite(weights).all()
        assert abs(weights.mean() - 1) < 0.02
        assert weights.max() <= 4.0


def test_a_pool_is_raked_by_its_own_rows() -> None:
    """What it has by chance too much of, columns have not when it is weighted."""
    real = real_rows()
    coder = Coder.of(real, schema_of(real))
    known, pilot = coder.code(real), coder.code(wrong(4, 80_000))
    found = rake(coder, known, pilot.part(0, 20_000), pilot, target="label", cap=4.0, seed=1)
    finished, left = [], []
    for seed in range(5):
        pool = coder.code(wrong(10 + seed, CANDIDATES))
        for column in (2, 3):  # town, label
            due = found.shares[column,]
            many = due * pool.rows >= 4
            for weights, off in ((found.finished(pool), finished), (found.weights(pool), left)):
                got = np.bincount(pool.fine[column], weights, len(due)) / weights.sum()
                off.append((np.abs(got - due)[many] / due[many]).max())
    assert max(finished) < 0.05 < max(left)
    assert np.mean(finished) < np.mean(left) / 3


def test_a_model_without_fault_is_not_drawn_to_the_noise_of_its_training_rows() -> None:
    """Its rows come out nearer to reality than rows of it that were taken as they came."""
    gaps = []
    for seed in range(8):
        real, others = real_rows(seed, 2_000), real_rows(1_000 + seed, 40_000)
        schema = schema_of(real)

        def make(number: int, rows: int, seed: int = seed) -> pa.Table:
            return real_rows(10_000 * seed + number, rows)

        shape = shape_for(real, schema, policy(), drawing(make), seed=3)
        made, _ = shaped(shape, make, 2_000)
        both = [pair_error(others, table, schema) for table in (made, make(7, 2_000))]
        gaps.append(both[0].value - both[1].value)
    assert np.mean(gaps) < 0


def test_numbers_that_few_rows_have_keep_their_mass_in_a_pool() -> None:
    """Of a hundred bins of a column that is nearly always missing most are empty in a pool."""
    rng = np.random.default_rng(0)

    def make(seed: int, rows: int) -> pa.Table:
        there = np.random.default_rng(seed).random(rows) < 0.01
        return pa.table({"x": pa.array(rng.normal(size=rows), mask=~there), "y": rng.random(rows)})

    real = make(1, 40_000)
    coder = Coder.of(real, infer_schema(real))
    known, pilot = coder.code(real), coder.code(make(2, 160_000))
    found = rake(coder, known, pilot, pilot, target=None, cap=4.0, seed=1)
    there = []
    for seed in range(40):
        pool = coder.code(make(100 + seed, CANDIDATES))
        weights = found.finished(pool)
        there.append(np.average(pool.fine[0] > 0, weights=weights))
    assert np.mean(there) == pytest.approx(1 - found.shares[0,][0], rel=0.03)


def test_chance_takes_no_rare_level() -> None:
    """Of a level that three of 2,000 rows have, as many are in 2,000 made ones, one more or less;
    where candidates are taken as they come, that many are there in two of three releases."""
    real = real_rows(rows=2_000)
    towns = np.asarray(real.column("town"), dtype=object)
    towns[:3] = "z"
    real = real.set_column(2, "town", pa.array(towns.tolist()))

    def make(seed: int, rows: int) -> pa.Table:
        rng = np.random.default_rng([seed, 1])
        return real.take(pa.array(rng.integers(0, real.num_rows, rows)))

    shape = shape_for(real, schema_of(real), policy(), drawing(make), seed=3)
    counts = []
    for seed in range(40):
        candidates = make(50 + seed, shape.candidates(2_000, 8_192))
        made, _ = shape.rows(candidates, 2_000, 8_192, seed=seed, block=0)
        counts.append(round(2_000 * share(made, "town", "z")))
    assert sum(2 <= c <= 4 for c in counts) >= 38
    assert np.mean(counts) == pytest.approx(3, abs=3 * 3 / (3 / 2_000 * PILOT[1]) ** 0.5)


def test_a_shorter_request_is_a_prefix_and_rows_are_not_in_pool_order() -> None:
    real = real_rows(rows=3_000)
    shape = shape_for(real, schema_of(real), policy(), drawing(wrong), seed=3)
    candidates = wrong(8, shape.candidates(5_000, 65_536))
    assert candidates.num_rows == 3 * CANDIDATES
    whole, _ = shape.rows(candidates, 5_000, 65_536, seed=1, block=0)
    short, _ = shape.rows(candidates.slice(0, CANDIDATES), 700, 65_536, seed=1, block=0)
    assert short.equals(whole.slice(0, 700))
    other, _ = shape.rows(candidates, 5_000, 65_536, seed=1, block=1)
    assert not other.equals(whole)
    place = {x: i for i, x in enumerate(candidates.column("x").to_pylist())}
    order = [place[x] for x in whole.slice(0, 2_000).column("x").to_pylist()]
    assert len(set(order)) == 2_000
    assert abs(np.corrcoef(order, np.arange(2_000))[0, 1]) < 0.1


@pytest.mark.parametrize("block_rows", [1, 3, 256, 8_192, 10_000, 65_536])
def test_blocks_of_any_size_can_be_shaped(block_rows: int) -> None:
    real = real_rows(rows=2_000)
    shape = shape_for(real, schema_of(real), policy(), drawing(real_rows), seed=3)
    full = shape.capacity(block_rows)
    assert full >= 1
    needed = shape.candidates(full, block_rows)
    assert needed <= block_rows
    made, _ = shape.rows(real_rows(3, needed), full, block_rows, seed=1, block=0)
    assert made.num_rows == full


def test_levels_and_numbers_that_reality_does_not_have_are_no_error() -> None:
    real = real_rows(rows=2_000)
    odd = real_rows(9, 20_000).set_column(
        2, "town", pa.array(np.random.default_rng(1).choice(["a", "new", None], 20_000))
    )
    shape = shape_for(real, schema_of(real), policy(), lambda n: odd.slice(0, n), seed=3)
    made, _ = shape.rows(odd.slice(0, 8_192), 2_048, 8_192, seed=1, block=0)
    assert share(made, "town", "new") < 0.5 * share(odd, "town", "new")


# ---- tails ---------------------------------------------------------------------------------------


def test_tails_go_by_whole_hundredths_as_the_parameter_says() -> None:
    """Levels have any share: those rarer than a hundredth stay rare."""
    real = real_rows().drop_columns(["y"])
    schema = schema_of(real)

    def ids(rare: float) -> set[str]:
        params = policy(tails=True, rare=rare).rule("tails")
        assert isinstance(params, TailsParams)
        return {s.id for s in rare_strata(real, schema, Coder.of(real, schema), params).strata}

    tails, level = {"x#low", "x#high"}, {"town#4"}
    assert tails | level <= ids(0.01)
    few = ids(0.0085)
    assert level <= few
    assert not tails & few
    said = TailsParams.parameters()["rare"].doc
    assert "below about 0.009 a number has none" in said


def test_rare_regions_reach_their_quotas_and_weights_undo_it() -> None:
    real = real_rows()
    asked = policy(selection=False, tails=True)
    shape = shape_for(real, schema_of(real), asked, drawing(real_rows), seed=3)
    made, weights = shaped(shape, real_rows, 40_000)
    tally = shape.tally()
    assert tally is not None
    tally.update(made.slice(0, 15_000), weights[:15_000])
    tally.update(made.slice(15_000), weights[15_000:])
    facts = tally.facts()
    assert facts["rows"] == 40_000
    assert facts["short"] == []
    assert facts["effective_rows"] / 40_000 > 0.8
    ids = {s["id"] for s in facts["strata"]}
    assert {"town#4", "x#low", "x#high", "y#low"} <= ids
    assert not any(level in str(facts) for level in ("'yes'", "'d'"))
    for stratum in facts["strata"]:
        due, n = stratum["share"], stratum["real_rows"]
        low, high = stratum["interval"]
        error = ((high - low) / 3.92) ** 2 + due * (1 - due) / ROWS
        assert abs(stratum["weighted_share"] - due) < 4 * error**0.5
        assert n >= 30
        assert stratum["rows"] > 1.2 * due * 40_000
    assert weights.mean() == pytest.approx(1, abs=0.02)
    assert weights.max() / weights.min() <= 20
    assert correlation(real) == pytest.approx(
        float(
            np.cov(*_whole(made), aweights=weights[np.asarray(made.column("y").is_valid())])[0, 1]
        ),
        abs=0.03,
    )


def _whole(made: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    known = made.filter(made.column("y").is_valid())
    return known.column("x").to_numpy(), known.column("y").to_numpy()


def test_with_selection_quotas_are_reached_too() -> None:
    real = real_rows()
    asked = policy(selection=True, tails=True)
    shape = shape_for(real, schema_of(real), asked, drawing(wrong), seed=3)
    made, weights = shaped(shape, wrong, 40_000)
    tally = StrataTally(shape.strata)  # type: ignore[arg-type]
    tally.update(made, weights)
    by_id = {s["id"]: s for s in tally.facts()["strata"]}
    assert by_id["town#4"]["rows"] >= 0.9 * by_id["town#4"]["quota"] * 40_000
    assert by_id["town#4"]["weighted_share"] == pytest.approx(by_id["town#4"]["share"], rel=0.2)
    assert shape.pool <= 16


def rare_class(share: float, alike: float) -> Callable[[int, int], pa.Table]:
    """Rows of which a share are of a class, and that share of these look as they do in reality."""

    def make(seed: int, rows: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        rare = rng.random(rows) < share
        moved = np.where(rare & (rng.random(rows) < alike), 2.5, 0.0)
        numbers = {f"x{i}": rng.normal(size=rows) + moved for i in range(5)}
        return pa.table({**numbers, "label": np.where(rare, "yes", "no")})

    return make


def test_a_rare_class_that_is_mostly_unlike_reality_weighs_what_it_should() -> None:
    """Half as many candidates as there should be, of which few look real: their weights are skewed,
    and pools of a dozen of them gave the class three quarters of its share."""
    real, make = rare_class(0.004, 1.0)(0, ROWS), rare_class(0.002, 0.15)
    due = float(np.mean(np.asarray(real.column("label")) == "yes"))
    for rules in (policy(True, True), policy(True, False)):
        shape = shape_for(real, schema_of(real), rules, drawing(make), seed=3)
        made, weights = shaped(shape, make, 30_000)
        found = np.average(np.asarray(made.column("label")) == "yes", weights=weights)
        assert found == pytest.approx(due, rel=0.12)


def test_boosts_are_found_with_the_weights_that_pools_give() -> None:
    """With those of the pilot a class of skewed weights had 15 % more rows than its quota here."""
    real, make = rare_class(0.004, 1.0)(0, ROWS), rare_class(0.004, 0.15)
    shape = shape_for(real, schema_of(real), policy(True, True), drawing(make), seed=3)
    made, _ = shaped(shape, make, 30_000)
    assert shape.strata is not None
    (quota,) = (s.quota for s in shape.strata.strata if s.id == "label#2")
    assert np.mean(np.asarray(made.column("label")) == "yes") == pytest.approx(quota, rel=0.07)


def test_the_mass_that_is_there_for_boosts_is_bounded() -> None:
    real = real_rows()
    for most in (0.05, 0.2):
        asked = policy(False, True, max_boosted=most)
        shape = shape_for(real, schema_of(real), asked, drawing(real_rows), seed=3)
        assert shape.strata is not None
        assert shape.strata.mean <= 1 / (1 - most) + 1e-9
        share = 1 - 1 / shape.strata.mean
        assert boosted_share(shape, real_rows) == pytest.approx(share, rel=0.1)


def boosted_share(shape: Shape, make: Callable[[int, int], pa.Table]) -> float:
    made, weights = shaped(shape, make, 40_000)
    tally = StrataTally(shape.strata)  # type: ignore[arg-type]
    tally.update(made, weights)
    return float(tally.facts()["boosted_share"])


def flagged(together: bool, share: float) -> Callable[[int, int], pa.Table]:
    """Sixteen columns with a rare level each, all in the same rows or independent of each other."""

    def make(seed: int, rows: int) -> pa.Table:
        rng = np.random.default_rng(seed)
        rare = rng.random((rows, 1 if together else 16)) < share
        values = np.where(np.broadcast_to(rare, (rows, 16)), "rare", "usual")
        return pa.table({f"c{i}": v for i, v in enumerate(values.T)})

    return make


@pytest.mark.parametrize("selection", [False, True])
def test_the_bound_holds_where_strata_coincide_in_reality_and_not_in_the_model(
    selection: bool,
) -> None:
    """The model has half as many rows of each as there should be. Bounded by the real rows alone,
    or by quotas that are then filled one by one, there is more than the policy grants."""
    real, make = flagged(True, 0.008)(0, ROWS), flagged(False, 0.004)
    shape = shape_for(real, infer_schema(real), policy(selection, True), drawing(make), seed=3)
    assert 0.1 < boosted_share(shape, make) < 0.21


def test_what_the_policy_names_comes_first_and_groups_of_few_people_are_left() -> None:
    real = real_rows()
    who = np.arange(ROWS)
    who[np.asarray(real.column("town")) == "d"] = 5  # one person has all of town d
    people = real.append_column("who", pa.array([f"p{i}" for i in who]))
    named = (NamedStratum(column="x", above=2.5), NamedStratum(column="town", equals="c"))
    params = policy(False, True, strata=named, max_boosted=0.5).rule("tails")
    declared = schema_of(people, who={"role": "entity"})
    coder = Coder.of(people, declared, named)
    found = rare_strata(people, declared, coder, params)  # type: ignore[arg-type]
    ids = [s.id for s in found.strata]
    assert ids[:2] == ["named#1", "named#2"]
    assert found.strata[0].real_rows == int((real.column("x").to_numpy() > 2.5).sum())
    assert found.strata[1].share > 0.05  # as common as it may be: the policy names it
    assert "town#4" in found.few
    assert "town#4" not in ids
    public = schema_of(people, who={"role": "entity"}, town={"public": True})
    shown = rare_strata(people, public, coder, params)  # type: ignore[arg-type]
    assert "town#4" in [s.id for s in shown.strata]


def test_of_tens_of_thousands_of_strata_the_rarest_are_boosted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = real_rows()
    schema = schema_of(real)
    coder = Coder.of(real, schema)
    params: Any = policy(False, True).rule("tails")
    every = rare_strata(real, schema, coder, params)
    assert every.left_out == 0
    assert len(every.strata) > 4
    monkeypatch.setattr("safegen.shaping.strata.MOST_STRATA", 4)
    few = rare_strata(real, schema, coder, params)
    assert few.left_out == len(every.strata) + len(every.few) - 4
    order = sorted(every.strata, key=lambda s: (s.tier, s.real_rows))
    assert {s.id for s in few.strata} == {s.id for s in order[:4]}


@pytest.mark.parametrize(
    "named", [NamedStratum(column="nothing", equals=1), NamedStratum(column="town", below=3.0)]
)
def test_a_stratum_that_cannot_be_is_refused(named: NamedStratum) -> None:
    real = real_rows(rows=1_000)
    with pytest.raises(UsageError, match="the policy names a stratum"):
        Coder.of(real, schema_of(real), [named])


@pytest.mark.parametrize("fields", [{}, {"equals": 1, "above": 2.0}])
def test_a_named_stratum_has_one_condition(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="say equals, or above, below or both"):
        NamedStratum(column="x", **fields)


def test_no_shape_where_no_rule_asks_for_one() -> None:
    assert not asked_for(policy(False, False))
    assert asked_for(policy(True, False))
    assert asked_for(policy(False, True))


# ---- calibration ---------------------------------------------------------------------------------


def test_calibration_mends_marginals_keeps_ranks_and_copies_no_real_value() -> None:
    rng = np.random.default_rng(5)
    amount = np.where(rng.random(ROWS) < 0.6, 0.0, np.round(rng.lognormal(3, 1, ROWS), 2))
    days, x = rng.integers(0, 900, ROWS), rng.normal(size=ROWS)
    real = pa.table({"amount": amount, "days": days, "x": x})
    made = pa.table(
        {
            "amount": np.where(amount == 0, 0.0, np.minimum(amount**0.8, amount.max())),
            "days": rng.integers(0, 700, ROWS),
            "x": np.clip(1.5 * rng.normal(size=ROWS), -3.9, 3.9),
        }
    )
    schema = infer_schema(real)
    change = calibration(real, made, schema)
    mapped = change(made)
    assert set(change.maps) == {"amount", "days", "x"}
    assert mapped.schema.types == made.schema.types
    before, after = (shape_error(real, t, schema).value for t in (made, mapped))
    assert after < 2 < before
    for name in ("amount", "x"):
        old, new = (t.column(name).to_numpy() for t in (made, mapped))
        order = np.argsort(old, kind="stable")
        assert (np.diff(new[order]) >= 0).all()
    assert not set(mapped.column("x").to_pylist()) & set(real.column("x").to_pylist())
    assert (mapped.column("amount").to_numpy() == 0).mean() == pytest.approx((amount == 0).mean())
    for name in real.column_names:
        low, high = (f(real.column(name).to_numpy()) for f in (np.min, np.max))
        assert low <= mapped.column(name).to_numpy().min()
        assert mapped.column(name).to_numpy().max() <= high


@pytest.mark.parametrize("many", [0.4, 1.0])
def test_equal_values_go_to_the_middle_of_what_they_stand_for(many: float) -> None:
    rng = np.random.default_rng(5)
    real = pa.table({"x": rng.normal(size=4_000)})
    x = np.where(rng.random(4_000) < many, 0.5, rng.normal(0.5, 1.0, 4_000))
    made = pa.table({"x": x})
    schema = infer_schema(real)
    mapped = calibration(real, made, schema)(made)
    moved = np.unique(np.asarray(mapped.column("x"))[x == 0.5])
    assert len(moved) == 1
    assert abs(moved[0]) < 0.05  # the real median, not the lower edge of forty per cent
    before, after = (shape_error(real, t, schema).value for t in (made, mapped))
    assert after < before


@pytest.mark.parametrize(("kind", "digits"), [(np.float16, 1), (np.float32, 2), (np.float64, 2)])
def test_calibration_keeps_the_digits_of_every_float(kind: type, digits: int) -> None:
    rng = np.random.default_rng(2)

    def rounded(scale: float) -> np.ndarray:
        return np.round(scale * rng.lognormal(size=4_000), digits).astype(kind)

    real, made = (pa.table({"x": rounded(scale)}) for scale in (1.0, 1.3))
    change = calibration(real, made, infer_schema(real))
    assert set(change.maps) == {"x"}
    found = np.asarray(change(made).column("x"))
    assert (np.round(found.astype(np.float64), digits).astype(kind) == found).all()


def test_calibration_is_declared_and_written_down() -> None:
    real = real_rows()
    asked = policy()
    rule = asked.rule("selection").model_copy(update={"calibrate": True})
    asked = asked.model_copy(update={"rules": {**asked.rules, "selection": rule}})
    shape = shape_for(real, schema_of(real), asked, drawing(wrong), seed=3)
    assert shape.facts["selection"]["calibrated"] == ["x", "y"]
    made, _ = shaped(shape, wrong, 3_000)
    assert made.column("y").null_count > 0
    plain = shape_for(real, schema_of(real), policy(), drawing(wrong), seed=3)
    assert plain.facts["selection"]["calibrated"] == []


# ---- types that Arrow has few functions for ------------------------------------------------------


def test_calibration_keeps_nan_null_and_half_floats() -> None:
    rng = np.random.default_rng(3)
    half = rng.normal(size=4_000).astype(np.float16)
    holes = np.where(rng.random(4_000) < 0.2, np.nan, rng.normal(size=4_000))
    real = pa.table({"half": half, "holes": holes, "nulls": pa.array(holes, from_pandas=True)})
    change = calibration(real, real, infer_schema(real, {}))
    assert set(change.maps) == {"half", "holes", "nulls"}
    found = change(real)
    assert found.schema == real.schema
    assert [found.column(n).null_count for n in real.column_names] == [
        real.column(n).null_count for n in real.column_names
    ]
    assert np.array_equal(np.isnan(found.column("holes").to_numpy()), np.isnan(holes))
