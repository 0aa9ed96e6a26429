"""A laboratory run of tables or images as Markdown: what docs/results.md shows.

    python bench/results.py runs/adult

Chains that every arm has finished count, so that a run can be looked at under way. Means over
chains; differences to `real-only` are paired by chain, with 95 % intervals (Student's t).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.stats import t as student

NOT_SHOWN = ("arm", "chain", "fit", "refused", "faults", "pictures", "effective_depth")


def half(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean."""
    n = len(values)
    return float(student.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else np.inf


@dataclass(frozen=True)
class Seen:
    """A run's settings, the chains that all of its arms have finished, and their records."""

    settings: dict[str, Any]
    chains: list[int]
    records: dict[tuple[str, int], list[dict[str, Any]]]

    @property
    def metrics(self) -> list[str]:
        first = self.records[self.settings["arms"][0], self.chains[0]][0]
        return [m for m in first if m not in NOT_SHOWN and not m.endswith(("_low", "_high"))]

    def values(self, arm: str, metric: str, fit: int) -> np.ndarray:
        """Of each chain, (chains,), NaN where there is none; `real` has one fit, its rows."""
        found = [self.records[arm, c][fit - 1][metric] for c in self.chains]
        return np.array([np.nan if v is None else v for v in found])


def seen(run: Path) -> Seen:
    settings = json.loads((run / "settings.json").read_text())
    arms = ["real", *settings["arms"]]
    records = {}
    for arm in arms:
        for chain in range(settings["chains"]):
            path = run / "records" / f"{arm}-{chain}.parquet"
            if path.exists():
                records[arm, chain] = pq.read_table(path).to_pylist()
    chains = [c for c in range(settings["chains"]) if all((a, c) in records for a in arms)]
    return Seen(settings, chains, records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = seen(parser.parse_args().run)
    arms, depth, count = run.settings["arms"], run.settings["depth"], len(run.chains)
    print(f"{count} chains, {depth} fits, {run.settings['rows']:,} real rows\n")
    print("| arm | depth | " + " | ".join(run.metrics) + " | unmet at the gate | refused |")
    print("|---" * (len(run.metrics) + 4) + "|")
    cells = [f"{run.values('real', m, 1).mean():.3f}" for m in run.metrics]
    print("| the real rows | 0 | " + " | ".join(cells) + " | | |")
    for arm in arms:
        for fit in sorted({1, depth}):
            cells = [f"{run.values(arm, m, fit).mean():.3f}" for m in run.metrics]
            last = [run.records[arm, c][fit - 1] for c in run.chains]
            for what in ("faults", "refused"):
                cells.append(f"{sum(bool(record.get(what)) for record in last)}/{count}")
            eff = run.values(arm, "effective_depth", fit).mean()
            print(f"| `{arm}`, fit {fit} | {eff:.2f} | " + " | ".join(cells) + " |")
    if "real-only" not in arms:
        return
    print(f"\nAfter {depth} fits, less `real-only`:\n")
    print("| arm | " + " | ".join(run.metrics) + " |")
    print("|---" * (len(run.metrics) + 1) + "|")
    for arm in arms:
        if arm != "real-only":
            gaps = [
                run.values(arm, m, depth) - run.values("real-only", m, depth) for m in run.metrics
            ]
            print(
                f"| `{arm}` | "
                + " | ".join(f"{g.mean():+.3f} ± {half(g):.3f}" for g in gaps)
                + " |"
            )


if __name__ == "__main__":
    main()
