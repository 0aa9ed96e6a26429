"""Way round: save the output once more with another tool, and train on that.

Each way is also walked with real rows, which must still be admitted.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from forging import World, check, cli, is_refused_as_synthetic

import safegen
from safegen.tables.batches import PROVENANCE_COLUMNS

Way = Callable[[Path, Path], Any]


def _copied(file: Path, to: Path) -> Path:
    to = to / "rows.parquet"
    to.write_bytes(file.read_bytes())
    return to


def _as_a_folder(file: Path, to: Path) -> Path:
    (to / "in" / "there").mkdir(parents=True)
    _copied(file, to / "in" / "there")
    return to


def _by_pandas(file: Path, to: Path) -> Path:
    pd.read_parquet(file).to_parquet(to / "rows.parquet")
    return to / "rows.parquet"


def _by_polars(file: Path, to: Path) -> Path:
    pl.read_parquet(file).write_parquet(to / "rows.parquet")
    return to / "rows.parquet"


def _by_duckdb(file: Path, to: Path) -> Path:
    duckdb.sql(f"COPY (SELECT * FROM '{file}') TO '{to / 'rows.parquet'}' (FORMAT parquet)")
    return to / "rows.parquet"


def _bare(file: Path, to: Path) -> pd.DataFrame:
    """The rows alone, shuffled, through CSV: no stamp, no column, no order, no type is left."""
    frame = pd.read_parquet(file).drop(columns=list(PROVENANCE_COLUMNS), errors="ignore")
    frame.attrs.clear()
    frame.sample(frac=1, random_state=3).to_csv(to / "bare.csv", index=False)
    return pd.read_csv(to / "bare.csv")


def _bare_csv(file: Path, to: Path) -> Path:
    _bare(file, to)
    return to / "bare.csv"


def _bare_tsv_gz(file: Path, to: Path) -> Path:
    _bare(file, to).to_csv(to / "rows.tsv.gz", sep="\t", index=False)
    return to / "rows.tsv.gz"


def _bare_json_lines(file: Path, to: Path) -> Path:
    _bare(file, to).to_json(to / "rows.jsonl", orient="records", lines=True)
    return to / "rows.jsonl"


def _bare_feather(file: Path, to: Path) -> Path:
    table = pa.Table.from_pandas(_bare(file, to)).replace_schema_metadata(None)
    pa.feather.write_feather(table, to / "rows.feather")
    return to / "rows.feather"


def _columns_reversed(file: Path, to: Path) -> Path:
    frame = _bare(file, to)
    frame[frame.columns[::-1]].to_parquet(to / "rows.parquet")
    return to / "rows.parquet"


def _other_dtypes(file: Path, to: Path) -> pd.DataFrame:
    frame = _bare(file, to)
    for name in frame.columns:
        if pd.api.types.is_integer_dtype(frame[name]):
            frame[name] = frame[name].astype("float64")
        elif frame[name].dtype == object:
            frame[name] = frame[name].astype("category")
    return frame


def _numbers_as_text(file: Path, to: Path) -> pd.DataFrame:
    return _bare(file, to).astype(str)


def _in_shards(file: Path, to: Path) -> Path:
    frame = _bare(file, to)
    (to / "shards").mkdir()
    for i in range(4):
        frame.iloc[i::4].to_parquet(to / "shards" / f"{i}.parquet")
    return to / "shards"


def _stream(file: Path, to: Path) -> pa.RecordBatchReader:
    return pq.read_table(_copied(file, to)).to_reader(max_chunksize=500)


ON_DISK: list[Way] = [
    _copied,
    _as_a_folder,
    _by_pandas,
    _by_polars,
    _by_duckdb,
    _bare_csv,
    _bare_tsv_gz,
    _bare_json_lines,
    _bare_feather,
    _columns_reversed,
    _in_shards,
]
IN_MEMORY: list[Way] = [
    lambda file, to: pd.read_parquet(file),
    lambda file, to: pl.read_parquet(file),
    lambda file, to: pl.scan_parquet(file),
    lambda file, to: pq.read_table(file),
    lambda file, to: duckdb.sql(f"SELECT * FROM '{file}'").to_arrow_table(),
    _bare,
    lambda file, to: pl.from_pandas(_bare(file, to)),
    lambda file, to: pa.Table.from_pandas(_bare(file, to)),
    _other_dtypes,
    _numbers_as_text,
    _stream,
    lambda file, to: {"people": pd.read_parquet(file)},
    lambda file, to: {"people": _bare_csv(file, to)},
]
_MEMORY_IDS = [
    "pandas",
    "polars",
    "lazy-polars",
    "arrow",
    "duckdb",
    "bare-pandas",
    "bare-polars",
    "bare-arrow",
    "other-dtypes",
    "numbers-as-text",
    "stream",
    "dict",
    "dict-of-bare",
]


@pytest.mark.parametrize("way", ON_DISK, ids=lambda f: f.__name__.strip("_"))
def test_a_saved_copy_is_refused(world: World, tmp_path: Path, way: Way) -> None:
    source = way(world.file, tmp_path)
    ran = cli("check", source, "--policy", "baseline")
    assert ran.code == 3, ran.out + ran.err
    assert "lineage/depth" in ran.out
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        safegen.Generator(policy="baseline").fit(source)
    assert is_refused_as_synthetic(refusal.value.decision)


@pytest.mark.parametrize("way", ON_DISK, ids=lambda f: f.__name__.strip("_"))
def test_a_saved_copy_of_real_rows_is_admitted(world: World, tmp_path: Path, way: Way) -> None:
    ran = cli("check", way(world.real, tmp_path), "--policy", "strict")
    assert ran.code == 0, ran.out + ran.err


@pytest.mark.parametrize("way", IN_MEMORY, ids=_MEMORY_IDS)
def test_a_copy_in_memory_is_refused(world: World, tmp_path: Path, way: Way) -> None:
    with pytest.raises(safegen.AdmissionRefused) as refusal:
        safegen.Generator(policy="baseline").fit(way(world.file, tmp_path))
    assert is_refused_as_synthetic(refusal.value.decision)


@pytest.mark.parametrize("way", IN_MEMORY, ids=_MEMORY_IDS)
def test_real_rows_in_memory_are_admitted(world: World, tmp_path: Path, way: Way) -> None:
    assert check(way(world.real, tmp_path), "strict").allowed


@pytest.mark.parametrize(
    "of",
    [
        lambda d: d,
        lambda d: d.path,
        lambda d: str(d.path),
        lambda d: d.path.as_uri(),
        lambda d: d.path / "data",
        lambda d: d.path.parent / d.path.name / ".." / d.path.name,
        lambda d: d.to_pandas(),
        lambda d: d.to_pandas(provenance=True),
        lambda d: d.to_pandas().sample(frac=0.5, random_state=1),
        lambda d: d.to_polars(),
        lambda d: d.to_arrow(),
        lambda d: d.real(),
        lambda d: d.synthetic(),
    ],
    ids=lambda f: None,
)
def test_the_dataset_itself_is_refused(world: World, of: Callable[[Any], Any]) -> None:
    assert is_refused_as_synthetic(check(of(world.dataset)))


def test_a_link_to_the_dataset_is_refused(world: World, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(world.dataset.path)
    assert is_refused_as_synthetic(check(link))
    (tmp_path / "file.parquet").symlink_to(world.file)
    assert is_refused_as_synthetic(check(tmp_path / "file.parquet"))


def test_the_parent_folder_of_the_dataset_is_refused(world: World, tmp_path: Path) -> None:
    world.copy(tmp_path / "all" / "deep" / "released")
    assert is_refused_as_synthetic(check(tmp_path / "all"))


@pytest.mark.parametrize(
    "rename",
    [
        str.upper,
        str.title,
        lambda n: f"{n}_x",
        lambda n: f"{n}_right",
        lambda n: f"{n}_1",
        lambda n: f"t1_{n}",
    ],
    ids=["upper", "title", "pandas-merge", "polars-join", "duckdb-join", "prefix"],
)
def test_renamed_provenance_columns_still_speak(
    world: World, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    """Databases fold names to upper case, and joins add to names that clash."""
    frame = world.dataset.to_pandas(provenance=True).head(900)
    frame.attrs.clear()
    named = {n: rename(n) for n in PROVENANCE_COLUMNS}
    frame.rename(columns=named).to_csv(tmp_path / "rows.csv", index=False)
    assert is_refused_as_synthetic(check(tmp_path / "rows.csv"))
    real = world.rows(900, 5).assign(**{rename("_safegen_origin"): "real"})
    assert check(real).allowed


@pytest.mark.parametrize("kept", PROVENANCE_COLUMNS)
def test_any_one_provenance_column_is_enough(world: World, kept: str) -> None:
    frame = world.dataset.to_pandas(provenance=True).head(700)
    frame.attrs.clear()
    gone = [n for n in PROVENANCE_COLUMNS if n != kept]
    assert is_refused_as_synthetic(check(frame.drop(columns=gone)))
    assert check(world.rows(700, 6)).allowed


@pytest.mark.parametrize(
    "damaged",
    [
        lambda n: pa.array([["synthetic"]] * n),
        lambda n: pa.array([{"a": "synthetic"}] * n),
        lambda n: pa.array([b"\xff\xfe"] * n),
        lambda n: pa.array([1] * n),
        lambda n: pa.array([True] * n),
        lambda n: pa.array(["Synthetic "] * n),
    ],
    ids=["list", "struct", "bytes", "codes", "flag", "padded"],
)
def test_a_damaged_origin_column_is_still_a_mark(world: World, damaged: Any) -> None:
    table = pa.Table.from_pandas(world.rows(600, 7), preserve_index=False)
    assert check(table).allowed
    assert is_refused_as_synthetic(check(table.append_column("_safegen_origin", damaged(600))))


@pytest.mark.parametrize("said", ["real", " REAL ", "", None])
def test_absent_or_real_origins_are_no_mark(world: World, said: str | None) -> None:
    table = pa.Table.from_pandas(world.rows(600, 8), preserve_index=False)
    origins = pa.array([said] * 600, pa.string())
    assert check(table.append_column("_safegen_origin", origins)).allowed
