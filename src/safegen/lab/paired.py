"""What the chains of several arms say together: curves, and differences to the control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.lab.arms import Arm
from safegen.lab.page import table
from safegen.lab.plot import Chart, Line
from safegen.lab.store import Run

__all__ = ["Found", "curves", "differences", "ends", "gathered", "mean", "paired"]

CONTROL = "real-only"

Found = Mapping[str, Mapping[str, np.ndarray]]
"""By arm and by metric (and `effective_depth`): (chains, fits), NaN where nothing was found."""

Band = tuple[Sequence[float], Sequence[float], Sequence[float]]
"""A curve, and below and above which it is not likely to be; both empty where nobody knows."""

Section = tuple[str, Sequence[Line], Sequence[Chart]]


def gathered(run: Run, arms: Sequence[Arm], metrics: Sequence[str]) -> Found:
    """The numbers in a run's records. Raises: TargetError for damaged ones."""
    chains, depth = run.settings["chains"], run.settings["depth"]
    found = {}
    for arm in arms:
        pieces = pa.concat_tables([run.records(f"{arm.name}-{c}") for c in range(chains)])
        found[arm.name] = {
            name: pc.cast(pieces[name], pa.float64()).to_numpy().reshape(chains, depth)
            for name in (*metrics, "effective_depth")
        }
    return found


def mean(values: np.ndarray) -> tuple[float, float]:
    """The mean over chains, (chains,), and the half-width of its 95 % interval (Student's t;
    infinite for one chain)."""
    from scipy.stats import t

    if len(values) < 2:
        return float(values.mean()), float("inf")
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()), half


def paired(found: Found, arm: str, metric: str, fit: int = -1) -> tuple[float, float]:
    """The mean of the chains' differences to real-only at a fit (counted from 0; the last), and the
    half-width of its interval."""
    return mean(found[arm][metric][:, fit] - found[CONTROL][metric][:, fit])


def differences(found: Found, metrics: Mapping[str, str]) -> str:
    """The differences to real-only after the last fit, as an HTML table; "" without that arm."""
    if CONTROL not in found:
        return ""
    chains, depth = found[CONTROL]["effective_depth"].shape
    caption = f"After {depth} fits: difference to real-only, "
    caption += "mean of pairs, 95 % interval" if chains > 1 else "one chain, so without intervals"
    arms = [arm for arm in found if arm != CONTROL]
    rows = [
        (says, *(_signed(*paired(found, arm, metric)) for arm in arms))
        for metric, says in metrics.items()
    ]
    return table(caption, ("", *arms), rows)


def ends(found: Found, metrics: Mapping[str, str], real: Mapping[str, float], what: str) -> str:
    """Each arm's first and last fit beside the real ones, measured alike, as an HTML table.
    `what`: what a real one is, in the plural."""
    chains, depth = next(iter(found.values()))["effective_depth"].shape
    caption = f"First and last of {depth} fits, mean over {chains} chain(s)"
    rows = [
        (says, f"{real[metric]:.3f}", *(_walk(f[metric].mean(axis=0)) for f in found.values()))
        for metric, says in metrics.items()
    ]
    return table(caption, ("", f"real {what}", *found), rows)


def _walk(means: np.ndarray) -> str:
    return f"{means[0]:.3f} → {means[-1]:.3f}"


def _signed(value: float, half: float) -> str:
    return f"{value:+.3f} ± {half:.3f}" if np.isfinite(half) else f"{value:+.3f}"


def curves(found: Found, arms: Sequence[Arm], metrics: Mapping[str, str]) -> list[Section]:
    """Sections of a page: each metric over effective depth and over fits (medians over chains, and
    their 10 to 90 %), and its difference to real-only, where that is."""
    depth = found[arms[0].name]["effective_depth"].shape[1]
    fits = list(range(1, depth + 1))

    def section(
        heading: str,
        across: str,
        x: Callable[[str], Sequence[float]],
        y: Callable[[str, str], Band],
        some: Sequence[tuple[int, Arm]],
    ) -> Section:
        lines: list[Line] = []
        charts = []
        for metric, title in metrics.items():
            lines = [
                Line(f"{arm.name}: {arm.says}", x(arm.name), *y(arm.name, metric), style=style)
                for style, arm in some
            ]
            charts.append(Chart(title, across, f"{title} over {across}, one curve per arm", lines))
        return heading, lines, charts

    def deep(arm: str) -> Sequence[float]:
        # The control's depth is 1 throughout: it is drawn along the others'.
        return fits if arm == CONTROL else found[arm]["effective_depth"].mean(axis=0).tolist()

    def spread(arm: str, metric: str) -> Band:
        low, middle, high = np.quantile(found[arm][metric], [0.1, 0.5, 0.9], axis=0).tolist()
        return middle, low, high

    def apart(arm: str, metric: str) -> Band:
        means, halves = np.array([paired(found, arm, metric, t) for t in range(depth)]).T
        if not np.isfinite(halves).all():
            return means.tolist(), (), ()
        return means.tolist(), (means - halves).tolist(), (means + halves).tolist()

    every = list(enumerate(arms))
    sections = [
        section("Over effective depth", "effective depth", deep, spread, every),
        section("Over fits", "fits", lambda arm: fits, spread, every),
    ]
    others = [(style, arm) for style, arm in every if arm.name != CONTROL]
    if CONTROL in found and others:
        heading = "Difference to real-only: means of pairs, 95 % intervals"
        sections.append(section(heading, "fits", lambda arm: fits, apart, others))
    return sections
