"""Whether damage is one step's bias times effective depth: a run of `safegen lab run table`, again.

    python bench/law.py runs/adult

Per arm, measurement m and fit t: (m(t) − m(real)) / (m(1) − m(real)), with m(real) what the chain's
own real rows show against the same held-out ones, beside the fit's effective depth D; a ratio of
means over chains. If each fit added the same bias, the ratio would be D. `power` is the s of D^s
through all fits, by least squares on logarithms: 1 where that holds, less where damage levels off,
more where it feeds on itself. Intervals (95 %) are a jackknife over chains, which are independent
of each other; fits are not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from results import Seen, half, seen

METRICS = ("shape_error", "pair_error", "tstr", "rare_coverage", "rare_mass")
SURE = 3  # standard errors that a first step is from none, at least: else it has no multiples


def damage_of(run: Seen, arm: str, metric: str) -> np.ndarray:
    """By chain and fit what the damage is, (chains, fits)."""
    fits = range(1, run.settings["depth"] + 1)
    made = np.stack([run.values(arm, metric, t) for t in fits], axis=1)
    return made - run.values("real", metric, 1)[:, None]


def jackknifed(found: Callable[[np.ndarray], float], damage: np.ndarray) -> str:
    """A figure of all chains, with its interval."""
    chains = len(damage)
    whole = found(damage)
    if chains < 3:
        return f"{whole:.2f}"
    left = np.array([found(np.delete(damage, c, axis=0)) for c in range(chains)])
    return f"{whole:.2f} ± {half(chains * whole - (chains - 1) * left):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = seen(parser.parse_args().run)
    depth = run.settings["depth"]
    print(f"{len(run.chains)} chains of {run.settings['backend']}, {depth} fits\n")
    print("| arm | measurement | one step | depth | damage over one step's | power |")
    print("|---" * 6 + "|")
    for arm in run.settings["arms"]:
        eff = np.array([run.values(arm, "effective_depth", t).mean() for t in range(1, depth + 1)])
        if eff[-1] < 1.05:
            continue
        for metric in METRICS:
            damage = damage_of(run, arm, metric)
            first = damage[:, 0]
            if not np.isfinite(damage).all() or not first.any():
                continue
            if len(first) > 2 and abs(first.mean()) < SURE * first.std(ddof=1) / len(first) ** 0.5:
                continue

            def last(d: np.ndarray) -> float:
                return float(d[:, -1].mean() / d[:, 0].mean())

            def power(d: np.ndarray, eff: np.ndarray = eff) -> float:
                x, y = np.log(eff), np.log(np.maximum(d.mean(axis=0) / d[:, 0].mean(), 1e-3))
                return float((x @ y) / (x @ x))

            print(
                f"| `{arm}` | {metric} | {first.mean():+.3f} | {eff[-1]:.2f} | "
                f"{jackknifed(last, damage)} | {jackknifed(power, damage)} |"
            )


if __name__ == "__main__":
    main()
