"""The `fidelity` rule: the rows are as close to reality as the policy asks.

Five questions, each a non-inferiority test with three outcomes (`measure.verdicts`): columns, pairs
of columns, tails, rare levels, and what a classifier learns. A part of the staged rows, drawn at
random, is compared with the real rows that were trained on; what is claimed is about the laws that
both are samples of, so the noise of either is in every bound. Utility is tested on rows that no fit
has seen, where the policy holds some out; where it does not, nothing is said of it.

Rows of sequences and of related tables hang together. There n is the effective number of
independent rows if all rows of a unit were copies of each other: with few long sequences most
questions stay open, and none is answered too early. That is the method's limit and not the rows':
where chance may leave a question open there, the finding warns and does not refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from safegen.contracts import AdmissionContext, ReleaseContext
from safegen.decision import Finding, Status
from safegen.measure.classifiers import utility_drop
from safegen.measure.clusters import asked, hang_together
from safegen.measure.measured import GROUPS
from safegen.measure.profile import named
from safegen.measure.questions import (
    FEWEST_HELD,
    QUESTIONS,
    Answer,
    comparable,
    design_effects,
    utility_judged,
)
from safegen.measure.samples import Samples, samples
from safegen.measure.verdicts import Cell, Verdict, normal_point, spent, verdict
from safegen.safeguards import again
from safegen.safeguards.schema import real_rows_missing
from safegen.tables.sources import TABLE

__all__ = ["FidelityKept"]

_SHOWN = 10
_TRAINED = 20_000  # rows that a classifier is trained on, at most

_MEAN = f"the mean's bounds by a jackknife of {GROUPS} groups, "


@dataclass(frozen=True)
class _Words:
    cells: str
    method: str
    worse: str


_WORDS = {
    "marginals": _Words(
        "columns",
        "KS or total variation; " + _MEAN + "the others' by McDiarmid 1989 and Massart "
        "1990 less what chance shows (below), by the normal law and chi² (above)",
        "the columns named have another distribution than in reality: another backend, its "
        "default distributions or more training may keep them",
    ),
    "pairs": _Words(
        "pairs",
        "total variation of joint decile bins and levels; " + _MEAN + "the others' by "
        "McDiarmid 1989 less what chance shows (below), by chi² (above)",
        "the generator loses what columns have to do with each other: try another backend, such as "
        "diffusion.tabular, or declare a constraint where one column decides another",
    ),
    "tails": _Words(
        "tails",
        "ratio of masses beyond the real quantiles; " + _MEAN + "the others' of log ratios",
        "the generator thins or swells the tails: one whose marginals are those of the data keeps "
        "them; look for clipping, a low temperature or rows chosen by a score",
    ),
    "rare": _Words(
        "rare levels",
        "ratio of shares; " + _MEAN + "the others' of log ratios",
        "rare levels lose or gain mass (#k: the k-th most frequent level in the source): another "
        "backend, or the weights that came with the rows, may keep them",
    ),
}


class FidelityKept:
    """Judges how close the staged rows are to the real ones."""

    rule: ClassVar[str] = "fidelity"
    rests_on: ClassVar[Mapping[str, Sequence[str]]] = {
        "marginals": ("column_margin", "alpha"),
        "pairs": ("pair_margin", "worst_pair", "alpha"),
        "tails": ("tail_ratio", "tail_upper", "alpha"),
        "rare": ("rare_mass", "rare_upper", "rare_level", "alpha"),
        "utility": ("utility_drop", "held_out", "alpha"),
        "real-rows": (),
    }
    on_demand: ClassVar[Mapping[str, str]] = {"utility": "held_out"}
    again = staticmethod(again.fidelity)

    def admission(self, context: AdmissionContext, params: Any) -> Sequence[Finding]:
        return ()

    def release(self, context: ReleaseContext, params: Any) -> Sequence[Finding]:
        if context.anchor is None:
            return [real_rows_missing("fidelity")]
        both = _samples(context)
        found = [_asked(context, params, check, both) for check in QUESTIONS]
        return [*found, *_utility(context, params)]


def _samples(context: ReleaseContext) -> dict[str, Samples]:
    """Both samples of each table that has columns to compare, and rows on both sides."""
    assert context.anchor is not None
    effects = design_effects(context.anchor, context.schemas)
    found = {}
    for table, schema in context.schemas.items():
        kept, made = comparable(schema), context.made.get(table)
        real = context.anchor[table]
        if kept is None or made is None or not real.num_rows or not made.table.num_rows:
            continue
        if set(kept.names) - set(made.table.column_names):
            continue  # the rule `schema` says so
        own = effects[table]
        if len(context.schemas) == 1 and own > 1:
            own = max(own, design_effects({table: made.table}, context.schemas)[table])
        found[table] = samples(
            real, made.table, kept, weights=made.weights, effects=(effects[table], own)
        )
    return found


def _asked(context: ReleaseContext, params: Any, check: str, both: dict[str, Samples]) -> Finding:
    """One question, asked of every table together."""
    answers = {table: QUESTIONS[check](found, params) for table, found in both.items()}
    words = _WORDS[check]
    missing = [t for t, s in context.schemas.items() if t not in both and comparable(s)]
    base = Finding("fidelity", check, "inconclusive", "", _required(check, params))
    if missing:
        return replace(
            base,
            observed="one side has no rows, or lacks a column: "
            f"{len(missing)} of {len(context.schemas)} tables cannot be compared",
            next_step="ask for more rows, or for conditions that real rows meet",
        )
    pooled = _in_tables(answers, "pooled")
    cells = _in_tables(answers, "cells")
    few = sum(a.few for a in answers.values())
    at_most = "warn" if hang_together(context.schemas) else base.at_most
    if not cells:
        none = f"{few} {words.cells}, all in too few rows" if few else f"there are no {words.cells}"
        return replace(
            base,
            status="inconclusive" if few else "met",
            observed=none,
            next_step=_few(context) if few else None,
            at_most=at_most,
        )
    result = verdict(pooled, cells, spent(params.alpha, context.depth))
    every = sum(a.every for a in answers.values())
    shown = sorted(result.lost or result.open, key=lambda cell: cell in result.pooled)
    worst = (shown or pooled)[0]
    return replace(
        base,
        status=result.status,
        observed=_observed(result, every, few, words)
        + (f"; {len(result.lost)} beyond the margin" if result.lost else ""),
        interval=(worst.low, worst.high),
        value=worst.value,
        of=worst.name,
        within=worst.within,
        parts=tuple(c.part for c in [*pooled, *sorted(cells, key=lambda c: -c.strain)]),
        n=sum(s.rows[1] for s in both.values()),
        method=f"{words.method}; each {_level(params)} on its side; unmet by Holm at "
        f"{spent(params.alpha, context.depth):.2g}, for depth {context.depth}",
        evidence=tuple(_told(c, params) for c in shown[:_SHOWN]),
        next_step={
            "unmet": words.worse,
            "inconclusive": _more(context) if result.due else _few(context),
        }.get(result.status),
        at_most=base.at_most if result.lost or result.due else at_most,
    )


def _in_tables(answers: dict[str, Answer], part: str) -> list[Cell]:
    return [
        replace(cell, name=_name(table, cell, part))
        for table, answer in answers.items()
        for cell in getattr(answer, part)
    ]


def _name(table: str, cell: Cell, part: str) -> str:
    """A cell's column with its table, where there are several; a figure over all of a table."""
    if part == "cells":
        return named(table, cell.name)
    return cell.name if table == TABLE else f"{cell.name} of {table}"


