"""Loops of a backend on a table, through safegen's own front door, without its safeguards.

Each fit and each sample is a `Generator` under the policy `lab`, which records what other policies
refuse; the effective depth of each release is the one that its manifest states.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safegen.errors import UsageError
from safegen.lab.arms import Arm, chosen
from safegen.lab.page import page, table
from safegen.lab.plot import Chart, Line
from safegen.lab.settings import whole
from safegen.lab.store import Check, Result, Run
from safegen.progress import progress
from safegen.tables.streams import stream

if TYPE_CHECKING:
    from safegen.tables.schema import TableSchema

__all__ = ["METRICS", "SOURCES", "run"]

SOURCES: Mapping[str, Callable[[Path, list[Path]], list[Path]]] = {
    "real-only": lambda real, made: [real],
    "replace": lambda real, made: made[-1:] or [real],
    "accumulate": lambda real, made: [real, *made],
    "keep-all": lambda real, made: [real, *made[-1:]],
}
"""By arm: what the next fit is shown, of the real rows and of all releases so far."""

METRICS: Mapping[str, str] = {
    "shape_error": "shape error, %",
    "pair_error": "pair error, %",
    "tstr": "TSTR",
    "rare_coverage": "rare coverage",
    "rare_mass": "rare mass",
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
    levels that TSTR predicts. Each release has `rows` rows.

    Checked, where there are three chains or more: that a replace loop has the larger pair error and
    the smaller rare coverage, by the 95 % intervals of the paired differences to the control after
    the last fit.

    Raises: UsageError, SourceError, TargetError; what fitting and generating raise.
    """
    from safegen.lineage.evidence import resolve
    from safegen.tables.schema import infer_schema
    from safegen.tables.sources import read_source

    played = chosen(arms, SOURCES)
    if not isinstance(rows, int):
        if len(rows) != 1:
            raise UsageError("rows: one number here")
        (rows,) = rows
    whole(rows=(rows, 100, 1_000_000), depth=(depth, 1, 100), chains=(chains, 1, 1_000))
    whole(seed=(seed, 0, 2**63 - 1))
    source = read_source(data)
    if len(source.tables) != 1:
        raise UsageError("data: one table")
    ((_, batches),) = source.tables.items()
    real = batches.without_provenance().table().replace_schema_metadata(None)
    if real.num_rows < rows + FEWEST_HELD:
        raise UsageError(
            f"rows: at most {max(0, real.num_rows - FEWEST_HELD):,}, so that {FEWEST_HELD} of the "
            f"{real.num_rows:,} rows are left to measure against"
        )
    schema = infer_schema(real)
    if target not in schema.names or schema.kinds[target] not in ("categorical", "boolean"):
        raise UsageError(f"target: no column of levels {target!r}")
    settings = {
        "experiment": "table",
        "data": Path(data).name,
        "digest": resolve(source, None).logical_digest,
        "target": target,
        "backend": backend,
        "options": dict(options or {}),
        "rows": rows,
        "depth": depth,
        "chains": chains,
        "arms": [arm.name for arm in played],
        "seed": seed,
    }
    under_way = Run(Path(out), settings)
    with progress("fitting and sampling", len(played) * chains * depth, "fits") as advance:
        for chain in range(chains):
            kept, held = _parts(real, rows, seed, chain)
            for arm in played:
                piece = f"{arm.name}-{chain}"
                if under_way.done(piece):
                    advance(depth)
                    continue
                loop = _Loop(backend, options or {}, schema, target, held, depth, advance)
                under_way.keep(piece, loop.records(arm, kept, chain, seed))
    return _finished(under_way, played)


def _parts(real: pa.Table, rows: int, seed: int, chain: int) -> tuple[pa.Table, pa.Table]:
    """A chain's real rows, and those that it is measured against."""
    order = np.random.default_rng(stream(seed, 1, chain)).permutation(real.num_rows)
    return real.take(pa.array(order[:rows])), real.take(pa.array(order[rows : rows + 20_000]))


