"""What another policy changes of a rule, from the recorded one as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from safegen.policy import Change, RuleParams

__all__ = ["Moved", "moved", "shaped_otherwise"]

_JUDGED = ("severity", "inconclusive")  # these change no finding: the decision applies them


@dataclass(frozen=True)
class Moved:
    """The parameters of a rule that are not what they were, and which way each went. `before`: all
    of them as they were, None where this version cannot read them."""

    before: RuleParams | None
    changes: Mapping[str, Change]


def moved(rules: Mapping[str, Any], rule: str, params: RuleParams, policy: Any) -> Moved | None:
    """What changes of a rule from recorded `rules` to these parameters in `policy`; None where the
    rule was off. A parameter that there was not yet had its default."""
    was = rules.get(rule)
    if was is None or was["severity"] == "off":
        return None
    declared = type(params).parameters()
    usual = type(params)(severity="enforce").model_dump(mode="json")
    now = params.model_dump(mode="json")
    changes: dict[str, Change] = {}
    for key in dict.fromkeys([*now, *was]):
        before = was.get(key, usual.get(key))
        if key in _JUDGED or before == now.get(key):
            continue
        known = key in declared and key in now
        changes[key] = declared[key].compare(before, now[key]) if known else "INCOMPARABLE"
    for key, change in _elsewhere(rules, rule, params, policy).items():
        changes.setdefault(key, change)
    try:
        before_ = type(params).model_validate_json(json.dumps(was))
    except ValidationError:
        before_ = None
    return Moved(before_, {k: c for k, c in changes.items() if c != "SAME"})


def _elsewhere(
    rules: Mapping[str, Any], rule: str, params: RuleParams, policy: Any
) -> dict[str, Change]:
    """What other rules change for this one: the keys by which a list of withdrawals is believed,
    and how many rows are held out, which is the most that any rule asks for."""
    if rule == "lineage" and params.withdrawals:  # type: ignore[attr-defined]
        keys = (rules.get("manifest") or {}).get("trusted_keys") or ()
        if set(keys) != set(policy.rule("manifest").trusted_keys):
            return {"withdrawals": "INCOMPARABLE"}
    if "held_out" in type(params).model_fields:
        held = type(params).parameters()["held_out"].compare(_held_out(rules), policy.held_out)
        return {"held_out": held}
    return {}


def _held_out(rules: Mapping[str, Any]) -> float:
    active = [r for r in rules.values() if r["severity"] != "off"]
    return max((float(r.get("held_out", 0)) for r in active), default=0.0)


def shaped_otherwise(rules: Mapping[str, Any], policy: Any) -> tuple[str, ...]:
    """The rules by which rows would have been made otherwise under `policy`."""
    shaping = {name: params for name, params in policy.rules.items() if not params.gates}
    now = {name: _shape(params.model_dump(mode="json")) for name, params in shaping.items()}
    found = [name for name in now if now[name] != _shape(rules.get(name))]
    return (*found, *(["held_out"] if _held_out(rules) != policy.held_out else []))


def _shape(rule: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if rule is None or rule["severity"] == "off":
        return None
    return {key: value for key, value in rule.items() if key != "severity"}
