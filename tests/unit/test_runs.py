"""Fingerprints in sorted runs: the same ones, however rows came and wherever the runs are."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fingerprints import KEY, families, law

from safegen.lineage import runs
from safegen.lineage.fingerprints import Prints, WholeRows
from safegen.lineage.forms import form_of
from safegen.lineage.printing import Printing
from safegen.lineage.runs import Runs


def some(seed: int, count: int, distinct: int = 2**48) -> np.ndarray:
    rng = np.random.default_rng([seed, count])
    pool = rng.integers(0, 2**48, min(distinct, count), dtype=np.uint64)
    return pool[rng.integers(0, len(pool), count)]


def all_of(found: Runs) -> tuple[np.ndarray, np.ndarray]:
    pieces = list(found)
    words, often = (np.concatenate(c) for c in zip(*pieces, strict=True))
    return words, often


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a test reaches: runs of 1,000, of which 2,500 are in memory; 20,000 are kept."""
    for name, value in (("_RUN", 1_000), ("_HELD", 2_500), ("_PIECE", 700), ("KEPT", 20_000)):
        monkeypatch.setattr(runs, name, value)
    monkeypatch.setattr(runs, "_SPOOLED", 30_000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("distinct", [1, 300, 15_000, 2**48])
def test_runs_on_disk_and_in_memory_are_what_came(distinct: int) -> None:
    words = some(1, 60_000, distinct)
    expected, often = np.unique(words, return_counts=True)
    kept = Runs()
    for piece in np.array_split(words, 77):
        kept.add(piece)
    found, counts = all_of(kept)
    assert np.array_equal(found, expected[expected < kept.bound])
    assert np.array_equal(counts, np.minimum(often, 2**16 - 1)[: len(found)])
    assert kept.count == 60_000
    if len(expected) <= 20_000:
        assert len(found) == len(expected)
    else:  # as many as may be, but for one part in 4,096
        assert 19_000 < len(found) <= 20_000
    assert any(run.file is not None for run in kept._runs) == (distinct > 1)
    assert len(kept._runs) <= 64
    assert np.array_equal(kept.words(), np.repeat(found, counts))


@pytest.mark.usefixtures("small")
@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 30_000), max_size=8), st.sampled_from([500, 2**48]), st.booleans())
def test_merged_runs_are_those_of_all_rows(sizes: list[int], distinct: int, sent: bool) -> None:
    """However rows were cut into parts, and whether parts came from another process."""
    words = some(2, sum(sizes), distinct) if sum(sizes) else np.zeros(0, np.uint64)
    once, together = Runs(), Runs()
    once.add(words)
    for piece in np.split(words, np.cumsum(sizes[:-1])) if sizes else []:
        part = Runs()
        part.add(piece)
        together.merge(pickle.loads(pickle.dumps(part)) if sent else part)
    assert together.count == once.count == len(words)
    assert together.bound == once.bound
    for mine, theirs in zip(all_of(together), all_of(once), strict=True):
        assert np.array_equal(mine, theirs)


def test_memory_does_not_grow_with_rows() -> None:
    peaks = []
    for blocks in (80, 160):  # 5 and 10 million
        rng = np.random.default_rng(3)
        tracemalloc.start()
        kept = Runs()
        for _ in range(blocks):
            kept.add(rng.integers(0, 2**48, 65_536, dtype=np.uint64))
        count = sum(len(words) for words, _ in kept)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert count <= runs.KEPT
    assert peaks[1] <= 1.05 * peaks[0] < 80e6


