"""What a consumer of data calls: `check` gives a decision, `guard` and `open` enforce it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safegen import gates
from safegen.dataset import Dataset, inspect_folder
from safegen.decision import Decision
from safegen.errors import UsageError
from safegen.gates import Books, LedgerLike, load_policy
from safegen.lineage.beside_anchor import told_apart
from safegen.manifest import PublicKey
from safegen.places import Place, place_of
from safegen.policy import Policy
from safegen.tables.sources import SourceLike, read_source

__all__ = ["check", "guard", "open"]


def check(
    source: SourceLike,
    *more_sources: SourceLike,
    policy: str | Path | Policy = "training",
    ledger: LedgerLike = None,
    power: float | None = None,
) -> Decision:
    """Whether a policy admits data for training. Never raises for a refusal.

    Several sources are judged together, as they would be pooled; one without evidence beside one
    that is attested to be real is compared with it, in a note. The decision is written to the
    ledger. power: look at random rows only, as many as it takes to find such a share of rows of any
    registered release (.001: one in a thousand) with a chance of 99.9 %; seconds for any number of
    rows. Digests need all rows, so that nothing is then known to be attested.

    Raises: SourceError (unreadable data), PolicyError, UsageError for a power that is no share.
    """
    if power is not None and not 0 < power < 1:
        raise UsageError("power is a share of rows, between 0 and 1: 0.001 is one in a thousand")
    rules = load_policy(policy)
    books = Books.open(ledger)
    opened, facts, books = gates.resolve_all(
        [source, *more_sources], books, power, gates.trusted(rules), released=True
    )
    return gates.admit(rules, facts, books, power=power, notes=told_apart(opened, facts))


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
    path: str | os.PathLike[str] | Place,
    *,
    policy: str | Path | Policy = "training",
    trusted_keys: Sequence[str | Path | PublicKey] | None = None,
    ledger: LedgerLike = None,
) -> Dataset:
    """A dataset, verified and admitted by the policy.

    Raises: VerificationError, AdmissionRefused, PolicyError.
    """
    place = place_of(path)
    rules = load_policy(policy)
    books = Books.open(ledger)
    keys = gates.trusted(rules)
    verified = inspect_folder(place, trusted_keys, ledger=books.ledger, known=keys)
    keys = [*keys, *verified.signed_by]
    source = replace(read_source(place), checked=verified.check)  # every byte is read already
    _, facts, books = gates.resolve_all([source], books, keys=keys, released=True)
    gates.admit(rules, facts, books).enforce()
    return Dataset(place, verified.manifest)
