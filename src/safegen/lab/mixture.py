"""Loops of a mixture with rare modes: which modes die out, and how far the others' shares walk.

A mode's share is all that is fitted, by counting, so the loop is that of a categorical variable
(Wright and Fisher's), and what theory says of a Gaussian's mean holds for each share, times
p (1 − p).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from safegen.lab import theory
from safegen.lab.arms import Arm
from safegen.lab.loops import Loops
from safegen.lab.page import page
from safegen.lab.plot import Chart, Line
from safegen.lab.seen import Seen, checked
from safegen.lab.store import Result
from safegen.tables.streams import stream

__all__ = ["LOOPS", "MODES", "run", "simulate"]

MODES: Mapping[str, float] = {"common": 0.6, "other": 0.3775, "rare": 0.02, "rarest": 0.0025}
"""Their true shares: of 2,000 rows the rarest has five."""

Counts = Iterator[np.ndarray]  # of each fit's training rows, (chains, modes)


def _new(chains: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(n, list(MODES.values()), size=chains)


def _like(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n rows each of the generators that were fitted to these counts."""
    return rng.multinomial(n, counts / counts.sum(axis=1, keepdims=True))


def _some(counts: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """n of the rows that were counted, without putting any back."""
    found = np.zeros_like(counts)
    left, wanted = counts.sum(axis=1), np.full(len(counts), n)
    for mode in range(counts.shape[1]):
        left = left - counts[:, mode]
        found[:, mode] = rng.hypergeometric(counts[:, mode], left, wanted)
        wanted = wanted - found[:, mode]
    return found


def _real_only(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
    counts = _new(chains, n, rng)
    for _ in range(steps):
        yield counts


def _replace(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
    counts = _new(chains, n, rng)
    for _ in range(steps):
        yield counts
        counts = _like(counts, n, rng)


def _accumulate(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
    counts = _new(chains, n, rng)
    for _ in range(steps):
        yield counts
        counts = counts + _like(counts, n, rng)


def _subsample(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
    kept = _new(chains, n, rng)
    counts = kept
    for _ in range(steps):
        yield counts
        kept = kept + _like(counts, n, rng)
        counts = _some(kept, n, rng)


def _anchored(rho: int) -> Callable[[int, int, int, np.random.Generator], Counts]:
    def loop(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
        real = _new(chains, n, rng)
        counts = real
        for _ in range(steps):
            yield counts
            counts = real + _like(counts, rho * n, rng)

    return loop


def _fresh(share: float) -> Callable[[int, int, int, np.random.Generator], Counts]:
    def loop(chains: int, n: int, steps: int, rng: np.random.Generator) -> Counts:
        counts, new = _new(chains, n, rng), round(share * n)
        for _ in range(steps):
            yield counts
            counts = _new(chains, new, rng) + _like(counts, n - new, rng)

    return loop


LOOPS: Mapping[str, Callable[[int, int, int, np.random.Generator], Counts]] = {
    "real-only": _real_only,
    "replace": _replace,
    "accumulate": _accumulate,
    "accumulate-subsample": _subsample,
    "keep-all": _anchored(1),
    "keep-all-9": _anchored(9),
    "fresh-10": _fresh(0.1),
    "fresh-50": _fresh(0.5),
}
"""By arm; of chains, n, steps and a generator."""

FEWEST = 300  # chains that must have a mode for its variance to be held against theory

QUANTITIES = {
    "kept": "share of chains that have it: 1 in reality",
    "share": "average share",
    "variance": "variance of the share over chains: 0 in reality",
}


def simulate(arm: Arm, n: int, steps: int, chains: int, seed: int) -> dict[str, np.ndarray]:
    """How many of every fit's training rows are of each mode, (chains, steps) each."""
    rng = np.random.default_rng(stream(seed, *arm.name.encode(), n))
    counts = np.stack(list(LOOPS[arm.name](chains, n, steps, rng)), axis=1)
    return {mode: counts[:, :, i] for i, mode in enumerate(MODES)}


def run(
    out: str | os.PathLike[str],
    *,
    rows: Sequence[int] = (2_000,),
    depth: int = 20,
    chains: int = 2_000,
    arms: Sequence[str] | None = None,
    seed: int = 7,
) -> Result:
    """Simulate every arm and hold each mode against theory, at every step: its share, how far the
    share walks, and where real rows stay or none does, how long the mode is there.

    rows: real rows n, each of its own. depth: fits in a chain. Raises: UsageError, TargetError.
    """
    loops = Loops.played("mixture", simulate, out, rows, depth, chains, arms, seed)
    seen: dict[str, Seen] = {}
    sections = []
    for n in loops.rows:
        lines: dict[tuple[str, str], list[Line]] = {(m, k): [] for m in MODES for k in QUANTITIES}
        for style, (arm, found) in enumerate(loops.found(n)):
            total = np.sum(list(found.values()), axis=0)
            for mode, counts in found.items():
                for key, quantity in _seen(arm, n, mode, counts, total).items():
                    lines[mode, key].append(quantity.line(f"{arm.name}: {arm.says}", style))
                    seen[f"{arm.name}, n = {n}, {mode}: {key}"] = quantity
        charts = [
            Chart(
                f"{mode}, {MODES[mode]:.2%} in reality: {QUANTITIES[key].partition(':')[0]}",
                "fits",
                f"{mode}: {QUANTITIES[key]}, one curve per arm, n = {n}",
                drawn,
            )
            for (mode, key), drawn in lines.items()
            if mode in ("rare", "rarest")
        ]
        sections.append((f"n = {n}", lines["rarest", "kept"], charts))
    text = (
        "Loops of a mixture whose shares are fitted by counting. Curves are averages over chains "
        "with their 95 % intervals; dotted is theory: of the shares' walk as of a Gaussian's mean, "
        "of a mode's survival in a replace loop the binomial chain."
    )
    settings, checks = loops.run.settings, checked(seen)
    document = page("Collapse laboratory: mixture", text, settings, checks, sections)
    return loops.run.finish(checks, document)


def _seen(arm: Arm, n: int, mode: str, counts: np.ndarray, total: np.ndarray) -> dict[str, Seen]:
    """Of one mode, its counts and those of all (chains, steps)."""
    p, steps = MODES[mode], counts.shape[1]
    moments = None if arm.expected is None else arm.expected(n, steps)
    shares = counts / total
    kept: Sequence[float] | None = None
    if arm.name == "replace":
        kept = theory.survival(n, p, steps)
    elif arm.name in ("real-only", "accumulate", "keep-all", "keep-all-9"):
        kept = [1 - (1 - p) ** n] * steps  # real rows stay, so what one of them has stays
    walk = None if moments is None else [m.of_mean * p * (1 - p) for m in moments]
    chains = len(counts)
    there = Seen.of((counts > 0).astype(float), kept)
    if there.expected is not None:  # of few events theory knows the error, and one more is no fault
        q = there.expected
        there = replace(there, error=np.sqrt(q * (1 - q) / chains + 1 / chains**2))
    share = Seen.of(shares, [p] * steps)
    # The square of a share that few chains have is too skewed for an error of its own.
    seldom = (counts > 0).sum(axis=0).min() < FEWEST
    variance = Seen.of((shares - p) ** 2, None if seldom else walk, squares=True)
    if walk is None:
        share = replace(share, expected=None)
    else:
        share = replace(share, error=np.sqrt(np.array(walk) / chains))
        # Where it comes out low its own error does too: at least a binomial's, by its kurtosis.
        least = np.array(walk) * np.sqrt((2 + 1 / (n * p)) / chains)
        variance = replace(variance, error=np.maximum(variance.error, least))
    return {"kept": there, "share": share, "variance": variance}
