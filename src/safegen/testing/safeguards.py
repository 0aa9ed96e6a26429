"""The battery for safeguards."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from safegen.contracts import Safeguard
from safegen.decision import Finding

__all__ = ["check_safeguard"]


def check_safeguard(
    safeguard: Safeguard,
    params: Any,
    *,
    admissions: Iterable[Any] = (),
    releases: Iterable[Any] = (),
) -> None:
    """Whether a safeguard keeps the contract on given contexts.

    It must report at least one finding at each gate that its rule declares, for its own rule only,
    the same ones when asked twice, and change nothing that it looks at.
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
