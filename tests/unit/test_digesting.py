"""Digests that are made in pieces, of rows in any cut and order, or in two processes, are those of
one pass."""

from __future__ import annotations

import os
import pickle
import signal
from contextlib import closing
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safegen.processes import started as started_here
from safegen.tables import cells, digesting
from safegen.tables.batches import Batches
from safegen.tables.cells import coded, exact_cells, row_cells, tolerant_cells
from safegen.tables.digesting import table_digests
from safegen.tables.digests import LookupDigest, RowsDigest, TableDigests

ROWS, BATCH = 3_000, 250
KEY = b"k" * 32
KEYS = [("first", KEY), ("second", b"other" * 8)]


def rows() -> pa.Table:
    rng = np.random.default_rng(5)
    return pa.table(
        {
            "age": rng.integers(17, 90, ROWS),
            "name": pa.array([None if i % 7 else "ab"[i % 2] for i in range(ROWS)]),
            "kind": pa.array(["x", "y", None] * (ROWS // 3)).dictionary_encode(),
            "pair": pa.array([[1, i] for i in range(ROWS)]),
        }
    )


def table() -> Batches:
    made = rows()
    return Batches(made.schema, lambda: made.to_batches(max_chunksize=BATCH), ROWS)


def of(part: pa.Table) -> TableDigests:
    digests = TableDigests(part.schema, KEYS)
    for batch in part.to_batches():
        digests.update(batch)
    return digests


def values(digests: TableDigests) -> list[str]:
    return [digests.rows.value(), *(one.value() for one in digests.lookups.values())]


# ---- pieces -------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, ROWS), max_size=5).map(sorted),
    st.permutations(range(6)),
    st.integers(0, 2**32 - 1),
)
def test_any_cut_and_order_makes_the_digests_of_one_pass(
    cuts: list[int], order: list[int], seed: int
) -> None:
    shuffled = rows().take(np.random.default_rng(seed).permutation(ROWS))
    ends = [0, *cuts, *[ROWS] * (6 - len(cuts))]
    parts = [shuffled.slice(a, b - a) for a, b in pairwise(ends)]
    whole = TableDigests(shuffled.schema, KEYS)
    for part in (parts[i] for i in order):
        whole.merge(pickle.loads(pickle.dumps(of(part))))
    assert values(whole) == values(of(rows()))
    assert whole.rows.rows == ROWS


def test_what_was_merged_goes_on() -> None:
    whole, rest = of(rows().slice(0, 10)), of(rows().slice(10, 90))
    before = values(rest)
    whole.merge(rest)
    for batch in rows().slice(100).to_batches():
        whole.update(batch)
    assert values(whole) == values(of(rows()))
    assert values(rest) == before


def test_what_does_not_add_up_does_not_merge() -> None:
    schema, other = pa.schema({"a": pa.int64()}), pa.schema({"b": pa.int64()})
    with pytest.raises(ValueError, match="columns"):
        RowsDigest(schema).merge(RowsDigest(other))
    for one in (LookupDigest(other, KEY), LookupDigest(schema, b"other" * 8)):
        with pytest.raises(ValueError, match="keys"):
            LookupDigest(schema, KEY).merge(pickle.loads(pickle.dumps(one)))
    LookupDigest(schema, KEY).merge(pickle.loads(pickle.dumps(LookupDigest(schema, KEY))))


def test_a_pickled_lookup_digest_holds_no_key() -> None:
    digest = of(rows()).lookups["first"]
    written = pickle.dumps(digest)
    assert KEY not in written
    assert digest._key not in written
    with pytest.raises(AttributeError):
        pickle.loads(written).value()


def test_what_comes_out_of_a_pickle_goes_on_with_its_key() -> None:
    digest = of(rows()).lookups["first"]
    read = pickle.loads(pickle.dumps(digest))
    with pytest.raises(ValueError, match="another key"):
        read.keyed(b"other" * 8)
    assert read.keyed(KEY).value() == digest.value()


def test_rows_of_cells_are_cut_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = rows().to_batches()[0]
    [whole] = row_cells(batch, batch.schema.names, exact_cells)
    names = batch.schema.names
    assert whole.tobytes() == np.hstack([exact_cells(batch.column(n)) for n in names]).tobytes()
    before = values(of(rows()))
    monkeypatch.setattr(cells, "_PIECE", 17 * 4 * 100)
    pieces = [*row_cells(batch, names, exact_cells)]
    assert [len(p) for p in pieces] == [100] * 30
    assert b"".join(p.tobytes() for p in pieces) == whole.tobytes()
    assert values(of(rows())) == before


def test_texts_as_dictionaries_have_the_same_cells() -> None:
    batch = rows().to_batches()[0]
    for name, column in zip(batch.schema.names, coded(batch).columns, strict=True):
        for kind in (exact_cells, tolerant_cells):
            assert np.array_equal(kind(column), kind(batch.column(name)))
    assert pa.types.is_dictionary(coded(batch).column("name").type)


def test_a_pickle_is_small_whatever_it_has_seen() -> None:
    few, many = of(rows().slice(0, 1)), of(rows())
    assert abs(len(pickle.dumps(many)) - len(pickle.dumps(few))) < 20
    assert len(pickle.dumps(many)) < 5_000


# ---- two processes ------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that were started, from the first rows on."""
    seen: list[int] = []
    start = started_here

    def noted(*arguments: str):  # type: ignore[no-untyped-def]
        process = start(*arguments)
        seen.append(process.pid)
        return process

    monkeypatch.setattr(digesting, "started", noted)
    monkeypatch.setattr(digesting, "cores", lambda: 2)
    monkeypatch.setattr(digesting, "_WORTH", 0)
    return seen


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def made(batches: Batches) -> list[str]:
    digest, lookups = table_digests(batches, KEYS)
    return [digest.value(), *(one.value() for one in lookups.values())]


def test_two_processes_make_the_digests_of_one(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere: list[int] = []
    packed = digesting._packed

    def noted(batch: pa.RecordBatch) -> bytes:
        elsewhere.append(batch.num_rows)
        return packed(batch)

    monkeypatch.setattr(digesting, "_packed", noted)
    assert made(table()) == values(of(rows()))
    assert len(started) == 1
    assert gone(started[0])
    assert 0 < sum(elsewhere) < ROWS


def test_the_keys_are_not_among_its_arguments(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    start = digesting.started
    monkeypatch.setattr(digesting, "started", lambda *a: said.extend(a) or start(*a))
    made(table())
    assert said == ["safegen.tables.digesting"]


def test_only_the_batch_is_sent_and_not_what_it_was_cut_from() -> None:
    batch = rows().to_batches(max_chunksize=10)[5]
    packed = digesting._packed(batch)
    assert len(packed) < 5_000
    assert pa.ipc.open_stream(packed).read_all().to_batches() == [batch]


def test_short_tables_and_single_cores_need_no_process(
    started: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digesting, "_WORTH", ROWS)
    assert made(table()) == values(of(rows()))
    monkeypatch.setattr(digesting, "_WORTH", 0)
    monkeypatch.setattr(digesting, "cores", lambda: 1)
    assert made(table()) == values(of(rows()))
    assert started == []


def test_a_process_that_is_killed_takes_no_rows_with_it(started: list[int]) -> None:
    batches = [*table()]
    whole = TableDigests(rows().schema, KEYS)
    with closing(digesting._Second(rows().schema, KEYS)) as second:
        for number, batch in enumerate(batches):
            assert second.takes(batch)
            second.done()
            if number == 3:
                os.kill(started[0], signal.SIGKILL)
        for digests in second.done():
            whole.merge(digests)
    assert len(started) == 1
    assert values(whole) == values(of(rows()))


def test_where_no_process_can_be_started_the_digests_are_made_here(
    monkeypatch: pytest.MonkeyPatch, started: list[int]
) -> None:
    def none(*arguments: str) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(digesting, "started", none)
    assert made(table()) == values(of(rows()))


def test_a_process_ends_with_a_read_that_fails(started: list[int]) -> None:
    def broken():  # type: ignore[no-untyped-def]
        yield from [*table()][:3]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="disk"):
        table_digests(Batches(table().schema, broken))
    assert gone(started[0])


def test_a_batch_that_has_no_digest_is_told_of_here_and_shown_nowhere(
    started: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    offsets, text = pa.py_buffer(np.array([0, 7], np.int32)), pa.py_buffer(b"secret\xff")
    odd = pa.record_batch({"a": pa.Array.from_buffers(pa.string(), 1, [None, offsets, text])})
    batches = Batches(odd.schema, lambda: [odd])
    with pytest.raises(UnicodeDecodeError):
        table_digests(batches)
    assert len(started) == 1
    assert gone(started[0])
    assert capfd.readouterr() == ("", "")


def test_rows_of_no_columns_count(started: list[int]) -> None:
    empty = pa.table({"_safegen_origin": ["synthetic"] * 7})
    digest, _ = table_digests(Batches.of(empty))
    here = RowsDigest(empty.schema)
    for batch in empty.to_batches():
        here.update(batch)
    assert digest.value() == here.value()
    fewer = RowsDigest(empty.schema)
    fewer.update(empty.slice(1).to_batches()[0])
    assert digest.value() != fewer.value()
