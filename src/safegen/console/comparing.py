"""What going from one policy to another tightens and loosens, as JSON and as a table."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from safegen.console.layout import banner, listing, tag
from safegen.pages.html import breaking, text
from safegen.policy import Difference, Policy, diff

__all__ = ["compared", "difference"]


def compared(old: Policy, new: Policy) -> dict[str, Any]:
    """What going from one policy to another tightens and loosens, as JSON."""
    found = diff(old, new)
    counts = Counter[str](d.change for d in found)
    return {
        "from": {"id": old.id, "version": old.version, "digest": old.digest},
        "differences": [_plain(d) for d in found],
        "loosens": counts["LOOSEN"],
        "tightens": counts["TIGHTEN"],
        "incomparable": counts["INCOMPARABLE"],
    }


def _plain(one: Difference) -> dict[str, Any]:
    said = asdict(one)
    for key in ("before", "after"):
        if not isinstance(said[key], dict | str | int | float | bool | None):
            said[key] = str(said[key])
    return said


_CHANGES = {"LOOSEN": "block", "TIGHTEN": "pass", "INCOMPARABLE": "warn"}


def difference(changes: dict[str, Any]) -> str:
    rows = [
        (
            tag(d["change"].lower(), _CHANGES.get(d["change"], "")),
            breaking(d["where"]),
            _value(d["before"]),
            _value(d["after"]),
            breaking(d["origin"]),
        )
        for d in changes["differences"]
    ]
    if not rows:
        return banner("pass", "Both ask the same")
    words = {"loosens": "loosened", "tightens": "tightened", "incomparable": "not comparable"}
    said = ", ".join(f"{changes[k]} {w}" for k, w in words.items() if changes[k])
    return banner("warn" if changes["loosens"] else "audit", said) + listing(
        "", ("change", "value", "before", "after", "set by"), rows
    )


def _value(value: Any) -> str:
    if isinstance(value, dict):  # a waiver
        return text(f"{value.get('rule')} lowered until {value.get('expires')}")
    return "none" if value is None else breaking(str(value))
