"""Line charts as SVG, for a page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Chart", "Line"]

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 30, 44
COLOURS = ("#0b7285", "#c92a2a", "#e8590c", "#5f3dc4", "#2b8a3e", "#1864ab", "#a61e4d", "#495057")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
TICKS = 5


@dataclass(frozen=True)
class Line:
    """A curve with its band, and the theory's as a dotted one. `style` picks colour and dash."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    theory: Sequence[float] = ()
    style: int = 0


@dataclass(frozen=True)
class Chart:
    """Curves over one axis; `says` is read out instead of the picture."""

    title: str
    across: str
    says: str
    lines: Sequence[Line] = field(default_factory=tuple)

    def svg(self) -> str:
        """The chart as one SVG element."""
        xs = [x for line in self.lines for x in line.x]
        ys = [
            y
            for line in self.lines
            for y in (*line.y, *line.low, *line.high, *line.theory)
            if math.isfinite(y)
        ]
        if not xs or not ys:
            return ""
        across = _Axis.of(xs, LEFT, WIDTH - RIGHT)
        up = _Axis.of(ys, HEIGHT - BOTTOM, TOP)
        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.says)}">',
            f'<text x="{LEFT}" y="18" class="title">{escape(self.title)}</text>',
        ]
        for value, at in up.ticks():
            parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" class="grid"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" class="left">{value:g}</text>')
        for value, at in across.ticks():
            parts.append(
                f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" class="mid">{value:g}</text>'
            )
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(
            f'<text x="{middle}" y="{HEIGHT - 8}" class="mid">{escape(self.across)}</text>'
        )
        for line in self.lines:
            parts += _drawn(line, across, up)
        return "".join([*parts, "</svg>"])


def legend(lines: Sequence[Line]) -> str:
    """What the curves are, as HTML."""
    keys = "".join(
        f'<li><svg viewBox="0 0 28 10" aria-hidden="true"><path d="M0 5H28" {_stroke(line)}/></svg>'
        f"{escape(line.name)}</li>"
        for line in lines
    )
    return f'<ul class="legend">{keys}</ul>'


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = min(values), max(values)
        margin = (high - low) * 0.04 or abs(high) * 0.05 or 0.5
        return cls(low - margin, high + margin, start, end)

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[tuple[float, float]]:
        rough = (self.high - self.low) / TICKS
        size = 10 ** math.floor(math.log10(rough))
        step = min((s * size for s in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(round(i * step, 12), self.at(i * step)) for i in range(first, last + 1)]


def _stroke(line: Line) -> str:
    colour = COLOURS[line.style % len(COLOURS)]
    dash = DASHES[line.style // len(COLOURS) % len(DASHES)]
    width = 'stroke-width="2" stroke-linecap="round"'
    return f'fill="none" stroke="{colour}" {width} stroke-dasharray="{dash}"'


def _drawn(line: Line, across: _Axis, up: _Axis) -> list[str]:
    def path(values: Sequence[float]) -> str:
        pairs = zip(line.x, values, strict=True)
        kept = [f"{across.at(x):.1f} {up.at(y):.1f}" for x, y in pairs if math.isfinite(y)]
        return "M" + "L".join(kept) + ("h.1" if len(kept) == 1 else "")

    parts = []
    if len(line.low):
        there = path(line.low)
        back = "L".join(reversed(path(line.high)[1:].split("L")))
        colour = COLOURS[line.style % len(COLOURS)]
        parts.append(f'<path d="{there}L{back}Z" fill="{colour}" opacity="0.12"/>')
    if len(line.theory):
        parts.append(f'<path d="{path(line.theory)}" class="theory"/>')
    parts.append(f'<path d="{path(line.y)}" {_stroke(line)}/>')
    return parts
