"""The two digests of a table's content.

*Logical digest*: exact cells, independent of row order, of column order, and of how the file is
written. It is LtHash16 (Bellare and Micciancio 1997; parameters n = 1024, 16-bit lanes as deployed
in Lewi et al., "Securing Update Propagation with Homomorphic Hashing", 2019, who estimate at least
200 bits of collision resistance): each row is expanded to 1024 lanes, and the lanes are added. So
it is a multiset hash, it merges across shards by addition, and it needs 2 KiB whatever the number
of rows. Anyone can compute it. Its scheme says what expands a row: BLAKE3 (O'Connor et al. 2020) in
`safegen-rows-v2`, SHAKE-128 in `safegen-rows-v1`, which is made where something asks for it.

*Lookup digest*: keyed and tolerant. Rows of tolerant cells are hashed with a secret key and added
(MSet-Add-Hash, Clarke et al. 2003, secure while the key is secret). It finds a re-saved copy in
the ledger, and is never published.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from safegen.tables.batches import Batches, is_provenance
from safegen.tables.cells import coded, exact_cells, row_cells, tolerant_cells
from safegen.tables.lanes import EXPANSIONS, LANES, in_pieces, summed

__all__ = [
    "SCHEME",
    "SCHEMES",
    "LookupDigest",
    "RowsDigest",
    "TableDigests",
    "combine",
    "folded",
    "scheme_of",
    "without_index",
]

SCHEME = "safegen-rows-v2"
"""The scheme of the logical digests that are made."""

SCHEMES = tuple(EXPANSIONS)
"""All schemes of logical digests that can be verified and looked up, the oldest first."""

_OF_TABLES = {s: s.replace("rows", "tables") for s in SCHEMES}


def scheme_of(digest: str) -> str | None:
    """The scheme of a logical digest, of one table or of several; None for none of `SCHEMES`."""
    named = digest.partition(":")[0]
    return next((s for s in SCHEMES if named in (s, _OF_TABLES[s])), None)


def _content_names(schema: pa.Schema) -> list[str]:
    """The columns that make up the content, in an order of their own."""
    return sorted(n for n in schema.names if not is_provenance(n))


def folded(name: str) -> str:
    """A column's name as other tools may have left it."""
    return unicodedata.normalize("NFC", name).strip().casefold()


_INDEX = re.compile(r"|index|level_\d+|unnamed: \d+|__index_level_\d+__")


def without_index(batches: Batches) -> Batches | None:
    """The table without the columns that pandas saves an index as; None if it has none."""
    names = [n for n in batches.schema.names if not _INDEX.fullmatch(folded(n))]
    if len(names) == len(batches.schema.names) or not _content_names_of(names):
        return None
    return batches.select(names)


def _content_names_of(names: Iterable[str]) -> list[str]:
    return sorted(n for n in names if not is_provenance(n))


class RowsDigest:
    """The logical digest of a table while it is being read or written.

    `update` takes record batches in any order and any cut; `merge` adds another digest of the
    same columns, which may have been made elsewhere: it pickles. The `_safegen_*` columns are not
    content.

    also: older schemes in which its value is wanted too.
    """

    def __init__(self, schema: pa.Schema, also: Collection[str] = ()):
        self.names = _content_names(schema)
        self.rows = 0
        self._lanes = {s: np.zeros(LANES, dtype=np.uint16) for s in SCHEMES if s in (SCHEME, *also)}

    def update(self, batch: pa.RecordBatch) -> None:
        for rows in row_cells(batch, self.names, exact_cells):
            for scheme, lanes in self._lanes.items():
                lanes += summed(scheme, self._prefix(scheme), rows)
        self.rows += batch.num_rows

    def merge(self, other: RowsDigest) -> None:
        """Add the rows that another digest has seen. Raises: ValueError on other columns or
        schemes."""
        if (other.names, other._lanes.keys()) != (self.names, self._lanes.keys()):
            raise ValueError("digests of different columns or schemes do not add up")
        for scheme, lanes in self._lanes.items():
            lanes += other._lanes[scheme]
        self.rows += other.rows

    def value(self, scheme: str = SCHEME) -> str:
        h = hashlib.sha256(self._prefix(scheme))
        h.update(self.rows.to_bytes(8, "little"))
        h.update(self._lanes[scheme].astype("<u2").tobytes())
        return f"{scheme}:{h.hexdigest()}"

    def _prefix(self, scheme: str) -> bytes:
        return hashlib.sha256("\x00".join([scheme, *self.names]).encode()).digest()


