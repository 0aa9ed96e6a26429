"""What is written with `sink` is known for what it is, whatever its metadata went through."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.dataset import Dataset
from safegen.errors import AdmissionRefused, SafegenError, SourceError, TargetError, UsageError
from safegen.lineage.documents import sidecar_of
from safegen.tables.sources import read_source
from safegen.testing import example_table


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attested rows, a release of them, in the ledger `books.db`; one of that in `deep.db`."""
    place = tmp_path_factory.mktemp("sinks")
    books = place / "books.db"
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    pq.write_table(example_table(300), place / "real.parquet")
    safegen.attest(place / "real.parquet", by="a test", ledger=books)
    for source, out in (("real.parquet", "one"), ("one", "two")):
        gen = safegen.Generator(policy="lab", ledger=books).fit(place / source, seed=1)
        gen.generate(400, place / out)
        # Each its own: models of like rows look alike, to a ledger that knows both.
        books = Path(shutil.copy(books, place / "deep.db")) if out == "one" else books
    patch.undo()
    return place


@pytest.fixture(autouse=True)
def _keys(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))


def opened(place: Path, name: str = "one", books: str = "books.db") -> Dataset:
    return safegen.open(place / name, policy="lab", ledger=place / books)


FRAMES: dict[str, Callable[[Dataset], Any]] = {
    "polars": lambda ds: ds.to_polars().filter(pl.col("age") > 30),
    "lazy polars": lambda ds: ds.to_polars().lazy().filter(pl.col("age") > 30),
    "DuckDB": lambda ds: ds.to_duckdb().filter("age > 30"),
    "pandas": lambda ds: pd.DataFrame(ds.to_pandas().query("age > 30").to_dict("list")),
    "Arrow": lambda ds: ds.to_polars().filter(pl.col("age") > 30).to_arrow(),
    "a stream": lambda ds: ds.to_polars().filter(pl.col("age") > 30).to_arrow().to_reader(50),
}


@pytest.mark.parametrize("kind", FRAMES)
@pytest.mark.parametrize("depth", [1, 2])
def test_what_is_written_is_synthetic_and_as_deep(
    place: Path, tmp_path: Path, kind: str, depth: int
) -> None:
    name, books = (("one", "books.db"), ("two", "deep.db"))[depth - 1]
    ds = opened(place, name, books)
    out = tmp_path / "out.parquet"
    manifest = safegen.sink(FRAMES[kind](ds), out, sources=[ds], ledger=place / books)
    expected = ds.to_pandas().query("age > 30")
    assert len(expected) == manifest.rows == pq.read_table(out).num_rows
    assert (manifest.origin, manifest.depth, manifest.ancestry) == ("synthetic", depth, "attested")
    decision = safegen.check(out, policy="lab", ledger=place / books)
    assert "synthetic, attested" in decision.subject[0]
    # Where the statement is lost, and the ledger, the file itself still says it.
    sidecar_of(out).unlink()
    assert {s["place"] for s in read_source(out).stamps} == {
        "Parquet key", "pandas attrs", "Spark column metadata",
    }  # fmt: skip
    assert {s["dataset_id"] for s in read_source(out).stamps} == {ds.manifest.dataset_id}
    with pytest.raises(AdmissionRefused, match="lineage/depth"):
        safegen.guard(out, policy="baseline", ledger=tmp_path / "empty.db")


def test_real_rows_stay_real_and_get_no_stamp(place: Path, tmp_path: Path) -> None:
    frame = pl.scan_parquet(place / "real.parquet").head(50)
    real, out = place / "real.parquet", tmp_path / "out.parquet"
    manifest = safegen.sink(frame, out, sources=[real], ledger=place / "books.db")
    assert (manifest.origin, manifest.depth) == ("real", 0)
    assert read_source(out).stamps == ()
    assert safegen.guard(out, policy="baseline", ledger=place / "books.db").allowed


