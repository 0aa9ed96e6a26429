"""The decisions of a ledger: which, and of one of them why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse

from safegen.console.datasets import Number, Text, named
from safegen.console.desk import Desk, DeskOf
from safegen.console.index import Contents, DecisionEntry
from safegen.console.layout import (
    banner,
    field,
    link,
    listing,
    moment,
    page,
    pager,
    select,
    tag,
)
from safegen.pages.gates import card
from safegen.pages.given import findings, finite, items, mapping, texts
from safegen.pages.html import breaking, counted, facts, section, sign, table, text
from safegen.policy import RULES

__all__ = ["api", "html", "row"]

api = APIRouter(tags=["decisions"])
html = APIRouter(include_in_schema=False)

Verdict = Literal["", "allowed", "refused", "waived"]
Gate = Literal["", "admission", "release"]
Rule = Annotated[str, Query(max_length=64, description="One that blocked, warned or was waived.")]
Digest = Annotated[str, Query(max_length=80, description="A policy's digest.")]

_RANK = {"block": 0, "waived": 1, "warn": 2, "audit": 3, "pass": 4}
_SAID = {"block": "refused", "waived": "waived", "warn": "warning", "pass": "pass"}


def _found(
    now: Contents, q: str, verdict: str, gate: str, rule: str, policy: str, page: int, size: int
) -> Any:
    return now.find_decisions(
        q,
        allowed={"allowed": True, "refused": False}.get(verdict),
        waived=True if verdict == "waived" else None,
        gate=gate or None,
        rule=rule or None,
        policy=policy or None,
        page=page,
        size=size,
    )


@api.get("/decisions", summary="Decisions, the newest first")
def all_decisions(
    desk: DeskOf,
    q: Text = "",
    verdict: Verdict = "",
    gate: Gate = "",
    rule: Rule = "",
    policy: Digest = "",
    page: Number = 1,
    size: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    found = _found(desk.index.contents(), q, verdict, gate, rule, policy, page, size)
    told = [asdict(d) for d in found.items]
    return {"decisions": told, "total": found.total, "page": found.page, "pages": found.pages}


Seq = Annotated[int, InPath(ge=1, le=2**53, description="The number of its log entry.")]


@api.get("/decisions/{seq}", summary="A decision as it was written")
def one_decision(desk: DeskOf, seq: Seq) -> dict[str, Any]:
    return {"seq": seq, **_written(desk, seq)}


def _written(desk: Desk, seq: int) -> Mapping[str, Any]:
    entry = desk.index.log_entry(seq)
    if entry is None or entry.kind != "decision":
        raise HTTPException(404, "no entry of the ledger's log with that number is a decision")
    return entry.payload


@html.get("/decisions")
def list_page(
    request: Request,
    desk: DeskOf,
    q: Text = "",
    verdict: Verdict = "",
    gate: Gate = "",
    rule: Rule = "",
    policy: Digest = "",
    page_: Annotated[int, Query(alias="page", ge=1, le=10**9)] = 1,
) -> HTMLResponse:
    now = desk.index.contents()
    found = _found(now, q, verdict, gate, rule, policy, page_, 50)
    query = {"q": q, "verdict": verdict, "gate": gate, "rule": rule, "policy": policy}
    any_ = {"": "any"}
    known = {d.policy_digest: d.policy for d in found.items}
    form = (
        '<form class="asks" role="search">'
        + field("q", "Search", q, maxlength=200, placeholder="data, policy, finding")
        + select(
            "verdict",
            "Verdict",
            verdict,
            any_ | {"refused": "refused", "allowed": "allowed", "waived": "with a waiver"},
        )
        + select("gate", "Gate", gate, any_ | {"admission": "admission", "release": "release"})
        + select("rule", "Rule", rule, any_ | {r: r for r in RULES})
        + select(
            "policy",
            "Policy",
            policy,
            any_
            | {p.digest: f"{p.name} ({p.digest[7:15]})" for p in now.policies.values()}
            | (
                {policy: known.get(policy, policy[:15])}
                if policy and policy not in now.policies
                else {}
            ),
        )
        + '<button class="main">Search</button></form>'
    )
    rows = [row(d) for d in found.items]
    return page(
        request,
        "Decisions",
        "<h1>Decisions</h1>",
        form,
        pager("/decisions", found, "decision", query),
        listing("Decisions, the newest first", HEADS, rows, "None is like that."),
        pager("/decisions", found, "decision", query) if len(rows) > 20 else "",
    )


HEADS = ("decision", "about", "because of", "policy", "when")


def row(one: DecisionEntry) -> tuple[str, ...]:
    """A line of a list of decisions."""
    verdict = sign("pass", "allowed") if one.allowed else sign("block", "refused")
    why = [tag(name, "block") for name in one.blocked]
    why += [tag(name, "warn") for name in one.warned]
    why += [tag(f"{name} waived", "warn") for name in one.waived]
    about = "<br>".join(breaking(s) for s in one.subject[:3])
    more = f"<br>and {len(one.subject) - 3} more" if len(one.subject) > 3 else ""
    return (
        f"{link('decisions', one.seq, shows=verdict)}"
        f"<small>{text(one.gate)}&nbsp;#{one.seq}</small>",
        about + more,
        " ".join(why),
        text(one.policy),
        moment(one.time),
    )


@html.get("/decisions/{seq}")
def decision_page(request: Request, desk: DeskOf, seq: Seq) -> HTMLResponse:
    now = desk.index.contents()
    said = _written(desk, seq)
    policy, gate = mapping(said.get("policy")), str(said.get("gate"))
    found = findings(said)
    allowed = said.get("allowed") is True
    blocked = [(n, f) for n, f in found.items() if f.get("outcome") == "block"]
    verdict = {"admission": "Admitted", "release": "Released"}.get(gate, "Allowed")
    named_ = f"policy {policy.get('id')} {policy.get('version')}"
    if allowed:
        warned = sum(f.get("outcome") == "warn" for f in found.values())
        waived = sum(f.get("outcome") == "waived" for f in found.values())
        doubts = [counted(n, w) for n, w in ((warned, "warning"), (waived, "waived finding")) if n]
        head = banner(
            "warn" if doubts else "pass",
            f"{verdict} by {named_}" + (f", with {' and '.join(doubts)}" if doubts else ""),
        )
    else:
        drafts = _drafts(desk, policy, [n.partition("/")[0] for n, _ in blocked])
        head = banner("block", f"Refused by {named_}", _why(blocked), _ask(policy), drafts)
    return page(
        request,
        f"Decision {seq}",
        '<p class="note"><a href="/decisions">Decisions</a></p>'
        f"<h1>{text(gate.capitalize())} decision <span class='id'>#{seq}</span></h1>",
        head,
        facts(_facts(desk, now, said)),
        _waivers(said),
        section("findings", "Findings", *(_rule(rule, found) for rule in _rules(found))),
        section("ledger", "What it was decided on", _sources(now, said), facts(_ledger(said))),
    )


def _why(blocked: list[tuple[str, Mapping[str, Any]]]) -> str:
    listed = "".join(
        f"<li><b>{text(n)}</b>: {text(f.get('observed', ''))}"
        f"<br>required: {text(f.get('required', ''))}"
        + (f"<br>next: {text(f['next_step'])}" if f.get("next_step") else "")
        + "</li>"
        for n, f in blocked
    )
    return f"<ul>{listed}</ul>"


def _ask(policy: Mapping[str, Any]) -> str:
    return f"<p>Ask: {text(policy['contact'])}</p>" if policy.get("contact") else ""


def _drafts(desk: Desk, policy: Mapping[str, Any], rules: list[str]) -> str:
    """Where an exception would be written, for rules that can have one."""
    file = file_of(desk, str(policy.get("id")))
    known = [r for r in dict.fromkeys(rules) if r in RULES]
    if file is None or not known:
        return ""
    listed = ", ".join(link("policies", file, "edit", shows=text(r), waive=r) for r in known)
    return f"<p>An exception, dated and signed off? Draft a waiver of {listed}.</p>"


def file_of(desk: Desk, policy_id: str) -> str | None:
    """The policy file that has this id, if any; one's own before a shipped one."""
    named = (f.name for f, p, _ in desk.files.listed() if p is not None and p.id == policy_id)
    return next(named, None)


