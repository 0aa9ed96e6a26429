"""The datasets of a ledger: all of them, one of them, its report, and whether it still verifies."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import Desk, DeskOf, Held, Visit
from safegen.console.index import Contents, DatasetEntry
from safegen.console.layout import (
    banner,
    field,
    hidden,
    link,
    listing,
    moment,
    page,
    pager,
    select,
    tag,
)
from safegen.console.verifying import Id, both, verified
from safegen.ledger import Record
from safegen.pages.gates import verdict_of
from safegen.pages.given import items, mapping, texts
from safegen.pages.html import breaking, counted, facts, number, percent, section, sign, text

__all__ = ["api", "html", "named", "tags"]

api = APIRouter(tags=["datasets"])
html = APIRouter(include_in_schema=False)

Text = Annotated[str, Query(max_length=200, description="Words that all have to occur.")]
Number = Annotated[int, Query(ge=1, le=10**9, description="Which page.")]
Origin = Literal["", "real", "synthetic", "mixed", "unknown"]
Statement = Literal["", "release", "attestation", "derivation"]
State = Literal["", "usable", "withdrawn"]


# ---- what there is -------------------------------------------------------------------------------


@api.get("/datasets", summary="Datasets, the newest first")
def all_datasets(
    desk: DeskOf,
    q: Text = "",
    origin: Origin = "",
    statement: Statement = "",
    state: State = "",
    page: Number = 1,
    size: Annotated[int, Query(ge=1, le=500)] = 50,
) -> dict[str, Any]:
    now = desk.index.contents()
    found = _found(now, q, origin, statement, state, page, size)
    told = [{**_told(d), "name": now.names.get(d.dataset_id)} for d in found.items]
    return {"datasets": told, "total": found.total, "page": found.page, "pages": found.pages}


@api.get("/datasets/{dataset_id}", summary="A dataset with its manifest")
def one_dataset(desk: DeskOf, dataset_id: Id) -> dict[str, Any]:
    now = desk.index.contents()
    entry, record = both(desk, now, dataset_id)
    withdrawn = now.withdrawn.get(dataset_id)
    return {
        **_told(entry),
        "name": now.names.get(dataset_id),
        "withdrawn": None if withdrawn is None else asdict(withdrawn),
        "made_from": list(now.sources_of.get(dataset_id, ())),
        "made_into": now.made_from.get(dataset_id, []),
        "decisions": [d.seq for d in now.decisions_about(entry)],
        "manifest": record.manifest,
    }


@api.post("/datasets/{dataset_id}/verify", summary="Verify its files, where they lie here")
def verify_dataset(desk: DeskOf, dataset_id: Id, session: Held) -> dict[str, Any]:
    return verified(desk, dataset_id)


def _found(
    now: Contents, q: str, origin: str, statement: str, state: str, page: int, size: int = 50
) -> Any:
    return now.find_datasets(
        q,
        origin=origin or None,
        statement=statement or None,
        withdrawn={"usable": False, "withdrawn": True}.get(state),
        page=page,
        size=size,
    )


def _told(entry: DatasetEntry) -> dict[str, Any]:
    return {**asdict(entry), "expired": entry.expired, "verified": entry.verified}


# ---- pages ---------------------------------------------------------------------------------------


@html.get("/datasets")
def list_page(
    request: Request,
    desk: DeskOf,
    q: Text = "",
    origin: Origin = "",
    statement: Statement = "",
    state: State = "",
    page_: Annotated[int, Query(alias="page", ge=1, le=10**9)] = 1,
) -> HTMLResponse:
    now = desk.index.contents()
    found = _found(now, q, origin, statement, state, page_)
    query = {"q": q, "origin": origin, "statement": statement, "state": state}
    form = (
        '<form class="asks" role="search">'
        + field("q", "Search", q, maxlength=200, placeholder="id, name, backend, policy, person")
        + select("origin", "Origin", origin, _options("real", "synthetic", "mixed", "unknown"))
        + select("statement", "Stated by", statement, _options(*_STATED, shown=_STATED))
        + select("state", "State", state, _options("usable", "withdrawn"))
        + '<button class="main">Search</button></form>'
    )
    rows = [_row(now, d) for d in found.items]
    return page(
        request,
        "Datasets",
        "<h1>Datasets</h1>",
        form,
        pager("/datasets", found, "dataset", query),
        listing("Datasets, the newest first", _HEADS, rows, "None is like that."),
        pager("/datasets", found, "dataset", query) if len(rows) > 20 else "",
    )


_HEADS = ("dataset", "what", "rows", "depth", "policy", "registered")
_STATED = {"release": "a release", "attestation": "an attestation", "derivation": "a derivation"}


def _options(*words: str, shown: dict[str, str] | None = None) -> dict[str, str]:
    return {"": "any", **{w: (shown or {}).get(w, w) for w in words}}


def named(now: Contents, dataset_id: str) -> str:
    """A dataset as a link: its name where it has one, and its id."""
    name = now.names.get(dataset_id)
    shown = f"<b>{breaking(name)}</b> " if name else ""
    return link("datasets", dataset_id, shows=f'{shown}<span class="id">{text(dataset_id)}</span>')


def tags(now: Contents, entry: DatasetEntry) -> str:
    """What is to be known before it is used."""
    found = []
    if (one := now.withdrawn.get(entry.dataset_id)) is not None:
        own = one.dataset_id == entry.dataset_id
        found.append(tag("withdrawn" if own else "source withdrawn", "block"))
    if entry.expired:
        found.append(tag("expired", "block"))
    if entry.claimed:
        found.append(tag("claimed elsewhere", "warn"))
    if entry.ancestry != "attested":
        found.append(tag("unverified", "warn"))
    if entry.signed:
        found.append(tag("signed", "pass"))
    return " ".join(found)


def _row(now: Contents, entry: DatasetEntry) -> tuple[str, ...]:
    by = entry.backend or entry.by
    least = "≥ " if entry.depth_is_lower_bound else ""
    return (
        f"{named(now, entry.dataset_id)}<small>{tags(now, entry)}</small>",
        f"{text(entry.origin)}, {text(entry.statement)}"
        + (f"<small>by {text(by)}</small>" if by else ""),
        number(entry.rows),
        f"{least}{entry.depth}",
        text(entry.policy or ""),
        moment(entry.registered),
    )


@html.get("/datasets/{dataset_id}")
def dataset_page(request: Request, desk: DeskOf, session: Visit, dataset_id: Id) -> HTMLResponse:
    return _page(request, desk, dataset_id, session.token)


@html.post("/datasets/{dataset_id}")
def verify_page(request: Request, desk: DeskOf, session: Held, dataset_id: Id) -> HTMLResponse:
    try:
        done = verified(desk, dataset_id)
    except HTTPException as error:
        if error.status_code != 409:
            raise
        return _page(request, desk, dataset_id, session.token, banner("warn", str(error.detail)))
    if done["verified"]:
        shown = banner("pass", "Verified just now", f"<p>{text(done['says'])}</p>")
    else:
        listed = "".join(f"<li>{text(p)}</li>" for p in done["problems"])
        shown = banner("block", "NOT VERIFIED: do not use this dataset", f"<ul>{listed}</ul>")
    where = f'<p class="note">{text(done["place"])}</p>'
    return _page(request, desk, dataset_id, session.token, shown + where)


def _page(
    request: Request, desk: Desk, dataset_id: str, token: str, above: str = ""
) -> HTMLResponse:
    now = desk.index.contents()
    entry, record = both(desk, now, dataset_id)
    manifest = record.manifest
    name = now.names.get(dataset_id)
    title = text(name) if name else f'Dataset <span class="id">{text(dataset_id)}</span>'
    actions = (
        f'<form class="actions" method="post" action="/datasets/{dataset_id}">'
        f'{hidden("token", token)}<button class="main">Verify now</button>'
        f"{_button(f'/datasets/{dataset_id}/report', 'Report')}"
        f"{_button(f'/lineage?root={dataset_id}', 'Lineage')}</form>"
    )
    shown = json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True)
    return page(
        request,
        f"Dataset {name or dataset_id}",
        f'<p class="note"><a href="/datasets">Datasets</a></p><h1>{title}</h1>',
        above,
        *_banners(now, entry),
        actions,
        facts(_facts(now, entry, record)),
        _sources(now, entry),
        _made(now, entry),
        _decisions(now, entry, record),
        section(
            "manifest",
            "Manifest",
            f"<details><summary>{len(shown):,} characters of JSON</summary>"
            f"<pre>{text(shown[:200_000])}</pre></details>",
        ),
    )


def _button(to: str, says: str) -> str:
    return f'<a class="button" href="{text(to)}">{text(says)}</a>'


def _banners(now: Contents, entry: DatasetEntry) -> list[str]:
    found = []
    if (one := now.withdrawn.get(entry.dataset_id)) is not None:
        said = f"<p>On {moment(one.time)} by {text(one.by)}: {text(one.reason)}</p>"
        if one.dataset_id == entry.dataset_id:
            found.append(banner("block", "Withdrawn: do not use this dataset", said))
        else:
            said += f"<p>{named(now, one.dataset_id)}</p>"
            found.append(banner("block", "Not to be used: what it comes from was withdrawn", said))
    if entry.expired:
        found.append(banner("block", f"Expired on {entry.expires}: its statement counts no more"))
    if entry.claimed:
        said = f"ledger {str(entry.imported_from)[:8]}"
        found.append(banner("warn", f"No more than a claim of {said}: nobody states it here"))
    if entry.ancestry != "attested":
        found.append(
            banner("warn", "Ancestry unverified: its depth is a lower bound, and it claims nothing")
        )
    return found


def _facts(now: Contents, entry: DatasetEntry, record: Record) -> list[tuple[str, str]]:
    least = "at least " if entry.depth_is_lower_bound else ""
    share = "not known"
    if entry.synthetic_rows is not None and entry.rows:
        share = percent(entry.synthetic_rows / entry.rows)
    stated = f"{entry.statement} on {entry.created[:10]}"
    if entry.by:
        stated += f" by {entry.by}"
    rows = [
        ("id", f'<span class="id">{text(entry.dataset_id)}</span>'),
        ("origin", text(entry.origin)),
        ("stated", text(stated)),
        ("rows", f"{number(entry.rows)}, of them synthetic: {share}"),
        ("depth", f"{least}{entry.depth}, effective {least}{entry.effective_depth:.3g}"),
        ("signed", "yes" if entry.signed else "no"),
        ("registered", f"{moment(entry.registered)}, log entry {entry.seq:,}"),
    ]
    if entry.backend:
        rows.insert(3, ("made by", text(entry.backend)))
    if entry.policy:
        digest = f"<br><code>{text(entry.policy_digest or '')}</code>"
        rows.append(("policy", text(entry.policy) + digest))
    if entry.place:
        rows.append(("from", text(entry.place)))
    if entry.license:
        rows.append(("licence", text(entry.license)))
    if entry.expires:
        rows.append(("valid until", text(entry.expires)))
    rows += [("warning", text(w)) for w in texts(record.manifest.get("warnings"))]
    for claim in map(mapping, items(record.manifest.get("claims"))):
        said = f"{claim.get('definition')}: {claim.get('observed')} ({claim.get('test')})"
        rows.append(("claimed", text(said)))
    rows.append(("digest of rows", f"<code>{text(entry.logical_digest)}</code>"))
    rows.append(("digest of manifest", f"<code>{text(entry.manifest_digest)}</code>"))
    return rows


def _sources(now: Contents, entry: DatasetEntry) -> str:
    rows = []
    for key, source in zip(now.sources_of.get(entry.dataset_id, ()), entry.sources, strict=False):
        known = now.datasets.get(key)
        first = named(now, key) if known else breaking(source.uri or "a source without a name")
        said = tags(now, known) if known else tag("no record here", "warn")
        rows.append((first, text(source.origin), number(source.rows), str(source.depth), said))
    heads = ("source", "origin", "rows", "depth", "state")
    return section("sources", "Made from", listing("Its sources", heads, rows))


def _made(now: Contents, entry: DatasetEntry) -> str:
    made = now.made_from.get(entry.dataset_id, [])
    rows = [_row(now, now.datasets[one]) for one in made[:50]]
    more = f'<p class="note">and {len(made) - 50:,} more</p>' if len(made) > 50 else ""
    return section(
        "made", "Made from it", listing(counted(len(made), "dataset"), _HEADS, rows), more
    )


def _decisions(now: Contents, entry: DatasetEntry, record: Record) -> str:
    own = items(record.manifest.get("decisions"))
    rows = []
    for one in map(mapping, own):
        allowed, _, warned = verdict_of([one])
        policy = mapping(one.get("policy"))
        rows.append(
            (
                sign("pass" if allowed else "block", "allowed" if allowed else "refused"),
                text(one.get("gate", "")),
                text(f"{policy.get('id')} {policy.get('version')}"),
                counted(warned, "warning") if warned else "",
                moment(str(one.get("time", ""))),
            )
        )
    heads = ("verdict", "gate", "policy", "findings", "when")
    made = listing("Under which it was made", heads, rows)
    about = now.decisions_about(entry)[-50:]
    later = [
        (
            link("decisions", d.seq, shows=f"allowed {d.seq}" if d.allowed else f"refused {d.seq}"),
            text(d.gate),
            text(d.policy),
            text(", ".join((*d.blocked, *d.warned))),
            moment(d.time),
        )
        for d in reversed(about)
    ]
    return section("decisions", "Decisions", made, listing("About its rows", heads, later))
