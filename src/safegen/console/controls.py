"""Which clauses of which framework each rule serves, and the last evidence of it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import DeskOf
from safegen.console.index import Contents
from safegen.console.layout import link, listing, moment, page
from safegen.pages.html import section, text
from safegen.policy import RULES

__all__ = ["api", "html"]

api = APIRouter(tags=["controls"])
html = APIRouter(include_in_schema=False)


def _matrix(now: Contents) -> dict[str, tuple[int, str]]:
    """Of each rule the last decision in which it was asked is not known to the index; of those that
    blocked, warned or were waived it is."""
    found: dict[str, tuple[int, str]] = {}
    for decision in now.decisions:
        for rule in decision.rules:
            found[rule] = (decision.seq, decision.time)
    return found


@api.get("/controls", summary="Rules, and the last decision in which each had something to say")
def all_controls(desk: DeskOf) -> dict[str, Any]:
    last = _matrix(desk.index.contents())
    return {"rules": [{"rule": r, "last": last.get(r, (None, None))[0]} for r in RULES]}


@html.get("/controls")
def controls_page(request: Request, desk: DeskOf) -> HTMLResponse:
    last = _matrix(desk.index.contents())
    rows = [
        (
            text(rule),
            text(params.asks),
            link("decisions", last[rule][0], shows=moment(last[rule][1])) if rule in last else "",
        )
        for rule, params in RULES.items()
    ]
    heads = ("rule", "what it asks", "last decision that it spoke in")
    return page(
        request,
        "Controls",
        "<h1>Controls</h1>",
        section("rules", "Rules", listing("", heads, rows)),
    )
