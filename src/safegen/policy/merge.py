"""What one policy does to another: a lock that a child has to keep, a floor under everybody's.

Both follow from the order of each parameter (`Param.order`), which is declared once.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from safegen.errors import PolicyError
from safegen.policy.model import Ancestor, Origin, Place, Policy, is_locked
from safegen.policy.params import RuleParams, Section
from safegen.policy.sections import SECTIONS, Approvals
from safegen.policy.waiver import Waiver

__all__ = ["loosened", "raised"]


def loosened(parent: Policy, parts: dict[str, Section]) -> Iterator[tuple[Place, str]]:
    """Each locked parameter of `parent` that a child's `parts` do not keep: where, and what to do.

    What cannot be compared may be looser, so that it may not change either.
    """
    for name, before in parent.parts.items():
        after = parts[name]
        for key, parameter in type(before).parameters().items():
            if not is_locked(parent.locked, name, key):
                continue
            was, now = getattr(before, key), getattr(after, key)
            change = parameter.compare(was, now)
            if change in ("LOOSEN", "INCOMPARABLE"):
                what = "looser than" if change == "LOOSEN" else "not to be compared with"
                place = parent.origins.get((name, key))
                at = f", {place[0]}:{place[1]}" if place else ""
                yield (
                    (*(("rules",) if name not in SECTIONS else ()), name, key),
                    f"{name}.{key}: {now} is {what} {was}, which {parent.id} locks{at}: "
                    f"{parameter.tighter}",
                )


def raised(policy: Policy, floor: Policy) -> Policy:
    """The policy, tightened to ask at least what the floor asks, with the floor among what it
    extends: of each parameter the tighter value, and the floor's where no value is tighter.

    A rule that is off in one of them is as the other has it. All that the floor asks is locked from
    then on, and waivers count with signatures of the floor's approvers only: otherwise whoever
    writes a policy could waive what is pinned. Idempotent, and one floor on another is the same as
    both.

    Raises: PolicyError where no policy can meet both.
    """
    origins = dict(policy.origins)
    try:
        parts = {
            name: _tighter(name, policy, floor, origins)
            for name in dict.fromkeys([*policy.parts, *floor.parts])
        }
        own = Ancestor(id=floor.id, version=floor.version, digest=floor.digest)
        asked = [name for name, rule in floor.rules.items() if rule.severity != "off"]
        return Policy(
            **{n: getattr(policy, n) for n in ("id", "version", "description", "owner")},
            contact=policy.contact
            if floor.contact in policy.contact
            else f"{floor.contact} (floor {floor.id}); {policy.contact}"[:4000],
            report=parts.pop("report"),  # type: ignore[arg-type]
            approvals=_approvals(policy.approvals, floor.approvals, parts.pop("approvals")),
            rules=parts,  # type: ignore[arg-type]
            waivers=_both(floor.waivers, policy.waivers),
            extends=tuple(dict.fromkeys([*policy.extends, own, *floor.extends])),
            locked=tuple(sorted({*policy.locked, *floor.locked, *SECTIONS, *asked})),
            origins=origins,
        )
    except ValidationError as error:
        found = "; ".join(str(e["msg"]).removeprefix("Value error, ") for e in error.errors())
    except ValueError as error:
        found = str(error)
    raise PolicyError(
        [f"policy {policy.id} under the floor {floor.id}: {found}; both together cannot be met"]
    )


def _tighter(
    name: str, policy: Policy, floor: Policy, origins: dict[tuple[str, str], Origin]
) -> Section:
    """One part of both. Raises: ValueError where they have no keys in common, or are two rules."""
    mine, least = policy.parts.get(name), floor.parts.get(name)
    if least is None or (mine is not None and _off(least)):
        assert mine is not None
        return mine
    if mine is None or _off(mine):
        for key in type(least).parameters():
            _from_floor(origins, floor, name, key)
        return least
    if type(mine) is not type(least):  # whose gates and parameters may be fewer
        raise ValueError(f"{name}: the floor has another rule of that name")
    values = {}
    for key, parameter in type(mine).parameters().items():
        own = getattr(mine, key)
        try:
            values[key] = parameter.tightest(getattr(least, key), own)
        except ValueError as error:
            raise ValueError(f"{name}.{key}: {error}") from None
        if values[key] != own:
            _from_floor(origins, floor, name, key)
    return type(mine).model_validate(values)


def _off(part: Section) -> bool:
    return isinstance(part, RuleParams) and part.severity == "off"


def _from_floor(origins: dict[tuple[str, str], Origin], floor: Policy, name: str, key: str) -> None:
    if (place := floor.origins.get((name, key))) is not None:
        origins[name, key] = place
    else:
        origins.pop((name, key), None)


def _approvals(mine: Approvals, floor: Approvals, both: Section) -> Approvals:
    """Who may approve exceptions under a floor: its approvers, of whom a policy that asks for
    signatures may name some only."""
    known = both.approvers if mine.signature == "required" else floor.approvers  # type: ignore[attr-defined]
    return Approvals(signature="required", approvers=known)


def _both(floor: tuple[Waiver, ...], own: tuple[Waiver, ...]) -> tuple[Waiver, ...]:
    known = {w.id: w for w in floor}
    if clash := [w.id for w in own if known.get(w.id, w) != w]:
        raise ValueError(f"waiver id {clash[0]!r} is used in both, for different waivers")
    return (*floor, *(w for w in own if w.id not in known))
