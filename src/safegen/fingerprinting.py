"""Step 10: what the ledger is to know a release's rows by, once their metadata are gone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from safegen.lineage.fingerprints import SEEN
from safegen.lineage.registering import printed

if TYPE_CHECKING:
    from safegen.gates import Books
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared
    from safegen.release import Staging
    from safegen.requests import Request
    from safegen.sampling import Sampling

__all__ = ["fingerprinted"]


def fingerprinted(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    books: Books,
) -> Sequence[Attachment]:
    """The fingerprints of a staged release, under the newest key of the ledger; none without one.

    Decoys are drawn here: rows as the release's, from a stream that only the key gives, so that
    nobody can leave them out of a table on purpose.
    """
    if books.ledger is None or not stage.printings:
        return ()
    key_id, key = stage.keys[0]
    named = hashlib.blake2b(request.digest.encode(), key=key, digest_size=8, person=b"decoys")
    seed = int.from_bytes(named.digest(), "little") >> 1
    asked = replace(request, rows=min(request.rows, SEEN), seed=seed)
    shape = sampling.shape(request)
    blocks = [made.tables for made in sampling.blocks(asked, shape, workers=1)]
    attachments: list[Attachment] = []
    for name, printing in stage.printings.items():
        decoys = pa.concat_tables([tables[name] for tables in blocks])
        attachments += printed(
            name, printing, decoys, _real(prepared, name), books.ledger, key_id, key
        )
    return attachments


def _real(prepared: Prepared, name: str) -> pa.Table | None:
    """The real rows behind a release, those held out too."""
    if prepared.parts is None:
        return None
    parts = prepared.parts
    return pa.concat_tables([parts.anchor[name], parts.held[name]])
