"""The Ray cluster to work on: the one this process has joined, `$RAY_ADDRESS`'s, or one of our own.

What was not started or joined here is left as it is. What is started here is gone when it is no
longer needed, also where this process is killed: Linux then ends its children.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from safegen.errors import BackendError, MissingExtra, hidden, upstream
from safegen.processes import cores

__all__ = ["cluster", "is_there", "library"]

_STORE = 256 << 20
"""Bytes of shared memory of a cluster of our own: a model, and the summaries of a few parts."""

_SOCKETS = 107 - 90
"""How long a folder may be in which Ray makes its sockets, whose paths have at most 107 bytes."""

_OWN = "local"
"""Ray's address of a cluster that it is to start."""

_TRIES = 3
"""Ray gives up when a start takes half a minute, as it may on a machine that has much to do."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # which it would send home
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # or it warns that it will be so
}


def library() -> Any:
    """The module `ray`. Raises: MissingExtra."""
    try:
        import ray
    except ImportError:
        raise MissingExtra("--engine ray needs Ray: pip install 'safegen[ray]'") from None
    return ray


def is_there() -> bool:
    """Whether there is a cluster already, that is not our own."""
    return library().is_initialized() or _address() != _OWN


def _address() -> str:
    return os.environ.get("RAY_ADDRESS") or _OWN


@contextmanager
def cluster(workers: int | None) -> Iterator[Any]:
    """The module `ray`, connected. A cluster of our own has a CPU for each of `workers`.

    Raises: MissingExtra; BackendError where no cluster answers, or none can be started.
    """
    ray = library()
    if ray.is_initialized():
        yield ray
        return
    with _quiet(), _joined(ray) if _address() != _OWN else _started(ray, workers or cores()):
        yield ray


@contextmanager
def _joined(ray: Any) -> Iterator[None]:
    """Inside, this process belongs to the cluster of `$RAY_ADDRESS`. Raises: BackendError."""
    with _connected(ray, "joined at $RAY_ADDRESS", _address()):
        yield


@contextmanager
def _started(ray: Any, cpus: int) -> Iterator[None]:
    """Inside, there is a cluster of our own. Raises: BackendError."""
    with ExitStack() as stack:
        for tried in range(_TRIES):
            home = stack.enter_context(_home())
            try:
                started = _connected(
                    ray,
                    f"started here: Ray gave up {_TRIES} times, after half a minute each",
                    _OWN,
                    _SETTINGS,
                    num_cpus=cpus,
                    include_dashboard=False,
                    object_store_memory=_STORE,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(home / "r"),  # Ray lets everybody in: what is around it does not
                )
                stack.enter_context(started)
                break
            except BackendError:
                if tried + 1 == _TRIES:
                    raise
                stack.close()
        yield


@contextmanager
def _connected(
    ray: Any, what: str, address: str, settings: Mapping[str, str] | None = None, **more: Any
) -> Iterator[None]:
    try:
        with _as_it_was(settings or {}):
            ray.init(address, log_to_driver=False, configure_logging=False, **more)
    except Exception as error:
        ray.shutdown()
        text = f"no Ray cluster could be {what} ({upstream(error)})"
        raise BackendError(text) from hidden(error)
    except BaseException:
        ray.shutdown()
        raise
    try:
        yield
    finally:
        ray.shutdown(wait_for_processes=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray's own log says only what fails."""
    log = logging.getLogger("ray")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _home() -> Iterator[Path]:
    """A folder for this user only, with a short name, for logs, sockets and what is spilled."""
    usual = tempfile.gettempdir()
    short = usual if len(os.fsencode(usual)) <= _SOCKETS else "/tmp"
    home = Path(tempfile.mkdtemp(prefix="safegen-ray-", dir=short))
    try:
        yield home
    finally:
        _end_what_uses(home)
        shutil.rmtree(home, ignore_errors=True)


def _end_what_uses(home: Path) -> None:
    """End what was started there and is still running: Ray forgets it when its start fails, or is
    interrupted."""
    for process in Path("/proc").glob("[0-9]*"):  # Linux
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and os.fsencode(home) in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@contextmanager
def _as_it_was(settings: Mapping[str, str]) -> Iterator[None]:
    """Inside, with these settings; after, the process is as it was: `ray.init` changes its
    environment, what SIGTERM does, and whether a crash is traced."""
    main = threading.current_thread() is threading.main_thread()
    before, tracing = dict(os.environ), faulthandler.is_enabled()
    terminated = signal.getsignal(signal.SIGTERM) if main else None
    os.environ.update({name: value for name, value in settings.items() if name not in before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update({n: v for n, v in before.items() if os.environ.get(n) != v})
        if terminated is not None:
            signal.signal(signal.SIGTERM, terminated)
        if not tracing:
            faulthandler.disable()
