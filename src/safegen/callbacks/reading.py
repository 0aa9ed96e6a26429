"""What a training reads, and the decision that it may: the record that its checkpoints keep.

A record is a list of runs, oldest first; a training that goes on from a checkpoint adds its own
where that is another. So a model names all data that it ever saw, not only the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safegen.access import guarded
from safegen.dataset import Dataset
from safegen.errors import ManifestError, UsageError, VerificationError
from safegen.gates import LedgerLike, load_policy
from safegen.manifest import MANIFEST_NAME, Manifest
from safegen.policy import Policy
from safegen.tables.sources import SourceLike

__all__ = ["RECORD", "Reading"]

RECORD = "safegen.json"
_FORM = "safegen-training-v1"


class Reading:
    """The sources of a training. `begin` refuses or admits them; `record` is what was admitted."""

    def __init__(
        self, sources: Sequence[SourceLike], policy: str | Path | Policy, ledger: LedgerLike
    ):
        if not sources:
            raise UsageError("name what the training reads: a Dataset, or any source")
        self._sources, self._policy, self._ledger = list(sources), policy, ledger
        self.record: dict[str, Any] | None = None

    def begin(self, before: Mapping[str, Any] | None, steps: int) -> None:
        """Decide on the sources. before: the record of the checkpoint that training goes on from,
        after so many steps.

        Raises: AdmissionRefused, VerificationError, PolicyError.
        """
        rules = load_policy(self._policy)
        decision, facts = guarded(self._sources, rules, self._ledger)
        run = {
            "datasets": [
                {
                    "dataset_id": known.dataset_id,
                    "manifest": _manifest(source),
                    "logical_digest": known.logical_digest,
                    "uri": known.uri,
                }
                for source, known in zip(self._sources, facts, strict=True)
            ],
            "policy": {k: decision.policy[k] for k in ("id", "version", "digest")},
            "decision": {"digest": decision.digest, "time": decision.time},
        }
        runs = list((before or {}).get("runs") or [])
        if steps and not runs:
            runs = [{"unknown": f"no record was found of what the first {steps:,} steps read"}]
        if not runs or runs[-1] != run:
            runs.append(run)
        self.record = {"schema": _FORM, "runs": runs}


def _manifest(source: SourceLike) -> str | None:
    """The self-digest of a dataset's manifest. Raises: VerificationError when the folder is not
    that of the opened dataset any more."""
    try:
        if isinstance(source, Dataset):
            if Manifest.read(source.path).digest != source.manifest.digest:
                raise VerificationError([f"{source.path}: not the dataset that was opened"])
            return source.manifest.digest
        if isinstance(source, str | Path) and (Path(source) / MANIFEST_NAME).is_file():
            return Manifest.read(Path(source)).digest
    except ManifestError as error:
        raise VerificationError(error.problems) from None
    return None