class LookupDigest:
    """The keyed, tolerant digest of a table, for one key epoch of a ledger.

    `update` takes record batches in any order and any cut; `merge` adds another of the same columns
    and key. A pickle of it holds no key, so that none is ever written down: what comes out of one
    can be merged into a digest that has the key, and nothing else.
    """

    def __init__(self, schema: pa.Schema, key: bytes):
        # Ordered by the folded name: a renamed "Age" for "age" must not reorder the columns.
        self.names = sorted(_content_names(schema), key=lambda n: (folded(n), n))
        self.rows = 0
        self._key = hashlib.blake2b(key, digest_size=32, person=b"safegen-lookup").digest()
        self._prefix = "\x00".join(folded(n) for n in self.names).encode()
        self._same = hashlib.blake2b(self._prefix, key=self._key, person=b"same").digest()
        self._sum = np.zeros(4, dtype=np.uint64)

    def update(self, batch: pa.RecordBatch) -> None:
        self.update_all([self], batch)

    @staticmethod
    def update_all(lookups: Collection[LookupDigest], batch: pa.RecordBatch) -> None:
        """Update the digests of one table under several keys: its cells are made, and its images
        decoded, once."""
        names = next((one.names for one in lookups), None)
        if names is not None:
            for rows in row_cells(batch, names, tolerant_cells):
                for one in lookups:
                    one._add(rows)

    def _add(self, rows: npt.NDArray[np.void]) -> None:
        copy = hashlib.blake2b(key=self._key, digest_size=32).copy
        for some in in_pieces(rows):
            hashes = []
            for row in some:
                h = copy()
                h.update(row)
                hashes.append(h.digest())
            words = np.frombuffer(b"".join(hashes), dtype="<u8").reshape(-1, 4)
            self._sum += words.sum(axis=0, dtype=np.uint64)
        self.rows += len(rows)

    def merge(self, other: LookupDigest) -> None:
        """Add the rows that another digest has seen. Raises: ValueError on other columns, or
        another key."""
        if other._same != self._same:
            raise ValueError("lookup digests of different columns or keys do not add up")
        self._sum += other._sum
        self.rows += other.rows

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "_key"}

    def handed_over(self) -> dict[str, Any]:
        """All that another process needs to go on with it, its key as well: who has that can tell
        of any table whether the ledger knows it, and of the ledger's own key nothing."""
        return dict(vars(self))

    @classmethod
    def taken_over(cls, handed: Mapping[str, Any]) -> LookupDigest:
        """What was handed over, with no rows yet."""
        taken = cls.__new__(cls)
        vars(taken).update({**handed, "rows": 0, "_sum": np.zeros(4, dtype=np.uint64)})
        return taken

    def keyed(self, key: bytes) -> LookupDigest:
        """What came out of a pickle, with its key. Raises: ValueError for another one."""
        self._key = hashlib.blake2b(key, digest_size=32, person=b"safegen-lookup").digest()
        if hashlib.blake2b(self._prefix, key=self._key, person=b"same").digest() != self._same:
            raise ValueError("a lookup digest was made with another key")
        return self

    def value(self) -> str:
        h = hashlib.blake2b(self._prefix, key=self._key, digest_size=32, person=b"table")
        h.update(self.rows.to_bytes(8, "little"))
        h.update(self._sum.astype("<u8").tobytes())
        return h.hexdigest()


class TableDigests:
    """The digests of one table: its logical digest, and its lookup digest under every key."""

    def __init__(
        self,
        schema: pa.Schema,
        keys: Iterable[tuple[str, bytes]] = (),
        also: Collection[str] = (),
    ):
        self.rows = RowsDigest(schema, also)
        self.lookups = {key_id: LookupDigest(schema, key) for key_id, key in keys}

    def update(self, batch: pa.RecordBatch) -> None:
        if self.lookups:
            batch = coded(batch)
        self.rows.update(batch)
        LookupDigest.update_all(self.lookups.values(), batch)

    def merge(self, other: TableDigests) -> None:
        self.rows.merge(other.rows)
        for key_id, lookup in self.lookups.items():
            lookup.merge(other.lookups[key_id])


def combine(digests: Mapping[str, str]) -> str:
    """The digest of several tables: of one table, its own; else over names and digests, under the
    scheme that they have."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    scheme = _OF_TABLES[next(map(scheme_of, digests.values()), None) or SCHEMES[0]]
    h = hashlib.sha256(scheme.encode())
    for name in sorted(digests):
        h.update(f"{name}\x00{digests[name]}\x00".encode())
    return f"{scheme}:{h.hexdigest()}"
