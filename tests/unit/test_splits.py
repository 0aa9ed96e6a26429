"""The A/V/E splitter: by content, whole entities on one side, nothing lost."""

import numpy as np
import pyarrow as pa
import pytest

from safegen.errors import UsageError
from safegen.tables.splits import split


def people(rows: int = 3000) -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table({"who": rng.integers(0, 700, rows), "x": rng.normal(size=rows)})


def sides(table: pa.Table, **more: object) -> list[pa.Table]:
    found = split(table, **more)  # type: ignore[arg-type]
    return [found.anchor, found.verify, found.evaluate]


def test_every_row_is_on_one_side() -> None:
    table = people()
    parts = sides(table)
    assert sum(p.num_rows for p in parts) == table.num_rows
    joined = pa.concat_tables(parts).sort_by("x")
    assert joined.equals(table.sort_by("x"))


def test_shares_hold_within_sampling_error() -> None:
    for part, share in zip(sides(people(20_000)), (0.7, 0.1, 0.2), strict=True):
        assert abs(part.num_rows / 20_000 - share) < 4 * (share * (1 - share) / 20_000) ** 0.5


def test_duplicates_are_on_one_side() -> None:
    table = people()
    twice = pa.concat_tables([table, table])
    values = [set(p.column("x").to_pylist()) for p in sides(twice)]
    assert not values[0] & values[1]
    assert not values[0] & values[2]
    assert not values[1] & values[2]


def test_an_entity_is_on_one_side() -> None:
    owners = [set(p.column("who").to_pylist()) for p in sides(people(), entity="who")]
    assert not owners[0] & owners[1]
    assert not (owners[0] | owners[1]) & owners[2]
    assert all(owners)


def test_a_row_keeps_its_side_when_others_come_and_columns_move() -> None:
    table = people()
    before = set(split(table).evaluate.column("x").to_pylist())
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows)).select(["x", "who"])
    more = pa.concat_tables([shuffled, people(500).select(["x", "who"])])
    after = set(split(more).evaluate.column("x").to_pylist())
    assert before <= after


def test_wrong_shares_and_unknown_entities_are_refused() -> None:
    with pytest.raises(UsageError, match="add up to 1"):
        split(people(), shares=(0.5, 0.1, 0.1))
    with pytest.raises(UsageError, match="entity"):
        split(people(), entity="nobody")
    assert split(people(0)).anchor.num_rows == 0
