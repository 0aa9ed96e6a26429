"""Every kind of source gives the same rows, again and again, and is not changed by it."""

from __future__ import annotations

import gzip
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from safegen.errors import SourceError
from safegen.tables.batches import BATCH_ROWS, Batches
from safegen.tables.sources import TABLE, Source, read_source

TABLE_ = pa.table({"a": [1, 2, None], "b": ["x", None, "é"], "c": [0.5, -1.0, 2.25]})
ROWS = TABLE_.to_pylist()


def rows(source: Any, name: str = TABLE) -> list[dict[str, Any]]:
    table: pa.Table = read_source(source).tables[name].table()
    return table.to_pylist()


def _json(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def _packed(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        write(path)
        path.write_bytes(gzip.compress(path.read_bytes()))

    return both


def _csv(path: Path) -> None:
    pcsv.write_csv(TABLE_, path)


def _tsv(path: Path) -> None:
    pcsv.write_csv(TABLE_, path, pcsv.WriteOptions(delimiter="\t"))


def _stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE_.schema) as writer:
        writer.write_table(TABLE_)


FILES: dict[str, Callable[[Path], Any]] = {
    "x.parquet": lambda p: pq.write_table(TABLE_, p),
    "x.pq": lambda p: pq.write_table(TABLE_, p),
    "x.parquet.brotli": lambda p: pq.write_table(TABLE_, p, compression="brotli"),
    "X.PARQUET": lambda p: pq.write_table(TABLE_, p),
    "x.csv": _csv,
    "x.tsv": _tsv,
    "x.csv.gz": _packed(_csv),
    "x.tsv.gz": _packed(_tsv),
    "x.jsonl": _json,
    "x.ndjson": _json,
    "x.jsonl.gz": _packed(_json),
    "x.feather": lambda p: feather.write_feather(TABLE_, str(p)),
    "x.arrow": lambda p: feather.write_feather(TABLE_, str(p), compression="uncompressed"),
    "stream.arrow": _stream,  # as Hugging Face's cache has it
    "with space é%20.csv": _csv,
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name](path)
    before = path.read_bytes()
    for given in (path, str(path), path.as_uri()):
        source = read_source(given)
        assert source.uri == str(path)
        assert source.file == path
        assert source.folder is None
        batches = source.tables[TABLE]
        for _ in range(2):  # again and again
            assert batches.table().to_pylist() == ROWS
        assert batches.rows in (3, None)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["x.parquet", "x.csv", "x.jsonl", "x.arrow"])
def test_a_folder_of_files_is_one_table(kind: str, tmp_path: Path) -> None:
    for i in range(3):
        FILES[kind](tmp_path / f"part-{i}{kind[1:]}")
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".hidden.csv").write_text("a\n1\n")
    (tmp_path / "_staging").mkdir()
    (tmp_path / "_staging" / "x.csv").write_text("a\n1\n")
    source = read_source(tmp_path)
    assert source.tables[TABLE].table().to_pylist() == ROWS * 3
    assert source.tables[TABLE].table().to_pylist() == ROWS * 3
    assert source.file is None


def test_files_of_a_folder_may_differ_in_order_width_and_dictionary(tmp_path: Path) -> None:
    pq.write_table(TABLE_, tmp_path / "1.parquet")
    pq.write_table(TABLE_.select(["c", "b", "a"]), tmp_path / "2.parquet")
    narrow = TABLE_.set_column(0, "a", TABLE_["a"].cast(pa.int8()))
    pq.write_table(narrow, tmp_path / "3.parquet")
    assert rows(tmp_path) == ROWS * 3
    for i, words in enumerate((["p", "q"], ["r", None])):
        (tmp_path / "coded").mkdir(exist_ok=True)
        coded = pa.table({"w": pa.array(words).dictionary_encode()})
        pq.write_table(coded, tmp_path / "coded" / f"{i}.parquet")
    assert [r["w"] for r in rows(tmp_path / "coded")] == ["p", "q", "r", None]


def test_a_csv_is_read_as_people_mean_it(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('a,b,c\n1,"",NA\n,"two\nlines",x\n2.5,NA,"NA"\n', encoding="utf-8")
    assert rows(path) == [
        {"a": 1.0, "b": "", "c": None},
        {"a": None, "b": "two\nlines", "c": "x"},
        {"a": 2.5, "b": None, "c": "NA"},
    ]
    path.write_bytes(b"\xef\xbb\xbfa,b\r\n1,x\r\n")
    assert rows(path) == [{"a": 1, "b": "x"}]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz"])
def test_types_are_those_of_all_rows_not_of_the_first_megabyte(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [*range(60_000), 0.5], "b": "word" * 6})
    path = tmp_path / f"x{suffix}"
    if "csv" in suffix:
        frame.astype({"a": object}).to_csv(path, index=False)
    else:
        lines = "".join(f'{{"a": {a}, "b": "wordword"}}\n' for a in (*range(60_000), 0.5))
        data = lines.encode()
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    table = read_source(path).tables[TABLE].table()
    assert table.schema.field("a").type == pa.float64()
    assert table.column("a")[-1].as_py() == 0.5


