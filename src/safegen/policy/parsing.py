"""From the nodes of a document to a pydantic model, or to what is wrong and where."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from safegen.policy.document import Node
from safegen.policy.wording import dotted, said

__all__ = ["parsed"]

M = TypeVar("M", bound=BaseModel)
Place = tuple[str | int, ...]


def parsed(
    model: type[M],
    content: Mapping[str, Node],
    place: Place = (),
    base: Mapping[str, Any] | None = None,
) -> tuple[M | None, list[tuple[str, Place]]]:
    """The model from nodes, over a `base`; else every problem with its place in the document, of
    which `content` is at `place`."""
    values: dict[str, Any] = dict(base or {})
    for key, node in content.items():
        own = node.plain()
        below = values.get(key)
        if isinstance(below, dict) and isinstance(own, dict):
            own = {**below, **own}
        values[key] = own
    try:
        # Through JSON, whose strict mode takes a list for a tuple and text for a date,
        # and still takes no text for a number.
        return model.model_validate_json(json.dumps(values)), []
    except ValidationError as error:
        found = []
        for details in error.errors(include_url=False):
            path = tuple(details["loc"])
            name = dotted((*place, *(path[:-1] if details["type"] == "extra_forbidden" else path)))
            message = said(details, model)
            found.append((f"{name}: {message}" if name else message, (*place, *path)))
        return None, found
