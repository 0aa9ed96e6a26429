"""The newest evidence that a ledger has for each rule."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from safegen.ledger import Ledger
from safegen.policy.matrix import Last, Trail

__all__ = ["Newest"]


class Newest:
    """The newest evidence for each rule; a log is read once, and then as far as it is new. Safe in
    threads."""

    def __init__(self, ledger: Ledger):
        from safegen.evidence.policies import shipped_policies

        self._ledger = ledger
        self._lock = threading.Lock()
        self._policies: dict[str, Mapping[str, Any]] = {
            digest: found.policy for digest, found in shipped_policies().items()
        }
        self._trail = Trail(self._policies)
        self._read = {"policy": 0, "decision": 0}

    def last(self) -> dict[str, Last]:
        """By rule. Raises: LedgerError."""
        from safegen.evidence.policies import recorded

        with self._lock:
            entries = list(self._ledger.log(after=self._read["policy"], kind="policy"))
            self._policies |= {d: found.policy for d, found in recorded(entries).items()}
            self._read["policy"] = entries[-1].seq if entries else self._read["policy"]
            for entry in self._ledger.log(after=self._read["decision"], kind="decision"):
                self._trail.told(entry)
                self._read["decision"] = entry.seq
            return dict(self._trail.last)
