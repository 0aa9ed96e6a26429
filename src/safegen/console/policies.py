"""Policies: what they ask, in words and with the line that says it; and their editor."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from safegen.console.desk import Desk, DeskOf, Form, Held, Signed, Visit, said_by
from safegen.console.drafts import Draft, compared, drafted, parent_of, said_of, saved
from safegen.console.files import MAX_BYTES, PolicyFile, digest_of, lines_of, loaded
from safegen.console.layout import banner, field, hidden, link, listing, page, tag, where
from safegen.console.waiving import with_waiver
from safegen.errors import PolicyError, SafegenError
from safegen.gates import load_policy
from safegen.pages.html import breaking, counted, facts, section, text
from safegen.policy import RULES, Approver, Policy, Row, RuleParams, explain, json_schema

__all__ = ["api", "html"]

api = APIRouter(tags=["policies"])
html = APIRouter(include_in_schema=False)

Name = Annotated[str, InPath(max_length=100, description="A shipped policy, or a file's name.")]


class Text(BaseModel):
    """The text of a policy file."""

    text: str = Field(max_length=MAX_BYTES)


class Save(Text):
    """A text that is to become the file."""

    was: str = Field(max_length=80, description="`text_digest` of what the edit started from.")


# ---- JSON ----------------------------------------------------------------------------------------


@api.get("/policies", summary="The files of the folder, and the shipped policies")
def all_policies(desk: DeskOf) -> dict[str, Any]:
    found = []
    for file in desk.files.all():
        policy, problems = _tried(file)
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
    file = _file(desk, name)
    policy, problems = _tried(file)
    was = file.text()
    told = {"name": name, "text": was, "text_digest": digest_of(was), "problems": problems}
    if policy is None:
        return {**told, "effective": None, "digest": None, "values": []}
    values = [{**asdict(r), "value": _json(r.value)} for r in explain(policy)]
    return {**told, "effective": policy.effective(), "digest": policy.digest, "values": values}


@api.post("/policies/{name}/lint", summary="What is wrong with a text, with lines")
def lint(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, Any]:
    return drafted(desk, _target(desk, name), given.text).lint()


@api.post("/policies/{name}/diff", summary="What a text tightens and loosens")
def difference(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, Any]:
    return _changes(drafted(desk, _target(desk, name), given.text))


@api.post("/policies/{name}/patch", summary="A text as a patch of the file")
def patch(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, str]:
    draft = drafted(desk, _target(desk, name), given.text)
    return {"patch": desk.files.patch(draft.file, draft.text)}


@api.post("/policies/{name}", summary="Save a text as the file (--allow-edit, signed in)")
def save(desk: DeskOf, name: Name, given: Save, session: Signed) -> dict[str, Any]:
    return saved(desk, drafted(desk, _target(desk, name), given.text), given.was, said_by(session))


def _json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_json(v) for v in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def _file(desk: Desk, name: str) -> PolicyFile:
    file = desk.files.get(name)
    if file is None:
        raise HTTPException(404, "there is no such policy")
    return file


def _target(desk: Desk, name: str) -> PolicyFile:
    """The file of that name, or the new one that it would be."""
    return desk.files.get(name) or desk.files.new(name)


def _tried(file: PolicyFile) -> tuple[Policy | None, list[str]]:
    """The policy, or why it is none."""
    try:
        return loaded(file), []
    except PolicyError as error:
        return None, [str(p) for p in error.problems]
    except SafegenError as error:
        return None, [str(error)]


def _changes(draft: Draft) -> dict[str, Any]:
    """Against the file as it is, and against the policy that the text extends."""
    policy = load_policy(draft.needed())
    old, _ = _tried(draft.file) if draft.file.path.is_file() else (None, [])
    parent = parent_of(draft.file, draft.text)
    return {
        "file": None if old is None else compared(old, policy),
        "parent": None if parent is None else compared(parent, policy),
    }


# ---- pages ---------------------------------------------------------------------------------------


@html.get("/policies")
def list_page(request: Request, desk: DeskOf) -> HTMLResponse:
    now = desk.index.contents()
    rows = []
    for file in desk.files.all():
        policy, problems = _tried(file)
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
    file = _file(desk, name)
    policy, problems = _tried(file)
    head = f'<p class="note"><a href="/policies">Policies</a></p><h1>{breaking(name)}</h1>'
    edit = f'<a class="button" href="/policies/{text(name)}/edit">{_verb(desk, file)}</a>'
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
        else section("parent", "Against what it extends", _difference(compared(parent, policy))),
        _waivers(policy),
        section("values", "What it asks", *(_rule(policy, *one) for one in active), off_said),
    )


def _verb(desk: Desk, file: PolicyFile) -> str:
    if not file.own:
        return "Try a change"
    return "Edit" if desk.edit else "Try a change"


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


# ---- the editor ----------------------------------------------------------------------------------


@html.get("/policies/{name}/edit")
def editor_page(
    request: Request,
    desk: DeskOf,
    session: Visit,
    name: Name,
    waive: Annotated[str, Query(max_length=64, description="A rule to draft a waiver of.")] = "",
) -> HTMLResponse:
    file = _file(desk, name)
    was = file.text()
    shown = with_waiver(was, waive, _tried(file)[0]) if waive in RULES else was
    return _editor(request, desk, session, file, shown, digest_of(was))


@html.post("/policies/{name}/edit")
def edited(request: Request, desk: DeskOf, session: Held, name: Name, form: Form) -> Response:
    """What its buttons do: check, compare, patch, download, replay, save."""
    start, do = _file(desk, name), form.get("do", "check")
    given, was = form.get("text", ""), form.get("was", "")
    try:
        draft = drafted(desk, start, given)
        if do == "download":
            named = re.sub(r"[^A-Za-z0-9_.-]", "_", start.path.name)
            return Response(
                desk.files.patch(start, draft.text),
                media_type="text/x-diff; charset=utf-8",
                headers={"content-disposition": f'attachment; filename="{named}.patch"'},
            )
        if do == "save":
            return _save(request, desk, session, draft, form)
        shown = _checked(draft) + _done(desk, draft, do)
    except HTTPException as error:
        shown = banner("block", str(error.detail))
        return _editor(request, desk, session, start, given, was, shown, error.status_code)
    except SafegenError as error:
        shown = banner("block", str(error))
        return _editor(request, desk, session, start, given, was, shown, 422)
    return _editor(request, desk, session, start, draft.text, was, shown)


def _save(
    request: Request, desk: Desk, session: Any, draft: Draft, form: dict[str, str]
) -> Response:
    if not desk.edit or session.by is None:
        raise HTTPException(403, "saving needs --allow-edit and a login")
    name, was = form.get("name", draft.file.name), form.get("was", "")
    if name != draft.file.name:
        draft, was = drafted(desk, desk.files.new(name), draft.text), digest_of("")
    done = saved(desk, draft, was, session.by)
    said = "<p>The ledger's log has the change. Commit the file where it is kept.</p>"
    shown = banner("pass", f"Saved {name} as {draft.needed().id} {draft.needed().version}", said)
    return _editor(request, desk, session, draft.file, draft.text, done["after"], shown)


def _done(desk: Desk, draft: Draft, do: str) -> str:
    if do == "diff":
        changes = _changes(draft)
        return "".join(
            section(f"diff-{key}", title, _difference(changes[key]))
            for key, title in (
                ("file", "Against the file as it is"),
                ("parent", "Against what it extends"),
            )
            if changes[key] is not None
        )
    if do == "patch":
        patch = desk.files.patch(draft.file, draft.text)
        return section("patch", "As a patch", _patch(patch))
    return ""


def _checked(draft: Draft) -> str:
    """The problems of a text, or that it has none."""
    policy = draft.policy
    if policy is not None:
        return banner(
            "pass",
            f"A policy: {policy.id} {policy.version}",
            f"<p><code>{text(policy.digest)}</code></p>",
            *(f"<p>{text(said_of(n))}</p>" for n in draft.notes()),
        )
    listed = "".join(f"<li>{text(said_of(p))}</li>" for p in draft.problems()[:100])
    return banner("block", counted(len(draft.problems()), "problem"), f"<ul>{listed}</ul>")


_CHANGES = {"LOOSEN": "block", "TIGHTEN": "pass", "INCOMPARABLE": "warn"}


def _difference(changes: dict[str, Any]) -> str:
    rows = [
        (
            tag(d["change"].lower(), _CHANGES.get(d["change"], "")),
            breaking(d["where"]),
            _value(d["before"]),
            _value(d["after"]),
            breaking(d["origin"]),
        )
        for d in changes["differences"]
    ]
    if not rows:
        return banner("pass", "Both ask the same")
    words = {"loosens": "loosened", "tightens": "tightened", "incomparable": "not comparable"}
    said = ", ".join(f"{changes[k]} {w}" for k, w in words.items() if changes[k])
    return banner("warn" if changes["loosens"] else "audit", said) + listing(
        "", ("change", "value", "before", "after", "set by"), rows
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):  # a waiver
        return text(f"{value.get('rule')} lowered until {value.get('expires')}")
    return "none" if value is None else breaking(str(value))


def _patch(patch: str) -> str:
    if not patch:
        return banner("audit", "The file says just that: there is no change")
    shown = ""
    for line in patch.splitlines()[:5000]:
        kind = {"+": "ins", "-": "del"}.get(line[:1])
        shown += f"<{kind}>{text(line)}</{kind}>" if kind else f"{text(line)}\n"
    return f'<pre class="patch" tabindex="0" role="region" aria-label="The patch">{shown}</pre>'


def _editor(
    request: Request,
    desk: Desk,
    session: Any,
    file: PolicyFile,
    shown: str,
    was: str,
    result: str = "",
    status: int = 200,
) -> HTMLResponse:
    name = text(file.name)
    may = desk.edit and session.by is not None
    buttons = "".join(
        f'<button name="do" value="{do}">{says}</button>'
        for do, says in (
            ("check", "Check"),
            ("diff", "Compare"),
            ("replay", "Replay"),
            ("patch", "As a patch"),
            ("download", "Download the patch"),
        )
    )
    if may:
        if not file.own:
            suggested = f"{file.name.rsplit('/', 1)[-1]}-own.yaml"
            buttons += field("name", "Save as", suggested, "text", maxlength=100)
        buttons += '<button class="main" name="do" value="save">Save</button>'
    elif desk.edit:
        to = urlencode({"to": where(request)})
        buttons += f'<a class="button" href="/login?{text(to)}">Sign in to save</a>'
    lines = "".join(f"<li>{n}</li>" for n in range(1, len(lines_of(shown)) + 1))
    form = (
        f'<form method="post" action="/policies/{name}/edit" id="edit" data-name="{name}">'
        f"{hidden('token', session.token)}{hidden('was', was)}"
        '<p class="note" id="how">Keys and words are offered while you type: arrow keys and Enter '
        "take one, Escape closes the list, Ctrl+Space opens it.</p>"
        f'<div class="editor"><ol aria-hidden="true" id="lines">{lines}</ol>'
        '<textarea name="text" id="text" spellcheck="false" autocomplete="off" '
        'autocapitalize="off" wrap="off" aria-label="The text of the policy" '
        f'aria-describedby="how">\n{text(shown)}</textarea></div>'
        '<ul class="offers" id="offers" role="listbox" aria-label="Offered words"></ul>'
        '<div role="status"><ul class="found" id="found"></ul></div>'
        f'<div class="actions">{buttons}</div></form>'
    )
    return page(
        request,
        f"Edit {file.name}",
        f'<p class="note"><a href="/policies">Policies</a> / '
        f'<a href="/policies/{name}">{name}</a></p>'
        f"<h1>{_verb(desk, file)}: {breaking(file.name)}</h1>",
        result,
        form,
        scripts=("/editor.js",),
        status=status,
    )
