"""The callback for the Trainer of transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from safegen.callbacks.reading import RECORD, Reading
from safegen.errors import MissingExtra
from safegen.gates import LedgerLike
from safegen.manifest.model import write_whole
from safegen.policy import Policy
from safegen.tables.sources import SourceLike

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingExtra("TrainerGuard needs transformers: pip install transformers") from None

__all__ = ["TrainerGuard"]

_log = logging.getLogger("safegen.callbacks")


class TrainerGuard(TrainerCallback):
    """Refuses a training whose data the policy does not admit, and writes `safegen.json` into each
    checkpoint: ids and manifest digests of the datasets, digests of policy and decision.

        Trainer(..., callbacks=[TrainerGuard(ds, policy="training")])

    `on_train_begin` raises AdmissionRefused or VerificationError. Once it runs, no training is
    stopped: a record that cannot be written is logged. One that goes on from a checkpoint of its
    output folder goes on with its record, too; what was verified before is not hashed again.
    """

    def __init__(
        self,
        *sources: SourceLike,
        policy: str | Path | Policy = "training",
        ledger: LedgerLike = None,
    ):
        self._reading = Reading(sources, policy, ledger)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps = int(state.global_step)
        self._reading.begin(_before(args, steps) if steps else None, steps)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._write(_checkpoint(args, state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The model that `save_model` puts into the output folder has its record there."""
        if state.is_world_process_zero:
            self._write(Path(args.output_dir))

    def _write(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / RECORD, json.dumps(self._reading.record, indent=1).encode())
        except OSError as error:
            _log.warning("%s cannot be written (%s)", folder / RECORD, error.strerror)


def _checkpoint(args: Any, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _before(args: Any, steps: int) -> dict[str, Any] | None:
    """The record of the checkpoint that training goes on from, where it can be told which."""
    named = args.resume_from_checkpoint
    for folder in (Path(named) if isinstance(named, str) else None, _checkpoint(args, steps)):
        if folder is None:
            continue
        try:
            record = json.loads((folder / RECORD).read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and isinstance(record.get("runs"), list):
            return record
    return None