# ---- in memory -----------------------------------------------------------------------------------


class Exported:
    """Nothing but the Arrow protocol, which may be asked once."""

    def __init__(self, table: pa.Table):
        self._reader: Any = table.to_reader()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        reader, self._reader = self._reader, None
        return reader.__arrow_c_stream__(requested_schema)


def _hugging_face(table: pa.Table) -> Any:
    """What a `datasets.Dataset` shows of itself, to those who ask."""

    class Dataset:
        def with_format(self, kind: str) -> Any:
            assert kind == "arrow"
            return SimpleNamespace(column_names=table.column_names) if not kind else _Formatted()

    class _Formatted:
        def __getitem__(self, key: slice) -> pa.Table:
            assert key == slice(None)
            return table

    Dataset.__module__ = "datasets.arrow_dataset"
    return Dataset()


def _dictionary_stream() -> pa.RecordBatchReader:
    """Each batch with a dictionary of its own, which Arrow's file format cannot hold."""
    type_ = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema([("w", type_)])
    return pa.RecordBatchReader.from_batches(
        schema,
        (
            pa.record_batch([pa.array([w, None]).dictionary_encode().cast(type_)], schema=schema)
            for w in ("p", "q")
        ),
    )


MEMORY: dict[str, Callable[[], Any]] = {
    "pyarrow table": lambda: TABLE_,
    "record batch": lambda: TABLE_.to_batches()[0],
    "reader": lambda: TABLE_.to_reader(),
    "exported": lambda: Exported(TABLE_),
    "polars": lambda: pl.from_arrow(TABLE_),
    "polars lazy": lambda: pl.from_arrow(TABLE_).lazy(),
    "hugging face": lambda: _hugging_face(TABLE_),
    "pandas": lambda: TABLE_.to_pandas(types_mapper=pd.ArrowDtype),
    "dict": lambda: {TABLE: TABLE_},
    "source": lambda: read_source(TABLE_),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_every_kind_of_thing_in_memory(kind: str) -> None:
    source = read_source(MEMORY[kind]())
    assert "memory:" in source.uri
    batches = source.tables[TABLE]
    for _ in range(2):
        assert batches.table().to_pylist() == ROWS
    assert batches.rows == 3


def _spools() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("safegen-*.arrow"))


def test_a_stream_is_spooled_and_the_file_goes_with_it() -> None:
    before = _spools()
    source: Source | None = read_source(TABLE_.to_reader())
    assert source is not None
    [spool] = _spools() - before
    batches: Batches | None = source.tables[TABLE]
    source = None
    assert batches is not None
    assert batches.table().to_pylist() == ROWS  # it lives as long as somebody can ask
    iterator: Iterator[pa.RecordBatch] | None = iter(batches)
    batches = None
    assert iterator is not None
    assert sum(b.num_rows for b in iterator) == 3
    iterator = None
    assert not spool.exists()


def test_a_stream_may_change_its_dictionary() -> None:
    source = read_source(_dictionary_stream())
    assert [r["w"] for r in source.tables[TABLE].table().to_pylist()] == ["p", None, "q", None]


def test_a_stream_that_breaks_leaves_no_file_and_no_value() -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield TABLE_.to_batches()[0]
        raise KeyError("Zanzibar-7731")

    before = _spools()
    twice = pa.schema([("a", pa.int64()), ("a", pa.int64())])
    for reader in (
        pa.RecordBatchReader.from_batches(TABLE_.schema, broken()),
        pa.RecordBatchReader.from_batches(twice, iter([])),
    ):
        with pytest.raises(SourceError) as error:
            read_source(reader)
        assert "Zanzibar" not in str(error.value)
    assert _spools() == before


def test_a_lazy_frame_that_breaks_is_a_source_error() -> None:
    lazy = pl.DataFrame({"a": ["Zanzibar-7731"]}).lazy().with_columns(pl.col("a").cast(pl.Int64))
    with pytest.raises(SourceError) as error:
        read_source(lazy)
    assert "Zanzibar" not in str(error.value)


def test_large_tables_come_in_batches_and_are_not_copied() -> None:
    big = pa.table({"a": np.arange(3 * BATCH_ROWS + 1)})
    for source in (big, big.to_reader()):
        sizes = [b.num_rows for b in read_source(source).tables[TABLE]]
        assert sum(sizes) == big.num_rows
        assert max(sizes) <= BATCH_ROWS


