"""Values that are given as NAME=VALUE."""

from __future__ import annotations

import json
from typing import Any

from safegen.errors import UsageError

__all__ = ["json_or_text", "options", "pairs"]


def pairs(given: list[str] | None, flag: str) -> dict[str, str]:
    """By name. Raises: UsageError for what is no pair."""
    found = {}
    for text in given or []:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise UsageError(f"{flag} takes NAME=VALUE")
        found[name] = value
    return found


def json_or_text(value: str) -> Any:
    """The value as JSON has it; else the text."""
    try:
        return json.loads(value)
    except ValueError:
        return value


def options(given: list[str] | None) -> dict[str, Any]:
    """What `--set` says of a backend's options."""
    return {name: json_or_text(value) for name, value in pairs(given, "--set").items()}
