"""Distances between rows of many columns: points are made in pieces, and found alike."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.measure import neighbours
from safegen.measure.neighbours import closeness, told
from safegen.tables.schema import TableSchema, infer_schema

LEVELS = 40


def wide(seed: int, rows: int, columns: int, numbers: int = 0) -> pa.Table:
    rng = np.random.default_rng([4, seed])
    names = pa.array([f"l{i}" for i in range(LEVELS)])
    table = {
        f"c{i}": pa.DictionaryArray.from_arrays(
            pa.array(rng.integers(0, LEVELS, rows).astype(np.int32)), names
        )
        for i in range(columns)
    }
    few = {f"few{i}": rng.choice(["a", "b", "c"], rows) for i in range(columns // 4)}
    absent = {f"m{i}": pa.array(rng.normal(size=rows), mask=rng.random(rows) < 0.1) for i in (0,)}
    return pa.table(table | few | absent | {f"x{i}": rng.normal(size=rows) for i in range(numbers)})


def measured(schema: TableSchema, *tables: pa.Table) -> tuple[Any, Any]:
    real, held, made = tables
    return closeness(real, made, schema), told(real, held, made, schema)


def test_pieces_find_what_the_whole_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    real, held, made = (wide(s, n, 12, numbers=3) for s, n in enumerate((3_000, 900, 1_200)))
    made = pa.concat_tables([made, real.slice(0, 60)])  # and some copies, so that there is to find
    whole = measured(infer_schema(real), real, held, made)
    sizes = []
    at = neighbours._Cloud.at

    def counted(self: Any, rows: Any) -> Any:
        found = at(self, rows)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(neighbours._Cloud, "at", counted)
    monkeypatch.setattr(neighbours, "AT_ONCE", 1_000_000)
    monkeypatch.setattr(neighbours, "PROBES", 4_000)
    assert measured(infer_schema(real), real, held, made) == whole
    assert len(sizes) > 20
    assert len(whole[0]) == 4
    assert whole[1]


def test_five_hundred_columns_do_not_need_their_points_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 500 columns of many levels a row has 8,000 coordinates, 64 kB."""
    monkeypatch.setattr(neighbours, "AT_ONCE", 1 << 24, raising=False)
    monkeypatch.setattr(neighbours, "PROBES", 200)
    real, held, made = (wide(s, n, 500) for s, n in enumerate((1_200, 300, 1_200)))
    schema = infer_schema(real)
    tracemalloc.start()
    try:
        assert told(real, held, made, schema)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_200 * 8_000 * 8
