"""The frame of every page, and what several of them are made of. Nothing here is markup from
outside: all goes through `text`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse

from safegen.console.door import Session
from safegen.console.index import Page
from safegen.pages.html import SIGNS, counted, text

__all__ = [
    "banner",
    "day",
    "field",
    "hidden",
    "link",
    "listing",
    "moment",
    "page",
    "pager",
    "problem",
    "select",
    "tag",
    "where",
]

_PAGES = (
    ("/", "Overview"),
    ("/datasets", "Datasets"),
    ("/lineage", "Lineage"),
    ("/decisions", "Decisions"),
    ("/policies", "Policies"),
    ("/waivers", "Waivers"),
    ("/controls", "Controls"),
)


def page(
    request: Request,
    title: str,
    *body: str,
    status: int = 200,
    scripts: Sequence[str] = (),
    wide: bool = False,
) -> HTMLResponse:
    """A page of the console. scripts: paths of ours; wide: as wide as the window."""
    desk, here = request.app.state.desk, request.url.path
    session = desk.door.session(request.cookies.get("safegen_session"))
    listed = "".join(_entry(path, name, here) for path, name in _PAGES)
    loaded = "".join(f'<script src="{text(s)}" defer></script>' for s in scripts)
    said = f"{text(desk.ledger.url)}"
    html = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)} · safegen</title>"
        f'<link rel="icon" href="data:,"><link rel="stylesheet" href="/console.css">{loaded}'
        '</head><body><a class="skip" href="#main">To the content</a><header class="top">'
        f'<div><a class="home" href="/">safegen</a><nav aria-label="Pages"><ul>{listed}</ul></nav>'
        f"{_who(desk.door.opens, session, where(request))}</div></header>"
        f'<main id="main"{" class=full" if wide else ""}>{"".join(body)}</main>'
        f'<footer class="foot">Ledger <code>{said}</code>. Everything here is also JSON under '
        '<a href="/api/v1/openapi.json">/api/v1</a>.</footer></body></html>\n'
    )
    return HTMLResponse(html, status)


def where(request: Request) -> str:
    """The page that is looked at, to come back to."""
    asked = request.url.query if request.method == "GET" else ""
    return request.url.path + (f"?{asked}" if asked else "")


def _entry(path: str, name: str, here: str) -> str:
    inside = here == path or (path != "/" and here.startswith(f"{path}/"))
    return f'<li><a href="{path}"{" aria-current=page" if inside else ""}>{name}</a></li>'


def _who(opens: bool, session: Session, here: str) -> str:
    if session.by is not None:
        return (
            f'<form class="who" method="post" action="/logout">{hidden("token", session.token)}'
            f"<span>{text(session.by)}</span><button>Sign out</button></form>"
        )
    if not opens:
        return '<span class="who">read-only</span>'
    return f'<a class="who" href="/login?{urlencode({"to": here})}">Sign in</a>'


def problem(request: Request, status: int, why: str, more: Iterable[str] = ()) -> HTMLResponse:
    """A page that says what went wrong."""
    listed = "".join(f"<li>{text(m)}</li>" for m in more)
    shown = banner("block", why, f"<ul>{listed}</ul>" if listed else "")
    return page(request, "Not done", "<h1>Not done</h1>", shown, status=status)


def banner(kind: str, strong: str, *more: str) -> str:
    """A verdict; `more` is HTML."""
    mark = f'<span class="mark {kind}" aria-hidden="true">{SIGNS[kind]}</span>'
    return f'<div class="verdict {kind}"><strong>{mark}{text(strong)}</strong>{"".join(more)}</div>'


def listing(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], none: str = ""
) -> str:
    """A table that becomes cards on a phone; its first column names the rows. Cells are HTML.
    none: what is said where there is no row."""
    head = "".join(f'<th scope="col">{text(h)}</th>' for h in heads)
    body = "".join(
        f'<tr><th scope="row">{first}</th>'
        + "".join(
            f'<td data-head="{text(h)}">{cell}</td>' if cell else "<td></td>"
            for h, cell in zip(heads[1:], rest, strict=True)
        )
        + "</tr>"
        for first, *rest in rows
    )
    if not body:
        return f'<p class="note">{text(none)}</p>' if none else ""
    return (
        f'<table class="list stack"><caption>{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def tag(says: str, kind: str = "") -> str:
    """A word about a thing; its colour only repeats it."""
    return f'<span class="tag {kind}">{text(says)}</span>'


def link(*path: object, shows: str, **query: object) -> str:
    """A link to a page of the console. shows: HTML."""
    asked = urlencode({k: v for k, v in query.items() if v not in (None, "")})
    to = "/" + "/".join(quote(str(p), safe="") for p in path)
    return f'<a href="{text(to)}{text(f"?{asked}") if asked else ""}">{shows}</a>'


def moment(time: str) -> str:
    """A time in UTC, to the minute."""
    return f'<time datetime="{text(time)}">{text(time[:16].replace("T", " "))}</time>'


def day(time: str) -> str:
    return f'<time datetime="{text(time)}">{text(time[:10])}</time>'


def hidden(name: str, value: object) -> str:
    return f'<input type="hidden" name="{text(name)}" value="{text(value)}">'


def field(name: str, label: str, value: object = "", kind: str = "search", **more: object) -> str:
    """A labelled field of a form."""
    rest = "".join(f' {k.rstrip("_")}="{text(v)}"' for k, v in more.items())
    return (
        f'<label>{text(label)} <input type="{kind}" name="{text(name)}" value="{text(value)}"'
        f"{rest}></label>"
    )


def select(name: str, label: str, chosen: object, options: Mapping[str, str]) -> str:
    """A labelled choice: value → what is shown."""
    listed = "".join(
        f'<option value="{text(k)}"{" selected" if k == chosen else ""}>{text(v)}</option>'
        for k, v in options.items()
    )
    return f'<label>{text(label)} <select name="{text(name)}">{listed}</select></label>'


def pager(path: str, found: Page[Any], noun: str, query: Mapping[str, object]) -> str:
    """How many there are, and the ways to the pages before and after."""
    said = f"<span>{counted(found.total, noun)}</span>"
    if found.pages > 1:
        said += f"<span>page {found.page:,} of {found.pages:,}</span>"
        for label, to in (("← before", found.page - 1), ("next →", found.page + 1)):
            if 1 <= to <= found.pages:
                asked = {k: v for k, v in query.items() if v not in (None, "")}
                said += (
                    f'<a href="{text(path)}?{text(urlencode({**asked, "page": to}))}">{label}</a>'
                )
    return f'<p class="pager">{said}</p>'
