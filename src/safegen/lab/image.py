"""Loops of an image model, through safegen's own front door, with and without its safeguards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.errors import UsageError
from safegen.lab.arms import Arm, chosen
from safegen.lab.page import page, table
from safegen.lab.paired import Found, curves, differences, ends, gathered, mean
from safegen.lab.pictures import album, sheet, shown_classes
from safegen.lab.refits import (
    EXTENT,
    Refits,
    check_options,
    real_rows,
    real_table,
    realities,
    reality,
)
from safegen.lab.settings import whole
from safegen.lab.store import Check, Result, Run
from safegen.progress import progress
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.measure.images import Exam
    from safegen.tables.schema import TableSchema

ARMS = ("real-only", "replace", "accumulate", "keep-all", "safeguarded")

__all__ = ["DIGITS", "METRICS", "run"]

METRICS: Mapping[str, str] = {
    "recall": "recall",
    "coverage": "coverage",
    "precision": "precision",
    "density": "density",
    "class_error": "class error, %",
    "class_error_seen": "class error as seen, %",
    "rare_share": "rarest class",
    "rare_share_seen": "rarest class as seen",
    "tstr": "TSTR",
    "recognised": "recognised",
    "copies": "near copies",
}
"""What is measured of each release; see `safegen.measure.images.Exam.judged`."""

DIGITS: Mapping[str, Any] = {"steps": 800, "batch_size": 64}
"""Options with which `diffusion.image` learns 1,000 digits in about a minute of one core. With half
as many steps of sampling, 12, it loses two points of recall at once."""

THINNED, RARE = "8", 0.02  # the class of the digits that is made rare, and its share then
FEWEST_HELD, MOST_HELD = 200, 2_000  # images to measure against

LEAST = 0.95  # of the first fit's recall and coverage stay where there are safeguards
MOST = 0.85  # of the first fit's recall is left by a replace loop, which loses more than 15 %
BAND = (0.7, 1.4)  # of the rarest class' share over its real one
POINT = 0.01  # more of the images may be near copies than of real ones


def run(
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str] | None = None,
    target: str | None = None,
    backend: str = "diffusion.image",
    options: Mapping[str, Any] | None = None,
    rows: int | Sequence[int] = 1_000,
    depth: int = 5,
    chains: int = 1,
    arms: Sequence[str] | None = None,
    seed: int = 7,
) -> Result:
    """Let every arm fit and sample `depth` times, in `chains` loops each.

    data: real images with a class each: an image folder, or a table with a column of images; left
    out, scikit-learn's digits, of which one class is thinned to 2 %, and options of the backend
    that suit them. target: the column of classes; needed when there is more than one. Of each chain
    `rows` images are the real ones of all arms, each class by its share, and the others (at most
    2,000) are what releases are measured against. Each release has `rows` images.

    Checked, of two fits or more: under the safeguards recall and coverage stay, no class is lost
    or grows, and near copies of real images are no more than among real ones; a replace loop loses
    recall.

    Raises: UsageError, SourceError, TargetError; what fitting and generating raise.
    """
    from safegen.tables.schema import infer_schema

    played = chosen(arms, ARMS)
    whole(depth=(depth, 1, 100), chains=(chains, 1, 1_000), seed=(seed, 0, 2**63 - 1))
    real, digest = real_table(_digits() if data is None else data)
    image, label = _columns(infer_schema(real), target)
    real = real.select([image, label])
    rows = real_rows(rows, real, most=20_000, held=FEWEST_HELD, what="images")
    usual = DIGITS if data is None and backend == "diffusion.image" else {}
    options = {**usual, **(options or {})}
    check_options(backend, options)
    settings = {
        "experiment": "image",
        "data": "digits" if data is None else Path(data).name,
        "digest": digest,
        "target": label,
        "backend": backend,
        "options": options,
        "rows": rows,
        "depth": depth,
        "chains": chains,
        "arms": [arm.name for arm in played],
        "seed": seed,
    }
    under_way = Run(Path(out), settings, EXTENT)
    refits = Refits(under_way, played, backend, options, infer_schema(real), depth, seed)
    with progress("fitting and sampling", len(played) * chains * depth, "fits") as advance:
        for chain in range(chains):
            if under_way.done(reality(chain)) and refits.done(chain):
                advance(len(played) * depth)
                continue
            subject = _Subject(real, image, label, rows, seed, chain)
            under_way.keep(reality(chain), subject.reality(chain))
            refits.play(chain, subject.shown, subject.release, None, advance)
    return _finished(under_way, played)


def _digits() -> dict[str, np.ndarray]:
    """scikit-learn's digits, 8 × 8, one class thinned: 1,656 images."""
    from sklearn.datasets import load_digits

    found = load_digits()
    labels = found.target.astype(str)
    thin = np.flatnonzero(labels == THINNED)
    others = np.flatnonzero(labels != THINNED)
    few = np.random.default_rng(0).permutation(thin)[: round(len(others) * RARE / (1 - RARE))]
    kept = np.sort(np.concatenate([others, few]))
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    return {"image": pixels[kept], "label": labels[kept]}


