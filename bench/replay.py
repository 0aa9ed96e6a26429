"""How long `safegen policy replay` takes over many recorded decisions, and how much memory.

    python bench/replay.py --decisions 10000

A ledger is filled with decisions as the gates write them. Then each shipped policy is replayed on
it, and one with all margins changed, which is the most work.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from fidelity import machine

from safegen.ledger import open_ledger
from safegen.policy import Policy
from safegen.replaying import replay
from safegen.testing.recorded import record_decisions

MARGINS = {
    "lineage": {"max_depth": 0.5},
    "manifest": {"signature": "required"},
    "schema": {"missing_margin": 0.03},
    "support": {"min_expected": 5.0},
    "fidelity": {"column_margin": 0.06, "pair_margin": 0.1, "tail_ratio": 0.7, "rare_mass": 0.8},
    "privacy": {"copies": 0.02, "leaks": "refuse", "membership": 0.6},
}


def moved() -> Policy:
    """`baseline` with other margins, all enforced."""
    base = Policy.load("baseline")
    rules = {
        name: params.model_copy(update={**MARGINS.get(name, {}), "severity": "enforce"})
        for name, params in base.rules.items()
        if params.severity != "off"
    }
    return Policy(**{**{k: getattr(base, k) for k in ("version", "contact")}, "rules": rules,
                     "id": "moved", "description": "Every margin is another one."})  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--decisions", type=int, default=10_000)
    count = asked.parse_args().decisions
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        ledger = open_ledger(Path(folder) / "ledger.db")
        start = time.perf_counter()
        record_decisions(ledger, count)
        size = (Path(folder) / "ledger.db").stat().st_size / 2**20
        print(
            f"{count:,} decisions, {size:.0f} MiB, written in {time.perf_counter() - start:.1f} s"
        )
        for policy in (*map(Policy.load, Policy.shipped()), moved()):
            start = time.perf_counter()
            found = replay(policy, ledger=ledger.url)
            took = time.perf_counter() - start
            told = {k: n for k, n in found.outcomes.items() if n}
            print(f"{policy.id:12} {took:6.2f} s  {told}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main()
