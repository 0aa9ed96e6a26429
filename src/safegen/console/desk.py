"""What every page is made from, and who asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import Depends, HTTPException, Request

from safegen.console.door import COOKIE, Door, Session, holds
from safegen.console.files import PolicyFiles
from safegen.console.index import Index
from safegen.console.newest import Newest
from safegen.ledger import Ledger

__all__ = ["Desk", "DeskOf", "Form", "Held", "Signed", "Visit", "said_by"]

TOKEN_HEADER = "x-safegen-token"


@dataclass(frozen=True)
class Desk:
    """The ledger, its index, the policy files, and the door. `edit`: whoever has signed in may save
    policy files; `private`: nothing without a login, for others than this machine reach it."""

    ledger: Ledger
    index: Index
    newest: Newest
    files: PolicyFiles
    door: Door
    edit: bool = False
    private: bool = False

    def record(self, by: str, change: str, facts: Mapping[str, Any]) -> None:
        """The audit entry of a change. Raises: LedgerError."""
        self.ledger.record("console", {"change": change, "by": by, **facts})


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskOf = Annotated[Desk, Depends(_desk)]


def _session(request: Request, desk: DeskOf) -> Session:
    return desk.door.session(request.cookies.get(COOKIE))


Visit = Annotated[Session, Depends(_session)]
"""Whoever asks: signed in, or a visitor."""


async def _form(request: Request) -> dict[str, str]:
    """The fields of a form as browsers send it, each once."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    try:
        told = parse_qs(
            (await request.body()).decode("ascii"),
            keep_blank_values=True,
            max_num_fields=20,
        )
    except ValueError:
        raise HTTPException(422, "this form cannot be read") from None
    return {name: values[0] for name, values in told.items()}


Form = Annotated[dict[str, str], Depends(_form)]


def _held(request: Request, session: Visit, form: Form) -> Session:
    if not holds(session, form.get("token") or request.headers.get(TOKEN_HEADER, "")):
        raise HTTPException(403, "this form is not the console's, or its session is over: reload")
    return session


Held = Annotated[Session, Depends(_held)]
"""Whoever asks, by a form or a header that holds the token of its session: against forged ones."""


def _signed(session: Held, desk: DeskOf) -> Session:
    if not desk.edit:
        raise HTTPException(403, "this console is read-only; start it with --allow-edit")
    if session.by is None:
        raise HTTPException(401, "sign in first")
    return session


Signed = Annotated[Session, Depends(_signed)]
"""A person who may change something."""


def said_by(session: Session) -> str:
    """The name of who signed in."""
    return session.by or "nobody"
