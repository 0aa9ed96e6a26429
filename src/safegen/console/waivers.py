"""Every waiver: those in policy files, the next to expire first, and those that decisions name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import Desk, DeskOf
from safegen.console.index import Contents
from safegen.console.layout import banner, link, listing, page, tag
from safegen.errors import SafegenError
from safegen.pages.html import counted, text
from safegen.policy import Waiver

__all__ = ["SOON", "Listed", "api", "every", "html"]

api = APIRouter(tags=["waivers"])
html = APIRouter(include_in_schema=False)

SOON = timedelta(days=30)


@dataclass(frozen=True)
class Listed:
    """A waiver, the policy file that it is in, how long it lasts, and the last decision that names
    it: its log entry, and what became of the waiver there."""

    waiver: Waiver
    file: str
    own: bool
    days: int
    seq: int | None
    used: str | None

    @property
    def state(self) -> str:
        """expired, expiring (within 30 days) or open."""
        if self.days < 0:
            return "expired"
        return "expiring" if self.days <= SOON.days else "open"

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.waiver.model_dump(mode="json"),
            "file": self.file,
            "state": self.state,
            "days": self.days,
            "last_decision": self.seq,
            "last_status": self.used,
        }


def every(desk: Desk, now: Contents) -> tuple[list[Listed], list[str]]:
    """The waivers of all policy files, the next to expire first, and which files cannot be read."""
    from safegen.console.files import loaded

    last: dict[tuple[str, str], tuple[int, str]] = {}
    for decision in now.decisions:
        for id_, status, _ in decision.waivers:
            last[decision.policy.partition(" ")[0], id_] = (decision.seq, status)
    today, found, unread = datetime.now(UTC).date(), [], []
    for file in desk.files.all():
        try:
            policy = loaded(file)
        except SafegenError:
            unread.append(file.name)
            continue
        for waiver in policy.waivers:
            seq, used = last.get((policy.id, waiver.id), (None, None))
            days = (_last_day(waiver) - today).days
            found.append(Listed(waiver, file.name, file.own, days, seq, used))
    return sorted(found, key=lambda w: (w.days < 0, w.days, w.waiver.id)), unread


def _last_day(waiver: Waiver) -> date:
    return waiver.expires


@api.get("/waivers", summary="Waivers of all policy files, the next to expire first")
def all_waivers(desk: DeskOf) -> dict[str, Any]:
    found, unread = every(desk, desk.index.contents())
    return {"waivers": [w.told() for w in found], "unread": unread}


@html.get("/waivers")
def waivers_page(request: Request, desk: DeskOf) -> HTMLResponse:
    found, unread = every(desk, desk.index.contents())
    soon = sum(w.state == "expiring" for w in found)
    above = (
        [banner("warn", f"{counted(soon, 'waiver')} will expire within 30 days")] if soon else []
    )
    above += [
        banner("block", f"{name} cannot be read: its waivers are not here") for name in unread
    ]
    return page(
        request,
        "Waivers",
        "<h1>Waivers</h1>",
        '<p class="lead">Dated exceptions, each with a reason and names. They stand in the policy '
        "files; what a decision made of one is in the decision.</p>",
        *above,
        listing("The next to expire first", _HEADS, map(_row, found), "No policy has a waiver."),
    )


_HEADS = ("waiver", "lowers", "until", "why", "who", "last decision")
_KINDS = {"expired": "block", "expiring": "warn", "open": "pass"}


def _row(one: Listed) -> tuple[str, ...]:
    w = one.waiver
    lowered = ", ".join(f"{k} = {v}" for k, v in w.params.items())
    left = f"{one.days} days left" if one.days >= 0 else f"{-one.days} days ago"
    used = ""
    if one.seq is not None:
        used = link("decisions", one.seq, shows=text(f"{one.used} #{one.seq}"))
    file = link("policies", one.file, shows=text(one.file))
    scope = f"<small>scope {text(w.scope)}</small>" if w.scope else ""
    return (
        f"{text(w.id)}<small>{file}</small>",
        f"{text(w.rule)}: {text(lowered)}{scope}",
        f"{tag(one.state, _KINDS[one.state])} {text(w.expires)}<small>{left}</small>",
        f"{text(w.reason)}<small>{text(w.ticket)}</small>",
        f"{text(', '.join(w.approved_by))}<small>asked for by {text(w.requested_by)}</small>",
        used,
    )
