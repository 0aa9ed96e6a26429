"""The `privacy` rule: the rows give nobody away.

Checks: `identifiers` (real ids and personal data among all staged rows), `copies` (rows that are
one real person's, beyond those of chance), `near-copies` (rows closer to a real one than chance
brings them), `membership` (whether rows trained on can be told from rows held out) and
`small-groups` (columns that mostly show levels which few people have). None of them makes data
anonymous: they find what they look for, and a release that passes has no such leak at the size
that the finding states. Where so few rows were looked at that chance may leave an honest release
without a verdict, a check says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Severity, Status
from safegen.measure.copies import Coincidence, coincidence, small_levels
from safegen.measure.identifiers import NEIGHBOURS, IdentifierTally
from safegen.measure.intervals import difference_interval, share_interval, surely_above
from safegen.measure.neighbours import FEWEST, Closeness, closeness, measurable, told
from safegen.measure.profile import named
from safegen.safeguards import again
from safegen.safeguards.schema import real_rows_missing

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PrivacyKept", "softened"]

_SHOWN = 20
_REFUSED_AT = 0.001  # chance of refusing an honest release, per check
_TIMES = 1.25  # a generator is not reality: its rows may meet real ones a quarter more often
_TIMES_ALIKE = 2.5  # several real rows that are alike: what generators have in number anyway
_SURE = 1.96
_FEW = "; with so few rows chance may leave an honest release without a verdict"
_AT_MOST: dict[str, Severity] = {"allow": "audit", "warn": "warn", "refuse": "enforce"}
_MILD_TO_STRICT = tuple(_AT_MOST.values())


class PrivacyKept:
    """Judges what the staged rows tell about single real rows."""

    rule: ClassVar[str] = "privacy"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "identifiers": ("small_group",),
        "copies": ("copies", "leaks"),
        "near-copies": ("near_copies", "leaks"),
        "membership": ("membership", "held_out", "leaks"),
        "small-groups": ("small_group", "small_group_rows", "leaks"),
        "real-rows": (),
    }
    again = staticmethod(again.privacy)

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.real is None or context.anchor is None:
            return [real_rows_missing("privacy")]
        leaks = [
            _copies(context, params.copies),
            _near_copies(context, params.near_copies),
            *_membership(context, params),
            _small_groups(context, params.small_group, params.small_group_rows),
        ]
        return [
            _identifiers(context, params.small_group),
            *(softened(leak, params.leaks) for leak in leaks),
        ]


def softened(leak: Finding, leaks: str) -> Finding:
    """A finding about a leak (an identifier is none), no stricter than `leaks` asks for."""
    cap = min(_AT_MOST[leaks], leak.at_most, key=_MILD_TO_STRICT.index)
    return replace(leak, at_most=cap)


# ---- identifiers ---------------------------------------------------------------------------------


def _identifiers(context: ReleaseContext, few: int) -> Finding:
    tallies = [
        (named(table, name), tally.profile.columns[name].column.kind == "personal", identifiers)
        for table, tally in context.staged.items()
        for name, identifiers in tally.identifiers.items()
    ]
    copied = [(name, *_shown(t, few if personal else None)) for name, personal, t in tallies]
    bad = [(name, shown, real) for name, shown, real, copies in copied if copies]
    met = [(name, shown, real) for name, shown, real, copies in copied if shown and not copies]
    rows = sum(t.rows for t in context.staged.values())
    columns = len(tallies)
    return Finding(
        "privacy",
        "identifiers",
        "unmet" if bad else "met",
        f"{len(bad)} of {columns} columns show real identifiers"
        if bad
        else f"{sum(shown for _, shown, _ in met):,} real identifiers in {len(met)} of {columns} "
        "columns, no more than counting up may meet"
        if met
        else f"no real identifier in any of {columns} columns"
        if columns
        else "no column is an id or personal data",
        "no real id but what counting up may meet, and no personal data of one person or of few",
        n=rows,
        method=f"all staged rows; numbers are held against {NEIGHBOURS} neighbours each",
        evidence=(
            *(f"{name}: {shown:,} of {real:,} real values are shown" for name, shown, real in bad),
            *(f"{name}: {shown:,} of {real:,} real values may be met" for name, shown, real in met),
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
    if not tally.numbers and near < shown:  # eight neighbours each: a few decoys explain nothing
        copies = True
    return shown, len(tally.real.values), copies


# ---- copies --------------------------------------------------------------------------------------


def _copies(context: ReleaseContext, margin: float) -> Finding:
    found = list(_coincidences(context))
    required = f"no more copies than chance makes, and more than {margin:.2%} of the rows ruled out"
    if not found:
        return Finding("privacy", "copies", "met", "no column that could be copied", required)
    alpha = _REFUSED_AT / len(found)
    judged = [(name, c, *_judged(c, staged, margin, alpha)) for name, c, staged in found]
    order: list[Status] = ["met", "inconclusive", "unmet"]
    name, worst, status, interval = max(
        judged, key=lambda item: (order.index(item[2]), -item[1].people, item[3][1])
    )
    where = f" of {name}" if len(context.made) > 1 else ""
    whose = "one real person's" if worst.people == 1 else f"those of {worst.people} that are alike"
    return Finding(
        "privacy",
        "copies",
        status,
        f"{worst.copies:,} of {worst.rows:,} rows{where} are copies of {whose} "
        f"({worst.share:.3%}), where chance makes {worst.boost * worst.chance:.3%}",
        required,
        interval=interval,
        value=worst.share - worst.boost * worst.chance,
        of="the share of rows that are copies, beyond chance",
        within=(None, _most(worst, margin)) if worst.people == 1 else None,
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
            for found in coincidence(anchor, made, context.schemas[name]):
                yield name, found, context.staged[name].rows


def _judged(
    c: Coincidence, staged: int, margin: float, alpha: float
) -> tuple[Status, tuple[float, float]]:
    """Unmet if copies are certainly more than chance makes and a quarter more; met if more than the
    margin beyond it, or that quarter, is ruled out.

    The copies beyond chance are no more than all copies: where all staged rows were looked at,
    these are known without an interval. Of combinations of several people it is asked only whether
    they are certainly too many: a source that holds its rows twice has no others.
    """
    hits, chance_hits = c.share * c.effective, c.chance * c.chance_rows
    interval = difference_interval(hits, c.effective, chance_hits, c.chance_rows, times=c.boost)
    high = c.share
    if staged > c.rows:  # without replacement: worth more the larger the part is
        n = c.effective * (staged - 1) / (staged - c.rows)
        high = share_interval(c.share * n, n)[1]
    interval = (min(interval[0], high), min(interval[1], high))
    times = (_TIMES if c.people == 1 else _TIMES_ALIKE) * c.boost
    above = surely_above(hits, c.effective, chance_hits, c.chance_rows, times=times, alpha=alpha)
    if c.people > 1:
        return "unmet" if above else "met", interval
    kept = interval[1] <= _most(c, margin)
    return "unmet" if above else "met" if kept else "inconclusive", interval


def _most(c: Coincidence, margin: float) -> float:  # copies beyond chance, to be ruled out
    return max(margin, (_TIMES - 1) * c.boost * c.chance)


# ---- near copies and membership ------------------------------------------------------------------


def _plain_table(context: ReleaseContext) -> str | None:
    """The name of the one table whose rows are drawn one by one, and have distances; else None."""
    if len(context.schemas) > 1:
        return None
    ((name, schema),) = context.schemas.items()
    return name if schema.sequence_key is None and measurable(schema) else None


def _near_copies(context: ReleaseContext, margin: float) -> Finding:
    """As for copies: unmet if one of the comparisons certainly finds more, each at its part of the
    refusal's level (Bonferroni); met if the margin is ruled out for the closest rows."""
    required = f"no more of them than among real rows, and more than {margin:.2%} ruled out"
    name = _plain_table(context)
    if name is None:
        text = "not measured: only rows of one table, drawn one by one, have distances here"
        return Finding("privacy", "near-copies", "met", text, required)
    assert context.anchor is not None
    anchor, made = context.anchor[name], context.made[name]
    found = closeness(anchor, made.table, context.schemas[name])
    if not found:
        return _too_few("near-copies", required, anchor, made.table)
    times = _TIMES * float(made.weights.mean() / made.weights.min())
    above = [
        c
        for c in found
        if surely_above(
            c.share * c.effective,
            c.effective,
            c.real_share * c.real_effective,
            c.real_effective,
            times=times,
            alpha=_REFUSED_AT / len(found),
        )
    ]
    intervals = {id(c): _beyond(c) for c in found}
    wide = [c for c in found[:1] if intervals[id(c)][1] > margin]
    status: Status = "unmet" if above else "inconclusive" if wide else "met"
    worst = max(above or found[:1], key=lambda c: intervals[id(c)][0])
    where = "rows in the tails" if worst.remote else "rows"
    return Finding(
        "privacy",
        "near-copies",
        status,
        f"{worst.close:,} of {worst.rows:,} {where} ({worst.share:.3%}) are closer to a real row "
        f"than all but {worst.level:.1%} of the real ones are to each other"
        + ("" if found[0].able(margin) else _FEW),
        required,
        interval=intervals[id(worst)],
        value=worst.share - worst.real_share,
        of="the share of rows that are closer, beyond that of real rows",
        within=(None, margin),
        n=worst.rows,
        method=f"distance to the nearest of {worst.targets:,} real rows over that one's to the "
        "next; rows drawn at random; 95 % of the share beyond that of real rows (Newcombe 1998)",
        evidence=tuple(
            f"{'tails' if c.remote else 'all rows'}, {c.level:.1%} of real rows: {c.share:.3%}"
            for c in above
        ),
        next_step={
            "unmet": "the generator keeps to its training rows: train it less, regularise it, or "
            "use another backend",
            "inconclusive": "ask for more rows, or raise near_copies in the policy",
        }.get(status),
    )


