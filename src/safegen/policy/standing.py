"""Which of a policy's waivers stand today for some sources, and what they lower a rule to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

from safegen.policy.model import Policy, is_locked
from safegen.policy.params import RuleParams
from safegen.policy.waiver import Approval, Subject, Waiver, WaiverStatus, approved

__all__ = ["Standing", "lowered", "standing"]

P = TypeVar("P", bound=RuleParams)


@dataclass(frozen=True, slots=True)
class Standing:
    """A waiver as it stands on a day: "not needed" where it may be applied, else why not."""

    waiver: Waiver
    status: WaiverStatus
    approval: Approval

    def to_json(self, status: WaiverStatus | None = None) -> dict[str, Any]:
        """As decisions keep it, which know what came of it."""
        told = self.waiver.model_dump(mode="json", exclude={"signatures"}, exclude_none=True)
        signed = {"signed": self.approval.said, "signed_by": list(self.approval.signed_by)}
        problem = {"problem": self.approval.problem} if self.approval.problem else {}
        return {"status": status or self.status, **told, **signed, **problem}


def standing(
    policy: Policy, now: date | datetime, sources: Iterable[Subject] | None = None
) -> list[Standing]:
    """Every waiver of the policy as it stands for these sources; without any, for all that is
    within its scope. Raises: UsageError for a time without its zone."""
    named = None if sources is None else [tuple(s) for s in sources]
    found = []
    for waiver in policy.waivers:
        locked = any(is_locked(policy.locked, waiver.rule, key) for key in waiver.params)
        approval = approved(waiver, policy.approvals, locked=locked)
        status: WaiverStatus = "not needed"
        if waiver.expired(now):
            status = "expired"
        elif approval.problem:
            status = "not accepted"
        elif named is not None and not waiver.covers(named):
            status = "out of scope"
        found.append(Standing(waiver, status, approval))
    return found


def lowered(rule: P, waivers: Sequence[Waiver]) -> tuple[P, tuple[str, ...]]:
    """A rule's parameters with what waivers lower them to, the loosest of each, and the ids of the
    waivers that do so."""
    values: dict[str, Any] = {}
    by: dict[str, str] = {}
    for waiver in waivers:
        for key, value in waiver.params.items():
            parameter = type(rule).parameters()[key]
            before = values.get(key, getattr(rule, key))
            change = parameter.compare(before, value)
            if change == "LOOSEN" or (change == "INCOMPARABLE" and key not in values):
                values[key], by[key] = value, waiver.id
    if not values:
        return rule, ()
    ids = tuple(dict.fromkeys(w.id for w in waivers if w.id in by.values()))
    return type(rule).model_validate({**rule.model_dump(), **values}), ids
