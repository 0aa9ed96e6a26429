"""Step 10 for images: what the ledger is to know a release by, however its images were edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from safegen.lineage.image_prints import ImagePrinting, ImagePrints, decoys_for
from safegen.progress import progress
from safegen.tables.numbers import taken

if TYPE_CHECKING:
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared
    from safegen.release import Staging
    from safegen.requests import Request
    from safegen.sampling import Sampling

__all__ = ["image_printings", "images_printed"]

_REAL = 4_096  # real images, spread over all; photographs can take longer to decode than to sample


def image_printings(
    prepared: Prepared, keys: Sequence[tuple[str, bytes]]
) -> dict[str, ImagePrinting]:
    """What takes the hashes of a release's images while they are staged; nothing without a key."""
    if not keys or prepared.kind != "images":
        return {}
    return {name: ImagePrinting() for name in prepared.schemas}


def images_printed(
    stage: Staging,
    request: Request,
    sampling: Sampling,
    prepared: Prepared,
    workers: int | None,
) -> Sequence[Attachment]:
    """The hashes of a staged release's images, and of decoys, under the ledger's newest key.

    workers: processes that sample the decoys.
    """
    if not stage.image_printings:
        return ()
    key_id, key = stage.keys[0]
    asked = request.decoys(decoys_for(request.rows), key)
    decoys = {name: ImagePrinting() for name in stage.image_printings}
    with progress("sampling decoys", asked.rows, "images") as advance:
        for made in sampling.blocks(asked, None, workers):
            for name, table in made.tables.items():
                decoys[name].update(table)
                advance(table.num_rows)
    return [
        ImagePrints.of(released, decoys[name], _real(prepared, name)).attachment(name, key_id, key)
        for name, released in stage.image_printings.items()
    ]


def _real(prepared: Prepared, name: str) -> ImagePrinting:
    """Some of the real images behind a release, those held out too; none that are not at hand."""
    found = ImagePrinting()
    if prepared.parts is not None:
        table = prepared.parts.real(name)
        rows = np.linspace(0, table.num_rows - 1, min(table.num_rows, _REAL)).astype(np.int64)
        found.update(taken(table, rows))
    return found
