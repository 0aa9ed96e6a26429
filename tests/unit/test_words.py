"""Columns of few different values are looked at value by value, with the same cells."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from safegen.tables import words
from safegen.tables.words import Column, joined

N = 4_000


def few(values: list[object], kind: pa.DataType) -> pa.Array:
    return pa.array([values[i % len(values)] for i in range(N)], kind)


KINDS = {
    "texts": few(["a", " B", "1.50", None, "NA", "2020-01-02", "é"], pa.string()),
    "large texts": few(["x", None], pa.large_string()),
    "texts in view": few(["x", "y", None], pa.string_view()),
    "coded texts": few(["x", None, "3"], pa.string()).dictionary_encode(),
    "coded numbers": few([1.5, None, 2.0], pa.float64()).dictionary_encode(),
    "coded null": pa.DictionaryArray.from_arrays(
        pa.array([0, 1, None, 2] * (N // 4), pa.int8()), pa.array(["p", None, "p"])
    ),
    "small numbers": few([1, -7, None, 123456789012345], pa.int64()),
    "unsigned": few([1, 2**64 - 1], pa.uint64()),
    "floats": few(
        [0.1, None, float("nan"), float("inf"), 1e-300, 0.30000001192092896], pa.float64()
    ),
    "single precision": few([0.1, None, 2.5], pa.float32()),
    "truths": few([True, None, False], pa.bool_()),
    "days": few([date(2020, 1, 2), None], pa.date32()),
    "moments": few([datetime(2020, 1, 2, 3), None], pa.timestamp("us")),
    "decimals": few([Decimal("1.50"), None], pa.decimal128(9, 2)),
    "half": pa.array(np.tile(np.array([1.5, 2.5], np.float16), N // 2)),
    "nothing": pa.nulls(N),
    "all different": pa.array(np.random.default_rng(1).normal(size=N)),
    "different after a while": pa.array(np.r_[np.zeros(1_024), np.arange(N - 1_024)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_by_its_values_is_the_column_by_its_rows(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = KINDS[kind]
    found = [Column.of(a) for a in (array, array.slice(7, 900))]
    with monkeypatch.context() as plain:
        plain.setattr(words, "_coded", lambda array: None)
        expected = [Column.of(a) for a in (array, array.slice(7, 900))]
    rows = np.random.default_rng(2).integers(0, 900, 1_500)
    several, others = joined(found), joined(expected)
    for mine, theirs in (*zip(found, expected, strict=True), (several, others)):
        for one, other in (
            (mine, theirs),
            (mine[rows], theirs[rows]),
            (mine[rows[:3]], theirs[rows[:3]]),
        ):
            assert len(one) == len(other)
            assert np.array_equal(one.numbers, other.numbers, equal_nan=True)
            assert np.array_equal(one.present, other.present)
            for digits in (3, 6):
                assert np.array_equal(one.words(digits), other.words(digits))


def test_few_values_are_few_cells() -> None:
    coded = [Column.of(a) for a in (KINDS["texts"], KINDS["small numbers"], KINDS["coded texts"])]
    assert all(len(c.tags) < 10 < len(c) == N for c in coded)
    assert len(Column.of(KINDS["all different"]).tags) == N
    assert len(coded[0][np.arange(2)].tags) == 2  # no more values than rows
