"""The `schema` rule: columns, types, ranges and missingness as in the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Status
from safegen.measure.intervals import difference_interval
from safegen.measure.profile import ColumnTally, named

__all__ = ["SchemaKept"]

_SHOWN = 10
_REFUSED_AT = 0.001  # chance of refusing an honest release, over all its columns


class SchemaKept:
    """Judges the form of the staged rows against the source's."""

    rule: ClassVar[str] = "schema"

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.real is None:
            return [real_rows_missing("schema")]
        tallies = [(t, c) for t, tally in context.staged.items() for c in tally.columns.values()]
        return [
            _columns(context),
            _ranges(tallies, params.out_of_range),
            _missingness(tallies, params.missing_margin),
        ]


def real_rows_missing(rule: str) -> Finding:
    """The finding of a release rule that needs real rows which are not to be found."""
    return Finding(
        rule,
        "real-rows",
        "broken",
        "the real rows that the model was fitted on are not to be found with their digest",
        "the real rows, to compare with",
        next_step="put them back where the model remembers them, or name them: safegen generate "
        "--model DIR SOURCE; in Python load(…, source=…), always so for a frame",
    )


def _columns(context: ReleaseContext) -> Finding:
    assert context.real is not None
    wrong = []
    for name, profile in context.real.items():
        tally = context.staged.get(name)
        if tally is None or tally.schema is None:
            wrong.append(f"table {name!r} is not there")
            continue
        for field in profile.schema:
            index = tally.schema.get_field_index(field.name)
            if index < 0:
                wrong.append(f"{named(name, field.name)} is not there")
            elif tally.schema.field(index).type != field.type:
                type_ = tally.schema.field(index).type
                wrong.append(f"{named(name, field.name)} is {type_}, not {field.type}")
        extra = set(tally.schema.names) - set(profile.schema.names)
        wrong += [f"{named(name, n)} is not in the source" for n in sorted(extra)]
    return Finding(
        "schema",
        "columns",
        "unmet" if wrong else "met",
        f"columns that differ: {len(wrong)}" if wrong else "same columns and types",
        "the columns and types of the source",
        evidence=tuple(wrong[:_SHOWN]),
        next_step="report this to the backend's author" if wrong else None,
    )


def _ranges(tallies: list[tuple[str, ColumnTally]], most: float) -> Finding:
    worst = sorted(
        ((c.outside / c.rows, t, c) for t, c in tallies if c.rows and c.outside),
        key=lambda item: -item[0],
    )
    bad = [item for item in worst if item[0] > most]
    return Finding(
        "schema",
        "ranges",
        "unmet" if bad else "met",
        f"columns with values outside the source's range or levels: {len(bad)}"
        if bad
        else "all values within the source's ranges and levels",
        f"a share of at most {most:g} outside",
        evidence=tuple(
            f"{named(t, c.profile.column.name)}: {c.outside:,} of {c.rows:,} rows outside"
            for _, t, c in bad[:_SHOWN]
        ),
        next_step="keep enforce_min_max_values on; an adopted SDV model may have invented these "
        "values (personal data): declare such columns; or raise out_of_range in the policy"
        if bad
        else None,
    )


@dataclass(frozen=True)
class _Gap:
    """How far a column's null share is from the source's, and what can be said of that."""

    name: str
    value: float
    sure: tuple[float, float]  # 95 %: within the margin, the share is kept
    wide: tuple[float, float]  # at the refusal's level: outside the margin, it is lost
    share: float
    rows: int
    real_rows: int

    def needs(self, margin: float) -> int:
        """About how many rows of either kind would settle it: those whose 95 % half-width is half
        the margin."""
        return ceil(self.share * (1 - self.share) * (2 * 1.96 / margin) ** 2)


def _missingness(tallies: list[tuple[str, ColumnTally]], margin: float) -> Finding:
    """Kept if every 95 % interval lies within the margin (each at its own level: an
    intersection-union test needs no correction); lost if an interval at 0.1 % divided by the
    number of columns (Bonferroni) lies outside it; else inconclusive."""
    judged = list(_missing_shares(tallies))
    required = f"null shares within ±{margin:g} of the source's"
    if not judged:
        return Finding("schema", "missingness", "met", "no missing values, as there", required)
    lost = [g for g in judged if g.wide[0] > margin or g.wide[1] < -margin]
    unsure = [g for g in judged if g.sure[0] < -margin or g.sure[1] > margin]
    status: Status = "unmet" if lost else "inconclusive" if unsure else "met"
    worst = max(lost or unsure or judged, key=lambda g: abs(g.value))
    interval = worst.wide if lost else worst.sure
    observed = f"largest gap {worst.value:+.4f} in {worst.name}"
    if status == "inconclusive":
        observed = f"cannot be judged with {worst.rows:,} rows: {observed}"
    more = max((g.needs(margin) for g in unsure), default=0)
    real = min((g.real_rows for g in unsure), default=0)
    settle = f"about {more:,} rows would settle it"
    return Finding(
        "schema",
        "missingness",
        status,
        observed,
        required,
        interval=interval,
        n=worst.rows,
        method="Newcombe 1998, method 10; met at 95 % each, unmet at 99.9 % over all columns",
        evidence=tuple(
            f"{g.name}: {g.value:+.4f}, 95 % interval {g.sure[0]:+.4f} to {g.sure[1]:+.4f}"
            for g in (lost or unsure)[:_SHOWN]
        ),
        next_step={
            "unmet": "the generator lost the missing values; try another backend",
            "inconclusive": f"ask for more rows: {settle}"
            if more <= real
            else f"{settle}, and the source has {real:,}: fit on more real rows, or raise "
            "missing_margin in the policy",
        }.get(status),
    )


def _missing_shares(tallies: list[tuple[str, ColumnTally]]) -> Iterator[_Gap]:
    judged = [
        (table, tally)
        for table, tally in tallies
        if tally.profile.judged
        and (tally.profile.missing or tally.missing)
        and not (tally.profile.missing == tally.profile.rows and tally.missing == tally.rows)
    ]
    for table, tally in judged:
        real = tally.profile
        counts = (tally.missing, tally.rows, real.missing, real.rows)
        yield _Gap(
            named(table, real.column.name),
            tally.missing / max(tally.rows, 1) - real.missing / max(real.rows, 1),
            difference_interval(*counts),
            difference_interval(*counts, alpha=_REFUSED_AT / len(judged)),
            real.missing / max(real.rows, 1),
            tally.rows,
            real.rows,
        )