def _facts(desk: Desk, now: Contents, said: Mapping[str, Any]) -> list[tuple[str, str]]:
    policy = mapping(said.get("policy"))
    digest = str(policy.get("digest", ""))
    shown = link("decisions", shows="all its decisions", policy=digest)
    if (file := file_of(desk, str(policy.get("id")))) is not None:
        shown += ", " + link("policies", file, shows="the file")
    extends = "<br>".join(f"<code>{text(d)}</code>" for d in texts(policy.get("extends")))
    return [
        ("about", "<br>".join(map(breaking, texts(said.get("subject"))))),
        ("when", moment(str(said.get("time", "")))),
        (
            "policy",
            f"{text(policy.get('id'))} {text(policy.get('version'))} ({shown})"
            f"<br><code>{text(digest)}</code>",
        ),
        *([("which extends", extends)] if extends else []),
        ("whom to ask", text(policy.get("contact", ""))),
        *(("note", text(n)) for n in texts(said.get("notes"))),
    ]


def _waivers(said: Mapping[str, Any]) -> str:
    rows = []
    for one in map(mapping, items(said.get("waivers"))):
        status = str(one.get("status"))
        kind = {"applied": "warn", "not needed": "", "expired": ""}.get(status, "")
        lowered = ", ".join(f"{k} = {v}" for k, v in mapping(one.get("params")).items())
        people = ", ".join(texts(one.get("approved_by")))
        rows.append(
            (
                link("waivers", shows=text(one.get("id", ""))),
                tag(status, kind),
                text(f"{one.get('rule', '')} {lowered}".strip()),
                text(one.get("reason", "")),
                text(people) + (f" ({text(one['signed'])})" if one.get("signed") else ""),
                text(one.get("expires", "")),
            )
        )
    heads = ("waiver", "status", "lowers", "reason", "approved by", "until")
    return section("waivers", "Waivers", listing("", heads, rows))


