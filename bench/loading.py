"""How fast batches come, beside what a user would do otherwise.

    python bench/loading.py --rows 1000000

Adult's columns, the Gaussian copula, gates off. One epoch of shuffled batches of 1,024 rows:
`Dataset.to_torch`, which hashes and parses every row group, against a `DataLoader` over a
`TensorDataset` of all rows as float32 codes, which are in memory already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fidelity import machine, versions
from search import policy
from torch.utils.data import DataLoader, TensorDataset

import safegen
from safegen.demo import place_data

BATCH = 1_024


def epoch(batches: Iterable[Any], rows_of: Callable[[Any], int]) -> tuple[float, int]:
    start, rows = time.perf_counter(), 0
    for batch in batches:
        rows += rows_of(batch)
    return time.perf_counter() - start, rows


def in_memory(dataset: safegen.Dataset) -> DataLoader[Any]:
    frame = dataset.to_pandas()
    codes = [
        (frame[c] if frame[c].dtype.kind in "iuf" else frame[c].astype("category").cat.codes)
        .to_numpy(np.float32)
        for c in frame
    ]  # fmt: skip
    return DataLoader(
        TensorDataset(torch.from_numpy(np.stack(codes, 1))), batch_size=BATCH, shuffle=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        source, _ = place_data(Path(name) / "real")
        gen = safegen.Generator(policy=policy(), ledger=Path(name) / "ledger.db")
        dataset = gen.fit(source, seed=1).generate(given.rows, Path(name) / "out", seed=2)
        start = time.perf_counter()
        rows = dataset.to_torch(BATCH)
        opened = time.perf_counter() - start
        start = time.perf_counter()
        loader = in_memory(dataset)
        loaded = time.perf_counter() - start
        print("| | before the first batch, s | an epoch, s | rows a second |\n|---|---|---|---|")
        for what, batches, before, rows_of in (
            ("to_torch, verified", rows, opened, lambda b: len(b[1])),
            ("DataLoader, in memory", loader, loaded, lambda b: len(b[0])),
        ):
            taken = [epoch(batches, rows_of) for _ in range(given.times)]
            assert all(n == given.rows for _, n in taken)
            best = sorted(s for s, _ in taken)[len(taken) // 2]
            print(f"| {what} | {before:.1f} | {best:.2f} | {given.rows / best:,.0f} |")
    print(f"\nmedian of {given.times}; {machine()}; {versions()}")


if __name__ == "__main__":
    main()
