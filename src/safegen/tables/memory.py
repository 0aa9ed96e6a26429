"""How much memory a process may use, and whether rows fit into it.

The one place that decides whether sources are read as a whole or in passes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from safegen.tables.batches import Batches

__all__ = ["budget", "bytes_of", "fits"]

_SHARE = 8
"""A fit holds its rows several times: as they came, as numbers, and in the library's own form."""


def budget() -> int:
    """The bytes that the rows of a fit may have, as Arrow holds them: an eighth of what this
    process may use, which is the machine's memory or the limit of its control group."""
    return min(_limits(), default=sys.maxsize) // _SHARE


def _limits() -> Iterator[int]:
    if hasattr(os, "sysconf"):  # not on Windows
        yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in _limit_files():
        try:
            text = file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():  # "max" where there is none
            yield int(text)


def _limit_files(groups: Path = Path("/proc/self/cgroup")) -> Iterator[Path]:
    """Where Linux says what this process' control group, and the one of its container, may use."""
    root = Path("/sys/fs/cgroup")
    yield from (root / "memory.max", root / "memory" / "memory.limit_in_bytes")
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for number, controllers, path in (line.split(":", 2) for line in lines if line.count(":") > 1):
        if number == "0":
            yield root / path.strip("/") / "memory.max"
        elif "memory" in controllers.split(","):
            yield root / "memory" / path.strip("/") / "memory.limit_in_bytes"


def fits(tables: Iterable[Batches]) -> bool:
    """Whether tables can be held in memory together, or are there already."""
    tables = list(tables)
    if all(t.held for t in tables):
        return True
    left = budget()
    for table in tables:
        left -= bytes_of(table, left)
        if left < 0:
            return False
    return True


def bytes_of(batches: Batches, enough: float = float("inf")) -> int:
    """The bytes of a table in memory: its rows times what the first ones have; of a table whose
    number of rows nobody knows, of all batches until it is `enough`."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        if batches.rows is not None and batch.num_rows:
            return int(size / batch.num_rows * batches.rows)
        if size > enough:
            break
    return size
