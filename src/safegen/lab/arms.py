"""The arms of the laboratory: ways to choose what the next fit is shown."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from safegen.errors import UsageError
from safegen.lab import theory
from safegen.lab.theory import Moments

__all__ = ["ARMS", "CONTROLS", "GUARDED", "Arm", "chosen"]


@dataclass(frozen=True)
class Arm:
    """One way. `depth` of fit t is the effective depth of what it puts out; `expected`, of n rows
    and so many fits, its moments: None where nobody has a closed form."""

    name: str
    says: str
    depth: Callable[[int], float]
    expected: Callable[[int, int], list[Moments]] | None


def _harmonic(t: int) -> float:
    return sum(1 / i for i in range(1, t + 1))


def _kept(weight: float) -> Callable[[int], float]:
    """Where this share of the training rows is real: 1 + (1 − w) d, from 1 on."""
    return lambda t: (1 - (1 - weight) ** t) / weight


ARMS: tuple[Arm, ...] = (
    Arm("real-only", "n real rows each time", lambda t: 1.0, theory.real_only),
    Arm("replace", "n rows of the last fit", float, theory.replace),
    Arm("accumulate", "all rows so far", _harmonic, theory.accumulate),
    Arm("accumulate-subsample", "n of all rows so far", _harmonic, None),
    Arm(
        "keep-all",
        "all n real rows and n of the last fit's",
        _kept(1 / 2),
        lambda n, steps: theory.anchored(n, 1.0, steps),
    ),
    Arm(
        "keep-all-9",
        "all n real rows and 9 n of the last fit's",
        _kept(1 / 10),
        lambda n, steps: theory.anchored(n, 9.0, steps),
    ),
    Arm(
        "fresh-10",
        "a tenth new real rows, the rest of the last fit",
        _kept(1 / 10),
        lambda n, steps: theory.fresh(n, 0.1, steps),
    ),
    Arm(
        "fresh-50",
        "half new real rows, half of the last fit",
        _kept(1 / 2),
        lambda n, steps: theory.fresh(n, 0.5, steps),
    ),
)

GUARDED: tuple[Arm, ...] = (
    Arm("frozen", "n real rows once: every release is of the first fit", lambda t: 1.0, None),
    Arm("raw", "n rows of the last fit, by the backend's library alone", float, None),
    Arm(
        "safeguarded",
        "all n real rows and n of the last release, under the policy anchored",
        _kept(1 / 2),
        None,
    ),
    Arm("no-selection", "as safeguarded, without selection", _kept(1 / 2), None),
    Arm("no-limit", "as safeguarded, but all releases so far, whatever depth", _harmonic, None),
    Arm("no-anchor", "as safeguarded, but the last release alone", float, None),
    Arm("rake-only", "as raw, raked to the real columns one by one", float, None),
    Arm("top-k", "as keep-all, the quarter that looks most real", _kept(1 / 2), None),
    Arm("biased", "as keep-all, picked by who knows a part of reality", _kept(1 / 2), None),
    Arm("unweighted", "as replace, rare rows boosted and no weights used", float, None),
)
"""Arms of backends only, which nobody simulates: what safegen does, that with one safeguard off,
and, from `rake-only` on, controls that its gates have to find."""

CONTROLS = ("rake-only", "top-k", "biased", "unweighted")


def chosen(names: Sequence[str] | None, among: Collection[str] | None = None) -> list[Arm]:
    """The arms of these names, all for None, of those that an experiment has: `among`, or those
    that are simulated.

    Raises: UsageError for one that is not there.
    """
    from safegen.tables.schema import nearest

    there = ARMS if among is None else [a for a in (*ARMS, *GUARDED) if a.name in among]
    known = [arm.name for arm in there]
    if names is not None and not names:
        raise UsageError(f"arms: none; there are {', '.join(known)}")
    for name in known if names is None else names:
        if name not in known:
            raise UsageError(f"arms: no arm {name!r}{nearest(name, known)}")
    return [arm for arm in there if arm.name in (known if names is None else names)]
