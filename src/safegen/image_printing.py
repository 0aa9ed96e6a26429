"""Step 10 for images: what the ledger is to know a release by, however its images were edited."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from safegen.lineage.image_prints import ImagePrinting, ImagePrints
from safegen.tables.numbers import taken

if TYPE_CHECKING:
    from safegen.engines.writing import Written
    from safegen.ledger import Attachment
    from safegen.preparation import Prepared

__all__ = ["images_printed"]

_REAL = 4_096  # real images, spread over all; photographs can take longer to decode than to sample


def images_printed(
    written: Written, decoys: Written, prepared: Prepared, key_id: str, key: bytes
) -> list[Attachment]:
    """The hashes of a staged release's images, and of decoys, sealed with a key."""
    return [
        ImagePrints.of(released, decoys.image_printings[name], _real(prepared, name)).attachment(
            name, key_id, key
        )
        for name, released in written.image_printings.items()
    ]


def _real(prepared: Prepared, name: str) -> ImagePrinting:
    """Some of the real images behind a release, those held out too; none that are not at hand."""
    found = ImagePrinting()
    if prepared.parts is not None:
        table = prepared.parts.real(name)
        rows = np.linspace(0, table.num_rows - 1, min(table.num_rows, _REAL)).astype(np.int64)
        found.update(taken(table, rows))
    return found
