"""Real beside made: columns, pairs, tails and rare levels, rows, images and weights."""

from __future__ import annotations

from collections.abc import Sequence

from safegen.manifest import Manifest
from safegen.measure.figures import ColumnFigures, Figures, Levels, Measured
from safegen.measure.profile import named
from safegen.pages.charts import bars, distribution, heat, interval, weight_bars
from safegen.pages.gates import forest, part_outcome
from safegen.pages.html import facts, number, percent, section, table, text, wide

__all__ = ["columns", "pairs", "samples", "tails", "weights"]

_WORST = 12
_FOREST = 40

_KEY = (
    '<p class="key"><span><svg viewBox="0 0 18 12" width="18" height="12" aria-hidden="true">'
    '<path class="real" d="M1 11V4H9V7H17V11"/></svg>real rows</span><span><svg '
    'viewBox="0 0 18 12" width="18" height="12" aria-hidden="true"><path class="made" '
    'd="M1 11V3H9V11zM9 11V6H17V11z"/></svg>synthetic rows</span></p>'
)


def columns(figures: Figures, manifest: Manifest | None) -> str:
    """A card for each column: how far it is off, and both distributions."""
    if not figures.columns:
        return ""
    gaps = {p.name: p for p in figures.parts.get("fidelity/marginals", ())}
    weighted = ", weighted" if figures.weights is not None else ""
    names = "" if figures.real_values else " #k is the k-th most frequent level in the source."
    cards = "".join(_card(c, gaps.get(named(c.table, c.name))) for c in figures.columns)
    return section(
        "columns",
        "Columns",
        _KEY,
        f'<div class="cards">{cards}</div>',
        _undrawn(figures, manifest),
        lead="Shares of rows between round numbers, and the same by ranks: there synthetic rows "
        "that are like real ones follow the diagonal. The single bars beside a chart are rows "
        f"beyond it. Synthetic rows are drawn at random{weighted}; missing values are counted "
        f"apart.{names} Below each column its distance, with its interval and what is allowed: ● "
        "inside for certain, ■ beyond, ◆ not to be told at this number of rows.",
    )


def _card(column: ColumnFigures, gap: Measured | None) -> str:
    name = named(column.table, column.name)
    inside = ""
    if column.bins is not None:
        inside = distribution(name, column.bins)
    elif column.levels is not None:
        inside = _levels(column.levels)
    else:
        inside = '<p class="note">all values are missing on one side</p>'
    if gap is not None:
        what = "KS" if column.bins is not None else "total variation"
        inside += (
            f"{interval(gap.value, gap.interval, gap.within, part_outcome(gap), label=f'{name}: ')}"
            f'<p class="note">{what} <b>{number(gap.value)}</b> ({number(gap.interval[0])} to '
            f"{number(gap.interval[1])})"
            + ("" if gap.judged else "; too few rows to judge it for itself")
            + "</p>"
        )
    rows = f"{column.rows[0]:,} real and {column.rows[1]:,} synthetic rows"
    lack = ""
    if any(column.missing):
        lack = f"; missing: {percent(column.missing[0])} and {percent(column.missing[1])}"
    return (
        f'<article class="card"><header><h3>{text(name)}</h3></header>{inside}'
        f'<p class="note">{rows}{lack}</p></article>'
    )


def _levels(levels: Levels) -> str:
    most = max([*levels.real, *levels.made, *levels.rest])
    shown = zip(levels.names, levels.real, levels.made, strict=False)
    rows = [_level(text(name), real, made, most) for name, real, made in shown]
    if levels.others:
        rows.append(_level(f"{levels.others:,} more", *levels.rest, most))
    if levels.new:
        rows.append(_level("not in the source", 0.0, levels.new, most))
    return table("", ("level", "", "real", "synth."), rows, "levels")


def _level(name: str, real: float, made: float, most: float) -> tuple[str, str, str, str]:
    return name, bars(real, made, most), percent(real), percent(made)


def _undrawn(figures: Figures, manifest: Manifest | None) -> str:
    drawn = {(c.table, c.name) for c in figures.columns}
    rest = [
        f"{named(c.table, c.name)} ({c.role})"
        for c in (manifest.columns if manifest is not None else ())
        if (c.table, c.name) not in drawn
    ]
    if not rest:
        return ""
    return (
        '<p class="note">Not drawn, for ids, personal data and images have no distribution to '
        f"keep: {text(', '.join(rest))}.</p>"
    )


