"""What a consumer of data calls: `check` gives a decision, `guard` and `open` enforce it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from safegen import gates
from safegen.dataset import Dataset, inspect_folder
from safegen.decision import Decision
from safegen.gates import Books, LedgerLike, load_policy
from safegen.manifest import PublicKey
from safegen.policy import Policy
from safegen.tables.sources import SourceLike

__all__ = ["check", "guard", "open"]


def check(
    source: SourceLike,
    *more_sources: SourceLike,
    policy: str | Path | Policy = "training",
    ledger: LedgerLike = None,
) -> Decision:
    """Whether a policy admits data for training. Never raises for a refusal.

    Several sources are judged together, as they would be pooled. The decision is written to the
    ledger. Raises: SourceError (unreadable data), PolicyError.
    """
    rules = load_policy(policy)
    books = Books.open(ledger)
    _, facts, books = gates.resolve_all([source, *more_sources], books)
    return gates.admit(rules, facts, books)


def guard(
    source: SourceLike,
    *more_sources: SourceLike,
    policy: str | Path | Policy = "training",
    ledger: LedgerLike = None,
) -> Decision:
    """`check`, enforced: one line at the top of a training script.

    Raises: AdmissionRefused when the policy does not admit the data.
    """
    return check(source, *more_sources, policy=policy, ledger=ledger).enforce()


def open(
    path: str | os.PathLike[str],
    *,
    policy: str | Path | Policy = "training",
    trusted_keys: Sequence[str | Path | PublicKey] | None = None,
    ledger: LedgerLike = None,
) -> Dataset:
    """A dataset, verified and admitted by the policy.

    Raises: VerificationError, AdmissionRefused, PolicyError.
    """
    rules = load_policy(policy)
    books = Books.open(ledger)
    verified = inspect_folder(path, trusted_keys, ledger=books.ledger)
    _, facts, books = gates.resolve_all([Path(path)], books)
    gates.admit(rules, facts, books).enforce()
    return Dataset(Path(path), verified.manifest)
