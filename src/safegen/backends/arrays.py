"""Arrays on disk without pickle, and the numbers of a block."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from safegen.errors import UsageError

__all__ = ["check_block", "load_arrays"]


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `np.savez` wrote. Raises: OSError, EOFError, ValueError for anything else."""
    # Opened here: numpy leaves a file open that it opened and could not read.
    with path.open("rb") as stream:
        try:
            return dict(np.load(stream, allow_pickle=False))
        except BadZipFile:
            raise ValueError from None


def check_block(rows: int, block_rows: int, seed: int, block: int) -> None:
    """Raises: UsageError for what no block can be asked for."""
    if not 0 <= rows <= block_rows:
        raise UsageError(f"a block has 0 to {block_rows:,} rows, not {rows}")
    if seed < 0 or block < 0:
        raise UsageError("seed and block are 0 or more")
