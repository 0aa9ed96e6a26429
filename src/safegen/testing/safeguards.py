"""The battery for safeguards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from safegen.contracts import Safeguard, again, on_demand, rests_on
from safegen.decision import Finding
from safegen.grounds import kept_parts, read_parts

__all__ = ["check_safeguard"]


def check_safeguard(
    safeguard: Safeguard,
    params: Any,
    *,
    admissions: Iterable[Any] = (),
    releases: Iterable[Any] = (),
    others: Sequence[Any] = (),
) -> None:
    """Whether a safeguard keeps the contract on given contexts.

    It must report at least one finding at each gate that its rule declares, for its own rule only,
    the same ones when asked twice, and change nothing that it looks at. others: more parameters of
    the rule. What the safeguard says with them of the same contexts must be what its `rests_on`,
    `on_demand` and `again`, and the declared order of its parameters, say of the first findings.
    """
    assert isinstance(safeguard, Safeguard), "does not offer the members of contracts.Safeguard"
    gates = type(params).gates
    for gate, ask, contexts in (
        ("admission", safeguard.admission, admissions),
        ("release", safeguard.release, releases),
    ):
        for context in contexts:
            before = repr(context)
            found = list(ask(context, params))
            assert all(isinstance(f, Finding) for f in found), "gives something else than findings"
            assert {f.rule for f in found} <= {safeguard.rule}, "speaks for another rule"
            names = [f.check for f in found]
            assert len(set(names)) == len(names), "gives two findings of one name"
            assert bool(found) or gate not in gates, f"is silent at the {gate} gate"
            assert list(ask(context, params)) == found, "gives other findings when asked again"
            assert repr(context) == before, "changes what it looks at"
            for other in others:
                _foretold(safeguard, params, found, other, list(ask(context, other)))


def _foretold(
    safeguard: Safeguard, params: Any, found: list[Finding], other: Any, then: list[Finding]
) -> None:
    """Whether findings under other parameters are what can be said of them beforehand."""
    declared = type(params).parameters()
    changes = {}
    for key in type(params).model_fields:
        change = declared[key].compare(getattr(params, key), getattr(other, key))
        if change != "SAME" and key not in ("severity", "inconclusive"):
            changes[key] = change
    rests = rests_on(safeguard) or {}
    now = {f.check: f for f in then}
    demanded = on_demand(safeguard)
    for f in found:
        keys = rests.get(f.check, tuple(changes))
        mine = {change for key, change in changes.items() if key in keys}
        if f.check not in now:
            assert changes.get(demanded.get(f.check, "")) not in (None, "TIGHTEN"), (
                f"{f.check} is not asked any more, and on_demand does not say so"
            )
            continue
        judged = (now[f.check].status, now[f.check].at_most)
        recorded = replace(f, parts=read_parts(kept_parts(f.parts)))
        may_be = {(a.status, a.at_most) for a in again(safeguard, recorded, params, other)}
        assert not may_be or judged in may_be, f"again tells wrong of {f.check}"
        same = judged == (f.status, f.at_most)
        assert mine or same, f"{f.check} rests on more than rests_on says"
        kept = (mine, f.status) in (({"TIGHTEN"}, "unmet"), ({"LOOSEN"}, "met"))
        assert not kept or may_be or judged[0] == f.status, (
            f"{f.check} does not follow the declared order of its parameters"
        )
    if rests_on(safeguard) is not None:
        for check in now.keys() - {f.check for f in found}:
            assert changes.get(demanded.get(check, "")) not in (None, "LOOSEN"), (
                f"{check} is asked now, and on_demand does not say so"
            )
