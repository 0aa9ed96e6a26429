"""The `support` rule: nothing that reality has in number is gone from the output.

A stratum is a level of a column, a one per cent tail of a numeric column, or a column's having
more than one value. It is judged when reality has at least `min_real_rows` rows of it and at
least `min_expected` rows of it are expected at the requested n; then it must be there at all. For
a faithful generator the chance of finding none is e^-10 at an expectation of ten. Losing whole
categories is the first visible sign of collapse, and variance does not show it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding
from safegen.measure.intervals import share_interval, zero_upper
from safegen.measure.profile import ColumnTally, TableTally, named
from safegen.safeguards.schema import real_rows_missing

__all__ = ["SupportKept"]

_SHOWN = 20


@dataclass(frozen=True)
class _Stratum:
    name: str
    real: int
    real_rows: int
    seen: int
    rows: int
    value: object = None

    @property
    def expected(self) -> float:
        return self.rows * self.real / self.real_rows


class SupportKept:
    """Judges that levels, tails and variation of the source are there in the staged rows."""

    rule: ClassVar[str] = "support"

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


def _level_strata(table: str, tally: TableTally) -> Iterator[_Stratum]:
    for name, column in tally.columns.items():
        for rank, (level, count) in enumerate((column.profile.levels or {}).items(), 1):
            yield _Stratum(
                f"{named(table, name)}#{rank}",
                count,
                column.profile.rows,
                column.levels[level],
                column.rows,
                level,
            )


def _tail_strata(table: str, tally: TableTally) -> Iterator[_Stratum]:
    for name, column in tally.columns.items():
        for side, (_, count) in column.profile.tails.items():
            yield _Stratum(
                f"{named(table, name)}#{side}",
                count,
                column.profile.rows,
                column.tails[side],
                column.rows,
            )


def _missing(stratum: _Stratum, real_values: bool) -> str:
    """What is gone, by the stratum's id; with its value only where the policy allows that."""
    name = stratum.name
    if real_values and stratum.value is not None:
        name += f" ({stratum.value!r})"
    share = stratum.real / stratum.real_rows
    return (
        f"{name}: 0 of {stratum.rows:,} rows, {stratum.expected:.0f} expected; its share is below "
        f"{zero_upper(stratum.rows):.2g} with 95 % confidence, and {share:.2g} in reality"
    )


def _strata(context: ReleaseContext, params: Any, check: str, strata: Any) -> Finding:
    every = [s for t, tally in context.staged.items() for s in strata(t, tally)]
    worth = [s for s in every if s.real >= params.min_real_rows]
    judged = [s for s in worth if s.expected >= params.min_expected]
    gone = sorted((s for s in judged if not s.seen), key=lambda s: -s.expected)
    rows = context.rows
    required = (
        f"none missing that has ≥ {params.min_real_rows} real rows and ≥ "
        f"{params.min_expected:g} expected at this n"
    )
    if worth and not judged:
        return Finding(
            "support",
            check,
            "inconclusive",
            f"{len(worth)} strata, none of which can be judged with {rows:,} rows",
            required,
            n=rows,
            next_step="ask for more rows",
        )
    unjudged = len(worth) - len(judged)
    rest = f"; {unjudged} too rare to judge at this n" if unjudged else ""
    observed = f"{len(judged) - len(gone)} of {len(judged)} strata present{rest}"
    return Finding(
        "support",
        check,
        "unmet" if gone else "met",
        observed,
        required,
        interval=share_interval(len(judged) - len(gone), len(judged)) if judged else None,
        n=rows,
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
        for table, tally in context.staged.items()
        for name, column in tally.columns.items()
        if _newly_constant(column)
    ]
    return Finding(
        "support",
        "constant",
        "unmet" if lost else "met",
        f"columns that have become constant: {len(lost)}" if lost else "no column became constant",
        "a column that varies in the source varies here",
        n=context.rows,
        evidence=tuple(lost[:_SHOWN]),
        next_step="the generator has collapsed on these columns; do not use it" if lost else None,
    )


def _newly_constant(column: ColumnTally) -> bool:
    """Whether a varying column shows one value, and that is no accident (chance below 1e-6)."""
    profile = column.profile
    shown = column.rows - column.missing
    if not profile.judged or not profile.top or profile.constant or column.several or not shown:
        return False
    share = profile.top / (profile.rows - profile.missing)
    return bool(share**shown < 1e-6)
