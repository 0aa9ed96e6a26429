"""The `privacy` rule: the rows give nobody away.

Checks: `identifiers` (real ids and personal data among all staged rows), `copies` (rows that are
one real person's, beyond those of chance), `near-copies` (rows closer to a real one than chance
brings them), `membership` (whether rows trained on can be told from rows held out) and
`small-groups` (columns that mostly show levels which few people have). None of them makes data
anonymous: they find what they look for, and a release that passes has no such leak at the size
that the finding states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Severity, Status
from safegen.measure.copies import Coincidence, coincidence
from safegen.measure.identifiers import NEIGHBOURS, IdentifierTally
from safegen.measure.intervals import difference_interval, share_interval, surely_above
from safegen.measure.profile import named
from safegen.safeguards.schema import real_rows_missing

__all__ = ["PrivacyKept"]

_SHOWN = 20
_REFUSED_AT = 0.001  # chance of refusing an honest release, per check
_TIMES = 1.25  # a generator is not reality: its rows may meet real ones a quarter more often
_AT_MOST: dict[str, Severity] = {"allow": "audit", "warn": "warn", "refuse": "enforce"}


class PrivacyKept:
    """Judges what the staged rows tell about single real rows."""

    rule: ClassVar[str] = "privacy"

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.real is None or context.anchor is None:
            return [real_rows_missing("privacy")]
        leaks = (_copies(context, params.copies),)
        cap = _AT_MOST[params.leaks]
        return [
            _identifiers(context, params.small_group),
            *(replace(finding, at_most=cap) for finding in leaks),
        ]


# ---- identifiers ---------------------------------------------------------------------------------


def _identifiers(context: ReleaseContext, few: int) -> Finding:
    tallies = [
        (named(table, name), tally.profile.columns[name].column.kind == "personal", identifiers)
        for table, tally in context.staged.items()
        for name, identifiers in tally.identifiers.items()
    ]
    copied = [(name, *_shown(t, few if personal else None)) for name, personal, t in tallies]
    bad = [(name, shown, real) for name, shown, real, copies in copied if copies]
    rows = sum(t.rows for t in context.staged.values())
    columns = len(tallies)
    return Finding(
        "privacy",
        "identifiers",
        "unmet" if bad else "met",
        f"{len(bad)} of {columns} columns show real identifiers"
        if bad
        else f"no real identifier in any of {columns} columns"
        if columns
        else "no column is an id or personal data",
        "no real id, and no personal data of one person or of few; numbers may be met by counting",
        n=rows,
        method=f"all staged rows; numbers are held against {NEIGHBOURS} neighbours each",
        evidence=tuple(
            f"{name}: {shown:,} of {real:,} real values are shown" for name, shown, real in bad
        )[:_SHOWN],
        next_step="the model hands real identifiers out: use a backend that invents them; for an "
        "adopted SDV model, fit one here instead. Declare public: true where the values are no "
        "secret"
        if bad
        else None,
    )


def _shown(tally: IdentifierTally, few: int | None) -> tuple[int, int, bool]:
    """Real identifiers shown, how many there are, and whether they are copies.

    Of personal data what many people share points at none. Numbers that are shown no more often
    than their neighbours are counted, not copied; so are texts that end in a running number.
    """
    judged = slice(None) if few is None else tally.real.people < few
    shown = int(tally.shown[judged].sum())
    near = int(tally.near[:, judged].sum())
    copies = surely_above(shown, 1, near, NEIGHBOURS, times=1, alpha=_REFUSED_AT)
    if not tally.numbers and not near:
        copies = shown > 0
    return shown, len(tally.real.values), copies


# ---- copies --------------------------------------------------------------------------------------


def _copies(context: ReleaseContext, margin: float) -> Finding:
    found = list(_coincidences(context))
    required = f"no more copies than chance makes, and more than {margin:.2%} of the rows ruled out"
    if not found:
        return Finding("privacy", "copies", "met", "no column that could be copied", required)
    judged = [(name, c, *_judged(c, staged, margin)) for name, c, staged in found]
    order: list[Status] = ["met", "inconclusive", "unmet"]
    name, worst, status, interval = max(judged, key=lambda item: (order.index(item[2]), item[3][1]))
    where = f" of {name}" if len(found) > 1 else ""
    return Finding(
        "privacy",
        "copies",
        status,
        f"{worst.copies:,} of {worst.rows:,} rows{where} are copies of one real person's "
        f"({worst.share:.3%}), where chance makes {worst.boost * worst.chance:.3%}",
        required,
        interval=interval,
        n=worst.rows,
        method=f"rows drawn at random, compared with {worst.real_rows:,} real rows in all columns "
        "but ids and personal data; chance by Turing's estimate; 95 % of the share beyond it "
        "(Newcombe 1998)",
        next_step={
            "unmet": "the generator repeats its training rows: train it less, regularise it, or "
            "use another backend",
            "inconclusive": "ask for more rows, or raise copies in the policy",
        }.get(status),
    )


def _coincidences(context: ReleaseContext) -> Iterator[tuple[str, Coincidence, int]]:
    assert context.anchor is not None
    for name, made in context.made.items():
        anchor = context.anchor[name]
        if anchor.num_rows and made.table.num_rows:
            found = coincidence(anchor, made, context.schemas[name])
            if found is not None:
                yield name, found, context.staged[name].rows


def _judged(c: Coincidence, staged: int, margin: float) -> tuple[Status, tuple[float, float]]:
    """Unmet if copies are certainly more than chance makes; met if more than the margin beyond it
    is ruled out. The copies beyond chance are no more than all copies: where all staged rows were
    looked at, these are known without an interval."""
    hits, chance_hits = c.share * c.effective, c.chance * c.chance_rows
    interval = difference_interval(hits, c.effective, chance_hits, c.chance_rows, times=c.boost)
    high = c.share
    if staged > c.rows:  # without replacement: worth more the larger the part is
        n = c.effective * (staged - 1) / (staged - c.rows)
        high = share_interval(c.share * n, n)[1]
    interval = (min(interval[0], high), min(interval[1], high))
    times = _TIMES * c.boost
    above = surely_above(
        hits, c.effective, chance_hits, c.chance_rows, times=times, alpha=_REFUSED_AT
    )
    return "unmet" if above else "met" if interval[1] <= margin else "inconclusive", interval
