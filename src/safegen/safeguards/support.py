"""The `support` rule: nothing that reality has in number is gone from the output.

A stratum is a level of a column, a one per cent tail of a numeric column, or a column's having
more than one value. It is judged when reality has at least `min_real_rows` rows of it and at
least `min_expected` rows of it are expected at the requested n; then it must be there at all. For
a faithful generator the chance of finding none is e^-10 at an expectation of ten. Losing whole
categories is the first visible sign of collapse, and variance does not show it.

Chance draws sequences whole, and rows of a root table with all that descends from them: there the
real and the expected are counted in such units, of several roots by the one of which fewest are
expected. A stratum of many rows in few units cannot be judged, and is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding
from safegen.measure.clusters import asked
from safegen.measure.intervals import share_interval, zero_upper
from safegen.measure.profile import ColumnTally, named
from safegen.safeguards.schema import drawn, real_rows_missing

__all__ = ["SupportKept"]

_SHOWN = 20


@dataclass(frozen=True)
class _Stratum:
    name: str
    real_rows: int  # rows of the source with it
    fewest: int  # units of the source with it, of any kind
    real: int  # units with it, of the kind that is counted
    real_units: int
    seen: int
    units: int  # staged
    noun: str
    value: object = None

    @property
    def expected(self) -> float:
        return self.units * self.real / self.real_units


class SupportKept:
    """Judges that levels, tails and variation of the source are there in the staged rows."""

    rule: ClassVar[str] = "support"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "levels": ("min_real_rows", "min_expected"),
        "tails": ("min_real_rows", "min_expected", "tail"),
        "constant": (),
        "real-rows": (),
    }

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.real is None:
            return [real_rows_missing("support")]
        return [
            _strata(context, params, "levels", _level_strata),
            _strata(context, params, "tails", _tail_strata),
            _constant(context),
        ]


def _level_strata(context: ReleaseContext) -> Iterator[_Stratum]:
    for table, name, column in _columns(context):
        for rank, (level, count) in enumerate((column.profile.levels or {}).items(), 1):
            id_ = f"{named(table, name)}#{rank}"
            yield _stratum(context, column, id_, level, count, column.levels[level], level)


def _tail_strata(context: ReleaseContext) -> Iterator[_Stratum]:
    for table, name, column in _columns(context):
        for side, (_, count) in column.profile.tails.items():
            id_ = f"{named(table, name)}#{side}"
            yield _stratum(context, column, id_, side, count, column.tails[side])


def _columns(context: ReleaseContext) -> Iterator[tuple[str, str, ColumnTally]]:
    for table, tally in context.staged.items():
        for name, column in tally.columns.items():
            yield table, name, column


def _stratum(
    context: ReleaseContext,
    column: ColumnTally,
    id_: str,
    key: object,
    rows: int,
    seen: int,
    value: object = None,
) -> _Stratum:
    """A stratum in the units of which fewest are expected."""
    spreads = column.profile.spreads
    fewest = min(s.held[key] for s in spreads)
    counted = [(s.held[key], s.units, seen, drawn(context, column, s), s.noun) for s in spreads]
    return min(
        (_Stratum(id_, rows, fewest, *counts, value) for counts in counted),
        key=lambda stratum: stratum.expected,
    )


def _missing(stratum: _Stratum, real_values: bool) -> str:
    """What is gone, by the stratum's id; with its value only where the policy allows that."""
    name = stratum.name
    if real_values and stratum.value is not None:
        name += f" ({stratum.value!r})"
    share = stratum.real / stratum.real_units
    return (
        f"{name}: 0 of {stratum.units:,} {stratum.noun}, {stratum.expected:.0f} expected; its "
        f"share is below {zero_upper(stratum.units):.2g} with 95 % confidence, and {share:.2g} in "
        "reality"
    )


def _strata(context: ReleaseContext, params: Any, check: str, strata: Any) -> Finding:
    every = list(strata(context))
    common = [s for s in every if s.real_rows >= params.min_real_rows]
    worth = [s for s in common if s.fewest >= params.min_real_rows]
    judged = [s for s in worth if s.expected >= params.min_expected]
    gone = sorted((s for s in judged if not s.seen), key=lambda s: -s.expected)
    n, noun = context.units, asked(context.schemas)
    required = (
        f"none missing that has ≥ {params.min_real_rows} real {noun} and ≥ "
        f"{params.min_expected:g} expected at this n"
    )
    if common and not judged:
        return Finding(
            "support",
            check,
            "inconclusive",
            f"{len(common)} strata, none of which can be judged with {n:,} {noun}",
            required,
            n=n,
            next_step=f"ask for more {noun}"
            if worth
            else f"fit on more real {noun}: none of these strata is in {params.min_real_rows}",
        )
    unjudged, few = len(worth) - len(judged), len(common) - len(worth)
    rest = f"; {unjudged} too rare to judge at this n" if unjudged else ""
    rest += f"; {few} in too few real {noun} to judge" if few else ""
    observed = f"{len(judged) - len(gone)} of {len(judged)} strata present{rest}"
    return Finding(
        "support",
        check,
        "unmet" if gone else "met",
        observed,
        required,
        interval=share_interval(len(judged) - len(gone), len(judged)) if judged else None,
        value=1 - len(gone) / len(judged) if judged else None,
        of="the share of strata that are present" if judged else None,
        n=n,
        method="presence; Wilson interval of the share of strata, 95 %",
        evidence=tuple(_missing(s, context.real_values) for s in gone[:_SHOWN]),
        next_step="the generator has lost part of reality: the default distributions, another "
        "backend, or more training may keep it (#k: the k-th most frequent level in the source)"
        if gone
        else None,
    )


def _constant(context: ReleaseContext) -> Finding:
    lost = [
        named(table, name)
        for table, name, column in _columns(context)
        if _newly_constant(context, column)
    ]
    return Finding(
        "support",
        "constant",
        "unmet" if lost else "met",
        f"columns that have become constant: {len(lost)}" if lost else "no column became constant",
        "a column that varies in the source varies here",
        n=context.units,
        evidence=tuple(lost[:_SHOWN]),
        next_step="the generator has collapsed on these columns; do not use it" if lost else None,
    )


def _newly_constant(context: ReleaseContext, column: ColumnTally) -> bool:
    """Whether a varying column shows one value, and that is no accident (chance below 1e-6)."""
    profile = column.profile
    shown = column.rows - column.missing
    if not profile.judged or not profile.top or profile.constant or column.several or not shown:
        return False
    chances = [
        s.alike ** drawn(context, column, s)
        if s.whole
        else (profile.top / (profile.rows - profile.missing)) ** shown
        for s in profile.spreads
    ]
    return max(chances) < 1e-6
