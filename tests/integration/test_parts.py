"""A release is made in parts: workers, however many and lost ones, and interrupted runs change
nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import safegen
from safegen.engines import local
from safegen.engines.parts import Recipe, make_part, part_plan
from safegen.engines.writing import PARTS, Written
from safegen.release import MARK
from safegen.tables.schema import infer_schema
from safegen.testing import Rows, example_table

BLOCK = Rows.block_rows


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that small requests have many parts. Of this process only, which says how parts are cut:
    in workers nothing may hang on it, as selection does."""
    from safegen.backends.sdv.gaussian_copula import GaussianCopula

    monkeypatch.setattr(GaussianCopula, "block_rows", 4_096)


def left(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"{MARK}*"))


def same(one: safegen.Dataset, other: safegen.Dataset) -> None:
    """All of both but their ids and the times they were made at."""
    mine, theirs = one.manifest, other.manifest
    assert mine.logical_digest == theirs.logical_digest
    assert [f.rows for f in mine.files] == [f.rows for f in theirs.files]
    assert mine.measurements == theirs.measurements
    assert mine.safeguards == theirs.safeguards
    assert mine.claims == theirs.claims
    assert mine.weighted == theirs.weighted
    assert one.to_arrow(provenance=True).equals(other.to_arrow(provenance=True))


