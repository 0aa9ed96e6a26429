"""What people ask of policy files: is this one sound (`lint`), and what does it say (`explain`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from safegen.errors import Problem
from safegen.policy.controls import controls_of
from safegen.policy.load import Examined, examine
from safegen.policy.model import Policy
from safegen.policy.organisation import is_organisation, read_organisation
from safegen.policy.sections import SECTIONS
from safegen.policy.standing import Standing, standing

__all__ = ["Note", "Row", "explain", "lint", "notes"]


class Note(Problem):
    """Something to know about a policy that does not stop its use."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One parameter as a policy has it. `origin` is "file:line", or "default"; `controls` are the
    clauses of laws and standards that its rule serves."""

    rule: str
    parameter: str
    value: Any
    unit: str
    tighter: str
    origin: str
    doc: str
    controls: tuple[str, ...] = ()


def lint(
    paths: Iterable[str | Path] | str | Path, *, now: date | datetime | None = None
) -> list[Problem]:
    """Everything wrong with policy files (or shipped names), then a `Note` for each waiver; and
    everything wrong with organisation files, which their `schema` tells apart.

    A file that loads has only notes; one that does not load has at least one plain `Problem`.
    `now` is the day the waivers are judged on, today (UTC) by default. Raises nothing for a bad
    file: that is the result.
    """
    moment = datetime.now(UTC) if now is None else now
    found: list[Problem] = []
    for path in [paths] if isinstance(paths, str | Path) else paths:
        if is_organisation(path):
            found += read_organisation(Path(path))[2]
            continue
        examined = examine(path)
        found += examined.problems
        found += notes(examined, moment)
    return found


def notes(examined: Examined, now: date | datetime) -> list[Note]:
    """How each waiver that stands in the file itself stands today."""
    if examined.policy is None:
        return []
    own = standing(examined.policy, now)[-len(examined.waivers) :] if examined.waivers else []
    return [
        Note(f"note: {_said(one)}", *place)
        for one, place in zip(own, examined.waivers, strict=True)
    ]


def _said(one: Standing) -> str:
    waiver, told = one.waiver, f"waiver {one.waiver.id!r} on {one.waiver.rule!r}"
    if one.status == "expired":
        return f"{told} has expired ({waiver.expires}) and does nothing: renew it or take it out"
    if one.approval.problem:
        return f"{told} does not count: {one.approval.problem}"
    return f"{told} counts until {waiver.expires} ({one.approval.said})"


def explain(policy: Policy, rule: str | None = None) -> list[Row]:
    """Each parameter of each rule and section (or of one): value, unit, order, who set it.

    Raises: UsageError for a rule that the policy does not have.
    """
    names = list(policy.parts) if rule is None else [rule]
    rows = []
    for name in names:
        params = policy.parts[name] if name in SECTIONS else policy.rule(name)
        controls = tuple(c.label for c in controls_of(name))
        for key, parameter in params.parameters().items():
            place = policy.origins.get((name, key))
            rows.append(
                Row(
                    rule=name,
                    parameter=key,
                    value=getattr(params, key),
                    unit=parameter.unit,
                    tighter=parameter.tighter,
                    origin=f"{place[0]}:{place[1]}" if place else "default",
                    doc=parameter.doc,
                    controls=controls,
                )
            )
    return rows
