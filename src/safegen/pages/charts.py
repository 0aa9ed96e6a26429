"""Small charts as SVG: intervals, bins, ranks, bars and a heat map; each says in words what it
shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from safegen.measure.figures import Bins, Weights
from safegen.measure.scales import Tick
from safegen.measure.ties import Ties
from safegen.pages.html import number, percent, text

__all__ = ["Axis", "bars", "distribution", "heat", "interval", "weight_bars"]

Within = tuple[float | None, float | None]

BANDS = ((0.2, 0.95), (0.1, 0.6), (0.05, 0.3), (0.02, 0.12))
"""Differences from which on a cell of the heat map is coloured so strongly."""


def _svg(width: float, height: float, says: str, inside: str, kind: str = "") -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" aria-label="{text(says)}">{inside}</svg>'
    )


def _at(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Axis:
    """Where numbers stand between `start` and `end`; ratios on a logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    ratio: bool = False

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, ratio: bool = False) -> Axis:
        """An axis that holds all these numbers, and 0 (of ratios 1)."""
        every = [*values, 1.0 if ratio else 0.0]
        if ratio:
            every = [math.log(max(v, 0.01)) for v in every]
        low, high = min(every), max(every)
        room = (high - low) * 0.06 or 0.5
        return cls(low - (room if low < 0 else 0), high + room, start, end, ratio)

    def at(self, value: float) -> float:
        if self.ratio:
            value = math.log(max(value, 0.01))
        share = (value - self.low) / (self.high - self.low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def is_ratio(within: Within) -> bool:
    """Whether a margin is one of ratios: it has two ends, both above 0."""
    return within[0] is not None and within[0] > 0 and within[1] is not None


def interval(
    value: float,
    ends: tuple[float, float],
    within: Within,
    outcome: str,
    *,
    axis: Axis | None = None,
    label: str = "",
    width: float = 300,
) -> str:
    """A number with its interval beside what is allowed. Without an axis of its own the margin is
    written below it."""
    shapes = {"pass": "pass", "warn": "warn", "waived": "warn", "block": "block"}
    known = shapes.get(outcome, "audit")
    margins = [m for m in within if m is not None]
    own = axis or Axis.over([value, *ends, *margins], 6, width - 6, is_ratio(within))
    height, y = (18, 9) if axis else (40, 14)
    top, bottom = y - 8, y + 8
    parts = []
    if margins:
        left = own.start if within[0] is None else own.at(within[0])
        right = own.end if within[1] is None else own.at(within[1])
        parts.append(
            f'<rect class="zone" x="{_at(left)}" y="{top}" width="{_at(max(right - left, 1))}" '
            f'height="16"/>'
        )
    parts.append(f'<path class="axis" d="M{_at(own.start)} {y}H{_at(own.end)}"/>')
    parts += [f'<path class="edge" d="M{_at(own.at(m))} {top - 1}V{bottom + 1}"/>' for m in margins]
    a, b = own.at(ends[0]), own.at(ends[1])
    parts.append(
        f'<path class="iv {known}" d="M{_at(a)} {y}H{_at(max(b, a + 0.5))}'
        f'M{_at(a)} {y - 4}v8M{_at(b)} {y - 4}v8"/>'
    )
    parts.append(_point(own.at(value), y, known))
    if axis is None:
        parts += [
            _label(x, words, width) for x, words in _margins(within, [own.at(m) for m in margins])
        ]
    return _svg(width, height, f"{label}{said(value, ends, within)}", "".join(parts))


def _margins(within: Within, places: Sequence[float]) -> list[tuple[float, str]]:
    """What is written below the ends of a margin: one text where they are close."""
    words = [
        f"{mark} {number(m)}" for m, mark in zip(within, ("≥", "≤"), strict=True) if m is not None
    ]
    if len(places) == 2 and places[1] - places[0] < 90:
        return [(sum(places) / 2, f"{number(within[0])} to {number(within[1])}")]
    return list(zip(places, words, strict=True))


def _label(x: float, words: str, width: float) -> str:
    side = "end" if x > width * 0.8 else "" if x < width * 0.2 else "mid"
    return f'<text class="{side}" x="{_at(x)}" y="36">{text(words)}</text>'


def said(value: float, ends: tuple[float, float], within: Within) -> str:
    """The same in words."""
    allowed = {
        (False, False): "",
        (True, False): f"; at least {number(within[0])} is asked for",
        (False, True): f"; at most {number(within[1])} is allowed",
        (True, True): f"; {number(within[0])} to {number(within[1])} is allowed",
    }[within[0] is not None, within[1] is not None]
    return f"{number(value)}, interval {number(ends[0])} to {number(ends[1])}{allowed}"


def _point(x: float, y: float, outcome: str) -> str:
    """The shape says the outcome too."""
    cls = f'class="pt {outcome}"'
    if outcome == "pass":
        return f'<circle {cls} cx="{_at(x)}" cy="{y}" r="5"/>'
    if outcome == "warn":
        return f'<path {cls} d="M{_at(x)} {y - 7}l6.5 12h-13z"/>'
    if outcome == "block":
        return f'<rect {cls} x="{_at(x - 5)}" y="{y - 5}" width="10" height="10"/>'
    return f'<path {cls} d="M{_at(x)} {y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>'


# ---- distributions -------------------------------------------------------------------------------


def distribution(name: str, bins: Bins) -> str:
    """Bins of made rows as bars with those of real rows as a line, and both by their ranks."""
    left, right, top, floor = 36.0, 218.0, 14.0, 104.0
    outside = [
        (share, where)
        for share, where in ((bins.below, "below"), (bins.above, "above"))
        if max(share) >= 0.0005
    ]
    most = max([*bins.real, *bins.made, *(s for pair, _ in outside for s in pair), 1e-9])
    gaps = {where: 12.0 for _, where in outside}
    start, end = left + gaps.get("below", 0.0), right - gaps.get("above", 0.0)
    step = (end - start) / max(len(bins.made), 1)

    def up(share: float) -> float:
        return floor - (floor - top) * share / most

    parts = [
        f'<path class="axis" d="M{_at(left)} {_at(floor)}H{_at(right)}"/>',
        f'<path class="grid" d="M{_at(left)} {_at(top)}H{_at(right)}"/>',
        f'<text class="end" x="{_at(left - 4)}" y="{_at(top + 4)}">{_short(most)}</text>',
    ]
    bars_, line = [], f"M{_at(start)} {_at(floor)}"
    for i, (real, made) in enumerate(zip(bins.real, bins.made, strict=False)):
        if made:
            height = max(floor - up(made), 0.8)
            bars_.append(
                f"M{_at(start + i * step)} {_at(floor)}v{_at(-height)}h{_at(step)}v{_at(height)}z"
            )
        line += f"V{_at(up(real))}H{_at(start + (i + 1) * step)}"
    parts.append(f'<path class="made" d="{"".join(bars_) or "M0 0"}"/>')
    for (real, made), where in outside:
        x = left if where == "below" else right - 8
        height = max(floor - up(made), 0.8)
        parts.append(
            f'<rect class="made" x="{_at(x)}" y="{_at(floor - height)}" width="8" '
            f'height="{_at(height)}"/>'
        )
        parts.append(
            f'<path class="real" d="M{_at(x)} {_at(floor)}V{_at(up(real))}h8V{_at(floor)}"/>'
        )
    parts.append(f'<path class="real" d="{line}V{_at(floor)}"/>')
    parts += _ticks(bins.ticks, start, end, floor)
    parts.append(_ranks(bins))
    return _svg(
        340,
        124,
        f"{name}: {len(bins.made)} bins of real and made rows; {_outside(outside)}and the shares "
        f"of both up to {len(bins.ranks)} quantiles of the made rows, at most "
        f"{percent(max((abs(a - b) for a, b in bins.ranks), default=0.0))} apart",
        "".join(parts),
    )


def _outside(outside: Sequence[tuple[tuple[float, float], str]]) -> str:
    return "".join(
        f"{percent(real)} of the real and {percent(made)} of the made rows {where}; "
        for (real, made), where in outside
    )


def _short(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.0995 else f"{100 * share:.2g}%"


def _ticks(ticks: Sequence[Tick], start: float, end: float, floor: float) -> list[str]:
    parts, last = [], -math.inf
    for place, name in ticks:
        x = start + place * (end - start)
        half = 3.1 * len(name)
        if x - half < last + 4:
            continue
        last = x + half
        parts.append(
            f'<path class="axis" d="M{_at(x)} {_at(floor)}v4"/><text class="mid" x="{_at(x)}" '
            f'y="{_at(floor + 16)}">{text(name)}</text>'
        )
    return parts


def _ranks(bins: Bins) -> str:
    """Real against made rows by their ranks: on the diagonal where both are alike."""
    x0, x1, y0, y1 = 244.0, 334.0, 104.0, 14.0
    points = [(0.0, 0.0), *bins.ranks, (1.0, 1.0)]
    path = "L".join(
        f"{_at(x0 + made * (x1 - x0))} {_at(y0 - real * (y0 - y1))}" for real, made in points
    )
    return (
        f'<rect class="grid" x="{x0}" y="{y1}" width="{x1 - x0}" height="{y0 - y1}"/>'
        f'<path class="same" d="M{x0} {y0}L{x1} {y1}"/><path class="curve" d="M{path}"/>'
        f'<text class="mid" x="{(x0 + x1) / 2}" y="{y0 + 16}">ranks</text>'
    )


def bars(real: float, made: float, most: float) -> str:
    """Two shares as bars, one above the other."""
    most = most or 1.0
    a, b = (max(100 * share / most, 0.6) for share in (real, made))
    return (
        '<svg viewBox="0 0 102 16" width="102" height="16" aria-hidden="true" '
        f'preserveAspectRatio="none"><rect class="real" x="1" y="1.5" width="{_at(a)}" height="5"/>'
        f'<rect class="made" x="1" y="9" width="{_at(b)}" height="5.5"/></svg>'
    )


def weight_bars(weights: Weights) -> str:
    """A histogram of the rows' weights."""
    left, right, top, floor = 36.0, 330.0, 12.0, 100.0
    most = max([*weights.shares, 1e-9])
    step = (right - left) / max(len(weights.shares), 1)
    path = "".join(
        f"M{_at(left + i * step)} {_at(floor)}v{_at(-max((floor - top) * s / most, 0.8))}"
        f"h{_at(step)}V{_at(floor)}z"
        for i, s in enumerate(weights.shares)
        if s
    )
    inside = (
        f'<path class="axis" d="M{left} {floor}H{right}"/><path class="made" d="{path}"/>'
        f'<text class="end" x="{left - 4}" y="{top + 4}">{_short(most)}</text>'
        + "".join(_ticks(weights.ticks, left, right, floor))
    )
    return _svg(340, 122, f"The weights of {weights.rows:,} rows in bins", inside)


# ---- pairs ---------------------------------------------------------------------------------------


def heat(ties: Ties) -> str:
    """How much stronger or weaker each pair of columns hangs together in the made rows."""
    names, size = (
        ties.columns,
        24 if len(ties.columns) <= 16 else 18 if len(ties.columns) <= 24 else 13,
    )
    label = min(max(len(n) for n in names), 18) * 6.2 + 26
    width, height = label + size * (len(names) - 1) + 4, size * (len(names) - 1) + 20
    parts = []
    for (i, j), real, made in zip(
        combinations(range(len(names)), 2), ties.real, ties.made, strict=False
    ):
        gap = made - real
        x, y = label + i * size, (j - 1) * size + 2
        strength = next((s for least, s in BANDS if abs(gap) >= least), 0.0)
        colour = "var(--less)" if gap < 0 else "var(--more)"
        fill = f'fill="{colour}" fill-opacity="{strength}"' if strength else 'fill="var(--grid)"'
        says = f"{names[i]} × {names[j]}: {real:.2f} in real rows, {made:.2f} in made ones"
        parts.append(
            f'<rect class="cell" x="{_at(x)}" y="{y}" width="{size}" height="{size}" {fill}>'
            f"<title>{text(says)}</title></rect>"
        )
        if abs(gap) >= 0.1:
            mark = "−" if gap < 0 else "+"
            parts.append(
                f'<text class="on" x="{_at(x + size / 2)}" y="{_at(y + size * 0.72)}">{mark}</text>'
            )
    for k, name in enumerate(names):
        if k:
            short = name if len(name) <= 18 else name[:17] + "…"
            parts.append(
                f'<text class="end" x="{_at(label - 4)}" y="{_at((k - 0.3) * size + 2)}">'
                f"{k + 1} {text(short)}</text>"
            )
        if k < len(names) - 1:
            parts.append(
                f'<text class="mid" x="{_at(label + (k + 0.5) * size)}" '
                f'y="{_at(size * (len(names) - 1) + 15)}">{k + 1}</text>'
            )
    gaps = [abs(a - b) for a, b in zip(ties.real, ties.made, strict=False)]
    far = sum(g >= 0.1 for g in gaps)
    return _svg(
        round(width, 1),
        height,
        f"Of {len(gaps)} pairs of columns {far} differ by 0.1 or more in Cramér's V between real "
        f"and made rows; the largest difference is {max(gaps, default=0.0):.2f}",
        "".join(parts),
        "heat",
    )
