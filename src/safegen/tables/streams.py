"""Streams of random numbers, named by a seed and a path of numbers."""

from __future__ import annotations

import numpy as np

__all__ = ["stream"]


def stream(seed: int, *path: int) -> np.random.SeedSequence:
    """The stream of a seed (0 to 2^63 - 1, as all of safegen's) and a path, such as a block's
    number and a column's.

    Each pair has a stream of its own. A list as entropy would not do: numpy cuts its numbers into
    words of 32 bits and pads with zeros, so that [7, 1] is 7 + 2^32, and [7] is [7, 0].
    """
    return np.random.SeedSequence(
        seed, spawn_key=tuple(word for number in path for word in divmod(number, 2**32))
    )
