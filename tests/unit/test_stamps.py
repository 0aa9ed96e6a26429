"""Stamps: written in three places, read back from each, and never a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.tables.sources import read_source
from safegen.tables.stamps import KEY, read_stamps, stamped

STAMP = {"dataset_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "origin": "synthetic", "depth": 1.5}
SPARK = b"org.apache.spark.sql.parquet.row.metadata"
PLACES = {"Parquet key", "pandas attrs", "Spark column metadata"}
TABLE = pa.table({"a": [1, 2], "b": ["x", None]})


def places(found: list[dict[str, Any]]) -> set[str]:
    return {str(s["place"]) for s in found}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "x.parquet"
    pq.write_table(TABLE.cast(stamped(TABLE.schema, STAMP)), path)
    return path


def test_a_stamp_stands_in_three_places(file: Path) -> None:
    found = read_stamps(pq.read_schema(file))
    assert places(found) == PLACES
    for stamp in found:
        assert {k: stamp[k] for k in STAMP} == STAMP


def test_stamping_keeps_what_was_there() -> None:
    schema = TABLE.schema.with_metadata({b"mine": b"1"})
    assert stamped(schema, STAMP).metadata[b"mine"] == b"1"
    assert schema.metadata == {b"mine": b"1"}
    assert read_stamps(schema) == []


def test_spark_finds_the_types_that_it_needs() -> None:
    schema = pa.schema(
        {
            "i": pa.int32(),
            "t": pa.timestamp("us"),
            "z": pa.timestamp("us", "UTC"),
            "c": pa.dictionary(pa.int8(), pa.string()),
            "m": pa.decimal128(9, 2),
            "d": pa.date32(),
        }
    )
    document = json.loads(stamped(schema, STAMP).metadata[SPARK])
    assert [f["type"] for f in document["fields"]] == [
        *("integer", "timestamp_ntz", "timestamp", "string", "decimal(9,2)", "date")
    ]
    assert all(json.loads(f["metadata"][KEY]) == STAMP for f in document["fields"])


def test_pandas_carries_it_through_its_own_resave(file: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(file)
    assert frame.attrs[KEY] == STAMP
    frame.to_parquet(tmp_path / "again.parquet")
    assert places(read_stamps(pq.read_schema(tmp_path / "again.parquet"))) == {"pandas attrs"}
    assert [s["dataset_id"] for s in read_source(frame).stamps] == [STAMP["dataset_id"]]


def test_pyarrow_carries_it_and_also_the_attrs_of_a_frame(file: Path, tmp_path: Path) -> None:
    pq.write_table(pq.read_table(file), tmp_path / "again.parquet")
    assert places(read_stamps(pq.read_schema(tmp_path / "again.parquet"))) == PLACES
    pq.write_table(pa.Table.from_pandas(pd.read_parquet(file)), tmp_path / "third.parquet")
    assert places(read_stamps(pq.read_schema(tmp_path / "third.parquet"))) == {"pandas attrs"}


@pytest.mark.parametrize("key", [KEY.encode(), b"PANDAS_ATTRS", b"pandas", SPARK])
@pytest.mark.parametrize("damage", ["cut", "bytes", "long", "empty", "other type"])
def test_a_damaged_stamp_still_counts(key: bytes, damage: str, file: Path) -> None:
    frame = pd.read_parquet(file)
    whole = {**pq.read_schema(file).metadata, **pa.Table.from_pandas(frame).schema.metadata}[key]
    data = {
        "cut": whole[: len(whole) - 20],
        "bytes": whole[:-20] + b"\xff\xfe",
        "long": whole + b" " * (1 << 24),
        "empty": b"" if key == KEY.encode() else b'{"safegen": ',
        "other type": b"7" if key == KEY.encode() else b'["safegen"',
    }[damage]
    found = read_stamps(pa.schema([("a", pa.int64())], metadata={key: data}))
    assert len(found) == 1
    assert found[0]["place"]


@pytest.mark.parametrize("stamp", [None, {}, [], "", 0, False, "real", 7, [1]])
def test_an_emptied_stamp_still_counts(stamp: Any) -> None:
    attrs = {KEY: stamp}
    for found in (
        read_stamps(pa.schema([]), attrs),
        read_stamps(pa.schema([], metadata={b"PANDAS_ATTRS": json.dumps(attrs)})),
        read_stamps(pa.schema([], metadata={KEY: json.dumps(stamp)})),
        read_stamps(pa.schema([pa.field("a", pa.int8(), metadata={KEY: json.dumps(stamp)})])),
    ):
        assert len(found) == 1


def test_metadata_of_others_is_no_stamp() -> None:
    for metadata in (
        {b"PANDAS_ATTRS": b'{"other": 1}', b"pandas": b'{"columns": []}', SPARK: b'{"fields": []}'},
        {b"PANDAS_ATTRS": b"\xff{", b"pandas": b"[", SPARK: b"null"},
        {SPARK: b'{"fields": [null, 1, {"metadata": 3}, {"metadata": {"other": 1}}]}'},
        None,
    ):
        assert read_stamps(pa.schema([("a", pa.int64())], metadata=metadata)) == []
    assert read_stamps(pa.schema([]), {"title": "mine"}) == []


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([KEY.encode(), b"PANDAS_ATTRS", b"pandas", SPARK]),
        st.binary(max_size=60)
        | st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just(KEY),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        [KEY, "fields", "metadata", "attributes", "origin", "depth", "x"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        ).map(lambda d: json.dumps(d).encode()),
    )
)
def test_hostile_metadata_never_raises(metadata: dict[bytes, bytes]) -> None:
    found = read_stamps(pa.schema([("a", pa.int64())], metadata=metadata))
    assert all(isinstance(s["place"], str) for s in found)
    if KEY.encode() in metadata:
        assert found


@pytest.mark.parametrize(
    "data", [b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b'{"safegen":' * 20_000]
)
def test_deep_or_long_documents_never_raise(data: bytes) -> None:
    for key in (KEY.encode(), b"PANDAS_ATTRS", SPARK):
        read_stamps(pa.schema([], metadata={key: data}))
    assert len(read_stamps(pa.schema([], metadata={KEY.encode(): data}))) == 1


def test_every_file_of_a_folder_speaks(tmp_path: Path) -> None:
    """A stamp that says real on the first file does not hide the second file's."""
    for name, stamp in (("a", {"origin": "real"}), ("b", STAMP), ("c", None)):
        schema = stamped(TABLE.schema, stamp) if stamp else TABLE.schema
        pq.write_table(TABLE.cast(schema), tmp_path / f"{name}.parquet")
    origins = [s.get("origin") for s in read_source(tmp_path).stamps]
    assert origins.count("real") == 3
    assert origins.count("synthetic") == 3
