"""Processes of our own beside this one.

Each is a fresh interpreter, not a fork: forking a process that has threads (BLAS, Arrow) can hang,
and multiprocessing's spawn re-runs the caller's script.
"""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["cores", "started"]


def cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux
    return len(affinity(0)) if affinity else os.cpu_count() or 1


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
