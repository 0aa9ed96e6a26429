"""What a saved model is read with, its numbers checked; and the numbers of a block."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from safegen.errors import UsageError

__all__ = ["check_block", "load_arrays", "read_curves", "read_document", "whole"]


def read_document(path: Path, known: str) -> dict[str, Any]:
    """A model's JSON. Raises: OSError, ValueError for another format, or for NaN and infinity."""

    def refused(constant: str) -> None:
        raise ValueError(constant)

    document = json.loads(path.read_text(encoding="utf-8"), parse_constant=refused)
    if not isinstance(document, dict) or document["format"] != known:
        raise ValueError
    return document


def read_curves(given: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    """A model's curves. Raises: ValueError for what are no numbers."""
    curves = {str(name): [float(x) for x in curve] for name, curve in given.items()}
    if not all(math.isfinite(x) for curve in curves.values() for x in curve):
        raise ValueError
    return curves


def whole(number: object, low: int, high: int) -> int:
    """A whole number from `low` to `high`. Raises: ValueError for anything else."""
    if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
        raise ValueError
    return number


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `np.savez` wrote, of plain numbers. Raises: OSError, EOFError, ValueError, MemoryError
    for anything else."""
    # Opened here: numpy leaves a file open that it opened and could not read.
    with path.open("rb") as stream:
        try:
            with ZipFile(stream) as members:  # stored as it is: nothing grows when it is read
                if any(m.compress_size != m.file_size for m in members.infolist()):
                    raise ValueError
            stream.seek(0)
            arrays = dict(np.load(stream, allow_pickle=False))
        except BadZipFile:
            raise ValueError from None
    if not all(isinstance(a, np.ndarray) and a.dtype.kind in "biuf" for a in arrays.values()):
        raise ValueError
    return arrays


def check_block(rows: int, block_rows: int, seed: int, block: int) -> None:
    """Raises: UsageError for what no block can be asked for."""
    if not 0 <= rows <= block_rows:
        raise UsageError(f"a block has 0 to {block_rows:,} rows, not {rows}")
    if seed < 0 or block < 0:
        raise UsageError("seed and block are 0 or more")
