"""`safegen policy waivers` and `approve`: what is excepted, until when, and who says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safegen.cli.output import JsonOption, show, show_json, table
from safegen.errors import UsageError

if TYPE_CHECKING:
    from safegen.policy.standing import Standing

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    app.command()(waivers)
    app.command()(approve)


def waivers(
    policies: Annotated[
        list[str] | None,
        typer.Argument(help="Policy files, or shipped names; without any, all shipped ones."),
    ] = None,
    expiring: Annotated[
        str | None,
        typer.Option("--expiring", help="Only those that end within so many days: 30d."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the waivers of policies as they stand today, those that end first at the top."""
    from safegen.policy import Policy, in_force
    from safegen.policy.standing import standing

    now = datetime.now(UTC)
    last = now.date() + _days(expiring) if expiring else None
    found = [
        (policy, one)
        for policy in (in_force(Policy.load(name)) for name in policies or Policy.shipped())
        for one in standing(policy, now)
        if last is None or now.date() <= one.waiver.expires <= last
    ]
    found.sort(key=lambda pair: (pair[1].waiver.expires, pair[0].id, pair[1].waiver.id))
    if as_json:
        show_json([{"policy": p.id, "version": p.version, **_json(one)} for p, one in found])
        return 0
    for policy, one in found:
        show(f"{one.waiver.expires}  {one.waiver.id}  {_state(one)}")
        lowered = ", ".join(f"{one.waiver.rule}.{k} → {v}" for k, v in one.waiver.params.items())
        scope = one.waiver.scope or "everything"
        table(
            [
                ("lowers", lowered),
                ("for", scope if isinstance(scope, str) else ", ".join(scope)),
                ("policy", f"{policy.id} {policy.version}"),
                ("approved by", ", ".join(one.waiver.approved_by)),
                ("requested by", f"{one.waiver.requested_by}: {one.waiver.reason}"),
                ("ticket", one.waiver.ticket),
            ]
        )
    show(f"{len(found)} waiver{'s' * (len(found) != 1)}")
    return 0


def approve(
    policy: Annotated[str, typer.Argument(help="The policy file that has the waiver.")],
    waiver: Annotated[str, typer.Argument(help="Its id.")],
    by: Annotated[str, typer.Option("--as", help="Your name, as approved_by has it.")],
    key: Annotated[str, typer.Option("--key", help="Your private key, as `key new` makes it.")],
    as_json: JsonOption = False,
) -> int:
    """Sign a waiver: print the line that goes under its `signatures`."""
    import base64

    from safegen.manifest import SigningKey
    from safegen.policy import Policy, in_force
    from safegen.policy.sections import person
    from safegen.policy.wording import did_you_mean

    loaded = in_force(Policy.load(policy))  # under a floor its approvers are those that count
    ids = {w.id: w for w in loaded.waivers}
    if waiver not in ids:
        near = did_you_mean(waiver, ids) if ids else "it has none"
        raise UsageError(f"no waiver {waiver!r} in {policy}: {near}")
    chosen = ids[waiver]
    if person(by) not in map(person, chosen.approved_by):
        raise UsageError(f"{by!r} is not in approved_by of {waiver!r}")
    signer = SigningKey(key)
    known = {person(a.name): a.key for a in loaded.approvals.approvers}.get(person(by))
    if known != signer.public.text:
        whose = "has another key for you" if known else "does not name you"
        raise UsageError(f"approvals.approvers of {loaded.id} {whose}: it would not count")
    signature = base64.b64encode(signer.sign(chosen.signed_bytes)).decode()
    if as_json:
        show_json({"waiver": waiver, "approver": by, "signature": signature})
    else:
        show(f'    signatures: {{"{by}": {signature}}}')
    return 0


def _days(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,4})d?", text)
    if not found:
        raise UsageError(f"--expiring takes a number of days, such as 30d, not {text!r}")
    return timedelta(days=int(found[1]))


def _json(one: Standing) -> dict[str, Any]:
    told = one.to_json()
    # Nothing is asked of data here, so that it may be needed or not.
    return told | {"status": "counts" if one.status == "not needed" else one.status}


def _state(one: Standing) -> str:
    if one.approval.problem and one.status == "not accepted":
        return f"does not count: {one.approval.problem}"
    return f"counts ({one.approval.said})" if one.status == "not needed" else one.status
