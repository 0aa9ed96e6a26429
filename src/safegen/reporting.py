"""What a release's report draws, gathered while the real rows and the staged ones are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safegen.decision import Decision
from safegen.errors import upstream
from safegen.measure.clusters import asked
from safegen.measure.excerpts import pictures, sample
from safegen.measure.figures import Figures, Picture, column_figures, parts_of, weights_shown
from safegen.preparation import Prepared
from safegen.release import Staging
from safegen.requests import Request

if TYPE_CHECKING:
    from safegen.policy import Policy

__all__ = ["drawn_up"]


def drawn_up(
    prepared: Prepared, stage: Staging, request: Request, decision: Decision, policy: Policy
) -> Figures:
    """The figures of a release that was judged. A report is no safeguard: what cannot be drawn
    leaves a gap that the page names, and stops no release.
    """
    base = Figures(
        asked=request.rows,
        noun=asked(prepared.schemas),
        parts=parts_of(decision),
        real_values=policy.report.real_values,
    )
    try:
        return _with_rows(base, prepared, stage, request)
    except Exception as error:
        return base.model_copy(update={"problem": upstream(error)})


def _with_rows(base: Figures, prepared: Prepared, stage: Staging, request: Request) -> Figures:
    made = stage.written.drawn()
    parts, shown = prepared.parts, base.real_values
    anchor = {} if parts is None else request.meeting(parts.anchor)
    columns, ties, samples = [], [], []
    images: list[Picture] = []
    withheld = 0
    for name, drawn in made.items():
        schema = prepared.schemas[name]
        if name in anchor:
            found, tied = column_figures(name, anchor[name], drawn, schema, real_values=shown)
            columns += found
            ties += [] if tied is None else [tied]
        real = None if parts is None else parts.real(name)
        one = sample(name, drawn, real, schema, real_values=shown)
        samples += [] if one is None else [one]
        for column in schema.columns:
            if column.kind == "image" and column.name in drawn.table.column_names:
                there = None if real is None else real.column(column.name)
                more, fewer = pictures(drawn.table.column(column.name), there, real_values=shown)
                images, withheld = images + more, withheld + fewer
    return base.model_copy(
        update={
            "columns": columns,
            "ties": ties,
            "samples": samples,
            "pictures": images,
            "withheld": withheld,
            "weights": weights_shown(made, stage.written.rows, _effective(stage)),
        }
    )


def _effective(stage: Staging) -> float | None:
    """How many rows of equal weight all staged ones are worth, where they were tallied."""
    tallies = [c for t in stage.written.tallies.values() for c in t.columns.values()]
    return tallies[0].effective if tallies else None
