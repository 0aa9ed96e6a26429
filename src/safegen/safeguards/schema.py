"""The `schema` rule: columns, types, ranges and missingness as in the source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Part, Status
from safegen.measure.clusters import Spread, asked
from safegen.measure.intervals import difference_interval
from safegen.measure.keys import unique_keys
from safegen.measure.profile import ColumnTally, named
from safegen.safeguards import again
from safegen.tables.relations import references

__all__ = ["SchemaKept"]

_SHOWN = 10
_REFUSED_AT = 0.001  # chance of refusing an honest release, over all its columns


class SchemaKept:
    """Judges the form of the staged rows against the source's."""

    rule: ClassVar[str] = "schema"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "columns": (),
        "ranges": ("out_of_range",),
        "missingness": ("missing_margin",),
        "keys": (),
        "real-rows": (),
    }
    again = staticmethod(again.schema)

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.real is None:
            return [real_rows_missing("schema")]
        tallies = [(t, c) for t, tally in context.staged.items() for c in tally.columns.values()]
        return [
            _columns(context),
            _ranges(tallies, params.out_of_range),
            _missingness(context, tallies, params.missing_margin),
            *_keys(context),
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


def drawn(context: ReleaseContext, column: ColumnTally, spread: Spread) -> int:
    """How many units of this kind the generator was asked for, and made."""
    if spread.root is not None:
        return context.staged[spread.root].rows if spread.root in context.staged else 0
    return context.units if spread.whole else column.rows


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


def _keys(context: ReleaseContext) -> Iterator[Finding]:
    """Whether keys are unique and foreign keys exist, where there are keys."""
    links, unique = references(context.schemas), unique_keys(context.schemas)
    if not unique:
        return
    wrong = []
    staged = context.staged
    for table, key in unique:
        if table in staged and (repeated := staged[table].keys[key].repeated):
            wrong.append(f"{named(table, key)}: {repeated:,} keys repeat")
    for link in links:
        if link.table in staged and link.parent in staged:
            held = staged[link.table].keys[link.column]
            if orphans := held.orphans(staged[link.parent].keys[link.key]):
                wrong.append(f"{link}: {orphans:,} rows are not in {link.target}")
    yield Finding(
        "schema",
        "keys",
        "unmet" if wrong else "met",
        f"broken keys: {len(wrong)}"
        if wrong
        else "keys are unique" + (", and foreign keys exist" if links else ""),
        "unique keys" + (", and no foreign key without its parent" if links else ""),
        n=sum(t.rows for t in staged.values()),
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
        value=worst[0][0] if worst else 0.0,
        of="the largest share outside",
        within=(None, most),
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
    units: int
    real_units: int
    worth: float  # of a unit, in independent rows
    noun: str

    def needs(self, margin: float) -> float:
        """About how many units of both sides settle it: the 95 % half-width is half the margin."""
        if not margin:
            return inf
        return ceil(self.share * (1 - self.share) * (2 * 1.96 / margin) ** 2 / self.worth)


def _missingness(
    context: ReleaseContext, tallies: list[tuple[str, ColumnTally]], margin: float
) -> Finding:
    """Kept if every 95 % interval lies within the margin (each at its own level: an
    intersection-union test needs no correction); lost if an interval at 0.1 % divided by the
    number of columns (Bonferroni) lies outside it; else inconclusive.

    Where rows hang together n is the number of units times what one is worth in independent rows
    (`Spread.worth`, as the source shows it: at most about one, however many rows it has)."""
    judged = list(_missing_shares(context, tallies))
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
        observed = f"cannot be judged with {worst.units:,} {worst.noun}: {observed}"
    more = max((g.needs(margin) for g in unsure), default=0.0)
    real = min((g.real_units for g in unsure), default=0)
    noun = max(unsure or judged, key=lambda g: g.needs(margin)).noun
    settle = f"about {more:,.0f} {noun} would settle it"
    if more == inf:
        settle = f"no number of {noun} settles a margin of 0"
    return Finding(
        "schema",
        "missingness",
        status,
        observed,
        required,
        interval=interval,
        value=worst.value,
        of=worst.name,
        within=(-margin, margin),
        parts=tuple(Part(g.name, g.value, g.sure, (-margin, margin)) for g in judged),
        n=worst.units,
        method="Newcombe 1998, method 10; met at 95 % each, unmet at 99.9 % over all columns",
        evidence=tuple(
            f"{g.name}: {g.value:+.4f}, 95 % interval {g.sure[0]:+.4f} to {g.sure[1]:+.4f}"
            for g in (lost or unsure)[:_SHOWN]
        ),
        next_step={
            "unmet": "the generator lost the missing values; try another backend",
            "inconclusive": f"ask for more {asked(context.schemas)}: {settle}"
            if more <= real
            else f"{settle}, and the source has {real:,}: fit on more real {noun}, or raise "
            "missing_margin in the policy",
        }.get(status),
    )


def _missing_shares(
    context: ReleaseContext, tallies: list[tuple[str, ColumnTally]]
) -> Iterator[_Gap]:
    judged = [
        (table, tally)
        for table, tally in tallies
        if tally.profile.judged
        and (tally.profile.missing or tally.missing)
        and not (tally.profile.missing == tally.profile.rows and tally.missing == tally.rows)
    ]
    for table, tally in judged:
        real = tally.profile
        shares = tally.absent_share, real.missing / max(real.rows, 1)
        sides = [(drawn(context, tally, s), s) for s in real.spreads]
        units, spread = min(sides, key=lambda side: side[0] * side[1].worth)
        counts = (
            *_effective(shares[0], tally.effective, units * spread.worth),
            *_effective(shares[1], real.rows, spread.units * spread.worth),
        )
        yield _Gap(
            named(table, real.column.name),
            shares[0] - shares[1],
            difference_interval(*counts),
            difference_interval(*counts, alpha=_REFUSED_AT / len(judged)),
            shares[1],
            units,
            spread.units,
            spread.worth,
            spread.noun,
        )


def _effective(share: float, rows: float, n: float) -> tuple[float, float]:
    """Hits and n of as many independent rows as these are worth, with this share of hits."""
    n = min(n, rows)
    return share * n, n
