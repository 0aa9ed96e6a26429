"""How a long step shows that it is alive: a bar on terminals and in Jupyter, else a log line."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from functools import partial
from typing import TextIO

__all__ = ["progress"]

_LOG = logging.getLogger("safegen")
_LOG_SECONDS = 30.0
_LINE_SECONDS = 0.2


@contextmanager
def progress(what: str, total: int, unit: str = "steps") -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of steps done since the last call.

    Shows how far it is, how many `unit`s a second are done, and how long the rest will take. What
    is shown goes to the standard error of the moment of entering, also when a library's output is
    kept silent inside.
    """
    show, close = _shown(what, total, unit)
    done, start = 0, time.monotonic()

    def advance(n: int) -> None:
        nonlocal done
        done += n
        show(done, time.monotonic() - start)

    try:
        yield advance
    finally:
        close()


_Show = Callable[[int, float], None]  # (steps done, seconds since the start)


def _shown(what: str, total: int, unit: str) -> tuple[_Show, Callable[[], None]]:
    if (line := _notebook_line()) is not None:
        return _every(_LINE_SECONDS, total, lambda d, s: line(_text(what, d, total, unit, s))), _no
    stderr = sys.stderr
    if not stderr.isatty():
        log = partial(_log, stderr)
        return _every(_LOG_SECONDS, None, lambda d, s: log(_text(what, d, total, unit, s))), _no
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        console=Console(file=stderr),
        transient=True,
    )
    task = bar.add_task(what, total=total)
    bar.start()

    def update(done: int, seconds: float) -> None:
        bar.update(task, completed=done, description=_text(what, done, total, unit, seconds))

    return _every(_LINE_SECONDS, total, update), bar.stop


def _text(what: str, done: int, total: int, unit: str, seconds: float) -> str:
    text = f"{what}: {done:,} of {total:,} {unit}"
    if not done or not seconds:
        return text
    rate = done / seconds
    speed = f"{rate:,.0f} {unit}/s" if rate >= 1 else f"{1 / rate:,.0f} s each"
    return f"{text}, {speed}, {_duration((total - done) / rate)} left"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _every(interval: float, total: int | None, show: _Show) -> _Show:
    """`show`, at most once an interval; and at `total`, where the end is to be seen."""
    last = 0.0

    def shown(done: int, seconds: float) -> None:
        nonlocal last
        if seconds - last >= interval or done == total:
            last = seconds
            show(done, seconds)

    return shown


def _no() -> None:
    pass


def _log(stderr: TextIO, text: str) -> None:
    """Log also while a library is kept silent (`backends.undisturbed`)."""
    manager = logging.root.manager
    disabled, manager.disable = manager.disable, logging.NOTSET
    try:
        with redirect_stderr(stderr):
            _LOG.info(text)
    finally:
        manager.disable = disabled


def _notebook_line() -> Callable[[str], None] | None:
    """How to show a line that changes in a Jupyter kernel; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    handle = display(  # type: ignore[no-untyped-call]
        {"text/plain": ""}, raw=True, display_id=True
    )
    return lambda text: handle.update({"text/plain": text}, raw=True)
