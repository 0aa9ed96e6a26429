"""Conditions on columns of every type, read as the codecs read them; and what rows count as."""

from __future__ import annotations

import datetime
import decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.errors import SafegenError, SourceError, UsageError
from safegen.tables.matching import drawn_until, matching
from safegen.tables.relations import related
from safegen.tables.schema import infer_schema
from safegen.tables.units import pilot, units

COLUMNS: list[tuple[pa.DataType, list[Any], Any]] = [
    (pa.string_view(), ["a", "b", None, "a"], "a"),
    (pa.large_string(), ["a", "b", None, "a"], "a"),
    (pa.dictionary(pa.int8(), pa.string()), ["a", "b", None, "a"], "a"),
    (pa.float16(), [np.float16(0.1), np.float16(2), None, np.float16(0.1)], 0.1),
    (pa.float32(), [0.1, 2, None, 0.1], 0.1),
    (pa.uint64(), [2**63 + 5, 1, None, 2**63 + 5], 2**63 + 5),
    (pa.int8(), [1, 2, None, 1], 1),
    (pa.bool_(), [True, False, None, True], True),
    (pa.decimal128(5, 2), [decimal.Decimal("1.5"), decimal.Decimal(2), None] * 2, "1.5"),
    (pa.date32(), [datetime.date(2020, 1, 2), None, datetime.date(2021, 1, 2)], "2020-01-02"),
]


@pytest.mark.parametrize(("type_", "values", "wanted"), COLUMNS, ids=lambda v: str(v)[:20])
def test_the_rows_that_meet_a_condition_are_found(
    type_: pa.DataType, values: list[Any], wanted: Any
) -> None:
    table = pa.table({"x": pa.array(values, type_), "n": range(len(values))})
    table = pa.concat_tables([table, table])
    found = matching(table, {"x": wanted})
    meets = [i for i, v in enumerate(values) if v == values[0]]
    assert found.column("n").to_pylist() == meets * 2
    assert found.schema == table.schema
    missing = [i for i, v in enumerate(values) if v is None]
    assert matching(table, {"x": None}).column("n").to_pylist() == missing * 2


@pytest.mark.parametrize(
    ("type_", "wanted"),
    [(pa.int64(), True), (pa.int64(), 1.5), (pa.bool_(), 1), (pa.string(), 3), (pa.int64(), "x")],
)
def test_a_value_that_the_column_cannot_hold_is_refused(type_: pa.DataType, wanted: Any) -> None:
    table = pa.table({"x": pa.nulls(3, type_)})
    with pytest.raises(UsageError, match=f"'x'.*{type_}"):
        matching(table, {"x": wanted})


def test_a_condition_on_uuids_says_what_they_are() -> None:
    table = pa.table({"x": pa.array([b"0" * 16], pa.uuid())})
    with pytest.raises(UsageError, match="uuid"):
        matching(table, {"x": "30303030-3030-3030-3030-303030303030"})


def test_a_shortfall_names_numbers_and_no_other_backend() -> None:
    table = pa.table({"x": [1] * 10})
    with pytest.raises(SafegenError, match="0 of 5 rows") as refused:
        drawn_until(lambda block: table, 5, 0, {"x": 2}, "mine")
    assert "sdv." not in str(refused.value)
    assert drawn_until(lambda block: table, 5, 0, {"x": 1}, "mine").num_rows == 5


@pytest.mark.parametrize("type_", [pa.string(), pa.string_view(), "dictionary"])
def test_sequences_are_counted_whatever_the_type_of_their_key(type_: Any) -> None:
    words = pa.array([w for w in "abc" for _ in range(10)])
    key = words.dictionary_encode() if type_ == "dictionary" else words.cast(type_)
    table = pa.table({"key": pa.chunked_array([key, key]), "x": range(60)})
    schema = infer_schema(table, {"key": {"role": "sequence_key"}})
    assert units({"t": table}, {"t": schema}) == 3
    assert units(pilot({"t": table}, {"t": schema}, 15), {"t": schema}) == 3


@pytest.mark.parametrize("child", [pa.int64(), pa.int32(), pa.int8()])
def test_keys_beyond_64_signed_bits_are_compared_and_never_shown(child: pa.DataType) -> None:
    parents = pa.table({"id": pa.array([2**63 + 5, *range(59)], pa.uint64()), "x": range(60)})
    declared = {"pets": {"owner": {"references": "people.id"}}}

    def relate(values: list[int]) -> dict[str, Any]:
        pets = pa.table({"owner": pa.array(values, child), "y": range(60)})
        tables = {"people": parents, "pets": pets}
        schemas = {n: infer_schema(t, declared.get(n)) for n, t in tables.items()}
        return related(tables, schemas, declared)  # type: ignore[arg-type]

    assert relate([*range(59), 3])["pets"].column("owner").references == "people.id"
    with pytest.raises(SourceError, match=r"pets.owner: 1 value .*people.id") as refused:
        relate([*range(59), -7])
    assert str(2**63 + 5) not in str(refused.value)
