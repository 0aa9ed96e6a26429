"""Way round the gates: rows are put among those that an interrupted run has finished."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.engines import local
from safegen.engines.parts import Recipe
from safegen.engines.writing import PARTS
from safegen.release import MARK, staging
from safegen.tables.entries import data_entry
from safegen.testing import example_table

ROWS = 12_000


@pytest.fixture
def gen(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> safegen.Generator:
    from safegen.backends.sdv.gaussian_copula import GaussianCopula

    monkeypatch.setattr(GaussianCopula, "block_rows", 2_048)
    pq.write_table(example_table(3_000), tmp_path / "real.parquet")
    return safegen.Generator(policy="lab").fit(tmp_path / "real.parquet")


def interrupted(gen: safegen.Generator, out: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that has made two parts; the folder that it has left."""
    plain = local.make_part

    def begin(recipe: Any, model: Any, backend: Any, part: Any, *more: Any) -> Any:
        if part.number == 2:
            raise KeyboardInterrupt
        return plain(recipe, model, backend, part, *more)

    with monkeypatch.context() as patch:
        patch.setattr(local, "make_part", begin)
        with pytest.raises(KeyboardInterrupt):
            gen.generate(ROWS, out, workers=1)
    (left,) = out.parent.glob(f"{MARK}*")
    return left


def digest(gen: safegen.Generator, out: Path, resume: bool = True) -> str:
    return gen.generate(ROWS, out, workers=1, resume=resume).manifest.logical_digest


def test_rows_that_were_replaced_and_noted_anew_are_judged(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write there may note what he likes: the gates look at the rows."""
    gen.policy = "baseline"
    left = interrupted(gen, tmp_path / "out", monkeypatch)
    part, journal = left / "data/part-00001.parquet", left / PARTS / "00001.json"
    rows = pq.read_table(part)
    field = rows.schema.field("age")
    old = pa.array([999] * rows.num_rows).cast(field.type)
    pq.write_table(rows.set_column(rows.schema.get_field_index("age"), field, old), part)
    said = json.loads(journal.read_text())
    entry = data_entry(part, "data/part-00001.parquet", "table")
    journal.write_text(json.dumps({**said, "files": [entry.model_dump(mode="json")]}))
    with pytest.raises(safegen.ReleaseRefused, match="age"):
        gen.generate(ROWS, tmp_path / "out", workers=1, resume=True)
    assert not list(tmp_path.glob(f"{MARK}*"))
    interrupted(gen, tmp_path / "honest", monkeypatch)
    assert digest(gen, tmp_path / "honest")


@pytest.mark.parametrize("what", ["twice", "fewer", "others", "elsewhere", "nothing", "not a file"])
def test_a_journal_that_says_something_else_is_not_believed(
    what: str, gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted(gen, tmp_path / "out", monkeypatch)
    part, journal = left / "data/part-00001.parquet", left / PARTS / "00001.json"
    said = json.loads(journal.read_text())
    if what == "twice":
        said["files"] *= 2
    elif what == "fewer":
        with pq.ParquetFile(part) as file:
            pq.write_table(file.read().slice(0, 500), part)
        said["files"] = [
            data_entry(part, "data/part-00001.parquet", "table").model_dump(mode="json")
        ]
    elif what == "others":
        with pq.ParquetFile(part) as file:
            rows = file.read()
        pq.write_table(rows.take([0, *range(rows.num_rows - 1)]), part)
    elif what == "elsewhere":
        shutil.copy(part, tmp_path / "other.parquet")
        said["files"][0]["path"] = "../other.parquet"
    elif what == "nothing":
        said["files"] = []
    else:
        part.unlink()
        os.mkfifo(part)
    journal.write_text(json.dumps(said))
    assert digest(gen, tmp_path / "out") == digest(gen, tmp_path / "honest")
    assert safegen.verify(tmp_path / "out", deep=True).rows == ROWS


def test_a_folder_of_another_user_is_not_gone_on_with(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    left = interrupted(gen, tmp_path / "out", monkeypatch)
    os.chown(left, 65_534, -1)
    made = gen.generate(ROWS, tmp_path / "out", workers=1, resume=True).manifest
    assert made.dataset_id != left.name[-26:]


def test_two_that_go_on_at_once(
    gen: safegen.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = interrupted(gen, tmp_path / "out", monkeypatch)
    run = json.loads((left / PARTS / "run.json").read_bytes())
    recipe = Recipe("testing.rows", {}, seed=1)
    with staging(tmp_path / "out", dataset_id=left.name[-26:], recipe=recipe, run=run):
        with pytest.raises(safegen.TargetError, match="another run is at work"):
            gen.generate(ROWS, tmp_path / "out", workers=1, resume=True)
        assert left.exists()
    assert not (tmp_path / "out").exists()