# ---- pandas --------------------------------------------------------------------------------------


def test_pandas_index_rules() -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[7, 9])
    assert rows(frame) == [{"a": 1}, {"a": 2}]  # an index without a name is no data
    named = frame.rename_axis("id")
    assert rows(named) == [{"id": 7, "a": 1}, {"id": 9, "a": 2}]
    several = frame.set_index(pd.MultiIndex.from_tuples([(1, "x"), (2, "y")], names=["k", "l"]))
    assert rows(several) == [{"k": 1, "l": "x", "a": 1}, {"k": 2, "l": "y", "a": 2}]


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (pd.DataFrame({"a": [1]}).rename_axis("a"), "index and a column"),
        (pd.DataFrame({"a": [1]}).rename_axis(3), "index has a name that is not text"),
        (pd.DataFrame({0: [1], "b": [2]}), "positions 0"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "twice"),
        (pd.DataFrame({("a", "b"): [1]}), "multi-level"),
        (pd.DataFrame({"odd": [1, "Zanzibar-7731"]}), "'odd'"),
        (pd.DataFrame({"odd": [object()]}), "'odd'"),
        (pd.DataFrame(), "no columns"),
    ],
)
def test_frames_that_cannot_be_read(frame: pd.DataFrame, word: str) -> None:
    with pytest.raises(SourceError, match=word) as error:
        read_source(frame)
    assert "Zanzibar" not in str(error.value)


def test_no_input_is_changed() -> None:
    frame = TABLE_.to_pandas().rename_axis("id")
    frame["cat"] = pd.Categorical(["u", "v", None])
    frame.attrs["mine"] = {1, 2}  # not JSON: pyarrow would warn
    before = pickle.dumps(frame)
    polars = pl.from_arrow(TABLE_)
    tables = {"t": frame}
    for source in (frame, polars, tables):
        rows(source, "t" if source is tables else TABLE)
    assert pickle.dumps(frame) == before
    assert frame.attrs == {"mine": {1, 2}}
    assert polars.equals(pl.from_arrow(TABLE_))


# ---- several tables, datasets, refusals ----------------------------------------------------------


def test_related_tables(tmp_path: Path) -> None:
    FILES["x.csv"](tmp_path / "x.csv")
    source = read_source({"people": tmp_path / "x.csv", "orders": TABLE_})
    assert source.names == "people, orders"
    assert source.tables["people"].table().to_pylist() == ROWS
    assert source.uri == f"people={tmp_path / 'x.csv'};orders=memory:"
    for wrong in ({}, {"": TABLE_}, {1: TABLE_}, {"a/b": TABLE_}, {".a": TABLE_}, {"a": source}):
        with pytest.raises(SourceError):
            read_source(wrong)


def test_a_dataset_is_its_folder(tmp_path: Path) -> None:
    for name in ("people", "orders"):
        (tmp_path / "data" / name).mkdir(parents=True)
        pq.write_table(TABLE_, tmp_path / "data" / name / "part-00000.parquet")
    (tmp_path / "safegen.manifest.json").write_text("{}")
    (tmp_path / "other.csv").write_text("a\n1\n")
    for given in (tmp_path, SimpleNamespace(path=tmp_path, manifest=None)):
        source = read_source(given)
        assert sorted(source.tables) == ["orders", "people"]
        assert source.folder == tmp_path


@pytest.mark.parametrize("thing", [None, 7, [1], object(), b"x.csv", pd.Series([1]), iter([])])
def test_what_is_no_source(thing: Any) -> None:
    with pytest.raises(SourceError):
        read_source(thing)


def test_columns_can_be_chosen_and_provenance_left_out() -> None:
    tagged = TABLE_.append_column("_safegen_depth", pa.array([1.0] * 3, pa.float32()))
    batches = Batches.of(tagged.replace_schema_metadata({"k": "v"}))
    assert batches.without_provenance().table().to_pylist() == ROWS
    assert batches.select(["b"]).table().schema.metadata == {b"k": b"v"}
    plain = Batches.of(TABLE_)
    assert plain.without_provenance() is plain


def test_a_csv_without_a_header_is_refused_because_names_go_into_manifests(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("a,31\nb,52\n")
    with pytest.raises(SourceError, match="line of column names") as caught:
        read_source(tmp_path / "bare.csv")
    assert "31" not in str(caught.value).replace(str(tmp_path), "")  # pytest counts its folders
    (tmp_path / "named.csv").write_text("x,y1\na,31\nb,52\n")
    assert read_source(tmp_path / "named.csv").tables["table"].schema.names == ["x", "y1"]