def _rules(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The rules that said something, the worst first."""
    worst: dict[str, int] = {}
    for name, one in found.items():
        rule = name.partition("/")[0]
        worst[rule] = min(worst.get(rule, 9), _RANK.get(str(one.get("outcome")), 3))
    return sorted(worst, key=worst.__getitem__)


def _rule(rule: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    mine = {n: f for n, f in found.items() if n.partition("/")[0] == rule}
    ranked = sorted(mine.items(), key=lambda i: _RANK.get(str(i[1].get("outcome")), 3))
    plain = [(n, f) for n, f in ranked if f.get("outcome") == "pass" and not _measured(f)]
    cards = "".join(card(n, f, None) for n, f in ranked if (n, f) not in plain)
    rows = [
        (
            f"<b>{breaking(name)}</b>{sign('pass')}",
            f"{text(one.get('observed', ''))}<br><small>required: "
            f"{text(one.get('required', ''))}</small>",
        )
        for name, one in plain
    ]
    asks = RULES[rule].asks if rule in RULES else ""
    shown = f'<div class="cards">{cards}</div>' if cards else ""
    shown += table("", ("finding", "observed"), rows, "passed") if rows else ""
    return f'<div class="rule"><h3>{text(rule)}</h3><p class="lead">{text(asks)}</p>{shown}</div>'


def _measured(finding: Mapping[str, Any]) -> bool:
    return finite(finding.get("value")) is not None


def _sources(now: Contents, said: Mapping[str, Any]) -> str:
    known = {d.logical_digest: d.dataset_id for d in now.datasets.values()}
    rows = []
    for one in map(mapping, items(said.get("sources"))):
        dataset_id = known.get(str(one.get("logical_digest")))
        rows.append(
            (
                breaking(str(one.get("uri", ""))),
                text(one.get("origin", "")),
                named(now, dataset_id) if dataset_id else "no record of these rows",
            )
        )
    return listing("Sources", ("where", "origin", "in the ledger"), rows)


def _ledger(said: Mapping[str, Any]) -> list[tuple[str, str]]:
    state = mapping(said.get("ledger"))
    searched = f"{text(state.get('url', 'none'))}"
    known = finite(state.get("datasets"))
    if known is not None:
        searched += f": {counted(int(known), 'dataset')}"
    if state.get("status") == "unreachable":
        searched += ": it could not be reached"
    rows = [("ledger searched", searched)]
    if state.get("head"):
        rows.append(("its head", f"<code>{text(state['head'])}</code>"))
    return rows
