"""Which clauses of which framework each rule serves, and the ledger's last evidence for each."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import Desk, DeskOf
from safegen.console.files import tried
from safegen.console.layout import banner, day, link, listing, page, select, tag
from safegen.pages.html import breaking, section, sign, text
from safegen.policy import Policy
from safegen.policy.controls import NOTICE, Control, controls_table
from safegen.policy.matrix import Cell, Last, matrix

__all__ = ["api", "html"]

api = APIRouter(tags=["controls"])
html = APIRouter(include_in_schema=False)

Framework = Annotated[str, Query(max_length=40, description="One framework only.")]
Under = Annotated[str, Query(max_length=100, description="A policy file, whose gaps are shown.")]


def _cells(desk: Desk, framework: str, under: str) -> list[Cell]:
    table = controls_table()
    if framework and framework not in table.frameworks:
        raise HTTPException(404, "there is no such framework")
    return matrix(table.of(framework or None), desk.newest.last(), _policy(desk, under))


def _policy(desk: Desk, name: str) -> Policy | None:
    if not name:
        return None
    file = desk.files.get(name)
    policy = None if file is None else tried(file)[0]
    if policy is None:
        raise HTTPException(404, "there is no such policy")
    return policy


@api.get("/controls", summary="Framework, clause, rule, and the last evidence for it")
def all_controls(desk: DeskOf, framework: Framework = "", policy: Under = "") -> dict[str, Any]:
    table = controls_table()
    return {
        "version": table.version,
        "date": table.date,
        "notice": NOTICE,
        "frameworks": dict(table.frameworks),
        "cells": [asdict(c) for c in _cells(desk, framework, policy)],
    }


@html.get("/controls")
def controls_page(
    request: Request, desk: DeskOf, framework: Framework = "", policy: Under = ""
) -> HTMLResponse:
    table = controls_table()
    cells = _cells(desk, framework, policy)
    names = {f.name: f.name for f in desk.files.all()}
    form = (
        '<form class="asks">'
        + select("framework", "Framework", framework, {"": "all", **table.frameworks})
        + select("policy", "Gaps of policy", policy, {"": "none", **names})
        + '<button class="main">Show</button></form>'
    )
    gaps = {c.control.name: c.gap for c in cells if c.gap is not None}
    clauses = len({c.control.name for c in cells})
    said = f"{clauses - len(gaps)} of {clauses} clauses have evidence"
    return page(
        request,
        "Controls",
        "<h1>Controls</h1>",
        f'<p class="lead">Which clause each rule speaks to, and what the ledger last showed for '
        f"it. {text(NOTICE)}</p>",
        form,
        banner("warn" if gaps else "pass", said),
        *(
            section(f"f-{key}", table.frameworks[key], _listed(list(of)))
            for key, of in groupby(cells, lambda c: c.control.framework)
        ),
        f'<p class="note">Table {text(table.version)} of {text(table.date)}.</p>',
    )


def _listed(cells: list[Cell]) -> str:
    rows = []
    for _, of in groupby(cells, lambda c: c.control.clause):
        for number, cell in enumerate(of):
            one = cell.control
            sure = "" if one.sure == "direct" else " <small>a part of it</small>"
            off = f" {tag('off', 'warn')}" if cell.active is False else ""
            rows.append(
                (
                    _clause(one, cell.gap) if number == 0 else _again(one),
                    f"<b>{text(one.rule)}</b>{off}{sure}",
                    text(one.gives),
                    _evidence(cell.last),
                )
            )
    return listing("", ("clause", "rule", "what it contributes", "last evidence"), rows)


def _clause(one: Control, gap: str | None) -> str:
    doubt = f" {tag('unverified')}" if one.check else ""
    missing = f"<small>{tag('gap', 'block')} {text(gap)}</small>" if gap else ""
    return f'{breaking(one.clause)}{doubt}<span class="note">{text(one.asks)}</span>{missing}'


def _again(one: Control) -> str:
    return f'<span class="note">{breaking(one.clause)}</span>'


def _evidence(last: Last | None) -> str:
    if last is None:
        return tag("none yet", "warn")
    known = {"applied": "pass"}.get(last.outcome, last.outcome)
    shown = sign(known, "applied" if last.outcome == "applied" else "")
    where = link("decisions", last.entry, shows=f"#{last.entry}")
    return f"{shown}<small>{day(last.time)} {text(last.policy)} {where}</small>"
