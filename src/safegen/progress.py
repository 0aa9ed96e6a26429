"""How a long step shows that it is alive: a bar on terminals and in Jupyter, else a log line."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["progress"]

_LOG = logging.getLogger("safegen")
_EVERY = 30.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Give a function to call with the number of steps done since the last call."""
    if (notebook := _in_notebook()) is not None:
        yield notebook(what, total)
        return
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda n: bar.advance(task, n)
        return
    done = 0
    last = time.monotonic()

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last >= _EVERY:
            last = time.monotonic()
            _LOG.info("%s: %s of %s", what, f"{done:,}", f"{total:,}")

    yield advance


def _in_notebook() -> Callable[[str, int], Callable[[int], None]] | None:
    """How to show progress in a Jupyter kernel: one line that changes; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if getattr(shell, "kernel", None) is None:
        return None
    from IPython.display import display

    def line(what: str, total: int) -> Callable[[int], None]:
        handle = display(  # type: ignore[no-untyped-call]
            {"text/plain": f"{what}: 0 of {total:,}"}, raw=True, display_id=True
        )
        done = 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            handle.update({"text/plain": f"{what}: {done:,} of {total:,}"}, raw=True)

        return advance

    return line
