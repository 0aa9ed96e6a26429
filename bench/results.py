"""A laboratory run of tables or images as Markdown: what docs/results.md shows.

    python bench/results.py runs/adult

Chains that every arm has finished count, so that a run can be looked at under way. Means over
chains; differences to `real-only` are paired by chain, with 95 % intervals (Student's t).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import t as student

NOT_SHOWN = ("arm", "chain", "fit", "refused", "faults", "pictures", "effective_depth")


def half(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean."""
    n = len(values)
    return float(student.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else np.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    settings = json.loads((run / "settings.json").read_text())
    records = {}
    for arm in settings["arms"]:
        for chain in range(settings["chains"]):
            path = run / "records" / f"{arm}-{chain}.parquet"
            if path.exists():
                records[arm, chain] = pq.read_table(path).to_pylist()
    chains = [
        c for c in range(settings["chains"]) if all((a, c) in records for a in settings["arms"])
    ]
    first = records[settings["arms"][0], chains[0]][0]
    metrics = [m for m in first if m not in NOT_SHOWN and not m.endswith(("_low", "_high"))]
    depth = settings["depth"]
    print(f"{len(chains)} chains, {depth} fits, {settings['rows']:,} real rows\n")

    def values(arm: str, metric: str, fit: int) -> np.ndarray:
        found = [records[arm, c][fit - 1][metric] for c in chains]
        return np.array([np.nan if v is None else v for v in found])

    print("| arm | depth | " + " | ".join(metrics) + " | unmet at the gate | refused |")
    print("|---" * (len(metrics) + 4) + "|")
    for arm in settings["arms"]:
        for fit in sorted({1, depth}):
            cells = [f"{values(arm, m, fit).mean():.3f}" for m in metrics]
            faults = sum(bool(records[arm, c][fit - 1].get("faults")) for c in chains)
            refused = sum(bool(records[arm, c][fit - 1]["refused"]) for c in chains)
            eff = values(arm, "effective_depth", fit).mean()
            cells += [f"{faults}/{len(chains)}", f"{refused}/{len(chains)}"]
            print(f"| `{arm}`, fit {fit} | {eff:.2f} | " + " | ".join(cells) + " |")
    if "real-only" not in settings["arms"]:
        return
    print(f"\nAfter {depth} fits, less `real-only`:\n")
    print("| arm | " + " | ".join(metrics) + " |")
    print("|---" * (len(metrics) + 1) + "|")
    for arm in settings["arms"]:
        if arm != "real-only":
            gaps = [values(arm, m, depth) - values("real-only", m, depth) for m in metrics]
            print(
                f"| `{arm}` | "
                + " | ".join(f"{g.mean():+.3f} ± {half(g):.3f}" for g in gaps)
                + " |"
            )


if __name__ == "__main__":
    main()
