"""Threads, and processes of our own beside this one.

Each process is a fresh interpreter, not a fork: forking a process that has threads (BLAS, Arrow)
can hang, and multiprocessing's spawn re-runs the caller's script.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["abreast", "cores", "started"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def abreast(of: Callable[[_Item], _Made], items: Iterable[_Item]) -> Iterator[_Made]:
    """What a function makes of each of some items, in their order, in threads: for what Arrow,
    numpy and hashes do without Python's lock. Items are taken as they are needed."""
    with ThreadPoolExecutor(cores()) as pool:
        waiting: deque[Future[_Made]] = deque()
        for item in items:
            waiting.append(pool.submit(of, item))
            if len(waiting) > cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def started(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`python -m module arguments` with pipes for its input and output, and our search path."""
    path = os.pathsep.join([*(p for p in sys.path if p), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-P", "-W", "ignore", "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
    )
