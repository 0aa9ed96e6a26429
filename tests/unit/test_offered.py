"""Constraints that a source obeys are offered quickly, or not at all."""

from __future__ import annotations

import time
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from safegen.tables.offered import offered
from safegen.tables.schema import infer_schema

ROWS = 20_000


def columns(n: int, levels: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    return {f"c{i}": rng.integers(0, levels, ROWS) for i in range(n)}


def found(table: pa.Table) -> list[dict[str, object]]:
    return [c.model_dump(exclude_none=True) for c in offered(table, infer_schema(table))]


@pytest.mark.parametrize("levels", [12, 900])
def test_a_wide_table_costs_no_wait(levels: int) -> None:
    table = pa.table(columns(300, levels))
    schema = infer_schema(table)
    start = time.process_time()
    assert offered(table, schema) == []
    assert time.process_time() - start < 1


def test_many_dates_cost_no_wait() -> None:
    day = date(2020, 1, 1)
    days = pa.array([day + timedelta(i) for i in range(2_000)])
    table = pa.table({f"d{i}": days for i in range(200)})
    schema = infer_schema(table)
    start = time.process_time()
    assert offered(table, schema) == []
    assert time.process_time() - start < 1


def test_the_finer_column_determines_the_coarser_one() -> None:
    plain = columns(40, 12)
    table = pa.table({**plain, "town": plain["c0"] + 100, "land": (plain["c0"] + 100) // 3})
    names = {"column_names": ["c0", "town", "land"], "type": "FixedCombinations"}
    assert found(table) == [names]
