"""The tables of a ledger, as far as datasets come from another ledger or go to one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from safegen.ledger.base import WITHDRAWAL, Attached, canonical, parsed, sha256
from safegen.ledger.stores import Transaction
from safegen.ledger.verification import epochs

__all__ = ["Imports", "attached_to", "digest_alone", "digested", "names", "withdrawn"]

_PARTS = (
    "SELECT r.dataset_id, a.kind, a.name, a.key_id, a.digest"
    " FROM attachments AS a JOIN records AS r USING (seq)"
)
# A name that another's continues, after a slash: fingerprints are named after their form.
_NEEDED = (
    " WHERE a.seq <> ? AND EXISTS (SELECT 1 FROM attachments AS m WHERE m.seq = ?"
    " AND m.key_id = a.key_id AND substr(m.name, 1, length(a.name) + 1) = a.name || '/')"
)


class Imports:
    """What a ledger's import entries say: whose signatures are trusted, and whose keys are known.

    keys: the key ids of other ledgers, each with the id of the ledger that was said to have it.
    """

    def __init__(self, db: Transaction, entries: Iterable[Mapping[str, Any]]):
        every = list(entries)
        self._trusted = {e["signed_by"] for e in every if e["trusted"]}
        self._later: dict[str, set[str]] = {}
        for entry in every:
            for dataset_id in entry["vouched"]:
                self._later.setdefault(dataset_id, set()).add(entry["signed_by"])
        self.keys: dict[str, str] = {}
        for entry in every:  # the first word counts: no later file moves a key elsewhere
            self.keys = {**entry["keys"], **self.keys}
        for own in epochs(db):
            self.keys.pop(own, None)

    def trusts(self, key_id: str | None) -> bool:
        """Whether what a key has signed counts as if it was stated here."""
        return key_id is not None and key_id in self._trusted

    def signers(self, said: Mapping[str, Any]) -> set[str]:
        """The keys that signed an imported registration, when it came or when it came again."""
        first = {said["imported"]["signed_by"]} - {None}
        return first | self._later.get(said["dataset_id"], set())

    def claims(self, said: Mapping[str, Any]) -> bool:
        """Whether an imported registration is no more than another ledger's claim."""
        return not self.signers(said) & self._trusted


def digested(db: Transaction, seq: int) -> dict[str, list[str]]:
    """The lookup digests of a registration, by key id."""
    found: dict[str, list[str]] = {}
    query = "SELECT key_id, digest FROM lookups WHERE seq = ? ORDER BY key_id, digest"
    for key_id, digest in db.execute(query, (seq,)):
        found.setdefault(key_id, []).append(digest)
    return found


def digest_alone(db: Transaction, scheme: str, key_ids: Collection[str]) -> bool:
    """Whether a record has a logical digest of this scheme, of one table or of several, and no
    lookup digest under any of the keys."""
    marks = ", ".join("?" * len(key_ids))
    keyed = f" AND lookups.key_id IN ({marks})" if key_ids else " AND 1 = 0"
    query = (
        "SELECT 1 FROM records WHERE (logical_digest LIKE ? OR logical_digest LIKE ?) AND NOT"
        f" EXISTS (SELECT 1 FROM lookups WHERE lookups.seq = records.seq{keyed}) LIMIT 1"
    )
    digests = [f"{scheme}:%", f"{scheme.replace('rows', 'tables')}:%"]
    return db.execute(query, (*digests, *key_ids)).fetchone() is not None


def attached_to(
    db: Transaction, seq: int
) -> tuple[list[tuple[Attached, str]], list[tuple[Attached, str]]]:
    """What is attached to a registration, and what of others' attachments that continues."""
    own = _listed(db.execute(f"{_PARTS} WHERE a.seq = ? ORDER BY a.kind, a.name", (seq,)))
    return own, _listed(db.execute(f"{_PARTS}{_NEEDED} ORDER BY a.seq, a.name", (seq, seq)))


def names(db: Transaction) -> set[tuple[str, str, str]]:
    """The (kind, name, key id) of every attachment."""
    return set(db.execute("SELECT kind, name, key_id FROM attachments"))


def withdrawn(db: Transaction) -> set[str]:
    """The digests of all withdrawals."""
    rows = db.execute("SELECT payload FROM log WHERE kind = ?", (WITHDRAWAL,))
    return {sha256(canonical(parsed(text), "withdrawal")) for (text,) in rows}


def _listed(rows: Iterable[tuple[str, str, str, str, str]]) -> list[tuple[Attached, str]]:
    return [(Attached(*where), digest) for *where, digest in rows]
