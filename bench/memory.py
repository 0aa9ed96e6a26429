"""Peak memory of `generate` over rows, each in a process of its own: `python bench/memory.py`.

Prints, per number of rows: the peak resident memory of the process that fits and generates, the
seconds that generating took, and the ratio to the first. Whether the first block of the largest
request equals a request of just that block is checked too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

_CHILD = """
import json, resource, sys, time
import safegen
from safegen.demo import find_data
rows, out = int(sys.argv[1]), sys.argv[2]
gen = safegen.Generator("sdv.gaussian_copula", policy="baseline").fit(find_data()[0])
start = time.perf_counter()
dataset = gen.generate(rows, out)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rows": rows, "mib": peak, "seconds": seconds}))
"""

BLOCK = 65_536


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Fit and generate in a new process."""
    places = {f"XDG_{k}_HOME": str(folder / k) for k in ("DATA", "CONFIG", "CACHE")}
    out = subprocess.run(
        [sys.executable, "-c", _CHILD, str(rows), str(folder / f"rows-{rows}")],
        env={**os.environ, **places},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, float] = json.loads(out.stdout.splitlines()[-1])
    return found


def first_rows(folder: Path, rows: int) -> object:
    """The first block of a dataset, without provenance columns."""
    import pyarrow.parquet as pq

    names = [
        n
        for n in pq.read_schema(folder / f"rows-{rows}/data/part-00000.parquet").names
        if not n.startswith("_safegen_")
    ]
    with pq.ParquetFile(folder / f"rows-{rows}/data/part-00000.parquet") as file:
        return file.read_row_group(0, columns=names).replace_schema_metadata(None)


def main(counts: list[int]) -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("safegen", "sdv", "pyarrow", "numpy"))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base = None
        for rows in counts:
            found = measure(rows, folder)
            base = base or found["mib"]
            print(
                f"{rows:>9,} rows  {found['mib']:7.0f} MiB  {found['mib'] / base:5.3f}  "
                f"{found['seconds']:6.1f} s"
            )
        same = first_rows(folder, counts[0]).equals(first_rows(folder, counts[-1]))  # type: ignore[attr-defined]
        print(f"first {BLOCK:,} rows of {counts[-1]:,} equal those of {counts[0]:,}: {same}")


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [BLOCK, 100_000, 1_000_000])