def pairs(figures: Figures) -> str:
    """What columns have to do with each other: a heat map a table, and the worst pairs."""
    maps = []
    for ties in figures.ties:
        title = "" if len(figures.ties) == 1 else f"<h3>{text(ties.table)}</h3>"
        left = f" The first {len(ties.columns)} columns." if ties.left_out else ""
        maps.append(
            title
            + wide(f"Pairs of columns of {ties.table}", heat(ties))
            + f'<p class="note">{ties.rows[0]:,} real and {ties.rows[1]:,} synthetic rows.'
            f"{left}</p>"
        )
    measured = figures.parts.get("fidelity/pairs", [])
    worst = forest(measured[:_WORST], "The mean, and the pairs that are furthest off", "pair")
    return section(
        "pairs",
        "Pairs of columns",
        *maps,
        worst if measured else "",
        lead="How strongly two columns hang together (Cramér's V of deciles and levels, 0 to 1, "
        'without what chance adds). <span style="color:var(--less)">− weaker</span> and <span '
        'style="color:var(--more)">+ stronger</span> among synthetic rows than among real ones, '
        "the fuller the colour the more; signs from a difference of 0.1 on. A picture, without a "
        "test: the table below has intervals, of the total variation of both columns together. "
        "There the number is what both samples show, chance included, and the interval is about "
        "what lies behind: it may lie below the number.",
    )


def tails(figures: Figures) -> str:
    """The mass of tails and of rare levels, as ratios."""
    found = []
    for name, caption, head in (
        ("fidelity/tails", "Tails: the lower and upper 1 % and 5 % of each column", "tail"),
        ("fidelity/rare", "Rare levels: at most 1 % of the real rows, at least 30", "level"),
    ):
        parts = figures.parts.get(name, [])
        if parts:
            found.append(forest(parts[:_FOREST], caption, head))
        if len(parts) > _FOREST:
            found.append(f'<p class="note">and {len(parts) - _FOREST} more, closer to 1</p>')
    return section(
        "tails",
        "Tails and rare levels",
        *found,
        lead="The share of synthetic rows there over that of real rows: 1 is as in reality, and "
        "what collapses goes towards 0. The scale is logarithmic.",
    )


def samples(figures: Figures) -> str:
    """A few synthetic rows, and small images."""
    tables = []
    for one in figures.samples:
        rows = [[_cell(v) for v in row] for row in one.rows]
        numbered = [(str(i), *row) for i, row in enumerate(rows, 1)]
        name = "Synthetic rows" if len(figures.samples) == 1 else f"Synthetic rows of {one.table}"
        tables.append(wide(name, table(name, ("", *one.heads), numbered, "rows")))
    shown = "".join(
        f'<li><img src="data:image/{p.kind};base64,{p.data}" width="{p.width}" '
        f'height="{p.height}" alt="synthetic image {i}"></li>'
        for i, p in enumerate(figures.pictures, 1)
    )
    images = f'<ul class="pictures">{shown}</ul>' if shown else ""
    if figures.withheld:
        images += (
            f'<p class="note">{figures.withheld} of the images that were drawn are not shown: '
            "their pixels are those of a real one, or there are too many real ones to tell.</p>"
        )
    lead = "Rows drawn at random from what was released."
    if not figures.real_values:
        lead += (
            " No real value is shown: #k stands for the k-th most frequent level in the source, ▒ "
            "for a value that fewer than 30 real rows have too. The policy's "
            "<code>report: {real_values: true}</code> shows all of it; a column that is declared "
            "<code>public: true</code> is shown."
        )
    return section("sample", "Sample", *tables, images, lead=lead)


def _cell(value: str | None) -> str:
    if value is None:
        return '<span class="withheld" title="withheld">▒</span>'
    return text(value) if value else '<span class="withheld" title="missing">–</span>'


def weights(figures: Figures) -> str:
    """How differently the rows count."""
    found = figures.weights
    if found is None:
        return ""
    rows: Sequence[tuple[str, str]] = (
        ("rows", f"{found.rows:,}"),
        (
            "worth",
            f"<b>{number(round(found.effective))}</b> rows of equal weight "
            f"({percent(found.effective / max(found.rows, 1))}; Kish 1965)",
        ),
    )
    return section(
        "weights",
        "Weights",
        f"<figure>{weight_bars(found)}</figure>",
        facts(rows),
        lead="Rows of rare regions were made more often and count for less: train with "
        "<code>_safegen_weight</code>, or take <code>Dataset.resampled()</code>.",
    )
