"""The process around a call: what it leaves behind, what disturbs it, what interrupts it."""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["children", "disturbed", "interrupted", "observed", "watched"]

PATIENCE = 3.0
"""Seconds that a process has to end when the fit that started it is over."""


@dataclass(frozen=True)
class _GlobalState:
    """What belongs to the whole process, at one moment."""

    values: dict[str, Any]

    def changed(self) -> list[str]:
        """What is otherwise now. A library that was loaded since then counts for nothing."""
        now = global_state().values
        return [name for name, value in self.values.items() if now[name] != value]


def global_state() -> _GlobalState:
    """Random states and settings of Python, numpy and, when it is loaded, torch."""
    import numpy as np

    values: dict[str, Any] = {
        "Python's random state": random.getstate(),
        "numpy's random state": repr(np.random.get_state(legacy=False)),
        "numpy's error handling": np.geterr(),
        "the working folder": os.getcwd(),
    }
    if (torch := sys.modules.get("torch")) is not None:
        values |= {
            "torch's random state": torch.get_rng_state().numpy().tobytes(),
            "torch's number of threads": torch.get_num_threads(),
            "torch's default dtype": torch.get_default_dtype(),
            "torch's default device": torch.get_default_device(),
            "torch's precision of products": torch.get_float32_matmul_precision(),
            "torch's gradient mode": torch.is_grad_enabled(),
            "torch's autocast": [torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")],
            "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states = torch.cuda.get_rng_state_all()
            values["the GPUs' random states"] = [s.numpy().tobytes() for s in states]
    return _GlobalState(values)


@contextlib.contextmanager
def observed() -> Iterator[Callable[[], list[str]]]:
    """Gives what was changed since. Inside, random states are fresh, so that a seed shows."""
    with _restored():
        _seed(int.from_bytes(os.urandom(4), "little"))
        yield global_state().changed


@contextlib.contextmanager
def disturbed() -> Iterator[None]:
    """Inside, the process is as other code may leave it: other random states, and torch, when it
    is loaded, with other threads, dtype and precision, with autocast and without gradients."""
    torch = sys.modules.get("torch")
    with _restored(), contextlib.ExitStack() as stack:
        _seed(1234)
        if torch is not None:
            threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
            stack.callback(torch.set_num_threads, threads)
            stack.callback(torch.set_default_dtype, torch.get_default_dtype())
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_num_threads(1 if threads > 1 else 2)
            torch.set_default_dtype(torch.float64)
            torch.set_float32_matmul_precision("medium")
            stack.enter_context(torch.autocast("cpu", torch.bfloat16))
            stack.enter_context(torch.no_grad())
        yield


def _seed(seed: int) -> None:
    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(seed)


@contextlib.contextmanager
def _restored() -> Iterator[None]:
    """After, the random states and the working folder are as before."""
    import numpy as np

    python, legacy, folder = random.getstate(), np.random.get_state(), os.getcwd()
    torch = sys.modules.get("torch")
    tensor = torch.get_rng_state() if torch is not None else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        os.chdir(folder)
        if torch is not None:
            torch.set_rng_state(tensor)


@contextlib.contextmanager
def watched() -> Iterator[Callable[[], list[str]]]:
    """Inside, the working and the temporary folder are empty ones; gives what was left in them.

    Processes that were started and still run count as well.
    """
    before = children()
    with tempfile.TemporaryDirectory(prefix="safegen-watched-") as name:
        here, there = Path(name, "working"), Path(name, "temporary")
        here.mkdir()
        there.mkdir()
        was, variable, folder = os.getcwd(), os.environ.get("TMPDIR"), tempfile.tempdir

        def left() -> list[str]:
            files = sorted({*here.rglob("*"), *there.rglob("*")})
            return [
                *(f"in the {p.relative_to(name).as_posix()} folder" for p in files),
                *(f"process {pid}" for pid in _still(before)),
            ]

        os.chdir(here)
        os.environ["TMPDIR"] = tempfile.tempdir = str(there)
        try:
            yield left
        finally:
            os.chdir(was)
            tempfile.tempdir = folder
            if variable is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = variable


def children() -> set[int]:
    """The processes that this one started (none where the system does not say)."""
    found: set[int] = set()
    for listed in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found |= {int(pid) for pid in listed.read_text().split()}
    return found


def _still(before: set[int]) -> set[int]:
    """The new processes that do not end within a few seconds."""
    end = time.monotonic() + PATIENCE
    while (new := children() - before) and time.monotonic() < end:
        time.sleep(0.05)
    return new


def interrupted(
    call: Callable[[], object], after: float
) -> tuple[type[BaseException] | None, float]:
    """What comes out of a call into which a KeyboardInterrupt is raised after so many seconds.

    It is raised where Ctrl-C would raise it, at a Python call of this thread. None for a call that
    was over before; gives also the seconds that it took. Raises: AssertionError when the call
    caught it and went on.
    """
    start = time.perf_counter()
    raised = False

    def hook(frame: Any, event: str, argument: Any) -> None:
        nonlocal raised
        if event == "call" and time.perf_counter() - start > after:
            sys.setprofile(None)
            raised = True
            raise KeyboardInterrupt

    profile = sys.getprofile()
    try:
        sys.setprofile(hook)
        call()
    except (KeyboardInterrupt, Exception) as error:
        if not raised:
            raise
        return type(error), time.perf_counter() - start
    finally:
        sys.setprofile(profile)
    assert not raised, "the fit goes on after Ctrl-C"
    return None, time.perf_counter() - start
