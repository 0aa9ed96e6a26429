"""A warning for rows that count differently, and are used as if they did not."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from safegen.errors import SafegenWarning
from safegen.tables.batches import WEIGHT_COLUMN

__all__ = ["warn_of_weights", "weights_asked"]

_told: set[str] = set()  # ids of datasets, in this process


def weights_asked(dataset_id: str) -> None:
    """Whoever asks for a dataset's weights need not be told of them."""
    _told.add(dataset_id)


def warn_of_weights(dataset_id: str, what: str) -> None:
    """Say, once per process and dataset, that its rows are used without their weights."""
    if dataset_id in _told:
        return
    _told.add(dataset_id)
    warnings.warn(
        f"{what}: its rows count differently, and are used here without their weights. Multiply "
        "the loss of each row by its weight: ds = safegen.open(…); ds.weights(), asked for before "
        f"the rows, or the column {WEIGHT_COLUMN} with provenance=True. Or train on "
        "ds.resampled(), whose rows count alike.",
        SafegenWarning,
        stacklevel=_outside(),
    )


def _outside() -> int:
    """How far up the caller of safegen is."""
    here, level = str(Path(__file__).parents[1]), 1
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(here):
        frame, level = frame.f_back, level + 1
    return level