def _observed(result: Verdict, every: int, few: int, words: _Words) -> str:
    figures = ", ".join(f"{c.name} {c.value:.3f}" for c in result.pooled[:4])
    text = f"{figures}; {result.judged} of {len(result.cells)} {words.cells} can be judged"
    text += " for themselves"
    if every > len(result.cells):
        text += f", drawn from {every:,}"
    if few:
        text += f"; {few} more are in too few rows"
    return text


def _told(cell: Cell, params: Any) -> str:
    ends = f"{cell.low:.3f} and {cell.high:.3f}"
    return f"{cell.name}: {cell.value:.3f}, {_level(params)} bounds {ends}"


def _level(params: Any) -> str:
    return f"{100 * (1 - params.alpha):g} %"


def _few(context: ReleaseContext) -> str:
    return (
        "at this n chance may leave any generator without a verdict, as --dry-run says before "
        f"fitting: ask for more {asked(context.schemas)}, or fit on more real ones"
    )


def _more(context: ReleaseContext) -> str:
    return (
        f"ask for more {asked(context.schemas)}, or fit on more real ones; if the bounds stay on "
        "both sides of the margin, the generator is at it"
    )


def _required(check: str, params: Any) -> str:
    p = params
    return {
        "marginals": f"the mean over columns within {p.column_margin:g} of the source's, and each "
        "column that can be judged at this n",
        "pairs": f"the mean over pairs within {p.pair_margin:g} of the source's, and each pair "
        f"that can be judged at this n within {p.worst_pair:g}",
        "tails": f"{p.tail_ratio:g} to {p.tail_upper:g} times the source's mass over all 1 % and "
        "5 % tails, and in each that can be judged at this n",
        "rare": f"{p.rare_mass:g} to {p.rare_upper:g} times the source's mass over all levels of "
        f"at most 1 %, and {p.rare_level:g} to {1 / p.rare_level:g} in each that can be judged at "
        "this n",
        "utility": f"a classifier that learns from made rows loses at most {p.utility_drop:g} of "
        "its AUC",
    }[check]


