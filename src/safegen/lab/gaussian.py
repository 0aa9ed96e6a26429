"""Loops of a Gaussian generator, simulated row by row, beside what theory says of them."""

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

__all__ = ["LOOPS", "run", "simulate"]

CELLS = 1 << 21
"""Numbers that a group of chains holds at once; a group's draws do not depend on other groups."""

Rows = np.ndarray
Fits = Iterator[tuple[np.ndarray, np.ndarray]]


def _fit(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return rows.mean(axis=1), rows.var(axis=1)


def _drawn(fit: tuple[np.ndarray, np.ndarray], rows: int, rng: np.random.Generator) -> Rows:
    mean, variance = fit
    drawn: Rows = rng.standard_normal((len(mean), rows))
    drawn *= np.sqrt(variance)[:, None]
    drawn += mean[:, None]
    return drawn


def _real_only(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
    fit = _fit(rng.standard_normal((chains, n)))
    for _ in range(steps):
        yield fit


def _replace(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
    rows = rng.standard_normal((chains, n))
    for _ in range(steps):
        yield (fit := _fit(rows))
        rows = _drawn(fit, n, rng)


def _accumulate(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
    rows = rng.standard_normal((chains, n))
    total, squares, size = np.zeros(chains), np.zeros(chains), 0
    for _ in range(steps):
        total, squares, size = total + rows.sum(1), squares + (rows**2).sum(1), size + n
        mean = total / size
        yield (fit := (mean, np.maximum(squares / size - mean**2, 0.0)))
        rows = _drawn(fit, n, rng)


def _subsample(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
    rows = rng.standard_normal((chains, n))
    for _ in range(steps):
        lot = (
            rng.random(rows.shape).argpartition(n - 1, axis=1)[:, :n] if rows.shape[1] > n else None
        )
        yield (fit := _fit(rows if lot is None else np.take_along_axis(rows, lot, axis=1)))
        rows = np.concatenate([rows, _drawn(fit, n, rng)], axis=1)


def _anchored(rho: float) -> Callable[[int, int, int, np.random.Generator], Fits]:
    def loop(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
        real = rng.standard_normal((chains, n))
        rows = real
        for _ in range(steps):
            yield (fit := _fit(rows))
            rows = np.concatenate([real, _drawn(fit, round(rho * n), rng)], axis=1)

    return loop


def _fresh(share: float) -> Callable[[int, int, int, np.random.Generator], Fits]:
    def loop(chains: int, n: int, steps: int, rng: np.random.Generator) -> Fits:
        rows, new = rng.standard_normal((chains, n)), round(share * n)
        for _ in range(steps):
            yield (fit := _fit(rows))
            real = rng.standard_normal((chains, new))
            rows = np.concatenate([real, _drawn(fit, n - new, rng)], axis=1)

    return loop


LOOPS: Mapping[str, Callable[[int, int, int, np.random.Generator], Fits]] = {
    "real-only": _real_only,
    "replace": _replace,
    "accumulate": _accumulate,
    "accumulate-subsample": _subsample,
    "keep-all": _anchored(1.0),
    "keep-all-9": _anchored(9.0),
    "fresh-10": _fresh(0.1),
    "fresh-50": _fresh(0.5),
}
"""By arm; of chains, n, steps and a generator."""


def simulate(arm: Arm, n: int, steps: int, chains: int, seed: int) -> dict[str, np.ndarray]:
    """The `mean` and the `variance` of every fit, (chains, steps) each.

    Chains are drawn in groups that fit into memory; fewer chains are a prefix of more.
    """
    group = max(1, CELLS // (n * (steps if arm.name == "accumulate-subsample" else 10)))
    found = []
    for first in range(0, chains, group):
        rng = np.random.default_rng(stream(seed, *arm.name.encode(), n, first))
        fits = list(LOOPS[arm.name](group, n, steps, rng))
        found.append(np.stack(fits, axis=0))  # (steps, 2, group)
    together = np.concatenate(found, axis=2)[:, :, :chains]
    return {"mean": together[:, 0].T, "variance": together[:, 1].T}


NAMES = {"E s²": "E s²: 1 in reality", "Var µ": "Var µ: 0 in reality"}


def run(
    out: str | os.PathLike[str],
    *,
    rows: Sequence[int] = (50, 100, 500),
    depth: int = 20,
    chains: int = 2_000,
    arms: Sequence[str] | None = None,
    seed: int = 7,
) -> Result:
    """Simulate every arm and hold it against its closed form, at every step.

    rows: real rows n, each of its own. depth: fits in a chain. Raises: UsageError, TargetError.
    """
    loops = Loops.played("gaussian", simulate, out, rows, depth, chains, arms, seed)
    seen: dict[str, Seen] = {}
    sections = []
    for n in loops.rows:
        lines: dict[str, list[Line]] = {name: [] for name in NAMES}
        for style, (arm, found) in enumerate(loops.found(n)):
            for name, quantity in _seen(arm, n, found).items():
                lines[name].append(quantity.line(f"{arm.name}: {arm.says}", style))
                seen[f"{arm.name}, n = {n}: {name}"] = quantity
        charts = [
            Chart(
                NAMES[name], "fits", f"{name} over {depth} fits, one curve per arm, n = {n}", some
            )
            for name, some in lines.items()
        ]
        sections.append((f"n = {n}", lines["E s²"], charts))
    text = (
        "Loops of a Gaussian generator: each fit is the mean and the variance of what it is shown. "
        "Curves are averages over chains with their 95 % intervals; dotted is the closed form."
    )
    settings, checks = loops.run.settings, checked(seen)
    document = page("Collapse laboratory: gaussian", text, settings, checks, sections)
    return loops.run.finish(checks, document)


def _seen(arm: Arm, n: int, found: Mapping[str, np.ndarray]) -> dict[str, Seen]:
    steps = found["mean"].shape[1]
    moments = None if arm.expected is None else arm.expected(n, steps)
    variance = None if moments is None else [m.variance for m in moments]
    of_mean = None if moments is None else [m.of_mean for m in moments]
    # Reality's mean is 0, so the square is what it varies by.
    of_variance = Seen.of(found["variance"], variance, squares=True)
    if arm.name == "replace":  # a few chains hold most of it: theory knows the error better
        spread = [theory.spread(n, t) for t in range(1, steps + 1)]
        error = np.array(variance) * spread / np.sqrt(len(found["variance"]))
        of_variance = replace(of_variance, error=error)
    return {
        "E s²": of_variance,
        "Var µ": Seen.of(found["mean"] ** 2, of_mean, squares=True),
    }
