"""How fast a dataset is verified, beside hashing the same bytes once.

    python bench/verify.py --mib 2048 --files 16

A folder of Parquet files of random numbers with a manifest, in the page cache. Each is timed in
turn, `--times` times, and the medians are compared: `verify` (every byte, every path, the document)
against `hashlib.file_digest` over the same files, as many at once as there are cores. And one row
group of it is read: the bytes that are touched, and the seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fidelity import machine, versions

from safegen.loading.groups import VerifiedFile, groups_of
from safegen.manifest import MANIFEST_NAME, Manifest, check_folder
from safegen.manifest.identity import new_ulid
from safegen.processes import cores
from safegen.tables.entries import data_entry


def place(folder: Path, mib: int, files: int) -> Manifest:
    rng = np.random.default_rng(1)
    rows = mib * 2**20 // files // 8 // 8
    entries = []
    (folder / "data").mkdir()
    for i in range(files):
        table = pa.table({f"c{j}": rng.normal(size=rows) for j in range(8)})
        path = folder / "data" / f"part-{i:05d}.parquet"
        pq.write_table(table, path, row_group_size=65_536, compression="none", use_dictionary=False)
        entries.append(data_entry(path, f"data/{path.name}", "table"))
    manifest = Manifest.model_validate(
        {
            "dataset_id": new_ulid(), "created": "2026-01-01T00:00:00Z", "kind": "table",
            "origin": "synthetic", "ancestry": "attested", "depth": 1, "effective_depth": 1.0,
            "depth_is_lower_bound": False, "rows": rows * files,
            "composition": {"synthetic": rows * files},
            "logical_digest": "safegen-rows-v1:00", "files": entries,
        }
    ).sealed()  # fmt: skip
    (folder / MANIFEST_NAME).write_bytes(manifest.to_bytes())
    return manifest


def hashed(paths: list[Path]) -> None:
    def one(path: Path) -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(one, paths))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = place(folder, given.mib, given.files)
        paths = [folder / f.path for f in manifest.files]
        seconds: dict[str, list[float]] = {"hashlib": [], "verify": []}
        for _ in range(given.times):
            start = time.perf_counter()
            hashed(paths)
            seconds["hashlib"].append(time.perf_counter() - start)
            start = time.perf_counter()
            assert not check_folder(folder).problems
            seconds["verify"].append(time.perf_counter() - start)
        print("| | seconds, median | least | most |\n|---|---|---|---|")
        for what, times in seconds.items():
            print(
                f"| {what} | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} |"
            )
        medians = {k: statistics.median(v) for k, v in seconds.items()}
        print(f"\nverify at {medians['hashlib'] / medians['verify']:.2f} x the speed of hashing")
        touched: list[int] = []
        read = VerifiedFile._bytes

        def noted(self: VerifiedFile, start: int, length: int) -> bytes:
            touched.append(length)
            return read(self, start, length)

        VerifiedFile._bytes = noted  # type: ignore[method-assign]
        start = time.perf_counter()
        group = groups_of(folder, manifest, "table")[len(manifest.files)]
        footers = sum(touched)
        group.read(["c0"])
        whole = sum(f.bytes for f in manifest.files)
        print(
            f"one row group: {time.perf_counter() - start:.3f} s; {footers:,} bytes of footers and "
            f"{sum(touched) - footers:,} of it, of {whole:,}"
        )
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
