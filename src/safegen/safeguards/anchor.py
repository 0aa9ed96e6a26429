"""The `anchor` rule: real rows stay in the loop, and are enough to hold the synthetic ones.

Checks: `ratio` (synthetic rows per real one), `kept` (every real source behind the synthetic rows
is among the sources, as a whole), `age` (since when somebody states that the real rows are real),
`gain` (what a refit on the synthetic rows alone makes of them; known when a fit is under way).
Real rows alone need no anchor. A source is real here when nothing shows it to be synthetic; who
vouches for it is the lineage rule's question.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Status
from safegen.measure.gains import ALPHA, Probe, gains

if TYPE_CHECKING:
    from safegen.lineage.facts import Root, SourceFacts
    from safegen.measure.verdicts import Cell

__all__ = ["Anchored", "golden_weight"]

_SHOWN = 20


class Anchored:
    """Judges whether real rows hold the synthetic ones. Params: see `safegen policy explain`."""

    rule: ClassVar[str] = "anchor"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "ratio": ("max_synthetic_per_real",),
        "kept": (),
        "age": ("max_age_days",),
        "gain": ("max_gain",),
    }

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        sources = context.sources
        findings = [_ratio(sources, params.max_synthetic_per_real), _kept(sources)]
        if any(s.synthetic_share for s in sources) and _real(sources):
            findings.append(_age(_real(sources), params.max_age_days, context.now))
            if context.probe is not None:
                findings.append(_gain(context.probe, params.max_gain))
        return findings

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        return ()


def golden_weight(synthetic_per_real: float) -> float:
    """The share of weight w* on real rows, all of them fresh at each fit, at which estimates in a
    loop vary least: (√(1 + 4k) − 1) / (2k) for k synthetic rows per real one, .618 for k = 1
    (He, Xu and Cheng 2025, arXiv 2502.18049)."""
    k = synthetic_per_real
    return (math.sqrt(1 + 4 * k) - 1) / (2 * k) if k else 1.0


def _real(sources: Sequence[SourceFacts]) -> list[SourceFacts]:
    return [s for s in sources if not s.synthetic_share]


def _counts(sources: Sequence[SourceFacts]) -> tuple[float, float]:
    """Real and synthetic rows. What else is in a source with synthetic rows is neither: only its
    own columns say that it is real, and releases are not compared with it."""
    synthetic = math.fsum(s.rows * s.synthetic_share for s in sources)
    return sum(s.rows for s in _real(sources)), synthetic


def _ratio(sources: Sequence[SourceFacts], most: float) -> Finding:
    real, synthetic = _counts(sources)
    rows = round(real + synthetic)
    required = f"at most {most:g} synthetic rows per real one"
    if not synthetic:
        return Finding("anchor", "ratio", "met", "no synthetic rows", required, n=rows)
    counts = f"{synthetic:,.0f} synthetic rows and {real:,.0f} real ones"
    met = bool(real) and synthetic <= most * real
    return Finding(
        "anchor",
        "ratio",
        "met" if met else "unmet",
        f"{synthetic / real:.3g} per real row: {counts}" if real else counts,
        required,
        n=rows,
        method="counts of rows, as evidence tells them apart",
        next_step=None
        if met
        else "add the real rows that they were made from, or take synthetic ones out: the last "
        "release alone keeps a loop closest to the real rows",
    )


def _kept(sources: Sequence[SourceFacts]) -> Finding:
    required = "every real source behind the synthetic rows is here, with all its rows"
    made = [s for s in sources if s.synthetic_share]
    if not made:
        return Finding("anchor", "kept", "met", "no synthetic rows", required)
    real = _real(sources)
    roots = list(dict.fromkeys(root for s in made for root in s.roots or ()))
    gone = [root for root in roots if not any(_is(s, root) for s in real)]
    unknown = [s for s in made if s.roots is None]
    if gone:
        lost = sum(root.rows for root in gone)
        return Finding(
            "anchor",
            "kept",
            "unmet",
            f"{len(gone)} of {len(roots)} real sources behind the synthetic rows are not here "
            f"({lost:,} rows)",
            required,
            n=len(roots),
            evidence=tuple(
                f"{r.uri}: {r.rows:,} rows, not among the sources" for r in gone[:_SHOWN]
            ),
            next_step="name these sources as well, whole and as they were: a part of a file, or a "
            "file with other columns, is another source",
        )
    if unknown:
        return Finding(
            "anchor",
            "kept",
            "unmet",  # lost evidence: with its manifest the same source may have been refused
            f"of {len(unknown)} of {len(made)} synthetic sources nobody knows which real rows they "
            "were made from",
            required,
            n=len(made),
            evidence=tuple(f"{s.uri}: its ancestors are not known" for s in unknown[:_SHOWN]),
            next_step="use the dataset's own folder with its manifest, and the ledger in which its "
            "ancestors are",
        )
    return Finding(
        "anchor",
        "kept",
        "met",
        f"{len(roots)} of {len(roots)} are here",
        required,
        n=len(roots),
        evidence=(_weight(sources, roots),),
    )


def _is(source: SourceFacts, root: Root) -> bool:
    """Whether a source has a root's content, or is known by the same statement about it: the same
    rows in another kind of file are."""
    proven = {e.dataset_id for e in source.evidence if e.proof and e.origin == "real"}
    same = root.dataset_id is not None and root.dataset_id in {source.dataset_id, *proven}
    return root.logical_digest in source.digests or (same and source.rows == root.rows)


def _weight(sources: Sequence[SourceFacts], roots: Sequence[Root]) -> str:
    """What is known of the best share of real rows."""
    real, synthetic = _counts(sources)
    share = real / (real + synthetic)
    fresh = sum(s.rows for s in _real(sources) if not any(_is(s, r) for r in roots))
    if not fresh:
        return (
            f"{share:.3f} of the rows are real, and all of these are known to the synthetic rows' "
            "models: no golden weight applies, and the more weight real rows have the better"
        )
    return (
        f"{share:.3f} of the rows are real, and {fresh:,} of {real:,.0f} real rows are fresh; were "
        "all of them fresh at each fit, estimates would vary least at a real weight of "
        f"{golden_weight(synthetic / real):.3f} (He, Xu and Cheng 2025)"
    )


def _age(real: Sequence[SourceFacts], most: int, now: datetime) -> Finding:
    days = [(s.uri, _days(s.stated, now)) for s in real]
    known = [d for _, d in days if d is not None]
    old = [f"{uri}: {d:,} days" for uri, d in days if d is not None and d > most]
    silent = [f"{uri}: no statement" for uri, d in days if d is None]
    status: Status = "unmet" if old else "inconclusive" if silent else "met"
    observed = [f"the oldest statement is {max(known):,} days old"] if known else []
    if silent:
        observed.append(f"nobody states when {len(silent)} of {len(days)} real sources were real")
    return Finding(
        "anchor",
        "age",
        status,
        "; ".join(observed),
        f"stated to be real in the last {most:,} days",
        n=len(days),
        method="days since the newest statement about each source",
        evidence=tuple([*old, *silent][:_SHOWN]),
        next_step={
            "unmet": "add real rows of today; or, if these are what reality still is like, let "
            "somebody who knows say so: safegen attest",
            "inconclusive": "let somebody who knows say that they are real: safegen attest",
        }.get(status),
    )


def _days(stated: str | None, now: datetime) -> int | None:
    """Whole days from a time in a manifest to now; None for none."""
    try:
        then = datetime.fromisoformat(stated or "")
    except ValueError:
        return None
    return (now - then.astimezone(UTC)).days


def _gain(probe: Probe, most: float) -> Finding:
    required = f"gain × synthetic share below {most:g} in every level and tail"
    if probe.problem is not None:
        return Finding(
            "anchor",
            "gain",
            "broken" if probe.broken else "inconclusive",
            f"whether a refit is stable is not known: {probe.problem}",
            required,
            next_step="fit a backend here, on enough synthetic rows, under a policy that asks; or "
            "leave synthetic rows out",
        )
    found = gains(probe, most)
    status: Status = found.status if found.judged or found.lost else "inconclusive"
    judged = f"{found.judged} of {len(found.cells)} levels and tails can be judged with "
    judged += f"{probe.rows[1]:,} synthetic rows"
    shown = found.lost or found.open
    telling = shown or [c for c in found.cells if c.judged] or found.cells
    worst = max(telling, key=lambda c: c.value, default=None)
    observed = judged
    if worst is not None:
        observed = f"largest {worst.value:.3g} ({worst.name}); {judged}"
    shaped = "selected as releases are" if probe.selected else "unselected"
    return Finding(
        "anchor",
        "gain",
        status,
        observed,
        required,
        interval=None if worst is None else (worst.low, worst.high),
        value=None if worst is None else worst.value,
        of=None if worst is None else worst.name,
        within=None if worst is None else worst.within,
        parts=tuple(c.part for c in found.cells),
        n=probe.rows[1],
        method=f"a fit on the synthetic rows alone, its rows {shaped}; delta method, bounds at "
        f"{1 - ALPHA:.0%} each; unmet after Holm over all; real weight {probe.weight:.3f}",
        evidence=tuple(_shown(cell) for cell in shown[:_SHOWN]),
        next_step={
            "unmet": "the loop drifts by itself: add real rows or take synthetic ones out until "
            "the real share is above 1 − 1/gain, or use another backend",
            "inconclusive": "more rows, real and synthetic, would tell",
        }.get(status),
    )


def _shown(cell: Cell) -> str:
    return f"{cell.name}: {cell.value:.3g}, bounds {cell.low:.3g} to {cell.high:.3g}"
