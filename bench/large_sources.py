"""Peak memory of a fit on more rows than fit: `python bench/large_sources.py [ROWS] [MIB]`.

Adult is repeated to 10,000,000 rows in a folder of Parquet files, and a copula is fitted on it
in a process of its own that is told to hold MIB (128) for rows. Printed: what all rows take in
Arrow, what the budget is, the peak resident memory (VmHWM) of that process beyond what it has
once its libraries are loaded (a fit on 1,000 rows), processor seconds of it and its children, and
how many rows were drawn.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

_FIT = """
import json, re, resource, sys
import pyarrow.parquet as pq
import safegen
from safegen.tables import memory
folder, budget = sys.argv[1], int(sys.argv[2]) << 20

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def seconds():
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)

few = next(pq.ParquetFile(folder + "/part-000.parquet").iter_batches(batch_size=1000))
safegen.Generator("sdv.gaussian_copula").fit(few)
base, start = peak(), seconds()
memory.budget = lambda: budget
gen = safegen.Generator("sdv.gaussian_copula").fit(folder)
[facts] = gen._ready().facts
print(json.dumps({"base": base, "peak": peak(), "seconds": seconds() - start,
                  "rows": (facts.sampled or {}).get("rows")}))
"""


def repeated(table: pa.Table, rows: int, folder: Path) -> int:
    """Write a table again and again, in files of a million rows. Gives its bytes in Arrow."""
    size, left, number = 0, rows, 0
    many = pa.concat_tables([table] * -(-1_000_000 // table.num_rows))
    while left:
        part = many.slice(0, min(left, 1_000_000))
        pq.write_table(part, folder / f"part-{number:03}.parquet", row_group_size=65_536)
        size, left, number = size + part.nbytes, left - part.num_rows, number + 1
    return size


def main(rows: int, budget: int) -> None:
    from safegen.demo import place_data

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "large"
        folder.mkdir()
        real, _ = place_data(Path(name) / "adult")
        size = repeated(pq.read_table(real), rows, folder)
        environment = {f"XDG_{k}_HOME": str(Path(name) / k) for k in ("DATA", "CONFIG", "CACHE")}
        out = subprocess.run(
            [sys.executable, "-c", _FIT, str(folder), str(budget)],
            env={**os.environ, **environment},
            check=True,
            capture_output=True,
            text=True,
        )
        found = json.loads(out.stdout.splitlines()[-1])
    print(
        f"{rows:,} rows, {size / 2**20:,.0f} MiB in Arrow, {budget:,} MiB for rows: "
        f"{found['peak'] - found['base']:,.0f} MiB beyond {found['base']:,.0f}, "
        f"{found['seconds']:,.0f} CPU seconds, {found['rows'] or rows:,} rows fitted on"
    )


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:]]
    main(*(numbers + [10_000_000, 128][len(numbers) :]))
