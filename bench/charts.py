"""Line charts as SVG, both axes logarithmic: how something grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Panel", "drawn"]

WIDTH, HEIGHT = 360, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 34, 62
COLOURS = ("#c0392b", "#1f6f8b", "#6a4c93", "#2e7d32", "#b8860b")
MARKS = ("circle", "square", "triangle", "diamond", "bar")


@dataclass(frozen=True)
class Panel:
    """One chart: its title, what is along x and y, and the points of each line, in order of x."""

    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Axis:
    """Where numbers stand between two places, on a scale of logarithms."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Axis:
        low, high = math.log10(min(values)), math.log10(max(values))
        room = max((high - low) * 0.06, 0.12)
        return cls(low - room, high + room, start, end)

    def at(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Powers of ten, and as many between as make three."""
        found: list[float] = []
        for steps in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
            found = [
                step * 10.0**power
                for power in range(math.floor(self.low), math.ceil(self.high) + 1)
                for step in steps
                if self.low <= math.log10(step * 10.0**power) <= self.high
            ]
            if len(found) >= 3:
                break
        return found


def drawn(panels: Sequence[Panel], across: int = 2) -> str:
    """All charts in one picture, `across` in a row; those without two points are left out."""
    there = [p for p in panels if any(len(line) > 1 for line in p.lines.values())]
    down = -(-len(there) // across)
    width, height = WIDTH * min(across, len(there) or 1), HEIGHT * max(down, 1)
    body = "".join(
        f'<g transform="translate({WIDTH * (i % across)} {HEIGHT * (i // across)})">'
        f"{_panel(panel)}</g>"
        for i, panel in enumerate(there)
    )
    says = "; ".join(f"{p.title}, {p.y} by {p.x}" for p in there) or "nothing was measured"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(says)}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#222">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{body}</svg>\n'
    )


def _panel(panel: Panel) -> str:
    points = [p for line in panel.lines.values() for p in line]
    across = _Axis.over([x for x, _ in points], LEFT, WIDTH - RIGHT)
    up = _Axis.over([y for _, y in points], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<text x="{LEFT}" y="18" font-weight="600" font-size="13">{escape(panel.title)}</text>'
    ]
    for value in across.ticks():
        x = across.at(value)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        parts.append(_text(x, HEIGHT - BOTTOM + 14, _short(value), "middle"))
    for value in up.ticks():
        y = up.at(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        parts.append(_text(LEFT - 5, y + 4, _short(value), "end"))
    frame = f"M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"
    parts.append(f'<path d="{frame}" fill="none" stroke="#777"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(_text(middle, HEIGHT - BOTTOM + 28, panel.x, "middle"))
    turned = f"translate(13 {(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(panel.y)}</text>')
    left = LEFT - 20.0
    for i, (name, line) in enumerate(panel.lines.items()):
        colour, mark = COLOURS[i % len(COLOURS)], MARKS[i % len(MARKS)]
        places = [(across.at(x), up.at(y)) for x, y in line]
        if not places:
            continue
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        parts += [_mark(mark, x, y, colour) for x, y in places]
        parts.append(_mark(mark, left, HEIGHT - 14, colour))
        parts.append(_text(left + 7, HEIGHT - 10, name, "start"))
        left += 24 + 6.2 * len(name)
    return "".join(parts)


def _mark(kind: str, x: float, y: float, colour: str) -> str:
    """Told apart by their forms too, for who does not tell colours apart."""
    if kind == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="{colour}"/>'
    forms = {
        "square": "M-3 -3H3V3H-3Z",
        "triangle": "M0 -4L4 3H-4Z",
        "diamond": "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",
        "bar": "M-1.4 -5H1.4V5H-1.4Z",
    }
    place = f"translate({x:.1f} {y:.1f})"
    return f'<path d="{forms[kind]}" transform="{place}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def _short(value: float) -> str:
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
