"""No two names of a random stream mean the same one."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from safegen.tables.streams import stream


def _start(seed: int, *path: int) -> bytes:
    return np.random.default_rng(stream(seed, *path)).bytes(32)


def test_streams_of_other_names_are_others() -> None:
    far = 2**32
    seeds = (0, 7, 7 + far, 7 + 2 * far, far, 2**63 - 1)
    numbers = (0, 1, 7, far, far + 1)
    names = [(s, *path) for s in seeds for path in [(), *((n,) for n in numbers)]]
    names += [(s, a, b) for s in seeds for a in numbers for b in numbers]
    names += [(s, a, 0, 0) for s in seeds for a in numbers]
    starts = [_start(*name) for name in names]
    shared = [
        (a[0], b[0]) for a, b in combinations(zip(names, starts, strict=True), 2) if a[1] == b[1]
    ]
    assert not shared


def test_a_stream_repeats() -> None:
    assert _start(7, 1, 2) == _start(7, 1, 2)