def _too_few(check: str, required: str, *tables: pa.Table) -> Finding:
    """No verdict on few rows; but where there are many, and all are like others, there is nobody
    to come near to. Rows that are real ones are judged as copies."""
    rows = min(t.num_rows for t in tables)
    if rows < FEWEST:
        text = f"too few rows to measure distances: {rows:,}"
        return Finding("privacy", check, "inconclusive", text, required, n=rows)
    text = f"nothing to measure: fewer than {FEWEST} rows are unlike all other real ones"
    return Finding("privacy", check, "met", text, required, n=rows)


def _beyond(c: Closeness) -> tuple[float, float]:
    hits, real_hits = c.share * c.effective, c.real_share * c.real_effective
    return difference_interval(hits, c.effective, real_hits, c.real_effective)


def _membership(context: ReleaseContext, params: Any) -> Iterator[Finding]:
    """Met if the upper 95 % bound of the area is at most the limit; unmet if that area, or that of
    the tails alone, lies above it for certain (the tails have too few rows to rule much out)."""
    required = f"an area of at most {params.membership:g}, with its 95 % interval; .5 is chance"
    name = _plain_table(context)
    held = context.held[name] if name is not None and context.held is not None else None
    if held is None or not held.num_rows:
        yield _not_measured(name, params.held_out, required)
        return
    assert name is not None
    assert context.anchor is not None
    anchor, made = context.anchor[name], context.made[name].table
    found = told(anchor, held, made, context.schemas[name])
    if not found:
        yield _too_few("membership", required, anchor, held, made)
        return
    z = NormalDist().inv_cdf(1 - _REFUSED_AT / len(found))
    above = [t for t in found if t.area - z * t.error > params.membership]
    limit = params.membership
    wide = [t for t in found if t.area + _SURE * t.error > limit and not t.remote]
    status: Status = "unmet" if above else "inconclusive" if wide else "met"
    worst = max(above or wide or found[:1], key=lambda t: t.area)
    where = " in the tails" if worst.remote else ""
    yield Finding(
        "privacy",
        "membership",
        status,
        f"rows trained on are told from rows held out{where} with an area of {worst.area:.3f}"
        + ("" if all(t.able(limit) or t.remote for t in found) else _FEW),
        required,
        interval=(
            max(0.0, worst.area - _SURE * worst.error),
            min(1.0, worst.area + _SURE * worst.error),
        ),
        value=worst.area,
        of="the area",
        within=(None, limit),
        n=worst.members + worst.others,
        method=f"AUC of a density ratio by nearest neighbours, {worst.members:,} rows trained on "
        f"and {worst.others:,} held out; 95 % by its influence function (DeLong et al. 1988)",
        evidence=tuple(
            f"{'tails' if t.remote else 'all rows'}: {t.area:.3f} ± {_SURE * t.error:.3f}"
            for t in above
        ),
        next_step={
            "unmet": "the generator gives its training rows away: train it less, regularise it, "
            "or use another backend",
            "inconclusive": "hold more rows out (held_out), give more real rows, or raise "
            "membership in the policy",
        }.get(status),
    )


