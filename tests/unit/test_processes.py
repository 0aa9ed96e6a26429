"""Work in threads: in order, and no further ahead than it has to be."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from safegen.processes import abreast, cores


def test_threads_give_things_in_order_and_take_few_at_a_time() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            taken.append(i)
            yield i

    first = threading.Event()

    def of(i: int) -> int:
        if i == 0:
            first.wait(5)  # the others are done before
        else:
            first.set()
        return i * i

    if cores() == 1:
        first.set()
    made = abreast(of, items())
    assert next(made) == 0
    assert len(taken) <= cores() + 1
    assert list(made) == [i * i for i in range(1, 50)]


def test_what_a_thread_raises_is_raised() -> None:
    def of(i: int) -> int:
        if i == 3:
            raise ValueError("three")
        return i

    made = abreast(of, range(9))
    assert [next(made) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        list(made)
