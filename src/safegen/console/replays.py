"""What a draft would have decided where the ledger has a decision."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import HTTPException

from safegen.console.desk import Desk
from safegen.console.layout import banner, link, listing, moment
from safegen.pages.html import breaking, counted, section, text
from safegen.policy import Policy

if TYPE_CHECKING:
    from safegen.replaying import Replay, Retaken

__all__ = ["PERIODS", "replay_section", "replayed"]

PERIODS = {"30": "the last 30 days", "365": "the last year", "0": "all of the ledger"}
_ONE = threading.Lock()


def replayed(desk: Desk, policy: Policy, days: int, *, own: bool) -> Replay:
    """Recorded decisions of so many days (0: all), taken again; own: only those that policies of
    the same id took. One at a time. Raises: HTTPException, LedgerError."""
    from safegen.replaying import replay

    since = None if days == 0 else (datetime.now(UTC) - timedelta(days)).date()
    if not _ONE.acquire(blocking=False):
        raise HTTPException(409, "another draft is being replayed; try again when that is done")
    try:
        return replay(policy, ledger=desk.ledger, since=since, by=policy.id if own else None)
    finally:
        _ONE.release()


def replay_section(found: Replay) -> str:
    """Who would newly be refused, or admitted, and of whom nobody can tell."""
    of = found.outcomes
    refused, admitted = of["allow -> refuse"], of["refuse -> allow"]
    untold = of["allow -> cannot tell"] + of["refuse -> cannot tell"]
    by = f" by policies called {found.by}" if found.by else ""
    since = f" since {found.since[:10]}" if found.since else ""
    about = f"Of {counted(found.decisions, 'decision')}{by}{since}: {refused:,} newly refused, "
    about += f"{admitted:,} newly admitted, {untold:,} of which nobody can tell"
    notes = [
        f"{counted(n, 'decision')} cannot be told because of {name}: the ledger has not what that "
        "takes"
        for name, n in found.open.items()
    ]
    notes += [
        f"{counted(n, 'release')} would have had other rows by {name}; judged as they were made"
        for name, n in found.shaped.items()
    ]
    if found.unreadable:
        notes.append(f"{found.unreadable:,} of the entries cannot be read by this version")
    return section(
        "replay",
        "Replayed",
        banner("warn" if refused or admitted else "pass", about),
        *(f'<p class="note">{text(n)}</p>' for n in notes),
        _listed("Newly refused, the newest first", found.refused),
        _listed("Newly admitted, the newest first", found.admitted),
        _listed("Nobody can tell", found.untold),
    )


def _listed(caption: str, found: Sequence[Retaken]) -> str:
    rows = [
        (
            link("decisions", one.entry, shows=text(f"{one.gate} #{one.entry}")),
            "<br>".join(map(breaking, one.about[:3])),
            text(", ".join(one.because)),
            text(", ".join(one.parameters)),
            moment(one.time),
        )
        for one in found
    ]
    heads = ("decision", "about", "because of", "left open by", "when")
    return listing(caption, heads, rows)
