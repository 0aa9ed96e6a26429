"""Calling a library without its side effects: random states, threads, warnings, prints, logs."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

from safegen.errors import BackendError, SafegenError, hidden, upstream

__all__ = ["PROCESS", "failing", "one_thread", "undisturbed"]


PROCESS = threading.RLock()
"""Held while anything that belongs to the whole process is changed, until it is as it was: a second
thread waits, else each would restore what the other had set."""


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread for sums, so that they do not depend on the number of cores: BLAS's and torch's.

    And torch as it is when nobody has set anything, whatever the caller has: float32 on the CPU,
    in full precision, without autocast, with gradients (what needs none says so inside).
    """
    with PROCESS, contextlib.ExitStack() as stack:
        torch = sys.modules.get("torch")
        if torch is not None:  # first, thus restored last: BLAS can share its threads
            stack.callback(torch.set_num_threads, torch.get_num_threads())
        with contextlib.suppress(ImportError):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(1))
        if torch is not None:
            torch.set_num_threads(1)
            _plain(torch, stack)
        yield


def _plain(torch: Any, stack: contextlib.ExitStack) -> None:
    """Until the stack is closed, torch's settings are those that it starts with."""
    stack.callback(torch.set_default_dtype, torch.get_default_dtype())
    torch.set_default_dtype(torch.float32)
    if (precision := torch.get_float32_matmul_precision()) != "highest":
        stack.callback(torch.set_float32_matmul_precision, precision)
        torch.set_float32_matmul_precision("highest")
    if torch.get_default_device().type != "cpu":  # else no context: it slows every call
        stack.enter_context(torch.device("cpu"))
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            stack.enter_context(torch.autocast(kind, enabled=False))
    stack.enter_context(torch.inference_mode(False))  # which turns gradients on too


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, upstream may do as it likes; outside nothing shows.

    Restores Python's, numpy's and (when loaded) torch's random states; one thread and torch's own
    settings (see `one_thread`) and no process pool, so that the same seed gives the same bytes on
    any number of cores. One thread of the process at a time is inside.
    """
    import numpy as np

    with PROCESS, contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        if (torch := sys.modules.get("torch")) is not None:
            stack.callback(torch.set_rng_state, torch.get_rng_state())
            if torch.cuda.is_initialized():
                stack.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        stack.enter_context(one_thread())
        with contextlib.suppress(ImportError):
            import joblib

            stack.enter_context(joblib.parallel_config(backend="sequential"))
        yield


@contextlib.contextmanager
def failing(doing: str, library: str) -> Iterator[None]:
    """Turns any upstream exception into a BackendError with its type and place, not its text.

    The error named is the one at the bottom of the chain, because SDV rewrites what fails while
    sampling to "Sampling terminated…".
    """
    try:
        yield
    except SafegenError:
        raise
    except Exception as error:
        _raise(doing, library, error)


def _raise(doing: str, library: str, error: BaseException) -> NoReturn:
    root = error
    while (below := root.__cause__ or root.__context__) is not None:
        root = below
    raise BackendError(f"{library} failed while {doing} ({upstream(root)})") from hidden(error)