def test_a_process_that_is_killed_leaves_no_file(tmp_path: Path) -> None:
    script = (
        "import numpy as np, sys, time\n"
        "from safegen.lineage import runs\n"
        "kept = runs.Runs()\n"
        "for seed in range(3):\n"
        "    kept.add(np.random.default_rng(seed).integers(0, 2**48, 2**20, dtype=np.uint64))\n"
        "file = next(r.file for r in kept._runs if r.file is not None)\n"
        "print(10 * file.rows, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 20_000_000
    assert list(tmp_path.iterdir()) == []  # nobody finds it while it is written to either
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(runs.tempfile, "TemporaryFile", lambda **_: full)
        monkeypatch.setattr(runs, "_HELD", 100)
        with pytest.raises(OSError, match="No space"):
            Runs().merge(_of(some(4, 1_000)))


def _of(words: np.ndarray) -> Runs:
    found = Runs()
    found._loose.append(words)
    return found


# ---- of a release --------------------------------------------------------------------------------


def finished(printing: Printing, real: pa.Table | None) -> Prints:
    return printing.finish(form_of(printing.first(), 7), real)


def same(one: Prints, other: Prints) -> bool:
    return one.to_bytes() == other.to_bytes()


@pytest.mark.parametrize("spooled", [False, True])
def test_parts_that_are_merged_are_one_release(
    spooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes that a ledger keeps hang neither on how rows were cut into parts, nor on who
    printed them, nor on where they were meanwhile."""
    made, decoys, real = law(1, 30_000, fitted=True), law(2, 9_000, fitted=True), law(3, 5_000)
    once = Printing(made.column_names, KEY, seen=4_000)
    once.update(made)
    once.update_decoys(decoys)
    expected = finished(once, real)
    if spooled:
        for name, value in (("_RUN", 1_000), ("_HELD", 2_500), ("_PIECE", 700)):
            monkeypatch.setattr(runs, name, value)
    for parts in (2, 7):
        together = Printing(made.column_names, KEY, seen=4_000)
        for number in range(parts):
            first, end = (30_000 * i // parts for i in (number, number + 1))
            part = Printing(made.column_names, KEY, seen=4_000, part=number)
            part.update(made.slice(first, end - first))
            part.update_decoys(
                decoys.slice(9_000 * number // parts, 9_000 // parts + 1).slice(
                    0, 9_000 * (number + 1) // parts - 9_000 * number // parts
                )
            )
            together.merge(pickle.loads(pickle.dumps(part)))
        assert together.rows == 30_000
        assert same(finished(together, real), expected)


def test_one_row_of_a_unit_is_the_same_whatever_passed_before() -> None:
    """Of a part, drawn by its number: a part that is made again, elsewhere, draws the same rows."""
    names = ["name", "number", "street"]

    def of(part: int, seed: int) -> np.ndarray:
        printing = Printing(names, KEY, unit="family", part=part)
        printing.update(families(seed, 600))
        return printing._released.words.words()

    assert np.array_equal(of(3, 1), of(3, 1))
    assert not np.array_equal(of(3, 1), of(4, 1))


def test_of_a_longer_release_a_random_part_is_kept_and_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those below a bound on either side: chance, and what is said to be found, are of these."""
    from safegen.lineage.detection import ALPHA, met_whole

    monkeypatch.setattr(runs, "KEPT", 4_000)
    made, real = law(1, 20_000, fitted=True), law(3, 5_000)
    printing = Printing(made.column_names, KEY)
    printing.update(made)
    printing.update_decoys(law(2, 5_000, fitted=True))
    prints = finished(printing, real)
    assert 3_900 < prints.distinct <= 4_000 < prints.rows == 20_000
    honest = law(5, 10_000)

    def met(table: pa.Table):  # type: ignore[no-untyped-def]
        whole = WholeRows.of(printing.hasher.whole(printing._columns(table)))
        return met_whole(Prints.from_bytes(prints.to_bytes()), whole, 1)

    least = met(honest).least
    planted = int(np.ceil(least * 10_000))
    assert 20 < planted < 200  # five times what it would take, were all of them kept
    assert met(honest).p > 1e-3
    hit = []
    for seed in range(30):
        rows = np.random.default_rng(seed).integers(0, made.num_rows, planted)
        some_ = made.take(pa.array(rows)).cast(honest.schema)
        hit.append(met(pa.concat_tables([honest.slice(planted), some_])).p <= ALPHA)
    assert np.mean(hit) >= 0.85
