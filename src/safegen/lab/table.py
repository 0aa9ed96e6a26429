"""Loops of a backend on a table, through safegen's own front door."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from safegen.errors import UsageError
from safegen.lab.arms import CONTROLS, Arm, chosen
from safegen.lab.judged import faults
from safegen.lab.page import page
from safegen.lab.paired import Found, curves, differences, ends, gathered, mean, paired
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
from safegen.lab.ways import WAYS
from safegen.progress import progress
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.tables.schema import TableSchema

__all__ = ["ARMS", "METRICS", "run"]

ARMS = tuple(WAYS)

USUAL = ("real-only", "replace", "accumulate", "keep-all", "safeguarded")
"""Arms played where none are named: the others say what of a safeguard does it."""

METRICS: Mapping[str, str] = {
    "shape_error": "shape error, %",
    "pair_error": "pair error, %",
    "tstr": "TSTR",
    "rare_coverage": "rare coverage",
    "rare_mass": "rare mass",
    "tails": "log tail ratio",
}

FEWEST_HELD = 500  # rows to measure against


def run(
    out: str | os.PathLike[str],
    *,
    data: str | os.PathLike[str],
    target: str,
    backend: str = "sdv.gaussian_copula",
    options: Mapping[str, Any] | None = None,
    rows: int | Sequence[int] = 2_000,
    depth: int = 10,
    chains: int = 3,
    arms: Sequence[str] | None = None,
    seed: int = 7,
) -> Result:
    """Let every arm fit and sample `depth` times, in `chains` loops each.

    data: a table of real rows; of each chain `rows` drawn at random are the real rows of all arms,
    and the others (at most 20,000) are what releases are measured against. target: the column of
    levels that TSTR predicts. Each release has `rows` rows. arms: `USUAL`, or any of `ARMS`.

    Checked, where there are three chains or more: that a replace loop has the larger pair error and
    the smaller rare coverage, by the 95 % intervals of the paired differences to the control after
    the last fit; that the safeguarded loop stays with the control, and is never refused; and that
    the release gate refuses every negative control.

    Raises: UsageError, SourceError, TargetError; what fitting and generating raise.
    """
    from safegen.tables.schema import infer_schema

    played = chosen(USUAL if arms is None else arms, ARMS)
    whole(depth=(depth, 1, 100), chains=(chains, 1, 1_000), seed=(seed, 0, 2**63 - 1))
    real, digest = real_table(data)
    rows = real_rows(rows, real, most=1_000_000, held=FEWEST_HELD)
    schema = infer_schema(real, {target: {"role": "target"}} if target in real.column_names else {})
    if target not in schema.names or schema.kinds[target] not in ("categorical", "boolean"):
        raise UsageError(f"target: no column of levels {target!r}")
    check_options(backend, options or {})
    settings = {
        "experiment": "table",
        "data": Path(data).name,
        "digest": digest,
        "target": target,
        "backend": backend,
        "options": dict(options or {}),
        "rows": rows,
        "depth": depth,
        "chains": chains,
        "arms": [arm.name for arm in played],
        "seed": seed,
    }
    under_way = Run(Path(out), settings, EXTENT)
    refits = Refits(under_way, played, backend, options or {}, schema, depth, seed)
    with progress("fitting and sampling", len(played) * chains * depth, "fits") as advance:
        for chain in range(chains):
            kept, held = _parts(real, rows, seed, chain)
            measured = partial(_measured, held, schema, target, chain)
            if not under_way.done(reality(chain)):
                record = {"arm": "real", "chain": chain, "fit": 0}
                record |= measured(kept, np.ones(rows))
                under_way.keep(reality(chain), pa.Table.from_pylist([record]))
            refits.play(chain, kept, measured, partial(faults, kept, held, schema), advance)
    return _finished(under_way, played)


def _parts(real: pa.Table, rows: int, seed: int, chain: int) -> tuple[pa.Table, pa.Table]:
    """A chain's real rows, and those that it is measured against."""
    order = np.random.default_rng(stream(seed, 1, chain)).permutation(real.num_rows)
    return real.take(pa.array(order[:rows])), real.take(pa.array(order[rows : rows + 20_000]))


def _measured(
    held: pa.Table,
    schema: TableSchema,
    target: str,
    seed: int,
    made: pa.Table,
    weights: np.ndarray,
) -> dict[str, Any]:
    from safegen.measure.classifiers import tstr
    from safegen.measure.distances import pair_error, shape_error
    from safegen.measure.masses import tail_gap
    from safegen.measure.rare import rare_coverage, rare_mass
    from safegen.measure.samples import samples

    both = (held, made, schema)
    measured = {
        "shape_error": shape_error(*both, seed=seed),
        "pair_error": pair_error(*both, seed=seed),
        "tstr": tstr(*both, target, seed=seed),
        "rare_coverage": rare_coverage(*both),
        "rare_mass": rare_mass(*both, seed=seed),
    }
    return {
        **{name: None if m is None else m.value for name, m in measured.items()},
        "tails": tail_gap(samples(*both, weights=weights)),
    }


