"""Step 10: what the ledger is to know a release's rows by, once their metadata are gone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from safegen.lineage.fingerprints import SEEN
from safegen.lineage.image_prints import ImagePrinting, ImagePrints, decoys_for
from safegen.lineage.registering import form_like, printed
from safegen.progress import progress
from safegen.tables.numbers import taken

if TYPE_CHECKING:
    from safegen.gates import Books
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared
    from safegen.release import Staging
    from safegen.requests import Request
    from safegen.sampling import Sampling
    from safegen.shaping.shape import Shape

__all__ = ["fingerprinted"]

_REAL_IMAGES = 4_096  # spread over all; photographs can take longer to decode than to sample


def fingerprinted(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    books: Books,
    workers: int | None,
) -> Sequence[Attachment]:
    """The fingerprints of a staged release, under the ledger's newest key, if there is one.

    workers: processes that sample decoys of images; those of rows take no time.
    """
    if books.ledger is None or not (stage.printings or stage.image_printings):
        return ()
    key_id, key = stage.keys[0]
    if stage.image_printings:
        return _images(stage, request, sampling, prepared, key_id, key, workers)
    shape = sampling.shape(request)
    few = min(request.rows, SEEN)
    decoys = pa.concat_tables(
        table for made in _decoys(few, request, sampling, shape, key, 1) for table in made.values()
    )
    mark = None if shape is None else shape.watermark
    attachments: list[Attachment] = []
    for name, printing in stage.printings.items():
        kept = books.ledger, key_id, key
        form = form_like(printing.first(), printing.hasher, *kept) if mark is None else mark.form
        attachments += printed(name, printing, form, decoys, _real(prepared, name), *kept)
    return attachments


def _images(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    key_id: str,
    key: bytes,
    workers: int | None,
) -> list[Attachment]:
    decoys = {name: ImagePrinting() for name in stage.image_printings}
    wanted = decoys_for(request.rows)
    with progress("sampling decoys", wanted, "images") as advance:
        for made in _decoys(wanted, request, sampling, None, key, workers):
            for name, table in made.items():
                decoys[name].update(table)
                advance(table.num_rows)
    attachments = []
    for name, released in stage.image_printings.items():
        real = ImagePrinting()
        if (table := _real(prepared, name)) is not None:
            few = min(table.num_rows, _REAL_IMAGES)
            real.update(taken(table, np.linspace(0, table.num_rows - 1, few).astype(np.int64)))
        prints = ImagePrints.of(released, decoys[name], real)
        attachments.append(prints.attachment(name, key_id, key))
    return attachments


def _decoys(
    rows: int,
    request: Request,
    sampling: Sampling,
    shape: Shape | None,
    key: bytes,
    workers: int | None,
) -> Iterator[Mapping[str, pa.Table]]:
    """Tables of rows of a release's model, from a seed that the key makes of the request."""
    named = hashlib.blake2b(request.digest.encode(), key=key, digest_size=8, person=b"decoys")
    seed = int.from_bytes(named.digest(), "little") >> 1
    for made in sampling.blocks(replace(request, rows=rows, seed=seed), shape, workers):
        yield made.tables


def _real(prepared: Prepared, name: str) -> pa.Table | None:
    """The real rows behind a release, those held out too."""
    if prepared.parts is None:
        return None
    parts = prepared.parts
    return pa.concat_tables([parts.anchor[name], parts.held[name]])
