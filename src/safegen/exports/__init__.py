"""Documents of other standards, each derived from a manifest: what their tools already read."""

from __future__ import annotations

import json

from safegen.errors import UsageError
from safegen.exports.card import card
from safegen.exports.croissant import croissant
from safegen.exports.cyclonedx import cyclonedx
from safegen.exports.openlineage import openlineage
from safegen.manifest import Manifest

__all__ = ["FORMATS", "exported"]

FORMATS = {
    "croissant": croissant,
    "openlineage": openlineage,
    "cyclonedx": cyclonedx,
    "card": card,
}
"""What makes each document, by the name of its format."""


def exported(manifest: Manifest, format: str) -> str:
    """A document of another standard about a dataset, as text. Raises: UsageError."""
    make = FORMATS.get(format)
    if make is None:
        raise UsageError(f"formats are {', '.join(FORMATS)}, not {format!r}")
    # Names in the order in which they are read back: one manifest has one text.
    made = make(Manifest.from_bytes(manifest.to_bytes()))
    text = made if isinstance(made, str) else json.dumps(made, indent=1, ensure_ascii=False)
    return text.rstrip("\n") + "\n"
