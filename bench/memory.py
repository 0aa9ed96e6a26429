"""Peak memory of sampling over rows, each in a process of its own: `python bench/memory.py`.

A model is fitted on Adult and saved; each process loads it and generates. Printed per number of
rows: the peak resident memory of that process (VmHWM, which a child does not inherit, as it does
`ru_maxrss`), the seconds that generating took, and the ratio of memory to the first. Whether the
first block of the largest request equals a request of just that block is checked too.
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

import pyarrow.parquet as pq

BLOCK = 65_536

_FIT = """
import sys
import safegen
from safegen.demo import place_data
real, _ = place_data(sys.argv[1] + "-data")
safegen.Generator("sdv.gaussian_copula").fit(real).save(sys.argv[1])
"""

_SAMPLE = """
import json, re, sys, time
import safegen
gen = safegen.Generator.load(sys.argv[1])
start = time.perf_counter()
gen.generate(int(sys.argv[2]), sys.argv[3])
seconds = time.perf_counter() - start
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps({"mib": peak, "seconds": seconds}))
"""


def _run(script: str, folder: Path, *words: str) -> str:
    places = {f"XDG_{k}_HOME": str(folder / k) for k in ("DATA", "CONFIG", "CACHE")}
    out = subprocess.run(
        [sys.executable, "-c", script, *words],
        env={**os.environ, **places},
        check=True,
        capture_output=True,
        text=True,
    )
    return out.stdout


def measure(rows: int, folder: Path) -> dict[str, float]:
    """Load the model and generate in a new process: {"mib", "seconds"}."""
    out = _run(_SAMPLE, folder, str(folder / "model"), str(rows), str(folder / f"rows-{rows}"))
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def first_block(folder: Path) -> object:
    """The first block of a dataset, without provenance columns."""
    with pq.ParquetFile(folder / "data/part-00000.parquet") as file:
        names = [n for n in file.schema_arrow.names if not n.startswith("_safegen_")]
        return file.read_row_group(0, columns=names).replace_schema_metadata(None)


def main(counts: list[int]) -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        + ", ".join(f"{p} {version(p)}" for p in ("safegen", "sdv", "pyarrow", "numpy"))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(_FIT, folder, str(folder / "model"))
        base = None
        for rows in counts:
            found = measure(rows, folder)
            base = base or found["mib"]
            print(
                f"{rows:>10,} rows  {found['mib']:6.0f} MiB  {found['mib'] / base:5.3f}  "
                f"{found['seconds']:6.1f} s"
            )
        first, last = (folder / f"rows-{n}" for n in (counts[0], counts[-1]))
        same = first_block(first) == first_block(last)
        print(f"first {BLOCK:,} rows of {counts[-1]:,} equal those of {counts[0]:,}: {same}")


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [100_000, 1_000_000, BLOCK])
