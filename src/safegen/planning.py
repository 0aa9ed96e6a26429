"""`--dry-run`: what a run would take and which gates may reach no verdict, before fitting."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safegen.measure.clusters import asked, hang_together
from safegen.measure.keys import judged_keys
from safegen.measure.neighbours import able_before, measurable
from safegen.measure.profile import profiles
from safegen.measure.questions import comparable, enough_rows, reached, utility_judged
from safegen.shaping.shape import MOST, asked_for
from safegen.tables.units import pilot, units

if TYPE_CHECKING:
    import pyarrow as pa

    from safegen.contracts import Model
    from safegen.generator import Generator
    from safegen.tables.schema import TableSchema

__all__ = ["plan"]

_PILOT_ROWS = 2_000


def plan(gen: Generator, rows: int) -> list[tuple[str, str]]:
    """Facts about a run of `rows` rows by a prepared generator, from pilot fits on few rows.

    Time is extrapolated from pilot fits on at most 2,000 rows, on this machine; it is a forecast,
    not a bound.
    """
    prepared = gen._ready()
    assert prepared.parts is not None
    training = prepared.parts.training
    real = sum(t.num_rows for t in training.values())
    of = sum(f.rows for f in prepared.facts)
    drawn = any(f.sampled for f in prepared.facts)
    every = f"{of:,} rows, too large for memory: {real:,} of them to fit on" if drawn else None

    def fit(most: int) -> tuple[Model, int, float]:
        few = pilot(training, prepared.schemas, most)
        start = time.perf_counter()
        model = gen._backend.fit(few, prepared.schemas, gen.options, seed=prepared.seed)
        return model, sum(t.num_rows for t in few.values()), time.perf_counter() - start

    fit(_PILOT_ROWS // 4)  # imports the backend's library, which no row is to blame for
    _, few, short = fit(_PILOT_ROWS // 4)
    model, used, fitted = fit(_PILOT_ROWS)
    per_row = max(fitted - short, 0.0) / (used - few) if used > few else 0.0
    block = min(rows, gen._backend.block_rows)
    model.sample(min(block, 1), seed=0, block=0)
    start = time.perf_counter()
    model.sample(block, seed=0, block=0)
    sampled = time.perf_counter() - start
    pool = _pool(gen)
    facts = [
        ("sources", f"{every or f'{real:,} rows'}, admitted by {gen.policy.id}"),
        ("fit, forecast", _about(fitted + per_row * (real - used))),
        ("sample, forecast", f"{_about(sampled * rows * pool / block)} in one process"),
        ("memory so far", f"{_peak_mib():,.0f} MiB at most; {_growth(prepared.schemas)}"),
    ]
    support = gen.policy.at("release").get("support")
    if support is not None:
        facts.append(("support gate", _power(gen, rows, support)))
    fidelity = gen.policy.at("release").get("fidelity")
    if fidelity is not None:
        facts.append(("fidelity gate", _judged(gen, rows, fidelity)))
    privacy = gen.policy.at("release").get("privacy")
    if privacy is not None:
        facts.append(("privacy gate", _private(gen, rows, privacy)))
    return facts


def _pool(gen: Generator) -> int:
    """Candidates that are sampled for each row, at most."""
    if gen._ready().kind != "table" or not asked_for(gen.policy):
        return 1
    if gen.policy.rule("tails").severity != "off":
        return MOST
    return int(gen.policy.rule("selection").pool)  # type: ignore[attr-defined]


def _judged(gen: Generator, rows: int, params: Any) -> str:
    """What the fidelity rule can judge, and whether a question has to stay open."""
    prepared = gen._ready()
    parts, schemas = prepared.parts, prepared.schemas
    assert parts is not None
    noun = asked(schemas)
    found = reached(parts.anchor, schemas, rows, params)
    told = [
        f"{r.cells} of {r.every_cell} {what} and {r.means} of {r.every_mean} means"
        for what, r in found.items()
        if r.every_cell
    ]
    text = f"{', '.join(told) or 'nothing'} can be judged with {rows:,} {noun}"
    open_ = [what for what, r in found.items() if r.open]
    if open_:
        text += f"; chance may leave {', '.join(open_)} without a verdict at this n"
        text += _left_open(params, capped=hang_together(schemas))
        text += _enough(parts.anchor, schemas, rows, params)
    targets = [(name, s.target) for name, s in schemas.items() if s.target]
    if not any(t.num_rows for t in parts.held.values()):
        text += "; utility is not tested, for no rows are held out"
    elif not targets:
        text += "; utility is not tested, for no target is declared"
    elif not utility_judged(parts.held[targets[0][0]], targets[0][1], params):
        held = parts.held[targets[0][0]].num_rows
        text += f"; chance may leave utility without a verdict with {held:,} held-out rows"
        text += _left_open(params, capped=False)
    return text


def _private(gen: Generator, rows: int, params: Any) -> str:
    """Whether near copies and membership can be ruled out."""
    prepared = gen._ready()
    parts, schemas = prepared.parts, prepared.schemas
    assert parts is not None
    (name, schema), *_ = schemas.items()
    if hang_together(schemas) or not measurable(schema):
        return "near copies and membership are not measured: only rows drawn one by one have them"
    limits = {"near": params.near_copies, "area": params.membership}
    near, told = able_before(parts.anchor[name], parts.held[name], rows, schema, **limits)
    tested = {"near copies": near}
    if parts.held[name].num_rows:
        tested["membership"] = told
    sure, open_ = ([what for what, able in tested.items() if able is x] for x in (True, False))
    text = f"{' and '.join(sure) or 'nothing'} can be judged with {rows:,} rows and "
    text += f"{parts.anchor[name].num_rows:,} real ones"
    if open_:
        text += f"; chance may leave {' and '.join(open_)} without a verdict"
        text += _left_open(params, capped=False) if params.leaks == "refuse" else ""
    if "membership" not in tested:
        text += "; membership is not tested, for no rows are held out"
    return text


def _left_open(params: Any, *, capped: bool) -> str:
    """What the policy makes of a question without a verdict."""
    if params.inconclusive != "fail" or params.severity != "enforce":
        return ""
    return " (a warning here)" if capped else ": the policy would then refuse (inconclusive: fail)"


def _enough(
    real: Mapping[str, pa.Table], schemas: Mapping[str, TableSchema], rows: int, params: Any
) -> str:
    if hang_together(schemas):
        return ""
    ((name, schema),) = schemas.items()
    kept = comparable(schema)
    whole = None if kept is None else enough_rows(real[name], kept, rows, params)
    if whole is None:
        return ""
    more = round(rows * whole / real[name].num_rows)
    return f"; about {whole:,} real rows, and {more:,} asked for, would do"


def _power(gen: Generator, rows: int, params: Any) -> str:
    """How many strata the support rule can judge at this number of rows."""
    prepared = gen._ready()
    assert prepared.parts is not None
    anchor = prepared.parts.anchor
    counts: list[float] = []  # per stratum, units with it as a share of what is asked for
    whole = units(anchor, prepared.schemas)
    for profile in profiles(anchor, prepared.schemas, tail=params.tail).values():
        for column in profile.columns.values():
            for stratum in (*(column.levels or {}), *column.tails):
                held = min(s.held[stratum] for s in column.spreads)
                if held >= params.min_real_rows:
                    counts.append(held / whole)
    judged = [share for share in counts if share * rows >= params.min_expected]
    noun = asked(prepared.schemas)
    text = f"{len(judged)} of {len(counts)} strata can be judged with {rows:,} {noun}"
    if len(judged) < len(counts):
        text += f"; all of them from {int(params.min_expected / min(counts)) + 1:,} {noun} on"
    return text


def _growth(schemas: Mapping[str, TableSchema]) -> str:
    keys = [
        c if len(schemas) == 1 else f"{t}.{c}" for t, cs in judged_keys(schemas).items() for c in cs
    ]
    if not keys:
        return "it does not grow with --rows"
    return f"with --rows it grows by 8 bytes per row and key ({', '.join(keys)}), which are judged"


def _about(seconds: float) -> str:
    if seconds < 1:
        return "less than 1 s"
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def _peak_mib() -> float:
    """Peak resident memory of this process. `ru_maxrss` would do, but a child inherits its
    parent's."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)
