"""Somebody has the ledger's file, but not its key, and a dictionary that holds every real row.

Each guess is also tried with the key, so that a test which could find nothing would be seen.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from forging import World

from safegen.ledger import open_ledger
from safegen.lineage.fingerprints import Hasher, Prints
from safegen.tables.batches import Batches
from safegen.tables.cells import exact_cells, tolerant_cells
from safegen.tables.digesting import table_digests
from safegen.tables.digests import folded
from safegen.tables.words import Column

GUESSES = 2_000


@pytest.fixture
def stolen(world: World) -> Path:
    return Path(open_ledger().url.removeprefix("sqlite://"))


@pytest.fixture
def real(world: World) -> pa.Table:
    return pa.Table.from_pandas(pd.read_parquet(world.real), preserve_index=False)


def keys_to_try(stolen: Path) -> Iterator[bytes]:
    """All that a key could have been made of, if it lay in the file."""
    yield from (b"", bytes(32))
    with sqlite3.connect(f"file:{stolen}?mode=ro", uri=True) as db:
        texts = [row[0] for row in db.execute("SELECT key_id FROM epochs")]
        texts += [row[0] for row in db.execute("SELECT ledger_id FROM ledger")]
        texts += [row[0] for row in db.execute("SELECT hash FROM log ORDER BY seq LIMIT 20")]
    db.close()
    for text in map(str, texts):
        yield text.encode()
        yield hashlib.sha256(text.encode()).digest()
        if re.fullmatch("([0-9a-f]{2})+", text):
            yield bytes.fromhex(text)


def kept_of(world: World) -> Prints:
    ledger, mine = open_ledger(), world.dataset.manifest.dataset_id
    (where,) = (a for a in ledger.attached("fingerprints") if a.dataset_id == mine)
    return Prints.from_bytes(ledger.attachment(where))


def whole(table: pa.Table, key: bytes) -> np.ndarray:
    names = sorted(table.column_names, key=lambda n: (folded(n), n))
    columns = {i: Column.of(table.column(n).combine_chunks()) for i, n in enumerate(names)}
    return Hasher(key, tuple(map(folded, names))).whole(columns)


def test_fingerprints_confirm_no_row_without_the_key(
    world: World, stolen: Path, real: pa.Table
) -> None:
    made = world.dataset.to_arrow().select(real.column_names)
    kept = kept_of(world)
    with_key = {name: whole(t, open_ledger().key_epochs()[0][1]) for name, t in
                (("made", made), ("real", real))}  # fmt: skip
    assert np.isin(with_key["made"], kept.own).mean() > 0.9
    assert not np.isin(with_key["real"], kept.whole.cells).any()  # not even with it
    for key in keys_to_try(stolen):
        for table in (real, made):
            assert not np.isin(whole(table, key), kept.whole.cells).any()


def test_lookups_confirm_no_table_without_the_key(
    world: World, stolen: Path, real: pa.Table
) -> None:
    with sqlite3.connect(f"file:{stolen}?mode=ro", uri=True) as db:
        there = {row[0] for row in db.execute("SELECT digest FROM lookups")}
    db.close()
    right = open_ledger().key_epochs()[0][1]
    keys = [("right", right), *((str(i), k) for i, k in enumerate(keys_to_try(stolen)) if k)]
    _, found = table_digests(Batches.of(real), keys)
    assert {name for name, digest in found.items() if digest.value() in there} == {"right"}


def test_no_plain_hash_of_a_row_or_a_value_is_in_the_file(
    world: World, stolen: Path, real: pa.Table
) -> None:
    data = stolen.read_bytes()
    some = real.slice(0, GUESSES)
    guesses: set[bytes] = set()
    for cells in (exact_cells, tolerant_cells):
        columns = [cells(some.column(n).combine_chunks()) for n in some.column_names]
        guesses |= {row.tobytes() for row in np.hstack(columns)}
        guesses |= {cell.tobytes() for column in columns for cell in np.unique(column, axis=0)}
    for row in some.to_pylist():
        guesses |= {
            json.dumps(row).encode(), json.dumps([*row.values()]).encode(),
            ",".join(map(str, row.values())).encode(), *(str(v).encode() for v in row.values()),
        }  # fmt: skip
    hashes = {
        kind(guess).digest()[:8]
        for guess in guesses
        for kind in (hashlib.sha256, hashlib.sha1, hashlib.md5, hashlib.blake2b)
    }
    wanted = np.array([int.from_bytes(h, "little") for h in hashes], dtype=np.uint64)
    raw = np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), 8)
    words = np.ascontiguousarray(raw).view("<u8").ravel()
    assert not np.isin(wanted, words).any()
    texts = {
        bytes.fromhex(run[i : i + 16].decode())
        for run in re.findall(rb"[0-9a-f]{16,}", data)
        for i in range(len(run) - 15)
    }
    assert not hashes & texts
    # What is in the file is found so: the digest of a manifest, which is plain SHA-256.
    digest = bytes.fromhex(world.dataset.manifest.digest.removeprefix("sha256:"))
    assert digest[:8] in texts


def test_no_value_is_in_the_file(world: World, stolen: Path, real: pa.Table) -> None:
    data = stolen.read_bytes()
    values = {v for n in real.column_names for v in real.column(n).unique().to_pylist()}
    texts = {v.encode() for v in values if isinstance(v, str) and len(v) >= 8}
    assert len(texts) > 20
    assert not [t for t in texts if t in data]
    assert world.dataset.manifest.dataset_id.encode() in data
