"""Rows expanded to lanes and added up, which is what a logical digest costs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

__all__ = ["EXPANSIONS", "LANES", "Lanes", "in_pieces", "summed"]

LANES = 1024
_CHUNK = 256  # rows expanded at once: 512 KiB, which a core's cache holds

EXPANSIONS: dict[str, Callable[[bytes], Any]] = {
    "safegen-rows-v1": hashlib.shake_128,
    "safegen-rows-v2": blake3,
}
"""The hash by which each scheme expands a row; its output is as long as it is asked for."""

Lanes = npt.NDArray[np.uint16]


def in_pieces(rows: npt.NDArray[np.void]) -> Iterator[list[bytes]]:
    """Rows as bytes, as many at a time as are hashed at once."""
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK].tolist()


def summed(scheme: str, prefix: bytes, rows: npt.NDArray[np.void]) -> Lanes:
    """The sum of the rows' lanes."""
    total = np.zeros(LANES, dtype=np.uint16)
    copy = EXPANSIONS[scheme](prefix).copy
    for some in in_pieces(rows):
        expanded = []
        for row in some:
            h = copy()
            h.update(row)
            expanded.append(h.digest(2 * LANES))
        lanes = np.frombuffer(b"".join(expanded), dtype="<u2").reshape(-1, LANES)
        total += lanes.sum(axis=0, dtype=np.uint16)
    return total