def test_a_join_of_both_is_stamped_as_the_synthetic_one(place: Path, tmp_path: Path) -> None:
    ds, out = opened(place), tmp_path / "out.parquet"
    both = pl.concat([pl.read_parquet(place / "real.parquet"), ds.to_polars()], how="diagonal")
    sources = [place / "real.parquet", ds]
    manifest = safegen.sink(both, out, sources=sources, ledger=place / "books.db")
    assert (manifest.origin, manifest.depth) == ("mixed", 1)
    assert read_source(out).stamps[0]["origin"] == "mixed"


def test_a_synthetic_frame_does_not_become_real_by_naming_real_sources(
    place: Path, tmp_path: Path
) -> None:
    ds = opened(place)
    frame = ds.to_polars()
    out = tmp_path / "out.parquet"
    real = place / "real.parquet"
    manifest = safegen.sink(frame, out, sources=[real], ledger=place / "books.db")
    assert manifest.origin != "real"
    with pytest.raises(AdmissionRefused):
        safegen.guard(out, policy="baseline", ledger=place / "books.db")


def test_rows_of_a_release_that_is_not_named_take_the_ancestry_with_them(
    place: Path, tmp_path: Path
) -> None:
    books = shutil.copy(place / "books.db", tmp_path)  # models of like rows look alike
    pq.write_table(example_table(300, seed=5), tmp_path / "unattested.parquet")
    gen = safegen.Generator(policy="lab", ledger=books).fit(tmp_path / "unattested.parquet", seed=3)
    ds, other = opened(place), gen.generate(400, tmp_path / "unverified")
    rows, out = pl.concat([ds.to_polars(), other.to_polars()]), tmp_path / "out.parquet"
    manifest = safegen.sink(rows, out, sources=[ds], ledger=books)
    assert (manifest.origin, manifest.ancestry) == ("synthetic", "unverified")


def test_a_file_is_there_whole_or_not_at_all(place: Path, tmp_path: Path) -> None:
    ds, out = opened(place), tmp_path / "out.parquet"
    safegen.sink(ds.to_polars(), out, sources=[ds], ledger=place / "books.db")
    before = out.read_bytes()

    def broken(value: Any) -> Any:
        raise ValueError("secret 4711")

    lazy = ds.to_polars().lazy().map_batches(broken, schema=ds.to_polars().schema)
    with pytest.raises(SourceError) as failed:
        safegen.sink(lazy, out, sources=[ds], ledger=place / "books.db")
    assert "4711" not in str(failed.value)
    assert out.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "out.parquet.safegen.json"]
    safegen.sink(ds.to_polars().head(9), out, sources=[ds], ledger=place / "books.db")
    assert pq.read_table(out).num_rows == 9


def test_what_cannot_be_meant_is_an_error(place: Path, tmp_path: Path) -> None:
    ds, books = opened(place), place / "books.db"
    frame = ds.to_polars()
    cases: list[tuple[str, Any, type[SafegenError], str]] = [
        ("out.csv", [ds], UsageError, "Parquet"),
        ("out.parquet", [], UsageError, "sources="),
        ("no/such/folder/out.parquet", [ds], TargetError, "cannot be written"),
    ]
    for name, sources, error, word in cases:
        with pytest.raises(error, match=word):
            safegen.sink(frame, tmp_path / name, sources=sources, ledger=books)
    with pytest.raises(SourceError, match="not a source"):
        safegen.sink(object(), tmp_path / "out.parquet", sources=[ds], ledger=books)
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(TargetError, match="cannot be written"):
        safegen.sink(frame, tmp_path / "folder.parquet", sources=[ds], ledger=books)
    assert [p.name for p in tmp_path.iterdir()] == ["folder.parquet"]


def test_a_relation_of_a_connection_that_was_given_is_written(place: Path, tmp_path: Path) -> None:
    ds = opened(place)
    connection = duckdb.connect()
    relation = ds.to_duckdb(connection).aggregate("job, count(*) AS n", "job")
    out = tmp_path / "out.parquet"
    manifest = safegen.sink(relation, out, sources=[ds], ledger=place / "books.db")
    assert manifest.rows == len(ds.to_pandas()["job"].unique())
