"""Callbacks for training loops: they refuse at the start, and write into each checkpoint what the
training reads.

    from safegen.callbacks import TrainerGuard     # Trainer of transformers
    from safegen.callbacks import LightningGuard   # Trainer of Lightning
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safegen.callbacks.lightning import LightningGuard
    from safegen.callbacks.trainer import TrainerGuard

__all__ = ["LightningGuard", "TrainerGuard"]

_HOME = {
    "LightningGuard": "safegen.callbacks.lightning",
    "TrainerGuard": "safegen.callbacks.trainer",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'safegen.callbacks' has no attribute {name!r}")
