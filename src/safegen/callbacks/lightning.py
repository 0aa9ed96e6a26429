"""The callback for the Trainer of Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safegen.callbacks.reading import Reading
from safegen.errors import MissingExtra
from safegen.gates import LedgerLike
from safegen.policy import Policy
from safegen.tables.sources import SourceLike

try:
    from lightning.pytorch import Callback
except ImportError:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        raise MissingExtra("LightningGuard needs lightning: pip install lightning") from None

__all__ = ["LightningGuard"]


class LightningGuard(Callback):  # type: ignore[misc]
    """Refuses a training whose data the policy does not admit, and puts what it reads into each
    checkpoint, as `checkpoint["safegen"]`: ids and manifest digests of the datasets, digests of
    policy and decision.

        Trainer(..., callbacks=[LightningGuard(ds, policy="training")])

    `on_train_start` raises AdmissionRefused or VerificationError; once it runs, no training is
    stopped. One that goes on from a checkpoint goes on with its record, too; what was verified
    before is not hashed again.
    """

    def __init__(
        self,
        *sources: SourceLike,
        policy: str | Path | Policy = "training",
        ledger: LedgerLike = None,
    ):
        self._reading = Reading(sources, policy, ledger)
        self._before: Mapping[str, Any] | None = None

    def on_load_checkpoint(
        self, trainer: Any, pl_module: Any, checkpoint: Mapping[str, Any]
    ) -> None:
        self._before = checkpoint.get("safegen")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._reading.begin(self._before, int(trainer.global_step))

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        checkpoint["safegen"] = self._reading.record
