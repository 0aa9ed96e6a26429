"""Calling a library without its side effects: random states, threads, warnings, prints, logs."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import sys
import warnings
from collections.abc import Iterator
from typing import NoReturn

from safegen.errors import BackendError, SafegenError, hidden, upstream

__all__ = ["failing", "undisturbed"]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Inside, upstream may do as it likes; outside nothing shows.

    Restores Python's, numpy's and (when loaded) torch's random state; one BLAS thread and no
    process pool, so that the same seed gives the same bytes on any number of cores; and torch's
    own default dtype, whatever the caller has set.
    """
    import numpy as np

    python, legacy = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    tensor = torch.get_rng_state() if torch is not None else None
    dtype = torch.get_default_dtype() if torch is not None else None
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        if torch is not None:
            torch.set_default_dtype(torch.float32)
        with contextlib.ExitStack() as stack:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
            with contextlib.suppress(ImportError):
                from threadpoolctl import threadpool_limits

                stack.enter_context(threadpool_limits(1))
            with contextlib.suppress(ImportError):
                import joblib

                stack.enter_context(joblib.parallel_config(backend="sequential"))
            yield
    finally:
        logging.disable(disabled)
        random.setstate(python)
        np.random.set_state(legacy)
        if torch is not None and tensor is not None:
            torch.set_rng_state(tensor)
            torch.set_default_dtype(dtype)


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