def _columns(schema: TableSchema, target: str | None) -> tuple[str, str]:
    """The columns of images and of classes. Raises: UsageError."""
    images = [c.name for c in schema.columns if c.kind == "image"]
    levels = [c.name for c in schema.columns if c.kind in ("categorical", "boolean")]
    if len(images) != 1:
        raise UsageError(f"data: one column of images, and here are {len(images)}")
    if target is not None and target not in levels:
        raise UsageError(f"target: no column of levels {target!r}")
    if target is None and len(levels) != 1:
        raise UsageError(f"target: which column has the classes? {len(levels)} have levels")
    return images[0], target or levels[0]


class _Subject:
    """A chain's real images: those of all arms, and those that releases are measured against."""

    def __init__(self, real: pa.Table, image: str, label: str, rows: int, seed: int, chain: int):
        from safegen.measure.images import Exam

        self.columns = (image, label)
        order = _stratified(real.column(label), np.random.default_rng(stream(seed, 1, chain)))
        self.shown = real.take(pa.array(order[:rows]))
        held = real.take(pa.array(order[rows : rows + MOST_HELD]))
        self.exam: Exam = Exam(self.shown, held, image, label, seed=chain)
        self.classes = shown_classes(self.exam.classes.tolist(), self.exam.shares)

    def release(self, made: pa.Table, weights: np.ndarray) -> dict[str, Any]:
        """A release's figures, each with its interval, and its sheet of pictures."""
        return self._record(self.exam.judged(made), made)

    def reality(self, chain: int) -> pa.Table:
        """The same of the real images, as far as it has a meaning there."""
        record = self._record(self.exam.of_reality(), self.shown)
        return pa.Table.from_pylist([{"arm": "real", "chain": chain, "fit": 0, **record}])

    def _record(self, found: Mapping[str, Any], images: pa.Table) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for name in METRICS:
            measured = found.get(name)
            low, high = (None, None) if measured is None else measured.interval
            value = None if measured is None else measured.value
            record |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return {**record, "pictures": sheet(images, *self.columns, self.classes)}


def _stratified(labels: pa.ChunkedArray, rng: np.random.Generator) -> np.ndarray:
    """A random order of the rows of which every prefix has each class by its share, to one row."""
    _, codes = np.unique([str(v) for v in labels.to_pylist()], return_inverse=True)
    order = rng.permutation(len(codes))
    codes = codes[order]
    by_class = np.argsort(codes, kind="stable")
    counts = np.bincount(codes)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    place = np.empty(len(codes))
    place[by_class] = np.arange(len(codes)) - np.repeat(first, counts)
    return order[np.argsort((place + 0.5) / counts[codes], kind="stable")]


# ---- what came of it -----------------------------------------------------------------------------


