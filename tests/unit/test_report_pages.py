"""Reports as pages: small, in order, readable without colour and by ear."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from safegen.manifest import Manifest
from safegen.measure.drawn import Drawn
from safegen.measure.excerpts import sample
from safegen.measure.figures import Figures, Measured, column_figures
from safegen.pages import Standing, report
from safegen.pages.charts import interval, said
from safegen.pages.gates import part_outcome
from safegen.pages.html import number, percent
from safegen.pages.style import STYLE
from safegen.tables.schema import infer_schema

OLD = Path(__file__).parents[1] / "releases" / "0.1.0" / "dataset"


def wide(columns: int) -> Figures:
    """Figures of a table of so many columns, numbers, dates and levels, with everything judged."""
    rng = np.random.default_rng(0)
    n = 400
    data: dict[str, Any] = {}
    for i in range(columns):
        kinds = (rng.lognormal(size=n), rng.integers(0, 30, n), rng.choice([*"abcdefgh"], n))
        data[f"column number {i}"] = kinds[i % 3]
    table = pa.table(data)
    schema = infer_schema(table, {})
    made = Drawn(table.take(rng.integers(0, n, n)), np.ones(n))
    found, ties = column_figures("table", table, made, schema, real_values=False)
    rows = sample("table", made, table, schema, real_values=False)

    def part(name: str, margin: tuple[float | None, float | None]) -> Measured:
        return Measured(name=name, value=0.9, interval=(0.5, 1.3), within=margin, judged=True)

    names = list(data)
    return Figures(
        asked=n,
        noun="rows",
        columns=found,
        ties=[] if ties is None else [ties],
        samples=[] if rows is None else [rows],
        parts={
            "fidelity/marginals": [part(name, (None, 0.95)) for name in names],
            "fidelity/pairs": [part(f"{a} × {a}", (None, 0.4)) for a in names * 2],
            "fidelity/tails": [part(f"{a}#low 1%", (0.8, 1.25)) for a in names * 4][:400],
            "fidelity/rare": [part(f"{a}#3", (0.5, 2.0)) for a in names * 4][:400],
        },
    )


@pytest.fixture(scope="module")
def page() -> str:
    return report(Manifest.read(OLD), wide(12), None)


class Outline(HTMLParser):
    """Headings, ids, links, pictures and header cells of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.levels: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.pictures: list[dict[str, str | None]] = []
        self.heads: list[dict[str, str | None]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if re.fullmatch(r"h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if tag == "a":
            self.links.append(str(found["href"]))
        if tag in ("svg", "img"):
            self.pictures.append({"tag": tag, **found})
        if tag == "th":
            self.heads.append(found)


def test_a_page_can_be_read_by_ear(page: str) -> None:
    outline = Outline(page)
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    steps = zip(outline.levels, outline.levels[1:], strict=False)
    assert all(later <= before + 1 for before, later in steps)
    assert len(outline.ids) == len(set(outline.ids))
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids)
    assert len(outline.pictures) > 40
    for picture in outline.pictures:
        spoken = picture.get("aria-label") or picture.get("alt")
        assert (picture.get("role") == "img" and spoken) or picture.get("aria-hidden") == "true"
    assert outline.heads
    assert all(head.get("scope") in ("col", "row") for head in outline.heads)
    assert 'lang="en"' in page


def test_a_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert "<script" not in page
    assert "<link" not in page
    assert not re.search(r"url\(|@import|src=\"(?!data:)", page)
    assert "Content-Security-Policy" in page


def test_a_hundred_columns_stay_small() -> None:
    page = report(Manifest.read(OLD), wide(100), None)
    assert page.count('class="card"') >= 100
    assert 100_000 < len(page.encode()) < 3_000_000


def test_a_dataset_of_an_older_version_has_a_page_too() -> None:
    page = report(Manifest.read(OLD), None, None, Standing(True, "UNSIGNED"))
    assert "holds no comparison" in page
    assert "schema/missingness" in page
    assert "UNSIGNED" in page


# ---- colours -------------------------------------------------------------------------------------


def _palettes() -> list[dict[str, str]]:
    """The light and the dark one; the dark one has what it does not say from the light one."""
    blocks = re.findall(r":root\{([^}]*)\}", STYLE)
    light, dark = (dict(re.findall(r"--(\w+):(#\w+)", b)) for b in blocks[:2])
    return [light, {**light, **dark}]


def _luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2, 1.4.3."""
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", _palettes(), ids=["light", "dark"])
def test_contrast_is_sufficient(palette: dict[str, str]) -> None:
    words = ("ink", "soft", "pass", "warn", "block", "audit", "less", "more")
    for ground in ("bg", "card"):
        for word in words:
            assert _contrast(palette[word], palette[ground]) >= 4.5, (word, ground)
        for drawn in ("made", "real"):
            assert _contrast(palette[drawn], palette[ground]) >= 3, (drawn, ground)
    for outcome in ("pass", "warn", "block"):
        assert _contrast(palette["ink"], palette[f"{outcome}bg"]) >= 4.5
        assert _contrast(palette["soft"], palette[f"{outcome}bg"]) >= 4.5
        assert _contrast(palette[outcome], palette["zone"]) >= 3  # the mark on what is allowed
    assert _contrast(palette["edge"], palette["zone"]) >= 3


# ---- drawings ------------------------------------------------------------------------------------


def _x(svg: str, pattern: str) -> float:
    found = re.search(pattern, svg)
    assert found is not None, svg
    return float(found.group(1))


@pytest.mark.parametrize(
    ("value", "ends", "within", "inside"),
    [
        (0.02, (0.01, 0.03), (None, 0.05), True),
        (0.08, (0.06, 0.1), (None, 0.05), False),
        (0.5, (0.4, 0.6), (0.8, 1.25), False),
        (1.0, (0.9, 1.1), (0.8, 1.25), True),
        (-0.01, (-0.015, 0.0), (-0.02, 0.02), True),
        (0.9, (0.85, 0.95), (0.8, None), True),
    ],
)
def test_a_number_stands_inside_its_margin_or_outside(
    value: float, ends: Any, within: Any, inside: bool
) -> None:
    svg = interval(value, ends, within, "pass")
    start = _x(svg, r'class="zone" x="([\d.]+)"')
    end = start + _x(svg, r'class="zone"[^>]* width="([\d.]+)"')
    point = _x(svg, r'<circle class="pt pass" cx="([\d.]+)"')
    assert (start <= point <= end) is inside
    assert said(value, ends, within) in svg


def test_outcomes_differ_by_shape() -> None:
    shapes = {
        outcome: re.findall(r"<(\w+) class=\"pt", interval(0.1, (0, 0.2), (None, 1), outcome))
        for outcome in ("pass", "warn", "block")
    }
    assert shapes == {"pass": ["circle"], "warn": ["path"], "block": ["rect"]}


@pytest.mark.parametrize(
    ("ends", "within", "outcome"),
    [
        ((0.1, 0.2), (None, 0.3), "pass"),
        ((0.1, 0.4), (None, 0.3), "audit"),
        ((0.4, 0.5), (None, 0.3), "block"),
        ((0.4, 0.5), (0.8, 1.2), "block"),
        ((0.7, 0.9), (0.8, 1.2), "audit"),
        ((0.9, 1.1), (0.8, 1.2), "pass"),
    ],
)
def test_parts_are_inside_beyond_or_open(ends: Any, within: Any, outcome: str) -> None:
    part = Measured(name="a", value=sum(ends) / 2, interval=ends, within=within, judged=True)
    assert part_outcome(part) == outcome


def test_numbers_are_written_for_people() -> None:
    told = [0, 3, 48842, 0.00439, 0.0000333, -0.0043, 12345.6, True, "x", float("inf"), None]
    assert [number(x) for x in told] == [
        "0", "3", "48,842", "0.00439", "0.000033", "−0.0043", "12,346", "–", "–", "–", "–"
    ]  # fmt: skip
    assert [percent(x) for x in (0, 0.00001, 0.0004, 0.0123, 0.5)] == [
        "0 %", "< 0.01 %", "0.04 %", "1.2 %", "50.0 %"
    ]  # fmt: skip
