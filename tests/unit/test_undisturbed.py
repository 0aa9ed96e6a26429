"""What the caller has set reaches no model, and is as it was afterwards; also with two threads."""

from __future__ import annotations

import contextlib
import logging
import random
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import pytest

from safegen.backends.networks import seeded, torch_seed
from safegen.backends.undisturbed import one_thread, undisturbed
from safegen.testing.process import disturbed, global_state

Inside = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=[undisturbed, one_thread])
def inside(request: Any) -> Inside:
    inside: Inside = request.param
    return inside


@contextlib.contextmanager
def _double(torch: Any) -> Any:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def _medium(torch: Any) -> Any:
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


@contextlib.contextmanager
def _nowhere(torch: Any) -> Any:
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
    "dtype": _double,
    "precision": _medium,
    "device": _nowhere,
    "device as context": lambda torch: torch.device("meta"),
    "autocast": lambda torch: torch.autocast("cpu", torch.bfloat16),
    "no gradients": lambda torch: torch.no_grad(),
    "inference": lambda torch: torch.inference_mode(),
}


def _settings(torch: Any) -> tuple[Any, ...]:
    """What a network sees: of its numbers, of its gradients, of a product."""
    weight = torch.ones(2, 2, requires_grad=True)
    product = weight @ weight
    return (
        weight.dtype,
        weight.device.type,
        product.dtype,
        product.requires_grad,
        product.is_inference(),
        torch.get_float32_matmul_precision(),
    )


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_setting_reaches_no_network(setting: str, inside: Inside) -> None:
    torch = pytest.importorskip("torch")
    plain = _settings(torch)
    with SETTINGS[setting](torch):
        other = _settings(torch)
        assert other != plain
        with inside():
            assert _settings(torch) == plain
        assert _settings(torch) == other
        with pytest.raises(ValueError, match="inside"), inside():
            raise ValueError("inside")
        assert _settings(torch) == other
    assert _settings(torch) == plain


def test_a_disturbed_process_is_one_for_which_the_guard_is_needed() -> None:
    torch = pytest.importorskip("torch")
    plain = _settings(torch)
    before = global_state()
    with disturbed():
        assert {
            "torch's default dtype",
            "torch's precision of products",
            "torch's gradient mode",
            "torch's autocast",
        } < set(before.changed())
        with undisturbed():
            assert _settings(torch) == plain
    assert not before.changed()


def test_sums_have_one_thread_in_blas_and_in_torch(inside: Inside) -> None:
    torch = pytest.importorskip("torch")
    threadpoolctl = pytest.importorskip("threadpoolctl")
    np.ones((2, 2)) @ np.ones((2, 2))

    def counts() -> list[int]:
        return [
            torch.get_num_threads(),
            *(p["num_threads"] for p in threadpoolctl.threadpool_info()),
        ]

    threads = torch.get_num_threads()
    try:
        with threadpoolctl.threadpool_limits(2):
            torch.set_num_threads(2)
            assert set(counts()) == {2}
            with inside():
                assert set(counts()) == {1}
            assert set(counts()) == {2}
    finally:
        torch.set_num_threads(threads)


def test_overlapping_calls_leave_the_process_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    out, disabled = sys.stdout, logging.root.manager.disable
    before = global_state()
    first_in, second_tries = threading.Event(), threading.Event()
    order: list[str] = []

    def first() -> None:
        with undisturbed():
            first_in.set()
            second_tries.wait(10)
            random.random()
            order.append("first leaves")

    def second() -> None:
        first_in.wait(10)
        threading.Timer(0.2, second_tries.set).start()
        with one_thread(), undisturbed():
            order.append("second enters")
            np.random.random()
            torch.rand(1)
            threading.Event().wait(0.1)  # unless it waited, the first one leaves now

    threads = [threading.Thread(target=work) for work in (second, first)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert order == ["first leaves", "second enters"]
    assert sys.stdout is out
    assert logging.root.manager.disable == disabled
    assert not before.changed()


def test_a_seed_for_the_cpu_wakes_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def woken(*_: Any, **__: Any) -> None:
        raise AssertionError("a GPU is seeded")

    for name in ("device_count", "manual_seed", "manual_seed_all", "current_device"):
        monkeypatch.setattr(torch.cuda, name, woken)
    before = torch.get_rng_state()
    draws = []
    for device in (None, torch.device("cpu")):
        with seeded(5, device):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)


class _FakeGPUs:
    """The states of two GPUs' generators, as torch.cuda gives and takes them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        import torch

        self.states = [torch.tensor([1]), torch.tensor([2])]
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: list(self.states))
        monkeypatch.setattr(torch.cuda, "set_rng_state_all", self.put)

    def put(self, states: list[Any]) -> None:
        self.states = list(states)


def test_gpus_in_use_keep_their_random_states(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    gpus = _FakeGPUs(monkeypatch)
    with undisturbed():
        gpus.states[1] = torch.tensor([7])
    assert [int(s) for s in gpus.states] == [1, 2]


def test_noise_starts_from_more_than_32_bits() -> None:
    starts = [torch_seed(3, 0, batch) for batch in range(64)]
    assert len(set(starts)) == 64
    assert all(0 <= start < 2**63 for start in starts)
    assert max(starts) > 2**60
