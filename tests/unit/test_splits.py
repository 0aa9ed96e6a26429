"""Held-out rows: by content, whole entities on one side, nothing lost."""

import numpy as np
import pyarrow as pa
import pytest

from safegen.errors import UsageError
from safegen.tables.splits import split


def people(rows: int = 3000) -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table({"who": rng.integers(0, 700, rows), "x": rng.normal(size=rows)})


def sides(table: pa.Table, **more: object) -> list[pa.Table]:
    found = split(table, 0.2, **more)  # type: ignore[arg-type]
    return [found.anchor, found.held]


def test_every_row_is_on_one_side() -> None:
    table = people()
    parts = sides(table)
    assert sum(p.num_rows for p in parts) == table.num_rows
    joined = pa.concat_tables(parts).sort_by("x")
    assert joined.equals(table.sort_by("x"))


def test_the_share_holds_within_sampling_error() -> None:
    for part, share in zip(sides(people(20_000)), (0.8, 0.2), strict=True):
        assert abs(part.num_rows / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5


def test_nothing_is_held_out_where_nothing_is_asked_for() -> None:
    table = people()
    found = split(table, 0)
    assert found.anchor.equals(table)
    assert found.held.num_rows == 0


def test_duplicates_are_on_one_side() -> None:
    table = people()
    twice = pa.concat_tables([table, table])
    kept, held = (set(p.column("x").to_pylist()) for p in sides(twice))
    assert kept
    assert held
    assert not kept & held


def test_an_entity_is_on_one_side() -> None:
    kept, held = (set(p.column("who").to_pylist()) for p in sides(people(), entity="who"))
    assert kept
    assert held
    assert not kept & held


def test_a_row_keeps_its_side_when_others_come_and_columns_move() -> None:
    table = people()
    before = set(split(table, 0.2).held.column("x").to_pylist())
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows)).select(["x", "who"])
    more = pa.concat_tables([shuffled, people(500).select(["x", "who"])])
    after = set(split(more, 0.2).held.column("x").to_pylist())
    assert before <= after


def rare(rows: int = 4_000) -> pa.Table:
    """Forty levels, of which thirty have a row or two, some of them missing; and their people."""
    rng = np.random.default_rng(5)
    few = np.repeat(np.arange(10, 40), rng.integers(1, 3, 30))
    codes = np.concatenate([few, rng.integers(0, 10, rows - len(few))])
    level = pa.array([None if c == 10 else f"l{c}" for c in codes])
    return pa.table({"level": level, "who": np.arange(rows) // 2, "x": rng.normal(size=rows)})


@pytest.mark.parametrize("entity", [None, "who"])
def test_no_level_is_held_out_altogether(entity: str | None) -> None:
    table = rare()
    every = set(table.column("level").to_pylist())
    plain = split(table, 0.2, entity=entity)
    lost = every - set(plain.anchor.column("level").to_pylist())
    assert lost, "the plain split must lose some, or this test shows nothing"
    found = split(table, 0.2, entity=entity, levels=["level"])
    assert set(found.anchor.column("level").to_pylist()) == every
    moved = found.anchor.num_rows - plain.anchor.num_rows
    assert len(lost) <= moved <= len(lost) * (1 if entity is None else 2)
    both = pa.concat_tables([found.anchor, found.held])
    assert both.sort_by("x").equals(table.sort_by("x"))


def test_who_is_kept_does_not_depend_on_the_order_of_rows() -> None:
    table = rare()
    order = np.random.default_rng(1).permutation(table.num_rows)
    sides = [split(t, 0.2, levels=["level"]).held for t in (table, table.take(order))]
    assert sides[0].sort_by("x").equals(sides[1].sort_by("x"))


def test_a_column_of_names_holds_nothing_back() -> None:
    """Each has a level of its own: kept in training, nothing could be held out."""
    table = rare().append_column("name", pa.array([f"n{i}" for i in range(4_000)]))
    found = split(table, 0.2, levels=["name"])
    assert found.held.equals(split(table, 0.2).held)


def test_levels_of_any_type_are_kept() -> None:
    table = rare()
    level = table.column("level")
    held = split(table, 0.2, levels=["level"]).held.column("x")
    for column in (level.dictionary_encode(), level.cast(pa.string_view())):
        other = table.set_column(0, "level", column)
        assert split(other, 0.2, levels=["level"]).held.column("x").equals(held)
    empty = split(table.slice(0, 0), 0.2, levels=["level"])
    assert empty.anchor.num_rows == empty.held.num_rows == 0


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_wrong_shares_are_refused(share: float) -> None:
    with pytest.raises(UsageError, match="from 0 to below 1"):
        split(people(10), share)


def test_an_unknown_entity_is_refused() -> None:
    with pytest.raises(UsageError, match="not in the table"):
        split(people(10), 0.2, entity="nobody")
