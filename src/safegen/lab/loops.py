"""Loops that are simulated as arrays of numbers: settings, pieces and records of all chains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from safegen.errors import UsageError
from safegen.lab.arms import Arm, chosen
from safegen.lab.settings import whole
from safegen.lab.store import Run
from safegen.progress import progress

__all__ = ["Loops", "Simulate"]

MOST_ROWS = 3_000  # the binomial chain of a mode is a matrix of so many squared
MOST_FITS = 5_000_000
FEWEST_CHAINS = 1_000  # of fewer, averages of squares are too skewed to be held against theory

Simulate = Callable[[Arm, int, int, int, int], Mapping[str, np.ndarray]]
"""Of an arm, n, steps, chains and a seed: quantities by name, (chains, steps) each."""


@dataclass(frozen=True)
class Loops:
    """A run of such loops, its records complete."""

    run: Run
    arms: Sequence[Arm]
    rows: Sequence[int]
    depth: int

    @classmethod
    def played(
        cls,
        experiment: str,
        simulate: Simulate,
        out: str | os.PathLike[str],
        rows: Sequence[int] | int,
        depth: int,
        chains: int,
        arms: Sequence[str] | None,
        seed: int,
    ) -> Loops:
        """Simulate every arm at every number of real rows, or what is missing of them.

        Raises: UsageError for settings that cannot be meant, TargetError.
        """
        some = chosen(arms)
        whole(rows=(rows, 20, MOST_ROWS), depth=(depth, 1, 1_000), seed=(seed, 0, 2**63 - 1))
        whole(chains=(chains, FEWEST_CHAINS, 100_000))
        rows = [rows] if isinstance(rows, int) else list(rows)
        if chains * depth > MOST_FITS:
            raise UsageError(f"chains times depth: {MOST_FITS:,} at most")
        if bad := [n for n in rows if n % 10]:
            raise UsageError(f"rows: multiples of 10, of which a tenth can be new; not {bad[0]}")
        settings = {
            "experiment": experiment,
            "rows": rows,
            "depth": depth,
            "chains": chains,
            "arms": [arm.name for arm in some],
            "seed": seed,
        }
        run = Run(Path(out), settings)
        with progress("simulating", len(some) * len(rows), "arms") as advance:
            for arm in some:
                for n in rows:
                    if not run.done(piece := f"{arm.name}-{n}"):
                        run.keep(piece, _records(arm, n, simulate(arm, n, depth, chains, seed)))
                    advance(1)
        return cls(run, some, rows, depth)

    def found(self, n: int) -> Iterator[tuple[Arm, dict[str, np.ndarray]]]:
        """Each arm's quantities at n real rows, (chains, steps) each."""
        for arm in self.arms:
            mine = self.run.records(f"{arm.name}-{n}")
            names = mine.column_names[len(_WHICH) :]
            yield arm, {name: mine[name].to_numpy().reshape(-1, self.depth) for name in names}


_WHICH = ("arm", "n", "chain", "fit", "effective_depth")


def _records(arm: Arm, n: int, quantities: Mapping[str, np.ndarray]) -> pa.Table:
    """A row per chain and fit."""
    chains, steps = next(iter(quantities.values())).shape
    fits = np.tile(np.arange(1, steps + 1, dtype=np.int32), chains)
    depths = np.array([arm.depth(t) for t in range(1, steps + 1)])
    which = (
        pa.array([arm.name] * len(fits)).dictionary_encode(),
        pa.array(np.full(len(fits), n, np.int32)),
        pa.array(np.repeat(np.arange(chains, dtype=np.int32), steps)),
        pa.array(fits),
        pa.array(np.tile(depths, chains)),
    )
    found = {name: pa.array(values.ravel()) for name, values in quantities.items()}
    return pa.table(dict(zip(_WHICH, which, strict=True)) | found)
