"""Signing in and out."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from safegen.console.desk import DeskOf, Form, Held, Visit
from safegen.console.door import COOKIE, TooMany
from safegen.console.layout import banner, field, hidden, page

__all__ = ["api", "html"]

api = APIRouter(tags=["session"])
html = APIRouter(include_in_schema=False)

To = Annotated[str, Query(max_length=300, description="A page of the console to go on to.")]


@api.get("/session", summary="Who is signed in, and the token that every POST needs")
def session_of(desk: DeskOf, session: Visit) -> dict[str, Any]:
    return {"by": session.by, "may_edit": session.by is not None, "token": session.token}


@html.get("/login")
def login_page(request: Request, desk: DeskOf, session: Visit, to: To = "/") -> HTMLResponse:
    return _page(request, session.token, to)


@html.post("/login")
def enter(request: Request, desk: DeskOf, session: Held, form: Form) -> Response:
    if not desk.door.opens:
        raise HTTPException(403, "this console is read-only: nobody needs to sign in")
    by, password = " ".join(form.get("by", "").split()), form.get("password", "")
    address = request.client.host if request.client is not None else ""
    if not by or len(by) > 100 or not by.isprintable():
        return _page(request, session.token, form.get("to", "/"), "Say who you are.", 422)
    try:
        cookie = desk.door.enter(password, by, address)
    except TooMany as error:
        why = f"Too many wrong passwords; wait {error.seconds} seconds."
        answer = _page(request, session.token, form.get("to", "/"), why, 429)
        answer.headers["retry-after"] = str(error.seconds)
        return answer
    if cookie is None:
        return _page(request, session.token, form.get("to", "/"), "That is not the password.", 401)
    went = RedirectResponse(_ours(form.get("to", "/")), 303)
    went.set_cookie(COOKIE, cookie, httponly=True, samesite="strict", path="/")
    return went


@html.post("/logout")
def leave(request: Request, desk: DeskOf, session: Held) -> Response:
    desk.door.leave(request.cookies.get(COOKIE))
    went = RedirectResponse("/", 303)
    went.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
    return went


def _ours(to: str) -> str:
    """A path of the console, and of nobody else."""
    plain = to.isascii() and to.isprintable() and "\\" not in to
    return to if plain and to.startswith("/") and not to.startswith("//") else "/"


def _page(
    request: Request, token: str, to: str, wrong: str = "", status: int = 200
) -> HTMLResponse:
    said = (
        "The password was printed where the console was started, or is what "
        "<code>$SAFEGEN_CONSOLE_PASSWORD</code> says. Your name goes into the ledger with what you "
        "change; nobody checks it."
    )
    form = (
        f'<form class="entry" method="post" action="/login">{hidden("token", token)}'
        + hidden("to", to)
        + field(
            "by", "Your name", "", "text", required="required", maxlength=100, autocomplete="name"
        )
        + field(
            "password",
            "Password",
            "",
            "password",
            required="required",
            maxlength=200,
            autocomplete="current-password",
        )
        + '<button class="main">Sign in</button></form>'
    )
    shown = banner("block", wrong) if wrong else ""
    return page(
        request,
        "Sign in",
        "<h1>Sign in</h1>",
        f'<p class="lead">{said}</p>',
        shown,
        form,
        status=status,
    )
