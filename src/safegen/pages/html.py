"""What all pages are made of: escaped text, tables, cards, and one style sheet.

Every function returns HTML that is safe to put into a page: whatever comes from outside goes
through `text`. Pages hold no script, and their policy (`Content-Security-Policy`) lets a browser
run and fetch nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from safegen.pages.style import STYLE

__all__ = [
    "breaking",
    "counted",
    "document",
    "facts",
    "number",
    "percent",
    "section",
    "sign",
    "table",
    "text",
    "wide",
]

SIGNS = {"pass": "✓", "warn": "!", "waived": "~", "block": "✗", "audit": "·"}
SAID = {
    "pass": "pass",
    "warn": "warning",
    "waived": "waived",
    "block": "refused",
    "audit": "recorded",
}

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def text(value: Any) -> str:
    """Any value as text in a page or in an attribute: nothing in it is markup, and no sign in it
    turns what stands beside it around."""
    plain = "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in str(value)
    )
    return escape(plain)


def breaking(name: str) -> str:
    """A name that may be broken after its dots, slashes and underscores."""
    return re.sub(r"([._/])", r"\1<wbr>", text(name))


def number(value: Any) -> str:
    """A number for people; a dash for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    if 0 < abs(value) < 1e-3:
        tiny = f"{value:.2g}" if abs(value) < 1e-6 else f"{value:.6f}".rstrip("0")
        return tiny.replace("-", "−")
    return f"{value:.3g}".replace("-", "−")


def percent(share: float) -> str:
    """A share as a percentage, exact enough for rare levels."""
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.1f} %" if share >= 0.00995 else f"{100 * share:.2f} %"


def counted(n: int, noun: str) -> str:
    """So many of something."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def sign(outcome: str, word: str = "") -> str:
    """An outcome as a sign and a word: colour alone says nothing."""
    known = outcome if outcome in SIGNS else "audit"
    mark = f'<span class="mark {known}" aria-hidden="true">{SIGNS[known]}</span>'
    return f'<span class="outcome {known}">{mark}{text(word or SAID[known])}</span>'


def section(id_: str, heading: str, *body: str, lead: str = "") -> str:
    """A section with its heading; nothing where it has no body. lead: HTML."""
    inside = "".join(body)
    if not inside:
        return ""
    said = f'<p class="lead">{lead}</p>' if lead else ""
    return (
        f'<section id="{id_}" aria-labelledby="{id_}-h"><h2 id="{id_}-h">{text(heading)}</h2>'
        f"{said}{inside}</section>"
    )


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what there is to say of them; the second of each pair is HTML."""
    return (
        '<dl class="facts">'
        + "".join(f"<div><dt>{text(k)}</dt><dd>{v}</dd></div>" for k, v in rows)
        + "</dl>"
    )


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table whose first column names its rows. Cells are HTML; heads and caption are text."""
    head = "".join(f'<th scope="col">{text(h)}</th>' for h in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    said = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<table class="{kind}">{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    )


def wide(label: str, inside: str) -> str:
    """What may be wider than the page: it scrolls by itself, by keyboard too."""
    return f'<div class="wide" role="region" aria-label="{text(label)}" tabindex="0">{inside}</div>'


def document(title: str, head: str, sections: str, links: Sequence[tuple[str, str]] = ()) -> str:
    """A page of its own. links: id and name of the sections that can be gone to."""
    listed = "".join(f'<li><a href="#{id_}">{text(name)}</a></li>' for id_, name in links)
    nav = f'<nav aria-label="Sections"><ul>{listed}</ul></nav>' if listed else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{head}{nav}{sections}</main></body></html>\n"
    )
