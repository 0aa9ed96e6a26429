"""The `schema` rule: columns, types, ranges and missingness as in the source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding
from safegen.measure.intervals import difference_interval
from safegen.measure.profile import ColumnTally, named

__all__ = ["SchemaKept"]

_SHOWN = 10


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
        next_step="put them back where the model remembers them, or name them: "
        "safegen generate --model DIR SOURCE (load(…, source=…) in Python)",
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
        next_step="keep enforce_min_max_values on, or raise out_of_range in the policy"
        if bad
        else None,
    )


def _missingness(tallies: list[tuple[str, ColumnTally]], margin: float) -> Finding:
    judged = list(_missing_shares(tallies))
    required = f"null shares within ±{margin:g} of the source's"
    if not judged:
        return Finding("schema", "missingness", "met", "no missing values, as there", required)
    outside = [j for j in judged if j[2] > margin or j[3] < -margin]
    unsure = [j for j in judged if j not in outside and (j[2] < -margin or j[3] > margin)]
    status = "unmet" if outside else "inconclusive" if unsure else "met"
    name, gap, low, high, n = max(outside or unsure or judged, key=lambda j: abs(j[1]))
    return Finding(
        "schema",
        "missingness",
        status,  # type: ignore[arg-type]
        f"largest gap {gap:+.4f} in {name}",
        required,
        interval=(low, high),
        n=n,
        method="Newcombe 1998, method 10, 95 %",
        evidence=tuple(
            f"{j[0]}: {j[1]:+.4f} [{j[2]:+.4f}, {j[3]:+.4f}]" for j in (outside or unsure)[:_SHOWN]
        ),
        next_step={
            "unmet": "the generator lost the missing values; try another backend",
            "inconclusive": "ask for more rows: at this n the share cannot be judged",
        }.get(status),
    )


def _missing_shares(
    tallies: list[tuple[str, ColumnTally]],
) -> Iterator[tuple[str, float, float, float, int]]:
    for table, tally in tallies:
        profile = tally.profile
        if not profile.judged or not (profile.missing or tally.missing):
            continue
        if profile.missing == profile.rows and tally.missing == tally.rows:
            continue
        low, high = difference_interval(tally.missing, tally.rows, profile.missing, profile.rows)
        gap = tally.missing / max(tally.rows, 1) - profile.missing / max(profile.rows, 1)
        yield named(table, profile.column.name), gap, low, high, tally.rows
