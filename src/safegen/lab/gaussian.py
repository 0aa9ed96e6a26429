"""Loops of a Gaussian generator, simulated row by row, beside what theory says of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from safegen.errors import UsageError
from safegen.lab.arms import Arm, chosen
from safegen.lab.page import page
from safegen.lab.plot import Chart, Line
from safegen.lab.seen import Seen
from safegen.lab.settings import whole
from safegen.lab.store import Result, Run
from safegen.progress import progress
from safegen.tables.streams import stream

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["run", "simulate"]

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


def simulate(arm: Arm, n: int, steps: int, chains: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean and the variance of every fit, (chains, steps) each.

    Chains are drawn in groups that fit into memory; fewer chains are a prefix of more.
    """
    group = max(1, CELLS // (n * (steps if arm.name == "accumulate-subsample" else 10)))
    found = []
    for first in range(0, chains, group):
        rng = np.random.default_rng(stream(seed, *arm.name.encode(), n, first))
        fits = list(LOOPS[arm.name](group, n, steps, rng))
        found.append(np.stack(fits, axis=0))  # (steps, 2, group)
    together = np.concatenate(found, axis=2)[:, :, :chains]
    return together[:, 0].T, together[:, 1].T


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
    played = chosen(arms)
    whole(rows=(rows, 20, 100_000), depth=(depth, 1, 1_000), chains=(chains, 100, 1_000_000))
    whole(seed=(seed, 0, 2**63 - 1))
    if bad := [n for n in rows if n % 10]:
        raise UsageError(f"rows: multiples of 10, of which a tenth can be new; not {bad[0]}")
    settings = {
        "experiment": "gaussian",
        "rows": list(rows),
        "depth": depth,
        "chains": chains,
        "arms": [arm.name for arm in played],
        "seed": seed,
    }
    under_way = Run(Path(out), settings)
    with progress("simulating", len(played) * len(rows), "arms") as advance:
        for arm in played:
            for n in rows:
                piece = f"{arm.name}-{n}"
                if not under_way.done(piece):
                    fits = simulate(arm, n, depth, chains, seed)
                    under_way.keep(piece, _records(arm, n, *fits))
                advance(1)
    return _finished(under_way, played, rows, depth)


def _records(arm: Arm, n: int, means: np.ndarray, variances: np.ndarray) -> pa.Table:
    """A row per chain and fit."""
    import pyarrow as pa

    chains, steps = means.shape
    fits = np.tile(np.arange(1, steps + 1, dtype=np.int32), chains)
    depths = np.array([arm.depth(t) for t in range(1, steps + 1)])
    return pa.table(
        {
            "arm": pa.array([arm.name] * len(fits)).dictionary_encode(),
            "n": np.full(len(fits), n, np.int32),
            "chain": np.repeat(np.arange(chains, dtype=np.int32), steps),
            "fit": fits,
            "effective_depth": np.tile(depths, chains),
            "mean": means.ravel(),
            "variance": variances.ravel(),
        }
    )


def _finished(run: Run, arms: Sequence[Arm], rows: Sequence[int], depth: int) -> Result:
    import pyarrow.compute as pc

    records = run.records()
    checks, sections = [], []
    for n in rows:
        lines: dict[str, list[Line]] = {"variance": [], "of the mean": []}
        for style, arm in enumerate(arms):
            mine = records.filter(
                pc.and_(
                    pc.equal(records["arm"].cast("string"), arm.name), pc.equal(records["n"], n)
                )
            )
            found = {key: mine[key].to_numpy().reshape(-1, depth) for key in ("variance", "mean")}
            expected = None if arm.expected is None else arm.expected(n, depth)
            seen = {
                "variance": Seen.of(
                    found["variance"], None if expected is None else [m.variance for m in expected]
                ),
                # Reality's mean is 0, so the square is what it varies by.
                "of the mean": Seen.of(
                    found["mean"] ** 2, None if expected is None else [m.of_mean for m in expected]
                ),
            }
            for key, quantity in seen.items():
                lines[key].append(quantity.line(f"{arm.name}: {arm.says}", style))
                if quantity.expected is not None:
                    name = {"variance": "E s²", "of the mean": "Var µ"}[key]
                    checks.append(quantity.check(f"{arm.name}, n = {n}: {name}"))
        charts = [
            Chart(
                {"variance": "E s²: 1 in reality", "of the mean": "Var µ: 0 in reality"}[key],
                "fits",
                f"{key} over {depth} fits, one curve per arm, n = {n}",
                curves,
            )
            for key, curves in lines.items()
        ]
        sections.append((f"n = {n}", lines["variance"], charts))
    text = (
        "Loops of a Gaussian generator: each fit is the mean and the variance of what it is shown. "
        "Curves are averages over chains with their 95 % intervals; dotted is the closed form."
    )
    document = page("Collapse laboratory: gaussian", text, run.settings, checks, sections)
    return run.finish(checks, document)
