"""The waivers of all policy files, the next to expire first, and where each was last used."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from safegen.console.desk import Desk, DeskOf
from safegen.console.index import Contents
from safegen.console.layout import banner, day, link, listing, page, tag
from safegen.pages.html import breaking, counted, text
from safegen.policy import Waiver
from safegen.policy.standing import Standing, standing

__all__ = ["SOON", "STATES", "Listed", "api", "every", "html"]

api = APIRouter(tags=["waivers"])
html = APIRouter(include_in_schema=False)

SOON = timedelta(days=30)
STATES = ("open", "expiring", "expired", "not accepted")


@dataclass(frozen=True)
class Listed:
    """A waiver, the policy file that it is in, how long it lasts, and the last decision that names
    it: its log entry, and what became of the waiver there."""

    standing: Standing
    file: str
    days: int
    seq: int | None
    used: str | None

    @property
    def waiver(self) -> Waiver:
        return self.standing.waiver

    @property
    def state(self) -> str:
        """expired, not accepted, expiring (within 30 days) or open."""
        if self.standing.status != "not needed":
            return self.standing.status
        return "expiring" if self.days <= SOON.days else "open"

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            **self.standing.to_json(),
            "file": self.file,
            "state": self.state,
            "days": self.days,
            "last_decision": self.seq,
            "last_status": self.used,
        }


def every(desk: Desk, now: Contents) -> tuple[list[Listed], list[str]]:
    """The waivers of all policy files, the next to expire first, and which files cannot be read."""

    last: dict[tuple[str, str], tuple[int, str]] = {}
    for decision in now.decisions:
        for id_, status, _ in decision.waivers:
            last[decision.policy.partition(" ")[0], id_] = (decision.seq, status)
    today, found, unread = datetime.now(UTC).date(), [], []
    for file, policy, _ in desk.files.listed():
        if policy is None:
            unread.append(file.name)
            continue
        for one in standing(policy, today):
            seq, used = last.get((policy.id, one.waiver.id), (None, None))
            days = (one.waiver.expires - today).days
            found.append(Listed(one, file.name, days, seq, used))
    return sorted(found, key=lambda w: (w.days < 0, w.days, w.waiver.id)), unread


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
_KINDS = {"expired": "block", "not accepted": "block", "expiring": "warn", "open": "pass"}


def _row(one: Listed) -> tuple[str, ...]:
    w = one.waiver
    lowered = ", ".join(f"{k} = {v}" for k, v in w.params.items())
    left = f"{one.days} days left" if one.days >= 0 else f"{-one.days} days ago"
    used = ""
    if one.seq is not None:
        used = link("decisions", one.seq, shows=text(f"{one.used} #{one.seq}"))
    file = link("policies", one.file, shows=text(one.file))
    patterns = (w.scope,) if isinstance(w.scope, str) else w.scope or ()
    scope = f"<small>for {breaking(', '.join(patterns))}</small>" if patterns else ""
    approval = one.standing.approval
    why = f"<small>{text(approval.problem)}</small>" if approval.problem else ""
    return (
        f"{text(w.id)}<small>{file}</small>",
        f"{text(w.rule)}: {text(lowered)}{scope}",
        f"{tag(one.state, _KINDS[one.state])} {day(str(w.expires))}<small>{left}</small>{why}",
        f"{text(w.reason)}<small>{text(w.ticket)}</small>",
        f"{text(', '.join(w.approved_by))} ({text(approval.said)})"
        f"<small>asked for by {text(w.requested_by)}</small>",
        used,
    )