def _finished(run: Run, arms: Sequence[Arm]) -> Result:
    settings = run.settings
    depth = settings["depth"]
    found = gathered(run, arms, [n + end for n in METRICS for end in ("", "_low", "_high")])
    said = {
        m: t for m, t in METRICS.items() if all(np.isfinite(f[m]).all() for f in found.values())
    }
    pieces = realities(run)
    real = {m: float(pieces[m].to_numpy().mean()) for m in said}
    checks = _checks(found, said, real["copies"]) if depth > 1 else []
    text = (
        f"Loops of {settings['backend']} on {settings['data']}: {settings['rows']:,} real images, "
        "as many in each release, measured against real images that no fit has seen, on features "
        "of a small network; “as seen” is by its verdicts, else by label. Curves are medians over "
        "chains, bands their 10 to 90 %."
    )
    more = ends(found, said, real, "images") + differences(found, said)
    more += _refusals(run, arms)
    sheets = [(arm.name, run.records(f"{arm.name}-0")["pictures"].to_pylist()) for arm in arms]
    caption = "Pictures of the first chain; a column to a class, white where a release has none"
    more += album(caption, pieces["pictures"][0].as_py(), sheets)
    title = "Collapse laboratory: image"
    document = page(title, text, settings, checks, curves(found, arms, said), more)
    return run.finish(checks, document)


def _refusals(run: Run, arms: Sequence[Arm]) -> str:
    """Which releases a policy refused, as an HTML table; "" for none."""
    rows = []
    for arm in arms:
        for chain in range(run.settings["chains"]):
            piece = run.records(f"{arm.name}-{chain}")
            fits = zip(piece["fit"].to_pylist(), piece["refused"].to_pylist(), strict=True)
            rows += [(arm.name, chain, fit, rules) for fit, rules in fits if rules]
    return table("Releases refused", ("arm", "chain", "fit", "by"), rows) if rows else ""


def _checks(found: Found, said: Mapping[str, str], copies: float) -> list[Check]:
    checks = []
    if "safeguarded" in found:
        ours = found["safeguarded"]
        for metric in ("recall", "coverage"):
            value, interval = _kept(ours, metric)
            says = f"at least {LEAST} of the first fit's; {interval}"
            checks.append(Check(f"safeguarded: {metric} kept", value, says, value >= LEAST))
        for metric in [m for m in ("rare_share", "rare_share_seen") if m in said]:
            value, interval = _last(ours, metric)
            held = BAND[0] <= value <= BAND[1]
            says = f"{BAND[0]} to {BAND[1]} of its real share; {interval}"
            checks.append(Check(f"safeguarded: {said[metric]}", value, says, held))
        value, interval = _last(ours, "copies")
        says = f"at most {copies + POINT:.3g}, a point above real images; {interval}"
        checks.append(Check(f"safeguarded: {said['copies']}", value, says, value <= copies + POINT))
    if "replace" in found:
        value, interval = _kept(found["replace"], "recall")
        says = f"at most {MOST} of the first fit's; {interval}"
        checks.append(Check("replace: recall kept", value, says, value <= MOST))
    return checks


def _last(metrics: Mapping[str, np.ndarray], metric: str) -> tuple[float, str]:
    """The mean over chains of a metric after the last fit, and its interval in words: over chains,
    or of one chain that of the measurement."""
    values = metrics[metric][:, -1]
    if len(values) < 2:
        low, high = (float(metrics[f"{metric}_{end}"][0, -1]) for end in ("low", "high"))
        return float(values[0]), _interval(low, high, 1)
    value, half = mean(values)
    return value, _interval(value - half, value + half, len(values))


def _kept(metrics: Mapping[str, np.ndarray], metric: str) -> tuple[float, str]:
    """The mean over chains of what the last fit has of the first one's, and its interval; of one
    chain by those of both measurements, as if they were independent."""
    values = metrics[metric]
    ratios = values[:, -1] / np.maximum(values[:, 0], 1e-9)
    if len(ratios) < 2:
        low, high = metrics[f"{metric}_low"], metrics[f"{metric}_high"]
        spread = (high - low)[0, [0, -1]] / 2 / np.maximum(values[0, [0, -1]], 1e-9)
        half = float(ratios[0] * np.hypot(*spread))
        return float(ratios[0]), _interval(ratios[0] - half, ratios[0] + half, 1)
    value, half = mean(ratios)
    return value, _interval(value - half, value + half, len(ratios))


def _interval(low: float, high: float, chains: int) -> str:
    return f"95 % interval {low:.3f} to {high:.3f}, {chains} chain(s)"
