"""A waiver to be filled in, in the text of a policy file."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from safegen.policy import RULES, Policy

__all__ = ["with_waiver"]

_LASTS = timedelta(days=30)
_LIST = re.compile(r"^waivers:[ \t]*(#.*)?\n(?=( *)- )", re.MULTILINE)

_NONE = re.compile(r"^waivers:[ \t]*\[[ \t]*\][ \t]*(#.*)?$", re.MULTILINE)


def with_waiver(text: str, rule: str, policy: Policy | None) -> str:
    """The text with a waiver of a rule to be filled in; before those that it has."""
    text = _NONE.sub("", text)
    found = _LIST.search(text)
    if found is None:
        return f"{text.rstrip()}\n\nwaivers:\n{_draft(rule, policy, '  ')}"
    at = found.end()
    return text[:at] + _draft(rule, policy, found[2]) + text[at:]


def _draft(rule: str, policy: Policy | None, indent: str) -> str:
    """What is not filled in is a problem that lint points at."""
    today = datetime.now(UTC).date()
    params = RULES[rule](severity="enforce") if policy is None else policy.rule(rule)
    values = {k: getattr(params, k) for k in type(params).parameters() if k != "severity"}
    lowered = [
        f"    # {name}: {_written(value)}"
        for name, value in values.items()
        if isinstance(value, bool | int | float | str)
    ]
    lines = [
        f"- id: {rule}-{today}",
        f"  rule: {rule}",
        "  params:  # take the sign away before what is to be lowered, and say to which value",
        *lowered,
        "  # scope: whom it holds for, by dataset id, digest or place; without it, everything",
        '  reason: ""',
        '  ticket: ""',
        '  requested_by: ""',
        "  approved_by: []",
        f"  expires: {today + _LASTS}",
    ]
    return "".join(f"{indent}{line}\n" for line in lines)


def _written(value: bool | int | float | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if value == "" else str(value)
