"""Policies from plain values, without a file: what a reader of YAML would have made of them."""

from __future__ import annotations

from typing import Any

from safegen.policy.document import Node

__all__ = ["node"]


def node(plain: Any) -> Node:
    """The values as a document has them, all on its first line."""
    if isinstance(plain, dict):
        return Node({key: node(value) for key, value in plain.items()}, 1)
    return Node([node(v) for v in plain] if isinstance(plain, list) else plain, 1)