def _finished(run: Run, arms: Sequence[Arm]) -> Result:
    found = gathered(run, arms, list(METRICS))
    # A table without rare levels has nothing to say of them.
    said = {
        m: t for m, t in METRICS.items() if all(np.isfinite(f[m]).all() for f in found.values())
    }
    pieces = realities(run)
    real = {m: float(pieces[m].to_numpy().mean()) for m in said}
    checks = _checks(found, said, run, arms) if run.settings["chains"] > 2 else []
    settings = run.settings
    text = (
        f"Loops of {settings['backend']} on {settings['data']}: {settings['rows']:,} real rows, "
        "as many in each release, measured against real rows that no fit has seen. Curves are "
        "medians over chains, bands their 10 to 90 %."
    )
    document = page(
        "Collapse laboratory: table",
        text,
        settings,
        checks,
        curves(found, arms, said),
        ends(found, said, real, "rows") + differences(found, said),
    )
    return run.finish(checks, document)


def _checks(found: Found, said: Mapping[str, str], run: Run, arms: Sequence[Arm]) -> list[Check]:
    """What must hold of the arms that were played."""
    checks = []
    if {"real-only", "replace"} <= found.keys():
        checks = [_worse(m, found) for m in ("pair_error", "rare_coverage") if m in said]
    if {"real-only", "safeguarded"} <= found.keys():
        checks += _safe(found, said)
    if {"raw", "safeguarded"} <= found.keys():
        first, last = found["raw"]["tstr"][:, 0], found["safeguarded"]["tstr"][:, -1]
        value, half = mean(last - first)
        says = f"above 0; 95 % interval ± {half:.3f}"
        checks.append(Check("safeguarded: TSTR above the library's first", value, says, value > 0))
    for arm in arms:
        records = [run.records(f"{arm.name}-{c}") for c in range(run.settings["chains"])]
        share = sum(any(r["faults"].to_pylist()) for r in records) / len(records)
        if arm.name in CONTROLS:
            says = "1: a release of every chain refused by the gate"
            checks.append(Check(f"{arm.name}: refused", share, says, share == 1))
        elif arm.name == "safeguarded":
            refused = sum(any(r["refused"].to_pylist()) for r in records) / len(records)
            worst = max(share, refused)
            says = "0: no release of any chain refused"
            checks.append(Check("safeguarded: refused", worst, says, worst == 0))
    return checks


def _safe(found: Found, said: Mapping[str, str]) -> list[Check]:
    """The safeguarded loop against the control after the last fit: mean differences of pairs."""
    ours, control = found["safeguarded"], found["real-only"]
    checks = []
    for metric, least in (("tstr", -0.02), ("tails", -0.15)):
        if metric in said:
            value, half = paired(found, "safeguarded", metric)
            held = value >= least if metric == "tstr" else abs(value) <= -least
            bound = f"{least} at least" if metric == "tstr" else f"within ± {-least}"
            says = f"{bound}; 95 % interval ± {half:.3f}"
            checks.append(Check(f"safeguarded: {said[metric]} less real-only's", value, says, held))
    for metric, limit, up in (("pair_error", 1.10, False), ("rare_mass", 0.95, True)):
        if metric in said:
            ratio, half = mean(ours[metric][:, -1] / control[metric][:, -1])
            held = ratio >= limit if up else ratio <= limit
            says = f"at {'least' if up else 'most'} {limit}; 95 % interval ± {half:.3f}"
            name = f"safeguarded: {said[metric]} over real-only's"
            checks.append(Check(name, ratio, says, held))
    if "rare_coverage" in said:
        value, half = mean(ours["rare_coverage"][:, -1])
        says = f"at least .98; 95 % interval ± {half:.3f}"
        checks.append(Check("safeguarded: rare coverage", value, says, value >= 0.98))
    return checks


def _worse(metric: str, found: Found) -> Check:
    """Whether a replace loop does worse than the control, as it must."""
    value, half = paired(found, "replace", metric)
    up = metric == "pair_error"
    held = value - half > 0 if up else value + half < 0
    return Check(
        f"replace: {METRICS[metric]} against real-only",
        value,
        f"{'above' if up else 'below'} 0, its interval and all",
        held,
    )
