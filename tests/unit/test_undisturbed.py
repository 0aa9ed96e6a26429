"""What the caller has set in torch reaches no network, and is as it was afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

from safegen.backends.networks import one_thread
from safegen.backends.undisturbed import undisturbed


@pytest.fixture
def double() -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(before)


@pytest.mark.parametrize("inside", [undisturbed, one_thread])
def test_a_callers_default_dtype_reaches_no_network(inside: Any, double: Any) -> None:
    context: AbstractContextManager[None] = inside()
    with context:
        assert double.zeros(1).dtype == double.float32
    assert double.zeros(1).dtype == double.float64

    def failing() -> None:
        with inside():
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        failing()
    assert double.zeros(1).dtype == double.float64
