"""The editor of policies: lint, comparison, replay, patch, and saving; as JSON and as a page."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from safegen.console.comparing import compared, difference
from safegen.console.desk import Desk, DeskOf, Form, Held, Signed, Visit, said_by
from safegen.console.drafts import Draft, drafted, existing, parent_of, said_of, saved, target
from safegen.console.files import MAX_BYTES, PolicyFile, digest_of, lines_of, tried
from safegen.console.layout import banner, field, hidden, page, select, where
from safegen.console.policies import Name, verb
from safegen.console.replays import PERIODS, replay_section, replayed
from safegen.console.waiving import with_waiver
from safegen.errors import SafegenError
from safegen.gates import load_policy
from safegen.pages.html import breaking, counted, section, text
from safegen.policy import RULES

__all__ = ["api", "html"]

api = APIRouter(tags=["policies"])
html = APIRouter(include_in_schema=False)


class Text(BaseModel):
    """The text of a policy file."""

    text: str = Field(max_length=MAX_BYTES)


class Again(Text):
    """A text that recorded decisions are taken again under."""

    days: int = Field(30, ge=0, le=36_500, description="How far back; 0: all of the ledger.")
    own: bool = Field(True, description="Only what policies of the same id decided.")


class Save(Text):
    """A text that is to become the file."""

    was: str = Field(max_length=80, description="`text_digest` of what the edit started from.")


# ---- JSON ----------------------------------------------------------------------------------------


@api.post("/policies/{name}/lint", summary="What is wrong with a text, with lines")
def lint(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, Any]:
    return drafted(desk, target(desk, name), given.text).lint()


@api.post("/policies/{name}/diff", summary="What a text tightens and loosens")
def compare(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, Any]:
    return _changes(drafted(desk, target(desk, name), given.text))


@api.post("/policies/{name}/patch", summary="A text as a patch of the file")
def patch(desk: DeskOf, name: Name, given: Text, session: Held) -> dict[str, str]:
    draft = drafted(desk, target(desk, name), given.text)
    return {"patch": desk.files.patch(draft.file, draft.text)}


@api.post("/policies/{name}/replay", summary="What a text would have decided of what was decided")
def replay(desk: DeskOf, name: Name, given: Again, session: Held) -> dict[str, Any]:
    draft = drafted(desk, target(desk, name), given.text)
    return replayed(desk, draft.needed(), given.days, own=given.own).to_json()


@api.post("/policies/{name}", summary="Save a text as the file (--allow-edit, signed in)")
def save(desk: DeskOf, name: Name, given: Save, session: Signed) -> dict[str, Any]:
    return saved(desk, drafted(desk, target(desk, name), given.text), given.was, said_by(session))


def _changes(draft: Draft) -> dict[str, Any]:
    """Against the file as it is, and against the policy that the text extends."""
    policy = load_policy(draft.needed())
    old, _ = tried(draft.file) if draft.file.path.is_file() else (None, [])
    parent = parent_of(draft.file, draft.text)
    return {
        "file": None if old is None else compared(old, policy),
        "parent": None if parent is None else compared(parent, policy),
    }


# ---- the editor ----------------------------------------------------------------------------------


@html.get("/policies/{name}/edit")
def editor_page(
    request: Request,
    desk: DeskOf,
    session: Visit,
    name: Name,
    waive: Annotated[str, Query(max_length=64, description="A rule to draft a waiver of.")] = "",
) -> HTMLResponse:
    file = existing(desk, name)
    was = file.text()
    shown = with_waiver(was, waive, tried(file)[0]) if waive in RULES else was
    return _editor(request, desk, session, file, shown, digest_of(was))


@html.post("/policies/{name}/edit")
def edited(request: Request, desk: DeskOf, session: Held, name: Name, form: Form) -> Response:
    """What its buttons do: check, compare, patch, download, replay, save."""
    start, do = existing(desk, name), form.get("do", "check")
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
        shown = _checked(draft) + _done(desk, draft, do, form)
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


def _done(desk: Desk, draft: Draft, do: str, form: dict[str, str]) -> str:
    if do == "replay":
        days = form.get("days", "30")
        if days not in PERIODS:
            raise HTTPException(422, "that is no period to replay")
        own = form.get("of", "own") == "own"
        return replay_section(replayed(desk, draft.needed(), int(days), own=own))
    if do == "diff":
        changes = _changes(draft)
        return "".join(
            section(f"diff-{key}", title, difference(changes[key]))
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
        f'<div class="actions">{buttons}</div><div class="actions asks">'
        + select("days", "Replay", "30", PERIODS)
        + select("of", "of decisions by", "own", {"own": "policies of this id", "all": "any"})
        + '<button name="do" value="replay">Replay</button></div></form>'
    )
    return page(
        request,
        f"Edit {file.name}",
        f'<p class="note"><a href="/policies">Policies</a> / '
        f'<a href="/policies/{name}">{name}</a></p>'
        f"<h1>{verb(desk, file)}: {breaking(file.name)}</h1>",
        result,
        form,
        scripts=("/editor.js",),
        status=status,
    )