def _not_measured(name: str | None, wanted: float, required: str) -> Finding:
    """Not asked for is met, and cannot be had warns at most; what is asked for and not there
    counts as a test without a verdict."""
    if not wanted:
        text = "not measured: the policy keeps no real rows from training (held_out)"
        return Finding("privacy", "membership", "met", text, "nothing: held_out is 0")
    if name is None:
        text = "not measured: no rows are held out of sequences, related tables and images"
        return Finding("privacy", "membership", "inconclusive", text, required, at_most="warn")
    return Finding(
        "privacy",
        "membership",
        "inconclusive",
        "not measured: no real rows were kept from this model's training",
        required,
        next_step="fit it anew under this policy, which then holds rows out",
    )


# ---- small groups --------------------------------------------------------------------------------


def _small_groups(context: ReleaseContext, few: int, most: float) -> Finding:
    assert context.anchor is not None
    groups = {
        named(table, name): (rows, levels, drawn.table.num_rows)
        for table, drawn in context.made.items()
        for name, (rows, levels) in small_levels(
            context.anchor[table], drawn.table, context.schemas[table], few
        ).items()
    }
    required = (
        f"at most {most:.0%} of a column's rows show levels that fewer than {few} people have"
    )
    shown = {name: g for name, g in groups.items() if g[0]}
    alpha = _REFUSED_AT / max(len(groups), 1)
    bad = {n: g for n, g in shown.items() if share_interval(g[0], g[2], 2 * alpha)[0] > most}
    open_ = {n: g for n, g in shown.items() if share_interval(g[0], g[2])[1] > most}
    status: Status = "unmet" if bad else "inconclusive" if open_ else "met"
    named_ = sorted((bad or open_ or shown).items(), key=lambda item: -item[1][0] / item[1][2])
    worst = named_[0] if named_ else None
    return Finding(
        "privacy",
        "small-groups",
        status,
        f"{len(shown)} of {len(groups)} columns show levels of small groups"
        + (f"; most in {worst[0]}: {worst[1][0] / worst[1][2]:.2%} of the rows" if worst else ""),
        required,
        interval=share_interval(worst[1][0], worst[1][2]) if worst else None,
        value=worst[1][0] / worst[1][2] if worst else None,
        of=worst[0] if worst else None,
        within=(None, most) if worst else None,
        n=worst[1][2] if worst else None,
        method="rows drawn at random; Wilson interval, 95 %" if worst else None,
        evidence=tuple(
            f"{name}: {levels:,} levels of fewer than {few} people, in {rows:,} of {n:,} rows"
            for name, (rows, levels, n) in named_[:_SHOWN]
        ),
        next_step="declare such columns personal (values are invented), group their rare levels, "
        "or declare public: true where everybody may know the levels"
        if status != "met"
        else None,
    )
