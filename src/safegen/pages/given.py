"""Reading what a manifest's open parts hold. They may come from anybody: nothing is taken for
granted, and what has another form than it should have counts as not there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["findings", "finite", "items", "mapping", "pair", "texts", "within"]


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def texts(value: Any) -> list[str]:
    return [v for v in items(value) if isinstance(v, str)]


def finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def pair(value: Any) -> tuple[float, float] | None:
    """Two finite numbers."""
    numbers = [finite(v) for v in items(value)]
    if len(numbers) != 2 or numbers[0] is None or numbers[1] is None:
        return None
    return numbers[0], numbers[1]


def within(value: Any) -> tuple[float | None, float | None]:
    """A margin: the least and the most, None where there is no such end."""
    ends = items(value)
    return (finite(ends[0]), finite(ends[1])) if len(ends) == 2 else (None, None)


def findings(decision: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """By name, as a decision's JSON has them."""
    return {str(k): mapping(v) for k, v in mapping(decision.get("findings")).items()}