class _Loop:
    """One chain of one arm."""

    def __init__(
        self,
        backend: str,
        options: Mapping[str, Any],
        schema: TableSchema,
        target: str,
        held: pa.Table,
        depth: int,
        advance: Callable[[int], None],
    ):
        self.backend, self.options, self.schema = backend, options, schema
        self.target, self.held, self.depth, self.advance = target, held, depth, advance

    def records(self, arm: Arm, real: pa.Table, chain: int, seed: int) -> pa.Table:
        """A row per fit: effective depth, and what was measured of its release."""
        import pyarrow.parquet as pq

        from safegen.generator import Generator

        found: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory(prefix="safegen-lab-") as name:
            place = Path(name)
            pq.write_table(real, first := place / "real.parquet")
            made: list[Path] = []
            for t in range(1, self.depth + 1):
                gen = Generator(
                    self.backend, "lab", options=self.options, ledger=place / "ledger.db"
                )
                key = int(stream(seed, 2, chain, t).generate_state(1)[0])
                gen.fit(*SOURCES[arm.name](first, made), schema=self.schema, seed=key)
                dataset = gen.generate(real.num_rows, place / f"{t}", seed=key, workers=1)
                made.append(dataset.path)
                found.append(
                    {
                        "arm": arm.name,
                        "chain": chain,
                        "fit": t,
                        "effective_depth": float(dataset.manifest.effective_depth),
                        **self._measured(dataset.to_arrow(), chain),
                    }
                )
                self.advance(1)
        return pa.Table.from_pylist(found)

    def _measured(self, made: pa.Table, seed: int) -> dict[str, float | None]:
        from safegen.measure.classifiers import tstr
        from safegen.measure.distances import pair_error, shape_error
        from safegen.measure.rare import rare_coverage, rare_mass

        both = (self.held, made, self.schema)
        measured = {
            "shape_error": shape_error(*both, seed=seed),
            "pair_error": pair_error(*both, seed=seed),
            "tstr": tstr(*both, self.target, seed=seed),
            "rare_coverage": rare_coverage(*both),
            "rare_mass": rare_mass(*both, seed=seed),
        }
        return {name: None if m is None else m.value for name, m in measured.items()}


def _finished(run: Run, arms: Sequence[Arm]) -> Result:
    chains, depth = run.settings["chains"], run.settings["depth"]
    found: dict[str, dict[str, np.ndarray]] = {}
    for arm in arms:
        pieces = pa.concat_tables([run.records(f"{arm.name}-{c}") for c in range(chains)])
        found[arm.name] = {
            name: pc.cast(pieces[name], pa.float64()).to_numpy().reshape(chains, depth)
            for name in (*METRICS, "effective_depth")
        }
    # A table without rare levels has nothing to say of them.
    said = {
        m: t for m, t in METRICS.items() if all(np.isfinite(f[m]).all() for f in found.values())
    }
    charts, lines = [], []
    for metric, title in said.items():
        lines = [
            _line(arm, found[arm.name]["effective_depth"], found[arm.name][metric], style)
            for style, arm in enumerate(arms)
        ]
        charts.append(Chart(title, "effective depth", f"{title} over effective depth", lines))
    checks = []
    if {"real-only", "replace"} <= found.keys() and chains > 2:
        checks = [
            _worse(metric, found) for metric in ("pair_error", "rare_coverage") if metric in said
        ]
    settings = run.settings
    text = (
        f"Loops of {settings['backend']} on {settings['data']}: {settings['rows']:,} real rows, "
        "as many in each release, measured against real rows that no fit has seen. Curves are "
        "medians over chains, bands their 10 to 90 %."
    )
    more = ""
    if "real-only" in found:
        caption = f"After {depth} fits: difference to real-only, mean of pairs, 95 % interval"
        rows = [
            (name, *(_difference(name, metric, found) for metric in said))
            for name in found
            if name != "real-only"
        ]
        more = table(caption, ("arm", *said.values()), rows)
    document = page(
        "Collapse laboratory: table", text, settings, checks, [("Curves", lines, charts)], more
    )
    return run.finish(checks, document)


def _line(arm: Arm, depths: np.ndarray, values: np.ndarray, style: int) -> Line:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0).tolist()
    across = depths.mean(axis=0)
    if arm.name == "real-only":  # its depth is 1 throughout: drawn along the others'
        across = np.arange(1, values.shape[1] + 1)
    return Line(f"{arm.name}: {arm.says}", across.tolist(), middle, low, high, (), style)


def _paired(
    found: Mapping[str, Mapping[str, np.ndarray]], arm: str, metric: str
) -> tuple[float, float]:
    """The mean of the chains' differences to real-only at the last fit, and the half-width of its
    95 % interval (Student's t; infinite for a chain)."""
    from scipy.stats import t

    gaps = found[arm][metric][:, -1] - found["real-only"][metric][:, -1]
    if len(gaps) < 2:
        return float(gaps.mean()), float("inf")
    half = float(t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return float(gaps.mean()), half


def _difference(arm: str, metric: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    mean, half = _paired(found, arm, metric)
    return f"{mean:+.3f} ± {half:.3f}"


def _worse(metric: str, found: Mapping[str, Mapping[str, np.ndarray]]) -> Check:
    """Whether a replace loop does worse than the control, as it must."""
    mean, half = _paired(found, "replace", metric)
    up = metric == "pair_error"
    held = mean - half > 0 if up else mean + half < 0
    return Check(
        f"replace: {METRICS[metric]} against real-only",
        mean,
        f"{'above' if up else 'below'} 0, its interval and all",
        held,
    )
