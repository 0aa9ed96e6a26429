"""Settings of an experiment, checked before anything is simulated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safegen.errors import UsageError

__all__ = ["whole"]


def whole(**given: tuple[Any, int, int]) -> None:
    """Each setting, a number or several, is whole and within its least and its most.

    Raises: UsageError.
    """
    for name, (value, least, most) in given.items():
        numbers = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        if not numbers or any(type(n) is not int or not least <= n <= most for n in numbers):
            raise UsageError(f"{name}: whole numbers from {least:,} to {most:,}")
