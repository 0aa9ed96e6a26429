"""Output in blocks: a request is a prefix of a longer one, workers change nothing, memory stays."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import safegen
import safegen.plugins
from safegen.engines import local
from safegen.engines.blocks import block_plan, sample_block
from safegen.engines.parts import part_plan
from safegen.tables.schema import infer_schema
from safegen.testing import Rows, example_table

BLOCK = 65_536

_CHILD = """
import re, sys
import safegen
gen = safegen.Generator.load(sys.argv[1], ledger=sys.argv[4])
gen.generate(int(sys.argv[2]), sys.argv[3])
# Not ru_maxrss: a child inherits it from the process that started it.
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def peak(rows: int, folder: Path) -> int:
    """Peak resident KiB of a process that loads the model and generates."""
    words = [str(folder / "model"), str(rows), str(folder / str(rows)), str(folder / "l.db")]
    out = subprocess.run(
        [sys.executable, "-c", _CHILD, *words],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    return int(out.stdout.splitlines()[-1])


def rows_of(folder: Path) -> object:
    source = safegen.Dataset(folder, safegen.Manifest.read(folder))
    return source.to_arrow().replace_schema_metadata(None)


@pytest.mark.parametrize(
    ("rows", "plan"),
    [(1, [(0, 1)]), (10, [(0, 10)]), (11, [(0, 10), (1, 1)]), (20, [(0, 10), (1, 10)])],
)
def test_all_blocks_are_full_but_the_last(rows: int, plan: list[tuple[int, int]]) -> None:
    assert list(block_plan(rows, 10)) == plan


def test_a_shorter_request_is_a_prefix_of_a_longer_one_and_workers_change_nothing(
    tmp_path: Path,
) -> None:
    gen = safegen.Generator(ledger=tmp_path / "l.db").fit(example_table(1000))
    long = gen.generate(BLOCK + 5000, tmp_path / "long")
    block = gen.generate(BLOCK, tmp_path / "block")
    short = gen.generate(100, tmp_path / "short")
    two = gen.generate(BLOCK + 5000, tmp_path / "two", workers=2)
    assert two.manifest.logical_digest == long.manifest.logical_digest
    table = rows_of(long.path)
    assert table.equals(rows_of(two.path))  # type: ignore[attr-defined]
    assert table.slice(0, BLOCK).equals(rows_of(block.path))  # type: ignore[attr-defined]
    assert table.slice(0, 100).equals(rows_of(short.path))  # type: ignore[attr-defined]
    groups = [g.rows for f in long.manifest.files for g in f.row_groups]
    assert groups == [BLOCK // 2, BLOCK // 2, 5000]  # of two candidates one is kept
    other = gen.generate(100, tmp_path / "other", seed=12)
    assert not rows_of(other.path).equals(rows_of(short.path))  # type: ignore[attr-defined]


def test_conditions_that_a_backend_does_not_take_are_met_by_rejection() -> None:
    table = example_table(600)
    backend = Rows()
    schemas = {"table": infer_schema(table)}
    model = backend.fit({"table": table}, schemas, backend.Options(), seed=1)

    def rows(n: int) -> pa.Table:
        wanted = {"job": "c", "member": False}
        return pa.concat_tables(
            sample_block(model, backend, r, seed=3, block=b, conditions=wanted)["table"]
            for b, r in block_plan(n, backend.block_rows)
        )

    long = rows(Rows.block_rows + 300)
    assert long.num_rows == Rows.block_rows + 300
    assert set(long.column("job").to_pylist()) == {"c"}
    assert set(long.column("member").to_pylist()) == {False}
    assert long.slice(0, 70).equals(rows(70))
    assert long.slice(0, 1100).equals(rows(1100))
    first, second = long.slice(0, 300), long.slice(Rows.block_rows, 300)
    assert not first.equals(second)


def test_conditions_that_are_met_too_rarely_end_promptly_with_the_shortfall() -> None:
    table = example_table(600)
    backend = Rows()
    schemas = {"table": infer_schema(table)}
    model = backend.fit({"table": table}, schemas, backend.Options(), seed=1)
    drawn = []

    class Counting:
        def sample(self, rows: int, **more: Any) -> dict[str, pa.Table]:
            drawn.append(rows)
            return model.sample(rows, **more)

        save = None

    never = {"job": "c", "age": 17, "gain": 9_999}
    with pytest.raises(safegen.BackendError, match=r"^0 of 50 rows: testing.rows .*job, age, gain"):
        sample_block(Counting(), backend, 50, seed=3, block=0, conditions=never)  # type: ignore[arg-type]
    assert len(drawn) == 8


def test_a_dataset_by_rejection_is_released_and_says_what_it_was_conditioned_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = safegen.plugins.load
    monkeypatch.setattr(
        safegen.plugins,
        "load",
        lambda group, name: Rows if name == "testing.rows" else load(group, name),
    )
    gen = safegen.Generator("testing.rows", ledger=tmp_path / "l.db").fit(example_table(600))
    ds = gen.generate(200, tmp_path / "out", conditions={"job": "b"})
    assert set(ds.to_pandas()["job"]) == {"b"}
    assert ds.manifest.extra["conditioned_on"] == ["job"]


@pytest.mark.parametrize(
    ("rows", "cores", "workers"), [(1, 8, 1), (50, 8, 1), (60, 8, 2), (1_000, 8, 8), (1_000, 1, 1)]
)
def test_a_process_is_started_only_for_blocks_enough(
    rows: int, cores: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    plan, found = local._worth(part_plan(rows, 10), alone=False)
    assert found == workers
    assert list(plan) == list(part_plan(rows, 10))


def test_a_model_that_says_alone_gets_no_further_processes() -> None:
    _, found = local._worth(part_plan(10**6, 10), alone=True)
    assert found == 1


@pytest.mark.slow
def test_a_million_rows_take_the_memory_of_a_hundred_thousand(tmp_path: Path) -> None:
    table = example_table(3000)
    pq.write_table(table, tmp_path / "real.parquet")
    gen = safegen.Generator(ledger=tmp_path / "l.db").fit(tmp_path / "real.parquet")
    gen.save(tmp_path / "model")
    few, many = peak(100_000, tmp_path), peak(1_000_000, tmp_path)
    assert abs(many / few - 1) <= 0.10, f"{few} KiB against {many} KiB"
    assert safegen.Manifest.read(tmp_path / "1000000").rows == 1_000_000
    block = gen.generate(BLOCK, tmp_path / "block")
    whole = rows_of(tmp_path / "1000000")
    assert whole.slice(0, BLOCK).equals(rows_of(block.path))  # type: ignore[attr-defined]
