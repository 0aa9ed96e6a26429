"""A digest whose rows are hashed in two processes is the digest."""

from __future__ import annotations

import gc
import os
import signal
import time
from contextlib import closing

import numpy as np
import pyarrow as pa
import pytest

from safegen.processes import started as started_here
from safegen.tables import lanes
from safegen.tables.batches import Batches
from safegen.tables.cells import exact_cells
from safegen.tables.digests import RowsDigest, _row_bytes, table_digests
from safegen.tables.lanes import Helper, summed

ROWS, BATCH = 3_000, 250


def table() -> Batches:
    rng = np.random.default_rng(5)
    made = pa.table(
        {
            "age": rng.integers(17, 90, ROWS),
            "name": [None if i % 7 else "ab"[i % 2] for i in range(ROWS)],
        }
    )
    return Batches(made.schema, lambda: made.to_batches(max_chunksize=BATCH), ROWS)


def alone() -> str:
    digest = RowsDigest(table().schema)
    digest._lanes += sum(
        summed(digest._prefix, _row_bytes(b, digest.names, exact_cells), b.num_rows)
        for b in table()
    )
    digest.rows = ROWS
    return digest.value()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were started, from the first rows on."""
    seen: list[int] = []
    start = started_here

    def noted(*arguments: str):  # type: ignore[no-untyped-def]
        process = start(*arguments)
        seen.append(process.pid)
        return process

    monkeypatch.setattr(lanes, "started", noted)
    monkeypatch.setattr(lanes, "cores", lambda: 2)
    monkeypatch.setattr(lanes, "_WORTH", 0)
    return seen


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_two_processes_make_the_digest_of_one(started: list[int]) -> None:
    digest, _ = table_digests(table())
    assert digest.value() == alone()
    assert digest.rows == ROWS
    assert len(started) == 1
    assert gone(started[0])


def test_a_digest_goes_on_after_its_value_was_asked_for(started: list[int]) -> None:
    digest, half = RowsDigest(table().schema), RowsDigest(table().schema)
    batches = list(table())
    for batch in batches[:6]:
        half.update(batch)
    for batch in batches[6:9]:
        digest.update(batch)
    assert digest.value() != alone()
    for batch in batches[9:]:
        digest.update(batch)
    digest.merge(half)
    assert digest.value() == alone()
    assert digest.rows == ROWS
    assert all(map(gone, started))


def test_a_process_that_nobody_closed_ends_with_its_digest(started: list[int]) -> None:
    digest = RowsDigest(table().schema)
    for batch in table():
        digest.update(batch)
    digest._lanes += digest._helper.rest()
    assert not gone(started[0])
    del digest
    gc.collect()
    for _ in range(100):  # the thread may be at the last batch
        if gone(started[0]):
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")


def test_short_tables_and_single_cores_need_no_process(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_WORTH", ROWS)
    assert table_digests(table())[0].value() == alone()
    monkeypatch.setattr(lanes, "_WORTH", 0)
    monkeypatch.setattr(lanes, "cores", lambda: 1)
    assert table_digests(table())[0].value() == alone()
    assert started == []


def test_a_process_that_is_killed_takes_no_rows_with_it(started: list[int]) -> None:
    rows, other = b"abcd" * 500, b"wxyz" * 500
    with closing(Helper(b"seed")) as helper:
        total = helper.add(rows, 500)
        total += helper.rest()
        os.kill(started[0], signal.SIGKILL)
        for _ in range(4):
            total += helper.add(other, 500)
            total += helper.rest()
    assert len(started) == 1
    expected = summed(b"seed", rows, 500) + 4 * summed(b"seed", other, 500)
    assert (total == expected).all()


def test_where_no_process_can_be_started_the_digest_is_made_here(
    monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    def none(*arguments: str) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(lanes, "started", none)
    assert table_digests(table())[0].value() == alone()


def test_a_process_ends_with_a_read_that_fails(started: list[int]) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield from [*table()][:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        table_digests(Batches(table().schema, broken))
    assert gone(started[0])


def test_rows_of_no_columns_count(started: list[int]) -> None:
    empty = pa.table({"_safegen_origin": ["synthetic"] * 7})
    digest, _ = table_digests(Batches.of(empty))
    here = RowsDigest(empty.schema)
    here.update(empty.to_batches()[0])
    assert digest.value() == here.value()
    assert not (summed(b"s", b"", 7) == summed(b"s", b"", 6)).all()
