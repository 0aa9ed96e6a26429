"""What a consumer of data calls: `check` gives a decision, `guard` and `open` enforce it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from safegen import gates
from safegen.dataset import Dataset, Verified, inspect_folder
from safegen.decision import Decision
from safegen.errors import LedgerError, UsageError, VerificationError
from safegen.gates import Books, LedgerLike, load_policy
from safegen.lineage.beside_anchor import told_apart
from safegen.lineage.facts import SourceFacts
from safegen.loading.unweighted import warn_of_weights
from safegen.manifest import MANIFEST_NAME, PublicKey
from safegen.places import Place, place_of
from safegen.policy import Policy
from safegen.receipts import Receipt, turn
from safegen.tables.batches import WEIGHT_COLUMN
from safegen.tables.sources import Source, SourceLike, read_source

__all__ = ["check", "guard", "guarded", "open"]


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

    A dataset's folder that this user's earlier run, or another rank of this job, has verified is
    not read again while it is as it was (`safegen.receipts`); `check` takes no receipt. Warns,
    once, of a dataset whose rows have weights that differ and that no `Dataset` hands out.

    Raises: AdmissionRefused when the policy does not admit the data.
    """
    return guarded([source, *more_sources], load_policy(policy), ledger)[0]


def guarded(
    sources: Sequence[SourceLike], rules: Policy, ledger: LedgerLike = None
) -> tuple[Decision, list[SourceFacts]]:
    """`guard`, and what each source is."""
    opened, facts, books = _established(sources, rules, Books.open(ledger))
    folder = _folder(sources[0]) if len(sources) == 1 else None
    with nullcontext() if folder is None else turn(folder) as receipt:
        decision = _admitted(rules, facts, books, receipt, told_apart(opened, facts))
    for one, place, known in zip(sources, opened, facts, strict=True):
        if known.weighted and not _hands_weights_out(one, place):
            warn_of_weights(known.dataset_id or place.uri, place.uri)
    return decision, facts


def open(
    path: str | os.PathLike[str] | Place,
    *,
    policy: str | Path | Policy = "training",
    trusted_keys: Sequence[str | Path | PublicKey] | None = None,
    ledger: LedgerLike = None,
    lazily: bool = False,
) -> Dataset:
    """A dataset, verified and admitted by the policy.

    Its bytes are hashed once, and its rows looked at where neither the ledger nor a key that is
    trusted vouches for the manifest: while the folder stays as it was, later runs of this user, and
    other ranks of the same job, take what was found then from a receipt (`safegen.receipts`). The
    policy, the ledger and the calendar are asked each time.

    lazily: leave hashing to the loaders, which hash each row group that they read: for what is too
    large, or too far away, to be read as a whole. A change is then found where it lies, in the
    middle of an epoch perhaps. Where nobody vouches for the manifest all is read all the same.

    Raises: VerificationError, AdmissionRefused, PolicyError.
    """
    place = place_of(path)
    rules = load_policy(policy)
    books = Books.open(ledger)
    with turn(place) as receipt:
        verified, _, facts, books = _verified(
            place, trusted_keys, rules, books, receipt, lazily=lazily
        )
        _admitted(rules, [facts], books, receipt)
    return Dataset(place, verified.manifest)


def _verified(
    place: Place,
    trusted_keys: Sequence[str | Path | PublicKey] | None,
    rules: Policy,
    books: Books,
    receipt: Receipt,
    *,
    lazily: bool = False,
) -> tuple[Verified, Source, SourceFacts, Books]:
    """A dataset's folder, opened, and what it is: from the receipt where that has it, else into it.
    Where its manifest is vouched for, the rows are not asked at all.

    Raises: VerificationError.
    """
    keys = gates.trusted(rules)
    inspected = partial(
        inspect_folder, place, trusted_keys, ledger=books.ledger, known=keys, hashed=receipt.known
    )
    verified = inspected(lazily=lazily)
    if lazily and not (verified.signed_by or verified.in_ledger):
        lazily, verified = False, inspected()
    # Every byte is known already, or will be hashed where it is read.
    source = replace(read_source(place), checked=verified.check)
    vouched = bool(verified.signed_by or verified.in_ledger)
    facts = None
    if not vouched:
        with suppress(LedgerError):  # one that fails now fails below too, and is dealt with there
            facts = receipt.facts(verified.manifest, books.state, books.ledger)
    if facts is None:
        signers = [*keys, *verified.signed_by]
        _, [facts], books = gates.resolve_all([source], books, keys=signers, released=True)
        told = lazily or (vouched and receipt.whole)
        if books.ledger is not None and not facts.problems and not told:
            receipt.keep(verified.manifest, None if vouched else facts, books.state)
    return verified, source, facts, books


def _established(
    sources: Sequence[SourceLike], rules: Policy, books: Books
) -> tuple[list[Source], list[SourceFacts], Books]:
    """`gates.resolve_all`, where datasets' folders have receipts."""
    keys = gates.trusted(rules)
    opened, every = [], []
    for source in sources:
        folder, now = _folder(source), books
        facts = None
        if folder is not None:
            # What does not verify is for the policy to judge: its problems are findings.
            with suppress(VerificationError), turn(folder) as receipt:
                _, place, facts, now = _verified(folder, None, rules, books, receipt)
                opened.append(place)
        if facts is None:
            [place], [facts], now = gates.resolve_all([source], books, keys=keys, released=True)
            opened.append(place)
        if now.ledger is None and books.ledger is not None:
            return gates.resolve_all(sources, now, keys=keys, released=True)
        every.append(facts)
    return opened, every, books


def _admitted(
    rules: Policy,
    facts: Sequence[SourceFacts],
    books: Books,
    receipt: Receipt | None,
    notes: Sequence[str] = (),
) -> Decision:
    """The decision, enforced. It is taken now; where nothing else was found than when it was last
    written down, that one stands, and is not written again."""
    before = None if receipt is None else receipt.decision(rules.digest, books.state)
    decision = gates.admit(rules, facts, books, notes=notes, before=before).enforce()
    if receipt is not None and books.ledger is not None:
        receipt.keep_decision(rules.digest, books.state, decision.said)
    return decision


def _folder(source: SourceLike) -> Path | None:
    """The folder of a released dataset on this machine, where the source is one."""
    if isinstance(source, Dataset):
        return source.path if isinstance(source.path, Path) else None
    if isinstance(source, str | os.PathLike) and (Path(source) / MANIFEST_NAME).is_file():
        return Path(source)
    return None


def _hands_weights_out(source: SourceLike, opened: Source) -> bool:
    """Whether the caller holds the weights: a `Dataset` hands them out, and a frame may have kept
    their column."""
    kept = any(WEIGHT_COLUMN in batches.schema.names for batches in opened.tables.values())
    return isinstance(source, Dataset) or (opened.uri == "memory:" and kept)
