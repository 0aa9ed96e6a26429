"""`safegen policy replay`: what another policy would have decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from safegen.cli.output import JsonOption, LedgerOption, show, show_json, styled, table

if TYPE_CHECKING:
    from safegen.replaying import Replay, Retaken

__all__ = ["add_to", "replay"]


def add_to(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    new: Annotated[str, typer.Argument(help="A policy file, or a shipped name.")],
    ledger: LedgerOption = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Leave out what was decided before: 2026-01-31.")
    ] = None,
    gate: Annotated[str | None, typer.Option("--gate", help="admission, or release.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Only what the policy with this id decided.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="List every decision that changes, not the newest 20.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Take a ledger's recorded decisions again under a policy: who would be refused, or admitted.

    Nothing is fitted, measured or written."""
    from safegen.replaying import replay as replay_

    found = replay_(
        new,
        ledger=ledger,
        since=since,
        gate=gate,  # type: ignore[arg-type]
        by=by,
        most=None if every else 20,
    )
    if as_json:
        show_json(found.to_json())
    else:
        _print(found)
    return 0


def _print(found: Replay) -> None:
    policy = found.policy
    show(f"{policy['id']} {policy['version']}, {policy['digest']}")
    at = f" by {found.by}" if found.by else ""
    at += f" at the {found.gate} gate" if found.gate else ""
    since = f" since {found.since}" if found.since else ""
    show(f"{found.decisions:,} decisions{at}{since} in {found.ledger}\n")
    table((f"  {name.replace('->', '→')}", f"{n:,}") for name, n in found.outcomes.items())
    counts = found.outcomes
    _list("newly refused", counts["allow -> refuse"], found.refused, "1;31")
    _list("newly admitted", counts["refuse -> allow"], found.admitted, "32")
    untold = counts["allow -> cannot tell"] + counts["refuse -> cannot tell"]
    _list("cannot tell", untold, found.untold, "33")
    if found.open:
        show("")
        table((f"  left open by {name}", f"{n:,}") for name, n in found.open.items())
    if found.shaped:
        show("\nReleases whose rows would have been others; they are judged as they were made:")
        table((f"  by {name}", f"{n:,}") for name, n in found.shaped.items())
    if found.unreadable:
        show(f"\n{found.unreadable:,} entries cannot be read by this version, and are not counted")


_DECIDE = {
    "refuse": "refused by",
    "allow": "refused then by",
    "cannot tell": "decided by",
}


def _list(what: str, count: int, shown: Sequence[Retaken], style: str) -> None:
    if not count:
        return
    more = f"; the newest {len(shown)}, --all lists all" if len(shown) < count else ""
    show(f"\n{styled(what, style)}: {count:,}{more}")
    table((f"  {one.time}", _said(one)) for one in shown)


def _said(one: Retaken) -> str:
    about = "; ".join(one.about) or "nothing named"
    ids = f" [{', '.join(one.dataset_ids)}]" if one.dataset_ids else ""
    decide = _DECIDE[one.after]
    text = f"{one.gate} of {about}{ids}, by {one.policy}; {decide} {', '.join(one.because)}"
    return text + (f" (open: {', '.join(one.parameters)})" if one.parameters else "")
