"""The grounds of a decision: what the log keeps beside it, so that it can be taken again later.

A decision says what was found under its own policy. To say what another policy would have made of
the same data, more is needed: at admission what was known of the sources, at release the numbers
that findings rest on. No value of the data is among it, and it stays small: of what is too much a
part is left out, and what rested on that part cannot be told again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from safegen.decision import Decision, Part
from safegen.errors import LedgerError
from safegen.ledger.base import canonical
from safegen.lineage.facts import Evidence, SourceFacts
from safegen.lineage.heads import Listed, Withdrawn

__all__ = [
    "kept_parts",
    "of_admission",
    "of_release",
    "read_listed",
    "read_parts",
    "read_source",
]

_MOST_BYTES = 256 * 1024  # of what is known of the sources, which may have thousands of ancestors
_MOST_PROBED = 1_000  # parts of the data in a probe
_MOST_PARTS = 64  # of one finding


def of_admission(context: Any, decision: Decision) -> dict[str, Any]:
    """What an `AdmissionContext` says, as JSON."""
    probe = context.probe
    known: dict[str, Any] = {
        "sources": [_source(s) for s in context.sources],
        "doubts": list(context.doubts),
        "listed": None if context.listed is None else _listed(context.listed, context.sources),
    }
    if probe is None or len(probe.parts) <= _MOST_PROBED:
        known["probe"] = None if probe is None else probe.to_json()
    return {**(known if _fits(known) else {}), **_of_findings(decision)}


def _fits(known: Mapping[str, Any]) -> bool:
    try:
        return len(canonical(known, "grounds")) <= _MOST_BYTES
    except LedgerError:  # no JSON; the decision itself has to be recorded all the same
        return False


def of_release(context: Any, decision: Decision) -> dict[str, Any]:
    """What a `ReleaseContext` says of the staged rows as a whole, as JSON."""
    return {
        "rows": context.rows,
        "units": context.units,
        "depth": context.depth,
        "signer": context.signer,
        "in_band": {table: dict(counts) for table, counts in context.in_band.items()},
        "credentials": {what: list(pair) for what, pair in context.credentials.items()},
        **_of_findings(decision),
    }


def _of_findings(decision: Decision) -> dict[str, Any]:
    """What the decision itself does not say of its findings."""
    findings = [r.finding for r in decision.judged]
    return {
        "at_most": {f.name: f.at_most for f in findings if f.at_most != "enforce"},
        "parts": {f.name: kept for f in findings if (kept := kept_parts(f.parts))},
    }


# ---- sources -------------------------------------------------------------------------------------

_DEFAULTS = {f.name: f.default for f in fields(Evidence)}


def _source(source: SourceFacts) -> dict[str, Any]:
    """What is known of a source, but for keyed digests, by which it was found."""
    document = source.to_json()
    del document["lookups"]
    document["parts"] = sorted(source.parts)
    document["evidence"] = [
        {k: v for k, v in asdict(e).items() if v != _DEFAULTS[k]} for e in source.evidence
    ]
    return document


def read_source(document: Mapping[str, Any]) -> SourceFacts:
    """What `of_admission` kept of a source. Raises: TypeError, KeyError on anything else."""
    parts: dict[str, Any] = {name: {} for name in document["parts"]}
    return SourceFacts.from_json({**document, "lookups": {}, "parts": parts})


def _listed(listed: Listed, sources: Sequence[SourceFacts]) -> dict[str, Any]:
    """The list of withdrawals, of which only what the sources name is kept."""
    named = {e.dataset_id for s in sources for e in s.evidence}
    named |= {i for s in sources for e in s.evidence for i in e.made_from}
    named |= {r.dataset_id for s in sources for e in s.evidence for r in e.roots or ()}
    withdrawn = [w.model_dump() for i, w in sorted(listed.withdrawn.items()) if i in named]
    return {**vars(listed), "withdrawn": withdrawn}


def read_listed(document: Mapping[str, Any]) -> Listed:
    """What was kept of a list of withdrawals. Raises: TypeError, KeyError, ValueError."""
    told = [Withdrawn.model_validate(w) for w in document["withdrawn"]]
    return Listed(**{**document, "withdrawn": {w.dataset_id: w for w in told}})


# ---- parts ---------------------------------------------------------------------------------------


def kept_parts(parts: Iterable[Part]) -> list[list[Any]]:
    """Of parts with one margin those whose bounds lie furthest out, on either side: whether all of
    them, or one of them, would clear another margin can be told from these."""
    groups: dict[Any, list[Part]] = {}
    for part in parts:
        groups.setdefault((part.within, part.judged), []).append(part)
    kept: dict[int, Part] = {}
    for group in groups.values():
        for end in (0, 1):
            for furthest in (min, max):
                part = furthest(group, key=lambda p: _bounds(p)[end])
                kept[id(part)] = part
    return [_told(p) for p in kept.values()] if len(kept) <= _MOST_PARTS else []


def _told(part: Part) -> list[Any]:
    ends = (part.value, *_bounds(part), *part.within)
    return [part.name, *(None if x is None else _plain(float(x)) for x in ends), part.judged]


def _bounds(part: Part) -> tuple[float, float]:
    """A part's bounds; one of which nothing is known clears no margin."""
    low, high = part.interval
    return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high


def _plain(x: float) -> float | str:
    return x if math.isfinite(x) else str(x)  # JSON has no infinity


def read_parts(document: Sequence[Any]) -> tuple[Part, ...]:
    """The parts that were kept of a finding. Raises: TypeError, ValueError on anything else."""
    found = []
    for name, value, low, high, least, most, judged in document:
        ends = (None if x is None else float(x) for x in (least, most))
        found.append(
            Part(str(name), float(value), (float(low), float(high)), tuple(ends), bool(judged))  # type: ignore[arg-type]
        )
    return tuple(found)
