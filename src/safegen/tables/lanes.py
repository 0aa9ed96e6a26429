"""Rows expanded to lanes and added up, which is what a logical digest costs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

__all__ = ["EXPANSIONS", "LANES", "Lanes", "summed"]

LANES = 1024
_CHUNK = 256  # rows expanded at once: 512 KiB, which a core's cache holds

EXPANSIONS: dict[str, Callable[[bytes], Any]] = {
    "safegen-rows-v1": hashlib.shake_128,
    "safegen-rows-v2": blake3,
}
"""The hash by which each scheme expands a row; its output is as long as it is asked for."""

Lanes = npt.NDArray[np.uint16]


def summed(scheme: str, prefix: bytes, rows: bytes, count: int) -> Lanes:
    """The sum of the lanes of `count` rows, as long as each other."""
    total = np.zeros(LANES, dtype=np.uint16)
    data = memoryview(rows)
    width = len(data) // max(count, 1)
    base = EXPANSIONS[scheme](prefix)
    for first in range(0, count, _CHUNK):
        expanded = []
        for row in range(first, min(first + _CHUNK, count)):
            h = base.copy()
            h.update(data[row * width : (row + 1) * width])
            expanded.append(h.digest(2 * LANES))
        lanes = np.frombuffer(b"".join(expanded), dtype="<u2").reshape(-1, LANES)
        total += lanes.sum(axis=0, dtype=np.uint16)
    return total
