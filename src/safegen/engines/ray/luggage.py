"""A saved model on its way through Ray: the files of a folder as pieces of bytes, each file with
its SHA-256, so that nothing is read from a file before all of it is known to have arrived whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from safegen.errors import BackendError

__all__ = ["Packed", "packed", "unpacked"]

Packed = tuple[str, str, list[Any]]
"""A file: its path in the folder, its digest, the references of its pieces. No class of ours: Ray
reads it where safegen may not be."""

_PIECE = 32 << 20
"""Bytes of a file that are in memory at once."""


def packed(folder: Path, put: Callable[[bytes], Any]) -> list[Packed]:
    """The files of a folder, each piece given to `put`."""
    found: list[Packed] = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest, pieces = hashlib.sha256(), []
        with file.open("rb") as source:
            while piece := source.read(_PIECE):
                digest.update(piece)
                pieces.append(put(piece))
        found.append((file.relative_to(folder).as_posix(), digest.hexdigest(), pieces))
    return found


def unpacked(files: Sequence[Packed], folder: Path, get: Callable[[Any], bytes]) -> None:
    """Write the files into a folder. Raises: BackendError for one that is not what was packed."""
    for name, sha256, pieces in files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with path.open("wb") as out:
            for reference in pieces:
                piece = get(reference)
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != sha256:
            raise BackendError(f"the model's {name} did not arrive as it was sent")
