"""Step 10: what the ledger is to know a release's rows by, once their metadata are gone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from safegen.lineage.fingerprints import SEEN
from safegen.lineage.registering import form_like, printed

if TYPE_CHECKING:
    from safegen.gates import Books
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared
    from safegen.release import Staging
    from safegen.requests import Request
    from safegen.sampling import Sampling
    from safegen.shaping.shape import Shape

__all__ = ["fingerprinted"]


def fingerprinted(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    books: Books,
) -> Sequence[Attachment]:
    """The fingerprints of a staged release, under the ledger's newest key, if there is one."""
    if books.ledger is None or not stage.printings:
        return ()
    key_id, key = stage.keys[0]
    shape = sampling.shape(request)
    decoys = _decoys(request, sampling, shape, key)
    mark = None if shape is None else shape.watermark
    attachments: list[Attachment] = []
    for name, printing in stage.printings.items():
        kept = books.ledger, key_id, key
        form = form_like(printing.first(), printing.hasher, *kept) if mark is None else mark.form
        attachments += printed(name, printing, form, decoys, _real(prepared, name), *kept)
    return attachments


def _decoys(request: Request, sampling: Sampling, shape: Shape | None, key: bytes) -> pa.Table:
    """As many rows as are looked at of the release, from a seed that the key makes of it."""
    named = hashlib.blake2b(request.digest.encode(), key=key, digest_size=8, person=b"decoys")
    seed = int.from_bytes(named.digest(), "little") >> 1
    asked = replace(request, rows=min(request.rows, SEEN), seed=seed)
    blocks = sampling.blocks(asked, shape, workers=1)
    return pa.concat_tables([table for made in blocks for table in made.tables.values()])


def _real(prepared: Prepared, name: str) -> pa.Table | None:
    """The real rows behind a release, those held out too."""
    if prepared.parts is None:
        return None
    parts = prepared.parts
    return pa.concat_tables([parts.anchor[name], parts.held[name]])
