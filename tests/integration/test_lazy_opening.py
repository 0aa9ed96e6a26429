"""A dataset that is opened without being read: what changed is found by whoever reads it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import safegen
from safegen import receipts
from safegen.dataset import Dataset, sign
from safegen.errors import VerificationError
from safegen.loading.groups import groups_of
from safegen.manifest import check, new_key
from safegen.testing.examples import example_table


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        for name in ("DATA", "CONFIG", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
        yield


@pytest.fixture(scope="module")
def made(_home: None, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A release of two row groups."""
    place = tmp_path_factory.mktemp("made")
    pq.write_table(example_table(2_000), place / "real.parquet")
    safegen.attest(place / "real.parquet", by="a test")
    gen = safegen.Generator(policy="lab").fit(place / "real.parquet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("safegen.engines.parts.FEW", 1)  # both in one file
        return gen.generate(70_000, place / "out")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed as a whole."""
    seen: list[str] = []
    whole = check._sha256

    def noted(path: Any) -> str:
        seen.append(path.name)
        return whole(path)

    monkeypatch.setattr(check, "_sha256", noted)
    return seen


def _spoiled(folder: Path, group: int) -> None:
    """One bit of a row group."""
    path = folder / "data" / "part-00000.parquet"
    spans = safegen.Manifest.read(folder).files
    entry = next(f for f in spans if f.path == "data/part-00000.parquet")
    data = bytearray(path.read_bytes())
    data[entry.row_groups[group].offset + 100] ^= 1
    path.write_bytes(data)


def test_nothing_of_the_rows_is_read_before_they_are(
    made: Dataset, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receipts, "SETTLED", 0.0)  # a receipt of what was just written, too
    folder = Path(shutil.copytree(made.path, tmp_path / "copy"))
    lazy = safegen.open(folder, lazily=True)
    assert "README.md" in hashed
    assert "part-00000.parquet" not in hashed
    assert lazy.to_arrow().equals(made.to_arrow())
    # Nor does a receipt say that anybody has hashed them.
    hashed.clear()
    assert safegen.open(folder).manifest.rows == 70_000
    assert "part-00000.parquet" in hashed
    hashed.clear()
    assert safegen.open(folder).manifest.rows == 70_000
    assert "part-00000.parquet" not in hashed  # now somebody has


def test_a_change_is_found_where_it_lies(made: Dataset, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made.path, tmp_path / "copy"))
    _spoiled(folder, 1)
    with pytest.raises(VerificationError, match="content differs"):
        safegen.open(folder)
    lazy = safegen.open(folder, lazily=True)
    first, second = groups_of(lazy.path, lazy.manifest, "table")
    assert first.read().num_rows == first.rows
    for reading in (second.read, lazy.to_pandas, lazy.to_polars, lazy.to_duckdb):
        with pytest.raises(VerificationError, match="row group 1 differs"):
            reading()
    with pytest.raises(VerificationError, match="row group 1 differs"):
        list(lazy.to_torch(seed=None, columns=[c.name for c in lazy.manifest.columns][:1]))


def test_what_is_cut_missing_or_more_is_found_at_once(made: Dataset, tmp_path: Path) -> None:
    def cut(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1])

    def more(path: Path) -> None:
        path.with_name("part-00001.parquet").write_bytes(b"")

    for number, spoil in enumerate((cut, more, Path.unlink)):
        folder = Path(shutil.copytree(made.path, tmp_path / f"copy-{number}"))
        spoil(folder / "data" / "part-00000.parquet")
        with pytest.raises(VerificationError):
            safegen.open(folder, lazily=True)


def test_without_anybody_who_vouches_all_is_read(
    made: Dataset, tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(made.path, tmp_path / "copy"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "elsewhere"))
    _spoiled(folder, 1)
    with pytest.raises(VerificationError, match="content differs"):
        safegen.open(folder, lazily=True)
    shutil.copy(made.path / "data" / "part-00000.parquet", folder / "data" / "part-00000.parquet")
    hashed.clear()
    assert safegen.open(folder, lazily=True).manifest.rows == 70_000
    assert "part-00000.parquet" in hashed
    # A key that the caller trusts does.
    new_key(tmp_path / "key")
    sign(folder, tmp_path / "key")
    hashed.clear()
    assert safegen.open(folder, lazily=True, trusted_keys=[tmp_path / "key.pub"]).manifest.rows
    assert "part-00000.parquet" not in hashed


def test_the_leaf_that_is_compared_is_of_the_bytes(made: Dataset) -> None:
    """What a row group's digest is, by hand."""
    entry = next(f for f in made.manifest.files if f.row_groups)
    data = (made.path / entry.path).read_bytes()
    first = entry.row_groups[0]
    whole = hashlib.sha256(b"\x00" + data[: first.offset + first.bytes]).hexdigest()
    assert whole == first.leaf