# ---- how a request is cut ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "parts", "most"),
    [
        (1, 1, 1),
        (10, 1, 1),
        (11, 2, 1),
        (640, 64, 1),
        (641, 33, 2),
        (10_240, 64, 16),
        (10**6, 6_250, 16),
    ],
)
def test_parts_are_all_of_the_request_once(rows: int, parts: int, most: int) -> None:
    plan = list(part_plan(rows, 10))
    blocks = [block for part in plan for block in part.blocks]
    assert [b for b, _ in blocks] == list(range(-(-rows // 10)))
    assert sum(units for _, units in blocks) == rows
    assert [p.number for p in plan] == list(range(parts))
    assert max(len(p.blocks) for p in plan) == most
    before = 0
    for part in plan:
        assert part.first == before
        before += part.units


def test_a_plan_of_a_million_million_rows_takes_no_time() -> None:
    plan = part_plan(10**12, 65_536)
    assert next(plan).blocks == tuple((b, 65_536) for b in range(16))


# ---- who makes parts changes nothing -------------------------------------------------------------


def boosting(frame: pd.DataFrame, place: Path) -> safegen.Generator:
    """Selected rows with weights, a watermark, fingerprints: all that is merged."""
    path = place / "real.parquet"
    frame.to_parquet(path)
    return safegen.Generator(policy="rare-events", ledger=place / "ledger.db").fit(path)


@pytest.fixture(scope="module")
def real() -> pd.DataFrame:
    frame: pd.DataFrame = example_table(4_000).to_pandas()
    return frame


def test_one_process_and_two_make_the_same(real: pd.DataFrame, tmp_path: Path) -> None:
    gen = boosting(real, tmp_path)
    one = gen.generate(20_000, tmp_path / "one", workers=1)
    two = gen.generate(20_000, tmp_path / "two", workers=2)
    same(one, two)
    assert one.manifest.weighted
    assert len([f for f in one.manifest.files if f.rows]) > 1
    assert safegen.verify(two.path, deep=True).rows == 20_000
    # What the ledger keeps of both is the same too, but for what names them.
    assert not safegen.check(one.to_arrow(provenance=True), ledger=tmp_path / "ledger.db").allowed
    assert not list(two.path.rglob(PARTS))


def made(workers: int, rows: int, folder: Path, **changed: Any) -> tuple[list[Written], Recipe]:
    """Parts of a table of numbers, without a Generator."""
    table = example_table(600)
    backend, schemas = Rows(), {"table": infer_schema(table)}
    model = backend.fit({"table": table}, schemas, backend.Options(), seed=1)
    (folder / PARTS).mkdir(parents=True, exist_ok=True)
    recipe = Recipe("testing.rows", schemas, seed=3, **changed)
    plan = part_plan(rows, BLOCK)
    return list(local.made(recipe, model, backend, plan, folder, workers=workers)), recipe


def test_parts_merge_to_what_one_pass_over_all_rows_counts(tmp_path: Path) -> None:
    parts, recipe = made(1, 5 * BLOCK + 7, tmp_path)
    merged = recipe.blank()
    for part in parts:
        merged.merge(part)
    assert merged.rows == 5 * BLOCK + 7
    rows = [pq.read_table(tmp_path / f.path) for f in merged.files]
    assert [t.num_rows for t in rows] == [BLOCK] * 5 + [7]
    whole = recipe.blank()
    for table in rows:
        whole.see(
            "table", table.select(table.column_names[:-3]).replace_schema_metadata(None), None
        )
    assert whole.digests() == merged.digests()


# ---- lost workers --------------------------------------------------------------------------------


class Killing:
    """Kills the process of a worker each time that some parts are asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int, number: int = 2):
        self.killed = 0
        ask = local._Worker.ask

        def asked(worker: local._Worker, part: Any) -> None:
            ask(worker, part)
            if part.number == number and self.killed < times:
                self.killed += 1
                worker._process.kill()

        monkeypatch.setattr(local._Worker, "ask", asked)


@pytest.mark.usefixtures("small_blocks")
def test_a_lost_worker_costs_its_parts_only(
    real: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = "lab"
    one = gen.generate(20_000, tmp_path / "one", workers=1)
    killing = Killing(monkeypatch, times=2)
    two = gen.generate(20_000, tmp_path / "two", workers=2)
    assert killing.killed == 2
    same(one, two)
    assert not left(tmp_path)


@pytest.mark.usefixtures("small_blocks")
def test_a_part_that_kills_every_worker_ends_and_what_is_done_is_kept(
    real: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = "lab"
    with monkeypatch.context() as patch:
        killing = Killing(patch, times=99, number=4)
        with pytest.raises(safegen.BackendError, match=r"ended 3 times .*fewer --workers"):
            gen.generate(40_000, tmp_path / "out", workers=2)
    assert killing.killed == local.TRIES
    assert not (tmp_path / "out").exists()
    assert len(left(tmp_path)) == 1
    assert "--resume" in caplog.text
    again = gen.generate(40_000, tmp_path / "out", workers=1, resume=True)
    same(again, gen.generate(40_000, tmp_path / "new", workers=1))
    assert not left(tmp_path)


# ---- runs that go on -----------------------------------------------------------------------------


class Interrupting:
    """Interrupts a run in this process when it begins a part."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int):
        self.begun: list[int] = []
        plain = make_part

        def begin(recipe: Recipe, model: Any, backend: Any, part: Any, *more: Any) -> Written:
            if part.number == at:
                raise KeyboardInterrupt
            return plain(recipe, model, backend, part, *more)

        patch.setattr(local, "make_part", begin)


def interrupted(gen: safegen.Generator, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run for 30,000 rows that has made three parts."""
    with monkeypatch.context() as patch:
        Interrupting(patch, at=3)
        with pytest.raises(KeyboardInterrupt):
            gen.generate(30_000, out, workers=1)


@contextlib.contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The blocks that are sampled in this process."""
    from safegen.engines import parts

    blocks: list[int] = []
    plain = parts.shaped_block

    def shaped(*given: Any, block: int, **more: Any) -> Any:
        blocks.append(block)
        return plain(*given, block=block, **more)

    with monkeypatch.context() as patch:
        patch.setattr(parts, "shaped_block", shaped)
        yield blocks


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("policy", ["lab", "rare-events"])
def test_an_interrupted_run_goes_on_and_ends_in_the_same_dataset(
    policy: str, real: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = policy
    out = tmp_path / "out"
    interrupted(gen, out, monkeypatch)
    (kept,) = left(tmp_path)
    assert not out.exists()
    assert not list(kept.glob("*.json"))  # no manifest
    with counted(monkeypatch) as blocks:
        ds = gen.generate(30_000, out, workers=1, resume=True)
    assert ds.manifest.dataset_id == kept.name[-26:]
    whole = gen.generate(30_000, tmp_path / "whole", workers=1)
    same(ds, whole)
    first = next(f for f in ds.manifest.files if f.rows)
    assert blocks[0] == 3 * len(first.row_groups)
    assert safegen.verify(out, deep=True, ledger=tmp_path / "ledger.db").rows == 30_000
    assert not left(tmp_path)


def test_nothing_to_go_on_with_begins_anew(real: pd.DataFrame, tmp_path: Path) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = "lab"
    same(
        gen.generate(9_000, tmp_path / "one", resume=True),
        gen.generate(9_000, tmp_path / "two"),
    )


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("other", ["rows", "seed", "policy", "model", "no resume"])
def test_what_another_run_has_left_is_not_gone_on_with(
    other: str, real: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = "lab"
    out = tmp_path / "out"
    interrupted(gen, out, monkeypatch)
    rows, seed, resume = 30_000, 11, other != "no resume"
    if other == "rows":
        rows = 30_001
    elif other == "seed":
        seed = 12
    elif other == "policy":
        gen.policy = "rare-events"
    elif other == "model":
        gen.fit(tmp_path / "real.parquet", seed=8)
    with counted(monkeypatch) as blocks:
        gen.generate(rows, out, seed=seed, workers=1, resume=resume)
    assert blocks[0] == 0
    assert not left(tmp_path)  # nobody would ever go on with it


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("what", ["rows", "cut", "gone", "journal", "other part"])
def test_a_part_that_is_not_what_was_finished_is_made_again(
    what: str, real: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gen = boosting(real, tmp_path)
    gen.policy = "lab"
    out = tmp_path / "out"
    interrupted(gen, out, monkeypatch)
    (kept,) = left(tmp_path)
    part, journal = kept / "data/part-00001.parquet", kept / PARTS / "00001.json"
    if what == "rows":
        table = pq.read_table(part)
        pq.write_table(table.slice(0, 100), part)
    elif what == "cut":
        part.write_bytes(part.read_bytes()[:-100])
    elif what == "gone":
        part.unlink()
    elif what == "journal":
        journal.write_text("[")
    else:
        journal.write_bytes((kept / PARTS / "00002.json").read_bytes())
    with counted(monkeypatch) as blocks:
        ds = gen.generate(30_000, out, workers=1, resume=True)
    same(ds, gen.generate(30_000, tmp_path / "whole", workers=1))
    assert 1 in blocks
    assert 0 not in blocks[: blocks.index(1)]
