"""The console as an ASGI application, from a ledger."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

import safegen
from safegen.console import (
    controls,
    datasets,
    decisions,
    editing,
    graph,
    login,
    overview,
    policies,
    verifying,
    waivers,
)
from safegen.console.desk import Desk, DeskOf, Visit
from safegen.console.door import Door
from safegen.console.files import PolicyFiles
from safegen.console.guard import Guard, is_loopback
from safegen.console.index import Index
from safegen.console.layout import problem
from safegen.console.newest import Newest
from safegen.console.style import SHEET
from safegen.errors import LedgerError, SafegenError
from safegen.ledger import Ledger

__all__ = ["console"]

_ROOMS: tuple[Any, ...] = (
    overview,
    datasets,
    graph,
    decisions,
    policies,
    editing,
    waivers,
    controls,
    login,
)


def console(
    ledger: Ledger,
    *,
    policies: Path | None = None,
    edit: bool = False,
    password: str | None = None,
    host: str = "127.0.0.1",
) -> FastAPI:
    """The application. policies: the folder of policy files; edit: whether people who sign in, with
    the password, may save them; host: where it listens. Where others than this machine reach it,
    nothing is shown without signing in.
    """
    private = not is_loopback(host)
    app = FastAPI(
        title="safegen console",
        version=safegen.__version__,
        description="What a ledger holds, and what policy files say. Every POST carries the token "
        "of `/api/v1/session` in the header `x-safegen-token`.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they would fetch scripts from elsewhere
        redoc_url=None,
        dependencies=[Depends(_let_in)],
        responses={
            "4XX": {"description": "Not found, not allowed, or not understood: `detail` says why."},
            "503": {"description": "The ledger cannot be read."},
        },
    )
    door = Door(password)
    app.state.desk = Desk(
        ledger, Index(ledger), Newest(ledger), PolicyFiles(policies), door, edit, private
    )
    for room in _ROOMS:
        app.include_router(room.api, prefix="/api/v1")
        app.include_router(room.html)
    app.include_router(verifying.html)
    app.get("/console.css", include_in_schema=False)(_sheet)
    app.get("/editor.js", include_in_schema=False)(_editor)
    app.get("/favicon.ico", include_in_schema=False)(_no_icon)
    app.add_exception_handler(AnyHTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(SafegenError, _failed)
    app.add_middleware(Guard, host=host)
    return app


_OPEN = ("/login", "/console.css")


def _let_in(request: Request, desk: DeskOf, session: Visit) -> None:
    """Beyond this machine, only people who have signed in."""
    if desk.private and session.by is None and request.url.path not in _OPEN:
        raise HTTPException(401, "sign in first")


def _sheet() -> Response:
    return Response(SHEET, media_type="text/css; charset=utf-8")


def _editor() -> Response:
    return _script("editor.js")


def _no_icon() -> Response:
    return Response(status_code=204)


def _script(name: str) -> Response:
    body = (files("safegen.console") / name).read_bytes()
    return Response(body, media_type="text/javascript; charset=utf-8")


def _answer(request: Request, status: int, why: str, more: list[str] | None = None) -> Response:
    """As JSON to who asked for it, as a page to a person."""
    if not request.url.path.startswith("/api/"):
        if status == 401 and request.method == "GET":
            return RedirectResponse("/login", 303)
        return problem(request, status, why, more or [])
    return JSONResponse({"detail": why} | ({"problems": more} if more else {}), status)


def _refused(request: Request, error: Any) -> Response:
    words = {404: "there is no such page", 405: "not that way"}
    why = error.detail if isinstance(error, HTTPException) else words.get(error.status_code, "no")
    return _answer(request, error.status_code, str(why))


def _not_understood(request: Request, error: Any) -> Response:
    # Where, and what; never what was given, which may be anything.
    more = [
        f"{'.'.join(_plain(p) for p in e['loc'])}: {e['type'].replace('_', ' ')}"
        for e in error.errors()[:20]
    ]
    return _answer(request, 422, "this request cannot be understood", more)


def _plain(part: object) -> str:
    return str(part).encode("ascii", "replace").decode()[:60]


def _failed(request: Request, error: Any) -> Response:
    return _answer(request, 503 if isinstance(error, LedgerError) else 422, str(error))
