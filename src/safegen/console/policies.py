"""Policies: what they ask, in words and with the line that says it; and their editor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from safegen.console.comparing import compared, difference
from safegen.console.desk import Desk, DeskOf
from safegen.console.drafts import existing, parent_of
from safegen.console.files import PolicyFile, digest_of, tried
from safegen.console.layout import banner, link, listing, page, tag
from safegen.pages.html import breaking, counted, facts, section, text
from safegen.policy import Approver, Policy, Row, RuleParams, explain, json_schema

__all__ = ["Name", "api", "html", "verb"]

api = APIRouter(tags=["policies"])
html = APIRouter(include_in_schema=False)

Name = Annotated[str, InPath(max_length=100, description="A shipped policy, or a file's name.")]


# ---- JSON ----------------------------------------------------------------------------------------


@api.get("/policies", summary="The files of the folder, and the shipped policies")
def all_policies(desk: DeskOf) -> dict[str, Any]:
    found = []
    for file, policy, problems in desk.files.listed():
        found.append(
            {
                "name": file.name,
                "own": file.own,
                "id": policy and policy.id,
                "version": policy and policy.version,
                "digest": policy and policy.digest,
                "description": policy and policy.description,
                "problems": problems,
            }
        )
    return {"policies": found}


@api.get("/policies/schema", summary="The JSON Schema of policy files")
def schema() -> dict[str, Any]:
    return json_schema()


@api.get("/policies/{name}", summary="A policy: its text, and every value with who set it")
def one_policy(desk: DeskOf, name: Name) -> dict[str, Any]:
    file = existing(desk, name)
    policy, problems = tried(file)
    was = file.text()
    told = {"name": name, "text": was, "text_digest": digest_of(was), "problems": problems}
    if policy is None:
        return {**told, "effective": None, "digest": None, "values": []}
    values = [{**asdict(r), "value": _json(r.value)} for r in explain(policy)]
    return {**told, "effective": policy.effective(), "digest": policy.digest, "values": values}


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(v) for v in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


# ---- pages ---------------------------------------------------------------------------------------


@html.get("/policies")
def list_page(request: Request, desk: DeskOf) -> HTMLResponse:
    now = desk.index.contents()
    rows = []
    for file, policy, problems in desk.files.listed():
        if policy is None:
            state = tag(counted(len(problems), "problem"), "block")
            said = ("", "", state, "")
        else:
            used = now.policies.get(policy.digest)
            count = "none" if used is None else f"{used.decisions:,}, {used.refusals:,} refused"
            shown = link("decisions", shows=count, policy=policy.digest) if used else count
            waived = counted(len(policy.waivers), "waiver") if policy.waivers else ""
            said = (text(policy.version), text(policy.description), waived, shown)
        where = "" if file.own else "<small>shipped</small>"
        first = link("policies", file.name, shows=breaking(file.name))
        rows.append((f"{first}{where}", *said))
    lead = (
        "no folder was named (<code>--policies FOLDER</code>): these are the shipped ones."
        if desk.files.folder is None
        else f"the files of <code>{text(desk.files.folder)}</code>, then the shipped ones."
    )
    return page(
        request,
        "Policies",
        "<h1>Policies</h1>",
        f'<p class="lead">What data has to be, before it is trained on and before it goes out: '
        f"{lead} The files stay the source of truth.</p>",
        listing("Policies", ("policy", "version", "what for", "state", "decisions"), rows),
    )


@html.get("/policies/{name}")
def policy_page(request: Request, desk: DeskOf, name: Name) -> HTMLResponse:
    file = existing(desk, name)
    policy, problems = tried(file)
    head = f'<p class="note"><a href="/policies">Policies</a></p><h1>{breaking(name)}</h1>'
    edit = f'<a class="button" href="/policies/{text(name)}/edit">{verb(desk, file)}</a>'
    if policy is None:
        listed = "".join(f"<li>{text(p)}</li>" for p in problems)
        shown = banner("block", "This file is no policy: it admits nothing", f"<ul>{listed}</ul>")
        return page(request, name, head, shown, f'<p class="actions">{edit}</p>')
    parent = parent_of(file, file.text())
    rows = explain(policy)
    by_rule = [(rule, list(mine)) for rule, mine in groupby(rows, lambda r: r.rule)]
    off = [r for r, _ in by_rule if r in policy.rules and policy.rule(r).severity == "off"]
    active = [(r, m) for r, m in by_rule if r not in off]
    off_said = f'<p class="note">Off: {text(", ".join(off))}.</p>' if off else ""
    return page(
        request,
        name,
        head,
        f'<p class="lead">{text(policy.description)}</p>',
        f'<p class="actions">{edit}<a class="button" '
        f'href="/decisions?policy={text(policy.digest)}">Its decisions</a></p>',
        facts(_facts(policy)),
        ""
        if parent is None
        else section("parent", "Against what it extends", difference(compared(parent, policy))),
        _waivers(policy),
        section("values", "What it asks", *(_rule(policy, *one) for one in active), off_said),
    )


def _facts(policy: Policy) -> list[tuple[str, str]]:
    rows = [
        ("id and version", text(f"{policy.id} {policy.version}")),
        ("digest", f"<code>{text(policy.digest)}</code>"),
        ("whom to ask", text(policy.contact)),
    ]
    if policy.owner:
        rows.append(("owner", text(policy.owner)))
    if policy.extends:
        behind = "<br>".join(
            f"{text(a.id)} {text(a.version)} <code>{text(a.digest)}</code>" for a in policy.extends
        )
        rows.append(("extends", behind))
    if policy.locked:
        rows.append(("locked", text(", ".join(policy.locked)) + ": whoever extends it may tighten"))
    return rows


def _rule(policy: Policy, rule: str, rows: Sequence[Row]) -> str:
    """One rule: what it asks, and each of its values."""
    listed = []
    for r in rows:
        unit = "" if r.unit == "choice" else f" {r.unit}"
        value = _shown(r.value)
        default = r.origin == "default"
        order = f" {r.tighter[:1].upper()}{r.tighter[1:]}." if "none" not in r.tighter else ""
        if "<" in r.tighter:
            order = f" From loose to tight: {r.tighter}."
        meaning = f'{text(r.doc)}<span class="note">{text(order)}</span>'
        shown = f"<b>{breaking(value or 'none')}</b>{text(unit)}"
        where = "default" if default else breaking(re.split(r"[\\/]", r.origin)[-1])
        listed.append((breaking(r.parameter), shown, meaning, where))
    params, asks, title = policy.parts[rule], "", text(rule)
    if isinstance(params, RuleParams):
        at = " and ".join(sorted(params.gates)) or "shapes rows, decides nothing"
        kind = {"enforce": "block", "warn": "warn"}.get(params.severity, "")
        title += f' {tag(params.severity, kind)} <span class="note">{text(at)}</span>'
        asks = f'<p class="lead">{text(params.asks)}</p>'
    return (
        f'<div class="rule"><h3>{title}</h3>{asks}'
        + listing("", ("parameter", "value", "what it means", "set by"), listed)
        + "</div>"
    )


def _shown(value: Any) -> str:
    """A value for people: 0, not 0.0; of an approver the name."""
    if isinstance(value, Approver):
        return value.name
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _waivers(policy: Policy) -> str:
    rows = [
        (
            link("waivers", shows=text(w.id)),
            text(f"{w.rule}: " + ", ".join(f"{k} = {v}" for k, v in w.params.items())),
            text(w.expires),
            text(w.reason),
        )
        for w in policy.waivers
    ]
    heads = ("waiver", "lowers", "until", "reason")
    return section("waivers", "Waivers", listing("", heads, rows))


def verb(desk: Desk, file: PolicyFile) -> str:
    if not file.own:
        return "Try a change"
    return "Edit" if desk.edit else "Try a change"
