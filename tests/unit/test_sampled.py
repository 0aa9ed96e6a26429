"""A part of what is too large to hold: every stratum keeps its share, no level is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.measure.profile import profiles
from safegen.measure.whole import WholeTally
from safegen.tables import memory, sampled
from safegen.tables.batches import Batches
from safegen.tables.sampled import Draw, Levels, counting
from safegen.tables.schema import infer_schema


def draw(table: pa.Table, rows: int, seed: int = 7, size: int = 100) -> pa.Table:
    """A part of a table that passes in batches of `size` rows, twice."""
    levels = Levels.of(table.schema)
    passing = Batches(table.schema, lambda: table.to_batches(max_chunksize=size))
    for _ in counting(passing, levels):
        pass
    drawing = Draw(table.schema, levels, rows=rows, of=table.num_rows, seed=seed)
    for batch in passing:
        drawing(batch)
    return drawing.table()


def people(rows: int = 20_000) -> pa.Table:
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "n": np.arange(rows),
            "kind": rng.choice(["a", "b", "c", "d", "e"], rows, p=[0.6, 0.3, 0.08, 0.0197, 0.0003]),
            "member": rng.choice([True, False], rows),
            "note": pa.array(
                [None if i % 1_000 else f"note {i // 1_000 % 3}" for i in range(rows)]
            ),
            "x": rng.normal(size=rows),
        }
    )


columns = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", None]), st.sampled_from([True, False, None])),
    min_size=1,
    max_size=300,
)


@settings(max_examples=60, deadline=None)
@given(columns, st.integers(1, 300), st.integers(0, 2**63 - 1), st.integers(1, 60))
def test_every_stratum_keeps_its_share_and_every_level_a_row(
    rows: list[tuple[str | None, bool | None]], asked: int, seed: int, size: int
) -> None:
    asked = min(asked, len(rows))
    table = pa.table(
        {
            "n": np.arange(len(rows)),
            "kind": pa.array([k for k, _ in rows], pa.string()),
            "flag": pa.array([f for _, f in rows], pa.bool_()),
        }
    )
    part = draw(table, asked, seed, size)
    numbers = part.column("n").to_pylist()
    assert len(set(numbers)) == len(numbers)  # without replacement
    for name in ("kind", "flag"):
        assert set(part.column(name).to_pylist()) == set(table.column(name).to_pylist())
    # A row's stratum is its rarest level, by what is counted here in Python.
    counts = {name: Counter(table.column(name).to_pylist()) for name in ("kind", "flag")}

    def rarest(row: tuple[str | None, bool | None]) -> int:
        return min(counts["kind"][row[0]], counts["flag"][row[1]])

    # Of rows with levels as rare as these there may be several strata: each is off by one at most.
    there = Counter(map(rarest, rows))
    kept = Counter(rarest(rows[n]) for n in numbers)
    for rare, count in there.items():
        strata = sum(n == rare for one in counts.values() for n in one.values())
        share = asked * count / len(rows)
        assert share - strata <= kept[rare] <= share + 2 * strata


def test_shares_of_strata_are_exact_where_chance_would_not_be() -> None:
    table = people()
    part = draw(table, 2_000)
    assert abs(part.num_rows - 2_000) < 10
    whole, kept = (Counter(t.column("kind").to_pylist()) for t in (table, part))
    assert 0 < whole["e"] < 20
    assert kept["e"] >= 1
    for level in "cd":  # within one of a tenth, but for rows that have a rarer note
        assert abs(kept[level] - whole[level] / 10) <= 3
    assert abs(np.mean(part["x"])) < 4 / 2_000**0.5


def test_a_seed_says_which_rows_however_they_are_cut() -> None:
    table = people()
    assert draw(table, 500).equals(draw(table, 500, size=7_001))
    assert not draw(table, 500).equals(draw(table, 500, seed=8))


def test_rows_are_drawn_from_all_of_a_file_that_is_sorted() -> None:
    """Periods in the order of rows, too, are no trap: within each run of rows it is chance."""
    n = 40_000
    table = pa.table({"n": np.arange(n), "even": np.arange(n) % 2})
    part = draw(table, 1_000)
    assert part.num_rows == 1_000
    assert np.bincount(np.asarray(part["n"]) * 10 // n).tolist() == [100] * 10
    assert abs(np.mean(part["even"]) - 0.5) < 0.08


def test_floats_that_are_declared_categorical_count_nan_as_missing() -> None:
    table = pa.table({"f": [1.0, float("nan"), None, 2.0] * 100})
    levels = Levels.of(table.schema, frozenset({"f"}))
    for _ in counting(Batches.of(table), levels):
        pass
    assert levels.counts["f"] == {1.0: 100, None: 200, 2.0: 100}
    assert levels.strata == 4


def test_columns_of_too_many_levels_make_no_strata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampled, "_MOST_LEVELS", 10)
    table = pa.table({"id": [str(i) for i in range(400)], "kind": ["a", "b"] * 200})
    levels = Levels.of(table.schema)
    for _ in counting(Batches(table.schema, lambda: table.to_batches(max_chunksize=50)), levels):
        pass
    assert [*levels.ranked()] == ["kind"]
    assert len(levels.counts["id"]) < 100  # nor does it take memory


# ---- the profile of all rows ---------------------------------------------------------------------


@pytest.mark.parametrize("conditions", [{}, {"kind": "b"}])
def test_gates_are_held_against_counts_of_all_rows(conditions: dict[str, str]) -> None:
    table = people().append_column("who", pa.array([f"ab-{i % 5_000:06}" for i in range(20_000)]))
    schema = infer_schema(table, {"who": {"role": "personal"}})
    part = draw(table, 2_000)
    drawn = profiles({"t": part}, {"t": schema}, conditions)["t"]
    tally = WholeTally(drawn, schema, conditions)
    for batch in table.to_batches(max_chunksize=999):
        tally(batch)
    found, exact = tally.profile(), profiles({"t": table}, {"t": schema}, conditions)["t"]
    assert found.rows == exact.rows
    for name in ("kind", "member", "note"):
        assert found.columns[name].levels == exact.columns[name].levels
        for field in ("rows", "missing", "known", "top", "constant", "spreads"):
            assert getattr(found.columns[name], field) == getattr(exact.columns[name], field)
    x, of = found.columns["x"], exact.columns["x"]
    assert (x.rows, x.missing, x.low, x.high, x.constant) == (
        of.rows,
        of.missing,
        of.low,
        of.high,
        of.constant,
    )
    # A tail begins where that of the rows drawn does; how many there are beyond it is exact.
    values = np.asarray(table["x"])
    if conditions:
        values = values[np.asarray(table["kind"]) == "b"]
    cut, beyond = x.tails["low"]
    assert beyond == int((values < cut).sum())
    assert x.spreads[0].held["low"] == beyond
    assert 0.003 < beyond / len(values) < 0.03
    # Of identifiers those that a fit may have seen, and how many people have them among all.
    ids = found.identifiers["who"]
    assert set(ids.values.to_pylist()) == set(part["who"].to_pylist())
    assert set(ids.people.tolist()) == {4}


def test_a_constant_of_the_part_and_an_infinity_say_nothing_of_the_whole() -> None:
    table = pa.table({"x": [1.0] * 998 + [2.0, np.inf], "y": np.arange(1_000.0)})
    schema = infer_schema(table)
    drawn = profiles({"t": table.slice(0, 100)}, {"t": schema})["t"]
    assert drawn.columns["x"].constant
    tally = WholeTally(drawn, schema, {})
    for batch in table.to_batches():
        tally(batch)
    assert not tally.profile().columns["x"].constant
    assert tally.profile().columns["x"].high == 2.0


# ---- the budget ----------------------------------------------------------------------------------


def test_what_is_in_memory_fits_and_a_file_by_its_first_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = people()
    from_file = Batches(table.schema, lambda: table.to_batches(max_chunksize=500), table.num_rows)
    unknown = Batches(table.schema, from_file.open)
    for batches in (from_file, unknown):
        assert abs(memory.bytes_of(batches) / table.nbytes - 1) < 0.1
    monkeypatch.setattr(memory, "budget", lambda: int(table.nbytes * 1.2))
    assert memory.fits([from_file])
    assert not memory.fits([from_file, unknown])
    assert memory.fits([Batches.of(table), Batches.of(table)])  # they are there already


def test_a_container_may_use_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = memory.budget()
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_limit_files", lambda: [tmp_path / "none", limit])
    limit.write_text("max\n")
    assert memory.budget() >= most
    limit.write_text(f"{1 << 30}\n")
    assert memory.budget() == 1 << 27


def test_control_groups_of_both_kinds_are_asked(tmp_path: Path) -> None:
    groups = tmp_path / "cgroup"
    groups.write_text("4:memory:/one\n3:cpu:/two\n0::/three\n")
    found = [str(p) for p in memory._limit_files(groups)]
    assert "/sys/fs/cgroup/memory/one/memory.limit_in_bytes" in found
    assert "/sys/fs/cgroup/three/memory.max" in found
    assert not any("two" in p for p in found)
