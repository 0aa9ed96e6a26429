"""What going from one policy to another does: which values become tighter, and which looser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from safegen.policy.model import Policy
from safegen.policy.params import Change, Section
from safegen.policy.waiver import Waiver

__all__ = ["Difference", "diff"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs. `where` is "rule.parameter", "section.parameter", "locked.PATH", or
    "waivers.ID".

    `before` and `after` are None where there is none. `origin` is the "file:line" that sets the new
    value, else the one that set the old; "default" where no file does.
    """

    change: Change
    where: str
    before: Any
    after: Any
    origin: str


def diff(old: Policy, new: Policy) -> list[Difference]:
    """Every value in which two policies differ in what they ask, in report order.

    Of a rule that is off in one of them only that is said: what its parameters are matters to
    nobody. A waiver that is new asks less, whether it is applied or not; so does one that ends
    later, holds for everything now, or lowers further. Other changes of one cannot be compared,
    and names, texts and contacts are no difference.
    """
    return [*_parts(old, new), *_locks(old, new), *_waivers(old, new)]


def _parts(old: Policy, new: Policy) -> Iterator[Difference]:
    for name in dict.fromkeys([*old.parts, *new.parts]):
        before, after = old.parts.get(name), new.parts.get(name)
        known = after or before
        assert known is not None
        both = _active(before) and _active(after)
        for key, parameter in type(known).parameters().items():
            if key != "severity" and not both:
                continue
            was, now = (getattr(r, key, None) for r in (before, after))
            if key == "severity":
                was, now = was or "off", now or "off"
            change = parameter.compare(was, now)
            if change != "SAME":
                yield Difference(change, f"{name}.{key}", was, now, _origin(old, new, name, key))


def _active(part: Section | None) -> bool:
    return part is not None and getattr(part, "severity", "enforce") != "off"


def _origin(old: Policy, new: Policy, rule: str, parameter: str) -> str:
    for policy in (new, old):
        if (place := policy.origins.get((rule, parameter))) is not None:
            return f"{place[0]}:{place[1]}"
    return "default"


def _locks(old: Policy, new: Policy) -> Iterator[Difference]:
    for path in sorted({*old.locked, *new.locked}):
        was, now = path in old.locked, path in new.locked
        if was != now:
            yield Difference("TIGHTEN" if now else "LOOSEN", f"locked.{path}", was, now, "default")


def _waivers(old: Policy, new: Policy) -> Iterator[Difference]:
    before, after = ({w.id: w for w in p.waivers} for p in (old, new))
    for one in dict.fromkeys([*before, *after]):
        was, now = before.get(one), after.get(one)
        if was != now:
            change: Change = "LOOSEN" if was is None else "TIGHTEN"
            if was is not None and now is not None:
                change = "LOOSEN" if _lowers_more(was, now, new) else "INCOMPARABLE"
            yield Difference(change, f"waivers.{one}", _said(was), _said(now), "default")


def _lowers_more(was: Waiver, now: Waiver, policy: Policy) -> bool:
    """Whether a changed waiver ends later, holds for everything, or lowers more or further."""
    known = type(policy.rules[now.rule]).parameters()
    further = now.rule != was.rule or any(
        key not in was.params or known[key].compare(was.params[key], value) == "LOOSEN"
        for key, value in now.params.items()
    )
    wider = now.scope is None and was.scope is not None
    return now.expires > was.expires or wider or further


def _said(waiver: Any) -> dict[str, Any] | None:
    return None if waiver is None else waiver.model_dump(mode="json")
