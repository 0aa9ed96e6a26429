"""The lineage graph: the whole ledger, or a part of it, as a drawing, as JSON and as a table.

The layout is made here (`drawing`); `lineage.js` puts it on the page, and moves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response

from safegen.console.desk import DeskOf
from safegen.console.drawing import drawing
from safegen.console.layout import day, field, hidden, link, listing, page, select, tag
from safegen.console.marks import Asked, Drawing, Mark
from safegen.pages.html import counted, number, text

__all__ = ["api", "html"]

api = APIRouter(tags=["lineage"])
html = APIRouter(include_in_schema=False)

DEEPEST = 6  # depths from here on have one colour
_ORIGINS = {
    "": "any",
    "real": "real",
    "synthetic": "synthetic",
    "mixed": "mixed",
    "unknown": "unknown",
}
_Day = Annotated[str, Query(pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="A day, as YYYY-MM-DD.")]
_Key = Annotated[
    str, Query(max_length=600, description="A dataset's id, or the key of a missing source.")
]


def _asked(
    q: Annotated[str, Query(max_length=200, description="Words of what is pointed out.")] = "",
    origin: Literal["", "real", "synthetic", "mixed", "unknown"] = "",
    since: _Day = "",
    until: _Day = "",
    component: _Key = "",
    root: _Key = "",
    at: _Key = "",
    skip: Annotated[int, Query(ge=0, le=10**9)] = 0,
    most: Annotated[int, Query(ge=20, le=400, description="Marks, about.")] = Asked.most,
) -> Asked:
    return Asked(
        q,
        origin or None,
        since or None,
        until or None,
        component or None,
        root or None,
        at or None,
        skip,
        most,
    )


AskedFor = Annotated[Asked, Depends(_asked)]


@api.get("/lineage", summary="The lineage graph of the whole ledger, laid out, or a part of it")
def lineage(desk: DeskOf, asked: AskedFor) -> dict[str, Any]:
    return drawing(desk.index.contents(), asked).to_json()


@html.get("/lineage.js")
def script() -> Response:
    return _file("lineage.js", "text/javascript")


@html.get("/lineage.css")
def sheet() -> Response:
    return _file("lineage.css", "text/css")


def _file(name: str, kind: str) -> Response:
    body = (files("safegen.console") / name).read_bytes()
    return Response(body, media_type=f"{kind}; charset=utf-8")


@html.get("/lineage")
def lineage_page(request: Request, desk: DeskOf, asked: AskedFor) -> HTMLResponse:
    now = desk.index.contents()
    drawn = drawing(now, asked)
    return page(
        request,
        "Lineage",
        '<link rel="stylesheet" href="/lineage.css">',
        f"<h1>Lineage</h1>{_lead(drawn, asked)}",
        _form(asked),
        _way(drawn, asked, now.names),
        _stage(drawn),
        _legend(),
        _table(drawn, asked),
        scripts=("/lineage.js",),
        wide=True,
    )


def _lead(drawn: Drawing, asked: Asked) -> str:
    about = f"{drawn.datasets:,} of {drawn.total:,} datasets"
    if drawn.datasets == drawn.total:
        about = "All " + counted(drawn.total, "dataset")
    missing = counted(drawn.missing, "source") + " of which no record is known"
    parts = [about, *([missing] if drawn.missing else [])]
    if asked.at is None:
        apart = f"{drawn.components:,} parts that nothing connects"
        parts.append(apart if drawn.components != 1 else "all connected")
    if asked.q.strip():
        parts.append(f"{drawn.found:,} found")
    return f'<p class="lead">{text("; ".join(parts))}.</p>'


def _form(asked: Asked) -> str:
    kept = "".join(
        hidden(k, v) for k, v in (("root", asked.root), ("component", asked.component)) if v
    )
    return (
        '<form class="asks" action="/lineage">'
        + field("q", "Point out", asked.q, maxlength=200)
        + select("origin", "Origin", asked.origin or "", _ORIGINS)
        + field("since", "Registered from", asked.since or "", "date")
        + field("until", "to", asked.until or "", "date")
        + f'{kept}<button class="main">Draw</button></form>'
    )


def _way(drawn: Drawing, asked: Asked, names: Mapping[str, str]) -> str:
    """What is looked at, and the ways back."""
    base = {k: v for k, v in vars(asked).items() if v and k in ("q", "origin", "since", "until")}
    steps = [link("lineage", shows="Whole ledger", **base)]
    for what, key in (("Around", asked.root), ("All that is connected to", asked.component)):
        if key:
            base |= {"root" if what == "Around" else "component": key}
            shown = text(names.get(key, key[:26]))
            steps.append(link("lineage", shows=f"{what} {shown}", **base))
    steps += [link("lineage", shows=text(n), at=key, **base) for key, n in drawn.trail]
    if asked.skip:
        steps.append(f"<span>without the {asked.skip:,} largest</span>")
    if len(steps) == 1:
        return ""
    listed = "".join(f"<li>{s}</li>" for s in steps)
    return f'<nav class="way" aria-label="Part of the ledger"><ol>{listed}</ol></nav>'


def _stage(drawn: Drawing) -> str:
    if not drawn.marks:
        return '<p class="note">Nothing to draw: no dataset passes.</p>'
    return (
        '<div class="stage" id="stage">'
        '<div class="moves" role="group" aria-label="Move the drawing">'
        '<button type="button" data-move="in" aria-label="Larger">+</button>'
        '<button type="button" data-move="out" aria-label="Smaller">−</button>'
        '<button type="button" data-move="fit">All</button></div>'
        '<p class="waiting">The drawing needs JavaScript; the table below says the same.</p></div>'
        '<div class="facts-of" id="facts-of" role="status"></div>'
        f'<pre hidden id="drawn">{text(json.dumps(drawn.to_json()))}</pre>'
        '<p class="note">Drag, or arrow keys from mark to mark. Wheel, + and −: larger and '
        "smaller; 0: all of it. Enter opens.</p>"
    )


def _legend() -> str:
    def item(inside: str, says: str) -> str:
        drawn = (
            f'<svg viewBox="-11 -11 22 22" width="22" height="22" aria-hidden="true">{inside}</svg>'
        )
        return f"<li>{drawn}<span>{says}</span></li>"

    round_, last = '<circle class="shape d{}" r="8"/>', f"{DEEPEST} or more"
    depths = [
        item('<rect class="shape d0" x="-8" y="-8" width="16" height="16"/>', "depth 0, real")
    ]
    depths += [
        item(round_.format(d), f"depth {d if d < DEEPEST else last}") for d in range(1, DEEPEST + 1)
    ]
    marks = [
        item('<path class="shape d2" d="M0-10 10 0 0 10-10 0Z"/>', "mixed"),
        item(
            '<rect class="shape missing" x="-8" y="-8" width="16" height="16"/>',
            "no record, or unknown",
        ),
        item('<circle class="shape d2 doubt" r="8"/>', "broken line: unverified"),
        item(
            '<circle class="shape d2" r="8"/><path class="cross" d="M-9-9 9 9M9-9-9 9"/>',
            "crossed out: withdrawn, or made from it",
        ),
        item(
            '<circle class="shape d2" cx="4" r="6.5"/><circle class="shape d2" cx="-2" r="8"/>',
            "several, with their number",
        ),
        item('<path class="line" d="M-10 0H10"/>', "made from"),
        item('<path class="line other" d="M-10 0H10"/>', "and from this, too"),
        item('<path class="line backward" d="M-10 0H10"/>', "manifests contradict each other"),
    ]
    return f'<ul class="legend" aria-label="Signs">{"".join(depths + marks)}</ul>'


def _table(drawn: Drawing, asked: Asked) -> str:
    """The same as the drawing, for those who do not see it."""
    sources: dict[int, list[str]] = {}
    for one in drawn.lines:
        sources.setdefault(one.target, []).append(drawn.marks[one.source].name)
    rows = (
        (
            _linked(mark, asked),
            ("at least " if mark.at_least else "") + f"{mark.depth:,}",
            text(mark.origin),
            _states(mark),
            text(_few(sources.get(n, []))),
            number(mark.rows),
            day(mark.registered) if mark.registered else "",
        )
        for n, mark in sorted(enumerate(drawn.marks), key=lambda m: (m[1].y, m[1].x))
    )
    heads = ("dataset or group", "depth", "origin", "state", "made from", "rows", "registered")
    table = listing("What is drawn, row by row", heads, rows)
    return f'<details class="told"><summary>The drawing as a table</summary>{table}</details>'


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _linked(mark: Mark, asked: Asked) -> str:
    found = f" {tag('found', 'warn')}" if mark.found else ""
    if mark.kind == "dataset":
        return link("datasets", str(mark.key), shows=text(mark.name)) + found
    if mark.kind == "missing":
        return text(mark.name) + found
    kept = {k: v for k, v in vars(asked).items() if v and k not in ("at", "skip", "most")}
    asks = urlencode({**kept, "at": mark.at or "", "skip": mark.skip})
    return f'<a href="/lineage?{text(asks)}">{text(mark.name)}</a>{found}'


def _states(mark: Mark) -> str:
    """What speaks against its use."""
    group = mark.kind == "group"

    def said(count: int, word: str, kind: str) -> str:
        return tag(f"{count:,} {word}" if group else word, kind) if count else ""

    withdrawn = "withdrawn" if mark.own or group else "made from what was withdrawn"
    found = (
        said(mark.withdrawn, withdrawn, "block"),
        said(mark.expired, "expired", "block"),
        said(mark.unverified, "unverified", "warn"),
        said(mark.claimed, "claimed by another ledger", "warn"),
        tag("no record", "warn") if mark.kind == "missing" else "",
    )
    return " ".join(f for f in found if f)