def _utility(context: ReleaseContext, params: Any) -> list[Finding]:
    """What a classifier loses that learns from made rows; nothing where it is not asked, or where
    there is nothing to predict."""
    assert context.anchor is not None
    held = context.held or {}
    targets = {
        table: schema.target
        for table, schema in context.schemas.items()
        if schema.target is not None
        and schema.column(schema.target).kind in ("categorical", "boolean")
        and schema.target not in context.conditions  # then there is nothing to tell apart
    }
    rows = sum(t.num_rows for t in held.values())
    if not targets or not (params.held_out or rows):
        return []
    base = Finding("fidelity", "utility", "inconclusive", "", _required("utility", params))
    ((table, target),) = list(targets.items())[:1]
    real, made = context.anchor[table], context.made.get(table)
    kept = comparable(context.schemas[table])
    few = min(rows, real.num_rows, made.table.num_rows if made else 0)
    if few < FEWEST_HELD or made is None or kept is None or len(kept.columns) < 2:
        return [
            replace(
                base,
                observed=f"cannot be judged with {rows:,} held-out rows and "
                f"{made.table.num_rows if made else 0:,} made ones",
                next_step=f"ask for at least {FEWEST_HELD} rows"
                if rows >= FEWEST_HELD and real.num_rows >= FEWEST_HELD and made
                else f"fit on more real rows: at least {FEWEST_HELD} have to be held out; of "
                "sequences and related tables none are",
                at_most="warn" if hang_together(context.schemas) else base.at_most,
            )
        ]
    if len(held[table].column(target).unique()) < 2:
        return [replace(base, observed="the held-out rows have one level of the target")]
    weights = made.weights if made.weighted else None
    drop, error, (of_real, of_made) = utility_drop(
        held[table], real, made.table, kept, target, weights=weights, most=_TRAINED
    )
    low, high = (drop + side * normal_point(params.alpha) * error for side in (-1, 1))
    beyond = drop - normal_point(spent(params.alpha, context.depth)) * error
    due = utility_judged(held[table], target, params)
    status: Status = (
        "unmet"
        if beyond > params.utility_drop
        else "met"
        if high <= params.utility_drop
        else "inconclusive"
    )
    return [
        replace(
            base,
            status=status,
            observed=f"AUC {of_made:.3f} where real rows give {of_real:.3f}: {drop:.3f} less"
            + ("" if due else "; on so few held-out rows chance decides"),
            interval=(low, high),
            value=drop,
            of="the AUC that is lost",
            within=(None, params.utility_drop),
            n=held[table].num_rows,
            method="gradient-boosted trees trained on as many made and real rows, tested on the "
            "same real rows that neither saw; bounds by the paired influence function (DeLong et "
            f"al. 1988) for these two fits, each {_level(params)} on its side",
            next_step={
                "unmet": "what the target depends on is lost: try another backend, or train more",
                "inconclusive": "hold more rows out (held_out in the policy), or fit on more",
            }.get(status),
        )
    ]
