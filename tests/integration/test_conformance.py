"""Every backend that ships passes the battery, and the battery finds one that does not conform."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from safegen import plugins
from safegen.testing import Rows, check_backend, example_table

FITTING = [n for n in plugins.names(plugins.BACKENDS) if n != "sdv.adopted"]


@pytest.mark.parametrize("name", FITTING)
def test_shipped_backends_conform(name: str) -> None:
    check_backend(plugins.load(plugins.BACKENDS, name)())


def test_the_test_backend_conforms() -> None:
    check_backend(Rows())


class _Model:
    def __init__(self, inner: Any, how: str):
        self.inner, self.how = inner, how

    def sample(self, rows: int, *, seed: int, block: int, conditions: Any = None) -> Any:
        if self.how == "short":
            rows -= rows > 10
        if self.how == "same":
            seed = 0
        made = self.inner.sample(rows, seed=seed, block=block)
        if self.how == "retyped":
            table = made["table"]
            made = {"table": table.set_column(0, "age", table.column("age").cast(pa.float64()))}
        return made

    def save(self, folder: Any) -> None:
        self.inner.save(folder)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("short", "where 17 were asked for"),
        ("same", "other seed, same rows"),
        ("retyped", "Arrow schema"),
    ],
)
def test_the_battery_finds_what_does_not_conform(how: str, message: str) -> None:
    class Bad(Rows):
        def fit(self, *args: Any, **more: Any) -> Any:
            return _Model(super().fit(*args, **more), how)

    with pytest.raises(AssertionError, match=message):
        check_backend(Bad())


def test_a_backend_that_touches_the_global_random_state_is_found() -> None:
    import numpy as np

    class Loud(Rows):
        def fit(self, *args: Any, **more: Any) -> Any:
            np.random.seed(0)
            return super().fit(*args, **more)

    with pytest.raises(AssertionError, match="global random state"):
        check_backend(Loud(), example_table(100))
